//! Where a packet goes: a neighbour of the subnet directly, everything else by the subnet's route table.

use super::Refusal;
use crate::base::EniIx;
use crate::engine::program::{Program, Target};
use crate::engine::verdict::{Decider, DropCode};

/// The answer of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Index of the route; `None` for a neighbour: its packets never reach the router.
    pub(crate) route: Option<usize>,
    /// The ENI, or why there is none.
    pub(crate) to: Result<EniIx, Refusal>,
    /// Sender and receiver are in one subnet: no network ACL is asked.
    pub(crate) same_subnet: bool,
}

pub(crate) fn next(program: &Program, from: EniIx, dst: u32) -> Next {
    let (eni, subnet) = (program.eni(from), program.subnet_of(from));
    let vpc = program.vpc_of(from);
    if subnet.cidr.contains(dst.into()) {
        let to = vpc.host(dst).ok_or(Refusal::egress(DropCode::NoEni, Decider::Eni(from)));
        return Next { route: None, to, same_subnet: true };
    }
    let table = &program.tables[subnet.table as usize];
    let at = |route| Decider::RouteTable(subnet.table as usize, route);
    let Some(route) = table.lpm.lookup(dst).map(|at| at as usize) else {
        return Next { route: None, to: Err(Refusal::egress(DropCode::RtNoRoute, at(None))), same_subnet: false };
    };
    let to = match table.routes[route].target {
        Target::Local => vpc.host(dst).ok_or(Refusal::egress(DropCode::NoEni, at(Some(route)))),
        Target::Blackhole => Err(Refusal::egress(DropCode::RtBlackhole, at(Some(route)))),
        Target::Eni(to) => Ok(to),
    };
    let same_subnet = to.is_ok_and(|to| program.eni(to).subnet == eni.subnet);
    Next { route: Some(route), to, same_subnet }
}
