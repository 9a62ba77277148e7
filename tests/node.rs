//! Does a lab carry real packets? A node in this process, with a plan made by hand: real namespaces, real kernels at both
//! ends, our router between them. It is root's view; an ordinary user has it in a user namespace.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vpclab::base::{Cidr, EniIx, PortRange, Proto, ids::aws_id};
use vpclab::control::api::Gauges;
use vpclab::control::store::Accepted;
use vpclab::host::keeper::{self, KeeperHandle, KeeperOptions, Peer};
use vpclab::host::rundir::RunDir;
use vpclab::host::{status::Status, userns::IdMap};
use vpclab::model::Plan;
use vpclab::model::plan::*;
use vpclab::runtime::node::Node;

#[path = "support/users.rs"]
mod users;
#[path = "support/waiting.rs"]
mod waiting;

use users::passed_as_root;

const BIN: &str = env!("CARGO_BIN_EXE_vpclab");

struct Lab {
    name: String,
    node: Option<Node>,
    keeper: Option<KeeperHandle>,
}

impl Lab {
    fn up(change: impl FnOnce(&mut Plan)) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("n{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut plan = plan(&name);
        change(&mut plan);
        let run_dir = RunDir::claim(&name).expect("claim");
        let path = run_dir.path().to_owned();
        let options = KeeperOptions {
            run_dir,
            program: BIN.into(),
            peer: Peer::Caller,
            leash: true,
            log: false,
            ids: IdMap::Ranges,
        };
        let mut keeper = keeper::spawn(options).expect("keeper");
        assert_eq!(keeper.wait_ready(Duration::from_secs(10)).expect("ready"), Status::Ready);
        let socket = keeper.take_socket().expect("socket");
        let run_dir = RunDir::open(&name).expect("run directory");
        assert_eq!(run_dir.path(), path);
        let started = Node::from_plan(&run_dir, socket, Accepted::default(), Arc::new(plan));
        let (node, _ends) = started.unwrap_or_else(|failure| panic!("{:#}", failure.error));
        Lab { name, node: Some(node), keeper: Some(keeper) }
    }

    /// `sh -c SCRIPT` in the network namespace of an instance.
    fn sh(&self, instance: &str, script: &str) -> (i32, String) {
        let mut command = self.command(instance, script);
        let output = command.stdin(Stdio::null()).output().expect("ip netns exec");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }

    fn command(&self, instance: &str, script: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}.app.{instance}", self.name), "sh", "-c", script]);
        command
    }

    fn gauges(&self) -> Gauges {
        self.node.as_ref().expect("up").shared.router.gauges()
    }

    /// The router counts and tells nobody.
    #[track_caller]
    fn await_gauges(&self, what: &str, good: impl Fn(&Gauges) -> bool) {
        waiting::await_state(what, || {
            let gauges = self.gauges();
            if good(&gauges) { Ok(()) } else { Err(gauges) }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.node.take().expect("up").stop();
        self.keeper.take().expect("up").end().expect("keeper");
    }
}

#[test]
fn two_instances_exchange_tcp_and_udp_through_the_router() {
    if passed_as_root("two_instances_exchange_tcp_and_udp_through_the_router") {
        return;
    }
    let lab = Lab::up(|plan| {
        plan.instances[1].listen = vec![
            Listener { proto: Proto::TCP, port: 8080, reply: ListenReply::Http, tls: None, delay: Duration::ZERO },
            Listener { proto: Proto::TCP, port: 7, reply: ListenReply::Echo, tls: None, delay: Duration::ZERO },
            Listener { proto: Proto::UDP, port: 9, reply: ListenReply::Source, tls: None, delay: Duration::ZERO },
        ];
    });
    let (code, said) = lab.sh("web", "curl -sS -m 5 http://10.0.2.10:8080/");
    assert_eq!((code, said.as_str()), (0, "hello from app.guest 10.0.2.10:8080\n"));

    // 32 MB there and back, with superframes, equal byte for byte.
    let script = "head -c 32000000 /dev/urandom > /tmp/$$; \
        python3 - /tmp/$$ <<'END'\nimport socket, sys, threading, hashlib\n\
d = open(sys.argv[1], 'rb').read()\ns = socket.create_connection(('10.0.2.10', 7), 5)\n\
threading.Thread(target=lambda: (s.sendall(d), s.shutdown(1))).start()\n\
h = hashlib.sha256()\nn = 0\n\
while b := s.recv(1 << 20): h.update(b); n += len(b)\n\
print(n, h.digest() == hashlib.sha256(d).digest())\nEND\nrm /tmp/$$";
    assert_eq!(lab.sh("web", script).1, "32000000 True\n");

    let script = "python3 -c \"import socket; s = socket.socket(2, 2); s.settimeout(5); s.sendto(b'?', ('10.0.2.10', 9)); \
        print(s.recv(99).decode().split(':')[0])\"";
    assert_eq!(lab.sh("web", script).1, "10.0.1.10\n");
}

/// An endpoint with one ENI at 10.0.1.`host`.
fn endpoint(plan: &mut Plan, name: &str, host: u8, backend: Backend, ports: &[u16]) {
    let lab = plan.name.clone();
    let at = plan.endpoints.len();
    let eni = EniIx(plan.enis.len() as u32);
    plan.enis.push(eni_plan(&lab, name, 0, &format!("10.0.1.{host}"), 1, EniOwner::Endpoint(at)));
    plan.services.push(ServicePlan {
        name: if backend == Backend::Builtin { name.to_owned() } else { "echo".to_owned() },
        full_name: format!("com.amazonaws.eu-west-1.{name}"),
        region: "eu-west-1".into(),
        account: "123456789012".into(),
        backend,
        ports: ports.to_vec(),
        data: None,
        contents: Contents::default(),
    });
    let apex = format!("{name}.eu-west-1.amazonaws.com");
    plan.endpoints.push(EndpointPlan {
        common: Common {
            name: name.into(),
            path: format!("app.{name}"),
            id: aws_id("vpce", &lab, name),
            ..Common::default()
        },
        vpc: 0,
        service: plan.services.len() - 1,
        kind: EndpointKind::Interface,
        enis: vec![eni],
        security_groups: vec![1],
        private_dns: true,
        policy: Policy::Full,
        names: EndpointNames {
            regional: format!("vpce-0-{name}.{name}.eu-west-1.vpce.amazonaws.com"),
            zonal: vec![],
            private: vec![PrivateZone { apex, at_apex: true, wildcard: false }],
        },
    });
}

#[test]
fn an_unmodified_curl_reaches_an_endpoint_by_its_private_name_over_verified_tls() {
    if passed_as_root("an_unmodified_curl_reaches_an_endpoint_by_its_private_name_over_verified_tls") {
        return;
    }
    let lab = Lab::up(|plan| endpoint(plan, "echo", 20, Backend::Builtin, &[7, 80, 443]));
    let run_dir = RunDir::open(&lab.name).expect("run directory");
    let ca = run_dir.ca_bundle();
    let url = "https://echo.eu-west-1.amazonaws.com/hello";
    let (code, said) = lab.sh("web", &format!("curl -sS -m 10 --cacert {} {url} -w ' %{{remote_ip}}'", ca.display()));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("/hello") && said.ends_with(" 10.0.1.20"), "{said}");

    // Bytes there and back, with a half-close by the client.
    let script = "python3 - <<'END'\nimport socket, threading, hashlib, os\n\
d = os.urandom(20000000)\ns = socket.create_connection(('10.0.1.20', 7), 5)\n\
threading.Thread(target=lambda: (s.sendall(d), s.shutdown(1))).start()\n\
h = hashlib.sha256()\nn = 0\n\
while b := s.recv(1 << 20): h.update(b); n += len(b)\n\
print(n, h.digest() == hashlib.sha256(d).digest())\nEND";
    assert_eq!(lab.sh("web", script).1, "20000000 True\n");
    lab.await_gauges("all is given back", |g| g.conns == 0 && g.rings_bytes == 0 && g.tasks == 0);
}

#[test]
fn the_resolver_and_the_metadata_service_answer_over_udp_and_tcp() {
    if passed_as_root("the_resolver_and_the_metadata_service_answer_over_udp_and_tcp") {
        return;
    }
    let lab = Lab::up(|plan| endpoint(plan, "echo", 20, Backend::Builtin, &[443]));
    for flags in ["", "+tcp"] {
        let name = "echo.eu-west-1.amazonaws.com";
        let (_, said) = lab.sh("web", &format!("dig +short +time=3 +tries=1 {flags} @10.0.0.2 {name}"));
        assert_eq!(said, "10.0.1.20\n", "{flags}");
    }
    let script = "t=$(curl -sS -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        http://169.254.169.254/latest/api/token) && curl -sS -m 5 -H \"X-aws-ec2-metadata-token: $t\" \
        http://169.254.169.254/latest/meta-data/iam/security-credentials/";
    assert_eq!(lab.sh("web", script).1, "web-role");
    lab.await_gauges("no connection stays", |g| g.conns == 0);
}

#[test]
fn a_refusing_backend_resets_a_silent_one_stays_silent_and_a_port_not_served_too() {
    if passed_as_root("a_refusing_backend_resets_a_silent_one_stays_silent_and_a_port_not_served_too") {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let served = listener.local_addr().expect("bound");
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        gone.local_addr().expect("bound")
    };
    let lab = Lab::up(|plan| {
        endpoint(plan, "closed", 21, Backend::Tcp(UpstreamAddr::Loopback(closed)), &[443]);
        endpoint(plan, "served", 22, Backend::Tcp(UpstreamAddr::Loopback(served)), &[443]);
    });
    let started = Instant::now();
    assert_eq!(lab.sh("web", "curl -s -m 5 http://10.0.1.21:443/").0, 7, "refused at once");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(lab.sh("web", "curl -s -m 1 http://10.0.1.21:444/").0, 28, "a port that is not served");
    let accepted = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("accept");
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf).expect("read");
        assert!(buf[..n].starts_with(b"GET / HTTP/1.1"));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").expect("write");
    });
    assert_eq!(lab.sh("web", "curl -sS -m 5 http://10.0.1.22:443/").1, "ok");
    accepted.join().expect("upstream");
    lab.await_gauges("all is given back", |g| g.conns == 0 && g.half_open == 0 && g.tasks == 0);
}

#[test]
fn a_reset_of_the_backend_reaches_the_client_and_one_of_the_client_the_backend() {
    if passed_as_root("a_reset_of_the_backend_reaches_the_client_and_one_of_the_client_the_backend") {
        return;
    }
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let addr = listener.local_addr().expect("bound");
    let lab = Lab::up(|plan| endpoint(plan, "raw", 22, Backend::Tcp(UpstreamAddr::Loopback(addr)), &[443]));
    let backend = std::thread::spawn(move || {
        // Closing with bytes unread is a reset on Linux.
        let (first, _) = listener.accept().expect("accept");
        first.peek(&mut [0; 1]).expect("bytes");
        drop(first);
        let (mut second, _) = listener.accept().expect("accept");
        let mut buf = [0; 64];
        assert_eq!(second.read(&mut buf).expect("bytes"), 5);
        second.write_all(b"read").expect("answer");
        second.read(&mut buf).expect_err("reset").kind()
    });
    let script = "python3 -c \"import socket; s = socket.create_connection(('10.0.1.22', 443)); s.send(b'hello')\n\
        try: print(s.recv(9))\nexcept ConnectionResetError: print('reset')\"";
    assert_eq!(lab.sh("web", script).1, "reset\n");
    let script = "python3 -c \"import socket, struct; s = socket.create_connection(('10.0.1.22', 443))\n\
        s.send(b'hello'); assert s.recv(4) == b'read'\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()\"";
    assert_eq!(lab.sh("web", script), (0, String::new()));
    assert_eq!(backend.join().expect("backend"), std::io::ErrorKind::ConnectionReset);
    lab.await_gauges("nothing stays", |g| g.conns == 0 && g.tasks == 0 && g.rings_bytes == 0);
}

#[test]
fn a_client_killed_in_the_middle_leaves_no_connection_ring_or_task() {
    if passed_as_root("a_client_killed_in_the_middle_leaves_no_connection_ring_or_task") {
        return;
    }
    let lab = Lab::up(|plan| endpoint(plan, "echo", 20, Backend::Builtin, &[7, 19]));
    let mut clients: Vec<_> = (0..20)
        .map(|n| {
            // Half of them read what never ends, half write what is echoed and never read: full rings both ways.
            let script = if n % 2 == 0 {
                "exec python3 -c \"import socket; s = socket.create_connection(('10.0.1.20', 19))\nwhile s.recv(65536): pass\""
            } else {
                "exec python3 -c \"import socket; s = socket.create_connection(('10.0.1.20', 7))\nwhile True: s.send(b'x' * 65536)\""
            };
            lab.command("web", script).stdin(Stdio::null()).spawn().expect("client")
        })
        .collect();
    lab.await_gauges("all are connected", |g| g.conns == 20 && g.tasks == 20 && g.rings_bytes > 0);
    for client in &mut clients {
        client.kill().expect("kill");
        client.wait().expect("wait");
    }
    lab.await_gauges("nothing stays", |g| g.conns == 0 && g.rings_bytes == 0 && g.tasks == 0 && g.half_open == 0);
}

fn plan(lab: &str) -> Plan {
    let common = |prefix: &str, name: &str| Common {
        name: name.into(),
        path: format!("app.{name}"),
        id: aws_id(prefix, lab, name),
        ..Common::default()
    };
    let mut plan = Plan {
        name: lab.into(),
        region: "eu-west-1".into(),
        dir: "/".into(),
        default_account: "123456789012".into(),
        ..Plan::default()
    };
    plan.vpcs.push(VpcPlan {
        common: Common { path: "app".into(), ..common("vpc", "app") },
        cidrs: vec!["10.0.0.0/16".parse().expect("block")],
        region: "eu-west-1".into(),
        account: "123456789012".into(),
        dns_support: true,
        dns_hostnames: true,
        main_route_table: 0,
        default_nacl: 0,
        default_security_group: 0,
    });
    plan.route_tables.push(RouteTablePlan {
        common: common("rtb", "main"),
        vpc: 0,
        main: true,
        routes: vec![RoutePlan {
            id: "local".into(),
            to: RouteDest::Cidr("10.0.0.0/16".parse().expect("block")),
            origin: RouteOrigin::Local,
            target: RouteTarget::Local,
        }],
    });
    let all = NaclRule {
        number: 100,
        allow: true,
        matches: TrafficMatch::ALL,
        peer: Cidr::ANY,
        text: "100 allow all".into(),
    };
    plan.network_acls.push(NaclPlan {
        common: common("acl", "default"),
        vpc: 0,
        default: true,
        ingress: vec![all.clone()],
        egress: vec![all],
    });
    let rule = |matches: TrafficMatch, text: &str| SgRule {
        id: text.into(),
        matches,
        peer: SgPeer::Cidr(Cidr::ANY),
        text: text.into(),
        implied: false,
    };
    plan.security_groups.push(SecurityGroupPlan {
        common: common("sg", "open"),
        vpc: 0,
        ingress: vec![rule(TrafficMatch::ALL, "all from 0.0.0.0/0")],
        egress: vec![rule(TrafficMatch::ALL, "all to 0.0.0.0/0")],
    });
    plan.security_groups.push(SecurityGroupPlan {
        common: common("sg", "doors"),
        vpc: 0,
        ingress: vec![rule(
            TrafficMatch { proto: Some(Proto::TCP), ports: PortRange::ALL, icmp: (None, None) },
            "tcp from 0.0.0.0/0",
        )],
        egress: vec![],
    });
    for (name, cidr, az) in [("private-a", "10.0.1.0/24", 'a'), ("private-b", "10.0.2.0/24", 'b')] {
        plan.subnets.push(SubnetPlan {
            common: common("subnet", name),
            vpc: 0,
            cidr: cidr.parse().expect("block"),
            az,
            az_name: format!("eu-west-1{az}"),
            az_id: format!("euw1-az{az}"),
            route_table: 0,
            nacl: 0,
        });
    }
    plan.roles.push(RolePlan {
        common: common("role", "web-role"),
        account: "123456789012".into(),
        policy: Policy::Full,
    });
    for (name, subnet, ip) in [("web", 0, "10.0.1.10"), ("guest", 1, "10.0.2.10")] {
        let eni = EniIx(plan.enis.len() as u32);
        let at = plan.instances.len();
        plan.enis.push(eni_plan(lab, name, subnet, ip, 0, EniOwner::Instance(at, 0)));
        plan.instances.push(InstancePlan {
            role: Some(0),
            ..InstancePlan::new(common("i", name), InstanceHome::Vpc(0), vec![eni])
        });
    }
    plan
}

fn eni_plan(lab: &str, name: &str, subnet: usize, ip: &str, group: usize, owner: EniOwner) -> EniPlan {
    EniPlan {
        common: Common {
            name: name.into(),
            path: format!("app.{name}"),
            id: aws_id("eni", lab, name),
            ..Common::default()
        },
        home: Home::Subnet { vpc: 0, subnet },
        ip: ip.parse().expect("address"),
        mac: [2, 0, 0, 0, 0, subnet as u8],
        security_groups: vec![group],
        source_dest_check: true,
        owner,
    }
}
