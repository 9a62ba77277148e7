//! Open addressing from 32-bit hashes to slots, grown in steps of bounded work.
//!
//! A cell is a hash and a slot in eight bytes, so a probe that fails mostly fails without touching a flow. When the
//! table has to grow, the new one takes all insertions and a few cells of the old one are carried over with each, so
//! that no packet waits for a whole table to be copied.

/// From hashes to slots; equal hashes are told apart by the caller's test.
pub(crate) struct Index {
    young: Cells,
    /// Being emptied into `young`.
    old: Option<(Cells, usize)>,
}

struct Cells {
    /// Hash in the upper half, slot plus one in the lower; 0 is empty.
    cells: Box<[u64]>,
    mask: usize,
    used: usize,
}

const EMPTY: u64 = 0;
/// A cell of the old table that was carried over or removed: probes go on after it.
const GONE: u64 = u32::MAX as u64;
const FIRST_SIZE: usize = 1_024;
/// Cells carried over with each insertion. The old table was three quarters full when the new one of twice the
/// size began, so it is empty long before the new one has to grow.
const STEP: usize = 16;

impl Index {
    pub(crate) fn new() -> Index {
        Index { young: Cells::new(FIRST_SIZE), old: None }
    }

    /// The slot of this hash that `is` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if let Some(slot) = self.young.find(hash, &mut is) {
            return Some(slot);
        }
        let (old, _) = self.old.as_ref()?;
        old.find(hash, &mut is)
    }

    /// The cells where a search for this hash begins and where most have ended: often two lines of the cache. Read for
    /// several hashes before the first is searched for, so that what they need of memory comes at once.
    #[inline]
    pub(crate) fn near(&self, hash: u32) -> u64 {
        let (cells, mask, at) = (&self.young.cells, self.young.mask, hash as usize);
        cells[at & mask] ^ cells[(at + 6) & mask]
    }

    /// `slot` must be under `u32::MAX - 1` and not in the index.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        self.carry_over();
        if (self.young.used + 1) * 4 > self.young.cells.len() * 3 {
            // The old table has been emptied by then; were it not, it would be now.
            while self.old.is_some() {
                self.carry_over();
            }
            let larger = Cells::new(self.young.cells.len() * 2);
            self.old = Some((std::mem::replace(&mut self.young, larger), 0));
        }
        self.young.insert(cell(hash, slot));
    }

    /// False if it was not there.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let wanted = cell(hash, slot);
        if self.young.remove(wanted) {
            return true;
        }
        let Some((old, _)) = &mut self.old else { return false };
        let Some(at) = old.position(wanted) else { return false };
        old.cells[at] = GONE;
        true
    }

    fn carry_over(&mut self) {
        let Some((old, from)) = &mut self.old else { return };
        let to = (*from + STEP).min(old.cells.len());
        for at in *from..to {
            // Empty cells stay empty: probes of the old table end there.
            let cell = old.cells[at];
            if cell != EMPTY && cell != GONE {
                old.cells[at] = GONE;
                self.young.insert(cell);
            }
        }
        *from = to;
        if to == old.cells.len() {
            self.old = None;
        }
    }
}

impl Cells {
    fn new(size: usize) -> Cells {
        Cells { cells: vec![EMPTY; size].into_boxed_slice(), mask: size - 1, used: 0 }
    }

    #[inline]
    fn find(&self, hash: u32, is: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask;
        loop {
            let cell = self.cells[at];
            if cell == EMPTY {
                return None;
            }
            if (cell >> 32) as u32 == hash && cell != GONE && is(cell as u32 - 1) {
                return Some(cell as u32 - 1);
            }
            at = (at + 1) & self.mask;
        }
    }

    fn position(&self, wanted: u64) -> Option<usize> {
        let mut at = (wanted >> 32) as usize & self.mask;
        loop {
            let cell = self.cells[at];
            if cell == wanted {
                return Some(at);
            }
            if cell == EMPTY {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }

    fn insert(&mut self, cell: u64) {
        let mut at = (cell >> 32) as usize & self.mask;
        while self.cells[at] != EMPTY {
            at = (at + 1) & self.mask;
        }
        self.cells[at] = cell;
        self.used += 1;
    }

    /// Removes and closes the gap, so that no probe has to pass over dead cells.
    fn remove(&mut self, wanted: u64) -> bool {
        let Some(mut gap) = self.position(wanted) else { return false };
        let mut at = gap;
        loop {
            at = (at + 1) & self.mask;
            let cell = self.cells[at];
            if cell == EMPTY {
                break;
            }
            let home = (cell >> 32) as usize & self.mask;
            // May `cell` move to the gap? Only if the gap is on its probe path: not before its home.
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(gap) & self.mask {
                self.cells[gap] = cell;
                gap = at;
            }
        }
        self.cells[gap] = EMPTY;
        self.used -= 1;
        true
    }
}

#[inline]
fn cell(hash: u32, slot: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(slot + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_is_in_and_nothing_else_even_with_equal_hashes(
            ops in prop::collection::vec((any::<bool>(), 0u32..6_000), 0..9_000),
            spread in 0u32..14,
        ) {
            let hash = |slot: u32| slot.wrapping_mul(0x9e37_79b9) >> spread;
            let mut index = Index::new();
            let mut model = HashSet::new();
            for (add, slot) in ops {
                if add && model.insert(slot) {
                    index.insert(hash(slot), slot);
                } else if !add && model.remove(&slot) {
                    index.remove(hash(slot), slot);
                }
            }
            for slot in 0..6_000 {
                prop_assert_eq!(index.find(hash(slot), |s| s == slot).is_some(), model.contains(&slot));
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_at_any_moment_of_growing() {
        let mut index = Index::new();
        for slot in 0..20_000u32 {
            let hash = slot.wrapping_mul(0x85eb_ca6b);
            assert_eq!(index.find(hash, |s| s == slot), None);
            index.insert(hash, slot);
            if slot % 3 == 0 {
                index.remove(hash, slot);
                assert_eq!(index.find(hash, |s| s == slot), None);
            }
            assert_eq!(index.find(!hash, |_| false), None);
        }
    }

    #[test]
    fn grows_under_load_without_losing_a_slot() {
        let mut index = Index::new();
        for slot in 0..200_000u32 {
            index.insert(slot.wrapping_mul(0x85eb_ca6b), slot);
        }
        for slot in 0..200_000u32 {
            assert_eq!(index.find(slot.wrapping_mul(0x85eb_ca6b), |s| s == slot), Some(slot));
        }
    }
}
