//! Gateways between networks, each by the guide of its own.

use std::net::Ipv4Addr;

use super::records::Binding;
use super::walk::{Leaver, Walk};
use super::{Port, Sent, Stop, TOKENS, lists};
use crate::base::{EniIx, FiveTuple, Proto, steer::steer};
use crate::engine::event::Way;
use crate::engine::verdict::{Crumb, Decider, Direction, DropCode, Outcome, Reaction, Rule, Stage, Verdict};
use crate::model::latency::{PathKind, between_regions};
use crate::model::plan::{
    AttachmentTo, EndpointKind, EniOwner, Fault, Home, Latency, LinkEnd, LinkKind, RouteTarget, SiteTarget, TgwTarget,
    TunnelPlan,
};

impl Walk<'_> {
    pub(super) fn igw_out(&mut self, g: usize, who: Leaver) -> Result<Verdict, Stop> {
        let (plan, stage, by) = (self.plan, Stage::Igw { igw: g }, Decider::Igw(g));
        if lists::is_private(self.p.dst) {
            return self.stop(stage, DropCode::IgwPrivateDst, by);
        }
        let vpc = plan.internet_gateways[g].vpc;
        let here = |eni: EniIx| plan.eni(eni).vpc() == Some(vpc);
        let mapped = plan.public_addresses.iter().find(|a| a.private == self.p.src && here(a.eni));
        let Some(public) = mapped.map(|a| a.addr) else {
            return match who {
                Leaver::Nat(n) => self.stop(stage, DropCode::NatNoIgw, Decider::Nat(n)),
                _ => self.stop(stage, DropCode::IgwNoPublicIp, by),
            };
        };
        self.fits(1_500, self.router, stage.clone(), None, by, true)?;
        self.pass(stage, None, Rule::Source(public));
        self.source_becomes(public, None);
        self.way = if self.by_nat { Way::Nat } else { Way::Internet };
        self.border(vpc)?;
        self.internet()
    }

    /// Between Internet gateways and the Internet stands a router of AWS's.
    fn border(&mut self, vpc: usize) -> Result<(), Stop> {
        if self.p.ttl <= 1 {
            let from = crate::model::catalogue::border_router(&self.plan.vpcs[vpc].region);
            self.crumbs.push(Crumb { stage: Stage::Internet, eni: None, outcome: Outcome::Drop(DropCode::TtlExpired) });
            return Err(Stop {
                code: DropCode::TtlExpired,
                decider: Decider::Internet,
                direction: Direction::Egress,
                reaction: Some(Reaction::TimeExceeded { from }),
            });
        }
        self.p.ttl -= 1;
        self.bordered = true;
        Ok(())
    }

    /// Whoever has a public address: an ENI behind an Internet gateway, a host, or AWS.
    pub(super) fn internet(&mut self) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let stage = Stage::Internet;
        let dst = self.p.dst;
        let outside = |e: &crate::model::plan::EniPlan| e.home == Home::Internet && !e.owner.is_door();
        let theirs = outside(plan.eni(self.from)) || plan.enis.iter().any(|e| outside(e) && e.ip == dst);
        self.takes(if theirs { PathKind::Internet } else { PathKind::Public });
        if let Some(public) = plan.public_addresses.iter().find(|a| a.addr == dst) {
            self.pass(stage, None, Rule::None);
            // Once, from one VPC to another or to itself.
            if let (Some(vpc), false) = (plan.eni(public.eni).vpc(), self.bordered) {
                self.border(vpc)?;
            }
            return self.igw_in(public.eni, public.private);
        }
        if let Some(at) = plan.enis.iter().position(|e| outside(e) && e.ip == dst) {
            self.pass(stage, None, Rule::None);
            return self.arrive(EniIx(at as u32), None);
        }
        match plan.public_side.filter(|_| plan.public_blocks.service_at(dst).is_some()) {
            Some(door) => {
                self.pass(stage, None, Rule::None);
                self.arrive(door, None)
            }
            None => self.stop(stage, DropCode::NoHost, Decider::Internet),
        }
    }

    fn igw_in(&mut self, eni: EniIx, private: Ipv4Addr) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let g = plan.internet_gateways.iter().position(|g| Some(g.vpc) == plan.eni(eni).vpc());
        let Some(g) = g else { return self.stop(Stage::Internet, DropCode::IgwNoMapping, Decider::Internet) };
        self.pass(Stage::Igw { igw: g }, None, Rule::Destination(private));
        self.destination_becomes(private, None);
        if self.way == Way::Private {
            self.way = Way::Internet;
        }
        if let EniOwner::NatGateway(_) = plan.eni(eni).owner {
            return self.arrive(eni, None);
        }
        self.by_edge_table(plan.internet_gateways[g].edge_table, eni)
    }

    /// Into a VPC by a gateway that may have a route table of its own.
    fn by_edge_table(&mut self, table: Option<usize>, to: EniIx) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let Some(t) = table else { return self.arrive(to, None) };
        let route = lists::best_route(plan, &plan.route_tables[t], self.p.dst);
        let stage = Stage::Route { table: t };
        let (by, ingress) = (Decider::RouteTable(t, route), Direction::Ingress);
        let Some(at) = route else { return self.stop_at(stage, None, DropCode::RtNoRoute, by, ingress) };
        let next = match plan.route_tables[t].routes[at].target {
            RouteTarget::Local => to,
            RouteTarget::Eni(middle) => middle,
            _ => return self.stop_at(stage, None, DropCode::RtBlackhole, by, ingress),
        };
        self.pass(stage, None, Rule::Route(at));
        self.arrive(next, None)
    }

    pub(super) fn nat_in(&mut self, n: usize, inside: bool) -> Result<Verdict, Stop> {
        let nat = &self.plan.nat_gateways[n];
        let (stage, by) = (Stage::Nat { nat: n }, Decider::Nat(n));
        self.nacl(nat.subnet, Direction::Ingress, inside)?;
        if lists::zone_is_down(self.plan, nat.subnet) {
            return self.stop_at(Stage::Fault, Some(nat.eni), DropCode::AzDown, by, Direction::Egress);
        }
        if !matches!(self.p.proto, Proto::TCP | Proto::UDP | Proto::ICMP) {
            return self.stop(stage, DropCode::NatProto, by);
        }
        if self.p.fragment.is_some() && self.p.proto != Proto::UDP {
            return self.stop(stage, DropCode::NatFragment, by);
        }
        let own = nat.addresses[0];
        self.fits(8_500, own, stage.clone(), None, by, true)?;
        if self.p.ttl <= 1 {
            self.crumbs.push(Crumb { stage, eni: None, outcome: Outcome::Drop(DropCode::TtlExpired) });
            return Err(Stop {
                code: DropCode::TtlExpired,
                decider: by,
                direction: Direction::Egress,
                reaction: Some(Reaction::TimeExceeded { from: own }),
            });
        }
        let found = self.find_out(n);
        let over = found.and_then(|b| b.over(self.plan, self.now));
        let binding = match found.filter(|b| over.is_none() && !self.anew(b)) {
            Some(binding) => binding,
            None => {
                let begins = match self.p.proto {
                    Proto::TCP => self.p.begins(),
                    Proto::ICMP => matches!(self.p.icmp, Some((8, _))),
                    _ => true,
                };
                if !begins {
                    let idle = self.p.proto == Proto::TCP && over == Some(true) && self.may_say_idle();
                    let code = if idle { DropCode::NatIdle } else { DropCode::NatNoState };
                    self.crumbs.push(Crumb { stage, eni: None, outcome: Outcome::Drop(code) });
                    let reaction = idle.then_some(Reaction::Reset);
                    return Err(Stop { code, decider: by, direction: Direction::Egress, reaction });
                }
                let token = self.tokens;
                self.tokens += 1;
                Binding::new(n, &self.p, (self.chosen(&nat.addresses), token), self.now)
            }
        };
        self.p.ttl -= 1;
        self.pass(stage, None, Rule::Source(binding.own.0));
        self.takes(PathKind::NatGateway);
        if self.p.quote.is_none() {
            self.notes.bindings.push((binding, true));
        }
        self.source_becomes(binding.own.0, Some(binding.own.1));
        self.clamp(8_460);
        self.by_nat = true;
        self.transit = false;
        self.leave(self.plan.nat_gateways[n].subnet, Leaver::Nat(n))
    }

    /// Which of its addresses a NAT gateway takes for a connection is its own choice: the one that was seen.
    fn chosen(&self, addresses: &[Ipv4Addr]) -> Ipv4Addr {
        let seen = match self.seen.get(self.crumbs.len()).map(|crumb| &crumb.outcome) {
            Some(Outcome::Pass(Rule::Source(addr))) => addresses.iter().find(|own| *own == addr),
            _ => None,
        };
        *seen.unwrap_or(&addresses[0])
    }

    /// A SYN begins a closing connection anew.
    fn anew(&self, binding: &Binding) -> bool {
        self.p.begins() && binding.closing()
    }

    /// By the client and whom it sends to, whichever ENI the packet is from.
    fn find_out(&self, n: usize) -> Option<Binding> {
        let p = &self.p;
        let (proto, client, remote, asks) = match p.quote {
            // The client speaks of what it received.
            Some(q) => (q.proto, (q.dst, q.dst_port), (q.src, q.src_port), q.icmp.is_none_or(|kind| kind == 0)),
            None => (p.proto, (p.src, p.src_port), (p.dst, p.dst_port), p.icmp.is_none_or(|(kind, _)| kind == 8)),
        };
        self.find(n, proto, remote, |b| asks && b.client == client)
    }

    /// By the gateway's address and who sends to it.
    fn find_back(&self, n: usize) -> Option<Binding> {
        let p = &self.p;
        let (proto, own, remote, answers) = match p.quote {
            Some(q) => (q.proto, (q.src, q.src_port), (q.dst, q.dst_port), q.icmp.is_none_or(|kind| kind == 8)),
            None => (p.proto, (p.dst, p.dst_port), (p.src, p.src_port), p.icmp.is_none_or(|(kind, _)| kind == 0)),
        };
        self.find(n, proto, remote, |b| answers && b.own == own)
    }

    /// One that is not over, before one that is.
    fn find(&self, n: usize, proto: Proto, remote: (Ipv4Addr, Port), is: impl Fn(&Binding) -> bool) -> Option<Binding> {
        let port = |b: &Binding| proto == Proto::ICMP || b.remote.1 == remote.1;
        let found = self.oracle.bindings().iter().copied();
        let found = found.filter(|b| b.nat == n && b.proto == proto && b.remote.0 == remote.0 && port(b) && is(b));
        found.max_by_key(|b| b.over(self.plan, self.now).is_none())
    }

    /// Something for the address of a NAT gateway: only what belongs to a binding goes on.
    pub(super) fn nat_back(&mut self, n: usize) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let nat = &plan.nat_gateways[n];
        let (stage, by, ingress) = (Stage::Nat { nat: n }, Decider::Nat(n), Direction::Ingress);
        let found = self.find_back(n);
        let over = found.and_then(|b| b.over(plan, self.now));
        let Some(binding) = found.filter(|b| over.is_none() && !self.anew(b)) else {
            let idle = over == Some(true) && self.may_say_idle();
            let code = if idle { DropCode::NatIdle } else { DropCode::NatNoState };
            return self.stop_at(stage, None, code, by, ingress);
        };
        if self.p.ttl <= 1 {
            return self.stop_at(stage, None, DropCode::TtlExpired, by, ingress);
        }
        if self.p.fragment.is_some() && self.p.proto != Proto::UDP {
            return self.stop_at(stage, None, DropCode::NatFragment, by, ingress);
        }
        self.p.ttl -= 1;
        self.pass(stage, None, Rule::Destination(binding.client.0));
        self.takes(PathKind::NatGateway);
        if self.p.quote.is_none() {
            self.notes.bindings.push((binding, false));
        }
        self.destination_becomes(binding.client.0, Some(binding.client.1));
        self.clamp(8_460);
        self.by_nat = true;
        self.transit = false;
        if self.way == Way::Internet {
            self.way = Way::Nat;
        }
        self.leave(nat.subnet, Leaver::Gateway)
    }

    /// Addresses of a VPC and no further; who wanted a gateway endpoint behind it is told so.
    fn in_vpc(
        &mut self,
        vpc: usize,
        stage: Stage,
        code: DropCode,
        by: Decider,
        direction: Direction,
    ) -> Result<(), Stop> {
        if self.plan.vpcs[vpc].holds(self.p.dst) {
            return Ok(());
        }
        match lists::gateway_endpoint(self.plan, vpc, self.p.dst) {
            Some(e) => self.stop_at(stage, None, DropCode::GweNotInVpc, Decider::GatewayEndpoint(e), direction),
            None => self.stop_at(stage, None, code, by, direction),
        }
    }

    pub(super) fn peering(&mut self, c: usize, vpc: usize) -> Result<Verdict, Stop> {
        let peering = &self.plan.peerings[c];
        let (stage, by) = (Stage::Peering { peering: c }, Decider::Peering(c));
        let Some(other) = peering.other(vpc).filter(|_| !self.transit) else {
            return self.stop(stage, DropCode::PeerTransit, by);
        };
        self.in_vpc(other, stage.clone(), DropCode::PeerTransit, by, Direction::Egress)?;
        self.fits(peering.mtu(), self.router, stage.clone(), None, by, true)?;
        self.pass(stage, None, Rule::None);
        self.takes(PathKind::Peering);
        if self.plan.latency == Latency::Aws {
            let region = |vpc: usize| self.plan.vpcs[vpc].region.as_str();
            self.latency += between_regions(region(vpc), region(other)).unwrap_or_default();
        }
        match lists::host(self.plan, other, self.p.dst) {
            Some(to) => self.arrive(to, None),
            None => self.nobody(other, by),
        }
    }

    /// From a subnet into a transit gateway: by the attachment's ENI in the same zone.
    pub(super) fn tgw(&mut self, t: usize, s: usize) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let zone = &plan.subnets[s].az_id;
        let vpc = plan.subnets[s].vpc;
        let attachment = plan.transit_gateways[t].attachments.iter().find_map(|&a| match &plan.tgw_attachments[a].to {
            AttachmentTo::Vpc(to) if to.vpc == vpc => Some((a, to)),
            _ => None,
        });
        let (a, to) = attachment.expect("a route to a transit gateway that the VPC is attached to");
        let here = to.subnets.iter().find(|(subnet, _)| &plan.subnets[*subnet].az_id == zone);
        let stage = Stage::TgwAttachment { attachment: a };
        let Some(&(subnet, eni)) = here else { return self.stop(stage, DropCode::TgwNoAz, Decider::Tgw(t)) };
        self.nacl(subnet, Direction::Ingress, false)?;
        let by = Decider::TgwAttachment(a);
        if lists::zone_is_down(plan, subnet) {
            return self.stop_at(Stage::Fault, Some(eni), DropCode::AzDown, by, Direction::Egress);
        }
        let ip = plan.eni(eni).ip;
        self.fits(8_500, ip, stage, Some(eni), by, plan.transit_gateways[t].pmtud)?;
        self.tgw_route(a, Some((subnet, eni)))
    }

    /// From an attachment to the next, by the table it is associated with.
    fn tgw_route(&mut self, a: usize, entered: Option<(usize, EniIx)>) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let from = &plan.tgw_attachments[a];
        let stage = Stage::TgwAttachment { attachment: a };
        let eni = entered.map(|(_, eni)| eni);
        let Some(table) = from.route_table else {
            let by = Decider::TgwAttachment(a);
            return self.stop_at(stage, eni, DropCode::TgwNoAssociation, by, Direction::Egress);
        };
        self.pass(stage, eni, Rule::None);
        // "For all packets": whichever attachment they come by.
        self.clamp(8_460);
        self.not_for_ever()?;
        let routes = &plan.tgw_route_tables[table];
        let route = lists::best_tgw_route(routes, self.p.dst);
        let (stage, by) = (Stage::TgwRoute { table }, Decider::TgwRouteTable(table, route));
        let b = match route.map(|at| routes.routes[at].target) {
            None => return self.stop(stage, DropCode::TgwNoRoute, by),
            Some(TgwTarget::Blackhole) => return self.stop(stage, DropCode::TgwBlackhole, by),
            Some(TgwTarget::Attachment(b)) => b,
        };
        self.pass(stage, None, Rule::Route(route.expect("a target has a route")));
        self.routed = by;
        self.takes(PathKind::TransitGateway);
        let to = match &plan.tgw_attachments[b].to {
            AttachmentTo::Link(l) => {
                // Path MTU discovery is for what comes by a VPC's attachment, and none of it for the others.
                let known = entered.filter(|_| plan.transit_gateways[from.tgw].pmtud);
                return self.enter_site(*l, known.map(|(_, eni)| plan.eni(eni).ip));
            }
            AttachmentTo::Vpc(to) => to,
        };
        let zone = entered.map(|(subnet, _)| &plan.subnets[subnet].az_id);
        let same = to.subnets.iter().find(|(subnet, _)| Some(&plan.subnets[*subnet].az_id) == zone);
        let (subnet, eni) = match same {
            Some(same) if !to.appliance_mode => *same,
            _ => self.steered(b, &to.subnets),
        };
        let stage = Stage::TgwAttachment { attachment: b };
        let (by, ingress) = (Decider::TgwAttachment(b), Direction::Ingress);
        if lists::zone_is_down(plan, subnet) {
            return self.stop_at(stage, Some(eni), DropCode::AzDown, by, ingress);
        }
        self.pass(stage, Some(eni), Rule::None);
        self.transit = true;
        self.leave(subnet, Leaver::Gateway)
    }

    /// One subnet for both directions of a flow. By a port that is not known, the one that was seen.
    fn steered(&self, b: usize, subnets: &[(usize, EniIx)]) -> (usize, EniIx) {
        let Sent { proto, src, src_port, dst, dst_port, .. } = self.p;
        if src_port < TOKENS && dst_port < TOKENS || subnets.len() == 1 {
            let tuple = FiveTuple { proto, src, src_port: src_port as u16, dst, dst_port: dst_port as u16 };
            return subnets[steer(&tuple, subnets.len() as u32) as usize];
        }
        let here = self.seen.get(self.crumbs.len());
        let eni = here.filter(|c| c.stage == Stage::TgwAttachment { attachment: b }).and_then(|c| c.eni);
        let chosen = subnets.iter().find(|(_, ix)| Some(*ix) == eni);
        *chosen.unwrap_or(&subnets[0])
    }

    pub(super) fn vgw_out(&mut self, v: usize) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let (stage, by) = (Stage::Vgw { vgw: v }, Decider::Vgw(v));
        let sender = lists::host(plan, plan.vgws[v].vpc, self.p.src);
        if self.transit || sender.is_none() {
            return self.stop(stage, DropCode::VgwTransit, by);
        }
        let blocks = |l: &usize| {
            let holding = plan.links[*l].site_blocks.iter().filter(|block| block.contains(self.p.dst));
            holding.map(|block| block.len()).max()
        };
        let mut best: Option<(u8, usize)> = None;
        for l in &plan.vgws[v].links {
            if let Some(len) = blocks(l)
                && best.is_none_or(|(least, _)| len > least)
            {
                best = Some((len, *l));
            }
        }
        let Some((_, l)) = best else { return self.stop(stage, DropCode::VgwNoRoute, by) };
        self.pass(stage, None, Rule::None);
        let router = self.router;
        self.enter_site(l, Some(router))
    }

    fn enter_site(&mut self, l: usize, router: Option<Ipv4Addr>) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let site = plan.links[l].site;
        self.link(l, true, router)?;
        match self.host_of_site(site) {
            Some(to) => self.arrive(to, None),
            None => self.stop(Stage::SiteRoute { site }, DropCode::NoHost, Decider::Site(site, None)),
        }
    }

    fn host_of_site(&self, site: usize) -> Option<EniIx> {
        let at = self.plan.enis.iter().position(|e| e.home == Home::Site(site) && e.ip == self.p.dst)?;
        Some(EniIx(at as u32))
    }

    /// Without a router nobody tells the sender of what is too large.
    fn link(&mut self, l: usize, by_aws: bool, router: Option<Ipv4Addr>) -> Result<(), Stop> {
        let plan = self.plan;
        // What may be cut is cut, whoever tells or does not.
        let tells = router.is_some() || !self.p.df;
        let router = router.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (stage, by) = (Stage::Link { link: l }, Decider::Link(l));
        self.routes += 1;
        if !by_aws {
            self.site_firewall(l, by_aws)?;
        }
        let tunnels = match &plan.links[l].kind {
            LinkKind::DirectConnect { mtu } => {
                self.fits(*mtu, router, stage.clone(), None, by, tells)?;
                self.pass(stage, None, Rule::None);
                self.takes(PathKind::DirectConnect);
                return Ok(());
            }
            LinkKind::Vpn { tunnels, .. } => tunnels,
        };
        let Some(i) = self.tunnel(l, tunnels, by_aws) else { return self.stop(stage, DropCode::VpnDown, by) };
        self.fits(tunnels[i].mtu, router, stage.clone(), None, by, tells)?;
        self.pass(stage, None, Rule::Tunnel(i));
        self.takes(PathKind::Vpn);
        if let Some(mss) = tunnels[i].mss {
            self.clamp(mss);
        }
        if by_aws { self.site_firewall(l, by_aws) } else { Ok(()) }
    }

    /// The tunnel that a side sends by.
    fn tunnel(&self, l: usize, tunnels: &[TunnelPlan], by_aws: bool) -> Option<usize> {
        let up = |i: &usize| !self.plan.faults.iter().any(|f| f.what == Fault::Tunnel { link: l, tunnel: *i });
        let preferred = |i: &usize| if by_aws { tunnels[*i].preferred_by_aws } else { tunnels[*i].preferred_by_site };
        let all: Vec<usize> = (0..tunnels.len()).filter(up).collect();
        all.iter().copied().find(preferred).or(all.first().copied())
    }

    /// A firewall with a state for each tunnel knows no session that goes by one and comes back by the other.
    fn site_firewall(&mut self, l: usize, by_aws: bool) -> Result<(), Stop> {
        let plan = self.plan;
        let LinkKind::Vpn { tunnels, stateful: true, .. } = &plan.links[l].kind else { return Ok(()) };
        let sides = [true, false].map(|aws| self.tunnel(l, tunnels, aws));
        if sides[0] == sides[1] || self.p.proto != Proto::TCP || self.p.begins() {
            return Ok(());
        }
        let site = plan.links[l].site;
        let direction = if by_aws { Direction::Ingress } else { Direction::Egress };
        self.stop_at(Stage::SiteRoute { site }, None, DropCode::FwNoState, Decider::Site(site, None), direction)
    }

    /// From a host on premises.
    pub(super) fn site(&mut self, site: usize) -> Result<Verdict, Stop> {
        let plan = self.plan;
        if let Some(to) = self.host_of_site(site) {
            return self.arrive(to, None);
        }
        let routes = &plan.sites[site].routes;
        let route = lists::best_of(routes.iter().map(|route| &route.to), self.p.dst);
        let (stage, by) = (Stage::SiteRoute { site }, Decider::Site(site, route));
        let l = match route.map(|at| routes[at].via) {
            Some(SiteTarget::Link(l)) => l,
            _ => return self.stop(stage, DropCode::SiteNoRoute, by),
        };
        self.pass(stage, None, Rule::Route(route.expect("a target has a route")));
        self.routes += 1;
        self.link(l, false, Some(plan.sites[site].gateway))?;
        let ingress = Direction::Ingress;
        match plan.links[l].end {
            LinkEnd::Tgw(a) => self.tgw_route(a, None),
            LinkEnd::Vgw(v) => {
                let vgw = &plan.vgws[v];
                let (stage, by) = (Stage::Vgw { vgw: v }, Decider::Vgw(v));
                self.in_vpc(vgw.vpc, stage.clone(), DropCode::VgwTransit, by, ingress)?;
                self.pass(stage, None, Rule::None);
                match lists::host(plan, vgw.vpc, self.p.dst) {
                    Some(to) => self.by_edge_table(vgw.edge_table, to),
                    None => self.nobody(vgw.vpc, by),
                }
            }
        }
    }

    pub(super) fn gateway_endpoint(&mut self, e: usize, who: Leaver) -> Result<Verdict, Stop> {
        let plan = self.plan;
        let (stage, by) = (Stage::GatewayEndpoint { endpoint: e }, Decider::GatewayEndpoint(e));
        let own = matches!(who, Leaver::Nat(_)) || plan.eni(self.from).vpc() == Some(plan.endpoints[e].vpc);
        if self.transit || !own {
            return self.stop(stage, DropCode::GweNotInVpc, by);
        }
        let echo = self.p.proto == Proto::ICMP && matches!(self.p.icmp, Some((0 | 8, _)));
        if self.p.proto != Proto::TCP && !echo {
            return self.stop(stage, DropCode::GweProto, by);
        }
        self.pass(stage, None, Rule::None);
        self.takes(PathKind::GatewayEndpoint);
        let EndpointKind::Gateway { door, .. } = plan.endpoints[e].kind else {
            unreachable!("a route leads to a gateway endpoint")
        };
        self.arrive(door, None)
    }

    /// The source becomes another, and with it what an ICMP error speaks of. `None`: the port stays.
    fn source_becomes(&mut self, addr: Ipv4Addr, port: Option<Port>) {
        let old = std::mem::replace(&mut self.p.src, addr);
        match (&mut self.p.quote, port) {
            (Some(quote), Some(port)) => {
                (quote.dst, quote.dst_port) = (addr, port);
                if quote.icmp.is_some() {
                    quote.src_port = port;
                }
            }
            (Some(quote), None) if quote.dst == old => quote.dst = addr,
            (None, Some(port)) => {
                self.p.src_port = port;
                if self.p.is_echo() {
                    self.p.dst_port = port;
                }
            }
            _ => {}
        }
    }

    fn destination_becomes(&mut self, addr: Ipv4Addr, port: Option<Port>) {
        let old = std::mem::replace(&mut self.p.dst, addr);
        match (&mut self.p.quote, port) {
            (Some(quote), Some(port)) => {
                (quote.src, quote.src_port) = (addr, port);
                if quote.icmp.is_some() {
                    quote.dst_port = port;
                }
            }
            (Some(quote), None) if quote.src == old => quote.src = addr,
            (None, Some(port)) => {
                self.p.dst_port = port;
                if self.p.is_echo() {
                    self.p.src_port = port;
                }
            }
            _ => {}
        }
    }
}
