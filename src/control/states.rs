//! What `vpclab ps` says of the state of things: as AWS names it, or what a fault has made of it.

use crate::base::EniIx;
use crate::model::Plan;
use crate::model::plan::{AttachmentTo, Fault, FaultPlan, TransitGatewayPlan};

/// `running`; `down`, `link down`, `zone down`; `running, link delay 20ms loss 1%`.
pub fn of_instance(plan: &Plan, at: usize) -> String {
    let fault = plan.instances[at].enis.iter().find_map(|eni| plan.fault_of(*eni));
    let impaired = plan.impairment_of(at);
    match (fault, impaired) {
        (Some(fault), _) if !is_of_zone(fault) => "down".to_owned(),
        (_, Some(impair)) if impair.down => "link down".to_owned(),
        (Some(_), _) => "zone down".to_owned(),
        (None, Some(impair)) => format!("running, link {impair}"),
        (None, None) => "running".to_owned(),
    }
}

/// Of an endpoint's or a NAT gateway's interface: `available`; `down`, `zone down`.
pub fn of_eni(plan: &Plan, eni: EniIx) -> &'static str {
    match plan.fault_of(eni) {
        None => "available",
        Some(fault) if is_of_zone(fault) => "zone down",
        Some(_) => "down",
    }
}

/// `available`; `zone b down` where an attachment stands in it.
pub fn of_transit_gateway(plan: &Plan, tgw: &TransitGatewayPlan) -> String {
    let mut down: Vec<char> = Vec::new();
    for at in &tgw.attachments {
        let AttachmentTo::Vpc(to) = &plan.tgw_attachments[*at].to else { continue };
        down.extend(
            to.subnets.iter().filter(|(_, eni)| plan.fault_of(*eni).is_some()).map(|(s, _)| plan.subnets[*s].az),
        );
    }
    down.sort_unstable();
    down.dedup();
    match down[..] {
        [] => "available".to_owned(),
        _ => format!("zone {} down", down.iter().map(char::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn is_of_zone(fault: &FaultPlan) -> bool {
    matches!(fault.what, Fault::Zone { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Around, Source, fault, load};

    fn plan(text: &str) -> Plan {
        let source = Source::new("lab.yaml", text);
        load(&[source], &Around::default()).unwrap_or_else(|r| panic!("{}", r.render(false))).plan
    }

    fn broken(plan: &Plan, words: &str) -> Plan {
        let words: Vec<&str> = words.split(' ').collect();
        let fault = fault::parse(plan, &words).expect("a fault");
        Plan { faults: vec![fault], ..plan.clone() }
    }

    #[test]
    fn what_a_fault_takes_is_not_running_and_not_available() {
        let whole = plan(include_str!("../../topologies/t-solo.yaml"));
        let states = |plan: &Plan| {
            let instance = |name: &str| of_instance(plan, plan.instance_named(name).expect(name));
            let sts = plan.endpoint_named("sts").expect("sts");
            let enis: Vec<&str> = plan.endpoints[sts].enis.iter().map(|eni| of_eni(plan, *eni)).collect();
            let nat = of_eni(plan, plan.nat_gateways[0].eni);
            format!("{} | {} | {} | {nat}", instance("app-a"), instance("app-b"), enis.join(" "))
        };
        let fine = "running | running | available available | available";
        assert_eq!(states(&whole), fine);
        for (words, seen) in [
            ("endpoint sts", "running | running | down down | available"),
            ("endpoint sts a", "running | running | down available | available"),
            ("az a", "zone down | running | zone down available | zone down"),
            ("instance app-b", "running | down | available available | available"),
            ("link app-b", "running | link down | available available | available"),
            (
                "link app-b delay 20ms loss 1%",
                "running | running, link delay 20ms loss 1% | available available | available",
            ),
        ] {
            let mut broken = broken(&whole, words);
            assert_eq!(states(&broken), seen, "{words}");
            // Still to come, and over again.
            broken.faults[0].after = Some(std::time::Duration::from_secs(1));
            assert_eq!(states(&broken), fine, "{words}");
        }
    }

    #[test]
    fn a_transit_gateway_says_in_which_zone_its_attachments_are_down() {
        let whole = plan(include_str!("../../topologies/t-insp.yaml"));
        assert_eq!(of_transit_gateway(&whole, &whole.transit_gateways[0]), "available");
        let broken = broken(&whole, "az b");
        assert_eq!(of_transit_gateway(&broken, &broken.transit_gateways[0]), "zone b down");
    }
}
