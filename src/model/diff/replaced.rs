//! What AWS has no call to change: an object with another such value is another object, made anew in place of the first.

use std::collections::BTreeSet;

use super::{Sign, diff};
use crate::model::Plan;

/// An object that is in both plans by its name, and cannot be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub kind: &'static str,
    pub path: String,
    /// `cidr: 10.0.1.0/24 -> 10.0.1.0/25`.
    pub why: String,
}

/// How much of an attribute is fixed.
#[derive(Clone, Copy)]
enum Fixed {
    All,
    /// Of a list the first: later ones come and go.
    First,
}

/// Kind and attribute as [`diff`] names them, and what the EC2 API has for the kind instead (EC2 API Reference).
/// Addresses of instances are fixed too (`AssignPrivateIpAddresses` gives secondary ones only); those are looked at
/// where kernels are, because more than the plan's text makes an instance anew.
const FIXED: [(&str, &str, Fixed); 18] = [
    // AssociateVpcCidrBlock adds secondary blocks; the primary one stays with the VPC.
    ("VPC", "cidr", Fixed::First),
    ("VPC", "region", Fixed::All),
    ("VPC", "account", Fixed::All),
    // ModifySubnetAttribute has neither.
    ("subnet", "cidr", Fixed::All),
    ("subnet", "az", Fixed::All),
    // AssociateNatGatewayAddress adds and removes secondary addresses only.
    ("NAT gateway", "subnet", Fixed::All),
    ("NAT gateway", "public", Fixed::All),
    ("NAT gateway", "addresses", Fixed::First),
    // AllocateAddress gives one, and AssociateAddress only says whose it is.
    ("public address", "address", Fixed::All),
    // ModifyVpcEndpoint changes subnets, groups, tables, names and the policy.
    ("endpoint", "type", Fixed::All),
    ("endpoint", "service", Fixed::All),
    // ModifyVpcPeeringConnectionOptions has the DNS options.
    ("peering", "requester", Fixed::All),
    ("peering", "accepter", Fixed::All),
    ("transit gateway", "region", Fixed::All),
    ("transit gateway", "account", Fixed::All),
    // ModifyTransitGatewayVpcAttachment changes subnets and options.
    ("transit gateway attachment", "to", Fixed::All),
    // A group's description is given with CreateSecurityGroup.
    ("security group", "description", Fixed::All),
    ("role", "account", Fixed::All),
];

/// The objects that a change from one plan to the other makes anew; what stands in a VPC that is made anew is not named
/// again.
pub fn replaced(old: &Plan, new: &Plan) -> Vec<Replaced> {
    let mut all: Vec<Replaced> = Vec::new();
    for change in diff(old, new) {
        if change.sign != Sign::Change {
            continue;
        }
        let fixed = change.attributes.iter().find(|(name, before, after)| is_fixed(change.kind, name, before, after));
        if let Some((name, before, after)) = fixed {
            let show = |text: &String| if text.is_empty() { "nothing".to_owned() } else { text.clone() };
            let why = format!("{name}: {} -> {}", show(before), show(after));
            all.push(Replaced { kind: change.kind, path: change.path, why });
        }
    }
    let vpcs: BTreeSet<String> = all.iter().filter(|r| r.kind == "VPC").map(|r| r.path.clone()).collect();
    all.retain(|r| !r.path.split_once('.').is_some_and(|(vpc, _)| vpcs.contains(vpc)));
    all
}

fn is_fixed(kind: &str, name: &str, before: &str, after: &str) -> bool {
    // Another id is another object, whatever it is. Network interfaces are their owners'.
    if name == "id" {
        return kind != "network interface";
    }
    let first = |text: &str| text.split(", ").next().map(str::to_owned);
    FIXED.iter().any(|(of, attribute, fixed)| match fixed {
        Fixed::All => (*of, *attribute) == (kind, name),
        Fixed::First => (*of, *attribute) == (kind, name) && first(before) != first(after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::plan_of;

    const LAB: &str = "version: 1
name: t
region: us-east-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      a: { cidr: 10.0.1.0/24, az: a }
      b: { cidr: 10.0.2.0/24, az: b }
      spare: { cidr: 10.0.3.0/24, az: a }
    nat_gateways: { nat: { subnet: a } }
    security_groups: { g: { ingress: [tcp 80 from 0.0.0.0/0] } }
    instances: { one: { subnet: a, ip: 10.0.1.10, security_groups: [g] }, two: { subnet: b, ip: 10.0.2.10 } }
    endpoints: { sqs: { subnets: [a] }, door: { service: s3, type: interface, private_dns: false, subnets: [a] } }
  far: { cidr: 10.8.0.0/16, subnets: { x: { cidr: 10.8.1.0/24, az: a } } }
  near: { cidr: 10.9.0.0/16, subnets: { x: { cidr: 10.9.1.0/24, az: a } } }
peerings: { p: { requester: app, accepter: far } }
";

    fn plan(patch: &str) -> Plan {
        plan_of(&[LAB, patch])
    }

    #[test]
    fn what_aws_cannot_change_is_made_anew_and_the_rest_is_changed_in_place() {
        let old = plan("");
        for (patch, wanted) in [
            ("vpcs: { far: { region: eu-west-1 } }", &["VPC far: region: us-east-1 -> eu-west-1"][..]),
            ("vpcs: { app: { cidr: 10.0.0.0/17 } }", &["VPC app: cidr: 10.0.0.0/16 -> 10.0.0.0/17"]),
            ("vpcs: { app: { cidr: [10.0.0.0/16, 10.1.0.0/16] } }", &[]),
            (
                "vpcs: { app: { subnets: { spare: { cidr: 10.0.3.0/25 } } } }",
                &["subnet app.spare: cidr: 10.0.3.0/24 -> 10.0.3.0/25"],
            ),
            (
                "vpcs: { app: { subnets: { spare: { az: b } } } }",
                &["subnet app.spare: az: us-east-1a (use1-az1) -> us-east-1b (use1-az2)"],
            ),
            (
                "vpcs: { app: { nat_gateways: { nat: { subnet: b } } } }",
                &["NAT gateway app.nat: subnet: app.a -> app.b"],
            ),
            (
                "vpcs: { app: { endpoints: { sqs: { service: sns } } } }",
                &["endpoint app.sqs: service: com.amazonaws.us-east-1.sqs -> com.amazonaws.us-east-1.sns"],
            ),
            ("vpcs: { app: { endpoints: { sqs: { subnets: [a, b] } } } }", &[]),
            ("peerings: { p: { accepter: near } }", &["peering p: accepter: far -> near"]),
            ("peerings: { p: { dns: true } }", &[]),
            (
                "vpcs: { app: { security_groups: { g: { ingress: [], description: other } } } }",
                &["security group app.g: description: nothing -> other"],
            ),
            ("vpcs: { app: { security_groups: { g: { ingress: [] } }, instances: { two: null } } }", &[]),
        ] {
            let seen: Vec<String> =
                replaced(&old, &plan(patch)).iter().map(|r| format!("{} {}: {}", r.kind, r.path, r.why)).collect();
            assert_eq!(seen, wanted, "{patch}");
        }
        assert_eq!(replaced(&old, &old), []);
    }

    /// A row of the table that names nothing would never hold.
    #[test]
    fn every_fixed_attribute_is_one_that_objects_have() {
        let mut plans = vec![plan("")];
        for text in [include_str!("../../../topologies/t-hub.yaml"), include_str!("../../../topologies/t-solo.yaml")] {
            plans.push(plan_of(&[text]));
        }
        let all: Vec<_> = plans.iter().flat_map(super::super::objects).collect();
        for (kind, attribute, _) in FIXED {
            // No lab here has a role.
            let has = |(of, objects): &(&str, std::collections::BTreeMap<String, super::super::Attributes>)| {
                *of == kind
                    && (kind == "role" || objects.values().any(|o| o.iter().any(|(name, _)| *name == attribute)))
            };
            assert!(all.iter().any(has), "{kind} {attribute}");
        }
    }
}
