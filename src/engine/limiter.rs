//! The limit on packets to link-local services: 1,024 a second and ENI (EC2 User Guide, "link-local addresses"), DNS,
//! IMDS and the rest together. What is over it is dropped.

use crate::base::Instant;

/// A token bucket that holds one second's worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    /// When the bucket would be full again: now, or later by what was taken.
    full_at: Instant,
}

impl Limiter {
    pub(crate) const fn new() -> Limiter {
        Limiter { full_at: Instant::ZERO }
    }

    /// Takes `packets` tokens if they are there. `rate` is in packets a second; 0 lets nothing pass.
    #[inline]
    pub(crate) fn take(&mut self, now: Instant, rate: u32, packets: u32) -> bool {
        const SECOND: u64 = 1_000_000_000;
        if rate == 0 {
            return false;
        }
        let cost = SECOND / u64::from(rate) * u64::from(packets);
        let full_at = self.full_at.max(now).0.saturating_add(cost);
        if full_at - now.0 > SECOND {
            return false;
        }
        self.full_at = Instant(full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_worth_at_once_then_the_rate() {
        let mut limiter = Limiter::new();
        let start = Instant::from_millis(5_000);
        let passed = (0..3_000).filter(|_| limiter.take(start, 1_024, 1)).count();
        assert_eq!(passed, 1_024);
        let later = Instant::from_millis(5_500);
        let passed = (0..3_000).filter(|_| limiter.take(later, 1_024, 1)).count();
        assert!((511..=513).contains(&passed), "{passed} after half a second");
        assert!(!limiter.take(later, 0, 1));
    }
}
