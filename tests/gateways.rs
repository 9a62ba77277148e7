//! Is the network between an instance and the rest of the world AWS's? tracepath, traceroute, curl, ping and plain
//! sockets in real namespaces, and every claim judged by what the lab counted, not by the reply alone.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Stdio;

use common::{Lab, Said, await_that, topology, vpclab};
use serde_json::Value;

/// Sends so many bytes to an echo server and takes them back; says whether they are the same, and the MSS of both ways.
const BULK: &str = "
import os, socket, struct, sys, threading
n, b = 4_000_000, os.urandom(4_000_000)
s = socket.create_connection((sys.argv[1], 9000), 5)
s.settimeout(20)
threading.Thread(target=lambda: s.sendall(b), daemon=True).start()
got = bytearray()
while len(got) < n and (part := s.recv(1 << 20)): got += part
words = struct.unpack_from('24I', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 8)
print(bytes(got) == b, words[2], words[3])
";

fn json(lab: &Lab, verb: &str, args: &[&str]) -> Value {
    let text = lab.vpclab(verb, &[&["-f", "json"], args].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let path = format!(".{name}");
    let found = rows(list).iter().find(|row| text(row, "name") == name || text(row, "path").ends_with(&path));
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Packets dropped with a code, of those from an instance.
fn dropped(lab: &Lab, from: &str, code: &str) -> u64 {
    let drops = json(lab, "drops", &["--from", from, "--code", code]);
    rows(&drops).iter().map(|row| row["count"].as_u64().expect("a count")).sum()
}

/// Bytes that went in and out of an instance by a way.
fn by_way(lab: &Lab, instance: &str, way: &str) -> u64 {
    let ps = json(lab, "ps", &[]);
    let ways = named(&ps["instances"], instance)["ways"].as_array().expect("ways").clone();
    ways.iter().find(|row| row[0] == way).map_or(0, |row| row[1].as_u64().expect("bytes"))
}

fn nat_metric(lab: &Lab, metric: &str) -> u64 {
    let ps = json(lab, "ps", &[]);
    let metrics = named(&ps["gateways"], "natgw-a")["metrics"].as_array().expect("metrics").clone();
    metrics.iter().find(|row| row[0] == metric).and_then(|row| row[1].as_u64()).expect("a metric")
}

/// Bytes into all network interfaces of an interface endpoint.
fn endpoint_bytes(lab: &Lab, endpoint: &str) -> u64 {
    let ps = json(lab, "ps", &[]);
    rows(&named(&ps["endpoints"], endpoint)["enis"]).iter().map(|e| e["counters"]["bytes_in"].as_u64().unwrap()).sum()
}

#[track_caller]
fn patch(lab: &Lab, text: &str) {
    let mut command = vpclab();
    command.current_dir(lab.dir.path()).args(["apply", "-l", &lab.name, "--patch", "-"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("vpclab apply");
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("patch written");
    let out = child.wait_with_output().expect("ended");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The hops that traceroute and tracepath saw, by number; `*` for one that said nothing.
fn hops(said: Said) -> Vec<(u32, String)> {
    let lines = said.ok();
    let hop = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.next()?.trim_end_matches(':').parse().ok()?;
        Some((number, words.next()?.to_owned()))
    };
    let mut hops: Vec<(u32, String)> = lines.lines().filter_map(hop).collect();
    hops.dedup();
    hops
}

#[test]
fn a_path_through_nat_shows_its_hops_and_its_mtu() {
    // No rule lets ICMP in: what the groups let out is enough for its errors to come back.
    let yaml = topology("t-solo.yaml").replace(", icmp from 10.0.0.0/16]", "]");
    let lab = Lab::up(&yaml);
    let path = lab.exec("app-a", &["tracepath", "-n", "192.0.2.10"]).ok();
    let has = |hop: &str, pmtu: &str| path.lines().any(|l| l.contains(hop) && l.trim_end().ends_with(pmtu));
    assert!(has("LOCALHOST", "pmtu 9001"), "{path}");
    assert!(has(" 10.0.0.4 ", "pmtu 8500"), "the NAT gateway: {path}");
    assert!(has(" 10.0.0.1 ", "pmtu 1500"), "the Internet gateway speaks as the NAT gateway's router: {path}");
    assert!(path.contains("192.0.2.10") && path.contains("reached"), "{path}");
    assert!(path.contains("Resume: pmtu 1500 hops 3"), "{path}");
    assert!(!path.contains("no reply"), "{path}");

    for how in [&[][..], &["-I"], &["-T", "-p", "80"]] {
        let seen =
            hops(lab.exec("app-b", &[&["traceroute", "-n", "-q", "1", "-w", "2"], how, &["192.0.2.10"]].concat()));
        let (first, last) = (&seen[0], &seen[seen.len() - 1]);
        assert_eq!(first, &(1, "10.0.0.4".to_owned()), "{how:?}: {seen:?}");
        assert_eq!(last, &(3, "192.0.2.10".to_owned()), "{how:?}: {seen:?}");
        assert!(seen.iter().all(|(_, host)| host != "*"), "{how:?}: {seen:?}");
    }
    // Within the VPC nobody takes a hop.
    let seen = hops(lab.exec("web", &["traceroute", "-n", "-q", "1", "-w", "2", "-T", "-p", "80", "10.0.1.10"]));
    assert_eq!(seen, [(1, "10.0.1.10".to_owned())]);
    assert!(dropped(&lab, "app-a", "MTU_FRAG_NEEDED") >= 2 && dropped(&lab, "app-a", "TTL_EXPIRED") >= 2);
    lab.down();
}

#[test]
fn much_data_through_nat_keeps_to_the_smallest_mtu() {
    let lab = Lab::up_file("t-solo.yaml");
    for (from, way) in [("app-a", "nat"), ("web", "internet")] {
        let said = lab.exec(from, &["python3", "-c", BULK, "192.0.2.10"]).ok();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[0], "True", "{from}: every byte came back");
        for mss in &words[1..] {
            // 1,500 less 40, and less 12 more for timestamps.
            assert!((1400..=1460).contains(&mss.parse::<u32>().expect("a number")), "{from}: {said}");
        }
        assert!(by_way(&lab, from, way) > 8_000_000, "{from}: all of it by {way}");
        assert!(by_way(&lab, from, "private") < 10_000, "{from}");
    }
    assert!(nat_metric(&lab, "BytesOutToDestination") > 4_000_000);
    assert!(nat_metric(&lab, "BytesInFromDestination") > 4_000_000);
    lab.down();
}

#[test]
fn a_vpn_has_its_own_mtu() {
    let dc1 = "dc1: { ip: 192.168.0.10, listen: [{ tcp: 80, reply: source }";
    let yaml = topology("t-hyb.yaml");
    assert!(yaml.contains(dc1));
    let lab = Lab::up(&yaml.replace(dc1, &format!("{dc1}, {{ tcp: 9000, reply: echo }}")));
    // Before anything is remembered: the largest that fits, and one byte more.
    let ping = |from: &str, to: &str, bytes: &str| {
        lab.exec(from, &["ping", "-c", "1", "-W", "2", "-M", "do", "-s", bytes, to])
    };
    for (from, to) in [("app-b", "192.168.0.10"), ("dc1", "10.0.1.10")] {
        ping(from, to, "1418").ok();
        let said = ping(from, to, "1419");
        assert!(said.code == 1 && format!("{}{}", said.out, said.err).contains("1446"), "{from}: {said:?}");
        assert_eq!(dropped(&lab, from, "MTU_FRAG_NEEDED"), 1, "{from}");
    }
    let path = lab.exec("app-a", &["tracepath", "-n", "192.168.0.10"]).ok();
    assert!(path.contains("pmtu 1446") && path.contains("reached"), "{path}");
    assert!(!path.contains("no reply"), "{path}");
    let said = lab.exec("app-a", &["python3", "-c", BULK, "192.168.0.10"]).ok();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[0], "True");
    for mss in &words[1..] {
        assert!((1300..=1406).contains(&mss.parse::<u32>().expect("a number")), "1446 less 40 at most: {said}");
    }
    assert!(by_way(&lab, "dc1", "private") > 8_000_000);
    lab.down();
}

#[test]
fn s3_is_reached_by_nat_the_internet_gateway_an_endpoint_or_a_door() {
    let lab = Lab::up_file("t-solo.yaml");
    let ps = json(&lab, "ps", &[]);
    let public_ips = |name: &str| rows(&named(&ps["instances"], name)["public_ips"]).to_vec();
    assert!(public_ips("web")[0].as_str().expect("an address").starts_with("203.0.113."), "{ps}");
    assert!(public_ips("app-a").is_empty(), "{ps}");
    let get = |from: &str| {
        let url = "https://s3.us-east-1.amazonaws.com/lab/x";
        let said = lab.exec(from, &["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{remote_ip}", url]).ok();
        said.trim().to_owned()
    };
    // What each counter said after the request beyond what it said before: by way, through NAT, at the endpoint.
    let ways = ["private", "nat", "internet", "gateway-endpoint"];
    let all = |from: &str| {
        let endpoint = json(&lab, "ps", &[])["endpoints"].to_string().contains("\"vpc.s3\"");
        let mut all: BTreeMap<&str, u64> = ways.iter().map(|way| (*way, by_way(&lab, from, way))).collect();
        all.insert("NAT gateway", nat_metric(&lab, "BytesOutToDestination"));
        all.insert("endpoint", if endpoint { endpoint_bytes(&lab, "s3") } else { 0 });
        let ps = json(&lab, "ps", &[]);
        let door = rows(&ps["gateways"]).iter().find(|row| text(row, "path") == "vpc.door");
        all.insert("door", door.map_or(0, |row| row["bytes_in"].as_u64().expect("bytes")));
        all
    };
    // A name is asked for by the way of the resolver, which is no way; only the request counts.
    let moved = |from: &str| {
        let before = all(from);
        let address = get(from);
        let after = all(from);
        let moved: Vec<&str> = after.iter().filter(|(k, v)| **v > before[*k]).map(|(k, _)| *k).collect();
        (moved, address)
    };
    let public = |address: &str| address.starts_with("198.18.") || address.starts_with("198.19.");
    let without = |stage: &str| {
        let (by, address) = moved("app-a");
        assert!(by == ["NAT gateway", "nat"] && public(&address), "{stage}: {by:?} {address}");
        let (by, address) = moved("web");
        assert!(by == ["internet"] && public(&address), "{stage}: {by:?} {address}");
    };
    without("no endpoint");
    let interface = "vpcs: { vpc: { endpoints: { s3: { subnets: [vpce-a, vpce-b], security_groups: [vpce], private_dns: false } } } }";
    patch(&lab, interface);
    without("private DNS off");
    patch(&lab, "vpcs: { vpc: { endpoints: { s3: { private_dns: true } } } }");
    for from in ["app-a", "web"] {
        let (by, address) = moved(from);
        assert!(by == ["endpoint", "private"] && address.starts_with("10.0.10"), "{from}: {by:?} {address}");
    }
    patch(
        &lab,
        "vpcs: { vpc: { endpoints: { s3: null, door: { service: s3, type: gateway, route_tables: [private] } } } }",
    );
    let (by, address) = moved("app-a");
    assert!(by == ["door", "gateway-endpoint"] && public(&address), "{by:?} {address}");
    let (by, _) = moved("web");
    assert_eq!(by, ["internet"], "its table has no row for the door");
    patch(&lab, "vpcs: { vpc: { endpoints: { door: null } } }");
    without("the door is gone");
    let wrong: Vec<Value> = rows(&json(&lab, "drops", &["--from", "app-a", "--code", "SG_INGRESS"])).to_vec();
    assert!(wrong.is_empty(), "{wrong:?}");
    lab.down();
}

#[test]
fn nat_answers_with_a_reset_what_it_has_forgotten() {
    let lab = Lab::up(&format!("{}\nlimits: {{ nat_idle: 1s }}\n", topology("t-solo.yaml")));
    let client = "
import socket, sys
s = socket.create_connection(('192.0.2.10', 9000), 5)
s.settimeout(5)
s.sendall(b'one'); assert s.recv(9) == b'one'
print('going', flush=True)
sys.stdin.read()
try:
    s.sendall(b'two'); print('answered', s.recv(9))
except ConnectionResetError: print('reset')
";
    let mut command = lab.exec_command("app-a", &["python3", "-c", client]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("vpclab exec");
    let mut out = child.stdout.take().expect("piped");
    let mut going = [0; 6];
    out.read_exact(&mut going).expect("it begins");
    assert_eq!((&going, dropped(&lab, "app-a", "NAT_IDLE")), (b"going\n", 0));
    await_that("the connection is forgotten", || nat_metric(&lab, "IdleTimeoutCount") == 1);
    drop(child.stdin.take());
    let mut said = String::new();
    out.read_to_string(&mut said).expect("read");
    child.wait().expect("it ends");
    assert_eq!(said, "reset\n");
    let drops = json(&lab, "drops", &["--from", "app-a", "--code", "NAT_IDLE"]);
    assert_eq!(text(&drops[0], "object"), "nat:vpc.natgw-a", "{drops}");
    lab.down();
}

/// Twice the same addresses, joined by nothing; one address is taken in one of them only.
const TWINS: &str = "version: 1
name: x
region: eu-west-1
vpcs:
  red:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    security_groups: { all: { ingress: [all from 10.0.0.0/16] } }
    instances:
      red1: { subnet: a, ip: 10.0.1.10, security_groups: [all] }
      red2: { subnet: a, ip: 10.0.1.20, security_groups: [all], listen: [ { tcp: 80, reply: hello }, { tcp: 9000, reply: echo } ] }
  blue:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    security_groups: { all: { ingress: [all from 10.0.0.0/16] } }
    instances:
      blue1: { subnet: a, ip: 10.0.1.10, security_groups: [all] }
      blue2: { subnet: a, ip: 10.0.1.20, security_groups: [all], listen: [ { tcp: 80, reply: hello }, { tcp: 9000, reply: echo } ] }
      blue3: { subnet: a, ip: 10.0.1.30, security_groups: [all], listen: [ { tcp: 80, reply: hello } ] }
";

#[test]
fn the_same_addresses_twice_stay_apart() {
    let lab = Lab::up(TWINS);
    // Both at once, from the same port to the same address: every tuple is there twice.
    let bulk = BULK.replace("5)\n", "5, ('', 40000))\n");
    let run =
        |from: &str| lab.exec_command(from, &["python3", "-c", &bulk, "10.0.1.20"]).stdout(Stdio::piped()).spawn();
    let both = [run("red1").expect("exec"), run("blue1").expect("exec")];
    for child in both {
        let said = child.wait_with_output().expect("ended").stdout;
        assert!(said.starts_with(b"True "), "{}", String::from_utf8_lossy(&said));
    }
    let flows = json(&lab, "flows", &[]);
    for (from, to) in [("red1", "red2"), ("blue1", "blue2")] {
        let hello = lab.exec(from, &["curl", "-sS", "--http0.9", "-m", "3", "http://10.0.1.20/"]).ok();
        let vpc = &from[..from.len() - 1];
        assert_eq!(hello, format!("hello from {vpc}.{to} 10.0.1.20:80\n"));
        let own = |row: &&Value| text(row, "from") == from && text(row, "src") == "10.0.1.10:40000";
        let own: Vec<&Value> = rows(&flows).iter().filter(own).collect();
        assert_eq!(own.iter().map(|row| text(row, "to")).collect::<Vec<_>>(), [to], "{flows}");
        assert!(own[0]["bytes_out"].as_u64() > Some(4_000_000), "{flows}");
    }
    let third = |from: &str| lab.exec(from, &["curl", "-sS", "--http0.9", "-m", "1", "http://10.0.1.30/"]);
    third("blue1").ok();
    assert_eq!(third("red1").code, 28, "red has no such address");
    assert!(dropped(&lab, "red1", "NO_ENI") >= 1);
    let drops = json(&lab, "drops", &["--from", "red1"]);
    assert!(rows(&drops).iter().all(|row| !text(row, "to").contains("blue")), "{drops}");
    lab.down();
}

/// Frames that no kernel would send, by number of what they should be dropped for.
const GARBAGE: &str = "
import random, socket, struct, sys
first = int(sys.argv[1])
r = random.Random(7 + first)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
def send(b): s.sendto(b, ('eth0', 0x0800))
def sum16(b):
    n = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def ip(proto, body, src='10.0.1.10', dst='10.0.1.20', ident=1, frag=0, total=None, first=0x45, bad=0):
    h = struct.pack('!BBHHHBBH4s4s', first, 0, total or 20 + len(body), ident, frag, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst))
    return h[:10] + struct.pack('!H', sum16(h) ^ bad) + h[12:] + body
udp = struct.pack('!HHHH', 5000, 9, 16, 0) + bytes(8)
for n in range(first, first + 25):
    send(ip(17, udp, total=2000))                    # longer than it is
    send(ip(17, udp, first=0x41))                    # a header of four bytes
    send(ip(6, b'x'))                                # no TCP header
    send(ip(17, udp, bad=0x0101))                    # a wrong checksum
    send(ip(17, udp, src='10.0.1.99'))               # not its own address
    send(ip(17, udp, dst='10.0.1.10'))               # from itself to itself
    send(ip(17, udp, ident=n, frag=0x2000))          # overlapping fragments
    send(ip(17, udp, ident=n, frag=1))
    send(bytes([0x45]) + r.randbytes(r.randrange(0, 200)))
    send(r.randbytes(r.randrange(1, 1500)))
print('sent')
";

#[test]
fn floods_scans_and_garbage_hurt_nobody_else() {
    let lab = Lab::up(TWINS.replace("all from 10.0.0.0/16] } }\n    instances:\n      red1", "tcp 80 from 10.0.0.0/16, tcp 9000 from 10.0.0.0/16, icmp from 10.0.0.0/16] } }\n    instances:\n      red1").as_str());
    let router = json(&lab, "ps", &[])["router_pid"].clone();
    let root = |script: &[&str]| {
        let all = [&["--user", "root", "red1", "--"], script].concat();
        lab.vpclab("exec", &all)
    };
    let well = |after: &str| {
        let said = lab.exec("blue1", &["curl", "-sS", "--http0.9", "-m", "3", "http://10.0.1.20/"]);
        assert_eq!(said.ok(), "hello from blue.blue2 10.0.1.20:80\n", "{after}");
        let said = lab.exec("red1", &["curl", "-sS", "--http0.9", "-m", "3", "http://10.0.1.20/"]);
        assert_eq!(said.ok(), "hello from red.red2 10.0.1.20:80\n", "{after}");
        assert_eq!(json(&lab, "ps", &[])["router_pid"], router, "{after}");
    };
    let drops_of = |name: &str| named(&json(&lab, "ps", &[])["instances"], name)["counters"]["drops"].as_u64().unwrap();

    let (flood, count) = common::ping_flood(5_000, "10.0.1.20");
    let said = root(&flood.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert!(said.contains(&format!("{count} received")), "{said}");
    well("a flood of pings");

    let scan = "
import selectors, socket
s = selectors.DefaultSelector()
for port in range(1, 513):
    c = socket.socket(); c.setblocking(False)
    c.connect_ex(('10.0.1.20', port)); s.register(c, selectors.EVENT_WRITE, port)
ready = {k.data for k, _ in s.select(1)}
print(sorted(ready))
";
    assert_eq!(lab.exec("red1", &["python3", "-c", scan]).ok(), "[80]\n");
    assert!(dropped(&lab, "red1", "SG_INGRESS") >= 511, "every closed port is counted");
    well("a port scan");

    // As many at once as the queue of its device holds.
    for first in ["0", "25", "50", "75"] {
        let before = drops_of("red1");
        assert_eq!(root(&["python3", "-c", GARBAGE, first]).ok(), "sent\n");
        await_that("every frame was judged", || drops_of("red1") >= before + 250);
    }
    for code in ["MALFORMED", "CHECKSUM", "SRC_DST_CHECK"] {
        assert!(dropped(&lab, "red1", code) >= 100, "{code}: {}", lab.vpclab("drops", &["--from", "red1"]).out);
    }
    assert_eq!(drops_of("blue1"), 0);
    well("garbage");
    lab.down();
}

/// Connects to every target at once: `own address, target, what came of it`.
const PROBES: &str = "
import errno, selectors, socket, sys
s = selectors.DefaultSelector()
seen = {}
for target in sys.argv[1:]:
    host, port = target.split(':')
    c = socket.socket(); c.setblocking(False)
    c.connect_ex((host, int(port)))
    own = '%s:%d' % c.getsockname()
    seen[target] = [own, 'silence', c]
    s.register(c, selectors.EVENT_WRITE, target)
import time
end = time.monotonic() + 1.5
while s.get_map() and time.monotonic() < end:
    for k, _ in s.select(end - time.monotonic()):
        e = k.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        seen[k.data][1] = errno.errorcode[e] if e else 'connected'
        s.unregister(k.fileobj)
for target, (own, what, _) in seen.items(): print(own, target, what)
";

/// Every instance of a topology to every address and some ports: what `explain` says is what a connection meets.
fn predicted_is_observed(file: &str) {
    let lab = Lab::up_file(file);
    let ps = json(&lab, "ps", &[]);
    let mut addresses: Vec<String> = Vec::new();
    for instance in rows(&ps["instances"]) {
        addresses.extend(rows(&instance["ips"]).iter().map(|ip| ip.as_str().unwrap().to_owned()));
    }
    for endpoint in rows(&ps["endpoints"]) {
        addresses.extend(rows(&endpoint["enis"]).iter().map(|eni| text(eni, "ip").to_owned()));
    }
    let (mut yes, mut no, mut wrong) = (0, 0, Vec::new());
    for instance in rows(&ps["instances"]) {
        let from = text(instance, "name");
        let own: Vec<&str> = rows(&instance["ips"]).iter().filter_map(Value::as_str).collect();
        let targets: Vec<String> = addresses
            .iter()
            .filter(|ip| !own.contains(&ip.as_str()))
            .flat_map(|ip| [22, 80, 443, 9000].map(|port| format!("{ip}:{port}")))
            .collect();
        let explained: Vec<Value> = targets
            .iter()
            .map(|to| {
                let said = lab.vpclab("explain", &["-f", "json", from, to]);
                serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
            })
            .collect();
        let mut command = vec!["python3", "-c", PROBES];
        command.extend(targets.iter().map(String::as_str));
        let seen = lab.exec(from, &command).ok();
        let flows = json(&lab, "flows", &["--from", from]);
        let drops = json(&lab, "drops", &[]);
        for (line, said) in seen.lines().zip(&explained) {
            let [own, to, what] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let reached = matches!(what, "connected" | "ECONNREFUSED");
            if text(said, "verdict") == "YES" {
                yes += 1;
                let flow = rows(&flows).iter().find(|row| text(row, "src") == own && text(row, "dst") == to);
                let way = flow.map_or("no flow", |row| text(row, "way"));
                if !reached || way != text(said, "way") {
                    wrong.push(format!("{from} {line}: YES via {}, but {way}", text(said, "way")));
                }
            } else {
                no += 1;
                let of = |row: &&Value| text(row, "src") == own || text(row, "dst") == own;
                let codes: Vec<&str> = rows(&drops).iter().filter(of).map(|row| text(row, "code")).collect();
                if reached || !codes.contains(&text(said, "code")) {
                    wrong.push(format!("{from} {line}: NO {}, but {codes:?}", text(said, "code")));
                }
            }
        }
        assert_eq!(seen.lines().count(), targets.len());
    }
    assert!(wrong.is_empty(), "{file}, {} of {}:\n{}", wrong.len(), yes + no, wrong.join("\n"));
    assert!(yes > 0 && no > 0, "{file}: {yes} reached, {no} not: too plain to tell");
    lab.down();
}

#[test]
fn predicted_is_observed_across_a_transit_gateway() {
    predicted_is_observed("t-hub.yaml");
}

#[test]
fn predicted_is_observed_across_peerings() {
    predicted_is_observed("t-peer.yaml");
}

#[test]
fn predicted_is_observed_across_a_vpn() {
    predicted_is_observed("t-hyb.yaml");
}

/// Instances with several ENIs, and a way through one of them.
const ARMS: &str = "
version: 1
name: arms
region: us-east-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      a: { cidr: 10.0.1.0/24, az: a, route_table: a }
      b: { cidr: 10.0.2.0/24, az: a }
    route_tables:
      a: { routes: [{ to: 192.0.2.0/24, via: \"instance:nat\" }, { to: 198.51.100.0/24, via: \"instance:host\" }] }
    security_groups:
      open: { ingress: [all from 10.0.0.0/16] }
    instances:
      a1: { subnet: a, ip: 10.0.1.10, security_groups: [open] }
      b1: { subnet: b, ip: 10.0.2.10, security_groups: [open] }
      two:
        enis:
          - { subnet: a, ip: 10.0.1.20, security_groups: [open] }
          - { subnet: b, ip: 10.0.2.20, security_groups: [open] }
        listen: [{ tcp: 80, reply: source }, { udp: 53, reply: echo }]
      nat: { subnet: a, public_ip: true, source_dest_check: false, forward: true, security_groups: [open] }
      host: { subnet: a, source_dest_check: false, security_groups: [open] }
internet:
  ex: { ip: 192.0.2.10, listen: [{ tcp: 80, reply: source }] }
  other: { ip: 198.51.100.10, listen: [{ tcp: 80, reply: source }] }
";

/// Sends a datagram from a socket that takes answers of the asked only, and says whether one came.
const ASK_UDP: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect((sys.argv[1], 53))
s.send(b'who')
try: print(s.recv(9).decode())
except TimeoutError: print('nobody')
";

/// Each ENI has a routing table of its own for what leaves from its address, as on Amazon Linux; `explain` knows it.
#[test]
fn an_instance_answers_by_the_interface_that_was_asked() {
    let lab = Lab::up(ARMS);
    for src in ["a1", "b1"] {
        for dst in ["10.0.1.20", "10.0.2.20"] {
            let asked = json(&lab, "explain", &[src, &format!("{dst}:80")]);
            assert_eq!(asked["verdict"], "YES", "{src} {dst}: {asked}");
            let own = if src == "a1" { "10.0.1.10" } else { "10.0.2.10" };
            let said = lab.exec(src, &["curl", "-sS", "-m", "5", &format!("http://{dst}/")]).ok();
            assert!(said.starts_with(own), "{src} {dst}: {said}");
            lab.exec(src, &["ping", "-c", "1", "-W", "5", dst]).ok();
            assert_eq!(lab.exec(src, &["python3", "-c", ASK_UDP, dst]).ok().trim(), "who", "{src} {dst}");
        }
    }
    assert_eq!(rows(&json(&lab, "drops", &[])).len(), 0);
}

/// What an instance forwards to itself, and what one does not forward, is gone without a record; `explain` says so.
#[test]
fn a_way_that_ends_in_an_instance_is_none() {
    let lab = Lab::up(ARMS);
    // Where the TTL ends, the kernel tells the sender, which takes that for no route to the host.
    for (dst, code, kind, object, seen) in [
        ("192.0.2.10", Value::from("ROUTE_LOOP"), "route-table", "v.a", 7),
        ("198.51.100.10", Value::Null, "instance", "v.host", 28),
    ] {
        let said = lab.vpclab("explain", &["-f", "json", "a1", &format!("{dst}:80")]);
        assert_eq!(said.code, 1, "{dst}: {}", said.out);
        let said: Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!((&said["reachable"], &said["code"]), (&Value::from(false), &code), "{dst}: {said}");
        assert_eq!((&said["kind"], &said["object"]), (&Value::from(kind), &Value::from(object)), "{dst}: {said}");
        lab.exec("a1", &["curl", "-sS", "--connect-timeout", "1", &format!("http://{dst}/")]).fails_with(seen);
    }
    assert_eq!(rows(&json(&lab, "drops", &["--from", "a1"])).len(), 0);
}
