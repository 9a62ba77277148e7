//! What this machine lacks for a lab, and the command that mends it.
//!
//! What matters is tried, not guessed: a process of ours makes what a lab makes, with the rights of the caller, and
//! ends with all of it.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::cmd::{EniHost, Offloads};
use super::rundir::RunDir;
use super::tun::{self, Tun};
use super::userns::{self, IdMap, tool};
use super::{netlink, netns};

/// First argument of the process that tries.
pub const PROBE_ARG: &str = "__doctor";

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A lab runs; something of use is missing.
    Note,
    /// No lab runs.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    /// `TUN device`.
    pub what: String,
    /// What was found.
    pub found: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

/// Everything that a lab asks of this machine. `program`: this program, `/proc/self/exe`.
pub fn report(program: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), tun_node()];
    findings.extend(match try_all(program) {
        Ok(probe) => judge(&probe),
        Err(err) => vec![missing("trial", err.to_string(), None)],
    });
    if !userns::privileged() {
        findings.push(subordinate_ids());
    }
    findings.push(congestion());
    findings.extend(TOOLS.iter().map(|(name, use_, package)| program_on_path(name, use_, package)));
    findings.push(leftovers());
    findings
}

/// What the trial found; errors as text.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Probe {
    /// Root, without a user namespace.
    direct: bool,
    user_namespace: Option<Result<bool, String>>,
    namespace: Option<Result<(), String>>,
    device: Option<Result<Offloads, String>>,
    /// The route metric was accepted.
    congestion: Option<Result<bool, String>>,
}

/// The process that tries: what `main` does when its first argument is [`PROBE_ARG`].
pub fn probe() -> ExitCode {
    let mut probe = Probe { direct: userns::privileged(), ..Probe::default() };
    let text = |err: io::Error| err.to_string();
    if !probe.direct {
        probe.user_namespace = Some(userns::enter(IdMap::Ranges).map(|ids| ids == IdMap::Ranges).map_err(text));
    }
    let inside = netns::make(|| {
        let device = Tun::create("eth0");
        let congestion = match &device {
            Ok(_) => {
                Some(netlink::configure("doctor", &[(tun::index("eth0")?, example())], Some("cubic")).map_err(text))
            }
            Err(_) => None,
        };
        Ok((device.map(|(_, offloads)| offloads).map_err(text), congestion))
    });
    match inside {
        Ok((_, (device, congestion))) => {
            probe.namespace = Some(Ok(()));
            probe.device = Some(device);
            probe.congestion = congestion;
        }
        Err(err) => probe.namespace = Some(Err(err.to_string())),
    }
    let written = serde_json::to_vec(&probe).map_err(io::Error::other).and_then(|text| io::stdout().write_all(&text));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

fn example() -> EniHost {
    EniHost {
        name: "eth0".into(),
        eni: "eni-0".into(),
        ip: [10, 0, 0, 10].into(),
        prefix_len: 24,
        gateway: [10, 0, 0, 1].into(),
        mtu: 9001,
        tx_queue_len: 1000,
    }
}

fn try_all(program: &Path) -> io::Result<Probe> {
    let output = Command::new(program).arg(PROBE_ARG).stdin(Stdio::null()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|err| {
        io::Error::other(format!(
            "the trial ended with {}: {err} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    })
}

fn judge(probe: &Probe) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &probe.user_namespace {
        None => findings.push(good("privilege", "root: no user namespace is needed")),
        Some(Ok(true)) => findings.push(good("user namespace", "works, with subordinate ids")),
        Some(Ok(false)) => findings.push(good("user namespace", "works, with the own id")),
        Some(Err(err)) => findings.push(missing("user namespace", err.clone(), Some(mend_user_namespaces()))),
    }
    match &probe.namespace {
        Some(Err(err)) => findings.push(missing("network namespace", err.clone(), Some(mend_user_namespaces()))),
        _ => findings.push(good("network namespace", "works")),
    }
    match &probe.device {
        Some(Ok(offloads)) => findings.push(offloads_finding(*offloads)),
        Some(Err(err)) => findings.push(missing("TUN device", err.clone(), Some(mend_tun()))),
        None => {}
    }
    match &probe.congestion {
        Some(Ok(false)) => findings.push(note(
            "congestion control by route",
            "refused: instances use the kernel's default".into(),
            Some("sudo modprobe tcp_cubic".into()),
        )),
        Some(Err(err)) => findings.push(missing("addresses and routes", err.clone(), None)),
        _ => {}
    }
    findings
}

fn offloads_finding(offloads: Offloads) -> Finding {
    let Offloads { csum, tso4, uso, .. } = offloads;
    if csum && tso4 {
        let uso = if uso { "TCP and UDP segmentation" } else { "TCP segmentation (UDP's needs Linux 6.2)" };
        good("TUN device", &format!("works, with virtio header, checksum and {uso} offload"))
    } else {
        note("TUN device", "works without segmentation offload: about a tenth of the speed".into(), None)
    }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        // pidfd_open, the youngest call in use without which nothing works
        (Some(major), Some(minor)) if (major, minor) < (5, 3) => {
            missing("kernel", format!("Linux {release}; 5.3 is needed"), None)
        }
        _ => good("kernel", &format!("Linux {release}")),
    }
}

fn tun_node() -> Finding {
    use std::os::unix::fs::MetadataExt;
    let path = "/dev/net/tun";
    match std::fs::metadata(path) {
        Err(err) => missing(path, err.to_string(), Some(mend_tun())),
        Ok(meta) => {
            let found = format!("mode {:o}, owner {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
            match std::fs::File::options().read(true).write(true).open(path) {
                Ok(_) => good(path, &found),
                Err(err) => missing(path, format!("{found}: {err}"), Some(mend_tun())),
            }
        }
    }
}

fn mend_tun() -> String {
    if !Path::new("/dev/net/tun").exists() {
        "sudo sh -c 'modprobe tun; mkdir -p /dev/net; test -c /dev/net/tun || mknod -m 666 /dev/net/tun c 10 200'; \
         in a container: --device /dev/net/tun"
            .into()
    } else if userns::privileged() {
        "modprobe tun; in a container: --device /dev/net/tun".into()
    } else {
        "sudo chmod 666 /dev/net/tun".into()
    }
}

/// The first setting that forbids them.
fn mend_user_namespaces() -> String {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into()
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1".into()
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=15000".into()
    } else {
        "run vpclab as root (sudo); in a container: --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt \
         apparmor=unconfined"
            .into()
    }
}

fn subordinate_ids() -> Finding {
    match userns::ranges(rustix::process::geteuid()) {
        Some((uids, _)) => good("subordinate ids", &format!("{} ids from {}", uids.count, uids.first)),
        None => note(
            "subordinate ids",
            "none: `exec --user` and programs that switch users (sshd) have only the own id".into(),
            Some(format!(
                "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER; {}",
                install("uidmap")
            )),
        ),
    }
}

fn congestion() -> Finding {
    let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    if available.split_ascii_whitespace().any(|name| name == "cubic") {
        good("congestion control", available.trim())
    } else {
        note("congestion control", format!("no cubic: {}", available.trim()), Some("sudo modprobe tcp_cubic".into()))
    }
}

/// Program, what it is used for, its package in Debian.
const TOOLS: [(&str, &str, &str); 8] = [
    ("ip", "looking at instances", "iproute2"),
    ("curl", "the demo", "curl"),
    ("aws", "the demo and the AWS command line", "awscli"),
    ("dig", "asking the resolver", "dnsutils"),
    ("ping", "trying reachability", "iputils-ping"),
    ("tcpdump", "captures in instances", "tcpdump"),
    ("nft", "the bench's kernel baseline", "nftables"),
    ("iperf3", "the bench", "iperf3"),
];

fn program_on_path(name: &str, used_for: &str, package: &str) -> Finding {
    let sbin = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let found = tool(name).or_else(|| sbin.into_iter().find(|path| path.is_file()));
    match found {
        Some(path) => good(name, &path.display().to_string()),
        None => note(name, format!("not found; {used_for}"), Some(install(package))),
    }
}

fn install(package: &str) -> String {
    let managers =
        [("apt-get", "apt-get install -y"), ("dnf", "dnf install -y"), ("apk", "apk add"), ("pacman", "pacman -S")];
    let found = managers.iter().find(|(name, _)| tool(name).is_some());
    format!("sudo {} {package}", found.map_or("apt-get install -y", |(_, command)| command))
}

fn leftovers() -> Finding {
    let (running, crashed): (Vec<RunDir>, Vec<RunDir>) = RunDir::list().into_iter().partition(RunDir::is_running);
    let names = |labs: &[RunDir]| labs.iter().map(RunDir::lab).collect::<Vec<_>>().join(", ");
    if crashed.is_empty() {
        let text = if running.is_empty() { "none".into() } else { format!("none; running: {}", names(&running)) };
        return good("leftovers of crashed labs", &text);
    }
    note("leftovers of crashed labs", names(&crashed), Some("vpclab clean".into()))
}

fn good(what: &str, found: &str) -> Finding {
    Finding { level: Level::Ok, what: what.into(), found: found.into(), mend: None }
}

fn note(what: &str, found: String, mend: Option<String>) -> Finding {
    Finding { level: Level::Note, what: what.into(), found, mend }
}

fn missing(what: &str, found: String, mend: Option<String>) -> Finding {
    Finding { level: Level::Missing, what: what.into(), found, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_that_failed_is_told_with_a_command() {
        let probe = Probe {
            user_namespace: Some(Err("Operation not permitted".into())),
            namespace: Some(Err("Operation not permitted".into())),
            ..Probe::default()
        };
        let findings = judge(&probe);
        assert_eq!(findings.len(), 2);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Missing && finding.mend.is_some()),
            "{findings:?}"
        );
    }

    #[test]
    fn a_trial_that_worked_is_told_in_short() {
        let offloads = Offloads { csum: true, tso4: true, ..Offloads::default() };
        let probe = Probe {
            direct: true,
            namespace: Some(Ok(())),
            device: Some(Ok(offloads)),
            congestion: Some(Ok(true)),
            ..Probe::default()
        };
        let findings = judge(&probe);
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.found.contains("needs Linux 6.2")), "{findings:?}");
    }
}
