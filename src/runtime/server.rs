//! The control socket: answers what `control::api` lists. A thread for each connection; few come, and each asks little.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::answers;
use super::node::Shared;
use super::streams::{self, Told};
use crate::control::api::{self, Envelope, Reply, Request};

/// Connections at a time; more are closed at once.
const MAX_CONNS: usize = 64;

/// How long a client may stay silent: `logs --follow` and the like ask again and again on one connection.
const SILENCE: Duration = Duration::from_secs(600);

/// Listens at `path`, which only the owner may open.
///
/// Errors: the socket cannot be made.
pub fn start(shared: Arc<Shared>, path: &Path) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("control".into()).spawn(move || accept(&listener, &shared))?;
    Ok(())
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors: they come back.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        if !is_owner(&stream) || open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNS {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (shared, count) = (shared.clone(), open.clone());
        let served = std::thread::Builder::new().name("control-conn".into()).spawn(move || {
            // Errors are the client's: it went away, or speaks something else.
            let _ = serve(stream, &shared);
            count.fetch_sub(1, Ordering::AcqRel);
        });
        if served.is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The folder and the socket are closed to others already; this holds even where somebody opened them.
fn is_owner(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

fn serve(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    loop {
        let envelope: Envelope = api::read_message(&mut stream)?;
        if envelope.version != api::VERSION {
            let message = format!(
                "the lab was started by another version of vpclab (its control version is {}, yours {})",
                api::VERSION,
                envelope.version
            );
            return send(&stream, &Reply::Failed { message, exit: 2 }, &[]);
        }
        let ends = matches!(envelope.request, Request::Down);
        let (reply, fds) = match envelope.request {
            Request::Capture(ask) => {
                streams::serve(&stream, shared, Told::Capture, ask)?;
                continue;
            }
            Request::Trace(ask) => {
                streams::serve(&stream, shared, Told::Trace, ask)?;
                continue;
            }
            Request::Exec { instance } => answers::exec(shared, &instance),
            request => (answers::answer(shared, request), Vec::new()),
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        send(&stream, &reply, &fds)?;
        // After the answer: the process may be gone before this thread would have sent it.
        if ends {
            shared.end("down");
        }
    }
}

/// The descriptors ride on the first bytes.
fn send(stream: &UnixStream, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = api::encode(reply)?;
    let mut at = 0;
    while at < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if at == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        at += rustix::io::retry_on_intr(|| {
            sendmsg(stream, &[IoSlice::new(&bytes[at..])], &mut control, SendFlags::NOSIGNAL)
        })?;
    }
    Ok(())
}
