//! The last step: is it for this ENI, and does an endpoint's ENI take it?

use super::Refusal;
use crate::base::{EniIx, Proto};
use crate::engine::program::{EniKind, Program};
use crate::engine::rules::Traffic;
use crate::engine::verdict::{Decider, DropCode};
use crate::wire::packet::Packet;

/// The largest packet an interface endpoint takes, in bytes; larger ones vanish without an ICMP message (PrivateLink
/// Guide, quotas).
pub(crate) const ENDPOINT_MTU: usize = 8_500;

/// With the check on, an ENI takes only what is for its own address.
pub(crate) fn destination(program: &Program, to: EniIx, dst: u32) -> Result<(), Refusal> {
    let eni = program.eni(to);
    if eni.source_dest_check && eni.ip != dst {
        return Err(Refusal::ingress(DropCode::SrcDstCheck, Decider::Eni(to)));
    }
    Ok(())
}

/// What ends in a stack of ours takes TCP on its service's ports, and a segment in the middle only of a connection it
/// knows; doors answer ping too. Asked before an endpoint's security groups: no rule could let these in.
pub(crate) fn endpoint(
    program: &Program,
    to: EniIx,
    traffic: &Traffic,
    begins: bool,
    known: bool,
    packet: &Packet,
) -> Result<(), Refusal> {
    let refuse = |code, at| Err(Refusal::ingress(code, at));
    let (at, proto, port, serves) = match &program.eni(to).kind {
        EniKind::GatewayDoor(endpoint, ports) => {
            let at = Decider::GatewayEndpoint(*endpoint as usize);
            let serves = PUBLIC_HTTP == traffic.selector || ports.contains(&traffic.selector);
            (at, DropCode::GweProto, DropCode::VpcePort, serves)
        }
        EniKind::PublicDoor => {
            let blocks = &program.gateways.public_blocks;
            let served = || blocks.service_at(traffic.dst.into()).map(|(service, _)| service.ports);
            let serves = known
                || served().is_some_and(|ports| PUBLIC_HTTP == traffic.selector || ports.contains(&traffic.selector));
            (Decider::Internet, DropCode::PublicPort, DropCode::PublicPort, serves)
        }
        EniKind::Endpoint(ports) => {
            (Decider::EndpointEni(to), DropCode::VpceProto, DropCode::VpcePort, ports.contains(&traffic.selector))
        }
        _ => return Ok(()),
    };
    if program.eni(to).is_door() && packet.is_icmp_echo() && !packet.is_fragment() {
        return Ok(());
    }
    if traffic.proto != Proto::TCP || packet.is_fragment() {
        return refuse(proto, at);
    }
    if known {
        return Ok(());
    }
    if !serves {
        return refuse(port, at);
    }
    if !begins {
        return refuse(DropCode::VpceNoState, Decider::EndpointEni(to));
    }
    Ok(())
}

/// The public side of AWS's HTTP services, to which a gateway endpoint leads too, serves plain HTTP as well.
const PUBLIC_HTTP: u16 = 80;

pub(crate) fn endpoint_size(to: EniIx, bytes: usize) -> Result<(), Refusal> {
    if bytes > ENDPOINT_MTU {
        return Err(Refusal::ingress(DropCode::MtuDropSilent, Decider::EndpointEni(to)));
    }
    Ok(())
}
