//! The user namespace of a lab without root.
//!
//! Own ids keep their numbers inside, so that files and names are what they are outside. Where the system grants
//! subordinate ids (/etc/subuid, newuidmap), they fill the other numbers, 0 included: programs that switch users
//! (sshd, tcpdump as root) work then.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{DumpableBehavior, Gid, Pid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::netns::explain;

/// Which ids are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMap {
    /// The own user and group, nothing else.
    Own,
    /// Subordinate ids besides.
    Ranges,
}

/// A line of /etc/subuid: first id and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    pub count: u32,
}

/// Whether this process may make namespaces without a user namespace of its own.
pub fn privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Moves this process, which must have one thread, into a user namespace of its own with every capability in it.
///
/// Errors: `EPERM` or `ENOSPC` where the system forbids user namespaces: `vpclab doctor` says what to do.
pub fn enter(wanted: IdMap) -> io::Result<IdMap> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mapper = match wanted {
        IdMap::Ranges => Mapper::begin(uid, gid)?,
        IdMap::Own => None,
    };
    // SAFETY: NEWUSER concerns this process, which has one thread, and no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|err| explain(err.into(), "make a user namespace (see `vpclab doctor`)"))?;
    let ids = if mapper.is_some_and(Mapper::finish) {
        IdMap::Ranges
    } else {
        map_own(uid, gid)?;
        IdMap::Own
    };
    // new credentials hide /proc/PID; the user's own tools (nsenter) shall find the namespaces there
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(ids)
}

/// The subordinate ids of a user in the text of /etc/subuid or /etc/subgid: by name or number.
pub fn subordinate(text: &str, name: Option<&str>, id: u32) -> Option<Range> {
    let id = id.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != id {
            return None;
        }
        let range = Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        (range.count > 0).then_some(range)
    })
}

/// The user's ranges of ids and the tools that map them, if all are there.
pub fn ranges(uid: Uid) -> Option<(Range, Range)> {
    let name = super::users::by_id(uid.as_raw()).map(|user| user.name);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uids = subordinate(&read("/etc/subuid"), name.as_deref(), uid.as_raw())?;
    let gids = subordinate(&read("/etc/subgid"), name.as_deref(), uid.as_raw())?;
    (tool("newuidmap").is_some() && tool("newgidmap").is_some()).then_some((uids, gids))
}

/// Arguments of newuidmap after the process id: the own id keeps its number, the range fills the rest from 0.
fn map_lines(own: u32, range: Range) -> Vec<[u32; 3]> {
    let below = range.count.min(own);
    let mut lines = Vec::new();
    if below > 0 {
        lines.push([0, range.first, below]);
    }
    lines.push([own, own, 1]);
    if range.count > below {
        lines.push([own + 1, range.first + below, range.count - below]);
    }
    lines
}

fn map_own(uid: Uid, gid: Gid) -> io::Result<()> {
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(|err| explain(err, &format!("write {file} (see `vpclab doctor`)")))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))
}

/// A child that stays in the old user namespace, where newuidmap has its power, and maps us once we are in the new one.
struct Mapper {
    child: Pid,
    go: OwnedFd,
}

impl Mapper {
    fn begin(uid: Uid, gid: Gid) -> io::Result<Option<Mapper>> {
        let Some((uids, gids)) = ranges(uid) else { return Ok(None) };
        let us = rustix::process::getpid().as_raw_nonzero().to_string();
        let command = |tool: &str, own: u32, range: Range| {
            let mut command = Command::new(tool);
            command.arg(&us).args(map_lines(own, range).iter().flatten().map(u32::to_string));
            command
        };
        let mut uid_command = command("newuidmap", uid.as_raw(), uids);
        let mut gid_command = command("newgidmap", gid.as_raw(), gids);
        let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the process has one thread, so the child may do whatever this process may.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(go);
                let mut byte = [0];
                let asked = std::fs::File::from(wait).read(&mut byte).is_ok_and(|n| n == 1);
                let ran = |command: &mut Command| command.status().is_ok_and(|status| status.success());
                let done = asked && ran(&mut gid_command) && ran(&mut uid_command);
                // SAFETY: ends the child without running what the parent registered for its own exit.
                unsafe { libc::_exit(i32::from(!done)) }
            }
            _ => Ok(Pid::from_raw(pid).map(|child| Mapper { child, go })),
        }
    }

    /// True if the ids are mapped.
    fn finish(self) -> bool {
        let told = std::fs::File::from(self.go).write_all(b"x").is_ok();
        let ended = rustix::process::waitpid(Some(self.child), WaitOptions::empty());
        told && ended.is_ok_and(|ended| ended.is_some_and(|(_, status)| status.exit_status() == Some(0)))
    }
}

/// A tool on the PATH.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| executable(candidate))
}

pub(super) fn executable(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    path.is_file() && rustix::fs::access(&name, rustix::fs::Access::EXEC_OK).is_ok()
}

/// This process's user namespace.
pub fn current() -> io::Result<OwnedFd> {
    let file = std::fs::File::open("/proc/self/ns/user")?;
    debug_assert!(rustix::fs::fstat(file.as_fd()).is_ok());
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_keep_their_number_and_ranges_fill_the_rest() {
        let range = Range { first: 100_000, count: 65_536 };
        assert_eq!(map_lines(1000, range), [[0, 100_000, 1000], [1000, 1000, 1], [1001, 101_000, 64_536]]);
        assert_eq!(map_lines(70_000, range), [[0, 100_000, 65_536], [70_000, 70_000, 1]]);
        assert_eq!(map_lines(0, range), [[0, 0, 1], [1, 100_000, 65_536]]);
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let text = "alice:100000:65536\n1001:200000:10\nbad:x:1\nempty:5:0\n";
        assert_eq!(subordinate(text, Some("alice"), 1), Some(Range { first: 100_000, count: 65_536 }));
        assert_eq!(subordinate(text, None, 1001), Some(Range { first: 200_000, count: 10 }));
        assert_eq!(subordinate(text, Some("bad"), 2), None);
        assert_eq!(subordinate(text, Some("empty"), 2), None);
        assert_eq!(subordinate("", Some("alice"), 1), None);
    }
}
