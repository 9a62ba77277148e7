//! Can one instance hurt the others? Floods, scans, peers that never read and packets that no kernel sends, from one
//! instance, while others work; every packet that is refused is counted with its code, and memory has a bound.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;

use common::{Going, Lab, await_that};
use serde_json::Value;

/// `red` attacks, `third` and two endpoints are attacked, `blue` goes on with its work.
const LAB: &str = "version: 1
name: attacks
region: eu-west-1
limits: { egress_fragments: 100000 }
vpcs:
  v:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: b } }
    security_groups:
      all:   { ingress: [all from 10.0.0.0/16] }
      third: { ingress: [tcp 80 from 10.0.0.0/16, udp 5000-5999 from 10.0.0.0/16, icmp from 10.0.0.0/16] }
    instances:
      red:   { subnet: a, ip: 10.0.1.10, security_groups: [all], role: any }
      third: { subnet: a, ip: 10.0.1.20, security_groups: [third], listen: [ { tcp: 80, reply: hello } ] }
      blue:  { subnet: b, ip: 10.0.2.30, security_groups: [all], role: any }
    endpoints:
      sts:  { subnets: { b: 10.0.2.40 }, security_groups: [all] }
      s3:   { subnets: { b: 10.0.2.41 }, security_groups: [all] }
      echo: { subnets: { b: 10.0.2.42 }, security_groups: [all] }
roles: { any: { policy: full } }
services:
  s3: { buckets: { lab: {} } }
  echo: { ports: [7] }
";

/// What `red` runs to send frames by hand; its kernel's resets must not end what it begins so.
const FRAMES: &str = "
import random, socket, struct, subprocess, sys, time
subprocess.run(['nft', '-f', '-'], input=b'table ip quiet { chain out { type filter hook output priority 0; tcp flags rst drop; }; }', check=True)
r = random.Random(7)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
OWN, THIRD, STS = '10.0.1.10', '10.0.1.20', '10.0.2.40'
def send(b): s.sendto(b, ('eth0', 0x0800))
def sum16(b):
    b += bytes(len(b) % 2)
    n = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def ip(proto, body, src=OWN, dst=THIRD, ident=1, frag=0, total=None, first=0x45, bad=0, options=b''):
    h = struct.pack('!BBHHHBBH4s4s', first, 0, total or 20 + len(options) + len(body), ident, frag, 64, proto, 0,
        socket.inet_aton(src), socket.inet_aton(dst)) + options
    return h[:10] + struct.pack('!H', sum16(h) ^ bad) + h[12:] + body
def summed(proto, src, dst, body, at, bad=0):
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack('!BBH', 0, proto, len(body))
    return body[:at] + struct.pack('!H', (sum16(pseudo + body) or 0xffff) ^ bad) + body[at + 2:]
def tcp(sport, dport, flags, dst=THIRD, src=OWN, seq=0, ack=0, window=64000, data=b'', words=5, bad=0, **more):
    body = struct.pack('!HHIIBBHHH', sport, dport, seq, ack, words << 4, flags, window, 0, 0) + data
    return ip(6, summed(6, src, dst, body, 16, bad), src, dst, **more)
def udp(sport, dport, data, dst=THIRD, src=OWN, length=None, bad=0, **more):
    body = struct.pack('!HHHH', sport, dport, length or 8 + len(data), 0) + data
    return ip(17, summed(17, src, dst, body, 6, bad), src, dst, **more)
";

/// SYNs of every kind at once: to ports that rules close, to one that is open, to an endpoint.
const SYN_FLOOD: &str = "
ports = [p for p in range(1024, 65536)]
r.shuffle(ports)
for n in range(10_000):
    send(tcp(ports[n], r.choice([p for p in (r.randrange(1, 65536),) if p != 80] or [81]), 2))
    if n % 2: send(tcp(ports[-n - 1], 80, 2))
    else: send(tcp(ports[-n - 1], 443, 2, dst=STS))
    if n % 50 == 0: time.sleep(0.002) # the pace of the flood: no sender is told how full the queue of its device is
print('sent', flush=True)
";

/// Connects to every port and keeps what it began; again and again.
const SCAN: &str = "
import selectors, socket, sys
print('going', flush=True)
rounds = 0
while True:
    s = selectors.DefaultSelector()
    for port in range(1, 2049):
        c = socket.socket(); c.setblocking(False)
        c.connect_ex(('10.0.1.20', port)); s.register(c, selectors.EVENT_WRITE, port)
    ready = {k.data for k, _ in s.select(1)}
    assert ready <= {80}, ready
    rounds += 1
    for k in list(s.get_map().values()): k.fileobj.close()
    if selectors.select.select([sys.stdin], [], [], 0)[0]: break
print(rounds)
";

/// Asks two endpoints and pings until standard input ends: how often, and what failed.
const WORK: &str = "
import select, signal, subprocess, sys
ping = subprocess.Popen(['ping', '-i', '0.2', '-W', '3', '10.0.1.20'], stdout=subprocess.PIPE, text=True)
print('going', flush=True)
asked, failed = 0, []
while not select.select([sys.stdin], [], [], 0)[0]:
    for url in ('https://sts.eu-west-1.amazonaws.com/', 'https://s3.eu-west-1.amazonaws.com/'):
        asked += 1
        p = subprocess.run(['curl', '-sS', '-m', '5', '-o', '/dev/null', '-w', '%{http_code} %{remote_ip}', url], capture_output=True, text=True)
        if p.returncode or '10.0.2.4' not in p.stdout: failed.append((p.returncode, p.stdout, p.stderr))
ping.send_signal(signal.SIGINT)
lost = [line for line in ping.communicate()[0].splitlines() if 'packet loss' in line]
print(asked, failed, *lost)
";

#[test]
fn others_work_under_a_flood_of_pings_a_scan_and_a_flood_of_syns() {
    let lab = Lab::up(LAB);
    let work = Going::python(&lab, "blue", WORK);
    let scan = Going::python(&lab, "red", SCAN);
    let (ping, count) = common::ping_flood(20_000, "10.0.1.20");
    let ping = as_root(&lab, "red", &ping.iter().map(String::as_str).collect::<Vec<_>>());
    let flood = format!("{FRAMES}print('going', flush=True)\n{SYN_FLOOD}");
    let (pinged, flooded) = std::thread::scope(|scope| {
        let ping = scope.spawn(|| common::run(&mut { ping }));
        let flood = scope.spawn(|| Going::start(&mut as_root(&lab, "red", &["python3", "-c", &flood])).end());
        (ping.join().expect("pings"), flood.join().expect("SYNs"))
    });
    assert_eq!(flooded, "sent");
    // Some of its own packets are lost in the queue of its own device, which all three floods fill.
    let pinged = pinged.ok();
    let answered = pinged.split(" received").next().and_then(|text| text.rsplit(' ').next());
    let answered: u32 = answered.and_then(|number| number.parse().ok()).expect("a number");
    assert!(answered > count / 100 * 95, "an allowed flood is carried: {pinged}");
    let rounds: u32 = scan.end().parse().expect("rounds of the scan");
    let said = work.end();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(words[0].parse::<u32>().expect("a number") >= 4 && words[1] == "[]", "{said}");
    assert!(said.contains(" 0% packet loss"), "{said}");

    // 10,000 SYNs to closed ports, and the scans; 5,000 to the endpoint, of which it takes the first thousand. A part is
    // lost in the queue of the sender's own device; of what was dropped here nothing is without a code.
    let codes = by_code(&lab, "red");
    let closed = codes["SG_INGRESS"];
    assert!(closed >= (10_000 + 2_047 * u64::from(rounds)) / 10 * 8, "{closed} after {rounds} scans");
    let full = codes["HALF_OPEN_FULL"];
    assert!((3_000..=5_000 - 1_024).contains(&full), "{full}");
    assert_eq!(codes.values().sum::<u64>(), drops_of(&lab, "red"), "{codes:?}");
    only_late(&lab, "blue");
    let resident = resident_kb(&lab);
    assert!(resident < 150 << 10, "{resident} KiB");
    lab.down();
}

/// Frames by their number of the list, how many of each are sent, and the code that each is dropped with.
const ODD: &[(&str, &str, &str)] = &[
    ("longer than it is", "ip(17, bytes(16), total=2000)", "MALFORMED"),
    ("cut off in the IP header", "ip(17, b'')[:19]", "MALFORMED"),
    ("cut off in the TCP header", "tcp(5000, 80, 2)[:30]", "MALFORMED"),
    ("a TCP segment without header", "ip(6, b'x')", "MALFORMED"),
    ("TCP options beyond the end", "tcp(5000, 80, 2, words=15)", "MALFORMED"),
    ("a TCP header of four bytes", "tcp(5000, 80, 2, words=1)", "MALFORMED"),
    ("an IP header of four bytes", "ip(17, bytes(16), first=0x41)", "MALFORMED"),
    ("IP options beyond the end", "ip(17, bytes(16), first=0x4f)", "MALFORMED"),
    ("version 7", "ip(17, bytes(16), first=0x75)", "MALFORMED"),
    ("UDP longer than the packet", "udp(5000, 5000, b'x' * 8, length=400)", "MALFORMED"),
    ("UDP shorter than its header", "udp(5000, 5000, b'x' * 8, length=7)", "MALFORMED"),
    ("a ping of death", "ip(1, bytes(800), frag=0x1fff)", "MALFORMED"),
    ("a fragment of odd length that is not the last", "ip(17, bytes(13), frag=0x2001)", "MALFORMED"),
    ("random after a first byte", "bytes([0x45]) + b'\\xff' * r.randrange(0, 200)", "MALFORMED"),
    ("IPv6", "bytes([0x60]) + bytes(60)", "IPV6"),
    (
        "a wrong IP checksum",
        "udp(5000, 5000, b'x' * 8, bad=0)[:10] + b'\\x12\\x34' + udp(5000, 5000, b'x' * 8)[12:]",
        "CHECKSUM",
    ),
    ("a wrong UDP checksum", "udp(5000, 5000, b'x' * 8, bad=0x0101)", "CHECKSUM"),
    ("a wrong TCP checksum", "tcp(5000, 80, 2, bad=0x0101)", "CHECKSUM"),
    ("a wrong ICMP checksum", "ip(1, struct.pack('!BBHHH', 8, 0, 0x1234, 1, 1))", "CHECKSUM"),
    ("somebody else's address", "tcp(5000, 80, 2, src='10.0.1.99')", "SRC_DST_CHECK"),
    ("land", "tcp(80, 80, 2, src=THIRD)", "SRC_DST_CHECK"),
    ("land, from itself to itself", "tcp(80, 80, 2, dst=OWN)", "SRC_DST_CHECK"),
    ("to everybody", "udp(5000, 5000, b'x' * 8, dst='255.255.255.255')", "BROADCAST"),
    ("to a group", "udp(5000, 5000, b'x' * 8, dst='224.0.0.1')", "MULTICAST"),
    ("a later fragment of nothing", "ip(17, bytes(16), ident=n + 7000, frag=100)", "CT_NO_STATE"),
    ("all flags", "tcp(5000, 443, 0x3f, dst=STS)", "VPCE_NO_STATE"),
    ("no flags", "tcp(5000, 443, 0, dst=STS)", "VPCE_NO_STATE"),
    ("SYN and FIN", "tcp(5000, 443, 3, dst=STS)", "VPCE_NO_STATE"),
    ("an acknowledgement of nothing", "tcp(5000, 443, 0x10, dst=STS)", "VPCE_NO_STATE"),
    (
        "a fragment over the first one",
        "(send(udp(5000, 5000, b'x' * 8, length=32, ident=n, frag=0x2000)), ip(17, bytes(8), ident=n, frag=1))[1]",
        "MALFORMED",
    ),
    (
        "a fragment over a later one",
        "(send(udp(5000, 5000, b'x' * 8, length=40, ident=n, frag=0x2000)), send(ip(17, bytes(16), ident=n, frag=0x2002)), ip(17, bytes(8), ident=n, frag=3))[2]",
        "MALFORMED",
    ),
    ("a tiny first fragment of TCP", "ip(6, tcp(5000, 80, 2)[20:28], frag=0x2000, ident=n)", "MALFORMED"),
];
const EACH: u64 = 50;

#[test]
fn every_odd_packet_is_counted_with_its_code() {
    let lab = Lab::up(LAB);
    let work = Going::python(&lab, "blue", WORK);
    for (what, frame, code) in ODD {
        let before = by_code(&lab, "red");
        let all = drops_of(&lab, "red");
        send(&lab, &format!("for n in range({EACH}): send({frame})"));
        await_that(&format!("{what}: every one was judged"), || drops_of(&lab, "red") >= all + EACH);
        let mut expected = before;
        *expected.entry((*code).to_owned()).or_default() += EACH;
        assert_eq!(by_code(&lab, "red"), expected, "{what}");
    }
    // Whatever it is, it has an end: delivered or refused.
    send(&lab, "for n in range(2000): send(r.randbytes(r.randrange(1, 1500)))");
    // Kernels send no frame shorter than an IP header whose first bits are no version; what came was judged.
    let said = work.end();
    assert!(said.contains(" [] ") && said.contains(" 0% packet loss"), "{said}");
    only_late(&lab, "blue");
    lab.down();
}

/// Takes `CONNS` downloads, reads of each the first bytes and then nothing until it is told to.
const NEVER_READS: &str = "
import hashlib, socket, ssl, sys, time
host, path = 's3.eu-west-1.amazonaws.com', sys.argv[1]
context = ssl.create_default_context()
all = []
for n in range(CONNS):
    c = socket.socket()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    c.settimeout(30)
    c.connect((host, 443))
    c = context.wrap_socket(c, server_hostname=host)
    c.sendall(('GET %s HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' % (path, host)).encode())
    first = c.recv(100)
    assert first.startswith(b'HTTP/1.1 200 '), first
    all.append((c, first))
print('going', flush=True)
sys.stdin.readline()
sums = set()
for c, got in all:
    c.settimeout(30)
    got = bytearray(got)
    while part := c.recv(1 << 16): got += part
    head, _, body = bytes(got).partition(b'\\r\\n\\r\\n')
    sums.add('%d %s' % (len(body), hashlib.sha256(body).hexdigest()))
print(*sums)
";

#[test]
fn peers_that_never_read_cost_a_bounded_memory_and_get_everything_in_the_end() {
    let lab = Lab::up(LAB);
    let aws = common::aws2();
    let size = 8 << 20;
    let made = format!("head -c {size} /dev/urandom >big && sha256sum <big && {aws} s3 cp --quiet big s3://lab/big");
    let sum = lab.sh("blue", &made).ok();
    let sum = sum.split_whitespace().next().expect("a sum");
    let url = lab
        .sh("blue", &format!("{aws} s3 presign s3://lab/big --endpoint-url https://s3.eu-west-1.amazonaws.com"))
        .ok();
    let path = url.trim().strip_prefix("https://s3.eu-west-1.amazonaws.com").expect("the name asked for").to_owned();
    let work = Going::python(&lab, "blue", WORK);
    let before = resident_kb(&lab);
    let conns = 50;
    let script = NEVER_READS.replace("CONNS", &conns.to_string());
    let peers = Going::start(&mut lab.exec_command("red", &["python3", "-c", &script, &path]));
    // 400 MB were asked for; what waits is two buffers and two rings for each connection.
    let after = resident_kb(&lab);
    assert!(after < before + conns * (3 << 10), "{before} and then {after} KiB");
    let back = lab.sh("blue", &format!("{aws} s3 cp --quiet s3://lab/big - | sha256sum")).ok();
    assert!(back.starts_with(sum), "others download: {back}");
    let said = work.end();
    assert!(said.contains(" [] ") && said.contains(" 0% packet loss"), "{said}");
    assert_eq!(peers.end(), format!("{size} {sum}"), "all of them, whole");
    lab.down();
}

/// A peer made by hand that announces no room, is asked for some again and again, and gives it in the end.
const ZERO_WINDOW: &str = "
ECHO = '10.0.2.42'
got = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
got.settimeout(10)
def of(port):
    while True:
        b, where = got.recvfrom(65535)
        if where[2] == 4 or b[9] != 6 or socket.inet_ntoa(b[12:16]) != ECHO: continue
        head = (b[0] & 15) * 4
        t = b[head:struct.unpack_from('!H', b, 2)[0]]
        sport, dport, seq, ack, words, flags = struct.unpack_from('!HHIIBB', t)
        if dport == port: return seq, ack, flags, t[(words >> 4) * 4:]
text = bytes(range(250)) * 4
def begin(port):
    send(tcp(port, 7, 2, dst=ECHO, seq=1000, window=0))
    seq, ack, flags, _ = of(port)
    assert (flags, ack) == (0x12, 1001), (flags, ack)
    send(tcp(port, 7, 0x10, dst=ECHO, seq=1001, ack=seq + 1 & 0xffffffff, window=0))
    send(tcp(port, 7, 0x18, dst=ECHO, seq=1001, ack=seq + 1 & 0xffffffff, window=0, data=text))
    return seq + 1
begun = {port: begin(port) for port in range(30000, 30050)}
print('going', flush=True)
sys.stdin.read()
port, first = next(iter(begun.items()))
probes, echoed, deadline = 0, b'', time.monotonic() + 10
send(tcp(port, 7, 0x10, dst=ECHO, seq=1001 + len(text), ack=first & 0xffffffff, window=64000))
while len(echoed) < len(text) and time.monotonic() < deadline:
    seq, ack, flags, data = of(port)
    if seq == first + len(echoed) & 0xffffffff: echoed += data
    send(tcp(port, 7, 0x10, dst=ECHO, seq=1001 + len(text), ack=first + len(echoed) & 0xffffffff, window=64000))
print(echoed == text)
";

#[test]
fn a_window_of_zero_is_waited_for() {
    let lab = Lab::up(LAB);
    let before = resident_kb(&lab);
    let script = format!("{FRAMES}{ZERO_WINDOW}");
    let peer = Going::start(&mut as_root(&lab, "red", &["python3", "-c", &script]));
    let work = Going::python(&lab, "blue", WORK);
    let echo = "import socket\ns = socket.create_connection(('10.0.2.42', 7), 5)\ns.sendall(b'a')\nprint(s.recv(9))";
    assert_eq!(lab.exec("blue", &["python3", "-c", echo]).ok(), "b'a'\n");
    let after = resident_kb(&lab);
    assert!(after < before + 50 * 512, "{before} and then {after} KiB");
    let said = work.end();
    assert!(said.contains(" [] ") && said.contains(" 0% packet loss"), "{said}");
    assert_eq!(peer.end(), "True", "what waited came whole");
    lab.down();
}

fn as_root(lab: &Lab, instance: &str, command: &[&str]) -> std::process::Command {
    let mut c = common::vpclab();
    c.current_dir(lab.dir.path()).args(["exec", "-l", &lab.name, "--user", "root", instance, "--"]).args(command);
    c
}

/// Frames of `red`.
#[track_caller]
fn send(lab: &Lab, script: &str) {
    common::run(&mut as_root(lab, "red", &["python3", "-c", &format!("{FRAMES}{script}\n")])).ok();
}

/// Packets dropped of those from an instance, by code.
fn by_code(lab: &Lab, from: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for row in json(lab, "drops", &["--from", from]).as_array().expect("rows") {
        let code = row["code"].as_str().expect("a code").to_owned();
        *sums.entry(code).or_default() += row["count"].as_u64().expect("a count");
    }
    sums
}

/// A kernel may acknowledge once more what has ended; nothing else of an instance was refused.
#[track_caller]
fn only_late(lab: &Lab, instance: &str) {
    let codes = by_code(lab, instance);
    assert!(codes.keys().all(|code| code == "VPCE_NO_STATE"), "{codes:?}");
}

/// All packets dropped of those from an instance.
fn drops_of(lab: &Lab, instance: &str) -> u64 {
    let ps = json(lab, "ps", &[]);
    let all = ps["instances"].as_array().expect("instances");
    let one = all.iter().find(|row| row["name"] == instance).expect("the instance");
    one["counters"]["drops"].as_u64().expect("a number")
}

fn json(lab: &Lab, verb: &str, args: &[&str]) -> Value {
    let text = lab.vpclab(verb, &[&["-f", "json"], args].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Memory of the lab's router process.
fn resident_kb(lab: &Lab) -> u64 {
    common::memory_kb(common::router_of(&lab.name), "VmRSS:")
}
