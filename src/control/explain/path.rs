//! The way there and the way back, by sending the packets of a connection through an engine.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Explanation, gateways, owner};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::engine::{
    Crumb, Decider, Direction, DropCode, DropRecord, Engine, NACL_STAR, Outcome, Rule, Stage, Verdict, Way,
};
use crate::model::Plan;
use crate::model::plan::{EniOwner, EniPlan, NaclRule, RouteTarget, SgRule};
use crate::wire::make::{self, Echo, TcpSpec};
use crate::wire::packet::{Packet, tcp_flags};

/// The client's port in explained packets: in the middle of Linux's range.
pub(super) const CLIENT_PORT: u16 = 40_000;
/// Middle instances that a packet may pass before it is said to go round.
const MIDDLE_MAX: usize = 8;

/// Where a walk ended.
pub(super) struct Walked {
    /// Both packets arrived.
    pub(super) reached: bool,
    /// The ENI that the first one reached, if it reached one.
    pub(super) target: Option<EniIx>,
}

/// Sends the first packet there and its answer back.
pub(super) fn walk(plan: &Plan, engine: Engine, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) -> Walked {
    let mut walker = Walker { plan, engine, dst: told.destination.port, proto: told.destination.proto, told };
    let Some((last, middle)) = walker.there(from, dst) else { return Walked { reached: false, target: None } };
    let Some((target, frame)) = last else { return Walked { reached: true, target: None } };
    let reached = walker.back(from, target, &frame, &middle);
    walker.way();
    Walked { reached, target: Some(target) }
}

/// The ENI an instance's kernel sends from: the one whose subnet holds the destination, else `eth0`.
pub(super) fn eni_towards(plan: &Plan, instance: usize, dst: Ipv4Addr) -> EniIx {
    let enis = &plan.instances[instance].enis;
    let near = enis.iter().find(|eni| plan.link_of(**eni).0.contains(dst));
    *near.unwrap_or(&enis[0])
}

/// True for the instance's own addresses: its kernel sends to them through the loopback device.
pub(super) fn stays_inside(plan: &Plan, instance: usize, dst: Ipv4Addr) -> bool {
    dst.is_loopback() || plan.instances[instance].enis.iter().any(|eni| plan.eni(*eni).ip == dst)
}

/// The ENI that an address means to another ENI: in its own network, else the only one that has it, else who stands
/// behind the public address.
pub(super) fn eni_at(plan: &Plan, beside: EniIx, addr: Ipv4Addr) -> Option<EniIx> {
    let home = plan.eni(beside).vpc();
    let has = |eni: &&(usize, &EniPlan)| eni.1.ip == addr && !eni.1.owner.is_door();
    let all: Vec<(usize, &EniPlan)> = plan.enis.iter().enumerate().collect();
    let own = all.iter().filter(has).find(|(_, eni)| eni.vpc() == home).map(|(at, _)| *at);
    let mut others = all.iter().filter(has).map(|(at, _)| *at);
    let only = match (others.next(), others.next()) {
        (Some(at), None) => Some(at),
        _ => None,
    };
    let at = own.or(only).map(|at| EniIx(at as u32));
    at.or_else(|| plan.public_addresses.iter().find(|public| public.addr == addr).map(|public| public.eni))
}

struct Walker<'a> {
    plan: &'a Plan,
    engine: Engine,
    dst: u16,
    proto: Proto,
    told: &'a mut Explanation,
}

impl Walker<'_> {
    /// Where it arrives and how it looks there, `None` for a service of the host; and the middle instances. `None` in
    /// all if it is dropped.
    #[allow(clippy::type_complexity, reason = "where and how it arrived, and the middle")]
    fn there(&mut self, from: EniIx, dst: Ipv4Addr) -> Option<(Option<(EniIx, Vec<u8>)>, Vec<EniIx>)> {
        let mut frame = self.packet(self.plan.eni(from).ip, dst);
        let mut middle = Vec::new();
        let mut at = from;
        loop {
            let to = match self.send("there", at, &mut frame)? {
                Verdict::Resolver { .. } => return self.host("resolver", "resolver"),
                Verdict::Imds { .. } => return self.host("imds", "instance metadata"),
                Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. } => to,
                Verdict::Drop { .. } | Verdict::Reject { .. } => return None,
            };
            let eni = self.plan.eni(to);
            let now = Packet::parse(&frame).ok()?.tuple().dst;
            if eni.ip == now || eni.owner.is_door() {
                return Some((Some((to, frame)), middle));
            }
            let label = self.plan.eni_label(to);
            if !self.forwards(to) {
                self.told.notes.push(format!("{now} is no address of {label}: it is to forward it"));
                if eni_at(self.plan, from, now).is_none() {
                    return Some((None, middle));
                }
            }
            if middle.contains(&to) || middle.len() == MIDDLE_MAX {
                self.told.notes.push(format!("goes round: {label} gets it again and again"));
                return Some((None, middle));
            }
            middle.push(to);
            at = to;
        }
    }

    fn forwards(&self, eni: EniIx) -> bool {
        matches!(self.plan.eni(eni).owner, EniOwner::Instance(at, _) if self.plan.instances[at].forward.is_some())
    }

    #[allow(clippy::type_complexity, reason = "as `there`")]
    fn host(&mut self, at: &str, what: &str) -> Option<(Option<(EniIx, Vec<u8>)>, Vec<EniIx>)> {
        self.told.step("back", at, what, "ok", "answered on the host itself: no rule is asked");
        Some((None, Vec::new()))
    }

    fn back(&mut self, from: EniIx, target: EniIx, arrived: &[u8], middle_there: &[EniIx]) -> bool {
        let Ok(packet) = Packet::parse(arrived) else { return false };
        let mut frame = self.answer(packet.tuple());
        let mut middle = Vec::new();
        let mut at = target;
        loop {
            let to = match self.send("back", at, &mut frame) {
                Some(Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. }) => to,
                _ => return false,
            };
            if to == from {
                break;
            }
            if middle.contains(&to) || middle.len() == MIDDLE_MAX {
                self.told.notes.push(format!("goes round on the way back: {}", self.plan.eni_label(to)));
                return true;
            }
            middle.push(to);
            at = to;
        }
        if !middle.iter().rev().eq(middle_there) {
            let names = |enis: &[EniIx]| {
                let names: Vec<String> = enis.iter().map(|eni| self.plan.eni_label(*eni)).collect();
                if names.is_empty() { "straight".to_owned() } else { names.join(", ") }
            };
            self.told.notes.push(format!("asymmetric: {} there, {} back", names(middle_there), names(&middle)));
        }
        true
    }

    /// The least private way of the legs that the packet went.
    fn way(&mut self) {
        let rank =
            |way: Way| [Way::Private, Way::GatewayEndpoint, Way::Nat, Way::Internet].iter().position(|w| *w == way);
        let way = self.engine.flows().map(|flow| flow.way).max_by_key(|way| rank(*way));
        if let Some(way) = way.filter(|_| self.told.reachable) {
            self.told.way = Some(way.as_str());
        }
    }

    /// Traces one packet and tells its steps; the frame is then as it arrives. `None` if it was dropped.
    fn send(&mut self, stage: &'static str, from: EniIx, frame: &mut [u8]) -> Option<Verdict> {
        let now = Instant::from_millis(1);
        let sent = Packet::parse(frame).map_or(Ipv4Addr::UNSPECIFIED, |packet| packet.tuple().src);
        let (verdict, crumbs) = match self.plan.eni(from).owner {
            EniOwner::Instance(..) => self.engine.trace(now, from, frame),
            _ => self.engine.trace_from_endpoint(now, from, frame),
        };
        let record = verdict.dropped().and_then(|_| self.engine.drops().last().cloned());
        let mut source = sent;
        for (at, crumb) in crumbs.iter().enumerate() {
            self.tell(stage, from, crumb, &crumbs[..at], record.as_ref(), source);
            if let Outcome::Pass(Rule::Source(addr)) = crumb.outcome {
                source = addr;
            }
        }
        match record {
            None => Some(verdict),
            Some(record) => {
                self.refused(stage, &record);
                None
            }
        }
    }

    fn tell(
        &mut self,
        stage: &'static str,
        from: EniIx,
        crumb: &Crumb,
        before: &[Crumb],
        record: Option<&DropRecord>,
        from_ip: Ipv4Addr,
    ) {
        let plan = self.plan;
        let at = crumb.eni.map_or_else(|| "-".to_owned(), |eni| plan.eni_label(eni));
        let neighbour = before.iter().any(|c| matches!(c.stage, Stage::Route { .. }) && c.outcome == Outcome::NotAsked);
        let dropped = match crumb.outcome {
            Outcome::Drop(code) => Some(code),
            _ => None,
        };
        match (&crumb.stage, &crumb.outcome) {
            (Stage::SourceDestCheck, Outcome::Pass(_)) if stage == "back" => {}
            (Stage::SourceDestCheck, Outcome::Pass(_)) => {
                let off = crumb.eni.is_some_and(|eni| !plan.eni(eni).source_dest_check);
                self.told.step(stage, &at, "source/dest check", if off { "off" } else { "ok" }, "");
            }
            (Stage::SourceDestCheck, _) => {
                let detail = dropped.map_or_else(String::new, |code| about(code).to_owned());
                self.told.step(stage, &at, "source/dest check", "DENY", detail);
            }
            (Stage::SgEgress, outcome) => self.security_group(stage, &at, from, true, outcome, from_ip),
            (Stage::SgIngress, outcome) => {
                self.security_group(stage, &at, crumb.eni.unwrap_or(from), false, outcome, from_ip);
            }
            (Stage::Tracked, Outcome::Pass(_)) => {
                self.told.step(stage, &at, "tracked flow", "ok", "no rule is asked");
            }
            (Stage::Tracked, _) => self.told.step(stage, "-", "flow table", "DENY", "full"),
            // One line for what is not asked between neighbours: it is told with the route.
            (Stage::NaclOut { .. }, Outcome::NotAsked) => {}
            (Stage::NaclIn { .. }, Outcome::NotAsked) if neighbour => {}
            // A neighbour's: only the sender's own subnet has any.
            (Stage::Route { .. }, Outcome::NotAsked) => {
                let subnet = plan.subnet_of(from).map_or("", |subnet| &subnet.common.name);
                self.told.step(stage, "-", "NACL, route table", "not asked", format!("same subnet {subnet}"));
            }
            (Stage::NaclOut { nacl } | Stage::NaclIn { nacl }, outcome) => {
                let out = matches!(crumb.stage, Stage::NaclOut { .. });
                self.network_acl(stage, *nacl, out, outcome, record);
            }
            (Stage::Route { table }, outcome) => self.route(stage, *table, outcome, record),
            (Stage::Endpoint, Outcome::Drop(code)) => {
                let detail = self.endpoint_limit(*code, crumb.eni);
                self.told.step(stage, &at, "endpoint", "DENY", detail);
            }
            (Stage::Resolver | Stage::Imds | Stage::Deliver, Outcome::Drop(code)) => {
                self.told.step(stage, &at, "destination", "DENY", about(*code));
            }
            (Stage::Resolver, _) => self.told.step(stage, &at, "resolver", "ok", "never filtered"),
            (Stage::Imds, _) => self.told.step(stage, &at, "instance metadata", "ok", "never filtered"),
            (Stage::Endpoint | Stage::Deliver, _) => {}
            (gateway, outcome) => {
                let (at, what, word, detail) = gateways::step(plan, gateway, crumb.eni, outcome, record);
                self.told.step(stage, &at, &what, word, detail);
            }
        }
    }

    fn security_group(
        &mut self,
        stage: &'static str,
        at: &str,
        eni: EniIx,
        egress: bool,
        outcome: &Outcome,
        from_ip: Ipv4Addr,
    ) {
        let plan = self.plan;
        let direction = if egress { "egress" } else { "ingress" };
        if let Outcome::Pass(Rule::Sg(group, rule)) = outcome {
            let group = &plan.security_groups[*group];
            let rule = if egress { &group.egress[*rule] } else { &group.ingress[*rule] };
            let left_out = if rule.implied { " (left out)" } else { "" };
            let what = format!("sg {} {direction}", group.common.name);
            self.told.step(stage, at, &what, "allow", format!("{}{left_out}", rule.text));
            return;
        }
        let names: Vec<&str> =
            plan.eni(eni).security_groups.iter().map(|g| plan.security_groups[*g].common.name.as_str()).collect();
        let what = format!("sg {} {direction}", names.join(","));
        let detail = no_match(plan, eni, egress, from_ip);
        self.told.step(stage, at, &what, "DENY", detail);
    }

    fn network_acl(
        &mut self,
        stage: &'static str,
        nacl: usize,
        out: bool,
        outcome: &Outcome,
        record: Option<&DropRecord>,
    ) {
        let acl = &self.plan.network_acls[nacl];
        let (rules, word) = if out { (&acl.egress, "out") } else { (&acl.ingress, "in") };
        let number = match (outcome, record.map(|r| r.decider)) {
            (Outcome::Pass(Rule::Nacl(number)), _) => *number,
            (_, Some(Decider::Nacl(_, number))) => number,
            _ => NACL_STAR,
        };
        let what = format!("NACL {} {word}", acl.common.name);
        let passed = matches!(outcome, Outcome::Pass(_));
        self.told.step(stage, "-", &what, if passed { "allow" } else { "DENY" }, acl_rule_text(rules, number));
    }

    fn route(&mut self, stage: &'static str, table: usize, outcome: &Outcome, record: Option<&DropRecord>) {
        let plan = self.plan;
        let table = &plan.route_tables[table];
        let what = format!("route table {}", table.common.name);
        let (word, detail) = match (outcome, record.map(|r| r.decider)) {
            (Outcome::Pass(Rule::Route(at)), _) => {
                let route = &table.routes[*at];
                match route.target {
                    RouteTarget::Local => ("local", plan.dest_text(route.to)),
                    RouteTarget::Blackhole => ("DENY", plan.route_text(route)),
                    _ => ("route", plan.route_text(route)),
                }
            }
            (_, Some(Decider::RouteTable(_, Some(at)))) => ("DENY", plan.route_text(&table.routes[at])),
            _ => ("DENY", format!("no route to {}", record.map_or(Ipv4Addr::UNSPECIFIED, |r| r.tuple.dst))),
        };
        self.told.step(stage, "-", &what, word, detail);
    }

    fn endpoint_limit(&self, code: DropCode, eni: Option<EniIx>) -> String {
        let endpoint = eni.and_then(|eni| self.plan.eni(eni).owner.endpoint());
        let ports = endpoint.map(|at| &self.plan.services[self.plan.endpoints[at].service].ports);
        match (code, ports) {
            (DropCode::VpcePort, Some(ports)) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("port {} is not served, only {}", self.dst, ports.join(", "))
            }
            (DropCode::VpceProto, _) => format!("{} is not carried, only tcp", self.proto),
            (code, _) => about(code).to_owned(),
        }
    }

    /// Line 2 of a drop: where, by what rule.
    fn refused(&mut self, stage: &'static str, record: &DropRecord) {
        let plan = self.plan;
        let egress = record.direction == Direction::Egress;
        let eni_detail = |eni: EniIx| {
            let zone = plan.subnet_of(eni)?.az;
            Some(format!("ENI {} (zone {zone})", plan.eni(eni).ip))
        };
        let (kind, object, detail, rule) = match record.decider {
            Decider::Eni(eni) | Decider::Imds(eni) => {
                let (kind, object) = owner(plan, eni);
                (kind, object, None, None)
            }
            Decider::EndpointEni(eni) => {
                let (kind, object) = owner(plan, eni);
                (kind, object, eni_detail(eni), Some(self.endpoint_limit(record.code, Some(eni))))
            }
            Decider::SecurityGroups(eni) => {
                let (kind, object) = owner(plan, eni);
                let detail = if kind == "endpoint" { eni_detail(eni) } else { None };
                (kind, object, detail, Some(no_match(plan, eni, egress, record.tuple.src)))
            }
            Decider::Nacl(at, number) => {
                let acl = &plan.network_acls[at];
                let rules = if egress { &acl.egress } else { &acl.ingress };
                let number_text = if number == NACL_STAR { "*".to_owned() } else { number.to_string() };
                let rule = acl_rule_text(rules, number);
                ("nacl", acl.common.path.clone(), Some(format!("rule {number_text}")), Some(rule))
            }
            Decider::RouteTable(at, route) => {
                let table = &plan.route_tables[at];
                let rule = match route {
                    None => format!("no route to {}", record.tuple.dst),
                    Some(at) => plan.route_text(&table.routes[at]),
                };
                ("route-table", table.common.path.clone(), Some(rule.clone()), Some(rule))
            }
            Decider::Resolver(eni) => (
                "resolver",
                plan.vpc_of(eni).map_or_else(|| "public".to_owned(), |vpc| vpc.common.path.clone()),
                None,
                None,
            ),
            Decider::FlowTable => ("flow-table", plan.name.clone(), None, None),
            other => {
                let (kind, object) = crate::control::rows::gateway(plan, other);
                let (detail, rule) = gateways::rule(plan, record);
                (kind, object, detail, rule)
            }
        };
        self.told.fail(stage, record.code.as_str(), kind, object);
        self.told.detail = detail;
        self.told.rule = rule;
        self.told.direction = Some(if egress { "egress" } else { "ingress" });
        self.told.reachability_analyzer = record.code.reachability_analyzer();
    }

    fn packet(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let (src_at, dst_at) = (SocketAddrV4::new(src, CLIENT_PORT), SocketAddrV4::new(dst, self.dst));
        match self.proto {
            Proto::TCP => make::tcp(&TcpSpec::syn(src_at, dst_at)),
            Proto::UDP => make::udp(src_at, dst_at, b""),
            _ => make::icmp_echo(src, dst, Echo::Request, CLIENT_PORT, 1, &[]),
        }
    }

    /// What the receiver of a packet answers.
    fn answer(&self, arrived: FiveTuple) -> Vec<u8> {
        let FiveTuple { src, src_port, dst, dst_port, .. } = arrived.reversed();
        let (src_at, dst_at) = (SocketAddrV4::new(src, src_port), SocketAddrV4::new(dst, dst_port));
        match self.proto {
            Proto::TCP => make::tcp(&TcpSpec::new(src_at, dst_at, tcp_flags::SYN | tcp_flags::ACK)),
            Proto::UDP => make::udp(src_at, dst_at, b""),
            _ => make::icmp_echo(src, dst, Echo::Reply, src_port, 1, &[]),
        }
    }
}

fn acl_rule_text(rules: &[NaclRule], number: u16) -> String {
    let rule = rules.iter().find(|rule| rule.number == number);
    rule.map_or_else(|| "* deny: no rule matches".to_owned(), |rule| rule.text.clone())
}

/// `1 rule, no match: tcp 443 from sg:app (guest is in: guest)`.
fn no_match(plan: &Plan, eni: EniIx, egress: bool, peer: Ipv4Addr) -> String {
    const SHOWN: usize = 3;
    let groups = plan.eni(eni).security_groups.iter().map(|g| &plan.security_groups[*g]);
    let rules: Vec<&SgRule> = groups.flat_map(|g| if egress { &g.egress } else { &g.ingress }).collect();
    if rules.is_empty() {
        return "no rules: nothing is allowed".to_owned();
    }
    let texts: Vec<&str> = rules.iter().take(SHOWN).map(|rule| rule.text.as_str()).collect();
    let more = if rules.len() > SHOWN { ", ..." } else { "" };
    let count = if rules.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", rules.len()) };
    let named = rules.iter().any(|rule| matches!(rule.peer, crate::model::plan::SgPeer::Group(_)));
    let sender = eni_at(plan, eni, peer).filter(|_| named && !egress);
    let member = sender.map_or_else(String::new, |sender| {
        let groups: Vec<&str> =
            plan.eni(sender).security_groups.iter().map(|g| plan.security_groups[*g].common.name.as_str()).collect();
        format!(" ({} is in: {})", plan.eni_label(sender), groups.join(", "))
    });
    format!("{count}, no match: {}{more}{member}", texts.join(", "))
}

/// What a code means, where no rule can be named.
pub(super) fn about(code: DropCode) -> &'static str {
    match code {
        DropCode::SrcDstCheck => "not an address of the ENI, and its check is on",
        DropCode::Broadcast => "a VPC has no broadcast",
        DropCode::Multicast => "a VPC has no multicast",
        DropCode::Ipv6 => "only IPv4 is carried",
        DropCode::NoEni => "no ENI has this address",
        DropCode::RouterAddr => "reserved by AWS: nothing answers there",
        DropCode::DnsDisabled => "the VPC has dns_support: false",
        DropCode::DnsNotLocal => "the resolver serves its own VPC only",
        DropCode::DnsPps => "over the limit of packets per second",
        DropCode::MtuDropSilent => "too large",
        DropCode::CtNoState => "belongs to no flow",
        DropCode::CtIdle => "its flow has expired",
        DropCode::CtFull => "the flow table is full",
        DropCode::AzDown | DropCode::VpceAzDown => "its zone has failed",
        DropCode::InstanceDown => "it is down by a fault",
        DropCode::FwNoState => "the firewall saw no beginning of this session",
        _ => "dropped",
    }
}
