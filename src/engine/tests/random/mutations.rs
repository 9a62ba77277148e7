//! Would the comparison notice? With each step of the engine disabled in turn it must fail.
//!
//! A step is disabled from outside: the engine is given a plan in which the step has nothing to decide, the oracle the
//! plan as it is. Nothing of the engine has to be prepared for that.

use super::*;
use crate::base::Cidr;
use crate::model::Plan;
use crate::model::plan::{
    AttachmentTo, EndpointKind, Fault, Latency, LinkKind, RouteOrigin, RouteTarget, SgPeer, SgRule, TgwTarget,
    TrafficMatch,
};

type Mutation = fn(&mut Plan);

/// What is switched off, and how.
const MUTATIONS: &[(&str, Mutation)] = &[
    ("security groups, egress", |plan| {
        for group in &mut plan.security_groups {
            group.egress.push(open());
        }
    }),
    ("security groups, ingress", |plan| {
        for group in &mut plan.security_groups {
            group.ingress.push(open());
        }
    }),
    ("references to groups", |plan| {
        for rule in plan.security_groups.iter_mut().flat_map(|g| g.ingress.iter_mut().chain(&mut g.egress)) {
            if let SgPeer::Group(_) = rule.peer {
                rule.peer = SgPeer::Cidr("10.0.0.0/8".parse().expect("block"));
            }
        }
    }),
    ("network ACLs, egress", |plan| {
        plan.network_acls.iter_mut().flat_map(|acl| &mut acl.egress).for_each(|rule| rule.allow = true);
    }),
    ("network ACLs, ingress", |plan| {
        plan.network_acls.iter_mut().flat_map(|acl| &mut acl.ingress).for_each(|rule| rule.allow = true);
    }),
    ("source/destination check", |plan| plan.enis.iter_mut().for_each(|eni| eni.source_dest_check = false)),
    ("faults", |plan| plan.faults.clear()),
    // Stateful firewalls are too rare in these worlds to stand out.
    ("propagated routes", |plan| {
        for table in &mut plan.route_tables {
            table.routes.retain(|route| route.origin != RouteOrigin::Propagated);
        }
    }),
    ("blackholes", |plan| {
        for table in &mut plan.route_tables {
            table.routes.retain(|route| route.target != RouteTarget::Blackhole);
        }
    }),
    ("edge tables", |plan| {
        plan.internet_gateways.iter_mut().for_each(|igw| igw.edge_table = None);
        plan.vgws.iter_mut().for_each(|vgw| vgw.edge_table = None);
    }),
    ("public addresses at the Internet gateway", |plan| {
        plan.public_addresses.retain(|a| plan.nat_gateways.iter().any(|n| n.eni == a.eni));
    }),
    ("public NAT gateways", |plan| plan.nat_gateways.iter_mut().for_each(|nat| nat.public = false)),
    ("gateway endpoints' prefix lists", |plan| {
        for at in 0..plan.endpoints.len() {
            if let EndpointKind::Gateway { prefix_list, .. } = plan.endpoints[at].kind {
                plan.prefix_lists[prefix_list].entries.clear();
            }
        }
    }),
    ("ports of endpoints", |plan| {
        plan.services.iter_mut().for_each(|service| service.ports = (0..=u16::MAX).collect());
    }),
    ("MTU of peerings", |plan| plan.peerings.iter_mut().for_each(|peering| peering.same_region = true)),
    ("path MTU discovery at transit gateways", |plan| {
        plan.transit_gateways.iter_mut().for_each(|tgw| tgw.pmtud = true);
    }),
    ("association of attachments", |plan| {
        for attachment in &mut plan.tgw_attachments {
            attachment.route_table = attachment.route_table.or(Some(0));
        }
    }),
    ("blackholes of transit gateways", |plan| {
        for table in &mut plan.tgw_route_tables {
            table.routes.retain(|route| route.target != TgwTarget::Blackhole);
        }
    }),
    ("appliance mode", |plan| {
        for attachment in &mut plan.tgw_attachments {
            if let AttachmentTo::Vpc(to) = &mut attachment.to {
                to.appliance_mode = false;
            }
        }
    }),
    ("what AWS knows of the site", |plan| plan.links.iter_mut().for_each(|link| link.site_blocks = vec![Cidr::ANY])),
    ("routes of the site", |plan| plan.sites.iter_mut().for_each(|site| site.routes.truncate(1))),
    ("preference of tunnels, MTU and MSS", |plan| {
        for link in &mut plan.links {
            if let LinkKind::Vpn { tunnels, .. } = &mut link.kind {
                let first = tunnels[0].clone();
                tunnels.iter_mut().for_each(|tunnel| *tunnel = first.clone());
            }
        }
    }),
    ("firewalls of sites, per tunnel", |plan| {
        for link in &mut plan.links {
            if let LinkKind::Vpn { stateful, .. } = &mut link.kind {
                *stateful = false;
            }
        }
    }),
    ("impaired links", |plan| {
        plan.instances.iter_mut().for_each(|instance| instance.impair = None);
        plan.faults.retain(|fault| !matches!(fault.what, Fault::Link { .. }));
    }),
    ("delays", |plan| plan.latency = Latency::Off),
    ("DNS support", |plan| plan.vpcs.iter_mut().for_each(|vpc| vpc.dns_support = true)),
    ("AWS's public side", |plan| plan.public_side = None),
];

fn open() -> SgRule {
    let peer = SgPeer::Cidr("0.0.0.0/0".parse().expect("block"));
    SgRule { id: String::new(), matches: TrafficMatch::ALL, peer, text: String::new(), implied: false }
}

#[test]
fn a_run_fails_with_any_step_disabled() {
    let mut unnoticed = Vec::new();
    for (name, mutate) in MUTATIONS {
        let seen = RefCell::new(Seen::default());
        let config = Config { cases: 2_500, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let disabled = Disabled(Some(*mutate));
        let result = TestRunner::new_with_rng(config, rng).run(&case(), |case| run(&case, &seen, disabled, None));
        println!("{name}: noticed after {} packets", seen.borrow().packets);
        if result.is_ok() {
            unnoticed.push(*name);
        }
    }
    assert!(unnoticed.is_empty(), "the comparison does not notice that these are disabled: {unnoticed:?}");
}
