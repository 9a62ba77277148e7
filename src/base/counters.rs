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
}
