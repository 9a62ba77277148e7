//! The keeper: the process that holds a lab's privilege. It makes namespaces and devices, connects to servers of this
//! machine, runs commands as instances, and removes everything when the lab ends, however it ends. It sees no packet.

mod dials;
mod serve;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::FdFlags;
use rustix::process::Signal;
use rustix::thread::CapabilitySet;

use super::netns::{self, explain};
use super::rundir::{Record, RunDir, started};
use super::start::inherit;
use super::status::{self, Status};
use super::{sandbox, signals, userns};

pub use super::start::{KeeperHandle, KeeperOptions, Peer, spawn};

/// First argument of the keeper and of the router process.
pub const KEEPER_ARG: &str = "__keeper";
pub const ROUTER_ARG: &str = "__router";

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
