//! For the tests of all rooms above: plans of topologies that must be good.

use super::{Around, Plan, Source, load};

/// Of a topology and of patches over it.
#[track_caller]
pub fn plan_of(texts: &[&str]) -> Plan {
    let sources: Vec<Source> =
        texts.iter().enumerate().map(|(at, text)| Source::new(format!("{at}.vpclab.yaml"), *text)).collect();
    load(&sources, &Around::default()).unwrap_or_else(|report| panic!("{}", report.render(false))).plan
}
