//! Layer 2: decides the fate of every packet, as a VPC does.

pub mod verdict;

pub use verdict::{Crumb, Decider, Direction, DropCode, DropRecord, Outcome, Rule, Stage, Verdict};
