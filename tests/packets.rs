//! What a peer sees of an endpoint's TCP at its edges: real kernels at both ends, and a server of this machine behind the
//! endpoint.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Lab, await_state, memory_kb, router_of};

/// Two endpoints that forget after two seconds: `echo`, and a server of this machine on `port`.
fn forgetful(port: u16) -> String {
    format!(
        "version: 1
name: x
region: eu-west-1
limits: {{ endpoint_idle: 2s }}
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: {{ a: {{ cidr: 10.0.1.0/24, az: a }} }}
    security_groups: {{ all: {{ ingress: [all from 10.0.0.0/16] }} }}
    instances: {{ web: {{ subnet: a, ip: 10.0.1.10, security_groups: [all] }} }}
    endpoints:
      echo: {{ subnets: {{ a: 10.0.1.30 }}, security_groups: [all] }}
      sqs: {{ subnets: {{ a: 10.0.1.31 }}, security_groups: [all] }}
services:
  echo: {{ ports: [7] }}
  sqs: {{ backend: \"tcp://127.0.0.1:{port}\", ports: [443] }}
"
    )
}

/// A client that is idle for four seconds: what it reads meanwhile, and what comes of its next byte.
const IDLE_CLIENT: &str = "
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.sendall(b'hi')
assert s.recv(9) == b'hi'
s.settimeout(4)
try: print('idle', s.recv(9))
except TimeoutError: print('idle silence')
s.settimeout(2)
try:
    s.sendall(b'x')
    print('late', s.recv(9))
except ConnectionResetError: print('late reset')
";

#[test]
fn an_idle_connection_expires_in_silence_and_the_next_sender_is_reset() {
    let server = TcpListener::bind("127.0.0.1:0").expect("port");
    let lab = Lab::up(&forgetful(server.local_addr().expect("bound").port()));

    let idle = |address: &str, port: &str| lab.exec("web", &["python3", "-c", IDLE_CLIENT, address, port]).ok();
    let late = "idle silence\nlate reset\n";
    assert_eq!(idle("10.0.1.30", "7"), late);

    // Two clients, one after the other: the first one's server reads on, the second one's writes.
    let served = std::thread::spawn(move || {
        let greeted = || -> TcpStream {
            let (mut stream, _) = server.accept().expect("client");
            let mut hi = [0; 2];
            stream.read_exact(&mut hi).expect("greeting");
            stream.write_all(&hi).expect("answer");
            stream
        };
        let is_idle = |stream: &mut TcpStream, seconds: u64| {
            stream.set_read_timeout(Some(Duration::from_secs(seconds))).expect("set");
            let waited = stream.read(&mut [0; 9]).expect_err("nothing comes").kind();
            assert_eq!(waited, std::io::ErrorKind::WouldBlock, "a server that only reads is told nothing");
        };
        is_idle(&mut greeted(), 4);
        let mut writer = greeted();
        is_idle(&mut writer, 3);
        writer.write_all(b"late").expect("the kernel takes it");
        let told = writer.read(&mut [0; 9]).expect_err("reset").kind();
        assert_eq!(told, std::io::ErrorKind::ConnectionReset);
    });
    assert_eq!(idle("10.0.1.31", "443"), late);
    assert_eq!(idle("10.0.1.31", "443"), late);
    served.join().expect("server");
    let drops = lab.vpclab("drops", &["--code", "VPCE_IDLE"]).ok();
    assert_eq!(drops.lines().count(), 1 + 3, "{drops}");
    lab.down();
}

#[test]
fn what_security_groups_forget_early_an_endpoint_still_knows() {
    let topology = forgetful(9).replace("endpoint_idle: 2s", "sg_tcp_idle: 1s");
    let lab = Lab::up(&topology);
    // Three seconds without a packet.
    let script = "import socket\ns = socket.create_connection(('10.0.1.30', 7), 3)\ns.sendall(b'a')\nprint(s.recv(9))\n\
        try: print(s.recv(9))\nexcept TimeoutError: print('silence')\ns.sendall(b'b')\nprint(s.recv(9))";
    assert_eq!(lab.exec("web", &["python3", "-c", script]).ok(), "b'a'\nsilence\nb'b'\n");
    lab.down();
}

#[test]
fn a_thousand_connections_leave_no_memory_behind() {
    let lab = Lab::up(&forgetful(9));
    let script = "import socket\nfor n in range(2):\n  all = [socket.create_connection(('10.0.1.30', 7), 20) for n in range(500)]\n  \
        for s in all: s.sendall(b'x' * 1000)\n  for s in all: assert len(s.recv(1000, socket.MSG_WAITALL)) == 1000\n  \
        for s in all: s.close()\nprint('done')";
    assert_eq!(lab.exec("web", &["python3", "-c", script]).ok(), "done\n");
    let router = router_of(&lab.name);
    await_state("less than 100 MiB are resident", || match memory_kb(router, "VmRSS:") {
        kb if kb <= 100 << 10 => Ok(()),
        kb => Err(kb),
    });
    lab.down();
}
