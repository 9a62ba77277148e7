//! What stands at the edge of VPCs, as text: gateways, public addresses, prefix lists.

use std::collections::BTreeMap;

use super::Attributes;
use crate::model::Plan;
use crate::model::plan::{Common, EndpointKind, EndpointPlan, Forward, InstancePlan};

type Objects = Vec<(&'static str, BTreeMap<String, Attributes>)>;

/// Every object of these kinds with all that a user can change of it.
pub(super) fn objects(p: &Plan, of: &dyn Fn(&Common, Attributes) -> (String, Attributes)) -> Objects {
    let vpc = |at: usize| p.vpcs[at].common.path.clone();
    let table = |at: Option<usize>| at.map(|at| p.route_tables[at].common.name.clone()).unwrap_or_default();
    vec![
        (
            "Internet gateway",
            p.internet_gateways
                .iter()
                .map(|igw| of(&igw.common, vec![("vpc", vpc(igw.vpc)), ("edge route table", table(igw.edge_table))]))
                .collect(),
        ),
        (
            "virtual private gateway",
            p.vgws
                .iter()
                .map(|vgw| of(&vgw.common, vec![("vpc", vpc(vgw.vpc)), ("edge route table", table(vgw.edge_table))]))
                .collect(),
        ),
        (
            "NAT gateway",
            p.nat_gateways
                .iter()
                .map(|nat| {
                    of(
                        &nat.common,
                        vec![
                            ("subnet", p.subnets[nat.subnet].common.path.clone()),
                            ("public", nat.public.to_string()),
                            ("addresses", joined(&nat.addresses)),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "public address",
            p.public_addresses
                .iter()
                .map(|public| {
                    of(
                        &public.common,
                        vec![
                            ("address", public.addr.to_string()),
                            ("of", format!("{} {}", p.eni_label(public.eni), public.private)),
                            ("elastic", public.elastic.to_string()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "prefix list",
            p.prefix_lists
                .iter()
                .map(|list| {
                    let max = list.max_entries.to_string();
                    of(&list.common, vec![("entries", joined(&list.entries)), ("max_entries", max)])
                })
                .collect(),
        ),
    ]
}

/// `gateway in private-a, private-b`, or `interface`.
pub(super) fn endpoint_type(p: &Plan, endpoint: &EndpointPlan) -> String {
    match &endpoint.kind {
        EndpointKind::Interface => "interface".to_owned(),
        EndpointKind::Gateway { route_tables, .. } => {
            let tables: Vec<&str> = route_tables.iter().map(|&at| p.route_tables[at].common.name.as_str()).collect();
            format!("gateway in {}", if tables.is_empty() { "no route table".to_owned() } else { tables.join(", ") })
        }
    }
}

/// What an instance has of the network around it.
pub(super) fn instance(i: &InstancePlan) -> Attributes {
    let forward = match i.forward {
        None => "",
        Some(Forward::Plain) => "true",
        Some(Forward::Masquerade) => "masquerade",
        Some(Forward::Stateful) => "stateful",
    };
    let tracking =
        [("tcp_idle", i.tracking.tcp_idle), ("udp_idle", i.tracking.udp_idle), ("udp_stream", i.tracking.udp_stream)];
    let tracking: Vec<String> =
        tracking.into_iter().filter_map(|(key, time)| time.map(|time| format!("{key} {time:?}"))).collect();
    vec![("names", i.names.join(", ")), ("forward", forward.to_owned()), ("tracking", tracking.join(", "))]
}

fn joined<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
