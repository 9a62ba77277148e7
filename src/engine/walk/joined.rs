//! Networks joined to each other: peerings, transit gateways, virtual private gateways, links to sites.

use std::net::Ipv4Addr;

use super::super::decide::{Trail, crumb, outcome};
use super::super::gateways::{Attached, End};
use super::super::steps::Refusal;
use super::super::verdict::{Decider, DropCode, Outcome, Rule, Stage};
use super::{HEADERS, Next, Place, TRANSIT_MTU, Walk};
use crate::base::{Proto, steer};

impl<T: Trail> Walk<'_, T> {
    /// Not transitive: only between the addresses of the two VPCs (VPC peering guide).
    pub(super) fn peering(&mut self, peering: u32, vpc: u32, router: Ipv4Addr) -> Next {
        let compiled = self.program.gateways.peerings[peering as usize];
        let at = Decider::Peering(peering as usize);
        let other = compiled.vpcs[usize::from(compiled.vpcs[0] == vpc)];
        let answer = if self.transit {
            Err(Refusal::egress(DropCode::PeerTransit, at))
        } else if let Err(refusal) = self.within(other, DropCode::PeerTransit, at) {
            Err(refusal)
        } else {
            self.limit(compiled.mtu, router, at)
        };
        let stage = Stage::Peering { peering: peering as usize };
        self.trail.add(|| crumb(stage, None, outcome(answer.map(|()| Rule::None))));
        answer?;
        self.found.passage.latency_us += self.program.latency.peering + compiled.distance_us;
        match self.program.vpcs[other as usize].host(self.traffic.dst) {
            Some(to) => Ok(Place::Arrive { to, left: None }),
            None => self.nobody(at),
        }
    }

    /// From outside a VPC only its own addresses are reached: a gateway endpoint's are not among them.
    pub(super) fn within(&self, vpc: u32, code: DropCode, at: Decider) -> Result<(), Refusal> {
        let vpc = &self.program.vpcs[vpc as usize];
        if vpc.holds(self.traffic.dst.into()) {
            return Ok(());
        }
        Err(match vpc.gateway_endpoints.lookup(self.traffic.dst) {
            Some(endpoint) => Refusal::egress(DropCode::GweNotInVpc, Decider::GatewayEndpoint(endpoint as usize)),
            None => Refusal::egress(code, at),
        })
    }

    /// Into a transit gateway by the attachment's ENI in the sender's zone (Transit Gateway guide).
    pub(super) fn tgw_in(&mut self, tgw: u32, left: u32) -> Next {
        let program = self.program;
        let here = program.subnet(left);
        let vpc = &program.vpcs[here.vpc as usize];
        let attachment = vpc.attachments.iter().find(|(of, _)| *of == tgw).map(|(_, attachment)| *attachment);
        let Some(attachment) = attachment else {
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        let compiled = &program.gateways.attachments[attachment as usize];
        let Attached::Vpc { subnets, .. } = &compiled.to else {
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        let stage = Stage::TgwAttachment { attachment: attachment as usize };
        let Some((subnet, eni)) = subnets.iter().find(|(at, _)| program.subnet(*at).zone == here.zone) else {
            self.trail.add(|| crumb(stage, None, Outcome::Drop(DropCode::TgwNoAz)));
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        // Asked in the same subnet too (Transit Gateway guide, "network ACLs").
        self.nacl_in(*subnet, None)?;
        let at = Decider::TgwAttachment(attachment as usize);
        if program.subnet(*subnet).down {
            self.trail.add(|| crumb(Stage::Fault, Some(*eni), Outcome::Drop(DropCode::AzDown)));
            return Err(Refusal::egress(DropCode::AzDown, at));
        }
        let router = Ipv4Addr::from_bits(program.eni(*eni).ip);
        let answer = self.tgw_limit(compiled.tgw, router, at).and_then(|()| match compiled.table {
            Some(_) => Ok(()),
            None => Err(Refusal::egress(DropCode::TgwNoAssociation, at)),
        });
        self.trail.add(|| crumb(stage, Some(*eni), outcome(answer.map(|()| Rule::None))));
        answer?;
        Ok(Place::Tgw { attachment, entered: Some((here.zone, router)) })
    }

    /// Of what comes out of a VPC. Segments are clamped whichever attachment they come by (Transit Gateway guide, "MTU").
    fn tgw_limit(&mut self, tgw: u32, router: Ipv4Addr, at: Decider) -> Result<(), Refusal> {
        self.clamp(TRANSIT_MTU - HEADERS);
        if !self.program.gateways.tgws[tgw as usize].pmtud && self.load.size > usize::from(TRANSIT_MTU) {
            return Err(Refusal::egress(DropCode::MtuDropSilent, at));
        }
        self.limit(TRANSIT_MTU, router, at)
    }

    /// The table of the attachment it came by, and out of another.
    pub(super) fn tgw(&mut self, attachment: u32, entered: Option<(u16, Ipv4Addr)>) -> Next {
        let program = self.program;
        let gateways = &program.gateways;
        let Some(table) = gateways.attachments[attachment as usize].table else {
            return Err(Refusal::egress(DropCode::TgwNoAssociation, Decider::TgwAttachment(attachment as usize)));
        };
        let compiled = &gateways.tgw_tables[table as usize];
        let route = compiled.lpm.lookup(self.traffic.dst).map(|at| at as usize);
        let at = Decider::TgwRouteTable(table as usize, route);
        self.last = at;
        let next = match route.map(|route| compiled.routes[route]) {
            None => Err(Refusal::egress(DropCode::TgwNoRoute, at)),
            Some(None) => Err(Refusal::egress(DropCode::TgwBlackhole, at)),
            Some(Some(to)) => Ok(to),
        };
        let rule = route.map_or(Rule::None, Rule::Route);
        self.trail.add(|| crumb(Stage::TgwRoute { table: table as usize }, None, outcome(next.map(|_| rule))));
        let to = next?;
        self.found.passage.latency_us += program.latency.tgw;
        let (subnets, appliance) = match &gateways.attachments[to as usize].to {
            Attached::Link(link) => {
                // The gateway tells whose packet came out of a VPC, and nobody who sends by a VPN or Direct Connect
                // (Transit Gateway guide, "MTU").
                let tells = gateways.tgws[gateways.attachments[to as usize].tgw as usize].pmtud;
                let router = entered.filter(|_| tells).map(|(_, router)| router);
                return Ok(Place::Link { link: *link, by_aws: true, router });
            }
            Attached::Vpc { subnets, appliance } => (subnets, *appliance),
        };
        let by_hash = || subnets.get(steer(&self.tuple, subnets.len() as u32) as usize);
        let zone = entered.map(|(zone, _)| zone);
        let in_zone = || subnets.iter().find(|(at, _)| Some(program.subnet(*at).zone) == zone);
        let chosen = if appliance { by_hash() } else { in_zone().or_else(by_hash) };
        let decider = Decider::TgwAttachment(to as usize);
        let answer = match chosen {
            Some((subnet, _)) if program.subnet(*subnet).down => Err(Refusal::ingress(DropCode::AzDown, decider)),
            Some((subnet, eni)) => Ok((*subnet, *eni)),
            None => Err(Refusal::ingress(DropCode::TgwNoAz, decider)),
        };
        let stage = Stage::TgwAttachment { attachment: to as usize };
        let eni = chosen.map(|(_, eni)| *eni);
        self.trail.add(|| crumb(stage, eni, outcome(answer.map(|_| Rule::None))));
        let (subnet, _) = answer?;
        self.transit = true;
        Ok(Place::Leave { subnet, gateway: true })
    }

    /// To a site, by the link that leads there, and only what an ENI of the VPC has the address of: neither what came by
    /// a transit gateway, nor what an instance forwards in somebody else's name (Reachability Analyzer,
    /// `VGW_PRIVATE_IP_ASSOCIATION_FOR_EGRESS`).
    pub(super) fn vgw_out(&mut self, vgw: u32, router: Ipv4Addr) -> Next {
        let at = Decider::Vgw(vgw as usize);
        let compiled = &self.program.gateways.vgws[vgw as usize];
        let own = self.program.vpcs[compiled.vpc as usize].host(self.traffic.src).is_some();
        let answer = match compiled.links.lookup(self.traffic.dst) {
            _ if self.transit || !own => Err(Refusal::egress(DropCode::VgwTransit, at)),
            None => Err(Refusal::egress(DropCode::VgwNoRoute, at)),
            Some(link) => Ok(link),
        };
        self.trail.add(|| crumb(Stage::Vgw { vgw: vgw as usize }, None, outcome(answer.map(|_| Rule::None))));
        answer.map(|link| Place::Link { link, by_aws: true, router: Some(router) })
    }

    /// Through a VPN's tunnel or a Direct Connect interface, either way.
    pub(super) fn link(&mut self, link: u32, by_aws: bool, router: Option<Ipv4Addr>) -> Next {
        let program = self.program;
        let compiled = &program.gateways.links[link as usize];
        let site = &program.gateways.sites[compiled.site as usize];
        let at = Decider::Link(link as usize);
        if !by_aws {
            self.site_firewall(link, by_aws)?;
        }
        let tunnel = compiled.tunnel(by_aws);
        let answer = match (compiled.direct, tunnel) {
            (true, _) => self.limit(compiled.mtu, router, at).map(|()| Rule::None),
            (false, Some(n)) => {
                let tunnel = compiled.tunnels[n];
                if let Some(mss) = tunnel.mss {
                    self.clamp(mss);
                }
                self.limit(tunnel.mtu, router, at).map(|()| Rule::Tunnel(n))
            }
            (false, None) => Err(Refusal::egress(DropCode::VpnDown, at)),
        };
        self.trail.add(|| crumb(Stage::Link { link: link as usize }, None, outcome(answer)));
        answer?;
        let latency = &program.latency;
        self.found.passage.latency_us += if compiled.direct { latency.direct_connect } else { latency.vpn };
        if by_aws {
            self.site_firewall(link, by_aws)?;
            return match site.host(self.traffic.dst) {
                Some(to) => Ok(Place::Arrive { to, left: None }),
                None => {
                    let site = compiled.site as usize;
                    self.trail.add(|| crumb(Stage::SiteRoute { site }, None, Outcome::Drop(DropCode::NoHost)));
                    Err(Refusal::egress(DropCode::NoHost, Decider::Site(site, None)))
                }
            };
        }
        match compiled.end {
            End::Tgw(attachment) => {
                let at = Decider::TgwAttachment(attachment as usize);
                let answer = match program.gateways.attachments[attachment as usize].table {
                    Some(_) => Ok(Rule::None),
                    None => Err(Refusal::egress(DropCode::TgwNoAssociation, at)),
                };
                let stage = Stage::TgwAttachment { attachment: attachment as usize };
                self.trail.add(|| crumb(stage, None, outcome(answer)));
                answer?;
                self.clamp(TRANSIT_MTU - HEADERS);
                Ok(Place::Tgw { attachment, entered: None })
            }
            End::Vgw(vgw) => self.vgw_in(vgw),
        }
    }

    /// The firewall of a site whose sessions are kept per tunnel lets a session begin, and drops what belongs to one of
    /// the other tunnel: the answer, whichever side asked (re:Post, "VPN asymmetric routing").
    fn site_firewall(&mut self, link: u32, by_aws: bool) -> Result<(), Refusal> {
        let compiled = &self.program.gateways.links[link as usize];
        if self.traffic.proto != Proto::TCP || !compiled.splits_sessions() {
            return Ok(());
        }
        self.found.by_packet = true;
        if self.load.syn {
            return Ok(());
        }
        let site = compiled.site as usize;
        self.trail.add(|| crumb(Stage::SiteRoute { site }, None, Outcome::Drop(DropCode::FwNoState)));
        let side = if by_aws { Refusal::ingress } else { Refusal::egress };
        Err(side(DropCode::FwNoState, Decider::Site(site, None)))
    }

    fn vgw_in(&mut self, vgw: u32) -> Next {
        let compiled = &self.program.gateways.vgws[vgw as usize];
        let at = Decider::Vgw(vgw as usize);
        let answer = self.within(compiled.vpc, DropCode::VgwTransit, at);
        let answer = answer.map_err(|refusal| Refusal::ingress(refusal.code, refusal.decider));
        self.trail.add(|| crumb(Stage::Vgw { vgw: vgw as usize }, None, outcome(answer.map(|()| Rule::None))));
        answer?;
        let Some(to) = self.program.vpcs[compiled.vpc as usize].host(self.traffic.dst) else {
            return self.nobody(at);
        };
        match compiled.edge {
            Some(table) => self.edge(table, to),
            None => Ok(Place::Arrive { to, left: None }),
        }
    }

    /// The router of a site: hosts of its own, and what its table knows.
    pub(super) fn site(&mut self, site: u32) -> Next {
        let compiled = &self.program.gateways.sites[site as usize];
        if let Some(to) = compiled.host(self.traffic.dst) {
            return Ok(Place::Arrive { to, left: None });
        }
        let route = compiled.lpm.lookup(self.traffic.dst).map(|at| at as usize);
        let at = Decider::Site(site as usize, route);
        let next = route.and_then(|route| compiled.routes[route]).ok_or(Refusal::egress(DropCode::SiteNoRoute, at));
        let rule = route.map_or(Rule::None, Rule::Route);
        self.trail.add(|| crumb(Stage::SiteRoute { site: site as usize }, None, outcome(next.map(|_| rule))));
        next.map(|link| Place::Link { link, by_aws: false, router: Some(compiled.gateway) })
    }
}
