//! How long it is remembered without packets: a flow's sides, each by the ENI that it is of, and what a NAT gateway
//! knows of it.

use super::flow::{Flow, FlowState, INITIATOR, Side, TARGET};
use super::program::{EniKind, Phase, Program};
use crate::base::{EniIx, Instant, Proto};

#[derive(Clone, Copy)]
pub(super) struct Lives<'a> {
    pub(super) program: &'a Program,
    /// ENI of a port.
    pub(super) enis: &'a [Option<EniIx>],
}

impl Lives<'_> {
    /// Milliseconds until the first who knows of the flow forgets it.
    #[inline]
    pub(super) fn soonest(self, flow: &Flow) -> u32 {
        let times = &self.program.timeouts;
        let phase = phase(flow) as usize;
        if times.len() == 1 && !flow.is_apart() {
            return times[0].soonest[usize::from(flow.is_endpoint()) | usize::from(flow.is_bound()) << 1][phase];
        }
        let bound = if flow.is_bound() { times[0].bound[phase] } else { u32::MAX };
        if flow.is_apart() { bound } else { bound.min(self.side(flow, INITIATOR)).min(self.side(flow, TARGET)) }
    }

    /// Do all who know of the flow forget it at once?
    #[inline]
    pub(super) fn are_alike(self, flow: &Flow) -> bool {
        flow.is_apart() || self.program.timeouts.len() == 1 && !flow.is_bound() && !flow.is_endpoint()
    }

    /// When a side is forgotten by its ENI.
    pub(super) fn side_ends(self, flow: &Flow, side: Side) -> Instant {
        flow.ends_after(self.side(flow, side))
    }

    /// When a NAT gateway forgets what the flow holds of it.
    pub(super) fn binding_ends(self, flow: &Flow) -> Instant {
        flow.ends_after(self.program.timeouts[0].bound[phase(flow) as usize])
    }

    /// Has the ENI of this side forgotten the flow?
    #[inline]
    pub(super) fn is_forgotten(self, now: Instant, flow: &Flow, side: Side) -> bool {
        now >= flow.expires() && now >= self.side_ends(flow, side)
    }

    fn side(self, flow: &Flow, side: Side) -> u32 {
        let eni = self.enis.get(flow.port(side) as usize).copied().flatten();
        let times = eni.map_or(&self.program.timeouts[0], |eni| self.program.times(eni));
        let endpoint = eni.is_some_and(|eni| matches!(self.program.eni(eni).kind, EniKind::Endpoint(_)));
        (if endpoint { &times.endpoint } else { &times.tracked })[phase(flow) as usize]
    }
}

#[inline]
fn phase(flow: &Flow) -> Phase {
    match flow.state {
        FlowState::New => Phase::New,
        FlowState::Established => Phase::Established,
        FlowState::Closing if flow.was_reset() => Phase::Reset,
        FlowState::Closing => Phase::Closed,
        FlowState::Single if flow.proto() == Proto::UDP => Phase::Datagram,
        FlowState::Single => Phase::Icmp,
        FlowState::Stream => Phase::Stream,
        FlowState::Open => Phase::Other,
    }
}
