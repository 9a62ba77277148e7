//! Packets through the whole engine, for its benches, its instruction counts and the proof that nothing allocates.
//! Everything that is on in a lab is on here: security groups, network ACLs, routes, counters of ENIs, ways, flows and
//! NAT gateways, the log of drops and of flows that ended. Includers provide `builder`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use vpclab::base::{EniIx, Instant};
use vpclab::engine::{Engine, EngineLimits, Verdict, compile};
use vpclab::model::plan::{RouteTarget, TgwTarget};
use vpclab::wire::make::{self, TcpSpec};
use vpclab::wire::packet::tcp_flags;

use super::builder::Lab;

pub const CLIENT: EniIx = EniIx(0);
/// In the client's VPC.
pub const PEER: EniIx = EniIx(1);
/// Behind the NAT gateway.
pub const HOST: EniIx = EniIx(2);
pub const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 10);
pub const HOST_ADDR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const PUBLIC_ADDR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const START: Instant = Instant::from_millis(1_000);

/// A client in a private subnet, a peer in another with `rules` security group rules, of which the last lets the client
/// in, and a host on the Internet that the client reaches by a NAT gateway.
pub fn lab(rules: u32) -> Lab {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let (a, b) = (lab.subnet(vpc, "a", "10.0.1.0/24", 'a'), lab.subnet(vpc, "b", "10.0.2.0/24", 'a'));
    let edge = lab.subnet(vpc, "edge", "10.0.3.0/24", 'a');
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.allow(client, "tcp 0-65535 to 0.0.0.0/0");
    lab.allow(client, "udp 0-65535 to 0.0.0.0/0");
    for n in 2..rules {
        lab.allow(server, &format!("tcp {} from 172.16.{}.{}/32", 1_000 + n, n / 250, n % 250));
    }
    lab.allow(server, "udp 0-65535 from sg:client");
    lab.allow(server, "tcp 443 from sg:client");
    assert_eq!(lab.instance("client", a, "10.0.1.10", &[client]), CLIENT);
    assert_eq!(lab.instance("peer", b, "10.0.2.10", &[server]), PEER);
    assert_eq!(lab.internet_host("host", "198.51.100.7"), HOST);
    let igw = lab.igw(vpc);
    let nat = lab.nat("nat", edge, "10.0.3.5", Some("203.0.113.10"));
    let main = lab.plan.vpcs[vpc].main_route_table;
    lab.route(main, "0.0.0.0/0", RouteTarget::Nat(nat));
    let out = lab.table(vpc, "edge");
    lab.route(out, "0.0.0.0/0", RouteTarget::Igw(igw));
    lab.plan.subnets[edge].route_table = out;
    lab.plan.limits.conntrack_max = 4_000_000;
    lab
}

pub fn engine(lab: &Lab) -> Engine {
    Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default())
}

/// One kind of packet, over and over.
pub struct Work {
    pub engine: Engine,
    from: EniIx,
    /// As they are sent: the engine rewrites what it is given.
    sent: Vec<Vec<u8>>,
    frame: Vec<u8>,
    at: usize,
    pub now: Instant,
    /// Virtual time from one packet to the next, and the flows that end meanwhile are ended.
    step: Duration,
    expected: Option<EniIx>,
}

impl Work {
    fn new(engine: Engine, from: EniIx, sent: Vec<Vec<u8>>, expected: Option<EniIx>) -> Work {
        let frame = sent[0].clone();
        Work { engine, from, sent, frame, at: 0, now: START, step: Duration::ZERO, expected }
    }

    /// Small segments of one established connection: to the peer, or through the NAT gateway.
    pub fn hit(nat: bool) -> Work {
        let mut engine = engine(&lab(10));
        let (there, to) = if nat { (HOST_ADDR, HOST) } else { (PEER_ADDR, PEER) };
        let (client, server) = (SocketAddrV4::new(CLIENT_ADDR, 40_000), SocketAddrV4::new(there, 443));
        let mut syn = make::tcp(&TcpSpec::syn(client, server));
        assert_eq!(engine.handle(START, CLIENT, &mut syn), Verdict::Deliver { to });
        let port = u16::from_be_bytes([syn[L4], syn[L4 + 1]]);
        let seen = if nat { SocketAddrV4::new(PUBLIC_ADDR, port) } else { client };
        assert_eq!(nat, port != 40_000, "a NAT gateway's port");
        let mut answer = make::tcp(&TcpSpec::new(server, seen, tcp_flags::SYN | tcp_flags::ACK));
        assert_eq!(engine.handle(START, to, &mut answer), Verdict::Deliver { to: CLIENT });
        let ack = TcpSpec { payload: &[7; 100], ..TcpSpec::new(client, server, tcp_flags::ACK) };
        Work::new(engine, CLIENT, vec![make::tcp_superframe(&ack, 1_400)], Some(to))
    }

    /// Each packet begins a flow, ten milliseconds after the one before, and one that began a minute ago ends.
    pub fn miss(rules: u32) -> Work {
        Work::misses(engine(&lab(rules)), PEER_ADDR, PEER)
    }

    fn misses(engine: Engine, there: Ipv4Addr, to: EniIx) -> Work {
        let there = SocketAddrV4::new(there, 443);
        let syn = |port| make::tcp(&TcpSpec::syn(SocketAddrV4::new(CLIENT_ADDR, port), there));
        let step = Duration::from_millis(10);
        Work { step, ..Work::new(engine, CLIENT, (1_024..41_024).map(syn).collect(), Some(to)) }
    }

    /// New flows to a VPC behind a transit gateway with so many routes.
    pub fn transit(routes: u32) -> Work {
        let mut lab = lab(10);
        let far = lab.vpc("far", "10.1.0.0/16");
        let there = lab.subnet(far, "far", "10.1.1.0/24", 'a');
        let open = lab.group(far, "open");
        lab.allow(open, "tcp 443 from 10.0.0.0/16");
        let peer = lab.instance("far", there, "10.1.1.10", &[open]);
        let tgw = lab.tgw("tgw");
        let near = lab.attach(tgw, 0, &[(0, "10.0.1.200")]);
        let other = lab.attach(tgw, far, &[(there, "10.1.1.200")]);
        let (main, back) = (lab.plan.vpcs[0].main_route_table, lab.plan.vpcs[far].main_route_table);
        lab.route(main, "10.1.0.0/16", RouteTarget::Tgw(tgw));
        lab.route(back, "10.0.0.0/16", RouteTarget::Tgw(tgw));
        lab.tgw_route(0, "10.1.0.0/16", TgwTarget::Attachment(other));
        lab.tgw_route(0, "10.0.0.0/16", TgwTarget::Attachment(near));
        for n in 2..routes {
            lab.tgw_route(0, &format!("10.{}.{}.0/24", 100 + n / 256, n % 256), TgwTarget::Attachment(other));
        }
        Work::misses(engine(&lab), Ipv4Addr::new(10, 1, 1, 10), peer)
    }

    /// Segments that no rule allows.
    pub fn drop() -> Work {
        let to = SocketAddrV4::new(PEER_ADDR, 22);
        let syn = |port| make::tcp(&TcpSpec::syn(SocketAddrV4::new(CLIENT_ADDR, port), to));
        Work::new(engine(&lab(10)), CLIENT, (1_024..41_024).map(syn).collect(), None)
    }

    /// One packet.
    #[inline]
    pub fn run(&mut self) {
        self.at = if self.at + 1 == self.sent.len() { 0 } else { self.at + 1 };
        self.frame.copy_from_slice(&self.sent[self.at]);
        match (self.engine.handle(self.now, self.from, &mut self.frame), self.expected) {
            (Verdict::Deliver { to }, Some(expected)) if to == expected => {}
            (Verdict::Drop { .. }, None) => {}
            (other, _) => panic!("{other:?}"),
        }
        if self.step != Duration::ZERO {
            self.now = self.now + self.step;
            self.engine.expire(self.now);
            while self.engine.next_closed().is_some() {}
        }
    }
}

const L4: usize = vpclab::wire::packet::IP_OFFSET + 20;

/// UDP datagrams that begin flows of their own, `n` of 2,000,000.
pub struct Million {
    pub engine: Engine,
    frame: Vec<u8>,
    to: To,
}

/// Where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Peer,
    /// Through the NAT gateway to destinations of 50,000 flows each.
    Host,
    /// Through the NAT gateway to a destination each, of 40 hosts.
    Hosts,
}

pub const MILLION: u32 = 1_000_000;
const HOSTS: u32 = 40;

impl Million {
    /// Flows end `idle` after their packet.
    pub fn new(to: To, idle: Duration) -> Million {
        let mut lab = lab(10);
        lab.plan.limits.sg_udp_idle = idle;
        // What the gateway forgets later costs the same then.
        lab.plan.limits.nat_idle = idle;
        for n in 1..HOSTS {
            lab.internet_host(&format!("host{n}"), &host(n).to_string());
        }
        Million { engine: engine(&lab), frame: Vec::new(), to }
    }

    pub fn begin(&mut self, now: Instant, n: u32) {
        assert!(n < 2 * MILLION, "no more have tuples of their own");
        let (low, high) = (n % 50_000, n / 50_000);
        let (there, port) = match self.to {
            To::Peer => (PEER_ADDR, 1_000 + high),
            To::Host => (HOST_ADDR, 1_000 + high),
            To::Hosts => (host(high), 1_000 + low),
        };
        let (src, dst) = (SocketAddrV4::new(CLIENT_ADDR, 1_024 + low as u16), SocketAddrV4::new(there, port as u16));
        self.frame.resize(make::UDP_PAYLOAD_OFFSET, 0);
        make::write_udp_into(&mut self.frame, src, dst, 64, 0);
        match self.engine.handle(now, CLIENT, &mut self.frame) {
            Verdict::Deliver { to } if (to == PEER) == (self.to == To::Peer) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(HOST_ADDR.to_bits() + n)
}
