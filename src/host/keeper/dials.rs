//! Connections under way to servers of this machine. connect(2) never blocks here: each socket waits in the keeper's
//! poll for its result or its deadline.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::host::cmd::DialAddr;

/// How often a unix socket whose backlog is full is tried again: that has no event to wait for.
const UNIX_RETRY: Duration = Duration::from_millis(10);
/// The most connections under way; beyond, a dial fails at once.
const MOST: usize = 4096;

#[derive(Default)]
pub(super) struct Dials {
    under_way: Vec<Dial>,
}

struct Dial {
    id: u64,
    addr: DialAddr,
    socket: OwnedFd,
    deadline: Instant,
    /// Not begun: the unix backlog was full; try again then.
    retry: Option<Instant>,
}

/// An ended dial: the request's number and the connected socket.
pub(super) type Dialled = (u64, io::Result<OwnedFd>);

impl Dials {
    /// Begins one. What ends at once is given back.
    pub(super) fn begin(&mut self, id: u64, addr: DialAddr, timeout: Duration, now: Instant) -> Option<Dialled> {
        if self.under_way.len() >= MOST {
            return Some((id, Err(Errno::AGAIN.into())));
        }
        let socket = match socket_for(&addr) {
            Ok(socket) => socket,
            Err(err) => return Some((id, Err(err))),
        };
        let mut dial = Dial { id, addr, socket, deadline: now + timeout, retry: None };
        match dial.connect(now) {
            None => {
                self.under_way.push(dial);
                None
            }
            Some(Ok(())) if met_itself(&dial) => Some((id, Err(Errno::CONNREFUSED.into()))),
            Some(Ok(())) => Some((id, Ok(dial.socket))),
            Some(Err(err)) => Some((id, Err(err))),
        }
    }

    /// Sockets to poll for writing, in the order that [`Dials::ready`] takes.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.under_way.iter().map(|dial| dial.socket.as_fd())
    }

    /// The next moment at which [`Dials::ready`] has something to do without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.iter().map(|dial| dial.retry.map_or(dial.deadline, |retry| retry.min(dial.deadline))).min()
    }

    /// Ends what has ended. `writable[n]` speaks of the n-th of [`Dials::sockets`].
    pub(super) fn ready(&mut self, writable: &[bool], now: Instant) -> Vec<Dialled> {
        let mut ended = Vec::new();
        let mut writable = writable.iter().copied();
        for mut dial in std::mem::take(&mut self.under_way) {
            let had_event = writable.next().unwrap_or(false);
            let result = match dial.retry {
                Some(retry) if retry <= now => dial.connect(now),
                Some(_) => None,
                None if had_event => match rustix::net::sockopt::socket_error(&dial.socket) {
                    Ok(Ok(())) => Some(Ok(())),
                    Ok(Err(err)) | Err(err) => Some(Err(err.into())),
                },
                None => None,
            };
            match result {
                Some(Ok(())) if met_itself(&dial) => ended.push((dial.id, Err(Errno::CONNREFUSED.into()))),
                Some(Ok(())) => ended.push((dial.id, Ok(dial.socket))),
                Some(Err(err)) => ended.push((dial.id, Err(err))),
                None if dial.deadline <= now => ended.push((dial.id, Err(Errno::TIMEDOUT.into()))),
                None => self.under_way.push(dial),
            }
        }
        ended
    }
}

impl Dial {
    /// `None`: not decided yet.
    fn connect(&mut self, now: Instant) -> Option<io::Result<()>> {
        self.retry = None;
        let result = match &self.addr {
            DialAddr::Tcp(addr) => rustix::net::connect(&self.socket, addr),
            DialAddr::Unix(path) => match SocketAddrUnix::new(path) {
                Ok(addr) => rustix::net::connect(&self.socket, &addr),
                Err(err) => Err(err),
            },
        };
        match result {
            Ok(()) => Some(Ok(())),
            Err(Errno::INPROGRESS | Errno::INTR) => None,
            Err(Errno::AGAIN) if matches!(self.addr, DialAddr::Unix(_)) => {
                self.retry = Some(now + UNIX_RETRY);
                None
            }
            Err(err) => Some(Err(err.into())),
        }
    }
}

/// A loopback socket that the kernel gave the very port it dials is connected to itself (RFC 9293, 3.5, simultaneous
/// open): nobody listens.
fn met_itself(dial: &Dial) -> bool {
    let ours = rustix::net::getsockname(&dial.socket).ok();
    matches!(dial.addr, DialAddr::Tcp(_))
        && ours.is_some()
        && ours == rustix::net::getpeername(&dial.socket).ok().flatten()
}

/// A socket for the address, if it is one of this machine alone: the keeper is the last to check.
fn socket_for(addr: &DialAddr) -> io::Result<OwnedFd> {
    let family = match addr {
        DialAddr::Tcp(addr) if !addr.ip().to_canonical().is_loopback() => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{addr} is no loopback address")));
        }
        DialAddr::Tcp(addr) if addr.is_ipv4() => AddressFamily::INET,
        DialAddr::Tcp(_) => AddressFamily::INET6,
        DialAddr::Unix(path) if !path.is_absolute() => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no full path", path.display())));
        }
        DialAddr::Unix(_) => AddressFamily::UNIX,
    };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags};
    use std::net::TcpListener;

    fn finish(dials: &mut Dials) -> Vec<Dialled> {
        let mut fds: Vec<PollFd> = dials.sockets().map(|s| PollFd::from_borrowed_fd(s, PollFlags::OUT)).collect();
        crate::host::poll(&mut fds, Some(Duration::from_secs(5))).unwrap();
        let writable: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        dials.ready(&writable, Instant::now())
    }

    fn dial(addr: DialAddr) -> io::Result<OwnedFd> {
        let mut dials = Dials::default();
        if let Some((_, result)) = dials.begin(7, addr, Duration::from_secs(5), Instant::now()) {
            return result;
        }
        let (id, result) = finish(&mut dials).pop().unwrap();
        assert_eq!(id, 7);
        result
    }

    #[test]
    fn a_listener_is_reached_and_a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(dial(DialAddr::Tcp(addr)).is_ok());
        // bound and not listening: the port cannot become somebody else's
        let closed = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&closed, &std::net::SocketAddrV4::new([127, 0, 0, 1].into(), 0)).unwrap();
        let addr = rustix::net::getsockname(&closed).unwrap().try_into().unwrap();
        assert_eq!(dial(DialAddr::Tcp(addr)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn other_machines_are_not_dialled() {
        for addr in ["10.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::ffff:8.8.8.8]:53", "169.254.169.254:80"] {
            let err = dial(DialAddr::Tcp(addr.parse().unwrap())).unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::InvalidInput, "{addr}");
        }
        assert!(dial(DialAddr::Unix("relative.sock".into())).is_err());
        assert_eq!(dial(DialAddr::Unix("/nonexistent/s".into())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_dial_ends_at_its_deadline() {
        // a listener that accepts nothing and whose backlog is full keeps a unix dial waiting
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut dials = Dials::default();
        let now = Instant::now();
        let first = dials.begin(1, DialAddr::Unix(path.clone()), Duration::from_secs(1), now);
        assert!(first.is_some_and(|(_, result)| result.is_ok()));
        assert!(dials.begin(2, DialAddr::Unix(path), Duration::from_secs(1), now).is_none());
        assert_eq!(dials.deadline(), Some(now + UNIX_RETRY));
        assert!(dials.ready(&[false], now + UNIX_RETRY).is_empty());
        let ended = dials.ready(&[false], now + Duration::from_secs(1));
        assert_eq!(ended[0].1.as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(dials.deadline(), None);
    }
}
