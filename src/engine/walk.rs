//! The way of one packet from the ENI it leaves to the ENI it reaches: subnets, gateways of all kinds, and back into
//! subnets. Security groups stand at the ends and are not asked here. The walk changes nothing but a NAT gateway's ports;
//! what it found is entered into the flow table by `decide`.

use std::net::Ipv4Addr;

use super::decide::{Trail, crumb, outcome};
use super::event::Way;
use super::flow::{Binding, Passage};
use super::gateways::{Attached, End, is_private};
use super::nat::Allocator;
use super::program::{EniKind, Program, Target};
use super::rules::Traffic;
use super::steps::{Refusal, deliver, nacl, route};
use super::verdict::{Decider, DropCode, Outcome, Reaction, Rule, Stage};
use crate::base::{EniIx, FiveTuple, Proto, steer};

/// Places that a packet may pass before it is said to go round.
const MOST_PLACES: usize = 48;
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
}

/// What is known of the packet's flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) binding: Option<Binding>,
    /// The packet goes towards the initiator, which has this address and port.
    pub(super) client: Option<(u32, u16)>,
    /// There was such a flow, and it was idle for too long.
    pub(super) forgotten: bool,
    /// It is an ICMP error about a packet of a flow.
    pub(super) related: bool,
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
    pub(super) binding: Option<Binding>,
    /// The binding was made for this packet.
    pub(super) fresh: bool,
}

pub(super) struct Walk<'a, T> {
    pub(super) program: &'a Program,
    pub(super) from: EniIx,
    pub(super) load: Load,
    pub(super) known: Known,
    pub(super) nat: &'a mut Allocator,
    /// Port numbers of ENIs.
    pub(super) ports: &'a [u32],
    pub(super) trail: &'a mut T,
    /// As the packet stands now.
    traffic: Traffic,
    tuple: FiveTuple,
    found: Arrived,
    by_nat: bool,
    by_igw: bool,
    by_gateway_endpoint: bool,
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
    /// At a transit gateway, by an attachment; the number of the zone it came from.
    Tgw {
        attachment: u32,
        zone: Option<u16>,
    },
    Link {
        link: u32,
        by_aws: bool,
        router: Ipv4Addr,
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
        known: Known,
        nat: &'a mut Allocator,
        ports: &'a [u32],
        trail: &'a mut T,
    ) -> Walk<'a, T> {
        let found = Arrived {
            to: from,
            tuple,
            passage: Passage::default(),
            mtu: u16::MAX,
            fragment: 0,
            way: Way::Private,
            binding: None,
            fresh: false,
        };
        Walk {
            program,
            from,
            load,
            known,
            nat,
            ports,
            trail,
            traffic,
            tuple,
            found,
            by_nat: false,
            by_igw: false,
            by_gateway_endpoint: false,
            transit: false,
            left_nat: None,
            last: Decider::Eni(from),
        }
    }

    /// To the end. A port of a NAT gateway that was taken for a packet which is refused later is given back.
    pub(super) fn run(mut self) -> Result<Arrived, Refusal> {
        let walked = self.walk();
        if walked.is_err()
            && self.found.fresh
            && let Some(binding) = self.found.binding
        {
            self.nat.release(binding.at, binding.port);
        }
        walked
    }

    fn walk(&mut self) -> Result<Arrived, Refusal> {
        let eni = self.program.eni(self.from);
        if eni.masquerade && self.traffic.src != eni.ip && self.known.client.is_none() {
            self.masquerade(eni.ip)?;
        }
        let mut place = match eni.kind {
            EniKind::GatewayDoor(endpoint, _) => self.from_gateway_endpoint(endpoint)?,
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
                Place::Tgw { attachment, zone } => self.tgw(attachment, zone)?,
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
                None if next.neighbour => self.nobody(Decider::Eni(self.from)),
                None => self.nobody(at),
            },
            Target::Eni(to) => Ok(Place::Arrive { to, left }),
            Target::Blackhole => Err(Refusal::egress(DropCode::RtBlackhole, at)),
            Target::Igw(igw) => self.igw_out(igw, here.router(), from_nat),
            Target::Nat(nat) => self.nat_in(nat, subnet),
            Target::Peering(peering) => self.peering(peering, here.vpc, here.router()),
            Target::Tgw(tgw) => self.tgw_in(tgw, subnet),
            Target::Vgw(vgw) => self.vgw_out(vgw, here.router()),
            Target::GatewayEndpoint(endpoint) => self.gateway_endpoint(endpoint, here.vpc),
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
        self.found.passage.latency_us += program.latency.internet;
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
        Ok(())
    }

    /// Outside: AWS's public side, other hosts, and the public addresses of VPCs.
    fn internet(&mut self) -> Next {
        let gateways = &self.program.gateways;
        let dst = self.traffic.dst;
        self.by_igw = true;
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

    fn from_vpc(&self) -> bool {
        self.program.eni(self.from).vpc != super::program::NONE
    }

    fn igw_in(&mut self, public: u32, private: u32, eni: EniIx, igw: u32) -> Next {
        debug_assert_eq!(public, self.traffic.dst);
        // Between two VPCs' public addresses it is one router.
        if !self.from_vpc() {
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

    /// Into a NAT gateway: the packet goes on with the gateway's private address and a port of its own.
    fn nat_in(&mut self, nat: u32, left: u32) -> Next {
        let program = self.program;
        let gateway = &program.gateways.nats[nat as usize];
        let subnet = program.subnet(gateway.subnet);
        self.nacl_in(gateway.subnet, Some(left))?;
        let at = Decider::Nat(nat as usize);
        if subnet.down {
            self.trail.add(|| crumb(Stage::Fault, Some(gateway.eni), Outcome::Drop(DropCode::AzDown)));
            return Err(Refusal::egress(DropCode::AzDown, at));
        }
        let answer = self.translate(nat, at);
        let rule = |binding: Binding| Rule::Source(binding.address.into());
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(rule))));
        let binding = answer?;
        self.set_src(binding.address, Some(binding.port));
        self.found.binding = Some(binding);
        self.found.passage.ttl += 1;
        self.clamp(TRANSIT_MTU - HEADERS);
        self.by_nat = true;
        self.transit = false;
        self.left_nat = Some(nat);
        self.found.passage.latency_us += program.latency.nat;
        Ok(Place::Leave { subnet: gateway.subnet, gateway: true })
    }

    /// VPC User Guide, "NAT gateways": TCP, UDP and ICMP; UDP's fragments only; 350 idle seconds.
    fn translate(&mut self, nat: u32, at: Decider) -> Result<Binding, Refusal> {
        let gateway = &self.program.gateways.nats[nat as usize];
        let proto = self.traffic.proto;
        let refuse = |code| Refusal::egress(code, at);
        if !matches!(proto, Proto::TCP | Proto::UDP | Proto::ICMP) {
            return Err(refuse(DropCode::NatProto));
        }
        if self.load.fragment && proto != Proto::UDP {
            return Err(refuse(DropCode::NatFragment));
        }
        let private = Ipv4Addr::from_bits(gateway.addresses.first().copied().unwrap_or_default());
        self.limit(TRANSIT_MTU, private, at)?;
        if self.load.ttl <= self.found.passage.ttl + 1 {
            let reaction = Reaction::TimeExceeded { from: private };
            return Err(refuse(DropCode::TtlExpired).answered(reaction));
        }
        let port = self.ports[gateway.eni.at()];
        if let Some(binding) = self.known.binding.filter(|b| b.nat == port && self.known.client.is_none()) {
            return Ok(binding);
        }
        // ICMP errors about a packet that came in by the gateway.
        if self.known.related
            && let Some(binding) = self.known.binding.filter(|b| b.nat == port)
        {
            return Ok(binding);
        }
        let begins = match proto {
            Proto::TCP => self.load.syn,
            Proto::ICMP => self.load.icmp == Some(8),
            _ => true,
        };
        if !begins {
            return Err(if self.known.forgotten && proto == Proto::TCP {
                refuse(DropCode::NatIdle).answered(Reaction::Reset)
            } else {
                refuse(DropCode::NatNoState)
            });
        }
        let src = (self.traffic.src, self.tuple.src_port);
        let dst = (self.traffic.dst, self.tuple.dst_port);
        let taken = self.nat.allocate(port, &gateway.addresses, proto, src, dst);
        let binding = Binding::new(port, taken.ok_or(refuse(DropCode::NatNoPort))?);
        self.found.fresh = true;
        self.found.binding = Some(binding);
        Ok(binding)
    }

    /// A NAT instance: its kernel forwards, and what it forwards goes on under its own address. The translation is the
    /// engine's, so that no tool is needed in the instance; its own captures show the packets before it.
    fn masquerade(&mut self, own: u32) -> Result<(), Refusal> {
        let at = Decider::Eni(self.from);
        let port = self.ports[self.from.at()];
        let taken = match self.known.binding.filter(|b| b.nat == port) {
            Some(binding) => Ok(binding),
            None => {
                let src = (self.traffic.src, self.tuple.src_port);
                let dst = (self.traffic.dst, self.tuple.dst_port);
                let taken = self.nat.allocate(port, &[own], self.traffic.proto, src, dst);
                self.found.fresh = taken.is_some();
                let taken = taken.map(|taken| Binding::new(port, taken));
                taken.ok_or(Refusal::egress(DropCode::NatNoPort, at))
            }
        };
        let rule = |binding: Binding| Rule::Source(binding.address.into());
        self.trail.add(|| crumb(Stage::Masquerade, Some(self.from), outcome(taken.map(rule))));
        let binding = taken?;
        self.found.binding = Some(binding);
        self.set_src(binding.address, Some(binding.port));
        Ok(())
    }

    /// What comes to a NAT gateway's address: an answer for a client behind it, or nothing that it takes.
    fn nat_back(&mut self, nat: u32) -> Next {
        let gateway = &self.program.gateways.nats[nat as usize];
        let at = Decider::Nat(nat as usize);
        let refuse = |code| Refusal::ingress(code, at);
        let port = self.ports[gateway.eni.at()];
        let binding = self.known.binding.filter(|b| b.nat == port && b.address == self.traffic.dst);
        let answer = match (binding, self.known.client) {
            (Some(_), Some(_)) if self.load.ttl <= self.found.passage.ttl + 1 => Err(refuse(DropCode::TtlExpired)),
            (Some(_), Some(_)) if self.load.fragment && self.traffic.proto != Proto::UDP => {
                Err(refuse(DropCode::NatFragment))
            }
            (Some(binding), Some(client)) => Ok((binding, client)),
            _ if self.known.forgotten => Err(refuse(DropCode::NatIdle)),
            _ => Err(refuse(DropCode::NatNoState)),
        };
        let rule = |(_, client): (Binding, (u32, u16))| Rule::Destination(client.0.into());
        self.trail.add(|| crumb(Stage::Nat { nat: nat as usize }, None, outcome(answer.map(rule))));
        let (binding, (addr, client_port)) = answer?;
        self.set_dst(addr, Some(client_port));
        self.found.binding = Some(binding);
        self.found.passage.ttl += 1;
        self.clamp(TRANSIT_MTU - HEADERS);
        self.by_nat = true;
        self.transit = false;
        Ok(Place::Leave { subnet: gateway.subnet, gateway: true })
    }

    /// Not transitive: only between the addresses of the two VPCs (VPC peering guide).
    fn peering(&mut self, peering: u32, vpc: u32, router: Ipv4Addr) -> Next {
        let compiled = self.program.gateways.peerings[peering as usize];
        let at = Decider::Peering(peering as usize);
        let other = compiled.vpcs[usize::from(compiled.vpcs[0] == vpc)];
        let answer = if self.transit {
            Err(Refusal::egress(DropCode::PeerTransit, at))
        } else if let Err(refusal) = self.within(other, DropCode::PeerTransit, at) {
            Err(refusal)
        } else {
            self.limit(compiled.mtu, router, at)
        };
        let stage = Stage::Peering { peering: peering as usize };
        self.trail.add(|| crumb(stage, None, outcome(answer.map(|()| Rule::None))));
        answer?;
        let latency = &self.program.latency;
        self.found.passage.latency_us += if compiled.mtu < 9_001 { latency.inter_region } else { latency.peering };
        match self.program.vpcs[other as usize].host(self.traffic.dst) {
            Some(to) => Ok(Place::Arrive { to, left: None }),
            None => self.nobody(at),
        }
    }

    /// From outside a VPC only its own addresses are reached: a gateway endpoint's are not among them.
    fn within(&self, vpc: u32, code: DropCode, at: Decider) -> Result<(), Refusal> {
        let vpc = &self.program.vpcs[vpc as usize];
        if vpc.holds(self.traffic.dst.into()) {
            return Ok(());
        }
        Err(match vpc.gateway_endpoints.lookup(self.traffic.dst) {
            Some(endpoint) => Refusal::egress(DropCode::GweNotInVpc, Decider::GatewayEndpoint(endpoint as usize)),
            None => Refusal::egress(code, at),
        })
    }

    /// Into a transit gateway by the attachment's ENI in the sender's zone (Transit Gateway guide).
    fn tgw_in(&mut self, tgw: u32, left: u32) -> Next {
        let program = self.program;
        let here = program.subnet(left);
        let vpc = &program.vpcs[here.vpc as usize];
        let attachment = vpc.attachments.iter().find(|(of, _)| *of == tgw).map(|(_, attachment)| *attachment);
        let Some(attachment) = attachment else {
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        let compiled = &program.gateways.attachments[attachment as usize];
        let Attached::Vpc { subnets, .. } = &compiled.to else {
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        let stage = Stage::TgwAttachment { attachment: attachment as usize };
        let Some((subnet, eni)) = subnets.iter().find(|(at, _)| program.subnet(*at).zone == here.zone) else {
            self.trail.add(|| crumb(stage, None, Outcome::Drop(DropCode::TgwNoAz)));
            return Err(Refusal::egress(DropCode::TgwNoAz, Decider::Tgw(tgw as usize)));
        };
        // Asked in the same subnet too (Transit Gateway guide, "network ACLs").
        self.nacl_in(*subnet, None)?;
        let at = Decider::TgwAttachment(attachment as usize);
        if program.subnet(*subnet).down {
            self.trail.add(|| crumb(Stage::Fault, Some(*eni), Outcome::Drop(DropCode::AzDown)));
            return Err(Refusal::egress(DropCode::AzDown, at));
        }
        let router = Ipv4Addr::from_bits(program.eni(*eni).ip);
        let answer = self.tgw_limit(compiled.tgw, router, at).and_then(|()| match compiled.table {
            Some(_) => Ok(()),
            None => Err(Refusal::egress(DropCode::TgwNoAssociation, at)),
        });
        self.trail.add(|| crumb(stage, Some(*eni), outcome(answer.map(|()| Rule::None))));
        answer?;
        self.found.passage.latency_us += program.latency.tgw;
        Ok(Place::Tgw { attachment, zone: Some(here.zone) })
    }

    fn tgw_limit(&mut self, tgw: u32, router: Ipv4Addr, at: Decider) -> Result<(), Refusal> {
        self.clamp(TRANSIT_MTU - HEADERS);
        if !self.program.gateways.tgws[tgw as usize].pmtud && self.load.size > usize::from(TRANSIT_MTU) {
            return Err(Refusal::egress(DropCode::MtuDropSilent, at));
        }
        self.limit(TRANSIT_MTU, router, at)
    }

    /// The table of the attachment it came by, and out of another.
    fn tgw(&mut self, attachment: u32, zone: Option<u16>) -> Next {
        let program = self.program;
        let gateways = &program.gateways;
        let Some(table) = gateways.attachments[attachment as usize].table else {
            return Err(Refusal::egress(DropCode::TgwNoAssociation, Decider::TgwAttachment(attachment as usize)));
        };
        let compiled = &gateways.tgw_tables[table as usize];
        let route = compiled.lpm.lookup(self.traffic.dst).map(|at| at as usize);
        let at = Decider::TgwRouteTable(table as usize, route);
        self.last = at;
        let next = match route.map(|route| compiled.routes[route]) {
            None => Err(Refusal::egress(DropCode::TgwNoRoute, at)),
            Some(None) => Err(Refusal::egress(DropCode::TgwBlackhole, at)),
            Some(Some(to)) => Ok(to),
        };
        let rule = route.map_or(Rule::None, Rule::Route);
        self.trail.add(|| crumb(Stage::TgwRoute { table: table as usize }, None, outcome(next.map(|_| rule))));
        let to = next?;
        let (subnets, appliance) = match &gateways.attachments[to as usize].to {
            Attached::Link(link) => {
                let router = gateways.sites[gateways.links[*link as usize].site as usize].gateway;
                return Ok(Place::Link { link: *link, by_aws: true, router });
            }
            Attached::Vpc { subnets, appliance } => (subnets, *appliance),
        };
        let by_hash = || subnets.get(steer(&self.tuple, subnets.len() as u32) as usize);
        let in_zone = || subnets.iter().find(|(at, _)| Some(program.subnet(*at).zone) == zone);
        let chosen = if appliance { by_hash() } else { in_zone().or_else(by_hash) };
        let decider = Decider::TgwAttachment(to as usize);
        let answer = match chosen {
            Some((subnet, _)) if program.subnet(*subnet).down => Err(Refusal::ingress(DropCode::AzDown, decider)),
            Some((subnet, eni)) => Ok((*subnet, *eni)),
            None => Err(Refusal::ingress(DropCode::TgwNoAz, decider)),
        };
        let stage = Stage::TgwAttachment { attachment: to as usize };
        let eni = chosen.map(|(_, eni)| *eni);
        self.trail.add(|| crumb(stage, eni, outcome(answer.map(|_| Rule::None))));
        let (subnet, _) = answer?;
        self.transit = true;
        Ok(Place::Leave { subnet, gateway: true })
    }

    /// To a site, by the link that leads there.
    fn vgw_out(&mut self, vgw: u32, router: Ipv4Addr) -> Next {
        let at = Decider::Vgw(vgw as usize);
        let link = self.program.gateways.vgws[vgw as usize].links.lookup(self.traffic.dst);
        let answer = match link {
            _ if self.transit => Err(Refusal::egress(DropCode::VgwTransit, at)),
            None => Err(Refusal::egress(DropCode::VgwNoRoute, at)),
            Some(link) => Ok(link),
        };
        self.trail.add(|| crumb(Stage::Vgw { vgw: vgw as usize }, None, outcome(answer.map(|_| Rule::None))));
        answer.map(|link| Place::Link { link, by_aws: true, router })
    }

    /// Through a VPN's tunnel or a Direct Connect interface, either way.
    fn link(&mut self, link: u32, by_aws: bool, router: Ipv4Addr) -> Next {
        let program = self.program;
        let compiled = &program.gateways.links[link as usize];
        let site = &program.gateways.sites[compiled.site as usize];
        let at = Decider::Link(link as usize);
        let tunnel = compiled.tunnel(by_aws);
        let answer = match (compiled.direct, tunnel) {
            (true, _) => self.limit(compiled.mtu, router, at).map(|()| Rule::None),
            (false, Some(n)) => {
                let tunnel = compiled.tunnels[n];
                if let Some(mss) = tunnel.mss {
                    self.clamp(mss);
                }
                self.limit(tunnel.mtu, router, at).map(|()| Rule::Tunnel(n))
            }
            (false, None) => Err(Refusal::egress(DropCode::VpnDown, at)),
        };
        self.trail.add(|| crumb(Stage::Link { link: link as usize }, None, outcome(answer)));
        answer?;
        let latency = &program.latency;
        self.found.passage.latency_us += if compiled.direct { latency.direct_connect } else { latency.vpn };
        if by_aws {
            return match site.host(self.traffic.dst) {
                Some(to) => Ok(Place::Arrive { to, left: None }),
                None => {
                    let site = compiled.site as usize;
                    self.trail.add(|| crumb(Stage::SiteRoute { site }, None, Outcome::Drop(DropCode::NoHost)));
                    Err(Refusal::egress(DropCode::NoHost, Decider::Site(site, None)))
                }
            };
        }
        match compiled.end {
            End::Tgw(attachment) => {
                let at = Decider::TgwAttachment(attachment as usize);
                let answer = match program.gateways.attachments[attachment as usize].table {
                    Some(_) => Ok(Rule::None),
                    None => Err(Refusal::egress(DropCode::TgwNoAssociation, at)),
                };
                let stage = Stage::TgwAttachment { attachment: attachment as usize };
                self.trail.add(|| crumb(stage, None, outcome(answer)));
                answer?;
                Ok(Place::Tgw { attachment, zone: None })
            }
            End::Vgw(vgw) => self.vgw_in(vgw),
        }
    }

    fn vgw_in(&mut self, vgw: u32) -> Next {
        let compiled = &self.program.gateways.vgws[vgw as usize];
        let at = Decider::Vgw(vgw as usize);
        let answer = self.within(compiled.vpc, DropCode::VgwTransit, at);
        let answer = answer.map_err(|refusal| Refusal::ingress(refusal.code, refusal.decider));
        self.trail.add(|| crumb(Stage::Vgw { vgw: vgw as usize }, None, outcome(answer.map(|()| Rule::None))));
        answer?;
        let Some(to) = self.program.vpcs[compiled.vpc as usize].host(self.traffic.dst) else {
            return self.nobody(at);
        };
        match compiled.edge {
            Some(table) => self.edge(table, to),
            None => Ok(Place::Arrive { to, left: None }),
        }
    }

    /// The router of a site: hosts of its own, and what its table knows.
    fn site(&mut self, site: u32) -> Next {
        let compiled = &self.program.gateways.sites[site as usize];
        if let Some(to) = compiled.host(self.traffic.dst) {
            return Ok(Place::Arrive { to, left: None });
        }
        let route = compiled.lpm.lookup(self.traffic.dst).map(|at| at as usize);
        let at = Decider::Site(site as usize, route);
        let next = route.and_then(|route| compiled.routes[route]).ok_or(Refusal::egress(DropCode::SiteNoRoute, at));
        let rule = route.map_or(Rule::None, Rule::Route);
        self.trail.add(|| crumb(Stage::SiteRoute { site: site as usize }, None, outcome(next.map(|_| rule))));
        next.map(|link| Place::Link { link, by_aws: false, router: compiled.gateway })
    }

    /// By a gateway endpoint: TCP and ping, from its own VPC (PrivateLink guide, "gateway endpoints").
    fn gateway_endpoint(&mut self, endpoint: u32, vpc: u32) -> Next {
        let program = self.program;
        let at = Decider::GatewayEndpoint(endpoint as usize);
        let door = program.gateways.doors.get(endpoint as usize).copied().flatten();
        let echo = matches!(self.load.icmp, Some(0 | 8));
        let answer = if self.transit || program.eni(self.from).vpc != vpc {
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

    fn from_gateway_endpoint(&mut self, endpoint: u32) -> Next {
        let vpc = self.program.gateways.doors.iter().position(|door| *door == Some(self.from));
        debug_assert_eq!(vpc, Some(endpoint as usize));
        let stage = Stage::GatewayEndpoint { endpoint: endpoint as usize };
        self.trail.add(|| crumb(stage, None, Outcome::Pass(Rule::None)));
        self.by_gateway_endpoint = true;
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
            && let Some(binding) = self.known.binding.filter(|b| b.nat == self.ports[to.at()])
            && let Some((addr, port)) = self.known.client.filter(|_| binding.address == self.traffic.dst)
        {
            self.trail.add(|| crumb(Stage::Masquerade, Some(to), Outcome::Pass(Rule::Destination(addr.into()))));
            self.set_dst(addr, Some(port));
            self.found.binding = Some(binding);
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

    /// A link takes packets up to `mtu`: larger ones are cut, or their sender is told that they may not be.
    fn limit(&mut self, mtu: u16, router: Ipv4Addr, at: Decider) -> Result<(), Refusal> {
        self.found.mtu = self.found.mtu.min(mtu);
        if self.load.size <= usize::from(mtu) {
            return Ok(());
        }
        if self.load.dont_fragment {
            let reaction = Reaction::FragNeeded { from: router, mtu };
            return Err(Refusal::egress(DropCode::MtuFragNeeded, at).answered(reaction));
        }
        self.found.fragment = self.found.mtu;
        Ok(())
    }

    fn clamp(&mut self, mss: u16) {
        let now = &mut self.found.passage.mss;
        *now = if *now == 0 { mss } else { (*now).min(mss) };
    }

    fn set_src(&mut self, addr: u32, port: Option<u16>) {
        self.traffic.src = addr;
        self.tuple.src = addr.into();
        if let Some(port) = port.filter(|_| self.has_ports()) {
            self.tuple.src_port = port;
            if self.traffic.proto == Proto::ICMP {
                self.tuple.dst_port = port;
            }
        }
    }

    fn set_dst(&mut self, addr: u32, port: Option<u16>) {
        self.traffic.dst = addr;
        self.tuple.dst = addr.into();
        if let Some(port) = port.filter(|_| self.has_ports()) {
            self.tuple.dst_port = port;
            match self.traffic.proto {
                Proto::ICMP => self.tuple.src_port = port,
                _ => self.traffic.selector = port,
            }
        }
    }

    /// ICMP errors have no identifier of their own.
    fn has_ports(&self) -> bool {
        match self.traffic.proto {
            Proto::TCP | Proto::UDP => true,
            Proto::ICMP => matches!(self.load.icmp, Some(0 | 8)),
            _ => false,
        }
    }
}
