//! What a user asks about: a URL, a host name, an address, `endpoint:N` or `instance:N`, with `:PORT[/PROTO]`.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::base::Proto;
use crate::model::Plan;
use crate::model::catalogue;

/// A destination as it was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// As written.
    pub text: String,
    pub target: Target,
    #[serde(serialize_with = "proto_text")]
    pub proto: Proto,
    /// 0 for ICMP.
    pub port: u16,
    /// `https://`: the name on the certificate matters.
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Lower case, without a final dot.
    Host(String),
    Address(Ipv4Addr),
    Address6(Ipv6Addr),
    /// Index in `Plan::endpoints`.
    Endpoint(usize),
    /// Index in `Plan::instances`.
    Instance(usize),
}

impl Destination {
    /// Reads a destination. The error is a sentence, with the candidates of a name that is not unique.
    pub fn parse(plan: &Plan, text: &str) -> Result<Destination, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the destination is empty".into());
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return url(text, scheme, rest);
        }
        let (place, port) = match text.split_once(':') {
            Some(("endpoint", rest)) => {
                let (name, port) = split_port(rest)?;
                let at = plan.endpoint_named(name)?;
                let first = plan.services[plan.endpoints[at].service].ports.first().copied();
                let target = behind_gateway(plan, at).map_or(Target::Endpoint(at), Target::Address);
                return Ok(with_port(text, target, port, first.unwrap_or(443)));
            }
            Some(("instance", rest)) => {
                let (name, port) = split_port(rest)?;
                let at = plan.instance_named(name)?;
                let first = plan.instances[at].listen.first().map(|l| (l.port, l.proto));
                let port = port.or(first.map(|(port, proto)| (Some(port), proto)));
                return Ok(with_port(text, Target::Instance(at), port, 443));
            }
            Some((kind @ ("nat" | "igw" | "vgw" | "tgw" | "peering"), _)) => {
                return Err(format!(
                    "{kind}: a gateway is no destination: name what is beyond it, `instance:N` or an address"
                ));
            }
            Some((kind @ ("lb" | "endpoint-service" | "tg"), _)) => {
                return Err(format!("{kind}: is a kind of destination that is not in this version"));
            }
            _ => split_place(text)?,
        };
        let target = target_of(place);
        let (usual, proto) = usual(plan, &target);
        Ok(with_port(text, target, port.or(Some((None, proto))), usual))
    }

    /// `tcp 443`, `icmp 8`: as a rule would name it.
    pub fn traffic(&self) -> String {
        match self.proto {
            Proto::TCP | Proto::UDP => format!("{} {}", self.proto, self.port),
            Proto::ICMP => "icmp 8".into(),
            Proto(n) => n.to_string(),
        }
    }
}

/// A gateway endpoint has no address of its own: a client asks for the service's, and its route table decides whether
/// that leads to the endpoint.
fn behind_gateway(plan: &Plan, endpoint: usize) -> Option<Ipv4Addr> {
    if !plan.endpoints[endpoint].is_gateway() {
        return None;
    }
    let service = &plan.services[plan.endpoints[endpoint].service];
    let host = &catalogue::service(&service.name)?.host;
    plan.public_blocks.addr(&format!("{host}.{}.amazonaws.com", service.region))
}

fn url(text: &str, scheme: &str, rest: &str) -> Result<Destination, String> {
    let (tls, usual) = match scheme.to_ascii_lowercase().as_str() {
        "https" => (true, 443),
        "http" => (false, 80),
        other => return Err(format!("{other}:// is not a kind of URL that can be explained: http or https")),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (place, port) = split_place(authority)?;
    if place.is_empty() {
        return Err(format!("{text} names no host"));
    }
    let port = port.and_then(|(port, _)| port).unwrap_or(usual);
    Ok(Destination { text: text.into(), target: target_of(place), proto: Proto::TCP, port, tls })
}

/// What is asked of a place whose port nobody wrote: of the resolver names, of the metadata service a page, else HTTPS.
fn usual(plan: &Plan, target: &Target) -> (u16, Proto) {
    let Target::Address(addr) = target else { return (443, Proto::TCP) };
    if addr.octets() == [169, 254, 169, 254] {
        (80, Proto::TCP)
    } else if addr.octets() == [169, 254, 169, 253] || plan.vpcs.iter().any(|vpc| vpc.resolver() == *addr) {
        (53, Proto::UDP)
    } else {
        (443, Proto::TCP)
    }
}

type Port = Option<(Option<u16>, Proto)>;

/// `host:443/udp`, `[::1]:443`, `::1`, `10.0.0.1/icmp`: the place, and what follows it.
fn split_place(text: &str) -> Result<(&str, Port), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (place, rest) = rest.split_once(']').ok_or_else(|| format!("{text}: no closing bracket"))?;
        return Ok((place, split_port(rest)?.1));
    }
    let bare = text.split_once('/').map_or(text, |(place, _)| place);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok((bare, split_port(&text[bare.len()..])?.1));
    }
    split_port(text)
}

/// `NAME[:PORT][/PROTO]`.
fn split_port(text: &str) -> Result<(&str, Port), String> {
    let (text, proto) = match text.split_once('/') {
        None => (text, None),
        Some((place, proto)) => (place, Some(proto_of(proto)?)),
    };
    let Some((place, port)) = text.rsplit_once(':') else {
        return Ok((text, proto.map(|proto| (None, proto))));
    };
    let number: u16 = port.parse().map_err(|_| match proto_of(port) {
        Ok(_) => format!("{port} is no port: 1 to 65535; the protocol is written {place}/{port}"),
        Err(_) => format!("{port} is no port: 1 to 65535"),
    })?;
    if number == 0 {
        return Err("0 is no port: 1 to 65535".into());
    }
    Ok((place, Some((Some(number), proto.unwrap_or(Proto::TCP)))))
}

fn proto_of(text: &str) -> Result<Proto, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Proto::TCP),
        "udp" => Ok(Proto::UDP),
        "icmp" => Ok(Proto::ICMP),
        other => Err(format!("{other} is no protocol that can be explained: tcp, udp or icmp")),
    }
}

fn target_of(place: &str) -> Target {
    if let Ok(addr) = place.parse() {
        return Target::Address(addr);
    }
    if let Ok(addr) = place.parse() {
        return Target::Address6(addr);
    }
    Target::Host(place.strip_suffix('.').unwrap_or(place).to_ascii_lowercase())
}

fn with_port(text: &str, target: Target, port: Port, usual: u16) -> Destination {
    let (port, proto) = port.unwrap_or((None, Proto::TCP));
    let port = if proto == Proto::ICMP { 0 } else { port.unwrap_or(usual) };
    Destination { text: text.into(), target, proto, port, tls: false }
}

fn proto_text<S: serde::Serializer>(proto: &Proto, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(proto)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Target, u16, Proto, bool), String> {
        Destination::parse(&Plan::default(), text).map(|d| (d.target, d.port, d.proto, d.tls))
    }

    #[test]
    fn what_people_write() {
        let host = |name: &str| Target::Host(name.into());
        let four = Target::Address(Ipv4Addr::new(10, 0, 0, 1));
        let six = |text: &str| Target::Address6(text.parse().expect("address"));
        for (text, expected) in [
            ("https://S3.eu-west-1.amazonaws.com", (host("s3.eu-west-1.amazonaws.com"), 443, Proto::TCP, true)),
            ("https://u:p@h.example:8443/a?b#c", (host("h.example"), 8443, Proto::TCP, true)),
            ("http://10.0.0.1/x", (four.clone(), 80, Proto::TCP, false)),
            ("https://[2001:db8::1]:444/", (six("2001:db8::1"), 444, Proto::TCP, true)),
            ("h.example.", (host("h.example"), 443, Proto::TCP, false)),
            ("10.0.0.1:53/udp", (four.clone(), 53, Proto::UDP, false)),
            ("10.0.0.1/icmp", (four, 0, Proto::ICMP, false)),
            ("169.254.169.254", (Target::Address(Ipv4Addr::new(169, 254, 169, 254)), 80, Proto::TCP, false)),
            ("169.254.169.253", (Target::Address(Ipv4Addr::new(169, 254, 169, 253)), 53, Proto::UDP, false)),
            ("169.254.169.253:443", (Target::Address(Ipv4Addr::new(169, 254, 169, 253)), 443, Proto::TCP, false)),
            ("::1", (six("::1"), 443, Proto::TCP, false)),
            ("[::1]:80", (six("::1"), 80, Proto::TCP, false)),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_destination_is_said_in_a_sentence() {
        for (text, part) in [
            ("", "empty"),
            ("ftp://h", "ftp"),
            ("https:///x", "names no host"),
            ("h:0", "no port"),
            ("10.0.1.10:icmp", "the protocol is written 10.0.1.10/icmp"),
            ("h:99999", "no port"),
            ("h:1/sctp", "sctp"),
            ("endpoint:nobody", "no endpoint is named `nobody`: there is none"),
            ("lb:front:443", "not in this version"),
            ("nat:nat-a", "no destination"),
            ("[::1", "bracket"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
