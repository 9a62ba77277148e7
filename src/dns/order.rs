//! Which of several addresses a program tries first.

use std::cmp::Reverse;
use std::net::Ipv4Addr;

use crate::base::Cidr;

/// Puts `addrs` in the order in which `getaddrinfo` of glibc hands them to a program whose source address is `src` in
/// `subnet` (RFC 6724 6, rule 9). glibc counts the common prefix only for destinations in the source's own subnet, so
/// these come first, the nearest-looking one at the head, and the rest keep the answer's order.
pub fn glibc_order(src: Ipv4Addr, subnet: Cidr, addrs: &mut [Ipv4Addr]) {
    addrs.sort_by_key(|dst| Reverse(common_prefix(src, subnet, *dst)));
}

/// True if rule 9 puts `dst` before an address outside the source's subnet, whatever order the answer had.
pub fn glibc_prefers(src: Ipv4Addr, subnet: Cidr, dst: Ipv4Addr) -> bool {
    common_prefix(src, subnet, dst) > 0
}

fn common_prefix(src: Ipv4Addr, subnet: Cidr, dst: Ipv4Addr) -> u32 {
    if subnet.contains(src) && subnet.contains(dst) { (src.to_bits() ^ dst.to_bits()).leading_zeros() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> Ipv4Addr {
        s.parse().expect(s)
    }

    #[test]
    fn the_own_subnets_address_comes_first_and_the_rest_stay() {
        let subnet = "10.0.2.0/24".parse().expect("block");
        let mut addrs = [ip("10.0.1.4"), ip("10.0.3.4"), ip("10.0.2.4")];
        glibc_order(ip("10.0.2.10"), subnet, &mut addrs);
        assert_eq!(addrs, [ip("10.0.2.4"), ip("10.0.1.4"), ip("10.0.3.4")]);
        // 10.0.3.4 shares more bits with 10.0.2.10 than 10.0.1.4 does; outside the subnet that does not count.
        let mut addrs = [ip("10.0.1.4"), ip("10.0.3.4")];
        glibc_order(ip("10.0.2.10"), subnet, &mut addrs);
        assert_eq!(addrs, [ip("10.0.1.4"), ip("10.0.3.4")]);
        assert!(glibc_prefers(ip("10.0.2.10"), subnet, ip("10.0.2.200")));
        assert!(!glibc_prefers(ip("10.0.2.10"), subnet, ip("10.0.3.4")));
    }
}
