//! Training labs: a healthy network, a patch that breaks it, and what must hold once a learner has mended it.
//!
//! A lab is a folder of texts ([`Folder`]); `lab.yaml` in it is read into a [`Lab`] ([`format`]). Its checks are the
//! topology's own checks with a few words more ([`Check`]); [`grade`] orders and judges them, [`progress`] is what is
//! remembered between commands. Running commands and packets is the caller's matter, as with all of this room.

mod folder;
mod format;
mod grade;
mod keys;
mod progress;
mod write;

pub use folder::{BREAK, FIX, Folder, LAB, State, merged};
pub use format::{NOUNS, read};
pub use grade::{Line, Mark, Seen, Told, blocked, first_red, hints_for, judge, next_hint, order, render};
pub use progress::{Entry, Progress};
pub use write::yaml_text;

use std::time::Duration;

use regex::Regex;

use crate::base::Cidr;
use crate::model::plan::CheckPlan;

/// One lab, as its `lab.yaml` says.
#[derive(Clone, Debug)]
pub struct Lab {
    pub id: String,
    pub title: String,
    /// Place in the curriculum.
    pub order: i64,
    /// `guided` or `incident`.
    pub kind: String,
    /// 1 to 5.
    pub difficulty: i64,
    pub minutes: i64,
    /// Numbers of the catalogue of failures: `F01`.
    pub cases: Vec<String>,
    /// Exam objectives: `ANS-C01:2.2`.
    pub objectives: Vec<String>,
    /// Ids of labs that come before it.
    pub requires: Vec<String>,
    /// A topology that is shipped: `t-iso`; `None`: the folder has its own `topology.yaml`.
    pub base: Option<String>,
    /// Overrides of times and quotas, name and value, so that nobody waits 350 s.
    pub limits: Vec<(String, String)>,
    /// The break is laid over the running base, so that connections made before it live on.
    pub live: bool,
    /// The broken state is always started anew: a kernel remembers what it learned before (a path's MTU).
    pub fresh: bool,
    /// What is seen while it is broken: all of it must be true then.
    pub symptom: Vec<Check>,
    /// Wrong fixes that cannot even be made: AWS refuses them.
    pub refused: Vec<RefusedPatch>,
    pub steps: Vec<Step>,
}

/// A patch that is refused, in these words.
#[derive(Clone, Debug)]
pub struct RefusedPatch {
    /// Of the lab's folder: `wrong-fixes/peering.patch.yaml`.
    pub patch: String,
    /// A pattern that the report matches: AWS's code, or its sentence.
    pub with: Regex,
}

/// A patch of the lab's folder that is laid over the running lab while a check's command runs, and then taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub patch: String,
    /// How long after the command began.
    pub after: Duration,
}

impl Lab {
    /// Every check of the lab, wherever it stands.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.symptom.iter().chain(self.steps.iter().flat_map(|step| step.check.iter().chain(&step.guard)))
    }
}

/// What a learner does next.
#[derive(Clone, Debug)]
pub struct Step {
    pub id: String,
    pub say: String,
    /// A question to answer before the check counts.
    pub ask: Option<Ask>,
    /// The state in which its checks hold.
    pub state: State,
    pub check: Vec<Check>,
    /// What must stay true all the time: a fix that is too wide trips it.
    pub guard: Vec<Check>,
    pub hints: Vec<Hint>,
}

/// Predict, then run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub options: Vec<String>,
    pub answer: String,
    /// Said after the right answer.
    pub why: String,
}

/// Texts for one wrong state, from a question to the command.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The check that is red first, and what it saw; `None`: any.
    pub when: Option<(String, Option<Regex>)>,
    pub texts: Vec<String>,
}

/// A check of a topology, with what labs add: exact texts, times, and the drop that explains it.
#[derive(Clone, Debug)]
pub struct Check {
    pub id: String,
    /// Line of `lab.yaml`.
    pub line: u32,
    /// Instance, `NAME` or `VPC.NAME`; `any` with `never`.
    pub on: String,
    pub layer: Layer,
    pub what: What,
    /// Title, expectation, ways and deadline; its `from` is looked up when it is asked, because a patch may move it.
    pub plan: CheckPlan,
    pub also: Also,
    /// `root`: the command may change the instance's network.
    pub user: Option<String>,
    pub change: Option<Change>,
    /// Asked again until it holds, for so long.
    pub retry: Duration,
    /// Whether it holds while the lab is broken.
    pub green_when_broken: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// As in `checks:` of a topology: `plan.what` says it.
    AsInTopology,
    /// A connection that exists: whether bytes come back on it.
    Flow {
        /// `NAME`, `VPC.NAME`, an endpoint's label or an address.
        to: String,
        port: u16,
        alive: bool,
    },
}

/// What is wanted beyond what a topology's check can say.
#[derive(Clone, Debug, Default)]
pub struct Also {
    pub stdout: Option<Regex>,
    pub stderr: Option<Regex>,
    pub not_stdout: Option<Regex>,
    pub not_stderr: Option<Regex>,
    pub not_in_cidr: Option<Cidr>,
    /// It took at least so long, and less than so long: a timeout is told from a refusal.
    pub after: Option<Duration>,
    pub before: Option<Duration>,
    pub drop: Option<WantedDrop>,
}

/// A drop that must be recorded while the check runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedDrop {
    /// `SG_INGRESS`.
    pub code: String,
    /// `sg:vpc.vpce`, as `vpclab drops` names the deciding object.
    pub object: Option<String>,
}

/// The order in which causes are looked for: the first red line is the root of the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    System,
    Dns,
    Path,
    Filter,
    Application,
}

impl Layer {
    pub const WORDS: &'static [&'static str] = &["system", "dns", "path", "filter", "application"];

    pub fn as_str(self) -> &'static str {
        Layer::WORDS[self as usize]
    }

    pub fn parse(word: &str) -> Option<Layer> {
        [Layer::System, Layer::Dns, Layer::Path, Layer::Filter, Layer::Application]
            .into_iter()
            .find(|layer| layer.as_str() == word)
    }
}

impl Lab {
    /// The name under which it runs.
    pub fn lab_name(&self) -> String {
        format!("lab-{}", self.id)
    }
}
