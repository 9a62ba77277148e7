//! The only stored truth of a lab: the text as it was accepted, with everything it drew in, so that the process that
//! runs the lab reads the same whatever has become of the files and variables since.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The file's name in the lab's run directory.
pub const FILE: &str = "accepted.json";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The lab's name, whether from the file or from `--name`.
    pub name: String,
    /// Folder that relative paths and `run` commands start from.
    pub dir: PathBuf,
    /// In the order of merging: files, then patches.
    pub sources: Vec<AcceptedSource>,
    /// Every `${env:NAME}` that was asked for; `None`: it was not set.
    pub env: BTreeMap<String, Option<String>>,
    /// Every file that the text drew in (policy documents), by path.
    pub files: BTreeMap<PathBuf, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AcceptedSource {
    /// As reports name it.
    pub path: String,
    pub text: String,
}

impl Accepted {
    /// As JSON, for the run directory.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Errors: text that is no `Accepted`.
    pub fn from_json(text: &str) -> Result<Accepted, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What an environment variable was at acceptance.
    pub fn var(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned().flatten()
    }
}

/// The plan of an accepted text. The report of its problems, rendered without colour, if it is refused after all.
pub fn load(_accepted: &Accepted) -> Result<crate::model::Plan, String> {
    Err("model::load".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_comes_back_unchanged() {
        let mut accepted = Accepted { name: "lab".into(), dir: "/lab".into(), ..Accepted::default() };
        accepted.sources.push(AcceptedSource { path: "a.yaml".into(), text: "version: 1\n".into() });
        accepted.env.insert("SET".into(), Some("x".into()));
        accepted.env.insert("UNSET".into(), None);
        let back = Accepted::from_json(&accepted.to_json()).expect("own output");
        assert_eq!(back, accepted);
        assert_eq!(back.var("SET").as_deref(), Some("x"));
        assert_eq!(back.var("UNSET"), None);
    }
}
