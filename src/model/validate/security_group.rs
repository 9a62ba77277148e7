//! Security groups: rules that allow, joined over all groups of an ENI.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Draft, common, implied, implied_of, prefix_list};
use crate::base::Cidr;
use crate::base::ids::aws_id;
use crate::model::plan::{
    AttachmentTo, EniOwner, PeeringPlan, SecurityGroupPlan, SgPeer, SgRule, TgwAttachmentPlan, TrafficMatch,
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
    if written.len() > MOST_RULES {
        refuse_rules(f, way, "more than 1,000");
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
                        place: *place,
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
    let count = weight(&rules, draft);
    if count > MOST_RULES {
        refuse_rules(f, way, &format!("{count} (a prefix list counts as its max_entries)"));
    } else if count > DEFAULT_RULES {
        let message = format!("{count} {} rules: the default quota of AWS is {DEFAULT_RULES}", way.key());
        let found = f.error(f.key_place(way.key()), message);
        f.cx.warning(found.help("a prefix list counts as its max_entries; the quota can be raised"));
    }
    Some(rules)
}

/// Default quota of rules in one direction of a group (VPC User Guide, "Amazon VPC quotas").
const DEFAULT_RULES: usize = 60;
/// The quotas of rules per group and of groups per interface may be raised until their product is this.
const MOST_RULES: usize = 1_000;

fn refuse_rules(f: &Fields<'_>, way: Way, count: &str) {
    let message =
        format!("The maximum number of rules per security group has been reached: {count} {} rules", way.key());
    f.cx.error(f.error(f.key_place(way.key()), message).code("RulesPerSecurityGroupLimitExceeded"));
}

/// As how many rules they count: a prefix list as its `max_entries`.
fn weight(rules: &[SgRule], draft: &Draft) -> usize {
    let of = |rule: &SgRule| match rule.peer {
        SgPeer::PrefixList(at) => draft.prefix_lists[at].as_ref().map_or(1, |list| list.max_entries as usize),
        SgPeer::Cidr(_) | SgPeer::Group(_) => 1,
    };
    rules.iter().map(of).sum()
}

/// Groups of an account in a region, those that AWS makes included (VPC User Guide, "Amazon VPC quotas").
const MOST_GROUPS: usize = 2_500;

/// Groups of an account in a region.
fn most_groups(cx: &Cx<'_>, draft: &Draft) {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (at, group) in draft.security_groups.iter().enumerate() {
        let Some(vpc) = group.as_ref().and_then(|group| draft.vpcs[group.vpc].as_ref()) else { continue };
        let count = counts.entry((&vpc.account, &vpc.region)).or_default();
        *count += 1;
        if *count == MOST_GROUPS + 1 {
            let named = cx.names.get(Kind::SecurityGroup, at);
            let message = format!(
                "security group {}: The maximum number of security groups has been reached: {MOST_GROUPS} in {} of account {}",
                named.path, vpc.region, vpc.account
            );
            cx.error(Found::at(named.place, message).code("SecurityGroupLimitExceeded"));
        }
    }
}

/// Groups of an account, and rules of all groups of one interface together.
pub fn limits(cx: &Cx<'_>, draft: &Draft) {
    most_groups(cx, draft);
    let of_group = |rules: &[SgRule]| weight(rules, draft);
    let groups: Vec<[usize; 2]> = draft
        .security_groups
        .iter()
        .map(|g| g.as_ref().map_or([0; 2], |g| [of_group(&g.ingress), of_group(&g.egress)]))
        .collect();
    let mut told: HashSet<&[usize]> = HashSet::new();
    for eni in &draft.enis {
        for (n, way) in [Way::Ingress, Way::Egress].into_iter().enumerate() {
            let count: usize = eni.security_groups.iter().map(|&g| groups[g][n]).sum();
            if count <= MOST_RULES || !told.insert(&eni.security_groups) {
                continue;
            }
            let (kind, at) = match eni.owner {
                EniOwner::Instance(at, _) => (Kind::Instance, at),
                EniOwner::Endpoint(at) => (Kind::Endpoint, at),
                _ => continue,
            };
            let named = cx.names.get(kind, at);
            let message = format!(
                "{} {}: its security groups have {count} {} rules together, more than {MOST_RULES}",
                kind.word(),
                named.path,
                way.key()
            );
            cx.error(Found::at(named.place, message).code("RulesPerSecurityGroupLimitExceeded"));
        }
    }
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
