//! The full pipeline beside its targets.
//!
//!     cargo bench --bench pipeline
//!
//! What is compared runs in turn, a slice each, many rounds; of each the fastest slice counts, so a machine that does
//! other things too disturbs little. On is all that a lab has: groups, network ACLs, counters of ENIs, ways, flows and
//! NAT gateways, the logs of drops and of ended flows. A hit includes parsing the packet, checking its sums and, so that
//! it can be sent again, copying 154 bytes. `tests/run gate` holds the same cases to numbers of instructions.

use std::time::{Duration, Instant as Clock};

use vpclab::base::Instant;
use vpclab::{base, model};

#[allow(dead_code, reason = "the engine's own tests use the rest")]
#[path = "../src/engine/tests/builder.rs"]
mod builder;
#[path = "support/cases.rs"]
mod cases;
#[path = "../tests/support/counting.rs"]
mod counting;
#[path = "../tests/support/pipeline.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod pipeline;

use cases::CASES;
use pipeline::{MILLION, Million, To};

#[global_allocator]
static GLOBAL: counting::Counting = counting::Counting;

fn main() {
    if std::env::args().any(|arg| arg == "--bench") {
        packets();
        flows();
    } else {
        // `cargo test --benches` asks only whether it works.
        CASES.iter().for_each(|case| (case.make)()());
    }
}

/// Nanoseconds a packet of each case, the fastest of many slices taken in turn.
fn packets() {
    const ROUNDS: usize = 60;
    let mut works: Vec<_> = CASES.iter().map(|case| (case.make)()).collect();
    let mut best = [f64::INFINITY; CASES.len()];
    for round in 0..ROUNDS {
        for (work, best) in works.iter_mut().zip(&mut best) {
            let slice = if round == 0 { 20_000 } else { 5_000 };
            let begin = Clock::now();
            (0..slice).for_each(|_| work());
            let nanos = begin.elapsed().as_nanos() as f64 / f64::from(slice);
            if round > 0 {
                *best = best.min(nanos);
            }
        }
    }
    for (case, nanos) in CASES.iter().zip(best) {
        println!("{:24} {nanos:7.1} ns", case.name);
    }
    let of = |name: &str| best[CASES.iter().position(|case| case.name == name).expect("a case")];
    target("hit with NAT, flow and NAT counters", of("hit-nat"), 60.0, "ns");
    target("NAT above plain", of("hit-nat") - of("hit"), 40.0, "ns");
    target("1,000 rules over 10", of("miss-1000-rules") / of("miss-10-rules"), 1.5, "times");
    target("longest of 10,000 routes", of("lookup-10000-routes"), 20.0, "ns");
}

/// A million flows: what each costs in memory and to enter, and what ending 100,000 a second costs.
fn flows() {
    const RATE: u32 = 100_000;
    const SECONDS: u32 = 9;
    for (to, with) in [(To::Peer, "plain"), (To::Host, "NAT"), (To::Hosts, "NAT, a destination each")] {
        let mut flows = Million::new(to, Duration::from_secs(10));
        let start = Instant::from_millis(1_000);
        let at = |n: u32| start + Duration::from_nanos(u64::from(n) * 1_000_000_000 / u64::from(RATE));
        let begin = Clock::now();
        let ((), bytes) = counting::held(|| (0..MILLION).for_each(|n| flows.begin(at(n), n)));
        println!("a new one of 1,000,000 flows, {with}: {:.0} ns", begin.elapsed().as_nanos() as f64 / 1e6);
        assert_eq!(flows.engine.flow_count(), MILLION as usize);
        target(&format!("bytes of a flow, {with}"), bytes as f64 / f64::from(MILLION), 160.0, "");

        // Seconds of which each begins 100,000 flows that were never there before and ends as many of ten seconds ago, in
        // steps of a millisecond. The fastest quarter of a second counts, by what it ended.
        let mut best = f64::INFINITY;
        let (mut n, mut ended) = (MILLION, 0);
        for _ in 0..SECONDS * 4 {
            let (mut spent, before) = (Duration::ZERO, ended);
            for _ in 0..250 {
                let now = at(n);
                let begin = Clock::now();
                flows.engine.expire(now);
                spent += begin.elapsed();
                ended += std::iter::from_fn(|| flows.engine.next_closed()).count();
                for _ in 0..RATE / 1_000 {
                    flows.begin(at(n), n);
                    n += 1;
                }
            }
            if ended > before {
                best = best.min(spent.as_secs_f64() * 100.0 * f64::from(RATE) / (ended - before) as f64);
            }
        }
        // By the wheel's precision, and by what one call ends, some are still to come.
        let late = (RATE * SECONDS) as usize - ended;
        assert!(late < 30_000, "{ended} flows ended in {SECONDS} seconds");
        assert_eq!(flows.engine.flow_count(), MILLION as usize + late, "only `expire` ends flows");
        target(&format!("expiry at 100,000 flows a second, {with}"), best, 1.0, "% of a core");
    }
}

fn target(what: &str, is: f64, most: f64, unit: &str) {
    let verdict = if is <= most { "met" } else { "NOT MET" };
    println!("{what}: {is:.2} {unit} (target {most} {unit}): {verdict}");
}
