//! The slow oracle: what AWS does to a packet, answered from the `Plan` by reading its lists, with one set of
//! connection records per ENI and one list of bindings per NAT gateway. It shares no table, index, cache or flow entry
//! with the engine: only the words of plans, verdicts and rules, and `base::steer`, which is a definition.
//!
//! Which port a NAT gateway takes is the engine's choice. In here the port is a *token*, a number over 65,535; where
//! the packet arrives, the test tells which port it had ([`Oracle::learn`]).
//!
//! `tests/observed.rs` takes this folder in as well, and asks it about labs that run: in here is only what needs no
//! other test.

mod gateways;
mod groups;
mod lists;
mod records;
mod walk;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use self::records::{Binding, Flow, Key, Record};
use super::event::Way;
use super::verdict::{Crumb, Decider, Direction, DropCode, Reaction, Rule, Stage, Verdict};
use crate::base::{EniIx, Instant, Proto};
use crate::model::Plan;
use crate::model::plan::{EniOwner, Impair};
use crate::wire::packet::tcp_flags;

/// A port, or the token of one that is not known.
pub(super) type Port = u32;

/// From here on it is a token.
pub(super) const TOKENS: Port = 65_536;

/// A packet in the words of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) proto: Proto,
    pub(super) src: Ipv4Addr,
    /// ICMP echo: the identifier, in both.
    pub(super) src_port: Port,
    pub(super) dst: Ipv4Addr,
    pub(super) dst_port: Port,
    /// Type and code.
    pub(super) icmp: Option<(u8, u8)>,
    /// Of TCP.
    pub(super) flags: u8,
    pub(super) mss: Option<u16>,
    /// IP bytes of the largest packet it stands for.
    pub(super) size: u16,
    pub(super) df: bool,
    pub(super) ttl: u8,
    pub(super) fragment: Option<Part>,
    /// What an ICMP error is about.
    pub(super) quote: Option<Quote>,
}

/// Of a fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: u16,
    pub(super) first: bool,
}

/// The packet that an ICMP error is about, as the error's sender got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) proto: Proto,
    pub(super) src: Ipv4Addr,
    pub(super) src_port: Port,
    pub(super) dst: Ipv4Addr,
    pub(super) dst_port: Port,
    pub(super) icmp: Option<u8>,
}

impl Quote {
    pub(super) fn of(p: &Sent) -> Quote {
        Quote {
            proto: p.proto,
            src: p.src,
            src_port: p.src_port,
            dst: p.dst,
            dst_port: p.dst_port,
            icmp: p.icmp.map(|(kind, _)| kind),
        }
    }
}

impl Sent {
    /// TCP, or anything that is no reply by its own looks.
    pub(super) fn new(proto: Proto, src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> Sent {
        Sent {
            proto,
            src,
            src_port: src_port.into(),
            dst,
            dst_port: dst_port.into(),
            icmp: None,
            flags: 0,
            mss: None,
            size: 60,
            df: true,
            ttl: 64,
            fragment: None,
            quote: None,
        }
    }

    /// SYN, and neither ACK, FIN nor RST.
    pub(super) fn begins(&self) -> bool {
        use tcp_flags::{ACK, FIN, RST, SYN};
        self.proto == Proto::TCP && self.flags & (SYN | ACK | FIN | RST) == SYN
    }

    fn is_echo(&self) -> bool {
        matches!(self.icmp, Some((0 | 8, _)))
    }
}

/// Why it was dropped.
pub(super) type Why = (DropCode, Decider, Direction);

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Never `Shaped`.
    pub(super) verdict: Verdict,
    pub(super) why: Option<Why>,
    pub(super) crumbs: Vec<Crumb>,
    /// As it arrives, if it does. A token among the ports: any from 1,024 on; tell the oracle by [`Oracle::learn`].
    pub(super) arrives: Option<Sent>,
    /// It is cut into fragments of so many bytes; 0: not.
    pub(super) fragment: u16,
    /// What its way takes where the plan has AWS's delays.
    pub(super) latency: Duration,
    /// By the links of who sends it and who gets it.
    pub(super) impaired: [Option<Impair>; 2],
    pub(super) way: Way,
}

/// What fragments have in common: sender, source, destination, protocol, identification (RFC 791).
type Datagram = (u32, Ipv4Addr, Ipv4Addr, Proto, u16);

#[derive(Default)]
pub(super) struct Oracle {
    records: HashMap<Key, Record>,
    flows: HashMap<u32, Flow>,
    next_flow: u32,
    /// Who had a connection that ended by idleness.
    graves: HashSet<Key>,
    bindings: Vec<Binding>,
    /// First fragments, and when they came.
    parts: HashMap<Datagram, (Sent, Instant)>,
    tokens: Port,
}

impl Oracle {
    /// What becomes of a packet that the owner of `from` sends. `seen`: the crumbs of who is under test; only read where
    /// a transit gateway chooses a zone by ports of which one is a token, and where a NAT gateway chooses an address.
    pub(super) fn ask(&mut self, plan: &Plan, now: Instant, from: EniIx, p: &Sent, seen: &[Crumb]) -> Expected {
        if let Some(part) = p.fragment.filter(|part| part.first) {
            self.parts.insert((from.0, p.src, p.dst, p.proto, part.id), (*p, now));
        }
        let mut walk = walk::Walk::new(self, plan, now, from, *p, seen);
        let result = walk.run();
        let walk::Walk { crumbs, fragment, latency, way, p: arrives, start, tokens, notes, replaced, .. } = walk;
        self.tokens = tokens;
        if let Some(flow) = replaced {
            self.end(flow);
        }
        match result {
            Ok(verdict) => {
                self.remember(plan, now, notes, &start, &arrives);
                let to = match verdict {
                    Verdict::Deliver { to } | Verdict::Endpoint { eni: to } => Some(to),
                    _ => None,
                };
                let impaired = [Some(from), to].map(|eni| lists::impairment(plan, eni?));
                let arrives = to.map(|_| arrives);
                Expected { verdict, why: None, crumbs, arrives, fragment, latency, impaired, way }
            }
            Err(stop) => {
                let verdict = match stop.reaction {
                    Some(reaction) => Verdict::Reject { code: stop.code, reaction },
                    None => Verdict::Drop { code: stop.code },
                };
                Expected {
                    verdict,
                    why: Some((stop.code, stop.decider, stop.direction)),
                    crumbs,
                    arrives: None,
                    fragment: 0,
                    latency,
                    impaired: [None; 2],
                    way,
                }
            }
        }
    }

    /// What becomes of the answer `told` of a router or gateway to `sent`, which `to` has sent and which was dropped:
    /// into its subnet, and of ICMP also past its groups, who know of what they have let out (EC2 User Guide, "path MTU
    /// discovery").
    pub(super) fn react(
        &mut self,
        plan: &Plan,
        now: Instant,
        to: EniIx,
        sent: &Sent,
        told: &Sent,
    ) -> (Verdict, Option<Why>, Vec<Crumb>) {
        let mut walk = walk::Walk::new(self, plan, now, to, *told, &[]);
        let mut before = walk::Walk::new(self, plan, now, to, *sent, &[]);
        let mut into = || {
            if let Some(subnet) = plan.eni(to).subnet() {
                walk.nacl(subnet, Direction::Ingress, false)?;
            }
            let asked = matches!(plan.eni(to).owner, EniOwner::Instance(..) | EniOwner::Endpoint(_));
            if told.proto == Proto::TCP || plan.eni(to).vpc().is_none() || !asked {
                return Ok(());
            }
            if before.groups(to, Direction::Egress).is_ok_and(|tracked| tracked) {
                walk.pass(Stage::Tracked, Some(to), Rule::None);
                return Ok(());
            }
            walk.groups(to, Direction::Ingress).map(|_| ())
        };
        let result: Result<(), Stop> = into();
        let crumbs = std::mem::take(&mut walk.crumbs);
        let ends = !matches!(plan.eni(to).owner, EniOwner::Instance(..));
        match result {
            Ok(()) => {
                if told.flags & tcp_flags::RST != 0 {
                    self.reset(plan, now, &Key::of(to, told, true));
                }
                (if ends { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } }, None, crumbs)
            }
            Err(stop) => {
                let why = (stop.code, stop.decider, stop.direction);
                (Verdict::Drop { code: stop.code }, Some(why), crumbs)
            }
        }
    }

    /// The port that stands for a token.
    pub(super) fn learn(&mut self, token: Port, port: u16) {
        assert!(token >= TOKENS, "{token} is a port");
        let real = Port::from(port);
        for binding in &mut self.bindings {
            binding.learn(token, real);
        }
        for flow in self.flows.values_mut() {
            flow.learn(token, real);
        }
        let renamed: Vec<Key> = self.records.keys().filter(|key| **key != key.learned(token, real)).copied().collect();
        for key in renamed {
            let record = self.records.remove(&key).expect("it was there");
            self.records.insert(key.learned(token, real), record);
        }
    }
}

/// Who refuses, and how.
#[derive(Clone, Copy, Debug)]
struct Stop {
    code: DropCode,
    decider: Decider,
    direction: Direction,
    reaction: Option<Reaction>,
}
