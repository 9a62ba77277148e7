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
fn the_readmes_backend_is_accepted() {
    let text = readme();
    let (_, yaml) = text.split_once("```yaml\n").expect("a snippet");
    let snippet = yaml.split_once("```").expect("its end").0;
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("lab.vpclab.yaml"), common::topology("demo.yaml")).expect("written");
    std::fs::write(dir.path().join("patch.yaml"), snippet).expect("written");
    run(vpclab().current_dir(dir.path()).args(["validate", "lab.vpclab.yaml", "patch.yaml"])).ok();
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
