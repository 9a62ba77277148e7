//! The keeper: the process that holds a lab's privilege. It makes namespaces and devices, connects to servers of this
//! machine, runs commands as instances, and removes everything when the lab ends, however it ends. It sees no packet.

mod dials;
mod instances;
mod serve;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};
use rustix::thread::CapabilitySet;

use super::netns::{self, explain};
use super::rundir::{Record, RunDir, started};
use super::status::{self, Status};
use super::{sandbox, signals, userns};

pub(super) use instances::hide_files;

/// First argument of the keeper and of the router process.
pub const KEEPER_ARG: &str = "__keeper";
pub const ROUTER_ARG: &str = "__router";

/// How to start a keeper.
pub struct KeeperOptions {
    /// The lab's folder, claimed. The keeper takes its lock over and removes it in the end.
    pub run_dir: RunDir,
    /// This program: `/proc/self/exe`.
    pub program: PathBuf,
    pub peer: Peer,
    /// The lab ends with the [`KeeperHandle`] (`run`, `up --attach`, `demo`); otherwise it outlives this process.
    pub leash: bool,
    /// Standard error of keeper and router process go to the lab's log instead of ours.
    pub log: bool,
    /// Without root: which ids to map. [`userns::IdMap::Ranges`] falls back to the own id.
    pub ids: userns::IdMap,
}

/// Who asks the keeper.
pub enum Peer {
    /// A router process, `PROGRAM __router ... -- ARGS...`, in an empty network namespace and with at most the
    /// capabilities of [`sandbox::ROUTER_KEEPS`]. It reads its start by [`RouterStart::parse`]; it gets SIGTERM when
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
    if options.log {
        let log = File::options().create(true).append(true).open(dir.log())?;
        command.stdout(log.try_clone()?).stderr(log);
    }
    inherit(&mut command, &inherited);
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
    let child = command.spawn().map_err(|err| explain(err, "start the keeper"))?;
    Ok(KeeperHandle { child, status, leash, socket })
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

    /// Ends the lab and waits until keeper and lab are gone.
    pub fn end(mut self) -> io::Result<()> {
        self.leash = None;
        self.socket = None;
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM); // it may have ended
        self.child.wait().map(drop)
    }

    /// Waits until the lab ends for a reason of its own: `down`, a crash.
    pub fn wait(mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

/// The keeper process: what `main` does when its first argument is [`KEEPER_ARG`], with the arguments after it.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let start = Args::parse(args).and_then(|args| match (args.lock, args.status) {
        (Some(lock), Some(status)) => {
            let ids = if args.own_id { userns::IdMap::Own } else { userns::IdMap::Ranges };
            let dir = RunDir::inherited(args.lab, args.dir, File::from(lock));
            Ok((dir, status, args.peer, args.leash, ids, args.rest))
        }
        _ => Err("--lock-fd or --status-fd is missing".into()),
    });
    let (dir, status, peer, leash, ids, rest) = match start {
        Ok(start) => start,
        Err(message) => {
            eprintln!("vpclab keeper: {message}");
            return ExitCode::from(2);
        }
    };
    match begin(dir, &status, peer, leash, ids, &rest) {
        Ok(keeper) => {
            drop(status); // the router process has its own: whoever waits must see its end
            keeper.serve()
        }
        Err(err) => {
            eprintln!("vpclab keeper: {err}");
            status::tell(&status, &Status::Failed { message: err.to_string(), exit: 3 });
            ExitCode::from(3)
        }
    }
}

fn begin(
    dir: RunDir,
    status: &OwnedFd,
    peer: Option<OwnedFd>,
    leash: Option<OwnedFd>,
    ids: userns::IdMap,
    router_args: &[OsString],
) -> io::Result<serve::Keeper> {
    let rootless = !userns::privileged();
    let prepared = (|| {
        let signals = signals::block()?;
        let pid = std::process::id();
        dir.record(&Record::Keeper { pid, started: started(pid).unwrap_or(0) })?;
        if rootless {
            userns::enter(ids)?;
        }
        match peer {
            Some(peer) => {
                status::tell(status, &Status::Ready);
                Ok((peer, None, signals))
            }
            None => {
                let (ours, theirs) = super::channel::pair()?;
                let pid = spawn_router(&dir, theirs, status, router_args, rootless)?;
                dir.record(&Record::Router { pid, started: started(pid).unwrap_or(0) })?;
                Ok((ours, Some(pid), signals))
            }
        }
    })();
    match prepared {
        Ok((peer, router, signals)) => Ok(serve::Keeper::new(dir, peer, leash, signals, router, rootless)),
        Err(err) => {
            let _ = dir.remove(); // nothing else was made; the error above is the one to tell
            Err(err)
        }
    }
}

/// Starts the router process in an empty network namespace, without capabilities.
fn spawn_router(dir: &RunDir, socket: OwnedFd, status: &OwnedFd, args: &[OsString], rootless: bool) -> io::Result<u32> {
    let (netns, ()) = netns::make(|| Ok(()))?;
    let netns_fd = netns.as_raw_fd();
    let us = rustix::process::getpid();
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROUTER_ARG).args(["--lab", dir.lab(), "--run-dir"]).arg(dir.path());
    command.args(["--keeper-fd", &socket.as_raw_fd().to_string()]);
    command.args(["--status-fd", &status.as_raw_fd().to_string()]);
    command.arg("--").args(args).stdin(Stdio::null());
    inherit(&mut command, &[socket.as_fd(), status.as_fd()]);
    let setup = move || {
        // SAFETY: the parent holds the namespace's descriptor until the child has been started.
        let netns = unsafe { BorrowedFd::borrow_raw(netns_fd) };
        rustix::thread::move_into_link_name_space(netns, Some(rustix::thread::LinkNameSpaceType::Network))?;
        signals::unblock()?;
        sandbox::drop_capabilities(if rootless { CapabilitySet::empty() } else { sandbox::ROUTER_KEEPS })?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() != Some(us) {
            return Err(io::ErrorKind::BrokenPipe.into()); // the keeper died before the line above
        }
        Ok(())
    };
    // SAFETY: the keeper has one thread, so the child may do what the keeper may.
    unsafe { command.pre_exec(setup) };
    let child = command.spawn().map_err(|err| explain(err, "start the router process"))?;
    Ok(child.id())
}

/// What the router process was started with: the other end of `spawn_router`.
#[derive(Debug)]
pub struct RouterStart {
    pub run_dir: RunDir,
    /// For [`super::client::KeeperClient`].
    pub keeper: OwnedFd,
    /// For [`status::tell`].
    pub status: OwnedFd,
    /// The arguments of [`Peer::Router`].
    pub args: Vec<OsString>,
}

impl RouterStart {
    /// From the process's arguments after [`ROUTER_ARG`]; once, because it adopts the descriptors they name.
    pub fn parse(args: impl Iterator<Item = OsString>) -> Result<RouterStart, String> {
        let args = Args::parse(args)?;
        Ok(RouterStart {
            run_dir: RunDir::named(args.lab, args.dir),
            keeper: args.keeper.ok_or("--keeper-fd is missing")?,
            status: args.status.ok_or("--status-fd is missing")?,
            args: args.rest,
        })
    }
}

/// Arguments of both processes. Descriptors are given by number and become ours.
#[derive(Default)]
struct Args {
    lab: String,
    dir: PathBuf,
    lock: Option<OwnedFd>,
    status: Option<OwnedFd>,
    leash: Option<OwnedFd>,
    peer: Option<OwnedFd>,
    keeper: Option<OwnedFd>,
    own_id: bool,
    rest: Vec<OsString>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Args, String> {
        let mut found = Args::default();
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            match name.as_str() {
                "--own-id" => found.own_id = true,
                "--lab" => found.lab = value(&mut args, &name)?.to_string_lossy().into_owned(),
                "--run-dir" => found.dir = value(&mut args, &name)?.into(),
                "--lock-fd" => found.lock = Some(adopt(value(&mut args, &name)?)?),
                "--status-fd" => found.status = Some(adopt(value(&mut args, &name)?)?),
                "--leash-fd" => found.leash = Some(adopt(value(&mut args, &name)?)?),
                "--peer-fd" => found.peer = Some(adopt(value(&mut args, &name)?)?),
                "--keeper-fd" => found.keeper = Some(adopt(value(&mut args, &name)?)?),
                "--" => {
                    found.rest = args.collect();
                    break;
                }
                _ => return Err(format!("unknown argument {name:?}; this process is started by vpclab itself")),
            }
        }
        if !super::rundir::valid_name(&found.lab) || !found.dir.is_absolute() {
            return Err("--lab or --run-dir is missing".into());
        }
        Ok(found)
    }
}

fn value(args: &mut impl Iterator<Item = OsString>, name: &str) -> Result<OsString, String> {
    args.next().ok_or_else(|| format!("{name} wants a value"))
}

/// A descriptor that the parent left open for us; close-on-exec from here on.
fn adopt(number: OsString) -> Result<OwnedFd, String> {
    let number: RawFd = number.to_str().and_then(|n| n.parse().ok()).filter(|n| *n > 2).ok_or("no descriptor")?;
    // SAFETY: only asks whether the number is open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(format!("descriptor {number} was not inherited"));
    }
    // SAFETY: inherited (open, and not of our making, which is always close-on-exec), and marked as taken below.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|err| err.to_string())?;
    Ok(fd)
}

/// Leaves these descriptors open in the command. They must stay open here until it has been spawned.
pub(super) fn inherit(command: &mut Command, fds: &[BorrowedFd]) {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let keep_open = move || {
        for number in &numbers {
            // SAFETY: fcntl(2) is async-signal-safe and takes its argument by value.
            if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls fcntl(2) alone, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(keep_open) };
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
