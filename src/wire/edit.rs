//! Changes in place that keep checksums right, whole or partial.

use super::csum;
use super::make::put16;
use super::packet::{IP_OFFSET, Packet, tcp_flags};
use super::vnet::{self, VnetHdr};
use crate::base::Proto;

/// Sets the TTL and adjusts the IP header's checksum (RFC 1624). A frame too short for an IPv4 header is left alone.
pub fn set_ttl(frame: &mut [u8], ttl: u8) {
    let Some(ip) = frame.get_mut(IP_OFFSET..IP_OFFSET + 20) else { return };
    let old = u16::from_be_bytes([ip[8], ip[9]]);
    let new = u16::from_be_bytes([ttl, ip[9]]);
    let sum = csum::update16(u16::from_be_bytes([ip[10], ip[11]]), old, new);
    ip[8] = ttl;
    put16(ip, 10, sum);
}

/// Lowers the MSS option of a SYN or SYN-ACK to `mss` where it is larger; true if it was. Never raises it, and adds none
/// where there is none (RFC 9293, 3.7.1: then 536 is meant).
#[inline]
pub fn clamp_mss(frame: &mut [u8], packet: &Packet, mss: u16) -> bool {
    packet.tcp_flags() & tcp_flags::SYN != 0 && lower_mss(frame, packet, mss).is_some()
}

fn lower_mss(frame: &mut [u8], packet: &Packet, mss: u16) -> Option<()> {
    let tcp = frame.get_mut(packet.l4_offset()..packet.l4_offset() + packet.l4_header_len())?;
    let at = tcp_option(tcp, 2, 4)?;
    let old = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if old <= mss {
        return None;
    }
    put16(tcp, at, mss);
    // A partial checksum covers the pseudo header only.
    if !packet.needs_checksum() {
        let sum = u16::from_be_bytes([tcp[16], tcp[17]]);
        // An option may lie at an odd offset: its bytes then stand in two words, which sums alike with bytes swapped.
        let word = |v: u16| if at % 2 == 1 { v.swap_bytes() } else { v };
        put16(tcp, 16, csum::update16(sum, word(old), word(mss)));
    }
    Some(())
}

/// The MSS that a SYN announces.
pub fn mss_of(frame: &[u8], packet: &Packet) -> Option<u16> {
    if packet.tcp_flags() & tcp_flags::SYN == 0 {
        return None;
    }
    let tcp = frame.get(packet.l4_offset()..packet.l4_offset() + packet.l4_header_len())?;
    let at = tcp_option(tcp, 2, 4)?;
    Some(u16::from_be_bytes([tcp[at], tcp[at + 1]]))
}

/// Makes the answer of a ping in place: addresses and type are turned round, and the TTL is the answerer's own.
pub fn answer_echo(frame: &mut [u8], packet: &Packet, ttl: u8) {
    if packet.icmp() != Some((8, 0)) {
        return;
    }
    let at = packet.l4_offset();
    super::nat::rewrite(frame, packet, &packet.tuple().reversed().into());
    set_ttl(frame, ttl);
    let Some(icmp) = frame.get_mut(at..at + 4) else { return };
    icmp[0] = 0;
    if !packet.needs_checksum() {
        let sum = csum::update16(u16::from_be_bytes([icmp[2], icmp[3]]), 8 << 8, 0);
        put16(icmp, 2, sum);
    }
}

/// Makes a whole checksum of a partial one and clears the virtio flag. Superframes are left alone: their packets have
/// checksums of their own, see [`super::gso`].
pub fn finish_checksum(frame: &mut [u8], packet: &Packet) {
    if !packet.needs_checksum() || packet.gso_size() != 0 {
        return;
    }
    let Some(mut hdr) = VnetHdr::read(frame) else { return };
    let start = IP_OFFSET + usize::from(hdr.csum_start);
    let field = usize::from(hdr.csum_offset);
    let end = packet.payload().end;
    let Some(covered) = frame.get_mut(start..end).filter(|covered| covered.len() >= field + 2) else { return };
    // The field holds the pseudo header's sum and is itself under the sum: that is how the two are joined.
    let sum = csum::checksum(covered);
    put16(covered, field, if sum == 0 && packet.proto() == Proto::UDP { 0xffff } else { sum });
    hdr.flags &= !vnet::NEEDS_CSUM;
    (hdr.csum_start, hdr.csum_offset, hdr.hdr_len) = (0, 0, 0);
    hdr.write(frame);
}

/// Offset in a TCP header of the value of an option, by its kind and its length in bytes with kind and length; `None`
/// if the header has none, or its options cannot be read up to it.
#[inline]
pub fn tcp_option(tcp: &[u8], kind: u8, len: u8) -> Option<usize> {
    let mut at = 20;
    loop {
        match *tcp.get(at)? {
            0 => return None,
            1 => at += 1,
            found => {
                let size = *tcp.get(at + 1)?;
                if size < 2 || at + usize::from(size) > tcp.len() {
                    return None;
                }
                if found == kind && size == len {
                    return Some(at + 2);
                }
                at += usize::from(size);
            }
        }
    }
}
