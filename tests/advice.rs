//! Is the advice of `explain` true? Into every shipped topology one mistake is made after the other; where a connection
//! then fails and a change is suggested, the change is made in the text, the text is loaded, and the question asked
//! again: it must be answered with yes.

use std::collections::BTreeMap;
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
    let mut sum = Sum::default();
    for (name, tree) in topologies() {
        let plan = read(&tree).unwrap_or_else(|why| panic!("{name}: {why}"));
        let all = questions(&plan);
        // What does not work as it is shipped is a question too.
        let (works, fails): (Vec<Question>, Vec<Question>) =
            all.into_iter().partition(|question| ask(&plan, question).reachable);
        for question in &fails {
            sum.judge(&name, "as shipped", &tree, &ask(&plan, question), question);
        }
        for (mistake, broken) in mistakes(&tree) {
            let Ok(plan) = read(&broken) else { continue };
            for question in &works {
                // The mistake may have been to remove it.
                let Some(told) = try_ask(&plan, question) else { continue };
                if !told.reachable {
                    sum.judge(&name, &mistake, &broken, &told, question);
                }
            }
        }
    }
    println!("{} refusals, {} with advice", sum.refused, sum.advised);
    for (line, n) in &sum.without {
        println!("none: {n} times {line}");
    }
    assert!(sum.wrong.is_empty(), "{} wrong:\n{}", sum.wrong.len(), sum.wrong.join("\n"));
    assert!(sum.refused > 500, "{} refusals are too few to say much", sum.refused);
    assert!(sum.advised * 10 > sum.refused * 9, "{} of {} have advice", sum.advised, sum.refused);
}

#[derive(Default)]
struct Sum {
    refused: usize,
    advised: usize,
    wrong: Vec<String>,
    without: BTreeMap<String, usize>,
}

impl Sum {
    fn judge(&mut self, name: &str, mistake: &str, tree: &Value, told: &Explanation, question: &Question) {
        self.refused += 1;
        let code = told.code.as_deref().unwrap_or("?");
        if told.smallest_change.is_empty() {
            let line = format!("{name}, {mistake}: {} to {}: {code}", question.src, question.dst);
            *self.without.entry(line).or_default() += 1;
            return;
        }
        self.advised += 1;
        if let Err(why) = follow(tree, question, &told.smallest_change) {
            let advice = told.smallest_change.join(" AND ");
            self.wrong.push(format!("{name}, {mistake}: {} to {}: {code}: {advice}: {why}", question.src, question.dst));
        }
    }
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
            list.retain(|other| *other != value);
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
    const TOP: [&str; 7] = ["vpcs", "transit_gateways", "peerings", "on_prem", "internet", "roles", "limits"];
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
        place = map.entry(*word).or_insert(Value::Null);
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
