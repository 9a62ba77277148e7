//! The flow table: what the engine remembers of connections.
//!
//! AWS keeps connection state per network interface. A flow between two ENIs is therefore one entry with two *sides*,
//! each found by the ENI and the tuple as that ENI sends it; where the way there and the way back pass different
//! ENIs, an entry has one side only. What gateways translate is the difference between one side's tuple and the other's
//! turned round, so a packet of either side is rewritten from the entry alone. Entries live in a slab that never moves; the index is open addressing over 32-bit
//! hashes, grown in steps of bounded work; the end of idle entries is found in buckets of a timer wheel.

use std::net::Ipv4Addr;

use super::event::Way;
use super::index::Index;
use super::nat::Taken;
use super::wheel::Wheel;
use crate::base::{FiveTuple, Instant, Proto};
use crate::wire::packet::Packet;

/// Identifies one side of a flow: which ENI, and the tuple as that ENI sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// The engine's own number of the ENI, which survives changes of the plan.
    pub(crate) port: u32,
    pub(crate) src: u32,
    pub(crate) dst: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) proto: u8,
    /// ICMP: the type of the request, with `ANSWERS` set for who answers it; so a request the other way with the
    /// same identifier is another flow. Else 0.
    class: u8,
}

impl FlowKey {
    /// The same side with other addresses and ports.
    pub(crate) fn with(self, port: u32, tuple: &FiveTuple) -> FlowKey {
        FlowKey {
            port,
            src: tuple.src.to_bits(),
            dst: tuple.dst.to_bits(),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
            ..self
        }
    }
}

const ANSWERS: u8 = 0x80;

impl FlowKey {
    /// The side of the ENI that sends this packet.
    #[inline]
    pub(crate) fn of(port: u32, packet: &Packet) -> FlowKey {
        let icmp = packet.icmp().map(|(kind, _)| kind);
        FlowKey::of_tuple(port, &packet.tuple(), icmp)
    }

    #[inline]
    pub(crate) fn of_tuple(port: u32, tuple: &FiveTuple, icmp: Option<u8>) -> FlowKey {
        let class = match icmp {
            None => 0,
            Some(0) => 8 | ANSWERS,
            Some(answer @ (14 | 16 | 18)) => (answer - 1) | ANSWERS,
            Some(kind) => kind & !ANSWERS,
        };
        FlowKey {
            port,
            src: tuple.src.to_bits(),
            dst: tuple.dst.to_bits(),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
            proto: tuple.proto.0,
            class,
        }
    }

    /// The side of the ENI that receives what this side sends.
    #[inline]
    pub(crate) fn mirrored(&self, port: u32) -> FlowKey {
        let class = if self.proto == Proto::ICMP.0 { self.class ^ ANSWERS } else { self.class };
        FlowKey {
            port,
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            class,
        }
    }

    pub(crate) fn tuple(&self) -> FiveTuple {
        FiveTuple {
            proto: Proto(self.proto),
            src: Ipv4Addr::from_bits(self.src),
            src_port: self.src_port,
            dst: Ipv4Addr::from_bits(self.dst),
            dst_port: self.dst_port,
        }
    }

    /// Two folded multiplications: well mixed and about 2 ns. The seed is the owner's.
    #[inline]
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let addrs = u64::from(self.src) << 32 | u64::from(self.dst);
        let ports = u64::from(self.src_port) << 48
            | u64::from(self.dst_port) << 32
            | u64::from(self.proto) << 24
            | u64::from(self.class) << 16;
        let a = fold(addrs ^ 0x9e37_79b9_7f4a_7c15, ports ^ seed ^ u64::from(self.port).rotate_left(40));
        fold(a ^ u64::from(self.port), 0xa076_1d64_78bd_642f)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// Packets of the initiator only, or a TCP handshake that is not finished.
    New,
    /// TCP after the handshake.
    Established,
    /// TCP after a FIN of each side, or a RST.
    Closing,
    /// UDP and ICMP: one request and perhaps its answer.
    Single,
    /// UDP with more than one exchange.
    Stream,
    /// Other protocols.
    Open,
}

impl FlowState {
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::New => "new",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Single => "single",
            FlowState::Stream => "stream",
            FlowState::Open => "open",
        }
    }
}

/// Which side of a flow: the initiator's or the target's.
pub(crate) type Side = usize;
pub(crate) const INITIATOR: Side = 0;
pub(crate) const TARGET: Side = 1;

/// Where packets of one side go, as decided under one generation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hop {
    /// Generation of the engine's tables under which `to` was decided; 0 is never.
    pub(crate) epoch: u32,
    /// Index of the ENI.
    pub(crate) to: u32,
    /// Larger packets ask the whole way.
    pub(crate) mtu: u16,
    /// Number of the [`Passage`] on this way.
    pub(crate) passage: u16,
}

/// What a way does to packets besides leading somewhere. Few differ, so flows keep a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Hops that count.
    pub(crate) ttl: u8,
    /// TCP's MSS is lowered to this; 0: untouched.
    pub(crate) mss: u16,
    pub(crate) latency_us: u32,
    pub(crate) shapes: [u16; 3],
}

/// A port of a NAT gateway that a flow holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Port number of the NAT gateway's ENI.
    pub(crate) nat: u32,
    /// Its private address.
    pub(crate) address: u32,
    pub(crate) port: u16,
    /// Where the allocator keeps it.
    pub(crate) at: u32,
}

impl Binding {
    pub(crate) fn new(nat: u32, taken: Taken) -> Binding {
        Binding { nat, address: taken.address, port: taken.port, at: taken.at }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The initiator's side and the target's.
    pub(crate) keys: [FlowKey; 2],
    pub(crate) nat: Option<Binding>,
    pub(crate) way: Way,
    /// One side's tuple is not the other's turned round.
    pub(crate) translated: bool,
    pub(crate) state: FlowState,
    /// Sides that are in the index.
    pub(crate) present: [bool; 2],
    /// Sides whose packets pass their ENI's security groups without asking the rules.
    pub(crate) tracked: [bool; 2],
    pub(crate) fin: [bool; 2],
    pub(crate) reset: bool,
    /// TCP ends at the target in a stack of ours.
    pub(crate) terminates: bool,
    /// The target is an interface endpoint's ENI, with idle times of its own.
    pub(crate) endpoint: bool,
    /// Counts against the table's bound: tracked at one side at least.
    counted: bool,
    live: bool,
    pub(crate) hop: [Hop; 2],
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) started: Instant,
    pub(crate) last: Instant,
    pub(crate) expires: Instant,
    hash: [u32; 2],
}

impl Flow {
    pub(crate) fn new(now: Instant, keys: [FlowKey; 2], state: FlowState) -> Flow {
        Flow {
            keys,
            nat: None,
            way: Way::Private,
            translated: keys[1] != keys[0].mirrored(keys[1].port),
            state,
            present: [true; 2],
            tracked: [true; 2],
            fin: [false; 2],
            reset: false,
            terminates: false,
            endpoint: false,
            counted: false,
            live: false,
            hop: [Hop::default(); 2],
            packets: [0; 2],
            bytes: [0; 2],
            started: now,
            last: now,
            expires: now,
            hash: [0; 2],
        }
    }
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowEnd {
    /// A FIN of each side.
    Fin,
    Reset,
    Idle,
    /// A new connection with the same addresses and ports.
    Replaced,
    /// An ENI of it is gone from the plan.
    EniGone,
}

const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;

/// All flows of a lab.
pub(crate) struct FlowTable {
    chunks: Vec<Box<[Flow]>>,
    free: Vec<u32>,
    used: usize,
    counted: usize,
    bound: usize,
    index: Index,
    wheel: Wheel,
    seed: u64,
}

/// A flow that no side tracks needs no entry; they have as many of their own before they go without.
const UNTRACKED_ALLOWANCE: usize = 2;

/// Entries that one call to `expire` ends at most: the packets of the next batch wait for it.
const EXPIRE_BATCH: usize = 2_048;

impl FlowTable {
    /// `bound`: entries that are tracked at one side at least.
    pub(crate) fn new(bound: usize, seed: u64) -> FlowTable {
        FlowTable {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            counted: 0,
            bound: bound.min((u32::MAX >> 2) as usize),
            index: Index::new(),
            wheel: Wheel::new(),
            seed,
        }
    }

    pub(crate) fn set_bound(&mut self, bound: usize) {
        self.bound = bound.min((u32::MAX >> 2) as usize);
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.counted >= self.bound
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
        let slot = self.index.find(hash, |slot| self.get(slot >> 1).keys[(slot & 1) as Side] == *key)?;
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

    /// May a flow with (or without) a tracked side be entered now?
    pub(crate) fn has_room(&self, tracked: bool) -> bool {
        let untracked = self.used - self.counted;
        if tracked { self.counted < self.bound } else { untracked < self.bound.saturating_mul(UNTRACKED_ALLOWANCE) }
    }

    /// Enters a flow; the caller has seen `has_room` and that no present side is there already.
    pub(crate) fn insert(&mut self, mut flow: Flow) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| self.grow());
        flow.counted = flow.tracked[0] && flow.present[0] || flow.tracked[1] && flow.present[1];
        flow.live = true;
        for side in [INITIATOR, TARGET] {
            flow.hash[side] = self.hash(&flow.keys[side]) as u32;
            if flow.present[side] {
                self.index.insert(flow.hash[side], id << 1 | side as u32);
            }
        }
        self.used += 1;
        self.counted += usize::from(flow.counted);
        self.wheel.schedule(id, flow.expires);
        *self.get_mut(id) = flow;
        id
    }

    /// Takes a flow out and hands back what it was.
    pub(crate) fn remove(&mut self, id: u32) -> Flow {
        let flow = self.get(id).clone();
        debug_assert!(flow.live);
        for side in [INITIATOR, TARGET] {
            if flow.present[side] {
                self.index.remove(flow.hash[side], id << 1 | side as u32);
            }
        }
        self.wheel.cancel(id);
        self.get_mut(id).live = false;
        self.used -= 1;
        self.counted -= usize::from(flow.counted);
        self.free.push(id);
        flow
    }

    /// A side's tracking changed: keeps the count of tracked entries true.
    pub(crate) fn recount(&mut self, id: u32) {
        let flow = self.get_mut(id);
        let counted = flow.tracked[0] && flow.present[0] || flow.tracked[1] && flow.present[1];
        let before = std::mem::replace(&mut flow.counted, counted);
        self.counted = self.counted + usize::from(counted) - usize::from(before);
    }

    /// Sets when a flow ends. An end that comes later than before costs nothing: the wheel looks again when the old
    /// one is due.
    #[inline]
    pub(crate) fn set_expiry(&mut self, id: u32, expires: Instant) {
        let flow = self.get_mut(id);
        let sooner = expires < flow.expires;
        flow.expires = expires;
        if sooner {
            self.wheel.cancel(id);
            self.wheel.schedule(id, expires);
        }
    }

    /// Ends flows whose time has come, at most a batch of them; `next_deadline` tells when to come again.
    pub(crate) fn expire(&mut self, now: Instant, mut ended: impl FnMut(Flow)) {
        for _ in 0..EXPIRE_BATCH {
            let Some(id) = self.wheel.next_due(now) else { return };
            let expires = self.get(id).expires;
            if expires <= now {
                ended(self.remove(id));
            } else {
                self.wheel.schedule(id, expires);
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.wheel.next_deadline()
    }

    /// Every flow with its id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        let flows = self.chunks.iter().flat_map(|chunk| chunk.iter());
        flows.enumerate().filter(|(_, flow)| flow.live).map(|(id, flow)| (id as u32, flow))
    }

    fn grow(&mut self) -> u32 {
        let first = (self.chunks.len() << CHUNK_BITS) as u32;
        let nobody = FlowKey { port: 0, src: 0, dst: 0, src_port: 0, dst_port: 0, proto: 0, class: 0 };
        let empty = Flow::new(Instant::ZERO, [nobody; 2], FlowState::New);
        self.chunks.push(vec![empty; CHUNK].into_boxed_slice());
        self.wheel.make_room(CHUNK);
        self.free.reserve(CHUNK);
        self.free.extend((first + 1..first + CHUNK as u32).rev());
        first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u32) -> FlowKey {
        let tuple =
            FiveTuple::tcp(Ipv4Addr::from_bits(0x0a00_0000 + n / 7), (n % 7) as u16, Ipv4Addr::new(10, 9, 9, 9), 443);
        FlowKey::of_tuple(n % 3, &tuple, None)
    }

    fn flow(n: u32, now: Instant, life: Duration) -> Flow {
        let mut flow = Flow::new(now, [key(n), key(n).mirrored(77)], FlowState::New);
        flow.expires = now + life;
        flow
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
                            table.set_expiry(id, *expires);
                        }
                    }
                    Op::Pass(ms) => {
                        now = now + Duration::from_millis(ms);
                        let mut ended = 0;
                        table.expire(now, |flow| { assert!(flow.expires <= now); ended += 1; });
                        let before = model.len();
                        model.retain(|_, expires| *expires > now);
                        // A bucket that is not over yet may hold flows that are.
                        prop_assert!(ended <= before - model.len());
                        let late: Vec<u32> = table.iter().filter(|(_, f)| f.expires <= now).map(|(id, _)| id).collect();
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
    fn the_bound_counts_tracked_flows_only() {
        let mut table = FlowTable::new(2, 0);
        let now = Instant::ZERO;
        table.insert(flow(1, now, Duration::from_secs(1)));
        let mut open = flow(2, now, Duration::from_secs(1));
        open.tracked = [false; 2];
        let open = table.insert(open);
        assert!(table.has_room(true) && !table.is_full());
        table.get_mut(open).tracked[TARGET] = true;
        table.recount(open);
        assert!(!table.has_room(true) && table.is_full() && table.has_room(false));
        table.remove(open);
        assert!(table.has_room(true));
    }

    #[test]
    fn a_ping_the_other_way_with_the_same_identifier_is_another_flow() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(10, 0, 0, 5));
        let echo = |src, dst| FiveTuple { proto: Proto::ICMP, src, src_port: 9, dst, dst_port: 9 };
        let request = FlowKey::of_tuple(1, &echo(a, b), Some(8));
        assert_eq!(request.mirrored(2), FlowKey::of_tuple(2, &echo(b, a), Some(0)));
        assert_ne!(request.mirrored(2), FlowKey::of_tuple(2, &echo(b, a), Some(8)));
    }
}
