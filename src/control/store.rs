//! The only stored truth of a lab: the text as it was accepted, with everything it drew in, so that the process that
//! runs the lab reads the same whatever has become of the files and variables since.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{self, Around, Files, Loaded, Plan, PolicyFlaw, Report, Source, Standing};
use crate::policy;

/// The file's name in the lab's run directory.
pub const FILE: &str = "accepted.json";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Whether paths that the text names are folders.
    pub folders: BTreeMap<PathBuf, bool>,
    /// What the lab had when the text was laid over it.
    pub standing: Standing,
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

/// Validates sources as a lab would start from them, policies included, and keeps what they drew in. `cwd` makes paths
/// absolute: the lab runs elsewhere.
///
/// # Errors
/// Every problem of every source.
pub fn accept(sources: &[Source], around: &Around<'_>, cwd: &Path) -> Result<(Accepted, Loaded), Report> {
    accept_over(sources, around, cwd, &Standing::default())
}

/// The same for a lab that runs.
///
/// # Errors
/// As [`accept`].
pub fn accept_over(
    sources: &[Source],
    around: &Around<'_>,
    cwd: &Path,
    standing: &Standing,
) -> Result<(Accepted, Loaded), Report> {
    let env = RefCell::new(BTreeMap::new());
    let files = Recorder { inner: around.files, cwd, seen: RefCell::default() };
    let look_up = |name: &str| {
        let value = (around.env)(name);
        env.borrow_mut().insert(name.to_owned(), value.clone());
        value
    };
    let around = Around { env: &look_up, files: &files, name: around.name };
    let loaded = model::load_over(sources, &around, standing, &policy_flaws)?;
    let seen = files.seen.into_inner();
    let accepted = Accepted {
        name: loaded.plan.name.clone(),
        dir: cwd.join(&loaded.plan.dir),
        sources: sources
            .iter()
            .map(|s| AcceptedSource { path: cwd.join(&s.path).display().to_string(), text: s.text().to_owned() })
            .collect(),
        env: env.into_inner(),
        files: seen.files,
        folders: seen.folders,
        standing: standing.clone(),
    };
    Ok((accepted, loaded))
}

/// The plan of an accepted text.
///
/// # Errors
/// Its problems, where the version that accepted it saw none.
pub fn load(accepted: &Accepted) -> Result<Plan, Report> {
    let sources: Vec<Source> = accepted.sources.iter().map(|s| Source::new(s.path.clone(), s.text.as_str())).collect();
    let around = Around { env: &|name| accepted.var(name), files: accepted, name: Some(&accepted.name) };
    let loaded = model::load_over(&sources, &around, &accepted.standing, &policy_flaws)?;
    Ok(Plan { dir: accepted.dir.clone(), ..loaded.plan })
}

/// The contents of policies, which the model keeps but does not judge.
fn policy_flaws(plan: &Plan) -> Vec<PolicyFlaw> {
    let flaw = |p: policy::PolicyProblem| PolicyFlaw {
        owner: owner_of(&p.path),
        message: format!("{}: {}", p.path, p.message),
        code: p.code,
    };
    policy::check(plan).into_iter().map(flaw).collect()
}

/// `roles.R.policy...` is `role R`, `vpcs.V.endpoints.E.policy...` is `endpoint V.E`.
fn owner_of(path: &str) -> String {
    let mut parts = path.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("roles"), Some(role), ..) => format!("role {role}"),
        (Some("vpcs"), Some(vpc), Some("endpoints"), Some(endpoint)) => format!("endpoint {vpc}.{endpoint}"),
        _ => path.to_owned(),
    }
}

/// Remembers what was read.
struct Recorder<'a> {
    inner: &'a dyn Files,
    cwd: &'a Path,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    files: BTreeMap<PathBuf, String>,
    folders: BTreeMap<PathBuf, bool>,
}

impl Files for Recorder<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = self.inner.read(path)?;
        let text = String::from_utf8(bytes.clone()).map_err(|_| "not UTF-8".to_owned())?;
        self.seen.borrow_mut().files.insert(self.cwd.join(path), text);
        Ok(bytes)
    }

    fn is_dir(&self, path: &Path) -> bool {
        let is = self.inner.is_dir(path);
        self.seen.borrow_mut().folders.insert(self.cwd.join(path), is);
        is
    }
}

impl Files for Accepted {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.files
            .get(path)
            .map(|text| text.clone().into_bytes())
            .ok_or_else(|| "was not read at acceptance".to_owned())
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.folders.get(path).copied().unwrap_or_default()
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

    #[test]
    fn a_bad_policy_is_reported_with_all_else() {
        let text = "version: 1\nname: x\nregion: eu-west-9\nvpcs: { a: { cidr: 10.0.0.0/16 } }\nroles:\n  r: { policy: { Statement: { Effect: Alow, Action: '*', Resource: '*' } } }\n";
        let report =
            accept(&[Source::new("x.yaml", text)], &Around::default(), Path::new("/")).expect_err("two mistakes");
        let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("x.yaml:3:9: "), "{lines:?}");
        assert!(lines[1].starts_with("x.yaml:6:16: MalformedPolicyDocument: role r: "), "{lines:?}");
    }
}
