//! Leftovers of crashed labs: found by record, touched only if marked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::exec::MARK;
use super::rundir::{Record, RunDir, started};
use super::{instance, netns, procs};

/// How long leftover processes may take to end.
const GRACE: Duration = Duration::from_millis(500);

/// What was removed, for people: `namespace demo.app.web`.
pub type Removed = Vec<String>;

/// Removes what crashed labs of this user left; running labs are not touched. Errors are told by lab, after everything
/// else was tried.
pub fn clean() -> (Removed, Vec<(String, io::Error)>) {
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    for dir in RunDir::list() {
        let lab = dir.lab().to_owned();
        // the lock decides: claiming sweeps
        match RunDir::claim_crashed(&lab) {
            Ok(None) => {}
            Ok(Some((dir, gone))) => {
                removed.extend(gone);
                match dir.remove() {
                    Ok(()) => removed.push(format!("lab {lab}")),
                    Err(err) => errors.push((lab, err)),
                }
            }
            Err(err) => errors.push((lab, err)),
        }
    }
    if rustix::process::geteuid().is_root()
        && let Err(err) = netns::remove_folder_if_ours()
    {
        errors.push((netns::NAMED.to_owned(), err));
    }
    (removed, errors)
}

/// Removes what the records of a claimed folder name, and then the records.
pub(super) fn sweep(dir: &RunDir) -> io::Result<Removed> {
    let mut removed = Vec::new();
    let records = dir.records();
    // the processes first: they may still be making things
    for record in &records {
        if let Record::Keeper { pid, started: then } | Record::Router { pid, started: then } = record {
            let same = |pid: u32| started(pid) == Some(*then);
            if same(*pid) && procs::end(&[*pid], GRACE, same)? > 0 {
                removed.push(format!("process {pid}"));
            }
        }
    }
    for (path, left) in leftovers(&records) {
        if let Some(identity) = left.identity {
            let inside = procs::in_namespaces(&[identity]);
            let ours = |pid: u32| carries_mark(pid, dir.lab(), &path) || netns_of_process_is_marked(pid, dir.lab());
            let ours_inside: Vec<u32> = inside.into_iter().filter(|pid| ours(*pid)).collect();
            let ended = procs::end(&ours_inside, GRACE, ours)?;
            if ended > 0 {
                removed.push(format!("{ended} processes of {path}"));
            }
        }
        if let Some(name) = &left.name {
            if remove_named(dir.lab(), name, left.identity)? {
                removed.push(format!("namespace {name}"));
            }
            instance::hide_files(dir.lab(), name)?;
        }
        dir.record(&Record::Gone { path })?;
    }
    dir.clear()?;
    Ok(removed)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    name: Option<String>,
    identity: Option<(u64, u64)>,
}

/// What the records began and did not end, by instance.
fn leftovers(records: &[Record]) -> BTreeMap<String, Left> {
    let mut left: BTreeMap<String, Left> = BTreeMap::new();
    for record in records {
        match record {
            Record::Instance { path, name } => {
                left.insert(path.clone(), Left { name: name.clone(), identity: None });
            }
            Record::Netns { path, identity } => left.entry(path.clone()).or_default().identity = Some(*identity),
            Record::Gone { path } => drop(left.remove(path)),
            Record::Keeper { .. } | Record::Router { .. } => {}
        }
    }
    left
}

/// Removes /run/netns/NAME if it is the namespace of the record or holds a link of the lab's, or if it is the empty
/// file that a crash before the mount leaves.
fn remove_named(lab: &str, name: &str, identity: Option<(u64, u64)>) -> io::Result<bool> {
    let path = netns::named_path(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(err),
    };
    let stat = rustix::fs::fstatfs(&file)?;
    if stat.f_type != libc::NSFS_MAGIC {
        let empty = file.metadata()?.len() == 0;
        if empty {
            netns::take_name(name)?;
        }
        return Ok(empty);
    }
    if !netns::is_marked(file.as_fd(), lab)? && identity != Some(netns::identity(&file)?) {
        return Ok(false); // somebody else's by now
    }
    drop(file);
    netns::take_name(name)?;
    Ok(true)
}

/// A process that `exec` started.
fn carries_mark(pid: u32, lab: &str, path: &str) -> bool {
    let wanted = format!("{MARK}={lab}/{path}");
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|variables| variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
}

/// A process that entered by other means, `ip netns exec` for one. Only root may look.
fn netns_of_process_is_marked(pid: u32, lab: &str) -> bool {
    File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))
        .and_then(|file| netns::is_marked(file.as_fd(), lab))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_no_leftover() {
        let begun = |path: &str| Record::Instance { path: path.into(), name: Some(format!("l.{path}")) };
        let records = [
            Record::Keeper { pid: 1, started: 2 },
            begun("v.a"),
            Record::Netns { path: "v.a".into(), identity: (4, 7) },
            begun("v.b"),
            Record::Gone { path: "v.a".into() },
            begun("v.c"),
            Record::Netns { path: "v.c".into(), identity: (4, 8) },
        ];
        let left = leftovers(&records);
        assert_eq!(left.keys().collect::<Vec<_>>(), ["v.b", "v.c"]);
        assert_eq!(left["v.c"], Left { name: Some("l.v.c".into()), identity: Some((4, 8)) });
    }
}
