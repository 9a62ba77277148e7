//! What stands at a VPC's edge, as text.

use std::collections::BTreeMap;

use super::Attributes;
use crate::model::Plan;
use crate::model::plan::{Common, EndpointKind, EndpointPlan, InstancePlan, Tracking};

type Objects = Vec<(&'static str, BTreeMap<String, Attributes>)>;

/// Every object of these kinds with all that a user can change of it.
pub(super) fn objects(p: &Plan, of: &dyn Fn(&Common, Attributes) -> (String, Attributes)) -> Objects {
    let table = |at: Option<usize>| at.map(|at| p.route_tables[at].common.name.clone()).unwrap_or_default();
    vec![
        (
            "Internet gateway",
            p.internet_gateways.iter().map(|g| of(&g.common, vec![("edge", table(g.edge_table))])).collect(),
        ),
        (
            "virtual private gateway",
            p.vgws.iter().map(|g| of(&g.common, vec![("edge", table(g.edge_table))])).collect(),
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
                            ("addresses", joined(nat.addresses.iter())),
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
                            ("of", p.eni(public.eni).common.path.clone()),
                            ("private address", public.private.to_string()),
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
                    of(
                        &list.common,
                        vec![("entries", joined(list.entries.iter())), ("max_entries", list.max_entries.to_string())],
                    )
                })
                .collect(),
        ),
    ]
}

/// Of an instance, beside its interfaces.
pub(super) fn of_instance(i: &InstancePlan) -> Attributes {
    vec![
        ("names", i.names.join(", ")),
        ("forward", i.forward.map(|forward| format!("{forward:?}").to_lowercase()).unwrap_or_default()),
        ("tracking", tracking(&i.tracking)),
        ("impair", i.impair.map(|impair| format!("{impair:?}")).unwrap_or_default()),
    ]
}

/// `tcp_idle 350s, udp_idle 30s`: what is not the lab's.
fn tracking(t: &Tracking) -> String {
    let times = [("tcp_idle", t.tcp_idle), ("udp_idle", t.udp_idle), ("udp_stream", t.udp_stream)];
    joined(times.into_iter().filter_map(|(name, time)| Some(format!("{name} {}", super::time(time?)))))
}

/// Of an endpoint: its type, and the tables that lead to a gateway endpoint.
pub(super) fn of_endpoint(p: &Plan, e: &EndpointPlan) -> Attributes {
    let (kind, tables) = match &e.kind {
        EndpointKind::Interface => ("interface", String::new()),
        EndpointKind::Gateway { route_tables, .. } => {
            ("gateway", joined(route_tables.iter().map(|at| &p.route_tables[*at].common.name)))
        }
    };
    vec![("type", kind.to_owned()), ("route_tables", tables)]
}

fn joined<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
