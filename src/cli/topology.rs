//! The topology files of a verb: found, read, judged. Whatever is wrong with them is one report and exit code 2.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::common::{Failure, FileArgs};
use crate::control::store::{self, Accepted};
use crate::model::{Around, Files, Loaded, MAX_BYTES, Source, Standing, keeps_name, written_name};

/// Reads and judges what the verb's arguments name. Warnings go to stderr.
pub fn read(args: &FileArgs) -> Result<(Accepted, Loaded), Failure> {
    // What is written beats the variable behind `--file`.
    let files = if args.files.is_empty() { &args.more } else { &args.files };
    read_files(files, args.name.as_deref())
}

pub fn read_files(files: &[PathBuf], name: Option<&str>) -> Result<(Accepted, Loaded), Failure> {
    let paths = if files.is_empty() { vec![the_one_here()?] } else { files.to_vec() };
    let sources = paths.iter().map(|path| source(path)).collect::<Result<Vec<Source>, Failure>>()?;
    let env = |name: &str| std::env::var(name).ok();
    judge(&sources, &Around { env: &env, files: &Disk, name }, &Standing::default())
}

/// The same for a lab that runs, under its name: see `Standing`.
pub fn read_over(files: &[PathBuf], lab: &str, standing: &Standing) -> Result<Accepted, Failure> {
    let paths = if files.is_empty() { vec![the_one_here()?] } else { files.to_vec() };
    let sources = paths.iter().map(|path| source(path)).collect::<Result<Vec<Source>, Failure>>()?;
    if let Some(name) = sources.iter().rev().find_map(written_name).filter(|name| name != lab) {
        eprintln!(
            "vpclab: warning: the file is of a lab named `{name}`: it is laid over `{lab}`, which keeps its name"
        );
    }
    let env = |name: &str| std::env::var(name).ok();
    judge(&sources, &Around { env: &env, files: &Disk, name: Some(lab) }, standing).map(|(accepted, _)| accepted)
}

/// Patches over the text of a lab: what that text drew in stays as it was at acceptance.
pub fn patch(base: &Accepted, patches: &[Source], standing: &Standing) -> Result<Accepted, Failure> {
    for patch in patches {
        keeps_name(patch, &base.name).map_err(|report| Failure { exit: 2, message: report.render(color()) })?;
    }
    let text = base.sources.iter().map(|s| Source::new(s.path.clone(), s.text.as_str()));
    let sources: Vec<Source> = text.chain(patches.iter().cloned()).collect();
    let env = |name: &str| base.env.get(name).cloned().unwrap_or_else(|| std::env::var(name).ok());
    let around = Around { env: &env, files: &Over(base), name: Some(&base.name) };
    let (accepted, _) = judge(&sources, &around, standing)?;
    Ok(Accepted { dir: base.dir.clone(), ..accepted })
}

fn judge(sources: &[Source], around: &Around<'_>, standing: &Standing) -> Result<(Accepted, Loaded), Failure> {
    let color = color();
    match store::accept_over(sources, around, &std::env::current_dir()?, standing) {
        Ok((accepted, loaded)) => {
            if !loaded.warnings.is_empty() {
                eprintln!("{}", loaded.warnings.render(color).trim_end());
            }
            Ok((accepted, loaded))
        }
        Err(report) => Err(Failure { exit: 2, message: report.render(color) }),
    }
}

fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The lab that files name, if they are good; what is wrong with them is told when they are read for it.
pub fn name_of(files: &[PathBuf]) -> Option<String> {
    let paths = if files.is_empty() { vec![the_one_here().ok()?] } else { files.to_vec() };
    let sources = paths.iter().map(|path| source(path).ok()).collect::<Option<Vec<Source>>>()?;
    let env = |name: &str| std::env::var(name).ok();
    let (accepted, _) =
        store::accept(&sources, &Around { env: &env, files: &Disk, name: None }, &std::env::current_dir().ok()?)
            .ok()?;
    Some(accepted.name)
}

/// The one `*.vpclab.yaml` in this folder.
fn the_one_here() -> Result<PathBuf, Failure> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(".")?
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|path| path.to_string_lossy().ends_with(".vpclab.yaml"))
        .collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            Err(Failure::input("no topology: name a file, or `vpclab init > lab.vpclab.yaml` makes one to start from"))
        }
        _ => {
            let names: Vec<String> = found.iter().map(|p| p.display().to_string()).collect();
            Err(Failure::input(format!("several topologies here: {}; name one", names.join(", "))))
        }
    }
}

pub fn source(path: &Path) -> Result<Source, Failure> {
    let failed = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
    let limit = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(Source::new(path.display().to_string(), bytes))
}

/// What a text drew in when it was accepted; what is new, from this machine.
struct Over<'a>(&'a Accepted);

impl Files for Over<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        if self.0.files.contains_key(path) { self.0.read(path) } else { Disk.read(path) }
    }

    fn is_dir(&self, path: &Path) -> bool {
        if self.0.folders.contains_key(path) { self.0.is_dir(path) } else { Disk.is_dir(path) }
    }
}

/// Files as they are on this machine.
pub(super) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() > MAX_BYTES { Err(format!("over {MAX_BYTES} bytes")) } else { Ok(bytes) }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }
}
