//! What a user wrote: text becomes a tree of nodes that know their place, several files become one, `${...}` is put
//! in, and readers take keys out by the tables of `keys`.

pub mod fields;
pub mod keys;
pub mod merge;
pub mod names;
pub mod node;
pub mod public_ip;
pub mod report;
pub mod rule;
pub mod source;
pub mod subst;
pub mod yaml;
