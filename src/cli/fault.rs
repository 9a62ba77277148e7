//! `vpclab fault KIND ...`, `fault list`, `fault clear`.

use std::time::Duration;

#[cfg(target_os = "linux")]
use super::common::{Done, Failure, Format, print_json, table};
use super::common::{FormatArg, LabArg};
#[cfg(target_os = "linux")]
use crate::control::api::FaultRow;

#[derive(clap::Args)]
#[command(after_help = "\
KIND, in the words of `faults:` of a topology file:
  az a                           everything in the zone
  endpoint sts [a]               an interface endpoint, or its interface in one zone
  tunnel dc/1                    a tunnel of a site's VPN
  instance api                   an instance's interfaces
  link web [down] [delay 20ms] [jitter 5ms] [loss 1%] [rate 10mbit] [seed 7]
                                 an instance's interfaces; the last fault of a link stands in place
                                 of earlier ones and of the file's `impair:`

Examples:
  vpclab fault az a --for 30s
  vpclab fault link web loss 1% delay 20ms
  vpclab fault list
  vpclab fault clear             all; `fault clear 3` the one with this id")]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    /// What breaks; or `list`, or `clear`, or `clear ID`
    #[arg(required = true, value_name = "KIND ...")]
    pub words: Vec<String>,
    /// It mends itself after this time
    #[arg(long = "for", env = "VPCLAB_FOR", value_name = "TIME", value_parser = super::common::duration)]
    pub lasts: Option<Duration>,
    /// It begins after this time
    #[arg(long, env = "VPCLAB_AFTER", value_name = "TIME", value_parser = super::common::duration)]
    pub after: Option<Duration>,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::control::api::{Reply, Request};

    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let timeless = args.lasts.is_none() && args.after.is_none();
    let request = match words[..] {
        ["list"] if timeless => Request::Faults,
        ["clear"] | ["clear", "all"] if timeless => Request::ClearFaults { id: None },
        ["clear", id] if timeless => {
            let wrong = |_| Failure::input(format!("`{id}` is no id of a fault: see `vpclab fault list`"));
            Request::ClearFaults { id: Some(id.parse().map_err(wrong)?) }
        }
        ["list" | "clear", ..] => return Err(Failure::input("fault list; fault clear; fault clear ID")),
        _ => Request::Fault { words: args.words, for_ms: args.lasts.map(ms), after_ms: args.after.map(ms) },
    };
    let Reply::Faults(rows) = super::up::connect(&args.lab)?.ask(request)? else {
        return Err(Failure::unexpected());
    };
    match args.format.format {
        Format::Json => print_json(&rows),
        Format::Table => {
            print!("{}", render(&rows));
            Ok(0)
        }
    }
}

#[cfg(target_os = "linux")]
fn render(rows: &[FaultRow]) -> String {
    if rows.is_empty() {
        return "nothing is broken\n".to_owned();
    }
    let time = |ms: u64| format!("{:.1} s", ms as f64 / 1e3);
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let state = match (row.begun, row.left_ms) {
                (false, Some(ms)) => format!("begins in {}", time(ms)),
                (true, Some(ms)) => format!("for {} more", time(ms)),
                (_, None) => "until cleared".to_owned(),
            };
            let state = match row.beaten_by {
                Some(id) => format!("{state}, but {id} stands in its place"),
                None => state,
            };
            vec![row.id.to_string(), row.fault.clone(), state, if row.by_file { "file" } else { "command" }.to_owned()]
        })
        .collect();
    table(&["ID", "FAULT", "STATE", "BY"], &rows)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_listed_with_its_values_and_what_stands_in_its_place() {
        let row = |id, fault: &str, left_ms, beaten_by| FaultRow {
            id,
            fault: fault.into(),
            by_file: id == 1,
            begun: true,
            left_ms,
            beaten_by,
        };
        let rows =
            [row(1, "link app.web delay 20ms loss 1%", None, Some(2)), row(2, "link app.web down", Some(1_500), None)];
        assert_eq!(
            render(&rows),
            "ID  FAULT                            STATE                                     BY\n\
             1   link app.web delay 20ms loss 1%  until cleared, but 2 stands in its place  file\n\
             2   link app.web down                for 1.5 s more                            command\n"
        );
        assert_eq!(render(&[]), "nothing is broken\n");
    }
}
