//! What may enter the network at all, and what the host answers itself: the resolver, IMDS, the router.

use std::net::Ipv4Addr;

use super::Refusal;
use crate::base::{EniIx, Proto};
use crate::engine::program::{Program, Reserved};
use crate::engine::verdict::{Decider, DropCode};
use crate::model::catalogue::PUBLIC_RESOLVER;
use crate::wire::packet::Packet;

/// The largest packet inside a VPC, in bytes (EC2 User Guide, "jumbo frames").
const VPC_MTU: usize = 9_001;
const RESOLVER: u32 = Ipv4Addr::new(169, 254, 169, 253).to_bits();
const IMDS: u32 = Ipv4Addr::new(169, 254, 169, 254).to_bits();
const LINK_LOCAL: u32 = Ipv4Addr::new(169, 254, 0, 0).to_bits();

/// A service of the host the packet came from: never filtered, but limited in packets per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Resolver,
    Imds,
    /// An address of the host where nothing answers.
    Nothing,
}

/// Addresses that no network carries, size, and the source. A VPC has neither broadcast nor multicast (VPC User
/// Guide, "subnet sizing"); a source that is not the ENI's own is dropped unless the check is off, and one that is the
/// destination too always.
#[inline]
pub(crate) fn check(program: &Program, from: EniIx, packet: &Packet) -> Result<(), Refusal> {
    let at = Decider::Eni(from);
    let (src, dst) = (packet.tuple().src, packet.tuple().dst);
    if dst.is_multicast() {
        return Err(Refusal::egress(DropCode::Multicast, at));
    }
    // Before the source check: a DHCP client has no address yet.
    if dst == Ipv4Addr::BROADCAST {
        return Err(Refusal::egress(DropCode::Broadcast, at));
    }
    let eni = program.eni(from);
    if eni.source_dest_check && src.to_bits() != eni.ip {
        return Err(Refusal::egress(DropCode::SrcDstCheck, at));
    }
    // A "land" packet: a machine's kernel keeps what it sends to itself.
    if src == dst {
        return Err(Refusal::egress(DropCode::SrcDstCheck, at));
    }
    if packet.max_segment_ip_len() > VPC_MTU {
        return Err(Refusal::egress(DropCode::MtuDropSilent, at));
    }
    Ok(())
}

/// Is it for the host itself? The resolver answers at VPC+2 of the primary block and at 169.254.169.253, on port 53
/// only; it does not answer ping.
#[inline]
pub(crate) fn local(program: &Program, from: EniIx, packet: &Packet) -> Option<Local> {
    let tuple = packet.tuple();
    let dst = tuple.dst.to_bits();
    let to_resolver = match program.vpc_of(from) {
        Some(vpc) => dst == vpc.resolver || dst == RESOLVER,
        None => dst == PUBLIC_RESOLVER.to_bits(),
    };
    if !to_resolver && dst & 0xffff_0000 != LINK_LOCAL {
        return None;
    }
    let tcp = tuple.proto == Proto::TCP && !packet.is_fragment();
    let udp = tuple.proto == Proto::UDP && !packet.is_fragment();
    Some(if to_resolver && (tcp || udp) && tuple.dst_port == 53 {
        Local::Resolver
    } else if dst == IMDS && program.vpc_of(from).is_some() && tcp && tuple.dst_port == 80 {
        Local::Imds
    } else {
        Local::Nothing
    })
}

/// The resolver serves its own VPC, and only with `dns_support`.
pub(crate) fn resolver(program: &Program, from: EniIx, src: Ipv4Addr) -> Result<(), Refusal> {
    // Hosts outside ask a resolver of the Internet's.
    let Some(vpc) = program.vpc_of(from) else { return Ok(()) };
    let at = Decider::Resolver(from);
    if !vpc.dns_support {
        return Err(Refusal::egress(DropCode::DnsDisabled, at));
    }
    if !vpc.holds(src) {
        return Err(Refusal::egress(DropCode::DnsNotLocal, at));
    }
    Ok(())
}

/// The addresses AWS keeps in every subnet: nothing answers there, and no rule is asked (VPC User Guide: security
/// groups do not filter the default router's reserved addresses).
pub(crate) fn reserved(program: &Program, from: EniIx, dst: Ipv4Addr) -> Result<(), Refusal> {
    let subnet = program.vpc_of(from).and_then(|vpc| vpc.subnets.lookup(dst.to_bits()));
    let code = match subnet.and_then(|at| program.subnets[at as usize].reserved(dst)) {
        None => return Ok(()),
        Some(Reserved::Router) => DropCode::RouterAddr,
        Some(Reserved::Broadcast) => DropCode::Broadcast,
    };
    Err(Refusal::egress(code, Decider::Eni(from)))
}
