//! Counters that one thread writes and others read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with one writer: the write is a plain load and store, never a locked instruction.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this; a second writer would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What crossed one ENI. A superframe counts as the packets it stands for.
#[derive(Debug, Default)]
pub struct EniCounters {
    pub packets_in: Counter,
    pub bytes_in: Counter,
    pub packets_out: Counter,
    pub bytes_out: Counter,
    pub dropped: Counter,
    /// Bytes in and out by the way they took, in the order of `engine::Way`.
    pub ways: [Counter; WAYS],
}

/// What crossed one ENI by each way: bytes, in the order of `engine::Way`.
pub const WAYS: usize = 4;

/// What a NAT gateway did, as CloudWatch's `AWS/NATGateway` names it. Source is the client's side.
#[derive(Debug, Default)]
pub struct NatCounters {
    pub packets_from_source: Counter,
    pub bytes_from_source: Counter,
    pub packets_from_destination: Counter,
    pub bytes_from_destination: Counter,
    pub active: Counter,
    pub attempts: Counter,
    pub established: Counter,
    pub port_errors: Counter,
    pub idle_timeouts: Counter,
    pub drops: Counter,
}

impl NatCounters {
    /// Metric names and values. Nothing is lost between coming in and going out.
    pub fn metrics(&self) -> [(&'static str, u64); 14] {
        let (from_source, source_bytes) = (self.packets_from_source.get(), self.bytes_from_source.get());
        let (from_there, there_bytes) = (self.packets_from_destination.get(), self.bytes_from_destination.get());
        [
            ("ActiveConnectionCount", self.active.get()),
            ("ConnectionAttemptCount", self.attempts.get()),
            ("ConnectionEstablishedCount", self.established.get()),
            ("ErrorPortAllocation", self.port_errors.get()),
            ("IdleTimeoutCount", self.idle_timeouts.get()),
            ("PacketsDropCount", self.drops.get()),
            ("PacketsInFromSource", from_source),
            ("BytesInFromSource", source_bytes),
            ("PacketsOutToDestination", from_source),
            ("BytesOutToDestination", source_bytes),
            ("PacketsInFromDestination", from_there),
            ("BytesInFromDestination", there_bytes),
            ("PacketsOutToSource", from_there),
            ("BytesOutToSource", there_bytes),
        ]
    }
}
