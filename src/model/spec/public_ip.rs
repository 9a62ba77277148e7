//! Which public address each name gets: the same in every run, whatever the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::names::{Kind, Names};
use crate::base::Cidr;
use crate::base::ids::stable_hash;

/// Public addresses of labs (RFC 5737, TEST-NET-3).
pub const BLOCK: Cidr = Cidr::containing(Ipv4Addr::new(203, 0, 113, 0), 24);

/// Addresses that the block has for interfaces: neither the first nor the last.
const USABLE: u32 = 254;

/// The addresses of the file's Elastic IPs, by name.
pub fn elastic(names: &Names) -> BTreeMap<String, Ipv4Addr> {
    let named = names.list(Kind::ElasticIp).iter().map(|n| n.path.clone());
    assign(named, &BTreeSet::new())
}

/// Each name's address, none of them in `taken`. A name begins at the place its hash says and takes the next free one,
/// in the order of the names; those for which none is left are left out.
pub fn assign(names: impl IntoIterator<Item = String>, taken: &BTreeSet<Ipv4Addr>) -> BTreeMap<String, Ipv4Addr> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let mut used: BTreeSet<Ipv4Addr> = taken.clone();
    let mut given = BTreeMap::new();
    for name in names {
        let start = stable_hash(&["public address", &name]) as u32 % USABLE;
        let places = (0..USABLE).map(|n| BLOCK.network().to_bits() + 1 + (start + n) % USABLE);
        if let Some(addr) = places.map(Ipv4Addr::from_bits).find(|addr| !used.contains(addr)) {
            used.insert(addr);
            given.insert(name, addr);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_addresses_as_the_block_has_and_the_order_of_names_is_no_matter() {
        let names: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
        let given = assign(names.clone(), &BTreeSet::new());
        assert_eq!(given.len(), 254);
        let addresses: BTreeSet<Ipv4Addr> = given.values().copied().collect();
        assert_eq!(addresses.len(), 254, "none twice");
        assert!(addresses.iter().all(|a| BLOCK.contains(*a) && *a != BLOCK.network() && *a != BLOCK.last()));
        assert_eq!(given, assign(names.into_iter().rev(), &BTreeSet::new()));
        assert!(assign(["x".to_owned()], &addresses).is_empty());
    }
}
