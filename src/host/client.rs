//! The router process's end of the socket to the keeper.
//!
//! One thread reads; answers go to whoever asked, by number, so a slow dial holds nobody up. Every call blocks its
//! thread, except `dial`, which services await.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use tokio::sync::oneshot;

use super::channel;
use super::cmd::{
    BindSocket, DialAddr, EtcFiles, HostCmd, HostReply, InstanceHost, Message, Offloads, Request, RunSpec,
};

/// A handle; clones share the socket. When the last is dropped, the keeper sees the end and removes the lab.
#[derive(Clone)]
pub struct KeeperClient {
    handle: Arc<Handle>,
}

/// The keeper's answer to [`KeeperClient::hello`].
#[derive(Debug)]
pub struct Keeper {
    pub pid: u32,
    pub rootless: bool,
    /// What `exec` joins first, when rootless.
    pub user_namespace: Option<OwnedFd>,
}

/// A made instance.
#[derive(Debug)]
pub struct InstanceFds {
    /// In the order of [`InstanceHost::enis`]. An open TUN keeps its namespace alive: close it on removal.
    pub tuns: Vec<OwnedFd>,
    pub netns: OwnedFd,
    /// `/run/netns/LAB.VPC.NAME` as root, otherwise `/proc/KEEPER/fd/N`.
    pub netns_path: PathBuf,
    pub offloads: Vec<Offloads>,
    /// The route metric for congestion control was accepted; otherwise the kernel's default is in force.
    pub congestion: bool,
}

/// A command that the keeper runs for us.
#[derive(Debug)]
pub struct RunHandle {
    pub run: u64,
    pub pid: u32,
    /// Exit code, or 128 + signal; an error when the keeper is gone.
    pub exit: oneshot::Receiver<i32>,
}

impl KeeperClient {
    /// `on_end` is called once, from the reading thread: with the keeper's reason when the lab shall end, or
    /// `the keeper is gone`. It is not called when the last handle was dropped.
    pub fn new(socket: OwnedFd, on_end: impl FnOnce(String) + Send + 'static) -> io::Result<KeeperClient> {
        let shared = Arc::new(Shared { socket, state: Mutex::default() });
        let reader = Arc::clone(&shared);
        std::thread::Builder::new().name("keeper-client".into()).spawn(move || reader.read_all(on_end))?;
        Ok(KeeperClient { handle: Arc::new(Handle { shared }) })
    }

    pub fn hello(&self) -> io::Result<Keeper> {
        match self.call(HostCmd::Hello, &[])? {
            (HostReply::Keeper { pid, rootless }, fds) => {
                Ok(Keeper { pid, rootless, user_namespace: fds.into_iter().next() })
            }
            other => unexpected(other),
        }
    }

    /// Makes the namespace, its devices, addresses and routes: about 1 ms.
    pub fn make_instance(&self, instance: InstanceHost) -> io::Result<InstanceFds> {
        let enis = instance.enis.len();
        match self.call(HostCmd::MakeInstance(instance), &[])? {
            (HostReply::Made { netns_path, offloads, congestion }, mut fds) if fds.len() == enis + 1 => {
                let netns = fds.pop().ok_or(io::ErrorKind::InvalidData)?;
                Ok(InstanceFds { tuns: fds, netns, netns_path, offloads, congestion })
            }
            other => unexpected(other),
        }
    }

    /// Ends the instance's processes and removes its namespace. Close its descriptors too.
    pub fn remove_instance(&self, path: &str) -> io::Result<()> {
        self.call(HostCmd::RemoveInstance { path: path.into() }, &[]).map(drop)
    }

    pub fn set_files(&self, path: &str, files: EtcFiles) -> io::Result<()> {
        self.call(HostCmd::SetFiles { path: path.into(), files }, &[]).map(drop)
    }

    pub fn set_syn_retries(&self, path: &str, syn_retries: u8) -> io::Result<()> {
        self.call(HostCmd::SetSynRetries { path: path.into(), syn_retries }, &[]).map(drop)
    }

    /// A connected, non-blocking socket to a server of this machine. Errors as of connect(2): `ConnectionRefused`
    /// says that nobody listens, `TimedOut` that nobody answered within `timeout`.
    pub async fn dial(&self, addr: DialAddr, timeout: Duration) -> io::Result<OwnedFd> {
        let timeout_ms = timeout.as_millis().clamp(1, u128::from(u32::MAX)) as u32;
        let (sender, answer) = oneshot::channel();
        self.begin(HostCmd::Dial { addr, timeout_ms }, &[], Waiting::Task(sender))?;
        one_fd(settle(answer.await.map_err(|_| gone())?)?)
    }

    /// As [`KeeperClient::dial`], for threads.
    pub fn dial_blocking(&self, addr: DialAddr, timeout: Duration) -> io::Result<OwnedFd> {
        let timeout_ms = timeout.as_millis().clamp(1, u128::from(u32::MAX)) as u32;
        one_fd(self.call(HostCmd::Dial { addr, timeout_ms }, &[])?)
    }

    /// A socket bound (TCP: and listening) in an instance's namespace, non-blocking.
    pub fn bind(&self, path: &str, socket: BindSocket) -> io::Result<OwnedFd> {
        one_fd(self.call(HostCmd::Bind { path: path.into(), socket }, &[])?)
    }

    /// Runs a command as the instance, as `exec` would, with these as stdout and stderr and no stdin.
    pub fn run(&self, path: &str, spec: RunSpec, stdout: BorrowedFd, stderr: BorrowedFd) -> io::Result<RunHandle> {
        match self.call(HostCmd::Run { path: path.into(), spec }, &[stdout, stderr])? {
            (HostReply::Started { run, pid }, _) => {
                let (sender, exit) = oneshot::channel();
                let mut state = self.handle.shared.lock();
                match state.exited.remove(&run) {
                    Some(code) => drop(sender.send(code)),
                    None => drop(state.exits.insert(run, sender)),
                }
                Ok(RunHandle { run, pid, exit })
            }
            other => unexpected(other),
        }
    }

    /// Ends a command begun with [`KeeperClient::run`]: SIGTERM to its process group, SIGKILL two seconds later.
    pub fn kill(&self, run: u64) -> io::Result<()> {
        self.call(HostCmd::Kill { run }, &[]).map(drop)
    }

    /// Tells the keeper to remove everything. It begins when this process has closed the socket or ended.
    pub fn shutdown(&self) -> io::Result<()> {
        self.call(HostCmd::Shutdown, &[]).map(drop)
    }

    fn call(&self, cmd: HostCmd, fds: &[BorrowedFd]) -> io::Result<Answer> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.begin(cmd, fds, Waiting::Thread(sender))?;
        settle(answer.recv().map_err(|_| gone())?)
    }

    fn begin(&self, cmd: HostCmd, fds: &[BorrowedFd], waiting: Waiting) -> io::Result<()> {
        let shared = &self.handle.shared;
        let id = {
            let mut state = shared.lock();
            if state.gone {
                return Err(gone());
            }
            state.next_id += 1;
            let id = state.next_id;
            state.pending.insert(id, waiting);
            id
        };
        if let Err(err) = channel::send(&shared.socket, &Request { id, cmd }, fds) {
            shared.lock().pending.remove(&id);
            return Err(err);
        }
        Ok(())
    }
}

type Answer = (HostReply, Vec<OwnedFd>);

/// Who asked. Dropped unanswered, it tells the asker that the keeper is gone.
enum Waiting {
    Thread(std::sync::mpsc::SyncSender<Answer>),
    Task(oneshot::Sender<Answer>),
}

impl Waiting {
    /// The asker may have given up: then the descriptors close here.
    fn answer(self, answer: Answer) {
        match self {
            Waiting::Thread(sender) => drop(sender.send(answer)),
            Waiting::Task(sender) => drop(sender.send(answer)),
        }
    }
}

/// Ends the reading thread with the last client.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().dropped = true;
        let _ = rustix::net::shutdown(&self.shared.socket, Shutdown::Both); // fails only if the keeper is gone
    }
}

struct Shared {
    socket: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    pending: HashMap<u64, Waiting>,
    exits: HashMap<u64, oneshot::Sender<i32>>,
    /// Ends told before the starter had its answer in hand.
    exited: HashMap<u64, i32>,
    gone: bool,
    dropped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // every change of the state is one insert or remove
    }

    fn read_all(&self, on_end: impl FnOnce(String)) {
        let mut on_end = Some(on_end);
        // what cannot be read is as good as an end: the keeper is our own binary
        while let Ok(Some((message, fds))) = channel::receive::<Message>(self.socket.as_fd(), RecvFlags::empty()) {
            match message {
                Message::Reply { id, reply } => {
                    let waiting = self.lock().pending.remove(&id);
                    if let Some(waiting) = waiting {
                        waiting.answer((reply, fds));
                    }
                }
                Message::Exited { run, code } => {
                    let mut state = self.lock();
                    match state.exits.remove(&run) {
                        Some(waiting) => drop(waiting.send(code)),
                        None => drop(state.exited.insert(run, code)),
                    }
                }
                Message::Ending { reason } => {
                    if let Some(on_end) = on_end.take() {
                        on_end(reason);
                    }
                }
            }
        }
        let dropped = {
            let mut state = self.lock();
            state.gone = true;
            state.pending.clear(); // their receivers see an error
            state.exits.clear();
            state.dropped
        };
        if let (false, Some(on_end)) = (dropped, on_end) {
            on_end("the keeper is gone".into());
        }
    }
}

fn settle(answer: Answer) -> io::Result<Answer> {
    match answer {
        (HostReply::Failed { errno, message }, _) => Err(failure(errno, message)),
        answer => Ok(answer),
    }
}

/// The kind of the errno with the keeper's words.
fn failure(errno: Option<i32>, message: String) -> io::Error {
    let kind = errno.map_or(io::ErrorKind::Other, |errno| io::Error::from_raw_os_error(errno).kind());
    io::Error::new(kind, message)
}

fn one_fd((reply, fds): Answer) -> io::Result<OwnedFd> {
    match (reply, fds.into_iter().next()) {
        (HostReply::Done, Some(fd)) => Ok(fd),
        (reply, _) => unexpected((reply, Vec::new())),
    }
}

fn unexpected<T>((reply, fds): Answer) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the keeper answered {reply:?} with {} descriptors", fds.len()),
    ))
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the keeper is gone")
}
