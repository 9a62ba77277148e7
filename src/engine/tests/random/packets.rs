//! Random packets, what follows upon them, and their bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use crate::base::Proto;
use crate::engine::oracle::{Part, Quote, Sent};
use crate::wire::make::{self, TcpSpec};
use crate::wire::packet::tcp_flags::{ACK, FIN, RST, SYN};
use crate::wire::{Packet, edit, nat, vnet};

#[derive(Clone, Debug)]
pub struct Shape {
    kind: usize,
    ports: usize,
    source: usize,
    size: usize,
    df: bool,
    ttl: usize,
    part: Option<(u16, bool)>,
}

pub fn shape() -> impl Strategy<Value = Shape> {
    let kind = prop_oneof![8 => Just(0), 2 => 1usize..4, 4 => Just(4), 4 => Just(5), 1 => Just(6), 1 => Just(7)];
    let source = prop_oneof![20 => Just(0usize), 1 => 1usize..6];
    let size = prop_oneof![12 => Just(0usize), 4 => 1usize..SIZES.len()];
    let ttl = prop_oneof![12 => Just(0usize), 1 => 1usize..4];
    let part = prop::option::weighted(0.06, (0u16..3, any::<bool>()));
    (kind, 0usize..5, source, size, any::<bool>(), ttl, part)
        .prop_map(|(kind, ports, source, size, df, ttl, part)| Shape { kind, ports, source, size, df, ttl, part })
}

const SIZES: [u16; 11] = [0, 1_406, 1_407, 1_446, 1_447, 1_500, 1_501, 8_500, 8_501, 9_001, 9_002];

pub fn packet(own: Ipv4Addr, dst: Ipv4Addr, shape: &Shape) -> Sent {
    let (proto, icmp, flags) = [
        (Proto::TCP, None, SYN),
        (Proto::TCP, None, ACK),
        (Proto::TCP, None, SYN | ACK),
        (Proto::TCP, None, RST),
        (Proto::UDP, None, 0),
        (Proto::ICMP, Some((8, 0)), 0),
        (Proto::ICMP, Some((0, 0)), 0),
        (Proto(47), None, 0),
    ][shape.kind];
    let (src_port, dst_port) = match proto {
        Proto::TCP | Proto::UDP => [(4000, 443), (4001, 443), (4000, 80), (443, 4000), (4001, 53)][shape.ports],
        Proto::ICMP => (7, 7),
        _ => (0, 0),
    };
    let src = match shape.source {
        0 => own,
        1 => Ipv4Addr::new(10, 0, 1, 10),
        2 => Ipv4Addr::new(172, 16, 0, 10),
        3 => Ipv4Addr::new(192, 0, 2, 10),
        4 => Ipv4Addr::new(10, 1, 0, 10),
        _ => Ipv4Addr::new(192, 168, 7, 7),
    };
    let mut p = Sent::new(proto, src, src_port, dst, dst_port);
    (p.icmp, p.flags, p.df) = (icmp, flags, shape.df);
    p.mss = (flags & SYN != 0).then_some(8_961);
    p.ttl = [64, 1, 2, 3][shape.ttl];
    p.fragment = shape.part.map(|(id, first)| Part { id, first });
    p.size = SIZES[shape.size];
    settle(p)
}

/// The least that its headers take, and 16 bytes more of a fragment.
fn settle(mut p: Sent) -> Sent {
    let headers = 20
        + match p.proto {
            _ if p.fragment.is_some_and(|part| !part.first) => 0,
            Proto::TCP => 20 + if p.mss.is_some() { 4 } else { 0 },
            _ => 8,
        };
    p.size = p.size.max(headers);
    if p.fragment.is_some() {
        (p.df, p.size) = (false, 20 + (p.size.max(headers + 16) - 20).next_multiple_of(8));
        if p.size > 9_001 {
            p.size -= 8;
        }
    }
    if p.fragment.is_some_and(|part| !part.first) {
        (p.src_port, p.dst_port, p.flags, p.mss, p.icmp) = (0, 0, 0, None, None);
    }
    p
}

pub const SEQUELS: usize = 12;
/// The one of them that is an ICMP error.
pub const ERROR: usize = 7;

/// What its sender or its receiver does next; who it is for does not forward it.
pub fn after(p: &Sent, got: bool, own: bool, what: usize) -> Option<Sent> {
    let mut next = *p;
    (next.ttl, next.mss, next.fragment) = (64, None, None);
    if p.fragment.is_some_and(|part| !part.first) || p.quote.is_some() {
        return None;
    }
    if got && what < 8 {
        (next.src, next.src_port, next.dst, next.dst_port) = (p.dst, p.dst_port, p.src, p.src_port);
        next.icmp = p.icmp.map(|(kind, code)| (8 - kind, code));
        next.size = 0;
    }
    let answer = if p.flags & SYN != 0 && p.flags & ACK == 0 { SYN | ACK } else { ACK };
    let tcp = p.proto == Proto::TCP;
    match (what, got) {
        (8..10, true) if own => return None,
        (0..4, true) if tcp => next.flags = answer,
        (0..4, false) if tcp => next.flags = ACK,
        (4, _) if tcp => next.flags = FIN | ACK,
        (5, _) if tcp => next.flags = RST,
        (6, _) if tcp => (next.flags, next.size) = (ACK, 1_500),
        (ERROR, true) => {
            // The receiver says that nothing is there.
            next = Sent::new(Proto::ICMP, p.dst, 0, p.src, 0);
            (next.icmp, next.quote) = (Some((3, 3)), Some(Quote::of(p)));
            next.size = (make::icmp_error(p.dst, 3, 3, 0, &frame(&whole(p)))?.len() - vnet::LEN) as u16;
            return Some(next);
        }
        // Forwarded as it is, or sent again.
        (8..10, true) => {
            next = *p;
            if next.ttl > 1 {
                next.ttl -= 1;
            }
        }
        (8..10, false) => next = *p,
        (10, false) if tcp => next.flags = SYN,
        (10 | 11, _) => return None,
        _ => {}
    }
    if next.flags & SYN != 0 {
        next.mss = next.mss.or(Some(8_961));
    }
    Some(settle(next))
}

/// As an ICMP error quotes it: no part of a fragmented packet.
fn whole(p: &Sent) -> Sent {
    Sent { fragment: None, size: p.size.clamp(40, 1_000), ..*p }
}

pub fn frame(p: &Sent) -> Vec<u8> {
    if let Some(quote) = p.quote {
        let mut quoted = Sent::new(quote.proto, quote.src, quote.src_port as u16, quote.dst, quote.dst_port as u16);
        quoted.icmp = quote.icmp.map(|kind| (kind, 0));
        quoted.flags = if quote.proto == Proto::TCP { ACK } else { 0 };
        // As long as makes the error as long as it is.
        quoted.size = p.size - 28;
        let (kind, code) = p.icmp.expect("an error");
        let mut error = make::icmp_error(p.src, kind, code, 0, &frame(&quoted)).expect("an error");
        patch(&mut error, p);
        return error;
    }
    let (src, dst) = (SocketAddrV4::new(p.src, p.src_port as u16), SocketAddrV4::new(p.dst, p.dst_port as u16));
    let room = |headers: u16| vec![0u8; usize::from(p.size.saturating_sub(headers))];
    let mut frame = match (p.proto, p.icmp) {
        _ if p.fragment.is_some_and(|part| !part.first) => make::ipv4(p.src, p.dst, p.proto, 64, &room(20)),
        (Proto::TCP, _) => {
            let payload = room(40 + if p.mss.is_some() { 4 } else { 0 });
            make::tcp(&TcpSpec { mss: p.mss, payload: &payload, ..TcpSpec::new(src, dst, p.flags) })
        }
        (Proto::UDP, _) => make::udp(src, dst, &room(28)),
        (_, Some((kind, _))) => {
            let half = if kind == 8 { make::Echo::Request } else { make::Echo::Reply };
            make::icmp_echo(p.src, p.dst, half, p.src_port as u16, 1, &room(28))
        }
        (proto, None) => make::ipv4(p.src, p.dst, proto, 64, &room(20)),
    };
    patch(&mut frame, p);
    frame
}

fn patch(frame: &mut [u8], p: &Sent) {
    let ip = &mut frame[vnet::LEN..vnet::LEN + 20];
    let (id, flags) = match p.fragment {
        // The first has more behind it; a later one is the last.
        Some(Part { id, first: true }) => (id + 1, 0x2000),
        // Far behind every first one.
        Some(Part { id, first: false }) => (id + 1, 0x1000),
        None => (0, if p.df { 0x4000 } else { 0 }),
    };
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    ip[6..8].copy_from_slice(&u16::to_be_bytes(flags));
    ip[8] = p.ttl;
    ip[10..12].fill(0);
    let sum = crate::wire::csum::checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A frame in the words of rules; what `p` says of size and fragments is not changed on the way.
pub fn arrived(frame: &[u8], p: &Sent) -> Sent {
    let packet = Packet::parse(frame).expect("it was parsed before");
    let tuple = packet.tuple();
    let quote = nat::quoted(frame, &packet).map(|(tuple, icmp)| Quote {
        proto: tuple.proto,
        src: tuple.src,
        src_port: tuple.src_port.into(),
        dst: tuple.dst,
        dst_port: tuple.dst_port.into(),
        icmp,
    });
    Sent {
        proto: tuple.proto,
        src: tuple.src,
        src_port: tuple.src_port.into(),
        dst: tuple.dst,
        dst_port: tuple.dst_port.into(),
        icmp: packet.icmp(),
        flags: packet.tcp_flags(),
        mss: edit::mss_of(frame, &packet),
        size: packet.total_len() as u16,
        df: packet.dont_fragment(),
        ttl: packet.ttl(),
        fragment: p.fragment,
        quote,
    }
}
