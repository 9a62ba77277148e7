//! Running a command as an instance: its network, names, trust and region in place of the host's; the user's folder,
//! terminal and tools as they are.
//!
//! Two steps. [`command`] starts this program again as a helper; the helper ([`helper`]) joins the namespaces, lays
//! files over the host's in a mount namespace of its own, becomes the wanted user and executes the command. The helper
//! exists because a user namespace can only be joined by a process with one thread.

mod env;
mod identity;
mod mounts;
mod trust;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

pub use env::{CA_VARIABLES, Keep, MARK, environment};

use super::signals;

/// First argument of the helper.
pub const HELPER_ARG: &str = "__exec";
/// Exit code of a failure that is ours, as with docker.
pub const OWN_FAILURE: i32 = 125;
/// The command is there and cannot be executed; it is not there.
pub const NOT_EXECUTABLE: i32 = 126;
pub const NOT_FOUND: i32 = 127;
/// Exit code when `--timeout` ended the command, as with timeout(1).
pub const TIMED_OUT: i32 = 124;
/// After SIGTERM by `--timeout`, SIGKILL follows.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// What the running lab knows about the instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecInfo {
    pub lab: String,
    /// `VPC.NAME`.
    pub instance: String,
    /// Folder of `resolv.conf`, `nsswitch.conf`, `hosts`: [`super::rundir::RunDir::instance`].
    pub files: PathBuf,
    /// System bundle and lab CA; `None`: the system's trust stays.
    pub ca_bundle: Option<PathBuf>,
    pub region: String,
    /// The instance's `env`.
    pub env: Vec<(String, String)>,
}

/// What the caller asks.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// This program, which [`helper`] is in: `/proc/self/exe`.
    pub program: PathBuf,
    /// Variables of the caller to keep or set, against the rules of [`environment`].
    pub keep: Vec<Keep>,
    /// `NAME`, `UID`, `NAME:GROUP`; `None`: the caller.
    pub user: Option<String>,
    /// The longest it may run.
    pub timeout: Option<Duration>,
}

impl Default for ExecOptions {
    fn default() -> ExecOptions {
        ExecOptions { program: "/proc/self/exe".into(), keep: Vec::new(), user: None, timeout: None }
    }
}

/// What the command joins.
#[derive(Debug)]
pub struct Namespaces {
    /// Of a lab without root; `None` if the caller is in it already, or there is none.
    pub user: Option<OwnedFd>,
    pub net: OwnedFd,
}

/// The command, ready to be spawned with the caller's own standard streams and folder. `argv` must not be empty.
///
/// The command ends with the thread that spawns it. Failures before it runs are exit codes 125, 126 and 127 with a line
/// on its standard error.
pub fn command(info: &ExecInfo, join: &Namespaces, argv: &[OsString], options: &ExecOptions) -> io::Result<Command> {
    let net = join.net.try_clone()?;
    let user = join.user.as_ref().map(OwnedFd::try_clone).transpose()?;
    let variables = environment(std::env::vars_os(), info, &options.keep);
    let kept: Vec<String> = options.keep.iter().map(|keep| keep.name.clone()).collect();
    let spec = Spec {
        info: info.clone(),
        user: options.user.clone(),
        net_fd: net.as_raw_fd(),
        user_fd: user.as_ref().map(AsRawFd::as_raw_fd),
        trust_variables: CA_VARIABLES
            .iter()
            .filter(|name| !kept.iter().any(|k| k == *name))
            .map(|n| (*n).into())
            .collect(),
        parent: std::process::id(),
    };
    let mut file = File::from(rustix::fs::memfd_create(c"vpclab-exec", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&spec).map_err(io::Error::other)?)?;
    file.rewind()?;

    let mut command = Command::new(&options.program);
    command.arg(HELPER_ARG).arg(file.as_raw_fd().to_string()).arg("--").args(argv);
    command.env_clear().envs(variables);
    let fds: Vec<OwnedFd> = [Some(file.into()), Some(net), user].into_iter().flatten().collect();
    super::start::inherit(&mut command, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let held = Arc::new(fds);
    let hold = move || {
        let _ = &held; // open as long as the command may be spawned
        Ok(())
    };
    // SAFETY: the closure does nothing.
    unsafe { command.pre_exec(hold) };
    Ok(command)
}

/// Runs the command in the foreground of the caller's terminal: signals sent to us are passed on, and our end is its
/// end. Returns its exit code, 128 + signal, 124 after `timeout`, or 125 to 127.
///
/// To be called by a process with one thread, because signals are blocked by thread.
pub fn run(info: &ExecInfo, join: &Namespaces, argv: &[OsString], options: &ExecOptions) -> io::Result<i32> {
    let mut command = command(info, join, argv, options)?;
    // a command with a deadline gets a process group of its own, so that the deadline is for its children too;
    // not on a terminal, which would stop a background group that reads
    let own_group = options.timeout.is_some() && !io::stdin().is_terminal();
    if own_group {
        command.process_group(0);
    }
    let signals = signals::block()?;
    // SAFETY: pthread_sigmask is async-signal-safe.
    unsafe { command.pre_exec(signals::unblock) };
    let result = attend(&mut command, &signals, own_group, options.timeout);
    signals::unblock()?;
    result
}

/// Exit code as shells have it: the command's own, or 128 + signal.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(OWN_FAILURE)
}

/// The helper process: what `main` does when its first argument is [`HELPER_ARG`], with the arguments after it. It
/// returns only when the command does not run.
pub fn helper(args: &[OsString]) -> ExitCode {
    let (code, message) = match begin(args) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    eprintln!("vpclab: {message}");
    ExitCode::from(code as u8)
}

/// What the helper is told.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    info: ExecInfo,
    user: Option<String>,
    net_fd: RawFd,
    user_fd: Option<RawFd>,
    /// Variables to set to the bundle's path.
    trust_variables: Vec<String>,
    parent: u32,
}

enum Never {}

fn begin(args: &[OsString]) -> Result<Never, (i32, String)> {
    let ours = |what: &str| {
        let what = what.to_owned();
        move |err: io::Error| (OWN_FAILURE, format!("cannot {what}: {err}"))
    };
    let [fd, dashes, argv @ ..] = args else {
        return Err((OWN_FAILURE, "this process is started by vpclab itself".into()));
    };
    let (Some(fd), true, Some(program)) = (fd.to_str().and_then(|fd| fd.parse().ok()), dashes == "--", argv.first())
    else {
        return Err((OWN_FAILURE, "this process is started by vpclab itself".into()));
    };
    let spec = read_spec(fd).map_err(ours("read what to execute"))?;
    // SAFETY: the parent left it open for us and names it once.
    let net = unsafe { OwnedFd::from_raw_fd(spec.net_fd) };
    if let Some(user) = spec.user_fd {
        // SAFETY: as above.
        let user = unsafe { OwnedFd::from_raw_fd(user) };
        identity::join_user(&user).map_err(ours("join the lab's user namespace"))?;
    }
    identity::join_net(&net).map_err(ours("join the instance's network namespace"))?;
    drop(net);
    let person = identity::Identity::find(spec.user.as_deref()).map_err(|message| (OWN_FAILURE, message))?;
    let trusted = mounts::lay_all(&spec.info, &person, argv).map_err(|err| (OWN_FAILURE, err.to_string()))?;

    let mut command = Command::new(program);
    command.args(&argv[1..]);
    if let Some(path) = trusted {
        command.envs(spec.trust_variables.iter().map(|name| (name, &path)));
    }
    command.envs(person.variables());
    // mounts.rs may have laid something over the folder we are in
    if let Ok(here) = std::env::current_dir() {
        let _ = std::env::set_current_dir(here); // gone from sight: the command stays where it was
    }
    person.take_on(spec.parent).map_err(|err| (OWN_FAILURE, err.to_string()))?;
    let err = command.exec();
    let code = if is_nowhere(program) { NOT_FOUND } else { NOT_EXECUTABLE };
    Err((code, format!("cannot execute {}: {err}", program.to_string_lossy())))
}

/// exec(3) says "permission denied" as soon as one folder of the PATH may not be looked into.
fn is_nowhere(program: &OsString) -> bool {
    let name = Path::new(program);
    if name.components().count() > 1 {
        return std::fs::metadata(name).is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    !std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn read_spec(fd: RawFd) -> io::Result<Spec> {
    // SAFETY: the parent left it open for us and names it once.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

fn attend(command: &mut Command, signals: &OwnedFd, own_group: bool, timeout: Option<Duration>) -> io::Result<i32> {
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let send = |signal: Signal| {
        let _ = if own_group {
            rustix::process::kill_process_group(pid, signal)
        } else {
            rustix::process::kill_process(pid, signal)
        }; // not waited for yet, so the number is its own
    };
    // not SIGCHLD: in a process with several threads that may go to one that does not block it
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut timed_out = false;
    loop {
        if let Some(status) = child.try_wait()? {
            if timed_out && own_group {
                send(Signal::KILL); // what it left behind
            }
            return Ok(if timed_out { TIMED_OUT } else { exit_code(status) });
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        super::poll(&mut [PollFd::new(signals, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)], left)?;
        while let Some(received) = signals::read(signals) {
            // the terminal has told its whole foreground group
            let told = received.from_terminal && !own_group;
            if received.signal != libc::SIGCHLD
                && !told
                && let Some(signal) = Signal::from_named_raw(received.signal)
            {
                send(signal);
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            send(if timed_out { Signal::KILL } else { Signal::TERM });
            deadline = (!timed_out).then(|| Instant::now() + KILL_AFTER);
            timed_out = true;
        }
    }
}
