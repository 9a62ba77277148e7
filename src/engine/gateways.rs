//! Gateways as the engine knows them: flat tables by the indices of the `Plan`.

use std::net::Ipv4Addr;

use super::lpm::Lpm;
use crate::base::{Cidr, EniIx};
use crate::model::catalogue::PublicBlocks;

#[derive(Clone, Debug, Default)]
pub(crate) struct Gateways {
    pub(crate) igws: Box<[Igw]>,
    pub(crate) nats: Box<[Nat]>,
    pub(crate) peerings: Box<[Peering]>,
    pub(crate) tgws: Box<[Tgw]>,
    pub(crate) attachments: Box<[Attachment]>,
    pub(crate) tgw_tables: Box<[TgwTable]>,
    pub(crate) vgws: Box<[Vgw]>,
    pub(crate) links: Box<[Link]>,
    pub(crate) sites: Box<[Site]>,
    /// Door of each endpoint of the plan; `None` for interface endpoints.
    pub(crate) doors: Box<[Option<EniIx>]>,
    pub(crate) vpc_of_endpoint: Box<[u32]>,
    /// Elastic and other public addresses, ascending.
    pub(crate) publics: Box<[Public]>,
    /// Hosts of the emulated Internet, ascending by address.
    pub(crate) hosts: Box<[(u32, EniIx)]>,
    pub(crate) public_side: Option<EniIx>,
    /// Where AWS's services are on the public side.
    pub(crate) public_blocks: PublicBlocks,
}

#[derive(Clone, Debug)]
pub(crate) struct Igw {
    pub(crate) vpc: u32,
    /// The first router beyond it.
    pub(crate) border: Ipv4Addr,
    pub(crate) edge: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Nat {
    /// AWS id: the same gateway in another program.
    pub(crate) id: String,
    pub(crate) subnet: u32,
    pub(crate) eni: EniIx,
    pub(crate) public: bool,
    pub(crate) addresses: Box<[u32]>,
}

/// A public address, and who stands behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Public {
    pub(crate) addr: u32,
    pub(crate) private: u32,
    pub(crate) eni: EniIx,
    /// The Internet gateway of the VPC; without one nothing reaches it.
    pub(crate) igw: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Peering {
    pub(crate) vpcs: [u32; 2],
    pub(crate) mtu: u16,
    /// Between their regions.
    pub(crate) distance_us: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Tgw {
    pub(crate) pmtud: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) tgw: u32,
    pub(crate) table: Option<u32>,
    pub(crate) to: Attached,
}

#[derive(Clone, Debug)]
pub(crate) enum Attached {
    /// Subnets and the attachment's ENIs in them.
    Vpc {
        subnets: Box<[(u32, EniIx)]>,
        appliance: bool,
    },
    Link(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct TgwTable {
    pub(crate) lpm: Lpm,
    /// `None`: blackhole.
    pub(crate) routes: Box<[Option<u32>]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Vgw {
    pub(crate) vpc: u32,
    pub(crate) edge: Option<u32>,
    /// From the blocks of sites to links.
    pub(crate) links: Lpm,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) site: u32,
    pub(crate) end: End,
    pub(crate) direct: bool,
    /// Of a Direct Connect interface, bytes.
    pub(crate) mtu: u16,
    pub(crate) tunnels: Box<[Tunnel]>,
    /// The site's firewall keeps its sessions per tunnel.
    pub(crate) stateful: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Tgw(u32),
    Vgw(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnel {
    pub(crate) mtu: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) up: bool,
    /// By the site, by AWS.
    pub(crate) preferred: [bool; 2],
}

impl Link {
    /// The tunnel that a side sends by: its preferred one while that is up, else the first that is up.
    pub(crate) fn tunnel(&self, by_aws: bool) -> Option<usize> {
        let up = |preferred: bool| {
            self.tunnels.iter().position(|t| t.up && (!preferred || t.preferred[usize::from(by_aws)]))
        };
        up(true).or_else(|| up(false))
    }

    /// The two sides send by different tunnels, and the site's firewall looks at each tunnel by itself.
    pub(crate) fn splits_sessions(&self) -> bool {
        self.stateful && self.tunnel(true) != self.tunnel(false)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) gateway: Ipv4Addr,
    /// Ascending by address.
    pub(crate) hosts: Box<[(u32, EniIx)]>,
    pub(crate) lpm: Lpm,
    /// `None`: no way on.
    pub(crate) routes: Box<[Option<u32>]>,
}

/// Microseconds one way, of each kind of path; all 0 unless the plan asks for AWS's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) same_zone: u32,
    pub(crate) cross_zone: u32,
    pub(crate) peering: u32,
    pub(crate) tgw: u32,
    pub(crate) vpn: u32,
    pub(crate) direct_connect: u32,
    pub(crate) nat: u32,
    pub(crate) endpoint: u32,
    pub(crate) gateway_endpoint: u32,
    pub(crate) public: u32,
    pub(crate) internet: u32,
}

impl Gateways {
    pub(crate) fn public(&self, addr: u32) -> Option<&Public> {
        let at = self.publics.binary_search_by_key(&addr, |p| p.addr).ok()?;
        Some(&self.publics[at])
    }

    pub(crate) fn internet_host(&self, addr: u32) -> Option<EniIx> {
        find(&self.hosts, addr)
    }
}

impl Site {
    pub(crate) fn host(&self, addr: u32) -> Option<EniIx> {
        find(&self.hosts, addr)
    }
}

fn find(hosts: &[(u32, EniIx)], addr: u32) -> Option<EniIx> {
    let at = hosts.binary_search_by_key(&addr, |host| host.0).ok()?;
    Some(hosts[at].1)
}

/// Private use and shared address space (RFC 1918, RFC 6598): nothing the Internet carries.
pub(crate) fn is_private(addr: u32) -> bool {
    const BLOCKS: [(u32, u32); 4] = [
        (Ipv4Addr::new(10, 0, 0, 0).to_bits(), 8),
        (Ipv4Addr::new(172, 16, 0, 0).to_bits(), 12),
        (Ipv4Addr::new(192, 168, 0, 0).to_bits(), 16),
        (Ipv4Addr::new(100, 64, 0, 0).to_bits(), 10),
    ];
    BLOCKS.iter().any(|(net, len)| (addr ^ net) >> (32 - len) == 0)
}

/// From blocks to values; of equal ones the first given wins.
pub(crate) fn lpm(entries: impl Iterator<Item = (Cidr, u32)>) -> Lpm {
    Lpm::new(&entries.collect::<Vec<_>>())
}
