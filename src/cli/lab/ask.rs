//! Asking a lab's check of a running lab: the commands, packets and queries behind [`control::lab`](crate::control::lab).
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use super::super::common::Failure;
use super::super::test::Live;
use super::{Chosen, world};
use crate::control::api::{DropRow, Filter, FlowRow, Reply, Request};
use crate::control::checks::{self, Ran};
use crate::control::lab::{Change, Check, Line, Mark, Seen, Step, What, blocked, judge, order};
use crate::model::Plan;
use crate::model::plan::{CheckPlan, CheckWhat};

/// How long a flow is watched for bytes that come back.
const WATCH: Duration = Duration::from_millis(1_500);
/// Between two looks, and between two askings of a check that is retried.
const PAUSE: Duration = Duration::from_millis(150);
/// Drops are asked for so much further back than a check took; those that were known before it are left out.
const SLACK: Duration = Duration::from_secs(1);
/// A step is solved by two passes within 2 s; this much lies between them.
const AGAIN: Duration = Duration::from_millis(300);

/// What a command gave, how long it took, and the drops meanwhile: code, object, rule.
type Told = (Result<Ran, Failure>, Duration, Vec<(String, String, String)>);

/// The running lab that is asked.
pub struct Asker<'a> {
    live: Live<'a>,
    chosen: &'a Chosen,
}

impl<'a> Asker<'a> {
    pub fn new(plan: &'a Plan, chosen: &'a Chosen) -> std::io::Result<Asker<'a>> {
        Ok(Asker { live: Live { plan, exe: std::env::current_exe()? }, chosen })
    }

    /// The checks and guards of a step, in order of their layers; after the first that is red, those behind it are
    /// blocked. Guards come last and are asked in any case. All green: asked a second time, and both must be.
    pub fn step(&self, step: &Step) -> Vec<Line> {
        let first = self.once(step);
        if first.iter().any(|line| line.mark != Mark::Ok) {
            return first;
        }
        std::thread::sleep(AGAIN);
        self.once(step)
    }

    /// Whether a check or guard is red; asks no further than the first.
    pub fn any_red(&self, step: &Step) -> bool {
        order(&step.check).into_iter().chain(&step.guard).any(|check| self.check(check, check.retry).mark == Mark::Red)
    }

    /// One pass of that.
    pub fn once(&self, step: &Step) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for check in order(&step.check) {
            let stopped = lines.iter().any(|line| line.mark == Mark::Red);
            lines.push(if stopped { blocked(check) } else { self.check(check, check.retry) });
        }
        lines.extend(step.guard.iter().map(|check| Line { guard: true, ..self.check(check, check.retry) }));
        lines
    }

    /// One check, asked again until it is green or `retry` has passed.
    pub fn check(&self, check: &Check, retry: Duration) -> Line {
        self.check_and_output(check, retry).0
    }

    /// The same with what its command printed, for the story's quotations.
    pub fn check_and_output(&self, check: &Check, retry: Duration) -> (Line, String) {
        let deadline = Instant::now() + retry;
        loop {
            let seen = self.see(check);
            let line = judge(check, &seen);
            if line.mark == Mark::Ok || Instant::now() >= deadline {
                return (line, seen.ran.map(|ran| ran.stdout + &ran.stderr).unwrap_or_default());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn see(&self, check: &Check) -> Seen {
        let plan = self.live.plan;
        let from = match check.on.as_str() {
            "any" => None,
            name => match plan.find_instance(name) {
                Ok(at) => Some(at),
                Err(_) => {
                    let failed = Some(format!("there is no instance {name} now"));
                    return Seen { failed, ..Seen::default() };
                }
            },
        };
        let asked = CheckPlan { from, ..check.plan.clone() };
        // What was dropped just before is no answer: the check before this one may have wanted it.
        let all = check.also.drop.is_some();
        let before = self.drops(from, Duration::ZERO, all);
        let began = Instant::now();
        let mut seen = Seen::default();
        match (&check.what, &asked.what, from) {
            (What::Flow { to, port, .. }, _, Some(at)) => seen.flow = Some(self.flow(at, to, *port)),
            (_, CheckWhat::Run(cmd), Some(at)) => {
                let run = || {
                    let ran = self.live.ran(at, cmd, asked.within, check.user.as_deref());
                    let took = began.elapsed();
                    // Before a change is taken back: drops at what it brought are forgotten with it.
                    (ran, took, self.new_drops(from, took, all, &before))
                };
                let (ran, took, drops) = self.meanwhile(check.change.as_ref(), run);
                (seen.took, seen.drops) = (took, drops);
                match ran {
                    Ok(ran) => {
                        seen.result = Some(checks::judge_ran(&asked, &ran));
                        seen.ran = Some(ran);
                    }
                    Err(failure) => seen.failed = Some(failure.message),
                }
            }
            (_, CheckWhat::Dns(name, rtype), Some(at)) => match self.live.answers(at, name, rtype) {
                Ok(ran) => {
                    seen.result = Some(checks::judge_ran(&asked, &ran));
                    seen.ran = Some(ran);
                }
                Err(why) => seen.failed = Some(why),
            },
            _ => seen.result = Some(self.live.judge(&asked)),
        }
        if seen.took.is_zero() {
            seen.took = began.elapsed();
        }
        if matches!(asked.what, CheckWhat::To(_)) && seen.flow.is_none() {
            seen.drops = self.new_drops(from, began.elapsed(), all, &before);
        }
        seen
    }

    /// Runs a command; where its check says so, the lab is changed while it runs, and changed back.
    fn meanwhile(&self, change: Option<&Change>, run: impl Fn() -> Told + Sync) -> Told {
        let Some(change) = change else { return run() };
        let name = &self.live.plan.name;
        let failed = |failure: Failure, told: Told| (Err(failure), told.1, told.2);
        std::thread::scope(|scope| {
            let running = scope.spawn(&run);
            std::thread::sleep(change.after);
            let over = running.is_finished();
            let before = if over { None } else { Some(world::lay(name, self.chosen, &change.patch)) };
            let Ok(told) = running.join() else {
                return (Err(Failure::host("the command's thread ended")), change.after, Vec::new());
            };
            match before {
                // What fails by itself says so better.
                None if told.0.as_ref().is_ok_and(|ran| ran.exit == 0) => {
                    failed(Failure::host("the command ended before the change was made"), told)
                }
                None => told,
                Some(before) => match before.and_then(|before| world::change(name, before)) {
                    Ok(()) => told,
                    Err(failure) => failed(failure, told),
                },
            }
        })
    }

    /// Drops meanwhile: code, object, rule.
    fn new_drops(
        &self,
        asker: Option<usize>,
        took: Duration,
        all: bool,
        before: &[DropRow],
    ) -> Vec<(String, String, String)> {
        let rows = self.drops(asker, took, all);
        rows.into_iter().filter(|row| !before.contains(row)).map(|r| (r.code, r.object, r.rule)).collect()
    }

    /// The drops of the last second and of what a check `took`: those of the asker's packets; where a check wants one,
    /// everybody's, because an answer is dropped at the far end.
    fn drops(&self, asker: Option<usize>, took: Duration, all: bool) -> Vec<DropRow> {
        let plan = self.live.plan;
        let label = asker.map(|at| plan.eni_label(plan.instances[at].enis[0]));
        let filter = Filter {
            from: if all { None } else { label },
            since_ms: u64::try_from((took + SLACK).as_millis()).ok(),
            ..Filter::default()
        };
        let Ok(Reply::Drops(rows)) = self.live.ask(Request::Drops(filter)) else { return Vec::new() };
        rows
    }

    /// Whether a connection to this port exists, and whether bytes come back on it.
    fn flow(&self, asker: usize, to: &str, port: u16) -> (bool, bool) {
        let before = self.flows_to(asker, to, port);
        if before.is_empty() {
            return (false, false);
        }
        let deadline = Instant::now() + WATCH;
        while Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            let moved = |row: &FlowRow| before.iter().any(|b| b.src == row.src && row.bytes_in > b.bytes_in);
            if self.flows_to(asker, to, port).iter().any(moved) {
                return (true, true);
            }
        }
        (true, false)
    }

    fn flows_to(&self, asker: usize, to: &str, port: u16) -> Vec<FlowRow> {
        let plan = self.live.plan;
        let from = Some(plan.eni_label(plan.instances[asker].enis[0]));
        let filter = Filter { from, to: Some(to.to_owned()), ..Filter::default() };
        let Ok(Reply::Flows(rows)) = self.live.ask(Request::Flows(filter)) else { return Vec::new() };
        let port = format!(":{port}");
        rows.into_iter().filter(|row| row.dst.ends_with(&port) && row.state != "ended").collect()
    }
}
