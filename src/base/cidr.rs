//! IPv4 address blocks in CIDR notation (RFC 4632).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 block whose host bits are zero. Ordered by address, then by length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    net: u32,
    len: u8,
}

/// Why a text is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// Not of the form `a.b.c.d/len`.
    Syntax,
    /// The length is over 32.
    Length,
    /// Bits below the prefix are set; the block that was probably meant.
    HostBits(Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::Syntax => write!(f, "not an IPv4 block of the form a.b.c.d/len"),
            CidrError::Length => write!(f, "the prefix length must be 0 to 32"),
            CidrError::HostBits(c) => write!(f, "bits below the prefix are set; the block is {c}"),
        }
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// `0.0.0.0/0`.
    pub const ANY: Cidr = Cidr { net: 0, len: 0 };

    /// The block of `len` bits that holds `addr`; host bits are cleared. `len` over 32 counts as 32.
    pub const fn containing(addr: Ipv4Addr, len: u8) -> Cidr {
        let len = if len > 32 { 32 } else { len };
        Cidr { net: addr.to_bits() & mask_of(len), len }
    }

    /// The block of one address.
    pub const fn host(addr: Ipv4Addr) -> Cidr {
        Cidr { net: addr.to_bits(), len: 32 }
    }

    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.net)
    }

    /// Prefix length in bits, 0 to 32.
    #[allow(clippy::len_without_is_empty, reason = "the length of a prefix, not of a collection")]
    pub const fn len(self) -> u8 {
        self.len
    }

    pub const fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_of(self.len))
    }

    /// The last address: of a subnet, the broadcast address.
    pub const fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.net | !mask_of(self.len))
    }

    /// Number of addresses in the block.
    pub const fn size(self) -> u64 {
        1u64 << (32 - self.len)
    }

    /// The address `n` places after the first, where the block holds it.
    pub fn nth(self, n: u64) -> Option<Ipv4Addr> {
        (n < self.size()).then(|| Ipv4Addr::from_bits(self.net + n as u32))
    }

    pub const fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & mask_of(self.len) == self.net
    }

    /// True if every address of `other` is in `self`.
    pub const fn covers(self, other: Cidr) -> bool {
        self.len <= other.len && other.net & mask_of(self.len) == self.net
    }

    pub const fn overlaps(self, other: Cidr) -> bool {
        self.covers(other) || other.covers(self)
    }
}

const fn mask_of(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Cidr, CidrError> {
        let (addr, len) = s.split_once('/').ok_or(CidrError::Syntax)?;
        let addr: Ipv4Addr = addr.parse().map_err(|_| CidrError::Syntax)?;
        if len.is_empty() || len.len() > 3 || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CidrError::Syntax);
        }
        let len: u16 = len.parse().map_err(|_| CidrError::Syntax)?;
        if len > 32 {
            return Err(CidrError::Length);
        }
        let block = Cidr::containing(addr, len as u8);
        if block.net != addr.to_bits() {
            return Err(CidrError::HostBits(block));
        }
        Ok(block)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(s: &str) -> Cidr {
        s.parse().expect(s)
    }

    #[test]
    fn parses_what_people_write_and_names_the_block_they_meant() {
        assert_eq!(c("10.0.1.0/24").to_string(), "10.0.1.0/24");
        assert_eq!("10.0.1.5/24".parse::<Cidr>(), Err(CidrError::HostBits(c("10.0.1.0/24"))));
        assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Length));
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "::/0", "10.0.0.0/08x"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Syntax), "{bad}");
        }
    }

    #[test]
    fn containment_at_both_ends_of_the_scale() {
        assert!(Cidr::ANY.contains(Ipv4Addr::BROADCAST));
        assert!(c("10.0.0.0/32").contains(Ipv4Addr::new(10, 0, 0, 0)));
        assert!(!c("10.0.0.0/32").contains(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(c("10.0.0.0/16").covers(c("10.0.3.0/24")));
        assert!(c("10.0.3.0/24").overlaps(c("10.0.0.0/16")));
        assert!(!c("10.0.0.0/24").overlaps(c("10.0.1.0/24")));
        assert_eq!(c("10.0.1.0/24").last(), Ipv4Addr::new(10, 0, 1, 255));
        assert_eq!(c("10.0.1.0/30").nth(4), None);
    }
}
