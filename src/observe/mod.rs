//! Layer 3: what is seen of packets on their way, as data, and how others read it. Decides nothing: which packets
//! somebody wants to see ([`Watch`]), what was seen of one ([`Sight`]), and the file that Wireshark and tcpdump read
//! ([`pcapng`]).

pub mod pcapng;
mod watch;

pub use watch::{End, Passage, Sender, Sight, Watch, Way};
