//! One established connection: an interface with one socket, and what the forwarder must remember about it.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{self, CongestionControl, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::device::{LastSent, Link};
use super::{Congestion, Port, Sink, StackLimits};
use crate::base::{FiveTuple, Instant};

pub(super) struct Conn {
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) port: Port,
    /// The client's tuple: source client.
    pub(super) tuple: FiveTuple,
    mtu: u16,
    /// Bytes of both buffers.
    pub(super) buffers: usize,
    pub(super) sent: LastSent,
    pub(super) born: Instant,
    /// When something new was last heard or said.
    pub(super) fresh: Instant,
    /// No challenge ACK before this (RFC 5961, 7).
    pub(super) challenge_after: Instant,
    /// Still before ESTABLISHED, and counted as such.
    pub(super) embryonic: bool,
    /// The owner knows that there are bytes.
    pub(super) told_readable: bool,
    /// Bytes that its last read left in the buffer.
    pub(super) left_unread: usize,
    /// The owner wants to know when there is room.
    pub(super) want_write: bool,
    /// The owner wants a FIN sent once the handshake is over.
    pub(super) want_close: bool,
    pub(super) told_peer_closed: bool,
    /// The owner has given it up: an RST is to be sent, and nobody told.
    pub(super) aborted: bool,
    /// How it ended, once it has.
    pub(super) end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

/// Where and with what buffer frames are sent: what every poll needs from the forwarder.
pub(super) struct Outlet<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) out: &'a mut dyn Sink,
}

impl Conn {
    /// A stack that listens for this client's SYN. `seed` decides its initial sequence number. `None` only for
    /// tuples that no SYN can have: port 0.
    pub(super) fn listen(now: Instant, port: Port, tuple: FiveTuple, limits: &StackLimits, seed: u64) -> Option<Conn> {
        let (rx, tx) = limits.buffers(port);
        let mut socket = tcp::Socket::new(SocketBuffer::new(vec![0; rx]), SocketBuffer::new(vec![0; tx]));
        socket.listen((IpAddr::V4(tuple.dst), tuple.dst_port)).ok()?;
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_hop_limit(Some(limits.ttl.max(1)));
        socket.set_congestion_control(match limits.congestion {
            Congestion::None => CongestionControl::None,
            Congestion::Cubic => CongestionControl::Cubic,
        });
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut sent = LastSent::default();
        let mtu = limits.mtu(port);
        let mut nowhere = |_: Port, _: &mut [u8]| {};
        let mut link = Link { port, mtu, incoming: None, scratch: &mut [], out: &mut nowhere, sent: &mut sent };
        let mut iface = Interface::new(config, &mut link, stack_time(now));
        iface.update_ip_addrs(|addrs| {
            // The list has room for at least one.
            let _ = addrs.push(IpCidr::new(tuple.dst.into(), 32));
        });
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Some(Conn {
            iface,
            sockets,
            handle,
            port,
            tuple,
            mtu,
            buffers: rx + tx,
            sent: LastSent::default(),
            born: now,
            fresh: now,
            challenge_after: Instant::ZERO,
            embryonic: true,
            told_readable: false,
            left_unread: 0,
            want_write: false,
            want_close: false,
            told_peer_closed: false,
            aborted: false,
            end: None,
        })
    }

    pub(super) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<tcp::Socket<'_>>(self.handle).state()
    }

    /// Bytes that fit the send buffer now; 0 before the handshake is over and after the FIN.
    pub(super) fn send_room(&mut self) -> usize {
        let socket = self.socket();
        if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    /// Takes in one IP packet. An answer that cannot wait (RST, duplicate ACK) leaves at once.
    pub(super) fn receive(&mut self, now: Instant, packet: &[u8], reset: bool, outlet: Outlet<'_>) {
        let before = self.state();
        let mut link = Link {
            port: self.port,
            mtu: self.mtu,
            incoming: Some(packet),
            scratch: outlet.scratch,
            out: outlet.out,
            sent: &mut self.sent,
        };
        self.iface.poll_ingress_single(stack_time(now), &mut link, &mut self.sockets);
        self.fresh = now;
        // A passive socket goes back to LISTEN when the handshake is reset.
        if self.end.is_none() && matches!(self.state(), State::Closed | State::Listen) {
            let orderly = match before {
                State::LastAck => !reset,
                State::TimeWait => true,
                _ => false,
            };
            self.end = Some(if orderly { End::Closed } else { End::Reset });
        }
    }

    /// Sends everything that may be sent now.
    pub(super) fn transmit(&mut self, now: Instant, outlet: Outlet<'_>) {
        // At the end of TIME-WAIT smoltcp would also forget what has not been read.
        if self.end.is_some() {
            return;
        }
        let mut link = Link {
            port: self.port,
            mtu: self.mtu,
            incoming: None,
            scratch: outlet.scratch,
            out: outlet.out,
            sent: &mut self.sent,
        };
        while self.iface.poll_egress(stack_time(now), &mut link, &mut self.sockets) == PollResult::SocketStateChanged {}
        if std::mem::take(&mut self.sent.advanced) {
            self.fresh = now;
        }
    }

    /// When it must be looked at again, whatever arrives.
    pub(super) fn deadline(&mut self, now: Instant, limits: &StackLimits) -> Instant {
        let life = self.end_of_life(limits);
        if self.end.is_some() {
            return life;
        }
        match self.iface.poll_at(stack_time(now), &self.sockets) {
            // "At once" straight after sending would be a busy loop: come back in a moment.
            Some(at) => Instant((at.total_micros().max(0) as u64).saturating_mul(1000))
                .max(now + Duration::from_millis(1))
                .min(life),
            None => life,
        }
    }

    /// When silence ends it.
    pub(super) fn end_of_life(&self, limits: &StackLimits) -> Instant {
        if self.embryonic { self.born + limits.handshake_timeout } else { self.fresh + limits.idle }
    }

    /// The client has sent its FIN, and all before it has arrived.
    pub(super) fn fin_received(&self) -> bool {
        use State::{CloseWait, Closing, LastAck, TimeWait};
        matches!(self.state(), CloseWait | Closing | LastAck | TimeWait) || self.end == Some(End::Closed)
    }
}

fn stack_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros((now.0 / 1000) as i64)
}
