//! What the engine says of a packet, and the flat list of reasons to drop one.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::base::{EniIx, FiveTuple, Instant, Proto};

/// Every packet ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes out of an instance's ENI; what gateways change of a packet is changed in the frame already.
    Deliver { to: EniIx },
    /// For the ENI of an interface endpoint or for a door: the stack terminates TCP there, and doors answer ping.
    Endpoint { eni: EniIx },
    /// One of the two above, by the owner of `to`, with more to be done on the way.
    Shaped { to: EniIx, via: Via },
    /// UDP or TCP to the VPC's resolver (VPC+2 or 169.254.169.253).
    Resolver { from: EniIx },
    /// TCP to 169.254.169.254.
    Imds { from: EniIx },
    /// Nothing comes back. The details are in the engine's drop log.
    Drop { code: DropCode },
    /// Dropped, and the sender is told: the caller makes the packet and hands it to `Engine::handle_reaction`.
    Reject { code: DropCode, reaction: Reaction },
}

impl Verdict {
    /// Why it was dropped, if it was.
    pub const fn dropped(self) -> Option<DropCode> {
        match self {
            Verdict::Drop { code } | Verdict::Reject { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// What is left to do with a packet that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// Larger packets are cut into fragments of this many bytes (they have no DF); 0: none are too large.
    pub fragment: u16,
    /// Microseconds on the way, from `latency: aws`.
    pub latency_us: u32,
    /// Impairments on the way, by number in the program; 0 is none.
    pub shapes: [u16; 3],
}

/// What AWS answers a dropped packet with, where it answers at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// ICMP 3/4 (RFC 1191): `from` is the router's address, `mtu` in bytes, `hops` those that count between the two: the
    /// message passes them too.
    FragNeeded { from: Ipv4Addr, mtu: u16, hops: u8 },
    /// ICMP 11/0: the TTL ended at `from`, after one hop less than it had.
    TimeExceeded { from: Ipv4Addr },
    /// A TCP reset, as if from the packet's destination.
    Reset,
    /// ICMP 3/1, three seconds later: nobody in the sender's own subnet answers ARP for the address, and the sender's
    /// kernel gives up. There is no ARP here, so it is told as if by the router at `from`; no rule is asked.
    HostUnreachable { from: Ipv4Addr },
}

macro_rules! drop_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $analyzer:literal;)*) => {
        /// One closed list, spelled as users, checks and metrics see it. It may grow; a code is never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropCode { $($(#[doc = $doc])* $name,)* }

        impl DropCode {
            pub const ALL: &'static [DropCode] = &[$(DropCode::$name,)*];

            /// `SG_INGRESS`.
            pub const fn as_str(self) -> &'static str {
                match self { $(DropCode::$name => $code,)* }
            }

            /// The explanation code of AWS's Reachability Analyzer that says the same, where it has one.
            pub const fn reachability_analyzer(self) -> Option<&'static str> {
                let code = match self { $(DropCode::$name => $analyzer,)* };
                if code.is_empty() { None } else { Some(code) }
            }
        }
    };
}

drop_codes! {
    /// No rule of the sender's security groups allows it.
    SgEgress = "SG_EGRESS", "ENI_SG_RULES_MISMATCH";
    /// No rule of the receiver's security groups allows it.
    SgIngress = "SG_INGRESS", "ENI_SG_RULES_MISMATCH";
    /// The network ACL of the subnet it leaves denies it.
    NaclOut = "NACL_OUT", "SUBNET_ACL_RESTRICTION";
    /// The network ACL of the subnet it enters denies it.
    NaclIn = "NACL_IN", "SUBNET_ACL_RESTRICTION";
    /// The subnet's route table has no route for it.
    RtNoRoute = "RT_NO_ROUTE", "NO_ROUTE_TO_DESTINATION";
    /// The longest prefix leads to a target that is gone, or to `blackhole`.
    RtBlackhole = "RT_BLACKHOLE", "BAD_STATE_ROUTE";
    /// The source is not an address of the ENI it came from, or the destination not one of the ENI a route leads to.
    SrcDstCheck = "SRC_DST_CHECK", "ENI_SOURCE_DEST_CHECK_RESTRICTION";
    /// UDP, ICMP or anything but TCP over IPv4 to an endpoint's ENI.
    VpceProto = "VPCE_PROTO", "PROTOCOL_RESTRICTION";
    /// A port that the endpoint's service does not serve.
    VpcePort = "VPCE_PORT", "TARGET_PORT_RESTRICTION";
    /// The flow was idle for longer than the endpoint keeps it.
    VpceIdle = "VPCE_IDLE", "";
    /// A TCP segment to an endpoint's ENI that begins no connection and belongs to none.
    VpceNoState = "VPCE_NO_STATE", "";
    /// Larger than the endpoint's 8,500 bytes.
    MtuDropSilent = "MTU_DROP_SILENT", "";
    /// The flow table is full: the new flow is refused, none is evicted.
    CtFull = "CT_FULL", "";
    /// The tracked flow it belonged to has expired, and no rule allows it anew.
    CtIdle = "CT_IDLE", "";
    /// A reply to nothing: its direction has no rule and no flow.
    CtNoState = "CT_NO_STATE", "";
    /// Over the limit of packets a second to link-local services.
    DnsPps = "DNS_PPS", "";
    /// A query to a VPC's resolver from outside that VPC.
    DnsNotLocal = "DNS_NOT_LOCAL", "";
    /// The VPC has `dns_support: false`.
    DnsDisabled = "DNS_DISABLED", "";
    /// The token answer's TTL ended before the asker.
    ImdsHop = "IMDS_HOP", "";
    /// Not an IP packet that can be read, or a fragment over those that came before it.
    Malformed = "MALFORMED", "";
    /// A checksum is wrong.
    Checksum = "CHECKSUM", "";
    Broadcast = "BROADCAST", "";
    Multicast = "MULTICAST", "";
    Ipv6 = "IPV6", "PROTOCOL_RESTRICTION";
    /// An address of the VPC that no ENI has.
    NoEni = "NO_ENI", "NO_POSSIBLE_DESTINATION";
    /// The router's own address, and other reserved ones: nothing answers there.
    RouterAddr = "ROUTER_ADDR", "";
    /// Too many connections of this source or endpoint wait for their backend.
    HalfOpenFull = "HALF_OPEN_FULL", "";
    /// The backend did not answer in time: the client sees a SYN timeout.
    BackendSilent = "BACKEND_SILENT", "";
    LinkImpaired = "LINK_IMPAIRED", "";
    /// An Internet gateway sends only for private addresses that have a public one.
    IgwNoPublicIp = "IGW_NO_PUBLIC_IP", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS";
    /// An Internet gateway sends nothing to private addresses (RFC 1918, RFC 6598).
    IgwPrivateDst = "IGW_PRIVATE_DST", "IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS";
    /// A public address that stands for no ENI.
    IgwNoMapping = "IGW_NO_MAPPING", "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS";
    /// Nobody has this address outside.
    NoHost = "NO_HOST", "UNKNOWN_DESTINATION";
    /// AWS's public side serves no such protocol or port there.
    PublicPort = "PUBLIC_PORT", "TARGET_PORT_RESTRICTION";
    /// A NAT gateway whose subnet has no way out, or a private one that leads to an Internet gateway.
    NatNoIgw = "NAT_NO_IGW", "NO_ROUTE_TO_DESTINATION";
    /// All ports towards this destination are in use.
    NatNoPort = "NAT_NO_PORT", "";
    /// The NAT gateway has forgotten the idle connection.
    NatIdle = "NAT_IDLE", "";
    /// A packet to a NAT gateway that belongs to none of its bindings: it takes nothing in and answers no ping.
    NatNoState = "NAT_NO_STATE", "NGW_SOURCE_ADDRESS_REASSIGN";
    /// NAT gateways drop fragments of TCP and ICMP.
    NatFragment = "NAT_FRAGMENT", "";
    /// NAT gateways carry TCP, UDP and ICMP.
    NatProto = "NAT_PROTO", "PROTOCOL_RESTRICTION";
    /// A gateway endpoint serves only what begins in its own VPC.
    GweNotInVpc = "GWE_NOT_IN_VPC", "VPCE_INTRA_VPC_TRAFFIC";
    /// A gateway endpoint carries TCP and ping.
    GweProto = "GWE_PROTO", "VPCE_GATEWAY_PROTOCOL_RESTRICTION";
    /// A peering leads to addresses of the peer's VPC and no further.
    PeerTransit = "PEER_TRANSIT", "PCX_REQUIRES_ADDRESS_IN_VPC_CIDR";
    /// VPCs with overlapping blocks cannot be peered. (Refused with the plan; never a packet's code.)
    PeerOverlap = "PEER_OVERLAP", "";
    /// The transit gateway has no attachment in the sender's zone.
    TgwNoAz = "TGW_NO_AZ", "TGW_ROUTE_AZ_RESTRICTION";
    /// The attachment is associated with no route table.
    TgwNoAssociation = "TGW_NO_ASSOCIATION", "TGW_ATTACH_MISSING_TGW_RTB_ASSOCIATION";
    /// The transit gateway's route table has no route for it.
    TgwNoRoute = "TGW_NO_ROUTE", "TGW_RTB_NO_ROUTE_TO_TGW_ATTACHMENT";
    TgwBlackhole = "TGW_BLACKHOLE", "TGW_RTB_BAD_STATE_ROUTE";
    /// A virtual private gateway carries only between its VPC's ENIs and the site.
    VgwTransit = "VGW_TRANSIT", "VGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS";
    /// No link of the gateway leads to this address.
    VgwNoRoute = "VGW_NO_ROUTE", "NO_ROUTE_TO_DESTINATION";
    /// No tunnel of the VPN is up.
    VpnDown = "VPN_DOWN", "BAD_STATE_VPN";
    /// The on-premises router has no route for it.
    SiteNoRoute = "SITE_NO_ROUTE", "";
    /// Too large for the next link, and it may not be fragmented: the sender is told.
    MtuFragNeeded = "MTU_FRAG_NEEDED", "";
    /// Its TTL ended at a hop that counts.
    TtlExpired = "TTL_EXPIRED", "";
    /// More fragments a second than an ENI sends.
    FragmentRate = "FRAGMENT_RATE", "";
    /// A stateful firewall that saw no beginning of this session.
    FwNoState = "FW_NO_STATE", "FIREWALL_RULES_RESTRICTION";
    /// The zone of the endpoint's ENI has failed, or the ENI itself.
    VpceAzDown = "VPCE_AZ_DOWN", "BAD_STATE";
    /// The zone of the sender, the receiver or a gateway between them has failed.
    AzDown = "AZ_DOWN", "BAD_STATE";
    /// The instance is down by a fault.
    InstanceDown = "INSTANCE_DOWN", "BAD_STATE";
    /// From gateway to gateway without end.
    RouteLoop = "ROUTE_LOOP", "CANNOT_ROUTE";
}

impl std::fmt::Display for DropCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From the view of the ENI or subnet that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Egress,
    Ingress,
}

/// What decided a drop, as indices into the `Plan` the program was compiled from: rendering looks the names up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decider {
    /// The admission step at this ENI.
    Eni(EniIx),
    /// All security groups of this ENI: none allowed it.
    SecurityGroups(EniIx),
    /// Index in `Plan::network_acls` and the rule's number; 32767 is AWS's `*`.
    Nacl(usize, u16),
    /// Index in `Plan::route_tables` and of the route in it, if one matched.
    RouteTable(usize, Option<usize>),
    /// The endpoint ENI's own limits: protocol, port, MTU, idle, half-open.
    EndpointEni(EniIx),
    Resolver(EniIx),
    Imds(EniIx),
    FlowTable,
    /// Index in `Plan::internet_gateways`.
    Igw(usize),
    /// Index in `Plan::nat_gateways`.
    Nat(usize),
    /// Index in `Plan::endpoints`: a gateway endpoint.
    GatewayEndpoint(usize),
    /// Index in `Plan::peerings`.
    Peering(usize),
    /// Index in `Plan::transit_gateways`.
    Tgw(usize),
    /// Index in `Plan::tgw_attachments`.
    TgwAttachment(usize),
    /// Index in `Plan::tgw_route_tables` and of the route in it, if one matched.
    TgwRouteTable(usize, Option<usize>),
    /// Index in `Plan::vgws`.
    Vgw(usize),
    /// Index in `Plan::links`.
    Link(usize),
    /// Index in `Plan::sites`, and of the route in it, if one matched.
    Site(usize, Option<usize>),
    /// The emulated Internet: AWS's public side and the hosts beside it.
    Internet,
}

/// One line of `vpclab drops`: equal drops are counted, not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropRecord {
    pub first: Instant,
    pub last: Instant,
    /// The ENI the packet came from.
    pub from: EniIx,
    pub tuple: FiveTuple,
    pub whose: Whose,
    pub code: DropCode,
    pub decider: Decider,
    pub direction: Direction,
    /// Packets; a superframe counts as the packets it stands for.
    pub count: u64,
}

/// Who began the connection that a dropped packet belongs to, where the flows tell: its ENI, and the address and port
/// it sends from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Of an answer: who is answered.
    pub answers: Option<(EniIx, SocketAddrV4)>,
    /// Of what a middle instance only sends on: who sent it first.
    pub passed_on: Option<(EniIx, SocketAddrV4)>,
}

impl Whose {
    /// Who began it, if that is somebody else than the packet's sender.
    pub fn began(&self) -> Option<(EniIx, SocketAddrV4)> {
        self.answers.or(self.passed_on)
    }

    /// With what was known `before`, where this tells nothing.
    pub(crate) fn or(self, before: Whose) -> Whose {
        if self.began().is_some() { self } else { before }
    }
}

impl DropRecord {
    /// [`DropCode::reachability_analyzer`], where AWS has one for each direction.
    pub const fn reachability_analyzer(&self) -> Option<&'static str> {
        match (self.code, self.direction) {
            (DropCode::VgwTransit, Direction::Egress) => Some("VGW_PRIVATE_IP_ASSOCIATION_FOR_EGRESS"),
            (code, _) => code.reachability_analyzer(),
        }
    }

    /// Of the many whose addresses and ports are not kept any more: how many a sender's were, by code and decider.
    pub fn is_sum(&self) -> bool {
        // What cannot be read has no addresses either.
        let unread = matches!(self.code, DropCode::Malformed | DropCode::Ipv6);
        self.tuple == DropRecord::any(self.tuple.proto) && !unread
    }

    /// The tuple of a sum.
    pub(crate) fn any(proto: Proto) -> FiveTuple {
        FiveTuple { proto, src: Ipv4Addr::UNSPECIFIED, src_port: 0, dst: Ipv4Addr::UNSPECIFIED, dst_port: 0 }
    }
}

/// One step of a packet's way, collected only when somebody asks (`explain`, `trace`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crumb {
    pub stage: Stage,
    /// The ENI whose rules were asked, if the stage has one.
    pub eni: Option<EniIx>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    SourceDestCheck,
    SgEgress,
    NaclOut {
        nacl: usize,
    },
    Route {
        table: usize,
    },
    NaclIn {
        nacl: usize,
    },
    SgIngress,
    /// The endpoint ENI's own limits.
    Endpoint,
    Resolver,
    Imds,
    Deliver,
    /// Flow table: the packet belongs to a tracked flow.
    Tracked,
    /// Something here has failed; told only where it has.
    Fault,
    /// A NAT instance translates what it forwards.
    Masquerade,
    Igw {
        igw: usize,
    },
    Nat {
        nat: usize,
    },
    GatewayEndpoint {
        endpoint: usize,
    },
    Peering {
        peering: usize,
    },
    TgwAttachment {
        attachment: usize,
    },
    TgwRoute {
        table: usize,
    },
    Vgw {
        vgw: usize,
    },
    Link {
        link: usize,
    },
    /// The on-premises router.
    SiteRoute {
        site: usize,
    },
    Internet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passed; which rule (group and index of the rule, NACL rule number, or route index), where there is one.
    Pass(Rule),
    /// Both ends are in one subnet: the stage is not asked.
    NotAsked,
    Drop(DropCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    None,
    /// Index in `Plan::security_groups`, index of the rule in its direction.
    Sg(usize, usize),
    /// Number of the NACL rule that allowed.
    Nacl(u16),
    /// Index of the route in its table.
    Route(usize),
    /// The source becomes this.
    Source(Ipv4Addr),
    /// The destination becomes this.
    Destination(Ipv4Addr),
    /// Index of the tunnel in its VPN.
    Tunnel(usize),
}
