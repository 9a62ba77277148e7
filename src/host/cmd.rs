//! What the router process may ask of the keeper: one closed list, as JSON, one value per `SOCK_SEQPACKET` message,
//! descriptors beside it by `SCM_RIGHTS`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::plan::UpstreamAddr;

/// A command with the number that its answer repeats. Answers come in any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub cmd: HostCmd,
}

/// What the keeper sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    Reply {
        id: u64,
        reply: HostReply,
    },
    /// A command started with [`HostCmd::Run`] ended. `code` is the exit code, or 128 + the signal.
    Exited {
        run: u64,
        code: i32,
    },
    /// The lab shall end: SIGTERM, or the attached command line is gone. The router says goodbye by closing its socket.
    Ending {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostCmd {
    /// Who are you? Answer: [`HostReply::Keeper`], beside it the user namespace if there is one.
    Hello,
    /// Answer: [`HostReply::Made`], beside it one TUN per ENI and the network namespace, in this order.
    MakeInstance(InstanceHost),
    /// Ends the instance's processes, removes its namespace. By path, `VPC.NAME`.
    RemoveInstance { path: String },
    /// New contents of the files that `exec` lays over /etc, in place.
    SetFiles { path: String, files: EtcFiles },
    /// `net.ipv4.tcp_syn_retries` of the instance, in place.
    SetSynRetries { path: String, syn_retries: u8 },
    /// Connect to a server of this machine. Beside [`HostReply::Done`]: the socket, connected and non-blocking.
    Dial { addr: DialAddr, timeout_ms: u32 },
    /// A socket bound in the instance's namespace (TCP: listening), non-blocking, beside [`HostReply::Done`].
    Bind { path: String, socket: BindSocket },
    /// Run a command as the instance, detached; two descriptors beside it are its stdout and stderr.
    /// Answer: [`HostReply::Started`]; its end is told by [`Message::Exited`].
    Run { path: String, spec: RunSpec },
    /// End a command started by `Run`: SIGTERM, and SIGKILL when it stays.
    Kill { run: u64 },
    /// Remove everything and end. The answer comes first; the removal is done when the lab's lock is free.
    Shutdown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostReply {
    Done,
    Keeper {
        pid: u32,
        rootless: bool,
    },
    Made {
        /// `/run/netns/LAB.VPC.NAME` as root, otherwise `/proc/KEEPER/fd/N`: what `ps -f json` shows.
        netns_path: PathBuf,
        /// Offloads that the kernel took, per ENI in the order of the request.
        offloads: Vec<Offloads>,
        /// The route metric for congestion control was accepted.
        congestion: bool,
    },
    Started {
        run: u64,
        pid: u32,
    },
    Failed {
        /// `errno`, where a system call failed.
        errno: Option<i32>,
        /// What was attempted and why it failed, for people.
        message: String,
    },
}

/// An instance as the kernel has to know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceHost {
    pub lab: String,
    /// `VPC.NAME`, unique in the lab.
    pub path: String,
    /// `eth0` first.
    pub enis: Vec<EniHost>,
    /// `net.ipv4.tcp_syn_retries`, 1 to 127; `None`: the kernel's.
    pub syn_retries: Option<u8>,
    /// `net.ipv4.ip_forward`: its kernel forwards what is not for it.
    #[serde(default)]
    pub forward: bool,
    /// Congestion control set by the route metric, `cubic`; `None`: the kernel's default.
    pub congestion: Option<String>,
    /// `net.ipv4.tcp_rmem` and `tcp_wmem`: minimum, default, maximum, in bytes; `None`: the kernel's.
    pub rmem: Option<[u32; 3]>,
    pub wmem: Option<[u32; 3]>,
    pub files: EtcFiles,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EniHost {
    /// Interface name: `eth0`.
    pub name: String,
    /// `eni-...`: part of the link alias `vpclab:LAB:ENI`, the mark by which clean-up knows the device.
    pub eni: String,
    pub ip: Ipv4Addr,
    /// Of the subnet.
    pub prefix_len: u8,
    /// The subnet's router.
    pub gateway: Ipv4Addr,
    /// IP MTU, bytes.
    pub mtu: u16,
    /// Packets the device queues for the router before it drops.
    pub tx_queue_len: u32,
}

/// What `exec` lays over /etc (and /etc/netns holds as root), in the terms of those files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcFiles {
    /// `nameserver`s.
    pub resolvers: Vec<Ipv4Addr>,
    /// `search` domains.
    pub search: Vec<String>,
    /// Lines of `hosts` after localhost's own: address and names.
    pub hosts: Vec<(Ipv4Addr, Vec<String>)>,
}

/// Offloads accepted by TUNSETOFFLOAD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    pub csum: bool,
    pub tso4: bool,
    pub tso6: bool,
    pub tso_ecn: bool,
    /// UDP segmentation (Linux 6.2).
    pub uso: bool,
}

/// A server of this machine; the keeper refuses addresses that are not loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DialAddr {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<&UpstreamAddr> for DialAddr {
    fn from(addr: &UpstreamAddr) -> DialAddr {
        match addr {
            UpstreamAddr::Loopback(addr) => DialAddr::Tcp(*addr),
            UpstreamAddr::Unix(path) => DialAddr::Unix(path.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindSocket {
    TcpListener { addr: SocketAddrV4, backlog: u16 },
    Udp { addr: SocketAddrV4 },
}

/// A command run by the keeper: `run:` of the topology.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSpec {
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    pub region: String,
    /// The instance's `env`.
    pub env: Vec<(String, String)>,
    pub user: Option<String>,
    /// System bundle + lab CA.
    pub ca_bundle: Option<PathBuf>,
}
