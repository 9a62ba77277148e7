//! The front of this room for the command line: starts labs, finds running ones, ends them.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Client, ClientError};
use crate::control::store::{self, Accepted};
use crate::host::keeper::{self, KeeperHandle, KeeperOptions, Peer};
use crate::host::rundir::{ClaimError, RunDir};
use crate::host::status::Status;
use crate::host::userns::IdMap;

/// How long a lab may take to come up: a thousand instances take seconds.
const COMING_UP: Duration = Duration::from_secs(60);

/// How long a lab may take to be gone after it took the order.
const GOING: Duration = Duration::from_secs(30);

/// How a lab is started.
pub struct Launch {
    pub accepted: Accepted,
    /// The lab ends when the [`Running`] is dropped or this process dies; otherwise it outlives both.
    pub leash: bool,
    /// Without root: map only the own id, though more may be had.
    pub own_id: bool,
}

/// A lab that answers.
#[derive(Debug)]
pub struct Running {
    pub name: String,
    pub run_dir: PathBuf,
    keeper: KeeperHandle,
}

/// Why a lab did not start, and the exit code for it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LaunchError {
    pub message: String,
    pub exit: u8,
}

impl From<io::Error> for LaunchError {
    fn from(error: io::Error) -> LaunchError {
        LaunchError { message: error.to_string(), exit: 3 }
    }
}

/// Starts the lab and waits until it answers. A failure leaves nothing behind.
pub fn launch(launch: Launch) -> Result<Running, LaunchError> {
    let name = launch.accepted.name.clone();
    let run_dir = RunDir::claim(&name).map_err(|error| {
        let exit = if matches!(error, ClaimError::Io(_)) { 3 } else { 2 };
        LaunchError { message: error.to_string(), exit }
    })?;
    let path = run_dir.path().to_owned();
    if let Err(error) = write_accepted(&path, &launch.accepted) {
        let _ = run_dir.remove();
        return Err(error.into());
    }
    let mut keeper = keeper::spawn(KeeperOptions {
        run_dir,
        program: "/proc/self/exe".into(),
        peer: Peer::Router { args: Vec::new() },
        // Always, until it is up: an `up` that is interrupted half-way leaves nothing either.
        leash: true,
        log: true,
        ids: if launch.own_id { IdMap::Own } else { IdMap::Ranges },
    })?;
    match keeper.wait_ready(COMING_UP) {
        Ok(Status::Ready) => {
            if !launch.leash {
                keeper.release()?;
            }
            Ok(Running { name, run_dir: path, keeper })
        }
        Ok(Status::Failed { message, exit }) => {
            keeper.end()?;
            Err(LaunchError { message, exit })
        }
        Err(error) => {
            let words = keeper.last_words(10);
            let _ = keeper.end();
            let words = if words.is_empty() { words } else { format!("; its last words:\n{words}") };
            Err(LaunchError { message: format!("{error}{words}"), exit: 3 })
        }
    }
}

impl Running {
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.run_dir)
    }

    /// Ends the lab and waits until nothing of it is left.
    pub fn end(self) -> io::Result<()> {
        self.keeper.end()
    }

    /// Stays until a signal comes (one that [`crate::host::signals::block`] gave `signals` for) or the lab ends by
    /// itself; then ends it and waits until nothing of it is left.
    pub fn stay(self, signals: &std::os::fd::OwnedFd) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let pid = i32::try_from(self.keeper.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the keeper has no process id"))?;
        let gone = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let mut watched = [PollFd::new(signals, PollFlags::IN), PollFd::new(&gone, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        self.end()
    }

    /// Waits until the lab ends by itself or by `down`.
    pub fn wait(self) -> io::Result<()> {
        self.keeper.wait()
    }
}

/// The labs of this user that run, by name.
pub fn running() -> Vec<RunDir> {
    RunDir::list().into_iter().filter(RunDir::is_running).collect()
}

/// Why no single lab could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum Choice {
    #[error("no lab runs")]
    None,
    #[error("lab {0} does not run")]
    NotRunning(String),
    #[error("several labs run: say which with -l: {}", .0.join(", "))]
    Several(Vec<String>),
}

/// The lab of this name, or the only one that runs.
pub fn choose(name: Option<&str>) -> Result<RunDir, Choice> {
    let mut labs = running();
    match name {
        Some(name) => labs.into_iter().find(|lab| lab.lab() == name).ok_or_else(|| Choice::NotRunning(name.to_owned())),
        None => match labs.len() {
            0 => Err(Choice::None),
            1 => Ok(labs.remove(0)),
            _ => Err(Choice::Several(labs.iter().map(|lab| lab.lab().to_owned()).collect())),
        },
    }
}

/// Orders the lab to end and waits until nothing of it is left.
pub fn end(run_dir: &RunDir) -> Result<(), ClientError> {
    let keeper = run_dir.keeper();
    Client::connect(run_dir.path())?.ask(crate::control::api::Request::Down)?;
    if run_dir.wait_gone(keeper, GOING) {
        Ok(())
    } else {
        Err(ClientError::Refused {
            message: "the lab took the order but does not end; `vpclab clean` removes what is left".into(),
            exit: 3,
        })
    }
}

fn write_accepted(run_dir: &Path, accepted: &Accepted) -> io::Result<()> {
    let path = run_dir.join(store::FILE);
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(accepted.to_json().as_bytes())
}
