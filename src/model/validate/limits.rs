//! Times and quotas. `time_scale` divides every time that is not written itself.

use std::time::Duration;

use crate::model::plan::Limits;
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;

pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>) -> Limits {
    let aws = Limits::default();
    let Some(entry) = top.entry("limits") else { return aws };
    let Some(f) = Fields::open(cx, &keys::LIMITS, "limits".into(), entry) else { return aws };
    let scale = f.int("time_scale").map_or(1, |n| n.value.max(1) as u32);
    let time = |key: &str, default: Duration| match f.duration(key) {
        Some(t) => t.value,
        // The router's clock counts milliseconds.
        None => (default / scale).max(Duration::from_millis(1)),
    };
    let number = |key: &str, default: u32| f.int(key).map_or(default, |n| n.value as u32);
    let limits = Limits {
        endpoint_idle: time("endpoint_idle", aws.endpoint_idle),
        sg_tcp_idle: time("sg_tcp_idle", aws.sg_tcp_idle),
        sg_udp_idle: time("sg_udp_idle", aws.sg_udp_idle),
        sg_udp_stream: time("sg_udp_stream", aws.sg_udp_stream),
        // A TTL is whole seconds; 0 would forbid caching altogether.
        dns_ttl: match f.duration("dns_ttl") {
            Some(t) if t.value.subsec_nanos() > 0 || t.value.as_secs() > u64::from(i32::MAX as u32) => {
                cx.error(f.error(t.place, "a TTL is whole seconds"));
                aws.dns_ttl
            }
            Some(t) => t.value.as_secs() as u32,
            None => (aws.dns_ttl / scale).max(1),
        },
        dns_pps: number("dns_pps", aws.dns_pps),
        nat_idle: time("nat_idle", aws.nat_idle),
        nat_ports: number("nat_ports", aws.nat_ports),
        endpoint_health: time("endpoint_health", aws.endpoint_health),
        egress_fragments: number("egress_fragments", aws.egress_fragments),
        conntrack_max: number("conntrack_max", aws.conntrack_max),
        syn_retries: f.int("syn_retries").map_or(aws.syn_retries, |n| n.value as u8),
    };
    f.done();
    limits
}
