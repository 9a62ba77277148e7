//! Layer 5: threads, sockets and the clock: a `Plan` becomes a running network.

pub mod answers;
pub mod backends;
pub mod bridge;
pub mod change;
pub mod client;
pub mod clock;
pub mod credentials;
pub mod delay;
pub mod faults;
pub mod gateways;
pub mod launch;
pub mod links;
pub mod listeners;
pub mod node;
pub mod numbers;
pub mod poller;
pub mod reconcile;
pub mod router;
pub mod runs;
pub mod server;
pub mod state;
pub mod streams;
pub mod tables;
pub mod tap;
pub mod terminal;
mod unanswered;
pub mod work;
