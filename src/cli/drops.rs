//! `vpclab drops`: what was dropped, where and by which rule.

use super::common::{Done, FilterArgs, FormatArg, LabArg, clock_time, end, table};
use crate::control::api::DropRow;

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

    super::common::follow(
        &args.lab,
        &args.filter,
        args.format.format,
        |client, filter| match client.ask(Request::Drops(filter))? {
            Reply::Drops(rows) => Ok(rows),
            _ => Err(crate::runtime::client::ClientError::Unexpected),
        },
        render,
    )
}

fn render(rows: &[DropRow]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
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
        })
        .collect();
    table(&["TIME", "FROM", "TO", "PROTO", "CODE", "OBJECT", "RULE", "DIRECTION", "COUNT"], &rows)
}

impl super::common::Timed for DropRow {
    fn time_ms(&self) -> u64 {
        self.time_ms
    }
}
