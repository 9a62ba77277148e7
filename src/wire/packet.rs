//! One packet, validated once. What the engine asks of every packet is kept as plain values and offsets, so that no
//! later step parses or can fail.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::csum;
use super::vnet::{self, VnetHdr};
use crate::base::{FiveTuple, Proto};

/// TCP flags as they stand in the header's 14th byte (RFC 9293, 3.1).
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// Bytes of an IPv4 header without options.
pub const IPV4_MIN: usize = 20;
/// First byte of the IP packet in a frame.
pub const IP_OFFSET: usize = vnet::LEN;

/// The facts of one valid IPv4 packet. They hold for the frame they were parsed from and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    tuple: FiveTuple,
    total_len: u16,
    /// Frame offset one past the last byte that counts: for UDP the datagram's end, else the packet's.
    end: u32,
    fragment: u16,
    gso_size: u16,
    ihl: u8,
    l4_len: u8,
    ttl: u8,
    tcp_flags: u8,
    icmp_type: u8,
    icmp_code: u8,
    vnet_flags: u8,
    gso_kind: u8,
}

/// Why a frame is no packet that can be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than the headers it must have.
    Short,
    /// An IPv6 packet: well formed perhaps, but no lab network carries it.
    Ipv6,
    /// Neither version 4 nor 6.
    Version,
    /// The IP header's own length is under 20 bytes or over the packet's.
    HeaderLength,
    /// The total length is under the header's or over what the frame holds.
    TotalLength,
    /// The TCP, UDP or ICMP header is cut off or contradicts itself.
    Transport,
    /// A fragment that ends beyond 65,535 bytes, or one that is not the last and no multiple of 8 (RFC 791).
    Fragment,
    /// The virtio header does not fit the packet.
    Vnet,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Malformed::Short => "shorter than its headers",
            Malformed::Ipv6 => "IPv6",
            Malformed::Version => "neither IPv4 nor IPv6",
            Malformed::HeaderLength => "wrong IP header length",
            Malformed::TotalLength => "wrong IP total length",
            Malformed::Transport => "wrong transport header",
            Malformed::Fragment => "impossible fragment",
            Malformed::Vnet => "virtio header does not fit the packet",
        })
    }
}

impl std::error::Error for Malformed {}

impl Packet {
    /// Validates a frame: virtio header, IPv4 header with options, fragment fields, and the header of TCP, UDP or
    /// ICMP. Checksums are not looked at: see [`Packet::verify_checksums`]. Bytes after the IP total length are
    /// ignored. Never panics, whatever the bytes.
    // Inlined always: as a call, handing the result over through memory takes five times what reading it does
    // (20 ns against 3.6, `benches/wire.rs`).
    #[inline(always)]
    pub fn parse(frame: &[u8]) -> Result<Packet, Malformed> {
        let hdr = VnetHdr::read(frame).ok_or(Malformed::Short)?;
        let ip = &frame[IP_OFFSET..];
        match ip.first().ok_or(Malformed::Short)? >> 4 {
            4 => {}
            6 => return Err(Malformed::Ipv6),
            _ => return Err(Malformed::Version),
        }
        let head = ip.first_chunk::<IPV4_MIN>().ok_or(Malformed::Short)?;
        let ihl = usize::from(head[0] & 15) * 4;
        let total = usize::from(be16(head, 2));
        if ihl < IPV4_MIN {
            return Err(Malformed::HeaderLength);
        }
        if total < ihl || total > ip.len() {
            return Err(Malformed::TotalLength);
        }
        let l4 = &ip[ihl..total];
        let fragment = be16(head, 6);
        let proto = Proto(head[9]);
        let addr = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
        let is_fragment = fragment & 0x3fff != 0;
        if is_fragment && bad_fragment(fragment, ihl, l4.len()) {
            return Err(Malformed::Fragment);
        }
        let transport =
            if fragment & 0x1fff == 0 { read_transport(proto, fragment, l4)? } else { Transport::default() };
        let (gso_kind, gso_size) = if (hdr.flags & vnet::NEEDS_CSUM) | hdr.gso_type == 0 {
            (vnet::GSO_NONE, 0)
        } else {
            check_vnet(&hdr, proto, ihl, total, is_fragment)?
        };
        // Made at once from values, not field by field: a packet is copied right after, and the processor cannot
        // forward many small stores to a wide load.
        Ok(Packet {
            tuple: FiveTuple {
                proto,
                src: addr(12),
                src_port: transport.src_port,
                dst: addr(16),
                dst_port: transport.dst_port,
            },
            total_len: total as u16,
            end: (IP_OFFSET + total) as u32 - transport.unused,
            fragment,
            gso_size,
            ihl: ihl as u8,
            l4_len: transport.header_len,
            ttl: head[8],
            tcp_flags: transport.tcp_flags,
            icmp_type: transport.icmp_type,
            icmp_code: transport.icmp_code,
            vnet_flags: hdr.flags,
            gso_kind,
        })
    }

    /// Addresses and ports. ICMP echo has its identifier in both ports; ICMP errors, later fragments and other
    /// protocols have 0.
    #[inline]
    pub const fn tuple(&self) -> FiveTuple {
        self.tuple
    }

    #[inline]
    pub const fn proto(&self) -> Proto {
        self.tuple.proto
    }

    /// The IP total length in bytes; of a superframe, of the whole.
    #[inline]
    pub const fn total_len(&self) -> usize {
        self.total_len as usize
    }

    /// Virtio header and packet: what a write must contain.
    #[inline]
    pub const fn frame_len(&self) -> usize {
        IP_OFFSET + self.total_len as usize
    }

    /// Bytes of the IP header, options included.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.ihl as usize
    }

    /// Frame offset of the transport header (of the payload, where there is none).
    #[inline]
    pub const fn l4_offset(&self) -> usize {
        IP_OFFSET + self.ihl as usize
    }

    /// Bytes of the TCP header with options, 8 for UDP and ICMP, 0 where no transport header was read.
    #[inline]
    pub const fn l4_header_len(&self) -> usize {
        self.l4_len as usize
    }

    /// Frame range of the bytes after the transport header.
    #[inline]
    pub const fn payload(&self) -> Range<usize> {
        self.l4_offset() + self.l4_len as usize..self.end as usize
    }

    /// Length of [`Packet::payload`] in bytes.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        self.end as usize - self.l4_offset() - self.l4_len as usize
    }

    /// The bits of [`tcp_flags`]; 0 if this is not TCP.
    #[inline]
    pub const fn tcp_flags(&self) -> u8 {
        self.tcp_flags
    }

    /// A TCP segment that begins a connection: SYN without ACK, RST or FIN.
    #[inline]
    pub const fn is_tcp_syn(&self) -> bool {
        use tcp_flags::*;
        self.tcp_flags & (SYN | ACK | RST | FIN) == SYN
    }

    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Part of a fragmented packet, the first part included.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.fragment & 0x3fff != 0
    }

    /// Position of this fragment's data in bytes; 0 for whole packets and first fragments.
    #[inline]
    pub const fn fragment_offset(&self) -> u16 {
        (self.fragment & 0x1fff) << 3
    }

    /// More fragments follow.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.fragment & 0x2000 != 0
    }

    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.fragment & 0x4000 != 0
    }

    /// Type and code of an ICMP message whose header is here.
    #[inline]
    pub fn icmp(&self) -> Option<(u8, u8)> {
        (self.tuple.proto == Proto::ICMP && self.l4_len != 0).then_some((self.icmp_type, self.icmp_code))
    }

    /// An ICMP echo request (8) or reply (0).
    #[inline]
    pub fn is_icmp_echo(&self) -> bool {
        self.icmp().is_some_and(|(kind, _)| kind == 8 || kind == 0)
    }

    /// An ICMP message that quotes another packet: unreachable, redirect, time exceeded, parameter problem, quench.
    #[inline]
    pub fn is_icmp_error(&self) -> bool {
        self.icmp().is_some_and(|(kind, _)| matches!(kind, 3 | 4 | 5 | 11 | 12))
    }

    /// Payload bytes of each packet a superframe stands for; 0 for a plain frame.
    #[inline]
    pub const fn gso_size(&self) -> u16 {
        self.gso_size
    }

    /// Kind of superframe, as in [`vnet`] without the ECN bit.
    #[inline]
    pub const fn gso_kind(&self) -> u8 {
        self.gso_kind
    }

    /// The transport checksum is only the pseudo header's sum.
    #[inline]
    pub const fn needs_checksum(&self) -> bool {
        self.vnet_flags & vnet::NEEDS_CSUM != 0
    }

    /// How many packets this frame stands for: 1 unless it is a superframe.
    #[inline]
    pub const fn segments(&self) -> u32 {
        if self.gso_size == 0 {
            return 1;
        }
        let n = (self.payload_len() as u32).div_ceil(self.gso_size as u32);
        if n == 0 { 1 } else { n }
    }

    /// IP bytes on the wire once segmented: every packet has its own headers.
    #[inline]
    pub const fn wire_bytes(&self) -> u64 {
        let headers = self.ihl as u64 + self.l4_len as u64;
        self.total_len as u64 + (self.segments() as u64 - 1) * headers
    }

    /// IP total length of the largest packet this frame stands for: what an MTU is compared with.
    #[inline]
    pub const fn max_segment_ip_len(&self) -> usize {
        let segment = self.ihl as usize + self.l4_len as usize + self.gso_size as usize;
        if self.gso_size == 0 || segment > self.total_len as usize { self.total_len as usize } else { segment }
    }

    /// TCP sequence number; 0 if this is not TCP.
    #[inline]
    pub fn tcp_seq(&self, frame: &[u8]) -> u32 {
        self.tcp_word(frame, 4)
    }

    /// TCP acknowledgement number; 0 if this is not TCP.
    #[inline]
    pub fn tcp_ack(&self, frame: &[u8]) -> u32 {
        self.tcp_word(frame, 8)
    }

    /// TCP window as it stands in the header, unscaled; 0 if this is not TCP.
    #[inline]
    pub fn tcp_window(&self, frame: &[u8]) -> u16 {
        (self.tcp_word(frame, 12) & 0xffff) as u16
    }

    fn tcp_word(&self, frame: &[u8], at: usize) -> u32 {
        if self.tuple.proto != Proto::TCP || self.l4_len == 0 {
            return 0;
        }
        let word = frame.get(self.l4_offset() + at..).and_then(|b| b.first_chunk::<4>());
        word.map_or(0, |b| u32::from_be_bytes(*b))
    }

    /// Sequence space this segment takes: payload, and one each for SYN and FIN (RFC 9293, 3.4).
    #[inline]
    pub const fn tcp_sequence_len(&self) -> u32 {
        let flags = (self.tcp_flags & tcp_flags::SYN != 0) as u32 + (self.tcp_flags & tcp_flags::FIN != 0) as u32;
        self.payload_len() as u32 + flags
    }

    /// Are the checksums right? The IP header's always counts. The transport's counts only if the virtio header does
    /// not vouch for it (`NEEDS_CSUM`: not yet made; `DATA_VALID`: already verified), if the packet is no fragment,
    /// and, for UDP, if there is one (RFC 768: 0 is none).
    pub fn verify_checksums(&self, frame: &[u8]) -> bool {
        let (Some(header), Some(l4)) =
            (frame.get(IP_OFFSET..self.l4_offset()), frame.get(self.l4_offset()..self.end as usize))
        else {
            return false;
        };
        if csum::checksum(header) != 0 {
            return false;
        }
        if self.vnet_flags & (vnet::NEEDS_CSUM | vnet::DATA_VALID) != 0 || self.is_fragment() {
            return true;
        }
        match self.tuple.proto {
            Proto::UDP if l4[6] == 0 && l4[7] == 0 => true,
            Proto::TCP | Proto::UDP => csum::transport(self.tuple.src, self.tuple.dst, self.tuple.proto, l4) == 0,
            Proto::ICMP => csum::checksum(l4) == 0,
            _ => true,
        }
    }
}

/// [`Packet::verify_checksums`] for a frame that is not parsed yet; false if it is malformed.
pub fn verify_checksums(frame: &[u8]) -> bool {
    Packet::parse(frame).is_ok_and(|packet| packet.verify_checksums(frame))
}

/// What the header of TCP, UDP or ICMP says.
#[derive(Clone, Copy, Default)]
struct Transport {
    src_port: u16,
    dst_port: u16,
    header_len: u8,
    tcp_flags: u8,
    icmp_type: u8,
    icmp_code: u8,
    /// Bytes of the IP packet behind a UDP datagram.
    unused: u32,
}

#[inline(always)]
fn read_transport(proto: Proto, fragment: u16, l4: &[u8]) -> Result<Transport, Malformed> {
    match proto {
        Proto::TCP => {
            let head = l4.first_chunk::<20>().ok_or(Malformed::Transport)?;
            let len = usize::from(head[12] >> 4) * 4;
            if len < 20 || len > l4.len() {
                return Err(Malformed::Transport);
            }
            Ok(Transport {
                src_port: be16(head, 0),
                dst_port: be16(head, 2),
                header_len: len as u8,
                tcp_flags: head[13],
                ..Transport::default()
            })
        }
        Proto::UDP => {
            let head = l4.first_chunk::<8>().ok_or(Malformed::Transport)?;
            let len = usize::from(be16(head, 4));
            // The first fragment of a datagram announces more than it carries.
            let more_fragments = fragment & 0x2000 != 0;
            if len < 8 || (len > l4.len() && !more_fragments) {
                return Err(Malformed::Transport);
            }
            Ok(Transport {
                src_port: be16(head, 0),
                dst_port: be16(head, 2),
                header_len: 8,
                unused: l4.len().saturating_sub(len) as u32,
                ..Transport::default()
            })
        }
        Proto::ICMP => {
            let head = l4.first_chunk::<8>().ok_or(Malformed::Transport)?;
            let echo = matches!(head[0], 0 | 8);
            let id = if echo { be16(head, 4) } else { 0 };
            Ok(Transport {
                src_port: id,
                dst_port: id,
                header_len: 8,
                icmp_type: head[0],
                icmp_code: head[1],
                ..Transport::default()
            })
        }
        _ => Ok(Transport::default()),
    }
}

fn bad_fragment(fragment: u16, ihl: usize, len: usize) -> bool {
    let end = usize::from((fragment & 0x1fff) << 3) + len + ihl;
    let more_fragments = fragment & 0x2000 != 0;
    end > usize::from(u16::MAX) || (more_fragments && (!len.is_multiple_of(8) || len == 0))
}

/// The rules of virtio 1.2, 5.1.6.2, for what a lab's TUN can send: a checksum to complete lies where the protocol has
/// it; a superframe also asks for its checksum and is of a kind that was negotiated. Kind and size of a superframe.
fn check_vnet(
    hdr: &VnetHdr,
    proto: Proto,
    ihl: usize,
    total: usize,
    is_fragment: bool,
) -> Result<(u8, u16), Malformed> {
    let needs_checksum = hdr.flags & vnet::NEEDS_CSUM != 0;
    if needs_checksum {
        let (start, field) = (usize::from(hdr.csum_start), usize::from(hdr.csum_offset));
        let fits = match proto {
            Proto::TCP => start == ihl && field == 16,
            Proto::UDP => start == ihl && field == 6,
            _ => start >= ihl && start + field + 2 <= total,
        };
        if !fits || is_fragment {
            return Err(Malformed::Vnet);
        }
    }
    let wanted = match hdr.gso_kind() {
        vnet::GSO_NONE => return Ok((vnet::GSO_NONE, 0)),
        vnet::GSO_TCPV4 => Proto::TCP,
        vnet::GSO_UDP_L4 => Proto::UDP,
        _ => return Err(Malformed::Vnet),
    };
    if proto != wanted || hdr.gso_size == 0 || !needs_checksum || is_fragment {
        return Err(Malformed::Vnet);
    }
    Ok((hdr.gso_kind(), hdr.gso_size))
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
