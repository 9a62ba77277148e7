//! Signals as descriptors, for processes that wait in one place.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What [`block`] turns into reads.
const WATCHED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGCHLD, libc::SIGUSR1];

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub signal: i32,
    /// Sent by the terminal to the whole foreground group, children included.
    pub from_terminal: bool,
}

/// Blocks SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGCHLD for this thread and gives a non-blocking descriptor to
/// [`read`] them from.
pub fn block() -> io::Result<OwnedFd> {
    let set = watched();
    change(libc::SIG_BLOCK, &set)?;
    // SAFETY: reads the set, which lives here; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes back what [`block`] blocked: before an exec, which would inherit it.
pub fn unblock() -> io::Result<()> {
    change(libc::SIG_UNBLOCK, &watched())
}

/// The next waiting signal.
pub fn read(fd: &OwnedFd) -> Option<Received> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: signalfd writes at most one whole siginfo into the buffer of that size.
    let n = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if n != size as isize {
        return None;
    }
    // SAFETY: zeroed, then written whole; every bit pattern is a value of this plain C struct.
    let info = unsafe { info.assume_init() };
    // SI_KERNEL: nobody called kill(2)
    Some(Received { signal: info.ssi_signo as i32, from_terminal: info.ssi_code == 0x80 })
}

fn watched() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the line above.
    let mut set = unsafe { set.assume_init() };
    for signal in WATCHED {
        // SAFETY: adds a valid signal number to an initialised set.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}

fn change(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads the set, which outlives the call; no old set is asked for.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
