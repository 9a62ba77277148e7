//! From `Plan` to `Program`: all that can be looked up once is looked up here, and never per packet.

use std::collections::HashMap;

use super::gateways::{
    Attached, Attachment, End, Gateways, Igw, Latencies, Link, Nat, Peering, Public, Site, Tgw, TgwTable, Tunnel, Vgw,
    lpm,
};
use super::lpm::Lpm;
use super::program::{Eni, EniKind, Groups, NONE, Nacl, Program, Route, Subnet, Table, Target, Timeouts, Vpc};
use super::rules::{NaclTable, SgTable};
use super::shape::Shape;
use super::verdict::DropCode;
use crate::base::{Cidr, EniIx};
use crate::model::latency::{PathKind, between_regions, one_way};
use crate::model::plan::{
    AttachmentTo, EndpointKind, EniOwner, EniPlan, Fault, Forward, Home, Impair, Latency, LinkEnd, LinkKind,
    PeeringPlan, RouteOrigin, RouteTablePlan, RouteTarget, SecurityGroupPlan, SgPeer, SgRule, SiteTarget, TgwTarget,
};
use crate::model::{Plan, catalogue};

/// Compiles a plan. `generation` must differ from that of the program it replaces.
pub fn compile(plan: &Plan, generation: u64) -> Program {
    let members = members(plan);
    let mut groups: Vec<Groups> = Vec::new();
    let mut known: HashMap<(Option<usize>, &[usize]), u32> = HashMap::new();
    let mut timeouts = vec![Timeouts::new(&plan.limits)];
    let mut shapes: Vec<Shape> = Vec::new();
    let mut enis = Vec::with_capacity(plan.enis.len());
    for (at, eni) in plan.enis.iter().enumerate() {
        let filtered = matches!(eni.owner, EniOwner::Instance(..) | EniOwner::Endpoint(_)) && eni.vpc().is_some();
        let list = eni.security_groups.as_slice();
        let groups = if filtered {
            *known.entry((eni.vpc(), list)).or_insert_with(|| {
                let vpc = eni.vpc().unwrap_or_default();
                let ingress = rules(plan, list, vpc, |sg| &sg.ingress);
                let egress = rules(plan, list, vpc, |sg| &sg.egress);
                groups.push(Groups { ingress: table(&ingress, &members), egress: table(&egress, &members) });
                groups.len() as u32 - 1
            })
        } else {
            NONE
        };
        let instance = match eni.owner {
            EniOwner::Instance(instance, _) => Some(&plan.instances[instance]),
            _ => None,
        };
        let own_times = instance.map(|i| i.tracking).filter(|t| *t != crate::model::plan::Tracking::default());
        let times = own_times.map_or(0, |tracking| {
            timeouts.push(Timeouts::of(&plan.limits, &tracking));
            (timeouts.len() - 1) as u16
        });
        let shape = impairment(plan, eni).map_or(0, |impair| {
            shapes.push(Shape::new(&impair, &eni.common.id));
            shapes.len() as u16
        });
        enis.push(Eni {
            id: eni.common.id.clone(),
            ip: eni.ip.to_bits(),
            vpc: eni.vpc().map_or(NONE, |vpc| vpc as u32),
            subnet: eni.subnet().map_or(NONE, |subnet| subnet as u32),
            site: if let Home::Site(site) = eni.home { site as u32 } else { NONE },
            groups,
            source_dest_check: eni.source_dest_check || matches!(eni.owner, EniOwner::Endpoint(_)),
            kind: kind(plan, eni),
            down: failed(plan, EniIx(at as u32)),
            stateful: instance.is_some_and(|i| i.forward == Some(Forward::Stateful)),
            masquerade: instance.is_some_and(|i| i.forward == Some(Forward::Masquerade)),
            shape,
            times,
        });
    }
    let numbered = || enis.iter().enumerate().map(|(at, eni)| (EniIx(at as u32), eni));
    let mut addresses: Vec<(u32, EniIx)> = numbered().map(|(at, eni)| (eni.ip, at)).collect();
    addresses.sort_unstable();
    let forwards = |eni: &Eni| eni.is_door() || matches!(eni.kind, EniKind::Host) && !eni.source_dest_check;
    let forwarders = numbered().filter(|(_, eni)| forwards(eni)).map(|(at, _)| at).collect();
    let zones = Zones::of(plan);
    let subnets = plan.subnets.iter().map(|subnet| Subnet {
        cidr: subnet.cidr,
        vpc: subnet.vpc as u32,
        table: subnet.route_table as u32,
        nacl: subnet.nacl as u32,
        zone: zones.number(&subnet.az_id),
        down: zone_failed(plan, &subnet.az_id),
    });
    let nacls = plan
        .network_acls
        .iter()
        .map(|nacl| Nacl { ingress: NaclTable::new(&nacl.ingress), egress: NaclTable::new(&nacl.egress) });
    Program {
        generation,
        enis: enis.into(),
        addresses: addresses.into(),
        forwarders,
        subnets: subnets.collect(),
        vpcs: (0..plan.vpcs.len()).map(|vpc| compile_vpc(plan, vpc)).collect(),
        tables: plan.route_tables.iter().map(|table| compile_table(plan, table)).collect(),
        nacls: nacls.collect(),
        groups: groups.into(),
        gateways: gateways(plan),
        shapes: shapes.into(),
        latency: latencies(plan),
        timeouts: timeouts.into(),
        limits: plan.limits.clone(),
    }
}

fn kind(plan: &Plan, eni: &EniPlan) -> EniKind {
    let ports = |endpoint: usize| plan.services[plan.endpoints[endpoint].service].ports.clone().into();
    match eni.owner {
        EniOwner::Instance(..) => EniKind::Host,
        EniOwner::Endpoint(e) => EniKind::Endpoint(ports(e)),
        EniOwner::NatGateway(n) => EniKind::Nat(n as u32),
        EniOwner::TgwAttachment(_) => EniKind::TgwAttachment,
        EniOwner::GatewayEndpoint(e) => EniKind::GatewayDoor(e as u32, ports(e)),
        EniOwner::PublicSide => EniKind::PublicDoor,
    }
}

/// The numbers of zone ids.
struct Zones<'a>(Vec<&'a str>);

impl<'a> Zones<'a> {
    fn of(plan: &'a Plan) -> Zones<'a> {
        let mut ids: Vec<&str> = plan.subnets.iter().map(|subnet| subnet.az_id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        Zones(ids)
    }

    fn number(&self, id: &str) -> u16 {
        self.0.binary_search(&id).unwrap_or_default() as u16
    }
}

/// Faults that have begun.
fn in_force(plan: &Plan) -> impl Iterator<Item = &crate::model::plan::FaultPlan> {
    plan.faults.iter().filter(|fault| fault.after.is_none())
}

fn zone_failed(plan: &Plan, az: &str) -> bool {
    in_force(plan).any(|fault| matches!(&fault.what, Fault::Zone { az_id } if az_id == az))
}

/// What is said of packets from and to an ENI that a fault has taken.
fn failed(plan: &Plan, ix: EniIx) -> Option<DropCode> {
    let eni = plan.eni(ix);
    let zone = plan.subnet_of(ix).is_some_and(|subnet| zone_failed(plan, &subnet.az_id));
    let endpoint = matches!(eni.owner, EniOwner::Endpoint(_));
    for fault in in_force(plan) {
        match (&fault.what, eni.owner) {
            (Fault::Endpoint { enis, .. }, _) if enis.contains(&ix) => return Some(DropCode::VpceAzDown),
            (Fault::Instance(down), EniOwner::Instance(instance, _)) if *down == instance => {
                return Some(DropCode::InstanceDown);
            }
            _ => {}
        }
    }
    if impairment(plan, eni).is_some_and(|impair| impair.down) {
        return Some(DropCode::LinkImpaired);
    }
    match (zone, endpoint) {
        (true, true) => Some(DropCode::VpceAzDown),
        (true, false) => Some(DropCode::AzDown),
        (false, _) => None,
    }
}

/// A fault's impairment stands in place of the instance's own.
fn impairment(plan: &Plan, eni: &EniPlan) -> Option<Impair> {
    let EniOwner::Instance(at, _) = eni.owner else { return None };
    plan.impairment_of(at)
}

/// The private addresses of the ENIs that carry each group: what a reference to it means.
fn members(plan: &Plan) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); plan.security_groups.len()];
    for eni in &plan.enis {
        for &group in &eni.security_groups {
            members[group].push(eni.ip.to_bits());
        }
    }
    members
}

/// Microseconds one way of each kind of path, where the plan asks for them.
fn latencies(plan: &Plan) -> Latencies {
    if plan.latency == Latency::Off {
        return Latencies::default();
    }
    let micros = |kind| micros(one_way(kind));
    Latencies {
        same_zone: micros(PathKind::SameZone),
        cross_zone: micros(PathKind::CrossZone),
        peering: micros(PathKind::Peering),
        tgw: micros(PathKind::TransitGateway),
        vpn: micros(PathKind::Vpn),
        direct_connect: micros(PathKind::DirectConnect),
        nat: micros(PathKind::NatGateway),
        endpoint: micros(PathKind::InterfaceEndpoint),
        gateway_endpoint: micros(PathKind::GatewayEndpoint),
        public: micros(PathKind::Public),
        internet: micros(PathKind::Internet),
    }
}

fn micros(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Between the regions of two peers that are in different ones.
fn distance(plan: &Plan, peering: &PeeringPlan) -> u32 {
    let region = |vpc: usize| plan.vpcs[vpc].region.as_str();
    if plan.latency == Latency::Off {
        return 0;
    }
    between_regions(region(peering.requester), region(peering.accepter)).map_or(0, micros)
}

/// Whether rules of a VPC may refer to groups of another: over a peering within the region, or a transit gateway where both
/// attachments say so (VPC User Guide, "security group referencing").
pub fn may_refer(plan: &Plan, vpc: usize, other: usize) -> bool {
    let peered = |p: &PeeringPlan| p.same_region && p.other(vpc) == Some(other);
    let attached = |vpc: usize, tgw: usize| {
        plan.tgw_attachments.iter().any(|a| {
            a.tgw == tgw && matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == vpc && to.security_group_referencing)
        })
    };
    vpc == other
        || plan.peerings.iter().any(peered)
        || (0..plan.transit_gateways.len()).any(|tgw| attached(vpc, tgw) && attached(other, tgw))
}

/// The rules of a list of groups with their names, in the order in which they decide: prefix lists as one rule for
/// each block, and without rules for groups that cannot be seen from here.
fn rules<'a>(
    plan: &'a Plan,
    list: &[usize],
    vpc: usize,
    direction: impl Fn(&'a SecurityGroupPlan) -> &'a Vec<SgRule>,
) -> Vec<(usize, usize, SgRule)> {
    let mut all = Vec::new();
    for &group in list {
        for (at, rule) in direction(&plan.security_groups[group]).iter().enumerate() {
            match rule.peer {
                SgPeer::Cidr(_) => all.push((group, at, rule.clone())),
                SgPeer::Group(of) if may_refer(plan, vpc, plan.security_groups[of].vpc) => {
                    all.push((group, at, rule.clone()));
                }
                SgPeer::Group(_) => {}
                SgPeer::PrefixList(list) => {
                    let block = |block: &Cidr| (group, at, SgRule { peer: SgPeer::Cidr(*block), ..rule.clone() });
                    all.extend(plan.prefix_lists[list].entries.iter().map(block));
                }
            }
        }
    }
    all
}

fn table(rules: &[(usize, usize, SgRule)], members: &[Vec<u32>]) -> SgTable {
    SgTable::new(rules.iter().map(|(group, at, rule)| (*group, *at, rule)), members)
}

fn compile_vpc(plan: &Plan, vpc: usize) -> Vpc {
    let of_vpc = |(_, subnet): &(usize, &crate::model::plan::SubnetPlan)| subnet.vpc == vpc;
    let subnets: Vec<(Cidr, u32)> =
        plan.subnets.iter().enumerate().filter(of_vpc).map(|(at, subnet)| (subnet.cidr, at as u32)).collect();
    let mut hosts: Vec<(u32, u32)> = Vec::new();
    for (at, eni) in plan.enis.iter().enumerate().filter(|(_, eni)| eni.vpc() == Some(vpc)) {
        hosts.push((eni.ip.to_bits(), at as u32));
        if let EniOwner::NatGateway(n) = eni.owner {
            let more = plan.nat_gateways[n].addresses.iter().filter(|addr| **addr != eni.ip);
            hosts.extend(more.map(|addr| (addr.to_bits(), at as u32)));
        }
    }
    hosts.sort_unstable();
    let here = |eni: EniIx| plan.eni(eni).vpc() == Some(vpc);
    let mut publics: Vec<(u32, u32)> = plan
        .public_addresses
        .iter()
        .filter(|public| here(public.eni))
        .map(|public| (public.private.to_bits(), public.addr.to_bits()))
        .collect();
    publics.sort_unstable();
    let gateway_endpoints = plan.endpoints.iter().enumerate().filter(|(_, e)| e.vpc == vpc);
    let gateway_endpoints = gateway_endpoints.flat_map(|(at, endpoint)| {
        let list = match &endpoint.kind {
            EndpointKind::Gateway { prefix_list, .. } => plan.prefix_lists[*prefix_list].entries.as_slice(),
            EndpointKind::Interface => &[],
        };
        list.iter().map(move |block| (*block, at as u32))
    });
    let attachments = plan.tgw_attachments.iter().enumerate();
    let attachments = attachments.filter(|(_, a)| matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == vpc));
    let v = &plan.vpcs[vpc];
    Vpc {
        cidrs: v.cidrs.clone().into(),
        publics: publics.into(),
        gateway_endpoints: lpm(gateway_endpoints),
        attachments: attachments.map(|(at, a)| (a.tgw as u32, at as u32)).collect(),
        resolver: v.resolver().to_bits(),
        dns_support: v.dns_support,
        subnets: Lpm::new(&subnets),
        hosts: hosts.into(),
    }
}

/// Of two routes for one block a written block wins over a written prefix list, and that over a propagated route; the
/// local route loses to what replaced it (VPC User Guide, "route priority"). A propagated route inside the VPC's own
/// blocks never wins over `local`, however specific.
fn compile_table(plan: &Plan, table: &RouteTablePlan) -> Table {
    let own = &plan.vpcs[table.vpc].cidrs;
    let rank = |at: usize| {
        let route = &table.routes[at];
        let list = matches!(route.to, crate::model::plan::RouteDest::PrefixList(_));
        let local = route.target == RouteTarget::Local;
        (route.origin == RouteOrigin::Propagated, list, local)
    };
    let mut order: Vec<usize> = (0..table.routes.len()).collect();
    order.sort_by_key(|at| rank(*at));
    let mut entries: Vec<(Cidr, u32)> = Vec::new();
    for at in order {
        let route = &table.routes[at];
        let propagated = route.origin == RouteOrigin::Propagated;
        let blocks = plan.blocks(&route.to).iter();
        let blocks = blocks.filter(|block| !(propagated && own.iter().any(|own| own.covers(**block))));
        entries.extend(blocks.map(|block| (*block, at as u32)));
    }
    let routes = table.routes.iter().map(|route| Route {
        target: match route.target {
            RouteTarget::Local => Target::Local,
            RouteTarget::Eni(eni) => Target::Eni(eni),
            RouteTarget::Blackhole => Target::Blackhole,
            RouteTarget::Igw(at) => Target::Igw(at as u32),
            RouteTarget::Nat(at) => Target::Nat(at as u32),
            RouteTarget::Peering(at) => Target::Peering(at as u32),
            RouteTarget::Tgw(at) => Target::Tgw(at as u32),
            RouteTarget::Vgw(at) => Target::Vgw(at as u32),
            RouteTarget::GatewayEndpoint(at) => Target::GatewayEndpoint(at as u32),
        },
    });
    Table { lpm: Lpm::new(&entries), routes: routes.collect() }
}

fn gateways(plan: &Plan) -> Gateways {
    let igw_of = |vpc: usize| plan.internet_gateways.iter().position(|igw| igw.vpc == vpc).map(|at| at as u32);
    let mut publics: Vec<Public> = plan
        .public_addresses
        .iter()
        .map(|public| Public {
            addr: public.addr.to_bits(),
            private: public.private.to_bits(),
            eni: public.eni,
            igw: plan.eni(public.eni).vpc().and_then(igw_of),
        })
        .collect();
    publics.sort_unstable_by_key(|public| public.addr);
    let hosts_of = |home: Home| {
        let here = plan.enis.iter().enumerate().filter(|(_, eni)| eni.home == home && !eni.owner.is_door());
        let mut hosts: Vec<(u32, EniIx)> = here.map(|(at, eni)| (eni.ip.to_bits(), EniIx(at as u32))).collect();
        hosts.sort_unstable();
        hosts.into_boxed_slice()
    };
    Gateways {
        igws: plan
            .internet_gateways
            .iter()
            .map(|igw| Igw {
                vpc: igw.vpc as u32,
                border: catalogue::border_router(&plan.vpcs[igw.vpc].region),
                edge: igw.edge_table.map(|at| at as u32),
            })
            .collect(),
        nats: plan
            .nat_gateways
            .iter()
            .map(|nat| Nat {
                id: nat.common.id.clone(),
                subnet: nat.subnet as u32,
                eni: nat.eni,
                public: nat.public,
                addresses: nat.addresses.iter().map(|addr| addr.to_bits()).collect(),
            })
            .collect(),
        peerings: plan
            .peerings
            .iter()
            .map(|p| Peering {
                vpcs: [p.requester as u32, p.accepter as u32],
                mtu: p.mtu(),
                distance_us: distance(plan, p),
            })
            .collect(),
        tgws: plan.transit_gateways.iter().map(|tgw| Tgw { pmtud: tgw.pmtud }).collect(),
        attachments: plan
            .tgw_attachments
            .iter()
            .map(|a| Attachment {
                tgw: a.tgw as u32,
                table: a.route_table.map(|at| at as u32),
                to: match &a.to {
                    AttachmentTo::Link(link) => Attached::Link(*link as u32),
                    AttachmentTo::Vpc(to) => Attached::Vpc {
                        subnets: to.subnets.iter().map(|(subnet, eni)| (*subnet as u32, *eni)).collect(),
                        appliance: to.appliance_mode,
                    },
                },
            })
            .collect(),
        tgw_tables: plan
            .tgw_route_tables
            .iter()
            .map(|table| TgwTable {
                lpm: lpm(table.routes.iter().enumerate().map(|(at, route)| (route.to, at as u32))),
                routes: table
                    .routes
                    .iter()
                    .map(|route| match route.target {
                        TgwTarget::Attachment(at) => Some(at as u32),
                        TgwTarget::Blackhole => None,
                    })
                    .collect(),
            })
            .collect(),
        vgws: plan
            .vgws
            .iter()
            .map(|vgw| Vgw {
                vpc: vgw.vpc as u32,
                edge: vgw.edge_table.map(|at| at as u32),
                links: lpm(vgw
                    .links
                    .iter()
                    .flat_map(|link| plan.links[*link].site_blocks.iter().map(move |block| (*block, *link as u32)))),
            })
            .collect(),
        links: (0..plan.links.len()).map(|at| link(plan, at)).collect(),
        sites: (0..plan.sites.len())
            .map(|at| Site {
                gateway: plan.sites[at].gateway,
                hosts: hosts_of(Home::Site(at)),
                lpm: lpm(plan.sites[at].routes.iter().enumerate().map(|(n, route)| (route.to, n as u32))),
                routes: plan.sites[at]
                    .routes
                    .iter()
                    .map(|route| match route.via {
                        SiteTarget::Link(link) => Some(link as u32),
                        SiteTarget::Internet | SiteTarget::Blackhole => None,
                    })
                    .collect(),
            })
            .collect(),
        doors: plan
            .endpoints
            .iter()
            .map(|endpoint| match endpoint.kind {
                EndpointKind::Gateway { door, .. } => Some(door),
                EndpointKind::Interface => None,
            })
            .collect(),
        vpc_of_endpoint: plan.endpoints.iter().map(|endpoint| endpoint.vpc as u32).collect(),
        publics: publics.into(),
        hosts: hosts_of(Home::Internet),
        public_side: plan.public_side,
        public_blocks: plan.public_blocks.clone(),
    }
}

fn link(plan: &Plan, at: usize) -> Link {
    let link = &plan.links[at];
    let down = |n: usize| in_force(plan).any(|fault| fault.what == Fault::Tunnel { link: at, tunnel: n });
    let (direct, mtu, tunnels, stateful) = match &link.kind {
        LinkKind::DirectConnect { mtu } => (true, *mtu, Vec::new(), false),
        LinkKind::Vpn { tunnels, stateful, .. } => {
            let tunnels = tunnels.iter().enumerate().map(|(n, tunnel)| Tunnel {
                mtu: tunnel.mtu,
                mss: tunnel.mss,
                up: !down(n),
                preferred: [tunnel.preferred_by_site, tunnel.preferred_by_aws],
            });
            (false, 0, tunnels.collect(), *stateful)
        }
    };
    Link {
        site: link.site as u32,
        end: match link.end {
            LinkEnd::Tgw(at) => End::Tgw(at as u32),
            LinkEnd::Vgw(at) => End::Vgw(at as u32),
        },
        direct,
        mtu,
        tunnels: tunnels.into(),
        stateful,
    }
}
