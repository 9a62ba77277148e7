//! Does it work for an ordinary user with access to `/dev/net/tun`, and as a static program in a bare chroot?
//!
//! As root these tests become an ordinary user in a mount namespace of their own, where `/dev/net/tun` is open to all; as
//! an ordinary user they run as they are.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{NOBODY, Said, as_ordinary_user, aws2, copy_program, is_root, run, topology};

/// A folder that the ordinary user owns, with the program and the demo's topology in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("vpclab-user").tempdir_in("/tmp").expect("folder");
        copy_program(common::VPCLAB.as_ref(), &dir.path().join("vpclab"));
        std::fs::write(dir.path().join("lab.vpclab.yaml"), topology("demo.yaml")).expect("topology");
        std::fs::create_dir(dir.path().join("run")).expect("run directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        if is_root() {
            run(Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(dir.path())).ok();
        }
        Place { dir }
    }

    /// A shell script as the ordinary user.
    fn sh(&self, script: &str) -> Said {
        let path = self.dir.path().display();
        let user = format!(
            "cd {path} && export HOME={path} XDG_RUNTIME_DIR={path}/run PATH={path}:$PATH && unset VPCLAB_LAB && {script}"
        );
        if !is_root() {
            return run(Command::new("sh").arg("-c").arg(user));
        }
        run(as_ordinary_user("true").args(["sh", "-c", &user]))
    }
}

#[test]
fn the_main_job_works_without_root() {
    let place = Place::new();
    let aws = aws2();
    let said = place.sh(&format!(
        "vpclab up --name rootless && \
         vpclab exec web -- {aws} sts get-caller-identity --output text && \
         vpclab exec web -- sh -c 'echo hello > small; {aws} s3 cp --quiet small s3://reports/small; {aws} s3 cp --quiet s3://reports/small -' && \
         vpclab exec web -- dig +short sts.eu-west-1.amazonaws.com && \
         ! vpclab exec guest -- curl -sS --connect-timeout 1 https://sts.eu-west-1.amazonaws.com; \
         vpclab down"
    ));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains(":assumed-role/web-role/i-"), "{}{}", said.out, said.err);
    assert!(said.out.contains("\nhello\n"), "{}", said.out);
    assert!(said.err.contains("SG_INGRESS"), "{}", said.err);
}

#[test]
fn a_running_lab_changes_without_root() {
    let place = Place::new();
    let said = place.sh(
        "vpclab up --name change && \
         echo 'vpcs: { app: { instances: { guest: null, more: { subnet: private-b, ip: 10.0.2.50, listen: [ { tcp: 80, reply: http } ] } }, \
               security_groups: { default: { ingress: [tcp 80 from sg:app] } } } }\nchecks: null' > patch.yaml && \
         vpclab apply --patch patch.yaml && \
         vpclab exec web -- curl -sS -m 3 http://10.0.2.50/ && \
         ! vpclab exec guest -- true && vpclab fault instance more --for 60s; \
         vpclab down",
    );
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("+ instance app.more") && said.out.contains("hello from app.more"), "{}", said.out);
    assert!(said.out.contains("instance app.more  for 60.0 s more"), "{}", said.out);
}

#[test]
fn moto_on_loopback_answers_behind_the_endpoint_without_root() {
    let moto = common::Moto::start();
    let place = Place::new();
    let aws = aws2();
    let backend = format!("services: {{ sts: {{ backend: \"http://127.0.0.1:{}\" }} }}", moto.port);
    let said = place.sh(&format!(
        "echo '{backend}' > patch.yaml && vpclab up --name moto lab.vpclab.yaml patch.yaml && \
         vpclab exec web -- {aws} sts get-caller-identity --output text; vpclab down"
    ));
    assert!(said.out.contains("123456789012"), "{}{}", said.out, said.err);
    assert!(!said.out.contains(":assumed-role/web-role/i-"), "the built-in answered, not moto: {}", said.out);
}

#[test]
fn the_demo_works_without_root() {
    let place = Place::new();
    let said = place.sh("vpclab demo --client curl");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("All gone again."), "{}", said.out);
    assert!(!said.out.contains("DIFFERENT"), "{}", said.out);
}

#[test]
fn tools_that_want_more_work_without_root_or_exec_says_which_flag_helps() {
    let place = Place::new();
    // Into a pipe: to a file tcpdump writes as a user of its own, who here owns none.
    let said = place.sh(
        "vpclab up --name tools && \
         vpclab exec web -- ping -c1 -W1 10.0.2.10; echo ping=$?; \
         vpclab exec --user root --timeout 20s web -- tcpdump -i eth0 -c1 -U -w - 2>&1 >/dev/null | \
         while read -r line; do \
           echo \"$line\"; \
           case $line in *listening*) vpclab exec web -- curl -s -o /dev/null https://sts.eu-west-1.amazonaws.com </dev/null;; esac; \
         done; \
         vpclab down",
    );
    assert!(
        said.out.contains("1 packet captured") || said.out.contains("1 packets captured"),
        "{}{}",
        said.out,
        said.err
    );
    assert!(said.out.contains("ping="), "{}{}", said.out, said.err);
}

#[test]
fn a_static_program_serves_in_a_bare_chroot() {
    if !is_root() {
        // A chroot needs a user namespace and a device node that this user may not make; the static build is root's test.
        let said = run(Command::new(common::VPCLAB).arg("version"));
        return drop(said.ok());
    }
    let program = static_build();
    let root = tempfile::tempdir().expect("folder");
    let at = |name: &str| root.path().join(name);
    for folder in ["proc", "dev/net", "tmp", "run", "etc", "sys"] {
        std::fs::create_dir_all(at(folder)).expect("folder");
    }
    copy_program(&program, &at("vpclab"));
    std::fs::write(at("lab.vpclab.yaml"), topology("demo.yaml")).expect("topology");
    let script = format!(
        "cd {0} && mount --bind {0} {0} && mount -t proc proc {0}/proc && exec chroot {0} /vpclab \"$@\"",
        root.path().display()
    );
    for (node, minor) in [("dev/net/tun", ["10", "200"]), ("dev/null", ["1", "3"])] {
        run(Command::new("mknod").args(["-m", "666"]).arg(at(node)).arg("c").args(minor)).ok();
    }
    let inside = |args: &[&str]| {
        run(Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "sh", "-c", &script, "sh"])
            .args(args))
    };
    let doctor = inside(&["doctor"]);
    assert!(doctor.out.contains("/dev/net/tun"), "{}{}", doctor.out, doctor.err);
    inside(&["validate", "/lab.vpclab.yaml"]).ok();
    let why = inside(&["explain", "--file", "/lab.vpclab.yaml", "guest", "https://sts.eu-west-1.amazonaws.com"]);
    assert_eq!(why.code, 1, "{}{}", why.out, why.err);
    assert!(why.out.contains("SG_INGRESS"), "{}", why.out);
    let probed = inside(&[
        "run",
        "--name",
        "chrooted",
        "/lab.vpclab.yaml",
        "web",
        "--",
        "/vpclab",
        "__probe",
        "tcp",
        "10.0.2.4",
        "443",
    ]);
    assert_eq!(probed.code, 0, "{}{}", probed.out, probed.err);
    assert!(probed.out.contains("connected"), "{}", probed.out);
}

/// The same program without a dynamic linker, in a target folder of its own so that no other build is disturbed.
fn static_build() -> std::path::PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = manifest.join("target/static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let said = run(Command::new(env!("CARGO"))
        .current_dir(manifest)
        // Only that it works is asked here, so nothing is optimised: half the time.
        .args(["build", "--locked", "--offline", "--config", "profile.dev.package.\"*\".opt-level=0"])
        .args(["--bin", "vpclab", "--target", &triple, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static"));
    assert_eq!(said.code, 0, "{}", said.err);
    folder.join(triple).join("debug/vpclab")
}

#[test]
fn captures_need_no_root_either() {
    let place = Place::new();
    let said = place.sh("vpclab up --name eyes && \
         vpclab capture web --port 53 --count 2 -w c.pcapng 2>&1 | \
         while read -r line; do \
           case $line in watching*) vpclab exec web -- dig +short sts.eu-west-1.amazonaws.com </dev/null;; esac; \
         done && \
         tcpdump -nn -r c.pcapng; \
         vpclab down");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("A? sts.eu-west-1.amazonaws.com"), "{}{}", said.out, said.err);
}
