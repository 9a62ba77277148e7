//! The forwarder: admits SYNs, finds the connection a frame belongs to, and tells the owner what happened.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use smoltcp::socket::tcp::State;

use super::conn::{Conn, End, Outlet};
use super::device::SCRATCH;
use super::half_open::{Embryos, HalfOpen};
use super::hash::{Seeded, mix};
use super::remnants::{Key, Remnants};
use super::timers::Timers;
use super::{Answer, ConnId, Event, Port, Sink, StackLimits};
use crate::base::{FiveTuple, Instant, Proto};
use crate::wire::make::{self, RST_LEN, TcpSpec};
use crate::wire::packet::{IP_OFFSET, tcp_flags};
use crate::wire::{Packet, edit};

/// Notes for the drop log that may wait for the owner. More are dropped and counted: a flood must not grow memory.
const NOTES: usize = 4096;

/// All connections that end in this lab.
pub struct Forwarder {
    limits: StackLimits,
    seed: u64,
    /// Connections made so far: with the seed, the source of initial sequence numbers.
    made: u64,
    index: HashMap<Key, u32, Seeded>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    embryos: Embryos,
    time_wait: Remnants<(u32, u32)>,
    expired: Remnants<()>,
    timers: Timers,
    /// Slots that have something to send or to tell.
    dirty: Vec<u32>,
    events: VecDeque<Event>,
    notes_waiting: usize,
    notes_lost: u64,
    buffer_bytes: usize,
    connections: usize,
    scratch: Box<[u8]>,
}

/// What the forwarder holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections whose backend is dialled or whose handshake goes on.
    pub half_open: usize,
    /// Connections that have a stack.
    pub connections: usize,
    /// Bytes of all their buffers.
    pub buffer_bytes: usize,
    /// Ended connections that are remembered.
    pub remnants: usize,
    /// Events for the drop log that nobody fetched in time.
    pub notes_lost: u64,
}

struct Slot {
    generation: u32,
    dirty: bool,
    state: SlotState,
}

enum SlotState {
    Free,
    HalfOpen(HalfOpen),
    Conn(Box<Conn>),
}

impl Forwarder {
    /// `seed` decides initial sequence numbers and the keys of the tables: the same seed and calls give the same
    /// frames.
    pub fn new(limits: StackLimits, seed: u64) -> Forwarder {
        let hasher = Seeded(mix(seed, 0x5851_f42d_4c95_7f2d));
        Forwarder {
            limits,
            seed,
            made: 0,
            index: HashMap::with_hasher(hasher),
            slots: Vec::new(),
            free: Vec::new(),
            embryos: Embryos::new(hasher),
            time_wait: Remnants::new(limits.remnants, hasher),
            expired: Remnants::new(limits.remnants, hasher),
            timers: Timers::default(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            notes_waiting: 0,
            notes_lost: 0,
            buffer_bytes: 0,
            connections: 0,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    /// Takes in one frame that the engine let through to `port`. Frames that are no whole TCP segment, or whose
    /// checksum is wrong, are ignored. What must be answered leaves with the next [`Forwarder::poll`], but for resets
    /// and duplicate acknowledgements, which leave at once.
    pub fn packet(&mut self, now: Instant, port: Port, frame: &[u8], out: &mut dyn Sink) {
        let Ok(packet) = Packet::parse(frame) else { return };
        let tuple = packet.tuple();
        let whole = tuple.proto == Proto::TCP && !packet.is_fragment();
        if !whole || tuple.src_port == 0 || tuple.dst_port == 0 || !packet.verify_checksums(frame) {
            return;
        }
        let key = (port, tuple);
        match self.index.get(&key) {
            None if packet.is_tcp_syn() => self.admit(now, key, &packet, frame),
            None => self.stray(now, key, &packet, frame, out),
            Some(&slot) => match &mut self.slots[slot as usize].state {
                SlotState::HalfOpen(_) => self.early(slot, &packet, frame),
                SlotState::Conn(conn) if packet.is_tcp_syn() && conn.state() != State::SynReceived => {
                    self.challenge(now, slot, out);
                }
                SlotState::Conn(_) => self.deliver(now, slot, &packet, frame, out),
                SlotState::Free => {}
            },
        }
    }

    /// The backend's answer to [`Event::Dial`]. False if the connection is gone (expired, reset, or no buffers are
    /// left): then a backend that was opened must be closed.
    pub fn answer(&mut self, now: Instant, conn: ConnId, answer: Answer, out: &mut dyn Sink) -> bool {
        let Some(SlotState::HalfOpen(record)) = self.state(conn) else { return false };
        let record = *record;
        match answer {
            Answer::Connected => self.connect(now, conn.slot, &record, out),
            Answer::Refused => {
                self.release(conn.slot);
                if let Some(mut reset) = make::rst_for(&record.syn()) {
                    edit::set_ttl(&mut reset, self.limits.ttl.max(1));
                    out.frame(record.port, &mut reset);
                }
                true
            }
            Answer::Silent => {
                self.release(conn.slot);
                self.events.push_back(Event::BackendSilent { conn, port: record.port, tuple: record.tuple });
                true
            }
        }
    }

    /// The next thing that happened, in order. Ask until `None` after every batch.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.notes_waiting -= usize::from(is_note(&event));
        Some(event)
    }

    /// Hands received bytes to `take`, which says how many it used; called again while it uses all it is given and
    /// more is there. How many were used in all. Not reading closes the client's window.
    pub fn recv(&mut self, conn: ConnId, mut take: impl FnMut(&[u8]) -> usize) -> usize {
        let Some(SlotState::Conn(c)) = self.state(conn) else { return 0 };
        if c.aborted {
            return 0;
        }
        let mut total = 0;
        while c.socket().recv_queue() > 0 {
            let mut given = 0;
            let used = c.socket().recv(|bytes| {
                given = bytes.len();
                let used = take(bytes).min(given);
                (used, used)
            });
            let used = used.unwrap_or(0);
            total += used;
            if used < given || given == 0 {
                break;
            }
        }
        // What the owner leaves behind it knows of: only more than that is news.
        c.told_readable = false;
        c.left_unread = c.socket().recv_queue();
        // The window may have opened, and the end may have been reached.
        if total > 0 {
            self.mark(conn.slot);
            self.notice(conn.slot);
        }
        total
    }

    /// Queues bytes for the client and gives how many were taken. If not all were, [`Event::Writable`] follows when
    /// there is room again.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let Some(SlotState::Conn(c)) = self.state(conn) else { return 0 };
        if c.aborted || c.want_close {
            return 0;
        }
        let taken = c.socket().send_slice(bytes).unwrap_or(0);
        c.want_write |= taken < bytes.len();
        if taken > 0 {
            self.mark(conn.slot);
        }
        taken
    }

    /// Bytes that [`Forwarder::send`] would take now.
    pub fn send_room(&mut self, conn: ConnId) -> usize {
        match self.state(conn) {
            Some(SlotState::Conn(c)) if !c.aborted && !c.want_close => c.send_room(),
            _ => 0,
        }
    }

    /// Bytes that [`Forwarder::recv`] would give now.
    pub fn readable(&mut self, conn: ConnId) -> usize {
        match self.state(conn) {
            Some(SlotState::Conn(c)) if !c.aborted => c.socket().recv_queue(),
            _ => 0,
        }
    }

    /// No more bytes will be sent: a FIN follows the last of them. Reading goes on.
    pub fn shutdown_write(&mut self, conn: ConnId) {
        let Some(SlotState::Conn(c)) = self.state(conn) else { return };
        c.want_write = false;
        if c.embryonic {
            // smoltcp would send the FIN before its SYN is acknowledged.
            c.want_close = true;
        } else {
            c.socket().close();
            self.mark(conn.slot);
        }
    }

    /// Gives the connection up: an RST leaves with the next poll, and no further event names it. A half-open one is
    /// forgotten without a word.
    pub fn abort(&mut self, conn: ConnId) {
        match self.state(conn) {
            Some(SlotState::HalfOpen(_)) => self.release(conn.slot),
            Some(SlotState::Conn(c)) => {
                c.aborted = true;
                c.socket().abort();
                self.mark(conn.slot);
            }
            _ => {}
        }
    }

    /// TTL of this connection's packets from now on. 0 counts as 1.
    pub fn set_ttl(&mut self, conn: ConnId, ttl: u8) {
        if let Some(SlotState::Conn(c)) = self.state(conn) {
            c.socket().set_hop_limit(Some(ttl.max(1)));
        }
    }

    /// [`StackLimits::idle`] from now on, for connections that are there too.
    pub fn set_idle(&mut self, idle: Duration) {
        if std::mem::replace(&mut self.limits.idle, idle) == idle {
            return;
        }
        // Timers are set anew with the next poll.
        for slot in 0..self.slots.len() as u32 {
            self.mark(slot);
        }
    }

    /// Forgets every connection of a port without a packet, as when its ENI is gone. No event names them any more;
    /// the ids are returned. Costs O(all connections).
    pub fn remove_port(&mut self, port: Port) -> Vec<ConnId> {
        let of_port = |slot: &Slot| match &slot.state {
            SlotState::Free => false,
            SlotState::HalfOpen(record) => record.port == port,
            SlotState::Conn(conn) => conn.port == port,
        };
        let gone: Vec<u32> = (0..).zip(&self.slots).filter(|(_, slot)| of_port(slot)).map(|(n, _)| n).collect();
        let ids = gone.iter().map(|&slot| self.id(slot)).collect();
        for slot in gone {
            self.release(slot);
        }
        ids
    }

    /// Port and client tuple of a connection that is not gone.
    pub fn describe(&self, conn: ConnId) -> Option<(Port, FiveTuple)> {
        let slot = self.slots.get(conn.slot as usize).filter(|slot| slot.generation == conn.generation)?;
        match &slot.state {
            SlotState::Free => None,
            SlotState::HalfOpen(record) => Some((record.port, record.tuple)),
            SlotState::Conn(c) => Some((c.port, c.tuple)),
        }
    }

    /// Sends everything that is due at `now` and expires what has waited too long. Costs O(connections with something
    /// to do).
    pub fn poll(&mut self, now: Instant, out: &mut dyn Sink) {
        while let Some(slot) = self.timers.pop_due(now) {
            self.due(now, slot, out);
        }
        // What becomes dirty meanwhile waits for the next call.
        let batch = std::mem::take(&mut self.dirty);
        for &slot in &batch {
            if std::mem::take(&mut self.slots[slot as usize].dirty) {
                self.flush(now, slot, out);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = batch;
            self.dirty.clear();
        }
        self.time_wait.expire(now);
    }

    /// When [`Forwarder::poll`] must be called again at the latest: [`Instant::ZERO`] if there is something to do now.
    pub fn next_deadline(&self) -> Instant {
        if self.dirty.is_empty() { self.timers.next() } else { Instant::ZERO }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            half_open: self.embryos.total(),
            connections: self.connections,
            buffer_bytes: self.buffer_bytes,
            remnants: self.time_wait.len() + self.expired.len(),
            notes_lost: self.notes_lost,
        }
    }

    /// A SYN of a new connection: a record, or nothing.
    fn admit(&mut self, now: Instant, key: Key, packet: &Packet, frame: &[u8]) {
        let (port, tuple) = key;
        let (rx, tx) = self.limits.buffers(port);
        let room = self.slots.len() - self.free.len() < self.limits.connections as usize
            && self.buffer_bytes + rx + tx <= self.limits.total_buffer_bytes;
        if !room || !self.embryos.admit(port, tuple.src, &self.limits) {
            return self.note(Event::HalfOpenFull { port, tuple });
        }
        self.time_wait.remove(&key);
        self.expired.remove(&key);
        let deadline = now + self.limits.backend_timeout;
        let record = HalfOpen::new(port, packet, frame, self.limits.mtu(port), deadline);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, dirty: false, state: SlotState::Free });
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].state = SlotState::HalfOpen(record);
        self.index.insert(key, slot);
        self.timers.set(slot, deadline);
        let conn = self.id(slot);
        self.events.push_back(Event::Dial { conn, port, tuple });
    }

    /// A segment of a client whose backend is still being dialled.
    fn early(&mut self, slot: u32, packet: &Packet, frame: &[u8]) {
        let id = self.id(slot);
        let SlotState::HalfOpen(record) = &mut self.slots[slot as usize].state else { return };
        let seq = packet.tcp_seq(frame);
        if packet.tcp_flags() & tcp_flags::RST != 0 {
            // The client has given up. Its number must be one that it can know.
            if seq == record.seq || seq == record.seq.wrapping_add(1) {
                self.release(slot);
                self.events.push_back(Event::Reset(id));
            }
        } else if packet.is_tcp_syn() && seq != record.seq {
            // The same ports, a new attempt: its numbers count. A repeated SYN (the same number) changes nothing.
            let deadline = record.deadline;
            *record = HalfOpen::new(record.port, packet, frame, self.limits.mtu(record.port), deadline);
        }
    }

    /// The backend has accepted: makes the stack and lets the stored SYN in.
    fn connect(&mut self, now: Instant, slot: u32, record: &HalfOpen, out: &mut dyn Sink) -> bool {
        let (rx, tx) = self.limits.buffers(record.port);
        if self.buffer_bytes + rx + tx > self.limits.total_buffer_bytes {
            self.release(slot);
            self.note(Event::HalfOpenFull { port: record.port, tuple: record.tuple });
            return false;
        }
        self.made += 1;
        let seed = mix(self.seed ^ self.made, 0xe703_7ed1_a0b4_28db) ^ now.0;
        let Some(mut conn) = Conn::listen(now, record.port, record.tuple, &self.limits, seed) else {
            self.release(slot);
            return false;
        };
        conn.receive(now, &record.syn()[IP_OFFSET..], false, Outlet { scratch: &mut self.scratch, out });
        if conn.state() != State::SynReceived {
            self.release(slot);
            return false;
        }
        self.buffer_bytes += conn.buffers;
        self.connections += 1;
        self.slots[slot as usize].state = SlotState::Conn(Box::new(conn));
        self.flush(now, slot, out);
        true
    }

    /// A segment of an established connection, or of its handshake.
    fn deliver(&mut self, now: Instant, slot: u32, packet: &Packet, frame: &[u8], out: &mut dyn Sink) {
        let SlotState::Conn(conn) = &mut self.slots[slot as usize].state else { return };
        if conn.aborted {
            return;
        }
        let reset = packet.tcp_flags() & tcp_flags::RST != 0;
        let bytes = &frame[IP_OFFSET..packet.frame_len()];
        conn.receive(now, bytes, reset, Outlet { scratch: &mut self.scratch, out });
        self.mark(slot);
        self.notice(slot);
    }

    /// A SYN on a connection that is established: the client may have restarted. It is told our numbers, and resets
    /// if they mean nothing to it (RFC 5961, 4.2).
    fn challenge(&mut self, now: Instant, slot: u32, out: &mut dyn Sink) {
        let SlotState::Conn(conn) = &mut self.slots[slot as usize].state else { return };
        if now < conn.challenge_after || conn.aborted {
            return;
        }
        conn.challenge_after = now + std::time::Duration::from_secs(1);
        let (port, tuple, sent) = (conn.port, conn.tuple, conn.sent);
        acknowledge(port, tuple, sent.seq_end, sent.ack, self.limits.ttl, out);
    }

    /// A segment that belongs to no connection.
    fn stray(&mut self, now: Instant, key: Key, packet: &Packet, frame: &[u8], out: &mut dyn Sink) {
        let (port, tuple) = key;
        self.time_wait.expire(now);
        if packet.tcp_flags() & tcp_flags::RST != 0 {
            self.time_wait.remove(&key);
            self.expired.remove(&key);
        } else if let Some((seq, ack)) = self.time_wait.get(&key) {
            // Its FIN again: our last acknowledgement was lost.
            if packet.tcp_flags() & tcp_flags::FIN != 0 {
                acknowledge(port, tuple, seq, ack, self.limits.ttl, out);
            }
            return;
        } else if self.expired.get(&key).is_some() {
            let mut reset = [0; RST_LEN];
            if make::write_rst_into(&mut reset, packet, frame) != 0 {
                edit::set_ttl(&mut reset, self.limits.ttl.max(1));
                out.frame(port, &mut reset);
            }
            return self.note(Event::LateAfterExpiry { port, tuple });
        }
        self.note(Event::NoState { port, tuple });
    }

    /// A deadline has come.
    fn due(&mut self, now: Instant, slot: u32, out: &mut dyn Sink) {
        let id = self.id(slot);
        match &mut self.slots[slot as usize].state {
            SlotState::Free => {}
            SlotState::HalfOpen(record) => {
                let event = Event::BackendSilent { conn: id, port: record.port, tuple: record.tuple };
                self.release(slot);
                self.events.push_back(event);
            }
            SlotState::Conn(conn) if now >= conn.end_of_life(&self.limits) => {
                let (port, tuple) = (conn.port, conn.tuple);
                if conn.embryonic {
                    self.release(slot);
                    self.events.push_back(Event::Reset(id));
                } else {
                    self.release(slot);
                    self.expired.add((port, tuple), (), Instant::NEVER);
                    self.events.push_back(Event::Expired { conn: id, port, tuple });
                }
            }
            SlotState::Conn(_) => self.flush(now, slot, out),
        }
    }

    /// Sends what one connection has to send, and sets its timer.
    fn flush(&mut self, now: Instant, slot: u32, out: &mut dyn Sink) {
        let SlotState::Conn(conn) = &mut self.slots[slot as usize].state else { return };
        conn.transmit(now, Outlet { scratch: &mut self.scratch, out });
        if conn.aborted {
            return self.release(slot);
        }
        if conn.state() == State::TimeWait && conn.end.is_none() {
            // The last acknowledgement has just left. Two numbers replace the stack.
            let (port, tuple, sent) = (conn.port, conn.tuple, conn.sent);
            conn.end = Some(End::Closed);
            self.time_wait.add((port, tuple), (sent.seq_end, sent.ack), now + self.limits.time_wait);
        }
        if self.notice(slot)
            && let SlotState::Conn(conn) = &mut self.slots[slot as usize].state
        {
            let deadline = conn.deadline(now, &self.limits);
            self.timers.bring_forward(slot, deadline);
        }
    }

    /// Tells the owner what changed. False if the connection is gone now.
    fn notice(&mut self, slot: u32) -> bool {
        let id = self.id(slot);
        let SlotState::Conn(conn) = &mut self.slots[slot as usize].state else { return false };
        if conn.aborted {
            return true;
        }
        if conn.embryonic && conn.state() != State::SynReceived {
            conn.embryonic = false;
            let (port, source) = (conn.port, conn.tuple.src);
            if std::mem::take(&mut conn.want_close) && conn.end.is_none() {
                conn.socket().close();
                self.mark(slot);
            }
            self.embryos.release(port, source);
        }
        let SlotState::Conn(conn) = &mut self.slots[slot as usize].state else { return false };
        if conn.end == Some(End::Reset) {
            self.release(slot);
            self.events.push_back(Event::Reset(id));
            return false;
        }
        let unread = conn.socket().recv_queue();
        if unread > conn.left_unread && !conn.told_readable {
            conn.told_readable = true;
            self.events.push_back(Event::Readable(id));
        }
        // Not for every freed byte: a quarter of the buffer is worth a wake-up.
        if conn.want_write && conn.send_room() >= (conn.socket().send_capacity() / 4).max(1) {
            conn.want_write = false;
            self.events.push_back(Event::Writable(id));
        }
        if unread == 0 && !conn.told_peer_closed && conn.fin_received() {
            conn.told_peer_closed = true;
            self.events.push_back(Event::PeerClosed(id));
        }
        if conn.end == Some(End::Closed) {
            if unread == 0 {
                self.release(slot);
                self.events.push_back(Event::Closed(id));
                return false;
            }
            // Only its bytes wait for the owner: the client may use the same ports anew.
            let key = (conn.port, conn.tuple);
            self.unlist(key, slot);
        }
        true
    }

    /// Frees a slot. Whoever still holds its id holds nothing.
    fn release(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.dirty = false;
        let (key, embryonic) = match std::mem::replace(&mut entry.state, SlotState::Free) {
            SlotState::Free => return,
            SlotState::HalfOpen(record) => ((record.port, record.tuple), true),
            SlotState::Conn(conn) => {
                self.buffer_bytes -= conn.buffers;
                self.connections -= 1;
                ((conn.port, conn.tuple), conn.embryonic)
            }
        };
        if embryonic {
            self.embryos.release(key.0, key.1.src);
        }
        self.unlist(key, slot);
        self.timers.remove(slot);
        self.free.push(slot);
    }

    /// Takes a connection out of the index, if the index still means this one.
    fn unlist(&mut self, key: Key, slot: u32) {
        if self.index.get(&key) == Some(&slot) {
            self.index.remove(&key);
        }
    }

    fn mark(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn note(&mut self, event: Event) {
        if self.notes_waiting < NOTES {
            self.notes_waiting += 1;
            self.events.push_back(event);
        } else {
            self.notes_lost += 1;
        }
    }

    fn id(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.slots[slot as usize].generation }
    }

    fn state(&mut self, conn: ConnId) -> Option<&mut SlotState> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        (slot.generation == conn.generation).then_some(&mut slot.state)
    }
}

/// Events that report a dropped frame and no change of a connection.
fn is_note(event: &Event) -> bool {
    matches!(event, Event::HalfOpenFull { .. } | Event::NoState { .. } | Event::LateAfterExpiry { .. })
}

/// Sends a bare ACK to the client of `tuple` for a connection that has no stack to do it.
fn acknowledge(port: Port, tuple: FiveTuple, seq: u32, ack: u32, ttl: u8, out: &mut dyn Sink) {
    let (client, server) = (
        std::net::SocketAddrV4::new(tuple.src, tuple.src_port),
        std::net::SocketAddrV4::new(tuple.dst, tuple.dst_port),
    );
    let spec = TcpSpec::new(server, client, tcp_flags::ACK);
    let mut frame = make::tcp(&TcpSpec { seq, ack, ttl: ttl.max(1), ..spec });
    out.frame(port, &mut frame);
}
