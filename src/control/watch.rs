//! Captures and traces in words: from what a user asks to a filter of packets, and from what was seen to lines, to rows
//! and to a pcapng file.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::api::{Filter, TraceRow, TraceStep, WatchAsk};
use super::{explain, rows};
use crate::base::{EniIx, FiveTuple, Proto};
use crate::engine::{DropCode, DropRecord, Reaction, Verdict};
use crate::model::Plan;
use crate::model::catalogue::PUBLIC_RESOLVER;
use crate::model::plan::EniOwner;
use crate::observe::pcapng::{self, Interface, Record};
use crate::observe::{End, Sender, Sight, Watch, Way};
use crate::wire::{Packet, VnetHdr, gso, show};

/// The filter for a plan. The error is a sentence about a word that means nothing.
pub fn resolve(plan: &Plan, ask: &WatchAsk) -> Result<Watch, String> {
    let filter = Filter { from: ask.from.clone(), to: ask.to.clone(), code: ask.code.clone(), ..Filter::default() };
    rows::check_filter(plan, &filter)?;
    let mut at = Vec::new();
    for word in &ask.at {
        let here = enis(plan, word);
        if here.is_empty() {
            let all: Vec<String> = (0..plan.enis.len()).map(|at| plan.eni_label(EniIx(at as u32))).collect();
            return Err(format!("no ENI is named `{word}`; there are: {}", all.join(", ")));
        }
        at.extend(here);
    }
    let proto = match ask.proto.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("tcp") => Some(Proto::TCP),
        Some("udp") => Some(Proto::UDP),
        Some("icmp") => Some(Proto::ICMP),
        Some(other) => Some(Proto(other.parse().map_err(|_| format!("{other}: tcp, udp, icmp or a number"))?)),
    };
    Ok(Watch {
        at: (!ask.at.is_empty()).then_some(at),
        at_senders: false,
        from: ask.from.as_deref().map(|word| end(plan, word)),
        to: ask.to.as_deref().map(|word| end(plan, word)),
        proto,
        port: ask.port,
        code: ask
            .code
            .as_deref()
            .and_then(|word| DropCode::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(word))),
    })
}

/// What a packet's sender learns only from us: `deliver to s3@a`, `DROP SG_INGRESS at endpoint app.s3: 1 rule, no
/// match: tcp 443 from sg:app`.
pub fn verdict_text(plan: &Plan, verdict: Verdict, record: Option<&DropRecord>) -> String {
    let dropped = |code: DropCode| match record {
        Some(record) => format!("DROP {}", explain::refusal(plan, record)),
        None => format!("DROP {code}"),
    };
    match verdict {
        Verdict::Deliver { to } | Verdict::Endpoint { eni: to } => format!("deliver to {}", plan.eni_label(to)),
        Verdict::Shaped { to, via } => {
            let mut text = format!("deliver to {}", plan.eni_label(to));
            if via.fragment != 0 {
                text += &format!(" in fragments of {} bytes", via.fragment);
            }
            if via.latency_us != 0 {
                text += &format!(" after {} ms", f64::from(via.latency_us) / 1_000.0);
            }
            if via.shapes != [0; 3] {
                text += " over an impaired link";
            }
            text
        }
        Verdict::Resolver { .. } => "deliver to resolver".to_owned(),
        Verdict::Imds { .. } => "deliver to imds".to_owned(),
        Verdict::Drop { code } => dropped(code),
        Verdict::Reject { code, reaction } => {
            let answer = match reaction {
                Reaction::FragNeeded { from, mtu, .. } => format!("ICMP fragmentation needed, mtu {mtu}, from {from}"),
                Reaction::TimeExceeded { from } => format!("ICMP time exceeded from {from}"),
                Reaction::Reset => "a TCP reset".to_owned(),
                Reaction::HostUnreachable { .. } => {
                    "\"No route to host\" of its kernel, after 3 s without ARP".to_owned()
                }
            };
            format!("{}; answered with {answer}", dropped(code))
        }
    }
}

/// One line of a capture that is read by a person; the caller puts the time before it.
pub fn line(plan: &Plan, sight: &Sight) -> String {
    let way = if matches!(sight.way, Way::Out { .. }) { "out" } else { "in " };
    format!("{:<12} {way} {}  {}", plan.eni_label(sight.eni), show::line(&sight.frame), comment(plan, sight))
}

/// A traced packet; `None` for what has no steps.
pub fn trace_row(plan: &Plan, sight: &Sight, time_ms: u64) -> Option<TraceRow> {
    let Way::Out { verdict, drop, crumbs } = &sight.way else { return None };
    let sent = sight.sent.unwrap_or(FiveTuple::tcp(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED, 0));
    let to = match receiver(*verdict) {
        Some(to) => plan.eni_label(to),
        None => rows::label_of_addr(plan, plan.eni(sight.eni).vpc(), sent.dst),
    };
    let steps = explain::of_live(plan, sight.eni, sent, crumbs, drop.as_ref());
    let steps = steps.into_iter().map(|step| TraceStep {
        at: step.at,
        what: step.what,
        outcome: step.outcome.to_owned(),
        detail: step.detail,
    });
    Some(TraceRow {
        time_ms,
        from: plan.eni_label(sight.eni),
        to,
        packet: show::line(&sight.frame),
        verdict: verdict_text(plan, *verdict, drop.as_ref()),
        code: verdict.dropped().map(|code| code.as_str().to_owned()),
        steps: steps.collect(),
        lost: sight.lost,
    })
}

/// Where a packet goes that passed.
pub fn receiver(verdict: Verdict) -> Option<EniIx> {
    match verdict {
        Verdict::Deliver { to } | Verdict::Endpoint { eni: to } | Verdict::Shaped { to, .. } => Some(to),
        _ => None,
    }
}

/// A capture file as it grows. ENIs are known by their AWS ids: a change of the plan moves indices.
pub struct CaptureFile {
    interfaces: HashMap<String, u32>,
    /// Packets are cut to so many bytes; 0: not at all.
    snaplen: u32,
    /// A superframe's packets, one after the other.
    segment: Vec<u8>,
}

impl CaptureFile {
    /// Writes the beginning, with the ENIs where the filter sees packets; others follow when they are first seen.
    pub fn begin(plan: &Plan, watch: &Watch, snaplen: u32, out: &mut Vec<u8>) -> CaptureFile {
        let comment = format!("lab {} ({})", plan.name, plan.region);
        pcapng::section(out, concat!("vpclab ", env!("CARGO_PKG_VERSION")), &comment);
        let mut file = CaptureFile { interfaces: HashMap::new(), snaplen, segment: Vec::new() };
        let mut places: Vec<EniIx> = match &watch.at {
            Some(at) => at.clone(),
            None => [&watch.from, &watch.to].into_iter().flatten().flat_map(|end| end.enis.clone()).collect(),
        };
        if places.is_empty() {
            places = (0..plan.enis.len()).map(|at| EniIx(at as u32)).collect();
        }
        for eni in places {
            file.interface(plan, eni, out);
        }
        file
    }

    /// Adds what was seen, a superframe as the packets it stands for. How many packets that is.
    pub fn add(&mut self, plan: &Plan, sight: &Sight, time_ns: u64, out: &mut Vec<u8>) -> u64 {
        let interface = self.interface(plan, sight.eni, out);
        let comment = comment(plan, sight);
        let outbound = matches!(sight.way, Way::Out { .. });
        let (snaplen, mut lost, mut count) = (self.snaplen as usize, sight.lost, 0);
        let mut put = |ip: &[u8]| {
            let kept = if snaplen == 0 { ip.len() } else { ip.len().min(snaplen) };
            let len = ip.len() as u32;
            let record = Record { interface, time_ns, outbound, bytes: &ip[..kept], len, comment: &comment, lost };
            pcapng::packet(out, &record);
            lost = 0;
            count += 1;
        };
        let cut = gso::segment_with(&sight.frame, &mut self.segment, |packet| put(&packet[VnetHdr::LEN..]));
        if cut.is_err() {
            // Nothing that we can read: as it came.
            put(sight.frame.get(VnetHdr::LEN..).unwrap_or_default());
        }
        count
    }

    fn interface(&mut self, plan: &Plan, eni: EniIx, out: &mut Vec<u8>) -> u32 {
        let id = &plan.eni(eni).common.id;
        if let Some(number) = self.interfaces.get(id) {
            return *number;
        }
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(id.clone(), number);
        pcapng::interface(out, &interface(plan, eni), self.snaplen);
        number
    }
}

/// `demo.app.web/eth0`, and what the console would say of the ENI.
fn interface(plan: &Plan, ix: EniIx) -> Interface {
    let eni = plan.eni(ix);
    let name = match eni.owner {
        EniOwner::Instance(at, n) => format!("{}.{}/eth{n}", plan.name, plan.instances[at].common.path),
        _ => format!("{}.{}", plan.name, plan.eni_label(ix)),
    };
    let door = eni.owner.is_door();
    let mut description = eni.common.id.clone();
    if !door {
        description += &format!(" {}", eni.ip);
    }
    if let Some(subnet) = plan.subnet_of(ix) {
        description += &format!(", subnet {} (zone {})", subnet.common.path, subnet.az);
    }
    if !eni.security_groups.is_empty() {
        let groups: Vec<&str> =
            eni.security_groups.iter().map(|at| plan.security_groups[*at].common.name.as_str()).collect();
        description += &format!(", security groups {}", groups.join(", "));
    }
    Interface { name, description, address: (!door).then_some(eni.ip) }
}

/// What is said beside a packet: its verdict where it is sent, its origin where it arrives.
fn comment(plan: &Plan, sight: &Sight) -> String {
    match &sight.way {
        Way::Out { verdict, drop, .. } => verdict_text(plan, *verdict, drop.as_ref()),
        Way::In { from } => {
            let who = match (from, sight.sent) {
                (Sender::Eni(eni), _) => plan.eni_label(*eni),
                (Sender::Unknown, Some(sent)) => rows::label_of_addr(plan, plan.eni(sight.eni).vpc(), sent.src),
                (Sender::Unknown, None) => "the lab".to_owned(),
            };
            let now = Packet::parse(&sight.frame).ok().map(|packet| packet.tuple());
            match sight.sent {
                Some(sent) if Some(sent) != now => format!("from {who}, sent as {sent}"),
                _ => format!("from {who}"),
            }
        }
    }
}

/// The ENIs that a word names, as filters of drops and flows understand it, or by AWS id.
fn enis(plan: &Plan, word: &str) -> Vec<EniIx> {
    let all = (0..plan.enis.len()).map(|at| EniIx(at as u32));
    all.filter(|ix| {
        let eni = plan.eni(*ix);
        let name = word.strip_prefix("eni:").unwrap_or(word);
        // `app.web/eth0` is how changes name it, whether or not it is the only one.
        let by_name = match (eni.owner, name.rsplit_once("/eth")) {
            (EniOwner::Instance(at, n), Some((instance, which))) => {
                let common = &plan.instances[at].common;
                which == n.to_string() && (common.name == instance || common.path == instance)
            }
            _ => false,
        };
        eni.common.id == name || by_name || rows::names_end(plan, word, &plan.eni_label(*ix), &eni.ip.to_string())
    })
    .collect()
}

fn end(plan: &Plan, word: &str) -> End {
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv4Addr>().is_ok() => (host, port.parse().ok()),
        _ => (word, None),
    };
    if let Ok(addr) = host.parse::<Ipv4Addr>() {
        return End { enis: Vec::new(), addrs: vec![addr], port };
    }
    match word {
        "resolver" => {
            let mut addrs = vec![PUBLIC_RESOLVER, Ipv4Addr::new(169, 254, 169, 253)];
            addrs.extend(plan.vpcs.iter().map(|vpc| vpc.resolver()));
            End { enis: Vec::new(), addrs, port: None }
        }
        "imds" => End { enis: Vec::new(), addrs: vec![Ipv4Addr::new(169, 254, 169, 254)], port: None },
        _ => {
            let enis = enis(plan, word);
            let mut addrs: Vec<Ipv4Addr> =
                enis.iter().filter(|eni| !plan.eni(**eni).owner.is_door()).map(|eni| plan.eni(*eni).ip).collect();
            addrs.extend(plan.public_addresses.iter().filter(|p| enis.contains(&p.eni)).map(|p| p.addr));
            End { enis, addrs, port: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Instant;
    use crate::engine::tests::builder::demo;
    use crate::engine::{Engine, EngineLimits, compile};
    use crate::wire::make::{self, TcpSpec};
    use crate::wire::packet::tcp_flags;
    use std::net::SocketAddrV4;
    use std::sync::Arc;

    fn sight(plan: &Plan, from: EniIx, mut frame: Vec<u8>) -> Sight {
        let mut engine = Engine::new(Arc::new(compile(plan, 1)), EngineLimits::default());
        let before = frame.clone();
        let (verdict, crumbs) = engine.trace(Instant(5), from, &mut frame);
        let drop = verdict.dropped().and_then(|_| engine.drops().last().cloned());
        let sent = Packet::parse(&before).ok().map(|packet| packet.tuple());
        Sight { at: Instant(5), eni: from, way: Way::Out { verdict, drop, crumbs }, sent, frame: before, lost: 0 }
    }

    fn eni(plan: &Plan, label: &str) -> EniIx {
        enis(plan, label)[0]
    }

    fn syn(plan: &Plan, from: EniIx, to: EniIx, port: u16) -> Vec<u8> {
        let at = |eni, port| SocketAddrV4::new(plan.eni(eni).ip, port);
        make::tcp(&TcpSpec::syn(at(from, 40_000), at(to, port)))
    }

    #[test]
    fn words_become_enis_and_what_means_nothing_is_refused() {
        let plan = demo().plan;
        let ask = |at: &str| WatchAsk { at: vec![at.to_owned()], ..WatchAsk::default() };
        let id = plan.enis[0].common.id.clone();
        for word in
            ["web", "app.web", "instance:web", "web/eth0", "app.web/eth0", "eni:web/eth0", "s3@a", "endpoint:s3", &id]
        {
            assert!(resolve(&plan, &ask(word)).expect(word).at.is_some_and(|at| !at.is_empty()), "{word}");
        }
        assert!(resolve(&plan, &ask("wbe")).expect_err("no such ENI").contains("s3@a"));
        let refused = WatchAsk { proto: Some("quic".into()), ..WatchAsk::default() };
        assert!(resolve(&plan, &refused).expect_err("no protocol").contains("quic"));
        assert!(resolve(&plan, &WatchAsk { code: Some("SG".into()), ..WatchAsk::default() }).is_err());
        let flow = WatchAsk { from: Some("web".into()), to: Some("10.9.9.9:443".into()), ..WatchAsk::default() };
        let watch = resolve(&plan, &flow).expect("names");
        assert_eq!(watch.to.map(|end| (end.addrs, end.port)), Some((vec![Ipv4Addr::new(10, 9, 9, 9)], Some(443))));
        let resolver = WatchAsk { to: Some("resolver".into()), ..WatchAsk::default() };
        let addrs = resolve(&plan, &resolver).expect("a name").to.expect("an end").addrs;
        assert!(addrs.contains(&plan.vpcs[0].resolver()));
    }

    #[test]
    fn verdicts_are_told_with_the_rule() {
        let plan = demo().plan;
        let (web, guest, s3) = (eni(&plan, "web"), eni(&plan, "guest"), eni(&plan, "s3@a"));
        let passed = sight(&plan, web, syn(&plan, web, s3, 443));
        assert_eq!(comment(&plan, &passed), "deliver to s3@a");
        let refused = sight(&plan, guest, syn(&plan, guest, s3, 443));
        let text = comment(&plan, &refused);
        assert!(text.starts_with("DROP SG_INGRESS at endpoint app.s3: 1 rule, no match: tcp 443 from"), "{text}");
        let row = trace_row(&plan, &refused, 7).expect("a row");
        assert_eq!((row.from.as_str(), row.to.as_str(), row.code.as_deref()), ("guest", "s3@a", Some("SG_INGRESS")));
        let last = row.steps.last().expect("steps");
        assert_eq!((last.outcome.as_str(), last.at.as_str()), ("DENY", "s3@a"));
        assert!(row.steps.len() > 2 && last.detail.contains("no match"), "{:?}", row.steps);
    }

    #[test]
    fn a_superframe_stands_in_the_file_as_its_packets() {
        let plan = demo().plan;
        let (web, s3) = (eni(&plan, "web"), eni(&plan, "s3@a"));
        let at = |eni, port| SocketAddrV4::new(plan.eni(eni).ip, port);
        let payload = vec![1; 4_000];
        let spec = TcpSpec { payload: &payload, ..TcpSpec::new(at(web, 1), at(s3, 443), tcp_flags::ACK) };
        let seen = sight(&plan, web, make::tcp_superframe(&spec, 1_448));
        let watch = Watch { at: Some(vec![web]), ..Watch::default() };
        let mut out = Vec::new();
        let mut file = CaptureFile::begin(&plan, &watch, 60, &mut out);
        let begun = out.len();
        assert_eq!(file.add(&plan, &seen, 1, &mut out), 3);
        // Blocks of equal length: 60 of 1,488 bytes, and of the last one's 1,144.
        let lengths: Vec<u32> = out[begun..]
            .chunks((out.len() - begun) / 3)
            .map(|block| u32::from_le_bytes(block[24..28].try_into().expect("four bytes")))
            .collect();
        assert_eq!(lengths, [1_488, 1_488, 1_144]);
        let strange = Sight { frame: vec![0; 14], ..seen };
        assert_eq!(file.add(&plan, &strange, 2, &mut out), 1, "what cannot be read is kept");
    }
}
