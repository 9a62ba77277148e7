//! Does a lab come, go and leave nothing? Second `up`, failed `up`, kill -9, Ctrl-C, two labs side by side, and what a
//! command in an instance sees of its caller's environment.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use common::{Lab, await_that, aws2, leftovers, processes_with, run, topology, unique_name, vpclab};

#[test]
fn a_second_up_says_that_the_lab_runs() {
    let lab = Lab::up_file("demo.yaml");
    let again = run(vpclab().current_dir(lab.dir.path()).args(["up", "lab.vpclab.yaml", "--name", &lab.name]));
    let text = again.fails_with(2);
    assert!(text.contains("already runs"), "{text}");
    lab.exec("web", &["true"]).ok();
}

#[test]
fn a_refused_topology_creates_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let broken = topology("demo.yaml").replace("10.0.2.0/24", "10.0.1.128/25");
    std::fs::write(dir.path().join("x.vpclab.yaml"), broken).expect("written");
    let name = unique_name();
    let said = run(vpclab().current_dir(dir.path()).args(["up", "--name", &name]));
    let text = said.fails_with(2);
    assert!(text.contains("x.vpclab.yaml:"), "{text}");
    assert!(text.contains("InvalidSubnet.Conflict"), "{text}");
    assert!(leftovers(&name).is_empty());
}

#[test]
fn an_up_that_fails_half_way_leaves_nothing() {
    // The listener cannot be bound: its port is taken by another of the same instance.
    let dir = tempfile::tempdir().expect("folder");
    let text = "version: 1\nname: x\nregion: eu-west-1\nvpcs:\n  app:\n    cidr: 10.0.0.0/16\n    subnets: { a: { cidr: 10.0.1.0/24, az: a } }\n    instances:\n      web: { subnet: a, listen: [ { tcp: 80, reply: /nonexistent/folder } ] }\n";
    std::fs::write(dir.path().join("x.vpclab.yaml"), text).expect("written");
    let name = unique_name();
    let said = run(vpclab().current_dir(dir.path()).args(["up", "--name", &name]));
    assert_ne!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.err.contains("/nonexistent/folder"), "{}", said.err);
    assert!(leftovers(&name).is_empty(), "{:?}", leftovers(&name));
}

#[test]
fn killed_processes_leave_what_clean_removes_and_nothing_more() {
    for who in ["__router", "__keeper", "both"] {
        let lab = Lab::up_file("demo.yaml");
        let other = Lab::up_file("demo.yaml");
        for pid in processes_with(&lab.name) {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if who == "both" || line.contains(who) {
                let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("pid")).expect("pid");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        await_that("the processes are gone", || processes_with(&lab.name).is_empty());
        run(vpclab().arg("clean")).ok();
        assert!(leftovers(&lab.name).is_empty(), "after killing {who}: {:?}", leftovers(&lab.name));
        other.exec("web", &["true"]).ok();
        let again = run(vpclab().current_dir(lab.dir.path()).args(["up", "lab.vpclab.yaml", "--name", &lab.name]));
        assert_eq!(again.code, 0, "after killing {who} and clean, up: {}", again.err);
        lab.down();
    }
}

#[test]
fn an_attached_lab_ends_with_a_signal() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("lab.vpclab.yaml"), topology("demo.yaml")).expect("written");
        let name = unique_name();
        let mut child = vpclab()
            .current_dir(dir.path())
            .args(["up", "--attach", "--name", &name])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("up");
        // Held to the end: it has more to say.
        let mut says = BufReader::new(child.stderr.take().expect("piped")).lines();
        assert!(says.any(|line| line.expect("a line") == "Ctrl-C ends it."), "up ended by itself");
        run(vpclab().args(["exec", "-l", &name, "web", "--", "true"])).ok();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("signal");
        child.wait().expect("ended");
        await_nothing_left(&name);
    }
}

#[test]
fn two_labs_with_the_same_addresses_do_not_see_each_other() {
    let one = Lab::up_file("demo.yaml");
    let two = Lab::up_file("demo.yaml");
    one.exec("web", &[&aws2(), "s3", "mb", "s3://only-in-one"]).ok();
    assert!(!two.exec("web", &[&aws2(), "s3", "ls"]).ok().contains("only-in-one"));
    let listed = run(vpclab().arg("ls")).ok();
    assert!(listed.contains(&one.name) && listed.contains(&two.name), "{listed}");
}

#[test]
fn run_brings_up_executes_and_leaves_nothing_with_the_commands_code() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("lab.vpclab.yaml"), topology("demo.yaml")).expect("written");
    let name = unique_name();
    let commands: [(&[&str], i32); 2] =
        [(&["sh", "-c", "aws --version >/dev/null 2>&1; exit 42"], 42), (&["/no/such"], 127)];
    for (command, code) in commands {
        let mut run_in_lab = vpclab();
        run_in_lab.current_dir(dir.path()).args(["run", "--name", &name, "lab.vpclab.yaml", "web", "--"]).args(command);
        let said = run(&mut run_in_lab);
        assert_eq!(said.code, code, "{}", said.err);
        assert!(leftovers(&name).is_empty());
    }
}

#[test]
fn exec_is_not_misled_by_a_hostile_home_and_environment() {
    let lab = Lab::up_file("demo.yaml");
    let home = tempfile::tempdir().expect("home");
    std::fs::create_dir(home.path().join(".aws")).expect("folder");
    std::fs::write(
        home.path().join(".aws/credentials"),
        "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n[prod]\naws_access_key_id = AKIAPROD\naws_secret_access_key = wrong\n",
    )
    .expect("credentials");
    std::fs::write(
        home.path().join(".aws/config"),
        "[default]\nregion = ap-south-1\nendpoint_url = http://127.0.0.1:1\n",
    )
    .expect("config");
    let mut command = lab.exec_command("web", &[&aws2(), "sts", "get-caller-identity"]);
    command
        .env("HOME", home.path())
        .env("AWS_PROFILE", "prod")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
        .env("AWS_ACCESS_KEY_ID", "AKIAOTHER")
        .env("AWS_SECRET_ACCESS_KEY", "other")
        .env("AWS_REGION", "ap-south-1")
        .env("AWS_CONFIG_FILE", home.path().join(".aws/config"))
        .env("https_proxy", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .env("SSL_CERT_FILE", "/nonexistent");
    let identity = run(&mut command).ok();
    assert!(identity.contains(":assumed-role/web-role/i-"), "{identity}");
    // The caller's own files are as they were, and what is not AWS's reaches the command.
    assert!(std::fs::read_to_string(home.path().join(".aws/credentials")).expect("kept").contains("AKIAPROD"));
    let seen = run(lab.exec_command("web", &["sh", "-c", "echo $MARK; pwd; env"]).env("MARK", "kept")).ok();
    assert!(seen.starts_with("kept\n"), "{seen}");
    assert!(seen.contains(&lab.dir.path().canonicalize().expect("folder").display().to_string()), "{seen}");
    assert!(seen.contains("AWS_DEFAULT_REGION=eu-west-1") && seen.contains("AWS_REGION=eu-west-1"), "{seen}");
    // One variable can be kept, or set, on purpose.
    let set = run(vpclab().args([
        "exec",
        "-l",
        &lab.name,
        "--env",
        "AWS_PROFILE=mine",
        "web",
        "--",
        "sh",
        "-c",
        "echo $AWS_PROFILE",
    ]))
    .ok();
    assert_eq!(set.trim(), "mine");
}

/// What the test itself says on its connection to the host's name service.
const OWN: &[u8; 7] = b"control";

#[test]
fn no_exec_reaches_the_hosts_name_service() {
    if !common::is_root() {
        return unprivileged_cannot_fake_the_hosts_socket();
    }
    let lab = Lab::up_file("demo.yaml");
    let folder = Path::new("/run/systemd/resolve");
    let made = !folder.exists();
    std::fs::create_dir_all(folder).expect("folder");
    let socket = folder.join("io.systemd.Resolve");
    assert!(!socket.exists(), "this host runs systemd-resolved; the test would disturb it");
    let listener = UnixListener::bind(&socket).expect("fake socket");
    // In the order of their coming, whether they are this test's own.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut word = [0; OWN.len()];
            let own = connection.and_then(|mut c| c.read_exact(&mut word)).is_ok() && word == *OWN;
            tell.send(own).ok();
        }
    });
    let seen =
        lab.sh("web", "getent hosts sts.eu-west-1.amazonaws.com; getent hosts example.com; ls -A /run/systemd/resolve");
    let reached = UnixStream::connect(&socket).and_then(|mut stream| stream.write_all(OWN)).is_ok();
    std::fs::remove_file(&socket).expect("removed");
    if made {
        std::fs::remove_dir_all(folder).ok();
    }
    assert!(reached, "the fake socket does accept on the host");
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(true), "the first that came is this test's own");
    assert!(seen.out.contains("10.0."), "{seen:?}");
    assert!(!seen.out.contains("io.systemd.Resolve"), "{seen:?}");
}

/// Without root nobody can put a socket at systemd-resolved's path; what is left to check is that the folder is covered.
fn unprivileged_cannot_fake_the_hosts_socket() {
    let lab = Lab::up_file("demo.yaml");
    let seen = lab.sh("web", "ls -A /run/systemd/resolve 2>/dev/null; true").ok();
    assert_eq!(seen, "");
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_are_no_panic() {
    let lab = Lab::up_file("demo.yaml");
    let name = &lab.name;
    let program = common::VPCLAB;
    for verb in ["schema", "services", &format!("ps -l {name}"), "completion bash", "init demo"] {
        let said = run(std::process::Command::new("sh").arg("-c").arg(format!("{program} {verb} | true")));
        assert!(said.err.is_empty(), "{verb}: {}", said.err);
        let said = run(std::process::Command::new("sh").arg("-c").arg(format!("{program} {verb} > /dev/full")));
        assert_eq!(said.fails_with(3), "vpclab: standard output: no storage space\n", "{verb}");
    }
}

#[test]
fn a_lab_holds_nothing_that_its_caller_had_open() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("x.vpclab.yaml"), topology("demo.yaml")).expect("written");
    let (name, lock) = (unique_name(), dir.path().join("lock"));
    let script = format!("exec 9>{} && {} up --name {name} >&2", lock.display(), common::VPCLAB);
    run(std::process::Command::new("sh").current_dir(dir.path()).args(["-c", &script])).ok();
    let pids = processes_with(&name);
    let open = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let held: Vec<_> = pids.iter().flat_map(open).filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    run(vpclab().args(["down", "-l", &name])).ok();
    assert_eq!(pids.len(), 2, "a keeper and a router");
    assert!(!held.is_empty() && !held.contains(&lock), "{held:?}");
}

#[test]
fn an_up_that_is_interrupted_half_way_leaves_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("x.vpclab.yaml"), topology("demo.yaml")).expect("written");
    type Stage = fn(&str) -> bool;
    let stages: [(&str, Stage); 4] = [
        ("its folder", |name| !leftovers(name).is_empty()),
        ("its keeper", |name| !processes_with(name).is_empty()),
        ("its router", |name| processes_with(name).len() > 1),
        ("the router's socket", |name| run(vpclab().args(["ps", "-l", name])).code == 0),
    ];
    for (stage, reached) in stages {
        let name = unique_name();
        let mut up = vpclab();
        up.current_dir(dir.path()).args(["up", "--name", &name]).stdout(std::process::Stdio::null());
        let mut up = up.stderr(std::process::Stdio::null()).spawn().expect("vpclab");
        await_that(stage, || reached(&name));
        up.kill().ok();
        let ended = up.wait().expect("waited for");
        if ended.success() {
            run(vpclab().args(["down", "-l", &name])).ok();
        }
        await_nothing_left(&name);
    }
}

/// Who ended it is not its parent, and the keeper that takes it down is nobody's child.
#[track_caller]
fn await_nothing_left(lab: &str) {
    common::await_state("nothing is left", || {
        let left = leftovers(lab);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
