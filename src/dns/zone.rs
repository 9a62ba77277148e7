//! One zone: an apex, the nodes below it in wire form, and what is made up on demand.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::Cidr;
use crate::model::catalogue::PublicBlocks;

use super::name::{self, MAX_NAME, WireName};

/// Seconds for which a negative answer may be kept: the TTL of the SOA record (RFC 2308 5; Route 53's default SOA).
pub const NEGATIVE_TTL: u32 = 900;
/// Seconds, of the NS records that Route 53 gives a zone.
const NS_TTL: u32 = 172_800;
/// Route 53's name servers of private hosted zones.
const NAME_SERVERS: [&str; 4] =
    ["ns-1536.awsdns-00.co.uk", "ns-0.awsdns-00.com", "ns-1024.awsdns-00.org", "ns-512.awsdns-00.net"];
const HOSTMASTER: &str = "awsdns-hostmaster.amazon.com";
/// Serial, refresh, retry, expire, minimum of Route 53's default SOA.
const SOA_NUMBERS: [u32; 5] = [1, 7_200, 900, 1_209_600, 86_400];

/// A record type by number; as data, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct QType(pub u16);

impl QType {
    pub const A: QType = QType(1);
    pub const NS: QType = QType(2);
    pub const SOA: QType = QType(6);
    pub const PTR: QType = QType(12);
    pub const AAAA: QType = QType(28);
    pub const OPT: QType = QType(41);
    pub const IXFR: QType = QType(251);
    pub const AXFR: QType = QType(252);
    pub const ANY: QType = QType(255);

    /// True if a record of type `self` answers a question for `asked`.
    fn answers(self, asked: QType) -> bool {
        self == asked || asked == QType::ANY
    }
}

const TYPE_NAMES: [(&str, u16); 18] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DS", 43),
    ("DNSKEY", 48),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("ANY", 255),
    ("CAA", 257),
];

impl fmt::Display for QType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TYPE_NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl FromStr for QType {
    type Err = String;

    /// `AAAA`, in any case, or `TYPE28` (RFC 3597 5).
    fn from_str(s: &str) -> Result<QType, String> {
        let upper = s.to_ascii_uppercase();
        if let Some((_, n)) = TYPE_NAMES.iter().find(|(name, _)| *name == upper) {
            return Ok(QType(*n));
        }
        upper
            .strip_prefix("TYPE")
            .and_then(|n| n.parse().ok())
            .map(QType)
            .ok_or_else(|| format!("{s}: not a record type; A, AAAA, PTR, SOA, NS, ANY ... or TYPE28"))
    }
}

impl From<QType> for String {
    fn from(qtype: QType) -> String {
        qtype.to_string()
    }
}

impl TryFrom<String> for QType {
    type Error = String;

    fn try_from(text: String) -> Result<QType, String> {
        text.parse()
    }
}

/// Response codes that the resolver gives (RFC 1035 4.1.1, RFC 6891 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Rcode {
    NoError,
    FormErr,
    NxDomain,
    NotImp,
    Refused,
    /// The EDNS version is not 0.
    BadVers,
}

impl Rcode {
    /// All twelve bits; the upper eight travel in the OPT record.
    pub(super) fn bits(self) -> u16 {
        match self {
            Rcode::NoError => 0,
            Rcode::FormErr => 1,
            Rcode::NxDomain => 3,
            Rcode::NotImp => 4,
            Rcode::Refused => 5,
            Rcode::BadVers => 16,
        }
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rcode::NoError => "NOERROR",
            Rcode::FormErr => "FORMERR",
            Rcode::NxDomain => "NXDOMAIN",
            Rcode::NotImp => "NOTIMP",
            Rcode::Refused => "REFUSED",
            Rcode::BadVers => "BADVERS",
        })
    }
}

/// Whose zone it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneKind {
    /// The hidden zone that private DNS of an endpoint attaches to its VPC.
    PrivateDns {
        /// Index in `Plan::endpoints`.
        endpoint: usize,
    },
    /// The public zone of endpoint-specific names, `REGION.vpce.amazonaws.com`.
    EndpointNames,
    /// `REGION.compute.internal`.
    InstanceNames,
    /// Reverse names of private addresses.
    Reverse,
    /// `localhost` and the loopback addresses' names (RFC 6761).
    Local,
    /// AWS's public side, as the lab emulates it. What it lacks does not exist.
    Public,
}

/// How a question to a zone ends; records have been given out only with `Records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Records,
    /// The name exists, without records of the type.
    NoData,
    /// The name does not exist.
    NoName,
}

/// Addresses and other records of one owner.
#[derive(Clone, Default)]
pub(super) struct Node {
    pub(super) addrs: Box<[Ipv4Addr]>,
    /// Seconds, of the addresses.
    pub(super) ttl: u32,
    /// Type, TTL, data.
    pub(super) others: Vec<(QType, u32, Box<[u8]>)>,
    /// Index in `Plan::endpoints`: whose name it is.
    pub(super) endpoint: Option<usize>,
}

/// What a zone makes up rather than keeps.
#[derive(Clone)]
pub(super) enum Synthesis {
    Nothing,
    /// `ip-10-0-1-10` for every private address: Route 53 Resolver answers by plain synthesis.
    Instances {
        vpc_blocks: Box<[Cidr]>,
        ttl: u32,
    },
    /// The way back.
    Reverse {
        vpc_blocks: Box<[Cidr]>,
        domain: Box<[u8]>,
        ttl: u32,
    },
    /// The catalogue's public names.
    Public {
        blocks: PublicBlocks,
        ttl: u32,
    },
}

pub(super) struct Zone {
    pub(super) kind: ZoneKind,
    /// Wire form.
    pub(super) apex: Box<[u8]>,
    pub(super) soa: Box<[u8]>,
    pub(super) name_servers: Vec<Box<[u8]>>,
    /// By full owner name in wire form; empty non-terminals are here too, without records.
    nodes: BTreeMap<Box<[u8]>, Node>,
    synthesis: Synthesis,
}

impl Zone {
    /// `None` if `apex` is no name.
    pub(super) fn new(kind: ZoneKind, apex: &str, synthesis: Synthesis) -> Option<Zone> {
        let apex = name::wire(apex)?;
        let nodes = BTreeMap::from([(apex.clone(), Node::default())]);
        let name_servers = NAME_SERVERS.iter().filter_map(|ns| name::wire(ns)).collect();
        Some(Zone { kind, apex, soa: soa_data(), name_servers, nodes, synthesis })
    }

    /// Puts a node at `owner`, which must be the apex or below it, and makes the names between exist (RFC 4592 2.2.2).
    /// False if `owner` is no name of this zone.
    pub(super) fn insert(&mut self, owner: &str, node: Node) -> bool {
        let Some(owner) = WireName::parse(owner) else { return false };
        if !owner.suffixes().any(|(_, s)| *s == *self.apex) {
            return false;
        }
        for (_, ancestor) in owner.suffixes().skip(1) {
            if ancestor.len() <= self.apex.len() {
                break;
            }
            self.nodes.entry(ancestor.into()).or_default();
        }
        self.nodes.insert(owner.as_bytes().into(), node);
        true
    }

    /// Asks for `name`, which lies in this zone. `emit` gets type, TTL and data of each record that answers.
    pub(super) fn ask(&self, name: &WireName, asked: QType, emit: &mut impl FnMut(QType, u32, &[u8])) -> Outcome {
        if let Some(node) = self.node(name) {
            let mut given = node.give(asked, emit);
            if *name.as_bytes() == *self.apex {
                given |= self.give_apex(asked, emit);
            }
            if given {
                return Outcome::Records;
            }
            // A name that is here only because others are below it does not hide what is made up for it:
            // `db.x.eu-west-1.rds.amazonaws.com` is no reason for `rds.amazonaws.com` to be empty.
            return match node.is_empty().then(|| self.synthesise(name, asked, emit)) {
                Some(Outcome::Records) => Outcome::Records,
                _ => Outcome::NoData,
            };
        }
        self.synthesise(name, asked, emit)
    }

    /// The node that speaks for `name`: its own, or the wildcard of its closest encloser (RFC 4592 3.3.1).
    pub(super) fn node(&self, name: &WireName) -> Option<&Node> {
        if let Some(node) = self.nodes.get(name.as_bytes()) {
            return Some(node);
        }
        let encloser = name.suffixes().map(|(_, s)| s).find(|s| self.nodes.contains_key(*s))?;
        let mut space = [0; MAX_NAME];
        self.nodes.get(name::wildcard_of(encloser, &mut space)?)
    }

    fn give_apex(&self, asked: QType, emit: &mut impl FnMut(QType, u32, &[u8])) -> bool {
        let (soa, ns) = (QType::SOA.answers(asked), QType::NS.answers(asked));
        if ns {
            for server in &self.name_servers {
                emit(QType::NS, NS_TTL, server);
            }
        }
        if soa {
            emit(QType::SOA, NEGATIVE_TTL, &self.soa);
        }
        soa || ns
    }

    fn synthesise(&self, name: &WireName, asked: QType, emit: &mut impl FnMut(QType, u32, &[u8])) -> Outcome {
        match &self.synthesis {
            Synthesis::Nothing => Outcome::NoName,
            Synthesis::Instances { vpc_blocks, ttl } => {
                let bytes = name.as_bytes();
                let own = &bytes[..bytes.len() - self.apex.len()];
                match instance_address(own).filter(|a| is_private(*a, vpc_blocks)) {
                    Some(addr) => give_address(addr, *ttl, asked, emit),
                    None => Outcome::NoName,
                }
            }
            Synthesis::Reverse { vpc_blocks, domain, ttl } => match reverse_address(name.as_bytes()) {
                Some((addr, 4)) if is_private(addr, vpc_blocks) => {
                    if !QType::PTR.answers(asked) {
                        return Outcome::NoData;
                    }
                    let mut space = [0; MAX_NAME];
                    match instance_name(addr, domain, &mut space) {
                        Some(target) => emit(QType::PTR, *ttl, target),
                        None => return Outcome::NoName,
                    }
                    Outcome::Records
                }
                // `1.0.10.in-addr.arpa` has names below it, so it exists (RFC 8020).
                Some((addr, octets)) if octets < 4 && holds_private(addr, octets, vpc_blocks) => Outcome::NoData,
                _ => Outcome::NoName,
            },
            Synthesis::Public { blocks, ttl } => {
                let mut space = [0; MAX_NAME];
                match name::host_text(name.as_bytes(), &mut space).and_then(|host| blocks.addr(host)) {
                    Some(addr) => give_address(addr, *ttl, asked, emit),
                    None => Outcome::NoName,
                }
            }
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.addrs.is_empty() && self.others.is_empty()
    }

    fn give(&self, asked: QType, emit: &mut impl FnMut(QType, u32, &[u8])) -> bool {
        let mut given = false;
        if QType::A.answers(asked) {
            for addr in &self.addrs {
                emit(QType::A, self.ttl, &addr.octets());
                given = true;
            }
        }
        for (rtype, ttl, data) in &self.others {
            if rtype.answers(asked) {
                emit(*rtype, *ttl, data);
                given = true;
            }
        }
        given
    }
}

fn give_address(addr: Ipv4Addr, ttl: u32, asked: QType, emit: &mut impl FnMut(QType, u32, &[u8])) -> Outcome {
    if !QType::A.answers(asked) {
        return Outcome::NoData;
    }
    emit(QType::A, ttl, &addr.octets());
    Outcome::Records
}

fn soa_data() -> Box<[u8]> {
    let mut data = Vec::new();
    for part in [NAME_SERVERS[0], HOSTMASTER] {
        data.extend_from_slice(&name::wire(part).unwrap_or_default());
    }
    for number in SOA_NUMBERS {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data.into_boxed_slice()
}

/// RFC 1918, and the VPC's own blocks whatever they are: the addresses whose names Route 53 Resolver defines by itself.
fn is_private(addr: Ipv4Addr, vpc_blocks: &[Cidr]) -> bool {
    addr.is_private() || vpc_blocks.iter().any(|c| c.contains(addr))
}

/// True if private addresses begin with the first `octets` bytes of `addr`.
fn holds_private(addr: Ipv4Addr, octets: u8, vpc_blocks: &[Cidr]) -> bool {
    let block = Cidr::containing(addr, octets * 8);
    let rfc1918 =
        [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];
    rfc1918
        .iter()
        .map(|(net, len)| Cidr::containing(*net, *len))
        .chain(vpc_blocks.iter().copied())
        .any(|c| c.overlaps(block))
}

/// The address in `\x0cip-10-0-1-10`: one label, numbers without leading zeros.
fn instance_address(own: &[u8]) -> Option<Ipv4Addr> {
    let (&len, label) = own.split_first()?;
    if usize::from(len) != label.len() {
        return None;
    }
    let mut octets = [0; 4];
    let mut parts = label.strip_prefix(b"ip-")?.split(|b| *b == b'-');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// `\x0cip-10-0-1-10` and the domain.
fn instance_name<'b>(addr: Ipv4Addr, domain: &[u8], space: &'b mut [u8; MAX_NAME]) -> Option<&'b [u8]> {
    let mut at = 1;
    for b in *b"ip" {
        space[at] = b;
        at += 1;
    }
    for octet in addr.octets() {
        space[at] = b'-';
        at += 1;
        for (unit, more) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if more {
                space[at] = b'0' + octet / unit % 10;
                at += 1;
            }
        }
    }
    space[0] = (at - 1) as u8;
    let end = at + domain.len();
    space.get_mut(at..end)?.copy_from_slice(domain);
    Some(&space[..end])
}

/// The address or its first octets in `10.1.0.10.in-addr.arpa`, and how many octets there are.
fn reverse_address(name: &[u8]) -> Option<(Ipv4Addr, u8)> {
    const TAIL: &[u8] = b"\x07in-addr\x04arpa\x00";
    let own = name.strip_suffix(TAIL)?;
    let mut octets = [0; 4];
    let mut count = 0u8;
    for label in name::labels(own) {
        if count == 4 {
            return None;
        }
        // The last octet stands first: make room at the front.
        octets.rotate_right(1);
        octets[0] = decimal(label)?;
        count += 1;
    }
    Some((Ipv4Addr::from(octets), count))
}

fn decimal(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    digits.iter().try_fold(0u8, |n, d| {
        let d = d.is_ascii_digit().then(|| d - b'0')?;
        n.checked_mul(10)?.checked_add(d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_and_instance_names_are_each_others_mirror() {
        let addr = Ipv4Addr::new(10, 0, 107, 9);
        let name = name::wire("9.107.0.10.in-addr.arpa").expect("name");
        assert_eq!(reverse_address(&name), Some((addr, 4)));
        let domain = name::wire("eu-west-1.compute.internal").expect("name");
        let mut space = [0; MAX_NAME];
        let made = instance_name(addr, &domain, &mut space).expect("fits");
        assert_eq!(name::text(made), "ip-10-0-107-9.eu-west-1.compute.internal");
        assert_eq!(instance_address(&made[..made.len() - domain.len()]), Some(addr));
    }

    #[test]
    fn addresses_have_one_spelling() {
        for bad in [
            "ip-10-0-1",
            "ip-10-0-1-10-1",
            "ip-10-0-01-1",
            "ip-256-0-0-1",
            "ip-10-0--1",
            "xp-10-0-0-1",
            "a.ip-10-0-0-1",
        ] {
            let wire = name::wire(bad).expect("name");
            assert_eq!(instance_address(&wire[..wire.len() - 1]), None, "{bad}");
        }
        for bad in ["1.2.3.4.5.in-addr.arpa", "01.2.3.4.in-addr.arpa", "x.in-addr.arpa", "10.arpa"] {
            assert_eq!(reverse_address(&name::wire(bad).expect("name")), None, "{bad}");
        }
    }

    #[test]
    fn types_by_name_and_number() {
        assert_eq!("aaaa".parse(), Ok(QType::AAAA));
        assert_eq!("TYPE28".parse(), Ok(QType::AAAA));
        assert_eq!(QType(4242).to_string(), "TYPE4242");
        assert!("AAA".parse::<QType>().is_err());
    }
}
