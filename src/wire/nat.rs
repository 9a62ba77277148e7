//! Translation in place: addresses, ports, the identifier of a ping, TTL, and the packet that an ICMP error quotes.
//! Checksums are changed by what changed under them (RFC 1624), never made anew: a wrong one stays wrong, so that the
//! receiver still sees it. Old values are read from the frame, so several changes may follow each other with one
//! [`Packet`]; what it says of the tuple and the TTL is of before the first.

use std::net::Ipv4Addr;

use super::make::put16;
use super::packet::{IP_OFFSET, Packet};
use crate::base::{FiveTuple, Proto};

/// What a packet's addresses and ports are to be. A ping has its identifier in both ports, as in [`FiveTuple`]; where a
/// packet has no ports they are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub src: Ipv4Addr,
    pub src_port: u16,
    pub dst: Ipv4Addr,
    pub dst_port: u16,
}

impl From<FiveTuple> for Rewrite {
    fn from(tuple: FiveTuple) -> Rewrite {
        let FiveTuple { src, src_port, dst, dst_port, .. } = tuple;
        Rewrite { src, src_port, dst, dst_port }
    }
}

/// Gives a packet, plain or superframe, new addresses and ports, with its checksums right, whole or partial. A first
/// fragment keeps the datagram's checksum right as well; a later one has addresses only. A UDP datagram without
/// checksum stays without. `packet` must be this frame's.
#[inline]
pub fn rewrite(frame: &mut [u8], packet: &Packet, to: &Rewrite) {
    let l4 = packet.l4_offset();
    let Some((ip, transport)) = frame.split_at_mut_checked(l4) else { return };
    let Some(ip) = ip.get_mut(IP_OFFSET..) else { return };
    let addresses = readdress(ip, to);
    if packet.l4_header_len() != 0 {
        let kind = if packet.needs_checksum() { Sum::Partial } else { Sum::Whole };
        retransport(transport, packet.proto(), to, addresses, kind);
    }
}

/// Takes `by` hops off the TTL and gives what is left; 0 means that the packet ends here (RFC 1812, 5.3.1).
#[inline]
pub fn ttl(frame: &mut [u8], packet: &Packet, by: u8) -> u8 {
    let Some(ip) = frame.get_mut(IP_OFFSET..packet.l4_offset()).filter(|ip| ip.len() >= 20) else { return 0 };
    let left = ip[8].saturating_sub(by);
    let mut delta = Delta::default();
    delta.word(u16::from_be_bytes([ip[8], ip[9]]), u16::from_be_bytes([left, ip[9]]));
    ip[8] = left;
    delta.apply(ip, 10, Sum::Whole);
    left
}

/// The tuple of the packet that an ICMP error quotes, as the host sent it that the error goes to, and its ICMP type if
/// it is ICMP. `None` if this is no ICMP error, or a fragment, or the quote is no IPv4 header with 8 bytes behind it.
/// A quoted later fragment has no ports.
pub fn quoted(frame: &[u8], packet: &Packet) -> Option<(FiveTuple, Option<u8>)> {
    if !packet.is_icmp_error() || packet.is_fragment() {
        return None;
    }
    let quote = frame.get(packet.payload())?;
    let ihl = quote_header_len(quote)?;
    let l4 = quote.get(ihl..)?.first_chunk::<8>()?;
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
    let proto = Proto(quote[9]);
    let (src_port, dst_port, icmp) = match proto {
        _ if is_later_fragment(quote) => (0, 0, None),
        Proto::TCP | Proto::UDP => (word(0), word(2), None),
        Proto::ICMP if matches!(l4[0], 0 | 8) => (word(4), word(4), Some(l4[0])),
        Proto::ICMP => (0, 0, Some(l4[0])),
        _ => (0, 0, None),
    };
    Some((FiveTuple { proto, src: address(12), src_port, dst: address(16), dst_port }, icmp))
}

/// Translates an ICMP error: `outer` is for its own addresses, `inner` for the packet it quotes, as that packet is to
/// stand there: sent by the host that the error goes to (RFC 5508, 4.2). As much of the quoted transport header as is
/// there is changed with its checksum. False, and nothing is changed, if this is no ICMP error with a quote.
pub fn rewrite_quote(frame: &mut [u8], packet: &Packet, outer: &Rewrite, inner: &Rewrite) -> bool {
    if !packet.is_icmp_error() {
        return false;
    }
    let payload = packet.payload();
    let Some(ihl) = frame.get(payload.clone()).and_then(quote_header_len) else { return false };
    rewrite(frame, packet, outer);

    let Some(message) = frame.get_mut(packet.l4_offset()..payload.end) else { return false };
    let (icmp, quote) = message.split_at_mut(8);
    let mut delta = Delta::default();
    let (ip, transport) = quote.split_at_mut(ihl);
    let (ip_sum, proto, later) = (word(ip, 10), Proto(ip[9]), is_later_fragment(ip));
    let addresses = readdress(ip, inner);
    delta.add(addresses);
    delta.word(ip_sum, word(ip, 10));
    if !later {
        delta.add(retransport(transport, proto, inner, addresses, Sum::Whole));
    }
    if !packet.needs_checksum() {
        delta.apply(icmp, 2, Sum::Whole);
    }
    true
}

/// How a checksum stands in its field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sum {
    Whole,
    /// `NEEDS_CSUM`: the pseudo header's sum, not complemented; nothing else is under it. The kernel changes it alike
    /// (`inet_proto_csum_replace4`).
    Partial,
}

/// The one's complement sum of what changed: minus the old words, plus the new ones. Not folded: a handful of words
/// cannot overflow it.
#[derive(Clone, Copy, Default)]
struct Delta(u32);

impl Delta {
    #[inline]
    fn word(&mut self, old: u16, new: u16) {
        self.0 += u32::from(!old) + u32::from(new);
    }

    #[inline]
    fn add(&mut self, other: Delta) {
        self.0 += u32::from(fold(other.0));
    }

    /// Changes the checksum at `at`.
    #[inline]
    fn apply(self, bytes: &mut [u8], at: usize, kind: Sum) {
        let field = word(bytes, at);
        let changed = match kind {
            Sum::Whole => !fold(u32::from(!field) + self.0),
            Sum::Partial => fold(u32::from(field) + self.0),
        };
        put16(bytes, at, changed);
    }
}

/// New addresses in an IP header, and its checksum. `ip` has at least 20 bytes.
#[inline]
fn readdress(ip: &mut [u8], to: &Rewrite) -> Delta {
    let mut delta = Delta::default();
    for (at, new) in [(12, to.src.octets()), (16, to.dst.octets())] {
        delta.word(word(ip, at), u16::from_be_bytes([new[0], new[1]]));
        delta.word(word(ip, at + 2), u16::from_be_bytes([new[2], new[3]]));
        ip[at..at + 4].copy_from_slice(&new);
    }
    delta.apply(ip, 10, Sum::Whole);
    delta
}

/// New ports or a new identifier in a transport header, of which there may be only the beginning, and its checksum
/// after `addresses` changed as well. What changed in the header in all.
#[inline]
fn retransport(l4: &mut [u8], proto: Proto, to: &Rewrite, addresses: Delta, kind: Sum) -> Delta {
    let mut all = Delta::default();
    if proto == Proto::ICMP {
        // No pseudo header. A partial checksum of it would cover nothing yet.
        if l4.len() >= 6 && matches!(l4[0], 0 | 8) {
            all.word(word(l4, 4), to.src_port);
            put16(l4, 4, to.src_port);
            if kind == Sum::Whole {
                let old = word(l4, 2);
                all.apply(l4, 2, Sum::Whole);
                all.word(old, word(l4, 2));
            }
        }
        return all;
    }
    let field = match proto {
        Proto::TCP => 16,
        Proto::UDP => 6,
        _ => return all,
    };
    if l4.len() < 4 {
        return all;
    }
    all.word(word(l4, 0), to.src_port);
    all.word(word(l4, 2), to.dst_port);
    put16(l4, 0, to.src_port);
    put16(l4, 2, to.dst_port);
    if l4.len() < field + 2 {
        return all;
    }
    let old = word(l4, field);
    // RFC 768: no checksum.
    if proto == Proto::UDP && old == 0 && kind == Sum::Whole {
        return all;
    }
    let mut under = addresses;
    if kind == Sum::Whole {
        under.add(all);
    }
    under.apply(l4, field, kind);
    if proto == Proto::UDP && word(l4, field) == 0 {
        put16(l4, field, 0xffff);
    }
    all.word(old, word(l4, field));
    all
}

/// Bytes of the quoted IP header, if there is one and all of it.
fn quote_header_len(quote: &[u8]) -> Option<usize> {
    let head = quote.first_chunk::<20>()?;
    let ihl = usize::from(head[0] & 15) * 4;
    (head[0] >> 4 == 4 && ihl >= 20 && ihl <= quote.len()).then_some(ihl)
}

fn is_later_fragment(ip: &[u8]) -> bool {
    word(ip, 6) & 0x1fff != 0
}

#[inline]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    (once + (once >> 16)) as u16
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
