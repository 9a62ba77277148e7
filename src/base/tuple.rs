//! What identifies a flow.

use std::fmt;
use std::net::Ipv4Addr;

/// An IP protocol number (IANA registry).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proto(pub u8);

impl Proto {
    pub const ICMP: Proto = Proto(1);
    pub const TCP: Proto = Proto(6);
    pub const UDP: Proto = Proto(17);
}

/// `tcp`, `udp`, `icmp`, otherwise `proto N`.
impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Proto::ICMP => f.write_str("icmp"),
            Proto::TCP => f.write_str("tcp"),
            Proto::UDP => f.write_str("udp"),
            Proto(n) => write!(f, "proto {n}"),
        }
    }
}

impl fmt::Debug for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Addresses and ports as they stand in one packet. For ICMP echo both ports hold the identifier; for other
/// protocols without ports they are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    pub proto: Proto,
    pub src: Ipv4Addr,
    pub src_port: u16,
    pub dst: Ipv4Addr,
    pub dst_port: u16,
}

impl FiveTuple {
    pub const fn tcp(src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> FiveTuple {
        FiveTuple { proto: Proto::TCP, src, src_port, dst, dst_port }
    }

    pub const fn udp(src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> FiveTuple {
        FiveTuple { proto: Proto::UDP, src, src_port, dst, dst_port }
    }

    /// The tuple of the packets that come back.
    pub const fn reversed(self) -> FiveTuple {
        FiveTuple { proto: self.proto, src: self.dst, src_port: self.dst_port, dst: self.src, dst_port: self.src_port }
    }
}

/// `tcp 10.0.1.10:40000 > 10.0.1.25:443`.
impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FiveTuple { proto, src, src_port, dst, dst_port } = self;
        if matches!(*proto, Proto::TCP | Proto::UDP) {
            write!(f, "{proto} {src}:{src_port} > {dst}:{dst_port}")
        } else {
            write!(f, "{proto} {src} > {dst}")
        }
    }
}

impl fmt::Debug for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
