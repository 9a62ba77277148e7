//! Interfaces, and the machines that have them: instances, hosts on premises and of the Internet.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Common, Impair};
use crate::base::{EniIx, Proto};

#[derive(Clone, Debug)]
pub struct EniPlan {
    pub common: Common,
    pub home: Home,
    /// Unspecified for doors, which stand for many addresses.
    pub ip: Ipv4Addr,
    /// `02:xx:..`, derived from the id.
    pub mac: [u8; 6],
    /// None at NAT gateways, attachments, doors, and outside VPCs: nothing is asked there.
    pub security_groups: Vec<usize>,
    pub source_dest_check: bool,
    pub owner: EniOwner,
}

impl EniPlan {
    pub fn vpc(&self) -> Option<usize> {
        self.home.vpc()
    }

    pub fn subnet(&self) -> Option<usize> {
        self.home.subnet()
    }
}

/// The network that an interface is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Subnet {
        vpc: usize,
        subnet: usize,
    },
    /// Index in `Plan::sites`.
    Site(usize),
    Internet,
}

impl Home {
    pub fn vpc(self) -> Option<usize> {
        match self {
            Home::Subnet { vpc, .. } => Some(vpc),
            Home::Site(_) | Home::Internet => None,
        }
    }

    pub fn subnet(self) -> Option<usize> {
        match self {
            Home::Subnet { subnet, .. } => Some(subnet),
            Home::Site(_) | Home::Internet => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EniOwner {
    /// Index in `Plan::instances`, and which of its ENIs: `eth0` is 0.
    Instance(usize, u8),
    /// Index in `Plan::endpoints`: an interface endpoint.
    Endpoint(usize),
    /// Index in `Plan::nat_gateways`.
    NatGateway(usize),
    /// Index in `Plan::tgw_attachments`.
    TgwAttachment(usize),
    /// Index in `Plan::endpoints`: the door of a gateway endpoint. TCP ends there.
    GatewayEndpoint(usize),
    /// The door of AWS's public side. TCP ends there.
    PublicSide,
}

impl EniOwner {
    /// The endpoint, of either type, whose interface or door it is.
    pub fn endpoint(self) -> Option<usize> {
        match self {
            EniOwner::Endpoint(at) | EniOwner::GatewayEndpoint(at) => Some(at),
            _ => None,
        }
    }

    /// Stands for addresses of its own: no packet is sent to its own address.
    pub fn is_door(self) -> bool {
        matches!(self, EniOwner::GatewayEndpoint(_) | EniOwner::PublicSide)
    }
}

#[derive(Clone, Debug)]
pub struct InstancePlan {
    pub common: Common,
    pub home: InstanceHome,
    /// `eth0` first.
    pub enis: Vec<EniIx>,
    pub role: Option<usize>,
    pub listen: Vec<Listener>,
    pub run: Vec<RunCommand>,
    /// IP MTU of its interfaces, bytes.
    pub mtu: u16,
    pub imds_v2_required: bool,
    /// TTL of the token answer, 1 to 64.
    pub imds_hop_limit: u8,
    pub user_data: Option<String>,
    /// Set by exec, shell and run, after the removal of the caller's variables.
    pub env: Vec<(String, String)>,
    /// Records of AWS's public side, and of the emulated Internet's, that point to it.
    pub names: Vec<String>,
    /// Its kernel forwards.
    pub forward: Option<Forward>,
    /// Idle times of connection tracking at its ENIs; the lab's limits where `None`.
    pub tracking: Tracking,
    pub impair: Option<Impair>,
    /// Of an on-premises DNS server.
    pub dns_server: bool,
    /// One of several that `count` made: the file has its name without the number.
    pub counted: bool,
}

impl InstancePlan {
    /// One of which nothing else is written: no role, no servers, jumbo frames, IMDSv1 and v2 one hop far.
    pub fn new(common: Common, home: InstanceHome, enis: Vec<EniIx>) -> InstancePlan {
        InstancePlan {
            common,
            home,
            enis,
            role: None,
            listen: Vec::new(),
            run: Vec::new(),
            mtu: 9_001,
            imds_v2_required: false,
            imds_hop_limit: 1,
            user_data: None,
            env: Vec::new(),
            names: Vec::new(),
            forward: None,
            tracking: Tracking::default(),
            impair: None,
            dns_server: false,
            counted: false,
        }
    }

    pub fn vpc(&self) -> Option<usize> {
        match self.home {
            InstanceHome::Vpc(vpc) => Some(vpc),
            InstanceHome::Site(_) | InstanceHome::Internet => None,
        }
    }
}

/// Where a machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceHome {
    /// An EC2 instance: index in `Plan::vpcs`.
    Vpc(usize),
    /// A host on premises: index in `Plan::sites`.
    Site(usize),
    /// A host of the emulated Internet.
    Internet,
}

/// How an instance forwards what is not for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    Plain,
    /// With its own address as source: a NAT instance.
    Masquerade,
    /// A firewall that drops what belongs to no session it saw begin (`FW_NO_STATE`).
    Stateful,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    pub tcp_idle: Option<Duration>,
    pub udp_idle: Option<Duration>,
    pub udp_stream: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub proto: Proto,
    pub port: u16,
    pub reply: ListenReply,
    /// The name on a leaf of the lab CA, where TLS is wanted.
    pub tls: Option<String>,
    /// From the question (of `hello`: the connection) to the answer.
    pub delay: std::time::Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ListenReply {
    Hello,
    Echo,
    Sink,
    Http,
    Source,
    Proxy,
    Directory(PathBuf),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RunCommand {
    pub cmd: String,
    /// `root` has CAP_NET_ADMIN in the instance's namespace.
    pub user: Option<String>,
}
