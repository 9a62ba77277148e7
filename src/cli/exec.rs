//! `vpclab exec INSTANCE -- CMD...`: as that instance, with its network, names, trust, region and credentials.

use std::ffi::OsString;
use std::time::Duration;

use super::common::{Done, Failure, LabArg};
use crate::control::api::DropRow;

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

    let (reply, fds) = client.ask_with_fds(Request::Exec { instance: instance.to_owned() })?;
    let Reply::Exec(info) = reply else { return Err(Failure::unexpected()) };
    let mut fds = fds.into_iter();
    let Some(net) = fds.next() else { return Err(Failure::unexpected()) };
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

#[cfg(target_os = "linux")]
fn tell_drops(client: &mut crate::runtime::client::Client, instance: &str, since: Duration, lab: Option<&str>) {
    use crate::control::api::{Filter, Reply, Request};

    let since_ms = u64::try_from(since.as_millis()).ok();
    let filter = Filter { from: Some(instance.to_owned()), since_ms, ..Filter::default() };
    let Ok(Reply::Drops(rows)) = client.ask(Request::Drops(filter)) else { return };
    if let Some(line) = drops_line(&rows, instance, lab) {
        eprintln!("vpclab: {line}");
    }
}

/// `3 packets were dropped meanwhile: SG_INGRESS (sg:app.doors) to sts@b; why: vpclab explain ...`
fn drops_line(rows: &[DropRow], instance: &str, lab: Option<&str>) -> Option<String> {
    let last = rows.iter().max_by_key(|row| row.time_ms)?;
    let packets: u64 = rows.iter().map(|row| row.count).sum();
    let mut kinds: Vec<String> = Vec::new();
    for row in rows {
        let rule = if row.rule.is_empty() { row.object.clone() } else { format!("{}, {}", row.object, row.rule) };
        let end = if row.back { format!("back from {}", row.from) } else { format!("to {}", row.to) };
        let kind = format!("{} ({rule}) {end}", row.code);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let more = if kinds.len() > 3 { format!(" and {} more", kinds.len() - 3) } else { String::new() };
    kinds.truncate(3);
    let flag = lab.map(|lab| format!(" -l {lab}")).unwrap_or_default();
    let noun = if packets == 1 { "packet was" } else { "packets were" };
    let target = if last.back { &last.src } else { &last.dst };
    // IPv6, what cannot be read and the sum of many has no destination to explain.
    let why = if target.starts_with("0.0.0.0") || target == "*" {
        format!("vpclab drops{flag} --from {instance}")
    } else {
        let proto = if last.proto == "tcp" { String::new() } else { format!("/{}", last.proto) };
        format!("vpclab explain{flag} {instance} {target}{proto}")
    };
    Some(format!("{packets} {noun} dropped meanwhile: {}{more}; why: {why}", kinds.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_dropped_is_told_as_such_and_explained_from_the_client() {
        let row = DropRow {
            code: "NACL_OUT".into(),
            object: "nacl:app.inner".into(),
            rule: "* deny".into(),
            from: "api".into(),
            src: "10.0.2.10:80".into(),
            to: "web".into(),
            dst: "10.0.1.10:40000".into(),
            proto: "tcp".into(),
            back: true,
            count: 1,
            ..DropRow::default()
        };
        assert_eq!(
            drops_line(std::slice::from_ref(&row), "web", None).expect("a line"),
            "1 packet was dropped meanwhile: NACL_OUT (nacl:app.inner, * deny) back from api; \
             why: vpclab explain web 10.0.2.10:80"
        );
        let there = DropRow { back: false, count: 3, ..row };
        assert_eq!(
            drops_line(&[there], "web", Some("lab")).expect("a line"),
            "3 packets were dropped meanwhile: NACL_OUT (nacl:app.inner, * deny) to web; \
             why: vpclab explain -l lab web 10.0.1.10:40000"
        );
        assert_eq!(drops_line(&[], "web", None), None);
    }
}
