//! The hand-checked truth: what oracle and engine say for each rule of the walk, one question each.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::builder::Lab;
use crate::base::{EniIx, Instant, Proto};
use crate::engine::event::Way;
use crate::engine::oracle::{Expected, Oracle, Part, Sent, TOKENS};
use crate::engine::verdict::{Decider, Direction, DropCode, Outcome, Reaction, Rule, Stage, Verdict};
use crate::model::plan::{
    AttachmentTo, Fault, Forward, LinkEnd, LinkKind, RouteDest, RouteOrigin, RouteTarget, SiteTarget, TgwTarget,
};
use crate::wire::packet::tcp_flags::{ACK, SYN};

const T0: Instant = Instant::from_millis(10_000);
const S3: &str = "198.18.0.16";

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("address")
}

fn syn(src: &str, dst: &str) -> Sent {
    Sent { flags: SYN, mss: Some(8_961), ..Sent::new(Proto::TCP, ip(src), 4_000, ip(dst), 443) }
}

fn udp(src: &str, dst: &str) -> Sent {
    Sent::new(Proto::UDP, ip(src), 4_000, ip(dst), 53)
}

fn ping(src: &str, dst: &str) -> Sent {
    Sent { icmp: Some((8, 0)), ..Sent::new(Proto::ICMP, ip(src), 7, ip(dst), 7) }
}

/// The answer to what arrived.
fn answer(got: &Sent) -> Sent {
    let (src, src_port, dst, dst_port) = (got.dst, got.dst_port, got.src, got.src_port);
    let icmp = got.icmp.map(|(kind, code)| (8 - kind, code));
    let flags = if got.flags == SYN { SYN | ACK } else { got.flags };
    Sent { src, src_port, dst, dst_port, icmp, flags, ttl: 64, ..*got }
}

#[track_caller]
fn says(lab: &Lab, from: EniIx, p: &Sent) -> Expected {
    let expected = Oracle::default().ask(&lab.plan, T0, from, p, &[]);
    super::random::agree(lab, from, p);
    expected
}

#[track_caller]
fn refuses(lab: &Lab, from: EniIx, p: &Sent, code: DropCode, decider: Decider, direction: Direction) -> Expected {
    let said = says(lab, from, p);
    assert_eq!(said.why, Some((code, decider, direction)), "{:?}", said.crumbs);
    assert_eq!(said.verdict.dropped(), Some(code));
    assert_eq!(said.crumbs.last().map(|c| &c.outcome), Some(&Outcome::Drop(code)));
    said
}

#[track_caller]
fn delivers(said: &Expected, to: EniIx) -> Sent {
    assert!(
        matches!(said.verdict, Verdict::Deliver { to: at } | Verdict::Endpoint { eni: at } if at == to),
        "{:?}: {:?}",
        said.verdict,
        said.crumbs
    );
    said.arrives.expect("it arrives")
}

/// A VPC with a public and a private subnet in zone a and one in b, all open; a second one beside it.
struct Net {
    lab: Lab,
    public: EniIx,
    private: EniIx,
    other: EniIx,
    nat: usize,
    host: EniIx,
    door: EniIx,
}

const PUBLIC: &str = "10.0.0.10";
const PRIVATE: &str = "10.0.1.10";
const HOST: &str = "192.0.2.10";
/// Tables of the first VPC: its main one is 0.
const TO_IGW: usize = 1;
const TO_NAT: usize = 2;
const OTHER_MAIN: usize = 3;

fn net() -> Net {
    let mut lab = Lab::new();
    let one = lab.vpc("one", "10.0.0.0/16");
    let (to_igw, to_nat) = (lab.table(one, "public"), lab.table(one, "private"));
    let a = lab.subnet(one, "public", "10.0.0.0/24", 'a');
    let b = lab.subnet(one, "private", "10.0.1.0/24", 'a');
    lab.plan.subnets[a].route_table = to_igw;
    lab.plan.subnets[b].route_table = to_nat;
    let open = open_group(&mut lab, one);
    let public = lab.instance("public", a, PUBLIC, &[open]);
    let private = lab.instance("private", b, PRIVATE, &[open]);
    lab.igw(one);
    lab.public_address(public, "203.0.113.10");
    let nat = lab.nat("nat", a, "10.0.0.5", Some("203.0.113.20"));
    lab.route(to_igw, "0.0.0.0/0", RouteTarget::Igw(0));
    lab.route(to_nat, "0.0.0.0/0", RouteTarget::Nat(nat));
    let two = lab.vpc("two", "10.1.0.0/16");
    let c = lab.subnet(two, "c", "10.1.0.0/24", 'a');
    let open = open_group(&mut lab, two);
    let other = lab.instance("other", c, "10.1.0.10", &[open]);
    let host = lab.internet_host("host", HOST);
    let door = lab.public_side();
    Net { lab, public, private, other, nat, host, door }
}

fn open_group(lab: &mut Lab, vpc: usize) -> usize {
    let open = lab.group(vpc, "open");
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        lab.allow(open, &format!("all from {half}"));
        lab.allow(open, &format!("all to {half}"));
    }
    open
}

#[test]
fn a_public_address_is_the_source_beyond_the_internet_gateway_and_the_way_back_is_by_it() {
    let net = net();
    let mut oracle = Oracle::default();
    let said = oracle.ask(&net.lab.plan, T0, net.public, &syn(PUBLIC, HOST), &[]);
    let got = delivers(&said, net.host);
    assert_eq!((got.src, got.dst, got.ttl, got.mss), (ip("203.0.113.10"), ip(HOST), 63, Some(8_961)));
    assert_eq!(said.way, Way::Internet);
    let stages: Vec<&Stage> = said.crumbs.iter().map(|c| &c.stage).collect();
    assert_eq!(
        stages,
        [
            &Stage::SourceDestCheck,
            &Stage::SgEgress,
            &Stage::NaclOut { nacl: 0 },
            &Stage::Route { table: TO_IGW },
            &Stage::Igw { igw: 0 },
            &Stage::Internet,
            &Stage::Deliver
        ]
    );
    let back = oracle.ask(&net.lab.plan, T0, net.host, &answer(&got), &[]);
    let got = delivers(&back, net.public);
    assert_eq!((got.src, got.dst), (ip(HOST), ip(PUBLIC)));
    assert!(back.crumbs.iter().any(|c| c.stage == Stage::Tracked && c.eni == Some(net.public)));
}

#[test]
fn an_internet_gateway_sends_for_public_addresses_only_and_to_public_ones_only() {
    let mut net = net();
    net.lab.plan.public_addresses.remove(0);
    let by = Decider::Igw(0);
    refuses(&net.lab, net.public, &syn(PUBLIC, HOST), DropCode::IgwNoPublicIp, by, Direction::Egress);
    for dst in ["192.168.0.1", "100.64.0.1", "172.31.0.1"] {
        refuses(&net.lab, net.public, &syn(PUBLIC, dst), DropCode::IgwPrivateDst, by, Direction::Egress);
    }
}

#[test]
fn nobody_is_at_unknown_public_addresses_and_aws_is_at_its_own() {
    let net = net();
    refuses(&net.lab, net.public, &syn(PUBLIC, "8.8.8.8"), DropCode::NoHost, Decider::Internet, Direction::Egress);
    refuses(&net.lab, net.public, &syn(PUBLIC, "198.18.0.3"), DropCode::NoHost, Decider::Internet, Direction::Egress);
    let said = says(&net.lab, net.public, &syn(PUBLIC, S3));
    delivers(&said, net.door);
    assert_eq!(said.way, Way::Internet);
    let port = Sent { dst_port: 22, ..syn(PUBLIC, S3) };
    refuses(&net.lab, net.public, &port, DropCode::PublicPort, Decider::Internet, Direction::Ingress);
    refuses(&net.lab, net.public, &udp(PUBLIC, S3), DropCode::PublicPort, Decider::Internet, Direction::Ingress);
    let stray = Sent { flags: ACK, mss: None, ..syn(PUBLIC, S3) };
    let by = Decider::EndpointEni(net.door);
    refuses(&net.lab, net.public, &stray, DropCode::VpceNoState, by, Direction::Ingress);
    delivers(&says(&net.lab, net.public, &ping(PUBLIC, S3)), net.door);
}

#[test]
fn the_mtu_of_the_internet_gateway_is_told_by_the_router_or_cuts() {
    let net = net();
    let large = Sent { size: 1_501, ..udp(PUBLIC, HOST) };
    let said = refuses(&net.lab, net.public, &large, DropCode::MtuFragNeeded, Decider::Igw(0), Direction::Egress);
    let reaction = Reaction::FragNeeded { from: ip("10.0.0.1"), mtu: 1_500, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    let said = says(&net.lab, net.public, &Sent { df: false, ..large });
    delivers(&said, net.host);
    assert_eq!(said.fragment, 1_500);
    assert_eq!(says(&net.lab, net.public, &Sent { size: 1_500, ..large }).fragment, 0);
}

#[test]
fn a_nat_gateway_gives_a_port_and_brings_answers_back() {
    let net = net();
    let plan = &net.lab.plan;
    let mut oracle = Oracle::default();
    let said = oracle.ask(plan, T0, net.private, &syn(PRIVATE, HOST), &[]);
    let got = delivers(&said, net.host);
    // The gateway is a hop and clamps; then the border router is one.
    assert_eq!((got.src, got.ttl, got.mss), (ip("203.0.113.20"), 62, Some(8_460)));
    assert!(got.src_port >= TOKENS);
    assert_eq!(said.way, Way::Nat);
    oracle.learn(got.src_port, 2_000);
    let got = Sent { src_port: 2_000, ..got };
    let back = oracle.ask(plan, T0, net.host, &answer(&got), &[]);
    let arrived = delivers(&back, net.private);
    assert_eq!((arrived.dst, arrived.dst_port, arrived.src), (ip(PRIVATE), 4_000, ip(HOST)));
    let stages: Vec<&Stage> = back.crumbs.iter().map(|c| &c.stage).collect();
    assert_eq!(
        stages[2..],
        [
            &Stage::Igw { igw: 0 },
            &Stage::NaclIn { nacl: 0 },
            &Stage::Nat { nat: net.nat },
            &Stage::NaclOut { nacl: 0 },
            &Stage::Route { table: TO_IGW },
            &Stage::NaclIn { nacl: 0 },
            &Stage::Tracked,
            &Stage::Deliver
        ]
    );
    // The same connection keeps its port; another host at the same port gets nothing in.
    let ack = Sent { flags: ACK, mss: None, ..syn(PRIVATE, HOST) };
    assert_eq!(delivers(&oracle.ask(plan, T0, net.private, &ack, &[]), net.host).src_port, 2_000);
    let stray = Sent { src_port: 444, ..answer(&got) };
    let said = oracle.ask(plan, T0, net.host, &stray, &[]);
    assert_eq!(said.why, Some((DropCode::NatNoState, Decider::Nat(net.nat), Direction::Ingress)));
}

#[test]
fn what_a_nat_gateway_does_not_carry() {
    let net = net();
    let by = Decider::Nat(net.nat);
    let egress = Direction::Egress;
    let refused = |p: Sent, code| refuses(&net.lab, net.private, &p, code, by, egress);
    refused(Sent::new(Proto(47), ip(PRIVATE), 0, ip(HOST), 0), DropCode::NatProto);
    let part = Some(Part { id: 1, first: true });
    refused(Sent { fragment: part, df: false, ..syn(PRIVATE, HOST) }, DropCode::NatFragment);
    delivers(&says(&net.lab, net.private, &Sent { fragment: part, df: false, ..udp(PRIVATE, HOST) }), net.host);
    refused(Sent { flags: ACK, mss: None, ..syn(PRIVATE, HOST) }, DropCode::NatNoState);
    refused(Sent { icmp: Some((0, 0)), ..ping(PRIVATE, HOST) }, DropCode::NatNoState);
    let said = refused(Sent { ttl: 1, ..syn(PRIVATE, HOST) }, DropCode::TtlExpired);
    let reaction = Reaction::TimeExceeded { from: ip("10.0.0.5") };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::TtlExpired, reaction });
    let said = refused(Sent { size: 8_501, ..udp(PRIVATE, HOST) }, DropCode::MtuFragNeeded);
    let reaction = Reaction::FragNeeded { from: ip("10.0.0.5"), mtu: 8_500, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    // It answers no ping itself.
    let inside = ping(PUBLIC, "10.0.0.5");
    refuses(&net.lab, net.public, &inside, DropCode::NatNoState, by, Direction::Ingress);
}

#[test]
fn a_nat_gateway_forgets_after_350_seconds_and_resets_the_next_sender() {
    let net = net();
    let plan = &net.lab.plan;
    let mut oracle = Oracle::default();
    let ack = Sent { flags: ACK, mss: None, ..syn(PRIVATE, HOST) };
    let got = delivers(&oracle.ask(plan, T0, net.private, &syn(PRIVATE, HOST), &[]), net.host);
    oracle.learn(got.src_port, 2_000);
    let got = Sent { src_port: 2_000, ..got };
    delivers(&oracle.ask(plan, T0, net.host, &answer(&got), &[]), net.private);
    delivers(&oracle.ask(plan, T0, net.private, &ack, &[]), net.host);
    let later = T0 + Duration::from_secs(349);
    delivers(&oracle.ask(plan, later, net.private, &ack, &[]), net.host);
    let late = later + Duration::from_secs(350);
    let said = oracle.ask(plan, late, net.host, &Sent { flags: ACK, ..answer(&got) }, &[]);
    assert_eq!(said.verdict, Verdict::Drop { code: DropCode::NatIdle });
    let said = oracle.ask(plan, late, net.private, &ack, &[]);
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::NatIdle, reaction: Reaction::Reset });
}

#[test]
fn a_nat_gateway_without_a_way_out() {
    let mut net = net();
    // In its clients' own subnet: it would send to itself.
    net.lab.plan.subnets[0].route_table = TO_NAT;
    let by = Decider::RouteTable(TO_NAT, Some(1));
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::NatNoIgw, by, Direction::Egress);
    net.lab.plan.subnets[0].route_table = 0;
    let by = Decider::RouteTable(0, None);
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::NatNoIgw, by, Direction::Egress);
    // A private one sends nothing by an Internet gateway.
    net.lab.plan.subnets[0].route_table = TO_IGW;
    net.lab.plan.nat_gateways[0].public = false;
    net.lab.plan.public_addresses.pop();
    let by = Decider::Nat(net.nat);
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::NatNoIgw, by, Direction::Egress);
}

#[test]
fn from_outside_to_a_public_address_by_the_gateways_own_table() {
    let mut net = net();
    let p = syn(HOST, "203.0.113.10");
    let said = says(&net.lab, net.host, &p);
    assert_eq!(delivers(&said, net.public).dst, ip(PUBLIC));
    assert_eq!(said.way, Way::Internet);
    let edge = net.lab.table(0, "edge");
    net.lab.route(edge, "10.0.0.0/24", RouteTarget::Eni(net.private));
    net.lab.plan.internet_gateways[0].edge_table = Some(edge);
    let by = Decider::Eni(net.private);
    refuses(&net.lab, net.host, &p, DropCode::SrcDstCheck, by, Direction::Ingress);
    net.lab.plan.enis[net.private.at()].source_dest_check = false;
    delivers(&says(&net.lab, net.host, &p), net.private);
}

#[test]
fn from_one_public_address_to_another_out_and_in_again() {
    let mut net = net();
    net.lab.public_address(net.private, "203.0.113.11");
    let said = says(&net.lab, net.public, &syn(PUBLIC, "203.0.113.11"));
    let got = delivers(&said, net.private);
    assert_eq!((got.src, got.dst), (ip("203.0.113.10"), ip(PRIVATE)), "group references see no member");
}

#[test]
fn a_gateway_endpoint_wins_by_its_prefixes_and_carries_tcp_and_ping() {
    let mut net = net();
    let list = net.lab.prefix_list("s3", &["198.18.0.16/32"]);
    let endpoint = net.lab.gateway_endpoint(0, "s3", list, &[TO_NAT], &[443]);
    let door = net.lab.plan.endpoints[endpoint].kind.clone();
    let crate::model::plan::EndpointKind::Gateway { door, .. } = door else { panic!("a gateway endpoint") };
    let mut oracle = Oracle::default();
    let said = oracle.ask(&net.lab.plan, T0, net.private, &syn(PRIVATE, S3), &[]);
    let got = delivers(&said, door);
    assert_eq!((got.src, said.way), (ip(PRIVATE), Way::GatewayEndpoint));
    let back = oracle.ask(&net.lab.plan, T0, door, &answer(&got), &[]);
    delivers(&back, net.private);
    assert_eq!(back.crumbs[0].stage, Stage::GatewayEndpoint { endpoint });
    let stray = oracle.ask(&net.lab.plan, T0, door, &Sent { dst_port: 9, ..answer(&got) }, &[]);
    assert_eq!(stray.why, Some((DropCode::CtNoState, Decider::EndpointEni(door), Direction::Egress)));

    let (by, egress) = (Decider::GatewayEndpoint(endpoint), Direction::Egress);
    delivers(&says(&net.lab, net.private, &ping(PRIVATE, S3)), door);
    refuses(&net.lab, net.private, &udp(PRIVATE, S3), DropCode::GweProto, by, egress);
    let port = Sent { dst_port: 22, ..syn(PRIVATE, S3) };
    refuses(&net.lab, net.private, &port, DropCode::VpcePort, by, Direction::Ingress);
    delivers(&says(&net.lab, net.private, &Sent { dst_port: 80, ..syn(PRIVATE, S3) }), door);
    // Another table has no route to it: by the Internet gateway.
    delivers(&says(&net.lab, net.public, &syn(PUBLIC, S3)), net.door);
    // A written block of the same length wins.
    net.lab.route(TO_NAT, "198.18.0.16/32", RouteTarget::Blackhole);
    let by = Decider::RouteTable(TO_NAT, Some(3));
    refuses(&net.lab, net.private, &syn(PRIVATE, S3), DropCode::RtBlackhole, by, egress);
}

#[test]
fn of_equal_blocks_a_written_one_wins_and_a_propagated_one_never_over_local() {
    let mut net = net();
    let vgw = net.lab.vgw(0);
    let to = |text: &str| RouteDest::Cidr(text.parse().expect("block"));
    let target = RouteTarget::Vgw(vgw);
    net.lab.route_to(TO_NAT, to("10.0.0.0/24"), target, RouteOrigin::Propagated);
    net.lab.route_to(TO_NAT, to("0.0.0.0/0"), target, RouteOrigin::Propagated);
    delivers(&says(&net.lab, net.private, &syn(PRIVATE, PUBLIC)), net.public);
    delivers(&says(&net.lab, net.private, &syn(PRIVATE, HOST)), net.host);
    net.lab.route_to(TO_NAT, to("192.0.2.0/24"), target, RouteOrigin::Propagated);
    let by = Decider::Vgw(vgw);
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::VgwNoRoute, by, Direction::Egress);
    let list = net.lab.prefix_list("hosts", &["192.0.2.0/24"]);
    net.lab.route_to(TO_NAT, RouteDest::PrefixList(list), RouteTarget::Nat(net.nat), RouteOrigin::Created);
    delivers(&says(&net.lab, net.private, &syn(PRIVATE, HOST)), net.host);
    net.lab.route(TO_NAT, "192.0.2.0/24", RouteTarget::Blackhole);
    let by = Decider::RouteTable(TO_NAT, Some(6));
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::RtBlackhole, by, Direction::Egress);
}

#[test]
fn a_peering_leads_to_the_peers_addresses_and_no_further() {
    let mut net = net();
    let peering = net.lab.peering(0, 1);
    net.lab.route(TO_NAT, "10.1.0.0/16", RouteTarget::Peering(peering));
    net.lab.route(OTHER_MAIN, "0.0.0.0/0", RouteTarget::Peering(peering));
    let got = delivers(&says(&net.lab, net.private, &syn(PRIVATE, "10.1.0.10")), net.other);
    assert_eq!((got.src, got.ttl), (ip(PRIVATE), 64), "real addresses, and no hop");
    let (by, egress) = (Decider::Peering(peering), Direction::Egress);
    refuses(&net.lab, net.private, &syn(PRIVATE, "10.1.0.99"), DropCode::NoEni, by, egress);
    refuses(&net.lab, net.other, &syn("10.1.0.10", HOST), DropCode::PeerTransit, by, egress);
    let large = Sent { size: 8_501, ..udp(PRIVATE, "10.1.0.10") };
    delivers(&says(&net.lab, net.private, &large), net.other);
    net.lab.plan.peerings[peering].same_region = false;
    let said = refuses(&net.lab, net.private, &large, DropCode::MtuFragNeeded, by, egress);
    let reaction = Reaction::FragNeeded { from: ip("10.0.1.1"), mtu: 8_500, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    // The other side's gateway endpoint is named as what was meant.
    let list = net.lab.prefix_list("s3", &["198.18.0.16/32"]);
    let endpoint = net.lab.gateway_endpoint(0, "s3", list, &[TO_NAT], &[443]);
    let by = Decider::GatewayEndpoint(endpoint);
    refuses(&net.lab, net.other, &syn("10.1.0.10", S3), DropCode::GweNotInVpc, by, egress);
}

/// Both VPCs at a transit gateway: attachments 0 and 1, table 0.
fn hub() -> (Net, usize) {
    let mut net = net();
    let tgw = net.lab.tgw("hub");
    let b = net.lab.subnet(1, "d", "10.1.1.0/24", 'b');
    net.lab.attach(tgw, 0, &[(1, "10.0.1.7")]);
    net.lab.attach(tgw, 1, &[(2, "10.1.0.7"), (b, "10.1.1.7")]);
    net.lab.tgw_route(0, "10.0.0.0/16", TgwTarget::Attachment(0));
    net.lab.tgw_route(0, "10.1.0.0/16", TgwTarget::Attachment(1));
    net.lab.route(TO_NAT, "10.1.0.0/16", RouteTarget::Tgw(tgw));
    net.lab.route(OTHER_MAIN, "0.0.0.0/0", RouteTarget::Tgw(tgw));
    (net, tgw)
}

#[test]
fn a_transit_gateway_joins_by_its_own_tables() {
    let (mut net, tgw) = hub();
    let p = syn(PRIVATE, "10.1.0.10");
    let said = says(&net.lab, net.private, &p);
    assert_eq!(delivers(&said, net.other).mss, Some(8_460));
    let stages: Vec<(&Stage, Option<EniIx>)> = said.crumbs.iter().map(|c| (&c.stage, c.eni)).collect();
    let AttachmentTo::Vpc(far) = net.lab.plan.tgw_attachments[1].to.clone() else { panic!("a VPC") };
    assert_eq!(stages[4].0, &Stage::NaclIn { nacl: 0 });
    assert_eq!(stages[6], (&Stage::TgwRoute { table: 0 }, None));
    assert_eq!(stages[7], (&Stage::TgwAttachment { attachment: 1 }, Some(far.subnets[0].1)), "the same zone");
    assert_eq!(said.crumbs[8].outcome, Outcome::NotAsked, "the receiver is in the attachment's subnet");

    let egress = Direction::Egress;
    let from_other = |dst: &str| syn("10.1.0.10", dst);
    let none = Decider::TgwRouteTable(0, None);
    refuses(&net.lab, net.other, &from_other("10.9.0.1"), DropCode::TgwNoRoute, none, egress);
    net.lab.tgw_route(0, "10.9.0.0/16", TgwTarget::Blackhole);
    let hole = Decider::TgwRouteTable(0, Some(2));
    refuses(&net.lab, net.other, &from_other("10.9.0.1"), DropCode::TgwBlackhole, hole, egress);
    let large = Sent { size: 8_501, ..udp(PRIVATE, "10.1.0.10") };
    let at = Decider::TgwAttachment(0);
    let said = refuses(&net.lab, net.private, &large, DropCode::MtuFragNeeded, at, egress);
    let reaction = Reaction::FragNeeded { from: ip("10.0.1.7"), mtu: 8_500, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    net.lab.plan.transit_gateways[tgw].pmtud = false;
    refuses(&net.lab, net.private, &large, DropCode::MtuDropSilent, at, egress);
    net.lab.plan.tgw_attachments[0].route_table = None;
    refuses(&net.lab, net.private, &p, DropCode::TgwNoAssociation, at, egress);
    net.lab.plan.subnets[1].az_id = "euw1-az3".into();
    net.lab.plan.subnets[0].route_table = TO_NAT;
    refuses(&net.lab, net.public, &syn(PUBLIC, "10.1.0.10"), DropCode::TgwNoAz, Decider::Tgw(tgw), egress);
}

#[test]
fn what_came_by_a_transit_gateway_leaves_by_nat_and_not_by_peering_or_gateway_endpoint() {
    let (mut net, _) = hub();
    net.lab.tgw_route(0, "0.0.0.0/0", TgwTarget::Attachment(0));
    let from = "10.1.0.10";
    let said = says(&net.lab, net.other, &syn(from, HOST));
    assert_eq!(delivers(&said, net.host).src, ip("203.0.113.20"));
    assert_eq!(said.way, Way::Nat);
    net.lab.plan.subnets[1].route_table = TO_IGW;
    let egress = Direction::Egress;
    refuses(&net.lab, net.other, &syn(from, HOST), DropCode::IgwNoPublicIp, Decider::Igw(0), egress);
    let peering = net.lab.peering(0, 1);
    net.lab.route(TO_IGW, "192.0.2.0/24", RouteTarget::Peering(peering));
    refuses(&net.lab, net.other, &syn(from, HOST), DropCode::PeerTransit, Decider::Peering(peering), egress);
    let list = net.lab.prefix_list("s3", &["198.18.0.16/32"]);
    let endpoint = net.lab.gateway_endpoint(0, "s3", list, &[TO_IGW], &[443]);
    let by = Decider::GatewayEndpoint(endpoint);
    refuses(&net.lab, net.other, &syn(from, S3), DropCode::GweNotInVpc, by, egress);
}

#[test]
fn appliance_mode_takes_one_zone_for_both_directions() {
    let (mut net, _) = hub();
    if let AttachmentTo::Vpc(to) = &mut net.lab.plan.tgw_attachments[1].to {
        to.appliance_mode = true;
    }
    let AttachmentTo::Vpc(far) = net.lab.plan.tgw_attachments[1].to.clone() else { panic!("a VPC") };
    let entered = |said: &Expected| {
        let at = Stage::TgwAttachment { attachment: 1 };
        said.crumbs.iter().find(|c| c.stage == at).and_then(|c| c.eni)
    };
    let mut seen = [0; 2];
    for port in 0..64 {
        let there = Sent { src_port: 4_000 + port, ..syn(PRIVATE, "10.1.0.10") };
        let eni = entered(&says(&net.lab, net.private, &there)).expect("entered");
        seen[usize::from(eni == far.subnets[1].1)] += 1;
    }
    assert!(seen.iter().all(|n| *n > 16), "{seen:?}");
}

/// A site with a host behind a VPN or Direct Connect, at the first VPC's virtual private gateway.
fn hybrid(kind: Option<LinkKind>) -> (Net, EniIx) {
    let mut net = net();
    let vgw = net.lab.vgw(0);
    let site = net.lab.site("dc", "172.16.0.0/16");
    let dc = net.lab.site_host("dc1", site, "172.16.0.10");
    let link = match kind {
        Some(kind) => net.lab.link(site, LinkEnd::Vgw(vgw), kind),
        None => net.lab.vpn(site, LinkEnd::Vgw(vgw)),
    };
    net.lab.site_route(site, "10.0.0.0/8", SiteTarget::Link(link));
    net.lab.site_route(site, "10.3.0.0/16", SiteTarget::Blackhole);
    net.lab.route(TO_NAT, "172.16.0.0/16", RouteTarget::Vgw(vgw));
    (net, dc)
}

const DC: &str = "172.16.0.10";

#[test]
fn a_vpn_carries_between_the_site_and_the_vpcs_addresses() {
    let (mut net, dc) = hybrid(None);
    let said = says(&net.lab, dc, &syn(DC, PRIVATE));
    assert_eq!(delivers(&said, net.private).mss, Some(1_406));
    let stages: Vec<&Stage> = said.crumbs.iter().map(|c| &c.stage).collect();
    assert_eq!(
        stages,
        [
            &Stage::SourceDestCheck,
            &Stage::SiteRoute { site: 0 },
            &Stage::Link { link: 0 },
            &Stage::Vgw { vgw: 0 },
            &Stage::NaclIn { nacl: 0 },
            &Stage::SgIngress,
            &Stage::Deliver
        ]
    );
    assert_eq!(said.way, Way::Private);
    delivers(&says(&net.lab, net.private, &syn(PRIVATE, DC)), dc);
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let nobody = Decider::Site(0, None);
    refuses(&net.lab, net.private, &syn(PRIVATE, "172.16.0.99"), DropCode::NoHost, nobody, egress);
    refuses(&net.lab, dc, &syn(DC, HOST), DropCode::SiteNoRoute, nobody, egress);
    refuses(&net.lab, dc, &syn(DC, "10.3.0.1"), DropCode::SiteNoRoute, Decider::Site(0, Some(1)), egress);
    refuses(&net.lab, dc, &syn(DC, "10.1.0.10"), DropCode::VgwTransit, Decider::Vgw(0), ingress);
    refuses(&net.lab, dc, &udp(DC, "10.0.0.2"), DropCode::DnsNotLocal, Decider::Vgw(0), egress);
    // Nothing public, nothing by gateway endpoint.
    net.lab.site_route(0, "198.18.0.0/15", SiteTarget::Link(0));
    refuses(&net.lab, dc, &syn(DC, S3), DropCode::VgwTransit, Decider::Vgw(0), ingress);
    let list = net.lab.prefix_list("s3", &["198.18.0.16/32"]);
    let endpoint = net.lab.gateway_endpoint(0, "s3", list, &[TO_NAT], &[443]);
    refuses(&net.lab, dc, &syn(DC, S3), DropCode::GweNotInVpc, Decider::GatewayEndpoint(endpoint), ingress);
}

#[test]
fn a_tunnel_that_is_down_gives_way_to_the_other() {
    let (mut net, dc) = hybrid(None);
    let tunnel = |lab: &Lab| {
        let said = says(lab, dc, &syn(DC, PRIVATE));
        said.crumbs.iter().find(|c| c.stage == Stage::Link { link: 0 }).map(|c| c.outcome.clone())
    };
    assert_eq!(tunnel(&net.lab), Some(Outcome::Pass(Rule::Tunnel(0))));
    net.lab.fault(Fault::Tunnel { link: 0, tunnel: 0 });
    assert_eq!(tunnel(&net.lab), Some(Outcome::Pass(Rule::Tunnel(1))));
    net.lab.fault(Fault::Tunnel { link: 0, tunnel: 1 });
    refuses(&net.lab, dc, &syn(DC, PRIVATE), DropCode::VpnDown, Decider::Link(0), Direction::Egress);
}

#[test]
fn the_mtu_of_a_link_is_told_by_the_router_on_the_senders_side() {
    let (net, dc) = hybrid(None);
    let (by, egress) = (Decider::Link(0), Direction::Egress);
    let told = |from, p: &Sent, router: &str, mtu| {
        let said = refuses(&net.lab, from, p, DropCode::MtuFragNeeded, by, egress);
        let reaction = Reaction::FragNeeded { from: ip(router), mtu, hops: 0 };
        assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    };
    told(net.private, &Sent { size: 1_447, ..udp(PRIVATE, DC) }, "10.0.1.1", 1_446);
    told(dc, &Sent { size: 1_447, ..udp(DC, PRIVATE) }, "172.16.0.1", 1_446);
    let (net, dc) = hybrid(Some(LinkKind::DirectConnect { mtu: 9_001 }));
    let got = delivers(&says(&net.lab, dc, &Sent { size: 9_001, ..udp(DC, PRIVATE) }), net.private);
    assert_eq!(got.size, 9_001);
}

/// Two sites at a transit gateway beside both VPCs: `dc` by a VPN, `far` by Direct Connect. Attachments 2 and 3.
fn hub_with_sites() -> (Net, [EniIx; 2]) {
    let (mut net, tgw) = hub();
    let kinds = [None, Some(LinkKind::DirectConnect { mtu: 8_500 })];
    let hosts = [("dc", "172.16.0.0/16", DC), ("far", "172.17.0.0/16", FAR)];
    let sites = hosts.into_iter().zip(kinds).map(|((name, block, host), kind)| {
        let site = net.lab.site(name, block);
        let eni = net.lab.site_host(&format!("{name}1"), site, host);
        let link = match kind {
            Some(kind) => net.lab.link(site, LinkEnd::Tgw(tgw), kind),
            None => net.lab.vpn(site, LinkEnd::Tgw(tgw)),
        };
        net.lab.site_route(site, "0.0.0.0/0", SiteTarget::Link(link));
        net.lab.tgw_route(0, block, TgwTarget::Attachment(2 + link));
        eni
    });
    let sites: Vec<EniIx> = sites.collect();
    net.lab.route(TO_NAT, "172.16.0.0/12", RouteTarget::Tgw(tgw));
    (net, [sites[0], sites[1]])
}

const FAR: &str = "172.17.0.10";

#[test]
fn a_transit_gateway_clamps_segments_of_every_attachment() {
    let (mut net, [dc, far]) = hub_with_sites();
    let mss = |net: &Net, from, src: &str, dst: &str, to| delivers(&says(&net.lab, from, &syn(src, dst)), to).mss;
    assert_eq!(mss(&net, far, FAR, PRIVATE, net.private), Some(8_460));
    assert_eq!(mss(&net, net.private, PRIVATE, FAR, far), Some(8_460));
    // A tunnel clamps more.
    assert_eq!(mss(&net, dc, DC, PRIVATE, net.private), Some(1_406));
    assert_eq!(mss(&net, net.private, PRIVATE, DC, dc), Some(1_406));
    assert_eq!(mss(&net, far, FAR, DC, dc), Some(1_406));
    if let LinkKind::Vpn { tunnels, .. } = &mut net.lab.plan.links[0].kind {
        tunnels[0].mss = None;
    }
    assert_eq!(mss(&net, dc, DC, PRIVATE, net.private), Some(8_460), "and one that does not, leaves the gateway's");
    assert_eq!(mss(&net, net.private, PRIVATE, DC, dc), Some(8_460));
}

/// Transit Gateway guide, "MTU": path MTU discovery for what comes by a VPC's attachment; by VPN and Direct Connect none.
#[test]
fn a_transit_gateway_tells_senders_in_vpcs_of_a_vpns_mtu_and_others_nothing() {
    let (mut net, [dc, far]) = hub_with_sites();
    let (by, egress) = (Decider::Link(0), Direction::Egress);
    let large = |src: &str, dst: &str| Sent { size: 1_447, ..udp(src, dst) };
    let said = refuses(&net.lab, net.private, &large(PRIVATE, DC), DropCode::MtuFragNeeded, by, egress);
    let reaction = Reaction::FragNeeded { from: ip("10.0.1.7"), mtu: 1_446, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    // On the site's side it is the site's own gateway.
    let said = refuses(&net.lab, dc, &large(DC, PRIVATE), DropCode::MtuFragNeeded, by, egress);
    let reaction = Reaction::FragNeeded { from: ip("172.16.0.1"), mtu: 1_446, hops: 0 };
    assert_eq!(said.verdict, Verdict::Reject { code: DropCode::MtuFragNeeded, reaction });
    refuses(&net.lab, far, &large(FAR, DC), DropCode::MtuDropSilent, by, egress);
    let cut = Sent { df: false, ..large(FAR, DC) };
    assert_eq!(says(&net.lab, far, &cut).fragment, 1_446);
    delivers(&says(&net.lab, far, &cut), dc);
    net.lab.plan.transit_gateways[0].pmtud = false;
    refuses(&net.lab, net.private, &large(PRIVATE, DC), DropCode::MtuDropSilent, by, egress);
}

/// Reachability Analyzer, `VGW_PRIVATE_IP_ASSOCIATION_FOR_EGRESS` and `..._FOR_INGRESS`.
#[test]
fn a_virtual_private_gateway_carries_only_what_is_from_or_for_an_eni_of_its_vpc() {
    let (mut net, dc) = hybrid(None);
    net.lab.plan.enis[net.private.at()].source_dest_check = false;
    let (by, egress, ingress) = (Decider::Vgw(0), Direction::Egress, Direction::Ingress);
    for stranger in ["10.1.0.10", "172.16.0.11", HOST, "10.0.1.77"] {
        refuses(&net.lab, net.private, &syn(stranger, DC), DropCode::VgwTransit, by, egress);
    }
    delivers(&says(&net.lab, net.private, &syn(PUBLIC, DC)), dc);
    // A private NAT gateway's address is one.
    let nat = net.lab.nat("private-nat", 0, "10.0.0.6", None);
    net.lab.route(TO_IGW, "172.16.0.0/16", RouteTarget::Vgw(0));
    let there = net.lab.plan.route_tables[TO_NAT].routes.iter_mut().find(|r| r.target == RouteTarget::Vgw(0));
    there.expect("the route").target = RouteTarget::Nat(nat);
    let mut oracle = Oracle::default();
    let got = delivers(&oracle.ask(&net.lab.plan, T0, net.private, &syn(PRIVATE, DC), &[]), dc);
    assert_eq!(got.src, ip("10.0.0.6"));
    delivers(&oracle.ask(&net.lab.plan, T0, dc, &answer(&got), &[]), net.private);
    refuses(&net.lab, dc, &syn(DC, "10.1.0.10"), DropCode::VgwTransit, by, ingress);
    refuses(&net.lab, dc, &syn(DC, "10.0.1.77"), DropCode::NoEni, by, egress);
}

#[test]
fn faults_take_senders_receivers_and_gateways_away() {
    let mut net = net();
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    net.lab.fault(Fault::Instance(0));
    let p = syn(PRIVATE, PUBLIC);
    refuses(&net.lab, net.private, &p, DropCode::InstanceDown, Decider::Eni(net.public), ingress);
    let down = Decider::Eni(net.public);
    let said = refuses(&net.lab, net.public, &syn(PUBLIC, PRIVATE), DropCode::InstanceDown, down, egress);
    assert_eq!(said.crumbs.len(), 1);
    net.lab.plan.faults.clear();
    // The NAT gateway's zone, which its client is not in.
    net.lab.plan.subnets[1].az_id = "euw1-az2".into();
    net.lab.fault(Fault::Zone { az_id: "euw1-az1".into() });
    let by = Decider::Nat(net.nat);
    refuses(&net.lab, net.private, &syn(PRIVATE, HOST), DropCode::AzDown, by, egress);
    refuses(&net.lab, net.private, &p, DropCode::AzDown, Decider::Eni(net.public), ingress);
    let down = Decider::Eni(net.public);
    refuses(&net.lab, net.public, &syn(PUBLIC, HOST), DropCode::AzDown, down, egress);
}

#[test]
fn a_stateful_firewall_passes_what_it_saw_begin() {
    let mut net = net();
    net.lab.plan.enis[net.public.at()].source_dest_check = false;
    net.lab.plan.instances[0].forward = Some(Forward::Stateful);
    net.lab.route(TO_NAT, "192.168.0.0/16", RouteTarget::Eni(net.public));
    let p = syn(PRIVATE, "192.168.0.1");
    let ack = Sent { flags: ACK, mss: None, ..p };
    let at = Decider::Eni(net.public);
    refuses(&net.lab, net.private, &ack, DropCode::FwNoState, at, Direction::Ingress);
    let mut oracle = Oracle::default();
    delivers(&oracle.ask(&net.lab.plan, T0, net.private, &p, &[]), net.public);
    delivers(&oracle.ask(&net.lab.plan, T0, net.private, &ack, &[]), net.public);
}

#[test]
fn a_later_fragment_goes_the_way_of_the_first() {
    let net = net();
    let plan = &net.lab.plan;
    let part = |first| Sent { fragment: Some(Part { id: 9, first }), df: false, ..udp(PRIVATE, PUBLIC) };
    let later = Sent { src_port: 0, dst_port: 0, ..part(false) };
    let mut oracle = Oracle::default();
    let said = oracle.ask(plan, T0, net.private, &later, &[]);
    assert_eq!(said.why, Some((DropCode::CtNoState, Decider::FlowTable, Direction::Egress)));
    delivers(&oracle.ask(plan, T0, net.private, &part(true), &[]), net.public);
    delivers(&oracle.ask(plan, T0, net.private, &later, &[]), net.public);
}
