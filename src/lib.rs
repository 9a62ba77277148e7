//! `vpclab`: AWS VPCs and interface endpoints as real packets on one Linux machine.
//!
//! The rooms, and what each may use, are told in ARCHITECTURE.md; `tests/layering.rs` keeps them so. A packet's
//! life begins in `runtime::router`, is decided in `engine`, and ends in a TUN device or in `stack`.

pub mod base;

pub mod model;
pub mod wire;

pub mod dns;
pub mod engine;
pub mod imds;
pub mod policy;
pub mod stack;

#[cfg(target_os = "linux")]
pub mod host;
pub mod observe;
pub mod services;

pub mod control;

#[cfg(target_os = "linux")]
pub mod runtime;

pub mod cli;
