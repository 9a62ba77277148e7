//! The engine against the oracle, on random plans, packets, times and changes of the plan.
//!
//! `PROPTEST_CASES` says how many plans (each meets some eighty packets), `VPCLAB_SEED` repeats a run; a failure prints
//! the seed and the smallest case that was found.

mod gates;
mod mutations;
mod packets;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::packets::{Shape, after, arrived, frame, packet};
use self::world::{Rules, World, build};
use super::*;
use crate::engine::Stage;
use crate::engine::event::Way;
use crate::engine::oracle::{Expected, Oracle, Sent, TOKENS};
use crate::engine::shape::Shape as Link;
use crate::engine::verdict::{Reaction, Via};
use crate::model::plan::EniOwner;

#[derive(Clone, Debug)]
enum Act {
    /// Sender, destination, packet.
    Send(Index, Index, Shape),
    /// Something after an earlier packet, by who sent or got it: see [`after`].
    Then(Index, usize),
    /// The plan becomes another; ENIs stay.
    Publish(Box<Rules>),
    Wait(Duration),
}

fn act() -> impl Strategy<Value = Act> {
    // Around every time after which somebody forgets, and after all of them.
    let wait = prop_oneof![
        2 => prop::sample::select(vec![1, 3, 9, 11, 29, 31, 59, 61, 100, 179, 181, 349, 351, 400]),
        1 => Just(6 * 86_400),
    ];
    prop_oneof![
        40 => (any::<Index>(), any::<Index>(), packets::shape()).prop_map(|(a, b, c)| Act::Send(a, b, c)),
        50 => (any::<Index>(), 0..packets::SEQUELS).prop_map(|(a, b)| Act::Then(a, b)),
        2 => world::rules().prop_map(|rules| Act::Publish(Box::new(rules))),
        2 => wait.prop_map(|secs| Act::Wait(Duration::from_secs(secs))),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    world: World,
    rules: Rules,
    acts: Vec<Act>,
}

fn case() -> impl Strategy<Value = Case> {
    (world::world(), world::rules(), prop::collection::vec(act(), 20..140)).prop_map(|(world, rules, acts)| Case {
        world,
        rules,
        acts,
    })
}

/// What was seen in a run, so that a comparison of nothing is no success.
#[derive(Default)]
struct Seen {
    packets: u64,
    verdicts: BTreeMap<String, u64>,
    stages: BTreeMap<String, u64>,
    ways: BTreeMap<&'static str, u64>,
    /// Answers to drops, and what became of them.
    told: BTreeMap<String, u64>,
}

impl Seen {
    fn told(&mut self, reaction: Reaction, verdict: Verdict) {
        let what = match reaction {
            Reaction::FragNeeded { .. } => "frag-needed",
            Reaction::TimeExceeded { .. } => "time-exceeded",
            Reaction::Reset => "reset",
            Reaction::HostUnreachable { .. } => "host-unreachable",
        };
        let end = verdict.dropped().map_or("told", DropCode::as_str);
        *self.told.entry(format!("{what} {end}")).or_default() += 1;
    }

    fn note(&mut self, expected: &Expected) {
        self.packets += 1;
        let name = match expected.verdict {
            Verdict::Deliver { .. } => "deliver",
            Verdict::Endpoint { .. } => "endpoint",
            Verdict::Resolver { .. } => "resolver",
            Verdict::Imds { .. } => "imds",
            Verdict::Shaped { .. } => "shaped",
            Verdict::Drop { code } | Verdict::Reject { code, .. } => code.as_str(),
        };
        *self.verdicts.entry(name.into()).or_default() += 1;
        for crumb in &expected.crumbs {
            let stage = format!("{:?}", crumb.stage);
            *self.stages.entry(stage.split(' ').next().unwrap_or_default().into()).or_default() += 1;
        }
        if expected.arrives.is_some() {
            *self.ways.entry(expected.way.as_str()).or_default() += 1;
        }
    }
}

impl Seen {
    /// A long run has seen everything that is not rare.
    fn complete(&self) {
        if self.packets >= 100_000 {
            let missing: Vec<_> = OFTEN.iter().filter(|name| !self.verdicts.contains_key(**name)).collect();
            assert!(missing.is_empty(), "never seen: {missing:?}");
            assert_eq!(self.ways.len(), 4, "ways: {:?}", self.ways);
            let missing: Vec<_> = TOLD.iter().filter(|what| !self.told.contains_key(**what)).collect();
            assert!(missing.is_empty(), "never told: {missing:?} of {:?}", self.told);
        }
    }
}

/// What a run of 100,000 packets sees many times.
const OFTEN: [&str; 46] = [
    "AZ_DOWN",
    "BROADCAST",
    "CT_IDLE",
    "CT_NO_STATE",
    "DNS_NOT_LOCAL",
    "GWE_PROTO",
    "IGW_NO_PUBLIC_IP",
    "IGW_PRIVATE_DST",
    "INSTANCE_DOWN",
    "LINK_IMPAIRED",
    "MTU_DROP_SILENT",
    "MTU_FRAG_NEEDED",
    "MULTICAST",
    "NACL_IN",
    "NACL_OUT",
    "NAT_FRAGMENT",
    "NAT_NO_IGW",
    "NAT_NO_STATE",
    "NAT_PROTO",
    "NO_ENI",
    "NO_HOST",
    "PUBLIC_PORT",
    "ROUTER_ADDR",
    "ROUTE_LOOP",
    "RT_BLACKHOLE",
    "RT_NO_ROUTE",
    "SG_EGRESS",
    "SG_INGRESS",
    "SITE_NO_ROUTE",
    "SRC_DST_CHECK",
    "TGW_BLACKHOLE",
    "TGW_NO_ASSOCIATION",
    "TGW_NO_AZ",
    "TGW_NO_ROUTE",
    "TTL_EXPIRED",
    "VGW_NO_ROUTE",
    "VGW_TRANSIT",
    "VPCE_AZ_DOWN",
    "VPCE_IDLE",
    "VPCE_NO_STATE",
    "VPCE_PORT",
    "VPCE_PROTO",
    "deliver",
    "endpoint",
    "imds",
    "resolver",
];

const TOLD: [&str; 3] = ["frag-needed told", "reset told", "time-exceeded told"];

/// Runs both and compares each packet.
struct Pair {
    lab: Lab,
    engine: Engine,
    tracer: Engine,
    oracle: Oracle,
    now: Instant,
    disabled: Disabled,
}

/// What the engine's plan lacks, and the oracle's has: see [`mutations`].
#[derive(Clone, Copy)]
struct Disabled(Option<fn(&mut model::Plan)>);

impl Disabled {
    fn of(self, lab: &Lab) -> Lab {
        let mut lab = lab.clone();
        if let Some(mutate) = self.0 {
            mutate(&mut lab.plan);
        }
        lab
    }
}

impl Pair {
    fn new(lab: Lab, disabled: Disabled) -> Pair {
        let given = disabled.of(&lab);
        let (engine, tracer) = (engine(&given), engine(&given));
        Pair { lab, engine, tracer, oracle: Oracle::default(), now: T0, disabled }
    }

    fn publish(&mut self, lab: Lab) {
        self.lab = lab;
        let program = Arc::new(compile(&self.disabled.of(&self.lab).plan, self.engine.program().generation() + 1));
        self.engine.publish(self.now, program.clone());
        self.tracer.publish(self.now, program);
    }

    /// Who gets it, and as what.
    fn send(&mut self, from: EniIx, p: &Sent) -> Result<(Expected, Option<(EniIx, Sent)>), TestCaseError> {
        let plan = &self.lab.plan;
        let bytes = frame(p);
        let (mut live, mut traced) = (bytes.clone(), bytes);
        let instance = matches!(plan.eni(from).owner, EniOwner::Instance(..));
        let (verdict, (again, crumbs)) = if instance {
            (self.engine.handle(self.now, from, &mut live), self.tracer.trace(self.now, from, &mut traced))
        } else {
            (
                self.engine.handle_from_endpoint(self.now, from, &mut live),
                self.tracer.trace_from_endpoint(self.now, from, &mut traced),
            )
        };
        let expected = self.oracle.ask(plan, self.now, from, p, &crumbs);
        let label = plan.eni_label(from);
        prop_assert_eq!(&crumbs, &expected.crumbs, "steps of {:?} from {}", p, label);
        let (plain, via) = plain(plan, verdict);
        prop_assert_eq!(plain, expected.verdict, "{:?} from {}", p, label);
        prop_assert_eq!(again, verdict, "traced {:?} from {}", p, label);
        prop_assert_eq!(via.fragment, expected.fragment, "fragments of {:?} from {}: {:?}", p, label, crumbs);
        let late = expected.arrives.map_or(Duration::ZERO, |_| expected.latency);
        let micros = Duration::from_micros(via.latency_us.into());
        prop_assert_eq!(micros, late, "delay of {:?} from {}: {:?}", p, label, crumbs);
        if let Some(why) = expected.why {
            let named = self.engine.drops().any(|r| r.last == self.now && (r.code, r.decider, r.direction) == why);
            prop_assert!(named, "{why:?} for {p:?} from {label}: {:?}", last_drop(&self.engine));
        }
        let Some(arrives) = expected.arrives else { return Ok((expected, None)) };
        prop_assert_eq!(&live, &traced, "{:?} from {}", p, label);
        prop_assert!(crate::wire::verify_checksums(&live), "checksums of {p:?} from {label}");
        let got = arrived(&live, p);
        let learned = learn(&mut self.oracle, &arrives, &got, p)?;
        prop_assert_eq!(got, learned, "what arrives of {:?} from {}: {:?}", p, label, crumbs);
        if p.quote.is_none() && p.fragment.is_none() {
            self.compare_way(from, p, expected.way)?;
        }
        let to = match expected.verdict {
            Verdict::Deliver { to } | Verdict::Endpoint { eni: to } => to,
            _ => return Ok((expected, None)),
        };
        let link = |ix: EniIx, impair| Link::new(&impair, &plan.eni(ix).common.id);
        let [out, into] = expected.impaired;
        let impaired = [out.map(|impair| link(from, impair)), into.map(|impair| link(to, impair)), None];
        let shapes = self.engine.program().shapes();
        let seen = via.shapes.map(|at| usize::from(at).checked_sub(1).map(|at| shapes[at]));
        prop_assert_eq!(seen, impaired, "links of {:?} from {}", p, label);
        Ok((expected, Some((to, got))))
    }

    /// A drop is answered: what becomes of the answer, if there is one to such a packet.
    fn react(&mut self, to: EniIx, p: &Sent, reaction: Reaction) -> Result<Option<Verdict>, TestCaseError> {
        let bytes = frame(p);
        let made = match reaction {
            Reaction::FragNeeded { from, mtu, .. } => make::icmp_error(from, 3, 4, mtu.into(), &bytes),
            Reaction::TimeExceeded { from } => make::icmp_error(from, 11, 0, 0, &bytes),
            Reaction::Reset => make::rst_for(&bytes),
            // Of its own kernel: nothing is asked.
            Reaction::HostUnreachable { .. } => None,
        };
        let Some(made) = made else { return Ok(None) };
        let (plan, now) = (&self.lab.plan, self.now);
        let label = plan.eni_label(to);
        let verdict = self.engine.handle_reaction(now, to, &made);
        let (again, crumbs) = self.tracer.trace_reaction(now, to, &made);
        let told = arrived(&made, p);
        let (expected, why, steps) = self.oracle.react(plan, now, to, p, &told);
        prop_assert_eq!(crumbs, steps, "steps of {:?} about {:?} of {}", reaction, p, label);
        prop_assert_eq!((verdict, again), (expected, expected), "{:?} about {:?} of {}", reaction, p, label);
        if let Some(why) = why {
            let named = self.engine.drops().any(|r| r.last == now && (r.code, r.decider, r.direction) == why);
            prop_assert!(named, "{why:?} for {reaction:?} about {p:?} of {label}: {:?}", last_drop(&self.engine));
        }
        Ok(Some(verdict))
    }

    /// A flow that has just begun is marked with its way.
    fn compare_way(&self, from: EniIx, p: &Sent, way: Way) -> Result<(), TestCaseError> {
        let new = |flow: &crate::engine::FlowSnapshot| {
            let t = &flow.tuple;
            flow.started.as_millis() == self.now.as_millis()
                && flow.initiator == from
                && (t.proto, t.src, t.dst) == (p.proto, p.src, p.dst)
                && (u32::from(t.src_port), u32::from(t.dst_port)) == (p.src_port, p.dst_port)
        };
        if let Some(flow) = self.engine.flows().find(new) {
            prop_assert_eq!(flow.way, way, "way of {:?}", flow);
        }
        Ok(())
    }
}

/// Of one packet that nothing went before.
#[track_caller]
pub(super) fn agree(lab: &Lab, from: EniIx, p: &Sent) {
    if let Err(why) = Pair::new(lab.clone(), Disabled(None)).send(from, p) {
        panic!("engine and oracle differ: {why}");
    }
}

/// Without what is left to do, and that.
fn plain(plan: &model::Plan, verdict: Verdict) -> (Verdict, Via) {
    let Verdict::Shaped { to, via } = verdict else { return (verdict, Via::default()) };
    let ends = !matches!(plan.eni(to).owner, EniOwner::Instance(..));
    (if ends { Verdict::Endpoint { eni: to } } else { Verdict::Deliver { to } }, via)
}

/// What should arrive, with the ports that the engine's NAT gateways chose.
fn learn(oracle: &mut Oracle, arrives: &Sent, got: &Sent, p: &Sent) -> Result<Sent, TestCaseError> {
    let mut whole = *arrives;
    if p.fragment.is_some_and(|part| !part.first) {
        // A later fragment has no ports, no flags, no type.
        whole.icmp = None;
        (whole.src_port, whole.dst_port, whole.flags, whole.mss) = (0, 0, 0, None);
        return Ok(whole);
    }
    let tokens = match (&mut whole.quote, got.quote) {
        (Some(quote), Some(seen)) => {
            vec![(&mut quote.src_port, seen.src_port), (&mut quote.dst_port, seen.dst_port)]
        }
        _ => vec![(&mut whole.src_port, got.src_port), (&mut whole.dst_port, got.dst_port)],
    };
    for (token, port) in tokens {
        if *token >= TOKENS {
            prop_assert!((1_024..TOKENS).contains(&port), "a NAT gateway's port {port}");
            oracle.learn(*token, port as u16);
            *token = port;
        }
    }
    Ok(whole)
}

fn run(
    case: &Case,
    seen: &RefCell<Seen>,
    disabled: Disabled,
    mut log: Option<&mut Vec<String>>,
) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(build(&case.world, &case.rules), disabled);
    let destinations = world::destinations();
    // Who, and a packet that it sent or got.
    let mut known: Vec<(EniIx, Sent, bool)> = Vec::new();
    // ICMP errors are about packets of the plan in force.
    let mut fresh = 0;
    for act in &case.acts {
        pair.now = pair.now + Duration::from_micros(1_000);
        let (from, p) = match act {
            Act::Publish(rules) => {
                if let Some(log) = &mut log {
                    log.push("publish".into());
                }
                pair.publish(build(&case.world, rules));
                fresh = known.len();
                continue;
            }
            Act::Wait(time) => {
                pair.now = pair.now + *time;
                continue;
            }
            Act::Then(which, what) => {
                let at = which.index(known.len().max(1));
                let Some(&(who, p, got)) = known.get(at) else { continue };
                let hairpin = pair.lab.plan.public_addresses.iter().any(|public| public.addr == p.src);
                if *what == packets::ERROR && (at < fresh || hairpin) {
                    continue;
                }
                let own = got && p.dst == pair.lab.plan.eni(who).ip;
                let Some(next) = after(&p, got, own, *what) else { continue };
                (who, next)
            }
            Act::Send(from, to, shape) => {
                let instances = &pair.lab.plan.instances;
                let from = instances[from.index(instances.len())].enis[0];
                (from, packet(pair.lab.plan.eni(from).ip, ip(destinations[to.index(destinations.len())]), shape))
            }
        };
        if let Some(log) = &mut log {
            log.push(format!("{:?} {} {p:?}", pair.now, pair.lab.plan.eni_label(from)));
        }
        let (expected, got) = pair.send(from, &p)?;
        if let Some(log) = &mut log {
            log.push(format!("    {:?} {:?}", expected.verdict, expected.arrives));
        }
        seen.borrow_mut().note(&expected);
        if let Verdict::Reject { reaction, .. } = expected.verdict
            && let Some(told) = pair.react(from, &p, reaction)?
        {
            seen.borrow_mut().told(reaction, told);
        }
        if let Some((to, got)) = got {
            known.push((from, p, false));
            known.push((to, got, true));
        }
        if known.len() > 24 {
            known.drain(..8);
            fresh = fresh.saturating_sub(8);
        }
    }
    Ok(())
}

fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Another one each time, unless it is asked for.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    match std::env::var("VPCLAB_SEED") {
        Ok(text) => u64::from_str_radix(&text, 16).expect("VPCLAB_SEED is a hexadecimal number"),
        Err(_) => std::hash::RandomState::new().build_hasher().finish(),
    }
}

fn runner(cases: u32, seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn engine_and_oracle_agree_on_every_verdict_rule_and_step() {
    let seed = seed();
    let seen = RefCell::new(Seen::default());
    // Some 54 packets each: more than 100,000.
    let cases = cases(2_000);
    let result = runner(cases, seed).run(&case(), |case| run(&case, &seen, Disabled(None), None));
    let seen = seen.into_inner();
    println!(
        "{} packets, seed {seed:016x}\n{:?}\n{:?}\n{:?}\n{:?}",
        seen.packets, seen.verdicts, seen.stages, seen.ways, seen.told
    );
    match result {
        Ok(()) => seen.complete(),
        Err(TestError::Fail(why, case)) => {
            let mut log = Vec::new();
            let _ = run(&case, &RefCell::default(), Disabled(None), Some(&mut log));
            panic!("seed {seed:016x}: {why}\n{}\n{:?}\n{:?}", log.join("\n"), case.world, case.rules);
        }
        Err(TestError::Abort(why)) => panic!("seed {seed:016x}: {why}"),
    }
}
