//! Transit gateways: attachments of VPCs and sites, route tables with association and propagation apart (Transit Gateway
//! guide).

use std::collections::HashMap;

use super::eni::EniDraft;
use super::{Draft, common, link, site};
use crate::base::ids::aws_id;
use crate::model::load::route_key;
use crate::model::plan::{
    AttachmentTo, Common, EniOwner, LinkEnd, LinkKind, TgwAttachmentPlan, TgwRoutePlan, TgwRouteTablePlan, TgwTarget,
    TransitGatewayPlan, VpcAttachment,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::Value;
use crate::model::spec::report::Found;
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
        // What stands there is read in `routes`.
        let _ = f.named("route_tables");
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
    if one == "vpc" { to_vpc(f, tgw, index, region, vpcs, draft) } else { to_link(f, one, tgw, index, draft) }
}

/// `one` is the key of the link: `vpn` or `direct_connect`.
fn to_link(f: &Fields<'_>, one: &str, tgw: usize, index: usize, draft: &mut Draft) -> Option<AttachmentTo> {
    let cx = f.cx;
    for key in ["subnets", "appliance_mode", "security_group_referencing"] {
        if f.has(key) {
            let _ = f.entry(key);
            let message = format!("`{key}` is for attachments of VPCs");
            cx.error(f.error(f.key_place(key), message).code("InvalidParameterCombination"));
        }
    }
    let t = f.text(one)?;
    let site = f.reference(Kind::Site, None, t)?;
    let is = |at: &usize| {
        let link = &draft.links[*at];
        link.site == site && matches!(link.kind, LinkKind::Vpn { .. }) == (one == "vpn")
    };
    let link = (0..draft.links.len()).find(is);
    let taken = link.filter(|at| draft.linked.contains(at));
    if taken.is_some_and(|at| attachment_of_link(draft, at).is_some_and(|other| other.tgw == tgw)) {
        let message = format!("the {one} of site {} has an attachment already", t.value);
        cx.error(f.error(t.place, message).code("DuplicateTransitGatewayAttachment"));
        return None;
    }
    let Some(link) = link.filter(|at| taken.is_none() && draft.links[*at].end == LinkEnd::Tgw(tgw)) else {
        let message = format!("site {} has no {one} that ends at this transit gateway", t.value);
        let help = format!("`{one}: {{ to: \"tgw:{}\" }}` at the site", cx.names.get(Kind::Tgw, tgw).name);
        let found = f.error(t.place, message).also(cx.names.get(Kind::Site, site).place, "the site");
        cx.error(found.help(help));
        return None;
    };
    join(draft, link, index);
    Some(AttachmentTo::Link(link))
}

/// `vpcs` are those that have an attachment already, and where that is written.
fn to_vpc(
    f: &Fields<'_>,
    tgw: usize,
    index: usize,
    region: &str,
    vpcs: &mut HashMap<usize, Place>,
    draft: &mut Draft,
) -> Option<AttachmentTo> {
    let cx = f.cx;
    let t = f.text("vpc")?;
    let vpc = f.reference(Kind::Vpc, None, t)?;
    let named = cx.names.get(Kind::Vpc, vpc);
    if let Some(first) = vpcs.insert(vpc, t.place) {
        let gateway = &cx.names.get(Kind::Tgw, tgw).name;
        let message = format!("{gateway} has non-deleted Transit Gateway Attachments with same VPC ID: {}", named.name);
        cx.error(f.error(t.place, message).code("DuplicateTransitGatewayAttachment").also(first, "the other one"));
        return None;
    }
    if draft.vpcs[vpc].as_ref().is_some_and(|v| v.region != region) {
        let message = format!("VPC {} is in another region than the transit gateway ({region})", named.name);
        cx.error(f.error(t.place, message).code("InvalidVpcID.NotFound").also(named.place, "the VPC"));
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
            let message =
                format!("Duplicate Subnets for same AZ: {} and {other} are in {}", plan.common.path, plan.az_name);
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

fn attachment_of_link(draft: &Draft, link: usize) -> Option<&TgwAttachmentPlan> {
    draft.tgw_attachments.iter().flatten().find(|a| matches!(a.to, AttachmentTo::Link(at) if at == link))
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
        let tables = e.node.get("route_tables").filter(|tables| !matches!(tables.value, Value::Null));
        let Some(written) = tables else {
            let Some(&table) = plan.route_tables.first() else { continue };
            let common = super::implied(cx, Kind::TgwTable, table);
            for at in &plan.attachments {
                associate(draft, *at, table);
            }
            let all: Vec<(usize, Place)> = plan.attachments.iter().map(|at| (*at, e.key_place)).collect();
            let title = format!("transit gateway {}", e.key);
            let routes = ordered(cx, draft, &title, &common.id, Vec::new(), all);
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
                    let message =
                        format!("Transit Gateway Attachment {} is already associated to a route table", text.value);
                    cx.error(f.error(text.place, message).code("Resource.AlreadyAssociated").also(first, "here"));
                }
            }
            let mut propagate: Vec<(usize, Place)> = Vec::new();
            for text in f.texts("propagate").unwrap_or_default() {
                let Some(at) = find(text) else { continue };
                if let Some((_, first)) = propagate.iter().find(|(other, _)| *other == at) {
                    let message = format!("{} propagates to this table already", text.value);
                    let found = f.error(text.place, message).code("TransitGatewayRouteTablePropagation.Duplicate");
                    cx.error(found.also(*first, "here"));
                } else {
                    propagate.push((at, text.place));
                }
            }
            let mut statics = Vec::new();
            let mut seen = HashMap::new();
            for node in f.list("routes") {
                let place = node.entries().first().map_or(f.key_place("routes"), |e| e.key_place);
                let Some(r) = Fields::open_node(cx, &keys::TGW_ROUTE, f.title.clone(), node, place) else { continue };
                let _ = r.text("description");
                if let (Some(to), Some(via)) = (r.cidr("to", true), r.text("via")) {
                    let key = route_key(&path, &to.value.to_string(), &format!("attachment:{}", via.value));
                    let target = match via.value {
                        "blackhole" => Some(TgwTarget::Blackhole),
                        // As in a VPC's tables: what AWS keeps of a route whose attachment is deleted.
                        _ if cx.standing.routes.contains(&key)
                            && attachment_quiet(draft, &plan, via.value).is_none() =>
                        {
                            let message = format!(
                                "{} has gone: the route to {} stays, in state `blackhole`",
                                via.value, to.value
                            );
                            cx.warning(
                                r.error(via.place, message).help("take the route out, or write `via: blackhole`"),
                            );
                            draft.gone_routes.insert(key);
                            Some(TgwTarget::Blackhole)
                        }
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
            let routes = ordered(cx, draft, &f.title, &common.id, statics, propagate);
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

/// Static routes, then those of VPCs, of Direct Connect, of VPNs. An equal block that came before hides what comes after;
/// of two VPCs with one block only the first is known ("route evaluation order"; "transit gateway quotas").
fn ordered(
    cx: &Cx<'_>,
    draft: &Draft,
    title: &str,
    id: &str,
    statics: Vec<TgwRoutePlan>,
    mut from: Vec<(usize, Place)>,
) -> Vec<TgwRoutePlan> {
    let name = |at: usize| draft.tgw_attachments[at].as_ref().map_or("", |a| a.common.name.as_str());
    from.sort_by_key(|(at, _)| rank(draft, *at));
    let mut routes = statics;
    for (at, place) in from {
        let behind = site::blocks_behind(draft, at);
        if let Some(AttachmentTo::Link(link)) = draft.tgw_attachments[at].as_ref().map(|a| &a.to)
            && link::is_static(&draft.links[*link].kind)
            && !routes.iter().any(|route| route.target == TgwTarget::Attachment(at))
        {
            let message = format!("{title}: a VPN with static routing propagates nothing: {}", name(at));
            let help = format!("`routes: [{{ to: {}, via: {} }}]` in a route table", blocks(draft, *link), name(at));
            cx.warning(Found::at(place, message).help(help));
        }
        for to in behind {
            let same = routes.iter().find(|route| route.to == to);
            let Some(same) = same else {
                let id = format!("{id}/{to}");
                routes.push(TgwRoutePlan { id, to, target: TgwTarget::Attachment(at), propagated: true });
                continue;
            };
            if let TgwTarget::Attachment(first) = same.target
                && same.propagated
                && rank(draft, first) == rank(draft, at)
            {
                let message =
                    format!("{title}: {to} of {} is not propagated: {} has the identical block", name(at), name(first));
                cx.warning(Found::at(place, message).help("only one of them is reached by way of this table"));
            }
        }
    }
    routes
}

fn blocks(draft: &Draft, link: usize) -> String {
    draft.links[link].site_blocks.first().map(ToString::to_string).unwrap_or_default()
}

/// VPC, Direct Connect, VPN.
fn rank(draft: &Draft, attachment: usize) -> u8 {
    match draft.tgw_attachments[attachment].as_ref().map(|a| &a.to) {
        Some(AttachmentTo::Link(link)) => match draft.links[*link].kind {
            LinkKind::DirectConnect { .. } => 1,
            LinkKind::Vpn { .. } => 2,
        },
        _ => 0,
    }
}
