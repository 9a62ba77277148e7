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
    pub(super) flow: u32,
}

/// A connection, by who began it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    initiator: Key,
    /// The other end, when it began.
    target: Key,
    last: Instant,
    /// Packets of the initiator, of the other; up to 3.
    seen: [u8; 2],
    /// It began with a SYN, and the initiator has not gone on after an answer.
    opening: bool,
    fin: [bool; 2],
    /// Before both had sent FIN.
    reset: bool,
}

impl Flow {
    fn new(initiator: Key, target: Key, p: &Sent, now: Instant) -> Flow {
        Flow { initiator, target, last: now, seen: [0; 2], opening: p.begins(), fin: [false; 2], reset: false }
    }

    /// A packet from one side: 0 for who began it.
    fn note(&mut self, now: Instant, side: usize, flags: u8) {
        self.opening &= side == 1 || self.seen[1] == 0 || flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
        self.seen[side] = (self.seen[side] + 1).min(3);
        self.reset |= flags & tcp_flags::RST != 0 && !self.closing();
        self.fin[side] |= flags & tcp_flags::FIN != 0;
        self.last = now;
    }

    pub(super) fn learn(&mut self, token: Port, port: Port) {
        for end in [&mut self.initiator, &mut self.target] {
            *end = end.learned(token, port);
        }
    }

    pub(super) fn closing(&self) -> bool {
        self.reset || self.fin == [true; 2]
    }

    /// Its time is over, as the ENI of `key` counts.
    fn over(&self, plan: &Plan, key: &Key, now: Instant) -> bool {
        now.since(self.last) >= self.idle(plan, key)
    }

    fn idle(&self, plan: &Plan, key: &Key) -> Duration {
        let secs = Duration::from_secs;
        let owner = plan.enis.get(key.eni as usize).map(|eni| eni.owner);
        let tracking = match owner {
            Some(EniOwner::Instance(i, _)) => plan.instances[i].tracking,
            _ => Default::default(),
        };
        match key.proto {
            Proto::TCP if self.reset => secs(2),
            Proto::TCP if self.closing() => secs(10),
            Proto::TCP if self.opening => secs(60),
            Proto::TCP if matches!(owner, Some(EniOwner::Endpoint(_))) => plan.limits.endpoint_idle,
            Proto::TCP => tracking.tcp_idle.unwrap_or(plan.limits.sg_tcp_idle),
            // More than one exchange.
            Proto::UDP if self.seen[0] > 1 && self.seen[1] > 1 => {
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
    /// Of the client, of the remote end.
    fin: [bool; 2],
    reset: bool,
}

impl Binding {
    pub(super) fn new(nat: usize, p: &Sent, own: (Ipv4Addr, Port), now: Instant) -> Binding {
        let remote = (p.dst, if p.proto == Proto::ICMP { 0 } else { p.dst_port });
        let client = (p.src, p.src_port);
        Binding { nat, proto: p.proto, client, remote, own, last: now, fin: [false; 2], reset: false }
    }

    pub(super) fn closing(&self) -> bool {
        self.reset || self.fin == [true; 2]
    }

    /// A packet went on by it.
    fn note(&mut self, now: Instant, from_client: bool, flags: u8) {
        self.reset |= flags & tcp_flags::RST != 0 && !self.closing();
        self.fin[usize::from(!from_client)] |= flags & tcp_flags::FIN != 0;
        self.last = now;
    }

    /// The gateway has forgotten it; if so, whether by idleness.
    pub(super) fn over(&self, plan: &Plan, now: Instant) -> Option<bool> {
        let secs = Duration::from_secs;
        let life = match () {
            () if self.reset => secs(2).min(plan.limits.nat_idle),
            () if self.closing() => secs(10).min(plan.limits.nat_idle),
            () => plan.limits.nat_idle,
        };
        (now.since(self.last) >= life).then_some(!self.closing())
    }

    pub(super) fn learn(&mut self, token: Port, port: Port) {
        for end in [&mut self.client, &mut self.remote, &mut self.own] {
            if end.1 == token {
                end.1 = port;
            }
        }
    }

    fn is(&self, other: &Binding) -> bool {
        (self.nat, self.proto, self.client, self.remote) == (other.nat, other.proto, other.client, other.remote)
    }
}

impl Oracle {
    /// A packet arrived: both ends and the gateways between remember it.
    pub(super) fn remember(&mut self, plan: &Plan, now: Instant, notes: Notes, sent: &Sent, arrived: &Sent) {
        let Some([(from, tracked_out), (to, tracked_in)]) = notes.ends.filter(|_| sent.quote.is_none()) else { return };
        for (mut binding, from_client) in notes.bindings {
            binding.note(now, from_client, sent.flags);
            self.bindings.retain(|b| !b.is(&binding));
            self.bindings.push(binding);
        }
        let (mine, theirs) = (Key::of(from, sent, false), Key::of(to, arrived, true));
        let flow = match self.record(plan, now, &mine) {
            Some((record, _)) => record.flow,
            // A reset of nothing begins nothing; what the receiver knows, it ends.
            None if sent.flags & tcp_flags::RST != 0 => {
                if let Some((record, _)) = self.record(plan, now, &theirs) {
                    self.records.insert(theirs, Record { tracked: tracked_in, ..record });
                    let other = self.flows.get_mut(&record.flow).expect("it is there");
                    other.note(now, usize::from(other.initiator == theirs), sent.flags);
                }
                return;
            }
            None => {
                if let Some(old) = self.records.get(&mine).map(|record| record.flow) {
                    // It ended by idleness, or it would have been known.
                    self.graves.extend(self.records.iter().filter(|(_, r)| r.flow == old).map(|(key, _)| *key));
                    self.end(old);
                }
                self.begin(Flow::new(mine, theirs, sent, now))
            }
        };
        self.graves.remove(&mine);
        self.graves.remove(&theirs);
        self.records.insert(mine, Record { tracked: tracked_out, flow });
        // What the receiver knows may be of another connection: there one way, and back another.
        let ends = self.flows.get(&flow).map(|f| [f.initiator, f.target]).expect("it is there");
        let own = match self.record(plan, now, &theirs) {
            Some((record, _)) => record.flow,
            None if ends.contains(&theirs) => flow,
            None => self.begin(Flow::new(mine, theirs, sent, now)),
        };
        self.records.insert(theirs, Record { tracked: tracked_in, flow: own });
        if own != flow {
            // Whoever sent it: to the receiver it is a packet of the other side.
            let other = self.flows.get_mut(&own).expect("it is there");
            other.note(now, usize::from(other.initiator == theirs), sent.flags);
        }
        let sender = self.flows.get_mut(&flow).expect("it is there");
        sender.note(now, usize::from(sender.initiator != mine), sent.flags);
    }

    /// An ENI gets a reset for what it knows by this key.
    pub(super) fn reset(&mut self, plan: &Plan, now: Instant, key: &Key) {
        if let Some((record, flow)) = self.record(plan, now, key) {
            let side = usize::from(flow.initiator == *key);
            self.flows.get_mut(&record.flow).expect("it is there").note(now, side, tcp_flags::RST);
        }
    }

    fn begin(&mut self, flow: Flow) -> u32 {
        self.next_flow += 1;
        self.flows.insert(self.next_flow, flow);
        self.next_flow
    }

    /// A flow and all that is known of it.
    pub(super) fn end(&mut self, flow: u32) {
        self.flows.remove(&flow);
        self.records.retain(|_, record| record.flow != flow);
    }

    /// What an ENI knows, if it has not forgotten it.
    pub(super) fn record(&self, plan: &Plan, now: Instant, key: &Key) -> Option<(Record, Flow)> {
        self.known(key).filter(|(_, flow)| !flow.over(plan, key, now))
    }

    /// What an ENI knew, if nothing came for too long.
    pub(super) fn forgotten(&self, plan: &Plan, now: Instant, key: &Key) -> Option<u32> {
        self.known(key).filter(|(_, f)| !f.closing() && f.over(plan, key, now)).map(|(record, _)| record.flow)
    }

    /// It had something that was idle for too long, now or before.
    pub(super) fn was_idle(&self, plan: &Plan, now: Instant, key: &Key) -> bool {
        self.graves.contains(key) || self.forgotten(plan, now, key).is_some()
    }

    pub(super) fn known(&self, key: &Key) -> Option<(Record, Flow)> {
        let record = self.records.get(key)?;
        Some((*record, *self.flows.get(&record.flow)?))
    }

    pub(super) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}
