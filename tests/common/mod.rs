//! What the tests with real namespaces and real clients share: a lab that cleans up after itself, and the tools.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

#[path = "../support/users.rs"]
mod users;
#[path = "../support/waiting.rs"]
mod waiting;

#[allow(unused_imports, reason = "every test target uses its own part of this")]
pub use users::{NOBODY, as_ordinary_user, copy_program};
#[allow(unused_imports, reason = "every test target uses its own part of this")]
pub use waiting::{await_state, await_that};

/// The program under test.
pub const VPCLAB: &str = env!("CARGO_BIN_EXE_vpclab");

/// A running lab. Dropping it takes it down and fails the test if anything of it is left.
pub struct Lab {
    pub name: String,
    pub dir: tempfile::TempDir,
    down: bool,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self.out
    }

    /// The standard error of a command that must fail with this code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self.err
    }
}

impl Lab {
    /// Brings up a topology under a name that no other test uses.
    #[track_caller]
    pub fn up(topology: &str) -> Lab {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("lab.vpclab.yaml"), topology).expect("topology written");
        let name = unique_name();
        let said = run(vpclab().current_dir(dir.path()).args(["up", "lab.vpclab.yaml", "--name", &name]));
        assert_eq!(said.code, 0, "up failed:\n{}\n{}", said.out, said.err);
        Lab { name, dir, down: false }
    }

    /// One of the project's topologies.
    #[track_caller]
    pub fn up_file(file: &str) -> Lab {
        Lab::up(&topology(file))
    }

    /// `vpclab VERB -l LAB ARGS...`
    pub fn vpclab(&self, verb: &str, args: &[&str]) -> Said {
        run(vpclab().current_dir(self.dir.path()).arg(verb).args(["-l", &self.name]).args(args))
    }

    /// `vpclab exec -l LAB INSTANCE -- CMD...`
    pub fn exec(&self, instance: &str, command: &[&str]) -> Said {
        run(&mut self.exec_command(instance, command))
    }

    pub fn exec_command(&self, instance: &str, command: &[&str]) -> Command {
        let mut c = vpclab();
        c.current_dir(self.dir.path()).args(["exec", "-l", &self.name, instance, "--"]).args(command);
        c
    }

    /// A shell script in an instance.
    pub fn sh(&self, instance: &str, script: &str) -> Said {
        self.exec(instance, &["sh", "-c", script])
    }

    /// Takes the lab down and checks that nothing is left.
    #[track_caller]
    pub fn down(mut self) {
        self.take_down();
    }

    #[track_caller]
    fn take_down(&mut self) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        let said = run(vpclab().args(["down", "-l", &self.name]));
        let left = leftovers(&self.name);
        assert_eq!(said.code, 0, "down failed:\n{}\n{}", said.out, said.err);
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first failure is the interesting one: show what the lab saw, then clean up in silence.
            let drops = self.vpclab("drops", &[]);
            eprintln!("--- drops of {}\n{}{}", self.name, drops.out, drops.err);
            let logs = self.vpclab("logs", &["--router"]);
            eprintln!("--- router of {}\n{}{}", self.name, logs.out, logs.err);
            if !self.down {
                run(vpclab().args(["down", "-l", &self.name]));
            }
        } else {
            self.take_down();
        }
    }
}

/// What this host still has of a lab: named namespaces, their `/etc/netns` folders, run directories, processes.
pub fn leftovers(lab: &str) -> Vec<String> {
    let mut left = Vec::new();
    for folder in ["/run/netns", "/etc/netns"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{lab}.")) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    for base in ["/run/vpclab".to_owned(), format!("/tmp/vpclab-{}", uid()), runtime_dir()] {
        let path = Path::new(&base).join(lab);
        if path.exists() {
            left.push(path.display().to_string());
        }
    }
    for pid in processes_with(lab) {
        left.push(format!("process {pid}"));
    }
    left
}

/// Keeper and router processes of a lab, by their command lines.
pub fn processes_with(lab: &str) -> Vec<u32> {
    ["__keeper", "__router"].into_iter().flat_map(|verb| processes_of(lab, verb)).collect()
}

/// The router process of a lab that runs.
#[track_caller]
pub fn router_of(lab: &str) -> u32 {
    processes_of(lab, "__router").into_iter().next().expect("the router runs")
}

fn processes_of(lab: &str, verb: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let args: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        if args.contains(&verb.as_bytes()) && args.contains(&lab.as_bytes()) {
            pids.push(pid);
        }
    }
    pids
}

/// Memory of a process, by a field of its status: `VmRSS:` all that is resident, `RssAnon:` what is its own alone.
#[track_caller]
pub fn memory_kb(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a line of its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A command that says `going` when it has begun, and ends when its standard input does.
pub struct Going {
    child: Child,
}

impl Going {
    /// Returns when it has begun.
    #[track_caller]
    pub fn start(command: &mut Command) -> Going {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut going = Going { child: child.unwrap_or_else(|e| panic!("{command:?}: {e}")) };
        assert_eq!(going.line(), "going", "the command begins: {command:?}");
        going
    }

    /// Python in an instance.
    #[track_caller]
    pub fn python(lab: &Lab, instance: &str, script: &str) -> Going {
        Going::start(&mut lab.exec_command(instance, &["python3", "-c", script]))
    }

    /// Of the process; it is a child of this one.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output; what there is of one at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let mut one = [0; 1];
        let out = self.child.stdout.as_mut().expect("piped");
        while std::io::Read::read(out, &mut one).expect("output") == 1 && one[0] != b'\n' {
            line.push(char::from(one[0]));
        }
        line
    }

    /// Ends it; the last line that it says.
    #[track_caller]
    pub fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut last = String::new();
        for line in BufReader::new(self.child.stdout.take().expect("piped")).lines() {
            last = line.expect("output");
        }
        assert!(self.child.wait().expect("ended").success(), "{last}");
        last
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if std::thread::panicking() {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn topology(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The program, without what the caller's environment would tell it.
pub fn vpclab() -> Command {
    let mut c = Command::new(VPCLAB);
    for (key, _) in std::env::vars() {
        if key.starts_with("VPCLAB_") {
            c.env_remove(key);
        }
    }
    c.stdin(Stdio::null());
    c
}

#[track_caller]
pub fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Said {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Where `tests/run` put its tools.
pub fn tools() -> PathBuf {
    let path = std::env::var_os("VPCLAB_TEST_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"), PathBuf::from);
    assert!(path.join("venv/bin/aws").exists(), "the test tools are not installed: run tests/run");
    path
}

/// aws-cli v1 of the virtual environment.
pub fn aws1() -> String {
    tools().join("venv/bin/aws").display().to_string()
}

/// The Python that has boto3 and moto.
pub fn python() -> String {
    tools().join("venv/bin/python").display().to_string()
}

/// Debian's aws-cli, version 2.
pub fn aws2() -> String {
    let system = Path::new("/usr/bin/aws");
    let unpacked = tools().join("debian/usr/bin/aws");
    let found = if system.exists() { system.to_owned() } else { unpacked };
    assert!(found.exists(), "aws-cli 2 is missing: run tests/run");
    found.display().to_string()
}

/// A flood of pings as fast as `ping` allows its user, and how many there are: only root of the host floods at will.
pub fn ping_flood(count: u32, to: &str) -> (Vec<String>, u32) {
    let (count, pace) = if is_root() { (count, "0") } else { (count / 10, "0.002") };
    let words = ["ping", "-q", "-f", "-i", pace, "-c", &count.to_string(), "-W", "3", to];
    (words.map(str::to_owned).to_vec(), count)
}

pub fn is_root() -> bool {
    uid() == 0
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn runtime_dir() -> String {
    std::env::var("XDG_RUNTIME_DIR").map_or_else(|_| "/nonexistent".to_owned(), |dir| format!("{dir}/vpclab"))
}

/// moto's server, ended with the value.
pub struct Moto {
    child: std::process::Child,
    pub port: u16,
}

impl Moto {
    /// On a free port of loopback; returns when it says which, which it does when it accepts.
    #[track_caller]
    pub fn start() -> Moto {
        let mut child = Command::new(tools().join("venv/bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto_server");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let port = lines.find_map(|line| {
            let port = line.split_once("Running on http://127.0.0.1:").map(|(_, port)| port.trim().parse());
            said.push(line);
            port
        });
        // Whatever else it says is read away, or it would wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.unwrap_or_else(|| panic!("moto did not start: {said:?}")).expect("a port");
        Moto { child, port }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
