//! Playing a lab: start, check, hint, reset, solve.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use super::super::common::{Done, Failure, Format, print_json};
use super::ask::Asker;
use super::memory::Memory;
use super::{Chosen, Which, choose, world};
use crate::base::Clock;
use crate::control::lab::{self as model, Ask, Entry, FIX, Lab, Mark, State, Step};
use crate::control::store;
use crate::model::Standing;

/// Patches that checks lay over the lab while their command runs.
const CHANGES: &str = "changes";
/// The learner's file, as it was before `start` or `reset` wrote it anew.
const BEFORE: &str = "topology.before.yaml";

pub fn start(word: &str, own_id: bool) -> Done {
    let chosen = choose(word)?;
    let lab = &chosen.lab;
    let name = lab.lab_name();
    if is_up(&name) {
        return Err(Failure::input(format!("{name} runs already: vpclab lab reset, or vpclab down -l {name}")));
    }
    let mut memory = Memory::open()?;
    let dir = home_of(&chosen, &memory)?;
    let broken = write_topology(&chosen, &dir)?;
    let (base, _) = world::accept(&world::sources(&chosen, State::Base)?, &name, &dir)?;
    let running = world::up(if lab.live { base } else { broken.clone() }, false, own_id)?;
    let ready = || -> Result<_, Failure> {
        if lab.live {
            world::settle(&chosen, &name)?;
            world::change(&name, broken)?;
        }
        Ok(super::super::up::ps(&mut running.client()?)?.limits)
    };
    let limits = match ready() {
        Ok(limits) => limits,
        // Not half a lab that the next start would stumble over.
        Err(failure) => {
            running.end().ok();
            return Err(failure);
        }
    };
    drop(running);

    memory.progress.current = Some(lab.id.clone());
    let finished = memory.entry(&lab.id).finished;
    *memory.entry(&lab.id) = Entry {
        folder: chosen.dir.as_ref().map(|d| d.display().to_string()),
        started: now(),
        finished,
        ..Entry::default()
    };
    memory.save()?;

    println!("{}\n", shown(chosen.folder.readme().0));
    for (limit, here, aws) in limits {
        println!("{limit}: {here} here, {aws} in AWS");
    }
    println!("topology:   {}", dir.join("topology.yaml").display());
    if !chosen.folder.patches(CHANGES).is_empty() {
        println!("meanwhile:  vpclab apply -l {name} --patch {}/...", dir.join(CHANGES).display());
    }
    print_commands(&chosen, &name, &dir);
    if let Some(step) = lab.steps.first() {
        print_step(lab, step);
    }
    Ok(0)
}

pub fn check(which: &Which, answer: Option<&str>, format: Format) -> Done {
    let mut memory = Memory::open()?;
    let chosen = chosen(which, &memory)?;
    let lab = &chosen.lab;
    must_be_up(&lab.lab_name())?;
    let plan = world::plan_of(&lab.lab_name())?;
    let entry = memory.entry(&lab.id).clone();
    let Some(step) = open_step(lab, &entry) else {
        return check_again(&chosen, &Asker::new(&plan, &chosen)?, answer, format);
    };
    if answer.is_some() {
        takes_answer(step, &entry)?;
    }
    memory.entry(&lab.id).checks += 1;
    if let Some(ask) = open_question(step, &entry) {
        if answer.is_none_or(|word| !word.eq_ignore_ascii_case(&ask.answer)) {
            memory.save()?;
            return not_answered(lab, step, ask, answer, format);
        }
        if format != Format::Json {
            println!("Right: {}. {}", ask.answer, ask.why);
        }
        memory.entry(&lab.id).answered.push(step.id.clone());
    }
    let lines = Asker::new(&plan, &chosen)?.step(step);
    let holds = lines.iter().all(|line| line.mark == Mark::Ok);
    // Who has mended the network already may still answer the question about the broken one.
    let mended = !holds && step.state == State::Broken && step.ask.is_some();
    let solved = holds || mended;
    if format == Format::Json {
        let report = serde_json::json!({ "lab": lab.id, "step": step.id, "solved": solved, "checks": lines });
        print_json(&report)?;
    } else if mended {
        println!("(The network is no longer as it was broken; the answer counts.)");
    } else {
        print!("{}", model::render(&lines));
    }
    let entry = memory.entry(&lab.id);
    if solved {
        entry.solved.push(step.id.clone());
    }
    let next = open_step(lab, entry);
    // Who was shown the fix has not solved it.
    if next.is_none() && !entry.shown {
        entry.finished = now();
    }
    let seconds = now().saturating_sub(entry.started);
    memory.save()?;
    if format == Format::Json {
        return Ok(u8::from(!solved));
    }
    match next {
        None => {
            println!("\nSolved after {} min {} s.\n\n{}", seconds / 60, seconds % 60, shown(chosen.folder.readme().1));
            println!("\nvpclab down -l {}    vpclab lab list", lab.lab_name());
        }
        Some(next) if solved => {
            println!("Step {} is solved.", step.id);
            print_step(lab, next);
        }
        Some(_) => println!("Not yet. vpclab lab hint"),
    }
    Ok(u8::from(!solved))
}

/// The step that is played: the first that is not solved.
fn open_step<'a>(lab: &'a Lab, entry: &Entry) -> Option<&'a Step> {
    lab.steps.iter().find(|s| !entry.solved.contains(&s.id))
}

fn open_question<'a>(step: &'a Step, entry: &Entry) -> Option<&'a Ask> {
    step.ask.as_ref().filter(|_| !entry.answered.contains(&step.id))
}

/// Solved steps stay solved; what holds is asked all the same, because the lab may have been reset or changed.
fn check_again(chosen: &Chosen, asker: &Asker<'_>, answer: Option<&str>, format: Format) -> Done {
    let lab = &chosen.lab;
    if answer.is_some() {
        return Err(Failure::input(format!("all steps of {} are solved: leave --answer out", lab.id)));
    }
    let Some(step) = lab.steps.iter().rfind(|step| step.state == State::Fixed) else { return Ok(0) };
    let lines = asker.step(step);
    let holds = lines.iter().all(|line| line.mark == Mark::Ok);
    if format == Format::Json {
        let report = serde_json::json!({ "lab": lab.id, "step": step.id, "solved": true, "checks": lines });
        print_json(&report)?;
    } else {
        let now = if holds { "and all of it holds" } else { "and now something is broken again" };
        println!("All steps of {} are solved, {now}.\n{}", lab.id, model::render(&lines));
        println!("vpclab down -l {}    vpclab lab list", lab.lab_name());
    }
    Ok(u8::from(!holds))
}

/// A question comes before the checks of its step.
fn not_answered(lab: &Lab, step: &Step, ask: &Ask, answer: Option<&str>, format: Format) -> Done {
    if format == Format::Json {
        let question = serde_json::json!({ "say": step.say, "options": ask.options, "answer": answer });
        let report = serde_json::json!({
            "lab": lab.id, "step": step.id, "solved": false, "checks": [], "question": question,
        });
        print_json(&report)?;
        return Ok(1);
    }
    let known = |word: &str| ask.options.iter().any(|o| o.eq_ignore_ascii_case(word));
    match answer {
        Some(word) if known(word) => println!("{word}: not so; look again. vpclab lab hint"),
        Some(word) => println!("{word}: none of the options: {}", ask.options.join(" | ")),
        None => {
            println!("This step begins with a question.");
            print_step(lab, step);
        }
    }
    Ok(1)
}

/// An answer where nothing is asked is a mistake: it would look as if it had been judged.
fn takes_answer(step: &Step, entry: &Entry) -> Result<(), Failure> {
    if step.ask.is_none() {
        return Err(Failure::input(format!("step {} asks no question: leave --answer out", step.id)));
    }
    if entry.answered.contains(&step.id) {
        return Err(Failure::input(format!("the question of step {} is answered: leave --answer out", step.id)));
    }
    Ok(())
}

pub fn hint(which: &Which, format: Format) -> Done {
    let mut memory = Memory::open()?;
    let chosen = chosen(which, &memory)?;
    let lab = &chosen.lab;
    let entry = memory.entry(&lab.id).clone();
    let Some(step) = open_step(lab, &entry) else {
        if format == Format::Json {
            return print_json(&serde_json::json!({ "lab": lab.id, "step": null, "hint": null }));
        }
        println!("All steps of {} are solved.", lab.id);
        return Ok(0);
    };
    must_be_up(&lab.lab_name())?;
    let plan = world::plan_of(&lab.lab_name())?;
    let lines = Asker::new(&plan, &chosen)?.step(step);
    let red = model::first_red(&lines);
    let holds = red.is_none() && open_question(step, &entry).is_none();
    let group = if holds { None } else { model::hints_for(step, red) };
    // Each state has hints of its own, from the first on.
    let key = format!("{}/{}", step.id, group.map_or(0, |group| group + 1));
    let given = entry.hints.get(&key).copied().unwrap_or_default();
    let told = group.and_then(|group| model::next_hint(step, group, given));
    match told {
        _ if format == Format::Json => {
            print_json(&serde_json::json!({ "lab": lab.id, "step": step.id, "hint": told }))?;
        }
        Some(told) => {
            println!("Hint {} of {}: {}", told.number, told.of, told.text);
            if given >= told.of {
                println!("There is no plainer one. vpclab lab solve shows the fix and lays it over the lab.");
            }
        }
        None if holds => println!("All that step {} asks for holds now. vpclab lab check", step.id),
        None => println!("No hint for this state. vpclab drops -l {0}; vpclab explain -l {0} ...", lab.lab_name()),
    }
    if told.is_some() {
        *memory.entry(&lab.id).hints.entry(key).or_default() += 1;
        memory.save()?;
    }
    Ok(0)
}

pub fn reset(which: &Which) -> Done {
    let memory = Memory::open()?;
    let chosen = chosen(which, &memory)?;
    let name = chosen.lab.lab_name();
    must_be_up(&name)?;
    let dir = home_of(&chosen, &memory)?;
    let broken = write_topology(&chosen, &dir)?;
    if chosen.lab.live {
        let (base, _) = world::accept(&world::sources(&chosen, State::Base)?, &name, &dir)?;
        world::restart(&name, base)?;
        world::settle(&chosen, &name)?;
    }
    if chosen.lab.fresh {
        world::restart(&name, broken)?;
    } else {
        let standing = Standing::of(&world::plan_of(&name)?);
        world::calm(&name, &world::sources(&chosen, State::Broken)?, &dir, &standing)?;
        world::change(&name, broken)?;
    }
    println!("{name} is as it was when it was started. Your file too: {}", dir.join("topology.yaml").display());
    Ok(0)
}

pub fn solve(which: &Which) -> Done {
    let mut memory = Memory::open()?;
    let chosen = chosen(which, &memory)?;
    let name = chosen.lab.lab_name();
    must_be_up(&name)?;
    let dir = home_of(&chosen, &memory)?;
    let standing = Standing::of(&world::plan_of(&name)?);
    world::calm(&name, &world::sources(&chosen, State::Fixed)?, &dir, &standing)?;
    let (fixed, _) = world::accept_over(&world::sources(&chosen, State::Fixed)?, &name, &dir, &standing)?;
    world::change(&name, fixed)?;
    let entry = memory.entry(&chosen.lab.id);
    entry.shown = true;
    // Steps about the broken state cannot be played any more: their answers are told.
    let lost = chosen.lab.steps.iter().filter(|step| step.state == State::Broken);
    for step in lost.filter(|step| !entry.solved.contains(&step.id)).collect::<Vec<_>>() {
        if let Some(ask) = &step.ask {
            println!("{}\n  {}: {}\n", step.say, ask.answer, ask.why);
        }
        entry.solved.push(step.id.clone());
    }
    println!("{}", chosen.folder.files.get(FIX).map_or("", |text| text.trim_end()));
    println!("\nThis patch is laid over {name} now. vpclab lab check");
    memory.save()?;
    Ok(0)
}

fn chosen(which: &Which, memory: &Memory) -> Result<Chosen, Failure> {
    match which.lab.as_ref().or(memory.progress.current.as_ref()) {
        Some(id) => choose(id),
        None => Err(Failure::input("no lab was started: vpclab lab list, vpclab lab start ID")),
    }
}

/// The learner's folder: paths in the topology start there.
fn home_of(chosen: &Chosen, memory: &Memory) -> Result<PathBuf, Failure> {
    let dir = memory.folder_of(&chosen.lab.id);
    std::fs::create_dir_all(&dir).map_err(|e| Failure::host(format!("{}: {e}", dir.display())))?;
    Ok(dir)
}

/// Writes the broken topology as one file for the learner, and judges what was written. What checks change meanwhile
/// lies beside it, to be tried by hand.
fn write_topology(chosen: &Chosen, dir: &Path) -> Result<store::Accepted, Failure> {
    let name = chosen.lab.lab_name();
    let mut sources = world::sources(chosen, State::Broken)?;
    sources.push(crate::model::Source::new("name", format!("name: {name}\n")));
    // The sources themselves first, so that a mistake is shown where it stands.
    world::accept(&sources, &name, dir)?;
    let root = model::merged(&sources).ok_or_else(|| Failure::input("the topology is no YAML"))?;
    let head = format!("# Lab {}: edit this, then `vpclab apply -l {name} topology.yaml`\n", chosen.lab.id);
    let text = head + &model::yaml_text(&root);
    let path = dir.join("topology.yaml");
    keep(&path, &text)?;
    std::fs::write(&path, &text).map_err(|e| Failure::host(format!("{}: {e}", path.display())))?;
    for name in chosen.folder.patches(CHANGES) {
        let path = dir.join(name);
        let write = || {
            std::fs::create_dir_all(dir.join(CHANGES))?;
            std::fs::write(&path, chosen.folder.files.get(name).map_or("", String::as_str))
        };
        write().map_err(|e: std::io::Error| Failure::host(format!("{}: {e}", path.display())))?;
    }
    let source = crate::model::Source::new(path.display().to_string(), text);
    Ok(world::accept(&[source], &name, dir)?.0)
}

/// What a learner wrote is put aside before it is written over.
fn keep(path: &Path, fresh: &str) -> Result<(), Failure> {
    let aside = path.with_file_name(BEFORE);
    match std::fs::read_to_string(path) {
        Ok(old) if old != fresh => {
            std::fs::write(&aside, old).map_err(|e| Failure::host(format!("{}: {e}", aside.display())))?;
            eprintln!("your last topology.yaml is kept as {}", aside.display());
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(super) fn is_up(name: &str) -> bool {
    crate::runtime::launch::choose(Some(name)).is_ok()
}

fn must_be_up(name: &str) -> Result<(), Failure> {
    let id = name.trim_start_matches("lab-");
    if is_up(name) { Ok(()) } else { Err(Failure::input(format!("{name} does not run: vpclab lab start {id}"))) }
}

/// Markdown as a terminal shows it: blocks indented, without their fences.
fn shown(text: &str) -> String {
    let mut out = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.starts_with("```") {
            true => inside = !inside,
            false if inside => out.push(format!("    {line}")),
            false => out.push(line.to_owned()),
        }
    }
    out.join("\n")
}

fn print_step(lab: &Lab, step: &Step) {
    let at = lab.steps.iter().position(|s| s.id == step.id).unwrap_or_default() + 1;
    println!("\nStep {at} of {}, {}: {}", lab.steps.len(), step.id, step.say);
    match &step.ask {
        Some(ask) => println!("  {}\n  vpclab lab check --answer WORD", ask.options.join(" | ")),
        None => println!("  vpclab lab check"),
    }
}

fn print_commands(chosen: &Chosen, name: &str, dir: &Path) {
    let first = chosen.lab.symptom.first().map_or("INSTANCE", |c| c.on.as_str());
    println!("look:       vpclab exec -l {name} {first} -- CMD    vpclab shell -l {name} {first}");
    println!("why:        vpclab explain -l {name} {first} DESTINATION    vpclab drops, flows, ps -l {name}");
    println!("change:     vpclab apply -l {name} {}", dir.join("topology.yaml").display());
    println!("help:       vpclab lab hint    vpclab lab reset    vpclab lab solve    vpclab down -l {name}");
}

fn now() -> u64 {
    crate::runtime::clock::OsClock::new().unix().0
}

#[cfg(test)]
mod tests {
    use super::super::all_shipped;
    use super::*;

    #[test]
    fn an_answer_is_taken_where_a_question_is_open() {
        let labs = all_shipped().expect("shipped labs can be read");
        let steps = || labs.iter().flat_map(|chosen| &chosen.lab.steps);
        let silent = steps().find(|step| step.ask.is_none()).expect("a step without a question");
        let refused = takes_answer(silent, &Entry::default()).expect_err("nothing is asked");
        assert!(refused.exit == 2 && refused.message.contains("asks no question"), "{}", refused.message);
        let asking = steps().find(|step| step.ask.is_some()).expect("a step with a question");
        assert!(takes_answer(asking, &Entry::default()).is_ok());
        let answered = Entry { answered: vec![asking.id.clone()], ..Entry::default() };
        assert!(takes_answer(asking, &answered).expect_err("a second time").message.contains("is answered"));
    }
}
