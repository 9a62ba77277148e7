//! The way of one packet from the ENI it leaves to the ENI it reaches: subnets, gateways of all kinds, and back into
//! subnets. Security groups stand at the ends and are not asked here. The walk changes nothing but a NAT gateway's ports;
//! what it found is entered into the flow table by `decide`, which gives ports back where a packet is refused.

use std::net::Ipv4Addr;

use super::bindings::Books;
use super::decide::{Quoted, Trail, crumb, outcome};
use super::event::Way;
use super::flow::{FlowKey, Passage};
use super::gateways::is_private;
use super::program::{EniKind, Program, Target};
use super::rules::Traffic;
use super::steps::{Refusal, deliver, nacl, route};
use super::verdict::{Decider, DropCode, Outcome, Reaction, Rule, Stage};
use crate::base::{EniIx, FiveTuple, Proto};

mod joined;
mod translate;

/// Places that a packet may pass before it is said to go round.
pub(super) const MOST_PLACES: usize = 48;
/// Largest packets, bytes: at Internet gateways; at transit and NAT gateways (EC2 User Guide, "network MTU").
const INTERNET_MTU: u16 = 1_500;
const TRANSIT_MTU: u16 = 8_500;
/// IPv4 and TCP headers without options.
const HEADERS: u16 = 40;

/// What the walk asks of the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Of the largest segment, IP bytes.
    pub(super) size: usize,
    pub(super) dont_fragment: bool,
    pub(super) fragment: bool,
    pub(super) ttl: u8,
    /// A TCP segment that begins a connection.
    pub(super) syn: bool,
    /// Type of an ICMP message.
    pub(super) icmp: Option<u8>,
    /// What an ICMP error is about, as its sender received it.
    pub(super) quoted: Option<Quoted>,
}

/// Where a packet arrived, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) to: EniIx,
    /// As it arrives.
    pub(super) tuple: FiveTuple,
    pub(super) passage: Passage,
    /// Smallest MTU on the way.
    pub(super) mtu: u16,
    /// It is too large for some link and is to be cut to this; 0: it is not.
    pub(super) fragment: u16,
    pub(super) way: Way,
    /// What an ICMP error quotes, as its receiver sent it.
    pub(super) quoted: Option<Quoted>,
    /// Another packet of the flow may be answered otherwise: each is asked the whole way.
    pub(super) by_packet: bool,
}

pub(super) struct Walk<'a, T> {
    pub(super) program: &'a Program,
    pub(super) from: EniIx,
    pub(super) load: Load,
    /// The packet, or what it quotes, goes towards who began its flow.
    pub(super) answers: bool,
    pub(super) books: Books<'a>,
    pub(super) trail: &'a mut T,
    /// As the packet stands now.
    traffic: Traffic,
    tuple: FiveTuple,
    found: Arrived,
    by_nat: bool,
    by_igw: bool,
    by_gateway_endpoint: bool,
    /// It passed the router beyond the Internet gateways.
    bordered: bool,
    /// It came into the present VPC by a transit gateway.
    transit: bool,
    /// The NAT gateway that it has just left.
    left_nat: Option<u32>,
    /// What led it here, for the case that it goes round.
    last: Decider,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Leaves a subnet: by its ENI there, or by a gateway that stands in it.
    Leave {
        subnet: u32,
        gateway: bool,
    },
    Internet,
    IgwIn {
        public: u32,
        private: u32,
        eni: EniIx,
        igw: u32,
    },
    /// At a transit gateway, by an attachment; out of a VPC with the number of the zone it came from, and the address of
    /// the attachment's ENI there.
    Tgw {
        attachment: u32,
        entered: Option<(u16, Ipv4Addr)>,
    },
    /// Without a router nobody tells the sender that its packet is too large.
    Link {
        link: u32,
        by_aws: bool,
        router: Option<Ipv4Addr>,
    },
    Site {
        site: u32,
    },
    Arrive {
        to: EniIx,
        left: Option<u32>,
    },
    Done {
        to: EniIx,
    },
}

type Next = Result<Place, Refusal>;

impl<'a, T: Trail> Walk<'a, T> {
    #[allow(clippy::too_many_arguments, reason = "the facts of one packet and its surroundings")]
    pub(super) fn new(
        program: &'a Program,
        from: EniIx,
        tuple: FiveTuple,
        traffic: Traffic,
        load: Load,
        answers: bool,
        books: Books<'a>,
        trail: &'a mut T,
    ) -> Walk<'a, T> {
        let found = Arrived {
            to: from,
            tuple,
            passage: Passage::default(),
            mtu: u16::MAX,
            fragment: 0,
            way: Way::Private,
            quoted: load.quoted,
            by_packet: false,
        };
        Walk {
            program,
            from,
            load,
            answers,
            books,
            trail,
            traffic,
            tuple,
            found,
            by_nat: false,
            by_igw: false,
            by_gateway_endpoint: false,
            bordered: false,
            transit: false,
            left_nat: None,
            last: Decider::Eni(from),
        }
    }

    /// To the end.
    pub(super) fn run(mut self) -> Result<Arrived, Refusal> {
        let eni = self.program.eni(self.from);
        if eni.masquerade && self.traffic.src != eni.ip && !self.answers {
            self.masquerade(eni.ip)?;
        }
        let mut place = match eni.kind {
            EniKind::GatewayDoor(endpoint, _) => self.out_of_gateway_endpoint(endpoint)?,
            EniKind::PublicDoor => Place::Internet,
            _ if eni.vpc != super::program::NONE => Place::Leave { subnet: eni.subnet, gateway: false },
            _ if eni.site != super::program::NONE => Place::Site { site: eni.site },
            _ => Place::Internet,
        };
        for _ in 0..MOST_PLACES {
            place = match place {
                Place::Leave { subnet, gateway } => self.leave(subnet, gateway)?,
                Place::Internet => self.internet()?,
                Place::IgwIn { public, private, eni, igw } => self.igw_in(public, private, eni, igw)?,
                Place::Tgw { attachment, entered } => self.tgw(attachment, entered)?,
                Place::Link { link, by_aws, router } => self.link(link, by_aws, router)?,
                Place::Site { site } => self.site(site)?,
                Place::Arrive { to, left } => self.arrive(to, left)?,
                Place::Done { to } => return Ok(self.done(to)),
            };
        }
        Err(Refusal::egress(DropCode::RouteLoop, self.last))
    }

    fn done(&self, to: EniIx) -> Arrived {
        let way = match () {
            () if self.by_gateway_endpoint => Way::GatewayEndpoint,
            () if self.by_nat && self.by_igw => Way::Nat,
            () if self.by_igw => Way::Internet,
            () => Way::Private,
        };
        let mut passage = self.found.passage;
        let (from, there) = (self.program.eni(self.from), self.program.eni(to));
        passage.shapes[0] = from.shape;
        passage.shapes[1] = there.shape;
        let latency = &self.program.latency;
        let zone = |subnet: u32| self.program.subnets.get(subnet as usize).map(|s| s.zone);
        passage.latency_us += match (zone(from.subnet), zone(there.subnet)) {
            (Some(a), Some(b)) if a != b => latency.cross_zone,
            (Some(_), Some(_)) => latency.same_zone,
            _ => 0,
        };
        if matches!(there.kind, EniKind::Endpoint(_)) || matches!(from.kind, EniKind::Endpoint(_)) {
            passage.latency_us += latency.endpoint;
        }
        Arrived { to, tuple: self.tuple, passage, way, ..self.found }
    }

    /// Out of a subnet, by its network ACL and its route table. A neighbour is reached directly, without either.
    fn leave(&mut self, subnet: u32, gateway: bool) -> Next {
        let program = self.program;
        let here = program.subnet(subnet);
        let vpc = &program.vpcs[here.vpc as usize];
        let dst = self.traffic.dst;
        let from_nat = self.left_nat.take();
        let next = route::next(program, subnet, if gateway { None } else { Some(self.from) }, dst);
        let table = here.table as usize;
        let target_eni = match next.to {
            Ok(Target::Local) => vpc.host(dst),
            Ok(Target::Eni(to)) => Some(to),
            Ok(Target::Nat(nat)) => Some(program.gateways.nats[nat as usize].eni),
            _ => None,
        };
        let same_subnet = next.neighbour || target_eni.is_some_and(|to| program.eni(to).subnet == subnet);
        let stage = Stage::NaclOut { nacl: here.nacl as usize };
        if same_subnet {
            self.trail.add(|| crumb(stage, None, Outcome::NotAsked));
        } else {
            let answer = nacl::out(program, here, &self.traffic);
            self.trail.add(|| crumb(stage, None, outcome(answer.map(Rule::Nacl))));
            answer?;
        }
        let stage = Stage::Route { table };
        let at = Decider::RouteTable(table, next.route);
        // A public NAT gateway is there to lead out; what does not, is said of it.
        let public_nat = from_nat.is_some_and(|nat| program.gateways.nats[nat as usize].public);
        let answer = match next.to {
            Err(refusal) if public_nat && refusal.code == DropCode::RtNoRoute => {
                Err(Refusal::egress(DropCode::NatNoIgw, at))
            }
            Ok(Target::Nat(_)) if from_nat.is_some() => Err(Refusal::egress(DropCode::NatNoIgw, at)),
            other => other,
        };
        match (next.route, answer) {
            (_, Err(refusal)) => self.trail.add(|| crumb(stage, None, Outcome::Drop(refusal.code))),
            (Some(route), Ok(_)) => self.trail.add(|| crumb(stage, None, Outcome::Pass(Rule::Route(route)))),
            (None, Ok(_)) => self.trail.add(|| crumb(stage, None, Outcome::NotAsked)),
        }
        let target = answer?;
        self.last = at;
        let left = Some(subnet);
        match target {
            Target::Local => match target_eni {
                Some(to) => Ok(Place::Arrive { to, left }),
                None if next.neighbour => {
                    let nobody = self.nobody(Decider::Eni(self.from));
                    let own = program.eni(self.from).ip == self.traffic.src;
                    nobody.map_err(|refusal| match refusal.code {
                        DropCode::NoEni if own => refusal.answered(Reaction::HostUnreachable { from: here.router() }),
                        _ => refusal,
                    })
                }
                None => self.nobody(at),
            },
            Target::Eni(to) => Ok(Place::Arrive { to, left }),
            Target::Blackhole => Err(Refusal::egress(DropCode::RtBlackhole, at)),
            Target::Igw(igw) => self.igw_out(igw, here.router(), from_nat),
            Target::Nat(nat) => self.nat_in(nat, subnet),
            Target::Peering(peering) => self.peering(peering, here.vpc, here.router()),
            Target::Tgw(tgw) => self.tgw_in(tgw, subnet),
            Target::Vgw(vgw) => self.vgw_out(vgw, here.router()),
            Target::GatewayEndpoint(endpoint) => self.gateway_endpoint(endpoint, here.vpc, from_nat.is_some()),
        }
    }

    /// Nobody in the VPC has the address. Its resolver serves the VPC's own instances only, and those on their host.
    fn nobody(&mut self, decider: Decider) -> Next {
        let resolver = self.program.vpcs.iter().any(|vpc| vpc.resolver == self.traffic.dst);
        let home = self.program.vpc_of(self.from).map(|vpc| vpc.resolver);
        let code = if resolver && home != Some(self.traffic.dst) { DropCode::DnsNotLocal } else { DropCode::NoEni };
        self.trail.add(|| crumb(Stage::Deliver, None, Outcome::Drop(code)));
        Err(Refusal::egress(code, decider))
    }

    /// One to one between a private address and the public one that stands for it (VPC User Guide, "internet gateways").
    fn igw_out(&mut self, igw: u32, router: Ipv4Addr, from_nat: Option<u32>) -> Next {
        let program = self.program;
        let stage = Stage::Igw { igw: igw as usize };
        let at = Decider::Igw(igw as usize);
        let vpc = program.gateways.igws[igw as usize].vpc;
        let answer = if is_private(self.traffic.dst) {
            Err(Refusal::egress(DropCode::IgwPrivateDst, at))
        } else {
            match (program.vpcs[vpc as usize].public(self.traffic.src), from_nat) {
                (Some(public), nat) if nat.is_none_or(|nat| program.gateways.nats[nat as usize].public) => {
                    self.limit(INTERNET_MTU, router, at).map(|()| public)
                }
                (_, Some(nat)) => Err(Refusal::egress(DropCode::NatNoIgw, Decider::Nat(nat as usize))),
                _ => Err(Refusal::egress(DropCode::IgwNoPublicIp, at)),
            }
        };
        self.trail.add(|| crumb(stage, None, outcome(answer.map(|public| Rule::Source(public.into())))));
        self.set_src(answer?, None);
        self.by_igw = true;
        self.border(program.gateways.igws[igw as usize].border)?;
        Ok(Place::Internet)
    }

    /// The first router beyond an Internet gateway counts as a hop, either way.
    fn border(&mut self, router: Ipv4Addr) -> Result<(), Refusal> {
        if self.load.ttl <= self.found.passage.ttl + 1 {
            self.trail.add(|| crumb(Stage::Internet, None, Outcome::Drop(DropCode::TtlExpired)));
            let refusal = Refusal::egress(DropCode::TtlExpired, Decider::Internet);
            return Err(refusal.answered(Reaction::TimeExceeded { from: router }));
        }
        self.found.passage.ttl += 1;
        self.bordered = true;
        Ok(())
    }

    /// Outside: AWS's public side, other hosts, and the public addresses of VPCs.
    fn internet(&mut self) -> Next {
        let gateways = &self.program.gateways;
        let dst = self.traffic.dst;
        self.by_igw = true;
        let latency = &self.program.latency;
        let outside = gateways.internet_host(dst).is_some() || self.is_internet_host(self.from);
        self.found.passage.latency_us += if outside { latency.internet } else { latency.public };
        let next = if let Some(public) = gateways.public(dst) {
            let none = Refusal::egress(DropCode::NoHost, Decider::Internet);
            let (private, eni, addr) = (public.private, public.eni, public.addr);
            public.igw.map(|igw| Place::IgwIn { public: addr, private, eni, igw }).ok_or(none)
        } else if let Some(to) = gateways.internet_host(dst) {
            Ok(Place::Arrive { to, left: None })
        } else {
            let served = gateways.public_blocks.service_at(dst.into()).and(gateways.public_side);
            served
                .map(|to| Place::Arrive { to, left: None })
                .ok_or(Refusal::egress(DropCode::NoHost, Decider::Internet))
        };
        self.trail.add(|| crumb(Stage::Internet, None, outcome(next.map(|_| Rule::None))));
        next
    }

    fn is_internet_host(&self, eni: EniIx) -> bool {
        let eni = self.program.eni(eni);
        eni.vpc == super::program::NONE && eni.site == super::program::NONE && matches!(eni.kind, EniKind::Host)
    }

    fn igw_in(&mut self, public: u32, private: u32, eni: EniIx, igw: u32) -> Next {
        debug_assert_eq!(public, self.traffic.dst);
        // Between two public addresses of VPCs it is one router.
        if !self.bordered {
            self.border(self.program.gateways.igws[igw as usize].border)?;
        }
        let rule = Rule::Destination(private.into());
        self.trail.add(|| crumb(Stage::Igw { igw: igw as usize }, None, Outcome::Pass(rule)));
        self.set_dst(private, None);
        self.by_igw = true;
        let edge = self.program.gateways.igws[igw as usize].edge;
        if matches!(self.program.eni(eni).kind, EniKind::Nat(_)) {
            return Ok(Place::Arrive { to: eni, left: None });
        }
        match edge {
            Some(table) => self.edge(table, eni),
            None => Ok(Place::Arrive { to: eni, left: None }),
        }
    }

    /// The route table of a gateway: routes what comes in to the ENI it is for, or to one that looks at it first.
    fn edge(&mut self, table: u32, eni: EniIx) -> Next {
        let compiled = &self.program.tables[table as usize];
        let route = compiled.lpm.lookup(self.traffic.dst).map(|at| at as usize);
        let at = Decider::RouteTable(table as usize, route);
        let next = match route.map(|route| compiled.routes[route].target) {
            Some(Target::Local) => Ok(eni),
            Some(Target::Eni(to)) => Ok(to),
            Some(_) => Err(Refusal::ingress(DropCode::RtBlackhole, at)),
            None => Err(Refusal::ingress(DropCode::RtNoRoute, at)),
        };
        let rule = route.map_or(Rule::None, Rule::Route);
        self.trail.add(|| crumb(Stage::Route { table: table as usize }, None, outcome(next.map(|_| rule))));
        next.map(|to| Place::Arrive { to, left: None })
    }

    /// By a gateway endpoint: TCP and ping, from its own VPC (PrivateLink guide, "gateway endpoints"); what a NAT gateway
    /// sends is from the gateway's, wherever its client is.
    fn gateway_endpoint(&mut self, endpoint: u32, vpc: u32, by_nat: bool) -> Next {
        let program = self.program;
        let at = Decider::GatewayEndpoint(endpoint as usize);
        let door = program.gateways.doors.get(endpoint as usize).copied().flatten();
        let echo = matches!(self.load.icmp, Some(0 | 8));
        let answer = if self.transit || !(by_nat || program.eni(self.from).vpc == vpc) {
            Err(Refusal::egress(DropCode::GweNotInVpc, at))
        } else if self.traffic.proto != Proto::TCP && !echo {
            Err(Refusal::egress(DropCode::GweProto, at))
        } else {
            door.ok_or(Refusal::egress(DropCode::RtBlackhole, at))
        };
        let stage = Stage::GatewayEndpoint { endpoint: endpoint as usize };
        self.trail.add(|| crumb(stage, None, outcome(answer.map(|_| Rule::None))));
        self.by_gateway_endpoint = true;
        self.found.passage.latency_us += program.latency.gateway_endpoint;
        answer.map(|to| Place::Arrive { to, left: None })
    }

    fn out_of_gateway_endpoint(&mut self, endpoint: u32) -> Next {
        let vpc = self.program.gateways.doors.iter().position(|door| *door == Some(self.from));
        debug_assert_eq!(vpc, Some(endpoint as usize));
        let stage = Stage::GatewayEndpoint { endpoint: endpoint as usize };
        self.trail.add(|| crumb(stage, None, Outcome::Pass(Rule::None)));
        self.by_gateway_endpoint = true;
        self.found.passage.latency_us += self.program.latency.gateway_endpoint;
        let at = Decider::GatewayEndpoint(endpoint as usize);
        let vpc = self.program.gateways.vpc_of_endpoint[endpoint as usize];
        match self.program.vpcs[vpc as usize].host(self.traffic.dst) {
            Some(to) => Ok(Place::Arrive { to, left: None }),
            None => self.nobody(at),
        }
    }

    /// At an ENI: network ACL, faults, source/destination check; a NAT gateway sends on.
    fn arrive(&mut self, to: EniIx, left: Option<u32>) -> Next {
        let program = self.program;
        let eni = program.eni(to);
        if eni.subnet != super::program::NONE {
            self.nacl_in(eni.subnet, left)?;
        }
        if let Some(code) = eni.down {
            self.trail.add(|| crumb(Stage::Fault, Some(to), Outcome::Drop(code)));
            let at = match eni.kind {
                EniKind::Endpoint(_) => Decider::EndpointEni(to),
                EniKind::Nat(nat) => Decider::Nat(nat as usize),
                _ => Decider::Eni(to),
            };
            return Err(Refusal::ingress(code, at));
        }
        match eni.kind {
            EniKind::Nat(nat) => return self.nat_back(nat),
            EniKind::TgwAttachment => {
                self.trail.add(|| crumb(Stage::Deliver, Some(to), Outcome::Drop(DropCode::RouterAddr)));
                return Err(Refusal::ingress(DropCode::RouterAddr, Decider::Eni(to)));
            }
            _ => {}
        }
        if eni.masquerade
            && self.answers
            && let Some(bound) = self.books.masqueraded(self.books.ports[to.at()], true)
            && bound.address == self.traffic.dst
        {
            let FlowKey { src, src_port, .. } = bound.key;
            self.trail.add(|| crumb(Stage::Masquerade, Some(to), Outcome::Pass(Rule::Destination(src.into()))));
            self.set_dst(src, Some(src_port));
            self.books.passed.push(bound);
        }
        if !eni.is_door()
            && let Err(refusal) = deliver::destination(program, to, self.traffic.dst)
        {
            self.trail.add(|| crumb(Stage::SourceDestCheck, Some(to), Outcome::Drop(refusal.code)));
            return Err(refusal);
        }
        Ok(Place::Done { to })
    }

    fn nacl_in(&mut self, subnet: u32, left: Option<u32>) -> Result<(), Refusal> {
        let here = self.program.subnet(subnet);
        let stage = Stage::NaclIn { nacl: here.nacl as usize };
        if left == Some(subnet) {
            self.trail.add(|| crumb(stage, None, Outcome::NotAsked));
            return Ok(());
        }
        let answer = nacl::into(self.program, here, &self.traffic);
        self.trail.add(|| crumb(stage, None, outcome(answer.map(Rule::Nacl))));
        answer.map(|_| ())
    }

    /// A link takes packets up to `mtu`: larger ones are cut, or their sender is told that they may not be, by `router`
    /// if there is one that does.
    fn limit(&mut self, mtu: u16, router: impl Into<Option<Ipv4Addr>>, at: Decider) -> Result<(), Refusal> {
        self.found.mtu = self.found.mtu.min(mtu);
        if self.load.size <= usize::from(mtu) {
            return Ok(());
        }
        if self.load.dont_fragment {
            let Some(from) = router.into() else { return Err(Refusal::egress(DropCode::MtuDropSilent, at)) };
            let reaction = Reaction::FragNeeded { from, mtu, hops: self.found.passage.ttl };
            return Err(Refusal::egress(DropCode::MtuFragNeeded, at).answered(reaction));
        }
        self.found.fragment = self.found.mtu;
        Ok(())
    }

    fn clamp(&mut self, mss: u16) {
        let now = &mut self.found.passage.mss;
        *now = if *now == 0 { mss } else { (*now).min(mss) };
    }
}
