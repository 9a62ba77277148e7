//! Changes of routes, gateways and what joins networks.

use std::net::Ipv4Addr;

use super::super::Explanation;
use super::super::path::eni_at;
use super::endpoints::{free_address, new_eni};
use super::search::{Change, World};
use super::{instance_key, path};
use crate::base::{Cidr, EniIx};
use crate::engine::{Decider, DropCode, DropRecord};
use crate::model::Plan;
use crate::model::plan::{
    AttachmentTo, Common, EniOwner, Home, InternetGatewayPlan, LinkKind, PeeringPlan, PublicAddressPlan, RouteDest,
    RouteOrigin, RoutePlan, RouteTarget, SiteRoutePlan, SiteTarget, TgwRoutePlan, TgwTarget,
};
use crate::model::spec::public_ip;

/// What could be done where a packet finds no way.
pub(super) fn changes(
    world: &World,
    told: &Explanation,
    record: &DropRecord,
    (from, _): (EniIx, Ipv4Addr),
) -> Vec<Change> {
    let plan = &world.plan;
    // As it stands in the packet that was dropped: translated, and on the way back for the client.
    let wanted = record.tuple.dst;
    match (record.code, record.decider) {
        (DropCode::RtNoRoute, Decider::RouteTable(at, _)) => missing_route(plan, from, wanted, at),
        (DropCode::RtBlackhole, Decider::RouteTable(at, Some(route))) => {
            let mut changes = vec![drop_route(plan, at, route)];
            let instead = missing_route(plan, from, wanted, at);
            changes.extend(instead.into_iter().map(|change| change.after(drop_route(plan, at, route))));
            changes
        }
        // A default route took it where no private address is.
        (DropCode::IgwPrivateDst | DropCode::NatNoState, _) => match plan.subnet_of(record.from) {
            Some(subnet) if wanted.is_private() => missing_route(plan, from, wanted, subnet.route_table),
            _ => Vec::new(),
        },
        (DropCode::IgwNoPublicIp, _) => public_ip(plan, from, told).into_iter().collect(),
        (DropCode::NatNoIgw, decider) => nat_out(plan, decider),
        (DropCode::TgwNoAz, _) => attachment_zones(plan, record),
        (DropCode::TgwNoAssociation, Decider::TgwAttachment(at)) => associations(plan, at),
        (DropCode::TgwNoRoute, Decider::TgwRouteTable(at, _)) => missing_tgw_route(plan, from, wanted, at),
        (DropCode::TgwBlackhole, Decider::TgwRouteTable(at, Some(route))) => {
            tgw_blackhole(plan, from, wanted, at, route)
        }
        (DropCode::PeerTransit, _) => around_the_peer(plan, record),
        (DropCode::SiteNoRoute, Decider::Site(at, None)) => missing_site_route(plan, from, wanted, at),
        (DropCode::SiteNoRoute, Decider::Site(at, Some(route))) => {
            let text = &plan.sites[at].routes[route];
            let line =
                format!("on_prem.{}.routes -= {{ to: {}, via: blackhole }}", plan.sites[at].common.name, text.to);
            vec![Change::new(line, move |world| {
                world.plan.sites[at].routes.remove(route);
            })]
        }
        _ => Vec::new(),
    }
}

/// Routes that lead to who has the address, by each gateway that the VPC has for it.
fn missing_route(plan: &Plan, from: EniIx, wanted: Ipv4Addr, at: usize) -> Vec<Change> {
    let vpc = plan.route_tables[at].vpc;
    let to = block_of(plan, from, wanted);
    let route = |to, target| add_route(plan, at, to, target);
    let tgws = tgws_of(plan, vpc).map(RouteTarget::Tgw);
    match home_of(plan, from, wanted) {
        Some(Home::Subnet { vpc: other, .. }) if other != vpc && !is_public(plan, wanted) => {
            let peerings = plan.peerings.iter().enumerate().filter(|(_, p)| p.other(vpc) == Some(other));
            let targets = peerings.map(|(at, _)| RouteTarget::Peering(at)).chain(tgws);
            let mut changes: Vec<Change> = targets.map(|target| route(to, target)).collect();
            if changes.is_empty() {
                changes
                    .extend(new_peering(plan, vpc, other).map(|peering| peering.and(to_peering(plan, at, other, to))));
            }
            changes
        }
        Some(Home::Site(_)) => {
            let vgw = plan.vgws.iter().position(|vgw| vgw.vpc == vpc && !vgw.links.is_empty());
            vgw.map(RouteTarget::Vgw).into_iter().chain(tgws).map(|target| route(to, target)).collect()
        }
        _ if wanted.is_private() => Vec::new(),
        _ => {
            let igw = plan.internet_gateways.iter().position(|igw| igw.vpc == vpc);
            let public = plan.public_addresses.iter().any(|p| p.eni == from);
            let nats = plan.nat_gateways.iter().enumerate().filter(|(_, nat)| nat.vpc == vpc && nat.public);
            let mut targets: Vec<RouteTarget> = nats.map(|(at, _)| RouteTarget::Nat(at)).collect();
            if let Some(igw) = igw {
                // Who has a public address needs no NAT gateway.
                targets.insert(if public { 0 } else { targets.len() }, RouteTarget::Igw(igw));
            }
            targets.extend(tgws);
            let mut changes: Vec<Change> = targets.into_iter().map(|target| route(Cidr::ANY, target)).collect();
            let host = eni_at(plan, from, wanted).is_some_and(|eni| plan.eni(eni).home == Home::Internet);
            if igw.is_none() && host {
                changes.push(new_igw(plan, vpc).and(to_igw(plan, at)));
            }
            changes
        }
    }
}

/// `app.route_tables.main.routes += { to: 0.0.0.0/0, via: igw }`.
fn add_route(plan: &Plan, table: usize, to: Cidr, target: RouteTarget) -> Change {
    let route = RoutePlan { id: String::new(), to: RouteDest::Cidr(to), target, origin: RouteOrigin::Created };
    let text = plan.route_text(&route);
    let (to_text, via) = text.split_once(" via ").unwrap_or((&text, ""));
    let line = format!(
        "{}.routes += {{ to: {to_text}, via: {via} }}",
        path("route_tables", &plan.route_tables[table].common.path)
    );
    let written = plan.route_tables[table].routes.iter().position(|old| {
        old.to == RouteDest::Cidr(to) && old.origin == RouteOrigin::Created && old.target != RouteTarget::Local
    });
    let add = Change::new(line, move |world| {
        let routes = &mut world.plan.route_tables[table].routes;
        // A written route takes the place of what was learned.
        routes.retain(|old| old.to != route.to || old.origin != RouteOrigin::Propagated);
        routes.push(route.clone());
    });
    // A table has one route for each block.
    match written {
        Some(old) => drop_route(plan, table, old).and(add),
        None => add,
    }
}

fn drop_route(plan: &Plan, table: usize, route: usize) -> Change {
    let of = &plan.route_tables[table];
    let text = plan.route_text(&of.routes[route]);
    let (to, via) = match text.split_once(" via ") {
        Some((to, via)) => (to, via),
        None => (text.split(' ').next().unwrap_or_default(), "blackhole"),
    };
    let line = format!("{}.routes -= {{ to: {to}, via: {via} }}", path("route_tables", &of.common.path));
    let gone = of.routes[route].clone();
    Change::new(line, move |world| world.plan.route_tables[table].routes.retain(|old| *old != gone))
}

fn public_ip(plan: &Plan, from: EniIx, told: &Explanation) -> Option<Change> {
    let EniOwner::Instance(at, n) = plan.eni(from).owner else { return None };
    // Of several interfaces none gets one at launch (EC2 User Guide, "public IPv4 addresses").
    if n != 0 || plan.instances[at].enis.len() > 1 || plan.instances[at].vpc().is_none() || told.stage == Some("back") {
        return None;
    }
    let line = format!("{}.public_ip: true", instance_key(plan, at));
    Some(Change::new(line, move |world| give_public(&mut world.plan, from)))
}

fn give_public(plan: &mut Plan, eni: EniIx) {
    let used = plan.public_addresses.iter().map(|public| public.addr).collect();
    let path = plan.eni(eni).common.path.clone();
    let Some(addr) = public_ip::assign([path], &used).into_values().next() else { return };
    let (common, private) = (plan.eni(eni).common.clone(), plan.eni(eni).ip);
    plan.public_addresses.push(PublicAddressPlan { common, addr, eni, private, elastic: false });
}

fn new_igw(plan: &Plan, vpc: usize) -> Change {
    let name = plan.vpcs[vpc].common.name.clone();
    Change::new(format!("{}.internet_gateway: true", super::vpc_key(&name)), move |world| {
        let common = Common { name: "igw".into(), path: format!("{name}.igw"), ..Common::default() };
        world.plan.internet_gateways.push(InternetGatewayPlan { common, vpc, edge_table: None });
    })
    .of_new()
}

/// By the gateway that [`new_igw`] makes: the last one.
fn to_igw(plan: &Plan, table: usize) -> Change {
    let target = RouteTarget::Igw(plan.internet_gateways.len());
    let route = RoutePlan { id: String::new(), to: RouteDest::Cidr(Cidr::ANY), target, origin: RouteOrigin::Created };
    let key = path("route_tables", &plan.route_tables[table].common.path);
    Change::new(format!("{key}.routes += {{ to: 0.0.0.0/0, via: igw }}"), move |world| {
        world.plan.route_tables[table].routes.push(route.clone());
    })
}

/// A way out for a NAT gateway: a route of its subnet, or an address for a private one.
fn nat_out(plan: &Plan, decider: Decider) -> Vec<Change> {
    match decider {
        Decider::RouteTable(at, _) => {
            let mut changes: Vec<Change> = igw_route(plan, at).into_iter().collect();
            changes.extend(nat_subnets(plan, at));
            changes
        }
        Decider::Nat(at) => {
            let nat = &plan.nat_gateways[at];
            let mut changes: Vec<Change> = igw_route(plan, plan.subnets[nat.subnet].route_table).into_iter().collect();
            if !nat.public {
                let eni = nat.eni;
                let line = format!("{}.public: true", path("nat_gateways", &nat.common.path));
                changes.push(Change::new(line, move |world| {
                    world.plan.nat_gateways[at].public = true;
                    give_public(&mut world.plan, eni);
                }));
            }
            changes
        }
        _ => Vec::new(),
    }
}

/// A subnet whose table leads to the Internet gateway, for NAT gateways in one whose table does not.
fn nat_subnets(plan: &Plan, table: usize) -> Vec<Change> {
    let public = |subnet: &usize| {
        let table = &plan.route_tables[plan.subnets[*subnet].route_table];
        table.routes.iter().any(|route| matches!(route.target, RouteTarget::Igw(_)))
    };
    let mut changes = Vec::new();
    for (at, nat) in plan.nat_gateways.iter().enumerate() {
        if !nat.public || plan.subnets[nat.subnet].route_table != table {
            continue;
        }
        let others = (0..plan.subnets.len()).filter(|subnet| plan.subnets[*subnet].vpc == nat.vpc).filter(public);
        changes.extend(others.map(|subnet| {
            let line =
                format!("{}.subnet: {}", path("nat_gateways", &nat.common.path), plan.subnets[subnet].common.name);
            Change::new(line, move |world| move_nat(&mut world.plan, at, subnet))
        }));
    }
    changes
}

fn move_nat(plan: &mut Plan, at: usize, subnet: usize) {
    let Some(ip) = free_address(plan, subnet) else { return };
    let nat = &mut plan.nat_gateways[at];
    let (eni, old) = (nat.eni, std::mem::replace(&mut nat.addresses, vec![ip]));
    nat.subnet = subnet;
    let own = &mut plan.enis[eni.at()];
    (own.ip, own.home) = (ip, Home::Subnet { vpc: nat.vpc, subnet });
    // One address is enough for one question.
    plan.public_addresses.retain(|public| public.eni != eni || Some(&public.private) == old.first());
    plan.public_addresses.iter_mut().filter(|public| public.eni == eni).for_each(|public| public.private = ip);
}

fn igw_route(plan: &Plan, table: usize) -> Option<Change> {
    let igw = plan.internet_gateways.iter().position(|igw| igw.vpc == plan.route_tables[table].vpc)?;
    Some(add_route(plan, table, Cidr::ANY, RouteTarget::Igw(igw)))
}

/// A subnet for an attachment in a zone where it has none: in the sender's, or in that of a gateway or appliance on the
/// way.
fn attachment_zones(plan: &Plan, record: &DropRecord) -> Vec<Change> {
    let own = plan.eni(record.from).subnet();
    let mut changes = Vec::new();
    for (at, attachment) in plan.tgw_attachments.iter().enumerate() {
        let AttachmentTo::Vpc(to) = &attachment.to else { continue };
        let mut zones: Vec<char> = to.subnets.iter().map(|(subnet, _)| plan.subnets[*subnet].az).collect();
        let all = (0..plan.subnets.len()).filter(|subnet| plan.subnets[*subnet].vpc == to.vpc);
        for subnet in own.into_iter().filter(|own| plan.subnets[*own].vpc == to.vpc).chain(all) {
            if zones.contains(&plan.subnets[subnet].az) {
                continue;
            }
            zones.push(plan.subnets[subnet].az);
            let line = format!(
                "transit_gateways.{}.attachments.{}.subnets += {}",
                plan.transit_gateways[attachment.tgw].common.name,
                attachment.common.name,
                plan.subnets[subnet].common.name
            );
            changes.push(Change::new(line, move |world| {
                let common = world.plan.tgw_attachments[at].common.clone();
                let eni = new_eni(&mut world.plan, &common, subnet, &[], EniOwner::TgwAttachment(at));
                if let (Some(eni), AttachmentTo::Vpc(to)) = (eni, &mut world.plan.tgw_attachments[at].to) {
                    to.subnets.push((subnet, eni));
                }
            }));
        }
    }
    changes
}

/// Each table that the attachment could be associated with.
fn associations(plan: &Plan, attachment: usize) -> Vec<Change> {
    let of = &plan.tgw_attachments[attachment];
    let tgw = &plan.transit_gateways[of.tgw];
    let change = |&table: &usize| {
        let line = format!(
            "transit_gateways.{}.route_tables.{}.associate += {}",
            tgw.common.name, plan.tgw_route_tables[table].common.name, of.common.name
        );
        Change::new(line, move |world| world.plan.tgw_attachments[attachment].route_table = Some(table))
    };
    tgw.route_tables.iter().map(change).collect()
}

fn missing_tgw_route(plan: &Plan, from: EniIx, wanted: Ipv4Addr, at: usize) -> Vec<Change> {
    let behind = tgw_ways(plan, from, wanted, at);
    let mut changes: Vec<Change> = behind.iter().filter_map(|attachment| propagate(plan, at, *attachment)).collect();
    let to = if home_of(plan, from, wanted).is_some() { block_of(plan, from, wanted) } else { Cidr::ANY };
    changes.extend(behind.iter().map(|attachment| tgw_route(plan, at, to, *attachment)));
    changes
}

/// Attachments of the table's transit gateway that lead to the address; to the Internet, those of VPCs that have a
/// gateway to it.
fn tgw_ways(plan: &Plan, from: EniIx, wanted: Ipv4Addr, table: usize) -> Vec<usize> {
    let tgw = plan.tgw_route_tables[table].tgw;
    let home = home_of(plan, from, wanted);
    let leads = |to: &AttachmentTo| match (to, home) {
        (AttachmentTo::Vpc(to), Some(Home::Subnet { vpc, .. })) => to.vpc == vpc,
        (AttachmentTo::Link(link), Some(Home::Site(site))) => plan.links[*link].site == site,
        (AttachmentTo::Vpc(to), None | Some(Home::Internet)) => {
            !wanted.is_private() && plan.internet_gateways.iter().any(|igw| igw.vpc == to.vpc)
        }
        _ => false,
    };
    let all = plan.tgw_attachments.iter().enumerate().filter(|(_, a)| a.tgw == tgw && leads(&a.to));
    all.map(|(at, _)| at).collect()
}

/// `transit_gateways.tgw.route_tables.spokes.propagate += hub`.
fn propagate(plan: &Plan, table: usize, attachment: usize) -> Option<Change> {
    let of = &plan.tgw_route_tables[table];
    let blocks = match &plan.tgw_attachments[attachment].to {
        AttachmentTo::Vpc(to) => plan.vpcs[to.vpc].cidrs.clone(),
        // Static routing propagates nothing.
        AttachmentTo::Link(link) if matches!(plan.links[*link].kind, LinkKind::Vpn { static_routing: true, .. }) => {
            return None;
        }
        AttachmentTo::Link(link) => plan.links[*link].site_blocks.clone(),
    };
    let (id, name) = (of.common.id.clone(), &plan.tgw_attachments[attachment].common.name);
    let tgw = &plan.transit_gateways[of.tgw].common.name;
    let line = format!("transit_gateways.{tgw}.route_tables.{}.propagate += {name}", of.common.name);
    Some(Change::new(line, move |world| {
        let routes = &mut world.plan.tgw_route_tables[table].routes;
        for to in &blocks {
            if !routes.iter().any(|route| route.to == *to) {
                let target = TgwTarget::Attachment(attachment);
                routes.push(TgwRoutePlan { id: format!("{id}/{to}"), to: *to, target, propagated: true });
            }
        }
    }))
}

/// `transit_gateways.tgw.route_tables.spokes.routes += { to: 0.0.0.0/0, via: egress }`.
fn tgw_route(plan: &Plan, table: usize, to: Cidr, attachment: usize) -> Change {
    let of = &plan.tgw_route_tables[table];
    let tgw = &plan.transit_gateways[of.tgw].common.name;
    let name = &plan.tgw_attachments[attachment].common.name;
    let route = format!("{{ to: {to}, via: {name} }}");
    let line = match implied_table(plan, table) {
        // What the file leaves out cannot be added to: it is written whole.
        Some(all) => format!(
            "transit_gateways.{tgw}.route_tables: {{ {}: {{ associate: [{all}], propagate: [{all}], routes: [{route}] }} }}",
            of.common.name
        ),
        None => format!("transit_gateways.{tgw}.route_tables.{}.routes += {route}", of.common.name),
    };
    let route = TgwRoutePlan {
        id: format!("{}/{to}", of.common.id),
        to,
        target: TgwTarget::Attachment(attachment),
        propagated: false,
    };
    Change::new(line, move |world| {
        let routes = &mut world.plan.tgw_route_tables[table].routes;
        // Static ones win.
        routes.retain(|old| old.to != route.to);
        routes.insert(0, route.clone());
    })
}

/// All attachments, where the table is the one that stands for `route_tables` left out.
fn implied_table(plan: &Plan, table: usize) -> Option<String> {
    let of = &plan.tgw_route_tables[table];
    let tgw = &plan.transit_gateways[of.tgw];
    let all = || tgw.attachments.iter().map(|at| &plan.tgw_attachments[*at]);
    let implied = tgw.route_tables.len() == 1
        && of.common.name == "default"
        && of.routes.iter().all(|route| route.propagated)
        && all().all(|attachment| attachment.route_table == Some(table));
    implied.then(|| all().map(|attachment| attachment.common.name.as_str()).collect::<Vec<_>>().join(", "))
}

/// Without the route; or with another in its place, for what it hid is not known any more.
fn tgw_blackhole(plan: &Plan, from: EniIx, wanted: Ipv4Addr, at: usize, route: usize) -> Vec<Change> {
    let table = &plan.tgw_route_tables[at];
    let to = table.routes[route].to;
    let tgw = &plan.transit_gateways[table.tgw].common.name;
    let line =
        format!("transit_gateways.{tgw}.route_tables.{}.routes -= {{ to: {to}, via: blackhole }}", table.common.name);
    let without =
        || Change::new(line.clone(), move |world| world.plan.tgw_route_tables[at].routes.retain(|old| old.to != to));
    let ways = tgw_ways(plan, from, wanted, at);
    let mut changes = vec![without()];
    changes.extend(ways.into_iter().map(|attachment| without().and(tgw_route(plan, at, to, attachment))));
    changes
}

/// A peering of the two VPCs, for one of others leads no further.
fn around_the_peer(plan: &Plan, record: &DropRecord) -> Vec<Change> {
    let (from, wanted) = (record.from, record.tuple.dst);
    let (Some(vpc), Some(Home::Subnet { vpc: other, .. })) = (plan.eni(from).vpc(), home_of(plan, from, wanted)) else {
        return Vec::new();
    };
    let Some(subnet) = plan.subnet_of(from) else { return Vec::new() };
    let table = subnet.route_table;
    let to = block_of(plan, from, wanted);
    // The route that led to the wrong peer.
    let wrong = plan.route_tables[table]
        .routes
        .iter()
        .position(|route| matches!(route.target, RouteTarget::Peering(_)) && plan.blocks(&route.to).contains(&to));
    let there = plan.peerings.iter().position(|p| p.other(vpc) == Some(other));
    let route = match there {
        Some(at) => Some(add_route(plan, table, to, RouteTarget::Peering(at))),
        None => new_peering(plan, vpc, other).map(|peering| peering.and(to_peering(plan, table, other, to))),
    };
    let Some(route) = route else { return Vec::new() };
    vec![match wrong {
        Some(wrong) => route.after(drop_route(plan, table, wrong)),
        None => route,
    }]
}

/// `peerings += { a-b: { requester: a, accepter: b } }`; none between VPCs whose blocks meet.
fn new_peering(plan: &Plan, vpc: usize, other: usize) -> Option<Change> {
    let (a, b) = (&plan.vpcs[vpc], &plan.vpcs[other]);
    if a.cidrs.iter().any(|own| b.cidrs.iter().any(|block| own.overlaps(*block))) {
        return None;
    }
    let name = format!("{}-{}", a.common.name, b.common.name);
    if plan.peerings.iter().any(|p| p.common.name == name) {
        return None;
    }
    let line = format!("peerings += {{ {name}: {{ requester: {}, accepter: {} }} }}", a.common.name, b.common.name);
    let same_region = a.region == b.region;
    let change = Change::new(line, move |world| {
        let common = Common { name: name.clone(), path: name.clone(), ..Common::default() };
        world.plan.peerings.push(PeeringPlan { common, requester: vpc, accepter: other, dns: false, same_region });
    });
    Some(change.of_new())
}

/// By the peering that [`new_peering`] makes: the last one.
fn to_peering(plan: &Plan, table: usize, other: usize, to: Cidr) -> Change {
    let of = &plan.route_tables[table];
    let key = path("route_tables", &of.common.path);
    let name = format!("{}-{}", plan.vpcs[of.vpc].common.name, plan.vpcs[other].common.name);
    let target = RouteTarget::Peering(plan.peerings.len());
    let route = RoutePlan { id: String::new(), to: RouteDest::Cidr(to), target, origin: RouteOrigin::Created };
    Change::new(format!("{key}.routes += {{ to: {to}, via: peering:{name} }}"), move |world| {
        world.plan.route_tables[table].routes.push(route.clone());
    })
}

/// `on_prem.dc.routes += { to: 10.0.0.0/16, via: vpn }`.
fn missing_site_route(plan: &Plan, from: EniIx, wanted: Ipv4Addr, at: usize) -> Vec<Change> {
    let to = block_of(plan, from, wanted);
    let change = |&link: &usize| {
        let vpn = matches!(plan.links[link].kind, LinkKind::Vpn { .. });
        let kind = if vpn { "vpn" } else { "direct_connect" };
        let line = format!("on_prem.{}.routes += {{ to: {to}, via: {kind} }}", plan.sites[at].common.name);
        Change::new(line, move |world| {
            world.plan.sites[at].routes.insert(0, SiteRoutePlan { to, via: SiteTarget::Link(link), learned: false });
        })
    };
    plan.sites[at].links.iter().map(change).collect()
}

/// The whole block that an address belongs to: its VPC's or its site's.
fn block_of(plan: &Plan, from: EniIx, addr: Ipv4Addr) -> Cidr {
    let blocks = match home_of(plan, from, addr) {
        Some(Home::Subnet { vpc, .. }) => plan.vpcs[vpc].cidrs.as_slice(),
        Some(Home::Site(site)) => plan.sites[site].cidrs.as_slice(),
        _ => &[],
    };
    blocks.iter().find(|block| block.contains(addr)).copied().unwrap_or(Cidr::host(addr))
}

/// The network of who has the address, seen from an ENI.
fn home_of(plan: &Plan, from: EniIx, addr: Ipv4Addr) -> Option<Home> {
    eni_at(plan, from, addr).map(|eni| plan.eni(eni).home)
}

fn tgws_of(plan: &Plan, vpc: usize) -> impl Iterator<Item = usize> {
    let attached = move |to: &AttachmentTo| matches!(to, AttachmentTo::Vpc(to) if to.vpc == vpc);
    plan.tgw_attachments.iter().filter(move |a| attached(&a.to)).map(|a| a.tgw)
}

fn is_public(plan: &Plan, addr: Ipv4Addr) -> bool {
    plan.public_addresses.iter().any(|public| public.addr == addr)
}
