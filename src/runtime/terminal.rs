//! Where TCP ends: the stack with its connections, and who serves each: a task behind a bridge, the metadata service or
//! the resolver, both of which answer in the router thread itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::bridge::{BridgeGauges, BridgeStream, Intent, Notices, RouterEnd, bridge};
use super::poller::Waker;
use super::tables::{Tables, TokenBook};
use crate::base::{EniIx, FiveTuple, Instant, UnixTime};
use crate::stack::{Answer, ConnId, Event, Forwarder, Port, Sink, StackLimits};
use crate::{dns, imds};

/// How long a connection whose task is gone may take to end: the kernel's `tcp_fin_timeout`.
const LINGER: Duration = Duration::from_secs(60);

/// Bytes that all rings together aim to stay under; with many connections each gets less.
const RING_BUDGET: usize = 128 << 20;
const RING_LEAST: usize = 16 << 10;

/// Backends outside the lab that may wait for a client which the endpoint has forgotten. The oldest beyond are reset:
/// each holds a socket and two rings.
const UNTOLD: usize = 256;

/// TTL of what the metadata service and the resolver send over TCP.
const LOCAL_TTL: u8 = 64;

/// Rounds of events and polls in one turn: a bound against two sides that answer each other for ever.
const ROUNDS: usize = 64;

/// Opens what stands behind endpoints' ENIs and doors.
pub trait Backends: Send {
    /// A client wants a connection to the interface `eni` of the tables' plan: begin to open it, and answer by the ticket.
    fn open(&mut self, tables: &Tables, eni: EniIx, tuple: FiveTuple, ticket: Ticket) -> AbortHandle;
}

/// The right and the duty to answer one dial. Dropped unanswered it says [`Answer::Silent`].
pub struct Ticket {
    conn: ConnId,
    answers: Arc<Answers>,
    answered: bool,
}

/// Dials that tasks have answered. Bounded by the stack's connections: each has at most one dial.
pub struct Answers {
    queue: SegQueue<Dialled>,
    waker: Waker,
}

struct Dialled {
    conn: ConnId,
    answer: Answer,
    stream: Option<oneshot::Sender<BridgeStream>>,
}

impl Answers {
    pub fn new(waker: Waker) -> Arc<Answers> {
        Arc::new(Answers { queue: SegQueue::new(), waker })
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Ticket {
    pub fn refused(mut self) {
        self.put(Answer::Refused, None);
    }

    pub fn silent(mut self) {
        self.put(Answer::Silent, None);
    }

    /// The backend is there. The client's stream, once the router has made it; `None` if the client went away.
    pub async fn connected(mut self) -> Option<BridgeStream> {
        let (sender, stream) = oneshot::channel();
        self.put(Answer::Connected, Some(sender));
        stream.await.ok()
    }

    fn put(&mut self, answer: Answer, stream: Option<oneshot::Sender<BridgeStream>>) {
        self.answered = true;
        self.answers.queue.push(Dialled { conn: self.conn, answer, stream });
        self.answers.waker.wake();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.put(Answer::Silent, None);
        }
    }
}

/// What happened to a client that the drop log should name.
pub struct Noted {
    pub port: Port,
    /// The ENI that the client's packets come from, where it is one of ours.
    pub client: Option<EniIx>,
    pub tuple: FiveTuple,
    pub code: crate::engine::DropCode,
}

/// Where a turn sends.
pub trait Outlet: Sink {
    fn note(&mut self, noted: Noted);
}

/// What a turn needs from its surroundings.
pub struct Turn<'a> {
    pub now: Instant,
    pub unix: UnixTime,
    pub tables: &'a Tables,
    pub out: &'a mut dyn Outlet,
}

pub struct Terminal {
    stack: Forwarder,
    /// By the slot of the id.
    conns: Vec<Option<Conn>>,
    open: usize,
    backends: Box<dyn Backends>,
    answers: Arc<Answers>,
    notices: Notices,
    gauges: Arc<BridgeGauges>,
    /// Connections whose task is gone, with the moment at which patience ends; in order.
    lingering: std::collections::VecDeque<(Instant, ConnId)>,
    /// Of forgotten connections, the tasks that are still to find out; oldest first.
    untold: std::collections::VecDeque<RouterEnd>,
    seed: u64,
    /// Of the metadata service.
    tokens: TokenBook,
    /// Published for other threads.
    pub counts: Arc<TerminalCounts>,
}

#[derive(Debug, Default)]
pub struct TerminalCounts {
    pub conns: AtomicU64,
    pub half_open: AtomicU64,
}

struct Conn {
    id: ConnId,
    port: Port,
    serves: Serves,
}

enum Serves {
    /// A backend is being opened.
    Dialling(AbortHandle),
    Bridge {
        end: RouterEnd,
        /// FIN was asked for.
        shut: bool,
        /// The task is gone: what still comes is answered with a reset.
        orphan: bool,
    },
    Imds(Box<imds::Session>, bool),
    Resolver(Box<dns::Session>, bool),
}

impl Terminal {
    pub fn new(
        limits: StackLimits,
        seed: u64,
        backends: Box<dyn Backends>,
        answers: Arc<Answers>,
        notices: Notices,
        gauges: Arc<BridgeGauges>,
    ) -> Terminal {
        Terminal {
            stack: Forwarder::new(limits, seed),
            conns: Vec::new(),
            open: 0,
            backends,
            answers,
            notices,
            gauges,
            lingering: std::collections::VecDeque::new(),
            untold: std::collections::VecDeque::with_capacity(UNTOLD),
            seed,
            tokens: TokenBook::new(super::router::next_seed(seed)),
            counts: Arc::default(),
        }
    }

    pub fn stack(&mut self) -> &mut Forwarder {
        &mut self.stack
    }

    /// A frame whose destination is `port`.
    pub fn packet(&mut self, now: Instant, port: Port, frame: &[u8], out: &mut dyn Sink) {
        self.stack.packet(now, port, frame, out);
    }

    /// Forgets every connection at an interface that is gone, without a packet.
    pub fn remove_ports(&mut self, number: EniIx) {
        for port in [Port::Endpoint(number), Port::Imds(number), Port::Resolver(number)] {
            for id in self.stack.remove_port(port) {
                self.forget(id, true);
            }
        }
    }

    /// True if nothing waits but the clock.
    pub fn is_quiet(&self) -> bool {
        self.answers.is_empty() && self.notices.is_empty()
    }

    /// The next moment at which [`Terminal::turn`] must be called though nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        let linger = self.lingering.front().map_or(Instant::NEVER, |(at, _)| *at);
        self.stack.next_deadline().min(linger)
    }

    /// Moves everything on: answers of dials, bytes of tasks, events of the stack, its timers.
    pub fn turn(&mut self, turn: &mut Turn<'_>) {
        while let Some(dialled) = self.answers.queue.pop() {
            self.dialled(dialled, turn);
        }
        while let Some(key) = self.notices.next() {
            let id = ConnId { slot: key as u32, generation: (key >> 32) as u32 };
            if !self.untold.is_empty() && find(&mut self.conns, id).is_none() {
                self.drop_left();
            }
            self.pump(id, turn);
        }
        if self.notices.take_overflow() {
            let ids: Vec<ConnId> = self.conns.iter().flatten().map(|conn| conn.id).collect();
            for id in ids {
                self.pump(id, turn);
            }
        }
        self.end_patience(turn.now);
        for _ in 0..ROUNDS {
            let mut busy = false;
            while let Some(event) = self.stack.next_event() {
                busy = true;
                self.event(event, turn);
            }
            if self.stack.next_deadline() <= turn.now {
                busy = true;
                self.stack.poll(turn.now, turn.out);
            }
            if !busy {
                break;
            }
        }
        let usage = self.stack.usage();
        self.counts.conns.store(usage.connections as u64, Ordering::Relaxed);
        self.counts.half_open.store(usage.half_open as u64, Ordering::Relaxed);
    }

    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        use crate::engine::DropCode;
        let note = |turn: &mut Turn<'_>, port, tuple, code| {
            turn.out.note(Noted { port, client: turn.tables.eni_of(port, tuple), tuple, code });
        };
        match event {
            Event::Dial { conn, port, tuple } => self.dial(conn, port, tuple, turn),
            Event::Readable(conn) | Event::Writable(conn) => self.pump(conn, turn),
            Event::PeerClosed(conn) => self.peer_closed(conn, turn),
            Event::Closed(conn) => self.forget(conn, false),
            Event::Reset(conn) => self.forget(conn, true),
            Event::Expired { conn, .. } => self.expire(conn),
            Event::BackendSilent { conn, port, tuple } => {
                self.forget(conn, true);
                note(turn, port, tuple, DropCode::BackendSilent);
            }
            Event::HalfOpenFull { port, tuple } => note(turn, port, tuple, DropCode::HalfOpenFull),
            Event::NoState { port, tuple } => note(turn, port, tuple, DropCode::VpceNoState),
            Event::LateAfterExpiry { port, tuple } => note(turn, port, tuple, DropCode::VpceIdle),
        }
    }

    fn dial(&mut self, id: ConnId, port: Port, tuple: FiveTuple, turn: &mut Turn<'_>) {
        let serves = match port {
            Port::Endpoint(number) => {
                let Some(eni) = turn.tables.numbers.eni(number) else { return self.stack.abort(id) };
                let ticket = Ticket { conn: id, answers: self.answers.clone(), answered: false };
                Serves::Dialling(self.backends.open(turn.tables, eni, tuple, ticket))
            }
            Port::Imds(_) => Serves::Imds(Box::default(), false),
            Port::Resolver(_) => Serves::Resolver(Box::default(), false),
        };
        let local = !matches!(serves, Serves::Dialling(_));
        let at = id.slot as usize;
        if at >= self.conns.len() {
            self.conns.resize_with(at + 1, || None);
        }
        if self.conns[at].replace(Conn { id, port, serves }).is_none() {
            self.open += 1;
        }
        if local {
            self.stack.answer(turn.now, id, Answer::Connected, turn.out);
        }
    }

    fn dialled(&mut self, dialled: Dialled, turn: &mut Turn<'_>) {
        let Dialled { conn: id, answer, stream } = dialled;
        let ring = (RING_BUDGET / 2 / (self.open + 1)).clamp(RING_LEAST, super::bridge::RING_BYTES);
        let Some(conn) = find(&mut self.conns, id) else { return };
        if !matches!(conn.serves, Serves::Dialling(_)) {
            return;
        }
        let taken = self.stack.answer(turn.now, id, answer, turn.out);
        match (answer, stream) {
            (Answer::Connected, Some(stream)) if taken => {
                let key = u64::from(id.generation) << 32 | u64::from(id.slot);
                let (end, task_end) = bridge(key, ring, &self.notices, &self.gauges);
                conn.serves = Serves::Bridge { end, shut: false, orphan: false };
                // A task that is gone by now has dropped its end: the stream comes back and says so by its own drop.
                drop(stream.send(task_end));
            }
            _ => {
                self.conns[id.slot as usize] = None;
                self.open -= 1;
            }
        }
    }

    /// Moves bytes both ways as far as they go.
    fn pump(&mut self, id: ConnId, turn: &Turn<'_>) {
        let stack = &mut self.stack;
        let Some(conn) = find(&mut self.conns, id) else { return };
        match &mut conn.serves {
            Serves::Dialling(_) => {}
            Serves::Bridge { end, shut, orphan } => {
                end.take_notice();
                let orders = end.orders();
                let drained = end.pull(|bytes| stack.send(id, bytes));
                match orders.intent(drained) {
                    Intent::Abort => return self.abort(id),
                    Intent::Close => {
                        if !*orphan {
                            *orphan = true;
                            self.lingering.push_back((turn.now + LINGER, id));
                        }
                        if !*shut {
                            *shut = true;
                            stack.shutdown_write(id);
                        }
                    }
                    Intent::ShutWrite => {
                        if !*shut {
                            *shut = true;
                            stack.shutdown_write(id);
                        }
                    }
                    Intent::Open => {}
                }
                let orphan = *orphan;
                let mut unwanted = false;
                loop {
                    let mut full = false;
                    let taken = stack.recv(id, |bytes| {
                        if orphan {
                            unwanted |= !bytes.is_empty();
                            return 0;
                        }
                        let taken = end.push(bytes);
                        full = taken < bytes.len();
                        taken
                    });
                    if taken == 0 || full {
                        break;
                    }
                }
                if unwanted {
                    self.abort(id);
                }
            }
            Serves::Imds(session, shut) => {
                let Port::Imds(eni) = conn.port else { return };
                let (tables, tokens, unix) = (turn.tables, &mut self.tokens, turn.unix);
                let hop_limit = tables.hop_limit(eni);
                converse(stack, id, &mut **session, shut, hop_limit, |session, bytes| {
                    tables.imds(eni, unix, session, tokens, bytes)
                });
            }
            Serves::Resolver(session, shut) => {
                let Port::Resolver(eni) = conn.port else { return };
                self.seed = super::router::next_seed(self.seed);
                let (tables, seed) = (turn.tables, self.seed);
                converse(stack, id, &mut **session, shut, LOCAL_TTL, |session, bytes| {
                    tables.dns_tcp(eni, session, bytes, seed)
                });
            }
        }
    }

    fn peer_closed(&mut self, id: ConnId, turn: &Turn<'_>) {
        self.pump(id, turn);
        let Some(conn) = find(&mut self.conns, id) else { return };
        match &mut conn.serves {
            Serves::Dialling(_) => {}
            Serves::Bridge { end, .. } => end.peer_closed(),
            // Both answer at once: whatever was asked has been answered by now.
            Serves::Imds(_, shut) | Serves::Resolver(_, shut) => {
                if !*shut {
                    *shut = true;
                    self.stack.shutdown_write(id);
                }
            }
        }
    }

    fn abort(&mut self, id: ConnId) {
        self.stack.abort(id);
        self.forget(id, true);
    }

    /// The stack has let go of the connection.
    fn forget(&mut self, id: ConnId, reset: bool) {
        let at = id.slot as usize;
        if find(&mut self.conns, id).is_none() {
            return;
        }
        let Some(conn) = self.conns[at].take() else { return };
        self.open -= 1;
        match conn.serves {
            Serves::Dialling(task) => task.abort(),
            Serves::Bridge { end, .. } => end.ended(reset),
            Serves::Imds(..) | Serves::Resolver(..) => {}
        }
    }

    /// The stack has forgotten a silent connection. Its client was told nothing; nor is a backend outside.
    fn expire(&mut self, id: ConnId) {
        let told = match find(&mut self.conns, id) {
            Some(Conn { serves: Serves::Bridge { end, .. }, .. }) => end.expire(),
            _ => true,
        };
        if told {
            return self.forget(id, true);
        }
        let Some(Conn { serves: Serves::Bridge { end, .. }, .. }) = self.conns[id.slot as usize].take() else { return };
        self.open -= 1;
        self.drop_left();
        if self.untold.len() == UNTOLD
            && let Some(oldest) = self.untold.pop_front()
        {
            oldest.ended(true);
        }
        self.untold.push_back(end);
    }

    /// Lets go of the rings of tasks that have ended since their connection was forgotten.
    fn drop_left(&mut self) {
        self.untold.retain(|end| {
            // First: a task that ends from here on gives notice again.
            end.take_notice();
            !end.is_left()
        });
    }

    fn end_patience(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.lingering.front() {
            let ended = find(&mut self.conns, id).is_none();
            if !ended && at > now {
                break;
            }
            self.lingering.pop_front();
            if !ended {
                self.abort(id);
            }
        }
    }
}

/// A conversation that the router thread itself leads.
trait Local {
    fn output(&self) -> &[u8];
    fn sent(&mut self, n: usize);
    fn ended(&self) -> bool;
    /// What waits is to be sent with the hop limit of the instance.
    fn is_short_lived(&self) -> bool;
}

impl Local for imds::Session {
    fn output(&self) -> &[u8] {
        imds::Session::output(self)
    }

    fn sent(&mut self, n: usize) {
        imds::Session::sent(self, n);
    }

    fn ended(&self) -> bool {
        imds::Session::ended(self)
    }

    fn is_short_lived(&self) -> bool {
        self.token_answer_waits()
    }
}

impl Local for dns::Session {
    fn output(&self) -> &[u8] {
        dns::Session::output(self)
    }

    fn sent(&mut self, n: usize) {
        dns::Session::sent(self, n);
    }

    fn ended(&self) -> bool {
        dns::Session::ended(self)
    }

    fn is_short_lived(&self) -> bool {
        false
    }
}

/// Sends what waits and feeds what came, until neither goes on.
fn converse<L: Local>(
    stack: &mut Forwarder,
    id: ConnId,
    session: &mut L,
    shut: &mut bool,
    hop_limit: u8,
    mut feed: impl FnMut(&mut L, &[u8]) -> usize,
) {
    loop {
        if !session.output().is_empty() {
            stack.set_ttl(id, if session.is_short_lived() { hop_limit } else { LOCAL_TTL });
            let sent = stack.send(id, session.output());
            session.sent(sent);
            if !session.output().is_empty() {
                return;
            }
        }
        if session.ended() {
            if !*shut {
                *shut = true;
                stack.shutdown_write(id);
            }
            // Nothing more is read, and the peer may say what it likes until it closes.
            stack.recv(id, <[u8]>::len);
            return;
        }
        let taken = stack.recv(id, |bytes| feed(session, bytes));
        if taken == 0 && session.output().is_empty() {
            return;
        }
    }
}

fn find(conns: &mut [Option<Conn>], id: ConnId) -> Option<&mut Conn> {
    conns.get_mut(id.slot as usize)?.as_mut().filter(|conn| conn.id == id)
}
