//! Gateways as `vpclab ps` shows them.

use crate::control::api::{Counters, PsGateway};
use crate::control::states;
use crate::engine::Engine;
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, Common, EndpointKind, Fault, LinkKind};

/// Every gateway of the plan, with what the engine counted. `counters` are of ENIs.
pub fn rows(plan: &Plan, nats: &[Vec<(&'static str, u64)>], counters: &[Counters]) -> Vec<PsGateway> {
    let of = |kind: &str, common: &Common| PsGateway {
        kind: kind.to_owned(),
        path: common.path.clone(),
        id: common.id.clone(),
        state: "available".to_owned(),
        ..PsGateway::default()
    };
    let mut rows = Vec::new();
    for igw in &plan.internet_gateways {
        rows.push(PsGateway { state: "attached".to_owned(), ..of("internet-gateway", &igw.common) });
    }
    for (at, nat) in plan.nat_gateways.iter().enumerate() {
        let public = plan.public_addresses.iter().filter(|public| public.eni == nat.eni);
        let addresses = nat.addresses.iter().map(ToString::to_string).chain(public.map(|p| p.addr.to_string()));
        let metrics = nats.get(at).cloned().unwrap_or_default();
        let value = |name: &str| metrics.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
        let subnet = &plan.subnets[nat.subnet];
        rows.push(PsGateway {
            addresses: addresses.collect(),
            az: subnet.az.to_string(),
            state: states::of_eni(plan, nat.eni).to_owned(),
            bytes_in: value("BytesInFromDestination"),
            bytes_out: value("BytesOutToDestination"),
            drops: value("PacketsDropCount") + value("ErrorPortAllocation"),
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            ..of("nat-gateway", &nat.common)
        });
    }
    for endpoint in &plan.endpoints {
        let EndpointKind::Gateway { door, prefix_list, .. } = &endpoint.kind else { continue };
        let counters = counters.get(door.at()).copied().unwrap_or_default();
        rows.push(PsGateway {
            addresses: plan.prefix_lists[*prefix_list].entries.iter().map(ToString::to_string).collect(),
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            drops: counters.drops,
            ..of("gateway-endpoint", &endpoint.common)
        });
    }
    for peering in &plan.peerings {
        rows.push(PsGateway { state: "active".to_owned(), ..of("peering", &peering.common) });
    }
    for tgw in &plan.transit_gateways {
        let attached = tgw.attachments.iter().map(|at| &plan.tgw_attachments[*at]);
        let names = attached.map(|a| match &a.to {
            AttachmentTo::Vpc(to) => plan.vpcs[to.vpc].common.name.clone(),
            AttachmentTo::Link(link) => plan.links[*link].common.name.clone(),
        });
        let state = states::of_transit_gateway(plan, tgw);
        rows.push(PsGateway { addresses: names.collect(), state, ..of("transit-gateway", &tgw.common) });
    }
    for vgw in &plan.vgws {
        rows.push(PsGateway { state: "attached".to_owned(), ..of("virtual-private-gateway", &vgw.common) });
    }
    for (at, link) in plan.links.iter().enumerate() {
        let LinkKind::Vpn { tunnels, .. } = &link.kind else {
            rows.push(of("direct-connect", &link.common));
            continue;
        };
        let down = |n: usize| plan.faults.iter().any(|f| f.what == Fault::Tunnel { link: at, tunnel: n });
        let up = (0..tunnels.len()).filter(|n| !down(*n)).count();
        let state = format!("{up} of {} tunnels up", tunnels.len());
        rows.push(PsGateway { state, ..of("vpn", &link.common) });
    }
    rows
}

/// Metrics of every NAT gateway, in the order of the plan.
pub fn nat_metrics(engine: &Engine) -> Vec<Vec<(&'static str, u64)>> {
    engine.counters().nats.iter().map(|nat| nat.metrics().to_vec()).collect()
}
