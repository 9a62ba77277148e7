//! Ports of NAT gateways: per address of a gateway and destination (address, port, protocol) at most so many bindings at
//! a time (55,000 in AWS: VPC User Guide, "NAT gateways"), never below port 1,024. Different destinations may share a
//! port: what identifies a binding is its port *and* its destination, and the flow that holds it finds the way back.
//! ICMP's identifiers are ports here, and its destinations have none.
//!
//! A destination is a record in a slab, found by open addressing; a binding is one cell of eight bytes and nothing
//! else. Taking and giving back a port is O(1), as few ports are looked at as are taken by chance, and nothing is
//! allocated once the tables have grown.
//!
//! With several workers each takes only ports whose translated tuple steers to itself, so that answers come to the
//! worker that owns the flow, and each has its share of the bound, so that all of them together keep it exactly. Of the
//! 64,512 ports about one n-th steer to each of n workers (a binomial spread: at 4 workers 16,128 and rarely 500 more or
//! fewer), which leaves a share of 55,000 its room up to some sixty workers. A worker whose share is used up refuses
//! while others may still have room: one owner for each flow costs no lock, and this.

use super::index::Index;
use crate::base::{FiveTuple, Proto, Steer};

/// Lowest port that a NAT gateway uses.
pub(crate) const FIRST_PORT: u16 = 1_024;

/// Which ports are in use.
pub struct Allocator {
    steer: Steer,
    per_destination: u32,
    seed: u64,
    destinations: Destinations,
    by_key: Index,
    /// From the hash of destination and port to the destination: see [`cell_hash`].
    taken: Index,
}

/// A port that is held until [`Allocator::release`] has it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Of the gateway's addresses, the one whose port it is; host order.
    pub address: u32,
    pub port: u16,
    /// Where the allocator keeps it.
    pub(crate) at: u32,
}

/// What finds a held port again: the flow that holds it keeps this and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Where the allocator keeps it.
    pub(crate) at: u32,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    nat: u32,
    address: u32,
    dst: u32,
    dst_port: u16,
    proto: u8,
}

impl Allocator {
    /// `per_destination`: bindings of one address towards one destination, of all workers together.
    pub fn new(steer: Steer, per_destination: u32, seed: u64) -> Allocator {
        Allocator {
            steer,
            per_destination,
            seed,
            destinations: Destinations::new(),
            by_key: Index::new(),
            taken: Index::new(),
        }
    }

    /// Bindings beyond a lower bound stay until they end.
    pub fn set_bound(&mut self, per_destination: u32) {
        self.per_destination = per_destination;
    }

    /// An address of the gateway `nat` (any number that stays) and a port for a client's connection to `dst`; addresses
    /// in host order. `None` where every address has as many towards it as it may: CloudWatch's `ErrorPortAllocation`.
    ///
    /// The hash of the client's address and port chooses the gateway's address and where the search for a port begins,
    /// so clients spread, and a client that uses its port again soon gets the same one again, as its peer expects of
    /// it. No source says that AWS keeps a client's own port where it is free; this does not.
    pub fn allocate(
        &mut self,
        nat: u32,
        addresses: &[u32],
        proto: Proto,
        src: (u32, u16),
        dst: (u32, u16),
    ) -> Option<Taken> {
        let client = mix(u64::from(src.0) << 16 | u64::from(src.1), self.seed);
        let first = (((client >> 32) * addresses.len() as u64) >> 32) as usize;
        let (before, after) = addresses.split_at(first);
        after.iter().chain(before).find_map(|&address| self.take(nat, address, proto, client, dst))
    }

    /// The gateway whose port this is, and the gateway's address.
    pub(crate) fn owner(&self, held: Held) -> (u32, u32) {
        let key = &self.destinations.get(held.at).key;
        (key.nat, key.address)
    }

    /// Ports that are held, of all gateways.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.destinations.chunks.iter().flat_map(|chunk| chunk.iter()).map(|destination| destination.count).sum()
    }

    /// Gives a port back. Does nothing for one that is not held.
    pub(crate) fn release(&mut self, Held { at, port }: Held) {
        let hash = cell_hash(at, port);
        if !self.taken.remove(hash, at) {
            return;
        }
        let destination = self.destinations.get_mut(at);
        destination.exhausted = false;
        destination.count -= 1;
        if destination.count == 0 {
            let hash = destination.key.hash(self.seed);
            self.by_key.remove(hash as u32, at);
            self.destinations.remove(at);
        }
    }

    /// Reads what the release of a port needs: see [`Index::near`].
    #[inline]
    pub(crate) fn near(&self, Held { at, port }: Held) -> u64 {
        let taken = self.taken.near(cell_hash(at, port));
        match self.destinations.get(at) {
            // The last one of its destination takes that with it.
            Destination { count: 1, key, .. } => taken ^ self.by_key.near(key.hash(self.seed) as u32),
            _ => taken,
        }
    }

    /// [`Allocator::release`] of what `allocate` gave.
    pub fn give_back(&mut self, taken: Taken) {
        self.release(Held { at: taken.at, port: taken.port });
    }

    /// Makes destinations full that are full in `other`, whose gateways are called what `nat` says; none of their ports
    /// is ever given back.
    pub(crate) fn pretend_full(&mut self, other: &Allocator, nat: impl Fn(u32) -> Option<u32>) {
        let share = other.steer.share(other.per_destination);
        let all = other.destinations.chunks.iter().flat_map(|chunk| chunk.iter());
        for found in all.filter(|found| found.exhausted || (found.count > 0 && found.count >= share)) {
            let Some(nat) = nat(found.key.nat) else { continue };
            let key = Key { nat, ..found.key };
            let at = self.destinations.insert(key);
            self.destinations.get_mut(at).exhausted = true;
            self.by_key.insert(key.hash(self.seed) as u32, at);
        }
    }

    /// Bindings of one address towards one destination that this worker holds.
    pub fn in_use(&self, nat: u32, address: u32, proto: Proto, dst: (u32, u16)) -> u32 {
        let key = Key::new(nat, address, proto, dst);
        self.find(&key, key.hash(self.seed)).map_or(0, |at| self.destinations.get(at).count)
    }

    fn take(&mut self, nat: u32, address: u32, proto: Proto, client: u64, dst: (u32, u16)) -> Option<Taken> {
        let key = Key::new(nat, address, proto, dst);
        let hash = key.hash(self.seed);
        let known = self.find(&key, hash);
        let count = known.map_or(0, |at| self.destinations.get(at).count);
        if count >= self.steer.share(self.per_destination)
            || known.is_some_and(|at| self.destinations.get(at).exhausted)
        {
            return None;
        }
        let tuple = FiveTuple { proto, src: address.into(), src_port: 0, dst: dst.0.into(), dst_port: dst.1 };
        let free = ports(mix(client ^ hash, self.seed))
            .filter(|&port| known.is_none_or(|at| self.taken.find(cell_hash(at, port), |other| other == at).is_none()))
            .find(|&port| self.steer.is_mine(&with_port(tuple, port)));
        let Some(port) = free else {
            // Not to be searched again before one is given back.
            if let Some(at) = known {
                self.destinations.get_mut(at).exhausted = true;
            }
            return None;
        };
        let at = known.unwrap_or_else(|| {
            let at = self.destinations.insert(key);
            self.by_key.insert(hash as u32, at);
            at
        });
        self.destinations.get_mut(at).count += 1;
        self.taken.insert(cell_hash(at, port), at);
        Some(Taken { address, port, at })
    }

    fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        self.by_key.find(hash as u32, |at| self.destinations.get(at).key == *key)
    }
}

/// The tuple of a translated packet. A ping has its identifier in both ports.
fn with_port(tuple: FiveTuple, port: u16) -> FiveTuple {
    let dst_port = if tuple.proto == Proto::ICMP { port } else { tuple.dst_port };
    FiveTuple { src_port: port, dst_port, ..tuple }
}

/// All ports from `FIRST_PORT` on, each once: any odd step goes round all 65,536 numbers. Start and step differ from
/// client to client, so that ports that are taken stand in nobody's way as a block.
fn ports(random: u64) -> impl Iterator<Item = u16> {
    let (start, step) = (random as u16, (random >> 16) as u16 | 1);
    (0..=u16::MAX).map(move |n| start.wrapping_add(n.wrapping_mul(step))).filter(|port| *port >= FIRST_PORT)
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

/// Two ports of one destination have different hashes, because every step from the port can be undone. So a cell, hash
/// and destination, says which port it is without a record of its own.
fn cell_hash(destination: u32, port: u16) -> u32 {
    let mut x = u32::from(port).wrapping_mul(0x9e37_79b1) ^ destination.wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x ^ x >> 15
}

fn mix(x: u64, seed: u64) -> u64 {
    let wide = u128::from(x ^ 0x9e37_79b9_7f4a_7c15) * u128::from(seed | 0xa076_1d64_78bd_642f);
    (wide as u64) ^ (wide >> 64) as u64
}

/// Records at numbers that are used again; they never move.
struct Destinations {
    chunks: Vec<Box<[Destination]>>,
    /// Begin of the list of free ones.
    free: u32,
}

#[derive(Clone, Copy)]
struct Destination {
    key: Key,
    /// Bindings; 0 in free ones.
    count: u32,
    /// In free ones: the next.
    next: u32,
    /// No port is left for this worker, though its share is not used up.
    exhausted: bool,
}

const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;
const END: u32 = u32::MAX;

impl Destinations {
    fn new() -> Destinations {
        Destinations { chunks: Vec::new(), free: END }
    }

    fn insert(&mut self, key: Key) -> u32 {
        if self.free == END {
            let first = (self.chunks.len() * CHUNK) as u32;
            let nobody = Key { nat: 0, address: 0, dst: 0, dst_port: 0, proto: 0 };
            let chunk = (first + 1..=first + CHUNK as u32).map(|next| {
                let next = if next == first + CHUNK as u32 { END } else { next };
                Destination { key: nobody, count: 0, next, exhausted: false }
            });
            self.chunks.push(chunk.collect());
            self.free = first;
        }
        let at = self.free;
        self.free = self.get(at).next;
        *self.get_mut(at) = Destination { key, count: 0, next: END, exhausted: false };
        at
    }

    fn remove(&mut self, at: u32) {
        self.get_mut(at).next = self.free;
        self.free = at;
    }

    #[inline]
    fn get(&self, at: u32) -> &Destination {
        &self.chunks[(at >> CHUNK_BITS) as usize][at as usize & (CHUNK - 1)]
    }

    #[inline]
    fn get_mut(&mut self, at: u32) -> &mut Destination {
        &mut self.chunks[(at >> CHUNK_BITS) as usize][at as usize & (CHUNK - 1)]
    }
}

#[cfg(test)]
mod tests;
