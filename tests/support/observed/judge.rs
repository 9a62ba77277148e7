//! What the oracle says of a probe: the packet there, and what comes back of it.

use std::net::Ipv4Addr;

use super::oracle::{Oracle, Quote, Sent};
use super::verdict::{DropRecord, Stage, Verdict};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, EniOwner};
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
}

/// What should be seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foretold {
    /// `answered`, `refused`, `icmp 3/3`.
    Answer(&'static str),
    Dropped {
        record: DropRecord,
        back: bool,
    },
    /// Nothing is claimed: see [`predict`].
    Open,
}

/// A fresh oracle for each probe, as no two share a flow. Two things it cannot say, and such probes are not sent: the
/// zone that a transit gateway chooses by a port of a NAT gateway's, which only the lab knows; and what becomes of an
/// answer that takes another way home and arrives in another's name.
pub fn predict(plan: &Plan, probe: &Probe) -> Foretold {
    let now = Instant::from_millis(10_000);
    let mut oracle = Oracle::default();
    let from = plan.instances[probe.by].enis[0];
    let mut there = Sent::new(probe.proto, plan.eni(from).ip, probe.from_port, probe.to, probe.port);
    match probe.proto {
        Proto::TCP => (there.flags, there.mss) = (SYN, Some(8_961)),
        Proto::ICMP => (there.icmp, there.dst_port) = (Some((8, 0)), there.src_port),
        _ => {}
    }
    let said = oracle.ask(plan, now, from, &there, &[]);
    if let Some(why) = said.why {
        return dropped(from, &there, why, None);
    }
    let (to, arrived) = match (said.verdict, said.arrives) {
        (Verdict::Deliver { to } | Verdict::Endpoint { eni: to }, Some(arrived)) => (to, arrived),
        other => panic!("no probe of this kind is made: {probe:?}: {other:?}"),
    };
    let (answer, back) = answer(plan, to, &arrived);
    let home = oracle.ask(plan, now, to, &back, &[]);
    if [&said.crumbs, &home.crumbs].into_iter().any(|crumbs| zone_by_unknown_port(plan, crumbs)) {
        return Foretold::Open;
    }
    if let Some(why) = home.why {
        return dropped(to, &back, why, Some(from));
    }
    match (home.verdict, home.arrives) {
        (Verdict::Deliver { to }, Some(got)) if to == from => {
            let same = match got.quote {
                Some(quote) => (quote.dst, quote.dst_port) == (there.dst, there.dst_port),
                None => (got.src, got.src_port) == (there.dst, there.dst_port),
            };
            if same { Foretold::Answer(answer) } else { Foretold::Open }
        }
        _ => Foretold::Open,
    }
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
            let quote = Quote {
                proto: p.proto,
                src: p.src,
                src_port: p.src_port,
                dst: p.dst,
                dst_port: p.dst_port,
                icmp: None,
            };
            let error = Sent::new(Proto::ICMP, p.dst, 0, p.src, 0);
            ("icmp 3/3", Sent { icmp: Some((3, 3)), quote: Some(quote), ..error })
        }
    }
}

fn dropped(by: EniIx, p: &Sent, why: super::oracle::Why, began: Option<EniIx>) -> Foretold {
    let port = |port: u32| u16::try_from(port).unwrap_or_default();
    let tuple =
        FiveTuple { proto: p.proto, src: p.src, src_port: port(p.src_port), dst: p.dst, dst_port: port(p.dst_port) };
    let (code, decider, direction) = why;
    let (first, last) = (Instant(0), Instant(0));
    let record = DropRecord { first, last, from: by, tuple, answers: None, code, decider, direction, count: 1 };
    Foretold::Dropped { record, back: began.is_some() }
}

/// A NAT gateway's port decides which of several zones a transit gateway sends it to.
fn zone_by_unknown_port(plan: &Plan, crumbs: &[super::verdict::Crumb]) -> bool {
    let nat = crumbs.iter().any(|c| matches!(c.stage, Stage::Nat { .. }));
    nat && crumbs.iter().any(|c| match c.stage {
        Stage::TgwAttachment { attachment } => {
            matches!(&plan.tgw_attachments[attachment].to, AttachmentTo::Vpc(to) if to.subnets.len() > 1)
        }
        _ => false,
    })
}
