//! Layer 3: what the Linux kernel is asked for: namespaces, TUN devices, mounts, processes. The only room with `unsafe`.
//!
//! A lab is two processes (ARCHITECTURE.md, D13). The *keeper* ([`keeper`]) holds the privilege and sees no packet;
//! the *router process* sees every packet and holds none. They speak [`cmd`] over a socket pair ([`channel`]);
//! [`client`] is the router's end. [`exec`] runs a command as an instance; [`rundir`] keeps the records by which
//! [`cleanup`] knows what is ours; [`doctor`] says what this machine lacks.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, Timespec};

pub mod channel;
pub mod cleanup;
pub mod client;
pub mod cmd;
pub mod doctor;
pub mod exec;
pub mod files;
mod instance;
pub mod keeper;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod procs;
pub mod rundir;
pub mod sandbox;
pub mod signals;
mod start;
pub mod status;
pub mod tun;
pub mod userns;
pub mod users;

/// The processes that this program starts of itself. `main` calls this first, with its arguments after the program's
/// name, while it has one thread; `None`: the arguments are a user's. The router process is `runtime`'s.
pub fn inner_process(args: &[OsString]) -> Option<ExitCode> {
    let (first, rest) = args.split_first()?;
    match first.to_str()? {
        keeper::KEEPER_ARG => Some(keeper::run(rest.iter().cloned())),
        doctor::PROBE_ARG => Some(doctor::probe()),
        exec::HELPER_ARG => Some(exec::helper(rest)),
        _ => None,
    }
}

/// poll(2) that goes on after a signal, with what is left of the time.
fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let spec = left.map(|left| Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ });
        match rustix::event::poll(fds, spec.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
