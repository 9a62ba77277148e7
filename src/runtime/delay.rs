//! Frames on their way: held until their time, in order of time and then of arrival. What is held is bounded in bytes
//! and number; buffers are used again, so that a steady stream allocates nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Instant;
use crate::base::pool::FRAME_CAPACITY;

/// How much may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayBounds {
    /// Of buffers, not of packets: a small frame takes 256.
    pub bytes: usize,
    pub frames: usize,
}

impl Default for DelayBounds {
    /// 64 MiB: 100 ms of 5 Gbit/s.
    fn default() -> DelayBounds {
        DelayBounds { bytes: 64 << 20, frames: 65_536 }
    }
}

/// Frames with what their holder wants to know of each.
pub struct DelayQueue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    bounds: DelayBounds,
    /// Bytes of buffers that are held.
    bytes: usize,
    /// Number of the next entry.
    next: u64,
    refused: u64,
    spare: [Vec<Box<[u8]>>; SIZES.len()],
    spare_bytes: usize,
}

/// A frame whose time has come. Its buffer goes back by [`DelayQueue::recycle`].
pub struct Held<T> {
    /// When it was to come out: now or before.
    pub due: Instant,
    pub tag: T,
    buffer: Box<[u8]>,
    len: usize,
}

impl<T> Held<T> {
    pub fn frame(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

struct Entry<T> {
    due: Instant,
    number: u64,
    held: Held<T>,
}

/// Sizes of buffers: an acknowledgement, a packet of the Internet's size, a jumbo packet, a superframe.
const SIZES: [usize; 4] = [256, 2_048, 9_216, FRAME_CAPACITY];

impl<T> DelayQueue<T> {
    pub fn new(bounds: DelayBounds) -> DelayQueue<T> {
        DelayQueue {
            heap: BinaryHeap::new(),
            bounds,
            bytes: 0,
            next: 0,
            refused: 0,
            spare: [const { Vec::new() }; SIZES.len()],
            spare_bytes: 0,
        }
    }

    /// Holds a copy of the frame until `due`. False, and counted, where no more may be held: it is lost.
    #[must_use]
    pub fn push(&mut self, due: Instant, tag: T, frame: &[u8]) -> bool {
        let class = SIZES.iter().position(|size| frame.len() <= *size);
        let room = |size: usize| self.heap.len() < self.bounds.frames && self.bytes + size <= self.bounds.bytes;
        let Some(class) = class.filter(|class| room(SIZES[*class])) else {
            self.refused += 1;
            return false;
        };
        let mut buffer = match self.spare[class].pop() {
            Some(buffer) => {
                self.spare_bytes -= buffer.len();
                buffer
            }
            None => vec![0; SIZES[class]].into_boxed_slice(),
        };
        buffer[..frame.len()].copy_from_slice(frame);
        self.bytes += buffer.len();
        let number = self.next;
        self.next += 1;
        let held = Held { due, tag, buffer, len: frame.len() };
        self.heap.push(Reverse(Entry { due, number, held }));
        true
    }

    /// The next frame whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<Held<T>> {
        if self.next_deadline() > now {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.bytes -= entry.held.buffer.len();
        Some(entry.held)
    }

    /// Takes a buffer back. A quarter of what may be held is kept for later.
    pub fn recycle(&mut self, held: Held<T>) {
        let size = held.buffer.len();
        if let Some(class) = SIZES.iter().position(|known| *known == size)
            && self.spare_bytes + size <= self.bounds.bytes / 4
        {
            self.spare_bytes += size;
            self.spare[class].push(held.buffer);
        }
    }

    /// Changes what is known of each frame; those without are dropped. Allocates: not per packet.
    pub fn retag(&mut self, mut change: impl FnMut(T) -> Option<T>)
    where
        T: Copy,
    {
        let entries = std::mem::take(&mut self.heap).into_vec();
        for Reverse(mut entry) in entries {
            match change(entry.held.tag) {
                Some(tag) => {
                    entry.held.tag = tag;
                    self.heap.push(Reverse(entry));
                }
                None => {
                    self.bytes -= entry.held.buffer.len();
                    self.recycle(entry.held);
                }
            }
        }
    }

    /// When the next frame is due; [`Instant::NEVER`] if none is held.
    pub fn next_deadline(&self) -> Instant {
        self.heap.peek().map_or(Instant::NEVER, |Reverse(entry)| entry.due)
    }

    /// Frames that are held.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Frames that were refused for want of room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(bytes: usize, frames: usize) -> DelayQueue<u32> {
        DelayQueue::new(DelayBounds { bytes, frames })
    }

    fn frame_len() -> impl Strategy<Value = usize> {
        prop_oneof![8 => 1usize..3_000, 1 => 3_000usize..70_000]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the order of pushes and pops: nothing early, by time and then by arrival, each with its own bytes.
        #[test]
        fn frames_come_out_in_order_and_as_they_went_in(
            ops in prop::collection::vec((0u64..50, frame_len(), 0u64..5), 1..200),
        ) {
            let mut queue = queue(1 << 20, 100);
            let mut model: Vec<(u64, u32, usize)> = Vec::new();
            let (mut now, mut refused) = (0, 0);
            for (n, (wait, len, pass)) in ops.into_iter().enumerate() {
                let n = n as u32;
                let frame: Vec<u8> = (0..len).map(|at| (at as u32 ^ n) as u8).collect();
                if queue.push(Instant(now + wait), n, &frame) {
                    model.push((now + wait, n, len));
                } else {
                    prop_assert!(len > FRAME_CAPACITY || model.len() == 100 || queue.bytes + FRAME_CAPACITY > 1 << 20);
                    refused += 1;
                }
                now += pass;
                model.sort_unstable();
                while let Some(mut held) = queue.pop_due(Instant(now)) {
                    let (due, n, len) = model.remove(0);
                    prop_assert!(due <= now);
                    prop_assert_eq!((held.due, held.tag, held.frame().len()), (Instant(due), n, len));
                    prop_assert!(held.frame().iter().enumerate().all(|(at, byte)| *byte == (at as u32 ^ n) as u8));
                    queue.recycle(held);
                }
                let next = model.first().map_or(Instant::NEVER, |(due, ..)| Instant(*due));
                prop_assert!(next > Instant(now));
                prop_assert_eq!((queue.next_deadline(), queue.len(), queue.refused()), (next, model.len(), refused));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_counted() {
        let mut queue = queue(1_000, 3);
        assert!(queue.push(Instant(1), 1, &[1; 100]) && queue.push(Instant(1), 2, &[2; 256]));
        assert!(!queue.push(Instant(1), 3, &[3; 600]), "its buffer has 2,048 bytes");
        assert!(queue.push(Instant(1), 4, &[4; 20]));
        assert!(!queue.push(Instant(1), 5, &[5; 20]), "three frames");
        assert_eq!(queue.refused(), 2);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop_due(Instant(1)).map(|held| held.tag)).collect();
        assert_eq!(order, [1, 2, 4]);
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn what_is_known_of_frames_may_change_while_they_wait() {
        let mut queue = queue(1 << 20, 100);
        for n in 0..10u32 {
            assert!(queue.push(Instant(u64::from(n % 3)), n, &[n as u8; 100]));
        }
        queue.retag(|n| (n % 2 == 0).then_some(n + 100));
        let order: Vec<u32> = std::iter::from_fn(|| {
            let mut held = queue.pop_due(Instant(3))?;
            assert_eq!(u32::from(held.frame()[0]) + 100, held.tag);
            Some(held.tag)
        })
        .collect();
        assert_eq!(order, [100, 106, 104, 102, 108]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_steady_stream_uses_its_buffers_again() {
        let mut queue = queue(1 << 20, 1_000);
        let mut made = std::collections::BTreeSet::new();
        for n in 0..1_000u64 {
            assert!(queue.push(Instant(n + 10), 0, &[7; 1_400]));
            while let Some(mut held) = queue.pop_due(Instant(n)) {
                made.insert(held.frame().as_ptr() as usize);
                queue.recycle(held);
            }
        }
        assert!(made.len() <= 12, "{} buffers", made.len());
        // Spare ones are bounded.
        for _ in 0..500 {
            assert!(queue.push(Instant(0), 0, &[7; 1_400]));
        }
        while let Some(held) = queue.pop_due(Instant::from_millis(1_000)) {
            queue.recycle(held);
        }
        assert_eq!(queue.spare_bytes, 262_144);
    }
}
