//! Does deciding a packet allocate, and what does a flow cost? It is done in the router thread, for every packet.

use vpclab::{base, model};

#[path = "../src/engine/tests/builder.rs"]
#[allow(dead_code, reason = "the engine's own tests use the rest")]
mod builder;
#[path = "support/counting.rs"]
mod counting;
#[path = "support/pipeline.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod pipeline;

use std::time::Duration;

use base::Instant;
use pipeline::{MILLION, Million, To, Work};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Tables have their sizes after the first packets; from then on nothing allocates, whatever happens to a packet.
#[test]
fn no_packet_allocates() {
    for (name, mut work) in [
        ("a hit", Work::hit(false)),
        ("a hit through a NAT gateway", Work::hit(true)),
        ("a new flow and the end of an old one", Work::miss(10)),
        ("a new flow through a transit gateway", Work::transit(10)),
        ("a drop", Work::drop()),
    ] {
        let mut some = || (0..15_000).for_each(|_| work.run());
        some();
        assert_eq!(counting::allocations(some), 0, "{name}");
    }
    assert!(counting::allocations(|| drop(vec![1u8])) > 0, "the counter counts");
}

/// Entry, index, timer, port of the NAT gateway: all that an engine holds more than an empty one does.
#[test]
fn a_million_flows_cost_160_bytes_each() {
    for to in [To::Peer, To::Host] {
        let each = bytes_of_a_flow(to);
        assert!((100.0..=160.0).contains(&each), "{each} bytes a flow, {to:?}");
    }
}

/// A NAT gateway counts bindings by destination, so one that no other flow shares costs a record of its own.
#[test]
fn a_destination_of_its_own_behind_a_nat_gateway_costs_48_bytes_more() {
    let each = bytes_of_a_flow(To::Hosts);
    assert!((160.0..=208.0).contains(&each), "{each} bytes a flow");
}

fn bytes_of_a_flow(to: To) -> f64 {
    let mut flows = Million::new(to, Duration::from_secs(30));
    let ((), bytes) = counting::held(|| {
        for n in 0..MILLION {
            flows.begin(Instant::from_millis(1), n);
        }
    });
    assert_eq!(flows.engine.flow_count(), MILLION as usize);
    bytes as f64 / f64::from(MILLION)
}
