//! The Internet checksum: RFC 1071, and changing it in place, RFC 1624.
//!
//! A *sum* is the folded one's complement sum, not complemented; a *checksum* is its complement, as it stands in a
//! header. Values are in host order: `u16::from_be_bytes` of the field.

use std::net::Ipv4Addr;

use crate::base::Proto;

/// The sum of `bytes`; an odd last byte counts as the upper half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // Words are added in the machine's own order: the result only has its bytes swapped (RFC 1071, 2 (B)). Four lanes
    // of 32-bit words in 64-bit accumulators cannot overflow for any slice below 16 GB.
    let mut lanes = [0u64; 4];
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// One's complement addition of two sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (s, carry) = a.overflowing_add(b);
    s + carry as u16
}

/// The checksum of `bytes`: of an IP header whose checksum field is zero, or of an ICMP message.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The sum of the pseudo header of TCP and UDP (RFC 9293, 3.1): also what a `NEEDS_CSUM` frame carries in its
/// checksum field. `len` is the length of transport header and payload in bytes.
#[inline]
pub fn pseudo_sum(src: Ipv4Addr, dst: Ipv4Addr, proto: Proto, len: u16) -> u16 {
    let (s, d) = (u64::from(src.to_bits()), u64::from(dst.to_bits()));
    fold((s >> 16) + (s & 0xffff) + (d >> 16) + (d & 0xffff) + u64::from(proto.0) + u64::from(len))
}

/// The checksum of a TCP segment, UDP datagram, with its pseudo header. The checksum field in `segment` must be zero
/// to make one; over a received segment the result is 0 when it is right.
#[inline]
pub fn transport(src: Ipv4Addr, dst: Ipv4Addr, proto: Proto, segment: &[u8]) -> u16 {
    !add(pseudo_sum(src, dst, proto, segment.len() as u16), sum(segment))
}

/// A checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// A checksum after one aligned 32-bit word under it changed.
#[inline]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    let upper = update16(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update16(upper, old as u16, new as u16)
}

/// The partial checksum of a `NEEDS_CSUM` frame after an address changed. It is a sum of the pseudo header, so it is
/// not complemented, and ports are not under it.
#[inline]
pub const fn update_partial32(partial: u16, old: u32, new: u32) -> u16 {
    let mut s = add(partial, !((old >> 16) as u16));
    s = add(s, !(old as u16));
    s = add(s, (new >> 16) as u16);
    add(s, new as u16)
}

#[inline]
const fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The algorithm as RFC 1071 writes it, one word at a time.
    fn slow(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for word in bytes.chunks(2) {
            total += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_corner_of_rfc_1624() {
        // Section 4: the older equation gives 0xffff here, which is wrong.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn fast_and_slow_sums_agree(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&bytes), slow(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in prop::collection::vec(any::<u8>(), 20..64), at in 0usize..4, new: u32) {
            // A non-zero word elsewhere, as every real header has one: all-zero data has two representations of zero.
            bytes[0] |= 1;
            let at = 4 + at * 4;
            let before = checksum(&bytes);
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update32(before, old, new), checksum(&bytes));
        }

        #[test]
        fn a_partial_update_equals_a_new_pseudo_sum(src: u32, dst: u32, new: u32, len: u16) {
            let of = |s: u32| pseudo_sum(Ipv4Addr::from_bits(s), Ipv4Addr::from_bits(dst), Proto::TCP, len);
            prop_assert_eq!(update_partial32(of(src), src, new), of(new));
        }
    }
}
