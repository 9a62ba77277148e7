//! Does an answer from compiled zones allocate? It must not: it is made in the router thread.

use vpclab::dns::{self, Transport};
use vpclab::{base, model};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/two_zones.rs"]
#[allow(dead_code, reason = "shared")]
mod fixture;
#[path = "support/query.rs"]
mod query;

use query::query;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn answers_of_compiled_zones_allocate_nothing() {
    let plan = fixture::plan();
    let zones = dns::compile(&plan);
    let regional = plan.endpoints[fixture::SQS].names.regional.clone();
    for (name, qtype) in [
        ("s3.eu-west-1.amazonaws.com", 1),
        ("reports.s3.eu-west-1.amazonaws.com", 1),
        ("s3.eu-west-1.amazonaws.com", 28),
        ("s3.eu-west-1.amazonaws.com", 255),
        ("x.sqs.eu-west-1.amazonaws.com", 1),
        (regional.as_str(), 1),
        ("sts.us-east-1.amazonaws.com", 1),
        ("ip-10-0-1-10.eu-west-1.compute.internal", 1),
        ("10.1.0.10.in-addr.arpa", 12),
        ("example.com", 1),
        ("localhost", 28),
    ] {
        let query = query(name, qtype, true);
        let mut out = [0; 4096];
        // The catalogue builds its index at the first question.
        assert!(zones.answer(fixture::APP, &query, 0, &mut out, Transport::Udp) > 0);
        let count = counting::allocations(|| {
            for seed in 0..100 {
                assert!(zones.answer(fixture::APP, &query, seed, &mut out, Transport::Udp) > 0);
            }
        });
        assert_eq!(count, 0, "{name} {qtype}");
    }
    assert!(counting::allocations(|| drop(vec![1u8])) > 0, "the counter counts");
}
