//! Impaired links: loss, rate, delay and jitter, decided per segment and seeded, so that a run can be repeated: the same
//! segments at the same times meet the same fate.

use super::program::Program;
use super::verdict::Via;
use crate::base::Instant;
use crate::model::plan::Impair;

/// A link that is slower than what is sent queues this much, in time, and drops the rest.
const LONGEST_QUEUE: u64 = 1_000_000_000;

/// The state of every impaired link, in both directions.
pub struct Shaper {
    generation: u64,
    lanes: Vec<Lane>,
}

/// One direction of one link.
struct Lane {
    impair: Impair,
    random: u64,
    /// When the last bit of what is queued has left.
    free: Instant,
    /// Nothing leaves before what was sent before it.
    last: Instant,
}

impl Shaper {
    pub fn new(program: &Program) -> Shaper {
        let mut shaper = Shaper { generation: 0, lanes: Vec::new() };
        shaper.load(program);
        shaper
    }

    /// Takes the links of a program; what was queued on the old ones is forgotten, not lost.
    pub fn load(&mut self, program: &Program) {
        self.generation = program.generation();
        self.lanes = program
            .shapes
            .iter()
            .flat_map(|impair| {
                let seed = impair.seed.unwrap_or_default();
                [0, 1].map(|direction| Lane {
                    impair: *impair,
                    random: seed ^ direction,
                    free: Instant::ZERO,
                    last: Instant::ZERO,
                })
            })
            .collect();
    }

    /// The generation of the program whose links these are.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Must a superframe be cut before it is asked about: is anything decided per segment on this way?
    pub fn per_segment(&self, via: &Via) -> bool {
        self.lanes_of(via).any(|at| {
            let impair = &self.lanes[at].impair;
            impair.loss_ppm > 0 || impair.rate.is_some() || !impair.jitter.is_zero()
        })
    }

    /// When a segment of `bytes` IP bytes that is sent now arrives; `None`: never.
    pub fn fate(&mut self, now: Instant, via: &Via, bytes: usize) -> Option<Instant> {
        let mut at = now;
        let lanes: [Option<usize>; 3] = self.places(via);
        for lane in lanes.into_iter().flatten() {
            at = self.lanes[lane].pass(at, bytes)?;
        }
        Some(Instant(at.0 + u64::from(via.latency_us) * 1_000))
    }

    fn lanes_of(&self, via: &Via) -> impl Iterator<Item = usize> {
        self.places(via).into_iter().flatten()
    }

    /// The sender's link is passed outwards, the receiver's inwards.
    fn places(&self, via: &Via) -> [Option<usize>; 3] {
        let place = |n: usize, shape: u16| {
            let at = (usize::from(shape).checked_sub(1)?) * 2 + usize::from(n > 0);
            (at < self.lanes.len()).then_some(at)
        };
        [place(0, via.shapes[0]), place(1, via.shapes[1]), place(2, via.shapes[2])]
    }
}

impl Lane {
    fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.impair.down {
            return None;
        }
        if self.impair.loss_ppm > 0 && self.next() % 1_000_000 < u64::from(self.impair.loss_ppm) {
            return None;
        }
        let mut at = now;
        if let Some(rate) = self.impair.rate {
            let start = self.free.max(now);
            if start.0 - now.0 > LONGEST_QUEUE {
                return None;
            }
            at = Instant(start.0 + (bytes as u64).saturating_mul(8_000_000_000) / rate.max(1));
            self.free = at;
        }
        at = at + self.impair.delay;
        let jitter = self.impair.jitter.as_nanos() as u64;
        if jitter > 0 {
            at = Instant(at.0 + self.next() % jitter);
        }
        self.last = self.last.max(at);
        Some(self.last)
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn lane(impair: Impair) -> Lane {
        let random = impair.seed.unwrap_or_default();
        Lane { impair, random, free: Instant::ZERO, last: Instant::ZERO }
    }

    fn impair() -> impl Strategy<Value = Impair> {
        (0u64..50_000, 0u64..20_000, 0u32..500_000, prop::option::of(1_000_000u64..1_000_000_000), any::<u64>())
            .prop_map(|(delay, jitter, loss_ppm, rate, seed)| Impair {
                delay: Duration::from_micros(delay),
                jitter: Duration::from_micros(jitter),
                loss_ppm,
                rate,
                down: false,
                seed: Some(seed),
            })
    }

    proptest! {
        #[test]
        fn the_same_segments_meet_the_same_fate_and_none_overtakes(
            impair in impair(),
            sent in prop::collection::vec((0u64..2_000_000, 40usize..9_001), 1..300),
        ) {
            let (mut one, mut two) = (lane(impair), lane(impair));
            let (mut now, mut last) = (Instant::from_millis(1), Instant::ZERO);
            for (gap, bytes) in sent {
                now = Instant(now.0 + gap);
                let fate = one.pass(now, bytes);
                prop_assert_eq!(fate, two.pass(now, bytes));
                if let Some(at) = fate {
                    prop_assert!(at >= last && at >= now + impair.delay);
                    last = at;
                }
            }
        }

        #[test]
        fn a_rate_is_kept_over_any_window(rate in 1_000_000u64..100_000_000, seed in any::<u64>()) {
            let mut lane = lane(Impair { rate: Some(rate), seed: Some(seed), ..Impair::default() });
            let start = Instant::from_millis(10);
            // Twice what the link carries in half a second, all at once.
            let sent = rate / 8 / 1_000;
            let arrived: Vec<Instant> = (0..sent).filter_map(|_| lane.pass(start, 1_000)).collect();
            let last = arrived.last().expect("some").0 - start.0;
            let bits = arrived.len() as u128 * 8_000;
            let most = u128::from(rate) * u128::from(last) / 1_000_000_000 + 8_000;
            prop_assert!(bits <= most, "{bits} bits in {last} ns at {rate} a second");
        }
    }

    #[test]
    fn one_percent_is_one_percent() {
        let mut lane = lane(Impair { loss_ppm: 10_000, seed: Some(7), ..Impair::default() });
        let lost = (0..100_000u64).filter(|n| lane.pass(Instant(*n), 1_500).is_none()).count();
        assert!((850..1_150).contains(&lost), "{lost} of 100,000");
    }
}
