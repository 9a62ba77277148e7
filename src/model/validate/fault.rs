//! `faults:` of the file; what they mean is `model::fault`'s, which the command line uses too.

use crate::model::Plan;
use crate::model::fault;
use crate::model::plan::{Fault, FaultPlan, Impair};
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::node::Node;

pub fn read(cx: &Cx<'_>, list: &[Node], plan: &Plan) -> Vec<FaultPlan> {
    let mut faults = Vec::new();
    for node in list {
        let place = node.entries().first().map_or(node.place, |e| e.key_place);
        let Some(f) = Fields::open_node(cx, &keys::FAULT, "fault".into(), node, place) else { continue };
        let word = |key: &str| f.text(key).map(|t| t.value);
        let (az, endpoint) = (word("az"), word("endpoint"));
        let others = ["tunnel", "target", "instance", "link"].map(|key| word(key).map(|value| (key, value)));
        let seed = f.int("seed").map(|n| n.value as u64);
        let impair = Impair { seed, ..super::instance::impair_keys(&f) };
        let others: Vec<(&str, &str)> = others.into_iter().flatten().collect();
        let what = match (endpoint, az, &others[..]) {
            (Some(endpoint), az, []) => fault::endpoint(plan, endpoint, az),
            (None, Some(az), []) => fault::zone(plan, az),
            (None, None, [("tunnel", name)]) => fault::tunnel(plan, name),
            (None, None, [("target" | "instance", name)]) => fault::instance(plan, name),
            (None, None, [("link", name)]) => fault::link(plan, name, impair),
            _ => {
                Err("a fault is one of `az`, `endpoint` (with `az`), `tunnel`, `target`, `instance` and `link`".into())
            }
        };
        let (after, lasts) = (f.duration("after").map(|t| t.value), f.duration("for").map(|t| t.value));
        match what {
            Ok(fault) => {
                if impair != Impair::default() && !matches!(fault.what, Fault::Link { .. }) {
                    cx.error(f.error(place, "delay, jitter, loss, rate and down are for `link`"));
                }
                faults.push(FaultPlan { after, lasts, ..fault });
            }
            Err(message) => cx.error(f.error(place, message)),
        }
        f.done();
    }
    faults
}
