//! Tests of root as an ordinary user's, and an ordinary user's as root: each asks both.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use std::path::Path;
use std::process::Command;

/// Who it is: a user who is nobody else's, and has no subordinate ids.
pub const NOBODY: u32 = 65534;

/// For root: to be given a command and its arguments, which run as [`NOBODY`] in a mount namespace of their own, where
/// `/dev/net/tun` is open to all. `prepare` is a shell command of root in there, `true` for nothing.
pub fn as_ordinary_user(prepare: &str) -> Command {
    let script = format!(
        "mount -t tmpfs vpclab-test /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun && \
         {prepare} && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command
}

/// For tests that ask for root's view of a host: `ip netns`, names in /run/netns, sockets at the system's paths. An
/// ordinary user is root in a user namespace of its own, with a /run and an /etc that it may change: true if the test of
/// this name has passed there, false if it is root's already and has to be done.
#[track_caller]
pub fn passed_as_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    // Of /etc what the user may read.
    let world = "mount -t tmpfs run /run && mkdir /run/etc && { cp -a /etc/. /run/etc 2>/dev/null || true; } && \
         mount --bind /run/etc /etc && ip link set lo up && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c", world, "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", test])
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" 1 passed"), "{test}, as root of a user namespace:\n{said}");
    true
}

/// Copies a program to where the user may read it. `cp` does it: what this process had open for writing, the children of
/// other tests would inherit, and a program that somebody may write cannot be started.
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("cp");
    assert!(copied.success(), "{} is copied", from.display());
}
