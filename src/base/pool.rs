//! Frame buffers that are made once.

/// Room for the virtio header and the largest IP packet, 65,535 bytes, rounded up.
pub const FRAME_CAPACITY: usize = 10 + 65_536;

/// A frame as a TUN with `IFF_VNET_HDR` reads and writes it: 10 bytes of virtio header, then the IP packet.
pub struct Frame {
    bytes: Box<[u8]>,
    len: usize,
}

impl Frame {
    pub fn new() -> Frame {
        Frame { bytes: vec![0; FRAME_CAPACITY].into_boxed_slice(), len: 0 }
    }

    /// The whole buffer, for a `read`; `set_len` afterwards says how much of it counts.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Panics if `len` is over the capacity: a bug of the caller, never of the wire.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.bytes.len());
        self.len = len;
    }

    /// Header and packet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Default for Frame {
    fn default() -> Frame {
        Frame::new()
    }
}

/// A fixed set of frames. Taking one when none is left gives `None`: the caller stops reading.
pub struct Pool {
    free: Vec<Frame>,
}

impl Pool {
    pub fn new(frames: usize) -> Pool {
        Pool { free: (0..frames).map(|_| Frame::new()).collect() }
    }

    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    pub fn give(&mut self, mut frame: Frame) {
        frame.len = 0;
        self.free.push(frame);
    }
}
