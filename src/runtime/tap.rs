//! Eyes on the router thread: whoever captures or traces gets copies of the packets that a filter chooses, with what the
//! engine said of them. Nobody watches: one branch per packet. Somebody does: copies go by a bounded queue, and what
//! does not fit is counted, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Receiver, Sender as Queue, TrySendError, bounded};

use crate::base::{EniIx, FiveTuple, Instant};
use crate::control::api::WatchAsk;
use crate::control::watch::{self, receiver};
use crate::engine::{Crumb, DropRecord, Engine, Verdict};
use crate::model::Plan;
use crate::observe::{Passage, Sender, Sight, Watch, Way};
use crate::wire::Packet;

/// Captures and traces at a time.
const TAPS: usize = 8;
/// Sights that wait for one reader, and the bytes of their frames.
const QUEUE: usize = 4_096;
const QUEUE_BYTES: usize = 16 << 20;

/// All of a lab.
#[derive(Default)]
pub struct Taps {
    taps: Vec<Tap>,
    plan: Arc<Plan>,
    next: u64,
    /// The packet as it was sent: the engine changes it in place.
    before: Vec<u8>,
}

struct Tap {
    id: u64,
    ask: WatchAsk,
    watch: Watch,
    trace: bool,
    queue: Queue<(Arc<Plan>, Sight)>,
    bytes: Arc<AtomicUsize>,
    lost: u64,
    gone: bool,
}

/// The reader's end of one. Dropping it ends the tap, at the latest with the next packet it would see.
pub struct Feed {
    pub id: u64,
    pub watch: Watch,
    sights: Receiver<(Arc<Plan>, Sight)>,
    bytes: Arc<AtomicUsize>,
}

impl Feed {
    /// What was seen next, with the plan it was seen under. `None`: nothing in that time.
    pub fn next(&self, patience: std::time::Duration) -> Result<Option<(Arc<Plan>, Sight)>, super::router::RouterGone> {
        use crossbeam::channel::RecvTimeoutError;
        match self.sights.recv_timeout(patience) {
            Ok(seen) => {
                self.bytes.fetch_sub(seen.1.frame.len(), Ordering::AcqRel);
                Ok(Some(seen))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(super::router::RouterGone),
        }
    }
}

/// [`Engine::handle`], and whoever watches sees it.
#[inline]
pub fn handle(engine: &mut Engine, taps: &mut Taps, now: Instant, from: EniIx, frame: &mut [u8]) -> Verdict {
    if taps.taps.is_empty() {
        return engine.handle(now, from, frame);
    }
    taps.decide(engine, now, from, false, frame)
}

/// [`Engine::handle_from_endpoint`], and whoever watches sees it.
#[inline]
pub fn handle_from_endpoint(
    engine: &mut Engine,
    taps: &mut Taps,
    now: Instant,
    eni: EniIx,
    frame: &mut [u8],
) -> Verdict {
    if taps.taps.is_empty() {
        return engine.handle_from_endpoint(now, eni, frame);
    }
    taps.decide(engine, now, eni, true, frame)
}

impl Taps {
    /// Begins to watch. `trace`: with every step, and at the sender. The error is a sentence for the user.
    pub fn add(&mut self, plan: &Arc<Plan>, ask: WatchAsk, trace: bool) -> Result<Feed, String> {
        self.taps.retain(|tap| !tap.gone);
        if self.taps.len() >= TAPS {
            return Err(format!("{TAPS} captures and traces run already in this lab"));
        }
        self.plan = plan.clone();
        let watch = resolve(plan, &ask, trace)?;
        let (queue, sights) = bounded(QUEUE);
        let bytes = Arc::new(AtomicUsize::new(0));
        self.next += 1;
        let feed = Feed { id: self.next, watch: watch.clone(), sights, bytes: bytes.clone() };
        self.taps.push(Tap { id: self.next, ask, watch, trace, queue, bytes, lost: 0, gone: false });
        Ok(feed)
    }

    /// Ends one; how many packets it lost since it last saw one.
    pub fn remove(&mut self, id: u64) -> u64 {
        let lost = self.taps.iter().find(|tap| tap.id == id).map_or(0, |tap| tap.lost);
        self.taps.retain(|tap| tap.id != id);
        lost
    }

    /// The plan in force is another one: words are looked up again. What they meant is gone: nothing is seen any more.
    pub fn publish(&mut self, plan: &Arc<Plan>) {
        self.plan = plan.clone();
        for tap in &mut self.taps {
            let nothing = Watch { at: Some(Vec::new()), ..Watch::default() };
            tap.watch = resolve(plan, &tap.ask, tap.trace).unwrap_or(nothing);
        }
    }

    /// A packet that a service of the host or a router made for `to`, and that no rule is asked about.
    #[inline]
    pub fn arrived(&mut self, now: Instant, to: EniIx, frame: &[u8]) {
        if !self.taps.is_empty() {
            self.note_arrival(now, to, frame, false);
        }
    }

    /// A packet that was seen where it was sent ([`Verdict::Shaped`]) and comes only now, perhaps in pieces.
    #[inline]
    pub fn came_over(&mut self, now: Instant, to: EniIx, frame: &[u8]) {
        if !self.taps.is_empty() {
            self.note_arrival(now, to, frame, true);
        }
    }

    #[cold]
    fn note_arrival(&mut self, now: Instant, to: EniIx, frame: &[u8], late: bool) {
        let sent = tuple(frame);
        let to_itself = self.owns(to, sent.map(|tuple| tuple.dst));
        let passage =
            Passage { sender: None, receiver: Some(to), sent, late, from_itself: true, to_itself, dropped: None };
        for tap in &mut self.taps {
            if tap.watch.places(&passage).1 {
                tap.see(&self.plan, now, to, Way::In { from: Sender::Unknown }, sent, frame);
            }
        }
        self.taps.retain(|tap| !tap.gone);
    }

    #[cold]
    fn decide(&mut self, engine: &mut Engine, now: Instant, from: EniIx, endpoint: bool, frame: &mut [u8]) -> Verdict {
        let sent = tuple(frame);
        let from_itself = self.owns(from, sent.map(|tuple| tuple.src));
        let (mut wanted, mut traced) = (false, false);
        for tap in &self.taps {
            if tap.watch.may_see(Some(from).filter(|_| from_itself), sent) {
                wanted = true;
                traced |= tap.trace;
            }
        }
        self.before.clear();
        if wanted {
            self.before.extend_from_slice(frame);
        }
        let (verdict, crumbs) = match (endpoint, traced) {
            (false, false) => (engine.handle(now, from, frame), Vec::new()),
            (false, true) => engine.trace(now, from, frame),
            (true, false) => (engine.handle_from_endpoint(now, from, frame), Vec::new()),
            (true, true) => engine.trace_from_endpoint(now, from, frame),
        };
        if wanted {
            self.note(engine, now, from, from_itself, sent, verdict, crumbs, frame);
        }
        verdict
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one packet")]
    fn note(
        &mut self,
        engine: &Engine,
        now: Instant,
        from: EniIx,
        from_itself: bool,
        sent: Option<FiveTuple>,
        verdict: Verdict,
        crumbs: Vec<Crumb>,
        frame: &[u8],
    ) {
        let receiver = receiver(verdict);
        let to_itself = receiver.is_some_and(|to| self.owns(to, tuple(frame).map(|tuple| tuple.dst)));
        let dropped = verdict.dropped();
        let passage = Passage { sender: Some(from), receiver, sent, late: false, from_itself, to_itself, dropped };
        // What goes over a link arrives later, or not at all.
        let at_once = receiver.filter(|_| !matches!(verdict, Verdict::Shaped { .. }));
        for tap in &mut self.taps {
            let (out, arrives) = tap.watch.places(&passage);
            if out {
                let drop = dropped.and_then(|_| record(engine, now, &passage));
                let crumbs = if tap.trace { crumbs.clone() } else { Vec::new() };
                tap.see(&self.plan, now, from, Way::Out { verdict, drop, crumbs }, sent, &self.before);
            }
            if let Some(to) = at_once.filter(|_| arrives) {
                tap.see(&self.plan, now, to, Way::In { from: Sender::Eni(from) }, sent, frame);
            }
        }
        self.taps.retain(|tap| !tap.gone);
    }

    /// True where a packet with this address is the ENI's own. Doors have none: all is theirs.
    fn owns(&self, eni: EniIx, addr: Option<std::net::Ipv4Addr>) -> bool {
        let Some(eni) = self.plan.enis.get(eni.at()) else { return false };
        eni.owner.is_door() || addr.is_none_or(|addr| addr == eni.ip)
    }
}

impl Tap {
    fn see(&mut self, plan: &Arc<Plan>, at: Instant, eni: EniIx, way: Way, sent: Option<FiveTuple>, frame: &[u8]) {
        if self.bytes.load(Ordering::Acquire) + frame.len() > QUEUE_BYTES {
            self.lost += 1;
            return;
        }
        let sight = Sight { at, eni, way, sent, frame: frame.to_vec(), lost: self.lost };
        self.bytes.fetch_add(frame.len(), Ordering::AcqRel);
        match self.queue.try_send((plan.clone(), sight)) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_)) => {
                self.bytes.fetch_sub(frame.len(), Ordering::AcqRel);
                self.lost += 1;
            }
            Err(TrySendError::Disconnected(_)) => self.gone = true,
        }
    }
}

fn resolve(plan: &Plan, ask: &WatchAsk, trace: bool) -> Result<Watch, String> {
    let watch = watch::resolve(plan, ask)?;
    Ok(Watch { at_senders: trace, ..watch })
}

fn tuple(frame: &[u8]) -> Option<FiveTuple> {
    Packet::parse(frame).ok().map(|packet| packet.tuple())
}

/// What the engine wrote down about a drop just now.
fn record(engine: &Engine, now: Instant, passage: &Passage) -> Option<DropRecord> {
    let is_it = |record: &&DropRecord| {
        record.last == now
            && Some(record.from) == passage.sender
            && Some(record.code) == passage.dropped
            && passage.sent.is_none_or(|sent| sent == record.tuple)
    };
    engine.drops().filter(is_it).last().cloned()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;
    use std::time::Duration;

    use super::*;
    use crate::engine::tests::builder::demo;
    use crate::engine::{DropCode, EngineLimits, compile};
    use crate::wire::make::{self, TcpSpec};

    struct Net {
        plan: Arc<Plan>,
        engine: Engine,
        taps: Taps,
    }

    impl Net {
        fn new() -> Net {
            let plan = Arc::new(demo().plan);
            let engine = Engine::new(Arc::new(compile(&plan, 1)), EngineLimits::default());
            Net { plan, engine, taps: Taps::default() }
        }

        fn eni(&self, label: &str) -> EniIx {
            let at = (0..self.plan.enis.len()).find(|at| self.plan.eni_label(EniIx(*at as u32)) == label);
            EniIx(at.expect("an ENI") as u32)
        }

        fn syn(&mut self, from: &str, to: &str, port: u16) -> Verdict {
            let (from, to) = (self.eni(from), self.eni(to));
            let at = |eni: EniIx, port| SocketAddrV4::new(self.plan.eni(eni).ip, port);
            let mut frame = make::tcp(&TcpSpec::syn(at(from, 40_000), at(to, port)));
            handle(&mut self.engine, &mut self.taps, Instant(9), from, &mut frame)
        }

        fn watch(&mut self, ask: WatchAsk, trace: bool) -> Feed {
            self.taps.add(&self.plan.clone(), ask, trace).expect("a tap")
        }
    }

    fn at(word: &str) -> WatchAsk {
        WatchAsk { at: vec![word.to_owned()], ..WatchAsk::default() }
    }

    fn seen(feed: &Feed) -> Vec<Sight> {
        std::iter::from_fn(|| feed.next(Duration::ZERO).expect("open").map(|(_, sight)| sight)).collect()
    }

    #[test]
    fn packets_are_decided_alike_whether_somebody_watches_or_not() {
        let pairs = [("web", "s3@a", 443), ("web", "s3@a", 80), ("guest", "s3@a", 443), ("web", "guest", 22)];
        let (mut plain, mut watched, mut traced) = (Net::new(), Net::new(), Net::new());
        let _feed = watched.watch(WatchAsk::default(), false);
        let steps = traced.watch(WatchAsk::default(), true);
        for _ in 0..2 {
            for (from, to, port) in pairs {
                let verdict = plain.syn(from, to, port);
                assert_eq!(watched.syn(from, to, port), verdict);
                assert_eq!(traced.syn(from, to, port), verdict);
            }
        }
        for sight in seen(&steps) {
            assert!(matches!(sight.way, Way::Out { crumbs, .. } if crumbs.len() > 1));
        }
    }

    #[test]
    fn a_drop_comes_with_its_record_and_an_arrival_with_its_sender() {
        let mut net = Net::new();
        let (doors, senders) = (net.watch(at("s3@a"), false), net.watch(at("guest"), false));
        net.syn("guest", "s3@a", 443);
        net.syn("web", "s3@a", 443);
        let guest = seen(&senders);
        let [Sight { way: Way::Out { drop: Some(record), .. }, .. }] = &guest[..] else { panic!("{guest:?}") };
        assert_eq!((record.code, record.from), (DropCode::SgIngress, net.eni("guest")));
        let door = seen(&doors);
        assert_eq!(door.len(), 1, "what is dropped does not arrive");
        assert!(matches!(door[0].way, Way::In { from: Sender::Eni(web) } if web == net.eni("web")));
    }

    #[test]
    fn what_goes_over_a_link_is_seen_when_it_comes() {
        let mut net = Net::new();
        let (web, s3) = (net.eni("web"), net.eni("s3@a"));
        let feed = net.watch(at("s3@a"), false);
        let ends = (SocketAddrV4::new(net.plan.eni(web).ip, 1), SocketAddrV4::new(net.plan.eni(s3).ip, 443));
        let frame = make::tcp(&TcpSpec::syn(ends.0, ends.1));
        net.taps.came_over(Instant(12), s3, &frame);
        let [Sight { at: Instant(12), eni, way: Way::In { from: Sender::Unknown }, .. }] = seen(&feed)[..] else {
            panic!("one arrival")
        };
        assert_eq!(eni, s3);
    }

    #[test]
    fn words_are_looked_up_again_in_a_new_plan() {
        let mut net = Net::new();
        let (feed, gone) = (net.watch(at("web"), false), net.watch(at("guest"), false));
        let mut plan = (*net.plan).clone();
        // The same ENIs in another order, and `guest` under another name.
        let web = net.eni("web").at();
        let other = (0..plan.enis.len()).find(|at| *at != web && plan.eni_label(EniIx(*at as u32)) != "guest");
        let other = other.expect("a third ENI");
        plan.enis.swap(web, other);
        for instance in &mut plan.instances {
            if instance.common.name == "guest" {
                instance.common.name = "visitor".into();
                instance.common.path = "app.visitor".into();
            }
        }
        net.taps.publish(&Arc::new(plan));
        assert_eq!(net.taps.taps[0].watch.at, Some(vec![EniIx(other as u32)]));
        assert_eq!(net.taps.taps[1].watch.at, Some(Vec::new()), "nobody has that name");
        drop((feed, gone));
    }

    #[test]
    fn a_full_queue_loses_and_counts_and_a_reader_that_left_ends_it() {
        let mut net = Net::new();
        let feed = net.watch(at("web"), false);
        for _ in 0..QUEUE + 3 {
            net.syn("web", "s3@a", 443);
        }
        assert_eq!(seen(&feed).len(), QUEUE);
        net.syn("web", "s3@a", 443);
        assert_eq!(seen(&feed).iter().map(|sight| sight.lost).collect::<Vec<_>>(), [3]);
        assert_eq!(feed.bytes.load(Ordering::Acquire), 0);
        drop(feed);
        net.syn("web", "s3@a", 443);
        assert!(net.taps.taps.is_empty());
        let feeds: Vec<Feed> = (0..TAPS).map(|_| net.watch(at("web"), false)).collect();
        assert!(net.taps.add(&net.plan.clone(), at("web"), false).is_err());
        assert_eq!(net.taps.remove(feeds[0].id), 0);
        net.watch(at("web"), false);
    }
}
