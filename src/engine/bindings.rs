//! What NAT gateways know of connections, and how a packet on its way finds it.
//!
//! A binding is a client's address and port, a remote end, and a port of the gateway's towards it; who sends the packet
//! is nothing to the gateway. Mostly the flow between the two ends is the binding too: it holds the port, and its sides
//! are what the gateway would look up. What no flow holds, because the client's security groups have forgotten it,
//! another gateway on the way has the place, or the way back is another, is an entry of the flow table *apart*: from the
//! client's side it has the tuple as the client sends it, from the other as the remote end does, both at the gateway's
//! ENI.

use super::flow::{Flow, FlowKey, FlowState, FlowTable, INITIATOR, Side, TARGET};
use super::lives::Lives;
use super::nat::{Allocator, Held, Taken};
use crate::base::{FiveTuple, Instant, Proto};

/// A gateway that a packet passed, and by which binding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Entry of the flow table that holds the port; `None`: it was taken for this packet.
    pub(super) entry: Option<u32>,
    pub(super) held: Held,
    /// Of the gateway; its own.
    pub(super) address: u32,
    /// At the gateway, as the client sends it.
    pub(super) key: FlowKey,
    /// A NAT gateway, and no NAT instance.
    pub(super) gateway: bool,
    /// The packet comes from the remote end.
    pub(super) back: bool,
}

impl Bound {
    /// Its sides as an entry apart.
    pub(super) fn keys(&self) -> [FlowKey; 2] {
        [self.key, turned(self.key, self.address, self.held.port)]
    }
}

/// What a gateway knows of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Bound(Bound),
    /// There was a connection, and it was idle for too long.
    Forgotten,
    Nothing,
}

/// The books of all gateways, open for one packet.
pub(super) struct Books<'a> {
    pub(super) flows: &'a FlowTable,
    pub(super) nat: &'a mut Allocator,
    pub(super) ghosts: &'a [u64],
    /// Port of an ENI.
    pub(super) ports: &'a [u32],
    pub(super) lives: Lives<'a>,
    pub(super) now: Instant,
    /// The packet's entry by its sender, or that of what it quotes, whether or not its time is over.
    pub(super) own: Option<u32>,
    /// Gateways that the packet passed so far.
    pub(super) passed: &'a mut Vec<Bound>,
}

impl Books<'_> {
    /// By the client and whom it sends to. `begins`: a SYN.
    pub(super) fn out(&self, key: FlowKey, begins: bool) -> Found {
        let holds = |id: &u32| self.binds(*id, key.port) && self.get(*id).key(INITIATOR).at(key.port) == key;
        self.best(key, INITIATOR, begins, [Some(key), None, None, None], holds)
    }

    /// By the gateway's address and port and who sends to it.
    pub(super) fn back(&self, key: FlowKey, begins: bool) -> Found {
        let holds = |id: &u32| self.binds(*id, key.port) && binding_keys(self.nat, self.get(*id))[TARGET] == key;
        // As the remote end sends it: Internet gateways may be between.
        let program = self.lives.program;
        let private = program.gateways.public(key.src).map(|public| FlowKey { src: public.private, ..key });
        let gateway = self.lives.enis.get(key.port as usize).copied().flatten();
        let public = gateway.and_then(|eni| program.vpc_of(eni)?.public(key.dst));
        let to_public = |key: FlowKey| public.map(|dst| FlowKey { dst, ..key });
        self.best(key, TARGET, begins, [Some(key), private, to_public(key), private.and_then(to_public)], holds)
    }

    /// Takes a port. `None`: there is none.
    pub(super) fn take(&mut self, key: FlowKey, addresses: &[u32], gateway: bool) -> Option<Bound> {
        // What an entry apart would need.
        if !self.flows.has_room() {
            return None;
        }
        let (client, remote) = ((key.src, key.src_port), (key.dst, key.dst_port));
        let Taken { address, port, at } = self.nat.allocate(key.port, addresses, Proto(key.proto), client, remote)?;
        Some(Bound { entry: None, held: Held { at, port }, address, key, gateway, back: false })
    }

    /// What the packet's own entry holds of a NAT instance.
    pub(super) fn masqueraded(&self, port: u32, back: bool) -> Option<Bound> {
        let id = self.own?;
        let flow = self.get(id);
        let held = flow.held().filter(|_| !flow.is_bound() && self.now < flow.expires())?;
        (self.nat.owner(held).0 == port).then(|| self.bound(id, held, back))
    }

    /// `sent`: how those may send it who have it from the flow that holds the binding.
    fn best(
        &self,
        key: FlowKey,
        side: Side,
        begins: bool,
        sent: [Option<FlowKey>; 4],
        holds: impl Fn(&u32) -> bool,
    ) -> Found {
        let own = self.own.filter(&holds);
        let apart = || {
            let (id, at) = self.flows.find(&key).filter(|_| self.flows.apart() > 0)?;
            (at == side && self.get(id).is_apart()).then_some(id)
        };
        let others = || {
            let keys = sent.into_iter().flatten().flat_map(|key| {
                let senders = self.lives.program.senders(key.src);
                senders.map(move |eni| key.at(self.ports[eni.at()]))
            });
            keys.filter_map(|key| self.flows.find(&key)).map(|(id, _)| id).filter(&holds)
        };
        let back = side == TARGET;
        let mut forgotten = false;
        for id in
            own.into_iter().chain(std::iter::once_with(apart).flatten()).chain(std::iter::once_with(others).flatten())
        {
            let flow = self.get(id);
            let closing = flow.state == FlowState::Closing;
            if self.now >= self.lives.binding_ends(flow) {
                forgotten |= !closing;
            } else if !(closing && begins)
                && let Some(held) = flow.held()
            {
                return Found::Bound(self.bound(id, held, back));
            }
        }
        let hash = self.flows.hash(&key);
        if forgotten || self.ghosts[ghost_place(hash)] == hash | 1 { Found::Forgotten } else { Found::Nothing }
    }

    fn bound(&self, id: u32, held: Held, back: bool) -> Bound {
        let (nat, address) = self.nat.owner(held);
        let flow = self.get(id);
        Bound { entry: Some(id), held, address, key: flow.key(INITIATOR).at(nat), gateway: flow.is_bound(), back }
    }

    /// Is it a flow that holds a port of this gateway?
    fn binds(&self, id: u32, nat: u32) -> bool {
        let flow = self.get(id);
        let held = flow.held().filter(|_| flow.is_bound() && !flow.is_apart());
        held.is_some_and(|held| self.nat.owner(held).0 == nat)
    }

    fn get(&self, id: u32) -> &Flow {
        self.flows.get(id)
    }
}

/// By which the gateway knows what a flow holds of it.
pub(super) fn binding_keys(nat: &Allocator, flow: &Flow) -> [FlowKey; 2] {
    let Some(held) = flow.held() else { return [flow.key(INITIATOR), flow.key(TARGET)] };
    let (port, address) = nat.owner(held);
    let key = flow.key(INITIATOR).at(port);
    [key, turned(key, address, held.port)]
}

/// What comes back, from what a client sends and under which address and port it goes on.
fn turned(key: FlowKey, address: u32, port: u16) -> FlowKey {
    let src_port = if key.proto == Proto::ICMP.0 { port } else { key.dst_port };
    let (src, dst) = (key.dst.into(), address.into());
    key.mirrored(key.port).with(key.port, &FiveTuple { proto: Proto(key.proto), src, src_port, dst, dst_port: port })
}

/// Places for the keys of what ended by idleness, so that a late packet is told from a stray one.
pub(super) const GHOSTS: usize = 8_192;

pub(super) fn ghost_place(hash: u64) -> usize {
    (hash >> 32) as usize % GHOSTS
}
