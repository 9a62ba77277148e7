//! Answers of the resolver, a query in and an answer out, with allocations counted: zero for each, or the bench fails.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use vpclab::dns::{self, QType, Transport};
use vpclab::{base, model};

#[path = "../tests/support/counting.rs"]
mod counting;
#[path = "../tests/support/two_zones.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod fixture;
#[path = "../tests/support/query.rs"]
mod query;

use query::query;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn answers(criterion: &mut Criterion) {
    let plan = fixture::plan();
    let zones = dns::compile(&plan);
    let mut group = criterion.benchmark_group("dns answer");
    for (what, name, qtype) in [
        ("private name", "s3.eu-west-1.amazonaws.com", QType::A),
        ("private wildcard", "reports.s3.eu-west-1.amazonaws.com", QType::A),
        ("NODATA", "s3.eu-west-1.amazonaws.com", QType::AAAA),
        ("NXDOMAIN", "x.sqs.eu-west-1.amazonaws.com", QType::A),
        ("endpoint name", plan.endpoints[fixture::SQS].names.regional.as_str(), QType::A),
        ("instance name", "ip-10-0-1-10.eu-west-1.compute.internal", QType::A),
        ("public name", "sts.us-east-1.amazonaws.com", QType::A),
        ("unknown name", "www.example.com", QType::A),
    ] {
        let query = query(name, qtype.0, false);
        let mut out = [0; 4096];
        let mut seed = 0;
        let mut answer = || {
            seed += 1;
            zones.answer(fixture::APP, black_box(&query), seed, &mut out, Transport::Udp)
        };
        assert!(answer() > 0, "{name}");
        let count = counting::allocations(|| {
            for _ in 0..1_000 {
                answer();
            }
        });
        assert_eq!(count, 0, "{name}: allocations in 1,000 answers");
        group.bench_function(what, |bencher| bencher.iter(&mut answer));
    }
    group.finish();
}

criterion_group!(benches, answers);
criterion_main!(benches);
