//! Changes of rules and of what a thing is allowed: security groups, network ACLs, policies, limits, faults.

use std::net::Ipv4Addr;

use super::super::path::eni_at;
use super::super::ports::{EPHEMERAL, GIVEN};
use super::super::{Destination, Explanation};
use super::search::{Change, World};
use super::{instance_key, path};
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::engine::{Decider, Direction, DropCode, DropRecord, NACL_STAR};
use crate::model::Plan;
use crate::model::plan::{
    AttachmentTo, EniOwner, Fault, FaultPlan, Forward, LinkKind, NaclRule, Policy, RolePlan, SgPeer, SgRule,
    TrafficMatch,
};
use crate::policy::{self, Decision, Document, Kind};

/// What could be done about a refusal by a rule, a policy, a limit or a fault.
pub(super) fn changes(world: &World, told: &Explanation) -> Vec<Change> {
    let one = match (told.code.as_deref(), told.dropped.as_ref()) {
        (Some("DNS_DISABLED"), _) => dns_support(world),
        (Some("VPCE_POLICY" | "ROLE_POLICY"), _) => return policies(world, told),
        (None, None) => forward(world, told),
        (Some(_), Some(record)) => match record.code {
            DropCode::SgEgress | DropCode::SgIngress => allow_group(world, told, record),
            DropCode::NaclOut | DropCode::NaclIn => allow_acl(world, told, record),
            DropCode::SrcDstCheck => no_check(world, record),
            DropCode::DnsDisabled => dns_support(world),
            DropCode::VpcePort | DropCode::VpceProto | DropCode::PublicPort => served(world, told, record),
            DropCode::FwNoState => return one_way(world, record),
            DropCode::AzDown
            | DropCode::VpceAzDown
            | DropCode::InstanceDown
            | DropCode::VpnDown
            | DropCode::LinkImpaired => end_of_fault(world, told),
            _ => None,
        },
        _ => None,
    };
    one.into_iter().collect()
}

/// What helps where a table of the running lab is full.
pub(super) fn of_state(plan: &Plan, told: &Explanation) -> Vec<String> {
    let limit = |name: &str, now: u32| vec![format!("limits.{name}: {}", now.saturating_mul(2))];
    match told.code.as_deref() {
        Some("CT_FULL") => limit("conntrack_max", plan.limits.conntrack_max),
        Some("NAT_NO_PORT") => limit("nat_ports", plan.limits.nat_ports),
        _ => Vec::new(),
    }
}

/// For an instance whose kernel drops what is not for it: it has no code.
fn forward(world: &World, told: &Explanation) -> Option<Change> {
    let plan = &world.plan;
    let at = plan.instances.iter().position(|i| Some(&i.common.path) == told.object.as_ref())?;
    let line = format!("{}.forward: true", instance_key(plan, at));
    Some(Change::new(line, move |world| world.plan.instances[at].forward = Some(Forward::Plain)))
}

fn dns_support(world: &World) -> Option<Change> {
    let vpc = world.plan.instances[world.src].vpc()?;
    let line = format!("{}.dns_support: true", super::vpc_key(&world.plan.vpcs[vpc].common.name));
    Some(Change::new(line, move |world| world.plan.vpcs[vpc].dns_support = true))
}

/// `app.security_groups.doors.ingress += "tcp 443 from sg:guest"`: the peer's first group where the peer is an ENI of
/// the same VPC; the prefix list of a service that a gateway endpoint of the VPC serves; else its address.
fn allow_group(world: &World, told: &Explanation, record: &DropRecord) -> Option<Change> {
    let plan = &world.plan;
    let Decider::SecurityGroups(at) = record.decider else { return None };
    let egress = record.direction == Direction::Egress;
    let addr = if egress { record.tuple.dst } else { record.tuple.src };
    let at_group = *plan.eni(at).security_groups.first()?;
    let peer = eni_at(plan, at, addr).filter(|p| plan.eni(*p).vpc() == plan.eni(at).vpc() && plan.eni(*p).ip == addr);
    let peer_group = peer.and_then(|p| plan.eni(p).security_groups.first().copied());
    let list = plan.eni(at).vpc().filter(|_| egress).and_then(|vpc| list_with(plan, vpc, addr));
    let (peer, peer_text) = match (peer_group, list) {
        (Some(group), _) => (SgPeer::Group(group), format!("sg:{}", plan.security_groups[group].common.name)),
        (None, Some((list, service))) => (SgPeer::PrefixList(list), format!("pl:{service}")),
        (None, None) => (SgPeer::Cidr(Cidr::host(addr)), Cidr::host(addr).to_string()),
    };
    let answer = told.stage == Some("back");
    let (list, word) = if egress { ("egress", "to") } else { ("ingress", "from") };
    let text = format!("{} {word} {peer_text}", traffic_text(plan, record, answer));
    let matches = traffic_match(plan, record, answer);
    let group = &plan.security_groups[at_group];
    let rules = if egress { &group.egress } else { &group.ingress };
    let key = format!("{}.{list}", path("security_groups", &group.common.path));
    // A list that the file leaves out means some rules; one that is written means only what stands there.
    let line = if rules.iter().any(|rule| rule.implied) {
        let all: Vec<String> = rules.iter().map(|rule| rule.text.clone()).chain([text.clone()]).collect();
        format!("{key}: {}", serde_json::to_string(&all).unwrap_or_default().replace("\",\"", "\", \""))
    } else {
        format!("{key} += \"{text}\"")
    };
    Some(Change::new(line, move |world| {
        let rule = SgRule { id: String::new(), matches, peer, text: text.clone(), implied: false };
        let group = &mut world.plan.security_groups[at_group];
        if egress { group.egress.push(rule) } else { group.ingress.push(rule) }
    }))
}

/// The prefix list with this address of a service that a gateway endpoint of the VPC serves, and the service's name.
fn list_with(plan: &Plan, vpc: usize, addr: Ipv4Addr) -> Option<(usize, String)> {
    let gateways = plan.endpoints.iter().filter(|endpoint| endpoint.vpc == vpc && endpoint.is_gateway());
    gateways.map(|endpoint| &plan.services[endpoint.service]).find_map(|service| {
        let at = plan.prefix_lists.iter().position(|list| list.aws && list.list_name == service.full_name)?;
        let holds = plan.prefix_lists[at].entries.iter().any(|block| block.contains(addr));
        holds.then(|| (at, service.name.clone()))
    })
}

/// `app.network_acls.inner.ingress += { 90: allow tcp 443 from 10.0.1.0/24 }`, before the rule that denies. Answers go
/// to the client's ephemeral ports.
fn allow_acl(world: &World, told: &Explanation, record: &DropRecord) -> Option<Change> {
    let plan = &world.plan;
    let Decider::Nacl(at, denying) = record.decider else { return None };
    let egress = record.direction == Direction::Egress;
    let addr = if egress { record.tuple.dst } else { record.tuple.src };
    let block = eni_at(plan, record.from, addr).map(|eni| plan.link_of(eni).0);
    let peer = block.filter(|block| block.contains(addr)).unwrap_or(Cidr::host(addr));
    let acl = &plan.network_acls[at];
    let rules = if egress { &acl.egress } else { &acl.ingress };
    let free = |n: &u16| !rules.iter().any(|rule| rule.number == *n);
    let number = if denying == NACL_STAR {
        let last = rules.last().map_or(0, |rule| rule.number);
        let round = (last / 100 + 1).saturating_mul(100);
        Some(round).filter(|n| *n < NACL_STAR).or_else(|| (last..NACL_STAR).find(free))?
    } else {
        (1..denying).rev().find(free)?
    };
    let answer = told.stage == Some("back");
    let word = if egress { "to" } else { "from" };
    let text = format!("{number}: allow {} {word} {peer}", traffic_text(plan, record, answer));
    let matches = traffic_match(plan, record, answer);
    let list = if egress { "egress" } else { "ingress" };
    let line = format!("{}.{list} += {{ {text} }}", path("network_acls", &acl.common.path));
    Some(Change::new(line, move |world| {
        let acl = &mut world.plan.network_acls[at];
        let rules = if egress { &mut acl.egress } else { &mut acl.ingress };
        rules.push(NaclRule { number, allow: true, matches, peer, text: text.clone() });
        rules.sort_by_key(|rule| rule.number);
    }))
}

/// `tcp 443`, `icmp 8`; of answers `tcp 32768-60999`, `icmp 0`.
fn traffic_text(plan: &Plan, record: &DropRecord, answer: bool) -> String {
    match record.tuple.proto {
        Proto::ICMP if answer => "icmp 0".into(),
        Proto::ICMP => "icmp 8".into(),
        proto @ (Proto::TCP | Proto::UDP) => format!("{proto} {}", ports(plan, record, answer)),
        Proto(n) => n.to_string(),
    }
}

fn traffic_match(plan: &Plan, record: &DropRecord, answer: bool) -> TrafficMatch {
    let proto = record.tuple.proto;
    match proto {
        Proto::ICMP => {
            let icmp = (Some(if answer { 0 } else { 8 }), None);
            TrafficMatch { proto: Some(proto), icmp, ..TrafficMatch::ALL }
        }
        Proto::TCP | Proto::UDP => {
            TrafficMatch { proto: Some(proto), ports: ports(plan, record, answer), icmp: (None, None) }
        }
        _ => TrafficMatch { proto: Some(proto), ..TrafficMatch::ALL },
    }
}

/// Answers go to what clients' kernels and NAT gateways choose from, unless another port was asked for.
fn ports(plan: &Plan, record: &DropRecord, answer: bool) -> PortRange {
    let (port, to) = (record.tuple.dst_port, record.tuple.dst);
    let nat = plan.nat_gateways.iter().any(|nat| nat.addresses.contains(&to))
        || plan
            .public_addresses
            .iter()
            .any(|p| p.addr == to && matches!(plan.eni(p.eni).owner, EniOwner::NatGateway(_)));
    match answer {
        true if nat && GIVEN.contains(port) => GIVEN,
        true if EPHEMERAL.contains(port) => EPHEMERAL,
        _ => PortRange::one(port),
    }
}

fn no_check(world: &World, record: &DropRecord) -> Option<Change> {
    let Decider::Eni(eni) = record.decider else { return None };
    let EniOwner::Instance(at, n) = world.plan.eni(eni).owner else { return None };
    let which = if world.plan.instances[at].enis.len() > 1 { format!(".enis[{n}]") } else { String::new() };
    let line = format!("{}{which}.source_dest_check: false", instance_key(&world.plan, at));
    Some(Change::new(line, move |world| world.plan.enis[eni.at()].source_dest_check = false))
}

/// The port and protocol that the service has.
fn served(world: &World, told: &Explanation, record: &DropRecord) -> Option<Change> {
    let plan = &world.plan;
    let own = match record.decider {
        Decider::EndpointEni(eni) => {
            plan.eni(eni).owner.endpoint().map(|at| &plan.services[plan.endpoints[at].service].ports)
        }
        _ => None,
    };
    let port = own.map_or(Some(443), |ports| ports.first().copied())?;
    let asked = &told.destination;
    let (scheme, place) = match asked.text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), asked.text.as_str()),
    };
    let place = place.split(['/', '?', '#']).next()?;
    let kind = place.split_once(':').filter(|(kind, _)| matches!(*kind, "endpoint" | "instance"));
    let place = match kind {
        Some((kind, name)) => format!("{kind}:{}", name.split(':').next()?),
        None => place.split(':').next()?.to_owned(),
    };
    let text = format!("{scheme}{place}:{port}");
    Some(Change::ask_for(Destination { text, proto: Proto::TCP, port, ..asked.clone() }))
}

/// Both directions of a session by one firewall: that of a zone, or of a tunnel.
fn one_way(world: &World, record: &DropRecord) -> Vec<Change> {
    let plan = &world.plan;
    if let Decider::Site(site, _) = record.decider {
        return plan.sites[site].links.iter().filter_map(|link| same_tunnel(plan, site, *link)).collect();
    }
    let zones = |to: &AttachmentTo| matches!(to, AttachmentTo::Vpc(to) if to.subnets.len() > 1 && !to.appliance_mode);
    let attachments = plan.tgw_attachments.iter().enumerate().filter(|(_, a)| zones(&a.to));
    let change = |(at, a): (usize, &crate::model::plan::TgwAttachmentPlan)| {
        let tgw = &plan.transit_gateways[a.tgw].common.name;
        let line = format!("transit_gateways.{tgw}.attachments.{}.appliance_mode: true", a.common.name);
        Change::new(line, move |world| {
            if let AttachmentTo::Vpc(to) = &mut world.plan.tgw_attachments[at].to {
                to.appliance_mode = true;
            }
        })
    };
    attachments.map(change).collect()
}

/// `on_prem.dc.vpn.tunnels[0].preferred_by_aws: true`, as the site has it; and no other.
fn same_tunnel(plan: &Plan, site: usize, link: usize) -> Option<Change> {
    let LinkKind::Vpn { tunnels, .. } = &plan.links[link].kind else { return None };
    let own = tunnels.iter().position(|tunnel| tunnel.preferred_by_site).unwrap_or(0);
    let set = |n: usize, to: bool| {
        let line = format!("on_prem.{}.vpn.tunnels[{n}].preferred_by_aws: {to}", plan.sites[site].common.name);
        Change::new(line, move |world| {
            if let LinkKind::Vpn { tunnels, .. } = &mut world.plan.links[link].kind {
                tunnels[n].preferred_by_aws = to;
            }
        })
    };
    let others = tunnels.iter().enumerate().filter(|(n, tunnel)| *n != own && tunnel.preferred_by_aws);
    let mut changes: Vec<Change> = others.map(|(n, _)| set(n, false)).collect();
    if !tunnels.get(own)?.preferred_by_aws {
        changes.insert(0, set(own, true));
    }
    changes.into_iter().reduce(Change::and)
}

/// A statement more, or one less where it denies; a role where there is none.
fn policies(world: &World, told: &Explanation) -> Vec<Change> {
    let plan = &world.plan;
    let Some(request) = world.request.clone() else { return Vec::new() };
    let object = told.object.as_deref().unwrap_or_default();
    match told.kind.as_deref() {
        Some("endpoint") => {
            let Some(at) = plan.endpoints.iter().position(|e| e.common.path == object) else { return Vec::new() };
            let key = path("endpoints", object);
            statement(&request, Kind::Endpoint, &key, &plan.endpoints[at].policy)
                .map(|(line, policy)| Change::new(line, move |world| world.plan.endpoints[at].policy = policy.clone()))
                .into_iter()
                .collect()
        }
        Some("role") => {
            let Some(at) = plan.roles.iter().position(|r| r.common.path == object) else { return Vec::new() };
            statement(&request, Kind::Role, &format!("roles.{object}"), &plan.roles[at].policy)
                .map(|(line, policy)| Change::new(line, move |world| world.plan.roles[at].policy = policy.clone()))
                .into_iter()
                .collect()
        }
        _ if request.unsigned => vec![Change::new("sign the request (leave --unsigned out)", |world| {
            if let Some(request) = &mut world.request {
                request.unsigned = false;
            }
        })],
        _ => roles(world),
    }
}

/// The document with the least change that lets the request pass, and the change in words.
fn statement(request: &super::super::Request, kind: Kind, key: &str, policy: &Policy) -> Option<(String, Policy)> {
    let Policy::Document(json) = policy else { return None };
    let document = Document::parse(kind, json).ok()?;
    let mut json = json.clone();
    let statements = json.get_mut("Statement")?;
    // One statement may stand without a list.
    let single = !statements.is_array();
    if single {
        *statements = serde_json::Value::Array(vec![statements.take()]);
    }
    let statements = statements.as_array_mut()?;
    let line = match policy::evaluate(&document, &request.action, &request.resource) {
        Decision::Allow(_) => return None,
        Decision::ExplicitDeny(at) => {
            if at >= statements.len() {
                return None;
            }
            let denying = statements.remove(at);
            if single { format!("{key}.policy.Statement: []") } else { format!("{key}.policy.Statement -= {denying}") }
        }
        Decision::ImplicitDeny => {
            let mut added = serde_json::Map::new();
            added.insert("Effect".into(), "Allow".into());
            if kind == Kind::Endpoint {
                added.insert("Principal".into(), "*".into());
            }
            added.insert("Action".into(), request.action.as_str().into());
            added.insert("Resource".into(), request.resource.as_str().into());
            let words: Vec<String> = added.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            statements.push(added.into());
            if single {
                format!("{key}.policy.Statement: {}", serde_json::Value::from(statements.clone()))
            } else {
                format!("{key}.policy.Statement += {{ {} }}", words.join(", "))
            }
        }
    };
    Some((line, Policy::Document(json)))
}

/// A role of the file, or one that may do anything.
fn roles(world: &World) -> Vec<Change> {
    let (plan, src) = (&world.plan, world.src);
    if plan.instances[src].vpc().is_none() {
        return Vec::new();
    }
    let key = instance_key(plan, src);
    let take = |at: usize, name: &str| {
        Change::new(format!("{key}.role: {name}"), move |world| world.plan.instances[src].role = Some(at))
    };
    if !plan.roles.is_empty() {
        return plan.roles.iter().enumerate().map(|(at, role)| take(at, &role.common.name)).collect();
    }
    let name = format!("{}-role", plan.instances[src].common.name);
    let account = plan.default_account.clone();
    let role = name.clone();
    let add = Change::new(format!("roles += {{ {name}: {{ policy: full }} }}"), move |world| {
        let common = crate::model::plan::Common { name: role.clone(), path: role.clone(), ..Default::default() };
        world.plan.roles.push(RolePlan { common, account: account.clone(), policy: Policy::Full });
    });
    vec![add.of_new().and(take(0, &name))]
}

/// How the fault ends that a refusal is due to: by its id in a running lab, else by the file.
fn end_of_fault(world: &World, told: &Explanation) -> Option<Change> {
    let plan = &world.plan;
    let (code, object) = (told.code.as_deref()?, told.object.as_deref()?);
    let own: Vec<EniIx> = (0..plan.enis.len() as u32)
        .map(EniIx)
        .filter(|ix| !plan.eni(*ix).owner.is_door() && super::super::owner(plan, *ix).1 == object)
        .collect();
    let in_zone = |az: &str| own.iter().any(|eni| plan.subnet_of(*eni).is_some_and(|subnet| subnet.az_id == az));
    let fits = |(_, fault): &(usize, &FaultPlan)| match &fault.what {
        Fault::Zone { az_id } => matches!(code, "AZ_DOWN" | "VPCE_AZ_DOWN") && in_zone(az_id),
        Fault::Endpoint { enis, .. } => code == "VPCE_AZ_DOWN" && own.iter().any(|eni| enis.contains(eni)),
        Fault::Instance(at) => code == "INSTANCE_DOWN" && plan.instances[*at].common.path == object,
        Fault::Link { instance, .. } => code == "LINK_IMPAIRED" && plan.instances[*instance].common.path == object,
        Fault::Tunnel { link, .. } => code == "VPN_DOWN" && plan.links[*link].common.path == object,
    };
    let holds = || plan.faults.iter().enumerate().filter(|(_, fault)| fault.after.is_none());
    // What stands in a zone without an ENI of its own there: an attachment.
    let of_zone = || holds().find(|(_, fault)| code == "AZ_DOWN" && matches!(fault.what, Fault::Zone { .. }));
    let Some((at, fault)) = holds().rfind(fits).or_else(of_zone) else {
        // Nobody broke the link: the file made it so.
        let instance = plan.instances.iter().position(|i| code == "LINK_IMPAIRED" && i.common.path == object)?;
        return Some(Change::new(format!("{}.impair -= {{ down }}", instance_key(plan, instance)), move |world| {
            if let Some(impair) = &mut world.plan.instances[instance].impair {
                impair.down = false;
            }
        }));
    };
    let line = if fault.id == 0 {
        format!("faults -= {{ {} }}", in_the_file(&fault.title))
    } else {
        format!("vpclab fault clear {}    # {}", fault.id, fault.title)
    };
    Some(Change::new(line, move |world| {
        world.plan.faults.remove(at);
    }))
}

/// `az: a`, `endpoint: app.sts, az: a` of `az a`, `endpoint app.sts in a`.
fn in_the_file(title: &str) -> String {
    let Some((kind, rest)) = title.split_once(' ') else { return title.to_owned() };
    let (of, more) = match rest.split_once(' ') {
        Some((of, more)) => (of, Some(more)),
        None => (rest, None),
    };
    match (kind, more.and_then(|more| more.strip_prefix("in "))) {
        ("endpoint", Some(az)) => format!("endpoint: {of}, az: {az}"),
        // What it does to the link is told elsewhere.
        _ => format!("{kind}: {of}"),
    }
}
