//! What a packet costs before anything is decided about it, and what segmentation in software costs. Also proves that
//! reading a packet allocates nothing.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpclab::wire::make::{self, TcpSpec};
use vpclab::wire::packet::tcp_flags;
use vpclab::wire::{Packet, csum, gso};

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

criterion_group!(benches, parse, segment);
criterion_main!(benches);
