//! What kernels say of neighbours that are not there. On AWS an instance asks by ARP for an address of its own subnet;
//! for a free one nobody answers, and after three tries of a second each its kernel tells whoever sent ("No route to
//! host"). TUN devices have no ARP, so the router says it at that time.

use std::collections::HashMap;
use std::time::Duration;

use super::delay::{DelayBounds, DelayQueue};
use crate::base::{EniIx, Instant};

/// Linux: `mcast_solicit` tries, `retrans_time_ms` apart (arp(7)).
const GIVES_UP: Duration = Duration::from_secs(3);

/// Messages that wait for one interface, and for all: a scan of free addresses is not to be told of each.
const OF_ONE: u16 = 256;
const OF_ALL: DelayBounds = DelayBounds { bytes: 4 << 20, frames: 8_192 };

/// Messages on their way back to who asked, by the router's number of the interface.
pub struct Unanswered {
    waiting: DelayQueue<EniIx>,
    of: HashMap<EniIx, u16>,
}

impl Default for Unanswered {
    fn default() -> Unanswered {
        Unanswered { waiting: DelayQueue::new(OF_ALL), of: HashMap::new() }
    }
}

impl Unanswered {
    /// `number` sent to a free address at `now`, and `message` tells it so in time. Too many are forgotten.
    pub fn tell_later(&mut self, now: Instant, number: EniIx, message: &[u8]) {
        let waiting = self.of.entry(number).or_default();
        if *waiting < OF_ONE && self.waiting.push(now + GIVES_UP, number, message) {
            *waiting += 1;
        }
    }

    /// Hands over what is due.
    pub fn tell(&mut self, now: Instant, mut hand: impl FnMut(EniIx, &[u8])) {
        while let Some(mut held) = self.waiting.pop_due(now) {
            if let Some(waiting) = self.of.get_mut(&held.tag) {
                *waiting -= 1;
            }
            hand(held.tag, held.frame());
            self.waiting.recycle(held);
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.waiting.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_after_three_seconds_and_one_asker_does_not_take_the_room_of_others() {
        let mut unanswered = Unanswered::default();
        let start = Instant::from_millis(1_000);
        for n in 0..1_000_u32 {
            unanswered.tell_later(start, EniIx(1), &n.to_be_bytes());
        }
        unanswered.tell_later(start, EniIx(2), b"other");
        assert_eq!(unanswered.next_deadline(), Instant::from_millis(4_000));
        let mut told = Vec::new();
        unanswered.tell(Instant::from_millis(3_999), |to, _| told.push(to));
        assert!(told.is_empty());
        unanswered.tell(Instant::from_millis(4_000), |to, _| told.push(to));
        assert_eq!((told.len(), told.iter().filter(|to| **to == EniIx(2)).count()), (usize::from(OF_ONE) + 1, 1));
        assert_eq!(unanswered.next_deadline(), Instant::NEVER);
        // There is room again.
        unanswered.tell_later(start, EniIx(1), b"again");
        assert_ne!(unanswered.next_deadline(), Instant::NEVER);
    }
}
