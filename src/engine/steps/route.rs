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
    /// What the route leads to, or why there is none.
    pub(crate) to: Result<Target, Refusal>,
    /// The destination is in the block of the sender's own subnet.
    pub(crate) neighbour: bool,
}

/// `from`: the ENI that sends, if it stands in the subnet itself; gateways ask the route table for every packet.
pub(crate) fn next(program: &Program, subnet: u32, from: Option<EniIx>, dst: u32) -> Next {
    let here = program.subnet(subnet);
    if from.is_some() && here.cidr.contains(dst.into()) {
        return Next { route: None, to: Ok(Target::Local), neighbour: true };
    }
    let table = &program.tables[here.table as usize];
    let at = |route| Decider::RouteTable(here.table as usize, route);
    let Some(route) = table.lpm.lookup(dst).map(|at| at as usize) else {
        return Next { route: None, to: Err(Refusal::egress(DropCode::RtNoRoute, at(None))), neighbour: false };
    };
    let to = match table.routes[route].target {
        Target::Blackhole => Err(Refusal::egress(DropCode::RtBlackhole, at(Some(route)))),
        target => Ok(target),
    };
    Next { route: Some(route), to, neighbour: false }
}
