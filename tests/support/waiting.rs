//! The one wait of the tests for what tells nobody that it has come about: a process that is gone from `/proc`, a
//! counter of the router, a file that a kernel removed. Where there is an event (a line on a pipe, the end of a process,
//! an answer), tests wait for that instead.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use std::time::{Duration, Instant};

/// Looks again until it is so, for 20 seconds at most.
#[track_caller]
pub fn await_that(what: &str, mut is: impl FnMut() -> bool) {
    await_state(what, || if is() { Ok(()) } else { Err("it is not so") });
}

/// The same of something that can say how it is: `look` gives what was waited for, or the state that is not yet it.
#[track_caller]
pub fn await_state<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        let waited = match look() {
            Ok(found) => return found,
            Err(state) => {
                let waited = began.elapsed();
                assert!(waited < Duration::from_secs(20), "in vain: {what}: {state:?}");
                waited
            }
        };
        // What is quick is seen at once, what is slow is not disturbed.
        let quick = waited < Duration::from_millis(200);
        std::thread::sleep(Duration::from_millis(if quick { 1 } else { 20 }));
    }
}
