//! The folder that a running lab has: lock, records, sockets, logs. Everything in it is for the lab's owner only.
//!
//! `/run/vpclab/LAB` as root, `$XDG_RUNTIME_DIR/vpclab/LAB` otherwise, `/tmp/vpclab-UID/LAB` where that is not set.
//! A record is written before the step that it speaks of, so that what a crash leaves is always recorded.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::netns::{self, explain};
use super::{cleanup, procs};

/// The lab's lock: held by its keeper while it runs.
const LOCK: &str = "lock";
const RECORDS: &str = "records";

/// A lab's folder.
#[derive(Debug)]
pub struct RunDir {
    lab: String,
    path: PathBuf,
    lock: Option<File>,
}

/// Why a lab's folder could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("lab {lab} already runs{}", .keeper.map(|pid| format!(" (keeper process {pid})")).unwrap_or_default())]
    Running { lab: String, keeper: Option<u32> },
    #[error("{0:?} is no lab name: letters, digits, `-` and `_`, at most 63, beginning with a letter or digit")]
    Name(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was, or was about to be, made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// `started`: field 22 of /proc/PID/stat, so that a reused number is not taken for ours.
    Keeper {
        pid: u32,
        started: u64,
    },
    Router {
        pid: u32,
        started: u64,
    },
    /// A namespace about to be made; `name` under /run/netns and /etc/netns, as root.
    Instance {
        path: String,
        name: Option<String>,
    },
    /// It was made: device and inode of nsfs.
    Netns {
        path: String,
        identity: (u64, u64),
    },
    /// Everything of the instance was removed.
    Gone {
        path: String,
    },
}

impl RunDir {
    /// Makes the folder and takes its lock. Leftovers of a crashed lab of this name are removed first.
    pub fn claim(lab: &str) -> Result<RunDir, ClaimError> {
        let dir = RunDir::lock_up(lab, true)?;
        cleanup::sweep(&dir)?;
        Ok(dir)
    }

    /// Claims the folder of a crashed lab and sweeps it; `None` if the lab runs, or is gone by now.
    pub(super) fn claim_crashed(lab: &str) -> io::Result<Option<(RunDir, cleanup::Removed)>> {
        match RunDir::lock_up(lab, false) {
            Ok(dir) => {
                let removed = cleanup::sweep(&dir)?;
                Ok(Some((dir, removed)))
            }
            Err(ClaimError::Running { .. }) => Ok(None),
            Err(ClaimError::Io(err)) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(ClaimError::Io(err)) => Err(err),
            Err(err @ ClaimError::Name(_)) => Err(io::Error::new(io::ErrorKind::InvalidInput, err.to_string())),
        }
    }

    /// `make`: the folder too. Without it, `NotFound` where there is none: it would be seen again for a moment after its
    /// lab is gone.
    fn lock_up(lab: &str, make: bool) -> Result<RunDir, ClaimError> {
        if !valid_name(lab) {
            return Err(ClaimError::Name(lab.to_owned()));
        }
        let base = base();
        let path = base.join(lab);
        let mut tries = 0;
        loop {
            let private = if make { make_private } else { must_be_private };
            let opened = private(&base).and_then(|()| private(&path)).and_then(|()| {
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))
            });
            let lock = match opened {
                Ok(lock) => lock,
                // another lab, the last, took a folder along between two of our steps
                Err(err)
                    if make && err.kind() == io::ErrorKind::NotFound && base.parent().is_some_and(Path::is_dir) =>
                {
                    continue;
                }
                Err(err) => return Err(err.into()),
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // somebody who only asks whether the lab runs has it for a moment
                Err(rustix::io::Errno::WOULDBLOCK) if tries < 10 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let keeper = RunDir::open(lab).ok().and_then(|dir| dir.keeper()).map(|(pid, _)| pid);
                    return Err(ClaimError::Running { lab: lab.to_owned(), keeper });
                }
                Err(err) => return Err(io::Error::from(err).into()),
            }
            // the former owner may have removed the folder between our open and our lock
            let ours = lock.metadata()?;
            if std::fs::metadata(path.join(LOCK)).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(RunDir { lab: lab.to_owned(), path, lock: Some(lock) });
            }
        }
    }

    /// The folder of a lab that may or may not run. `NotFound` if there is none.
    pub fn open(lab: &str) -> io::Result<RunDir> {
        if !valid_name(lab) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, ClaimError::Name(lab.to_owned()).to_string()));
        }
        let path = base().join(lab);
        std::fs::metadata(&path)?;
        Ok(RunDir { lab: lab.to_owned(), path, lock: None })
    }

    /// The folder of a lab that another process has claimed.
    pub(super) fn named(lab: String, path: PathBuf) -> RunDir {
        RunDir { lab, path, lock: None }
    }

    /// The folder as its keeper was given it, with the lock it inherited.
    pub(super) fn inherited(lab: String, path: PathBuf, lock: File) -> RunDir {
        RunDir { lab, path, lock: Some(lock) }
    }

    /// The labs of this user that have a folder, running or crashed, by name.
    pub fn list() -> Vec<RunDir> {
        let base = base();
        let mut found: Vec<RunDir> = std::fs::read_dir(&base)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| valid_name(name))
            .map(|lab| RunDir { path: base.join(&lab), lab, lock: None })
            .collect();
        found.sort_by(|a, b| a.lab.cmp(&b.lab));
        found
    }

    pub fn lab(&self) -> &str {
        &self.lab
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the router process listens.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Standard error of keeper and router process.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The system's trusted certificates and the lab's CA: written by `up`.
    pub fn ca_bundle(&self) -> PathBuf {
        self.path.join("ca-bundle.pem")
    }

    /// Holds `resolv.conf`, `hosts`, `nsswitch.conf` of an instance.
    pub fn instance(&self, path: &str) -> PathBuf {
        self.path.join("instances").join(path)
    }

    /// Whether a keeper holds the lock.
    pub fn is_running(&self) -> bool {
        let Ok(lock) = File::open(self.path.join(LOCK)) else { return false };
        matches!(rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Process id of the keeper that made the latest records, and the moment it began, as the kernel counts.
    pub fn keeper(&self) -> Option<(u32, u64)> {
        self.records().into_iter().rev().find_map(|record| match record {
            Record::Keeper { pid, started } => Some((pid, started)),
            _ => None,
        })
    }

    /// Waits until the lab's keeper has removed everything and has ended itself; `keeper` is what [`RunDir::keeper`] said
    /// while the lab ran. False if it is still there after `timeout`.
    pub fn wait_gone(&self, keeper: Option<(u32, u64)>, timeout: Duration) -> bool {
        match keeper {
            Some((pid, began)) => procs::wait_ended(pid, began, timeout),
            None => !self.is_running(),
        }
    }

    /// Adds a record, before the step that it speaks of.
    pub fn record(&self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record).map_err(io::Error::other)?;
        line.push(b'\n');
        let path = self.path.join(RECORDS);
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&line));
        written.map_err(|err| explain(err, &format!("write {}", path.display())))
    }

    /// Every record, oldest first. A line cut by a crash is left out: its step was not begun.
    pub fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.path.join(RECORDS)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lock, to be inherited by the keeper.
    pub(super) fn lock(&self) -> Option<&File> {
        self.lock.as_ref()
    }

    /// Empties the folder but for its lock.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == LOCK {
                continue;
            }
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the folder; the lock ends with it.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.path)?;
        if self.path.starts_with(netns::LABS) {
            netns::leave_folder_to_others()?;
        }
        if let Some(base) = self.path.parent() {
            let _ = std::fs::remove_dir(base); // the last lab takes it along, others have theirs in it
        }
        Ok(())
    }
}

/// Every folder that this user's or root's labs may have: what `exec` hides.
pub fn bases() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/run/vpclab"), of_user()];
    found.push(in_tmp());
    found.dedup();
    found
}

/// Parent of the labs' folders.
pub fn base() -> PathBuf {
    if rustix::process::geteuid().is_root() && Path::new("/run").is_dir() { "/run/vpclab".into() } else { of_user() }
}

/// The names that labs, VPCs and instances may have.
pub fn valid_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. `None` if it has ended, whether or
/// not its parent has asked how.
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in field 2 may hold spaces and brackets
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn of_user() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() && owned_by_us(&dir) => dir.join("vpclab"),
        _ => in_tmp(),
    }
}

fn in_tmp() -> PathBuf {
    // not $TMPDIR: the labs of one user must be found from every shell
    Path::new("/tmp").join(format!("vpclab-{}", rustix::process::geteuid().as_raw()))
}

fn owned_by_us(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw())
}

/// A folder for us alone. In /tmp another user may have been first: then it is refused.
fn make_private(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            return Err(explain(err, &format!("make {}", dir.display())));
        }
        _ => {}
    }
    must_be_private(dir)
}

fn must_be_private(dir: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(dir)?;
    if !owned_by_us(dir) || meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} must be a folder of ours with mode 0700: remove it", dir.display()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", ".a", "-a", "a b", "ä", &"a".repeat(64)] {
            assert!(!valid_name(name), "{name}");
        }
        for name in ["a", "demo", "My-lab_2", &"a".repeat(63)] {
            assert!(valid_name(name), "{name}");
        }
    }

    #[test]
    fn who_cleans_makes_no_folder_of_a_lab_that_is_gone() {
        assert!(matches!(RunDir::claim_crashed("never-there"), Ok(None)));
        assert_eq!(RunDir::open("never-there").map_err(|e| e.kind()).err(), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn the_start_of_a_process_is_read() {
        assert!(started(std::process::id()).is_some());
        assert!(started(u32::MAX).is_none());
    }
}
