//! Layer 2: the instance metadata service at 169.254.169.254 (EC2 User Guide, "Use instance metadata"): what curl, the
//! SDKs and cloud-init ask for, over HTTP/1.1, version 2 with session tokens and version 1 where the instance allows it.
//!
//! [`Session`] is one TCP connection as a state machine, [`Tokens`] the tokens of one instance, [`View`] what they may see.

mod http;
mod respond;
mod token;
mod tree;

#[cfg(test)]
mod tests;

pub use http::Session;
pub use token::Tokens;
pub use tree::View;
