//! How long packets take in AWS: the data of `latency: aws`, in `latency.txt`. Typical figures that AWS does not promise;
//! every report of a lab that uses them says so.

use std::time::Duration;

use super::Plan;
use super::plan::Latency;

/// What a packet passes on its way. The delays of a path's parts add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// Between two ENIs of one zone.
    SameZone,
    /// Between two zones of a region.
    CrossZone,
    /// A peering within a region. Between regions see [`between_regions`].
    Peering,
    TransitGateway,
    /// A VPN, over the Internet.
    Vpn,
    DirectConnect,
    NatGateway,
    InterfaceEndpoint,
    GatewayEndpoint,
    /// Through an Internet gateway to what AWS has outside VPCs in the same region.
    Public,
    /// To a host that is not AWS's.
    Internet,
}

impl PathKind {
    pub const ALL: [PathKind; 11] = [
        PathKind::SameZone,
        PathKind::CrossZone,
        PathKind::Peering,
        PathKind::TransitGateway,
        PathKind::Vpn,
        PathKind::DirectConnect,
        PathKind::NatGateway,
        PathKind::InterfaceEndpoint,
        PathKind::GatewayEndpoint,
        PathKind::Public,
        PathKind::Internet,
    ];

    /// As the data file and reports name it: `cross-zone`.
    pub const fn as_str(self) -> &'static str {
        match self {
            PathKind::SameZone => "same-zone",
            PathKind::CrossZone => "cross-zone",
            PathKind::Peering => "peering",
            PathKind::TransitGateway => "transit-gateway",
            PathKind::Vpn => "vpn",
            PathKind::DirectConnect => "direct-connect",
            PathKind::NatGateway => "nat",
            PathKind::InterfaceEndpoint => "endpoint",
            PathKind::GatewayEndpoint => "gateway-endpoint",
            PathKind::Public => "public",
            PathKind::Internet => "internet",
        }
    }
}

/// What every report says where these delays are on: `aws (typical delays of AWS, not promised by AWS)`.
pub fn note(plan: &Plan) -> Option<&'static str> {
    (plan.latency == Latency::Aws).then_some("aws (typical delays of AWS, not promised by AWS)")
}

const DATA: &str = include_str!("latency.txt");

/// The delay of one part of a path, in one direction.
pub fn one_way(kind: PathKind) -> Duration {
    let micros = lines().find_map(|line| match line {
        [name, micros] if *name == kind.as_str() => number(micros),
        _ => None,
    });
    Duration::from_micros(micros.unwrap_or_default())
}

/// The delay between two regions, in one direction, the same both ways: zero within one region; `None` for a region
/// that the data does not know.
pub fn between_regions(a: &str, b: &str) -> Option<Duration> {
    let (from, to) = (place(a)?, place(b)?);
    if a == b {
        return Some(Duration::ZERO);
    }
    let measured = lines().find_map(|line| match line {
        [x, y, micros] if (*x == a && *y == b) || (*x == b && *y == a) => number(micros),
        _ => None,
    });
    Some(Duration::from_micros(measured.unwrap_or_else(|| estimate(from, to))))
}

/// Fields of the lines that say something.
fn lines() -> impl Iterator<Item = &'static [&'static str]> {
    static LINES: std::sync::LazyLock<Vec<Vec<&str>>> = std::sync::LazyLock::new(|| {
        let fields = DATA.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect());
        fields.filter(|fields: &Vec<&str>| !fields.is_empty()).collect()
    });
    LINES.iter().map(Vec::as_slice)
}

fn number(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// Latitude and longitude of a region, in degrees.
fn place(region: &str) -> Option<(f64, f64)> {
    lines().find_map(|line| match line {
        ["at", name, latitude, longitude] if *name == region => Some((latitude.parse().ok()?, longitude.parse().ok()?)),
        _ => None,
    })
}

/// Microseconds, in whole milliseconds, so that every machine's arithmetic agrees.
fn estimate(from: (f64, f64), to: (f64, f64)) -> u64 {
    /// Microseconds that light in glass needs for a kilometre, and that cables are longer than the great circle.
    const MICROS_PER_KM: f64 = 5.0 * 1.3;
    const LEAST: f64 = 4_000.0;
    const EARTH_RADIUS_KM: f64 = 6_371.0;
    let ((lat1, lon1), (lat2, lon2)) = (from, to);
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let h = half(lat1, lat2) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lon1, lon2);
    let km = 2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin();
    ((LEAST + km * MICROS_PER_KM) / 1_000.0).round() as u64 * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::regions;

    #[test]
    fn every_line_of_the_data_is_read_and_every_kind_has_one() {
        for line in lines() {
            let is_region = |name: &str| regions().any(|region| region.name == name);
            let known = match line {
                [kind, micros] => PathKind::ALL.iter().any(|k| k.as_str() == *kind) && number(micros).is_some(),
                ["at", region, ..] => is_region(region) && place(region).is_some() && line.len() == 4,
                [a, b, micros] => is_region(a) && is_region(b) && a != b && number(micros).is_some(),
                _ => false,
            };
            assert!(known, "{line:?}");
        }
        for kind in PathKind::ALL {
            assert_eq!(lines().filter(|line| line.len() == 2 && line[0] == kind.as_str()).count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn kinds_are_in_the_order_that_everybody_sees() {
        use PathKind::*;
        let of = |kinds: &[PathKind]| kinds.iter().map(|kind| one_way(*kind)).sum::<Duration>();
        assert!(of(&[SameZone]) > Duration::ZERO && of(&[SameZone]) < of(&[CrossZone]));
        assert!(of(&[CrossZone]) * 2 < Duration::from_millis(2), "zones are under 2 ms apart there and back");
        assert_eq!(of(&[Peering]), Duration::ZERO, "a peering is no hop");
        assert!(of(&[CrossZone, TransitGateway]) < of(&[DirectConnect]));
        assert!(of(&[DirectConnect]) < of(&[Vpn]) && of(&[Vpn]) < of(&[Internet]) * 2);
        assert!(of(&[Public]) < of(&[Internet]));
    }

    #[test]
    fn every_pair_of_regions_has_a_delay_and_it_is_the_same_both_ways() {
        for a in regions() {
            for b in regions() {
                let delay = between_regions(a.name, b.name).expect(a.name);
                assert_eq!(Some(delay), between_regions(b.name, a.name));
                let range = Duration::from_millis(4)..Duration::from_millis(150);
                assert!(a == b && delay.is_zero() || range.contains(&delay), "{} {} {delay:?}", a.name, b.name);
            }
        }
        assert_eq!(between_regions("eu-west-1", "us-east-1"), Some(Duration::from_millis(34)));
        assert_eq!(between_regions("eu-west-1", "mars-1"), None);
    }

    /// Is the formula for unmeasured pairs near the measured ones?
    #[test]
    fn the_estimate_follows_the_measured_pairs() {
        for line in lines() {
            let [a, b, micros] = line else { continue };
            let measured = number(micros).expect("a number");
            let estimated = estimate(place(a).expect(a), place(b).expect(b));
            let off = measured.abs_diff(estimated);
            assert!(off < 10_000 || off * 3 < measured, "{a} {b}: measured {measured}, estimated {estimated}");
        }
    }
}
