//! Starting a keeper, and holding on to it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::keeper::KEEPER_ARG;
use super::netns::explain;
use super::rundir::RunDir;
use super::status::{self, Status};
use super::userns;

/// How to start a keeper.
pub struct KeeperOptions {
    /// The lab's folder, claimed. The keeper takes its lock over and removes it in the end.
    pub run_dir: RunDir,
    /// This program: `/proc/self/exe`.
    pub program: PathBuf,
    pub peer: Peer,
    /// The lab ends with the [`KeeperHandle`] (`run`, `up --attach`, `demo`) unless [`KeeperHandle::release`] is called;
    /// otherwise it outlives this process from the start.
    pub leash: bool,
    /// Standard error of keeper and router process go to the lab's log instead of ours.
    pub log: bool,
    /// Without root: which ids to map. [`userns::IdMap::Ranges`] falls back to the own id.
    pub ids: userns::IdMap,
}

/// Who asks the keeper.
pub enum Peer {
    /// A router process, `PROGRAM __router ... -- ARGS...`, in an empty network namespace and with at most the
    /// capabilities of [`super::sandbox::ROUTER_KEEPS`]. It reads its start by [`super::keeper::RouterStart::parse`]; it gets SIGTERM when
    /// the keeper dies.
    Router { args: Vec<OsString> },
    /// This process, by [`KeeperHandle::take_socket`].
    Caller,
}

/// A started keeper. With a leash, dropping it ends the lab.
#[derive(Debug)]
pub struct KeeperHandle {
    child: Child,
    status: OwnedFd,
    leash: Option<OwnedFd>,
    socket: Option<OwnedFd>,
    /// The lab's log, open: it can be read when a lab that failed has taken its folder along.
    log: Option<File>,
}

/// Starts the keeper. It is ready when [`KeeperHandle::wait_ready`] says so.
pub fn spawn(options: KeeperOptions) -> io::Result<KeeperHandle> {
    let dir = options.run_dir;
    let lock = dir.lock().ok_or_else(|| io::Error::other("the lab's folder is not claimed"))?;
    let (status, status_write) = pipe()?;
    let (leash_read, leash) = if options.leash { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
    let (socket, peer, router_args) = match options.peer {
        Peer::Caller => {
            let (ours, theirs) = super::channel::pair()?;
            (Some(ours), Some(theirs), Vec::new())
        }
        Peer::Router { args } => (None, None, args),
    };

    let mut command = Command::new(&options.program);
    command.arg(KEEPER_ARG).args(["--lab", dir.lab(), "--run-dir"]).arg(dir.path());
    let mut inherited: Vec<BorrowedFd> = Vec::new();
    let fds = [
        ("--lock-fd", Some(lock.as_fd())),
        ("--status-fd", Some(status_write.as_fd())),
        ("--leash-fd", leash_read.as_ref().map(AsFd::as_fd)),
        ("--peer-fd", peer.as_ref().map(AsFd::as_fd)),
    ];
    for (name, fd) in fds {
        if let Some(fd) = fd {
            command.arg(name).arg(fd.as_raw_fd().to_string());
            inherited.push(fd);
        }
    }
    if options.ids == userns::IdMap::Own {
        command.arg("--own-id");
    }
    command.arg("--").args(router_args);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut log = None;
    if options.log {
        let file = File::options().create(true).read(true).append(true).mode(0o600).open(dir.log())?;
        command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        log = Some(file);
    }
    inherit(&mut command, &inherited);
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
    let child = command.spawn().map_err(|err| explain(err, "start the keeper"))?;
    Ok(KeeperHandle { child, status, leash, socket, log })
}

impl KeeperHandle {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The client's end, with [`Peer::Caller`]; once.
    pub fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    /// Waits for the lab's first word.
    pub fn wait_ready(&self, timeout: Duration) -> io::Result<Status> {
        status::wait(&self.status, timeout)
    }

    /// The end of the lab's log, at most so many lines; empty without [`KeeperOptions::log`].
    pub fn last_words(&self, lines: usize) -> String {
        let mut text = String::new();
        if let Some(mut log) = self.log.as_ref()
            && log.rewind().and_then(|()| log.read_to_string(&mut text)).is_err()
        {
            return String::new();
        }
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Ends the lab and waits until keeper and lab are gone.
    pub fn end(mut self) -> io::Result<()> {
        self.leash = None;
        self.socket = None;
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM); // it may have ended
        self.child.wait().map(drop)
    }

    /// Takes the leash off: the lab outlives this handle and this process.
    pub fn release(&mut self) -> io::Result<()> {
        if let Some(leash) = self.leash.take() {
            rustix::io::write(&leash, b"r")?;
        }
        Ok(())
    }

    /// Waits until the lab ends for a reason of its own: `down`, a crash.
    pub fn wait(mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

/// Leaves these descriptors open in the command, and of what the caller had left open to this program none: a lab that
/// lives on would hold a caller's lock or pipe for as long. They must stay open here until the command has been spawned.
pub(super) fn inherit(command: &mut Command, fds: &[BorrowedFd]) {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let keep_open = move || {
        // SAFETY: a system call on numbers alone. Before Linux 5.11 it fails, and what is open stays so.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        for number in &numbers {
            // SAFETY: fcntl(2) is async-signal-safe and takes its argument by value.
            if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls alone, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(keep_open) };
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
