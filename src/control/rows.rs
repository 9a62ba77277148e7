//! Drops as people read them: indices become names, rules become the text the user wrote.

use crate::base::{EniIx, FiveTuple};
use crate::control::api::{DropRow, Filter};
use crate::engine::{Decider, Direction, DropRecord};
use crate::model::Plan;
use crate::model::plan::EniOwner;

/// `clock` turns the engine's moments into milliseconds since 1970.
pub fn drop_row(plan: &Plan, record: &DropRecord, clock: &dyn Fn(crate::base::Instant) -> u64) -> DropRow {
    let (object, rule) = decider(plan, record);
    DropRow {
        time_ms: clock(record.last),
        first_ms: clock(record.first),
        from: label_of_source(plan, record.from),
        to: label_of_addr(plan, plan.eni(record.from).vpc, record.tuple.dst),
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

/// What an address is called in a VPC: `web`, `s3@b`, `resolver`, `imds`, or itself.
pub fn label_of_addr(plan: &Plan, vpc: usize, addr: std::net::Ipv4Addr) -> String {
    if let Some(at) = plan.enis.iter().position(|e| e.ip == addr && e.vpc == vpc) {
        return plan.eni_label(EniIx(at as u32));
    }
    if addr.octets() == [169, 254, 169, 254] {
        return "imds".to_owned();
    }
    if addr.octets() == [169, 254, 169, 253] || plan.vpcs[vpc].resolver() == addr {
        return "resolver".to_owned();
    }
    if let Some(at) = plan.enis.iter().position(|e| e.ip == addr) {
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
            EniOwner::Endpoint(e) => {
                let common = &plan.endpoints[e].common;
                kind != Some("instance") && (common.name == name || common.path == name || label == name)
            }
        }
    })
}

/// Whether a row passes a filter at the moment `now_ms`.
pub fn drop_passes(plan: &Plan, filter: &Filter, row: &DropRow, now_ms: u64) -> bool {
    filter.from.as_deref().is_none_or(|w| names_end(plan, w, &row.from, &row.src))
        && filter.to.as_deref().is_none_or(|w| names_end(plan, w, &row.to, &row.dst))
        && filter.code.as_deref().is_none_or(|c| c.eq_ignore_ascii_case(&row.code))
        && filter.since_ms.is_none_or(|ms| row.time_ms.saturating_add(ms) >= now_ms)
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
            let rule = route
                .and_then(|r| table.routes.get(r))
                .map_or_else(|| "no route".to_owned(), |r| format!("{} {:?}", r.to, r.target).to_lowercase());
            (format!("rtb:{}", table.common.path), rule)
        }
        Decider::EndpointEni(eni) => (format!("endpoint:{}", plan.eni_label(eni)), String::new()),
        Decider::Resolver(eni) => (format!("resolver:{}", plan.vpcs[plan.eni(eni).vpc].common.path), String::new()),
        Decider::Imds(eni) => (format!("imds:{}", plan.eni_label(eni)), String::new()),
        Decider::FlowTable => ("flow table".to_owned(), String::new()),
    }
}
