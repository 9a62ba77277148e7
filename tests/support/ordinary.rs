//! How root's tests ask what an ordinary user can do: a command is run as one who may open `/dev/net/tun`, whatever the
//! host says of that device.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use std::path::Path;
use std::process::Command;

/// Who it is: a user who is nobody else's, and has no subordinate ids.
pub const NOBODY: u32 = 65534;

/// To be given a command and its arguments, which run as [`NOBODY`] in a mount namespace of their own. `prepare` is a
/// shell command of root in there, `true` for nothing.
pub fn as_ordinary_user(prepare: &str) -> Command {
    let script = format!(
        "mount -t tmpfs vpclab-test /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun && \
         {prepare} && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command
}

/// Copies a program to where the user may read it. `cp` does it: what this process had open for writing, the children of
/// other tests would inherit, and a program that somebody may write cannot be started.
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("cp");
    assert!(copied.success(), "{} is copied", from.display());
}
