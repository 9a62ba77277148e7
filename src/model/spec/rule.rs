//! The grammar of rules, for security groups and network ACLs alike: `tcp 443 from sg:app`, `icmp 3/4 from 0.0.0.0/0`,
//! `all to 10.0.0.0/8`, or the same as a map. A list of ports or peers stands for several rules.

use super::fields::{At, Fields};
use super::keys::{NACL_RULE, Noun, SG_RULE};
use super::names::Kind;
use super::node::{Node, Value};
use super::source::Place;
use crate::base::cidr::CidrError;
use crate::base::{Cidr, PortRange, Proto};
use crate::model::plan::TrafficMatch;

/// From the view of the ENI or subnet that has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Ingress,
    Egress,
}

impl Way {
    pub const fn key(self) -> &'static str {
        match self {
            Way::Ingress => "ingress",
            Way::Egress => "egress",
        }
    }

    /// `from` or `to`.
    pub const fn word(self) -> &'static str {
        match self {
            Way::Ingress => "from",
            Way::Egress => "to",
        }
    }
}

/// One rule, references not yet looked up.
#[derive(Clone, Debug)]
pub struct Written {
    pub matches: TrafficMatch,
    pub peer: Peer,
    pub place: Place,
    /// `tcp 443 from sg:app`, in the one spelling that reports use.
    pub text: String,
}

#[derive(Clone, Debug)]
pub enum Peer {
    Cidr(Cidr),
    /// As written, with where.
    Group(String, Place),
    /// A prefix list, as written, with where.
    List(String, Place),
    /// The group that has the rule.
    Own,
}

/// What may stand in a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grammar {
    SecurityGroup,
    Nacl,
}

/// The rules of one direction of a security group; `None` if the key is left out.
pub fn sg_rules(f: &Fields<'_>, way: Way) -> Option<Vec<Written>> {
    if !f.has(way.key()) {
        return None;
    }
    let rules = f.list(way.key());
    Some(rules.iter().flat_map(|node| one(f, node, f.key_place(way.key()), way, Grammar::SecurityGroup).0).collect())
}

/// The rules of one direction of a network ACL: number, place of the number, allow, rule.
pub fn nacl_rules(f: &Fields<'_>, way: Way) -> Vec<(At<u16>, bool, Written)> {
    let mut rules = Vec::new();
    let Some(entry) = f.entry(way.key()) else { return rules };
    let Value::Map(entries) = &entry.node.value else {
        f.cx.error(
            f.error(entry.place(), format!("`{}` is a map from rule numbers, not {}", way.key(), entry.node.kind()))
                .help(format!("{}: {{ 100: allow tcp 443 {} 10.0.0.0/16 }}", way.key(), way.word())),
        );
        return rules;
    };
    for e in entries {
        let number = e.key.parse::<u16>().ok().filter(|n| (1..=32_766).contains(n) && n.to_string() == e.key);
        if number.is_none() {
            let message = format!("`{}` is no rule number: 1 to 32766", e.key);
            f.cx.error(f.error(e.key_place, message).code("InvalidParameterValue"));
        }
        let (written, allow) = one(f, &e.node, e.key_place, way, Grammar::Nacl);
        if written.len() > 1 {
            f.cx.error(f.error(e.place(), "a numbered rule has one range of ports and one block"));
        }
        if let (Some(number), Some(allow), Some(rule)) = (number, allow, written.into_iter().next()) {
            rules.push((At { value: number, place: e.key_place }, allow, rule));
        }
    }
    rules
}

/// The rules that one item stands for, and of a network ACL whether it allows.
fn one(f: &Fields<'_>, node: &Node, place: Place, way: Way, grammar: Grammar) -> (Vec<Written>, Option<bool>) {
    match &node.value {
        Value::Text(t) => from_text(f, &t.text, node.place, way, grammar),
        Value::Map(_) => from_map(f, node, place, way, grammar),
        _ => {
            let place = if node.place.is_empty() { place } else { node.place };
            let message = format!("a rule is a text or a map, not {}", node.kind());
            f.cx.error(f.error(place, message).help(example(way, grammar)));
            (Vec::new(), None)
        }
    }
}

fn example(way: Way, grammar: Grammar) -> String {
    match grammar {
        Grammar::SecurityGroup => format!("for example `tcp 443 {} 10.0.0.0/16`", way.word()),
        Grammar::Nacl => format!("for example `allow tcp 443 {} 10.0.0.0/16`", way.word()),
    }
}

fn from_text(f: &Fields<'_>, text: &str, place: Place, way: Way, grammar: Grammar) -> (Vec<Written>, Option<bool>) {
    let words: Vec<At<&str>> = text
        .split_ascii_whitespace()
        .map(|w| {
            // Words are parts of `text`, so the distance of their beginnings is their offset.
            let from = w.as_ptr() as usize - text.as_ptr() as usize;
            At { value: w, place: f.cx.part(place, text, from, from + w.len()) }
        })
        .collect();
    let refuse = |at: Place, message: String| {
        f.cx.error(
            f.error(at, format!("`{text}`: {message}")).code("InvalidParameterValue").help(example(way, grammar)),
        );
        (Vec::new(), None)
    };
    let mut rest = words.as_slice();
    let mut allow = None;
    if grammar == Grammar::Nacl {
        allow = match rest.first().map(|w| w.value) {
            Some("allow") => Some(true),
            Some("deny") => Some(false),
            _ => return refuse(rest.first().map_or(place, |w| w.place), "it begins with allow or deny".into()),
        };
        rest = &rest[1..];
    } else if matches!(rest.first().map(|w| w.value), Some("allow" | "deny")) {
        return refuse(rest[0].place, "rules of security groups only allow: leave the word out".into());
    }
    if rest.first().is_some_and(|w| w.value == "proto") {
        rest = &rest[1..];
    }
    let Some((proto, rest)) = rest.split_first() else {
        return refuse(place, "the protocol is missing".into());
    };
    let (middle, peer) = match rest.iter().position(|w| matches!(w.value, "from" | "to")) {
        Some(at) => {
            if rest[at].value != way.word() {
                let message = format!("an {} rule has `{}`", way.key(), way.word());
                return refuse(rest[at].place, message);
            }
            (&rest[..at], &rest[at + 1..])
        }
        None => return refuse(place, format!("`{} PEER` is missing", way.word())),
    };
    let [peer] = peer else {
        let at = peer.get(1).map_or(place, |w| w.place);
        return refuse(at, format!("one peer stands after `{}`", way.word()));
    };
    if middle.len() > 1 {
        return refuse(middle[1].place, format!("`{}` is not understood", middle[1].value));
    }
    let Some(proto) = protocol(f, *proto) else { return (Vec::new(), None) };
    let (ports, icmp) = match middle.first() {
        Some(w) if proto == Some(Proto::ICMP) => (None, Some(*w)),
        other => (other.copied(), None),
    };
    (assemble(f, proto, ports, icmp, &[*peer], place, way, grammar), allow)
}

fn from_map(f: &Fields<'_>, node: &Node, place: Place, way: Way, grammar: Grammar) -> (Vec<Written>, Option<bool>) {
    let noun: &'static Noun = if grammar == Grammar::Nacl { &NACL_RULE } else { &SG_RULE };
    let place = node.entries().first().map_or(place, |e| e.key_place);
    let Some(r) = Fields::open_node(f.cx, noun, f.title.clone(), node, place) else { return (Vec::new(), None) };
    let allow = (grammar == Grammar::Nacl).then(|| r.word("action").map(|w| w.value == "allow")).flatten();
    let icmp = r.text("icmp");
    let ports = texts_of(&r, "ports");
    let proto = match r.text("protocol") {
        Some(t) => match protocol(f, t) {
            Some(p) => p,
            None => return (Vec::new(), None),
        },
        None if icmp.is_some() => Some(Proto::ICMP),
        None => Some(Proto::TCP),
    };
    let other = if way == Way::Ingress { "to" } else { "from" };
    if r.has(other) {
        let _ = r.entry(other);
        let message = format!("an {} rule has `{}`, not `{other}`", way.key(), way.word());
        f.cx.error(f.error(r.key_place(other), message));
    }
    // A description is for people who read the file: reports print the rule itself.
    let _ = r.text("description");
    let peers = texts_of(&r, way.word());
    if peers.is_empty() && !r.has(way.word()) && !r.has(other) {
        f.cx.error(f.error(place, format!("`{}` is missing", way.word())));
    }
    let mut rules = Vec::new();
    if ports.is_empty() {
        rules.extend(assemble(f, proto, None, icmp, &peers, place, way, grammar));
    }
    for port in ports {
        rules.extend(assemble(f, proto, Some(port), icmp, &peers, place, way, grammar));
    }
    r.done();
    (rules, allow)
}

/// A text, or a list of texts.
fn texts_of<'a>(f: &Fields<'a>, key: &str) -> Vec<At<&'a str>> {
    match f.entry(key) {
        Some(e) if matches!(e.node.value, Value::List(_)) => f.texts(key).unwrap_or_default(),
        Some(_) => f.text(key).into_iter().collect(),
        None => Vec::new(),
    }
}

/// `None` if refused; `Some(None)` is every protocol.
fn protocol(f: &Fields<'_>, t: At<&str>) -> Option<Option<Proto>> {
    Some(match t.value {
        "tcp" => Some(Proto::TCP),
        "udp" => Some(Proto::UDP),
        "icmp" => Some(Proto::ICMP),
        "all" | "-1" => None,
        "icmpv6" | "icmp6" | "58" => {
            f.cx.error(f.error(t.place, "ICMPv6 rules: not in this version"));
            return None;
        }
        other => match other.parse::<u8>() {
            Ok(n) => Some(Proto(n)),
            Err(_) => {
                let help = super::report::did_you_mean(other, ["tcp", "udp", "icmp", "all"])
                    .unwrap_or_else(|| "tcp, udp, icmp, all, or a number of 0 to 255".into());
                let found = f.error(t.place, format!("`{other}` is no protocol")).code("InvalidParameterValue");
                f.cx.error(found.help(help));
                return None;
            }
        },
    })
}

#[allow(clippy::too_many_arguments, reason = "the parts of one rule, each with its place")]
fn assemble(
    f: &Fields<'_>,
    proto: Option<Proto>,
    ports: Option<At<&str>>,
    icmp: Option<At<&str>>,
    peers: &[At<&str>],
    place: Place,
    way: Way,
    grammar: Grammar,
) -> Vec<Written> {
    let mut ok = true;
    let has_ports = matches!(proto, Some(Proto::TCP | Proto::UDP));
    let mut ranges = vec![PortRange::ALL];
    if let Some(p) = ports {
        if has_ports {
            match parse_ports(p.value) {
                Ok(r) => ranges = r,
                Err(message) => {
                    f.cx.error(f.error(p.place, message).code("InvalidParameterValue"));
                    ok = false;
                }
            }
        } else if p.value != "all" {
            f.cx.error(f.error(p.place, "only tcp and udp have ports").code("InvalidParameterValue"));
            ok = false;
        }
    }
    let mut kind = (None, None);
    if let Some(i) = icmp {
        match parse_icmp(i.value) {
            Some(k) if proto == Some(Proto::ICMP) => kind = k,
            Some(_) => {
                f.cx.error(f.error(i.place, "only icmp has a type").code("InvalidParameterValue"));
                ok = false;
            }
            None => {
                let found = f.error(i.place, format!("`{}` is no ICMP type: TYPE or TYPE/CODE, as in 3/4", i.value));
                f.cx.error(found.code("InvalidParameterValue"));
                ok = false;
            }
        }
    }
    let mut rules = Vec::new();
    for p in peers {
        let Some(peer) = parse_peer(f, *p, grammar) else { continue };
        for &range in &ranges {
            let matches = TrafficMatch { proto, ports: range, icmp: kind };
            let peer_text = match &peer {
                Peer::Cidr(c) => c.to_string(),
                Peer::Group(name, _) => format!("sg:{name}"),
                Peer::List(name, _) => format!("pl:{name}"),
                Peer::Own => "self".into(),
            };
            let text = format!("{} {} {peer_text}", match_text(matches), way.word());
            rules.push(Written { matches, peer: peer.clone(), place, text });
        }
    }
    if ok { rules } else { Vec::new() }
}

/// `tcp 443`, `udp all`, `icmp 3/4`, `all`.
pub fn match_text(m: TrafficMatch) -> String {
    match m.proto {
        None => "all".into(),
        Some(p @ (Proto::TCP | Proto::UDP)) => format!("{p} {}", m.ports),
        Some(Proto::ICMP) => match m.icmp {
            (Some(t), Some(c)) => format!("icmp {t}/{c}"),
            (Some(t), None) => format!("icmp {t}"),
            _ => "icmp".into(),
        },
        Some(p) => p.to_string(),
    }
}

/// `443`, `1024-65535`, `all`, or several with commas.
pub fn parse_ports(text: &str) -> Result<Vec<PortRange>, String> {
    if text == "all" {
        return Ok(vec![PortRange::ALL]);
    }
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| n.to_string() == t);
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (number(first.trim()), number(last.trim())) {
                (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
                (Some(first), Some(last)) => Err(format!("the port range {first}-{last} runs backwards")),
                _ => Err(format!("`{part}` is no port: a number of 0 to 65535, a range as 1024-65535, or all")),
            }
        })
        .collect()
}

fn parse_icmp(text: &str) -> Option<(Option<u8>, Option<u8>)> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "all"));
    let part = |t: &str| match t {
        "all" | "*" | "-1" => Some(None),
        _ => t.parse::<u8>().ok().map(Some),
    };
    match (part(kind)?, part(code)?) {
        (None, Some(_)) => None,
        both => Some(both),
    }
}

fn parse_peer(f: &Fields<'_>, t: At<&str>, grammar: Grammar) -> Option<Peer> {
    let text = t.value;
    if text == "self" || text.starts_with("sg:") || text.starts_with("pl:") {
        if grammar == Grammar::Nacl {
            let message = format!("a network ACL knows blocks of addresses only, not `{text}`");
            f.cx.error(f.error(t.place, message).code("InvalidParameterValue"));
            return None;
        }
        if let Some(name) = text.strip_prefix("pl:") {
            return Some(Peer::List(name.to_owned(), t.place));
        }
        return Some(match text.strip_prefix("sg:") {
            Some(name) => Peer::Group(name.to_owned(), t.place),
            None => Peer::Own,
        });
    }
    match text.parse::<Cidr>() {
        Ok(c) => return Some(Peer::Cidr(c)),
        // AWS brings the blocks of network ACLs into canonical form, and refuses those of security groups.
        Err(CidrError::HostBits(c)) if grammar == Grammar::Nacl => {
            f.cx.warning(f.error(t.place, format!("{text} has bits below its prefix: taken as {c}, as AWS does")));
            return Some(Peer::Cidr(c));
        }
        Err(CidrError::Syntax) => {}
        Err(_) => {
            super::fields::parse_cidr(f, t, false);
            return None;
        }
    }
    if text.contains(':') || text.contains('/') || text.starts_with(|c: char| c.is_ascii_digit()) {
        super::fields::parse_cidr(f, t, false);
        return None;
    }
    let help = if f.cx.names.resolve(Kind::SecurityGroup, None, text).is_ok() && grammar == Grammar::SecurityGroup {
        format!("a security group is written `sg:{text}`")
    } else if matches!(text, "any" | "anywhere" | "all" | "internet" | "*") {
        "everywhere is written `0.0.0.0/0`".into()
    } else if let Some(list) = super::fields::prefix_list_meant(text).filter(|_| grammar == Grammar::SecurityGroup) {
        list
    } else if grammar == Grammar::Nacl {
        "a block of addresses, as 10.0.0.0/16".into()
    } else {
        "a block of addresses (10.0.0.0/16), `sg:NAME` or `self`".into()
    };
    f.cx.error(f.error(t.place, format!("`{text}` is no peer")).code("InvalidParameterValue").help(help));
    None
}
