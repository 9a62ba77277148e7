//! The way of one packet through the engine: a flow that is known and decided costs one lookup; everything else goes
//! the whole way through `steps`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::bindings::{Books, Bound};
use super::event::{ClosedLog, Counters, DropKey, DropLog, Way};
use super::flow::{Course, FlowEnd, FlowKey, FlowState, FlowTable, INITIATOR, Passage, Side, TARGET};
use super::fragments::{First, Fragments};
use super::limiter::Limiter;
use super::lives::Lives;
use super::nat::Allocator;
use super::program::{EniKind, NONE, Program};
use super::rules::Traffic;
use super::steps::{Refusal, admit, deliver, sg};
use super::verdict::{Crumb, Decider, DropCode, Outcome, Rule, Stage, Verdict, Via};
use super::walk::{Arrived, Load, Walk};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::wire::nat::{self as translate, Rewrite};
use crate::wire::packet::{IP_OFFSET, Malformed, Packet, tcp_flags};

mod bind;
mod enter;
mod life;
mod react;
mod whose;

/// Who sends through an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Instance,
    /// The TCP stack of an endpoint: its frames are ours, and it begins nothing.
    Endpoint,
}

/// Collects breadcrumbs, or not: `()` costs nothing.
pub(super) trait Trail {
    const ON: bool;
    fn add(&mut self, crumb: impl FnOnce() -> Crumb);
}

impl Trail for () {
    const ON: bool = false;
    #[inline]
    fn add(&mut self, _: impl FnOnce() -> Crumb) {}
}

impl Trail for Vec<Crumb> {
    const ON: bool = true;
    fn add(&mut self, crumb: impl FnOnce() -> Crumb) {
        self.push(crumb());
    }
}

pub(super) struct State {
    /// Stamp of decisions: grows with every publication.
    pub(super) epoch: u16,
    pub(super) flows: FlowTable,
    pub(super) fragments: Fragments,
    pub(super) ghosts: Box<[u64]>,
    /// Ports of NAT gateways.
    pub(super) nat: Allocator,
    /// Those that the packet in hand passed.
    pub(super) passed: Vec<Bound>,
    /// The ways that flows take, by number: differing ones of the present epoch.
    pub(super) courses: Vec<Course>,
    /// Port of an ENI.
    pub(super) ports: Vec<u32>,
    /// ENI of a port.
    pub(super) enis: Vec<Option<EniIx>>,
    /// Of link-local services, by port.
    pub(super) limiters: Vec<Limiter>,
    /// Of fragments that leave, by port.
    pub(super) fragment_limiters: Vec<Limiter>,
    pub(super) drops: DropLog,
    pub(super) closed: ClosedLog,
    pub(super) counters: Arc<Counters>,
    /// Behave as if the table were full: a probe of an engine whose table is.
    pub(super) refuse_new: bool,
}

/// A packet and what was made of it.
struct Ctx<'a> {
    now: Instant,
    from: EniIx,
    origin: Origin,
    packet: &'a Packet,
    key: FlowKey,
    /// As it is sent: of a later fragment, with the ports of its first.
    tuple: FiveTuple,
    traffic: Traffic,
    /// A TCP segment that begins a connection.
    syn: bool,
    quoted: Option<Quoted>,
}

/// Of an ICMP error: the tuple of the packet it quotes, and that one's ICMP type.
pub(super) type Quoted = (FiveTuple, Option<u8>);

/// How a packet passed security groups.
#[derive(Clone, Copy)]
enum Passed {
    /// By a tracked flow: no rule was asked.
    Tracked,
    Rule {
        untracked: bool,
    },
    /// There are none.
    NotAsked,
}

impl Passed {
    /// Does the ENI track the flow from now on? `always`: flows of endpoints and NAT gateways are.
    fn tracks(self, always: bool) -> bool {
        match self {
            Passed::Tracked => true,
            Passed::Rule { untracked } => always || !untracked,
            Passed::NotAsked => always,
        }
    }
}

type Hit = Option<(u32, Side)>;

impl State {
    pub(super) fn run<T: Trail>(
        &mut self,
        program: &Program,
        now: Instant,
        from: EniIx,
        origin: Origin,
        frame: &mut [u8],
        trail: &mut T,
    ) -> Verdict {
        if from.at() >= program.enis.len() {
            return Verdict::Drop { code: DropCode::NoEni };
        }
        let packet = match Packet::parse(frame) {
            Ok(packet) => packet,
            Err(why) => {
                let code = if why == Malformed::Ipv6 { DropCode::Ipv6 } else { DropCode::Malformed };
                let refusal = Refusal::egress(code, Decider::Eni(from));
                trail.add(|| crumb(Stage::SourceDestCheck, Some(from), Outcome::Drop(code)));
                return self.refuse(now, from, unread_tuple(frame, why), 1, None, refusal);
            }
        };
        match self.decide(program, now, from, origin, &packet, frame, trail) {
            Ok(verdict) => verdict,
            Err(refusal) => {
                let quoted = translate::quoted(frame, &packet);
                self.refuse(now, from, packet.tuple(), packet.segments(), quoted, refusal)
            }
        }
    }

    #[inline]
    #[allow(clippy::too_many_arguments, reason = "the facts of one packet")]
    fn decide<T: Trail>(
        &mut self,
        program: &Program,
        now: Instant,
        from: EniIx,
        origin: Origin,
        packet: &Packet,
        frame: &mut [u8],
        trail: &mut T,
    ) -> Result<Verdict, Refusal> {
        let eni = program.eni(from);
        if let Some(code) = eni.down {
            trail.add(|| crumb(Stage::Fault, Some(from), Outcome::Drop(code)));
            return Err(Refusal::egress(code, Decider::Eni(from)));
        }
        if origin == Origin::Instance {
            let admitted = if packet.verify_checksums(frame) {
                admit::check(program, from, packet)
            } else {
                Err(Refusal::egress(DropCode::Checksum, Decider::Eni(from)))
            };
            trail.add(|| crumb(Stage::SourceDestCheck, Some(from), outcome(admitted.map(|()| Rule::None))));
            admitted?;
            if let Some(local) = admit::local(program, from, packet) {
                return self.local(program, now, from, packet, local, trail);
            }
            if packet.is_fragment() {
                self.limit_fragments(program, now, from, packet)?;
            }
        }
        let port = self.ports[from.at()];
        let First { key, traffic, syn } = self.identify(now, port, packet, frame)?;
        // A fragment is asked every question: who it is for, and NAT gateways, take whole packets only.
        if !T::ON
            && !packet.is_fragment()
            && let Some((id, side)) = self.flows.find(&key)
        {
            let flow = self.flows.get(id);
            let over = now >= flow.expires() || (flow.state == FlowState::Closing && syn);
            if let Some(course) = flow.course(side, self.epoch)
                && let Some(to) = self.enis[flow.port(side ^ 1) as usize]
                && !over
            {
                let Course { passage, mtu, nat } = self.courses[course];
                if packet.max_segment_ip_len() <= usize::from(mtu) && packet.ttl() > passage.ttl {
                    if flow.is_translated() {
                        rewrite(frame, packet, &flow.key(side ^ 1));
                    }
                    let terminates = flow.terminates() && side == INITIATOR;
                    let way = flow.way();
                    self.pass(program, now, packet, id, side, nat);
                    self.count(from, to, packet, way);
                    return Ok(go_on(frame, packet, to, &passage, 0, terminates));
                }
            }
        }
        let tuple = FiveTuple { src_port: key.src_port, dst_port: key.dst_port, ..packet.tuple() };
        let quoted = translate::quoted(frame, packet);
        let ctx = Ctx { now, from, origin, packet, key, tuple, traffic, syn, quoted };
        self.whole_way(program, &ctx, frame, trail)
    }

    /// Services of the host: no rule is asked, but packets are counted.
    fn local<T: Trail>(
        &mut self,
        program: &Program,
        now: Instant,
        from: EniIx,
        packet: &Packet,
        local: admit::Local,
        trail: &mut T,
    ) -> Result<Verdict, Refusal> {
        let at = if local == admit::Local::Imds { Decider::Imds(from) } else { Decider::Resolver(from) };
        let stage = if local == admit::Local::Imds { Stage::Imds } else { Stage::Resolver };
        let limiter = &mut self.limiters[self.ports[from.at()] as usize];
        let answer = if !limiter.take(now, program.limits.dns_pps, packet.segments()) {
            Err(Refusal::egress(DropCode::DnsPps, at))
        } else {
            match local {
                admit::Local::Resolver => {
                    admit::resolver(program, from, packet.tuple().src).map(|()| Verdict::Resolver { from })
                }
                admit::Local::Imds => Ok(Verdict::Imds { from }),
                admit::Local::Nothing => Err(Refusal::egress(DropCode::RouterAddr, Decider::Eni(from))),
            }
        };
        trail.add(|| crumb(stage, Some(from), outcome(answer.map(|_| Rule::None))));
        if answer.is_ok() {
            self.count_out(from, packet);
        }
        answer
    }

    /// EC2 User Guide, "ENA": fragments that leave are limited per ENI.
    #[cold]
    fn limit_fragments(
        &mut self,
        program: &Program,
        now: Instant,
        from: EniIx,
        packet: &Packet,
    ) -> Result<(), Refusal> {
        let limiter = &mut self.fragment_limiters[self.ports[from.at()] as usize];
        if program.eni(from).vpc == NONE || limiter.take(now, program.limits.egress_fragments, packet.segments()) {
            return Ok(());
        }
        Err(Refusal::egress(DropCode::FragmentRate, Decider::Eni(from)))
    }

    /// The flow's side this packet belongs to, and what rules see. A later fragment is what its first was.
    #[inline]
    fn identify(&mut self, now: Instant, port: u32, packet: &Packet, frame: &[u8]) -> Result<First, Refusal> {
        let first = First { key: FlowKey::of(port, packet), traffic: traffic_of(packet), syn: packet.is_tcp_syn() };
        if !packet.is_fragment() {
            return Ok(first);
        }
        let id = u16::from_be_bytes([frame[IP_OFFSET + 4], frame[IP_OFFSET + 5]]);
        if packet.fragment_offset() == 0 {
            self.fragments.remember(now, id, packet, first);
            return Ok(first);
        }
        let first = self.fragments.later(now, id, packet, &first.key);
        first.map_err(|code| Refusal::egress(code, Decider::FlowTable))
    }

    /// Every question in AWS's order, then the flow is entered or brought up to date.
    fn whole_way<T: Trail>(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        frame: &mut [u8],
        trail: &mut T,
    ) -> Result<Verdict, Refusal> {
        let from = ctx.from;
        let mut entry = self.flows.find(&ctx.key);
        if let Some((id, _)) = entry
            && self.flows.get(id).state == FlowState::Closing
            && ctx.syn
        {
            self.end(program, ctx.now, id, FlowEnd::Replaced);
            entry = None;
        }
        let hit = self.remembered(program, ctx.now, entry);
        if ctx.origin == Origin::Instance && program.eni(from).vpc != NONE {
            let dst = Ipv4Addr::from_bits(ctx.traffic.dst);
            let reserved = admit::reserved(program, from, dst);
            if let Err(refusal) = reserved {
                trail.add(|| crumb(Stage::Deliver, None, Outcome::Drop(refusal.code)));
                return Err(refusal);
            }
        }
        // An ICMP error belongs to the flow of the packet it quotes: one that this ENI received.
        let quoted = ctx.quoted.and_then(|(tuple, icmp)| {
            let port = self.ports[from.at()];
            self.flows.find(&FlowKey::of_tuple(port, &tuple, icmp).mirrored(port))
        });
        let related = self.remembered(program, ctx.now, quoted);
        let sent = self.sg_egress(program, ctx, hit, related, trail)?;
        let load = Load {
            size: ctx.packet.max_segment_ip_len(),
            dont_fragment: ctx.packet.dont_fragment(),
            fragment: ctx.packet.is_fragment(),
            ttl: ctx.packet.ttl(),
            syn: ctx.syn,
            icmp: ctx.packet.icmp().map(|(kind, _)| kind),
            quoted: ctx.quoted,
        };
        let answers = hit.or(related).is_some_and(|(_, side)| side == TARGET);
        let own = entry.or(quoted).map(|(id, _)| id);
        let State { nat, ports, flows, ghosts, enis, passed, .. } = self;
        passed.clear();
        let lives = Lives { program, enis };
        let books = Books { flows, nat, ghosts, ports, lives, now: ctx.now, own, passed };
        let arrived = Walk::new(program, from, ctx.tuple, ctx.traffic, load, answers, books, trail).run();
        let verdict = arrived
            .and_then(|arrived| self.at_receiver(program, ctx, [entry, hit], related, sent, &arrived, frame, trail));
        if verdict.is_err() {
            self.give_back();
        }
        verdict
    }

    /// The receiver's own questions: a firewall's sessions, an endpoint's limits, security groups.
    #[allow(clippy::too_many_arguments, reason = "the facts of one packet at its receiver")]
    fn at_receiver<T: Trail>(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        here: [Hit; 2],
        related: Hit,
        sent: Passed,
        arrived: &Arrived,
        frame: &mut [u8],
        trail: &mut T,
    ) -> Result<Verdict, Refusal> {
        let (from, to) = (ctx.from, arrived.to);
        let there_eni = program.eni(to);
        let port = self.ports[to.at()];
        let key_there = ctx.key.mirrored(port).with(port, &arrived.tuple.reversed());
        let entry = match here[1] {
            Some((id, side)) if self.is_side(id, side ^ 1, &key_there) => Some((id, side ^ 1)),
            _ => self.flows.find(&key_there),
        };
        let there = self.remembered(program, ctx.now, entry);
        if there_eni.stateful && there_eni.ip != arrived.tuple.dst.to_bits() {
            self.firewall(program, ctx, arrived, there, related, trail)?;
        }
        let traffic = Traffic {
            src: arrived.tuple.src.to_bits(),
            dst: arrived.tuple.dst.to_bits(),
            selector: match ctx.traffic.proto {
                Proto::TCP | Proto::UDP => arrived.tuple.dst_port,
                _ => ctx.traffic.selector,
            },
            ..ctx.traffic
        };
        if there_eni.terminates() {
            let answer = self.endpoint(program, ctx, to, &traffic, there.is_some(), &key_there);
            trail.add(|| crumb(Stage::Endpoint, Some(to), outcome(answer.map(|()| Rule::None))));
            answer?;
        }
        let received = self.sg_ingress(program, ctx, arrived, there, &key_there, &traffic, trail)?;
        let always = |eni: EniIx| matches!(program.eni(eni).kind, EniKind::Endpoint(_));
        let always = always(from) || always(to) || self.passed.iter().any(|bound| bound.gateway);
        let tracks =
            [sent.tracks(always || program.eni(from).is_door()), received.tracks(always || there_eni.is_door())];
        let entered = self.enter(program, ctx, here, [entry, there], arrived, &key_there, tracks);
        if let Err(refusal) = entered {
            let at = if let Decider::Eni(eni) = refusal.decider { Some(eni) } else { None };
            trail.add(|| crumb(Stage::Tracked, at, Outcome::Drop(refusal.code)));
            return Err(refusal);
        }
        trail.add(|| crumb(Stage::Deliver, Some(to), Outcome::Pass(Rule::None)));
        self.count(from, to, ctx.packet, arrived.way);
        if arrived.tuple != ctx.tuple {
            rewrite(frame, ctx.packet, &key_there);
        }
        if let Some((quoted, _)) = arrived.quoted.filter(|_| arrived.quoted != ctx.quoted) {
            translate::rewrite_quote(frame, ctx.packet, &Rewrite::from(arrived.tuple), &Rewrite::from(quoted));
        }
        Ok(go_on(frame, ctx.packet, to, &arrived.passage, arrived.fragment, there_eni.terminates()))
    }

    /// A stateful firewall takes part in sessions that it saw begin, in whichever direction. It sees packets as they
    /// arrive, with what gateways changed before it.
    fn firewall<T: Trail>(
        &self,
        program: &Program,
        ctx: &Ctx<'_>,
        arrived: &Arrived,
        there: Hit,
        related: Hit,
        trail: &mut T,
    ) -> Result<(), Refusal> {
        if ctx.traffic.proto != Proto::TCP || ctx.syn || there.is_some() || related.is_some() {
            return Ok(());
        }
        // The session as the firewall itself sends it on.
        let to = arrived.to;
        let onward = ctx.key.with(self.ports[to.at()], &arrived.tuple);
        if self.remembered(program, ctx.now, self.flows.find(&onward)).is_some() {
            return Ok(());
        }
        trail.add(|| crumb(Stage::Tracked, Some(to), Outcome::Drop(DropCode::FwNoState)));
        Err(Refusal::ingress(DropCode::FwNoState, Decider::Eni(to)))
    }

    fn sg_egress<T: Trail>(
        &self,
        program: &Program,
        ctx: &Ctx<'_>,
        hit: Hit,
        related: Hit,
        trail: &mut T,
    ) -> Result<Passed, Refusal> {
        let at = ctx.from;
        let asked = program.eni(at).groups != NONE;
        if !asked && ctx.origin == Origin::Instance {
            return Ok(Passed::NotAsked);
        }
        if self.is_tracked(related) || self.is_tracked(hit) {
            if asked {
                trail.add(|| crumb(Stage::Tracked, Some(at), Outcome::Pass(Rule::None)));
            }
            return Ok(Passed::Tracked);
        }
        let answer = if ctx.origin == Origin::Endpoint {
            Err(Refusal::egress(DropCode::CtNoState, Decider::EndpointEni(at)))
        } else {
            sg::egress(program, at, &ctx.traffic).ok_or_else(|| {
                let code = self.why_not(program, DropCode::SgEgress, ctx, hit, &ctx.key);
                Refusal::egress(code, Decider::SecurityGroups(at))
            })
        };
        trail.add(|| crumb(Stage::SgEgress, Some(at), outcome(answer.map(sg_rule))));
        answer.map(|allowed| Passed::Rule { untracked: allowed.untracked })
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one packet at its receiver")]
    fn sg_ingress<T: Trail>(
        &self,
        program: &Program,
        ctx: &Ctx<'_>,
        arrived: &Arrived,
        there: Hit,
        key_there: &FlowKey,
        traffic: &Traffic,
        trail: &mut T,
    ) -> Result<Passed, Refusal> {
        let to = arrived.to;
        if program.eni(to).groups == NONE {
            return Ok(Passed::NotAsked);
        }
        // An ICMP error is let in if this ENI sent the packet it quotes.
        let port = self.ports[to.at()];
        let quoted = arrived.quoted.map(|(tuple, icmp)| FlowKey::of_tuple(port, &tuple, icmp));
        let related = quoted.is_some_and(|key| self.tracks(program, ctx.now, &key));
        if related || self.is_tracked(there) {
            trail.add(|| crumb(Stage::Tracked, Some(to), Outcome::Pass(Rule::None)));
            return Ok(Passed::Tracked);
        }
        let answer = sg::ingress(program, to, traffic).ok_or_else(|| {
            let code = self.why_not(program, DropCode::SgIngress, ctx, there, key_there);
            Refusal::ingress(code, Decider::SecurityGroups(to))
        });
        trail.add(|| crumb(Stage::SgIngress, Some(to), outcome(answer.map(sg_rule))));
        answer.map(|allowed| Passed::Rule { untracked: allowed.untracked })
    }

    fn endpoint(
        &self,
        program: &Program,
        ctx: &Ctx<'_>,
        to: EniIx,
        traffic: &Traffic,
        known: bool,
        key_there: &FlowKey,
    ) -> Result<(), Refusal> {
        let begins = ctx.syn;
        let taken = deliver::endpoint(program, to, traffic, begins, known, ctx.packet);
        let taken = taken.map_err(|refusal| match refusal.code {
            DropCode::VpceNoState if self.was_idle(program, ctx.now, key_there) => {
                Refusal { code: DropCode::VpceIdle, ..refusal }
            }
            _ => refusal,
        });
        taken.and_then(|()| match program.eni(to).kind {
            EniKind::Endpoint(_) => deliver::endpoint_size(to, ctx.packet.max_segment_ip_len()),
            _ => Ok(()),
        })
    }

    fn is_side(&self, id: u32, side: Side, key: &FlowKey) -> bool {
        let flow = self.flows.get(id);
        flow.is_present(side) && flow.key(side) == *key
    }

    /// The code for a packet that no rule of an ENI allows: was it part of something?
    fn why_not(&self, program: &Program, code: DropCode, ctx: &Ctx<'_>, entry: Hit, key: &FlowKey) -> DropCode {
        if entry.is_some() || ctx.syn {
            return code;
        }
        let answers = match ctx.traffic.proto {
            Proto::TCP => true,
            Proto::ICMP => matches!(ctx.packet.icmp(), Some((0 | 14 | 16 | 18, _))),
            _ => false,
        };
        if self.was_idle(program, ctx.now, key) {
            DropCode::CtIdle
        } else if answers {
            DropCode::CtNoState
        } else {
            code
        }
    }

    fn refuse(
        &mut self,
        now: Instant,
        from: EniIx,
        tuple: FiveTuple,
        packets: u32,
        quoted: Option<Quoted>,
        refusal: Refusal,
    ) -> Verdict {
        let Refusal { code, decider, direction, reaction } = refusal;
        if let Decider::Nat(nat) = decider
            && let Some(nat) = self.counters.nats.get(nat)
        {
            if code == DropCode::NatNoPort { nat.port_errors.add(1) } else { nat.drops.add(u64::from(packets)) }
        }
        self.note(now, DropKey { from, tuple, code, decider, direction }, quoted, u64::from(packets));
        match reaction {
            None => Verdict::Drop { code },
            Some(reaction) => Verdict::Reject { code, reaction },
        }
    }

    pub(super) fn note(&mut self, now: Instant, drop: DropKey, quoted: Option<Quoted>, packets: u64) {
        self.counters.drops[drop.code as usize].add(packets);
        if let Some(eni) = self.counters.enis.get(drop.from.at()) {
            eni.dropped.add(packets);
        }
        let whose = self.whose(&drop, quoted);
        self.drops.note(now, drop, whose, packets);
    }

    #[inline]
    fn count(&self, from: EniIx, to: EniIx, packet: &Packet, way: Way) {
        self.count_out(from, packet);
        self.counters.enis[from.at()].ways[way as usize].add(packet.wire_bytes());
        let to = &self.counters.enis[to.at()];
        to.packets_in.add(u64::from(packet.segments()));
        to.bytes_in.add(packet.wire_bytes());
        to.ways[way as usize].add(packet.wire_bytes());
    }

    #[inline]
    fn count_out(&self, from: EniIx, packet: &Packet) {
        let from = &self.counters.enis[from.at()];
        from.packets_out.add(u64::from(packet.segments()));
        from.bytes_out.add(packet.wire_bytes());
    }
}

/// Gives a packet the tuple that its receiver knows it by.
#[inline]
fn rewrite(frame: &mut [u8], packet: &Packet, receiver: &FlowKey) {
    translate::rewrite(frame, packet, &Rewrite::from(receiver.tuple().reversed()));
}

/// What the way does to the packet besides its addresses.
fn go_on(frame: &mut [u8], packet: &Packet, to: EniIx, passage: &Passage, fragment: u16, terminates: bool) -> Verdict {
    if passage.ttl > 0 {
        translate::ttl(frame, packet, passage.ttl);
    }
    if passage.mss > 0 && packet.tcp_flags() & tcp_flags::SYN != 0 {
        crate::wire::edit::clamp_mss(frame, packet, passage.mss);
    }
    if fragment != 0 || passage.latency_us != 0 || passage.shapes != [0; 3] {
        let via = Via { fragment, latency_us: passage.latency_us, shapes: passage.shapes };
        return Verdict::Shaped { to, via };
    }
    if terminates { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } }
}

/// What rules see of a packet.
#[inline]
fn traffic_of(packet: &Packet) -> Traffic {
    let tuple = packet.tuple();
    let selector = match tuple.proto {
        Proto::TCP | Proto::UDP => tuple.dst_port,
        Proto::ICMP => packet.icmp().map_or(0, |(kind, code)| u16::from(kind) << 8 | u16::from(code)),
        _ => 0,
    };
    Traffic { proto: tuple.proto, selector, src: tuple.src.to_bits(), dst: tuple.dst.to_bits() }
}

/// What can be said of a packet that cannot be read: the protocol of an IPv6 header.
fn unread_tuple(frame: &[u8], why: Malformed) -> FiveTuple {
    let proto = if why == Malformed::Ipv6 { frame.get(IP_OFFSET + 6).copied().unwrap_or(0) } else { 0 };
    let none = Ipv4Addr::UNSPECIFIED;
    FiveTuple { proto: Proto(proto), src: none, src_port: 0, dst: none, dst_port: 0 }
}

pub(super) fn crumb(stage: Stage, eni: Option<EniIx>, outcome: Outcome) -> Crumb {
    Crumb { stage, eni, outcome }
}

pub(super) fn outcome(answer: Result<Rule, Refusal>) -> Outcome {
    match answer {
        Ok(rule) => Outcome::Pass(rule),
        Err(refusal) => Outcome::Drop(refusal.code),
    }
}

fn sg_rule(allowed: sg::Allowed) -> Rule {
    Rule::Sg(allowed.by.group as usize, allowed.by.rule as usize)
}
