//! `vpclab flows`: connections, and the way they take.

use super::common::{Done, FilterArgs, FormatArg, LabArg, end, table};
use crate::control::api::FlowRow;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::control::api::{Reply, Request};

    if args.filter.code.is_some() {
        return Err(super::common::Failure::input(
            "flows have no drop code: `vpclab drops --code` shows what was dropped",
        ));
    }
    super::common::follow(
        &args.lab,
        &args.filter,
        args.format.format,
        |client, filter| match client.ask(Request::Flows(filter))? {
            Reply::Flows(rows) => Ok(rows),
            _ => Err(crate::runtime::client::ClientError::Unexpected),
        },
        render,
    )
}

fn render(rows: &[FlowRow]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
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
        })
        .collect();
    table(&["FROM", "TO", "NAME", "PROTO", "STATE", "WAY", "BYTES OUT", "BYTES IN"], &rows)
}

impl super::common::Timed for FlowRow {
    fn time_ms(&self) -> u64 {
        self.last_ms
    }
}
