//! Network ACLs: numbered rules, in order; what matches none is denied.

use super::{Draft, common, implied, implied_of};
use crate::base::Cidr;
use crate::model::plan::{NaclPlan, NaclRule, TrafficMatch};
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::rule::{Peer, Way, nacl_rules};

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, vpc_index: usize, draft: &mut Draft) {
    let vpc_name = &cx.names.get(Kind::Vpc, vpc_index).name;
    for e in vpc.named("network_acls") {
        let Some(index) = cx.names.index(Kind::Nacl, vpc_index, &e.key) else { continue };
        let title = format!("network ACL {vpc_name}.{}", e.key);
        let Some(f) = Fields::open(cx, &keys::NETWORK_ACL, title, e) else { continue };
        draft.network_acls[index] = Some(NaclPlan {
            common: common(&f, Kind::Nacl, index),
            vpc: vpc_index,
            default: e.key == "default",
            ingress: direction(&f, Way::Ingress),
            egress: direction(&f, Way::Egress),
        });
        f.done();
    }
    if let Some(index) = implied_of(cx, Kind::Nacl, vpc_index) {
        draft.network_acls[index] = Some(NaclPlan {
            common: implied(cx, Kind::Nacl, index),
            vpc: vpc_index,
            default: true,
            ingress: vec![allow_all(Way::Ingress)],
            egress: vec![allow_all(Way::Egress)],
        });
    }
}

/// Rule 100 of a VPC's default NACL (VPC User Guide, "Default network ACL").
fn allow_all(way: Way) -> NaclRule {
    NaclRule {
        number: 100,
        allow: true,
        matches: TrafficMatch::ALL,
        peer: Cidr::ANY,
        text: format!("100 allow all {} {}", way.word(), Cidr::ANY),
    }
}

fn direction(f: &Fields<'_>, way: Way) -> Vec<NaclRule> {
    let written = nacl_rules(f, way);
    // 20 are the default quota, 40 the most that AWS grants.
    if written.len() > 40 {
        let found = f.error(f.key_place(way.key()), format!("more than 40 {} rules", way.key()));
        f.cx.error(found.code("NetworkAclEntryLimitExceeded"));
    }
    let mut rules: Vec<NaclRule> = written
        .into_iter()
        .filter_map(|(number, allow, rule)| {
            let Peer::Cidr(peer) = rule.peer else { return None };
            let verb = if allow { "allow" } else { "deny" };
            let text = format!("{} {verb} {}", number.value, rule.text);
            Some(NaclRule { number: number.value, allow, matches: rule.matches, peer, text })
        })
        .collect();
    rules.sort_by_key(|r| r.number);
    rules
}
