//! What is broken, slow or lossy on purpose.

use std::time::Duration;

use crate::base::EniIx;

/// One fault, in force or still to come.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// As reports name it: `az a`, `endpoint app.sts in a`, `tunnel dc/1`.
    pub title: String,
    pub what: Fault,
    /// From the start of the lab (or of the command) on; `None`: at once.
    pub after: Option<Duration>,
    /// `None`: until it is cleared.
    pub lasts: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Everything in the zones of this id fails: instances, endpoints' ENIs, NAT gateways, attachments. (Zone ids are
    /// the same for every account.)
    Zone { az_id: String },
    /// These ENIs of an interface endpoint (index in `Plan::endpoints`).
    Endpoint { endpoint: usize, enis: Vec<EniIx> },
    /// A tunnel of a VPN: index in `Plan::links`, and of the tunnel, from 0.
    Tunnel { link: usize, tunnel: usize },
    /// A load balancer's target or any instance: its interfaces neither send nor receive.
    Instance(usize),
    /// An instance's interfaces, impaired (or down) until the fault ends.
    Link { instance: usize, impair: Impair },
}

/// What a link does to packets, per segment and in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impair {
    pub delay: Duration,
    /// Added to `delay`, up to this much, never reordering.
    pub jitter: Duration,
    /// Parts per million of segments lost.
    pub loss_ppm: u32,
    /// Bits per second.
    pub rate: Option<u64>,
    /// Nothing passes.
    pub down: bool,
    /// So that a run can be repeated; left out, it follows from names.
    pub seed: Option<u64>,
}

/// Delays of paths that nobody asked for by `impair`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    #[default]
    Off,
    /// Typical delays per kind of path, from `model::latency`.
    Aws,
}
