//! The engine against the oracle, on random plans, packets and changes of the plan.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::base::{Cidr, PortRange, Proto};
use crate::engine::oracle::{Oracle, Sent};
use crate::model::plan::{NaclRule, RouteTarget, SgPeer, SgRule, TrafficMatch};
use crate::wire::make::Echo;

const GROUPS: usize = 4;
const SUBNETS: usize = 3;

#[derive(Clone, Debug)]
struct Shape {
    /// Rules: group, ingress, rule.
    rules: Vec<(usize, bool, RuleShape)>,
    acls: Vec<(usize, bool, bool, RuleShape)>,
    routes: Vec<(usize, usize, Index)>,
    /// Groups of each ENI.
    members: Vec<Vec<usize>>,
    unchecked: Vec<bool>,
    /// Number of ACL and table of each subnet.
    acl_of: [usize; SUBNETS],
    table_of: [usize; SUBNETS],
    dns: bool,
}

#[derive(Clone, Debug)]
struct RuleShape {
    proto: usize,
    ports: usize,
    peer: usize,
}

fn rule_shape() -> impl Strategy<Value = RuleShape> {
    (0usize..6, 0usize..4, 0usize..12).prop_map(|(proto, ports, peer)| RuleShape { proto, ports, peer })
}

fn shape() -> impl Strategy<Value = Shape> {
    let rules = prop::collection::vec((0..GROUPS, any::<bool>(), rule_shape()), 0..24);
    let acls = prop::collection::vec((0usize..3, any::<bool>(), prop::bool::weighted(0.8), rule_shape()), 0..12);
    let routes = prop::collection::vec((0usize..3, 0usize..6, any::<Index>()), 0..6);
    let members = prop::collection::vec(prop::collection::vec(0..GROUPS, 1..3), 10);
    let unchecked = prop::collection::vec(prop::bool::weighted(0.25), 10);
    (
        rules,
        acls,
        routes,
        members,
        unchecked,
        prop::array::uniform3(0usize..4),
        prop::array::uniform3(0usize..4),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(rules, acls, routes, members, unchecked, acl_of, table_of, dns)| Shape {
            rules,
            acls,
            routes,
            members,
            unchecked,
            acl_of,
            table_of,
            dns,
        })
}

/// Two VPCs with the same addresses; three subnets with two instances each and two endpoints in the first, one
/// subnet with two instances in the second.
fn build(shape: &Shape) -> Lab {
    let mut lab = Lab::new();
    let mut eni = 0;
    for (vpc_name, subnets) in [("one", SUBNETS), ("two", 1)] {
        let vpc = lab.vpc(vpc_name, "10.0.0.0/16");
        lab.plan.vpcs[vpc].dns_support = shape.dns;
        let first_group = lab.plan.security_groups.len();
        for g in 0..GROUPS {
            lab.group(vpc, &format!("g{g}"));
        }
        let first_acl = lab.plan.network_acls.len();
        let first_table = lab.plan.route_tables.len();
        for i in 0..3 {
            let all = ["32000 allow all from 10.0.0.0/8"];
            lab.nacl(vpc, &format!("acl{i}"), &all, &["32000 allow all to 0.0.0.0/0"]);
            lab.table(vpc, &format!("table{i}"));
        }
        for s in 0..subnets {
            let subnet = lab.subnet(vpc, &format!("s{s}"), &format!("10.0.{s}.0/24"), 'a');
            // The fourth is the default.
            if shape.acl_of[s] < 3 {
                lab.plan.subnets[subnet].nacl = first_acl + shape.acl_of[s];
            }
            if shape.table_of[s] < 3 {
                lab.plan.subnets[subnet].route_table = first_table + shape.table_of[s];
            }
            for host in [10, 11] {
                let groups: Vec<usize> = shape.members[eni].iter().map(|g| first_group + g).collect();
                let ix = lab.instance(&format!("i{s}-{host}"), subnet, &format!("10.0.{s}.{host}"), &groups);
                lab.plan.enis[ix.at()].source_dest_check = !shape.unchecked[eni];
                eni += 1;
            }
        }
        if vpc == 0 {
            let groups: Vec<usize> = shape.members[eni].iter().map(|g| first_group + g).collect();
            lab.endpoint("s3", &[(0, "10.0.0.20"), (1, "10.0.1.20")], &groups, &[443]);
            eni += 1;
        }
        for (group, ingress, rule) in &shape.rules {
            let made = SgRule {
                id: String::new(),
                matches: what(rule),
                peer: peer(rule, first_group),
                text: String::new(),
                implied: false,
            };
            let group = &mut lab.plan.security_groups[first_group + group];
            if *ingress { group.ingress.push(made) } else { group.egress.push(made) }
        }
        for (i, (acl, ingress, allow, rule)) in shape.acls.iter().enumerate() {
            let SgPeer::Cidr(peer) = peer(rule, 0) else { continue };
            let number = 100 + i as u16;
            let made = NaclRule { number, allow: *allow, matches: what(rule), peer, text: String::new() };
            let acl = &mut lab.plan.network_acls[first_acl + acl];
            let rules = if *ingress { &mut acl.ingress } else { &mut acl.egress };
            let at = rules.len() - 1;
            rules.insert(at, made);
        }
        let enis: Vec<EniIx> = (0..lab.plan.enis.len())
            .filter(|at| lab.plan.enis[*at].vpc() == Some(vpc))
            .map(|at| EniIx(at as u32))
            .collect();
        for (table, block, target) in &shape.routes {
            let to =
                ["10.0.0.0/16", "10.0.1.0/24", "10.0.2.0/24", "0.0.0.0/0", "192.168.0.0/16", "192.168.7.0/24"][*block];
            let pick = target.index(enis.len() + 1);
            let target = enis.get(pick).map_or(RouteTarget::Blackhole, |eni| RouteTarget::Eni(*eni));
            lab.route(first_table + table, to, target);
        }
    }
    lab
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
    let icmp = [(None, None), (Some(8), None), (Some(0), Some(0)), (Some(3), Some(1))];
    let icmp = if proto == Some(Proto::ICMP) { icmp[rule.ports] } else { (None, None) };
    TrafficMatch { proto, ports: ports[rule.ports], icmp }
}

fn peer(rule: &RuleShape, first_group: usize) -> SgPeer {
    const BLOCKS: [&str; 8] = [
        "0.0.0.0/0",
        "0.0.0.0/0",
        "10.0.0.0/16",
        "10.0.1.0/24",
        "10.0.0.10/32",
        "10.0.2.10/31",
        "192.168.0.0/16",
        "10.0.0.0/25",
    ];
    match BLOCKS.get(rule.peer) {
        Some(block) => SgPeer::Cidr(block.parse::<Cidr>().expect("block")),
        None => SgPeer::Group(first_group + (rule.peer - BLOCKS.len()) % GROUPS),
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Sender, destination, kind of packet, ports, source (0: its own).
    Send(usize, usize, usize, usize, usize),
    /// The answer to an earlier packet, by who received it.
    Answer(Index, bool),
    /// The plan becomes another; ENIs stay.
    Publish(Shape),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0usize..10, 0usize..24, 0usize..7, 0usize..4, 0usize..12).prop_map(|(a, b, c, d, e)| Act::Send(a, b, c, d, e)),
        10 => (any::<Index>(), any::<bool>()).prop_map(|(i, again)| Act::Answer(i, again)),
        1 => shape().prop_map(Act::Publish),
    ]
}

const DESTINATIONS: [&str; 24] = [
    "10.0.0.10",
    "10.0.0.11",
    "10.0.1.10",
    "10.0.1.11",
    "10.0.2.10",
    "10.0.2.11",
    "10.0.0.20",
    "10.0.1.20",
    "10.0.0.10",
    "10.0.1.10",
    "10.0.2.10",
    "10.0.0.20",
    "10.0.1.20",
    "10.0.0.1",
    "10.0.1.255",
    "10.0.0.2",
    "10.0.1.77",
    "10.0.77.1",
    "192.168.7.7",
    "192.168.1.1",
    "8.8.8.8",
    "169.254.169.253",
    "169.254.169.254",
    "224.0.0.1",
];

fn packet(eni_ip: std::net::Ipv4Addr, act: &Act) -> Option<Sent> {
    let Act::Send(_, dst, kind, ports, source) = act else { return None };
    let (proto, icmp, begins) = [
        (Proto::TCP, None, true),
        (Proto::TCP, None, true),
        (Proto::TCP, None, false),
        (Proto::UDP, None, false),
        (Proto::ICMP, Some(8), false),
        (Proto::ICMP, Some(0), false),
        (Proto(47), None, false),
    ][*kind];
    let (src_port, dst_port) = match proto {
        Proto::TCP | Proto::UDP => [(4000, 443), (4000, 80), (443, 4000), (4001, 53)][*ports],
        Proto::ICMP => (7, 7),
        _ => (0, 0),
    };
    let src = match source {
        0 => ip("10.0.2.11"),
        1 => ip("192.168.7.7"),
        _ => eni_ip,
    };
    Some(Sent { proto, src, dst: ip(DESTINATIONS[*dst]), src_port, dst_port, icmp, begins })
}

fn answer_to(p: &Sent) -> Sent {
    let icmp = p.icmp.map(|kind| 8 - kind);
    let (src, dst, src_port, dst_port) = (p.dst, p.src, p.dst_port, p.src_port);
    Sent { proto: p.proto, src, dst, src_port, dst_port, icmp, begins: false }
}

fn frame(p: &Sent) -> Vec<u8> {
    let (src, dst) = (SocketAddrV4::new(p.src, p.src_port), SocketAddrV4::new(p.dst, p.dst_port));
    match (p.proto, p.icmp) {
        (Proto::TCP, _) => make::tcp(&TcpSpec::new(src, dst, if p.begins { tcp_flags::SYN } else { ACK })),
        (Proto::UDP, _) => make::udp(src, dst, b"x"),
        (_, Some(kind)) => {
            let half = if kind == 8 { Echo::Request } else { Echo::Reply };
            make::icmp_echo(p.src, p.dst, half, p.src_port, 1, b"x")
        }
        (proto, None) => make::ipv4(p.src, p.dst, proto, 64, &[0; 8]),
    }
}

proptest! {
    #[test]
    fn engine_and_oracle_agree_on_every_verdict_rule_and_step(
        first in shape(),
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut lab = build(&first);
        let mut engine = engine(&lab);
        let mut tracer = super::engine(&lab);
        let mut oracle = Oracle::default();
        let mut sent: Vec<(EniIx, Sent)> = Vec::new();
        let mut now = T0;
        for (generation, act) in acts.iter().enumerate() {
            now = now + Duration::from_micros(1_000);
            let (from, p) = match act {
                Act::Publish(shape) => {
                    lab = build(shape);
                    let program = Arc::new(compile(&lab.plan, generation as u64 + 2));
                    engine.publish(now, program.clone());
                    tracer.publish(now, program);
                    continue;
                }
                Act::Answer(which, again) => {
                    let Some((from, p)) = sent.get(which.index(sent.len().max(1))) else { continue };
                    if *again { (*from, *p) } else { (*from, answer_to(p)) }
                }
                Act::Send(from, ..) => {
                    let instances: Vec<EniIx> = lab.plan.instances.iter().map(|i| i.enis[0]).collect();
                    let from = instances[*from % instances.len()];
                    (from, packet(lab.plan.eni(from).ip, act).expect("a packet"))
                }
            };
            let (expected, why, steps) = oracle.ask(&lab.plan, from, &p);
            let bytes = frame(&p);
            let endpoint = matches!(lab.plan.eni(from).owner, crate::model::plan::EniOwner::Endpoint(_));
            let (verdict, (traced, crumbs)) = if endpoint {
                (engine.sent_from_endpoint(now, from, &bytes), tracer.traced_from_endpoint(now, from, &bytes))
            } else {
                (engine.sent(now, from, &bytes), tracer.traced(now, from, &bytes))
            };
            prop_assert_eq!(verdict, expected, "{:?} from {:?}", p, from);
            prop_assert_eq!(traced, expected, "traced {:?} from {:?}", p, from);
            prop_assert_eq!(&crumbs, &steps, "{:?} from {:?}", p, from);
            if let Some((code, decider, direction)) = why {
                let named = engine.drops().any(|r| r.last == now && (r.code, r.decider, r.direction) == (code, decider, direction));
                prop_assert!(named, "{code} {decider:?} {direction:?} for {p:?}: {:?}", last_drop(&engine));
            }
            // What arrives may be answered, by whoever got it, endpoints and middle instances included.
            match verdict {
                Verdict::Deliver { to } | Verdict::Endpoint { eni: to } => sent.push((to, p)),
                _ => {}
            }
        }
    }
}
