//! What deciding a packet costs: a known flow, a new one, a refused one; routes and security group rules by their
//! number. Also proves that none of it allocates once tables have grown.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpclab::base::{Cidr, EniIx, Instant, PortRange, Proto, Steer};
use vpclab::engine::{Engine, EngineLimits, Lpm, NatAllocator, SgTable, Verdict, compile};
use vpclab::model::plan::{SgPeer, SgRule, TrafficMatch};
use vpclab::wire::make::{self, TcpSpec};
use vpclab::wire::packet::tcp_flags;
use vpclab::{base, model};

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../src/engine/tests/builder.rs"]
mod builder;

use builder::Lab;

#[path = "../tests/support/counting.rs"]
mod counting;

#[global_allocator]
static GLOBAL: counting::Counting = counting::Counting;

/// Allocations in 20,000 runs after as many to warm up: every table has its size, and every new flow and drop record
/// takes the place of an old one.
fn allocations(mut work: impl FnMut()) -> u64 {
    for _ in 0..20_000 {
        work();
    }
    counting::allocations(|| {
        for _ in 0..20_000 {
            work();
        }
    })
}

const CLIENT: EniIx = EniIx(0);
const SERVER: EniIx = EniIx(1);

/// Two instances in two subnets with network ACLs, a client with a narrow rule, and a server with `rules` of them.
fn lab(rules: u32) -> Lab {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let (a, b) = (lab.subnet(vpc, "a", "10.0.1.0/24", 'a'), lab.subnet(vpc, "b", "10.0.2.0/24", 'b'));
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.allow(client, "tcp 443 to sg:server");
    for n in 1..rules {
        lab.allow(server, &format!("tcp {} from 172.16.{}.{}/32", 1_000 + n, n / 250, n % 250));
    }
    lab.allow(server, "tcp 443 from sg:client");
    lab.instance("c", a, "10.0.1.10", &[client]);
    lab.instance("s", b, "10.0.2.10", &[server]);
    lab
}

fn engine(lab: &Lab) -> Engine {
    Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default())
}

fn ends(port: u16) -> (SocketAddrV4, SocketAddrV4) {
    (SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), port), SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 10), 443))
}

fn flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(1));
    let now = Instant::from_millis(1_000);

    let mut known = engine(&lab(10));
    let (client, server) = ends(40_000);
    known.handle(now, CLIENT, &mut make::tcp(&TcpSpec::syn(client, server)));
    let payload = vec![7; 60_000];
    let ack = TcpSpec::new(client, server, tcp_flags::ACK);
    let mut superframe = make::tcp_superframe(&TcpSpec { payload: &payload, ..ack }, 8_961);
    let mut small = make::tcp_superframe(&TcpSpec { payload: &payload[..100], ..ack }, 8_961);
    let mut back = make::tcp_superframe(
        &TcpSpec { payload: &payload[..100], ..TcpSpec::new(server, client, tcp_flags::ACK) },
        8_961,
    );
    for (name, from, frame) in [
        ("flow-hit-superframe", CLIENT, &mut superframe),
        ("flow-hit", CLIENT, &mut small),
        ("flow-hit-back", SERVER, &mut back),
    ] {
        let to = if from == CLIENT { SERVER } else { CLIENT };
        let mut work = || assert_eq!(known.handle(now, from, black_box(&mut *frame)), Verdict::Deliver { to });
        assert_eq!(allocations(&mut work), 0, "{name} allocates");
        group.bench_function(name, |b| b.iter(&mut work));
    }

    // 50,000 flows known, so that entries are not all in the cache.
    let mut many = engine(&lab(10));
    let mut frames: Vec<Vec<u8>> = (0..50_000).map(|port| make::tcp(&TcpSpec::syn(ends(port).0, server))).collect();
    for frame in &mut frames {
        many.handle(now, CLIENT, frame);
    }
    let mut next = 0;
    let mut work = || {
        next = (next + 7_919) % frames.len();
        assert_eq!(many.handle(now, CLIENT, &mut frames[next]), Verdict::Deliver { to: SERVER });
    };
    assert_eq!(allocations(&mut work), 0, "flow-hit among many allocates");
    group.bench_function("flow-hit-of-50000", |b| b.iter(&mut work));

    for rules in [10, 1_000] {
        // Each new flow is reset at once and ends two seconds later; flows come every 10 ms.
        let mut fresh = engine(&lab(rules));
        let mut resets: Vec<Vec<u8>> =
            (0..50_000).map(|port| make::tcp(&TcpSpec::new(server, ends(port).0, tcp_flags::RST))).collect();
        let (mut at, mut time) = (0, now);
        let mut work = || {
            at = (at + 1) % frames.len();
            time = time + Duration::from_millis(10);
            assert_eq!(fresh.handle(time, CLIENT, &mut frames[at]), Verdict::Deliver { to: SERVER });
            fresh.handle(time, SERVER, &mut resets[at]);
            fresh.expire(time);
            while fresh.next_closed().is_some() {}
        };
        assert_eq!(allocations(&mut work), 0, "flow-miss allocates");
        group.bench_function(format!("flow-miss-and-end-{rules}-rules"), |b| b.iter(&mut work));
    }

    let mut closed = engine(&lab(10));
    let mut refused: Vec<Vec<u8>> =
        (0..50_000).map(|port| make::tcp(&TcpSpec::syn(SocketAddrV4::new(*server.ip(), port), client))).collect();
    let mut at = 0;
    let mut work = || {
        at = (at + 1) % refused.len();
        assert!(matches!(closed.handle(now, SERVER, &mut refused[at]), Verdict::Drop { .. }));
    };
    assert_eq!(allocations(&mut work), 0, "a drop allocates");
    group.bench_function("drop", |b| b.iter(&mut work));
    group.finish();
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("longest-prefix");
    for routes in [5u32, 50, 1_000] {
        let block = |n: u32| Cidr::containing(Ipv4Addr::from_bits(0x0a00_0000 + n * 0x1_0100), 16 + (n % 13) as u8);
        let entries: Vec<(Cidr, u32)> = (0..routes).map(|n| (block(n), n)).collect();
        let table = Lpm::new(&entries);
        let mut addr = 0x0a00_0000u32;
        let mut work = || {
            addr = 0x0a00_0000 | (addr.wrapping_mul(0x9e37_79b9) >> 8);
            black_box(table.lookup(black_box(addr)));
        };
        assert_eq!(allocations(&mut work), 0);
        group.bench_function(format!("{routes}-routes"), |b| b.iter(&mut work));
    }
    group.finish();
}

fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("security-groups");
    for rules in [10u32, 1_000] {
        let rule = |n: u32| SgRule {
            id: String::new(),
            matches: TrafficMatch {
                proto: Some(Proto::TCP),
                ports: PortRange { first: (n % 700) as u16, last: (n % 700 + 40) as u16 },
                icmp: (None, None),
            },
            peer: SgPeer::Cidr(Cidr::containing(Ipv4Addr::from_bits(0x0a00_0000 + n * 64), 20 + (n % 12) as u8)),
            text: String::new(),
            implied: false,
        };
        let list: Vec<SgRule> = (0..rules).map(rule).collect();
        let table = SgTable::new(list.iter().enumerate().map(|(at, rule)| (0, at, rule)), &[]);
        let mut addr = 1u32;
        let mut work = || {
            addr = addr.wrapping_mul(0x9e37_79b9).wrapping_add(1);
            black_box(table.lookup(Proto::TCP, (addr % 800) as u16, 0x0a00_0000 | (addr >> 16)));
        };
        assert_eq!(allocations(&mut work), 0);
        group.bench_function(format!("{rules}-rules"), |b| b.iter(&mut work));
    }
    group.finish();
}

/// A port taken and another given back, with so many held towards one destination; and each towards a destination of
/// its own.
fn nat_ports(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat-ports");
    for (name, held, servers) in [
        ("100-held", 100, 1),
        ("27500-held", 27_500, 1),
        ("54999-held", 54_999, 1),
        ("50000-destinations", 50_000, 50_000),
    ] {
        let mut nat = NatAllocator::new(Steer::ALONE, 55_000, 7);
        let mut n = 0u32;
        let mut take = |nat: &mut NatAllocator| {
            n = n.wrapping_add(1);
            let src = (0x0a00_0000 + n / 20_000, 10_000 + (n % 20_000) as u16);
            nat.allocate(1, &[0x0a00_0005], Proto::TCP, src, (0xc612_0000 + n % servers, 443)).expect("a port")
        };
        let mut ports: Vec<_> = (0..held).map(|_| take(&mut nat)).collect();
        let mut at = 0;
        let mut work = || {
            at = (at + 1) % ports.len();
            let new = take(&mut nat);
            nat.give_back(std::mem::replace(&mut ports[at], new));
        };
        assert_eq!(allocations(&mut work), 0, "NAT ports allocate");
        group.bench_function(name, |b| b.iter(&mut work));
    }
    group.finish();
}

criterion_group!(benches, flows, routes, rules, nat_ports);
criterion_main!(benches);
