//! Later fragments have no ports: they go the way of their first one (RFC 791 identification, source, destination,
//! protocol). A fixed table of direct places; a newer packet takes the place of an older one. A fragment whose first
//! has not come, or is forgotten, has no state and is dropped; so is one that overlaps what came in order before it, which
//! could only replace what rules have judged (RFC 1858, 3128).

use super::flow::FlowKey;
use super::rules::Traffic;
use super::verdict::DropCode;
use crate::base::Instant;
use crate::wire::Packet;

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
    /// Bytes of the packet's payload that came in their order.
    came: u32,
    first: Option<First>,
}

/// What a packet is known by: of a later fragment, the first one's.
#[derive(Clone, Copy)]
pub(crate) struct First {
    pub(crate) key: FlowKey,
    pub(crate) traffic: Traffic,
    /// A TCP segment that begins a connection.
    pub(crate) syn: bool,
}

impl Fragments {
    pub(crate) fn new() -> Fragments {
        Fragments { places: vec![Place { id: 0, until: Instant::ZERO, came: 0, first: None }; PLACES].into() }
    }

    pub(crate) fn remember(&mut self, now: Instant, id: u16, packet: &Packet, first: First) {
        let until = Instant(now.0 + LIFE_NANOS);
        self.places[place(id, &first.key)] = Place { id, until, came: payload_len(packet), first: Some(first) };
    }

    /// What the first fragment of this one was, or why this one is dropped; `key` is what can be read of it: port,
    /// addresses and protocol.
    pub(crate) fn later(&mut self, now: Instant, id: u16, packet: &Packet, key: &FlowKey) -> Result<First, DropCode> {
        let place = &mut self.places[place(id, key)];
        let first = place.first.ok_or(DropCode::CtNoState)?;
        let sent = &first.key;
        let same = (sent.port, sent.src, sent.dst, sent.proto) == (key.port, key.src, key.dst, key.proto);
        if place.id != id || now >= place.until || !same {
            return Err(DropCode::CtNoState);
        }
        let begins = u32::from(packet.fragment_offset());
        if begins < place.came {
            return Err(DropCode::Malformed);
        }
        if begins == place.came {
            place.came += payload_len(packet);
        }
        Ok(first)
    }
}

/// Bytes of IP payload.
fn payload_len(packet: &Packet) -> u32 {
    (packet.total_len() - packet.header_len()) as u32
}

fn place(id: u16, key: &FlowKey) -> usize {
    let mixed = (u64::from(key.src) << 32 | u64::from(key.dst)) ^ (u64::from(id) << 16) ^ u64::from(key.port);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PLACES
}
