//! One deadline per slot, the earliest first: a binary heap that knows where each slot stands, so that a deadline can
//! move without leaving a stale entry behind.

use crate::base::Instant;

const ABSENT: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// Place of each slot in `heap`.
    place: Vec<u32>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Instant {
        self.heap.first().map_or(Instant::NEVER, |(at, _)| *at)
    }

    /// Sets or moves a slot's deadline. Moving costs O(log n).
    pub(super) fn set(&mut self, slot: u32, at: Instant) {
        if self.place.len() <= slot as usize {
            self.place.resize(slot as usize + 1, ABSENT);
        }
        match self.place[slot as usize] {
            ABSENT => {
                self.heap.push((at, slot));
                let last = self.heap.len() - 1;
                self.place[slot as usize] = last as u32;
                self.up(last);
            }
            place => {
                let place = place as usize;
                let earlier = at < self.heap[place].0;
                self.heap[place].0 = at;
                if earlier { self.up(place) } else { self.down(place) }
            }
        }
    }

    /// Sets a deadline, or moves it earlier. A later one is left where it is: whoever is woken too early sets it anew.
    pub(super) fn bring_forward(&mut self, slot: u32, at: Instant) {
        match self.place.get(slot as usize) {
            Some(&place) if place != ABSENT && self.heap[place as usize].0 <= at => {}
            _ => self.set(slot, at),
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some(place) = self.place.get_mut(slot as usize) else { return };
        let at = *place as usize;
        if *place == ABSENT {
            return;
        }
        *place = ABSENT;
        self.heap.swap_remove(at);
        if let Some(&(_, moved)) = self.heap.get(at) {
            self.place[moved as usize] = at as u32;
            self.up(at);
            self.down(self.place[moved as usize] as usize);
        }
    }

    /// Takes one slot whose deadline is `now` or earlier.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(at, slot) = self.heap.first()?;
        (at <= now).then(|| {
            self.remove(slot);
            slot
        })
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= self.heap[at].0 {
                break;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].0 < self.heap[least].0 {
                    least = child;
                }
            }
            if least == at {
                break;
            }
            self.swap(least, at);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place[self.heap[a].1 as usize] = a as u32;
        self.place[self.heap[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map that is searched: the same slots come due, in the order of their deadlines.
        #[test]
        fn like_a_sorted_map(steps in prop::collection::vec((0u8..4, 0u32..12, 0u64..50), 1..200)) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (op, slot, at) in steps {
                match op {
                    0 => { timers.set(slot, Instant(at)); model.insert(slot, at); }
                    1 => {
                        timers.bring_forward(slot, Instant(at));
                        let old = model.get(&slot).copied().unwrap_or(u64::MAX);
                        model.insert(slot, old.min(at));
                    }
                    2 => { timers.remove(slot); model.remove(&slot); }
                    _ => {
                        let least = model.values().min().copied();
                        let popped = timers.pop_due(Instant(at));
                        prop_assert_eq!(popped.is_some(), least.is_some_and(|least| least <= at));
                        if let Some(slot) = popped {
                            prop_assert_eq!(model.remove(&slot), least);
                        }
                    }
                }
                prop_assert_eq!(timers.next(), Instant(model.values().min().copied().unwrap_or(u64::MAX)));
            }
        }
    }
}
