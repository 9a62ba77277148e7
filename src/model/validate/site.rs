//! Networks outside AWS: sites on premises with their hosts and routers, and hosts of the emulated Internet.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::{Draft, common, instance, link, listen, vpc};
use crate::base::Cidr;
use crate::base::ids::aws_id;
use crate::model::plan::{
    AttachmentTo, Common, EniOwner, Home, InstanceHome, InstancePlan, LinkEnd, LinkKind, SitePlan, SiteRoutePlan,
    SiteTarget, TgwTarget,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::{INTERNET, Kind};
use crate::model::spec::node::{Entry, Value};
use crate::model::spec::report::Found;

/// Outside of VPCs, bytes.
pub const ETHERNET: u16 = 1_500;
/// Where addresses of hosts begin that the file leaves out.
const FIRST_HOST: u64 = 10;

/// Sites, their hosts and their links. Routes follow when transit gateways are known: [`routes`].
pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("on_prem") {
        let Some(index) = cx.names.at_path(Kind::Site, &e.key) else { continue };
        let Some(f) = Fields::open(cx, &keys::SITE, format!("site {}", e.key), e) else { continue };
        let common = common(&f, Kind::Site, index);
        let cidrs = blocks(&f);
        // What stands there is read in `routes`.
        let _ = f.list("routes");
        let router = cidrs.first().map(|primary| Ipv4Addr::from_bits(primary.network().to_bits() + 1));
        let wanted = f.named("hosts").iter().filter_map(|h| {
            let at = cx.names.at_path(Kind::Instance, &format!("{}.{}", e.key, h.key))?;
            Some((h, at, format!("host {}.{}", e.key, h.key)))
        });
        let mut addresses = Addresses::new(&cidrs, router);
        hosts(cx, &keys::SITE_HOST, wanted, Home::Site(index), &mut addresses, draft);
        let mut links = Vec::new();
        for (key, noun) in [("vpn", &keys::VPN), ("direct_connect", &keys::DIRECT_CONNECT)] {
            let Some(entry) = f.entry(key) else { continue };
            let title = format!("{} of site {}", if key == "vpn" { "VPN" } else { "Direct Connect" }, common.name);
            let Some(l) = Fields::open(cx, noun, title, entry) else { continue };
            links.extend(link::read(&l, key == "vpn", index, &common, &cidrs, draft));
            l.done();
        }
        if let Some(gateway) = router {
            draft.sites[index] = Some(SitePlan { common, cidrs, gateway, links, routes: Vec::new() });
        }
        f.done();
    }
}

/// Hosts of the emulated Internet.
pub fn internet<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    let wanted = top.named("internet").iter().filter_map(|e| {
        let at = cx.names.at_path(Kind::Instance, &format!("{INTERNET}.{}", e.key))?;
        Some((e, at, format!("Internet host {}", e.key)))
    });
    let blocks = internet_blocks();
    let mut addresses = Addresses::new(&blocks, None);
    // A host's link is the /24 around it, with the router at its first address.
    addresses.taken.extend(blocks.iter().filter_map(|block| block.nth(1)).map(|ip| (ip, "the router".to_owned())));
    hosts(cx, &keys::INTERNET_HOST, wanted, Home::Internet, &mut addresses, draft);
}

/// Where hosts of the Internet are (RFC 5737). The third such block is for public addresses of VPCs.
fn internet_blocks() -> [Cidr; 2] {
    [Cidr::containing(Ipv4Addr::new(192, 0, 2, 0), 24), Cidr::containing(Ipv4Addr::new(198, 51, 100, 0), 24)]
}

/// The blocks of a site: any that hold hosts, do not meet, and mean nothing else here.
fn blocks(f: &Fields<'_>) -> Vec<Cidr> {
    let block = |a, b, c, len| Cidr::containing(Ipv4Addr::new(a, b, c, 0), len);
    let not_here = [
        (block(0, 0, 0, 8), "this network"),
        (block(127, 0, 0, 8), "loopback"),
        (block(169, 254, 0, 16), "link-local"),
        (block(224, 0, 0, 3), "multicast or reserved"),
        (block(198, 18, 0, 15), "for AWS's public side here"),
        (block(203, 0, 113, 24), "for public addresses of VPCs here"),
        (block(192, 0, 2, 24), "for hosts of the Internet here"),
        (block(198, 51, 100, 24), "for hosts of the Internet here"),
    ];
    let written = vpc::blocks(f, "cidr");
    if written.is_empty() && f.entry("cidr").is_some_and(|e| matches!(e.node.value, Value::List(_))) {
        f.cx.error(f.error(f.key_place("cidr"), "a site has at least one block"));
    }
    let mut kept: Vec<At<Cidr>> = Vec::new();
    for one in written {
        let refused = not_here.iter().find(|(other, _)| other.overlaps(one.value));
        if let Some((other, what)) = refused {
            f.cx.error(f.error(one.place, format!("{}: {other} is {what}", one.value)));
        } else if !(8..=30).contains(&one.value.len()) {
            f.cx.error(f.error(one.place, format!("{}: a site's block is /8 to /30", one.value)));
        } else if let Some(other) = kept.iter().find(|other| other.value.overlaps(one.value)) {
            let message = format!("{} overlaps {} of the same site", one.value, other.value);
            f.cx.error(f.error(one.place, message).also(other.place, "the other block"));
        } else {
            kept.push(one);
        }
    }
    kept.into_iter().map(|one| one.value).collect()
}

/// Addresses outside VPCs: who has which, and the next free one.
struct Addresses<'b> {
    blocks: &'b [Cidr],
    taken: HashMap<Ipv4Addr, String>,
    /// Block, and how many of its addresses were tried.
    next: (usize, u64),
}

impl<'b> Addresses<'b> {
    fn new(blocks: &'b [Cidr], router: Option<Ipv4Addr>) -> Addresses<'b> {
        let taken = router.map(|ip| (ip, "the site's router".to_owned())).into_iter().collect();
        Addresses { blocks, taken, next: (0, 0) }
    }

    /// Takes a written address, or notes why it cannot be had.
    fn take(&mut self, f: &Fields<'_>, ip: At<Ipv4Addr>, owner: &str) -> Option<Ipv4Addr> {
        let Some(block) = self.blocks.iter().find(|block| block.contains(ip.value)) else {
            let texts: Vec<String> = self.blocks.iter().map(ToString::to_string).collect();
            if !texts.is_empty() {
                f.cx.error(f.error(ip.place, format!("address {} is not in {}", ip.value, texts.join(" or "))));
            }
            return None;
        };
        if ip.value == block.network() || ip.value == block.last() {
            let message = format!("address {} is the network's or the broadcast address of {block}", ip.value);
            f.cx.error(f.error(ip.place, message));
            return None;
        }
        if let Some(other) = self.taken.get(&ip.value) {
            f.cx.error(f.error(ip.place, format!("address {} is in use by {other}", ip.value)));
            return None;
        }
        self.taken.insert(ip.value, owner.to_owned());
        Some(ip.value)
    }

    /// Takes an address again, if it can still be had.
    fn keep(&mut self, ip: Ipv4Addr, owner: &str) -> Option<Ipv4Addr> {
        let block = self.blocks.iter().find(|block| block.contains(ip))?;
        if ip == block.network() || ip == block.last() || self.taken.contains_key(&ip) {
            return None;
        }
        self.taken.insert(ip, owner.to_owned());
        Some(ip)
    }

    /// The lowest free address from the tenth on, then those before it, in the order of the blocks.
    fn free(&mut self, owner: &str) -> Option<Ipv4Addr> {
        while let Some(block) = self.blocks.get(self.next.0) {
            let tried = self.next.1;
            if tried + 1 >= block.size() {
                self.next = (self.next.0 + 1, 0);
                continue;
            }
            self.next.1 += 1;
            let from_tenth = block.size().saturating_sub(FIRST_HOST);
            let offset = if tried < from_tenth { FIRST_HOST + tried } else { tried - from_tenth + 1 };
            let free = |ip: &Ipv4Addr| *ip != block.last() && !self.taken.contains_key(ip);
            if let Some(ip) = block.nth(offset).filter(free) {
                self.taken.insert(ip, owner.to_owned());
                return Some(ip);
            }
        }
        None
    }
}

/// Hosts of one network: written addresses first, so that an address left out never takes one of them.
fn hosts<'a>(
    cx: &'a Cx<'a>,
    noun: &'static keys::Noun,
    wanted: impl Iterator<Item = (&'a Entry, usize, String)>,
    home: Home,
    addresses: &mut Addresses<'_>,
    draft: &mut Draft,
) {
    let mut open = Vec::new();
    for (entry, at, title) in wanted {
        let Some(f) = Fields::open(cx, noun, title, entry) else { continue };
        let ip = f.ip("ip").and_then(|ip| addresses.take(&f, ip, &f.title));
        open.push((f, at, ip));
    }
    // Hosts of a running lab keep their addresses, whoever comes before them in the file by now.
    for (f, at, ip) in open.iter_mut().filter(|(f, _, ip)| ip.is_none() && !f.has("ip")) {
        let path = format!("{}/eth0", cx.names.get(Kind::Instance, *at).path);
        *ip = cx.standing.addresses.get(&path).and_then(|ip| addresses.keep(*ip, &f.title));
    }
    for (f, at, ip) in open {
        let ip = ip.or_else(|| {
            if f.has("ip") || addresses.blocks.is_empty() {
                return None;
            }
            let ip = addresses.free(&f.title);
            if ip.is_none() {
                cx.error(f.error(f.place, "no address is left"));
            }
            ip
        });
        // Without an address a problem was noted, and the plan is thrown away.
        host(&f, at, home, ip.unwrap_or(Ipv4Addr::UNSPECIFIED), draft);
        f.done();
    }
}

fn host(f: &Fields<'_>, index: usize, home: Home, ip: Ipv4Addr, draft: &mut Draft) {
    let common = common(f, Kind::Instance, index);
    let has = |key: &str| f.noun.find(key).is_some_and(keys::Key::usable);
    let forward = if has("forward") { instance::forward(f) } else { None };
    draft.eni_drafts.push(EniDraft {
        common: Common {
            name: format!("{}/eth0", common.name),
            path: format!("{}/eth0", common.path),
            id: aws_id("eni", &common.id, "eth0"),
            ..Common::default()
        },
        vpc: 0,
        subnet: None,
        outside: Some((home, ip)),
        ip: None,
        security_groups: Vec::new(),
        source_dest_check: forward.is_none(),
        owner: EniOwner::Instance(index, 0),
        place: f.place,
    });
    let home = match home {
        Home::Site(site) => InstanceHome::Site(site),
        _ => InstanceHome::Internet,
    };
    draft.instances[index] = Some(InstancePlan {
        listen: listen::listeners(f),
        run: listen::commands(f),
        mtu: if has("mtu") { f.int("mtu").map_or(ETHERNET, |n| n.value as u16) } else { ETHERNET },
        env: instance::env(f),
        names: if has("names") { instance::public_names(f) } else { Vec::new() },
        forward,
        impair: instance::impair(f),
        ..InstancePlan::new(common, home, Vec::new())
    });
}

/// What each site's router knows: what is written, then what it learns over Direct Connect, then over the VPN.
pub fn routes<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("on_prem") {
        let Some(index) = cx.names.at_path(Kind::Site, &e.key) else { continue };
        let Some(site) = draft.sites[index].clone() else { continue };
        let mut routes = Vec::new();
        let written = match e.node.get("routes").map(|node| &node.value) {
            Some(Value::List(list)) => list.as_slice(),
            _ => &[],
        };
        let mut seen = HashMap::new();
        for node in written {
            let place = node.entries().first().map_or(node.place, |e| e.key_place);
            let title = format!("site {}", e.key);
            let Some(r) = Fields::open_node(cx, &keys::SITE_ROUTE, title, node, place) else { continue };
            let _ = r.text("description");
            let (to, via) = (r.cidr("to", true), r.word("via"));
            if let (Some(to), Some(via)) = (to, via) {
                let of = |vpn: bool| {
                    let is = |at: &&usize| matches!(draft.links[**at].kind, LinkKind::Vpn { .. }) == vpn;
                    site.links.iter().find(is).map(|at| SiteTarget::Link(*at))
                };
                let target = match via.value {
                    "vpn" => of(true),
                    "direct_connect" => of(false),
                    _ => Some(SiteTarget::Blackhole),
                };
                match target {
                    Some(via) => {
                        if let Some(first) = seen.insert(to.value, to.place) {
                            let message = format!("there is a route to {} already", to.value);
                            cx.error(r.error(to.place, message).also(first, "here"));
                        } else {
                            routes.push(SiteRoutePlan { to: to.value, via, learned: false });
                        }
                    }
                    None => cx.error(r.error(via.place, format!("the site has no {}", via.value))),
                }
            }
            r.done();
        }
        let vpn_last = |at: &usize| matches!(draft.links[*at].kind, LinkKind::Vpn { .. });
        let mut links = site.links.clone();
        links.sort_by_key(vpn_last);
        for at in links {
            let via = SiteTarget::Link(at);
            let learned = advertised(draft, at);
            routes.extend(learned.into_iter().map(|to| SiteRoutePlan { to, via, learned: true }));
            if link::is_static(&draft.links[at].kind) && !routes.iter().any(|route| route.via == via) {
                let place = e.node.get("vpn").map_or(e.key_place, |vpn| vpn.place);
                let place = if place.is_empty() { e.key_place } else { place };
                let message = format!("site {}: its VPN has static routing, and no route leads into it", e.key);
                cx.warning(Found::at(place, message).help("`routes: [{ to: 10.0.0.0/16, via: vpn }]` at the site"));
            }
        }
        overlaps(cx, e, &site, draft);
        if let Some(site) = &mut draft.sites[index] {
            site.routes = routes;
        }
    }
}

/// A site and a VPC with the same addresses: each keeps its own traffic to itself.
fn overlaps(cx: &Cx<'_>, e: &Entry, site: &SitePlan, draft: &Draft) {
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    for link in &site.links {
        match draft.links[*link].end {
            LinkEnd::Vgw(vgw) => reached.extend(draft.vgws.get(vgw).map(|vgw| vgw.vpc)),
            LinkEnd::Tgw(at) => {
                let tgw = draft.tgw_attachments.get(at).and_then(|a| a.as_ref()).map(|a| a.tgw);
                let beside = draft.tgw_attachments.iter().flatten().filter(|a| Some(a.tgw) == tgw);
                reached.extend(beside.filter_map(|a| match &a.to {
                    AttachmentTo::Vpc(to) => Some(to.vpc),
                    AttachmentTo::Link(_) => None,
                }));
            }
        }
    }
    for vpc in reached {
        let Some(plan) = &draft.vpcs[vpc] else { continue };
        let meet = site.cidrs.iter().find_map(|s| plan.cidrs.iter().find(|v| v.overlaps(*s)).map(|v| (s, v)));
        if let Some((own, other)) = meet {
            let name = &plan.common.name;
            let message = format!("site {}: its {own} overlaps {other} of VPC {name}, to which it is joined", e.key);
            let found = Found::at(e.key_place, message).also(cx.names.get(Kind::Vpc, vpc).place, "the VPC");
            cx.warning(found.help("what both have is reached by neither: `local` comes before what is learned"));
        }
    }
}

/// What AWS's side tells the site by BGP: the VPC's blocks, or what the attachment's route table leads to.
fn advertised(draft: &Draft, link: usize) -> Vec<Cidr> {
    if link::is_static(&draft.links[link].kind) {
        return Vec::new();
    }
    match draft.links[link].end {
        LinkEnd::Vgw(vgw) => {
            let vpc = draft.vgws.get(vgw).and_then(|vgw| draft.vpcs[vgw.vpc].as_ref());
            vpc.map(|vpc| vpc.cidrs.clone()).unwrap_or_default()
        }
        LinkEnd::Tgw(attachment) => {
            let table = draft.tgw_attachments.get(attachment).and_then(|a| a.as_ref()).and_then(|a| a.route_table);
            let Some(Some(table)) = table.map(|at| &draft.tgw_route_tables[at]) else { return Vec::new() };
            let others = table.routes.iter().filter(|route| match route.target {
                TgwTarget::Blackhole => false,
                TgwTarget::Attachment(at) => at != attachment,
            });
            others.map(|route| route.to).collect()
        }
    }
}

/// The VPC attachment's blocks, or the site's: what an attachment propagates. A VPN with static routing propagates
/// nothing: the transit gateway's own static routes lead there.
pub fn blocks_behind(draft: &Draft, attachment: usize) -> Vec<Cidr> {
    match draft.tgw_attachments.get(attachment).and_then(|a| a.as_ref()).map(|a| &a.to) {
        Some(AttachmentTo::Vpc(to)) => draft.vpcs[to.vpc].as_ref().map(|vpc| vpc.cidrs.clone()).unwrap_or_default(),
        Some(AttachmentTo::Link(link)) if !link::is_static(&draft.links[*link].kind) => {
            draft.links[*link].site_blocks.clone()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_tenth_on_and_end_with_the_last() {
        let blocks: Vec<Cidr> = ["10.0.0.0/28", "10.1.0.0/30"].iter().map(|b| b.parse().expect("block")).collect();
        let mut addresses = Addresses::new(&blocks, Some(Ipv4Addr::new(10, 0, 0, 1)));
        let all: Vec<String> = std::iter::from_fn(|| addresses.free("host")).map(|ip| ip.to_string()).collect();
        let mut expected: Vec<String> = (10..15).chain(2..10).map(|n| format!("10.0.0.{n}")).collect();
        expected.extend(["10.1.0.1".to_owned(), "10.1.0.2".to_owned()]);
        assert_eq!(all, expected);
        assert!(addresses.free("host").is_none());
    }
}
