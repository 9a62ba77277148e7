//! `latency: aws`: typical delays of each kind of path, from a data file.

use std::time::Duration;

static DATA: &str = include_str!("latency.txt");

/// What a packet may pass that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    SameZone,
    CrossZone,
    Peering,
    InterRegion,
    TransitGateway,
    Vpn,
    DirectConnect,
    NatGateway,
    InterfaceEndpoint,
    GatewayEndpoint,
    Internet,
}

impl PathKind {
    pub const ALL: [PathKind; 11] = [
        PathKind::SameZone,
        PathKind::CrossZone,
        PathKind::Peering,
        PathKind::InterRegion,
        PathKind::TransitGateway,
        PathKind::Vpn,
        PathKind::DirectConnect,
        PathKind::NatGateway,
        PathKind::InterfaceEndpoint,
        PathKind::GatewayEndpoint,
        PathKind::Internet,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            PathKind::SameZone => "same-zone",
            PathKind::CrossZone => "cross-zone",
            PathKind::Peering => "peering",
            PathKind::InterRegion => "inter-region",
            PathKind::TransitGateway => "transit-gateway",
            PathKind::Vpn => "vpn",
            PathKind::DirectConnect => "direct-connect",
            PathKind::NatGateway => "nat-gateway",
            PathKind::InterfaceEndpoint => "interface-endpoint",
            PathKind::GatewayEndpoint => "gateway-endpoint",
            PathKind::Internet => "internet",
        }
    }
}

/// The typical delay one way of passing it; zero for what the file does not name.
pub fn one_way(kind: PathKind) -> Duration {
    let lines = DATA.lines().filter(|line| !line.starts_with('#'));
    let micros = lines.filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == kind.as_str());
    Duration::from_micros(micros.and_then(|(_, micros)| micros.trim().parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_path_has_a_delay_and_farther_is_longer() {
        for kind in PathKind::ALL {
            assert!(!one_way(kind).is_zero(), "{}", kind.as_str());
        }
        assert!(one_way(PathKind::SameZone) < one_way(PathKind::CrossZone));
        assert!(one_way(PathKind::CrossZone) < one_way(PathKind::InterRegion));
    }
}
