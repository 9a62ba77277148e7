//! What a packet may cost: the cases that are timed, and whose instructions are counted. Includers provide `pipeline`.

use std::hint::black_box;
use std::net::Ipv4Addr;

use vpclab::base::Cidr;
use vpclab::engine::Lpm;

use super::pipeline::Work;

pub struct Case {
    pub name: &'static str,
    /// What is done once for a packet.
    pub make: fn() -> Box<dyn FnMut()>,
}

pub const CASES: [Case; 9] = [
    Case { name: "hit", make: || packet(Work::hit(false)) },
    Case { name: "hit-nat", make: || packet(Work::hit(true)) },
    Case { name: "miss-10-rules", make: || packet(Work::miss(10)) },
    Case { name: "miss-1000-rules", make: || packet(Work::miss(1_000)) },
    Case { name: "miss-10-tgw-routes", make: || packet(Work::transit(10)) },
    Case { name: "miss-10000-tgw-routes", make: || packet(Work::transit(10_000)) },
    Case { name: "drop", make: || packet(Work::drop()) },
    Case { name: "lookup-10-routes", make: || routes(10) },
    Case { name: "lookup-10000-routes", make: || routes(10_000) },
];

fn packet(mut work: Work) -> Box<dyn FnMut()> {
    Box::new(move || work.run())
}

/// Longest prefix of addresses at random: blocks of /24 and longer ones in them, as routes of many VPCs are.
fn routes(routes: u32) -> Box<dyn FnMut()> {
    let block = |n: u32| {
        let len = if n.is_multiple_of(4) { 26 } else { 24 };
        (Cidr::containing(Ipv4Addr::from_bits(0x0a00_0000 + n * 0x180), len), n)
    };
    let table = Lpm::new(&(0..routes).map(block).collect::<Vec<_>>());
    let (mut random, span) = (1u64, u64::from(routes) * 0x180);
    Box::new(move || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        black_box(table.lookup(0x0a00_0000 + (((random >> 32) * span) >> 32) as u32));
    })
}
