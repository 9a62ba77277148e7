//! Networks joined to each other and to the world outside: what is written, and what the plan says.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use vpclab::base::Cidr;
use vpclab::model::plan::{
    AttachmentTo, EniOwner, Fault, Forward, Home, Impair, InstanceHome, Latency, LinkEnd, LinkKind, Plan, RouteTarget,
    SiteTarget, TgwTarget,
};
use vpclab::model::{Around, Loaded, Source, diff, fault, load};

const JOINED: &str = include_str!("data/everything-joined.yaml");

fn loaded(text: &str) -> Loaded {
    load(&[Source::new("joined.yaml", text)], &Around::default()).unwrap_or_else(|r| panic!("{}", r.render(false)))
}

fn plan() -> Plan {
    loaded(JOINED).plan
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn attachment(p: &Plan, path: &str) -> usize {
    p.tgw_attachments.iter().position(|a| a.common.path == path).unwrap_or_else(|| panic!("attachment {path}"))
}

fn tgw_routes(p: &Plan, path: &str) -> Vec<String> {
    let table = p.tgw_route_tables.iter().find(|t| t.common.path == path).unwrap_or_else(|| panic!("table {path}"));
    table.routes.iter().map(|r| p.tgw_route_text(r)).collect()
}

fn site_routes(p: &Plan, name: &str) -> Vec<String> {
    let site = p.sites.iter().find(|s| s.common.name == name).expect("a site");
    site.routes.iter().map(|r| format!("{}{}", p.site_route_text(r), if r.learned { " learned" } else { "" })).collect()
}

#[test]
fn peerings_know_their_sides_and_their_mtu() {
    let p = plan();
    let [near, far] = &p.peerings[..] else { panic!("two") };
    assert_eq!((near.common.id.as_str(), near.common.description.as_str()), ("pcx-0123456789abcdef0", "the two"));
    assert_eq!(near.common.tags, [("side".to_owned(), "inner".to_owned())]);
    assert_eq!((near.requester, near.accepter, near.dns, near.same_region), (0, 1, true, true));
    assert_eq!((near.mtu(), far.mtu()), (9_001, 8_500), "between regions it is smaller");
    assert!(!far.dns && !far.same_region && far.common.id.starts_with("pcx-0"));
    let all = p.route_tables.iter().find(|t| t.common.name == "all").expect("table");
    let target = |to: &str| all.routes.iter().find(|r| p.dest_text(r.to) == to).expect(to).target;
    assert_eq!(target("10.1.0.0/16"), RouteTarget::Peering(0));
    assert_eq!(target("10.2.0.0/16"), RouteTarget::Tgw(0));
    assert_eq!(target("172.16.0.0/16"), RouteTarget::Vgw(0));
}

#[test]
fn transit_gateways_have_an_interface_in_each_zone() {
    let p = plan();
    let core = &p.transit_gateways[0];
    assert_eq!(
        (core.common.id.as_str(), core.account.as_str(), core.pmtud),
        ("tgw-0123456789abcdef0", "444455556666", false)
    );
    assert_eq!(core.attachments.len(), 6, "five are written, the branch's VPN makes one");
    let hub = &p.tgw_attachments[attachment(&p, "core.hub")];
    assert_eq!(hub.common.id, "tgw-attach-0123456789abcdef0");
    let AttachmentTo::Vpc(to) = &hub.to else { panic!("a VPC") };
    assert!(to.appliance_mode && to.security_group_referencing && to.vpc == 0);
    let seen: Vec<(&str, String, String)> = to
        .subnets
        .iter()
        .map(|(subnet, eni)| {
            let eni_plan = p.eni(*eni);
            assert_eq!(eni_plan.owner, EniOwner::TgwAttachment(attachment(&p, "core.hub")));
            assert!(eni_plan.security_groups.is_empty() && !eni_plan.source_dest_check);
            (p.subnets[*subnet].common.name.as_str(), eni_plan.ip.to_string(), p.eni_label(*eni))
        })
        .collect();
    assert_eq!(seen, [("tgw-a", "10.0.250.4".into(), "hub@a".into()), ("tgw-b", "10.0.250.20".into(), "hub@b".into())]);
}

#[test]
fn tables_hold_static_routes_then_what_is_propagated_by_rank() {
    let p = plan();
    assert_eq!(
        tgw_routes(&p, "core.inner"),
        [
            "0.0.0.0/0 via hub",
            "10.66.0.0/16 blackhole",
            "10.0.0.0/16 via hub",
            // Direct Connect hides the VPN's equal blocks.
            "192.168.0.0/16 via cage",
            "172.17.0.0/24 via cage",
        ]
    );
    // The twin's identical block is not propagated; a VPN with static routing is reached by a static route.
    assert_eq!(
        tgw_routes(&p, "core.outer"),
        ["172.20.1.0/24 via branch-vpn", "10.0.0.0/16 via hub", "10.2.0.0/16 via other"]
    );
    let inner = p.tgw_route_tables.iter().position(|t| t.common.path == "core.inner");
    let outer = p.tgw_route_tables.iter().position(|t| t.common.path == "core.outer");
    let of = |path: &str| p.tgw_attachments[attachment(&p, path)].route_table;
    assert_eq!((of("core.hub"), of("core.other"), of("core.twin")), (inner, inner, outer));
    assert_eq!((of("core.office"), of("core.branch-vpn")), (outer, outer));
    // Left out: one table for all, to which all propagate.
    assert_eq!(
        tgw_routes(&p, "plain.default"),
        ["10.1.0.0/16 via spoke", "10.11.0.0/16 via spoke", "172.18.0.0/30 via house-vpn"]
    );
    let id = &p.tgw_route_tables.iter().find(|t| t.common.path == "plain.default").expect("table").common.id;
    assert!(id.starts_with("tgw-rtb-0"), "{id}");
    let blackhole = &p.tgw_route_tables[inner.expect("inner")].routes[1];
    assert!(blackhole.target == TgwTarget::Blackhole && !blackhole.propagated);
}

#[test]
fn sites_learn_what_awss_side_advertises_and_keep_what_is_written() {
    let p = plan();
    assert_eq!(
        site_routes(&p, "office"),
        [
            "198.18.0.16/28 via office/vpn",
            "10.66.0.0/16 blackhole",
            // Of the table that its attachments are associated with, by Direct Connect first.
            "172.20.1.0/24 via office/direct_connect learned",
            "10.0.0.0/16 via office/direct_connect learned",
            "10.2.0.0/16 via office/direct_connect learned",
            "172.20.1.0/24 via office/vpn learned",
            "10.0.0.0/16 via office/vpn learned",
            "10.2.0.0/16 via office/vpn learned",
        ]
    );
    assert_eq!(site_routes(&p, "branch"), ["10.0.0.0/8 via branch/vpn"], "static: nothing is learned");
    let private = ["10.0.0.0/16 via cage/direct_connect learned", "10.0.0.0/16 via cage/vpn learned"];
    assert_eq!(site_routes(&p, "cage"), private);
    assert_eq!(p.sites[0].common.id, "cgw-0123456789abcdef0");
    assert_eq!(p.sites[0].gateway, ip("192.168.0.1"));
    assert!(matches!(p.sites[0].routes[0].via, SiteTarget::Link(_)));
}

#[test]
fn links_have_their_tunnels_and_ends() {
    let p = plan();
    let link = |path: &str| p.links.iter().find(|l| l.common.path == path).unwrap_or_else(|| panic!("link {path}"));
    let office = link("office/vpn");
    assert_eq!(office.common.id, "vpn-0123456789abcdef0");
    assert_eq!(office.end, LinkEnd::Tgw(attachment(&p, "core.office")));
    let LinkKind::Vpn { tunnels, static_routing: false, stateful: true } = &office.kind else {
        panic!("{:?}", office.kind)
    };
    let seen: Vec<_> = tunnels.iter().map(|t| (t.mtu, t.mss, t.preferred_by_site, t.preferred_by_aws)).collect();
    assert_eq!(seen, [(1_400, None, true, false), (1_390, Some(1_300), false, true)]);
    assert_eq!(link("office/direct_connect").kind, LinkKind::DirectConnect { mtu: 8_500 });
    assert_eq!(link("office/direct_connect").common.tags, [("speed".to_owned(), "10G".to_owned())]);
    assert_eq!(link("office/direct_connect").end, LinkEnd::Tgw(attachment(&p, "core.cage")));
    let branch = link("branch/vpn");
    let LinkKind::Vpn { tunnels, static_routing: true, stateful: false } = &branch.kind else {
        panic!("{:?}", branch.kind)
    };
    assert_eq!(tunnels.iter().map(|t| (t.mtu, t.mss)).collect::<Vec<_>>(), [(1_446, Some(1_406))]);
    assert_eq!(branch.site_blocks, ["172.20.1.0/24".parse::<Cidr>().expect("block")]);
    let cage = link("cage/vpn");
    assert_eq!(cage.end, LinkEnd::Vgw(0));
    assert!(matches!(&cage.kind, LinkKind::Vpn { tunnels, .. } if tunnels.len() == 2));
    assert_eq!(p.vgws[0].links.len(), 2);
    let named = |at: &usize| p.links[*at].common.path.as_str();
    assert_eq!(p.vgws[0].links.iter().map(named).collect::<Vec<_>>(), ["cage/vpn", "cage/direct_connect"]);
}

#[test]
fn hosts_outside_have_addresses_and_no_groups() {
    let p = plan();
    let at = |path: &str| p.find_instance(path).unwrap_or_else(|e| panic!("{path}: {e:?}"));
    let pc = &p.instances[at("office.pc")];
    assert_eq!((pc.home, pc.mtu, pc.role), (InstanceHome::Site(0), 9_001, None));
    assert_eq!(pc.env, [("STAGE".to_owned(), "office".to_owned())]);
    assert_eq!((pc.listen.len(), pc.run.len()), (1, 1));
    let address = |path: &str| {
        let eni = p.eni(p.instances[at(path)].enis[0]);
        assert!(eni.security_groups.is_empty());
        (eni.home, eni.ip.to_string())
    };
    // .10 is written at another host, so the first one left out gets the next.
    assert_eq!(address("office.pc"), (Home::Site(0), "192.168.0.11".into()));
    assert_eq!(address("office.fixed"), (Home::Site(0), "192.168.0.10".into()));
    assert_eq!(address("house.only"), (Home::Site(3), "172.18.0.2".into()), "a small network has small numbers");
    assert_eq!(address("internet.example"), (Home::Internet, "198.51.100.80".into()));
    assert_eq!(address("internet.next"), (Home::Internet, "192.0.2.10".into()));
    let firewall = &p.instances[at("office.firewall")];
    assert_eq!(firewall.forward, Some(Forward::Stateful));
    assert!(!p.eni(firewall.enis[0]).source_dest_check);
    let example = &p.instances[at("example")];
    assert_eq!(example.names, ["www.example.com", "example.com"]);
    assert_eq!((example.mtu, example.home), (1_500, InstanceHome::Internet));
}

#[test]
fn impairments_and_faults_mean_the_same_in_the_file_and_on_the_command_line() {
    let p = plan();
    assert_eq!(p.latency, Latency::Aws);
    let web = p.find_instance("web").expect("web");
    let wanted = Impair {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        loss_ppm: 15_000,
        rate: Some(10_000_000),
        down: false,
        seed: Some(7),
    };
    assert_eq!(p.instances[web].impair, Some(wanted));
    let titles: Vec<&str> = p.faults.iter().map(|f| f.title.as_str()).collect();
    let expected = [
        "az a",
        "endpoint hub.sts in b",
        "tunnel office/2",
        "instance hub.api",
        "instance hub.web",
        "link hub.web down delay 10ms jitter 1ms loss 10% rate 1gbit seed 3",
    ];
    assert_eq!(titles, expected);
    assert_eq!((p.faults[0].after, p.faults[0].lasts), (None, Some(Duration::from_secs(30))));
    assert_eq!(p.faults[1].after, Some(Duration::from_secs(5)));
    assert_eq!(p.faults[0].what, Fault::Zone { az_id: "euw1-az1".into() });
    let sts = p.find_endpoint("sts").expect("sts");
    let in_b = vec![p.endpoints[sts].enis[1]];
    assert_eq!(p.faults[1].what, Fault::Endpoint { endpoint: sts, enis: in_b });
    for (n, words) in [
        "az a",
        "endpoint sts b",
        "tunnel office/2",
        "target api",
        "instance hub.web",
        "link web delay 10ms jitter 1ms loss 10% rate 1gbit down seed 3",
    ]
    .iter()
    .enumerate()
    {
        let words: Vec<&str> = words.split(' ').collect();
        let read = fault::parse(&p, &words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        assert_eq!((&read.what, &read.title), (&p.faults[n].what, &p.faults[n].title), "{words:?}");
    }
    // Zones go by name and id too, and a letter of two regions is the lab's own.
    for zone in ["eu-west-1a", "euw1-az1"] {
        assert_eq!(fault::parse(&p, &["az", zone]).expect(zone).what, p.faults[0].what);
    }
    assert_eq!(fault::parse(&p, &["az", "use1-az1"]).expect("far").what, Fault::Zone { az_id: "use1-az1".into() });
    let whole = fault::parse(&p, &["endpoint", "hub.sts"]).expect("whole");
    assert!(matches!(whole.what, Fault::Endpoint { enis, .. } if enis.len() == 2));
    for (words, part) in [
        (&["az", "z"][..], "there are: a, b"),
        (&["endpoint", "sqs"], "there are: hub.sts"),
        (&["endpoint", "sts", "c"], "in the zone `c`"),
        (&["tunnel", "office/3"], "write SITE/1"),
        (&["tunnel", "office/0"], "write SITE/1"),
        (&["tunnel", "office"], "write SITE/1"),
        (&["instance", "nobody"], "no instance is named `nobody`"),
        (&["link", "web", "loss"], "wants a value"),
        (&["link", "web", "speed", "1"], "not delay"),
        (&["meteor"], "is no fault"),
        (&[], "a fault is"),
    ] {
        let message = fault::parse(&p, words).expect_err("refused");
        assert!(message.contains(part), "{words:?}: {message}");
    }
}

#[test]
fn what_looks_wrong_but_is_allowed_is_a_warning() {
    let warnings: Vec<String> = loaded(JOINED).warnings.problems.iter().map(|p| p.message.clone()).collect();
    let twin =
        "transit gateway route table core.outer: 10.2.0.0/16 of twin is not propagated: other has the identical block";
    assert_eq!(warnings, [twin]);
    let text = "version: 1
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    virtual_private_gateway: true
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
transit_gateways: { core: { attachments: { app: { vpc: app, subnets: [a] } } } }
on_prem:
  same: { cidr: 10.0.128.0/17, vpn: { to: vgw:app } }
  mute: { cidr: 192.168.0.0/16, vpn: { to: tgw:core, routing: static } }
";
    let mut seen: Vec<String> = loaded(text).warnings.problems.iter().map(|p| p.message.clone()).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "site mute: its VPN has static routing, and no route leads into it",
            "site same: its 10.0.128.0/17 overlaps 10.0.0.0/16 of VPC app, to which it is joined",
            "transit gateway core: a VPN with static routing propagates nothing: mute-vpn",
        ]
    );
}

#[test]
fn a_change_shows_as_what_it_changes() {
    let old = plan();
    let patch = "
peerings: { hub-far: null, hub-spoke: { dns: false } }
transit_gateways: { core: { pmtud: true, route_tables: { inner: { routes: [] } } } }
on_prem: { branch: { routes: [ { to: 10.0.0.0/16, via: vpn } ], vpn: { tunnels: 2 } } }
vpcs:
  hub:
    instances: { web: { impair: null, public_ip: 'eip:back' }, api: { names: [api.example.com], forward: masquerade, source_dest_check: false } }
latency: off
faults: [ { az: a, for: 60s } ]
";
    let sources = [Source::new("joined.yaml", JOINED), Source::new("patch.yaml", patch)];
    let new = load(&sources, &Around::default()).unwrap_or_else(|r| panic!("{}", r.render(false))).plan;
    assert_eq!(diff(&old, &old), []);
    let mut seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    seen.iter_mut().for_each(|text| *text = text.lines().next().unwrap_or_default().to_owned());
    for wanted in [
        "~ lab latency",
        "~ instance hub.web",
        "~ instance hub.api",
        "+ public address back",
        "- public address front",
        "~ peering hub-spoke",
        "- peering hub-far",
        "~ transit gateway core",
        "~ transit gateway route table core.inner",
        "~ site branch",
        "~ link branch/vpn",
        "~ fault az a",
        "- fault tunnel office/2",
    ] {
        assert!(seen.iter().any(|text| text == wanted), "{wanted}: {seen:#?}");
    }
    // An instance more moves indices, and is no change of a fault.
    let more = [
        Source::new("joined.yaml", JOINED),
        Source::new("more.yaml", "vpcs: { hub: { instances: { aaa: { subnet: a, ip: 10.0.1.99 } } } }"),
    ];
    let new = load(&more, &Around::default()).unwrap_or_else(|r| panic!("{}", r.render(false))).plan;
    let seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert!(seen.iter().all(|text| text.starts_with("+ ") && text.contains("hub.aaa")), "{seen:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// A good file in which words changed places, vanished or were doubled: a plan, or problems that have a place.
    #[test]
    fn files_with_words_out_of_place_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..4), 1..8),
    ) {
        let mut words: Vec<&str> = JOINED.split_inclusive([' ', '\n', ',', ':', '[', ']', '{', '}']).collect();
        for (one, other, what) in edits {
            let (one, other) = (one.index(words.len()), other.index(words.len()));
            match what {
                0 | 1 => words[one] = words[other],
                2 => words.swap(one, other),
                _ => { words.remove(one); }
            }
        }
        match load(&[Source::new("joined.yaml", words.concat())], &Around::default()) {
            Ok(loaded) => {
                // What was accepted can be shown, compared and broken.
                prop_assert!(diff(&loaded.plan, &loaded.plan).is_empty());
                let _ = fault::parse(&loaded.plan, &["az", "a"]);
            }
            Err(report) => {
                prop_assert!(!report.is_empty());
                prop_assert!(report.problems.iter().all(|p| p.line > 0 && p.col > 0), "{report}");
            }
        }
    }
}
