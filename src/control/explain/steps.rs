//! The steps of one packet as lines of a page: of an explained one, or of a live one that is traced.

use std::net::Ipv4Addr;

use super::path::eni_at;
use super::{Step, gateways, owner};
use crate::base::{EniIx, FiveTuple, Proto};
use crate::engine::{Crumb, Decider, Direction, DropCode, DropRecord, NACL_STAR, Outcome, Rule, Stage, may_refer};
use crate::model::Plan;
use crate::model::plan::{NaclRule, RouteTarget, SgPeer, SgRule};

/// What was asked of one packet, in order. `src` is its source address as sent.
pub(super) struct Teller<'a> {
    pub(super) plan: &'a Plan,
    pub(super) proto: Proto,
    /// The destination's.
    pub(super) port: u16,
    pub(super) steps: &'a mut Vec<Step>,
}

impl Teller<'_> {
    /// Tells every crumb of a packet that `from` sent; `record` is the drop's, if it was dropped.
    pub(super) fn tell_all(
        &mut self,
        stage: &'static str,
        from: EniIx,
        src: Ipv4Addr,
        crumbs: &[Crumb],
        record: Option<&DropRecord>,
    ) {
        let mut source = src;
        for (at, crumb) in crumbs.iter().enumerate() {
            self.tell(stage, from, crumb, (&crumbs[..at], crumbs.get(at + 1)), record, source);
            if let Outcome::Pass(Rule::Source(addr)) = crumb.outcome {
                source = addr;
            }
        }
    }

    fn tell(
        &mut self,
        stage: &'static str,
        from: EniIx,
        crumb: &Crumb,
        (before, next): (&[Crumb], Option<&Crumb>),
        record: Option<&DropRecord>,
        from_ip: Ipv4Addr,
    ) {
        let plan = self.plan;
        let at = crumb.eni.map_or_else(|| "-".to_owned(), |eni| plan.eni_label(eni));
        let direct = |c: &Crumb| matches!(c.stage, Stage::Route { .. }) && c.outcome == Outcome::NotAsked;
        let dropped = match crumb.outcome {
            Outcome::Drop(code) => Some(code),
            _ => None,
        };
        match (&crumb.stage, &crumb.outcome) {
            (Stage::SourceDestCheck, Outcome::Pass(_)) if stage == "back" => {}
            // AWS has none outside.
            (Stage::SourceDestCheck, Outcome::Pass(_)) if crumb.eni.is_some_and(|eni| plan.vpc_of(eni).is_none()) => {}
            (Stage::SourceDestCheck, Outcome::Pass(_)) => {
                let off = crumb.eni.is_some_and(|eni| !plan.eni(eni).source_dest_check);
                self.step(stage, &at, "source/dest check", if off { "off" } else { "ok" }, "");
            }
            (Stage::SourceDestCheck, _) => {
                let detail = dropped.map_or_else(String::new, |code| about(code).to_owned());
                self.step(stage, &at, "source/dest check", "DENY", detail);
            }
            (Stage::SgEgress, outcome) => self.security_group(stage, &at, from, true, outcome, from_ip),
            (Stage::SgIngress, outcome) => {
                self.security_group(stage, &at, crumb.eni.unwrap_or(from), false, outcome, from_ip);
            }
            (Stage::Tracked, Outcome::Pass(_)) => {
                self.step(stage, &at, "tracked flow", "ok", "no rule is asked");
            }
            (Stage::Tracked, Outcome::Drop(code @ DropCode::FwNoState)) => {
                self.step(stage, &at, "firewall", "DENY", about(*code));
            }
            (Stage::Tracked, _) => self.step(stage, "-", "flow table", "DENY", "full"),
            // One line for what is not asked between neighbours: it is told with the route.
            (Stage::NaclOut { .. }, Outcome::NotAsked) if next.is_some_and(direct) => {}
            (Stage::NaclIn { .. }, Outcome::NotAsked) if before.iter().any(direct) => {}
            // To a gateway or a middle instance in the subnet itself, and from it.
            (Stage::NaclOut { nacl } | Stage::NaclIn { nacl }, Outcome::NotAsked) => {
                let word = if matches!(crumb.stage, Stage::NaclOut { .. }) { "out" } else { "in" };
                let acl = &plan.network_acls[*nacl];
                let what = format!("NACL {} {word}", acl.common.name);
                let at = self.vpc(Some(acl.vpc));
                self.step(stage, &at, &what, "not asked", "same subnet");
            }
            // A neighbour's: only the sender's own subnet has any.
            (Stage::Route { .. }, Outcome::NotAsked) => {
                let subnet = plan.subnet_of(from).map_or("", |subnet| &subnet.common.name);
                let at = self.vpc(plan.eni(from).vpc());
                self.step(stage, &at, "NACL, route table", "not asked", format!("same subnet {subnet}"));
            }
            (Stage::NaclOut { nacl } | Stage::NaclIn { nacl }, outcome) => {
                let out = matches!(crumb.stage, Stage::NaclOut { .. });
                self.network_acl(stage, *nacl, out, outcome, record);
            }
            (Stage::Route { table }, outcome) => self.route(stage, *table, outcome, record),
            (Stage::Endpoint, Outcome::Drop(code)) => {
                let detail = endpoint_limit(plan, self.proto, self.port, *code, crumb.eni);
                self.step(stage, &at, "endpoint", "DENY", detail);
            }
            (Stage::Resolver | Stage::Imds | Stage::Deliver, Outcome::Drop(code)) => {
                self.step(stage, &at, "destination", "DENY", about(*code));
            }
            (Stage::Resolver, _) => self.step(stage, &at, "resolver", "ok", "never filtered"),
            (Stage::Imds, _) => self.step(stage, &at, "instance metadata", "ok", "never filtered"),
            (Stage::Endpoint | Stage::Deliver, _) => {}
            (gateway, outcome) => {
                let (at, what, word, mut detail) = gateways::step(plan, gateway, crumb.eni, outcome, record);
                if let Some(zone) = gateways::zone_by_hash(plan, crumb, before) {
                    detail = if detail.is_empty() { zone } else { format!("{detail}: {zone}") };
                }
                self.step(stage, &at, &what, word, detail);
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
            self.step(stage, at, &what, "allow", format!("{}{left_out}", rule.text));
            return;
        }
        let names: Vec<&str> =
            plan.eni(eni).security_groups.iter().map(|g| plan.security_groups[*g].common.name.as_str()).collect();
        let what = format!("sg {} {direction}", names.join(","));
        let detail = no_match(plan, eni, egress, from_ip);
        self.step(stage, at, &what, "DENY", detail);
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
        let at = self.vpc(Some(acl.vpc));
        self.step(stage, &at, &what, if passed { "allow" } else { "DENY" }, acl_rule_text(rules, number));
    }

    fn route(&mut self, stage: &'static str, table: usize, outcome: &Outcome, record: Option<&DropRecord>) {
        let plan = self.plan;
        let table = &plan.route_tables[table];
        let what = format!("route table {}", table.common.name);
        let at = self.vpc(Some(table.vpc));
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
        self.step(stage, &at, &what, word, detail);
    }

    /// Whose ACL or route table it is, where there are several of a name.
    fn vpc(&self, vpc: Option<usize>) -> String {
        match vpc {
            Some(vpc) if self.plan.vpcs.len() > 1 => self.plan.vpcs[vpc].common.name.clone(),
            _ => "-".to_owned(),
        }
    }

    fn step(&mut self, stage: &'static str, at: &str, what: &str, outcome: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { stage, at: at.into(), what: what.into(), outcome, detail: detail.into() });
    }
}

/// The steps of a live packet that `from` sent as `sent`; `record` is the drop's, if it was dropped.
pub fn of_live(plan: &Plan, from: EniIx, sent: FiveTuple, crumbs: &[Crumb], record: Option<&DropRecord>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut teller = Teller { plan, proto: sent.proto, port: sent.dst_port, steps: &mut steps };
    teller.tell_all("live", from, sent.src, crumbs, record);
    steps
}

/// `SG_INGRESS at endpoint app.s3: 1 rule, no match: tcp 443 from sg:app`.
pub fn refusal(plan: &Plan, record: &DropRecord) -> String {
    let Refused { kind, object, rule, .. } = refused(plan, record);
    let mut text = format!("{} at {kind} {object}", record.code).trim_end().to_owned();
    let rule = rule.unwrap_or_else(|| about(record.code).to_owned());
    text.push_str(": ");
    text.push_str(&rule);
    text
}

/// Where a packet was dropped and by what rule, in the words of the file.
pub(super) struct Refused {
    pub(super) kind: &'static str,
    pub(super) object: String,
    pub(super) detail: Option<String>,
    pub(super) rule: Option<String>,
}

pub(super) fn refused(plan: &Plan, record: &DropRecord) -> Refused {
    let egress = record.direction == Direction::Egress;
    let eni_detail = |eni: EniIx| {
        let zone = plan.subnet_of(eni)?.az;
        Some(format!("ENI {} (zone {zone})", plan.eni(eni).ip))
    };
    let (kind, object, detail, rule) = match crate::control::rows::behind(plan, record.decider) {
        Decider::Eni(eni) | Decider::Imds(eni) => {
            let (kind, object) = owner(plan, eni);
            (kind, object, None, None)
        }
        Decider::EndpointEni(eni) => {
            let (kind, object) = owner(plan, eni);
            (
                kind,
                object,
                eni_detail(eni),
                Some(endpoint_limit(plan, record.tuple.proto, record.tuple.dst_port, record.code, Some(eni))),
            )
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
    Refused { kind, object, detail, rule }
}

fn endpoint_limit(plan: &Plan, proto: Proto, port: u16, code: DropCode, eni: Option<EniIx>) -> String {
    let endpoint = eni.and_then(|eni| plan.eni(eni).owner.endpoint());
    let ports = endpoint.map(|at| &plan.services[plan.endpoints[at].service].ports);
    match (code, ports) {
        (DropCode::VpcePort, Some(ports)) => {
            // A gateway endpoint leads to the public side, which serves plain HTTP as well.
            let http = eni.is_some_and(|eni| plan.eni(eni).owner.is_door()).then_some(80);
            let ports: Vec<String> = http.iter().chain(ports).map(u16::to_string).collect();
            format!("port {port} is not served, only {}", ports.join(", "))
        }
        (DropCode::VpceProto, _) => format!("{proto} is not carried, only tcp"),
        (code @ DropCode::VpceAzDown, _) => gateways::about_at(plan, code, eni),
        (code, _) => about(code).to_owned(),
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
    let named = rules.iter().any(|rule| matches!(rule.peer, SgPeer::Group(_)));
    let sender = eni_at(plan, eni, peer).filter(|_| named && !egress);
    let member = sender.map_or_else(String::new, |sender| {
        let groups: Vec<&str> =
            plan.eni(sender).security_groups.iter().map(|g| plan.security_groups[*g].common.name.as_str()).collect();
        format!(" ({} is in: {})", plan.eni_label(sender), groups.join(", "))
    });
    let unseen = plan.eni(eni).vpc().and_then(|vpc| {
        let of = |rule: &&SgRule| match rule.peer {
            SgPeer::Group(group) => Some(plan.security_groups[group].vpc),
            _ => None,
        };
        rules.iter().filter_map(of).find(|other| !may_refer(plan, vpc, *other))
    });
    let unseen = unseen.map_or_else(String::new, |other| {
        format!("; nothing carries references to groups of {} here", plan.vpcs[other].common.path)
    });
    format!("{count}, no match: {}{more}{member}{unseen}", texts.join(", "))
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
        DropCode::VpceNoState => "begins no connection and belongs to none",
        DropCode::VpceIdle => "its connection was idle for too long",
        DropCode::CtIdle => "its flow has expired",
        DropCode::CtFull => "it tracks as many connections as it may",
        DropCode::AzDown | DropCode::VpceAzDown => "its zone has failed",
        DropCode::InstanceDown => "it is down by a fault",
        DropCode::FwNoState => "the firewall saw no beginning of this session",
        _ => "dropped",
    }
}
