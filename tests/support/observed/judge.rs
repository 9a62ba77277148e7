//! What the oracle says of a probe: the packet there, and what comes back of it.

use std::net::Ipv4Addr;

use super::oracle::{Oracle, Quote, Sent};
use super::verdict::{Crumb, DropRecord, Reaction, Stage, Verdict};
use crate::base::{Cidr, EniIx, FiveTuple, Instant, PortRange, Proto};
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, EniOwner, SgPeer};
use crate::wire::packet::tcp_flags::{ACK, RST, SYN};

/// One packet that begins something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Index in `Plan::instances`.
    pub by: usize,
    pub proto: Proto,
    /// Nobody else's in the lab; of a ping the identifier.
    pub from_port: u16,
    pub to: Ipv4Addr,
    pub port: u16,
    pub ttl: u8,
    /// IP bytes; it may not be fragmented.
    pub size: u16,
}

/// What should be seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foretold {
    /// `answered`, `refused`, `icmp 3/3`.
    pub answer: Option<&'static str>,
    pub drop: Option<(DropRecord, Leg)>,
}

/// Which packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    There,
    Back,
    /// The ICMP error that came back in place of an answer.
    Error,
}

/// A fresh oracle for each probe, as no two share a flow. `None`: it cannot say, and such probes are not sent:
/// - a transit gateway chooses a zone by a port of a NAT gateway's, which only the lab knows;
/// - an answer takes another way home than the question came and arrives in another's name, to which the asker's kernel
///   answers in turn; or it is dropped with an ICMP message, which changes what the answerer's kernel sends from then on;
/// - the packet is larger than what the receiver's own interface carries;
/// - an ICMP message about a UDP datagram whose sender's groups may not track it.
pub fn predict(plan: &Plan, probe: &Probe) -> Option<Foretold> {
    let now = Instant::from_millis(10_000);
    let mut oracle = Oracle::default();
    let from = plan.instances[probe.by].enis[0];
    let mut there = Sent::new(probe.proto, plan.eni(from).ip, probe.from_port, probe.to, probe.port);
    (there.ttl, there.size) = (probe.ttl, probe.size);
    match probe.proto {
        Proto::TCP => (there.flags, there.mss) = (SYN, Some(8_961)),
        Proto::ICMP => (there.icmp, there.dst_port) = (Some((8, 0)), there.src_port),
        _ => {}
    }
    let said = oracle.ask(plan, now, from, &there, &[]);
    let unclear = |crumbs: &[Crumb]| by_unknown_port(plan, crumbs);
    if unclear(&said.crumbs) {
        return None;
    }
    if let Some(why) = said.why {
        let answer = match said.verdict {
            Verdict::Reject { reaction, .. } => told(plan, from, probe, reaction)?,
            _ => None,
        };
        return Some(Foretold { answer, drop: Some((record(from, &there, why), Leg::There)) });
    }
    let (to, arrived) = match (said.verdict, said.arrives) {
        (Verdict::Deliver { to } | Verdict::Endpoint { eni: to }, Some(arrived)) => (to, arrived),
        other => panic!("no probe of this kind is made: {probe:?}: {other:?}"),
    };
    if matches!(plan.eni(to).owner, EniOwner::Instance(at, _) if plan.instances[at].mtu < probe.size) {
        return None;
    }
    let (answer, back) = answer(plan, to, &arrived);
    let home = oracle.ask(plan, now, to, &back, &[]);
    if unclear(&home.crumbs) || matches!(home.verdict, Verdict::Reject { .. }) {
        return None;
    }
    if let Some(why) = home.why {
        let leg = if back.quote.is_some() { Leg::Error } else { Leg::Back };
        return Some(Foretold { answer: None, drop: Some((record(to, &back, why), leg)) });
    }
    let (Verdict::Deliver { to }, Some(got)) = (home.verdict, home.arrives) else { return None };
    let same = match got.quote {
        Some(quote) => (quote.dst, quote.dst_port) == (there.dst, there.dst_port),
        None => (got.src, got.src_port) == (there.dst, there.dst_port),
    };
    (to == from && same).then_some(Foretold { answer: Some(answer), drop: None })
}

/// What the sender is told of a drop: past the network ACL of its subnet, and by its groups' knowledge of what they let
/// out.
fn told(plan: &Plan, from: EniIx, probe: &Probe, reaction: Reaction) -> Option<Option<&'static str>> {
    let (said, by) = match reaction {
        Reaction::FragNeeded { from, .. } => ("icmp 3/4", from),
        Reaction::TimeExceeded { from } => ("icmp 11/0", from),
        Reaction::Reset => ("refused", probe.to),
        // Of its own kernel, after three seconds without an answer to ARP.
        Reaction::HostUnreachable { .. } if probe.proto == Proto::TCP => return Some(Some("own kernel: EHOSTUNREACH")),
        Reaction::HostUnreachable { .. } => return Some(Some("icmp 3/1")),
    };
    let icmp: (u8, u8) = if said == "icmp 3/4" { (3, 4) } else { (11, 0) };
    let untracked = |group: &usize| {
        plan.security_groups[*group].ingress.iter().any(|rule| {
            let m = &rule.matches;
            rule.peer == SgPeer::Cidr(Cidr::ANY) && m.proto == Some(Proto::UDP) && m.ports == PortRange::ALL
        })
    };
    if probe.proto == Proto::UDP && plan.eni(from).security_groups.iter().any(untracked) {
        return None;
    }
    let Some(subnet) = plan.subnet_of(from) else { return Some(Some(said)) };
    let first = plan.network_acls[subnet.nacl].ingress.iter().find(|rule| {
        let m = &rule.matches;
        let kind = m.icmp.0.is_none_or(|kind| kind == icmp.0) && m.icmp.1.is_none_or(|code| code == icmp.1);
        rule.peer.contains(by) && (m.proto.is_none() || m.proto == Some(Proto::ICMP) && kind)
    });
    Some(first.is_some_and(|rule| rule.allow).then_some(said))
}

/// What the receiver makes of it.
fn answer(plan: &Plan, to: EniIx, arrived: &Sent) -> (&'static str, Sent) {
    let p = arrived;
    let mut back = Sent { src: p.dst, src_port: p.dst_port, dst: p.src, dst_port: p.src_port, ttl: 64, ..*p };
    let serves = match plan.eni(to).owner {
        EniOwner::Instance(at, _) => {
            let listen = &plan.instances[at].listen;
            listen.iter().any(|l| (l.proto, u32::from(l.port)) == (p.proto, p.dst_port))
        }
        // What an endpoint or a door does not serve, it does not let in.
        _ => true,
    };
    match p.proto {
        Proto::ICMP => {
            back.icmp = Some((0, 0));
            ("answered", back)
        }
        Proto::TCP => {
            back.flags = if serves { SYN | ACK } else { RST | ACK };
            back.mss = serves.then_some(8_961);
            (if serves { "answered" } else { "refused" }, back)
        }
        _ if serves => ("answered", back),
        _ => {
            let error = Sent::new(Proto::ICMP, p.dst, 0, p.src, 0);
            ("icmp 3/3", Sent { icmp: Some((3, 3)), quote: Some(Quote::of(p)), ..error })
        }
    }
}

fn record(by: EniIx, p: &Sent, why: super::oracle::Why) -> DropRecord {
    let port = |port: u32| u16::try_from(port).unwrap_or_default();
    let tuple =
        FiveTuple { proto: p.proto, src: p.src, src_port: port(p.src_port), dst: p.dst, dst_port: port(p.dst_port) };
    let (code, decider, direction) = why;
    let (first, last) = (Instant(0), Instant(0));
    DropRecord { first, last, from: by, tuple, whose: Default::default(), code, decider, direction, count: 1 }
}

/// A transit gateway sends it to one of several zones by a port that a NAT gateway took.
fn by_unknown_port(plan: &Plan, crumbs: &[Crumb]) -> bool {
    let nat = crumbs.iter().any(|c| matches!(c.stage, Stage::Nat { .. }));
    let zones = crumbs.iter().any(|c| match c.stage {
        Stage::TgwAttachment { attachment } => {
            matches!(&plan.tgw_attachments[attachment].to, AttachmentTo::Vpc(to) if to.subnets.len() > 1)
        }
        _ => false,
    });
    nat && zones
}
