//! What is accepted, and what it means: the topologies that come with the program, and one that has every key.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use vpclab::base::{Cidr, EniIx, PortRange, Proto};
use vpclab::model::plan::{
    Backend, BucketFiles, CheckWhat, EndpointKind, EniOwner, Expect, Forward, Home, ListenReply, Plan, Policy,
    RouteTarget, SgPeer, TrafficMatch, UpstreamAddr,
};
use vpclab::model::spec::keys::{self, Noun, Shape};
use vpclab::model::{Around, Files, Loaded, Source, diff, load};

const EVERYTHING: &str = include_str!("data/everything.yaml");
const JOINED: &str = include_str!("data/everything-joined.yaml");

/// A folder of the tests' own.
struct Folder;

impl Files for Folder {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match path.to_str() {
            Some("labs/allow.json") => Ok(br#"{"Version":"2012-10-17","Statement":[]}"#.to_vec()),
            Some("labs/allow.yaml") => Ok(b"Statement:\n  - { Effect: Allow, Action: '*', Resource: '*' }\n".to_vec()),
            _ => Err("no such file".into()),
        }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.starts_with("labs/www") || path.starts_with("labs/reports")
    }
}

fn env(name: &str) -> Option<String> {
    (name == "GREETING").then(|| "hello".to_owned())
}

fn around() -> Around<'static> {
    Around { env: &env, files: &Folder, name: None }
}

fn good(sources: &[Source]) -> Loaded {
    load(sources, &around()).unwrap_or_else(|r| panic!("{}", r.render(false)))
}

fn everything() -> Plan {
    good(&[Source::new("labs/everything.yaml", EVERYTHING)]).plan
}

#[test]
fn the_topologies_of_the_repository_are_good_and_cause_no_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("topologies") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let source = Source::new(path.display().to_string(), std::fs::read(&path).expect("readable"));
            let loaded = good(&[source]);
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.render(false));
            count += 1;
        }
    }
    assert!(count >= 3);
}

/// The other half of "no key is accepted without effect": every key of the tables is used in this file, and the
/// loader refuses what no reader takes.
#[test]
fn the_file_with_everything_has_every_key_of_this_version() {
    let mut missing = Vec::new();
    let mut nouns: Vec<&'static Noun> = vec![&keys::TOP];
    let mut at = 0;
    while at < nouns.len() {
        for key in nouns[at].all().filter(|k| k.usable()) {
            if ![EVERYTHING, JOINED].iter().any(|text| text.contains(&format!("{}:", key.name))) {
                missing.push(format!("{}: {}", nouns[at].name, key.name));
            }
            let below: &[&'static Noun] = match key.shape {
                Shape::Noun(n) | Shape::Named(n) | Shape::List(n) | Shape::ListOrTexts(n) | Shape::NounOrText(n) => {
                    &[n]
                }
                Shape::SgRules => &[&keys::SG_RULE],
                Shape::NaclRules => &[&keys::NACL_RULE],
                _ => &[],
            };
            for n in below {
                if !nouns.iter().any(|known| std::ptr::eq(*known, *n)) {
                    nouns.push(n);
                }
            }
        }
        at += 1;
    }
    assert!(nouns.len() > 20);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn what_is_written_is_what_the_plan_says() {
    let p = everything();
    assert_eq!((p.name.as_str(), p.default_account.as_str()), ("everything", "111122223333"));
    assert_eq!(p.dir, Path::new("labs"));
    let app = &p.vpcs[0];
    assert_eq!((app.common.id.as_str(), app.account.as_str()), ("vpc-0123456789abcdef0", "444455556666"));
    assert_eq!(app.common.tags, [("greeting".to_owned(), "hello ${HOME}".to_owned())]);
    assert_eq!(app.common.description, "the main one");
    assert_eq!(app.cidrs.len(), 2);
    assert!(app.dns_support && app.dns_hostnames);
    let a = &p.subnets[0];
    assert_eq!((a.az, a.az_name.as_str(), a.az_id.as_str()), ('a', "eu-west-1a", "euw1-az3"));
    // The other letters take what is left.
    assert_eq!(p.subnets[1].az_id, "euw1-az1");
    assert_eq!(p.route_tables[a.route_table].common.name, "through-router");
    assert_eq!(p.network_acls[a.nacl].common.name, "strict");
    assert_eq!(p.route_tables[p.subnets[1].route_table].common.path, "app.main");

    let public = |name: &str| p.public_addresses.iter().find(|a| a.common.name == name).expect(name).addr;
    let routes = &p.route_tables[a.route_table].routes;
    let router = p.find_instance("router").expect("router");
    let target = |to: &str| routes.iter().find(|r| p.dest_text(r.to) == to).expect(to).target;
    assert_eq!(target("10.0.0.0/16"), RouteTarget::Local);
    assert_eq!(target("192.168.0.0/16"), RouteTarget::Eni(p.instances[router].enis[1]));
    assert_eq!(target("172.16.0.0/12"), RouteTarget::Blackhole);
    let web = p.find_instance("app.web").expect("web");
    assert_eq!(target("10.0.2.0/24"), RouteTarget::Eni(p.instances[web].enis[0]));

    let strict = &p.network_acls[a.nacl];
    let texts: Vec<&str> = strict.ingress.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        ["90 deny udp 53 from 10.9.0.0/16", "100 allow tcp all from 10.0.0.0/8", "200 allow icmp 3/4 from 0.0.0.0/0"]
    );
    assert_eq!(strict.egress.len(), 1);
    assert!(!strict.default);

    let group = |name: &str| p.security_groups.iter().position(|g| g.common.name == name).expect(name);
    let rules = &p.security_groups[group("app")];
    let texts: Vec<&str> = rules.ingress.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "tcp 443 from sg:doors",
            "tcp 80 from 10.0.0.0/8",
            "tcp 8080-8090 from 10.0.0.0/8",
            "udp all from self",
            "icmp 8 from 0.0.0.0/0",
            "proto 47 from 10.0.0.0/8",
            "tcp all from 10.1.0.0/16",
            "tcp all from 10.2.0.0/16",
            "tcp 22 from pl:offices",
            "tcp 443 from pl:partners",
            &format!("tcp 80 from {}/32", public("nat-1")),
        ]
    );
    assert_eq!(rules.ingress[0].peer, SgPeer::Group(group("doors")));
    assert_eq!(rules.ingress[3].peer, SgPeer::Group(group("app")));
    assert_eq!(rules.ingress[2].matches.ports, PortRange { first: 8080, last: 8090 });
    assert_eq!(rules.ingress[4].matches.icmp, (Some(8), None));
    assert_eq!(rules.ingress[5].matches, TrafficMatch { proto: Some(Proto(47)), ..TrafficMatch::ALL });
    assert!(rules.egress.is_empty(), "[] allows nothing");
    let default = &p.security_groups[app.default_security_group];
    assert!(default.ingress[0].implied && default.ingress[0].peer == SgPeer::Group(app.default_security_group));

    let i = &p.instances[web];
    assert_eq!((i.mtu, i.imds_v2_required, i.imds_hop_limit), (1_500, true, 2));
    assert_eq!(i.user_data.as_deref(), Some("#!/bin/sh\necho hello\n"));
    let igw = &p.internet_gateways[0].common.id;
    let env = [("STAGE", "test"), ("LIST", "192.168.1.0/24, 192.168.2.0/24"), ("IGW", igw)];
    assert_eq!(i.env, env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(p.roles[i.role.expect("a role")].common.name, "web-role");
    assert_eq!(i.listen.len(), 7);
    assert_eq!(i.listen[0].reply, ListenReply::Directory("labs/www".into()));
    assert_eq!(
        (i.listen[1].proto, i.listen[1].port, i.listen[1].tls.as_deref()),
        (Proto::TCP, 443, Some("web.example.com"))
    );
    assert_eq!(i.run[0].cmd, "echo ${USER}");
    assert_eq!(i.run[1].user.as_deref(), Some("root"));

    let many: Vec<&str> =
        p.instances.iter().filter(|i| i.common.name.starts_with("many")).map(|i| i.common.path.as_str()).collect();
    assert_eq!(many, ["app.many-1", "app.many-2", "app.many-3"]);

    let s3 = &p.endpoints[p.find_endpoint("s3").expect("s3")];
    assert_eq!(p.eni(s3.enis[0]).ip, Ipv4Addr::new(10, 0, 1, 50));
    assert!(
        matches!(&s3.policy, Policy::Document(d) if d["Statement"][0]["Resource"][0] == format!("{}/*", s3.common.id))
    );
    assert!(!s3.private_dns);
    let registry = &p.endpoints[p.find_endpoint("registry").expect("registry")];
    assert_eq!(p.services[registry.service].name, "ecr.api");
    assert!(registry.names.regional.contains(".api.ecr.eu-west-1.vpce.amazonaws.com"));
    assert!(matches!(&registry.policy, Policy::Document(d) if d["Statement"][0]["Effect"] == "Allow"));
    assert_eq!(p.services[registry.service].ports, [443, 8443]);
    let Backend::Http { tls: false, authority, addr: UpstreamAddr::Loopback(addr) } =
        &p.services[registry.service].backend
    else {
        panic!("{:?}", p.services[registry.service].backend)
    };
    assert_eq!((authority.as_str(), addr.to_string().as_str()), ("localhost:5000", "127.0.0.1:5000"));

    let service = |name: &str, region: &str| {
        p.services.iter().find(|s| s.name == name && s.region == region).unwrap_or_else(|| panic!("{name} {region}"))
    };
    let buckets = &service("s3", "eu-west-1").contents.buckets;
    assert_eq!(buckets[0].files, BucketFiles::Directory("labs/reports".into()));
    assert_eq!(buckets[1].files, BucketFiles::Inline(vec![("a/b.txt".into(), "1".into())]));
    assert_eq!(service("s3", "eu-west-1").data.as_deref(), Some(Path::new("labs/data")));
    assert_eq!(service("s3", "us-east-1").contents.buckets[0].name, "far-away");
    assert_eq!(service("secretsmanager", "eu-west-1").contents.secrets, [("db/password".to_owned(), "012".to_owned())]);
    let tables = &service("dynamodb", "eu-west-1").contents.tables;
    assert_eq!((tables[0].name.as_str(), &tables[0].sort), ("users", &Some(("at".to_owned(), 'N'))));
    assert_eq!(
        tables[0].items[0].to_string(),
        r#"{"id":{"S":"012"},"at":{"N":"1"},"tags":{"L":[{"S":"a"},{"N":"2"},{"BOOL":true}]}}"#
    );
    assert!(tables[1].items.is_empty() && tables[1].sort.is_none());
    assert_eq!(service("sqs", "eu-west-1").account, "111122223333");

    assert_eq!(p.checks[0].what, CheckWhat::To(format!("https://{}", s3.names.zonal[0].1)));
    assert_eq!(p.checks[0].via.as_deref(), Some("endpoint:app.s3"));
    assert_eq!(p.checks[0].not_via.as_deref(), Some("endpoint:app.registry"));
    assert_eq!(p.checks[0].within, Duration::from_secs(5));
    assert_eq!(
        p.checks[1].expect,
        Expect::Result { exit: Some(0), stdout: Some("hello".into()), stderr: Some("".into()), in_cidr: None }
    );
    assert_eq!(p.checks[2].what, CheckWhat::Dns("web.internal".into(), "AAAA".into()));

    assert_eq!(p.limits.endpoint_idle, Duration::from_secs(10));
    assert_eq!(p.limits.sg_udp_stream, Duration::from_secs(3), "180 s, sixty times as fast");
    assert_eq!((p.limits.dns_ttl, p.limits.dns_pps, p.limits.conntrack_max, p.limits.syn_retries), (1, 100, 1_000, 2));
}

#[test]
fn what_is_written_of_gateways_is_what_the_plan_says() {
    let p = everything();
    let at = |kind: &str, paths: Vec<&str>, path: &str| {
        paths.iter().position(|p| *p == path).unwrap_or_else(|| panic!("no {kind} {path}"))
    };
    let paths = |of: Vec<&vpclab::model::plan::Common>| of.iter().map(|c| c.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(p.nat_gateways.iter().map(|n| &n.common).collect()), ["app.nat-a", "app.inside"]);
    let table = |name: &str| at("table", p.route_tables.iter().map(|t| t.common.path.as_str()).collect(), name);
    let text = |name: &str| -> Vec<String> {
        p.route_tables[table(name)].routes.iter().map(|route| p.route_text(route)).collect()
    };
    // Local routes, what is written, what gateway endpoints add.
    assert_eq!(
        text("app.through-router"),
        [
            "10.0.0.0/16 local",
            "10.1.0.0/16 local",
            "192.168.0.0/16 via router/eth1",
            "172.16.0.0/12 blackhole",
            "10.0.2.0/24 via web",
            "10.0.0.0/24 via nat:inside",
            "0.0.0.0/0 via nat:nat-a",
            "pl:offices via vgw",
            "pl:com.amazonaws.eu-west-1.s3 via endpoint:s3-gateway",
            "pl:com.amazonaws.eu-west-1.dynamodb via endpoint:dynamodb",
        ]
    );
    assert_eq!(p.internet_gateways[0].edge_table, Some(table("app.incoming")));
    assert_eq!((p.internet_gateways.len(), p.vgws.len(), p.vgws[0].edge_table), (1, 1, None));

    let nat = &p.nat_gateways[0];
    assert!(nat.public && !p.nat_gateways[1].public);
    assert_eq!(nat.addresses.len(), 2, "one for each Elastic IP");
    assert_eq!((p.eni(nat.eni).ip, p.eni(nat.eni).owner), (nat.addresses[0], EniOwner::NatGateway(0)));
    assert!(p.eni(nat.eni).security_groups.is_empty());
    let inside = |ip: Ipv4Addr| p.subnets[nat.subnet].cidr.contains(ip) && p.enis.iter().all(|e| e.ip != ip);
    assert!(inside(nat.addresses[1]), "{:?}", nat.addresses);

    let public: Vec<(&str, bool)> = p.public_addresses.iter().map(|a| (a.common.path.as_str(), a.elastic)).collect();
    // `hidden` wants none though its subnet gives them.
    assert_eq!(public, [("web", true), ("app.public/eth0", false), ("nat-1", true), ("nat-2", true)]);
    let mut addresses: Vec<Ipv4Addr> = p.public_addresses.iter().map(|a| a.addr).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    assert!(addresses.iter().all(|a| a.octets()[..3] == [203, 0, 113]));
    assert_eq!(p.public_addresses[3].private, nat.addresses[1]);

    let lists: Vec<(&str, u32, bool)> =
        p.prefix_lists.iter().map(|l| (l.list_name.as_str(), l.max_entries, l.aws)).collect();
    assert_eq!(
        lists,
        [
            ("offices", 10, false),
            ("partners", 1, false),
            ("com.amazonaws.eu-west-1.s3", 1, true),
            ("com.amazonaws.eu-west-1.dynamodb", 1, true),
        ]
    );
    // The file has moved S3, and its names with it.
    assert_eq!(p.prefix_lists[2].entries.len(), 2);
    let s3 = p.public_blocks.addr("s3.eu-west-1.amazonaws.com").expect("S3");
    assert!(p.prefix_lists[2].entries[0].contains(s3));
    assert_eq!(p.public_blocks.service_at(s3).map(|(service, _)| service.name), Some("s3"));
    let doors = &p.security_groups
        [at("group", p.security_groups.iter().map(|g| g.common.path.as_str()).collect(), "app.doors")];
    assert_eq!(doors.egress[1].peer, SgPeer::PrefixList(2));
    let strict = p.network_acls.iter().find(|n| n.common.name == "strict").expect("strict");
    assert_eq!(strict.egress[0].peer, p.prefix_lists[3].entries[0], "what `${{lab:pl.dynamodb.cidrs}}` put in");

    let gateway = &p.endpoints[p.find_endpoint("s3-gateway").expect("s3-gateway")];
    let EndpointKind::Gateway { route_tables, prefix_list, door } = &gateway.kind else { panic!("{:?}", gateway.kind) };
    assert_eq!(
        (route_tables.as_slice(), *prefix_list),
        ([table("app.through-router"), table("app.main")].as_slice(), 2)
    );
    assert_eq!((p.eni(*door).home, p.eni(*door).ip), (Home::Internet, Ipv4Addr::UNSPECIFIED));
    assert_eq!(p.public_side, Some(EniIx(p.enis.len() as u32 - 1)), "the last: it moves nobody");

    let instance = |name: &str| &p.instances[p.find_instance(name).expect(name)];
    assert_eq!(instance("web").names, ["db.example.rds.amazonaws.com"]);
    let forwards = ["app.web", "public", "hidden", "router"].map(|name| instance(name).forward);
    assert_eq!(forwards, [Some(Forward::Masquerade), Some(Forward::Plain), Some(Forward::Stateful), None]);
    assert_eq!(instance("app.web").tracking.udp_stream, Some(Duration::from_secs(100)));
    assert_eq!(instance("hidden").tracking.tcp_idle, Some(Duration::from_secs(350)), "nitro: 6");

    assert_eq!((p.limits.nat_idle, p.limits.nat_ports), (Duration::from_secs(20), 4));
    assert_eq!((p.limits.endpoint_health, p.limits.egress_fragments), (Duration::from_secs(1), 10));
}

/// The model cannot see the engine, so its list of codes is its own.
#[test]
fn every_code_of_the_engine_can_be_expected_by_a_check() {
    for code in vpclab::engine::verdict::DropCode::ALL {
        let text = format!(
            "version: 1\nregion: eu-west-1\nvpcs: {{ app: {{ cidr: 10.0.0.0/16 }} }}\nchecks: [ {{ from: any, to: x, expect: {code} }} ]\n"
        );
        match load(&[Source::new("a.yaml", text)], &around()) {
            Ok(loaded) => assert_eq!(loaded.plan.checks[0].expect, Expect::Code(code.to_string())),
            Err(report) => {
                assert!(code.as_str() == "LINK_IMPAIRED" && report.to_string().contains("not in this version"));
            }
        }
    }
}

#[test]
fn addresses_without_ip_are_the_lowest_free_ones() {
    let p = everything();
    let ip =
        |path: &str| p.enis.iter().find(|e| e.common.path == path).unwrap_or_else(|| panic!("{path}")).ip.to_string();
    // Fixed are .4 (fixed), .10 (web) and .50 (endpoint s3).
    assert_eq!(ip("app.many-1/eth0"), "10.0.1.5");
    assert_eq!(ip("app.many-3/eth0"), "10.0.1.7");
    assert_eq!(ip("app.registry@a"), "10.0.1.8", "endpoints come after instances");
    let mut seen = std::collections::HashSet::new();
    for e in p.enis.iter().filter(|e| e.subnet().is_some()) {
        let s = &p.subnets[e.subnet().expect("in a subnet")];
        assert!(seen.insert((e.home.subnet(), e.ip)), "{}", e.ip);
        assert!(s.cidr.contains(e.ip) && e.ip.to_bits() >= s.cidr.network().to_bits() + 4 && e.ip != s.cidr.last());
    }
}

#[test]
fn the_same_file_gives_the_same_plan_and_ids_depend_on_lab_and_name_only() {
    let (one, two) = (everything(), everything());
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
    assert!(diff(&one, &two).is_empty());
    let named = Around { name: Some("other"), ..around() };
    let other = load(&[Source::new("labs/everything.yaml", EVERYTHING)], &named).expect("good").plan;
    assert_ne!(one.subnets[0].common.id, other.subnets[0].common.id);
    assert_eq!(one.vpcs[0].common.id, other.vpcs[0].common.id, "written ids stay");
    for (n, eni) in one.enis.iter().enumerate() {
        let owners = match eni.owner {
            vpclab::model::plan::EniOwner::Instance(i, k) => one.instances[i].enis[usize::from(k)],
            vpclab::model::plan::EniOwner::Endpoint(e) => {
                *one.endpoints[e].enis.iter().find(|x| one.eni(**x).ip == eni.ip).expect("its own")
            }
            _ => EniIx(n as u32),
        };
        assert_eq!(owners, EniIx(n as u32));
    }
}

#[test]
fn aws_defaults_and_ours_differ_where_the_table_says() {
    let text =
        |defaults: &str| format!("version: 1\nregion: eu-west-1\n{defaults}vpcs: {{ app: {{ cidr: 10.0.0.0/16 }} }}\n");
    let ours = good(&[Source::new("a.yaml", text(""))]).plan;
    let awss = good(&[Source::new("a.yaml", text("defaults: aws\n"))]).plan;
    assert!(ours.vpcs[0].dns_hostnames && !awss.vpcs[0].dns_hostnames);
    assert!(ours.vpcs[0].dns_support && awss.vpcs[0].dns_support);
    let nacl = &ours.network_acls[ours.vpcs[0].default_nacl];
    assert!(nacl.default && nacl.ingress[0].number == 100 && nacl.ingress[0].peer == Cidr::ANY);
    assert_eq!(ours.name, "a", "left out, the lab has the file's name");
}

#[test]
fn what_looks_wrong_but_is_allowed_is_a_warning() {
    let text = "version: 1
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.1/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    instances: { web: { subnet: a, description: \"see vpce-0123456789abcdef0\" } }
    route_tables: { t: { routes: [ { to: 192.168.0.0/16, via: \"instance:web\" } ] } }
    endpoints: { kms: {} }
";
    let loaded = good(&[Source::new("lab.yaml", text)]);
    let seen: Vec<String> =
        loaded.warnings.problems.iter().map(|p| format!("{}:{} {}", p.line, p.col, p.message)).collect();
    assert_eq!(
        seen,
        [
            "5:11 VPC app: 10.0.0.1/16 has bits below its prefix: taken as 10.0.0.0/16, as AWS does",
            "7:49 vpce-0123456789abcdef0 belongs to nothing in this lab",
            "8:63 route table app.t: app.web/eth0 drops what is not addressed to it: its source/dest check is on",
            "9:18 endpoint app.kms: the endpoint is in no subnet, so it has no address and nobody can reach it",
            "9:18 endpoint app.kms: kms has no built-in server in this version: its endpoints answer calls with an error",
        ]
    );
    assert!(loaded.warnings.render(false).starts_with("warning: VPC app: 10.0.0.1/16"));
}

#[test]
fn what_aws_allows_and_leads_nowhere_is_a_warning() {
    let rules: String = (1..=61).map(|port| format!("tcp {port} from 10.0.0.0/8, ")).collect();
    let text = format!(
        "version: 1
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: {{ a: {{ cidr: 10.0.1.0/24, az: a, public_ip: true }} }}
    security_groups: {{ g0: {{ ingress: [{rules}] }}, g1: {{}}, g2: {{}}, g3: {{}}, g4: {{}}, g5: {{}} }}
    instances: {{ web: {{ subnet: a, public_ip: true, security_groups: [g0, g1, g2, g3, g4, g5] }} }}
    endpoints: {{ s3: {{ type: gateway }} }}
"
    );
    let loaded = good(&[Source::new("lab.yaml", text)]);
    let seen: Vec<String> = loaded.warnings.problems.iter().map(|p| format!("{} {}", p.line, p.message)).collect();
    assert_eq!(
        seen,
        [
            "6 subnet app.a: public addresses of its instances lead nowhere: the VPC has no Internet gateway",
            "7 security group app.g0: 61 ingress rules: the default quota of AWS is 60",
            "8 instance app.web: its public address leads nowhere: the VPC has no Internet gateway",
            "8 instance app.web: 6 security groups on one ENI: the default quota of AWS is 5",
            "9 endpoint app.s3: the endpoint is in no route table, so no packet takes it",
        ]
    );
}

/// With `defaults: aws` an endpoint without `type` is a gateway endpoint, and private DNS of S3 is for inbound resolvers.
#[test]
fn aws_defaults_of_endpoints_work_together() {
    let text = "version: 1
region: eu-west-1
defaults: aws
vpcs:
  app:
    cidr: 10.0.0.0/16
    dns_hostnames: true
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    endpoints:
      s3: { route_tables: [main] }
      inside: { service: s3, type: interface, subnets: [a] }
";
    let plan = good(&[Source::new("lab.yaml", text)]).plan;
    assert!(plan.endpoints[0].is_gateway() && !plan.endpoints[1].is_gateway());
    assert!(!plan.endpoints[1].private_dns, "inbound-only: in the VPC the names stay public");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is handed in: a plan or a report with something in it, and never a panic.
    #[test]
    fn arbitrary_bytes_are_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let report = load(&[Source::new("x.yaml", bytes)], &around()).expect_err("noise is no topology");
        prop_assert!(!report.is_empty());
        let _ = report.render(false);
    }

    #[test]
    fn arbitrary_yaml_like_text_is_refused_calmly(text in "([a-z*&!|>%@`#'\"{}\\[\\],:?~ .0-9\u{e4}-]|\n|\n  |\n    |- |: ){0,120}") {
        let report = load(&[Source::new("x.yaml", text)], &around()).expect_err("noise is no topology");
        prop_assert!(!report.is_empty());
        let _ = report.render(false);
    }

    /// A good file with a few bytes changed, cut or doubled.
    #[test]
    fn mutated_good_files_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..6, "[ -~\u{e4}\u{1f600}\n\t]{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, what, with) in edits {
            let at = at.index(text.len().max(1));
            let end = (at + 12).min(text.len());
            match what {
                0 => { text.splice(at..(at + 1).min(text.len()), with.chars()); }
                1 => { text.splice(at..at, with.chars()); }
                2 => { text.drain(at..end); }
                3 => { let part: Vec<char> = text[at..end].to_vec(); text.splice(at..at, part); }
                4 => { text.truncate(at.max(1)); }
                _ => { let line: String = text.iter().collect::<String>().lines().nth(at % 60).unwrap_or("").to_owned() + "\n"; text.splice(0..0, line.chars()); }
            }
        }
        let source = Source::new("labs/everything.yaml", text.into_iter().collect::<String>());
        match load(&[source], &around()) {
            Ok(loaded) => prop_assert!(!loaded.plan.vpcs.is_empty()),
            Err(report) => {
                prop_assert!(!report.is_empty());
                prop_assert!(report.problems.iter().all(|p| p.line > 0 && p.col > 0), "{report}");
                let _ = report.render(true);
            }
        }
    }
}

/// Sizes at which an algorithm of second order would be felt: each of these is judged in a moment, not in minutes.
#[test]
fn large_files_cost_time_in_proportion() {
    let mut subnets = String::new();
    let mut instances = String::new();
    for n in 0..250 {
        subnets.push_str(&format!("      s{n}: {{ cidr: 10.0.{n}.0/24, az: a }}\n"));
        for k in 0..20 {
            instances.push_str(&format!("      i{n}-{k}: {{ subnet: s{n} }}\n"));
        }
    }
    let head = "version: 1\nregion: eu-west-1\nvpcs:\n  app:\n    cidr: 10.0.0.0/16\n";
    let text = format!("{head}    subnets:\n{subnets}    instances:\n{instances}");
    let plan = good(&[Source::new("large.yaml", text)]).plan;
    // And the door of the public side.
    assert_eq!((plan.subnets.len(), plan.enis.len()), (250, 5_001));
    // As many mistakes as fit.
    let wrong: String = (0..9_000).map(|n| format!("      x{n}: {{ subnte: a }}\n")).collect();
    let report = load(&[Source::new("wrong.yaml", format!("{head}    instances:\n{wrong}"))], &around());
    let report = report.expect_err("wrong");
    assert!(report.problems.len() >= 900 && report.render(false).contains("and "), "{}", report.problems.len());
    let keys: String = (0..60_000).map(|n| format!("secretsmanagr{n}: 1\n")).collect();
    assert!(load(&[Source::new("keys.yaml", format!("version: 1\n{keys}"))], &around()).is_err());
    // Each has a default group, and an account has 2,500 groups at most.
    let vpc = |n| format!("  v{n}: {{ cidr: 10.0.0.0/16, account: \"{:012}\" }}\n", 1 + n / 2_000);
    let vpcs: String = (0..30_000).map(vpc).collect();
    let many = good(&[Source::new("vpcs.yaml", format!("version: 1\nregion: eu-west-1\nvpcs:\n{vpcs}"))]);
    assert_eq!(many.plan.vpcs.len(), 30_000);
}
