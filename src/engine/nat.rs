//! Ports of NAT gateways: per address of a gateway and destination (address, port, protocol) at most so many bindings at
//! a time (55,000 in AWS: VPC User Guide, "NAT gateways"), never below port 1,024. Different destinations may share a
//! port: what identifies a binding is its port *and* its destination, and the flow that holds it finds the way back.
//!
//! Destinations and bindings live in slabs that are found by open addressing; nothing is allocated once they have
//! grown. With several workers each takes only ports whose translated tuple steers to itself, so that answers come to
//! the worker that owns the flow; of 64,512 ports about one n-th is then there for each of n workers.

use super::index::Index;
use crate::base::{FiveTuple, Proto, steer};

/// Lowest port that a NAT gateway uses.
pub(crate) const FIRST_PORT: u16 = 1_024;
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// One of `n` workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    pub(crate) n: u32,
    pub(crate) me: u32,
}

impl Worker {
    pub(crate) const ALONE: Worker = Worker { n: 1, me: 0 };
}

/// Which ports are in use.
pub(crate) struct Allocator {
    worker: Worker,
    per_destination: u32,
    seed: u64,
    destinations: Slab<Destination>,
    by_destination: Index,
    bindings: Slab<Taken>,
    by_binding: Index,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    nat: u32,
    address: u32,
    dst: u32,
    dst_port: u16,
    proto: u8,
}

#[derive(Clone, Copy)]
struct Destination {
    key: Key,
    count: u32,
}

#[derive(Clone, Copy)]
struct Taken {
    destination: u32,
    port: u16,
}

impl Allocator {
    /// `per_destination`: bindings of one address towards one destination.
    pub(crate) fn new(worker: Worker, per_destination: u32, seed: u64) -> Allocator {
        Allocator {
            worker,
            per_destination,
            seed,
            destinations: Slab::new(),
            by_destination: Index::new(),
            bindings: Slab::new(),
            by_binding: Index::new(),
        }
    }

    /// Bindings beyond a lower bound stay until they end.
    pub(crate) fn set_bound(&mut self, per_destination: u32) {
        self.per_destination = per_destination;
    }

    /// Bindings that are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.bindings.used
    }

    /// An address of the gateway `nat` and a port for a client's connection to `dst`; `None` where every address has as
    /// many towards it as it may. `src` spreads clients over addresses and ports. ICMP has no port of the destination:
    /// identifiers are taken per destination address.
    pub(crate) fn allocate(
        &mut self,
        nat: u32,
        addresses: &[u32],
        proto: Proto,
        src: (u32, u16),
        dst: (u32, u16),
    ) -> Option<(u32, u16)> {
        let client = mix(u64::from(src.0) << 16 | u64::from(src.1), self.seed);
        for n in 0..addresses.len() {
            let address = addresses[(client as usize % addresses.len() + n) % addresses.len()];
            let key = Key::new(nat, address, proto, dst);
            let at = self.destination(key);
            let count = at.map_or(0, |at| self.destinations.get(at).count);
            if count >= self.per_destination {
                continue;
            }
            let start = mix(client ^ key.hash(self.seed), self.seed) % u64::from(PORTS);
            let free = (0..PORTS)
                .map(|n| FIRST_PORT + ((start as u32 + n) % PORTS) as u16)
                .find(|port| self.steers(address, *port, proto, dst) && !self.is_taken(at, *port));
            let Some(port) = free else { continue };
            let at = at.unwrap_or_else(|| {
                let at = self.destinations.insert(Destination { key, count: 0 });
                self.by_destination.insert(key.hash(self.seed) as u32, at);
                at
            });
            self.destinations.get_mut(at).count += 1;
            let id = self.bindings.insert(Taken { destination: at, port });
            self.by_binding.insert(hash_of(at, port, self.seed), id);
            return Some((address, port));
        }
        None
    }

    /// Gives a port back; what is not held is left alone.
    pub(crate) fn release(&mut self, nat: u32, address: u32, proto: Proto, dst: (u32, u16), port: u16) {
        let key = Key::new(nat, address, proto, dst);
        let Some(at) = self.destination(key) else { return };
        let hash = hash_of(at, port, self.seed);
        let bindings = &self.bindings;
        let found = self.by_binding.find(hash, |id| {
            let taken = bindings.get(id);
            taken.destination == at && taken.port == port
        });
        let Some(id) = found else { return };
        self.by_binding.remove(hash, id);
        self.bindings.remove(id);
        let destination = self.destinations.get_mut(at);
        destination.count -= 1;
        if destination.count == 0 {
            self.by_destination.remove(key.hash(self.seed) as u32, at);
            self.destinations.remove(at);
        }
    }

    fn destination(&self, key: Key) -> Option<u32> {
        self.by_destination.find(key.hash(self.seed) as u32, |at| self.destinations.get(at).key == key)
    }

    fn is_taken(&self, destination: Option<u32>, port: u16) -> bool {
        let Some(at) = destination else { return false };
        let is = |id: u32| {
            let taken = self.bindings.get(id);
            taken.destination == at && taken.port == port
        };
        self.by_binding.find(hash_of(at, port, self.seed), is).is_some()
    }

    fn steers(&self, address: u32, port: u16, proto: Proto, dst: (u32, u16)) -> bool {
        if self.worker.n < 2 {
            return true;
        }
        // A ping has its identifier in both ports.
        let dst_port = if proto == Proto::ICMP { port } else { dst.1 };
        let tuple = FiveTuple { proto, src: address.into(), src_port: port, dst: dst.0.into(), dst_port };
        steer(&tuple, self.worker.n) == self.worker.me
    }
}

impl Key {
    fn new(nat: u32, address: u32, proto: Proto, dst: (u32, u16)) -> Key {
        let dst_port = if proto == Proto::ICMP { 0 } else { dst.1 };
        Key { nat, address, dst: dst.0, dst_port, proto: proto.0 }
    }

    fn hash(&self, seed: u64) -> u64 {
        let a = u64::from(self.address) << 32 | u64::from(self.dst);
        let b = u64::from(self.nat) << 32 | u64::from(self.dst_port) << 8 | u64::from(self.proto);
        mix(a, mix(b, seed))
    }
}

fn hash_of(destination: u32, port: u16, seed: u64) -> u32 {
    mix(u64::from(destination) << 16 | u64::from(port), seed) as u32
}

fn mix(x: u64, seed: u64) -> u64 {
    let wide = u128::from(x ^ 0x9e37_79b9_7f4a_7c15) * u128::from(seed | 0xa076_1d64_78bd_642f);
    (wide as u64) ^ (wide >> 64) as u64
}

/// Values at numbers that are used again.
struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
    used: usize,
}

impl<T: Copy> Slab<T> {
    fn new() -> Slab<T> {
        Slab { items: Vec::new(), free: Vec::new(), used: 0 }
    }

    fn insert(&mut self, item: T) -> u32 {
        self.used += 1;
        match self.free.pop() {
            Some(at) => {
                self.items[at as usize] = item;
                at
            }
            None => {
                self.items.push(item);
                // So that giving back never allocates.
                self.free.reserve(self.items.len());
                self.items.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, at: u32) {
        self.used -= 1;
        self.free.push(at);
    }

    fn get(&self, at: u32) -> &T {
        &self.items[at as usize]
    }

    fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.items[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const ADDRESSES: [u32; 2] = [0x0a00_0005, 0x0a00_0006];

    /// What must hold, kept as plain maps: who holds what, by worker.
    #[derive(Default)]
    struct Model {
        /// Translated tuple to the client that holds it: the way back.
        back: BTreeMap<(u32, u16, u8, u32, u16), (u32, u16)>,
        held: Vec<(u32, u32, u16, u8, (u32, u16))>,
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// Client, destination, protocol.
        Open(u16, u8, u8),
        /// Which of the held ones ends.
        End(prop::sample::Index),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        prop::collection::vec(
            prop_oneof![
                3 => (any::<u16>(), 0u8..3, 0u8..3).prop_map(|(c, d, p)| Op::Open(c, d, p)),
                2 => any::<prop::sample::Index>().prop_map(Op::End),
            ],
            1..400,
        )
    }

    proptest! {
        /// Reuse, exhaustion, overlap and both directions, with 1, 2 and 4 workers that share a gateway's addresses.
        #[test]
        fn allocator_does_what_the_model_says(ops in ops(), bound in 1u32..12, seed in any::<u64>()) {
            for n in [1, 2, 4] {
                let mut workers: Vec<Allocator> =
                    (0..n).map(|me| Allocator::new(Worker { n, me }, bound, seed)).collect();
                let mut model = Model::default();
                for op in &ops {
                    match op {
                        Op::Open(client, dst, proto) => {
                            let proto = [Proto::TCP, Proto::UDP, Proto::ICMP][usize::from(*proto)];
                            let src = (0x0a00_0100 + u32::from(client % 97), *client);
                            let dst = (0xc633_6401 + u32::from(*dst), if proto == Proto::ICMP { *client } else { 443 });
                            let sent = FiveTuple { proto, src: src.0.into(), src_port: src.1, dst: dst.0.into(), dst_port: dst.1 };
                            let me = steer(&sent, n);
                            let towards = if proto == Proto::ICMP { (dst.0, 0) } else { dst };
                            let mine = |address: u32| model.held.iter().filter(|(w, a, _, p, d)| (*w, *a, *p, *d) == (me, address, proto.0, towards)).count() as u32;
                            let full = ADDRESSES.iter().all(|address| mine(*address) >= bound);
                            let got = workers[me as usize].allocate(7, &ADDRESSES, proto, src, dst);
                            prop_assert_eq!(got.is_none(), full, "refused only where every address is full");
                            let Some((address, port)) = got else { continue };
                            prop_assert!(ADDRESSES.contains(&address) && port >= FIRST_PORT);
                            prop_assert!(mine(address) < bound);
                            let dst_port = if proto == Proto::ICMP { port } else { dst.1 };
                            let reply = FiveTuple { proto, src: dst.0.into(), src_port: dst_port, dst: address.into(), dst_port: port };
                            prop_assert_eq!(steer(&reply, n), me, "the answer comes to the worker that owns the flow");
                            let way_back = (address, port, proto.0, dst.0, dst_port);
                            prop_assert!(model.back.insert(way_back, src).is_none(), "no two bindings overlap");
                            model.held.push((me, address, port, proto.0, towards));
                        }
                        Op::End(which) => {
                            if model.held.is_empty() {
                                continue;
                            }
                            let (me, address, port, proto, dst) = model.held.swap_remove(which.index(model.held.len()));
                            let dst_port = if proto == Proto::ICMP.0 { port } else { dst.1 };
                            prop_assert!(model.back.remove(&(address, port, proto, dst.0, dst_port)).is_some());
                            workers[me as usize].release(7, address, Proto(proto), dst, port);
                            // A second time nothing happens.
                            let before = workers[me as usize].len();
                            workers[me as usize].release(7, address, Proto(proto), dst, port);
                            prop_assert_eq!(workers[me as usize].len(), before);
                        }
                    }
                }
                let held: usize = workers.iter().map(Allocator::len).sum();
                prop_assert_eq!(held, model.held.len());
            }
        }
    }

    #[test]
    fn fifty_five_thousand_connections_per_destination_and_no_more() {
        let mut nat = Allocator::new(Worker::ALONE, 55_000, 3);
        let mut ports = BTreeSet::new();
        for n in 0..55_000u32 {
            let got =
                nat.allocate(1, &ADDRESSES[..1], Proto::TCP, (0x0a00_0001 + n / 60_000, n as u16), (0xc633_6401, 443));
            let (_, port) = got.expect("there is room");
            assert!(port >= FIRST_PORT && ports.insert(port));
        }
        let more = |nat: &mut Allocator, dst| nat.allocate(1, &ADDRESSES[..1], Proto::TCP, (0x0a00_0009, 1), dst);
        assert_eq!(more(&mut nat, (0xc633_6401, 443)), None);
        assert!(more(&mut nat, (0xc633_6401, 80)).is_some(), "another port is another destination");
        assert!(more(&mut nat, (0xc633_6402, 443)).is_some(), "another address too");
        assert!(
            nat.allocate(2, &ADDRESSES[..1], Proto::TCP, (1, 1), (0xc633_6401, 443)).is_some(),
            "and another gateway"
        );
        let port = *ports.first().expect("some");
        nat.release(1, ADDRESSES[0], Proto::TCP, (0xc633_6401, 443), port);
        assert!(more(&mut nat, (0xc633_6401, 443)).is_some(), "what was given back is there again");
    }
}
