//! smoltcp's view of the wire: one frame in at most, any number out, with the virtio header that lets the receiver do
//! segmentation and checksums.

use std::num::NonZeroUsize;

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, SegmentationCapabilities,
    TxToken,
};
use smoltcp::time::Instant;

use super::{Port, Sink};
use crate::base::Proto;
use crate::wire::csum;
use crate::wire::packet::{IP_OFFSET, IPV4_MIN, tcp_flags};
use crate::wire::vnet::{self, VnetHdr};

/// The largest IP packet: what a superframe may be.
const MAX_IP: usize = 65_535;
/// Bytes that the buffer for outgoing frames must have.
pub(super) const SCRATCH: usize = IP_OFFSET + MAX_IP;

/// The last segment sent: what must be known to acknowledge again for a connection whose stack is gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastSent {
    /// Sequence number after the segment.
    pub(super) seq_end: u32,
    pub(super) ack: u32,
    /// Something was sent.
    pub(super) started: bool,
    /// Something was sent for the first time since this was last cleared: no bare ACK and no retransmission.
    pub(super) advanced: bool,
}

pub(super) struct Link<'a> {
    pub(super) port: Port,
    pub(super) mtu: u16,
    /// An IP packet to be received.
    pub(super) incoming: Option<&'a [u8]>,
    /// At least [`SCRATCH`] bytes.
    pub(super) scratch: &'a mut [u8],
    pub(super) out: &'a mut dyn Sink,
    pub(super) sent: &'a mut LastSent,
}

impl Device for Link<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let packet = self.incoming.take()?;
        let sending = Sending { port: self.port, scratch: self.scratch, out: self.out, sent: self.sent, gso_size: 0 };
        Some((Received(packet), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending { port: self.port, scratch: self.scratch, out: self.out, sent: self.sent, gso_size: 0 })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // The forwarder has verified what comes in; of what goes out, the receiver completes TCP's checksum.
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = NonZeroUsize::new(MAX_IP);
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities.checksum = checksum;
        capabilities.segmentation = segmentation;
        capabilities
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Sending<'a> {
    port: Port,
    scratch: &'a mut [u8],
    out: &'a mut dyn Sink,
    sent: &'a mut LastSent,
    gso_size: u16,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let frame = &mut self.scratch[..IP_OFFSET + len];
        let result = f(&mut frame[IP_OFFSET..]);
        finish(frame, self.gso_size, self.sent);
        self.out.frame(self.port, frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.gso_size = meta.segmentation_offload_size.map_or(0, |size| size.get());
    }
}

/// Writes the virtio header and TCP's partial checksum. smoltcp writes IPv4 without options and leaves TCP's checksum
/// zero, as the capabilities say.
fn finish(frame: &mut [u8], gso_size: u16, sent: &mut LastSent) {
    const TCP: usize = IP_OFFSET + IPV4_MIN;
    let mut hdr = VnetHdr::default();
    if frame.len() >= TCP + 20 && frame[IP_OFFSET + 9] == Proto::TCP.0 {
        let addr = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]].into();
        let len = (frame.len() - TCP) as u16;
        let partial = csum::pseudo_sum(addr(IP_OFFSET + 12), addr(IP_OFFSET + 16), Proto::TCP, len);
        frame[TCP + 16..TCP + 18].copy_from_slice(&partial.to_be_bytes());
        let header = usize::from(frame[TCP + 12] >> 4) * 4;
        hdr = VnetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type: if gso_size == 0 { vnet::GSO_NONE } else { vnet::GSO_TCPV4 },
            hdr_len: (IPV4_MIN + header) as u16,
            gso_size,
            csum_start: IPV4_MIN as u16,
            csum_offset: 16,
        };
        let flags = frame[TCP + 13];
        let control = u32::from(flags & tcp_flags::SYN != 0) + u32::from(flags & tcp_flags::FIN != 0);
        let taken = control + u32::from(len).saturating_sub(header as u32);
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let seq_end = word(TCP + 4).wrapping_add(taken);
        let ahead = seq_end.wrapping_sub(sent.seq_end) as i32;
        // A retransmission ends before what was sent already; a reset may have any number.
        if flags & tcp_flags::RST == 0 && (!sent.started || ahead >= 0) {
            sent.advanced |= taken != 0 && (!sent.started || ahead > 0);
            sent.started = true;
            sent.seq_end = seq_end;
        }
        if flags & (tcp_flags::ACK | tcp_flags::RST) == tcp_flags::ACK {
            sent.ack = word(TCP + 8);
        }
    }
    hdr.write(frame);
}
