//! Drops, flows and names as people read them: indices become names, rules become the text the user wrote.

use crate::base::{EniIx, FiveTuple};
use crate::control::api::{DnsAnswer, DropRow, Filter, FlowRow, NameRow};
use crate::dns::{self, Zones};
use crate::engine::{Decider, Direction, DropCode, DropRecord, FlowSnapshot};
use crate::model::plan::{EniOwner, Fault, FaultPlan};
use crate::model::{Plan, catalogue};

/// In place of addresses, where a row is the sum of many.
pub const ANY: &str = "*";

/// `plan` is the one that decided. `clock` turns the engine's moments into milliseconds since 1970.
pub fn drop_row(plan: &Plan, record: &DropRecord, clock: &dyn Fn(crate::base::Instant) -> u64) -> DropRow {
    let (object, rule) = decider(plan, record);
    let (began, began_at) = began(plan, record);
    let sum = record.is_sum();
    DropRow {
        time_ms: clock(record.last),
        first_ms: clock(record.first),
        began,
        began_at,
        back: record.whose.answers.is_some(),
        from: plan.eni_label(record.from),
        to: if sum { ANY.to_owned() } else { label_of_addr(plan, plan.eni(record.from).vpc(), record.tuple.dst) },
        src: if sum { ANY.to_owned() } else { end(record.tuple, true) },
        dst: if sum { ANY.to_owned() } else { end(record.tuple, false) },
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
        if plan.endpoints[at].is_gateway() {
            if zone.is_none() && kind.is_none_or(|k| k == "public") {
                rows.extend(names_of_gateway(plan, at));
            }
            continue;
        }
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

/// A gateway endpoint has no names of its own: clients ask for the service's public ones, and the route tables do the
/// rest.
fn names_of_gateway(plan: &Plan, endpoint: usize) -> Vec<NameRow> {
    let of = &plan.endpoints[endpoint];
    let service = &plan.services[of.service];
    let Some(known) = catalogue::service(&service.name) else { return Vec::new() };
    let regional = format!("{}.{}.amazonaws.com", known.host, service.region);
    let names = catalogue::public_names(known, &service.region);
    let own = names.into_iter().filter(|name| name.strip_prefix("*.").unwrap_or(name) == regional);
    own.map(|name| NameRow {
        endpoint: of.common.path.clone(),
        name,
        kind: "public".to_owned(),
        zone: None,
        addresses: plan.public_blocks.addr(&regional).into_iter().collect(),
    })
    .collect()
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
    let word = Word::of(word);
    let by = |at: usize| names_by(plan, EniIx(at as u32), &plan.eni_label(EniIx(at as u32)), label, host(addr));
    word.is(label, addr) || (0..plan.enis.len()).any(|at| by(at).iter().any(|name| word.asks_for(name)))
}

/// A filter's word for an end.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    kind: Option<&'a str>,
    name: &'a str,
}

/// What an end is called besides its label and its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    of: Of,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Instance,
    Endpoint,
    Gateway,
}

impl Word<'_> {
    pub fn of(word: &str) -> Word<'_> {
        match word.split_once(':') {
            Some((kind @ ("instance" | "endpoint" | "eni"), name)) => Word { kind: Some(kind), name },
            _ => Word { kind: None, name: word },
        }
    }

    /// The label or the address itself, with or without its port.
    pub fn is(&self, label: &str, addr: &str) -> bool {
        self.kind.is_none() && [label, host(addr), addr].contains(&self.name)
    }

    pub fn asks_for(&self, name: &Name) -> bool {
        let kind = match (self.kind, name.of) {
            (None, _) => true,
            (Some(kind), Of::Instance) => kind != "endpoint",
            (Some(kind), Of::Endpoint) => kind != "instance",
            (Some(_), Of::Gateway) => false,
        };
        kind && self.name == name.name
    }
}

/// The names that an ENI (whose label is `own`) gives to the end that is called `label` and has the address `host`;
/// none if it is not that end.
pub fn names_by(plan: &Plan, eni: EniIx, own: &str, label: &str, host: &str) -> Vec<Name> {
    let at = plan.eni(eni);
    let named = |of: Of, names: &[&str]| names.iter().map(|name| Name { of, name: (*name).to_owned() }).collect();
    if let EniOwner::GatewayEndpoint(e) = at.owner {
        let common = &plan.endpoints[e].common;
        // What never got as far as the door is known by the service's address.
        let here = own == label || label == host && plan.in_prefix_list(e, host);
        return if here { named(Of::Endpoint, &[&common.name, &common.path]) } else { Vec::new() };
    }
    if own != label || at.ip.to_string() != host && host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Vec::new();
    }
    match at.owner {
        EniOwner::Instance(i, _) => {
            let common = &plan.instances[i].common;
            named(Of::Instance, &[&common.name, &common.path])
        }
        EniOwner::Endpoint(e) => {
            let common = &plan.endpoints[e].common;
            named(Of::Endpoint, &[&common.name, &common.path, label])
        }
        EniOwner::NatGateway(_) | EniOwner::TgwAttachment(_) | EniOwner::PublicSide => {
            named(Of::Gateway, &[label, &at.common.path])
        }
        EniOwner::GatewayEndpoint(_) => Vec::new(),
    }
}

/// An address without its port.
pub fn host(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

/// A word that can name no end, and a code that is none, would show an empty table and be taken for "nothing happened".
///
/// # Errors
/// A sentence about the word.
pub fn check_filter(plan: &Plan, filter: &Filter) -> Result<(), String> {
    for word in [&filter.from, &filter.to].into_iter().flatten() {
        let is_address = host(word).parse::<std::net::IpAddr>().is_ok() || word.parse::<std::net::IpAddr>().is_ok();
        let labelled = |at: usize| plan.eni_label(EniIx(at as u32));
        let names = |at: usize| names_end(plan, word, &labelled(at), &plan.enis[at].ip.to_string());
        if !is_address && !["resolver", "imds"].contains(&word.as_str()) && !(0..plan.enis.len()).any(names) {
            let instances = plan.instances.iter().map(|i| i.common.path.clone());
            let endpoints = plan.endpoints.iter().map(|e| format!("endpoint:{}", e.common.path));
            let all: Vec<String> = instances.chain(endpoints).collect();
            return Err(format!("nothing is named `{word}`; there are: {}", all.join(", ")));
        }
    }
    let Some(code) = &filter.code else { return Ok(()) };
    let codes: Vec<&str> = DropCode::ALL.iter().map(|c| c.as_str()).collect();
    if codes.iter().any(|c| c.eq_ignore_ascii_case(code)) {
        return Ok(());
    }
    Err(format!("{code} is no drop code; there are: {}", codes.join(" ")))
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

/// Who began the flow of a dropped packet, and from which address: of an answer who is answered, of a packet that a
/// machine only passes on who sent it or has its source address, else the sender.
fn began(plan: &Plan, record: &DropRecord) -> (String, String) {
    let (eni, at, text) = match record.whose.began() {
        Some((eni, at)) => (eni, *at.ip(), at.to_string()),
        None => (record.from, record.tuple.src, end(record.tuple, true)),
    };
    let own = plan.eni(eni);
    let passes_on = matches!(own.owner, EniOwner::Instance(..)) && own.ip != at && !at.is_unspecified();
    let label = if passes_on { label_of_addr(plan, own.vpc(), at) } else { plan.eni_label(eni) };
    // A source that nobody has: somebody made it up.
    if label == at.to_string() { (plan.eni_label(eni), text) } else { (label, text) }
}

fn end(t: FiveTuple, src: bool) -> String {
    let (addr, port) = if src { (t.src, t.src_port) } else { (t.dst, t.dst_port) };
    if matches!(t.proto, crate::base::Proto::TCP | crate::base::Proto::UDP) {
        format!("{addr}:{port}")
    } else {
        addr.to_string()
    }
}

/// A door is no object of its own: it is named as what it leads to, whoever of the two refuses.
pub fn behind(plan: &Plan, decider: Decider) -> Decider {
    let Decider::EndpointEni(eni) = decider else { return decider };
    match plan.eni(eni).owner {
        EniOwner::GatewayEndpoint(at) => Decider::GatewayEndpoint(at),
        EniOwner::PublicSide => Decider::Internet,
        _ => decider,
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

/// Of a site's firewall.
pub(super) const SPLIT: &str = "its firewall keeps a state per tunnel, and the session went by the other one";

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
        Decider::EndpointEni(eni) => match behind(plan, record.decider) {
            Decider::EndpointEni(_) => {
                // Which fault it is, as `explain` has it; once it is over, nothing can be said of it here.
                let own = |fault: &&FaultPlan| !matches!(fault.what, Fault::Zone { .. });
                let fault = plan.fault_of(eni).filter(|_| record.code == DropCode::VpceAzDown).filter(own);
                let rule = fault.map(|fault| format!("down by a fault: {}", fault.title));
                (format!("endpoint:{}", plan.eni_label(eni)), rule.unwrap_or_default())
            }
            door => (named(plan, door), String::new()),
        },
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
            let none = || match record.code {
                DropCode::NoHost => format!("no host has {}", record.tuple.dst),
                DropCode::FwNoState => SPLIT.to_owned(),
                _ => "no route".to_owned(),
            };
            let rule = rule.map_or_else(none, |r| plan.site_route_text(r));
            (format!("site:{}", site.common.path), rule)
        }
        other => (named(plan, other), String::new()),
    }
}

/// `gateway-endpoint:app.s3`, `internet`.
fn named(plan: &Plan, gateway_of: Decider) -> String {
    let (kind, path) = gateway(plan, gateway_of);
    if path.is_empty() { kind.to_owned() } else { format!("{kind}:{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::dropped::{Told, tell};
    use crate::engine::tests::builder::demo;

    /// Answers to web that are dropped: of api where they leave, of www before a NAT gateway.
    fn dropped_on_the_way_back() -> (Plan, Vec<Told>) {
        use crate::base::Instant;
        use crate::engine::{Engine, EngineLimits, compile};
        use crate::model::testing::plan_of;
        use crate::wire::make::{self, TcpSpec};
        use crate::wire::packet::tcp_flags;
        use std::net::SocketAddrV4;

        let text = "version: 1
name: t
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      out: { cidr: 10.0.0.0/24, az: a, route_table: out, nacl: edge }
      a: { cidr: 10.0.1.0/24, az: a, route_table: private }
      b: { cidr: 10.0.2.0/24, az: a, nacl: inner }
    route_tables:
      out: { routes: [ { to: 0.0.0.0/0, via: igw } ] }
      private: { routes: [ { to: 0.0.0.0/0, via: nat:n } ] }
    nat_gateways: { n: { subnet: out } }
    network_acls:
      inner: { ingress: { 100: allow all from 0.0.0.0/0 }, egress: { 100: allow udp 1-65535 to 0.0.0.0/0 } }
      edge: { ingress: { 100: allow all from 10.0.0.0/8 }, egress: { 100: allow all to 0.0.0.0/0 } }
    security_groups: { open: { ingress: [all from 0.0.0.0/0] } }
    instances:
      web: { subnet: a, ip: 10.0.1.10, security_groups: [open] }
      api: { subnet: b, ip: 10.0.2.10, security_groups: [open] }
internet: { www: { ip: 192.0.2.10 } }
";
        let plan = plan_of(&[text]);
        let eni = |label: &str| {
            let at = (0..plan.enis.len()).find(|at| plan.eni_label(EniIx(*at as u32)) == label);
            EniIx(at.expect("an ENI") as u32)
        };
        let mut engine = Engine::new(std::sync::Arc::new(compile(&plan, 1)), EngineLimits::default());
        let at = |ip: &str, port| SocketAddrV4::new(ip.parse().expect("an address"), port);
        let mut syn = make::tcp(&TcpSpec::syn(at("10.0.1.10", 40_000), at("10.0.2.10", 80)));
        engine.handle(Instant(1), eni("web"), &mut syn);
        let answer = TcpSpec::new(at("10.0.2.10", 80), at("10.0.1.10", 40_000), tcp_flags::SYN | tcp_flags::ACK);
        engine.handle(Instant(2), eni("api"), &mut make::tcp(&answer));
        let mut out = make::tcp(&TcpSpec::syn(at("10.0.1.10", 40_001), at("192.0.2.10", 80)));
        engine.handle(Instant(3), eni("web"), &mut out);
        let seen = crate::wire::Packet::parse(&out).expect("a packet").tuple();
        let back = SocketAddrV4::new(seen.src, seen.src_port);
        let answer = TcpSpec::new(at("192.0.2.10", 80), back, tcp_flags::SYN | tcp_flags::ACK);
        engine.handle(Instant(4), eni("www"), &mut make::tcp(&answer));
        let told = tell(&plan, engine.drops(), &|at| at.0);
        (plan, told)
    }

    #[test]
    fn drops_on_the_way_back_belong_to_who_began_the_flow() {
        let (_, told) = dropped_on_the_way_back();
        let [there, Told { row: nat, .. }] = &told[..] else { panic!("{told:?}") };
        let row = &there.row;
        assert_eq!((row.from.as_str(), row.to.as_str(), row.code.as_str()), ("api", "web", "NACL_OUT"));
        assert_eq!((row.began.as_str(), row.began_at.as_str(), row.back), ("web", "10.0.1.10:40000", true));
        let passes = |from: Option<&str>, to: Option<&str>| {
            let filter = Filter { from: from.map(Into::into), to: to.map(Into::into), ..Filter::default() };
            there.passes(&filter, 10)
        };
        // The flow is web's to api, the packet api's to web; nobody else's.
        assert!(passes(Some("web"), None) && passes(Some("api"), None));
        assert!(passes(Some("web"), Some("api")) && passes(Some("api"), Some("web")));
        assert!(passes(None, Some("10.0.2.10")) && passes(Some("10.0.1.10"), None));
        assert!(!passes(Some("web"), Some("web")) && !passes(Some("api"), Some("api")));
        assert!(!passes(Some("www"), None) && !passes(None, Some("www")));
        assert_eq!((nat.from.as_str(), nat.code.as_str(), nat.object.as_str()), ("www", "NACL_IN", "nacl:app.edge"));
        assert_eq!((nat.began.as_str(), nat.began_at.as_str()), ("web", "10.0.1.10:40001"), "whoever it is sent to");
    }

    #[test]
    fn a_dropped_icmp_error_belongs_to_the_flow_of_the_packet_it_quotes() {
        use crate::base::Instant;
        use crate::engine::{Engine, EngineLimits, compile};
        use crate::wire::make;
        use std::net::SocketAddrV4;

        // The answers of api may be UDP only.
        let (plan, _) = dropped_on_the_way_back();
        let eni = |label: &str| {
            let at = (0..plan.enis.len()).find(|at| plan.eni_label(EniIx(*at as u32)) == label);
            EniIx(at.expect("an ENI") as u32)
        };
        let mut engine = Engine::new(std::sync::Arc::new(compile(&plan, 1)), EngineLimits::default());
        let at = |ip: &str, port| SocketAddrV4::new(ip.parse().expect("an address"), port);
        let mut asked = make::udp(at("10.0.1.10", 40_000), at("10.0.2.10", 53), b"?");
        engine.handle(Instant(1), eni("web"), &mut asked);
        let mut error = make::icmp_error(*at("10.0.2.10", 0).ip(), 3, 3, 0, &asked).expect("an error");
        engine.handle(Instant(2), eni("api"), &mut error);
        // Through a NAT gateway it quotes what the host got; the edge takes nothing from outside.
        let mut asked = make::udp(at("10.0.1.10", 40_001), at("192.0.2.10", 53), b"?");
        engine.handle(Instant(3), eni("web"), &mut asked);
        let mut error = make::icmp_error(*at("192.0.2.10", 0).ip(), 3, 3, 0, &asked).expect("an error");
        engine.handle(Instant(4), eni("www"), &mut error);
        // Of a packet that nobody sent: it is the sender's own.
        let stray = make::udp(at("10.0.1.10", 40_002), at("10.0.2.10", 53), b"?");
        let mut error = make::icmp_error(*at("10.0.2.10", 0).ip(), 3, 1, 0, &stray).expect("an error");
        engine.handle(Instant(5), eni("api"), &mut error);
        let told = tell(&plan, engine.drops(), &|at| at.0);
        let [Told { row: own, .. }, Told { row: by_nat, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((own.from.as_str(), own.code.as_str(), own.proto.as_str()), ("api", "NACL_OUT", "icmp"));
        assert_eq!((own.began.as_str(), own.began_at.as_str(), own.back), ("web", "10.0.1.10:40000", true));
        assert_eq!((by_nat.from.as_str(), by_nat.code.as_str()), ("www", "NACL_IN"));
        assert_eq!((by_nat.began.as_str(), by_nat.began_at.as_str()), ("web", "10.0.1.10:40001"));
        let filter = Filter { from: Some("web".into()), ..Filter::default() };
        assert!(told.iter().all(|told| told.passes(&filter, 10)));
    }

    #[test]
    fn a_door_is_named_as_the_gateway_it_is_of() {
        use crate::engine::{Engine, EngineLimits, compile};
        use crate::model::testing::plan_of;
        use crate::wire::make::{self, TcpSpec};
        use crate::wire::packet::tcp_flags;
        use std::net::SocketAddrV4;

        let text = "version: 1
name: t
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      a: { cidr: 10.0.1.0/24, az: a, route_table: r }
    route_tables: { r: { routes: [ { to: 0.0.0.0/0, via: igw } ] } }
    instances: { web: { subnet: a, ip: 10.0.1.10, public_ip: true } }
    endpoints: { s3gw: { service: s3, type: gateway, route_tables: [r] } }
";
        let plan = plan_of(&[text]);
        let mut engine = Engine::new(std::sync::Arc::new(compile(&plan, 1)), EngineLimits::default());
        let public = |name: &str| plan.public_blocks.addr(name).expect("a service");
        let client = SocketAddrV4::new("10.0.1.10".parse().expect("an address"), 40_000);
        let (s3, sqs) = (public("s3.eu-west-1.amazonaws.com"), public("sqs.eu-west-1.amazonaws.com"));
        for (at, (addr, port, flags)) in
            [(s3, 443, tcp_flags::ACK), (s3, 22, tcp_flags::SYN), (sqs, 443, tcp_flags::ACK), (sqs, 22, tcp_flags::SYN)]
                .into_iter()
                .enumerate()
        {
            let segment = TcpSpec::new(client, SocketAddrV4::new(addr, port), flags);
            engine.handle(crate::base::Instant(at as u64 + 1), EniIx(0), &mut make::tcp(&segment));
        }
        let rows: Vec<(String, String)> = engine
            .drops()
            .map(|record| {
                let row = drop_row(&plan, record, &|at| at.0);
                let told = crate::control::explain::refusal(&plan, record);
                assert!(told.starts_with(&format!("{} at {}", row.code, row.object.replace(':', " "))), "{told}");
                (row.code, row.object)
            })
            .collect();
        let of = |code: &str, object: &str| (code.to_owned(), object.to_owned());
        assert_eq!(
            rows,
            [
                of("VPCE_NO_STATE", "gateway-endpoint:app.s3gw"),
                of("VPCE_PORT", "gateway-endpoint:app.s3gw"),
                of("VPCE_NO_STATE", "internet"),
                of("PUBLIC_PORT", "internet"),
            ]
        );
    }

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

    #[test]
    fn a_gateway_endpoint_is_known_by_its_name_and_by_the_names_that_lead_to_it() {
        use crate::model::testing::plan_of;
        let text = "version: 1
name: t
region: eu-west-1
vpcs:
  app: { cidr: 10.0.0.0/16, endpoints: { s3: { type: gateway }, dynamodb: { type: gateway } } }
";
        let plan = plan_of(&[text]);
        let s3 = plan.find_endpoint("s3").expect("an endpoint");
        let names = |kind| name_rows(&plan, &[s3], None, kind).into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert!(names(None).contains(&"s3.eu-west-1.amazonaws.com".to_owned()), "{:?}", names(None));
        assert!(names(None).iter().all(|name| name.ends_with("s3.eu-west-1.amazonaws.com")));
        assert_eq!((names(Some("public")), names(Some("zonal"))), (names(None), Vec::new()));
        let addr = plan.public_blocks.addr("s3.eu-west-1.amazonaws.com").expect("an address").to_string();
        let passes = |word: &str, label: &str| names_end(&plan, word, label, &format!("{addr}:443"));
        // A flow ends at the door; what was dropped before it is known by the address alone.
        assert!(["endpoint:s3", "app.s3", "s3"].iter().all(|word| passes(word, "s3") && passes(word, &addr)));
        assert!(!passes("endpoint:dynamodb", "s3") && !passes("instance:s3", "s3"));
        assert!(!passes("endpoint:dynamodb", &addr));
    }
}
