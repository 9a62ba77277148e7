//! `${env:NAME}` and `${lab:...}` in any text. Every other `${...}` is left alone: shells and policies have their own.

use std::collections::{BTreeSet, HashMap};

use super::names::{Kind, Names};
use super::node::{Node, Value};
use super::public_ip;
use super::report::{Found, Problems, did_you_mean};
use super::source::Place;
use crate::base::ids::token36;
use crate::model::catalogue;

/// No text of a topology is longer after it was expanded, bytes.
const LONGEST: usize = 1 << 20;

/// Puts environment variables in.
pub fn environment(root: &mut Node, env: &dyn Fn(&str) -> Option<String>, problems: &Problems) {
    root.each_text_mut(&mut |place, text| {
        expand(text, "env:", place, problems, &mut |name| match env(name) {
            Some(value) => Ok(value),
            None => Err((format!("the environment variable {name} is not set"), None)),
        });
    });
}

/// Puts ids and names of the lab in, `id:` keys first.
pub fn lab(root: &mut Node, names: &mut Names, default_region: &str, problems: &Problems) {
    let dns = endpoint_dns(root, names, default_region);
    let public = public_ip::elastic(names);
    let ids = expand_ids(names, problems);
    names.set_ids(|kind, named| ids.get(&(kind, named.path.clone())).cloned(), problems);
    let names: &Names = names;
    let lists = prefix_lists(root, names, default_region);
    root.each_text_mut(&mut |place, text| {
        expand(text, "lab:", place, problems, &mut |what| {
            let (kind, rest) = what.split_once('.').unwrap_or((what, ""));
            if kind == "account" {
                return names.accounts.get(rest).cloned().ok_or_else(|| {
                    (
                        format!("there is no account `{rest}`"),
                        did_you_mean(rest, names.accounts.keys().map(String::as_str)),
                    )
                });
            }
            if let Some(text) = lists.get(what) {
                return Ok(text.clone());
            }
            let (at, field) = target(names, what)?;
            let named = names.get(at.0, at.1);
            match (at.0, field.as_str()) {
                (_, "id") => Ok(named.id.clone()),
                (Kind::ElasticIp, "ip") => public
                    .get(&named.path)
                    .map(ToString::to_string)
                    .ok_or_else(|| ("there is no address left for it".to_owned(), None)),
                (Kind::Endpoint, "dns") => dns_of(&dns, at.1, &named.id, None),
                (Kind::Endpoint, f) if f.starts_with("dns.") => dns_of(&dns, at.1, &named.id, f.get(4..)),
                (kind, f) => Err((
                    format!("a {} has no `{f}` to put in", kind.word()),
                    Some("`id` (endpoints: `dns`, `dns.a`; Elastic IPs: `ip`; prefix lists: `cidrs`)".into()),
                )),
            }
        });
    });
}

/// Texts that look like ids of AWS's form and belong to nothing in this lab, each once.
pub fn stray_ids(root: &Node, known: &BTreeSet<&str>) -> Vec<(Place, String)> {
    const PREFIXES: [&str; 16] = [
        "vpc-",
        "vpce-",
        "subnet-",
        "rtb-",
        "acl-",
        "sg-",
        "eni-",
        "i-",
        "igw-",
        "nat-",
        "vgw-",
        "pl-",
        "eipalloc-",
        "pcx-",
        "tgw-",
        "cgw-",
    ];
    let mut stray = Vec::new();
    let mut seen = BTreeSet::new();
    root.each_text(&mut |place, text| {
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            let Some(digits) = PREFIXES.iter().find_map(|p| word.strip_prefix(p)) else { continue };
            let is_id = matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if is_id && !known.contains(word) && seen.insert(word.to_owned()) {
                stray.push((place, word.to_owned()));
            }
        }
    });
    stray
}

type Failure = (String, Option<String>);

/// Replaces each `${PREFIX...}`; what cannot be replaced is noted and left.
fn expand(
    text: &mut String,
    prefix: &str,
    place: Place,
    problems: &Problems,
    value: &mut dyn FnMut(&str) -> Result<String, Failure>,
) {
    let opening = format!("${{{prefix}");
    if !text.contains(&opening) {
        return;
    }
    let mut out = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(&opening) {
        out.push_str(&rest[..at]);
        let body = &rest[at + opening.len()..];
        let Some(end) = body.find('}') else {
            problems.last_error(Found::at(place, format!("`{opening}` without its `}}`")));
            return;
        };
        match value(&body[..end]) {
            Ok(v) => out.push_str(&v),
            Err((message, help)) => {
                let message = format!("{opening}{}}}: {message}", &body[..end]);
                wrong.push(Found::at(place, message).maybe_help(help));
            }
        }
        if out.len() > LONGEST {
            problems.last_error(Found::at(place, format!("the text is longer than {LONGEST} bytes once expanded")));
            return;
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    if wrong.is_empty() {
        *text = out;
    }
    // One place may have several faults of this kind, and no other.
    let last = wrong.pop();
    wrong.into_iter().for_each(|w| problems.error(w));
    last.into_iter().for_each(|w| problems.last_error(w));
}

/// `endpoint.app.s3.dns.a` is the thing and the field `dns.a`.
fn target(names: &Names, what: &str) -> Result<((Kind, usize), String), Failure> {
    let parts: Vec<&str> = what.split('.').collect();
    let first = parts[0];
    let Some(kind) = Kind::by_prefix(first) else {
        return Err(match first {
            "lb" | "eni" => (format!("`{first}`: not in this version"), None),
            _ => (
                format!("unknown kind `{first}`"),
                Some(
                    "vpc, subnet, route_table, nacl, sg, pl, instance, endpoint, igw, nat, eip, vgw, peering, tgw, role or account"
                        .into(),
                ),
            ),
        });
    };
    let field_at = match parts.iter().rposition(|p| *p == "dns") {
        Some(at) if at >= 2 && at + 2 >= parts.len() => at,
        _ => parts.len() - 1,
    };
    if field_at < 2 {
        return Err(("wanted is KIND.VPC.NAME.id".into(), Some(format!("`${{lab:{what}.id}}`?"))));
    }
    let path = parts[1..field_at].join(".");
    // A VPC has one of each: they are named after it.
    let path = match kind {
        Kind::InternetGateway | Kind::Vgw => format!("{path}.{first}"),
        _ => path,
    };
    let at = names.resolve(kind, None, &path)?;
    Ok(((kind, at), parts[field_at..].join(".")))
}

/// `id:` texts may themselves hold `${lab:...}`; in circles they are refused.
fn expand_ids(names: &Names, problems: &Problems) -> HashMap<(Kind, String), String> {
    let mut done: HashMap<(Kind, String), String> = HashMap::new();
    for kind in Kind::ALL {
        for at in 0..names.list(kind).len() {
            // A circle is noted where it is met: inside the text that leads back.
            let _ = id_of(names, kind, at, &mut Vec::new(), &mut done, problems);
        }
    }
    done
}

fn id_of(
    names: &Names,
    kind: Kind,
    at: usize,
    under_way: &mut Vec<(Kind, usize)>,
    done: &mut HashMap<(Kind, String), String>,
    problems: &Problems,
) -> Result<String, Failure> {
    let named = names.get(kind, at);
    if let Some(id) = done.get(&(kind, named.path.clone())) {
        return Ok(id.clone());
    }
    let Some((place, written)) = &named.written_id else { return Ok(named.id.clone()) };
    // A chain longer than this is a circle or a joke; both end here, and the stack stays shallow.
    if under_way.contains(&(kind, at)) || under_way.len() > 64 {
        let way: Vec<String> = under_way.iter().map(|&(k, n)| names.get(k, n).path.clone()).collect();
        return Err((format!("cyclic reference: {} -> {}", way.join(" -> "), named.path), None));
    }
    under_way.push((kind, at));
    let mut text = written.clone();
    expand(&mut text, "lab:", *place, problems, &mut |what| {
        let ((kind, at), field) = target(names, what)?;
        if field != "id" {
            return Err(("only ids can be put into an `id`".into(), None));
        }
        id_of(names, kind, at, under_way, done, problems)
    });
    under_way.pop();
    done.insert((kind, named.path.clone()), text.clone());
    Ok(text)
}

/// What can be put in of prefix lists beside ids: `pl.corp.cidrs`, and of AWS's own `pl.s3.cidrs` and `pl.s3.id`.
fn prefix_lists(root: &Node, names: &Names, default_region: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for (service, region) in ["s3", "dynamodb"].into_iter().flat_map(|s| catalogue::regions().map(move |r| (s, r.name)))
    {
        let written = root.get("services").and_then(|s| s.get(service)).and_then(|s| s.get("prefixes"));
        let written = written.filter(|_| region == default_region).map(texts_of).filter(|blocks| !blocks.is_empty());
        let usual = || catalogue::prefix_list_blocks(service, region).iter().map(ToString::to_string).collect();
        let blocks: Vec<String> = written.unwrap_or_else(usual);
        let name = catalogue::prefix_list_name(service, region);
        let id = catalogue::prefix_list_id(&name);
        let short = (region == default_region).then(|| service.to_owned());
        for name in short.into_iter().chain([name]) {
            found.insert(format!("pl.{name}.cidrs"), blocks.join(", "));
            found.insert(format!("pl.{name}.id"), id.clone());
        }
    }
    for named in names.list(Kind::PrefixList) {
        let above = named.vpc.map_or(Some(root), |v| root.get("vpcs")?.get(&names.get(Kind::Vpc, v).name));
        let Some(list) = above.and_then(|n| n.get("prefix_lists")).and_then(|l| l.get(&named.name)) else { continue };
        let blocks = texts_of(list.get("entries").unwrap_or(list)).join(", ");
        // The file's lists come before AWS's of the same name.
        found.insert(format!("pl.{}.id", named.path), named.id.clone());
        found.insert(format!("pl.{}.cidrs", named.path), blocks);
    }
    found
}

fn texts_of(list: &Node) -> Vec<String> {
    match &list.value {
        Value::List(items) => items.iter().filter_map(|n| n.text().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// What endpoint names are made of, by index: the service's label and the region.
fn endpoint_dns(root: &Node, names: &Names, default_region: &str) -> Vec<Option<(String, String)>> {
    let mut found = vec![None; names.list(Kind::Endpoint).len()];
    for (v, vpc) in root.get("vpcs").map(Node::entries).unwrap_or_default().iter().enumerate() {
        let region = vpc.node.get("region").and_then(Node::text).unwrap_or(default_region);
        for e in vpc.node.get("endpoints").map(Node::entries).unwrap_or_default() {
            let written = e.node.get("service").and_then(Node::text).unwrap_or(&e.key);
            let service = catalogue::service(written).or_else(|| catalogue::by_full_name(written).map(|(s, _)| s));
            if let (Some(at), Some(s)) = (names.index(Kind::Endpoint, v, &e.key), service) {
                found[at] = Some((s.vpce_label().to_owned(), region.to_owned()));
            }
        }
    }
    found
}

fn dns_of(dns: &[Option<(String, String)>], at: usize, id: &str, zone: Option<&str>) -> Result<String, Failure> {
    let Some(Some((label, region))) = dns.get(at) else { return Err(("its service is unknown".into(), None)) };
    match zone {
        None => Ok(vpce_name(id, None, label, region)),
        Some(z) if z.len() == 1 && z.bytes().all(|b| b.is_ascii_lowercase()) => {
            Ok(vpce_name(id, Some(&format!("{region}{z}")), label, region))
        }
        Some(z) => Err((format!("`{z}` is no zone letter"), None)),
    }
}

/// `vpce-0123-abcd1234.s3.eu-west-1.vpce.amazonaws.com`, or with a zone (`eu-west-1a`) before the first dot (AWS
/// PrivateLink Guide, "Endpoint-specific DNS names").
pub fn vpce_name(id: &str, zone: Option<&str>, label: &str, region: &str) -> String {
    let random = token36(&["vpce-name", id], 8);
    match zone {
        None => format!("{id}-{random}.{label}.{region}.vpce.amazonaws.com"),
        Some(zone) => format!("{id}-{random}-{zone}.{label}.{region}.vpce.amazonaws.com"),
    }
}
