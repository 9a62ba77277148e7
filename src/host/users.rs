//! Users and groups of /etc/passwd and /etc/group, read by ourselves: a static binary has no name service, and the
//! host's must not be asked from an instance.

use std::path::PathBuf;

/// A line of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub shell: PathBuf,
}

pub fn by_id(uid: u32) -> Option<User> {
    find(&passwd(), |user| user.uid == uid)
}

pub fn by_name(name: &str) -> Option<User> {
    find(&passwd(), |user| user.name == name)
}

/// `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. Numbers need no entry in /etc/passwd.
pub fn parse(text: &str) -> Result<User, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let mut found = match by_name(user) {
        Some(found) => found,
        None => {
            let uid = user.parse().map_err(|_| format!("there is no user {user:?} in /etc/passwd"))?;
            by_id(uid).unwrap_or_else(|| User {
                name: user.to_owned(),
                uid,
                gid: uid,
                home: "/".into(),
                shell: "/bin/sh".into(),
            })
        }
    };
    if let Some(group) = group {
        found.gid = match groups(&group_text()).into_iter().find(|(name, ..)| name == group) {
            Some((_, gid, _)) => gid,
            None => group.parse().map_err(|_| format!("there is no group {group:?} in /etc/group"))?,
        };
    }
    Ok(found)
}

/// The user's supplementary groups and its own.
pub fn groups_of(user: &User) -> Vec<u32> {
    let mut found = vec![user.gid];
    for (_, gid, members) in groups(&group_text()) {
        if members.contains(&user.name) && !found.contains(&gid) {
            found.push(gid);
        }
    }
    found
}

fn passwd() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

fn group_text() -> String {
    std::fs::read_to_string("/etc/group").unwrap_or_default()
}

fn find(text: &str, wanted: impl Fn(&User) -> bool) -> Option<User> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let user = User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.into(),
            shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
        };
        wanted(&user).then_some(user)
    })
}

fn groups(text: &str) -> Vec<(String, u32, Vec<String>)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default().split(',').map(str::to_owned).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_none_are_left_out() {
        let text = "# x\nroot:x:0:0:root:/root:\nbad:x:y:0:::\nweb:x:33:34:w:/var/www:/usr/sbin/nologin\n";
        assert_eq!(find(text, |user| user.name == "root").unwrap().shell, PathBuf::from("/bin/sh"));
        assert_eq!(find(text, |user| user.uid == 33).unwrap().gid, 34);
        assert!(find(text, |user| user.name == "bad").is_none());
        assert_eq!(groups("adm:x:4:syslog,web\nnone\n")[0].2, ["syslog", "web"]);
    }
}
