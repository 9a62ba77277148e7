//! `vpclab exec INSTANCE -- CMD...`.

use std::ffi::OsString;

use super::common::{Done, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub how: How,
    /// The instance, bare or VPC.NAME
    pub instance: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub cmd: Vec<OsString>,
}

/// What `exec`, `shell` and `run` have in common.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct How {
    /// Keep a variable of the caller, or set one
    #[arg(long = "env", value_name = "K[=V]")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(long, env = "VPCLAB_USER")]
    pub user: Option<String>,
    /// End the command after this time
    #[arg(long, value_parser = super::common::duration, env = "VPCLAB_TIMEOUT")]
    pub timeout: Option<std::time::Duration>,
}

#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(not(target_os = "linux"))]
pub fn run(_args: Args) -> Done {
    Err(super::common::Failure::host("a lab needs Linux").with_exit(125))
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::cli::common::Failure;
    use crate::control::api::{DropRow, Filter, Reply, Request};
    use crate::host::exec::{self, ExecInfo, ExecOptions, Keep, Namespaces};
    use crate::host::rundir::RunDir;
    use crate::runtime::client::{Client, ClientError};

    pub fn run(args: Args) -> Done {
        run_inner(args).map_err(|failure| Failure { exit: exec::OWN_FAILURE as u8, ..failure })
    }

    fn run_inner(args: Args) -> Done {
        let run_dir = crate::cli::up::choose(&args.lab)?;
        run_in(&run_dir, &args.instance, &args.cmd, &args.how)
    }

    /// The command's exit code. Where it fails, one line on stderr names the drops of its flows.
    pub fn run_in(run_dir: &RunDir, instance: &str, cmd: &[OsString], how: &How) -> Done {
        let mut client = Client::connect(run_dir.path())?;
        let started = std::time::Instant::now();
        let (info, join, path) = ask(&mut client, run_dir, instance)?;
        let code = exec::run(&info, &join, cmd, &options(how))?;
        if code != 0 {
            // The lab may have gone meanwhile: the command's own code is what counts.
            let _ = name_drops(&mut client, &path, started.elapsed());
        }
        Ok(u8::try_from(code).unwrap_or(exec::OWN_FAILURE as u8))
    }

    /// What the host needs to run commands as this instance, and the instance's path.
    pub fn ask(
        client: &mut Client,
        run_dir: &RunDir,
        instance: &str,
    ) -> Result<(ExecInfo, Namespaces, String), Failure> {
        let (reply, mut fds) = client.ask_with_fds(Request::Exec { instance: instance.to_owned() })?;
        let Reply::Exec(info) = reply else { return Err(ClientError::Unexpected.into()) };
        if fds.len() != 1 + usize::from(info.user_namespace) {
            return Err(ClientError::Unexpected.into());
        }
        let net = fds.remove(0);
        let join = Namespaces { user: fds.pop(), net };
        let known = ExecInfo {
            lab: run_dir.lab().to_owned(),
            instance: info.path.clone(),
            files: run_dir.instance(&info.path),
            ca_bundle: Some(info.ca_path.into()),
            region: info.region,
            env: info.env,
        };
        Ok((known, join, info.path))
    }

    pub fn options(how: &How) -> ExecOptions {
        let keep = how.env.iter().map(|text| Keep::parse(text)).collect();
        ExecOptions { keep, user: how.user.clone(), timeout: how.timeout, ..ExecOptions::default() }
    }

    /// One line: what was dropped of what this instance sent or was sent meanwhile, and the `explain` to type.
    fn name_drops(client: &mut Client, path: &str, during: std::time::Duration) -> Result<(), ClientError> {
        let since_ms = u64::try_from(during.as_millis()).ok().map(|ms| ms.saturating_add(200));
        let filter = Filter { from: Some(path.to_owned()), since_ms, ..Filter::default() };
        let Reply::Drops(rows) = client.ask(Request::Drops(filter))? else { return Ok(()) };
        if let Some(row) = rows.iter().max_by_key(|row| row.count) {
            eprintln!("vpclab: {}", drop_line(path, row, rows.len() - 1));
        }
        Ok(())
    }

    fn drop_line(path: &str, row: &DropRow, others: usize) -> String {
        let more =
            if others > 0 { format!(", and {others} more of `vpclab drops --from {path}`") } else { String::new() };
        let dst = if row.proto == "tcp" { row.dst.clone() } else { format!("{}/{}", row.dst, row.proto) };
        format!(
            "{} packets to {} ({}) were dropped: {} at {}{more}; why: vpclab explain {path} {dst}",
            row.count, row.to, row.dst, row.code, row.object
        )
    }
}
