//! Where the objects of a plan are in the plan that follows: what is remembered by index (drop records) goes with them.

use std::collections::HashMap;

use crate::engine::{Decider, DropRecord};
use crate::model::Plan;
use crate::model::plan::Common;

/// By index in the old plan; objects are the same if their path is. ENIs, network ACLs and route tables are not here:
/// the engine follows those by itself.
#[derive(Debug, Default)]
pub struct Follow {
    igws: Vec<Option<usize>>,
    nats: Vec<Option<usize>>,
    endpoints: Vec<Option<usize>>,
    peerings: Vec<Option<usize>>,
    tgws: Vec<Option<usize>>,
    attachments: Vec<Option<usize>>,
    vgws: Vec<Option<usize>>,
    links: Vec<Option<usize>>,
    tgw_tables: Vec<Option<(usize, Routes)>>,
    sites: Vec<Option<(usize, Routes)>>,
}

/// Of each route of an old table.
type Routes = Vec<Option<usize>>;

impl Follow {
    pub fn new(old: &Plan, new: &Plan) -> Follow {
        // An attachment's route table moves with the names of both.
        let tgw_routes = |before: usize, after: usize| {
            let key = |plan: &Plan, table: usize| -> Vec<String> {
                plan.tgw_route_tables[table].routes.iter().map(|r| plan.tgw_route_text(r)).collect()
            };
            positions(&key(old, before), &key(new, after))
        };
        let site_routes = |before: usize, after: usize| {
            let key = |plan: &Plan, site: usize| -> Vec<String> {
                plan.sites[site].routes.iter().map(|r| plan.site_route_text(r)).collect()
            };
            positions(&key(old, before), &key(new, after))
        };
        let with = |all: Vec<Option<usize>>, routes: &dyn Fn(usize, usize) -> Routes| {
            let both = all.into_iter().enumerate();
            both.map(|(before, after)| after.map(|after| (after, routes(before, after)))).collect()
        };
        macro_rules! by_path {
            ($noun:ident) => {
                paths(old.$noun.iter().map(|o| &o.common), new.$noun.iter().map(|o| &o.common))
            };
        }
        Follow {
            igws: by_path!(internet_gateways),
            nats: by_path!(nat_gateways),
            endpoints: by_path!(endpoints),
            peerings: by_path!(peerings),
            tgws: by_path!(transit_gateways),
            attachments: by_path!(tgw_attachments),
            vgws: by_path!(vgws),
            links: by_path!(links),
            tgw_tables: with(by_path!(tgw_route_tables), &tgw_routes),
            sites: with(by_path!(sites), &site_routes),
        }
    }

    /// The record in the words of the new plan; `None` if what decided is gone.
    pub fn record(&self, record: &DropRecord) -> Option<DropRecord> {
        let one = |all: &[Option<usize>], at: usize| all.get(at).copied().flatten();
        let two = |all: &[Option<(usize, Routes)>], at: usize, route: Option<usize>| {
            let (at, routes) = all.get(at)?.as_ref()?;
            match route {
                None => Some((*at, None)),
                Some(route) => Some((*at, Some((*routes.get(route)?)?))),
            }
        };
        let decider = match record.decider {
            Decider::Igw(at) => Decider::Igw(one(&self.igws, at)?),
            Decider::Nat(at) => Decider::Nat(one(&self.nats, at)?),
            Decider::GatewayEndpoint(at) => Decider::GatewayEndpoint(one(&self.endpoints, at)?),
            Decider::Peering(at) => Decider::Peering(one(&self.peerings, at)?),
            Decider::Tgw(at) => Decider::Tgw(one(&self.tgws, at)?),
            Decider::TgwAttachment(at) => Decider::TgwAttachment(one(&self.attachments, at)?),
            Decider::Vgw(at) => Decider::Vgw(one(&self.vgws, at)?),
            Decider::Link(at) => Decider::Link(one(&self.links, at)?),
            Decider::TgwRouteTable(at, route) => {
                let (at, route) = two(&self.tgw_tables, at, route)?;
                Decider::TgwRouteTable(at, route)
            }
            Decider::Site(at, route) => {
                let (at, route) = two(&self.sites, at, route)?;
                Decider::Site(at, route)
            }
            // The engine's own, and what has no index.
            Decider::Eni(_)
            | Decider::SecurityGroups(_)
            | Decider::Nacl(..)
            | Decider::RouteTable(..)
            | Decider::EndpointEni(_)
            | Decider::Resolver(_)
            | Decider::Imds(_)
            | Decider::FlowTable
            | Decider::Internet => record.decider,
        };
        Some(DropRecord { decider, ..record.clone() })
    }
}

fn paths<'a>(old: impl Iterator<Item = &'a Common>, new: impl Iterator<Item = &'a Common>) -> Vec<Option<usize>> {
    let new: HashMap<&str, usize> = new.enumerate().map(|(at, c)| (c.path.as_str(), at)).collect();
    old.map(|c| new.get(c.path.as_str()).copied()).collect()
}

fn positions(old: &[String], new: &[String]) -> Routes {
    let new: HashMap<&str, usize> = new.iter().enumerate().map(|(at, text)| (text.as_str(), at)).collect();
    old.iter().map(|text| new.get(text.as_str()).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{EniIx, FiveTuple, Instant, Proto};
    use crate::engine::{Direction, DropCode};
    use crate::model::testing::plan_of;

    const LAB: &str = "version: 1
name: t
region: eu-west-1
vpcs:
  a: { cidr: 10.1.0.0/16, internet_gateway: true, subnets: { s: { cidr: 10.1.1.0/24, az: a } } }
  b: { cidr: 10.2.0.0/16, subnets: { s: { cidr: 10.2.1.0/24, az: a } }, instances: { i: { subnet: s } } }
  c: { cidr: 10.3.0.0/16, internet_gateway: true, subnets: { s: { cidr: 10.3.1.0/24, az: a } } }
transit_gateways:
  t:
    attachments: { a: { vpc: a, subnets: [s] }, b: { vpc: b, subnets: [s] } }
    route_tables:
      rt: { associate: [a, b], routes: [ { to: 10.8.0.0/16, via: blackhole }, { to: 10.9.0.0/16, via: blackhole } ] }
";

    fn plan(patch: &str) -> Plan {
        plan_of(&[LAB, patch])
    }

    fn record(decider: Decider) -> DropRecord {
        let tuple = FiveTuple {
            src: [10, 2, 1, 4].into(),
            dst: [10, 9, 0, 1].into(),
            src_port: 1,
            dst_port: 2,
            proto: Proto::UDP,
        };
        DropRecord {
            first: Instant::ZERO,
            last: Instant::ZERO,
            from: EniIx(0),
            tuple,
            whose: Default::default(),
            code: DropCode::TgwBlackhole,
            decider,
            direction: Direction::Egress,
            count: 1,
        }
    }

    #[test]
    fn deciders_follow_their_objects_and_end_with_them() {
        let old = plan("{}");
        let new = plan(
            "vpcs: { a: { internet_gateway: false } }
transit_gateways: { t: { route_tables: { aa: { routes: [] }, rt: { routes: [ { to: 10.9.0.0/16, via: blackhole } ] } } } }",
        );
        let follow = Follow::new(&old, &new);
        let after = |decider| follow.record(&record(decider)).map(|r| r.decider);
        let table = |plan: &Plan, name: &str| {
            plan.tgw_route_tables.iter().position(|t| t.common.name == name).expect("a table")
        };
        let (rt, rt_after) = (table(&old, "rt"), table(&new, "rt"));
        let route = |plan: &Plan, table: usize, to: &str| {
            plan.tgw_route_tables[table].routes.iter().position(|r| r.to.to_string() == to)
        };
        assert_eq!(
            after(Decider::TgwRouteTable(rt, route(&old, rt, "10.9.0.0/16"))),
            Some(Decider::TgwRouteTable(rt_after, route(&new, rt_after, "10.9.0.0/16")))
        );
        assert_eq!(after(Decider::TgwRouteTable(rt, route(&old, rt, "10.8.0.0/16"))), None, "the route is gone");
        assert_eq!(after(Decider::TgwRouteTable(rt, None)), Some(Decider::TgwRouteTable(rt_after, None)));
        let igw =
            |plan: &Plan, vpc: &str| plan.internet_gateways.iter().position(|g| plan.vpcs[g.vpc].common.name == vpc);
        assert_eq!(after(Decider::Igw(igw(&old, "a").expect("one"))), None);
        assert_eq!(after(Decider::Igw(igw(&old, "c").expect("one"))), igw(&new, "c").map(Decider::Igw));
        assert_eq!(after(Decider::Internet), Some(Decider::Internet));
        assert_eq!(after(Decider::Nat(7)), None);
    }
}
