//! One test for each question a packet is asked, and for each code.

use super::builder::demo;
use super::*;
use crate::engine::verdict::Direction;
use crate::model::plan::{Forward, RouteTarget};
use crate::wire::make::Echo;
use crate::wire::vnet;

const WEB: EniIx = EniIx(0);
const GUEST: EniIx = EniIx(1);
const S3_A: EniIx = EniIx(2);
const S3_B: EniIx = EniIx(3);

/// Two instances in two subnets, a third beside the first; every rule open.
fn open_lab() -> (Lab, [EniIx; 3]) {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let b = lab.subnet(vpc, "b", "10.0.2.0/24", 'b');
    let open = lab.group(vpc, "open");
    lab.allow(open, "all from 10.0.0.0/8");
    lab.allow(open, "all to 10.0.0.0/8");
    let x = lab.instance("x", a, "10.0.1.10", &[open]);
    let y = lab.instance("y", b, "10.0.2.10", &[open]);
    let z = lab.instance("z", a, "10.0.1.11", &[open]);
    (lab, [x, y, z])
}

#[test]
fn the_demo_lets_web_in_and_keeps_guest_out() {
    let mut engine = engine(&demo());
    let request = syn("10.0.1.10:40000", "10.0.2.4:443");
    assert_eq!(engine.sent(T0, WEB, &request), Verdict::Endpoint { eni: S3_B });
    let answer = tcp("10.0.2.4:443", "10.0.1.10:40000", SYN_ACK);
    assert_eq!(engine.sent_from_endpoint(T0, S3_B, &answer), to(WEB));
    let ack = tcp("10.0.1.10:40000", "10.0.2.4:443", ACK);
    assert_eq!(engine.sent(T0, WEB, &ack), Verdict::Endpoint { eni: S3_B });

    let refused = syn("10.0.2.10:40000", "10.0.2.4:443");
    drops(&mut engine, GUEST, &refused, DropCode::SgIngress, Decider::SecurityGroups(S3_B));
    assert_eq!(last_drop(&engine).direction, Direction::Ingress);
    assert_eq!(engine.counters().dropped(DropCode::SgIngress), 1);
    assert_eq!(engine.counters().enis[1].dropped.get(), 1);
    assert_eq!(engine.counters().enis[0].packets_out.get(), 2);
    assert_eq!(engine.counters().enis[3].packets_in.get(), 2);
    assert_eq!(engine.counters().enis[0].packets_in.get(), 1);
}

#[test]
fn the_senders_groups_are_asked_first() {
    let mut engine = engine(&demo());
    let frame = syn("10.0.1.10:40000", "10.0.2.10:443");
    drops(&mut engine, WEB, &frame, DropCode::SgEgress, Decider::SecurityGroups(WEB));
    let frame = syn("10.0.1.10:40000", "10.0.2.4:80");
    drops(&mut engine, WEB, &frame, DropCode::SgEgress, Decider::SecurityGroups(WEB));
}

#[test]
fn an_endpoint_says_protocol_and_port_before_its_groups_are_asked() {
    let mut engine = engine(&demo());
    let at = Decider::EndpointEni(S3_B);
    let ping = make::icmp_echo(ip("10.0.2.10"), ip("10.0.2.4"), Echo::Request, 1, 1, &[0; 56]);
    drops(&mut engine, GUEST, &ping, DropCode::VpceProto, at);
    drops(&mut engine, GUEST, &udp("10.0.2.10:5000", "10.0.2.4:443"), DropCode::VpceProto, at);
    drops(&mut engine, GUEST, &syn("10.0.2.10:5000", "10.0.2.4:8443"), DropCode::VpcePort, at);
    drops(&mut engine, GUEST, &tcp("10.0.2.10:5000", "10.0.2.4:443", ACK), DropCode::VpceNoState, at);
}

#[test]
fn an_endpoint_begins_nothing() {
    let mut engine = engine(&demo());
    let frame = syn("10.0.1.4:443", "10.0.1.10:443");
    assert_eq!(engine.sent_from_endpoint(T0, S3_A, &frame), drop_of(DropCode::CtNoState));
    assert_eq!(last_drop(&engine).decider, Decider::EndpointEni(S3_A));
}

#[test]
fn an_endpoint_drops_what_is_over_8500_bytes_on_a_known_flow_too() {
    let mut engine = engine(&demo());
    engine.sent(T0, WEB, &syn("10.0.1.10:40000", "10.0.1.4:443"));
    let sized = |payload: usize| {
        let payload = vec![0; payload];
        let spec = TcpSpec { payload: &payload, ..TcpSpec::new(sock("10.0.1.10:40000"), sock("10.0.1.4:443"), ACK) };
        make::tcp(&spec)
    };
    for _ in 0..2 {
        assert_eq!(engine.sent(T0, WEB, &sized(8_460)), Verdict::Endpoint { eni: S3_A });
        drops(&mut engine, WEB, &sized(8_461), DropCode::MtuDropSilent, Decider::EndpointEni(S3_A));
    }
    // A superframe is as large as its segments.
    let payload = vec![0; 60_000];
    let spec = TcpSpec { payload: &payload, ..TcpSpec::new(sock("10.0.1.10:40000"), sock("10.0.1.4:443"), ACK) };
    let before = engine.counters().enis[0].packets_out.get();
    assert_eq!(engine.sent(T0, WEB, &make::tcp_superframe(&spec, 8_460)), Verdict::Endpoint { eni: S3_A });
    assert_eq!(engine.counters().enis[0].packets_out.get() - before, 8);
    drops(&mut engine, WEB, &make::tcp_superframe(&spec, 8_461), DropCode::MtuDropSilent, Decider::EndpointEni(S3_A));
    assert_eq!(last_drop(&engine).count, 8 + 1 + 1, "segments, beside the two plain ones of the same tuple");
}

#[test]
fn nothing_over_9001_bytes_enters() {
    let (lab, [x, ..]) = open_lab();
    let mut engine = engine(&lab);
    let frame = make::udp(sock("10.0.1.10:1"), sock("10.0.2.10:2"), &vec![0; 9_001 - 28]);
    assert_eq!(engine.sent(T0, x, &frame), to(EniIx(1)));
    let frame = make::udp(sock("10.0.1.10:1"), sock("10.0.2.10:2"), &vec![0; 9_002 - 28]);
    drops(&mut engine, x, &frame, DropCode::MtuDropSilent, Decider::Eni(x));
}

#[test]
fn network_acls_are_asked_at_the_subnets_edge_only_and_for_replies_too() {
    let (mut lab, [x, y, z]) = open_lab();
    let closed = lab.nacl(0, "closed", &["100 allow tcp 80 from 10.0.0.0/16"], &["100 allow tcp 80 to 10.0.0.0/16"]);
    lab.plan.subnets[0].nacl = closed;
    let mut engine = engine(&lab);
    drops(
        &mut engine,
        x,
        &syn("10.0.1.10:4000", "10.0.2.10:22"),
        DropCode::NaclOut,
        Decider::Nacl(closed, super::super::NACL_STAR),
    );
    assert_eq!(engine.sent(T0, x, &syn("10.0.1.10:4000", "10.0.1.11:22")), to(z), "beside it");
    assert_eq!(engine.sent(T0, x, &syn("10.0.1.10:4000", "10.0.2.10:80")), to(y), "port 80 may leave");
    drops(
        &mut engine,
        y,
        &tcp("10.0.2.10:80", "10.0.1.10:4000", SYN_ACK),
        DropCode::NaclIn,
        Decider::Nacl(closed, super::super::NACL_STAR),
    );
    drops(
        &mut engine,
        y,
        &syn("10.0.2.10:4000", "10.0.1.10:22"),
        DropCode::NaclIn,
        Decider::Nacl(closed, super::super::NACL_STAR),
    );
}

#[test]
fn the_first_network_acl_rule_by_number_decides() {
    let (mut lab, [x, y, _]) = open_lab();
    let rules = ["100 deny tcp 22 from 10.0.1.0/24", "200 allow all from 0.0.0.0/0"];
    lab.plan.subnets[1].nacl = lab.nacl(0, "ordered", &rules, &["100 allow all to 0.0.0.0/0"]);
    let nacl = lab.plan.subnets[1].nacl;
    let mut engine = engine(&lab);
    drops(&mut engine, x, &syn("10.0.1.10:1", "10.0.2.10:22"), DropCode::NaclIn, Decider::Nacl(nacl, 100));
    assert_eq!(engine.sent(T0, x, &syn("10.0.1.10:1", "10.0.2.10:23")), to(y));
}

#[test]
fn routes_by_longest_prefix_and_a_blackhole_wins_too() {
    let (mut lab, [x, y, z]) = open_lab();
    let group = lab.plan.enis[0].security_groups[0];
    lab.allow(group, "all to 0.0.0.0/0");
    lab.route(0, "192.168.0.0/16", RouteTarget::Eni(z));
    lab.route(0, "192.168.7.0/24", RouteTarget::Blackhole);
    lab.plan.enis[z.at()].source_dest_check = false;
    let mut engine = engine(&lab);
    drops(&mut engine, x, &udp("10.0.1.10:1", "8.8.8.8:1"), DropCode::RtNoRoute, Decider::RouteTable(0, None));
    drops(&mut engine, x, &udp("10.0.1.10:1", "192.168.7.1:1"), DropCode::RtBlackhole, Decider::RouteTable(0, Some(2)));
    drops(&mut engine, x, &udp("10.0.1.10:1", "10.0.2.11:1"), DropCode::NoEni, Decider::RouteTable(0, Some(0)));
    // A neighbour that is not there answers no ARP, and the asker's kernel says so after a while.
    let unresolved =
        crate::engine::verdict::Reaction::HostUnreachable { from: "10.0.1.1".parse().expect("an address") };
    let verdict = engine.sent(T0 + std::time::Duration::from_secs(9), x, &udp("10.0.1.10:1", "10.0.1.12:1"));
    assert_eq!(verdict, Verdict::Reject { code: DropCode::NoEni, reaction: unresolved });
    assert_eq!(last_drop(&engine).decider, Decider::Eni(x));
    assert_eq!(engine.sent(T0, x, &udp("10.0.1.10:1", "192.168.8.1:1")), to(z));
    assert_eq!(engine.sent(T0, y, &udp("10.0.2.10:1", "192.168.8.1:1")), to(z));
}

#[test]
fn source_and_destination_are_checked_unless_the_check_is_off() {
    let (mut lab, [x, y, z]) = open_lab();
    lab.route(0, "192.168.0.0/16", RouteTarget::Eni(z));
    let group = lab.plan.enis[0].security_groups[0];
    lab.allow(group, "all to 192.168.0.0/16");
    let spoofed = udp("10.0.9.9:1", "10.0.2.10:1");
    let onward = udp("10.0.1.10:1", "192.168.0.1:1");
    let mut checked = engine(&lab);
    drops(&mut checked, z, &spoofed, DropCode::SrcDstCheck, Decider::Eni(z));
    drops(&mut checked, x, &onward, DropCode::SrcDstCheck, Decider::Eni(z));
    assert_eq!(last_drop(&checked).direction, Direction::Ingress);
    lab.plan.enis[z.at()].source_dest_check = false;
    let mut unchecked = engine(&lab);
    assert_eq!(unchecked.sent(T0, z, &spoofed), to(y));
    assert_eq!(unchecked.sent(T0, x, &onward), to(z));
}

#[test]
fn addresses_that_no_vpc_carries() {
    let (lab, [x, ..]) = open_lab();
    let mut engine = engine(&lab);
    let at = Decider::Eni(x);
    for (dst, code) in [
        ("224.0.0.251:5353", DropCode::Multicast),
        ("255.255.255.255:67", DropCode::Broadcast),
        ("10.0.1.255:1", DropCode::Broadcast),
        ("10.0.2.255:1", DropCode::Broadcast),
        ("10.0.1.0:1", DropCode::RouterAddr),
        ("10.0.1.1:1", DropCode::RouterAddr),
        ("10.0.1.2:53", DropCode::RouterAddr),
        ("10.0.1.3:1", DropCode::RouterAddr),
        ("10.0.2.1:1", DropCode::RouterAddr),
        ("169.254.169.123:123", DropCode::RouterAddr),
        ("10.0.0.2:123", DropCode::RouterAddr),
    ] {
        drops(&mut engine, x, &udp("10.0.1.10:68", dst), code, at);
    }
    // A DHCP client has no address yet: the broadcast is named, not the source.
    drops(&mut engine, x, &udp("0.0.0.0:68", "255.255.255.255:67"), DropCode::Broadcast, at);
    for dst in ["10.0.1.1", "10.0.0.2", "169.254.169.253", "169.254.169.254"] {
        let ping = make::icmp_echo(ip("10.0.1.10"), ip(dst), Echo::Request, 1, 1, &[]);
        drops(&mut engine, x, &ping, DropCode::RouterAddr, at);
    }
}

#[test]
fn services_of_the_host_are_never_filtered() {
    let mut lab = demo();
    let none = lab.group(0, "none");
    lab.plan.enis[0].security_groups = vec![none];
    lab.plan.subnets[0].nacl = lab.nacl(0, "none", &[], &[]);
    let mut engine = engine(&lab);
    for dst in ["10.0.0.2:53", "169.254.169.253:53"] {
        assert_eq!(engine.sent(T0, WEB, &udp("10.0.1.10:999", dst)), Verdict::Resolver { from: WEB });
        assert_eq!(engine.sent(T0, WEB, &syn("10.0.1.10:999", dst)), Verdict::Resolver { from: WEB });
    }
    assert_eq!(engine.sent(T0, WEB, &syn("10.0.1.10:999", "169.254.169.254:80")), Verdict::Imds { from: WEB });
    drops(&mut engine, WEB, &syn("10.0.1.10:999", "169.254.169.254:443"), DropCode::RouterAddr, Decider::Eni(WEB));
    assert_eq!(engine.flow_count(), 0);
}

#[test]
fn the_resolver_answers_its_own_vpc_if_it_has_dns_support() {
    let (mut lab, [x, _, z]) = open_lab();
    lab.plan.enis[z.at()].source_dest_check = false;
    let mut on = engine(&lab);
    drops(&mut on, z, &udp("192.168.0.1:9", "10.0.0.2:53"), DropCode::DnsNotLocal, Decider::Resolver(z));
    lab.plan.vpcs[0].dns_support = false;
    let mut off = engine(&lab);
    drops(&mut off, x, &udp("10.0.1.10:9", "10.0.0.2:53"), DropCode::DnsDisabled, Decider::Resolver(x));
}

#[test]
fn link_local_services_take_1024_packets_a_second_and_eni() {
    let mut engine = engine(&demo());
    let query = udp("10.0.1.10:999", "10.0.0.2:53");
    for _ in 0..1_023 {
        assert_eq!(engine.sent(T0, WEB, &query), Verdict::Resolver { from: WEB });
    }
    let imds = syn("10.0.1.10:999", "169.254.169.254:80");
    assert_eq!(engine.sent(T0, WEB, &imds), Verdict::Imds { from: WEB });
    drops(&mut engine, WEB, &query, DropCode::DnsPps, Decider::Resolver(WEB));
    drops(&mut engine, WEB, &imds, DropCode::DnsPps, Decider::Imds(WEB));
    let other = udp("10.0.2.10:999", "10.0.0.2:53");
    assert_eq!(engine.sent(T0, GUEST, &other), Verdict::Resolver { from: GUEST }, "another ENI has its own");
    let later = T0 + std::time::Duration::from_secs(1);
    assert_eq!(engine.sent(later, WEB, &query), Verdict::Resolver { from: WEB });
}

#[test]
fn only_sound_ipv4_enters() {
    let (lab, [x, ..]) = open_lab();
    let mut engine = engine(&lab);
    let at = Decider::Eni(x);
    let mut six = vec![0u8; vnet::LEN + 40];
    six[vnet::LEN] = 0x60;
    six[vnet::LEN + 6] = 6;
    drops(&mut engine, x, &six, DropCode::Ipv6, at);
    assert_eq!(last_drop(&engine).tuple.proto, base::Proto::TCP);
    drops(&mut engine, x, &[0; 12], DropCode::Malformed, at);
    let mut broken = udp("10.0.1.10:1", "10.0.2.10:1");
    broken[vnet::LEN + 8] ^= 1;
    drops(&mut engine, x, &broken, DropCode::Checksum, at);
}

#[test]
fn replies_pass_without_a_rule_and_strays_do_not() {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.allow(client, "all to sg:server");
    lab.allow(server, "tcp 22 from sg:client");
    lab.allow(server, "icmp 8 from sg:client");
    let c = lab.instance("c", a, "10.0.1.10", &[client]);
    let s = lab.instance("s", a, "10.0.1.11", &[server]);
    let mut engine = engine(&lab);
    let at_s = Decider::SecurityGroups(s);
    drops(&mut engine, s, &tcp("10.0.1.11:22", "10.0.1.10:4000", SYN_ACK), DropCode::CtNoState, at_s);
    drops(&mut engine, s, &syn("10.0.1.11:22", "10.0.1.10:4000"), DropCode::SgEgress, at_s);
    assert_eq!(engine.sent(T0, c, &syn("10.0.1.10:4000", "10.0.1.11:22")), to(s));
    assert_eq!(engine.sent(T0, s, &tcp("10.0.1.11:22", "10.0.1.10:4000", SYN_ACK)), to(c));
    drops(&mut engine, c, &syn("10.0.1.10:4000", "10.0.1.11:23"), DropCode::SgIngress, at_s);

    let ping = |half, src, dst| make::icmp_echo(ip(src), ip(dst), half, 7, 1, b"ping");
    assert_eq!(engine.sent(T0, c, &ping(Echo::Request, "10.0.1.10", "10.0.1.11")), to(s));
    assert_eq!(engine.sent(T0, s, &ping(Echo::Reply, "10.0.1.11", "10.0.1.10")), to(c));
    let back = ping(Echo::Request, "10.0.1.11", "10.0.1.10");
    drops(&mut engine, s, &back, DropCode::SgEgress, at_s);
}

#[test]
fn icmp_errors_pass_where_the_packet_they_quote_is_tracked() {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.allow(client, "udp 53 to sg:server");
    lab.allow(server, "udp 53 from sg:client");
    let c = lab.instance("c", a, "10.0.1.10", &[client]);
    let s = lab.instance("s", a, "10.0.1.11", &[server]);
    let mut engine = engine(&lab);
    let query = udp("10.0.1.10:4000", "10.0.1.11:53");
    let error = make::icmp_error(ip("10.0.1.11"), 3, 3, 0, &query).expect("error");
    drops(&mut engine, s, &error, DropCode::SgEgress, Decider::SecurityGroups(s));
    assert_eq!(engine.sent(T0, c, &query), to(s));
    assert_eq!(engine.sent(T0, s, &error), to(c));
    let other = make::icmp_error(ip("10.0.1.11"), 3, 3, 0, &udp("10.0.1.10:4001", "10.0.1.11:53")).expect("error");
    drops(&mut engine, s, &other, DropCode::SgEgress, Decider::SecurityGroups(s));
    assert_eq!(engine.flow_count(), 1, "errors are no flows");
}

#[test]
fn later_fragments_go_the_way_of_the_first() {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let group = lab.group(vpc, "dns");
    lab.allow(group, "udp 53 to 10.0.0.0/16");
    lab.allow(group, "udp 53 from 10.0.0.0/16");
    let x = lab.instance("x", a, "10.0.1.10", &[group]);
    let y = lab.instance("y", a, "10.0.1.11", &[group]);
    let fragments = |port: u16, id: u8| {
        let whole = make::udp(sock("10.0.1.10:4000"), SocketAddrV4::new(ip("10.0.1.11"), port), &[0; 24]);
        let l4 = &whole[vnet::LEN + 20..];
        let part = |bytes: &[u8], offset: u8, more: u8| {
            let mut frame = make::ipv4(ip("10.0.1.10"), ip("10.0.1.11"), base::Proto::UDP, 64, bytes);
            frame[vnet::LEN + 4..vnet::LEN + 8].copy_from_slice(&[0, id, more << 5, offset]);
            fix_ip_sum(&mut frame);
            frame
        };
        (part(&l4[..16], 0, 1), part(&l4[16..], 2, 0))
    };
    let mut engine = engine(&lab);
    let (first, second) = fragments(53, 1);
    drops(&mut engine, x, &second, DropCode::CtNoState, Decider::FlowTable);
    assert_eq!(engine.sent(T0, x, &first), to(y));
    assert_eq!(engine.sent(T0, x, &second), to(y));
    // What is over the first, or over the second, is neither.
    drops(&mut engine, x, &second, DropCode::Malformed, Decider::FlowTable);
    let mut over = second.clone();
    over[vnet::LEN + 7] = 1;
    fix_ip_sum(&mut over);
    drops(&mut engine, x, &over, DropCode::Malformed, Decider::FlowTable);
    assert_eq!(engine.sent(T0, x, &first), to(y), "another packet may have the number");
    assert_eq!(engine.sent(T0, x, &second), to(y));
    let (first, second) = fragments(54, 2);
    drops(&mut engine, x, &first, DropCode::SgEgress, Decider::SecurityGroups(x));
    drops(&mut engine, x, &second, DropCode::SgEgress, Decider::SecurityGroups(x));
}

#[test]
fn a_fragment_of_a_known_flow_is_asked_every_question() {
    let mut lab = demo();
    lab.plan.enis[GUEST.at()].security_groups = lab.plan.enis[WEB.at()].security_groups.clone();
    let mut engine = engine(&lab);
    let whole =
        make::tcp(&TcpSpec { payload: &[0; 60], ..TcpSpec::new(sock("10.0.1.10:40000"), sock("10.0.2.4:443"), ACK) });
    let mut first = whole.clone();
    first[vnet::LEN + 6] = 0x20;
    fix_ip_sum(&mut first);
    assert_eq!(engine.sent(T0, WEB, &syn("10.0.1.10:40000", "10.0.2.4:443")), Verdict::Endpoint { eni: S3_B });
    let answer = tcp("10.0.2.4:443", "10.0.1.10:40000", SYN_ACK);
    assert_eq!(engine.sent_from_endpoint(T0, S3_B, &answer), to(WEB));
    for _ in 0..2 {
        assert_eq!(engine.sent(T0, WEB, &whole), Verdict::Endpoint { eni: S3_B });
        drops(&mut engine, WEB, &first, DropCode::VpceProto, Decider::EndpointEni(S3_B));
        assert_eq!(engine.trace(T0, WEB, &mut first.clone()).0, drop_of(DropCode::VpceProto), "traced, the same");
    }
}

#[test]
fn a_stateful_firewall_knows_sessions_by_the_addresses_that_it_sees() {
    let (mut lab, [x, y, m]) = open_lab();
    let group = lab.plan.enis[0].security_groups[0];
    lab.allow(group, "all from 0.0.0.0/0");
    lab.allow(group, "all to 0.0.0.0/0");
    let igw = lab.igw(0);
    lab.public_address(y, "203.0.113.20");
    let edge = lab.table(0, "edge");
    lab.route(edge, "10.0.2.0/24", RouteTarget::Eni(m));
    lab.plan.internet_gateways[igw].edge_table = Some(edge);
    lab.plan.enis[m.at()].source_dest_check = false;
    lab.plan.instances[m.at()].forward = Some(Forward::Stateful);
    let host = lab.internet_host("host", "198.51.100.7");
    let mut engine = engine(&lab);
    let (sent, seen) = ("203.0.113.20:80", "10.0.2.10:80");
    // What the host sends to the public address the firewall sees with the private one.
    let stray = tcp("198.51.100.7:4000", sent, ACK);
    drops(&mut engine, host, &stray, DropCode::FwNoState, Decider::Eni(m));
    // A session of the public address is another one, though its packets look as the host sends them.
    assert_eq!(engine.sent(T0, m, &syn("198.51.100.7:4000", "10.0.1.10:80")), to(x));
    drops(&mut engine, host, &stray, DropCode::FwNoState, Decider::Eni(m));
    assert_eq!(engine.sent(T0, m, &syn("198.51.100.7:4000", seen)), to(y), "it begins the session itself");
    assert_eq!(engine.sent(T0, host, &stray), to(m));
}

fn fix_ip_sum(frame: &mut [u8]) {
    frame[vnet::LEN + 10..vnet::LEN + 12].fill(0);
    let sum = crate::wire::csum::checksum(&frame[vnet::LEN..vnet::LEN + 20]);
    frame[vnet::LEN + 10..vnet::LEN + 12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn vpcs_with_the_same_addresses_do_not_meet() {
    let mut lab = Lab::new();
    for name in ["one", "two"] {
        let vpc = lab.vpc(name, "10.0.0.0/16");
        let subnet = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
        let open = lab.group(vpc, "open");
        lab.allow(open, "tcp 80 to 10.0.0.0/16");
        lab.allow(open, "tcp 80 from 10.0.0.0/16");
        lab.instance("x", subnet, "10.0.1.10", &[open]);
        lab.instance("y", subnet, "10.0.1.11", &[open]);
    }
    let mut engine = engine(&lab);
    let there = syn("10.0.1.10:4000", "10.0.1.11:80");
    assert_eq!(engine.sent(T0, EniIx(0), &there), to(EniIx(1)));
    let back = tcp("10.0.1.11:80", "10.0.1.10:4000", SYN_ACK);
    drops(&mut engine, EniIx(3), &back, DropCode::CtNoState, Decider::SecurityGroups(EniIx(3)));
    assert_eq!(engine.sent(T0, EniIx(2), &there), to(EniIx(3)));
    assert_eq!(engine.sent(T0, EniIx(3), &back), to(EniIx(2)));
    assert_eq!(engine.sent(T0, EniIx(1), &back), to(EniIx(0)));
}

#[test]
fn way_there_through_a_middle_instance_and_straight_back() {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let b = lab.subnet(vpc, "b", "10.0.2.0/24", 'b');
    let c = lab.subnet(vpc, "c", "10.0.3.0/24", 'c');
    let (client, middle, server) = (lab.group(vpc, "client"), lab.group(vpc, "middle"), lab.group(vpc, "server"));
    lab.allow(client, "tcp 80 to 10.0.0.0/16");
    lab.allow(middle, "tcp 80 from 10.0.0.0/16");
    lab.allow(middle, "tcp 80 to 10.0.0.0/16");
    lab.allow(server, "tcp 80 from 10.0.0.0/16");
    let x = lab.instance("x", a, "10.0.1.10", &[client]);
    let m = lab.instance("m", b, "10.0.2.10", &[middle]);
    let y = lab.instance("y", c, "10.0.3.10", &[server]);
    lab.plan.enis[m.at()].source_dest_check = false;
    let table = lab.table(vpc, "inspected");
    lab.route(table, "10.0.3.0/24", RouteTarget::Eni(m));
    lab.plan.subnets[a].route_table = table;
    let mut engine = engine(&lab);
    let there = syn("10.0.1.10:4000", "10.0.3.10:80");
    let back = tcp("10.0.3.10:80", "10.0.1.10:4000", SYN_ACK);
    for _ in 0..3 {
        assert_eq!(engine.sent(T0, x, &there), to(m));
        assert_eq!(engine.sent(T0, m, &there), to(y));
        assert_eq!(engine.sent(T0, y, &back), to(x), "both ends track it, whichever way it came");
    }
    assert_eq!(engine.flow_count(), 2);
}
