//! `Plan`: a topology that was validated. Every reference is an index, every default is filled in, every id and
//! name is made. Compilers (`engine`, `dns`, `imds`, `services`) read it and change nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::catalogue::PublicBlocks;
use crate::base::{Cidr, EniIx, PortRange, Proto};

mod faults;
mod gateways;
mod transit;

pub use faults::{Fault, FaultPlan, Impair, Latency};
pub use gateways::{InternetGatewayPlan, NatGatewayPlan, PrefixListPlan, PublicAddressPlan, VgwPlan};
pub use transit::{
    AttachmentTo, LinkEnd, LinkKind, LinkPlan, PeeringPlan, SitePlan, SiteRoutePlan, SiteTarget, TgwAttachmentPlan,
    TgwRoutePlan, TgwRouteTablePlan, TgwTarget, TransitGatewayPlan, TunnelPlan, VpcAttachment,
};

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
    /// Every place where packets enter or leave the emulated network; `EniIx` points here.
    pub enis: Vec<EniPlan>,
    /// EC2 instances, and hosts of sites and of the Internet.
    pub instances: Vec<InstancePlan>,
    /// Interface and gateway endpoints.
    pub endpoints: Vec<EndpointPlan>,
    /// At most one per VPC.
    pub internet_gateways: Vec<InternetGatewayPlan>,
    pub public_addresses: Vec<PublicAddressPlan>,
    pub nat_gateways: Vec<NatGatewayPlan>,
    /// At most one per VPC.
    pub vgws: Vec<VgwPlan>,
    pub prefix_lists: Vec<PrefixListPlan>,
    pub peerings: Vec<PeeringPlan>,
    pub transit_gateways: Vec<TransitGatewayPlan>,
    pub tgw_attachments: Vec<TgwAttachmentPlan>,
    pub tgw_route_tables: Vec<TgwRouteTablePlan>,
    pub sites: Vec<SitePlan>,
    /// VPNs and Direct Connect interfaces.
    pub links: Vec<LinkPlan>,
    pub roles: Vec<RolePlan>,
    /// Every service that an endpoint leads to or that the file gives contents or a backend.
    pub services: Vec<ServicePlan>,
    pub checks: Vec<CheckPlan>,
    pub limits: Limits,
    /// Where AWS's services have their public addresses in this lab.
    pub public_blocks: PublicBlocks,
    /// The door of AWS's public side, where every public service address ends.
    pub public_side: Option<EniIx>,
    pub faults: Vec<FaultPlan>,
    pub latency: Latency,
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

    /// Of the names of public addresses: `eu-west-1.compute.amazonaws.com`, or `compute-1.amazonaws.com` in us-east-1.
    pub fn public_domain(&self) -> String {
        match self.region.as_str() {
            "us-east-1" => "compute-1.amazonaws.com".into(),
            region => format!("{region}.compute.amazonaws.com"),
        }
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
    /// Local routes first, then as written, then those of gateway endpoints, then propagated ones.
    pub routes: Vec<RoutePlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// Stable: `rtb-.../10.0.0.0/16`.
    pub id: String,
    pub to: RouteDest,
    pub target: RouteTarget,
    pub origin: RouteOrigin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteDest {
    Cidr(Cidr),
    /// Index in `Plan::prefix_lists`: a route for each of its entries.
    PrefixList(usize),
}

/// Where a route comes from. Of equal blocks a block written wins over a written prefix list, which wins over a
/// propagated route (VPC User Guide, "route priority"); a propagated one never wins over `local`, however specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOrigin {
    /// `CreateRouteTable`, or the written route that replaced the local one.
    Local,
    /// `CreateRoute`: written, or made by a gateway endpoint.
    Created,
    /// `EnableVgwRoutePropagation`.
    Propagated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    Local,
    /// Next hop is an instance's ENI.
    Eni(EniIx),
    Blackhole,
    /// Index in `Plan::internet_gateways`.
    Igw(usize),
    /// Index in `Plan::nat_gateways`.
    Nat(usize),
    /// Index in `Plan::peerings`.
    Peering(usize),
    /// Index in `Plan::transit_gateways`.
    Tgw(usize),
    /// Index in `Plan::vgws`.
    Vgw(usize),
    /// Index in `Plan::endpoints`, a gateway endpoint.
    GatewayEndpoint(usize),
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
    /// Index in `Plan::security_groups`: the private addresses of the ENIs that carry it. May be of a peered VPC.
    Group(usize),
    /// Index in `Plan::prefix_lists`.
    PrefixList(usize),
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
}

impl InstancePlan {
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
    pub kind: EndpointKind,
    /// One per subnet, in the order of the file; none of a gateway endpoint.
    pub enis: Vec<EniIx>,
    pub security_groups: Vec<usize>,
    pub private_dns: bool,
    pub policy: Policy,
    pub names: EndpointNames,
}

impl EndpointPlan {
    pub fn is_gateway(&self) -> bool {
        matches!(self.kind, EndpointKind::Gateway { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    Interface,
    Gateway {
        /// Indices in `Plan::route_tables`: each has a route to `prefix_list`.
        route_tables: Vec<usize>,
        /// Index in `Plan::prefix_lists`: AWS's own of the service.
        prefix_list: usize,
        /// Where TCP to the service ends.
        door: EniIx,
    },
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
    pub tables: Vec<TablePlan>,
}

/// A DynamoDB table.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePlan {
    pub name: String,
    /// Attribute and type: `S`, `N` or `B`.
    pub partition: (String, char),
    pub sort: Option<(String, char)>,
    /// In DynamoDB's own form: `{"pk": {"S": "a"}}`.
    pub items: Vec<serde_json::Value>,
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
    /// NAT gateways forget idle bindings.
    pub nat_idle: Duration,
    /// Bindings of a NAT gateway per address and destination.
    pub nat_ports: u32,
    /// How long DNS goes on giving out an endpoint's ENI that has failed.
    pub endpoint_health: Duration,
    /// Fragments a second and ENI that leave.
    pub egress_fragments: u32,
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
            nat_idle: Duration::from_secs(350),
            nat_ports: 55_000,
            endpoint_health: Duration::from_secs(30),
            egress_fragments: 1_024,
            conntrack_max: 262_144,
            syn_retries: 6,
        }
    }
}

impl Plan {
    pub fn eni(&self, ix: EniIx) -> &EniPlan {
        &self.enis[ix.at()]
    }

    /// The subnet of an interface that is in a VPC.
    pub fn subnet_of(&self, ix: EniIx) -> Option<&SubnetPlan> {
        self.eni(ix).subnet().map(|at| &self.subnets[at])
    }

    /// The VPC of an interface that is in one.
    pub fn vpc_of(&self, ix: EniIx) -> Option<&VpcPlan> {
        self.eni(ix).vpc().map(|at| &self.vpcs[at])
    }

    /// Blocks of a route's destination.
    pub fn blocks<'a>(&'a self, to: &'a RouteDest) -> &'a [Cidr] {
        match to {
            RouteDest::Cidr(cidr) => std::slice::from_ref(cidr),
            RouteDest::PrefixList(at) => &self.prefix_lists[*at].entries,
        }
    }

    /// The resolver's view for who stands there: index of the VPC, or one past the last for hosts outside, which see the
    /// public names only.
    pub fn dns_view(&self, vpc: Option<usize>) -> usize {
        vpc.unwrap_or(self.vpcs.len())
    }

    /// The region that a machine is in; hosts outside are given the lab's.
    pub fn region_of(&self, instance: &InstancePlan) -> &str {
        instance.vpc().map_or(&self.region, |vpc| &self.vpcs[vpc].region)
    }

    /// The block that an interface's kernel takes for its own link, and the address of the router on it.
    pub fn link_of(&self, ix: EniIx) -> (Cidr, Ipv4Addr) {
        let eni = self.eni(ix);
        match eni.home {
            Home::Subnet { subnet, .. } => (self.subnets[subnet].cidr, self.subnets[subnet].router()),
            Home::Site(site) => {
                let site = &self.sites[site];
                let own = site.cidrs.iter().find(|block| block.contains(eni.ip)).unwrap_or(&site.cidrs[0]);
                (*own, site.gateway)
            }
            Home::Internet => {
                let block = Cidr::containing(eni.ip, 24);
                (block, Ipv4Addr::from_bits(block.network().to_bits() + 1))
            }
        }
    }

    /// `10.2.0.0/16 via peering:b-c`, as a user would write it.
    pub fn route_text(&self, route: &RoutePlan) -> String {
        let to = self.dest_text(route.to);
        let name = |kind: &str, common: &Common| format!("{to} via {kind}:{}", common.name);
        match route.target {
            RouteTarget::Local => format!("{to} local"),
            RouteTarget::Blackhole => format!("{to} blackhole"),
            RouteTarget::Eni(eni) => format!("{to} via {}", self.eni_label(eni)),
            RouteTarget::Igw(_) => format!("{to} via igw"),
            RouteTarget::Vgw(_) => format!("{to} via vgw"),
            RouteTarget::Nat(at) => name("nat", &self.nat_gateways[at].common),
            RouteTarget::Peering(at) => name("peering", &self.peerings[at].common),
            RouteTarget::Tgw(at) => name("tgw", &self.transit_gateways[at].common),
            RouteTarget::GatewayEndpoint(at) => name("endpoint", &self.endpoints[at].common),
        }
    }

    /// `10.2.0.0/16 via spoke2`, of a transit gateway's route table.
    pub fn tgw_route_text(&self, route: &TgwRoutePlan) -> String {
        match route.target {
            TgwTarget::Blackhole => format!("{} blackhole", route.to),
            TgwTarget::Attachment(at) => format!("{} via {}", route.to, self.tgw_attachments[at].common.name),
        }
    }

    /// `10.0.0.0/16 via vpn`, of an on-premises router.
    pub fn site_route_text(&self, route: &SiteRoutePlan) -> String {
        match route.via {
            SiteTarget::Blackhole => format!("{} blackhole", route.to),
            SiteTarget::Internet => format!("{} via internet", route.to),
            SiteTarget::Link(at) => format!("{} via {}", route.to, self.links[at].common.name),
        }
    }

    /// `10.0.0.0/16`, or `pl:corp` for a prefix list.
    pub fn dest_text(&self, to: RouteDest) -> String {
        match to {
            RouteDest::Cidr(cidr) => cidr.to_string(),
            RouteDest::PrefixList(at) => format!("pl:{}", self.prefix_lists[at].common.name),
        }
    }

    /// `web`, `s3@b` for an endpoint's ENI, `natgw-a` ...: how reports name a port.
    pub fn eni_label(&self, ix: EniIx) -> String {
        let eni = self.eni(ix);
        let zone = || self.subnet_of(ix).map_or('-', |subnet| subnet.az);
        match eni.owner {
            EniOwner::Instance(i, 0) => self.instances[i].common.name.clone(),
            EniOwner::Instance(i, n) => format!("{}/eth{n}", self.instances[i].common.name),
            EniOwner::Endpoint(e) => format!("{}@{}", self.endpoints[e].common.name, zone()),
            EniOwner::NatGateway(n) => self.nat_gateways[n].common.name.clone(),
            EniOwner::TgwAttachment(a) => format!("{}@{}", self.tgw_attachments[a].common.name, zone()),
            EniOwner::GatewayEndpoint(e) => self.endpoints[e].common.name.clone(),
            EniOwner::PublicSide => "public".to_owned(),
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
