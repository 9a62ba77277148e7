//! A lab as it stands between two changes. Replaced whole: whoever holds one goes on with it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::numbers::Numbers;
use super::runs::Log;
use crate::control::store::Accepted;
use crate::model::Plan;

pub struct State {
    pub generation: u64,
    pub accepted: Arc<Accepted>,
    /// What the accepted text means.
    pub written: Arc<Plan>,
    /// The same with the faults that hold now: what everything is compiled from.
    pub plan: Arc<Plan>,
    pub numbers: Arc<Numbers>,
    /// In the order of `Plan::instances`.
    pub instances: Vec<Arc<MadeInstance>>,
    pub logs: Vec<Log>,
}

/// What the host made for an instance.
pub struct MadeInstance {
    pub netns: OwnedFd,
    pub netns_path: PathBuf,
    /// Seconds since 1970.
    pub launched: crate::base::UnixTime,
}

impl State {
    /// `LAB.VPC.INSTANCE`.
    pub fn netns_name(&self, instance: usize) -> String {
        format!("{}.{}", self.plan.name, self.plan.instances[instance].common.path)
    }
}
