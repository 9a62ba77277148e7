//! Later fragments have no ports: they go the way of their first one (RFC 791 identification, source, destination,
//! protocol). A fixed table of direct places; a newer packet takes the place of an older one. A fragment whose first
//! has not come, or is forgotten, has no state and is dropped.

use super::flow::FlowKey;
use super::rules::Traffic;
use crate::base::Instant;

/// How long a first fragment is remembered: longer than any queue on one machine.
const LIFE_NANOS: u64 = 5_000_000_000;
const PLACES: usize = 512;

pub(crate) struct Fragments {
    places: Box<[Place]>,
}

#[derive(Clone, Copy)]
struct Place {
    id: u16,
    until: Instant,
    first: Option<(FlowKey, Traffic)>,
}

impl Fragments {
    pub(crate) fn new() -> Fragments {
        Fragments { places: vec![Place { id: 0, until: Instant::ZERO, first: None }; PLACES].into() }
    }

    pub(crate) fn remember(&mut self, now: Instant, id: u16, key: FlowKey, traffic: Traffic) {
        self.places[place(id, &key)] = Place { id, until: Instant(now.0 + LIFE_NANOS), first: Some((key, traffic)) };
    }

    /// What the first fragment of this one was; `key` is what can be read of it: port, addresses and protocol.
    pub(crate) fn first_of(&self, now: Instant, id: u16, key: &FlowKey) -> Option<(FlowKey, Traffic)> {
        let place = &self.places[place(id, key)];
        let (first, traffic) = place.first?;
        let same = (first.port, first.src, first.dst, first.proto) == (key.port, key.src, key.dst, key.proto);
        (place.id == id && now < place.until && same).then_some((first, traffic))
    }
}

fn place(id: u16, key: &FlowKey) -> usize {
    let mixed = (u64::from(key.src) << 32 | u64::from(key.dst)) ^ (u64::from(id) << 16) ^ u64::from(key.port);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PLACES
}
