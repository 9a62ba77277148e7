//! Private DNS of interface endpoints: whether it is on, and what stands against it.

use std::collections::HashMap;

use super::vpc::VpcFacts;
use super::{Draft, prefix_list};
use crate::model::catalogue::{self, Service};
use crate::model::plan::EndpointKind;
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::names::Kind;
use crate::model::spec::node::Entry;
use crate::model::spec::report::Found;
use crate::model::spec::source::Place;

/// What `private_dns` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateDns {
    Off,
    On,
    /// For those who ask by an inbound resolver endpoint only: in the VPC names stay public, so that they go by the gateway
    /// endpoint (S3 User Guide, "Private DNS").
    InboundOnly,
}

/// `true`, `false` or `inbound-only`.
pub fn read(f: &Fields<'_>) -> Option<At<PrivateDns>> {
    let entry = f.entry("private_dns")?;
    if entry.node.text() == Some("inbound-only") {
        return Some(At { value: PrivateDns::InboundOnly, place: entry.place() });
    }
    let b = f.bool("private_dns")?;
    Some(At { value: if b.value { PrivateDns::On } else { PrivateDns::Off }, place: b.place })
}

/// What the endpoints of one VPC have taken.
#[derive(Default)]
pub struct Claims {
    /// By apex: the endpoint whose private DNS has it, and where that stands.
    zones: HashMap<String, (usize, Place)>,
    /// Services whose endpoint here is inbound-only, with what to call it and where.
    inbound: Vec<(&'static str, String, Place)>,
}

impl Claims {
    /// Whether names of the service resolve to the endpoint in its VPC; notes why they cannot.
    pub fn judge(
        &mut self,
        f: &Fields<'_>,
        facts: &VpcFacts,
        service: &'static Service,
        written: Option<At<PrivateDns>>,
        e: &Entry,
        index: usize,
    ) -> bool {
        let cx = f.cx;
        let region = facts.region.name;
        let zones = service.private_zones(region);
        let wanted = match written {
            Some(w) => w.value,
            None if zones.is_empty() => PrivateDns::Off,
            // AWS's default for S3.
            None if cx.aws_defaults && service.name == "s3" => PrivateDns::InboundOnly,
            None => PrivateDns::On,
        };
        if wanted == PrivateDns::Off {
            return false;
        }
        let place = written.map_or(e.key_place, |w| w.place);
        let refuse = |message: String| f.error(place, message).code("InvalidParameter");
        if zones.is_empty() {
            let name = service.full_name(region);
            let message =
                format!("private DNS can't be enabled because the service {name} does not provide a private DNS name");
            cx.error(refuse(message).help("write `private_dns: false`"));
            return false;
        }
        if !facts.dns_support || !facts.dns_hostnames {
            let vpc = &cx.names.get(Kind::Vpc, facts.index);
            let message = format!(
                "enabling private DNS requires both dns_support and dns_hostnames of VPC {} to be true (dns_support is {}, dns_hostnames is {})",
                vpc.name, facts.dns_support, facts.dns_hostnames
            );
            let found = refuse(message).also(vpc.place, "the VPC");
            if cx.standing.private_dns.contains(&format!("{}.{}", vpc.name, e.key)) {
                let help =
                    "AWS lets the attributes of the VPC be changed later: its private names are then not answered";
                cx.warning(found.help(help));
            } else {
                cx.error(found.help("set both at the VPC, or write `private_dns: false`"));
            }
        }
        if wanted == PrivateDns::InboundOnly {
            if catalogue::prefix_list_blocks(service.name, region).is_none() {
                let message = format!(
                    "PrivateDnsOnlyForInboundResolverEndpoint is for services with gateway endpoints: {} has none",
                    service.name
                );
                cx.error(refuse(message).help("`private_dns: true` or `false`"));
                return false;
            }
            self.inbound.push((service.name, f.title.clone(), place));
        }
        for zone in &zones {
            let Some((other, there)) = self.zones.insert(zone.apex.clone(), (index, f.place)) else { continue };
            let vpc = cx.names.get(Kind::Vpc, facts.index);
            let other = &cx.names.get(Kind::Endpoint, other).path;
            let message = format!(
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for {} in the VPC {}: endpoint {other}",
                zone.apex, vpc.name
            );
            let found = f.error(e.key_place, message).code("InvalidParameter").also(there, format!("{other} is here"));
            cx.error(
                found.help("one endpoint of a VPC has private DNS for a name: write `private_dns: false` at the other"),
            );
            break;
        }
        wanted == PrivateDns::On
    }

    /// Asked when all endpoints of the VPC are known.
    pub fn refuse_without_gateway(&self, cx: &Cx<'_>, facts: &VpcFacts, draft: &mut Draft) {
        for (service, title, place) in &self.inbound {
            let list = prefix_list::of_service(draft, service, facts.region.name);
            let there = draft.endpoints.iter().flatten().any(|e| {
                e.vpc == facts.index
                    && matches!(e.kind, EndpointKind::Gateway { prefix_list, .. } if Some(prefix_list) == list)
            });
            if !there {
                let vpc = cx.names.get(Kind::Vpc, facts.index);
                let message = format!(
                    "{title}: To set PrivateDnsOnlyForInboundResolverEndpoint to true, the VPC {} must have a Gateway endpoint for the service",
                    vpc.id
                );
                let found = Found::at(*place, message).code("InvalidParameter").also(vpc.place, "the VPC");
                cx.error(found.help(format!(
                    "an endpoint `{{ service: {service}, type: gateway }}`, or `private_dns: true` or `false`"
                )));
            }
        }
    }
}
