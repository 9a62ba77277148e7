//! Prefix lists: the file's own, and AWS's of the services that gateway endpoints lead to.

use super::{Draft, common};
use crate::base::ids::aws_id;
use crate::model::catalogue;
use crate::model::plan::{Common, PrefixListPlan};
use crate::model::spec::fields::{Cx, Fields, parse_cidr};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;

/// The lists of a VPC, or with `None` those for all.
pub fn read<'a>(cx: &'a Cx<'a>, above: &Fields<'a>, vpc: Option<usize>, draft: &mut Draft) {
    for e in above.named("prefix_lists") {
        let index = match vpc {
            Some(vpc) => cx.names.index(Kind::PrefixList, vpc, &e.key),
            None => cx.names.at_path(Kind::PrefixList, &e.key),
        };
        let Some(index) = index else { continue };
        let path = &cx.names.get(Kind::PrefixList, index).path;
        let Some(f) = Fields::open(cx, &keys::PREFIX_LIST, format!("prefix list {path}"), e) else { continue };
        let common = common(&f, Kind::PrefixList, index);
        let mut entries = Vec::new();
        for t in f.texts("entries").unwrap_or_default() {
            let Some(block) = parse_cidr(&f, t, true) else { continue };
            if entries.contains(&block.value) {
                let found = f.error(t.place, format!("the block {} stands twice", block.value));
                cx.error(found.code("InvalidParameterValue"));
            } else {
                entries.push(block.value);
            }
        }
        let max = f.int("max_entries");
        if let Some(max) = max.filter(|max| (max.value as usize) < entries.len()) {
            let message = format!("{} entries, and `max_entries` is {}", entries.len(), max.value);
            cx.error(f.error(max.place, message).code("PrefixListMaxEntriesExceeded"));
        }
        draft.prefix_lists[index] = Some(PrefixListPlan {
            list_name: common.name.clone(),
            common,
            vpc,
            region: String::new(),
            max_entries: max.map_or(entries.len() as u32, |max| max.value as u32),
            entries,
            aws: false,
        });
        f.done();
    }
}

/// AWS's list of a service in a region, made where it is not there yet. `None` for services that have none.
pub fn of_service(draft: &mut Draft, service: &str, region: &str) -> Option<usize> {
    let name = format!("com.amazonaws.{region}.{service}");
    if let Some(at) = draft.prefix_lists.iter().flatten().position(|list| list.aws && list.list_name == name) {
        // Lists of the file come first, and each has its place.
        let at =
            draft.prefix_lists.iter().position(|list| list.as_ref().is_some_and(|l| l.list_name == name)).or(Some(at));
        return at;
    }
    let block = catalogue::prefix_list_blocks(service, region)?;
    draft.prefix_lists.push(Some(PrefixListPlan {
        common: Common { name: name.clone(), path: name.clone(), id: aws_id("pl", "aws", &name), ..Common::default() },
        vpc: None,
        list_name: name,
        region: region.to_owned(),
        entries: vec![block],
        // As one rule or route against quotas (VPC User Guide, "AWS-managed prefix lists").
        max_entries: 1,
        aws: true,
    }));
    Some(draft.prefix_lists.len() - 1)
}

/// What a `pl:` reference means: a list of the file, or AWS's by its name (`com.amazonaws.REGION.s3`) or `s3` alone.
pub fn reference(
    f: &Fields<'_>,
    vpc: usize,
    region: &str,
    t: crate::model::spec::fields::At<&str>,
    draft: &mut Draft,
) -> Option<usize> {
    let name = t.value.strip_prefix("pl:").unwrap_or(t.value);
    let own = f.cx.names.index(Kind::PrefixList, vpc, name).or_else(|| f.cx.names.at_path(Kind::PrefixList, name));
    if own.is_none() {
        let service = name.strip_prefix(&format!("com.amazonaws.{region}.")).unwrap_or(name);
        if let Some(at) = of_service(draft, service, region) {
            return Some(at);
        }
    }
    f.reference(Kind::PrefixList, Some(vpc), t)
}
