//! `vpclab trace`: what is decided of live packets, step by step.

use std::fmt::Write;

use super::common::{Done, FormatArg, LabArg, WatchArgs, clock_time};
use crate::control::api::TraceRow;

/// Packets told where nobody says how many.
const USUAL: u64 = 20;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vpclab trace --from web --follow
  vpclab trace --from app-a --to 192.0.2.10 --port 80 --count 3")]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Go on until interrupted; without it, --count and --seconds, the first 20 packets
    #[arg(long, env = "VPCLAB_FOLLOW")]
    pub follow: bool,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use std::io;

    use super::common::Format;
    use crate::control::api::{Request, WatchAsk};

    let asked = args.watch.ask();
    let unbounded = !args.follow && asked.count.is_none() && asked.millis.is_none();
    let ask = WatchAsk { count: asked.count.or(unbounded.then_some(USUAL)), ..asked };
    let end = super::common::stream(&args.lab, Request::Trace(ask), true, |block| {
        let row: TraceRow = serde_json::from_slice(block)?;
        match args.format.format {
            Format::Json => println!("{}", serde_json::to_string(&row)?),
            Format::Table => print!("{}", render(&row)),
        }
        if super::screen::flush() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    })?;
    if let Some(end) = end.filter(|end| end.lost > 0) {
        let lost = super::common::count(end.lost as usize, "packet");
        eprintln!("{lost} lost: more came than could be told");
    }
    Ok(0)
}

/// A line for the packet, one for each step as `explain` has them, one for the verdict.
fn render(row: &TraceRow) -> String {
    let mut page = format!("{}  {} > {}  {}\n", clock_time(row.time_ms), row.from, row.to, row.packet);
    for step in &row.steps {
        let line = format!("    {:<10} {:<24} {:<9} {}", step.at, step.what, step.outcome, step.detail);
        let _ = writeln!(page, "{}", line.trim_end());
    }
    let _ = writeln!(page, "    => {}", row.verdict);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::TraceStep;

    #[test]
    fn a_packet_is_a_line_with_its_steps_below() {
        let step = |at: &str, what: &str, outcome: &str, detail: &str| TraceStep {
            at: at.into(),
            what: what.into(),
            outcome: outcome.into(),
            detail: detail.into(),
        };
        let row = TraceRow {
            time_ms: 1_000,
            from: "guest".into(),
            to: "s3@a".into(),
            packet: "tcp 10.0.1.20:40000 > 10.0.1.4:443 [S] len 0".into(),
            verdict: "DROP SG_INGRESS at endpoint app.s3: 1 rule, no match".into(),
            code: Some("SG_INGRESS".into()),
            steps: vec![
                step("guest", "source/dest check", "ok", ""),
                step("s3@a", "sg doors ingress", "DENY", "1 rule, no match"),
            ],
            lost: 0,
        };
        assert_eq!(
            render(&row),
            "00:00:01.000  guest > s3@a  tcp 10.0.1.20:40000 > 10.0.1.4:443 [S] len 0\n    \
             guest      source/dest check        ok\n    \
             s3@a       sg doors ingress         DENY      1 rule, no match\n    \
             => DROP SG_INGRESS at endpoint app.s3: 1 rule, no match\n"
        );
    }
}
