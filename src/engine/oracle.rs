//! The slow oracle: what AWS does to a packet, answered from the `Plan` by reading its lists, with one set of
//! connection records per ENI. It shares no table, index, cache or flow entry with the engine.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::verdict::{Crumb, Decider, Direction, DropCode, Outcome, Rule, Stage, Verdict};
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::model::Plan;
use crate::model::plan::{EniOwner, NaclRule, RouteDest, RouteTarget, SgPeer, SgRule, TrafficMatch};

/// A packet in the words of rules. ICMP is echo or another message without state of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) proto: Proto,
    pub(super) src: Ipv4Addr,
    pub(super) dst: Ipv4Addr,
    /// ICMP echo: the identifier.
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) icmp: Option<u8>,
    /// TCP: SYN without ACK.
    pub(super) begins: bool,
}

/// Why it was dropped.
pub(super) type Why = (DropCode, Decider, Direction);

/// One connection record of an ENI: who, whom, by what; and which half of a ping it may send.
type Record = (u32, Proto, Ipv4Addr, u16, Ipv4Addr, u16, Option<bool>);

#[derive(Default)]
pub(super) struct Oracle {
    /// Connections each ENI has seen; true if its security groups track it.
    records: HashMap<Record, bool>,
}

impl Oracle {
    /// The verdict on a packet that the owner of `from` sends, and every question on its way.
    pub(super) fn ask(&mut self, plan: &Plan, from: EniIx, p: &Sent) -> (Verdict, Option<Why>, Vec<Crumb>) {
        let mut crumbs = Vec::new();
        match self.way(plan, from, p, &mut crumbs) {
            Ok(verdict) => (verdict, None, crumbs),
            Err(why) => (Verdict::Drop { code: why.0 }, Some(why), crumbs),
        }
    }

    fn way(&mut self, plan: &Plan, from: EniIx, p: &Sent, crumbs: &mut Vec<Crumb>) -> Result<Verdict, Why> {
        let eni = plan.eni(from);
        let vpc = &plan.vpcs[eni.vpc().expect("in a VPC")];
        let from_endpoint = matches!(eni.owner, EniOwner::Endpoint(_));
        if !from_endpoint {
            let sound = if p.dst.is_multicast() {
                Err(DropCode::Multicast)
            } else if p.dst == Ipv4Addr::BROADCAST {
                Err(DropCode::Broadcast)
            } else if eni.source_dest_check && p.src != eni.ip {
                Err(DropCode::SrcDstCheck)
            } else {
                Ok(())
            };
            note(crumbs, Stage::SourceDestCheck, Some(from), sound.map(|()| Rule::None));
            sound.map_err(|code| (code, Decider::Eni(from), Direction::Egress))?;
            if let Some(verdict) = host_service(plan, from, p, crumbs) {
                return verdict;
            }
            for subnet in plan.subnets.iter().filter(|s| Some(s.vpc) == eni.vpc() && s.cidr.contains(p.dst)) {
                let offset = p.dst.to_bits() - subnet.cidr.network().to_bits();
                let code = match offset {
                    0..=3 => DropCode::RouterAddr,
                    _ if p.dst == subnet.cidr.last() => DropCode::Broadcast,
                    _ => continue,
                };
                note(crumbs, Stage::Deliver, None, Err(code));
                return Err((code, Decider::Eni(from), Direction::Egress));
            }
        }

        let mine = record(from, p, false);
        let tracked_out = self.groups(plan, from, p, mine, Direction::Egress, from_endpoint, crumbs)?;

        let subnet = &plan.subnets[eni.subnet().expect("in a subnet")];
        let neighbour = subnet.cidr.contains(p.dst);
        let host = || {
            let at = plan.enis.iter().position(|e| e.vpc() == eni.vpc() && e.ip == p.dst);
            at.map(|at| EniIx(at as u32))
        };
        let table = &plan.route_tables[subnet.route_table];
        let route = if neighbour { None } else { best_route(table, p.dst) };
        let hop = match route.map(|at| table.routes[at].target) {
            None if neighbour => host().ok_or((DropCode::NoEni, Decider::Eni(from))),
            None => Err((DropCode::RtNoRoute, Decider::RouteTable(subnet.route_table, None))),
            Some(RouteTarget::Local) => host().ok_or((DropCode::NoEni, Decider::RouteTable(subnet.route_table, route))),
            Some(RouteTarget::Blackhole) => {
                Err((DropCode::RtBlackhole, Decider::RouteTable(subnet.route_table, route)))
            }
            Some(RouteTarget::Eni(to)) => Ok(to),
            Some(_) => unreachable!("no gateways in these plans"),
        };
        let inside = neighbour || hop.is_ok_and(|to| plan.eni(to).subnet() == eni.subnet());
        let stage = Stage::NaclOut { nacl: subnet.nacl };
        if inside {
            crumbs.push(Crumb { stage, eni: None, outcome: Outcome::NotAsked });
        } else {
            let (allow, number) = first_rule(&plan.network_acls[subnet.nacl].egress, p, p.dst);
            let answer = if allow { Ok(Rule::Nacl(number)) } else { Err(DropCode::NaclOut) };
            note(crumbs, stage, None, answer);
            answer.map_err(|code| (code, Decider::Nacl(subnet.nacl, number), Direction::Egress))?;
        }
        let stage = Stage::Route { table: subnet.route_table };
        match (route, hop) {
            (_, Err((code @ (DropCode::RtNoRoute | DropCode::RtBlackhole), _))) => note(crumbs, stage, None, Err(code)),
            (Some(at), _) => note(crumbs, stage, None, Ok(Rule::Route(at))),
            (None, _) => crumbs.push(Crumb { stage, eni: None, outcome: Outcome::NotAsked }),
        }
        let to = hop.map_err(|(code, decider)| {
            if code == DropCode::NoEni {
                note(crumbs, Stage::Deliver, None, Err(code));
            }
            (code, decider, Direction::Egress)
        })?;

        let there = plan.eni(to);
        let entered = &plan.subnets[there.subnet().expect("in a subnet")];
        let stage = Stage::NaclIn { nacl: entered.nacl };
        if inside {
            crumbs.push(Crumb { stage, eni: None, outcome: Outcome::NotAsked });
        } else {
            let (allow, number) = first_rule(&plan.network_acls[entered.nacl].ingress, p, p.src);
            let answer = if allow { Ok(Rule::Nacl(number)) } else { Err(DropCode::NaclIn) };
            note(crumbs, stage, None, answer);
            answer.map_err(|code| (code, Decider::Nacl(entered.nacl, number), Direction::Ingress))?;
        }
        let endpoint = match there.owner {
            EniOwner::Endpoint(at) => Some(&plan.services[plan.endpoints[at].service].ports),
            _ => None,
        };
        if (there.source_dest_check || endpoint.is_some()) && there.ip != p.dst {
            note(crumbs, Stage::SourceDestCheck, Some(to), Err(DropCode::SrcDstCheck));
            return Err((DropCode::SrcDstCheck, Decider::Eni(to), Direction::Ingress));
        }
        let theirs = record(to, p, true);
        if let Some(ports) = endpoint {
            let known = self.records.contains_key(&theirs);
            let answer = if p.proto != Proto::TCP {
                Err(DropCode::VpceProto)
            } else if !known && !ports.contains(&p.dst_port) {
                Err(DropCode::VpcePort)
            } else if !known && !p.begins {
                Err(DropCode::VpceNoState)
            } else {
                Ok(Rule::None)
            };
            note(crumbs, Stage::Endpoint, Some(to), answer);
            answer.map_err(|code| (code, Decider::EndpointEni(to), Direction::Ingress))?;
        }
        let tracked_in = self.groups(plan, to, p, theirs, Direction::Ingress, false, crumbs)?;

        // A private endpoint at either end: always tracked.
        let always = from_endpoint || endpoint.is_some();
        self.records.insert(mine, tracked_out || always);
        self.records.insert(theirs, tracked_in || always);
        note(crumbs, Stage::Deliver, Some(to), Ok(Rule::None));
        let _ = vpc;
        Ok(if endpoint.is_some() { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } })
    }

    /// Security groups of one ENI; true if it tracks the connection from now on.
    #[allow(clippy::too_many_arguments, reason = "a test helper")]
    fn groups(
        &self,
        plan: &Plan,
        at: EniIx,
        p: &Sent,
        record: Record,
        direction: Direction,
        begins_nothing: bool,
        crumbs: &mut Vec<Crumb>,
    ) -> Result<bool, Why> {
        let known = self.records.get(&record);
        if known == Some(&true) {
            note(crumbs, Stage::Tracked, Some(at), Ok(Rule::None));
            return Ok(true);
        }
        let out = direction == Direction::Egress;
        let stage = if out { Stage::SgEgress } else { Stage::SgIngress };
        if begins_nothing {
            note(crumbs, stage, Some(at), Err(DropCode::CtNoState));
            return Err((DropCode::CtNoState, Decider::EndpointEni(at), direction));
        }
        let peer = if out { p.dst } else { p.src };
        let mut matching: Vec<(usize, usize, &SgRule)> = Vec::new();
        for &group in &plan.eni(at).security_groups {
            let sg = &plan.security_groups[group];
            for (i, rule) in (if out { &sg.egress } else { &sg.ingress }).iter().enumerate() {
                if matches(&rule.matches, p) && is_peer(plan, rule.peer, peer) {
                    matching.push((group, i, rule));
                }
            }
        }
        let Some((group, rule, _)) = matching.first() else {
            let reply = match p.proto {
                Proto::TCP => !p.begins,
                Proto::ICMP => p.icmp == Some(0),
                _ => false,
            };
            let code = match (known.is_none() && reply, out) {
                (true, _) => DropCode::CtNoState,
                (false, true) => DropCode::SgEgress,
                (false, false) => DropCode::SgIngress,
            };
            note(crumbs, stage, Some(at), Err(code));
            return Err((code, Decider::SecurityGroups(at), direction));
        };
        note(crumbs, stage, Some(at), Ok(Rule::Sg(*group, *rule)));
        let from_everywhere = matching.iter().any(|(_, _, rule)| rule.peer == SgPeer::Cidr(Cidr::ANY));
        let other_way = plan.eni(at).security_groups.iter().any(|&group| {
            let sg = &plan.security_groups[group];
            (if out { &sg.ingress } else { &sg.egress }).iter().any(|rule| {
                rule.peer == SgPeer::Cidr(Cidr::ANY)
                    && (rule.matches.proto.is_none()
                        || rule.matches.proto == Some(p.proto) && rule.matches.ports == PortRange::ALL)
            })
        });
        let untracked = matches!(p.proto, Proto::TCP | Proto::UDP) && from_everywhere && other_way;
        Ok(!untracked)
    }
}

/// The resolver, IMDS and addresses of the host where nothing answers. (Rates are not modelled here.)
fn host_service(plan: &Plan, from: EniIx, p: &Sent, crumbs: &mut Vec<Crumb>) -> Option<Result<Verdict, Why>> {
    let vpc = &plan.vpcs[plan.eni(from).vpc().expect("in a VPC")];
    let resolver = p.dst == vpc.resolver() || p.dst == Ipv4Addr::new(169, 254, 169, 253);
    let imds = p.dst == Ipv4Addr::new(169, 254, 169, 254);
    if !resolver && !p.dst.is_link_local() {
        return None;
    }
    let port = match p.proto {
        Proto::TCP | Proto::UDP => Some(p.dst_port),
        _ => None,
    };
    let (stage, answer) = if resolver && port == Some(53) {
        let answer = if !vpc.dns_support {
            Err((DropCode::DnsDisabled, Decider::Resolver(from)))
        } else if !vpc.cidrs.iter().any(|c| c.contains(p.src)) {
            Err((DropCode::DnsNotLocal, Decider::Resolver(from)))
        } else {
            Ok(Verdict::Resolver { from })
        };
        (Stage::Resolver, answer)
    } else if imds && p.proto == Proto::TCP && port == Some(80) {
        (Stage::Imds, Ok(Verdict::Imds { from }))
    } else {
        (Stage::Resolver, Err((DropCode::RouterAddr, Decider::Eni(from))))
    };
    note(crumbs, stage, Some(from), answer.map(|_| Rule::None).map_err(|e| e.0));
    Some(answer.map_err(|(code, decider)| (code, decider, Direction::Egress)))
}

fn note(crumbs: &mut Vec<Crumb>, stage: Stage, eni: Option<EniIx>, answer: Result<Rule, DropCode>) {
    let outcome = match answer {
        Ok(rule) => Outcome::Pass(rule),
        Err(code) => Outcome::Drop(code),
    };
    crumbs.push(Crumb { stage, eni, outcome });
}

/// The record of an ENI for a packet that it sends, or that it receives.
fn record(eni: EniIx, p: &Sent, receives: bool) -> Record {
    // Who sends a request may send more of them and gets answers; who receives one sends answers.
    let asks = match p.icmp {
        Some(8) => Some(!receives),
        Some(0) => Some(receives),
        _ => None,
    };
    if receives {
        (eni.0, p.proto, p.dst, p.dst_port, p.src, p.src_port, asks)
    } else {
        (eni.0, p.proto, p.src, p.src_port, p.dst, p.dst_port, asks)
    }
}

fn matches(rule: &TrafficMatch, p: &Sent) -> bool {
    let Some(proto) = rule.proto else { return true };
    if proto != p.proto {
        return false;
    }
    match proto {
        Proto::TCP | Proto::UDP => rule.ports.contains(p.dst_port),
        Proto::ICMP => match rule.icmp {
            (None, _) => true,
            (Some(kind), code) => p.icmp == Some(kind) && code.is_none_or(|code| code == 0),
        },
        _ => true,
    }
}

fn is_peer(plan: &Plan, peer: SgPeer, addr: Ipv4Addr) -> bool {
    match peer {
        SgPeer::Cidr(cidr) => cidr.contains(addr),
        SgPeer::PrefixList(list) => plan.prefix_lists[list].entries.iter().any(|block| block.contains(addr)),
        SgPeer::Group(group) => plan.enis.iter().any(|e| e.ip == addr && e.security_groups.contains(&group)),
    }
}

fn first_rule(rules: &[NaclRule], p: &Sent, peer: Ipv4Addr) -> (bool, u16) {
    for rule in rules {
        if matches(&rule.matches, p) && rule.peer.contains(peer) {
            return (rule.allow, rule.number);
        }
    }
    (false, 32_767)
}

fn plan_len(to: RouteDest) -> u8 {
    match to {
        RouteDest::Cidr(to) => to.len(),
        RouteDest::PrefixList(_) => 0,
    }
}

/// Longest prefix; of equal ones a written route before the local one, else the first.
fn best_route(table: &crate::model::plan::RouteTablePlan, dst: Ipv4Addr) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (at, route) in table.routes.iter().enumerate() {
        let RouteDest::Cidr(to) = route.to else { continue };
        if !to.contains(dst) {
            continue;
        }
        let better = best.is_none_or(|b| {
            let b = &table.routes[b];
            plan_len(route.to) > plan_len(b.to)
                || route.to == b.to && b.target == RouteTarget::Local && route.target != RouteTarget::Local
        });
        if better {
            best = Some(at);
        }
    }
    best
}
