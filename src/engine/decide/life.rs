//! The life of flows: what a packet of one changes, how long it lives, and what its end leaves behind.

use std::sync::Arc;

use super::super::bindings::{binding_keys, ghost_place};
use super::super::event::{ClosedLog, Counters, FlowClosed, FlowSnapshot};
use super::super::flow::{Due, Ends, Flow, FlowEnd, FlowKey, FlowState, INITIATOR, Side, TARGET};
use super::super::lives::Lives;
use super::super::nat::{Allocator, Held};
use super::super::program::{EniKind, Program};
use super::{Hit, State};
use crate::base::counters::NatCounters;
use crate::base::{EniIx, Instant, Proto};
use crate::wire::packet::{Packet, tcp_flags};

impl State {
    /// A packet of a flow goes on: it is counted there and its end moves. `nat`: the gateway that translates it.
    #[inline]
    pub(super) fn pass(
        &mut self,
        program: &Program,
        now: Instant,
        packet: &Packet,
        id: u32,
        side: Side,
        nat: Option<u16>,
    ) {
        let flow = self.flows.get_mut(id);
        flow.count(side, packet.segments(), packet.wire_bytes());
        let before = flow.state;
        self.see(program, now, packet, id, side);
        if let Some(nat) = self.nat_counters(nat) {
            count_nat(nat, side, packet);
            if before == FlowState::New && self.flows.get(id).state == FlowState::Established {
                nat.established.add(1);
            }
        }
    }

    #[inline]
    pub(super) fn see(&mut self, program: &Program, now: Instant, packet: &Packet, id: u32, side: Side) {
        let flow = self.flows.get_mut(id);
        advance(flow, side, packet);
        let life = self.lives(program).soonest(self.flows.get(id));
        self.flows.touch(id, now, life);
    }

    #[inline]
    pub(super) fn lives<'a>(&'a self, program: &'a Program) -> Lives<'a> {
        Lives { program, enis: &self.enis }
    }

    /// An entry by one of its sides, if the ENI of that side has not forgotten it.
    pub(super) fn remembered(&self, program: &Program, now: Instant, entry: Hit) -> Hit {
        entry.filter(|(id, side)| !self.lives(program).is_forgotten(now, self.flows.get(*id), *side))
    }

    pub(super) fn is_tracked(&self, hit: Hit) -> bool {
        hit.is_some_and(|(id, side)| self.flows.get(id).is_tracked(side))
    }

    pub(super) fn tracks(&self, program: &Program, now: Instant, key: &FlowKey) -> bool {
        self.is_tracked(self.remembered(program, now, self.flows.find(key)))
    }

    /// An ENI knew of something with this key, and has forgotten it because it was idle.
    pub(super) fn was_idle(&self, program: &Program, now: Instant, key: &FlowKey) -> bool {
        let hash = self.flows.hash(key);
        let over = |(id, side)| {
            let flow = self.flows.get(id);
            flow.state != FlowState::Closing && self.lives(program).is_forgotten(now, flow, side)
        };
        self.ghosts[ghost_place(hash)] == hash | 1 || self.flows.find(key).is_some_and(over)
    }

    /// There is a new flow with the key: the old one is no explanation any more.
    pub(super) fn lay_ghost(&mut self, hash: u64) {
        let place = &mut self.ghosts[ghost_place(hash)];
        if *place == hash | 1 {
            *place = 0;
        }
    }

    pub(in crate::engine) fn expire(&mut self, program: &Program, now: Instant) {
        let State { flows, enis, ghosts, closed, counters, nat, .. } = self;
        let seed = flows.seed();
        flows.expire(now, &mut ByTime { program, now, seed, enis, ghosts, closed, counters, nat });
    }

    /// A binding may be left that its gateway has not forgotten.
    pub(in crate::engine) fn end(&mut self, program: &Program, now: Instant, id: u32, end: FlowEnd) {
        let end = if end == FlowEnd::Idle { ended_by_time(self.flows.get(id)) } else { end };
        let flow = self.flows.get(id);
        let stays = flow.is_bound() && now < self.lives(program).binding_ends(flow) && end != FlowEnd::EniGone;
        let left = (stays && !flow.is_apart()).then(|| flow.apart(binding_keys(&self.nat, flow)));
        if left.is_none() {
            self.unbind(program, id, end);
        }
        let flow = self.flows.remove(id);
        let seed = self.flows.seed();
        report_end(now, &flow, end, seed, &self.enis, &mut self.ghosts, &mut self.closed, &self.counters);
        if let Some(left) = left {
            let new = self.set_apart(program, left);
            self.moved(id, new);
        }
    }

    /// One end has forgotten a flow and knows another with the same addresses and ports from now on.
    pub(super) fn end_side(&mut self, program: &Program, now: Instant, id: u32, side: Side) {
        if self
            .remembered(program, now, Some((id, side ^ 1)).filter(|_| self.flows.get(id).is_present(side ^ 1)))
            .is_none()
        {
            return self.end(program, now, id, FlowEnd::Idle);
        }
        self.leave_behind(program, id);
        self.flows.forget_side(id, side);
    }

    pub(in crate::engine) fn snapshots(&self) -> impl Iterator<Item = FlowSnapshot> {
        self.flows.iter().filter_map(|(_, flow)| snapshot(flow, &self.enis))
    }

    /// The NAT gateway whose port a flow holds; a NAT instance is none.
    pub(super) fn nat_number(&self, program: &Program, held: Held) -> Option<u16> {
        nat_number(program, &self.nat, &self.enis, held)
    }

    #[inline]
    pub(super) fn nat_counters(&self, nat: Option<u16>) -> Option<&NatCounters> {
        self.counters.nats.get(usize::from(nat?)).map(Arc::as_ref)
    }
}

/// What is changed by the end of flows whose time has come.
struct ByTime<'a> {
    program: &'a Program,
    now: Instant,
    seed: u64,
    enis: &'a [Option<EniIx>],
    ghosts: &'a mut [u64],
    closed: &'a mut ClosedLog,
    counters: &'a Counters,
    nat: &'a mut Allocator,
}

impl Ends for ByTime<'_> {
    fn due(&mut self, flow: &mut Flow) -> Due {
        let lives = Lives { program: self.program, enis: self.enis };
        if lives.are_alike(flow) {
            return Due::Over;
        }
        let binding = Some(lives.binding_ends(flow)).filter(|at| flow.is_bound() && *at > self.now);
        let sides = [INITIATOR, TARGET].into_iter().filter(|side| flow.is_present(*side));
        let side = sides.map(|side| lives.side_ends(flow, side)).filter(|at| *at > self.now).min();
        match (side, binding) {
            (Some(side), Some(at)) => Due::Later(at.min(side)),
            (Some(side), None) => {
                if flow.is_bound() {
                    self.unbind(flow);
                    flow.set_life(lives.soonest(flow));
                }
                Due::Later(side)
            }
            (None, Some(at)) => {
                self.report(flow);
                Due::Rests(at)
            }
            (None, None) => Due::Over,
        }
    }

    #[inline]
    fn near(&self, flow: &Flow) -> u64 {
        flow.held().map_or(0, |held| self.nat.near(held))
    }

    fn ended(&mut self, mut flow: Flow) {
        self.unbind(&mut flow);
        self.report(&flow);
    }
}

impl ByTime<'_> {
    fn report(&mut self, flow: &Flow) {
        let end = ended_by_time(flow);
        report_end(self.now, flow, end, self.seed, self.enis, self.ghosts, self.closed, self.counters);
    }

    /// A gateway forgets what a flow holds of it.
    fn unbind(&mut self, flow: &mut Flow) {
        let Some(held) = flow.held() else { return };
        let idle = ended_by_time(flow) == FlowEnd::Idle;
        let number = nat_number(self.program, self.nat, self.enis, held);
        if idle && flow.is_bound() {
            State::mourn(self.ghosts, binding_keys(self.nat, flow).map(|key| key.hash(self.seed)));
        }
        self.nat.release(held);
        flow.let_go();
        if let Some(nat) = number.and_then(|number| self.counters.nats.get(usize::from(number))) {
            // One less: the counter wraps.
            nat.active.add(u64::MAX);
            nat.idle_timeouts.add(u64::from(idle));
        }
    }
}

#[inline]
fn count_nat(nat: &NatCounters, side: Side, packet: &Packet) {
    let (packets, bytes) = if side == INITIATOR {
        (&nat.packets_from_source, &nat.bytes_from_source)
    } else {
        (&nat.packets_from_destination, &nat.bytes_from_destination)
    };
    packets.add(u64::from(packet.segments()));
    bytes.add(packet.wire_bytes());
}

fn nat_number(program: &Program, nat: &Allocator, enis: &[Option<EniIx>], held: Held) -> Option<u16> {
    let (port, _) = nat.owner(held);
    let eni = enis.get(port as usize).copied().flatten()?;
    match program.eni(eni).kind {
        EniKind::Nat(nat) => u16::try_from(nat).ok(),
        _ => None,
    }
}

/// Moves a flow's state by one packet of `side`.
#[inline]
fn advance(flow: &mut Flow, side: Side, packet: &Packet) {
    match flow.state {
        FlowState::New | FlowState::Established => {
            let flags = packet.tcp_flags();
            if flags & tcp_flags::RST != 0 {
                flow.note_reset();
                flow.state = FlowState::Closing;
                return;
            }
            if flags & tcp_flags::FIN != 0 && flow.note_fin(side) {
                flow.state = FlowState::Closing;
            } else if flow.state == FlowState::New
                && side == INITIATOR
                && flow.packets(TARGET) > 0
                && !packet.is_tcp_syn()
            {
                flow.state = FlowState::Established;
            }
        }
        FlowState::Single if flow.proto() == Proto::UDP && flow.packets(INITIATOR) > 1 && flow.packets(TARGET) > 1 => {
            flow.state = FlowState::Stream;
        }
        _ => {}
    }
}

fn ended_by_time(flow: &Flow) -> FlowEnd {
    match flow.state {
        FlowState::Closing if flow.was_reset() => FlowEnd::Reset,
        FlowState::Closing => FlowEnd::Fin,
        _ => FlowEnd::Idle,
    }
}

#[allow(clippy::too_many_arguments, reason = "parts of `State` that are borrowed apart")]
fn report_end(
    now: Instant,
    flow: &Flow,
    end: FlowEnd,
    seed: u64,
    enis: &[Option<EniIx>],
    ghosts: &mut [u64],
    closed: &mut ClosedLog,
    counters: &Counters,
) {
    if end == FlowEnd::Idle {
        for side in [INITIATOR, TARGET].into_iter().filter(|side| flow.is_present(*side)) {
            let hash = flow.key(side).hash(seed) | 1;
            ghosts[ghost_place(hash)] = hash;
        }
    }
    if let Some(flow) = snapshot(flow, enis)
        && !closed.push(FlowClosed { at: now, end, flow })
    {
        counters.closed_lost.add(1);
    }
}

/// `None` if it is no flow, or an end of it is in no plan any more.
fn snapshot(flow: &Flow, enis: &[Option<EniIx>]) -> Option<FlowSnapshot> {
    if flow.is_apart() || flow.rests() {
        return None;
    }
    Some(FlowSnapshot {
        initiator: (*enis.get(flow.port(INITIATOR) as usize)?)?,
        target: (*enis.get(flow.port(TARGET) as usize)?)?,
        tuple: flow.key(INITIATOR).tuple(),
        state: flow.state,
        tracked: flow.is_tracked_somewhere(),
        packets_out: flow.packets(INITIATOR),
        bytes_out: flow.bytes(INITIATOR),
        packets_in: flow.packets(TARGET),
        bytes_in: flow.bytes(TARGET),
        way: flow.way(),
        started: flow.started(),
        last: flow.last(),
        expires: flow.expires(),
    })
}
