//! Gateway endpoints: routes to the prefix list of their service, in the tables that they name (PrivateLink Guide,
//! "Gateway endpoints").

use super::endpoint::{Defaults, service_of};
use super::service::{self, ServicesWritten};
use super::vpc::VpcFacts;
use super::{Draft, common, gateways, policy, prefix_list};
use crate::base::EniIx;
use crate::model::plan::{EndpointKind, EndpointNames, EndpointPlan, EniOwner, Policy};
use crate::model::spec::fields::Fields;
use crate::model::spec::names::Kind;
use crate::model::spec::node::Entry;

/// What interface endpoints have and these do not, and how AWS says so.
const NOT_OF_GATEWAYS: [(&str, &str); 3] = [
    ("security_groups", "Security group IDs are only supported for Interface type VPC Endpoints"),
    ("subnets", "Subnet IDs are only supported for Interface and GatewayLoadBalancer type VPC Endpoints"),
    ("private_dns", "Private DNS is only supported for Interface type VPC Endpoints"),
];

pub fn read(
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
    for (key, message) in NOT_OF_GATEWAYS {
        let Some(entry) = f.entry(key) else { continue };
        let message = match entry.node.text() {
            Some("inbound-only") => {
                "DnsOptions PrivateDnsOnlyForInboundResolverEndpoint is applicable only to Interface VPC Endpoints"
            }
            _ => message,
        };
        let found = f.error(entry.key_place, message).code("InvalidParameter");
        cx.error(found.help(format!("leave `{key}` out, or write `type: interface`")));
    }
    let policy = policy::read(f).or_else(|| defaults.policy.clone()).unwrap_or(Policy::Full);
    let written = tables(f, facts.index);
    let Some(service) = service_of(f, e, facts) else { return };
    let Some(prefix_list) = prefix_list::of_service(draft, service.name, facts.region.name) else {
        let message = format!(
            "{}: Endpoint type (Gateway) does not match available service types ([Interface])",
            service.full_name(facts.region.name)
        );
        let found = f.error(e.key_place, message).code("InvalidParameter");
        cx.error(found.help("s3 and dynamodb have gateway endpoints; for others write `type: interface`"));
        return;
    };
    let mut route_tables = if f.has("route_tables") { written } else { defaults.route_tables.clone() };
    if route_tables.is_empty() {
        let found = f.error(e.key_place, "the endpoint is in no route table, so no packet takes it");
        cx.warning(found.help("`route_tables: [NAME, ...]`"));
    }
    route_tables.retain(|&table| match draft.gateway_routes.get(&(table, prefix_list)) {
        Some(&other) => {
            refuse_second(f, e, table, prefix_list, other, draft);
            false
        }
        None => draft.gateway_routes.insert((table, prefix_list), index).is_none(),
    });
    draft.eni_drafts.push(gateways::door(
        &common.name,
        &format!("{}/door", common.path),
        &common.id,
        EniOwner::GatewayEndpoint(index),
        f.place,
    ));
    let service = service::led_to(f, e, service, facts.region.name, services, draft);
    draft.endpoints[index] = Some(EndpointPlan {
        common,
        vpc: facts.index,
        service,
        kind: EndpointKind::Gateway { route_tables, prefix_list, door: EniIx(0) },
        enis: Vec::new(),
        security_groups: Vec::new(),
        private_dns: false,
        policy,
        names: EndpointNames::default(),
    });
}

/// The table has such a route by another endpoint already.
fn refuse_second(f: &Fields<'_>, e: &Entry, table: usize, prefix_list: usize, other: usize, draft: &Draft) {
    let names = &f.cx.names;
    let (table, other) = (names.get(Kind::RouteTable, table), names.get(Kind::Endpoint, other));
    let list = draft.prefix_lists[prefix_list].as_ref().map_or("", |list| &list.common.id);
    let message = format!(
        "route table {} ({}) already has a route with destination-prefix-list-id {list}: by endpoint {}",
        table.id, table.path, other.path
    );
    let place = if f.has("route_tables") { f.key_place("route_tables") } else { e.key_place };
    let found = f.error(place, message).code("RouteAlreadyExists");
    let found = found.also(other.place, format!("{} is here", other.path));
    f.cx.error(found.help("a route table has one gateway endpoint for each service"));
}

/// The tables that `route_tables` names.
pub fn tables(f: &Fields<'_>, vpc: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for t in f.texts("route_tables").unwrap_or_default() {
        let Some(at) = f.reference_within(Kind::RouteTable, vpc, t, "InvalidParameter") else { continue };
        if found.contains(&at) {
            let message = format!("the route table `{}` stands twice", t.value);
            f.cx.error(f.error(t.place, message).code("InvalidParameter"));
        } else {
            found.push(at);
        }
    }
    found
}
