//! Interface endpoints: service, subnets, groups, names and the conflicts of private DNS.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::service::{self, ServicesWritten};
use super::vpc::VpcFacts;
use super::{Draft, common, groups, policy, prefix_list};
use crate::base::ids::aws_id;
use crate::model::catalogue::{self, Service};
use crate::model::plan::{Common, EndpointKind, EndpointNames, EndpointPlan, EniOwner, Policy};
use crate::model::spec::fields::{At, Cx, Fields, parse_ip};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::{Entry, Value};
use crate::model::spec::report::did_you_mean;
use crate::model::spec::source::Place;
use crate::model::spec::subst::vpce_name;

/// What `endpoint_defaults` says; each is good unless the endpoint says otherwise.
#[derive(Default)]
struct Defaults {
    gateway: Option<bool>,
    route_tables: Vec<usize>,
    subnets: Option<Vec<Chosen>>,
    groups: Option<Vec<usize>>,
    private_dns: Option<At<bool>>,
    policy: Option<Policy>,
}

/// A subnet that an endpoint is in, with its fixed address.
#[derive(Clone, Copy)]
struct Chosen {
    subnet: Option<usize>,
    ip: Option<At<Ipv4Addr>>,
    place: Place,
}

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, facts: &VpcFacts, services: &ServicesWritten<'a>, draft: &mut Draft) {
    let vpc_name = &cx.names.get(Kind::Vpc, facts.index).name;
    let mut defaults = Defaults::default();
    if let Some(entry) = vpc.entry("endpoint_defaults")
        && let Some(f) = Fields::open(cx, &keys::ENDPOINT_DEFAULTS, format!("endpoint defaults of {vpc_name}"), entry)
    {
        defaults = Defaults {
            gateway: kind(&f),
            route_tables: if f.has("route_tables") { tables(&f, facts.index) } else { Vec::new() },
            subnets: f.has("subnets").then(|| subnets(&f, facts, draft)),
            groups: f.has("security_groups").then(|| groups(&f, facts.index)),
            private_dns: private_dns(&f),
            policy: policy::read(&f),
        };
        f.done();
    }
    let mut zones: HashMap<String, (usize, Place)> = HashMap::new();
    for e in vpc.named("endpoints") {
        let Some(index) = cx.names.index(Kind::Endpoint, facts.index, &e.key) else { continue };
        let title = format!("endpoint {vpc_name}.{}", e.key);
        let Some(f) = Fields::open(cx, &keys::ENDPOINT, title, e) else { continue };
        one(&f, e, index, facts, &defaults, services, &mut zones, draft);
        f.done();
    }
}

#[allow(clippy::too_many_arguments, reason = "one endpoint and all that it may refer to or meet")]
fn one<'a>(
    f: &Fields<'a>,
    e: &Entry,
    index: usize,
    facts: &VpcFacts,
    defaults: &Defaults,
    services: &ServicesWritten<'a>,
    zones: &mut HashMap<String, (usize, Place)>,
    draft: &mut Draft,
) {
    let cx = f.cx;
    // AWS's CreateVpcEndpoint without a type makes a gateway endpoint.
    if kind(f).or(defaults.gateway).unwrap_or(cx.aws_defaults) {
        return gateway(f, e, index, facts, defaults, services, draft);
    }
    let common = common(f, Kind::Endpoint, index);
    if f.has("route_tables") {
        let _ = f.entry("route_tables");
        let found = f.error(f.key_place("route_tables"), "RouteTableIds is not applicable to Interface VPC Endpoints");
        cx.error(found.code("InvalidParameter").help("`type: gateway`, or leave it out"));
    }
    let service = service_of(f, e, facts);
    let chosen = if f.has("subnets") { subnets(f, facts, draft) } else { defaults.subnets.clone().unwrap_or_default() };
    if chosen.is_empty() && !f.has("subnets") && defaults.subnets.is_none() {
        let found = f.error(e.key_place, "the endpoint is in no subnet, so it has no address and nobody can reach it");
        cx.warning(found.help("`subnets: [NAME, ...]`, here or in `endpoint_defaults`"));
    }
    let security_groups = match &defaults.groups {
        Some(default) if !f.has("security_groups") => default.clone(),
        _ => groups(f, facts.index),
    };
    let written_dns = private_dns(f).or(defaults.private_dns);
    let policy = policy::read(f).or_else(|| defaults.policy.clone()).unwrap_or(Policy::Full);
    let Some(service) = service else { return };
    if !service.policy && policy != Policy::Full {
        let message = format!("{} supports no endpoint policy", service.name);
        cx.error(f.error(f.key_place("policy"), message).code("InvalidParameter"));
    }
    let private = service.private_zones(facts.region.name);
    let private_dns = judge_private_dns(f, facts, service, written_dns, e);
    if private_dns {
        for zone in &private {
            let Some((other, place)) = zones.insert(zone.apex.clone(), (index, f.place)) else { continue };
            let vpc = cx.names.get(Kind::Vpc, facts.index);
            let other = &cx.names.get(Kind::Endpoint, other).path;
            let message = format!(
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for {} in the VPC {}: endpoint {other}",
                zone.apex, vpc.name
            );
            let found = f.error(e.key_place, message).code("InvalidParameter").also(place, format!("{other} is here"));
            cx.error(
                found.help("one endpoint of a VPC has private DNS for a name: write `private_dns: false` at the other"),
            );
            break;
        }
    }
    for c in &chosen {
        let Some(subnet) = c.subnet else { continue };
        let az = draft.subnets[subnet].as_ref().map(|s| s.az).unwrap_or_default();
        draft.eni_drafts.push(EniDraft {
            common: Common {
                name: format!("{}@{az}", common.name),
                path: format!("{}@{az}", common.path),
                id: aws_id("eni", &common.id, &cx.names.get(Kind::Subnet, subnet).path),
                description: format!("VPC Endpoint Interface {}", common.id),
                tags: Vec::new(),
            },
            vpc: facts.index,
            subnet: Some(subnet),
            outside: None,
            ip: c.ip,
            security_groups: security_groups.clone(),
            source_dest_check: true,
            owner: EniOwner::Endpoint(index),
            place: c.place,
        });
    }
    let names = EndpointNames {
        regional: vpce_name(&common.id, None, service.vpce_label(), facts.region.name),
        zonal: Vec::new(),
        private,
    };
    let service = service::led_to(f, e, service, facts.region.name, services, draft);
    draft.endpoints[index] = Some(EndpointPlan {
        common,
        vpc: facts.index,
        service,
        kind: EndpointKind::Interface,
        enis: Vec::new(),
        security_groups,
        private_dns,
        policy,
        names,
    });
}

/// True if a gateway endpoint is asked for, false if an interface endpoint; `None` if nothing is said.
fn kind(f: &Fields<'_>) -> Option<bool> {
    let t = f.text("type")?;
    match t.value {
        "interface" => Some(false),
        "gateway" => Some(true),
        "gateway_load_balancer" | "resource" | "service_network" => {
            f.not_yet(t.place, &format!("type: {}", t.value));
            None
        }
        _ => {
            f.cx.error(f.error(t.place, format!("`type` cannot be `{}`", t.value)).help("interface or gateway"));
            None
        }
    }
}

/// A gateway endpoint: routes to its service's prefix list in the tables it names (PrivateLink Guide, "gateway
/// endpoints").
fn gateway(
    f: &Fields<'_>,
    e: &Entry,
    index: usize,
    facts: &VpcFacts,
    defaults: &Defaults,
    services: &ServicesWritten<'_>,
    draft: &mut Draft,
) {
    let cx = f.cx;
    let common = common(f, Kind::Endpoint, index);
    for (key, what) in
        [("security_groups", "SecurityGroupIds"), ("subnets", "SubnetIds"), ("private_dns", "PrivateDnsEnabled")]
    {
        if f.has(key) {
            let _ = f.entry(key);
            let message = format!("{what} is not applicable to Gateway VPC Endpoints: leave `{key}` out");
            cx.error(f.error(f.key_place(key), message).code("InvalidParameter"));
        }
    }
    let Some(service) = service_of(f, e, facts) else { return };
    let Some(prefix_list) = prefix_list::of_service(draft, service.name, facts.region.name) else {
        let message = format!("the service {} has no gateway endpoints: s3 and dynamodb have", service.name);
        cx.error(f.error(f.place, message).code("InvalidServiceName").help("`type: interface`"));
        return;
    };
    let written = f.has("route_tables");
    let mut route_tables: Vec<usize> = if written { tables(f, facts.index) } else { defaults.route_tables.clone() };
    if route_tables.is_empty() {
        let found = f.error(e.key_place, "the endpoint is in no route table, so no packet takes it");
        cx.warning(found.help("`route_tables: [NAME, ...]`"));
    }
    let clash = |table: usize| {
        draft.endpoints.iter().flatten().find(|other| match &other.kind {
            EndpointKind::Gateway { route_tables, prefix_list: list, .. } => {
                *list == prefix_list && route_tables.contains(&table)
            }
            EndpointKind::Interface => false,
        })
    };
    route_tables.retain(|&table| {
        let Some(other) = clash(table) else { return true };
        let path = &cx.names.get(Kind::RouteTable, table).path;
        let list = draft.prefix_lists[prefix_list].as_ref().map_or("", |list| &list.common.id);
        let message = format!(
            "route table {path} already has a route with destination-prefix-list-id {list}: by endpoint {}",
            other.common.path
        );
        cx.error(f.error(f.key_place("route_tables"), message).code("RouteAlreadyExists"));
        false
    });
    let policy = policy::read(f).or_else(|| defaults.policy.clone()).unwrap_or(Policy::Full);
    draft.eni_drafts.push(super::gateways::door(
        &common.name,
        &format!("{}/door", common.path),
        EniOwner::GatewayEndpoint(index),
        f.place,
    ));
    let service = service::led_to(f, e, service, facts.region.name, services, draft);
    draft.endpoints[index] = Some(EndpointPlan {
        common,
        vpc: facts.index,
        service,
        kind: EndpointKind::Gateway { route_tables, prefix_list, door: crate::base::EniIx(0) },
        enis: Vec::new(),
        security_groups: Vec::new(),
        private_dns: false,
        policy,
        names: EndpointNames::default(),
    });
}

fn tables(f: &Fields<'_>, vpc: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for t in f.texts("route_tables").unwrap_or_default() {
        let Some(at) = f.reference_within(Kind::RouteTable, vpc, t, "InvalidRouteTableID.NotFound") else { continue };
        if found.contains(&at) {
            f.cx.error(f.error(t.place, format!("the route table `{}` stands twice", t.value)));
        } else {
            found.push(at);
        }
    }
    found
}

/// `true` or `false`; `inbound-only` is off inside the VPC.
fn private_dns(f: &Fields<'_>) -> Option<At<bool>> {
    let t = f.entry("private_dns")?;
    if t.node.text() == Some("inbound-only") {
        return Some(At { value: false, place: t.place() });
    }
    f.bool("private_dns")
}

/// Whether private DNS is on; notes why it cannot be.
fn judge_private_dns(
    f: &Fields<'_>,
    facts: &VpcFacts,
    service: &Service,
    written: Option<At<bool>>,
    e: &Entry,
) -> bool {
    let cx = f.cx;
    let none = service.private_zones(facts.region.name).is_empty();
    let wanted = match written {
        Some(w) => w.value,
        // AWS's default for S3 is inbound-only.
        None if cx.aws_defaults && service.name == "s3" => {
            let message = "with `defaults: aws` private DNS of S3 is inbound-only: To set PrivateDnsOnlyForInboundResolverEndpoint to true, the VPC must have a Gateway endpoint for the service";
            let found = f.error(e.key_place, message).code("InvalidParameter");
            cx.error(found.help("write `private_dns: true` or `private_dns: false`"));
            false
        }
        None => !none,
    };
    if !wanted {
        return false;
    }
    let place = written.map_or(e.key_place, |w| w.place);
    if none {
        let message = format!(
            "private DNS can't be enabled because the service {} does not provide a private DNS name",
            service.full_name(facts.region.name)
        );
        cx.error(f.error(place, message).code("InvalidParameter").help("write `private_dns: false`"));
        return false;
    }
    if !facts.dns_support || !facts.dns_hostnames {
        let vpc = &cx.names.get(Kind::Vpc, facts.index);
        let message = format!(
            "enabling private DNS requires both dns_support and dns_hostnames of VPC {} to be true (dns_support is {}, dns_hostnames is {})",
            vpc.name, facts.dns_support, facts.dns_hostnames
        );
        let found = f.error(place, message).code("InvalidParameter").also(vpc.place, "the VPC");
        if cx.standing.contains(&format!("{}.{}", vpc.name, e.key)) {
            cx.warning(
                found.help(
                    "AWS lets the attributes of the VPC be changed later: its private names are then not answered",
                ),
            );
        } else {
            cx.error(found.help("set both at the VPC, or write `private_dns: false`"));
        }
    }
    true
}

fn service_of(f: &Fields<'_>, e: &Entry, facts: &VpcFacts) -> Option<&'static Service> {
    let written = f.text("service").unwrap_or(At { value: e.key.as_str(), place: e.key_place });
    let name = written.value;
    if name.starts_with("endpoint-service:") || name.starts_with("com.amazonaws.vpce.") {
        f.not_yet(written.place, &format!("service: {name}"));
        return None;
    }
    if let Some(s) = catalogue::service(name).filter(|s| s.endpoint) {
        return Some(s);
    }
    if let Some((s, region)) = catalogue::by_full_name(name) {
        match region {
            Some(r) if r != facts.region.name => {
                f.not_yet(
                    written.place,
                    &format!("a service of another region ({r}, the VPC is in {})", facts.region.name),
                );
                return None;
            }
            _ => return Some(s),
        }
    }
    if f.cx.problems.is_full() {
        return None;
    }
    let near = did_you_mean(name, catalogue::services().iter().filter(|s| s.endpoint).map(|s| s.name));
    let help = match near {
        Some(n) => n,
        None if !f.has("service") => "name the service: `service: sqs`; `vpclab services` lists all".to_owned(),
        None => "`vpclab services` lists all".to_owned(),
    };
    let message = format!("the VPC endpoint service `{name}` does not exist");
    f.cx.error(f.error(written.place, message).code("InvalidServiceName").help(help));
    None
}

/// A list of names, or a map from name to address; at most one in each zone.
fn subnets(f: &Fields<'_>, facts: &VpcFacts, draft: &Draft) -> Vec<Chosen> {
    let Some(entry) = f.entry("subnets") else { return Vec::new() };
    let find = |t: At<&str>| f.reference_within(Kind::Subnet, facts.index, t, "InvalidParameter");
    let chosen: Vec<Chosen> = match &entry.node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|e| {
                let ip = e.node.text().map(|value| At { value, place: e.place() });
                let ip = match &e.node.value {
                    Value::Null => None,
                    Value::Text(_) => ip.and_then(|t| parse_ip(f, t, &e.key)),
                    _ => {
                        f.cx.error(f.error(e.place(), format!("an address is wanted, not {}", e.node.kind())));
                        None
                    }
                };
                let subnet = find(At { value: e.key.as_str(), place: e.key_place });
                Chosen { subnet, ip, place: e.key_place }
            })
            .collect(),
        _ => f
            .texts("subnets")
            .unwrap_or_default()
            .into_iter()
            .map(|t| Chosen { subnet: find(t), ip: None, place: t.place })
            .collect(),
    };
    let mut zones: HashMap<char, (usize, Place)> = HashMap::new();
    for c in &chosen {
        let Some(plan) = c.subnet.and_then(|s| draft.subnets[s].as_ref()) else { continue };
        let Some(subnet) = c.subnet else { continue };
        if let Some((other, place)) = zones.insert(plan.az, (subnet, c.place)) {
            let other = &f.cx.names.get(Kind::Subnet, other).path;
            let message = format!(
                "found another VPC endpoint subnet in the availability zone of {}: {other} is in {} too",
                plan.common.path, plan.az_name
            );
            let found = f.error(c.place, message).code("DuplicateSubnetsInSameZone").also(place, other.as_str());
            f.cx.error(found.help("an endpoint is in at most one subnet of each zone"));
        }
    }
    chosen
}
