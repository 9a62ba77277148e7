//! Which of the ports that a client may send from get through. Rules name the ports that answers go to: those that
//! clients' kernels choose from, or those that NAT gateways give them. One port for every range that some rule on the
//! way tells from its neighbours answers for all of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::Explanation;
use super::gateways::BY_HASH;
use super::path::{self, CLIENT_PORT, Walked};
use crate::base::{EniIx, PortRange, Proto};
use crate::engine::{Crumb, Engine, Outcome, Rule, Stage};
use crate::model::Plan;
use crate::model::plan::TrafficMatch;

/// Linux's range of ephemeral ports (VPC User Guide, "ephemeral ports").
pub(super) const EPHEMERAL: PortRange = PortRange { first: 32_768, last: 60_999 };
const _: () = assert!(EPHEMERAL.contains(CLIENT_PORT));
/// What NAT gateways choose from (VPC User Guide, "NAT gateway basics").
pub(super) const GIVEN: PortRange = PortRange { first: 1_024, last: 65_535 };
/// Ports that are asked at most.
const ASKED_MAX: usize = 160;
/// Ports that are asked where a way is chosen by a hash of them.
const SAMPLES: usize = 24;
/// Examples in a sentence.
const SHOWN: usize = 4;

/// What of a walk depends on the client's port.
#[derive(Default)]
pub(super) struct Seen {
    /// The client's port as the receiver sees it; 0 if none does.
    pub(super) at_target: u16,
    /// How often a gateway changed it on the way there, and back again.
    changed: [usize; 2],
    /// First ports that a rule asked on the way back tells from those below: of the client's own, and of given ones.
    borders: [BTreeSet<u16>; 2],
    /// The last question was asked of a port that a gateway gave.
    given: bool,
}

impl Seen {
    /// What one packet, that `from` sent, was asked.
    pub(super) fn note(&mut self, plan: &Plan, stage: &str, from: EniIx, proto: Proto, crumbs: &[Crumb]) {
        for crumb in crumbs {
            if stage == "back" {
                self.given = self.changed[1] < self.changed[0];
                let borders = &mut self.borders[usize::from(self.given)];
                for rule in asked(plan, from, crumb).filter(|rule| rule.proto.is_none_or(|other| other == proto)) {
                    borders.insert(rule.ports.first);
                    borders.extend(rule.ports.last.checked_add(1));
                }
            }
            if matches!(crumb.stage, Stage::Nat { .. } | Stage::Masquerade) {
                match crumb.outcome {
                    Outcome::Pass(Rule::Source(_)) if stage == "there" => self.changed[0] += 1,
                    Outcome::Pass(Rule::Destination(_)) if stage == "back" => self.changed[1] += 1,
                    _ => {}
                }
            }
        }
    }
}

/// All rules that a step looked through.
fn asked<'a>(plan: &'a Plan, from: EniIx, crumb: &Crumb) -> Box<dyn Iterator<Item = &'a TrafficMatch> + 'a> {
    if crumb.outcome == Outcome::NotAsked {
        return Box::new(std::iter::empty());
    }
    match crumb.stage {
        Stage::NaclOut { nacl } => Box::new(plan.network_acls[nacl].egress.iter().map(|rule| &rule.matches)),
        Stage::NaclIn { nacl } => Box::new(plan.network_acls[nacl].ingress.iter().map(|rule| &rule.matches)),
        Stage::SgEgress | Stage::SgIngress => {
            let egress = crumb.stage == Stage::SgEgress;
            let eni = if egress { from } else { crumb.eni.unwrap_or(from) };
            let groups = plan.eni(eni).security_groups.iter().map(|group| &plan.security_groups[*group]);
            Box::new(
                groups.flat_map(move |group| if egress { &group.egress } else { &group.ingress }).map(|r| &r.matches),
            )
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// Which ports get through and which do not. In words: `from ports 40001-60999`, those that do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// `client`: those that clients' kernels choose from. `nat`: those that a NAT gateway gives them. `ping`: no ports but
    /// identifiers.
    pub whose: &'static str,
    /// `40001-60999`.
    pub refused: Vec<String>,
    pub reached: Vec<String>,
    /// Single ports of the client's that were asked: a hash chooses the way, and no range says which.
    pub sampled: bool,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.sampled, self.whose) {
            (true, _) => {
                let all = self.refused.len() + self.reached.len();
                let what = if self.whose == "ping" { "identifiers" } else { "ports" };
                write!(f, "from {} of {all} {what}", self.refused.len())
            }
            (_, "nat") => write!(f, "to {} of the NAT gateway", ports(&self.refused)),
            _ => write!(f, "from {}", ports(&self.refused)),
        }
    }
}

/// One port that was asked.
struct Asked {
    client: u16,
    walked: Walked,
    told: Explanation,
}

/// [`path::walk`] from the port that was asked for, and by whatever ports gateways may give it. If none was, from one port of every range that fares alike: `told`
/// is then about one that does not get through, if there is one.
pub(super) fn walk(plan: &Plan, engine: &Engine, from: EniIx, dst: Ipv4Addr, told: &mut Explanation) -> Walked {
    let before = told.clone();
    let first = path::walk(plan, engine.probe(0), from, dst, told);
    // A ping has no ports, but an identifier that hashes take for one.
    let ping = told.destination.proto == Proto::ICMP;
    let fixed = told.source.port_given;
    let mut all = vec![Asked { client: told.source.port, walked: first, told: told.clone() }];
    loop {
        let client = match fixed {
            // What a gateway gives it is another each time.
            true => Some(all[0].client).filter(|_| !ping && all.len() < ASKED_MAX && !all_given(&all)),
            false if ping => sample(&all),
            false => next(&all),
        };
        let Some(client) = client else { break };
        let mut told = before.clone();
        told.source.port = client;
        let probe = engine.probe(if fixed { all.len() as u64 } else { 0 });
        let walked = path::walk(plan, probe, from, dst, &mut told);
        all.push(Asked { client, walked, told });
    }
    let refused = |asked: &Asked| !asked.walked.reached;
    if all.iter().all(refused) || !all.iter().any(refused) {
        return all.swap_remove(0).walked;
    }
    let lowest = (0..all.len()).filter(|at| refused(&all[*at])).min_by_key(|at| all[*at].client);
    let chosen = if refused(&all[0]) { 0 } else { lowest.unwrap_or(0) };
    let ports = if ping { sampled(&all, "ping") } else { outcome(&all, fixed || all[chosen].walked.seen.given) };
    let Asked { walked, told: about, .. } = all.swap_remove(chosen);
    *told = Explanation { ports: Some(ports), ..about };
    walked
}

/// A port that may fare otherwise than all that were asked.
fn next(all: &[Asked]) -> Option<u16> {
    if all.len() >= ASKED_MAX {
        return None;
    }
    let own = ranges(all, false).into_iter().find(|range| !all.iter().any(|asked| range.contains(asked.client)));
    if let Some(range) = own {
        return Some(range.first);
    }
    if all_given(all) { sample(all) } else { spread(all) }
}

/// Were those asked that a gateway on the way may give, as far as rules tell them apart?
fn all_given(all: &[Asked]) -> bool {
    let given = |range: &PortRange| all.iter().any(|asked| range.contains(asked.walked.seen.at_target));
    let changed = all.iter().any(|asked| asked.walked.seen.changed[0] > 0);
    !changed || ranges(all, true).iter().all(given)
}

/// One more where a hash chooses the way.
fn sample(all: &[Asked]) -> Option<u16> {
    let by_hash = || all.iter().any(|asked| asked.told.steps.iter().any(|step| step.detail.ends_with(BY_HASH)));
    if all.len() < SAMPLES && by_hash() { spread(all) } else { None }
}

/// One that was not asked yet.
fn spread(all: &[Asked]) -> Option<u16> {
    // All over the range: a step that has no divisor with its length.
    let ports = EPHEMERAL.last - EPHEMERAL.first + 1;
    let mut spread = (0..ports).map(|n| EPHEMERAL.first + (u32::from(n) * 17_393 % u32::from(ports)) as u16);
    spread.find(|port| !all.iter().any(|asked| asked.client == *port))
}

/// Ranges of ports that no rule tells apart, in order.
fn ranges(all: &[Asked], given: bool) -> Vec<PortRange> {
    let whole = if given { GIVEN } else { EPHEMERAL };
    let borders = all.iter().flat_map(|asked| &asked.walked.seen.borders[usize::from(given)]).copied();
    let inside: BTreeSet<u16> = borders.filter(|port| whole.contains(*port) && *port > whole.first).collect();
    let firsts = std::iter::once(whole.first).chain(inside.iter().copied());
    let lasts = inside.iter().map(|next| next - 1).chain([whole.last]);
    firsts.zip(lasts).map(|(first, last)| PortRange { first, last }).collect()
}

/// `given`: what refused saw a port that a gateway gave.
fn outcome(all: &[Asked], given: bool) -> Ports {
    let port = |asked: &Asked| if given { asked.walked.seen.at_target } else { asked.client };
    let whose = if given { "nat" } else { "client" };
    let mut ends: [Vec<PortRange>; 2] = [Vec::new(), Vec::new()];
    for range in ranges(all, given) {
        let mut inside = all.iter().filter(|asked| range.contains(port(asked))).map(|asked| asked.walked.reached);
        let Some(reached) = inside.next() else { continue };
        if inside.any(|other| other != reached) {
            return sampled(all, "client");
        }
        match ends[usize::from(reached)].last_mut() {
            Some(before) if before.last.checked_add(1) == Some(range.first) => before.last = range.last,
            _ => ends[usize::from(reached)].push(range),
        }
    }
    let [refused, reached] = ends.map(|ranges| ranges.iter().map(PortRange::to_string).collect());
    Ports { whose, refused, reached, sampled: false }
}

fn sampled(all: &[Asked], whose: &'static str) -> Ports {
    let that = |reached: bool| {
        let ports: BTreeSet<u16> =
            all.iter().filter(|asked| asked.walked.reached == reached).map(|asked| asked.client).collect();
        ports.iter().map(u16::to_string).collect()
    };
    Ports { whose, refused: that(false), reached: that(true), sampled: true }
}

/// What it means that some ports get through, and some do not.
pub(super) fn note(told: &mut Explanation) {
    let Some(found) = &told.ports else { return };
    let (refused, reached) = (ports(&found.refused), ports(&found.reached));
    let note = match (found.sampled, found.whose) {
        (true, "ping") => {
            let of = |list: &[String]| ports(list).replacen("port", "identifier", 1);
            let (refused, reached) = (of(&found.refused), of(&found.reached));
            format!("each ping has an identifier of its own: with {refused} it does not work, with {reached} it does")
        }
        (true, _) => {
            format!("a client's kernel chooses its port: from {refused} it does not work, from {reached} it does")
        }
        (_, "nat") => {
            format!(
                "a NAT gateway chooses ports of {GIVEN}: answers to {refused} are dropped, those to {reached} are not"
            )
        }
        _ => format!(
            "a client's kernel chooses its port out of {EPHEMERAL} (Linux): from {reached} it works, from {refused} not"
        ),
    };
    told.notes.push(note);
    if let Some(seen) = &mut told.client_sees {
        seen.push_str("; now and then it works");
    }
}

/// `port 7`, `ports 1-5, 7, ...`.
fn ports(ranges: &[String]) -> String {
    let one = ranges.len() == 1 && !ranges[0].contains('-');
    let more = if ranges.len() > SHOWN { ", ..." } else { "" };
    let shown: Vec<&str> = ranges.iter().take(SHOWN).map(String::as_str).collect();
    format!("{} {}{more}", if one { "port" } else { "ports" }, shown.join(", "))
}
