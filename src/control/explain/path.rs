//! The way there and the way back, by sending the packets of a connection through an engine.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::ports::Seen;
use super::steps::{self, Teller};
use super::{Explanation, Source, Target};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::engine::{Crumb, Decider, Direction, DropRecord, Engine, Outcome, Rule, Verdict, Way};
use crate::model::Plan;
use crate::model::plan::{EniOwner, EniPlan};
use crate::wire::make::{self, Echo, TcpSpec};
use crate::wire::packet::{Packet, tcp_flags};

/// The client's port in explained packets, where none is asked for: in the middle of Linux's range.
pub(super) const CLIENT_PORT: u16 = 40_000;
/// Middle instances that a packet may pass before it is said to go round.
const MIDDLE_MAX: usize = 8;

/// Arrived, but elsewhere: a code of this page, since no packet is dropped.
const WRONG_RECEIVER: &str = "WRONG_RECEIVER";

/// Where a walk ended.
#[derive(Default)]
pub(super) struct Walked {
    /// Both packets arrived.
    pub(super) reached: bool,
    /// The ENI that the first one reached, if it reached one.
    pub(super) target: Option<EniIx>,
    /// The middle instances there and back, where they are not the same.
    pub(super) asymmetric: Option<String>,
    /// What of it depends on the client's port.
    pub(super) seen: Seen,
}

/// Sends the first packet there and its answer back, from the port of `told.source`.
pub(super) fn walk(plan: &Plan, engine: Engine, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) -> Walked {
    let seen = Seen::default();
    let (dst_port, proto) = (told.destination.port, told.destination.proto);
    let mut walker = Walker { plan, engine, dst: dst_port, proto, told, seen, dropped: None };
    let Some((last, middle)) = walker.there(from, dst) else {
        return Walked { seen: walker.seen, ..Walked::default() };
    };
    let Some((target, frame)) = last else {
        return Walked { reached: true, seen: walker.seen, ..Walked::default() };
    };
    if walker.is_another(target) {
        walker.wrong_receiver("there", target, &plan.eni_label(from), dst);
        return Walked { target: Some(target), seen: walker.seen, ..Walked::default() };
    }
    let (reached, asymmetric) = walker.back(from, target, &frame, &middle);
    walker.way();
    Walked { reached, target: Some(target), asymmetric, seen: walker.seen }
}

/// The ENI an instance's kernel sends from: the one whose subnet holds the destination, else `eth0`.
pub(super) fn eni_towards(plan: &Plan, instance: usize, dst: Ipv4Addr) -> EniIx {
    let enis = &plan.instances[instance].enis;
    let near = enis.iter().find(|eni| plan.link_of(**eni).0.contains(dst));
    *near.unwrap_or(&enis[0])
}

/// True for the instance's own addresses: its kernel sends to them through the loopback device.
pub(super) fn stays_inside(plan: &Plan, instance: usize, dst: Ipv4Addr) -> bool {
    dst.is_loopback() || plan.instances[instance].enis.iter().any(|eni| plan.eni(*eni).ip == dst)
}

/// The ENI that an address means to another ENI: in its own network, else the only one that has it, else who stands
/// behind the public address.
pub(super) fn eni_at(plan: &Plan, beside: EniIx, addr: Ipv4Addr) -> Option<EniIx> {
    let home = plan.eni(beside).vpc();
    let has = |eni: &&(usize, &EniPlan)| eni.1.ip == addr && !eni.1.owner.is_door();
    let all: Vec<(usize, &EniPlan)> = plan.enis.iter().enumerate().collect();
    let own = all.iter().filter(has).find(|(_, eni)| eni.vpc() == home).map(|(at, _)| *at);
    let mut others = all.iter().filter(has).map(|(at, _)| *at);
    let only = match (others.next(), others.next()) {
        (Some(at), None) => Some(at),
        _ => None,
    };
    let at = own.or(only).map(|at| EniIx(at as u32));
    at.or_else(|| plan.public_addresses.iter().find(|public| public.addr == addr).map(|public| public.eni))
}

struct Walker<'a> {
    plan: &'a Plan,
    engine: Engine,
    dst: u16,
    proto: Proto,
    told: &'a mut Explanation,
    seen: Seen,
    /// What dropped a packet.
    dropped: Option<Decider>,
}

impl Walker<'_> {
    /// Where it arrives and how it looks there, `None` for a service of the host; and the middle instances. `None` in
    /// all if it is dropped.
    #[allow(clippy::type_complexity, reason = "where and how it arrived, and the middle")]
    fn there(&mut self, from: EniIx, dst: Ipv4Addr) -> Option<(Option<(EniIx, Vec<u8>)>, Vec<EniIx>)> {
        let mut frame = self.packet(self.plan.eni(from).ip, dst);
        let mut middle = Vec::new();
        let mut at = from;
        loop {
            let to = match self.send("there", at, &mut frame)? {
                Verdict::Resolver { .. } => return self.host("resolver", "resolver"),
                Verdict::Imds { .. } => return self.host("imds", "instance metadata"),
                Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. } => to,
                Verdict::Drop { .. } | Verdict::Reject { .. } => return None,
            };
            let eni = self.plan.eni(to);
            let now = Packet::parse(&frame).ok()?.tuple().dst;
            if eni.ip == now || eni.owner.is_door() {
                return Some((Some((to, frame)), middle));
            }
            let label = self.plan.eni_label(to);
            if !self.forwards(to) {
                self.told.notes.push(format!("{now} is no address of {label}: it is to forward it"));
                if eni_at(self.plan, from, now).is_none() {
                    return Some((None, middle));
                }
            }
            if middle.contains(&to) || middle.len() == MIDDLE_MAX {
                self.told.notes.push(format!("goes round: {label} gets it again and again"));
                return Some((None, middle));
            }
            middle.push(to);
            self.told.passed.push(format!("instance:{}", super::owner(self.plan, to).1));
            at = to;
        }
    }

    fn forwards(&self, eni: EniIx) -> bool {
        matches!(self.plan.eni(eni).owner, EniOwner::Instance(at, _) if self.plan.instances[at].forward.is_some())
    }

    #[allow(clippy::type_complexity, reason = "as `there`")]
    fn host(&mut self, at: &str, what: &str) -> Option<(Option<(EniIx, Vec<u8>)>, Vec<EniIx>)> {
        self.told.step("back", at, what, "ok", "answered on the host itself: no rule is asked");
        Some((None, Vec::new()))
    }

    /// Did it arrive, and by which other middle instances than the first packet?
    fn back(&mut self, from: EniIx, target: EniIx, arrived: &[u8], middle_there: &[EniIx]) -> (bool, Option<String>) {
        let Ok(packet) = Packet::parse(arrived) else { return (false, None) };
        self.seen.at_target = packet.tuple().src_port;
        let mut frame = self.answer(packet.tuple());
        let mut middle = Vec::new();
        let mut at = target;
        loop {
            let to = match self.send("back", at, &mut frame) {
                Some(Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. }) => to,
                _ => return (false, self.split(middle_there, &middle)),
            };
            if to == from {
                break;
            }
            let now = Packet::parse(&frame).map_or(Ipv4Addr::UNSPECIFIED, |packet| packet.tuple().dst);
            if self.plan.eni(to).ip == now {
                self.wrong_receiver("back", to, &self.plan.eni_label(at), now);
                return (false, None);
            }
            if middle.contains(&to) || middle.len() == MIDDLE_MAX {
                self.told.notes.push(format!("goes round on the way back: {}", self.plan.eni_label(to)));
                return (true, None);
            }
            middle.push(to);
            at = to;
        }
        let same = middle.iter().rev().eq(middle_there);
        (true, (!same).then(|| self.asymmetric(middle_there, &middle)))
    }

    /// The answer was dropped: by a middle instance that the first packet did not pass, or not yet?
    fn split(&self, there: &[EniIx], back: &[EniIx]) -> Option<String> {
        let (Decider::Eni(eni) | Decider::SecurityGroups(eni)) = self.dropped? else { return None };
        let mut back = back.to_vec();
        if back.last() != Some(&eni) && self.forwards(eni) {
            back.push(eni);
        }
        let expected = there.iter().rev().take(back.len());
        (!back.is_empty() && !expected.eq(back.iter())).then(|| self.asymmetric(there, &back))
    }

    fn asymmetric(&self, there: &[EniIx], back: &[EniIx]) -> String {
        let names = |enis: &[EniIx]| {
            let names: Vec<String> = enis.iter().map(|eni| self.plan.eni_label(*eni)).collect();
            if names.is_empty() { "straight".to_owned() } else { names.join(", ") }
        };
        format!("asymmetric: {} there, {} back", names(there), names(back))
    }

    /// Does the address lead to another than the instance or endpoint that was asked for?
    fn is_another(&self, target: EniIx) -> bool {
        match (&self.told.destination.target, self.plan.eni(target).owner) {
            (Target::Instance(asked), EniOwner::Instance(at, _)) => at != *asked,
            (Target::Endpoint(asked), EniOwner::Endpoint(at)) => at != *asked,
            (Target::Instance(_), EniOwner::Endpoint(_)) | (Target::Endpoint(_), EniOwner::Instance(..)) => true,
            _ => false,
        }
    }

    /// Two have one address, and routes lead to one of them.
    fn wrong_receiver(&mut self, stage: &'static str, to: EniIx, sender: &str, addr: Ipv4Addr) {
        let plan = self.plan;
        let (kind, object) = super::owner(plan, to);
        let what = if stage == "back" { "the answer" } else { "the packet" };
        let meant = match self.told.destination.target {
            Target::Instance(at) if stage == "there" => plan.instances[at].common.path.clone(),
            Target::Endpoint(at) if stage == "there" => plan.endpoints[at].common.path.clone(),
            _ => self.told.source.path.clone(),
        };
        let rule = format!("both have {addr}, and the routes lead from {sender} to {object}");
        let label = plan.eni_label(to);
        self.told.step(
            stage,
            &label,
            "destination",
            "WRONG",
            format!("{what} is delivered to {object}, not to {meant}"),
        );
        self.told.fail(stage, WRONG_RECEIVER, kind, object.clone());
        self.told.detail = Some(format!("{addr} is its address too"));
        self.told.direction = Some("ingress");
        self.told.notes.push(format!("{what} is delivered to {object}, not to {meant}: {rule}"));
        self.told.notes.push(
            "addresses that overlap cannot be told apart: give one of the two another block, or let its clients come \
             through a private NAT gateway with addresses that nobody else has"
                .to_owned(),
        );
        self.told.rule = Some(rule);
    }

    /// The least private way of the legs that the packet went.
    fn way(&mut self) {
        let rank =
            |way: Way| [Way::Private, Way::GatewayEndpoint, Way::Nat, Way::Internet].iter().position(|w| *w == way);
        let way = self.engine.flows().map(|flow| flow.way).max_by_key(|way| rank(*way));
        if let Some(way) = way.filter(|_| self.told.reachable) {
            self.told.way = Some(way.as_str());
        }
    }

    /// Traces one packet and tells its steps; the frame is then as it arrives. `None` if it was dropped.
    fn send(&mut self, stage: &'static str, from: EniIx, frame: &mut [u8]) -> Option<Verdict> {
        let now = Instant::from_millis(1);
        let sent = Packet::parse(frame).map_or(Ipv4Addr::UNSPECIFIED, |packet| packet.tuple().src);
        let (verdict, crumbs) = match self.plan.eni(from).owner {
            EniOwner::Instance(..) => self.engine.trace(now, from, frame),
            _ => self.engine.trace_from_endpoint(now, from, frame),
        };
        let record = verdict.dropped().and_then(|_| self.engine.drops().last().cloned());
        self.dropped = record.as_ref().map(|record| record.decider);
        self.seen.note(self.plan, stage, from, self.proto, &crumbs);
        let Walker { plan, proto, dst, .. } = *self;
        let mut teller = Teller { plan, proto, port: dst, steps: &mut self.told.steps };
        teller.tell_all(stage, from, sent, &crumbs, record.as_ref());
        for crumb in crumbs.iter().filter(|crumb| matches!(crumb.outcome, Outcome::Pass(_)) && stage == "there") {
            if let Some(way) = super::gateways::way(plan, &crumb.stage).filter(|way| !self.told.passed.contains(way)) {
                self.told.passed.push(way);
            }
        }
        match record {
            None => Some(verdict),
            Some(record) => {
                self.refused(stage, &record);
                self.told.dropped = Some(at_its_end(record, &crumbs, &self.told.source));
                None
            }
        }
    }

    /// Line 2 of a drop: where, by what rule.
    fn refused(&mut self, stage: &'static str, record: &DropRecord) {
        let steps::Refused { kind, object, detail, rule } = steps::refused(self.plan, record);
        self.told.fail(stage, record.code.as_str(), kind, object);
        self.told.detail = detail;
        self.told.rule = rule;
        self.told.direction = Some(if record.direction == Direction::Egress { "egress" } else { "ingress" });
        self.told.reachability_analyzer = record.reachability_analyzer();
    }

    fn packet(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let port = self.told.source.port;
        let (src_at, dst_at) = (SocketAddrV4::new(src, port), SocketAddrV4::new(dst, self.dst));
        match self.proto {
            Proto::TCP => make::tcp(&TcpSpec::syn(src_at, dst_at)),
            Proto::UDP => make::udp(src_at, dst_at, b""),
            _ => make::icmp_echo(src, dst, Echo::Request, port, 1, &[]),
        }
    }

    /// What the receiver of a packet answers.
    fn answer(&self, arrived: FiveTuple) -> Vec<u8> {
        let FiveTuple { src, src_port, dst, dst_port, .. } = arrived.reversed();
        let (src_at, dst_at) = (SocketAddrV4::new(src, src_port), SocketAddrV4::new(dst, dst_port));
        match self.proto {
            Proto::TCP => make::tcp(&TcpSpec::new(src_at, dst_at, tcp_flags::SYN | tcp_flags::ACK)),
            Proto::UDP => make::udp(src_at, dst_at, b""),
            _ => make::icmp_echo(src, dst, Echo::Reply, src_port, 1, &[]),
        }
    }
}

/// The record with the addresses that the packet had where it was dropped, in place of those that it was sent with.
fn at_its_end(mut record: DropRecord, crumbs: &[Crumb], client: &Source) -> DropRecord {
    let tuple = &mut record.tuple;
    for crumb in crumbs {
        match crumb.outcome {
            Outcome::Pass(Rule::Source(addr)) => tuple.src = addr,
            Outcome::Pass(Rule::Destination(addr)) => {
                tuple.dst = addr;
                // Translated back: for the client itself.
                if addr == client.address && tuple.proto != Proto::ICMP {
                    tuple.dst_port = client.port;
                }
            }
            _ => {}
        }
    }
    record
}
