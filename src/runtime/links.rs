//! Packets that take time: impaired links and `latency: aws`. A packet passes its sender's link, then the delay of its
//! way (and there its fragmentation, where the way needs it), then its receiver's link, each at the time it comes to it:
//! what waits before a receiver's link does not stand in the way of what comes from nearer.

use super::delay::{DelayBounds, DelayQueue, Held};
use crate::base::{EniIx, Instant};
use crate::engine::shape::{Fate, Frame, Toward};
use crate::engine::{Program, Shaper, Via};
use crate::wire::fragment::fragment_with;
use crate::wire::gso::segment_with;
use crate::wire::packet::Packet;

/// Where a packet goes in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The TUN of an instance.
    Tun(EniIx),
    /// What ends in the router process: an endpoint's ENI or a door.
    Endpoint(EniIx),
    /// The resolver and the metadata service of the sender.
    Resolver,
    Imds,
}

/// The rest of a packet's way.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub from: EniIx,
    pub goal: Goal,
    via: Via,
    /// Number of the link that comes next.
    stage: u8,
}

const SENDERS: u8 = 0;
const LINKS: u8 = 3;

impl Leg {
    pub fn new(from: EniIx, goal: Goal, via: Via) -> Leg {
        Leg { from, goal, via, stage: 0 }
    }

    /// From an instance to what is next to it: its own link only.
    pub fn out_of(from: EniIx, goal: Goal, link: u16) -> Leg {
        Leg::new(from, goal, Via { shapes: [link, 0, 0], ..Via::default() })
    }

    /// To an instance, from what is next to it.
    pub fn into(to: EniIx, link: u16) -> Leg {
        Leg::new(to, Goal::Tun(to), Via { shapes: [0, link, 0], ..Via::default() })
    }

    /// The same way in another program, where ENIs have other indices and links other numbers.
    fn moved(mut self, program: &Program, moved: impl Fn(EniIx) -> Option<EniIx>) -> Option<Leg> {
        self.from = moved(self.from)?;
        self.goal = match self.goal {
            Goal::Tun(to) => Goal::Tun(moved(to)?),
            Goal::Endpoint(to) => Goal::Endpoint(moved(to)?),
            goal @ (Goal::Resolver | Goal::Imds) => goal,
        };
        if let Goal::Tun(to) = self.goal {
            self.via.shapes = [program.link_of(self.from), program.link_of(to), 0];
        }
        Some(self)
    }

    /// Is it from what is next to the receiver, not from another interface?
    pub fn is_from_next_door(&self) -> bool {
        self.goal == Goal::Tun(self.from)
    }

    /// Nothing is left but to hand it over.
    pub fn is_over(&self) -> bool {
        self.stage == LINKS
    }
}

/// Segments that did not come through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// On the link of the sender.
    pub out: u32,
    /// On the link of the receiver.
    pub into: u32,
    /// For want of room in the router.
    pub held: u32,
}

/// The links of a lab, and what is on its way.
pub struct Links {
    shaper: Shaper,
    waiting: DelayQueue<Leg>,
    fates: Vec<Fate>,
    scratch: Vec<Vec<u8>>,
}

impl Links {
    pub fn new(program: &Program) -> Links {
        Links {
            shaper: Shaper::new(program.shapes()),
            waiting: DelayQueue::new(DelayBounds::default()),
            fates: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes the links of a new program, and where interfaces are now. What is on its way arrives, unless its sender or
    /// its receiver is gone.
    pub fn publish(&mut self, program: &Program, moved: impl Fn(EniIx) -> Option<EniIx>) {
        self.shaper.set(program.shapes());
        self.waiting.retag(|leg| leg.moved(program, &moved));
    }

    /// Sends a frame on its way. What comes to a TUN now is given to `write`; the rest is held, and what goes elsewhere
    /// is always: [`Links::pop_due`] has it, at once where nothing delays it.
    pub fn send(&mut self, now: Instant, leg: Leg, frame: &[u8], mut write: impl FnMut(&Leg, EniIx, &[u8])) -> Lost {
        let mut lost = Lost::default();
        self.travel(now, leg, frame, &mut write, &mut lost);
        lost
    }

    /// The next frame whose time has come. If its [`Leg`] is not over it is to be sent on, as of [`Held::due`]. The
    /// buffer goes back by [`Links::recycle`].
    pub fn pop_due(&mut self, now: Instant) -> Option<Held<Leg>> {
        self.waiting.pop_due(now)
    }

    pub fn recycle(&mut self, held: Held<Leg>) {
        self.waiting.recycle(held);
    }

    pub fn next_deadline(&self) -> Instant {
        self.waiting.next_deadline()
    }

    fn travel<W: FnMut(&Leg, EniIx, &[u8])>(
        &mut self,
        now: Instant,
        mut leg: Leg,
        frame: &[u8],
        write: &mut W,
        lost: &mut Lost,
    ) {
        while !leg.is_over() {
            if leg.stage > SENDERS && leg.via.fragment != 0 {
                let mtu = usize::from(std::mem::take(&mut leg.via.fragment));
                return self.cut(|links, buffer| {
                    // What cannot be cut the engine has refused.
                    let _ = fragment_with(frame, mtu, buffer, |piece| links.travel(now, leg, piece, write, lost));
                });
            }
            let stage = leg.stage;
            leg.stage += 1;
            let shape = leg.via.shapes[usize::from(stage)];
            let (toward, delay) = match stage {
                SENDERS => (Toward::Network, u64::from(leg.via.latency_us) * 1_000),
                _ => (Toward::Instance, 0),
            };
            let mut fates = std::mem::take(&mut self.fates);
            let fate = if shape == 0 {
                Frame::Leaves(now)
            } else {
                match Packet::parse(frame) {
                    Ok(packet) => self.shaper.frame(now, shape, toward, &packet, &mut fates),
                    // The engine has refused what is none.
                    Err(_) => Frame::Lost,
                }
            };
            let lost_here = if stage == SENDERS { &mut lost.out } else { &mut lost.into };
            *lost_here += fates.iter().filter(|fate| matches!(fate, Fate::Lost(_))).count() as u32;
            if fate == Frame::Cut {
                self.cut(|links, buffer| {
                    let mut fates = fates.iter();
                    let _ = segment_with(frame, buffer, |piece| {
                        if let Some(Fate::Leaves(at)) = fates.next() {
                            links.hold_or(now, Instant(at.0 + delay), leg, piece, write, lost);
                        }
                    });
                });
            }
            fates.clear();
            self.fates = fates;
            match fate {
                Frame::Cut | Frame::Lost => return,
                Frame::Leaves(at) if at.0 + delay > now.0 => return self.hold(Instant(at.0 + delay), leg, frame, lost),
                Frame::Leaves(_) => {}
            }
        }
        match leg.goal {
            Goal::Tun(to) => write(&leg, to, frame),
            _ => self.hold(now, leg, frame, lost),
        }
    }

    fn hold_or<W: FnMut(&Leg, EniIx, &[u8])>(
        &mut self,
        now: Instant,
        due: Instant,
        leg: Leg,
        frame: &[u8],
        write: &mut W,
        lost: &mut Lost,
    ) {
        if due > now { self.hold(due, leg, frame, lost) } else { self.travel(now, leg, frame, write, lost) }
    }

    #[inline]
    fn hold(&mut self, due: Instant, leg: Leg, frame: &[u8], lost: &mut Lost) {
        if !self.waiting.push(due, leg, frame) {
            lost.held += Packet::parse(frame).map_or(1, |packet| packet.segments());
        }
    }

    /// Lends a buffer in which pieces of a frame are made.
    fn cut(&mut self, work: impl FnOnce(&mut Links, &mut Vec<u8>)) {
        let mut buffer = self.scratch.pop().unwrap_or_default();
        work(self, &mut buffer);
        self.scratch.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::compile;
    use crate::model::Plan;
    use crate::model::plan::Impair;
    use crate::model::testing::plan_of;
    use crate::wire::make::{self, TcpSpec};
    use crate::wire::packet::{IP_OFFSET, tcp_flags};

    const MS: Duration = Duration::from_millis(1);
    const START: Instant = Instant::from_millis(1_000);

    /// Two instances; their links are numbers 1 and 2.
    fn plan(near: Impair, far: Impair) -> Plan {
        let text = "
version: 1
name: links
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { one: { cidr: 10.0.0.0/24, az: a } }
    security_groups: { any: {} }
    instances:
      near: { subnet: one, ip: 10.0.0.10, security_groups: [any] }
      far: { subnet: one, ip: 10.0.0.11, security_groups: [any] }
";
        let mut plan = plan_of(&[text]);
        for (name, impair) in [("near", near), ("far", far)] {
            let at = plan.find_instance(name).expect(name);
            plan.instances[at].impair = Some(impair);
        }
        plan
    }

    struct World {
        links: Links,
        near: EniIx,
        far: EniIx,
        via: Via,
        /// When, to whom, and the first byte of the payload and its length.
        arrived: Vec<(Instant, EniIx, u8, usize)>,
        lost: Lost,
    }

    impl World {
        fn new(near: Impair, far: Impair) -> World {
            let plan = plan(near, far);
            let eni = |name| plan.instances[plan.find_instance(name).expect(name)].enis[0];
            let (near, far) = (eni("near"), eni("far"));
            let program = compile(&plan, 1);
            let via = Via { shapes: [program.link_of(near), program.link_of(far), 0], ..Via::default() };
            assert!(via.shapes[0] != 0 && via.shapes[1] != 0 && via.shapes[0] != via.shapes[1]);
            World { links: Links::new(&program), near, far, via, arrived: Vec::new(), lost: Lost::default() }
        }

        fn send(&mut self, now: Instant, via: Via, frame: &[u8]) {
            let leg = Leg::new(self.near, Goal::Tun(self.far), via);
            self.go(now, leg, frame);
        }

        fn go(&mut self, now: Instant, leg: Leg, frame: &[u8]) {
            let arrived = &mut self.arrived;
            let lost = self.links.send(now, leg, frame, |_, to, frame| {
                let packet = Packet::parse(frame).expect("a packet");
                assert!(packet.verify_checksums(frame));
                let payload = &frame[packet.payload()];
                arrived.push((now, to, payload.first().copied().unwrap_or_default(), payload.len()));
            });
            self.lost.out += lost.out;
            self.lost.into += lost.into;
            self.lost.held += lost.held;
        }

        /// All that is on its way comes through.
        fn finish(&mut self) {
            while self.links.next_deadline() != Instant::NEVER {
                let now = self.links.next_deadline();
                while let Some(mut held) = self.links.pop_due(now) {
                    let frame = held.frame().to_vec();
                    self.go(held.due, held.tag, &frame);
                    self.links.recycle(held);
                }
            }
        }
    }

    fn packet(mark: u8) -> Vec<u8> {
        superframe(&[mark; 100], 1_000)
    }

    fn superframe(payload: &[u8], mss: u16) -> Vec<u8> {
        let (a, b) = ("10.0.0.10:1000".parse().unwrap(), "10.0.0.11:80".parse().unwrap());
        make::tcp_superframe(&TcpSpec { payload, ..TcpSpec::new(a, b, tcp_flags::ACK) }, mss)
    }

    #[test]
    fn links_and_latency_add_up_and_a_superframe_that_is_only_late_stays_whole() {
        let delayed = |ms| Impair { delay: MS * ms, ..Impair::default() };
        let mut world = World::new(delayed(10), delayed(20));
        let via = Via { latency_us: 5_000, ..world.via };
        world.send(START, via, &superframe(&[7; 10_000], 1_000));
        assert!(world.arrived.is_empty());
        world.finish();
        assert_eq!(world.arrived, [(START + 35 * MS, world.far, 7, 10_000)]);
        assert_eq!(world.lost, Lost::default());
    }

    #[test]
    fn what_comes_from_afar_does_not_hold_up_what_comes_from_near() {
        let mut world = World::new(Impair::default(), Impair { rate: Some(8_000_000), ..Impair::default() });
        world.send(START, Via { latency_us: 100_000, ..world.via }, &packet(1));
        world.send(START, world.via, &packet(2));
        world.finish();
        let order: Vec<u8> = world.arrived.iter().map(|(_, _, mark, _)| *mark).collect();
        assert_eq!(order, [2, 1]);
        assert!(world.arrived[0].0 < START + MS && world.arrived[1].0 > START + 100 * MS);
    }

    #[test]
    fn of_a_superframe_the_segments_that_survive_come_through_in_order() {
        let loss = Impair { loss_ppm: 300_000, seed: Some(5), ..Impair::default() };
        let mut world = World::new(loss, loss);
        let payload: Vec<u8> = (0..60u8).flat_map(|n| [n; 1_000]).collect();
        world.send(START, world.via, &superframe(&payload, 1_000));
        let marks: Vec<u8> = world.arrived.iter().map(|(_, _, mark, _)| *mark).collect();
        assert!(marks.is_sorted() && (10..50).contains(&marks.len()), "{marks:?}");
        assert!(world.arrived.iter().all(|(.., len)| *len == 1_000));
        assert_eq!((world.lost.out + world.lost.into) as usize + marks.len(), 60);
        assert!(world.lost.out > 5 && world.lost.into > 5);
        // And the same again in another run.
        let mut again = World::new(loss, loss);
        again.send(START, again.via, &superframe(&payload, 1_000));
        assert_eq!(again.arrived, world.arrived);
    }

    #[test]
    fn a_rate_spreads_a_superframe_over_the_time_it_takes() {
        // 1,040 bytes at 8.32 Mbit/s are 1 ms.
        let mut world = World::new(Impair { rate: Some(8_320_000), ..Impair::default() }, Impair::default());
        world.send(START, world.via, &superframe(&[3; 10_000], 1_000));
        world.finish();
        let times: Vec<Instant> = world.arrived.iter().map(|(when, ..)| *when).collect();
        assert_eq!(times, (1..=10).map(|n| START + MS * n).collect::<Vec<_>>());
    }

    #[test]
    fn fragments_are_cut_behind_the_senders_link() {
        let mut world = World::new(Impair::default(), Impair { delay: MS, ..Impair::default() });
        let (a, b) = ("10.0.0.10:1000".parse().unwrap(), "10.0.0.11:80".parse().unwrap());
        let mut frame = make::udp(a, b, &[9; 3_000]);
        // Without DF.
        frame[IP_OFFSET + 6] = 0;
        let mut pieces = Vec::new();
        let leg = Leg::new(world.near, Goal::Tun(world.far), Via { fragment: 1_500, ..world.via });
        assert_eq!(world.links.send(START, leg, &frame, |_, _, _| panic!("too early")), Lost::default());
        while let Some(mut held) = world.links.pop_due(START + MS) {
            assert!(held.tag.stage > 1 && held.due == START + MS);
            pieces.push(Packet::parse(held.frame()).expect("a fragment").total_len());
            world.links.recycle(held);
        }
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|len| *len <= 1_500));
    }

    #[test]
    fn what_ends_here_is_held_even_if_nothing_delays_it() {
        let mut world = World::new(Impair::default(), Impair { down: true, ..Impair::default() });
        let leg = Leg::out_of(world.near, Goal::Resolver, world.via.shapes[0]);
        world.go(START, leg, &packet(1));
        let held = world.links.pop_due(START).expect("at once");
        assert!(held.tag.is_over() && held.tag.goal == Goal::Resolver);
        // A link that is down takes what comes from next door as well.
        world.go(START, Leg::into(world.far, world.via.shapes[1]), &packet(1));
        assert_eq!(world.lost, Lost { into: 1, ..Lost::default() });
        assert_eq!(world.links.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn what_is_on_its_way_arrives_under_another_plan_or_ends_with_its_receiver() {
        let delayed = Impair { delay: 10 * MS, ..Impair::default() };
        for gone in [false, true] {
            let mut world = World::new(delayed, delayed);
            world.send(START, world.via, &packet(1));
            // Every interface has another index, and with it every link another number.
            let mut plan = plan(delayed, delayed);
            plan.enis.rotate_right(1);
            let enis = plan.enis.len() as u32;
            let next = |eni: EniIx| EniIx((eni.0 + 1) % enis);
            for instance in &mut plan.instances {
                instance.enis = instance.enis.iter().copied().map(next).collect();
            }
            let far = world.far;
            world.links.publish(&compile(&plan, 2), |eni| (!gone || eni != far).then(|| next(eni)));
            world.finish();
            let expected = if gone { Vec::new() } else { vec![(START + 20 * MS, next(far), 1, 100)] };
            assert_eq!(world.arrived, expected);
        }
    }
}
