//! What the gateways on a packet's way note of it.

use super::super::bindings::{Bound, binding_keys, ghost_place};
use super::super::flow::{Flow, FlowEnd, FlowKey, FlowState, INITIATOR, Side, TARGET};
use super::super::program::Program;
use super::State;
use crate::base::{Instant, Proto};
use crate::wire::packet::Packet;

/// What a flow has of the gateways on its way.
#[derive(Clone, Copy)]
pub(super) struct Noted {
    /// All that they know of it is in the flow: its way may be remembered.
    pub(super) alone: bool,
    /// The NAT gateway whose port the flow holds.
    pub(super) nat: Option<u16>,
}

/// Whose packet it is.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) id: u32,
    pub(super) side: Side,
    /// Both ends of the way are the entry's.
    pub(super) whole: bool,
    /// It begins with this packet.
    pub(super) new: bool,
}

impl State {
    /// A packet goes on by the gateways that it passed, and they note it. Ports that were taken for it are given to its
    /// flow or to entries apart.
    pub(super) fn bind(&mut self, program: &Program, now: Instant, packet: &Packet, flow: Option<Sender>) -> Noted {
        let mut noted = Noted { alone: true, nat: None };
        if packet.is_icmp_error() {
            self.give_back();
            return noted;
        }
        if let Some(sender) = flow {
            self.leave_behind(program, sender.id);
        }
        for at in 0..self.passed.len() {
            let bound = self.passed[at];
            let number = self.nat_number(program, bound.held);
            if let (None, Some(nat)) = (bound.entry, self.nat_counters(number)) {
                nat.active.add(1);
                nat.attempts.add(u64::from(packet.is_tcp_syn()));
            }
            match flow {
                Some(sender) if bound.entry == Some(sender.id) => noted.nat = number,
                Some(sender) if self.may_hold(&sender, at, &bound) => {
                    self.hold(program, sender.id, bound);
                    noted.nat = number;
                }
                _ => {
                    noted.alone = false;
                    if let Some(id) = self.entry_apart(program, now, bound) {
                        self.pass(program, now, packet, id, if bound.back { TARGET } else { INITIATOR }, number);
                    }
                }
            }
        }
        noted
    }

    /// Ports that were taken for a packet that goes no further.
    pub(super) fn give_back(&mut self) {
        for bound in self.passed.iter().filter(|bound| bound.entry.is_none()) {
            self.nat.release(bound.held);
        }
        self.passed.clear();
    }

    /// The gateway of which a flow holds a port is not on its packet's way any more: it counts its own time.
    pub(super) fn leave_behind(&mut self, program: &Program, id: u32) {
        if self.flows.get(id).is_bound() && !self.passed.iter().any(|bound| bound.entry == Some(id)) {
            self.part(program, id);
        }
    }

    /// A flow's port, in the hands of nobody from now on.
    pub(in crate::engine) fn unbind(&mut self, program: &Program, id: u32, end: FlowEnd) {
        let flow = self.flows.get_mut(id);
        let Some(held) = flow.held() else { return };
        flow.let_go();
        let number = self.nat_number(program, held);
        self.nat.release(held);
        if let Some(nat) = self.nat_counters(number) {
            // One less: the counter wraps.
            nat.active.add(u64::MAX);
            nat.idle_timeouts.add(u64::from(end == FlowEnd::Idle));
        }
    }

    /// May a flow hold what its packet passes? The gateway finds it by the flow's sides, so it is the only one on the
    /// way from the initiator; and what else belongs to a binding (what was sent, how it stands) is the flow's too.
    fn may_hold(&self, sender: &Sender, at: usize, bound: &Bound) -> bool {
        let Sender { id, side, whole, new } = *sender;
        let flow = self.flows.get(id);
        if side != INITIATOR || bound.back || flow.held().is_some() {
            return false;
        }
        if !bound.gateway {
            return bound.entry.is_none();
        }
        let tcp = flow.proto() == Proto::TCP;
        let alike = if bound.entry.is_none() { new || !tcp } else { new && !tcp };
        at == 0 && self.passed.len() == 1 && whole && alike && flow.key(INITIATOR).at(bound.key.port) == bound.key
    }

    fn hold(&mut self, program: &Program, id: u32, bound: Bound) {
        match bound.entry {
            // The entry apart is the flow's from now on.
            Some(apart) => drop(self.flows.remove(apart)),
            None => self.begin(program, &bound),
        }
        let flow = self.flows.get_mut(id);
        flow.hold(bound.held, bound.gateway);
        flow.forget_courses();
    }

    /// The entry apart of a binding; `None` where a NAT instance's has no flow to be in, and ends.
    fn entry_apart(&mut self, program: &Program, now: Instant, bound: Bound) -> Option<u32> {
        match bound.entry {
            Some(id) if self.flows.get(id).is_apart() => Some(id),
            Some(id) if bound.gateway => Some(self.part(program, id)),
            Some(_) => None,
            None if bound.gateway => {
                self.begin(program, &bound);
                let state = if bound.key.proto == Proto::TCP.0 { FlowState::New } else { FlowState::Single };
                let keys = bound.keys();
                let mut flow = Flow::new(now, keys, state);
                flow.hold(bound.held, true);
                Some(self.set_apart(program, flow.apart(keys)))
            }
            None => {
                self.nat.release(bound.held);
                None
            }
        }
    }

    /// What a flow holds becomes an entry of its own.
    pub(super) fn part(&mut self, program: &Program, id: u32) -> u32 {
        let flow = self.flows.get(id);
        let apart = flow.apart(binding_keys(&self.nat, flow));
        self.flows.get_mut(id).let_go();
        let new = self.set_apart(program, apart);
        self.moved(id, new);
        new
    }

    pub(super) fn set_apart(&mut self, program: &Program, mut apart: Flow) -> u32 {
        apart.set_life(self.lives(program).soonest(&apart));
        // One with the same client and remote end has ended, or it would have been found.
        self.end_apart(program, &apart.key(INITIATOR));
        self.flows.insert(apart)
    }

    /// No entry apart has this client and remote end any more.
    fn end_apart(&mut self, program: &Program, key: &FlowKey) {
        if let Some((old, _)) = self.flows.find(key).filter(|(id, _)| self.flows.get(*id).is_apart()) {
            self.unbind(program, old, FlowEnd::Replaced);
            self.flows.remove(old);
        }
    }

    /// The packet in hand finds the binding elsewhere.
    pub(super) fn moved(&mut self, from: u32, to: u32) {
        for bound in self.passed.iter_mut().filter(|bound| bound.entry == Some(from)) {
            bound.entry = Some(to);
        }
    }

    /// A new binding: there was none with the same ends, or it is over.
    fn begin(&mut self, program: &Program, bound: &Bound) {
        for key in bound.keys() {
            self.lay_ghost(self.flows.hash(&key));
        }
        if !bound.gateway {
            return;
        }
        self.end_apart(program, &bound.key);
        for eni in program.senders(bound.key.src) {
            let key = bound.key.at(self.ports[eni.at()]);
            let Some((id, INITIATOR)) = self.flows.find(&key) else { continue };
            let flow = self.flows.get(id);
            if flow.is_bound() && binding_keys(&self.nat, flow)[INITIATOR] == bound.key {
                self.unbind(program, id, FlowEnd::Replaced);
            }
        }
    }

    /// Who asks for a binding with these keys later is told that it was idle.
    pub(super) fn mourn(ghosts: &mut [u64], hashes: [u64; 2]) {
        for hash in hashes {
            ghosts[ghost_place(hash)] = hash | 1;
        }
    }
}
