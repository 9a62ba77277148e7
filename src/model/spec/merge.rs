//! Several files: a later one is laid over an earlier one as RFC 7396 (JSON Merge Patch) says: maps deep, everything
//! else whole, `null` deletes.

use super::node::{Node, Value};

/// Lays `patch` over `target`.
pub fn merge(target: &mut Node, patch: Node) {
    let Value::Map(changes) = patch.value else {
        *target = patch;
        return;
    };
    if !matches!(target.value, Value::Map(_)) {
        *target = Node { place: patch.place, value: Value::Map(Vec::new()) };
    }
    let Value::Map(entries) = &mut target.value else { return };
    for mut change in changes {
        let old = entries.iter().position(|e| e.key == change.key);
        match (&change.node.value, old) {
            (Value::Null, Some(at)) => {
                entries.remove(at);
            }
            (Value::Null, None) => {}
            (_, Some(at)) => merge(&mut entries[at].node, change.node),
            (_, None) => {
                let mut fresh = Node::null(change.node.place);
                merge(&mut fresh, change.node);
                change.node = fresh;
                entries.push(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{report::Problems, yaml};
    use super::*;

    fn node(text: &str) -> Node {
        let problems = Problems::default();
        yaml::parse(0, text, &problems).unwrap_or_else(|| panic!("{text}"))
    }

    /// The table of RFC 7396, appendix A, as far as YAML's maps hold it.
    #[test]
    fn merges_as_the_rfc_says() {
        for (target, patch, result) in [
            ("{a: b}", "{a: c}", r#"{"a":"c"}"#),
            ("{a: b}", "{b: c}", r#"{"a":"b","b":"c"}"#),
            ("{a: b}", "{a: null}", "{}"),
            ("{a: b, b: c}", "{a: null}", r#"{"b":"c"}"#),
            ("{a: [b]}", "{a: c}", r#"{"a":"c"}"#),
            ("{a: c}", "{a: [b]}", r#"{"a":["b"]}"#),
            ("{a: {b: c}}", "{a: {b: d, c: null}}", r#"{"a":{"b":"d"}}"#),
            ("{a: [{b: c}]}", "{a: [1]}", r#"{"a":[1]}"#),
            ("[a, b]", "[c, d]", r#"["c","d"]"#),
            ("{a: b}", "[c]", r#"["c"]"#),
            ("{e: ~}", "{a: 1}", r#"{"e":null,"a":1}"#),
            ("[1, 2]", "{a: b, c: null}", r#"{"a":"b"}"#),
            ("{}", "{a: {bb: {ccc: null}}}", r#"{"a":{"bb":{}}}"#),
        ] {
            let mut t = node(target);
            merge(&mut t, node(patch));
            assert_eq!(t.to_json().to_string(), result, "{target} + {patch}");
        }
    }
}
