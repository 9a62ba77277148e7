//! The requests and replies of a lab's control socket, and how they stand on the wire.
//!
//! A message is a length (32 bits, little endian) and that many bytes of JSON. Every request is an [`Envelope`] with
//! [`VERSION`]; a server that speaks another version says so in [`Reply::Failed`] and closes. File descriptors, where a
//! reply carries some, ride on the first byte of its length (SCM_RIGHTS), in the order that the reply names.
//!
//! Where a reply is [`Reply::Stream`], blocks follow: a length (32 bits, little endian) and that many raw bytes, at most
//! [`MAX_BLOCK`]; a length of 0 ends them, and a message [`StreamEnd`] comes behind. A client that has enough shuts down
//! its sending half, or goes away.
//!
//! Rows hold names and texts, ready to be shown: a client needs no `Plan`.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::{Change, Sign};

/// Of the messages below. Raised when a field changes its meaning; new fields and kinds keep it.
pub const VERSION: u32 = 1;

/// What a client says of a reply that answers no question of its: it and the lab are of different versions.
pub const UNEXPECTED: &str = "the lab answered something else than was asked";

/// Bytes of the largest message: an accepted topology and its files, or a long list of flows.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Bytes of the largest block of a stream.
pub const MAX_BLOCK: usize = 1 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub version: u32,
    pub request: Request,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Is somebody there: [`Reply::Pong`].
    Ping,
    /// Instances and endpoints with their counters: [`Reply::Ps`].
    Ps,
    /// [`Reply::Flows`].
    Flows(Filter),
    /// [`Reply::Drops`].
    Drops(Filter),
    /// Requests that the services saw: [`Reply::Requests`].
    Requests(Filter),
    /// From live state: [`Reply::Explained`].
    Explain(ExplainAsk),
    /// What the resolver answers to an instance: [`Reply::Dns`].
    Dns { instance: String, name: String, rtype: String },
    /// Names of one endpoint or all: [`Reply::Names`].
    Names { endpoint: Option<String>, zone: Option<char>, kind: Option<String> },
    /// Leave to run a command as an instance: [`Reply::Exec`], with descriptors.
    Exec { instance: String },
    /// Output of an instance's `run` commands: [`Reply::Logs`].
    Logs { instance: String },
    /// The accepted text: [`Reply::Source`].
    Source,
    /// Connections, ring bytes and tasks that exist now: [`Reply::Gauges`].
    Gauges,
    /// Packets as they pass: [`Reply::Stream`] of a pcapng file, or of lines.
    Capture(WatchAsk),
    /// What is decided of packets, step by step: [`Reply::Stream`], a [`TraceRow`] in each block.
    Trace(WatchAsk),
    /// The lab becomes what the text says: [`Reply::Applied`]. Where the text is that of the lab with this many patches
    /// laid over it, [`Reply::Stale`] says that the lab has another by now.
    Apply { accepted: Box<super::store::Accepted>, patches: Option<usize>, dry_run: bool },
    /// Break something, in the words of `vpclab fault`: [`Reply::Faults`], of this one.
    Fault { words: Vec<String>, after_ms: Option<u64>, for_ms: Option<u64> },
    /// Every fault that holds or will: [`Reply::Faults`].
    Faults,
    /// End one fault by its id, or all: [`Reply::Faults`], of what is left.
    ClearFaults { id: Option<u32> },
    /// End the lab: [`Reply::Done`] when the order is taken; the socket goes away when all is removed.
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Pong {
        lab: String,
        pid: u32,
    },
    Ps(Ps),
    Flows(Vec<FlowRow>),
    Drops(Vec<DropRow>),
    Requests(Vec<RequestRow>),
    /// `text` as interface.md 2.1 shows it, `json` the same as data, `reachable` the exit code's truth.
    Explained {
        text: String,
        json: serde_json::Value,
        reachable: bool,
    },
    Dns(DnsAnswer),
    Names(Vec<NameRow>),
    Exec(ExecInfo),
    Logs(Vec<LogLine>),
    Source(super::store::Accepted),
    Gauges(Gauges),
    /// Blocks follow.
    Stream,
    Applied(Applied),
    /// The text that was sent is not of the lab's last accepted one.
    Stale,
    Faults(Vec<FaultRow>),
    Done,
    /// `exit` is the exit code that a verb should end with.
    Failed {
        message: String,
        exit: u8,
    },
}

/// One filter for everything that happened. `from` and `to` mean the flow's initiator and target: an instance, an
/// endpoint (`endpoint:s3`, `s3@b`), or an address. Of drops they also mean the packet's own sender and receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub from: Option<String>,
    pub to: Option<String>,
    /// A drop code: `SG_INGRESS`.
    pub code: Option<String>,
    /// Only what was seen in the last so many milliseconds.
    pub since_ms: Option<u64>,
    /// Asked before, when the words meant something: what they named may be gone by now, and that is no mistake.
    pub again: bool,
}

/// Which packets are to be seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchAsk {
    /// At these ENIs: an instance, an endpoint, a label (`web/eth1`, `s3@b`), an AWS id. Empty: once each, from the
    /// view of the flow's initiator.
    pub at: Vec<String>,
    /// The flow's ends, as in [`Filter`].
    pub from: Option<String>,
    pub to: Option<String>,
    /// `tcp`, `udp`, `icmp` or a number.
    pub proto: Option<String>,
    /// Of either end.
    pub port: Option<u16>,
    /// Only what is dropped with this code.
    pub code: Option<String>,
    /// Ends after so many packets.
    pub count: Option<u64>,
    /// Ends after so many milliseconds.
    pub millis: Option<u64>,
    /// Bytes kept of each packet.
    pub snaplen: Option<u32>,
    /// Lines for people, not a file.
    pub text: bool,
}

/// One packet that was traced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceRow {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub from: String,
    /// Where it goes, or would have gone.
    pub to: String,
    /// `tcp 10.0.1.10:40000 > 10.0.1.25:443 [S] ...`, as it was sent.
    pub packet: String,
    /// `deliver to s3@a`, `DROP SG_INGRESS at endpoint app.s3: 1 rule, no match`.
    pub verdict: String,
    /// The drop code, if it was dropped.
    pub code: Option<String>,
    pub steps: Vec<TraceStep>,
    /// Packets that were to be traced since the last one, and got lost.
    pub lost: u64,
}

/// As a step of `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    pub at: String,
    pub what: String,
    pub outcome: String,
    pub detail: String,
}

/// How a stream ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Packets told.
    pub seen: u64,
    /// Packets that were to be told and got lost, because the reader was slower than they came.
    pub lost: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainAsk {
    /// Instance, bare or `VPC.NAME`.
    pub src: String,
    /// URL, host name, address, `endpoint:N`, `instance:N`, with `:PORT[/PROTO]`.
    pub dst: String,
    /// `s3:GetObject` and an ARN.
    pub request: Option<(String, String)>,
    /// The request carries no signature.
    pub unsigned: bool,
    /// The client's port; left out: one in the middle of Linux's range.
    #[serde(default)]
    pub from_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ps {
    pub lab: String,
    pub region: String,
    pub instances: Vec<PsInstance>,
    pub endpoints: Vec<PsEndpoint>,
    #[serde(default)]
    pub gateways: Vec<PsGateway>,
    /// Of the process that owns the packets.
    pub router_pid: u32,
    /// Milliseconds since the lab was ready.
    pub up_ms: u64,
    /// Limits that differ from AWS's: name, this lab's, AWS's.
    pub limits: Vec<(String, String, String)>,
    /// Delays that are emulated, in words.
    #[serde(default)]
    pub latency: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PsInstance {
    pub name: String,
    /// `VPC.NAME`.
    pub path: String,
    pub id: String,
    pub subnet: String,
    pub az: String,
    pub ips: Vec<Ipv4Addr>,
    /// Public and Elastic IPs that stand for them.
    #[serde(default)]
    pub public_ips: Vec<Ipv4Addr>,
    pub state: String,
    /// `/run/netns/LAB.VPC.INSTANCE` where it is shown there.
    pub netns: Option<String>,
    /// `/proc/PID/fd/N` names its namespace too, where the asker may look there.
    pub pid: Option<u32>,
    pub netns_fd: Option<i32>,
    pub counters: Counters,
    pub role: Option<String>,
    /// Bytes by the way they took: `private`.
    pub ways: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PsEndpoint {
    pub name: String,
    pub path: String,
    pub id: String,
    /// `com.amazonaws.eu-west-1.s3`.
    pub service: String,
    pub private_dns: bool,
    pub backend: String,
    pub enis: Vec<PsEni>,
    /// Open connections.
    pub conns: u64,
}

/// A gateway of any kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PsGateway {
    /// `internet-gateway`, `nat-gateway`, `gateway-endpoint`, `peering`, `transit-gateway`, `vpn`, ...
    pub kind: String,
    pub path: String,
    pub id: String,
    /// Public or private addresses, where it has some; tunnels of a VPN.
    pub addresses: Vec<String>,
    pub az: String,
    /// `available`, or what is broken of it.
    pub state: String,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub drops: u64,
    /// Metrics as CloudWatch names them.
    pub metrics: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PsEni {
    pub id: String,
    pub ip: Ipv4Addr,
    pub subnet: String,
    pub az: String,
    /// `available`, `down`, `zone down`.
    #[serde(default)]
    pub state: String,
    pub counters: Counters,
}

/// `in` is into the ENI: towards its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub drops: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// The initiator: `web`, or an address that no ENI has.
    pub from: String,
    /// The target: `s3@b`.
    pub to: String,
    pub src: String,
    pub dst: String,
    /// What the target is called: an endpoint's service, an instance's path.
    pub name: String,
    pub proto: String,
    pub state: String,
    pub tracked: bool,
    pub way: String,
    /// From the initiator, and to it.
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// Milliseconds since 1970 of the first packet and of the last.
    pub started_ms: u64,
    pub last_ms: u64,
}

/// One line of `vpclab drops`, in the words of the plan that decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DropRow {
    /// Milliseconds since 1970 of the last packet counted here.
    pub time_ms: u64,
    pub first_ms: u64,
    /// Who began the flow: of an answer (`back`) who is answered, else the sender; and from which address.
    #[serde(default)]
    pub began: String,
    #[serde(default)]
    pub began_at: String,
    /// The packet is an answer.
    #[serde(default)]
    pub back: bool,
    /// The packet's sender, and where it was to go. Of more drops than are kept one by one, the oldest are summed by
    /// sender, code and what decided: then `to`, `src` and `dst` are `*`.
    pub from: String,
    pub to: String,
    pub src: String,
    pub dst: String,
    pub proto: String,
    pub code: String,
    /// The deciding object: `sg:app.doors`, `nacl:app.main`.
    pub object: String,
    /// The deciding rule, or what was looked for and not found.
    pub rule: String,
    /// `egress` or `ingress`.
    pub direction: String,
    pub count: u64,
}

/// One request that a service judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestRow {
    pub time_ms: u64,
    /// Path of the endpoint, or `public`.
    pub endpoint: String,
    /// `interface endpoint`, `gateway endpoint`, `public`.
    pub gate: String,
    pub client: String,
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub status: u16,
    pub decision: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// `NOERROR`, `NXDOMAIN` ...
    pub rcode: String,
    /// Texts of the records, in the order of the answer.
    pub answers: Vec<String>,
    pub ttl: u32,
    /// What answered: `private DNS of endpoint s3 (zone s3.eu-west-1.amazonaws.com)`.
    pub by: String,
    pub lost: Vec<String>,
    /// What a user should know of this name.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameRow {
    pub endpoint: String,
    pub name: String,
    /// `regional`, `zonal`, `private`; of a gateway endpoint `public`.
    pub kind: String,
    /// Zone letter of a zonal name.
    pub zone: Option<String>,
    pub addresses: Vec<Ipv4Addr>,
}

/// What `exec` needs besides the descriptors: those of the network namespace, and of the user namespace where the lab
/// was made without root, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecInfo {
    /// `LAB.VPC.INSTANCE`.
    pub netns_name: String,
    /// `VPC.NAME`.
    pub path: String,
    pub instance_id: String,
    pub region: String,
    pub resolver: Option<Ipv4Addr>,
    pub search: String,
    pub hostname: String,
    /// Address and names for the hosts file.
    pub hosts: Vec<(Ipv4Addr, Vec<String>)>,
    pub env: Vec<(String, String)>,
    /// Folder of the instance's `resolv.conf`, `nsswitch.conf` and `hosts`.
    pub files: String,
    /// The lab's own CA.
    pub ca_pem: String,
    /// The file of the lab's CA in its run directory.
    pub ca_path: String,
    pub run_dir: String,
    /// Whether a second descriptor, the user namespace, follows.
    pub user_namespace: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ms: u64,
    /// Index of the `run` command.
    pub command: usize,
    /// `out`, `err`, or `lab` for a line of ours: how it ended.
    pub stream: String,
    pub text: String,
}

/// What `apply` did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    pub lab: String,
    pub dry_run: bool,
    /// By kind, in the order of the plan.
    pub changes: Vec<ChangeRow>,
    /// Instances that are made anew: what runs in them ends.
    pub anew: Vec<AnewRow>,
    pub warnings: Vec<String>,
    /// Of what is in force after it.
    pub generation: u64,
    /// Microseconds from the order to the router thread until the new plan was in force.
    pub published_us: u64,
    /// Microseconds of the whole change.
    pub total_us: u64,
}

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// `+`, `~` or `-`.
    pub sign: char,
    pub kind: String,
    pub path: String,
    /// Of changed objects: attribute, before, after.
    pub attributes: Vec<(String, String, String)>,
}

impl From<Change> for ChangeRow {
    fn from(change: Change) -> ChangeRow {
        ChangeRow {
            sign: match change.sign {
                Sign::Add => '+',
                Sign::Change => '~',
                Sign::Remove => '-',
            },
            kind: change.kind.to_owned(),
            path: change.path,
            attributes: change.attributes.into_iter().map(|(name, was, is)| (name.to_owned(), was, is)).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnewRow {
    /// `instance`, or what else AWS has no call to change so.
    #[serde(default)]
    pub kind: String,
    /// `VPC.NAME`.
    pub path: String,
    /// `eth0: address 10.0.1.10 -> 10.0.1.11`.
    pub why: String,
}

/// One line of `vpclab fault list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRow {
    pub id: u32,
    /// `az a`, `endpoint app.sts in a`, `link app.web delay 20ms loss 1%`.
    pub fault: String,
    /// Of the topology file; otherwise of a command.
    pub by_file: bool,
    /// False: it is still to come.
    pub begun: bool,
    /// Milliseconds until it begins, or, once it has, until it ends; `None`: until it is cleared.
    pub left_ms: Option<u64>,
    /// The id of the fault of the same link that stands in its place.
    #[serde(default)]
    pub beaten_by: Option<u32>,
}

/// What exists now. All three are 0 in a lab that nobody uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Connections of the TCP stack that have buffers, and half-open ones.
    pub conns: u64,
    pub half_open: u64,
    /// Bytes reserved for rings between the router thread and services.
    pub rings_bytes: u64,
    /// Tasks that serve or dial for a connection.
    pub tasks: u64,
    pub flows: u64,
    /// Frames a TUN would not take.
    pub tun_full: u64,
    /// Frames a TUN refused otherwise.
    pub tun_errors: u64,
    pub sleeps: u64,
    pub frames: u64,
}

/// Writes one message. Errors: those of `to`; `InvalidData` if it is larger than [`MAX_MESSAGE`].
pub fn write_message<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Length and JSON in one buffer.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - 4;
    if len > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long for the control socket"));
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// Reads one message. Errors: those of `from`; `UnexpectedEof` where it ends early; `InvalidData` for a length over
/// [`MAX_MESSAGE`] or JSON that is no `T`.
pub fn read_message<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    read_body(from, len)
}

/// The same where the length was read already (with descriptors on it).
pub fn read_body<T: for<'de> Deserialize<'de>>(from: &mut impl Read, len: [u8; 4]) -> io::Result<T> {
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long for the control socket"));
    }
    let mut body = Vec::new();
    from.take(len as u64).read_to_end(&mut body)?;
    if body.len() != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was_sent() {
        let sent = Envelope {
            version: VERSION,
            request: Request::Drops(Filter { code: Some("SG_INGRESS".into()), ..Filter::default() }),
        };
        let mut wire = Vec::new();
        write_message(&mut wire, &sent).expect("a buffer takes all");
        let got: Envelope = read_message(&mut wire.as_slice()).expect("whole");
        assert_eq!(format!("{got:?}"), format!("{sent:?}"));
    }

    #[test]
    fn a_cut_or_oversized_message_is_an_error_and_reserves_nothing() {
        let mut wire = encode(&Request::Ping).expect("small");
        wire.pop();
        let cut = read_message::<Request>(&mut wire.as_slice()).expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let huge = read_message::<Request>(&mut u32::MAX.to_le_bytes().as_slice()).expect_err("too long");
        assert_eq!(huge.kind(), io::ErrorKind::InvalidData);
    }
}
