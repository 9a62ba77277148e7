//! Where progress is kept: `$XDG_STATE_HOME/vpclab/labs`, `~/.local/state/vpclab/labs` if that is not set.

use std::path::PathBuf;

use super::super::common::Failure;
use crate::control::lab::{Entry, Progress};

/// Progress and its file.
pub struct Memory {
    pub progress: Progress,
    dir: PathBuf,
}

impl Memory {
    pub fn open() -> Result<Memory, Failure> {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let dir = state.or_else(home).unwrap_or_else(std::env::temp_dir).join("vpclab/labs");
        let text = match std::fs::read_to_string(dir.join("progress.yaml")) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::host(format!("{}: {e}", dir.join("progress.yaml").display()))),
        };
        Ok(Memory { progress: Progress::parse(&text), dir })
    }

    pub fn entry(&mut self, id: &str) -> &mut Entry {
        self.progress.labs.entry(id.to_owned()).or_default()
    }

    /// The learner's folder of a lab, with its `topology.yaml`.
    pub fn folder_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Written beside and renamed, so that a crash leaves the old or the new.
    pub fn save(&self) -> Result<(), Failure> {
        let path = self.dir.join("progress.yaml");
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, self.progress.to_text())?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(|e: std::io::Error| Failure::host(format!("{}: {e}", path.display())))
    }
}
