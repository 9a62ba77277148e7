//! The smallest change of routes and gateways that would let a refused packet pass.

use std::net::Ipv4Addr;

use super::Explanation;
use super::path::eni_at;
use crate::base::{Cidr, EniIx};
use crate::model::Plan;
use crate::model::plan::{
    AttachmentTo, EniOwner, Fault, FaultPlan, Home, NatGatewayPlan, RouteDest, RouteOrigin, RoutePlan, RouteTarget,
    SubnetPlan, TgwRoutePlan, TgwTarget,
};

/// Codes that this file has a change for.
pub(super) fn is_about(code: &str) -> bool {
    matches!(
        code,
        "RT_NO_ROUTE"
            | "IGW_NO_PUBLIC_IP"
            | "NAT_NO_IGW"
            | "TGW_NO_AZ"
            | "TGW_NO_ASSOCIATION"
            | "TGW_NO_ROUTE"
            | "TGW_BLACKHOLE"
            | "PEER_TRANSIT"
            | "GWE_NOT_IN_VPC"
            | "SITE_NO_ROUTE"
            | "AZ_DOWN"
            | "VPCE_AZ_DOWN"
            | "INSTANCE_DOWN"
            | "VPN_DOWN"
            | "LINK_IMPAIRED"
            | "NAT_NO_PORT"
    )
}

/// The change in words, and whether it was made in `plan`.
pub(super) fn change(plan: &mut Plan, from: EniIx, dst: Ipv4Addr, told: &Explanation) -> Option<(String, bool)> {
    // On the way back a packet is for the client.
    let back = told.stage == Some("back");
    let wanted = if back { plan.eni(from).ip } else { dst };
    let object = told.object.clone()?;
    let code = told.code.as_deref()?;
    match code {
        "RT_NO_ROUTE" => missing_route(plan, from, wanted, &object),
        "IGW_NO_PUBLIC_IP" => {
            let EniOwner::Instance(at, _) = plan.eni(from).owner else { return None };
            Some((format!("{}.public_ip: true", path("instances", &plan.instances[at].common.path)), false))
        }
        "NAT_NO_IGW" => {
            let table = told.kind.as_deref() == Some("route-table");
            if !table {
                return Some(("a public NAT gateway: a private one does not lead to the Internet".into(), false));
            }
            let at = plan.route_tables.iter().position(|t| t.common.path == object)?;
            let vpc = plan.route_tables[at].vpc;
            let igw = plan.internet_gateways.iter().position(|igw| igw.vpc == vpc)?;
            if let Some(change) = to_public_subnet(plan, at, vpc) {
                return Some((change, false));
            }
            Some(add_route(plan, at, Cidr::ANY, RouteTarget::Igw(igw)))
        }
        "TGW_NO_AZ" => {
            let zone = plan.subnet_of(from)?.az;
            Some((format!("transit_gateways.{object}.attachments: a subnet in zone {zone}"), false))
        }
        "TGW_NO_ASSOCIATION" => {
            let attachment = plan.tgw_attachments.iter().find(|a| a.common.path == object)?;
            let tgw = &plan.transit_gateways[attachment.tgw];
            let table = &plan.tgw_route_tables[*tgw.route_tables.first()?].common.name;
            let name = &attachment.common.name;
            Some((format!("transit_gateways.{}.route_tables.{table}.associate += {name}", tgw.common.name), false))
        }
        "TGW_NO_ROUTE" => missing_tgw_route(plan, from, wanted, &object),
        "TGW_BLACKHOLE" => {
            let table = plan.tgw_route_tables.iter().find(|t| t.common.path == object)?;
            let tgw = &plan.transit_gateways[table.tgw].common.name;
            let rule = told.rule.as_deref()?;
            Some((format!("transit_gateways.{tgw}.route_tables.{}.routes -= {{ {rule} }}", table.common.name), false))
        }
        "PEER_TRANSIT" => {
            let ends = (plan.vpc_of(from), eni_at(plan, from, dst).and_then(|eni| plan.vpc_of(eni)));
            let (Some(a), Some(b)) = ends else {
                return Some(("a way of its own: a peering leads to the peer's own addresses only".into(), false));
            };
            let (a, b) = (&a.common.name, &b.common.name);
            Some((
                format!("peerings += {{ {a}-{b}: {{ requester: {a}, accepter: {b} }} }}, and routes on both sides"),
                false,
            ))
        }
        "GWE_NOT_IN_VPC" => {
            let endpoint = plan.endpoints.iter().find(|e| e.common.path == object)?;
            let vpc = &plan.vpcs[endpoint.vpc].common.name;
            let service = &plan.services[endpoint.service].name;
            Some((
                format!(
                    "{vpc}.endpoints += {{ {service}-door: {{ service: {service}, type: interface }} }}, and its name"
                ),
                false,
            ))
        }
        "SITE_NO_ROUTE" => {
            let site = plan.sites.iter().find(|site| site.common.path == object)?;
            let link = plan.links.get(*site.links.first()?)?;
            let kind =
                if matches!(link.kind, crate::model::plan::LinkKind::Vpn { .. }) { "vpn" } else { "direct_connect" };
            let to = block_of(plan, from, wanted);
            Some((format!("on_prem.{}.routes += {{ to: {to}, via: {kind} }}", site.common.name), false))
        }
        "AZ_DOWN" | "VPCE_AZ_DOWN" | "INSTANCE_DOWN" | "VPN_DOWN" | "LINK_IMPAIRED" => {
            Some((end_of_fault(plan, code, &object)?, false))
        }
        "NAT_NO_PORT" => Some((format!("limits.nat_ports: {}", plan.limits.nat_ports.saturating_mul(2)), false)),
        _ => None,
    }
}

/// `vpc.nat_gateways.natgw-a.subnet: public-a`: a NAT gateway whose subnet has this table, in a subnet whose table leads
/// to the Internet gateway, of its own zone if there is one. Another route in the table would be its clients' too.
fn to_public_subnet(plan: &Plan, table: usize, vpc: usize) -> Option<String> {
    let subnet_of = |nat: &&NatGatewayPlan| &plan.subnets[nat.subnet];
    let nat = plan.nat_gateways.iter().find(|nat| nat.public && subnet_of(nat).route_table == table)?;
    let leads =
        |route: &RoutePlan| plan.blocks(&route.to).contains(&Cidr::ANY) && matches!(route.target, RouteTarget::Igw(_));
    let public =
        |subnet: &&SubnetPlan| subnet.vpc == vpc && plan.route_tables[subnet.route_table].routes.iter().any(leads);
    let near = plan.subnets.iter().filter(public).find(|subnet| subnet.az == plan.subnets[nat.subnet].az);
    let subnet = near.or_else(|| plan.subnets.iter().find(public))?;
    Some(format!("{}.subnet: {}", path("nat_gateways", &nat.common.path), subnet.common.name))
}

/// How the fault ends that a refusal at `object` is due to: by its id in a running lab, else by the file.
fn end_of_fault(plan: &Plan, code: &str, object: &str) -> Option<String> {
    let own: Vec<EniIx> = (0..plan.enis.len() as u32)
        .map(EniIx)
        .filter(|ix| !plan.eni(*ix).owner.is_door() && super::owner(plan, *ix).1 == object)
        .collect();
    let in_zone = |az: &str| own.iter().any(|eni| plan.subnet_of(*eni).is_some_and(|subnet| subnet.az_id == az));
    let fits = |fault: &&FaultPlan| match &fault.what {
        Fault::Zone { az_id } => matches!(code, "AZ_DOWN" | "VPCE_AZ_DOWN") && in_zone(az_id),
        Fault::Endpoint { enis, .. } => code == "VPCE_AZ_DOWN" && own.iter().any(|eni| enis.contains(eni)),
        Fault::Instance(at) => code == "INSTANCE_DOWN" && plan.instances[*at].common.path == object,
        Fault::Link { instance, .. } => code == "LINK_IMPAIRED" && plan.instances[*instance].common.path == object,
        Fault::Tunnel { link, .. } => code == "VPN_DOWN" && plan.links[*link].common.path == object,
    };
    let holds = || plan.faults.iter().filter(|fault| fault.after.is_none());
    // What stands in a zone without an ENI of its own there: an attachment.
    let of_zone = || holds().find(|fault| code == "AZ_DOWN" && matches!(fault.what, Fault::Zone { .. }));
    match holds().rfind(fits).or_else(of_zone) {
        Some(fault) if fault.id == 0 => Some(format!("faults -= {{ {} }}", fault.title)),
        Some(fault) => Some(format!("vpclab fault clear {}    # {}", fault.id, fault.title)),
        // Nobody broke the link: the file made it so.
        None if code == "LINK_IMPAIRED" => Some(format!("{}.impair -= {{ down }}", path("instances", object))),
        None => None,
    }
}

/// A route that leads to who has the address: the first kind of gateway that the VPC has for it.
fn missing_route(plan: &mut Plan, from: EniIx, wanted: Ipv4Addr, object: &str) -> Option<(String, bool)> {
    let at = plan.route_tables.iter().position(|t| t.common.path == object)?;
    let vpc = plan.route_tables[at].vpc;
    let gateway = plan.endpoints.iter().enumerate().find(|(_, e)| {
        let crate::model::plan::EndpointKind::Gateway { prefix_list, .. } = &e.kind else { return false };
        e.vpc == vpc && plan.prefix_lists[*prefix_list].entries.iter().any(|block| block.contains(wanted))
    });
    if let Some((_, endpoint)) = gateway {
        let table = &plan.route_tables[at].common.name;
        let name = &endpoint.common.name;
        let vpc = &plan.vpcs[vpc].common.name;
        return Some((format!("{vpc}.endpoints.{name}.route_tables += {table}"), false));
    }
    let home = eni_at(plan, from, wanted).map(|eni| plan.eni(eni).home);
    let to = block_of(plan, from, wanted);
    let target = match home {
        Some(Home::Subnet { vpc: other, .. }) if other != vpc && !is_public(plan, wanted) => {
            let peering = plan.peerings.iter().position(|p| p.other(vpc) == Some(other));
            peering.map(RouteTarget::Peering).or_else(|| tgw_of(plan, vpc).map(RouteTarget::Tgw))
        }
        Some(Home::Site(_)) => {
            let vgw = plan.vgws.iter().position(|vgw| vgw.vpc == vpc && !vgw.links.is_empty());
            vgw.map(RouteTarget::Vgw).or_else(|| tgw_of(plan, vpc).map(RouteTarget::Tgw))
        }
        _ if wanted.is_private() => None,
        _ => {
            let igw = plan.internet_gateways.iter().position(|igw| igw.vpc == vpc);
            let public = plan.public_addresses.iter().any(|p| p.eni == from);
            let nat = plan.nat_gateways.iter().position(|nat| nat.vpc == vpc && nat.public);
            igw.filter(|_| public).map(RouteTarget::Igw).or(nat.map(RouteTarget::Nat))
        }
    };
    let to = if matches!(target, Some(RouteTarget::Igw(_) | RouteTarget::Nat(_))) { Cidr::ANY } else { to };
    Some(add_route(plan, at, to, target?))
}

fn missing_tgw_route(plan: &mut Plan, from: EniIx, wanted: Ipv4Addr, object: &str) -> Option<(String, bool)> {
    let at = plan.tgw_route_tables.iter().position(|t| t.common.path == object)?;
    let tgw = plan.tgw_route_tables[at].tgw;
    let home = plan.eni(eni_at(plan, from, wanted)?).home;
    let leads = |to: &AttachmentTo| match (to, home) {
        (AttachmentTo::Vpc(to), Home::Subnet { vpc, .. }) => to.vpc == vpc,
        (AttachmentTo::Link(link), Home::Site(site)) => plan.links[*link].site == site,
        _ => false,
    };
    let attachment = plan.tgw_attachments.iter().position(|a| a.tgw == tgw && leads(&a.to))?;
    let name = plan.tgw_attachments[attachment].common.name.clone();
    let to = block_of(plan, from, wanted);
    let table = &mut plan.tgw_route_tables[at];
    let id = format!("{}/{to}", table.common.id);
    table.routes.push(TgwRoutePlan { id, to, target: TgwTarget::Attachment(attachment), propagated: true });
    let table = table.common.name.clone();
    let tgw = &plan.transit_gateways[tgw].common.name;
    Some((format!("transit_gateways.{tgw}.route_tables.{table}.propagate += {name}"), true))
}

fn add_route(plan: &mut Plan, table: usize, to: Cidr, target: RouteTarget) -> (String, bool) {
    let route = RoutePlan { id: String::new(), to: RouteDest::Cidr(to), target, origin: RouteOrigin::Created };
    let text = plan.route_text(&route);
    let (to, via) = text.split_once(" via ").unwrap_or((&text, ""));
    let compiled = &mut plan.route_tables[table];
    compiled
        .routes
        .retain(|old| old.to != RouteDest::Cidr(to.parse().unwrap_or(Cidr::ANY)) || old.target == RouteTarget::Local);
    let at = path("route_tables", &plan.route_tables[table].common.path);
    let told = format!("{at}.routes += {{ to: {to}, via: {via} }}");
    plan.route_tables[table].routes.push(route);
    (told, true)
}

/// The whole block that an address belongs to: its VPC's or its site's.
fn block_of(plan: &Plan, from: EniIx, addr: Ipv4Addr) -> Cidr {
    let home = eni_at(plan, from, addr).map(|eni| plan.eni(eni).home);
    let blocks = match home {
        Some(Home::Subnet { vpc, .. }) => plan.vpcs[vpc].cidrs.as_slice(),
        Some(Home::Site(site)) => plan.sites[site].cidrs.as_slice(),
        _ => &[],
    };
    blocks.iter().find(|block| block.contains(addr)).copied().unwrap_or(Cidr::host(addr))
}

fn tgw_of(plan: &Plan, vpc: usize) -> Option<usize> {
    let attached = |to: &AttachmentTo| matches!(to, AttachmentTo::Vpc(to) if to.vpc == vpc);
    plan.tgw_attachments.iter().find(|a| attached(&a.to)).map(|a| a.tgw)
}

fn is_public(plan: &Plan, addr: Ipv4Addr) -> bool {
    plan.public_addresses.iter().any(|public| public.addr == addr)
}

/// `app.route_tables.private` of `app.private`.
fn path(noun: &str, path: &str) -> String {
    match path.split_once('.') {
        Some((vpc, name)) => format!("{vpc}.{noun}.{name}"),
        None => format!("{noun}.{path}"),
    }
}
