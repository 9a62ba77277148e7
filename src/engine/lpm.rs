//! Longest-prefix match over IPv4 blocks, compiled for reading.
//!
//! Up to [`LINEAR_MAX`] blocks are kept as rows in order of falling prefix length, so that the first match is the
//! answer: VPC tables usually have two to ten routes, and a handful of compares in one cache line beats every tree.
//! Above that the blocks are cut into the disjoint ranges they make of the address space; one binary search over the
//! ranges' first addresses is the answer. Where there are many ranges, a directory cuts the span that they lie in into
//! about as many equal pieces and the search begins in one: wherever in the address space a lab's routes are, a few
//! steps are left. A direct table of 16 bits would take 128 KB per route table and as much again for each /16 it splits.

use crate::base::Cidr;

/// More blocks than this are searched as ranges.
pub const LINEAR_MAX: usize = 16;

/// A compiled set of blocks, each with a value.
#[derive(Clone, Debug)]
pub struct Lpm {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Linear(Box<[Row]>),
    Ranges(Ranges),
}

#[derive(Clone, Copy, Debug)]
struct Row {
    net: u32,
    mask: u32,
    value: u32,
}

impl Lpm {
    /// Where two entries have the same block, the first given wins.
    pub fn new(entries: &[(Cidr, u32)]) -> Lpm {
        if entries.len() > LINEAR_MAX {
            return Lpm { form: Form::Ranges(Ranges::of_prefixes(entries)) };
        }
        let mut sorted = entries.to_vec();
        sorted.sort_by_key(|(cidr, _)| std::cmp::Reverse(cidr.len()));
        let rows = sorted.iter().map(|(cidr, value)| Row {
            net: cidr.network().to_bits(),
            mask: cidr.mask().to_bits(),
            value: *value,
        });
        Lpm { form: Form::Linear(rows.collect()) }
    }

    /// The value of the longest block that holds `addr`.
    #[inline]
    pub fn lookup(&self, addr: u32) -> Option<u32> {
        match &self.form {
            Form::Linear(rows) => rows.iter().find(|row| addr & row.mask == row.net).map(|row| row.value),
            Form::Ranges(ranges) => ranges.lookup(addr),
        }
    }
}

/// Disjoint ranges that cover the whole address space, each with a value or none.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    /// First address of each range, ascending; the first is 0.
    starts: Box<[u32]>,
    values: Box<[u32]>,
    directory: Option<Directory>,
}

/// Where in `starts` to search.
#[derive(Clone, Debug)]
struct Directory {
    /// The second start: all before it is the first range.
    base: u32,
    /// Of an address less `base`, to the number of its piece.
    shift: u32,
    /// How many starts are before each piece, and one more for the end.
    before: Box<[u32]>,
}

/// More ranges than this have a directory.
const DIRECTORY_MIN: usize = 64;
const PIECES_MAX: usize = 1 << 16;

/// "No value" in [`Ranges`].
pub(super) const NONE: u32 = u32::MAX;

impl Ranges {
    /// From ranges that are already disjoint, ascending, and begin at 0.
    pub(super) fn from_sorted(rows: Vec<(u32, u32)>) -> Ranges {
        debug_assert!(rows.first().is_some_and(|row| row.0 == 0));
        let (starts, values): (Vec<u32>, Vec<u32>) = rows.into_iter().unzip();
        let directory = Directory::new(&starts);
        Ranges { starts: starts.into(), values: values.into(), directory }
    }

    /// The longest prefix of each address. Blocks nest or are apart, so a stack of the blocks that are open at the
    /// present address is enough.
    fn of_prefixes(entries: &[(Cidr, u32)]) -> Ranges {
        let mut sorted = entries.to_vec();
        sorted.sort_by_key(|(cidr, _)| (cidr.network(), cidr.len()));
        sorted.dedup_by_key(|(cidr, _)| *cidr);
        let mut rows = vec![(0, NONE)];
        let mut open: Vec<(u32, u32)> = Vec::new();
        for (cidr, value) in sorted {
            close_before(cidr.network().to_bits(), &mut open, &mut rows);
            begin(cidr.network().to_bits(), value, &mut rows);
            open.push((cidr.last().to_bits(), value));
        }
        while let Some((last, _)) = open.pop() {
            if let Some(next) = last.checked_add(1) {
                begin(next, open.last().map_or(NONE, |o| o.1), &mut rows);
            }
        }
        Ranges::from_sorted(rows)
    }

    #[inline]
    pub(super) fn lookup(&self, addr: u32) -> Option<u32> {
        let (first, last) = self.directory.as_ref().map_or((0, self.starts.len()), |directory| directory.part(addr));
        // `first` starts are before the part, and all of them are at or under the address.
        let at = first + self.starts[first..last].partition_point(|start| *start <= addr) - 1;
        let value = self.values[at];
        (value != NONE).then_some(value)
    }
}

impl Directory {
    fn new(starts: &[u32]) -> Option<Directory> {
        if starts.len() <= DIRECTORY_MIN {
            return None;
        }
        let (base, span) = (starts[1], starts[starts.len() - 1] - starts[1]);
        let pieces = starts.len().next_power_of_two().min(PIECES_MAX);
        let shift = (u32::BITS - span.leading_zeros()).saturating_sub(pieces.ilog2());
        let begin = |piece: u32| u64::from(base) + (u64::from(piece) << shift);
        let before = (0..=span >> shift).map(|piece| {
            let begin = begin(piece);
            starts.partition_point(|start| u64::from(*start) < begin) as u32
        });
        Some(Directory { base, shift, before: before.chain([starts.len() as u32]).collect() })
    }

    /// Which starts may be the last at or under `addr`, but for one that is right before them.
    #[inline]
    fn part(&self, addr: u32) -> (usize, usize) {
        let Some(offset) = addr.checked_sub(self.base) else { return (0, 1) };
        let piece = ((offset >> self.shift) as usize).min(self.before.len() - 2);
        (self.before[piece] as usize, self.before[piece + 1] as usize)
    }
}

/// Ends the open blocks whose last address is before `addr`.
fn close_before(addr: u32, open: &mut Vec<(u32, u32)>, rows: &mut Vec<(u32, u32)>) {
    while let Some(&(last, _)) = open.last() {
        if last >= addr {
            return;
        }
        open.pop();
        begin(last + 1, open.last().map_or(NONE, |o| o.1), rows);
    }
}

fn begin(start: u32, value: u32, rows: &mut Vec<(u32, u32)>) {
    if let Some(last) = rows.last_mut()
        && last.0 == start
    {
        last.1 = value;
        return;
    }
    rows.push((start, value));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn slow(entries: &[(Cidr, u32)], addr: Ipv4Addr) -> Option<u32> {
        let mut best: Option<(Cidr, u32)> = None;
        for (cidr, value) in entries {
            if cidr.contains(addr) && best.is_none_or(|(b, _)| cidr.len() > b.len()) {
                best = Some((*cidr, *value));
            }
        }
        best.map(|(_, value)| value)
    }

    proptest! {
        #[test]
        fn both_forms_agree_with_trying_every_block(
            blocks in prop::collection::vec((any::<u32>(), 0u8..=32), 0..200),
            probes in prop::collection::vec(any::<u32>(), 20),
        ) {
            // Few distinct upper bits, so that blocks nest.
            let entries: Vec<(Cidr, u32)> = blocks.iter().enumerate()
                .map(|(i, (addr, len))| (Cidr::containing(Ipv4Addr::from_bits(addr & 0x0f0f_ffff), *len), i as u32))
                .collect();
            let table = Lpm::new(&entries);
            let ranges = Ranges::of_prefixes(&entries);
            let edges = entries.iter().flat_map(|(c, _)| {
                let (first, last) = (c.network().to_bits(), c.last().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for addr in probes.iter().copied().chain(edges).chain([0, u32::MAX]) {
                let expected = slow(&entries, Ipv4Addr::from_bits(addr));
                prop_assert_eq!(table.lookup(addr), expected);
                prop_assert_eq!(ranges.lookup(addr), expected);
            }
        }
    }
}
