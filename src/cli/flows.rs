//! `vpclab flows`: connections, and the way they take.

use super::common::{end, table};
pub use super::rows::Args;
use super::rows::Row;
use crate::control::api::{Filter, FlowRow, Reply, Request};

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> super::common::Done {
    if args.code.is_some() {
        return Err(super::common::Failure::input(
            "flows have no drop code: `vpclab drops --code` shows what was dropped",
        ));
    }
    super::rows::show::<FlowRow>(&args)
}

impl Row for FlowRow {
    fn request(filter: Filter) -> Request {
        Request::Flows(filter)
    }

    fn of(reply: Reply) -> Option<Vec<FlowRow>> {
        if let Reply::Flows(rows) = reply { Some(rows) } else { None }
    }

    fn time_ms(&self) -> u64 {
        self.last_ms
    }

    fn table(rows: &[FlowRow]) -> String {
        let row = |r: &FlowRow| {
            vec![
                end(&r.from, &r.src),
                end(&r.to, &r.dst),
                r.name.clone(),
                r.proto.clone(),
                r.state.clone(),
                r.way.clone(),
                r.bytes_out.to_string(),
                r.bytes_in.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
        table(&["FROM", "TO", "NAME", "PROTO", "STATE", "WAY", "BYTES OUT", "BYTES IN"], &rows)
    }
}
