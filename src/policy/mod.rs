//! Layer 2: IAM policy documents and what they allow.
//!
//! A request through an interface endpoint passes when the caller's role policy allows it **and** the endpoint's
//! policy allows it (AWS PrivateLink Guide, "Control access to VPC endpoints using endpoint policies"). An explicit
//! deny wins, no match denies (IAM User Guide, "Policy evaluation logic"). This version judges Effect, Action,
//! Resource and the principal `*`; whatever else a document says is refused by name before a lab starts.

pub mod denial;
pub mod document;
pub mod evaluate;
mod wildcard;

pub use denial::{Layer, Refusal, authorize, denial_message};
pub use document::{Document, Effect, Kind, PolicyProblem, Statement};
pub use evaluate::{Decision, StatementReport, evaluate, explain};

use crate::model::plan::{Plan, Policy};

/// Checks every policy document of a plan. `path` of a problem begins with the object's place in the topology file:
/// `roles.web-role.policy.Statement[0].Condition`.
pub fn check(plan: &Plan) -> Vec<PolicyProblem> {
    let roles = plan.roles.iter().map(|r| (Kind::Role, format!("roles.{}.policy", r.common.name), &r.policy));
    let endpoints = plan.endpoints.iter().map(|e| {
        let vpc = &plan.vpcs[e.vpc].common.name;
        (Kind::Endpoint, format!("vpcs.{vpc}.endpoints.{}.policy", e.common.name), &e.policy)
    });
    let mut problems = Vec::new();
    for (kind, place, policy) in roles.chain(endpoints) {
        if let Policy::Document(json) = policy
            && let Err(found) = Document::parse(kind, json)
        {
            problems.extend(found.into_iter().map(|p| p.under(&place)));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{Common, RolePlan};

    #[test]
    fn problems_of_a_plan_say_whose_policy_it_is() {
        let role = |name: &str, policy| RolePlan {
            common: Common { name: name.into(), path: name.into(), ..Common::default() },
            account: "123456789012".into(),
            policy,
        };
        let bad = serde_json::json!({"Statement": {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}});
        let plan =
            Plan { roles: vec![role("ok", Policy::Full), role("bad", Policy::Document(bad))], ..Plan::default() };
        let problems = check(&plan);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "roles.bad.policy.Statement.NotAction");
        assert_eq!(problems[0].code, "MalformedPolicyDocument");
    }
}
