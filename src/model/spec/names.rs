//! What the file names, and how a reference finds it: `VPC.NAME`, the bare name where it is unique, or an id.

use std::collections::HashMap;

use super::fields::{At, Fields};
use super::node::{Entry, Node, Value};
use super::report::{Found, Problems, did_you_mean};
use super::source::Place;
use crate::base::ids::{aws_id, token36};

/// Kinds of things that are referred to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Vpc,
    Subnet,
    RouteTable,
    Nacl,
    SecurityGroup,
    Instance,
    Endpoint,
    Role,
    Nat,
    PrefixList,
    Peering,
    Tgw,
    TgwAttachment,
    TgwTable,
    Site,
    InternetGateway,
    Vgw,
    ElasticIp,
}

impl Kind {
    pub const ALL: [Kind; 18] = [
        Kind::Vpc,
        Kind::Subnet,
        Kind::RouteTable,
        Kind::Nacl,
        Kind::SecurityGroup,
        Kind::Instance,
        Kind::Endpoint,
        Kind::Role,
        Kind::Nat,
        Kind::PrefixList,
        Kind::Peering,
        Kind::Tgw,
        Kind::TgwAttachment,
        Kind::TgwTable,
        Kind::Site,
        Kind::InternetGateway,
        Kind::Vgw,
        Kind::ElasticIp,
    ];

    /// For messages.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Vpc => "VPC",
            Kind::Subnet => "subnet",
            Kind::RouteTable => "route table",
            Kind::Nacl => "network ACL",
            Kind::SecurityGroup => "security group",
            Kind::Instance => "instance",
            Kind::Endpoint => "endpoint",
            Kind::Role => "role",
            Kind::Nat => "NAT gateway",
            Kind::PrefixList => "prefix list",
            Kind::Peering => "peering",
            Kind::Tgw => "transit gateway",
            Kind::TgwAttachment => "transit gateway attachment",
            Kind::TgwTable => "transit gateway route table",
            Kind::Site => "site",
            Kind::InternetGateway => "Internet gateway",
            Kind::Vgw => "virtual private gateway",
            Kind::ElasticIp => "Elastic IP",
        }
    }

    /// What may stand before a reference, and in `${lab:...}`.
    const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Kind::Vpc => &["vpc"],
            Kind::Subnet => &["subnet"],
            Kind::RouteTable => &["route_table", "rtb"],
            Kind::Nacl => &["nacl", "network_acl"],
            Kind::SecurityGroup => &["sg", "security_group"],
            Kind::Instance => &["instance"],
            Kind::Endpoint => &["endpoint"],
            Kind::Role => &["role"],
            Kind::Nat => &["nat"],
            Kind::PrefixList => &["pl", "prefix_list"],
            Kind::Peering => &["peering"],
            Kind::Tgw => &["tgw"],
            Kind::TgwAttachment => &["tgw_attachment"],
            Kind::TgwTable => &["tgw_route_table"],
            Kind::Site => &["site"],
            Kind::InternetGateway => &["igw"],
            Kind::Vgw => &["vgw"],
            Kind::ElasticIp => &["eip"],
        }
    }

    pub fn by_prefix(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.prefixes().contains(&word))
    }

    /// The key of a VPC under which these stand.
    const fn key(self) -> &'static str {
        match self {
            Kind::Vpc => "vpcs",
            Kind::Subnet => "subnets",
            Kind::RouteTable => "route_tables",
            Kind::Nacl => "network_acls",
            Kind::SecurityGroup => "security_groups",
            Kind::Instance => "instances",
            Kind::Endpoint => "endpoints",
            Kind::Role => "roles",
            Kind::Nat => "nat_gateways",
            Kind::PrefixList => "prefix_lists",
            Kind::Peering => "peerings",
            Kind::Tgw => "transit_gateways",
            Kind::TgwAttachment => "attachments",
            Kind::TgwTable => "route_tables",
            Kind::Site => "on_prem",
            Kind::InternetGateway => "internet_gateway",
            Kind::Vgw => "virtual_private_gateway",
            Kind::ElasticIp => "eip",
        }
    }

    const fn id_prefix(self) -> &'static str {
        match self {
            Kind::Vpc => "vpc",
            Kind::Subnet => "subnet",
            Kind::RouteTable => "rtb",
            Kind::Nacl => "acl",
            Kind::SecurityGroup => "sg",
            Kind::Instance => "i",
            Kind::Endpoint => "vpce",
            Kind::Role => "AROA",
            Kind::Nat => "nat",
            Kind::PrefixList => "pl",
            Kind::Peering => "pcx",
            Kind::Tgw => "tgw",
            Kind::TgwAttachment => "tgw-attach",
            Kind::TgwTable => "tgw-rtb",
            Kind::Site => "cgw",
            Kind::InternetGateway => "igw",
            Kind::Vgw => "vgw",
            Kind::ElasticIp => "eipalloc",
        }
    }

    /// AWS's error code for a reference to nothing.
    const fn not_found(self) -> &'static str {
        match self {
            Kind::Vpc => "InvalidVpcID.NotFound",
            Kind::Subnet => "InvalidSubnetID.NotFound",
            Kind::RouteTable => "InvalidRouteTableID.NotFound",
            Kind::Nacl => "InvalidNetworkAclID.NotFound",
            Kind::SecurityGroup => "InvalidGroup.NotFound",
            Kind::Instance => "InvalidInstanceID.NotFound",
            Kind::Endpoint => "InvalidVpcEndpointId.NotFound",
            Kind::Role => "NoSuchEntity",
            Kind::Nat => "NatGatewayNotFound",
            Kind::PrefixList => "InvalidPrefixListID.NotFound",
            Kind::Peering => "InvalidVpcPeeringConnectionID.NotFound",
            Kind::Tgw => "InvalidTransitGatewayID.NotFound",
            Kind::TgwAttachment => "InvalidTransitGatewayAttachmentID.NotFound",
            Kind::TgwTable => "InvalidRouteTableID.NotFound",
            Kind::Site => "InvalidCustomerGatewayID.NotFound",
            Kind::InternetGateway => "InvalidInternetGatewayID.NotFound",
            Kind::Vgw => "InvalidVpnGatewayID.NotFound",
            Kind::ElasticIp => "InvalidAllocationID.NotFound",
        }
    }

    /// AWS's error code for an id that is not of its form.
    const fn malformed(self) -> &'static str {
        match self {
            Kind::Vpc => "InvalidVpcID.Malformed",
            Kind::Subnet => "InvalidSubnetID.Malformed",
            Kind::RouteTable => "InvalidRouteTableID.Malformed",
            Kind::Nacl => "InvalidNetworkAclID.Malformed",
            Kind::SecurityGroup => "InvalidGroupId.Malformed",
            Kind::Instance => "InvalidInstanceID.Malformed",
            Kind::Endpoint => "InvalidVpcEndpointId.Malformed",
            Kind::Role => "ValidationError",
            Kind::Nat => "InvalidNatGatewayID.Malformed",
            Kind::PrefixList => "InvalidPrefixListID.Malformed",
            Kind::Peering => "InvalidVpcPeeringConnectionId.Malformed",
            Kind::Tgw => "InvalidTransitGatewayID.Malformed",
            Kind::TgwAttachment => "InvalidTransitGatewayAttachmentID.Malformed",
            Kind::TgwTable => "InvalidRouteTableID.Malformed",
            Kind::Site => "InvalidCustomerGatewayId.Malformed",
            Kind::InternetGateway => "InvalidInternetGatewayId.Malformed",
            Kind::Vgw => "InvalidVpnGatewayID.Malformed",
            Kind::ElasticIp => "InvalidAllocationID.Malformed",
        }
    }
}

/// One named thing.
#[derive(Clone, Debug)]
pub struct Named {
    /// Index of its VPC.
    pub vpc: Option<usize>,
    pub name: String,
    /// `VPC.NAME`.
    pub path: String,
    pub id: String,
    /// Where its name stands; of implied ones, their VPC's.
    pub place: Place,
    /// Not in the file: a VPC's main table, default NACL and default group.
    pub implied: bool,
    /// `id:` as written.
    pub written_id: Option<(Place, String)>,
}

/// All named things, in the order of the plan.
#[derive(Debug, Default)]
pub struct Names {
    lists: HashMap<Kind, Vec<Named>>,
    by_name: HashMap<(Kind, String), Vec<usize>>,
    by_vpc: HashMap<(Kind, usize, String), usize>,
    /// Filled when ids are final.
    by_id: HashMap<(Kind, String), usize>,
    pub accounts: HashMap<String, String>,
}

/// Hosts of the emulated Internet stand below this word.
pub const INTERNET: &str = "internet";

/// More instances than one machine can hold.
const MAX_INSTANCES: usize = 10_000;

impl Names {
    /// Walks the tree and notes every name. Ids are derived from the lab's name, or as written.
    pub fn collect(root: &Node, lab: &str, problems: &Problems) -> Names {
        let mut names = Names::default();
        for kind in Kind::ALL {
            names.lists.insert(kind, Vec::new());
        }
        let mut instances = 0;
        for vpc in entries(root, "vpcs") {
            names.collect_vpc(vpc, lab, &mut instances, problems);
        }
        for role in entries(root, "roles") {
            check_name(Kind::Role, role, problems);
            names.add(Kind::Role, lab, None, &role.key, role.key_place, Some(&role.node));
        }
        for kind in [Kind::Peering, Kind::Tgw, Kind::Site, Kind::PrefixList] {
            for e in entries(root, kind.key()) {
                check_name(kind, e, problems);
                names.add(kind, lab, None, &e.key, e.key_place, Some(&e.node));
            }
        }
        for tgw in entries(root, "transit_gateways") {
            for kind in [Kind::TgwAttachment, Kind::TgwTable] {
                for e in entries(&tgw.node, kind.key()) {
                    check_name(kind, e, problems);
                    names.add_below(kind, lab, &tgw.key, &e.key, e.key_place, Some(&e.node));
                }
            }
            if tgw.node.get("route_tables").is_none_or(|tables| matches!(tables.value, Value::Null)) {
                names.add_below(Kind::TgwTable, lab, &tgw.key, "default", tgw.key_place, None);
            }
        }
        for site in entries(root, "on_prem") {
            for e in entries(&site.node, "hosts") {
                check_name(Kind::Instance, e, problems);
                instances += 1;
                if instances > MAX_INSTANCES {
                    problems.error(Found::at(e.key_place, format!("more than {MAX_INSTANCES} instances and hosts")));
                    break;
                }
                names.add_below(Kind::Instance, lab, &site.key, &e.key, e.key_place, Some(&e.node));
            }
        }
        for e in entries(root, "internet") {
            check_name(Kind::Instance, e, problems);
            names.add_below(Kind::Instance, lab, INTERNET, &e.key, e.key_place, Some(&e.node));
        }
        for account in entries(root, "accounts") {
            if let Some(number) = account.node.text() {
                names.accounts.insert(account.key.clone(), number.to_owned());
            }
        }
        names.refuse_twins(problems);
        names
    }

    /// A VPC and what stands in it; `instances` counts those of the lab.
    fn collect_vpc(&mut self, vpc: &Entry, lab: &str, instances: &mut usize, problems: &Problems) {
        check_name(Kind::Vpc, vpc, problems);
        let v = self.lists[&Kind::Vpc].len();
        self.add(Kind::Vpc, lab, None, &vpc.key, vpc.key_place, Some(&vpc.node));
        for kind in [Kind::InternetGateway, Kind::Vgw] {
            let there = vpc.node.entries().iter().find(|e| e.key == kind.key());
            if let Some(e) = there.filter(|e| e.node.text() == Some("true")) {
                self.add(kind, lab, Some(v), kind.id_prefix(), e.key_place, None);
            }
        }
        self.add_elastic_ips(lab, &vpc.node);
        for kind in [
            Kind::Subnet,
            Kind::RouteTable,
            Kind::Nacl,
            Kind::SecurityGroup,
            Kind::Instance,
            Kind::Endpoint,
            Kind::Nat,
            Kind::PrefixList,
        ] {
            let mut main = false;
            for e in entries(&vpc.node, kind.key()) {
                check_name(kind, e, problems);
                main |= is_main(&e.key, &e.node);
                let count = if kind == Kind::Instance { count_of(&e.node) } else { None };
                *instances += usize::from(kind == Kind::Instance) * count.unwrap_or(1);
                if kind == Kind::Instance && *instances > MAX_INSTANCES {
                    let message = format!("more than {MAX_INSTANCES} instances");
                    problems.error(Found::at(e.key_place, message));
                    break;
                }
                match count {
                    None => self.add(kind, lab, Some(v), &e.key, e.key_place, Some(&e.node)),
                    Some(count) => {
                        for n in 1..=count {
                            self.add(kind, lab, Some(v), &format!("{}-{n}", e.key), e.key_place, None);
                        }
                    }
                }
            }
            let implied = match kind {
                Kind::RouteTable if !main => "main",
                Kind::Nacl | Kind::SecurityGroup if self.index(kind, v, "default").is_none() => "default",
                _ => continue,
            };
            self.add(kind, lab, Some(v), implied, vpc.key_place, None);
            if let Some(last) = self.lists.get_mut(&kind).and_then(|l| l.last_mut()) {
                last.implied = true;
            }
        }
    }

    fn add(&mut self, kind: Kind, lab: &str, vpc: Option<usize>, name: &str, place: Place, node: Option<&Node>) {
        let path = match vpc {
            Some(v) => format!("{}.{name}", self.lists[&Kind::Vpc][v].name),
            None => name.to_owned(),
        };
        self.put(kind, lab, vpc, name, path, place, node);
    }

    /// Of what is in no VPC but in something else: `dc.dc1`.
    fn add_below(&mut self, kind: Kind, lab: &str, above: &str, name: &str, place: Place, node: Option<&Node>) {
        self.put(kind, lab, None, name, format!("{above}.{name}"), place, node);
    }

    /// Elastic IPs are named where they are used.
    fn add_elastic_ips(&mut self, lab: &str, vpc: &Node) {
        let of = |key: &str| vpc.get(key).map(Node::entries).unwrap_or_default();
        let of_nat = |e: &Entry| match e.node.get("eip") {
            Some(Node { value: Value::List(items), .. }) => items.clone(),
            other => other.cloned().into_iter().collect(),
        };
        let mut used: Vec<(String, Place)> = Vec::new();
        for node in of("nat_gateways").iter().flat_map(of_nat) {
            used.extend(node.text().map(|t| (t.strip_prefix("eip:").unwrap_or(t).to_owned(), node.place)));
        }
        for node in of("instances").iter().filter_map(|e| e.node.get("public_ip")) {
            used.extend(node.text().and_then(|t| t.strip_prefix("eip:")).map(|t| (t.to_owned(), node.place)));
        }
        for (name, place) in used {
            if is_name(&name) && self.at_path(Kind::ElasticIp, &name).is_none() {
                self.put(Kind::ElasticIp, lab, None, &name, name.clone(), place, None);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all there is to a name")]
    fn put(
        &mut self,
        kind: Kind,
        lab: &str,
        vpc: Option<usize>,
        name: &str,
        path: String,
        place: Place,
        node: Option<&Node>,
    ) {
        let id = match kind {
            Kind::Role => format!("AROA{}", token36(&["role", lab, &path], 17).to_ascii_uppercase()),
            _ => aws_id(kind.id_prefix(), lab, &path),
        };
        let written_id = node.and_then(|n| n.get("id")).and_then(|n| n.text().map(|t| (n.place, t.to_owned())));
        let list = self.lists.entry(kind).or_default();
        self.by_name.entry((kind, name.to_owned())).or_default().push(list.len());
        if let Some(v) = vpc {
            self.by_vpc.entry((kind, v, name.to_owned())).or_insert(list.len());
        }
        list.push(Named { vpc, name: name.to_owned(), path, id, place, implied: false, written_id });
    }

    /// `count` makes names, which may be taken.
    fn refuse_twins(&self, problems: &Problems) {
        for kind in Kind::ALL {
            let mut seen: HashMap<&str, &Named> = HashMap::new();
            for n in &self.lists[&kind] {
                let Some(first) = seen.insert(&n.path, n) else { continue };
                let found = Found::at(n.place, format!("two of the kind {} are named {}", kind.word(), n.path))
                    .also(first.place, "the other one");
                // Machines of a VPC, of a site and of the Internet are named alike: by where they stand.
                let help = if kind == Kind::Instance && n.vpc != first.vpc {
                    let above = n.path.split('.').next().unwrap_or_default();
                    let other = if above == INTERNET { "the hosts of `internet`" } else { "a site" };
                    format!(
                        "a VPC and {other} both have the name `{above}`: rename the VPC, or one of the two machines"
                    )
                } else {
                    "`count` makes the names NAME-1, NAME-2 ...".to_owned()
                };
                problems.error(found.help(help));
            }
        }
    }

    pub fn list(&self, kind: Kind) -> &[Named] {
        self.lists.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn get(&self, kind: Kind, index: usize) -> &Named {
        &self.lists[&kind][index]
    }

    /// By VPC and exact name.
    pub fn index(&self, kind: Kind, vpc: usize, name: &str) -> Option<usize> {
        self.by_vpc.get(&(kind, vpc, name.to_owned())).copied()
    }

    /// By whole path.
    pub fn at_path(&self, kind: Kind, path: &str) -> Option<usize> {
        let name = path.rsplit('.').next().unwrap_or(path);
        let named = self.by_name.get(&(kind, name.to_owned()))?;
        named.iter().copied().find(|at| self.lists[&kind][*at].path == path)
    }

    /// What a reference means. `scope` is the VPC it stands in: its own things come first. An error is the problem's
    /// message and a suggestion.
    pub fn resolve(&self, kind: Kind, scope: Option<usize>, text: &str) -> Result<usize, (String, Option<String>)> {
        let bare = match text.split_once(':') {
            Some((prefix, rest)) if kind.prefixes().contains(&prefix) => rest,
            Some((prefix, _)) => {
                return Err((format!("`{text}` is no {}: `{prefix}:` is another kind", kind.word()), None));
            }
            None => text,
        };
        if let Some(own) = scope.and_then(|v| self.index(kind, v, bare)) {
            return Ok(own);
        }
        let list = self.list(kind);
        let found: Vec<usize> = match bare.rsplit_once('.') {
            Some((_, name)) => {
                let named = self.by_name.get(&(kind, name.to_owned())).map(Vec::as_slice).unwrap_or_default();
                named.iter().copied().filter(|&n| list[n].path == bare).collect()
            }
            None => self.by_name.get(&(kind, bare.to_owned())).cloned().unwrap_or_default(),
        };
        match found[..] {
            [one] => return Ok(one),
            [] => {}
            _ => {
                let candidates: Vec<&str> = found.iter().take(20).map(|&n| list[n].path.as_str()).collect();
                let message = format!("{} `{bare}` is ambiguous: {}", kind.word(), candidates.join(", "));
                return Err((message, Some(format!("write `{}`", candidates[0]))));
            }
        }
        if let Some(&by_id) = self.by_id.get(&(kind, bare.to_owned())) {
            return Ok(by_id);
        }
        // Suggestions are for people: of a huge file the first ones do.
        let known = list.iter().filter(|n| scope.is_none() || n.vpc == scope || n.vpc.is_none()).take(500);
        let word = if bare.contains('.') { |n: &'_ Named| n.path.clone() } else { |n: &'_ Named| n.name.clone() };
        let known: Vec<String> = known.map(word).collect();
        let numbered = format!("{bare}-1");
        let help = if known.contains(&numbered) {
            Some(format!("`count` made {numbered} and others of it"))
        } else {
            did_you_mean(bare, known.iter().map(String::as_str)).or_else(|| match known.len() {
                0 => Some(format!("the file has no {}", kind.word())),
                1..=12 => Some(format!("known: {}", known.join(", "))),
                _ => None,
            })
        };
        Err((format!("there is no {} `{bare}`", kind.word()), help))
    }

    /// Ids as they will be, after `id:` keys were expanded.
    pub fn set_ids(&mut self, mut ids: impl FnMut(Kind, &Named) -> Option<String>, problems: &Problems) {
        for kind in Kind::ALL {
            let list = self.lists.remove(&kind).unwrap_or_default();
            let list = list.into_iter().map(|n| {
                let id = ids(kind, &n);
                if let (Some(id), Some((place, _))) = (&id, &n.written_id)
                    && !id.contains("${")
                    && !well_formed(kind, id)
                {
                    let form = match kind {
                        Kind::Role => "AROA and 17 capital letters or digits".to_owned(),
                        _ => format!("`{}-` and 17 (or 8) hexadecimal digits", kind.id_prefix()),
                    };
                    problems.error(
                        Found::at(*place, format!("{} {}: `{id}` is no id of a {}", kind.word(), n.path, kind.word()))
                            .code(kind.malformed())
                            .help(format!("AWS's form is {form}")),
                    );
                }
                Named { id: id.unwrap_or_else(|| n.id.clone()), ..n }
            });
            let list: Vec<Named> = list.collect();
            let mut seen: HashMap<&str, &Named> = HashMap::new();
            for n in &list {
                if let Some(first) = seen.insert(&n.id, n).filter(|first| first.path != n.path) {
                    let place = n.written_id.as_ref().map_or(n.place, |(p, _)| *p);
                    problems.error(
                        Found::at(place, format!("{} {} has the id of {}: {}", kind.word(), n.path, first.path, n.id))
                            .also(first.place, "the other one"),
                    );
                }
            }
            drop(seen);
            self.by_id.extend(list.iter().enumerate().map(|(at, n)| ((kind, n.id.clone()), at)));
            self.lists.insert(kind, list);
        }
    }

    /// Every id, to know those that belong to something.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.lists.values().flatten().map(|n| n.id.as_str())
    }
}

fn entries<'n>(node: &'n Node, key: &str) -> &'n [Entry] {
    node.get(key).map(Node::entries).unwrap_or_default()
}

impl Fields<'_> {
    /// Resolves a reference, or notes why it leads nowhere.
    pub fn reference(&self, kind: Kind, scope: Option<usize>, text: At<&str>) -> Option<usize> {
        match self.cx.names.resolve(kind, scope, text.value) {
            Ok(at) => Some(at),
            Err((message, help)) => {
                let mut found = self.error(text.place, &message).maybe_help(help);
                if message.starts_with("there is no") {
                    found = found.code(kind.not_found());
                }
                self.cx.error(found);
                None
            }
        }
    }

    /// A reference to something of the same VPC.
    pub fn reference_within(&self, kind: Kind, vpc: usize, text: At<&str>, code: &'static str) -> Option<usize> {
        let at = self.reference(kind, Some(vpc), text)?;
        let named = self.cx.names.get(kind, at);
        if named.vpc == Some(vpc) {
            return Some(at);
        }
        let own = &self.cx.names.get(Kind::Vpc, vpc).name;
        let message = format!("{} {} belongs to another VPC than {own}", kind.word(), named.path);
        self.cx.error(self.error(text.place, message).code(code).also(named.place, "it is here"));
        None
    }

    /// An account, by name or as 12 digits.
    pub fn account(&self, key: &str) -> Option<String> {
        let t = self.text(key)?;
        if let Some(number) = self.cx.names.accounts.get(t.value) {
            return Some(number.clone());
        }
        if is_account(t.value) {
            return Some(t.value.to_owned());
        }
        let help = did_you_mean(t.value, self.cx.names.accounts.keys().map(String::as_str))
            .or_else(|| Some("a name of `accounts`, or 12 digits".into()));
        self.cx.error(self.error(t.place, format!("there is no account `{}`", t.value)).maybe_help(help));
        None
    }
}

/// 12 digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`.
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn check_name(kind: Kind, e: &Entry, problems: &Problems) {
    if is_name(&e.key) {
        return;
    }
    let fixed: String =
        e.key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(63).collect();
    let fixed = fixed.trim_start_matches(['-', '_']).to_owned();
    let help = if fixed.is_empty() {
        None
    } else if kind == Kind::Endpoint && e.key.contains('.') {
        Some(format!("write `{fixed}: {{ service: {} }}`", e.key))
    } else {
        Some(format!("for example `{fixed}`"))
    };
    let message = format!("`{}` is no name: letters, digits, `-` and `_`, at most 63, a letter or digit first", e.key);
    problems.error(Found::at(e.key_place, message).maybe_help(help));
}

/// A table that is the VPC's main one by name or by key.
pub fn is_main(name: &str, node: &Node) -> bool {
    name == "main" || node.get("main").and_then(Node::text) == Some("true")
}

/// More than one instance of a kind.
pub fn count_of(node: &Node) -> Option<usize> {
    let n: usize = node.get("count")?.text()?.parse().ok()?;
    (2..=1_000).contains(&n).then_some(n)
}

fn well_formed(kind: Kind, id: &str) -> bool {
    if kind == Kind::Role {
        return id.len() == 21
            && id.starts_with("AROA")
            && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    }
    let digits = id.strip_prefix(kind.id_prefix()).and_then(|r| r.strip_prefix('-'));
    digits.is_some_and(|d| {
        matches!(d.len(), 8 | 17) && d.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}
