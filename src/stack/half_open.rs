//! Connections whose backend is being dialled: what of a SYN must be kept, and how many there may be.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::hash::Seeded;
use super::{Port, StackLimits};
use crate::base::{FiveTuple, Instant};
use crate::wire::Packet;
use crate::wire::edit::{mss_of, tcp_option};
use crate::wire::make::{self, TcpSpec};
use crate::wire::packet::tcp_flags;

/// A SYN, reduced to what the handshake needs. Its payload, if it has one, is not kept: the client sends it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpen {
    pub(super) port: Port,
    pub(super) tuple: FiveTuple,
    pub(super) deadline: Instant,
    pub(super) seq: u32,
    window: u16,
    mss: u16,
    window_scale: Option<u8>,
    sack_permitted: bool,
}

// A flood of SYNs must stay cheap.
const _: () = assert!(size_of::<HalfOpen>() <= 128);

/// Segments smaller than this would be mostly headers; Linux has the same floor (`TCP_MIN_MSS`).
const MIN_MSS: u16 = 88;
/// What a SYN without the option means (RFC 9293, 3.7.1).
const DEFAULT_MSS: u16 = 536;

impl HalfOpen {
    /// `mtu` is the port's: the client's MSS is lowered to fit it.
    pub(super) fn new(port: Port, packet: &Packet, frame: &[u8], mtu: u16, deadline: Instant) -> HalfOpen {
        let tcp = frame.get(packet.l4_offset()..packet.payload().start).unwrap_or(&[]);
        HalfOpen {
            port,
            tuple: packet.tuple(),
            deadline,
            seq: packet.tcp_seq(frame),
            window: packet.tcp_window(frame),
            mss: mss_of(frame, packet).unwrap_or(DEFAULT_MSS).clamp(MIN_MSS, mtu - 40),
            // RFC 7323, 2.3: a larger shift counts as 14.
            window_scale: tcp_option(tcp, 3, 3).map(|at| tcp[at].min(14)),
            sack_permitted: tcp_option(tcp, 4, 2).is_some(),
        }
    }

    /// The SYN again, as a frame.
    pub(super) fn syn(&self) -> Vec<u8> {
        let FiveTuple { src, src_port, dst, dst_port, .. } = self.tuple;
        let (client, server) = (SocketAddrV4::new(src, src_port), SocketAddrV4::new(dst, dst_port));
        make::tcp(&TcpSpec {
            seq: self.seq,
            window: self.window,
            mss: Some(self.mss),
            window_scale: self.window_scale,
            sack_permitted: self.sack_permitted,
            ..TcpSpec::new(client, server, tcp_flags::SYN)
        })
    }
}

/// How many connections of each port and of each client are not established yet.
pub(super) struct Embryos {
    by_port: HashMap<Port, u32, Seeded>,
    by_source: HashMap<(Port, Ipv4Addr), u32, Seeded>,
    total: usize,
}

impl Embryos {
    pub(super) fn new(hasher: Seeded) -> Embryos {
        Embryos { by_port: HashMap::with_hasher(hasher), by_source: HashMap::with_hasher(hasher), total: 0 }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Counts one more, unless that is over a limit.
    pub(super) fn admit(&mut self, port: Port, source: Ipv4Addr, limits: &StackLimits) -> bool {
        let full = |count: Option<&u32>, limit: u32| count.copied().unwrap_or(0) >= limit;
        if full(self.by_port.get(&port), limits.half_open_per_eni)
            || full(self.by_source.get(&(port, source)), limits.half_open_per_source)
        {
            return false;
        }
        *self.by_port.entry(port).or_default() += 1;
        *self.by_source.entry((port, source)).or_default() += 1;
        self.total += 1;
        true
    }

    pub(super) fn release(&mut self, port: Port, source: Ipv4Addr) {
        let left = |count: &mut u32| {
            *count -= 1;
            *count
        };
        if self.by_port.get_mut(&port).map(left) == Some(0) {
            self.by_port.remove(&port);
        }
        if self.by_source.get_mut(&(port, source)).map(left) == Some(0) {
            self.by_source.remove(&(port, source));
        }
        self.total -= 1;
    }
}
