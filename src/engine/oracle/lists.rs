//! The lists of a plan, read from top to bottom.

use std::net::Ipv4Addr;

use super::{Port, Sent, TOKENS};
use crate::base::{Cidr, EniIx, PortRange, Proto};
use crate::engine::verdict::DropCode;
use crate::model::Plan;
use crate::model::plan::{EndpointKind, NaclRule, RouteOrigin, RouteTarget, SgPeer, TrafficMatch};
use crate::model::plan::{EniOwner, Fault, Impair, RouteDest, RouteTablePlan, TgwRouteTablePlan};

pub(super) fn matches(rule: &TrafficMatch, p: &Sent) -> bool {
    let Some(proto) = rule.proto else { return true };
    if proto != p.proto {
        return false;
    }
    match proto {
        Proto::TCP | Proto::UDP => holds(rule.ports, p.dst_port),
        Proto::ICMP => match rule.icmp {
            (None, _) => true,
            (Some(kind), code) => p.icmp.is_some_and(|(k, c)| k == kind && code.is_none_or(|code| code == c)),
        },
        _ => true,
    }
}

/// Ports of NAT gateways are from 1,024 on: a range has all of them or none, in the plans of these tests.
fn holds(range: PortRange, port: Port) -> bool {
    match u16::try_from(port) {
        Ok(port) => range.contains(port),
        Err(_) => {
            let (all, none) = (range.first <= 1_024 && range.last == u16::MAX, range.last < 1_024);
            assert!(all || none, "a range that splits the ports of NAT gateways: {range}, token {}", port - TOKENS);
            all
        }
    }
}

pub(super) fn is_peer(plan: &Plan, peer: SgPeer, addr: Ipv4Addr) -> bool {
    match peer {
        SgPeer::Cidr(cidr) => cidr.contains(addr),
        SgPeer::PrefixList(list) => plan.prefix_lists[list].entries.iter().any(|block| block.contains(addr)),
        SgPeer::Group(group) => plan.enis.iter().any(|e| e.ip == addr && e.security_groups.contains(&group)),
    }
}

pub(super) fn first_rule(rules: &[NaclRule], p: &Sent, peer: Ipv4Addr) -> (bool, u16) {
    for rule in rules {
        if matches(&rule.matches, p) && rule.peer.contains(peer) {
            return (rule.allow, rule.number);
        }
    }
    (false, 32_767)
}

/// Longest prefix; of equal ones a written block before a written list or a gateway endpoint's, before `local`, before
/// what was propagated; propagated routes inside the VPC's blocks do not count.
pub(super) fn best_route(plan: &Plan, table: &RouteTablePlan, dst: Ipv4Addr) -> Option<usize> {
    let own = &plan.vpcs[table.vpc].cidrs;
    let mut best: Option<(u8, u8, usize)> = None;
    for (at, route) in table.routes.iter().enumerate() {
        let (blocks, listed): (&[Cidr], bool) = match &route.to {
            RouteDest::Cidr(to) => (std::slice::from_ref(to), false),
            RouteDest::PrefixList(list) => (&plan.prefix_lists[*list].entries, true),
        };
        for block in blocks.iter().filter(|block| block.contains(dst)) {
            let propagated = route.origin == RouteOrigin::Propagated;
            if propagated && own.iter().any(|own| own.covers(*block)) {
                continue;
            }
            let rank = match () {
                () if propagated => 0,
                () if route.target == RouteTarget::Local => 1,
                () if listed => 2,
                () => 3,
            };
            if best.is_none_or(|(len, least, _)| (block.len(), rank) > (len, least)) {
                best = Some((block.len(), rank, at));
            }
        }
    }
    best.map(|(_, _, at)| at)
}

/// Longest prefix; the first of equal ones.
pub(super) fn best_of<'a>(blocks: impl Iterator<Item = &'a Cidr>, dst: Ipv4Addr) -> Option<usize> {
    let mut best: Option<(u8, usize)> = None;
    for (at, block) in blocks.enumerate() {
        if block.contains(dst) && best.is_none_or(|(len, _)| block.len() > len) {
            best = Some((block.len(), at));
        }
    }
    best.map(|(_, at)| at)
}

pub(super) fn best_tgw_route(table: &TgwRouteTablePlan, dst: Ipv4Addr) -> Option<usize> {
    best_of(table.routes.iter().map(|route| &route.to), dst)
}

/// Who has an address in a VPC, NAT gateways' further addresses included.
pub(super) fn host(plan: &Plan, vpc: usize, addr: Ipv4Addr) -> Option<EniIx> {
    let has = |eni: &crate::model::plan::EniPlan| {
        eni.vpc() == Some(vpc)
            && (eni.ip == addr
                || matches!(eni.owner, EniOwner::NatGateway(n) if plan.nat_gateways[n].addresses.contains(&addr)))
    };
    plan.enis.iter().position(has).map(|at| EniIx(at as u32))
}

/// The gateway endpoint of a VPC whose prefix list holds an address.
pub(super) fn gateway_endpoint(plan: &Plan, vpc: usize, addr: Ipv4Addr) -> Option<usize> {
    plan.endpoints.iter().position(|endpoint| match endpoint.kind {
        EndpointKind::Gateway { prefix_list, .. } => {
            endpoint.vpc == vpc && plan.prefix_lists[prefix_list].entries.iter().any(|block| block.contains(addr))
        }
        EndpointKind::Interface => false,
    })
}

pub(super) fn zone_is_down(plan: &Plan, subnet: usize) -> bool {
    let id = &plan.subnets[subnet].az_id;
    plan.faults.iter().any(|fault| matches!(&fault.what, Fault::Zone { az_id } if az_id == id))
}

/// Why an ENI neither sends nor receives.
pub(super) fn failed(plan: &Plan, at: EniIx) -> Option<DropCode> {
    let eni = plan.eni(at);
    let zone = eni.subnet().is_some_and(|subnet| zone_is_down(plan, subnet));
    match eni.owner {
        EniOwner::Endpoint(_) => {
            let down =
                plan.faults.iter().any(|f| matches!(&f.what, Fault::Endpoint { enis, .. } if enis.contains(&at)));
            (zone || down).then_some(DropCode::VpceAzDown)
        }
        EniOwner::Instance(i, _) => {
            let down = plan.faults.iter().any(|fault| fault.what == Fault::Instance(i));
            match () {
                () if down => Some(DropCode::InstanceDown),
                () if impairment(plan, at).is_some_and(|impair| impair.down) => Some(DropCode::LinkImpaired),
                () => zone.then_some(DropCode::AzDown),
            }
        }
        _ => zone.then_some(DropCode::AzDown),
    }
}

/// What an instance's links do to packets: as the last fault says, else as the file does.
pub(super) fn impairment(plan: &Plan, at: EniIx) -> Option<Impair> {
    let EniOwner::Instance(i, _) = plan.eni(at).owner else { return None };
    let mut impaired = plan.instances[i].impair;
    for fault in &plan.faults {
        match fault.what {
            Fault::Link { instance, impair } if instance == i => impaired = Some(impair),
            _ => {}
        }
    }
    impaired
}

/// RFC 1918 and RFC 6598.
pub(super) fn is_private(addr: Ipv4Addr) -> bool {
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
        .iter()
        .any(|block| block.parse::<Cidr>().expect("block").contains(addr))
}
