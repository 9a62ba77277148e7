//! VPCs: subnets, route tables, network ACLs, security groups.

use std::net::Ipv4Addr;

use super::Common;
use crate::base::{Cidr, EniIx, PortRange, Proto};

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
