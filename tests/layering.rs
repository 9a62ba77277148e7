//! Does every room use only the rooms below it? The table is ARCHITECTURE.md's, section 3; a new arrow is argued there
//! before it is added here.

use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("model", &["base"]),
    ("engine", &["base", "wire", "model"]),
    ("stack", &["base", "wire", "model"]),
    ("dns", &["base", "wire", "model"]),
    ("imds", &["base", "wire", "model"]),
    ("policy", &["base", "wire", "model"]),
    ("services", &["base", "model", "policy"]),
    ("host", &["base", "model", "wire"]),
    ("observe", &["base", "model", "wire", "engine"]),
    ("control", &["base", "model", "engine", "dns", "imds", "policy", "wire", "observe"]),
    (
        "runtime",
        &[
            "base", "wire", "model", "engine", "stack", "dns", "imds", "policy", "services", "host", "observe",
            "control",
        ],
    ),
    ("cli", &["base", "model", "control", "runtime", "policy", "dns", "engine", "host", "services"]),
];

/// Rooms whose code is a function of its arguments: what they must not reach for.
const PURE: &[&str] = &["base", "wire", "model", "engine", "stack", "dns", "imds", "policy", "observe"];
const IMPURE_WORDS: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::env",
    "std::process",
    "tokio::",
    "async fn",
    "Mutex",
    "RwLock",
    "println!",
    "eprintln!",
];

#[test]
fn every_room_uses_only_rooms_below_it() {
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_USE {
        for (place, line) in code_lines(room) {
            for (other, _) in MAY_USE {
                if other != room && !allowed.contains(other) && names_room(&line, other) {
                    wrong.push(format!("{place}: {room} may not use {other}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows against the layers (ARCHITECTURE.md, section 3):\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_reach_for_no_clock_file_thread_or_lock() {
    let mut wrong = Vec::new();
    for room in PURE {
        for (place, line) in code_lines(room) {
            for word in IMPURE_WORDS {
                if line.contains(word) {
                    wrong.push(format!("{place}: {room} is a pure room and may not use `{word}`: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "impure code in pure rooms:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_the_host_room() {
    let mut wrong = Vec::new();
    for (room, _) in MAY_USE.iter().filter(|(room, _)| *room != "host") {
        for (place, line) in code_lines(room) {
            let code = line.split("//").next().unwrap_or("");
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                wrong.push(format!("{place}: `unsafe` outside host: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_room() {
    let rooms: Vec<String> = fs::read_dir(source_root())
        .expect("src")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for room in &rooms {
        assert!(MAY_USE.iter().any(|(name, _)| name == room), "room {room} has no row in the table of layers");
    }
}

fn names_room(line: &str, room: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    [format!("crate::{room}::"), format!("crate::{room};"), format!("crate::{room} "), format!("vpclab::{room}")]
        .iter()
        .any(|path| code.contains(path.as_str()))
        || (code.contains("crate::{") && code.contains(&format!("{room}::")))
}

/// Every line of code of a room with its place, without the unit tests at the end of a file and without comment lines.
fn code_lines(room: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut pending = vec![source_root().join(room)];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).expect("folder").map(|entry| entry.expect("entry").path()));
        } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test_file(&path) {
            let text = fs::read_to_string(&path).expect("source");
            let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path).display().to_string();
            let mut for_tests = false;
            for (n, line) in text.lines().enumerate() {
                let code = line.trim_start();
                // A module of tests in the file ends it; a declaration for tests ends where it does.
                if for_tests && code.starts_with("mod ") && code.ends_with('{') {
                    break;
                }
                if for_tests {
                    for_tests = !code.ends_with(';') && !code.ends_with('}');
                } else if code.starts_with("#[cfg(test)]") {
                    for_tests = true;
                } else if !code.starts_with("//") {
                    lines.push((format!("{shown}:{}", n + 1), line.to_owned()));
                }
            }
        }
    }

    lines
}

/// A file of unit tests only (`tests.rs`, or below `tests/` or `oracle/`), declared under `#[cfg(test)]` by its room.
fn is_test_file(path: &Path) -> bool {
    let for_tests = |part: &std::ffi::OsStr| part == "tests" || part == "oracle";
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.strip_prefix(source_root()).is_ok_and(|inner| inner.iter().any(for_tests))
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
