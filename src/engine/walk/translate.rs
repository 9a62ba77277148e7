//! What changes addresses and ports on the way: NAT gateways and NAT instances.

use std::net::Ipv4Addr;

use super::super::bindings::{Bound, Found};
use super::super::decide::{Trail, crumb, outcome};
use super::super::flow::FlowKey;
use super::super::steps::Refusal;
use super::super::verdict::{Decider, DropCode, Outcome, Reaction, Rule, Stage};
use super::{HEADERS, Next, Place, TRANSIT_MTU, Walk};
use crate::base::Proto;

impl<T: Trail> Walk<'_, T> {
    /// Into a NAT gateway: the packet goes on with the gateway's private address and a port of its own.
    pub(super) fn nat_in(&mut self, nat: u32, left: u32) -> Next {
        let program = self.program;
        let gateway = &program.gateways.nats[nat as usize];
        let subnet = program.subnet(gateway.subnet);
        self.nacl_in(gateway.subnet, Some(left))?;
        let at = Decider::Nat(nat as usize);
        if subnet.down {
            self.trail.add(|| crumb(Stage::Fault, Some(gateway.eni), Outcome::Drop(DropCode::AzDown)));
            return Err(Refusal::egress(DropCode::AzDown, at));
        }
        let answer = self.translate(nat, at);
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(source))));
        let bound = answer?;
        self.set_src(bound.address, Some(bound.held.port));
        self.books.passed.push(bound);
        self.found.passage.ttl += 1;
        self.clamp(TRANSIT_MTU - HEADERS);
        self.by_nat = true;
        self.transit = false;
        self.left_nat = Some(nat);
        self.found.passage.latency_us += program.latency.nat;
        Ok(Place::Leave { subnet: gateway.subnet, gateway: true })
    }

    /// VPC User Guide, "NAT gateways": TCP, UDP and ICMP; UDP's fragments only; 350 idle seconds.
    fn translate(&mut self, nat: u32, at: Decider) -> Result<Bound, Refusal> {
        let gateway = &self.program.gateways.nats[nat as usize];
        let proto = self.traffic.proto;
        let refuse = |code| Refusal::egress(code, at);
        if !matches!(proto, Proto::TCP | Proto::UDP | Proto::ICMP) {
            return Err(refuse(DropCode::NatProto));
        }
        if self.load.fragment && proto != Proto::UDP {
            return Err(refuse(DropCode::NatFragment));
        }
        let private = Ipv4Addr::from_bits(gateway.addresses.first().copied().unwrap_or_default());
        self.limit(TRANSIT_MTU, private, at)?;
        if self.load.ttl <= self.found.passage.ttl + 1 {
            let reaction = Reaction::TimeExceeded { from: private };
            return Err(refuse(DropCode::TtlExpired).answered(reaction));
        }
        let key = self.key_at(self.books.ports[gateway.eni.at()]);
        let found = self.books.out(key, self.load.syn);
        if let Found::Bound(bound) = found {
            return Ok(bound);
        }
        let begins = match proto {
            Proto::TCP => self.load.syn,
            Proto::ICMP => self.load.icmp == Some(8),
            _ => true,
        };
        if !begins {
            return Err(if matches!(found, Found::Forgotten) && proto == Proto::TCP {
                refuse(DropCode::NatIdle).answered(Reaction::Reset)
            } else {
                refuse(DropCode::NatNoState)
            });
        }
        self.books.take(key, &gateway.addresses, true).ok_or(refuse(DropCode::NatNoPort))
    }

    /// What finds a gateway's binding: the packet's tuple, or for an ICMP error that of the packet it is about turned
    /// round (RFC 5508, 4.2).
    fn key_at(&self, nat: u32) -> FlowKey {
        match self.found.quoted {
            Some((tuple, icmp)) => FlowKey::of_tuple(nat, &tuple, icmp).mirrored(nat),
            None => FlowKey::of_tuple(nat, &self.tuple, self.load.icmp),
        }
    }

    /// A NAT instance: its kernel forwards, and what it forwards goes on under its own address. The translation is the
    /// engine's, so that no tool is needed in the instance; its own captures show the packets before it.
    pub(super) fn masquerade(&mut self, own: u32) -> Result<(), Refusal> {
        let at = Decider::Eni(self.from);
        let port = self.books.ports[self.from.at()];
        let taken = match self.books.masqueraded(port, false) {
            Some(bound) => Ok(bound),
            None => self.books.take(self.key_at(port), &[own], false).ok_or(Refusal::egress(DropCode::NatNoPort, at)),
        };
        self.trail.add(|| crumb(Stage::Masquerade, Some(self.from), outcome(taken.map(source))));
        let bound = taken?;
        self.set_src(bound.address, Some(bound.held.port));
        self.books.passed.push(bound);
        Ok(())
    }

    /// What comes to a NAT gateway's address: an answer for a client behind it, or nothing that it takes.
    pub(super) fn nat_back(&mut self, nat: u32) -> Next {
        let gateway = &self.program.gateways.nats[nat as usize];
        let at = Decider::Nat(nat as usize);
        let refuse = |code| Refusal::ingress(code, at);
        let key = self.key_at(self.books.ports[gateway.eni.at()]);
        let answer = match self.books.back(key, self.load.syn) {
            Found::Bound(_) if self.load.ttl <= self.found.passage.ttl + 1 => Err(refuse(DropCode::TtlExpired)),
            Found::Bound(_) if self.load.fragment && self.traffic.proto != Proto::UDP => {
                Err(refuse(DropCode::NatFragment))
            }
            Found::Bound(bound) => Ok(bound),
            Found::Forgotten => Err(refuse(DropCode::NatIdle)),
            Found::Nothing => Err(refuse(DropCode::NatNoState)),
        };
        let rule = |bound: Bound| Rule::Destination(bound.key.src.into());
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(rule))));
        let bound = answer?;
        self.set_dst(bound.key.src, Some(bound.key.src_port));
        self.books.passed.push(bound);
        self.found.passage.ttl += 1;
        self.found.passage.latency_us += self.program.latency.nat;
        self.clamp(TRANSIT_MTU - HEADERS);
        self.by_nat = true;
        self.transit = false;
        Ok(Place::Leave { subnet: gateway.subnet, gateway: true })
    }

    /// The source becomes another, and with it the destination of what an ICMP error quotes (RFC 5508, 4.2). A gateway
    /// without ports leaves a quote alone that speaks of another address.
    pub(super) fn set_src(&mut self, addr: u32, port: Option<u16>) {
        if let Some((quoted, icmp)) = &mut self.found.quoted
            && (port.is_some() || quoted.dst == self.tuple.src)
        {
            quoted.dst = addr.into();
            quoted.dst_port = port.unwrap_or(quoted.dst_port);
            if icmp.is_some() {
                quoted.src_port = quoted.dst_port;
            }
        }
        self.traffic.src = addr;
        self.tuple.src = addr.into();
        if let Some(port) = port.filter(|_| self.has_ports()) {
            self.tuple.src_port = port;
            if self.traffic.proto == Proto::ICMP {
                self.tuple.dst_port = port;
            }
        }
    }

    pub(super) fn set_dst(&mut self, addr: u32, port: Option<u16>) {
        if let Some((quoted, icmp)) = &mut self.found.quoted
            && (port.is_some() || quoted.src == self.tuple.dst)
        {
            quoted.src = addr.into();
            quoted.src_port = port.unwrap_or(quoted.src_port);
            if icmp.is_some() {
                quoted.dst_port = quoted.src_port;
            }
        }
        self.traffic.dst = addr;
        self.tuple.dst = addr.into();
        if let Some(port) = port.filter(|_| self.has_ports()) {
            self.tuple.dst_port = port;
            match self.traffic.proto {
                Proto::ICMP => self.tuple.src_port = port,
                _ => self.traffic.selector = port,
            }
        }
    }

    /// ICMP errors have no identifier of their own.
    pub(super) fn has_ports(&self) -> bool {
        match self.traffic.proto {
            Proto::TCP | Proto::UDP => true,
            Proto::ICMP => matches!(self.load.icmp, Some(0 | 8)),
            _ => false,
        }
    }
}

fn source(bound: Bound) -> Rule {
    Rule::Source(bound.address.into())
}
