//! The texts of a lab, and the topologies they make: healthy, broken, mended.

use std::collections::BTreeMap;

use super::Lab;
use crate::model::Source;
use crate::model::spec::merge::merge;
use crate::model::spec::node::Node;
use crate::model::spec::report::Problems;
use crate::model::spec::yaml;

/// The description that [`super::read`] reads.
pub const LAB: &str = "lab.yaml";
pub const BREAK: &str = "break.patch.yaml";
pub const FIX: &str = "fix.patch.yaml";
const TOPOLOGY: &str = "topology.yaml";
/// Laid over a shipped base.
const OVER_BASE: &str = "topology.patch.yaml";
const README: &str = "README.md";
/// What the README says from here on is for after the lab.
const AFTERWARDS: &str = "\n## Afterwards";

/// A lab's files by name, folders of it included: `wrong-fixes/open-all.patch.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// As reports show it.
    pub path: String,
    pub files: BTreeMap<String, String>,
    /// The program carries it: its paths start where the lab is run, not where somebody keeps the texts.
    pub shipped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Healthy.
    Base,
    Broken,
    Fixed,
}

impl Folder {
    pub fn source(&self, name: &str) -> Result<Source, String> {
        let text = self.files.get(name).ok_or_else(|| format!("{}: {name} is missing", self.path))?;
        let path = if self.shipped { name.to_owned() } else { format!("{}/{name}", self.path) };
        Ok(Source::new(path, text.as_str()))
    }

    /// The sources of a state, in the order of merging. `shipped` gives the text of a topology that the program has.
    ///
    /// # Errors
    /// A sentence about the file or base that is missing.
    pub fn sources(
        &self,
        lab: &Lab,
        state: State,
        shipped: &dyn Fn(&str) -> Option<&'static str>,
    ) -> Result<Vec<Source>, String> {
        let mut sources = match &lab.base {
            Some(base) => {
                let text =
                    shipped(base).ok_or_else(|| format!("{}: no shipped topology is named `{base}`", self.path))?;
                let mut sources = vec![Source::new(format!("{base}.yaml"), text)];
                sources.extend(self.source(OVER_BASE));
                sources
            }
            None => vec![self.source(TOPOLOGY)?],
        };
        sources.push(settings(lab));
        if matches!(state, State::Broken | State::Fixed) {
            sources.push(self.source(BREAK)?);
        }
        if state == State::Fixed {
            sources.push(self.source(FIX)?);
        }
        Ok(sources)
    }

    /// Names of the patches in a folder: `alt-fixes`, `wrong-fixes`.
    pub fn patches(&self, folder: &str) -> Vec<&str> {
        let inside = |name: &&str| {
            name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')) && name.ends_with(".patch.yaml")
        };
        self.files.keys().map(String::as_str).filter(inside).collect()
    }

    /// The story and the task, and what is told afterwards.
    pub fn readme(&self) -> (&str, &str) {
        let text = self.files.get(README).map_or("", String::as_str);
        match text.find(AFTERWARDS) {
            Some(at) => (text[..at].trim(), text[at..].trim()),
            None => (text.trim(), ""),
        }
    }

    /// What the story quotes: each line of its blocks marked `symptom`, commands (`app-a$ ...`) left out.
    pub fn quoted(&self) -> Vec<&str> {
        let text = self.files.get(README).map_or("", String::as_str);
        let mut quoted = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with("```") {
                inside = line == "```symptom";
            } else if inside && !line.trim().is_empty() && !line.contains("$ ") {
                quoted.push(line.trim());
            }
        }
        quoted
    }
}

/// Limits of the lab, and no checks of the base: a break may remove what they name.
fn settings(lab: &Lab) -> Source {
    let mut text = String::from("checks: ~\n");
    if !lab.limits.is_empty() {
        let limits: Vec<String> = lab.limits.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        text.push_str(&format!("limits: {{ {} }}\n", limits.join(", ")));
    }
    Source::new("lab.yaml", text)
}

/// Sources merged into one tree, for the file that a learner edits. `None`: they are no YAML.
pub fn merged(sources: &[Source]) -> Option<Node> {
    let problems = Problems::default();
    let mut trees = sources.iter().enumerate().map(|(n, s)| yaml::parse_source(n, s, &problems));
    let mut root = trees.next()??;
    for patch in trees {
        merge(&mut root, patch?);
    }
    Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> Folder {
        let files = files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        Folder { path: "labs/x".into(), files, shipped: false }
    }

    #[test]
    fn the_readme_keeps_its_end_for_afterwards_and_quotes_the_symptom() {
        let lab = folder(&[(
            "README.md",
            "# T\n\nIt hangs:\n\n```symptom\napp-a$ curl x\ncurl: (28) Failed\n```\n\n## Afterwards\n\nThe rule.\n",
        )]);
        let (before, after) = lab.readme();
        assert!(before.ends_with("```") && after.starts_with("## Afterwards"), "{before}|{after}");
        assert_eq!(lab.quoted(), ["curl: (28) Failed"]);
    }

    #[test]
    fn patches_are_found_by_folder() {
        let lab = folder(&[("wrong-fixes/a.patch.yaml", ""), ("wrong-fixes/notes.md", ""), ("fix.patch.yaml", "")]);
        assert_eq!(lab.patches("wrong-fixes"), ["wrong-fixes/a.patch.yaml"]);
        assert!(lab.patches("alt-fixes").is_empty());
    }
}
