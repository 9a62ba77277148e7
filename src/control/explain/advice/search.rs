//! The fewest changes that make a connection work. Each is made in a copy of the plan (or of the question), and the
//! question is asked again; what does not lead to a yes is not told.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::super::{Destination, Explanation, Facts, Request, stages};
use super::{endpoints, routes, rules};
use crate::dns;
use crate::engine::{Engine, EngineLimits, compile};
use crate::model::Plan;

/// More lines of advice nobody follows.
const LINES_MAX: usize = 6;
/// A thing that is new to the file stands for this many changes more: what is there is used first.
const NEW: usize = 2;
/// Lines and what is new.
const WEIGHT_MAX: usize = LINES_MAX + 2 * NEW;
/// Questions asked before the search gives up.
const TRIALS_MAX: usize = 64;
/// The same for large labs, where each question costs a compilation: interfaces compiled in all.
const ENIS_MAX: usize = 100_000;

/// A lab and a question about it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) plan: Plan,
    /// Index in `Plan::instances`. No change adds or removes any.
    pub(super) src: usize,
    pub(super) destination: Destination,
    pub(super) request: Option<Request>,
}

/// What could be done about one refusal.
pub(super) struct Change {
    /// In the words of the file, one for each place of it.
    lines: Vec<String>,
    weight: usize,
    edit: Box<dyn Fn(&mut World)>,
}

impl Change {
    pub(super) fn new(line: impl Into<String>, edit: impl Fn(&mut World) + 'static) -> Change {
        Change { lines: vec![line.into()], weight: 1, edit: Box::new(edit) }
    }

    /// The change makes something that the file has not yet.
    pub(super) fn of_new(self) -> Change {
        Change { weight: self.weight + NEW, ..self }
    }

    pub(super) fn and(self, next: Change) -> Change {
        let Change { mut lines, weight, edit } = self;
        lines.extend(next.lines);
        Change {
            lines,
            weight: weight + next.weight,
            edit: Box::new(move |world| {
                edit(world);
                (next.edit)(world);
            }),
        }
    }

    /// Behind another, unless that is a part of it already.
    pub(super) fn after(self, first: Change) -> Change {
        if first.lines.iter().all(|line| self.lines.contains(line)) { self } else { first.and(self) }
    }

    /// `ask for https://s3.eu-west-1.amazonaws.com`: nothing is wrong with the lab, another question is the way.
    pub(super) fn ask_for(destination: Destination) -> Change {
        Change::new(format!("ask for {}", destination.text), move |world| world.destination = destination.clone())
    }
}

/// A world that was asked and says no; its changes wait to be tried.
struct Refused {
    world: World,
    told: Explanation,
    lines: Vec<String>,
    weight: usize,
}

/// The lines of the fewest changes after which `told`'s question is answered with yes; none where none were found.
pub(super) fn fewest(
    facts: &Facts<'_>,
    (src, port): (usize, Option<u16>),
    request: Option<&Request>,
    told: &Explanation,
) -> Vec<String> {
    let destination = told.destination.clone();
    let world = World { plan: facts.plan.clone(), src, destination, request: request.cloned() };
    let fresh = ask(facts, port, &world);
    if fresh.reachable || fresh.code != told.code {
        // What the lab has in its tables by now is the cause, not what it is.
        return rules::of_state(facts.plan, told);
    }
    let mut trials = (ENIS_MAX / facts.plan.enis.len().max(1)).clamp(4, TRIALS_MAX);
    let mut tried: HashSet<Vec<String>> = HashSet::new();
    // By weight: what comes first weighs least.
    let mut waiting: Vec<VecDeque<(Rc<Refused>, Change)>> = (0..=WEIGHT_MAX).map(|_| VecDeque::new()).collect();
    let root = Rc::new(Refused { world, told: fresh, lines: Vec::new(), weight: 0 });
    spread(facts, &root, &mut waiting);
    while let Some((before, change)) = waiting.iter_mut().find_map(VecDeque::pop_front) {
        let mut lines = before.lines.clone();
        lines.extend(change.lines.iter().cloned());
        let mut key = lines.clone();
        key.sort_unstable();
        if !tried.insert(key) {
            continue;
        }
        if trials == 0 {
            break;
        }
        trials -= 1;
        let mut world = before.world.clone();
        (change.edit)(&mut world);
        let told = ask(facts, port, &world);
        if told.reachable {
            return lines;
        }
        if !same_refusal(&told, &before.told) {
            let weight = before.weight + change.weight;
            spread(facts, &Rc::new(Refused { world, told, lines, weight }), &mut waiting);
        }
    }
    Vec::new()
}

/// Lines up what could be done next.
fn spread(facts: &Facts<'_>, at: &Rc<Refused>, waiting: &mut [VecDeque<(Rc<Refused>, Change)>]) {
    let Refused { world, told, lines, weight } = &**at;
    for change in changes(facts, world, told) {
        if lines.len() + change.lines.len() > LINES_MAX {
            continue;
        }
        if let Some(queue) = waiting.get_mut(weight + change.weight) {
            queue.push_back((at.clone(), change));
        }
    }
}

fn changes(facts: &Facts<'_>, world: &World, told: &Explanation) -> Vec<Change> {
    let mut changes = endpoints::of_names(facts.leaf_names, world, told);
    changes.extend(rules::changes(world, told));
    if let (Some(record), Some(ends)) = (&told.dropped, told.ends) {
        changes.extend(endpoints::changes(world, told, record, ends));
        changes.extend(routes::changes(world, told, record, ends));
        changes.extend(endpoints::new_ones(world, told, record, ends));
    }
    changes
}

fn ask(facts: &Facts<'_>, port: Option<u16>, world: &World) -> Explanation {
    let plan = &world.plan;
    let zones = dns::compile(plan);
    let facts = Facts { plan, zones: &zones, leaf_names: facts.leaf_names };
    let engine = Engine::new(Arc::new(compile(plan, 1)), EngineLimits::default());
    stages(&facts, engine, (world.src, port), world.destination.clone(), world.request.as_ref())
}

/// A change after which the same is said of the same place has changed nothing.
fn same_refusal(a: &Explanation, b: &Explanation) -> bool {
    let of = |told: &Explanation| {
        let tuple = told.dropped.as_ref().map(|record| (record.decider, record.tuple, record.direction));
        (told.stage, told.code.clone(), told.object.clone(), told.rule.clone(), tuple)
    };
    of(a) == of(b) && a.destination == b.destination
}
