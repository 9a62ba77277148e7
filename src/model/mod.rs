//! Layer 1: the nouns of AWS. `Spec` is what a user wrote, `Plan` is what it means; no packets, no I/O.
//!
//! [`load`] does it all: `spec` turns text into a tree with places, `validate` turns the tree into a [`Plan`], and
//! every problem goes into one [`Report`].

pub mod catalogue;
pub mod credentials;
mod diff;
pub mod fault;
pub mod latency;
mod load;
pub mod plan;
mod schema;
pub mod spec;
mod starter;
#[cfg(test)]
pub(crate) mod testing;
pub mod validate;

pub use diff::{Change, Replaced, Sign, diff, replaced};
pub use load::{Around, Loaded, Nothing, PolicyFlaw, Standing, keeps_name, load, load_judged, load_over, written_name};
pub use plan::Plan;
pub use schema::schema;
pub use spec::fields::Files;
pub use spec::report::{Also, Problem, Report, Severity};
pub use spec::source::{MAX_BYTES, Source};
pub use starter::{KINDS, demo, starter};
