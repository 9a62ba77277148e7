//! Addresses, links and routes of the calling thread's network namespace, by one netlink batch.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::cmd::EniHost;

/// The loopback device's index in every namespace.
const LOOPBACK: u32 = 1;
/// Tables and rule priorities of instances with several ENIs start here.
const ENI_TABLES: u32 = 10_000;

/// A link as clean-up sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkMark {
    pub index: u32,
    pub name: String,
    /// `vpclab:LAB:ENI` on ours.
    pub alias: Option<String>,
}

/// The mark of our links.
pub fn alias(lab: &str, eni: &str) -> String {
    format!("vpclab:{lab}:{eni}")
}

/// Sets up loopback and the ENIs (each with its link's index) of the calling thread's namespace. IPv6 stays on, but no
/// address is made, so that an idle instance sends nothing. True if `congestion` was accepted as a route metric; where
/// it was not, the routes are there without it.
///
/// An address has its subnet's prefix and the route of that prefix is ours, not the kernel's, because it carries the
/// metric too. A TUN has no neighbours: what is on-link and what goes through the router is the same to it.
pub fn configure(lab: &str, enis: &[(u32, EniHost)], congestion: Option<&str>) -> io::Result<bool> {
    let socket = open()?;
    let mut batch = vec![Step::new("bring lo up", up(LOOPBACK))];
    for (index, eni) in enis {
        // flags are applied before the IPv6 settings of one message, so the device goes up by a second one
        batch.push(Step::new(format!("set up {}", eni.name), link(*index, lab, eni)));
        batch.push(Step::new(format!("bring {} up", eni.name), up(*index)));
        batch.push(Step::new(format!("give {} the address {}", eni.name, eni.ip), address(*index, eni)));
    }
    run(&socket, batch)?;
    match run(&socket, routes(enis, congestion)) {
        Ok(()) => Ok(congestion.is_some()),
        Err(err) if congestion.is_some() && refuses_congestion(&err) => {
            run(&socket, routes(enis, None))?;
            Ok(false)
        }
        Err(err) => Err(err),
    }
}

/// Gives a device of the calling thread's namespace an IPv6 address and the default route, so that something can be
/// sent: the demo's SYN, which the router then drops.
pub fn add_ipv6_default(device: &str, address: Ipv6Addr) -> io::Result<()> {
    let index = links()?
        .into_iter()
        .find(|link| link.name == device)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no device {device} here")))?
        .index;
    let mut given = AddressMessage::default();
    given.header.family = AddressFamily::Inet6;
    given.header.prefix_len = 64;
    given.header.index = index;
    given.attributes = vec![
        AddressAttribute::Local(IpAddr::V6(address)),
        AddressAttribute::Address(IpAddr::V6(address)),
        // No duplicate address detection: it would send, and nobody is there to answer.
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet6;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Oif(index));
    let steps = vec![
        Step::replacing(format!("give {device} the address {address}"), RouteNetlinkMessage::NewAddress(given)),
        Step::replacing(format!("IPv6 default route by {device}"), RouteNetlinkMessage::NewRoute(route)),
    ];
    run(&open()?, steps)
}

/// Every link of the calling thread's namespace.
pub fn links() -> io::Result<Vec<LinkMark>> {
    let socket = open()?;
    let mut bytes = Vec::new();
    put(&mut bytes, RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_REQUEST | NLM_F_DUMP, 1);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in messages(&answer) {
            match message?.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(err) => return Err(err.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => found.push(mark(link)),
                _ => {}
            }
        }
    }
}

struct Step {
    /// For the error.
    what: String,
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Step {
    fn new(what: impl Into<String>, message: RouteNetlinkMessage) -> Step {
        Step { what: what.into(), message, flags: 0 }
    }

    fn replacing(what: impl Into<String>, message: RouteNetlinkMessage) -> Step {
        Step { what: what.into(), message, flags: NLM_F_CREATE | NLM_F_REPLACE }
    }
}

fn up(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(link)
}

fn link(index: u32, lab: &str, eni: &EniHost) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![
        LinkAttribute::Mtu(u32::from(eni.mtu)),
        LinkAttribute::TxQueueLen(eni.tx_queue_len),
        LinkAttribute::IfAlias(alias(lab, &eni.eni)),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])]),
    ];
    RouteNetlinkMessage::SetLink(link)
}

fn address(index: u32, eni: &EniHost) -> RouteNetlinkMessage {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.prefix_len = eni.prefix_len;
    address.header.scope = AddressScope::Universe;
    address.header.flags = AddressHeaderFlags::Permanent;
    address.header.index = index;
    address.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(eni.ip)),
        AddressAttribute::Address(IpAddr::V4(eni.ip)),
        AddressAttribute::Broadcast(last_of(eni)),
        AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Noprefixroute),
    ];
    RouteNetlinkMessage::NewAddress(address)
}

/// The subnet and the default route of each ENI. What is bound to no address takes the ENI of the destination's subnet,
/// else `eth0`. Of several, each has a table of its own for what leaves from its address, so that an answer leaves by
/// the ENI that was asked, as Amazon Linux 2023 sets it up (amazon-ec2-net-utils: policy routes for all but the first,
/// whose table the routes of the others are not in).
fn routes(enis: &[(u32, EniHost)], congestion: Option<&str>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (n, (index, eni)) in (0u32..).zip(enis) {
        let route = |to: Option<Ipv4Addr>, table: u32| {
            let mut route = RouteMessage::default();
            let header = &mut route.header;
            header.address_family = AddressFamily::Inet;
            header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
            header.kind = RouteType::Unicast;
            let attributes = &mut route.attributes;
            match to {
                Some(network) => {
                    header.destination_prefix_length = eni.prefix_len;
                    header.protocol = RouteProtocol::Kernel;
                    header.scope = RouteScope::Link;
                    attributes.push(RouteAttribute::Destination(RouteAddress::Inet(network)));
                    attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(eni.ip)));
                }
                None => {
                    header.protocol = RouteProtocol::Boot;
                    header.scope = RouteScope::Universe;
                    header.flags = RouteFlags::Onlink;
                    attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(eni.gateway)));
                    if n > 0 && table == u32::from(RouteHeader::RT_TABLE_MAIN) {
                        attributes.push(RouteAttribute::Priority(512 + n));
                    }
                }
            }
            attributes.push(RouteAttribute::Oif(*index));
            attributes.push(RouteAttribute::Table(table));
            if let Some(congestion) = congestion {
                attributes.push(RouteAttribute::Metrics(vec![RouteMetric::CcAlgo(congestion.to_owned())]));
            }
            RouteNetlinkMessage::NewRoute(route)
        };
        let network = network_of(eni);
        let mut tables = vec![u32::from(RouteHeader::RT_TABLE_MAIN)];
        if enis.len() > 1 {
            tables.push(ENI_TABLES + n);
        }
        for table in tables {
            let to = format!("route to {network}/{} by {}", eni.prefix_len, eni.name);
            steps.push(Step::replacing(to, route(Some(network), table)));
            steps.push(Step::replacing(format!("default route by {}", eni.name), route(None, table)));
        }
        if enis.len() > 1 {
            steps.push(Step::replacing(format!("rule for {}", eni.ip), source_rule(eni.ip, ENI_TABLES + n)));
        }
    }
    steps
}

fn source_rule(from: Ipv4Addr, table: u32) -> RouteNetlinkMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.src_len = 32;
    rule.header.action = RuleAction::ToTable;
    rule.attributes =
        vec![RuleAttribute::Source(IpAddr::V4(from)), RuleAttribute::Table(table), RuleAttribute::Priority(table)];
    RouteNetlinkMessage::NewRule(rule)
}

fn network_of(eni: &EniHost) -> Ipv4Addr {
    Ipv4Addr::from_bits(eni.ip.to_bits() & mask(eni.prefix_len))
}

fn last_of(eni: &EniHost) -> Ipv4Addr {
    Ipv4Addr::from_bits(eni.ip.to_bits() | !mask(eni.prefix_len))
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

fn mark(link: LinkMessage) -> LinkMark {
    let mut found = LinkMark { index: link.header.index, name: String::new(), alias: None };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias),
            _ => {}
        }
    }
    found
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends all steps in one go and waits for each one's acknowledgement. The error is the first step's that failed; the
/// kernel has carried out the others.
fn run(socket: &Socket, steps: Vec<Step>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut names = Vec::new();
    for (step, sequence) in steps.into_iter().zip(1u32..) {
        put(&mut bytes, step.message, NLM_F_REQUEST | NLM_F_ACK | step.flags, sequence);
        names.push(step.what);
    }
    socket.send(&bytes, 0)?;
    let mut failed: Option<(usize, io::Error)> = None;
    let mut left = names.len();
    while left > 0 {
        let (answer, _) = socket.recv_from_full()?;
        for message in messages(&answer) {
            let message = message?;
            let NetlinkPayload::Error(result) = message.payload else { continue };
            left = left.saturating_sub(1);
            let step = (message.header.sequence_number as usize).saturating_sub(1);
            if result.code.is_some() && failed.as_ref().is_none_or(|(first, _)| step < *first) {
                failed = Some((step, result.to_io()));
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((step, err)) => {
            let what = names.get(step).map_or("netlink", String::as_str);
            Err(io::Error::new(err.kind(), format!("cannot {what}: {err}")))
        }
    }
}

fn put(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The messages of one datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = NetlinkBuffer::new_checked(&rest)
            .map(|buffer| buffer.length() as usize)
            .and_then(|length| Ok((length, NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length])?)));
        match parsed {
            Ok((length, message)) => {
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                Some(Ok(message))
            }
            Err(err) => {
                rest = &[];
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, err.to_string())))
            }
        }
    })
}

/// What kernels say to a congestion control that they lack or may not use.
fn refuses_congestion(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
