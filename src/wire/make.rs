//! Builders of frames: plain virtio header, IPv4 without options, full checksums, DF set, as a Linux host sends them.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::csum;
use super::packet::{IP_OFFSET, IPV4_MIN, Packet, tcp_flags};
use super::vnet::{self, VnetHdr};
use crate::base::Proto;

/// TTL of packets made here: Linux's own default.
pub const TTL: u8 = 64;
/// Frame offset of the transport header in frames made here.
pub const L4_OFFSET: usize = IP_OFFSET + IPV4_MIN;
/// Frame offset of a UDP payload: where an answer is written before [`write_udp_into`].
pub const UDP_PAYLOAD_OFFSET: usize = L4_OFFSET + 8;
/// Bytes of the frame that [`write_rst_into`] makes.
pub const RST_LEN: usize = L4_OFFSET + 20;

/// Frame offset of the packet that an ICMP error quotes.
const ICMP_QUOTE: usize = L4_OFFSET + 8;
/// The longest frame that [`write_icmp_error_into`] makes: an IP packet of 576 bytes (RFC 1812, 4.3.2.3).
pub const ICMP_ERROR_MAX: usize = IP_OFFSET + 576;

/// A TCP segment to build. `TcpSpec::new` fills in what most tests do not care about.
#[derive(Clone, Copy, Debug)]
pub struct TcpSpec<'a> {
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    /// Bits of [`tcp_flags`].
    pub flags: u8,
    /// Unscaled, as in the header.
    pub window: u16,
    /// Option 2: maximum segment size (RFC 9293, 3.2).
    pub mss: Option<u16>,
    /// Option 3: window scale shift (RFC 7323).
    pub window_scale: Option<u8>,
    /// Option 4 (RFC 2018).
    pub sack_permitted: bool,
    pub ttl: u8,
    pub payload: &'a [u8],
}

impl<'a> TcpSpec<'a> {
    pub fn new(src: SocketAddrV4, dst: SocketAddrV4, flags: u8) -> TcpSpec<'a> {
        TcpSpec {
            src,
            dst,
            seq: 1,
            ack: 0,
            flags,
            window: 64_240,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            ttl: TTL,
            payload: &[],
        }
    }

    /// A SYN with the options of a Linux client on an MTU of 1,500.
    pub fn syn(src: SocketAddrV4, dst: SocketAddrV4) -> TcpSpec<'a> {
        let options = TcpSpec::new(src, dst, tcp_flags::SYN);
        TcpSpec { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..options }
    }
}

/// One TCP segment. A payload beyond what an IP packet can hold is cut.
pub fn tcp(spec: &TcpSpec<'_>) -> Vec<u8> {
    let mut options = Vec::with_capacity(12);
    if let Some(mss) = spec.mss {
        options.extend_from_slice(&[2, 4]);
        options.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(shift) = spec.window_scale {
        options.extend_from_slice(&[1, 3, 3, shift]);
    }
    if spec.sack_permitted {
        options.extend_from_slice(&[1, 1, 4, 2]);
    }
    let payload = &spec.payload[..spec.payload.len().min(65_535 - IPV4_MIN - 20 - options.len())];
    let mut frame = vec![0; L4_OFFSET];
    frame.extend_from_slice(&spec.src.port().to_be_bytes());
    frame.extend_from_slice(&spec.dst.port().to_be_bytes());
    frame.extend_from_slice(&spec.seq.to_be_bytes());
    frame.extend_from_slice(&spec.ack.to_be_bytes());
    frame.extend_from_slice(&[((20 + options.len()) as u8 / 4) << 4, spec.flags]);
    frame.extend_from_slice(&spec.window.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&options);
    frame.extend_from_slice(payload);
    write_ip_header(&mut frame, *spec.src.ip(), *spec.dst.ip(), Proto::TCP, spec.ttl);
    let sum = csum::transport(*spec.src.ip(), *spec.dst.ip(), Proto::TCP, &frame[L4_OFFSET..]);
    put16(&mut frame, L4_OFFSET + 16, sum);
    frame
}

/// The same as a superframe of `gso_size` payload bytes per segment, with the checksum left to the receiver, as a TUN
/// with TSO hands it out.
pub fn tcp_superframe(spec: &TcpSpec<'_>, gso_size: u16) -> Vec<u8> {
    let mut frame = tcp(spec);
    let len = (frame.len() - L4_OFFSET) as u16;
    put16(&mut frame, L4_OFFSET + 16, csum::pseudo_sum(*spec.src.ip(), *spec.dst.ip(), Proto::TCP, len));
    let header = usize::from(frame[L4_OFFSET + 12] >> 4) * 4;
    VnetHdr {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: (IPV4_MIN + header) as u16,
        gso_size,
        csum_start: IPV4_MIN as u16,
        csum_offset: 16,
    }
    .write(&mut frame);
    frame
}

/// One UDP datagram. A payload over 65,507 bytes is cut.
pub fn udp(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(65_535 - IPV4_MIN - 8)];
    let mut frame = vec![0; UDP_PAYLOAD_OFFSET + payload.len()];
    frame[UDP_PAYLOAD_OFFSET..].copy_from_slice(payload);
    write_udp_into(&mut frame, src, dst, TTL, payload.len());
    frame
}

/// A superframe of UDP datagrams of `gso_size` bytes each (Linux `UDP_SEGMENT`).
pub fn udp_superframe(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8], gso_size: u16) -> Vec<u8> {
    let mut frame = udp(src, dst, payload);
    let len = (frame.len() - L4_OFFSET) as u16;
    put16(&mut frame, L4_OFFSET + 6, csum::pseudo_sum(*src.ip(), *dst.ip(), Proto::UDP, len));
    VnetHdr {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_UDP_L4,
        hdr_len: (IPV4_MIN + 8) as u16,
        gso_size,
        csum_start: IPV4_MIN as u16,
        csum_offset: 6,
    }
    .write(&mut frame);
    frame
}

/// Puts virtio, IP and UDP header before a payload of `len` bytes that is already at [`UDP_PAYLOAD_OFFSET`] of
/// `frame`, without allocating, and gives the length of the frame; 0 if the payload does not fit the buffer or a
/// datagram.
pub fn write_udp_into(frame: &mut [u8], src: SocketAddrV4, dst: SocketAddrV4, ttl: u8, len: usize) -> usize {
    let end = UDP_PAYLOAD_OFFSET.saturating_add(len);
    if end > frame.len() || end - IP_OFFSET > 65_535 {
        return 0;
    }
    let frame = &mut frame[..end];
    put16(frame, L4_OFFSET, src.port());
    put16(frame, L4_OFFSET + 2, dst.port());
    put16(frame, L4_OFFSET + 4, (8 + len) as u16);
    put16(frame, L4_OFFSET + 6, 0);
    write_ip_header(frame, *src.ip(), *dst.ip(), Proto::UDP, ttl);
    let sum = csum::transport(*src.ip(), *dst.ip(), Proto::UDP, &frame[L4_OFFSET..]);
    // RFC 768: a sum of zero is sent as all ones, for zero means "none".
    put16(frame, L4_OFFSET + 6, if sum == 0 { 0xffff } else { sum });
    end
}

/// Which half of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    Request,
    Reply,
}

/// One ICMP echo message (RFC 792).
pub fn icmp_echo(src: Ipv4Addr, dst: Ipv4Addr, half: Echo, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if half == Echo::Request { 8 } else { 0 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(&payload[..payload.len().min(65_535 - IPV4_MIN - 8)]);
    let sum = csum::checksum(&message);
    put16(&mut message, 2, sum);
    ipv4(src, dst, Proto::ICMP, TTL, &message)
}

/// An ICMP error about `frame`: see [`write_icmp_error_into`]. `rest` is the message's second word: the next-hop MTU
/// for type 3, code 4.
pub fn icmp_error(from: Ipv4Addr, kind: u8, code: u8, rest: u32, frame: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(frame).ok()?;
    let mut error = vec![0; ICMP_ERROR_MAX];
    let len = write_icmp_error_into(&mut error, from, [kind, code], rest, &packet, frame);
    error.truncate(len);
    (len != 0).then_some(error)
}

/// "Fragmentation needed and DF set" with the MTU of the next hop (RFC 1191, 4), from a router to the sender of
/// `frame`: see [`write_icmp_error_into`].
pub fn write_frag_needed_into(out: &mut [u8], router: Ipv4Addr, packet: &Packet, frame: &[u8], mtu: u16) -> usize {
    write_icmp_error_into(out, router, [3, 4], u32::from(mtu), packet, frame)
}

/// "Time to live exceeded in transit" (RFC 792), from a router to the sender of `frame`: see
/// [`write_icmp_error_into`].
pub fn write_time_exceeded_into(out: &mut [u8], router: Ipv4Addr, packet: &Packet, frame: &[u8]) -> usize {
    write_icmp_error_into(out, router, [11, 0], 0, packet, frame)
}

/// Writes an ICMP error into a buffer, without allocating: type and code, `rest` as second word, and as much of the
/// packet as 576 bytes hold (RFC 1812, 4.3.2.3). Of a superframe its first segment is quoted, and a partial checksum
/// is completed in the quote, as if the packet had been on a wire. Addresses are read from the frame, which may have
/// been translated since it was parsed. The length of the frame, at most [`ICMP_ERROR_MAX`]; 0 without room for that,
/// and where RFC 1812, 4.3.2.7 (RFC 1122, 3.2.2) forbids an error: about an ICMP error, a later fragment, a packet to
/// more than one host, or from no one host.
pub fn write_icmp_error_into(
    out: &mut [u8],
    from: Ipv4Addr,
    [kind, code]: [u8; 2],
    rest: u32,
    packet: &Packet,
    frame: &[u8],
) -> usize {
    let segment = IP_OFFSET..IP_OFFSET + packet.max_segment_ip_len();
    let Some(segment) = frame.get(segment).filter(|ip| ip.len() >= packet.header_len()) else { return 0 };
    let address = |at: usize| Ipv4Addr::new(segment[at], segment[at + 1], segment[at + 2], segment[at + 3]);
    let (src, dst) = (address(12), address(16));
    let no_host = |a: Ipv4Addr| a.is_multicast() || a.is_broadcast() || a.is_unspecified();
    if packet.is_icmp_error()
        || packet.fragment_offset() != 0
        || no_host(dst)
        || no_host(src)
        || src.is_loopback()
        || out.len() < ICMP_ERROR_MAX
    {
        return 0;
    }
    let quote = segment.len().min(ICMP_ERROR_MAX - ICMP_QUOTE);
    let out = &mut out[..ICMP_QUOTE + quote];
    out[ICMP_QUOTE..].copy_from_slice(&segment[..quote]);
    restate_quote(&mut out[ICMP_QUOTE..], packet, segment, [src, dst]);
    out[L4_OFFSET..L4_OFFSET + 4].copy_from_slice(&[kind, code, 0, 0]);
    out[L4_OFFSET + 4..ICMP_QUOTE].copy_from_slice(&rest.to_be_bytes());
    write_ip_header(out, from, src, Proto::ICMP, TTL);
    let sum = csum::checksum(&out[L4_OFFSET..]);
    put16(out, L4_OFFSET + 2, sum);
    out.len()
}

/// Makes of a quoted superframe its first segment, and of a partial checksum a whole one.
fn restate_quote(quote: &mut [u8], packet: &Packet, segment: &[u8], [src, dst]: [Ipv4Addr; 2]) {
    // Headers have at most 120 bytes: all of them are in the quote.
    let l4 = packet.header_len();
    let (proto, payload) = (packet.proto(), l4 + packet.l4_header_len());
    if packet.gso_size() != 0 {
        let (old, new) = (u16::from_be_bytes([quote[2], quote[3]]), segment.len() as u16);
        let sum = csum::update16(u16::from_be_bytes([quote[10], quote[11]]), old, new);
        put16(quote, 2, new);
        put16(quote, 10, sum);
        if proto == Proto::UDP {
            put16(quote, l4 + 4, new - l4 as u16);
        } else if packet.segments() > 1 {
            quote[l4 + 13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
    }
    let field = match proto {
        Proto::TCP => l4 + 16,
        Proto::UDP => l4 + 6,
        _ => return,
    };
    if packet.needs_checksum() {
        // The header as it stands in the quote now, and all of the data that the segment has.
        let end = segment.len().min(packet.payload().end - IP_OFFSET);
        put16(quote, field, 0);
        let sum = csum::add(csum::sum(&quote[l4..payload]), csum::sum(&segment[payload..end]));
        let sum = !csum::add(sum, csum::pseudo_sum(src, dst, proto, (end - l4) as u16));
        put16(quote, field, if sum == 0 && proto == Proto::UDP { 0xffff } else { sum });
    }
}

/// One IPv4 packet of any protocol around finished bytes. They are cut at 65,515.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: Proto, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; L4_OFFSET];
    frame.extend_from_slice(&payload[..payload.len().min(65_535 - IPV4_MIN)]);
    write_ip_header(&mut frame, src, dst, proto, ttl);
    frame
}

/// The RST that answers a segment for which there is no connection (RFC 9293, 3.10.7.1); `None` if the frame is no
/// TCP segment or is itself an RST.
pub fn rst_for(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reset = vec![0; RST_LEN];
    let packet = Packet::parse(frame).ok()?;
    (write_rst_into(&mut reset, &packet, frame) != 0).then_some(reset)
}

/// [`rst_for`] into a buffer of at least [`RST_LEN`] bytes, without allocating. The length of the frame; 0 if there
/// is nothing to answer or no room.
pub fn write_rst_into(out: &mut [u8], packet: &Packet, frame: &[u8]) -> usize {
    let flags = packet.tcp_flags();
    let headerless = packet.l4_header_len() == 0;
    if packet.proto() != Proto::TCP || headerless || flags & tcp_flags::RST != 0 || out.len() < RST_LEN {
        return 0;
    }
    let to = packet.tuple().reversed();
    let (seq, ack, flags) = if flags & tcp_flags::ACK != 0 {
        (packet.tcp_ack(frame), 0, tcp_flags::RST)
    } else {
        let ack = packet.tcp_seq(frame).wrapping_add(packet.tcp_sequence_len());
        (0, ack, tcp_flags::RST | tcp_flags::ACK)
    };
    let out = &mut out[..RST_LEN];
    put16(out, L4_OFFSET, to.src_port);
    put16(out, L4_OFFSET + 2, to.dst_port);
    out[L4_OFFSET + 4..L4_OFFSET + 8].copy_from_slice(&seq.to_be_bytes());
    out[L4_OFFSET + 8..L4_OFFSET + 12].copy_from_slice(&ack.to_be_bytes());
    out[L4_OFFSET + 12..RST_LEN].copy_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    write_ip_header(out, to.src, to.dst, Proto::TCP, TTL);
    let sum = csum::transport(to.src, to.dst, Proto::TCP, &out[L4_OFFSET..]);
    put16(out, L4_OFFSET + 16, sum);
    RST_LEN
}

/// Virtio header of zeros, and the IP header for the whole of `frame`.
fn write_ip_header(frame: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, proto: Proto, ttl: u8) {
    let total = (frame.len() - IP_OFFSET) as u16;
    frame[..IP_OFFSET].fill(0);
    let ip = &mut frame[IP_OFFSET..L4_OFFSET];
    // Identification 0 is right for packets that cannot be fragmented (RFC 6864, 4.1).
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, proto.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put16(ip, 2, total);
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..20].copy_from_slice(&dst.octets());
    let sum = csum::checksum(ip);
    put16(ip, 10, sum);
}

pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
