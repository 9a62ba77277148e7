//! The metadata service as curl, the SDKs and hostile clients see it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::UnixTime;
use crate::model::Plan;
use crate::model::credentials::{CredentialBook, RoleCredentials};
use crate::{base, model};

#[path = "../../tests/support/two_zones.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "shared with the tests of the resolver")]
mod fixture;

use fixture::{GUEST, WEB, plan};

const NOW: UnixTime = UnixTime(1_795_252_015);
const LAUNCHED: UnixTime = UnixTime(1_795_000_000);

/// One instance and its service; every request is a connection of its own.
struct Lab {
    plan: Plan,
    book: CredentialBook,
    tokens: Tokens,
    instance: usize,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Lab {
    fn new(instance: usize) -> Lab {
        let plan = plan();
        let credentials = RoleCredentials {
            role: 0,
            role_name: "web-role".into(),
            account: "123456789012".into(),
            session: plan.instances[WEB].common.id.clone(),
            access_key: "ASIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalr/XUtn+FEMI".into(),
            token: "token==".into(),
            issued: NOW,
            expires: UnixTime(NOW.0 + 21_600),
        };
        let book = CredentialBook { entries: vec![(WEB, Arc::new(credentials))] };
        let tokens = Tokens::new(1, &plan.instances[instance].common.id);
        Lab { plan, book, tokens, instance }
    }

    fn feed(&mut self, session: &mut Session, bytes: &[u8], now: UnixTime) -> usize {
        let view = View { plan: &self.plan, instance: self.instance, credentials: &self.book, launched: LAUNCHED };
        session.input(bytes, now, &view, &mut self.tokens)
    }

    fn send(&mut self, request: &str, now: UnixTime) -> Answer {
        let mut session = Session::new();
        assert_eq!(self.feed(&mut session, request.as_bytes(), now), request.len());
        answers(session.output()).into_iter().next().expect("an answer")
    }

    fn ask(&mut self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n"), NOW)
    }

    fn token(&mut self) -> String {
        self.ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0\r\n")
            .body
    }

    fn get(&mut self, path: &str) -> Answer {
        let token = self.token();
        self.ask("GET", path, &format!("X-aws-ec2-metadata-token: {token}\r\n"))
    }

    fn text(&mut self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// Splits a stream of answers by their lengths.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
        bytes = &bytes[end..];
        let status = head[9..12].parse().expect("status");
        let mut answer = Answer { status, head, body: String::new() };
        if status != 100 {
            let length: usize = answer.header("Content-Length").expect("length").parse().expect("number");
            let length = length.min(bytes.len());
            answer.body = String::from_utf8(bytes[..length].to_vec()).expect("text");
            bytes = &bytes[length..];
        }
        all.push(answer);
    }
    all
}

#[test]
fn what_botocore_does_works_on_one_connection() {
    let mut lab = Lab::new(WEB);
    let mut session = Session::new();
    let mut turn = |lab: &mut Lab, request: String| {
        lab.feed(&mut session, request.as_bytes(), NOW);
        let answer = answers(session.output()).pop().expect("an answer");
        session.sent(usize::MAX);
        assert!(!session.ended(), "kept alive");
        assert_eq!(answer.status, 200, "{request}");
        answer
    };
    let host = "Host: 169.254.169.254\r\nAccept-Encoding: identity\r\nUser-Agent: Boto3/1.43\r\n";
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0\r\n";
    let token = turn(&mut lab, format!("PUT /latest/api/token HTTP/1.1\r\n{host}{ttl}\r\n"));
    assert_eq!(token.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"), Some("21600"));
    assert_eq!(token.header("Content-Type"), Some("text/plain"));
    assert_eq!(token.body.len(), 56);
    let with = format!("{host}x-aws-ec2-metadata-token: {}\r\n", token.body);
    let path = "/latest/meta-data/iam/security-credentials/";
    let role = turn(&mut lab, format!("GET {path} HTTP/1.1\r\n{with}\r\n")).body;
    assert_eq!(role, "web-role");
    let keys = turn(&mut lab, format!("GET {path}{role} HTTP/1.1\r\n{with}\r\n"));
    let keys: serde_json::Value = serde_json::from_str(&keys.body).expect("JSON");
    assert_eq!(keys["Code"], "Success");
    assert_eq!(keys["Type"], "AWS-HMAC");
    assert_eq!(keys["AccessKeyId"], "ASIAIOSFODNN7EXAMPLE");
    assert_eq!(keys["SecretAccessKey"], "wJalr/XUtn+FEMI");
    assert_eq!(keys["Token"], "token==");
    assert_eq!(keys["LastUpdated"], "2026-11-21T09:06:55Z");
    assert_eq!(keys["Expiration"], "2026-11-21T15:06:55Z");
    // The region fetcher asks for a leaf with a slash behind it and cuts the last letter off.
    let zone = turn(&mut lab, format!("GET /latest/meta-data/placement/availability-zone/ HTTP/1.1\r\n{with}\r\n"));
    assert_eq!(zone.body, "eu-west-1a");
}

#[test]
fn the_headers_are_ec2s() {
    let mut lab = Lab::new(WEB);
    let answer = lab.get("/latest/meta-data/instance-id");
    assert_eq!(
        answer.head,
        "HTTP/1.1 200 OK\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\nContent-Type: text/plain\r\n\
         Accept-Ranges: none\r\nLast-Modified: Wed, 18 Nov 2026 11:06:40 GMT\r\nContent-Length: 19\r\n\
         Date: Sat, 21 Nov 2026 09:06:55 GMT\r\nServer: EC2ws\r\n\r\n"
    );
    assert_eq!(answer.body, lab.plan.instances[WEB].common.id);
}

#[test]
fn version_1_works_where_the_instance_allows_it() {
    let mut web = Lab::new(WEB);
    assert_eq!(web.ask("GET", "/latest/meta-data/instance-id", "").status, 401);
    let mut guest = Lab::new(GUEST);
    let answer = guest.ask("GET", "/latest/meta-data/local-ipv4", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "10.0.2.10"));
    assert_eq!(answer.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"), None);
    let bad = "X-aws-ec2-metadata-token: nonsense\r\n";
    assert_eq!(guest.ask("GET", "/latest/meta-data/local-ipv4", bad).status, 401, "a bad token is refused even so");
}

#[test]
fn each_mistake_has_its_status() {
    let mut lab = Lab::new(WEB);
    let ttl = |n: &str| format!("X-aws-ec2-metadata-token-ttl-seconds: {n}\r\n");
    for (method, path, headers, status) in [
        ("PUT", "/latest/api/token", String::new(), 400),
        ("PUT", "/latest/api/token", ttl("0"), 400),
        ("PUT", "/latest/api/token", ttl("21601"), 400),
        ("PUT", "/latest/api/token", ttl("-1"), 400),
        ("PUT", "/latest/api/token", ttl("+5"), 400),
        ("PUT", "/latest/api/token", ttl("99999999999999999999"), 400),
        ("PUT", "/latest/api/token", ttl("ten"), 400),
        ("PUT", "/latest/api/token", ttl("5") + &ttl("6"), 400),
        ("PUT", "/latest/api/token", ttl("1"), 200),
        ("PUT", "/2021-03-23/api/token", ttl("21600"), 200),
        ("PUT", "/latest/api/token", ttl("60") + "X-Forwarded-For: 10.0.1.5\r\n", 403),
        ("GET", "/latest/api/token", String::new(), 405),
        ("POST", "/latest/api/token", ttl("60"), 405),
        ("PUT", "/latest/meta-data/instance-id", String::new(), 405),
        ("DELETE", "/latest/meta-data/", String::new(), 405),
        ("GET", "/latest/meta-data/", String::new(), 401),
        ("GET", "/nothing", String::new(), 401),
        ("GET", "/", String::new(), 401),
        ("OPTIONS", "/latest/api/token", String::new(), 200),
        ("PUT", "/2222-01-01/api/token", ttl("60"), 405),
    ] {
        assert_eq!(lab.ask(method, path, &headers).status, status, "{method} {path} {headers}");
    }
    assert_eq!(lab.ask("GET", "/latest/api/token", "").header("Allow"), Some("OPTIONS, PUT"));
    for (path, status) in [
        ("/latest/meta-data/nothing", 404),
        ("/latest/meta-data/public-ipv4", 404),
        ("/latest/meta-data/tags/", 404),
        ("/latest/meta-data/tags/instance/", 404),
        ("/latest/meta-data//", 404),
        ("/1999-01-01/meta-data/", 404),
        ("/latest/meta-data", 301),
        ("/latest", 301),
        ("/latest/meta-data/iam/security-credentials", 301),
        ("/latest/meta-data/iam/security-credentials/other-role", 404),
        ("/latest/user-data", 200),
        ("/latest/meta-data/?x=y", 200),
    ] {
        assert_eq!(lab.get(path).status, status, "{path}");
    }
    let moved = lab.get("/latest/meta-data/placement");
    assert_eq!(moved.header("Location"), Some("http://169.254.169.254/latest/meta-data/placement/"));
    assert!(lab.get("/x").body.contains("<title>404 - Not Found</title>"));

    let mut guest = Lab::new(GUEST);
    for path in ["/latest/user-data", "/latest/meta-data/iam/", "/latest/meta-data/iam/security-credentials/"] {
        assert_eq!(guest.get(path).status, 404, "no role, no user data: {path}");
    }
}

#[test]
fn a_token_ends_with_its_life_and_at_its_instance() {
    let mut lab = Lab::new(WEB);
    let token = lab.ask("PUT", "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: 10\r\n").body;
    let get = format!("GET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n");
    let answer = lab.send(&get, UnixTime(NOW.0 + 4));
    assert_eq!(answer.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"), Some("6"));
    assert_eq!(lab.send(&get, UnixTime(NOW.0 + 10)).status, 401);
    assert_eq!(Lab::new(GUEST).send(&get, NOW).status, 401);
}

#[test]
fn the_tree_tells_what_the_plan_says() {
    let mut lab = Lab::new(WEB);
    let plan = lab.plan.clone();
    assert!(lab.text("/").starts_with("1.0\n2007-01-19\n") && lab.text("/").ends_with("\nlatest"));
    assert_eq!(lab.text("/latest/"), "dynamic/\nmeta-data/\nuser-data");
    assert_eq!(
        lab.text("/latest/meta-data/"),
        "ami-id\nami-launch-index\nhostname\niam/\ninstance-action\ninstance-id\ninstance-life-cycle\ninstance-type\n\
         local-hostname\nlocal-ipv4\nmac\nnetwork/\nplacement/\nprofile\nreservation-id\nsecurity-groups\nservices/"
    );
    assert_eq!(lab.text("/latest/meta-data/placement/"), "availability-zone\navailability-zone-id\nregion");
    assert_eq!(lab.text("/latest/meta-data/iam/"), "info\nsecurity-credentials/");
    let macs = "/latest/meta-data/network/interfaces/macs/";
    assert_eq!(lab.text(macs), "02:00:00:00:00:00/");
    for (path, value) in [
        ("/latest/meta-data/hostname".to_owned(), "ip-10-0-1-10.eu-west-1.compute.internal"),
        ("/2021-03-23/meta-data/local-hostname".to_owned(), "ip-10-0-1-10.eu-west-1.compute.internal"),
        ("/1.0/meta-data/local-ipv4".to_owned(), "10.0.1.10"),
        ("/latest/meta-data/mac".to_owned(), "02:00:00:00:00:00"),
        ("/latest/meta-data/placement/region".to_owned(), "eu-west-1"),
        ("/latest/meta-data/placement/availability-zone-id".to_owned(), "euw1-az1"),
        ("/latest/meta-data/security-groups".to_owned(), "app"),
        ("/latest/meta-data/services/domain".to_owned(), "amazonaws.com"),
        ("/latest/meta-data/services/partition".to_owned(), "aws"),
        (format!("{macs}02:00:00:00:00:00/subnet-id"), plan.subnets[0].common.id.as_str()),
        (format!("{macs}02:00:00:00:00:00/vpc-id"), plan.vpcs[0].common.id.as_str()),
        (format!("{macs}02:00:00:00:00:00/interface-id"), plan.enis[0].common.id.as_str()),
        (format!("{macs}02:00:00:00:00:00/device-number"), "0"),
        (format!("{macs}02:00:00:00:00:00/local-ipv4s"), "10.0.1.10"),
        (format!("{macs}02:00:00:00:00:00/security-group-ids"), plan.security_groups[0].common.id.as_str()),
        (format!("{macs}02:00:00:00:00:00/subnet-ipv4-cidr-block"), "10.0.1.0/24"),
        (format!("{macs}02:00:00:00:00:00/vpc-ipv4-cidr-blocks"), "10.0.0.0/16"),
        ("/latest/user-data".to_owned(), "#!/bin/sh\necho hello\n"),
    ] {
        assert_eq!(lab.text(&path), value, "{path}");
    }
    assert_eq!(lab.get("/latest/user-data").header("Content-Type"), Some("application/octet-stream"));
    let info: serde_json::Value = serde_json::from_str(&lab.text("/latest/meta-data/iam/info")).expect("JSON");
    assert_eq!(info["InstanceProfileArn"], "arn:aws:iam::123456789012:instance-profile/web-role");
    let text = lab.text("/latest/dynamic/instance-identity/document");
    assert!(text.starts_with("{\n  \"accountId\" : \"123456789012\",\n"), "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["region"], "eu-west-1");
    assert_eq!(document["availabilityZone"], "eu-west-1a");
    assert_eq!(document["instanceId"], plan.instances[WEB].common.id);
    assert_eq!(document["privateIp"], "10.0.1.10");
    assert_eq!(document["pendingTime"], LAUNCHED.iso8601());
}

#[test]
fn every_name_in_a_listing_leads_somewhere() {
    let mut lab = Lab::new(WEB);
    let mut pending = vec!["/latest/".to_owned()];
    let mut leaves = 0;
    while let Some(dir) = pending.pop() {
        for name in lab.text(&dir).lines() {
            let path = format!("{dir}{name}");
            if name.ends_with('/') {
                pending.push(path);
            } else {
                lab.text(&path);
                leaves += 1;
            }
        }
    }
    assert!(leaves > 30, "{leaves}");
}

#[test]
fn head_has_the_length_and_no_body() {
    let mut lab = Lab::new(WEB);
    let token = lab.token();
    let answer = lab.ask("HEAD", "/latest/meta-data/mac", &format!("X-aws-ec2-metadata-token: {token}\r\n"));
    assert_eq!((answer.status, answer.header("Content-Length"), answer.body.as_str()), (200, Some("17"), ""));
}

#[test]
fn connections_are_kept_unless_one_side_says_otherwise() {
    let mut lab = Lab::new(GUEST);
    for (request, kept, said) in [
        ("GET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\n\r\n", true, None),
        ("GET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, Some("close")),
        ("GET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n", false, Some("close")),
        ("GET /latest/meta-data/mac HTTP/1.0\r\n\r\n", false, Some("close")),
        ("GET /latest/meta-data/mac HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, Some("keep-alive")),
        ("GET /latest/meta-data/mac HTTP/1.1\nHost: x\n\n", true, None),
        ("\r\n\r\nGET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\n\r\n", true, None),
        ("GET http://169.254.169.254/latest/meta-data/mac HTTP/1.1\r\nHost: x\r\n\r\n", true, None),
    ] {
        let mut session = Session::new();
        lab.feed(&mut session, request.as_bytes(), NOW);
        let answer = answers(session.output()).pop().expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "02:00:00:00:00:01"), "{request}");
        assert_eq!((!session.ended(), answer.header("Connection")), (kept, said), "{request}");
    }
}

#[test]
fn requests_in_a_row_and_in_pieces_give_the_same_answers() {
    let mut lab = Lab::new(GUEST);
    let mut requests = String::new();
    for path in ["mac", "nothing", "local-ipv4", "placement/region"] {
        requests.push_str(&format!("GET /latest/meta-data/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"));
    }
    let mut whole = Session::new();
    assert_eq!(lab.feed(&mut whole, requests.as_bytes(), NOW), requests.len());
    let statuses: Vec<u16> = answers(whole.output()).iter().map(|a| a.status).collect();
    assert_eq!(statuses, [200, 404, 200, 200]);
    for size in [1, 2, 3, 7, 50] {
        let mut pieces = Session::new();
        for piece in requests.as_bytes().chunks(size) {
            assert_eq!(lab.feed(&mut pieces, piece, NOW), piece.len());
        }
        assert_eq!(pieces.output(), whole.output(), "pieces of {size}");
    }
}

#[test]
fn bodies_are_read_past_and_odd_ones_refused() {
    let mut lab = Lab::new(GUEST);
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    let mut session = Session::new();
    lab.feed(&mut session, format!("{put}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi").as_bytes(), NOW);
    assert_eq!(answers(session.output()).iter().map(|a| a.status).collect::<Vec<_>>(), [100, 200]);
    for (request, status) in [
        (format!("{put}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 411),
        (format!("{put}Content-Length: 3\r\nContent-Length: 4\r\n\r\n"), 400),
        (format!("{put}Content-Length: 3, 3\r\n\r\n"), 400),
        (format!("{put}Content-Length: -3\r\n\r\n"), 400),
        (format!("{put}Content-Length: 65537\r\n\r\n"), 413),
        (format!("{put}Content-Length: 99999999999999999999999\r\n\r\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET latest HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("hello\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9_000)), 431),
        ("x".repeat(9_000), 431),
    ] {
        let mut session = Session::new();
        assert_eq!(lab.feed(&mut session, request.as_bytes(), NOW), request.len());
        let all = answers(session.output());
        assert_eq!((all.len(), all[0].status), (1, status), "{request}");
        assert!(session.ended() && all[0].header("Connection") == Some("close"), "{request}");
        let before = session.output().len();
        lab.feed(&mut session, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NOW);
        assert_eq!(session.output().len(), before, "nothing is read after the end");
    }
}

#[test]
fn only_answers_to_a_put_carry_the_hop_limit() {
    let mut lab = Lab::new(GUEST);
    let mut session = Session::new();
    lab.feed(&mut session, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NOW);
    assert!(!session.token_answer_waits());
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    lab.feed(&mut session, format!("PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n{ttl}\r\n").as_bytes(), NOW);
    assert!(session.token_answer_waits());
    session.sent(session.output().len() - 1);
    assert!(session.token_answer_waits());
    session.sent(1);
    assert!(!session.token_answer_waits() && session.output().is_empty());
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut lab = Lab::new(GUEST);
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
    let mut session = Session::new();
    let mut rest = requests.as_bytes();
    let mut answered = 0;
    loop {
        rest = &rest[lab.feed(&mut session, rest, NOW)..];
        assert!(session.output().len() < 70 * 1024);
        answered += answers(session.output()).len();
        session.sent(usize::MAX);
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(answered, 2_000);
}

#[test]
fn a_second_interface_has_a_directory_of_its_own() {
    let mut lab = Lab::new(WEB);
    let mut eni = lab.plan.enis[0].clone();
    eni.ip = Ipv4Addr::new(10, 0, 1, 77);
    eni.mac = [2, 0, 0, 0, 0, 0x4d];
    lab.plan.enis.push(eni);
    let at = base::EniIx(lab.plan.enis.len() as u32 - 1);
    lab.plan.instances[WEB].enis.push(at);
    let macs = "/latest/meta-data/network/interfaces/macs/";
    assert_eq!(lab.text(macs), "02:00:00:00:00:00/\n02:00:00:00:00:4d/");
    assert_eq!(lab.text(&format!("{macs}02:00:00:00:00:4d/device-number")), "1");
    assert_eq!(lab.text("/latest/meta-data/local-ipv4"), "10.0.1.10");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let mut lab = Lab::new(WEB);
        let mut session = Session::new();
        lab.feed(&mut session, &bytes, NOW);
        answers(session.output());
    }

    /// Requests of the right form with some bytes changed.
    #[test]
    fn damaged_requests_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut lab = Lab::new(GUEST);
        let mut bytes = "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
                         Content-Length: 0\r\n\r\nGET /latest/meta-data/iam/ HTTP/1.1\r\nHost: x\r\n\r\n".as_bytes().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut session = Session::new();
        lab.feed(&mut session, &bytes, NOW);
        for answer in answers(session.output()) {
            prop_assert!((100..600).contains(&answer.status));
        }
    }
}

#[test]
fn a_public_address_is_told_with_its_name_where_instances_have_names() {
    let mut lab = Lab::new(WEB);
    let eni = lab.plan.instances[WEB].enis[0];
    lab.plan.public_addresses.push(model::plan::PublicAddressPlan {
        common: model::plan::Common::default(),
        addr: Ipv4Addr::new(203, 0, 113, 7),
        eni,
        private: lab.plan.eni(eni).ip,
        elastic: false,
    });
    const NAME: &str = "ec2-203-0-113-7.eu-west-1.compute.amazonaws.com";
    let mac = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:00";
    assert_eq!(lab.text("/latest/meta-data/public-ipv4"), "203.0.113.7");
    assert_eq!(lab.text("/latest/meta-data/public-hostname"), NAME);
    assert_eq!(lab.text("/latest/meta-data/local-ipv4"), "10.0.1.10");
    assert_eq!(lab.text(&format!("{mac}/public-ipv4s")), "203.0.113.7");
    assert_eq!(lab.text(&format!("{mac}/public-hostname")), NAME);
    assert_eq!(lab.text(&format!("{mac}/ipv4-associations/203.0.113.7")), "10.0.1.10");
    lab.plan.vpcs[0].dns_hostnames = false;
    assert_eq!(lab.get("/latest/meta-data/public-hostname").status, 404);
    assert_eq!(lab.text("/latest/meta-data/public-ipv4"), "203.0.113.7");
}
