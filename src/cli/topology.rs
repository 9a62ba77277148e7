//! Topology files: found, read, accepted or refused with a report on stderr.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::common::{Failure, FileArgs};
use crate::control::store::{self, Accepted};
use crate::model::{Around, Files, Loaded, MAX_BYTES, Report, Source};

/// Reads and validates the files that are meant; warnings go to stderr. A refusal is a report and exit code 2.
pub fn accept(args: &FileArgs) -> Result<(Accepted, Loaded), Failure> {
    accept_sources(&read(&args.files)?, args.name.as_deref())
}

/// The same with sources that are there already.
pub fn accept_sources(sources: &[Source], name: Option<&str>) -> Result<(Accepted, Loaded), Failure> {
    let cwd = std::env::current_dir()?;
    let around = Around { env: &|name| std::env::var(name).ok(), files: &Disk, name };
    let (accepted, loaded) = store::accept(sources, &around, &cwd).map_err(|report| refused(&report))?;
    if !loaded.warnings.problems.is_empty() {
        eprint!("{}", loaded.warnings.render(coloured()));
    }
    Ok((accepted, loaded))
}

/// The files as sources; without any, the one `*.vpclab.yaml` of this folder.
pub fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if files.is_empty() {
        return Ok(vec![read_one(&the_only_one()?)?]);
    }
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(file: &Path) -> Result<Source, Failure> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than is allowed tells that there is more.
    let limit = MAX_BYTES as u64 + 1;
    let done = if name == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    done.map_err(|e| Failure::input(format!("{name}: {e}")))?;
    Ok(Source::new(name, bytes))
}

fn the_only_one() -> Result<PathBuf, Failure> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(".")?
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|path| path.to_string_lossy().ends_with(".vpclab.yaml"))
        .collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::input("no *.vpclab.yaml in this folder; `vpclab init > lab.vpclab.yaml` makes one")),
        _ => {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::input(format!("several topologies in this folder: {}; say which", names.join(", "))))
        }
    }
}

fn refused(report: &Report) -> Failure {
    eprint!("{}", report.render(coloured()));
    Failure::input("")
}

fn coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The files of this machine.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() > MAX_BYTES { Err("too large".to_owned()) } else { Ok(bytes) }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }
}
