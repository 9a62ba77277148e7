//! What does not follow the rules: idleness, late segments, restarts, and bytes that are no packets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use proptest::prelude::*;
use smoltcp::socket::tcp::State;

use super::world::*;
use crate::stack::{Event, Forwarder, Port};
use crate::wire::Packet;
use crate::wire::make::{self, TcpSpec};
use crate::wire::packet::tcp_flags;

const LONG: Duration = Duration::from_secs(600);

#[test]
fn an_idle_connection_expires_in_silence_and_the_next_sender_is_reset() {
    let mut world = World::new(limits());
    let n = world.connect(40_000, 1500);
    world.clients[n].to_send = vec![1].into();
    assert!(world.run(LONG, |w| w.served.values().any(|s| s.got.len() == 1)));
    world.wait(Duration::from_secs(349));
    let frames = world.frames.len();
    assert_eq!(world.fwd.usage().connections, 1);
    world.wait(Duration::from_secs(2));
    let (conn, served) = world.only();
    assert!(matches!(served.events[..], [Event::Expired { conn: c, port: PORT, .. }] if c == conn));
    assert_eq!(world.frames.len(), frames, "nobody is told");
    world.wait(Duration::from_secs(100));
    assert_eq!(world.client(n).state(), State::Established, "the client still waits");
    world.clients[n].to_send = vec![2].into();
    assert!(world.run(LONG, |w| w.client(n).state() == State::Closed), "it is reset when it speaks");
    assert!(matches!(world.events.last(), Some(Event::LateAfterExpiry { .. })));
    // The same ports again are a new connection.
    world.clients.clear();
    let n = world.connect(40_000, 1500);
    assert!(world.run(LONG, |w| w.client(n).state() == State::Established));
}

#[test]
fn traffic_keeps_a_connection_alive_in_either_direction() {
    for from_client in [true, false] {
        let mut world = World::new(limits());
        let n = world.connect(40_000, 1500);
        assert!(world.run(LONG, |w| w.served.len() == 1));
        for _ in 0..5 {
            world.wait(Duration::from_secs(300));
            if from_client {
                world.clients[n].to_send = vec![1].into();
            } else {
                world.only().1.to_send = vec![1].into();
            }
        }
        world.wait(Duration::from_secs(300));
        assert_eq!(world.fwd.usage().connections, 1);
    }
}

#[test]
fn retransmissions_to_a_client_that_is_gone_do_not_keep_it_alive() {
    let mut world = World::new(limits());
    let n = world.connect(40_000, 1500);
    assert!(world.run(LONG, |w| w.client(n).state() == State::Established));
    world.link.deaf = (true, true);
    world.only().1.to_send = bytes(1_000, 1).into();
    world.wait(Duration::from_secs(351));
    assert_eq!(world.fwd.usage().connections, 0);
    assert!(world.frames.len() > 4, "it was tried");
}

#[test]
fn a_segment_out_of_nowhere_is_dropped_and_noted() {
    let mut world = World::new(limits());
    let src = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 1000);
    for flags in [tcp_flags::ACK, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::FIN | tcp_flags::ACK, tcp_flags::RST] {
        world.inject(&make::tcp(&TcpSpec::new(src, SocketAddrV4::new(SERVER, 443), flags)));
        world.settle();
        assert!(matches!(world.events.pop(), Some(Event::NoState { port: PORT, .. })));
    }
    assert!(world.frames.is_empty());
}

#[test]
fn a_client_that_restarted_learns_it_and_connects_again() {
    let mut world = World::new(limits());
    let n = world.connect(40_000, 1500);
    world.clients[n].to_send = bytes(5_000, 1).into();
    assert!(world.run(LONG, |w| w.served.values().any(|s| s.got.len() == 5_000)));
    // It forgets everything, without a word, and takes the same port. (Its new number differs with its address's seed.)
    world.now = world.now + Duration::from_secs(1);
    world.clients.clear();
    let n = world.connect(40_000, 1400);
    assert!(world.run(LONG, |w| w.client(n).state() == State::Established), "after the challenge");
    assert_eq!(world.served.len(), 2);
    let resets = world.served.values().filter(|s| matches!(s.events.last(), Some(Event::Reset(_)))).count();
    assert_eq!(resets, 1, "the old one ended");
}

#[test]
fn a_wrong_checksum_is_no_segment() {
    let mut world = World::new(limits());
    let src = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 1000);
    let good = make::tcp(&TcpSpec::syn(src, SocketAddrV4::new(SERVER, 443)));
    for at in [10 + 8, 10 + 20 + 4, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        world.inject(&bad);
    }
    world.settle();
    assert!(world.events.is_empty());
    world.inject(&good);
    world.settle();
    assert_eq!(world.served.len(), 1);
}

#[test]
fn a_flood_of_stray_segments_grows_nothing() {
    let mut fwd = Forwarder::new(limits(), 1);
    let now = crate::base::Instant::from_millis(1);
    for n in 0..20_000u32 {
        let src = SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0000 + n), 1000);
        let frame = make::tcp(&TcpSpec::new(src, SocketAddrV4::new(SERVER, 443), tcp_flags::ACK));
        fwd.packet(now, PORT, &frame, &mut |_: Port, _: &mut [u8]| {});
    }
    assert_eq!(fwd.usage().notes_lost, 20_000 - 4_096);
    assert_eq!(std::iter::from_fn(|| fwd.next_event()).count(), 4_096);
}

/// A segment whose fields may be anything, near an open connection's numbers or far from them.
fn segments() -> impl Strategy<Value = (u32, u32, u8, u16, Vec<u8>, u16)> {
    let near = prop_oneof![Just(0u32), 0u32..3, any::<u32>(), (0u32..70_000).prop_map(|n| n.wrapping_sub(35_000))];
    let payload = prop::collection::vec(any::<u8>(), 0..3_000);
    (near.clone(), near, any::<u8>(), any::<u16>(), payload, 1u16..9_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever a client sends, the forwarder neither panics nor sends invalid frames (`World` checks them), and every
    /// connection ends at most once.
    #[test]
    fn any_segments_in_any_state(steps in prop::collection::vec((0u8..10, segments()), 1..40)) {
        let mut world = World::new(limits());
        let src = SocketAddrV4::new(Ipv4Addr::new(10, 0, 9, 9), 1000);
        let dst = SocketAddrV4::new(SERVER, 443);
        world.greeting = (bytes(20_000, 1), false);
        world.inject(&make::tcp(&TcpSpec::syn(src, dst)));
        for (act, (seq, ack, flags, window, payload, gso)) in steps {
            let base = world.frames.last().map_or((2, 0), |f| {
                let p = Packet::parse(f).unwrap();
                (p.tcp_ack(f), p.tcp_seq(f).wrapping_add(p.tcp_sequence_len()))
            });
            let spec = TcpSpec {
                seq: base.0.wrapping_add(seq),
                ack: base.1.wrapping_add(ack),
                window,
                payload: &payload,
                ..TcpSpec::new(src, dst, flags)
            };
            match act {
                0 => world.inject(&make::tcp(&TcpSpec { mss: Some(window), window_scale: Some(ack as u8), ..TcpSpec::syn(src, dst) })),
                1 => world.wait(Duration::from_secs(3)),
                2 => world.inject(&make::tcp(&TcpSpec { flags: tcp_flags::ACK, seq: base.0, ack: base.1, ..spec })),
                3 => for served in world.served.values_mut() { served.finish = true; },
                4 => world.inject(&make::tcp_superframe(&spec, gso)),
                5 => world.inject(&make::tcp(&TcpSpec { flags: tcp_flags::FIN | tcp_flags::ACK, seq: base.0, ack: base.1, ..spec })),
                _ => world.inject(&make::tcp(&spec)),
            }
            world.settle();
        }
        world.wait(Duration::from_secs(400));
        prop_assert_eq!(world.fwd.usage().buffer_bytes, 0);
        for served in world.served.values() {
            let ends = served.events.iter().filter(|e| matches!(e, Event::Closed(_) | Event::Reset(_) | Event::Expired { .. }));
            prop_assert_eq!(ends.count(), 1);
        }
    }

    /// Bytes that are no packets.
    #[test]
    fn arbitrary_bytes(frame in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut fwd = Forwarder::new(limits(), 1);
        fwd.packet(crate::base::Instant::ZERO, PORT, &frame, &mut |_: Port, _: &mut [u8]| {});
    }
}
