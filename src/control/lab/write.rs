//! A merged topology as text again: the file that a learner reads and edits.

use crate::model::spec::node::{Node, Value};

/// Characters of the longest line that a whole map or list is put into.
const WIDTH: usize = 100;

/// YAML of a tree, in block style where it is large and in one line where it is small. Reading it gives the same tree;
/// comments are gone.
pub fn yaml_text(node: &Node) -> String {
    let mut out = String::new();
    block(node, 0, &mut out);
    out
}

fn block(node: &Node, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for e in entries {
                out.push_str(&format!("{pad}{}:", scalar(&e.key, true)));
                child(&e.node, indent, e.key.len(), out);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                child(item, indent, 0, out);
            }
        }
        _ => out.push_str(&format!("{pad}{}\n", flow(node))),
    }
}

fn child(node: &Node, indent: usize, key: usize, out: &mut String) {
    let line = flow(node);
    let nested = node.entries().iter().any(|e| matches!(e.node.value, Value::Map(_)) && !e.node.entries().is_empty());
    let leaf = !matches!(node.value, Value::Map(_) | Value::List(_));
    if leaf || (!nested && indent + key + 3 + line.len() <= WIDTH) || line.len() <= 2 {
        out.push_str(&format!(" {line}\n"));
    } else {
        out.push('\n');
        block(node, indent + 2, out);
    }
}

fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null => "~".into(),
        Value::Text(t) => scalar(&t.text, t.plain),
        Value::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) if entries.is_empty() => "{}".into(),
        Value::Map(entries) => {
            let all: Vec<String> =
                entries.iter().map(|e| format!("{}: {}", scalar(&e.key, true), flow(&e.node))).collect();
            format!("{{ {} }}", all.join(", "))
        }
    }
}

/// Plain where that means the same in block and in flow style; else quoted as JSON, which YAML reads too.
fn scalar(text: &str, plain: bool) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '/' | '_' | '-' | '$' | '*');
    // `a: b` and ` #` have meanings, a colon inside a word has none.
    let colons = text.split(':').skip(1).all(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/'));
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '$');
    let is_null = matches!(text, "null" | "Null" | "NULL");
    let looks = matches!(text, "true" | "false") || text.parse::<i64>().is_ok();
    if begins
        && !text.ends_with(' ')
        && !is_null
        && colons
        && text.chars().all(|c| safe(c) || c == ':')
        && (plain || !looks)
    {
        text.to_owned()
    } else {
        serde_json::to_string(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::report::Problems;
    use crate::model::spec::yaml;

    fn tree(text: &str) -> Node {
        yaml::parse(0, text, &Problems::default()).unwrap_or_else(|| panic!("not YAML:\n{text}"))
    }

    #[test]
    fn what_is_written_reads_as_the_same_tree() {
        let demo = include_str!("../../../topologies/demo.yaml");
        let odd = "a: ['x: y', \"#\", '~', 'null', '007', \"tab\\tand\\nline\", '- x', '', '{', 'é', ' x ', 'true', true, 7]\nb: ~\nc: {}\nd: []\n'e f': { 'g: h': [[], {}, { i: [j] }] }\nk: '*'\nl: sg:doors\nm: 'https://x/'\nn: 'x:'\n";
        for text in [demo, odd] {
            let written = yaml_text(&tree(text));
            assert_eq!(tree(&written).to_json(), tree(text).to_json(), "{written}");
        }
    }

    #[test]
    fn small_things_stand_in_one_line() {
        let text =
            yaml_text(&tree("vpcs: { app: { cidr: 10.0.0.0/16, subnets: { a: { cidr: 10.0.1.0/24, az: a } } } }"));
        assert_eq!(text, "vpcs:\n  app:\n    cidr: 10.0.0.0/16\n    subnets:\n      a: { cidr: 10.0.1.0/24, az: a }\n");
    }
}
