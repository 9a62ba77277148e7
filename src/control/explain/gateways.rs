//! Gateways of all kinds as lines of the page.

use crate::base::EniIx;
use crate::engine::{Crumb, Decider, DropCode, DropRecord, Outcome, Rule, Stage};
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, Fault, LinkKind};

/// How a transit gateway chose a zone where the sender's does not say it.
pub(super) const BY_HASH: &str = "by hash of addresses and ports";

/// Place, question, answer and detail of a gateway's step.
pub(super) fn step(
    plan: &Plan,
    stage: &Stage,
    eni: Option<EniIx>,
    outcome: &Outcome,
    record: Option<&DropRecord>,
) -> (String, String, &'static str, String) {
    let at = eni.map_or_else(|| "-".to_owned(), |eni| plan.eni_label(eni));
    let what = what(plan, stage);
    match outcome {
        Outcome::Pass(rule) => (at, what, word(stage), passed(plan, stage, *rule)),
        Outcome::NotAsked => (at, what, "not asked", String::new()),
        Outcome::Drop(code) => {
            let detail = record.and_then(|record| rule(plan, record).1).unwrap_or_else(|| about_at(plan, *code, eni));
            (at, what, "DENY", detail)
        }
    }
}

/// `zone b, by hash of addresses and ports`: where a transit gateway enters a VPC by one of several zones, in appliance
/// mode or because none of them is the sender's.
pub(super) fn zone_by_hash(plan: &Plan, crumb: &Crumb, before: &[Crumb]) -> Option<String> {
    let (Stage::TgwAttachment { attachment }, Some(Stage::TgwRoute { .. })) =
        (&crumb.stage, before.last().map(|crumb| &crumb.stage))
    else {
        return None;
    };
    let AttachmentTo::Vpc(to) = &plan.tgw_attachments[*attachment].to else { return None };
    let zone = |crumb: &Crumb| plan.subnet_of(crumb.eni?);
    let (came, chosen) = (before.iter().rev().nth(1).and_then(zone), zone(crumb)?);
    let own = came.is_some_and(|came| came.az_id == chosen.az_id);
    (to.subnets.len() > 1 && (to.appliance_mode || !own)).then(|| format!("zone {}, {BY_HASH}", chosen.az))
}

/// What a packet passes, as checks name it: `nat:app.natgw-a`, `igw`, `peering:a-b`, `tgw:core`, `vpn`, `vgw`.
pub(super) fn way(plan: &Plan, stage: &Stage) -> Option<String> {
    Some(match stage {
        Stage::Igw { .. } => "igw".to_owned(),
        Stage::Nat { nat } => format!("nat:{}", plan.nat_gateways[*nat].common.path),
        Stage::GatewayEndpoint { endpoint } => format!("endpoint:{}", plan.endpoints[*endpoint].common.path),
        Stage::Peering { peering } => format!("peering:{}", plan.peerings[*peering].common.path),
        Stage::TgwAttachment { attachment } => {
            let tgw = plan.tgw_attachments[*attachment].tgw;
            format!("tgw:{}", plan.transit_gateways[tgw].common.path)
        }
        Stage::Vgw { .. } => "vgw".to_owned(),
        Stage::Link { link } if matches!(plan.links[*link].kind, LinkKind::Vpn { .. }) => "vpn".to_owned(),
        Stage::Link { .. } => "direct-connect".to_owned(),
        _ => return None,
    })
}

/// What more line 2 says of a gateway that refused, and the rule.
pub(super) fn rule(plan: &Plan, record: &DropRecord) -> (Option<String>, Option<String>) {
    match record.decider {
        Decider::TgwRouteTable(at, route) => {
            let text = match route {
                Some(route) => plan.tgw_route_text(&plan.tgw_route_tables[at].routes[route]),
                None => format!("no route to {}", record.tuple.dst),
            };
            (Some(text.clone()), Some(text))
        }
        Decider::Site(at, route) => {
            let text = match route {
                Some(route) => plan.site_route_text(&plan.sites[at].routes[route]),
                None if record.code == DropCode::NoHost => format!("no host has {}", record.tuple.dst),
                None if record.code == DropCode::FwNoState => crate::control::rows::SPLIT.to_owned(),
                None => format!("no route to {}", record.tuple.dst),
            };
            (Some(text.clone()), Some(text))
        }
        Decider::EndpointEni(eni) => (None, Some(about_at(plan, record.code, Some(eni)))),
        _ => (None, Some(about(record.code).to_owned())),
    }
}

/// Why an interface is not there: a fault of its own is none of its zone.
pub(super) fn about_at(plan: &Plan, code: DropCode, eni: Option<EniIx>) -> String {
    let fault = eni.filter(|_| code == DropCode::VpceAzDown).and_then(|eni| plan.fault_of(eni));
    match fault {
        Some(fault) if !matches!(fault.what, Fault::Zone { .. }) => format!("down by a fault: {}", fault.title),
        _ => about(code).to_owned(),
    }
}

fn what(plan: &Plan, stage: &Stage) -> String {
    match stage {
        Stage::Igw { .. } => "internet gateway".to_owned(),
        Stage::Nat { nat } => format!("NAT gateway {}", plan.nat_gateways[*nat].common.name),
        Stage::GatewayEndpoint { endpoint } => format!("gateway endpoint {}", plan.endpoints[*endpoint].common.name),
        Stage::Peering { peering } => format!("peering {}", plan.peerings[*peering].common.name),
        Stage::TgwAttachment { attachment } => {
            let attachment = &plan.tgw_attachments[*attachment];
            let tgw = &plan.transit_gateways[attachment.tgw].common.name;
            format!("{tgw}, attachment {}", attachment.common.name)
        }
        Stage::TgwRoute { table } => format!("TGW route table {}", plan.tgw_route_tables[*table].common.name),
        Stage::Vgw { vgw } => format!("VPN gateway of {}", plan.vpcs[plan.vgws[*vgw].vpc].common.name),
        Stage::Link { link } => {
            let link = &plan.links[*link];
            let kind = if matches!(link.kind, LinkKind::Vpn { .. }) { "VPN" } else { "Direct Connect" };
            format!("{kind} {}", link.common.name)
        }
        Stage::SiteRoute { site } => format!("router of {}", plan.sites[*site].common.name),
        Stage::Internet => "Internet".to_owned(),
        Stage::Fault => "fault".to_owned(),
        Stage::Masquerade => "NAT instance".to_owned(),
        _ => String::new(),
    }
}

fn word(stage: &Stage) -> &'static str {
    if matches!(stage, Stage::TgwRoute { .. } | Stage::SiteRoute { .. }) { "route" } else { "ok" }
}

fn passed(plan: &Plan, stage: &Stage, rule: Rule) -> String {
    match (stage, rule) {
        (_, Rule::Source(addr)) => format!("source becomes {addr}"),
        (_, Rule::Destination(addr)) => format!("destination becomes {addr}"),
        (_, Rule::Tunnel(n)) => format!("tunnel {}", n + 1),
        (Stage::TgwRoute { table }, Rule::Route(at)) => plan.tgw_route_text(&plan.tgw_route_tables[*table].routes[at]),
        (Stage::SiteRoute { site }, Rule::Route(at)) => plan.site_route_text(&plan.sites[*site].routes[at]),
        _ => String::new(),
    }
}

/// Why a gateway refuses, where no rule can be named.
pub(super) fn about(code: DropCode) -> &'static str {
    match code {
        DropCode::IgwNoPublicIp => "the source has no public address",
        DropCode::IgwPrivateDst => "a private address: the Internet carries none",
        DropCode::NoHost => "nobody has this address",
        DropCode::NatNoIgw => "no way to the Internet from there",
        DropCode::NatNoPort => "all ports to this destination are in use",
        DropCode::NatIdle => "the connection was idle for too long",
        DropCode::NatNoState => "no connection of a client behind it",
        DropCode::NatFragment => "fragments of TCP and ICMP are dropped",
        DropCode::NatProto => "carries TCP, UDP and ICMP only",
        DropCode::GweNotInVpc => "serves only what begins in its own VPC",
        DropCode::GweProto => "carries TCP and ping only",
        DropCode::PeerTransit => "leads to addresses of the peer's VPC and no further",
        DropCode::TgwNoAz => "no attachment in the sender's zone",
        DropCode::TgwNoAssociation => "the attachment is associated with no route table",
        DropCode::TgwNoRoute => "no route",
        DropCode::TgwBlackhole => "blackhole",
        DropCode::VgwTransit => "carries only between the ENIs of its VPC and the site",
        DropCode::VgwNoRoute => "no link leads there",
        DropCode::VpnDown => "no tunnel is up",
        DropCode::SiteNoRoute => "no route",
        DropCode::MtuFragNeeded => "too large, and DF is set: the sender is told",
        DropCode::TtlExpired => "the TTL ends here: the sender is told",
        DropCode::AzDown => "the zone has failed",
        DropCode::InstanceDown => "down by a fault",
        DropCode::VpceAzDown => "the endpoint's zone has failed",
        DropCode::RouteLoop => "goes from gateway to gateway without end",
        other => super::steps::about(other),
    }
}
