//! Transit gateways: attachments of VPCs and sites, route tables with association and propagation apart (Transit Gateway
//! guide).

use std::collections::HashMap;

use super::eni::EniDraft;
use super::{Draft, common, site};
use crate::base::ids::aws_id;
use crate::model::plan::{
    AttachmentTo, Common, EniOwner, LinkEnd, LinkKind, TgwAttachmentPlan, TgwRoutePlan, TgwRouteTablePlan, TgwTarget,
    TransitGatewayPlan, VpcAttachment,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::source::Place;

/// Gateways and attachments; what tables hold follows when all of them are known: [`routes`].
pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("transit_gateways") {
        let Some(index) = cx.names.at_path(Kind::Tgw, &e.key) else { continue };
        let Some(f) = Fields::open(cx, &keys::TRANSIT_GATEWAY, format!("transit gateway {}", e.key), e) else {
            continue;
        };
        let common = common(&f, Kind::Tgw, index);
        let region = super::vpc::region(&f, "region").map_or_else(|| cx.region.clone(), |r| r.name.to_owned());
        let account = f.account("account").unwrap_or_else(|| cx.default_account.clone());
        let pmtud = f.bool("pmtud").is_none_or(|b| b.value);
        let mut attachments = Vec::new();
        let mut vpcs: HashMap<usize, Place> = HashMap::new();
        for a in f.named("attachments") {
            let path = format!("{}.{}", e.key, a.key);
            let Some(at) = cx.names.at_path(Kind::TgwAttachment, &path) else { continue };
            let Some(af) = Fields::open(cx, &keys::TGW_ATTACHMENT, format!("attachment {path}"), a) else { continue };
            if let Some(to) = attachment(&af, index, at, &region, &mut vpcs, draft) {
                let common = super::common(&af, Kind::TgwAttachment, at);
                draft.tgw_attachments[at] = Some(TgwAttachmentPlan { common, tgw: index, to, route_table: None });
                attachments.push(at);
            }
            af.done();
        }
        // A link of a site whose attachment nobody wrote.
        for link in 0..draft.links.len() {
            let written = |a: &TgwAttachmentPlan| matches!(a.to, AttachmentTo::Link(at) if at == link);
            let unwritten = draft.links[link].end == LinkEnd::Tgw(index)
                && !draft.linked.contains(&link)
                && !draft.tgw_attachments.iter().flatten().any(written);
            if unwritten {
                let of = draft.links[link].common.clone();
                let name = of.name.replace('/', "-");
                let at = draft.tgw_attachments.len();
                draft.tgw_attachments.push(Some(TgwAttachmentPlan {
                    common: Common {
                        path: format!("{}.{name}", e.key),
                        id: aws_id("tgw-attach", &common.id, &name),
                        name,
                        ..Common::default()
                    },
                    tgw: index,
                    to: AttachmentTo::Link(link),
                    route_table: None,
                }));
                join(draft, link, at);
                attachments.push(at);
            }
        }
        let tables: Vec<usize> = (0..cx.names.list(Kind::TgwTable).len())
            .filter(|at| cx.names.get(Kind::TgwTable, *at).path.split('.').next() == Some(e.key.as_str()))
            .collect();
        // Read in `routes`.
        let _ = f.entry("route_tables");
        draft.transit_gateways[index] =
            Some(TransitGatewayPlan { common, region, account, pmtud, attachments, route_tables: tables });
        f.done();
    }
}

fn attachment(
    f: &Fields<'_>,
    tgw: usize,
    index: usize,
    region: &str,
    vpcs: &mut HashMap<usize, Place>,
    draft: &mut Draft,
) -> Option<AttachmentTo> {
    let cx = f.cx;
    let said: Vec<&str> = ["vpc", "vpn", "direct_connect"].into_iter().filter(|key| f.has(key)).collect();
    let [one] = said[..] else {
        cx.error(f.error(f.place, "an attachment is of one of `vpc`, `vpn` and `direct_connect`"));
        return None;
    };
    if one != "vpc" {
        let t = f.text(one)?;
        let site = f.reference(Kind::Site, None, t)?;
        let is = |at: &usize| {
            let link = &draft.links[*at];
            link.site == site && matches!(link.kind, LinkKind::Vpn { .. }) == (one == "vpn")
        };
        let link = (0..draft.links.len()).find(is);
        let ends_here = link.is_some_and(|at| draft.links[at].end == LinkEnd::Tgw(tgw) && !draft.linked.contains(&at));
        let Some(link) = link.filter(|_| ends_here) else {
            let message = format!("site {} has no {one} that ends at this transit gateway", t.value);
            let help = format!("`{one}: {{ to: tgw:{} }}` at the site", cx.names.get(Kind::Tgw, tgw).name);
            cx.error(f.error(t.place, message).help(help));
            return None;
        };
        join(draft, link, index);
        return Some(AttachmentTo::Link(link));
    }
    let t = f.text("vpc")?;
    let vpc = f.reference(Kind::Vpc, None, t)?;
    let named = cx.names.get(Kind::Vpc, vpc);
    if let Some(first) = vpcs.insert(vpc, t.place) {
        let message = format!("VPC {} has an attachment to this transit gateway already", named.name);
        cx.error(f.error(t.place, message).code("DuplicateTransitGatewayAttachment").also(first, "the other one"));
        return None;
    }
    if draft.vpcs[vpc].as_ref().is_some_and(|v| v.region != region) {
        let message = format!("VPC {} is in another region than the transit gateway ({region})", named.name);
        cx.error(f.error(t.place, message).code("InvalidVpcID.NotFound"));
    }
    let mut zones: HashMap<char, (usize, Place)> = HashMap::new();
    let subnets = f.texts("subnets").unwrap_or_default();
    if subnets.is_empty() {
        let found = f.error(f.place, "an attachment of a VPC is in at least one subnet").code("MissingParameter");
        cx.error(found.help("one in each zone: nobody in a zone without one reaches the transit gateway"));
    }
    let common = cx.names.get(Kind::TgwAttachment, index);
    for t in subnets {
        let Some(subnet) = f.reference_within(Kind::Subnet, vpc, t, "InvalidSubnetID.NotFound") else { continue };
        let Some(plan) = draft.subnets[subnet].as_ref() else { continue };
        if let Some((other, first)) = zones.insert(plan.az, (subnet, t.place)) {
            let other = &cx.names.get(Kind::Subnet, other).path;
            let message = format!("{} and {other} are both in zone {}", plan.common.path, plan.az);
            cx.error(f.error(t.place, message).code("DuplicateSubnetsInSameZone").also(first, other.as_str()));
            continue;
        }
        draft.eni_drafts.push(EniDraft {
            common: Common {
                name: format!("{}@{}", common.name, plan.az),
                path: format!("{}@{}", common.path, plan.az),
                id: aws_id("eni", &common.id, &plan.common.path),
                description: format!("Network Interface for Transit Gateway Attachment {}", common.id),
                tags: Vec::new(),
            },
            vpc,
            subnet: Some(subnet),
            outside: None,
            ip: None,
            security_groups: Vec::new(),
            source_dest_check: false,
            owner: EniOwner::TgwAttachment(index),
            place: t.place,
        });
    }
    Some(AttachmentTo::Vpc(VpcAttachment {
        vpc,
        subnets: Vec::new(),
        appliance_mode: f.bool("appliance_mode").is_some_and(|b| b.value),
        security_group_referencing: f.bool("security_group_referencing").is_some_and(|b| b.value),
    }))
}

/// A link's end is from here on its attachment.
fn join(draft: &mut Draft, link: usize, attachment: usize) {
    draft.links[link].end = LinkEnd::Tgw(attachment);
    draft.linked.push(link);
}

/// Association, propagation and static routes of every table.
pub fn routes<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("transit_gateways") {
        let Some(tgw) = cx.names.at_path(Kind::Tgw, &e.key) else { continue };
        let Some(plan) = draft.transit_gateways[tgw].clone() else { continue };
        let Some(written) = e.node.get("route_tables") else {
            let Some(&table) = plan.route_tables.first() else { continue };
            let common = super::implied(cx, Kind::TgwTable, table);
            for at in &plan.attachments {
                associate(draft, *at, table);
            }
            let routes = ordered(draft, &common.id, Vec::new(), &plan.attachments);
            draft.tgw_route_tables[table] = Some(TgwRouteTablePlan { common, tgw, routes });
            continue;
        };
        let mut associated: HashMap<usize, Place> = HashMap::new();
        for t in written.entries() {
            let path = format!("{}.{}", e.key, t.key);
            let Some(table) = cx.names.at_path(Kind::TgwTable, &path) else { continue };
            let title = format!("transit gateway route table {path}");
            let Some(f) = Fields::open(cx, &keys::TGW_ROUTE_TABLE, title, t) else { continue };
            let common = common(&f, Kind::TgwTable, table);
            let drafted: &Draft = draft;
            let find = |text: At<&str>| attachment_of(&f, drafted, &plan, text);
            let mut own = Vec::new();
            for text in f.texts("associate").unwrap_or_default() {
                let Some(at) = find(text) else { continue };
                own.push(at);
                if let Some(first) = associated.insert(at, text.place) {
                    let message = format!("attachment {} is associated with a route table already", text.value);
                    cx.error(f.error(text.place, message).code("Resource.AlreadyAssociated").also(first, "here"));
                }
            }
            let propagate: Vec<usize> = f.texts("propagate").unwrap_or_default().into_iter().filter_map(find).collect();
            let mut statics = Vec::new();
            let mut seen = HashMap::new();
            for node in f.list("routes") {
                let place = node.entries().first().map_or(f.key_place("routes"), |e| e.key_place);
                let Some(r) = Fields::open_node(cx, &keys::TGW_ROUTE, f.title.clone(), node, place) else { continue };
                let _ = r.text("description");
                if let (Some(to), Some(via)) = (r.cidr("to", true), r.text("via")) {
                    let target = match via.value {
                        "blackhole" => Some(TgwTarget::Blackhole),
                        _ => attachment_of(&r, draft, &plan, via).map(TgwTarget::Attachment),
                    };
                    if let Some(first) = seen.insert(to.value, to.place) {
                        let message = format!("there is a static route to {} already", to.value);
                        cx.error(r.error(to.place, message).code("RouteAlreadyExists").also(first, "here"));
                    } else if let Some(target) = target {
                        let id = format!("{}/{}", common.id, to.value);
                        statics.push(TgwRoutePlan { id, to: to.value, target, propagated: false });
                    }
                }
                r.done();
            }
            let routes = ordered(draft, &common.id, statics, &propagate);
            draft.tgw_route_tables[table] = Some(TgwRouteTablePlan { common, tgw, routes });
            for at in own {
                associate(draft, at, table);
            }
            f.done();
        }
    }
}

fn associate(draft: &mut Draft, attachment: usize, table: usize) {
    if let Some(attachment) = &mut draft.tgw_attachments[attachment] {
        attachment.route_table = Some(table);
    }
}

fn attachment_quiet(draft: &Draft, plan: &TransitGatewayPlan, name: &str) -> Option<usize> {
    let named = |at: &&usize| draft.tgw_attachments[**at].as_ref().is_some_and(|a| a.common.name == name);
    plan.attachments.iter().find(named).copied()
}

fn attachment_of(f: &Fields<'_>, draft: &Draft, plan: &TransitGatewayPlan, t: At<&str>) -> Option<usize> {
    let found = attachment_quiet(draft, plan, t.value);
    if found.is_none() {
        let known: Vec<&str> = plan
            .attachments
            .iter()
            .filter_map(|at| Some(draft.tgw_attachments[*at].as_ref()?.common.name.as_str()))
            .collect();
        let found = f.error(t.place, format!("there is no attachment `{}`", t.value));
        let found = found.code("InvalidTransitGatewayAttachmentID.NotFound");
        f.cx.error(found.help(format!("known: {}", known.join(", "))));
    }
    found
}

/// Static routes, then those of VPCs, of Direct Connect, of VPNs. An equal block that came before hides what comes after.
fn ordered(draft: &Draft, id: &str, statics: Vec<TgwRoutePlan>, propagate: &[usize]) -> Vec<TgwRoutePlan> {
    let rank = |at: &usize| match draft.tgw_attachments[*at].as_ref().map(|a| &a.to) {
        Some(AttachmentTo::Link(link)) => match draft.links[*link].kind {
            LinkKind::DirectConnect { .. } => 1,
            LinkKind::Vpn { .. } => 2,
        },
        _ => 0,
    };
    let mut from: Vec<usize> = propagate.to_vec();
    from.sort_by_key(rank);
    let mut routes = statics;
    for at in from {
        for to in site::blocks_behind(draft, at) {
            if routes.iter().any(|route| route.to == to) {
                continue;
            }
            routes.push(TgwRoutePlan {
                id: format!("{id}/{to}"),
                to,
                target: TgwTarget::Attachment(at),
                propagated: true,
            });
        }
    }
    routes
}
