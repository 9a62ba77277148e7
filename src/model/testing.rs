//! For the tests of all rooms above: plans of topologies that must be good.

use super::{Around, Plan, Source, load};

/// Of a topology and of patches over it; an empty one is none.
#[track_caller]
pub fn plan_of(texts: &[&str]) -> Plan {
    let texts = texts.iter().filter(|text| !text.is_empty()).enumerate();
    let sources: Vec<Source> = texts.map(|(at, text)| Source::new(format!("{at}.vpclab.yaml"), *text)).collect();
    load(&sources, &Around::default()).unwrap_or_else(|report| panic!("{}", report.render(false))).plan
}
