//! Topologies that come with the program.

use super::spec::source::Source;

const DEMO: &str = include_str!("../../topologies/demo.yaml");

/// Kinds of starter files, each with what it is for; the first is the usual one.
pub const KINDS: &[(&str, &str)] = &[
    ("private", "private subnets and interface endpoints"),
    ("minimal", "one instance, one endpoint"),
    ("peers", "two instances, network ACLs and security groups"),
    ("demo", "what `vpclab demo` runs"),
];

/// A commented file for `vpclab init [KIND]`.
pub fn starter(kind: &str) -> Option<&'static str> {
    match kind {
        "" | "private" => Some(include_str!("starters/private.yaml")),
        "minimal" => Some(include_str!("starters/minimal.yaml")),
        "peers" => Some(include_str!("starters/peers.yaml")),
        "demo" => Some(DEMO),
        _ => None,
    }
}

/// The built-in topology of `vpclab demo`.
pub fn demo() -> Source {
    Source::new("demo.yaml", DEMO)
}

#[cfg(test)]
mod tests {
    use super::super::{Around, load};
    use super::*;

    #[test]
    fn every_starter_is_a_good_topology_without_warnings() {
        for (kind, _) in KINDS {
            let text = starter(kind).expect(kind);
            let loaded = load(&[Source::new("lab.vpclab.yaml", text)], &Around::default());
            let loaded = loaded.unwrap_or_else(|r| panic!("{kind}:\n{}", r.render(false)));
            assert!(loaded.warnings.is_empty(), "{kind}:\n{}", loaded.warnings.render(false));
        }
        assert_eq!(starter("nothing"), None);
        assert_eq!(starter(""), starter(KINDS[0].0));
    }
}
