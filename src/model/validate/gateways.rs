//! What stands at a VPC's edge: Internet gateways, public addresses, NAT gateways, virtual private gateways; and the
//! door of AWS's public side.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::routes::TableRead;
use super::{Draft, common};
use crate::base::ids::{aws_id, stable_hash};
use crate::base::{Cidr, EniIx};
use crate::model::plan::{Common, EniOwner, Home, InternetGatewayPlan, NatGatewayPlan, PublicAddressPlan, VgwPlan};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::Value;
use crate::model::spec::report::Found;
use crate::model::spec::source::Place;

/// AWS's most addresses of one NAT gateway.
const MOST_NAT_ADDRESSES: usize = 8;
/// Public addresses of labs (RFC 5737).
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// Something that is to have a public address.
pub struct WantsPublic {
    pub owner: PublicOwner,
    /// The Elastic IP's name.
    pub eip: Option<String>,
    pub place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PublicOwner {
    /// `eth0` of an instance.
    Instance(usize),
    /// A NAT gateway, and which of its addresses.
    Nat(usize, usize),
}

/// `internet_gateway` and `virtual_private_gateway` of a VPC, with the tables that are associated with them.
pub fn edges(cx: &Cx<'_>, vpc: &Fields<'_>, index: usize, tables: &[TableRead<'_>], draft: &mut Draft) {
    let named = cx.names.get(Kind::Vpc, index);
    let of = |kind: &str| Common {
        name: format!("{}-{kind}", named.name),
        path: format!("{}.{kind}", named.name),
        id: aws_id(kind, &named.id, kind),
        ..Common::default()
    };
    let igw = vpc.bool("internet_gateway").is_some_and(|b| b.value);
    let vgw = vpc.bool("virtual_private_gateway").is_some_and(|b| b.value);
    let edge = |word: &str, there: bool| {
        let mut found: Option<(usize, Place)> = None;
        for table in tables {
            let Some(t) = table.edge(word) else { continue };
            if !there {
                let key = if word == "igw" { "internet_gateway" } else { "virtual_private_gateway" };
                let message = format!("VPC {} has no {word} to be associated with", named.name);
                cx.error(Found::at(t, message).code("Gateway.NotAttached").help(format!("`{key}: true` at the VPC")));
            } else if let Some((_, first)) = found {
                let message = format!("the {word} of VPC {} has a route table already", named.name);
                cx.error(Found::at(t, message).code("Resource.AlreadyAssociated").also(first, "the other one"));
            } else {
                found = Some((table.index(), t));
            }
        }
        found.map(|(table, _)| table)
    };
    let (igw_table, vgw_table) = (edge("igw", igw), edge("vgw", vgw));
    if igw {
        draft.internet_gateways.push(InternetGatewayPlan { common: of("igw"), vpc: index, edge_table: igw_table });
    }
    if vgw {
        draft.vgws.push(VgwPlan { common: of("vgw"), vpc: index, links: Vec::new(), edge_table: vgw_table });
    }
}

/// The NAT gateways of a VPC.
pub fn nats<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, vpc_index: usize, draft: &mut Draft) {
    let vpc_named = cx.names.get(Kind::Vpc, vpc_index);
    for e in vpc.named("nat_gateways") {
        let Some(index) = cx.names.index(Kind::Nat, vpc_index, &e.key) else { continue };
        let title = format!("NAT gateway {}.{}", vpc_named.name, e.key);
        let Some(f) = Fields::open(cx, &keys::NAT_GATEWAY, title, e) else { continue };
        let common = common(&f, Kind::Nat, index);
        let subnet =
            f.text("subnet").and_then(|t| f.reference_within(Kind::Subnet, vpc_index, t, "InvalidSubnetID.NotFound"));
        let public = f.bool("public").is_none_or(|b| b.value);
        let eips = elastic_ips(&f);
        if !public && f.has("eip") {
            let found = f.error(f.key_place("eip"), "a private NAT gateway has no Elastic IP");
            cx.error(found.code("InvalidParameterCombination"));
        }
        if public && !draft.internet_gateways.iter().any(|igw| igw.vpc == vpc_index) {
            let message = format!("Network {} has no Internet gateway attached", vpc_named.id);
            let found = f.error(f.place, message).code("Gateway.NotAttached").also(vpc_named.place, "the VPC");
            cx.error(found.help("`internet_gateway: true` at the VPC, or `public: false` here"));
        }
        if public {
            let count = eips.len().max(1);
            for n in 0..count {
                let eip = eips.get(n).map(|t| t.value.to_owned());
                let place = eips.get(n).map_or(f.place, |t| t.place);
                draft.wants_public.push(WantsPublic { owner: PublicOwner::Nat(index, n), eip, place });
            }
        }
        draft.eni_drafts.push(EniDraft {
            common: Common {
                name: common.name.clone(),
                path: format!("{}/eni", common.path),
                id: aws_id("eni", &common.id, "nat"),
                description: format!("Interface for NAT Gateway {}", common.id),
                tags: Vec::new(),
            },
            vpc: vpc_index,
            subnet,
            outside: None,
            ip: None,
            security_groups: Vec::new(),
            source_dest_check: false,
            owner: EniOwner::NatGateway(index),
            place: f.place,
        });
        draft.nat_gateways[index] = Some(NatGatewayPlan {
            common,
            vpc: vpc_index,
            subnet: subnet.unwrap_or_default(),
            eni: EniIx(0),
            public,
            addresses: Vec::new(),
        });
        f.done();
    }
}

/// One name or a list of them.
fn elastic_ips<'a>(f: &Fields<'a>) -> Vec<At<&'a str>> {
    let Some(entry) = f.entry("eip") else { return Vec::new() };
    let names: Vec<At<&str>> = match &entry.node.value {
        Value::List(_) => f.texts("eip").unwrap_or_default(),
        _ => f.text("eip").into_iter().collect(),
    };
    if names.len() > MOST_NAT_ADDRESSES {
        let message = format!("more than {MOST_NAT_ADDRESSES} addresses on one NAT gateway");
        f.cx.error(f.error(entry.place(), message).code("PrivateIpAddressLimitExceeded"));
    }
    names.into_iter().map(|t| At { value: t.value.strip_prefix("eip:").unwrap_or(t.value), place: t.place }).collect()
}

/// `public_ip` of an instance: whether, and the Elastic IP's name.
pub fn public_ip(f: &Fields<'_>, by_subnet: bool) -> Option<(Option<String>, Place)> {
    let Some(t) = f.text("public_ip") else { return by_subnet.then_some((None, f.place)) };
    match (t.value, t.value.strip_prefix("eip:")) {
        ("true", _) => Some((None, t.place)),
        ("false", _) => None,
        (_, Some(name)) if crate::model::spec::names::is_name(name) => Some((Some(name.to_owned()), t.place)),
        _ => {
            let found = f.error(t.place, format!("`public_ip` cannot be `{}`", t.value));
            f.cx.error(found.help("true, false, or `eip:NAME`"));
            None
        }
    }
}

/// Where every public service address ends.
pub fn public_side(draft: &mut Draft) {
    draft.eni_drafts.push(door("public", "public", EniOwner::PublicSide, Place::default()));
}

/// An interface that stands for addresses of its own.
pub fn door(name: &str, path: &str, owner: EniOwner, place: Place) -> EniDraft {
    EniDraft {
        common: Common {
            name: name.to_owned(),
            path: path.to_owned(),
            id: aws_id("eni", "door", path),
            ..Common::default()
        },
        vpc: 0,
        subnet: None,
        outside: Some((Home::Internet, Ipv4Addr::UNSPECIFIED)),
        ip: None,
        security_groups: Vec::new(),
        source_dest_check: false,
        owner,
        place,
    }
}

/// Each further Elastic IP of a NAT gateway stands for a further private address of its subnet.
pub fn more_nat_addresses(cx: &Cx<'_>, draft: &mut Draft) {
    let wanted: Vec<(usize, usize, Place)> = draft
        .wants_public
        .iter()
        .filter_map(|want| match want.owner {
            PublicOwner::Nat(nat, n) if n > 0 => Some((nat, n, want.place)),
            _ => None,
        })
        .collect();
    for (nat, _, place) in wanted {
        let Some(subnet) = draft.nat_gateways[nat].as_ref().map(|n| n.subnet) else { continue };
        let Some(cidr) = draft.subnets.get(subnet).and_then(|s| s.as_ref()).map(|s| s.cidr) else { continue };
        let mut taken: BTreeSet<Ipv4Addr> =
            draft.enis.iter().filter(|eni| eni.subnet() == Some(subnet)).map(|eni| eni.ip).collect();
        taken.extend(draft.nat_gateways.iter().flatten().filter(|n| n.subnet == subnet).flat_map(|n| &n.addresses));
        let free = (4..).map_while(|n| cidr.nth(n)).find(|ip| !taken.contains(ip) && *ip != cidr.last());
        match (free, &mut draft.nat_gateways[nat]) {
            (Some(ip), Some(nat)) => nat.addresses.push(ip),
            _ => {
                let found = Found::at(place, format!("the subnet {cidr} has no free address left"));
                cx.error(found.code("InsufficientFreeAddressesInSubnet"));
            }
        }
    }
}

/// Gives everybody who wants one a public address, the same in every run.
pub fn public_addresses(cx: &Cx<'_>, draft: &mut Draft) -> Vec<PublicAddressPlan> {
    let mut used: HashMap<String, Place> = HashMap::new();
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    let mut addresses = Vec::new();
    for want in std::mem::take(&mut draft.wants_public) {
        let (common, eni, private) = match want.owner {
            PublicOwner::Instance(at) => {
                let Some(instance) = &draft.instances[at] else { continue };
                let Some(&eni) = instance.enis.first() else { continue };
                (&instance.common, eni, draft.enis[eni.at()].ip)
            }
            PublicOwner::Nat(at, n) => {
                let Some(nat) = &draft.nat_gateways[at] else { continue };
                let Some(&private) = nat.addresses.get(n) else { continue };
                (&nat.common, nat.eni, private)
            }
        };
        let path = match &want.eip {
            Some(name) => format!("eip:{name}"),
            None => format!("{}/public/{private}", common.path),
        };
        if let Some(first) = used.insert(path.clone(), want.place) {
            let message = format!("{}: the Elastic IP {path} is in use already", common.path);
            cx.error(Found::at(want.place, message).code("Resource.AlreadyAssociated").also(first, "in use here"));
            continue;
        }
        let start = stable_hash(&["public", &path]) as u32 % 254;
        let free = (0..254).map(|n| PUBLIC.to_bits() + 1 + (start + n) % 254).find(|addr| !taken.contains(addr));
        let Some(addr) = free else {
            cx.error(Found::at(want.place, "more than 254 public addresses").code("AddressLimitExceeded"));
            break;
        };
        taken.insert(addr);
        addresses.push(PublicAddressPlan {
            common: Common {
                name: want.eip.clone().unwrap_or_else(|| common.name.clone()),
                id: aws_id("eipalloc", &common.id, &path),
                path,
                ..Common::default()
            },
            addr: addr.into(),
            eni,
            private,
            elastic: want.eip.is_some() || matches!(want.owner, PublicOwner::Nat(..)),
        });
    }
    addresses
}

/// The block of all public addresses.
pub fn public_block() -> Cidr {
    Cidr::containing(PUBLIC, 24)
}
