//! Names that lead to machines: `ec2-203-0-113-7.eu-west-1.compute.amazonaws.com` of public addresses, and the `names`
//! of instances and of hosts of the Internet. Outside they lead to the public address; in the machine's own VPC, and in
//! VPCs peered with the DNS option, to the private one (VPC User Guide, "DNS attributes"; VPC peering guide, "DNS
//! resolution").

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::model::Plan;
use crate::model::plan::InstanceHome;

use super::name;
use super::zone::{Node, QType, Synthesis, Zone, ZoneKind};

/// One address behind a name.
#[derive(Clone, Copy)]
struct Place {
    /// What the public side says.
    public: Ipv4Addr,
    /// The VPC in which it stands (index in `Plan::vpcs`), and what is said there.
    inside: Option<(usize, Ipv4Addr)>,
}

/// By name, lower case; several machines may share one.
type Hosts = BTreeMap<String, Vec<Place>>;

/// Zones that a VPC sees in place of the public ones: one for each name that leads elsewhere from there.
pub(super) fn inside_zones(plan: &Plan, vpc: usize) -> Vec<Zone> {
    let seen = |place: &Place| match place.inside {
        Some((home, private)) if home == vpc || peered_names(plan, vpc, home) => private,
        _ => place.public,
    };
    let mut zones = Vec::new();
    for (name, places) in hosts(plan) {
        let addrs: Vec<Ipv4Addr> = places.iter().map(seen).collect();
        if places.iter().zip(&addrs).all(|(place, addr)| place.public == *addr) {
            continue;
        }
        if let Some(mut zone) = Zone::new(ZoneKind::InstanceNames, &name, Synthesis::Nothing) {
            zone.insert(&name, node(plan, addrs));
            zones.push(zone);
        }
    }
    zones
}

/// Puts every name, and the way back from its addresses, into the public zones. A name that is in none of them gets a
/// zone of its domain.
pub(super) fn publish(plan: &Plan, zones: &mut BTreeMap<Box<[u8]>, Zone>) {
    let mut reverse: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    for (name, places) in hosts(plan) {
        let addrs: Vec<Ipv4Addr> = places.iter().map(|place| place.public).collect();
        for addr in addrs.iter().filter(|addr| !addr.is_private()) {
            // AWS's own name of an address comes first, where it has one.
            if name.starts_with("ec2-") || !reverse.contains_key(addr) {
                reverse.insert(*addr, name.clone());
            }
        }
        insert(zones, &name, &domain_of(&name), node(plan, addrs));
    }
    for (addr, name) in reverse {
        let Some(target) = name::wire(&name) else { continue };
        let [a, b, c, d] = addr.octets();
        let apex = format!("{c}.{b}.{a}.in-addr.arpa");
        let node = Node { others: vec![(QType::PTR, plan.limits.dns_ttl, target)], ..Node::default() };
        insert(zones, &format!("{d}.{apex}"), &apex, node);
    }
}

/// Into the zone with the longest apex, or into a new one if that is the root.
fn insert(zones: &mut BTreeMap<Box<[u8]>, Zone>, name: &str, domain: &str, node: Node) {
    let Some(owner) = name::WireName::parse(name) else { return };
    let known = owner.suffixes().map(|(_, suffix)| suffix).find(|suffix| zones.contains_key(*suffix));
    let known: Option<Box<[u8]>> = known.filter(|apex| apex.len() > 1).map(Into::into);
    let apex = match known {
        Some(apex) => apex,
        None => {
            let Some(zone) = Zone::new(ZoneKind::Public, domain, Synthesis::Nothing) else { return };
            let apex = zone.apex.clone();
            zones.insert(apex.clone(), zone);
            apex
        }
    };
    if let Some(zone) = zones.get_mut(&apex) {
        zone.insert(name, node);
    }
}

/// `example.com` of `www.shop.example.com`; `example.com.cn` where the last two labels are a registry's.
fn domain_of(name: &str) -> String {
    const SECOND_LEVEL: [&str; 6] = ["com", "co", "net", "org", "gov", "ac"];
    let labels: Vec<&str> = name.split('.').collect();
    let registry = match labels[..] {
        [.., second, top] if top.len() == 2 && SECOND_LEVEL.contains(&second) => 2,
        _ => 1,
    };
    labels[labels.len().saturating_sub(registry + 1)..].join(".")
}

fn hosts(plan: &Plan) -> Hosts {
    let mut hosts = Hosts::new();
    for public in &plan.public_addresses {
        let Some(vpc) = plan.eni(public.eni).vpc() else { continue };
        if let Some(name) = public.host_name(&plan.vpcs[vpc]) {
            let place = Place { public: public.addr, inside: Some((vpc, public.private)) };
            hosts.entry(name).or_default().push(place);
        }
    }
    for instance in &plan.instances {
        let Some(ip) = instance.enis.first().map(|eni| plan.eni(*eni).ip) else { continue };
        let place = match instance.home {
            InstanceHome::Vpc(vpc) => {
                let eni = instance.enis[0];
                let public = plan.public_addresses.iter().find(|public| public.eni == eni && public.private == ip);
                Place { public: public.map_or(ip, |public| public.addr), inside: Some((vpc, ip)) }
            }
            InstanceHome::Internet => Place { public: ip, inside: None },
            // No public name leads into somebody's own network.
            InstanceHome::Site(_) => continue,
        };
        for name in &instance.names {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(place);
        }
    }
    hosts
}

/// The DNS option of a peering: it holds for both sides, and both need their DNS attributes.
fn peered_names(plan: &Plan, vpc: usize, home: usize) -> bool {
    let named = |at: usize| plan.vpcs[at].dns_support && plan.vpcs[at].dns_hostnames;
    named(vpc) && named(home) && plan.peerings.iter().any(|peering| peering.dns && peering.other(vpc) == Some(home))
}

fn node(plan: &Plan, mut addrs: Vec<Ipv4Addr>) -> Node {
    addrs.sort_unstable();
    addrs.dedup();
    Node { addrs: addrs.into_boxed_slice(), ttl: plan.limits.dns_ttl, ..Node::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_what_a_registry_sells() {
        for (name, domain) in [
            ("www.example.com", "example.com"),
            ("example.com", "example.com"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("api.example.com.cn", "example.com.cn"),
            ("web.internal", "web.internal"),
            ("host", "host"),
        ] {
            assert_eq!(domain_of(name), domain, "{name}");
        }
    }
}
