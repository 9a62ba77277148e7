//! Time as a value. Only `runtime` makes a clock; everything else is told what time it is.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on a monotonic scale, in nanoseconds since the clock's own origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);
    /// Later than anything that happens: "no deadline".
    pub const NEVER: Instant = Instant(u64::MAX);

    pub const fn from_millis(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// Wall-clock time in whole seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// `2026-11-21T09:06:55Z`: the form of IMDS, STS and SigV4 answers.
    pub fn iso8601(self) -> String {
        let (y, mo, d, h, mi, s) = self.civil();
        format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
    }

    /// Year, month, day, hour, minute, second in UTC (the days-to-civil algorithm of the proleptic Gregorian calendar).
    pub fn civil(self) -> (i64, u32, u32, u32, u32, u32) {
        let days = (self.0 / 86_400) as i64;
        let rest = (self.0 % 86_400) as u32;
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
        let m = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
        let y = yoe + era * 400 + i64::from(m <= 2);
        (y, m, d, rest / 3600, rest / 60 % 60, rest % 60)
    }
}

/// Where time comes from: the OS in `runtime`, a counter in tests.
pub trait Clock: Send + Sync {
    fn now(&self) -> Instant;
    fn unix(&self) -> UnixTime;
}

/// A clock that stands still until it is told to move: for tests, `explain` and benches.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: std::sync::atomic::AtomicU64,
}

impl ManualClock {
    pub fn advance(&self, d: Duration) {
        let nanos = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.nanos.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Counts from 2026-01-01T00:00:00Z.
    fn unix(&self) -> UnixTime {
        UnixTime(1_767_225_600 + self.now().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_of_known_moments() {
        assert_eq!(UnixTime(0).iso8601(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixTime(951_782_400).iso8601(), "2000-02-29T00:00:00Z");
        assert_eq!(UnixTime(1_795_252_015).iso8601(), "2026-11-21T09:06:55Z");
        assert_eq!(ManualClock::default().unix().iso8601(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
    }
}
