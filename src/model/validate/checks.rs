//! `checks`: what `vpclab test` asks, with every name looked up before anything starts.

use std::time::Duration;

use super::Draft;
use crate::model::plan::{CheckPlan, CheckWhat, Expect};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::Value;
use crate::model::spec::report::did_you_mean;

/// Codes that `expect` takes: those that the engine and the name stage give in this version.
pub const CODES: &[&str] = &[
    "SG_EGRESS",
    "SG_INGRESS",
    "NACL_OUT",
    "NACL_IN",
    "RT_NO_ROUTE",
    "RT_BLACKHOLE",
    "SRC_DST_CHECK",
    "VPCE_PROTO",
    "VPCE_PORT",
    "VPCE_IDLE",
    "VPCE_NO_STATE",
    "VPCE_POLICY",
    "MTU_DROP_SILENT",
    "CT_FULL",
    "CT_IDLE",
    "CT_NO_STATE",
    "DNS_PPS",
    "DNS_NOT_LOCAL",
    "DNS_DISABLED",
    "DNS_NXDOMAIN",
    "DNS_NODATA",
    "IMDS_HOP",
    "IMDS_NO_TOKEN",
    "MALFORMED",
    "CHECKSUM",
    "BROADCAST",
    "MULTICAST",
    "IPV6",
    "NO_ENI",
    "ROUTER_ADDR",
    "HALF_OPEN_FULL",
    "BACKEND_SILENT",
    "PROXY",
    "LINK_IMPAIRED",
    "IGW_NO_PUBLIC_IP",
    "IGW_PRIVATE_DST",
    "IGW_NO_MAPPING",
    "NO_HOST",
    "PUBLIC_PORT",
    "NAT_NO_IGW",
    "NAT_NO_PORT",
    "NAT_IDLE",
    "NAT_NO_STATE",
    "NAT_FRAGMENT",
    "NAT_PROTO",
    "GWE_NOT_IN_VPC",
    "GWE_PROTO",
    "PEER_TRANSIT",
    "PEER_OVERLAP",
    "TGW_NO_AZ",
    "TGW_NO_ASSOCIATION",
    "TGW_NO_ROUTE",
    "TGW_BLACKHOLE",
    "VGW_TRANSIT",
    "VGW_NO_ROUTE",
    "VPN_DOWN",
    "SITE_NO_ROUTE",
    "MTU_FRAG_NEEDED",
    "TTL_EXPIRED",
    "FRAGMENT_RATE",
    "FW_NO_STATE",
    "VPCE_AZ_DOWN",
    "AZ_DOWN",
    "INSTANCE_DOWN",
    "ROUTE_LOOP",
    "WRONG_RECEIVER",
];

/// Codes of AWS features that come with later versions.
const LATER_CODES: &[&str] = &["VPCE_PENDING", "NLB_NO_TARGET", "NLB_HAIRPIN", "NLB_SG"];

const WITHIN: Duration = Duration::from_secs(30);

pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &Draft) -> Vec<CheckPlan> {
    let mut checks = Vec::new();
    for node in top.list("checks") {
        let place = node.entries().first().map_or(top.key_place("checks"), |e| e.key_place);
        let Some(f) = Fields::open_node(cx, &keys::CHECK, "check".into(), node, place) else { continue };
        let from = f.text("from");
        let instance = from.filter(|t| t.value != "any").and_then(|t| f.reference(Kind::Instance, None, t));
        let what = what(&f, draft);
        let expect = expect(&f, what.as_ref());
        let via = f.text("via").and_then(|t| way(&f, t));
        let not_via = f.text("not_via").and_then(|t| way(&f, t));
        let within = f.duration("within").map_or(WITHIN, |t| t.value);
        if let (Some(what), Some(expect), Some(from)) = (what, expect, from) {
            let line = cx.lines.get(place.file as usize).map_or(0, |l| l.line_col(place.start as usize).0);
            checks.push(CheckPlan {
                line: line as u32,
                title: title(from.value, &what),
                from: instance,
                what,
                expect,
                via,
                not_via,
                within,
            });
        }
        f.done();
    }
    checks
}

fn title(from: &str, what: &CheckWhat) -> String {
    match what {
        CheckWhat::To(to) => format!("{from} to {to}"),
        CheckWhat::Run(cmd) => format!("{from} run {}", cmd.lines().next().unwrap_or_default()),
        CheckWhat::Dns(name, kind) => format!("{from} dns {name} {kind}"),
        CheckWhat::Never(way) => format!("{from} never {way}"),
    }
}

/// Exactly one of `to`, `run`, `dns`, `never`.
fn what(f: &Fields<'_>, draft: &Draft) -> Option<CheckWhat> {
    let to = f.text("to");
    let run = f.text("run");
    let dns = f.text("dns");
    let never = f.word("never");
    let said: Vec<&str> = ["to", "run", "dns", "never"].into_iter().filter(|k| f.has(k)).collect();
    match said[..] {
        [_] => {}
        // Already refused by name, as later versions' ways to ask.
        [] if ["request", "at", "saw"].iter().any(|k| f.has(k)) => return None,
        [] => {
            f.cx.error(f.error(f.place, "a check has one of `to`, `run`, `dns` and `never`"));
            return None;
        }
        [_, second, ..] => {
            let message = format!("a check has one of `to`, `run`, `dns` and `never`, not {}", said.join(" and "));
            f.cx.error(f.error(f.key_place(second), message));
            return None;
        }
    }
    if let Some(t) = to {
        destination(f, t, draft)?;
        return Some(CheckWhat::To(t.value.to_owned()));
    }
    if let Some(t) = run {
        if t.value.trim().is_empty() {
            f.cx.error(f.error(t.place, "the command is empty"));
        }
        return Some(CheckWhat::Run(t.value.to_owned()));
    }
    if let Some(t) = dns {
        let mut words = t.value.split_ascii_whitespace();
        let (name, kind) = (words.next(), words.next().unwrap_or("A"));
        const TYPES: [&str; 9] = ["A", "AAAA", "CNAME", "PTR", "TXT", "SOA", "NS", "MX", "SRV"];
        return match name {
            Some(name) if words.next().is_none() && TYPES.contains(&kind) => {
                Some(CheckWhat::Dns(name.to_owned(), kind.to_owned()))
            }
            _ => {
                let found = f.error(t.place, format!("`{}` is no name and type", t.value));
                f.cx.error(found.help(format!("`NAME`, or `NAME TYPE` with one of {}", TYPES.join(", "))));
                None
            }
        };
    }
    never.map(|t| CheckWhat::Never(t.value.to_owned()))
}

/// The references in `endpoint:N`, `instance:N` and the like; other destinations are names, looked up when asked.
fn destination(f: &Fields<'_>, t: At<&str>, _draft: &Draft) -> Option<()> {
    let text = t.value;
    if text.is_empty() || text.contains(char::is_whitespace) {
        f.cx.error(
            f.error(t.place, format!("`{text}` is no destination"))
                .help("a URL, a host name, an address, `endpoint:NAME` or `instance:NAME`, with `:PORT[/PROTO]`"),
        );
        return None;
    }
    let Some((kind, rest)) = text.split_once(':') else { return Some(()) };
    if rest.starts_with("//") {
        return Some(());
    }
    let name = rest.split([':', '/', '@']).next().unwrap_or(rest);
    let name = At { value: name, place: t.place };
    match kind {
        "endpoint" => f.reference(Kind::Endpoint, None, name).map(|_| ()),
        "instance" => f.reference(Kind::Instance, None, name).map(|_| ()),
        "lb" | "endpoint-service" | "nat" | "tgw" | "peering" => {
            f.not_yet(t.place, &format!("to: {text}"));
            None
        }
        _ => Some(()),
    }
}

/// Ways that need no name.
const WAYS: [&str; 7] = ["igw", "vgw", "vpn", "private", "nat", "internet", "gateway-endpoint"];

/// `endpoint:NAME` and the like, written out with its VPC.
fn way(f: &Fields<'_>, t: At<&str>) -> Option<String> {
    match t.value.split_once(':') {
        Some(("endpoint", name)) => {
            let at = f.reference(Kind::Endpoint, None, At { value: name, place: t.place })?;
            Some(format!("endpoint:{}", f.cx.names.get(Kind::Endpoint, at).path))
        }
        Some((word @ ("nat" | "tgw" | "peering" | "instance" | "site"), name)) => {
            let kind = match word {
                "nat" => Kind::Nat,
                "tgw" => Kind::Tgw,
                "peering" => Kind::Peering,
                "site" => Kind::Site,
                _ => Kind::Instance,
            };
            let at = f.reference(kind, None, At { value: name, place: t.place })?;
            Some(format!("{word}:{}", f.cx.names.get(kind, at).path))
        }
        Some(("lb", _)) => {
            f.not_yet(t.place, t.value);
            None
        }
        _ if WAYS.contains(&t.value) => Some(t.value.to_owned()),
        _ => {
            let help = format!(
                "`endpoint:N`, `nat:N`, `peering:N`, `tgw:N`, `instance:N`, `site:N`, or one of {}",
                WAYS.join(", ")
            );
            f.cx.error(f.error(t.place, format!("`{}` is no way", t.value)).help(help));
            None
        }
    }
}

fn expect(f: &Fields<'_>, what: Option<&CheckWhat>) -> Option<Expect> {
    let Some(entry) = f.entry("expect") else {
        return Some(match what {
            Some(CheckWhat::Run(_)) => Expect::Result { exit: Some(0), stdout: None, stderr: None, in_cidr: None },
            Some(CheckWhat::Never(_)) => Expect::Unreachable,
            _ => Expect::Reachable,
        });
    };
    if matches!(what, Some(CheckWhat::Never(_))) {
        f.cx.error(f.error(entry.key_place, "`never` says itself what is expected: leave `expect` out"));
        return None;
    }
    match &entry.node.value {
        Value::Text(t) => {
            let place = entry.place();
            match t.text.as_str() {
                "reachable" => Some(Expect::Reachable),
                "unreachable" => Some(Expect::Unreachable),
                code if CODES.contains(&code) => Some(Expect::Code(code.to_owned())),
                code if LATER_CODES.contains(&code) => {
                    f.not_yet(place, &format!("expect: {code}"));
                    None
                }
                other => {
                    let known = CODES.iter().copied().chain(["reachable", "unreachable"]);
                    let help = did_you_mean(other, known)
                        .unwrap_or_else(|| "reachable, unreachable, a drop code (SG_INGRESS ...), or a map".into());
                    f.cx.error(f.error(place, format!("`{other}` cannot be expected")).help(help));
                    None
                }
            }
        }
        _ => {
            let e = Fields::open(f.cx, &keys::EXPECT, "check".into(), entry)?;
            let result = Expect::Result {
                exit: e.int("exit").map(|n| n.value as i32),
                stdout: e.text("stdout").map(|t| t.value.to_owned()),
                stderr: e.text("stderr").map(|t| t.value.to_owned()),
                in_cidr: e.cidr("in_cidr", false).map(|c| c.value),
            };
            let useless = match what {
                Some(CheckWhat::Run(_)) | None => ["in_cidr"].as_slice(),
                Some(CheckWhat::Dns(..)) => &["exit", "stdout", "stderr"],
                _ => &["exit", "stdout", "stderr", "in_cidr"],
            };
            for key in useless.iter().filter(|k| e.has(k)) {
                let of = if *key == "in_cidr" { "`dns`" } else { "`run`" };
                f.cx.error(e.error(e.key_place(key), format!("`{key}` is for checks with {of}")));
            }
            e.done();
            Some(result)
        }
    }
}
