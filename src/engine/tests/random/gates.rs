//! The four gates between two ENIs are independent: sender's group, sender's subnet, receiver's subnet, receiver's group.
//! Taking any one allow away never lets anything through that was stopped, and without its allows each gate stops what
//! passed, in its own name. Asked of the oracle and of the engine.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestError};

use super::packets::{self, after, frame, packet};
use super::world::{self, Rules, World, build};
use super::*;
use crate::model::Plan;

/// Where an allow stands: group or network ACL, whether it is of ingress, and which rule.
#[derive(Clone, Copy, Debug)]
enum Allow {
    Group(usize, bool, usize),
    Acl(usize, bool, usize),
}

fn allows(plan: &Plan) -> Vec<Allow> {
    let mut all = Vec::new();
    for (g, group) in plan.security_groups.iter().enumerate() {
        all.extend((0..group.ingress.len()).map(|i| Allow::Group(g, true, i)));
        all.extend((0..group.egress.len()).map(|i| Allow::Group(g, false, i)));
    }
    for (a, acl) in plan.network_acls.iter().enumerate() {
        let of = |rules: &[crate::model::plan::NaclRule], ingress: bool| -> Vec<Allow> {
            let allowing = rules.iter().enumerate().filter(|(_, rule)| rule.allow);
            allowing.map(|(i, _)| Allow::Acl(a, ingress, i)).collect()
        };
        all.extend(of(&acl.ingress, true));
        all.extend(of(&acl.egress, false));
    }
    all
}

fn without(plan: &Plan, allow: Allow) -> Plan {
    let mut plan = plan.clone();
    match allow {
        Allow::Group(g, true, i) => drop(plan.security_groups[g].ingress.remove(i)),
        Allow::Group(g, false, i) => drop(plan.security_groups[g].egress.remove(i)),
        Allow::Acl(a, true, i) => drop(plan.network_acls[a].ingress.remove(i)),
        Allow::Acl(a, false, i) => drop(plan.network_acls[a].egress.remove(i)),
    }
    plan
}

/// What becomes of a packet and of its answer in a plan without flows: by the oracle, then by the engine.
fn outcomes(plan: &Plan, from: EniIx, p: &Sent) -> [Vec<(Verdict, Vec<crate::engine::Crumb>)>; 2] {
    let lab = Lab { plan: plan.clone() };
    let mut engine = engine(&lab);
    let mut oracle = Oracle::default();
    let mut said = [Vec::new(), Vec::new()];
    let (mut from, mut p) = (from, *p);
    for turn in 0..2 {
        let mut bytes = frame(&p);
        let instance = matches!(plan.eni(from).owner, EniOwner::Instance(..));
        let (verdict, crumbs) = if instance {
            engine.trace(T0, from, &mut bytes)
        } else {
            engine.trace_from_endpoint(T0, from, &mut bytes)
        };
        let expected = oracle.ask(plan, T0, from, &p, &crumbs);
        said[1].push((plain(plan, verdict).0, crumbs));
        said[0].push((expected.verdict, expected.crumbs));
        let (Verdict::Deliver { to } | Verdict::Endpoint { eni: to }, Some(_)) = (expected.verdict, expected.arrives)
        else {
            break;
        };
        if verdict.dropped().is_some() || turn == 1 {
            break;
        }
        let got = packets::arrived(&bytes, &p);
        if let Some(arrives) = expected.arrives {
            let _ = learn(&mut oracle, &arrives, &got, &p);
        }
        let Some(reply) = after(&got, true, true, 0) else { break };
        (from, p) = (to, reply);
    }
    said
}

fn passed(outcome: Option<&(Verdict, Vec<crate::engine::Crumb>)>) -> bool {
    outcome.is_some_and(|(verdict, _)| verdict.dropped().is_none())
}

#[derive(Clone, Debug)]
struct Probe {
    world: World,
    rules: Rules,
    /// Sender, destination, packet, and the allow that is taken away.
    packets: Vec<(Index, Index, packets::Shape, Index)>,
}

fn probe() -> impl Strategy<Value = Probe> {
    let one = (any::<Index>(), any::<Index>(), packets::shape(), any::<Index>());
    (world::world(), world::rules(), prop::collection::vec(one, 1..12)).prop_map(|(world, rules, packets)| Probe {
        world,
        rules,
        packets,
    })
}

fn check(probe: &Probe, count: &RefCell<[u64; 3]>) -> Result<(), TestCaseError> {
    let lab = build(&probe.world, &probe.rules);
    let plan = &lab.plan;
    let destinations = world::destinations();
    let allows = allows(plan);
    for (from, to, shape, taken) in &probe.packets {
        let from = plan.instances[from.index(plan.instances.len())].enis[0];
        let p = packet(plan.eni(from).ip, ip(destinations[to.index(destinations.len())]), shape);
        let wide = outcomes(plan, from, &p);
        let taken = allows[taken.index(allows.len())];
        let narrow = outcomes(&without(plan, taken), from, &p);
        for (who, (wide, narrow)) in ["oracle", "engine"].iter().zip(wide.iter().zip(&narrow)) {
            for turn in 0..2 {
                let widened = passed(narrow.get(turn)) && !passed(wide.get(turn));
                prop_assert!(!widened, "{who}: without {taken:?} {p:?} passes (turn {turn}): {narrow:?}, not {wide:?}");
            }
        }
        let mut count = count.borrow_mut();
        count[0] += 1;
        count[1] += u64::from(passed(wide[0].first()) && !passed(narrow[0].first()));
        count[2] += closed(plan, from, &p, &wide[0])?;
    }
    Ok(())
}

/// Each of the gates that a packet has passed stops it alone, once nothing is allowed there. How many were tried.
fn closed(
    plan: &Plan,
    from: EniIx,
    p: &Sent,
    wide: &[(Verdict, Vec<crate::engine::Crumb>)],
) -> Result<u64, TestCaseError> {
    let Some((Verdict::Deliver { .. }, crumbs)) = wide.first() else { return Ok(0) };
    let mut tried = 0;
    for crumb in crumbs.iter().filter(|c| matches!(c.outcome, crate::engine::Outcome::Pass(_))) {
        let mut shut = plan.clone();
        let code = match (&crumb.stage, crumb.eni) {
            (Stage::SgEgress, Some(eni)) => {
                for group in plan.eni(eni).security_groups.iter() {
                    shut.security_groups[*group].egress.clear();
                }
                DropCode::SgEgress
            }
            (Stage::SgIngress, Some(eni)) => {
                for group in plan.eni(eni).security_groups.iter() {
                    shut.security_groups[*group].ingress.clear();
                }
                DropCode::SgIngress
            }
            (Stage::NaclOut { nacl }, _) => {
                shut.network_acls[*nacl].egress.clear();
                DropCode::NaclOut
            }
            (Stage::NaclIn { nacl }, _) => {
                shut.network_acls[*nacl].ingress.clear();
                DropCode::NaclIn
            }
            _ => continue,
        };
        tried += 1;
        for (who, said) in ["oracle", "engine"].iter().zip(outcomes(&shut, from, p)) {
            let (verdict, crumbs) = said.first().expect("one packet was sent");
            // A packet that looks like an answer is told that it answers nothing.
            let stray = matches!(code, DropCode::SgEgress | DropCode::SgIngress)
                && verdict.dropped() == Some(DropCode::CtNoState);
            prop_assert!(
                stray || verdict.dropped() == Some(code),
                "{who}: {crumb:?} shut, and {p:?} from {from:?}: {verdict:?}, {crumbs:?}"
            );
        }
    }
    Ok(tried)
}

#[test]
fn no_gate_opens_by_taking_an_allow_away_and_each_stops_alone() {
    let seed = seed();
    let count = RefCell::new([0; 3]);
    let result = runner(cases(400), seed).run(&probe(), |probe| check(&probe, &count));
    let [packets, lost, shut] = count.into_inner();
    println!("{packets} packets, {lost} stopped for want of one allow, {shut} gates shut, seed {seed:016x}");
    match result {
        Ok(()) => assert!(packets < 1_000 || lost > 5 && shut > 500, "hardly anything was tried"),
        Err(TestError::Fail(why, probe)) => panic!("seed {seed:016x}: {why}\n{:?}\n{:?}", probe.world, probe.rules),
        Err(TestError::Abort(why)) => panic!("seed {seed:016x}: {why}"),
    }
}
