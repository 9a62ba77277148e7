//! What is remembered of a learner: one small file that people can read, edit and delete.

use std::collections::BTreeMap;

use crate::model::spec::node::{Node, Value};
use crate::model::spec::report::Problems;
use crate::model::spec::source::Source;
use crate::model::spec::yaml;

const HEAD: &str = "# What `vpclab lab` remembers. It may be edited or deleted; solved steps stay solved until then.\n";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Id of the lab that was started last.
    pub current: Option<String>,
    pub labs: BTreeMap<String, Entry>,
}

/// Of one lab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where a lab of one's own has its files; `None`: it is shipped.
    pub folder: Option<String>,
    /// Steps that were solved, by id.
    pub solved: Vec<String>,
    /// Hints that were given, by step and group of hints (`fix/1`: the first of step `fix`).
    pub hints: BTreeMap<String, usize>,
    /// Questions that were answered rightly, by step.
    pub answered: Vec<String>,
    /// How often `check` was asked.
    pub checks: u64,
    /// Seconds since 1970.
    pub started: u64,
    /// Seconds since 1970 when the last step was solved without the solution shown; 0: not yet.
    pub finished: u64,
    /// The solution was shown.
    pub shown: bool,
}

impl Progress {
    /// Reads what [`Progress::to_text`] wrote; what cannot be read is forgotten.
    pub fn parse(text: &str) -> Progress {
        let problems = Problems::default();
        let Some(root) = yaml::parse_source(0, &Source::new("progress", text), &problems) else {
            return Progress::default();
        };
        let labs = root.get("labs").map(Node::entries).unwrap_or_default();
        Progress {
            current: text_of(&root, "current"),
            labs: labs.iter().map(|e| (e.key.clone(), entry(&e.node))).collect(),
        }
    }

    pub fn to_text(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let mut out = HEAD.to_owned();
        if let Some(current) = &self.current {
            out.push_str(&format!("current: {current}\n"));
        }
        out.push_str(if self.labs.is_empty() { "labs: {}\n" } else { "labs:\n" });
        for (id, e) in &self.labs {
            out.push_str(&format!("  {id}:\n"));
            if let Some(folder) = &e.folder {
                out.push_str(&format!("    folder: {}\n", quoted(folder)));
            }
            out.push_str(&format!("    solved: [{}]\n", e.solved.join(", ")));
            let hints: Vec<String> = e.hints.iter().map(|(step, n)| format!("{step}: {n}")).collect();
            out.push_str(&format!("    hints: {{{}}}\n", hints.join(", ")));
            out.push_str(&format!("    answered: [{}]\n", e.answered.join(", ")));
            out.push_str(&format!(
                "    checks: {}\n    started: {}\n    finished: {}\n",
                e.checks, e.started, e.finished
            ));
            out.push_str(&format!("    shown: {}\n", e.shown));
        }
        out
    }
}

fn entry(node: &Node) -> Entry {
    let number = |key: &str| text_of(node, key).and_then(|t| t.parse().ok()).unwrap_or_default();
    let hints = node.get("hints").map(Node::entries).unwrap_or_default();
    Entry {
        folder: text_of(node, "folder"),
        solved: texts(node, "solved"),
        hints: hints.iter().filter_map(|e| Some((e.key.clone(), e.node.text()?.parse().ok()?))).collect(),
        answered: texts(node, "answered"),
        checks: number("checks"),
        started: number("started"),
        finished: number("finished"),
        shown: text_of(node, "shown").as_deref() == Some("true"),
    }
}

fn text_of(node: &Node, key: &str) -> Option<String> {
    node.get(key)?.text().map(str::to_owned)
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    match node.get(key).map(|n| &n.value) {
        Some(Value::List(items)) => items.iter().filter_map(|n| n.text().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back() {
        let mut progress = Progress { current: Some("endpoint-sg".into()), ..Progress::default() };
        let entry = Entry {
            folder: Some("/home/a b/\"labs\"".into()),
            solved: vec!["see".into(), "fix".into()],
            hints: [("fix".to_owned(), 2)].into(),
            answered: vec!["see".into()],
            checks: 3,
            started: 1_700_000_000,
            finished: 1_700_000_100,
            shown: true,
        };
        progress.labs.insert("endpoint-sg".into(), entry);
        progress.labs.insert("other".into(), Entry::default());
        assert_eq!(Progress::parse(&progress.to_text()), progress, "{}", progress.to_text());
        assert_eq!(Progress::parse(&Progress::default().to_text()), Progress::default());
    }

    #[test]
    fn a_file_that_somebody_spoiled_is_a_fresh_start() {
        for text in ["", "x", "labs: 3", "labs: {a: b}", "current: [", "\u{0}", "labs: {a: {checks: many}}"] {
            let _ = Progress::parse(text);
        }
    }
}
