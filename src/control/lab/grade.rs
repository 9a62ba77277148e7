//! Whether a check holds, what it saw, and which red line is the cause of the others.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Check, Hint, Step, WantedDrop};
use crate::control::checks::{self, CheckResult, Ran};

/// What came of asking a check.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// As a topology's checks are judged.
    pub result: Option<CheckResult>,
    /// Of a command or a query: what the patterns are laid against.
    pub ran: Option<Ran>,
    /// Drops recorded meanwhile: code, object, rule.
    pub drops: Vec<(String, String, String)>,
    /// Of a flow: whether it exists, and whether bytes came back on it.
    pub flow: Option<(bool, bool)>,
    pub took: Duration,
    /// Why it could not be asked at all.
    pub failed: Option<String>,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    pub id: String,
    pub layer: &'static str,
    pub title: String,
    pub mark: Mark,
    pub expected: String,
    pub seen: String,
    /// Must hold all the time; red, it was broken by a fix, or the fix is too wide.
    pub guard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Ok,
    /// The first that does not hold: the cause.
    Red,
    /// Not asked: what is before it does not hold.
    Blocked,
}

/// The order in which they are asked: system, DNS, path, filter, application; of one layer as written.
pub fn order(checks: &[Check]) -> Vec<&Check> {
    let mut sorted: Vec<&Check> = checks.iter().collect();
    sorted.sort_by_key(|c| c.layer);
    sorted
}

/// Judges one check.
pub fn judge(check: &Check, seen: &Seen) -> Line {
    let mut faults: Vec<String> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    if let Some(why) = &seen.failed {
        faults.push(why.clone());
    }
    if let Some(result) = &seen.result {
        if result.ok {
            notes.push(result.seen.clone());
        } else {
            let rule = if result.rule.is_empty() { String::new() } else { format!(", decided by {}", result.rule) };
            faults.push(format!("{}{rule}", result.seen));
        }
    }
    if let super::What::Flow { alive, .. } = check.what {
        match seen.flow {
            Some((true, moves)) if moves == alive => notes.push(if alive { "alive" } else { "silent" }.into()),
            // Nothing there is as silent as can be.
            Some((false, _)) if !alive => notes.push("no such flow".into()),
            Some((true, moves)) => faults.push(if moves { "alive" } else { "silent" }.into()),
            Some((false, _)) => faults.push("no such flow".into()),
            None => {}
        }
    }
    if let Some(ran) = &seen.ran {
        faults.extend(output_faults(check, ran));
    }
    let also = &check.also;
    if also.after.is_some_and(|d| seen.took < d) || also.before.is_some_and(|d| seen.took >= d) {
        faults.push(format!("after {} ms", seen.took.as_millis()));
    }
    if let Some(wanted) = &also.drop
        && !seen.drops.iter().any(|(code, object, _)| drop_fits(wanted, code, object))
    {
        faults.push(format!("no drop {}", drop_text(wanted)));
    }
    let mut text = if faults.is_empty() { notes.join(", ") } else { faults.join(", ") };
    if let Some(drops) = drops_text(&seen.drops) {
        let _ = write!(text, "; dropped: {drops}");
    }
    Line {
        id: check.id.clone(),
        layer: check.layer.as_str(),
        title: check.plan.title.clone(),
        mark: if faults.is_empty() { Mark::Ok } else { Mark::Red },
        expected: expected(check),
        seen: text,
        guard: false,
    }
}

/// A line for a check that is not asked because an earlier one is red.
pub fn blocked(check: &Check) -> Line {
    Line {
        id: check.id.clone(),
        layer: check.layer.as_str(),
        title: check.plan.title.clone(),
        mark: Mark::Blocked,
        expected: expected(check),
        seen: String::new(),
        guard: false,
    }
}

/// The cause: the first red line.
pub fn first_red(lines: &[Line]) -> Option<&Line> {
    lines.iter().find(|line| line.mark == Mark::Red)
}

/// A hint as it is told: which of how many, from a question to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Told<'a> {
    pub text: &'a str,
    /// From 1.
    pub number: usize,
    pub of: usize,
}

/// The group of hints for what is red first, by its place in the step: those that name this check and what it saw, else
/// those for any state.
pub fn hints_for(step: &Step, red: Option<&Line>) -> Option<usize> {
    let fits = |hint: &Hint| match (&hint.when, red) {
        (Some((check, saw)), Some(red)) => check == &red.id && saw.as_ref().is_none_or(|s| s.is_match(&red.seen)),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let own = step.hints.iter().position(|hint| hint.when.is_some() && fits(hint));
    own.or_else(|| step.hints.iter().position(fits))
}

/// The next hint of a group of which `told` were given; the last one again when there is no plainer one.
pub fn next_hint(step: &Step, group: usize, told: usize) -> Option<Told<'_>> {
    let texts = &step.hints.get(group)?.texts;
    let at = told.min(texts.len().saturating_sub(1));
    texts.get(at).map(|text| Told { text, number: at + 1, of: texts.len() })
}

/// The report of a step, a line or two per check.
pub fn render(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut cause = true;
    for line in lines {
        let mark = match line.mark {
            Mark::Ok => "ok     ",
            Mark::Red => "RED    ",
            Mark::Blocked => "blocked",
        };
        let kind = if line.guard { "guard" } else { line.layer };
        let closed = line.mark == Mark::Ok && is_failure(&line.expected);
        let wanted = if closed { format!(": {}, as it should be", line.expected) } else { String::new() };
        // In full where it is to be looked at.
        let title = if line.mark == Mark::Red { line.title.clone() } else { shortened(&line.title) };
        let _ = writeln!(out, "{mark} {kind:12} {title}{wanted}");
        match line.mark {
            Mark::Ok => {}
            Mark::Red => {
                let _ = writeln!(out, "                     wanted {}", line.expected);
                let _ = writeln!(out, "                     seen   {}", line.seen);
                if line.guard {
                    let _ = writeln!(
                        out,
                        "                     this must hold all the time: a change broke it, or opened too much"
                    );
                } else if std::mem::take(&mut cause) {
                    let _ = writeln!(out, "                     this is the first cause to look at");
                }
            }
            Mark::Blocked => {}
        }
    }
    out
}

/// Scripts are long, and a line is enough to know one by: its beginning and its end, which says where it goes.
fn shortened(title: &str) -> String {
    const LONGEST: usize = 110;
    const END: usize = 30;
    let count = title.chars().count();
    if count <= LONGEST {
        return title.to_owned();
    }
    let end: String = title.chars().skip(count - END).collect();
    format!("{} ... {end}", title.chars().take(LONGEST - END - 5).collect::<String>())
}

/// A check that holds by failing, which must not read as if a way were open: a drop code, another exit code than 0.
fn is_failure(expected: &str) -> bool {
    expected.starts_with(|c: char| c.is_ascii_uppercase())
        || ["unreachable", "silent"].iter().any(|word| expected.starts_with(word))
        || expected.strip_prefix("exit ").is_some_and(|rest| !rest.starts_with('0'))
}

/// The expectation in words.
fn expected(check: &Check) -> String {
    let also = &check.also;
    let mut parts = match &check.what {
        super::What::Flow { alive: true, .. } => vec!["alive".to_owned()],
        super::What::Flow { alive: false, .. } => vec!["silent".to_owned()],
        super::What::AsInTopology => vec![checks::expected(&check.plan)],
    };
    let patterns = [
        ("stdout matches", &also.stdout),
        ("stderr matches", &also.stderr),
        ("stdout does not match", &also.not_stdout),
        ("stderr does not match", &also.not_stderr),
    ];
    for (what, pattern) in patterns {
        parts.extend(pattern.as_ref().map(|p| format!("{what} {}", p.as_str().trim_start_matches("(?m)"))));
    }
    parts.extend(also.not_in_cidr.map(|block| format!("no address in {block}")));
    parts.extend(also.after.map(|d| format!("after {} ms or more", d.as_millis())));
    parts.extend(also.before.map(|d| format!("before {} ms", d.as_millis())));
    parts.extend(also.drop.as_ref().map(|d| format!("drop {}", drop_text(d))));
    parts.join(", ")
}

fn output_faults(check: &Check, ran: &Ran) -> Vec<String> {
    let also = &check.also;
    let mut faults = Vec::new();
    for (name, text, wanted, unwanted) in [
        ("stdout", &ran.stdout, &also.stdout, &also.not_stdout),
        ("stderr", &ran.stderr, &also.stderr, &also.not_stderr),
    ] {
        if wanted.as_ref().is_some_and(|p| !p.is_match(text)) || unwanted.as_ref().is_some_and(|p| p.is_match(text)) {
            let first = text.trim().lines().next().unwrap_or_default();
            faults.push(format!("{name} {first:?}"));
        }
    }
    if let Some(block) = also.not_in_cidr
        && (ran.addresses.is_empty() || ran.addresses.iter().any(|a| block.contains(*a)))
    {
        let all: Vec<String> = ran.addresses.iter().map(ToString::to_string).collect();
        faults.push(if all.is_empty() { "no address".to_owned() } else { format!("addresses {}", all.join(", ")) });
    }
    faults
}

/// An object may be written without its VPC.
fn drop_fits(wanted: &WantedDrop, code: &str, object: &str) -> bool {
    wanted.code == code
        && wanted.object.as_ref().is_none_or(|w| {
            w == object
                || match (w.split_once(':'), object.split_once(':')) {
                    (Some((kind, name)), Some((of, path))) => {
                        kind == of && path.split_once('.').is_some_and(|(_, bare)| bare == name)
                    }
                    _ => false,
                }
        })
}

fn drop_text(wanted: &WantedDrop) -> String {
    match &wanted.object {
        Some(object) => format!("{} at {object}", wanted.code),
        None => wanted.code.clone(),
    }
}

/// The drops in words, each once, at most three.
fn drops_text(drops: &[(String, String, String)]) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for (code, object, rule) in drops {
        let rule = if rule.is_empty() { String::new() } else { format!(" ({rule})") };
        let text = format!("{code} at {object}{rule}");
        if !texts.contains(&text) && texts.len() < 3 {
            texts.push(text);
        }
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::{Lab, read};
    use super::*;
    use crate::model::Source;

    fn lab(check: &str) -> Lab {
        let text = format!(
            "format: 1\nid: x\ntitle: t\nsymptom:\n  - {{ on: a, run: curl x, expect: {{ exit: 28 }} }}\nsteps:\n  - id: fix\n    say: s\n    check:\n{check}    hints:\n      - {{ when: {{ check: b, saw: NACL }}, text: [one, two] }}\n      - {{ text: [any] }}\n"
        );
        read(&Source::new("lab.yaml", text)).unwrap_or_else(|r| panic!("{}", r.render(false)))
    }

    fn ran(exit: i32, stderr: &str) -> Seen {
        Seen { ran: Some(Ran { exit, stderr: stderr.into(), ..Ran::default() }), ..Seen::default() }
    }

    #[test]
    fn causes_are_asked_for_from_the_name_to_the_application() {
        let lab = lab(
            "      - { id: a, on: a, run: curl x }\n      - { id: b, on: a, to: 'x:1' }\n      - { id: c, on: a, dns: x }\n",
        );
        let ids: Vec<&str> = order(&lab.steps[0].check).iter().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["c", "b", "a"]);
    }

    #[test]
    fn a_refusal_in_no_time_is_no_timeout() {
        let lab = lab(
            "      - { id: b, on: a, run: x, expect: { exit: 28, stderr: Timeout, after: 1.9s }, drop: SG_INGRESS at sg:doors }\n",
        );
        let check = &lab.steps[0].check[0];
        let mut seen = ran(28, "curl: (28) Timeout was reached");
        seen.took = Duration::from_secs(2);
        assert_eq!(judge(check, &seen).mark, Mark::Red, "no drop was recorded");
        seen.drops.push(("SG_INGRESS".into(), "sg:vpc.doors".into(), "1 rule, no match".into()));
        assert_eq!(judge(check, &seen).mark, Mark::Ok);
        seen.drops[0].1 = "sg:vpc.other".into();
        assert_eq!(judge(check, &seen).mark, Mark::Red, "another group");
        seen.drops[0].1 = "sg:vpc.doors".into();
        seen.took = Duration::from_millis(3);
        let line = judge(check, &seen);
        assert_eq!((line.mark, line.seen.contains("after 3 ms")), (Mark::Red, true), "{}", line.seen);
        seen.took = Duration::from_secs(2);
        assert_eq!(judge(check, &Seen { ran: ran(28, "refused").ran, ..seen }).mark, Mark::Red, "other words");
    }

    #[test]
    fn what_is_closed_and_should_be_does_not_read_as_open() {
        let lab = lab("      - { id: b, on: a, to: '10.0.0.1:22', expect: SG_INGRESS }\n");
        let line = judge(&lab.steps[0].check[0], &Seen::default());
        assert_eq!(render(&[line]), "ok      path         a to 10.0.0.1:22: SG_INGRESS, as it should be\n");
        assert!(is_failure("exit 28, after 1900 ms or more") && is_failure("silent") && is_failure("unreachable"));
        let long = format!("app-a run {}, meanwhile changes/tunnel-1-fails.patch.yaml", "x é;".repeat(60));
        let short = shortened(&long);
        assert!(
            short.chars().count() == 110 && short.starts_with("app-a run x é") && short.ends_with("fails.patch.yaml")
        );
        assert_eq!(shortened("app-a run x"), "app-a run x");
        assert!(!is_failure("exit 0 via nat") && !is_failure("alive") && !is_failure("reachable via endpoint:sts"));
    }

    #[test]
    fn a_flow_that_is_gone_is_silent_and_not_alive() {
        let lab =
            lab("      - { id: b, on: a, flow: 'db:1', expect: silent }\n      - { id: c, on: a, flow: 'db:1' }\n");
        let mark = |n: usize, flow| judge(&lab.steps[0].check[n], &Seen { flow: Some(flow), ..Seen::default() }).mark;
        assert_eq!(
            [mark(0, (false, false)), mark(0, (true, false)), mark(0, (true, true))],
            [Mark::Ok, Mark::Ok, Mark::Red]
        );
        assert_eq!(
            [mark(1, (false, false)), mark(1, (true, false)), mark(1, (true, true))],
            [Mark::Red, Mark::Red, Mark::Ok]
        );
    }

    #[test]
    fn hints_go_by_what_is_red_and_grow_plainer() {
        let lab = lab("      - { id: b, on: a, run: x }\n");
        let step = &lab.steps[0];
        let red = |seen: &str| Line { seen: seen.into(), ..judge(&step.check[0], &ran(28, "")) };
        let hint = |red: Option<&Line>, told| {
            let group = hints_for(step, red).expect("a group");
            next_hint(step, group, told).map(|t| (t.text, t.number, t.of))
        };
        assert_eq!(hint(Some(&red("NACL_IN")), 0), Some(("one", 1, 2)));
        assert_eq!(hint(Some(&red("NACL_IN")), 1), Some(("two", 2, 2)));
        assert_eq!(hint(Some(&red("NACL_IN")), 7), Some(("two", 2, 2)), "the plainest again");
        assert_eq!(hint(Some(&red("SG_INGRESS")), 0), Some(("any", 1, 1)));
        assert_eq!(hint(None, 0), Some(("any", 1, 1)));
    }
}
