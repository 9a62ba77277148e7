//! The last step: is it for this ENI, and does an endpoint's ENI take it?

use super::Refusal;
use crate::base::{EniIx, Proto};
use crate::engine::program::Program;
use crate::engine::rules::Traffic;
use crate::engine::verdict::{Decider, DropCode};

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

/// An interface endpoint takes TCP on its service's ports, and a segment in the middle only of a connection it knows.
/// Asked before the endpoint's security groups: no rule could let these in.
pub(crate) fn endpoint(
    to: EniIx,
    ports: &[u16],
    traffic: &Traffic,
    begins: bool,
    known: bool,
    fragment: bool,
) -> Result<(), Refusal> {
    let refuse = |code| Err(Refusal::ingress(code, Decider::EndpointEni(to)));
    if traffic.proto != Proto::TCP || fragment {
        return refuse(DropCode::VpceProto);
    }
    if known {
        return Ok(());
    }
    if !ports.contains(&traffic.selector) {
        return refuse(DropCode::VpcePort);
    }
    if !begins {
        return refuse(DropCode::VpceNoState);
    }
    Ok(())
}

pub(crate) fn endpoint_size(to: EniIx, bytes: usize) -> Result<(), Refusal> {
    if bytes > ENDPOINT_MTU {
        return Err(Refusal::ingress(DropCode::MtuDropSilent, Decider::EndpointEni(to)));
    }
    Ok(())
}
