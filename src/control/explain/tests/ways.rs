//! What depends on the client's port, on addresses that two have, and on the way back.

use super::*;

/// `w` and `d` with network ACLs, `egress` of which lets answers of `d` out.
fn database(egress: &str) -> Lab {
    shipped(&format!(
        r#"
version: 1
name: database
region: us-west-2
vpcs:
  v:
    cidr: 172.20.0.0/16
    subnets:
      web: {{ cidr: 172.20.1.0/24, az: a, nacl: n-web }}
      db:  {{ cidr: 172.20.2.0/24, az: b, nacl: n-db }}
    network_acls:
      n-web:
        ingress: {{ 100: allow all from 0.0.0.0/0 }}
        egress: {{ 100: allow all to 0.0.0.0/0 }}
      n-db:
        ingress: {{ 100: allow all from 172.20.1.0/24 }}
        egress: {{ {egress} }}
    security_groups:
      web: {{ egress: [tcp 5432 to sg:db, icmp to sg:db] }}
      db: {{ ingress: [tcp 5432 from sg:web, icmp 8 from sg:web] }}
    instances:
      w: {{ subnet: web, ip: 172.20.1.10, security_groups: [web] }}
      d: {{ subnet: db, ip: 172.20.2.10, security_groups: [db], listen: [{{ tcp: 5432, reply: hello }}] }}
"#
    ))
}

fn lists(ports: &Ports) -> (String, String) {
    (ports.refused.join(", "), ports.reached.join(", "))
}

#[test]
fn a_part_of_the_ephemeral_ports_is_not_enough() {
    for (egress, number, refused, reached) in [
        ("100: allow tcp 32768-40000 to 172.20.1.0/24", "*", "40001-60999", "32768-40000"),
        ("100: allow tcp 49152-65535 to 172.20.1.0/24", "*", "32768-49151", "49152-60999"),
        (
            "90: deny tcp 45000 to 0.0.0.0/0, 100: allow tcp 1024-65535 to 0.0.0.0/0",
            "90",
            "45000",
            "32768-44999, 45001-60999",
        ),
    ] {
        let lab = database(egress);
        let told = ask(&lab, "w", "172.20.2.10:5432");
        assert_eq!(
            (told.verdict, told.code.as_deref(), told.stage),
            ("NO", Some("NACL_OUT"), Some("back")),
            "{egress}"
        );
        assert_eq!((told.kind.as_deref(), told.object.as_deref()), (Some("nacl"), Some("v.n-db")));
        let found = told.ports.as_ref().expect("not all ports fare alike");
        assert_eq!(lists(found), (refused.into(), reached.into()), "{egress}");
        assert_eq!(told.json()["ports"]["refused"][0], refused);
        let page = told.text();
        let word = if refused.contains('-') { "ports" } else { "port" };
        let line = format!("NO   NACL_OUT at nacl v.n-db, rule {number}, from {word} {refused}");
        assert!(page.contains(&line), "{page}");
        assert!(page.contains("NACL n-db out            DENY"), "{page}");
        assert!(page.contains("a client's kernel chooses its port out of 32768-60999 (Linux)"), "{page}");
        assert!(page.contains("; now and then it works"), "{page}");
        // From a port that was asked for, only that counts.
        let parts = |ports: &str| -> Vec<u16> {
            ports.split(", ").map(|range| range.split('-').next().expect("a port").parse().expect("a port")).collect()
        };
        for (port, reachable) in
            parts(refused).iter().map(|p| (*p, false)).chain(parts(reached).iter().map(|p| (*p, true)))
        {
            let told = ask_from(&lab, "w", Some(port), "172.20.2.10:5432");
            assert_eq!((told.reachable, &told.ports), (reachable, &None), "{port}: {}", told.text());
            assert!(!told.text().contains("kernel chooses"), "{}", told.text());
        }
    }
}

#[test]
fn all_ports_that_clients_choose_are_enough_and_none_is_plain() {
    let all = database("100: allow tcp 32768-60999 to 172.20.1.0/24");
    let told = ask(&all, "w", "172.20.2.10:5432");
    assert_eq!((told.verdict, &told.ports, told.source.port), ("YES", &None, 40_000), "{}", told.text());
    let none = database("100: allow tcp 1024-32767 to 172.20.1.0/24");
    let told = ask(&none, "w", "172.20.2.10:5432");
    assert_eq!((told.verdict, &told.ports, told.source.port), ("NO", &None, 40_000), "{}", told.text());
    // A ping has none.
    let told = ask(&database("100: allow icmp 0 to 0.0.0.0/0"), "w", "172.20.2.10/icmp");
    assert_eq!((told.verdict, &told.ports), ("YES", &None), "{}", told.text());
}

/// The change lets every port through, not only the one that was asked.
#[test]
fn the_change_for_a_part_of_the_ports_makes_it_whole() {
    let lab = database("100: allow tcp 32768-40000 to 172.20.1.0/24");
    let told = ask(&lab, "w", "172.20.2.10:5432");
    assert_eq!(told.smallest_change, ["v.network_acls.n-db.egress += { 200: allow tcp 32768-60999 to 172.20.1.0/24 }"]);
    let mended = database("100: allow tcp 32768-40000 to 172.20.1.0/24, 200: allow tcp 32768-60999 to 172.20.1.0/24");
    assert!(ask(&mended, "w", "172.20.2.10:5432").reachable);
}

/// Answers come to the ports that the NAT gateway gives, and those begin at 1,024.
#[test]
fn ports_that_a_nat_gateway_gives_are_told_from_the_clients() {
    let lab = |ingress: &str| {
        shipped(&format!(
            r#"
version: 1
name: nat
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    internet_gateway: true
    nat_gateways: {{ natgw: {{ subnet: public }} }}
    subnets:
      public: {{ cidr: 10.0.0.0/24, az: a, route_table: public, nacl: edge }}
      app:    {{ cidr: 10.0.1.0/24, az: a, route_table: private }}
    route_tables:
      public:  {{ routes: [{{ to: 0.0.0.0/0, via: igw }}] }}
      private: {{ routes: [{{ to: 0.0.0.0/0, via: "nat:natgw" }}] }}
    network_acls:
      edge:
        ingress: {{ 10: allow all from 10.0.0.0/16, 100: {ingress} }}
        egress: {{ 100: allow all to 0.0.0.0/0 }}
    instances:
      app: {{ subnet: app, ip: 10.0.1.10 }}
internet:
  www: {{ ip: 192.0.2.10, names: [www.example.com], listen: [{{ tcp: 80, reply: hello }}] }}
"#
        ))
    };
    let told = ask(&lab("allow tcp 32768-60999 from 0.0.0.0/0"), "app", "http://www.example.com");
    assert_eq!((told.verdict, told.code.as_deref()), ("NO", Some("NACL_IN")), "{}", told.text());
    let found = told.ports.as_ref().expect("not all ports fare alike");
    assert_eq!((found.whose, found.sampled), ("nat", false), "{}", told.text());
    assert_eq!(lists(found), ("1024-32767, 61000-65535".into(), "32768-60999".into()));
    let page = told.text();
    assert!(page.contains("rule *, to ports 1024-32767, 61000-65535 of the NAT gateway"), "{page}");
    let [change] = &told.smallest_change[..] else { panic!("{page}") };
    assert!(change.contains("allow tcp 1024-65535 from 192.0.2."), "{change}");
    // From one port of the client's too: the gateway's choice is another each time.
    let one = ask_from(&lab("allow tcp 32768-60999 from 0.0.0.0/0"), "app", Some(40_000), "http://www.example.com");
    let found = one.ports.as_ref().expect("not all ports fare alike");
    assert_eq!((one.verdict, found.whose), ("NO", "nat"), "{}", one.text());
    assert_eq!(lists(found), ("1024-32767, 61000-65535".into(), "32768-60999".into()));
    let one = ask_from(&lab("allow tcp 1024-65535 from 0.0.0.0/0"), "app", Some(40_000), "http://www.example.com");
    assert_eq!((one.verdict, &one.ports), ("YES", &None), "{}", one.text());
    let told = ask(&lab("allow tcp 1024-65535 from 0.0.0.0/0"), "app", "http://www.example.com");
    assert_eq!((told.verdict, &told.ports), ("YES", &None), "{}", told.text());
}

/// Without the port being asked for, the zone that a hash chooses is not one but all.
#[test]
fn of_zones_chosen_by_hash_one_that_is_broken_is_found() {
    use crate::model::plan::{Fault, FaultPlan};
    let mut lab = shipped(include_str!("../../../../topologies/t-insp.yaml"));
    for zone in ["insp.tgw-a", "insp.tgw-b"] {
        let subnet = lab.plan.subnets.iter().find(|s| s.common.path == zone).expect("the subnet");
        let what = Fault::Zone { az_id: subnet.az_id.clone() };
        lab.plan.faults = vec![FaultPlan { id: 3, title: "az".into(), what, after: None, lasts: None }];
        let to = if zone.ends_with('a') { ("app1-b", "instance:app2-b:80") } else { ("app1-a", "instance:app2-a:80") };
        let told = ask(&lab, to.0, to.1);
        assert_eq!((told.verdict, told.code.as_deref()), ("NO", Some("AZ_DOWN")), "{}", told.text());
        let found = told.ports.as_ref().expect("the other zone stands");
        assert!(found.sampled && !found.refused.is_empty() && !found.reached.is_empty(), "{found:?}");
        let line = format!("from {} of {} ports", found.refused.len(), found.refused.len() + found.reached.len());
        assert!(told.text().contains(&line), "{}", told.text());
        assert!(
            found.refused.contains(&told.source.port.to_string()),
            "the page is about one that does not get through"
        );
    }
}

/// Two VPCs with one block at one transit gateway: answers go where the routes lead, whoever asked.
#[test]
fn an_answer_that_reaches_another_with_the_same_address_is_told_as_such() {
    let lab = shipped(
        r#"
version: 1
name: twice
region: eu-west-1
vpcs:
  red:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    security_groups: { s: { ingress: [all from 0.0.0.0/0] } }
    route_tables: { main: { routes: [{ to: 10.9.0.0/16, via: "tgw:t" }] } }
    instances: { r1: { subnet: a, ip: 10.0.1.10, security_groups: [s], listen: [{ tcp: 80, reply: hello }] } }
  blue:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    security_groups: { s: { ingress: [all from 0.0.0.0/0] } }
    route_tables: { main: { routes: [{ to: 10.9.0.0/16, via: "tgw:t" }] } }
    instances: { b1: { subnet: a, ip: 10.0.1.10, security_groups: [s], listen: [{ tcp: 80, reply: hello }] } }
  shared:
    cidr: 10.9.0.0/16
    subnets: { a: { cidr: 10.9.1.0/24, az: a } }
    security_groups: { s: { ingress: [all from 0.0.0.0/0] } }
    route_tables: { main: { routes: [{ to: 10.0.0.0/16, via: "tgw:t" }] } }
    instances: { s1: { subnet: a, ip: 10.9.1.10, security_groups: [s], listen: [{ tcp: 80, reply: hello }] } }
transit_gateways:
  t:
    attachments:
      red: { vpc: red, subnets: [a] }
      blue: { vpc: blue, subnets: [a] }
      shared: { vpc: shared, subnets: [a] }
    route_tables: { main: { associate: [red, blue, shared], propagate: [red, blue, shared] } }
"#,
    );
    assert_eq!(short(&lab, "red.r1", "10.9.1.10:80"), "YES instance shared.s1");
    let told = ask(&lab, "blue.b1", "10.9.1.10:80");
    assert_eq!(short(&lab, "blue.b1", "10.9.1.10:80"), "WRONG_RECEIVER at instance red.r1");
    assert_eq!((told.stage, &told.smallest_change[..]), (Some("back"), &[][..]), "{}", told.text());
    let page = told.text();
    assert!(page.contains("10.0.1.10 is its address too"), "{page}");
    assert!(page.contains("the answer is delivered to red.r1, not to blue.b1"), "{page}");
    assert!(!page.contains("SRC_DST_CHECK") && page.contains("nothing, then a timeout"), "{page}");
    // By name it was one of the two that was asked for, not its address.
    assert_eq!(short(&lab, "s1", "instance:red.r1:80"), "YES instance red.r1");
    let told = ask(&lab, "s1", "instance:blue.b1:80");
    assert_eq!((told.code.as_deref(), told.stage), (Some("WRONG_RECEIVER"), Some("there")), "{}", told.text());
    assert!(told.text().contains("the packet is delivered to red.r1, not to blue.b1"), "{}", told.text());

    // From who has the address itself, nothing leaves; and the twin's address is its neighbour's.
    let own = ask(&lab, "red.r1", "instance:blue.b1:80");
    assert_eq!((own.verdict, own.code.as_deref()), ("NO", Some("WRONG_RECEIVER")), "{}", own.text());
    assert!(own.text().contains("what red.r1 sends there stays in it"), "{}", own.text());
    assert_eq!(short(&lab, "red.r1", "instance:red.r1:80"), "YES instance red.r1");

    // The attachment stands in the instance's subnet, so nobody asks its network ACL: that is no refusal.
    let page = ask(&lab, "red.r1", "instance:s1:80").text();
    assert!(page.contains("NACL default in          not asked: same subnet") && !page.contains("DENY"), "{page}");
}

#[test]
fn a_firewall_that_sees_one_direction_only_is_told_with_both_ways_and_appliance_mode() {
    let text =
        include_str!("../../../../topologies/t-insp.yaml").replace("appliance_mode: true", "appliance_mode: false");
    let lab = shipped(&text);
    let told = ask(&lab, "app1-a", "instance:app2-b:80");
    assert_eq!((told.code.as_deref(), told.stage), (Some("FW_NO_STATE"), Some("back")), "{}", told.text());
    assert!(told.notes.contains(&"asymmetric: fw-a there, fw-b back".to_owned()), "{:?}", told.notes);
    let [change] = &told.smallest_change[..] else { panic!("{}", told.text()) };
    assert!(change.ends_with(".attachments.insp.appliance_mode: true"), "{change}");
    let mended = shipped(include_str!("../../../../topologies/t-insp.yaml"));
    assert!(ask(&mended, "app1-a", "instance:app2-b:80").reachable);
}

/// A running lab's gateway that has given all its ports towards one destination.
#[test]
fn a_nat_gateway_without_ports_is_seen_and_not_touched() {
    let text = include_str!("../../../../topologies/t-solo.yaml");
    let lab = shipped(&format!("{text}\nlimits: {{ nat_ports: 2, nat_idle: 3s, conntrack_max: 100000 }}\n"));
    let mut live = Engine::new(Arc::new(compile(&lab.plan, 1)), EngineLimits::default());
    let client = lab.plan.instance_named("app-a").expect("app-a");
    let (from, ip) = (lab.plan.instances[client].enis[0], lab.plan.eni(lab.plan.instances[client].enis[0]).ip);
    let host = Ipv4Addr::new(192, 0, 2, 10);
    for port in [1, 2] {
        let ends = (std::net::SocketAddrV4::new(ip, port), std::net::SocketAddrV4::new(host, 9_000));
        let mut syn = crate::wire::make::tcp(&crate::wire::make::TcpSpec::syn(ends.0, ends.1));
        let verdict = live.handle(crate::base::Instant::ZERO, from, &mut syn);
        assert_eq!(verdict.dropped(), None);
    }
    let zones = dns::compile(&lab.plan);
    let facts = Facts { plan: &lab.plan, zones: &zones, leaf_names: &names_of };
    let asked = |live: &Engine, src: &str, dst: &str| {
        let ask = ExplainAsk { src: src.into(), dst: dst.into(), request: None, unsigned: false, from_port: None };
        answer(&facts, live.probe(0), &ask).expect("an answer")
    };
    for src in ["app-a", "app-b"] {
        let told = asked(&live, src, "192.0.2.10:9000");
        assert_eq!(told.code.as_deref(), Some("NAT_NO_PORT"), "{}", told.text());
        assert!(told.text().contains("all ports to this destination are in use"), "{}", told.text());
        assert!(
            told.notes.contains(
                &"nat_idle is 3 s here, 350 s in AWS; nat_ports is 2 here, 55000 in AWS; \
              conntrack_max is 100000 here, 262144 in AWS"
                    .to_owned()
            ),
            "{:?}",
            told.notes
        );
    }
    assert!(asked(&live, "app-a", "192.0.2.10:80").reachable, "another destination");
    assert_eq!((live.flow_count(), live.drops().count(), live.ports_held()), (2, 0, 2));
    live.expire(crate::base::Instant::from_millis(3_600_000));
    assert!(asked(&live, "app-a", "192.0.2.10:9000").reachable, "the connections are forgotten");
}

/// Every VPC has a `main` and a `default`; and long names move the columns, not single lines.
#[test]
fn on_a_way_by_several_vpcs_each_step_says_in_which_it_is() {
    let lab = shipped(include_str!("../../../../topologies/t-insp.yaml"));
    let told = ask(&lab, "app1-a", "instance:app2-b:80");
    let tables = |vpc: &str| told.steps.iter().any(|step| step.at == vpc && step.what.starts_with("route table"));
    assert!(tables("spoke1") && tables("spoke2") && tables("insp"), "{}", told.text());
    let page = told.text();
    let at: Vec<usize> = page.lines().filter_map(|line| line.find("10.2.0.0/16 via ")).collect();
    assert!(at.len() == 2 && at[0] == at[1], "{page}");
    assert!(page.contains("        spoke1     NACL default out"), "{page}");
    // One VPC needs no name.
    assert!(ask(&demo(), "guest", "8.8.8.8").text().contains("        -          route table main"));
}

#[test]
fn hosts_outside_have_no_zone_and_no_source_check() {
    let lab = shipped(include_str!("../../../../topologies/t-hyb.yaml"));
    let page = ask(&lab, "dc1", "instance:app-a:80").text();
    assert!(page.starts_with("dc1 192.168.0.10 (site dc)  ->  instance:app-a:80\n"), "{page}");
    assert!(page.contains("there   -          router of dc"), "{page}");
}

/// A ping has no port, but the hash takes its identifier for one.
#[test]
fn of_zones_chosen_by_hash_pings_take_all_too() {
    use crate::model::plan::{Fault, FaultPlan};
    let mut lab = shipped(include_str!("../../../../topologies/t-insp.yaml"));
    let whole = ask(&lab, "app1-a", "instance:app2-a/icmp");
    assert_eq!((whole.verdict, &whole.ports), ("YES", &None), "{}", whole.text());
    let subnet = lab.plan.subnets.iter().find(|s| s.common.path == "insp.tgw-b").expect("the subnet");
    let what = Fault::Zone { az_id: subnet.az_id.clone() };
    lab.plan.faults = vec![FaultPlan { id: 3, title: "az".into(), what, after: None, lasts: None }];
    let told = ask(&lab, "app1-a", "instance:app2-a/icmp");
    assert_eq!((told.verdict, told.code.as_deref()), ("NO", Some("AZ_DOWN")), "{}", told.text());
    let found = told.ports.as_ref().expect("the other zone stands");
    assert_eq!((found.whose, found.sampled), ("ping", true));
    assert!(found.refused.len() > 5 && found.reached.len() > 5, "{found:?}");
    let page = told.text();
    assert!(page.contains("of 24 identifiers"), "{page}");
    assert!(page.contains("note  each ping has an identifier of its own: with identifiers "), "{page}");
}

/// `nat` in the subnet whose own table leads to it, the mistake of who builds the first NAT instance.
fn behind_itself(forward: &str) -> Lab {
    shipped(&format!(
        r#"
version: 1
name: behind-itself
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets: {{ prv: {{ cidr: 10.0.1.0/24, az: a }} }}
    route_tables: {{ main: {{ routes: [{{ to: 0.0.0.0/0, via: "instance:nat" }}] }} }}
    security_groups: {{ s: {{ ingress: [all from 10.0.0.0/16] }} }}
    instances:
      nat: {{ subnet: prv, public_ip: true, source_dest_check: false, {forward} security_groups: [s] }}
      app: {{ subnet: prv, security_groups: [s] }}
internet:
  ex: {{ ip: 192.0.2.10, names: [ex.com], listen: [{{ tcp: 80, reply: source }}] }}
"#
    ))
}

/// Its kernel forwards to the route that leads to itself, until the TTL ends there without a record.
#[test]
fn an_instance_that_its_own_subnet_leads_to_is_a_loop() {
    for forward in ["forward: true,", "forward: masquerade,", "forward: stateful,"] {
        let lab = behind_itself(forward);
        for (src, dst) in [
            ("app", "http://ex.com"),
            ("app", "192.0.2.10/icmp"),
            ("app", "192.0.2.10:53/udp"),
            ("nat", "192.0.2.10:80"),
        ] {
            let told = ask(&lab, src, dst);
            assert_eq!((told.reachable, told.verdict, told.stage), (false, "NO", Some("there")), "{}", told.text());
            assert_eq!(told.code.as_deref(), Some("ROUTE_LOOP"), "{forward} {src} {dst}: {}", told.text());
            assert_eq!((told.kind.as_deref(), told.object.as_deref()), (Some("route-table"), Some("v.main")));
            assert_eq!(told.rule.as_deref(), Some("0.0.0.0/0 via nat"));
            let page = told.text();
            assert!(page.contains("NO   ROUTE_LOOP at route-table v.main, 0.0.0.0/0 via nat "), "{page}");
            assert!(page.contains("note  goes round: nat gets back what it forwards, by v.main"), "{page}");
        }
    }
}

/// What inspects gets everything back that it let pass: the row of the transit gateway's table is the wrong one.
#[test]
fn an_inspection_whose_own_table_leads_to_it_is_a_loop() {
    let right = include_str!("../../../../topologies/t-insp.yaml");
    let row = "inspection: { associate: [insp], propagate: [spoke1, spoke2] }";
    assert!(right.contains(row), "{right}");
    let lab = shipped(&right.replace(row, "inspection: { associate: [insp], routes: [{ to: 0.0.0.0/0, via: insp }] }"));
    for (src, dst) in [("app1-a", "instance:app2-a:80"), ("app2-b", "instance:app1-a/icmp")] {
        let told = ask(&lab, src, dst);
        assert_eq!((told.verdict, told.code.as_deref()), ("NO", Some("ROUTE_LOOP")), "{}", told.text());
        assert_eq!(told.kind.as_deref(), Some("tgw-route-table"), "{}", told.text());
        assert_eq!(told.rule.as_deref(), Some("0.0.0.0/0 via insp"), "{}", told.text());
    }
}

/// A firewall may see a packet twice on its way, to the public address and to the private one.
#[test]
fn twice_through_one_instance_is_no_loop_where_the_destination_is_another() {
    let lab = shipped(
        r#"
version: 1
name: hairpin
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      app: { cidr: 10.0.1.0/24, az: a, route_table: app }
      web: { cidr: 10.0.2.0/24, az: a, route_table: app }
      fw:  { cidr: 10.0.3.0/24, az: a, route_table: fw }
    route_tables:
      edge: { edge: igw, routes: [{ to: 10.0.2.0/24, via: "instance:fw" }, { to: 10.0.1.0/24, via: "instance:fw" }] }
      app:  { routes: [{ to: 0.0.0.0/0, via: "instance:fw" }] }
      fw:   { routes: [{ to: 0.0.0.0/0, via: igw }] }
    security_groups: { s: { ingress: [all from 0.0.0.0/0] } }
    instances:
      fw:  { subnet: fw, public_ip: true, source_dest_check: false, forward: true, security_groups: [s] }
      app: { subnet: app, public_ip: true, security_groups: [s] }
      web: { subnet: web, public_ip: true, security_groups: [s], listen: [{ tcp: 80, reply: source }] }
"#,
    );
    let web = lab.plan.instances.iter().find(|i| i.common.name == "web").expect("web").enis[0];
    let public = lab.plan.public_addresses.iter().find(|public| public.eni == web).expect("it has one").addr;
    let told = ask(&lab, "app", &format!("{public}:80"));
    assert_eq!((told.verdict, told.object.as_deref()), ("YES", Some("v.web")), "{}", told.text());
}

/// The kernel of an instance drops what is not for it, and no record tells of that.
#[test]
fn an_instance_that_does_not_forward_ends_the_way() {
    let right = include_str!("../../../../topologies/t-insp.yaml");
    let lab = shipped(&right.replace(", forward: stateful", ""));
    for dst in ["10.2.1.10:80", "10.2.1.10/icmp"] {
        let told = ask(&lab, "app1-a", dst);
        assert_eq!((told.verdict, told.reachable, &told.code), ("NO", false, &None), "{}", told.text());
        assert_eq!((told.kind.as_deref(), told.stage), (Some("instance"), Some("there")));
        assert_eq!(told.json()["code"], serde_json::Value::Null);
        let page = told.text();
        let firewall = told.object.clone().expect("one of the two");
        assert!(page.contains(&format!("NO   at instance {firewall}, does not forward\n")), "{page}");
        assert!(page.contains("10.2.1.10 is no address of its own, and it does not forward"), "{page}");
    }
    let told = ask_from(&lab, "app1-a", Some(40_000), "10.2.1.10:80");
    assert_eq!(told.smallest_change, ["insp.instances.fw-a.forward: true"], "{}", told.text());
    // And on the way back, where nobody has the client's address either.
    let lab = behind_itself("");
    let told = ask(&lab, "app", "http://ex.com");
    assert_eq!((told.verdict, &told.code, told.object.as_deref()), ("NO", &None, Some("v.nat")), "{}", told.text());
    assert!(told.smallest_change.is_empty(), "it would go round: {}", told.text());
}

/// From gateway to gateway: told once.
#[test]
fn a_loop_of_gateways_is_told_once() {
    let lab = shipped(
        r#"
version: 1
name: round
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, t: { cidr: 10.0.250.0/28, az: a } }
    route_tables: { main: { routes: [{ to: 0.0.0.0/0, via: "tgw:t" }] } }
    instances: { x: { subnet: a } }
  w:
    cidr: 10.1.0.0/16
    subnets: { t: { cidr: 10.1.250.0/28, az: a } }
    route_tables: { main: { routes: [{ to: 0.0.0.0/0, via: "tgw:t" }] } }
transit_gateways:
  t:
    attachments: { v: { vpc: v, subnets: [t] }, w: { vpc: w, subnets: [t] } }
    route_tables: { m: { associate: [v, w], propagate: [v, w], routes: [{ to: 0.0.0.0/0, via: w }] } }
"#,
    );
    let told = ask(&lab, "x", "192.0.2.10:80");
    assert_eq!((told.verdict, told.code.as_deref()), ("NO", Some("ROUTE_LOOP")), "{}", told.text());
    let page = told.text();
    assert!(page.lines().count() < 28, "{page}");
    assert_eq!(page.matches("goes round").count(), 1, "{page}");
    assert!(told.steps.iter().any(|step| (step.what.as_str(), step.outcome) == ("goes round", "DROP")), "{page}");
}

/// Each ENI has rules of its own for what leaves from its address.
#[test]
fn an_instance_answers_by_the_eni_that_was_asked() {
    let lab = two_armed("");
    for dst in ["10.0.1.20", "10.0.2.20"] {
        for src in ["a1", "b1"] {
            let told = ask(&lab, src, &format!("{dst}:80"));
            assert_eq!((told.verdict, told.object.as_deref()), ("YES", Some("v.two")), "{src}: {}", told.text());
            let eni = if dst == "10.0.1.20" { "two" } else { "two/eth1" };
            let back = told.steps.iter().find(|step| step.stage == "back").expect("a way back");
            assert_eq!(back.at, eni, "{}", told.text());
        }
    }
}

/// What it forwards leaves by the ENI of the destination's subnet, whichever it came by.
#[test]
fn an_instance_forwards_by_the_eni_that_is_near() {
    let mut lab = two_armed("forward: true, ");
    let told = ask(&lab, "a1", "10.0.2.10:80");
    assert_eq!((told.verdict, told.object.as_deref()), ("YES", Some("v.b1")), "{}", told.text());
    assert_eq!(told.notes, ["asymmetric: two there, straight back"]);
    let places: Vec<&str> = told.steps.iter().map(|step| step.at.as_str()).collect();
    assert!(places.contains(&"two") && places.contains(&"two/eth1"), "{}", told.text());
    // In by one and out by the other, and back so: one instance, both ways.
    lab.plan.subnets[1].route_table = lab.table(0, "b");
    let eth1 = lab.plan.instances.iter().find(|i| i.common.name == "two").expect("two").enis[1];
    lab.route(lab.plan.subnets[1].route_table, "10.0.1.0/24", RouteTarget::Eni(eth1));
    let told = ask(&lab, "a1", "10.0.2.10:80");
    assert_eq!((told.verdict, told.object.as_deref()), ("YES", Some("v.b1")), "{}", told.text());
    assert!(told.notes.is_empty(), "{}", told.text());
    assert!(told.steps.iter().any(|step| step.stage == "back" && step.at == "two/eth1"), "{}", told.text());
    // Its own answer comes back to it: a kernel takes nothing from itself by a device.
    let told = ask(&lab, "a1", "10.0.2.20:80");
    assert_eq!((told.code.as_deref(), told.stage), (Some("ROUTE_LOOP"), Some("back")), "{}", told.text());
    assert_eq!(told.rule.as_deref(), Some("10.0.1.0/24 via two/eth1"), "{}", told.text());
}

/// `two` stands in both subnets; what `a1` sends to the other goes through it.
fn two_armed(forward: &str) -> Lab {
    shipped(&format!(
        r#"
version: 1
name: two-armed
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    subnets:
      a: {{ cidr: 10.0.1.0/24, az: a, {} }}
      b: {{ cidr: 10.0.2.0/24, az: a }}
    route_tables: {{ a: {{ routes: [{{ to: 10.0.2.0/24, via: "eni:two/eth0" }}] }} }}
    security_groups: {{ s: {{ ingress: [all from 10.0.0.0/16] }} }}
    instances:
      a1: {{ subnet: a, ip: 10.0.1.10, security_groups: [s] }}
      b1: {{ subnet: b, ip: 10.0.2.10, security_groups: [s], listen: [{{ tcp: 80, reply: source }}] }}
      two:
        {forward}enis:
          - {{ subnet: a, ip: 10.0.1.20, security_groups: [s], source_dest_check: false }}
          - {{ subnet: b, ip: 10.0.2.20, security_groups: [s], source_dest_check: false }}
        listen: [{{ tcp: 80, reply: source }}]
"#,
        if forward.is_empty() { "" } else { "route_table: a" },
        forward = forward.replace(
            ", ",
            "
        "
        ),
    ))
}
