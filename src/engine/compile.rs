//! From `Plan` to `Program`: all that can be looked up once is looked up here, and never per packet.

use std::collections::HashMap;

use super::lpm::Lpm;
use super::program::{Eni, Groups, Nacl, Program, Route, Subnet, Table, Target, Timeouts, Vpc};
use super::rules::{NaclTable, SgTable};
use crate::base::Cidr;
use crate::model::Plan;
use crate::model::plan::{EniOwner, RouteDest, RouteTablePlan, RouteTarget, SecurityGroupPlan, SgRule};

/// Compiles a plan. `generation` must differ from that of the program it replaces.
pub fn compile(plan: &Plan, generation: u64) -> Program {
    let members = members(plan);
    let mut groups: Vec<Groups> = Vec::new();
    let mut known: HashMap<&[usize], u32> = HashMap::new();
    for eni in &plan.enis {
        known.entry(&eni.security_groups).or_insert_with_key(|list| {
            groups.push(Groups {
                ingress: SgTable::new(rules(plan, list, |sg| &sg.ingress), &members),
                egress: SgTable::new(rules(plan, list, |sg| &sg.egress), &members),
            });
            groups.len() as u32 - 1
        });
    }
    let enis = plan.enis.iter().map(|eni| Eni {
        id: eni.common.id.clone(),
        ip: eni.ip.to_bits(),
        vpc: eni.vpc().unwrap_or_default() as u32,
        subnet: eni.subnet().unwrap_or_default() as u32,
        groups: known[eni.security_groups.as_slice()],
        source_dest_check: eni.source_dest_check || matches!(eni.owner, EniOwner::Endpoint(_)),
        endpoint: match eni.owner {
            EniOwner::Endpoint(e) => Some(plan.services[plan.endpoints[e].service].ports.clone().into()),
            _ => None,
        },
    });
    let subnets = plan.subnets.iter().map(|subnet| Subnet {
        cidr: subnet.cidr,
        table: subnet.route_table as u32,
        nacl: subnet.nacl as u32,
    });
    let nacls = plan.network_acls.iter().map(|nacl| Nacl {
        id: nacl.common.id.clone(),
        ingress: NaclTable::new(&nacl.ingress),
        egress: NaclTable::new(&nacl.egress),
    });
    Program {
        generation,
        enis: enis.collect(),
        subnets: subnets.collect(),
        vpcs: (0..plan.vpcs.len()).map(|vpc| compile_vpc(plan, vpc)).collect(),
        tables: plan.route_tables.iter().map(compile_table).collect(),
        nacls: nacls.collect(),
        groups: groups.into(),
        timeouts: Timeouts::new(&plan.limits),
        limits: plan.limits.clone(),
    }
}

/// The private addresses of the ENIs that carry each group: what a reference to it means.
fn members(plan: &Plan) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); plan.security_groups.len()];
    for eni in &plan.enis {
        for &group in &eni.security_groups {
            members[group].push(eni.ip.to_bits());
        }
    }
    members
}

/// The rules of a list of groups with their names, in the order in which they decide.
fn rules<'a>(
    plan: &'a Plan,
    list: &[usize],
    direction: impl Fn(&'a SecurityGroupPlan) -> &'a Vec<SgRule>,
) -> impl Iterator<Item = (usize, usize, &'a SgRule)> {
    let of_group = |&group: &usize| {
        let rules = direction(&plan.security_groups[group]);
        rules.iter().enumerate().map(move |(at, rule)| (group, at, rule))
    };
    list.iter().flat_map(of_group).collect::<Vec<_>>().into_iter()
}

fn compile_vpc(plan: &Plan, vpc: usize) -> Vpc {
    let of_vpc = |(_, subnet): &(usize, &crate::model::plan::SubnetPlan)| subnet.vpc == vpc;
    let subnets: Vec<(Cidr, u32)> =
        plan.subnets.iter().enumerate().filter(of_vpc).map(|(at, subnet)| (subnet.cidr, at as u32)).collect();
    let mut hosts: Vec<(u32, u32)> = plan
        .enis
        .iter()
        .enumerate()
        .filter(|(_, eni)| eni.vpc() == Some(vpc))
        .map(|(at, eni)| (eni.ip.to_bits(), at as u32))
        .collect();
    hosts.sort_unstable();
    let v = &plan.vpcs[vpc];
    Vpc {
        cidrs: v.cidrs.clone().into(),
        resolver: v.resolver().to_bits(),
        dns_support: v.dns_support,
        subnets: Lpm::new(&subnets),
        hosts: hosts.into(),
    }
}

/// Of two routes for one block the written one wins over the local one it replaces (VPC User Guide, "replace the
/// target of the local route"), else the first.
fn compile_table(table: &RouteTablePlan) -> Table {
    let local = |at: &usize| table.routes[*at].target == RouteTarget::Local;
    let mut order: Vec<usize> = (0..table.routes.len()).collect();
    order.sort_by_key(local);
    let entries: Vec<(Cidr, u32)> = order
        .iter()
        .filter_map(|at| match table.routes[*at].to {
            RouteDest::Cidr(cidr) => Some((cidr, *at as u32)),
            RouteDest::PrefixList(_) => None,
        })
        .collect();
    let routes = table.routes.iter().map(|route| Route {
        id: route.id.clone(),
        target: match route.target {
            RouteTarget::Local => Target::Local,
            RouteTarget::Eni(eni) => Target::Eni(eni),
            _ => Target::Blackhole,
        },
    });
    Table { id: table.common.id.clone(), lpm: Lpm::new(&entries), routes: routes.collect() }
}
