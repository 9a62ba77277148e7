//! What a fault's words mean: one reading for the file's `faults:` and for `vpclab fault`.

use std::time::Duration;

use super::Plan;
use super::plan::{EniOwner, Fault, FaultPlan, Impair, LinkKind};
use super::spec::fields::{TIME_FORMS, some_time};

/// `az a`, `endpoint sts a`, `tunnel dc/1`, `instance api`, `target api`, `link web loss 10% delay 20ms`.
///
/// # Errors
/// A sentence about the words.
pub fn parse(plan: &Plan, words: &[&str]) -> Result<FaultPlan, String> {
    match words {
        ["az", zone] => self::zone(plan, zone),
        ["endpoint", name] => endpoint(plan, name, None),
        ["endpoint", name, zone] => endpoint(plan, name, Some(zone)),
        ["tunnel", name] => tunnel(plan, name),
        ["instance" | "target", name] => instance(plan, name),
        ["link", name] => link(plan, name, Impair::default()),
        ["link", name, rest @ ..] => match impair(rest)? {
            whole if whole == Impair::default() => Err(format!("`{}` breaks nothing of a link", rest.join(" "))),
            impair => link(plan, name, impair),
        },
        [] => Err(USAGE.to_owned()),
        [kind, ..] => Err(format!("`{kind}` with these words is no fault; {USAGE}")),
    }
}

const USAGE: &str = "a fault is `az ZONE`, `endpoint NAME [ZONE]`, `tunnel SITE/N`, `instance NAME` or \
                     `link NAME [down] [delay T] [jitter T] [loss P%] [rate R] [seed N]`";

/// A zone by letter, name or id. A letter may mean several zones, as accounts and regions map it differently: the first
/// VPC of the lab's region decides, then the first of any.
///
/// # Errors
/// A sentence about the zone.
pub fn zone(plan: &Plan, text: &str) -> Result<FaultPlan, String> {
    let is = |s: &&super::plan::SubnetPlan| s.az_id == text || s.az_name == text || s.az.to_string() == text;
    let own = |s: &&super::plan::SubnetPlan| plan.vpcs[s.vpc].region == plan.region;
    let found = plan.subnets.iter().filter(own).find(is).or_else(|| plan.subnets.iter().find(is));
    match found {
        Some(subnet) => Ok(made(format!("az {}", subnet.az), Fault::Zone { az_id: subnet.az_id.clone() })),
        None => {
            let mut known: Vec<String> = plan.subnets.iter().map(|s| s.az.to_string()).collect();
            known.sort_unstable();
            known.dedup();
            Err(format!("no subnet is in the zone `{text}`; there are: {}", known.join(", ")))
        }
    }
}

/// An interface endpoint, whole or in one zone.
pub fn endpoint(plan: &Plan, name: &str, zone: Option<&str>) -> Result<FaultPlan, String> {
    let at = plan.endpoint_named(name)?;
    let endpoint = &plan.endpoints[at];
    let in_zone = |eni: &crate::base::EniIx| {
        let zone = zone.unwrap_or_default();
        plan.subnet_of(*eni).is_some_and(|s| s.az_id == zone || s.az_name == zone || s.az.to_string() == zone)
    };
    let enis: Vec<_> = endpoint.enis.iter().copied().filter(|eni| zone.is_none() || in_zone(eni)).collect();
    if enis.is_empty() {
        let zone = zone.map_or_else(String::new, |zone| format!(" in the zone `{zone}`"));
        return Err(format!("endpoint {} has no network interface{zone}", endpoint.common.path));
    }
    let zone = zone.map_or_else(String::new, |zone| format!(" in {zone}"));
    Ok(made(format!("endpoint {}{zone}", endpoint.common.path), Fault::Endpoint { endpoint: at, enis }))
}

/// `dc/1`: the first tunnel of the VPN of a site.
pub fn tunnel(plan: &Plan, text: &str) -> Result<FaultPlan, String> {
    let wrong = || format!("`{text}` is no tunnel: write SITE/1 or SITE/2");
    let (site, number) = text.rsplit_once('/').ok_or_else(wrong)?;
    let number: usize = number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    for (at, link) in plan.links.iter().enumerate() {
        let LinkKind::Vpn { tunnels, .. } = &link.kind else { continue };
        if plan.sites[link.site].common.name == site && number <= tunnels.len() {
            return Ok(made(format!("tunnel {text}"), Fault::Tunnel { link: at, tunnel: number - 1 }));
        }
    }
    let vpns = plan.links.iter().filter(|link| matches!(link.kind, LinkKind::Vpn { .. }));
    let known: Vec<&str> = vpns.map(|link| plan.sites[link.site].common.name.as_str()).collect();
    match known[..] {
        [] => Err(format!("{}; no site has a VPN", wrong())),
        _ => Err(format!("{}; sites with a VPN: {}", wrong(), known.join(", "))),
    }
}

pub fn instance(plan: &Plan, name: &str) -> Result<FaultPlan, String> {
    let at = plan.instance_named(name)?;
    Ok(made(format!("instance {}", plan.instances[at].common.path), Fault::Instance(at)))
}

pub fn link(plan: &Plan, name: &str, impair: Impair) -> Result<FaultPlan, String> {
    let at = plan.instance_named(name)?;
    let impair = if impair == Impair::default() { Impair { down: true, ..impair } } else { impair };
    Ok(made(format!("link {} {impair}", plan.instances[at].common.path), Fault::Link { instance: at, impair }))
}

/// `1%`, `0.5%`: parts per million.
pub fn share(text: &str) -> Option<u32> {
    let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some((percent * 10_000.0).round() as u32)
}

/// `10mbit`, `1gbit`, `56kbit`: bits a second.
pub fn rate(text: &str) -> Option<u64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..at].trim().parse().ok()?;
    let unit = match text[at..].trim().to_ascii_lowercase().as_str() {
        "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return None,
    };
    let bits = number * unit;
    (1_000.0..=1e12).contains(&bits).then_some(bits as u64)
}

impl Plan {
    /// The fault that has taken an interface: of its own before its zone's. An impaired link is none, unless it is down.
    pub fn fault_of(&self, ix: crate::base::EniIx) -> Option<&FaultPlan> {
        let owner = self.eni(ix).owner;
        let own = |fault: &&FaultPlan| match &fault.what {
            Fault::Endpoint { enis, .. } => enis.contains(&ix),
            Fault::Instance(at) => matches!(owner, EniOwner::Instance(of, _) if of == *at),
            _ => false,
        };
        let zone = self.subnet_of(ix).map(|subnet| &subnet.az_id);
        let of_zone = |fault: &&FaultPlan| matches!(&fault.what, Fault::Zone { az_id } if Some(az_id) == zone);
        let begun = || self.faults.iter().filter(|fault| fault.after.is_none());
        begun().find(own).or_else(|| begun().find(of_zone))
    }

    /// What the links of an instance (by its index) do to packets: as the last fault says, else as the file does.
    pub fn impairment_of(&self, instance: usize) -> Option<Impair> {
        let mut by_fault =
            self.faults.iter().filter(|fault| fault.after.is_none()).filter_map(|fault| match fault.what {
                Fault::Link { instance: of, impair } if of == instance => Some(impair),
                _ => None,
            });
        by_fault.next_back().or(self.instances[instance].impair)
    }

    /// Interfaces that have failed, of endpoints: names lead past them.
    pub fn sick_enis(&self) -> Vec<crate::base::EniIx> {
        let mut sick = Vec::new();
        for fault in self.faults.iter().filter(|fault| fault.after.is_none()) {
            match &fault.what {
                Fault::Endpoint { enis, .. } => sick.extend(enis.iter().copied()),
                Fault::Zone { az_id } => {
                    let here = self.enis.iter().enumerate().filter(|(_, eni)| {
                        matches!(eni.owner, EniOwner::Endpoint(_))
                            && eni.subnet().is_some_and(|subnet| self.subnets[subnet].az_id == *az_id)
                    });
                    sick.extend(here.map(|(at, _)| crate::base::EniIx(at as u32)));
                }
                _ => {}
            }
        }
        sick
    }
}

fn impair(words: &[&str]) -> Result<Impair, String> {
    let mut impair = Impair::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "down" {
            impair.down = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
        let time = || some_time(value).ok_or_else(|| format!("`{value}` is no time: {TIME_FORMS}"));
        match *word {
            "delay" => impair.delay = time()?,
            "jitter" => impair.jitter = time()?,
            "loss" => {
                impair.loss_ppm =
                    share(value).ok_or_else(|| format!("`{value}` is no share: write 0% to 100%, as 1%"))?;
            }
            "rate" => {
                impair.rate = Some(rate(value).ok_or_else(|| format!("`{value}` is no rate: write it as 10mbit"))?);
            }
            "seed" => impair.seed = Some(value.parse().map_err(|_| format!("`{value}` is no number"))?),
            other => return Err(format!("`{other}`: not delay, jitter, loss, rate, seed or down")),
        }
    }
    Ok(impair)
}

fn made(title: String, what: Fault) -> FaultPlan {
    FaultPlan { id: 0, title, what, after: None, lasts: None::<Duration> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_are_read_as_people_write_them() {
        assert_eq!(share("1%"), Some(10_000));
        assert_eq!(share("0.5 %"), Some(5_000));
        assert_eq!(share("101%"), None);
        assert_eq!(share("1"), None);
        assert_eq!(rate("10mbit"), Some(10_000_000));
        assert_eq!(rate("1.5Gbit"), Some(1_500_000_000));
        assert_eq!(rate("10"), None);
        assert_eq!(rate("10 apples"), None);
        assert!(impair(&["loss", "10%", "delay", "20ms", "down"]).is_ok_and(|i| i.down && i.loss_ppm == 100_000));
        assert!(impair(&["loss"]).is_err_and(|e| e.contains("wants a value")));
        assert!(
            impair(&["delay", "5"]).is_ok_and(|i| i.delay == Duration::from_secs(5) && i.to_string() == "delay 5s")
        );
        for time in ["0", "0ms", "5 ms", "fast", "-1s"] {
            let refused = impair(&["delay", time]).expect_err(time);
            assert_eq!(refused, format!("`{time}` is no time: {TIME_FORMS}"));
        }
    }

    #[test]
    fn an_impairment_is_shown_as_the_command_takes_it() {
        for text in [
            "down",
            "delay 20ms",
            "delay 1s jitter 0.25ms loss 0.5% rate 1.5mbit seed 7",
            "loss 100% rate 56kbit",
            "rate 10gbit",
        ] {
            let words: Vec<&str> = text.split(' ').collect();
            let read = impair(&words).expect(text);
            assert_eq!(read.to_string(), text);
            let shown = read.to_string();
            assert_eq!(impair(&shown.split(' ').collect::<Vec<_>>()), Ok(read));
        }
    }
}
