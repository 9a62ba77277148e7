//! A firewall that sees one direction of a session only: what brings both to the same one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Explanation, ports};
use crate::base::EniIx;
use crate::engine::{Engine, EngineLimits, compile};
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, EniOwner};

/// Appliance mode of the attachment to the firewall's VPC, where that mends it, made in `plan` (Transit Gateway guide,
/// "appliance mode": both directions of a flow then enter the VPC in one zone).
pub(super) fn change(plan: &mut Plan, from: EniIx, dst: Ipv4Addr, told: &Explanation) -> Option<(String, bool)> {
    let code = told.code.as_deref();
    let firewall = plan.instances.iter().find(|instance| Some(&instance.common.path) == told.object.as_ref())?;
    let EniOwner::Instance(client, _) = plan.eni(from).owner else { return None };
    let vpc = firewall.vpc()?;
    for at in 0..plan.tgw_attachments.len() {
        let mut changed = plan.clone();
        let AttachmentTo::Vpc(to) = &mut changed.tgw_attachments[at].to else { continue };
        if to.vpc != vpc || to.appliance_mode || to.subnets.len() < 2 {
            continue;
        }
        to.appliance_mode = true;
        let engine = Engine::new(Arc::new(compile(&changed, 1)), EngineLimits::default());
        let mut again = super::blank(&changed, (client, told.source.given()), told.destination.clone());
        ports::walk(&changed, &engine, from, dst, &mut again);
        if again.code.as_deref() != code {
            let attachment = &plan.tgw_attachments[at];
            let tgw = &plan.transit_gateways[attachment.tgw].common.name;
            let name = &attachment.common.name;
            let text = format!("transit_gateways.{tgw}.attachments.{name}.appliance_mode: true");
            *plan = changed;
            return Some((text, true));
        }
    }
    None
}
