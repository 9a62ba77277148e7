//! The resolver's decision told for people: `explain`, `vpclab dns`, `vpclab names`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::model::Plan;
use crate::model::catalogue::{self, PublicForm};

use super::compile::{EndpointFacts, VpcZones, Zones};
use super::name::{self, WireName};
use super::zone::{Outcome, QType, Rcode, Zone, ZoneKind};

/// What the resolver of one VPC says about one name, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// Lower case, without a final dot.
    pub name: String,
    pub qtype: QType,
    /// `None`: nobody answers, because `dns_support` is off.
    pub rcode: Option<Rcode>,
    /// In the zone's order; a real answer is shuffled. Empty with `NoError`: NODATA.
    pub answers: Vec<Answer>,
    /// The zone that spoke; `None` as for `rcode`, and for a text that is no name.
    pub by: Option<ZoneKind>,
    /// Apex of that zone, `.` for the public root.
    pub zone: String,
    /// Index in `Plan::endpoints`: the endpoint whose name this is.
    pub endpoint: Option<usize>,
    /// `private DNS of endpoint s3 (zone s3.eu-west-1.amazonaws.com)`.
    pub answered_by: String,
    /// Zones that hold the name too but are less specific, in their order; the public side last and once.
    pub lost: Vec<Lost>,
    /// What explains the answer besides: a private DNS that is off, a legacy name that an endpoint does not cover.
    pub notes: Vec<String>,
}

/// One record of an answer; the owner is the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub qtype: QType,
    /// Seconds.
    pub ttl: u32,
    /// As zone files write it: an address, a name with final dot.
    pub data: String,
}

/// A zone that was not asked, and what it would have said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub by: ZoneKind,
    pub zone: String,
    /// `public`, `private DNS of endpoint s3`.
    pub who: String,
    pub said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    Data(Vec<String>),
    NoData,
    NxDomain,
}

impl fmt::Display for Lost {
    /// `public 198.18.0.16`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.who, self.said)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Data(data) => f.write_str(&data.join(", ")),
            Said::NoData => f.write_str("NODATA"),
            Said::NxDomain => f.write_str("NXDOMAIN"),
        }
    }
}

impl Lookup {
    /// The IPv4 addresses of the answer, in the zone's order.
    pub fn addrs(&self) -> Vec<Ipv4Addr> {
        self.answers.iter().filter(|a| a.qtype == QType::A).filter_map(|a| a.data.parse().ok()).collect()
    }

    /// TTL of the first record, in seconds.
    pub fn ttl(&self) -> Option<u32> {
        self.answers.first().map(|a| a.ttl)
    }

    /// The drop code of the name stage: `DNS_NXDOMAIN` or `DNS_NODATA`; `None` where there is an answer, and where
    /// nobody answers.
    pub fn code(&self) -> Option<&'static str> {
        match self.rcode? {
            Rcode::NoError if self.answers.is_empty() => Some("DNS_NODATA"),
            Rcode::NoError => None,
            _ => Some("DNS_NXDOMAIN"),
        }
    }
}

/// Asks the resolver of `vpc` (index in `Plan::vpcs`) for `name` as [`Zones::answer`] would, and keeps the reasons. A
/// text that is no name at all is NXDOMAIN: no client can ask for it.
pub fn lookup(zones: &Zones, vpc: usize, name: &str, qtype: QType) -> Lookup {
    let mut told = Lookup {
        name: name.trim_end_matches('.').to_ascii_lowercase(),
        qtype,
        rcode: None,
        answers: Vec::new(),
        by: None,
        zone: String::new(),
        endpoint: None,
        answered_by: String::new(),
        lost: Vec::new(),
        notes: Vec::new(),
    };
    let Some(of) = zones.vpcs.get(vpc).filter(|v| v.serves) else {
        let label = zones.vpcs.get(vpc).map_or("", |v| v.label.as_str());
        told.answered_by = format!("nobody: dns_support is off in VPC {label}");
        return told;
    };
    told.rcode = Some(Rcode::NxDomain);
    let Some(wire) = WireName::parse(name).filter(|_| !name.is_empty()) else {
        told.answered_by = "nobody: not a domain name".to_owned();
        return told;
    };
    let mut public_heard = false;
    for (_, zone) in zones.candidates(of, &wire) {
        let public = matches!(zone.kind, ZoneKind::Public | ZoneKind::EndpointNames | ZoneKind::Local);
        if public && std::mem::replace(&mut public_heard, true) {
            continue;
        }
        let (outcome, answers) = ask(zone, &wire, qtype);
        let endpoint = zone.node(&wire).and_then(|n| n.endpoint);
        let who = who(zones, vpc, of, zone, endpoint);
        let apex = name::text(&zone.apex);
        if told.by.is_none() {
            told.rcode = Some(if outcome == Outcome::NoName { Rcode::NxDomain } else { Rcode::NoError });
            told.answers = answers;
            told.by = Some(zone.kind);
            told.endpoint = match zone.kind {
                ZoneKind::PrivateDns { endpoint } => Some(endpoint),
                _ => endpoint,
            };
            told.answered_by = if apex == "." { who } else { format!("{who} (zone {apex})") };
            told.zone = apex;
        } else {
            let said = match outcome {
                Outcome::Records => Said::Data(answers.into_iter().map(|a| a.data).collect()),
                Outcome::NoData => Said::NoData,
                Outcome::NoName => Said::NxDomain,
            };
            told.lost.push(Lost { by: zone.kind, zone: apex, who, said });
        }
    }
    told.notes = notes(zones, vpc, &told);
    told
}

fn ask(zone: &Zone, name: &WireName, qtype: QType) -> (Outcome, Vec<Answer>) {
    let mut answers = Vec::new();
    let outcome = zone.ask(name, qtype, &mut |qtype, ttl, data| {
        answers.push(Answer { qtype, ttl, data: data_text(qtype, data) });
    });
    (outcome, answers)
}

fn data_text(qtype: QType, data: &[u8]) -> String {
    let dotted = |wire: &[u8]| match name::text(wire) {
        root if root == "." => root,
        name => format!("{name}."),
    };
    match (qtype, data.len()) {
        (QType::A, 4) => Ipv4Addr::new(data[0], data[1], data[2], data[3]).to_string(),
        (QType::AAAA, 16) => {
            let mut octets = [0; 16];
            octets.copy_from_slice(data);
            Ipv6Addr::from(octets).to_string()
        }
        (QType::SOA, _) => soa_text(data).unwrap_or_default(),
        _ => dotted(data),
    }
}

fn soa_text(data: &[u8]) -> Option<String> {
    let server = WireName::read(data)?;
    let rest = &data[server.as_bytes().len()..];
    let mailbox = WireName::read(rest)?;
    let numbers =
        rest[mailbox.as_bytes().len()..].chunks_exact(4).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]));
    let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
    Some(format!("{}. {}. {}", name::text(server.as_bytes()), name::text(mailbox.as_bytes()), numbers.join(" ")))
}

fn who(zones: &Zones, vpc: usize, of: &VpcZones, zone: &Zone, endpoint: Option<usize>) -> String {
    let named = |at: usize| zones.endpoints.get(at).map_or("", |e| if e.vpc == vpc { &e.name } else { &e.path });
    match zone.kind {
        ZoneKind::PrivateDns { endpoint } => format!("private DNS of endpoint {}", named(endpoint)),
        ZoneKind::EndpointNames => match endpoint {
            Some(at) => format!("public name of endpoint {}", named(at)),
            None => "public".to_owned(),
        },
        ZoneKind::InstanceNames => format!("instance names of VPC {}", of.label),
        ZoneKind::Reverse => format!("reverse names of VPC {}", of.label),
        ZoneKind::Local => "the resolver itself".to_owned(),
        ZoneKind::Public => "public".to_owned(),
    }
}

fn notes(zones: &Zones, vpc: usize, told: &Lookup) -> Vec<String> {
    let mut notes = Vec::new();
    if told.by != Some(ZoneKind::Public) {
        return notes;
    }
    let Some(public) = catalogue::public_name(&told.name) else { return notes };
    for endpoint in zones.endpoints.iter().filter(|e| e.vpc == vpc) {
        if endpoint.covers(&told.name) {
            // Covered and yet public: the zone is not attached.
            let why = if endpoint.private_dns { "the VPC lacks a DNS attribute" } else { "its private_dns is off" };
            notes.push(format!("endpoint {} has this name, but {why}", endpoint.name));
            continue;
        }
        let same_service = |apex: &str| {
            catalogue::public_name(apex)
                .is_some_and(|n| n.service.name == public.service.name && n.region == public.region)
        };
        if let Some((apex, _)) = endpoint.private.iter().find(|(apex, _)| same_service(apex)) {
            let form = match public.form {
                PublicForm::Legacy => "a legacy name",
                PublicForm::Fips => "a FIPS name",
                PublicForm::DualStack => "a dual-stack name",
                PublicForm::Global => "a global name",
                PublicForm::Regional => "another name",
            };
            let (service, name) = (public.service.name, &endpoint.name);
            notes.push(format!(
                "{form} of {service} that private DNS of endpoint {name} does not cover; it covers {apex}"
            ));
        }
    }
    notes
}

impl EndpointFacts {
    fn covers(&self, name: &str) -> bool {
        self.private.iter().any(|(apex, wildcard)| {
            name == apex || *wildcard && name.strip_suffix(apex.as_str()).is_some_and(|own| own.ends_with('.'))
        })
    }
}

/// One name of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointName {
    /// May begin with `*.`.
    pub name: String,
    pub kind: NameKind,
    /// Name of the availability zone, of zonal names: `eu-west-1a`.
    pub zone: Option<String>,
    pub addrs: Vec<Ipv4Addr>,
    /// False for a private name whose zone is not attached to the VPC.
    pub active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameKind {
    Regional,
    Zonal,
    Private,
}

/// Every name of an endpoint (index in `Plan::endpoints`) in the order of `DnsEntries` of the EC2 API: regional, zonal,
/// private.
pub fn names(plan: &Plan, endpoint: usize) -> Vec<EndpointName> {
    let Some(of) = plan.endpoints.get(endpoint) else { return Vec::new() };
    let all: Vec<Ipv4Addr> = of.enis.iter().map(|eni| plan.eni(*eni).ip).collect();
    let mut names = vec![EndpointName {
        name: of.names.regional.clone(),
        kind: NameKind::Regional,
        zone: None,
        addrs: all.clone(),
        active: true,
    }];
    names.extend(of.names.zonal.iter().map(|(zone, name, eni)| EndpointName {
        name: name.clone(),
        kind: NameKind::Zonal,
        zone: Some(zone.clone()),
        addrs: vec![plan.eni(*eni).ip],
        active: true,
    }));
    let vpc = &plan.vpcs[of.vpc];
    let active = of.private_dns && vpc.dns_support && vpc.dns_hostnames;
    for private in &of.names.private {
        let own = private.at_apex.then(|| private.apex.clone());
        let below = private.wildcard.then(|| format!("*.{}", private.apex));
        names.extend(own.into_iter().chain(below).map(|name| EndpointName {
            name,
            kind: NameKind::Private,
            zone: None,
            addrs: all.clone(),
            active,
        }));
    }
    names
}
