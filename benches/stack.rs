//! How much the TCP of an endpoint ENI can carry, in memory: the client is arithmetic on sequence numbers, so what is
//! measured is the forwarder. Bytes up, bytes down, small requests, and whole connections, each alone and beside ten
//! thousand idle connections.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpclab::base::{EniIx, Instant};
use vpclab::stack::{Answer, ConnId, Event, Forwarder, Port, Sink, StackLimits};
use vpclab::wire::Packet;
use vpclab::wire::make::{self, TcpSpec};
use vpclab::wire::packet::tcp_flags::{ACK, FIN, PSH, RST, SYN};

const PORT: Port = Port::Endpoint(EniIx(1));
const SUPERFRAME: usize = 45 * 1448;

/// The client's numbers after all it has heard.
#[derive(Clone, Copy, Default)]
struct Heard {
    next: u32,
    acked: u32,
    frames: u32,
}

impl Sink for Heard {
    fn frame(&mut self, _: Port, frame: &mut [u8]) {
        let packet = Packet::parse(frame).expect("valid");
        assert_eq!(packet.tcp_flags() & RST, 0);
        self.next = packet.tcp_seq(frame).wrapping_add(packet.tcp_sequence_len());
        self.acked = packet.tcp_ack(frame);
        self.frames += 1;
    }
}

struct Lab {
    fwd: Forwarder,
    now: Instant,
    serial: u32,
}

struct Client {
    conn: ConnId,
    addr: SocketAddrV4,
    seq: u32,
    heard: Heard,
}

fn server() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 25), 443)
}

impl Lab {
    fn new(idle: u32) -> Lab {
        let limits = StackLimits {
            total_buffer_bytes: usize::MAX / 2,
            half_open_per_source: u32::MAX,
            half_open_per_eni: u32::MAX,
            ..StackLimits::default()
        };
        let mut lab = Lab { fwd: Forwarder::new(limits, 1), now: Instant::from_millis(1), serial: 0 };
        for _ in 0..idle {
            lab.connect();
        }
        lab
    }

    fn connect(&mut self) -> Client {
        self.serial += 1;
        let ip = Ipv4Addr::from_bits(0x0a01_0000 + self.serial / 50_000);
        let addr = SocketAddrV4::new(ip, 1_024 + (self.serial % 50_000) as u16);
        let mut heard = Heard::default();
        let syn = make::tcp(&TcpSpec { window: 65_535, ..TcpSpec::syn(addr, server()) });
        self.fwd.packet(self.now, PORT, &syn, &mut heard);
        let Some(Event::Dial { conn, .. }) = self.fwd.next_event() else { panic!("a dial") };
        assert!(self.fwd.answer(self.now, conn, Answer::Connected, &mut heard));
        let mut client = Client { conn, addr, seq: 2, heard };
        self.say(&mut client, ACK, &[]);
        client
    }

    fn say(&mut self, client: &mut Client, flags: u8, payload: &[u8]) {
        let spec = TcpSpec {
            seq: client.seq,
            ack: client.heard.next,
            window: 65_535,
            payload,
            ..TcpSpec::new(client.addr, server(), flags)
        };
        let frame = make::tcp(&spec);
        self.fwd.packet(self.now, PORT, &frame, &mut client.heard);
        client.seq = client.seq.wrapping_add(payload.len() as u32 + u32::from(flags & (FIN | SYN) != 0));
    }

    fn drain(&mut self, conn: ConnId) -> usize {
        while let Some(event) = self.fwd.next_event() {
            black_box(event);
        }
        self.fwd.recv(conn, |bytes| black_box(bytes).len())
    }
}

fn upload(c: &mut Criterion) {
    let mut group = c.benchmark_group("upload");
    group.throughput(Throughput::Bytes(SUPERFRAME as u64));
    for idle in [0, 10_000] {
        let mut lab = Lab::new(idle);
        let mut client = lab.connect();
        let spec = TcpSpec { ack: client.heard.next, window: 65_535, ..TcpSpec::new(client.addr, server(), ACK | PSH) };
        let mut frame = make::tcp_superframe(&TcpSpec { payload: &vec![7; SUPERFRAME], ..spec }, 1448);
        group.bench_function(format!("beside-{idle}"), |b| {
            b.iter(|| {
                // The checksum is partial: only the number changes from frame to frame.
                frame[34..38].copy_from_slice(&client.seq.to_be_bytes());
                lab.fwd.packet(lab.now, PORT, &frame, &mut client.heard);
                assert_eq!(lab.drain(client.conn), SUPERFRAME);
                lab.fwd.poll(lab.now, &mut client.heard);
                client.seq = client.seq.wrapping_add(SUPERFRAME as u32);
                assert_eq!(client.heard.acked, client.seq);
            });
        });
    }
    group.finish();
}

fn download(c: &mut Criterion) {
    const CHUNK: usize = 1 << 18;
    let bytes = vec![7; CHUNK];
    let mut group = c.benchmark_group("download");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for idle in [0, 10_000] {
        let mut lab = Lab::new(idle);
        let mut client = lab.connect();
        group.bench_function(format!("beside-{idle}"), |b| {
            b.iter(|| {
                let before = client.heard.next;
                assert_eq!(lab.fwd.send(client.conn, &bytes), CHUNK);
                lab.fwd.poll(lab.now, &mut client.heard);
                assert_eq!(client.heard.next.wrapping_sub(before), CHUNK as u32);
                lab.say(&mut client, ACK, &[]);
                lab.drain(client.conn);
            });
        });
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request-200-answer-1000");
    group.throughput(Throughput::Elements(1));
    for idle in [0, 10_000] {
        let mut lab = Lab::new(idle);
        let mut client = lab.connect();
        let (request, answer) = ([1; 200], [2; 1000]);
        group.bench_function(format!("beside-{idle}"), |b| {
            b.iter(|| {
                lab.say(&mut client, ACK | PSH, &request);
                assert_eq!(lab.drain(client.conn), 200);
                assert_eq!(lab.fwd.send(client.conn, &answer), 1000);
                lab.fwd.poll(lab.now, &mut client.heard);
            });
        });
    }
    group.finish();
}

/// SYN to both FINs. The buffers of a megabyte each are part of the price.
fn connections(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection");
    group.throughput(Throughput::Elements(1));
    let mut lab = Lab::new(0);
    group.bench_function("open-and-close", |b| {
        b.iter(|| {
            let mut client = lab.connect();
            lab.say(&mut client, ACK | FIN, &[]);
            lab.fwd.shutdown_write(client.conn);
            lab.fwd.poll(lab.now, &mut client.heard);
            lab.say(&mut client, ACK, &[]);
            lab.drain(client.conn);
            assert_eq!(lab.fwd.usage().connections, 0);
        });
    });
    group.finish();
}

criterion_group!(benches, upload, download, requests, connections);
criterion_main!(benches);
