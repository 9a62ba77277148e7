//! Security groups: rules that allow, joined over all groups of an ENI.

use std::collections::HashMap;

use super::{Draft, common, implied, implied_of, prefix_list};
use crate::base::Cidr;
use crate::base::ids::aws_id;
use crate::model::plan::{
    AttachmentTo, PeeringPlan, SecurityGroupPlan, SgPeer, SgRule, TgwAttachmentPlan, TrafficMatch,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::report::Found;
use crate::model::spec::rule::{Peer, Way, sg_rules};
use crate::model::spec::source::Place;

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, vpc_index: usize, region: &str, draft: &mut Draft) {
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
        let ingress = direction(&f, vpc_index, region, index, Way::Ingress, draft)
            .unwrap_or_else(|| if default { vec![from_self(cx, index)] } else { Vec::new() });
        let egress =
            direction(&f, vpc_index, region, index, Way::Egress, draft).unwrap_or_else(|| vec![to_all(cx, index)]);
        let common = common(&f, Kind::SecurityGroup, index);
        draft.security_groups[index] = Some(SecurityGroupPlan { common, vpc: vpc_index, ingress, egress });
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

fn direction(
    f: &Fields<'_>,
    vpc: usize,
    region: &str,
    group: usize,
    way: Way,
    draft: &mut Draft,
) -> Option<Vec<SgRule>> {
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
                let Some(g) = f.reference(Kind::SecurityGroup, Some(vpc), text) else { continue };
                // Groups of other VPCs can be named over peerings and transit gateways only: looked at when these are
                // known.
                if let Some(other) = f.cx.names.get(Kind::SecurityGroup, g).vpc.filter(|other| *other != vpc) {
                    draft.foreign_groups.push(ForeignGroup {
                        vpc,
                        other,
                        group: g,
                        place: w.place,
                        title: f.title.clone(),
                    });
                }
                SgPeer::Group(g)
            }
            Peer::List(name, place) => {
                let text = At { value: name.as_str(), place: *place };
                match prefix_list::reference(f, vpc, region, text, draft) {
                    Some(list) => SgPeer::PrefixList(list),
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

/// A rule that names a group of another VPC.
pub struct ForeignGroup {
    pub vpc: usize,
    pub other: usize,
    pub group: usize,
    pub place: Place,
    pub title: String,
}

/// VPC User Guide and Transit Gateway guide: a group of another VPC may be named over an active peering within the region,
/// or a transit gateway where both attachments reference groups.
pub fn references(cx: &Cx<'_>, draft: &Draft) {
    for foreign in &draft.foreign_groups {
        let peered = |p: &PeeringPlan| p.same_region && p.other(foreign.vpc) == Some(foreign.other);
        let refers = |vpc: usize, tgw: usize| {
            draft.tgw_attachments.iter().flatten().any(|a| {
                a.tgw == tgw && matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == vpc && to.security_group_referencing)
            })
        };
        let by_tgw =
            (0..draft.transit_gateways.len()).any(|tgw| refers(foreign.vpc, tgw) && refers(foreign.other, tgw));
        if draft.peerings.iter().flatten().any(peered) || by_tgw {
            continue;
        }
        let attached = |vpc: usize, tgw: usize| {
            let is = |a: &TgwAttachmentPlan| a.tgw == tgw && matches!(&a.to, AttachmentTo::Vpc(to) if to.vpc == vpc);
            draft.tgw_attachments.iter().flatten().any(is)
        };
        let joined =
            (0..draft.transit_gateways.len()).any(|tgw| attached(foreign.vpc, tgw) && attached(foreign.other, tgw));
        let path = &cx.names.get(Kind::SecurityGroup, foreign.group).path;
        let message =
            format!("{}: you have specified two resources that belong to different networks: {path}", foreign.title);
        let found = Found::at(foreign.place, message)
            .also(cx.names.get(Kind::SecurityGroup, foreign.group).place, "it is here");
        if joined {
            // AWS takes the rule where a transit gateway joins the VPCs, and it matches nothing.
            let message =
                format!("{}: the rule for {path} matches nothing: security group referencing is off", foreign.title);
            let found = Found::at(foreign.place, message);
            cx.warning(found.help("`security_group_referencing: true` at both attachments, or an address block"));
        } else {
            cx.error(found.code("InvalidGroup.NotFound").help("a peering within the region, or an address block"));
        }
    }
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
