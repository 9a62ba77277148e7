//! From what was written to what it means: one file per AWS noun. What AWS refuses is refused with AWS's code and
//! every object in conflict; what AWS allows is allowed.

pub mod checks;
pub mod endpoint;
pub mod eni;
pub mod fault;
pub mod gateway_endpoint;
pub mod gateways;
pub mod instance;
pub mod limits;
pub mod link;
pub mod listen;
pub mod nacl;
pub mod peering;
pub mod policy;
pub mod prefix_list;
pub mod private_dns;
pub mod role;
pub mod routes;
pub mod security_group;
pub mod service;
pub mod site;
pub mod subnet;
pub mod table;
pub mod transit;
pub mod vpc;

use super::catalogue::PublicBlocks;
use super::plan::{
    Common, EndpointPlan, EniPlan, InstancePlan, InternetGatewayPlan, Latency, LinkPlan, NaclPlan, NatGatewayPlan,
    PeeringPlan, Plan, PrefixListPlan, RolePlan, RouteTablePlan, SecurityGroupPlan, ServicePlan, SitePlan, SubnetPlan,
    TgwAttachmentPlan, TgwRouteTablePlan, TransitGatewayPlan, VgwPlan, VpcPlan,
};
use super::spec::fields::{Cx, Fields};
use super::spec::keys;
use super::spec::names::Kind;
use super::spec::node::Node;
use super::spec::source::Place;
use eni::EniDraft;

/// A plan in the making: at each index what the names table has there, or nothing where it was refused.
#[derive(Default)]
pub struct Draft {
    /// See `Plan::gone_routes`.
    pub gone_routes: std::collections::BTreeSet<String>,
    pub vpcs: Vec<Option<VpcPlan>>,
    pub subnets: Vec<Option<SubnetPlan>>,
    pub route_tables: Vec<Option<RouteTablePlan>>,
    pub network_acls: Vec<Option<NaclPlan>>,
    pub security_groups: Vec<Option<SecurityGroupPlan>>,
    pub instances: Vec<Option<InstancePlan>>,
    pub endpoints: Vec<Option<EndpointPlan>>,
    pub roles: Vec<Option<RolePlan>>,
    pub services: Vec<ServicePlan>,
    pub eni_drafts: Vec<EniDraft>,
    pub enis: Vec<EniPlan>,
    pub internet_gateways: Vec<InternetGatewayPlan>,
    pub nat_gateways: Vec<Option<NatGatewayPlan>>,
    pub vgws: Vec<VgwPlan>,
    /// The file's by the names table, then AWS's own as they are needed.
    pub prefix_lists: Vec<Option<PrefixListPlan>>,
    pub peerings: Vec<Option<PeeringPlan>>,
    pub transit_gateways: Vec<Option<TransitGatewayPlan>>,
    /// The file's by the names table, then those that a site's link makes.
    pub tgw_attachments: Vec<Option<TgwAttachmentPlan>>,
    pub tgw_route_tables: Vec<Option<TgwRouteTablePlan>>,
    pub sites: Vec<Option<SitePlan>>,
    pub links: Vec<LinkPlan>,
    /// Links whose end is an attachment already; the others' is still the transit gateway.
    pub linked: Vec<usize>,
    /// Who wants a public address, and the Elastic IP's name if it has one.
    pub wants_public: Vec<gateways::WantsPublic>,
    /// The endpoint that makes the route of a table to a prefix list.
    pub gateway_routes: std::collections::HashMap<(usize, usize), usize>,
    /// Route tables that listen to their virtual private gateway.
    pub propagating: Vec<usize>,
    /// Rules that name groups of other VPCs.
    pub foreign_groups: Vec<security_group::ForeignGroup>,
    /// Subnets whose instances get public addresses.
    pub public_subnets: std::collections::BTreeSet<usize>,
    pub public_blocks: PublicBlocks,
    pub public_side: Option<crate::base::EniIx>,
}

/// Reads a whole topology. The plan is good only if no problem was noted.
pub fn topology(cx: &Cx<'_>, root: &Node, lab: &str) -> Option<Plan> {
    let place = root.entries().first().map_or(root.place, |e| e.key_place);
    let top = Fields::open_node(cx, &keys::TOP, "the topology".into(), root, place)?;
    // Read before the names were collected; here they only count as read.
    for key in ["version", "name", "region", "defaults", "default_account", "accounts"] {
        let _ = top.entry(key);
    }
    let mut draft = Draft::sized(cx);
    role::read(cx, &top, &mut draft);
    let written = service::read(cx, &top);
    draft.public_blocks = service::public_blocks(cx, &written);
    prefix_list::read(cx, &top, None, &mut draft);
    let vpcs = top.named("vpcs");
    if vpcs.is_empty() && top.has("vpcs") {
        cx.error(top.error(top.key_place("vpcs"), "there is no VPC").help("vpcs:\n  app: { cidr: 10.0.0.0/16 }"));
    }
    let mut tables = Vec::new();
    for (v, entry) in vpcs.iter().enumerate() {
        tables.extend(vpc::read(cx, entry, v, &written, &mut draft));
    }
    site::read(cx, &top, &mut draft);
    site::internet(cx, &top, &mut draft);
    peering::read(cx, &top, &mut draft);
    transit::read(cx, &top, &mut draft);
    service::finish(cx, &written, &mut draft);
    gateways::public_side(lab, &mut draft);
    eni::place(cx, &mut draft);
    prefix_list::refuse_hosts_in_public_blocks(cx, &draft);
    gateways::more_nat_addresses(cx, &mut draft);
    let public_addresses = gateways::public_addresses(cx, &mut draft);
    routes::read(cx, tables, &mut draft);
    transit::routes(cx, &top, &mut draft);
    site::routes(cx, &top, &mut draft);
    routes::propagate(cx, &mut draft);
    security_group::references(cx, &draft);
    security_group::limits(cx, &draft);
    let limits = limits::read(cx, &top);
    let checks = checks::read(cx, &top, &draft);
    let latency = match top.word("latency").map(|t| t.value) {
        Some("aws") => Latency::Aws,
        _ => Latency::Off,
    };
    let faults = top.list("faults");
    let mut plan = Plan {
        name: lab.to_owned(),
        region: cx.region.clone(),
        dir: cx.sources.first().map(|s| s.folder()).unwrap_or_default(),
        default_account: cx.default_account.clone(),
        vpcs: all(draft.vpcs)?,
        subnets: all(draft.subnets)?,
        route_tables: all(draft.route_tables)?,
        gone_routes: draft.gone_routes,
        network_acls: all(draft.network_acls)?,
        security_groups: all(draft.security_groups)?,
        enis: draft.enis,
        instances: all(draft.instances)?,
        endpoints: all(draft.endpoints)?,
        roles: all(draft.roles)?,
        services: draft.services,
        checks,
        limits,
        internet_gateways: draft.internet_gateways,
        public_addresses,
        nat_gateways: all(draft.nat_gateways)?,
        vgws: draft.vgws,
        prefix_lists: all(draft.prefix_lists)?,
        peerings: all(draft.peerings)?,
        transit_gateways: all(draft.transit_gateways)?,
        tgw_attachments: all(draft.tgw_attachments)?,
        tgw_route_tables: all(draft.tgw_route_tables)?,
        sites: all(draft.sites)?,
        links: draft.links,
        public_blocks: draft.public_blocks,
        public_side: draft.public_side,
        faults: Vec::new(),
        latency,
    };
    plan.faults = fault::read(cx, faults, &plan);
    top.done();
    Some(plan)
}

fn all<T>(items: Vec<Option<T>>) -> Option<Vec<T>> {
    items.into_iter().collect()
}

impl Draft {
    /// The Internet gateway of a VPC. They are in the order of their VPCs.
    pub fn igw_of(&self, vpc: usize) -> Option<usize> {
        self.internet_gateways.binary_search_by_key(&vpc, |igw| igw.vpc).ok()
    }

    /// The virtual private gateway of a VPC.
    pub fn vgw_of(&self, vpc: usize) -> Option<usize> {
        self.vgws.binary_search_by_key(&vpc, |vgw| vgw.vpc).ok()
    }

    fn sized(cx: &Cx<'_>) -> Draft {
        fn empty<T>(n: usize) -> Vec<Option<T>> {
            std::iter::repeat_with(|| None).take(n).collect()
        }
        let n = |kind| cx.names.list(kind).len();
        Draft {
            vpcs: empty(n(Kind::Vpc)),
            subnets: empty(n(Kind::Subnet)),
            route_tables: empty(n(Kind::RouteTable)),
            gone_routes: std::collections::BTreeSet::new(),
            network_acls: empty(n(Kind::Nacl)),
            security_groups: empty(n(Kind::SecurityGroup)),
            instances: empty(n(Kind::Instance)),
            endpoints: empty(n(Kind::Endpoint)),
            roles: empty(n(Kind::Role)),
            nat_gateways: empty(n(Kind::Nat)),
            prefix_lists: empty(n(Kind::PrefixList)),
            peerings: empty(n(Kind::Peering)),
            transit_gateways: empty(n(Kind::Tgw)),
            tgw_attachments: empty(n(Kind::TgwAttachment)),
            tgw_route_tables: empty(n(Kind::TgwTable)),
            sites: empty(n(Kind::Site)),
            ..Draft::default()
        }
    }
}

/// Name, path and id from the table of names; tags and description from the file.
pub fn common(f: &Fields<'_>, kind: Kind, index: usize) -> Common {
    let named = f.cx.names.get(kind, index);
    // The names table has it already.
    let _ = f.entry("id");
    Common {
        name: named.name.clone(),
        path: named.path.clone(),
        id: named.id.clone(),
        description: f.text("description").map(|t| t.value.to_owned()).unwrap_or_default(),
        tags: tags(f),
    }
}

/// `tags:`, within AWS's limits.
pub fn tags(f: &Fields<'_>) -> Vec<(String, String)> {
    let tags = f.text_map("tags");
    for (key, value) in &tags {
        if key.value.starts_with("aws:") {
            let message = format!("the tag `{}`: the prefix aws: is AWS's own", key.value);
            f.cx.error(f.error(key.place, message).code("InvalidParameterValue"));
        }
        if key.value.chars().count() > 127 || value.value.chars().count() > 255 {
            let message = "a tag's key has at most 127 characters, its value 255";
            f.cx.error(f.error(key.place, message).code("InvalidParameterValue"));
        }
    }
    if tags.len() > 50 {
        f.cx.error(f.error(f.key_place("tags"), "more than 50 tags").code("TagLimitExceeded"));
    }
    tags.into_iter().map(|(k, v)| (k.value.to_owned(), v.value.to_owned())).collect()
}

/// Of what the file does not write: a VPC's main table, default NACL and default group.
pub fn implied(cx: &Cx<'_>, kind: Kind, index: usize) -> Common {
    let named = cx.names.get(kind, index);
    Common { name: named.name.clone(), path: named.path.clone(), id: named.id.clone(), ..Common::default() }
}

/// The implied ones of a kind in a VPC, by index.
pub fn implied_of(cx: &Cx<'_>, kind: Kind, vpc: usize) -> Option<usize> {
    let name = if kind == Kind::RouteTable { "main" } else { "default" };
    cx.names.index(kind, vpc, name).filter(|&at| cx.names.get(kind, at).implied)
}

/// Where an object of the file stands.
pub fn place_of(cx: &Cx<'_>, kind: Kind, index: usize) -> Place {
    cx.names.get(kind, index).place
}

/// The names of an instance or endpoint's security groups, looked up; the VPC's default group if left out.
pub fn groups(f: &Fields<'_>, vpc: usize) -> Vec<usize> {
    let default = || f.cx.names.index(Kind::SecurityGroup, vpc, "default").into_iter().collect();
    let Some(written) = f.texts("security_groups") else { return default() };
    if written.is_empty() {
        let found = f.error(f.key_place("security_groups"), "an ENI has at least one security group");
        f.cx.error(found.code("InvalidParameterValue").help("left out, it is the VPC's `default` group"));
    }
    // The default quota is 5 and can be raised to 16.
    if (6..=16).contains(&written.len()) {
        let message = format!("{} security groups on one ENI: the default quota of AWS is 5", written.len());
        f.cx.warning(f.error(f.key_place("security_groups"), message).help("the quota can be raised to 16"));
    }
    if written.len() > 16 {
        let found = f.error(f.key_place("security_groups"), "more than 16 security groups on one ENI");
        f.cx.error(found.code("SecurityGroupsPerInterfaceLimitExceeded"));
    }
    let mut groups = Vec::new();
    for text in written {
        if let Some(g) = f.reference_within(Kind::SecurityGroup, vpc, text, "InvalidParameter") {
            if groups.contains(&g) {
                let message = format!("the group `{}` stands twice", text.value);
                f.cx.error(f.error(text.place, message).code("InvalidParameterValue"));
            } else {
                groups.push(g);
            }
        }
    }
    groups
}
