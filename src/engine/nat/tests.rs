//! The allocator against a model that keeps everything as plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample;

use super::*;
use crate::base::{Instant, steer};

const SERVER: u32 = 0xc633_6401;
/// Addresses of each gateway.
const GATEWAYS: [&[u32]; 3] = [&[0x0a00_0005], &[0x0a00_0105, 0x0a00_0106], &[0x0a00_0005, 0x0a00_0205, 0x0a00_0206]];

/// What is bound: address, port and destination as one packet shows them, and the gateway.
type Bound = (u32, u32, u16, u8, u32, u16);

struct Held {
    worker: u32,
    /// As the client sends it.
    sent: FiveTuple,
    nat: u32,
    taken: Taken,
    ends: Instant,
}

/// Workers that share gateways, and what must be true of them.
struct World {
    n: u32,
    bound: u32,
    now: Instant,
    workers: Vec<Allocator>,
    flows: Vec<Held>,
    /// The way back: what the flow table is for the engine.
    back: BTreeMap<Bound, FiveTuple>,
    /// `ErrorPortAllocation` by gateway.
    errors: [u32; GATEWAYS.len()],
}

impl World {
    fn new(n: u32, bound: u32, seed: u64) -> World {
        let workers = (0..n).map(|me| Allocator::new(Steer { n, me }, bound, seed)).collect();
        let (flows, back) = (Vec::new(), BTreeMap::new());
        World { n, bound, now: Instant::ZERO, workers, flows, back, errors: [0; GATEWAYS.len()] }
    }

    fn open(&mut self, nat: usize, sent: FiveTuple, life: Duration) -> Result<(), TestCaseError> {
        let me = steer(&sent, self.n);
        let share = Steer { n: self.n, me }.share(self.bound);
        let held = |world: &World, address| {
            let same = |f: &&Held| {
                let ports = f.sent.proto == Proto::ICMP || f.sent.dst_port == sent.dst_port;
                (f.worker, f.nat, f.taken.address) == (me, nat as u32, address)
                    && (f.sent.proto, f.sent.dst) == (sent.proto, sent.dst)
                    && ports
            };
            world.flows.iter().filter(same).count() as u32
        };
        let full = GATEWAYS[nat].iter().all(|&address| held(self, address) >= share);
        let (src, dst) = ((sent.src.to_bits(), sent.src_port), (sent.dst.to_bits(), sent.dst_port));
        let got = self.workers[me as usize].allocate(nat as u32, GATEWAYS[nat], sent.proto, src, dst);
        prop_assert_eq!(got.is_none(), full, "refused where every address is full, and only there");
        let Some(taken) = got else {
            self.errors[nat] += 1;
            return Ok(());
        };
        prop_assert!(GATEWAYS[nat].contains(&taken.address) && taken.port >= FIRST_PORT);
        prop_assert!(held(self, taken.address) < share);
        let translated = with_port(FiveTuple { src: taken.address.into(), ..sent }, taken.port);
        prop_assert_eq!(steer(&translated.reversed(), self.n), me, "the answer comes to the flow's owner");
        prop_assert!(self.back.insert(bound(nat as u32, &translated), sent).is_none(), "no two bindings overlap");
        self.flows.push(Held { worker: me, sent, nat: nat as u32, taken, ends: self.now + life });
        let in_use = self.workers[me as usize].in_use(nat as u32, taken.address, sent.proto, dst);
        prop_assert_eq!(in_use, held(self, taken.address));
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<(), TestCaseError> {
        let Held { worker, sent, nat, taken, .. } = self.flows.swap_remove(at);
        let translated = with_port(FiveTuple { src: taken.address.into(), ..sent }, taken.port);
        prop_assert_eq!(self.back.remove(&bound(nat, &translated)), Some(sent), "the way back was this flow's");
        let owner = &mut self.workers[worker as usize];
        owner.give_back(taken);
        // A second time nothing happens.
        let dst = (sent.dst.to_bits(), sent.dst_port);
        let left = owner.in_use(nat, taken.address, sent.proto, dst);
        owner.give_back(taken);
        prop_assert_eq!(owner.in_use(nat, taken.address, sent.proto, dst), left);
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        self.now = self.now + time;
        while let Some(at) = self.flows.iter().position(|f| f.ends <= self.now) {
            self.end(at)?;
        }
        Ok(())
    }
}

fn bound(nat: u32, translated: &FiveTuple) -> Bound {
    let FiveTuple { proto, src, src_port, dst, dst_port } = translated;
    (nat, src.to_bits(), *src_port, proto.0, dst.to_bits(), *dst_port)
}

#[derive(Clone, Debug)]
enum Op {
    /// Gateway, client, destination, protocol, seconds that the flow lives.
    Open { nat: usize, client: u16, dst: u8, proto: u8, life: u64 },
    /// One of the flows ends before its time.
    End(sample::Index),
    /// A packet of one of the flows: it lives longer.
    Packet(sample::Index),
    /// Seconds.
    Pass(u64),
    /// A gateway goes, and all its flows.
    Gone(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let open = (0..GATEWAYS.len(), any::<u16>(), 0u8..3, 0u8..3, 1u64..400)
        .prop_map(|(nat, client, dst, proto, life)| Op::Open { nat, client, dst, proto, life });
    let op = prop_oneof![
        24 => open,
        6 => any::<sample::Index>().prop_map(Op::End),
        6 => any::<sample::Index>().prop_map(Op::Packet),
        3 => (1u64..60).prop_map(Op::Pass),
        1 => (0..GATEWAYS.len()).prop_map(Op::Gone),
    ];
    prop::collection::vec(op, 1..400)
}

fn sent(client: u16, dst: u8, proto: u8) -> FiveTuple {
    let proto = [Proto::TCP, Proto::UDP, Proto::ICMP][usize::from(proto)];
    let dst_port = if proto == Proto::ICMP { client } else { 443 };
    let src = (0x0a00_0100 + u32::from(client % 97)).into();
    FiveTuple { proto, src, src_port: client, dst: (SERVER + u32::from(dst)).into(), dst_port }
}

proptest! {
    /// Reuse, exhaustion, overlap, expiry and both directions, with 1, 2 and 4 workers that share gateways.
    #[test]
    fn allocator_does_what_the_model_says(ops in ops(), bound in 1u32..12, seed in any::<u64>()) {
        for n in [1, 2, 4] {
            let mut world = World::new(n, bound, seed);
            for op in &ops {
                match *op {
                    Op::Open { nat, client, dst, proto, life } => {
                        world.open(nat, sent(client, dst, proto), Duration::from_secs(life))?;
                    }
                    Op::Pass(seconds) => world.pass(Duration::from_secs(seconds))?,
                    Op::Gone(nat) => {
                        while let Some(at) = world.flows.iter().position(|f| f.nat == nat as u32) {
                            world.end(at)?;
                        }
                    }
                    Op::End(_) | Op::Packet(_) if world.flows.is_empty() => {}
                    Op::End(which) => world.end(which.index(world.flows.len()))?,
                    Op::Packet(which) => {
                        let at = which.index(world.flows.len());
                        world.flows[at].ends = world.now + Duration::from_secs(350);
                    }
                }
            }
            // In the end all is given back, and nothing is left.
            world.pass(Duration::from_secs(1_000))?;
            prop_assert!(world.flows.is_empty() && world.back.is_empty());
            for worker in &world.workers {
                let free = std::iter::successors(Some(worker.destinations.free), |at| {
                    (*at != END).then(|| worker.destinations.get(*at).next)
                });
                prop_assert_eq!(free.count() - 1, worker.destinations.chunks.len() * CHUNK);
            }
        }
    }
}

/// Connections to one destination, each from a client of its own, until a worker refuses. By the worker: those it took.
fn until_full(n: u32, per_destination: u32, addresses: &[u32], proto: Proto) -> Vec<Vec<Taken>> {
    let workers = (0..n).map(|me| {
        let mut nat = Allocator::new(Steer { n, me }, per_destination, 3);
        let mut next = 0;
        let mut take = || {
            next += 1;
            nat.allocate(1, addresses, proto, (0x0a00_0000 + next / 100, 1_000 + (next % 100) as u16), (SERVER, 443))
        };
        let all: Vec<Taken> = std::iter::from_fn(&mut take).collect();
        assert_eq!(take(), None, "stays full");
        all
    });
    workers.collect()
}

#[test]
fn fifty_five_thousand_per_address_and_destination_and_not_one_more() {
    for n in [1, 2, 4] {
        for (addresses, proto) in [
            (&[7][..], Proto::TCP),
            (&[7, 8], Proto::UDP),
            (&[1, 2, 3, 4, 5, 6, 7, 8], Proto::TCP),
            (&[9], Proto::ICMP),
        ] {
            if n > 1 && addresses.len() > 2 {
                continue;
            }
            let all: Vec<Taken> = until_full(n, 55_000, addresses, proto).concat();
            let distinct: BTreeSet<(u32, u16)> = all.iter().map(|t| (t.address, t.port)).collect();
            assert_eq!(distinct.len(), 55_000 * addresses.len(), "{n} workers");
            for &address in addresses {
                assert_eq!(all.iter().filter(|t| t.address == address).count(), 55_000);
            }
        }
    }
}

#[test]
fn every_port_that_steers_to_a_worker_can_be_used() {
    for n in [1, 2, 4] {
        let usable = |me| {
            let tuple = FiveTuple::tcp(7.into(), 0, SERVER.into(), 443);
            (FIRST_PORT..=u16::MAX).filter(|&port| Steer { n, me }.is_mine(&with_port(tuple, port))).count()
        };
        for (me, taken) in until_full(n, 64_512, &[7], Proto::TCP).iter().enumerate() {
            let share = Steer { n, me: me as u32 }.share(64_512) as usize;
            assert_eq!(taken.len(), usable(me as u32).min(share), "worker {me} of {n}");
        }
    }
}

#[test]
fn what_was_given_back_is_there_again_and_destinations_do_not_share_a_bound() {
    let mut nat = Allocator::new(Steer::ALONE, 100, 3);
    let ask = |nat: &mut Allocator, n: u16, proto, dst| nat.allocate(1, &[7], proto, (9, n), dst);
    let all: Vec<Taken> = (0..100).map(|n| ask(&mut nat, n, Proto::TCP, (SERVER, 443)).expect("room")).collect();
    assert_eq!(ask(&mut nat, 100, Proto::TCP, (SERVER, 443)), None);
    assert!(ask(&mut nat, 100, Proto::TCP, (SERVER, 80)).is_some(), "another port is another destination");
    assert!(ask(&mut nat, 100, Proto::TCP, (SERVER + 1, 443)).is_some(), "so is another address");
    assert!(ask(&mut nat, 100, Proto::UDP, (SERVER, 443)).is_some(), "and another protocol");
    assert!(nat.allocate(2, &[7], Proto::TCP, (9, 100), (SERVER, 443)).is_some(), "and another gateway");
    nat.give_back(all[50]);
    assert_eq!(ask(&mut nat, 50, Proto::TCP, (SERVER, 443)), Some(all[50]), "the same client, the same port");
    nat.set_bound(40);
    nat.give_back(all[0]);
    assert_eq!(ask(&mut nat, 0, Proto::TCP, (SERVER, 443)), None, "a lower bound holds at once for what begins");
    nat.set_bound(101);
    assert!(ask(&mut nat, 0, Proto::TCP, (SERVER, 443)).is_some());
    assert_eq!(nat.allocate(1, &[], Proto::TCP, (9, 1), (SERVER, 443)), None, "a gateway without address");
}

#[test]
fn clients_spread_over_the_addresses_before_any_is_full() {
    let addresses: Vec<u32> = (1..=8).collect();
    let mut nat = Allocator::new(Steer::ALONE, 55_000, 11);
    let mut load = BTreeMap::new();
    for n in 0..16_000u32 {
        let src = (0x0a00_0000 + n / 40, 40_000 + (n % 40) as u16);
        let taken = nat.allocate(1, &addresses, Proto::TCP, src, (SERVER, 443)).expect("room");
        *load.entry(taken.address).or_insert(0u32) += 1;
    }
    assert_eq!(load.len(), 8);
    assert!(load.values().all(|got| (1_800..2_200).contains(got)), "{load:?}");
}

/// Even where a gateway is nearly full a port is found after few looks.
#[test]
fn a_search_is_short_up_to_the_bound() {
    let mut nat = Allocator::new(Steer::ALONE, 55_000, 5);
    let mut looks = 0u64;
    let mut most = 0;
    let mut worst = 0;
    for n in 0..55_000u32 {
        let src = (0x0a00_0000 + n / 100, 1_000 + (n % 100) as u16);
        let known =
            nat.find(&Key::new(1, 7, Proto::TCP, (SERVER, 443)), Key::new(1, 7, Proto::TCP, (SERVER, 443)).hash(5));
        let client = mix(u64::from(src.0) << 16 | u64::from(src.1), 5);
        let random = mix(client ^ Key::new(1, 7, Proto::TCP, (SERVER, 443)).hash(5), 5);
        let free =
            |port: &u16| known.is_none_or(|at| nat.taken.find(cell_hash(at, *port), |other| other == at).is_none());
        let at = ports(random).position(|port| free(&port)).expect("a port") as u64;
        looks += at + 1;
        most = most.max(at);
        let taken = nat.allocate(1, &[7], Proto::TCP, src, (SERVER, 443)).expect("room");
        if ports(random).nth(at as usize) != Some(taken.port) {
            worst += 1;
        }
    }
    assert_eq!(worst, 0, "the search takes the first that is free");
    // The mean of 1/(1 - load) up to a load of 0.85 is 2.2.
    assert!(looks < 55_000 * 3, "{looks} looks");
    assert!(most < 250, "{most} looks for one port");
}

#[test]
fn every_start_and_step_goes_through_all_ports_once() {
    for random in [0u64, 1, 0xffff, 0x0001_0400, 0xdead_beef_1234_5678, u64::MAX] {
        let mut all: Vec<u16> = ports(random).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(FIRST_PORT..=u16::MAX), "{random:x}");
    }
}

#[test]
fn cells_of_one_destination_never_agree() {
    for destination in [0, 1, 255, 70_000, u32::MAX - 2] {
        let hashes: BTreeSet<u32> = (0..=u16::MAX).map(|port| cell_hash(destination, port)).collect();
        assert_eq!(hashes.len(), 65_536);
    }
}

/// The gateway sees the public address, the flow in the end the private one: the port is given back all the same.
#[test]
fn ports_towards_public_addresses_of_the_lab_are_given_back() {
    use crate::engine::{DropCode, Engine, EngineLimits, Verdict, compile};
    use crate::model::{Around, Source, load};
    use crate::wire::make::{self, TcpSpec};
    use crate::wire::packet::{Packet, tcp_flags};

    let text = "
version: 1
name: nat
region: eu-west-1
limits: { nat_ports: 1 }
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    nat_gateways: { nat: { subnet: public } }
    subnets:
      public: { cidr: 10.0.0.0/24, az: a, route_table: public }
      private: { cidr: 10.0.1.0/24, az: a, route_table: private }
    route_tables:
      public: { routes: [{ to: 0.0.0.0/0, via: igw }] }
      private: { routes: [{ to: 0.0.0.0/0, via: \"nat:nat\" }] }
    security_groups:
      web: { ingress: [tcp 80 from 0.0.0.0/0] }
    instances:
      web: { subnet: public, ip: 10.0.0.10, public_ip: true, security_groups: [web] }
      app: { subnet: private, ip: 10.0.1.10, security_groups: [web] }
";
    let plan = match load(&[Source::new("nat.yaml", text)], &Around::default()) {
        Ok(loaded) => loaded.plan,
        Err(report) => panic!("{report:?}"),
    };
    let web = plan.instances[plan.find_instance("web").expect("web")].enis[0];
    let app = plan.instances[plan.find_instance("app").expect("app")].enis[0];
    let public = plan.public_addresses.iter().find(|p| p.eni == web).expect("a public address").addr;
    let mut engine = Engine::new(std::sync::Arc::new(compile(&plan, 1)), EngineLimits::default());
    let mut now = Instant::from_millis(1_000);
    let there = std::net::SocketAddrV4::new(public, 80);
    let client = |port| std::net::SocketAddrV4::new(plan.eni(app).ip, port);
    for round in 0..3 {
        let mut syn = make::tcp(&TcpSpec::syn(client(40_000 + round), there));
        assert_eq!(engine.handle(now, app, &mut syn), Verdict::Deliver { to: web }, "round {round}");
        let translated = Packet::parse(&syn).expect("a packet").tuple();
        let mut other = make::tcp(&TcpSpec::syn(client(50_000), there));
        let full = Verdict::Drop { code: DropCode::NatNoPort };
        assert_eq!(engine.handle(now, app, &mut other), full, "the one port is taken");
        // Refused at once; what is reset is forgotten two seconds later.
        let ends = |ip, port| std::net::SocketAddrV4::new(ip, port);
        let (from, to) = (ends(translated.dst, translated.dst_port), ends(translated.src, translated.src_port));
        let mut reset = make::tcp(&TcpSpec::new(from, to, tcp_flags::RST | tcp_flags::ACK));
        assert_eq!(engine.handle(now, web, &mut reset), Verdict::Deliver { to: app });
        now = now + Duration::from_secs(10);
        engine.expire(now);
        let metrics = engine.counters().nats[0].metrics();
        let value = |name: &str| metrics.iter().find(|(n, _)| *n == name).expect("a metric").1;
        assert_eq!((value("ActiveConnectionCount"), value("ErrorPortAllocation")), (0, u64::from(round) + 1));
    }
}
