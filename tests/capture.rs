//! Does a capture show what was on the wire, and a trace why? Real packets, read again by an independent reader and by
//! tcpdump.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use common::Lab;

const TOPOLOGY: &str = "version: 1
name: x
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    security_groups:
      app: { ingress: [] }
      other: { ingress: [icmp from 10.0.0.0/16] }
      doors: { ingress: [tcp 7 from sg:app] }
    instances:
      web: { subnet: a, ip: 10.0.1.10, security_groups: [app] }
      guest: { subnet: a, ip: 10.0.1.20, security_groups: [other] }
    endpoints:
      echo: { subnets: { a: 10.0.1.30 }, security_groups: [doors] }
services:
  echo: { ports: [7] }
";

/// Sends so many bytes to the echo endpoint and takes them back.
const CLIENT: &str = "
import socket, sys, threading
n = int(sys.argv[1])
s = socket.create_connection(('10.0.1.30', 7), 5)
threading.Thread(target=lambda: s.sendall(bytes(range(250)) * (n // 250))).start()
got = b''
while len(got) < n: got += s.recv(1 << 20)
assert got == bytes(range(250)) * (n // 250)
s.close()
print('done')
";

/// `vpclab VERB -l LAB ARGS...` in the background, once it watches.
struct Watching(Child);

impl Watching {
    fn start(lab: &Lab, verb: &str, args: &[&str]) -> Watching {
        let mut command = common::vpclab();
        command.args([verb, "-l", &lab.name]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("vpclab");
        let mut first = String::new();
        let mut said = BufReader::new(child.stderr.take().expect("standard error"));
        said.read_line(&mut first).expect("a line");
        assert!(first.contains("watching"), "{first}");
        // Kept open, so that the last line finds a reader.
        child.stderr = Some(said.into_inner());
        Watching(child)
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    }

    /// What it wrote until its end.
    fn output(mut self) -> (Vec<u8>, String) {
        let mut out = Vec::new();
        self.0.stdout.take().expect("standard output").read_to_end(&mut out).expect("read");
        let mut err = String::new();
        self.0.stderr.take().expect("standard error").read_to_string(&mut err).expect("read");
        assert_eq!(self.0.wait().expect("it ends").code(), Some(0), "{err}");
        (out, err)
    }
}

/// A packet of a capture file.
struct Seen {
    interface: String,
    outbound: bool,
    comment: String,
    ip: Vec<u8>,
    len: u32,
}

/// pcapng by the book, as far as we write it.
fn read(mut bytes: &[u8]) -> Vec<Seen> {
    let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"));
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    assert_eq!(word(bytes, 0), 0x0a0d_0d0a, "a section comes first");
    while !bytes.is_empty() {
        let (kind, len) = (word(bytes, 0), word(bytes, 4) as usize);
        assert_eq!(word(bytes, len - 4) as usize, len);
        let body = &bytes[8..len - 4];
        let options = |mut rest: &[u8]| {
            let mut options = BTreeMap::new();
            while word(rest, 0) != 0 {
                let (code, len) = (rest[0], usize::from(u16::from_le_bytes([rest[2], rest[3]])));
                options.insert(code, rest[4..4 + len].to_vec());
                rest = &rest[4 + len.next_multiple_of(4)..];
            }
            options
        };
        let text =
            |bytes: Option<&Vec<u8>>| bytes.map_or(String::new(), |b| String::from_utf8(b.clone()).expect("text"));
        match kind {
            1 => interfaces.push(text(options(&body[8..]).get(&2))),
            6 => {
                let kept = word(body, 12) as usize;
                let options = options(&body[20 + kept.next_multiple_of(4)..]);
                packets.push(Seen {
                    interface: interfaces[word(body, 0) as usize].clone(),
                    outbound: options[&2] == [2, 0, 0, 0],
                    comment: text(options.get(&1)),
                    ip: body[20..20 + kept].to_vec(),
                    len: word(body, 16),
                });
            }
            _ => {}
        }
        bytes = &bytes[len..];
    }
    packets
}

/// What tcpdump makes of a file.
fn tcpdump(file: &[u8]) -> String {
    let mut child = Command::new("tcpdump")
        .args(["-nn", "-v", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump, which tests/run installs");
    let mut stdin = child.stdin.take().expect("standard input");
    let file = file.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&file));
    let output = child.wait_with_output().expect("tcpdump");
    writer.join().expect("thread").expect("tcpdump reads all");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_capture_holds_every_byte_as_packets_that_others_can_read() {
    const BYTES: usize = 500_000;
    let lab = Lab::up(TOPOLOGY);
    let capture = Watching::start(&lab, "capture", &["web", "-w", "-"]);
    assert_eq!(lab.exec("web", &["python3", "-c", CLIENT, &BYTES.to_string()]).ok(), "done\n");
    capture.interrupt();
    let (file, said) = capture.output();

    let packets = read(&file);
    assert!(said.contains(&format!("{} packets, 0 lost", packets.len())), "{said}");
    // By direction: the data's positions in the stream, counted from the SYN.
    let (mut begin, mut data) = ([0; 2], [BTreeMap::new(), BTreeMap::new()]);
    for packet in &packets {
        assert_eq!(packet.interface, format!("{}.app.web/eth0", lab.name));
        assert_eq!(packet.comment, if packet.outbound { "deliver to echo@a" } else { "from echo@a" });
        assert!(packet.len as usize == packet.ip.len() && packet.len <= 8_500, "no superframe, nothing cut");
        let ip = etherparse::SlicedPacket::from_ip(&packet.ip).expect("a packet");
        let Some(etherparse::TransportSlice::Tcp(tcp)) = ip.transport else { panic!("TCP only") };
        let side = usize::from(packet.outbound);
        if tcp.syn() {
            begin[side] = tcp.sequence_number().wrapping_add(1);
        } else if !tcp.payload().is_empty() {
            let at = tcp.sequence_number().wrapping_sub(begin[side]) as usize;
            data[side].insert(at, tcp.payload().to_vec());
        }
    }
    for side in data {
        let mut stream = Vec::new();
        for (at, bytes) in side {
            assert!(at <= stream.len(), "a hole before {at}");
            stream.truncate(at);
            stream.extend_from_slice(&bytes);
        }
        assert!(stream.len() == BYTES && stream.iter().enumerate().all(|(at, byte)| at % 250 == usize::from(*byte)));
    }
    let dump = tcpdump(&file);
    assert_eq!(dump.matches("10.0.1.10.").count().min(packets.len()), packets.len(), "{dump}");
    assert!(dump.contains("Flags [S]") && dump.contains("Flags [S.]") && !dump.contains("incorrect"), "{dump}");
    lab.down();
}

#[test]
fn drops_are_captured_with_their_reason_and_traced_with_their_steps() {
    let lab = Lab::up(TOPOLOGY);
    let connect =
        "import socket\ntry: socket.create_connection(('10.0.1.30', 7), 0.2)\nexcept TimeoutError: print('silence')";
    let (to, verdict) = ("endpoint:echo", "DROP SG_INGRESS at endpoint app.echo: 1 rule, no match: tcp 7 from sg:app");
    let file = lab.dir.path().join("drop.pcapng");
    let path = file.display().to_string();
    let lines = Watching::start(&lab, "capture", &["--from", "guest", "--to", to, "--count", "1"]);
    let writes =
        Watching::start(&lab, "capture", &["--code", "SG_INGRESS", "--count", "1", "--snaplen", "30", "-w", &path]);
    let trace = Watching::start(&lab, "trace", &["--from", "guest", "--to", to, "--count", "1"]);
    let json = Watching::start(&lab, "trace", &["--code", "sg_ingress", "--count", "1", "-f", "json"]);
    assert_eq!(lab.exec("guest", &["python3", "-c", connect]).ok(), "silence\n");

    let (out, _) = lines.output();
    let line = String::from_utf8(out).expect("text");
    assert!(line.contains("guest        out tcp 10.0.1.20:") && line.contains(verdict), "{line}");
    writes.output();
    let packets = read(&std::fs::read(&file).expect("a file"));
    let [drop] = &packets[..] else { panic!("{} packets", packets.len()) };
    assert!(drop.comment.starts_with(verdict) && drop.outbound, "{}", drop.comment);
    assert_eq!((drop.ip.len(), drop.len, drop.interface.as_str()), (30, 60, &*format!("{}.app.guest/eth0", lab.name)));

    let (out, _) = trace.output();
    let page = String::from_utf8(out).expect("text");
    let lines: Vec<&str> = page.lines().map(str::trim).collect();
    assert!(lines[0].contains("guest > echo@a  tcp 10.0.1.20:"), "{page}");
    assert!(
        lines.iter().any(|l| l.starts_with("guest") && l.contains("sg other egress") && l.contains("allow")),
        "{page}"
    );
    assert!(
        lines.iter().any(|l| l.starts_with("echo@a") && l.contains("sg doors ingress") && l.contains("DENY")),
        "{page}"
    );
    assert!(lines.last().is_some_and(|l| l.starts_with(&format!("=> {verdict}"))), "{page}");
    let (out, _) = json.output();
    let row: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!((&row["code"], &row["from"], &row["to"]), (&"SG_INGRESS".into(), &"guest".into(), &"echo@a".into()));

    // Words that mean nothing, and files that cannot be.
    for (verb, args, word) in [
        ("capture", &["wbe"][..], "wbe"),
        ("capture", &["--from", "nobody"], "nobody"),
        ("trace", &["--code", "NO_SUCH"], "NO_SUCH"),
        ("capture", &["web", "--seconds", "5", "-w", "/nonexistent/f"], "/nonexistent/f"),
    ] {
        let said = lab.vpclab(verb, args).fails_with(2);
        assert!(said.contains(word), "{said}");
    }
    lab.down();
}

#[test]
fn a_ping_is_seen_at_both_ends_and_the_resolver_where_it_answers() {
    let lab = Lab::up(TOPOLOGY);
    let both = Watching::start(&lab, "capture", &["web", "guest", "--proto", "icmp", "--count", "4", "-w", "-"]);
    let dns = Watching::start(&lab, "capture", &["--from", "web", "--to", "resolver", "--count", "2", "-w", "-"]);
    lab.exec("web", &["ping", "-c", "1", "-W", "2", "10.0.1.20"]).ok();
    lab.exec("web", &["dig", "+short", "+tries=1", "echo.nowhere.example"]);
    let seen: Vec<(String, bool, String)> =
        read(&both.output().0).into_iter().map(|p| (p.interface, p.outbound, p.comment)).collect();
    let at = |name: &str, outbound: bool, comment: &str| {
        (format!("{}.app.{name}/eth0", lab.name), outbound, comment.to_owned())
    };
    assert_eq!(
        seen,
        [
            at("web", true, "deliver to guest"),
            at("guest", false, "from web"),
            at("guest", true, "deliver to web"),
            at("web", false, "from guest"),
        ]
    );
    let told: Vec<(bool, String)> = read(&dns.output().0).into_iter().map(|p| (p.outbound, p.comment)).collect();
    assert_eq!(told, [(true, "deliver to resolver".to_owned()), (false, "from resolver".to_owned())]);
    lab.down();
}

#[test]
fn a_reader_that_goes_away_ends_the_capture_and_time_does_too() {
    let lab = Lab::up(TOPOLOGY);
    let mut reader = Watching::start(&lab, "capture", &["web", "-w", "-"]);
    let mut out = reader.0.stdout.take().expect("standard output");
    out.read_exact(&mut [0; 4]).expect("the file begins");
    drop(out);
    assert_eq!(reader.0.wait().expect("it ends").code(), Some(0));
    // Every place is free again: eight may watch at a time.
    let eight: Vec<Watching> = (0..8).map(|_| Watching::start(&lab, "trace", &["--follow"])).collect();
    let said = lab.vpclab("capture", &["--seconds", "1"]).fails_with(2);
    assert!(said.contains("8 captures"), "{said}");
    for one in eight {
        one.interrupt();
        assert_eq!(one.output().0, b"");
    }
    let said = lab.vpclab("capture", &["--seconds", "1"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    // A lab that ends takes its captures with it.
    let last = Watching::start(&lab, "capture", &["web", "-w", "-"]);
    lab.down();
    let Watching(mut child) = last;
    assert!(child.wait().expect("it ends").code().is_some());
}
