//! The asking side of a lab's control socket: blocking, one connection for one question or several.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::control::api::{self, Envelope, Reply, Request, StreamEnd};

/// The socket's name in a lab's run directory.
pub const SOCKET: &str = "control.sock";

/// A question that the router thread answers takes microseconds; `down` waits for the lab elsewhere.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no lab answers at {path}: {source}", path = .path.display())]
    Absent { path: PathBuf, source: io::Error },
    #[error("the lab broke off: {0}")]
    Broken(#[from] io::Error),
    /// The lab's own words, and the exit code they should lead to.
    #[error("{message}")]
    Refused { message: String, exit: u8 },
    #[error("{}", api::UNEXPECTED)]
    Unexpected,
}

impl ClientError {
    /// The exit code of a verb that ends with this.
    pub fn exit(&self) -> u8 {
        match self {
            ClientError::Absent { .. } => 2,
            ClientError::Refused { exit, .. } => *exit,
            ClientError::Broken(_) | ClientError::Unexpected => 3,
        }
    }
}

pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// To the lab whose run directory this is.
    pub fn connect(run_dir: &Path) -> Result<Client, ClientError> {
        let path = run_dir.join(SOCKET);
        let stream = UnixStream::connect(&path).map_err(|source| ClientError::Absent { path, source })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream })
    }

    /// Asks and waits. A [`Reply::Failed`] is an error.
    pub fn ask(&mut self, request: Request) -> Result<Reply, ClientError> {
        self.ask_with_fds(request).map(|(reply, _)| reply)
    }

    /// The same with the descriptors that the reply carried.
    pub fn ask_with_fds(&mut self, request: Request) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        api::write_message(&mut self.stream, &Envelope { version: api::VERSION, request })?;
        self.stream.flush()?;
        let (len, fds) = receive_length(&self.stream)?;
        match api::read_body(&mut self.stream, len)? {
            Reply::Failed { message, exit } => Err(ClientError::Refused { message, exit }),
            reply => Ok((reply, fds)),
        }
    }

    /// Asks for a stream and hands on its blocks as they come, however long that takes; until the lab ends it, or the
    /// [`Stopper`] is used. `begun` is called when the lab has begun to watch.
    ///
    /// Errors: the lab refuses; what `block` fails with.
    pub fn stream(
        &mut self,
        request: Request,
        begun: impl FnOnce(),
        mut block: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<StreamEnd, ClientError> {
        match self.ask(request)? {
            Reply::Stream => {}
            _ => return Err(ClientError::Unexpected),
        }
        begun();
        self.stream.set_read_timeout(None)?;
        let mut bytes = Vec::new();
        loop {
            let mut len = [0; 4];
            self.stream.read_exact(&mut len)?;
            let len = u32::from_le_bytes(len) as usize;
            if len == 0 {
                break;
            }
            if len > api::MAX_BLOCK {
                return Err(ClientError::Unexpected);
            }
            bytes.resize(len, 0);
            self.stream.read_exact(&mut bytes)?;
            block(&bytes)?;
        }
        Ok(api::read_message(&mut self.stream)?)
    }

    /// Ends a stream from another thread.
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper(self.stream.try_clone()?))
    }

    /// True once the lab has closed this connection: the sign that `down` is done. Waits at most `patience`.
    pub fn wait_closed(&mut self, patience: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(false),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// Tells the lab that its client has enough of a stream: what was seen until then still comes.
pub struct Stopper(UnixStream);

impl Stopper {
    /// Waits for a signal that asks to end, or with `out` for the reader of standard output to go away; then ends the
    /// stream.
    pub fn stop_on(self, signals: &OwnedFd, out: bool) {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::io::Errno;
        let stdout = io::stdout();
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if out {
            // No event is asked for: the end of its reader is told nevertheless.
            fds.push(PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty()));
        }
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let asked = crate::host::signals::read(signals).is_some_and(|received| received.signal != libc::SIGCHLD);
            let unread = fds.get(1).is_some_and(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::NVAL));
            if asked || unread {
                let _ = self.0.shutdown(std::net::Shutdown::Write);
                return;
            }
        }
    }
}

/// The four bytes of the length, and what rode on the first.
fn receive_length(stream: &UnixStream) -> io::Result<([u8; 4], Vec<OwnedFd>)> {
    let mut len = [0; 4];
    let mut at = 0;
    let mut fds = Vec::new();
    while at < len.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = match recvmsg(stream, &mut [IoSliceMut::new(&mut len[at..])], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += got.bytes;
    }
    Ok((len, fds))
}
