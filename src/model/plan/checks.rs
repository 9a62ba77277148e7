//! What `vpclab test` asks, and the times and quotas of a lab.

use std::time::Duration;

use crate::base::Cidr;

#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    /// Line of the topology file, for reports.
    pub line: u32,
    /// As written, for reports.
    pub title: String,
    /// Index in `Plan::instances`; `None` is `any`.
    pub from: Option<usize>,
    pub what: CheckWhat,
    pub expect: Expect,
    /// `endpoint:s3`: which way it must take, and which it must not.
    pub via: Option<String>,
    pub not_via: Option<String>,
    /// The longest a command may run, and how long to wait for the expected.
    pub within: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CheckWhat {
    /// A destination as `explain` takes it.
    To(String),
    /// A command for `sh -c` in the instance.
    Run(String),
    /// Name and type.
    Dns(String, String),
    /// `never: internet`: no way of this kind exists for any instance.
    Never(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Reachable,
    Unreachable,
    /// A drop code: `SG_INGRESS`.
    Code(String),
    Result {
        exit: Option<i32>,
        stdout: Option<String>,
        stderr: Option<String>,
        in_cidr: Option<Cidr>,
    },
}

/// Times and quotas. `Default` is AWS's; reports print both where they differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub endpoint_idle: Duration,
    pub sg_tcp_idle: Duration,
    pub sg_udp_idle: Duration,
    pub sg_udp_stream: Duration,
    /// Seconds, of endpoint names.
    pub dns_ttl: u32,
    /// Packets a second and ENI to the resolver and IMDS.
    pub dns_pps: u32,
    /// NAT gateways forget idle bindings.
    pub nat_idle: Duration,
    /// Bindings of a NAT gateway per address and destination.
    pub nat_ports: u32,
    /// How long DNS goes on giving out an endpoint's ENI that has failed.
    pub endpoint_health: Duration,
    /// Fragments a second and ENI that leave.
    pub egress_fragments: u32,
    /// Entries of the flow table.
    pub conntrack_max: u32,
    /// Of the instances' kernels.
    pub syn_retries: u8,
}

impl Limits {
    /// Those that differ from AWS's: name, value here and in AWS, as the file would have them.
    pub fn changed(&self) -> Vec<(&'static str, String, String)> {
        // By fields, so that none is forgotten.
        let Limits {
            endpoint_idle,
            sg_tcp_idle,
            sg_udp_idle,
            sg_udp_stream,
            dns_ttl,
            dns_pps,
            nat_idle,
            nat_ports,
            endpoint_health,
            egress_fragments,
            conntrack_max,
            syn_retries,
        } = self;
        let aws = Limits::default();
        let time = |here: &Duration, there: Duration| {
            [*here, there].map(|time| match time.subsec_nanos() {
                0 => format!("{}s", time.as_secs()),
                _ => format!("{}ms", time.as_secs_f64() * 1e3),
            })
        };
        let ttl = time(&Duration::from_secs(u64::from(*dns_ttl)), Duration::from_secs(u64::from(aws.dns_ttl)));
        let number = |here: &u32, there: u32| [*here, there].map(|number| number.to_string());
        let all = [
            ("endpoint_idle", time(endpoint_idle, aws.endpoint_idle)),
            ("sg_tcp_idle", time(sg_tcp_idle, aws.sg_tcp_idle)),
            ("sg_udp_idle", time(sg_udp_idle, aws.sg_udp_idle)),
            ("sg_udp_stream", time(sg_udp_stream, aws.sg_udp_stream)),
            ("dns_ttl", ttl),
            ("dns_pps", number(dns_pps, aws.dns_pps)),
            ("nat_idle", time(nat_idle, aws.nat_idle)),
            ("nat_ports", number(nat_ports, aws.nat_ports)),
            ("endpoint_health", time(endpoint_health, aws.endpoint_health)),
            ("egress_fragments", number(egress_fragments, aws.egress_fragments)),
            ("conntrack_max", number(conntrack_max, aws.conntrack_max)),
            ("syn_retries", number(&u32::from(*syn_retries), u32::from(aws.syn_retries))),
        ];
        let differs = all.into_iter().filter(|(_, [here, there])| here != there);
        differs.map(|(name, [here, there])| (name, here, there)).collect()
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            endpoint_idle: Duration::from_secs(350),
            sg_tcp_idle: Duration::from_secs(432_000),
            sg_udp_idle: Duration::from_secs(30),
            sg_udp_stream: Duration::from_secs(180),
            dns_ttl: 60,
            dns_pps: 1_024,
            nat_idle: Duration::from_secs(350),
            nat_ports: 55_000,
            endpoint_health: Duration::from_secs(30),
            egress_fragments: 1_024,
            conntrack_max: 262_144,
            syn_retries: 6,
        }
    }
}
