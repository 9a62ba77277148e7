//! The regions of AWS's commercial partition, their zones and short forms.

/// One region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// `eu-west-1`.
    pub name: &'static str,
    /// How many zone letters an account sees there, from `a` on.
    pub zones: u8,
}

/// Name and number of zones. Only grows at its end: the place in this list is part of a service's public address.
const REGIONS: &[(&str, u8)] = &[
    ("eu-west-1", 3),
    ("us-east-1", 6),
    ("us-east-2", 3),
    ("us-west-1", 3),
    ("us-west-2", 4),
    ("af-south-1", 3),
    ("ap-east-1", 3),
    ("ap-east-2", 3),
    ("ap-northeast-1", 4),
    ("ap-northeast-2", 4),
    ("ap-northeast-3", 3),
    ("ap-south-1", 3),
    ("ap-south-2", 3),
    ("ap-southeast-1", 3),
    ("ap-southeast-2", 3),
    ("ap-southeast-3", 3),
    ("ap-southeast-4", 3),
    ("ap-southeast-5", 3),
    ("ap-southeast-6", 3),
    ("ap-southeast-7", 3),
    ("ca-central-1", 4),
    ("ca-west-1", 3),
    ("eu-central-1", 3),
    ("eu-central-2", 3),
    ("eu-north-1", 3),
    ("eu-south-1", 3),
    ("eu-south-2", 3),
    ("eu-west-2", 3),
    ("eu-west-3", 3),
    ("il-central-1", 3),
    ("me-central-1", 3),
    ("me-south-1", 3),
    ("mx-central-1", 3),
    ("sa-east-1", 3),
];

/// All regions, in the order of their public addresses.
pub fn regions() -> impl Iterator<Item = Region> {
    REGIONS.iter().map(|&(name, zones)| Region { name, zones })
}

/// A region by name.
pub fn region(name: &str) -> Option<Region> {
    index(name).map(|at| Region { name: REGIONS[at].0, zones: REGIONS[at].1 })
}

/// Place in the list.
pub(super) fn index(name: &str) -> Option<usize> {
    REGIONS.iter().position(|(r, _)| *r == name)
}

pub(super) fn name_at(index: usize) -> &'static str {
    REGIONS[index].0
}

impl Region {
    /// The zone id that a letter gets where the file maps none: `a` is `euw1-az1`. (AWS shuffles them per account.)
    pub fn zone_id(self, letter: char) -> String {
        format!("{}-az{}", self.short(), (letter as u32).saturating_sub('a' as u32) + 1)
    }

    /// `euw1`, `apne2`: the prefix of zone ids.
    pub fn short(self) -> String {
        let mut parts = self.name.split('-');
        let area = parts.next().unwrap_or_default();
        let direction = match parts.next().unwrap_or_default() {
            "northeast" => "ne",
            "southeast" => "se",
            "northwest" => "nw",
            "southwest" => "sw",
            other => other.get(..1).unwrap_or_default(),
        };
        format!("{area}{direction}{}", parts.next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_have_awss_form() {
        let id = |r: &str, l| region(r).expect(r).zone_id(l);
        assert_eq!(id("us-east-1", 'a'), "use1-az1");
        assert_eq!(id("eu-west-1", 'c'), "euw1-az3");
        assert_eq!(id("ap-northeast-2", 'b'), "apne2-az2");
        assert_eq!(id("ap-southeast-4", 'a'), "apse4-az1");
        assert_eq!(id("ca-central-1", 'd'), "cac1-az4");
    }

    #[test]
    fn no_region_twice() {
        for (at, r) in regions().enumerate() {
            assert_eq!(index(r.name), Some(at));
        }
    }
}
