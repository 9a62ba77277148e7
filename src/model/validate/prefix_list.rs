//! Prefix lists: the file's own, and AWS's of the services that gateway endpoints lead to.

use super::{Draft, common};
use crate::base::Cidr;
use crate::model::catalogue;
use crate::model::plan::{Common, EniOwner, Home, PrefixListPlan};
use crate::model::spec::fields::{At, Cx, Fields, parse_cidr, prefix_list_meant};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::{Entry, Node, Value};
use crate::model::spec::report::Found;

/// The lists of a VPC, or with `None` those for all.
pub fn read<'a>(cx: &'a Cx<'a>, above: &Fields<'a>, vpc: Option<usize>, draft: &mut Draft) {
    for e in above.named("prefix_lists") {
        let index = match vpc {
            Some(vpc) => cx.names.index(Kind::PrefixList, vpc, &e.key),
            None => cx.names.at_path(Kind::PrefixList, &e.key),
        };
        let Some(index) = index else { continue };
        // A bare list has entries only.
        let bare = matches!(e.node.value, Value::List(_)).then(|| {
            let entries = Entry { key: "entries".into(), key_place: e.key_place, node: e.node.clone() };
            Node { place: e.node.place, value: Value::Map(vec![entries]) }
        });
        one(cx, e, bare.as_ref().unwrap_or(&e.node), index, vpc, draft);
    }
}

fn one(cx: &Cx<'_>, e: &Entry, node: &Node, index: usize, vpc: Option<usize>, draft: &mut Draft) {
    let title = format!("prefix list {}", cx.names.get(Kind::PrefixList, index).path);
    let Some(f) = Fields::open_node(cx, &keys::PREFIX_LIST, title, node, e.key_place) else { return };
    let common = common(&f, Kind::PrefixList, index);
    let mut entries: Vec<At<Cidr>> = Vec::new();
    for t in f.texts("entries").unwrap_or_default() {
        let Some(block) = parse_cidr(&f, t, true) else { continue };
        if let Some(first) = entries.iter().find(|other| other.value == block.value) {
            let found = f.error(t.place, format!("the block {} stands twice", block.value));
            cx.error(found.code("InvalidParameterValue").also(first.place, "here"));
        } else {
            entries.push(block);
        }
    }
    // AWS's most, and the quota of entries that rules and routes are counted with.
    if entries.len() > 1_000 {
        let found = f.error(f.key_place("entries"), "more than 1,000 entries");
        cx.error(found.code("PrefixListMaxEntriesExceeded"));
    }
    let max = f.int("max_entries");
    if let Some(max) = max.filter(|max| (max.value as usize) < entries.len()) {
        let message = format!(
            "you've reached the maximum number of entries: {} entries, and `max_entries` is {}",
            entries.len(),
            max.value
        );
        cx.error(f.error(max.place, message).code("PrefixListMaxEntriesExceeded"));
    }
    let count = entries.len().max(1) as u32;
    draft.prefix_lists[index] = Some(PrefixListPlan {
        list_name: common.name.clone(),
        common,
        vpc,
        region: String::new(),
        max_entries: max.map_or(count, |max| max.value as u32),
        entries: entries.into_iter().map(|e| e.value).collect(),
        aws: false,
    });
    f.done();
}

/// AWS's list of a service in a region, made where it is not there yet. `None` for services that have none.
pub fn of_service(draft: &mut Draft, service: &str, region: &str) -> Option<usize> {
    let name = catalogue::prefix_list_name(service, region);
    let is_it = |list: &Option<PrefixListPlan>| list.as_ref().is_some_and(|l| l.aws && l.list_name == name);
    if let Some(at) = draft.prefix_lists.iter().position(is_it) {
        return Some(at);
    }
    let usual = catalogue::prefix_list_blocks(service, region)?;
    let entries = draft.public_blocks.of(service, region).map_or_else(|| vec![usual], <[Cidr]>::to_vec);
    let id = catalogue::prefix_list_id(&name);
    draft.prefix_lists.push(Some(PrefixListPlan {
        common: Common { name: name.clone(), path: name.clone(), id, ..Common::default() },
        vpc: None,
        list_name: name,
        region: region.to_owned(),
        entries,
        // As one rule or route against quotas (VPC User Guide, "AWS-managed prefix lists").
        max_entries: 1,
        aws: true,
    }));
    Some(draft.prefix_lists.len() - 1)
}

/// What a `pl:` reference means: a list of the VPC or of the file, or AWS's by its name (`com.amazonaws.REGION.s3`) or
/// its service's (`s3`).
pub fn reference(f: &Fields<'_>, vpc: usize, region: &str, t: At<&str>, draft: &mut Draft) -> Option<usize> {
    let name = t.value.strip_prefix("pl:").unwrap_or(t.value);
    let own = f.cx.names.index(Kind::PrefixList, vpc, name).or_else(|| f.cx.names.at_path(Kind::PrefixList, name));
    if own.is_none() {
        let service = name.strip_prefix(&format!("com.amazonaws.{region}.")).unwrap_or(name);
        if let Some(aws) = of_service(draft, service, region) {
            return Some(aws);
        }
    }
    if let Some(meant) = prefix_list_meant(t.value).filter(|_| own.is_none()) {
        let message = format!("there is no prefix list `{name}`");
        f.cx.error(f.error(t.place, message).code("InvalidPrefixListID.NotFound").help(meant));
        return None;
    }
    let own = own.or_else(|| f.reference(Kind::PrefixList, Some(vpc), t))?;
    let named = f.cx.names.get(Kind::PrefixList, own);
    if named.vpc.is_some_and(|of| of != vpc) {
        let vpc = &f.cx.names.get(Kind::Vpc, vpc).name;
        let message = format!("prefix list {} belongs to another VPC than {vpc}", named.path);
        let found = f.error(t.place, message).code("InvalidPrefixListID.NotFound").also(named.place, "it is here");
        f.cx.error(found.help("`prefix_lists` at the top of the file are for every VPC"));
        return None;
    }
    Some(own)
}

/// Hosts of the Internet cannot be where the file has put a service.
pub fn refuse_hosts_in_public_blocks(cx: &Cx<'_>, draft: &Draft) {
    for eni in draft.enis.iter().filter(|eni| eni.home == Home::Internet) {
        let EniOwner::Instance(at, _) = eni.owner else { continue };
        let Some((service, _)) = draft.public_blocks.service_at(eni.ip) else { continue };
        let named = cx.names.get(Kind::Instance, at);
        let message = format!("host {}: its address {} is one of {}'s prefixes", named.path, eni.ip, service.name);
        cx.error(Found::at(named.place, message).code("InvalidIPAddress.InUse"));
    }
}
