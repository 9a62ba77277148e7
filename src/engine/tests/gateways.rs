//! Scenarios of gateways: what flows are told by Internet gateways, links to sites and NAT gateways.

use super::*;
use crate::base::Proto;

use crate::model::plan::{Forward, LinkEnd, LinkKind, RouteTarget, SiteTarget};

use crate::wire::make::Echo;
use crate::wire::{Packet, nat};

/// A VPC with one instance, whose group allows all.
fn inside() -> (Lab, usize, EniIx) {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let open = lab.group(vpc, "open");
    lab.allow(open, "all from 0.0.0.0/0");
    lab.allow(open, "all to 0.0.0.0/0");
    let x = lab.instance("x", a, "10.0.1.10", &[open]);
    (lab, vpc, x)
}

/// One open instance in a subnet with an Internet gateway, and a host outside.
fn outside() -> (Lab, [EniIx; 2]) {
    let (mut lab, vpc, x) = inside();
    let host = lab.internet_host("host", "198.51.100.7");
    let igw = lab.igw(vpc);
    lab.route(0, "0.0.0.0/0", RouteTarget::Igw(igw));
    lab.public_address(x, "203.0.113.20");
    (lab, [x, host])
}

/// The addresses and ports of the packet that an ICMP error quotes.
fn quoted(frame: &[u8]) -> (String, String) {
    let packet = Packet::parse(frame).expect("a packet");
    assert!(crate::wire::verify_checksums(frame), "checksums");
    let (tuple, _) = nat::quoted(frame, &packet).expect("a quote");
    (format!("{}:{}", tuple.src, tuple.src_port), format!("{}:{}", tuple.dst, tuple.dst_port))
}

#[test]
fn internet_gateways_translate_what_icmp_errors_quote_also_of_packets_that_nobody_knows() {
    let (lab, [x, host]) = outside();
    let mut engine = engine(&lab);
    let stranger = udp("198.51.100.7:4000", "10.0.1.10:53");
    let mut error = make::icmp_error(ip("10.0.1.10"), 3, 3, 0, &stranger).expect("error");
    assert_eq!(engine.handle(T0, x, &mut error), to(host));
    assert_eq!(quoted(&error), ("198.51.100.7:4000".into(), "203.0.113.20:53".into()));
    let stranger = udp("203.0.113.20:53", "198.51.100.7:4000");
    let mut error = make::icmp_error(ip("198.51.100.7"), 3, 3, 0, &stranger).expect("error");
    assert_eq!(engine.handle(T0, host, &mut error), to(x));
    assert_eq!(quoted(&error), ("10.0.1.10:53".into(), "198.51.100.7:4000".into()));
    assert_eq!(engine.flow_count(), 0, "errors are no flows");
}

#[test]
fn a_sites_firewall_per_tunnel_is_asked_of_every_packet_of_a_session() {
    let (mut lab, vpc, x) = inside();
    let vgw = lab.vgw(vpc);
    let site = lab.site("dc", "172.16.0.0/24");
    let link = lab.vpn(site, LinkEnd::Vgw(vgw));
    lab.site_route(site, "10.0.0.0/16", SiteTarget::Link(link));
    lab.route(0, "172.16.0.0/24", RouteTarget::Vgw(vgw));
    let host = lab.site_host("host", site, "172.16.0.10");
    if let LinkKind::Vpn { tunnels, stateful, .. } = &mut lab.plan.links[link].kind {
        *stateful = true;
        (tunnels[0].preferred_by_aws, tunnels[1].preferred_by_aws) = (false, true);
    }
    let mut engine = engine(&lab);
    let at = Decider::Site(site, None);
    assert_eq!(engine.sent(T0, x, &syn("10.0.1.10:4000", "172.16.0.10:80")), to(host));
    let ack = tcp("10.0.1.10:4000", "172.16.0.10:80", ACK);
    drops(&mut engine, x, &ack, DropCode::FwNoState, at);
    assert_eq!(engine.sent(T0, host, &syn("172.16.0.10:4000", "10.0.1.10:80")), to(x));
    drops(&mut engine, host, &tcp("172.16.0.10:4000", "10.0.1.10:80", ACK), DropCode::FwNoState, at);
    let datagram = udp("10.0.1.10:4000", "172.16.0.10:80");
    assert_eq!(engine.sent(T0, x, &datagram), to(host), "sessions are TCP's");
}

/// Sends it, and says as what and to whom it arrives.
fn arrives(engine: &mut Engine, now: Instant, from: EniIx, frame: &[u8]) -> (Verdict, base::FiveTuple) {
    let mut frame = frame.to_vec();
    let verdict = engine.handle(now, from, &mut frame);
    (verdict, Packet::parse(&frame).expect("a packet").tuple())
}

#[test]
fn a_flow_that_a_change_of_routes_sends_by_a_nat_gateway_holds_one_port() {
    let ping = |half, src: &str, dst: &str, id| make::icmp_echo(ip(src), ip(dst), half, id, 1, b"ping");
    let (lab, [x, host]) = outside();
    let mut moved = lab.clone();
    let vpc = moved.plan.subnets[0].vpc;
    let public = moved.subnet(vpc, "public", "10.0.0.0/24", 'a');
    let gateway = moved.nat("nat", public, "10.0.0.5", Some("203.0.113.30"));
    moved.plan.subnets[public].route_table = moved.table(vpc, "public");
    moved.route(moved.plan.subnets[public].route_table, "0.0.0.0/0", RouteTarget::Igw(0));
    moved.plan.route_tables[0].routes.last_mut().expect("the default route").target = RouteTarget::Nat(gateway);
    for begins in [
        syn("10.0.1.10:4000", "198.51.100.7:80"),
        udp("10.0.1.10:4000", "198.51.100.7:53"),
        ping(Echo::Request, "10.0.1.10", "198.51.100.7", 9),
    ] {
        let mut engine = engine(&lab);
        let (verdict, direct) = arrives(&mut engine, T0, x, &begins);
        assert_eq!((verdict, direct.src), (to(host), ip("203.0.113.20")));
        engine.publish(T0, Arc::new(compile(&moved.plan, 2)));
        let (verdict, first) = arrives(&mut engine, T0, x, &begins);
        assert_eq!((verdict, first.src), (to(host), ip("203.0.113.30")));
        for _ in 0..3 {
            assert_eq!(arrives(&mut engine, T0, x, &begins), (to(host), first), "by the same port");
            assert_eq!(engine.ports_held(), 1);
            let (here, there) =
                (format!("{}:{}", first.dst, first.dst_port), format!("{}:{}", first.src, first.src_port));
            let answer = match first.proto {
                Proto::TCP => tcp(&here, &there, SYN_ACK),
                Proto::UDP => udp(&here, &there),
                _ => ping(Echo::Reply, "198.51.100.7", "203.0.113.30", first.src_port),
            };
            let (verdict, back) = arrives(&mut engine, T0, host, &answer);
            assert_eq!((verdict, back.dst), (to(x), ip("10.0.1.10")), "{back:?}");
            assert_eq!(engine.counters().nats[0].active.get(), 1);
        }
        // Nobody else's port is the way in.
        let stray = udp("198.51.100.7:53", &format!("203.0.113.30:{}", first.src_port ^ 1));
        assert_eq!(engine.sent(T0, host, &stray), drop_of(DropCode::NatNoState));
        let late = T0 + std::time::Duration::from_secs(6 * 86_400);
        while engine.flow_count() > 0 {
            engine.expire(late);
        }
        assert_eq!(engine.ports_held(), 0, "none is left behind");
        assert_eq!(engine.counters().nats[0].active.get(), 0);
    }
}

#[test]
fn behind_a_nat_instance_and_a_nat_gateway_no_port_is_left_behind() {
    let (mut lab, x, [host, _]) = behind_nat();
    lab.plan.enis[x.at()].source_dest_check = false;
    lab.plan.instances[0].forward = Some(Forward::Masquerade);
    let mut engine = engine(&lab);
    // In the name of a client behind it.
    let query = udp("10.0.1.77:4000", "198.51.100.7:53");
    let (verdict, first) = arrives(&mut engine, T0, x, &query);
    assert_eq!((verdict, first.src), (to(host), ip("203.0.113.30")));
    let answer = udp("198.51.100.7:53", &format!("203.0.113.30:{}", first.src_port));
    for _ in 0..5 {
        assert_eq!(arrives(&mut engine, T0, x, &query), (to(host), first));
        assert_eq!(engine.trace(T0, x, &mut query.clone()).0, to(host));
        let (verdict, back) = arrives(&mut engine, T0, host, &answer);
        assert_eq!((verdict, back.dst, back.dst_port), (to(x), ip("10.0.1.77"), 4_000));
        assert_eq!(engine.ports_held(), 2, "the instance's and the gateway's");
    }
    engine.expire(T0 + std::time::Duration::from_secs(6 * 86_400));
    assert_eq!((engine.flow_count(), engine.ports_held()), (0, 0));
}

/// A client behind a NAT gateway with one Elastic IP, and two hosts outside.
fn behind_nat() -> (Lab, EniIx, [EniIx; 2]) {
    let (mut lab, [x, host]) = outside();
    let vpc = lab.plan.subnets[0].vpc;
    let public = lab.subnet(vpc, "public", "10.0.0.0/24", 'a');
    let gateway = lab.nat("nat", public, "10.0.0.5", Some("203.0.113.30"));
    let table = lab.table(vpc, "public");
    lab.plan.subnets[public].route_table = table;
    lab.route(table, "0.0.0.0/0", RouteTarget::Igw(0));
    lab.plan.route_tables[0].routes.last_mut().expect("the default route").target = RouteTarget::Nat(gateway);
    let other = lab.internet_host("other", "198.51.100.8");
    (lab, x, [host, other])
}

#[test]
fn a_nat_gateway_takes_answers_from_whom_the_client_asked_only() {
    let (lab, x, [host, other]) = behind_nat();
    let mut engine = engine(&lab);
    let refused = |engine: &mut Engine, from, frame: &[u8]| {
        drops(engine, from, frame, DropCode::NatNoState, Decider::Nat(0));
    };
    let (_, asked) = arrives(&mut engine, T0, x, &udp("10.0.1.10:4000", "198.51.100.7:53"));
    let door = format!("203.0.113.30:{}", asked.src_port);
    refused(&mut engine, host, &udp("198.51.100.7:54", &door));
    refused(&mut engine, other, &udp("198.51.100.8:53", &door));
    refused(&mut engine, host, &tcp("198.51.100.7:53", &door, SYN_ACK));
    refused(&mut engine, host, &udp("198.51.100.7:53", &format!("203.0.113.30:{}", asked.src_port ^ 1)));
    let (verdict, got) = arrives(&mut engine, T0, host, &udp("198.51.100.7:53", &door));
    assert_eq!((verdict, got.dst, got.dst_port), (to(x), ip("10.0.1.10"), 4_000));

    let (_, begun) = arrives(&mut engine, T0, x, &syn("10.0.1.10:4000", "198.51.100.7:80"));
    let door = format!("203.0.113.30:{}", begun.src_port);
    refused(&mut engine, host, &tcp("198.51.100.7:81", &door, SYN_ACK));
    refused(&mut engine, host, &syn("198.51.100.7:81", &door));
    refused(&mut engine, other, &tcp("198.51.100.8:80", &door, SYN_ACK));
    assert_eq!(arrives(&mut engine, T0, host, &tcp("198.51.100.7:80", &door, SYN_ACK)).0, to(x));

    let ping = |half, src: &str, dst: &str, id| make::icmp_echo(ip(src), ip(dst), half, id, 1, b"ping");
    let (_, pinged) = arrives(&mut engine, T0, x, &ping(Echo::Request, "10.0.1.10", "198.51.100.7", 9));
    let pong = |src: &str| ping(Echo::Reply, src, "203.0.113.30", pinged.src_port);
    refused(&mut engine, other, &pong("198.51.100.8"));
    refused(&mut engine, host, &ping(Echo::Request, "198.51.100.7", "203.0.113.30", pinged.src_port));
    assert_eq!(arrives(&mut engine, T0, host, &pong("198.51.100.7")).0, to(x));
    assert_eq!((engine.flow_count(), engine.ports_held()), (3, 3), "strangers left nothing");
}

#[test]
fn a_segment_of_nothing_that_is_no_syn_takes_no_port_and_a_reset_of_nothing_begins_no_flow() {
    let (mut lab, x, [host, _]) = behind_nat();
    let mut by_gateway = engine(&lab);
    for flags in [ACK, SYN_ACK, FIN_ACK, RST, RST | ACK] {
        let stray = tcp("10.0.1.10:4000", "198.51.100.7:80", flags);
        drops(&mut by_gateway, x, &stray, DropCode::NatNoState, Decider::Nat(0));
        assert_eq!((by_gateway.flow_count(), by_gateway.ports_held()), (0, 0), "flags {flags:#x}");
    }
    let nat = &by_gateway.counters().nats[0];
    assert_eq!((nat.active.get(), nat.attempts.get(), nat.drops.get()), (0, 0, 5));

    let y = lab.instance("y", 0, "10.0.1.11", &[1]);
    let mut between = engine(&lab);
    for flags in [RST, RST | ACK] {
        assert_eq!(between.sent(T0, x, &tcp("10.0.1.10:4000", "10.0.1.11:80", flags)), to(y));
        assert_eq!(between.flow_count(), 0);
    }

    // A NAT instance translates it, and keeps nothing either.
    lab.plan.enis[x.at()].source_dest_check = false;
    lab.plan.instances[0].forward = Some(Forward::Masquerade);
    lab.plan.route_tables[0].routes.last_mut().expect("the default route").target = RouteTarget::Igw(0);
    let mut by_instance = engine(&lab);
    let (verdict, got) = arrives(&mut by_instance, T0, x, &tcp("10.0.1.77:4000", "198.51.100.7:80", RST));
    assert_eq!((verdict, got.src), (to(host), ip("203.0.113.20")));
    assert_eq!((by_instance.flow_count(), by_instance.ports_held()), (0, 0));
}

/// A client behind a private NAT gateway, and a server: there by one middle instance, back by another.
fn behind_nat_by_two_ways() -> (Lab, EniIx, [EniIx; 2], EniIx) {
    let (mut lab, vpc, x) = inside();
    let subnet = |lab: &mut Lab, name, cidr| {
        let at = lab.subnet(vpc, name, cidr, 'a');
        lab.plan.subnets[at].route_table = lab.table(vpc, name);
        (at, lab.plan.subnets[at].route_table)
    };
    let (gateway, by_gateway) = subnet(&mut lab, "gateway", "10.0.9.0/24");
    let (middle, _) = subnet(&mut lab, "middle", "10.0.2.0/24");
    let (server, by_server) = subnet(&mut lab, "server", "10.0.3.0/24");
    let nat = lab.nat("nat", gateway, "10.0.9.5", None);
    let [there, back] = [("there", "10.0.2.10"), ("back", "10.0.2.11")].map(|(name, ip)| {
        let eni = lab.instance(name, middle, ip, &[1]);
        lab.plan.enis[eni.at()].source_dest_check = false;
        let at = lab.plan.instances.len() - 1;
        lab.plan.instances[at].forward = Some(Forward::Plain);
        eni
    });
    let y = lab.instance("y", server, "10.0.3.10", &[1]);
    lab.route(0, "10.0.3.0/24", RouteTarget::Nat(nat));
    lab.route(by_gateway, "10.0.3.0/24", RouteTarget::Eni(there));
    lab.route(by_server, "10.0.9.0/24", RouteTarget::Eni(back));
    (lab, x, [there, back], y)
}

/// The gateway finds its binding by what comes to it, whoever sends that.
#[test]
fn answers_to_a_nat_gateway_may_come_by_another_middle_instance() {
    let ping = |half, src: &str, dst: &str, id| make::icmp_echo(ip(src), ip(dst), half, id, 1, b"ping");
    let (lab, x, [there, back], y) = behind_nat_by_two_ways();
    let mut engine = engine(&lab);
    for (begins, goes_on) in [
        (syn("10.0.1.10:4000", "10.0.3.10:80"), Some(tcp("10.0.1.10:4000", "10.0.3.10:80", ACK))),
        (udp("10.0.1.10:4000", "10.0.3.10:53"), None),
        (ping(Echo::Request, "10.0.1.10", "10.0.3.10", 9), None),
    ] {
        let mut given = None;
        for sent in [&begins, goes_on.as_ref().unwrap_or(&begins)] {
            let mut frame = sent.clone();
            assert_eq!(engine.handle(T0, x, &mut frame), to(there));
            assert_eq!(engine.handle(T0, there, &mut frame), to(y));
            let seen = Packet::parse(&frame).expect("a packet").tuple();
            assert_eq!(seen.src, ip("10.0.9.5"));
            assert_eq!(*given.get_or_insert(seen.src_port), seen.src_port, "one port for all of it");
            let ends = (format!("10.0.3.10:{}", seen.dst_port), format!("10.0.9.5:{}", seen.src_port));
            let mut answer = match seen.proto {
                Proto::TCP => tcp(&ends.0, &ends.1, if goes_on.as_ref() == Some(sent) { ACK } else { SYN_ACK }),
                Proto::UDP => udp(&ends.0, &ends.1),
                _ => ping(Echo::Reply, "10.0.3.10", "10.0.9.5", seen.src_port),
            };
            assert_eq!(engine.handle(T0, y, &mut answer), to(back));
            assert_eq!(engine.handle(T0, back, &mut answer), to(x), "{seen:?}");
            let got = Packet::parse(&answer).expect("a packet").tuple();
            let asked = Packet::parse(sent).expect("a packet").tuple();
            assert_eq!((got.src, got.dst, got.dst_port), (ip("10.0.3.10"), ip("10.0.1.10"), asked.src_port));
        }
    }
    assert_eq!((engine.ports_held(), engine.drops().count()), (3, 0));
    assert_eq!(engine.counters().nats[0].active.get(), 3);
}

/// The server answers the gateway, by a firewall that never saw the beginning: what is lost is the client's.
#[test]
fn a_dropped_answer_to_a_nat_gateway_belongs_to_the_client_behind_it() {
    let (mut lab, x, [there, back], y) = behind_nat_by_two_ways();
    for eni in [there, back] {
        let at = lab.plan.instances.iter().position(|instance| instance.enis[0] == eni).expect("an instance");
        lab.plan.instances[at].forward = Some(Forward::Stateful);
    }
    let mut engine = engine(&lab);
    let mut frame = syn("10.0.1.10:4000", "10.0.3.10:80");
    assert_eq!(engine.handle(T0, x, &mut frame), to(there));
    assert_eq!(engine.handle(T0, there, &mut frame), to(y));
    let seen = Packet::parse(&frame).expect("a packet").tuple();
    let answer = tcp("10.0.3.10:80", &format!("10.0.9.5:{}", seen.src_port), SYN_ACK);
    drops(&mut engine, y, &answer, DropCode::FwNoState, Decider::Eni(back));
    let record = engine.drops().last().expect("a record");
    let client = Some((x, sock("10.0.1.10:4000")));
    assert_eq!((record.from, record.whose.answers, record.whose.began()), (y, client, client));
}

/// What routers drop of it is the client's as well, on either way.
#[test]
fn what_a_middle_instance_cannot_send_on_belongs_to_who_began_it() {
    let (lab, x, [there, back], y) = behind_nat_by_two_ways();
    let client = Some((x, sock("10.0.1.10:4000")));
    let blackhole = |to: &str| {
        let mut lab = lab.clone();
        let middle = lab.plan.subnet_of(there).expect("a subnet").route_table;
        lab.route(middle, to, RouteTarget::Blackhole);
        engine(&lab)
    };
    let mut on_the_way_there = blackhole("10.0.3.0/24");
    let mut frame = syn("10.0.1.10:4000", "10.0.3.10:80");
    assert_eq!(on_the_way_there.handle(T0, x, &mut frame), to(there));
    assert_eq!(on_the_way_there.handle(T0, there, &mut frame), drop_of(DropCode::RtBlackhole));
    let record = on_the_way_there.drops().last().expect("a record");
    assert_eq!((record.from, record.tuple.src), (there, ip("10.0.9.5")));
    assert_eq!((record.whose.answers, record.whose.began()), (None, client));

    let mut on_the_way_back = blackhole("10.0.9.0/24");
    let mut frame = syn("10.0.1.10:4000", "10.0.3.10:80");
    assert_eq!(on_the_way_back.handle(T0, x, &mut frame), to(there));
    assert_eq!(on_the_way_back.handle(T0, there, &mut frame), to(y));
    let seen = Packet::parse(&frame).expect("a packet").tuple();
    let mut answer = tcp("10.0.3.10:80", &format!("10.0.9.5:{}", seen.src_port), SYN_ACK);
    assert_eq!(on_the_way_back.handle(T0, y, &mut answer), to(back));
    assert_eq!(on_the_way_back.handle(T0, back, &mut answer), drop_of(DropCode::RtBlackhole));
    let record = on_the_way_back.drops().last().expect("a record");
    assert_eq!((record.from, record.whose.answers), (back, client));
    // Of its own packets nobody else began them.
    assert_eq!(on_the_way_back.sent(T0, x, &syn("10.0.1.10:4000", "10.7.0.1:80")), drop_of(DropCode::RtNoRoute));
    assert_eq!(on_the_way_back.drops().last().expect("a record").whose.began(), None);
}

/// Spokes of one range behind a private NAT gateway, and the way out in another VPC behind a transit gateway.
const TWO_GATEWAYS: &str = "version: 1
name: x
region: eu-west-1
vpcs:
  spoke:
    cidr: 10.20.0.0/16
    nat_gateways: { inner: { subnet: nat, public: false } }
    subnets:
      app: { cidr: 10.20.1.0/24, az: a, route_table: app }
      nat: { cidr: 10.20.2.0/24, az: a, route_table: nat }
      tgw: { cidr: 10.20.3.0/28, az: a }
    route_tables:
      app: { routes: [{ to: 0.0.0.0/0, via: 'nat:inner' }] }
      nat: { routes: [{ to: 0.0.0.0/0, via: 'tgw:core' }] }
    instances: { web: { subnet: app, ip: 10.20.1.10 } }
  exit:
    cidr: 10.90.0.0/16
    internet_gateway: true
    nat_gateways: { outer: { subnet: nat } }
    subnets:
      nat: { cidr: 10.90.0.0/24, az: a, route_table: nat }
      tgw: { cidr: 10.90.3.0/28, az: a, route_table: tgw }
    route_tables:
      nat: { routes: [{ to: 0.0.0.0/0, via: igw }, { to: 10.20.0.0/16, via: 'tgw:core' }] }
      tgw: { routes: [{ to: 0.0.0.0/0, via: 'nat:outer' }] }
transit_gateways:
  core:
    attachments: { spoke: { vpc: spoke, subnets: [tgw] }, exit: { vpc: exit, subnets: [tgw] } }
    route_tables: { main: { associate: [spoke, exit], propagate: [spoke, exit], routes: [{ to: 0.0.0.0/0, via: exit }] } }
internet:
  host: { ip: 198.51.100.7, listen: [{ tcp: 80, reply: http }] }
";

#[test]
fn a_private_and_a_public_nat_gateway_on_one_way_know_what_comes_back() {
    let plan = crate::model::testing::plan_of(&[TWO_GATEWAYS]);
    let eni = |name: &str| plan.instances.iter().find(|i| i.common.name == name).expect("an instance").enis[0];
    let (web, host) = (eni("web"), eni("host"));
    let secs = |secs| T0 + std::time::Duration::from_secs(secs);
    for (begins, answer) in [
        (syn("10.20.1.10:4000", "198.51.100.7:80"), tcp as fn(&str, &str, u8) -> Vec<u8>),
        (udp("10.20.1.10:4000", "198.51.100.7:53"), |from, to, _| udp(from, to)),
    ] {
        let mut engine = Engine::new(Arc::new(compile(&plan, 1)), EngineLimits::default());
        let (verdict, out) = arrives(&mut engine, T0, web, &begins);
        assert_eq!(verdict, to(host));
        let from = format!("{}:{}", out.dst, out.dst_port);
        let back = answer(&from, &format!("{}:{}", out.src, out.src_port), SYN_ACK);
        for now in [0, 1, 29] {
            let (verdict, home) = arrives(&mut engine, secs(now), host, &back);
            assert_eq!((verdict, home.dst, home.dst_port), (to(web), ip("10.20.1.10"), 4_000));
            assert_eq!(arrives(&mut engine, secs(now), web, &begins), (to(host), out), "by the same ports");
        }
        assert_eq!(engine.ports_held(), 2);
        // The groups of the client forget sooner than the gateways, which know the same client again.
        assert_eq!(arrives(&mut engine, secs(29 + 349), web, &begins), (to(host), out));
        engine.expire(secs(29 + 349 + 351));
        assert_eq!(engine.ports_held(), 0);
    }
}
