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
