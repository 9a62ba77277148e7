//! `vpclab drops`: what was dropped, where and by which rule.

use super::common::{clock_time, end, table};
pub use super::rows::Args;
use super::rows::Row;
use crate::control::api::{DropRow, Filter, Reply, Request};

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> super::common::Done {
    super::rows::show::<DropRow>(&args)
}

impl Row for DropRow {
    fn request(filter: Filter) -> Request {
        Request::Drops(filter)
    }

    fn of(reply: Reply) -> Option<Vec<DropRow>> {
        if let Reply::Drops(rows) = reply { Some(rows) } else { None }
    }

    fn time_ms(&self) -> u64 {
        self.time_ms
    }

    fn table(rows: &[DropRow]) -> String {
        let row = |r: &DropRow| {
            vec![
                clock_time(r.time_ms),
                end(&r.from, &r.src),
                end(&r.to, &r.dst),
                r.proto.clone(),
                r.code.clone(),
                r.object.clone(),
                r.rule.clone(),
                r.direction.clone(),
                r.count.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
        table(&["TIME", "FROM", "TO", "PROTO", "CODE", "OBJECT", "RULE", "DIRECTION", "COUNT"], &rows)
    }
}
