//! Layer 2: TCP of endpoint ENIs, of the metadata service and of DNS over TCP, as a state machine: frames, calls and
//! the time in, frames and events out.
//!
//! A SYN becomes a half-open record and an [`Event::Dial`]; only when the owner answers that its backend has accepted
//! is a TCP stack made for the flow, and only then does the SYN-ACK leave. So a client sees what AWS would show it:
//! refused if the backend refused, a SYN timeout if the backend is silent, and never an accept that is taken back.
//! Every flow has a stack of its own (smoltcp, one interface with one socket), found by this room's own index: a
//! packet costs the same with one connection or with ten thousand.
//!
//! ```text
//! packet(..) ... packet(..)   feed what arrived, keep what must be answered
//! next_event()  answer()  recv()  send()  shutdown_write()  abort()
//! poll(now, out)              sends what is due; again at next_deadline()
//! ```

mod conn;
mod device;
mod forwarder;
mod half_open;
mod hash;
mod remnants;
mod timers;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::{EniIx, FiveTuple};

pub use forwarder::{Forwarder, Usage};

/// Where a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// The network interface of an interface endpoint.
    Endpoint(EniIx),
    /// 169.254.169.254 as seen by this instance's ENI.
    Imds(EniIx),
    /// The VPC's resolver as seen by this instance's ENI.
    Resolver(EniIx),
}

impl Port {
    /// The ENI it is named by: the endpoint's own, or the asking instance's.
    pub const fn eni(self) -> EniIx {
        match self {
            Port::Endpoint(eni) | Port::Imds(eni) | Port::Resolver(eni) => eni,
        }
    }
}

/// One connection, from its SYN to its end. Never reused: calls with an id whose connection is gone do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What became of the backend that [`Event::Dial`] asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It accepted: the handshake goes on.
    Connected,
    /// It refused: the client is reset.
    Refused,
    /// It does not answer: nor does the endpoint. The client's next SYN asks again.
    Silent,
}

/// What the owner must know. `tuple` is always the client's: source client, destination endpoint. After `Closed`,
/// `Reset`, `Expired` or `BackendSilent` the connection is gone and no further event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new client: open the backend and [`Forwarder::answer`].
    Dial { conn: ConnId, port: Port, tuple: FiveTuple },
    /// Bytes have arrived since the last [`Forwarder::recv`].
    Readable(ConnId),
    /// There is room again after a [`Forwarder::send`] that took less than it was given.
    Writable(ConnId),
    /// The client has sent its FIN and everything before it has been read.
    PeerClosed(ConnId),
    /// Both directions have ended in order.
    Closed(ConnId),
    /// The client reset the connection, gave up while its backend was dialled, or never finished the handshake.
    Reset(ConnId),
    /// Nothing was said for `idle`. The client is told nothing; it is reset when it speaks next.
    Expired { conn: ConnId, port: Port, tuple: FiveTuple },
    /// No answer for a dialled backend within `backend_timeout`, or `Answer::Silent`.
    BackendSilent { conn: ConnId, port: Port, tuple: FiveTuple },
    /// A SYN was dropped: too many wait already, or no buffers are left.
    HalfOpenFull { port: Port, tuple: FiveTuple },
    /// A segment that begins no connection and belongs to none; it was dropped.
    NoState { port: Port, tuple: FiveTuple },
    /// A segment of an expired connection; its sender was reset.
    LateAfterExpiry { port: Port, tuple: FiveTuple },
}

/// Takes the frames that leave. `frame` is virtio header and packet, perhaps a superframe, valid during the call.
pub trait Sink {
    fn frame(&mut self, port: Port, frame: &mut [u8]);
}

impl<F: FnMut(Port, &mut [u8])> Sink for F {
    fn frame(&mut self, port: Port, frame: &mut [u8]) {
        self(port, frame);
    }
}

/// How the sender slows down on loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// Not at all: only the client's window limits. Right where the link to the client hardly ever drops.
    None,
    /// RFC 9438, as smoltcp has it: begins with two kilobytes and grows by one segment for each acknowledgement, of
    /// which a receiver of superframes sends one for 64 KB. Slow to start, gentle on a link that drops.
    Cubic,
}

/// Everything that bounds memory and time. Defaults are AWS's where AWS has a figure.
#[derive(Clone, Copy, Debug)]
pub struct StackLimits {
    /// Connections of one port between SYN and ESTABLISHED.
    pub half_open_per_eni: u32,
    /// The same for one client address at one port.
    pub half_open_per_source: u32,
    /// Connections in all, half-open ones included.
    pub connections: u32,
    /// Bytes buffered from a client: also the largest window it is offered. At most 1 GiB (RFC 7323).
    pub rx_buffer: usize,
    /// Bytes buffered towards a client.
    pub tx_buffer: usize,
    /// Both of these for `Imds` and `Resolver`, whose messages are small.
    pub local_buffer: usize,
    /// Sum of all buffers; a SYN that would need more is dropped.
    pub total_buffer_bytes: usize,
    /// Largest IP packet of an endpoint, in both directions (AWS PrivateLink guide, quotas: 8,500). The MSS is 40 less.
    pub endpoint_mtu: u16,
    /// Largest IP packet of `Imds` and `Resolver`.
    pub local_mtu: u16,
    /// TTL of packets sent, where [`Forwarder::set_ttl`] says nothing else.
    pub ttl: u8,
    /// How long a backend may take to be opened.
    pub backend_timeout: Duration,
    /// How long a client may take to acknowledge the SYN-ACK.
    pub handshake_timeout: Duration,
    /// An endpoint forgets a silent connection after this (AWS: 350 s, fixed).
    pub idle: Duration,
    /// How long the last FIN of a client is acknowledged again if it comes again.
    pub time_wait: Duration,
    /// Ended connections that are remembered, for `time_wait` or to reset who speaks after expiry.
    pub remnants: usize,
    pub congestion: Congestion,
}

impl Default for StackLimits {
    fn default() -> StackLimits {
        StackLimits {
            half_open_per_eni: 4096,
            half_open_per_source: 1024,
            connections: 65_536,
            rx_buffer: 1 << 20,
            tx_buffer: 1 << 20,
            local_buffer: 1 << 16,
            total_buffer_bytes: 4 << 30,
            endpoint_mtu: 8500,
            local_mtu: 9001,
            ttl: 64,
            backend_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(31),
            idle: Duration::from_secs(350),
            time_wait: Duration::from_secs(10),
            remnants: 16_384,
            congestion: Congestion::None,
        }
    }
}

impl StackLimits {
    pub(crate) fn mtu(&self, port: Port) -> u16 {
        // An IPv4 host need not accept more than 576 (RFC 791), and smoltcp's arithmetic needs room for its headers.
        match port {
            Port::Endpoint(_) => self.endpoint_mtu,
            Port::Imds(_) | Port::Resolver(_) => self.local_mtu,
        }
        .max(576)
    }

    /// Receive and send buffer of a connection, in bytes.
    pub(crate) fn buffers(&self, port: Port) -> (usize, usize) {
        let (rx, tx) = match port {
            Port::Endpoint(_) => (self.rx_buffer, self.tx_buffer),
            Port::Imds(_) | Port::Resolver(_) => (self.local_buffer, self.local_buffer),
        };
        (rx.clamp(1, 1 << 30), tx.clamp(1, 1 << 30))
    }
}
