//! The way of one packet through the engine: a flow that is known and decided costs one lookup; everything else goes
//! the whole way through `steps`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::event::{ClosedLog, Counters, DropKey, DropLog, FlowClosed, FlowSnapshot, Way};
use super::flow::{Flow, FlowEnd, FlowKey, FlowState, FlowTable, Hop, INITIATOR, Side, TARGET};
use super::fragments::Fragments;
use super::limiter::Limiter;
use super::program::{Program, Timeouts};
use super::rules::Traffic;
use super::steps::{Refusal, admit, deliver, nacl, route, sg};
use super::verdict::{Crumb, Decider, DropCode, Outcome, Rule, Stage, Verdict};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::wire::packet::{IP_OFFSET, Malformed, Packet, tcp_flags};

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

/// Places for the keys of flows that ended by idleness, so that a late packet is told from a stray one.
pub(super) const GHOSTS: usize = 8_192;

pub(super) struct State {
    /// Stamp of decisions: grows with every publication.
    pub(super) epoch: u32,
    pub(super) flows: FlowTable,
    pub(super) fragments: Fragments,
    pub(super) ghosts: Box<[u64]>,
    /// Port of an ENI.
    pub(super) ports: Vec<u32>,
    /// ENI of a port.
    pub(super) enis: Vec<Option<EniIx>>,
    /// By port.
    pub(super) limiters: Vec<Limiter>,
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
    frame: &'a [u8],
    key: FlowKey,
    traffic: Traffic,
}

/// How a packet passed security groups.
#[derive(Clone, Copy)]
enum Passed {
    /// By a tracked flow: no rule was asked.
    Tracked,
    Rule {
        untracked: bool,
    },
}

impl Passed {
    /// Does the ENI track the flow from now on? `always`: flows of endpoints are.
    fn tracks(self, always: bool) -> bool {
        always
            || match self {
                Passed::Tracked => true,
                Passed::Rule { untracked } => !untracked,
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
        frame: &[u8],
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
                return self.refuse(now, from, unread_tuple(frame, why), 1, refusal);
            }
        };
        match self.decide(program, now, from, origin, &packet, frame, trail) {
            Ok(verdict) => verdict,
            Err(refusal) => self.refuse(now, from, packet.tuple(), packet.segments(), refusal),
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
        frame: &[u8],
        trail: &mut T,
    ) -> Result<Verdict, Refusal> {
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
        }
        let port = self.ports[from.at()];
        let (key, traffic) = self.identify(now, port, packet, frame)?;
        let ctx = Ctx { now, from, origin, packet, frame, key, traffic };
        if !T::ON
            && let Some((id, side)) = self.flows.find(&key)
        {
            let flow = self.flows.get(id);
            let hop = flow.hop[side];
            let over = now >= flow.expires || (flow.state == FlowState::Closing && packet.is_tcp_syn());
            if hop.epoch == self.epoch && !over {
                let to = EniIx(hop.to);
                let endpoint = flow.to_endpoint && side == INITIATOR;
                if endpoint {
                    deliver::endpoint_size(to, packet.max_segment_ip_len())?;
                }
                self.pass(&program.timeouts, &ctx, id, side);
                self.count(from, to, packet);
                return Ok(if endpoint { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } });
            }
        }
        self.whole_way(program, &ctx, trail)
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

    /// The flow's side this packet belongs to, and what rules see. A later fragment is what its first was.
    #[inline]
    fn identify(
        &mut self,
        now: Instant,
        port: u32,
        packet: &Packet,
        frame: &[u8],
    ) -> Result<(FlowKey, Traffic), Refusal> {
        let key = FlowKey::of(port, packet);
        let traffic = traffic_of(packet);
        if !packet.is_fragment() {
            return Ok((key, traffic));
        }
        let id = u16::from_be_bytes([frame[IP_OFFSET + 4], frame[IP_OFFSET + 5]]);
        if packet.fragment_offset() == 0 {
            self.fragments.remember(now, id, key, traffic);
            return Ok((key, traffic));
        }
        let first = self.fragments.first_of(now, id, &key);
        first.ok_or(Refusal::egress(DropCode::CtNoState, Decider::FlowTable))
    }

    /// Every question in AWS's order, then the flow is entered or brought up to date.
    fn whole_way<T: Trail>(&mut self, program: &Program, ctx: &Ctx<'_>, trail: &mut T) -> Result<Verdict, Refusal> {
        let from = ctx.from;
        let mut hit = self.live(ctx.now, &ctx.key);
        if let Some((id, _)) = hit
            && self.flows.get(id).state == FlowState::Closing
            && ctx.packet.is_tcp_syn()
        {
            self.end(ctx.now, id, FlowEnd::Replaced);
            hit = None;
        }
        if ctx.origin == Origin::Instance {
            let dst = Ipv4Addr::from_bits(ctx.traffic.dst);
            let reserved = admit::reserved(program, from, dst);
            if let Err(refusal) = reserved {
                trail.add(|| crumb(Stage::Deliver, None, Outcome::Drop(refusal.code)));
                return Err(refusal);
            }
        }
        let quoted = quoted(ctx.packet, ctx.frame);
        let sent = self.sg_egress(program, ctx, hit, quoted, trail)?;
        let (to, same_subnet) = forward(program, ctx, trail)?;
        let enters = program.subnet_of(to);
        let stage = Stage::NaclIn { nacl: enters.nacl as usize };
        if same_subnet {
            trail.add(|| crumb(stage, None, Outcome::NotAsked));
        } else {
            let answer = nacl::into(program, enters, &ctx.traffic);
            trail.add(|| crumb(stage, None, outcome(answer.map(Rule::Nacl))));
            answer?;
        }
        let wanted = deliver::destination(program, to, ctx.traffic.dst);
        if let Err(refusal) = wanted {
            trail.add(|| crumb(Stage::SourceDestCheck, Some(to), Outcome::Drop(refusal.code)));
            return Err(refusal);
        }
        let key_there = ctx.key.mirrored(self.ports[to.at()]);
        let there = match hit {
            Some((id, side)) if self.is_side(id, side ^ 1, &key_there) => Some((id, side ^ 1)),
            _ => self.live(ctx.now, &key_there),
        };
        if let Some(ports) = &program.eni(to).endpoint {
            let answer = self.endpoint(ctx, to, ports, there.is_some(), &key_there);
            trail.add(|| crumb(Stage::Endpoint, Some(to), outcome(answer.map(|()| Rule::None))));
            answer?;
        }
        let received = self.sg_ingress(program, ctx, to, there, &key_there, quoted, trail)?;
        let always = program.eni(from).endpoint.is_some() || program.eni(to).endpoint.is_some();
        let tracks = [sent.tracks(always), received.tracks(always)];
        let entered = self.enter(program, ctx, hit, there, to, tracks);
        if let Err(refusal) = entered {
            trail.add(|| crumb(Stage::Tracked, None, Outcome::Drop(refusal.code)));
            return Err(refusal);
        }
        trail.add(|| crumb(Stage::Deliver, Some(to), Outcome::Pass(Rule::None)));
        self.count(from, to, ctx.packet);
        let endpoint = program.eni(to).endpoint.is_some();
        Ok(if endpoint { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } })
    }

    fn sg_egress<T: Trail>(
        &self,
        program: &Program,
        ctx: &Ctx<'_>,
        hit: Hit,
        quoted: Option<(FiveTuple, Option<u8>)>,
        trail: &mut T,
    ) -> Result<Passed, Refusal> {
        let at = ctx.from;
        // An ICMP error belongs to the flow of the packet it quotes: one that this ENI received.
        let related = quoted.is_some_and(|(tuple, icmp)| {
            let received = FlowKey::of_tuple(self.ports[at.at()], &tuple, icmp).mirrored(self.ports[at.at()]);
            self.tracks(ctx.now, &received)
        });
        if related || self.is_tracked(hit) {
            trail.add(|| crumb(Stage::Tracked, Some(at), Outcome::Pass(Rule::None)));
            return Ok(Passed::Tracked);
        }
        let answer = if ctx.origin == Origin::Endpoint {
            Err(Refusal::egress(DropCode::CtNoState, Decider::EndpointEni(at)))
        } else {
            sg::egress(program, at, &ctx.traffic).ok_or_else(|| {
                let code = self.why_not(DropCode::SgEgress, ctx, hit, &ctx.key);
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
        to: EniIx,
        there: Hit,
        key_there: &FlowKey,
        quoted: Option<(FiveTuple, Option<u8>)>,
        trail: &mut T,
    ) -> Result<Passed, Refusal> {
        // An ICMP error is let in if this ENI sent the packet it quotes.
        let related = quoted
            .is_some_and(|(tuple, icmp)| self.tracks(ctx.now, &FlowKey::of_tuple(self.ports[to.at()], &tuple, icmp)));
        if related || self.is_tracked(there) {
            trail.add(|| crumb(Stage::Tracked, Some(to), Outcome::Pass(Rule::None)));
            return Ok(Passed::Tracked);
        }
        let answer = sg::ingress(program, to, &ctx.traffic).ok_or_else(|| {
            let code = self.why_not(DropCode::SgIngress, ctx, there, key_there);
            Refusal::ingress(code, Decider::SecurityGroups(to))
        });
        trail.add(|| crumb(Stage::SgIngress, Some(to), outcome(answer.map(sg_rule))));
        answer.map(|allowed| Passed::Rule { untracked: allowed.untracked })
    }

    fn endpoint(
        &self,
        ctx: &Ctx<'_>,
        to: EniIx,
        ports: &[u16],
        known: bool,
        key_there: &FlowKey,
    ) -> Result<(), Refusal> {
        let begins = ctx.packet.is_tcp_syn();
        let taken = deliver::endpoint(to, ports, &ctx.traffic, begins, known, ctx.packet.is_fragment());
        let taken = taken.map_err(|refusal| match refusal.code {
            DropCode::VpceNoState if self.is_ghost(key_there) => Refusal { code: DropCode::VpceIdle, ..refusal },
            _ => refusal,
        });
        taken.and_then(|()| deliver::endpoint_size(to, ctx.packet.max_segment_ip_len()))
    }

    /// Enters the flow, or brings it up to date, after every question was answered with yes.
    fn enter(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        hit: Hit,
        there: Hit,
        to: EniIx,
        tracks: [bool; 2],
    ) -> Result<(), Refusal> {
        match (hit, there) {
            (Some((id, side)), Some((other, _))) if id == other => {
                let flow = self.flows.get_mut(id);
                flow.tracked[side] = tracks[0];
                flow.tracked[side ^ 1] = tracks[1];
                flow.hop[side] = Hop { epoch: self.epoch, to: to.0 };
                self.flows.recount(id);
                self.pass(&program.timeouts, ctx, id, side);
            }
            // The way there and the way back pass different ENIs: each keeps its own side, and nothing is cached.
            _ => {
                let leaves_no_state = ctx.packet.is_icmp_error() || ctx.packet.tcp_flags() & tcp_flags::RST != 0;
                let fresh = [hit.is_none(), there.is_none()];
                if fresh != [false; 2] && !(leaves_no_state && fresh == [true; 2]) {
                    self.enter_new(program, ctx, to, tracks, fresh)?;
                }
                if let Some((id, side)) = hit {
                    self.flows.get_mut(id).tracked[side] = tracks[0];
                    self.flows.recount(id);
                    self.pass(&program.timeouts, ctx, id, side);
                }
                if let Some((id, side)) = there {
                    self.flows.get_mut(id).tracked[side] = tracks[1];
                    self.flows.recount(id);
                    self.see(&program.timeouts, ctx, id, side ^ 1);
                }
            }
        }
        Ok(())
    }

    fn enter_new(
        &mut self,
        program: &Program,
        ctx: &Ctx<'_>,
        to: EniIx,
        tracks: [bool; 2],
        present: [bool; 2],
    ) -> Result<(), Refusal> {
        let tracked = tracks[0] && present[0] || tracks[1] && present[1];
        if !self.flows.has_room(tracked) || (tracked && self.refuse_new) {
            // What nobody tracks needs no entry: the rules are asked for every packet.
            return if tracked { Err(Refusal::egress(DropCode::CtFull, Decider::FlowTable)) } else { Ok(()) };
        }
        let state = match ctx.traffic.proto {
            Proto::TCP if ctx.packet.is_tcp_syn() => FlowState::New,
            Proto::TCP => FlowState::Established,
            Proto::UDP | Proto::ICMP => FlowState::Single,
            _ => FlowState::Open,
        };
        let target = self.ports[to.at()];
        let mut flow = Flow::new(ctx.now, ctx.key, target, state);
        flow.tracked = tracks;
        flow.present = present;
        flow.to_endpoint = program.eni(to).endpoint.is_some();
        if present == [true; 2] {
            flow.hop[INITIATOR] = Hop { epoch: self.epoch, to: to.0 };
        }
        flow.expires = Instant(ctx.now.0.saturating_add(life(&program.timeouts, &flow)));
        let id = self.flows.insert(flow);
        for side in [INITIATOR, TARGET] {
            let hash = self.flows.hash(&self.flows.get(id).side_key(side));
            self.lay_ghost(hash);
        }
        self.pass(&program.timeouts, ctx, id, INITIATOR);
        Ok(())
    }

    /// A packet of a flow goes on: it is counted there and its end moves.
    #[inline]
    fn pass(&mut self, timeouts: &Timeouts, ctx: &Ctx<'_>, id: u32, side: Side) {
        let flow = self.flows.get_mut(id);
        flow.packets[side] += u64::from(ctx.packet.segments());
        flow.bytes[side] += ctx.packet.wire_bytes();
        self.see(timeouts, ctx, id, side);
    }

    #[inline]
    fn see(&mut self, timeouts: &Timeouts, ctx: &Ctx<'_>, id: u32, side: Side) {
        let flow = self.flows.get_mut(id);
        flow.last = ctx.now;
        advance(flow, side, ctx.packet);
        let expires = Instant(ctx.now.0.saturating_add(life(timeouts, flow)));
        self.flows.set_expiry(id, expires);
    }

    /// The entry of a key that has not expired; one that has ends here.
    fn live(&mut self, now: Instant, key: &FlowKey) -> Hit {
        let (id, side) = self.flows.find(key)?;
        if now < self.flows.get(id).expires {
            return Some((id, side));
        }
        self.end(now, id, FlowEnd::Idle);
        None
    }

    fn is_side(&self, id: u32, side: Side, key: &FlowKey) -> bool {
        let flow = self.flows.get(id);
        flow.present[side] && flow.side_key(side) == *key
    }

    fn is_tracked(&self, hit: Hit) -> bool {
        hit.is_some_and(|(id, side)| self.flows.get(id).tracked[side])
    }

    fn tracks(&self, now: Instant, key: &FlowKey) -> bool {
        let hit = self.flows.find(key);
        hit.is_some_and(|(id, _)| now < self.flows.get(id).expires) && self.is_tracked(hit)
    }

    /// The code for a packet that no rule of an ENI allows: was it part of something?
    fn why_not(&self, code: DropCode, ctx: &Ctx<'_>, entry: Hit, key: &FlowKey) -> DropCode {
        if entry.is_some() || ctx.packet.is_tcp_syn() {
            return code;
        }
        let answers = match ctx.traffic.proto {
            Proto::TCP => true,
            Proto::ICMP => matches!(ctx.packet.icmp(), Some((0 | 14 | 16 | 18, _))),
            _ => false,
        };
        if self.is_ghost(key) {
            DropCode::CtIdle
        } else if answers {
            DropCode::CtNoState
        } else {
            code
        }
    }

    fn is_ghost(&self, key: &FlowKey) -> bool {
        let hash = self.flows.hash(key) | 1;
        self.ghosts[ghost_place(hash)] == hash
    }

    /// There is a new flow with the key: the old one is no explanation any more.
    fn lay_ghost(&mut self, hash: u64) {
        let place = &mut self.ghosts[ghost_place(hash)];
        if *place == hash | 1 {
            *place = 0;
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let State { flows, enis, ghosts, closed, counters, .. } = self;
        let seed = flows.seed();
        flows.expire(now, |flow| report_end(now, &flow, ended_by_time(&flow), seed, enis, ghosts, closed, counters));
    }

    pub(super) fn end(&mut self, now: Instant, id: u32, end: FlowEnd) {
        let flow = self.flows.remove(id);
        let end = if end == FlowEnd::Idle { ended_by_time(&flow) } else { end };
        let seed = self.flows.seed();
        report_end(now, &flow, end, seed, &self.enis, &mut self.ghosts, &mut self.closed, &self.counters);
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = FlowSnapshot> {
        self.flows.iter().filter_map(|(_, flow)| snapshot(flow, &self.enis))
    }

    fn refuse(&mut self, now: Instant, from: EniIx, tuple: FiveTuple, packets: u32, refusal: Refusal) -> Verdict {
        let Refusal { code, decider, direction } = refusal;
        self.note(now, DropKey { from, tuple, code, decider, direction }, u64::from(packets));
        Verdict::Drop { code }
    }

    pub(super) fn note(&mut self, now: Instant, drop: DropKey, packets: u64) {
        self.counters.drops[drop.code as usize].add(packets);
        if let Some(eni) = self.counters.enis.get(drop.from.at()) {
            eni.dropped.add(packets);
        }
        self.drops.note(now, drop, packets);
    }

    #[inline]
    fn count(&self, from: EniIx, to: EniIx, packet: &Packet) {
        self.count_out(from, packet);
        let to = &self.counters.enis[to.at()];
        to.packets_in.add(u64::from(packet.segments()));
        to.bytes_in.add(packet.wire_bytes());
    }

    #[inline]
    fn count_out(&self, from: EniIx, packet: &Packet) {
        let from = &self.counters.enis[from.at()];
        from.packets_out.add(u64::from(packet.segments()));
        from.bytes_out.add(packet.wire_bytes());
    }
}

/// Network ACL on the way out, and the route: the receiver, and whether it is in the sender's subnet.
fn forward<T: Trail>(program: &Program, ctx: &Ctx<'_>, trail: &mut T) -> Result<(EniIx, bool), Refusal> {
    let leaves = program.subnet_of(ctx.from);
    let next = route::next(program, ctx.from, ctx.traffic.dst);
    let stage = Stage::NaclOut { nacl: leaves.nacl as usize };
    if next.same_subnet {
        trail.add(|| crumb(stage, None, Outcome::NotAsked));
    } else {
        let answer = nacl::out(program, leaves, &ctx.traffic);
        trail.add(|| crumb(stage, None, outcome(answer.map(Rule::Nacl))));
        answer?;
    }
    let table = Stage::Route { table: leaves.table as usize };
    let refused = next.to.err().map(|refusal| refusal.code);
    match (next.route, refused) {
        (_, Some(code @ (DropCode::RtNoRoute | DropCode::RtBlackhole))) => {
            trail.add(|| crumb(table, None, Outcome::Drop(code)));
        }
        (Some(route), _) => trail.add(|| crumb(table, None, Outcome::Pass(Rule::Route(route)))),
        (None, _) => trail.add(|| crumb(table, None, Outcome::NotAsked)),
    }
    if refused == Some(DropCode::NoEni) {
        trail.add(|| crumb(Stage::Deliver, None, Outcome::Drop(DropCode::NoEni)));
    }
    next.to.map(|to| (to, next.same_subnet))
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

/// Of an ICMP error: the tuple of the packet it quotes, and that one's ICMP type.
fn quoted(packet: &Packet, frame: &[u8]) -> Option<(FiveTuple, Option<u8>)> {
    if !packet.is_icmp_error() || packet.is_fragment() {
        return None;
    }
    let quote = frame.get(packet.payload())?;
    let head = quote.first_chunk::<20>()?;
    let ihl = usize::from(head[0] & 15) * 4;
    let proto = Proto(head[9]);
    let addr = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    let l4 = quote.get(ihl.max(20)..)?.first_chunk::<8>()?;
    let be16 = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (src_port, dst_port, icmp) = match proto {
        Proto::TCP | Proto::UDP => (be16(0), be16(2), None),
        Proto::ICMP if matches!(l4[0], 0 | 8) => (be16(4), be16(4), Some(l4[0])),
        Proto::ICMP => (0, 0, Some(l4[0])),
        _ => (0, 0, None),
    };
    Some((FiveTuple { proto, src: addr(12), src_port, dst: addr(16), dst_port }, icmp))
}

/// Moves a flow's state by one packet of `side`.
#[inline]
fn advance(flow: &mut Flow, side: Side, packet: &Packet) {
    match flow.state {
        FlowState::New | FlowState::Established => {
            let flags = packet.tcp_flags();
            if flags & tcp_flags::RST != 0 {
                flow.reset = true;
                flow.state = FlowState::Closing;
                return;
            }
            flow.fin[side] |= flags & tcp_flags::FIN != 0;
            if flow.fin == [true; 2] {
                flow.state = FlowState::Closing;
            } else if flow.state == FlowState::New
                && side == INITIATOR
                && flow.packets[TARGET] > 0
                && !packet.is_tcp_syn()
            {
                flow.state = FlowState::Established;
            }
        }
        FlowState::Single if flow.key.proto == Proto::UDP.0 && flow.packets[0] > 1 && flow.packets[1] > 1 => {
            flow.state = FlowState::Stream;
        }
        _ => {}
    }
}

/// Nanoseconds that a flow lives without packets.
#[inline]
fn life(timeouts: &Timeouts, flow: &Flow) -> u64 {
    let tcp = if flow.to_endpoint { &timeouts.endpoint } else { &timeouts.tcp };
    match flow.state {
        FlowState::New => tcp.new,
        FlowState::Established => tcp.open,
        FlowState::Closing if flow.reset => tcp.reset,
        FlowState::Closing => tcp.fin,
        FlowState::Single if flow.key.proto == Proto::UDP.0 => timeouts.udp,
        FlowState::Single => timeouts.icmp,
        FlowState::Stream => timeouts.udp_stream,
        FlowState::Open => timeouts.other,
    }
}

fn ended_by_time(flow: &Flow) -> FlowEnd {
    match flow.state {
        FlowState::Closing if flow.reset => FlowEnd::Reset,
        FlowState::Closing => FlowEnd::Fin,
        _ => FlowEnd::Idle,
    }
}

#[allow(clippy::too_many_arguments, reason = "parts of `State` that are borrowed apart")]
fn report_end(
    now: Instant,
    flow: &Flow,
    end: FlowEnd,
    seed: u64,
    enis: &[Option<EniIx>],
    ghosts: &mut [u64],
    closed: &mut ClosedLog,
    counters: &Counters,
) {
    if end == FlowEnd::Idle {
        for side in [INITIATOR, TARGET] {
            let hash = flow.side_key(side).hash(seed) | 1;
            ghosts[ghost_place(hash)] = hash;
        }
    }
    if let Some(flow) = snapshot(flow, enis)
        && !closed.push(FlowClosed { at: now, end, flow })
    {
        counters.closed_lost.add(1);
    }
}

fn ghost_place(hash: u64) -> usize {
    (hash >> 32) as usize % GHOSTS
}

/// `None` if an end of it is in no plan any more.
fn snapshot(flow: &Flow, enis: &[Option<EniIx>]) -> Option<FlowSnapshot> {
    Some(FlowSnapshot {
        initiator: (*enis.get(flow.key.port as usize)?)?,
        target: (*enis.get(flow.target as usize)?)?,
        tuple: flow.key.tuple(),
        state: flow.state,
        tracked: flow.tracked[0] && flow.present[0] || flow.tracked[1] && flow.present[1],
        packets_out: flow.packets[INITIATOR],
        bytes_out: flow.bytes[INITIATOR],
        packets_in: flow.packets[TARGET],
        bytes_in: flow.bytes[TARGET],
        way: Way::Private,
        started: flow.started,
        last: flow.last,
        expires: flow.expires,
    })
}

/// What can be said of a packet that cannot be read: the protocol of an IPv6 header.
fn unread_tuple(frame: &[u8], why: Malformed) -> FiveTuple {
    let proto = if why == Malformed::Ipv6 { frame.get(IP_OFFSET + 6).copied().unwrap_or(0) } else { 0 };
    let none = Ipv4Addr::UNSPECIFIED;
    FiveTuple { proto: Proto(proto), src: none, src_port: 0, dst: none, dst_port: 0 }
}

fn crumb(stage: Stage, eni: Option<EniIx>, outcome: Outcome) -> Crumb {
    Crumb { stage, eni, outcome }
}

fn outcome(answer: Result<Rule, Refusal>) -> Outcome {
    match answer {
        Ok(rule) => Outcome::Pass(rule),
        Err(refusal) => Outcome::Drop(refusal.code),
    }
}

fn sg_rule(allowed: sg::Allowed) -> Rule {
    Rule::Sg(allowed.by.group as usize, allowed.by.rule as usize)
}
