//! `policy:` keys: `full`, a file, or the document as it is. What the document says is judged by `policy`.

use crate::model::plan::Policy;
use crate::model::spec::fields::{At, Fields};
use crate::model::spec::node::{Node, Value};
use crate::model::spec::report::Problems;
use crate::model::spec::source::Source;
use crate::model::spec::yaml;

/// AWS's limit for role policies is 10,240 characters, for endpoint policies 20,480; a file far beyond is no policy.
const LARGEST_FILE: usize = 256 << 10;

/// The policy of a noun; `None` if left out or refused.
pub fn read(f: &Fields<'_>) -> Option<Policy> {
    let entry = f.entry("policy")?;
    f.cx.policies.borrow_mut().push((f.title.clone(), entry.place()));
    match &entry.node.value {
        Value::Text(t) if t.text == "full" => Some(Policy::Full),
        Value::Map(entries) => match entries.as_slice() {
            [only] if only.key == "file" => {
                let path = only.node.text().map(|value| At { value, place: only.place() });
                let Some(path) = path else {
                    f.cx.error(f.error(only.place(), "`file` is a path"));
                    return None;
                };
                from_file(f, path)
            }
            _ => document(f, &entry.node),
        },
        _ => {
            let found = f.error(entry.place(), "`policy` is `full`, `{ file: p.json }`, or a policy document");
            f.cx.error(found.code("MalformedPolicyDocument"));
            None
        }
    }
}

fn document(f: &Fields<'_>, node: &Node) -> Option<Policy> {
    if node.get("Statement").is_none() {
        let place = node.entries().first().map_or(node.place, |e| e.key_place);
        let near = node.entries().iter().find(|e| e.key.eq_ignore_ascii_case("statement"));
        let help = near.map(|e| format!("`{}` is written `Statement`", e.key));
        let found = f.error(place, "the policy has no `Statement`").code("MalformedPolicyDocument");
        f.cx.error(found.maybe_help(help));
        return None;
    }
    Some(Policy::Document(node.to_json()))
}

fn from_file(f: &Fields<'_>, path: At<&str>) -> Option<Policy> {
    let full = f.cx.path(path.value, path.place);
    let refuse = |message: String| f.cx.error(f.error(path.place, message));
    let bytes = match f.cx.files.read(&full) {
        Ok(b) if b.len() > LARGEST_FILE => {
            refuse(format!("{}: the file is too large for a policy: {} bytes", full.display(), b.len()));
            return None;
        }
        Ok(b) => b,
        Err(e) => {
            refuse(format!("{}: {e}", full.display()));
            return None;
        }
    };
    if full.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(v) if v.get("Statement").is_some() => Some(Policy::Document(v)),
            Ok(_) => {
                let found = f.error(path.place, format!("{}: the policy has no `Statement`", full.display()));
                f.cx.error(found.code("MalformedPolicyDocument"));
                None
            }
            Err(e) => {
                let found = f.error(path.place, format!("{}: not JSON: {e}", full.display()));
                f.cx.error(found.code("MalformedPolicyDocument"));
                None
            }
        };
    }
    let source = Source::new(full.display().to_string(), bytes);
    let problems = Problems::default();
    let node = yaml::parse_source(0, &source, &problems);
    let (report, _) = problems.finish(std::slice::from_ref(&source));
    for p in &report.problems {
        refuse(p.to_string());
    }
    let node = node.filter(|_| report.is_empty())?;
    if node.get("Statement").is_none() {
        let found = f.error(path.place, format!("{}: the policy has no `Statement`", full.display()));
        f.cx.error(found.code("MalformedPolicyDocument"));
        return None;
    }
    Some(Policy::Document(node.to_json()))
}
