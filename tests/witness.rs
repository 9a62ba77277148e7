//! Is a lab's network what the kernel's would be, but for what AWS does otherwise? The same probes run in a lab and in a
//! network of the same shape of veth pairs, routers and nftables; every difference is on the list below, with its reason
//! and its source, or is a bug.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use common::{Going, Lab, is_root};
use serde_json::Value;

/// Two private instances behind a NAT gateway, a public one, a host of the Internet. Rules let everything pass: they
/// are not what is asked here.
const LAB: &str = "version: 1
name: witness
region: eu-west-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    internet_gateway: true
    nat_gateways: { nat: { subnet: public } }
    subnets:
      public:    { cidr: 10.0.0.0/24, az: a, route_table: public }
      private-a: { cidr: 10.0.1.0/24, az: a, route_table: private }
      private-b: { cidr: 10.0.2.0/24, az: b, route_table: private }
    route_tables:
      public:  { routes: [ { to: 0.0.0.0/0, via: igw } ] }
      private: { routes: [ { to: 0.0.0.0/0, via: 'nat:nat' }, { to: 198.51.100.0/25, via: blackhole } ] }
    security_groups: { all: { ingress: [all from 0.0.0.0/0] } }
    instances:
      a: { subnet: private-a, ip: 10.0.1.10, security_groups: [all] }
      b: { subnet: private-b, ip: 10.0.2.10, security_groups: [all] }
      w: { subnet: public, ip: 10.0.0.10, security_groups: [all], public_ip: true }
internet:
  h: { ip: 192.0.2.10 }
";

/// `unshare` runs it: everything is in its mount namespace, and gone with the process. `r` is the router of the VPC and
/// its NAT gateway, `i` the Internet gateway. $NAT is the address of the first, $NAT_IP and $W_IP the public ones.
const KERNEL: &str = r#"
set -e
mount -t tmpfs vpclab-witness /run
for n in a b w r i h; do
  ip netns add $n
  ip -n $n link set lo up
  nsenter --net=/run/netns/$n sh -c 'cd /proc/sys/net/ipv4 && echo 0 >icmp_ratelimit && echo 0 >conf/all/send_redirects \
    && echo 0 >conf/default/send_redirects && echo 0 >conf/all/rp_filter && echo 0 >conf/default/rp_filter && echo "0 0" >ping_group_range'
done
pair() { # a device in each of two namespaces, and their MTU
  ip link add name $2 netns $1 mtu $5 type veth peer name $4 netns $3 mtu $5
  ip -n $1 link set dev $2 up
  ip -n $3 link set dev $4 up
}
pair a eth0 r a 9001
pair b eth0 r b 9001
pair r pub i r 9001
pair w eth0 i w 9001
pair i out h eth0 1500
ip -n i link add name br mtu 9001 type bridge
ip -n i link set dev r master br
ip -n i link set dev w master br
ip -n i link set dev br up

ip -n r addr add $NAT/24 dev pub
ip -n a addr add 10.0.1.10/24 dev eth0
ip -n r addr add 10.0.1.1/32 dev a
ip -n r route add 10.0.1.0/24 dev a src $NAT
ip -n a route add default via 10.0.1.1
ip -n b addr add 10.0.2.10/24 dev eth0
ip -n r addr add 10.0.2.1/32 dev b
ip -n r route add 10.0.2.0/24 dev b src $NAT
ip -n b route add default via 10.0.2.1

ip -n r route add default via 10.0.0.1 dev pub src $NAT mtu 8500
ip -n r route add unreachable 10.0.0.0/16
ip -n r route add blackhole 198.51.100.0/25
ip -n w addr add 10.0.0.10/24 dev eth0
ip -n w route add 10.0.0.0/16 via $NAT
ip -n w route add default via 10.0.0.1
ip -n i addr add 10.0.0.1/24 dev br
ip -n i addr add 192.0.2.1/32 dev out
ip -n i route add 192.0.2.10 dev out
ip -n h addr add 192.0.2.10/32 dev eth0
ip -n h route add 192.0.2.1 dev eth0
ip -n h route add default via 192.0.2.1

for n in r i; do nsenter --net=/run/netns/$n sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'; done
nsenter --net=/run/netns/r nft -f - <<RULES
table ip nat {
  chain out { type nat hook postrouting priority srcnat; oifname pub ip daddr != 10.0.0.0/16 masquerade; }
}
RULES
nsenter --net=/run/netns/i nft -f - <<RULES
table ip nat {
  chain in { type nat hook prerouting priority dstnat; ip daddr $W_IP dnat to 10.0.0.10; ip daddr $NAT_IP dnat to $NAT; }
  chain out {
    type nat hook postrouting priority srcnat;
    oifname out ip saddr 10.0.0.10 snat to $W_IP
    oifname out ip saddr $NAT snat to $NAT_IP
    ct status dnat ip saddr 10.0.0.10 snat to $W_IP
    ct status dnat ip saddr $NAT snat to $NAT_IP
  }
}
RULES
echo going
exec cat
"#;

/// What the hosts of both networks run.
const PROGRAM: &str = concat!(include_str!("support/errors.py"), include_str!("support/witness.py"));

const HOSTS: [&str; 4] = ["a", "b", "w", "h"];

/// Sender, protocol, receiver, length of the IP packet; `df`, `ttl N`, `tos N`. Receivers are hosts, `nat`, the public
/// addresses of the NAT gateway (`nat-ip`) and of `w` (`w-ip`), or addresses.
const PROBES: &str = "
a icmp b 84
a icmp b 84 ttl 1
a icmp b 9001 df
a icmp b 9002 df
a icmp b 20000
a icmp w 9001 df
w icmp a 84
a icmp h 84
a icmp h 84 ttl 1
a icmp h 84 ttl 2
a icmp h 84 ttl 3
a icmp h 1500 df
a icmp h 1501 df
a icmp h 8500 df
a icmp h 8501 df
a icmp h 1501
a icmp nat 84
a icmp 10.0.1.1 84
a icmp 10.0.9.9 84
a icmp 198.51.100.1 84
a icmp 198.51.100.200 84
w icmp h 84
w icmp h 84 ttl 1
w icmp h 84 ttl 2
w icmp h 1500 df
w icmp h 1501 df
w icmp h 9001
h icmp w-ip 84
h icmp w-ip 84 ttl 1
h icmp w-ip 84 ttl 2
h icmp w-ip 1500 df
h icmp w-ip 9000
h icmp nat-ip 84
h icmp 203.0.113.200 84
h icmp 10.0.1.10 84
a icmp w-ip 84

a udp b:5000 100
a udp b:5000 100 tos 40
a udp b:5999 100
a udp b:5000 9001 df
a udp b:5000 9002
a udp b:5000 30000
b udp a:5000 100 ttl 1
b udp a:5000 100 ttl 2
a udp w:5000 9001
w udp a:5000 9001
a udp h:5000 100
a udp h:5000 100 tos 40
a udp h:5999 100
a udp h:5000 100 ttl 1
a udp h:5000 100 ttl 2
a udp h:5000 100 ttl 3
a udp h:5000 1500 df
a udp h:5000 1501 df
a udp h:5000 8500 df
a udp h:5000 8501 df
a udp h:5000 1501
a udp h:5000 8501
a udp h:5000 20000
a udp 10.0.9.9:5000 100
a udp 198.51.100.1:5000 100
a udp 198.51.100.200:5000 100
b udp h:5000 100
w udp h:5000 100
w udp h:5999 100
w udp h:5000 1501 df
w udp h:5000 20000
h udp w-ip:5000 100
h udp w-ip:5999 100
h udp w-ip:5000 1500 df
h udp w-ip:5000 20000
h udp nat-ip:5000 100
h udp 203.0.113.200:5000 100
a udp w-ip:5000 100

a tcp b:open
a tcp b:closed
b tcp a:open
a tcp w:open
w tcp a:open
a tcp h:open
a tcp h:closed
a tcp 10.0.9.9:open
a tcp 198.51.100.1:open
b tcp h:open
w tcp h:open
w tcp h:closed
h tcp w-ip:open
h tcp w-ip:closed
h tcp nat-ip:open
a tcp w-ip:open
";

/// What AWS does otherwise than a kernel: of rows whose name matches `rows`, what matches `lab` there stands for what
/// matches `kernel` here. Names are `PROBE  >  SENDER` (what the sender learnt) and `PROBE  @  HOST` (what arrived).
struct Difference {
    rows: &'static str,
    lab: &'static str,
    kernel: &'static str,
    why: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        rows: r"^[abw] (icmp|udp|tcp) [abw][ :].*@",
        lab: " ttl 64 ",
        kernel: " ttl 63 ",
        why: "the VPC's router takes no hop: VPC gateways do not decrement the TTL, traceroute between instances shows one \
              line, the destination (cloudaffaire.com, Why traceroute ignores route table in AWS EC2 with VPC)",
    },
    Difference {
        rows: r"^a icmp b 84 ttl 1  (>  a|@  .)|^b udp a:5000 100 ttl 1  (>  b|@  .)",
        lab: "^(answered|.* to 10.0.[12].10 ttl (1|64) len (84|100))$",
        kernel: "^(icmp 11/0 from 10.0.0.4|nothing)$",
        why: "the same source: where nobody takes a hop, TTL 1 reaches every instance of the VPC",
    },
    Difference { rows: r"^b udp a:5000 100 ttl 2  @  a", lab: " ttl 2 ", kernel: " ttl 1 ", why: "the same source" },
    Difference {
        rows: r"^a trace(route|path) to b",
        lab: "^.*$",
        kernel: r"^(1 10.0.0.4; 2 10.0.2.10|.* 1: 10.0.0.4; 1: 10.0.0.4; 2: 10.0.2.10 reached; .* hops 2 back 2)$",
        why: "the same source; what the lab says is in tests/gateways.rs",
    },
    Difference {
        rows: r"^[ab] (icmp|udp|tcp) (h|w-ip)[ :].*@  [hw]",
        lab: " from another port",
        kernel: "",
        why: "a NAT gateway gives each connection a port of its own, from 1024 on (VPC User Guide, NAT gateway basics)",
    },
    Difference {
        rows: r"^a tcp w-ip|^[ab] tcp h:.*@  h|^b much to h, which",
        lab: r"mss 8460|sends 8448|first.: 8448",
        kernel: r"mss 8961|sends 8949|first.: 8949",
        why: "a NAT gateway has an MTU of 8500 and clamps the MSS (VPC User Guide, NAT gateway basics)",
    },
    Difference {
        rows: r"^. (icmp|udp) (h|w-ip)\b.* ttl [12]  >|^. trace(route|path) to h",
        lab: r"198\.18\.0\.1\b",
        kernel: r"10\.0\.0\.1\b|\b203\.0\.113\.\d+$",
        why: "an Internet gateway is no hop; the first one outside is a router of AWS with a public address, 52.56.0.2 in the \
              trace of cloudaffaire.com, Why traceroute ignores route table in AWS EC2 with VPC",
    },
    Difference {
        rows: r"^h trace(route|path) to w",
        lab: r"\b1: 198\.18\.0\.1; 1: 198\.18\.0\.1;|^1 198\.18\.0\.1;",
        kernel: r"\b1: 203\.0\.113\.\d+; 1: 203\.0\.113\.\d+;|^1 203\.0\.113\.\d+;",
        why: "the same source, seen from outside",
    },
    Difference {
        rows: r"^a (icmp|udp|tcp) w-ip.*@",
        lab: " ttl 62 ",
        kernel: " ttl 63 ",
        why: "the same source: the way to a public address leads out of the Internet gateway, past that router, and in again",
    },
    Difference {
        rows: r"^(a icmp h 1501|a icmp nat 84|a icmp 10.0.1.1 84|h (icmp|udp|tcp) nat-ip.*)  [>@]",
        lab: "^(silence|nothing)$",
        kernel: r"^(answered|echo reply .*|ECONNREFUSED|icmp 3/3 from 203\.0\.113\.\d+)$",
        why: "NAT gateways drop fragments of ICMP, answer no ping and no stranger; a VPC's router answers no ping (VPC \
              User Guide, NAT gateway basics, and Troubleshoot NAT gateways; of the router the guides say nothing)",
    },
    // The kernel sends only some such messages a second, so that it may be silent too.
    Difference {
        rows: r"^a (icmp|udp|tcp) (10\.0\.9\.9|198\.51\.100\.200).*>|^h (icmp|udp) (203\.0\.113\.200|10\.0\.1\.10).*>",
        lab: "^silence$",
        kernel: r"^(icmp 3/[01] from .*|EHOSTUNREACH|ENETUNREACH)$",
        why: "AWS sends no `unreachable` for an address that nobody has (VPC User Guide, Reachability Analyzer: \
              NO_ROUTE_TO_DESTINATION and its like end a path; that it ends in silence is experience, no guide has it)",
    },
    Difference {
        rows: r"^[abwh] udp (h|w-ip):5000 20000  @  h",
        lab: r"1500@7400\+ 116@8880\+ 1500@8976\+ .* 568@19432$",
        kernel: r"1500@7400\+ 1500@8880\+ .* 760@19240$",
        why: "a kernel that translates puts fragments together first; a NAT gateway forwards fragments of UDP (VPC User \
              Guide, NAT gateway basics), here each as it came, cut where it is too large (RFC 791)",
    },
];

#[test]
fn what_the_kernel_does_otherwise_is_awss() {
    let lab = Lab::up(LAB);
    let addresses = Addresses::of(&lab);
    let kernel = Kernel::up(&addresses);
    let [seen, witness] = std::thread::scope(|scope| {
        let seen = scope.spawn(|| table(&lab, &addresses));
        let witness = scope.spawn(|| table(&kernel, &addresses));
        [seen, witness].map(|one| one.join().expect("a table"))
    });
    let names: std::collections::BTreeSet<&String> = seen.keys().chain(witness.keys()).collect();
    assert!(names.len() > 150, "{} rows", names.len());
    let mut wrong = String::new();
    let mut used = vec![false; DIFFERENCES.len()];
    let mut same = 0;
    for name in names {
        let of = |table: &Table| table.get(name).map_or("nothing", String::as_str).to_owned();
        let (there, here) = (of(&seen), of(&witness));
        if there == here {
            same += 1;
            continue;
        }
        let (mut lab, mut kernel) = (there.clone(), here.clone());
        for (n, difference) in DIFFERENCES.iter().enumerate() {
            let Difference { rows, lab: in_lab, kernel: in_kernel, .. } = difference;
            let regex = |text: &str| regex::Regex::new(text).expect("a pattern");
            if !regex(rows).is_match(name) || !regex(in_lab).is_match(&lab) || !regex(in_kernel).is_match(&kernel) {
                continue;
            }
            used[n] = true;
            lab = regex(in_lab).replace_all(&lab, "*").into_owned();
            kernel = if in_kernel.is_empty() {
                lab = lab.replace('*', "");
                kernel
            } else {
                regex(in_kernel).replace_all(&kernel, "*").into_owned()
            };
        }
        if lab != kernel {
            let _ = writeln!(wrong, "{name}\n    lab     {there}\n    kernel  {here}");
        }
    }
    assert!(wrong.is_empty(), "differences that are on no list:\n{wrong}");
    assert!(same > 60, "only {same} rows are the same in both");
    let idle: Vec<&str> = DIFFERENCES.iter().zip(used).filter(|(_, used)| !used).map(|(d, _)| d.why).collect();
    assert!(idle.is_empty(), "listed, and not seen: {idle:?}");
    drop(kernel);
    lab.down();
}

/// What was seen, by probe and by who saw it.
type Table = BTreeMap<String, String>;

/// A network with the hosts a, b, w and h.
trait Net: Sync {
    /// A command as root in a host.
    fn command(&self, host: &str, command: &[&str]) -> Command;
}

impl Net for Lab {
    fn command(&self, host: &str, command: &[&str]) -> Command {
        let mut c = common::vpclab();
        c.current_dir(self.dir.path()).args(["exec", "-l", &self.name, "--user", "root", host, "--"]).args(command);
        c
    }
}

/// What the metadata service says of the public address.
const METADATA: &str = "
t=$(curl -sS -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
curl -sS -m 3 -H \"X-aws-ec2-metadata-token: $t\" http://169.254.169.254/latest/meta-data/public-ipv4";

/// Those that the lab gave its gateways.
struct Addresses {
    nat: String,
    nat_ip: String,
    w_ip: String,
}

impl Addresses {
    fn of(lab: &Lab) -> Addresses {
        let ps = lab.vpclab("ps", &["-f", "json"]).ok();
        let ps: Value = serde_json::from_str(&ps).expect("json");
        let gateways = ps["gateways"].as_array().expect("gateways");
        let nat = gateways.iter().find(|row| row["path"] == "v.nat").expect("a NAT gateway");
        let at = |n: usize| nat["addresses"][n].as_str().expect("an address").to_owned();
        let w_ip = lab.exec("w", &["sh", "-c", METADATA]).ok();
        Addresses { nat: at(0), nat_ip: at(1), w_ip }
    }

    /// Of a receiver in the words of [`PROBES`].
    fn resolve(&self, word: &str) -> String {
        match word {
            "a" => "10.0.1.10",
            "b" => "10.0.2.10",
            "w" => "10.0.0.10",
            "h" => "192.0.2.10",
            "nat" => &self.nat,
            "nat-ip" => &self.nat_ip,
            "w-ip" => &self.w_ip,
            address => address,
        }
        .to_owned()
    }
}

/// The kernel's network; it ends with the value.
struct Kernel {
    holder: Going,
}

impl Kernel {
    fn up(addresses: &Addresses) -> Kernel {
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--mount", "--propagation", "private", "--net", "sh", "-c", KERNEL]);
        unshare.env("NAT", &addresses.nat).env("NAT_IP", &addresses.nat_ip).env("W_IP", &addresses.w_ip);
        Kernel { holder: Going::start(&mut unshare) }
    }
}

impl Net for Kernel {
    fn command(&self, host: &str, command: &[&str]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.holder.pid().to_string(), "--mount", "--wd=/"]);
        if !is_root() {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        nsenter.args(["nsenter", &format!("--net=/run/netns/{host}")]).args(command);
        nsenter
    }
}

/// All probes in a network.
fn table(net: &dyn Net, addresses: &Addresses) -> Table {
    let python = |host: &str, args: &[&str]| net.command(host, &[&["python3", "-c", PROGRAM], args].concat());
    let mut table = Table::new();
    let open: Vec<String> = (1..100).map(|n| (9100 + n).to_string()).collect();
    let serve: Vec<&str> = ["serve"].into_iter().chain(open.iter().map(String::as_str)).collect();
    let servers: Vec<Going> = HOSTS.iter().map(|host| Going::start(&mut python(host, &serve))).collect();

    bulks(&mut table, "", &python);
    probes(&mut table, addresses, &python);
    paths(&mut table, net, addresses);
    // A host that announces more than what its way can carry: TCP must find out.
    let boast = "ip route change $(ip route show default) advmss 8961";
    common::run(&mut net.command("h", &["sh", "-c", boast])).ok();
    bulks(&mut table, ", which announces 8961,", &python);
    for server in servers {
        server.end();
    }
    table
}

/// Much data both ways.
fn bulks(table: &mut Table, how: &str, python: &dyn Fn(&str, &[&str]) -> Command) {
    for (from, to, address) in
        [("a", "b", "10.0.2.10"), ("w", "a", "10.0.1.10"), ("b", "h", "192.0.2.10"), ("w", "h", "192.0.2.10")]
    {
        if how.is_empty() || to == "h" {
            let said = common::run(&mut python(from, &["bulk", address]));
            let what = if said.code == 0 { said.out.trim().to_owned() } else { said.err };
            table.insert(format!("{from} much to {to}{how}"), what);
        }
    }
}

/// All of [`PROBES`]: first TCP, as what is learnt of a path changes what TCP announces, and then the others at once.
fn probes(table: &mut Table, addresses: &Addresses, python: &dyn Fn(&str, &[&str]) -> Command) {
    let mut by_host: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut names: BTreeMap<u64, &str> = BTreeMap::new();
    let lines = PROBES.lines().map(str::trim).filter(|line| !line.is_empty());
    for (number, line) in (1..).zip(lines) {
        let words: Vec<&str> = line.split(' ').collect();
        let (to, port) = words[2].split_once(':').unwrap_or((words[2], "0"));
        let port = match port {
            "open" => 9100 + number % 100,
            "closed" => 7100 + number % 100,
            port => port.parse().expect("a port"),
        };
        let after = |word: &str| {
            words.iter().position(|w| *w == word).map(|at| words[at + 1].parse::<u64>().expect("a number"))
        };
        let number = if words[1] == "tcp" { port } else { number };
        names.insert(number, line);
        by_host.entry(words[0]).or_default().push(serde_json::json!({
            "n": number,
            "kind": words[1],
            "to": addresses.resolve(to),
            "port": port,
            "size": words.get(3).map_or(0, |size| size.parse::<u64>().expect("a size")),
            "df": words.contains(&"df"),
            "ttl": after("ttl"),
            "tos": after("tos"),
            "wait": 1.5,
        }));
    }
    let sniffers: Vec<(&str, Going)> =
        HOSTS.iter().map(|host| (*host, Going::start(&mut python(host, &["sniff"])))).collect();
    let senders: Vec<(&str, std::process::Child)> = by_host
        .iter()
        .map(|(host, probes)| {
            let all = serde_json::to_string(probes).expect("json");
            let mut command = python(host, &["probe", &all]);
            (*host, command.stdout(Stdio::piped()).spawn().expect("probes"))
        })
        .collect();
    for (host, sender) in senders {
        let out = sender.wait_with_output().expect("ended");
        let came: BTreeMap<u64, String> = serde_json::from_slice(&out.stdout).expect("what came of the probes");
        assert_eq!(came.len(), by_host[host].len(), "{host}");
        for (number, what) in came {
            table.insert(format!("{}  >  {host}", names[&number]), what);
        }
    }
    for (host, sniffer) in sniffers {
        let seen: BTreeMap<u64, Vec<String>> = serde_json::from_str(&sniffer.end()).expect("what arrived");
        for (number, what) in seen {
            let name = names.get(&number).copied().unwrap_or("unknown");
            table.insert(format!("{name}  @  {host}"), what.join("; "));
        }
    }
}

/// What traceroute and tracepath print, without times.
fn paths(table: &mut Table, net: &dyn Net, addresses: &Addresses) {
    let traceroute = ["traceroute", "-n", "-q", "1", "-w", "1", "-m", "5"];
    for (from, to, address) in
        [("a", "b", "10.0.2.10"), ("a", "h", "192.0.2.10"), ("w", "h", "192.0.2.10"), ("h", "w", "")]
    {
        for (name, command) in [("traceroute", &traceroute[..]), ("tracepath", &["tracepath", "-n", "-m", "6"])] {
            let address = if address.is_empty() { addresses.w_ip.as_str() } else { address };
            let said = common::run(&mut net.command(from, &[command, &[address]].concat()));
            let words = |line: &str| {
                line.split_whitespace()
                    .filter(|w| !w.ends_with("ms") && w.parse::<f64>().map_or(true, |n| n.fract() == 0.0))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let lines: Vec<String> = said.out.lines().skip(usize::from(name == "traceroute")).map(words).collect();
            table.insert(format!("{from} {name} to {to}"), lines.join("; "));
        }
    }
}
