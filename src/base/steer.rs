//! Which of several equal parties a flow belongs to, the same for both its directions.

use super::FiveTuple;

/// A number below `n` for a tuple and for its reverse alike, well mixed. `n` of 0 or 1 gives 0.
///
/// A worker owns the flows whose initiator's tuple steers to it. Whoever gives a flow another tuple (NAT) picks one
/// that steers to the same worker, so that the answers come to it as well.
pub fn steer(tuple: &FiveTuple, n: u32) -> u32 {
    if n < 2 {
        return 0;
    }
    let end = |addr: std::net::Ipv4Addr, port: u16| mix(u64::from(addr.to_bits()) << 16 | u64::from(port));
    let both = end(tuple.src, tuple.src_port).wrapping_add(end(tuple.dst, tuple.dst_port));
    let mixed = mix(both ^ u64::from(tuple.proto.0));
    ((u128::from(mixed) * u128::from(n)) >> 64) as u32
}

/// One of `n` workers that share the flows: number `me`, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    pub n: u32,
    pub me: u32,
}

impl Steer {
    /// The only worker.
    pub const ALONE: Steer = Steer { n: 1, me: 0 };

    /// Do packets of this tuple come to this worker?
    #[inline]
    pub fn is_mine(self, tuple: &FiveTuple) -> bool {
        self.n < 2 || steer(tuple, self.n) == self.me
    }

    /// This worker's part of a number that all workers together may use: the parts differ by one at most and their sum
    /// is the whole.
    pub const fn share(self, whole: u32) -> u32 {
        if self.n < 2 { whole } else { whole / self.n + (self.me < whole % self.n) as u32 }
    }
}

/// The finalizer of splitmix64.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::base::Proto;

    fn tuple(n: u32) -> FiveTuple {
        let (client, port) = (Ipv4Addr::from_bits(0x0a00_0100 + n / 500), 32_768 + (n % 500) as u16);
        FiveTuple::tcp(client, port, Ipv4Addr::new(198, 18, 0, 16), 443)
    }

    #[test]
    fn both_directions_come_to_one_worker() {
        for n in 0..20_000 {
            let mut sent = tuple(n);
            sent.proto = [Proto::TCP, Proto::UDP, Proto::ICMP][n as usize % 3];
            for workers in [0, 1, 2, 3, 4, 7, 64] {
                let owner = steer(&sent, workers);
                assert!(owner < workers.max(1));
                assert_eq!(owner, steer(&sent.reversed(), workers), "{sent} among {workers}");
            }
        }
    }

    #[test]
    fn neighbouring_tuples_spread_evenly() {
        // Ports of one parity only, as Linux chooses them for connections.
        for step in [1, 2] {
            for workers in [2u32, 4, 16] {
                let mut load = vec![0u32; workers as usize];
                for n in (0..80_000).step_by(step) {
                    load[steer(&tuple(n), workers) as usize] += 1;
                }
                let fair = 80_000.0 / step as f64 / f64::from(workers);
                // Five standard deviations of a fair choice.
                let slack = 5.0 * fair.sqrt();
                assert!(load.iter().all(|&got| (f64::from(got) - fair).abs() < slack), "{load:?} of {fair}");
            }
        }
    }

    #[test]
    fn shares_make_the_whole() {
        for n in 1..9 {
            for whole in [0, 1, 3, 1_000, 55_000] {
                let shares: Vec<u32> = (0..n).map(|me| Steer { n, me }.share(whole)).collect();
                assert_eq!(shares.iter().sum::<u32>(), whole);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }
}
