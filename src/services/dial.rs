//! How a backend outside the lab is reached: by somebody who may. The router process has no network of its own, so
//! `runtime` asks the keeper for a connected socket; tests hand over an in-memory pipe.

use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::model::plan::UpstreamAddr;

/// A byte stream in both directions: a socket, an in-memory pipe, a bridge to the router thread.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the end of this stream a reset, where its kind knows one: the peer must not take what it got for all.
    fn end_by_reset(&mut self) {}
}

impl Stream for tokio::net::TcpStream {
    fn end_by_reset(&mut self) {
        // It fails only for a socket that is gone already.
        let _ = self.set_zero_linger();
    }
}

impl Stream for tokio::net::UnixStream {}

impl Stream for tokio::io::DuplexStream {}

/// Makes connections to the backends that the topology names.
pub trait Dialer: Send + Sync {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// Those of connect(2); the caller tells a refusal from silence by their kind ([`outcome`]).
    fn dial(&self, addr: &UpstreamAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// What a client sees of a backend that could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The backend's host said no: the client gets a reset.
    Refused,
    /// Nothing came back: the client's SYN stays unanswered.
    Silent,
}

/// Sorts a failed dial. A full backlog (`EAGAIN` of a unix socket) drops a SYN in the world of TCP, so it is silence.
pub fn outcome(error: &io::Error) -> Unreached {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Unreached::Silent,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Unreached::Silent,
        _ => Unreached::Refused,
    }
}

/// A dialer of a lab without backends outside: refuses all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDialer;

impl Dialer for NoDialer {
    fn dial(&self, _addr: &UpstreamAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}
