//! The files under /etc that an instance sees in place of the host's.

use std::io;
use std::path::Path;

use super::cmd::EtcFiles;
use super::netns::explain;

/// The names of the files, as in /etc.
pub const NAMES: [&str; 3] = ["resolv.conf", "nsswitch.conf", "hosts"];

/// First line of each file: by it clean-up knows that it is ours.
pub fn mark(lab: &str) -> String {
    format!("# vpclab lab {lab}: goes with it")
}

/// Writes the files into `folder`, in place, so that what is mounted over /etc changes too.
pub fn write(folder: &Path, lab: &str, files: &EtcFiles) -> io::Result<()> {
    let host_nsswitch = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let texts = [resolv_conf(files), nsswitch_conf(&host_nsswitch), hosts(files)];
    for (name, text) in NAMES.iter().zip(texts) {
        let path = folder.join(name);
        std::fs::write(&path, format!("{}\n{text}", mark(lab)))
            .map_err(|err| explain(err, &format!("write {}", path.display())))?;
        // readable through the mount for every user of the instance, whatever our umask
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    Ok(())
}

fn resolv_conf(files: &EtcFiles) -> String {
    let mut text = String::new();
    if !files.search.is_empty() {
        text += &format!("search {}\n", files.search.join(" "));
    }
    for resolver in &files.resolvers {
        text += &format!("nameserver {resolver}\n");
    }
    text
}

/// The host's databases with `hosts: files dns`: modules like `resolve`, `mdns4` and `mymachines` ask the host by unix
/// sockets, which are not bound to a network namespace.
fn nsswitch_conf(host: &str) -> String {
    let mut text: String =
        host.lines().filter(|line| !line.trim_start().starts_with("hosts:")).map(|line| format!("{line}\n")).collect();
    text += "hosts: files dns\n";
    text
}

fn hosts(files: &EtcFiles) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for (address, names) in &files.hosts {
        text += &format!("{address} {}\n", names.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_files_say_what_ec2_says() {
        let files = EtcFiles {
            resolvers: vec![Ipv4Addr::new(10, 0, 0, 2)],
            search: vec!["eu-west-1.compute.internal".into()],
            hosts: vec![(Ipv4Addr::new(10, 0, 1, 10), vec!["ip-10-0-1-10".into(), "web".into()])],
        };
        assert_eq!(resolv_conf(&files), "search eu-west-1.compute.internal\nnameserver 10.0.0.2\n");
        assert!(hosts(&files).ends_with("\n10.0.1.10 ip-10-0-1-10 web\n"));
    }

    #[test]
    fn only_the_hosts_line_of_the_host_changes() {
        let host = "passwd: files sss\n hosts: mymachines resolve [!UNAVAIL=return] files dns\ngroup: files\n";
        assert_eq!(nsswitch_conf(host), "passwd: files sss\ngroup: files\nhosts: files dns\n");
        assert_eq!(nsswitch_conf(""), "hosts: files dns\n");
    }
}
