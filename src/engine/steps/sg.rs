//! Security groups: allow rules of all groups of an ENI; what none allows is dropped.

use crate::base::EniIx;
use crate::engine::program::Program;
use crate::engine::rules::{SgMatch, Traffic};

/// The rule that allows, and whether the flow is one that AWS does not track: TCP or UDP, allowed by a rule for
/// everywhere, with all ports open to everywhere in the other direction (EC2 User Guide, "untracked connections").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) by: SgMatch,
    pub(crate) untracked: bool,
}

pub(crate) fn egress(program: &Program, eni: EniIx, traffic: &Traffic) -> Option<Allowed> {
    let groups = &program.groups[program.eni(eni).groups as usize];
    let by = groups.egress.lookup(traffic.proto, traffic.selector, traffic.dst)?;
    Some(Allowed { by, untracked: by.open && groups.ingress.open_to_all(traffic.proto) })
}

pub(crate) fn ingress(program: &Program, eni: EniIx, traffic: &Traffic) -> Option<Allowed> {
    let groups = &program.groups[program.eni(eni).groups as usize];
    let by = groups.ingress.lookup(traffic.proto, traffic.selector, traffic.src)?;
    Some(Allowed { by, untracked: by.open && groups.egress.open_to_all(traffic.proto) })
}
