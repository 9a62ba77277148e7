//! JSON values with descriptors beside them over a `SOCK_SEQPACKET` unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message in bytes; below the smallest socket buffer a kernel gives (wmem_default, 212,992).
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The most descriptors beside one message (the kernel's limit is 253).
pub const MAX_FDS: usize = 32;

/// Two connected sockets, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one value. `InvalidInput` if it is too large; `WouldBlock` only with `DONTWAIT`.
pub fn send<T: Serialize>(socket: impl AsFd, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_bytes(socket, &encode(value)?, fds, SendFlags::NOSIGNAL)
}

/// The bytes that [`send`] would send.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {} bytes", bytes.len())));
    }
    Ok(bytes)
}

pub fn send_bytes(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} descriptors beside a message", fds.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut control, flags | SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one value with its descriptors (close-on-exec); `None` when the other end is gone.
/// A message that is cut or is no `T` is `InvalidData`; its descriptors are closed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        )
    });
    let got = match got {
        Ok(got) => got,
        Err(rustix::io::Errno::CONNRESET) => return Ok(None), // gone with messages of ours unread
        Err(errno) => return Err(errno.into()),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.bytes == 0 {
        return Ok(None); // no value of ours is empty
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut"));
    }
    let value = serde_json::from_slice(&bytes[..got.bytes])
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.to_string()))?;
    Ok(Some((value, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_value_crosses_with_its_descriptor_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        let mut file = File::from(rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all(b"hello").unwrap();
        send(&a, &vec![1, 2], &[file.as_fd()]).unwrap();
        drop(a);
        let (value, fds) = receive::<Vec<u32>>(&b, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!(value, [1, 2]);
        let mut read = File::from(fds.into_iter().next().unwrap());
        read.rewind().unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(receive::<Vec<u32>>(&b, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_value_is_an_error_and_no_panic() {
        let (a, b) = pair().unwrap();
        send_bytes(&a, b"{nonsense", &[], SendFlags::empty()).unwrap();
        assert_eq!(receive::<u32>(&b, RecvFlags::empty()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(send(&a, &"x".repeat(MAX_MESSAGE), &[]).is_err());
    }
}
