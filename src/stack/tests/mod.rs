//! The forwarder against another TCP over a link in virtual time.

mod world;

mod admission;
mod hostile;
mod transfer;
