//! The labs and base topologies that the program carries, so that a binary alone has them. A test compares the list with
//! the folders.

use crate::control::lab::Folder;

macro_rules! shipped {
    ($($folder:literal: $($file:literal)*;)*) => {
        const LABS: &[(&str, &[(&str, &str)])] = &[$(
            ($folder, &[$(($file, include_str!(concat!("../../../labs/", $folder, "/", $file)))),*]),
        )*];
    };
}

macro_rules! bases {
    ($($name:literal)*) => {
        const BASES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../topologies/", $name, ".yaml")))),*];
    };
}

bases! { "t-solo" "t-iso" "t-hub" "t-peer" "t-hyb" "t-insp" }

shipped! {
    "01-endpoint-sg": "README.md" "alt-fixes/by-group.patch.yaml" "alt-fixes/member.patch.yaml" "break.patch.yaml"
        "fix.patch.yaml" "lab.yaml" "solution.sh" "wrong-fixes/client-egress.patch.yaml"
        "wrong-fixes/open-everything.patch.yaml" "wrong-fixes/wrong-port.patch.yaml";
    "02-client-egress": "README.md" "alt-fixes/by-address.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/endpoint-ingress.patch.yaml"
        "wrong-fixes/ephemeral.patch.yaml" "wrong-fixes/open-all.patch.yaml";
    "03-ping": "README.md" "alt-fixes/keep-icmp.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "wrong-fixes/all-icmp.patch.yaml" "wrong-fixes/other-port.patch.yaml";
    "04-blackhole-route": "README.md" "alt-fixes/longer.patch.yaml" "alt-fixes/same-prefix.patch.yaml"
        "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "wrong-fixes/internet-gateway.patch.yaml"
        "wrong-fixes/security-group.patch.yaml" "wrong-fixes/shorter.patch.yaml";
    "05-nacl-return": "README.md" "alt-fixes/own-acl-gone.patch.yaml" "alt-fixes/second-rule.patch.yaml"
        "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/deny-first.patch.yaml" "wrong-fixes/ingress.patch.yaml" "wrong-fixes/security-group.patch.yaml"
        "wrong-fixes/this-linux-only.patch.yaml";
    "06-sg-removed": "README.md" "alt-fixes/at-the-client.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/client-group.patch.yaml" "wrong-fixes/deny-all.patch.yaml"
        "wrong-fixes/too-late.patch.yaml";
    "07-private-dns": "README.md" "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/no-nat.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "08-one-az": "README.md" "alt-fixes/moved.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/other-subnet.patch.yaml"
        "wrong-fixes/repair-the-zone.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "09-free-endpoint": "README.md" "alt-fixes/one-table.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/main-table.patch.yaml" "wrong-fixes/moved.patch.yaml"
        "wrong-fixes/security-group.patch.yaml";
    "10-prefix-list": "README.md" "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/open-all.patch.yaml" "wrong-fixes/route.patch.yaml" "wrong-fixes/vpc-block.patch.yaml";
    "11-not-your-gateway": "README.md" "alt-fixes/own-gateway.patch.yaml" "break.patch.yaml" "fix.patch.yaml"
        "lab.yaml" "solution.sh" "topology.patch.yaml" "wrong-fixes/group.patch.yaml"
        "wrong-fixes/more-tables.patch.yaml" "wrong-fixes/no-such-address.patch.yaml";
    "12-nat-instance": "README.md" "alt-fixes/nat-gateway.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/client-check.patch.yaml"
        "wrong-fixes/public-address.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "13-nat-subnet": "README.md" "alt-fixes/new-public-subnet.patch.yaml" "break.patch.yaml" "fix.patch.yaml"
        "lab.yaml" "solution.sh" "wrong-fixes/internet-gateway.patch.yaml"
        "wrong-fixes/other-private-subnet.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "14-nat-idle": "README.md" "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/security-group.patch.yaml" "wrong-fixes/timer.patch.yaml" "wrong-fixes/too-slow.patch.yaml";
    "15-the-bill": "README.md" "alt-fixes/every-table.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/interface.patch.yaml" "wrong-fixes/no-nat.patch.yaml";
    "16-conntrack": "README.md" "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/allowance.patch.yaml" "wrong-fixes/network-acl.patch.yaml" "wrong-fixes/one-rule.patch.yaml";
    "17-dns-flood": "README.md" "alt-fixes/hosts-file.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/limit.patch.yaml" "wrong-fixes/retries.patch.yaml"
        "wrong-fixes/security-group.patch.yaml";
    "18-untracked": "README.md" "alt-fixes/by-address.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/answers-only.patch.yaml" "wrong-fixes/egress.patch.yaml"
        "wrong-fixes/network-acl.patch.yaml" "wrong-fixes/open-again.patch.yaml";
    "19-black-hole": "README.md" "alt-fixes/clamp.patch.yaml" "alt-fixes/interface.patch.yaml" "break.patch.yaml"
        "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml" "wrong-fixes/all-icmp.patch.yaml"
        "wrong-fixes/ping-only.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "20-return-route": "README.md" "alt-fixes/all-spokes.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "wrong-fixes/other-direction.patch.yaml" "wrong-fixes/security-group.patch.yaml"
        "wrong-fixes/transit-gateway.patch.yaml" "wrong-fixes/wrong-spoke.patch.yaml";
    "21-sg-reference": "README.md" "alt-fixes/by-block.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/everybody.patch.yaml"
        "wrong-fixes/other-attachment.patch.yaml" "wrong-fixes/own-group.patch.yaml";
    "22-not-transitive": "README.md" "alt-fixes/transit-gateway.patch.yaml" "break.patch.yaml" "fix.patch.yaml"
        "lab.yaml" "solution.sh" "topology.patch.yaml" "wrong-fixes/no-routes.patch.yaml"
        "wrong-fixes/one-side.patch.yaml" "wrong-fixes/security-groups.patch.yaml";
    "23-propagation": "README.md" "alt-fixes/one-table.patch.yaml" "alt-fixes/static-route.patch.yaml"
        "break.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/associate.patch.yaml" "wrong-fixes/instead-of-spoke2.patch.yaml"
        "wrong-fixes/other-table.patch.yaml" "wrong-fixes/security-group.patch.yaml" "wrong-fixes/vpc-route.patch.yaml";
    "24-tunnels": "README.md" "alt-fixes/no-preference.patch.yaml" "alt-fixes/one-zone.patch.yaml"
        "alt-fixes/second-tunnel.patch.yaml" "break.patch.yaml" "changes/tunnel-1-fails.patch.yaml"
        "changes/tunnel-2-fails.patch.yaml" "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml"
        "wrong-fixes/exchanged.patch.yaml" "wrong-fixes/one-tunnel.patch.yaml" "wrong-fixes/security-group.patch.yaml"
        "wrong-fixes/static-routes.patch.yaml";
    "25-appliance-mode": "README.md" "alt-fixes/one-appliance.patch.yaml" "break.patch.yaml" "fix.patch.yaml"
        "lab.yaml" "solution.sh" "wrong-fixes/bypass.patch.yaml" "wrong-fixes/exchanged.patch.yaml"
        "wrong-fixes/security-group.patch.yaml" "wrong-fixes/spokes-mode.patch.yaml";
    "26-overlap": "README.md" "alt-fixes/nat-instance.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.yaml" "wrong-fixes/nat-beside-the-app.patch.yaml" "wrong-fixes/peering.patch.yaml"
        "wrong-fixes/propagate.patch.yaml" "wrong-fixes/security-group.patch.yaml" "wrong-fixes/their-route.patch.yaml";
    "27-transfer": "README.md" "alt-fixes/before-the-job.patch.yaml" "break.patch.yaml" "changes/attach.patch.yaml"
        "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml" "wrong-fixes/keepalive.patch.yaml"
        "wrong-fixes/patience.patch.yaml" "wrong-fixes/security-group.patch.yaml";
    "28-from-premises": "README.md" "alt-fixes/one-zone.patch.yaml" "alt-fixes/own-group.patch.yaml" "break.patch.yaml"
        "fix.patch.yaml" "lab.yaml" "solution.sh" "topology.patch.yaml" "wrong-fixes/captured.patch.yaml"
        "wrong-fixes/more-tables.patch.yaml" "wrong-fixes/private-dns.patch.yaml" "wrong-fixes/vpc-group.patch.yaml"
        "wrong-fixes/without-bucket.patch.yaml";
    "29-hop-limit": "README.md" "alt-fixes/host-network.patch.yaml" "break.patch.yaml" "fix.patch.yaml" "lab.yaml"
        "solution.sh" "topology.patch.yaml" "wrong-fixes/patience.patch.yaml" "wrong-fixes/security-group.patch.yaml"
        "wrong-fixes/version-1.patch.yaml";
}

/// The labs' files.
pub fn folders() -> Vec<Folder> {
    let folder = |(name, files): &(&str, &[(&str, &str)])| Folder {
        path: format!("labs/{name}"),
        files: files.iter().map(|(n, text)| ((*n).to_owned(), (*text).to_owned())).collect(),
        shipped: true,
    };
    LABS.iter().map(folder).collect()
}

/// The text of a base topology.
pub fn base(name: &str) -> Option<&'static str> {
    BASES.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_list_holds_every_file_of_every_lab() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs");
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for folder in std::fs::read_dir(&top).expect("labs").flatten().filter(|e| e.path().is_dir()) {
            let name = folder.file_name().to_string_lossy().into_owned();
            let mut pending = vec![folder.path()];
            while let Some(path) = pending.pop() {
                for entry in std::fs::read_dir(&path).expect("folder").flatten() {
                    if entry.path().is_dir() {
                        pending.push(entry.path());
                    } else {
                        let file = entry.path().strip_prefix(folder.path()).expect("inside").display().to_string();
                        there.entry(name.clone()).or_default().push(file);
                    }
                }
            }
        }
        there.values_mut().for_each(|files| files.sort());
        let carried: BTreeMap<String, Vec<String>> = folders()
            .into_iter()
            .map(|f| (f.path.trim_start_matches("labs/").to_owned(), f.files.into_keys().collect()))
            .collect();
        assert_eq!(carried, there);
    }

    #[test]
    fn every_lab_is_read_and_its_ids_are_its_own() {
        let labs = super::super::all_shipped().unwrap_or_else(|f| panic!("{}", f.message));
        let mut ids: Vec<&str> = labs.iter().map(|c| c.lab.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), labs.len(), "two labs have one id");
        for c in &labs {
            for id in &c.lab.requires {
                assert!(ids.contains(&id.as_str()), "{}: requires {id}, which is no lab", c.lab.id);
            }
            assert!(!c.folder.patches("wrong-fixes").is_empty(), "{}: no wrong fix", c.lab.id);
            assert!(c.folder.files.contains_key("README.md"), "{}: no README.md", c.lab.id);
            assert!(c.folder.files.contains_key("solution.sh"), "{}: no solution.sh", c.lab.id);
            let (story, afterwards) = c.folder.readme();
            assert!(!story.is_empty() && !afterwards.is_empty(), "{}: half a README.md", c.lab.id);
            assert!(c.lab.steps.iter().any(|s| !s.guard.is_empty()), "{}: no guard, no bystander", c.lab.id);
            assert!(c.lab.steps.iter().any(|s| !s.hints.is_empty()), "{}: no hint", c.lab.id);
        }
    }
}
