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

/// An ICMP error about `frame`, with the quote of its IP header and the first 8 bytes after it (RFC 792). `rest` is
/// the message's second word: the next-hop MTU for type 3, code 4. `None` where RFC 1122, 3.2.2, forbids one: about
/// an ICMP error, a later fragment, or a malformed packet.
pub fn icmp_error(from: Ipv4Addr, kind: u8, code: u8, rest: u32, frame: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(frame).ok()?;
    if packet.is_icmp_error() || packet.fragment_offset() != 0 {
        return None;
    }
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(&frame[IP_OFFSET..(packet.l4_offset() + 8).min(packet.frame_len())]);
    let sum = csum::checksum(&message);
    put16(&mut message, 2, sum);
    Some(ipv4(from, packet.tuple().src, Proto::ICMP, TTL, &message))
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
