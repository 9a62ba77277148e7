//! Which packets somebody wants to see, and what was seen of one.

use std::net::Ipv4Addr;

use crate::base::{EniIx, FiveTuple, Instant, Proto};
use crate::engine::{Crumb, DropCode, DropRecord, Verdict};

/// A filter of packets, by indices of one plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Seen at these ENIs, as they pass. Without it every packet is seen once: where the flow's `from` sends or gets it,
    /// so that a connection reads as one; and where the other end, or an instance between them, sends what never
    /// arrives.
    pub at: Option<Vec<EniIx>>,
    /// Every packet where it was sent, both directions of a flow alike, and again where an instance forwards it.
    pub at_senders: bool,
    /// One end of the flow, and the other; either direction.
    pub from: Option<End>,
    pub to: Option<End>,
    pub proto: Option<Proto>,
    /// Of either end.
    pub port: Option<u16>,
    /// Only what is dropped with this code.
    pub code: Option<DropCode>,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub enis: Vec<EniIx>,
    pub addrs: Vec<Ipv4Addr>,
    pub port: Option<u16>,
}

/// A packet that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// `None`: a service of the host, or not known any more.
    pub sender: Option<EniIx>,
    /// `None`: dropped, or for a service of the host.
    pub receiver: Option<EniIx>,
    /// As it was sent; `None` if it cannot be read.
    pub sent: Option<FiveTuple>,
    /// It was seen where it was sent, and comes over a link only now.
    pub late: bool,
    /// The source is the sender's own address, not one that it forwards for.
    pub from_itself: bool,
    /// The destination, as it arrives, is the receiver's own address.
    pub to_itself: bool,
    pub dropped: Option<DropCode>,
}

/// Who sent what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Eni(EniIx),
    /// The resolver, the metadata service, a router that answers a packet it dropped, or whoever sent what came over a
    /// link.
    Unknown,
}

/// What was seen of one packet at one ENI.
#[derive(Clone, Debug)]
pub struct Sight {
    pub at: Instant,
    pub eni: EniIx,
    pub way: Way,
    /// As it was sent; `None` if it cannot be read.
    pub sent: Option<FiveTuple>,
    /// Virtio header and packet as they are at this ENI, a superframe whole.
    pub frame: Vec<u8>,
    /// Packets that were to be seen since the last one, and got lost.
    pub lost: u64,
}

/// From the view of the ENI.
#[derive(Clone, Debug)]
pub enum Way {
    /// The owner sent it. `crumbs` are there if they were asked for.
    Out {
        verdict: Verdict,
        drop: Option<DropRecord>,
        crumbs: Vec<Crumb>,
    },
    In {
        from: Sender,
    },
}

impl Watch {
    /// Whether the packet is seen where it is sent, and where it arrives.
    pub fn places(&self, passage: &Passage) -> (bool, bool) {
        if self.code.is_some() && self.code != passage.dropped {
            return (false, false);
        }
        let (forward, reverse) = self.directions(passage);
        if !forward && !reverse {
            return (false, false);
        }
        let Passage { sender, receiver, late, from_itself, to_itself, dropped, .. } = *passage;
        match &self.at {
            Some(at) => {
                let here = |eni: Option<EniIx>| eni.is_some_and(|eni| at.contains(&eni));
                (here(sender), here(receiver))
            }
            None if self.at_senders && late => (false, false),
            None if self.at_senders || dropped.is_some() => (sender.is_some(), false),
            None if forward && late => (false, false),
            None if forward && sender.is_some() => (from_itself, false),
            // For a service of the host it has no other place.
            None if receiver.is_none() => (from_itself, false),
            None => (false, to_itself),
        }
    }

    /// False: no packet like this is ever seen, whatever becomes of it. `sender` is `None` if it forwards for another.
    pub fn may_see(&self, sender: Option<EniIx>, sent: Option<FiveTuple>) -> bool {
        let is = |end: &Option<End>| end.as_ref().is_none_or(|end| end.is(sender, sent.map(|t| (t.src, t.src_port))));
        self.suits(sent) && (is(&self.from) || is(&self.to))
    }

    /// From `from` to `to`, and from `to` to `from`.
    fn directions(&self, passage: &Passage) -> (bool, bool) {
        let Passage { sender, receiver, sent, from_itself, to_itself, .. } = *passage;
        if !self.suits(sent) {
            return (false, false);
        }
        let (sender, receiver) = (sender.filter(|_| from_itself), receiver.filter(|_| to_itself));
        let src = |end: &Option<End>| end.as_ref().is_none_or(|end| end.is(sender, sent.map(|t| (t.src, t.src_port))));
        let dst =
            |end: &Option<End>| end.as_ref().is_none_or(|end| end.is(receiver, sent.map(|t| (t.dst, t.dst_port))));
        (src(&self.from) && dst(&self.to), src(&self.to) && dst(&self.from))
    }

    fn suits(&self, sent: Option<FiveTuple>) -> bool {
        let Some(tuple) = sent else { return self.proto.is_none() && self.port.is_none() };
        self.proto.is_none_or(|proto| proto == tuple.proto)
            && self.port.is_none_or(|port| [tuple.src_port, tuple.dst_port].contains(&port))
    }
}

impl End {
    /// An ENI that is known decides alone, unless an address was asked for: addresses may repeat between VPCs.
    fn is(&self, eni: Option<EniIx>, addr: Option<(Ipv4Addr, u16)>) -> bool {
        let here = match eni {
            Some(eni) if self.enis.contains(&eni) => true,
            Some(_) if !self.enis.is_empty() => false,
            _ => addr.is_some_and(|(addr, _)| self.addrs.contains(&addr)),
        };
        here && self.port.is_none_or(|port| addr.is_some_and(|(_, p)| p == port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: EniIx = EniIx(0);
    const S3: EniIx = EniIx(1);
    const DB: EniIx = EniIx(2);

    fn addr(eni: EniIx) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, 10 + eni.0 as u8)
    }

    fn end(eni: EniIx) -> Option<End> {
        Some(End { enis: vec![eni], addrs: vec![addr(eni)], port: None })
    }

    /// From port 40000 to 443, or back.
    fn passage(from: EniIx, to: EniIx, arrives: bool) -> Passage {
        let sent = FiveTuple::tcp(addr(from), 40_000, addr(to), 443);
        let sent = if from == S3 { FiveTuple { src_port: 443, dst_port: 40_000, ..sent } } else { sent };
        let dropped = (!arrives).then_some(DropCode::SgIngress);
        let receiver = arrives.then_some(to);
        let (from_itself, to_itself) = (true, true);
        Passage { sender: Some(from), receiver, sent: Some(sent), late: false, from_itself, to_itself, dropped }
    }

    #[test]
    fn a_flow_is_seen_from_its_initiator_and_lost_answers_where_they_are_sent() {
        let watch = Watch { from: end(WEB), to: end(S3), ..Watch::default() };
        assert_eq!(watch.places(&passage(WEB, S3, true)), (true, false));
        assert_eq!(watch.places(&passage(S3, WEB, true)), (false, true));
        assert_eq!(watch.places(&passage(WEB, S3, false)), (true, false));
        assert_eq!(watch.places(&passage(S3, WEB, false)), (true, false));
        assert_eq!(watch.places(&passage(WEB, DB, true)), (false, false));
        assert_eq!(watch.places(&passage(DB, WEB, true)), (false, false));
        let traced = Watch { at_senders: true, ..watch.clone() };
        assert_eq!(traced.places(&passage(S3, WEB, true)), (true, false));
        assert!(
            watch.may_see(Some(S3), passage(S3, WEB, true).sent)
                && !watch.may_see(Some(DB), passage(DB, WEB, true).sent)
        );
        let every = Watch::default();
        assert_eq!(every.places(&passage(S3, WEB, true)), (true, false), "each packet once");
        // What comes over a link was seen where it was sent; of answers, only the arrival counts.
        let late = |from, to| Passage { sender: None, late: true, ..passage(from, to, true) };
        assert_eq!(watch.places(&late(WEB, S3)), (false, false));
        assert_eq!(watch.places(&late(S3, WEB)), (false, true));
        assert_eq!(every.places(&late(S3, WEB)), (false, false));
        // What the host itself answers is seen where it arrives.
        let answer = Passage { sender: None, ..passage(S3, WEB, true) };
        assert_eq!(watch.places(&answer), (false, true));
        assert_eq!(every.places(&answer), (false, true));
    }

    #[test]
    fn an_instance_between_two_ends_shows_only_what_is_lost_behind_it() {
        let firewall = DB;
        let watch = Watch { from: end(WEB), to: end(S3), ..Watch::default() };
        let to_it = Passage { receiver: Some(firewall), to_itself: false, ..passage(WEB, S3, true) };
        let from_it = Passage { sender: Some(firewall), from_itself: false, ..passage(WEB, S3, true) };
        let back_to_it = Passage { receiver: Some(firewall), to_itself: false, ..passage(S3, WEB, true) };
        let back_from_it = Passage { sender: Some(firewall), from_itself: false, ..passage(S3, WEB, true) };
        let places = [to_it, from_it, back_to_it, back_from_it].map(|p| watch.places(&p));
        assert_eq!(places, [(true, false), (false, false), (false, false), (false, true)]);
        let lost = Passage { sender: Some(firewall), from_itself: false, ..passage(WEB, S3, false) };
        assert_eq!(watch.places(&lost), (true, false));
        let traced = Watch { at_senders: true, ..watch };
        assert_eq!(traced.places(&from_it), (true, false), "every leg is traced");
        assert!(traced.may_see(None, from_it.sent));
    }

    #[test]
    fn an_eni_shows_what_passes_it() {
        let watch = Watch { at: Some(vec![WEB, DB]), ..Watch::default() };
        assert_eq!(watch.places(&passage(WEB, S3, true)), (true, false));
        assert_eq!(watch.places(&passage(S3, WEB, true)), (false, true));
        assert_eq!(watch.places(&passage(WEB, DB, true)), (true, true));
        assert_eq!(watch.places(&passage(S3, WEB, false)), (false, false), "it never came here");
        let narrow = Watch { to: end(DB), ..watch };
        assert_eq!(narrow.places(&passage(WEB, S3, true)), (false, false));
        assert_eq!(narrow.places(&passage(WEB, DB, true)), (true, true));
    }

    #[test]
    fn protocol_port_and_code_narrow_it_down() {
        let all = Watch::default();
        for (watch, seen) in [
            (Watch { proto: Some(Proto::TCP), ..all.clone() }, true),
            (Watch { proto: Some(Proto::UDP), ..all.clone() }, false),
            (Watch { port: Some(443), ..all.clone() }, true),
            (Watch { port: Some(40_000), ..all.clone() }, true),
            (Watch { port: Some(53), ..all.clone() }, false),
            (Watch { code: Some(DropCode::SgIngress), ..all.clone() }, false),
            (Watch { to: Some(End { port: Some(443), ..end(S3).unwrap() }), ..all.clone() }, true),
            (Watch { to: Some(End { port: Some(80), ..end(S3).unwrap() }), ..all.clone() }, false),
        ] {
            assert_eq!(watch.places(&passage(WEB, S3, true)).0, seen, "{watch:?}");
        }
        let dropped = Watch { code: Some(DropCode::SgIngress), ..all.clone() };
        assert_eq!(dropped.places(&passage(WEB, S3, false)), (true, false));
        let unread = Passage { sent: None, receiver: None, ..passage(WEB, S3, false) };
        assert_eq!(all.places(&unread), (true, false));
        assert_eq!(Watch { port: Some(443), ..all }.places(&unread), (false, false));
    }

    #[test]
    fn an_address_that_two_networks_have_means_the_eni_that_was_named() {
        let watch = Watch { to: end(S3), ..Watch::default() };
        let other = Passage { receiver: Some(DB), ..passage(WEB, S3, true) };
        assert_eq!(watch.places(&other), (false, false));
        let by_address = Watch { to: Some(End { addrs: vec![addr(S3)], ..End::default() }), ..Watch::default() };
        assert_eq!(by_address.places(&other), (true, false));
    }
}
