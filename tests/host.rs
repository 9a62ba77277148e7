//! Does the host side do with a real kernel what it says? Namespaces, devices, processes and files are made, used and
//! gone. Root asks as an ordinary user too, by a child that has given root up, and an ordinary user as root, in a user
//! namespace.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use vpclab::host::client::{InstanceFds, KeeperClient};
use vpclab::host::cmd::{BindSocket, DialAddr, EniHost, EtcFiles, InstanceHost, RunSpec};
use vpclab::host::exec::{self, ExecInfo, ExecOptions, Keep, Namespaces};
use vpclab::host::keeper::{self, KeeperHandle, KeeperOptions, Peer};
use vpclab::host::rundir::{self, ClaimError, RunDir};
use vpclab::host::tun::{MAX_FRAME, Tun};
use vpclab::host::{cleanup, doctor, netns, status, userns};

#[path = "support/users.rs"]
mod users;
#[path = "support/waiting.rs"]
mod waiting;

use users::{NOBODY, as_ordinary_user, copy_program, passed_as_root};
use waiting::await_that;

/// The program; where these tests run again as an ordinary user, a copy that the user may read.
static BIN: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::var_os(COPY_OF_PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_vpclab").into()).into());
const COPY_OF_PROGRAM: &str = "HOST_TEST_PROGRAM";
/// How long is waited for what comes at once on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keeper of this process and what it was asked to make.
struct Lab {
    name: String,
    handle: Option<KeeperHandle>,
    client: Option<KeeperClient>,
    /// Holds something when the keeper has said that the lab ends, or has ended itself.
    told: mpsc::Receiver<()>,
}

impl Lab {
    fn up(tag: &str) -> Lab {
        Lab::up_with(tag, false)
    }

    fn up_with(tag: &str, leash: bool) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{tag}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let run_dir = RunDir::claim(&name).expect("claim");
        let options = KeeperOptions {
            run_dir,
            program: BIN.clone(),
            peer: Peer::Caller,
            leash,
            log: false,
            ids: userns::IdMap::Ranges,
        };
        let mut handle = keeper::spawn(options).expect("spawn");
        assert_eq!(handle.wait_ready(Duration::from_secs(10)).expect("ready"), status::Status::Ready);
        let (tell, told) = mpsc::channel();
        let on_end = move |_| {
            tell.send(()).ok();
        };
        let client = KeeperClient::new(handle.take_socket().expect("socket"), on_end).expect("client");
        Lab { name, handle: Some(handle), client: Some(client), told }
    }

    fn client(&self) -> &KeeperClient {
        self.client.as_ref().expect("the lab is up")
    }

    fn make(&self, path: &str, ip: [u8; 4]) -> InstanceFds {
        self.client().make_instance(instance(&self.name, path, ip)).expect("instance")
    }

    fn info(&self, path: &str) -> ExecInfo {
        ExecInfo {
            lab: self.name.clone(),
            instance: path.into(),
            files: RunDir::open(&self.name).expect("folder").instance(path),
            ca_bundle: None,
            region: "eu-west-1".into(),
            env: Vec::new(),
        }
    }

    fn namespaces(&self, fds: &InstanceFds) -> Namespaces {
        let user = self.client().hello().expect("hello").user_namespace;
        Namespaces { user, net: fds.netns.try_clone().expect("clone") }
    }

    /// Runs `sh -c SCRIPT` in the instance and waits for it.
    fn sh(&self, fds: &InstanceFds, path: &str, script: &str) -> Output {
        self.exec(&self.info(path), fds, &["sh", "-c", script], &options())
    }

    fn exec(&self, info: &ExecInfo, fds: &InstanceFds, argv: &[&str], options: &ExecOptions) -> Output {
        let argv: Vec<OsString> = argv.iter().map(Into::into).collect();
        let mut command = exec::command(info, &self.namespaces(fds), &argv, options).expect("command");
        command.stdin(Stdio::null()).output().expect("output")
    }

    fn down(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.client = None;
        if let Some(handle) = self.handle.take() {
            handle.end().expect("end");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.close();
    }
}

fn options() -> ExecOptions {
    ExecOptions { program: BIN.clone(), ..ExecOptions::default() }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Carries frames between two devices until it is dropped: a router with no opinion.
struct Wire {
    stop: OwnedFd,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Wire {
    fn between(a: &InstanceFds, b: &InstanceFds) -> Wire {
        let ends = [&a.tuns[0], &b.tuns[0]].map(|fd| Tun::from_fd(fd.try_clone().expect("clone")));
        let (stopped, stop) = rustix::pipe::pipe().expect("pipe");
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; MAX_FRAME];
            let mut carried = 0;
            loop {
                let flags = rustix::event::PollFlags::IN;
                let mut fds = [stopped.as_fd(), ends[0].as_fd(), ends[1].as_fd()]
                    .map(|fd| rustix::event::PollFd::from_borrowed_fd(fd, flags));
                rustix::event::poll(&mut fds, None).expect("poll");
                if !fds[0].revents().is_empty() {
                    return carried;
                }
                for (from, to) in [(0, 1), (1, 0)] {
                    while let Ok(n) = ends[from].read(&mut frame) {
                        ends[to].write(&frame[..n]).expect("write");
                        carried += 1;
                    }
                }
            }
        });
        Wire { stop, thread: Some(thread) }
    }

    /// Frames carried.
    fn cut(mut self) -> u64 {
        let Wire { thread, .. } = &mut self;
        let thread = thread.take().expect("once");
        rustix::io::write(&self.stop, b"x").expect("stop");
        thread.join().expect("wire")
    }
}

fn instance(lab: &str, path: &str, ip: [u8; 4]) -> InstanceHost {
    let ip = Ipv4Addr::from(ip);
    InstanceHost {
        lab: lab.into(),
        path: path.into(),
        enis: vec![EniHost {
            name: "eth0".into(),
            eni: "eni-0123456789abcdef0".into(),
            ip,
            prefix_len: 24,
            gateway: Ipv4Addr::from_bits(ip.to_bits() & 0xffff_ff00 | 1),
            mtu: 9001,
            tx_queue_len: 1000,
        }],
        syn_retries: Some(3),
        forward: false,
        congestion: Some("cubic".into()),
        rmem: Some([4096, 131_072, 6_291_456]),
        wmem: Some([4096, 65_536, 4_194_304]),
        files: EtcFiles {
            resolvers: vec![Ipv4Addr::new(10, 0, 0, 2)],
            search: vec!["eu-west-1.compute.internal".into()],
            hosts: vec![(ip, vec!["web".into()])],
        },
    }
}

/// What of a lab can be seen on this host.
fn traces(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/run/netns".into(), "/etc/netns".into(), rundir::base()] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(lab)));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    found.extend(mounts.lines().filter(|line| line.contains(lab)).map(str::to_owned));
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(lab) && entry.file_name().to_string_lossy() != std::process::id().to_string() {
            found.push(line);
        }
    }
    found
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether an instance's processes may be others than the caller: without root, subordinate ids are wanted.
fn has_other_users() -> bool {
    root() || userns::ranges(rustix::process::geteuid()).is_some()
}

#[test]
fn without_root_it_does_the_same() {
    again_as_an_ordinary_user(
        "true",
        &[
            "two_instances_exchange_pings_and_superframes",
            "an_instance_looks_like_one_and_is_silent",
            "a_second_claim_says_that_the_lab_runs",
            "the_end_of_the_peer_removes_everything_and_ends_what_runs_inside",
            "a_killed_keeper_leaves_only_what_clean_removes",
            "exit_codes_are_dockers",
            "the_keeper_dials_this_machine_alone",
            "the_keeper_runs_commands_and_tells_their_end",
            "user_the_caller_stays_and_captures_work",
            "user_root_may_become_others",
        ],
    );
}

#[test]
fn with_subordinate_ids_programs_may_switch_users() {
    let grant = "echo nobody:200000:65536 >/mnt/subid && mount --bind /mnt/subid /etc/subuid && \
        mount --bind /mnt/subid /etc/subgid";
    again_as_an_ordinary_user(grant, &["user_root_may_become_others", "user_the_caller_stays_and_captures_work"]);
}

/// Runs these tests again as user 65534 in a mount namespace where /dev/net/tun is open to all.
fn again_as_an_ordinary_user(prepare: &str, tests: &[&str]) {
    if !root() {
        return; // the tests themselves run as an ordinary user already
    }
    let folder = tempfile::Builder::new().prefix("vpclab-user").tempdir_in("/tmp").expect("folder");
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        copy_program(from, &to);
        to
    };
    let program = copy(&BIN, "vpclab");
    let us = copy(&std::env::current_exe().expect("this program"), "host-tests");
    std::fs::create_dir(folder.path().join("run")).expect("folder");
    std::os::unix::fs::chown(folder.path().join("run"), Some(NOBODY), Some(NOBODY)).expect("chown");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let output = as_ordinary_user(prepare)
        .arg(us)
        .args(["--exact", "--test-threads", "2"])
        .args(tests)
        .env(COPY_OF_PROGRAM, program)
        .env("HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path().join("run"))
        .current_dir("/")
        .output()
        .expect("unshare");
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains(&format!("{} passed", tests.len())), "{shown}");
}

#[test]
fn user_the_caller_stays_and_captures_work() {
    let lab = Lab::up("own");
    let (a, b) = (lab.make("app.a", [10, 0, 1, 10]), lab.make("app.b", [10, 0, 2, 10]));
    let wire = Wire::between(&a, &b);
    let shown = text(&lab.sh(&a, "app.a", "id -u; cat /proc/self/status | grep CapEff"));
    assert!(shown.starts_with(&format!("{}\n", rustix::process::geteuid().as_raw())), "{shown}");
    if !root() {
        // CAP_NET_BIND_SERVICE and CAP_NET_RAW
        assert!(shown.ends_with("CapEff:\t0000000000002400\n"), "{shown}");
    }
    // tcpdump says `listening` when it captures; the ping begins then
    let mut dump = exec::command(
        &lab.info("app.b"),
        &lab.namespaces(&b),
        &["tcpdump", "-ni", "eth0", "-c", "1", "icmp"].map(OsString::from),
        &options(),
    )
    .expect("command")
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("tcpdump");
    let mut said = io::BufReader::new(dump.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        assert!(io::BufRead::read_line(&mut said, &mut line).expect("read") > 0, "tcpdump: {line}");
    }
    assert!(lab.sh(&a, "app.a", "ping -c 1 -W 2 10.0.2.10").status.success());
    let mut captured = String::new();
    dump.stdout.take().unwrap().read_to_string(&mut captured).expect("read");
    assert!(captured.contains("10.0.1.10 > 10.0.2.10: ICMP echo request"), "{captured}");
    assert!(dump.wait().expect("wait").success());
    if !root() {
        // without a name under /run/netns, nsenter has the path that `ps -f json` shows
        let keeper = lab.client().hello().expect("hello").pid;
        let entered = Command::new("nsenter")
            .args(["--preserve-credentials", &format!("--user=/proc/{keeper}/ns/user")])
            .arg(format!("--net={}", a.netns_path.display()))
            .args(["ip", "-o", "-4", "addr", "show", "eth0"])
            .output()
            .expect("nsenter");
        assert!(text(&entered).contains("10.0.1.10/24"), "{}", text(&entered));
    }
    // root of the instance may change its network
    let as_root = ExecOptions { user: Some("root".into()), ..options() };
    let changed = lab.exec(&lab.info("app.a"), &a, &["ip", "addr", "add", "10.0.1.11/24", "dev", "eth0"], &as_root);
    assert!(changed.status.success(), "{}", text(&changed));
    wire.cut();
}

#[test]
fn user_root_may_become_others() {
    let lab = Lab::up("ids");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let as_root = ExecOptions { user: Some("root".into()), ..options() };
    if !has_other_users() {
        // root is the user with its power over the network, and nobody else can be had: exec names the command that helps.
        let shown = text(&lab.exec(&lab.info("app.web"), &fds, &["id", "-u"], &as_root));
        assert_eq!(shown, format!("{}\n", rustix::process::geteuid().as_raw()));
        let other = ExecOptions { user: Some("www-data".into()), ..options() };
        let refused = text(&lab.exec(&lab.info("app.web"), &fds, &["true"], &other));
        return assert!(refused.contains("--add-subuids"), "{refused}");
    }
    let script = "id -u; setpriv --reuid 33 --regid 33 --clear-groups id -u";
    let shown = text(&lab.exec(&lab.info("app.web"), &fds, &["sh", "-c", script], &as_root));
    assert_eq!(shown, "0\n33\n");
    let other = ExecOptions { user: Some("www-data".into()), ..options() };
    let shown = text(&lab.exec(&lab.info("app.web"), &fds, &["sh", "-c", "id -un; echo $HOME"], &other));
    assert_eq!(shown, "www-data\n/var/www\n");
    // the kernel's sockets for pings are open to every group that is mapped
    for user in ["root", "www-data"] {
        let as_user = ExecOptions { user: Some(user.into()), ..options() };
        let open = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)";
        let opened = lab.exec(&lab.info("app.web"), &fds, &["python3", "-c", open], &as_user);
        assert!(opened.status.success(), "{user}: {}", text(&opened));
    }
}

#[test]
fn two_instances_exchange_pings_and_superframes() {
    let lab = Lab::up("ping");
    let (a, b) = (lab.make("app.a", [10, 0, 1, 10]), lab.make("app.b", [10, 0, 2, 10]));
    assert!(a.offloads[0].csum && a.offloads[0].tso4, "{:?}", a.offloads);
    let wire = Wire::between(&a, &b);
    let ping = lab.sh(&a, "app.a", "ping -c 2 -i 0.1 -W 2 10.0.2.10");
    assert!(ping.status.success(), "{}", text(&ping));

    let server = lab
        .client()
        .bind("app.b", BindSocket::TcpListener { addr: "10.0.2.10:7000".parse().unwrap(), backlog: 8 })
        .expect("bind");
    let server = TcpListener::from(server);
    server.set_nonblocking(false).expect("blocking");
    const SIZE: usize = 20_000_000;
    let sink = std::thread::spawn(move || {
        let (mut stream, peer) = server.accept().expect("accept");
        (io::copy(&mut stream, &mut io::sink()).expect("read"), peer)
    });
    let sent = lab.exec(
        &lab.info("app.a"),
        &a,
        &["bash", "-c", &format!("head -c {SIZE} /dev/zero >/dev/tcp/10.0.2.10/7000")],
        &options(),
    );
    assert!(sent.status.success(), "{}", text(&sent));
    let (got, peer) = sink.join().expect("sink");
    assert_eq!((got, peer.ip().to_string()), (SIZE as u64, "10.0.1.10".to_owned()));
    let frames = wire.cut();
    // 2,232 segments of 8,961 bytes and as many acknowledgements would be needed without
    assert!(frames < 2_500, "{frames} frames for {SIZE} bytes: superframes were split");
    drop((a, b));
    lab.down();
}

#[test]
fn an_instance_looks_like_one_and_is_silent() {
    let lab = Lab::up("look");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    assert!(fds.congestion, "the metric was refused");
    let shown = lab.sh(
        &fds,
        "app.web",
        "ip -o addr; ip -o link; ip route; cat /proc/sys/net/ipv4/tcp_syn_retries \
        /proc/sys/net/ipv4/tcp_rmem; ls /sys/class/net",
    );
    let shown = text(&shown);
    assert!(shown.contains("inet 10.0.1.10/24 brd 10.0.1.255 scope global noprefixroute eth0"), "{shown}");
    assert!(shown.contains("mtu 9001") && shown.contains("qlen 1000"), "{shown}");
    assert!(shown.contains(&format!("alias vpclab:{}:eni-0123456789abcdef0", lab.name)), "{shown}");
    assert!(shown.contains("default via 10.0.1.1 dev eth0 onlink congctl cubic"), "{shown}");
    assert!(shown.contains("10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.10 congctl cubic"), "{shown}");
    assert!(shown.contains("\n3\n4096\t131072\t6291456\n"), "{shown}");
    assert!(shown.contains("\neth0\nlo\n"), "{shown}");
    assert!(!shown.contains("inet6 fe80"), "{shown}");
    let disabled = lab.sh(&fds, "app.web", "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    assert_eq!(text(&disabled), "0\n");
    // an IPv6 router solicitation would leave within a second of the link's coming up
    let tun = Tun::from_fd(fds.tuns[0].try_clone().unwrap());
    let mut poll = [rustix::event::PollFd::new(&tun, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 0, "an idle instance sent something");
}

#[test]
fn root_sees_it_by_ip_netns_with_its_files() {
    if passed_as_root("root_sees_it_by_ip_netns_with_its_files") {
        return;
    }
    let lab = Lab::up("name");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let name = format!("{}.app.web", lab.name);
    assert_eq!(fds.netns_path, Path::new("/run/netns").join(&name));
    let listed = Command::new("ip").args(["netns", "list"]).output().expect("ip");
    assert!(text(&listed).contains(&name), "{}", text(&listed));
    let inside = Command::new("ip").args(["netns", "exec", &name, "cat", "/etc/resolv.conf"]).output().expect("ip");
    assert!(text(&inside).contains("nameserver 10.0.0.2"), "{}", text(&inside));
    lab.client()
        .set_files("app.web", EtcFiles { resolvers: vec![Ipv4Addr::new(10, 9, 9, 9)], ..EtcFiles::default() })
        .expect("files");
    assert!(text(&lab.sh(&fds, "app.web", "cat /etc/resolv.conf")).contains("nameserver 10.9.9.9"));
    drop(fds);
    lab.client().remove_instance("app.web").expect("remove");
    assert!(!Path::new("/run/netns").join(&name).exists());
    assert!(!Path::new("/etc/netns").join(&name).exists());
    let name = lab.name.clone();
    lab.down();
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn a_name_of_somebody_elses_outlives_the_lab_that_made_the_folder() {
    if passed_as_root("a_name_of_somebody_elses_outlives_the_lab_that_made_the_folder") {
        return;
    }
    let _alone = CLEANING.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::up("other");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let (name, other) = (lab.name.clone(), format!("other-{}", std::process::id()));
    let ip = |verb: &str| Command::new("ip").args(["netns", verb, &other]).status().expect("ip").success();
    assert!(ip("add"));
    drop(fds);
    lab.down();
    let outlived = Path::new("/run/netns").join(&other).exists();
    assert!(ip("del"));
    assert!(outlived);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn a_second_claim_says_that_the_lab_runs() {
    let lab = Lab::up("twice");
    let pid = lab.handle.as_ref().unwrap().pid();
    match RunDir::claim(&lab.name) {
        Err(ClaimError::Running { keeper, .. }) => assert_eq!(keeper, Some(pid)),
        other => panic!("{other:?}"),
    }
    assert!(RunDir::open(&lab.name).unwrap().is_running());
}

#[test]
fn the_end_of_the_peer_removes_everything_and_ends_what_runs_inside() {
    let lab = Lab::up("peer");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let name = lab.name.clone();
    let argv = ["sh", "-c", "echo inside; exec sleep 1000"].map(OsString::from);
    let mut sleeper = exec::command(&lab.info("app.web"), &lab.namespaces(&fds), &argv, &options())
        .expect("command")
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut said = [0; 7];
    sleeper.stdout.take().expect("piped").read_exact(&mut said).expect("it says so");
    assert_eq!(&said, b"inside\n");
    let netns = netns::identity(&fds.netns).unwrap();
    assert!(vpclab::host::procs::in_namespaces(&[netns]).contains(&sleeper.id()));
    drop(fds);
    lab.down();
    assert_eq!(exec::exit_code(sleeper.wait().unwrap()), 128 + 15);
    assert_eq!(traces(&name), Vec::<String>::new());
}

/// Whoever cleans finds what the others left: one at a time.
static CLEANING: Mutex<()> = Mutex::new(());

#[test]
fn a_lab_ends_with_the_leash_that_holds_it() {
    let mut lab = Lab::up_with("leash", true);
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let name = lab.name.clone();
    let handle = lab.handle.take().unwrap();
    drop(handle); // as the death of the process that has it would
    // the client is told, and lets go as the router process would
    lab.told.recv_timeout(PATIENCE).expect("the client is told");
    lab.client = None;
    drop(fds);
    await_that("the lab is gone", || traces(&name).is_empty());
}

#[test]
fn a_hundred_instances_come_and_go_quickly() {
    let lab = Lab::up("many");
    let begun = Instant::now();
    let fds: Vec<InstanceFds> = (0..100).map(|n| lab.make(&format!("app.i{n}"), [10, 0, 1, 10 + n])).collect();
    let made = begun.elapsed();
    drop(fds);
    let begun = Instant::now();
    let name = lab.name.clone();
    lab.down();
    let gone = begun.elapsed();
    assert_eq!(traces(&name), Vec::<String>::new());
    println!("100 instances made in {made:?}, gone in {gone:?}");
    // 0.2 s each way on an idle machine; what is caught here is a step that takes 50 ms of each
    assert!(made < Duration::from_secs(5) && gone < Duration::from_secs(5), "made in {made:?}, gone in {gone:?}");
}

#[test]
fn a_killed_keeper_leaves_only_what_clean_removes() {
    let mut lab = Lab::up("kill");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let name = lab.name.clone();
    let handle = lab.handle.take().unwrap();
    let _alone = CLEANING.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(handle.pid() as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    handle.wait().unwrap();
    lab.told.recv_timeout(PATIENCE).expect("the client sees it");
    assert!(lab.client().hello().is_err());
    drop(fds);
    assert!(!traces(&name).is_empty(), "a kill leaves the name at least, or this test proves nothing");
    let (removed, errors) = cleanup::clean();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(removed.contains(&format!("lab {name}")), "{removed:?}");
    if root() {
        assert!(removed.contains(&format!("namespace {name}.app.web")), "{removed:?}");
    }
    assert_eq!(traces(&name), Vec::<String>::new());
    // and a second look finds nothing
    assert!(!cleanup::clean().0.iter().any(|what| what.contains(&name)));
}

#[test]
fn clean_leaves_a_running_lab_and_foreign_namespaces_alone() {
    if passed_as_root("clean_leaves_a_running_lab_and_foreign_namespaces_alone") {
        return;
    }
    let lab = Lab::up("keep");
    let _fds = lab.make("app.web", [10, 0, 1, 10]);
    let _alone = CLEANING.lock().unwrap_or_else(PoisonError::into_inner);
    cleanup::clean();
    assert!(lab.client().hello().is_ok());
    assert!(Path::new("/run/netns").join(format!("{}.app.web", lab.name)).exists());
}

#[test]
fn exec_hides_the_hosts_name_services_and_the_callers_keys() {
    if passed_as_root("exec_hides_the_hosts_name_services_and_the_callers_keys") {
        return;
    }
    let lab = Lab::up("hide");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let folder = tempfile::tempdir().expect("folder");
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join(".aws")).unwrap();
    std::fs::write(home.join(".aws/credentials"), "[default]\naws_access_key_id = AKIAWRONG\n").unwrap();
    let bundle = folder.path().join("bundle.pem");
    std::fs::write(&bundle, "LAB BUNDLE\n").unwrap();
    let info = ExecInfo { ca_bundle: Some(bundle), ..lab.info("app.web") };
    let keep = |text: &str| Keep::parse(text);
    let options =
        ExecOptions { keep: vec![keep(&format!("HOME={}", home.display())), keep("AWS_KEEP=1")], ..options() };
    let sockets: Vec<PathBuf> =
        ["/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/run/dbus/system_bus_socket"]
            .into_iter()
            .map(PathBuf::from)
            .collect();
    let made: Vec<(PathBuf, Option<UnixListener>)> = sockets.iter().map(|path| fake(path)).collect();
    let script = "cat /etc/resolv.conf /etc/hosts; grep hosts: /etc/nsswitch.conf; find /run/systemd/resolve /run/nscd \
        /run/dbus /run/vpclab -type s; ls -A $HOME/.aws; cat $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt; env; pwd";
    let shown = text(&lab.exec(&info, &fds, &["sh", "-c", script], &options));
    for (path, listener) in &made {
        // every program of the host may ask nscd at any moment, so only the other doors are counted
        if let Some(listener) = listener.as_ref().filter(|_| !path.starts_with("/run/nscd")) {
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "{}", path.display());
        }
        remove_fake(path);
    }
    assert!(shown.contains("nameserver 10.0.0.2") && shown.contains("10.0.1.10 web"), "{shown}");
    assert!(shown.contains("hosts: files dns"), "{shown}");
    assert!(!shown.contains("io.systemd.Resolve") && !shown.contains("socket"), "{shown}");
    assert!(!shown.contains("credentials"), "{shown}");
    assert_eq!(shown.matches("LAB BUNDLE").count(), 2, "{shown}");
    assert!(shown.contains("AWS_REGION=eu-west-1") && shown.contains("AWS_DEFAULT_REGION=eu-west-1"), "{shown}");
    assert!(shown.contains("AWS_KEEP=1") && shown.contains("NODE_EXTRA_CA_CERTS=/etc/ssl"), "{shown}");
    let here = std::env::current_dir().unwrap();
    assert!(shown.ends_with(&format!("{}\n", here.display())), "{shown}");
}

/// A listening socket at a path, if nobody is there; `None`: the host has a real one, which must be hidden as well.
fn fake(path: &Path) -> (PathBuf, Option<UnixListener>) {
    std::fs::create_dir_all(path.parent().unwrap()).expect("folder");
    let listener = UnixListener::bind(path).ok();
    if let Some(listener) = &listener {
        listener.set_nonblocking(true).unwrap();
    }
    (path.to_owned(), listener)
}

fn remove_fake(path: &Path) {
    let _ = std::fs::remove_file(path);
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != Path::new("/run")) {
        let _ = std::fs::remove_dir(folder);
    }
}

#[test]
fn the_doctor_finds_a_machine_on_which_all_this_works() {
    let findings = doctor::report(&BIN);
    let missing: Vec<_> = findings.iter().filter(|finding| finding.level == doctor::Level::Missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(findings.iter().any(|finding| finding.what == "TUN device" && finding.found.contains("segmentation")));
}

#[test]
fn a_command_ends_at_its_deadline_with_its_children() {
    let lab = Lab::up("late");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let identity = netns::identity(&fds.netns).unwrap();
    let argv = ["sh", "-c", "sleep 1000 & sleep 1000"].map(OsString::from);
    let late = ExecOptions { timeout: Some(Duration::from_millis(200)), ..options() };
    let code = exec::run(&lab.info("app.web"), &lab.namespaces(&fds), &argv, &late).expect("run");
    assert_eq!(code, exec::TIMED_OUT);
    await_that("its children are gone", || vpclab::host::procs::in_namespaces(&[identity]).is_empty());
}

#[test]
fn exit_codes_are_dockers() {
    let lab = Lab::up("exit");
    let fds = lab.make("app.web", [10, 0, 1, 10]);
    let run = |argv: &[&str], options: &ExecOptions| lab.exec(&lab.info("app.web"), &fds, argv, options);
    let code = |argv: &[&str]| exec::exit_code(run(argv, &options()).status);
    assert_eq!(code(&["sh", "-c", "exit 42"]), 42);
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 128 + 9);
    assert_eq!(code(&["no-such-command"]), exec::NOT_FOUND);
    assert_eq!(code(&["/etc/passwd"]), exec::NOT_EXECUTABLE);
    let unknown = run(&["true"], &ExecOptions { user: Some("no-such-user".into()), ..options() });
    assert_eq!(exec::exit_code(unknown.status), exec::OWN_FAILURE);
    assert!(text(&unknown).contains("no-such-user"));
    // where root becomes an ordinary user for these tests, that is who we are
    if has_other_users() || rustix::process::geteuid().as_raw() == NOBODY {
        let nobody = run(&["id"], &ExecOptions { user: Some("nobody".into()), ..options() });
        assert!(text(&nobody).starts_with("uid=65534(nobody)"), "{}", text(&nobody));
    }
    let missing = ExecInfo { files: "/nonexistent".into(), ..lab.info("app.web") };
    let failed = lab.exec(&missing, &fds, &["true"], &options());
    assert_eq!(exec::exit_code(failed.status), exec::OWN_FAILURE);
    assert!(text(&failed).contains("/nonexistent/resolv.conf"), "{}", text(&failed));
}

#[test]
fn the_keeper_dials_this_machine_alone() {
    let lab = Lab::up("dial");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let dial = |addr: &str| lab.client().dial_blocking(DialAddr::Tcp(addr.parse().unwrap()), Duration::from_secs(2));
    let fd = dial(&addr.to_string()).expect("dial");
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"hi").unwrap();
    let mut stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(false).unwrap();
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hi");
    // bound and not listening: the port cannot become somebody else's
    let closed = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&closed, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let addr: SocketAddr = rustix::net::getsockname(&closed).unwrap().try_into().unwrap();
    assert_eq!(dial(&addr.to_string()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(dial("192.0.2.1:80").unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_keeper_runs_commands_and_tells_their_end() {
    let lab = Lab::up("run");
    let _fds = lab.make("app.web", [10, 0, 1, 10]);
    let run = |script: &str| {
        let (mut out, out_write) = io::pipe().unwrap();
        let spec = RunSpec {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: "/".into(),
            region: "eu-west-1".into(),
            ..RunSpec::default()
        };
        let run = lab.client().run("app.web", spec, out_write.as_fd(), out_write.as_fd()).expect("run");
        drop(out_write);
        let mut text = String::new();
        (run, std::thread::spawn(move || out.read_to_string(&mut text).map(|_| text)))
    };
    let (done, said) = run("pwd; echo $AWS_REGION; ip -o -4 addr show eth0; exit 3");
    assert_eq!(done.exit.blocking_recv().expect("told"), 3);
    let said = said.join().unwrap().unwrap();
    assert!(said.starts_with("/\neu-west-1\n") && said.contains("10.0.1.10/24"), "{said}");
    let (running, said) = run("echo up; exec sleep 1000");
    lab.client().kill(running.run).unwrap();
    assert_eq!(running.exit.blocking_recv().expect("told"), 128 + 15);
    said.join().unwrap().unwrap();
}
