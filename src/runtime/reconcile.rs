//! What the host has to do so that one plan becomes another: instances to make, to make anew and to remove. Pure: two
//! plans in, steps out. What is not named here is not touched.

use std::collections::{BTreeMap, BTreeSet};

use super::node::instance_host;
use crate::base::EniIx;
use crate::host::cmd::InstanceHost;
use crate::model::plan::{EniOwner, EniPlan};
use crate::model::{Plan, Replaced, replaced};

/// Indices are of `Plan::instances`: `before` in the old plan, `after` in the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Not in the new plan.
    pub gone: Vec<usize>,
    /// Not in the old plan.
    pub made: Vec<usize>,
    /// In both, but a kernel cannot be led from one to the other.
    pub anew: Vec<Anew>,
    pub kept: Vec<Kept>,
    /// Objects of all kinds that AWS cannot change so: what stands in them is made anew with them.
    pub replaced: Vec<Replaced>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anew {
    pub before: usize,
    pub after: usize,
    /// `eth0: address 10.0.1.10 -> 10.0.1.11`.
    pub why: String,
}

/// Its namespace, and whatever runs in it, stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub before: usize,
    pub after: usize,
    /// What `exec` lays over /etc is another.
    pub files: bool,
    /// `limits.syn_retries` is another.
    pub syn_retries: bool,
}

/// What to do. Instances are the same if their path is.
pub fn steps(old: &Plan, new: &Plan) -> Steps {
    let mut steps = Steps { replaced: replaced(old, new), ..Steps::default() };
    let mut before: BTreeMap<&str, usize> =
        old.instances.iter().enumerate().map(|(at, i)| (i.common.path.as_str(), at)).collect();
    for (after, instance) in new.instances.iter().enumerate() {
        let Some(before) = before.remove(instance.common.path.as_str()) else {
            steps.made.push(after);
            continue;
        };
        let was = instance_host(old, &old.instances[before]);
        let is = instance_host(new, instance);
        let home = || instance.enis.iter().find_map(|eni| steps.home_of(new, new.eni(*eni)));
        match why_anew(&was, &is).or_else(home) {
            Some(why) => steps.anew.push(Anew { before, after, why }),
            None => steps.kept.push(Kept {
                before,
                after,
                files: was.files != is.files,
                syn_retries: was.syn_retries != is.syn_retries,
            }),
        }
    }
    steps.gone = before.into_values().collect();
    steps.gone.sort_unstable();
    steps
}

impl Steps {
    fn replaces(&self, kind: &str, path: &str) -> bool {
        self.replaced.iter().any(|r| (r.kind, r.path.as_str()) == (kind, path))
    }

    /// The subnet or VPC of an interface, where that is made anew.
    fn home_of(&self, new: &Plan, eni: &EniPlan) -> Option<String> {
        let vpc = eni.vpc().map(|at| &new.vpcs[at].common.path).filter(|path| self.replaces("VPC", path));
        let subnet = eni.subnet().map(|at| &new.subnets[at].common.path).filter(|path| self.replaces("subnet", path));
        let vpc = vpc.map(|path| format!("VPC {path} is another"));
        vpc.or_else(|| subnet.map(|path| format!("subnet {path} is another")))
    }

    /// The interface is of something that is made anew, or in it.
    fn takes(&self, new: &Plan, eni: &EniPlan) -> bool {
        let of = match eni.owner {
            EniOwner::Endpoint(at) | EniOwner::GatewayEndpoint(at) => ("endpoint", &new.endpoints[at].common.path),
            EniOwner::NatGateway(at) => ("NAT gateway", &new.nat_gateways[at].common.path),
            EniOwner::TgwAttachment(at) => ("transit gateway attachment", &new.tgw_attachments[at].common.path),
            EniOwner::Instance(..) | EniOwner::PublicSide => return self.home_of(new, eni).is_some(),
        };
        self.replaces(of.0, of.1) || self.home_of(new, eni).is_some()
    }

    /// ENIs of the new plan behind which another kernel will be, and those of endpoints that moved: nothing of a
    /// connection is carried over to them.
    pub fn fresh(&self, old: &Plan, new: &Plan) -> BTreeSet<EniIx> {
        let anew = self.anew.iter().map(|a| a.after).chain(self.made.iter().copied());
        let mut fresh: BTreeSet<EniIx> = anew.flat_map(|at| new.instances[at].enis.iter().copied()).collect();
        let before: BTreeMap<&str, _> = old.enis.iter().map(|e| (e.common.id.as_str(), e.ip)).collect();
        for (at, eni) in new.enis.iter().enumerate() {
            if before.get(eni.common.id.as_str()).is_some_and(|ip| *ip != eni.ip || self.takes(new, eni)) {
                fresh.insert(EniIx(at as u32));
            }
        }
        fresh
    }
}

/// Why the namespace cannot stay; `None`: it can.
fn why_anew(was: &InstanceHost, is: &InstanceHost) -> Option<String> {
    if was.enis.len() != is.enis.len() {
        return Some(format!("network interfaces {} -> {}", was.enis.len(), is.enis.len()));
    }
    for (a, b) in was.enis.iter().zip(&is.enis) {
        let changed = [
            ("address", a.ip.to_string(), b.ip.to_string()),
            ("subnet", format!("{}/{}", a.gateway, a.prefix_len), format!("{}/{}", b.gateway, b.prefix_len)),
            ("MTU", a.mtu.to_string(), b.mtu.to_string()),
            ("id", a.eni.clone(), b.eni.clone()),
        ];
        if let Some((what, before, after)) = changed.into_iter().find(|(_, before, after)| before != after) {
            return Some(format!("{}: {what} {before} -> {after}", b.name));
        }
    }
    // Whatever else the host knows of an instance, now or later, holds from its making.
    let rest = |of: &InstanceHost| InstanceHost { files: is.files.clone(), syn_retries: is.syn_retries, ..of.clone() };
    (rest(was) != rest(is)).then(|| "its kernel is set up otherwise".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::plan_of;

    const BASE: &str = "version: 1
name: t
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: b } }
    security_groups: { g: { ingress: [tcp 80 from 0.0.0.0/0] } }
    instances:
      one: { subnet: a, ip: 10.0.1.10, security_groups: [g] }
      two: { subnet: b, ip: 10.0.2.10 }
      three: { subnet: b, ip: 10.0.2.30, listen: [ { tcp: 80, reply: hello } ] }
    endpoints: { sqs: { subnets: { a: 10.0.1.99 } } }
";

    fn plan(patch: &str) -> Plan {
        plan_of(&[BASE, patch])
    }

    fn names(plan: &Plan, at: impl IntoIterator<Item = usize>) -> Vec<&str> {
        at.into_iter().map(|at| plan.instances[at].common.name.as_str()).collect()
    }

    #[test]
    fn rules_routes_roles_and_names_touch_nothing_on_the_host() {
        let old = plan("");
        let new = plan(
            "vpcs: { app: { security_groups: { g: { ingress: [] } }, route_tables: { main: { main: true, routes: [ { to: 10.9.0.0/16, via: blackhole } ] } },
               instances: { one: { role: r, env: { A: b }, listen: [ { tcp: 81, reply: echo } ] } }, endpoints: { sqs: null, sts: { subnets: [b] } } } }
roles: { r: { policy: full } }",
        );
        let steps = steps(&old, &new);
        assert_eq!((&steps.gone[..], &steps.made[..], &steps.anew[..]), (&[][..], &[][..], &[][..]));
        assert!(steps.kept.len() == 3 && steps.kept.iter().all(|k| !k.files && !k.syn_retries), "{steps:?}");
        assert!(steps.fresh(&old, &new).is_empty());
    }

    #[test]
    fn instances_come_and_go_and_indices_move() {
        let old = plan("");
        let new = plan("vpcs: { app: { instances: { one: null, four: { subnet: a, ip: 10.0.1.40 } } } }");
        let steps = steps(&old, &new);
        assert_eq!(names(&old, steps.gone.clone()), ["one"]);
        assert_eq!(names(&new, steps.made.clone()), ["four"]);
        assert_eq!(names(&old, steps.kept.iter().map(|k| k.before)), ["two", "three"]);
        assert_eq!(names(&new, steps.kept.iter().map(|k| k.after)), ["two", "three"]);
        let fresh = steps.fresh(&old, &new);
        assert!(fresh.len() == 1 && new.eni(*fresh.first().expect("one")).ip.to_string() == "10.0.1.40", "{fresh:?}");
    }

    #[test]
    fn an_address_a_block_or_an_mtu_makes_a_machine_anew_and_says_why() {
        let old = plan("");
        for (patch, who, why, fresh) in [
            (
                "vpcs: { app: { instances: { one: { ip: 10.0.1.11 } } } }",
                "one",
                "eth0: address 10.0.1.10 -> 10.0.1.11",
                1,
            ),
            ("vpcs: { app: { instances: { two: { mtu: 1500 } } } }", "two", "eth0: MTU 9001 -> 1500", 1),
            (
                "vpcs: { app: { subnets: { a: { cidr: 10.0.1.0/25 } } } }",
                "one",
                "eth0: subnet 10.0.1.1/24 -> 10.0.1.1/25",
                // With the endpoint's interface in that subnet.
                2,
            ),
        ] {
            let new = plan(patch);
            let steps = steps(&old, &new);
            assert_eq!(names(&new, steps.anew.iter().map(|a| a.after)), [who], "{patch}");
            assert_eq!(steps.anew[0].why, why);
            assert_eq!((steps.kept.len(), steps.gone.len(), steps.made.len()), (2, 0, 0));
            assert_eq!(steps.fresh(&old, &new).len(), fresh);
        }
    }

    /// AWS has no call for any of these: nothing of what stood there stays.
    #[test]
    fn what_stands_in_another_vpc_or_subnet_is_made_anew_too() {
        let old = plan("");
        let region = plan("region: us-east-1");
        let all = steps(&old, &region);
        assert_eq!(names(&region, all.anew.iter().map(|a| a.after)), ["one", "two", "three"]);
        assert!(all.anew.iter().all(|a| a.why == "VPC app is another"), "{all:?}");
        assert_eq!(all.fresh(&old, &region).len(), 4, "with the endpoint's");
        let zone = plan("vpcs: { app: { subnets: { b: { az: c } } } }");
        let some = steps(&old, &zone);
        assert_eq!(names(&zone, some.anew.iter().map(|a| a.after)), ["two", "three"]);
        assert_eq!(some.anew[0].why, "subnet app.b is another");
        assert_eq!(some.fresh(&old, &zone).len(), 2);
        let service = plan("vpcs: { app: { endpoints: { sqs: { service: sns } } } }");
        let door = steps(&old, &service);
        assert_eq!((door.anew.len(), door.fresh(&old, &service).len()), (0, 1));
    }

    #[test]
    fn an_endpoint_that_moves_is_another_and_retries_change_in_place() {
        let old = plan("");
        let new =
            plan("vpcs: { app: { endpoints: { sqs: { subnets: { a: 10.0.1.98 } } } } }\nlimits: { syn_retries: 1 }");
        let steps = steps(&old, &new);
        assert!(steps.kept.len() == 3 && steps.kept.iter().all(|k| k.syn_retries && !k.files), "{steps:?}");
        let fresh: Vec<String> = steps.fresh(&old, &new).iter().map(|ix| new.eni_label(*ix)).collect();
        assert_eq!(fresh, ["sqs@a"]);
    }
}
