//! Instances as the keeper holds them: a namespace, its name, its files.

use std::fs::DirBuilder;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::cmd::{BindSocket, EtcFiles, InstanceHost, Offloads};
use super::netns::{self, explain};
use super::rundir::{Record, RunDir, valid_name};
use super::tun::{self, Tun};
use super::{channel, files, netlink, procs};

/// Where `ip netns exec` finds files to lay over /etc.
pub(super) const ETC_NETNS: &str = "/etc/netns";
/// How long processes of a removed instance may take to end.
const GRACE: Duration = Duration::from_millis(300);

pub(super) struct Instance {
    pub(super) path: String,
    pub(super) netns: OwnedFd,
    pub(super) netns_path: PathBuf,
    identity: (u64, u64),
    /// Under /run/netns, as root.
    name: Option<String>,
}

pub(super) struct Made {
    pub(super) instance: Instance,
    pub(super) tuns: Vec<Tun>,
    pub(super) offloads: Vec<Offloads>,
    pub(super) congestion: bool,
}

/// Makes an instance, recording every step. What a failure leaves is removed by [`remove`]'s rules at once.
pub(super) fn make(dir: &RunDir, wanted: &InstanceHost, rootless: bool) -> io::Result<Made> {
    check(wanted)?;
    let name = (!rootless && Path::new("/run").is_dir()).then(|| format!("{}.{}", dir.lab(), wanted.path));
    dir.record(&Record::Instance { path: wanted.path.clone(), name: name.clone() })?;
    let folder = dir.instance(&wanted.path);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    files::write(&folder, dir.lab(), &wanted.files)?;

    let (netns, (tuns, offloads, congestion)) = netns::make(|| build(wanted))?;
    let identity = netns::identity(&netns)?;
    dir.record(&Record::Netns { path: wanted.path.clone(), identity })?;
    let netns_path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()).into();
    let mut instance = Instance { path: wanted.path.clone(), netns, netns_path, identity, name: None };
    if let Some(name) = name {
        instance.netns_path = netns::give_name(instance.netns.as_fd(), &name)?;
        instance.name = Some(name.clone());
        match show_files(dir.lab(), &name, &folder) {
            // an image that may not be changed: only `ip netns exec` goes without
            Err(err) if err.kind() == io::ErrorKind::ReadOnlyFilesystem => eprintln!("vpclab keeper: {err}"),
            Err(err) => {
                drop(remove(dir, instance)); // the first error is the one to tell
                return Err(err);
            }
            Ok(()) => {}
        }
    }
    Ok(Made { instance, tuns, offloads, congestion })
}

/// Ends whatever runs in these instances.
pub(super) fn end_processes<'a>(instances: impl Iterator<Item = &'a Instance>) -> io::Result<()> {
    let identities: Vec<_> = instances.map(|instance| instance.identity).collect();
    procs::end_in_namespaces(&identities, GRACE).map(drop)
}

/// Removes an instance whose processes have ended: the namespace ends with its last descriptor and takes the devices
/// along, all of a lab's at once (asked to delete a link, the kernel takes 40 ms for each). Every step is tried; the first error is told.
pub(super) fn remove(dir: &RunDir, instance: Instance) -> io::Result<()> {
    let mut first = Ok(());
    let mut then = |result: io::Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    if let Some(name) = &instance.name {
        then(netns::take_name(name));
        then(hide_files(dir.lab(), name));
    }
    match std::fs::remove_dir_all(dir.instance(&instance.path)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => then(Err(err)),
        _ => {}
    }
    then(dir.record(&Record::Gone { path: instance.path }));
    first
}

/// New contents, in place.
pub(super) fn set_files(dir: &RunDir, instance: &Instance, files: &EtcFiles) -> io::Result<()> {
    files::write(&dir.instance(&instance.path), dir.lab(), files)?;
    match &instance.name {
        Some(name) if Path::new(ETC_NETNS).join(name).is_dir() => {
            files::write(&Path::new(ETC_NETNS).join(name), dir.lab(), files)
        }
        _ => Ok(()),
    }
}

pub(super) fn set_syn_retries(instance: &Instance, retries: u8) -> io::Result<()> {
    netns::within(instance.netns.as_fd(), || set_sysctl("tcp_syn_retries", &retries.to_string()))
}

/// A socket of the instance's own, non-blocking.
pub(super) fn bind(instance: &Instance, wanted: BindSocket) -> io::Result<OwnedFd> {
    netns::within(instance.netns.as_fd(), || match wanted {
        BindSocket::TcpListener { addr, backlog } => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &addr)?;
            rustix::net::listen(&socket, i32::from(backlog))?;
            Ok(TcpListener::from(socket).into())
        }
        BindSocket::Udp { addr } => {
            let socket = UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        }
    })
}

/// Removes the files shown under /etc/netns, if they carry the lab's mark, and the folders that are empty then.
pub(super) fn hide_files(lab: &str, name: &str) -> io::Result<()> {
    let folder = Path::new(ETC_NETNS).join(name);
    for file in files::NAMES {
        let path = folder.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.lines().next() == Some(files::mark(lab).as_str()) => std::fs::remove_file(&path)?,
            Ok(_) => {} // somebody wrote their own: theirs
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(explain(err, &format!("read {}", path.display()))),
        }
    }
    for folder in [folder.as_path(), Path::new(ETC_NETNS)] {
        match std::fs::remove_dir(folder) {
            Err(err) if !matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(explain(err, &format!("remove {}", folder.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// In the new namespace.
fn build(wanted: &InstanceHost) -> io::Result<(Vec<Tun>, Vec<Offloads>, bool)> {
    let (mut tuns, mut offloads, mut links) = (Vec::new(), Vec::new(), Vec::new());
    sysctls(wanted)?;
    for eni in &wanted.enis {
        let (tun, accepted) = Tun::create(&eni.name)
            .map_err(|err| explain(err, &format!("make the TUN device {} (see `vpclab doctor`)", eni.name)))?;
        links.push((tun::index(&eni.name)?, eni.clone()));
        tuns.push(tun);
        offloads.push(accepted);
    }
    let congestion = netlink::configure(&wanted.lab, &links, wanted.congestion.as_deref())?;
    Ok((tuns, offloads, congestion))
}

/// Settings of the namespace. Those that the topology asks for must hold; the last two only make unprivileged ping(8)
/// work as on EC2's images, where the kernel lets us.
fn sysctls(wanted: &InstanceHost) -> io::Result<()> {
    let set = |name: &str, value: String| set_sysctl(name, &value);
    let three = |[least, usual, most]: [u32; 3]| format!("{least} {usual} {most}");
    if wanted.forward {
        set("ip_forward", "1".into())?;
        // One-armed routers are what VPCs have: no redirects, and packets come and go as routes in the VPC say.
        // `default` is what the devices start from, which are made after this.
        for dir in ["all", "default"] {
            set(&format!("conf/{dir}/send_redirects"), "0".into())?;
            set(&format!("conf/{dir}/rp_filter"), "0".into())?;
        }
    }
    if let Some(retries) = wanted.syn_retries {
        set("tcp_syn_retries", retries.to_string())?;
    }
    if let Some(buffers) = wanted.rmem {
        set("tcp_rmem", three(buffers))?;
    }
    if let Some(buffers) = wanted.wmem {
        set("tcp_wmem", three(buffers))?;
    }
    // all groups need a mapping of all groups
    if set("ping_group_range", "0 2147483647".into()).is_err() {
        let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
        let own = rustix::process::getegid().as_raw();
        let (first, last) = mapped_groups(&map).unwrap_or((own, own));
        let _ = set("ping_group_range", format!("{first} {last}"));
    }
    Ok(())
}

/// The first and the last group of a user namespace, from its gid_map, in the order of the numbers outside: by those the
/// kernel compares. `None` if they are in another order inside, which `ping_group_range` takes for an empty range.
fn mapped_groups(map: &str) -> Option<(u32, u32)> {
    let lines = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??.checked_sub(1)?))
    });
    let (first, ..) = lines.clone().min_by_key(|(_, outside, _)| *outside)?;
    let (last, _, more) = lines.max_by_key(|(_, outside, _)| *outside)?;
    let last = last.checked_add(more)?;
    (first <= last).then_some((first, last))
}

/// Of the calling thread's namespace.
fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    std::fs::write(&path, value).map_err(|err| explain(err, &format!("write {path}")))
}

/// As `ip netns exec` wants them: plain files, because it binds them itself.
fn show_files(lab: &str, name: &str, from: &Path) -> io::Result<()> {
    if !Path::new("/etc").is_dir() {
        return Ok(()); // a bare root without anything that reads them
    }
    let folder = Path::new(ETC_NETNS).join(name);
    if folder.exists() {
        hide_files(lab, name)?;
        if folder.exists() {
            let message = format!("{} exists and is not ours: remove it or rename the lab", folder.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&folder)
        .map_err(|err| explain(err, &format!("make {}", folder.display())))?;
    for file in files::NAMES {
        let to = folder.join(file);
        std::fs::copy(from.join(file), &to).map_err(|err| explain(err, &format!("write {}", to.display())))?;
    }
    Ok(())
}

/// The router process sends what was validated; here it becomes paths and names, so it is checked once more.
fn check(wanted: &InstanceHost) -> io::Result<()> {
    let named = wanted.path.split('.').all(valid_name) && valid_name(&wanted.lab) && wanted.path.len() < 200;
    let enis = wanted.enis.iter().all(|eni| valid_name(&eni.name) && valid_name(&eni.eni) && eni.prefix_len <= 32);
    if named && enis && wanted.enis.len() < channel::MAX_FDS {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{:?} is no instance", wanted.path)))
}

#[cfg(test)]
mod tests {
    use super::mapped_groups;

    #[test]
    fn the_groups_of_a_mapping_lie_between_the_lowest_and_the_highest_outside() {
        let own =
            "         0     100000       1001\n      1001       1001          1\n      1002     101001      64535\n";
        assert_eq!(mapped_groups(own), Some((1001, 65536)));
        assert_eq!(mapped_groups("1000 1000 1\n"), Some((1000, 1000)));
        let above = "0 100000 65536\n200000 200000 1\n";
        assert_eq!(mapped_groups(above), Some((0, 200_000)));
        // Outside in the one order, inside in the other.
        assert_eq!(mapped_groups("0 300000 1000\n1000 1000 1\n"), None);
        assert_eq!(mapped_groups(""), None);
        assert_eq!(mapped_groups("0 0 4294967295\n"), Some((0, u32::MAX - 1)));
    }
}
