//! Drops, flows and names as people read them: indices become names, rules become the text the user wrote.

use crate::base::{EniIx, FiveTuple};
use crate::control::api::{DnsAnswer, DropRow, Filter, FlowRow, NameRow};
use crate::dns::{self, Zones};
use crate::engine::{Decider, Direction, DropCode, DropRecord, FlowSnapshot};
use crate::model::Plan;
use crate::model::plan::EniOwner;

/// `clock` turns the engine's moments into milliseconds since 1970.
pub fn drop_row(plan: &Plan, record: &DropRecord, clock: &dyn Fn(crate::base::Instant) -> u64) -> DropRow {
    let (object, rule) = decider(plan, record);
    DropRow {
        time_ms: clock(record.last),
        first_ms: clock(record.first),
        from: label_of_source(plan, record.from),
        to: label_of_addr(plan, plan.eni(record.from).vpc(), record.tuple.dst),
        src: end(record.tuple, true),
        dst: end(record.tuple, false),
        proto: record.tuple.proto.to_string(),
        code: record.code.as_str().to_owned(),
        object,
        rule,
        direction: match record.direction {
            Direction::Egress => "egress".to_owned(),
            Direction::Ingress => "ingress".to_owned(),
        },
        count: record.count,
    }
}

/// `ended`: the flow is over, and the row says so.
pub fn flow_row(plan: &Plan, flow: &FlowSnapshot, ended: bool, clock: &dyn Fn(crate::base::Instant) -> u64) -> FlowRow {
    let target = plan.eni(flow.target);
    FlowRow {
        from: plan.eni_label(flow.initiator),
        to: plan.eni_label(flow.target),
        src: end(flow.tuple, true),
        dst: end(flow.tuple, false),
        name: match target.owner {
            EniOwner::Instance(i, _) => plan.instances[i].common.path.clone(),
            EniOwner::Endpoint(e) | EniOwner::GatewayEndpoint(e) => plan.endpoints[e].common.path.clone(),
            EniOwner::NatGateway(n) => plan.nat_gateways[n].common.path.clone(),
            EniOwner::TgwAttachment(a) => plan.tgw_attachments[a].common.path.clone(),
            EniOwner::PublicSide => "public".to_owned(),
        },
        proto: flow.tuple.proto.to_string(),
        state: if ended { "ended".to_owned() } else { flow.state.as_str().to_owned() },
        tracked: flow.tracked,
        way: flow.way.as_str().to_owned(),
        bytes_out: flow.bytes_out,
        bytes_in: flow.bytes_in,
        started_ms: clock(flow.started),
        last_ms: clock(flow.last),
    }
}

pub fn flow_passes(plan: &Plan, filter: &Filter, row: &FlowRow, now_ms: u64) -> bool {
    filter.from.as_deref().is_none_or(|w| names_end(plan, w, &row.from, &row.src))
        && filter.to.as_deref().is_none_or(|w| names_end(plan, w, &row.to, &row.dst))
        && filter.since_ms.is_none_or(|ms| row.last_ms.saturating_add(ms) >= now_ms)
}

/// The names of endpoints (indices in `Plan::endpoints`) that exist for clients: of one zone letter, of one kind.
pub fn name_rows(plan: &Plan, endpoints: &[usize], zone: Option<char>, kind: Option<&str>) -> Vec<NameRow> {
    let mut rows = Vec::new();
    for &at in endpoints {
        for name in dns::names(plan, at) {
            let kind_here = match name.kind {
                dns::NameKind::Regional => "regional",
                dns::NameKind::Zonal => "zonal",
                dns::NameKind::Private => "private",
            };
            let in_zone = zone.is_none_or(|z| name.zone.as_ref().is_some_and(|n| n.ends_with(z)));
            if name.active && in_zone && kind.is_none_or(|k| k == kind_here) {
                rows.push(NameRow {
                    endpoint: plan.endpoints[at].common.path.clone(),
                    name: name.name,
                    kind: kind_here.to_owned(),
                    zone: name.zone,
                    addresses: name.addrs,
                });
            }
        }
    }
    rows
}

/// What an address is called in a VPC (or outside): `web`, `s3@b`, `resolver`, `imds`, or itself.
pub fn label_of_addr(plan: &Plan, vpc: Option<usize>, addr: std::net::Ipv4Addr) -> String {
    if let Some(at) = plan.enis.iter().position(|e| e.ip == addr && e.vpc() == vpc && !e.owner.is_door()) {
        return plan.eni_label(EniIx(at as u32));
    }
    if addr.octets() == [169, 254, 169, 254] {
        return "imds".to_owned();
    }
    if addr.octets() == [169, 254, 169, 253] || vpc.is_some_and(|vpc| plan.vpcs[vpc].resolver() == addr) {
        return "resolver".to_owned();
    }
    // Elsewhere, but never where the VPC's own range is used a second time.
    let own = vpc.is_some_and(|vpc| plan.vpcs[vpc].cidrs.iter().any(|cidr| cidr.contains(addr)));
    if let Some(at) = plan.enis.iter().position(|e| !own && e.ip == addr && !e.owner.is_door()) {
        return plan.eni_label(EniIx(at as u32));
    }
    addr.to_string()
}

/// True if a filter's word names this end: the bare label, `VPC.NAME`, `endpoint:N`, `instance:N`, or the address.
pub fn names_end(plan: &Plan, word: &str, label: &str, addr: &str) -> bool {
    let (kind, name) = match word.split_once(':') {
        Some((kind @ ("instance" | "endpoint" | "eni"), name)) => (Some(kind), name),
        _ => (None, word),
    };
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    if kind.is_none() && (label == name || host == name || addr == name) {
        return true;
    }
    plan.enis.iter().enumerate().any(|(at, eni)| {
        let ix = EniIx(at as u32);
        if plan.eni_label(ix) != label || eni.ip.to_string() != host && host.parse::<std::net::Ipv4Addr>().is_ok() {
            return false;
        }
        match eni.owner {
            EniOwner::Instance(i, _) => {
                kind != Some("endpoint")
                    && (plan.instances[i].common.name == name || plan.instances[i].common.path == name)
            }
            EniOwner::NatGateway(_) | EniOwner::TgwAttachment(_) | EniOwner::PublicSide => {
                kind.is_none() && (label == name || eni.common.path == name)
            }
            EniOwner::Endpoint(e) | EniOwner::GatewayEndpoint(e) => {
                let common = &plan.endpoints[e].common;
                kind != Some("instance") && (common.name == name || common.path == name || label == name)
            }
        }
    })
}

/// A word that can name no end, and a code that is none, would show an empty table and be taken for "nothing happened".
///
/// # Errors
/// A sentence about the word.
pub fn check_filter(plan: &Plan, filter: &Filter) -> Result<(), String> {
    for word in [&filter.from, &filter.to].into_iter().flatten() {
        let host = word.rsplit_once(':').map_or(word.as_str(), |(host, _)| host);
        let is_address = host.parse::<std::net::IpAddr>().is_ok() || word.parse::<std::net::IpAddr>().is_ok();
        let labelled = |at: usize| plan.eni_label(EniIx(at as u32));
        let names = |at: usize| names_end(plan, word, &labelled(at), &plan.enis[at].ip.to_string());
        if !is_address && !["resolver", "imds"].contains(&word.as_str()) && !(0..plan.enis.len()).any(names) {
            let instances = plan.instances.iter().map(|i| i.common.path.clone());
            let endpoints = plan.endpoints.iter().map(|e| format!("endpoint:{}", e.common.path));
            let all: Vec<String> = instances.chain(endpoints).collect();
            return Err(format!("nothing is called {word}; there are: {}", all.join(", ")));
        }
    }
    let Some(code) = &filter.code else { return Ok(()) };
    let codes: Vec<&str> = DropCode::ALL.iter().map(|c| c.as_str()).collect();
    if codes.iter().any(|c| c.eq_ignore_ascii_case(code)) {
        return Ok(());
    }
    Err(format!("{code} is no drop code; there are: {}", codes.join(" ")))
}

/// Whether a row passes a filter at the moment `now_ms`.
pub fn drop_passes(plan: &Plan, filter: &Filter, row: &DropRow, now_ms: u64) -> bool {
    filter.from.as_deref().is_none_or(|w| names_end(plan, w, &row.from, &row.src))
        && filter.to.as_deref().is_none_or(|w| names_end(plan, w, &row.to, &row.dst))
        && filter.code.as_deref().is_none_or(|c| c.eq_ignore_ascii_case(&row.code))
        && filter.since_ms.is_none_or(|ms| row.time_ms.saturating_add(ms) >= now_ms)
}

/// What the resolver of a VPC answers, in words. The error is a sentence about the record type.
pub fn dns_answer(zones: &Zones, vpc: usize, name: &str, rtype: &str) -> Result<DnsAnswer, String> {
    let qtype = rtype.to_ascii_uppercase().parse().map_err(|_| format!("{rtype}: no record type known here"))?;
    let told = dns::lookup(zones, vpc, name, qtype);
    Ok(DnsAnswer {
        rcode: told.rcode.map_or_else(|| "no answer".to_owned(), |r| r.to_string()),
        ttl: told.ttl().unwrap_or_default(),
        answers: told.answers.iter().map(|a| a.data.clone()).collect(),
        by: told.answered_by.clone(),
        lost: told.lost.iter().map(ToString::to_string).collect(),
        notes: told.notes.clone(),
    })
}

fn label_of_source(plan: &Plan, eni: EniIx) -> String {
    plan.eni_label(eni)
}

fn end(t: FiveTuple, src: bool) -> String {
    let (addr, port) = if src { (t.src, t.src_port) } else { (t.dst, t.dst_port) };
    if matches!(t.proto, crate::base::Proto::TCP | crate::base::Proto::UDP) {
        format!("{addr}:{port}")
    } else {
        addr.to_string()
    }
}

/// Kind and path of a gateway of any kind; empty for what is none.
pub fn gateway(plan: &Plan, decider: Decider) -> (&'static str, String) {
    match decider {
        Decider::Igw(at) => ("igw", plan.vpcs[plan.internet_gateways[at].vpc].common.path.clone()),
        Decider::Nat(at) => ("nat", plan.nat_gateways[at].common.path.clone()),
        Decider::GatewayEndpoint(at) => ("gateway-endpoint", plan.endpoints[at].common.path.clone()),
        Decider::Peering(at) => ("peering", plan.peerings[at].common.path.clone()),
        Decider::Tgw(at) => ("tgw", plan.transit_gateways[at].common.path.clone()),
        Decider::TgwAttachment(at) => ("tgw-attachment", plan.tgw_attachments[at].common.path.clone()),
        Decider::TgwRouteTable(at, _) => ("tgw-route-table", plan.tgw_route_tables[at].common.path.clone()),
        Decider::Vgw(at) => ("vgw", plan.vpcs[plan.vgws[at].vpc].common.path.clone()),
        Decider::Link(at) => ("link", plan.links[at].common.path.clone()),
        Decider::Site(at, _) => ("site", plan.sites[at].common.path.clone()),
        Decider::Internet => ("internet", String::new()),
        _ => ("", String::new()),
    }
}

/// The deciding object and rule, in words.
fn decider(plan: &Plan, record: &DropRecord) -> (String, String) {
    match record.decider {
        Decider::Eni(eni) => (format!("eni:{}", plan.eni_label(eni)), String::new()),
        Decider::SecurityGroups(eni) => {
            let groups: Vec<&str> =
                plan.eni(eni).security_groups.iter().map(|&g| plan.security_groups[g].common.path.as_str()).collect();
            let rules: usize = plan
                .eni(eni)
                .security_groups
                .iter()
                .map(|&g| match record.direction {
                    Direction::Egress => plan.security_groups[g].egress.len(),
                    Direction::Ingress => plan.security_groups[g].ingress.len(),
                })
                .sum();
            let rule = match rules {
                0 => "no rules".to_owned(),
                1 => "1 rule, no match".to_owned(),
                n => format!("{n} rules, no match"),
            };
            (format!("sg:{}", groups.join(",")), rule)
        }
        Decider::Nacl(at, number) => {
            let nacl = &plan.network_acls[at];
            let rules = match record.direction {
                Direction::Egress => &nacl.egress,
                Direction::Ingress => &nacl.ingress,
            };
            let rule =
                rules.iter().find(|r| r.number == number).map_or_else(|| "* deny".to_owned(), |r| r.text.clone());
            (format!("nacl:{}", nacl.common.path), rule)
        }
        Decider::RouteTable(at, route) => {
            let table = &plan.route_tables[at];
            let rule =
                route.and_then(|r| table.routes.get(r)).map_or_else(|| "no route".to_owned(), |r| plan.route_text(r));
            (format!("rtb:{}", table.common.path), rule)
        }
        Decider::EndpointEni(eni) => (format!("endpoint:{}", plan.eni_label(eni)), String::new()),
        Decider::Resolver(eni) => {
            (format!("resolver:{}", plan.vpc_of(eni).map_or("public", |vpc| &vpc.common.path)), String::new())
        }
        Decider::Imds(eni) => (format!("imds:{}", plan.eni_label(eni)), String::new()),
        Decider::FlowTable => ("flow table".to_owned(), String::new()),
        Decider::TgwRouteTable(at, route) => {
            let table = &plan.tgw_route_tables[at];
            let rule = route.and_then(|r| table.routes.get(r));
            let rule = rule.map_or_else(|| "no route".to_owned(), |r| plan.tgw_route_text(r));
            (format!("tgw-rtb:{}", table.common.path), rule)
        }
        Decider::Site(at, route) => {
            let site = &plan.sites[at];
            let rule = route.and_then(|r| site.routes.get(r));
            let rule = rule.map_or_else(|| "no route".to_owned(), |r| plan.site_route_text(r));
            (format!("site:{}", site.common.path), rule)
        }
        other => {
            let (kind, path) = gateway(plan, other);
            (if path.is_empty() { kind.to_owned() } else { format!("{kind}:{path}") }, String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::builder::demo;

    #[test]
    fn a_filter_of_a_word_that_names_nothing_is_refused() {
        let plan = demo().plan;
        let from = |word: &str| Filter { from: Some(word.into()), ..Filter::default() };
        for good in ["web", "app.web", "instance:web", "endpoint:s3", "s3@a", "10.9.9.9", "10.0.1.10:80", "resolver"] {
            assert_eq!(check_filter(&plan, &from(good)), Ok(()), "{good}");
        }
        let refused = check_filter(&plan, &from("wbe")).expect_err("no such name");
        assert!(refused.contains("app.web") && refused.contains("endpoint:app.s3"), "{refused}");
        let code = |code: &str| Filter { code: Some(code.into()), ..Filter::default() };
        assert_eq!(check_filter(&plan, &code("sg_ingress")), Ok(()));
        assert!(check_filter(&plan, &code("SG")).expect_err("no code").contains("SG_INGRESS"));
    }
}
