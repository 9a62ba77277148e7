//! The way there and the way back, by sending the packets of a connection through an engine.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::steps::{self, Teller};
use super::{Explanation, Source};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::engine::{Crumb, Direction, DropRecord, Engine, Outcome, Rule, Verdict, Way};
use crate::model::Plan;
use crate::model::plan::{EniOwner, EniPlan};
use crate::wire::make::{self, Echo, TcpSpec};
use crate::wire::packet::{Packet, tcp_flags};

/// The client's port in explained packets, where none is asked for: in the middle of Linux's range.
pub(super) const CLIENT_PORT: u16 = 40_000;
/// Middle instances that a packet may pass before it is said to go round.
const MIDDLE_MAX: usize = 8;

/// Where a walk ended.
pub(super) struct Walked {
    /// Both packets arrived.
    pub(super) reached: bool,
    /// The ENI that the first one reached, if it reached one.
    pub(super) target: Option<EniIx>,
}

/// Sends the first packet there and its answer back.
pub(super) fn walk(plan: &Plan, engine: Engine, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) -> Walked {
    let mut walker = Walker { plan, engine, dst: told.destination.port, proto: told.destination.proto, told };
    let Some((last, middle)) = walker.there(from, dst) else { return Walked { reached: false, target: None } };
    let Some((target, frame)) = last else { return Walked { reached: true, target: None } };
    let reached = walker.back(from, target, &frame, &middle);
    walker.way();
    Walked { reached, target: Some(target) }
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

    fn back(&mut self, from: EniIx, target: EniIx, arrived: &[u8], middle_there: &[EniIx]) -> bool {
        let Ok(packet) = Packet::parse(arrived) else { return false };
        let mut frame = self.answer(packet.tuple());
        let mut middle = Vec::new();
        let mut at = target;
        loop {
            let to = match self.send("back", at, &mut frame) {
                Some(Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. }) => to,
                _ => return false,
            };
            if to == from {
                break;
            }
            if middle.contains(&to) || middle.len() == MIDDLE_MAX {
                self.told.notes.push(format!("goes round on the way back: {}", self.plan.eni_label(to)));
                return true;
            }
            middle.push(to);
            at = to;
        }
        if !middle.iter().rev().eq(middle_there) {
            let names = |enis: &[EniIx]| {
                let names: Vec<String> = enis.iter().map(|eni| self.plan.eni_label(*eni)).collect();
                if names.is_empty() { "straight".to_owned() } else { names.join(", ") }
            };
            self.told.notes.push(format!("asymmetric: {} there, {} back", names(middle_there), names(&middle)));
        }
        true
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
