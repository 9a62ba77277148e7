//! What does a lab cost, and does it give back what it took? Memory, idle CPU, and clients that die in the middle.

mod common;

use std::time::Duration;

use common::{Lab, await_state, aws2, memory_kb, processes_with, python};
use serde_json::Value;

fn gauges(lab: &Lab) -> Value {
    serde_json::from_str(&lab.vpclab("ps", &["-f", "json", "--gauges"]).ok()).expect("gauges as JSON")
}

fn gauge(lab: &Lab, name: &str) -> u64 {
    gauges(lab)[name].as_u64().unwrap_or_else(|| panic!("no gauge {name}"))
}

#[test]
fn a_client_killed_in_the_middle_leaves_no_flow_ring_or_task() {
    let lab = Lab::up_file("demo.yaml");
    lab.sh("web", "head -c 50000000 /dev/urandom > object").ok();
    lab.exec("web", &[&aws2(), "s3", "cp", "--quiet", "object", "s3://reports/object"]).ok();
    let url = lab.exec("web", &[&aws2(), "s3", "presign", "s3://reports/object"]).ok();
    // Twenty readers that stop reading, in the middle of an answer, and then die without a word.
    let script = r#"
import socket, ssl, sys, os, signal, urllib.parse
u = urllib.parse.urlparse(sys.argv[1])
held = []
for _ in range(20):
    raw = socket.create_connection((u.hostname, 443))
    tls = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]).wrap_socket(raw, server_hostname=u.hostname)
    tls.sendall(f"GET {u.path}?{u.query} HTTP/1.1\r\nHost: {u.hostname}\r\n\r\n".encode())
    assert tls.recv(12) == b"HTTP/1.1 200"
    held.append(tls)
print("held", flush=True)
signal.pause()
"#;
    let mut client = lab
        .exec_command("web", &[&python(), "-c", script, url.trim()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("client");
    let mut out = std::io::BufReader::new(client.stdout.take().expect("output"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line.trim(), "held");
    assert!(gauge(&lab, "conns") >= 20 && gauge(&lab, "rings_bytes") > 0, "{}", gauges(&lab));
    // Kill the interpreter itself: its kernel resets or closes what it held.
    lab.sh("web", "true").ok();
    rustix::process::kill_process(rustix::process::Pid::from_child(&client), rustix::process::Signal::KILL)
        .expect("killed");
    client.wait().expect("ended");
    drop(out);
    await_state("all is given back", || {
        let g = gauges(&lab);
        let none = ["conns", "rings_bytes", "tasks", "half_open"].iter().all(|name| g[name] == 0);
        if none { Ok(()) } else { Err(g.to_string()) }
    });
}

#[test]
fn a_lab_is_small_and_sleeps_when_nobody_uses_it() {
    let lab = Lab::up_file("demo.yaml");
    lab.exec("web", &["curl", "-sS", "-o", "/dev/null", "https://sts.eu-west-1.amazonaws.com/"]).ok();
    let pids = processes_with(&lab.name);
    assert_eq!(pids.len(), 2, "a keeper and a router: {pids:?}");
    // Its own memory: pages of the program file are shared, also with every other lab.
    let resident: u64 = pids.iter().map(|pid| memory_kb(*pid, "RssAnon:")).sum();
    assert!((1_000..10_000).contains(&resident), "the demo has {resident} kB resident");
    // The time is the measurement: three idle seconds of both processes, in ticks of 10 ms.
    let before: u64 = pids.iter().map(|pid| ticks(*pid)).sum();
    std::thread::sleep(Duration::from_secs(3));
    let used = pids.iter().map(|pid| ticks(*pid)).sum::<u64>() - before;
    assert!(used <= 3, "{used} ticks of 10 ms in 3 idle seconds: over 1 % of a core");
}

fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |at: usize| rest.split_whitespace().nth(at).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
