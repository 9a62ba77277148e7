//! Random topologies: VPCs and everything between them, some of it wrong.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::builder::Lab;
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::model::catalogue::public_addr;
use crate::model::plan::{
    AttachmentTo, EniOwner, Fault, Forward, Impair, Latency, LinkEnd, LinkKind, NaclRule, RouteDest, RouteOrigin,
    RouteTarget, SgPeer, SgRule, SiteTarget, TgwTarget, TrafficMatch,
};

/// What stays while a case runs: who is where.
#[derive(Clone, Debug)]
pub struct World {
    pub vpcs: usize,
    /// The second VPC has the addresses of the first.
    pub overlap: bool,
    /// Zones of the subnets.
    pub zones: [usize; 3],
    pub igw: [bool; 3],
    pub private_nat: bool,
    /// NAT gateways have two addresses.
    pub more: bool,
    pub tgw: bool,
    pub site: Joined,
    pub public_side: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    Not,
    VpnToVgw,
    VpnToTgw,
    DxToVgw,
    DxToTgw,
}

/// What a published plan changes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Group, ingress, rule.
    groups: Vec<(usize, bool, RuleShape)>,
    acls: Vec<(usize, bool, bool, RuleShape)>,
    /// Of each interface, by its number.
    members: Vec<Vec<usize>>,
    unchecked: Vec<bool>,
    stateful: [bool; 2],
    /// Number of ACL and table of each subnet of a VPC.
    acl_of: [usize; 3],
    table_of: [[usize; 3]; 3],
    /// VPC, table, destination, target.
    routes: Vec<(usize, usize, usize, Index)>,
    propagated: Vec<(usize, usize, usize)>,
    edge: [Option<Index>; 2],
    associations: Vec<Option<usize>>,
    appliance: [bool; 3],
    tgw_routes: Vec<(usize, usize, Option<Index>)>,
    site_routes: Vec<(usize, bool)>,
    pmtud: bool,
    far: bool,
    tunnel: (bool, u16),
    faults: Vec<(usize, Index)>,
    dns: bool,
    /// Of each instance, by its number.
    impaired: Vec<Option<usize>>,
    latency: bool,
}

#[derive(Clone, Debug)]
struct RuleShape {
    proto: usize,
    ports: usize,
    peer: usize,
}

/// Groups of a VPC: the first two are open, untracked and tracked.
const GROUPS: usize = 4;
const TABLES: usize = 5;

const IMPAIRS: [Impair; 3] = [
    Impair {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(3),
        loss_ppm: 0,
        rate: None,
        down: false,
        seed: None,
    },
    Impair {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss_ppm: 10_000,
        rate: Some(1_000_000),
        down: false,
        seed: Some(7),
    },
    Impair { delay: Duration::ZERO, jitter: Duration::ZERO, loss_ppm: 0, rate: None, down: true, seed: None },
];

pub fn world() -> impl Strategy<Value = World> {
    let joined = prop_oneof![
        2 => Just(Joined::Not),
        1 => Just(Joined::VpnToVgw),
        1 => Just(Joined::VpnToTgw),
        1 => Just(Joined::DxToVgw),
        1 => Just(Joined::DxToTgw),
    ];
    let often = || prop::bool::weighted(0.85);
    (
        1usize..4,
        prop::bool::weighted(0.3),
        prop::array::uniform3(0usize..3),
        prop::array::uniform3(often()),
        (any::<bool>(), any::<bool>()),
        prop::bool::weighted(0.6),
        joined,
        often(),
    )
        .prop_map(|(vpcs, overlap, zones, igw, (private_nat, more), tgw, site, public_side)| {
            let tgw = tgw || matches!(site, Joined::VpnToTgw | Joined::DxToTgw);
            World { vpcs, overlap, zones, igw, private_nat, more, tgw, site, public_side }
        })
}

fn rule_shape() -> impl Strategy<Value = RuleShape> {
    (0usize..6, 0usize..4, 0usize..16).prop_map(|(proto, ports, peer)| RuleShape { proto, ports, peer })
}

pub fn rules() -> impl Strategy<Value = Rules> {
    use prop::collection::vec;
    let groups = vec((2..GROUPS, any::<bool>(), rule_shape()), 0..16);
    let acls = vec((0usize..2, any::<bool>(), prop::bool::weighted(0.6), rule_shape()), 0..8);
    let group = || prop_oneof![3 => Just(0), 3 => Just(1), 2 => Just(2usize), 2 => Just(3)];
    let members = vec(vec(group(), 1..3), 20);
    let security = (groups, acls, members, vec(prop::bool::weighted(0.25), 20), any::<[bool; 2]>());
    let subnets = (
        prop::array::uniform3(0usize..5),
        prop::array::uniform3(tables()),
        vec((0usize..3, 0..TABLES, 0usize..BLOCKS.len() + 1, any::<Index>()), 0..10),
        vec((0usize..3, 0..TABLES, 0usize..BLOCKS.len()), 0..3),
        prop::array::uniform2(prop::option::weighted(0.2, any::<Index>())),
    );
    let joined = (
        vec(prop::option::weighted(0.9, 0usize..2), 4),
        any::<[bool; 3]>(),
        vec((0usize..2, 0usize..BLOCKS.len(), prop::option::weighted(0.8, any::<Index>())), 0..6),
        vec((0usize..BLOCKS.len(), any::<bool>()), 0..2),
        (prop::bool::weighted(0.8), prop::bool::weighted(0.2)),
        (any::<bool>(), 1_300u16..1_460),
    );
    let faults = prop_oneof![
        3 => Just(Vec::new()),
        1 => vec((0usize..6, any::<Index>()), 1..3),
    ];
    let links = vec(prop::option::weighted(0.15, 0..IMPAIRS.len()), 20);
    (security, subnets, joined, faults, prop::bool::weighted(0.9), links, any::<bool>()).prop_map(
        |(security, subnets, joined, faults, dns, impaired, latency)| {
            let (groups, acls, members, unchecked, stateful) = security;
            let (acl_of, table_of, routes, propagated, edge) = subnets;
            let (associations, appliance, tgw_routes, site_routes, (pmtud, far), tunnel) = joined;
            Rules {
                groups,
                acls,
                members,
                unchecked,
                stateful,
                acl_of,
                table_of,
                routes,
                propagated,
                edge,
                associations,
                appliance,
                tgw_routes,
                site_routes,
                pmtud,
                far,
                tunnel,
                faults,
                dns,
                impaired,
                latency,
            }
        },
    )
}

/// The first subnet is often public, and the second often behind the NAT gateway in it.
fn tables() -> impl Strategy<Value = [usize; 3]> {
    (prop_oneof![3 => Just(0), 2 => 0..TABLES], prop_oneof![1 => Just(1), 2 => 0..TABLES], 0..TABLES)
        .prop_map(|(a, b, c)| [a, b, c])
}

const BLOCKS: [&str; 13] = [
    "0.0.0.0/0",
    "10.0.0.0/16",
    "10.1.0.0/16",
    "10.2.0.0/16",
    "10.0.1.0/24",
    "10.0.2.0/24",
    "10.1.0.0/24",
    "172.16.0.0/16",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.18.0.16/32",
    "192.0.2.0/24",
    "10.2.1.0/24",
];

/// Where packets are sent.
pub fn destinations() -> Vec<&'static str> {
    let mut all = vec![
        "10.0.0.10",
        "10.0.0.11",
        "10.0.1.10",
        "10.0.1.11",
        "10.0.2.10",
        "10.0.0.20",
        "10.0.1.20",
        "10.1.0.10",
        "10.1.1.10",
        "10.1.2.10",
        "10.2.0.10",
        "10.2.1.10",
        "172.16.0.10",
        "172.16.0.11",
        "192.0.2.10",
        "198.51.100.10",
        "203.0.113.10",
        "203.0.113.11",
        "203.0.113.12",
        "203.0.113.20",
        "203.0.113.21",
        "203.0.113.30",
        "203.0.113.31",
        "198.18.0.16",
        "198.18.0.16",
        "192.0.2.10",
    ];
    // The same once more: the rest is rarer.
    all.extend(all.clone());
    all.extend([
        "10.0.0.5",
        "10.0.0.8",
        "203.0.113.40",
        "10.0.1.6",
        "10.1.0.5",
        "10.0.0.7",
        "10.1.0.7",
        "10.0.0.1",
        "10.0.1.255",
        "10.0.0.2",
        "10.1.0.2",
        "10.0.1.77",
        "10.0.77.1",
        "192.168.7.7",
        "172.16.0.77",
        "198.18.0.2",
        "198.18.0.3",
        "203.0.113.99",
        "8.8.8.8",
        "100.64.0.1",
        "169.254.169.253",
        "169.254.169.254",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
    ]);
    all
}

pub fn build(world: &World, rules: &Rules) -> Lab {
    let mut lab = Lab::new();
    let corp = lab.prefix_list("corp", &["172.16.0.0/16", "10.2.0.0/16", "192.0.2.0/24"]);
    let s3 = public_addr("s3.eu-west-1.amazonaws.com").expect("known");
    let services = lab.prefix_list("s3", &[&format!("{s3}/32")]);
    let mut eni = 0;
    let blocks: Vec<usize> = (0..world.vpcs).map(|v| if v == 1 && world.overlap { 0 } else { v }).collect();
    for v in 0..world.vpcs {
        let n = blocks[v];
        let vpc = lab.vpc(["one", "two", "three"][v], &format!("10.{n}.0.0/16"));
        lab.plan.vpcs[vpc].dns_support = rules.dns;
        make_groups(&mut lab, vpc, rules, world.overlap, corp, services);
        let (first_acl, first_table) = make_lists(&mut lab, vpc, rules);
        let first_group = v * (GROUPS + 1) + 1;
        let mut next_groups = || {
            eni += 1;
            rules.members[eni - 1].iter().map(|g| first_group + g).collect::<Vec<usize>>()
        };
        let subnets: Vec<usize> = (0..3)
            .map(|s| {
                let zone = ['a', 'b', 'c'][world.zones[s]];
                let subnet = lab.subnet(vpc, &format!("s{s}"), &format!("10.{n}.{s}.0/24"), zone);
                if rules.acl_of[s] < 2 {
                    lab.plan.subnets[subnet].nacl = first_acl + rules.acl_of[s];
                }
                lab.plan.subnets[subnet].route_table = first_table + rules.table_of[v][s];
                subnet
            })
            .collect();
        for (s, subnet) in subnets.iter().enumerate() {
            for host in 10..(if v == 0 && s < 2 { 12 } else { 11 }) {
                let groups = next_groups();
                let ix = lab.instance(&format!("{v}-{s}-{host}"), *subnet, &format!("10.{n}.{s}.{host}"), &groups);
                if v == 0 && s < 2 && host == 11 {
                    lab.plan.enis[ix.at()].source_dest_check = !rules.unchecked[s];
                    if rules.stateful[s] {
                        let i = lab.plan.instances.len() - 1;
                        lab.plan.instances[i].forward = Some(Forward::Stateful);
                    }
                }
                if host == 10 && s < 2 && world.igw[v] {
                    lab.public_address(ix, &format!("203.0.113.{}", [10, 30][s] + v));
                }
            }
        }
        if v == 0 {
            let groups = next_groups();
            let at = [(subnets[0], "10.0.0.20"), (subnets[1], "10.0.1.20")];
            lab.endpoint("sqs", &at, &groups, &[443]);
        }
        if world.igw[v] {
            lab.igw(vpc);
            let nat = lab.nat("nat", subnets[0], &format!("10.{n}.0.5"), Some(&format!("203.0.113.{}", 20 + v)));
            if world.more {
                lab.nat_address(nat, &format!("10.{n}.0.8"), Some(&format!("203.0.113.{}", 40 + v)));
            }
        }
        if world.private_nat {
            let nat = lab.nat("private", subnets[1], &format!("10.{n}.1.6"), None);
            if world.more {
                lab.nat_address(nat, &format!("10.{n}.1.8"), None);
            }
        }
    }
    join(&mut lab, world, rules);
    lab.internet_host("host", "192.0.2.10");
    lab.internet_host("other", "198.51.100.10");
    if world.public_side {
        lab.public_side();
    }
    for (v, block) in blocks.iter().enumerate().take(world.vpcs) {
        let first_table = v * (TABLES + 1) + 1;
        if v < 2 {
            lab.gateway_endpoint(v, "s3", services, &[first_table + 1, first_table + 3], &[443, 80]);
        }
        make_routes(&mut lab, v, *block, first_table, rules, corp);
    }
    lab.plan.latency = if rules.latency { Latency::Aws } else { Latency::Off };
    for (instance, impaired) in lab.plan.instances.iter_mut().zip(&rules.impaired) {
        instance.impair = impaired.map(|at| IMPAIRS[at]);
    }
    make_faults(&mut lab, rules);
    lab
}

fn make_groups(lab: &mut Lab, vpc: usize, rules: &Rules, overlap: bool, corp: usize, services: usize) {
    let first = lab.plan.security_groups.len();
    for g in 0..GROUPS {
        lab.group(vpc, &format!("g{g}"));
    }
    lab.allow(first, "all from 0.0.0.0/0");
    lab.allow(first, "all to 0.0.0.0/0");
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        lab.allow(first + 1, &format!("all from {half}"));
        lab.allow(first + 1, &format!("all to {half}"));
    }
    for (group, ingress, rule) in &rules.groups {
        let peer = match rule.peer {
            // Of a peer, where there is one in the region; else of the VPC itself.
            n @ 14.. if vpc == 2 && !rules.far => SgPeer::Group(GROUPS + 2 + n % GROUPS),
            n @ 14.. if vpc == 1 && !rules.far && !overlap => SgPeer::Group(1 + n % GROUPS),
            n @ 12.. => SgPeer::Group(first + n % GROUPS),
            10 => SgPeer::PrefixList(corp),
            11 => SgPeer::PrefixList(services),
            n => SgPeer::Cidr(peer_block(n)),
        };
        let made = SgRule { id: String::new(), matches: what(rule), peer, text: String::new(), implied: false };
        let group = &mut lab.plan.security_groups[first + group];
        if *ingress { group.ingress.push(made) } else { group.egress.push(made) }
    }
}

/// First network ACL and first route table.
fn make_lists(lab: &mut Lab, vpc: usize, rules: &Rules) -> (usize, usize) {
    let (first_acl, first_table) = (lab.plan.network_acls.len(), lab.plan.route_tables.len());
    for i in 0..2 {
        lab.nacl(vpc, &format!("acl{i}"), &["32000 allow all from 0.0.0.0/0"], &["32000 allow all to 0.0.0.0/0"]);
    }
    for (i, (acl, ingress, allow, rule)) in rules.acls.iter().enumerate() {
        let number = 100 + i as u16;
        let made = NaclRule {
            number,
            allow: *allow,
            matches: what(rule),
            peer: peer_block(rule.peer % 10),
            text: String::new(),
        };
        let acl = &mut lab.plan.network_acls[first_acl + acl];
        let rules = if *ingress { &mut acl.ingress } else { &mut acl.egress };
        let at = rules.len() - 1;
        rules.insert(at, made);
    }
    for i in 0..TABLES {
        lab.table(vpc, &format!("table{i}"));
    }
    (first_acl, first_table)
}

fn what(rule: &RuleShape) -> TrafficMatch {
    let proto =
        [None, Some(Proto::TCP), Some(Proto::TCP), Some(Proto::UDP), Some(Proto::ICMP), Some(Proto(47))][rule.proto];
    let ports = [
        PortRange::ALL,
        PortRange::one(443),
        PortRange { first: 0, last: 999 },
        PortRange { first: 1000, last: 65535 },
    ];
    let icmp = [(None, None), (Some(8), None), (Some(0), Some(0)), (Some(3), Some(3))];
    let icmp = if proto == Some(Proto::ICMP) { icmp[rule.ports] } else { (None, None) };
    TrafficMatch { proto, ports: ports[rule.ports], icmp }
}

fn peer_block(n: usize) -> Cidr {
    const BLOCKS: [&str; 10] = [
        "0.0.0.0/0",
        "0.0.0.0/0",
        "10.0.0.0/16",
        "10.0.1.0/24",
        "10.0.0.10/32",
        "10.1.0.0/16",
        "192.0.2.0/24",
        "172.16.0.0/16",
        "203.0.113.0/24",
        "10.0.0.0/8",
    ];
    BLOCKS[n].parse().expect("block")
}

/// Peerings, the transit gateway, and the site.
fn join(lab: &mut Lab, world: &World, rules: &Rules) {
    for (a, b) in [(0, 1), (1, 2)] {
        if b < world.vpcs && !(world.overlap && a == 0) {
            let peering = lab.peering(a, b);
            lab.plan.peerings[peering].same_region = !rules.far;
        }
    }
    let tgw = world.tgw.then(|| lab.tgw("hub"));
    if let Some(tgw) = tgw {
        lab.tgw_table(tgw);
        lab.plan.transit_gateways[tgw].pmtud = rules.pmtud;
        for v in 0..world.vpcs {
            let block = lab.plan.vpcs[v].cidrs[0];
            let mut at: Vec<(usize, String)> = Vec::new();
            for s in 0..2 {
                // One for each zone.
                let subnet = v * 3 + s;
                if s == 0 || world.zones[0] != world.zones[1] {
                    at.push((subnet, format!("10.{}.{s}.7", block.network().octets()[1])));
                }
            }
            let at: Vec<(usize, &str)> = at.iter().map(|(s, ip)| (*s, ip.as_str())).collect();
            let attachment = lab.attach(tgw, v, &at);
            if let AttachmentTo::Vpc(to) = &mut lab.plan.tgw_attachments[attachment].to {
                to.appliance_mode = rules.appliance[v];
            }
        }
    }
    if world.site != Joined::Not {
        let site = lab.site("dc", "172.16.0.0/16");
        lab.site_host("dc1", site, "172.16.0.10");
        lab.site_host("dc2", site, "172.16.0.11");
        let end = match (world.site, tgw) {
            (Joined::VpnToTgw | Joined::DxToTgw, Some(tgw)) => LinkEnd::Tgw(tgw),
            _ => LinkEnd::Vgw(lab.vgw(0)),
        };
        let link = match world.site {
            Joined::VpnToVgw | Joined::VpnToTgw => lab.vpn(site, end),
            _ => lab.link(site, end, LinkKind::DirectConnect { mtu: if rules.far { 1_500 } else { 8_500 } }),
        };
        if let LinkKind::Vpn { tunnels, stateful, .. } = &mut lab.plan.links[link].kind {
            *stateful = rules.far;
            (tunnels[1].mtu, tunnels[1].preferred_by_aws) = (rules.tunnel.1, rules.tunnel.0);
            tunnels[0].preferred_by_aws = !rules.tunnel.0;
            tunnels[1].mss = rules.tunnel.0.then_some(rules.tunnel.1 - 40);
        }
        lab.site_route(site, "10.0.0.0/8", SiteTarget::Link(link));
        for (block, blackhole) in &rules.site_routes {
            let via = if *blackhole { SiteTarget::Blackhole } else { SiteTarget::Link(link) };
            lab.site_route(site, BLOCKS[*block], via);
        }
    }
    if tgw.is_some() {
        let attachments = lab.plan.tgw_attachments.len();
        for (a, association) in rules.associations.iter().enumerate().take(attachments) {
            lab.plan.tgw_attachments[a].route_table = *association;
        }
        for table in 0..2 {
            for a in 0..attachments {
                let blocks = match &lab.plan.tgw_attachments[a].to {
                    AttachmentTo::Vpc(to) => lab.plan.vpcs[to.vpc].cidrs.clone(),
                    AttachmentTo::Link(l) => lab.plan.links[*l].site_blocks.clone(),
                };
                lab.tgw_route(table, &blocks[0].to_string(), TgwTarget::Attachment(a));
            }
        }
        for (table, block, target) in &rules.tgw_routes {
            let target = target.map_or(TgwTarget::Blackhole, |at| TgwTarget::Attachment(at.index(attachments)));
            lab.tgw_route(*table, BLOCKS[*block], target);
        }
    }
}

/// Tables by their number: to the Internet, by NAT, by the transit gateway, by a private NAT gateway, local only; the
/// first four to the peer and the site as well. Then what chance adds.
fn make_routes(lab: &mut Lab, v: usize, n: usize, first: usize, rules: &Rules, corp: usize) {
    let plan = &lab.plan;
    let igw = plan.internet_gateways.iter().position(|g| g.vpc == v).map(RouteTarget::Igw);
    let nat = |public: bool| {
        plan.nat_gateways.iter().position(|nat| nat.vpc == v && nat.public == public).map(RouteTarget::Nat)
    };
    let (public, private) = (nat(true), nat(false));
    let tgw = (!plan.transit_gateways.is_empty()).then_some(RouteTarget::Tgw(0));
    let vgw = plan.vgws.iter().position(|g| g.vpc == v).map(RouteTarget::Vgw);
    let peers: Vec<(usize, usize)> =
        plan.peerings.iter().enumerate().filter_map(|(c, p)| p.other(v).map(|other| (c, other))).collect();
    for (table, default) in [igw, public, tgw, private].into_iter().enumerate() {
        if let Some(target) = default {
            lab.route(first + table, "0.0.0.0/0", target);
        }
        for &(c, other) in &peers {
            let block = lab.plan.vpcs[other].cidrs[0].to_string();
            lab.route(first + table, &block, RouteTarget::Peering(c));
        }
        if let Some(target) = vgw {
            lab.route(first + table, "172.16.0.0/16", target);
        } else if let Some(target) = tgw {
            lab.route(first + table, "172.16.0.0/16", target);
        }
        // Between VPCs that are not peered.
        for other in 0..lab.plan.vpcs.len() {
            let block = lab.plan.vpcs[other].cidrs[0];
            let taken = lab.plan.route_tables[first + table].routes.iter().any(|r| r.to == RouteDest::Cidr(block));
            if let (Some(target), false) = (tgw, taken) {
                lab.route(first + table, &block.to_string(), target);
            }
        }
    }
    let enis: Vec<EniIx> = (0..lab.plan.enis.len())
        .filter(|at| lab.plan.enis[*at].vpc() == Some(v) && matches!(lab.plan.enis[*at].owner, EniOwner::Instance(..)))
        .map(|at| EniIx(at as u32))
        .collect();
    let own: Cidr = format!("10.{n}.0.0/16").parse().expect("block");
    let others: Vec<RouteTarget> = [igw, public, private, tgw, vgw, Some(RouteTarget::Blackhole)]
        .into_iter()
        .flatten()
        .chain(peers.iter().map(|(c, _)| RouteTarget::Peering(*c)))
        .chain(enis.iter().take(3).map(|eni| RouteTarget::Eni(*eni)))
        .collect();
    for (vpc, table, block, target) in &rules.routes {
        let to = match BLOCKS.get(*block) {
            Some(block) => RouteDest::Cidr(block.parse().expect("block")),
            // It holds addresses of the third VPC.
            None if v == 2 => continue,
            None => RouteDest::PrefixList(corp),
        };
        let inside = matches!(to, RouteDest::Cidr(block) if own.covers(block));
        let target =
            if inside { RouteTarget::Eni(enis[target.index(enis.len())]) } else { others[target.index(others.len())] };
        // A block is routed once: what chance adds takes the place of what was there, beside `local`.
        if *vpc == v {
            lab.plan.route_tables[first + table].routes.retain(|r| r.to != to || r.target == RouteTarget::Local);
            lab.route_to(first + table, to, target, RouteOrigin::Created);
        }
    }
    if let Some(target) = vgw {
        for (vpc, table, block) in rules.propagated.iter().filter(|p| p.0 == v) {
            let _ = vpc;
            let to = RouteDest::Cidr(BLOCKS[*block].parse().expect("block"));
            lab.route_to(first + table, to, target, RouteOrigin::Propagated);
        }
    }
    if v == 0 {
        for (i, edge) in rules.edge.iter().enumerate() {
            let Some(middle) = edge else { continue };
            let table = lab.table(0, &format!("edge{i}"));
            lab.route(table, "10.0.1.0/24", RouteTarget::Eni(enis[middle.index(enis.len())]));
            if i == 0
                && let Some(g) = lab.plan.internet_gateways.iter_mut().find(|g| g.vpc == 0)
            {
                g.edge_table = Some(table);
            } else if i == 1
                && let Some(g) = lab.plan.vgws.first_mut()
            {
                g.edge_table = Some(table);
            }
        }
    }
}

fn make_faults(lab: &mut Lab, rules: &Rules) {
    for (kind, at) in &rules.faults {
        let what = match kind {
            0 => Fault::Zone { az_id: ["euw1-az1", "euw1-az2", "euw1-az3"][at.index(3)].into() },
            1 => Fault::Endpoint { endpoint: 0, enis: vec![lab.plan.endpoints[0].enis[at.index(2)]] },
            2 => Fault::Instance(at.index(lab.plan.instances.len())),
            5 => {
                let instance = at.index(lab.plan.instances.len());
                Fault::Link { instance, impair: IMPAIRS[instance % IMPAIRS.len()] }
            }
            _ if lab.plan.links.is_empty() => continue,
            n => Fault::Tunnel { link: 0, tunnel: n - 3 },
        };
        lab.fault(what);
    }
}
