//! Processes found by what they have joined.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::rundir::started;

/// Processes whose network namespace is one of `namespaces` (device and inode), this one excepted. What may not be
/// looked at is not ours.
pub fn in_namespaces(namespaces: &[(u64, u64)]) -> Vec<u32> {
    let us = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != us && joined(*pid, namespaces))
        .collect()
}

/// Ends these processes: SIGTERM, and SIGKILL to what is left after `grace`. `still_ours` is asked once more before each
/// signal, when the number can no longer be reused. Returns how many there were.
pub fn end(pids: &[u32], grace: Duration, still_ours: impl Fn(u32) -> bool) -> io::Result<usize> {
    let held: Vec<OwnedFd> = pids
        .iter()
        .filter_map(|pid| {
            let held = rustix::process::pidfd_open(Pid::from_raw(*pid as i32)?, PidfdFlags::empty()).ok()?;
            still_ours(*pid).then_some(held)
        })
        .collect();
    for signal in [Signal::TERM, Signal::KILL] {
        for process in &held {
            let _ = rustix::process::pidfd_send_signal(process, signal); // gone already
        }
        // what SIGKILL does not end in a second hangs in the kernel
        if all_ended(&held, if signal == Signal::TERM { grace } else { Duration::from_secs(1) })? {
            break;
        }
    }
    Ok(held.len())
}

/// Waits for the end of a process that began at that moment, as [`started`] tells it; another
/// that has its number by now is not waited for. False if it lives on after `timeout`.
pub fn wait_ended(pid: u32, began: u64, timeout: Duration) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        // what the descriptor holds is looked at when its number can no longer be reused
        Ok(held) => started(pid) != Some(began) || all_ended(&[held], timeout).unwrap_or(false),
        Err(errno) => errno == rustix::io::Errno::SRCH,
    }
}

/// As [`end`], for everything in these namespaces.
pub fn end_in_namespaces(namespaces: &[(u64, u64)], grace: Duration) -> io::Result<usize> {
    let mut ended = 0;
    // a process may fork between our look and our signal
    for _ in 0..5 {
        let pids = in_namespaces(namespaces);
        if pids.is_empty() {
            break;
        }
        ended += end(&pids, grace, |pid| joined(pid, namespaces))?;
    }
    Ok(ended)
}

fn joined(pid: u32, namespaces: &[(u64, u64)]) -> bool {
    std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| namespaces.contains(&(meta.dev(), meta.ino())))
}

fn all_ended(held: &[OwnedFd], within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    for process in held {
        let left = deadline.saturating_duration_since(Instant::now());
        if super::poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(left))? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
