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
    /// Connections that an instance tracks at a time.
    pub conntrack_max: u32,
    /// Of the instances' kernels.
    pub syn_retries: u8,
}

impl Limits {}

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

impl Limits {
    /// What is not as in AWS: name, value here, value there. Reports print both.
    pub fn beside_aws(&self) -> Vec<(&'static str, String, String)> {
        let time = |d: Duration| match d.subsec_nanos() {
            0 => format!("{} s", d.as_secs()),
            _ => format!("{d:?}"),
        };
        let (here, there) = (self.named(time), Limits::default().named(time));
        let pairs = here.into_iter().zip(there);
        pairs.filter(|((_, here), (_, there))| here != there).map(|((name, h), (_, t))| (name, h, t)).collect()
    }

    /// Every limit by its name in files; `time` writes a duration.
    pub(in crate::model) fn named(&self, time: impl Fn(Duration) -> String) -> [(&'static str, String); 12] {
        // Taken apart by fields, so that a new one is not forgotten here.
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
        } = *self;
        [
            ("endpoint_idle", time(endpoint_idle)),
            ("sg_tcp_idle", time(sg_tcp_idle)),
            ("sg_udp_idle", time(sg_udp_idle)),
            ("sg_udp_stream", time(sg_udp_stream)),
            ("dns_ttl", time(Duration::from_secs(dns_ttl.into()))),
            ("dns_pps", dns_pps.to_string()),
            ("nat_idle", time(nat_idle)),
            ("nat_ports", nat_ports.to_string()),
            ("endpoint_health", time(endpoint_health)),
            ("egress_fragments", egress_fragments.to_string()),
            ("conntrack_max", conntrack_max.to_string()),
            ("syn_retries", syn_retries.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_as_in_aws_are_told_beside_it() {
        assert!(Limits::default().beside_aws().is_empty());
        let short = Limits { nat_idle: Duration::from_millis(1_500), nat_ports: 64, ..Limits::default() };
        let told = |name, here: &str, there: &str| (name, here.to_owned(), there.to_owned());
        assert_eq!(short.beside_aws(), [told("nat_idle", "1.5s", "350 s"), told("nat_ports", "64", "55000")]);
    }
}
