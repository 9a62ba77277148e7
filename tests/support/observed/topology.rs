//! Random topologies: good by construction, with much that is wrong in them for whoever sends packets.

use std::fmt::Write;

/// splitmix64: the same on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.next() % 100 < n
    }

    pub fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// A rule that a lab may be given without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SecurityGroup,
    NetworkAcl,
    Route,
    NatRoute,
}

/// A topology file, line by line.
#[derive(Default)]
pub struct Topology {
    lines: Vec<(String, Option<Kind>)>,
}

impl Topology {
    /// The file.
    pub fn yaml(&self) -> String {
        self.without(usize::MAX)
    }

    /// The file without one line.
    pub fn without(&self, line: usize) -> String {
        let mut text = String::new();
        for (_, (line, _)) in self.lines.iter().enumerate().filter(|(at, _)| *at != line) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Lines that are a rule of this kind.
    pub fn rules(&self, kind: Kind) -> Vec<usize> {
        (0..self.lines.len()).filter(|at| self.lines[*at].1 == Some(kind)).collect()
    }

    pub fn line(&self, at: usize) -> &str {
        self.lines[at].0.trim()
    }

    fn put(&mut self, depth: usize, text: impl AsRef<str>) {
        self.lines.push((format!("{:1$}{2}", "", 2 * depth, text.as_ref()), None));
    }

    /// Unless the list that began at `from` has it.
    fn once(&mut self, from: usize, kind: Kind, depth: usize, text: &str) {
        if self.lines[from..].iter().all(|(line, _)| line.trim() != text) {
            self.rule(kind, depth, text);
        }
    }

    fn rule(&mut self, kind: Kind, depth: usize, text: impl AsRef<str>) {
        self.put(depth, text);
        self.lines.last_mut().expect("just put").1 = Some(kind);
    }
}

/// What there is, decided before a line is written.
struct World {
    vpcs: usize,
    /// By VPC.
    igw: Vec<bool>,
    nat: Vec<bool>,
    attached: Vec<bool>,
    endpoint: Vec<bool>,
    peered: Vec<(usize, usize)>,
    tgw: bool,
    site: Site,
    /// Direct Connect, not a VPN.
    direct: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    None,
    Tgw,
    Vgw,
}

impl World {
    fn new(dice: &mut Dice) -> World {
        let vpcs = 1 + dice.below(3);
        let igw: Vec<bool> = (0..vpcs).map(|_| dice.percent(80)).collect();
        let nat = igw.iter().map(|igw| *igw && dice.percent(80)).collect();
        let tgw = dice.percent(if vpcs > 1 { 65 } else { 30 });
        let attached = (0..vpcs).map(|_| tgw && dice.percent(85)).collect();
        let endpoint = (0..vpcs).map(|_| dice.percent(60)).collect();
        let pairs = [(0, 1), (0, 2), (1, 2)];
        let peered = pairs.into_iter().filter(|(_, b)| *b < vpcs).filter(|_| dice.percent(55)).collect();
        let site = match dice.below(4) {
            0 => Site::None,
            1 => Site::Vgw,
            _ if tgw => Site::Tgw,
            _ => Site::Vgw,
        };
        World { vpcs, igw, nat, attached, endpoint, peered, tgw, site, direct: dice.percent(30) }
    }

    fn peering(&self, a: usize, b: usize) -> Option<String> {
        let (a, b) = (a.min(b), a.max(b));
        self.peered.contains(&(a, b)).then(|| format!("p{a}{b}"))
    }
}

pub fn random(dice: &mut Dice) -> Topology {
    let world = World::new(dice);
    let mut t = Topology::default();
    t.put(0, "version: 1");
    t.put(0, "name: observed");
    t.put(0, "region: eu-west-1");
    t.put(0, "prefix_lists: { partners: [198.51.100.0/25, 10.1.1.0/24] }");
    t.put(0, "vpcs:");
    for v in 0..world.vpcs {
        vpc(&mut t, dice, &world, v);
    }
    if !world.peered.is_empty() {
        t.put(0, "peerings:");
        for (a, b) in &world.peered {
            t.put(1, format!("p{a}{b}: {{ requester: v{a}, accepter: v{b} }}"));
        }
    }
    if world.tgw {
        transit_gateway(&mut t, dice, &world);
    }
    if world.site != Site::None {
        t.put(0, "on_prem:");
        t.put(1, "dc:");
        t.put(2, "cidr: 192.168.0.0/16");
        t.put(2, "hosts:");
        t.put(3, format!("pc: {{ ip: 192.168.0.10, {LISTEN} }}"));
        t.put(3, format!("db: {{ ip: 192.168.1.10, {LISTEN} }}"));
        let to = if world.site == Site::Tgw { "tgw:core" } else { "vgw:v0" };
        let kind = if to == "tgw:core" { "transit" } else { "private" };
        if world.direct {
            t.put(2, format!("direct_connect: {{ to: \"{to}\", vif: {kind} }}"));
        } else {
            t.put(2, format!("vpn: {{ to: \"{to}\" }}"));
        }
        if dice.percent(30) {
            t.put(2, "routes: [ { to: 10.1.0.0/16, via: blackhole } ]");
        }
    }
    t.put(0, "internet:");
    t.put(1, format!("www: {{ ip: 192.0.2.10, {LISTEN} }}"));
    t.put(1, format!("odd: {{ ip: 198.51.100.80, {LISTEN} }}"));
    faults(&mut t, dice, &world);
    t
}

/// Of each VPC: name, subnet, address.
const MACHINES: [(&str, &str, &str); 4] =
    [("web", "pub", "0.10"), ("app", "pa", "1.10"), ("too", "pa", "1.11"), ("db", "pb", "2.10")];

/// What machines serve: of TCP 80 and 22, of UDP 53.
const LISTEN: &str = "listen: [ { tcp: 80, reply: hello }, { tcp: 22, reply: hello }, { udp: 53, reply: echo } ]";

fn vpc(t: &mut Topology, dice: &mut Dice, world: &World, v: usize) {
    t.put(1, format!("v{v}:"));
    t.put(2, format!("cidr: 10.{v}.0.0/16"));
    if world.igw[v] {
        t.put(2, "internet_gateway: true");
    }
    if v == 0 && world.site == Site::Vgw {
        t.put(2, "virtual_private_gateway: true");
    }
    if world.nat[v] {
        t.put(2, "nat_gateways: { nat: { subnet: pub }, inner: { subnet: pa, public: false } }");
    }
    t.put(2, "subnets:");
    for (name, third, zone) in [("pub", 0, 'a'), ("pa", 1, 'a'), ("pb", 2, 'b')] {
        let acl = if dice.percent(35) { format!(", nacl: n{}", dice.below(2)) } else { String::new() };
        t.put(3, format!("{name}: {{ cidr: 10.{v}.{third}.0/24, az: {zone}, route_table: {name}{acl} }}"));
    }
    if world.attached[v] {
        t.put(3, format!("tgw-a: {{ cidr: 10.{v}.250.0/28, az: a }}"));
        t.put(3, format!("tgw-b: {{ cidr: 10.{v}.250.16/28, az: b }}"));
    }
    t.put(2, "route_tables:");
    for table in ["pub", "pa", "pb"] {
        t.put(3, format!("{table}:"));
        if v == 0 && world.site == Site::Vgw && dice.percent(70) {
            t.put(4, "propagate: true");
        }
        t.put(4, "routes:");
        t.put(5, "- { to: 10.200.0.0/16, via: blackhole }");
        routes(t, dice, world, v, table);
    }
    t.put(2, "network_acls:");
    for acl in 0..2 {
        t.put(3, format!("n{acl}:"));
        for (direction, word) in [("ingress", "from"), ("egress", "to")] {
            t.put(4, format!("{direction}:"));
            t.put(5, format!("32000: deny all {word} 10.251.0.0/16"));
            acl_rules(t, dice, word);
        }
    }
    t.put(2, "security_groups:");
    t.put(3, "base:");
    t.put(4, "ingress:");
    t.put(5, "- tcp 7 from 10.250.0.0/16");
    for rule in ["tcp 80 from 0.0.0.0/0", "tcp 81 from 10.0.0.0/8", "udp 53-54 from 0.0.0.0/0", "icmp from 0.0.0.0/0"] {
        t.rule(Kind::SecurityGroup, 5, format!("- {rule}"));
    }
    for group in 0..3 {
        t.put(3, format!("g{group}:"));
        t.put(4, "ingress:");
        let first = t.lines.len();
        t.put(5, "- tcp 7 from 10.250.0.0/16");
        for _ in 0..1 + dice.below(4) {
            t.once(first, Kind::SecurityGroup, 5, &format!("- {}", group_rule(dice, world, (v, group), "from")));
        }
        match dice.below(12) {
            0 => t.put(4, "egress: []"),
            1..=3 => {
                t.put(4, "egress:");
                let first = t.lines.len();
                t.put(5, "- tcp 7 to 10.250.0.0/16");
                for _ in 0..2 + dice.below(3) {
                    t.once(first, Kind::SecurityGroup, 5, &format!("- {}", group_rule(dice, world, (v, group), "to")));
                }
            }
            _ => {}
        }
    }
    t.put(2, "instances:");
    for (name, subnet, last) in MACHINES {
        let public = world.igw[v] && dice.percent(if subnet == "pub" { 90 } else { 20 });
        let public = if public { ", public_ip: true" } else { "" };
        let (first, second) = (dice.below(3), dice.below(3));
        let groups = match () {
            () if dice.percent(55) => format!("base, g{first}"),
            () if first == second => format!("g{first}"),
            () => format!("g{first}, g{second}"),
        };
        t.put(3, format!("{name}{v}:"));
        t.put(4, format!("{{ subnet: {subnet}, ip: 10.{v}.{last}, security_groups: [{groups}]{public}, {LISTEN} }}"));
    }
    let mut endpoints = Vec::new();
    if world.endpoint[v] {
        let group = dice.below(3);
        endpoints.push(format!(
            "sts: {{ subnets: {{ pa: 10.{v}.1.50, pb: 10.{v}.2.50 }}, security_groups: [g{group}], private_dns: false }}"
        ));
    }
    if dice.percent(50) {
        let tables = dice.of(&["pub", "pa", "pa, pb", "pub, pa, pb"]);
        endpoints.push(format!("s3: {{ type: gateway, route_tables: [{tables}] }}"));
    }
    if !endpoints.is_empty() {
        t.put(2, "endpoints:");
    }
    for endpoint in endpoints {
        t.put(3, endpoint);
    }
}

fn routes(t: &mut Topology, dice: &mut Dice, world: &World, v: usize, table: &str) {
    let mut route = |kind, to: &str, via: &str| t.rule(kind, 5, format!("- {{ to: \"{to}\", via: \"{via}\" }}"));
    let public = table == "pub";
    match dice.below(20) {
        0..=1 => {}
        2 => route(Kind::Route, "0.0.0.0/0", "blackhole"),
        3 if world.igw[v] => route(Kind::Route, "0.0.0.0/0", "igw"),
        _ if public && world.igw[v] => route(Kind::Route, "0.0.0.0/0", "igw"),
        _ if !public && world.nat[v] => route(Kind::NatRoute, "0.0.0.0/0", "nat:nat"),
        _ => {}
    }
    match dice.below(12) {
        0 => route(Kind::Route, "198.51.100.0/24", "blackhole"),
        1 => route(Kind::Route, "pl:partners", "blackhole"),
        2 if world.igw[v] => route(Kind::Route, "pl:partners", "igw"),
        _ => {}
    }
    for other in (0..world.vpcs).filter(|other| *other != v) {
        let peering = world.peering(v, other).map(|p| format!("peering:{p}"));
        let tgw = world.attached[v].then(|| "tgw:core".to_owned());
        let ways: Vec<String> = peering.into_iter().chain(tgw).collect();
        if table == "pb" && world.nat[v] && dice.percent(20) {
            route(Kind::NatRoute, &format!("10.{other}.0.0/16"), "nat:inner");
        } else if !ways.is_empty() && dice.percent(85) {
            route(Kind::Route, &format!("10.{other}.0.0/16"), &ways[dice.below(ways.len())]);
        }
        if dice.percent(12) {
            route(Kind::Route, &format!("10.{other}.1.0/24"), "blackhole");
        }
    }
    let by_tgw = world.attached[v] && dice.percent(75);
    let by_vgw = v == 0 && world.site == Site::Vgw && dice.percent(60);
    match (by_vgw, by_tgw) {
        (true, _) => route(Kind::Route, "192.168.0.0/16", "vgw"),
        (_, true) => route(Kind::Route, "192.168.0.0/16", "tgw:core"),
        _ => {}
    }
}

fn acl_rules(t: &mut Topology, dice: &mut Dice, word: &str) {
    let mut number = 100;
    for _ in 0..dice.below(4) {
        let action = dice.of(&["allow", "deny", "deny"]);
        let what = dice.of(&["tcp 80", "tcp 22", "tcp 20-100", "udp 53", "udp all", "icmp", "tcp 443", "all"]);
        let block = dice.of(&BLOCKS[1..]);
        t.rule(Kind::NetworkAcl, 5, format!("{number}: {action} {what} {word} {block}"));
        number += 10;
    }
    let last = match dice.below(8) {
        0 => "allow tcp all",
        1 => "allow tcp 1024-65535",
        _ => "allow all",
    };
    t.rule(Kind::NetworkAcl, 5, format!("{number}: {last} {word} 0.0.0.0/0"));
}

/// Who rules speak of.
const BLOCKS: [&str; 11] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.1.0.0/16",
    "10.1.0.0/23",
    "10.2.0.0/16",
    "192.168.0.0/16",
    "192.168.0.0/24",
    "192.0.2.0/24",
    "10.0.1.10/32",
];

/// Of a group in a VPC.
fn group_rule(dice: &mut Dice, world: &World, (v, group): (usize, usize), word: &str) -> String {
    let what =
        dice.of(&["tcp 80", "tcp 80", "tcp 22", "tcp 0-1023", "tcp 443", "udp 53", "udp all", "icmp", "all", "all"]);
    let peers: Vec<usize> = (0..world.vpcs).filter(|other| world.peering(v, *other).is_some()).collect();
    let peer = match dice.below(11) {
        0 => "self".to_owned(),
        1 => format!("sg:g{}", (group + 1 + dice.below(2)) % 3),
        2 if !peers.is_empty() => format!("sg:v{}.g{}", peers[dice.below(peers.len())], dice.below(3)),
        3 => "pl:partners".to_owned(),
        4..=5 => "0.0.0.0/0".to_owned(),
        6..=8 => "10.0.0.0/8".to_owned(),
        _ => dice.of(&BLOCKS).to_owned(),
    };
    format!("{what} {word} {peer}")
}

/// What has failed in some labs.
fn faults(t: &mut Topology, dice: &mut Dice, world: &World) {
    let v = dice.below(world.vpcs);
    let fault = match dice.below(18) {
        0 => "{ az: b }".to_owned(),
        1..=2 => format!("{{ instance: v{v}.{}{v} }}", MACHINES[dice.below(MACHINES.len())].0),
        3..=4 if world.endpoint[v] => format!("{{ endpoint: v{v}.sts, az: b }}"),
        5..=6 if world.site != Site::None && !world.direct => "{ tunnel: dc/1 }".to_owned(),
        7 if world.site != Site::None && !world.direct => "{ tunnel: dc/1 }, { tunnel: dc/2 }".to_owned(),
        _ => return,
    };
    t.put(0, format!("faults: [ {fault} ]"));
}

fn transit_gateway(t: &mut Topology, dice: &mut Dice, world: &World) {
    t.put(0, "transit_gateways:");
    t.put(1, "core:");
    t.put(2, "attachments:");
    let mut all = Vec::new();
    for v in (0..world.vpcs).filter(|v| world.attached[*v]) {
        let zones = dice.of(&["tgw-a, tgw-b", "tgw-a, tgw-b", "tgw-a", "tgw-b"]);
        let mode = if dice.percent(25) { ", appliance_mode: true" } else { "" };
        t.put(3, format!("v{v}: {{ vpc: v{v}, subnets: [{zones}]{mode} }}"));
        all.push(format!("v{v}"));
    }
    if world.site == Site::Tgw {
        t.put(3, if world.direct { "dc: { direct_connect: dc }" } else { "dc: { vpn: dc }" });
        all.push("dc".to_owned());
    }
    if all.is_empty() {
        t.lines.pop();
        t.put(2, "attachments: {}");
        return;
    }
    if dice.percent(50) {
        return;
    }
    // Some know less than all.
    let mut some = |share| all.iter().filter(|_| dice.percent(share)).cloned().collect::<Vec<_>>().join(", ");
    let (associate, propagate) = (some(85), some(80));
    let first = all[0].clone();
    t.put(2, "route_tables:");
    t.put(3, "one:");
    t.put(4, format!("associate: [{associate}]"));
    t.put(4, format!("propagate: [{propagate}]"));
    t.put(4, "routes:");
    t.put(5, "- { to: 10.200.0.0/16, via: blackhole }");
    if dice.percent(30) {
        t.rule(Kind::Route, 5, "- { to: 10.1.1.0/24, via: blackhole }");
    }
    if dice.percent(30) {
        t.rule(Kind::Route, 5, format!("- {{ to: 0.0.0.0/0, via: {first} }}"));
    }
}
