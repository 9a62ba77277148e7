//! Do records of drops go on to say what decided, whatever becomes of it?
#![cfg(target_os = "linux")]

#[path = "support/changed.rs"]
mod changed;
mod common;

use std::process::Stdio;

use changed::{LAB, get, patch, patch_with};
use common::{Lab, await_that, vpclab};

/// Sends one datagram from port 4000 to `to` for each of the ports.
fn send(lab: &Lab, from: &str, to: &str, ports: std::ops::Range<u16>) {
    let script = format!(
        "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 4000))
for port in range({}, {}): s.sendto(b'x', ('{to}', port))",
        ports.start, ports.end
    );
    lab.exec(from, &["python3", "-c", &script]).ok();
}

fn rows(lab: &Lab, filter: &[&str]) -> Vec<serde_json::Value> {
    let json = lab.vpclab("drops", &[&["-f", "json"], filter].concat()).ok();
    serde_json::from_str(&json).expect("json")
}

/// Waits until there are so many.
#[track_caller]
fn rows_come(lab: &Lab, filter: &[&str], count: usize) -> Vec<serde_json::Value> {
    await_that(&format!("{count} rows of drops {filter:?}"), || rows(lab, filter).len() == count);
    rows(lab, filter)
}

#[test]
fn drops_name_the_rule_that_decided_whatever_becomes_of_it() {
    let lab = Lab::up(LAB);
    // A network ACL's row that becomes another, is removed, and then the ACL is.
    let acl = "vpcs: { app: { subnets: { b: { nacl: nn } }, network_acls: { nn: {
        ingress: { 50: deny tcp 80 from 10.0.1.0/24, 100: allow all from 0.0.0.0/0 }, egress: { 100: allow all to 0.0.0.0/0 } } } } }";
    patch(&lab, acl).ok();
    assert_eq!(get(&lab, "web", "http://10.0.2.10/"), 28);
    let nacl = ["--to", "api", "--code", "NACL_IN"];
    let was = rows(&lab, &nacl);
    assert_eq!(was.len(), 1, "{was:?}");
    assert_eq!(
        (was[0]["object"].as_str(), was[0]["rule"].as_str()),
        (Some("nacl:app.nn"), Some("50 deny tcp 80 from 10.0.1.0/24"))
    );
    let row = |text: &str| format!("vpcs: {{ app: {{ network_acls: {{ nn: {{ ingress: {{ 50: {text} }} }} }} }} }}");
    for (change, good) in [
        (row("allow tcp 80 from 10.0.1.0/24"), true),
        (row("null"), true),
        ("vpcs: { app: { network_acls: null, subnets: { b: { nacl: null } } } }".to_owned(), true),
        (acl.to_owned(), false),
    ] {
        patch(&lab, &change).ok();
        assert_eq!(rows(&lab, &nacl), was, "{change}");
        assert_eq!(get(&lab, "web", "http://10.0.2.10/") == 0, good, "{change}");
    }
    assert_eq!(rows_come(&lab, &nacl, 2)[0], was[0], "a new connection is a new record");
    assert!(lab.vpclab("drops", &nacl).ok().contains("50 deny tcp 80 from 10.0.1.0/24"));

    // A route.
    let routes = |text: &str| format!("vpcs: {{ app: {{ route_tables: {{ main: {{ routes: [{text}] }} }} }} }}");
    patch(&lab, &routes("{ to: 10.9.0.0/16, via: blackhole }")).ok();
    send(&lab, "web", "10.9.0.1", 9..10);
    let hole = ["--code", "RT_BLACKHOLE"];
    let was = rows_come(&lab, &hole, 1);
    assert!(was[0]["rule"].as_str().is_some_and(|rule| rule.contains("10.9.0.0/16")), "{was:?}");
    patch(&lab, &routes("")).ok();
    assert_eq!(rows(&lab, &hole), was);

    // Rules of a group: while the text is the same the record is one, and then it is another.
    let group = ["--to", "api", "--code", "SG_INGRESS"];
    let told = |rows: &[serde_json::Value]| -> Vec<(String, u64)> {
        rows.iter()
            .map(|r| (r["rule"].as_str().expect("a text").to_owned(), r["count"].as_u64().expect("many")))
            .collect()
    };
    let counted =
        |count: u64| rows(&lab, &group).iter().map(|r| r["count"].as_u64().expect("many")).sum::<u64>() == count;
    send(&lab, "web", "10.0.2.10", 9..10);
    await_that("the first is counted", || counted(1));
    patch(&lab, "vpcs: { app: { instances: { aa: { subnet: a, ip: 10.0.1.60 } } } }").ok();
    send(&lab, "web", "10.0.2.10", 9..10);
    await_that("the second is counted", || counted(2));
    patch(&lab, "vpcs: { app: { security_groups: { api: { ingress: [tcp 80 from sg:web] } } } }").ok();
    send(&lab, "web", "10.0.2.10", 9..10);
    await_that("the third is counted", || counted(3));
    let (two, one) = ("2 rules, no match".to_owned(), "1 rule, no match".to_owned());
    assert_eq!(told(&rows(&lab, &group)), [(two, 2), (one, 1)]);
}

#[test]
fn drops_of_who_is_gone_are_found_by_the_names_of_their_time() {
    let lab = Lab::up(LAB);
    let come = |name: &str| {
        patch(&lab, &format!("vpcs: {{ app: {{ instances: {{ {name}: {{ subnet: a, ip: 10.0.1.60 }} }} }} }}")).ok()
    };
    let go = |name: &str| patch(&lab, &format!("vpcs: {{ app: {{ instances: {{ {name}: null }} }} }}")).ok();
    come("aa");
    let mut following = vpclab();
    following.current_dir(lab.dir.path()).args(["drops", "-l", &lab.name, "--follow", "-f", "json", "--from", "aa"]);
    let mut following = following.stdout(Stdio::piped()).spawn().expect("vpclab drops");
    let mut lines = std::io::BufReader::new(following.stdout.take().expect("piped"));
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).expect("a line");
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|e| panic!("{e}: {line}"))["dst"].clone()
    };
    send(&lab, "aa", "10.0.2.10", 9..10);
    assert_eq!(next(), "10.0.2.10:9");
    let was = rows_come(&lab, &["--from", "aa"], 1);
    go("aa");
    for word in ["aa", "app.aa", "instance:aa", "10.0.1.60", "10.0.1.60:4000"] {
        assert_eq!(rows(&lab, &["--from", word, "--to", "api"]), was, "{word}");
    }
    assert!(lab.vpclab("drops", &["--from", "bb"]).fails_with(2).contains("nothing is named `bb`"));
    // Another with its address has its own drops, and not these.
    come("bb");
    assert!(rows(&lab, &["--from", "bb"]).is_empty());
    send(&lab, "bb", "10.0.2.10", 9..10);
    let both = rows_come(&lab, &["--from", "10.0.1.60"], 2);
    assert_eq!((&both[0], both[1]["from"].as_str()), (&was[0], Some("bb")));
    assert_eq!(rows(&lab, &["--from", "aa"]), was);
    // Who followed the first one goes on, and sees no more of it until it is back.
    go("bb");
    come("aa");
    send(&lab, "aa", "10.0.2.10", 10..11);
    assert_eq!(next(), "10.0.2.10:10");
    following.kill().expect("it goes on");
    following.wait().expect("ended");

    // A command that fails is told what was dropped while it ran, before a change and after it.
    let script = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', ('10.0.2.10', 11))
print('going', flush=True)
sys.stdin.read()
s.sendto(b'x', ('10.0.2.10', 12))
sys.exit(1)";
    let mut command = lab.exec_command("web", &["python3", "-c", script]);
    let mut command =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("vpclab exec");
    let mut going = [0; 6];
    std::io::Read::read_exact(command.stdout.as_mut().expect("piped"), &mut going).expect("a line");
    rows_come(&lab, &["--from", "web"], 1);
    patch(&lab, "vpcs: { app: { security_groups: { api: { ingress: [] } } } }").ok();
    let out = command.wait_with_output().expect("ended");
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(told.contains("SG_INGRESS (sg:app.api, 2 rules, no match) to api"), "{told}");
}

#[test]
fn a_full_log_of_drops_is_carried_over_and_costs_packets_nothing() {
    let lab = Lab::up(LAB);
    let sum = |lab: &Lab| -> u64 { rows(lab, &[]).iter().map(|row| row["count"].as_u64().expect("many")).sum() };
    let mut took = Vec::new();
    let mut total = Vec::new();
    for round in 1..=3 {
        // More than the log holds one by one, in portions that a queue holds.
        for port in (0..5_000).step_by(250) {
            let begin = round * 6_000 + port;
            send(&lab, "web", "10.0.2.10", begin..begin + 250);
        }
        let before = rows(&lab, &[]);
        assert!(before.len() > 4_000, "{}", before.len());
        let counted = sum(&lab);
        let text = format!("vpcs: {{ app: {{ security_groups: {{ g{round}: {{}} }} }} }}");
        let json = patch_with(&lab, &text, &["-f", "json"]).ok();
        let applied: serde_json::Value = serde_json::from_str(&json).expect("json");
        took.push(applied["published_us"].as_u64().expect("a time"));
        total.push(applied["total_us"].as_u64().expect("a time"));
        assert_eq!(sum(&lab), counted, "no packet is forgotten");
        let after = rows(&lab, &[]);
        assert_eq!(after[0]["src"], "*");
        assert!((4_097..4_097 + 256).contains(&after.len()), "bounded: {}", after.len());
        assert_eq!(after.last(), before.last());
    }
    took.sort_unstable();
    println!("microseconds until a plan is in force over a full log of drops: {took:?}, of all: {total:?}");
    assert!(took[0] < 5_000 && took[took.len() - 1] < 250_000, "{took:?}");
}
