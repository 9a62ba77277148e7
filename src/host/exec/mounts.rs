//! What a command sees in place of the host's files. All of it in a mount namespace of the command's own.
//!
//! A mount that matters and fails is an error: a command that would ask the host's name service, or use the caller's
//! keys, must not run.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::identity::Identity;
use super::{ExecInfo, trust};
use crate::host::netns::explain;
use crate::host::{files, rundir};

/// Folders of sockets by which a process asks the host for names: unix sockets with a path cross network namespaces.
/// systemd-resolved (varlink, its hooks and, by D-Bus, its bus interface), nscd, sssd, Avahi's mDNS.
const NAME_SERVICES: [&str; 7] = [
    "/run/systemd/resolve",
    "/run/systemd/resolve.hook",
    "/run/nscd",
    "/var/run/nscd",
    "/var/lib/sss/pipes",
    "/run/dbus",
    "/run/avahi-daemon",
];

/// Lays everything. Returns the path at which the command finds the bundle of trusted certificates.
pub(super) fn lay_all(info: &ExecInfo, identity: &Identity, argv: &[OsString]) -> io::Result<Option<PathBuf>> {
    // SAFETY: NEWNS concerns this process, which has one thread, and no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|err| explain(err.into(), "make a mount namespace"))?;
    take_no_part_in_the_hosts_mounts()?;

    // opened before the folders that hold them are covered
    let mut over_etc = Vec::new();
    for name in files::NAMES {
        over_etc.push((Path::new("/etc").join(name), open(&info.files.join(name))?));
    }
    let bundle = info.ca_bundle.as_deref().map(open).transpose()?;
    let trusting = if bundle.is_some() { trust::files(argv, &identity.homes()) } else { BTreeSet::new() };

    for folder in NAME_SERVICES {
        cover(Path::new(folder), "mode=0755")?;
    }
    let mut labs: Vec<PathBuf> = rundir::bases();
    labs.extend(info.files.ancestors().nth(3).map(Path::to_owned));
    labs.sort();
    labs.dedup();
    for folder in &labs {
        cover(folder, "mode=0755")?;
    }
    let (uid, gid) = identity.ids();
    for home in identity.homes() {
        cover_or_blank(&home.join(".aws"), &format!("mode=0700,uid={uid},gid={gid}"))?;
    }
    sysfs(&info.instance)?;

    if Path::new("/etc").is_dir() {
        for (path, source) in &over_etc {
            lay(source, path)?;
        }
    }
    let Some(bundle) = bundle else { return Ok(None) };
    for path in &trusting {
        bind(&bundle, path)?;
    }
    // where every user may read it: a place of the system's, else beside the covered folders of labs
    if let Some(path) = trust::SYSTEM.iter().map(Path::new).find(|path| path.exists()) {
        return Ok(Some(path.to_owned()));
    }
    let path = labs.iter().find(|folder| folder.is_dir()).map(|folder| folder.join("ca-bundle.pem"));
    if let Some(path) = &path {
        File::create(path)?;
        bind(&bundle, path)?;
    }
    Ok(path)
}

/// Our mounts must not reach the host, and the host's later ones may reach us, as with `ip netns exec`.
fn take_no_part_in_the_hosts_mounts() -> io::Result<()> {
    let slave =
        |path: &str| rustix::mount::mount_change(path, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
    match slave("/") {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::INVAL) => {}
        Err(err) => return Err(explain(err.into(), "separate mounts from the host's")),
    }
    // "/" is no mount point: we are in a chroot. Out to the mount it lies in (a folder that is not below our root can
    // climb to the top), and back.
    let tried = |err: rustix::io::Errno| explain(err.into(), "separate the mounts of a chroot from the host's");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(tried)?;
    let here = rustix::fs::open(".", flags, Mode::empty()).map_err(tried)?;
    rustix::process::chroot("/proc").map_err(tried)?;
    rustix::process::fchdir(&root).map_err(tried)?;
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    loop {
        let below = place(rustix::fs::stat(".").map_err(tried)?);
        rustix::process::chdir("..").map_err(tried)?;
        if place(rustix::fs::stat(".").map_err(tried)?) == below {
            break;
        }
    }
    let separated = slave(".");
    rustix::process::fchdir(&root).map_err(tried)?;
    rustix::process::chroot(".").map_err(tried)?;
    rustix::process::fchdir(&here).map_err(tried)?;
    separated.map_err(tried)
}

/// An empty folder over a folder. What is not there needs none.
fn cover(folder: &Path, options: &str) -> io::Result<()> {
    match std::fs::canonicalize(folder) {
        Ok(real) if real.is_dir() => empty(&real, options),
        _ => Ok(()),
    }
}

/// As [`cover`]; over a file, an empty file.
fn cover_or_blank(path: &Path, options: &str) -> io::Result<()> {
    match std::fs::canonicalize(path) {
        Ok(real) if real.is_dir() => empty(&real, options),
        Ok(real) => bind(&open(Path::new("/dev/null"))?, &real),
        Err(_) => Ok(()),
    }
}

fn empty(folder: &Path, options: &str) -> io::Result<()> {
    let data = CString::new(format!("{options},size=4m")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("vpclab", folder, "tmpfs", flags, Some(data.as_c_str()))
        .map_err(|err| explain(err.into(), &format!("cover {}", folder.display())))
}

/// A file over the file that `path` leads to, through links. Where that is not there and cannot be made, the folder
/// of `path` is made anew around it.
fn lay(source: &OwnedFd, path: &Path) -> io::Result<()> {
    let target = follow(path)?;
    if !target.exists() {
        // made in a folder that we covered ourselves; anywhere else it would stay behind on the host
        let ours = target.parent().is_some_and(|parent| {
            NAME_SERVICES.iter().any(|covered| std::fs::canonicalize(covered).is_ok_and(|covered| covered == parent))
        });
        if !ours {
            rebuild_without(path)?;
            File::create(path)?;
            return bind(source, path);
        }
        File::create(&target)?;
    }
    bind(source, &target)
}

/// Where the links end, also when nothing is there.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path) };
        let Ok(parent) = std::fs::canonicalize(parent) else { return Ok(path) };
        let here = parent.join(name);
        match std::fs::read_link(&here) {
            Ok(link) => path = parent.join(link),
            Err(_) => return Ok(here),
        }
    }
    Err(io::Error::from(rustix::io::Errno::LOOP))
}

/// Covers the folder of `path` with one that has the same entries but this.
fn rebuild_without(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(left_out)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let tried = |err: io::Error| explain(err, &format!("lay a file at {}", path.display()));
    let old = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|err| tried(err.into()))?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", old.as_raw_fd()));
    let mode = std::fs::metadata(folder)?.permissions().mode() & 0o7777;
    let entries: Vec<_> = std::fs::read_dir(&through).map_err(tried)?.collect::<io::Result<_>>().map_err(tried)?;
    empty(folder, &format!("mode={mode:o}"))?;
    for entry in entries.iter().filter(|entry| entry.file_name() != left_out) {
        let (from, to) = (through.join(entry.file_name()), folder.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to).map_err(tried)?;
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(&to).map_err(tried)?;
        } else {
            File::create(&to).map_err(tried)?;
        }
        rustix::mount::mount_bind_recursive(&from, &to).map_err(|err| tried(err.into()))?;
    }
    Ok(())
}

/// A /sys whose `class/net` shows the instance's devices, with the host's control groups in it. Where the kernel does
/// not let us (containers that mask parts of it), the host's devices are hidden at least.
fn sysfs(name: &str) -> io::Result<()> {
    let sys = Path::new("/sys");
    if !sys.join("class/net").is_dir() {
        return Ok(());
    }
    let groups = sys.join("fs/cgroup");
    let groups_were = rustix::fs::open(&groups, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
    let read_only = rustix::fs::statvfs(sys).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    // a read-only one can only be shadowed by one that is
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    if rustix::mount::mount(name, sys, "sysfs", flags, None::<&std::ffi::CStr>).is_err() {
        return empty(&sys.join("class/net"), "mode=0755");
    }
    if let Some(were) = groups_were {
        // programs read their own limits there; without it they take the machine's
        let _ = rustix::mount::mount_bind_recursive(format!("/proc/self/fd/{}", were.as_raw_fd()), &groups);
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|err| explain(err.into(), &format!("open {}", path.display())))
}

fn bind(source: &OwnedFd, target: &Path) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", source.as_fd().as_raw_fd());
    rustix::mount::mount_bind(from, target)
        .map_err(|err| explain(err.into(), &format!("lay a file over {}", target.display())))
}
