//! The operating system's clocks: the only place where time comes from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::{Clock, Instant, UnixTime};

/// Monotonic time counted from the making of the clock; copies share the origin, so their moments compare.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    origin: std::time::Instant,
    /// Wall clock at the origin: turns past moments into dates.
    origin_unix: Duration,
}

impl OsClock {
    pub fn new() -> OsClock {
        OsClock { origin: std::time::Instant::now(), origin_unix: wall() }
    }

    /// Milliseconds since 1970 of a moment of this clock. A wall clock that was set in between is not followed, so that
    /// differences of printed times stay true.
    pub fn unix_ms(&self, at: Instant) -> u64 {
        u64::try_from(self.origin_unix.as_millis()).unwrap_or(u64::MAX).saturating_add(at.as_millis())
    }

    /// The same in nanoseconds.
    pub fn unix_ns(&self, at: Instant) -> u64 {
        u64::try_from(self.origin_unix.as_nanos()).unwrap_or(u64::MAX).saturating_add(at.0)
    }
}

impl Default for OsClock {
    fn default() -> OsClock {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn unix(&self) -> UnixTime {
        UnixTime(wall().as_secs())
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
