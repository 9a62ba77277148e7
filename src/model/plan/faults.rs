//! What is broken, slow or lossy on purpose.

use std::fmt;
use std::time::Duration;

use crate::base::EniIx;

/// One fault, in force or still to come.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// What `vpclab fault clear` ends it by; 0 in a plan that does not run.
    pub id: u32,
    /// As reports name it: `az a`, `endpoint app.sts in a`, `tunnel dc/1`, `link app.web loss 1%`.
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

/// As `vpclab fault link` takes it: `delay 20ms loss 1%`.
impl fmt::Display for Impair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.down {
            words.push("down".to_owned());
        }
        for (name, time) in [("delay", self.delay), ("jitter", self.jitter)] {
            if !time.is_zero() {
                let seconds = time.subsec_nanos() == 0;
                let time = if seconds { (time.as_secs_f64(), "s") } else { (time.as_secs_f64() * 1e3, "ms") };
                words.push(format!("{name} {}{}", rounded(time.0), time.1));
            }
        }
        if self.loss_ppm > 0 {
            words.push(format!("loss {}%", f64::from(self.loss_ppm) / 1e4));
        }
        if let Some(rate) = self.rate {
            let units = [(1e9, "gbit"), (1e6, "mbit"), (1e3, "kbit")];
            let (unit, name) = units.into_iter().find(|(unit, _)| rate as f64 >= *unit).unwrap_or((1.0, "bit"));
            words.push(format!("rate {}{name}", rate as f64 / unit));
        }
        if let Some(seed) = self.seed {
            words.push(format!("seed {seed}"));
        }
        f.write_str(&words.join(" "))
    }
}

/// To a thousandth: what a sum of floats leaves behind is not shown.
fn rounded(n: f64) -> f64 {
    (n * 1e3).round() / 1e3
}

/// Delays of paths that nobody asked for by `impair`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    #[default]
    Off,
    /// Typical delays per kind of path, from `model::latency`.
    Aws,
}
