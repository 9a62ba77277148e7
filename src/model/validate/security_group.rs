//! Security groups: rules that allow, joined over all groups of an ENI.

use std::collections::HashMap;

use super::{Draft, common, implied, implied_of};
use crate::base::Cidr;
use crate::base::ids::aws_id;
use crate::model::plan::{SecurityGroupPlan, SgPeer, SgRule, TrafficMatch};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::rule::{Peer, Way, sg_rules};

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, vpc_index: usize, draft: &mut Draft) {
    let vpc_name = &cx.names.get(Kind::Vpc, vpc_index).name;
    for e in vpc.named("security_groups") {
        let Some(index) = cx.names.index(Kind::SecurityGroup, vpc_index, &e.key) else { continue };
        let title = format!("security group {vpc_name}.{}", e.key);
        let Some(f) = Fields::open(cx, &keys::SECURITY_GROUP, title, e) else { continue };
        if e.key.starts_with("sg-") {
            let found = f.error(e.key_place, "a group's name cannot begin with sg-");
            cx.error(found.code("InvalidParameterValue"));
        }
        let default = e.key == "default";
        draft.security_groups[index] = Some(SecurityGroupPlan {
            common: common(&f, Kind::SecurityGroup, index),
            vpc: vpc_index,
            ingress: direction(&f, vpc_index, index, Way::Ingress)
                .unwrap_or_else(|| if default { vec![from_self(cx, index)] } else { Vec::new() }),
            egress: direction(&f, vpc_index, index, Way::Egress).unwrap_or_else(|| vec![to_all(cx, index)]),
        });
        f.done();
    }
    if let Some(index) = implied_of(cx, Kind::SecurityGroup, vpc_index) {
        draft.security_groups[index] = Some(SecurityGroupPlan {
            common: implied(cx, Kind::SecurityGroup, index),
            vpc: vpc_index,
            ingress: vec![from_self(cx, index)],
            egress: vec![to_all(cx, index)],
        });
    }
}

/// Stable as long as the rule says the same, whatever stands before it.
fn rule_id(cx: &Cx<'_>, group: usize, way: Way, text: &str) -> String {
    aws_id("sgr", &cx.names.get(Kind::SecurityGroup, group).id, &format!("{} {text}", way.key()))
}

fn to_all(cx: &Cx<'_>, group: usize) -> SgRule {
    let text = format!("all to {}", Cidr::ANY);
    let id = rule_id(cx, group, Way::Egress, &text);
    SgRule { id, matches: TrafficMatch::ALL, peer: SgPeer::Cidr(Cidr::ANY), text, implied: true }
}

fn from_self(cx: &Cx<'_>, group: usize) -> SgRule {
    let text = "all from self".to_owned();
    let id = rule_id(cx, group, Way::Ingress, &text);
    SgRule { id, matches: TrafficMatch::ALL, peer: SgPeer::Group(group), text, implied: true }
}

fn direction(f: &Fields<'_>, vpc: usize, group: usize, way: Way) -> Option<Vec<SgRule>> {
    let written = sg_rules(f, way)?;
    // 60 are the default quota; rules times groups of an ENI never go over 1,000.
    if written.len() > 1_000 {
        let found = f.error(f.key_place(way.key()), format!("more than 1,000 {} rules", way.key()));
        f.cx.error(found.code("RulesPerSecurityGroupLimitExceeded"));
        return Some(Vec::new());
    }
    let mut rules: Vec<SgRule> = Vec::new();
    let mut seen = HashMap::new();
    for w in written {
        let peer = match &w.peer {
            Peer::Cidr(c) => SgPeer::Cidr(*c),
            Peer::Own => SgPeer::Group(group),
            Peer::Group(name, place) => {
                let text = At { value: name.as_str(), place: *place };
                // Groups of other VPCs can be named over peerings and transit gateways only.
                match f.reference_within(Kind::SecurityGroup, vpc, text, "InvalidGroup.NotFound") {
                    Some(g) => SgPeer::Group(g),
                    None => continue,
                }
            }
        };
        if let Some(first) = seen.insert((w.matches_key(), peer_key(peer)), w.place) {
            let found = f.error(w.place, format!("the rule `{}` already exists", w.text));
            f.cx.error(found.code("InvalidPermission.Duplicate").also(first, "here"));
            continue;
        }
        let id = rule_id(f.cx, group, way, &w.text);
        rules.push(SgRule { id, matches: w.matches, peer, text: w.text, implied: false });
    }
    Some(rules)
}

fn peer_key(peer: SgPeer) -> (Option<Cidr>, usize) {
    match peer {
        SgPeer::Cidr(c) => (Some(c), 0),
        SgPeer::Group(g) => (None, g),
        SgPeer::PrefixList(p) => (None, usize::MAX - p),
    }
}

impl crate::model::spec::rule::Written {
    /// What makes two rules the same, beside the peer.
    fn matches_key(&self) -> String {
        crate::model::spec::rule::match_text(self.matches)
    }
}
