//! The keeper's loop: one thread, one poll.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::CapabilitySet;

use super::dials::Dials;
use crate::host::cmd::{HostCmd, HostReply, InstanceHost, Message, Request, RunSpec};
use crate::host::exec::{self, ExecInfo, ExecOptions, Namespaces};
use crate::host::instance::{self, Instance};
use crate::host::rundir::RunDir;
use crate::host::{channel, sandbox, signals, userns};

/// How long the router process may take to end.
const ROUTER_GRACE: Duration = Duration::from_secs(3);
/// How long a killed command may take to end.
const RUN_GRACE: Duration = Duration::from_secs(2);
/// Answers that wait for the peer before its questions have to.
const MOST_UNSENT: usize = 256;

pub(super) struct Keeper {
    dir: RunDir,
    peer: Option<OwnedFd>,
    leash: Option<OwnedFd>,
    signals: OwnedFd,
    router: Option<Pid>,
    rootless: bool,
    instances: HashMap<String, Instance>,
    dials: Dials,
    runs: HashMap<u64, Run>,
    next_run: u64,
    unsent: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// The lab is to end; the router process may take until then.
    ending: Option<Instant>,
}

struct Run {
    pid: Pid,
    /// SIGTERM was sent; SIGKILL follows then.
    kill_at: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(
        dir: RunDir,
        peer: OwnedFd,
        leash: Option<OwnedFd>,
        signals: OwnedFd,
        router: Option<u32>,
        rootless: bool,
    ) -> Keeper {
        Keeper {
            dir,
            peer: Some(peer),
            leash,
            signals,
            router: router.and_then(|pid| Pid::from_raw(pid as i32)),
            rootless,
            instances: HashMap::new(),
            dials: Dials::default(),
            runs: HashMap::new(),
            next_run: 0,
            unsent: VecDeque::new(),
            ending: None,
        }
    }

    /// Until the peer is gone; then removes everything.
    pub(super) fn serve(mut self) -> ExitCode {
        let served = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(err) => break Err(err),
            }
        };
        let removed = self.remove_all();
        match served.and(removed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                eprintln!("vpclab keeper: {err}; what is left, `vpclab clean` removes");
                ExitCode::from(3)
            }
        }
    }

    /// One wait and what it brought. False when the peer is gone.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(peer) = &self.peer else { return Ok(false) };
        let mut interest = PollFlags::empty();
        if self.unsent.len() < MOST_UNSENT {
            interest |= PollFlags::IN;
        }
        if !self.unsent.is_empty() {
            interest |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(peer, interest), PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(leash) = &self.leash {
            fds.push(PollFd::new(leash, PollFlags::IN));
        }
        let first_dial = fds.len();
        fds.extend(self.dials.sockets().map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::OUT)));
        let now = Instant::now();
        let kills = self.runs.values().filter_map(|run| run.kill_at);
        let deadline = kills.chain(self.dials.deadline()).chain(self.ending).min();
        crate::host::poll(&mut fds, deadline.map(|deadline| deadline.saturating_duration_since(now)))?;

        let peer_events = fds[0].revents();
        let signalled = !fds[1].revents().is_empty();
        let let_go = self.leash.is_some() && !fds[2].revents().is_empty();
        let writable: Vec<bool> = fds[first_dial..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);

        let now = Instant::now();
        for (id, result) in self.dials.ready(&writable, now) {
            self.answer(id, result.map(|socket| (HostReply::Done, vec![socket])));
        }
        if signalled {
            self.on_signals();
        }
        if let_go
            && let Some(leash) = self.leash.take()
            // A byte takes the leash off; an end without one is the death of who held it.
            && rustix::io::read(&leash, &mut [0; 1]) != Ok(1)
        {
            self.end("the command line that held the lab is gone", now);
        }
        self.kill_late_runs(now);
        if self.ending.is_some_and(|deadline| deadline <= now) {
            return Ok(false);
        }
        if peer_events.contains(PollFlags::OUT) {
            self.send_unsent()?;
        }
        if peer_events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return self.receive(now);
        }
        Ok(true)
    }

    /// False when the peer is gone, or speaks nonsense: it is another process of ours, so the lab cannot go on.
    fn receive(&mut self, now: Instant) -> io::Result<bool> {
        // a few at a time, so that dials and signals have their turn
        for _ in 0..16 {
            let Some(peer) = &self.peer else { return Ok(false) };
            match channel::receive::<Request>(peer, RecvFlags::DONTWAIT) {
                Ok(Some((request, fds))) => self.carry_out(request, fds, now),
                Ok(None) => return Ok(false),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(err) => return Err(err),
            }
        }
        Ok(true)
    }

    fn carry_out(&mut self, Request { id, cmd }: Request, fds: Vec<OwnedFd>, now: Instant) {
        let result = match cmd {
            HostCmd::Hello => self.hello(),
            HostCmd::MakeInstance(wanted) => self.make(&wanted),
            HostCmd::RemoveInstance { path } => match self.instances.remove(&path) {
                Some(instance) => {
                    let ended = instance::end_processes([&instance].into_iter());
                    let removed = instance::remove(&self.dir, instance);
                    ended.and(removed).map(|()| done())
                }
                None => Err(unknown(&path)),
            },
            HostCmd::SetFiles { path, files } => {
                self.instance(&path).and_then(|at| instance::set_files(&self.dir, at, &files)).map(|()| done())
            }
            HostCmd::SetSynRetries { path, syn_retries } => {
                self.instance(&path).and_then(|at| instance::set_syn_retries(at, syn_retries)).map(|()| done())
            }
            HostCmd::Dial { addr, timeout_ms } => {
                let timeout = Duration::from_millis(u64::from(timeout_ms));
                match self.dials.begin(id, addr, timeout, now) {
                    Some((_, result)) => result.map(|socket| (HostReply::Done, vec![socket])),
                    None => return,
                }
            }
            HostCmd::Bind { path, socket } => {
                self.instance(&path).and_then(|at| instance::bind(at, socket)).map(|fd| (HostReply::Done, vec![fd]))
            }
            HostCmd::Run { path, spec } => self.run(&path, spec, fds),
            HostCmd::Kill { run } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    let _ = rustix::process::kill_process_group(run.pid, Signal::TERM); // it may have ended
                    run.kill_at.get_or_insert(now + RUN_GRACE);
                }
                Ok(done())
            }
            HostCmd::Shutdown => {
                self.ending.get_or_insert(now + ROUTER_GRACE);
                Ok(done())
            }
        };
        self.answer(id, result);
    }

    fn hello(&self) -> io::Result<(HostReply, Vec<OwnedFd>)> {
        let fds = if self.rootless { vec![userns::current()?] } else { Vec::new() };
        Ok((HostReply::Keeper { pid: std::process::id(), rootless: self.rootless }, fds))
    }

    fn make(&mut self, wanted: &InstanceHost) -> io::Result<(HostReply, Vec<OwnedFd>)> {
        if self.instances.contains_key(&wanted.path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", wanted.path)));
        }
        if wanted.lab != self.dir.lab() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is another lab", wanted.lab)));
        }
        let made = instance::make(&self.dir, wanted, self.rootless)?;
        let netns = made.instance.netns.try_clone()?;
        let netns_path = made.instance.netns_path.clone();
        self.instances.insert(wanted.path.clone(), made.instance);
        let mut fds: Vec<OwnedFd> = made.tuns.into_iter().map(crate::host::tun::Tun::into_fd).collect();
        fds.push(netns);
        Ok((HostReply::Made { netns_path, offloads: made.offloads, congestion: made.congestion }, fds))
    }

    fn run(&mut self, path: &str, spec: RunSpec, fds: Vec<OwnedFd>) -> io::Result<(HostReply, Vec<OwnedFd>)> {
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a command wants stdout and stderr"));
        };
        let instance = self.instance(path)?;
        let info = ExecInfo {
            lab: self.dir.lab().to_owned(),
            instance: path.to_owned(),
            files: self.dir.instance(path),
            ca_bundle: spec.ca_bundle,
            region: spec.region,
            env: spec.env,
        };
        // the keeper is in the user namespace already
        let namespaces = Namespaces { user: None, net: instance.netns.try_clone()? };
        let options = ExecOptions { user: spec.user, ..ExecOptions::default() };
        let argv: Vec<_> = spec.argv.into_iter().map(Into::into).collect();
        let mut command = exec::command(&info, &namespaces, &argv, &options)?;
        command.current_dir(&spec.cwd).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let rootless = self.rootless;
        let setup = move || {
            signals::unblock()?;
            if rootless {
                // the helper needs them; executed by a user who is not root it would have none
                sandbox::keep_through_exec(CapabilitySet::all())?;
            }
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        };
        // SAFETY: the keeper has one thread, so the child may do what the keeper may.
        unsafe { command.pre_exec(setup) };
        let pid = command.spawn()?.id();
        self.next_run += 1;
        let run = self.next_run;
        if let Some(pid) = Pid::from_raw(pid as i32) {
            self.runs.insert(run, Run { pid, kill_at: None });
        }
        Ok((HostReply::Started { run, pid }, Vec::new()))
    }

    fn instance(&self, path: &str) -> io::Result<&Instance> {
        self.instances.get(path).ok_or_else(|| unknown(path))
    }

    fn answer(&mut self, id: u64, result: io::Result<(HostReply, Vec<OwnedFd>)>) {
        let (reply, fds) = result.unwrap_or_else(|err| (failed(&err), Vec::new()));
        self.tell(&Message::Reply { id, reply }, fds);
    }

    fn tell(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        match channel::encode(message) {
            Ok(bytes) => self.unsent.push_back((bytes, fds)),
            Err(err) => eprintln!("vpclab keeper: an answer was lost: {err}"),
        }
        if self.send_unsent().is_err() {
            self.peer = None; // seen at the next turn
        }
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        let Some(peer) = &self.peer else { return Ok(()) };
        while let Some((bytes, fds)) = self.unsent.front() {
            let fds: Vec<BorrowedFd> = fds.iter().map(AsFd::as_fd).collect();
            match channel::send_bytes(peer, bytes, &fds, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn on_signals(&mut self) {
        while let Some(received) = signals::read(&self.signals) {
            if received.signal == libc::SIGCHLD {
                continue; // several children make one signal: all are asked below
            }
            if received.signal != libc::SIGUSR1 {
                self.end("the keeper was told to end", Instant::now());
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.router == Some(pid) {
                self.router = None;
            }
            let run = self.runs.iter().find(|(_, run)| run.pid == pid).map(|(id, _)| *id);
            if let Some(run) = run {
                self.runs.remove(&run);
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                self.tell(&Message::Exited { run, code: exec::exit_code(status) }, Vec::new());
            }
        }
    }

    /// Asks the router process to end.
    fn end(&mut self, reason: &str, now: Instant) {
        if self.ending.is_none() {
            self.ending = Some(now + ROUTER_GRACE);
            self.tell(&Message::Ending { reason: reason.to_owned() }, Vec::new());
        }
    }

    fn kill_late_runs(&mut self, now: Instant) {
        for run in self.runs.values_mut().filter(|run| run.kill_at.is_some_and(|at| at <= now)) {
            let _ = rustix::process::kill_process_group(run.pid, Signal::KILL); // it may have ended
            run.kill_at = None;
        }
    }

    /// Leaves nothing. Every step is tried; the first error is told and the folder stays for `vpclab clean`.
    fn remove_all(mut self) -> io::Result<()> {
        self.peer = None;
        self.unsent.clear();
        for run in self.runs.values() {
            let _ = rustix::process::kill_process_group(run.pid, Signal::TERM); // it may have ended
        }
        self.end_router();
        let mut first = instance::end_processes(self.instances.values());
        for instance in std::mem::take(&mut self.instances).into_values() {
            let removed = instance::remove(&self.dir, instance);
            if first.is_ok() {
                first = removed;
            }
        }
        // commands that left their namespace
        for run in self.runs.values() {
            let _ = rustix::process::kill_process_group(run.pid, Signal::KILL);
        }
        first?;
        self.dir.remove()
    }

    /// The router process ends by itself when it sees the end of its socket; if not, by force.
    fn end_router(&mut self) {
        let Some(router) = self.router.take() else { return };
        let ended = |wait: WaitOptions| !matches!(rustix::process::waitpid(Some(router), wait), Ok(None));
        let held = rustix::process::pidfd_open(router, rustix::process::PidfdFlags::empty());
        if let Ok(held) = held {
            let _ = crate::host::poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(ROUTER_GRACE));
        }
        if !ended(WaitOptions::NOHANG) {
            let _ = rustix::process::kill_process(router, Signal::KILL); // ours and not waited for: the number is its own
            ended(WaitOptions::empty());
        }
    }
}

fn done() -> (HostReply, Vec<OwnedFd>) {
    (HostReply::Done, Vec::new())
}

fn failed(err: &io::Error) -> HostReply {
    // errors with words of ours have lost the number, but not the kind
    let errno = err.raw_os_error().or(match err.kind() {
        io::ErrorKind::PermissionDenied => Some(libc::EPERM),
        io::ErrorKind::NotFound => Some(libc::ENOENT),
        io::ErrorKind::AlreadyExists => Some(libc::EEXIST),
        io::ErrorKind::InvalidInput => Some(libc::EINVAL),
        io::ErrorKind::AddrInUse => Some(libc::EADDRINUSE),
        io::ErrorKind::TimedOut => Some(libc::ETIMEDOUT),
        _ => None,
    });
    HostReply::Failed { errno, message: err.to_string() }
}

fn unknown(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no instance {path}"))
}
