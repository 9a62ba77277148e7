//! Software segmentation: the packets a superframe stands for, as the kernel's own segmentation makes them.

use super::csum;
use super::edit::finish_checksum;
use super::make::put16;
use super::packet::{IP_OFFSET, Malformed, Packet, tcp_flags};
use super::vnet;
use crate::base::Proto;

/// Gives each packet of `frame` as a plain frame: virtio header of zeros, whole checksums. A plain frame comes out
/// once, with its checksum completed. How many came out.
pub fn segment(frame: &[u8], out: impl FnMut(&[u8])) -> Result<u32, Malformed> {
    segment_with(frame, &mut Vec::new(), out)
}

/// [`segment`] with a buffer of the caller's, so that nothing is allocated once it has grown.
pub fn segment_with(frame: &[u8], buffer: &mut Vec<u8>, mut out: impl FnMut(&[u8])) -> Result<u32, Malformed> {
    segment_mut(frame, buffer, |packet| out(packet))
}

/// [`segment_with`], and each packet may be changed by the one who gets it: it is forgotten afterwards.
pub fn segment_mut(frame: &[u8], buffer: &mut Vec<u8>, mut out: impl FnMut(&mut [u8])) -> Result<u32, Malformed> {
    let packet = Packet::parse(frame)?;
    if packet.gso_size() == 0 {
        buffer.clear();
        buffer.extend_from_slice(&frame[..packet.frame_len()]);
        finish_checksum(buffer, &packet);
        buffer[..vnet::LEN].fill(0);
        out(buffer);
        return Ok(1);
    }
    let payload = &frame[packet.payload()];
    let headers = packet.payload().start;
    let size = usize::from(packet.gso_size());
    let count = packet.segments();
    for n in 0..count {
        let from = n as usize * size;
        let part = &payload[from..payload.len().min(from + size)];
        buffer.clear();
        buffer.extend_from_slice(&frame[..headers]);
        buffer.extend_from_slice(part);
        buffer[..vnet::LEN].fill(0);
        finish_segment(buffer, &packet, n, from as u32, n + 1 == count);
        out(buffer);
    }
    Ok(count)
}

/// Lengths, identification, sequence number, flags and checksums of segment `n`, whose payload begins `from` bytes
/// into the superframe's.
fn finish_segment(frame: &mut [u8], packet: &Packet, n: u32, from: u32, last: bool) {
    let total = (frame.len() - IP_OFFSET) as u16;
    let l4 = packet.l4_offset();
    let ip = &mut frame[IP_OFFSET..l4];
    put16(ip, 2, total);
    let id = u16::from_be_bytes([ip[4], ip[5]]);
    put16(ip, 4, id.wrapping_add(n as u16));
    put16(ip, 10, 0);
    let sum = csum::checksum(ip);
    put16(ip, 10, sum);

    let segment = &mut frame[l4..];
    let tuple = packet.tuple();
    if tuple.proto == Proto::TCP {
        let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        segment[4..8].copy_from_slice(&seq.wrapping_add(from).to_be_bytes());
        if !last {
            segment[13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        if n > 0 {
            // RFC 3168, 6.1.2: "window reduced" is said once.
            segment[13] &= !tcp_flags::CWR;
        }
        put16(segment, 16, 0);
        let sum = csum::transport(tuple.src, tuple.dst, tuple.proto, segment);
        put16(segment, 16, sum);
    } else {
        let len = segment.len() as u16;
        put16(segment, 4, len);
        put16(segment, 6, 0);
        let sum = csum::transport(tuple.src, tuple.dst, tuple.proto, segment);
        put16(segment, 6, if sum == 0 { 0xffff } else { sum });
    }
}
