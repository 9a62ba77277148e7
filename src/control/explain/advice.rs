//! What to do about it: what the client sees, the smallest change of the file, and what else is worth knowing.

mod endpoints;
mod routes;
mod rules;
mod search;

use std::net::Ipv4Addr;

use super::gateways::BY_HASH;
use super::path::eni_at;
use super::{Explanation, Facts, Request, Target};
use crate::base::{EniIx, Proto};
use crate::model::catalogue::{self, PublicForm, PublicName};
use crate::model::plan::{EndpointKind, EndpointPlan, EniOwner, Home, InstanceHome, Limits};
use crate::model::{Plan, latency};

/// The answer is no: what the client sees of it, why it may be so, and what to do.
pub(super) fn refused(
    facts: &Facts<'_>,
    from: (usize, Option<u16>),
    request: Option<&Request>,
    told: &mut Explanation,
) {
    client_sees(told);
    name_notes(facts.plan, told);
    if let Some((eni, dst)) = told.ends.filter(|_| told.dropped.is_some()) {
        public_side(facts.plan, from.0, told);
        other_address(facts.plan, eni, dst, told);
        if told.notes.is_empty() {
            told.notes = told.name.as_ref().map(|name| name.lookup.notes.clone()).unwrap_or_default();
        }
    }
    told.smallest_change = search::fewest(facts, from, request, told);
}

fn name_notes(plan: &Plan, told: &mut Explanation) {
    if let (Some("DNS_NXDOMAIN"), Target::Host(host)) = (told.code.as_deref(), &told.destination.target) {
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
        .into_iter()
        .map(|(name, here, there)| format!("{name} is {here} here, {there} in AWS"))
        .collect();
    if !differs.is_empty() {
        told.notes.push(differs.join("; "));
    }
}

/// Measured with curl 7.88 and aws-cli 1.46 in namespaces.
fn client_sees(told: &mut Explanation) {
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
        (_, Some("ROUTE_LOOP")) if told.dropped.is_none() && ping => {
            "\"Time to live exceeded\" where the instance's message gets back, else nothing (ping: 100% packet loss)"
        }
        (_, Some("ROUTE_LOOP")) if told.dropped.is_none() => {
            "\"No route to host\" where the instance's ICMP message gets back (curl 7), else nothing, then a timeout (curl 28)"
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
    let region = &plan.vpcs[vpc].region;
    let own = || {
        let here = |e: &EndpointPlan| e.vpc == vpc && plan.services[e.service].name == service;
        (0..plan.endpoints.len()).filter(move |at| here(&plan.endpoints[*at]))
    };
    let interface =
        own().filter(|at| !plan.endpoints[*at].is_gateway()).min_by_key(|at| !plan.endpoints[*at].private_dns);
    let form = match public.form {
        PublicForm::Legacy => "a legacy name",
        PublicForm::Global => "a global name",
        PublicForm::Fips => "a FIPS name",
        PublicForm::DualStack => "a dual-stack name",
        PublicForm::Regional => "the regional name",
    };
    match (interface, own().next()) {
        (Some(at), _) => {
            let endpoint = &plan.endpoints[at];
            let name = &endpoint.common.name;
            if endpoints::would_cover(plan, at, host) {
                told.notes.push(format!("{host} is public here: endpoint {name} has private_dns off"));
            } else if let Some(instead) = endpoints::covered(plan, at) {
                told.notes.push(format!(
                    "{host} is {form} of {service} that private DNS of endpoint {name} does not cover; it covers {instead}"
                ));
                if let Some(clients) = asked_by(&public, host, region) {
                    told.notes.push(format!("asked for by {clients}"));
                }
            } else {
                let own = &endpoint.names.regional;
                told.notes.push(format!("{host} is public: endpoint {name} has no private DNS, only names like {own}"));
            }
        }
        (None, Some(at)) => {
            let endpoint = &plan.endpoints[at];
            let tables = match &endpoint.kind {
                EndpointKind::Gateway { route_tables, .. } => route_tables.as_slice(),
                EndpointKind::Interface => &[],
            };
            let tables: Vec<&str> = tables.iter().map(|at| plan.route_tables[*at].common.name.as_str()).collect();
            let tables = if tables.is_empty() { "no route table".to_owned() } else { tables.join(", ") };
            told.notes.push(format!(
                "{host} is public: gateway endpoint {} has no name of its own; it has routes in {tables}",
                endpoint.common.name
            ));
        }
        _ if public.service.endpoint && public.region == region => {
            told.notes.push(format!("{host} is public, and the VPC has no way out and no endpoint for {service}"));
        }
        _ => {
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

/// `app.route_tables.private` of `app.private`.
fn path(noun: &str, path: &str) -> String {
    match path.split_once('.') {
        Some((vpc, name)) => format!("{}.{noun}.{name}", vpc_key(vpc)),
        None => format!("{noun}.{path}"),
    }
}

/// A VPC by its bare name, as advice has it, unless something else of the file is named so.
fn vpc_key(vpc: &str) -> String {
    let top = crate::model::spec::keys::TOP.find(vpc).is_some();
    if top { format!("vpcs.{vpc}") } else { vpc.to_owned() }
}

/// Where the file has an instance or host.
fn instance_key(plan: &Plan, at: usize) -> String {
    let instance = &plan.instances[at];
    let name = instance.common.name.as_str();
    let name = name.rsplit_once('-').filter(|_| instance.counted).map_or(name, |(name, _)| name);
    match instance.home {
        InstanceHome::Vpc(vpc) => format!("{}.instances.{name}", vpc_key(&plan.vpcs[vpc].common.name)),
        InstanceHome::Site(site) => format!("on_prem.{}.hosts.{name}", plan.sites[site].common.name),
        InstanceHome::Internet => format!("internet.{name}"),
    }
}
