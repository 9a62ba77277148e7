//! How long it is remembered without packets: a flow's sides, each by the ENI that it is of, and what a NAT gateway
//! knows of it.

use super::flow::{Flow, FlowState, INITIATOR, Side, TARGET};
use super::program::{EniKind, Program, TcpTimes, Timeouts};
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
        let millis = if flow.is_apart() {
            u32::MAX
        } else if times.len() == 1 {
            let millis = tracked(&times[0], &times[0].tcp, flow);
            if flow.is_endpoint() { millis.min(tracked(&times[0], &times[0].endpoint, flow)) } else { millis }
        } else {
            self.side(flow, INITIATOR).min(self.side(flow, TARGET))
        };
        if flow.is_bound() { millis.min(bound(&times[0], flow)) } else { millis }
    }

    /// When a side is forgotten by its ENI.
    pub(super) fn side_ends(self, flow: &Flow, side: Side) -> Instant {
        flow.ends_after(self.side(flow, side))
    }

    /// When a NAT gateway forgets what the flow holds of it.
    pub(super) fn binding_ends(self, flow: &Flow) -> Instant {
        flow.ends_after(bound(&self.program.timeouts[0], flow))
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
        tracked(times, if endpoint { &times.endpoint } else { &times.tcp }, flow)
    }
}

#[inline]
fn tracked(times: &Timeouts, tcp: &TcpTimes, flow: &Flow) -> u32 {
    match flow.state {
        FlowState::New => tcp.new,
        FlowState::Established => tcp.open,
        FlowState::Closing if flow.was_reset() => tcp.reset,
        FlowState::Closing => tcp.fin,
        FlowState::Single if flow.proto() == Proto::UDP => times.udp,
        FlowState::Single => times.icmp,
        FlowState::Stream => times.udp_stream,
        FlowState::Open => times.other,
    }
}

/// VPC User Guide, "NAT gateways": 350 idle seconds, whatever the protocol and whether a connection was established.
/// No source tells how soon AWS forgets what has ended.
#[inline]
fn bound(times: &Timeouts, flow: &Flow) -> u32 {
    match flow.state {
        FlowState::Closing if flow.was_reset() => TcpTimes::DEFAULT.reset.min(times.nat),
        FlowState::Closing => TcpTimes::DEFAULT.fin.min(times.nat),
        _ => times.nat,
    }
}
