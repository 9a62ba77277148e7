//! Network interfaces: which address each gets. Written addresses come first; the others take the lowest free ones
//! of their subnet, instances before endpoints, in the order of the file. Those of a running lab keep theirs.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::Draft;
use crate::base::EniIx;
use crate::base::ids::stable_hash;
use crate::model::plan::{AttachmentTo, Common, EndpointKind, EndpointPlan, EniOwner, EniPlan, Home, SubnetPlan};
use crate::model::spec::fields::{At, Cx};
use crate::model::spec::names::Kind;
use crate::model::spec::report::Found;
use crate::model::spec::source::Place;

/// A network interface before it has its address.
pub struct EniDraft {
    pub common: Common,
    pub vpc: usize,
    /// `None` where the subnet was refused.
    pub subnet: Option<usize>,
    /// Of what stands in no VPC: its network and its address.
    pub outside: Option<(Home, Ipv4Addr)>,
    pub ip: Option<At<Ipv4Addr>>,
    pub security_groups: Vec<usize>,
    pub source_dest_check: bool,
    pub owner: EniOwner,
    /// Where it stands in the file.
    pub place: Place,
}

/// Gives every interface its address and its index, and tells their owners.
pub fn place(cx: &Cx<'_>, draft: &mut Draft) {
    let mut drafts = std::mem::take(&mut draft.eni_drafts);
    // Instances first: an endpoint added later then moves no instance. The sort is stable.
    drafts.sort_by_key(|d| match d.owner {
        EniOwner::Instance(..) if d.outside.is_none() => 0,
        EniOwner::Endpoint(_) => 1,
        EniOwner::NatGateway(_) => 2,
        EniOwner::TgwAttachment(_) => 3,
        EniOwner::Instance(..) => 4,
        EniOwner::GatewayEndpoint(_) => 5,
        EniOwner::PublicSide => 6,
    });
    let mut taken = Taken::new();
    take_written(cx, draft, &drafts, &mut taken);
    let kept = take_kept(cx, draft, &drafts, &mut taken);
    // In each subnet, where the search for a free address goes on.
    let mut next: BTreeMap<usize, u64> = BTreeMap::new();
    let mut left_out: BTreeMap<(u32, u32, usize), (Place, Vec<String>)> = BTreeMap::new();
    for (n, d) in drafts.into_iter().enumerate() {
        // Without address or subnet a problem was noted, and the plan is thrown away.
        let ip = match (d.ip, d.outside, d.subnet) {
            (Some(ip), ..) => Some(ip.value),
            (None, Some((_, ip)), _) => Some(ip),
            (None, None, Some(_)) if kept.contains_key(&n) => kept.get(&n).copied(),
            (None, None, Some(subnet)) => {
                let plan = draft.subnets[subnet].as_ref();
                let from = next.entry(subnet).or_insert(4);
                let ip = plan.and_then(|plan| lowest_free(plan, &taken, subnet, from));
                taken.extend(ip.map(|ip| ((subnet, ip), n)));
                if ip.is_none() && plan.is_some() {
                    let owner = d.common.description_of_owner(d.owner);
                    // Those of one `count` stand at one place, and are told together.
                    left_out
                        .entry((d.place.file, d.place.start, subnet))
                        .or_insert((d.place, Vec::new()))
                        .1
                        .push(owner);
                }
                ip
            }
            (None, None, None) => None,
        };
        tell_owner(draft, &d, ip);
        draft.enis.push(EniPlan {
            mac: mac_of(&d.common.id),
            common: d.common,
            home: match d.outside {
                Some((home, _)) => home,
                None => Home::Subnet { vpc: d.vpc, subnet: d.subnet.unwrap_or_default() },
            },
            ip: ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            security_groups: d.security_groups,
            source_dest_check: d.source_dest_check,
            owner: d.owner,
        });
    }
    for ((.., subnet), (place, owners)) in left_out {
        refuse_left_out(cx, draft, place, subnet, &owners);
    }
}

/// Subnet and address, and the interface that has it, by its place in the list.
type Taken = HashMap<(usize, Ipv4Addr), usize>;

/// Addresses as they are written; refused where no interface can have them, or another has.
fn take_written(cx: &Cx<'_>, draft: &Draft, drafts: &[EniDraft], taken: &mut Taken) {
    for (n, d) in drafts.iter().enumerate() {
        let (Some(subnet), Some(ip)) = (d.subnet, d.ip) else { continue };
        let Some(plan) = &draft.subnets[subnet] else { continue };
        if let Some((code, message)) = refused_address(plan.cidr, ip.value) {
            let whole = format!(
                "{}: {message} of subnet {} ({})",
                d.common.description_of_owner(d.owner),
                plan.common.path,
                plan.cidr
            );
            let also = cx.names.get(Kind::Subnet, subnet).place;
            cx.error(Found::at(ip.place, whole).code(code).also(also, "the subnet"));
        } else if let Some(&first) = taken.get(&(subnet, ip.value)) {
            let other = &drafts[first];
            let message = format!(
                "{}: address {} is in use by {}",
                d.common.description_of_owner(d.owner),
                ip.value,
                other.common.description_of_owner(other.owner)
            );
            let place = other.ip.map_or(other.place, |i| i.place);
            cx.error(Found::at(ip.place, message).code("InvalidIPAddress.InUse").also(place, "in use here"));
        } else {
            taken.insert((subnet, ip.value), n);
        }
    }
}

/// An interface of a running lab keeps its address, whoever comes before it in the file by now.
fn take_kept(cx: &Cx<'_>, draft: &Draft, drafts: &[EniDraft], taken: &mut Taken) -> HashMap<usize, Ipv4Addr> {
    let mut kept = HashMap::new();
    for (n, d) in drafts.iter().enumerate() {
        let (Some(subnet), None, Some(&ip)) = (d.subnet, d.ip, cx.standing.addresses.get(&d.common.path)) else {
            continue;
        };
        let good = draft.subnets[subnet].as_ref().is_some_and(|plan| refused_address(plan.cidr, ip).is_none());
        if good && !taken.contains_key(&(subnet, ip)) {
            taken.insert((subnet, ip), n);
            kept.insert(n, ip);
        }
    }
    kept
}

/// The lowest address of a subnet, from the offset `from` on, that nobody has; `from` moves there.
fn lowest_free(plan: &SubnetPlan, taken: &Taken, subnet: usize, from: &mut u64) -> Option<Ipv4Addr> {
    loop {
        match plan.cidr.nth(*from).filter(|ip| *ip != plan.cidr.last()) {
            Some(ip) if taken.contains_key(&(subnet, ip)) => *from += 1,
            other => return other,
        }
    }
}

/// Interfaces for which a subnet has no address.
fn refuse_left_out(cx: &Cx<'_>, draft: &Draft, place: Place, subnet: usize, owners: &[String]) {
    let (Some(plan), [first, .., last] | [first @ last]) = (&draft.subnets[subnet], owners) else { return };
    let (path, cidr) = (&plan.common.path, plan.cidr);
    let message = match owners.len() {
        1 => format!("{first}: subnet {path} ({cidr}) has no free address left"),
        n => format!("{first} to {last}: subnet {path} ({cidr}) has no free address left for these {n}"),
    };
    let found = Found::at(place, message).code("InsufficientFreeAddressesInSubnet");
    cx.error(found.help("of each subnet five addresses are AWS's: the first four and the last"));
}

/// The owner of the next interface learns its index, and what goes by its address.
fn tell_owner(draft: &mut Draft, d: &EniDraft, ip: Option<Ipv4Addr>) {
    let ix = EniIx(draft.enis.len() as u32);
    match d.owner {
        EniOwner::Instance(i, _) => {
            if let Some(instance) = &mut draft.instances[i] {
                instance.enis.push(ix);
            }
        }
        EniOwner::Endpoint(e) => {
            if let (Some(endpoint), Some(s)) = (&mut draft.endpoints[e], d.subnet) {
                endpoint.enis.push(ix);
                if let (Some(region), Some(subnet)) = (region_of(&endpoint.names.regional), &draft.subnets[s]) {
                    let name = crate::model::spec::subst::vpce_name(
                        &endpoint.common.id,
                        Some(&subnet.az_name),
                        &region.0,
                        &region.1,
                    );
                    endpoint.names.zonal.push((subnet.az_name.clone(), name, ix));
                }
            }
        }
        EniOwner::NatGateway(n) => {
            if let Some(nat) = &mut draft.nat_gateways[n] {
                nat.eni = ix;
                nat.addresses.extend(ip);
            }
        }
        EniOwner::TgwAttachment(a) => {
            if let (Some(subnet), Some(attachment)) = (d.subnet, &mut draft.tgw_attachments[a])
                && let AttachmentTo::Vpc(to) = &mut attachment.to
            {
                to.subnets.push((subnet, ix));
            }
        }
        EniOwner::GatewayEndpoint(e) => {
            if let Some(EndpointPlan { kind: EndpointKind::Gateway { door, .. }, .. }) = &mut draft.endpoints[e] {
                *door = ix;
            }
        }
        EniOwner::PublicSide => draft.public_side = Some(ix),
    }
}

/// Label and region of `ID-RANDOM.LABEL.REGION.vpce.amazonaws.com`.
fn region_of(regional: &str) -> Option<(String, String)> {
    let (_, rest) = regional.split_once('.')?;
    let (label, region) = rest.strip_suffix(".vpce.amazonaws.com")?.rsplit_once('.')?;
    Some((label.to_owned(), region.to_owned()))
}

/// AWS's code and words for an address that no interface of a subnet can have.
fn refused_address(cidr: crate::base::Cidr, ip: Ipv4Addr) -> Option<(&'static str, String)> {
    if !cidr.contains(ip) {
        return Some(("InvalidParameterValue", format!("address {ip} does not fall within the address range")));
    }
    let offset = ip.to_bits() - cidr.network().to_bits();
    let what = match offset {
        0 => "the network's address",
        1 => "the router",
        2 => "kept for the resolver",
        3 => "kept for future use",
        _ if ip == cidr.last() => "the broadcast address",
        _ => return None,
    };
    Some(("InvalidParameterValue", format!("address {ip} is in the reserved address range ({what})")))
}

/// Locally administered, as on real ENIs, and the same in every run.
fn mac_of(id: &str) -> [u8; 6] {
    let h = (stable_hash(&["mac", id]) as u64).to_be_bytes();
    [0x02, h[3], h[4], h[5], h[6], h[7]]
}

impl Common {
    /// `instance app.web` or `endpoint app.s3`.
    fn description_of_owner(&self, owner: EniOwner) -> String {
        let path = self.path.split(['/', '@']).next().unwrap_or(&self.path);
        match owner {
            EniOwner::Instance(..) => format!("instance {path}"),
            EniOwner::Endpoint(_) | EniOwner::GatewayEndpoint(_) => format!("endpoint {path}"),
            EniOwner::NatGateway(_) => format!("NAT gateway {path}"),
            EniOwner::TgwAttachment(_) => format!("attachment {path}"),
            EniOwner::PublicSide => "the public side".to_owned(),
        }
    }
}
