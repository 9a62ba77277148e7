//! Route tables: local routes first, then what is written, what gateway endpoints make, and what virtual private gateways
//! propagate.

use std::collections::HashMap;

use super::{Draft, common, implied, implied_of, prefix_list};
use crate::base::{Cidr, EniIx};
use crate::model::plan::{
    AttachmentTo, EndpointKind, EniOwner, LinkKind, RouteDest, RouteOrigin, RoutePlan, RouteTablePlan, RouteTarget,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::{Kind, is_main};
use crate::model::spec::report::did_you_mean;
use crate::model::spec::source::Place;

/// A table whose routes are still to be read.
pub struct TableRead<'a> {
    index: usize,
    vpc: usize,
    main: bool,
    /// `None` for the implied main table.
    fields: Option<Fields<'a>>,
}

impl TableRead<'_> {
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where the table says that it is associated with this gateway.
    pub fn edge(&self, word: &str) -> Option<Place> {
        self.fields.as_ref()?.word("edge").filter(|t| t.value == word).map(|t| t.place)
    }
}

/// The VPC's main table.
pub fn main_of(tables: &[TableRead<'_>]) -> Option<usize> {
    tables.iter().find(|t| t.main).map(|t| t.index)
}

/// Opens the tables of a VPC.
pub fn declare<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, vpc_index: usize) -> Vec<TableRead<'a>> {
    let vpc_name = &cx.names.get(Kind::Vpc, vpc_index).name;
    let mut tables = Vec::new();
    let mut main: Option<Place> = None;
    for e in vpc.named("route_tables") {
        let Some(index) = cx.names.index(Kind::RouteTable, vpc_index, &e.key) else { continue };
        let title = format!("route table {vpc_name}.{}", e.key);
        let Some(f) = Fields::open(cx, &keys::ROUTE_TABLE, title, e) else { continue };
        let written = f.bool("main");
        if e.key == "main"
            && let Some(b) = written.filter(|b| !b.value)
        {
            cx.error(f.error(b.place, "a table named `main` is the VPC's main table: name it otherwise"));
        }
        let is_main = is_main(&e.key, &e.node);
        if is_main {
            if let Some(first) = main {
                let found = f.error(f.place, format!("VPC {vpc_name} has two main tables"));
                cx.error(found.also(first, "the other one"));
            }
            main = Some(f.place);
        }
        tables.push(TableRead { index, vpc: vpc_index, main: is_main, fields: Some(f) });
    }
    if let Some(index) = implied_of(cx, Kind::RouteTable, vpc_index) {
        tables.push(TableRead { index, vpc: vpc_index, main: true, fields: None });
    }
    tables
}

/// Reads the routes of all tables.
pub fn read<'a>(cx: &'a Cx<'a>, tables: Vec<TableRead<'a>>, draft: &mut Draft) {
    let enis: HashMap<String, usize> = draft.enis.iter().enumerate().map(|(n, e)| (e.common.path.clone(), n)).collect();
    for table in tables {
        let common = match &table.fields {
            Some(f) => common(f, Kind::RouteTable, table.index),
            None => implied(cx, Kind::RouteTable, table.index),
        };
        let local = draft.vpcs[table.vpc].as_ref().map(|v| v.cidrs.clone()).unwrap_or_default();
        let mut routes: Vec<RoutePlan> = local
            .iter()
            .map(|&to| RoutePlan {
                id: format!("{}/{to}", common.id),
                to: RouteDest::Cidr(to),
                target: RouteTarget::Local,
                origin: RouteOrigin::Local,
            })
            .collect();
        if let Some(f) = table.fields {
            let mut seen: HashMap<RouteDest, Place> = HashMap::new();
            let title = f.title.clone();
            let edge = f.word("edge");
            if let Some(edge) = edge
                && let Some(subnet) = draft.subnets.iter().flatten().find(|s| s.route_table == table.index)
            {
                let message = format!(
                    "the table routes what comes in by the {}: subnet {} cannot use it",
                    edge.value, subnet.common.path
                );
                cx.error(f.error(edge.place, message).code("Resource.AlreadyAssociated"));
            }
            if f.bool("propagate").is_some_and(|b| b.value) {
                draft.propagating.push(table.index);
                if !draft.vgws.iter().any(|vgw| vgw.vpc == table.vpc) {
                    let found = f.error(f.key_place("propagate"), "the VPC has no virtual private gateway");
                    cx.error(found.code("Gateway.NotAttached").help("`virtual_private_gateway: true` at the VPC"));
                }
            }
            for node in f.list("routes") {
                let place = node.entries().first().map_or(f.key_place("routes"), |e| e.key_place);
                let Some(r) = Fields::open_node(cx, &keys::ROUTE, title.clone(), node, place) else { continue };
                let list = r.text("to").filter(|t| t.value.starts_with("pl:"));
                let list = list.and_then(|t| {
                    let region = draft.vpcs[table.vpc].as_ref().map(|v| v.region.clone()).unwrap_or_default();
                    prefix_list::reference(&r, table.vpc, &region, t, draft)
                });
                let read = Read { vpc: table.vpc, draft, enis: &enis, edge: edge.is_some() };
                if let Some((to, target)) = read.route(&r, list) {
                    let text = r.text("to").map(|t| t.value).unwrap_or_default();
                    if let Some(first) = seen.insert(to.value, to.place) {
                        let found = r.error(to.place, format!("there is a route to {text} already"));
                        cx.error(found.code("RouteAlreadyExists").also(first, "here"));
                    } else if let Some(own) = routes.iter_mut().find(|l| l.to == to.value) {
                        // AWS's ReplaceRoute: the local route keeps its destination and gets another target.
                        own.target = target;
                    } else {
                        let id = format!("{}/{text}", common.id);
                        routes.push(RoutePlan { id, to: to.value, target, origin: RouteOrigin::Created });
                    }
                }
                r.done();
            }
            // 50 are the default quota, 1,000 the most that AWS grants.
            if seen.len() > 1_000 {
                cx.error(f.error(f.key_place("routes"), "more than 1,000 routes").code("RouteLimitExceeded"));
            }
            f.done();
        }
        routes.extend(gateway_endpoint_routes(draft, &common.id, table.index));
        draft.route_tables[table.index] = Some(RouteTablePlan { common, vpc: table.vpc, main: table.main, routes });
    }
}

/// The routes that gateway endpoints make in a table.
fn gateway_endpoint_routes(draft: &Draft, id: &str, table: usize) -> Vec<RoutePlan> {
    let mut routes = Vec::new();
    for (at, endpoint) in draft.endpoints.iter().enumerate() {
        let Some(EndpointKind::Gateway { route_tables, prefix_list, .. }) = endpoint.as_ref().map(|e| &e.kind) else {
            continue;
        };
        if route_tables.contains(&table) {
            let list = draft.prefix_lists[*prefix_list].as_ref().map(|l| l.common.id.clone()).unwrap_or_default();
            routes.push(RoutePlan {
                id: format!("{id}/{list}"),
                to: RouteDest::PrefixList(*prefix_list),
                target: RouteTarget::GatewayEndpoint(at),
                origin: RouteOrigin::Created,
            });
        }
    }
    routes
}

/// What virtual private gateways tell the tables that listen to them (`EnableVgwRoutePropagation`): Direct Connect's
/// blocks before a VPN's.
pub fn propagate(draft: &mut Draft) {
    for table in std::mem::take(&mut draft.propagating) {
        let Some(plan) = &draft.route_tables[table] else { continue };
        let Some(vgw) = draft.vgws.iter().position(|vgw| vgw.vpc == plan.vpc) else { continue };
        let mut links = draft.vgws[vgw].links.clone();
        links.sort_by_key(|at| matches!(draft.links[*at].kind, LinkKind::Vpn { .. }));
        let mut routes: Vec<RoutePlan> = Vec::new();
        for to in links.iter().flat_map(|at| &draft.links[*at].site_blocks) {
            let to = RouteDest::Cidr(*to);
            if !routes.iter().any(|route| route.to == to) {
                let id = format!("{}/propagated/{}", plan.common.id, routes.len());
                routes.push(RoutePlan { id, to, target: RouteTarget::Vgw(vgw), origin: RouteOrigin::Propagated });
            }
        }
        if let Some(plan) = &mut draft.route_tables[table] {
            plan.routes.extend(routes);
        }
    }
}

struct Read<'r> {
    /// Of the table.
    vpc: usize,
    draft: &'r Draft,
    /// By path: `app.web/eth0`.
    enis: &'r HashMap<String, usize>,
    /// Of a gateway's table.
    edge: bool,
}

impl Read<'_> {
    fn route(&self, r: &Fields<'_>, list: Option<usize>) -> Option<(At<RouteDest>, RouteTarget)> {
        // For people who read the file.
        let _ = r.text("description");
        let target = self.target(r);
        if let Some(list) = list {
            let place = r.key_place("to");
            return Some((At { value: RouteDest::PrefixList(list), place }, target?));
        }
        let to = self.destination(r);
        let (to, target) = (to?, target?);
        let vpc = self.draft.vpcs[self.vpc].as_ref()?;
        let inside = vpc.cidrs.iter().find(|c| c.covers(to.value));
        let refuse = |message: String, help: &str| {
            r.cx.error(r.error(to.place, message).code("InvalidParameterValue").help(help));
        };
        if let Some(local) = inside {
            let whole_subnet = self.draft.subnets.iter().flatten().any(|s| s.vpc == self.vpc && s.cidr == to.value);
            if target == RouteTarget::Blackhole {
                refuse(
                    format!("{} is within the VPC ({local}): its traffic can be sent to an ENI, not dropped", to.value),
                    "security groups and network ACLs deny traffic inside a VPC",
                );
                return None;
            }
            if !matches!(target, RouteTarget::Eni(_) | RouteTarget::Nat(_)) {
                refuse(
                    format!(
                        "{} is within the VPC ({local}): its traffic can be sent to an ENI or a NAT gateway only",
                        to.value
                    ),
                    "the local route leads to everything in the VPC",
                );
                return None;
            }
            if to.value != *local && !whole_subnet {
                refuse(
                    format!("{} is more specific than the local route {local} and not the block of a subnet", to.value),
                    "a route inside the VPC must have the whole block of one subnet as its destination",
                );
                return None;
            }
        }
        if self.edge && (inside.is_none() || !matches!(target, RouteTarget::Eni(_))) {
            refuse(
                format!(
                    "a gateway's route table leads from blocks of the VPC to network interfaces; {} does not",
                    to.value
                ),
                "`to:` a block of the VPC or of one of its subnets, `via: instance:NAME` or `eni:NAME`",
            );
            return None;
        }
        Some((At { value: RouteDest::Cidr(to.value), place: to.place }, target))
    }

    fn destination(&self, r: &Fields<'_>) -> Option<At<Cidr>> {
        let t = r.text("to")?;
        if t.value.starts_with("pl:") {
            // It was refused when the list was looked up.
            return None;
        }
        let to = r.cidr("to", true)?;
        let kept = Cidr::containing(std::net::Ipv4Addr::new(169, 254, 168, 0), 22);
        if to.value.overlaps(kept) && to.value.len() >= 16 {
            let found = r.error(to.place, format!("{kept} cannot be a destination: it is AWS's own"));
            r.cx.error(found.code("InvalidParameterValue"));
            return None;
        }
        Some(to)
    }

    fn target(&self, r: &Fields<'_>) -> Option<RouteTarget> {
        let t = r.text("via")?;
        let (kind, name) = t.value.split_once(':').unwrap_or((t.value, ""));
        match (kind, name.is_empty()) {
            ("blackhole", true) => Some(RouteTarget::Blackhole),
            ("instance", false) => self.instance(r, t),
            ("eni", false) => self.eni(r, At { value: name, place: t.place }),
            ("igw", true) => {
                let at = self.draft.internet_gateways.iter().position(|igw| igw.vpc == self.vpc);
                self.attached(r, t, at, "Internet gateway", "internet_gateway", "InvalidInternetGatewayID.NotFound")
                    .map(RouteTarget::Igw)
            }
            ("vgw", true) => {
                let at = self.draft.vgws.iter().position(|vgw| vgw.vpc == self.vpc);
                let key = "virtual_private_gateway";
                self.attached(r, t, at, "virtual private gateway", key, "InvalidVpnGatewayID.NotFound")
                    .map(RouteTarget::Vgw)
            }
            ("nat", false) => {
                r.reference_within(Kind::Nat, self.vpc, t, "InvalidNatGatewayID.NotFound").map(RouteTarget::Nat)
            }
            ("peering", false) => self.peering(r, t),
            ("tgw", false) => self.tgw(r, t),
            ("endpoint", false) => {
                let message = "routes to a gateway endpoint are made by the endpoint: AWS takes none that are written";
                let found = r.error(t.place, message).code("InvalidParameterValue");
                r.cx.error(found.help("`route_tables: [NAME]` at the endpoint"));
                None
            }
            ("local", true) => {
                r.cx.error(r.error(t.place, "local routes are in every table: leave them out"));
                None
            }
            _ => {
                let help = did_you_mean(kind, ["igw", "nat", "peering", "tgw", "vgw", "instance", "eni", "blackhole"])
                    .unwrap_or_else(|| {
                        "`igw`, `nat:N`, `peering:N`, `tgw:N`, `vgw`, `instance:N`, `eni:N` or `blackhole`".into()
                    });
                r.cx.error(r.error(t.place, format!("`{}` is no target of a route", t.value)).help(help));
                None
            }
        }
    }

    fn attached(
        &self,
        r: &Fields<'_>,
        t: At<&str>,
        at: Option<usize>,
        what: &str,
        key: &str,
        code: &'static str,
    ) -> Option<usize> {
        if at.is_none() {
            let vpc = r.cx.names.get(Kind::Vpc, self.vpc);
            let message = format!("VPC {} has no {what}", vpc.name);
            let found = r.error(t.place, message).code(code).also(vpc.place, "the VPC");
            r.cx.error(found.help(format!("`{key}: true` at the VPC")));
        }
        at
    }

    fn peering(&self, r: &Fields<'_>, t: At<&str>) -> Option<RouteTarget> {
        let at = r.reference(Kind::Peering, None, t)?;
        let plan = self.draft.peerings[at].as_ref()?;
        if plan.other(self.vpc).is_none() {
            let vpc = &r.cx.names.get(Kind::Vpc, self.vpc).name;
            let message = format!("VPC {vpc} is no side of peering {}", plan.common.name);
            let found = r.error(t.place, message).code("InvalidVpcPeeringConnectionID.NotFound");
            r.cx.error(found.also(r.cx.names.get(Kind::Peering, at).place, "it is here"));
            return None;
        }
        Some(RouteTarget::Peering(at))
    }

    fn tgw(&self, r: &Fields<'_>, t: At<&str>) -> Option<RouteTarget> {
        let at = r.reference(Kind::Tgw, None, t)?;
        let attached = self
            .draft
            .tgw_attachments
            .iter()
            .flatten()
            .any(|a| a.tgw == at && matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == self.vpc));
        if !attached {
            let vpc = &r.cx.names.get(Kind::Vpc, self.vpc).name;
            let message = format!("VPC {vpc} has no attachment to transit gateway {}", t.value);
            let found = r.error(t.place, message).code("InvalidTransitGatewayID.NotFound");
            r.cx.error(found.also(r.cx.names.get(Kind::Tgw, at).place, "it is here"));
            return None;
        }
        Some(RouteTarget::Tgw(at))
    }

    fn instance(&self, r: &Fields<'_>, t: At<&str>) -> Option<RouteTarget> {
        let at = r.reference_within(Kind::Instance, self.vpc, t, "InvalidParameterValue")?;
        let instance = self.draft.instances[at].as_ref()?;
        match instance.enis[..] {
            [eni] => Some(self.next_hop(r, t, eni)),
            [] => None,
            _ => {
                let message = format!("instance {} has several network interfaces", instance.common.path);
                let found = r.error(t.place, message).code("InvalidInstanceID");
                r.cx.error(found.help(format!("write `eni:{}/eth0`", instance.common.name)));
                None
            }
        }
    }

    /// `web/eth1` or `app.web/eth1`.
    fn eni(&self, r: &Fields<'_>, t: At<&str>) -> Option<RouteTarget> {
        let vpc = &r.cx.names.get(Kind::Vpc, self.vpc).name;
        let own = format!("{vpc}.{}", t.value);
        let Some(&at) = self.enis.get(&own).or_else(|| self.enis.get(t.value)) else {
            let near = did_you_mean(&own, self.enis.keys().map(String::as_str).take(500));
            let found = r.error(t.place, format!("there is no network interface `{}`", t.value));
            let help = near.unwrap_or_else(|| "`eni:INSTANCE/eth0`, `eni:INSTANCE/eth1` ...".into());
            r.cx.error(found.code("InvalidNetworkInterfaceID.NotFound").help(help));
            return None;
        };
        let eni = &self.draft.enis[at];
        if eni.vpc() != Some(self.vpc) {
            let message = format!("route table and network interface {} belong to different networks", eni.common.path);
            r.cx.error(r.error(t.place, message).code("InvalidParameterValue"));
            return None;
        }
        if let EniOwner::Endpoint(_) = eni.owner {
            let message = format!("{} belongs to an interface endpoint: no route leads there", eni.common.path);
            r.cx.error(r.error(t.place, message).code("InvalidParameterValue"));
            return None;
        }
        Some(self.next_hop(r, t, EniIx(at as u32)))
    }

    fn next_hop(&self, r: &Fields<'_>, t: At<&str>, eni: EniIx) -> RouteTarget {
        if let Some(plan) = self.draft.enis.get(eni.at())
            && plan.source_dest_check
        {
            let message =
                format!("{} drops what is not addressed to it: its source/dest check is on", plan.common.path);
            let found = r.error(t.place, message);
            r.cx.warning(found.help("write `source_dest_check: false` at the instance"));
        }
        RouteTarget::Eni(eni)
    }
}
