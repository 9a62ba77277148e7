//! Is the advice of `explain` true? Into every shipped topology one mistake is made after the other; where a connection
//! then fails and a change is suggested, the change is made in the text, the text is loaded, and the question asked
//! again: it must be answered with yes.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use vpclab::control::api::ExplainAsk;
use vpclab::control::explain::{Explanation, Facts, answer};
use vpclab::engine::{Engine, EngineLimits, compile};
use vpclab::model::spec::report::Problems;
use vpclab::model::spec::yaml;
use vpclab::model::{Around, Plan, Source, load};

#[test]
fn what_is_advised_for_a_single_mistake_mends_it() {
    let all = topologies();
    let sums: Vec<Sum> = std::thread::scope(|scope| {
        let each: Vec<_> = all.iter().map(|(name, tree)| scope.spawn(|| one_topology(name, tree))).collect();
        each.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let (refused, advised) = sums.iter().fold((0, 0), |(r, a), sum| (r + sum.refused, a + sum.advised));
    println!("{refused} refusals, {advised} with advice; without:");
    sums.iter().flat_map(|sum| &sum.without).for_each(|line| println!("  {line}"));
    let wrong: Vec<&str> = sums.iter().flat_map(|sum| &sum.wrong).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 1_500, "{refused} refusals are too few to say much");
    assert!(advised * 100 > refused * 95, "{advised} of {refused} have advice");
}

/// The same of the training labs, in which something is wrong already.
#[test]
fn what_is_advised_in_a_training_lab_mends_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sum = Sum::default();
    let mut labs = 0;
    for entry in std::fs::read_dir(root.join("labs")).expect("labs") {
        let folder = entry.expect("entry").path();
        let text = |path: &Path| std::fs::read_to_string(path).ok();
        let Some(lab) = text(&folder.join("lab.yaml")) else { continue };
        // A topology of the repository, or one of its own.
        let base = match parse(&lab).expect("a lab")["base"].as_str() {
            Some(base) => root.join(format!("topologies/{base}.yaml")),
            None => folder.join("topology.yaml"),
        };
        let mut tree = parse(&text(&base).expect("a topology")).expect("a tree");
        for patch in ["topology.patch.yaml", "break.patch.yaml"] {
            if let Some(patch) = text(&folder.join(patch)) {
                merge(&mut tree, parse(&patch).unwrap_or_default());
            }
        }
        let name = folder.file_name().expect("name").to_string_lossy().into_owned();
        let Ok(plan) = read(&tree) else { continue };
        labs += 1;
        for question in questions(&plan) {
            let told = ask(&plan, &question);
            if !told.reachable {
                sum.judge(&name, &tree, &told, &question);
            }
        }
    }
    println!("{} refusals in {labs} labs, {} with advice; without:", sum.refused, sum.advised);
    sum.without.iter().for_each(|line| println!("  {line}"));
    assert!(sum.wrong.is_empty(), "{} wrong:\n{}", sum.wrong.len(), sum.wrong.join("\n"));
    assert!(labs > 15 && sum.advised > 100, "{labs} labs, {} with advice", sum.advised);
}

/// RFC 7396.
fn merge(to: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else { return *to = patch };
    if !to.is_object() {
        *to = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                to.as_object_mut().map(|map| map.remove(&key));
            }
            value => merge(&mut to[key], value),
        }
    }
}

#[test]
fn instances_that_count_made_are_named_as_the_file_has_them() {
    let text = include_str!("../topologies/t-solo.yaml")
        .replace("        ip: 10.0.1.10\n", "        count: 3\n")
        .replace(
            "private: { routes: [{ to: 0.0.0.0/0, via: \"nat:natgw-a\" }] }",
            "private: { routes: [{ to: 0.0.0.0/0, via: igw }] }",
        )
        .replace("  - { from: app-a,", "  - { from: app-b,")
        .replace("instance:app-a:80", "instance:app-b:80");
    let (code, advice) = mended(&text, "app-a-2", "192.0.2.10:80", None);
    assert_eq!((code.as_str(), advice), ("IGW_NO_PUBLIC_IP", vec!["vpc.instances.app-a.public_ip: true".to_owned()]));
}

fn one_topology(name: &str, tree: &Value) -> Sum {
    let mut sum = Sum::default();
    let plan = read(tree).unwrap_or_else(|why| panic!("{name}: {why}"));
    let all = questions(&plan);
    // What does not work as it is shipped is a question too.
    let (works, fails): (Vec<Question>, Vec<Question>) =
        all.into_iter().partition(|question| ask(&plan, question).reachable);
    for question in &fails {
        sum.judge(&format!("{name} as shipped"), tree, &ask(&plan, question), question);
    }
    for (mistake, broken) in mistakes(tree) {
        let Ok(plan) = read(&broken) else { continue };
        for question in &works {
            // The mistake may have been to remove it.
            let Some(told) = try_ask(&plan, question) else { continue };
            if !told.reachable {
                sum.judge(&format!("{name} {mistake}"), &broken, &told, question);
            }
        }
    }
    sum
}

#[derive(Default)]
struct Sum {
    refused: usize,
    advised: usize,
    wrong: Vec<String>,
    without: Vec<String>,
}

impl Sum {
    fn judge(&mut self, what: &str, tree: &Value, told: &Explanation, question: &Question) {
        self.refused += 1;
        let code = told.code.as_deref().unwrap_or("?");
        let line = format!("{what}: {} to {}: {code}", question.src, question.dst);
        if told.smallest_change.is_empty() {
            self.without.push(line);
            return;
        }
        self.advised += 1;
        if let Err(why) = follow(tree, question, &told.smallest_change) {
            self.wrong.push(format!("{line}: {}: {why}", told.smallest_change.join(" AND ")));
        }
    }
}

/// Asks, and follows what is advised; the advice.
fn mended(text: &str, src: &str, dst: &str, request: Option<(&str, &str)>) -> (String, Vec<String>) {
    let tree = parse(text).expect("a tree");
    let request = request.map(|(action, resource)| (action.to_owned(), resource.to_owned()));
    let question = Question { src: src.into(), dst: dst.into(), request };
    let told = ask(&read(&tree).unwrap_or_else(|why| panic!("{why}")), &question);
    let (code, advice) = (told.code.clone().unwrap_or_default(), told.smallest_change.clone());
    if let Err(why) = follow(&tree, &question, &advice) {
        panic!("{advice:?}: {why}\n{}", told.text());
    }
    (code, advice)
}

const SERVICES: &str = r#"
version: 1
name: services
region: us-east-1
vpcs:
  v:
    cidr: 10.60.0.0/16
    virtual_private_gateway: true
    subnets:
      a: { cidr: 10.60.1.0/24, az: a }
      b: { cidr: 10.60.2.0/24, az: b, route_table: none }
    route_tables: { main: { propagate: true }, none: {} }
    security_groups:
      doors: { ingress: [tcp 443 from 192.168.0.0/16, tcp 443 from 10.60.0.0/16] }
    instances:
      web:  { subnet: a, ip: 10.60.1.10, role: any }
      back: { subnet: b, ip: 10.60.2.10 }
    endpoints:
      s3-door: { service: s3, subnets: { a: 10.60.1.20 }, security_groups: [doors], private_dns: false }
      s3: { type: gateway, route_tables: [main] }
      dynamodb:
        type: gateway
        route_tables: [main]
        policy:
          Version: "2012-10-17"
          Statement:
            - { Effect: Allow, Principal: "*", Action: "dynamodb:ListTables", Resource: "*" }
            - { Sid: Never, Effect: Deny, Principal: "*", Action: "dynamodb:DeleteTable", Resource: "*" }
on_prem:
  dc:
    cidr: 192.168.0.0/16
    hosts: { h: { ip: 192.168.1.10 } }
    direct_connect: { to: "vgw:v", vif: private }
roles: { any: { policy: full } }
"#;

#[test]
fn a_host_on_premises_is_led_to_the_name_of_an_interface_endpoint() {
    let s3 = "https://s3.us-east-1.amazonaws.com";
    let (code, advice) = mended(SERVICES, "h", s3, None);
    assert_eq!((code.as_str(), advice.len()), ("SITE_NO_ROUTE", 1), "{advice:?}");
    assert!(advice[0].starts_with("ask for https://bucket.vpce-"), "{advice:?}");
    // Where there is none, one has to be made first.
    let without: Vec<&str> = SERVICES.lines().filter(|line| !line.contains("s3-door")).collect();
    let (_, advice) = mended(&without.join("\n"), "h", s3, None);
    assert!(advice[0].starts_with("v.endpoints += { s3-interface: { service: s3, type: interface"), "{advice:?}");
    assert!(advice[1].starts_with("ask for https://bucket.vpce-"), "{advice:?}");
    // With a route, the gateway endpoint refuses.
    let routed = SERVICES.replace("    hosts:", "    routes: [{ to: 198.18.0.0/15, via: direct_connect }]\n    hosts:");
    let (code, advice) = mended(&routed, "h", s3, None);
    assert_eq!((code.as_str(), advice.len()), ("GWE_NOT_IN_VPC", 1), "{advice:?}");
}

#[test]
fn a_gateway_endpoint_is_joined_to_the_table_that_lacks_it() {
    let without: Vec<&str> = SERVICES.lines().filter(|line| !line.contains("s3-door")).collect();
    let text = without.join("\n");
    let (code, advice) = mended(&text, "back", "https://s3.us-east-1.amazonaws.com", None);
    assert_eq!((code.as_str(), advice), ("RT_NO_ROUTE", vec!["v.endpoints.s3.route_tables += none".to_owned()]));
    let plan = read(&parse(&text).expect("tree")).expect("plan");
    let question = Question { src: "back".into(), dst: "https://s3.us-east-1.amazonaws.com".into(), request: None };
    let notes = ask(&plan, &question).notes;
    let note =
        "s3.us-east-1.amazonaws.com is public: gateway endpoint s3 has no name of its own; it has routes in main";
    assert_eq!(notes, [note]);
}

#[test]
fn a_policy_gets_the_statement_that_it_lacks_and_loses_the_one_that_denies() {
    let dynamodb = "https://dynamodb.us-east-1.amazonaws.com";
    let (code, advice) = mended(SERVICES, "web", dynamodb, Some(("dynamodb:CreateTable", "*")));
    let create = "v.endpoints.dynamodb.policy.Statement += \
                  { Effect: \"Allow\", Principal: \"*\", Action: \"dynamodb:CreateTable\", Resource: \"*\" }";
    assert_eq!((code.as_str(), advice), ("VPCE_POLICY", vec![create.to_owned()]));
    let (_, advice) = mended(SERVICES, "web", dynamodb, Some(("dynamodb:DeleteTable", "*")));
    assert!(advice[0].contains("Statement -= {\"Sid\":\"Never\"") && advice.len() == 2, "{advice:?}");
    // A role's.
    let narrow =
        SERVICES.replace("policy: full", "policy: { Statement: { Effect: Allow, Action: 's3:*', Resource: '*' } }");
    let (code, advice) = mended(&narrow, "web", dynamodb, Some(("dynamodb:ListTables", "*")));
    assert_eq!(code, "ROLE_POLICY");
    assert!(advice[0].starts_with("roles.any.policy.Statement: [{"), "{advice:?}");
    // None at all.
    let s3 = "https://bucket.s3.us-east-1.amazonaws.com";
    let joined = SERVICES.replace("route_tables: [main] }", "route_tables: [main, none] }");
    let (code, advice) = mended(&joined, "back", s3, Some(("s3:GetObject", "*")));
    assert_eq!((code.as_str(), advice), ("ROLE_POLICY", vec!["v.instances.back.role: any".to_owned()]));
}

#[test]
fn an_instance_without_a_public_address_gets_a_route_and_one() {
    let text = include_str!("../topologies/t-solo.yaml")
        .replace("      natgw-a: { subnet: public-a }\n", "")
        .replace("    nat_gateways:\n", "")
        .replace("private: { routes: [{ to: 0.0.0.0/0, via: \"nat:natgw-a\" }] }", "private: {}");
    let (code, advice) = mended(&text, "app-a", "192.0.2.10:80", None);
    assert_eq!(code, "RT_NO_ROUTE");
    let route = "vpc.route_tables.private.routes += { to: 0.0.0.0/0, via: igw }";
    assert_eq!(advice, [route, "vpc.instances.app-a.public_ip: true"]);
    // And where the VPC has no such gateway, that as well.
    let iso = include_str!("../topologies/t-iso.yaml").replace(
        "\nroles:",
        "\ninternet: { example: { ip: 192.0.2.10, listen: [{ tcp: 80, reply: http }] } }\n\nroles:",
    );
    let (_, advice) = mended(&iso, "app-a", "192.0.2.10:80", None);
    let route = "vpc.route_tables.main.routes += { to: 0.0.0.0/0, via: igw }";
    assert_eq!(advice, ["vpc.internet_gateway: true", route, "vpc.instances.app-a.public_ip: true"]);
}

#[test]
fn an_attachment_is_associated_with_the_table_that_leads_there() {
    let tables = "    route_tables:\n      x: { associate: [spoke1], propagate: [hub] }\n      \
                  y: { associate: [hub], propagate: [spoke1, spoke2, hub] }\n\nchecks:";
    let text = include_str!("../topologies/t-hub.yaml").replace("\nchecks:", tables);
    let (code, advice) = mended(&text, "app2-a", "instance:app1-a:80", None);
    assert_eq!(code, "TGW_NO_ASSOCIATION");
    let tgw = "transit_gateways.tgw.route_tables";
    assert_eq!(advice, [format!("{tgw}.y.associate += spoke2"), format!("{tgw}.x.propagate += spoke2")]);
}

#[test]
fn a_stateful_firewall_asks_for_appliance_mode() {
    let text = include_str!("../topologies/t-insp.yaml").replace("appliance_mode: true", "appliance_mode: false");
    let (code, advice) = mended(&text, "app1-a", "instance:app2-b:80", None);
    assert_eq!(
        (code.as_str(), advice),
        ("FW_NO_STATE", vec!["transit_gateways.tgw.attachments.insp.appliance_mode: true".to_owned()])
    );
}

#[test]
fn closed_lists_around_a_nat_gateway_are_opened_one_by_one() {
    let text = include_str!("../topologies/t-solo.yaml")
        .replace("az: a, route_table: public }", "az: a, route_table: public, nacl: closed }")
        .replacen("    security_groups:", "    network_acls: { closed: {} }\n    security_groups:", 1);
    let (code, advice) = mended(&text, "app-a", "192.0.2.10:80", None);
    assert_eq!(code, "NACL_IN");
    assert_eq!(
        advice,
        [
            "vpc.network_acls.closed.ingress += { 100: allow tcp 80 from 10.0.1.0/24 }",
            "vpc.network_acls.closed.egress += { 100: allow tcp 80 to 192.0.2.0/24 }",
            "vpc.network_acls.closed.ingress += { 200: allow tcp 1024-65535 from 192.0.2.0/24 }",
            "vpc.network_acls.closed.egress += { 200: allow tcp 32768-60999 to 10.0.1.0/24 }",
        ]
    );
}

#[derive(Clone, Debug)]
struct Question {
    src: String,
    dst: String,
    request: Option<(String, String)>,
}

/// From every machine to every listener, endpoint and service.
fn questions(plan: &Plan) -> Vec<Question> {
    let mut to: Vec<String> = Vec::new();
    for instance in &plan.instances {
        let port = instance.listen.first().map_or(80, |listener| listener.port);
        to.push(format!("instance:{}:{port}", instance.common.path));
    }
    to.extend(plan.endpoints.iter().map(|endpoint| format!("endpoint:{}", endpoint.common.path)));
    to.extend(["sts", "s3"].map(|service| format!("https://{service}.{}.amazonaws.com", plan.region)));
    let ask = |src: &str, dst: &String| Question { src: src.to_owned(), dst: dst.clone(), request: None };
    plan.instances.iter().flat_map(|src| to.iter().map(|dst| ask(&src.common.path, dst))).collect()
}

fn ask(plan: &Plan, question: &Question) -> Explanation {
    try_ask(plan, question).unwrap_or_else(|| panic!("{question:?} cannot be asked"))
}

fn try_ask(plan: &Plan, question: &Question) -> Option<Explanation> {
    let zones = vpclab::dns::compile(plan);
    let facts = Facts { plan, zones: &zones, leaf_names: &vpclab::services::ca::leaf_names };
    let engine = Engine::new(Arc::new(compile(plan, 1)), EngineLimits::default());
    let Question { src, dst, request } = question.clone();
    answer(&facts, engine, &ExplainAsk { src, dst, request, unsigned: false, from_port: None }).ok()
}

/// The advice taken: every line at its place in the text, or in the question.
fn follow(tree: &Value, question: &Question, advice: &[String]) -> Result<(), String> {
    let (mut tree, mut question) = (tree.clone(), question.clone());
    for line in advice {
        match line.strip_prefix("ask for ") {
            Some(dst) => question.dst = dst.to_owned(),
            None => edit(&mut tree, line)?,
        }
    }
    let plan = read(&tree)?;
    let told = try_ask(&plan, &question).ok_or("it cannot be asked any more")?;
    if told.reachable {
        return Ok(());
    }
    Err(format!("{} at {}", told.code.unwrap_or_default(), told.object.unwrap_or_default()))
}

/// `KEY += VALUE`, `KEY -= VALUE`, `KEY: VALUE`.
fn edit(tree: &mut Value, line: &str) -> Result<(), String> {
    let found = [" += ", " -= ", ": "].iter().filter_map(|word| Some((line.find(word)?, *word))).min();
    let (at, word) = found.ok_or_else(|| format!("no change of the file: {line}"))?;
    let (key, text) = (&line[..at], &line[at + word.len()..]);
    let value = parse(text)?;
    let place = place(tree, key)?;
    match (word, &mut *place) {
        (": ", place) => *place = value,
        (" += ", Value::Array(list)) => list.push(value),
        (" += ", Value::Object(map)) => {
            let Value::Object(new) = value else { return Err(format!("{key} is a map")) };
            for (key, value) in new {
                if map.insert(key.clone(), value).is_some() {
                    return Err(format!("{key} is there already"));
                }
            }
        }
        (" += ", place @ Value::Null) => {
            let list = !value.is_object() || key.ends_with(".routes") || key.ends_with(".Statement");
            *place = if list { Value::Array(vec![value]) } else { value };
        }
        (" -= ", Value::Array(list)) => {
            let before = list.len();
            // Of a fault, what it is about.
            let same = |other: &Value| match (other, &value) {
                (Value::Object(other), Value::Object(said)) if key == "faults" => {
                    said.iter().all(|(key, value)| other.get(key) == Some(value))
                }
                _ => *other == value,
            };
            list.retain(|other| !same(other));
            if list.len() == before {
                return Err(format!("{value} is not in {key}"));
            }
        }
        _ => return Err(format!("{key} is neither list nor map")),
    }
    Ok(())
}

/// The place of a key; what a thing of the file does not say yet is made.
fn place<'t>(tree: &'t mut Value, key: &str) -> Result<&'t mut Value, String> {
    const TOP: [&str; 7] = ["vpcs", "transit_gateways", "peerings", "on_prem", "internet", "roles", "faults"];
    let mut words: Vec<&str> = key.split('.').collect();
    if !TOP.contains(&words[0]) {
        words.insert(0, "vpcs");
    }
    let mut place = tree;
    for (depth, word) in words.iter().enumerate() {
        if place.is_null() {
            *place = json!({});
        }
        let map = place.as_object_mut().ok_or_else(|| format!("{key}: {word} is below no map"))?;
        // The VPC, site or transit gateway itself must be there.
        if depth == 1 && words[0] != "peerings" && !map.contains_key(*word) {
            return Err(format!("{key}: there is no {word}"));
        }
        let (word, n) = match word.split_once('[') {
            Some((word, n)) => (word, Some(n.trim_end_matches(']').parse::<usize>().map_err(|e| e.to_string())?)),
            None => (*word, None),
        };
        place = map.entry(word).or_insert(Value::Null);
        if let Some(n) = n {
            place = place.get_mut(n).ok_or_else(|| format!("{key}: there is no {n}th"))?;
        }
    }
    Ok(place)
}

/// What one slip of the hand makes of a file, with a word for each.
fn mistakes(tree: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for top in ["vpcs", "transit_gateways", "peerings", "on_prem", "roles"] {
        let mut at = vec![top.to_owned()];
        if let Some(value) = tree.get(top) {
            removals(tree, value, &mut at, &mut all);
        }
    }
    for (vpc, of) in tree["vpcs"].as_object().into_iter().flatten() {
        let mut set = |pointer: String, value: Value| {
            let mut broken = tree.clone();
            if put(&mut broken, &pointer, value.clone()) {
                all.push((format!("{pointer} is {value}"), broken));
            }
        };
        let entries = |noun: &str| of[noun].as_object().cloned().unwrap_or_default();
        let first = |cidr: &Value| cidr.as_str().or(cidr[0].as_str()).unwrap_or_default().to_owned();
        set(format!("/vpcs/{vpc}/dns_support"), json!(false));
        for (group, _) in entries("security_groups") {
            set(format!("/vpcs/{vpc}/security_groups/{group}/egress"), json!([]));
        }
        for (endpoint, _) in entries("endpoints") {
            set(format!("/vpcs/{vpc}/endpoints/{endpoint}/private_dns"), json!(false));
        }
        for (subnet, _) in entries("subnets") {
            set(format!("/vpcs/{vpc}/subnets/{subnet}/nacl"), json!("closed"));
        }
        for (table, of) in entries("route_tables") {
            let routes = of["routes"].as_array().cloned().unwrap_or_default();
            for n in 0..routes.len() {
                set(format!("/vpcs/{vpc}/route_tables/{table}/routes/{n}/via"), json!("blackhole"));
            }
        }
        let tgws = tree["transit_gateways"].as_object().cloned().unwrap_or_default();
        for (tgw, of_tgw) in tgws {
            for (table, of_table) in of_tgw["route_tables"].as_object().into_iter().flatten() {
                let mut routes = of_table["routes"].as_array().cloned().unwrap_or_default();
                routes.push(json!({"to": first(&of["cidr"]), "via": "blackhole"}));
                set(format!("/transit_gateways/{tgw}/route_tables/{table}/routes"), json!(routes));
            }
        }
    }
    all
}

/// Without one entry, wherever it stands.
fn removals(tree: &Value, at: &Value, path: &mut Vec<String>, all: &mut Vec<(String, Value)>) {
    let keys: Vec<String> = match at {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => (0..list.len()).map(|n| n.to_string()).collect(),
        _ => return,
    };
    for key in keys {
        let pointer = format!("/{}", path.join("/"));
        let mut broken = tree.clone();
        let what = match broken.pointer_mut(&pointer) {
            Some(Value::Object(map)) => map.remove(&key),
            Some(Value::Array(list)) => key.parse().ok().map(|n: usize| list.remove(n)),
            _ => None,
        };
        all.push((format!("without {pointer}/{key} {}", what.unwrap_or_default()), broken));
        let inner = at.get(&key).or_else(|| at.get(key.parse::<usize>().ok()?));
        if let Some(inner) = inner {
            path.push(key);
            removals(tree, inner, path, all);
            path.pop();
        }
    }
}

/// Sets what a pointer leads to; the last word of it may be new. A NACL named `closed` is made with it.
fn put(tree: &mut Value, pointer: &str, value: Value) -> bool {
    if value == json!("closed") {
        let vpc = pointer.split('/').nth(2).unwrap_or_default();
        let of = &mut tree["vpcs"][vpc];
        if of["network_acls"].is_null() {
            of["network_acls"] = json!({});
        }
        of["network_acls"]["closed"] = json!({});
    }
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    let parent = match tree.pointer_mut(parent) {
        Some(null @ Value::Null) => {
            *null = Value::Object(Map::new());
            null
        }
        Some(parent) => parent,
        None => return false,
    };
    match parent.as_object_mut() {
        Some(map) => {
            map.insert(key.to_owned(), value);
            true
        }
        None => false,
    }
}

fn topologies() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut found: Vec<(String, Value)> = std::fs::read_dir(folder)
        .expect("topologies")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("text");
            let name = path.file_stem().expect("name").to_string_lossy().into_owned();
            (name, parse(&text).expect("a tree"))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() > 5, "{}", found.len());
    found
}

fn parse(text: &str) -> Result<Value, String> {
    let node = yaml::parse(0, text, &Problems::default()).ok_or_else(|| format!("no YAML: {text}"))?;
    Ok(node.to_json())
}

/// JSON is YAML.
fn read(tree: &Value) -> Result<Plan, String> {
    let source = Source::new("advice.yaml", tree.to_string());
    load(&[source], &Around::default()).map(|loaded| loaded.plan).map_err(|report| report.render(false))
}
