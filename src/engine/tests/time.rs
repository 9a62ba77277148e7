//! Flows over time and over changes of the plan.

use std::time::Duration;

use super::builder::demo;
use super::*;
use crate::engine::{FlowEnd, FlowState};
use crate::model::plan::Limits;

/// A client with a narrow egress rule and a server with a narrow ingress rule: tracked at both ends.
fn tracked_lab() -> (Lab, EniIx, EniIx) {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "a", "10.0.1.0/24", 'a');
    let b = lab.subnet(vpc, "b", "10.0.2.0/24", 'b');
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.allow(client, "all to 10.0.0.0/16");
    lab.allow(server, "all from 10.0.0.0/16");
    let c = lab.instance("c", a, "10.0.1.10", &[client]);
    let s = lab.instance("s", b, "10.0.2.10", &[server]);
    (lab, c, s)
}

/// Both ends open both ways to everywhere: untracked.
fn untracked_lab() -> (Lab, EniIx, EniIx) {
    let (mut lab, c, s) = tracked_lab();
    for group in [1, 2] {
        let group = &mut lab.plan.security_groups[group];
        group.ingress.clear();
        group.egress.clear();
    }
    for group in [1, 2] {
        lab.allow(group, "all from 0.0.0.0/0");
        lab.allow(group, "all to 0.0.0.0/0");
    }
    (lab, c, s)
}

fn after(secs: f64) -> Instant {
    T0 + Duration::from_secs_f64(secs)
}

const THERE: (&str, &str) = ("10.0.1.10:4000", "10.0.2.10:80");

fn handshake(engine: &mut Engine, c: EniIx, s: EniIx) {
    assert_eq!(engine.sent(T0, c, &syn(THERE.0, THERE.1)), to(s));
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, SYN_ACK)), to(c));
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK)), to(s));
}

fn publish(engine: &mut Engine, lab: &Lab) {
    let generation = engine.program().generation() + 1;
    engine.publish(T0, Arc::new(compile(&lab.plan, generation)));
}

#[test]
fn a_tracked_flow_survives_the_removal_of_its_rule_and_a_new_one_does_not_begin() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    lab.plan.security_groups[2].ingress.clear();
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK)), to(s));
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, ACK)), to(c));
    drops(&mut engine, c, &syn("10.0.1.10:4001", THERE.1), DropCode::SgIngress, Decider::SecurityGroups(s));
}

#[test]
fn drop_records_are_of_the_program_that_decided_and_leave_with_it() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    let decider = Decider::SecurityGroups(s);
    drops(&mut engine, s, &syn("10.0.2.10:9", "10.0.1.10:9"), DropCode::SgEgress, decider);
    let told: Vec<DropRecord> = engine.drops().cloned().collect();
    lab.plan.security_groups[2].ingress.clear();
    let left = engine.publish(T0, Arc::new(compile(&lab.plan, 2)));
    assert!(!told.is_empty() && left.iter().eq(&told), "as they were");
    assert_eq!(engine.drops().count(), 0);
    assert_eq!(engine.counters().dropped(DropCode::SgEgress), 1, "the counter goes on");
    drops(&mut engine, s, &syn("10.0.2.10:9", "10.0.1.10:9"), DropCode::SgEgress, decider);
    drops(&mut engine, c, &syn(THERE.0, THERE.1), DropCode::SgIngress, decider);
    assert_eq!(engine.drops().map(|record| record.count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(engine.counters().dropped(DropCode::SgEgress), 2);
}

#[test]
fn an_untracked_flow_dies_with_its_rule() {
    let (mut lab, c, s) = untracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    assert!(engine.flows().all(|flow| !flow.tracked));
    lab.plan.security_groups[2].ingress.clear();
    publish(&mut engine, &lab);
    for _ in 0..2 {
        drops(&mut engine, c, &tcp(THERE.0, THERE.1, ACK), DropCode::SgIngress, Decider::SecurityGroups(s));
    }
    // The answers of the server are asked for at the client, whose rules still stand.
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, ACK)), to(c));
}

#[test]
fn an_untracked_flow_whose_rule_is_narrowed_becomes_tracked() {
    let (mut lab, c, s) = untracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    let wide = lab.plan.security_groups[2].clone();
    lab.plan.security_groups[2].ingress.clear();
    lab.allow(2, "tcp 80 from 10.0.1.0/24");
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK)), to(s));
    assert!(engine.flows().all(|flow| flow.tracked));
    lab.plan.security_groups[2].ingress.clear();
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK)), to(s));
    lab.plan.security_groups[2] = wide;
}

#[test]
fn a_receiver_whose_rule_is_narrowed_tracks_what_comes_another_way_too() {
    // There through a middle instance, straight back: the receiver of the answers has a record of its own.
    let (mut lab, c, s) = untracked_lab();
    let subnet = lab.subnet(0, "middle", "10.0.3.0/24", 'c');
    let open = lab.plan.enis[0].security_groups[0];
    let m = lab.instance("m", subnet, "10.0.3.10", &[open]);
    lab.plan.enis[m.at()].source_dest_check = false;
    let table = lab.table(0, "inspected");
    lab.route(table, "10.0.2.0/24", crate::model::plan::RouteTarget::Eni(m));
    lab.plan.subnets[0].route_table = table;
    let mut engine = engine(&lab);
    let (there, back) = (tcp(THERE.0, THERE.1, ACK), tcp(THERE.1, THERE.0, ACK));
    assert_eq!(engine.sent(T0, c, &there), to(m));
    assert_eq!(engine.sent(T0, m, &there), to(s));
    assert_eq!(engine.sent(T0, s, &back), to(c));
    assert!(engine.flows().all(|flow| !flow.tracked));
    // Now the client lets answers in by a narrow rule only: from the next one on it tracks them.
    let client = lab.plan.enis[c.at()].security_groups[0];
    lab.plan.security_groups[client].ingress.clear();
    lab.allow(client, "tcp 4000 from 10.0.2.0/24");
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(T0, s, &back), to(c));
    lab.plan.security_groups[client].ingress.clear();
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(T0, s, &back), to(c));
}

#[test]
fn flows_of_endpoints_are_tracked_however_open_the_rules() {
    let mut lab = demo();
    for group in [1, 3] {
        lab.allow(group, "all from 0.0.0.0/0");
        lab.allow(group, "all to 0.0.0.0/0");
    }
    let mut engine = engine(&lab);
    engine.sent(T0, EniIx(0), &syn("10.0.1.10:4000", "10.0.1.4:443"));
    assert!(engine.flows().all(|flow| flow.tracked));
    lab.plan.security_groups[3].ingress.clear();
    publish(&mut engine, &lab);
    let ack = tcp("10.0.1.10:4000", "10.0.1.4:443", ACK);
    assert_eq!(engine.sent(T0, EniIx(0), &ack), Verdict::Endpoint { eni: EniIx(2) });
}

#[test]
fn a_network_acl_cuts_tracked_flows_too() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    let nacl = lab.plan.subnets[1].nacl;
    lab.plan.network_acls[nacl].ingress[0].allow = false;
    publish(&mut engine, &lab);
    drops(&mut engine, c, &tcp(THERE.0, THERE.1, ACK), DropCode::NaclIn, Decider::Nacl(nacl, 100));
}

#[test]
fn eni_indices_may_move_and_flows_and_counters_follow() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    let sent = engine.counters().enis[0].packets_out.get();
    lab.plan.enis.swap(0, 1);
    lab.plan.instances[0].enis = vec![EniIx(1)];
    lab.plan.instances[1].enis = vec![EniIx(0)];
    publish(&mut engine, &lab);
    let (c, s) = (EniIx(1), EniIx(0));
    assert_eq!(engine.counters().enis[1].packets_out.get(), sent);
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK)), to(s));
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, ACK)), to(c));
    let flow = engine.flows().next().expect("a flow");
    assert_eq!((flow.initiator, flow.target), (c, s));
}

#[test]
fn flows_of_an_eni_that_is_gone_end() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    lab.plan.enis.pop();
    lab.plan.instances.pop();
    publish(&mut engine, &lab);
    assert_eq!(engine.flow_count(), 0);
    assert_eq!(engine.next_closed().map(|c| c.end), Some(FlowEnd::EniGone));
    let nobody = Decider::RouteTable(0, Some(0));
    drops(&mut engine, c, &tcp(THERE.0, THERE.1, ACK), DropCode::NoEni, nobody);
}

#[test]
fn tcp_states_and_their_times() {
    let (lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    let state = |engine: &Engine| engine.flows().next().map(|f| (f.state, f.expires.since(f.last).as_secs()));
    engine.sent(T0, c, &syn(THERE.0, THERE.1));
    assert_eq!(state(&engine), Some((FlowState::New, 60)));
    engine.sent(T0, s, &tcp(THERE.1, THERE.0, SYN_ACK));
    assert_eq!(state(&engine), Some((FlowState::New, 60)));
    engine.sent(T0, c, &tcp(THERE.0, THERE.1, ACK));
    assert_eq!(state(&engine), Some((FlowState::Established, 432_000)));
    engine.sent(T0, c, &tcp(THERE.0, THERE.1, FIN_ACK));
    assert_eq!(state(&engine), Some((FlowState::Established, 432_000)), "half closed is open");
    engine.sent(T0, s, &tcp(THERE.1, THERE.0, FIN_ACK));
    assert_eq!(state(&engine), Some((FlowState::Closing, 10)));
    engine.sent(after(1.0), c, &tcp(THERE.0, THERE.1, ACK));
    engine.expire(after(10.9));
    assert_eq!(engine.flow_count(), 1, "the last ACK counts");
    engine.expire(after(11.3));
    assert_eq!(engine.flow_count(), 0);
    let closed = engine.next_closed().expect("told");
    assert_eq!(closed.end, FlowEnd::Fin);
    assert_eq!((closed.flow.packets_out, closed.flow.packets_in), (4, 2));
    assert_eq!(engine.next_deadline(), Instant::NEVER);
}

#[test]
fn a_reset_ends_a_flow_soon_and_a_new_syn_begins_another_at_once() {
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, RST)), to(c));
    assert_eq!(engine.flows().next().map(|f| f.state), Some(FlowState::Closing));
    assert_eq!(engine.sent(after(0.1), c, &syn(THERE.0, THERE.1)), to(s));
    assert_eq!(engine.next_closed().map(|c| c.end), Some(FlowEnd::Replaced));
    assert_eq!(engine.flows().next().map(|f| (f.state, f.packets_out)), Some((FlowState::New, 1)));
    // It is a new connection in every way: rules are asked.
    engine.sent(after(0.1), s, &tcp(THERE.1, THERE.0, RST));
    lab.plan.security_groups[2].ingress.clear();
    publish(&mut engine, &lab);
    drops(&mut engine, c, &syn(THERE.0, THERE.1), DropCode::SgIngress, Decider::SecurityGroups(s));
}

#[test]
fn udp_lives_30_seconds_and_180_as_a_stream() {
    let (lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    let life = |engine: &Engine| engine.flows().next().map(|f| (f.state, f.expires.since(f.last).as_secs()));
    let (query, answer) = (udp(THERE.0, THERE.1), udp(THERE.1, THERE.0));
    engine.sent(T0, c, &query);
    engine.sent(T0, c, &query);
    assert_eq!(life(&engine), Some((FlowState::Single, 30)));
    engine.sent(T0, s, &answer);
    assert_eq!(life(&engine), Some((FlowState::Single, 30)));
    engine.sent(T0, s, &answer);
    assert_eq!(life(&engine), Some((FlowState::Stream, 180)));
    // Idle for too long: the answer comes to nothing, and the log knows why.
    let late = engine.sent(after(181.0), s, &answer);
    assert_eq!(late, drop_of(DropCode::CtIdle));
    engine.expire(after(181.0));
    assert_eq!(engine.next_closed().map(|c| c.end), Some(FlowEnd::Idle));
    assert_eq!(engine.sent(after(181.0), s, &answer), drop_of(DropCode::CtIdle), "known when it is gone too");
    assert_eq!(engine.sent(after(181.0), c, &query), to(s), "the initiator's rule allows it anew");
    assert_eq!(engine.sent(after(181.0), s, &answer), to(c));
}

#[test]
fn other_protocols_are_tracked_by_addresses_for_600_seconds() {
    let (lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    let gre = |src, dst| make::ipv4(ip(src), ip(dst), base::Proto(47), 64, &[0; 8]);
    assert_eq!(engine.sent(T0, c, &gre("10.0.1.10", "10.0.2.10")), to(s));
    assert_eq!(engine.sent(after(599.0), s, &gre("10.0.2.10", "10.0.1.10")), to(c));
    assert_eq!(engine.sent(after(1_200.0), s, &gre("10.0.2.10", "10.0.1.10")), drop_of(DropCode::CtIdle));
}

#[test]
fn an_expired_endpoint_flow_is_told_from_a_stray_segment() {
    let mut lab = demo();
    // What security groups remember is nothing to an endpoint.
    lab.plan.limits.sg_tcp_idle = Duration::from_secs(60);
    let mut engine = engine(&lab);
    let (client, door) = ("10.0.1.10:4000", "10.0.1.4:443");
    let eni = match engine.sent(T0, EniIx(0), &syn(client, door)) {
        Verdict::Endpoint { eni } => eni,
        other => panic!("{other:?}"),
    };
    let ack = tcp(client, door, ACK);
    engine.sent_from_endpoint(after(59.0), eni, &tcp(door, client, SYN_ACK));
    assert_eq!(engine.sent(after(60.5), EniIx(0), &ack), Verdict::Endpoint { eni });
    assert_eq!(engine.sent(after(410.0), EniIx(0), &ack), Verdict::Endpoint { eni });
    assert_eq!(engine.sent(after(760.5), EniIx(0), &ack), drop_of(DropCode::VpceIdle));
    let stray = tcp("10.0.1.10:4001", "10.0.1.4:443", ACK);
    assert_eq!(engine.sent(after(760.5), EniIx(0), &stray), drop_of(DropCode::VpceNoState));
}

#[test]
fn an_instance_that_tracks_all_it_may_begins_nothing_new_and_forgets_nothing() {
    let (mut lab, c, s) = tracked_lab();
    lab.plan.limits = Limits { conntrack_max: 100, ..Limits::default() };
    let mut engine = engine(&lab);
    let frame = |port: u16| make::tcp(&TcpSpec::syn(SocketAddrV4::new(ip("10.0.1.10"), port), sock(THERE.1)));
    for port in 0..100 {
        assert_eq!(engine.sent(T0, c, &frame(port)), to(s));
    }
    drops(&mut engine, c, &frame(100), DropCode::CtFull, Decider::Eni(c));
    assert_eq!(engine.sent(T0, c, &frame(0)), to(s));
    assert_eq!(engine.probe(0).sent(T0, c, &frame(100)), drop_of(DropCode::CtFull));
    engine.expire(after(61.0));
    assert_eq!(engine.sent(after(61.0), c, &frame(100)), to(s));
}

#[test]
fn the_allowance_is_each_instance_s_own() {
    let (mut lab, c, s) = tracked_lab();
    lab.plan.limits = Limits { conntrack_max: 100, ..Limits::default() };
    let client = lab.plan.enis[c.at()].security_groups[0];
    let other = lab.instance("other", 0, "10.0.1.11", &[client]);
    lab.allow(client, "all from 10.0.0.0/16");
    let mut engine = engine(&lab);
    let scan = |from: &str, to: &str, port: u16| {
        make::tcp(&TcpSpec::syn(SocketAddrV4::new(ip(from), 4_000), SocketAddrV4::new(ip(to), port)))
    };
    for port in 0..100 {
        assert_eq!(engine.sent(T0, c, &scan("10.0.1.10", "10.0.2.10", port)), to(s));
    }
    // Both ends track them, so the server is at its bound too, and nobody else.
    drops(&mut engine, other, &scan("10.0.1.11", "10.0.2.10", 1), DropCode::CtFull, Decider::Eni(s));
    drops(&mut engine, c, &scan("10.0.1.10", "10.0.1.11", 1), DropCode::CtFull, Decider::Eni(c));
    assert_eq!(engine.flow_count(), 100);
    let all = EngineLimits { flows: 3, ..EngineLimits::default() };
    let mut small = Engine::new(Arc::new(compile(&lab.plan, 1)), all);
    for port in 0..3 {
        assert_eq!(small.sent(T0, c, &scan("10.0.1.10", "10.0.2.10", port)), to(s));
    }
    drops(&mut small, c, &scan("10.0.1.10", "10.0.2.10", 3), DropCode::CtFull, Decider::FlowTable);
}

#[test]
fn untracked_flows_pass_a_full_table() {
    let (mut lab, c, s) = untracked_lab();
    lab.plan.limits = Limits { conntrack_max: 10, ..Limits::default() };
    let mut engine = engine(&lab);
    for port in 0..150 {
        let client = SocketAddrV4::new(ip("10.0.1.10"), port);
        assert_eq!(engine.sent(T0, c, &make::tcp(&TcpSpec::syn(client, sock(THERE.1)))), to(s));
        let answer = TcpSpec::new(sock(THERE.1), client, SYN_ACK);
        assert_eq!(engine.sent(T0, s, &make::tcp(&answer)), to(c));
    }
    assert_eq!(engine.flow_count(), 40, "entries for what nobody tracks are bounded too, for each end");
}

#[test]
fn a_way_decided_65535_publications_ago_is_not_followed() {
    // By then decisions have the same number again.
    let (mut lab, c, s) = tracked_lab();
    let mut engine = engine(&lab);
    handshake(&mut engine, c, s);
    let same = engine.program().clone();
    for _ in 1..u16::MAX {
        engine.publish(T0, same.clone());
    }
    let nacl = lab.plan.subnets[1].nacl;
    lab.plan.network_acls[nacl].ingress[0].allow = false;
    publish(&mut engine, &lab);
    drops(&mut engine, c, &tcp(THERE.0, THERE.1, ACK), DropCode::NaclIn, Decider::Nacl(nacl, 100));
    // The other side was decided under that number too.
    drops(&mut engine, s, &tcp(THERE.1, THERE.0, ACK), DropCode::NaclIn, Decider::Nacl(nacl, 100));
}

#[test]
fn only_who_had_a_side_of_an_idle_flow_says_idle() {
    // Straight there, back by a middle instance: the flow of the answers has a side at the instance, none at the server.
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let [a, b, m] = ["1", "2", "3"].map(|n| lab.subnet(vpc, n, &format!("10.0.{n}.0/24"), 'a'));
    let [client, server, middle] = ["client", "server", "middle"].map(|name| lab.group(vpc, name));
    lab.allow(client, "all to 10.0.0.0/16");
    lab.allow(server, "tcp 80 from 10.0.1.0/24");
    lab.allow(middle, "all from 10.0.0.0/16");
    lab.allow(middle, "all to 10.0.0.0/16");
    let c = lab.instance("c", a, "10.0.1.10", &[client]);
    let s = lab.instance("s", b, "10.0.2.10", &[server]);
    let m = lab.instance("m", m, "10.0.3.10", &[middle]);
    lab.plan.enis[m.at()].source_dest_check = false;
    let table = lab.table(vpc, "inspected");
    lab.route(table, "10.0.1.0/24", crate::model::plan::RouteTarget::Eni(m));
    lab.plan.subnets[b].route_table = table;
    let mut engine = engine(&lab);
    assert_eq!(engine.sent(T0, c, &syn(THERE.0, THERE.1)), to(s));
    let answer = tcp(THERE.1, THERE.0, SYN_ACK);
    assert_eq!(engine.sent(T0, s, &answer), to(m));
    assert_eq!(engine.sent(T0, m, &answer), to(c));
    // The server's own flow ends by a reset; the instance's is left to idleness.
    assert_eq!(engine.sent(T0, c, &tcp(THERE.0, THERE.1, RST)), to(s));
    let late = after(6.0 * 86_400.0);
    while engine.flow_count() > 0 {
        engine.expire(late);
    }
    let ack = tcp(THERE.1, THERE.0, ACK);
    assert_eq!(engine.sent(late, s, &ack), drop_of(DropCode::CtNoState), "it had none that was idle");
    // At the instance there was one.
    lab.allow(server, "all to 10.0.0.0/16");
    lab.plan.security_groups[middle].ingress.clear();
    publish(&mut engine, &lab);
    assert_eq!(engine.sent(late, s, &ack), drop_of(DropCode::CtIdle));
    assert_eq!(last_drop(&engine).decider, Decider::SecurityGroups(m));
}

/// There by a middle instance, straight back: the client has an entry of its own, which sees both directions.
#[test]
fn a_connection_that_comes_back_another_way_is_established_and_a_stream_is_one() {
    let (mut lab, c, s) = tracked_lab();
    let subnet = lab.subnet(0, "middle", "10.0.3.0/24", 'c');
    let open = lab.group(0, "open");
    lab.allow(open, "all from 10.0.0.0/16");
    lab.allow(open, "all to 10.0.0.0/16");
    let m = lab.instance("m", subnet, "10.0.3.10", &[open]);
    lab.plan.enis[m.at()].source_dest_check = false;
    let table = lab.table(0, "inspected");
    lab.route(table, "10.0.2.0/24", crate::model::plan::RouteTarget::Eni(m));
    lab.plan.subnets[0].route_table = table;
    let through = |engine: &mut Engine, now, frame: &[u8]| {
        assert_eq!(engine.sent(now, c, frame), to(m));
        assert_eq!(engine.sent(now, m, frame), to(s));
    };
    let mut engine = engine(&lab);
    through(&mut engine, T0, &syn(THERE.0, THERE.1));
    assert_eq!(engine.sent(T0, s, &tcp(THERE.1, THERE.0, SYN_ACK)), to(c));
    through(&mut engine, T0, &tcp(THERE.0, THERE.1, ACK));
    for _ in 0..2 {
        through(&mut engine, T0, &udp(THERE.0, THERE.1));
        assert_eq!(engine.sent(T0, s, &udp(THERE.1, THERE.0)), to(c));
    }
    // Longer than an opening lives, and a single exchange. The client lets nothing in that it did not ask for.
    let later = after(179.0);
    assert_eq!(engine.sent(later, s, &udp(THERE.1, THERE.0)), to(c));
    assert_eq!(engine.sent(later, s, &tcp(THERE.1, THERE.0, ACK)), to(c));
    let days = after(179.0 + 4.0 * 86_400.0);
    assert_eq!(engine.sent(days, s, &tcp(THERE.1, THERE.0, ACK)), to(c));
    assert_eq!(engine.sent(days, s, &udp(THERE.1, THERE.0)), drop_of(DropCode::CtIdle));
}
