//! `Program`: a plan compiled for packets. Immutable, index based, published whole under one generation.

use std::net::Ipv4Addr;

use super::lpm::Lpm;
use super::rules::{NaclTable, SgTable};
use crate::base::{Cidr, EniIx};
use crate::model::plan::Limits;

/// Everything the engine asks about a lab. ENIs, subnets, tables and ACLs have the index they have in the `Plan`.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) generation: u64,
    pub(crate) enis: Box<[Eni]>,
    pub(crate) subnets: Box<[Subnet]>,
    pub(crate) vpcs: Box<[Vpc]>,
    pub(crate) tables: Box<[Table]>,
    pub(crate) nacls: Box<[Nacl]>,
    /// One for every list of security groups that some ENI has.
    pub(crate) groups: Box<[Groups]>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
}

/// How long flows live without packets, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) tcp: TcpTimes,
    /// TCP to an interface endpoint: the endpoint's own idle time decides, however short or long security groups
    /// remember.
    pub(crate) endpoint: TcpTimes,
    pub(crate) udp: u64,
    pub(crate) udp_stream: u64,
    /// AWS names no time for ICMP; UDP's for one exchange.
    pub(crate) icmp: u64,
    /// Protocols other than TCP, UDP and ICMP (EC2 User Guide, "connection tracking").
    pub(crate) other: u64,
}

/// The same for the states of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpTimes {
    /// Before the handshake is finished. AWS does not document it; a Linux client's last retries are 32 and 64 seconds
    /// apart, and each SYN meets the rules anew.
    pub(crate) new: u64,
    pub(crate) open: u64,
    /// After a FIN of each side: long enough for a last ACK to be repeated.
    pub(crate) fin: u64,
    /// After a RST: what was on its way.
    pub(crate) reset: u64,
}

const SECOND: u64 = 1_000_000_000;

impl TcpTimes {
    /// `open` is for limits to say.
    const DEFAULT: TcpTimes = TcpTimes { new: 60 * SECOND, open: 0, fin: 10 * SECOND, reset: 2 * SECOND };

    fn tracked(open: u64) -> TcpTimes {
        let TcpTimes { new, fin, reset, .. } = TcpTimes::DEFAULT;
        TcpTimes { new: open.min(new), open, fin: open.min(fin), reset: open.min(reset) }
    }
}

impl Timeouts {
    pub(crate) fn new(limits: &Limits) -> Timeouts {
        let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Timeouts {
            tcp: TcpTimes::tracked(nanos(limits.sg_tcp_idle)),
            // Not shorter while it begins: a backend may take longer to answer than a connection may idle.
            endpoint: TcpTimes { open: nanos(limits.endpoint_idle), ..TcpTimes::DEFAULT },
            udp: nanos(limits.sg_udp_idle),
            udp_stream: nanos(limits.sg_udp_stream),
            icmp: nanos(limits.sg_udp_idle),
            other: 600 * SECOND,
        }
    }
}

impl Program {
    /// Grows with every change of the plan; the caller chose it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Times and quotas it was compiled with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    #[inline]
    pub(crate) fn eni(&self, ix: EniIx) -> &Eni {
        &self.enis[ix.at()]
    }

    #[inline]
    pub(crate) fn subnet_of(&self, ix: EniIx) -> &Subnet {
        &self.subnets[self.eni(ix).subnet as usize]
    }

    #[inline]
    pub(crate) fn vpc_of(&self, ix: EniIx) -> &Vpc {
        &self.vpcs[self.eni(ix).vpc as usize]
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Eni {
    /// AWS id: the same ENI in another program.
    pub(crate) id: String,
    pub(crate) ip: u32,
    pub(crate) vpc: u32,
    pub(crate) subnet: u32,
    pub(crate) groups: u32,
    /// Drop what is not from or for its own address. Always so for an endpoint's ENI.
    pub(crate) source_dest_check: bool,
    /// TCP ports served, if it is an endpoint's ENI.
    pub(crate) endpoint: Option<Box<[u16]>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Subnet {
    pub(crate) cidr: Cidr,
    pub(crate) table: u32,
    pub(crate) nacl: u32,
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
    pub(crate) resolver: u32,
    pub(crate) dns_support: bool,
    /// Subnet of an address.
    pub(crate) subnets: Lpm,
    /// ENI of an address, ascending by address.
    pub(crate) hosts: Box<[(u32, u32)]>,
}

impl Vpc {
    #[inline]
    pub(crate) fn host(&self, addr: u32) -> Option<EniIx> {
        let at = self.hosts.binary_search_by_key(&addr, |host| host.0).ok()?;
        Some(EniIx(self.hosts[at].1))
    }

    pub(crate) fn holds(&self, addr: Ipv4Addr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(addr))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: String,
    /// From blocks to positions in `routes`.
    pub(crate) lpm: Lpm,
    pub(crate) routes: Box<[Route]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) id: String,
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Local,
    Eni(EniIx),
    Blackhole,
}

#[derive(Clone, Debug)]
pub(crate) struct Nacl {
    pub(crate) id: String,
    pub(crate) ingress: NaclTable,
    pub(crate) egress: NaclTable,
}

#[derive(Clone, Debug)]
pub(crate) struct Groups {
    pub(crate) ingress: SgTable,
    pub(crate) egress: SgTable,
}
