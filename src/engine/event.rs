//! What the engine has to tell: drops, flows and flows that ended, counters. All bounded, all made beforehand.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::flow::{FlowEnd, FlowState};
use super::index::Index;
use super::verdict::{Decider, Direction, DropCode, DropRecord, Whose};
use crate::base::counters::{Counter, EniCounters, NatCounters, WAYS};
use crate::base::{EniIx, FiveTuple, Instant};

/// How bytes left the sender's network: the proof that traffic stayed private, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// By private addresses all the way: inside VPCs, over peerings, transit gateways, VPNs, to interface endpoints.
    Private,
    /// To a public service address by a gateway endpoint.
    GatewayEndpoint,
    /// By a NAT gateway.
    Nat,
    /// By an Internet gateway under a public address of its own, or from outside.
    Internet,
}

impl Way {
    pub const ALL: [Way; WAYS] = [Way::Private, Way::GatewayEndpoint, Way::Nat, Way::Internet];

    pub const fn as_str(self) -> &'static str {
        match self {
            Way::Private => "private",
            Way::GatewayEndpoint => "gateway-endpoint",
            Way::Nat => "nat",
            Way::Internet => "internet",
        }
    }
}

/// A flow as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSnapshot {
    pub initiator: EniIx,
    pub target: EniIx,
    /// As the initiator sends it.
    pub tuple: FiveTuple,
    pub state: FlowState,
    /// Remembered by the security groups of one end at least.
    pub tracked: bool,
    /// Of the initiator. A superframe counts as the packets it stands for.
    pub packets_out: u64,
    /// IP bytes of the initiator.
    pub bytes_out: u64,
    /// Of the target.
    pub packets_in: u64,
    pub bytes_in: u64,
    pub way: Way,
    pub started: Instant,
    pub last: Instant,
    /// When it ends if nothing more comes.
    pub expires: Instant,
}

/// A flow that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowClosed {
    pub at: Instant,
    pub end: FlowEnd,
    pub flow: FlowSnapshot,
}

/// Everything that is counted, for readers on other threads. ENIs in the order of the plan.
#[derive(Debug)]
pub struct Counters {
    pub enis: Vec<Arc<EniCounters>>,
    /// NAT gateways in the order of the plan.
    pub nats: Vec<Arc<NatCounters>>,
    /// Packets dropped, by `DropCode as usize`.
    pub drops: Arc<[Counter]>,
    /// Flows that ended, by reason, were not taken in time and were forgotten.
    pub closed_lost: Arc<Counter>,
}

impl Counters {
    pub(crate) fn new(enis: usize, nats: usize) -> Counters {
        Counters {
            enis: (0..enis).map(|_| Arc::default()).collect(),
            nats: (0..nats).map(|_| Arc::default()).collect(),
            drops: DropCode::ALL.iter().map(|_| Counter::default()).collect(),
            closed_lost: Arc::default(),
        }
    }

    /// Packets dropped with this code.
    pub fn dropped(&self, code: DropCode) -> u64 {
        self.drops[code as usize].get()
    }
}

/// The drops that were seen, equal ones counted together. When it is full, the record that began first gives way to the
/// next, and is added to the sum of its sender, code and decider ([`DropRecord::is_sum`]): a scan of ports hides
/// neither how much was dropped nor another code.
pub struct DropLog {
    sums: Vec<DropRecord>,
    records: Vec<DropRecord>,
    hashes: Vec<u32>,
    index: Index,
    next: usize,
    bound: usize,
}

/// Kinds of drops that are summed: sender, code, decider and protocol.
const SUMS: usize = 256;

/// What makes two drops equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DropKey {
    pub(crate) from: EniIx,
    pub(crate) tuple: FiveTuple,
    pub(crate) code: DropCode,
    pub(crate) decider: Decider,
    pub(crate) direction: Direction,
}

impl DropLog {
    pub(crate) fn new(bound: usize) -> DropLog {
        let bound = bound.max(1);
        DropLog {
            sums: Vec::with_capacity(SUMS),
            records: Vec::with_capacity(bound),
            hashes: Vec::with_capacity(bound),
            index: Index::new(),
            next: 0,
            bound,
        }
    }

    pub(crate) fn note(&mut self, now: Instant, key: DropKey, whose: Whose, packets: u64) {
        let hash = hash_of(&key);
        let records = &self.records;
        if let Some(at) = self.index.find(hash, |at| key_of(&records[at as usize]) == key) {
            let record = &mut self.records[at as usize];
            record.last = now;
            record.whose = whose.or(record.whose);
            record.count += packets;
            return;
        }
        let DropKey { from, tuple, code, decider, direction } = key;
        let record = DropRecord { first: now, last: now, from, tuple, whose, code, decider, direction, count: packets };
        if self.records.len() < self.bound {
            self.index.insert(hash, self.records.len() as u32);
            self.records.push(record);
            self.hashes.push(hash);
            return;
        }
        let at = self.next;
        self.next = (at + 1) % self.bound;
        self.index.remove(self.hashes[at], at as u32);
        self.index.insert(hash, at as u32);
        let old = std::mem::replace(&mut self.records[at], record);
        self.hashes[at] = hash;
        self.sum(old);
    }

    /// Adds a record that gives way to those of its kind. There are few kinds; of more than [`SUMS`] only those that
    /// came first are summed.
    #[cold]
    fn sum(&mut self, old: DropRecord) {
        let kind = DropRecord { tuple: DropRecord::any(old.tuple.proto), whose: Whose::default(), ..old };
        let key = key_of(&kind);
        if let Some(sum) = self.sums.iter_mut().find(|sum| key_of(sum) == key) {
            sum.first = sum.first.min(kind.first);
            sum.last = sum.last.max(kind.last);
            sum.count += kind.count;
        } else if self.sums.len() < SUMS {
            self.sums.push(kind);
        }
    }

    /// Sums of what gave way, and then the records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DropRecord> {
        let (newer, older) = self.records.split_at(self.next.min(self.records.len()));
        self.sums.iter().chain(older).chain(newer)
    }
}

fn key_of(record: &DropRecord) -> DropKey {
    let DropRecord { from, tuple, code, decider, direction, .. } = *record;
    DropKey { from, tuple, code, decider, direction }
}

fn hash_of(key: &DropKey) -> u32 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    key.hash(&mut hasher);
    (hasher.0 ^ hasher.0 >> 32) as u32
}

/// FNV-1a: drops are few, and the order of records must not depend on the run.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Flows that ended and were not taken yet. When it is full the oldest is lost and counted.
pub(crate) struct ClosedLog {
    queue: VecDeque<FlowClosed>,
    bound: usize,
}

impl ClosedLog {
    pub(crate) fn new(bound: usize) -> ClosedLog {
        ClosedLog { queue: VecDeque::with_capacity(bound), bound }
    }

    /// False if one was lost for it.
    pub(crate) fn push(&mut self, closed: FlowClosed) -> bool {
        let room = self.queue.len() < self.bound;
        if !room {
            self.queue.pop_front();
        }
        if self.bound > 0 {
            self.queue.push_back(closed);
        }
        room
    }

    pub(crate) fn pop(&mut self) -> Option<FlowClosed> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn key(port: u16) -> DropKey {
        let tuple = FiveTuple::tcp(Ipv4Addr::new(10, 0, 0, 4), port, Ipv4Addr::new(10, 0, 0, 5), 443);
        let decider = Decider::SecurityGroups(EniIx(1));
        DropKey { from: EniIx(0), tuple, code: DropCode::SgIngress, decider, direction: Direction::Ingress }
    }

    #[test]
    fn equal_drops_are_counted_and_the_oldest_record_gives_way() {
        let mut log = DropLog::new(3);
        for port in [1, 2, 2, 3, 2, 4] {
            log.note(Instant(u64::from(port)), key(port), Whose::default(), 2);
        }
        let seen: Vec<(u16, u64)> = log.iter().map(|r| (r.tuple.src_port, r.count)).collect();
        assert_eq!(seen, [(0, 2), (2, 6), (3, 2), (4, 2)], "what gave way is in the sum");
        assert_eq!(log.iter().map(DropRecord::is_sum).collect::<Vec<_>>(), [true, false, false, false]);
        for port in 5..100 {
            log.note(Instant(u64::from(port)), key(port), Whose::default(), 2);
        }
        let seen: Vec<(u16, u64)> = log.iter().map(|r| (r.tuple.src_port, r.count)).collect();
        assert_eq!(seen, [(0, 2 + 6 + 2 + 2 + 92 * 2), (97, 2), (98, 2), (99, 2)]);
    }
}
