//! What ENIs and NAT gateways remember, and for how long.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::walk::Notes;
use super::{Oracle, Port, Sent};
use crate::base::{EniIx, Instant, Proto};
use crate::model::Plan;
use crate::model::plan::EniOwner;
use crate::wire::packet::tcp_flags;

/// One connection of an ENI: who, whom, by what; and which half of a ping it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) eni: u32,
    proto: Proto,
    own: Ipv4Addr,
    own_port: Port,
    peer: Ipv4Addr,
    peer_port: Port,
    asks: Option<bool>,
}

impl Key {
    /// Of an ENI for a packet that it sends, or that it receives.
    pub(super) fn of(eni: EniIx, p: &Sent, receives: bool) -> Key {
        if let Some(quote) = p.quote {
            // Who sends an error received what it is about; who receives one sent it.
            let asks = quote.icmp.map(|kind| (kind == 8) == receives);
            let (own, peer) = ((quote.dst, quote.dst_port), (quote.src, quote.src_port));
            let (own, peer) = if receives { (peer, own) } else { (own, peer) };
            return Key {
                eni: eni.0,
                proto: quote.proto,
                own: own.0,
                own_port: own.1,
                peer: peer.0,
                peer_port: peer.1,
                asks,
            };
        }
        // Who sends a request may send more of them and gets answers; who receives one sends answers.
        let asks = match p.icmp {
            Some((8, _)) => Some(!receives),
            Some((0, _)) => Some(receives),
            _ => None,
        };
        let (own, peer) = ((p.src, p.src_port), (p.dst, p.dst_port));
        let (own, peer) = if receives { (peer, own) } else { (own, peer) };
        Key { eni: eni.0, proto: p.proto, own: own.0, own_port: own.1, peer: peer.0, peer_port: peer.1, asks }
    }

    pub(super) fn learned(self, token: Port, port: Port) -> Key {
        let own_port = if self.own_port == token { port } else { self.own_port };
        let peer_port = if self.peer_port == token { port } else { self.peer_port };
        Key { own_port, peer_port, ..self }
    }

    pub(super) fn reversed(self) -> Key {
        Key { own: self.peer, own_port: self.peer_port, peer: self.own, peer_port: self.own_port, ..self }
    }
}

/// What an ENI knows of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Its security groups track it.
    pub(super) tracked: bool,
    last: Instant,
    life: Life,
    /// Of the other end.
    pub(super) partner: Key,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// The ENI sent the first packet.
    mine: bool,
    /// Packets each way: the ENI's, the peer's; up to 3.
    seen: [u8; 2],
    /// It began with a SYN that nobody has answered and acknowledged.
    opening: bool,
    fin: [bool; 2],
    reset: bool,
}

impl Life {
    fn new(mine: bool, p: &Sent) -> Life {
        Life { mine, seen: [0; 2], opening: p.begins(), fin: [false; 2], reset: false }
    }

    fn note(&mut self, mine: bool, flags: u8) {
        if self.opening && mine == self.mine && self.seen[usize::from(mine)] > 0 {
            self.opening = false;
        }
        self.seen[usize::from(!mine)] = (self.seen[usize::from(!mine)] + 1).min(3);
        self.fin[usize::from(!mine)] |= flags & tcp_flags::FIN != 0;
        self.reset |= flags & tcp_flags::RST != 0;
    }

    fn closing(&self) -> bool {
        self.reset || self.fin == [true; 2]
    }
}

impl Record {
    pub(super) fn closing(&self) -> bool {
        self.life.closing()
    }

    /// Its time is over.
    pub(super) fn over(&self, plan: &Plan, key: &Key, now: Instant) -> bool {
        now.since(self.last) >= self.idle(plan, key)
    }

    fn idle(&self, plan: &Plan, key: &Key) -> Duration {
        let secs = Duration::from_secs;
        let tracking = match plan.enis.get(key.eni as usize).map(|eni| eni.owner) {
            Some(EniOwner::Instance(i, _)) => plan.instances[i].tracking,
            _ => Default::default(),
        };
        let endpoint = plan.enis.get(key.eni as usize).is_some_and(|eni| matches!(eni.owner, EniOwner::Endpoint(_)));
        match key.proto {
            Proto::TCP if self.life.reset => secs(1),
            Proto::TCP if self.life.closing() => secs(10),
            Proto::TCP if self.life.opening => secs(60),
            Proto::TCP if endpoint => plan.limits.endpoint_idle,
            Proto::TCP => tracking.tcp_idle.unwrap_or(plan.limits.sg_tcp_idle),
            // A second answer.
            Proto::UDP if self.life.seen[usize::from(self.life.mine)] > 1 => {
                tracking.udp_stream.unwrap_or(plan.limits.sg_udp_stream)
            }
            Proto::UDP => tracking.udp_idle.unwrap_or(plan.limits.sg_udp_idle),
            Proto::ICMP => secs(30),
            _ => secs(600),
        }
    }
}

/// A connection through a NAT gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) nat: usize,
    pub(super) proto: Proto,
    pub(super) client: (Ipv4Addr, Port),
    /// A ping's remote end has port 0.
    pub(super) remote: (Ipv4Addr, Port),
    /// The gateway's own, towards the remote end.
    pub(super) own: (Ipv4Addr, Port),
    last: Instant,
    fin: [bool; 2],
    reset: bool,
}

impl Binding {
    pub(super) fn new(nat: usize, p: &Sent, own: (Ipv4Addr, Port), now: Instant) -> Binding {
        let remote = (p.dst, if p.proto == Proto::ICMP { 0 } else { p.dst_port });
        let client = (p.src, p.src_port);
        Binding { nat, proto: p.proto, client, remote, own, last: now, fin: [false; 2], reset: false }
    }

    pub(super) fn learn(&mut self, token: Port, port: Port) {
        for end in [&mut self.client, &mut self.remote, &mut self.own] {
            if end.1 == token {
                end.1 = port;
            }
        }
    }

    pub(super) fn closing(&self) -> bool {
        self.reset || self.fin == [true; 2]
    }

    pub(super) fn over(&self, plan: &Plan, now: Instant) -> bool {
        let idle = match self.closing() {
            true if self.reset => Duration::from_secs(1),
            true => Duration::from_secs(10),
            false => plan.limits.nat_idle,
        };
        now.since(self.last) >= idle
    }

    fn is(&self, other: &Binding) -> bool {
        (self.nat, self.proto, self.client, self.remote) == (other.nat, other.proto, other.client, other.remote)
    }
}

impl Oracle {
    /// A packet arrived: both ends and the gateways between remember it.
    pub(super) fn remember(&mut self, plan: &Plan, now: Instant, notes: Notes, sent: &Sent, arrived: &Sent) {
        if sent.quote.is_some() {
            return;
        }
        for (binding, from_client) in notes.bindings {
            let at = self.bindings.iter().position(|b| b.is(&binding));
            // A new one takes the place of one that is over.
            let fresh = at.is_none_or(|at| self.bindings[at].own != binding.own);
            if let (Some(at), true) = (at, fresh) {
                self.bindings.swap_remove(at);
            }
            if fresh {
                self.bindings.push(binding);
            }
            let kept = self.bindings.iter_mut().find(|b| b.is(&binding)).expect("just put");
            kept.last = now;
            kept.fin[usize::from(from_client)] |= sent.flags & tcp_flags::FIN != 0;
            kept.reset |= sent.flags & tcp_flags::RST != 0;
        }
        for &(eni, tracked, receives) in &notes.ends {
            let p = if receives { arrived } else { sent };
            let key = Key::of(eni, p, receives);
            let old = self.records.get(&key).filter(|r| !r.over(plan, &key, now) && !(r.closing() && p.begins()));
            // A reset of nothing begins nothing.
            if old.is_none() && p.flags & tcp_flags::RST != 0 {
                continue;
            }
            let other = notes.ends.iter().find(|end| end.2 != receives).expect("two ends");
            let partner = Key::of(other.0, if other.2 { arrived } else { sent }, other.2);
            let life = Life::new(!receives, p);
            let mut record = old.copied().unwrap_or(Record { tracked, last: now, life, partner });
            record.tracked = tracked;
            record.last = now;
            record.life.note(!receives, p.flags);
            self.records.insert(key, record);
        }
    }

    /// The record of an ENI, if it has not forgotten it.
    pub(super) fn record(&self, plan: &Plan, now: Instant, key: &Key, begins: bool) -> Option<&Record> {
        self.records.get(key).filter(|r| !r.over(plan, key, now) && !(r.closing() && begins))
    }

    /// It had one, and nothing came for too long.
    pub(super) fn forgotten(&self, plan: &Plan, now: Instant, key: &Key) -> Option<&Record> {
        self.records.get(key).filter(|r| !r.closing() && r.over(plan, key, now))
    }

    pub(super) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}
