//! Layer 2: the resolver at VPC+2 and 169.254.169.253: zones compiled to wire form, and who answers what.
//!
//! [`compile`] turns a plan into [`Zones`]; [`Zones::answer`] answers a query from them without allocating; [`lookup`]
//! tells the same story for people: which zone answered, which lost and what they would have said.
//!
//! The order of decision is Route 53 Resolver's: of the private zones of the VPC that asks and the public ones, the
//! **longest apex that holds the name is final**. A name that it lacks is NXDOMAIN, a type that it lacks is NODATA;
//! nothing falls through to a shorter zone, and nothing is ever asked of the real world.

mod answer;
mod compile;
mod hosts;
mod lookup;
mod name;
mod order;
mod tcp;
mod zone;

#[cfg(test)]
mod tests;

pub use answer::{EDNS_UDP_SIZE, Transport};
pub use compile::{Zones, compile};
pub use lookup::{Answer, EndpointName, Lookup, Lost, NameKind, Said, lookup, names};
pub use order::{glibc_order, glibc_prefers};
pub use tcp::Session;
pub use zone::{NEGATIVE_TTL, QType, Rcode, ZoneKind};
