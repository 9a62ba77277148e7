//! A running lab becomes another: `apply`, faults, and what changes by the clock.
//!
//! The order of a change: everything is compiled and made beside what runs; one command puts it in force between two
//! packets; what is of no use any more is removed after that. Until the command, a failure takes back what was made and
//! nothing was changed.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::answers::{Refused, input};
use super::credentials;
use super::faults::{FaultBook, Health};
use super::node::{self, Shared};
use super::reconcile::{self, Steps};
use super::router::{Publication, Retired};
use super::state::{MadeInstance, State};
use super::tables::Tables;
use super::work::{self, Authorities, Bound, ListenerKey, Listens, RunKey, Runs, Work};
use crate::base::{Clock, EniIx};
use crate::control::api::{AnewRow, Applied, ChangeRow, FaultRow, Reply};
use crate::control::dropped;
use crate::control::store::{self, Accepted};
use crate::dns;
use crate::host::tun::Tun;
use crate::model::{Plan, Standing, diff};

/// What a change of the lab needs besides the state, and nobody else.
pub struct Changing {
    pub work: Work,
    pub authorities: Authorities,
    pub faults: FaultBook,
    pub health: Health,
}

/// What [`crate::control::api::Request::Apply`] asks.
pub fn apply(shared: &Shared, mut accepted: Accepted, patches: Option<usize>, dry_run: bool) -> Result<Reply, Refused> {
    let began = shared.clock.now();
    let mut changing = lock(shared);
    let before = shared.state();
    if accepted.name != before.plan.name {
        return Err(input(format!("this is the lab {}, the text is of {}", before.plan.name, accepted.name)));
    }
    if let Some(patches) = patches {
        let base = accepted.sources.len().checked_sub(patches);
        if base.and_then(|base| accepted.sources.get(..base)) != Some(&before.accepted.sources[..]) {
            return Ok(Reply::Stale);
        }
    }
    accepted.standing = Standing::of(&before.written);
    let written = store::load(&accepted).map_err(|report| input(report.render(false)))?;
    let now = shared.clock.now();
    let mut faults = changing.faults.clone();
    let mut warnings = faults.follow(&written, now);
    let plan = Plan { faults: faults.in_force(now), ..written.clone() };
    let steps = reconcile::steps(&before.plan, &plan);
    let mut applied = Applied {
        lab: plan.name.clone(),
        dry_run,
        changes: diff(&before.written, &written).into_iter().map(ChangeRow::from).collect(),
        anew: anew_rows(&steps, &plan),
        generation: before.generation,
        ..Applied::default()
    };
    if !dry_run {
        let next = Next { accepted: Arc::new(accepted), written: Arc::new(written), plan: Arc::new(plan), steps };
        let published = Change { shared, before, next }.carry_out(&mut changing, &mut warnings)?;
        changing.faults = faults;
        shared.alarm.notify_one();
        applied.generation = published.generation;
        applied.published_us = micros(published.took);
    }
    applied.warnings = warnings;
    applied.total_us = micros(shared.clock.now().since(began));
    Ok(Reply::Applied(applied))
}

/// What is another object than before, though its name is the same: first what AWS cannot change, then instances.
fn anew_rows(steps: &Steps, plan: &Plan) -> Vec<AnewRow> {
    let row = |kind: &str, path: &str, why: &str| AnewRow { kind: kind.into(), path: path.into(), why: why.into() };
    let objects = steps.replaced.iter().map(|r| row(r.kind, &r.path, &r.why));
    let instances = steps.anew.iter().map(|a| row("instance", &plan.instances[a.after].common.path, &a.why));
    objects.chain(instances).collect()
}

/// A fault of `vpclab fault`.
pub fn fault(
    shared: &Shared,
    words: &[String],
    after: Option<Duration>,
    lasts: Option<Duration>,
) -> Result<Reply, Refused> {
    let mut changing = lock(shared);
    let now = shared.clock.now();
    let id = changing.faults.add(&shared.state().written, words, after, lasts, now).map_err(input)?;
    look_at_the_clock(shared, &mut changing)?;
    shared.alarm.notify_one();
    let rows = fault_rows(&changing, shared);
    Ok(Reply::Faults(rows.into_iter().filter(|row| row.id == id).collect()))
}

pub fn faults(shared: &Shared) -> Reply {
    Reply::Faults(fault_rows(&lock(shared), shared))
}

/// Ends one fault by its id, or all; what is left of them.
pub fn clear_faults(shared: &Shared, which: Option<u32>) -> Result<Reply, Refused> {
    let mut changing = lock(shared);
    let ended = changing.faults.clear(which, shared.clock.now());
    if let (Some(id), 0) = (which, ended) {
        let known: Vec<String> = fault_rows(&changing, shared).iter().map(|row| row.id.to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(input(format!("no fault has the id {id}; there are: {known}")));
    }
    look_at_the_clock(shared, &mut changing)?;
    shared.alarm.notify_one();
    Ok(Reply::Faults(fault_rows(&changing, shared)))
}

fn fault_rows(changing: &Changing, shared: &Shared) -> Vec<FaultRow> {
    let listed = changing.faults.list(shared.clock.now());
    let row = |l: super::faults::Listed| FaultRow {
        id: l.id,
        fault: l.title,
        by_file: l.by_file,
        begun: l.begun,
        left_ms: l.left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        beaten_by: l.beaten_by,
    };
    listed.into_iter().map(row).collect()
}

/// Puts in force what the time asks for: faults that begin or end, and later what DNS has noticed of them.
fn look_at_the_clock(shared: &Shared, changing: &mut Changing) -> Result<(), Refused> {
    let now = shared.clock.now();
    changing.faults.sweep(now);
    let state = shared.state();
    let in_force = changing.faults.in_force(now);
    if in_force != state.plan.faults {
        let plan = Arc::new(Plan { faults: in_force, ..Plan::clone(&state.written) });
        changing.health.look(&plan, now);
        let next = Arc::new(State {
            generation: state.generation + 1,
            accepted: state.accepted.clone(),
            written: state.written.clone(),
            numbers: state.numbers.clone(),
            plan,
            instances: state.instances.clone(),
            logs: state.logs.clone(),
        });
        publish(shared, next, &changing.health, Vec::new(), credentials::current(&shared.credentials), None)?;
    } else if changing.health.look(&state.plan, now) {
        let zones = Arc::new(dns::compile(&changing.health.plan_for_names(&state.plan)));
        let old = shared.router.call(move |inside| std::mem::replace(&mut inside.tables.zones, zones))?;
        drop(old);
    }
    Ok(())
}

/// Wakes up when a fault begins or ends, or DNS notices one, for as long as the lab lives.
pub async fn keep_time(shared: Weak<Shared>, alarm: Arc<Notify>) {
    loop {
        let Some(lab) = shared.upgrade() else { return };
        let looked = tokio::task::spawn_blocking(move || {
            let mut changing = lock(&lab);
            // A router that is gone ends the lab by itself.
            let _ = look_at_the_clock(&lab, &mut changing);
            let now = lab.clock.now();
            let next = changing.faults.next_change(now).into_iter().chain(changing.health.next_change()).min();
            next.map(|at| at.since(now))
        });
        match looked.await {
            Ok(Some(wait)) => {
                let _ = tokio::time::timeout(wait, alarm.notified()).await;
            }
            Ok(None) => alarm.notified().await,
            Err(_) => return,
        }
    }
}

/// Looks at the credentials' ends from time to time; the router thread gets its own copy of a renewed book.
pub async fn renew_credentials(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(credentials::LOOK_EVERY).await;
        let Some(lab) = shared.upgrade() else { return };
        let renewed = tokio::task::spawn_blocking(move || {
            let _changing = lock(&lab);
            let mut book = crate::model::credentials::CredentialBook::clone(&credentials::current(&lab.credentials));
            if credentials::renew(&lab.state().plan, &mut book, lab.clock.unix()) {
                let book = Arc::new(book);
                credentials::replace(&lab.credentials, book.clone());
                // A router that is gone ends the lab by itself.
                let _ = lab.router.call(move |inside| inside.tables.credentials = book);
            }
        });
        if renewed.await.is_err() {
            return;
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Changing> {
    shared.changing.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// What the lab is to become.
struct Next {
    accepted: Arc<Accepted>,
    written: Arc<Plan>,
    plan: Arc<Plan>,
    steps: Steps,
}

struct Published {
    generation: u64,
    /// From the order to the router thread until it is in force.
    took: Duration,
}

/// One change, from a state to the next.
struct Change<'a> {
    shared: &'a Shared,
    before: Arc<State>,
    next: Next,
}

/// What was done before the change is in force, and can be taken back.
#[derive(Default)]
struct Done {
    /// By index in the new plan.
    instances: Vec<(usize, Arc<MadeInstance>)>,
    tuns: Vec<(EniIx, Tun)>,
    /// Old instances (by index in the old plan) that were removed because they are made anew.
    removed: Vec<usize>,
    /// Listeners that were in the way.
    stopped: Vec<ListenerKey>,
    bound: Vec<Bound>,
}

impl Change<'_> {
    fn carry_out(&self, changing: &mut Changing, warnings: &mut Vec<String>) -> Result<Published, Refused> {
        let (shared, before, next) = (self.shared, &self.before, &self.next);
        let services = shared.services.prepare(next.plan.clone()).map_err(|e| input(e.to_string()))?;
        self.vouch(&mut changing.authorities)?;
        let (listens, listened) = (work::listens(&next.plan), work::listens(&before.plan));
        let mut done = Done::default();
        let Changing { work, authorities, .. } = &mut *changing;
        let made = self.make(&mut done, work, authorities, &listens, &listened).and_then(|()| {
            shared.services.add_contents(&next.plan).map_err(|e| input(e.to_string()))?;
            lay_text_ready(shared, &next.accepted).map_err(|e| host("the accepted text", &e))
        });
        if let Err(refused) = made {
            return Err(self.take_back(done, changing, &listened, refused));
        }
        let state = Arc::new(self.state(&done));
        let mut health = changing.health.clone();
        health.look(&next.plan, shared.clock.now());
        let book = credentials::current(&shared.credentials);
        let book = Arc::new(credentials::follow(&book, &before.plan, &next.plan, shared.clock.unix()));
        let tuns = std::mem::take(&mut done.tuns);
        let took = match publish(shared, state.clone(), &health, tuns, book, Some(services)) {
            Ok(took) => took,
            Err(refused) => return Err(self.take_back(done, changing, &listened, refused)),
        };
        changing.health = health;
        if let Err(error) = take_text(shared) {
            warnings.push(format!("the accepted text could not be kept: {error}"));
        }
        self.clear_away(changing, done.bound, &state, (&listens, &listened), warnings);
        Ok(Published { generation: state.generation, took })
    }

    /// Names of listeners that came later than the lab's CA get one, trusted in what `exec` lays over the system's.
    fn vouch(&self, authorities: &mut Authorities) -> Result<(), Refused> {
        let Change { shared, next, .. } = self;
        let made = authorities.extend(&next.plan, shared.clock.unix()).map_err(|e| input(e.to_string()))?;
        let Some(pem) = made else { return Ok(()) };
        for path in [shared.run_dir.join(node::CA), shared.ca_bundle()] {
            // In place: commands that run already have it before their eyes.
            let added = std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(pem.as_bytes()));
            added.map_err(|e| host(&path.display().to_string(), &e))?;
        }
        Ok(())
    }

    /// Everything that may fail, in an order in which the least is lost if it does.
    fn make(
        &self,
        done: &mut Done,
        work: &mut Work,
        authorities: &Authorities,
        listens: &Listens,
        listened: &Listens,
    ) -> Result<(), Refused> {
        let Change { shared, before, next } = self;
        let one = |done: &mut Done, at: usize| {
            let made = node::make_instance(&shared.keeper, &next.plan, at, shared.clock.unix());
            let (made, tuns) = made.map_err(|e| Refused { message: format!("{e:#}"), exit: 3 })?;
            done.instances.push((at, Arc::new(made)));
            done.tuns.extend(tuns);
            Ok::<(), Refused>(())
        };
        for &at in &next.steps.made {
            one(done, at)?;
        }
        for anew in &next.steps.anew {
            let path = &before.plan.instances[anew.before].common.path;
            for key in listened.keys().filter(|(of, ..)| of == path) {
                work.stop_listening(&shared.hands, key);
                done.stopped.push(key.clone());
            }
            done.removed.push(anew.before);
            shared.keeper.remove_instance(path).map_err(|e| host(path, &e))?;
            work.forget_runs(path);
            one(done, anew.after)?;
        }
        let anew: Vec<&str> =
            next.steps.anew.iter().map(|a| next.plan.instances[a.after].common.path.as_str()).collect();
        for (key, (who, listener)) in listens {
            let standing = listened.get(key);
            if !anew.contains(&key.0.as_str()) {
                if standing == Some(&(who.clone(), listener.clone())) {
                    continue;
                }
                if standing.is_some() {
                    work.stop_listening(&shared.hands, key);
                    done.stopped.push(key.clone());
                }
            }
            let bound = work::bind(&shared.hands, authorities, who, listener);
            done.bound.push(bound.map_err(|e| Refused { message: format!("{e:#}"), exit: 3 })?);
        }
        Ok(())
    }

    /// The lab as it was before, as far as it was touched; the reason, with what could not be mended.
    fn take_back(&self, done: Done, changing: &mut Changing, listened: &Listens, refused: Refused) -> Refused {
        let Change { shared, before, next } = self;
        let mut refused = refused;
        drop(done.bound);
        for (at, _) in &done.instances {
            // It is the second failure; the keeper removes it with the lab.
            let _ = shared.keeper.remove_instance(&next.plan.instances[*at].common.path);
        }
        drop(done.tuns);
        let mut instances = before.instances.clone();
        let (mut tuns, mut fresh) = (Vec::new(), Vec::new());
        for at in done.removed.iter().copied() {
            match node::make_instance(&shared.keeper, &before.plan, at, shared.clock.unix()) {
                Ok((made, own)) => {
                    instances[at] = Arc::new(made);
                    fresh.extend(own.iter().map(|(eni, _)| *eni));
                    tuns.extend(own);
                }
                Err(e) => refused.message.push_str(&format!("\nand it could not be made again: {e:#}")),
            }
        }
        let mut state = before.clone();
        if !done.removed.is_empty() {
            let numbers = before.numbers.next(&before.plan, &before.plan, |eni| fresh.contains(&eni));
            state = Arc::new(State {
                generation: before.generation + 1,
                accepted: before.accepted.clone(),
                written: before.written.clone(),
                plan: before.plan.clone(),
                numbers: Arc::new(numbers),
                instances,
                logs: before.logs.clone(),
            });
            let book = credentials::current(&shared.credentials);
            if let Err(e) = publish(shared, state.clone(), &changing.health, tuns, book, None) {
                refused.message.push_str(&format!("\nand what was before is not in force: {}", e.message));
                return refused;
            }
        }
        for key in &done.stopped {
            let Some((who, listener)) = listened.get(key) else { continue };
            match work::bind(&shared.hands, &changing.authorities, who, listener) {
                Ok(bound) => changing.work.begin(&shared.hands, vec![bound]),
                Err(e) => refused.message.push_str(&format!("\nand a listener did not come back: {e:#}")),
            }
        }
        let commands = work::commands(&before.plan, &shared.hands.ca_bundle);
        for at in done.removed {
            let path = &before.plan.instances[at].common.path;
            for (key, spec) in commands.iter().filter(|(key, _)| key.0 == *path) {
                changing.work.run(&shared.hands, key.clone(), spec.clone(), &state.logs[at]);
            }
        }
        refused
    }

    fn state(&self, done: &Done) -> State {
        let Change { shared, before, next } = self;
        let fresh = next.steps.fresh(&before.plan, &next.plan);
        let numbers = before.numbers.next(&before.plan, &next.plan, |eni| fresh.contains(&eni));
        let was = |path: &str| before.plan.instances.iter().position(|i| i.common.path == path);
        let mut instances = Vec::with_capacity(next.plan.instances.len());
        let mut logs = Vec::with_capacity(next.plan.instances.len());
        for (at, instance) in next.plan.instances.iter().enumerate() {
            let path = &instance.common.path;
            let made = done.instances.iter().find(|(of, _)| *of == at).map(|(_, made)| made.clone());
            let kept = was(path);
            instances.extend(made.or_else(|| kept.map(|at| before.instances[at].clone())));
            logs.push(kept.map_or_else(|| shared.new_log(path), |at| before.logs[at].clone()));
        }
        State {
            generation: before.generation + 1,
            accepted: next.accepted.clone(),
            written: next.written.clone(),
            plan: next.plan.clone(),
            numbers: Arc::new(numbers),
            instances,
            logs,
        }
    }

    /// The new plan is in force: what the old one needed goes, what waits for the new one begins. No failure here takes
    /// anything back; it is told.
    fn clear_away(
        &self,
        changing: &mut Changing,
        bound: Vec<Bound>,
        state: &State,
        (listens, listened): (&Listens, &Listens),
        warnings: &mut Vec<String>,
    ) {
        let Change { shared, before, next } = self;
        let (hands, work) = (&shared.hands, &mut changing.work);
        for key in listened.keys().filter(|key| !listens.contains_key(*key)) {
            work.stop_listening(hands, key);
        }
        work.begin(hands, bound);

        let (old, new) = (work::commands(&before.plan, &hands.ca_bundle), work::commands(&next.plan, &hands.ca_bundle));
        let gone: Vec<&String> = next.steps.gone.iter().map(|&at| &before.plan.instances[at].common.path).collect();
        let anew: Vec<&String> = next.steps.anew.iter().map(|a| &next.plan.instances[a.after].common.path).collect();
        let ended: Vec<RunKey> = changed(&old, &new).filter(|key| !gone.contains(&&key.0)).cloned().collect();
        work.end_runs(hands, &ended);
        for path in gone {
            if let Err(error) = shared.keeper.remove_instance(path) {
                warnings.push(format!("instance {path} could not be removed: {error}; `vpclab down` does"));
            }
            work.forget_runs(path);
        }
        for kept in &next.steps.kept {
            let host = node::instance_host(&next.plan, &next.plan.instances[kept.after]);
            let mut told = |done: io::Result<()>| {
                if let Err(error) = done {
                    warnings.push(format!("instance {}: {error}", host.path));
                }
            };
            if kept.files {
                told(shared.keeper.set_files(&host.path, host.files.clone()));
            }
            if let (true, Some(retries)) = (kept.syn_retries, host.syn_retries) {
                told(shared.keeper.set_syn_retries(&host.path, retries));
            }
        }
        for (at, instance) in next.plan.instances.iter().enumerate() {
            let path = &instance.common.path;
            for (key, spec) in new.iter().filter(|(key, _)| key.0 == *path) {
                if anew.contains(&path) || old.get(key) != Some(spec) {
                    work.run(hands, key.clone(), spec.clone(), &state.logs[at]);
                }
            }
        }
    }
}

/// Commands that are gone or others.
fn changed<'a>(old: &'a Runs, new: &'a Runs) -> impl Iterator<Item = &'a RunKey> {
    old.iter().filter(|(key, spec)| new.get(key) != Some(spec)).map(|(key, _)| key)
}

/// Puts a state in force, all in one command of the router thread. How long it took from the order on.
fn publish(
    shared: &Shared,
    state: Arc<State>,
    health: &Health,
    tuns: Vec<(EniIx, Tun)>,
    book: Arc<crate::model::credentials::CredentialBook>,
    services: Option<Arc<crate::services::Compiled>>,
) -> Result<Duration, Refused> {
    let tables = Tables::compile(state.clone(), &health.plan_for_names(&state.plan), book.clone());
    // Kept until after: the router thread shall not be the one that frees them.
    let _before = (shared.services.in_force(), credentials::current(&shared.credentials), shared.state());
    let (serving, credentials) = (shared.services.clone(), shared.credentials.clone());
    let besides = Box::new(move || {
        if let Some(services) = services {
            serving.replace(services);
        }
        credentials::replace(&credentials, book);
    });
    // Whoever asks for drops meanwhile waits: these are with the router, or in the history.
    let mut history = shared.drops();
    let (clock, ordered) = (shared.clock, shared.clock.now());
    let (published, in_force) = shared.router.call(move |inside| {
        let published = inside.publish(Publication { tables, tuns, besides });
        (published, clock.now())
    })?;
    let took = in_force.since(ordered);
    let Retired { tables, tuns, drops } = published.map_err(|e| host("a new interface", &e))?;
    shared.replace_state(state);
    history.keep(dropped::tell(&tables.plan, drops.iter(), &|at| clock.unix_ms(at)));
    drop((history, tables, tuns));
    Ok(took)
}

fn host(what: &str, error: &io::Error) -> Refused {
    Refused { message: format!("{what}: {error}"), exit: 3 }
}

/// Writes the text beside the one in force: what may fail is done before the change.
fn lay_text_ready(shared: &Shared, accepted: &Accepted) -> io::Result<()> {
    let path = shared.run_dir.join(NEW_TEXT);
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(accepted.to_json().as_bytes())?;
    file.sync_data()
}

fn take_text(shared: &Shared) -> io::Result<()> {
    std::fs::rename(shared.run_dir.join(NEW_TEXT), shared.run_dir.join(store::FILE))
}

const NEW_TEXT: &str = "accepted.json.new";
