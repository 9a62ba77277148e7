//! A lab's network: brought up, changed while it runs, ended.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use super::super::common::{Failure, LabArg};
use super::super::topology::Disk;
use super::{Chosen, shipped};
use crate::control::api::{Reply, Request};
use crate::control::lab::{Mark, State, What};
use crate::control::store::{self, Accepted};
use crate::model::{Around, Plan, Source, Standing};
use crate::runtime::launch::{self, Launch, Running};

/// How long the base's own connections may take to come up.
const SETTLE: Duration = Duration::from_secs(10);

/// The sources of a state of a lab.
pub fn sources(chosen: &Chosen, state: State) -> Result<Vec<Source>, Failure> {
    chosen.folder.sources(&chosen.lab, state, &shipped::base).map_err(Failure::input)
}

/// The sources of the broken state with one patch of the lab's folder over it.
pub fn patched(chosen: &Chosen, state: State, patch: &str) -> Result<Vec<Source>, Failure> {
    let mut all = sources(chosen, state)?;
    all.push(chosen.folder.source(patch).map_err(Failure::input)?);
    Ok(all)
}

/// Judges sources under a lab's name. Relative paths start at `dir`.
pub fn accept(sources: &[Source], name: &str, dir: &Path) -> Result<(Accepted, Plan), Failure> {
    accept_over(sources, name, dir, &Standing::default())
}

/// The same for a lab that runs: `standing` is what it keeps.
pub fn accept_over(
    sources: &[Source],
    name: &str,
    dir: &Path,
    standing: &Standing,
) -> Result<(Accepted, Plan), Failure> {
    let around = Around { env: &|name| std::env::var(name).ok(), files: &Disk, name: Some(name) };
    let (accepted, loaded) =
        store::accept_over(sources, &around, dir, standing).map_err(|report| Failure::input(report.render(false)))?;
    Ok((accepted, loaded.plan))
}

/// Starts a network.
pub fn up(accepted: Accepted, leash: bool, own_id: bool) -> Result<Running, Failure> {
    Ok(launch::launch(Launch { accepted, leash, own_id })?)
}

/// Makes a running lab equal to what was accepted, while it runs: connections live on as far as AWS lets them.
pub fn change(name: &str, accepted: Accepted) -> Result<(), Failure> {
    let lab = LabArg { lab: Some(name.to_owned()) };
    let ask = Request::Apply { accepted: Box::new(accepted), patches: None, dry_run: false };
    match super::super::up::connect(&lab)?.ask(ask)? {
        Reply::Applied(_) => Ok(()),
        _ => Err(Failure::unexpected()),
    }
}

/// The same without any fault. One of the file that a learner has cleared begins again only when the file was without it.
pub fn calm(name: &str, sources: &[Source], dir: &Path, standing: &Standing) -> Result<(), Failure> {
    let lab = LabArg { lab: Some(name.to_owned()) };
    super::super::up::connect(&lab)?.ask(Request::ClearFaults { id: None })?;
    let calm = [sources, &[Source::new("no faults", "faults: ~\n")]].concat();
    let (accepted, _) = accept_over(&calm, name, dir, standing)?;
    change(name, accepted)
}

/// Lays a patch of the lab's folder over what runs, as `apply --patch` does; what was in force before.
pub fn lay(name: &str, chosen: &Chosen, patch: &str) -> Result<Accepted, Failure> {
    let lab = LabArg { lab: Some(name.to_owned()) };
    let Reply::Source(before) = super::super::up::connect(&lab)?.ask(Request::Source)? else {
        return Err(Failure::unexpected());
    };
    let source = chosen.folder.source(patch).map_err(Failure::input)?;
    let running = store::load(&before).map_err(|report| Failure::host(report.render(false)))?;
    let accepted = super::super::topology::patch(&before, &[source], &Standing::of(&running))?;
    change(name, accepted)?;
    Ok(before)
}

/// Ends a lab and starts it with what was accepted.
pub fn restart(name: &str, accepted: Accepted) -> Result<(), Failure> {
    if let Ok(dir) = launch::choose(Some(name)) {
        launch::end(&dir)?;
    }
    up(accepted, false, false).map(|_| ())
}

/// Waits until the connections that the break must find are there: the flows that its steps speak of.
pub fn settle(chosen: &Chosen, name: &str) -> Result<(), Failure> {
    let (_, plan) = accept(&sources(chosen, State::Base)?, name, &std::env::temp_dir())?;
    let asker = super::ask::Asker::new(&plan, chosen)?;
    let all = chosen.lab.symptom.iter().chain(chosen.lab.steps.iter().flat_map(|s| &s.guard));
    for check in all.filter(|c| matches!(c.what, What::Flow { alive: true, .. })) {
        let line = asker.check(check, SETTLE);
        if line.mark != Mark::Ok {
            return Err(Failure::host(format!("{}: {}", line.title, line.seen)));
        }
    }
    Ok(())
}

/// The plan that is in force.
pub fn plan_of(name: &str) -> Result<Plan, Failure> {
    let lab = LabArg { lab: Some(name.to_owned()) };
    let Reply::Source(accepted) = super::super::up::connect(&lab)?.ask(Request::Source)? else {
        return Err(Failure::unexpected());
    };
    store::load(&accepted).map_err(|report| Failure::input(report.render(false)))
}
