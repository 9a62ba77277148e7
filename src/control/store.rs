//! The only stored truth of a lab: the text as it was accepted, with everything it drew in, so that the process that
//! runs the lab reads the same whatever has become of the files and variables since.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{self, Around, Files, Loaded, Plan, Report, Source};
use crate::policy;

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

/// Reads and judges a topology, and notes everything it draws in, so that [`load`] finds the same later. Policies are
/// judged too.
///
/// `dir` is the folder of the first file, absolute; `name` overrides the file's. The error is a report of every problem.
pub fn accept(
    sources: &[Source],
    dir: &Path,
    name: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
    files: &dyn Files,
) -> Result<(Accepted, Loaded), Report> {
    let asked = RefCell::new(BTreeMap::new());
    let noting = |var: &str| {
        let value = env(var);
        asked.borrow_mut().insert(var.to_owned(), value.clone());
        value
    };
    let drawn = Noting { files, read: RefCell::default() };
    let mut loaded = model::load(sources, &Around { env: &noting, files: &drawn, name })?;
    loaded.plan.dir = dir.to_owned();
    judge_policies(&loaded)?;
    let accepted = Accepted {
        name: loaded.plan.name.clone(),
        dir: dir.to_owned(),
        sources: sources.iter().map(|s| AcceptedSource { path: s.path.clone(), text: s.text().to_owned() }).collect(),
        env: asked.into_inner(),
        files: drawn.read.into_inner(),
    };
    Ok((accepted, loaded))
}

/// The plan of an accepted text. The report of its problems, rendered without colour, if it is refused after all.
pub fn load(accepted: &Accepted) -> Result<Plan, String> {
    let sources: Vec<Source> =
        accepted.sources.iter().map(|s| Source::new(s.path.clone(), s.text.as_bytes())).collect();
    let around = Around { env: &|name| accepted.var(name), files: accepted, name: Some(&accepted.name) };
    let mut loaded = model::load(&sources, &around).map_err(|report| report.render(false))?;
    loaded.plan.dir.clone_from(&accepted.dir);
    Ok(loaded.plan)
}

/// Policies are JSON to the model; what they say is judged where it is understood.
fn judge_policies(loaded: &Loaded) -> Result<(), Report> {
    let problems: Vec<(String, String, Option<&'static str>)> =
        policy::check(&loaded.plan).into_iter().map(|p| (owner_of(&p.path), p.to_string(), Some(p.code))).collect();
    if problems.is_empty() { Ok(()) } else { Err(loaded.policy_problem(&problems)) }
}

/// `roles.web.policy...` is `role web`; `vpcs.app.endpoints.s3.policy...` is `endpoint app.s3`.
fn owner_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        ["roles", role, ..] => format!("role {role}"),
        ["vpcs", vpc, "endpoints", endpoint, ..] => format!("endpoint {vpc}.{endpoint}"),
        _ => path.to_owned(),
    }
}

/// Passes questions on and keeps what was read.
struct Noting<'a> {
    files: &'a dyn Files,
    read: RefCell<BTreeMap<PathBuf, String>>,
}

impl Files for Noting<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = self.files.read(path)?;
        self.read.borrow_mut().insert(path.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
        Ok(bytes)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.files.is_dir(path)
    }
}

/// What was read at acceptance; folders were there then.
impl Files for Accepted {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.files.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| "not read when accepted".to_owned())
    }

    fn is_dir(&self, _: &Path) -> bool {
        true
    }
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
