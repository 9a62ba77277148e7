//! Changes that lead to a service of AWS: by an endpoint that is there, by the name that it goes by, by a new one.

use std::net::Ipv4Addr;

use super::super::path::eni_at;
use super::super::{Destination, Explanation, Target};
use super::search::{Change, World};
use super::{path, vpc_key};
use crate::base::EniIx;
use crate::base::ids::aws_id;
use crate::engine::{Decider, DropCode, DropRecord};
use crate::model::catalogue::{self, PublicForm, Service};
use crate::model::plan::{
    AttachmentTo, Backend, Common, Contents, EndpointKind, EndpointNames, EndpointPlan, EniOwner, EniPlan, Home,
    LinkEnd, Policy, PrefixListPlan, RouteDest, RouteOrigin, RoutePlan, RouteTarget, ServicePlan,
};
use crate::model::spec::subst::vpce_name;
use crate::model::{Plan, catalogue::PublicName};

/// Names for what has one of its own: where the name that was asked for does not exist, or is on no certificate.
pub(super) fn of_names(
    leaf_names: &dyn Fn(&Plan, usize) -> Vec<String>,
    world: &World,
    told: &Explanation,
) -> Vec<Change> {
    let plan = &world.plan;
    match (told.code.as_deref(), &told.destination.target) {
        (Some("TLS_NAME"), _) => {
            let path = told.object.as_deref().unwrap_or_default();
            let Some(at) = plan.endpoints.iter().position(|e| e.common.path == path) else { return Vec::new() };
            let whole = leaf_names(plan, at).into_iter().find(|name| !name.starts_with("*."));
            let names = whole.into_iter().chain([own_name(plan, at)]);
            names.map(|name| ask_for(&told.destination, &name)).collect()
        }
        (Some("DNS_NODATA"), _) => {
            let path = told.object.as_deref().filter(|_| told.kind.as_deref() == Some("endpoint"));
            let at = plan.endpoints.iter().position(|e| Some(e.common.path.as_str()) == path);
            at.and_then(|at| into_subnets(plan, at, plan.instances[world.src].enis[0])).into_iter().collect()
        }
        (Some("DNS_NXDOMAIN"), Target::Host(host)) => {
            let asked = &told.destination;
            let to = |kind: &str, target| {
                let text = format!("{kind}:{host}:{}", asked.port);
                Change::ask_for(Destination { text, target, tls: false, ..asked.clone() })
            };
            let instance = plan.find_instance(host).ok().map(|at| to("instance", Target::Instance(at)));
            let endpoint = || plan.find_endpoint(host).ok().map(|at| to("endpoint", Target::Endpoint(at)));
            instance.or_else(endpoint).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What the endpoints that are there can do for a packet to a public address of AWS, and public addresses of instances
/// for one from the Internet.
pub(super) fn changes(
    world: &World,
    told: &Explanation,
    record: &DropRecord,
    (from, dst): (EniIx, Ipv4Addr),
) -> Vec<Change> {
    let plan = &world.plan;
    if plan.eni(from).home == Home::Internet && dst.is_private() {
        return by_public_address(plan, told, from, dst).into_iter().collect();
    }
    let Some((service, region)) = wanted(plan, record, dst) else { return Vec::new() };
    let mut changes = Vec::new();
    let home = plan.eni(from).vpc();
    for (at, endpoint) in plan.endpoints.iter().enumerate() {
        let of = &plan.services[endpoint.service];
        if of.name != service.name || of.region != region {
            continue;
        }
        match &endpoint.kind {
            EndpointKind::Gateway { .. } => changes.extend(route_to_gateway(plan, at, record, dst)),
            EndpointKind::Interface if home == Some(endpoint.vpc) && !endpoint.private_dns => {
                changes.extend(private_dns(plan, at, told));
                changes.push(ask_for(&told.destination, &own_name(plan, at)));
            }
            EndpointKind::Interface => {
                let covered = home.filter(|home| *home == endpoint.vpc).and_then(|_| covered(plan, at));
                let name = covered.unwrap_or_else(|| own_name(plan, at));
                changes.push(ask_for(&told.destination, &name));
            }
        }
    }
    changes
}

/// Endpoints that are not there yet.
pub(super) fn new_ones(
    world: &World,
    told: &Explanation,
    record: &DropRecord,
    (from, dst): (EniIx, Ipv4Addr),
) -> Vec<Change> {
    let plan = &world.plan;
    let Some((service, region)) = wanted(plan, record, dst).filter(|(service, _)| service.endpoint) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    let regional = match &told.destination.target {
        Target::Host(host) => {
            catalogue::public_name(host).is_some_and(|PublicName { form, .. }| form == PublicForm::Regional)
        }
        _ => false,
    };
    if let Some(vpc) = plan.eni(from).vpc().filter(|vpc| plan.vpcs[*vpc].region == region) {
        if regional && !service.private_zones(region).is_empty() {
            changes.extend(new_interface(plan, vpc, Some(from), service).map(|(change, _)| change));
        }
        if catalogue::prefix_list_blocks(service.name, region).is_some() {
            changes.extend(new_gateway(plan, vpc, from, service));
        }
    }
    // From elsewhere an endpoint is reached by its own name only.
    let there = match record.decider {
        Decider::GatewayEndpoint(at) => vec![plan.endpoints[at].vpc],
        _ => joined(plan, from),
    };
    for vpc in there.into_iter().filter(|vpc| plan.vpcs[*vpc].region == region).take(2) {
        if let Some((change, name)) = new_interface(plan, vpc, None, service) {
            changes.push(change.and(ask_for(&told.destination, &name)));
        }
    }
    changes
}

/// The service that is not reached, if the way to it is what is wrong.
fn wanted(plan: &Plan, record: &DropRecord, dst: Ipv4Addr) -> Option<(&'static Service, &'static str)> {
    let way = matches!(
        record.code,
        DropCode::SgEgress
            | DropCode::NaclOut
            | DropCode::RtNoRoute
            | DropCode::RtBlackhole
            | DropCode::SiteNoRoute
            | DropCode::GweNotInVpc
            | DropCode::IgwNoPublicIp
            | DropCode::NatNoIgw
            | DropCode::TgwNoRoute
            | DropCode::TgwBlackhole
            | DropCode::VgwNoRoute
            | DropCode::VgwTransit
            | DropCode::PeerTransit
    );
    plan.public_blocks.service_at(dst).filter(|_| way)
}

/// `https://NAME`, or `NAME:PORT`.
fn ask_for(asked: &Destination, name: &str) -> Change {
    let scheme = asked.text.split_once("://").map(|(scheme, _)| scheme);
    let text = match (scheme, asked.port) {
        (Some("https"), 443) | (Some("http"), 80) => format!("{}://{name}", scheme.unwrap_or_default()),
        (Some(scheme), port) => format!("{scheme}://{name}:{port}"),
        (None, 443) => name.to_owned(),
        (None, port) => format!("{name}:{port}"),
    };
    Change::ask_for(Destination { text, target: Target::Host(name.to_owned()), ..asked.clone() })
}

fn by_public_address(plan: &Plan, told: &Explanation, from: EniIx, dst: Ipv4Addr) -> Option<Change> {
    let eni = eni_at(plan, from, dst)?;
    let public = plan.public_addresses.iter().find(|public| public.eni == eni && public.private == dst)?;
    let asked = &told.destination;
    let text = format!("{}:{}", public.addr, asked.port);
    (asked.port != 0)
        .then(|| Change::ask_for(Destination { text, target: Target::Address(public.addr), ..asked.clone() }))
}

/// `vpce-...`; on the certificate of an S3 endpoint only names below it stand.
fn own_name(plan: &Plan, endpoint: usize) -> String {
    let endpoint = &plan.endpoints[endpoint];
    below(&plan.services[endpoint.service].name, &endpoint.names.regional)
}

fn below(service: &str, regional: &str) -> String {
    if service == "s3" { format!("bucket.{regional}") } else { regional.to_owned() }
}

/// The name that private DNS of the endpoint answers.
pub(super) fn covered(plan: &Plan, endpoint: usize) -> Option<String> {
    plan.endpoints[endpoint].names.private.iter().find(|zone| zone.at_apex).map(|zone| zone.apex.clone())
}

/// Whether private DNS of an endpoint would answer this name.
pub(super) fn would_cover(plan: &Plan, endpoint: usize, host: &str) -> bool {
    plan.endpoints[endpoint].names.private.iter().any(|zone| {
        zone.at_apex && zone.apex == host
            || zone.wildcard && host.strip_suffix(&zone.apex).is_some_and(|own| own.ends_with('.'))
    })
}

fn private_dns(plan: &Plan, at: usize, told: &Explanation) -> Option<Change> {
    let Target::Host(host) = &told.destination.target else { return None };
    let endpoint = &plan.endpoints[at];
    let vpc = &plan.vpcs[endpoint.vpc];
    // One endpoint of a VPC has private DNS for a name.
    let taken = plan.endpoints.iter().any(|other| {
        other.vpc == endpoint.vpc
            && other.private_dns
            && other.names.private.iter().any(|zone| endpoint.names.private.iter().any(|own| own.apex == zone.apex))
    });
    if taken || !would_cover(plan, at, host) {
        return None;
    }
    let mut change =
        Change::new(format!("{}.private_dns: true", path("endpoints", &endpoint.common.path)), move |world| {
            world.plan.endpoints[at].private_dns = true;
        });
    // It asks for both.
    let of = endpoint.vpc;
    if !vpc.dns_hostnames {
        change = change.and(Change::new(
            format!("{}.dns_hostnames: true", super::vpc_key(&vpc.common.name)),
            move |world| {
                world.plan.vpcs[of].dns_hostnames = true;
            },
        ));
    }
    if !vpc.dns_support {
        change =
            change.and(Change::new(format!("{}.dns_support: true", super::vpc_key(&vpc.common.name)), move |world| {
                world.plan.vpcs[of].dns_support = true;
            }));
    }
    Some(change)
}

/// `app.endpoints.s3.route_tables += private`.
fn route_to_gateway(plan: &Plan, at: usize, record: &DropRecord, dst: Ipv4Addr) -> Option<Change> {
    let endpoint = &plan.endpoints[at];
    let EndpointKind::Gateway { route_tables, prefix_list, .. } = &endpoint.kind else { return None };
    let prefix_list = *prefix_list;
    let here = plan.prefix_lists[prefix_list].entries.iter().any(|block| block.contains(dst));
    let table = match record.decider {
        Decider::RouteTable(table, _) => table,
        _ => plan.subnet_of(record.from)?.route_table,
    };
    if !here || route_tables.contains(&table) || plan.route_tables[table].vpc != endpoint.vpc {
        return None;
    }
    let line = format!(
        "{}.route_tables += {}",
        path("endpoints", &endpoint.common.path),
        plan.route_tables[table].common.name
    );
    Some(Change::new(line, move |world| {
        if let EndpointKind::Gateway { route_tables, .. } = &mut world.plan.endpoints[at].kind {
            route_tables.push(table);
        }
        world.plan.route_tables[table].routes.push(route_of_gateway(at, prefix_list));
    }))
}

fn route_of_gateway(endpoint: usize, prefix_list: usize) -> RoutePlan {
    RoutePlan {
        id: String::new(),
        to: RouteDest::PrefixList(prefix_list),
        target: RouteTarget::GatewayEndpoint(endpoint),
        origin: RouteOrigin::Created,
    }
}

/// VPCs that a host on premises is joined to.
fn joined(plan: &Plan, from: EniIx) -> Vec<usize> {
    let Home::Site(site) = plan.eni(from).home else { return Vec::new() };
    let mut vpcs = Vec::new();
    for link in &plan.sites[site].links {
        match plan.links[*link].end {
            LinkEnd::Vgw(at) => vpcs.push(plan.vgws[at].vpc),
            LinkEnd::Tgw(at) => {
                let tgw = plan.tgw_attachments[at].tgw;
                vpcs.extend(plan.tgw_attachments.iter().filter(|a| a.tgw == tgw).filter_map(|a| match &a.to {
                    AttachmentTo::Vpc(to) => Some(to.vpc),
                    AttachmentTo::Link(_) => None,
                }));
            }
        }
    }
    vpcs
}

/// `app.endpoints += { kms: { type: interface, subnets: [a, b], security_groups: [doors], private_dns: true } }`, where
/// and as the VPC's other endpoints are; and the name of its own that it will have.
fn new_interface(
    plan: &Plan,
    vpc: usize,
    client: Option<EniIx>,
    service: &'static Service,
) -> Option<(Change, String)> {
    let region = plan.vpcs[vpc].region.clone();
    let model = plan.endpoints.iter().find(|e| e.vpc == vpc && !e.enis.is_empty());
    let subnets: Vec<usize> = match model {
        Some(model) => model.enis.iter().filter_map(|eni| plan.eni(*eni).subnet()).collect(),
        None => one_per_zone(plan, vpc, client),
    };
    if subnets.is_empty() {
        return None;
    }
    let groups = model.map_or_else(|| vec![plan.vpcs[vpc].default_security_group], |m| m.security_groups.clone());
    let private = service.private_zones(&region);
    let own = |zone: &str| private.iter().any(|p| p.apex == zone);
    let taken = plan
        .endpoints
        .iter()
        .any(|e| e.vpc == vpc && e.private_dns && e.names.private.iter().any(|zone| own(&zone.apex)));
    let dns = !private.is_empty() && !taken && plan.vpcs[vpc].dns_support && plan.vpcs[vpc].dns_hostnames;
    let common = new_common(plan, vpc, service, "interface");
    let names =
        |list: &[usize], name: &dyn Fn(usize) -> String| list.iter().map(|at| name(*at)).collect::<Vec<_>>().join(", ");
    let line = format!(
        "{}.endpoints += {{ {}: {{ {}type: interface, subnets: [{}], security_groups: [{}], private_dns: {dns} }} }}",
        vpc_key(&plan.vpcs[vpc].common.name),
        common.name,
        if common.name == service.name { String::new() } else { format!("service: {}, ", service.name) },
        names(&subnets, &|at| plan.subnets[at].common.name.clone()),
        names(&groups, &|at| plan.security_groups[at].common.name.clone()),
    );
    let regional = vpce_name(&common.id, None, service.vpce_label(), &region);
    let own = below(service.name, &regional);
    let change = Change::new(line, move |world| {
        let plan = &mut world.plan;
        let endpoint = plan.endpoints.len();
        let service_at = service_in(plan, service, &region);
        let mut names = EndpointNames { regional: regional.clone(), zonal: Vec::new(), private: private.clone() };
        let mut enis = Vec::new();
        for subnet in &subnets {
            let Some(eni) = new_eni(plan, &common, *subnet, &groups, EniOwner::Endpoint(endpoint)) else { continue };
            let az_name = plan.subnets[*subnet].az_name.clone();
            let name = vpce_name(&common.id, Some(&az_name), service.vpce_label(), &region);
            names.zonal.push((az_name, name, eni));
            enis.push(eni);
        }
        plan.endpoints.push(EndpointPlan {
            common: common.clone(),
            vpc,
            service: service_at,
            kind: EndpointKind::Interface,
            enis,
            security_groups: groups.clone(),
            private_dns: dns,
            policy: Policy::Full,
            names,
        });
    });
    Some((change.of_new(), own))
}

/// `app.endpoints.s3.subnets: [a, b]`: one that is in no subnet has no address.
fn into_subnets(plan: &Plan, at: usize, client: EniIx) -> Option<Change> {
    let endpoint = &plan.endpoints[at];
    if endpoint.is_gateway() || !endpoint.enis.is_empty() {
        return None;
    }
    let subnets = one_per_zone(plan, endpoint.vpc, Some(client));
    let names: Vec<&str> = subnets.iter().map(|at| plan.subnets[*at].common.name.as_str()).collect();
    let line = format!("{}.subnets: [{}]", path("endpoints", &endpoint.common.path), names.join(", "));
    Some(Change::new(line, move |world| {
        let plan = &mut world.plan;
        let (common, groups) = (plan.endpoints[at].common.clone(), plan.endpoints[at].security_groups.clone());
        for subnet in &subnets {
            if let Some(eni) = new_eni(plan, &common, *subnet, &groups, EniOwner::Endpoint(at)) {
                let az_name = plan.subnets[*subnet].az_name.clone();
                let endpoint = &mut plan.endpoints[at];
                // As the regional one, with the zone before its first dot.
                let name = endpoint.names.regional.replacen('.', &format!("-{az_name}."), 1);
                endpoint.names.zonal.push((az_name, name, eni));
                endpoint.enis.push(eni);
            }
        }
    }))
}

/// `app.endpoints += { s3: { type: gateway, route_tables: [private] } }`.
fn new_gateway(plan: &Plan, vpc: usize, from: EniIx, service: &'static Service) -> Option<Change> {
    let region = plan.vpcs[vpc].region.clone();
    let there =
        plan.endpoints.iter().any(|e| e.vpc == vpc && e.is_gateway() && plan.services[e.service].name == service.name);
    let table = plan.subnet_of(from)?.route_table;
    if there {
        return None;
    }
    let common = new_common(plan, vpc, service, "gateway");
    let line = format!(
        "{}.endpoints += {{ {}: {{ {}type: gateway, route_tables: [{}] }} }}",
        vpc_key(&plan.vpcs[vpc].common.name),
        common.name,
        if common.name == service.name { String::new() } else { format!("service: {}, ", service.name) },
        plan.route_tables[table].common.name,
    );
    let change = Change::new(line, move |world| {
        let plan = &mut world.plan;
        let Some(prefix_list) = prefix_list(plan, service, &region) else { return };
        let endpoint = plan.endpoints.len();
        let service_at = service_in(plan, service, &region);
        let door = EniIx(plan.enis.len() as u32);
        plan.enis.push(EniPlan {
            common: Common { id: aws_id("eni", &common.id, "door"), ..common.clone() },
            home: Home::Internet,
            ip: Ipv4Addr::UNSPECIFIED,
            mac: [0; 6],
            security_groups: Vec::new(),
            source_dest_check: false,
            owner: EniOwner::GatewayEndpoint(endpoint),
        });
        plan.endpoints.push(EndpointPlan {
            common: common.clone(),
            vpc,
            service: service_at,
            kind: EndpointKind::Gateway { route_tables: vec![table], prefix_list, door },
            enis: Vec::new(),
            security_groups: Vec::new(),
            private_dns: false,
            policy: Policy::Full,
            names: EndpointNames::default(),
        });
        plan.route_tables[table].routes.push(route_of_gateway(endpoint, prefix_list));
    });
    Some(change.of_new())
}

/// The client's own subnet first, then the first of each other zone.
fn one_per_zone(plan: &Plan, vpc: usize, client: Option<EniIx>) -> Vec<usize> {
    let own = client.and_then(|eni| plan.eni(eni).subnet());
    let all = (0..plan.subnets.len()).filter(|at| plan.subnets[*at].vpc == vpc);
    let mut chosen: Vec<usize> = Vec::new();
    for at in own.into_iter().chain(all) {
        if !chosen.iter().any(|other| plan.subnets[*other].az == plan.subnets[at].az) {
            chosen.push(at);
        }
    }
    chosen
}

/// Named after the service, as a file would; ids are those that the file's loading will make.
fn new_common(plan: &Plan, vpc: usize, service: &Service, kind: &str) -> Common {
    let plain = service.name.replace('.', "-");
    let free = |name: &String| !plan.endpoints.iter().any(|e| e.vpc == vpc && e.common.name == *name);
    let more = (2..).map(|n| format!("{plain}-{kind}-{n}"));
    let name = [plain.clone(), format!("{plain}-{kind}")].into_iter().chain(more).find(free).unwrap_or(plain);
    let path = format!("{}.{name}", plan.vpcs[vpc].common.name);
    Common { id: aws_id("vpce", &plan.name, &path), name, path, ..Common::default() }
}

/// The lowest that a subnet has left, as the file's loading would take it.
pub(super) fn free_address(plan: &Plan, subnet: usize) -> Option<Ipv4Addr> {
    let cidr = plan.subnets[subnet].cidr;
    let free = |ip: &Ipv4Addr| {
        *ip != cidr.last() && !plan.enis.iter().any(|eni| eni.subnet() == Some(subnet) && eni.ip == *ip)
    };
    (4..cidr.size()).map_while(|n| cidr.nth(n)).find(free)
}

pub(super) fn new_eni(plan: &mut Plan, of: &Common, subnet: usize, groups: &[usize], owner: EniOwner) -> Option<EniIx> {
    let ip = free_address(plan, subnet)?;
    let home = &plan.subnets[subnet];
    let (vpc, id) = (home.vpc, aws_id("eni", &of.id, &home.common.path));
    plan.enis.push(EniPlan {
        common: Common { id, ..of.clone() },
        home: Home::Subnet { vpc, subnet },
        ip,
        mac: [0; 6],
        security_groups: groups.to_vec(),
        source_dest_check: !matches!(owner, EniOwner::TgwAttachment(_)),
        owner,
    });
    Some(EniIx(plan.enis.len() as u32 - 1))
}

fn service_in(plan: &mut Plan, service: &Service, region: &str) -> usize {
    if let Some(at) = plan.services.iter().position(|s| s.name == service.name && s.region == region) {
        return at;
    }
    plan.services.push(ServicePlan {
        name: service.name.to_owned(),
        full_name: service.full_name(region),
        region: region.to_owned(),
        account: plan.default_account.clone(),
        backend: Backend::Builtin,
        ports: service.ports.to_vec(),
        data: None,
        contents: Contents::default(),
    });
    plan.services.len() - 1
}

fn prefix_list(plan: &mut Plan, service: &Service, region: &str) -> Option<usize> {
    let name = catalogue::prefix_list_name(service.name, region);
    if let Some(at) = plan.prefix_lists.iter().position(|list| list.aws && list.list_name == name) {
        return Some(at);
    }
    let usual = catalogue::prefix_list_blocks(service.name, region)?;
    let entries = plan.public_blocks.of(service.name, region).map_or_else(|| vec![usual], <[_]>::to_vec);
    plan.prefix_lists.push(PrefixListPlan {
        common: Common { name: name.clone(), path: name.clone(), ..Common::default() },
        vpc: None,
        list_name: name,
        region: region.to_owned(),
        entries,
        max_entries: 1,
        aws: true,
    });
    Some(plan.prefix_lists.len() - 1)
}
