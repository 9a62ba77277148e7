//! Layer 1: the nouns of AWS. `Spec` is what a user wrote, `Plan` is what it means; no packets, no I/O.
//!
//! [`load`] does it all: `spec` turns text into a tree with places, `validate` turns the tree into a [`Plan`], and
//! every problem goes into one [`Report`].

pub mod catalogue;
pub mod credentials;
mod load;
pub mod plan;
pub mod spec;
pub mod validate;

pub use load::{Around, Loaded, Nothing, load};
pub use plan::Plan;
pub use spec::fields::Files;
pub use spec::report::{Also, Problem, Report, Severity};
pub use spec::source::{MAX_BYTES, Source};
