//! Layer 5: threads, sockets and the clock: a `Plan` becomes a running network.

pub mod bridge;
pub mod client;
pub mod clock;
pub mod credentials;
pub mod listeners;
pub mod poller;
