//! The `run:` commands of instances: started by the keeper as `exec` would, their output kept for `vpclab logs`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe;

use super::clock::OsClock;
use crate::base::Clock;
use crate::control::api::LogLine;
use crate::host::client::KeeperClient;
use crate::host::cmd::RunSpec;

/// Lines kept in memory for each instance.
const KEPT: usize = 2_000;

/// Bytes of a line; a longer one is cut into several.
const LINE: usize = 8 << 10;

/// Bytes of a log file before it is laid aside as `.1`; so an instance takes twice this at most.
const FILE_BYTES: u64 = 8 << 20;

/// The output of one instance's commands. Clones share it.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Inner>>);

struct Inner {
    lines: VecDeque<LogLine>,
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Log {
    /// Writes to `DIR/VPC.NAME.log` too, from the first line on.
    pub fn new(dir: &Path, instance: &str) -> Log {
        let path = dir.join(format!("{instance}.log"));
        Log(Arc::new(Mutex::new(Inner { lines: VecDeque::new(), path, file: None, written: 0 })))
    }

    /// Oldest first.
    pub fn lines(&self) -> Vec<LogLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    pub fn put(&self, line: LogLine) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk loses lines of the file, not of the memory.
        let _ = inner.write(&line);
        if inner.lines.len() == KEPT {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }
}

impl Inner {
    fn write(&mut self, line: &LogLine) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        if self.written > FILE_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
            self.written = 0;
        }
        let text = format!("{} {} {}\n", line.command, line.stream, line.text);
        self.written += text.len() as u64;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    }
}

/// Starts a command; gives the keeper's number of it, and the task that follows it to its end.
///
/// Errors: the keeper cannot start it. Blocks while it is started.
pub fn start(
    keeper: &KeeperClient,
    instance: &str,
    command: usize,
    spec: RunSpec,
    log: Log,
    clock: OsClock,
) -> io::Result<(u64, impl Future<Output = ()> + Send + use<>)> {
    let (out, out_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (err, err_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let handle = keeper.run(instance, spec, out_end.as_fd(), err_end.as_fd())?;
    drop((out_end, err_end));
    let (out, err) = (receiver(out)?, receiver(err)?);
    let run = handle.run;
    let following = async move {
        let note = |stream: &'static str| {
            let log = log.clone();
            move |text: String| {
                log.put(LogLine { time_ms: clock.unix_ms(clock.now()), command, stream: stream.into(), text });
            }
        };
        tokio::join!(follow(out, note("out")), follow(err, note("err")));
        let end = match handle.exit.await {
            Ok(code) => format!("ended with {code}"),
            Err(_) => "ended with the lab".to_owned(),
        };
        note("lab")(end);
    };
    Ok((run, following))
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Receiver::from_owned_fd(fd)
}

/// Hands on each line, or part of one that is too long, until the writers are gone.
async fn follow(from: impl AsyncRead + Unpin, mut put: impl FnMut(String)) {
    let mut from = BufReader::with_capacity(LINE, from);
    let mut line = Vec::new();
    loop {
        let (taken, whole) = match from.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let (taken, whole) = match bytes.iter().position(|b| *b == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (bytes.len(), false),
                };
                line.extend_from_slice(&bytes[..taken]);
                (taken, whole)
            }
        };
        from.consume(taken);
        if whole || line.len() >= LINE {
            if whole {
                line.pop();
            }
            put(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    }
    if !line.is_empty() {
        put(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_out_whole_and_endless_ones_in_bounded_parts() {
        let mut text = b"one\n\ntwo\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 3 * LINE));
        let mut lines = Vec::new();
        follow(text.as_slice(), |line| lines.push(line)).await;
        assert_eq!(lines[..3], ["one", "", "two"]);
        assert!(lines[3..].iter().all(|line| line.len() <= 2 * LINE));
        assert_eq!(lines[3..].iter().map(String::len).sum::<usize>(), 3 * LINE);
    }

    #[test]
    fn the_memory_keeps_the_newest_lines_and_the_file_is_laid_aside_when_long() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = Log::new(dir.path(), "app.web");
        let text = "y".repeat(LINE);
        let count = FILE_BYTES as usize / LINE + 10;
        for n in 0..count.max(KEPT + 1) {
            log.put(LogLine { time_ms: n as u64, command: 0, stream: "out".into(), text: text.clone() });
        }
        let lines = log.lines();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines.last().map(|l| l.time_ms), Some(count.max(KEPT + 1) as u64 - 1));
        assert!(dir.path().join("app.web.log.1").exists());
        let len = std::fs::metadata(dir.path().join("app.web.log")).expect("log").len();
        assert!(len <= FILE_BYTES + 2 * LINE as u64);
    }
}
