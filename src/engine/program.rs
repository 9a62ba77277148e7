//! `Program`: a plan compiled for packets. Immutable, index based, published whole under one generation.

use std::net::Ipv4Addr;

use super::gateways::{Gateways, Latencies};
use super::lpm::Lpm;
use super::rules::{NaclTable, SgTable};
use super::shape::Shape;
use super::verdict::DropCode;
use crate::base::{Cidr, EniIx};
use crate::model::plan::{Limits, Tracking};

/// Everything the engine asks about a lab. ENIs, subnets, tables, ACLs and gateways have the index they have in the
/// `Plan`.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) generation: u64,
    pub(crate) enis: Box<[Eni]>,
    /// Addresses of ENIs and who has them, ascending: in several VPCs there may be several.
    pub(crate) addresses: Box<[(u32, EniIx)]>,
    /// Those that send in the name of others.
    pub(crate) forwarders: Box<[EniIx]>,
    pub(crate) subnets: Box<[Subnet]>,
    pub(crate) vpcs: Box<[Vpc]>,
    pub(crate) tables: Box<[Table]>,
    pub(crate) nacls: Box<[Nacl]>,
    /// One for every list of security groups that some ENI has.
    pub(crate) groups: Box<[Groups]>,
    pub(crate) gateways: Gateways,
    /// Impairments; an ENI's `shape` is one more than the place here.
    pub(crate) shapes: Box<[Shape]>,
    pub(crate) latency: Latencies,
    pub(crate) limits: Limits,
    /// The lab's, then those of ENIs that have their own.
    pub(crate) timeouts: Box<[Timeouts]>,
}

/// How long it is remembered without packets, in milliseconds; parts of one count as a whole. Each by [`Phase`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// By security groups.
    pub(crate) tracked: [u32; PHASES],
    /// By an interface endpoint.
    pub(crate) endpoint: [u32; PHASES],
    /// By a NAT gateway.
    pub(crate) bound: [u32; PHASES],
    /// Until the first of all forgets: at an endpoint (1), through a NAT gateway (2), both (3), neither (0).
    pub(crate) soonest: [[u32; PHASES]; 4],
}

/// How a flow stands, as far as it matters to how long it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TCP before the handshake is finished.
    New,
    Established,
    /// After a RST.
    Reset,
    /// After a FIN of each side.
    Closed,
    /// UDP: one exchange.
    Datagram,
    /// UDP: more than one.
    Stream,
    Icmp,
    Other,
}

pub(crate) const PHASES: usize = 8;

const SECOND: u32 = 1_000;
/// Before the handshake is finished. AWS does not document it; a Linux client's last retries are 32 and 64 seconds
/// apart, and each SYN meets the rules anew.
const NEW: u32 = 60 * SECOND;
/// After a FIN of each side: long enough for a last ACK to be repeated.
const CLOSED: u32 = 10 * SECOND;
/// After a RST: what was on its way.
const RESET: u32 = 2 * SECOND;
/// Protocols other than TCP, UDP and ICMP (EC2 User Guide, "connection tracking").
const OTHER: u32 = 600 * SECOND;

impl Timeouts {
    pub(crate) fn new(limits: &Limits) -> Timeouts {
        Timeouts::of(limits, &Tracking::default())
    }

    /// Of an ENI with idle times of its own.
    pub(crate) fn of(limits: &Limits, own: &Tracking) -> Timeouts {
        let millis = |d: std::time::Duration| u32::try_from(d.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        let tcp = millis(own.tcp_idle.unwrap_or(limits.sg_tcp_idle));
        let udp = millis(own.udp_idle.unwrap_or(limits.sg_udp_idle));
        let stream = millis(own.udp_stream.unwrap_or(limits.sg_udp_stream));
        let nat = millis(limits.nat_idle);
        // AWS names no time for ICMP: UDP's for one exchange.
        let tracked = [NEW.min(tcp), tcp, RESET.min(tcp), CLOSED.min(tcp), udp, stream, udp, OTHER];
        // Not shorter while it begins: a backend may take longer to answer than a connection may idle.
        let endpoint = [NEW, millis(limits.endpoint_idle), RESET, CLOSED, udp, stream, udp, OTHER];
        // VPC User Guide, "NAT gateways": 350 idle seconds, whatever the protocol and whether a connection was
        // established. No source tells how soon AWS forgets what has ended.
        let bound = [nat, nat, RESET.min(nat), CLOSED.min(nat), nat, nat, nat, nat];
        let least = |a: [u32; PHASES], b: [u32; PHASES]| std::array::from_fn(|at| a[at].min(b[at]));
        let at_endpoint = least(tracked, endpoint);
        let soonest = [tracked, at_endpoint, least(tracked, bound), least(at_endpoint, bound)];
        Timeouts { tracked, endpoint, bound, soonest }
    }
}

impl Program {
    /// Grows with every change of the plan; the caller chose it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Impaired links; [`Program::link_of`] has their numbers, from 1.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The number of an ENI's impaired link; 0 if it is not impaired.
    #[inline]
    pub fn link_of(&self, eni: EniIx) -> u16 {
        self.enis.get(eni.at()).map_or(0, |eni| eni.shape)
    }

    /// Times and quotas it was compiled with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    #[inline]
    pub(crate) fn eni(&self, ix: EniIx) -> &Eni {
        &self.enis[ix.at()]
    }

    /// The VPC of an ENI that is in one.
    #[inline]
    pub(crate) fn vpc_of(&self, ix: EniIx) -> Option<&Vpc> {
        self.vpcs.get(self.eni(ix).vpc as usize)
    }

    /// Who may have sent a packet with this source.
    pub(crate) fn senders(&self, src: u32) -> impl Iterator<Item = EniIx> {
        let first = self.addresses.partition_point(|(addr, _)| *addr < src);
        let owners = self.addresses[first..].iter().take_while(move |(addr, _)| *addr == src).map(|(_, eni)| *eni);
        owners.chain(self.forwarders.iter().copied())
    }

    #[inline]
    pub(crate) fn subnet(&self, at: u32) -> &Subnet {
        &self.subnets[at as usize]
    }

    #[inline]
    pub(crate) fn times(&self, ix: EniIx) -> &Timeouts {
        &self.timeouts[self.eni(ix).times as usize]
    }
}

/// In fields of 32 bits: there is none.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Eni {
    /// AWS id: the same ENI in another program.
    pub(crate) id: String,
    pub(crate) ip: u32,
    /// `NONE` outside VPCs.
    pub(crate) vpc: u32,
    pub(crate) subnet: u32,
    /// Of an on-premises host; else `NONE`.
    pub(crate) site: u32,
    /// `NONE` where no security group is asked.
    pub(crate) groups: u32,
    /// Drop what is not from or for its own address. Always so for an endpoint's ENI.
    pub(crate) source_dest_check: bool,
    pub(crate) kind: EniKind,
    /// It has failed, and what is said of packets from and to it.
    pub(crate) down: Option<DropCode>,
    /// A firewall that takes part only in sessions it saw begin.
    pub(crate) stateful: bool,
    /// It sends what it forwards under its own address.
    pub(crate) masquerade: bool,
    /// One more than the place in `shapes`; 0 is none.
    pub(crate) shape: u16,
    /// In `timeouts`.
    pub(crate) times: u16,
}

#[derive(Clone, Debug)]
pub(crate) enum EniKind {
    /// A machine behind a TUN.
    Host,
    /// An interface endpoint's; TCP ports served.
    Endpoint(Box<[u16]>),
    Nat(u32),
    TgwAttachment,
    /// Of a gateway endpoint; TCP ports served.
    GatewayDoor(u32, Box<[u16]>),
    PublicDoor,
}

impl Eni {
    /// TCP ends in a stack of ours.
    pub(crate) fn terminates(&self) -> bool {
        matches!(self.kind, EniKind::Endpoint(_) | EniKind::GatewayDoor(..) | EniKind::PublicDoor)
    }

    /// It tracks so many connections and no more: an instance of EC2's.
    pub(crate) fn has_allowance(&self) -> bool {
        matches!(self.kind, EniKind::Host) && self.vpc != NONE
    }

    /// Stands for addresses of its own.
    pub(crate) fn is_door(&self) -> bool {
        matches!(self.kind, EniKind::GatewayDoor(..) | EniKind::PublicDoor)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Subnet {
    pub(crate) cidr: Cidr,
    pub(crate) vpc: u32,
    pub(crate) table: u32,
    pub(crate) nacl: u32,
    /// Number of its zone id; equal ones are one zone.
    pub(crate) zone: u16,
    /// The zone has failed.
    pub(crate) down: bool,
}

/// What an address of a subnet is, if it is no host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// The first four: network, router, resolver, future use.
    Router,
    /// The last.
    Broadcast,
}

impl Subnet {
    /// The router's address: what ICMP errors of gateways come from.
    pub(crate) fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.cidr.network().to_bits() + 1)
    }

    pub(crate) fn reserved(&self, addr: Ipv4Addr) -> Option<Reserved> {
        let offset = addr.to_bits().wrapping_sub(self.cidr.network().to_bits());
        if !self.cidr.contains(addr) {
            None
        } else if offset < 4 {
            Some(Reserved::Router)
        } else if addr == self.cidr.last() {
            Some(Reserved::Broadcast)
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Vpc {
    pub(crate) cidrs: Box<[Cidr]>,
    /// Private addresses with a public one, ascending: private, public.
    pub(crate) publics: Box<[(u32, u32)]>,
    /// Blocks that its gateway endpoints serve, with the endpoint.
    pub(crate) gateway_endpoints: Lpm,
    /// Transit gateway and attachment.
    pub(crate) attachments: Box<[(u32, u32)]>,
    pub(crate) resolver: u32,
    pub(crate) dns_support: bool,
    /// Subnet of an address.
    pub(crate) subnets: Lpm,
    /// ENI of an address, ascending by address; a NAT gateway may have several.
    pub(crate) hosts: Box<[(u32, u32)]>,
}

impl Vpc {
    #[inline]
    pub(crate) fn host(&self, addr: u32) -> Option<EniIx> {
        let at = self.hosts.binary_search_by_key(&addr, |host| host.0).ok()?;
        Some(EniIx(self.hosts[at].1))
    }

    /// The public address that stands for a private one.
    pub(crate) fn public(&self, private: u32) -> Option<u32> {
        let at = self.publics.binary_search_by_key(&private, |pair| pair.0).ok()?;
        Some(self.publics[at].1)
    }

    pub(crate) fn holds(&self, addr: Ipv4Addr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(addr))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// From blocks to positions in `routes`.
    pub(crate) lpm: Lpm,
    pub(crate) routes: Box<[Route]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Local,
    Eni(EniIx),
    Blackhole,
    Igw(u32),
    Nat(u32),
    Peering(u32),
    Tgw(u32),
    Vgw(u32),
    GatewayEndpoint(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Nacl {
    pub(crate) ingress: NaclTable,
    pub(crate) egress: NaclTable,
}

#[derive(Clone, Debug)]
pub(crate) struct Groups {
    pub(crate) ingress: SgTable,
    pub(crate) egress: SgTable,
}
