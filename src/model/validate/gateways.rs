//! What stands at a VPC's edge: Internet gateways, public addresses, NAT gateways, virtual private gateways; and the
//! door of AWS's public side.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::routes::TableRead;
use super::{Draft, common};
use crate::base::EniIx;
use crate::base::ids::aws_id;
use crate::model::plan::{Common, EniOwner, Home, InternetGatewayPlan, NatGatewayPlan, PublicAddressPlan, VgwPlan};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::{Kind, is_name};
use crate::model::spec::node::Value;
use crate::model::spec::public_ip;
use crate::model::spec::report::Found;
use crate::model::spec::source::Place;

/// AWS's most addresses of one NAT gateway.
const MOST_NAT_ADDRESSES: usize = 8;

/// Something that is to have a public address.
pub struct WantsPublic {
    pub owner: PublicOwner,
    /// The Elastic IP that was named, by the names table.
    pub eip: Option<usize>,
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
    let of = |kind: Kind, word: &str| {
        let own = cx.names.index(kind, index, word).map(|at| cx.names.get(kind, at));
        Common {
            name: format!("{}-{word}", named.name),
            path: format!("{}.{word}", named.name),
            id: own.map(|own| own.id.clone()).unwrap_or_default(),
            ..Common::default()
        }
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
        draft.internet_gateways.push(InternetGatewayPlan {
            common: of(Kind::InternetGateway, "igw"),
            vpc: index,
            edge_table: igw_table,
        });
    }
    if vgw {
        draft.vgws.push(VgwPlan { common: of(Kind::Vgw, "vgw"), vpc: index, links: Vec::new(), edge_table: vgw_table });
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
            cx.error(found.code("InvalidParameterCombination").help("leave `eip` out, or `public: false`"));
        }
        if public && draft.igw_of(vpc_index).is_none() {
            let message = format!("Network {} has no Internet gateway attached", vpc_named.id);
            let found = f.error(f.place, message).code("Gateway.NotAttached").also(vpc_named.place, "the VPC");
            cx.error(found.help("`internet_gateway: true` at the VPC, or `public: false` here"));
        }
        if public {
            let count = eips.len().max(1);
            for n in 0..count {
                let eip = eips.get(n).map(|t| t.value);
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
fn elastic_ips(f: &Fields<'_>) -> Vec<At<usize>> {
    let Some(entry) = f.entry("eip") else { return Vec::new() };
    let names: Vec<At<&str>> = match &entry.node.value {
        Value::List(_) => f.texts("eip").unwrap_or_default(),
        _ => f.text("eip").into_iter().collect(),
    };
    if names.is_empty() {
        f.cx.error(f.error(entry.place(), "a public NAT gateway has at least one address: leave `eip` out for one"));
    }
    if names.len() > MOST_NAT_ADDRESSES {
        let message = format!("more than {MOST_NAT_ADDRESSES} addresses on one NAT gateway");
        f.cx.error(f.error(entry.place(), message).code("PrivateIpAddressLimitExceeded"));
    }
    names.into_iter().filter_map(|t| elastic_ip(f, t)).collect()
}

/// An Elastic IP is there because it is named.
fn elastic_ip(f: &Fields<'_>, t: At<&str>) -> Option<At<usize>> {
    let name = t.value.strip_prefix("eip:").unwrap_or(t.value);
    match f.cx.names.at_path(Kind::ElasticIp, name).filter(|_| is_name(name)) {
        Some(value) => Some(At { value, place: t.place }),
        None => {
            let message = format!("`{name}` is no name of an Elastic IP: letters, digits, `-` and `_`, at most 63");
            f.cx.error(f.error(t.place, message));
            None
        }
    }
}

/// `public_ip` of an instance: an address from AWS's pool or an Elastic IP for its `eth0`, or none.
pub fn public_ip(f: &Fields<'_>, vpc: usize, instance: usize, counted: bool, draft: &mut Draft) {
    // Its interfaces were the last to be read, eth0 first of them.
    let own: Vec<&EniDraft> = draft.eni_drafts.iter().rev().take_while(|d| is_of(d, instance)).collect();
    let (several, subnet) = (own.len() > 1, own.last().and_then(|d| d.subnet));
    let gateway = draft.igw_of(vpc).is_some();
    let mut wants = |eip: Option<usize>, place| {
        draft.wants_public.push(WantsPublic { owner: PublicOwner::Instance(instance), eip, place });
    };
    let Some(t) = f.text("public_ip") else {
        // Not with several interfaces (EC2 User Guide, "Public IPv4 addresses").
        if !several && subnet.is_some_and(|at| draft.public_subnets.contains(&at)) {
            wants(None, f.place);
        }
        return;
    };
    let refuse = |message: String, code| f.cx.error(f.error(t.place, message).code(code));
    match t.value {
        "false" => {}
        "true" if several => {
            let message = "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces";
            let found = f.error(t.place, message).code("InvalidParameterCombination");
            f.cx.error(found.help("`public_ip: \"eip:NAME\"` gives eth0 an Elastic IP"));
        }
        "true" => {
            if !gateway {
                let found = f.error(t.place, "its public address leads nowhere: the VPC has no Internet gateway");
                f.cx.warning(found.help("`internet_gateway: true` at the VPC"));
            }
            wants(None, t.place);
        }
        text if text.starts_with("eip:") => {
            let vpc = f.cx.names.get(Kind::Vpc, vpc);
            if counted {
                let message =
                    "one Elastic IP for several instances: `public_ip: eip:NAME` and `count` exclude each other";
                refuse(message.to_owned(), "InvalidParameterCombination");
            } else if !gateway {
                let message = format!("Network {} is not attached to any internet gateway", vpc.id);
                let found = f.error(t.place, message).code("Gateway.NotAttached").also(vpc.place, "the VPC");
                f.cx.error(found.help("`internet_gateway: true` at the VPC"));
            } else if let Some(eip) = elastic_ip(f, t) {
                wants(Some(eip.value), t.place);
            }
        }
        other => {
            let found = f.error(t.place, format!("`public_ip` cannot be `{other}`"));
            f.cx.error(found.help("true, false, or `eip:NAME`"));
        }
    }
}

fn is_of(d: &EniDraft, instance: usize) -> bool {
    matches!(d.owner, EniOwner::Instance(at, _) if at == instance)
}

/// Where every public service address ends.
pub fn public_side(lab: &str, draft: &mut Draft) {
    draft.eni_drafts.push(door("public", "public", lab, EniOwner::PublicSide, Place::default()));
}

/// An interface that stands for addresses of its own; `of` is the id of what it belongs to.
pub fn door(name: &str, path: &str, of: &str, owner: EniOwner, place: Place) -> EniDraft {
    EniDraft {
        common: Common {
            name: name.to_owned(),
            path: path.to_owned(),
            id: aws_id("eni", of, "door"),
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
    let wanted = draft.wants_public.iter().filter_map(|want| match want.owner {
        PublicOwner::Nat(nat, n) if n > 0 => Some((nat, want.place)),
        _ => None,
    });
    // More are refused for their public addresses.
    let wanted: Vec<(usize, Place)> = wanted.take(public_ip::BLOCK.size() as usize).collect();
    for (nat, place) in wanted {
        let Some(subnet) = draft.nat_gateways[nat].as_ref().map(|n| n.subnet) else { continue };
        let Some(cidr) = draft.subnets.get(subnet).and_then(|s| s.as_ref()).map(|s| s.cidr) else { continue };
        let mut taken: BTreeSet<Ipv4Addr> =
            draft.enis.iter().filter(|eni| eni.subnet() == Some(subnet)).map(|eni| eni.ip).collect();
        taken.extend(draft.nat_gateways.iter().flatten().filter(|n| n.subnet == subnet).flat_map(|n| &n.addresses));
        let free = (4..).map_while(|n| cidr.nth(n)).find(|ip| !taken.contains(ip) && *ip != cidr.last());
        match (free, &mut draft.nat_gateways[nat]) {
            (Some(ip), Some(nat)) => nat.addresses.push(ip),
            _ => {
                let (nat, subnet) = (cx.names.get(Kind::Nat, nat), cx.names.get(Kind::Subnet, subnet));
                let message =
                    format!("NAT gateway {}: subnet {} ({cidr}) has no free address left", nat.path, subnet.path);
                let found = Found::at(place, message).code("InsufficientFreeAddressesInSubnet");
                cx.error(found.help("each Elastic IP stands for a private address of its own"));
            }
        }
    }
}

/// Gives everybody who wants one a public address, the same in every run: Elastic IPs first, which texts may name.
pub fn public_addresses(cx: &Cx<'_>, draft: &mut Draft) -> Vec<PublicAddressPlan> {
    let wants: Vec<Granted> =
        std::mem::take(&mut draft.wants_public).into_iter().filter_map(|want| granted(cx, draft, want)).collect();
    let elastic = public_ip::elastic(&cx.names);
    let taken: BTreeSet<Ipv4Addr> = elastic.values().copied().collect();
    let others = wants.iter().filter(|want| want.eip.is_none()).map(|want| want.path.clone());
    let others = public_ip::assign(others, &taken);
    let mut used: HashMap<usize, (String, Place)> = HashMap::new();
    let mut addresses = Vec::new();
    let mut full = false;
    for want in wants {
        let named = want.eip.map(|eip| cx.names.get(Kind::ElasticIp, eip));
        if let (Some(eip), Some(named)) = (want.eip, named) {
            if let Some((owner, first)) = used.get(&eip) {
                let message = format!(
                    "{}: Elastic IP address {} is already associated: {} is with {owner}",
                    want.owner, named.id, named.name
                );
                cx.error(Found::at(want.place, message).code("Resource.AlreadyAssociated").also(*first, "in use here"));
                continue;
            }
            used.insert(eip, (want.owner.clone(), want.place));
        }
        let addr = named.map_or_else(|| others.get(&want.path), |named| elastic.get(&named.path));
        let Some(&addr) = addr else {
            if !std::mem::replace(&mut full, true) {
                let message = format!("{}: {} has no public address left", want.owner, public_ip::BLOCK);
                cx.error(Found::at(want.place, message).code("AddressLimitExceeded"));
            }
            continue;
        };
        let common = match named {
            Some(named) => {
                Common { name: named.name.clone(), path: named.path.clone(), id: named.id.clone(), ..Common::default() }
            }
            None => Common {
                name: want.name,
                id: aws_id("eipalloc", &want.id, &want.path),
                path: want.path,
                ..Common::default()
            },
        };
        addresses.push(PublicAddressPlan { common, addr, eni: want.eni, private: want.private, elastic: want.elastic });
    }
    addresses
}

/// Who gets a public address.
struct Granted {
    eip: Option<usize>,
    place: Place,
    /// For messages: `NAT gateway app.nat-a`.
    owner: String,
    name: String,
    path: String,
    id: String,
    eni: EniIx,
    private: Ipv4Addr,
    elastic: bool,
}

/// Nothing where the owner or its address was refused.
fn granted(cx: &Cx<'_>, draft: &Draft, want: WantsPublic) -> Option<Granted> {
    let WantsPublic { owner, eip, place } = want;
    Some(match owner {
        PublicOwner::Instance(at) => {
            let eni = *draft.instances[at].as_ref()?.enis.first()?;
            let plan = &draft.enis[eni.at()];
            let named = cx.names.get(Kind::Instance, at);
            Granted {
                eip,
                place,
                owner: format!("instance {}", named.path),
                name: plan.common.name.clone(),
                path: plan.common.path.clone(),
                id: plan.common.id.clone(),
                eni,
                private: plan.ip,
                elastic: eip.is_some(),
            }
        }
        PublicOwner::Nat(at, n) => {
            let nat = draft.nat_gateways[at].as_ref()?;
            Granted {
                eip,
                place,
                owner: format!("NAT gateway {}", nat.common.path),
                name: nat.common.name.clone(),
                path: nat.common.path.clone(),
                id: nat.common.id.clone(),
                eni: nat.eni,
                private: *nat.addresses.get(n)?,
                elastic: true,
            }
        }
    })
}
