//! Are the training labs true? Every shipped lab is proved by `vpclab lab vet`, as root and as an ordinary user: healthy
//! base, exact symptom, every fix mends, every wrong fix does not. And the proof itself: does it find a lab that lies?

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{NOBODY, Said, VPCLAB, as_ordinary_user, copy_program, is_root, run, vpclab};

/// Labs at once: most of their time is waiting for timeouts.
const JOBS: &str = "8";

/// `vpclab lab ARGS...` with a memory of its own.
fn lab(state: &Path, args: &[&str]) -> Said {
    run(vpclab().arg("lab").args(args).env("XDG_STATE_HOME", state).current_dir(state))
}

/// What `lab vet -f json` found wrong.
fn wrong(said: &Said) -> Vec<String> {
    let reports: Vec<serde_json::Value> =
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}:\n{}\n{}", said.out, said.err));
    assert!(!reports.is_empty(), "nothing was vetted");
    let texts = |r: &serde_json::Value| -> Vec<String> {
        let id = r["id"].as_str().unwrap_or_default().to_owned();
        let wrong = r["wrong"].as_array().cloned().unwrap_or_default();
        wrong.iter().map(|w| format!("{id}: {}", w.as_str().unwrap_or_default())).collect()
    };
    reports.iter().flat_map(texts).collect()
}

#[test]
fn every_lab_is_proved() {
    let state = tempfile::tempdir().expect("folder");
    let said = lab(state.path(), &["vet", "-j", JOBS, "-f", "json"]);
    assert!(wrong(&said).is_empty(), "{:#?}", wrong(&said));
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn every_lab_is_proved_without_root() {
    if !is_root() {
        return; // the test above is the same then
    }
    let dir = tempfile::Builder::new().prefix("vpclab-labs").tempdir_in("/tmp").expect("folder");
    copy_program(VPCLAB.as_ref(), &dir.path().join("vpclab"));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    std::fs::create_dir(dir.path().join("run")).expect("run directory");
    run(Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(dir.path())).ok();
    let path = dir.path().display();
    let user = format!(
        "cd {path} && export HOME={path} XDG_STATE_HOME={path} XDG_RUNTIME_DIR={path}/run TMPDIR={path} && unset VPCLAB_LAB \
         && exec ./vpclab lab vet -j {JOBS} -f json"
    );
    let said = run(as_ordinary_user("true").args(["sh", "-c", &user]));
    assert!(wrong(&said).is_empty(), "{:#?}", wrong(&said));
    assert_eq!(said.code, 0, "{}", said.err);
}

/// A copy of a shipped lab, to be spoiled.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let dir = tempfile::tempdir().expect("folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs").join(name);
        run(Command::new("cp").arg("-r").arg(from.join(".")).arg(dir.path())).ok();
        let own = std::fs::read_to_string(dir.path().join("lab.yaml")).expect("lab.yaml");
        // An id of its own, so that tests that run at the same time do not meet.
        let id = own.lines().find_map(|l| l.strip_prefix("id: ")).expect("an id").to_owned();
        let own = own.replacen(&format!("id: {id}"), &format!("id: copy-{}", common::unique_name()), 1);
        std::fs::write(dir.path().join("lab.yaml"), own).expect("lab.yaml");
        Copy { dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(file)).expect("file");
        assert!(text.contains(from), "{file} has no {from:?}");
        std::fs::write(self.path(file), text.replacen(from, to, 1)).expect("written");
    }

    fn id(&self) -> String {
        let text = std::fs::read_to_string(self.path("lab.yaml")).expect("lab.yaml");
        text.lines().find_map(|l| l.strip_prefix("id: ")).expect("an id").to_owned()
    }

    fn vet(&self) -> Said {
        let state = tempfile::tempdir().expect("folder");
        lab(state.path(), &["vet", "-f", "json", &self.dir.path().display().to_string()])
    }

    #[track_caller]
    fn is_found(&self, words: &str) {
        let said = self.vet();
        assert_eq!(said.code, 1, "{}{}", said.out, said.err);
        let wrong = wrong(&said);
        assert!(wrong.iter().any(|w| w.contains(words)), "not found: {words}\n{wrong:#?}");
    }
}

#[test]
fn a_wrong_fix_that_mends_is_found() {
    let copy = Copy::of("01-endpoint-sg");
    std::fs::copy(copy.path("fix.patch.yaml"), copy.path("wrong-fixes/wrong-port.patch.yaml")).expect("copied");
    copy.is_found("wrong-fixes/wrong-port.patch.yaml: everything is green after a wrong fix");
}

#[test]
fn a_fix_that_does_not_mend_and_a_break_that_does_not_break_are_found() {
    let copy = Copy::of("01-endpoint-sg");
    std::fs::copy(copy.path("wrong-fixes/wrong-port.patch.yaml"), copy.path("fix.patch.yaml")).expect("copied");
    copy.is_found("fix.patch.yaml: fix: app-a to https://sts.us-east-1.amazonaws.com");
    let copy = Copy::of("01-endpoint-sg");
    copy.edit("break.patch.yaml", "tcp 443 from self", "tcp 443 from 10.0.0.0/8");
    copy.is_found("symptom: app-a run curl");
    copy.is_found("holds though it is broken");
}

#[test]
fn another_symptom_than_the_declared_one_is_found() {
    let copy = Copy::of("01-endpoint-sg");
    copy.edit("lab.yaml", "drop: SG_INGRESS at sg:vpc.vpce", "drop: SG_INGRESS at sg:vpc.app");
    copy.is_found("no drop SG_INGRESS at sg:vpc.app");
    let copy = Copy::of("01-endpoint-sg");
    copy.edit("README.md", "curl: (28) Failed", "curl: (7) Failed");
    copy.is_found("README.md quotes what no symptom prints: curl: (7) Failed to connect");
}

#[test]
fn a_lab_is_played_from_start_to_end() {
    let state = tempfile::tempdir().expect("folder");
    let copy = Copy::of("01-endpoint-sg");
    let id = copy.id();
    let lab = |args: &[&str]| lab(state.path(), args);

    lab(&["check"]).fails_with(2);
    let started = lab(&["start", &copy.dir.path().display().to_string()]);
    let _down = Down(format!("lab-{id}"));
    let story = started.ok();
    assert!(story.contains("Timeout was reached") && !story.contains("Afterwards"), "{story}");
    assert!(story.contains("Step 1 of 2, see:"), "{story}");
    let topology = state.path().join("vpclab/labs").join(&id).join("topology.yaml");
    let file = topology.display().to_string();
    run(vpclab().args(["validate", &file])).ok();

    assert_eq!(lab(&["check"]).code, 1, "a question is not answered by asking");
    let said = lab(&["check", "--answer", "client-sg"]);
    assert_eq!((said.code, said.out.contains("not so")), (1, true), "{}", said.out);
    let said = lab(&["check", "--answer", "endpoint-sg"]).ok();
    assert!(said.contains("Right: endpoint-sg.") && said.contains("Step 2 of 2, fix:"), "{said}");

    let said = lab(&["check"]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.contains("RED     filter       app-a to https://sts"), "{}", said.out);
    assert!(said.out.contains("blocked application  app-a run curl"), "{}", said.out);
    assert!(said.out.contains("SG_INGRESS"), "{}", said.out);
    let first = lab(&["hint"]).ok();
    let second = lab(&["hint"]).ok();
    assert!(first.starts_with("Hint 1 of 3: Which security group"), "{first}");
    assert!(second.starts_with("Hint 2 of 3: ") && second.contains("admits only"), "{second}");
    let told: serde_json::Value = serde_json::from_str(&lab(&["hint", "-f", "json"]).ok()).expect("JSON");
    assert_eq!((&told["step"], &told["hint"]["number"], &told["hint"]["of"]), (&"fix".into(), &3.into(), &3.into()));
    let again = lab(&["hint"]).ok();
    assert!(again.starts_with("Hint 3 of 3: ") && again.contains("no plainer one"), "{again}");

    // A fix that works and opens too much, as a learner lays it over the running lab; then the learner's own file.
    let wide = copy.path("wrong-fixes/open-everything.patch.yaml").display().to_string();
    let name = format!("lab-{id}");
    run(vpclab().args(["apply", "-l", &name, "--patch", &wide])).ok();
    let said = lab(&["check"]);
    assert!(said.code == 1 && said.out.contains("RED     guard"), "{}", said.out);
    let other = lab(&["hint"]).ok();
    assert!(other.starts_with("Hint 1 of 1: Too much was opened"), "another state, its own first hint: {other}");
    lab(&["reset"]).ok();
    assert!(lab(&["check"]).out.contains("SG_INGRESS"), "reset is broken again");
    let text = std::fs::read_to_string(&topology).expect("the learner's file");
    assert!(text.contains("tcp 443 from self"), "{text}");
    std::fs::write(&topology, text.replace("tcp 443 from self", "tcp 443 from sg:app")).expect("edited");
    run(vpclab().args(["apply", "-l", &name, &file])).ok();
    assert!(lab(&["solve"]).ok().contains("tcp 443 from 10.0.0.0/16"));
    let said = lab(&["check"]).ok();
    assert!(said.contains("Solved after") && said.contains("## Afterwards"), "{said}");
    assert!(lab(&["check"]).ok().contains("are solved, and all of it holds"));
    lab(&["reset"]).ok();
    let aside = std::fs::read_to_string(topology.with_file_name("topology.before.yaml")).expect("what was edited");
    assert!(aside.contains("tcp 443 from sg:app"), "{aside}");
    let said = lab(&["check"]);
    assert!(said.code == 1 && said.out.contains("broken again") && said.out.contains("SG_INGRESS"), "{}", said.out);
    let list = lab(&["list", "-f", "json"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let own = list.as_array().and_then(|l| l.iter().find(|r| r["id"] == id.as_str())).expect("in the list");
    assert_eq!(own["solved"], serde_json::json!(["see", "fix"]));
}

#[test]
fn a_learner_may_mend_first_answer_late_and_give_up() {
    let state = tempfile::tempdir().expect("folder");
    let copy = Copy::of("01-endpoint-sg");
    // A check of the first step that holds only while it is broken.
    let resolves = "      - { on: app-a, dns: sts.us-east-1.amazonaws.com, expect: { in_cidr: 10.0.96.0/20 } }\n";
    let dropped = "      - { on: app-a, to: 'https://sts.us-east-1.amazonaws.com', expect: SG_INGRESS }\n";
    copy.edit("lab.yaml", resolves, &format!("{resolves}{dropped}"));
    let folder = copy.dir.path().display().to_string();
    let name = format!("lab-{}", copy.id());
    let lab = |args: &[&str]| lab(state.path(), args);

    lab(&["start", &folder]).ok();
    let down = Down(name.clone());
    let twice = lab(&["start", &folder]).fails_with(2);
    assert!(twice.contains("runs already: vpclab lab reset"), "{twice}");
    let fix = copy.path("fix.patch.yaml").display().to_string();
    run(vpclab().args(["apply", "-l", &name, "--patch", &fix])).ok();
    let asked = lab(&["check"]);
    assert!(asked.code == 1 && asked.out.contains("begins with a question"), "{}", asked.out);
    let asked: serde_json::Value = serde_json::from_str(&lab(&["check", "-f", "json"]).out).expect("JSON");
    assert_eq!((&asked["solved"], &asked["question"]["options"][3]), (&false.into(), &"endpoint-sg".into()));
    let unknown = lab(&["check", "--answer", "ednpoint-sg"]);
    assert!(unknown.code == 1 && unknown.out.contains("options: dns | route |"), "{}", unknown.out);
    let late = lab(&["check", "--answer", "Endpoint-SG"]).ok();
    assert!(late.contains("the answer counts") && late.contains("Step 2 of 2, fix:"), "{late}");
    let done = lab(&["hint"]).ok();
    assert!(done.contains("holds now. vpclab lab check"), "{done}");
    lab(&["check"]).ok();
    drop(down);

    lab(&["start", &folder]).ok();
    let down = Down(name.clone());
    let shown = lab(&["solve"]).ok();
    assert!(shown.contains("endpoint-sg: An endpoint's network interface") && shown.contains("10.0.0.0/16"), "{shown}");
    assert!(lab(&["check"]).ok().contains("Solved after"));
    let list = lab(&["list"]).ok();
    assert!(list.contains("shown, runs *"), "{list}");
    drop(down);
    lab(&["start", &folder]).ok();
    let _down = Down(name);
    let list = lab(&["list"]).ok();
    assert!(list.contains("solved; again 0 of 2, runs *"), "{list}");
}

#[test]
fn a_reset_breaks_again_what_was_cleared_by_hand() {
    let state = tempfile::tempdir().expect("folder");
    let copy = Copy::of("08-one-az");
    let name = format!("lab-{}", copy.id());
    lab(state.path(), &["start", &copy.dir.path().display().to_string()]).ok();
    let _down = Down(name.clone());
    let faults = || run(vpclab().args(["fault", "list", "-l", &name])).ok();
    run(vpclab().args(["fault", "clear", "-l", &name])).ok();
    run(vpclab().args(["fault", "instance", "db", "-l", &name])).ok();
    assert!(!faults().contains("az a"), "{}", faults());
    lab(state.path(), &["reset"]).ok();
    assert!(faults().contains("az a") && !faults().contains("db"), "{}", faults());
    run(vpclab().args(["fault", "clear", "-l", &name])).ok();
    lab(state.path(), &["solve"]).ok();
    assert!(faults().contains("az a"), "solved while the zone is down: {}", faults());
    lab(state.path(), &["check"]).ok();
}

#[test]
fn a_lab_with_a_mistake_is_refused_at_its_place() {
    let copy = Copy::of("01-endpoint-sg");
    copy.edit("lab.yaml", "difficulty: 1", "dificulty: 1");
    let said = copy.vet().fails_with(2);
    assert!(said.contains("unknown key `dificulty`") && said.contains("did you mean `difficulty`?"), "{said}");
    let state = tempfile::tempdir().expect("folder");
    let said = lab(state.path(), &["start", "endpoint-sq"]).fails_with(2);
    assert!(said.contains("did you mean `endpoint-sg`?"), "{said}");
    let said = lab(state.path(), &["start"]).fails_with(2);
    assert!(said.contains("next is `vpclab lab start endpoint-sg`"), "{said}");
}

/// Takes a lab down, whatever became of the test.
struct Down(String);

impl Drop for Down {
    fn drop(&mut self) {
        run(vpclab().args(["down", "-l", &self.0]));
        let left = common::leftovers(&self.0);
        assert!(std::thread::panicking() || left.is_empty(), "left behind: {left:?}");
    }
}
