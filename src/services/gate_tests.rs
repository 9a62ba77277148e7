//! The three ways to a service: an interface endpoint, a gateway endpoint, the public side.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;

use super::testing::{ACCOUNT, Lab, REGION, lab, plan};
use super::{ConnContext, Decision, Gate, GateKind, Opened};
use crate::base::{EniIx, FiveTuple};
use crate::model::catalogue::public_addr;
use crate::model::plan::{
    Backend, BucketFiles, BucketPlan, Common, EndpointKind, EniOwner, EniPlan, Home, Plan, Policy, UpstreamAddr,
};

const WHO: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// `plan` with an ENI for each owner, in this order.
fn with_enis(mut plan: Plan, owners: &[EniOwner]) -> Plan {
    for owner in owners {
        plan.enis.push(EniPlan {
            common: Common::default(),
            home: Home::Internet,
            ip: std::net::Ipv4Addr::UNSPECIFIED,
            mac: [2; 6],
            security_groups: Vec::new(),
            source_dest_check: true,
            owner: *owner,
        });
    }
    plan
}

/// Endpoints to dynamodb (gateway) and to sts and echo (interface), all of which deny one action.
fn doors() -> Plan {
    let mut plan = plan(&["dynamodb", "sts", "echo"].map(|n| (n, Backend::Builtin)));
    plan.endpoints[0].kind = EndpointKind::Gateway { route_tables: Vec::new(), prefix_list: 0, door: EniIx(0) };
    for (at, action) in ["dynamodb:ListTables", "sts:GetCallerIdentity", "none:None"].into_iter().enumerate() {
        plan.endpoints[at].policy = Policy::Document(json!({"Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": "*"},
        ]}));
    }
    let owners = [EniOwner::GatewayEndpoint(0), EniOwner::Endpoint(1), EniOwner::PublicSide, EniOwner::Instance(0, 0)];
    with_enis(plan, &owners)
}

/// A context as the router makes it.
fn at(lab: &Lab, eni: u32, from: [u8; 4], to: &str) -> Option<ConnContext> {
    let to = to.parse().unwrap_or_else(|_| public_addr(to).unwrap());
    ConnContext::at(&lab.services.world().current().plan, EniIx(eni), FiveTuple::tcp(from.into(), 40_000, to, 443))
}

#[tokio::test]
async fn a_connection_is_named_by_where_it_ends() {
    let lab = lab(doors());
    let gateway = at(&lab, 0, [10, 0, 1, 10], "dynamodb.eu-west-1.amazonaws.com").unwrap();
    let plan = &lab.services.world().current().plan;
    assert_eq!(gateway.gate, Gate::Endpoint(plan.endpoints[0].common.id.as_str().into()));
    assert_eq!(gateway.client.to_string(), "10.0.1.10:40000");
    let interface = at(&lab, 1, [10, 0, 1, 10], "10.0.1.25").unwrap();
    assert_eq!(interface.gate, Gate::Endpoint(plan.endpoints[1].common.id.as_str().into()));
    assert_eq!(at(&lab, 2, [203, 0, 113, 7], "sts.us-east-1.amazonaws.com").unwrap().gate, Gate::Public);
    assert_eq!(at(&lab, 3, [10, 0, 1, 10], "10.0.1.25"), None, "no service is in an instance");
    assert_eq!(at(&lab, 9, [10, 0, 1, 10], "10.0.1.25"), None, "no such interface");
}

#[tokio::test]
async fn a_gateway_endpoint_shows_the_public_certificate_and_its_policy_is_judged() {
    let lab = lab(doors());
    let host = "dynamodb.eu-west-1.amazonaws.com";
    let conn = at(&lab, 0, [10, 0, 1, 10], host).unwrap();
    let mut client = lab.https_to(conn.clone(), host).await.unwrap();
    let target = |action: &str| format!("DynamoDB_20120810.{action}");
    let denied = client.json("ASIAWEB", "dynamodb", &target("ListTables"), &json!({})).await;
    assert_eq!((denied.status, denied.json()["__type"].as_str()), (400, Some("AccessDeniedException")));
    assert!(denied.body.contains("with an explicit deny in a VPC endpoint policy"), "{}", denied.body);
    assert_eq!(client.json("ASIAWEB", "dynamodb", &target("DescribeEndpoints"), &json!({})).await.status, 200);
    let event = lab.services.events().recent()[0].clone();
    assert_eq!((event.endpoint.as_str(), event.gate), ("app.dynamodb", GateKind::Gateway));
    assert_eq!(event.client.to_string(), "10.0.1.10:40000");
    // Not the names of an interface endpoint.
    assert!(lab.https_to(conn, "vpce-00-abcdefgh.dynamodb.eu-west-1.vpce.amazonaws.com").await.is_err());
}

#[tokio::test]
async fn the_public_side_asks_no_endpoint_policy() {
    let lab = lab(doors());
    let mut by_endpoint = lab.client("sts").await;
    assert_eq!(by_endpoint.query("ASIAWEB", "sts", WHO).await.status, 403);
    let mut public = lab.public("sts.eu-west-1.amazonaws.com").await.unwrap();
    assert_eq!(public.query("ASIAWEB", "sts", WHO).await.status, 200);
    let role = public.query("ASIAGUEST", "sts", "Action=GetSessionToken&Version=2011-06-15").await;
    assert_ne!(role.status, 200, "the role's policy is asked all the same: {}", role.body);
    let events = lab.services.events().recent();
    assert_eq!((events[1].endpoint.as_str(), events[1].gate), ("public", GateKind::Public));
    assert_eq!((events[1].client.to_string().as_str(), events[1].region.as_str()), ("203.0.113.7:40000", REGION));
    assert_eq!(events[1].decision, Decision::Allowed);
}

#[tokio::test]
async fn every_way_has_its_own_source_for_conditions() {
    let lab = lab(doors());
    let host = "echo.eu-west-1.amazonaws.com";
    let mut inside = lab.client("echo").await;
    let hello = |host: &str| http::Request::post("/").header("host", host).body(Full::new(Bytes::new())).unwrap();
    let answer = inside.send(hello(host)).await.json();
    let plan = Arc::clone(&lab.services.world().current().plan);
    assert_eq!(answer["by"], "interface endpoint");
    assert_eq!(
        (&answer["endpoint"], &answer["vpc"]),
        (&json!(plan.endpoints[2].common.id), &json!(plan.vpcs[0].common.id))
    );
    let answer = lab.public(host).await.unwrap().send(hello(host)).await.json();
    assert_eq!((&answer["by"], &answer["endpoint"], &answer["vpc"]), (&json!("public"), &json!(null), &json!(null)));
    assert_eq!(answer["client"], "203.0.113.7");
    for (conn, source_ip, private) in [
        (lab.public_context(host, 443), Some([203, 0, 113, 7]), None),
        (at(&lab, 0, [10, 0, 1, 10], "dynamodb.eu-west-1.amazonaws.com").unwrap(), None, Some([10, 0, 1, 10])),
        (lab.context("sts", 443), None, Some([10, 0, 1, 10])),
    ] {
        let world = lab.services.world();
        let gate = world.current().gate(&conn).unwrap().unwrap();
        let about = super::http_types::About::new(Arc::clone(world), world.current(), gate, conn, true);
        let source = about.source();
        assert_eq!((source.source_ip, source.vpc_source_ip), (source_ip.map(Into::into), private.map(Into::into)));
        assert_eq!(source.vpce.is_some(), private.is_some());
        assert_eq!(source.vpce_account.as_deref(), private.map(|_| ACCOUNT));
        assert!(source.secure);
    }
}

#[tokio::test]
async fn services_of_every_region_are_there_and_verify_with_their_own() {
    let lab = lab(plan(&[]));
    for (host, region) in [
        ("sts.us-west-2.amazonaws.com", "us-west-2"),
        ("sts.amazonaws.com", "us-east-1"),
        ("sts-fips.us-east-1.amazonaws.com", "us-east-1"),
        ("sts.us-east-1.amazonaws.com", "us-east-1"),
    ] {
        let mut sts = lab.public(host).await.unwrap_or_else(|e| panic!("{host}: {e}"));
        let wrong = sts.query("ASIAWEB", "sts", WHO).await;
        assert_eq!(wrong.status, 403, "{host}");
        assert!(wrong.body.contains("Credential should be scoped to a valid region"), "{}", wrong.body);
        sts.region = region.into();
        assert_eq!(sts.query("ASIAWEB", "sts", WHO).await.status, 200, "{host}");
    }
    let mut queues = lab.public("eu-west-1.queue.amazonaws.com").await.unwrap();
    let made = queues.json("ASIAWEB", "sqs", "AmazonSQS.CreateQueue", &json!({"QueueName": "q"})).await.json();
    assert_eq!(made["QueueUrl"], format!("https://eu-west-1.queue.amazonaws.com/{ACCOUNT}/q"));
    // Each region has its own.
    let mut far = lab.public("sqs.us-east-2.amazonaws.com").await.unwrap();
    far.region = "us-east-2".into();
    assert_eq!(far.json("ASIAWEB", "sqs", "AmazonSQS.ListQueues", &json!({})).await.json(), json!({}));
}

#[tokio::test]
async fn certificates_of_the_public_side_have_the_names_of_their_service_only() {
    let lab = lab(plan(&[]));
    let s3 = |name: &'static str| lab.https_to(lab.public_context("s3.eu-west-1.amazonaws.com", 443), name);
    for name in [
        "s3.eu-west-1.amazonaws.com",
        "reports.s3.eu-west-1.amazonaws.com",
        "s3-eu-west-1.amazonaws.com",
        "reports.s3.dualstack.eu-west-1.amazonaws.com",
    ] {
        let client = s3(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(client.version, Some(rustls::ProtocolVersion::TLSv1_3), "the limit is of interface endpoints");
    }
    for name in ["s3.amazonaws.com", "a.b.s3.eu-west-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com"] {
        assert!(s3(name).await.is_err(), "{name}");
    }
    // The global name leads to us-east-1.
    assert!(lab.public("reports.s3.amazonaws.com").await.is_ok());
}

#[tokio::test]
async fn a_public_service_without_a_server_says_how_to_give_it_one() {
    let lab = lab(plan(&[]));
    let mut kms = lab.public("kms.eu-west-1.amazonaws.com").await.unwrap();
    let answer = kms.json("ASIAWEB", "kms", "TrentService.ListKeys", &json!({})).await;
    assert_eq!((answer.status, answer.json()["__type"].as_str()), (501, Some("NotImplemented")));
    assert!(answer.body.contains("services: { kms: { backend:"), "{}", answer.body);
    let nothing =
        ConnContext { server: "198.18.0.2:443".parse().unwrap(), ..lab.public_context("s3.amazonaws.com", 443) };
    assert!(matches!(lab.services.open(nothing).await, Opened::Refused));
}

#[tokio::test]
async fn a_backend_of_the_file_stands_behind_every_way_and_region() {
    let unix = UpstreamAddr::Unix("/sts".into());
    let lab = lab(plan(&[("sts", Backend::Tcp(unix.clone()))]));
    for host in ["sts.eu-west-1.amazonaws.com", "sts.us-east-1.amazonaws.com"] {
        lab.dialer.fail(&unix, std::io::ErrorKind::ConnectionRefused);
        assert!(matches!(lab.services.open(lab.public_context(host, 443)).await, Opened::Refused), "{host}");
    }
}

#[tokio::test]
async fn an_endpoint_that_a_new_plan_moves_keeps_its_connections_and_one_that_is_gone_takes_none() {
    let lab = lab(doors());
    let conn = lab.context("sts", 443);
    let mut next = doors();
    next.endpoints.swap(1, 2);
    next.endpoints[2].policy = Policy::Full;
    let mut sts = lab.client("sts").await;
    lab.services.publish(Arc::new(next)).unwrap();
    assert_eq!(sts.query("ASIAWEB", "sts", WHO).await.status, 200);
    let mut without = doors();
    without.endpoints.truncate(1);
    lab.services.publish(Arc::new(without)).unwrap();
    assert!(matches!(lab.services.open(conn).await, Opened::Refused));
}

#[tokio::test]
async fn a_bucket_of_another_region_is_a_redirect() {
    let mut plan = plan(&[("s3", Backend::Builtin)]);
    plan.services[0].contents.buckets = vec![BucketPlan { name: "reports".into(), files: BucketFiles::None }];
    let lab = lab(plan);
    for (host, path) in [
        ("s3.us-east-1.amazonaws.com", "/reports/key"),
        ("reports.s3.amazonaws.com", "/key"),
        ("s3.us-west-2.amazonaws.com", "/reports?location"),
    ] {
        let mut s3 = lab.public(host).await.unwrap();
        let get = http::Request::get(path).header("host", host).body(Full::new(Bytes::new())).unwrap();
        let answer = s3.send(get).await;
        assert_eq!((answer.status, answer.xml("Code")), (301, "PermanentRedirect"), "{host}");
        assert_eq!((answer.xml("Endpoint"), answer.xml("Bucket")), ("reports.s3.eu-west-1.amazonaws.com", "reports"));
        assert_eq!(answer.headers["x-amz-bucket-region"], "eu-west-1");
    }
    // In its own region it asks who is there.
    let mut s3 = lab.public("s3.eu-west-1.amazonaws.com").await.unwrap();
    let get = http::Request::get("/reports/key").header("host", &s3.host).body(Full::new(Bytes::new())).unwrap();
    let answer = s3.send(get).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AccessDenied"));
}
