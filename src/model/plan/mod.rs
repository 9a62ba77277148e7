//! `Plan`: a topology that was validated. Every reference is an index, every default is filled in, every id and
//! name is made. Compilers (`engine`, `dns`, `imds`, `services`) read it and change nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::catalogue::PublicBlocks;
use crate::base::{Cidr, EniIx};

mod checks;
mod faults;
mod gateways;
mod machines;
mod services;
mod transit;
mod vpc;

pub use checks::{CheckPlan, CheckWhat, Expect, Limits};
pub use faults::{Fault, FaultPlan, Impair, Latency};
pub use gateways::{InternetGatewayPlan, NatGatewayPlan, PrefixListPlan, PublicAddressPlan, VgwPlan};
pub use machines::{
    EniOwner, EniPlan, Forward, Home, InstanceHome, InstancePlan, ListenReply, Listener, RunCommand, Tracking,
};
pub use services::{
    Backend, BucketFiles, BucketPlan, Contents, EndpointKind, EndpointNames, EndpointPlan, Policy, PrivateZone,
    RolePlan, ServicePlan, TablePlan, UpstreamAddr,
};
pub use transit::{
    AttachmentTo, LinkEnd, LinkKind, LinkPlan, PeeringPlan, SitePlan, SiteRoutePlan, SiteTarget, TgwAttachmentPlan,
    TgwRoutePlan, TgwRouteTablePlan, TgwTarget, TransitGatewayPlan, TunnelPlan, VpcAttachment,
};
pub use vpc::{
    NaclPlan, NaclRule, RouteDest, RouteOrigin, RoutePlan, RouteTablePlan, RouteTarget, SecurityGroupPlan, SgPeer,
    SgRule, SubnetPlan, TrafficMatch, VpcPlan,
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
    /// Written routes that are blackholes because a change took their target, as `load::route_key` has them.
    pub gone_routes: std::collections::BTreeSet<String>,
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

    /// Whether an address is of the service that a gateway endpoint (by its index) leads to.
    pub fn in_prefix_list(&self, endpoint: usize, addr: &str) -> bool {
        let EndpointKind::Gateway { prefix_list, .. } = &self.endpoints[endpoint].kind else { return false };
        let entries = &self.prefix_lists[*prefix_list].entries;
        addr.parse().is_ok_and(|addr| entries.iter().any(|block| block.contains(addr)))
    }

    /// An instance in a user's words: `web`, `app.web`, `instance:web`.
    ///
    /// # Errors
    /// A sentence that says what there is instead.
    pub fn instance_named(&self, word: &str) -> Result<usize, String> {
        let name = word.strip_prefix("instance:").unwrap_or(word);
        let all = self.instances.iter().map(|i| &i.common);
        find(all.clone(), name).map_err(|found| no_such("instance", name, &found, all))
    }

    /// The same of endpoints: `s3`, `app.s3`, `endpoint:s3`.
    ///
    /// # Errors
    /// A sentence that says what there is instead.
    pub fn endpoint_named(&self, word: &str) -> Result<usize, String> {
        let name = word.strip_prefix("endpoint:").unwrap_or(word);
        let all = self.endpoints.iter().map(|e| &e.common);
        find(all.clone(), name).map_err(|found| no_such("endpoint", name, &found, all))
    }
}

/// What is said of a name that is not there, or not unique.
fn no_such<'a>(kind: &str, name: &str, candidates: &[String], all: impl Iterator<Item = &'a Common>) -> String {
    if !candidates.is_empty() {
        return format!("`{name}` is not unique; write one of {}", candidates.join(", "));
    }
    let all: Vec<&str> = all.map(|c| c.path.as_str()).collect();
    match all[..] {
        [] => format!("no {kind} is named `{name}`: there is none"),
        _ => format!("no {kind} is named `{name}`; there are: {}", all.join(", ")),
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
