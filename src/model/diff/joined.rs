//! Peerings, transit gateways, sites, links and faults, as text.

use std::collections::BTreeMap;

use super::Attributes;
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, Common, Latency, LinkEnd, LinkKind, TunnelPlan};

type Objects = Vec<(&'static str, BTreeMap<String, Attributes>)>;

/// Every object of these kinds with all that a user can change of it.
pub(super) fn objects(p: &Plan, of: &dyn Fn(&Common, Attributes) -> (String, Attributes)) -> Objects {
    let vpc = |at: usize| p.vpcs[at].common.path.clone();
    let joined = |items: Vec<String>| items.join(", ");
    let table = |at: Option<usize>| at.map(|at| p.tgw_route_tables[at].common.name.clone()).unwrap_or_default();
    let attachment = |a: &crate::model::plan::TgwAttachmentPlan| match &a.to {
        AttachmentTo::Link(link) => vec![("to", p.links[*link].common.path.clone()), ("subnets", String::new())],
        AttachmentTo::Vpc(to) => vec![
            ("to", vpc(to.vpc)),
            ("subnets", joined(to.subnets.iter().map(|(s, _)| p.subnets[*s].common.path.clone()).collect())),
        ],
    };
    let modes = |a: &crate::model::plan::TgwAttachmentPlan| match &a.to {
        AttachmentTo::Link(_) => (false, false),
        AttachmentTo::Vpc(to) => (to.appliance_mode, to.security_group_referencing),
    };
    vec![
        (
            "peering",
            p.peerings
                .iter()
                .map(|peering| {
                    of(
                        &peering.common,
                        vec![
                            ("requester", vpc(peering.requester)),
                            ("accepter", vpc(peering.accepter)),
                            ("dns", peering.dns.to_string()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "transit gateway",
            p.transit_gateways
                .iter()
                .map(|tgw| {
                    of(
                        &tgw.common,
                        vec![
                            ("region", tgw.region.clone()),
                            ("account", tgw.account.clone()),
                            ("pmtud", tgw.pmtud.to_string()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "transit gateway attachment",
            p.tgw_attachments
                .iter()
                .map(|a| {
                    let mut attributes = attachment(a);
                    let (appliance, groups) = modes(a);
                    attributes.extend([
                        ("route_table", table(a.route_table)),
                        ("appliance_mode", appliance.to_string()),
                        ("security_group_referencing", groups.to_string()),
                    ]);
                    of(&a.common, attributes)
                })
                .collect(),
        ),
        (
            "transit gateway route table",
            p.tgw_route_tables
                .iter()
                .map(|t| {
                    let routes = t.routes.iter().map(|r| p.tgw_route_text(r)).collect();
                    of(&t.common, vec![("routes", joined(routes))])
                })
                .collect(),
        ),
        (
            "site",
            p.sites
                .iter()
                .map(|site| {
                    let routes = site.routes.iter().map(|r| p.site_route_text(r)).collect();
                    of(
                        &site.common,
                        vec![
                            ("cidr", joined(site.cidrs.iter().map(ToString::to_string).collect())),
                            ("routes", joined(routes)),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "link",
            p.links
                .iter()
                .map(|link| {
                    let end = match link.end {
                        LinkEnd::Tgw(at) => p.tgw_attachments[at].common.path.clone(),
                        LinkEnd::Vgw(at) => p.vgws[at].common.path.clone(),
                    };
                    let kind = match &link.kind {
                        LinkKind::Vpn { tunnels, static_routing, stateful } => {
                            let routing = if *static_routing { "static" } else { "bgp" };
                            let firewall = if *stateful { ", stateful" } else { "" };
                            let tunnels = tunnels.iter().enumerate().map(|(n, t)| tunnel(n + 1, t)).collect();
                            format!("vpn, {routing} routing{firewall}; {}", joined(tunnels))
                        }
                        LinkKind::DirectConnect { mtu } => format!("direct connect, mtu {mtu}"),
                    };
                    of(
                        &link.common,
                        vec![
                            ("to", end),
                            ("kind", kind),
                            ("site's blocks", joined(link.site_blocks.iter().map(ToString::to_string).collect())),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "fault",
            p.faults
                .iter()
                .map(|fault| {
                    let time = |t: Option<std::time::Duration>| t.map(|t| format!("{t:?}")).unwrap_or_default();
                    let attributes = vec![("after", time(fault.after)), ("for", time(fault.lasts))];
                    (fault.title.clone(), attributes)
                })
                .collect(),
        ),
    ]
}

/// Of the lab as a whole.
pub(super) fn latency(p: &Plan) -> String {
    match p.latency {
        Latency::Off => "off".to_owned(),
        Latency::Aws => "aws".to_owned(),
    }
}

/// `tunnel 1: mtu 1446, mss 1406, preferred by site`.
fn tunnel(number: usize, t: &TunnelPlan) -> String {
    let mss = t.mss.map_or("as sent".to_owned(), |mss| mss.to_string());
    let mut text = format!("tunnel {number}: mtu {}, mss {mss}", t.mtu);
    for (preferred, who) in [(t.preferred_by_site, "the site"), (t.preferred_by_aws, "AWS")] {
        if preferred {
            text.push_str(&format!(", preferred by {who}"));
        }
    }
    text
}
