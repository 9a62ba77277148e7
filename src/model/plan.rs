//! `Plan`: a topology that was validated. Every reference is an index, every default is filled in, every id and
//! name is made. Compilers (`engine`, `dns`, `imds`, `services`) read it and change nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Cidr, EniIx, PortRange, Proto};

/// A whole lab. Indices in fields named after a noun point into the vector of that noun.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The lab's name.
    pub name: String,
    /// Default region.
    pub region: String,
    /// Folder of the topology file: relative paths and `run` commands start there.
    pub dir: PathBuf,
    pub default_account: String,
    pub vpcs: Vec<VpcPlan>,
    pub subnets: Vec<SubnetPlan>,
    pub route_tables: Vec<RouteTablePlan>,
    pub network_acls: Vec<NaclPlan>,
    pub security_groups: Vec<SecurityGroupPlan>,
    /// Of instances and endpoints alike; `EniIx` points here.
    pub enis: Vec<EniPlan>,
    pub instances: Vec<InstancePlan>,
    pub endpoints: Vec<EndpointPlan>,
    pub roles: Vec<RolePlan>,
    /// Every service that an endpoint leads to or that the file gives contents or a backend.
    pub services: Vec<ServicePlan>,
    pub checks: Vec<CheckPlan>,
    pub limits: Limits,
}

/// What every noun has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Common {
    /// The name the user gave.
    pub name: String,
    /// `VPC.NAME`, or the bare name of what belongs to no VPC. Unique among its kind.
    pub path: String,
    /// An id of AWS's form.
    pub id: String,
    pub description: String,
    pub tags: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct VpcPlan {
    pub common: Common,
    /// Primary first.
    pub cidrs: Vec<Cidr>,
    pub region: String,
    pub account: String,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    pub main_route_table: usize,
    pub default_nacl: usize,
    pub default_security_group: usize,
}

impl VpcPlan {
    /// VPC+2, the resolver's address: of the primary block only.
    pub fn resolver(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.cidrs[0].network().to_bits() + 2)
    }

    pub fn holds(&self, addr: Ipv4Addr) -> bool {
        self.cidrs.iter().any(|c| c.contains(addr))
    }

    /// `eu-west-1.compute.internal`, or `ec2.internal` in us-east-1.
    pub fn internal_domain(&self) -> String {
        if self.region == "us-east-1" { "ec2.internal".into() } else { format!("{}.compute.internal", self.region) }
    }
}

#[derive(Clone, Debug)]
pub struct SubnetPlan {
    pub common: Common,
    pub vpc: usize,
    pub cidr: Cidr,
    /// The zone's letter.
    pub az: char,
    /// `eu-west-1a`.
    pub az_name: String,
    /// `euw1-az1`.
    pub az_id: String,
    pub route_table: usize,
    pub nacl: usize,
}

impl SubnetPlan {
    /// The router's address, the subnet's first.
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.cidr.network().to_bits() + 1)
    }
}

#[derive(Clone, Debug)]
pub struct RouteTablePlan {
    pub common: Common,
    pub vpc: usize,
    pub main: bool,
    /// Local routes first, then as written.
    pub routes: Vec<RoutePlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// Stable: `rtb-.../10.0.0.0/16`.
    pub id: String,
    pub to: Cidr,
    pub target: RouteTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    Local,
    /// Next hop is an instance's ENI.
    Eni(EniIx),
    Blackhole,
}

#[derive(Clone, Debug)]
pub struct NaclPlan {
    pub common: Common,
    pub vpc: usize,
    /// The VPC's default NACL: allows all unless the file defines it.
    pub default: bool,
    /// By ascending number. What matches none is denied (AWS's rule `*`).
    pub ingress: Vec<NaclRule>,
    pub egress: Vec<NaclRule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NaclRule {
    /// 1 to 32766.
    pub number: u16,
    pub allow: bool,
    pub matches: TrafficMatch,
    /// `from` for ingress, `to` for egress.
    pub peer: Cidr,
    /// As a user would write it: `100 allow tcp 443 from 10.0.0.0/16`.
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct SecurityGroupPlan {
    pub common: Common,
    pub vpc: usize,
    pub ingress: Vec<SgRule>,
    pub egress: Vec<SgRule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SgRule {
    /// Stable: `sgr-0...`.
    pub id: String,
    pub matches: TrafficMatch,
    pub peer: SgPeer,
    /// As a user would write it: `tcp 443 from sg:app`.
    pub text: String,
    /// Made because the file left the direction out.
    pub implied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgPeer {
    Cidr(Cidr),
    /// Index in `Plan::security_groups`: the private addresses of the ENIs that carry it.
    Group(usize),
}

/// Protocol, ports and ICMP type of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficMatch {
    /// `None`: all protocols.
    pub proto: Option<Proto>,
    /// Destination ports; only for TCP and UDP.
    pub ports: PortRange,
    /// ICMP type and code; `None` each: any.
    pub icmp: (Option<u8>, Option<u8>),
}

impl TrafficMatch {
    pub const ALL: TrafficMatch = TrafficMatch { proto: None, ports: PortRange::ALL, icmp: (None, None) };
}

#[derive(Clone, Debug)]
pub struct EniPlan {
    pub common: Common,
    pub vpc: usize,
    pub subnet: usize,
    pub ip: Ipv4Addr,
    /// `02:xx:..`, derived from the id.
    pub mac: [u8; 6],
    pub security_groups: Vec<usize>,
    pub source_dest_check: bool,
    pub owner: EniOwner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EniOwner {
    /// Index in `Plan::instances`, and which of its ENIs: `eth0` is 0.
    Instance(usize, u8),
    /// Index in `Plan::endpoints`.
    Endpoint(usize),
}

#[derive(Clone, Debug)]
pub struct InstancePlan {
    pub common: Common,
    pub vpc: usize,
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
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub proto: Proto,
    pub port: u16,
    pub reply: ListenReply,
    /// The name on a leaf of the lab CA, where TLS is wanted.
    pub tls: Option<String>,
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

#[derive(Clone, Debug)]
pub struct EndpointPlan {
    pub common: Common,
    pub vpc: usize,
    pub service: usize,
    /// One per subnet, in the order of the file.
    pub enis: Vec<EniIx>,
    pub security_groups: Vec<usize>,
    pub private_dns: bool,
    pub policy: Policy,
    pub names: EndpointNames,
}

/// Every DNS name of an endpoint, lower case, without a final dot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointNames {
    /// `vpce-0123-abcd1234.s3.eu-west-1.vpce.amazonaws.com`.
    pub regional: String,
    /// Zone name (`eu-west-1a`), name, ENI.
    pub zonal: Vec<(String, String, EniIx)>,
    /// Zones that private DNS attaches, whether or not it is on.
    pub private: Vec<PrivateZone>,
}

/// A hidden private zone: apex and the owners in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateZone {
    /// `s3.eu-west-1.amazonaws.com`.
    pub apex: String,
    /// The apex itself has an address (not so for `dkr.ecr.REGION`).
    pub at_apex: bool,
    /// `*.APEX` has one too (S3, ECR, execute-api).
    pub wildcard: bool,
}

#[derive(Clone, Debug)]
pub struct RolePlan {
    pub common: Common,
    pub account: String,
    pub policy: Policy,
}

/// A policy document. Conditions, principals other than `*` and NotAction-like elements are refused by `validate`
/// until the full engine judges them.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// Full access: the default of endpoints.
    Full,
    /// The document as JSON, checked by `policy::documents`.
    Document(serde_json::Value),
}

#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Short name in the catalogue: `s3`, `ecr.api`.
    pub name: String,
    /// `com.amazonaws.eu-west-1.s3`.
    pub full_name: String,
    pub region: String,
    pub account: String,
    pub backend: Backend,
    /// Ports that an endpoint ENI serves.
    pub ports: Vec<u16>,
    /// Where contents are kept; in memory if absent.
    pub data: Option<PathBuf>,
    pub contents: Contents,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Builtin,
    /// The front door stays in front and speaks HTTP(S) to it.
    Http {
        tls: bool,
        authority: String,
        addr: UpstreamAddr,
    },
    /// Raw bytes.
    Tcp(UpstreamAddr),
}

impl Backend {
    /// `http://127.0.0.1:5000`, `tcp://127.0.0.1:5432`, `unix:/path`; `None` for the built-in one.
    pub fn url(&self) -> Option<String> {
        let (scheme, addr) = match self {
            Backend::Builtin => return None,
            Backend::Http { tls: true, addr, .. } => ("https", addr),
            Backend::Http { tls: false, addr, .. } => ("http", addr),
            Backend::Tcp(addr) => ("tcp", addr),
        };
        Some(match addr {
            UpstreamAddr::Loopback(addr) => format!("{scheme}://{addr}"),
            UpstreamAddr::Unix(path) => format!("unix:{}", path.display()),
        })
    }
}

/// Loopback or a unix socket of this machine; anything else was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddr {
    Loopback(std::net::SocketAddr),
    Unix(PathBuf),
}

/// What a built-in service holds when the lab comes up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub buckets: Vec<BucketPlan>,
    pub queues: Vec<String>,
    pub topics: Vec<String>,
    /// Name and value.
    pub secrets: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BucketPlan {
    pub name: String,
    pub files: BucketFiles,
}

#[derive(Clone, Debug, PartialEq)]
pub enum BucketFiles {
    None,
    Directory(PathBuf),
    /// Key and text.
    Inline(Vec<(String, String)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    /// Line of the topology file, for reports.
    pub line: u32,
    /// As written, for reports.
    pub title: String,
    /// Index in `Plan::instances`; `None` is `any`.
    pub from: Option<usize>,
    pub what: CheckWhat,
    pub expect: Expect,
    /// `endpoint:s3`: which way it must take, and which it must not.
    pub via: Option<String>,
    pub not_via: Option<String>,
    /// The longest a command may run, and how long to wait for the expected.
    pub within: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CheckWhat {
    /// A destination as `explain` takes it.
    To(String),
    /// A command for `sh -c` in the instance.
    Run(String),
    /// Name and type.
    Dns(String, String),
    /// `never: internet`: no way of this kind exists for any instance.
    Never(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Reachable,
    Unreachable,
    /// A drop code: `SG_INGRESS`.
    Code(String),
    Result {
        exit: Option<i32>,
        stdout: Option<String>,
        stderr: Option<String>,
        in_cidr: Option<Cidr>,
    },
}

/// Times and quotas. `Default` is AWS's; reports print both where they differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub endpoint_idle: Duration,
    pub sg_tcp_idle: Duration,
    pub sg_udp_idle: Duration,
    pub sg_udp_stream: Duration,
    /// Seconds, of endpoint names.
    pub dns_ttl: u32,
    /// Packets a second and ENI to the resolver and IMDS.
    pub dns_pps: u32,
    /// Entries of the flow table.
    pub conntrack_max: u32,
    /// Of the instances' kernels.
    pub syn_retries: u8,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            endpoint_idle: Duration::from_secs(350),
            sg_tcp_idle: Duration::from_secs(432_000),
            sg_udp_idle: Duration::from_secs(30),
            sg_udp_stream: Duration::from_secs(180),
            dns_ttl: 60,
            dns_pps: 1_024,
            conntrack_max: 262_144,
            syn_retries: 6,
        }
    }
}

impl Plan {
    pub fn eni(&self, ix: EniIx) -> &EniPlan {
        &self.enis[ix.at()]
    }

    /// `web`, or `s3@b` for an endpoint's ENI: how reports name a port.
    pub fn eni_label(&self, ix: EniIx) -> String {
        let eni = self.eni(ix);
        match eni.owner {
            EniOwner::Instance(i, 0) => self.instances[i].common.name.clone(),
            EniOwner::Instance(i, n) => format!("{}/eth{n}", self.instances[i].common.name),
            EniOwner::Endpoint(e) => format!("{}@{}", self.endpoints[e].common.name, self.subnets[eni.subnet].az),
        }
    }

    /// An instance by bare name where unique, or as `VPC.NAME`; otherwise the candidates.
    pub fn find_instance(&self, name: &str) -> Result<usize, Vec<String>> {
        find(self.instances.iter().map(|i| &i.common), name)
    }

    pub fn find_endpoint(&self, name: &str) -> Result<usize, Vec<String>> {
        find(self.endpoints.iter().map(|e| &e.common), name)
    }
}

fn find<'a>(things: impl Iterator<Item = &'a Common> + Clone, name: &str) -> Result<usize, Vec<String>> {
    if let Some(at) = things.clone().position(|c| c.path == name) {
        return Ok(at);
    }
    let named: Vec<(usize, &Common)> = things.enumerate().filter(|(_, c)| c.name == name).collect();
    match named[..] {
        [(at, _)] => Ok(at),
        _ => Err(named.iter().map(|(_, c)| c.path.clone()).collect()),
    }
}
