//! `vpclab exec INSTANCE -- CMD...`: as that instance, with its network, names, trust, region and credentials.

use std::ffi::OsString;
use std::time::Duration;

use super::common::{Done, Failure, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub how: How,
    /// The instance: NAME or VPC.NAME
    pub instance: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub cmd: Vec<OsString>,
}

/// What `exec`, `shell` and `run` share.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct How {
    /// Keep a variable of the caller, or set one
    #[arg(long = "env", value_name = "K[=V]")]
    pub env: Vec<String>,
    /// Run as this user (NAME, UID, NAME:GROUP); `root` may change the instance's network
    #[arg(long, env = "VPCLAB_USER")]
    pub user: Option<String>,
    /// End the command after this time
    #[arg(long, env = "VPCLAB_TIMEOUT", value_parser = super::common::duration)]
    pub timeout: Option<Duration>,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    // Before the command runs, all that fails is ours: 125, as in docker.
    let ours = |failure: Failure| if failure.exit == 3 { failure.with_exit(125) } else { failure };
    let mut client = super::up::connect(&args.lab).map_err(ours)?;
    run_in(&mut client, &args.instance, &args.cmd, &args.how, args.lab.lab.as_deref())
}

/// Runs a command in an instance and gives its exit code. When it fails, one line on stderr names the drops of the time
/// it ran.
#[cfg(target_os = "linux")]
pub fn run_in(
    client: &mut crate::runtime::client::Client,
    instance: &str,
    cmd: &[OsString],
    how: &How,
    lab: Option<&str>,
) -> Done {
    use crate::control::api::{Reply, Request};
    use crate::host::exec::{self, ExecOptions, Keep, Namespaces};
    use crate::runtime::client::ClientError;

    let (reply, fds) = client.ask_with_fds(Request::Exec { instance: instance.to_owned() })?;
    let Reply::Exec(info) = reply else { return Err(ClientError::Unexpected.into()) };
    let mut fds = fds.into_iter();
    let Some(net) = fds.next() else { return Err(ClientError::Unexpected.into()) };
    let join = Namespaces { user: fds.next(), net };
    let run_dir = std::path::PathBuf::from(&info.run_dir);
    let exec_info = exec::ExecInfo {
        lab: run_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        instance: info.path.clone(),
        files: info.files.into(),
        ca_bundle: Some(info.ca_path.into()),
        region: info.region,
        env: info.env,
    };
    let options = ExecOptions {
        keep: how.env.iter().map(|text| Keep::parse(text)).collect(),
        user: how.user.clone(),
        timeout: how.timeout,
        ..ExecOptions::default()
    };
    let began = std::time::Instant::now();
    let code = exec::run(&exec_info, &join, cmd, &options)
        .map_err(|e| Failure { exit: 125, message: format!("cannot execute as {instance}: {e}") })?;
    if code != 0 {
        tell_drops(client, instance, began.elapsed() + Duration::from_millis(50), lab);
    }
    Ok(u8::try_from(code).unwrap_or(125))
}

/// `vpclab: 3 packets were dropped meanwhile: SG_INGRESS (sg:app.doors) to sts@b; why: vpclab explain ...`
#[cfg(target_os = "linux")]
fn tell_drops(client: &mut crate::runtime::client::Client, instance: &str, since: Duration, lab: Option<&str>) {
    use crate::control::api::{Filter, Reply, Request};

    let since_ms = u64::try_from(since.as_millis()).ok();
    let filter = Filter { from: Some(instance.to_owned()), since_ms, ..Filter::default() };
    let Ok(Reply::Drops(rows)) = client.ask(Request::Drops(filter)) else { return };
    let Some(last) = rows.iter().max_by_key(|row| row.time_ms) else { return };
    let packets: u64 = rows.iter().map(|row| row.count).sum();
    let mut kinds: Vec<String> = Vec::new();
    for row in &rows {
        let rule = if row.rule.is_empty() { row.object.clone() } else { format!("{}, {}", row.object, row.rule) };
        let kind = format!("{} ({rule}) to {}", row.code, row.to);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let more = if kinds.len() > 3 { format!(" and {} more", kinds.len() - 3) } else { String::new() };
    kinds.truncate(3);
    let flag = lab.map(|lab| format!(" -l {lab}")).unwrap_or_default();
    let noun = if packets == 1 { "packet was" } else { "packets were" };
    // IPv6 and what cannot be read has no destination to explain.
    let why = if last.dst.starts_with("0.0.0.0") {
        format!("vpclab drops{flag} --from {instance}")
    } else {
        let proto = if last.proto == "tcp" { String::new() } else { format!("/{}", last.proto) };
        format!("vpclab explain{flag} {instance} {}{proto}", last.dst)
    };
    eprintln!("vpclab: {packets} {noun} dropped meanwhile: {}{more}; why: {why}", kinds.join("; "));
}
