//! Which of several equal parties a flow belongs to, the same for both its directions.

use super::FiveTuple;

/// A number below `n` for a tuple and for its reverse alike, well mixed. `n` of 0 or 1 gives 0.
pub fn steer(tuple: &FiveTuple, n: u32) -> u32 {
    if n < 2 {
        return 0;
    }
    let end = |addr: std::net::Ipv4Addr, port: u16| mix(u64::from(addr.to_bits()) << 16 | u64::from(port));
    let both = end(tuple.src, tuple.src_port).wrapping_add(end(tuple.dst, tuple.dst_port));
    let mixed = mix(both ^ u64::from(tuple.proto.0));
    ((u128::from(mixed) * u128::from(n)) >> 64) as u32
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
