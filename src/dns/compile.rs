//! From a plan to zones.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::{Cidr, EniIx};
use crate::model::plan::{EndpointPlan, VpcPlan};
use crate::model::{Plan, catalogue};

use super::hosts;
use super::name::{self, WireName};
use super::zone::{Node, QType, Synthesis, Zone, ZoneKind};

/// Apexes of AWS's public domains. They decide only which SOA a negative answer shows.
const PUBLIC_APEXES: [&str; 4] = ["amazonaws.com", "amazonaws.com.cn", "api.aws", "sagemaker.aws"];
/// Domains that exist because names below them do.
const PUBLIC_DOMAINS: [&str; 7] = ["com", "com.cn", "cn", "aws", "internal", "arpa", "in-addr.arpa"];
/// Seconds, of names that never change.
const LOCAL_TTL: u32 = 900;

/// Every zone of a lab, by the VPC that may see it. Immutable; published together with the engine's program.
pub struct Zones {
    /// In the order of the plan; the last is of hosts outside VPCs (`Plan::dns_view`).
    pub(super) vpcs: Vec<VpcZones>,
    /// What every VPC sees, by apex; the root is always here.
    pub(super) public: BTreeMap<Box<[u8]>, Zone>,
    /// Per endpoint, for reports.
    pub(super) endpoints: Vec<EndpointFacts>,
}

pub(super) struct VpcZones {
    /// `dns_support`: without it nobody listens at VPC+2.
    pub(super) serves: bool,
    pub(super) label: String,
    pub(super) zones: BTreeMap<Box<[u8]>, Zone>,
}

pub(super) struct EndpointFacts {
    pub(super) vpc: usize,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) private_dns: bool,
    /// Apexes of the private zones, and whether `*.APEX` is covered too.
    pub(super) private: Vec<(String, bool)>,
}

/// Compiles the zones of a plan.
pub fn compile(plan: &Plan) -> Zones {
    Zones {
        vpcs: (0..plan.vpcs.len()).map(|vpc| vpc_zones(plan, vpc)).chain([outside()]).collect(),
        public: public_zones(plan),
        endpoints: plan.endpoints.iter().map(endpoint_facts).collect(),
    }
}

impl Zones {
    /// The zone that is the authority for `name` in a VPC: the one with the longest apex; at equal apexes a private
    /// zone stands before a public one.
    pub(super) fn authority<'z>(&'z self, vpc: &'z VpcZones, name: &'z WireName) -> Option<(usize, &'z Zone)> {
        self.candidates(vpc, name).next()
    }

    /// All zones that hold `name`, the most specific first, with the offset of the apex in the name.
    pub(super) fn candidates<'z>(
        &'z self,
        vpc: &'z VpcZones,
        name: &'z WireName,
    ) -> impl Iterator<Item = (usize, &'z Zone)> {
        name.suffixes().flat_map(move |(at, suffix)| {
            vpc.zones.get(suffix).into_iter().chain(self.public.get(suffix)).map(move |zone| (at, zone))
        })
    }
}

/// What hosts outside VPCs see: nothing private.
fn outside() -> VpcZones {
    VpcZones { serves: true, label: "public".to_owned(), zones: BTreeMap::new() }
}

fn vpc_zones(plan: &Plan, vpc: usize) -> VpcZones {
    let of = &plan.vpcs[vpc];
    let mut zones = BTreeMap::new();
    let mut add = |zone: Option<Zone>| {
        if let Some(zone) = zone {
            zones.entry(zone.apex.clone()).or_insert(zone);
        }
    };
    if of.dns_support && of.dns_hostnames {
        for (endpoint, plan_of) in plan.endpoints.iter().enumerate().filter(|(_, e)| e.vpc == vpc && e.private_dns) {
            for private in &plan_of.names.private {
                add(private_zone(plan, endpoint, &private.apex, private.at_apex, private.wildcard));
            }
        }
    }
    for zone in instance_zones(plan, vpc).into_iter().chain(hosts::inside_zones(plan, vpc)) {
        add(Some(zone));
    }
    for zone in reverse_zones(plan, vpc) {
        add(Some(zone));
    }
    VpcZones { serves: of.dns_support, label: of.common.path.clone(), zones }
}

/// The hidden zone of one private name: its apex is the service's name, and only what AWS put there exists.
fn private_zone(plan: &Plan, endpoint: usize, apex: &str, at_apex: bool, wildcard: bool) -> Option<Zone> {
    let mut zone = Zone::new(ZoneKind::PrivateDns { endpoint }, apex, Synthesis::Nothing)?;
    let node = endpoint_node(plan, endpoint, &plan.endpoints[endpoint].enis);
    if at_apex {
        zone.insert(apex, node.clone());
    }
    if wildcard {
        zone.insert(&format!("*.{apex}"), node);
    }
    Some(zone)
}

/// Interfaces that have failed are left out, unless all have: then the addresses stay and do not answer.
fn endpoint_node(plan: &Plan, endpoint: usize, enis: &[EniIx]) -> Node {
    let sick = plan.sick_enis();
    let healthy: Vec<EniIx> = enis.iter().copied().filter(|eni| !sick.contains(eni)).collect();
    let given = if healthy.is_empty() { enis } else { healthy.as_slice() };
    Node {
        addrs: given.iter().map(|eni| plan.eni(*eni).ip).collect(),
        ttl: plan.limits.dns_ttl,
        others: Vec::new(),
        endpoint: Some(endpoint),
    }
}

/// `REGION.compute.internal` (in us-east-1 `ec2.internal`, and `compute-1.internal` of old). The zones are there without
/// `dns_hostnames` too, but empty: names of instances are then NXDOMAIN, and never somebody else's.
fn instance_zones(plan: &Plan, vpc: usize) -> Vec<Zone> {
    let of = &plan.vpcs[vpc];
    let ttl = plan.limits.dns_ttl;
    let mut domains = vec![of.internal_domain()];
    if of.region == "us-east-1" {
        domains.push("compute-1.internal".to_owned());
    }
    let mut zones = Vec::new();
    for apex in domains {
        let synthesis = if of.dns_hostnames {
            Synthesis::Instances { vpc_blocks: of.cidrs.clone().into_boxed_slice(), ttl }
        } else {
            Synthesis::Nothing
        };
        let Some(mut zone) = Zone::new(ZoneKind::InstanceNames, &apex, synthesis) else { continue };
        if of.dns_hostnames {
            let address = |ip| Node { addrs: Box::new([ip]), ttl, ..Node::default() };
            zone.insert(&format!("instance-data.{apex}"), address(Ipv4Addr::new(169, 254, 169, 254)));
            for instance in plan.instances.iter().filter(|i| i.vpc() == Some(vpc)) {
                if let Some(eni) = instance.enis.first() {
                    zone.insert(&format!("{}.{apex}", instance.common.id), address(plan.eni(*eni).ip));
                }
            }
        }
        zones.push(zone);
    }
    zones
}

/// The reverse zones that Route 53 Resolver defines by itself: RFC 1918, the VPC's own blocks, the metadata service.
fn reverse_zones(plan: &Plan, vpc: usize) -> Vec<Zone> {
    let of = &plan.vpcs[vpc];
    let domain = of.internal_domain();
    let mut apexes = vec!["10.in-addr.arpa".to_owned(), "168.192.in-addr.arpa".to_owned()];
    apexes.extend((16..=31).map(|second| format!("{second}.172.in-addr.arpa")));
    apexes.extend(of.cidrs.iter().filter(|c| !c.network().is_private()).map(reverse_apex));
    let mut zones: Vec<Zone> = apexes
        .iter()
        .filter_map(|apex| {
            let synthesis = match name::wire(&domain) {
                Some(domain) if of.dns_hostnames => Synthesis::Reverse {
                    vpc_blocks: of.cidrs.clone().into_boxed_slice(),
                    domain,
                    ttl: plan.limits.dns_ttl,
                },
                _ => Synthesis::Nothing,
            };
            Zone::new(ZoneKind::Reverse, apex, synthesis)
        })
        .collect();
    zones.extend(metadata_reverse_zone(of, &domain));
    zones
}

fn metadata_reverse_zone(of: &VpcPlan, domain: &str) -> Option<Zone> {
    const APEX: &str = "254.169.254.169.in-addr.arpa";
    let mut zone = Zone::new(ZoneKind::Reverse, APEX, Synthesis::Nothing)?;
    if of.dns_hostnames {
        let target = name::wire(&format!("instance-data.{domain}"))?;
        zone.insert(APEX, Node { others: vec![(QType::PTR, LOCAL_TTL, target)], ..Node::default() });
    }
    Some(zone)
}

/// The reverse zone of a block that is /16 to /28: cut at the octet above.
fn reverse_apex(block: &Cidr) -> String {
    let [a, b, c, _] = block.network().octets();
    if block.len() >= 24 { format!("{c}.{b}.{a}.in-addr.arpa") } else { format!("{b}.{a}.in-addr.arpa") }
}

/// The zones that every VPC sees.
fn public_zones(plan: &Plan) -> BTreeMap<Box<[u8]>, Zone> {
    let mut zones: BTreeMap<Box<[u8]>, Zone> = BTreeMap::new();
    let ttl = plan.limits.dns_ttl;
    for apex in PUBLIC_APEXES {
        if let Some(mut zone) =
            Zone::new(ZoneKind::Public, apex, Synthesis::Public { blocks: plan.public_blocks.clone(), ttl })
        {
            for region in catalogue::regions() {
                zone.insert(&format!("{}.{apex}", region.name), Node::default());
            }
            zones.insert(zone.apex.clone(), zone);
        }
    }
    if let Some(mut root) =
        Zone::new(ZoneKind::Public, ".", Synthesis::Public { blocks: plan.public_blocks.clone(), ttl })
    {
        for domain in PUBLIC_DOMAINS {
            root.insert(domain, Node::default());
        }
        zones.insert(root.apex.clone(), root);
    }
    for zone in local_zones() {
        zones.insert(zone.apex.clone(), zone);
    }
    for (at, endpoint) in plan.endpoints.iter().enumerate() {
        let Some(apex) = vpce_apex(&endpoint.names.regional) else { continue };
        let Some(key) = name::wire(&apex) else { continue };
        if !zones.contains_key(&key) {
            let Some(zone) = Zone::new(ZoneKind::EndpointNames, &apex, Synthesis::Nothing) else { continue };
            zones.insert(key.clone(), zone);
        }
        if let Some(zone) = zones.get_mut(&key) {
            insert_vpce_names(plan, at, zone);
        }
    }
    hosts::publish(plan, &mut zones);
    zones
}

/// `eu-west-1.vpce.amazonaws.com` of `vpce-0123-abcd1234.s3.eu-west-1.vpce.amazonaws.com`.
fn vpce_apex(regional: &str) -> Option<String> {
    let labels: Vec<&str> = regional.split('.').collect();
    let vpce = labels.iter().rposition(|l| *l == "vpce").filter(|at| *at > 0)?;
    Some(labels[vpce - 1..].join("."))
}

/// The regional name with every address, each zonal name with its one. Behind S3's stand `bucket.`, `accesspoint.`,
/// `control.` and names of buckets: AWS publishes it as `*.vpce-...` (S3 guide, "Accessing buckets through S3 interface
/// endpoints").
fn insert_vpce_names(plan: &Plan, at: usize, zone: &mut Zone) {
    let endpoint = &plan.endpoints[at];
    let is_s3 = plan.services.get(endpoint.service).is_some_and(|s| s.name == "s3");
    let regional = (&endpoint.names.regional, &endpoint.enis[..]);
    let zonal = endpoint.names.zonal.iter().map(|(_, name, eni)| (name, std::slice::from_ref(eni)));
    for (name, enis) in std::iter::once(regional).chain(zonal) {
        let node = endpoint_node(plan, at, enis);
        if is_s3 {
            zone.insert(&format!("*.{name}"), node.clone());
        }
        zone.insert(name, node);
    }
}

/// `localhost` and what is below it, forward and reverse (RFC 6761 6.3, RFC 6303 4.1).
fn local_zones() -> Vec<Zone> {
    let loopback = Node {
        addrs: Box::new([Ipv4Addr::LOCALHOST]),
        ttl: LOCAL_TTL,
        others: vec![(QType::AAAA, LOCAL_TTL, Box::new(Ipv6Addr::LOCALHOST.octets()))],
        endpoint: None,
    };
    let mut zones = Vec::new();
    if let Some(mut zone) = Zone::new(ZoneKind::Local, "localhost", Synthesis::Nothing) {
        zone.insert("localhost", loopback.clone());
        zone.insert("*.localhost", loopback);
        zones.push(zone);
    }
    if let (Some(mut zone), Some(target)) =
        (Zone::new(ZoneKind::Local, "127.in-addr.arpa", Synthesis::Nothing), name::wire("localhost"))
    {
        let node = Node { others: vec![(QType::PTR, LOCAL_TTL, target)], ..Node::default() };
        zone.insert("1.0.0.127.in-addr.arpa", node);
        zones.push(zone);
    }
    zones
}

fn endpoint_facts(endpoint: &EndpointPlan) -> EndpointFacts {
    EndpointFacts {
        vpc: endpoint.vpc,
        name: endpoint.common.name.clone(),
        path: endpoint.common.path.clone(),
        private_dns: endpoint.private_dns,
        private: endpoint.names.private.iter().map(|p| (p.apex.clone(), p.wildcard)).collect(),
    }
}
