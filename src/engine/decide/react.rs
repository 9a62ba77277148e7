//! What drops are answered with, on its way to the sender.

use super::super::flow::FlowKey;
use super::super::program::{NONE, Program};
use super::super::steps::{Refusal, nacl, sg};
use super::super::verdict::{Decider, DropCode, Outcome, Rule, Stage, Verdict};
use super::{State, Traffic, Trail, crumb, outcome, sg_rule, traffic_of};
use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::wire::nat as translate;
use crate::wire::packet::{Packet, tcp_flags};

impl State {
    /// What a drop was answered with, on its way to the sender: as from its subnet's router, past the network ACL and,
    /// for ICMP, the security groups of `to`.
    pub(in crate::engine) fn react<T: Trail>(
        &mut self,
        program: &Program,
        now: Instant,
        to: EniIx,
        frame: &[u8],
        trail: &mut T,
    ) -> Verdict {
        let Ok(packet) = Packet::parse(frame) else { return Verdict::Drop { code: DropCode::Malformed } };
        if to.at() >= program.enis.len() {
            return Verdict::Drop { code: DropCode::NoEni };
        }
        match self.reaction(program, now, to, &packet, frame, trail) {
            Ok(()) => {
                if packet.tcp_flags() & tcp_flags::RST != 0 {
                    self.reset(program, now, to, &packet);
                }
                let counters = &self.counters.enis[to.at()];
                counters.packets_in.add(1);
                counters.bytes_in.add(packet.wire_bytes());
                let terminates = program.eni(to).terminates();
                if terminates { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } }
            }
            Err(refusal) => self.refuse(now, to, packet.tuple(), 1, translate::quoted(frame, &packet), refusal),
        }
    }

    /// A reset closes what its receiver knows of the connection.
    fn reset(&mut self, program: &Program, now: Instant, to: EniIx, packet: &Packet) {
        let port = self.ports[to.at()];
        let received = FlowKey::of(port, packet).mirrored(port);
        if let Some((id, side)) = self.remembered(program, now, self.flows.find(&received)) {
            // Its gateways hear nothing of it.
            if self.flows.get(id).is_bound() {
                self.part(program, id);
            }
            self.pass(program, now, packet, id, side ^ 1, None);
        }
    }

    fn reaction<T: Trail>(
        &self,
        program: &Program,
        now: Instant,
        to: EniIx,
        packet: &Packet,
        frame: &[u8],
        trail: &mut T,
    ) -> Result<(), Refusal> {
        let eni = program.eni(to);
        let traffic = traffic_of(packet);
        if eni.subnet != NONE {
            let subnet = program.subnet(eni.subnet);
            let answer = nacl::into(program, subnet, &traffic);
            trail.add(|| crumb(Stage::NaclIn { nacl: subnet.nacl as usize }, None, outcome(answer.map(Rule::Nacl))));
            answer?;
        }
        // A reset is of a connection that the groups let out.
        if eni.groups == NONE || packet.proto() == Proto::TCP {
            return Ok(());
        }
        let port = self.ports[to.at()];
        let quoted = translate::quoted(frame, packet);
        // The packet it quotes was let out before a gateway dropped it, so the groups know of it, flow or not.
        let known = quoted.is_some_and(|(tuple, icmp)| {
            self.tracks(program, now, &FlowKey::of_tuple(port, &tuple, icmp))
                || sg::egress(program, to, &traffic_quoted(&tuple, icmp)).is_some_and(|allowed| !allowed.untracked)
        });
        if known {
            trail.add(|| crumb(Stage::Tracked, Some(to), Outcome::Pass(Rule::None)));
            return Ok(());
        }
        let refusal = Refusal::ingress(DropCode::SgIngress, Decider::SecurityGroups(to));
        let answer = sg::ingress(program, to, &traffic).ok_or(refusal);
        trail.add(|| crumb(Stage::SgIngress, Some(to), outcome(answer.map(sg_rule))));
        answer.map(|_| ())
    }
}

/// What rules see of a packet that an ICMP error quotes.
fn traffic_quoted(tuple: &FiveTuple, icmp: Option<u8>) -> Traffic {
    let selector = match tuple.proto {
        Proto::TCP | Proto::UDP => tuple.dst_port,
        _ => icmp.map_or(0, |kind| u16::from(kind) << 8),
    };
    Traffic { proto: tuple.proto, selector, src: tuple.src.to_bits(), dst: tuple.dst.to_bits() }
}
