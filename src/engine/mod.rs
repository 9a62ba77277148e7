//! Layer 2: decides the fate of every packet, as a VPC does.
//!
//! [`compile`] makes a [`Program`] of a plan; an [`Engine`] holds one and the flows. A packet is admitted (version,
//! checksum, source, what the host answers itself), looked up among the flows, and on a miss asked the questions of
//! `steps` in AWS's order: the sender's security groups; then, by `walk`, the network ACL of the subnet it leaves, the
//! route table, the gateways that follow, the network ACL of the subnet it enters; the receiver's own limits, the
//! receiver's security groups. The engine has no clock and makes no packet: it is told the time and gives a [`Verdict`].

mod bindings;
mod compile;
mod core;
mod decide;
mod event;
mod flow;
mod fragments;
mod gateways;
mod index;
mod limiter;
mod lives;
mod lpm;
mod nat;
#[cfg(test)]
mod oracle;
mod program;
mod rules;
pub mod shape;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
pub mod verdict;
mod walk;
mod wheel;

pub use compile::{compile, may_refer};
pub use core::{Engine, EngineLimits, drop_record};
pub use event::{Counters, DropLog, FlowClosed, FlowSnapshot, Way};
pub use flow::{FlowEnd, FlowState};
pub use lpm::Lpm;
pub use nat::{Allocator as NatAllocator, Taken as NatPort};
pub use program::Program;
pub use rules::{NACL_STAR, NaclTable, SgMatch, SgTable};
pub use shape::{Shape, Shaper};
pub use verdict::{Crumb, Decider, Direction, DropCode, DropRecord, Outcome, Reaction, Rule, Stage, Verdict, Via};
