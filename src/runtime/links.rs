//! Packets that take time: what impaired links and `latency: aws` hold back until it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::{EniIx, Instant};
use crate::engine::{Program, Shaper, Via};
use crate::wire::fragment::fragment_with;
use crate::wire::gso;
use crate::wire::packet::Packet;
use crate::wire::vnet::VnetHdr;

/// Frames and bytes that may be on their way at a time; what comes then is lost.
const MOST_FRAMES: usize = 200_000;
const MOST_BYTES: usize = 256 << 20;
/// Buffers that are kept for frames to come.
const KEPT: usize = 1_024;

/// The links of a lab.
pub struct Links {
    shaper: Shaper,
    waiting: BinaryHeap<Reverse<Held>>,
    bytes: usize,
    next: u64,
    buffers: Vec<Vec<u8>>,
    cuttings: Vec<u8>,
    /// Frames lost for want of room.
    pub overflow: u64,
}

struct Held {
    due: Instant,
    /// In the order in which they were sent.
    order: u64,
    to: EniIx,
    frame: Vec<u8>,
}

impl Links {
    pub fn new(program: &Program) -> Links {
        Links {
            shaper: Shaper::new(program),
            waiting: BinaryHeap::new(),
            bytes: 0,
            next: 0,
            buffers: Vec::new(),
            cuttings: Vec::new(),
            overflow: 0,
        }
    }

    /// Takes the links of a new program. What is on its way arrives.
    pub fn load(&mut self, program: &Program) {
        if self.shaper.generation() != program.generation() {
            self.shaper.load(program);
        }
    }

    /// Takes a new plan: where its interfaces are now. What was on its way to one that is gone is lost.
    pub fn follow(&mut self, map: impl Fn(EniIx) -> Option<EniIx>) {
        let mut waiting = std::mem::take(&mut self.waiting).into_vec();
        waiting.retain_mut(|Reverse(held)| match map(held.to) {
            Some(to) => {
                held.to = to;
                true
            }
            None => {
                self.bytes -= held.frame.len();
                false
            }
        });
        self.waiting = waiting.into();
    }

    /// Sends a frame to `to`: what arrives at once goes to `deliver`, the rest is held. How many segments were lost.
    pub fn send(&mut self, now: Instant, to: EniIx, via: Via, frame: &[u8], mut deliver: impl FnMut(&[u8])) -> u32 {
        let mut lost = 0;
        let mut cuttings = std::mem::take(&mut self.cuttings);
        let mut one = |links: &mut Links, piece: &[u8]| match links.shaper.fate(now, &via, ip_bytes(piece)) {
            None => lost += 1,
            Some(due) if due <= now => deliver(piece),
            Some(due) => links.hold(due, to, piece),
        };
        if via.fragment != 0 {
            // What cannot be cut is malformed, and was refused before.
            let _ = fragment_with(frame, usize::from(via.fragment), &mut cuttings, |piece| one(self, piece));
        } else if self.shaper.per_segment(&via) && Packet::parse(frame).is_ok_and(|p| p.segments() > 1) {
            let _ = gso::segment(frame, |piece| one(self, piece));
        } else {
            one(self, frame);
        }
        self.cuttings = cuttings;
        lost
    }

    /// The next frame that is due; give its buffer back by [`Links::recycle`].
    pub fn pop_due(&mut self, now: Instant) -> Option<(EniIx, Vec<u8>)> {
        if self.waiting.peek().is_none_or(|held| held.0.due > now) {
            return None;
        }
        let Reverse(held) = self.waiting.pop()?;
        self.bytes -= held.frame.len();
        Some((held.to, held.frame))
    }

    pub fn recycle(&mut self, mut frame: Vec<u8>) {
        if self.buffers.len() < KEPT {
            frame.clear();
            self.buffers.push(frame);
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.waiting.peek().map_or(Instant::NEVER, |held| held.0.due)
    }

    fn hold(&mut self, due: Instant, to: EniIx, piece: &[u8]) {
        if self.waiting.len() >= MOST_FRAMES || self.bytes + piece.len() > MOST_BYTES {
            self.overflow += 1;
            return;
        }
        let mut frame = self.buffers.pop().unwrap_or_default();
        frame.extend_from_slice(piece);
        self.bytes += frame.len();
        self.waiting.push(Reverse(Held { due, order: self.next, to, frame }));
        self.next += 1;
    }
}

fn ip_bytes(frame: &[u8]) -> usize {
    frame.len().saturating_sub(VnetHdr::LEN)
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.order == other.order
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}
