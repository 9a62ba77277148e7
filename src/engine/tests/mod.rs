//! Scenarios: a small plan, packets, and the verdict AWS would give.

pub(crate) mod builder;
mod gateways;
mod random;
mod says;
mod scenarios;
mod time;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use self::builder::Lab;
use super::{Decider, DropCode, DropRecord, Engine, EngineLimits, Verdict, compile};
use crate::base::{EniIx, Instant};
use crate::wire::make::{self, TcpSpec};
use crate::wire::packet::tcp_flags;
use crate::{base, model};

fn engine(lab: &Lab) -> Engine {
    Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default())
}

/// `10.0.1.10:40000`.
fn sock(text: &str) -> SocketAddrV4 {
    text.parse().expect("address and port")
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("address")
}

fn syn(src: &str, dst: &str) -> Vec<u8> {
    make::tcp(&TcpSpec::syn(sock(src), sock(dst)))
}

fn tcp(src: &str, dst: &str, flags: u8) -> Vec<u8> {
    make::tcp(&TcpSpec::new(sock(src), sock(dst), flags))
}

fn udp(src: &str, dst: &str) -> Vec<u8> {
    make::udp(sock(src), sock(dst), b"x")
}

const ACK: u8 = tcp_flags::ACK;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
const FIN_ACK: u8 = tcp_flags::FIN | tcp_flags::ACK;
const RST: u8 = tcp_flags::RST;

const T0: Instant = Instant::from_millis(10_000);

fn drop_of(code: DropCode) -> Verdict {
    Verdict::Drop { code }
}

fn to(eni: EniIx) -> Verdict {
    Verdict::Deliver { to: eni }
}

fn last_drop(engine: &Engine) -> DropRecord {
    engine.drops().max_by_key(|record| record.last).expect("a drop").clone()
}

/// The packet is dropped with this code, and the log says who decided.
#[track_caller]
fn drops(engine: &mut Engine, from: EniIx, frame: &[u8], code: DropCode, decider: Decider) {
    let now = engine.drops().map(|r| r.last).max().unwrap_or(T0) + std::time::Duration::from_nanos(1);
    assert_eq!(engine.sent(now, from, frame), drop_of(code));
    let record = last_drop(engine);
    assert_eq!((record.from, record.code, record.decider), (from, code, decider));
}

/// Packets that nobody looks at after they were decided.
impl Engine {
    pub(crate) fn sent(&mut self, now: Instant, from: EniIx, frame: &[u8]) -> Verdict {
        self.handle(now, from, &mut frame.to_vec())
    }

    pub(crate) fn sent_from_endpoint(&mut self, now: Instant, eni: EniIx, frame: &[u8]) -> Verdict {
        self.handle_from_endpoint(now, eni, &mut frame.to_vec())
    }
}
