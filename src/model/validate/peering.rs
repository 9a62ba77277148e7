//! Peering connections: two VPCs whose blocks do not meet (VPC peering guide).

use std::collections::HashMap;

use super::{Draft, common};
use crate::model::plan::PeeringPlan;
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;

pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    let mut seen = HashMap::new();
    for e in top.named("peerings") {
        let Some(index) = cx.names.at_path(Kind::Peering, &e.key) else { continue };
        let Some(f) = Fields::open(cx, &keys::PEERING, format!("peering {}", e.key), e) else { continue };
        let common = common(&f, Kind::Peering, index);
        let end = |key: &str| f.text(key).and_then(|t| f.reference(Kind::Vpc, None, t));
        let (requester, accepter) = (end("requester"), end("accepter"));
        let dns = f.bool("dns").is_some_and(|b| b.value);
        if let (Some(a), Some(b)) = (requester, accepter) {
            let (va, vb) = (cx.names.get(Kind::Vpc, a), cx.names.get(Kind::Vpc, b));
            if a == b {
                let message = format!("requester and accepter are both {}", va.name);
                cx.error(f.error(f.key_place("accepter"), message).code("InvalidParameterValue"));
            } else if let Some(first) = seen.insert((a.min(b), a.max(b)), f.place) {
                let message = format!("{} and {} are peered already", va.name, vb.name);
                cx.error(f.error(f.place, message).code("VpcPeeringConnectionAlreadyExists").also(first, "here"));
            }
            if let (Some(pa), Some(pb)) = (&draft.vpcs[a], &draft.vpcs[b]) {
                let meet = pa.cidrs.iter().find_map(|x| pb.cidrs.iter().find(|y| x.overlaps(**y)).map(|y| (*x, *y)));
                if let Some((x, y)) = meet.filter(|_| a != b) {
                    let message = format!(
                        "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range: {} has {x}, {} has {y}",
                        va.name, vb.name
                    );
                    let found = f.error(f.place, message).code("PEER_OVERLAP");
                    let found = found.also(va.place, va.name.as_str()).also(vb.place, vb.name.as_str());
                    cx.error(found.help("overlapping VPCs are joined by an endpoint service, not by a peering"));
                }
                let nameless = [(pa, va), (pb, vb)].into_iter().find(|(vpc, _)| !vpc.dns_support || !vpc.dns_hostnames);
                if let Some((_, named)) = nameless.filter(|_| dns) {
                    let message = format!(
                        "To enable DNS hostname resolution for the VPC peering connection, DNS hostname support must be enabled for the VPCs: it is not for {}",
                        named.name
                    );
                    let found = f.error(f.key_place("dns"), message);
                    let found = found.code("InvalidVpcPeeringConnectionState.DnsHostnamesDisabled");
                    cx.error(
                        found.also(named.place, "the VPC").help("`dns_support: true, dns_hostnames: true` at both"),
                    );
                }
                draft.peerings[index] =
                    Some(PeeringPlan { common, requester: a, accepter: b, dns, same_region: pa.region == pb.region });
            }
        }
        f.done();
    }
}
