//! Is what is predicted what is observed? Random topologies run, random probes are sent in them as real packets, and all
//! that becomes of them is compared with what the oracle says of the same file: who answers and how, and of every drop
//! its code, object, rule and direction; `vpclab explain` has to say the same.
//!
//! `VPCLAB_SEED` repeats a run, `VPCLAB_FLOWS` says how many probes are sent (1,000).
//!
//! Not in these topologies: instances that forward or have several interfaces, whose kernels the oracle does not know;
//! and what [`predict`] leaves out.
#![cfg(target_os = "linux")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::Lab;
use serde_json::Value;
use vpclab::control::rows;
use vpclab::model::plan::{EniOwner, InstanceHome};
use vpclab::model::{Around, Plan, Source, load};
// As the oracle's own lines name them.
use vpclab::{base, model, wire};

use base::{EniIx, Proto};
use engine::judge::{Foretold, Leg, Probe, predict};
use topology::{Dice, Kind, Topology};

#[path = "support/observed/topology.rs"]
mod topology;

/// The oracle itself, which shares no table with the engine, in a room as it has in the library.
#[path = "../src/engine"]
mod engine {
    pub use vpclab::engine::*;
    pub mod event {
        pub use vpclab::engine::Way;
    }
    #[path = "../../tests/support/observed/judge.rs"]
    pub mod judge;
    #[allow(
        dead_code,
        clippy::wrong_self_convention,
        clippy::type_complexity,
        reason = "as the library's tests have it"
    )]
    mod oracle;
}

const SCRIPT: &str = concat!(include_str!("support/errors.py"), include_str!("support/observed.py"));

/// Probes of one lab.
const PER_LAB: usize = 130;

/// One of so many is also asked of `explain`, and one of each code.
const EXPLAINED: usize = 5;

/// The port of the packets that `explain` imagines.
const EXPLAINS_FROM: u16 = 40_000;

/// A receiver's kernel sends an asker a few ICMP errors at once, and then one a second.
const CLOSED_UDP: usize = 2;

#[test]
fn what_becomes_of_random_packets_in_random_labs_is_what_the_oracle_says() {
    let first = seed();
    let flows = std::env::var("VPCLAB_FLOWS").map_or(1_000, |text| text.parse().expect("VPCLAB_FLOWS is a number"));
    println!("VPCLAB_SEED={first:x} VPCLAB_FLOWS={flows}");
    let mut sum = Sum::default();
    let (mut sent, mut labs) = (0, 0);
    while sent < flows {
        let seed = first + labs;
        let mut dice = Dice(seed);
        let topology = topology::random(&mut dice);
        let plan = plan(&topology.yaml());
        let (probes, foretold) = probes(&plan, &mut dice, PER_LAB.min(flows - sent));
        let lab = Lab::up(&topology.yaml());
        let seen = observe(&lab, &plan, &probes, &foretold);
        let mut wrong = contradictions(&plan, &probes, &foretold, &seen);
        wrong.extend(explained(&lab, &plan, &probes, &mut sum));
        assert!(wrong.is_empty(), "VPCLAB_SEED={seed:x} has it first:\n{}\n{}", wrong.join("\n"), topology.yaml());
        lab.down();
        sum.add(&foretold);
        sent += probes.len();
        labs += 1;
    }
    println!("{labs} labs, {sent} probes: {sum:?}");
    // Else the topologies say nothing.
    if flows >= 1_000 {
        assert!(sum.answers.values().sum::<usize>() > flows / 20, "too few answers: {sum:?}");
        assert!(sum.codes.len() >= 10 && sum.back > flows / 100, "too little is dropped: {sum:?}");
        assert!(sum.explained > flows / 10, "{sum:?}");
    }
}

/// The comparison sees what is not so: the lab is given the file without one rule, the oracle with it.
#[test]
fn a_lab_that_lacks_one_rule_contradicts_the_oracle() {
    let seed = seed();
    println!("VPCLAB_SEED={seed:x}");
    for kind in [Kind::SecurityGroup, Kind::NetworkAcl, Kind::Route, Kind::NatRoute] {
        let (topology, line, probes, foretold) = mutant(seed, kind);
        let plan = plan(&topology.yaml());
        let lab = Lab::up(&topology.without(line));
        let seen = observe(&lab, &plan, &probes, &foretold);
        let wrong = contradictions(&plan, &probes, &foretold, &seen);
        let head = format!("{kind:?} without `{}`, VPCLAB_SEED={seed:x}", topology.line(line));
        assert_eq!(wrong.len(), probes.len(), "{head}: {wrong:#?}\n{}", topology.yaml());
        lab.down();
    }
}

/// A topology, a rule of it, and probes that fare otherwise without the rule.
fn mutant(seed: u64, kind: Kind) -> (Topology, usize, Vec<Probe>, Vec<Foretold>) {
    for seed in seed.. {
        let mut dice = Dice(seed);
        let topology = topology::random(&mut dice);
        let with = plan(&topology.yaml());
        let (probes, _) = probes(&with, &mut dice, PER_LAB);
        for line in topology.rules(kind) {
            let Ok(without) = load(&[Source::new("lab.vpclab.yaml", topology.without(line))], &Around::default())
            else {
                continue;
            };
            let differ = |p: &Probe| {
                let (Some(a), Some(b)) = (predict(&with, p), predict(&without.plan, p)) else { return false };
                // What ICMP errors are about is not told of their drops.
                let errors = [&a, &b].into_iter().any(|f| matches!(f.drop, Some((_, Leg::Error))));
                // Of what is dropped and told so, both would be waited for.
                let both = [&a, &b].into_iter().any(|f| f.answer.is_some() && f.drop.is_some());
                !errors && !both && fate(&with, &a) != fate(&without.plan, &b)
            };
            let few: Vec<Probe> = probes.iter().filter(|p| differ(p)).take(8).cloned().collect();
            if few.len() > 1 {
                let foretold = few.iter().filter_map(|p| predict(&with, p)).collect();
                return (topology, line, few, foretold);
            }
        }
    }
    unreachable!("seeds do not end")
}

fn seed() -> u64 {
    match std::env::var("VPCLAB_SEED") {
        Ok(text) => u64::from_str_radix(&text, 16).expect("VPCLAB_SEED is a hexadecimal number"),
        Err(_) => u64::from(std::process::id()) << 20,
    }
}

/// As the lab itself makes it of the file.
fn plan(yaml: &str) -> Plan {
    match load(&[Source::new("lab.vpclab.yaml", yaml)], &Around::default()) {
        Ok(loaded) => loaded.plan,
        Err(report) => panic!("a topology that should be good:\n{}\n{yaml}", report.render(false)),
    }
}

/// What was done, in numbers.
#[derive(Debug, Default)]
struct Sum {
    answers: BTreeMap<&'static str, usize>,
    codes: BTreeMap<&'static str, usize>,
    /// Of the dropped ones, answers.
    back: usize,
    explained: usize,
}

impl Sum {
    fn add(&mut self, foretold: &[Foretold]) {
        for one in foretold {
            if let Some(answer) = one.answer {
                *self.answers.entry(answer).or_default() += 1;
            }
            if let Some((record, leg)) = &one.drop {
                *self.codes.entry(record.code.as_str()).or_default() += 1;
                self.back += usize::from(*leg != Leg::There);
            }
        }
    }
}

// --- probes

/// Random ones of which the oracle can say all, and what it says.
fn probes(plan: &Plan, dice: &mut Dice, count: usize) -> (Vec<Probe>, Vec<Foretold>) {
    let groups = destinations(plan);
    let (mut probes, mut foretold) = (Vec::new(), Vec::new());
    let mut pings = BTreeSet::new();
    let mut closed: HashMap<Ipv4Addr, usize> = HashMap::new();
    while probes.len() < count {
        let by = dice.below(plan.instances.len());
        let own = plan.eni(plan.instances[by].enis[0]);
        let near: Vec<Ipv4Addr> =
            plan.enis.iter().filter(|e| e.home.vpc() == own.vpc() && served(e.owner)).map(|e| e.ip).collect();
        let group = match (dice.below(100), plan.instances[by].home) {
            // Who is on the Internet reaches public addresses or nothing.
            (0..=79, InstanceHome::Internet) => &groups[PUBLIC],
            (0..=24, InstanceHome::Vpc(_)) => &near,
            (25..=39, InstanceHome::Vpc(_)) => &groups[OUTSIDE],
            (40..=69, InstanceHome::Vpc(_)) | (0..=84, InstanceHome::Site(_)) => &groups[0],
            (at, _) => &groups[1 + at % (groups.len() - 1)],
        };
        let Some(&to) = group.get(dice.below(group.len().max(1))) else { continue };
        if to == own.ip || to.is_unspecified() {
            continue;
        }
        let (proto, port) = match dice.below(20) {
            0..=10 => (Proto::TCP, [80, 80, 80, 22, 443, 81][dice.below(6)]),
            11..=16 => (Proto::UDP, [53, 53, 53, 54][dice.below(4)]),
            _ => (Proto::ICMP, 0),
        };
        let from_port = 40_001 + probes.len() as u16;
        let mut probe = Probe { by, proto, from_port, to, port, ttl: 64, size: 60 };
        match dice.below(5) {
            0 if proto != Proto::TCP => probe.ttl = 1 + dice.below(3) as u8,
            1 if proto == Proto::UDP && port == 53 => {
                probe.size =
                    [1_400, 1_440, 1_500, 1_501, 8_500, 8_501, 9_001][dice.below(7)].min(plan.instances[by].mtu);
            }
            _ => {}
        }
        let Some(said) = predict(plan, &probe) else { continue };
        // Rows of ICMP have no ports: one packet between two addresses.
        let fits = match (&said.drop, proto) {
            (_, Proto::ICMP) => pings.insert((own.ip, to)),
            (Some((record, Leg::Error)), _) => pings.insert((record.tuple.src, record.tuple.dst)),
            _ => true,
        };
        let mut few = || {
            let so_far = closed.entry(to).or_default();
            *so_far += 1;
            *so_far <= CLOSED_UDP
        };
        if fits && (port != 54 || few()) {
            probes.push(probe);
            foretold.push(said);
        }
    }
    (probes, foretold)
}

/// Somebody may answer.
fn served(owner: EniOwner) -> bool {
    matches!(owner, EniOwner::Instance(..) | EniOwner::Endpoint(_))
}

/// In [`destinations`]: public addresses of instances; machines outside the VPCs, and S3.
const PUBLIC: usize = 3;
const OUTSIDE: usize = 5;

/// Machines, and then addresses of other kinds.
fn destinations(plan: &Plan) -> Vec<Vec<Ipv4Addr>> {
    let of = |wanted: &dyn Fn(&EniOwner) -> bool| -> Vec<Ipv4Addr> {
        plan.enis.iter().filter(|e| wanted(&e.owner) && !e.owner.is_door()).map(|e| e.ip).collect()
    };
    let machines = of(&|o| matches!(o, EniOwner::Instance(..)));
    let endpoints = of(&|o| matches!(o, EniOwner::Endpoint(_)));
    let gateways = of(&|o| matches!(o, EniOwner::NatGateway(_) | EniOwner::TgwAttachment(_)));
    let public = plan.public_addresses.iter().filter(|a| served(plan.eni(a.eni).owner));
    let public: Vec<Ipv4Addr> = public.map(|a| a.addr).collect();
    let s3 = plan.public_blocks.addr("s3.eu-west-1.amazonaws.com").expect("S3 has an address");
    let mut outside = of(&|o| matches!(o, EniOwner::Instance(at, _) if plan.instances[*at].vpc().is_none()));
    outside.push(s3);
    let mut nobody: Vec<Ipv4Addr> =
        ["10.9.0.9", "192.168.0.99", "192.0.2.99", "203.0.113.250", "10.200.0.1", "172.16.0.1"]
            .iter()
            .map(|a| a.parse().expect("an address"))
            .collect();
    for vpc in 0..plan.vpcs.len() as u8 {
        nobody.extend([Ipv4Addr::new(10, vpc, 1, 99), Ipv4Addr::new(10, vpc, 1, 1), Ipv4Addr::new(10, vpc, 77, 9)]);
    }
    vec![machines, endpoints, gateways, public.clone(), public, outside, nobody]
}

// --- what the oracle says, in the words of rows

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fate {
    answer: Option<String>,
    drop: Option<Dropped>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Dropped {
    code: String,
    object: String,
    rule: String,
    direction: String,
    from: String,
    back: bool,
}

fn fate(plan: &Plan, foretold: &Foretold) -> Fate {
    let drop = foretold.drop.as_ref().map(|(record, leg)| {
        let row = rows::drop_row(plan, record, &|_| 0);
        let (code, object, rule, direction, from) = (row.code, row.object, row.rule, row.direction, row.from);
        Dropped { code, object, rule, direction, from, back: *leg != Leg::There }
    });
    Fate { answer: foretold.answer.map(str::to_owned), drop }
}

// --- what is seen

/// By probe: what came back, and all drops of its packets.
#[derive(Clone, Debug, Default)]
struct Seen {
    answer: Option<String>,
    drops: BTreeSet<Dropped>,
}

/// For probes of which nothing comes, which is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends all probes at once, and waits until something became of each: an answer, or a row of `vpclab drops`.
fn observe(lab: &Lab, plan: &Plan, probes: &[Probe], foretold: &[Foretold]) -> Vec<Seen> {
    let (tell, said) = mpsc::channel();
    let mut senders = Senders(Vec::new());
    for by in probes.iter().map(|p| p.by).collect::<BTreeSet<_>>() {
        let own: Vec<Value> = (probes.iter().enumerate().filter(|(_, p)| p.by == by))
            .map(|(n, p)| {
                serde_json::json!({ "n": n, "proto": p.proto.to_string(), "from_port": p.from_port, "to": p.to.to_string(), "port": p.port, "ttl": p.ttl, "size": p.size })
            })
            .collect();
        let list = serde_json::to_string(&own).expect("json");
        let mut command = lab.exec_command(&plan.instances[by].common.path, &["python3", "-c", SCRIPT, &list]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("vpclab exec");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        senders.0.push(child);
        let tell = tell.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (n, what) = line.split_once(' ').expect("NUMBER WHAT");
                tell.send((n.parse::<usize>().expect("a number"), what.to_owned())).ok();
            }
        });
    }
    let deadline = Instant::now() + PATIENCE;
    let mut seen = vec![Seen::default(); probes.len()];
    loop {
        // An answer before the drops are asked for, so that no drop of its flow is missed.
        while let Ok((n, what)) = said.recv_timeout(Duration::from_millis(50)) {
            seen[n].answer = Some(what);
        }
        for one in &mut seen {
            one.drops.clear();
        }
        let rows = lab.vpclab("drops", &["-f", "json"]).ok();
        let rows: Vec<Value> = serde_json::from_str(&rows).expect("a list of drops");
        for row in &rows {
            if let Some(n) = (0..probes.len()).find(|n| is_of(plan, row, &probes[*n])) {
                seen[n].drops.insert(dropped(row));
            }
        }
        let open = |(seen, told): (&Seen, &Foretold)| match (seen.answer.is_some(), !seen.drops.is_empty()) {
            (false, false) => true,
            (true, true) => false,
            // Some are dropped and told so.
            _ => told.answer.is_some() && told.drop.is_some(),
        };
        if !seen.iter().zip(foretold).any(open) || Instant::now() > deadline {
            return seen;
        }
    }
}

/// A drop of the probe's own packet, or of an answer to it: known by who began the flow, and from which port.
fn is_of(plan: &Plan, row: &Value, p: &Probe) -> bool {
    let own = plan.eni(plan.instances[p.by].enis[0]).ip;
    if row["back"].as_bool().expect("a truth") {
        return text(row, "began_at") == format!("{own}:{}", p.from_port);
    }
    let (src, dst) = match p.proto {
        Proto::ICMP => (own.to_string(), p.to.to_string()),
        _ => (format!("{own}:{}", p.from_port), format!("{}:{}", p.to, p.port)),
    };
    (text(row, "proto"), text(row, "src"), text(row, "dst")) == (p.proto.to_string(), src, dst)
}

fn dropped(row: &Value) -> Dropped {
    let [code, object, rule, direction, from] =
        ["code", "object", "rule", "direction", "from"].map(|key| text(row, key));
    Dropped { code, object, rule, direction, from, back: row["back"].as_bool().expect("a truth") }
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

/// Ended with their standard input.
struct Senders(Vec<Child>);

impl Drop for Senders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        for child in &mut self.0 {
            child.wait().ok();
        }
    }
}

// --- comparing

fn contradictions(plan: &Plan, probes: &[Probe], foretold: &[Foretold], seen: &[Seen]) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((probe, foretold), seen) in probes.iter().zip(foretold).zip(seen) {
        let fate = fate(plan, foretold);
        if seen.answer != fate.answer || !seen.drops.iter().eq(fate.drop.iter()) {
            wrong.push(format!("{}\n  oracle: {fate:?}\n  lab:    {seen:?}", words(plan, probe)));
        }
    }
    wrong
}

fn words(plan: &Plan, p: &Probe) -> String {
    let by = &plan.instances[p.by].common.path;
    format!("{by} from {}: {} {}:{}", p.from_port, p.proto, p.to, p.port)
}

/// `vpclab explain` in the same lab: the same code, and the rule that the drop's row names.
fn explained(lab: &Lab, plan: &Plan, probes: &[Probe], sum: &mut Sum) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut codes = BTreeSet::new();
    for (n, probe) in probes.iter().enumerate() {
        // A transit gateway chooses zones by ports as well.
        let Some(foretold) = predict(plan, &Probe { from_port: EXPLAINS_FROM, ..probe.clone() }) else { continue };
        let fate = fate(plan, &foretold);
        let new = fate.drop.as_ref().is_some_and(|d| codes.insert((d.code.clone(), d.back)));
        // It tells of the answer of who listens; an ICMP error in its place has rules of its own.
        let answers = probe.proto != Proto::UDP || probe.port == 53;
        let usual = (probe.ttl, probe.size) == (64, 60);
        let there = matches!(foretold.drop, Some((_, Leg::There)));
        let asked = (new || n % EXPLAINED == 0) && (answers || there) && usual;
        if !asked {
            continue;
        }
        sum.explained += 1;
        let to = match probe.proto {
            Proto::ICMP => format!("{}/icmp", probe.to),
            proto => format!("{}:{}/{proto}", probe.to, probe.port),
        };
        let by = &plan.instances[probe.by].common.path;
        let from_port = EXPLAINS_FROM.to_string();
        let said = lab.vpclab("explain", &["-f", "json", "--from-port", &from_port, by, &to]);
        let told: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err));
        let right = match &fate.drop {
            None => told["reachable"] == true,
            Some(d) => {
                let stage = if d.back { "back" } else { "there" };
                (text(&told, "code"), text(&told, "direction"), text(&told, "stage"))
                    == (d.code.clone(), d.direction.clone(), stage.to_owned())
                    && text(&told, "rule").starts_with(&d.rule)
                    && object_told(plan, &foretold).is_none_or(|object| text(&told, "object") == object)
            }
        };
        if !right {
            let page = lab.vpclab("explain", &["--from-port", &from_port, by, &to]).out;
            wrong.push(format!("{}\n  oracle: {fate:?}\n  explain: {page}", words(plan, probe)));
        }
    }
    wrong
}

/// What `explain` names in place of a row's object: whose network interface it is, or the object's path.
fn object_told(plan: &Plan, foretold: &Foretold) -> Option<String> {
    use engine::Decider;
    let (record, _) = foretold.drop.as_ref()?;
    let owner = |eni: EniIx| match plan.eni(eni).owner {
        EniOwner::Instance(at, _) => Some(plan.instances[at].common.path.clone()),
        EniOwner::Endpoint(at) => Some(plan.endpoints[at].common.path.clone()),
        _ => None,
    };
    match record.decider {
        Decider::Eni(eni) | Decider::SecurityGroups(eni) | Decider::EndpointEni(eni) => owner(eni),
        _ => {
            let object = rows::drop_row(plan, record, &|_| 0).object;
            Some(object.split_once(':').map_or(String::new(), |(_, path)| path.to_owned()))
        }
    }
}
