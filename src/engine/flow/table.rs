//! All flows of a lab. Entries live in a slab that never moves; the index is open addressing over 32-bit hashes, grown
//! in steps of bounded work; the end of idle entries is found in buckets of a timer wheel.

use std::hint::black_box;

use super::{Flow, FlowKey, FlowState, INITIATOR, LIVE, PRESENT, RESTS, Side, TARGET};
use crate::base::Instant;
use crate::engine::index::Index;
use crate::engine::wheel::Wheel;

const CHUNK_BITS: u32 = 9;
/// Entries that the slab grows by.
const CHUNK: usize = 1 << CHUNK_BITS;

/// No entry.
const NIL: u32 = u32::MAX;

/// A number of an entry and a bit for the side fit into 31 bits, and the wheel needs one more.
const MOST: usize = 1 << 30;

pub(crate) struct FlowTable {
    chunks: Vec<Box<[Flow; CHUNK]>>,
    /// First of the free entries; each has the next in place of its initiator's port.
    free: u32,
    used: usize,
    /// Of them, bindings of NAT gateways that no flow holds.
    apart: usize,
    /// Flows of which nothing else is left.
    resting: usize,
    /// By port of an ENI: sides that it tracks, and flows that it began and nobody tracks.
    charged: Vec<[u32; 2]>,
    /// Entries at most.
    bound: usize,
    index: Index,
    wheel: Wheel,
    seed: u64,
}

/// Entries that one call to `expire` ends at most: the packets of the next batch wait for it.
const EXPIRE_BATCH: usize = 2_048;

/// Entries that are looked at together when they may have ended: what each needs from memory is read before the first
/// is taken out, so that the waits are one and not one after another.
const TOGETHER: usize = 32;

/// What becomes of an entry when the time of somebody who knows of it is over.
pub(crate) enum Due {
    /// Others know of it, until then.
    Later(Instant),
    /// Only a NAT gateway does.
    Rests(Instant),
    Over,
}

/// What else the end of a flow changes.
pub(crate) trait Ends {
    fn due(&mut self, _: &mut Flow) -> Due {
        Due::Over
    }

    /// Reads what `ended` will need from memory, and only that.
    fn near(&self, _: &Flow) -> u64 {
        0
    }

    fn ended(&mut self, flow: Flow);
}

impl FlowTable {
    /// `bound`: entries of all ENIs together.
    pub(crate) fn new(bound: usize, seed: u64) -> FlowTable {
        FlowTable {
            chunks: Vec::new(),
            free: NIL,
            used: 0,
            apart: 0,
            resting: 0,
            charged: Vec::new(),
            bound: bound.min(MOST),
            index: Index::new(),
            wheel: Wheel::new(),
            seed,
        }
    }

    /// Flows.
    pub(crate) fn len(&self) -> usize {
        self.used - self.apart - self.resting
    }

    /// Entries that are bindings only.
    #[inline]
    pub(crate) fn apart(&self) -> usize {
        self.apart
    }

    /// Flows that the ENI of a port tracks.
    #[inline]
    pub(crate) fn tracked(&self, port: u32) -> u32 {
        self.charged.get(port as usize).map_or(0, |charged| charged[0])
    }

    /// Flows that the ENI of a port began and nobody tracks.
    pub(crate) fn untracked(&self, port: u32) -> u32 {
        self.charged.get(port as usize).map_or(0, |charged| charged[1])
    }

    /// Behave as if an ENI tracked so many.
    pub(crate) fn pretend(&mut self, port: u32, tracked: u32) {
        self.charge(port)[0] = tracked;
    }

    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(self.seed)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The entry and side of a key, expired or not.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey) -> Option<(u32, Side)> {
        let hash = key.hash(self.seed) as u32;
        let slot = self.index.find(hash, |slot| self.get(slot >> 1).key((slot & 1) as Side) == *key)?;
        Some((slot >> 1, (slot & 1) as Side))
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Flow {
        &self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK - 1)]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Flow {
        &mut self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK - 1)]
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used < self.bound
    }

    /// Enters a flow; the caller has seen `has_room` and that no present side is there already.
    pub(crate) fn insert(&mut self, mut flow: Flow) -> u32 {
        if self.free == NIL {
            self.grow();
        }
        let id = self.free;
        self.free = self.get(id).ports[INITIATOR];
        flow.set(LIVE, true);
        for side in [INITIATOR, TARGET] {
            if flow.is_present(side) {
                self.index.insert(self.hash(&flow.key(side)) as u32, id << 1 | side as u32);
            }
        }
        self.used += 1;
        self.apart += usize::from(flow.is_apart());
        self.charge_for(&flow, 1);
        self.wheel.schedule(id, flow.expires());
        *self.get_mut(id) = flow;
        id
    }

    /// Takes a flow out and hands back what it was.
    pub(crate) fn remove(&mut self, id: u32) -> Flow {
        self.take_out(id, self.hashes(id))
    }

    /// Of both sides, as the index has them.
    #[inline]
    fn hashes(&self, id: u32) -> [u32; 2] {
        let flow = self.get(id);
        [INITIATOR, TARGET].map(|side| self.hash(&flow.key(side)) as u32)
    }

    fn take_out(&mut self, id: u32, hashes: [u32; 2]) -> Flow {
        let flow = self.get(id).clone();
        debug_assert!(flow.has(LIVE));
        for side in [INITIATOR, TARGET] {
            if flow.is_present(side) {
                self.index.remove(hashes[side], id << 1 | side as u32);
            }
        }
        self.wheel.cancel(id);
        self.used -= 1;
        self.apart -= usize::from(flow.is_apart());
        self.resting -= usize::from(flow.rests());
        self.charge_for(&flow, u32::MAX);
        let free = std::mem::replace(&mut self.free, id);
        let entry = self.get_mut(id);
        entry.set(LIVE, false);
        entry.ports[INITIATOR] = free;
        flow
    }

    /// The side that it had not is there, and no other entry's; see [`FlowTable::track`].
    pub(crate) fn remember_side(&mut self, id: u32, side: Side) {
        debug_assert!(!self.get(id).is_present(side));
        let hash = self.hash(&self.get(id).key(side)) as u32;
        self.index.insert(hash, id << 1 | side as u32);
        self.change(id, |flow| {
            flow.set_tracked(side, false);
            flow.set(PRESENT << side, true);
        });
    }

    /// One of its sides is no more; the other is.
    pub(crate) fn forget_side(&mut self, id: u32, side: Side) {
        debug_assert!(self.get(id).is_present(side) && self.get(id).is_present(side ^ 1));
        let hash = self.hash(&self.get(id).key(side)) as u32;
        self.index.remove(hash, id << 1 | side as u32);
        self.change(id, |flow| {
            flow.set(PRESENT << side, false);
            flow.forget_courses();
        });
    }

    /// Is a side of this flow tracked from now on?
    pub(crate) fn track(&mut self, id: u32, side: Side, on: bool) {
        if self.get(id).is_tracked(side) != on {
            self.change(id, |flow| flow.set_tracked(side, on));
        }
        if self.get(id).rests() {
            // Times have become longer.
            self.resting -= 1;
            self.change(id, |flow| flow.set(RESTS, false));
        }
    }

    /// A change of what ENIs are charged for.
    fn change(&mut self, id: u32, change: impl FnOnce(&mut Flow)) {
        let before = self.get(id).clone();
        self.charge_for(&before, u32::MAX);
        change(self.get_mut(id));
        let after = self.get(id).clone();
        self.charge_for(&after, 1);
    }

    /// `more`: 1, or less by one.
    fn charge_for(&mut self, flow: &Flow, more: u32) {
        if flow.rests() {
            return;
        }
        for side in [INITIATOR, TARGET] {
            if flow.is_present(side) && flow.is_tracked(side) {
                let charged = &mut self.charge(flow.port(side))[0];
                *charged = charged.wrapping_add(more);
            }
        }
        if !flow.is_tracked_somewhere() {
            let charged = &mut self.charge(flow.port(INITIATOR))[1];
            *charged = charged.wrapping_add(more);
        }
    }

    #[inline]
    fn charge(&mut self, port: u32) -> &mut [u32; 2] {
        let port = port as usize;
        if port >= self.charged.len() {
            // Once for every ENI there ever is.
            self.charged.resize(port + 1, [0; 2]);
        }
        &mut self.charged[port]
    }

    /// A packet now, and so many milliseconds after it something of the flow is over. That it comes later than before
    /// costs nothing: the wheel looks again when the old time is due. One that had come already was looked at.
    #[inline]
    pub(crate) fn touch(&mut self, id: u32, now: Instant, life: u32) {
        let flow = self.get_mut(id);
        let before = flow.expires();
        flow.last = now;
        flow.set_life(life);
        let expires = flow.expires();
        if expires < before || before <= now {
            self.wheel.cancel(id);
            self.wheel.schedule(id, expires);
        }
    }

    /// Ends flows whose time has come, at most a batch of them; `next_deadline` tells when to come again.
    pub(crate) fn expire(&mut self, now: Instant, ends: &mut impl Ends) {
        let (mut due, mut over) = ([0; TOGETHER], [(0, [0; 2]); TOGETHER]);
        for _ in 0..EXPIRE_BATCH / TOGETHER {
            let found = self.wheel.take_due(now, &mut due);
            if found == 0 {
                return;
            }
            let mut ending = 0;
            for &id in &due[..found] {
                let flow = self.get_mut(id);
                let expires = flow.expires();
                let next = if expires <= now { ends.due(flow) } else { Due::Later(expires) };
                match next {
                    Due::Later(at) => self.wheel.schedule(id, at),
                    Due::Rests(at) => {
                        self.resting += usize::from(!flow.rests());
                        self.change(id, |flow| flow.set(RESTS, true));
                        self.wheel.schedule(id, at);
                    }
                    Due::Over => {
                        over[ending] = (id, self.hashes(id));
                        ending += 1;
                    }
                }
            }
            let over = &over[..ending];
            let read = over.iter().fold(0, |read, &(id, [there, back])| {
                read ^ self.index.near(there) ^ self.index.near(back) ^ ends.near(self.get(id))
            });
            black_box(read);
            for &(id, hashes) in over {
                ends.ended(self.take_out(id, hashes));
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.wheel.next_deadline()
    }

    /// Every flow with its id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        let flows = self.chunks.iter().flat_map(|chunk| chunk.iter());
        flows.enumerate().filter(|(_, flow)| flow.has(LIVE)).map(|(id, flow)| (id as u32, flow))
    }

    /// No way that was decided is followed any more, whatever its epoch.
    pub(crate) fn forget_courses(&mut self) {
        self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut()).for_each(Flow::forget_courses);
    }

    #[cold]
    fn grow(&mut self) {
        let first = (self.chunks.len() << CHUNK_BITS) as u32;
        let nobody = FlowKey { port: 0, src: 0, dst: 0, src_port: 0, dst_port: 0, proto: 0, class: 0 };
        let empty = Flow::new(Instant::ZERO, [nobody; 2], FlowState::New);
        self.chunks.push(Box::new(std::array::from_fn(|at| {
            let next = if at + 1 == CHUNK { self.free } else { first + at as u32 + 1 };
            Flow { ports: [next, 0], ..empty.clone() }
        })));
        self.wheel.make_room(CHUNK);
        self.free = first;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{FlowState, INITIATOR, TARGET};
    use super::*;
    use crate::base::FiveTuple;

    fn key(n: u32) -> FlowKey {
        let tuple =
            FiveTuple::tcp(Ipv4Addr::from_bits(0x0a00_0000 + n / 7), (n % 7) as u16, Ipv4Addr::new(10, 9, 9, 9), 443);
        FlowKey::of_tuple(n % 3, &tuple, None)
    }

    fn flow(n: u32, now: Instant, life: Duration) -> Flow {
        let mut flow = Flow::new(now, [key(n), key(n).mirrored(77)], FlowState::New);
        flow.set_life(life.as_millis() as u32);
        flow
    }

    struct Each<F>(F);

    impl<F: FnMut(Flow)> Ends for Each<F> {
        fn ended(&mut self, flow: Flow) {
            (self.0)(flow);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32, u64),
        Remove(u32),
        Later(u32, u64),
        Pass(u64),
    }

    proptest! {
        #[test]
        fn the_table_does_what_a_map_does(ops in prop::collection::vec(prop_oneof![
            4 => (0u32..2000, 1u64..400_000).prop_map(|(n, ms)| Op::Insert(n, ms)),
            2 => (0u32..2000).prop_map(Op::Remove),
            1 => (0u32..2000, 1u64..400_000).prop_map(|(n, ms)| Op::Later(n, ms)),
            1 => (1u64..200_000).prop_map(Op::Pass),
        ], 1..600)) {
            let mut table = FlowTable::new(100_000, 5);
            let mut model: HashMap<u32, Instant> = HashMap::new();
            let mut now = Instant::from_millis(1);
            for op in ops {
                match op {
                    Op::Insert(n, ms) => {
                        if let std::collections::hash_map::Entry::Vacant(free) = model.entry(n) {
                            table.insert(flow(n, now, Duration::from_millis(ms)));
                            free.insert(now + Duration::from_millis(ms));
                        }
                    }
                    Op::Remove(n) => {
                        if model.remove(&n).is_some() {
                            let (id, _) = table.find(&key(n)).expect("is there");
                            table.remove(id);
                        }
                    }
                    Op::Later(n, ms) => {
                        if let Some(expires) = model.get_mut(&n) {
                            *expires = now + Duration::from_millis(ms);
                            let (id, _) = table.find(&key(n)).expect("is there");
                            table.touch(id, now, ms as u32);
                        }
                    }
                    Op::Pass(ms) => {
                        now = now + Duration::from_millis(ms);
                        let mut ended = 0;
                        table.expire(now, &mut Each(|flow: Flow| { assert!(flow.expires() <= now); ended += 1; }));
                        let before = model.len();
                        model.retain(|_, expires| *expires > now);
                        // A bucket that is not over yet may hold flows that are.
                        prop_assert!(ended <= before - model.len());
                        let late: Vec<u32> = table.iter().filter(|(_, f)| f.expires() <= now).map(|(id, _)| id).collect();
                        for id in late {
                            prop_assert!(table.next_deadline() <= now + Duration::from_millis(140));
                            table.remove(id);
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for n in 0..2000 {
                prop_assert_eq!(table.find(&key(n)).map(|f| f.1), model.get(&n).map(|_| INITIATOR));
                let mirrored = key(n).mirrored(77);
                let found = table.find(&mirrored);
                prop_assert_eq!(found.map(|f| f.1), model.get(&n).map(|_| TARGET));
            }
        }
    }

    #[test]
    fn each_eni_is_charged_for_what_it_tracks_or_began() {
        let mut table = FlowTable::new(3, 0);
        let now = Instant::ZERO;
        let [a, b] = [table.insert(flow(1, now, Duration::from_secs(1))), {
            let mut open = flow(4, now, Duration::from_secs(1));
            open.set_tracked(INITIATOR, false);
            open.set_tracked(TARGET, false);
            table.insert(open)
        }];
        // `key` gives both to ENI 1.
        let charged = |table: &FlowTable| [1, 77].map(|port| [table.tracked(port), table.untracked(port)]);
        assert_eq!(charged(&table), [[1, 1], [1, 0]]);
        table.track(b, TARGET, true);
        assert_eq!(charged(&table), [[1, 0], [2, 0]]);
        table.forget_side(a, TARGET);
        table.track(b, TARGET, false);
        assert_eq!(charged(&table), [[1, 1], [0, 0]]);
        table.remember_side(a, TARGET);
        table.track(a, TARGET, true);
        assert_eq!(charged(&table), [[1, 1], [1, 0]]);
        assert!(table.has_room());
        table.insert(flow(7, now, Duration::from_secs(1)));
        assert!(!table.has_room());
        for id in [a, b] {
            table.remove(id);
        }
        assert_eq!(charged(&table), [[1, 0], [1, 0]]);
    }
}
