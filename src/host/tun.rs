//! TUN devices with the virtio header in view.
//!
//! The device hands over what the sender's kernel would have given to a network card: frames of up to 64 KB with
//! partial checksums, described by ten bytes in front (`wire::vnet`). They are passed on as they are (ARCHITECTURE.md,
//! D2), so no crate that splits and merges is of use here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::cmd::Offloads;

/// Bytes of the header in front of every frame.
pub const VNET_HDR_LEN: usize = 10;
/// The longest frame that a read may give: header and 64 KB - 1 of IP packet.
pub const MAX_FRAME: usize = VNET_HDR_LEN + 65_535;
/// Where the kernel hands out TUN devices.
pub const TUN_PATH: &CStr = c"/dev/net/tun";

/// An open, non-blocking queue of a TUN device. It lives in the namespace in which it was made, whoever holds it.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
}

impl Tun {
    /// Makes the device `name` in the calling thread's network namespace. It is persistent: the end of the namespace
    /// removes it, not the end of the descriptor (closing 100 plain ones takes seconds).
    ///
    /// Errors: `EPERM` without CAP_NET_ADMIN in the namespace's user namespace, `EACCES`/`ENOENT`/`ENODEV` for
    /// /dev/net/tun, `EBUSY` if the name is taken.
    pub fn create(name: &str) -> io::Result<(Tun, Offloads)> {
        let fd = rustix::fs::open(TUN_PATH, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let mut request = ifreq(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives here.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
        // SAFETY: TUNSETPERSIST takes its argument by value.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST as _, 1 as libc::c_ulong) })?;
        let size = VNET_HDR_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives here.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &size) })?;
        let tun = Tun { fd };
        let offloads = tun.set_offloads()?;
        Ok((tun, offloads))
    }

    /// Adopts a descriptor that [`Tun::create`] made, perhaps in another process.
    pub fn from_fd(fd: OwnedFd) -> Tun {
        Tun { fd }
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Reads one frame: virtio header and IP packet. `WouldBlock` when none waits. A buffer below [`MAX_FRAME`] may
    /// cut a frame.
    #[inline]
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buf)?)
    }

    /// Hands one frame to the namespace's kernel, which runs its receive path before this returns.
    ///
    /// Errors: `EINVAL` for a header that does not fit the packet, `EIO` while the device is down.
    #[inline]
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, frame)?;
        Ok(())
    }

    /// Asks for all that is of use and then for less. The mask belongs to the device and outlives the descriptor, so it
    /// is always set.
    fn set_offloads(&self) -> io::Result<Offloads> {
        let base = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let uso = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let full = Offloads { csum: true, tso4: true, tso6: true, tso_ecn: true, uso: true };
        let tries = [
            (base | uso, full),
            (base, Offloads { uso: false, ..full }),
            (base & !libc::TUN_F_TSO_ECN, Offloads { uso: false, tso_ecn: false, ..full }),
            (libc::TUN_F_CSUM, Offloads { csum: true, ..Offloads::default() }),
            (0, Offloads::default()),
        ];
        for (mask, offloads) in tries {
            // SAFETY: TUNSETOFFLOAD takes its argument by value.
            match check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, mask as libc::c_ulong) }) {
                Ok(()) => return Ok(offloads),
                Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {}
                Err(err) => return Err(err),
            }
        }
        Err(io::Error::other("TUNSETOFFLOAD refuses every mask"))
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// The device's name, as its namespace knows it.
pub fn name(tun: &Tun) -> io::Result<String> {
    let mut request = ifreq("")?;
    // SAFETY: TUNGETIFF writes one ifreq, which lives here.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF as _, &mut request) })?;
    let bytes: Vec<u8> = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Interface index of `name` in the calling thread's network namespace.
pub fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
