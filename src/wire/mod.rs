//! Layer 1: packets as bytes. Parses, builds, sums, translates, segments and fragments; knows no meaning.
//!
//! A *frame* is what a TUN with `IFF_VNET_HDR` reads and writes: the 10 bytes of [`vnet::VnetHdr`], then one IP
//! packet. A *superframe* is a frame whose header says that it stands for several packets (`gso_type`): it is passed
//! on whole, and counted as the packets it stands for. All offsets of this room count from the frame's first byte.

pub mod csum;
pub mod edit;
pub mod fragment;
pub mod gso;
pub mod make;
pub mod nat;
pub mod packet;
pub mod show;
pub mod vnet;

#[cfg(test)]
mod tests;

pub use packet::{Malformed, Packet, verify_checksums};
pub use vnet::VnetHdr;
