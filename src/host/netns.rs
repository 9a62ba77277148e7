//! Network namespaces: made and entered by short-lived threads (a namespace belongs to a thread), held by
//! descriptor, shown under /run/netns as `ip netns` does when we are root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::netlink;

/// Where `ip netns` keeps names.
pub const NAMED: &str = "/run/netns";
/// Parent of root's labs.
pub(super) const LABS: &str = "/run/vpclab";
/// Put there when /run/netns was made by us, so that the last lab removes it.
const MADE_BY_US: &str = "/run/vpclab/.made-netns-dir";

/// Makes a namespace and runs `work` in it.
///
/// Errors: `EPERM` without CAP_SYS_ADMIN in this user namespace, `ENOSPC` at the limit of namespaces.
pub fn make<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(OwnedFd, T)> {
    on_a_thread(|| {
        // SAFETY: NEWNET concerns this thread's namespace alone, no descriptor table.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|err| explain(err.into(), "make a network namespace"))?;
        let netns = current()?;
        Ok((netns, work()?))
    })
}

/// Runs `work` in a namespace.
pub fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(|err| explain(err.into(), "enter a network namespace"))?;
        work()
    })
}

/// The calling thread's namespace.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// What tells namespaces apart: device and inode of nsfs. An inode may come back after its namespace ended.
pub fn identity(netns: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(netns)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// True if the namespace holds a link marked as the lab's.
pub fn is_marked(netns: BorrowedFd<'_>, lab: &str) -> io::Result<bool> {
    let prefix = netlink::alias(lab, "");
    let links = within(netns, netlink::links)?;
    Ok(links.iter().any(|link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix))))
}

/// Path under /run/netns.
pub fn named_path(name: &str) -> PathBuf {
    Path::new(NAMED).join(name)
}

/// Shows a namespace as `ip netns` does: a bind mount under /run/netns, which is made a shared mount first so that
/// other mount namespaces lose the mount with us. Fails with `AlreadyExists` if the name is taken.
pub fn give_name(netns: BorrowedFd<'_>, name: &str) -> io::Result<PathBuf> {
    let _lock = shared_folder()?;
    let path = named_path(name);
    // iproute2 makes the mount point without any permission, too
    let point =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty())
            .map_err(|err| explain(err.into(), &format!("make {}", path.display())))?;
    drop(point);
    if let Err(err) = rustix::mount::mount_bind(format!("/proc/self/fd/{}", netns.as_raw_fd()), &path) {
        let _ = std::fs::remove_file(&path); // the mount's error is the one to tell
        return Err(explain(err.into(), &format!("mount a namespace at {}", path.display())));
    }
    Ok(path)
}

/// Takes the name away. What is not there is done already.
pub fn take_name(name: &str) -> io::Result<()> {
    let path = named_path(name);
    match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(err) => return Err(explain(err.into(), &format!("unmount {}", path.display()))),
    }
    match std::fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            return Err(explain(err, &format!("remove {}", path.display())));
        }
        _ => {}
    }
    remove_folder_if_ours()
}

/// Removes /run/netns when nothing is in it and a lab made it.
pub fn remove_folder_if_ours() -> io::Result<()> {
    // without a folder of labs there is no mark of ours
    let Some(_labs) = lock_folder(LABS)? else { return Ok(()) };
    let Some(lock) = lock_folder(NAMED)? else { return forget_folder() };
    if !Path::new(MADE_BY_US).exists() || std::fs::read_dir(NAMED)?.next().is_some() {
        return Ok(());
    }
    // the lock is a file of this mount, which would be busy: DETACH lets it go with the lock
    match rustix::mount::unmount(NAMED, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(err) => return Err(err.into()),
    }
    drop(lock);
    match std::fs::remove_dir(NAMED) {
        Ok(()) => forget_folder(),
        // `ip netns add` put a name there in this moment
        Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(err) => Err(err),
    }
}

/// Forgets that a lab made /run/netns when the last lab goes and others have names there: from now on it is theirs.
pub(super) fn leave_folder_to_others() -> io::Result<()> {
    let Some(_labs) = lock_folder(LABS)? else { return Ok(()) };
    let only_mark = std::fs::read_dir(LABS)?.flatten().all(|entry| entry.path() == Path::new(MADE_BY_US));
    if only_mark { forget_folder() } else { Ok(()) }
}

fn forget_folder() -> io::Result<()> {
    match std::fs::remove_file(MADE_BY_US) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Makes /run/netns a shared mount, as iproute2 does, and locks it: against other labs by their common folder, against
/// `ip netns` by /run/netns itself.
fn shared_folder() -> io::Result<[File; 2]> {
    std::fs::create_dir_all(LABS)?;
    let labs = lock_folder(LABS)?.ok_or(io::ErrorKind::NotFound)?;
    if !Path::new(NAMED).exists() {
        std::fs::write(MADE_BY_US, "")?;
        match std::fs::create_dir(NAMED) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                return Err(explain(err, &format!("make {NAMED}")));
            }
            _ => {}
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(NAMED, mode)?;
    }
    let lock = lock_folder(NAMED)?.ok_or(io::ErrorKind::NotFound)?;
    let share = || rustix::mount::mount_change(NAMED, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        Ok(()) => Ok([labs, lock]),
        Err(rustix::io::Errno::INVAL) => {
            // no mount point yet
            rustix::mount::mount_bind_recursive(NAMED, NAMED)
                .map_err(|err| explain(err.into(), &format!("bind {NAMED}")))?;
            share().map_err(|err| explain(err.into(), &format!("share {NAMED}")))?;
            Ok([labs, lock])
        }
        Err(err) => Err(explain(err.into(), &format!("share {NAMED}"))),
    }
}

/// An exclusive lock on a folder; `None` if there is no such folder.
fn lock_folder(path: &str) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(folder) => {
            rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
            Ok(Some(folder))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("work in a network namespace panicked")))
    })
}

/// Adds what was tried. The kind stays, and the text names the system's error.
pub(crate) fn explain(err: io::Error, tried: &str) -> io::Error {
    io::Error::new(err.kind(), format!("cannot {tried}: {err}"))
}
