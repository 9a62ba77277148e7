//! The walk of one packet: its sender, subnets, and who it arrives at.

use super::records::{Binding, Key, Record};
use super::{Oracle, Port, Sent, Stop, TOKENS, lists};
use crate::base::{EniIx, Instant, Proto};
use crate::engine::event::Way;
use crate::engine::verdict::{Crumb, Decider, Direction, DropCode, Outcome, Reaction, Rule, Stage, Verdict};
use crate::model::Plan;
use crate::model::catalogue::PUBLIC_RESOLVER;
use crate::model::latency::{PathKind, one_way};
use crate::model::plan::{EniOwner, Forward, Home, Latency, RouteTarget};
use std::net::Ipv4Addr;
use std::time::Duration;

/// What is remembered of a packet once it has arrived.
#[derive(Default)]
pub(super) struct Notes {
    /// Sender and receiver, and whether they track the connection.
    pub(super) ends: Option<[(EniIx, bool); 2]>,
    /// With whether the packet comes from the client's side.
    pub(super) bindings: Vec<(Binding, bool)>,
}

pub(super) struct Walk<'a> {
    pub(super) oracle: &'a Oracle,
    pub(super) plan: &'a Plan,
    pub(super) now: Instant,
    pub(super) from: EniIx,
    /// As it stands at this point of the way.
    pub(super) p: Sent,
    /// As it was sent; a later fragment with the ports of the first.
    pub(super) start: Sent,
    pub(super) crumbs: Vec<Crumb>,
    pub(super) seen: &'a [Crumb],
    pub(super) fragment: u16,
    /// Of `latency: aws`: the parts of the way add up.
    pub(super) latency: Duration,
    pub(super) way: Way,
    pub(super) tokens: Port,
    pub(super) notes: Notes,
    /// It came by a transit gateway into this VPC.
    pub(super) transit: bool,
    /// The router of the subnet it left last.
    pub(super) router: Ipv4Addr,
    /// It passed a NAT gateway.
    pub(super) by_nat: bool,
    /// It passed the router beyond the Internet gateways.
    pub(super) bordered: bool,
    /// It belongs to a flow whose time is over.
    pub(super) forgotten: bool,
    /// It begins anew a flow that was closing.
    pub(super) replaced: Option<u32>,
    /// Whose route it followed last.
    pub(super) routed: Decider,
    tracked_out: bool,
    pub(super) routes: u32,
}

/// Who sends a packet out of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaver {
    /// The ENI it comes from.
    Sender,
    /// A NAT gateway: towards a remote end.
    Nat(usize),
    /// A NAT gateway on the way back, or a transit gateway's attachment.
    Gateway,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        oracle: &'a Oracle,
        plan: &'a Plan,
        now: Instant,
        from: EniIx,
        p: Sent,
        seen: &'a [Crumb],
    ) -> Walk<'a> {
        Walk {
            oracle,
            plan,
            now,
            from,
            p,
            start: p,
            crumbs: Vec::new(),
            seen,
            fragment: 0,
            latency: Duration::ZERO,
            way: if plan.eni(from).home == Home::Internet && !plan.eni(from).owner.is_door() {
                Way::Internet
            } else {
                Way::Private
            },
            tokens: oracle.tokens.max(TOKENS),
            notes: Notes::default(),
            transit: false,
            router: Ipv4Addr::UNSPECIFIED,
            by_nat: false,
            bordered: false,
            forgotten: false,
            replaced: None,
            routed: Decider::Eni(from),
            tracked_out: false,
            routes: 0,
        }
    }

    pub(super) fn run(&mut self) -> Result<Verdict, Stop> {
        let (plan, from) = (self.plan, self.from);
        let eni = plan.eni(from);
        if let Some(code) = lists::failed(plan, from) {
            return self.stop_at(Stage::Fault, Some(from), code, Decider::Eni(from), Direction::Egress);
        }
        if matches!(eni.owner, EniOwner::Instance(..)) {
            self.admit()?;
            if let Some(verdict) = self.host_service() {
                return verdict;
            }
            self.join_fragments()?;
            self.reserved()?;
        }
        self.look_up();
        self.tracked_out = self.groups(from, Direction::Egress)?;
        match (eni.home, eni.owner) {
            (_, EniOwner::GatewayEndpoint(e)) => {
                self.way = Way::GatewayEndpoint;
                self.pass(Stage::GatewayEndpoint { endpoint: e }, None, Rule::None);
                self.takes(PathKind::GatewayEndpoint);
                match lists::host(plan, plan.endpoints[e].vpc, self.p.dst) {
                    Some(to) => self.arrive(to, None),
                    None => self.nobody(plan.endpoints[e].vpc, Decider::GatewayEndpoint(e)),
                }
            }
            (_, EniOwner::PublicSide) | (Home::Internet, _) => self.internet(),
            (Home::Site(site), _) => self.site(site),
            (Home::Subnet { subnet, .. }, _) => self.leave(subnet, Leaver::Sender),
        }
    }

    /// The source/destination check at the sender, and what no VPC carries.
    fn admit(&mut self) -> Result<(), Stop> {
        let eni = self.plan.eni(self.from);
        let refused = if self.p.dst.is_multicast() {
            Some(DropCode::Multicast)
        } else if self.p.dst == Ipv4Addr::BROADCAST {
            Some(DropCode::Broadcast)
        } else if eni.source_dest_check && self.p.src != eni.ip || self.p.src == self.p.dst {
            Some(DropCode::SrcDstCheck)
        } else if self.p.size > 9_001 {
            Some(DropCode::MtuDropSilent)
        } else {
            None
        };
        match refused {
            Some(code) => {
                let decider = Decider::Eni(self.from);
                self.stop_at(Stage::SourceDestCheck, Some(self.from), code, decider, Direction::Egress)
            }
            None => {
                self.pass(Stage::SourceDestCheck, Some(self.from), Rule::None);
                Ok(())
            }
        }
    }

    /// The resolver, IMDS and addresses of the host where nothing answers. (Rates are not modelled here.)
    fn host_service(&mut self) -> Option<Result<Verdict, Stop>> {
        let (from, p) = (self.from, self.p);
        let whole = p.fragment.is_none();
        let ports = matches!(p.proto, Proto::TCP | Proto::UDP) && whole;
        let query = ports && p.dst_port == 53;
        let nothing = (Stage::Resolver, Err((DropCode::RouterAddr, Decider::Eni(from))));
        let (stage, answer) = match self.plan.vpc_of(from) {
            Some(vpc) => {
                let resolver = p.dst == vpc.resolver() || p.dst == Ipv4Addr::new(169, 254, 169, 253);
                let imds = p.dst == Ipv4Addr::new(169, 254, 169, 254);
                if !resolver && !p.dst.is_link_local() {
                    return None;
                }
                if resolver && query {
                    let answer = if !vpc.dns_support {
                        Err((DropCode::DnsDisabled, Decider::Resolver(from)))
                    } else if !vpc.holds(p.src) {
                        Err((DropCode::DnsNotLocal, Decider::Resolver(from)))
                    } else {
                        Ok(Verdict::Resolver { from })
                    };
                    (Stage::Resolver, answer)
                } else if imds && p.proto == Proto::TCP && ports && p.dst_port == 80 {
                    (Stage::Imds, Ok(Verdict::Imds { from }))
                } else {
                    nothing
                }
            }
            None if p.dst == PUBLIC_RESOLVER && query => (Stage::Resolver, Ok(Verdict::Resolver { from })),
            None if p.dst.is_link_local() || p.dst == PUBLIC_RESOLVER => nothing,
            None => return None,
        };
        Some(match answer {
            Ok(verdict) => {
                self.pass(stage, Some(from), Rule::None);
                Ok(verdict)
            }
            Err((code, decider)) => self.stop_at(stage, Some(from), code, decider, Direction::Egress),
        })
    }

    /// The first four addresses of a subnet, and the last.
    fn reserved(&mut self) -> Result<(), Stop> {
        let Some(vpc) = self.plan.eni(self.from).vpc() else { return Ok(()) };
        for subnet in self.plan.subnets.iter().filter(|s| s.vpc == vpc && s.cidr.contains(self.p.dst)) {
            let code = match self.p.dst.to_bits() - subnet.cidr.network().to_bits() {
                0..=3 => DropCode::RouterAddr,
                _ if self.p.dst == subnet.cidr.last() => DropCode::Broadcast,
                _ => continue,
            };
            return self.stop(Stage::Deliver, code, Decider::Eni(self.from));
        }
        Ok(())
    }

    /// The flow that the packet belongs to, by its sender: one that is over, or that a SYN begins anew, is forgotten at
    /// both its ends.
    fn look_up(&mut self) {
        let key = Key::of(self.from, &self.p, false);
        let known = self.oracle.record(self.plan, self.now, &key);
        self.forgotten = self.oracle.was_idle(self.plan, self.now, &key);
        self.replaced = known.filter(|(_, flow)| flow.closing() && self.p.begins()).map(|(record, _)| record.flow);
    }

    /// That there was a flow and that it was idle is remembered for a while that nobody promises: who is under test may
    /// say so where it is true, and need not.
    pub(super) fn may_say_idle(&self) -> bool {
        use DropCode::{CtIdle, NatIdle, VpceIdle};
        let said = self.seen.last().map(|c| &c.outcome);
        self.seen.is_empty() || matches!(said, Some(Outcome::Drop(CtIdle | NatIdle | VpceIdle)))
    }

    /// The ENI has forgotten what the packet belonged to.
    pub(super) fn was_of(&self, key: &Key) -> bool {
        (self.forgotten || self.oracle.was_idle(self.plan, self.now, key)) && self.may_say_idle()
    }

    /// The record of an ENI, if it has not forgotten it and the packet does not begin it anew.
    pub(super) fn record(&self, key: &Key) -> Option<Record> {
        let (record, _) = self.oracle.record(self.plan, self.now, key)?;
        (self.replaced != Some(record.flow)).then_some(record)
    }

    /// A later fragment goes the way of the first.
    fn join_fragments(&mut self) -> Result<(), Stop> {
        let Some(part) = self.p.fragment.filter(|part| !part.first) else { return Ok(()) };
        let key = (self.from.0, self.p.src, self.p.dst, self.p.proto, part.id);
        match self.oracle.parts.get(&key) {
            Some((first, at)) if self.now.since(*at).as_secs() < 5 => {
                (self.p.src_port, self.p.dst_port) = (first.src_port, first.dst_port);
                (self.p.flags, self.p.icmp) = (first.flags, first.icmp);
                self.start = self.p;
                Ok(())
            }
            _ => Err(Stop {
                code: DropCode::CtNoState,
                decider: Decider::FlowTable,
                direction: Direction::Egress,
                reaction: None,
            }),
        }
    }

    /// Out of a subnet: its network ACL, its route table, and where the route leads.
    pub(super) fn leave(&mut self, s: usize, who: Leaver) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let subnet = &plan.subnets[s];
        let (vpc, t) = (subnet.vpc, subnet.route_table);
        self.router = subnet.router();
        let neighbour = who == Leaver::Sender && subnet.cidr.contains(self.p.dst);
        let route = if neighbour { None } else { lists::best_route(plan, &plan.route_tables[t], self.p.dst) };
        let target =
            if neighbour { Some(RouteTarget::Local) } else { route.map(|at| plan.route_tables[t].routes[at].target) };
        let host = lists::host(plan, vpc, self.p.dst);
        let inside = match target {
            Some(RouteTarget::Local) if neighbour => true,
            Some(RouteTarget::Local) => host.is_some_and(|to| plan.eni(to).subnet() == Some(s)),
            Some(RouteTarget::Eni(to)) => plan.eni(to).subnet() == Some(s),
            Some(RouteTarget::Nat(n)) => plan.nat_gateways[n].subnet == s,
            _ => false,
        };
        let decider = if neighbour { Decider::Eni(self.from) } else { Decider::RouteTable(t, route) };
        let stage = Stage::Route { table: t };
        self.not_for_ever()?;
        self.nacl(s, Direction::Egress, inside)?;
        match (target, who) {
            (None, Leaver::Nat(n)) if plan.nat_gateways[n].public => {
                return self.stop(stage, DropCode::NatNoIgw, decider);
            }
            (Some(RouteTarget::Nat(_)), Leaver::Nat(_)) => return self.stop(stage, DropCode::NatNoIgw, decider),
            (None, _) => return self.stop(stage, DropCode::RtNoRoute, decider),
            (Some(RouteTarget::Blackhole), _) => return self.stop(stage, DropCode::RtBlackhole, decider),
            _ if neighbour => self.crumbs.push(Crumb { stage, eni: None, outcome: Outcome::NotAsked }),
            _ => self.pass(stage, None, Rule::Route(route.expect("a target has a route"))),
        }
        self.routed = decider;
        let left = inside.then_some(s);
        match target.expect("a target") {
            RouteTarget::Blackhole => unreachable!("refused above"),
            RouteTarget::Local => match host {
                Some(to) => self.arrive(to, left),
                None => self.nobody(vpc, decider).map_err(|stop| {
                    // Who asks for a neighbour that is not there gets no answer to ARP.
                    let own = neighbour && stop.code == DropCode::NoEni && plan.eni(self.from).ip == self.p.src;
                    let from = plan.subnets[s].router();
                    Stop { reaction: own.then_some(Reaction::HostUnreachable { from }), ..stop }
                }),
            },
            RouteTarget::Eni(to) => self.arrive(to, left),
            RouteTarget::Igw(g) => self.igw_out(g, who),
            RouteTarget::Nat(n) => self.nat_in(n, inside),
            RouteTarget::Peering(c) => self.peering(c, vpc),
            RouteTarget::Tgw(t) => self.tgw(t, s),
            RouteTarget::Vgw(v) => self.vgw_out(v),
            RouteTarget::GatewayEndpoint(e) => self.gateway_endpoint(e, who),
        }
    }

    /// One route more is followed; from gateway to gateway, not for ever.
    pub(super) fn not_for_ever(&mut self) -> Result<(), Stop> {
        self.routes += 1;
        if self.routes <= 48 {
            return Ok(());
        }
        let (code, direction) = (DropCode::RouteLoop, Direction::Egress);
        Err(Stop { code, decider: self.routed, direction, reaction: None })
    }

    /// A subnet's network ACL, which what stays inside does not meet.
    pub(super) fn nacl(&mut self, s: usize, direction: Direction, inside: bool) -> Result<(), Stop> {
        let nacl = self.plan.subnets[s].nacl;
        let list = &self.plan.network_acls[nacl];
        let (stage, rules, peer, code) = match direction {
            Direction::Egress => (Stage::NaclOut { nacl }, &list.egress, self.p.dst, DropCode::NaclOut),
            Direction::Ingress => (Stage::NaclIn { nacl }, &list.ingress, self.p.src, DropCode::NaclIn),
        };
        if inside {
            self.crumbs.push(Crumb { stage, eni: None, outcome: Outcome::NotAsked });
            return Ok(());
        }
        let (allow, number) = lists::first_rule(rules, &self.p, peer);
        if allow {
            self.pass(stage, None, Rule::Nacl(number));
            return Ok(());
        }
        self.stop_at(stage, None, code, Decider::Nacl(nacl, number), direction)
    }

    /// At an ENI; `left`: the subnet it left last, if it stays inside.
    pub(super) fn arrive(&mut self, to: EniIx, left: Option<usize>) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let eni = plan.eni(to);
        let ingress = Direction::Ingress;
        if let Some(subnet) = eni.subnet() {
            self.nacl(subnet, ingress, left == Some(subnet))?;
        }
        if let Some(code) = lists::failed(plan, to) {
            let at = match eni.owner {
                EniOwner::Endpoint(_) => Decider::EndpointEni(to),
                EniOwner::NatGateway(n) => Decider::Nat(n),
                _ => Decider::Eni(to),
            };
            return self.stop_at(Stage::Fault, Some(to), code, at, ingress);
        }
        match eni.owner {
            EniOwner::NatGateway(n) => return self.nat_back(n),
            EniOwner::TgwAttachment(_) => {
                return self.stop_at(Stage::Deliver, Some(to), DropCode::RouterAddr, Decider::Eni(to), ingress);
            }
            _ => {}
        }
        let endpoint = matches!(eni.owner, EniOwner::Endpoint(_));
        if !eni.owner.is_door() && (eni.source_dest_check || endpoint) && eni.ip != self.p.dst {
            let code = DropCode::SrcDstCheck;
            return self.stop_at(Stage::SourceDestCheck, Some(to), code, Decider::Eni(to), ingress);
        }
        self.firewall(to)?;
        self.ends_tcp(to)?;
        let tracked_in = self.groups(to, ingress)?;
        let zones = [self.from, to].map(|eni| plan.eni(eni).subnet().map(|s| &plan.subnets[s].az_id));
        match zones {
            [Some(a), Some(b)] if a == b => self.takes(PathKind::SameZone),
            [Some(_), Some(_)] => self.takes(PathKind::CrossZone),
            _ => {}
        }
        if [self.from, to].iter().any(|eni| matches!(plan.eni(*eni).owner, EniOwner::Endpoint(_))) {
            self.takes(PathKind::InterfaceEndpoint);
        }
        self.pass(Stage::Deliver, Some(to), Rule::None);
        // NAT gateways, and private endpoints at either end: always tracked.
        let always = self.by_nat || endpoint || matches!(plan.eni(self.from).owner, EniOwner::Endpoint(_));
        self.notes.ends = Some([(self.from, self.tracked_out || always), (to, tracked_in || always)]);
        if matches!(eni.owner, EniOwner::GatewayEndpoint(_)) {
            self.way = Way::GatewayEndpoint;
        }
        let ends = !matches!(eni.owner, EniOwner::Instance(..));
        Ok(if ends { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } })
    }

    /// A stateful firewall passes on only what belongs to what it saw begin.
    fn firewall(&mut self, to: EniIx) -> Result<(), Stop> {
        let EniOwner::Instance(i, _) = self.plan.eni(to).owner else { return Ok(()) };
        if self.plan.instances[i].forward != Some(Forward::Stateful)
            || self.plan.eni(to).ip == self.p.dst
            || self.p.proto != Proto::TCP
            || self.p.begins()
        {
            return Ok(());
        }
        let key = Key::of(to, &self.p, true);
        let known = [key, key.reversed()].iter().any(|k| self.record(k).is_some());
        if known {
            return Ok(());
        }
        self.stop_at(Stage::Tracked, Some(to), DropCode::FwNoState, Decider::Eni(to), Direction::Ingress)
    }

    /// What interface endpoints and doors take.
    fn ends_tcp(&mut self, to: EniIx) -> Result<(), Stop> {
        let (plan, p) = (self.plan, self.p);
        let at = Decider::EndpointEni(to);
        let tcp = p.proto == Proto::TCP;
        let open = |ports: &[u16]| u16::try_from(p.dst_port).is_ok_and(|port| ports.contains(&port));
        let (serves, carries, proto, port) = match plan.eni(to).owner {
            EniOwner::Instance(..) | EniOwner::NatGateway(_) | EniOwner::TgwAttachment(_) => return Ok(()),
            EniOwner::Endpoint(e) => (
                open(&plan.services[plan.endpoints[e].service].ports),
                tcp && p.fragment.is_none(),
                (DropCode::VpceProto, at),
                (DropCode::VpcePort, at),
            ),
            EniOwner::GatewayEndpoint(e) => {
                let by = Decider::GatewayEndpoint(e);
                let serves = open(&plan.services[plan.endpoints[e].service].ports) || open(&[80]);
                let carries = (tcp || p.is_echo()) && p.fragment.is_none();
                (serves, carries, (DropCode::GweProto, by), (DropCode::VpcePort, by))
            }
            EniOwner::PublicSide => {
                let by = Decider::Internet;
                // Public hosts answer plain HTTP as well.
                let own = self.plan.public_blocks.service_at(p.dst).is_some_and(|(service, _)| open(service.ports));
                let carries = (tcp || p.is_echo()) && p.fragment.is_none();
                (own || open(&[80, 443]), carries, (DropCode::PublicPort, by), (DropCode::PublicPort, by))
            }
        };
        let endpoint = matches!(plan.eni(to).owner, EniOwner::Endpoint(_));
        let key = Key::of(to, &p, true);
        let known = self.record(&key).is_some();
        let refused = if !carries {
            Some(proto)
        } else if tcp && !known && !serves {
            Some(port)
        } else if tcp && !known && !p.begins() {
            Some((if self.was_of(&key) { DropCode::VpceIdle } else { DropCode::VpceNoState }, at))
        } else {
            (endpoint && p.size > 8_500).then_some((DropCode::MtuDropSilent, at))
        };
        match refused {
            Some((code, decider)) => self.stop_at(Stage::Endpoint, Some(to), code, decider, Direction::Ingress),
            None => {
                self.pass(Stage::Endpoint, Some(to), Rule::None);
                Ok(())
            }
        }
    }

    /// An address of a VPC that no ENI has; its resolver answers nobody from outside.
    pub(super) fn nobody<T>(&mut self, vpc: usize, by: Decider) -> Result<T, Stop> {
        let resolver = self.p.dst == self.plan.vpcs[vpc].resolver();
        self.stop(Stage::Deliver, if resolver { DropCode::DnsNotLocal } else { DropCode::NoEni }, by)
    }

    /// Too large for a hop: with DF the sender is told, without it is cut further on.
    pub(super) fn fits(
        &mut self,
        mtu: u16,
        router: Ipv4Addr,
        stage: Stage,
        eni: Option<EniIx>,
        by: Decider,
        tells: bool,
    ) -> Result<(), Stop> {
        if self.p.size <= mtu {
            return Ok(());
        }
        if !self.p.df && tells {
            if self.fragment == 0 || mtu < self.fragment {
                self.fragment = mtu;
            }
            return Ok(());
        }
        let (code, reaction) = if tells {
            (
                DropCode::MtuFragNeeded,
                Some(Reaction::FragNeeded { from: router, mtu, hops: self.start.ttl - self.p.ttl }),
            )
        } else {
            (DropCode::MtuDropSilent, None)
        };
        self.crumbs.push(Crumb { stage, eni, outcome: Outcome::Drop(code) });
        Err(Stop { code, decider: by, direction: Direction::Egress, reaction })
    }

    pub(super) fn takes(&mut self, part: PathKind) {
        if self.plan.latency == Latency::Aws {
            self.latency += one_way(part);
        }
    }

    pub(super) fn clamp(&mut self, mss: u16) {
        self.p.mss = self.p.mss.map(|own| own.min(mss));
    }

    pub(super) fn pass(&mut self, stage: Stage, eni: Option<EniIx>, rule: Rule) {
        self.crumbs.push(Crumb { stage, eni, outcome: Outcome::Pass(rule) });
    }

    /// Refused by somebody on the way out.
    pub(super) fn stop<T>(&mut self, stage: Stage, code: DropCode, decider: Decider) -> Result<T, Stop> {
        self.stop_at(stage, None, code, decider, Direction::Egress)
    }

    pub(super) fn stop_at<T>(
        &mut self,
        stage: Stage,
        eni: Option<EniIx>,
        code: DropCode,
        decider: Decider,
        direction: Direction,
    ) -> Result<T, Stop> {
        self.crumbs.push(Crumb { stage, eni, outcome: Outcome::Drop(code) });
        Err(Stop { code, decider, direction, reaction: None })
    }
}
