//! What changes addresses and ports on the way: NAT gateways and NAT instances.

use std::net::Ipv4Addr;

use super::super::decide::{Trail, crumb, outcome};
use super::super::flow::Binding;
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
        // A flow has room for one port: that of a gateway before this one goes back.
        if let Some(first) = self.found.binding.take().filter(|_| self.found.fresh) {
            self.nat.release(first.held);
            self.found.fresh = false;
        }
        let answer = self.translate(nat, at);
        let rule = |binding: Binding| Rule::Source(binding.address.into());
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(rule))));
        let binding = answer?;
        self.set_src(binding.address, Some(binding.held.port));
        self.found.binding = Some(binding);
        self.found.passage.ttl += 1;
        self.clamp(TRANSIT_MTU - HEADERS);
        self.by_nat = true;
        self.transit = false;
        self.left_nat = Some(nat);
        self.found.passage.latency_us += program.latency.nat;
        Ok(Place::Leave { subnet: gateway.subnet, gateway: true })
    }

    /// VPC User Guide, "NAT gateways": TCP, UDP and ICMP; UDP's fragments only; 350 idle seconds.
    fn translate(&mut self, nat: u32, at: Decider) -> Result<Binding, Refusal> {
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
        let port = self.ports[gateway.eni.at()];
        if let Some(binding) = self.known.binding.filter(|b| b.nat == port && self.known.client.is_none()) {
            return Ok(binding);
        }
        // ICMP errors about a packet that came in by the gateway.
        if self.known.related
            && let Some(binding) = self.known.binding.filter(|b| b.nat == port)
        {
            return Ok(binding);
        }
        let begins = match proto {
            Proto::TCP => self.load.syn,
            Proto::ICMP => self.load.icmp == Some(8),
            _ => true,
        };
        if !begins {
            return Err(if self.known.forgotten && proto == Proto::TCP {
                refuse(DropCode::NatIdle).answered(Reaction::Reset)
            } else {
                refuse(DropCode::NatNoState)
            });
        }
        let src = (self.traffic.src, self.tuple.src_port);
        let dst = (self.traffic.dst, self.tuple.dst_port);
        let taken = self.nat.allocate(port, &gateway.addresses, proto, src, dst);
        let binding = Binding::new(port, taken.ok_or(refuse(DropCode::NatNoPort))?);
        self.found.fresh = true;
        self.found.binding = Some(binding);
        Ok(binding)
    }

    /// A NAT instance: its kernel forwards, and what it forwards goes on under its own address. The translation is the
    /// engine's, so that no tool is needed in the instance; its own captures show the packets before it.
    pub(super) fn masquerade(&mut self, own: u32) -> Result<(), Refusal> {
        let at = Decider::Eni(self.from);
        let port = self.ports[self.from.at()];
        let taken = match self.known.binding.filter(|b| b.nat == port) {
            Some(binding) => Ok(binding),
            None => {
                let src = (self.traffic.src, self.tuple.src_port);
                let dst = (self.traffic.dst, self.tuple.dst_port);
                let taken = self.nat.allocate(port, &[own], self.traffic.proto, src, dst);
                self.found.fresh = taken.is_some();
                let taken = taken.map(|taken| Binding::new(port, taken));
                taken.ok_or(Refusal::egress(DropCode::NatNoPort, at))
            }
        };
        let rule = |binding: Binding| Rule::Source(binding.address.into());
        self.trail.add(|| crumb(Stage::Masquerade, Some(self.from), outcome(taken.map(rule))));
        let binding = taken?;
        self.found.binding = Some(binding);
        self.set_src(binding.address, Some(binding.held.port));
        Ok(())
    }

    /// What comes to a NAT gateway's address: an answer for a client behind it, or nothing that it takes.
    pub(super) fn nat_back(&mut self, nat: u32) -> Next {
        let gateway = &self.program.gateways.nats[nat as usize];
        let at = Decider::Nat(nat as usize);
        let refuse = |code| Refusal::ingress(code, at);
        let port = self.ports[gateway.eni.at()];
        let own_port = |b: &Binding| !self.has_ports() || b.held.port == self.tuple.dst_port;
        let binding = self.known.binding.filter(|b| b.nat == port && b.address == self.traffic.dst && own_port(b));
        let answer = match (binding, self.known.client) {
            (Some(_), Some(_)) if self.load.ttl <= self.found.passage.ttl + 1 => Err(refuse(DropCode::TtlExpired)),
            (Some(_), Some(_)) if self.load.fragment && self.traffic.proto != Proto::UDP => {
                Err(refuse(DropCode::NatFragment))
            }
            (Some(binding), Some(client)) => Ok((binding, client)),
            _ if self.known.forgotten => Err(refuse(DropCode::NatIdle)),
            _ => Err(refuse(DropCode::NatNoState)),
        };
        let rule = |(_, client): (Binding, (u32, u16))| Rule::Destination(client.0.into());
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(rule))));
        let (binding, (addr, client_port)) = answer?;
        self.set_dst(addr, Some(client_port));
        self.found.binding = Some(binding);
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
