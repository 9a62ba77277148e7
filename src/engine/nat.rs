//! Ports of NAT gateways.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Proto;

/// Lowest port that a NAT gateway uses (VPC User Guide, "NAT gateways").
const FIRST_PORT: u16 = 1_024;

type Destination = (u32, u32, u8, (u32, u16));

/// Which ports are in use, per address of a gateway and destination.
pub(crate) struct Allocator {
    per_destination: u32,
    taken: BTreeMap<Destination, BTreeSet<u16>>,
}

impl Allocator {
    pub(crate) fn new(per_destination: u32) -> Allocator {
        Allocator { per_destination, taken: BTreeMap::new() }
    }

    pub(crate) fn set_bound(&mut self, per_destination: u32) {
        self.per_destination = per_destination;
    }

    /// An address and a port, or `None` where all are in use.
    pub(crate) fn allocate(
        &mut self,
        nat: u32,
        addresses: &[u32],
        proto: Proto,
        src: (u32, u16),
        dst: (u32, u16),
    ) -> Option<(u32, u16)> {
        for &address in addresses {
            let taken = self.taken.entry((nat, address, proto.0, key(proto, dst))).or_default();
            if taken.len() as u32 >= self.per_destination {
                continue;
            }
            let first = src.1.max(FIRST_PORT);
            let port = (first..=u16::MAX).chain(FIRST_PORT..first).find(|port| !taken.contains(port))?;
            taken.insert(port);
            return Some((address, port));
        }
        None
    }

    pub(crate) fn release(&mut self, nat: u32, address: u32, proto: Proto, dst: (u32, u16), port: u16) {
        let destination = (nat, address, proto.0, key(proto, dst));
        if let Some(taken) = self.taken.get_mut(&destination) {
            taken.remove(&port);
            if taken.is_empty() {
                self.taken.remove(&destination);
            }
        }
    }
}

/// A ping's identifier is no port of the destination.
fn key(proto: Proto, dst: (u32, u16)) -> (u32, u16) {
    if proto == Proto::ICMP { (dst.0, 0) } else { dst }
}
