//! A timer wheel: which entries may have come to their end.
//!
//! Buckets of 134 ms (2^27 ns) and 1,024 of them: 137 seconds. What ends later waits in the last bucket and is looked at again when
//! that is due, so a flow of five days costs one look every two minutes. Precision is a bucket's: nothing is due early,
//! and nothing later than one bucket after its time.

use crate::base::Instant;

const BUCKET_BITS: u32 = 27;
const BUCKETS: usize = 1_024;
const NIL: u32 = u32::MAX;

pub(crate) struct Wheel {
    heads: Box<[u32; BUCKETS]>,
    /// A bit for every bucket that is not empty.
    busy: [u64; BUCKETS / 64],
    links: Vec<Link>,
    /// Number, counted from time 0, of the bucket that is looked at next.
    cursor: u64,
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    bucket: u32,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel { heads: Box::new([NIL; BUCKETS]), busy: [0; BUCKETS / 64], links: Vec::new(), cursor: 0 }
    }

    /// Room for `more` ids.
    pub(crate) fn make_room(&mut self, more: usize) {
        self.links.resize(self.links.len() + more, Link { prev: NIL, next: NIL, bucket: NIL });
    }

    /// `id` must not be scheduled.
    pub(crate) fn schedule(&mut self, id: u32, at: Instant) {
        // A bucket is due once it is wholly past.
        let number = (at.0 >> BUCKET_BITS).clamp(self.cursor, self.cursor + BUCKETS as u64 - 1);
        let bucket = number as usize % BUCKETS;
        let head = self.heads[bucket];
        self.links[id as usize] = Link { prev: NIL, next: head, bucket: bucket as u32 };
        if head != NIL {
            self.links[head as usize].prev = id;
        }
        self.heads[bucket] = id;
        self.busy[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Does nothing if `id` is not scheduled.
    pub(crate) fn cancel(&mut self, id: u32) {
        let Link { prev, next, bucket } = self.links[id as usize];
        if bucket == NIL {
            return;
        }
        let bucket = bucket as usize;
        if prev == NIL {
            self.heads[bucket] = next;
            if next == NIL {
                self.busy[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.links[prev as usize].next = next;
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        self.links[id as usize].bucket = NIL;
    }

    /// Takes one id out of a bucket that is past, if there is one. The caller looks whether it has really ended.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<u32> {
        let current = now.0 >> BUCKET_BITS;
        while self.cursor < current {
            let bucket = self.cursor as usize % BUCKETS;
            let id = self.heads[bucket];
            if id != NIL {
                self.cancel(id);
                return Some(id);
            }
            self.cursor = self.next_busy().map_or(current, |number| number.min(current));
        }
        None
    }

    /// When the first bucket that holds anything is past.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.next_busy().map_or(Instant::NEVER, |number| Instant((number + 1) << BUCKET_BITS))
    }

    /// Number of the first bucket at or after the cursor that is not empty.
    fn next_busy(&self) -> Option<u64> {
        let start = self.cursor as usize % BUCKETS;
        for step in 0..=self.busy.len() {
            let word = (start / 64 + step) % self.busy.len();
            let mut bits = self.busy[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == self.busy.len() {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some(self.cursor + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.next_due(now)).collect()
    }

    #[test]
    fn nothing_is_due_early_and_all_by_one_bucket_late() {
        let mut wheel = Wheel::new();
        wheel.make_room(3);
        wheel.schedule(0, Instant::from_millis(1_000));
        wheel.schedule(1, Instant::from_millis(30_000));
        wheel.schedule(2, Instant::from_millis(100));
        wheel.cancel(2);
        assert!(drain(&mut wheel, Instant::from_millis(999)).is_empty());
        let deadline = wheel.next_deadline();
        assert!(deadline > Instant::from_millis(1_000) && deadline < Instant::from_millis(1_000 + 135));
        assert_eq!(drain(&mut wheel, deadline), [0]);
        assert_eq!(drain(&mut wheel, Instant::from_millis(500_000)), [1]);
        assert_eq!(wheel.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn far_ends_come_round_to_be_looked_at_and_wait_again() {
        let mut wheel = Wheel::new();
        wheel.make_room(1);
        let end = Instant::from_millis(432_000_000);
        let mut looks = 0;
        let mut now = Instant::from_millis(5);
        wheel.schedule(0, end);
        while now <= end {
            now = wheel.next_deadline();
            assert_eq!(drain(&mut wheel, now), [0]);
            looks += 1;
            if now <= end {
                wheel.schedule(0, end);
            }
        }
        assert!(looks < 432_000 / 130, "{looks} looks in five days");
        assert!(now.0 - end.0 <= 1 << BUCKET_BITS);
    }
}
