//! What a packet costs before anything is decided about it, and what segmentation in software costs. Also proves that
//! reading a packet allocates nothing.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpclab::wire::make::{self, TcpSpec};
use vpclab::wire::nat::{self, Rewrite};
use vpclab::wire::packet::tcp_flags;
use vpclab::wire::{Packet, csum, edit, fragment, gso};

#[path = "../tests/support/counting.rs"]
mod counting;

#[global_allocator]
static GLOBAL: counting::Counting = counting::Counting;

fn ends() -> (SocketAddrV4, SocketAddrV4) {
    (SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 40_000), SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 25), 443))
}

fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    counting::allocations(|| {
        for _ in 0..1_000 {
            work();
        }
    })
}

fn parse(c: &mut Criterion) {
    let (client, server) = ends();
    let payload = vec![7; 60_000];
    let ack = TcpSpec::new(client, server, tcp_flags::ACK);
    let kinds = [
        ("tcp-syn", make::tcp(&TcpSpec::syn(client, server))),
        ("tcp-superframe", make::tcp_superframe(&TcpSpec { payload: &payload, ..ack }, 1448)),
        ("udp", make::udp(client, server, b"a question of forty bytes for a resolver")),
        ("icmp-echo", make::icmp_echo(*client.ip(), *server.ip(), make::Echo::Request, 1, 1, &[0; 56])),
    ];
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    for (name, frame) in &kinds {
        let read = || {
            let packet = Packet::parse(black_box(frame)).expect("valid");
            black_box((packet.tuple(), packet.segments(), packet.max_segment_ip_len()));
        };
        let verify = || {
            black_box(Packet::parse(frame).expect("valid").verify_checksums(black_box(frame)));
        };
        assert_eq!(allocations(read), 0, "{name}: reading a packet allocates");
        assert_eq!(allocations(verify), 0, "{name}: verifying a packet allocates");
        group.bench_function(*name, |b| b.iter(read));
        group.bench_function(format!("{name}-verified"), |b| b.iter(verify));
    }
    group.finish();

    let mut answer = vec![0; 512];
    let mut write = || {
        black_box(make::write_udp_into(&mut answer, server, client, 64, black_box(100)));
    };
    assert_eq!(allocations(&mut write), 0, "an answer in place allocates");
    c.bench_function("write-udp-100", |b| b.iter(&mut write));
    c.bench_function("checksum-1500", |b| b.iter(|| csum::sum(black_box(&payload[..1500]))));
}

fn segment(c: &mut Criterion) {
    let (client, server) = ends();
    let payload = vec![7; 64_000];
    let spec = TcpSpec { payload: &payload, ..TcpSpec::new(client, server, tcp_flags::ACK) };
    let mut group = c.benchmark_group("segment-64k");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    for size in [1448, 8460] {
        let frame = make::tcp_superframe(&spec, size);
        let mut buffer = Vec::new();
        let mut cut = || {
            let count = gso::segment_with(black_box(&frame), &mut buffer, |packet| {
                black_box(packet);
            });
            black_box(count.expect("valid"));
        };
        assert_eq!(allocations(&mut cut), 0, "segmentation with a buffer allocates");
        group.bench_function(size.to_string(), |b| b.iter(&mut cut));
    }
    group.finish();
}

/// What a translated packet costs after it has been parsed and decided.
fn translate(c: &mut Criterion) {
    let (client, server) = ends();
    let payload = vec![7; 60_000];
    let ack = TcpSpec::new(client, server, tcp_flags::ACK);
    let public = Ipv4Addr::new(203, 0, 113, 10);
    let there = Rewrite { src: public, src_port: 1_024, dst: *server.ip(), dst_port: server.port() };
    let kinds = [
        ("tcp", make::tcp(&TcpSpec { payload: &payload[..1_400], ..ack })),
        ("tcp-superframe", make::tcp_superframe(&TcpSpec { payload: &payload, ..ack }, 1448)),
        ("udp", make::udp(client, server, b"a question of forty bytes for a resolver")),
        ("icmp-echo", make::icmp_echo(*client.ip(), *server.ip(), make::Echo::Request, 1, 1, &[0; 56])),
    ];
    let mut group = c.benchmark_group("rewrite");
    group.throughput(Throughput::Elements(1));
    for (name, mut frame) in kinds {
        let packet = Packet::parse(&frame).expect("valid");
        let mut change = || nat::rewrite(black_box(&mut frame), black_box(&packet), black_box(&there));
        assert_eq!(allocations(&mut change), 0, "{name}: translating a packet allocates");
        group.bench_function(name, |b| b.iter(&mut change));
    }
    let mut error = make::icmp_error(*server.ip(), 3, 4, 1_400, &make::tcp(&ack)).expect("an error");
    let packet = Packet::parse(&error).expect("valid");
    let mut change = || {
        black_box(nat::rewrite_quote(black_box(&mut error), black_box(&packet), &there, &there));
    };
    assert_eq!(allocations(&mut change), 0, "translating an ICMP error allocates");
    group.bench_function("icmp-error", |b| b.iter(&mut change));
    let mut frame = make::udp(client, server, b"x");
    let packet = Packet::parse(&frame).expect("valid");
    group.bench_function("ttl", |b| b.iter(|| nat::ttl(black_box(&mut frame), &packet, black_box(1))));
    let mut syn = make::tcp(&TcpSpec::syn(client, server));
    let packet = Packet::parse(&syn).expect("valid");
    let mut mss = 60_000;
    let mut clamp = || {
        // Lower each time, as long as it goes.
        mss = if mss == 536 { 60_000 } else { mss - 1 };
        black_box(edit::clamp_mss(black_box(&mut syn), &packet, mss));
    };
    assert_eq!(allocations(&mut clamp), 0, "clamping an MSS allocates");
    group.bench_function("clamp-mss", |b| b.iter(&mut clamp));
    group.finish();

    let mut datagram = make::udp(client, server, &payload[..9_000]);
    datagram[16] = 0;
    let mut buffer = Vec::new();
    let mut cut = || {
        let count = fragment::fragment_with(black_box(&datagram), 1_500, &mut buffer, |piece| {
            black_box(piece);
        });
        black_box(count.expect("valid"));
    };
    assert_eq!(allocations(&mut cut), 0, "fragmentation with a buffer allocates");
    c.bench_function("fragment-9000", |b| b.iter(&mut cut));
}

criterion_group!(benches, parse, segment, translate);
criterion_main!(benches);
