//! Layer 1: the nouns of AWS. `Spec` is what a user wrote, `Plan` is what it means; no packets, no I/O.

pub mod catalogue;
pub mod credentials;
pub mod plan;
pub mod spec;

pub use plan::Plan;
