//! The life of flows: what a packet of one changes, how long it lives, and what its end leaves behind.

use std::sync::Arc;

use super::super::event::{ClosedLog, Counters, FlowClosed, FlowSnapshot};
use super::super::flow::{Binding, Flow, FlowEnd, FlowKey, FlowState, INITIATOR, Side, TARGET};
use super::super::nat::Allocator;
use super::super::program::{EniKind, Program, Timeouts};
use super::{GHOSTS, Hit, State};
use crate::base::counters::NatCounters;
use crate::base::{EniIx, Instant, Proto};
use crate::wire::packet::{Packet, tcp_flags};

impl State {
    /// A packet of a flow goes on: it is counted there and its end moves.
    #[inline]
    pub(super) fn pass(&mut self, program: &Program, now: Instant, packet: &Packet, id: u32, side: Side) {
        let flow = self.flows.get_mut(id);
        flow.packets[side] += u64::from(packet.segments());
        flow.bytes[side] += packet.wire_bytes();
        let (nat, before) = (flow.nat, flow.state);
        self.see(program, now, packet, id, side);
        if let Some(binding) = nat {
            self.count_nat(program, binding, side, packet);
            if before == FlowState::New
                && self.flows.get(id).state == FlowState::Established
                && let Some(nat) = self.nat_counters(program, binding)
            {
                nat.established.add(1);
            }
        }
    }

    #[inline]
    pub(super) fn see(&mut self, program: &Program, now: Instant, packet: &Packet, id: u32, side: Side) {
        let flow = self.flows.get_mut(id);
        flow.last = now;
        advance(flow, side, packet);
        let flow = self.flows.get(id);
        let expires = Instant(now.0.saturating_add(self.life(program, flow)));
        self.flows.set_expiry(id, expires);
    }

    /// Nanoseconds that a flow lives without packets: as the ENI that forgets first has it.
    #[inline]
    pub(super) fn life(&self, program: &Program, flow: &Flow) -> u64 {
        let times = &program.timeouts;
        let mut nanos = life(&times[0], flow);
        if times.len() > 1 {
            let own = |side: Side| {
                let eni = self.enis.get(flow.keys[side].port as usize).copied().flatten();
                eni.map_or(u64::MAX, |eni| life(program.times(eni), flow))
            };
            nanos = own(INITIATOR).min(own(TARGET));
        }
        if flow.nat.is_some() { nanos.min(program.timeouts[0].nat) } else { nanos }
    }

    /// The entry of a key that has not expired; one that has ends here.
    pub(super) fn live(&mut self, program: &Program, now: Instant, key: &FlowKey) -> Hit {
        let (id, side) = self.flows.find(key)?;
        if now < self.flows.get(id).expires {
            return Some((id, side));
        }
        self.end(program, now, id, FlowEnd::Idle);
        None
    }

    pub(super) fn is_tracked(&self, hit: Hit) -> bool {
        hit.is_some_and(|(id, side)| self.flows.get(id).tracked[side])
    }

    pub(super) fn tracks(&self, now: Instant, key: &FlowKey) -> bool {
        let hit = self.flows.find(key);
        hit.is_some_and(|(id, _)| now < self.flows.get(id).expires) && self.is_tracked(hit)
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
        flows.expire(now, |flow| {
            unbind(program, nat, &flow, enis, counters, ended_by_time(&flow));
            report_end(now, &flow, ended_by_time(&flow), seed, enis, ghosts, closed, counters);
        });
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

    /// The counters of the NAT gateway that a flow passes; a NAT instance has none.
    pub(super) fn nat_counters(&self, program: &Program, binding: Binding) -> Option<&NatCounters> {
        let eni = self.enis.get(binding.nat as usize).copied().flatten()?;
        match program.eni(eni).kind {
            EniKind::Nat(nat) => self.counters.nats.get(nat as usize).map(Arc::as_ref),
            _ => None,
        }
    }

    fn count_nat(&self, program: &Program, binding: Binding, side: Side, packet: &Packet) {
        let Some(nat) = self.nat_counters(program, binding) else { return };
        let (packets, bytes) = if side == INITIATOR {
            (&nat.packets_from_source, &nat.bytes_from_source)
        } else {
            (&nat.packets_from_destination, &nat.bytes_from_destination)
        };
        packets.add(u64::from(packet.segments()));
        bytes.add(packet.wire_bytes());
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
    let Some(binding) = flow.nat else { return };
    nat.release(binding.at, binding.port);
    let eni = enis.get(binding.nat as usize).copied().flatten();
    if let Some(EniKind::Nat(nat)) = eni.map(|eni| &program.eni(eni).kind)
        && let Some(nat) = counters.nats.get(*nat as usize)
    {
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
                flow.reset = true;
                flow.state = FlowState::Closing;
                return;
            }
            flow.fin[side] |= flags & tcp_flags::FIN != 0;
            if flow.fin == [true; 2] {
                flow.state = FlowState::Closing;
            } else if flow.state == FlowState::New
                && side == INITIATOR
                && flow.packets[TARGET] > 0
                && !packet.is_tcp_syn()
            {
                flow.state = FlowState::Established;
            }
        }
        FlowState::Single if flow.keys[0].proto == Proto::UDP.0 && flow.packets[0] > 1 && flow.packets[1] > 1 => {
            flow.state = FlowState::Stream;
        }
        _ => {}
    }
}

/// Nanoseconds that a flow lives without packets.
#[inline]
fn life(timeouts: &Timeouts, flow: &Flow) -> u64 {
    let tcp = if flow.endpoint { &timeouts.endpoint } else { &timeouts.tcp };
    match flow.state {
        FlowState::New => tcp.new,
        FlowState::Established => tcp.open,
        FlowState::Closing if flow.reset => tcp.reset,
        FlowState::Closing => tcp.fin,
        FlowState::Single if flow.keys[0].proto == Proto::UDP.0 => timeouts.udp,
        FlowState::Single => timeouts.icmp,
        FlowState::Stream => timeouts.udp_stream,
        FlowState::Open => timeouts.other,
    }
}

fn ended_by_time(flow: &Flow) -> FlowEnd {
    match flow.state {
        FlowState::Closing if flow.reset => FlowEnd::Reset,
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
        for side in [INITIATOR, TARGET] {
            let hash = flow.keys[side].hash(seed) | 1;
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
        initiator: (*enis.get(flow.keys[0].port as usize)?)?,
        target: (*enis.get(flow.keys[1].port as usize)?)?,
        tuple: flow.keys[0].tuple(),
        state: flow.state,
        tracked: flow.tracked[0] && flow.present[0] || flow.tracked[1] && flow.present[1],
        packets_out: flow.packets[INITIATOR],
        bytes_out: flow.bytes[INITIATOR],
        packets_in: flow.packets[TARGET],
        bytes_in: flow.bytes[TARGET],
        way: flow.way,
        started: flow.started,
        last: flow.last,
        expires: flow.expires,
    })
}
