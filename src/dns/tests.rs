//! The resolver as its clients see it: answers are decoded by hickory-proto, which shares no code with the encoder.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use proptest::prelude::*;

use super::*;

#[path = "../../tests/support/two_zones.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "shared with the tests of the metadata service")]
mod fixture;

use crate::{base, model};
use fixture::{APP, ECR, OTHER, S3, SQS, plan};

const SOA: &str = "ns-1536.awsdns-00.co.uk. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400";

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut query = Query::new();
    let name = Name::from_labels(name.split('.').map(str::as_bytes)).expect("name");
    query.set_name(name).set_query_type(rtype);
    message.add_query(query);
    message
}

fn edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

fn raw(zones: &Zones, vpc: usize, query: &[u8], seed: u64) -> Vec<u8> {
    let mut out = [0xaa; 4096];
    let n = zones.answer(vpc, query, seed, &mut out, Transport::Udp);
    out[..n].to_vec()
}

fn ask(zones: &Zones, vpc: usize, query: &Message, seed: u64) -> Message {
    let bytes = raw(zones, vpc, &query.to_bytes().expect("query"), seed);
    Message::from_bytes(&bytes).expect("the answer parses")
}

fn addrs(message: &Message) -> Vec<Ipv4Addr> {
    message
        .answers
        .iter()
        .filter_map(|r| match &r.data {
            RData::A(a) => Some(a.0),
            _ => None,
        })
        .collect()
}

fn ips(list: &[&str]) -> Vec<Ipv4Addr> {
    list.iter().map(|s| s.parse().expect("address")).collect()
}

/// What a name answers: sorted addresses, or which kind of nothing and the zone of its SOA.
fn verdict(zones: &Zones, vpc: usize, name: &str, rtype: RecordType) -> String {
    let answer = ask(zones, vpc, &query(name, rtype), 7);
    let mut data: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    if !data.is_empty() {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        return data.join(" ");
    }
    let soa = &answer.authorities[0];
    assert_eq!((soa.ttl, soa.data.to_string().as_str()), (900, SOA), "{name}");
    let kind = if answer.metadata.response_code == ResponseCode::NXDomain { "NXDOMAIN" } else { "NODATA" };
    format!("{kind} {}", soa.name)
}

#[test]
fn names_that_clients_ask_for_have_the_answers_of_aws() {
    let plan = plan();
    let zones = compile(&plan);
    let v = |endpoint: usize| plan.endpoints[endpoint].names.regional.clone();
    let z = |endpoint: usize| plan.endpoints[endpoint].names.zonal[1].1.clone();
    const S3_BOTH: &str = "10.0.1.20 10.0.2.20";
    for (vpc, name, rtype, expected) in [
        // Private DNS: the apex, its wildcard at any depth, every zone's address at once.
        (APP, "s3.eu-west-1.amazonaws.com", "A", S3_BOTH),
        (APP, "reports.s3.eu-west-1.amazonaws.com", "A", S3_BOTH),
        (APP, "a.b.c.s3.eu-west-1.amazonaws.com", "A", S3_BOTH),
        (APP, "123456789012.s3-control.eu-west-1.amazonaws.com", "A", S3_BOTH),
        (APP, "ap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", "A", S3_BOTH),
        (APP, "sqs.eu-west-1.amazonaws.com", "A", "10.0.1.21 10.0.2.21"),
        (APP, "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "A", "10.0.1.22 10.0.2.22"),
        // An IPv4 endpoint has no AAAA, and no other type either.
        (APP, "s3.eu-west-1.amazonaws.com", "AAAA", "NODATA s3.eu-west-1.amazonaws.com."),
        (APP, "reports.s3.eu-west-1.amazonaws.com", "AAAA", "NODATA s3.eu-west-1.amazonaws.com."),
        (APP, "sqs.eu-west-1.amazonaws.com", "HTTPS", "NODATA sqs.eu-west-1.amazonaws.com."),
        (APP, "dkr.ecr.eu-west-1.amazonaws.com", "A", "NODATA dkr.ecr.eu-west-1.amazonaws.com."),
        // The most specific private zone is final.
        (APP, "x.sqs.eu-west-1.amazonaws.com", "A", "NXDOMAIN sqs.eu-west-1.amazonaws.com."),
        // Names that private DNS does not cover stay public: of another region, legacy, FIPS, dual-stack.
        (APP, "s3.us-east-1.amazonaws.com", "A", "198.18"),
        (APP, "s3.amazonaws.com", "A", "198.18"),
        (APP, "reports.s3.amazonaws.com", "A", "198.18"),
        (APP, "eu-west-1.queue.amazonaws.com", "A", "198.18"),
        (APP, "queue.amazonaws.com", "A", "198.18"),
        (APP, "sts.amazonaws.com", "A", "198.18"),
        (APP, "s3-fips.us-east-1.amazonaws.com", "A", "198.18"),
        (APP, "s3.dualstack.eu-west-1.amazonaws.com", "A", "198.18"),
        (APP, "sts.eu-west-1.amazonaws.com", "A", "198.1"),
        (APP, "sts.eu-west-1.amazonaws.com", "AAAA", "NODATA amazonaws.com."),
        (APP, "sqs.eu-west-1.api.aws", "A", "198.1"),
        // The other VPC does not see private DNS.
        (OTHER, "s3.eu-west-1.amazonaws.com", "A", "198.18"),
        (OTHER, "sqs.eu-west-1.amazonaws.com", "A", "198.1"),
        // Endpoint-specific names are public: both VPCs see them.
        (APP, &v(SQS), "A", "10.0.1.21 10.0.2.21"),
        (OTHER, &v(SQS), "A", "10.0.1.21 10.0.2.21"),
        (OTHER, &z(SQS), "A", "10.0.2.21"),
        (APP, &z(ECR), "A", "10.0.2.22"),
        (APP, &v(SQS), "AAAA", "NODATA eu-west-1.vpce.amazonaws.com."),
        (APP, &format!("x.{}", v(SQS)), "A", "NXDOMAIN eu-west-1.vpce.amazonaws.com."),
        (APP, "sqs.eu-west-1.vpce.amazonaws.com", "A", "NODATA eu-west-1.vpce.amazonaws.com."),
        (APP, "vpce-0-x.sqs.eu-west-1.vpce.amazonaws.com", "A", "NXDOMAIN eu-west-1.vpce.amazonaws.com."),
        // S3's take a label in front.
        (APP, &v(S3), "A", S3_BOTH),
        (APP, &format!("bucket.{}", v(S3)), "A", S3_BOTH),
        (APP, &format!("reports.bucket.{}", v(S3)), "A", S3_BOTH),
        (APP, &format!("ap-1.accesspoint.{}", z(S3)), "A", "10.0.2.20"),
        (APP, &format!("1.control.{}", z(S3)), "A", "10.0.2.20"),
        // Nothing is ever asked of the real world.
        (APP, "example.com", "A", "NXDOMAIN ."),
        (APP, "nothing.eu-west-1.amazonaws.com", "A", "NXDOMAIN amazonaws.com."),
        (APP, "com", "A", "NODATA ."),
        (APP, "eu-west-1.amazonaws.com", "A", "NODATA amazonaws.com."),
        // Names of instances, there and back.
        (APP, "ip-10-0-1-10.eu-west-1.compute.internal", "A", "10.0.1.10"),
        (APP, "ip-10-0-9-9.eu-west-1.compute.internal", "A", "10.0.9.9"),
        (APP, "ip-8-8-8-8.eu-west-1.compute.internal", "A", "NXDOMAIN eu-west-1.compute.internal."),
        (APP, "ip-10-0-1-10.eu-west-1.compute.internal", "AAAA", "NODATA eu-west-1.compute.internal."),
        (APP, "x.ip-10-0-1-10.eu-west-1.compute.internal", "A", "NXDOMAIN eu-west-1.compute.internal."),
        (APP, "ip-10-0-1-10.ec2.internal", "A", "NXDOMAIN ."),
        (APP, &format!("{}.eu-west-1.compute.internal", plan.instances[0].common.id), "A", "10.0.1.10"),
        (APP, "10.1.0.10.in-addr.arpa", "PTR", "ip-10-0-1-10.eu-west-1.compute.internal."),
        (APP, "10.1.0.10.in-addr.arpa", "A", "NODATA 10.in-addr.arpa."),
        (APP, "1.0.10.in-addr.arpa", "PTR", "NODATA 10.in-addr.arpa."),
        (APP, "8.8.8.8.in-addr.arpa", "PTR", "NXDOMAIN ."),
        (APP, "254.169.254.169.in-addr.arpa", "PTR", "instance-data.eu-west-1.compute.internal."),
        (APP, "1.0.0.127.in-addr.arpa", "PTR", "localhost."),
        (APP, "localhost", "A", "127.0.0.1"),
        (APP, "localhost", "AAAA", "::1"),
        (APP, "www.localhost", "A", "127.0.0.1"),
        // Without dns_hostnames instances have no names.
        (OTHER, "ip-10-0-1-10.eu-west-1.compute.internal", "A", "NXDOMAIN eu-west-1.compute.internal."),
        (OTHER, "10.1.64.100.in-addr.arpa", "PTR", "NXDOMAIN 64.100.in-addr.arpa."),
        // A zone's own records.
        (APP, "s3.eu-west-1.amazonaws.com", "SOA", SOA),
        (APP, "reports.s3.eu-west-1.amazonaws.com", "SOA", "NODATA s3.eu-west-1.amazonaws.com."),
        (
            APP,
            "sqs.eu-west-1.amazonaws.com",
            "NS",
            "ns-0.awsdns-00.com. ns-1024.awsdns-00.org. ns-1536.awsdns-00.co.uk. ns-512.awsdns-00.net.",
        ),
    ] {
        let rtype: RecordType = rtype.parse().expect("type");
        let seen = verdict(&zones, vpc, name, rtype);
        let public = expected.starts_with("198.1") && seen.starts_with(expected);
        assert!(public || seen == expected, "VPC {vpc} {name} {rtype}: {seen}, not {expected}");
    }
}

#[test]
fn us_east_1_has_names_of_its_own() {
    let mut plan = plan();
    plan.vpcs[APP].region = "us-east-1".into();
    let zones = compile(&plan);
    assert_eq!(verdict(&zones, APP, "ip-10-0-1-10.ec2.internal", RecordType::A), "10.0.1.10");
    assert_eq!(verdict(&zones, APP, "10.1.0.10.in-addr.arpa", RecordType::PTR), "ip-10-0-1-10.ec2.internal.");
}

#[test]
fn a_vpc_with_blocks_outside_rfc_1918_names_its_instances_too() {
    let mut plan = plan();
    plan.vpcs[OTHER].dns_hostnames = true;
    let zones = compile(&plan);
    let name = "ip-100-64-1-10.eu-west-1.compute.internal";
    assert_eq!(verdict(&zones, OTHER, name, RecordType::A), "100.64.1.10");
    assert_eq!(verdict(&zones, OTHER, "10.1.64.100.in-addr.arpa", RecordType::PTR), format!("{name}."));
    assert_eq!(verdict(&zones, APP, name, RecordType::A), "NXDOMAIN eu-west-1.compute.internal.");
}

#[test]
fn dns_attributes_decide_who_answers_what() {
    let mut plan = plan();
    plan.vpcs[APP].dns_support = false;
    let zones = compile(&plan);
    let bytes = query("s3.eu-west-1.amazonaws.com", RecordType::A).to_bytes().expect("query");
    assert!(raw(&zones, APP, &bytes, 0).is_empty(), "without dns_support nobody is there");
    assert!(raw(&zones, 99, &bytes, 0).is_empty());
    let told = lookup(&zones, APP, "s3.eu-west-1.amazonaws.com", QType::A);
    assert_eq!((told.rcode, told.answered_by.as_str()), (None, "nobody: dns_support is off in VPC app"));

    plan.vpcs[APP].dns_support = true;
    plan.vpcs[APP].dns_hostnames = false;
    let told = lookup(&compile(&plan), APP, "s3.eu-west-1.amazonaws.com", QType::A);
    assert_eq!(told.addrs(), ips(&["198.18.0.16"]), "private DNS needs both attributes");
    assert_eq!(told.notes, ["endpoint s3 has this name, but the VPC lacks a DNS attribute"]);
}

#[test]
fn the_header_is_a_recursive_resolvers() {
    let zones = compile(&plan());
    let answer = ask(&zones, APP, &query("s3.eu-west-1.amazonaws.com", RecordType::A), 0);
    let m = &answer.metadata;
    assert_eq!((m.id, m.message_type, m.op_code), (0x1234, MessageType::Response, OpCode::Query));
    assert!(m.recursion_desired && m.recursion_available);
    assert!(!m.authoritative && !m.truncation && !m.authentic_data && !m.checking_disabled);
    assert_eq!(answer.answers[0].ttl, 60);
    assert!(answer.authorities.is_empty() && answer.additionals.is_empty() && answer.edns.is_none());

    let mut without_rd = query("s3.eu-west-1.amazonaws.com", RecordType::A);
    without_rd.metadata.recursion_desired = false;
    without_rd.metadata.checking_disabled = true;
    let answer = ask(&zones, APP, &without_rd, 0);
    assert!(!answer.metadata.recursion_desired && answer.metadata.checking_disabled);
    assert_eq!(answer.answers.len(), 2);

    let mut plan = plan();
    plan.limits.dns_ttl = 2;
    let answer = ask(&compile(&plan), APP, &query("s3.eu-west-1.amazonaws.com", RecordType::A), 0);
    assert_eq!(answer.answers[0].ttl, 2);
}

#[test]
fn edns_is_answered_with_the_resolvers_size() {
    let zones = compile(&plan());
    for size in [0, 512, 1232, 4096, 65535] {
        let answer = ask(&zones, APP, &edns(query("x.sqs.eu-west-1.amazonaws.com", RecordType::A), size), 0);
        let opt = answer.edns.as_ref().expect("OPT");
        assert_eq!((opt.max_payload(), opt.version(), opt.flags().dnssec_ok), (4096, 0, false));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }
    let mut dnssec = edns(query("sqs.eu-west-1.amazonaws.com", RecordType::A), 4096);
    dnssec.edns.as_mut().expect("OPT").set_dnssec_ok(true);
    assert!(ask(&zones, APP, &dnssec, 0).edns.expect("OPT").flags().dnssec_ok);

    let mut newer = edns(query("sqs.eu-west-1.amazonaws.com", RecordType::A), 4096);
    newer.edns.as_mut().expect("OPT").set_version(1);
    let answer = ask(&zones, APP, &newer, 0);
    // BADVERS, 16, which the decoder calls by its other name, BADSIG.
    assert_eq!((u16::from(answer.metadata.response_code), answer.answers.len()), (16, 0));
}

#[test]
fn letters_keep_the_clients_case() {
    let zones = compile(&plan());
    let answer = ask(&zones, APP, &query("RePorts.S3.Eu-West-1.AmazonAWS.com", RecordType::A), 0);
    assert_eq!(answer.queries[0].name().to_ascii(), "RePorts.S3.Eu-West-1.AmazonAWS.com.");
    assert_eq!(answer.answers[0].name.to_ascii(), "RePorts.S3.Eu-West-1.AmazonAWS.com.");
    assert_eq!(addrs(&answer).len(), 2);
    let answer = ask(&zones, APP, &query("X.sQs.eU-west-1.amazonaws.com", RecordType::A), 0);
    assert_eq!(answer.authorities[0].name.to_ascii(), "sQs.eU-west-1.amazonaws.com.");
}

#[test]
fn every_order_of_the_addresses_is_equally_likely() {
    let mut plan = plan();
    // A third address.
    let mut third = plan.enis[plan.endpoints[SQS].enis[0].at()].clone();
    third.ip = Ipv4Addr::new(10, 0, 3, 21);
    plan.enis.push(third);
    let at = crate::base::EniIx(plan.enis.len() as u32 - 1);
    plan.endpoints[SQS].enis.push(at);
    let zones = compile(&plan);
    let mut seen = std::collections::BTreeMap::new();
    let question = query("sqs.eu-west-1.amazonaws.com", RecordType::A);
    for seed in 0..6_000 {
        let answer = ask(&zones, APP, &question, seed);
        let mut sorted = addrs(&answer);
        *seen.entry(sorted.clone()).or_insert(0) += 1;
        sorted.sort();
        assert_eq!(sorted, ips(&["10.0.1.21", "10.0.2.21", "10.0.3.21"]));
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.values().all(|n| (800..1_200).contains(n)), "{seen:?}");
    assert_eq!(addrs(&ask(&zones, APP, &question, 5)), addrs(&ask(&zones, APP, &question, 5)));
}

/// 40 addresses are 640 bytes: too long for a client without EDNS.
#[test]
fn long_answers_are_cut_off_by_udp_and_whole_by_tcp() {
    let mut plan = plan();
    for n in 0..38 {
        let mut eni = plan.enis[plan.endpoints[SQS].enis[0].at()].clone();
        eni.ip = Ipv4Addr::new(10, 0, 4, n);
        plan.enis.push(eni);
        let at = crate::base::EniIx(plan.enis.len() as u32 - 1);
        plan.endpoints[SQS].enis.push(at);
    }
    let zones = compile(&plan);
    let question = query("sqs.eu-west-1.amazonaws.com", RecordType::A);
    let short = ask(&zones, APP, &question, 0);
    assert!(short.metadata.truncation && short.answers.is_empty());
    let small = ask(&zones, APP, &edns(question.clone(), 100), 0);
    assert!(small.metadata.truncation && small.edns.is_some(), "a size below 512 counts as 512");
    let long = ask(&zones, APP, &edns(question.clone(), 1232), 0);
    assert_eq!((long.metadata.truncation, long.answers.len()), (false, 40));

    let bytes = question.to_bytes().expect("query");
    let mut out = [0; 4096];
    let n = zones.answer(APP, &bytes, 0, &mut out, Transport::Tcp);
    assert_eq!(Message::from_bytes(&out[..n]).expect("answer").answers.len(), 40);
    let n = zones.answer(APP, &bytes, 0, &mut out[..300], Transport::Tcp);
    assert!(Message::from_bytes(&out[..n]).expect("answer").metadata.truncation, "a small buffer is a limit too");
    assert_eq!(zones.answer(APP, &bytes, 0, &mut out[..20], Transport::Tcp), 0);
}

#[test]
fn any_asks_for_all() {
    let zones = compile(&plan());
    let answer = ask(&zones, APP, &query("s3.eu-west-1.amazonaws.com", RecordType::ANY), 3);
    let mut types: Vec<String> = answer.answers.iter().map(|r| r.record_type().to_string()).collect();
    types.sort();
    assert_eq!(types, ["A", "A", "NS", "NS", "NS", "NS", "SOA"]);
}

#[test]
fn what_is_not_for_this_resolver_is_refused_and_garbage_is_told_so() {
    let zones = compile(&plan());
    let good = query("s3.eu-west-1.amazonaws.com", RecordType::A);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&zones, APP, &chaos, 0).metadata.response_code, ResponseCode::Refused);
    let transfer = query("s3.eu-west-1.amazonaws.com", RecordType::AXFR);
    assert_eq!(ask(&zones, APP, &transfer, 0).metadata.response_code, ResponseCode::Refused);

    let good = good.to_bytes().expect("query");
    let rcode = |bytes: &[u8]| raw(&zones, APP, bytes, 0).get(3).map(|b| b & 0x0f);
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(rcode(&update), Some(4), "NOTIMP");
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(rcode(&two), Some(1), "two questions: FORMERR");
    let mut none = good[..12].to_vec();
    none[5] = 0;
    assert_eq!(rcode(&none), Some(1));
    assert_eq!(rcode(&good[..good.len() - 1]), Some(1), "cut off");
    let mut pointer = good[..12].to_vec();
    pointer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(rcode(&pointer), Some(1), "a name that points to itself");
    let mut more = good.clone();
    more[11] = 1;
    assert_eq!(rcode(&more), Some(1), "an additional record that is not there");
    let mut two_opts = edns(query("a.b", RecordType::A), 4096).to_bytes().expect("query");
    let opt = two_opts[two_opts.len() - 11..].to_vec();
    two_opts.extend_from_slice(&opt);
    two_opts[11] = 2;
    assert_eq!(rcode(&two_opts), Some(1));

    assert_eq!(rcode(&good[..11]), None, "less than a header");
    let mut response = good;
    response[2] |= 0x80;
    assert_eq!(rcode(&response), None, "an answer is not answered");
}

#[test]
fn a_lookup_names_the_zone_that_answered_and_those_that_lost() {
    let mut plan = plan();
    let zones = compile(&plan);
    let told = lookup(&zones, APP, "S3.eu-west-1.amazonaws.com.", QType::A);
    assert_eq!(told.rcode, Some(Rcode::NoError));
    assert_eq!(told.addrs(), ips(&["10.0.1.20", "10.0.2.20"]));
    assert_eq!((told.ttl(), told.endpoint), (Some(60), Some(S3)));
    assert_eq!(told.by, Some(ZoneKind::PrivateDns { endpoint: S3 }));
    assert_eq!(told.answered_by, "private DNS of endpoint s3 (zone s3.eu-west-1.amazonaws.com)");
    assert_eq!(told.lost.iter().map(Lost::to_string).collect::<Vec<_>>(), ["public 198.18.0.16"]);
    assert_eq!((told.code(), told.notes.len()), (None, 0));

    let told = lookup(&zones, APP, "x.sqs.eu-west-1.amazonaws.com", QType::A);
    assert_eq!((told.code(), told.zone.as_str()), (Some("DNS_NXDOMAIN"), "sqs.eu-west-1.amazonaws.com"));
    assert_eq!(told.lost[0].to_string(), "public NXDOMAIN");
    assert_eq!(lookup(&zones, APP, "sqs.eu-west-1.amazonaws.com", QType::AAAA).code(), Some("DNS_NODATA"));

    let told = lookup(&zones, APP, "eu-west-1.queue.amazonaws.com", QType::A);
    assert_eq!(told.by, Some(ZoneKind::Public));
    assert_eq!(
        told.notes,
        ["a legacy name of sqs that private DNS of endpoint sqs does not cover; it covers sqs.eu-west-1.amazonaws.com"]
    );

    let regional = plan.endpoints[SQS].names.regional.clone();
    let told = lookup(&zones, OTHER, &regional, QType::A);
    assert_eq!(told.answered_by, "public name of endpoint app.sqs (zone eu-west-1.vpce.amazonaws.com)");
    assert_eq!((told.endpoint, told.lost.len()), (Some(SQS), 0));

    plan.endpoints[S3].private_dns = false;
    let told = lookup(&compile(&plan), APP, "reports.s3.eu-west-1.amazonaws.com", QType::A);
    assert_eq!(told.notes, ["endpoint s3 has this name, but its private_dns is off"]);

    let told = lookup(&zones, APP, "s3.eu-west-1.amazonaws.com", QType::SOA);
    assert_eq!(told.answers[0].data, SOA);
    let told = lookup(&zones, APP, "10.1.0.10.in-addr.arpa", QType::PTR);
    assert_eq!(told.answers[0].data, "ip-10-0-1-10.eu-west-1.compute.internal.");
    for odd in ["", "a..b", "bücher.example"] {
        assert_eq!(lookup(&zones, APP, odd, QType::A).code(), Some("DNS_NXDOMAIN"), "{odd}");
    }
    let json = serde_json::to_value(&told).expect("data");
    assert_eq!((&json["qtype"], &json["rcode"]), (&"PTR".into(), &"NOERROR".into()));
}

#[test]
fn names_of_an_endpoint_come_as_the_api_lists_them() {
    let mut plan = plan();
    let kinds = |plan: &crate::model::Plan| -> Vec<(NameKind, String, bool)> {
        names(plan, S3).into_iter().map(|n| (n.kind, n.name, n.active)).collect()
    };
    let listed = kinds(&plan);
    assert_eq!(listed[0], (NameKind::Regional, plan.endpoints[S3].names.regional.clone(), true));
    assert_eq!(listed[1].0, NameKind::Zonal);
    assert_eq!(listed[3], (NameKind::Private, "s3.eu-west-1.amazonaws.com".into(), true));
    assert_eq!(listed[4], (NameKind::Private, "*.s3.eu-west-1.amazonaws.com".into(), true));
    assert_eq!(listed.len(), 9);
    let ecr: Vec<String> = names(&plan, ECR).into_iter().map(|n| n.name).collect();
    assert_eq!(ecr[3..], ["*.dkr.ecr.eu-west-1.amazonaws.com"]);
    plan.endpoints[S3].private_dns = false;
    assert!(kinds(&plan)[3..].iter().all(|(_, _, active)| !active));
    assert!(names(&plan, 99).is_empty());
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_bytes().expect("query");
    [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
}

#[test]
fn tcp_sessions_take_queries_in_any_pieces_and_in_a_row() {
    let zones = compile(&plan());
    let two = [framed(&query("localhost", RecordType::A)), framed(&query("nothing", RecordType::A))].concat();
    let mut whole = Session::new();
    assert_eq!(whole.input(&zones, APP, &two, 1), two.len());
    let mut pieces = Session::new();
    for byte in &two {
        assert_eq!(pieces.input(&zones, APP, &[*byte], 1), 1);
    }
    assert_eq!(whole.output(), pieces.output());
    let first = usize::from(u16::from_be_bytes([whole.output()[0], whole.output()[1]]));
    assert_eq!(addrs(&Message::from_bytes(&whole.output()[2..2 + first]).expect("answer")), ips(&["127.0.0.1"]));
    whole.sent(2 + first);
    let second = Message::from_bytes(&whole.output()[2..]).expect("answer");
    assert_eq!(second.metadata.response_code, ResponseCode::NXDomain);
    assert!(!whole.ended());
}

#[test]
fn a_tcp_client_that_does_not_read_is_not_read_from() {
    let zones = compile(&plan());
    let one = framed(&query("localhost", RecordType::A));
    let many = one.repeat(1_000);
    let mut session = Session::new();
    let mut taken = session.input(&zones, APP, &many, 1);
    assert!(taken < many.len() && session.output().len() < 17 * 1024);
    let mut answered = 0;
    while taken < many.len() {
        answered += session.output().len();
        session.sent(usize::MAX);
        taken += session.input(&zones, APP, &many[taken..], 1);
    }
    answered += session.output().len();
    let mut single = Session::new();
    single.input(&zones, APP, &one, 1);
    assert_eq!(answered, 1_000 * single.output().len());
}

#[test]
fn a_tcp_session_ends_on_what_is_no_query() {
    let zones = compile(&plan());
    for garbage in [&[0, 0][..], &[0xff, 0xff, 1], &[0, 3, 1, 2, 3], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut session = Session::new();
        assert_eq!(session.input(&zones, APP, garbage, 1), garbage.len());
        assert!(session.ended() && session.output().is_empty(), "{garbage:?}");
    }
}

/// Labels that lead into, beside and below the compiled zones.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("s3".to_owned()),
        Just("sqs".to_owned()),
        Just("*".to_owned()),
        Just("bucket".to_owned()),
        Just("vpce".to_owned()),
        Just("queue".to_owned()),
        Just("ip-10-0-1-10".to_owned()),
        Just("10".to_owned()),
        "[a-zA-Z0-9_-]{1,20}",
    ]
}

fn tail() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("amazonaws.com"),
        Just("eu-west-1.amazonaws.com"),
        Just("s3.eu-west-1.amazonaws.com"),
        Just("eu-west-1.vpce.amazonaws.com"),
        Just("eu-west-1.compute.internal"),
        Just("10.in-addr.arpa"),
        Just("localhost"),
        Just("example"),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_get_garbage_back(bytes in prop::collection::vec(any::<u8>(), 0..300), seed: u64) {
        let zones = compile(&plan());
        let answer = raw(&zones, APP, &bytes, seed);
        if !answer.is_empty() {
            let parsed = Message::from_bytes(&answer).expect("parses");
            prop_assert_eq!(parsed.metadata.message_type, MessageType::Response);
        }
        Session::new().input(&zones, APP, &bytes, seed);
    }

    /// Queries of the right form with some bytes changed get further than noise does.
    #[test]
    fn damaged_queries_get_answers_that_parse(
        labels in prop::collection::vec(label(), 0..4), tail in tail(), rtype in any::<u16>(), size: u16,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), cut in 0usize..4,
    ) {
        let zones = compile(&plan());
        let name = labels.iter().map(String::as_str).chain([tail]).collect::<Vec<_>>().join(".");
        let mut bytes = edns(query(&name, RecordType::from(rtype)), size).to_bytes().expect("query");
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        let answer = raw(&zones, APP, &bytes, 1);
        if !answer.is_empty() {
            prop_assert!(Message::from_bytes(&answer).is_ok(), "{:?}", answer);
            prop_assert!(answer.len() <= 4096);
        }
    }

    /// The wire and the lookup are two views of one decision.
    #[test]
    fn lookup_tells_what_the_wire_says(labels in prop::collection::vec(label(), 0..3), tail in tail(), aaaa: bool, seed: u64) {
        let zones = compile(&plan());
        let name = labels.iter().map(String::as_str).chain([tail]).collect::<Vec<_>>().join(".");
        let (rtype, qtype) = if aaaa { (RecordType::AAAA, QType::AAAA) } else { (RecordType::A, QType::A) };
        let wire = ask(&zones, APP, &query(&name, rtype), seed);
        let told = lookup(&zones, APP, &name, qtype);
        prop_assert_eq!(wire.metadata.response_code.to_str(), hickory_text(told.rcode));
        let mut sorted = addrs(&wire);
        sorted.sort();
        let mut told_addrs = told.addrs();
        told_addrs.sort();
        prop_assert_eq!(sorted, told_addrs);
        prop_assert_eq!(wire.answers.len(), told.answers.len());
    }
}

fn hickory_text(rcode: Option<Rcode>) -> &'static str {
    match rcode {
        Some(Rcode::NoError) => ResponseCode::NoError.to_str(),
        _ => ResponseCode::NXDomain.to_str(),
    }
}

/// `web` has a public address and a database's name, `guest` a name without a public address; two hosts of the Internet
/// share one, and a third has AWS's.
fn named_hosts() -> model::Plan {
    use model::plan::{Home, InstanceHome, PeeringPlan, PublicAddressPlan};
    let mut plan = plan();
    let eni = plan.instances[fixture::WEB].enis[0];
    plan.public_addresses.push(PublicAddressPlan {
        common: model::plan::Common::default(),
        addr: Ipv4Addr::new(203, 0, 113, 7),
        eni,
        private: plan.eni(eni).ip,
        elastic: true,
    });
    plan.instances[fixture::WEB].names = vec!["db.x1.eu-west-1.rds.amazonaws.com".into()];
    plan.instances[fixture::GUEST].names = vec!["inner.x1.eu-west-1.rds.amazonaws.com".into()];
    for (ip, name) in [
        ("192.0.2.10", "www.example.com"),
        ("198.51.100.10", "WWW.example.com"),
        ("192.0.2.11", "downloads.example.co.uk"),
        ("192.0.2.12", "mirror.eu-west-1.amazonaws.com"),
    ] {
        let mut eni = plan.enis[0].clone();
        (eni.home, eni.ip) = (Home::Internet, ip.parse().expect("address"));
        let mut host = plan.instances[fixture::GUEST].clone();
        host.home = InstanceHome::Internet;
        host.enis = vec![base::EniIx(plan.enis.len() as u32)];
        host.names = vec![name.into()];
        plan.enis.push(eni);
        plan.instances.push(host);
    }
    plan.peerings.push(PeeringPlan {
        common: model::plan::Common::default(),
        requester: OTHER,
        accepter: APP,
        dns: false,
        same_region: true,
    });
    plan
}

#[test]
fn names_of_machines_mean_private_addresses_inside_and_public_ones_outside() {
    let mut plan = named_hosts();
    let zones = compile(&plan);
    let outside = plan.vpcs.len();
    const EC2: &str = "ec2-203-0-113-7.eu-west-1.compute.amazonaws.com";
    const DB: &str = "db.x1.eu-west-1.rds.amazonaws.com";
    for (view, name, rtype, expected) in [
        (APP, EC2, "A", "10.0.1.10"),
        (OTHER, EC2, "A", "203.0.113.7"),
        (outside, EC2, "A", "203.0.113.7"),
        (APP, DB, "A", "10.0.1.10"),
        (OTHER, DB, "A", "203.0.113.7"),
        (outside, DB, "A", "203.0.113.7"),
        (APP, EC2, "AAAA", &format!("NODATA {EC2}.")),
        (OTHER, EC2, "AAAA", "NODATA amazonaws.com."),
        // Not publicly accessible: everybody is told the private address.
        (APP, "inner.x1.eu-west-1.rds.amazonaws.com", "A", "10.0.2.10"),
        (outside, "inner.x1.eu-west-1.rds.amazonaws.com", "A", "10.0.2.10"),
        // Names in between neither hide AWS's own nor appear from nowhere.
        (APP, "x1.eu-west-1.rds.amazonaws.com", "A", "NODATA amazonaws.com."),
        (APP, "y1.eu-west-1.rds.amazonaws.com", "A", "NXDOMAIN amazonaws.com."),
        (APP, "ec2-203-0-113-8.eu-west-1.compute.amazonaws.com", "A", "NXDOMAIN amazonaws.com."),
        // Domains that are not AWS's have zones of their own, and only what the file names.
        (APP, "www.example.com", "A", "192.0.2.10 198.51.100.10"),
        (outside, "www.example.com", "A", "192.0.2.10 198.51.100.10"),
        (APP, "example.com", "A", "NODATA example.com."),
        (APP, "mail.example.com", "A", "NXDOMAIN example.com."),
        (APP, "www.example.org", "A", "NXDOMAIN ."),
        (OTHER, "downloads.example.co.uk", "A", "192.0.2.11"),
        (OTHER, "www.example.co.uk", "A", "NXDOMAIN example.co.uk."),
        (APP, "mirror.eu-west-1.amazonaws.com", "A", "192.0.2.12"),
        // The way back.
        (APP, "7.113.0.203.in-addr.arpa", "PTR", &format!("{EC2}.")),
        (outside, "11.2.0.192.in-addr.arpa", "PTR", "downloads.example.co.uk."),
        (outside, "99.2.0.192.in-addr.arpa", "PTR", "NXDOMAIN 2.0.192.in-addr.arpa."),
    ] {
        let rtype: RecordType = rtype.parse().expect("type");
        assert_eq!(verdict(&zones, view, name, rtype), expected, "view {view} {name} {rtype}");
    }
    // The catalogue's names beside and above a database's still are what they were.
    assert!(verdict(&zones, APP, "rds.eu-west-1.amazonaws.com", RecordType::A).starts_with("198.1"));
    let before = compile(&fixture::plan());
    for name in ["rds.amazonaws.com", "eu-west-1.rds.amazonaws.com", "compute.amazonaws.com"] {
        let was = verdict(&before, APP, name, RecordType::A);
        let now = verdict(&zones, APP, name, RecordType::A);
        assert!(now == was || (was.starts_with("NXDOMAIN") && now.starts_with("NODATA")), "{name}: {was}, now {now}");
    }

    // The DNS option of a peering needs both attributes on both sides.
    plan.peerings[0].dns = true;
    assert_eq!(verdict(&compile(&plan), OTHER, EC2, RecordType::A), "203.0.113.7", "other has no dns_hostnames");
    plan.vpcs[OTHER].dns_hostnames = true;
    let zones = compile(&plan);
    assert_eq!(verdict(&zones, OTHER, EC2, RecordType::A), "10.0.1.10");
    assert_eq!(verdict(&zones, OTHER, DB, RecordType::A), "10.0.1.10");
    assert_eq!(verdict(&zones, outside, EC2, RecordType::A), "203.0.113.7");
    let told = lookup(&zones, OTHER, EC2, QType::A);
    assert_eq!(told.lost[0].to_string(), "public 203.0.113.7");

    // Without dns_hostnames a public address has no name; in us-east-1 it has another.
    plan.vpcs[APP].dns_hostnames = false;
    assert_eq!(verdict(&compile(&plan), outside, EC2, RecordType::A), "NXDOMAIN amazonaws.com.");
    plan.vpcs[APP].dns_hostnames = true;
    plan.vpcs[APP].region = "us-east-1".into();
    let east = verdict(&compile(&plan), outside, "ec2-203-0-113-7.compute-1.amazonaws.com", RecordType::A);
    assert_eq!(east, "203.0.113.7");
}

#[test]
fn what_has_failed_is_left_out_of_answers_until_nothing_is_left() {
    use model::plan::{Fault, FaultPlan};
    let mut plan = plan();
    let fault = |what| FaultPlan { id: 0, title: String::new(), what, after: None, lasts: None };
    let said = |plan: &model::Plan, name: &str| verdict(&compile(plan), APP, name, RecordType::A);
    let (regional, zonal) = (plan.endpoints[SQS].names.regional.clone(), plan.endpoints[SQS].names.zonal.clone());
    let [a, b] = plan.endpoints[SQS].enis[..] else { panic!("two zones") };
    plan.faults = vec![fault(Fault::Endpoint { endpoint: SQS, enis: vec![a] })];
    assert_eq!(said(&plan, "sqs.eu-west-1.amazonaws.com"), "10.0.2.21");
    assert_eq!(said(&plan, &regional), "10.0.2.21");
    assert_eq!(said(&plan, &zonal[0].1), "10.0.1.21", "a zonal name has one address, which no longer answers");
    assert_eq!(said(&plan, "s3.eu-west-1.amazonaws.com"), "10.0.1.20 10.0.2.20");
    plan.faults = vec![fault(Fault::Zone { az_id: "euw1-az2".into() })];
    assert_eq!(said(&plan, "sqs.eu-west-1.amazonaws.com"), "10.0.1.21");
    assert_eq!(said(&plan, "s3.eu-west-1.amazonaws.com"), "10.0.1.20");
    plan.faults = vec![fault(Fault::Endpoint { endpoint: SQS, enis: vec![a, b] })];
    assert_eq!(said(&plan, "sqs.eu-west-1.amazonaws.com"), "10.0.1.21 10.0.2.21");
}
