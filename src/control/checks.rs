//! A file's `checks`: what was expected, what was seen, and whether they agree. Running a command or a live probe is the
//! caller's matter; this judges.

use serde::Serialize;

use crate::base::Cidr;
use crate::model::Plan;
use crate::model::plan::{CheckPlan, CheckWhat, Expect};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    pub line: u32,
    pub title: String,
    pub ok: bool,
    /// Not asked, because the tables alone cannot answer; neither passed nor failed.
    pub skipped: bool,
    pub expected: String,
    pub seen: String,
    /// The rule that decided, where one did.
    pub rule: String,
    pub millis: u64,
}

/// What a destination turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub reachable: bool,
    /// The drop code, if not.
    pub code: Option<String>,
    pub rule: String,
    /// `endpoint:s3`, `instance:web`: the way it took.
    pub way: Option<String>,
    /// What it passed on the way, and the kind of way: `nat:app.natgw-a`, `igw`, `nat`.
    pub passed: Vec<String>,
    /// A live connection may fare otherwise: it has one of the ports that get through, or another answers it.
    pub told_apart: bool,
}

/// What a command or query gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
    /// Addresses in a DNS answer.
    pub addresses: Vec<std::net::Ipv4Addr>,
    /// The ways its connections took: `endpoint:s3`.
    pub ways: Vec<String>,
    /// Drops of its flows, as `CODE at OBJECT`.
    pub drops: Vec<String>,
}

/// Judges a check of a destination.
pub fn judge_reached(check: &CheckPlan, reached: &Reached) -> CheckResult {
    let seen = match (&reached.code, reached.reachable) {
        (_, true) => reached.way.as_ref().map_or_else(|| "reachable".to_owned(), |way| format!("reachable via {way}")),
        (Some(code), false) => code.clone(),
        (None, false) => "unreachable".to_owned(),
    };
    let as_expected = match &check.expect {
        Expect::Reachable => reached.reachable,
        Expect::Unreachable => !reached.reachable,
        Expect::Code(code) => !reached.reachable && reached.code.as_deref() == Some(code.as_str()),
        // A destination has no exit code; `exit: 0` is read as reachable.
        Expect::Result { exit, .. } => reached.reachable == exit.is_none_or(|code| code == 0),
    };
    let ways: Vec<String> = reached.way.iter().chain(&reached.passed).cloned().collect();
    let (way_ok, way_note) = judge_ways(check, &ways, reached.reachable);
    result(check, as_expected && way_ok, seen + &way_note, reached.rule.clone())
}

/// Judges a check of a command or a DNS query.
pub fn judge_ran(check: &CheckPlan, ran: &Ran) -> CheckResult {
    let mut faults = Vec::new();
    match &check.expect {
        Expect::Reachable if ran.exit != 0 => faults.push(format!("exit {}", ran.exit)),
        Expect::Unreachable if ran.exit == 0 => faults.push("exit 0".to_owned()),
        Expect::Code(code) if !ran.drops.iter().any(|d| d.split(' ').next() == Some(code)) => {
            faults.push(format!("no {code}"));
        }
        Expect::Reachable | Expect::Unreachable | Expect::Code(_) => {}
        Expect::Result { exit, stdout, stderr, in_cidr } => {
            if exit.is_some_and(|code| code != ran.exit) {
                faults.push(format!("exit {}", ran.exit));
            }
            if stdout.as_ref().is_some_and(|text| !ran.stdout.contains(text.as_str())) {
                faults.push(format!("stdout {:?}", first_line(&ran.stdout)));
            }
            if stderr.as_ref().is_some_and(|text| !ran.stderr.contains(text.as_str())) {
                faults.push(format!("stderr {:?}", first_line(&ran.stderr)));
            }
            if let Some(block) = in_cidr
                && (ran.addresses.is_empty() || !ran.addresses.iter().all(|a| block.contains(*a)))
            {
                faults.push(format!("addresses {}", joined(&ran.addresses)));
            }
        }
    }
    let (way_ok, way_note) = judge_ways(check, &ran.ways, ran.exit == 0);
    let mut seen = if !faults.is_empty() {
        faults.join(", ")
    } else if ran.addresses.is_empty() {
        format!("exit {}", ran.exit)
    } else {
        joined(&ran.addresses)
    };
    seen.push_str(&way_note);
    if !ran.stderr.is_empty() && !faults.is_empty() {
        seen.push_str(&format!(" ({})", first_line(&ran.stderr)));
    }
    result(check, faults.is_empty() && way_ok, seen, ran.drops.join("; "))
}

/// A check that only a running lab can answer.
pub fn not_asked(check: &CheckPlan, why: String) -> CheckResult {
    CheckResult { skipped: true, ok: true, ..result(check, true, why, String::new()) }
}

/// A check that could not be made at all counts as failed, with the reason.
pub fn not_made(check: &CheckPlan, why: String) -> CheckResult {
    result(check, false, why, String::new())
}

fn judge_ways(check: &CheckPlan, ways: &[String], went: bool) -> (bool, String) {
    let mut note = String::new();
    let mut ok = true;
    if let Some(via) = &check.via
        && went
    {
        let took = ways.iter().any(|way| same_way(way, via));
        ok &= took;
        note = if took { format!(", via {via}") } else { format!(", not via {via} but {}", or_nothing(ways)) };
    }
    if let Some(not_via) = &check.not_via
        && ways.iter().any(|way| same_way(way, not_via))
    {
        ok = false;
        note = format!(", via {not_via}");
    }
    (ok, note)
}

/// `endpoint:s3` and `endpoint:app.s3` are the same way.
fn same_way(seen: &str, wanted: &str) -> bool {
    // `nat`, `internet`, `private`: a word for the kind of way.
    if !wanted.contains(':') {
        return seen == wanted || seen.split(':').next() == Some(wanted);
    }
    let split = |way: &str| way.split_once(':').map(|(k, n)| (k.to_owned(), n.to_owned())).unwrap_or_default();
    let ((seen_kind, seen_name), (kind, name)) = (split(seen), split(wanted));
    seen_kind == kind
        && (seen_name == name
            || seen_name.rsplit('.').next() == name.rsplit('.').next()
                && !(seen_name.contains('.') && name.contains('.')))
}

fn result(check: &CheckPlan, ok: bool, seen: String, rule: String) -> CheckResult {
    CheckResult {
        line: check.line,
        title: check.title.clone(),
        ok,
        skipped: false,
        expected: expected(check),
        seen,
        rule,
        millis: 0,
    }
}

/// The expectation in words.
pub fn expected(check: &CheckPlan) -> String {
    let mut text = match (&check.what, &check.expect) {
        (CheckWhat::Never(way), _) => format!("no way to {way}"),
        (_, Expect::Reachable) => "reachable".to_owned(),
        (_, Expect::Unreachable) => "unreachable".to_owned(),
        (_, Expect::Code(code)) => code.clone(),
        (_, Expect::Result { exit, stdout, stderr, in_cidr }) => {
            let mut parts = Vec::new();
            parts.extend(exit.map(|code| format!("exit {code}")));
            parts.extend(stdout.as_ref().map(|text| format!("stdout has {text:?}")));
            parts.extend(stderr.as_ref().map(|text| format!("stderr has {text:?}")));
            parts.extend(in_cidr.map(|block: Cidr| format!("addresses in {block}")));
            if parts.is_empty() { "exit 0".to_owned() } else { parts.join(", ") }
        }
    };
    if let Some(via) = &check.via {
        text.push_str(&format!(" via {via}"));
    }
    if let Some(not_via) = &check.not_via {
        text.push_str(&format!(" not via {not_via}"));
    }
    text
}

/// The instances that a check asks: the named one, or all for `any`.
pub fn askers(plan: &Plan, check: &CheckPlan) -> Vec<usize> {
    check.from.map_or_else(|| (0..plan.instances.len()).collect(), |one| vec![one])
}

/// The report as a table: one line per check, failures with what was seen.
pub fn render(results: &[CheckResult]) -> String {
    let mut out = String::new();
    for r in results {
        let mark = match (r.skipped, r.ok) {
            (true, _) => "-     ",
            (false, true) => "ok    ",
            (false, false) => "FAILED",
        };
        out.push_str(&format!("{mark} line {:<4} {}\n", r.line, r.title));
        out.push_str(&format!("              expected {}; seen {}\n", r.expected, r.seen));
        if !r.rule.is_empty() {
            out.push_str(&format!("              decided by {}\n", r.rule));
        }
    }
    let failed = results.iter().filter(|r| !r.ok).count();
    let skipped = results.iter().filter(|r| r.skipped).count();
    let not_asked = if skipped == 0 { String::new() } else { format!(", {skipped} not asked") };
    out.push_str(&format!("{} passed, {failed} failed{not_asked}\n", results.len() - failed - skipped));
    out
}

/// The report as JUnit XML, for CI servers.
pub fn junit(lab: &str, results: &[CheckResult]) -> String {
    let failed = results.iter().filter(|r| !r.ok).count();
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let total: u64 = results.iter().map(|r| r.millis).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str(&format!(
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{}\" time=\"{}\">\n",
        escape(lab),
        results.len(),
        results.iter().filter(|r| r.skipped).count(),
        seconds(total)
    ));
    for r in results {
        let name = escape(&r.title);
        out.push_str(&format!("  <testcase classname=\"checks\" name=\"{name}\" time=\"{}\"", seconds(r.millis)));
        if r.skipped {
            out.push_str(&format!("><skipped message=\"{}\"/></testcase>\n", escape(&r.seen)));
        } else if r.ok {
            out.push_str("/>\n");
        } else {
            let message = escape(&format!("line {}: expected {}; seen {}", r.line, r.expected, r.seen));
            out.push_str(&format!(
                ">\n    <failure message=\"{message}\">{}</failure>\n  </testcase>\n",
                escape(&r.rule)
            ));
        }
    }
    out.push_str("</testsuite>\n");
    out
}

/// For XML 1.0: the five entities, and no control characters, which it cannot hold.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or("")
}

fn joined(addresses: &[std::net::Ipv4Addr]) -> String {
    if addresses.is_empty() {
        return "none".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn or_nothing(ways: &[String]) -> String {
    if ways.is_empty() { "no way seen".to_owned() } else { ways.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(expect: Expect) -> CheckPlan {
        CheckPlan {
            line: 7,
            title: "web to s3".into(),
            from: Some(0),
            what: CheckWhat::To("x".into()),
            expect,
            via: None,
            not_via: None,
            within: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_code_is_expected_and_another_is_not_it() {
        let want = check(Expect::Code("SG_INGRESS".into()));
        let dropped = |code: &str| Reached { code: Some(code.into()), ..Reached::default() };
        assert!(judge_reached(&want, &dropped("SG_INGRESS")).ok);
        assert!(!judge_reached(&want, &dropped("SG_EGRESS")).ok);
        assert!(!judge_reached(&want, &Reached { reachable: true, ..Reached::default() }).ok);
    }

    #[test]
    fn the_way_counts_as_much_as_the_arrival() {
        let mut want = check(Expect::Result { exit: Some(0), stdout: None, stderr: None, in_cidr: None });
        want.via = Some("endpoint:s3".into());
        let ran = |ways: &[&str]| Ran { ways: ways.iter().map(|w| (*w).to_owned()).collect(), ..Ran::default() };
        assert!(judge_ran(&want, &ran(&["endpoint:s3"])).ok);
        assert!(judge_ran(&want, &ran(&["endpoint:app.s3"])).ok);
        assert!(!judge_ran(&want, &ran(&["endpoint:sts"])).ok);
        assert!(!judge_ran(&want, &ran(&[])).ok);
        want.via = Some("private".into());
        assert!(judge_ran(&want, &ran(&["endpoint:s3", "private"])).ok);
        assert!(!judge_ran(&want, &ran(&["endpoint:s3", "nat"])).ok);
        want.via = None;
        want.not_via = Some("nat".into());
        assert!(judge_ran(&want, &ran(&["endpoint:s3"])).ok);
        assert!(!judge_ran(&want, &ran(&["nat"])).ok);
    }

    #[test]
    fn a_report_for_machines_survives_any_text() {
        let mut r = judge_reached(&check(Expect::Reachable), &Reached::default());
        r.title = "a <b> & \"c\"\u{1}".into();
        let xml = junit("l", &[r]);
        assert!(xml.contains("name=\"a &lt;b&gt; &amp; &quot;c&quot;\""), "{xml}");
        assert!(xml.contains("failures=\"1\""));
    }

    #[test]
    fn what_was_not_asked_is_neither_passed_nor_failed() {
        let results = [not_asked(&check(Expect::Reachable), "a command needs a lab".into())];
        assert!(render(&results).ends_with("0 passed, 0 failed, 1 not asked\n"), "{}", render(&results));
        assert!(junit("l", &results).contains("skipped=\"1\""));
    }

    #[test]
    fn an_address_outside_the_block_fails() {
        let want = check(Expect::Result {
            exit: None,
            stdout: None,
            stderr: None,
            in_cidr: Some("10.0.0.0/16".parse().expect("a block")),
        });
        let ran = |a: [u8; 4]| Ran { addresses: vec![a.into()], ..Ran::default() };
        assert!(judge_ran(&want, &ran([10, 0, 1, 4])).ok);
        assert!(!judge_ran(&want, &ran([198, 18, 0, 1])).ok);
        assert!(!judge_ran(&want, &Ran::default()).ok, "no address is not in the block");
    }
}
