//! What the flow table keeps of a packet that may go on.

use super::super::flow::{Course, Flow, FlowEnd, FlowKey, FlowState, INITIATOR, TARGET};
use super::super::program::{EniKind, Program};
use super::super::steps::{Refusal, deliver};
use super::super::verdict::{Decider, DropCode};
use super::super::walk::Arrived;
use super::bind::Sender;
use super::{Ctx, Hit, State};
use crate::base::{EniIx, Proto};
use crate::wire::packet::tcp_flags;

/// A flow that no side tracks needs no entry; an ENI may have so many times its allowance before they go without.
const UNTRACKED_ALLOWANCE: u32 = 2;

impl State {
    /// Enters the flow, or brings it up to date, after every question was answered with yes. `here` and `there`: the
    /// entry of either end, and that one if it is not forgotten.
    #[allow(clippy::too_many_arguments, reason = "the facts of one packet at its receiver")]
    pub(super) fn enter(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        here: [Hit; 2],
        there: [Hit; 2],
        arrived: &Arrived,
        key_there: &FlowKey,
        tracks: [bool; 2],
    ) -> Result<(), Refusal> {
        let ([entry, hit], [mut entry_there, mut there]) = (here, there);
        if let Some((id, side)) = hit
            && there.is_none()
            && self.flows.get(id).key(side ^ 1) == *key_there
            && !self.flows.get(id).is_present(side ^ 1)
        {
            // The other end knew something else by this key, and has forgotten it.
            if let Some((other, at)) = entry_there {
                self.end_side(program, ctx.now, other, at);
            }
            self.flows.remember_side(id, side ^ 1);
            entry_there = Some((id, side ^ 1));
        }
        if let (Some((id, side)), Some((other, _))) = (hit, entry_there)
            && id == other
        {
            self.flows.track(id, side, tracks[0]);
            self.flows.track(id, side ^ 1, tracks[1]);
            let sender = Sender { id, side, whole: true, new: false };
            let passed = self.bind(program, ctx.now, ctx.packet, Some(sender));
            let course = if passed.alone { self.course(program, arrived, passed.nat) } else { None };
            self.flows.get_mut(id).set_course(side, self.epoch, course);
            self.pass(program, ctx.now, ctx.packet, id, side, passed.nat);
            return Ok(());
        }
        // The way there and the way back pass different ENIs, or one of them has forgotten the flow, or there is none:
        // each end keeps its own side.
        let leaves_no_state = ctx.packet.is_icmp_error() || ctx.packet.tcp_flags() & tcp_flags::RST != 0;
        if hit.is_none() && leaves_no_state {
            self.bind(program, ctx.now, ctx.packet, None);
        } else {
            if let Some((id, _)) = entry.filter(|_| hit.is_none()) {
                self.end(program, ctx.now, id, FlowEnd::Idle);
                there = there.filter(|(other, _)| *other != id);
            }
            if let Some((id, side)) = self.flows.find(key_there).filter(|_| there.is_none()) {
                self.end_side(program, ctx.now, id, side);
            }
            let fresh = [hit.is_none(), there.is_none()];
            if fresh != [false; 2] {
                self.enter_new(program, ctx, hit, arrived, key_there, tracks, fresh)?;
            }
            if let Some((id, side)) = hit {
                self.flows.track(id, side, tracks[0]);
                let sender = Sender { id, side, whole: false, new: false };
                let passed = self.bind(program, ctx.now, ctx.packet, Some(sender));
                self.pass(program, ctx.now, ctx.packet, id, side, passed.nat);
            } else if fresh == [false; 2] {
                self.bind(program, ctx.now, ctx.packet, None);
            }
        }
        if let Some((id, side)) = there {
            // What it holds of a gateway is the gateway's to note, if the packet passed it.
            if self.flows.get(id).is_bound() {
                self.part(program, id);
            }
            self.flows.track(id, side, tracks[1]);
            self.pass(program, ctx.now, ctx.packet, id, side ^ 1, None);
        }
        Ok(())
    }

    /// `hit`: what the sender has already.
    #[allow(clippy::too_many_arguments, reason = "the facts of one packet at its receiver")]
    fn enter_new(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        hit: Hit,
        arrived: &Arrived,
        key_there: &FlowKey,
        tracks: [bool; 2],
        present: [bool; 2],
    ) -> Result<(), Refusal> {
        if !self.has_room(program, [ctx.from, arrived.to], [tracks[0] && present[0], tracks[1] && present[1]])? {
            // What nobody tracks needs no entry: the rules are asked for every packet.
            if hit.is_none() {
                self.bind(program, ctx.now, ctx.packet, None);
            }
            return Ok(());
        }
        let state = match ctx.traffic.proto {
            Proto::TCP if ctx.syn => FlowState::New,
            Proto::TCP => FlowState::Established,
            Proto::UDP | Proto::ICMP => FlowState::Single,
            _ => FlowState::Open,
        };
        let mut flow = Flow::new(ctx.now, [ctx.key, *key_there], state);
        flow.set_tracked(INITIATOR, tracks[0]);
        flow.set_tracked(TARGET, tracks[1]);
        flow.set_present(present);
        flow.set_way(arrived.way);
        let endpoint = |eni: EniIx| matches!(program.eni(eni).kind, EniKind::Endpoint(_));
        flow.set_terminates(program.eni(arrived.to).terminates());
        flow.set_endpoint(endpoint(ctx.from) || endpoint(arrived.to));
        flow.set_life(self.lives(program).soonest(&flow));
        for side in [INITIATOR, TARGET] {
            self.lay_ghost(self.flows.hash(&flow.key(side)));
        }
        let id = self.flows.insert(flow);
        let mut nat = None;
        if hit.is_none() {
            let whole = present == [true; 2];
            let sender = Sender { id, side: INITIATOR, whole, new: true };
            let passed = self.bind(program, ctx.now, ctx.packet, Some(sender));
            if passed.alone && whole {
                let course = self.course(program, arrived, passed.nat);
                self.flows.get_mut(id).set_course(INITIATOR, self.epoch, course);
            }
            nat = passed.nat;
        }
        self.pass(program, ctx.now, ctx.packet, id, INITIATOR, nat);
        Ok(())
    }

    /// May a flow be entered that these ends track? An instance tracks so many connections and no more (EC2 User Guide,
    /// "connection tracking"); all of them together have a bound of ours.
    fn has_room(&self, program: &Program, ends: [EniIx; 2], tracked: [bool; 2]) -> Result<bool, Refusal> {
        let most = program.limits.conntrack_max;
        let full = |at: usize| {
            let eni = ends[at];
            tracked[at] && program.eni(eni).has_allowance() && self.flows.tracked(self.ports[eni.at()]) >= most
        };
        if full(INITIATOR) {
            return Err(Refusal::egress(DropCode::CtFull, Decider::Eni(ends[INITIATOR])));
        }
        if full(TARGET) {
            return Err(Refusal::ingress(DropCode::CtFull, Decider::Eni(ends[TARGET])));
        }
        let room = self.flows.has_room() && !self.refuse_new;
        if tracked == [false; 2] {
            let began = self.flows.untracked(self.ports[ends[INITIATOR].at()]);
            return Ok(room && began < most.saturating_mul(UNTRACKED_ALLOWANCE));
        }
        if room { Ok(true) } else { Err(Refusal::egress(DropCode::CtFull, Decider::FlowTable)) }
    }

    /// The number of a way that was found, to be remembered.
    fn course(&mut self, program: &Program, arrived: &Arrived, nat: Option<u16>) -> Option<u16> {
        if arrived.by_packet {
            return None;
        }
        let endpoint = matches!(program.eni(arrived.to).kind, EniKind::Endpoint(_));
        let mtu = if endpoint { arrived.mtu.min(deliver::ENDPOINT_MTU as u16) } else { arrived.mtu };
        let course = Course { passage: arrived.passage, mtu, nat };
        let number = self.courses.iter().position(|known| *known == course).unwrap_or_else(|| {
            // More differing ways than numbers: each packet of those is asked the whole way.
            if self.courses.len() <= usize::from(u16::MAX) {
                self.courses.push(course);
                self.courses.len() - 1
            } else {
                self.courses.len()
            }
        });
        u16::try_from(number).ok()
    }
}
