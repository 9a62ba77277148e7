//! Impaired links: what a link does to each segment that enters it. Loss, rate and delay are decided per segment on the
//! wire, never per superframe: who holds a superframe of which a segment is lost or late cuts it and sends the rest.
//!
//! A link has two lanes, one for each direction. A lane is a queue: segments leave in the order they came, whatever the
//! jitter. Chance is a sequence of numbers that depends on the lane's seed alone, one number for each segment: the same
//! segments in the same order are lost again in the next run.

use crate::base::Instant;
use crate::base::ids::stable_hash;
use crate::base::steer::mix;
use crate::model::plan::Impair;
use crate::wire::packet::Packet;

/// An impairment of one ENI's link, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of the ENI: the same link in another program.
    id: u64,
    seed: u64,
    /// Nanoseconds.
    delay: u64,
    jitter: u64,
    loss_ppm: u32,
    /// Bits a second; 0 is any.
    rate: u64,
    /// Nanoseconds that a segment may wait for those before it.
    patience: u64,
    down: bool,
}

/// Where a segment goes on the link of an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From the instance.
    Network = 0,
    /// To the instance.
    Instance = 1,
}

/// What becomes of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Comes out at the other end then.
    Leaves(Instant),
    Lost(Loss),
}

/// Why a link lost a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The link is down.
    Down,
    /// By chance, as asked for.
    Chance,
    /// The queue before a limited rate is full.
    Backlog,
}

/// What becomes of the segments of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// All come out at the same time: the frame stays whole.
    Leaves(Instant),
    /// None comes out.
    Lost,
    /// To be cut: the fate of each segment, in order, is in the caller's list.
    Cut,
}

/// The links of a program as they stand.
#[derive(Clone, Debug, Default)]
pub struct Shaper {
    links: Vec<Link>,
}

#[derive(Clone, Debug)]
struct Link {
    shape: Shape,
    lanes: [Lane; 2],
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    random: u64,
    /// When the last bit of what is queued is sent.
    busy_until: Instant,
    /// When the last segment comes out.
    last: Instant,
}

/// Bytes that may wait before a limited rate: one second's worth, but room for a burst on the slowest and not the
/// memory of the machine on the fastest link.
const QUEUE: std::ops::RangeInclusive<u64> = 24_000..=8 << 20;
const SECOND: u64 = 1_000_000_000;

impl Shape {
    /// `eni`: AWS id of the ENI. It is in the seed too, so that links with equal impairments differ.
    pub fn new(impair: &Impair, eni: &str) -> Shape {
        let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let id = stable_hash(&[eni]) as u64;
        let rate = impair.rate.unwrap_or(0);
        let queue = (rate / 8).clamp(*QUEUE.start(), *QUEUE.end());
        Shape {
            id,
            seed: mix(impair.seed.unwrap_or(0) ^ mix(id)),
            delay: nanos(impair.delay),
            jitter: nanos(impair.jitter),
            loss_ppm: impair.loss_ppm,
            rate,
            patience: if rate == 0 { 0 } else { time_of(queue, rate) },
            down: impair.down,
        }
    }
}

impl Shaper {
    pub fn new(shapes: &[Shape]) -> Shaper {
        let mut shaper = Shaper::default();
        shaper.set(shapes);
        shaper
    }

    /// Takes the shapes of another program. Links that were there go on where they are: what has entered them comes out
    /// before what follows, and chance goes on in its sequence unless the seed is another.
    pub fn set(&mut self, shapes: &[Shape]) {
        let before = std::mem::take(&mut self.links);
        self.links.extend(shapes.iter().map(|shape| {
            let fresh = Link { shape: *shape, lanes: [0, 1].map(|lane| Lane::new(shape.seed, lane)) };
            match before.iter().find(|link| link.shape.id == shape.id) {
                Some(link) if link.shape.seed == shape.seed => Link { shape: *shape, ..link.clone() },
                Some(link) => {
                    let random = fresh.lanes.map(|lane| lane.random);
                    let mut lanes = link.lanes;
                    lanes[0].random = random[0];
                    lanes[1].random = random[1];
                    Link { shape: *shape, lanes }
                }
                None => fresh,
            }
        }));
    }

    /// A segment of so many IP bytes enters a link now. `shape` is its number in the program, from 1; what has no link
    /// leaves at once.
    pub fn segment(&mut self, now: Instant, shape: u16, toward: Toward, bytes: u64) -> Fate {
        match usize::from(shape).checked_sub(1).and_then(|at| self.links.get_mut(at)) {
            Some(Link { shape, lanes }) => lanes[toward as usize].pass(shape, now, bytes),
            None => Fate::Leaves(now),
        }
    }

    /// All segments of a frame, in order. `fates` is the caller's, and filled anew.
    pub fn frame(&mut self, now: Instant, shape: u16, toward: Toward, packet: &Packet, fates: &mut Vec<Fate>) -> Frame {
        fates.clear();
        let mut left = packet.payload_len() as u64;
        let headers = packet.total_len() as u64 - left;
        let size = if packet.gso_size() == 0 { left } else { u64::from(packet.gso_size()) };
        for _ in 0..packet.segments() {
            let part = left.min(size);
            left -= part;
            fates.push(self.segment(now, shape, toward, headers + part));
        }
        let lost = |fate: &Fate| matches!(fate, Fate::Lost(_));
        match fates.first() {
            None => Frame::Leaves(now),
            Some(Fate::Leaves(at)) if fates.iter().all(|fate| *fate == Fate::Leaves(*at)) => Frame::Leaves(*at),
            Some(_) if fates.iter().all(lost) => Frame::Lost,
            Some(_) => Frame::Cut,
        }
    }
}

impl Lane {
    fn new(seed: u64, lane: u64) -> Lane {
        Lane { random: mix(seed ^ mix(lane + 1)), busy_until: Instant::ZERO, last: Instant::ZERO }
    }

    fn pass(&mut self, shape: &Shape, now: Instant, bytes: u64) -> Fate {
        if shape.down {
            return Fate::Lost(Loss::Down);
        }
        // One number for each segment, whatever is asked of it: the upper half decides loss, the whole jitter.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let random = mix(self.random);
        if ((random >> 32) * 1_000_000) >> 32 < u64::from(shape.loss_ppm) {
            return Fate::Lost(Loss::Chance);
        }
        let mut sent = now;
        if shape.rate > 0 {
            let start = self.busy_until.max(now);
            if start.0 - now.0 > shape.patience {
                return Fate::Lost(Loss::Backlog);
            }
            sent = Instant(start.0.saturating_add(time_of(bytes, shape.rate)));
            self.busy_until = sent;
        }
        let jitter = (u128::from(mix(random)) * (u128::from(shape.jitter) + 1)) >> 64;
        let out = sent.0.saturating_add(shape.delay).saturating_add(jitter as u64);
        self.last = Instant(out).max(self.last);
        Fate::Leaves(self.last)
    }
}

/// Nanoseconds that so many bytes take, rounded up.
fn time_of(bytes: u64, rate: u64) -> u64 {
    (u128::from(bytes) * 8 * u128::from(SECOND)).div_ceil(u128::from(rate)) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::make::{self, TcpSpec};
    use crate::wire::packet::tcp_flags;

    const MS: Duration = Duration::from_millis(1);

    fn shaper(impair: Impair) -> Shaper {
        Shaper::new(&[Shape::new(&impair, "eni-1")])
    }

    fn at(micros: u64) -> Instant {
        Instant(micros * 1_000)
    }

    /// The fates of segments of these sizes that enter at these times, in microseconds.
    fn run(shaper: &mut Shaper, segments: &[(u64, u64)]) -> Vec<Fate> {
        segments.iter().map(|&(when, bytes)| shaper.segment(at(when), 1, Toward::Network, bytes)).collect()
    }

    fn leaving(fates: &[Fate]) -> Vec<Instant> {
        fates.iter().filter_map(|fate| if let Fate::Leaves(at) = fate { Some(*at) } else { None }).collect()
    }

    fn impair() -> impl Strategy<Value = Impair> {
        (0u64..80, 0u64..40, 0u32..400_000, prop::option::of(64_000u64..50_000_000), any::<u64>()).prop_map(
            |(delay, jitter, loss_ppm, rate, seed)| Impair {
                delay: MS * delay as u32,
                jitter: MS * jitter as u32,
                loss_ppm,
                rate,
                down: false,
                seed: Some(seed),
            },
        )
    }

    /// Times that grow, and sizes.
    fn segments() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..3_000, 40u64..9_001), 1..200).prop_map(|steps| {
            let mut now = 0;
            steps
                .into_iter()
                .map(|(step, bytes)| {
                    now += step;
                    (now, bytes)
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn the_same_seed_and_segments_have_the_same_fate(impair in impair(), segments in segments()) {
            prop_assert_eq!(run(&mut shaper(impair), &segments), run(&mut shaper(impair), &segments));
        }

        /// Who is lost by chance depends on how many came before, not on when.
        #[test]
        fn chance_does_not_look_at_the_clock(impair in impair(), segments in segments(), slower in 2u64..9) {
            let by_chance = |fates: Vec<Fate>| fates.iter().map(|f| *f == Fate::Lost(Loss::Chance)).collect::<Vec<_>>();
            let later: Vec<(u64, u64)> = segments.iter().map(|&(when, bytes)| (when * slower, bytes)).collect();
            let (fast, slow) = (run(&mut shaper(impair), &segments), run(&mut shaper(impair), &later));
            prop_assert_eq!(by_chance(fast), by_chance(slow));
        }

        #[test]
        fn nothing_overtakes_and_nothing_is_early(impair in impair(), segments in segments()) {
            let fates = run(&mut shaper(impair), &segments);
            let times = leaving(&fates);
            prop_assert!(times.is_sorted());
            for (fate, (when, _)) in fates.iter().zip(&segments) {
                if let Fate::Leaves(out) = fate {
                    prop_assert!(*out >= at(*when) + impair.delay);
                }
            }
            if impair.rate.is_none() {
                // Held back by jitter at most, one's own or that of one before.
                for (fate, (when, _)) in fates.iter().zip(&segments) {
                    if let Fate::Leaves(out) = fate {
                        prop_assert!(*out <= at(*when) + impair.delay + impair.jitter);
                    }
                }
            }
        }

        /// In no window does more come out than the rate lets through, and one segment that was under way.
        #[test]
        fn a_rate_holds_over_every_window(rate in 64_000u64..50_000_000, segments in segments()) {
            let fates = run(&mut shaper(Impair { rate: Some(rate), ..Impair::default() }), &segments);
            let out: Vec<(u64, u64)> = fates
                .iter()
                .zip(&segments)
                .filter_map(|(fate, (_, bytes))| if let Fate::Leaves(at) = fate { Some((at.0, *bytes)) } else { None })
                .collect();
            for first in 0..out.len() {
                let mut bits = 0u128;
                for next in first + 1..out.len() {
                    bits += u128::from(out[next].1) * 8;
                    let window = u128::from(out[next].0 - out[first].0);
                    prop_assert!(bits * u128::from(SECOND) <= window * u128::from(rate));
                }
            }
        }
    }

    #[test]
    fn loss_is_as_often_as_asked_for() {
        for loss_ppm in [0, 1_000, 10_000, 100_000, 500_000, 999_999, 1_000_000] {
            let mut shaper = shaper(Impair { loss_ppm, seed: Some(9), ..Impair::default() });
            const N: u32 = 200_000;
            for toward in [Toward::Network, Toward::Instance] {
                let lost =
                    (0..N).filter(|_| shaper.segment(at(0), 1, toward, 100) == Fate::Lost(Loss::Chance)).count() as f64;
                let share = f64::from(loss_ppm) / 1e6;
                let (mean, deviation) = (f64::from(N) * share, (f64::from(N) * share * (1.0 - share)).sqrt());
                assert!((lost - mean).abs() <= 4.5 * deviation + 1e-9, "{loss_ppm} ppm: {lost} of {N}");
            }
        }
    }

    #[test]
    fn jitter_is_spread_over_its_range() {
        let mut shaper = shaper(Impair { delay: 5 * MS, jitter: 10 * MS, ..Impair::default() });
        // So far apart that none waits for another.
        let extra: Vec<u64> = (0..10_000u64)
            .map(|n| match shaper.segment(at(n * 100_000), 1, Toward::Network, 100) {
                Fate::Leaves(out) => (out.0 - at(n * 100_000).0) / 1_000 - 5_000,
                Fate::Lost(loss) => panic!("{loss:?}"),
            })
            .collect();
        let mean = extra.iter().sum::<u64>() / 10_000;
        assert!(extra.iter().all(|micros| *micros <= 10_000));
        assert!((4_850..5_150).contains(&mean), "mean {mean} us");
        assert!(*extra.iter().min().unwrap() < 100 && *extra.iter().max().unwrap() > 9_900);
    }

    #[test]
    fn a_rate_sends_all_that_it_can_and_drops_what_would_wait_too_long() {
        // 1 Mbit/s: 1,250 bytes take 10 ms, and 100 of them one second.
        let mut shaper = shaper(Impair { rate: Some(1_000_000), ..Impair::default() });
        let fates: Vec<Fate> = (0..500).map(|_| shaper.segment(at(0), 1, Toward::Network, 1_250)).collect();
        let out = leaving(&fates);
        assert_eq!(out.len(), 101);
        assert!(out.iter().enumerate().all(|(n, out)| *out == Instant::from_millis(10 * (n as u64 + 1))));
        assert!(fates[101..].iter().all(|fate| *fate == Fate::Lost(Loss::Backlog)));
        // The other direction is another lane.
        assert_eq!(shaper.segment(at(0), 1, Toward::Instance, 1_250), Fate::Leaves(Instant::from_millis(10)));
        // Offered twice the rate, the link is never idle: ten seconds carry ten seconds' worth.
        let out = (0..2_000u64).filter(|n| {
            let now = Instant::from_millis(2_000 + n * 5);
            matches!(shaper.segment(now, 1, Toward::Network, 1_250), Fate::Leaves(_))
        });
        assert!((1_095..=1_105).contains(&out.count()));
        // The slowest link still takes a burst.
        let mut slow = self::shaper(Impair { rate: Some(1_000), ..Impair::default() });
        let burst = (0..100).filter(|_| matches!(slow.segment(at(0), 1, Toward::Network, 1_500), Fate::Leaves(_)));
        assert_eq!(burst.count(), 17);
    }

    #[test]
    fn links_follow_one_another() {
        let first = Impair { delay: 10 * MS, rate: Some(8_000_000), ..Impair::default() };
        let second = Impair { delay: 20 * MS, loss_ppm: 200_000, ..Impair::default() };
        let shapes = [Shape::new(&first, "eni-1"), Shape::new(&second, "eni-2")];
        let mut both = Shaper::new(&shapes);
        let mut alone = [Shaper::new(&shapes[..1]), Shaper::new(&shapes[1..])];
        let mut passed = 0;
        for n in 0..1_000u64 {
            let now = at(n * 1_000);
            let Fate::Leaves(between) = both.segment(now, 1, Toward::Network, 1_000) else {
                panic!("lost on the first")
            };
            assert_eq!(alone[0].segment(now, 1, Toward::Network, 1_000), Fate::Leaves(between));
            // 1,000 bytes at 8 Mbit/s are 1 ms.
            assert_eq!(between, now + 11 * MS);
            let end = both.segment(between, 2, Toward::Instance, 1_000);
            assert_eq!(alone[1].segment(between, 1, Toward::Instance, 1_000), end, "links know nothing of one another");
            if let Fate::Leaves(end) = end {
                assert_eq!(end, now + 31 * MS);
                passed += 1;
            }
        }
        assert!((750..850).contains(&passed), "{passed}");
    }

    #[test]
    fn a_link_that_is_down_takes_nothing_and_comes_back_as_it_was() {
        let up = Impair { loss_ppm: 500_000, seed: Some(4), ..Impair::default() };
        let mut expected = shaper(up);
        let mut real = shaper(up);
        let segments: Vec<(u64, u64)> = (0..50).map(|n| (n * 10, 100)).collect();
        assert_eq!(run(&mut real, &segments), run(&mut expected, &segments));
        real.set(&[Shape::new(&Impair { down: true, ..up }, "eni-1")]);
        assert!(run(&mut real, &segments).iter().all(|fate| *fate == Fate::Lost(Loss::Down)));
        real.set(&[Shape::new(&up, "eni-1")]);
        assert_eq!(run(&mut real, &segments), run(&mut expected, &segments), "chance goes on where it was");
    }

    #[test]
    fn another_program_does_not_let_packets_overtake() {
        let slow = Shape::new(&Impair { delay: 50 * MS, ..Impair::default() }, "eni-2");
        let other = Shape::new(&Impair::default(), "eni-1");
        let mut shaper = Shaper::new(&[slow]);
        assert_eq!(shaper.segment(at(0), 1, Toward::Instance, 100), Fate::Leaves(Instant::from_millis(50)));
        let fast = Shape::new(&Impair { delay: MS, ..Impair::default() }, "eni-2");
        shaper.set(&[other, fast]);
        assert_eq!(shaper.segment(at(1), 2, Toward::Instance, 100), Fate::Leaves(Instant::from_millis(50)));
        assert_eq!(shaper.segment(at(60_000), 2, Toward::Instance, 100), Fate::Leaves(Instant::from_millis(61)));
        assert_eq!(shaper.segment(at(1), 1, Toward::Instance, 100), Fate::Leaves(at(1)));
        assert_eq!(shaper.segment(at(1), 3, Toward::Instance, 100), Fate::Leaves(at(1)), "a number nobody has");
        assert_eq!(shaper.segment(at(1), 0, Toward::Instance, 100), Fate::Leaves(at(1)), "no impairment");
    }

    #[test]
    fn links_of_equal_impairments_lose_other_segments() {
        let impair = Impair { loss_ppm: 500_000, seed: Some(1), ..Impair::default() };
        let mut shaper = Shaper::new(&[Shape::new(&impair, "eni-1"), Shape::new(&impair, "eni-2")]);
        let mut lost = |shape, toward| {
            (0..64).fold(0u64, |bits, _| {
                bits << 1 | u64::from(matches!(shaper.segment(at(0), shape, toward, 100), Fate::Lost(_)))
            })
        };
        let all = [lost(1, Toward::Network), lost(1, Toward::Instance), lost(2, Toward::Network)];
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2], "{all:x?}");
    }

    #[test]
    fn superframes_are_judged_by_their_segments() {
        let (a, b) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let payload = vec![7; 14_001];
        let spec = TcpSpec { payload: &payload, ..TcpSpec::new(a, b, tcp_flags::ACK) };
        let frame = make::tcp_superframe(&spec, 1_400);
        let packet = Packet::parse(&frame).expect("a packet");
        let mut fates = Vec::new();
        let mut judge = |impair| {
            let answer = shaper(impair).frame(at(0), 1, Toward::Network, &packet, &mut fates);
            (answer, fates.clone())
        };
        let (whole, fates) = judge(Impair { delay: 3 * MS, ..Impair::default() });
        assert_eq!((whole, fates.len()), (Frame::Leaves(at(3_000)), 11));
        assert_eq!(judge(Impair { loss_ppm: 1_000_000, ..Impair::default() }).0, Frame::Lost);
        assert_eq!(judge(Impair { down: true, ..Impair::default() }).0, Frame::Lost);
        let (cut, fates) = judge(Impair { loss_ppm: 500_000, seed: Some(3), ..Impair::default() });
        assert_eq!(cut, Frame::Cut);
        assert!((1..11).contains(&leaving(&fates).len()));
        // The whole takes as long as all its segments with their headers: bits over bits a second.
        let (cut, fates) = judge(Impair { rate: Some(1_000_000), ..Impair::default() });
        assert_eq!((cut, leaving(&fates).len()), (Frame::Cut, 11));
        assert_eq!(leaving(&fates)[10], Instant(packet.wire_bytes() * 8_000));
    }
}
