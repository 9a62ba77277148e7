//! The life of flows: what a packet of one changes, how long it lives, and what its end leaves behind.

use std::sync::Arc;

use super::super::event::{ClosedLog, Counters, FlowClosed, FlowSnapshot};
use super::super::flow::{Binding, Ends, Flow, FlowEnd, FlowKey, FlowState, INITIATOR, Side, TARGET};
use super::super::nat::{Allocator, Held};
use super::super::program::{EniKind, Program, Timeouts};
use super::{GHOSTS, Hit, State};
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
        let life = self.life(program, self.flows.get(id));
        self.flows.touch(id, now, life);
    }

    /// Milliseconds that a flow lives without packets: as the ENI that forgets first has it.
    #[inline]
    pub(super) fn life(&self, program: &Program, flow: &Flow) -> u32 {
        let times = &program.timeouts;
        let mut millis = life(&times[0], flow);
        if times.len() > 1 {
            let own = |side: Side| {
                let eni = self.enis.get(flow.port(side) as usize).copied().flatten();
                eni.map_or(u32::MAX, |eni| life(program.times(eni), flow))
            };
            millis = own(INITIATOR).min(own(TARGET));
        }
        if flow.held().is_some() { millis.min(program.timeouts[0].nat) } else { millis }
    }

    /// The entry of a key that has not expired; one that has ends here.
    pub(super) fn live(&mut self, program: &Program, now: Instant, key: &FlowKey) -> Hit {
        let (id, side) = self.flows.find(key)?;
        if now < self.flows.get(id).expires() {
            return Some((id, side));
        }
        self.end(program, now, id, FlowEnd::Idle);
        None
    }

    pub(super) fn is_tracked(&self, hit: Hit) -> bool {
        hit.is_some_and(|(id, side)| self.flows.get(id).is_tracked(side))
    }

    pub(super) fn tracks(&self, now: Instant, key: &FlowKey) -> bool {
        let hit = self.flows.find(key);
        hit.is_some_and(|(id, _)| now < self.flows.get(id).expires()) && self.is_tracked(hit)
    }

    pub(super) fn is_ghost(&self, key: &FlowKey) -> bool {
        let hash = self.flows.hash(key) | 1;
        self.ghosts[ghost_place(hash)] == hash
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

    pub(in crate::engine) fn end(&mut self, program: &Program, now: Instant, id: u32, end: FlowEnd) {
        let flow = self.flows.remove(id);
        let end = if end == FlowEnd::Idle { ended_by_time(&flow) } else { end };
        unbind(program, &mut self.nat, &flow, &self.enis, &self.counters, end);
        let seed = self.flows.seed();
        report_end(now, &flow, end, seed, &self.enis, &mut self.ghosts, &mut self.closed, &self.counters);
    }

    pub(in crate::engine) fn snapshots(&self) -> impl Iterator<Item = FlowSnapshot> {
        self.flows.iter().filter_map(|(_, flow)| snapshot(flow, &self.enis))
    }

    /// What a port that a flow holds stands for.
    pub(super) fn binding(&self, held: Held) -> Binding {
        let (nat, address) = self.nat.owner(held);
        Binding { nat, address, held }
    }

    /// A flow that was there before goes by a NAT gateway from now on. One port is held at a time: that of the gateway
    /// before, if there was one, goes back.
    pub(super) fn rebind(&mut self, program: &Program, id: u32, held: Held) {
        unbind(program, &mut self.nat, self.flows.get(id), &self.enis, &self.counters, FlowEnd::Replaced);
        self.flows.get_mut(id).hold(held);
        if let Some(nat) = self.nat_counters(self.nat_number(program, held)) {
            nat.active.add(1);
        }
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
    #[inline]
    fn near(&self, flow: &Flow) -> u64 {
        flow.held().map_or(0, |held| self.nat.near(held))
    }

    fn ended(&mut self, flow: Flow) {
        let ByTime { program, now, seed, enis, .. } = *self;
        let end = ended_by_time(&flow);
        unbind(program, self.nat, &flow, enis, self.counters, end);
        report_end(now, &flow, end, seed, enis, self.ghosts, self.closed, self.counters);
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

/// A NAT gateway's port goes back with its flow.
fn unbind(
    program: &Program,
    nat: &mut Allocator,
    flow: &Flow,
    enis: &[Option<EniIx>],
    counters: &Counters,
    end: FlowEnd,
) {
    let Some(held) = flow.held() else { return };
    let number = nat_number(program, nat, enis, held);
    nat.release(held);
    if let Some(nat) = number.and_then(|number| counters.nats.get(usize::from(number))) {
        // One less: the counter wraps.
        nat.active.add(u64::MAX);
        nat.idle_timeouts.add(u64::from(end == FlowEnd::Idle));
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

/// Milliseconds that a flow lives without packets.
#[inline]
fn life(timeouts: &Timeouts, flow: &Flow) -> u32 {
    let tcp = if flow.is_endpoint() { &timeouts.endpoint } else { &timeouts.tcp };
    match flow.state {
        FlowState::New => tcp.new,
        FlowState::Established => tcp.open,
        FlowState::Closing if flow.was_reset() => tcp.reset,
        FlowState::Closing => tcp.fin,
        FlowState::Single if flow.proto() == Proto::UDP => timeouts.udp,
        FlowState::Single => timeouts.icmp,
        FlowState::Stream => timeouts.udp_stream,
        FlowState::Open => timeouts.other,
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

fn ghost_place(hash: u64) -> usize {
    (hash >> 32) as usize % GHOSTS
}

/// `None` if an end of it is in no plan any more.
fn snapshot(flow: &Flow, enis: &[Option<EniIx>]) -> Option<FlowSnapshot> {
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
        way: flow.way,
        started: flow.started(),
        last: flow.last(),
        expires: flow.expires(),
    })
}
