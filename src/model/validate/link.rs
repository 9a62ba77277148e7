//! What joins a site to AWS: Site-to-Site VPNs (Site-to-Site VPN guide) and Direct Connect interfaces (Direct Connect
//! guide).

use super::site::ETHERNET;
use super::{Draft, tags};
use crate::base::Cidr;
use crate::base::ids::aws_id;
use crate::model::plan::{Common, LinkEnd, LinkKind, LinkPlan, TunnelPlan};
use crate::model::spec::fields::{At, Fields, parse_cidr};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;
use crate::model::spec::node::Value;

/// Inside a VPN tunnel with AES-GCM ("best practices for your customer gateway device"), bytes.
const TUNNEL_MTU: u16 = 1_446;
/// IPv4 and TCP without options, bytes.
const HEADERS: u16 = 40;
/// Of every VPN connection.
const MOST_TUNNELS: usize = 2;

pub fn is_static(kind: &LinkKind) -> bool {
    matches!(kind, LinkKind::Vpn { static_routing: true, .. })
}

/// Enters a link into the draft; its index. Its end at a transit gateway is that gateway's index until the attachment
/// is known.
pub fn read(f: &Fields<'_>, vpn: bool, site: usize, of: &Common, cidrs: &[Cidr], draft: &mut Draft) -> Option<usize> {
    let common = common(f, vpn, of);
    let (kind, site_blocks) = if vpn {
        let (static_routing, blocks) = routing(f, cidrs);
        let stateful = f.bool("stateful").is_some_and(|b| b.value);
        (LinkKind::Vpn { tunnels: tunnels(f), static_routing, stateful }, blocks)
    } else {
        (LinkKind::DirectConnect { mtu: f.int("mtu").map_or(ETHERNET, |n| n.value as u16) }, cidrs.to_vec())
    };
    let t = f.text("to")?;
    let at = draft.links.len();
    let end = match t.value.split_once(':') {
        Some(("vgw", name)) => {
            let vpc = f.reference(Kind::Vpc, None, At { value: name, place: t.place })?;
            let Some(vgw) = draft.vgws.iter().position(|vgw| vgw.vpc == vpc) else {
                let message = format!("VPC {name} has no virtual private gateway");
                let found = f.error(t.place, message).code("InvalidVpnGatewayID.NotFound");
                let found = found.also(f.cx.names.get(Kind::Vpc, vpc).place, "the VPC");
                f.cx.error(found.help("`virtual_private_gateway: true` at the VPC"));
                return None;
            };
            draft.vgws[vgw].links.push(at);
            LinkEnd::Vgw(vgw)
        }
        Some(("tgw", _)) => LinkEnd::Tgw(f.reference(Kind::Tgw, None, t)?),
        _ => {
            f.cx.error(f.error(t.place, format!("`{}` is no end of a link", t.value)).help("`tgw:NAME` or `vgw:VPC`"));
            return None;
        }
    };
    if let LinkKind::DirectConnect { mtu } = kind {
        judge_interface(f, end, t.value, mtu);
    }
    draft.links.push(LinkPlan { common, site, end, kind, site_blocks });
    Some(at)
}

fn common(f: &Fields<'_>, vpn: bool, of: &Common) -> Common {
    let (name, prefix) = if vpn { ("vpn", "vpn") } else { ("direct_connect", "dxvif") };
    let id = f.text("id").filter(|t| {
        let digits = t.value.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
        let good = matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z'));
        if !good {
            let code = if vpn { "InvalidVpnConnectionID.Malformed" } else { "DirectConnectClientException" };
            let found = f.error(t.place, format!("`{}` is no id of this kind", t.value)).code(code);
            f.cx.error(found.help(format!("AWS's form is `{prefix}-` and 17 (or 8) hexadecimal digits")));
        }
        good
    });
    Common {
        name: format!("{}/{name}", of.name),
        path: format!("{}/{name}", of.path),
        id: id.map_or_else(|| aws_id(prefix, &of.id, name), |t| t.value.to_owned()),
        description: f.text("description").map(|t| t.value.to_owned()).unwrap_or_default(),
        tags: tags(f),
    }
}

/// A private virtual interface ends at a virtual private gateway, a transit one at a transit gateway; each knows two
/// MTUs.
fn judge_interface(f: &Fields<'_>, end: LinkEnd, to: &str, mtu: u16) {
    const CODE: &str = "DirectConnectClientException";
    let (vif, jumbo) = match end {
        LinkEnd::Vgw(_) => ("private", 9_001),
        LinkEnd::Tgw(_) => ("transit", 8_500),
    };
    if let Some(written) = f.word("vif").filter(|written| written.value != vif) {
        let message = format!("a {} virtual interface cannot end at {to}", written.value);
        f.cx.error(f.error(written.place, message).code(CODE).help(format!("`vif: {vif}`, or leave it out")));
    }
    if mtu != ETHERNET && mtu != jumbo {
        let message = format!("the MTU of a {vif} virtual interface is 1500 or {jumbo}, not {mtu}");
        f.cx.error(f.error(f.int("mtu").map_or(f.place, |n| n.place), message).code(CODE));
    }
}

/// Whether routes are written, and the blocks of the site that AWS knows: all of them by BGP and by the bare word
/// `static`, otherwise those listed.
fn routing(f: &Fields<'_>, cidrs: &[Cidr]) -> (bool, Vec<Cidr>) {
    let Some(entry) = f.entry("routing") else { return (false, cidrs.to_vec()) };
    match &entry.node.value {
        Value::List(_) => {
            let texts = f.texts("routing").unwrap_or_default();
            if texts.is_empty() {
                f.cx.error(f.error(entry.place(), "no static route is listed").help("write `routing: bgp`"));
            }
            let mut blocks: Vec<Cidr> = Vec::new();
            for block in texts.into_iter().filter_map(|t| parse_cidr(f, t, true)) {
                if blocks.contains(&block.value) {
                    let message = format!("the static route {} stands twice", block.value);
                    f.cx.error(f.error(block.place, message));
                } else {
                    blocks.push(block.value);
                }
            }
            (true, blocks)
        }
        _ => match f.text("routing").map(|t| (t.value, t.place)) {
            Some(("bgp", _)) | None => (false, cidrs.to_vec()),
            Some(("static", _)) => (true, cidrs.to_vec()),
            Some((other, place)) => {
                let found = f.error(place, format!("`routing` cannot be `{other}`"));
                f.cx.error(found.help("bgp, static, or a list of the site's blocks: its static routes"));
                (false, cidrs.to_vec())
            }
        },
    }
}

fn tunnels(f: &Fields<'_>) -> Vec<TunnelPlan> {
    let mtu = f.int("mtu").map(|n| n.value as u16);
    let own_mss = mss(f);
    let plain = |mtu: Option<u16>, mss: Option<Option<u16>>| {
        let mtu = mtu.unwrap_or(TUNNEL_MTU);
        TunnelPlan { mtu, mss: mss.unwrap_or(Some(mtu - HEADERS)), preferred_by_site: false, preferred_by_aws: false }
    };
    let wrong = |place| {
        let found = f.error(place, "a VPN has one or two tunnels");
        f.cx.error(found.help("`tunnels: 2`, or a list of maps"));
    };
    let Some(entry) = f.entry("tunnels") else { return vec![plain(mtu, own_mss); MOST_TUNNELS] };
    let Value::List(list) = &entry.node.value else {
        return match entry.node.text().and_then(|t| t.parse::<usize>().ok()) {
            Some(n @ 1..=MOST_TUNNELS) => vec![plain(mtu, own_mss); n],
            _ => {
                wrong(entry.place());
                Vec::new()
            }
        };
    };
    if !(1..=MOST_TUNNELS).contains(&list.len()) {
        wrong(entry.place());
    }
    let mut all: Vec<TunnelPlan> = Vec::new();
    for node in list {
        let place = node.entries().first().map_or(entry.key_place, |e| e.key_place);
        let Some(t) = Fields::open_node(f.cx, &keys::TUNNEL, f.title.clone(), node, place) else { continue };
        let own_mtu = t.int("mtu").map(|n| n.value as u16);
        // A tunnel's own MTU sets its MSS too, unless that is written.
        let inherited = if own_mtu.is_some() { None } else { own_mss };
        let mut tunnel = plain(own_mtu.or(mtu), mss(&t).or(inherited));
        tunnel.preferred_by_site = t.bool("preferred_by_site").is_some_and(|b| b.value);
        tunnel.preferred_by_aws = t.bool("preferred_by_aws").is_some_and(|b| b.value);
        let twice = |key: &str, of: fn(&TunnelPlan) -> bool| {
            if of(&tunnel) && all.iter().any(of) {
                f.cx.error(t.error(t.key_place(key), "one tunnel of a VPN can be preferred, not both"));
            }
        };
        twice("preferred_by_site", |tunnel| tunnel.preferred_by_site);
        twice("preferred_by_aws", |tunnel| tunnel.preferred_by_aws);
        all.push(tunnel);
        t.done();
    }
    all
}

/// `Some(None)`: untouched.
fn mss(f: &Fields<'_>) -> Option<Option<u16>> {
    let t = f.text("mss")?;
    match t.value.parse::<u16>() {
        Ok(n) if (88..=1_460).contains(&n) => Some(Some(n)),
        _ if t.value == "false" => Some(None),
        _ => {
            f.cx.error(f.error(t.place, format!("`mss` cannot be `{}`", t.value)).help("88 to 1460, or false"));
            None
        }
    }
}
