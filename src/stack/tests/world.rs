//! A client with smoltcp's TCP, a link that delays and loses, and an owner of the forwarder that does as it is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::base::{EniIx, FiveTuple, Instant};
use crate::stack::{Answer, ConnId, Event, Forwarder, Port, StackLimits};
use crate::wire::{Packet, gso, vnet};

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 25);
pub(super) const PORT: Port = Port::Endpoint(EniIx(7));

/// Small buffers: windows close and wrap early.
pub(super) fn limits() -> StackLimits {
    StackLimits { rx_buffer: 64 << 10, tx_buffer: 64 << 10, total_buffer_bytes: 64 << 20, ..StackLimits::default() }
}

pub(super) struct Link {
    pub(super) delay: Duration,
    /// Packets lost of each thousand, in each direction.
    pub(super) lost_per_mille: u64,
    /// Lose everything towards the client, or towards the server.
    pub(super) deaf: (bool, bool),
}

/// What the owner does with a new client.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Backend {
    Accepts,
    Refuses,
    Silent,
    /// Never answers the dial.
    Slow,
}

/// The owner's side of one connection.
#[derive(Default)]
pub(super) struct Served {
    pub(super) got: Vec<u8>,
    pub(super) to_send: VecDeque<u8>,
    /// Send FIN when `to_send` is empty.
    pub(super) finish: bool,
    finished: bool,
    /// How often a send took less than it was given.
    pub(super) refused: usize,
    pub(super) events: Vec<Event>,
}

/// Arrival, serial number, towards the server, the frame.
type InFlight = (Instant, u64, bool, Vec<u8>);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) fwd: Forwarder,
    pub(super) link: Link,
    pub(super) backend: Backend,
    /// The owner reads at once. If not, it reads when a test tells it.
    pub(super) reads: bool,
    /// What every new connection sends, and whether it then ends.
    pub(super) greeting: (Vec<u8>, bool),
    pub(super) clients: Vec<Client>,
    pub(super) served: BTreeMap<ConnId, Served>,
    /// Events that name no established connection, and dials.
    pub(super) events: Vec<Event>,
    /// Frames the forwarder sent, as it sent them.
    pub(super) frames: Vec<Vec<u8>>,
    by_tuple: HashMap<(Ipv4Addr, u16), usize>,
    flying: BinaryHeap<Reverse<InFlight>>,
    serial: u64,
    random: u64,
}

impl World {
    pub(super) fn new(limits: StackLimits) -> World {
        World {
            now: Instant::from_millis(1_000),
            fwd: Forwarder::new(limits, 42),
            link: Link { delay: Duration::from_micros(100), lost_per_mille: 0, deaf: (false, false) },
            backend: Backend::Accepts,
            reads: true,
            greeting: (Vec::new(), false),
            clients: Vec::new(),
            served: BTreeMap::new(),
            events: Vec::new(),
            frames: Vec::new(),
            by_tuple: HashMap::new(),
            flying: BinaryHeap::new(),
            serial: 0,
            random: 0x1234_5678_9abc_def1,
        }
    }

    /// A client that begins to connect now.
    pub(super) fn connect(&mut self, port: u16, mtu: usize) -> usize {
        let addr = Ipv4Addr::new(10, 0, 1, 10);
        self.connect_from(addr, port, mtu)
    }

    pub(super) fn connect_from(&mut self, addr: Ipv4Addr, port: u16, mtu: usize) -> usize {
        let client = Client::new(self.now, addr, port, mtu);
        self.clients.push(client);
        self.by_tuple.insert((addr, port), self.clients.len() - 1);
        self.clients.len() - 1
    }

    pub(super) fn client(&mut self, n: usize) -> &mut Socket<'static> {
        self.clients[n].socket()
    }

    pub(super) fn tuple_of(&self, n: usize) -> FiveTuple {
        FiveTuple::tcp(self.clients[n].addr, self.clients[n].port, SERVER, 443)
    }

    /// The only connection.
    pub(super) fn only(&mut self) -> (ConnId, &mut Served) {
        assert_eq!(self.served.len(), 1);
        let (id, served) = self.served.iter_mut().next().unwrap();
        (*id, served)
    }

    /// Runs until `done` or for `span` of virtual time. Whether `done` came.
    pub(super) fn run(&mut self, span: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + span;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let mut next = self.fwd.next_deadline();
            if let Some(Reverse((at, ..))) = self.flying.peek() {
                next = next.min(*at);
            }
            for client in &mut self.clients {
                next = next.min(client.deadline(self.now));
            }
            if next > end {
                self.now = end;
                self.settle();
                return done(self);
            }
            self.now = self.now.max(next).max(self.now + Duration::from_micros(1));
        }
    }

    /// Runs for `span`, whatever happens.
    pub(super) fn wait(&mut self, span: Duration) {
        self.run(span, |_| false);
    }

    /// Puts a frame into the forwarder as if it had arrived.
    pub(super) fn inject(&mut self, frame: &[u8]) {
        let mut sent = Vec::new();
        self.fwd.packet(self.now, PORT, frame, &mut |_: Port, frame: &mut [u8]| sent.push(frame.to_vec()));
        self.take_frames(sent);
    }

    /// Everything that can happen at this moment.
    pub(super) fn settle(&mut self) {
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to_server, frame))) = self.flying.pop() else { break };
            if to_server {
                self.inject(&frame);
            } else {
                let tuple = Packet::parse(&frame).expect("sent packets are valid").tuple();
                if let Some(&n) = self.by_tuple.get(&(tuple.dst, tuple.dst_port)) {
                    self.clients[n].wire.incoming.push_back(frame[vnet::LEN..].to_vec());
                }
            }
        }
        for n in 0..self.clients.len() {
            let client = &mut self.clients[n];
            client.poll(self.now);
            let packets: Vec<Vec<u8>> = client.wire.outgoing.drain(..).collect();
            for packet in packets {
                let mut frame = vec![0; vnet::LEN];
                frame.extend_from_slice(&packet);
                self.fly(true, frame);
            }
        }
        for _ in 0..100 {
            let mut sent = Vec::new();
            self.fwd.poll(self.now, &mut |port: Port, frame: &mut [u8]| {
                assert_eq!(port, PORT);
                sent.push(frame.to_vec());
            });
            self.take_frames(sent);
            let busy = self.serve();
            if !busy && self.fwd.next_deadline() != Instant::ZERO {
                return;
            }
        }
        panic!("the forwarder never comes to rest");
    }

    /// The owner's part. Whether there was anything to do.
    fn serve(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.fwd.next_event() {
            busy = true;
            match event {
                Event::Dial { conn, .. } => {
                    self.events.push(event);
                    self.answer(conn);
                }
                Event::Readable(conn) if self.reads => self.read(conn),
                Event::Readable(conn)
                | Event::Writable(conn)
                | Event::PeerClosed(conn)
                | Event::Closed(conn)
                | Event::Reset(conn)
                | Event::Expired { conn, .. }
                    if self.served.contains_key(&conn) =>
                {
                    self.served.get_mut(&conn).unwrap().events.push(event);
                }
                other => self.events.push(other),
            }
        }
        let fwd = &mut self.fwd;
        for (&conn, served) in &mut self.served {
            while !served.to_send.is_empty() && fwd.send_room(conn) > 0 {
                let (front, _) = served.to_send.as_slices();
                let taken = fwd.send(conn, front);
                served.refused += usize::from(taken < front.len());
                served.to_send.drain(..taken);
                busy = true;
            }
            if served.finish && !served.finished && served.to_send.is_empty() {
                served.finished = true;
                fwd.shutdown_write(conn);
                busy = true;
            }
        }
        busy
    }

    pub(super) fn answer(&mut self, conn: ConnId) {
        let answer = match self.backend {
            Backend::Accepts => Answer::Connected,
            Backend::Refuses => Answer::Refused,
            Backend::Silent => Answer::Silent,
            Backend::Slow => return,
        };
        let mut sent = Vec::new();
        if self.fwd.answer(self.now, conn, answer, &mut |_: Port, frame: &mut [u8]| sent.push(frame.to_vec()))
            && answer == Answer::Connected
        {
            let (bytes, finish) = self.greeting.clone();
            self.served.insert(conn, Served { to_send: bytes.into(), finish, ..Served::default() });
        }
        self.take_frames(sent);
    }

    pub(super) fn read(&mut self, conn: ConnId) {
        let got = &mut self.served.get_mut(&conn).expect("connected").got;
        self.fwd.recv(conn, |bytes| {
            got.extend_from_slice(bytes);
            bytes.len()
        });
    }

    /// Superframes are segmented as the receiving kernel would; every packet is checked.
    fn take_frames(&mut self, frames: Vec<Vec<u8>>) {
        for frame in frames {
            let mut packets = Vec::new();
            gso::segment(&frame, |packet| packets.push(packet.to_vec())).expect("sent frames are valid");
            for packet in packets {
                let parsed = Packet::parse(&packet).expect("segments are valid");
                assert!(parsed.verify_checksums(&packet), "{}", crate::wire::show::line(&packet));
                assert!(parsed.total_len() <= 8500, "{}", crate::wire::show::line(&packet));
                self.fly(false, packet);
            }
            self.frames.push(frame);
        }
    }

    fn fly(&mut self, to_server: bool, frame: Vec<u8>) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let deaf = if to_server { self.link.deaf.1 } else { self.link.deaf.0 };
        if deaf || self.random % 1000 < self.link.lost_per_mille {
            return;
        }
        self.serial += 1;
        self.flying.push(Reverse((self.now + self.link.delay, self.serial, to_server, frame)));
    }
}

/// One TCP client on a machine of its own.
pub(super) struct Client {
    pub(super) addr: Ipv4Addr,
    pub(super) port: u16,
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: ClientWire,
    /// To be sent, and whether then to close.
    pub(super) to_send: VecDeque<u8>,
    pub(super) finish: bool,
    pub(super) reads: bool,
    pub(super) got: Vec<u8>,
    /// The server's FIN has come and all is read.
    pub(super) ended: bool,
    pub(super) seen: Vec<State>,
}

impl Client {
    fn new(now: Instant, addr: Ipv4Addr, port: u16, mtu: usize) -> Client {
        let mut wire = ClientWire { mtu, incoming: VecDeque::new(), outgoing: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(port) ^ u64::from(addr.to_bits());
        let mut iface = Interface::new(config, &mut wire, smol(now));
        iface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(addr.into(), 24)).unwrap());
        let buffer = || SocketBuffer::new(vec![0; 100_000]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.connect(iface.context(), (IpAddr::V4(SERVER), 443), port).expect("connect");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Client {
            addr,
            port,
            iface,
            sockets,
            handle,
            wire,
            to_send: VecDeque::new(),
            finish: false,
            reads: true,
            got: Vec::new(),
            ended: false,
            seen: Vec::new(),
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn poll(&mut self, now: Instant) {
        for _ in 0..2 {
            self.iface.poll(smol(now), &mut self.wire, &mut self.sockets);
            let socket: &mut Socket<'static> = self.sockets.get_mut(self.handle);
            if self.seen.last() != Some(&socket.state()) {
                self.seen.push(socket.state());
            }
            while self.reads && socket.recv_queue() > 0 {
                let got = &mut self.got;
                socket
                    .recv(|bytes| {
                        got.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .expect("readable");
            }
            let fin = matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
            self.ended |= fin && socket.recv_queue() == 0;
            while !self.to_send.is_empty() && socket.can_send() {
                let taken = socket.send_slice(self.to_send.as_slices().0).expect("sendable");
                self.to_send.drain(..taken);
            }
            if self.finish && self.to_send.is_empty() && socket.may_send() {
                socket.close();
                self.finish = false;
            }
        }
        self.iface.poll(smol(now), &mut self.wire, &mut self.sockets);
    }

    fn deadline(&mut self, now: Instant) -> Instant {
        let at = self.iface.poll_at(smol(now), &self.sockets);
        at.map_or(Instant::NEVER, |at| Instant(at.total_micros() as u64 * 1000))
    }
}

struct ClientWire {
    mtu: usize,
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device for ClientWire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Rx, Tx<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Rx(packet), Tx(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        checksum.tcp = Checksum::Both;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Rx(Vec<u8>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros((now.0 / 1000) as i64)
}

/// `n` bytes that differ from place to place.
pub(super) fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}
