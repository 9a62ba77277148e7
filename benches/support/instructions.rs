//! Instructions that packets cost, beside their bounds. Exit code 1: one is over; 3: nothing could be counted.
//!
//!     tests/run gate
//!
//! Valgrind's cachegrind counts, and does not care what else the machine does: this program runs itself in it twice with
//! different numbers of packets, and the difference is what packets cost. Counted is all that `handle` does for one,
//! and what stands around it: copying the packet, and, where flows end, `expire`.
//!
//! It is an example for cargo and has the rooms that packets pass in itself, so that these alone have to be built
//! optimised, which takes part of a minute; the library and the program would take several. The bounds are for that build.

#![allow(dead_code, unused_imports, reason = "most of the rooms is for others")]
#![allow(clippy::semicolon_if_nothing_returned, reason = "the library is where the rooms are linted")]

use std::process::{Command, ExitCode};

#[path = "../../src/base/mod.rs"]
mod base;
#[path = "../../src/engine/tests/builder.rs"]
mod builder;
mod cases;
#[path = "../../src/engine/mod.rs"]
mod engine;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../tests/support/pipeline.rs"]
mod pipeline;
#[path = "../../src/wire/mod.rs"]
mod wire;

// What the cases call so.
extern crate self as vpclab;

use cases::CASES;

/// Of each case, in its order: a tenth over what was counted when it was last set.
const BOUNDS: [u64; CASES.len()] = [1_210, 1_550, 4_920, 4_960, 5_390, 5_360, 3_070, 106, 74];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", name, packets] => run(name, packets),
        _ => gate(),
    }
}

/// Every case under its bound?
fn gate() -> ExitCode {
    let mut failed = false;
    for (case, bound) in CASES.iter().zip(BOUNDS) {
        let (few, many) = (20_000, 30_000);
        let (Some(before), Some(after)) = (instructions(case.name, few), instructions(case.name, many)) else {
            println!("cannot count: valgrind is missing or does not say \"I refs\"");
            return ExitCode::from(3);
        };
        let each = (after - before) / (many - few);
        let verdict = if each <= bound { "ok" } else { "FAILED" };
        println!("{:24} {each:6} instructions, at most {bound}: {verdict}", case.name);
        failed |= each > bound;
    }
    ExitCode::from(u8::from(failed))
}

fn run(name: &str, packets: &str) -> ExitCode {
    let (Some(case), Ok(packets)) = (CASES.iter().find(|case| case.name == name), packets.parse()) else {
        return ExitCode::from(2);
    };
    let mut work = (case.make)();
    (0..packets).for_each(|_: u64| work());
    ExitCode::SUCCESS
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
