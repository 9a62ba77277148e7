//! Subnets: blocks inside the VPC's that do not meet, each in one zone.

use super::routes::{TableRead, main_of};
use super::vpc::VpcFacts;
use super::{Draft, common, place_of};
use crate::model::plan::SubnetPlan;
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, facts: &VpcFacts, tables: &[TableRead<'a>], draft: &mut Draft) {
    let vpc_name = &cx.names.get(Kind::Vpc, facts.index).name;
    let mut read = Vec::new();
    for e in vpc.named("subnets") {
        let Some(index) = cx.names.index(Kind::Subnet, facts.index, &e.key) else { continue };
        let Some(f) = Fields::open(cx, &keys::SUBNET, format!("subnet {vpc_name}.{}", e.key), e) else { continue };
        let common = common(&f, Kind::Subnet, index);
        let cidr = f.cidr("cidr", true);
        let az = zone(&f, facts);
        let route_table = match f.text("route_table") {
            Some(t) => f.reference_within(Kind::RouteTable, facts.index, t, "InvalidParameterValue"),
            None => main_of(tables),
        };
        let nacl = match f.text("nacl") {
            Some(t) => f.reference_within(Kind::Nacl, facts.index, t, "InvalidParameterValue"),
            None => cx.names.index(Kind::Nacl, facts.index, "default"),
        };
        if let Some(c) = cidr {
            if !(16..=28).contains(&c.value.len()) {
                let message = format!("the CIDR {} is invalid: a subnet's block is /16 to /28", c.value);
                cx.error(f.error(c.place, message).code("InvalidSubnet.Range"));
            } else if !facts.cidrs.is_empty() && !facts.cidrs.iter().any(|v| v.value.covers(c.value)) {
                let blocks: Vec<String> = facts.cidrs.iter().map(|v| v.value.to_string()).collect();
                let message =
                    format!("the CIDR {} is invalid: it is not within VPC {vpc_name} ({})", c.value, blocks.join(", "));
                let found = f.error(c.place, message).code("InvalidSubnet.Range");
                cx.error(found.also(facts.cidrs[0].place, "the VPC's block"));
            } else {
                read.push((c, index));
            }
        }
        if let Some(public) = f.bool("public_ip").filter(|b| b.value) {
            draft.public_subnets.insert(index);
            if draft.igw_of(facts.index).is_none() {
                let message = "public addresses of its instances lead nowhere: the VPC has no Internet gateway";
                cx.warning(f.error(public.place, message).help("`internet_gateway: true` at the VPC"));
            }
        }
        if let (Some(cidr), Some(az), Some(route_table), Some(nacl)) = (cidr, az, route_table, nacl) {
            draft.subnets[index] = Some(SubnetPlan {
                common,
                vpc: facts.index,
                cidr: cidr.value,
                az,
                az_name: format!("{}{az}", facts.region.name),
                az_id: facts.zones.get(&az).cloned().unwrap_or_default(),
                route_table,
                nacl,
            });
        }
        f.done();
    }
    // Blocks are disjoint or nested, so in order of their first address one that meets another meets the widest
    // so far.
    read.sort_by_key(|(c, _)| c.value);
    let mut widest: Option<usize> = None;
    for n in 0..read.len() {
        let (c, index) = read[n];
        if let Some((other, other_index)) = widest.map(|w| read[w])
            && other.value.overlaps(c.value)
        {
            // The one that stands later in the file is the one that AWS would refuse.
            let ((late, l), (early, e)) = if other.place.start < c.place.start || other.place.file < c.place.file {
                ((c, index), (other, other_index))
            } else {
                ((other, other_index), (c, index))
            };
            let (late_path, early_path) = (&cx.names.get(Kind::Subnet, l).path, &cx.names.get(Kind::Subnet, e).path);
            let message = format!(
                "subnet {late_path}: the CIDR {} conflicts with another subnet: {early_path} ({})",
                late.value, early.value
            );
            cx.error(
                crate::model::spec::report::Found::at(late.place, message)
                    .code("InvalidSubnet.Conflict")
                    .also(early.place, format!("{early_path} is here")),
            );
            continue;
        }
        widest = Some(n);
    }
}

/// A letter, or a zone's whole name.
fn zone(f: &Fields<'_>, facts: &VpcFacts) -> Option<char> {
    let t = f.text("az")?;
    let letters = t.value.strip_prefix(facts.region.name).unwrap_or(t.value);
    let mut chars = letters.chars();
    if let (Some(l), None) = (chars.next(), chars.next())
        && facts.zones.contains_key(&l)
    {
        return Some(l);
    }
    let known: Vec<String> = facts.zones.keys().map(|l| format!("{}{l}", facts.region.name)).collect();
    let message = format!("the availability zone `{}` is invalid", t.value);
    let help = if let Some((l, _)) = facts.zones.iter().find(|(_, id)| *id == t.value) {
        format!("{} is the zone {l} of this VPC: write `az: {l}`", t.value)
    } else {
        format!("subnets can be in {}; `availability_zones` adds letters", known.join(", "))
    };
    f.cx.error(f.error(t.place, message).code("InvalidParameterValue").help(help));
    None
}

/// `subnet app.private-a`, with where it stands, for conflicts.
pub fn label(cx: &Cx<'_>, index: usize) -> (crate::model::spec::source::Place, String) {
    (place_of(cx, Kind::Subnet, index), cx.names.get(Kind::Subnet, index).path.clone())
}
