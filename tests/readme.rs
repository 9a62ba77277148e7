//! Does the README tell the truth? Its demo output is compared with the demo, its commands with the program, its
//! topology snippets with the validator.

mod common;

use common::{run, vpclab};

fn readme() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("README.md")
}

/// The text between `<!-- NAME -->` and `<!-- /NAME -->`.
fn part(text: &str, name: &str) -> String {
    let begin = format!("<!-- {name} -->");
    let (_, rest) = text.split_once(&begin).expect("the part begins");
    rest.split_once(&format!("<!-- /{name} -->")).expect("the part ends").0.to_owned()
}

#[test]
fn the_demo_says_what_the_readme_shows() {
    let said = run(vpclab().arg("demo"));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let mut lines = said.out.lines().map(str::trim_end);
    for wanted in part(&readme(), "demo").lines().map(str::trim_end) {
        if !matches!(wanted, "" | "..." | "```") {
            assert!(lines.any(|line| line == wanted), "the demo does not say, in this order: {wanted:?}\n{}", said.out);
        }
    }
}

#[test]
fn every_verb_the_readme_names_is_one() {
    let help = run(vpclab().arg("--help")).ok();
    let verbs: Vec<&str> = help.lines().filter_map(|l| l.strip_prefix("  ")?.split_whitespace().next()).collect();
    let text = readme();
    let mut named = 0;
    for (at, _) in text.match_indices("vpclab ") {
        let before = text[..at].chars().next_back();
        let word: String = text[at + 7..].chars().take_while(|c| c.is_ascii_lowercase()).collect();
        let is_command = matches!(before, Some('`' | '\n')) || text[..at].ends_with("$ ");
        if is_command && !word.is_empty() {
            assert!(verbs.contains(&word.as_str()), "README names `vpclab {word}`; the verbs are {verbs:?}");
            named += 1;
        }
    }
    assert!(named > 10, "only {named} commands were found in the README: is the search right?");
}

#[test]
fn the_readmes_explanation_is_what_explain_says() {
    let text = part(&readme(), "explain");
    let command = text.lines().find_map(|line| line.strip_prefix("$ vpclab ")).expect("a command");
    let root = env!("CARGO_MANIFEST_DIR");
    let said = run(vpclab().current_dir(root).args(command.split_whitespace())).ok();
    let mut lines = said.lines().map(str::trim_end);
    for wanted in text.lines().map(str::trim_end).filter(|line| !line.starts_with('$')) {
        if !matches!(wanted, "" | "..." | "```") {
            assert!(lines.any(|line| line == wanted), "explain does not say, in this order: {wanted:?}\n{said}");
        }
    }
}

/// Each is a patch: over the topology that its first line names, else over the demo's.
#[test]
fn the_readmes_snippets_are_accepted_and_their_checks_hold() {
    let text = readme();
    let mut seen = 0;
    for part in text.split("```yaml\n").skip(1) {
        let snippet = part.split_once("```").expect("its end").0;
        let first = snippet.lines().next().unwrap_or_default();
        let base = match first.split_once("topologies/") {
            Some((_, rest)) => rest.split(':').next().expect("a file"),
            None => "demo.yaml",
        };
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("lab.vpclab.yaml"), common::topology(base)).expect("written");
        std::fs::write(dir.path().join("patch.yaml"), snippet).expect("written");
        let files = ["lab.vpclab.yaml", "patch.yaml"];
        run(vpclab().current_dir(dir.path()).arg("validate").args(files)).ok();
        if snippet.contains("\nchecks:") {
            run(vpclab().current_dir(dir.path()).args(["test", "--static"]).args(files)).ok();
        }
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} snippets were found in the README: is the search right?");
}

#[test]
fn every_topology_that_ships_is_good_and_its_checks_hold_by_the_tables() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("topologies").flatten() {
        let path = entry.path();
        run(vpclab().arg("validate").arg(&path)).ok();
        if std::fs::read_to_string(&path).expect("text").contains("\nchecks:") {
            run(vpclab().args(["test", "--static"]).arg(&path)).ok();
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} topologies");
}
