//! Whose connection a dropped packet belongs to.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Quoted, State};
use crate::base::Proto;
use crate::engine::event::DropKey;
use crate::engine::flow::{FlowKey, INITIATOR, TARGET};
use crate::engine::verdict::Whose;

/// Legs of one connection that are followed to who began it.
const LEGS_MAX: usize = 8;

impl State {
    /// Who began the flow that a dropped packet belongs to. What a middle instance sends on is another's, maybe in the
    /// name of a NAT gateway: leg by leg to the first of them. An ICMP error belongs to the flow of what it quotes.
    pub(super) fn whose(&self, drop: &DropKey, quoted: Option<Quoted>) -> Whose {
        let Some(port) = self.ports.get(drop.from.at()).copied() else { return Whose::default() };
        let mut key = match quoted {
            // Received by who sends the error, or sent by who is to get it: then a router made the error.
            Some((tuple, icmp)) => {
                let sent = FlowKey::of_tuple(port, &tuple, icmp);
                let found = self.flows.find(&sent.mirrored(port)).or_else(|| self.flows.find(&sent));
                let Some((id, side)) = found else { return Whose::default() };
                self.flows.get(id).key(side)
            }
            // Of other ICMP only what answers a ping has a tuple that tells.
            None => FlowKey::of_tuple(port, &drop.tuple, (drop.tuple.proto == Proto::ICMP).then_some(0)),
        };
        let (sent, mut back) = (key, false);
        for _ in 0..LEGS_MAX {
            if let Some((id, TARGET)) = self.flows.find(&key) {
                back = true;
                key = self.flows.get(id).key(INITIATOR);
            }
            match self.flows.find(&key.mirrored(key.port)) {
                Some((before, TARGET)) => key = self.flows.get(before).key(INITIATOR),
                _ => break,
            }
        }
        let eni = self.enis.get(key.port as usize).copied().flatten();
        let began = eni.map(|eni| (eni, SocketAddrV4::new(Ipv4Addr::from_bits(key.src), key.src_port)));
        let begun_by = |is: bool| began.filter(|_| is);
        Whose { answers: begun_by(back), passed_on: begun_by(!back && key != sent) }
    }
}
