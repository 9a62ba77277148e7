//! Proving labs: what `lab.yaml` and the story say is what happens. Labs are independent, so several run at once; most of
//! the time goes into waiting for timeouts.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use super::super::common::{Done, Failure, Format, print_json, table};
use super::ask::Asker;
use super::{Chosen, all_shipped, choose, world};
use crate::control::lab::{Check, FIX, Line, Mark, RefusedPatch, State, merged, yaml_text};
use crate::model::{Plan, Source, Standing};
use crate::runtime::launch::Running;

const SOLUTION: &str = "solution.sh";

pub fn run(words: &[String], jobs: usize, format: Format) -> Done {
    let mut labs = match words {
        [] => all_shipped()?,
        _ => words.iter().map(|word| choose(word)).collect::<Result<Vec<Chosen>, Failure>>()?,
    };
    // Named twice, it is proved once.
    let mut seen = BTreeSet::new();
    labs.retain(|chosen| seen.insert(chosen.lab.id.clone()));
    let queue = Mutex::new(labs.iter().collect::<Vec<_>>().into_iter());
    let reports: Mutex<Vec<Report>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, labs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(chosen) = next else { break };
                    let report = vet(chosen);
                    eprintln!("{:24} {}", report.id, report.verdict());
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|r| labs.iter().position(|c| c.lab.id == r.id));
    if format == Format::Json {
        print_json(&reports)?;
    } else {
        print!("{}", render(&reports));
    }
    Ok(u8::from(reports.iter().any(|r| !r.wrong.is_empty())))
}

/// What was proved of a lab, and what was not so.
#[derive(Clone, Debug, serde::Serialize)]
struct Report {
    id: String,
    cases: Vec<String>,
    fixes: usize,
    wrong_fixes: usize,
    millis: u128,
    wrong: Vec<String>,
}

impl Report {
    fn verdict(&self) -> String {
        if self.wrong.is_empty() { format!("proved in {} ms", self.millis) } else { self.wrong.join("; ") }
    }
}

fn render(reports: &[Report]) -> String {
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|r| {
            vec![
                r.id.clone(),
                r.cases.join(" "),
                r.fixes.to_string(),
                r.wrong_fixes.to_string(),
                format!("{}.{} s", r.millis / 1000, r.millis % 1000 / 100),
                if r.wrong.is_empty() { "proved".into() } else { "FAILED".into() },
            ]
        })
        .collect();
    let mut out = table(&["lab", "cases", "fixes", "wrong fixes", "took", "result"], &rows);
    for r in reports.iter().filter(|r| !r.wrong.is_empty()) {
        for wrong in &r.wrong {
            out.push_str(&format!("{}: {wrong}\n", r.id));
        }
    }
    let failed = reports.iter().filter(|r| !r.wrong.is_empty()).count();
    out.push_str(&format!("{} proved, {failed} failed\n", reports.len() - failed));
    out
}

fn vet(chosen: &Chosen) -> Report {
    let began = Instant::now();
    let mut proof = Proof {
        chosen,
        name: format!("vet-{}-{}", chosen.lab.id, std::process::id()),
        dir: std::env::temp_dir().join(format!("vpclab-vet-{}-{}", chosen.lab.id, std::process::id())),
        running: None,
        standing: Standing::default(),
        fixes: 0,
        wrong_fixes: 0,
        wrong: Vec::new(),
    };
    if let Err(failure) = proof.prove() {
        proof.wrong.push(failure.message.trim().to_owned());
    }
    if let Err(failure) = proof.end() {
        proof.wrong.push(failure.message);
    }
    Report {
        id: chosen.lab.id.clone(),
        cases: chosen.lab.cases.clone(),
        fixes: proof.fixes,
        wrong_fixes: proof.wrong_fixes,
        millis: began.elapsed().as_millis(),
        wrong: proof.wrong,
    }
}

struct Proof<'a> {
    chosen: &'a Chosen,
    name: String,
    /// The lab's files, for its commands and its solution.
    dir: PathBuf,
    running: Option<Running>,
    /// What AWS refuses to make and lets stand.
    standing: Standing,
    fixes: usize,
    wrong_fixes: usize,
    wrong: Vec<String>,
}

impl Proof<'_> {
    fn prove(&mut self) -> Result<(), Failure> {
        self.write_files()?;
        let chosen = self.chosen;
        let base = world::sources(chosen, State::Base)?;
        let plan = self.enter(&base)?;
        // Where the break acts on connections, the base has them: only what must always hold is asked of it.
        if chosen.lab.live {
            self.unharmed(&plan, "the base")?;
            self.no_symptom(&plan)?;
        } else {
            self.healthy(&plan, "the base")?;
            self.no_symptom(&plan)?;
            let plan = self.enter(&world::patched(chosen, State::Base, FIX)?)?;
            self.healthy(&plan, "the fix laid over the healthy base")?;
        }

        let plan = self.break_it()?;
        self.broken(&plan)?;
        let alternatives = chosen.folder.patches("alt-fixes");
        for fix in std::iter::once(FIX).chain(alternatives) {
            let plan = self.mend_with(fix)?;
            self.healthy(&plan, fix)?;
            self.fixes += 1;
        }
        if chosen.folder.files.contains_key(SOLUTION) {
            let plan = self.solve()?;
            self.healthy(&plan, SOLUTION)?;
        }
        for refused in &chosen.lab.refused {
            self.must_be_refused(refused)?;
            self.wrong_fixes += 1;
        }
        let is_refused = |fix: &&str| chosen.lab.refused.iter().any(|r| r.patch == *fix);
        for fix in chosen.folder.patches("wrong-fixes").into_iter().filter(|fix| !is_refused(fix)) {
            let plan = self.mend_with(fix)?;
            if !self.anything_red(&plan)? {
                self.wrong.push(format!("{fix}: everything is green after a wrong fix"));
            }
            self.wrong_fixes += 1;
        }
        Ok(())
    }

    /// Every step that holds once it is mended.
    fn healthy(&mut self, plan: &Plan, when: &str) -> Result<(), Failure> {
        let asker = Asker::new(plan, self.chosen)?;
        let chosen = self.chosen;
        for step in chosen.lab.steps.iter().filter(|step| step.state == State::Fixed) {
            for line in asker.once(step).iter().filter(|line| line.mark == Mark::Red) {
                self.wrong.push(format!("{when}: {}: {}", step.id, said(line)));
            }
        }
        Ok(())
    }

    /// The guards alone.
    fn unharmed(&mut self, plan: &Plan, when: &str) -> Result<(), Failure> {
        let asker = Asker::new(plan, self.chosen)?;
        for guard in self.chosen.lab.steps.iter().flat_map(|step| &step.guard) {
            let line = asker.check(guard, guard.retry);
            if line.mark != Mark::Ok {
                self.wrong.push(format!("{when}: {}", said(&line)));
            }
        }
        Ok(())
    }

    /// The declared symptom, exactly the declared checks red, the story's words, the guards unharmed.
    fn broken(&mut self, plan: &Plan) -> Result<(), Failure> {
        let asker = Asker::new(plan, self.chosen)?;
        let lab = &self.chosen.lab;
        let mut output = String::new();
        for check in &lab.symptom {
            let (line, said_by_it) = asker.check_and_output(check, check.retry);
            output.push_str(&without_digits(&said_by_it));
            if line.mark != Mark::Ok {
                self.wrong.push(format!("symptom: {}", said(&line)));
            }
        }
        for step in &lab.steps {
            for check in step.check.iter().chain(&step.guard) {
                let green = step.state == State::Broken || check.green_when_broken;
                let line = asker.check(check, if green { check.retry } else { std::time::Duration::ZERO });
                match (green, line.mark == Mark::Ok) {
                    (true, false) => self.wrong.push(format!("broken: {}: {}", step.id, said(&line))),
                    (false, true) => {
                        self.wrong.push(format!("broken: {}: {} holds though it is broken", step.id, line.title));
                    }
                    _ => {}
                }
            }
        }
        for line in self.chosen.folder.quoted().iter().filter(|line| !output.contains(&without_digits(line))) {
            self.wrong.push(format!("README.md quotes what no symptom prints: {line}"));
        }
        Ok(())
    }

    fn anything_red(&self, plan: &Plan) -> Result<bool, Failure> {
        let asker = Asker::new(plan, self.chosen)?;
        let mut steps = self.chosen.lab.steps.iter().filter(|step| step.state == State::Fixed);
        Ok(steps.any(|step| asker.any_red(step)))
    }

    /// Not all of the symptom is there: it would prove nothing.
    fn no_symptom(&mut self, plan: &Plan) -> Result<(), Failure> {
        let asker = Asker::new(plan, self.chosen)?;
        let there = |check: &Check| asker.check(check, std::time::Duration::ZERO).mark == Mark::Ok;
        if self.chosen.lab.symptom.iter().all(there) {
            self.wrong.push("the symptom is there in the healthy base too".into());
        }
        Ok(())
    }

    /// The broken state as a learner finds it.
    fn break_it(&mut self) -> Result<Plan, Failure> {
        if self.chosen.lab.fresh {
            self.end_network()?;
        }
        if self.chosen.lab.live {
            self.end_network()?;
            self.enter(&world::sources(self.chosen, State::Base)?)?;
            world::settle(self.chosen, &self.name)?;
        }
        self.enter(&world::sources(self.chosen, State::Broken)?)
    }

    /// The broken state, and a patch of the lab's over it, laid as a learner does.
    fn mend_with(&mut self, fix: &str) -> Result<Plan, Failure> {
        self.break_it()?;
        self.enter(&world::patched(self.chosen, State::Broken, fix)?)
    }

    /// AWS makes no such change, and says so in the declared words.
    fn must_be_refused(&mut self, refused: &RefusedPatch) -> Result<(), Failure> {
        self.break_it()?;
        let sources = world::patched(self.chosen, State::Broken, &refused.patch)?;
        match world::accept_over(&sources, &self.name, &self.dir, &self.standing) {
            Ok(_) => self.wrong.push(format!("{}: is not refused", refused.patch)),
            Err(failure) if refused.with.is_match(&failure.message) => {}
            Err(failure) => {
                self.wrong.push(format!("{}: is refused in other words: {}", refused.patch, failure.message.trim()));
            }
        }
        Ok(())
    }

    /// The broken state, and `solution.sh` run over it.
    fn solve(&mut self) -> Result<Plan, Failure> {
        let plan = self.break_it()?;
        let exe = std::env::current_exe()?;
        let script = self.dir.join(SOLUTION);
        let said = std::process::Command::new("sh")
            .arg(&script)
            .env("VPCLAB", exe)
            .env("VPCLAB_LAB", &self.name)
            .stdin(std::process::Stdio::null())
            .output()?;
        if !said.status.success() {
            self.wrong.push(format!("{SOLUTION}: {}", String::from_utf8_lossy(&said.stderr).trim()));
            return Ok(plan);
        }
        let plan = world::plan_of(&self.name)?;
        self.standing = Standing::of(&plan);
        Ok(plan)
    }

    /// Makes the network equal to the sources: started if it does not run, else changed while it runs.
    fn enter(&mut self, sources: &[Source]) -> Result<Plan, Failure> {
        let (accepted, plan) = world::accept_over(sources, &self.name, &self.dir, &self.standing)?;
        if self.running.is_some() {
            world::change(&self.name, accepted)?;
        } else {
            self.running = Some(world::up(accepted, true, false)?);
        }
        self.standing = Standing::of(&plan);
        Ok(plan)
    }

    fn end_network(&mut self) -> Result<(), Failure> {
        self.standing = Standing::default();
        match self.running.take() {
            Some(running) => Ok(running.end()?),
            None => Ok(()),
        }
    }

    fn write_files(&self) -> Result<(), Failure> {
        for (name, text) in &self.chosen.folder.files {
            let path = self.dir.join(name);
            let write = || {
                std::fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
                std::fs::write(&path, text)
            };
            write().map_err(|e: std::io::Error| Failure::host(format!("{}: {e}", path.display())))?;
        }
        // A learner's folder has the broken topology in it; where a lab serves its folder, it is to be found here too.
        let broken = world::sources(self.chosen, State::Broken)?;
        let text = merged(&broken).map(|root| yaml_text(&root)).unwrap_or_default();
        Ok(std::fs::write(self.dir.join("topology.yaml"), text)?)
    }

    fn end(&mut self) -> Result<(), Failure> {
        let ended = self.end_network();
        std::fs::remove_dir_all(&self.dir).ok();
        ended
    }
}

fn said(line: &Line) -> String {
    format!("{}: wanted {}; seen {}", line.title, line.expected, line.seen)
}

/// Times and port numbers differ from run to run; codes in brackets, as `curl: (28)`, do not.
fn without_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_brackets = false;
    for c in text.chars() {
        in_brackets = c == '(' || in_brackets && c.is_ascii_digit();
        match c.is_ascii_digit() && !in_brackets {
            true if out.ends_with('0') => {}
            true => out.push('0'),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_may_differ_in_its_numbers_only() {
        let quoted = without_digits("curl: (28) Failed to connect to h port 443 after 2001 ms: Timeout was reached");
        let real = "curl: (28) Failed to connect to h port 8443 after 20 ms: Timeout was reached\n";
        assert!(without_digits(real).contains(&quoted));
        let refused = "curl: (7) Failed to connect to h port 443 after 2001 ms: Timeout was reached";
        assert!(!without_digits(refused).contains(&quoted));
    }
}
