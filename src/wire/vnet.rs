//! The header that virtio devices, and TUNs with `IFF_VNET_HDR`, put before every packet (virtio 1.2, 5.1.6.1,
//! `struct virtio_net_hdr` without `num_buffers`). Little endian: on the machines this runs on also the legacy order.

/// Bytes of the header.
pub const LEN: usize = 10;

/// `flags`: the checksum at `csum_start + csum_offset` holds only the sum of the pseudo header; whoever needs the
/// whole one must complete it from `csum_start` on.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum has been verified by whoever made this header.
pub const DATA_VALID: u8 = 2;

/// `gso_type`: one packet.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: a superframe of TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: a datagram to be cut into IP fragments. No lab device offers it.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: a superframe of TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: a superframe of UDP datagrams (Linux `UDP_SEGMENT`).
pub const GSO_UDP_L4: u8 = 5;
/// Bit in `gso_type`: TCP with ECN, CWR belongs to the first segment only.
pub const GSO_ECN: u8 = 0x80;

/// One header, in host order. `csum_start` counts from the IP header's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    pub flags: u8,
    pub gso_type: u8,
    /// Bytes of all protocol headers; a hint for the receiver's buffers.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Bytes of the header.
    pub const LEN: usize = LEN;

    /// Reads the header at the start of a frame; `None` if the frame is shorter.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<VnetHdr> {
        let b = frame.first_chunk::<LEN>()?;
        Some(VnetHdr {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
        })
    }

    /// Writes the header at the start of a frame. Does nothing if the frame is shorter than [`LEN`].
    #[inline]
    pub fn write(&self, frame: &mut [u8]) {
        let Some(b) = frame.first_chunk_mut::<LEN>() else { return };
        b[0] = self.flags;
        b[1] = self.gso_type;
        b[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        b[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        b[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        b[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
    }

    /// `gso_type` without the ECN bit.
    #[inline]
    pub const fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_writing_and_reading() {
        let hdr = VnetHdr { flags: 1, gso_type: 0x81, hdr_len: 52, gso_size: 1448, csum_start: 20, csum_offset: 16 };
        let mut bytes = [0xffu8; 12];
        hdr.write(&mut bytes);
        assert_eq!(bytes, [1, 0x81, 52, 0, 0xa8, 5, 20, 0, 16, 0, 0xff, 0xff]);
        assert_eq!(VnetHdr::read(&bytes), Some(hdr));
        assert_eq!(hdr.gso_kind(), GSO_TCPV4);
        assert_eq!(VnetHdr::read(&bytes[..9]), None);
    }
}
