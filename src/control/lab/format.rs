//! `lab.yaml` to a [`Lab`]: every mistake at once, each with its place.

use std::time::Duration;

use regex::Regex;

use super::keys;
use super::{Also, Ask, Change, Check, Hint, Lab, Layer, RefusedPatch, State, Step, WantedDrop, What};
use crate::model::Nothing;
use crate::model::plan::{CheckPlan, CheckWhat, Expect};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys::Noun;
use crate::model::spec::names::{Names, is_name};
use crate::model::spec::node::{Node, Value};
use crate::model::spec::report::{Found, Problems, Report, did_you_mean};
use crate::model::spec::source::{Lines, Place, Source};
use crate::model::spec::yaml;
use crate::model::validate::checks::CODES;

/// How long a command of a check may run where it does not say.
const WITHIN: Duration = Duration::from_secs(10);

/// From the beginning of a command to the change that is laid over the lab meanwhile, where it does not say.
const MEANWHILE: Duration = Duration::from_secs(1);

/// Reads a `lab.yaml`.
///
/// # Errors
/// Every problem of the file, by place.
pub fn read(source: &Source) -> Result<Lab, Report> {
    let problems = Problems::default();
    let sources = std::slice::from_ref(source);
    let lab = tree(sources, &problems);
    let (errors, _) = problems.finish(sources);
    match lab {
        Some(lab) if errors.is_empty() => Ok(lab),
        _ if errors.is_empty() => Err(Report::of(&source.path, "the lab could not be read")),
        _ => Err(errors),
    }
}

fn tree(sources: &[Source], problems: &Problems) -> Option<Lab> {
    let root = yaml::parse_source(0, &sources[0], problems)?;
    let cx = Cx {
        sources,
        lines: sources.iter().map(Lines::of).collect(),
        problems,
        names: Names::default(),
        files: &Nothing,
        standing: &Default::default(),
        aws_defaults: false,
        region: String::new(),
        default_account: String::new(),
        unread: Default::default(),
        policies: Default::default(),
    };
    let lab = lab(&cx, &root);
    if !problems.any() {
        for (place, what) in cx.unread.borrow().iter() {
            problems.error(Found::at(*place, format!("{what}: has no effect here")));
        }
    }
    lab
}

fn lab(cx: &Cx<'_>, root: &Node) -> Option<Lab> {
    let f = Fields::open_node(cx, &keys::LAB, "the lab".into(), root, root.place)?;
    let _ = f.word("format");
    let id = f.text("id");
    if let Some(t) = id.filter(|t| !is_name(t.value) || t.value.len() > 40) {
        let found = f.error(t.place, format!("`{}` is no id", t.value));
        cx.error(found.help("letters, digits, `-` and `_`, at most 40, beginning with a letter or digit"));
    }
    let symptom = checks(&f, "symptom", "symptom", true);
    if symptom.is_empty() && f.has("symptom") {
        cx.error(f.error(f.key_place("symptom"), "a lab without a symptom cannot be proved"));
    }
    let refused = refused(&f);
    let mut steps: Vec<Step> = Vec::new();
    for node in f.list("steps") {
        let place = place_of(node, f.key_place("steps"));
        let Some(step) = step(cx, node, place) else { continue };
        if steps.iter().any(|s| s.id == step.id) {
            cx.error(f.error(place, format!("two steps are called {}", step.id)));
        }
        steps.push(step);
    }
    if f.has("steps") && !steps.iter().any(|s| s.state == State::Fixed && !s.check.is_empty()) {
        cx.error(f.error(f.key_place("steps"), "no step has a check that holds once it is mended"));
    }
    let lab = Lab {
        id: id.map(|t| t.value.to_owned()).unwrap_or_default(),
        title: owned(f.text("title")),
        order: f.int("order").map_or(1_000, |n| n.value),
        kind: f.word("kind").map_or("incident", |t| t.value).to_owned(),
        difficulty: f.int("difficulty").map_or(1, |n| n.value),
        minutes: f.int("minutes").map_or(10, |n| n.value),
        cases: list(f.texts("cases")),
        objectives: list(f.texts("objectives")),
        requires: list(f.texts("requires")),
        base: f.text("base").map(|t| t.value.to_owned()),
        limits: f.text_map("limits").into_iter().map(|(k, v)| (k.value.to_owned(), v.value.to_owned())).collect(),
        live: f.bool("live").is_some_and(|b| b.value),
        fresh: f.bool("fresh").is_some_and(|b| b.value),
        symptom,
        refused,
        steps,
    };
    f.done();
    Some(lab)
}

fn refused(f: &Fields<'_>) -> Vec<RefusedPatch> {
    let mut all = Vec::new();
    for node in f.list("refused") {
        let place = place_of(node, f.key_place("refused"));
        let Some(r) = Fields::open_node(f.cx, &keys::REFUSED, "refused fix".into(), node, place) else { continue };
        let patch = r.text("patch");
        if let Some(t) = patch.filter(|t| !t.value.starts_with("wrong-fixes/")) {
            let found = r.error(t.place, format!("`{}` is no wrong fix", t.value));
            f.cx.error(found.help("wrong-fixes/NAME.patch.yaml"));
        }
        if let Some(with) = pattern(&r, "with") {
            all.push(RefusedPatch { patch: owned(patch), with });
        }
        r.done();
    }
    all
}

fn step(cx: &Cx<'_>, node: &Node, place: Place) -> Option<Step> {
    let f = Fields::open_node(cx, &keys::STEP, "step".into(), node, place)?;
    let check = checks(&f, "check", "check", false);
    let guard = checks(&f, "guard", "guard", true);
    let ask = f.entry("ask").and_then(|entry| {
        let a = Fields::open(cx, &keys::ASK, "question".into(), entry)?;
        let ask = Ask { options: list(a.texts("options")), answer: owned(a.text("answer")), why: owned(a.text("why")) };
        if !ask.options.contains(&ask.answer) {
            cx.error(a.error(a.key_place("answer"), "the answer is none of the options"));
        }
        a.done();
        Some(ask)
    });
    let mut hints = Vec::new();
    for node in f.list("hints") {
        let place = place_of(node, f.key_place("hints"));
        let Some(h) = Fields::open_node(cx, &keys::HINT, "hint".into(), node, place) else { continue };
        let when = h.entry("when").and_then(|entry| {
            let w = Fields::open(cx, &keys::WHEN, "when".into(), entry)?;
            let check_id = w.text("check");
            let known = check.iter().chain(&guard).map(|c| c.id.as_str());
            if let Some(t) = check_id.filter(|t| !known.clone().any(|id| id == t.value)) {
                let found = w.error(t.place, format!("no check of this step is named `{}`", t.value));
                cx.error(found.maybe_help(did_you_mean(t.value, known)));
            }
            let saw = pattern(&w, "saw");
            w.done();
            Some((owned(check_id), saw))
        });
        let texts = list(h.texts("text"));
        if texts.is_empty() {
            cx.error(h.error(place, "a hint without text"));
        }
        hints.push(Hint { when, texts });
        h.done();
    }
    if check.is_empty() && ask.is_none() {
        cx.error(f.error(place, "a step has a `check` or asks something"));
    }
    let step = Step {
        id: owned(f.text("id")),
        say: owned(f.text("say")),
        ask,
        state: match f.word("state").map(|t| t.value) {
            Some("broken") => State::Broken,
            _ => State::Fixed,
        },
        check,
        guard,
        hints,
    };
    f.done();
    Some(step)
}

fn checks(f: &Fields<'_>, key: &str, prefix: &str, green: bool) -> Vec<Check> {
    let mut found: Vec<Check> = Vec::new();
    for (n, node) in f.list(key).iter().enumerate() {
        let place = place_of(node, f.key_place(key));
        let Some(check) = check(f.cx, node, place, &format!("{prefix}{}", n + 1), green) else { continue };
        if found.iter().any(|c| c.id == check.id) {
            f.cx.error(f.error(place, format!("two checks are called {}", check.id)));
        }
        found.push(check);
    }
    found
}

fn check(cx: &Cx<'_>, node: &Node, place: Place, id: &str, green: bool) -> Option<Check> {
    let f = Fields::open_node(cx, &keys::CHECK, "check".into(), node, place)?;
    let on = f.text("on");
    let asked = asked(&f);
    let (expect, mut also, word) = expect(&f);
    also.drop = f.text("drop").and_then(|t| drop(&f, t));
    let kind = asked.as_ref().map_or("", |(kind, _)| kind.as_str());
    for (key, of) in [("user", "run"), ("change", "run"), ("drop", "run or to")] {
        if f.has(key) && !of.split(" or ").any(|k| k == kind) {
            cx.error(f.error(f.key_place(key), format!("`{key}` is for checks with `{of}`")));
        }
    }
    if on.is_some_and(|t| t.value == "any") && kind != "never" {
        cx.error(f.error(f.key_place("on"), "`any` is for checks with `never`: name an instance"));
    }
    let layer = f.word("layer").and_then(|t| Layer::parse(t.value)).unwrap_or(match kind {
        "dns" => Layer::Dns,
        "to" | "never" => Layer::Path,
        "flow" => Layer::Filter,
        _ => Layer::Application,
    });
    let via = f.text("via").map(|t| t.value.to_owned());
    let not_via = f.text("not_via").map(|t| t.value.to_owned());
    let within = f.duration("within").map_or(WITHIN, |d| d.value);
    let retry = f.duration("retry").map_or(Duration::ZERO, |d| d.value);
    let green_when_broken = f.word("broken").map_or(green, |t| t.value == "green");
    let user = f.text("user").map(|t| t.value.to_owned());
    let change = f.entry("change").and_then(|entry| {
        let c = Fields::open(cx, &keys::CHANGE, "change".into(), entry)?;
        let change =
            Change { patch: owned(c.text("patch")), after: c.duration("after").map_or(MEANWHILE, |d| d.value) };
        c.done();
        Some(change)
    });
    let written_id = f.text("id");
    f.done();
    let (kind, target) = asked?;
    let on = owned(on);
    let (what, asks) = match kind.as_str() {
        "run" => (What::AsInTopology, CheckWhat::Run(target.value.to_owned())),
        "to" => (What::AsInTopology, CheckWhat::To(target.value.to_owned())),
        "never" => (What::AsInTopology, CheckWhat::Never(target.value.to_owned())),
        "dns" => {
            let mut words = target.value.split_ascii_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            (What::AsInTopology, CheckWhat::Dns(name, words.next().unwrap_or("A").to_owned()))
        }
        _ => {
            let split = target.value.rsplit_once(':').and_then(|(to, port)| Some((to, port.parse().ok()?)));
            let Some((to, port)) = split else {
                cx.error(Found::at(target.place, format!("check: `{}` is no flow", target.value)).help("NAME:PORT"));
                return None;
            };
            let alive = word.as_deref() != Some("silent");
            (What::Flow { to: to.to_owned(), port, alive }, CheckWhat::To(target.value.to_owned()))
        }
    };
    let expect = expect.unwrap_or(match asks {
        CheckWhat::Run(_) => Expect::Result { exit: Some(0), stdout: None, stderr: None, in_cidr: None },
        CheckWhat::Never(_) => Expect::Unreachable,
        _ => Expect::Reachable,
    });
    let line = cx.lines.first().map_or(0, |l| l.line_col(place.start as usize).0) as u32;
    let meanwhile = change.as_ref().map_or_else(String::new, |c| format!(", meanwhile {}", c.patch));
    let title = format!("{on} {kind} {}{meanwhile}", target.value.lines().next().unwrap_or_default());
    Some(Check {
        id: written_id.map_or_else(|| id.to_owned(), |t| t.value.to_owned()),
        line,
        layer,
        what,
        plan: CheckPlan { line, title, from: None, what: asks, expect, via, not_via, within },
        also,
        user,
        change,
        retry,
        green_when_broken,
        on,
    })
}

/// Exactly one of the ways to ask, and its text.
fn asked<'a>(f: &Fields<'a>) -> Option<(String, At<&'a str>)> {
    const KINDS: [&str; 5] = ["run", "to", "dns", "never", "flow"];
    let said: Vec<&str> = KINDS.into_iter().filter(|k| f.has(k)).collect();
    match said[..] {
        ["never"] => f.word("never").map(|t| ("never".to_owned(), t)),
        [one] => {
            let text = f.text(one)?;
            if text.value.trim().is_empty() {
                f.cx.error(f.error(text.place, format!("`{one}` is empty")));
            }
            Some((one.to_owned(), text))
        }
        [] => {
            f.cx.error(f.error(f.place, format!("a check has one of {}", KINDS.join(", "))));
            None
        }
        [_, second, ..] => {
            let message = format!("a check has one of {}, not {}", KINDS.join(", "), said.join(" and "));
            f.cx.error(f.error(f.key_place(second), message));
            None
        }
    }
}

/// What a topology can say, what it cannot, and the word where it is one.
fn expect(f: &Fields<'_>) -> (Option<Expect>, Also, Option<String>) {
    let Some(entry) = f.entry("expect") else { return (None, Also::default(), None) };
    let flow = f.has("flow");
    if f.has("never") {
        f.cx.error(f.error(entry.key_place, "`never` says itself what is expected: leave `expect` out"));
    }
    if let Value::Text(t) = &entry.node.value {
        let expect = match t.text.as_str() {
            "alive" | "silent" if flow => None,
            "reachable" if !flow => Some(Expect::Reachable),
            "unreachable" if !flow => Some(Expect::Unreachable),
            code if !flow && CODES.contains(&code) => Some(Expect::Code(code.to_owned())),
            other => {
                let words: &[&str] = if flow { &["alive", "silent"] } else { &["reachable", "unreachable"] };
                let known = words.iter().copied().chain(CODES.iter().copied().filter(|_| !flow));
                let help = did_you_mean(other, known).unwrap_or_else(|| words.join(", "));
                f.cx.error(f.error(entry.place(), format!("`{other}` cannot be expected")).help(help));
                None
            }
        };
        return (expect, Also::default(), Some(t.text.clone()));
    }
    let Some(e) = Fields::open(f.cx, &keys::EXPECT, "expect".into(), entry) else {
        return (None, Also::default(), None);
    };
    let of: &[&str] = if f.has("run") {
        &["in_cidr", "not_in_cidr"]
    } else if f.has("dns") {
        &["exit", "stdout", "stderr", "not_stdout", "not_stderr", "after", "before"]
    } else {
        &["exit", "stdout", "stderr", "not_stdout", "not_stderr", "after", "before", "in_cidr", "not_in_cidr"]
    };
    for key in of.iter().filter(|k| e.has(k)) {
        f.cx.error(e.error(e.key_place(key), format!("`{key}` says nothing of a check of this kind")));
    }
    let exit = e.int("exit").map(|n| n.value as i32);
    let in_cidr = e.cidr("in_cidr", false).map(|c| c.value);
    let also = Also {
        stdout: pattern(&e, "stdout"),
        stderr: pattern(&e, "stderr"),
        not_stdout: pattern(&e, "not_stdout"),
        not_stderr: pattern(&e, "not_stderr"),
        not_in_cidr: e.cidr("not_in_cidr", false).map(|c| c.value),
        after: e.duration("after").map(|d| d.value),
        before: e.duration("before").map(|d| d.value),
        drop: None,
    };
    e.done();
    (Some(Expect::Result { exit, stdout: None, stderr: None, in_cidr }), also, None)
}

/// `SG_INGRESS at sg:vpc.vpce`.
fn drop(f: &Fields<'_>, t: At<&str>) -> Option<WantedDrop> {
    let (code, object) = match t.value.split_once(" at ") {
        Some((code, object)) => (code, Some(object.trim().to_owned())),
        None => (t.value, None),
    };
    if !CODES.contains(&code) {
        let found = f.error(t.place, format!("`{code}` is no drop code"));
        f.cx.error(found.maybe_help(did_you_mean(code, CODES.iter().copied())));
        return None;
    }
    Some(WantedDrop { code: code.to_owned(), object })
}

fn pattern(f: &Fields<'_>, key: &str) -> Option<Regex> {
    let t = f.text(key)?;
    match Regex::new(&format!("(?m){}", t.value)) {
        Ok(regex) => Some(regex),
        Err(e) => {
            let why = e.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            f.cx.error(f.error(t.place, format!("`{key}` is no pattern: {why}")));
            None
        }
    }
}

fn place_of(node: &Node, otherwise: Place) -> Place {
    node.entries().first().map_or(if node.place.is_empty() { otherwise } else { node.place }, |e| e.key_place)
}

fn owned(text: Option<At<&str>>) -> String {
    text.map(|t| t.value.trim_end().to_owned()).unwrap_or_default()
}

fn list(texts: Option<Vec<At<&str>>>) -> Vec<String> {
    texts.unwrap_or_default().into_iter().map(|t| t.value.trim_end().to_owned()).collect()
}

/// For the schema of editors and for documentation: every noun of the format.
pub static NOUNS: &[&Noun] = &[
    &keys::LAB,
    &keys::STEP,
    &keys::CHECK,
    &keys::CHANGE,
    &keys::EXPECT,
    &keys::ASK,
    &keys::HINT,
    &keys::WHEN,
    &keys::REFUSED,
];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
format: 1
id: endpoint-sg
title: The door that admits nobody
base: t-iso
limits: { dns_ttl: 2s }
refused: [{ patch: wrong-fixes/a.patch.yaml, with: VpcPeering }]
symptom:
  - { on: app-a, run: curl x, expect: { exit: 28, stderr: '^curl: \\(28\\)', after: 1.9s }, drop: SG_INGRESS at sg:vpc.vpce }
steps:
  - id: see
    say: Where does it end?
    state: broken
    ask: { options: [dns, filter], answer: filter }
  - id: fix
    say: Mend it.
    check:
      - { id: name, on: app-a, dns: sts.us-east-1.amazonaws.com, expect: { in_cidr: 10.0.0.0/16 }, broken: green }
      - { id: ok, on: app-a, run: curl x, retry: 5s, change: { patch: changes/a.patch.yaml } }
      - { on: app-a, flow: 'db:9000', expect: silent }
    guard:
      - { on: any, never: internet }
    hints:
      - { when: { check: ok, saw: exit 28 }, text: [Which group?, Add the rule.] }
      - { text: [Read the drops.] }
";

    fn problems(text: &str) -> Vec<String> {
        match read(&Source::new("lab.yaml", text)) {
            Ok(_) => Vec::new(),
            Err(report) => report.problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_lab_is_read_with_its_defaults() {
        let lab = read(&Source::new("lab.yaml", GOOD)).unwrap_or_else(|r| panic!("{}", r.render(false)));
        assert_eq!((lab.id.as_str(), lab.kind.as_str(), lab.live), ("endpoint-sg", "incident", false));
        assert_eq!(lab.limits, [("dns_ttl".to_owned(), "2s".to_owned())]);
        let symptom = &lab.symptom[0];
        assert_eq!(
            symptom.also.drop,
            Some(WantedDrop { code: "SG_INGRESS".into(), object: Some("sg:vpc.vpce".into()) })
        );
        assert_eq!(symptom.plan.expect, Expect::Result { exit: Some(28), stdout: None, stderr: None, in_cidr: None });
        assert!(symptom.green_when_broken && symptom.layer == Layer::Application);
        let fix = &lab.steps[1];
        assert_eq!((lab.steps[0].state, fix.state), (State::Broken, State::Fixed));
        assert_eq!(fix.check[0].layer, Layer::Dns);
        assert!(fix.check[0].green_when_broken && !fix.check[1].green_when_broken && fix.guard[0].green_when_broken);
        assert_eq!(fix.check[2].what, What::Flow { to: "db".into(), port: 9000, alive: false });
        assert_eq!(fix.check[2].id, "check3");
        let change = fix.check[1].change.as_ref().map(|c| (c.patch.as_str(), c.after.as_secs()));
        assert_eq!(change, Some(("changes/a.patch.yaml", 1)));
        assert!(fix.check[1].plan.title.ends_with("curl x, meanwhile changes/a.patch.yaml"));
        assert!(lab.refused[0].with.is_match("InvalidVpcPeering") && lab.checks().count() == 5);
    }

    #[test]
    fn what_is_not_known_is_refused_at_its_place() {
        for (from, to, wanted) in [
            ("title:", "titel:", "lab.yaml:3:1: the lab: unknown key `titel`"),
            ("retry: 5s", "retires: 5s", "unknown key `retires`"),
            ("exit: 28", "exit: 300", "`exit` is a whole number from 0 to 255"),
            ("SG_INGRESS at", "SG_INGRES at", "lab.yaml:8:97: check: `SG_INGRES` is no drop code"),
            ("'^curl: \\(28\\)'", "'^curl: (28'", "`stderr` is no pattern: unclosed group"),
            (
                "run: curl x, retry",
                "dns: x, run: curl x, retry",
                "a check has one of run, to, dns, never, flow, not run and dns",
            ),
            ("check: ok,", "check: okay,", "no check of this step is named `okay`"),
            ("answer: filter", "answer: path", "the answer is none of the options"),
            ("expect: silent", "expect: dead", "`dead` cannot be expected"),
            ("on: any,", "on: any, user: root,", "`user` is for checks with `run`"),
            ("{ in_cidr: 10.0.0.0/16 }", "{ exit: 0 }", "`exit` says nothing of a check of this kind"),
            ("id: endpoint-sg", "id: ../x", "`../x` is no id"),
            ("expect: silent", "expect: silent, change: { patch: x }", "`change` is for checks with `run`"),
            ("patch: wrong-fixes/", "patch: fixes/", "`fixes/a.patch.yaml` is no wrong fix"),
            ("with: VpcPeering", "with: '('", "`with` is no pattern"),
            ("id: fix", "id: see", "two steps are called see"),
            ("format: 1", "format: 2", "`format` cannot be `2`"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let found = problems(&GOOD.replacen(from, to, 1));
            assert!(found.iter().any(|p| p.contains(wanted)), "{to}: {found:?}");
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        for cut in 0..GOOD.len() {
            let _ = read(&Source::new("lab.yaml", &GOOD[..cut]));
        }
        for text in ["", "[]", "x", "steps: 3", "format: 1\nsteps: [1, [], {}]\nsymptom: {a: b}"] {
            assert!(!problems(text).is_empty(), "{text}");
        }
    }
}
