//! The full pipeline beside its targets.
//!
//!     cargo bench --bench pipeline                 nanoseconds, beside the targets
//!     cargo bench --bench pipeline -- --gate       instructions, beside their bounds; exit code 1 if one is over
//!
//! What is compared runs in turn, a slice each, many rounds; of each the fastest slice counts, so a machine that does
//! other things too disturbs little. On is all that a lab has: groups, network ACLs, counters of ENIs, ways, flows and
//! NAT gateways, the logs of drops and of ended flows. A hit includes parsing the packet, checking its sums and, so that
//! it can be sent again, copying 154 bytes.
//!
//! Instructions are counted by valgrind's cachegrind, which does not care what else runs: this program runs itself in it
//! twice with different numbers of packets, and the difference is what packets cost.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant as Clock};

use vpclab::base::{Cidr, Instant};
use vpclab::engine::Lpm;
use vpclab::{base, model};

#[allow(dead_code, reason = "the engine's own tests use the rest")]
#[path = "../src/engine/tests/builder.rs"]
mod builder;
#[path = "../tests/support/counting.rs"]
mod counting;
#[path = "../tests/support/pipeline.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod pipeline;

use pipeline::{MILLION, Million, Work};

#[global_allocator]
static GLOBAL: counting::Counting = counting::Counting;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", name, packets, ..] => {
            let Some(case) = CASES.iter().find(|case| case.name == name) else { return ExitCode::from(2) };
            let mut work = (case.make)();
            (0..packets.parse().expect("a number")).for_each(|_| work());
            ExitCode::SUCCESS
        }
        ["--gate", ..] => gate(),
        // `cargo test --benches` asks only whether it works.
        _ if !args.iter().any(|arg| arg == "--bench") => {
            CASES.iter().for_each(|case| (case.make)()());
            ExitCode::SUCCESS
        }
        _ => {
            packets();
            flows();
            ExitCode::SUCCESS
        }
    }
}

struct Case {
    name: &'static str,
    make: fn() -> Box<dyn FnMut()>,
    /// Instructions a packet at most, a tenth over what was counted when it was last set.
    bound: u64,
}

const CASES: [Case; 9] = [
    Case { name: "hit", make: || packet(Work::hit(false)), bound: 0 },
    Case { name: "hit-nat", make: || packet(Work::hit(true)), bound: 0 },
    Case { name: "miss-10-rules", make: || packet(Work::miss(10)), bound: 0 },
    Case { name: "miss-1000-rules", make: || packet(Work::miss(1_000)), bound: 0 },
    Case { name: "miss-10-tgw-routes", make: || packet(Work::transit(10)), bound: 0 },
    Case { name: "miss-10000-tgw-routes", make: || packet(Work::transit(10_000)), bound: 0 },
    Case { name: "drop", make: || packet(Work::drop()), bound: 0 },
    Case { name: "lookup-10-routes", make: || routes(10), bound: 0 },
    Case { name: "lookup-10000-routes", make: || routes(10_000), bound: 0 },
];

fn packet(mut work: Work) -> Box<dyn FnMut()> {
    Box::new(move || work.run())
}

/// Longest prefix of addresses at random: blocks of /24 and longer ones in them, as routes of many VPCs are.
fn routes(routes: u32) -> Box<dyn FnMut()> {
    let block = |n: u32| {
        let len = if n.is_multiple_of(4) { 26 } else { 24 };
        (Cidr::containing(Ipv4Addr::from_bits(0x0a00_0000 + n * 0x180), len), n)
    };
    let table = Lpm::new(&(0..routes).map(block).collect::<Vec<_>>());
    let (mut random, span) = (1u64, u64::from(routes) * 0x180);
    Box::new(move || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        black_box(table.lookup(0x0a00_0000 + ((random >> 32) * span >> 32) as u32));
    })
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
    for nat in [false, true] {
        let with = if nat { "NAT" } else { "plain" };
        let mut flows = Million::new(nat, Duration::from_secs(10));
        let start = Instant::from_millis(1_000);
        let at = |n: u64| start + Duration::from_nanos(n * 1_000_000_000 / u64::from(RATE));
        let begin = Clock::now();
        let ((), bytes) = counting::held(|| (0..MILLION).for_each(|n| flows.begin(at(u64::from(n)), n)));
        println!("a new one of 1,000,000 flows, {with}: {:.0} ns", begin.elapsed().as_nanos() as f64 / 1e6);
        assert_eq!(flows.engine.flow_count(), MILLION as usize);
        target(&format!("bytes of a flow, {with}"), bytes as f64 / f64::from(MILLION), 160.0, "");

        // Ten seconds of which each begins 100,000 and ends as many, in steps of a millisecond. The fastest second counts.
        let mut best = f64::INFINITY;
        let mut n = u64::from(MILLION);
        for _ in 0..10 {
            let mut spent = Duration::ZERO;
            for _ in 0..1_000 {
                let now = at(n);
                let begin = Clock::now();
                flows.engine.expire(now);
                spent += begin.elapsed();
                while flows.engine.next_closed().is_some() {}
                for _ in 0..RATE / 1_000 {
                    flows.begin(at(n), (n % u64::from(2 * MILLION)) as u32);
                    n += 1;
                }
            }
            best = best.min(spent.as_secs_f64() * 100.0);
        }
        assert!(flows.engine.flow_count() < MILLION as usize + 20_000, "flows end");
        target(&format!("expiry at 100,000 flows a second, {with}"), best, 1.0, "% of a core");
    }
}

fn target(what: &str, is: f64, most: f64, unit: &str) {
    let verdict = if is <= most { "met" } else { "NOT MET" };
    println!("{what}: {is:.2} {unit} (target {most} {unit}): {verdict}");
}

/// Every case under its bound?
fn gate() -> ExitCode {
    let mut failed = false;
    for case in &CASES {
        let (few, many) = (30_000, 40_000);
        let (Some(before), Some(after)) = (instructions(case.name, few), instructions(case.name, many)) else {
            println!("cannot count: valgrind is missing or does not say \"I refs\" (apt-get install valgrind)");
            return ExitCode::from(3);
        };
        let each = (after - before) / (many - few);
        let verdict = if each <= case.bound { "ok" } else { "FAILED" };
        println!("{:24} {each:6} instructions, at most {}: {verdict}", case.name, case.bound);
        failed |= each > case.bound;
    }
    ExitCode::from(u8::from(failed))
}

/// All that a run with so many packets executes.
fn instructions(name: &str, packets: u64) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let out = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", name, &packets.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stderr);
    let line =
        text.lines().find(|line| line.contains("I ") && line.contains("refs:")).filter(|_| out.status.success())?;
    line.split("refs:").nth(1)?.trim().replace(',', "").parse().ok()
}
