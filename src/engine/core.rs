//! `Engine`: a program, the flows, and what there is to tell of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::decide::{Origin, State};
use super::event::{ClosedLog, Counters, DropKey, DropLog, FlowClosed, FlowSnapshot};
use super::flow::{FlowEnd, FlowTable, INITIATOR, TARGET};
use super::fragments::Fragments;
use super::limiter::Limiter;
use super::nat::Allocator;
use super::program::Program;
use super::verdict::{Crumb, Decider, Direction, DropCode, DropRecord, Verdict, Whose};
use crate::base::{EniIx, FiveTuple, Instant, Steer};

/// Sizes that AWS has no say in. What one instance may track is `Limits::conntrack_max` of the plan.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// Of the flow table's hash.
    pub seed: u64,
    /// Flows of all ENIs, and bindings of NAT gateways that no flow holds: some 140 bytes each.
    pub flows: usize,
    /// Different drops remembered; equal ones are counted.
    pub drop_records: usize,
    /// Ended flows remembered until they are taken.
    pub closed_flows: usize,
}

impl Default for EngineLimits {
    fn default() -> EngineLimits {
        EngineLimits { seed: 0, flows: 4_194_304, drop_records: 4_096, closed_flows: 4_096 }
    }
}

/// Decides packets. One thread owns it; nothing in it blocks, and in a steady state nothing allocates.
pub struct Engine {
    program: Arc<Program>,
    limits: EngineLimits,
    state: State,
    names: PortNames,
}

impl Engine {
    pub fn new(program: Arc<Program>, limits: EngineLimits) -> Engine {
        let mut names = PortNames::default();
        let (ports, _) = names.assign(&program);
        let state = State {
            epoch: 1,
            flows: FlowTable::new(limits.flows, limits.seed),
            fragments: Fragments::new(),
            nat: Allocator::new(Steer::ALONE, program.limits.nat_ports, limits.seed),
            passed: Vec::with_capacity(super::walk::MOST_PLACES),
            courses: Vec::new(),
            fragment_limiters: vec![Limiter::new(); names.enis.len()],
            ghosts: vec![0; super::bindings::GHOSTS].into(),
            limiters: vec![Limiter::new(); names.enis.len()],
            enis: names.enis.clone(),
            drops: DropLog::new(limits.drop_records),
            closed: ClosedLog::new(limits.closed_flows),
            counters: Arc::new(Counters::new(ports.len(), program.gateways.nats.len())),
            ports,
            refuse_new: false,
        };
        Engine { program, limits, state, names }
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Takes a new program. Flows stay: those of ENIs that are gone end, routes and network ACLs are asked again with
    /// the next packet of each, and so are security groups where AWS does not track the flow. ENIs are recognised by
    /// their AWS id; counters follow them. Drop records do not: they name what decided by its place in the plan of the
    /// program before, so they are given back, to be read with that plan alone.
    pub fn publish(&mut self, now: Instant, program: Arc<Program>) -> DropLog {
        let old = std::mem::replace(&mut self.program, program);
        let (ports, gone) = self.names.assign(&self.program);
        let state = &mut self.state;
        if !gone.is_empty() {
            let dead = |port: u32| gone.contains(&port);
            let flows = state.flows.iter();
            let ends = flows.filter(|(_, f)| dead(f.port(INITIATOR)) || dead(f.port(TARGET))).map(|(id, _)| id);
            for id in ends.collect::<Vec<u32>>() {
                state.end(&self.program, now, id, FlowEnd::EniGone);
            }
            // Flows by a gateway that is gone are without it, and not at their end.
            let bound = state.flows.iter().filter(|(_, f)| f.held().is_some_and(|held| dead(state.nat.owner(held).0)));
            for id in bound.map(|(id, _)| id).collect::<Vec<u32>>() {
                state.unbind(&self.program, id, FlowEnd::EniGone);
            }
            state.ghosts.fill(0);
        }
        let mut counters = Counters::new(ports.len(), self.program.gateways.nats.len());
        counters.drops = state.counters.drops.clone();
        counters.closed_lost = state.counters.closed_lost.clone();
        let before: HashMap<&str, usize> = old.enis.iter().enumerate().map(|(at, e)| (e.id.as_str(), at)).collect();
        for (after, eni) in self.program.enis.iter().enumerate() {
            if let Some(before) = before.get(eni.id.as_str()) {
                counters.enis[after] = state.counters.enis[*before].clone();
            }
        }
        for (before, nat) in old.gateways.nats.iter().enumerate() {
            if let Some(after) = self.program.gateways.nats.iter().position(|n| n.id == nat.id) {
                counters.nats[after] = state.counters.nats[before].clone();
            }
        }
        state.counters = Arc::new(counters);
        let drops = std::mem::replace(&mut state.drops, DropLog::new(self.limits.drop_records));
        state.ports = ports;
        state.enis.clone_from(&self.names.enis);
        state.limiters.resize(self.names.enis.len(), Limiter::new());
        state.fragment_limiters.resize(self.names.enis.len(), Limiter::new());
        state.nat.set_bound(self.program.limits.nat_ports);
        // Ways of the program before are not followed any more.
        state.courses.clear();
        state.epoch = state.epoch.checked_add(1).unwrap_or_else(|| {
            // A flow that was not asked for since may have been decided under the same number.
            state.flows.forget_courses();
            1
        });
        drops
    }

    /// A packet that an instance sent out of `from`: virtio header and IP packet. What gateways change of it is changed
    /// in place.
    #[inline]
    pub fn handle(&mut self, now: Instant, from: EniIx, frame: &mut [u8]) -> Verdict {
        self.state.run(&self.program, now, from, Origin::Instance, frame, &mut ())
    }

    /// A packet that a TCP stack of ours sends from an endpoint's ENI or a door. It belongs to a flow or is dropped: an endpoint
    /// begins nothing. Network ACLs and the subnet's route table are asked as for any ENI. (What the resolver and
    /// IMDS send needs no verdict: see [`Engine::count_reply`].)
    #[inline]
    pub fn handle_from_endpoint(&mut self, now: Instant, eni: EniIx, frame: &mut [u8]) -> Verdict {
        self.state.run(&self.program, now, eni, Origin::Endpoint, frame, &mut ())
    }

    /// What the sender `to` of a rejected packet is told ([`Verdict::Reject`]): it goes to it past the network ACL of
    /// its subnet and its security groups, or is dropped there like any packet.
    pub fn handle_reaction(&mut self, now: Instant, to: EniIx, frame: &[u8]) -> Verdict {
        self.state.react(&self.program, now, to, frame, &mut ())
    }

    /// [`Engine::handle_reaction`] with every step it took.
    pub fn trace_reaction(&mut self, now: Instant, to: EniIx, frame: &[u8]) -> (Verdict, Vec<Crumb>) {
        let mut crumbs = Vec::new();
        (self.state.react(&self.program, now, to, frame, &mut crumbs), crumbs)
    }

    /// [`Engine::handle`] with every step it took. Flows, counters and drops change as with a real packet: trace on a
    /// [`Engine::probe`] where they must not.
    pub fn trace(&mut self, now: Instant, from: EniIx, frame: &mut [u8]) -> (Verdict, Vec<Crumb>) {
        let mut crumbs = Vec::new();
        (self.state.run(&self.program, now, from, Origin::Instance, frame, &mut crumbs), crumbs)
    }

    /// [`Engine::handle_from_endpoint`] with every step it took.
    pub fn trace_from_endpoint(&mut self, now: Instant, eni: EniIx, frame: &mut [u8]) -> (Verdict, Vec<Crumb>) {
        let mut crumbs = Vec::new();
        (self.state.run(&self.program, now, eni, Origin::Endpoint, frame, &mut crumbs), crumbs)
    }

    /// An engine with the same program and no flows, whose ENIs track as many as this one's do, and whose NAT gateways
    /// have as few ports left: what `explain` asks, so that asking changes nothing. In probes of other numbers a
    /// connection gets other ports of NAT gateways.
    pub fn probe(&self, number: u64) -> Engine {
        let small = EngineLimits {
            drop_records: 16,
            closed_flows: 0,
            seed: self.limits.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..self.limits.clone()
        };
        let mut probe = Engine::new(self.program.clone(), small);
        probe.state.refuse_new = self.state.refuse_new || !self.state.flows.has_room();
        for (port, live) in probe.state.ports.iter().zip(&self.state.ports) {
            probe.state.flows.pretend(*port, self.state.flows.tracked(*live));
        }
        let port =
            |live: u32| self.state.enis.get(live as usize).copied().flatten().map(|eni| probe.state.ports[eni.at()]);
        probe.state.nat.pretend_full(&self.state.nat, port);
        probe
    }

    /// Counts an answer of the resolver or IMDS that goes into `to`. IP bytes, without the virtio header.
    #[inline]
    pub fn count_reply(&self, to: EniIx, bytes: usize) {
        if let Some(eni) = self.state.counters.enis.get(to.at()) {
            eni.packets_in.add(1);
            eni.bytes_in.add(bytes as u64);
        }
    }

    /// Records a drop that something after the engine decided: the stack, IMDS, an impaired link.
    pub fn note_drop(&mut self, now: Instant, drop: &DropRecord) {
        let DropRecord { from, tuple, code, decider, direction, count, .. } = *drop;
        self.state.note(now, DropKey { from, tuple, code, decider, direction }, None, count);
    }

    /// Ends flows whose time has come, a bounded number of them.
    pub fn expire(&mut self, now: Instant) {
        self.state.expire(&self.program, now);
    }

    /// When `expire` wants to be called next.
    pub fn next_deadline(&self) -> Instant {
        self.state.flows.next_deadline()
    }

    /// What was dropped by the program in force, oldest record first. Bounded: see [`EngineLimits`].
    pub fn drops(&self) -> impl Iterator<Item = &DropRecord> {
        self.state.drops.iter()
    }

    /// The flows as they stand, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = FlowSnapshot> {
        self.state.snapshots()
    }

    /// Number of flows.
    pub fn flow_count(&self) -> usize {
        self.state.flows.len()
    }

    /// Ports of NAT gateways that are held.
    #[cfg(test)]
    pub(crate) fn ports_held(&self) -> u32 {
        self.state.nat.held()
    }

    /// The next flow that ended, oldest first.
    pub fn next_closed(&mut self) -> Option<FlowClosed> {
        self.state.closed.pop()
    }

    /// Shared with readers; replaced by `publish`.
    pub fn counters(&self) -> Arc<Counters> {
        self.state.counters.clone()
    }
}

/// The engine's own numbers of ENIs: they stay while indices in the plan move.
#[derive(Default)]
struct PortNames {
    by_id: HashMap<String, u32>,
    /// ENI of a port.
    enis: Vec<Option<EniIx>>,
    free: Vec<u32>,
}

impl PortNames {
    /// Ports in the order of the program's ENIs, and those that are no more.
    fn assign(&mut self, program: &Program) -> (Vec<u32>, Vec<u32>) {
        self.enis.fill(None);
        let mut ports = Vec::with_capacity(program.enis.len());
        let mut fresh = Vec::new();
        for (at, eni) in program.enis.iter().enumerate() {
            match self.by_id.get(&eni.id) {
                Some(port) => {
                    self.enis[*port as usize] = Some(EniIx(at as u32));
                    ports.push(*port);
                }
                None => {
                    fresh.push(at);
                    ports.push(u32::MAX);
                }
            }
        }
        let mut gone: Vec<u32> =
            self.by_id.values().copied().filter(|port| self.enis[*port as usize].is_none()).collect();
        gone.sort_unstable();
        self.by_id.retain(|_, port| self.enis[*port as usize].is_some());
        for at in fresh {
            // Not a port of this round's `gone`: their flows end first.
            let port = self.free.pop().unwrap_or_else(|| {
                self.enis.push(None);
                self.enis.len() as u32 - 1
            });
            self.enis[port as usize] = Some(EniIx(at as u32));
            self.by_id.insert(program.enis[at].id.clone(), port);
            ports[at] = port;
        }
        self.free.extend(&gone);
        (ports, gone)
    }
}

/// A drop to hand to [`Engine::note_drop`]: one packet, now.
pub fn drop_record(
    now: Instant,
    from: EniIx,
    tuple: FiveTuple,
    code: DropCode,
    decider: Decider,
    direction: Direction,
) -> DropRecord {
    DropRecord { first: now, last: now, from, tuple, whose: Whose::default(), code, decider, direction, count: 1 }
}
