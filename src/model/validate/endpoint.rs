//! Endpoints: service, subnets, groups and names; and which type each is.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::private_dns::{self, Claims, PrivateDns};
use super::service::{self, ServicesWritten};
use super::vpc::VpcFacts;
use super::{Draft, common, gateway_endpoint, groups, policy};
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
pub struct Defaults {
    gateway: Option<bool>,
    pub route_tables: Vec<usize>,
    subnets: Option<Vec<Chosen>>,
    groups: Option<Vec<usize>>,
    private_dns: Option<At<PrivateDns>>,
    pub policy: Option<Policy>,
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
            route_tables: gateway_endpoint::tables(&f, facts.index),
            subnets: f.has("subnets").then(|| subnets(&f, facts, draft)),
            groups: f.has("security_groups").then(|| groups(&f, facts.index)),
            private_dns: private_dns::read(&f),
            policy: policy::read(&f),
        };
        f.done();
    }
    let mut dns = Claims::default();
    for e in vpc.named("endpoints") {
        let Some(index) = cx.names.index(Kind::Endpoint, facts.index, &e.key) else { continue };
        let title = format!("endpoint {vpc_name}.{}", e.key);
        let Some(f) = Fields::open(cx, &keys::ENDPOINT, title, e) else { continue };
        one(&f, e, index, facts, &defaults, services, &mut dns, draft);
        f.done();
    }
    dns.refuse_without_gateway(cx, facts, draft);
}

#[allow(clippy::too_many_arguments, reason = "one endpoint and all that it may refer to or meet")]
fn one<'a>(
    f: &Fields<'a>,
    e: &Entry,
    index: usize,
    facts: &VpcFacts,
    defaults: &Defaults,
    services: &ServicesWritten<'a>,
    dns: &mut Claims,
    draft: &mut Draft,
) {
    let cx = f.cx;
    // AWS's CreateVpcEndpoint without a type makes a gateway endpoint.
    if kind(f).or(defaults.gateway).unwrap_or(cx.aws_defaults) {
        return gateway_endpoint::read(f, e, index, facts, defaults, services, draft);
    }
    let common = common(f, Kind::Endpoint, index);
    if f.has("route_tables") {
        let _ = f.entry("route_tables");
        let found =
            f.error(f.key_place("route_tables"), "Route table IDs are only supported for Gateway type VPC Endpoint");
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
    let written_dns = private_dns::read(f).or(defaults.private_dns);
    let policy = policy::read(f).or_else(|| defaults.policy.clone()).unwrap_or(Policy::Full);
    let Some(service) = service else { return };
    if !service.policy && policy != Policy::Full {
        let message = format!("{} supports no endpoint policy", service.name);
        cx.error(f.error(f.key_place("policy"), message).code("InvalidParameter"));
    }
    let private = service.private_zones(facts.region.name);
    let private_dns = dns.judge(f, facts, service, written_dns, e, index);
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

/// The service that an endpoint leads to, by `service` or its own name.
pub fn service_of(f: &Fields<'_>, e: &Entry, facts: &VpcFacts) -> Option<&'static Service> {
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
