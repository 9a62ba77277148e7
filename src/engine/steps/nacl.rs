//! Network ACLs: stateless, in order, and only where a packet leaves or enters a subnet.

use super::Refusal;
use crate::engine::program::{Program, Subnet};
use crate::engine::rules::Traffic;
use crate::engine::verdict::{Decider, DropCode};

/// Number of the rule that lets it leave.
pub(crate) fn out(program: &Program, subnet: &Subnet, traffic: &Traffic) -> Result<u16, Refusal> {
    let nacl = &program.nacls[subnet.nacl as usize];
    match nacl.egress.decide(traffic.proto, traffic.selector, traffic.dst) {
        (true, number) => Ok(number),
        (false, number) => Err(Refusal::egress(DropCode::NaclOut, Decider::Nacl(subnet.nacl as usize, number))),
    }
}

/// Number of the rule that lets it enter.
pub(crate) fn into(program: &Program, subnet: &Subnet, traffic: &Traffic) -> Result<u16, Refusal> {
    let nacl = &program.nacls[subnet.nacl as usize];
    match nacl.ingress.decide(traffic.proto, traffic.selector, traffic.src) {
        (true, number) => Ok(number),
        (false, number) => Err(Refusal::ingress(DropCode::NaclIn, Decider::Nacl(subnet.nacl as usize, number))),
    }
}
