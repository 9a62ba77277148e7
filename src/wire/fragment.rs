//! Fragmentation as a router does it (RFC 791, 3.2): of packets that may be fragmented, to the MTU of the next link.

use super::csum;
use super::gso::segment_mut;
use super::make::put16;
use super::packet::{IP_OFFSET, Malformed, Packet};
use super::vnet;

/// The least MTU there can be: the largest IP header and 8 bytes (RFC 791, 3.2).
pub const MIN_MTU: usize = 68;

/// Why a frame was not brought through a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFragmented {
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The sender forbids it, and it does not fit.
    #[error("larger than the MTU, and DF is set")]
    DontFragment,
    #[error("an MTU of under 68 bytes")]
    Mtu,
}

/// Gives the packets of `frame` as they cross a link whose largest IP packet has `mtu` bytes: a superframe is segmented
/// first, a packet that is still larger is cut into fragments, which may itself be one. Every frame that comes out is
/// plain: virtio header of zeros, whole checksums. How many came out.
///
/// Errors: see [`NotFragmented`]; nothing came out then.
pub fn fragment(frame: &[u8], mtu: usize, out: impl FnMut(&[u8])) -> Result<u32, NotFragmented> {
    fragment_with(frame, mtu, &mut Vec::new(), out)
}

/// [`fragment`] with a buffer of the caller's, so that nothing is allocated once it has grown.
pub fn fragment_with(
    frame: &[u8],
    mtu: usize,
    buffer: &mut Vec<u8>,
    mut out: impl FnMut(&[u8]),
) -> Result<u32, NotFragmented> {
    let packet = Packet::parse(frame)?;
    if mtu < MIN_MTU {
        return Err(NotFragmented::Mtu);
    }
    if packet.max_segment_ip_len() <= mtu {
        return Ok(segment_mut(frame, buffer, |packet| out(packet))?);
    }
    if packet.dont_fragment() {
        return Err(NotFragmented::DontFragment);
    }
    let mut count = 0;
    segment_mut(frame, buffer, |whole| {
        if whole.len() - IP_OFFSET <= mtu {
            out(whole);
            count += 1;
        } else {
            count += cut(whole, packet.header_len(), mtu, &mut out);
        }
    })?;
    Ok(count)
}

/// Fragments of a plain frame that is larger than `mtu`. Each gets its header right before its data, where the data of
/// the one before has been: nothing is copied but headers.
fn cut(frame: &mut [u8], ihl: usize, mtu: usize, out: &mut impl FnMut(&[u8])) -> u32 {
    let mut header = [0; 60];
    let header = &mut header[..ihl];
    header.copy_from_slice(&frame[IP_OFFSET..IP_OFFSET + ihl]);
    let field = u16::from_be_bytes([header[6], header[7]]);
    let (first, continues) = (field & 0x1fff, field & 0x2000 != 0);
    let data = IP_OFFSET + ihl;
    let step = (mtu - ihl) & !7;
    let mut count = 0;
    for at in (data..frame.len()).step_by(step) {
        let end = frame.len().min(at + step);
        let more = end < frame.len() || continues;
        put16(header, 2, (ihl + end - at) as u16);
        put16(header, 6, (first + ((at - data) / 8) as u16) | if more { 0x2000 } else { 0 });
        put16(header, 10, 0);
        let sum = csum::checksum(header);
        put16(header, 10, sum);
        let piece = &mut frame[at - ihl - vnet::LEN..end];
        piece[..vnet::LEN].fill(0);
        piece[IP_OFFSET..data].copy_from_slice(header);
        out(piece);
        count += 1;
        if at == data {
            blank_uncopied_options(&mut header[20..]);
        }
    }
    count
}

/// Options that belong to the first fragment only become no-ops (RFC 791, 3.1: the copied flag), as Linux does it.
fn blank_uncopied_options(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            0 => return,
            1 => 1,
            _ => match options.get(at + 1) {
                Some(&len) if len >= 2 && at + usize::from(len) <= options.len() => usize::from(len),
                _ => return,
            },
        };
        if kind & 0x80 == 0 {
            options[at..at + len].fill(1);
        }
        at += len;
    }
}
