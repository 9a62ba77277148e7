//! The way there and the way back, by sending the packets of a connection through an engine.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::ports::Seen;
use super::steps::{self, Teller};
use super::{Explanation, Source, Target};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::engine::{Crumb, Decider, Direction, DropCode, DropRecord, Engine, Outcome, Rule, Stage, Verdict, Way};
use crate::model::Plan;
use crate::model::plan::{EniOwner, EniPlan, RouteTarget, TgwTarget};
use crate::wire::make::{self, Echo, TcpSpec};
use crate::wire::packet::{Packet, tcp_flags};

/// The client's port in explained packets, where none is asked for: in the middle of Linux's range.
pub(super) const CLIENT_PORT: u16 = 40_000;
/// Middle instances that a packet may pass before it is said to go round.
const MIDDLE_MAX: usize = 16;

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
    let mut walker = Walker { plan, engine, dst: dst_port, proto, told, seen, dropped: None, crumbs: Vec::new() };
    let arrived = walker.there(from, dst);
    super::rounds::once(&mut walker.told.steps, "there");
    let Some((last, middle)) = arrived else {
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
    super::rounds::once(&mut walker.told.steps, "back");
    walker.way();
    Walked { reached, target: Some(target), asymmetric, seen: walker.seen }
}

/// The ENI an instance's kernel sends from: the one whose subnet holds the destination, else `eth0`.
pub(super) fn eni_towards(plan: &Plan, instance: usize, dst: Ipv4Addr) -> EniIx {
    let enis = &plan.instances[instance].enis;
    let near = enis.iter().find(|eni| plan.link_of(**eni).0.contains(dst));
    *near.unwrap_or(&enis[0])
}

/// The asker has the address of who is asked for, and keeps what it sends there.
pub(super) fn taken_for_itself(plan: &Plan, src: usize, asked: usize, addr: Ipv4Addr, told: &mut Explanation) {
    let (here, there) = (&plan.instances[src].common.path, &plan.instances[asked].common.path);
    told.fail("there", Some(WRONG_RECEIVER), "instance", here.clone());
    told.detail = Some(format!("{addr} is its own address too"));
    told.notes.push(format!("both {here} and {there} have {addr}: what {here} sends there stays in it"));
}

/// Where an instance was asked for by name, and its address leads to another from here.
pub(super) fn note_twin(plan: &Plan, from: EniIx, addr: Ipv4Addr, told: &mut Explanation) {
    let Target::Instance(asked) = told.destination.target else { return };
    let Some(EniOwner::Instance(here, _)) = eni_at(plan, from, addr).map(|eni| plan.eni(eni).owner) else { return };
    if here != asked {
        let (here, asked) = (&plan.instances[here].common.path, &plan.instances[asked].common.path);
        told.notes.push(format!("from here {addr} is the address of {here}, not of {asked}"));
    }
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

/// Where a packet is going.
fn to_of(frame: &[u8]) -> Option<SocketAddrV4> {
    let tuple = Packet::parse(frame).ok()?.tuple();
    Some(SocketAddrV4::new(tuple.dst, tuple.dst_port))
}

/// An address of the ENI's owner: its kernel takes what is for any of them, whichever way it came.
fn is_own(plan: &Plan, eni: EniIx, addr: Ipv4Addr) -> bool {
    match plan.eni(eni).owner {
        EniOwner::Instance(at, _) => plan.instances[at].enis.iter().any(|own| plan.eni(*own).ip == addr),
        _ => plan.eni(eni).ip == addr,
    }
}

/// The ENI that an answer leaves by: the one whose address was asked, as each has rules of its own for what leaves from
/// its address (see `host::netlink`).
fn answering(plan: &Plan, reached: EniIx, addr: Ipv4Addr) -> EniIx {
    let EniOwner::Instance(at, _) = plan.eni(reached).owner else { return reached };
    plan.instances[at].enis.iter().copied().find(|own| plan.eni(*own).ip == addr).unwrap_or(reached)
}

/// The row that sends a packet back to the forwarding instance it came from: that of a transit gateway's table which
/// leads out of the attachment it came in by, else the last row of a route table.
fn sent_back(plan: &Plan, crumbs: &[Crumb]) -> Option<(&'static str, String, String)> {
    let mut entered = None;
    let mut last = None;
    for crumb in crumbs {
        match (&crumb.stage, &crumb.outcome) {
            (Stage::TgwAttachment { attachment }, _) => entered = Some(*attachment),
            (Stage::TgwRoute { table }, Outcome::Pass(Rule::Route(at))) => {
                let table = &plan.tgw_route_tables[*table];
                let route = &table.routes[*at];
                if entered.is_some_and(|came| route.target == TgwTarget::Attachment(came)) {
                    return Some(("tgw-route-table", table.common.path.clone(), plan.tgw_route_text(route)));
                }
            }
            (Stage::Route { table }, Outcome::Pass(Rule::Route(at))) => {
                let table = &plan.route_tables[*table];
                let route = &table.routes[*at];
                if route.target != RouteTarget::Local || last.is_none() {
                    last = Some(("route-table", table.common.path.clone(), plan.route_text(route)));
                }
            }
            _ => {}
        }
    }
    last
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
    /// Of the last packet.
    crumbs: Vec<Crumb>,
}

impl Walker<'_> {
    /// Where it arrives and how it looks there, `None` for a service of the host; and the middle instances. `None` in
    /// all if it is dropped.
    #[allow(clippy::type_complexity, reason = "where and how it arrived, and the middle")]
    fn there(&mut self, from: EniIx, dst: Ipv4Addr) -> Option<(Option<(EniIx, Vec<u8>)>, Vec<EniIx>)> {
        let mut frame = self.packet(self.plan.eni(from).ip, dst);
        let mut middle = Vec::new();
        let mut passed = vec![(from, to_of(&frame)?)];
        let mut at = from;
        loop {
            let to = match self.send("there", at, &mut frame)? {
                Verdict::Resolver { .. } => return self.host("resolver", "resolver"),
                Verdict::Imds { .. } => return self.host("imds", "instance metadata"),
                Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. } => to,
                Verdict::Drop { .. } | Verdict::Reject { .. } => return None,
            };
            let now = to_of(&frame)?;
            if self.plan.eni(to).owner.is_door() || is_own(self.plan, to, *now.ip()) {
                return Some((Some((to, frame)), middle));
            }
            at = self.forwarded("there", to, &frame, &mut passed)?;
            middle.push(to);
            self.told.passed.push(format!("instance:{}", super::owner(self.plan, to).1));
        }
    }

    /// The ENI by which an instance that got what is not for it sends it on. `None` if it does not, or if it sent the
    /// same before.
    fn forwarded(
        &mut self,
        stage: &'static str,
        to: EniIx,
        frame: &[u8],
        passed: &mut Vec<(EniIx, SocketAddrV4)>,
    ) -> Option<EniIx> {
        let (now, src) = (to_of(frame)?, Packet::parse(frame).ok()?.tuple().src);
        let EniOwner::Instance(instance, _) = self.plan.eni(to).owner else { return None };
        if !self.forwards(to) {
            self.not_forwarded(stage, to, *now.ip());
            return None;
        }
        let out = eni_towards(self.plan, instance, *now.ip());
        // What an instance sent itself, its kernel takes for forged ("martian source").
        if is_own(self.plan, to, src) || passed.contains(&(out, now)) || passed.len() > MIDDLE_MAX {
            self.goes_round(stage, to);
            return None;
        }
        passed.push((out, now));
        Some(out)
    }

    fn forwards(&self, eni: EniIx) -> bool {
        matches!(self.plan.eni(eni).owner, EniOwner::Instance(at, _) if self.plan.instances[at].forward.is_some())
    }

    /// Decided by the instance's kernel, so that there is no drop code.
    fn not_forwarded(&mut self, stage: &'static str, eni: EniIx, dst: Ipv4Addr) {
        let label = self.plan.eni_label(eni);
        let detail = format!("{dst} is no address of its own, and it does not forward");
        self.told.step(stage, &label, "instance's kernel", "DROP", detail.as_str());
        self.told.fail(stage, None, "instance", super::owner(self.plan, eni).1);
        self.told.direction = Some("ingress");
        self.told.detail = Some("does not forward".to_owned());
        self.told.rule = Some(detail);
        self.told.notes.push(format!(
            "{dst} is no address of {label}: its kernel drops the packet without a record, unless ip_forward was turned \
             on in it by hand"
        ));
    }

    /// An instance that forwards gets what it sent again, until the TTL ends in its kernel.
    fn goes_round(&mut self, stage: &'static str, eni: EniIx) {
        let plan = self.plan;
        let code = DropCode::RouteLoop;
        let (kind, object, rule) = sent_back(plan, &self.crumbs).map_or_else(
            || (super::owner(plan, eni).0, super::owner(plan, eni).1, None),
            |(kind, object, rule)| (kind, object, Some(rule)),
        );
        let label = plan.eni_label(eni);
        self.told.step(stage, &label, "goes round", "DROP", "it sent this before");
        self.told.fail(stage, Some(code.as_str()), kind, object.clone());
        self.told.direction = Some("egress");
        self.told.detail = rule.clone();
        self.told.reachability_analyzer = code.reachability_analyzer();
        let by = rule.as_ref().map_or_else(String::new, |rule| format!(", by {object}: {rule}"));
        self.told.notes.push(format!("goes round: {label} gets back what it forwards{by}"));
        self.told.rule = rule;
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
        let mut at = answering(self.plan, target, packet.tuple().dst);
        let Some(first) = to_of(&frame) else { return (false, None) };
        let mut passed = vec![(at, first)];
        loop {
            let to = match self.send("back", at, &mut frame) {
                Some(Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. }) => to,
                _ => return (false, self.split(middle_there, &middle)),
            };
            let Some(now) = to_of(&frame) else { return (false, None) };
            if is_own(self.plan, to, *now.ip()) {
                if super::owner(self.plan, to) == super::owner(self.plan, from) {
                    break;
                }
                self.wrong_receiver("back", to, &self.plan.eni_label(at), *now.ip());
                return (false, None);
            }
            match self.forwarded("back", to, &frame, &mut passed) {
                Some(out) => at = out,
                None => return (false, self.unlike(middle_there, &middle, to)),
            }
            middle.push(to);
        }
        let same = middle.len() == middle_there.len() && self.go_back(middle_there, &middle);
        (true, (!same).then(|| self.asymmetric(middle_there, &middle)))
    }

    /// The answer was dropped: by a middle instance that the first packet did not pass, or not yet?
    fn split(&self, there: &[EniIx], back: &[EniIx]) -> Option<String> {
        let (Decider::Eni(eni) | Decider::SecurityGroups(eni)) = self.dropped? else { return None };
        let mut back = back.to_vec();
        if back.last() != Some(&eni) && self.forwards(eni) {
            back.push(eni);
        }
        (!back.is_empty() && !self.go_back(there, &back)).then(|| self.asymmetric(there, &back))
    }

    /// Are these the instances of the way there, as far as they go, in the other order?
    fn go_back(&self, there: &[EniIx], back: &[EniIx]) -> bool {
        let owner = |eni: &EniIx| super::owner(self.plan, *eni);
        there.iter().rev().map(owner).take(back.len()).eq(back.iter().map(owner))
    }

    /// It ended at a middle instance that the first packet did not pass, or not yet.
    fn unlike(&self, there: &[EniIx], back: &[EniIx], last: EniIx) -> Option<String> {
        let mut back = back.to_vec();
        back.push(last);
        (!self.go_back(there, &back)).then(|| self.asymmetric(there, &back))
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
        self.told.fail(stage, Some(WRONG_RECEIVER), kind, object.clone());
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
        self.crumbs = crumbs;
        match record {
            None => Some(verdict),
            Some(record) => {
                self.refused(stage, &record);
                self.told.dropped = Some(at_its_end(record, &self.crumbs, &self.told.source));
                None
            }
        }
    }

    /// Line 2 of a drop: where, by what rule.
    fn refused(&mut self, stage: &'static str, record: &DropRecord) {
        let steps::Refused { kind, object, detail, rule } = steps::refused(self.plan, record);
        self.told.fail(stage, Some(record.code.as_str()), kind, object);
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
