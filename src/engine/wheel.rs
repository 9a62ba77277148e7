//! A timer wheel: which entries may have come to their end.
//!
//! Buckets of 134 ms (2^27 ns) and 1,024 of them: 137 seconds. What ends later waits in the last bucket and is looked at again when
//! that is due, so a flow of five days costs one look every two minutes. Precision is a bucket's: nothing is due early,
//! and nothing later than one bucket after its time.

use crate::base::Instant;

const BUCKET_BITS: u32 = 27;
const BUCKETS: usize = 1_024;
const NIL: u32 = u32::MAX;
/// In `Link::prev`: this one is the first of the bucket that the other bits name.
const FIRST: u32 = 1 << 31;

pub(crate) struct Wheel {
    heads: Box<[u32; BUCKETS]>,
    /// A bit for every bucket that is not empty.
    busy: [u64; BUCKETS / 64],
    /// By id. In pieces, so that no packet waits for all to be copied when there are to be more.
    links: Vec<Box<[Link; PIECE]>>,
    /// Number, counted from time 0, of the bucket that is looked at next.
    cursor: u64,
}

#[derive(Clone, Copy)]
struct Link {
    /// `FIRST` and the bucket; `NIL`: is in none.
    prev: u32,
    next: u32,
}

const PIECE_BITS: u32 = 9;
const PIECE: usize = 1 << PIECE_BITS;

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel { heads: Box::new([NIL; BUCKETS]), busy: [0; BUCKETS / 64], links: Vec::new(), cursor: 0 }
    }

    /// Room for `more` ids at least. They are under 2^31.
    pub(crate) fn make_room(&mut self, more: usize) {
        for _ in 0..more.div_ceil(PIECE) {
            self.links.push(Box::new([Link { prev: NIL, next: NIL }; PIECE]));
        }
    }

    #[inline]
    fn link(&mut self, id: u32) -> &mut Link {
        &mut self.links[(id >> PIECE_BITS) as usize][id as usize & (PIECE - 1)]
    }

    /// `id` must not be scheduled.
    pub(crate) fn schedule(&mut self, id: u32, at: Instant) {
        // A bucket is due once it is wholly past.
        let number = (at.0 >> BUCKET_BITS).clamp(self.cursor, self.cursor + BUCKETS as u64 - 1);
        let bucket = number as usize % BUCKETS;
        let head = self.heads[bucket];
        *self.link(id) = Link { prev: FIRST | bucket as u32, next: head };
        if head != NIL {
            self.link(head).prev = id;
        }
        self.heads[bucket] = id;
        self.busy[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Does nothing if `id` is not scheduled.
    pub(crate) fn cancel(&mut self, id: u32) {
        let Link { prev, next } = std::mem::replace(self.link(id), Link { prev: NIL, next: NIL });
        if prev == NIL {
            return;
        }
        if prev & FIRST == 0 {
            self.link(prev).next = next;
        } else {
            self.begin_with(next, (prev & !FIRST) as usize);
        }
        if next != NIL {
            self.link(next).prev = prev;
        }
    }

    fn begin_with(&mut self, id: u32, bucket: usize) {
        self.heads[bucket] = id;
        if id == NIL {
            self.busy[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Takes ids out of buckets that are past, as many as there are and as `ids` has room for. The caller looks
    /// whether they have really ended.
    pub(crate) fn take_due(&mut self, now: Instant, ids: &mut [u32]) -> usize {
        let current = now.0 >> BUCKET_BITS;
        let mut found = 0;
        while self.cursor < current && found < ids.len() {
            let bucket = self.cursor as usize % BUCKETS;
            let mut id = self.heads[bucket];
            while id != NIL && found < ids.len() {
                ids[found] = id;
                found += 1;
                id = std::mem::replace(self.link(id), Link { prev: NIL, next: NIL }).next;
            }
            self.begin_with(id, bucket);
            if id != NIL {
                self.link(id).prev = FIRST | bucket as u32;
                break;
            }
            self.cursor = self.next_busy().map_or(current, |number| number.min(current));
        }
        found
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
        let (mut all, mut some) = (Vec::new(), [0; 3]);
        loop {
            match wheel.take_due(now, &mut some) {
                0 => return all,
                found => all.extend(&some[..found]),
            }
        }
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
