//! What the engine says of a packet, and the flat list of reasons to drop one.

use crate::base::{EniIx, FiveTuple, Instant};

/// Every packet ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes out of an instance's ENI, unchanged: TTL included.
    Deliver { to: EniIx },
    /// TCP for an endpoint's ENI: the stack terminates it.
    Endpoint { eni: EniIx },
    /// UDP or TCP to the VPC's resolver (VPC+2 or 169.254.169.253).
    Resolver { from: EniIx },
    /// TCP to 169.254.169.254.
    Imds { from: EniIx },
    /// Nothing comes back. The details are in the engine's drop log.
    Drop { code: DropCode },
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
    /// Not an IP packet that can be read.
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
}

/// One line of `vpclab drops`: equal drops are counted, not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropRecord {
    pub first: Instant,
    pub last: Instant,
    /// The ENI the packet came from.
    pub from: EniIx,
    pub tuple: FiveTuple,
    pub code: DropCode,
    pub decider: Decider,
    pub direction: Direction,
    /// Packets; a superframe counts as the packets it stands for.
    pub count: u64,
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
}
