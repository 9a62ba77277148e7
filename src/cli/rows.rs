//! What `drops` and `flows` share: rows of what happened, filtered, once or as they come.

use super::common::{FormatArg, LabArg, duration};
use crate::control::api::{Filter, Reply, Request};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    /// Who began the flow: an instance or an address; of drops, also who sent the packet
    #[arg(long, env = "VPCLAB_FROM")]
    pub from: Option<String>,
    /// The flow's target: an instance, endpoint:NAME or an address; of drops, also the packet's
    #[arg(long, env = "VPCLAB_TO")]
    pub to: Option<String>,
    /// A drop code
    #[arg(long, env = "VPCLAB_CODE")]
    pub code: Option<String>,
    /// Only the last 30s, 5m, 1h
    #[arg(long, env = "VPCLAB_SINCE", value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// Go on until interrupted
    #[arg(long, env = "VPCLAB_FOLLOW")]
    pub follow: bool,
}

impl Args {
    fn filter(&self) -> Filter {
        Filter {
            from: self.from.clone(),
            to: self.to.clone(),
            code: self.code.clone(),
            since_ms: self.since.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            again: false,
        }
    }
}

/// Something that happened, one row each.
pub trait Row: serde::Serialize + Sized {
    fn request(filter: Filter) -> Request;

    /// Those of the answer.
    fn of(reply: Reply) -> Option<Vec<Self>>;

    /// When it happened last, in milliseconds since 1970.
    fn time_ms(&self) -> u64;

    /// A header, and a line for each.
    fn table(rows: &[Self]) -> String;
}

/// Prints rows once, or with `--follow` again and again as they come, until interrupted.
#[cfg(target_os = "linux")]
pub fn show<R: Row>(args: &Args) -> super::common::Done {
    use super::common::{Failure, Format, print_json};

    let mut client = super::up::connect(&args.lab)?;
    let mut rows_now = |again: bool| {
        let filter = Filter { again, ..args.filter() };
        R::of(client.ask(R::request(filter))?).ok_or_else(Failure::unexpected)
    };
    let print = |rows: &[R], first: bool| -> Result<(), Failure> {
        match args.format.format {
            Format::Json if !args.follow => {
                print_json(&rows)?;
            }
            // One value per line, so that a reader need not wait for an end.
            Format::Json => {
                for row in rows {
                    println!("{}", serde_json::to_string(row).map_err(|e| Failure::host(e.to_string()))?);
                }
            }
            Format::Table => {
                let text = R::table(rows);
                let text = if first { text.as_str() } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
                print!("{text}");
            }
        }
        Ok(())
    };
    let rows = rows_now(false)?;
    print(&rows, true)?;
    let mut seen = rows.iter().map(R::time_ms).max().unwrap_or(0);
    while args.follow && super::screen::flush() {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let new: Vec<R> = rows_now(true)?.into_iter().filter(|r| r.time_ms() > seen).collect();
        if !new.is_empty() {
            print(&new, false)?;
            seen = new.iter().map(R::time_ms).max().unwrap_or(seen);
        }
    }
    Ok(0)
}
