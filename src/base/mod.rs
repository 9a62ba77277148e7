//! Layer 0: values that every room shares. Uses std only and no other room.

pub mod cidr;
pub mod clock;
pub mod counters;
pub mod ids;
pub mod pool;
pub mod ports;
pub mod steer;
pub mod tuple;

pub use cidr::Cidr;
pub use clock::{Clock, Instant, UnixTime};
pub use ids::{EndpointIx, EniIx};
pub use ports::PortRange;
pub use steer::{Steer, steer};
pub use tuple::{FiveTuple, Proto};
