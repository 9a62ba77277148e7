//! An instance that a route leads to and that does not forward: what would make it.

use std::sync::Arc;

use super::{Explanation, Facts, Request};
use crate::engine::{Engine, EngineLimits, compile};
use crate::model::plan::Forward;

/// `forward: true` for the instance whose kernel drops the packet, tried in a copy of the plan; and what is to be
/// changed after that.
pub(super) fn advise(facts: &Facts<'_>, from: (usize, Option<u16>), request: Option<&Request>, told: &mut Explanation) {
    let mut plan = facts.plan.clone();
    let mut now = told.clone();
    let mut changes = Vec::new();
    while !now.reachable && now.code.is_none() {
        let Some(at) = plan.instances.iter().position(|i| Some(&i.common.path) == now.object.as_ref()) else { break };
        plan.instances[at].forward = Some(Forward::Plain);
        let path = &plan.instances[at].common.path;
        changes.push(match path.split_once('.') {
            Some((vpc, name)) => format!("{vpc}.instances.{name}.forward: true"),
            None => format!("{path}.forward: true"),
        });
        let changed = Facts { plan: &plan, ..*facts };
        let engine = Engine::new(Arc::new(compile(&plan, 1)), EngineLimits::default());
        now = super::stages(&changed, engine, from, told.destination.clone(), request);
    }
    // Where it only comes to another end without advice, it is none.
    if now.reachable || !now.smallest_change.is_empty() {
        changes.extend(now.smallest_change);
        told.smallest_change = changes;
    }
}
