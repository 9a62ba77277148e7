//! The router thread: it owns everything that a packet touches, and runs each packet to its end.
//!
//! One turn reads a batch of frames from every TUN that has some, lets the engine decide each, and writes it, from the
//! buffer it was read into, to the TUN it goes to. What ends here goes to the resolver, the metadata service or the TCP
//! stack; what these send passes the engine like any other packet. Then commands of other threads, then timers, then
//! sleep (`poller`), the only one. Nothing on this way allocates, locks, awaits or logs per packet.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::bridge::{BridgeGauges, Notices};
use super::clock::OsClock;
use super::links::{Goal, Leg, Links, Lost};
use super::numbers::Numbers;
use super::poller::{Poller, Waker};
use super::tables::Tables;
use super::tap::{self, Taps};
use super::terminal::{Answers, Backends, Noted, Outlet, Terminal, TerminalCounts, Turn};
use super::unanswered::Unanswered;
use crate::base::pool::Frame;
use crate::base::{Clock, EniIx, Instant, Proto};
use crate::control::api::Gauges;
use crate::engine::{
    Decider, Direction, DropCode, DropLog, Engine, EngineLimits, FlowClosed, FlowSnapshot, Reaction, Verdict, Via,
    drop_record,
};
use crate::host::tun::Tun;
use crate::stack::{Port, Sink, StackLimits};
use crate::wire::edit::{answer_echo, set_ttl};
use crate::wire::make::{
    TTL, UDP_PAYLOAD_OFFSET, write_frag_needed_into, write_icmp_error_into, write_rst_into, write_time_exceeded_into,
    write_udp_into,
};
use crate::wire::packet::{IP_OFFSET, Packet};
use crate::wire::vnet::VnetHdr;

/// Frames read from one TUN before the next has its turn.
const BATCH: usize = 32;

/// Ended flows that are remembered for `flows`.
const CLOSED: usize = 4_096;

/// Commands that may wait for the router.
const COMMANDS: usize = 64;

/// How long a caller waits for the router to take a command and to answer it.
const PATIENCE: Duration = Duration::from_secs(5);

/// TTL of a door's answers to ping.
const DOOR_TTL: u8 = 64;

/// TTL of what the resolver sends.
pub const RESOLVER_TTL: u8 = 255;

/// What a router is made from.
pub struct RouterParts {
    pub clock: OsClock,
    pub tables: Tables,
    pub stack: StackLimits,
    /// Random.
    pub seed: u64,
    pub poller: Poller,
    pub answers: Arc<Answers>,
    pub notices: Notices,
    pub gauges: Arc<BridgeGauges>,
    pub backends: Box<dyn Backends>,
    /// By `EniIx`; endpoints' ENIs have none.
    pub tuns: Vec<Option<Tun>>,
    /// Told why, where the thread ends without having been asked to.
    pub on_end: Sender<String>,
}

/// The thread, as others see it.
pub struct RouterHandle {
    commands: Sender<Command>,
    waker: Waker,
    counts: Arc<RouterCounts>,
    terminal: Arc<TerminalCounts>,
    gauges: Arc<BridgeGauges>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// The router thread has ended, or is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router thread does not answer")]
pub struct RouterGone;

/// What a command may touch, on the router thread.
pub struct Inside<'a> {
    pub now: Instant,
    pub engine: &'a mut Engine,
    pub tables: &'a mut Tables,
    pub terminal: &'a mut Terminal,
    pub ports: &'a mut Ports,
    pub closed: &'a mut VecDeque<FlowClosed>,
    links: &'a mut Links,
    poller: &'a Poller,
}

/// A new plan, ready to be put in force.
pub struct Publication {
    pub tables: Tables,
    /// Of new kernels: the interface in the new plan, and its device.
    pub tuns: Vec<(EniIx, Tun)>,
    /// What else has to change in the same moment; it must not wait for anything.
    pub besides: Box<dyn FnOnce() + Send>,
}

/// What a publication took out of force: to be dropped by another thread, because that may take time (the kernel waits
/// for its readers when a TUN is closed).
pub struct Retired {
    pub tables: Tables,
    pub tuns: Vec<Tun>,
    /// What was dropped under the plan of `tables`.
    pub drops: DropLog,
}

impl Inside<'_> {
    /// Puts a new plan in force between two packets: whatever is decided from here on is decided by it. Connections and
    /// flows of interfaces that stay are carried over.
    ///
    /// Errors: epoll refuses a TUN; then nothing has changed.
    pub fn publish(&mut self, publication: Publication) -> io::Result<Retired> {
        let Publication { tables, tuns, besides } = publication;
        for (n, (eni, tun)) in tuns.iter().enumerate() {
            if let Err(error) = self.poller.add(tun.as_fd(), tables.numbers.of(*eni).0) {
                for (_, tun) in &tuns[..n] {
                    self.poller.remove(tun.as_fd())?;
                }
                return Err(error);
            }
        }
        let drops = self.engine.publish(self.now, tables.program.clone());
        let tables = std::mem::replace(self.tables, tables);
        besides();
        let (old, new) = (tables.numbers.clone(), self.tables.numbers.clone());
        let follow = |eni: EniIx| new.eni(old.of(eni));
        let mut retired = Vec::new();
        let mut before = std::mem::take(&mut self.ports.tuns);
        self.ports.tuns.resize_with(self.tables.plan.enis.len(), || None);
        for (at, tun) in before.iter_mut().enumerate() {
            let Some(tun) = tun.take() else { continue };
            match follow(EniIx(at as u32)) {
                Some(eni) => self.ports.tuns[eni.at()] = Some(tun),
                None => {
                    // It fails only for what is not watched.
                    let _ = self.poller.remove(tun.as_fd());
                    retired.push(tun);
                }
            }
        }
        for (eni, tun) in tuns {
            self.ports.tuns[eni.at()] = Some(tun);
        }
        self.links.publish(&self.tables.program, follow);
        for number in old.gone(&new) {
            self.terminal.remove_ports(number);
        }
        while let Some(flow) = self.engine.next_closed() {
            remember(self.closed, flow);
        }
        self.closed.retain_mut(|closed| {
            let FlowSnapshot { initiator, target, .. } = &mut closed.flow;
            let (Some(from), Some(to)) = (follow(*initiator), follow(*target)) else { return false };
            (*initiator, *target) = (from, to);
            true
        });
        self.terminal.stack().set_idle(self.tables.plan.limits.endpoint_idle);
        self.ports.taps.publish(&self.tables.plan);
        Ok(Retired { tables, tuns: retired, drops })
    }
}

fn remember(closed: &mut VecDeque<FlowClosed>, flow: FlowClosed) {
    if closed.len() == CLOSED {
        closed.pop_front();
    }
    closed.push_back(flow);
}

enum Command {
    Call(Box<dyn FnOnce(&mut Inside<'_>) + Send>),
    Stop,
}

#[derive(Debug, Default)]
struct RouterCounts {
    frames: AtomicU64,
    sleeps: AtomicU64,
    tun_full: AtomicU64,
    tun_errors: AtomicU64,
    flows: AtomicU64,
}

/// Starts the thread.
///
/// Errors: epoll refuses a TUN, or no thread can be made.
pub fn start(parts: RouterParts) -> io::Result<RouterHandle> {
    let RouterParts { clock, tables, stack, seed, poller, answers, notices, gauges, backends, tuns, on_end } = parts;
    let (sender, commands) = bounded(COMMANDS);
    let counts = Arc::new(RouterCounts::default());
    let waker = poller.waker();
    let terminal = Terminal::new(stack, seed, backends, answers, notices, gauges.clone());
    let mut ports = Ports { tuns: Vec::new(), counts: counts.clone(), taps: Taps::default() };
    ports.tuns.resize_with(tuns.len(), || None);
    let mut router = Router {
        clock,
        net: Net {
            engine: Engine::new(tables.program.clone(), EngineLimits { seed, ..EngineLimits::default() }),
            links: Links::new(&tables.program),
            ports,
        },
        closed: VecDeque::new(),
        unanswered: Unanswered::default(),
        tables,
        terminal,
        poller,
        commands,
        counts: counts.clone(),
        frame: Frame::new(),
        reply: Frame::new(),
        seed,
    };
    for (at, tun) in tuns.into_iter().enumerate() {
        if let Some(tun) = tun {
            let number = router.tables.numbers.of(EniIx(at as u32));
            router.poller.add(tun.as_fd(), number.0)?;
            router.net.ports.tuns[at] = Some(tun);
        }
    }
    let terminal = router.terminal.counts.clone();
    let thread = std::thread::Builder::new().name("router".into()).spawn(move || {
        // Told by its drop, so that a panic ends the lab too instead of leaving one without packets.
        let mut last_words = LastWords { on_end, words: Some("the router thread panicked".to_owned()) };
        let ended = router.run();
        last_words.words = ended.as_ref().err().map(|error| format!("the router thread failed: {error}"));
        ended
    })?;
    Ok(RouterHandle { commands: sender, waker, counts, terminal, gauges, thread: Some(thread) })
}

impl RouterHandle {
    /// Runs `work` on the router thread and waits for what it gives. Packets wait meanwhile: snapshots and tables only.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inside<'_>) -> T + Send + 'static,
    ) -> Result<T, RouterGone> {
        let (sender, result) = bounded(1);
        let command = Command::Call(Box::new(move |inside| {
            // The caller may have lost patience.
            let _ = sender.send(work(inside));
        }));
        self.commands.send_timeout(command, PATIENCE).map_err(|_| RouterGone)?;
        self.waker.wake();
        result.recv_timeout(PATIENCE).map_err(|_| RouterGone)
    }

    pub fn gauges(&self) -> Gauges {
        Gauges {
            conns: self.terminal.conns.load(Ordering::Relaxed),
            half_open: self.terminal.half_open.load(Ordering::Relaxed),
            rings_bytes: self.gauges.rings_bytes.load(Ordering::Relaxed),
            tasks: self.gauges.tasks.load(Ordering::Relaxed),
            flows: self.counts.flows.load(Ordering::Relaxed),
            tun_full: self.counts.tun_full.load(Ordering::Relaxed),
            tun_errors: self.counts.tun_errors.load(Ordering::Relaxed),
            sleeps: self.counts.sleeps.load(Ordering::Relaxed),
            frames: self.counts.frames.load(Ordering::Relaxed),
        }
    }

    /// Ends the thread and closes its TUNs.
    ///
    /// Errors: what ended the thread before.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // An error here means that it has ended already.
        let _ = self.commands.send_timeout(Command::Stop, PATIENCE);
        self.waker.wake();
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the router thread panicked")))
    }
}

impl Drop for RouterHandle {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct LastWords {
    on_end: Sender<String>,
    words: Option<String>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if let Some(words) = self.words.take() {
            // Full: the lab ends already.
            let _ = self.on_end.try_send(words);
        }
    }
}

/// The TUNs, by ENI.
pub struct Ports {
    tuns: Vec<Option<Tun>>,
    counts: Arc<RouterCounts>,
    /// Who watches packets.
    pub(super) taps: Taps,
}

impl Ports {
    /// Hands a frame to the kernel of the ENI's namespace.
    #[inline]
    fn write(&self, to: EniIx, frame: &[u8]) {
        let Some(Some(tun)) = self.tuns.get(to.at()) else { return };
        if let Err(error) = tun.write(frame) {
            write_failed(tun, &self.counts, frame, &error);
        }
    }

    /// [`Ports::write`] of what comes over a link, seen by whoever watches arrivals.
    fn hand_over(&mut self, now: Instant, leg: &Leg, to: EniIx, frame: &[u8]) {
        if leg.is_from_next_door() {
            self.taps.arrived(now, to, frame);
        } else {
            self.taps.came_over(now, to, frame);
        }
        self.write(to, frame);
    }
}

/// Some kernels take no superframe of some kinds (EINVAL): then its segments are written one by one.
#[cold]
fn write_failed(tun: &Tun, counts: &RouterCounts, frame: &[u8], error: &io::Error) {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => add(&counts.tun_full, 1),
        Some(Errno::INVAL) if Packet::parse(frame).is_ok_and(|p| p.segments() > 1) => {
            let split = crate::wire::gso::segment(frame, |segment| {
                if tun.write(segment).is_err() {
                    add(&counts.tun_errors, 1);
                }
            });
            if split.is_err() {
                add(&counts.tun_errors, 1);
            }
        }
        _ => add(&counts.tun_errors, 1),
    }
}

/// The router thread alone writes these.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

struct Router {
    clock: OsClock,
    net: Net,
    tables: Tables,
    terminal: Terminal,
    poller: Poller,
    commands: Receiver<Command>,
    counts: Arc<RouterCounts>,
    /// Every frame is read into this one and written from it.
    frame: Frame,
    /// What the resolver sends is made in this one.
    reply: Frame,
    seed: u64,
    /// Flows that ended, newest last.
    closed: VecDeque<FlowClosed>,
    unanswered: Unanswered,
}

impl Router {
    fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(super::poller::MAX_EVENTS);
        loop {
            let now = self.clock.now();
            for &token in &ready {
                self.drain(now, EniIx(token))?;
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Stop => return Ok(()),
                    Command::Call(work) => work(&mut Inside {
                        now,
                        engine: &mut self.net.engine,
                        tables: &mut self.tables,
                        terminal: &mut self.terminal,
                        ports: &mut self.net.ports,
                        closed: &mut self.closed,
                        links: &mut self.net.links,
                        poller: &self.poller,
                    }),
                }
            }
            self.arrivals(now);
            self.turn(now);
            if self.net.engine.next_deadline() <= now {
                self.net.engine.expire(now);
            }
            while let Some(flow) = self.net.engine.next_closed() {
                remember(&mut self.closed, flow);
            }
            self.counts.flows.store(self.net.engine.flow_count() as u64, Ordering::Relaxed);
            let deadline = self.net.engine.next_deadline().min(self.terminal.next_deadline());
            let deadline = deadline.min(self.net.links.next_deadline()).min(self.unanswered.next_deadline());
            let timeout = (deadline != Instant::NEVER).then(|| deadline.since(self.clock.now()));
            let (commands, terminal) = (&self.commands, &self.terminal);
            let slept = self.poller.wait(timeout, || commands.is_empty() && terminal.is_quiet(), &mut ready)?;
            if slept {
                add(&self.counts.sleeps, 1);
            }
        }
    }

    /// Reads and decides a batch of frames of one TUN.
    fn drain(&mut self, now: Instant, number: EniIx) -> io::Result<()> {
        let Some(from) = self.tables.numbers.eni(number) else { return Ok(()) };
        for n in 0..BATCH {
            let Some(Some(tun)) = self.net.ports.tuns.get(from.at()) else { return Ok(()) };
            match tun.read(self.frame.space()) {
                Ok(0) => return Ok(()),
                Ok(len) => self.frame.set_len(len),
                Err(e) => {
                    add(&self.counts.frames, n as u64);
                    return match e.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                        // The device is down or gone: its namespace is being removed. Not to be asked again.
                        _ => {
                            let tun = self.net.ports.tuns[from.at()].take();
                            tun.map_or(Ok(()), |tun| self.poller.remove(tun.as_fd()))
                        }
                    };
                }
            }
            self.decide(now, from);
        }
        add(&self.counts.frames, BATCH as u64);
        Ok(())
    }

    #[inline]
    fn decide(&mut self, now: Instant, from: EniIx) {
        let frame = self.frame.bytes_mut();
        let goal = match tap::handle(&mut self.net.engine, &mut self.net.ports.taps, now, from, frame) {
            Verdict::Deliver { to } => return self.net.ports.write(to, frame),
            Verdict::Drop { code: DropCode::VpceIdle } => return self.reset_late(now, from),
            Verdict::Drop { .. } => return,
            Verdict::Reject { reaction, .. } => return self.react(now, from, reaction),
            Verdict::Shaped { to, via } => return self.shaped(now, from, to, via),
            Verdict::Endpoint { eni } => Goal::Endpoint(eni),
            Verdict::Imds { .. } => Goal::Imds,
            Verdict::Resolver { .. } => Goal::Resolver,
        };
        let link = self.net.engine.program().link_of(from);
        if link != 0 && !matches!(goal, Goal::Endpoint(_)) {
            return self.travel(now, Leg::out_of(from, goal, link));
        }
        self.arrive(now, from, goal);
    }

    /// A packet of `from`, in `self.frame`, ends here.
    #[inline]
    fn arrive(&mut self, now: Instant, from: EniIx, goal: Goal) {
        let frame = self.frame.bytes_mut();
        let port = match goal {
            Goal::Tun(to) => return self.net.ports.write(to, frame),
            Goal::Endpoint(eni) if frame.get(IP_OFFSET + 9) == Some(&Proto::ICMP.0) => {
                return self.answer_ping(now, eni);
            }
            Goal::Endpoint(eni) => Port::Endpoint(self.tables.numbers.of(eni)),
            Goal::Imds => Port::Imds(self.tables.numbers.of(from)),
            Goal::Resolver => match Packet::parse(frame) {
                Ok(packet) if packet.tuple().proto == Proto::UDP => return self.resolve(now, from, &packet),
                Ok(_) => Port::Resolver(self.tables.numbers.of(from)),
                Err(_) => return,
            },
        };
        let mut out = self.net.door(now, &self.tables.numbers);
        self.terminal.packet(now, port, frame, &mut out);
    }

    /// Tells the sender of a dropped packet what AWS tells it.
    #[cold]
    fn react(&mut self, now: Instant, to: EniIx, reaction: Reaction) {
        let frame = self.frame.bytes();
        let Ok(packet) = Packet::parse(frame) else { return };
        let space = self.reply.space();
        // What comes back passes the hops that the packet had passed.
        let (len, hops) = match reaction {
            Reaction::FragNeeded { from, mtu, hops } => {
                (write_frag_needed_into(space, from, &packet, frame, mtu), hops)
            }
            Reaction::TimeExceeded { from } => {
                (write_time_exceeded_into(space, from, &packet, frame), packet.ttl().saturating_sub(1))
            }
            Reaction::Reset => (write_rst_into(space, &packet, frame), 0),
            Reaction::HostUnreachable { from } => {
                let len = write_icmp_error_into(space, from, [3, 1], 0, &packet, frame);
                if len > 0 {
                    self.unanswered.tell_later(now, self.tables.numbers.of(to), &space[..len]);
                }
                return;
            }
        };
        if len > 0 {
            self.reply.set_len(len);
            set_ttl(self.reply.bytes_mut(), TTL.saturating_sub(hops).max(1));
            if let Verdict::Deliver { to } = self.net.engine.handle_reaction(now, to, self.reply.bytes()) {
                self.tell(now, to);
            }
        }
    }

    /// It takes time, may be lost, or is cut on its way.
    #[cold]
    fn shaped(&mut self, now: Instant, from: EniIx, to: EniIx, via: Via) {
        let tun = self.net.ports.tuns.get(to.at()).is_some_and(Option::is_some);
        let goal = if tun { Goal::Tun(to) } else { Goal::Endpoint(to) };
        // What ends here is not cut into fragments.
        let via = if tun { via } else { Via { fragment: 0, ..via } };
        self.travel(now, Leg::new(from, goal, via));
    }

    /// Sends what is in `self.frame` on its way.
    fn travel(&mut self, now: Instant, leg: Leg) {
        let mut out = self.net.door(now, &self.tables.numbers);
        out.travel(leg, self.frame.bytes());
    }

    /// Hands over what has been on its way for long enough, or sends it to the next link.
    fn arrivals(&mut self, now: Instant) {
        let (ports, numbers) = (&self.net.ports, &self.tables.numbers);
        self.unanswered.tell(now, |number, message| {
            if let Some(eni) = numbers.eni(number) {
                ports.write(eni, message);
            }
        });
        while let Some(mut held) = self.net.links.pop_due(now) {
            let (due, leg) = (held.due, held.tag);
            let frame = held.frame();
            self.frame.space()[..frame.len()].copy_from_slice(frame);
            self.frame.set_len(frame.len());
            self.net.links.recycle(held);
            match leg.goal {
                Goal::Endpoint(to) if leg.is_over() => {
                    self.net.ports.taps.came_over(now, to, self.frame.bytes());
                    self.arrive(now, leg.from, leg.goal);
                }
                Goal::Resolver | Goal::Imds if leg.is_over() => self.arrive(now, leg.from, leg.goal),
                _ => self.travel(due, leg),
            }
        }
    }

    /// Doors answer ping, as S3 does behind a gateway endpoint.
    #[cold]
    fn answer_ping(&mut self, now: Instant, door: EniIx) {
        let frame = self.frame.bytes_mut();
        let Ok(packet) = Packet::parse(frame) else { return };
        answer_echo(frame, &packet, DOOR_TTL);
        let mut out = self.net.door(now, &self.tables.numbers);
        out.frame(Port::Endpoint(self.tables.numbers.of(door)), frame);
    }

    /// A segment of a connection that its endpoint has forgotten.
    #[cold]
    fn reset_late(&mut self, now: Instant, to: EniIx) {
        let frame = self.frame.bytes();
        let Ok(packet) = Packet::parse(frame) else { return };
        let len = write_rst_into(self.reply.space(), &packet, frame);
        if len > 0 {
            self.reply.set_len(len);
            if let Verdict::Deliver { to } = self.net.engine.handle_reaction(now, to, self.reply.bytes()) {
                self.tell(now, to);
            }
        }
    }

    /// Hands what is in `self.reply` to `to`.
    fn tell(&mut self, now: Instant, to: EniIx) {
        let mut out = self.net.door(now, &self.tables.numbers);
        out.tell(to, self.reply.bytes());
    }

    /// Answers a DNS query over UDP, straight back from here.
    fn resolve(&mut self, now: Instant, from: EniIx, packet: &Packet) {
        let tuple = packet.tuple();
        let query = &self.frame.bytes()[packet.payload()];
        self.seed = next_seed(self.seed);
        let space = self.reply.space();
        let len = self.tables.dns_udp(from, query, self.seed, &mut space[UDP_PAYLOAD_OFFSET..]);
        if len == 0 {
            return;
        }
        let (src, dst) = (SocketAddrV4::new(tuple.dst, tuple.dst_port), SocketAddrV4::new(tuple.src, tuple.src_port));
        let len = write_udp_into(space, src, dst, RESOLVER_TTL, len);
        self.reply.set_len(len);
        let mut out = self.net.door(now, &self.tables.numbers);
        out.frame(Port::Resolver(self.tables.numbers.of(from)), self.reply.bytes_mut());
    }

    fn turn(&mut self, now: Instant) {
        let mut out = self.net.door(now, &self.tables.numbers);
        self.terminal.turn(&mut Turn { now, unix: self.clock.unix(), tables: &self.tables, out: &mut out });
    }
}

/// What carries frames.
struct Net {
    engine: Engine,
    ports: Ports,
    links: Links,
}

impl Net {
    fn door<'a>(&'a mut self, now: Instant, numbers: &'a Numbers) -> Door<'a> {
        Door { now, net: self, numbers }
    }
}

/// The way out for what ends here: through the engine, which filters and counts it like any packet.
struct Door<'a> {
    now: Instant,
    net: &'a mut Net,
    numbers: &'a Numbers,
}

impl Sink for Door<'_> {
    fn frame(&mut self, port: Port, frame: &mut [u8]) {
        let Some(eni) = self.numbers.eni(port.eni()) else { return };
        match port {
            Port::Endpoint(_) => {
                match tap::handle_from_endpoint(&mut self.net.engine, &mut self.net.ports.taps, self.now, eni, frame) {
                    Verdict::Deliver { to } => self.net.ports.write(to, frame),
                    // An endpoint answers instances only.
                    Verdict::Shaped { to, via } => self.travel(Leg::new(eni, Goal::Tun(to), via), frame),
                    _ => {}
                }
            }
            // Link-local services are beside the VPC's rules: nothing filters what they say to the asker.
            Port::Imds(_) | Port::Resolver(_) => {
                self.net.engine.count_reply(eni, frame.len().saturating_sub(VnetHdr::LEN));
                self.tell(eni, frame);
            }
        }
    }
}

impl Door<'_> {
    /// To an instance from what is next to it: only its own link is between.
    fn tell(&mut self, to: EniIx, frame: &[u8]) {
        match self.net.engine.program().link_of(to) {
            0 => {
                self.net.ports.taps.arrived(self.now, to, frame);
                self.net.ports.write(to, frame);
            }
            link => self.travel(Leg::into(to, link), frame),
        }
    }

    #[cold]
    fn travel(&mut self, leg: Leg, frame: &[u8]) {
        let (ports, now) = (&mut self.net.ports, self.now);
        let lost = self.net.links.send(now, leg, frame, |leg, to, piece| ports.hand_over(now, leg, to, piece));
        if lost != Lost::default() {
            lose(&mut self.net.engine, self.now, leg, frame, lost);
        }
    }
}

impl Outlet for Door<'_> {
    fn note(&mut self, noted: Noted) {
        let Noted { port, client, tuple, code } = noted;
        let Some(eni) = self.numbers.eni(port.eni()) else { return };
        let decider = match port {
            Port::Endpoint(_) => Decider::EndpointEni(eni),
            Port::Imds(_) => Decider::Imds(eni),
            Port::Resolver(_) => Decider::Resolver(eni),
        };
        let record = drop_record(self.now, client.unwrap_or(eni), tuple, code, decider, Direction::Ingress);
        self.net.engine.note_drop(self.now, &record);
    }
}

/// Segments that links lost, in the drop log. What the router had no room for was lost on the way to the receiver.
fn lose(engine: &mut Engine, now: Instant, leg: Leg, frame: &[u8], lost: Lost) {
    let Ok(packet) = Packet::parse(frame) else { return };
    let receiver = match leg.goal {
        Goal::Tun(to) => Decider::Eni(to),
        Goal::Endpoint(to) => Decider::EndpointEni(to),
        Goal::Resolver | Goal::Imds => Decider::Eni(leg.from),
    };
    let parts =
        [(lost.out, Decider::Eni(leg.from), Direction::Egress), (lost.into + lost.held, receiver, Direction::Ingress)];
    for (count, decider, direction) in parts {
        if count > 0 {
            let mut record = drop_record(now, leg.from, packet.tuple(), DropCode::LinkImpaired, decider, direction);
            record.count = u64::from(count);
            engine.note_drop(now, &record);
        }
    }
}

pub(super) fn next_seed(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}
