//! `vpclab lab`: training labs. Each is a network that works, a patch that breaks it, and checks that know when it is
//! mended, whichever way.

mod ask;
mod memory;
mod play;
mod shipped;
mod vet;
mod world;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::common::{Done, Failure, Format, FormatArg, print_json, table};
use crate::control::lab::{self as model, Folder, Lab};
use memory::Memory;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The labs there are, and how far you are
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Bring a lab up, broken, and say what is to be done
    Start {
        /// The lab's id, or a folder with a lab.yaml; left out: the next one is named
        #[arg(value_name = "ID|FOLDER")]
        lab: Option<String>,
        /// Without root: map only the own id into the lab
        #[arg(long, env = "VPCLAB_OWN_ID")]
        own_id: bool,
    },
    /// Ask whether the current step is solved, and what was seen
    Check {
        #[command(flatten)]
        which: Which,
        /// The answer to the step's question
        #[arg(long, value_name = "WORD")]
        answer: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// A hint for what is wrong now; plainer each time
    Hint {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Back to the broken state
    Reset(Which),
    /// Show the solution and lay it over the running lab
    Solve(Which),
    /// Prove labs: healthy base, exact symptom, every fix mends, every wrong fix does not
    Vet {
        /// Ids or folders; left out: all that are shipped
        #[arg(value_name = "ID|FOLDER")]
        labs: Vec<String>,
        /// So many at once
        #[arg(long, short = 'j', value_name = "N", default_value_t = 4)]
        jobs: usize,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(clap::Args, Clone, Debug, Default)]
pub struct Which {
    /// The lab's id; left out: the one started last
    #[arg(value_name = "ID")]
    lab: Option<String>,
}

pub fn run(args: Args) -> Done {
    match args.verb {
        Verb::List { format } => list(format.format),
        #[cfg(target_os = "linux")]
        Verb::Start { lab: Some(lab), own_id } => play::start(&lab, own_id),
        #[cfg(target_os = "linux")]
        Verb::Start { lab: None, .. } => Err(which_lab()?),
        #[cfg(target_os = "linux")]
        Verb::Check { which, answer, format } => play::check(&which, answer.as_deref(), format.format),
        #[cfg(target_os = "linux")]
        Verb::Hint { which, format } => play::hint(&which, format.format),
        #[cfg(target_os = "linux")]
        Verb::Reset(which) => play::reset(&which),
        #[cfg(target_os = "linux")]
        Verb::Solve(which) => play::solve(&which),
        #[cfg(target_os = "linux")]
        Verb::Vet { labs, jobs, format } => vet::run(&labs, jobs, format.format),
        #[cfg(not(target_os = "linux"))]
        _ => Err(Failure::host("labs run on Linux only; lab list works here")),
    }
}

/// A lab with its files.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub lab: Lab,
    pub folder: Folder,
    /// Where it was read from; `None`: it is shipped.
    pub dir: Option<PathBuf>,
}

fn list(format: Format) -> Done {
    let progress = Memory::open()?.progress;
    let mut labs = all_shipped()?;
    for (id, entry) in &progress.labs {
        // One's own, if it is still there.
        if let Some(folder) = &entry.folder
            && !labs.iter().any(|c| &c.lab.id == id)
            && let Ok(own) = from_dir(Path::new(folder))
        {
            labs.push(own);
        }
    }
    let state = |lab: &Lab| {
        let entry = progress.labs.get(&lab.id).cloned().unwrap_or_default();
        let solved = lab.steps.iter().filter(|s| entry.solved.contains(&s.id)).count();
        let text = match (solved == lab.steps.len(), entry.shown, entry.started) {
            (true, true, _) => "shown".to_owned(),
            (true, false, _) => "solved".to_owned(),
            (false, _, 0) => "-".to_owned(),
            // Started once more: what was solved stays so.
            (false, ..) if entry.finished > 0 => format!("solved; again {solved} of {}", lab.steps.len()),
            (false, ..) => format!("{solved} of {}", lab.steps.len()),
        };
        let text = if runs(lab) { format!("{text}, runs") } else { text };
        if progress.current.as_deref() == Some(lab.id.as_str()) { format!("{text} *") } else { text }
    };
    if format == Format::Json {
        let rows: Vec<serde_json::Value> = labs
            .iter()
            .map(|Chosen { lab, .. }| {
                serde_json::json!({
                    "id": lab.id, "title": lab.title, "order": lab.order, "kind": lab.kind, "minutes": lab.minutes,
                    "difficulty": lab.difficulty, "cases": lab.cases, "objectives": lab.objectives,
                    "requires": lab.requires, "steps": lab.steps.len(), "running": runs(lab),
                    "finished": progress.labs.get(&lab.id).is_some_and(|e| e.finished > 0),
                    "solved": progress.labs.get(&lab.id).map(|e| e.solved.clone()).unwrap_or_default(),
                })
            })
            .collect();
        return print_json(&rows);
    }
    let rows: Vec<Vec<String>> = labs
        .iter()
        .map(|Chosen { lab, .. }| {
            vec![
                lab.id.clone(),
                lab.title.clone(),
                lab.kind.clone(),
                lab.difficulty.to_string(),
                format!("{} min", lab.minutes),
                lab.cases.join(" "),
                state(lab),
            ]
        })
        .collect();
    print!("{}", table(&["id", "title", "kind", "level", "time", "cases", "progress"], &rows));
    match &progress.current {
        Some(current) => eprintln!("* is the one started last: {current}. vpclab lab start ID"),
        None => eprintln!("vpclab lab start ID"),
    }
    Ok(0)
}

#[cfg(target_os = "linux")]
fn runs(lab: &Lab) -> bool {
    play::is_up(&lab.lab_name())
}

#[cfg(not(target_os = "linux"))]
fn runs(_: &Lab) -> bool {
    false
}

/// The first that is not solved is proposed to who names none.
fn which_lab() -> Result<Failure, Failure> {
    let progress = Memory::open()?.progress;
    let labs = all_shipped()?;
    let open = |lab: &Lab| progress.labs.get(&lab.id).is_none_or(|entry| entry.finished == 0);
    let next = labs.iter().map(|c| &c.lab).find(|lab| open(lab)).or(labs.first().map(|c| &c.lab));
    let next = next.map_or(String::new(), |lab| format!("; next is `vpclab lab start {}`: {}", lab.id, lab.title));
    Ok(Failure::input(format!("which lab? `vpclab lab list` shows them{next}")))
}

/// A shipped lab by its id, or one of one's own by its folder.
fn choose(word: &str) -> Result<Chosen, Failure> {
    let path = Path::new(word);
    if path.join(model::LAB).is_file() {
        return from_dir(path);
    }
    let labs = all_shipped()?;
    if let Some(found) = labs.iter().find(|c| c.lab.id == word || c.lab.lab_name() == word) {
        return Ok(found.clone());
    }
    if let Some(entry) = Memory::open()?.progress.labs.get(word)
        && let Some(folder) = &entry.folder
    {
        return from_dir(Path::new(folder));
    }
    let ids: Vec<&str> = labs.iter().map(|c| c.lab.id.as_str()).collect();
    let near = crate::model::spec::report::did_you_mean(word, ids.iter().copied());
    Err(Failure::input(format!(
        "no lab is named `{word}`, and no folder of that name has a lab.yaml; {}",
        near.unwrap_or_else(|| format!("there are: {}", ids.join(", ")))
    )))
}

/// All that the program carries, in the order of the curriculum.
fn all_shipped() -> Result<Vec<Chosen>, Failure> {
    let read = |folder: Folder| read(folder, None);
    let mut labs = shipped::folders().into_iter().map(read).collect::<Result<Vec<Chosen>, Failure>>()?;
    labs.sort_by(|a, b| (a.lab.order, &a.lab.id).cmp(&(b.lab.order, &b.lab.id)));
    Ok(labs)
}

fn read(folder: Folder, dir: Option<PathBuf>) -> Result<Chosen, Failure> {
    let source = folder.source(model::LAB).map_err(Failure::input)?;
    let lab =
        model::read(&source).map_err(|report| Failure::input(format!("{}\n{}", folder.path, report.render(false))))?;
    let changes = lab.checks().filter_map(|c| Some((c.line, c.change.as_ref()?.patch.as_str())));
    let mut named = changes.chain(lab.refused.iter().map(|r| (0, r.patch.as_str())));
    let missing = named.find(|(_, patch)| !folder.files.contains_key(*patch));
    let missing = missing.map(|(line, patch)| {
        let at = if line == 0 { String::new() } else { format!(":{line}") };
        format!("{}/{}{at}: there is no file {patch}", folder.path, model::LAB)
    });
    drop(named);
    if let Some(missing) = missing {
        return Err(Failure::input(missing));
    }
    Ok(Chosen { lab, folder, dir })
}

/// Files of a lab, bytes in all.
const LARGEST: u64 = 4 << 20;

/// A lab in a folder: its texts, one level of folders below it.
fn from_dir(dir: &Path) -> Result<Chosen, Failure> {
    let dir = dir.canonicalize().map_err(|e| Failure::input(format!("{}: {e}", dir.display())))?;
    let mut folder = Folder { path: dir.display().to_string(), ..Folder::default() };
    let mut left = LARGEST;
    let mut pending = vec![(dir.clone(), String::new())];
    while let Some((path, prefix)) = pending.pop() {
        let failed = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let meta = entry.metadata().map_err(failed)?;
            if meta.is_dir() && prefix.is_empty() {
                pending.push((entry.path(), format!("{name}/")));
            } else if meta.is_file() && (name.ends_with(".yaml") || name.ends_with(".md") || name.ends_with(".sh")) {
                left = left
                    .checked_sub(meta.len())
                    .ok_or_else(|| Failure::input(format!("{}: over {LARGEST} bytes of texts", dir.display())))?;
                let text = std::fs::read_to_string(entry.path())
                    .map_err(|e| Failure::input(format!("{}: {e}", entry.path().display())))?;
                folder.files.insert(name, text);
            }
        }
    }
    read(folder, Some(dir))
}
