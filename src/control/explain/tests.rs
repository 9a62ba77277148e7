//! The pages people read, from small plans.

mod ways;

use std::sync::Arc;

use super::*;
use crate::engine::tests::builder::{Lab, demo};
use crate::engine::{EngineLimits, compile};
use crate::model::plan::{Backend, RouteTarget, UpstreamAddr};

fn names_of(plan: &Plan, endpoint: usize) -> Vec<String> {
    if plan.endpoints[endpoint].is_gateway() {
        let service = &plan.services[plan.endpoints[endpoint].service];
        let known = crate::model::catalogue::service(&service.name).expect("a service of the catalogue");
        return crate::model::catalogue::public_names(known, &service.region);
    }
    let zones = &plan.endpoints[endpoint].names.private;
    zones.iter().flat_map(|zone| [zone.apex.clone(), format!("*.{}", zone.apex)]).collect()
}

fn ask(lab: &Lab, src: &str, dst: &str) -> Explanation {
    ask_from(lab, src, None, dst)
}

fn ask_from(lab: &Lab, src: &str, from_port: Option<u16>, dst: &str) -> Explanation {
    let zones = dns::compile(&lab.plan);
    let facts = Facts { plan: &lab.plan, zones: &zones, leaf_names: &names_of };
    let engine = Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default());
    let ask = ExplainAsk { src: src.into(), dst: dst.into(), request: None, unsigned: false, from_port };
    answer(&facts, engine, &ask).expect("a question that can be answered")
}

#[test]
fn an_instance_reaches_itself_whatever_the_rules_say() {
    let lab = closed();
    for dst in ["instance:x", "10.0.1.10:80", "127.0.0.1", "127.0.0.1/icmp"] {
        let told = ask(&lab, "x", dst);
        assert!(told.reachable, "{dst}: {}", told.text());
        assert!(told.text().contains("no packet leaves the instance"), "{}", told.text());
        assert_eq!(told.object.as_deref(), Some("app.x"), "{dst}");
    }
}

#[test]
fn an_endpoint_with_a_backend_of_the_users_names_it() {
    let mut lab = demo();
    let service = lab.plan.endpoints[0].service;
    lab.plan.services[service].backend =
        Backend::Tcp(UpstreamAddr::Loopback("127.0.0.1:5432".parse().expect("address")));
    let page = ask(&lab, "web", "https://s3.eu-west-1.amazonaws.com").text();
    assert!(page.contains("note  behind app.s3 stands tcp://127.0.0.1:5432"), "{page}");
    assert!(page.contains("its backend answers with one of its own"), "{page}");
}

/// `CODE at KIND VPC.NAME`, or `YES`.
fn short(lab: &Lab, src: &str, dst: &str) -> String {
    let told = ask(lab, src, dst);
    let end = format!("{} {}", told.kind.unwrap_or_default(), told.object.unwrap_or_default());
    told.code.map_or(format!("YES {end}"), |code| format!("{code} at {end}"))
}

#[test]
fn the_page_of_the_refused_guest() {
    let page = ask(&demo(), "guest", "https://s3.eu-west-1.amazonaws.com").text();
    let expected = r#"guest 10.0.2.10 (app.private-b, zone b)  ->  https://s3.eu-west-1.amazonaws.com
NO   SG_INGRESS at endpoint app.s3, ENI 10.0.2.4 (zone b)           Reachability Analyzer: ENI_SG_RULES_MISMATCH
the client sees: nothing, then a timeout (curl 28; aws-cli "Connect timeout on endpoint URL")

name    A 10.0.2.4, 10.0.1.4  TTL 60        answered by: private DNS of endpoint s3 (zone s3.eu-west-1.amazonaws.com)
                                            lost: public 198.18.0.16;   glibc tries 10.0.2.4 first (nearest prefix)
there   guest      source/dest check        ok
        guest      sg guest egress          allow   all to 0.0.0.0/0 (left out)
        -          NACL, route table        not asked: same subnet private-b
        s3@b       sg doors ingress         DENY    1 rule, no match: tcp 443 from sg:app (guest is in: guest)
back    -          not reached
tls, policy        not reached

smallest change: app.security_groups.doors.ingress += "tcp 443 from sg:guest"
"#;
    // The public address is the catalogue's matter.
    let public = crate::model::catalogue::public_addr("s3.eu-west-1.amazonaws.com").expect("public").to_string();
    assert_eq!(page, expected.replace("198.18.0.16", &public));
}

#[test]
fn the_page_of_web_which_may() {
    let told = ask(&demo(), "web", "https://s3.eu-west-1.amazonaws.com");
    let page = told.text();
    let public = crate::model::catalogue::public_addr("s3.eu-west-1.amazonaws.com").expect("public").to_string();
    let expected = r#"web 10.0.1.10 (app.private-a, zone a)  ->  https://s3.eu-west-1.amazonaws.com
YES  via private endpoint app.s3

name    A 10.0.1.4, 10.0.2.4  TTL 60        answered by: private DNS of endpoint s3 (zone s3.eu-west-1.amazonaws.com)
                                            lost: public 198.18.0.16;   glibc tries 10.0.1.4 first (nearest prefix)
there   web        source/dest check        ok
        web        sg app egress            allow   tcp 443 to sg:doors
        -          NACL, route table        not asked: same subnet private-a
        s3@a       sg doors ingress         allow   tcp 443 from sg:app
back    s3@a       tracked flow             ok      no rule is asked
        -          NACL, route table        not asked: same subnet private-a
        web        tracked flow             ok      no rule is asked
tls     s3         certificate              ok      s3.eu-west-1.amazonaws.com
policy  -          not asked                name a request: --request s3:GetObject ARN
"#;
    assert_eq!(page, expected.replace("198.18.0.16", &public));
    let json = told.json();
    assert_eq!(json["verdict"], "YES");
    assert_eq!(json["way"], "private");
    assert_eq!((&json["kind"], &json["object"]), (&"endpoint".into(), &"app.s3".into()));
    assert_eq!(json["steps"][1]["what"], "sg app egress");
}

#[test]
fn every_kind_of_refusal_names_its_place() {
    let mut lab = demo();
    assert_eq!(short(&lab, "web", "instance:guest:22"), "SG_EGRESS at instance app.web");
    assert_eq!(short(&lab, "guest", "endpoint:s3/icmp"), "VPCE_PROTO at endpoint app.s3");
    assert_eq!(short(&lab, "guest", "endpoint:app.s3:8443"), "VPCE_PORT at endpoint app.s3");
    assert_eq!(short(&lab, "guest", "endpoint:s3:443/udp"), "VPCE_PROTO at endpoint app.s3");
    assert_eq!(short(&lab, "guest", "8.8.8.8"), "RT_NO_ROUTE at route-table app.main");
    assert_eq!(short(&lab, "guest", "10.0.9.9"), "NO_ENI at route-table app.main");
    assert_eq!(short(&lab, "guest", "10.0.2.9"), "NO_ENI at instance app.guest");
    assert_eq!(short(&lab, "guest", "10.0.2.1"), "ROUTER_ADDR at instance app.guest");
    assert_eq!(short(&lab, "guest", "2001:db8::1"), "IPV6 at instance app.guest");
    assert_eq!(short(&lab, "guest", "10.0.0.2:53/udp"), "YES  ");
    assert_eq!(short(&lab, "guest", "169.254.169.254:80"), "YES  ");
    assert_eq!(short(&lab, "guest", "nobody.example"), "DNS_NXDOMAIN at resolver app");
    assert_eq!(short(&lab, "web", "https://b.s3.eu-west-1.amazonaws.com"), "YES endpoint app.s3");
    assert_eq!(short(&lab, "web", "https://10.0.1.4"), "TLS_NAME at endpoint app.s3");
    assert_eq!(short(&lab, "web", "http://10.0.1.4:443"), "YES endpoint app.s3");
    lab.plan.vpcs[0].dns_support = false;
    assert_eq!(short(&lab, "web", "https://s3.eu-west-1.amazonaws.com"), "DNS_DISABLED at resolver app");
}

#[test]
fn a_name_below_a_private_zone_that_it_lacks_does_not_exist() {
    let mut lab = demo();
    lab.plan.endpoints[0].names.private[0].wildcard = false;
    let told = ask(&lab, "web", "https://b.s3.eu-west-1.amazonaws.com");
    assert_eq!(told.code.as_deref(), Some("DNS_NXDOMAIN"));
    assert_eq!((told.kind.as_deref(), told.object.as_deref()), (Some("endpoint"), Some("app.s3")));
    let page = told.text();
    assert!(page.contains("NO   DNS_NXDOMAIN at endpoint app.s3, zone s3.eu-west-1.amazonaws.com"), "{page}");
    assert!(page.contains("note  the most specific private zone is final"), "{page}");
    assert!(page.contains("there   -          not reached\nback    -          not reached\n"), "{page}");
}

#[test]
fn a_legacy_name_that_private_dns_does_not_cover_is_told_with_its_clients() {
    let mut lab = demo();
    lab.endpoint("sqs", &[(0, "10.0.1.5")], &[3], &[443]);
    let told = ask(&lab, "guest", "https://eu-west-1.queue.amazonaws.com");
    assert_eq!(told.code.as_deref(), Some("RT_NO_ROUTE"));
    let notes = told.notes.join("\n");
    for part in ["legacy name of sqs", "endpoint sqs does not cover", "sqs.eu-west-1.amazonaws.com", "aws-cli v1"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(told.smallest_change[0], "ask for https://sqs.eu-west-1.amazonaws.com", "{}", told.text());
}

#[test]
fn private_dns_that_is_off_is_the_smallest_change() {
    let mut lab = demo();
    lab.plan.endpoints[0].private_dns = false;
    let told = ask(&lab, "guest", "https://s3.eu-west-1.amazonaws.com");
    assert_eq!(told.code.as_deref(), Some("RT_NO_ROUTE"));
    let doors = "app.security_groups.doors.ingress += \"tcp 443 from sg:guest\"";
    assert_eq!(told.smallest_change, ["app.endpoints.s3.private_dns: true", doors]);
    let told = ask(&lab, "web", "https://s3.eu-west-1.amazonaws.com");
    assert_eq!(told.smallest_change, ["app.endpoints.s3.private_dns: true"], "{}", told.text());
    let told = ask(&lab, "guest", "https://kms.eu-west-1.amazonaws.com");
    let kms = "type: interface, subnets: [private-a, private-b], security_groups: [doors], private_dns: true";
    assert_eq!(told.smallest_change, [format!("app.endpoints += {{ kms: {{ {kms} }} }}"), doors.to_owned()]);
    let name = lab.plan.endpoints[0].names.zonal[0].1.clone();
    assert_eq!(short(&lab, "web", &name), "YES endpoint app.s3");
}

/// Two subnets with closed NACLs of their own and closed groups.
fn closed() -> Lab {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let (a, b) = (lab.subnet(vpc, "a", "10.0.1.0/24", 'a'), lab.subnet(vpc, "b", "10.0.2.0/24", 'b'));
    lab.plan.subnets[a].nacl = lab.nacl(vpc, "outer", &[], &["50 deny tcp 22 to 0.0.0.0/0"]);
    lab.plan.subnets[b].nacl = lab.nacl(vpc, "inner", &["1 deny udp 1 from 0.0.0.0/0"], &[]);
    let (client, server) = (lab.group(vpc, "client"), lab.group(vpc, "server"));
    lab.instance("x", a, "10.0.1.10", &[client]);
    lab.instance("y", b, "10.0.2.10", &[server]);
    lab
}

#[test]
fn changes_are_tried_one_after_the_other() {
    let told = ask(&closed(), "x", "instance:y:22");
    assert_eq!(told.code.as_deref(), Some("SG_EGRESS"));
    assert_eq!(
        told.smallest_change,
        [
            "app.security_groups.client.egress += \"tcp 22 to sg:server\"",
            "app.network_acls.outer.egress += { 49: allow tcp 22 to 10.0.2.0/24 }",
            "app.network_acls.inner.ingress += { 100: allow tcp 22 from 10.0.1.0/24 }",
            "app.security_groups.server.ingress += \"tcp 22 from sg:client\"",
            "app.network_acls.inner.egress += { 100: allow tcp 32768-60999 to 10.0.1.0/24 }",
            "app.network_acls.outer.ingress += { 100: allow tcp 32768-60999 from 10.0.2.0/24 }",
        ]
    );
}

#[test]
fn the_answer_is_refused_on_its_way_back() {
    let mut lab = closed();
    let (outer, inner) = (lab.plan.subnets[0].nacl, lab.plan.subnets[1].nacl);
    let all = lab.nacl(0, "all", &["100 allow all from 0.0.0.0/0"], &["100 allow all to 0.0.0.0/0"]);
    let open = lab.plan.network_acls[all].clone();
    lab.plan.network_acls[outer].egress = open.egress;
    lab.plan.network_acls[inner].ingress = open.ingress;
    lab.allow(1, "tcp 22 to sg:server");
    lab.allow(2, "tcp 22 from sg:client");
    let told = ask(&lab, "x", "instance:y:22");
    assert_eq!((told.code.as_deref(), told.stage), (Some("NACL_OUT"), Some("back")));
    assert_eq!(told.object.as_deref(), Some("app.inner"));
    assert_eq!(
        told.smallest_change,
        [
            "app.network_acls.inner.egress += { 100: allow tcp 32768-60999 to 10.0.1.0/24 }",
            "app.network_acls.outer.ingress += { 100: allow tcp 32768-60999 from 10.0.2.0/24 }",
        ]
    );
    let page = told.text();
    assert!(page.contains("NO   NACL_OUT at nacl app.inner, rule *"), "{page}");
    assert!(page.contains("back    y          tracked flow             ok      no rule is asked"), "{page}");
}

#[test]
fn a_middle_instance_on_one_way_only_is_noted() {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let subnets =
        [("a", "10.0.1.0/24"), ("b", "10.0.2.0/24"), ("c", "10.0.3.0/24")].map(|(n, c)| lab.subnet(vpc, n, c, 'a'));
    let open = lab.group(vpc, "open");
    lab.allow(open, "all from 10.0.0.0/16");
    lab.allow(open, "all to 10.0.0.0/16");
    lab.instance("x", subnets[0], "10.0.1.10", &[open]);
    let middle = lab.instance("fw", subnets[1], "10.0.2.10", &[open]);
    lab.instance("y", subnets[2], "10.0.3.10", &[open]);
    lab.plan.enis[middle.at()].source_dest_check = false;
    lab.plan.instances[1].forward = Some(crate::model::plan::Forward::Plain);
    let table = lab.table(vpc, "inspected");
    lab.route(table, "10.0.3.0/24", RouteTarget::Eni(middle));
    lab.plan.subnets[subnets[0]].route_table = table;
    let told = ask(&lab, "x", "instance:y:80");
    assert!(told.reachable);
    assert!(told.notes.contains(&"asymmetric: fw there, straight back".to_owned()), "{:?}", told.notes);
    lab.plan.enis[middle.at()].source_dest_check = true;
    let told = ask(&lab, "x", "instance:y:80");
    assert_eq!(told.code.as_deref(), Some("SRC_DST_CHECK"));
    assert_eq!(told.smallest_change, ["app.instances.fw.source_dest_check: false"]);
}

#[test]
fn policies_of_role_and_endpoint_must_both_allow() {
    use crate::model::plan::{Common, Policy, RolePlan};
    let mut lab = demo();
    let reads = serde_json::json!({"Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]});
    lab.plan.roles.push(RolePlan {
        common: Common { name: "web-role".into(), path: "web-role".into(), ..Common::default() },
        account: "123456789012".into(),
        policy: Policy::Document(reads),
    });
    lab.plan.instances[0].role = Some(0);
    let asked = |lab: &Lab, action: &str, unsigned: bool| {
        let zones = dns::compile(&lab.plan);
        let facts = Facts { plan: &lab.plan, zones: &zones, leaf_names: &names_of };
        let engine = Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default());
        let request = Some((action.to_owned(), "arn:aws:s3:::b/k".to_owned()));
        let dst = "https://s3.eu-west-1.amazonaws.com".into();
        answer(&facts, engine, &ExplainAsk { src: "web".into(), dst, request, unsigned, from_port: None })
            .expect("answer")
    };
    assert!(asked(&lab, "s3:GetObject", false).reachable);
    let put = asked(&lab, "s3:PutObject", false);
    assert_eq!((put.code.as_deref(), put.object.as_deref()), (Some("ROLE_POLICY"), Some("web-role")));
    assert_eq!(put.rule.as_deref(), Some("no statement allows it"));
    // Nothing but a resource policy lets anonymous callers in, and there are none.
    let anonymous = asked(&lab, "s3:GetObject", true);
    assert_eq!((anonymous.code.as_deref(), anonymous.kind.as_deref()), (Some("ROLE_POLICY"), Some("instance")));
    lab.plan.instances[0].role = None;
    let nobody = asked(&lab, "s3:GetObject", false);
    assert!(!nobody.reachable && nobody.text().contains("Unable to locate credentials"), "{}", nobody.text());
    lab.plan.instances[0].role = Some(0);
    lab.plan.endpoints[0].policy = Policy::Document(serde_json::json!({"Statement": []}));
    let get = asked(&lab, "s3:GetObject", false);
    assert_eq!((get.code.as_deref(), get.stage), (Some("VPCE_POLICY"), Some("policy")));
}

#[test]
fn a_full_table_of_a_running_lab_is_seen_and_not_touched() {
    let mut lab = demo();
    lab.plan.limits.conntrack_max = 1;
    let mut live = Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default());
    let eni = |n| crate::base::EniIx(n);
    let client = std::net::SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 9);
    let server = std::net::SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 4), 443);
    let syn = crate::wire::make::tcp(&crate::wire::make::TcpSpec::syn(client, server));
    live.sent(crate::base::Instant::ZERO, eni(0), &syn);
    let zones = dns::compile(&lab.plan);
    let facts = Facts { plan: &lab.plan, zones: &zones, leaf_names: &names_of };
    let dst = Destination::parse(&lab.plan, "https://s3.eu-west-1.amazonaws.com").expect("destination");
    let told = explain(&facts, live.probe(0), (0, None), dst, None);
    assert_eq!(told.code.as_deref(), Some("CT_FULL"));
    assert_eq!(told.smallest_change, ["limits.conntrack_max: 2"]);
    assert_eq!(told.notes, ["conntrack_max is 1 here, 262144 in AWS"]);
    assert_eq!((live.flow_count(), live.drops().count()), (1, 0));
}

fn shipped(text: &str) -> Lab {
    Lab { plan: crate::model::testing::plan_of(&[text]) }
}

#[test]
fn the_traps_of_the_shipped_topologies() {
    let demo = shipped(include_str!("../../../topologies/demo.yaml"));
    let told = ask(&demo, "web", "https://eu-west-1.queue.amazonaws.com");
    assert_eq!(told.code.as_deref(), Some("RT_NO_ROUTE"));
    assert!(
        told.text().contains("sqs.eu-west-1.amazonaws.com") && told.text().contains("aws-cli v1"),
        "{}",
        told.text()
    );
    assert_eq!(short(&demo, "web", "https://sts.eu-west-1.amazonaws.com"), "YES endpoint app.sts");
    assert_eq!(short(&demo, "guest", "https://sts.eu-west-1.amazonaws.com"), "SG_INGRESS at endpoint app.sts");

    let east = shipped(include_str!("../../../topologies/us-east-1.yaml"));
    for host in ["s3.amazonaws.com", "reports.s3.amazonaws.com"] {
        let told = ask(&east, "web", &format!("https://{host}"));
        assert_eq!(told.code.as_deref(), Some("RT_NO_ROUTE"), "{host}");
        let page = told.text();
        assert!(page.contains("s3.us-east-1.amazonaws.com") && page.contains("boto3"), "{page}");
    }

    let off = shipped(include_str!("../../../topologies/private-dns-off.yaml"));
    let told = ask(&off, "web", "https://sts.eu-west-1.amazonaws.com");
    assert_eq!(told.code.as_deref(), Some("RT_NO_ROUTE"));
    assert_eq!(told.smallest_change.len(), 1, "{}", told.text());
    assert!(told.smallest_change[0].ends_with("private_dns: true"));
}

#[test]
fn a_group_of_another_vpc_that_nothing_makes_known_is_said_to_be_unknown() {
    let hub = include_str!("../../../topologies/t-hub.yaml");
    let closed =
        hub.replace("vpce: { ingress: [tcp 443 from 10.0.0.0/8] }", "vpce: { ingress: [tcp 443 from sg:spoke1.app] }");
    assert_ne!(hub, closed, "the endpoint's group has changed in the file");
    let told = ask(&shipped(&closed), "app1-a", "10.0.101.20:443").text();
    let wanted = "tcp 443 from sg:spoke1.app (app1-a is in: app); nothing carries references to groups of spoke1 here";
    assert!(told.contains(wanted), "{told}");
}

#[test]
fn a_change_is_the_one_that_a_network_engineer_would_make() {
    let solo = include_str!("../../../topologies/t-solo.yaml");
    let changes = |edits: &[(&str, &str)], dst: &str| {
        let edited = edits.iter().fold(solo.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        ask(&shipped(&edited), "app-a", dst).smallest_change
    };
    // Not a route that the NAT gateway's own clients would take too.
    let moved = changes(&[("natgw-a: { subnet: public-a }", "natgw-a: { subnet: private-b }")], "www.example.com:80");
    assert_eq!(moved, ["vpc.nat_gateways.natgw-a.subnet: public-a"]);
    // Not one address of a service that has many.
    let gateway = ("    endpoints:\n", "    endpoints:\n      s3: { type: gateway, route_tables: [private] }\n");
    let closed = ("      app:  { ", "      app:  { egress: [], ");
    let listed = changes(&[gateway, closed], "https://s3.us-east-1.amazonaws.com");
    assert_eq!(listed, ["vpc.security_groups.app.egress += \"tcp 443 to pl:s3\""]);
}

/// A file's own prefixes: names, prefix list, gateway endpoint and public side go with them.
#[test]
fn a_service_that_the_file_moved_is_found_at_its_new_addresses() {
    let text = include_str!("../../../topologies/t-solo.yaml");
    let moved = text.replace("  s3: { buckets:", "  s3: { prefixes: [198.19.160.0/19, 198.19.192.0/19], buckets:");
    let gateway =
        moved.replace("    endpoints:\n", "    endpoints:\n      s3: { type: gateway, route_tables: [private] }\n");
    assert!(moved != text && gateway != moved);
    let s3 = "https://s3.us-east-1.amazonaws.com";
    for (text, by_name, second_block) in
        [(moved, "YES public s3 of us-east-1", "nat"), (gateway, "YES gateway-endpoint vpc.s3", "gateway-endpoint")]
    {
        let lab = shipped(&text);
        assert_eq!(short(&lab, "app-a", s3), by_name);
        let told = ask(&lab, "app-a", "198.19.223.255:443");
        assert_eq!((told.reachable, told.way), (true, Some(second_block)), "{}", told.text());
        assert_eq!(short(&lab, "web", s3), "YES public s3 of us-east-1", "its table has no such route");
        let old = crate::model::catalogue::public_addr("s3.us-east-1.amazonaws.com").expect("public");
        let told = ask(&lab, "web", &format!("{old}:443"));
        assert_eq!(told.code.as_deref(), Some("NO_HOST"), "{}", told.text());
    }
}

#[test]
fn a_gateway_endpoint_is_a_destination_by_name() {
    let text = include_str!("../../../topologies/t-solo.yaml");
    let gateway =
        text.replace("    endpoints:\n", "    endpoints:\n      s3: { type: gateway, route_tables: [private] }\n");
    let lab = shipped(&gateway);
    assert_eq!(short(&lab, "app-a", "endpoint:s3"), "YES gateway-endpoint vpc.s3");
    // Another table does not lead there: by the Internet gateway.
    assert_eq!(short(&lab, "web", "endpoint:s3"), "YES public s3 of us-east-1");
    assert!(ask(&lab, "app-a", "endpoint:s3:22").text().contains("port 22 is not served, only 80, 443"));
}

#[test]
fn the_internet_hears_of_the_public_address_and_everybody_of_emulated_delays() {
    let text = include_str!("../../../topologies/t-solo.yaml");
    let lab = shipped(&text.replace("region: us-east-1\n", "region: us-east-1\nlatency: aws\n"));
    let public = lab.plan.public_addresses.iter().find(|public| lab.plan.eni_label(public.eni) == "web").expect("web");
    let told = ask(&lab, "example", "10.0.0.10:80");
    let address = format!("10.0.0.10 is the private address of vpc.web; from the Internet it is {}", public.addr);
    let delays = "latency: aws (typical delays of AWS, not promised by AWS)";
    assert_eq!(told.notes, [address.as_str(), delays]);
    let lab = shipped(text);
    assert_eq!(ask(&lab, "example", &format!("{}:80", public.addr)).notes, [""; 0]);
    let none = ["vpc.app-a has no public address: nothing of the Internet reaches it"];
    assert_eq!(ask(&lab, "example", "instance:app-a:80").notes, none);
}

#[test]
fn appliance_mode_chooses_a_zone_by_the_clients_port_and_the_page_says_so() {
    let lab = shipped(include_str!("../../../topologies/t-insp.yaml"));
    let by = |told: &Explanation| {
        let middle = told.passed.iter().find_map(|way| way.strip_prefix("instance:insp."));
        middle.expect("an appliance").to_owned()
    };
    let zone = |told: &Explanation| {
        let chosen = told.steps.iter().find(|step| step.detail.ends_with("by hash of addresses and ports"));
        chosen.map(|step| (step.at.clone(), step.detail.clone()))
    };
    let mut seen = std::collections::BTreeMap::new();
    for port in 40_000..40_064 {
        let told = ask_from(&lab, "app1-a", Some(port), "instance:app2-b:80");
        assert!(told.reachable, "{}", told.text());
        assert_eq!((told.source.port, told.json()["source"]["port"].as_u64()), (port, Some(port.into())));
        let note = format!(
            "a zone is chosen by hash of addresses and ports: from port {port} here; --from-port asks for another"
        );
        assert!(told.notes.contains(&note), "{:?}", told.notes);
        let (at, detail) = zone(&told).expect("a choice");
        let appliance = by(&told);
        let letter = appliance.strip_prefix("fw-").expect("fw-a or fw-b");
        assert_eq!(at, format!("insp@{letter}"));
        assert_eq!(detail, format!("zone {letter}, by hash of addresses and ports"));
        *seen.entry(appliance).or_insert(0) += 1;
        // Both directions by one.
        assert!(!told.notes.iter().any(|note| note.starts_with("asymmetric")), "{:?}", told.notes);
    }
    assert!(seen.len() == 2 && seen.values().all(|n| *n > 16), "{seen:?}");
    let usual = ask(&lab, "app1-a", "instance:app2-b:80");
    assert_eq!(usual.source.port, 40_000);

    // Without appliance mode it is the sender's zone, and there is nothing to choose.
    let text = include_str!("../../../topologies/t-insp.yaml").replace("appliance_mode: true", "appliance_mode: false");
    let told = ask(&shipped(&text), "app1-a", "instance:app2-a:80");
    assert_eq!((told.reachable, by(&told), zone(&told)), (true, "fw-a".to_owned(), None), "{}", told.text());
    assert_eq!(told.notes, [""; 0]);
}

#[test]
fn answers_to_a_port_that_was_asked_for_are_let_in_by_that_port() {
    let mut lab = closed();
    let vpc = lab.plan.subnets[0].vpc;
    let open = lab.group(vpc, "open");
    lab.allow(open, "all to 10.0.0.0/16");
    lab.allow(open, "all from 10.0.0.0/16");
    let far = lab.subnet(vpc, "far", "10.0.9.0/24", 'a');
    let far = lab.instance("far", far, "10.0.9.10", &[open]);
    lab.plan.enis[0].security_groups = lab.plan.eni(far).security_groups.clone();
    for (from, ports) in [(None, "32768-60999"), (Some(50_000), "32768-60999"), (Some(1_023), "1023")] {
        let told = ask_from(&lab, "x", from, "instance:far:80");
        let egress = "app.network_acls.outer.egress += { 100: allow tcp 80 to 10.0.9.0/24 }".to_owned();
        let ingress = format!("app.network_acls.outer.ingress += {{ 100: allow tcp {ports} from 10.0.9.0/24 }}");
        assert_eq!(told.smallest_change, [egress, ingress], "{}", told.text());
    }
}

/// What `fault az a` breaks, and how it ends: by its number in a running lab, by the file where that broke it.
#[test]
fn after_a_zone_fault_the_advice_is_to_end_it() {
    use crate::model::plan::{Fault, FaultPlan};
    let mut lab = shipped(include_str!("../../../topologies/t-solo.yaml"));
    let az_id = lab.plan.subnets.iter().find(|subnet| subnet.az == 'a').expect("zone a").az_id.clone();
    let what = Fault::Zone { az_id };
    lab.plan.faults.push(FaultPlan { id: 7, title: "az a".into(), what, after: None, lasts: None });
    let sts = lab.plan.endpoints[0].enis.iter().find(|eni| lab.plan.subnet_of(**eni).is_some_and(|s| s.az == 'a'));
    let sts = format!("{}:443", lab.plan.eni(*sts.expect("in zone a")).ip);
    let cases = [
        // The sender, the receiver, a gateway between them, an endpoint's ENI.
        ("app-a", "instance:app-b:80", "AZ_DOWN", "instance vpc.app-a"),
        ("app-b", "instance:app-a:80", "AZ_DOWN", "instance vpc.app-a"),
        ("app-b", "192.0.2.10:80", "AZ_DOWN", "nat vpc.natgw-a"),
        ("app-b", sts.as_str(), "VPCE_AZ_DOWN", "endpoint vpc.sts"),
    ];
    for (ends, advice) in [(7, "vpclab fault clear 7    # az a"), (0, "faults -= { az: a }")] {
        lab.plan.faults[0].id = ends;
        for (src, dst, code, at) in cases {
            let told = ask(&lab, src, dst);
            assert_eq!(short(&lab, src, dst), format!("{code} at {at}"), "{}", told.text());
            assert_eq!(told.smallest_change, [advice], "{src} to {dst}: {}", told.text());
            assert!(told.text().contains("zone has failed"), "{}", told.text());
            assert!(told.client_sees.is_some_and(|seen| seen.starts_with("nothing, then a timeout")));
        }
    }
    // The other zone is as it was, and the name of the endpoint leads there.
    assert_eq!(short(&lab, "app-b", "https://sts.us-east-1.amazonaws.com"), "YES endpoint vpc.sts");
    lab.plan.faults.clear();
    for (src, dst, ..) in cases {
        assert!(ask(&lab, src, dst).reachable, "{src} to {dst}");
    }
}

/// An endpoint that fails alone is not said to have a failed zone.
#[test]
fn the_fault_of_an_endpoint_is_named_as_its_own() {
    let mut lab = shipped(include_str!("../../../topologies/t-solo.yaml"));
    let fault = crate::model::fault::parse(&lab.plan, &["endpoint", "sts"]).expect("a fault");
    lab.plan.faults.push(crate::model::plan::FaultPlan { id: 2, ..fault });
    for src in ["app-a", "app-b"] {
        let told = ask(&lab, src, "https://sts.us-east-1.amazonaws.com");
        let page = told.text();
        assert_eq!(told.code.as_deref(), Some("VPCE_AZ_DOWN"), "{page}");
        assert!(page.contains("down by a fault: endpoint vpc.sts"), "{page}");
        assert!(!page.contains("zone has failed"), "{page}");
        assert_eq!(told.smallest_change, ["vpclab fault clear 2    # endpoint vpc.sts"], "{page}");
    }
    lab.plan.faults.clear();
    assert!(ask(&lab, "app-a", "https://sts.us-east-1.amazonaws.com").reachable);
}

#[test]
fn after_a_zone_fault_an_attachment_is_named_by_the_fault_too() {
    use crate::model::plan::{Fault, FaultPlan};
    let mut lab = shipped(include_str!("../../../topologies/t-insp.yaml"));
    let subnet = lab.plan.subnets.iter().find(|s| s.common.path == "insp.tgw-b").expect("zone b");
    let what = Fault::Zone { az_id: subnet.az_id.clone() };
    lab.plan.faults.push(FaultPlan { id: 3, title: "az b".into(), what, after: None, lasts: None });
    // From one port by the zone that stands, from another by the one that fell.
    let told: Vec<Explanation> =
        (40_000..40_064).map(|port| ask_from(&lab, "app1-a", Some(port), "instance:app2-a:80")).collect();
    let refused: Vec<&Explanation> = told.iter().filter(|told| !told.reachable).collect();
    assert!(refused.len() > 16 && refused.len() < 48, "{}", refused.len());
    for told in refused {
        assert_eq!((told.code.as_deref(), told.kind.as_deref()), (Some("AZ_DOWN"), Some("tgw-attachment")));
        assert_eq!(told.smallest_change, ["vpclab fault clear 3    # az b"], "{}", told.text());
        let page = told.text();
        assert!(page.contains("the zone has failed: zone b, by hash of addresses and ports"), "{page}");
    }
}

#[test]
fn bad_questions_are_sentences() {
    let lab = demo();
    let zones = dns::compile(&lab.plan);
    let facts = Facts { plan: &lab.plan, zones: &zones, leaf_names: &names_of };
    let engine = || Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default());
    for (src, dst, part) in [("nobody", "10.0.0.1", "no instance is named `nobody`"), ("web", "gopher://x", "gopher")] {
        let ask = ExplainAsk { src: src.into(), dst: dst.into(), request: None, unsigned: false, from_port: None };
        let error = answer(&facts, engine(), &ask).expect_err("refused");
        assert!(error.contains(part), "{error}");
    }
}
