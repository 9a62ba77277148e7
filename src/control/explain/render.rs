//! The page that `vpclab explain` prints.

use std::fmt::Write;

use super::{Explanation, NameStage, Step};
use crate::dns::QType;

/// Columns: stage, place, question, answer. The last two make room for longer names, up to a point.
const PLACE: usize = 8;
const QUESTION: usize = 19;
const ANSWER: usize = 44;
const NAMES_MAX: usize = 24;

pub(super) fn text(told: &Explanation) -> String {
    let mut page = String::new();
    let source = &told.source;
    let _ = writeln!(
        page,
        "{} {} ({}{})  ->  {}",
        source.label,
        source.address,
        source.subnet,
        if source.zone == '-' { String::new() } else { format!(", zone {}", source.zone) },
        told.destination.text
    );
    page.push_str(&verdict(told));
    if let Some(seen) = &told.client_sees {
        let _ = writeln!(page, "the client sees: {seen}");
    }
    page.push('\n');
    let columns = columns(told);
    if let Some(name) = &told.name {
        name_lines(&mut page, name, columns.1);
    }
    let mut last = "";
    for step in &told.steps {
        let stage = if step.stage == last { "" } else { step.stage };
        last = step.stage;
        line(&mut page, stage, step, columns);
    }
    if !told.notes.is_empty() || !told.smallest_change.is_empty() {
        page.push('\n');
    }
    for note in &told.notes {
        let _ = writeln!(page, "note  {note}");
    }
    for (at, change) in told.smallest_change.iter().enumerate() {
        let head = if at == 0 { "smallest change:" } else { "           and:" };
        let _ = writeln!(page, "{head} {change}");
    }
    page
}

/// `NO   SG_INGRESS at endpoint app.s3, ENI 10.0.2.4 (zone b)            Reachability Analyzer: ...`
fn verdict(told: &Explanation) -> String {
    let (kind, object) = (told.kind.as_deref().unwrap_or(""), told.object.as_deref().unwrap_or(""));
    if told.reachable {
        let way = told.way.unwrap_or("private");
        // A gateway endpoint is the way and where it ends.
        let kind = if kind == way { "" } else { kind };
        let words: Vec<&str> = ["YES  via", way, kind, object].into_iter().filter(|word| !word.is_empty()).collect();
        return words.join(" ") + "\n";
    }
    let code = told.code.as_ref().map_or_else(String::new, |code| format!("{code} "));
    let mut head = format!("NO   {code}at {kind} {object}");
    if let Some(detail) = &told.detail {
        let _ = write!(head, ", {detail}");
    }
    if let Some(ports) = &told.ports {
        let _ = write!(head, ", {ports}");
    }
    if let Some(code) = told.reachability_analyzer {
        let _ =
            write!(head, "{:gap$}Reachability Analyzer: {code}", "", gap = 68usize.saturating_sub(head.len()).max(3));
    }
    head + "\n"
}

/// Where questions and answers stand.
fn columns(told: &Explanation) -> (usize, usize) {
    let longest = |text: fn(&Step) -> &str| {
        told.steps.iter().filter(|step| !step.at.is_empty()).map(|step| text(step).chars().count() + 1).max()
    };
    let width = |usual: usize, longest: Option<usize>| longest.unwrap_or(0).clamp(usual, usual + NAMES_MAX);
    let question = PLACE + width(QUESTION - PLACE, longest(|step| &step.at));
    (question, question + width(ANSWER - QUESTION, longest(|step| &step.what)))
}

fn name_lines(page: &mut String, name: &NameStage, answer_at: usize) {
    let lookup = &name.lookup;
    let answer = match (&lookup.rcode, lookup.answers.is_empty()) {
        (None, _) => "no answer".to_owned(),
        (Some(rcode), true) if lookup.code() == Some("DNS_NODATA") => format!("{rcode}, no A record"),
        (Some(rcode), true) => rcode.to_string(),
        (Some(_), false) => {
            // glibc's order where it has one, for that is what a program sees.
            let addrs: Vec<String> = name.tried.iter().map(ToString::to_string).collect();
            format!("{} {}  TTL {}", QType::A, addrs.join(", "), lookup.ttl().unwrap_or_default())
        }
    };
    let first = format!("name    {answer}");
    let _ = writeln!(page, "{}answered by: {}", padded(&first, answer_at), lookup.answered_by);
    let mut more = Vec::new();
    if !lookup.lost.is_empty() {
        let lost: Vec<String> = lookup.lost.iter().map(ToString::to_string).collect();
        more.push(format!("lost: {}", lost.join(", ")));
    }
    if let [first, _, ..] = name.tried[..] {
        more.push(if name.preferred {
            format!("glibc tries {first} first (nearest prefix)")
        } else {
            format!("glibc keeps the answer's order, which is shuffled; {first} is followed here")
        });
    }
    if !more.is_empty() {
        let _ = writeln!(page, "{:answer_at$}{}", "", more.join(";   "));
    }
}

fn line(page: &mut String, stage: &str, step: &Step, (question, answer): (usize, usize)) {
    let mut text = padded(stage, PLACE);
    if stage.len() >= PLACE {
        // `tls, policy` stands over two columns.
        text = padded(stage, question);
    } else {
        text += &step.at;
        text = padded(&text, question);
    }
    text += &step.what;
    if !step.outcome.is_empty() || !step.detail.is_empty() {
        text = padded(&text, answer);
        text += match (step.outcome, step.detail.is_empty()) {
            ("", _) => step.detail.clone(),
            (outcome, true) => outcome.to_owned(),
            ("not asked", false) => format!("not asked: {}", step.detail),
            (outcome, false) => format!("{outcome:<7} {}", step.detail),
        }
        .as_str();
    }
    let _ = writeln!(page, "{}", text.trim_end());
}

/// At least one space stands before the next column.
fn padded(text: &str, width: usize) -> String {
    if text.len() < width { format!("{text:<width$}") } else { format!("{text} ") }
}
