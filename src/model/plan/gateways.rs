//! What stands at a VPC's edge: Internet gateways and public addresses, NAT gateways, gateway endpoints' routes, prefix
//! lists, virtual private gateways.

use std::net::Ipv4Addr;

use super::{Common, VpcPlan};
use crate::base::{Cidr, EniIx};

/// An Internet gateway, attached to its VPC.
#[derive(Clone, Debug, Default)]
pub struct InternetGatewayPlan {
    pub common: Common,
    pub vpc: usize,
    /// Route table associated with the gateway (edge association): routes what comes in. `None`: local delivery.
    pub edge_table: Option<usize>,
}

/// A public IPv4 address, mapped one to one to a private address of an ENI at the Internet gateway of its VPC.
#[derive(Clone, Debug)]
pub struct PublicAddressPlan {
    /// The Elastic IP's name, or the ENI's for one that AWS assigned at launch.
    pub common: Common,
    pub addr: Ipv4Addr,
    pub eni: EniIx,
    /// The private address it stands for: the ENI's, or one of a NAT gateway's.
    pub private: Ipv4Addr,
    /// `eip:NAME` in the file, or assigned at launch (`public_ip: true`).
    pub elastic: bool,
}

impl PublicAddressPlan {
    /// `ec2-203-0-113-7.eu-west-1.compute.amazonaws.com`, in the VPC that the address is mapped in; `None` without
    /// `dns_hostnames` (VPC User Guide, "DNS attributes").
    pub fn host_name(&self, vpc: &VpcPlan) -> Option<String> {
        let [a, b, c, d] = self.addr.octets();
        vpc.dns_hostnames.then(|| format!("ec2-{a}-{b}-{c}-{d}.{}", vpc.public_domain()))
    }
}

/// A NAT gateway. Its ENI has no security groups; its subnet's network ACL and route table apply.
#[derive(Clone, Debug)]
pub struct NatGatewayPlan {
    pub common: Common,
    pub vpc: usize,
    pub subnet: usize,
    pub eni: EniIx,
    /// A public one sends by the Internet gateway under its Elastic IPs; a private one never does.
    pub public: bool,
    /// Primary first; each of a public one has an entry in `Plan::public_addresses`.
    pub addresses: Vec<Ipv4Addr>,
}

/// A virtual private gateway: the VPC's end of VPNs and private virtual interfaces.
#[derive(Clone, Debug, Default)]
pub struct VgwPlan {
    pub common: Common,
    pub vpc: usize,
    /// Indices in `Plan::links`.
    pub links: Vec<usize>,
    pub edge_table: Option<usize>,
}

/// A list of blocks under one name: a customer's, or AWS's own of a region's service.
#[derive(Clone, Debug)]
pub struct PrefixListPlan {
    pub common: Common,
    /// `None`: of the topology, usable in every VPC.
    pub vpc: Option<usize>,
    /// `com.amazonaws.eu-west-1.s3` of AWS's own; of a customer's, its name.
    pub list_name: String,
    /// Of AWS's own: the region; else empty.
    pub region: String,
    pub entries: Vec<Cidr>,
    /// What it counts as in the rules and routes of quotas.
    pub max_entries: u32,
    pub aws: bool,
}
