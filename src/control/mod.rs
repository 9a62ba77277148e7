//! Layer 4: what may be asked of a lab, running or not.

pub mod api;
pub mod checks;
pub mod dropped;
pub mod explain;
pub mod lab;
pub mod rows;
pub mod states;
pub mod store;
pub mod watch;
