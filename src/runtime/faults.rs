//! The faults of a running lab: those of its file and those of `vpclab fault`, when each begins and ends, and what DNS
//! has noticed of them. Told the time; it asks no clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::Instant;
use crate::model::plan::{Fault, FaultPlan};
use crate::model::{Plan, fault};

/// Every fault that is known.
#[derive(Clone, Debug, Default)]
pub struct FaultBook {
    given: u32,
    held: Vec<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    id: u32,
    from: From,
    title: String,
    what: Fault,
    begins: Instant,
    ends: Option<Instant>,
    /// Ended by hand; one of the file stays known so that the next `apply` of the same file does not begin it again.
    cleared: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum From {
    /// With all that tells it from another of the file.
    File(String),
    /// In the words of the command, which are read again for every new plan.
    Command(Vec<String>),
}

/// One line of `fault list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: u32,
    pub title: String,
    pub by_file: bool,
    /// It has begun.
    pub begun: bool,
    /// Until it begins, or until it ends; `None`: until it is cleared.
    pub left: Option<Duration>,
    /// The fault that stands in its place while both hold: the last of a link.
    pub beaten_by: Option<u32>,
}

impl FaultBook {
    /// Takes a new plan: faults of its file that are new begin now (or `after`), those that are no longer in it end.
    /// Faults of commands stay, but for those whose object is gone: what became of them is told.
    pub fn follow(&mut self, plan: &Plan, now: Instant) -> Vec<String> {
        let mut told = Vec::new();
        let mut wanted: Vec<(String, &FaultPlan)> = Vec::new();
        for fault in &plan.faults {
            let key = format!("{} {:?} {:?}", fault.title, fault.after, fault.lasts);
            // The same fault twice in one file is two faults.
            let twins = wanted.iter().filter(|(k, _)| k.starts_with(&key)).count();
            wanted.push((format!("{key} {twins}"), fault));
        }
        self.held.retain_mut(|held| match &held.from {
            From::File(key) => match wanted.iter().position(|(k, _)| k == key) {
                Some(at) => {
                    held.what = wanted.remove(at).1.what.clone();
                    true
                }
                None => false,
            },
            From::Command(words) => match fault::parse(plan, &words.iter().map(String::as_str).collect::<Vec<_>>()) {
                Ok(again) => {
                    held.what = again.what;
                    true
                }
                Err(why) => {
                    told.push(format!("fault {} ({}) ends: {why}", held.id, held.title));
                    false
                }
            },
        });
        for (key, fault) in wanted {
            self.hold(From::File(key), fault.clone(), now);
        }
        told
    }

    /// A fault of `vpclab fault`; its id.
    ///
    /// # Errors
    /// A sentence about the words.
    pub fn add(
        &mut self,
        plan: &Plan,
        words: &[String],
        after: Option<Duration>,
        lasts: Option<Duration>,
        now: Instant,
    ) -> Result<u32, String> {
        let made = fault::parse(plan, &words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(self.hold(From::Command(words.to_vec()), FaultPlan { after, lasts, ..made }, now))
    }

    fn hold(&mut self, from: From, fault: FaultPlan, now: Instant) -> u32 {
        self.given += 1;
        let begins = fault.after.map_or(now, |after| now + after);
        let ends = fault.lasts.map(|lasts| begins + lasts);
        let FaultPlan { title, what, after: _, lasts: _, id: _ } = fault;
        self.held.push(Held { id: self.given, from, title, what, begins, ends, cleared: false });
        self.given
    }

    /// Ends one by its id, or all. How many there were.
    pub fn clear(&mut self, which: Option<u32>, now: Instant) -> usize {
        let mut ended = 0;
        for held in &mut self.held {
            if which.is_none_or(|id| id == held.id) && held.is_alive(now) {
                held.cleared = true;
                ended += 1;
            }
        }
        self.sweep(now);
        ended
    }

    /// Forgets what has ended.
    pub fn sweep(&mut self, now: Instant) {
        self.held.retain(|held| held.is_alive(now) || matches!(held.from, From::File(_)));
    }

    /// The faults that hold at `now`, as a plan in force has them.
    pub fn in_force(&self, now: Instant) -> Vec<FaultPlan> {
        let held = self.held.iter().filter(|held| held.is_alive(now) && held.begins <= now);
        held.map(|held| {
            let (title, what) = (held.title.clone(), held.what.clone());
            FaultPlan { id: held.id, title, what, after: None, lasts: None }
        })
        .collect()
    }

    /// When the next one begins or ends.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let alive = self.held.iter().filter(|held| held.is_alive(now));
        alive.filter_map(|held| if held.begins > now { Some(held.begins) } else { held.ends }).min()
    }

    pub fn list(&self, now: Instant) -> Vec<Listed> {
        let alive = self.held.iter().filter(|held| held.is_alive(now));
        alive
            .map(|held| {
                let begun = held.begins <= now;
                let until = if begun { held.ends } else { Some(held.begins) };
                Listed {
                    id: held.id,
                    title: held.title.clone(),
                    by_file: matches!(held.from, From::File(_)),
                    begun,
                    left: until.map(|at| at.since(now)),
                    beaten_by: self.winner_over(held, now),
                }
            })
            .collect()
    }
}

impl FaultBook {
    /// Of several faults of one link, the last one listed holds alone.
    fn winner_over(&self, held: &Held, now: Instant) -> Option<u32> {
        let Fault::Link { instance, .. } = held.what else { return None };
        let same = |other: &&Held| matches!(other.what, Fault::Link { instance: at, .. } if at == instance);
        let holds = |other: &&Held| other.is_alive(now) && other.begins <= now;
        let last = self.held.iter().filter(same).rfind(holds)?;
        (last.id != held.id && held.begins <= now).then_some(last.id)
    }
}

impl Held {
    fn is_alive(&self, now: Instant) -> bool {
        !self.cleared && self.ends.is_none_or(|ends| ends > now)
    }
}

/// What DNS knows of interfaces that have failed: later than the packets (`limits.endpoint_health`), both ways.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// ENI ids that names lead past.
    told: BTreeSet<String>,
    /// ENI ids of which the truth is another, and when it will be told.
    due: BTreeMap<String, Instant>,
}

impl Health {
    /// Looks at the plan in force. True if what DNS should say has changed.
    pub fn look(&mut self, plan: &Plan, now: Instant) -> bool {
        let sick: BTreeSet<String> = plan.sick_enis().iter().map(|ix| plan.eni(*ix).common.id.clone()).collect();
        let there: BTreeSet<&str> = plan.enis.iter().map(|eni| eni.common.id.as_str()).collect();
        let before = self.told.clone();
        self.told.retain(|id| there.contains(id.as_str()));
        let differ: BTreeSet<String> = sick.symmetric_difference(&self.told).cloned().collect();
        self.due.retain(|id, _| differ.contains(id));
        for id in &differ {
            self.due.entry(id.clone()).or_insert_with(|| now + plan.limits.endpoint_health);
        }
        let ripe: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in ripe {
            self.due.remove(&id);
            if !self.told.remove(&id) {
                self.told.insert(id);
            }
        }
        before != self.told
    }

    /// When [`Health::look`] will find something.
    pub fn next_change(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The plan as DNS should know it.
    pub fn plan_for_names<'a>(&self, plan: &'a Plan) -> Cow<'a, Plan> {
        if plan.faults.is_empty() && self.told.is_empty() {
            return Cow::Borrowed(plan);
        }
        let mut faults = Vec::new();
        for (endpoint, of) in plan.endpoints.iter().enumerate() {
            let sick = of.enis.iter().copied().filter(|ix| self.told.contains(&plan.eni(*ix).common.id));
            let enis: Vec<_> = sick.collect();
            if !enis.is_empty() {
                let what = Fault::Endpoint { endpoint, enis };
                faults.push(FaultPlan { id: 0, title: of.common.path.clone(), what, after: None, lasts: None });
            }
        }
        Cow::Owned(Plan { faults, ..plan.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::plan_of;

    const LAB: &str = "version: 1
name: t
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: b } }
    instances: { one: { subnet: a }, two: { subnet: b } }
    endpoints: { sqs: { subnets: [a, b] } }
";

    fn plan(patch: &str) -> Plan {
        plan_of(&[LAB, patch])
    }

    fn seconds(s: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(s)
    }

    fn titles(book: &FaultBook, at: u64) -> Vec<String> {
        book.in_force(seconds(at)).into_iter().map(|f| f.title).collect()
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn faults_begin_and_end_in_time() {
        let plan = plan("faults: [ { az: a, after: 5s, for: 10s }, { instance: one } ]");
        let mut book = FaultBook::default();
        assert_eq!(book.follow(&plan, seconds(100)), [""; 0]);
        assert_eq!(titles(&book, 100), ["instance app.one"]);
        assert_eq!(book.next_change(seconds(100)), Some(seconds(105)));
        assert_eq!(titles(&book, 105), ["az a", "instance app.one"]);
        assert_eq!(book.next_change(seconds(105)), Some(seconds(115)));
        assert_eq!(titles(&book, 115), ["instance app.one"]);
        assert_eq!(book.next_change(seconds(115)), None);

        let id = book.add(&plan, &words("endpoint sqs b"), None, Some(Duration::from_secs(30)), seconds(120));
        assert_eq!(id, Ok(3));
        let listed = book.list(seconds(125));
        assert_eq!(listed.len(), 2);
        assert_eq!((listed[1].begun, listed[1].left), (true, Some(Duration::from_secs(25))));
        assert_eq!(book.clear(Some(3), seconds(126)), 1);
        assert_eq!(book.clear(Some(3), seconds(126)), 0);
        assert!(book.add(&plan, &words("az q"), None, None, seconds(0)).is_err_and(|e| e.contains("`q`")));
    }

    #[test]
    fn faults_of_one_link_are_told_with_their_values_and_with_the_one_that_holds() {
        let plan = plan("faults: [ { link: one, delay: 20ms, loss: 1% } ]");
        let mut book = FaultBook::default();
        book.follow(&plan, seconds(0));
        book.add(&plan, &words("link one rate 10mbit"), None, Some(Duration::from_secs(10)), seconds(1)).expect("one");
        book.add(&plan, &words("link one down"), Some(Duration::from_secs(30)), None, seconds(1)).expect("one");
        book.add(&plan, &words("link two loss 5%"), None, None, seconds(1)).expect("two");
        let list = |at: u64| -> Vec<(u32, String, Option<u32>)> {
            book.list(seconds(at)).into_iter().map(|l| (l.id, l.title, l.beaten_by)).collect()
        };
        let row = |id, title: &str, beaten| (id, title.to_owned(), beaten);
        let (first, two) = ("link app.one delay 20ms loss 1%", "link app.two loss 5%");
        let (rate, down) = ("link app.one rate 10mbit", "link app.one down");
        let all = [row(1, first, Some(2)), row(2, rate, None), row(3, down, None), row(4, two, None)];
        assert_eq!(list(2), all, "the third is still to come");
        assert_eq!(list(15), [row(1, first, None), row(3, down, None), row(4, two, None)]);
        assert_eq!(list(40), [row(1, first, Some(3)), row(3, down, None), row(4, two, None)]);
    }

    #[test]
    fn a_new_plan_keeps_what_is_in_both_and_what_was_cleared() {
        let first = plan("faults: [ { az: a }, { instance: two } ]");
        let mut book = FaultBook::default();
        book.follow(&first, seconds(0));
        book.add(&first, &words("link one down"), None, None, seconds(1)).expect("an instance");
        assert_eq!(book.clear(Some(1), seconds(2)), 1);
        assert_eq!(titles(&book, 2), ["instance app.two", "link app.one down"]);

        book.follow(&first, seconds(3));
        assert_eq!(titles(&book, 3), ["instance app.two", "link app.one down"], "the cleared one does not come back");

        // `one` is gone, `two` has another index, and the file's second fault is gone.
        let second = plan("faults: [ { az: b } ]\nvpcs: { app: { instances: { one: null } } }");
        let told = book.follow(&second, seconds(4));
        assert!(told.len() == 1 && told[0].contains("link app.one") && told[0].contains("no instance"), "{told:?}");
        assert_eq!(titles(&book, 4), ["az b"]);
        // And back in the file, it begins again.
        book.follow(&first, seconds(5));
        assert_eq!(titles(&book, 5), ["az a", "instance app.two"]);
    }

    #[test]
    fn dns_hears_of_a_failed_zone_later_and_of_its_return_too() {
        let mut plan = plan("{}");
        let mut book = FaultBook::default();
        let mut health = Health::default();
        assert!(!health.look(&plan, seconds(0)));
        let sick = |health: &Health, plan: &Plan| health.plan_for_names(plan).sick_enis();
        book.add(&plan, &words("az a"), None, None, seconds(10)).expect("a zone");
        plan.faults = book.in_force(seconds(10));
        assert_eq!(plan.sick_enis().len(), 1);
        assert!(!health.look(&plan, seconds(10)));
        assert_eq!(sick(&health, &plan), []);
        assert_eq!(health.next_change(), Some(seconds(40)));
        assert!(health.look(&plan, seconds(40)));
        assert_eq!(sick(&health, &plan), plan.sick_enis());

        book.clear(None, seconds(50));
        plan.faults = book.in_force(seconds(50));
        assert!(!health.look(&plan, seconds(50)));
        assert_eq!(sick(&health, &plan).len(), 1, "still out");
        // It fails again before DNS has heard that it is well: nothing changes.
        book.add(&plan, &words("az a"), None, None, seconds(60)).expect("a zone");
        plan.faults = book.in_force(seconds(60));
        assert!(!health.look(&plan, seconds(60)));
        assert_eq!(health.next_change(), None);
        book.clear(None, seconds(70));
        plan.faults = book.in_force(seconds(70));
        assert!(!health.look(&plan, seconds(70)));
        assert!(health.look(&plan, seconds(100)));
        assert_eq!(sick(&health, &plan), []);
    }
}
