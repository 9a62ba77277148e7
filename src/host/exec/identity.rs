//! Namespaces to join and the user to become.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::{CapabilitySet, LinkNameSpaceType};

use crate::host::netns::explain;
use crate::host::sandbox;
use crate::host::users::{self, User};

/// What a lab without root leaves to the caller's own user: captures, ping, low ports. As `--user root` it has all.
const OWN_USER_KEEPS: CapabilitySet = CapabilitySet::NET_RAW.union(CapabilitySet::NET_BIND_SERVICE);

pub(super) fn join_user(namespace: &OwnedFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?)
}

pub(super) fn join_net(namespace: &OwnedFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Who the command will be.
pub(super) struct Identity {
    /// `None`: stay who we are.
    user: Option<User>,
    groups: Vec<u32>,
    /// Kept through the exec of a program that is not root's.
    ambient: CapabilitySet,
}

impl Identity {
    /// To be asked in the user namespace of the command and before /etc is changed. The error is a sentence.
    pub(super) fn find(wanted: Option<&str>) -> Result<Identity, String> {
        let own = rustix::process::geteuid().as_raw();
        let initial = all_mapped();
        let Some(wanted) = wanted else {
            let ambient = if initial || own == 0 { CapabilitySet::empty() } else { OWN_USER_KEEPS };
            return Ok(Identity { user: None, groups: Vec::new(), ambient });
        };
        let user = users::parse(wanted)?;
        if user.uid == own && user.gid == rustix::process::getegid().as_raw() {
            return Identity::find(None);
        }
        if mapped("uid_map", user.uid) && mapped("gid_map", user.gid) {
            let groups = users::groups_of(&user).into_iter().filter(|gid| mapped("gid_map", *gid)).collect();
            return Ok(Identity { user: Some(user), groups, ambient: CapabilitySet::empty() });
        }
        if user.uid == 0 {
            // the own user with root's power over the instance's network: what ip, tcpdump and iptables need
            return Ok(Identity { user: None, groups: Vec::new(), ambient: CapabilitySet::all() });
        }
        Err(format!(
            "user {wanted} needs subordinate ids: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \
             $USER`, newuidmap (package uidmap), and the lab started again"
        ))
    }

    /// Where `~` is.
    pub(super) fn homes(&self) -> Vec<PathBuf> {
        let mut homes: Vec<PathBuf> = Vec::new();
        match &self.user {
            Some(user) => homes.push(user.home.clone()),
            None => homes.extend(users::by_id(rustix::process::geteuid().as_raw()).map(|user| user.home)),
        }
        homes.extend(std::env::var_os("HOME").map(PathBuf::from));
        homes.retain(|home| home.is_absolute());
        homes.dedup();
        homes
    }

    /// Owner of folders that the command shall be able to write.
    pub(super) fn ids(&self) -> (u32, u32) {
        match &self.user {
            Some(user) => (user.uid, user.gid),
            None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        }
    }

    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        match &self.user {
            Some(user) => vec![
                ("HOME", user.home.clone().into()),
                ("USER", user.name.clone().into()),
                ("LOGNAME", user.name.clone().into()),
                ("SHELL", user.shell.clone().into()),
            ],
            None => Vec::new(),
        }
    }

    /// Becomes it. From here on the process ends with `parent`.
    pub(super) fn take_on(&self, parent: u32) -> io::Result<()> {
        if let Some(user) = &self.user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            let tried = |err: rustix::io::Errno| explain(err.into(), &format!("become user {}", user.name));
            rustix::thread::set_thread_groups(&groups).map_err(tried)?;
            rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(tried)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(tried)?;
        }
        sandbox::keep_through_exec(self.ambient)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Pid::from_raw(parent as i32) {
            return Err(io::Error::other("the process that asked for this command is gone"));
        }
        Ok(())
    }
}

/// Whether this is the first user namespace, or one like it.
fn all_mapped() -> bool {
    mapped("uid_map", 0) && mapped("uid_map", u32::MAX - 2)
}

/// Whether an id exists in this user namespace.
fn mapped(map: &str, id: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    in_map(&text, id)
}

fn in_map(text: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let fields: Vec<u64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        matches!(fields[..], [inside, _, count] if (inside..inside + count).contains(&u64::from(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let text = "         0     100000       1000\n      1000       1000          1\n";
        assert!(in_map(text, 0) && in_map(text, 999) && in_map(text, 1000));
        assert!(!in_map(text, 1001) && !in_map("", 0) && !in_map("x y z", 0));
        assert!(in_map("0 0 4294967295", u32::MAX - 2));
    }
}
