//! Does the host side do with a real kernel what it says? Namespaces, devices, processes and files are made, used and
//! gone. Needs root; what is done without root is done by a child that has given it up.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vpclab::host::client::{InstanceFds, KeeperClient};
use vpclab::host::cmd::{BindSocket, DialAddr, EniHost, EtcFiles, InstanceHost, RunSpec};
use vpclab::host::exec::{self, ExecInfo, ExecOptions, Keep, Namespaces};
use vpclab::host::keeper::{self, KeeperHandle, KeeperOptions, Peer};
use vpclab::host::rundir::{ClaimError, RunDir};
use vpclab::host::tun::{MAX_FRAME, Tun};
use vpclab::host::{cleanup, netns, status, userns};

const BIN: &str = env!("CARGO_BIN_EXE_vpclab");

/// A keeper of this process and what it was asked to make.
struct Lab {
    name: String,
    handle: Option<KeeperHandle>,
    client: Option<KeeperClient>,
}

impl Lab {
    fn up(tag: &str) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{tag}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let run_dir = RunDir::claim(&name).expect("claim");
        let options = KeeperOptions {
            run_dir,
            program: BIN.into(),
            peer: Peer::Caller,
            leash: false,
            log: false,
            ids: userns::IdMap::Ranges,
        };
        let mut handle = keeper::spawn(options).expect("spawn");
        assert_eq!(handle.wait_ready(Duration::from_secs(10)).expect("ready"), status::Status::Ready);
        let client = KeeperClient::new(handle.take_socket().expect("socket"), |_| {}).expect("client");
        Lab { name, handle: Some(handle), client: Some(client) }
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
        self.exec(&self.info(path), fds, &["sh", "-c", script], &ExecOptions::default())
    }

    fn exec(&self, info: &ExecInfo, fds: &InstanceFds, argv: &[&str], options: &ExecOptions) -> Output {
        let argv: Vec<OsString> = argv.iter().map(Into::into).collect();
        let mut command = helper(exec::command(info, &self.namespaces(fds), &argv, options).expect("command"));
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

/// `exec::command` starts the program it runs in; in a test that is the test, so the program is put in its place.
fn helper(command: Command) -> Command {
    command
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
