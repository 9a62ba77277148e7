//! How a starting lab reports to the command line that started it: one line of JSON over a pipe, written by the router
//! process when the lab answers, or by whoever fails first. An end without a line is a crash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The lab answers.
    Ready,
    /// It does not come up. `exit`: what the command line shall return (2 bad input, 3 the host cannot).
    Failed { message: String, exit: u8 },
}

/// The longest line that is read.
const MAX_LINE: usize = 64 * 1024;

/// Tells the status; nobody may listen any more, which is no error.
pub fn tell(pipe: &OwnedFd, status: &Status) {
    if let (Ok(mut line), Ok(fd)) = (serde_json::to_vec(status), pipe.try_clone()) {
        line.push(b'\n');
        let _ = File::from(fd).write_all(&line);
    }
}

/// Waits for the status. `TimedOut` after `timeout`; `UnexpectedEof` if the lab ended without a word.
pub fn wait(pipe: &OwnedFd, timeout: Duration) -> io::Result<Status> {
    let deadline = Instant::now() + timeout;
    let mut file = File::from(pipe.try_clone()?);
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = super::poll(&mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)], Some(left))?;
        if ready == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the lab did not come up in time"));
        }
        let mut bytes = [0; 4096];
        let n = file.read(&mut bytes)?;
        line.extend_from_slice(&bytes[..n]);
        if let Some(end) = line.iter().position(|b| *b == b'\n') {
            return serde_json::from_slice(&line[..end]).map_err(io::Error::other);
        }
        if n == 0 || line.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the lab ended while it came up"));
        }
    }
}
