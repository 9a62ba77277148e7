//! Security groups and network ACLs, compiled for matching.
//!
//! The groups of an ENI are a union of allow rules: the answer is the first rule, in the order of the ENI's groups,
//! that matches, and whether any rule open to `0.0.0.0/0` does (AWS does not track such flows when the way back is
//! as open). Rules are sorted out by protocol. For each protocol, rules for `0.0.0.0/0` need only a search by port;
//! the others are tried one by one while few, else found by address range and then by port.

use std::collections::{BTreeSet, HashMap};

use super::lpm::{NONE, Ranges};
use crate::base::{Cidr, Proto};
use crate::model::plan::{NaclRule, SgPeer, SgRule, TrafficMatch};

/// AWS shows the final deny of a network ACL, `*`, as this number.
pub const NACL_STAR: u16 = 32_767;

/// What rules look at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub proto: Proto,
    /// TCP and UDP: the destination port. ICMP: type times 256 plus code. Others: 0.
    pub selector: u16,
    pub src: u32,
    pub dst: u32,
}

/// The answer of an ENI's security groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgMatch {
    /// Index in `Plan::security_groups`.
    pub group: u32,
    /// Index of the rule in its direction.
    pub rule: u32,
    /// Some rule that matches is open to every address.
    pub open: bool,
}

/// All rules of one direction of a list of groups.
#[derive(Clone, Debug)]
pub struct SgTable {
    tcp: Matcher,
    udp: Matcher,
    icmp: Matcher,
    /// Protocols that rules name by number.
    other: Box<[(Proto, Matcher)]>,
    /// Rules for every protocol: what all protocols not named above are asked.
    any: Matcher,
    /// A rule allows TCP (UDP) on all ports from or to everywhere.
    open_tcp: bool,
    open_udp: bool,
    /// Group and rule, by position in the order of the ENI's groups.
    names: Box<[(u32, u32)]>,
}

impl SgTable {
    /// `rules`: group index, rule index and rule, in the order in which they decide. `members`: the addresses of the
    /// ENIs that carry a group, by group index.
    pub fn new<'a>(rules: impl Iterator<Item = (usize, usize, &'a SgRule)>, members: &[Vec<u32>]) -> SgTable {
        let rules: Vec<(usize, usize, &SgRule)> = rules.collect();
        let cells = |proto: Option<Proto>| {
            let mut cells = Vec::new();
            for (order, (_, _, rule)) in rules.iter().enumerate() {
                if rule.matches.proto.is_none() || rule.matches.proto == proto {
                    add_cells(&mut cells, order as u32, rule, members);
                }
            }
            Matcher::new(cells)
        };
        let open = |proto: Proto| {
            rules.iter().any(|(_, _, rule)| {
                let m = &rule.matches;
                let everywhere = rule.peer == SgPeer::Cidr(Cidr::ANY);
                everywhere && (m.proto.is_none() || (m.proto == Some(proto) && m.ports.is_all()))
            })
        };
        let mut named: Vec<Proto> = rules.iter().filter_map(|(_, _, rule)| rule.matches.proto).collect();
        named.sort_unstable();
        named.dedup();
        named.retain(|p| !matches!(*p, Proto::TCP | Proto::UDP | Proto::ICMP));
        SgTable {
            tcp: cells(Some(Proto::TCP)),
            udp: cells(Some(Proto::UDP)),
            icmp: cells(Some(Proto::ICMP)),
            other: named.into_iter().map(|p| (p, cells(Some(p)))).collect(),
            any: cells(None),
            open_tcp: open(Proto::TCP),
            open_udp: open(Proto::UDP),
            names: rules.iter().map(|(group, rule, _)| (*group as u32, *rule as u32)).collect(),
        }
    }

    /// Which rule allows traffic with this peer, if one does.
    #[inline]
    pub fn lookup(&self, proto: Proto, selector: u16, peer: u32) -> Option<SgMatch> {
        let matcher = match proto {
            Proto::TCP => &self.tcp,
            Proto::UDP => &self.udp,
            Proto::ICMP => &self.icmp,
            _ => self.other.iter().find(|(p, _)| *p == proto).map_or(&self.any, |(_, m)| m),
        };
        let (order, open) = matcher.lookup(selector, peer)?;
        let (group, rule) = self.names[order as usize];
        Some(SgMatch { group, rule, open })
    }

    /// Does a rule allow every port of this protocol from or to everywhere? Only TCP and UDP can be untracked.
    #[inline]
    pub fn open_to_all(&self, proto: Proto) -> bool {
        match proto {
            Proto::TCP => self.open_tcp,
            Proto::UDP => self.open_udp,
            _ => false,
        }
    }
}

/// A network ACL's direction: the first row that matches decides.
#[derive(Clone, Debug)]
pub struct NaclTable {
    rows: Box<[NaclRow]>,
}

#[derive(Clone, Copy, Debug)]
struct NaclRow {
    net: u32,
    mask: u32,
    first: u16,
    last: u16,
    proto: Option<Proto>,
    number: u16,
    allow: bool,
}

impl NaclTable {
    /// `rules` by ascending number.
    pub fn new(rules: &[NaclRule]) -> NaclTable {
        let row = |rule: &NaclRule| {
            let (first, last) = selectors(&rule.matches);
            NaclRow {
                net: rule.peer.network().to_bits(),
                mask: rule.peer.mask().to_bits(),
                first,
                last,
                proto: rule.matches.proto,
                number: rule.number,
                allow: rule.allow,
            }
        };
        NaclTable { rows: rules.iter().map(row).collect() }
    }

    /// Allowed or not, and the number of the rule that says so.
    #[inline]
    pub fn decide(&self, proto: Proto, selector: u16, peer: u32) -> (bool, u16) {
        let hit = self.rows.iter().find(|row| {
            peer & row.mask == row.net
                && row.proto.is_none_or(|p| p == proto)
                && (row.first..=row.last).contains(&selector)
        });
        hit.map_or((false, NACL_STAR), |row| (row.allow, row.number))
    }
}

/// The values of `Traffic::selector` that a rule means. Ports count only for TCP and UDP; AWS has no ICMP code
/// without a type, so a code beside "any type" is ignored.
fn selectors(m: &TrafficMatch) -> (u16, u16) {
    match (m.proto, m.icmp) {
        (Some(Proto::TCP | Proto::UDP), _) => (m.ports.first, m.ports.last),
        (Some(Proto::ICMP), (Some(kind), None)) => (u16::from(kind) << 8, u16::from(kind) << 8 | 0xff),
        (Some(Proto::ICMP), (Some(kind), Some(code))) => {
            let one = u16::from(kind) << 8 | u16::from(code);
            (one, one)
        }
        _ => (0, u16::MAX),
    }
}

/// One rule for one block of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    net: u32,
    mask: u32,
    first: u16,
    last: u16,
    /// Position of the rule: the lowest that matches is named.
    order: u32,
}

impl Cell {
    fn last_addr(&self) -> u32 {
        self.net | !self.mask
    }
}

fn add_cells(cells: &mut Vec<Cell>, order: u32, rule: &SgRule, members: &[Vec<u32>]) {
    let (first, last) = selectors(&rule.matches);
    match rule.peer {
        SgPeer::Cidr(cidr) => {
            cells.push(Cell { net: cidr.network().to_bits(), mask: cidr.mask().to_bits(), first, last, order });
        }
        // Expanded by whoever compiles the plan.
        SgPeer::PrefixList(_) => {}
        SgPeer::Group(group) => {
            let addrs = members.get(group).map_or(&[][..], |m| m.as_slice());
            cells.extend(addrs.iter().map(|addr| Cell { net: *addr, mask: u32::MAX, first, last, order }));
        }
    }
}

/// More cells than this are searched by address range.
const LINEAR_MAX: usize = 16;
/// Cells of all address ranges together, above which a matcher stays linear: a bound on memory, far over AWS's
/// quota of 1,000 rules per ENI in any order that people write.
const INDEX_MAX: usize = 2_000_000;

#[derive(Clone, Debug)]
struct Matcher {
    /// Rules for `0.0.0.0/0`.
    wide: Ports,
    narrow: Narrow,
}

#[derive(Clone, Debug)]
enum Narrow {
    /// In deciding order.
    Linear(Box<[Cell]>),
    /// Which list of rules covers an address, and the lists.
    Indexed { addrs: Ranges, lists: Box<[Ports]> },
}

impl Matcher {
    fn new(cells: Vec<Cell>) -> Matcher {
        let (wide, narrow): (Vec<Cell>, Vec<Cell>) = cells.into_iter().partition(|c| c.mask == 0);
        Matcher { wide: Ports::new(&wide), narrow: Narrow::new(narrow) }
    }

    /// Position of the first rule that matches, and whether one for `0.0.0.0/0` does.
    #[inline]
    fn lookup(&self, selector: u16, peer: u32) -> Option<(u32, bool)> {
        let wide = self.wide.lookup(selector);
        let narrow = match &self.narrow {
            Narrow::Linear(cells) => cells
                .iter()
                .find(|c| peer & c.mask == c.net && (c.first..=c.last).contains(&selector))
                .map_or(NONE, |c| c.order),
            Narrow::Indexed { addrs, lists } => {
                addrs.lookup(peer).map_or(NONE, |list| lists[list as usize].lookup(selector))
            }
        };
        let order = wide.min(narrow);
        (order != NONE).then_some((order, wide != NONE))
    }
}

impl Narrow {
    fn new(cells: Vec<Cell>) -> Narrow {
        if cells.len() <= LINEAR_MAX {
            return Narrow::Linear(cells.into());
        }
        Narrow::indexed(&cells).unwrap_or_else(|| Narrow::Linear(cells.into()))
    }

    /// Cuts the address space where a cell begins or ends; ranges under the same cells share one list.
    fn indexed(cells: &[Cell]) -> Option<Narrow> {
        let mut begins: Vec<usize> = (0..cells.len()).collect();
        begins.sort_by_key(|i| cells[*i].net);
        let mut ends: Vec<usize> = (0..cells.len()).collect();
        ends.sort_by_key(|i| cells[*i].last_addr());
        let mut cuts: Vec<u32> = vec![0];
        cuts.extend(cells.iter().map(|c| c.net));
        cuts.extend(cells.iter().filter_map(|c| c.last_addr().checked_add(1)));
        cuts.sort_unstable();
        cuts.dedup();

        let mut lists: Vec<Ports> = Vec::new();
        let mut known: HashMap<Vec<usize>, u32> = HashMap::new();
        let mut rows = Vec::with_capacity(cuts.len());
        let mut under: BTreeSet<usize> = BTreeSet::new();
        let (mut begun, mut ended, mut spent) = (0, 0, 0);
        for cut in cuts {
            while ended < ends.len() && cells[ends[ended]].last_addr() < cut {
                under.remove(&ends[ended]);
                ended += 1;
            }
            while begun < begins.len() && cells[begins[begun]].net <= cut {
                under.insert(begins[begun]);
                begun += 1;
            }
            if under.is_empty() {
                rows.push((cut, NONE));
                continue;
            }
            let key: Vec<usize> = under.iter().copied().collect();
            spent += key.len();
            if spent > INDEX_MAX {
                return None;
            }
            let list = *known.entry(key).or_insert_with_key(|key| {
                let members: Vec<Cell> = key.iter().map(|i| cells[*i]).collect();
                lists.push(Ports::new(&members));
                lists.len() as u32 - 1
            });
            rows.push((cut, list));
        }
        Some(Narrow::Indexed { addrs: Ranges::from_sorted(rows), lists: lists.into() })
    }
}

/// The first rule for each selector: disjoint ranges of selectors.
#[derive(Clone, Debug)]
struct Ports {
    starts: Box<[u16]>,
    orders: Box<[u32]>,
}

impl Ports {
    fn new(cells: &[Cell]) -> Ports {
        let mut begins: Vec<(u16, u32)> = cells.iter().map(|c| (c.first, c.order)).collect();
        let mut ends: Vec<(u16, u32)> = cells.iter().map(|c| (c.last, c.order)).collect();
        begins.sort_unstable();
        ends.sort_unstable();
        let mut cuts: Vec<u16> = vec![0];
        cuts.extend(begins.iter().map(|b| b.0));
        cuts.extend(ends.iter().filter_map(|e| e.0.checked_add(1)));
        cuts.sort_unstable();
        cuts.dedup();

        // The same rule may be here for several blocks: count, so that one end does not close them all.
        let mut open: std::collections::BTreeMap<u32, u32> = std::collections::BTreeMap::new();
        let (mut begun, mut ended) = (0, 0);
        let (mut starts, mut orders) = (Vec::new(), Vec::new());
        for cut in cuts {
            while ended < ends.len() && ends[ended].0 < cut {
                let order = ends[ended].1;
                if let Some(n) = open.get_mut(&order) {
                    *n -= 1;
                    if *n == 0 {
                        open.remove(&order);
                    }
                }
                ended += 1;
            }
            while begun < begins.len() && begins[begun].0 <= cut {
                *open.entry(begins[begun].1).or_default() += 1;
                begun += 1;
            }
            let order = open.keys().next().copied().unwrap_or(NONE);
            if orders.last() != Some(&order) {
                starts.push(cut);
                orders.push(order);
            }
        }
        Ports { starts: starts.into(), orders: orders.into() }
    }

    /// Position of the rule, or `NONE`.
    #[inline]
    fn lookup(&self, selector: u16) -> u32 {
        if let [only] = *self.orders {
            return only;
        }
        let at = self.starts.partition_point(|start| *start <= selector) - 1;
        self.orders[at]
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::base::PortRange;

    fn rule(proto: Option<Proto>, ports: (u16, u16), peer: SgPeer) -> SgRule {
        SgRule {
            id: String::new(),
            matches: TrafficMatch { proto, ports: PortRange { first: ports.0, last: ports.1 }, icmp: (None, None) },
            peer,
            text: String::new(),
            implied: false,
        }
    }

    fn slow(rules: &[SgRule], members: &[Vec<u32>], proto: Proto, port: u16, peer: u32) -> Option<(u32, bool)> {
        let hit = |r: &SgRule| {
            let ports = match r.matches.proto {
                Some(Proto::TCP | Proto::UDP) => r.matches.ports.contains(port),
                _ => true,
            };
            let peers = match r.peer {
                SgPeer::Cidr(c) => c.contains(Ipv4Addr::from_bits(peer)),
                SgPeer::Group(g) => members[g].contains(&peer),
                SgPeer::PrefixList(_) => false,
            };
            r.matches.proto.is_none_or(|p| p == proto) && ports && peers
        };
        let first = rules.iter().position(hit)?;
        Some((first as u32, rules.iter().any(|r| hit(r) && r.peer == SgPeer::Cidr(Cidr::ANY))))
    }

    fn any_rule() -> impl Strategy<Value = SgRule> {
        let proto = prop_oneof![Just(None), Just(Some(Proto::TCP)), Just(Some(Proto::UDP)), Just(Some(Proto(47)))];
        let cidr = (any::<u32>(), prop_oneof![Just(0u8), Just(8), Just(24), Just(30), Just(32)])
            .prop_map(|(a, l)| SgPeer::Cidr(Cidr::containing(Ipv4Addr::from_bits(a & 0x0301_0303), l)));
        let peer = prop_oneof![3 => cidr, 1 => (0usize..3).prop_map(SgPeer::Group)];
        (proto, 0u16..20, 0u16..6, peer).prop_map(|(proto, first, more, peer)| rule(proto, (first, first + more), peer))
    }

    proptest! {
        #[test]
        fn every_form_names_the_rule_that_reading_the_list_names(
            rules in prop::collection::vec(any_rule(), 0..60),
            probes in prop::collection::vec((any::<u32>(), 0u16..28, 0usize..4), 40),
        ) {
            let members = vec![vec![], vec![0x0300_0001, 0x0300_0002], vec![0x0001_0003; 1]];
            let table = SgTable::new(rules.iter().enumerate().map(|(i, r)| (7, i, r)), &members);
            for (addr, port, proto) in probes {
                let addr = addr & 0x0301_0303;
                let proto = [Proto::TCP, Proto::UDP, Proto(47), Proto(99)][proto];
                let found = table.lookup(proto, port, addr).map(|m| (m.rule, m.open));
                prop_assert_eq!(found, slow(&rules, &members, proto, port, addr));
            }
        }
    }

    #[test]
    fn a_thousand_rules_are_indexed_and_nested_ones_too() {
        let mut rules = Vec::new();
        for i in 0..500u32 {
            let addr = Ipv4Addr::from_bits(0x0a00_0000 + i * 16);
            rules.push(rule(Some(Proto::TCP), (443, 443), SgPeer::Cidr(Cidr::containing(addr, 28))));
            rules.push(rule(Some(Proto::TCP), (i as u16, i as u16), SgPeer::Cidr("10.0.0.0/8".parse().expect("cidr"))));
        }
        let table = SgTable::new(rules.iter().enumerate().map(|(i, r)| (0, i, r)), &[]);
        assert!(matches!(table.tcp.narrow, Narrow::Indexed { .. }));
        for peer in (0x0a00_0000..0x0a00_2000).step_by(7) {
            for port in [0, 3, 443, 499, 500] {
                let found = table.lookup(Proto::TCP, port, peer).map(|m| (m.rule, m.open));
                assert_eq!(found, slow(&rules, &[], Proto::TCP, port, peer), "{peer:x} {port}");
            }
        }
    }

    #[test]
    fn icmp_rules_mean_types_and_codes() {
        let icmp = |kind, code| TrafficMatch { proto: Some(Proto::ICMP), ports: PortRange::ALL, icmp: (kind, code) };
        assert_eq!(selectors(&icmp(None, None)), (0, u16::MAX));
        assert_eq!(selectors(&icmp(Some(8), None)), (0x0800, 0x08ff));
        assert_eq!(selectors(&icmp(Some(3), Some(4))), (0x0304, 0x0304));
    }
}
