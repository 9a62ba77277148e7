//! Networks joined: peerings, transit gateways, sites on premises and the links to them.

use std::net::Ipv4Addr;

use super::Common;
use crate::base::{Cidr, EniIx};

/// A peering connection between two VPCs, active.
#[derive(Clone, Debug)]
pub struct PeeringPlan {
    pub common: Common,
    /// Indices in `Plan::vpcs`.
    pub requester: usize,
    pub accepter: usize,
    /// Public host names of the peer's instances resolve to private addresses, on both sides.
    pub dns: bool,
    /// Both in one region: security groups of the peer may be referred to, and the MTU is 9001 instead of 8500.
    pub same_region: bool,
}

impl PeeringPlan {
    /// The other side, or `None` if `vpc` is no side of it.
    pub fn other(&self, vpc: usize) -> Option<usize> {
        match vpc {
            v if v == self.requester => Some(self.accepter),
            v if v == self.accepter => Some(self.requester),
            _ => None,
        }
    }

    /// Largest packet, bytes (VPC peering guide; EC2 User Guide, "network MTU").
    pub fn mtu(&self) -> u16 {
        if self.same_region { 9_001 } else { 8_500 }
    }
}

#[derive(Clone, Debug)]
pub struct TransitGatewayPlan {
    pub common: Common,
    pub region: String,
    pub account: String,
    /// Too large packets are answered with ICMP (since November 2024); `false`: dropped in silence, as before.
    pub pmtud: bool,
    /// Indices in `Plan::tgw_attachments`.
    pub attachments: Vec<usize>,
    /// Indices in `Plan::tgw_route_tables`.
    pub route_tables: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct TgwAttachmentPlan {
    pub common: Common,
    pub tgw: usize,
    pub to: AttachmentTo,
    /// The table its packets are looked up in; `None`: associated with none.
    pub route_table: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum AttachmentTo {
    Vpc(VpcAttachment),
    /// A VPN or a transit virtual interface: index in `Plan::links`.
    Link(usize),
}

#[derive(Clone, Debug)]
pub struct VpcAttachment {
    pub vpc: usize,
    /// One subnet per zone, and the attachment's ENI in it, in the order of the file.
    pub subnets: Vec<(usize, EniIx)>,
    /// Both directions of a flow enter the VPC in the same zone.
    pub appliance_mode: bool,
    /// Security groups of other attachments that allow it too may be referred to.
    pub security_group_referencing: bool,
}

#[derive(Clone, Debug)]
pub struct TgwRouteTablePlan {
    pub common: Common,
    pub tgw: usize,
    /// Static and propagated; for equal blocks the one that wins stands first (static, then VPC, then Direct Connect,
    /// then VPN: Transit Gateway guide, "route evaluation order").
    pub routes: Vec<TgwRoutePlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TgwRoutePlan {
    /// Stable: `tgw-rtb-.../10.0.0.0/16`.
    pub id: String,
    pub to: Cidr,
    pub target: TgwTarget,
    pub propagated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TgwTarget {
    /// Index in `Plan::tgw_attachments`.
    Attachment(usize),
    Blackhole,
}

/// A network of one's own outside AWS. Its hosts are in `Plan::instances`; its router is the customer gateway.
#[derive(Clone, Debug)]
pub struct SitePlan {
    pub common: Common,
    pub cidrs: Vec<Cidr>,
    /// The customer gateway's address inside: the first of the primary block.
    pub gateway: Ipv4Addr,
    /// Indices in `Plan::links`.
    pub links: Vec<usize>,
    /// For equal blocks the one that wins stands first (Direct Connect before VPN).
    pub routes: Vec<SiteRoutePlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SiteRoutePlan {
    pub to: Cidr,
    pub via: SiteTarget,
    /// Learned over the link (BGP), not written.
    pub learned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteTarget {
    /// Index in `Plan::links`.
    Link(usize),
    /// The site's own way to the Internet, where the file gives it one.
    Internet,
    Blackhole,
}

/// What joins a site to AWS.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    pub common: Common,
    pub site: usize,
    pub end: LinkEnd,
    pub kind: LinkKind,
    /// Blocks of the site that AWS's side knows behind it, learned or static.
    pub site_blocks: Vec<Cidr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// Index in `Plan::tgw_attachments`.
    Tgw(usize),
    /// Index in `Plan::vgws`.
    Vgw(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Site-to-Site VPN.
    Vpn {
        tunnels: Vec<TunnelPlan>,
        /// Routes are written; otherwise learned by BGP.
        static_routing: bool,
        /// The firewall of the customer gateway keeps a state of its own for each tunnel: what belongs to a session
        /// that the two sides send by different tunnels is dropped (`FW_NO_STATE`).
        stateful: bool,
    },
    /// A private virtual interface (to a virtual private gateway) or a transit one (to a transit gateway).
    DirectConnect { mtu: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Largest inner packet, bytes.
    pub mtu: u16,
    /// TCP's MSS is lowered to this on the way through; `None`: untouched.
    pub mss: Option<u16>,
    /// Which the site's side sends by; AWS's side sends by the first that is up unless the file says otherwise.
    pub preferred_by_site: bool,
    pub preferred_by_aws: bool,
}
