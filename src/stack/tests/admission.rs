//! Who gets a connection, and what does everybody else see?

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use smoltcp::socket::tcp::State;

use super::world::*;
use crate::stack::{Answer, Event, Port, StackLimits};
use crate::wire::make::{self, TcpSpec};
use crate::wire::packet::tcp_flags;
use crate::wire::{Packet, edit};

fn syn(client: u32, port: u16) -> Vec<u8> {
    let src = SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0200 + client), port);
    make::tcp(&TcpSpec::syn(src, SocketAddrV4::new(SERVER, 443)))
}

fn dials(world: &World) -> usize {
    world.events.iter().filter(|e| matches!(e, Event::Dial { .. })).count()
}

#[test]
fn nothing_leaves_before_the_backend_has_accepted() {
    let mut world = World::new(limits());
    world.backend = Backend::Slow;
    let n = world.connect(40_000, 1500);
    world.wait(Duration::from_secs(5));
    assert_eq!(dials(&world), 1, "repeated SYNs dial once");
    assert!(world.frames.is_empty());
    assert_eq!(world.fwd.usage().buffer_bytes, 0);
    let Some(&Event::Dial { conn, tuple, .. }) = world.events.first() else { panic!("a dial") };
    assert_eq!(tuple, world.tuple_of(n));
    world.backend = Backend::Accepts;
    world.answer(conn);
    assert_eq!(world.frames.len(), 1, "the SYN-ACK leaves with the answer");
    let syn_ack = Packet::parse(&world.frames[0]).unwrap();
    assert_eq!(syn_ack.tcp_flags(), tcp_flags::SYN | tcp_flags::ACK);
    assert_eq!(edit::mss_of(&world.frames[0], &syn_ack), Some(8460));
    assert!(world.run(Duration::from_secs(5), |w| w.client(n).state() == State::Established));
    world.wait(Duration::from_secs(1));
    assert_eq!(world.fwd.usage().half_open, 0);
}

#[test]
fn a_refusing_backend_refuses_the_client() {
    let mut world = World::new(limits());
    world.backend = Backend::Refuses;
    let n = world.connect(40_000, 1500);
    assert!(world.run(Duration::from_secs(1), |w| w.client(n).state() == State::Closed));
    assert_eq!(world.clients[n].seen, [State::SynSent, State::Closed]);
    assert_eq!(Packet::parse(&world.frames[0]).unwrap().tcp_flags(), tcp_flags::RST | tcp_flags::ACK);
    assert_eq!(world.fwd.usage().half_open, 0);
}

#[test]
fn a_silent_backend_is_silence() {
    for backend in [Backend::Silent, Backend::Slow] {
        let mut world = World::new(limits());
        world.backend = backend;
        let n = world.connect(40_000, 1500);
        world.wait(Duration::from_secs(12));
        assert_eq!(world.client(n).state(), State::SynSent);
        assert!(world.frames.is_empty());
        let tuple = world.tuple_of(n);
        let silent = |e: &&Event| matches!(e, Event::BackendSilent { port: PORT, tuple: t, .. } if *t == tuple);
        assert!(world.events.iter().filter(silent).count() >= 1);
    }
}

#[test]
fn an_answer_that_comes_too_late_is_refused() {
    let mut world = World::new(limits());
    world.backend = Backend::Slow;
    world.inject(&syn(1, 1000));
    world.wait(Duration::from_secs(11));
    let [Event::Dial { conn, .. }, Event::BackendSilent { conn: gone, .. }] = world.events[..] else {
        panic!("{:?}", world.events)
    };
    assert_eq!(conn, gone);
    let mut out = |_: Port, _: &mut [u8]| panic!("nothing is sent");
    assert!(!world.fwd.answer(world.now, conn, Answer::Connected, &mut out));
    assert_eq!(world.fwd.usage().half_open, 0);
}

#[test]
fn a_client_that_gives_up_while_dialling_is_told() {
    let mut world = World::new(limits());
    world.backend = Backend::Slow;
    world.inject(&syn(1, 1000));
    world.settle();
    let Some(&Event::Dial { conn, .. }) = world.events.first() else { panic!("a dial") };
    let src = SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0201), 1000);
    let reset = |seq| make::tcp(&TcpSpec { seq, ..TcpSpec::new(src, SocketAddrV4::new(SERVER, 443), tcp_flags::RST) });
    world.inject(&reset(77_777));
    world.settle();
    assert_eq!(world.fwd.usage().half_open, 1, "a guessed reset does nothing");
    world.inject(&reset(2));
    world.settle();
    assert_eq!(world.events.last(), Some(&Event::Reset(conn)));
    assert_eq!(world.fwd.usage().half_open, 0);
}

#[test]
fn half_open_connections_are_limited_by_source_and_by_endpoint() {
    let mut world = World::new(StackLimits { half_open_per_source: 3, half_open_per_eni: 5, ..limits() });
    world.backend = Backend::Slow;
    for port in 1..=4 {
        world.inject(&syn(1, port));
    }
    world.settle();
    assert_eq!(dials(&world), 3);
    assert!(matches!(world.events.last(), Some(Event::HalfOpenFull { port: PORT, tuple }) if tuple.src_port == 4));
    for client in 2..=4 {
        world.inject(&syn(client, 1));
    }
    world.settle();
    assert_eq!(dials(&world), 5, "the endpoint's limit");
    // Every one that ends makes room.
    world.wait(Duration::from_secs(11));
    assert_eq!(world.fwd.usage().half_open, 0);
    world.inject(&syn(1, 9));
    world.settle();
    assert_eq!(dials(&world), 6);
}

#[test]
fn a_client_that_never_acknowledges_holds_its_buffers_for_a_bounded_time() {
    let mut world = World::new(StackLimits { half_open_per_source: 4, ..limits() });
    for port in 1..=10 {
        world.inject(&syn(1, port));
        world.settle();
    }
    assert_eq!(world.fwd.usage().connections, 4, "the limit counts until the handshake is over");
    world.wait(Duration::from_secs(40));
    assert_eq!(world.fwd.usage().connections, 0);
    assert_eq!(world.fwd.usage().buffer_bytes, 0);
    assert!(world.served.values().all(|s| matches!(s.events[..], [Event::Reset(_)])));
}

#[test]
fn buffers_are_bounded_in_all() {
    let mut world = World::new(StackLimits { total_buffer_bytes: 3 * (128 << 10), ..limits() });
    for port in 40_000..40_005 {
        world.connect(port, 1500);
    }
    world.wait(Duration::from_millis(500));
    assert_eq!(world.fwd.usage().connections, 3);
    assert_eq!(world.fwd.usage().buffer_bytes, 3 * (128 << 10));
    assert!(world.events.iter().any(|e| matches!(e, Event::HalfOpenFull { .. })));
}

#[test]
fn two_thousand_clients_at_once_and_none_is_left_over() {
    let mut world = World::new(StackLimits {
        rx_buffer: 8 << 10,
        tx_buffer: 8 << 10,
        total_buffer_bytes: 2_000 * (16 << 10),
        half_open_per_source: 2_000,
        ..limits()
    });
    world.greeting = (bytes(3_000, 1), true);
    for n in 0..2_000u32 {
        let client = world.connect_from(Ipv4Addr::from_bits(0x0a00_0100 + n % 250), 1_000 + n as u16, 1500);
        world.clients[client].to_send = bytes(2_000, u64::from(n)).into();
        world.clients[client].finish = true;
    }
    let all = |w: &mut World| {
        w.served.len() == 2_000 && w.served.values().all(|s| matches!(s.events.last(), Some(Event::Closed(_))))
    };
    assert!(world.run(Duration::from_secs(120), all));
    assert!(world.clients.iter().all(|c| c.got == bytes(3_000, 1)));
    let mut uploads: Vec<Vec<u8>> = world.served.values().map(|s| s.got.clone()).collect();
    let mut expected: Vec<Vec<u8>> = (0..2_000).map(|n| bytes(2_000, n)).collect();
    uploads.sort();
    expected.sort();
    assert!(uploads == expected);
    let usage = world.fwd.usage();
    assert_eq!((usage.connections, usage.half_open, usage.buffer_bytes), (0, 0, 0));
}

#[test]
fn a_removed_port_takes_its_connections_with_it() {
    let mut world = World::new(limits());
    let n = world.connect(40_000, 1500);
    assert!(world.run(Duration::from_secs(1), |w| w.client(n).state() == State::Established));
    let (id, _) = world.only();
    let before = world.frames.len();
    assert_eq!(world.fwd.remove_port(PORT), [id]);
    world.settle();
    assert_eq!(world.frames.len(), before, "nothing is sent");
    assert_eq!(world.fwd.usage().connections, 0);
    assert_eq!(world.fwd.describe(id), None);
}

#[test]
fn ttl_and_mss_follow_the_port() {
    let mut world = World::new(StackLimits { local_mtu: 1500, ..limits() });
    let port = Port::Imds(crate::base::EniIx(1));
    let mut sent = Vec::new();
    let mut out = |_: Port, frame: &mut [u8]| sent.push(frame.to_vec());
    world.fwd.packet(world.now, port, &syn(1, 5), &mut out);
    let Some(Event::Dial { conn, .. }) = world.fwd.next_event() else { panic!("a dial") };
    assert!(world.fwd.answer(world.now, conn, Answer::Connected, &mut out));
    world.fwd.set_ttl(conn, 2);
    let first = Packet::parse(&sent[0]).unwrap();
    assert_eq!(first.ttl(), 64);
    assert_eq!(edit::mss_of(&sent[0], &first), Some(1460));
    // The SYN-ACK again after a second, now with the new TTL.
    let later = world.now + Duration::from_secs(2);
    world.fwd.poll(later, &mut |_: Port, frame: &mut [u8]| sent.push(frame.to_vec()));
    assert_eq!(Packet::parse(&sent[1]).unwrap().ttl(), 2);
}
