//! Layer 3: what the Linux kernel is asked for: namespaces, TUN devices, mounts, processes. The only room with `unsafe`.
//!
//! A lab is two processes (ARCHITECTURE.md, D13). The *keeper* ([`keeper`]) holds the privilege and sees no packet;
//! the *router process* sees every packet and holds none. They speak [`cmd`] over a socket pair ([`channel`]);
//! [`client`] is the router's end. [`exec`] runs a command as an instance; [`rundir`] keeps the records by which
//! [`cleanup`] knows what is ours; [`doctor`] says what this machine lacks.

pub mod channel;
pub mod client;
pub mod cmd;
pub mod tun;
