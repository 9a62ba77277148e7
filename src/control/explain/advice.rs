//! What to do about it: what the client sees, the smallest change of the file, and what else is worth knowing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::gateways::BY_HASH;
use super::path::{CLIENT_PORT, eni_at};
use super::{Explanation, Facts, Target, ports, routes, symmetry};
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::engine::{Engine, EngineLimits, NACL_STAR, compile};
use crate::model::catalogue::{self, PublicForm, PublicName};
use crate::model::plan::{EniOwner, Home, Limits, NaclRule, PrefixListPlan, SgPeer, SgRule, TrafficMatch};
use crate::model::{Plan, latency};

/// Changes that are tried one after the other before no more are suggested.
const CHANGES_MAX: usize = 4;

/// The name stage failed.
pub(super) fn after_name(plan: &Plan, src: usize, told: &mut Explanation) {
    client_sees(told);
    let vpc = plan.instances[src].vpc().map_or("", |vpc| &plan.vpcs[vpc].common.name);
    match (told.code.as_deref(), &told.destination.target) {
        (Some("DNS_DISABLED"), _) => told.smallest_change.push(format!("vpcs.{vpc}.dns_support: true")),
        (Some("DNS_NXDOMAIN"), Target::Host(host)) => {
            let note = if plan.find_instance(host).is_ok() {
                format!("{host} is an instance, not a name: write instance:{host}")
            } else if plan.find_endpoint(host).is_ok() {
                format!("{host} is an endpoint, not a name: write endpoint:{host}")
            } else if told.name.as_ref().is_some_and(|name| name.lookup.endpoint.is_some()) {
                "the most specific private zone is final: a name that it lacks does not exist in this VPC".to_owned()
            } else {
                "no zone of the lab has this name, and nothing is asked of the real world".to_owned()
            };
            told.notes.push(note);
        }
        _ => {}
    }
}

/// A packet was dropped there or back.
pub(super) fn after_path(facts: &Facts<'_>, src: usize, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) {
    client_sees(told);
    public_side(facts.plan, src, told);
    other_address(facts.plan, from, dst, told);
    if told.smallest_change.is_empty() && told.notes.is_empty() {
        told.smallest_change = changes(facts.plan, from, dst, told);
    }
    let notes = told.name.as_ref().map(|name| name.lookup.notes.clone()).unwrap_or_default();
    if told.notes.is_empty() {
        told.notes = notes;
    }
}

/// It works: by which way, and what else matters.
pub(super) fn reached(plan: &Plan, target: Option<EniIx>, dst: Ipv4Addr, told: &mut Explanation) {
    let Some(eni) = target else { return };
    let (kind, mut object) = super::owner(plan, eni);
    if plan.eni(eni).owner == EniOwner::PublicSide
        && let Some((service, region)) = plan.public_blocks.service_at(dst)
    {
        object = format!("{} of {region}", service.name);
    }
    (told.kind, told.object) = (Some(kind.to_owned()), Some(object.clone()));
    if let EniOwner::Endpoint(at) = plan.eni(eni).owner
        && let Some(backend) = plan.services[plan.endpoints[at].service].backend.url()
    {
        told.notes.push(format!("behind {object} stands {backend}: the client is refused where that refuses"));
    }
    if let EniOwner::Instance(at, _) = plan.eni(eni).owner
        && told.destination.proto != Proto::ICMP
        && !plan.instances[at]
            .listen
            .iter()
            .any(|l| (l.proto, l.port) == (told.destination.proto, told.destination.port))
    {
        let traffic = told.destination.traffic();
        told.notes.push(format!("the file has no listener on {traffic} of {object}: what answers is what runs there"));
    }
}

/// From the Internet, an instance is known by its public address only.
fn other_address(plan: &Plan, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) {
    if plan.eni(from).home != Home::Internet || !dst.is_private() {
        return;
    }
    for public in plan.public_addresses.iter().filter(|public| plan.eni(public.eni).ip == dst) {
        let EniOwner::Instance(at, _) = plan.eni(public.eni).owner else { continue };
        let path = &plan.instances[at].common.path;
        told.notes.push(format!("{dst} is the private address of {path}; from the Internet it is {}", public.addr));
        return;
    }
    if let Some(EniOwner::Instance(at, _)) = eni_at(plan, from, dst).map(|eni| plan.eni(eni).owner) {
        let path = &plan.instances[at].common.path;
        told.notes.push(format!("{path} has no public address: nothing of the Internet reaches it"));
    }
}

/// Another connection of the same kind may take another zone.
pub(super) fn zone_by_hash(told: &mut Explanation) {
    if told.steps.iter().any(|step| step.detail.ends_with(BY_HASH)) {
        let port = told.source.port;
        told.notes.push(format!("a zone is chosen {BY_HASH}: from port {port} here; --from-port asks for another"));
    }
}

/// Delays that are no measurement of this machine's are named wherever they are on.
pub(super) fn delays(plan: &Plan, told: &mut Explanation) {
    told.notes.extend(latency::note(plan).map(|note| format!("latency: {note}")));
}

/// Times and quotas that are not AWS's, with both values.
pub(super) fn limits(limits: &Limits, told: &mut Explanation) {
    let differs: Vec<String> = limits
        .beside_aws()
        .iter()
        .map(|(name, here, there)| format!("{name} is {here} here, {there} in AWS"))
        .collect();
    if !differs.is_empty() {
        told.notes.push(differs.join("; "));
    }
}

/// Measured with curl 7.88 and aws-cli 1.46 in namespaces.
pub(super) fn client_sees(told: &mut Explanation) {
    let ping = told.destination.proto == Proto::ICMP;
    let udp = told.destination.proto == Proto::UDP;
    let seen = match (told.stage, told.code.as_deref()) {
        (Some("name"), Some("DNS_DISABLED")) => {
            "no answer to the query (curl 6 after the resolver's timeout; aws-cli \"Could not connect to the endpoint URL\")"
        }
        (Some("name"), _) => "\"Could not resolve host\" (curl 6; aws-cli \"Could not connect to the endpoint URL\")",
        (Some("tls"), _) => {
            "a certificate for other names (curl 60; aws-cli \"SSL validation failed ... hostname doesn't match\")"
        }
        (Some("policy"), _) => "HTTP 403 or 400, access denied (curl 0; aws-cli \"An error occurred (AccessDenied)\")",
        (Some("there"), Some("WRONG_RECEIVER")) => "what another machine with the same address answers",
        (_, Some("IPV6")) => {
            "\"Network is unreachable\" unless it has an IPv6 address and route, then a timeout (curl 7; 28)"
        }
        // In the sender's own subnet: nobody answers ARP.
        (Some("there"), Some("NO_ENI")) if told.kind.as_deref() == Some("instance") => {
            "\"No route to host\" after 3 s without an answer to ARP (curl 7; ping: Destination Host Unreachable)"
        }
        _ if ping => "nothing (ping: 100% packet loss)",
        _ if udp => "nothing: no answer and no ICMP message",
        _ => "nothing, then a timeout (curl 28; aws-cli \"Connect timeout on endpoint URL\")",
    };
    told.client_sees = Some(seen.to_owned());
}

/// No way to AWS's public addresses: is there an endpoint that should have been taken?
fn public_side(plan: &Plan, src: usize, told: &mut Explanation) {
    if told.code.as_deref() != Some("RT_NO_ROUTE") {
        return;
    }
    let Target::Host(host) = &told.destination.target else { return };
    let Some(public) = catalogue::public_name(host) else { return };
    let service = public.service.name;
    let Some(vpc) = plan.instances[src].vpc() else { return };
    let path = &plan.vpcs[vpc].common.name;
    let own = plan.endpoints.iter().filter(|e| e.vpc == vpc && plan.services[e.service].name == service);
    let region = &plan.vpcs[vpc].region;
    let covered = |e: &crate::model::plan::EndpointPlan| {
        e.names.private.iter().find(|zone| zone.at_apex).map(|zone| zone.apex.clone())
    };
    let endpoint = own.min_by_key(|e| !e.private_dns);
    let form = match public.form {
        PublicForm::Legacy => "a legacy name",
        PublicForm::Global => "a global name",
        PublicForm::Fips => "a FIPS name",
        PublicForm::DualStack => "a dual-stack name",
        PublicForm::Regional => "the regional name",
    };
    match endpoint {
        Some(e) => {
            let name = &e.common.name;
            let has_it = e.names.private.iter().any(|zone| {
                zone.at_apex && zone.apex == *host
                    || zone.wildcard && host.strip_suffix(&zone.apex).is_some_and(|own| own.ends_with('.'))
            });
            if has_it {
                told.notes.push(format!("{host} is public here: endpoint {name} has private_dns off"));
                told.smallest_change.push(format!("{path}.endpoints.{name}.private_dns: true"));
            } else {
                let instead = covered(e).unwrap_or_else(|| e.names.regional.clone());
                told.notes.push(format!(
                    "{host} is {form} of {service} that private DNS of endpoint {name} does not cover; it covers {instead}"
                ));
                if let Some(clients) = asked_by(&public, host, region) {
                    told.notes.push(format!("asked for by {clients}"));
                }
            }
        }
        None if public.service.endpoint && public.region == region => {
            told.notes.push(format!("{host} is public, and the VPC has no way out and no endpoint for {service}"));
            if public.form == PublicForm::Regional {
                told.smallest_change.push(format!("{path}.endpoints += {{ {service}: {{}} }}"));
            }
        }
        None => {
            told.notes.push(format!(
                "{host} is {form} of {service} in {}: public, and the VPC has no way out",
                public.region
            ));
        }
    }
}

/// Which clients ask for a name that private DNS does not cover (measured with botocore 1.43, aws-cli 1.46).
fn asked_by(public: &PublicName, host: &str, region: &str) -> Option<&'static str> {
    match (public.service.name, public.form) {
        ("sqs", PublicForm::Legacy) => Some("aws-cli v1; aws-cli v2 and boto3 ask for the regional name"),
        ("s3", PublicForm::Legacy) if region == "us-east-1" || host.ends_with("s3.amazonaws.com") => Some(
            "aws-cli v1 and boto3 in us-east-1; aws-cli v2 and AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=regional ask for the regional name",
        ),
        ("sts", PublicForm::Legacy | PublicForm::Global) => {
            Some("old SDKs and AWS_STS_REGIONAL_ENDPOINTS=legacy; with =regional clients ask for the regional name")
        }
        (_, PublicForm::Fips) => Some("clients with AWS_USE_FIPS_ENDPOINT=true"),
        (_, PublicForm::DualStack) => Some("clients with AWS_USE_DUALSTACK_ENDPOINT=true"),
        (_, PublicForm::Legacy) => Some("old clients"),
        _ => None,
    }
}

/// Changes that make the connection work, each tried on a copy of the plan before the next is looked for.
fn changes(plan: &Plan, from: EniIx, dst: Ipv4Addr, told: &Explanation) -> Vec<String> {
    let mut plan = plan.clone();
    let mut told = told.clone();
    let mut changes = Vec::new();
    while !told.reachable && changes.len() < CHANGES_MAX {
        let Some((change, applied)) = change(&mut plan, from, dst, &told) else { break };
        changes.push(change);
        if !applied {
            break;
        }
        let engine = Engine::new(Arc::new(compile(&plan, 1)), EngineLimits::default());
        let mut again =
            super::blank(&plan, (plan_instance(&plan, from), told.source.given()), told.destination.clone());
        ports::walk(&plan, &engine, from, dst, &mut again);
        told = again;
    }
    changes
}

fn plan_instance(plan: &Plan, eni: EniIx) -> usize {
    match plan.eni(eni).owner {
        EniOwner::Instance(at, _) => at,
        _ => 0,
    }
}

/// The change for one refusal, and whether it was applied to the plan.
fn change(plan: &mut Plan, from: EniIx, dst: Ipv4Addr, told: &Explanation) -> Option<(String, bool)> {
    let back = told.stage == Some("back");
    let target = eni_at(plan, from, dst);
    let object = told.object.clone()?;
    let vpc = plan.vpc_of(from).map(|vpc| vpc.common.name.clone()).unwrap_or_default();
    match told.code.as_deref()? {
        "SG_EGRESS" if !back => Some((allow_group(plan, from, target, dst, told, true)?, true)),
        "SG_INGRESS" if !back => Some((allow_group(plan, target?, Some(from), plan.eni(from).ip, told, false)?, true)),
        "NACL_OUT" | "NACL_IN" => Some((allow_acl(plan, from, dst, told, back)?, true)),
        "RT_BLACKHOLE" => {
            let name = object.rsplit('.').next()?;
            Some((format!("{vpc}.route_tables.{name}.routes -= {{ {} }}", told.rule.as_deref()?), false))
        }
        code if routes::is_about(code) => routes::change(plan, from, dst, told),
        "FW_NO_STATE" => symmetry::change(plan, from, dst, told),
        "SRC_DST_CHECK" => {
            let name = object.rsplit('.').next()?;
            Some((format!("{vpc}.instances.{name}.source_dest_check: false"), false))
        }
        "VPCE_PORT" => {
            let EniOwner::Endpoint(at) = plan.eni(target?).owner else { return None };
            let port = plan.services[plan.endpoints[at].service].ports.first()?;
            Some((format!("ask for port {port}: it is the one that the service serves"), false))
        }
        "VPCE_PROTO" => Some(("ask over tcp: an interface endpoint carries nothing else".into(), false)),
        "DNS_DISABLED" => Some((format!("vpcs.{vpc}.dns_support: true"), false)),
        "CT_FULL" => Some((format!("limits.conntrack_max: {}", plan.limits.conntrack_max.saturating_mul(2)), false)),
        _ => None,
    }
}

/// `app.security_groups.doors.ingress += "tcp 443 from sg:guest"`: the peer's first group where the peer is an ENI of
/// the same VPC; the prefix list of a service that a gateway endpoint of the VPC serves; else its address.
fn allow_group(
    plan: &mut Plan,
    at: EniIx,
    peer: Option<EniIx>,
    addr: Ipv4Addr,
    told: &Explanation,
    egress: bool,
) -> Option<String> {
    let group = *plan.eni(at).security_groups.first()?;
    let peer_group = peer.filter(|p| plan.eni(*p).vpc() == plan.eni(at).vpc() && plan.eni(*p).ip == addr);
    let peer_group = peer_group.and_then(|p| plan.eni(p).security_groups.first().copied());
    let vpc = plan.eni(at).vpc().filter(|_| egress);
    let gateways = plan.endpoints.iter().filter(|e| Some(e.vpc) == vpc && e.is_gateway());
    let list = gateways.map(|e| &plan.services[e.service]).find_map(|service| {
        let of_service = |l: &PrefixListPlan| l.list_name == service.full_name;
        let at = plan.prefix_lists.iter().position(|l| l.aws && of_service(l))?;
        let holds = plan.prefix_lists[at].entries.iter().any(|block| block.contains(addr));
        holds.then(|| (at, service.name.clone()))
    });
    let (peer, peer_text) = match (peer_group, list) {
        (Some(g), _) => (SgPeer::Group(g), format!("sg:{}", plan.security_groups[g].common.name)),
        (None, Some((at, service))) => (SgPeer::PrefixList(at), format!("pl:{service}")),
        (None, None) => (SgPeer::Cidr(Cidr::host(addr)), Cidr::host(addr).to_string()),
    };
    let traffic = told.destination.traffic();
    let (list, word) = if egress { ("egress", "to") } else { ("ingress", "from") };
    let text = format!("{traffic} {word} {peer_text}");
    let matches = traffic_match(told, false);
    let rule = SgRule { id: String::new(), matches, peer, text: text.clone(), implied: false };
    let vpc = plan.vpcs[plan.security_groups[group].vpc].common.name.clone();
    let group = &mut plan.security_groups[group];
    if egress {
        group.egress.push(rule);
    } else {
        group.ingress.push(rule);
    }
    Some(format!("{vpc}.security_groups.{}.{list} += \"{text}\"", group.common.name))
}

/// `app.network_acls.inner.ingress += { 90: allow tcp 443 from 10.0.1.0/24 }`, before the rule that denies. Answers go
/// to the client's ephemeral ports.
fn allow_acl(plan: &mut Plan, from: EniIx, dst: Ipv4Addr, told: &Explanation, back: bool) -> Option<String> {
    let egress = told.direction == Some("egress");
    let path = told.object.as_deref()?;
    let at = plan.network_acls.iter().position(|acl| acl.common.path == path)?;
    let client = plan.link_of(from).0;
    let server = eni_at(plan, from, dst).map_or(Cidr::host(dst), |eni| plan.link_of(eni).0);
    // Egress names where it goes, ingress where it comes from; on the way back the ends are swapped.
    let peer = if egress != back { server } else { client };
    let acl = &mut plan.network_acls[at];
    let rules = if egress { &mut acl.egress } else { &mut acl.ingress };
    let denying = told.detail.as_deref().and_then(|detail| detail.strip_prefix("rule ")?.parse::<u16>().ok());
    let number = match denying {
        Some(deny) => (1..deny).rev().find(|n| !rules.iter().any(|rule| rule.number == *n))?,
        None => rules.last().map_or(100, |rule| (rule.number / 100 + 1).saturating_mul(100)).min(NACL_STAR - 1),
    };
    let traffic = if back { answer_traffic(told) } else { told.destination.traffic() };
    let word = if egress { "to" } else { "from" };
    let text = format!("{number}: allow {traffic} {word} {peer}");
    let rule = NaclRule { number, allow: true, matches: traffic_match(told, back), peer, text: text.clone() };
    rules.push(rule);
    rules.sort_by_key(|rule| rule.number);
    let vpc = plan.vpcs[acl.vpc].common.name.as_str();
    let list = if egress { "egress" } else { "ingress" };
    let default = if acl.default { " (the default NACL: give the subnet one of its own)" } else { "" };
    Some(format!("{vpc}.network_acls.{}.{list} += {{ {text} }}{default}", acl.common.name))
}

/// Linux's range of ephemeral ports (VPC User Guide, "ephemeral ports").
pub(super) const EPHEMERAL: PortRange = PortRange { first: 32_768, last: 60_999 };
const _: () = assert!(EPHEMERAL.contains(CLIENT_PORT));

fn answer_traffic(told: &Explanation) -> String {
    match told.destination.proto {
        Proto::ICMP => "icmp 0".into(),
        proto => format!("{proto} {}", client_ports(told)),
    }
}

/// Where answers go to: what clients' kernels choose from, unless another port was asked for.
fn client_ports(told: &Explanation) -> PortRange {
    let port = told.source.port;
    if EPHEMERAL.contains(port) { EPHEMERAL } else { PortRange::one(port) }
}

fn traffic_match(told: &Explanation, answer: bool) -> TrafficMatch {
    let proto = told.destination.proto;
    let ports = if answer { client_ports(told) } else { PortRange::one(told.destination.port) };
    match proto {
        Proto::ICMP => {
            let icmp = (Some(if answer { 0 } else { 8 }), None);
            TrafficMatch { proto: Some(proto), icmp, ..TrafficMatch::ALL }
        }
        _ => TrafficMatch { proto: Some(proto), ports, icmp: (None, None) },
    }
}
