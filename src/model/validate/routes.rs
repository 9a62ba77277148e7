//! Route tables: local routes first, then what is written, what gateway endpoints make, and what virtual private gateways
//! propagate.

use std::collections::HashMap;
use std::str::FromStr;

use super::{Draft, common, implied, implied_of, prefix_list};
use crate::base::{Cidr, EniIx};
use crate::model::load::route_key;
use crate::model::plan::{
    AttachmentTo, EndpointKind, EndpointPlan, EniOwner, LinkKind, RouteDest, RouteOrigin, RoutePlan, RouteTablePlan,
    RouteTarget,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::{Kind, is_main};
use crate::model::spec::report::{Found, did_you_mean};
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
    let made_by = gateway_endpoints(draft);
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
        let made = made_by.get(&table.index).map(Vec::as_slice).unwrap_or_default();
        let made = gateway_endpoint_routes(draft, &common.id, made);
        if let Some(f) = table.fields {
            associations(&f, table.index, table.vpc, draft);
            written(&f, (table.index, table.vpc), &common.id, &enis, &made, &mut routes, draft);
            f.done();
        }
        routes.extend(made);
        draft.route_tables[table.index] = Some(RouteTablePlan { common, vpc: table.vpc, main: table.main, routes });
    }
}

/// `edge` and `propagate` (VPC User Guide, "Gateway route tables", "Route propagation").
fn associations(f: &Fields<'_>, table: usize, vpc: usize, draft: &mut Draft) {
    let edge = f.word("edge");
    let propagate = f.bool("propagate").filter(|b| b.value);
    if let Some(edge) = edge
        && let Some(subnet) = draft.subnets.iter().flatten().find(|s| s.route_table == table)
    {
        let message = format!(
            "the table routes what comes in by the {}: subnet {} cannot use it",
            edge.value, subnet.common.path
        );
        let subnet = f.cx.names.at_path(Kind::Subnet, &subnet.common.path);
        let mut found = f.error(edge.place, message).code("Resource.AlreadyAssociated");
        if let Some(subnet) = subnet {
            found = found.also(f.cx.names.get(Kind::Subnet, subnet).place, "the subnet");
        }
        f.cx.error(found.help("a gateway has a route table of its own"));
    }
    let Some(propagate) = propagate else { return };
    if let Some(edge) = edge {
        let message = format!("a table associated with the {} takes no propagated routes", edge.value);
        let found = f.error(propagate.place, message).code("InvalidParameterCombination");
        f.cx.error(found.also(edge.place, "associated here"));
    }
    draft.propagating.push(table);
    if draft.vgw_of(vpc).is_none() {
        let message = format!("VPC {} has no virtual private gateway", f.cx.names.get(Kind::Vpc, vpc).name);
        let found = f.error(propagate.place, message).code("Gateway.NotAttached");
        f.cx.error(found.help("`virtual_private_gateway: true` at the VPC"));
    }
}

/// The written routes; `made` are those that gateway endpoints will add.
fn written(
    f: &Fields<'_>,
    (table, vpc): (usize, usize),
    id: &str,
    enis: &HashMap<String, usize>,
    made: &[RoutePlan],
    routes: &mut Vec<RoutePlan>,
    draft: &mut Draft,
) {
    let mut seen: HashMap<RouteDest, Place> = HashMap::new();
    let mut count = 0;
    for node in f.list("routes") {
        let place = node.entries().first().map_or(f.key_place("routes"), |e| e.key_place);
        let Some(r) = Fields::open_node(f.cx, &keys::ROUTE, f.title.clone(), node, place) else { continue };
        let list = r.text("to").filter(|t| t.value.starts_with("pl:"));
        let list = list.map(|t| {
            let region = draft.vpcs[vpc].as_ref().map(|v| v.region.clone()).unwrap_or_default();
            let value = prefix_list::reference(&r, vpc, &region, t, draft);
            At { value, place: t.place }
        });
        let read = Read { vpc, draft, enis, edge: f.has("edge") };
        let gone = read.gone(&r, &f.cx.names.get(Kind::RouteTable, table).path, list);
        if let Some((to, target)) = read.route(&r, list, gone.is_some()) {
            draft.gone_routes.extend(gone);
            count += weight(to.value, draft);
            let text = dest_text(to.value, draft);
            let by_endpoint = made.iter().find(|route| route.to == to.value);
            if let Some(RouteTarget::GatewayEndpoint(endpoint)) = by_endpoint.map(|route| route.target) {
                let endpoint = f.cx.names.get(Kind::Endpoint, endpoint);
                let message = format!(
                    "route table {id} already has a route with destination-prefix-list-id {text}: by endpoint {}",
                    endpoint.path
                );
                let found = r.error(to.place, message).code("RouteAlreadyExists");
                f.cx.error(found.also(endpoint.place, "the gateway endpoint"));
            } else if let Some(first) = seen.insert(to.value, to.place) {
                let found = r.error(to.place, format!("there is a route to {text} already"));
                f.cx.error(found.code("RouteAlreadyExists").also(first, "here"));
            } else if let Some(own) = routes.iter_mut().find(|l| l.to == to.value && l.origin == RouteOrigin::Local) {
                // AWS's ReplaceRoute: the local route keeps its destination and gets another target.
                own.target = target;
            } else {
                let id = format!("{id}/{text}");
                routes.push(RoutePlan { id, to: to.value, target, origin: RouteOrigin::Created });
            }
        }
        r.done();
    }
    // 500 are the default quota, 1,000 the most that AWS grants.
    if count > 1_000 {
        f.cx.error(f.error(f.key_place("routes"), "more than 1,000 routes").code("RouteLimitExceeded"));
    }
}

/// As how many routes it counts against the quota.
fn weight(to: RouteDest, draft: &Draft) -> u32 {
    match to {
        RouteDest::Cidr(_) => 1,
        RouteDest::PrefixList(at) => draft.prefix_lists[at].as_ref().map_or(1, |list| list.max_entries),
    }
}

/// As AWS writes it: the block, or the list's id.
fn dest_text(to: RouteDest, draft: &Draft) -> String {
    match to {
        RouteDest::Cidr(block) => block.to_string(),
        RouteDest::PrefixList(at) => draft.prefix_lists[at].as_ref().map(|l| l.common.id.clone()).unwrap_or_default(),
    }
}

/// The gateway endpoints of each table, in the order of the plan.
fn gateway_endpoints(draft: &Draft) -> HashMap<usize, Vec<usize>> {
    let mut found: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, endpoint) in draft.endpoints.iter().enumerate() {
        if let Some(EndpointKind::Gateway { route_tables, .. }) = endpoint.as_ref().map(|e| &e.kind) {
            for table in route_tables {
                found.entry(*table).or_default().push(at);
            }
        }
    }
    found
}

/// The routes that gateway endpoints make in a table.
fn gateway_endpoint_routes(draft: &Draft, id: &str, endpoints: &[usize]) -> Vec<RoutePlan> {
    let route = |at: &usize| {
        let EndpointKind::Gateway { prefix_list, .. } = &draft.endpoints[*at].as_ref()?.kind else { return None };
        let to = RouteDest::PrefixList(*prefix_list);
        Some(RoutePlan {
            id: format!("{id}/{}", dest_text(to, draft)),
            to,
            target: RouteTarget::GatewayEndpoint(*at),
            origin: RouteOrigin::Created,
        })
    };
    endpoints.iter().filter_map(route).collect()
}

/// Propagated routes of a table, which AWS does not raise (VPC User Guide, "Amazon VPC quotas").
const MOST_PROPAGATED: usize = 100;

/// What virtual private gateways tell the tables that listen to them (`EnableVgwRoutePropagation`): Direct Connect's
/// blocks before a VPN's.
pub fn propagate(cx: &Cx<'_>, draft: &mut Draft) {
    for table in std::mem::take(&mut draft.propagating) {
        let Some(plan) = &draft.route_tables[table] else { continue };
        let Some(vgw) = draft.vgw_of(plan.vpc) else { continue };
        let mut links = draft.vgws[vgw].links.clone();
        links.sort_by_key(|at| matches!(draft.links[*at].kind, LinkKind::Vpn { .. }));
        let mut routes: Vec<RoutePlan> = Vec::new();
        for to in links.iter().flat_map(|at| &draft.links[*at].site_blocks) {
            let to = RouteDest::Cidr(*to);
            if !routes.iter().any(|route| route.to == to) {
                let id = format!("{}/{}/propagated", plan.common.id, dest_text(to, draft));
                routes.push(RoutePlan { id, to, target: RouteTarget::Vgw(vgw), origin: RouteOrigin::Propagated });
            }
        }
        if routes.len() > MOST_PROPAGATED {
            let named = cx.names.get(Kind::RouteTable, table);
            let message = format!(
                "route table {}: The maximum number of propagated routes has been reached: {} routes, and a table takes \
                 {MOST_PROPAGATED}",
                named.path,
                routes.len()
            );
            let found = Found::at(named.place, message).code("RouteLimitExceeded");
            cx.error(found.help("sites that announce fewer, larger blocks"));
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
    /// `list`: the prefix list that stands in place of a block, if it was found.
    /// `gone`: its target has gone from a running lab.
    fn route(
        &self,
        r: &Fields<'_>,
        list: Option<At<Option<usize>>>,
        gone: bool,
    ) -> Option<(At<RouteDest>, RouteTarget)> {
        // For people who read the file.
        let _ = r.text("description");
        let target = if gone { Some(RouteTarget::Blackhole) } else { self.target(r) };
        if let Some(list) = list {
            if self.edge {
                let message = "a gateway's route table has blocks of the VPC as destinations, no prefix lists";
                r.cx.error(r.error(list.place, message).code("InvalidParameterValue"));
                return None;
            }
            return Some((At { value: RouteDest::PrefixList(list.value?), place: list.place }, target?));
        }
        let to = self.destination(r);
        let (to, target) = (to?, target?);
        let vpc = self.draft.vpcs[self.vpc].as_ref()?;
        let inside = vpc.cidrs.iter().find(|c| c.covers(to.value));
        let refuse = |message: String, help: &str| {
            r.cx.error(r.error(to.place, message).code("InvalidParameterValue").help(help));
        };
        if let Some(local) = inside.filter(|_| !gone) {
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
        if self.edge && !gone && (inside.is_none() || !matches!(target, RouteTarget::Eni(_))) {
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

    /// A route that stood in a running lab, and whose target is not there any more: its key. AWS keeps it, in state
    /// `blackhole`; one to what never was is refused.
    fn gone(&self, r: &Fields<'_>, table: &str, list: Option<At<Option<usize>>>) -> Option<String> {
        if r.cx.standing.routes.is_empty() {
            return None;
        }
        let t = r.text("via")?;
        let target = self.missing(r, t)?;
        let to = match list {
            Some(list) => format!("pl:{}", self.draft.prefix_lists[list.value?].as_ref()?.common.name),
            None => Cidr::from_str(r.text("to")?.value).ok()?.to_string(),
        };
        let key = route_key(table, &to, &target);
        if !r.cx.standing.routes.contains(&key) {
            return None;
        }
        let message = format!("{} has gone: the route to {to} stays, in state `blackhole`", t.value);
        r.cx.warning(r.error(t.place, message).help("take the route out, or write `via: blackhole`"));
        Some(key)
    }

    /// A target in the words of [`route_key`], if there is none such.
    fn missing(&self, r: &Fields<'_>, t: At<&str>) -> Option<String> {
        let (kind, path) = t.value.split_once(':').unwrap_or((t.value, ""));
        let name = path.rsplit('.').next().unwrap_or(path);
        let unknown = |kind: Kind, scope: Option<usize>| r.cx.names.resolve(kind, scope, t.value).is_err();
        let own = |kind: Kind| r.cx.names.index(kind, self.vpc, name).is_none() && unknown(kind, Some(self.vpc));
        let attached = |tgw: usize| {
            let mut all = self.draft.tgw_attachments.iter().flatten();
            all.any(|a| a.tgw == tgw && matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == self.vpc))
        };
        let missing = match kind {
            "igw" => self.draft.igw_of(self.vpc).is_none(),
            "vgw" => self.draft.vgw_of(self.vpc).is_none(),
            "nat" => own(Kind::Nat),
            "instance" => own(Kind::Instance),
            "peering" => unknown(Kind::Peering, None),
            "tgw" => r.cx.names.resolve(Kind::Tgw, None, t.value).map_or(true, |tgw| !attached(tgw)),
            "eni" => {
                let vpc = &r.cx.names.get(Kind::Vpc, self.vpc).name;
                !self.enis.contains_key(&format!("{vpc}.{path}")) && !self.enis.contains_key(path)
            }
            _ => false,
        };
        let target = match kind {
            "igw" | "vgw" => kind.to_owned(),
            "instance" | "eni" => format!("eni:{}", name.strip_suffix("/eth0").unwrap_or(name)),
            _ => format!("{kind}:{name}"),
        };
        missing.then_some(target)
    }

    fn destination(&self, r: &Fields<'_>) -> Option<At<Cidr>> {
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
                let at = self.draft.igw_of(self.vpc);
                self.attached(r, t, at, "Internet gateway", "internet_gateway").map(RouteTarget::Igw)
            }
            ("vgw", true) => {
                let at = self.draft.vgw_of(self.vpc);
                self.attached(r, t, at, "virtual private gateway", "virtual_private_gateway").map(RouteTarget::Vgw)
            }
            ("nat", false) => r.reference_within(Kind::Nat, self.vpc, t, "InvalidParameterValue").map(RouteTarget::Nat),
            ("peering", false) => self.peering(r, t),
            ("tgw", false) => self.tgw(r, t),
            ("endpoint", false) => {
                self.refuse_endpoint(r, At { value: name, place: t.place });
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

    /// A gateway endpoint makes its routes itself; an interface endpoint is no hop on the way to anything.
    fn refuse_endpoint(&self, r: &Fields<'_>, t: At<&str>) {
        let Some(at) = r.reference(Kind::Endpoint, Some(self.vpc), t) else { return };
        let gateway = self.draft.endpoints[at].as_ref().is_some_and(EndpointPlan::is_gateway);
        let (message, help) = if gateway {
            (
                "Cannot create or replace a prefix list route targeting a VPC Endpoint".to_owned(),
                "the endpoint makes the routes itself: `route_tables: [NAME, ...]` there",
            )
        } else {
            let path = &r.cx.names.get(Kind::Endpoint, at).path;
            (format!("{path} is an interface endpoint: no route leads there"), "its names lead to its addresses")
        };
        let found = r.error(t.place, message).code("InvalidParameterValue");
        r.cx.error(found.also(r.cx.names.get(Kind::Endpoint, at).place, "the endpoint").help(help));
    }

    fn attached(&self, r: &Fields<'_>, t: At<&str>, at: Option<usize>, what: &str, key: &str) -> Option<usize> {
        if at.is_none() {
            let vpc = r.cx.names.get(Kind::Vpc, self.vpc);
            let message = format!("VPC {} has no {what}", vpc.name);
            let found = r.error(t.place, message).code("InvalidGatewayID.NotFound").also(vpc.place, "the VPC");
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
            let tgw = &r.cx.names.get(Kind::Tgw, at).name;
            let message = format!("VPC {vpc} has no attachment to transit gateway {tgw}");
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
        let owner = match eni.owner {
            EniOwner::Instance(..) => None,
            EniOwner::NatGateway(_) => Some("a NAT gateway: `nat:NAME` leads there"),
            EniOwner::TgwAttachment(_) => Some("a transit gateway's attachment: `tgw:NAME` leads there"),
            _ => Some("an interface endpoint: no route leads there"),
        };
        if let Some(owner) = owner {
            let message = format!("{} belongs to {owner}", eni.common.path);
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

#[cfg(test)]
mod tests {
    use crate::model::plan::RouteTarget;
    use crate::model::spec::source::Source;
    use crate::model::{Around, Loaded, Plan, Report, Standing, load, load_over};

    const LAB: &str = "version: 1
name: t
region: us-east-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: a } }
    nat_gateways: { nat: { subnet: a } }
    instances: { box: { subnet: a, ip: 10.0.1.10, source_dest_check: false, forward: true } }
    route_tables:
      out: { routes: [ { to: 0.0.0.0/0, via: nat:nat }, { to: 10.9.0.0/16, via: peering:p }, { to: 172.16.0.0/12, via: instance:box }, { to: 10.0.2.0/24, via: eni:app.box/eth0 } ] }
  far: { cidr: 10.9.0.0/16, subnets: { x: { cidr: 10.9.1.0/24, az: a } } }
peerings: { p: { requester: app, accepter: far } }
";

    fn over(standing: &Standing, patch: &str) -> Result<Loaded, Report> {
        let sources = [Source::new("lab.yaml", LAB), Source::new("patch.yaml", patch)];
        load_over(&sources, &Around::default(), standing, &|_| Vec::new())
    }

    fn blackholes(plan: &Plan) -> Vec<String> {
        let routes = plan.route_tables.iter().flat_map(|t| &t.routes);
        routes.filter(|r| r.target == RouteTarget::Blackhole).map(|r| plan.dest_text(r.to)).collect()
    }

    #[test]
    fn a_route_whose_target_goes_is_a_blackhole_and_one_to_nothing_is_refused() {
        let whole =
            load(&[Source::new("lab.yaml", LAB)], &Around::default()).unwrap_or_else(|r| panic!("{}", r.render(false)));
        let standing = Standing::of(&whole.plan);
        for (patch, gone) in [
            ("vpcs: { app: { nat_gateways: null } }", &["0.0.0.0/0"][..]),
            ("peerings: null", &["10.9.0.0/16"]),
            ("vpcs: { app: { instances: null } }", &["172.16.0.0/12", "10.0.2.0/24"]),
        ] {
            // To a lab that has not stood, it is a route to nothing.
            let refused = over(&Standing::default(), patch).expect_err(patch);
            assert_eq!(refused.problems.len(), gone.len(), "{}", refused.render(false));
            let loaded = over(&standing, patch).unwrap_or_else(|r| panic!("{}", r.render(false)));
            assert_eq!(blackholes(&loaded.plan), gone, "{patch}");
            let told = loaded.warnings.render(false);
            for to in gone {
                assert!(told.contains(&format!("has gone: the route to {to} stays, in state `blackhole`")), "{told}");
            }
            // It stays so through further changes, and is whole again with its target.
            let after = Standing::of(&loaded.plan);
            assert_eq!(blackholes(&over(&after, patch).unwrap_or_else(|r| panic!("{}", r.render(false))).plan), gone);
            assert_eq!(blackholes(&over(&after, "{}").unwrap_or_else(|r| panic!("{}", r.render(false))).plan), [""; 0]);
        }
        let with = "transit_gateways: { t: { attachments: { one: { vpc: app, subnets: [a] }, two: { vpc: far, subnets: [x] } },
          route_tables: { r: { associate: [one], routes: [ { to: 192.168.0.0/16, via: two } ] } } } }";
        let without = "transit_gateways: { t: { attachments: { one: { vpc: app, subnets: [a] } },
          route_tables: { r: { associate: [one], routes: [ { to: 192.168.0.0/16, via: two } ] } } } }";
        let joined = over(&standing, with).unwrap_or_else(|r| panic!("{}", r.render(false)));
        assert!(over(&standing, without).is_err());
        let left = over(&Standing::of(&joined.plan), without).unwrap_or_else(|r| panic!("{}", r.render(false)));
        assert_eq!(left.plan.tgw_route_text(&left.plan.tgw_route_tables[0].routes[0]), "192.168.0.0/16 blackhole");
        assert!(left.warnings.render(false).contains("two has gone: the route to 192.168.0.0/16 stays"));
        let new = "vpcs: { app: { route_tables: { out: { routes: [ { to: 0.0.0.0/0, via: nat:other } ] } } } }";
        assert!(over(&standing, new).is_err());
    }
}
