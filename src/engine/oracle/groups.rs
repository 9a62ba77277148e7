//! Security groups of one ENI.

use super::records::Key;
use super::walk::Walk;
use super::{Stop, lists};
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::engine::verdict::{Decider, Direction, DropCode, Rule, Stage};
use crate::model::plan::{EniOwner, SgPeer, SgRule};

impl Walk<'_> {
    /// True if the ENI tracks the connection from now on. Nothing is asked outside VPCs and at doors; but what a door or
    /// an endpoint sends must belong to something.
    pub(super) fn groups(&mut self, at: EniIx, direction: Direction) -> Result<bool, Stop> {
        let eni = self.plan.eni(at);
        let out = direction == Direction::Egress;
        let key = Key::of(at, &self.p, !out);
        let record = self.record(&key);
        let stage = if out { Stage::SgEgress } else { Stage::SgIngress };
        let door = eni.owner.is_door();
        if (door || eni.vpc().is_none()) && !(door && out && record.is_none()) {
            return Ok(false);
        }
        if record.is_some_and(|r| r.tracked) {
            self.pass(Stage::Tracked, Some(at), Rule::None);
            return Ok(true);
        }
        if out && (door || matches!(eni.owner, EniOwner::Endpoint(_))) {
            return self.stop_at(stage, Some(at), DropCode::CtNoState, Decider::EndpointEni(at), direction);
        }
        let p = &self.p;
        let peer = if out { p.dst } else { p.src };
        let mut matching: Vec<(usize, usize, &SgRule)> = Vec::new();
        for &group in &eni.security_groups {
            let sg = &self.plan.security_groups[group];
            for (i, rule) in (if out { &sg.egress } else { &sg.ingress }).iter().enumerate() {
                if lists::matches(&rule.matches, p) && lists::is_peer(self.plan, rule.peer, peer) {
                    matching.push((group, i, rule));
                }
            }
        }
        let Some(&(group, rule, _)) = matching.first() else {
            let reply = match p.proto {
                Proto::TCP => !p.begins(),
                Proto::ICMP => matches!(p.icmp, Some((0, _))),
                _ => false,
            };
            let code = match (record.is_none() && reply, out) {
                _ if self.was_of(&key) && p.quote.is_none() && !p.begins() => DropCode::CtIdle,
                (true, _) => DropCode::CtNoState,
                (false, true) => DropCode::SgEgress,
                (false, false) => DropCode::SgIngress,
            };
            return self.stop_at(stage, Some(at), code, Decider::SecurityGroups(at), direction);
        };
        let from_everywhere = matching.iter().any(|(_, _, rule)| rule.peer == SgPeer::Cidr(Cidr::ANY));
        let other_way = eni.security_groups.iter().any(|&group| {
            let sg = &self.plan.security_groups[group];
            (if out { &sg.ingress } else { &sg.egress }).iter().any(|rule| {
                rule.peer == SgPeer::Cidr(Cidr::ANY)
                    && (rule.matches.proto.is_none()
                        || rule.matches.proto == Some(p.proto) && rule.matches.ports == PortRange::ALL)
            })
        });
        let untracked = matches!(p.proto, Proto::TCP | Proto::UDP) && from_everywhere && other_way;
        self.pass(stage, Some(at), Rule::Sg(group, rule));
        Ok(!untracked)
    }
}
