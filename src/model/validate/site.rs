//! Networks outside AWS: sites on premises with their hosts, VPNs and Direct Connect interfaces, and hosts of the
//! emulated Internet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::eni::EniDraft;
use super::{Draft, common, instance, listen, vpc};
use crate::base::ids::aws_id;
use crate::base::{Cidr, EniIx};
use crate::model::plan::{
    AttachmentTo, Common, EniOwner, Forward, Home, InstanceHome, InstancePlan, LinkEnd, LinkKind, LinkPlan, SitePlan,
    SiteRoutePlan, SiteTarget, TgwTarget, Tracking, TunnelPlan,
};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys::{self, Noun};
use crate::model::spec::names::{INTERNET, Kind};
use crate::model::spec::node::{Entry, Value};

/// Outside of VPCs, bytes.
const ETHERNET: u16 = 1_500;
/// Inside a VPN tunnel with AES-GCM (Site-to-Site VPN guide, "MTU"), bytes.
const TUNNEL_MTU: u16 = 1_446;
const HEADERS: u16 = 40;

/// Sites, their hosts and their links. Routes follow when transit gateways are known: [`routes`].
pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("on_prem") {
        let Some(index) = cx.names.at_path(Kind::Site, &e.key) else { continue };
        let Some(f) = Fields::open(cx, &keys::SITE, format!("site {}", e.key), e) else { continue };
        let common = common(&f, Kind::Site, index);
        let cidrs: Vec<Cidr> = vpc::blocks(&f, "cidr").into_iter().map(|block| block.value).collect();
        // Read in `routes`.
        let _ = f.entry("routes");
        let Some(primary) = cidrs.first().copied() else {
            f.done();
            continue;
        };
        let gateway = Ipv4Addr::from_bits(primary.network().to_bits() + 1);
        let mut taken = BTreeSet::from([gateway]);
        for e in f.named("hosts") {
            site_host(cx, &f, e, index, &cidrs, &mut taken, draft);
        }
        let mut links = Vec::new();
        for (key, noun) in [("vpn", &keys::VPN), ("direct_connect", &keys::DIRECT_CONNECT)] {
            let Some(entry) = f.entry(key) else { continue };
            let title = format!("{} of site {}", if key == "vpn" { "VPN" } else { "Direct Connect" }, common.name);
            let Some(l) = Fields::open(cx, noun, title, entry) else { continue };
            if let Some(link) = link(&l, key == "vpn", index, &common, &cidrs, draft) {
                links.push(link);
            }
            l.done();
        }
        draft.sites[index] = Some(SitePlan { common, cidrs, gateway, links, routes: Vec::new() });
        f.done();
    }
}

fn site_host<'a>(
    cx: &'a Cx<'a>,
    site: &Fields<'a>,
    e: &'a Entry,
    index: usize,
    cidrs: &[Cidr],
    taken: &mut BTreeSet<Ipv4Addr>,
    draft: &mut Draft,
) {
    let name = &cx.names.get(Kind::Site, index).name;
    let Some(at) = cx.names.at_path(Kind::Instance, &format!("{name}.{}", e.key)) else { return };
    let Some(f) = Fields::open(cx, &keys::SITE_HOST, format!("host {name}.{}", e.key), e) else { return };
    let ip = address(&f, cidrs, taken, 10);
    if let Some(first) =
        ip.filter(|ip| Some(*ip) == cidrs.first().map(|c| Ipv4Addr::from_bits(c.network().to_bits() + 1)))
    {
        cx.error(f.error(f.key_place("ip"), format!("{first} is the router of site {}", site.title)));
    }
    host(&f, at, InstanceHome::Site(index), Home::Site(index), ip, draft);
    f.done();
}

/// Hosts of the emulated Internet.
pub fn internet<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    let blocks =
        [Cidr::containing(Ipv4Addr::new(192, 0, 2, 0), 24), Cidr::containing(Ipv4Addr::new(198, 51, 100, 0), 24)];
    let mut taken = BTreeSet::new();
    for e in top.named("internet") {
        let Some(at) = cx.names.at_path(Kind::Instance, &format!("{INTERNET}.{}", e.key)) else { continue };
        let Some(f) = Fields::open(cx, &keys::INTERNET_HOST, format!("Internet host {}", e.key), e) else { continue };
        let ip = address(&f, &blocks, &mut taken, 10);
        host(&f, at, InstanceHome::Internet, Home::Internet, ip, draft);
        f.done();
    }
}

/// The written address, or the lowest free one of the first block.
fn address(f: &Fields<'_>, blocks: &[Cidr], taken: &mut BTreeSet<Ipv4Addr>, from: u64) -> Option<Ipv4Addr> {
    let ip = match f.ip("ip") {
        Some(ip) => {
            let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            if !blocks.iter().any(|block| block.contains(ip.value)) {
                let message = format!("address {} is not in {}", ip.value, texts.join(" or "));
                f.cx.error(f.error(ip.place, message).code("InvalidParameterValue"));
                return None;
            }
            if taken.contains(&ip.value) {
                let message = format!("address {} is in use", ip.value);
                f.cx.error(f.error(ip.place, message).code("InvalidIPAddress.InUse"));
            }
            ip.value
        }
        None if f.has("ip") => return None,
        None => {
            let block = blocks.first()?;
            (from..).map_while(|n| block.nth(n)).find(|ip| !taken.contains(ip) && *ip != block.last())?
        }
    };
    taken.insert(ip);
    Some(ip)
}

fn host(f: &Fields<'_>, index: usize, home: InstanceHome, net: Home, ip: Option<Ipv4Addr>, draft: &mut Draft) {
    let common = common(f, Kind::Instance, index);
    let has = |noun: &'static Noun, key: &str| noun.find(key).is_some();
    let env = instance::env(f);
    draft.eni_drafts.push(EniDraft {
        common: Common {
            name: format!("{}/eth0", common.name),
            path: format!("{}/eth0", common.path),
            id: aws_id("eni", &common.id, "eth0"),
            ..Common::default()
        },
        vpc: 0,
        subnet: None,
        outside: Some((net, ip.unwrap_or(Ipv4Addr::UNSPECIFIED))),
        ip: None,
        security_groups: Vec::new(),
        source_dest_check: !has(f.noun, "forward") || forward(f).is_none(),
        owner: EniOwner::Instance(index, 0),
        place: f.place,
    });
    let names = if has(f.noun, "names") { instance::public_names(f) } else { Vec::new() };
    let forward = if has(f.noun, "forward") { forward(f) } else { None };
    draft.instances[index] = Some(InstancePlan {
        common,
        home,
        enis: Vec::new(),
        role: None,
        listen: listen::listeners(f),
        run: listen::commands(f),
        mtu: if has(f.noun, "mtu") { f.int("mtu").map_or(ETHERNET, |n| n.value as u16) } else { ETHERNET },
        imds_v2_required: false,
        imds_hop_limit: 1,
        user_data: None,
        env,
        names,
        forward,
        tracking: Tracking::default(),
        impair: instance::impair(f),
        dns_server: false,
    });
}

fn forward(f: &Fields<'_>) -> Option<Forward> {
    instance::forward(f)
}

/// A link, entered into the draft; its index.
fn link(f: &Fields<'_>, vpn: bool, site: usize, of: &Common, cidrs: &[Cidr], draft: &mut Draft) -> Option<usize> {
    let name = if vpn { "vpn" } else { "direct_connect" };
    let _ = (f.entry("id"), f.entry("tags"), f.entry("description"));
    let common = Common {
        name: format!("{}/{name}", of.name),
        path: format!("{}/{name}", of.path),
        id: aws_id(if vpn { "vpn" } else { "dxvif" }, &of.id, name),
        ..Common::default()
    };
    let kind = if vpn { tunnels(f) } else { direct_connect(f) };
    let t = f.text("to")?;
    let at = draft.links.len();
    let end = match t.value.split_once(':') {
        Some(("vgw", name)) => {
            let vpc = f.reference(Kind::Vpc, None, At { value: name, place: t.place })?;
            let Some(vgw) = draft.vgws.iter().position(|vgw| vgw.vpc == vpc) else {
                let message = format!("VPC {name} has no virtual private gateway");
                let found = f.error(t.place, message).code("InvalidVpnGatewayID.NotFound");
                f.cx.error(found.help("`virtual_private_gateway: true` at the VPC"));
                return None;
            };
            draft.vgws[vgw].links.push(at);
            LinkEnd::Vgw(vgw)
        }
        // The attachment is found or made when transit gateways are read.
        Some(("tgw", _)) => {
            let tgw = f.reference(Kind::Tgw, None, t)?;
            LinkEnd::Tgw(tgw)
        }
        _ => {
            f.cx.error(f.error(t.place, format!("`{}` is no end of a link", t.value)).help("`tgw:NAME` or `vgw:VPC`"));
            return None;
        }
    };
    if let LinkKind::DirectConnect { mtu } = kind {
        let (vif, largest) = match end {
            LinkEnd::Vgw(_) => ("private", 9_001),
            LinkEnd::Tgw(_) => ("transit", 8_500),
        };
        if let Some(written) = f.word("vif").filter(|written| written.value != vif) {
            let message = format!("a {} virtual interface cannot end at {}", written.value, t.value);
            f.cx.error(
                f.error(written.place, message).code("DirectConnectClientException").help(format!("`vif: {vif}`")),
            );
        }
        if mtu != ETHERNET && mtu != largest {
            let message = format!("the MTU of a {vif} virtual interface is 1500 or {largest}, not {mtu}");
            f.cx.error(f.error(f.key_place("mtu"), message).code("DirectConnectClientException"));
        }
    }
    draft.links.push(LinkPlan { common, site, end, kind, site_blocks: cidrs.to_vec() });
    Some(at)
}

fn direct_connect(f: &Fields<'_>) -> LinkKind {
    LinkKind::DirectConnect { mtu: f.int("mtu").map_or(ETHERNET, |n| n.value as u16) }
}

fn tunnels(f: &Fields<'_>) -> LinkKind {
    let static_routing = f.word("routing").is_some_and(|t| t.value == "static");
    let mtu = f.int("mtu").map(|n| n.value as u16);
    let own_mss = mss(f);
    let plain = |mtu: Option<u16>, mss: Option<Option<u16>>| {
        let mtu = mtu.unwrap_or(TUNNEL_MTU);
        TunnelPlan { mtu, mss: mss.unwrap_or(Some(mtu - HEADERS)), preferred_by_site: false, preferred_by_aws: false }
    };
    let mut all = Vec::new();
    match f.entry("tunnels").map(|e| (e, &e.node.value)) {
        None => all = vec![plain(mtu, own_mss); 2],
        Some((e, Value::List(list))) => {
            for node in list {
                let place = node.entries().first().map_or(e.key_place, |e| e.key_place);
                let Some(t) = Fields::open_node(f.cx, &keys::TUNNEL, f.title.clone(), node, place) else { continue };
                let mut tunnel = plain(t.int("mtu").map(|n| n.value as u16).or(mtu), mss(&t).or(own_mss));
                tunnel.preferred_by_site = t.bool("preferred_by_site").is_some_and(|b| b.value);
                tunnel.preferred_by_aws = t.bool("preferred_by_aws").is_some_and(|b| b.value);
                all.push(tunnel);
                t.done();
            }
        }
        Some((e, _)) => match e.node.text().and_then(|t| t.parse::<usize>().ok()) {
            Some(n @ 1..=2) => all = vec![plain(mtu, own_mss); n],
            _ => f.cx.error(f.error(e.place(), "a VPN has one or two tunnels").help("`tunnels: 2`, or a list of maps")),
        },
    }
    if all.len() > 2 {
        f.cx.error(f.error(f.key_place("tunnels"), "a VPN has at most two tunnels"));
    }
    LinkKind::Vpn { tunnels: all, static_routing }
}

/// `Some(None)`: untouched.
fn mss(f: &Fields<'_>) -> Option<Option<u16>> {
    let t = f.text("mss")?;
    match t.value.parse::<u16>() {
        Ok(n) if (88..=9_000).contains(&n) => Some(Some(n)),
        _ if t.value == "false" => Some(None),
        _ => {
            f.cx.error(f.error(t.place, format!("`mss` cannot be `{}`", t.value)).help("88 to 9000, or false"));
            None
        }
    }
}

/// What each site's router knows: what is written, then what it learns over Direct Connect, then over the VPN.
pub fn routes<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for e in top.named("on_prem") {
        let Some(index) = cx.names.at_path(Kind::Site, &e.key) else { continue };
        let Some(site) = draft.sites[index].clone() else { continue };
        let mut routes = Vec::new();
        let written = match e.node.get("routes").map(|node| &node.value) {
            Some(Value::List(list)) => list.as_slice(),
            _ => &[],
        };
        for node in written {
            let place = node.entries().first().map_or(node.place, |e| e.key_place);
            let title = format!("site {}", e.key);
            let Some(r) = Fields::open_node(cx, &keys::SITE_ROUTE, title, node, place) else { continue };
            let _ = r.text("description");
            let (to, via) = (r.cidr("to", true), r.word("via"));
            if let (Some(to), Some(via)) = (to, via) {
                let of = |vpn: bool| {
                    let is = |at: &&usize| matches!(draft.links[**at].kind, LinkKind::Vpn { .. }) == vpn;
                    site.links.iter().find(is).map(|at| SiteTarget::Link(*at))
                };
                let target = match via.value {
                    "vpn" => of(true),
                    "direct_connect" => of(false),
                    _ => Some(SiteTarget::Blackhole),
                };
                match target {
                    Some(via) => routes.push(SiteRoutePlan { to: to.value, via, learned: false }),
                    None => cx.error(r.error(via.place, format!("the site has no {}", via.value))),
                }
            }
            r.done();
        }
        let vpn_last = |at: &usize| matches!(draft.links[*at].kind, LinkKind::Vpn { .. });
        let mut links = site.links.clone();
        links.sort_by_key(vpn_last);
        for at in links {
            for to in advertised(draft, at) {
                routes.push(SiteRoutePlan { to, via: SiteTarget::Link(at), learned: true });
            }
        }
        if let Some(site) = &mut draft.sites[index] {
            site.routes = routes;
        }
    }
}

/// What AWS's side tells the site: the VPC's blocks, or what the attachment's route table leads to.
fn advertised(draft: &Draft, link: usize) -> Vec<Cidr> {
    match draft.links[link].end {
        LinkEnd::Vgw(vgw) => {
            let vpc = draft.vgws.get(vgw).and_then(|vgw| draft.vpcs[vgw.vpc].as_ref());
            vpc.map(|vpc| vpc.cidrs.clone()).unwrap_or_default()
        }
        LinkEnd::Tgw(attachment) => {
            let table = draft.tgw_attachments.get(attachment).and_then(|a| a.as_ref()).and_then(|a| a.route_table);
            let Some(Some(table)) = table.map(|at| &draft.tgw_route_tables[at]) else { return Vec::new() };
            let others = table.routes.iter().filter(|route| match route.target {
                TgwTarget::Blackhole => false,
                TgwTarget::Attachment(at) => at != attachment,
            });
            others.map(|route| route.to).collect()
        }
    }
}

/// The VPC attachment's blocks, or the site's: what an attachment propagates.
pub fn blocks_behind(draft: &Draft, attachment: usize) -> Vec<Cidr> {
    match draft.tgw_attachments.get(attachment).and_then(|a| a.as_ref()).map(|a| &a.to) {
        Some(AttachmentTo::Vpc(to)) => draft.vpcs[to.vpc].as_ref().map(|vpc| vpc.cidrs.clone()).unwrap_or_default(),
        Some(AttachmentTo::Link(link)) => draft.links[*link].site_blocks.clone(),
        None => Vec::new(),
    }
}

/// No ENI yet.
pub const UNPLACED: EniIx = EniIx(0);
