//! VPCs: address blocks, region and zones, DNS attributes; and what stands in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::routes::TableRead;
use super::service::ServicesWritten;
use super::{Draft, common, endpoint, gateways, instance, nacl, prefix_list, routes, security_group, subnet};
use crate::base::Cidr;
use crate::model::catalogue::{self, Region};
use crate::model::plan::VpcPlan;
use crate::model::spec::fields::{At, Cx, Fields, parse_cidr};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::{Entry, Value};
use crate::model::spec::report::{Found, did_you_mean};

/// What subnets, instances and endpoints need of the VPC they stand in.
pub struct VpcFacts {
    pub index: usize,
    pub region: Region,
    pub cidrs: Vec<At<Cidr>>,
    /// Letter to zone id.
    pub zones: BTreeMap<char, String>,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    pub account: String,
}

/// Reads one VPC and everything in it; hands back its route tables, whose routes need the ENIs of all.
pub fn read<'a>(
    cx: &'a Cx<'a>,
    entry: &'a Entry,
    index: usize,
    services: &ServicesWritten<'a>,
    draft: &mut Draft,
) -> Vec<TableRead<'a>> {
    let Some(f) = Fields::open(cx, &keys::VPC, format!("VPC {}", entry.key), entry) else { return Vec::new() };
    let common = common(&f, Kind::Vpc, index);
    let cidrs = cidrs(&f);
    let region = region(&f, "region").unwrap_or_else(|| default_region(cx));
    let zones = zones(&f, region);
    let facts = VpcFacts {
        index,
        region,
        cidrs,
        zones,
        dns_support: f.bool("dns_support").is_none_or(|b| b.value),
        dns_hostnames: f.bool("dns_hostnames").map_or(!cx.aws_defaults, |b| b.value),
        account: f.account("account").unwrap_or_else(|| cx.default_account.clone()),
    };
    prefix_list::read(cx, &f, Some(index), draft);
    let tables = routes::declare(cx, &f, index);
    gateways::edges(cx, &f, index, &tables, draft);
    subnet::read(cx, &f, &facts, &tables, draft);
    nacl::read(cx, &f, index, draft);
    security_group::read(cx, &f, index, facts.region.name, draft);
    instance::read(cx, &f, &facts, draft);
    endpoint::read(cx, &f, &facts, services, draft);
    gateways::nats(cx, &f, index, draft);
    draft.vpcs[index] = Some(VpcPlan {
        common,
        cidrs: facts.cidrs.iter().map(|c| c.value).collect(),
        region: facts.region.name.to_owned(),
        account: facts.account,
        dns_support: facts.dns_support,
        dns_hostnames: facts.dns_hostnames,
        main_route_table: routes::main_of(&tables).unwrap_or_default(),
        default_nacl: cx.names.index(Kind::Nacl, index, "default").unwrap_or_default(),
        default_security_group: cx.names.index(Kind::SecurityGroup, index, "default").unwrap_or_default(),
    });
    f.done();
    tables
}

/// The topology's region, where it is a known one.
pub fn default_region(cx: &Cx<'_>) -> Region {
    catalogue::region(&cx.region).unwrap_or(Region { name: "eu-west-1", zones: 3 })
}

/// A region key, looked up.
pub fn region(f: &Fields<'_>, key: &str) -> Option<Region> {
    let t = f.text(key)?;
    let known = catalogue::region(t.value);
    if known.is_none() {
        f.cx.error(region_problem(f.error(t.place, region_message(t.value)), t.value));
    }
    known
}

/// Why a region is refused.
pub fn region_message(name: &str) -> String {
    if ["cn-", "us-gov-", "us-iso", "eusc-", "eu-isoe-"].iter().any(|p| name.starts_with(p)) {
        format!("the region {name} is of another partition: not in this version")
    } else {
        format!("there is no region `{name}`")
    }
}

pub fn region_problem(found: Found, name: &str) -> Found {
    let near = did_you_mean(name, catalogue::regions().map(|r| r.name));
    found.code("InvalidParameterValue").maybe_help(near)
}

/// One block or a list, whatever the blocks are.
pub fn blocks(f: &Fields<'_>, key: &str) -> Vec<At<Cidr>> {
    texts(f, key).into_iter().filter_map(|t| parse_cidr(f, t, true)).collect()
}

fn texts<'a>(f: &Fields<'a>, key: &str) -> Vec<At<&'a str>> {
    match f.entry(key).map(|entry| &entry.node.value) {
        None => Vec::new(),
        Some(Value::List(_)) => f.texts(key).unwrap_or_default(),
        Some(_) => f.text(key).into_iter().collect(),
    }
}

/// One block or a list (VPC User Guide, "VPC CIDR blocks").
fn cidrs(f: &Fields<'_>) -> Vec<At<Cidr>> {
    let Some(entry) = f.entry("cidr") else { return Vec::new() };
    let texts = texts(f, "cidr");
    if texts.is_empty() && matches!(entry.node.value, Value::List(_)) {
        f.cx.error(f.error(entry.place(), "a VPC has at least one block").code("MissingParameter"));
    }
    // 5 are the default quota, 50 the most that AWS grants.
    if texts.len() > 50 {
        f.cx.error(f.error(entry.place(), "more than 50 blocks").code("CidrLimitExceeded"));
    }
    let mut blocks: Vec<At<Cidr>> = Vec::new();
    for t in texts {
        let Some(block) = parse_cidr(f, t, true) else { continue };
        if let Some(problem) = refused_block(block.value, blocks.first().map(|b| b.value)) {
            f.cx.error(
                f.error(t.place, format!("the CIDR {} is invalid: {problem}", block.value)).code("InvalidVpc.Range"),
            );
            continue;
        }
        if let Some(other) = blocks.iter().find(|b| b.value.overlaps(block.value)) {
            let message = format!("the CIDR {} overlaps {} of the same VPC", block.value, other.value);
            f.cx.error(f.error(t.place, message).code("InvalidVpc.Range").also(other.place, "the other block"));
            continue;
        }
        let public: Cidr = Cidr::containing(Ipv4Addr::new(198, 18, 0, 0), 15);
        if block.value.overlaps(public) {
            let message =
                format!("{} covers addresses of {public}, which stand for AWS's public side here", block.value);
            f.cx.warning(f.error(t.place, message).help("from this VPC those public addresses cannot be reached"));
        }
        blocks.push(block);
    }
    blocks
}

/// Why AWS takes no such block.
fn refused_block(block: Cidr, primary: Option<Cidr>) -> Option<String> {
    if !(16..=28).contains(&block.len()) {
        return Some("a VPC's block is /16 to /28".into());
    }
    let fixed = |a, b, len| Cidr::containing(Ipv4Addr::new(a, b, 0, 0), len);
    for (range, what) in [
        (fixed(0, 0, 8), "this network"),
        (fixed(127, 0, 8), "loopback"),
        (fixed(169, 254, 16), "link-local"),
        (fixed(224, 0, 4), "multicast"),
        (fixed(240, 0, 4), "reserved"),
    ] {
        if range.overlaps(block) {
            return Some(format!("{range} is {what}"));
        }
    }
    let primary = primary?;
    let private = [fixed(10, 0, 8), fixed(172, 16, 12), fixed(192, 168, 16), fixed(198, 19, 16)];
    let family = |c: Cidr| private.iter().find(|p| p.overlaps(c));
    match (family(primary), family(block)) {
        (Some(a), Some(b)) if a != b => {
            Some(format!("it is restricted: {b} cannot be added to a VPC of {a}; use the same private range"))
        }
        (None, Some(b)) => Some(format!("it is restricted: {b} cannot be added to a VPC of public addresses")),
        _ => None,
    }
}

/// Letters and their zone ids: as mapped, and the others in order.
fn zones(f: &Fields<'_>, region: Region) -> BTreeMap<char, String> {
    let mut zones: BTreeMap<char, String> = BTreeMap::new();
    for (letter, id) in f.text_map("availability_zones") {
        let mut letters = letter.value.chars();
        let (Some(l @ 'a'..='z'), None) = (letters.next(), letters.next()) else {
            f.cx.error(f.error(letter.place, format!("`{}` is no zone letter: a to z", letter.value)));
            continue;
        };
        let number = id.value.strip_prefix(&region.short()).and_then(|r| r.strip_prefix("-az"));
        if !number.is_some_and(|n| n.parse::<u8>().is_ok_and(|v| v > 0 && v.to_string() == n)) {
            let message = format!("`{}` is no zone id of {}", id.value, region.name);
            f.cx.error(f.error(id.place, message).help(format!("for example {}", region.zone_id(l))));
            continue;
        }
        if let Some((other, _)) = zones.iter().find(|(_, v)| *v == id.value) {
            f.cx.error(f.error(id.place, format!("the zones {other} and {l} have one id: {}", id.value)));
            continue;
        }
        zones.insert(l, id.value.to_owned());
    }
    let mut free = ('a'..='z').map(|l| region.zone_id(l));
    for letter in ('a'..='z').take(region.zones.into()) {
        if !zones.contains_key(&letter)
            && let Some(id) = free.find(|id| !zones.values().any(|v| v == id))
        {
            zones.insert(letter, id);
        }
    }
    zones
}
