//! Drops as they were decided. A record names what decided by its place in a plan, so it is put into words with that
//! plan and no other, and what is kept when another plan comes is the words: a rule that was changed since, or an
//! instance that is gone, is named as it was.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::api::{DropRow, Filter};
use super::rows::{self, ANY, Name, Word};
use crate::base::{EniIx, Instant};
use crate::engine::DropRecord;
use crate::model::Plan;
use crate::model::plan::EniOwner;

/// Rows of plans before that are kept one by one: as many as the engine's log has records.
pub const KEPT: usize = 4_096;

/// Sums of what gave way, by sender, code and what decided.
const SUMS: usize = 256;

/// A row, and by which names its ends were known when it was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub row: DropRow,
    began: Names,
    from: Names,
    to: Names,
    /// Of the sender, whatever address it sent from.
    sender: Names,
}

type Names = Arc<[Name]>;

/// Records of one plan in its words. `clock` turns the engine's moments into milliseconds since 1970.
pub fn tell<'a>(
    plan: &Plan,
    records: impl IntoIterator<Item = &'a DropRecord>,
    clock: &dyn Fn(Instant) -> u64,
) -> Vec<Told> {
    let mut book = None;
    let told = records.into_iter().map(|record| {
        let book = book.get_or_insert_with(|| Book::of(plan));
        let row = rows::drop_row(plan, record, clock);
        let sender = book.names(&row.from, ANY);
        Told {
            began: if record.is_sum() { sender.clone() } else { book.names(&row.began, &row.began_at) },
            sender,
            from: book.names(&row.from, &row.src),
            to: book.names(&row.to, &row.dst),
            row,
        }
    });
    told.collect()
}

impl Told {
    /// Whether the row passes a filter at the moment `now_ms`: `from` and `to` are the ends of the flow, or those of
    /// the packet.
    pub fn passes(&self, filter: &Filter, now_ms: u64) -> bool {
        let [began, sender, receiver] = self.ends();
        let is = |word: &Option<String>, end: End| word.as_deref().is_none_or(|word| names(word, end));
        let between = |from: End, to: End| is(&filter.from, from) && is(&filter.to, to);
        (between(began, if self.row.back { sender } else { receiver }) || between(sender, receiver))
            && filter.code.as_deref().is_none_or(|code| code.eq_ignore_ascii_case(&self.row.code))
            && filter.since_ms.is_none_or(|ms| self.row.time_ms.saturating_add(ms) >= now_ms)
    }

    /// Who began the flow, the packet's sender, and its receiver.
    fn ends(&self) -> [End<'_>; 3] {
        let row = &self.row;
        [(&row.began, &row.began_at, &self.began), (&row.from, &row.src, &self.from), (&row.to, &row.dst, &self.to)]
    }

    fn is_sum(&self) -> bool {
        self.row.dst == ANY
    }

    /// As one of the many whose addresses and ports are not kept.
    fn into_sum(self) -> Told {
        let Told { row, sender, .. } = self;
        let ports = ["tcp", "udp"].contains(&row.proto.as_str());
        let any = || ANY.to_owned();
        let row = DropRow {
            began: row.from.clone(),
            began_at: if ports { "0.0.0.0:0" } else { "0.0.0.0" }.to_owned(),
            back: false,
            to: any(),
            src: any(),
            dst: any(),
            ..row
        };
        Told { row, began: sender.clone(), from: sender.clone(), sender, to: Arc::new([]) }
    }

    /// Counts a row that says the same.
    fn take_in(&mut self, other: &DropRow) {
        self.row.first_ms = self.row.first_ms.min(other.first_ms);
        self.row.time_ms = self.row.time_ms.max(other.time_ms);
        self.row.count += other.count;
    }

    /// Everything but times and the count.
    fn text(&self) -> impl Hash + Eq + '_ {
        let Told { row, began, from, to, .. } = self;
        let ends = (&row.began, &row.began_at, row.back, &row.from, &row.to, &row.src, &row.dst);
        (ends, &row.proto, &row.code, &row.object, &row.rule, &row.direction, (began, from, to))
    }
}

/// Label, address and further names.
type End<'a> = (&'a str, &'a str, &'a [Name]);

fn names(word: &str, (label, addr, further): End) -> bool {
    let word = Word::of(word);
    word.is(label, addr) || further.iter().any(|name| word.asks_for(name))
}

/// What was dropped under plans before the one in force, oldest first. Bounded as the engine's log is: of more than
/// [`KEPT`] rows the oldest are summed by sender, code and what decided; of more than 256 such sums the one that was
/// added to longest ago is forgotten.
pub struct History {
    sums: Vec<Told>,
    rows: Vec<Told>,
    bound: usize,
}

impl Default for History {
    fn default() -> History {
        History::new(KEPT)
    }
}

impl History {
    pub fn new(bound: usize) -> History {
        History { sums: Vec::new(), rows: Vec::new(), bound }
    }

    /// Takes what was dropped under a plan that is not in force any more. What says the same as a row that is there
    /// is counted with it.
    pub fn keep(&mut self, told: Vec<Told>) {
        let (sums, rows) = told.into_iter().partition(Told::is_sum);
        add(&mut self.sums, sums);
        add(&mut self.rows, rows);
        let over = self.rows.len().saturating_sub(self.bound);
        for gives_way in self.rows.drain(..over).map(Told::into_sum) {
            add_one(&mut self.sums, gives_way);
        }
        while self.sums.len() > SUMS {
            let oldest = self.sums.iter().enumerate().min_by_key(|(_, sum)| sum.row.time_ms);
            let Some((at, _)) = oldest else { break };
            self.sums.remove(at);
        }
    }

    /// All rows that pass, those of the plan in force (`now`) included: sums, and then the rows, oldest first.
    pub fn rows(&self, now: Vec<Told>, filter: &Filter, now_ms: u64) -> Vec<DropRow> {
        let passing = |of: &[Told]| of.iter().filter(|told| told.passes(filter, now_ms)).cloned().collect();
        let (mut sums, mut rows): (Vec<Told>, Vec<Told>) = (passing(&self.sums), passing(&self.rows));
        let (new_sums, new_rows) = now.into_iter().filter(|told| told.passes(filter, now_ms)).partition(Told::is_sum);
        add(&mut sums, new_sums);
        add(&mut rows, new_rows);
        sums.into_iter().chain(rows).map(|told| told.row).collect()
    }

    /// Whether a filter's word names an end that there was when something was dropped.
    pub fn knows(&self, word: &str) -> bool {
        self.sums.iter().chain(&self.rows).any(|told| told.ends().into_iter().any(|end| names(word, end)))
    }
}

fn add(to: &mut Vec<Told>, told: Vec<Told>) {
    let standing: Vec<Option<usize>> = {
        let by_text: HashMap<_, usize> = to.iter().enumerate().map(|(at, old)| (old.text(), at)).collect();
        told.iter().map(|new| by_text.get(&new.text()).copied()).collect()
    };
    for (new, standing) in told.into_iter().zip(standing) {
        match standing {
            Some(at) => to[at].take_in(&new.row),
            None => to.push(new),
        }
    }
}

fn add_one(to: &mut Vec<Told>, new: Told) {
    match to.iter_mut().find(|old| old.text() == new.text()) {
        Some(old) => old.take_in(&new.row),
        None => to.push(new),
    }
}

/// The ENIs of a plan by their labels, and what was looked up already.
struct Book<'a> {
    plan: &'a Plan,
    by_label: HashMap<String, Vec<EniIx>>,
    gateway_endpoints: Vec<(EniIx, String)>,
    /// By label and address.
    known: HashMap<(String, String), Names>,
}

impl Book<'_> {
    fn of(plan: &Plan) -> Book<'_> {
        let mut by_label: HashMap<String, Vec<EniIx>> = HashMap::new();
        let mut gateway_endpoints = Vec::new();
        for (at, eni) in plan.enis.iter().enumerate() {
            let ix = EniIx(at as u32);
            match eni.owner {
                EniOwner::GatewayEndpoint(_) => gateway_endpoints.push((ix, plan.eni_label(ix))),
                _ => by_label.entry(plan.eni_label(ix)).or_default().push(ix),
            }
        }
        Book { plan, by_label, gateway_endpoints, known: HashMap::new() }
    }

    fn names(&mut self, label: &str, addr: &str) -> Names {
        let host = rows::host(addr);
        let key = (label.to_owned(), host.to_owned());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let labelled = self.by_label.get(label).into_iter().flatten().map(|eni| (*eni, label));
        let doors = self.gateway_endpoints.iter().map(|(eni, own)| (*eni, own.as_str()));
        let all = labelled.chain(doors).flat_map(|(eni, own)| rows::names_by(self.plan, eni, own, label, host));
        let names: Names = all.collect();
        self.known.insert(key, names.clone());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FiveTuple, Proto};
    use crate::engine::{Decider, Direction, DropCode, NACL_STAR};
    use crate::model::testing::plan_of;

    const LAB: &str = "version: 1
name: t
region: eu-west-1
vpcs:
  v:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: b, nacl: n } }
    network_acls:
      n:
        ingress: { 50: deny tcp 9000 from 10.0.1.0/24, 100: allow all from 0.0.0.0/0 }
        egress: { 100: allow all to 0.0.0.0/0 }
    route_tables: { main: { routes: [ { to: 10.9.0.0/16, via: blackhole } ] } }
    security_groups: { one: { ingress: [tcp 80 from 10.0.0.0/16] } }
    instances:
      c: { subnet: a, ip: 10.0.1.5 }
      z: { subnet: b, ip: 10.0.2.10, security_groups: [one] }
";

    fn plan(patch: &str) -> Plan {
        plan_of(&[LAB, patch])
    }

    fn eni(plan: &Plan, label: &str) -> EniIx {
        let at = (0..plan.enis.len()).find(|at| plan.eni_label(EniIx(*at as u32)) == label);
        EniIx(at.expect("an ENI") as u32)
    }

    fn record(plan: &Plan, port: u16, at: u64, code: DropCode, decider: Decider) -> DropRecord {
        let tuple = FiveTuple::tcp([10, 0, 1, 5].into(), port, [10, 0, 2, 10].into(), 9_000);
        DropRecord {
            first: Instant(at),
            last: Instant(at + 1),
            from: eni(plan, "c"),
            tuple,
            whose: Default::default(),
            code,
            decider,
            direction: Direction::Ingress,
            count: 2,
        }
    }

    fn told(plan: &Plan, records: &[DropRecord]) -> Vec<Told> {
        tell(plan, records, &|at| at.0)
    }

    fn texts(rows: &[DropRow]) -> Vec<(&str, &str, &str, u64)> {
        rows.iter().map(|r| (r.code.as_str(), r.object.as_str(), r.rule.as_str(), r.count)).collect()
    }

    #[test]
    fn a_record_names_the_rule_that_decided_whatever_became_of_it() {
        let before = plan("{}");
        let nacl = before.network_acls.iter().position(|n| n.common.name == "n").expect("an ACL");
        let table = before.route_tables.iter().position(|t| t.common.name == "main").expect("a table");
        let to: crate::base::Cidr = "10.9.0.0/16".parse().expect("a block");
        let route = before.route_tables[table].routes.iter().position(|r| before.blocks(&r.to).contains(&to));
        let kept = [
            record(&before, 1, 10, DropCode::NaclIn, Decider::Nacl(nacl, 50)),
            record(&before, 2, 11, DropCode::SgIngress, Decider::SecurityGroups(eni(&before, "z"))),
            record(&before, 3, 12, DropCode::RtBlackhole, Decider::RouteTable(table, route)),
        ];
        let mut history = History::default();
        history.keep(told(&before, &kept));
        let all = |history: &History, now| history.rows(now, &Filter::default(), 20);
        let was = all(&history, Vec::new());
        assert_eq!(
            texts(&was),
            [
                ("NACL_IN", "nacl:v.n", "50 deny tcp 9000 from 10.0.1.0/24", 2),
                ("SG_INGRESS", "sg:v.one", "1 rule, no match", 2),
                (
                    "RT_BLACKHOLE",
                    "rtb:v.main",
                    &*before.route_text(&before.route_tables[table].routes[route.expect("one")]),
                    2
                ),
            ]
        );
        // The row is another, then none, then there is no ACL; groups and routes change, and instances go.
        for patch in [
            "vpcs: { v: { network_acls: { n: { ingress: { 50: allow tcp 9000 from 10.0.1.0/24 } } } } }",
            "vpcs: { v: { network_acls: { n: { ingress: { 50: null } } }, security_groups: { one: { ingress: [] } } } }",
            "vpcs: { v: { network_acls: null, subnets: { b: { nacl: null } }, route_tables: { main: { routes: [] } },
               instances: { c: null, z: null, y: { subnet: b, ip: 10.0.2.10 } } } }",
        ] {
            let after = plan(patch);
            history.keep(told(&after, &[]));
            assert_eq!(all(&history, Vec::new()), was, "{patch}");
        }
        // The same text is one row, with both counts; another text of the same packet is another row.
        let again = record(&before, 1, 15, DropCode::NaclIn, Decider::Nacl(nacl, 50));
        let star = record(&before, 1, 16, DropCode::NaclIn, Decider::Nacl(nacl, NACL_STAR));
        let rows = all(&history, told(&before, &[again, star]));
        assert_eq!(
            rows.iter().map(|row| (row.first_ms, row.time_ms, row.count)).collect::<Vec<_>>(),
            [(10, 16, 4), (11, 12, 2), (12, 13, 2), (16, 17, 2)]
        );
        assert_eq!(texts(&rows)[3], ("NACL_IN", "nacl:v.n", "* deny", 2));
        assert_eq!(all(&history, Vec::new()), was, "what is in force is not kept yet");
    }

    #[test]
    fn rows_are_found_by_the_names_of_their_time() {
        let (before, after) =
            (plan("{}"), plan("vpcs: { v: { instances: { c: null, d: { subnet: a, ip: 10.0.1.5 } } } }"));
        let mut history = History::default();
        let decider = Decider::SecurityGroups(eni(&before, "z"));
        history.keep(told(&before, &[record(&before, 1, 10, DropCode::SgIngress, decider)]));
        let by_d =
            DropRecord { from: eni(&after, "d"), ..record(&before, 2, 20, DropCode::SgIngress, Decider::FlowTable) };
        let found = |from: Option<&str>, to: Option<&str>, code: Option<&str>, since_ms| {
            let own = |word: Option<&str>| word.map(str::to_owned);
            let filter = Filter { from: own(from), to: own(to), code: own(code), since_ms, again: false };
            history.rows(told(&after, std::slice::from_ref(&by_d)), &filter, 21).len()
        };
        for word in ["c", "v.c", "instance:c", "instance:v.c", "eni:c", "10.0.1.5:1"] {
            assert_eq!(found(Some(word), None, None, None), 1, "{word}");
        }
        assert!(history.knows("v.c") && history.knows("z") && history.knows("10.0.2.10") && !history.knows("d"));
        assert_eq!(found(Some("endpoint:c"), None, None, None), 0);
        assert_eq!((found(Some("d"), None, None, None), found(Some("v.d"), None, None, None)), (1, 1));
        assert_eq!(found(Some("10.0.1.5"), Some("z"), Some("sg_ingress"), None), 2);
        assert_eq!((found(None, None, None, Some(5)), found(None, None, Some("NACL_IN"), None)), (1, 0));
        assert_eq!((found(Some("z"), None, None, None), found(None, Some("c"), None, None)), (0, 0));
    }

    #[test]
    fn what_gives_way_is_in_the_sums() {
        let plan = plan("{}");
        let z = Decider::SecurityGroups(eni(&plan, "z"));
        let records = |ports: std::ops::Range<u16>| -> Vec<DropRecord> {
            ports.map(|port| record(&plan, port, u64::from(port), DropCode::SgIngress, z)).collect()
        };
        let mut history = History::new(3);
        history.keep(told(&plan, &records(1..3)));
        history.keep(told(&plan, &records(2..7)));
        // As the engine sums of what gives way in its own log.
        let sum =
            DropRecord { tuple: FiveTuple { src_port: 0, dst_port: 0, ..unspecified() }, ..records(9..10).remove(0) };
        assert!(sum.is_sum());
        history.keep(told(&plan, &[sum]));
        let seen = |history: &History| -> Vec<(String, u64)> {
            let rows = history.rows(told(&plan, &records(20..21)), &Filter::default(), 30);
            rows.into_iter().map(|row| (row.src, row.count)).collect()
        };
        let of = |src: &str, count| (src.to_owned(), count);
        let row = |port: u16, count| of(&format!("10.0.1.5:{port}"), count);
        assert_eq!(seen(&history), [of("*", 2 + 4 + 2 + 2), row(4, 2), row(5, 2), row(6, 2), row(20, 2)]);
        // Sums are bounded too: the one that nothing was added to for longest goes.
        for code in 0..SUMS {
            let decider = Decider::Nacl(0, u16::try_from(code).expect("few") + 1);
            let kind = DropCode::ALL[code % DropCode::ALL.len()];
            let row = DropRow {
                time_ms: 100 + code as u64,
                rule: format!("{decider:?}"),
                code: kind.to_string(),
                dst: "*".into(),
                ..DropRow::default()
            };
            let nobody = || Names::from([]);
            history.keep(vec![Told { row, began: nobody(), from: nobody(), to: nobody(), sender: nobody() }]);
        }
        assert_eq!(history.sums.len(), SUMS);
        assert_eq!(seen(&history).len(), SUMS + 4);
        assert!(!seen(&history).contains(&of("*", 10)));
    }

    fn unspecified() -> FiveTuple {
        FiveTuple { src: [0; 4].into(), dst: [0; 4].into(), src_port: 0, dst_port: 0, proto: Proto::TCP }
    }
}
