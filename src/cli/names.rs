//! `vpclab names [ENDPOINT]`: every name of an endpoint, one per line, for scripts.

use super::common::{AboutArgs, Done, Failure, Format, print_json};
use crate::control::api::{NameRow, Reply, Request};
use crate::control::rows;
use crate::model::Plan;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub about: AboutArgs,
    /// Only the zonal name of this zone: a, b, ...
    #[arg(long, env = "VPCLAB_ZONE")]
    pub zone: Option<char>,
    /// Only regional, zonal or private names; public: those that lead to a gateway endpoint
    #[arg(long, env = "VPCLAB_KIND", value_parser = ["regional", "zonal", "private", "public"])]
    pub kind: Option<String>,
    /// An endpoint: NAME or VPC.NAME; all if left out
    pub endpoint: Option<String>,
}

pub fn run(args: Args) -> Done {
    let rows = match args.about.plan()? {
        Some(plan) => of_plan(&plan, &args)?,
        None => live(&args)?,
    };
    if args.about.format.format == Format::Json {
        return print_json(&rows);
    }
    for row in &rows {
        println!("{}", row.name);
    }
    // A script that asked for one zone wants to know that there is none.
    let none = rows.is_empty() && (args.zone.is_some() || args.kind.is_some());
    if none {
        let of = args.endpoint.as_deref().map_or_else(String::new, |name| format!(" of {name}"));
        let kind = args.kind.as_deref().map_or_else(String::new, |kind| format!(" {kind}"));
        let zone = args.zone.map_or_else(String::new, |zone| format!(" in zone {zone}"));
        eprintln!("vpclab: no{kind} name{of}{zone}");
    }
    Ok(u8::from(none))
}

fn live(args: &Args) -> Result<Vec<NameRow>, Failure> {
    let ask = Request::Names { endpoint: args.endpoint.clone(), zone: args.zone, kind: args.kind.clone() };
    match args.about.ask(ask)? {
        Reply::Names(rows) => Ok(rows),
        _ => Err(Failure::unexpected()),
    }
}

fn of_plan(plan: &Plan, args: &Args) -> Result<Vec<NameRow>, Failure> {
    let chosen: Vec<usize> = match &args.endpoint {
        None => (0..plan.endpoints.len()).collect(),
        Some(name) => vec![plan.endpoint_named(name).map_err(Failure::input)?],
    };
    Ok(rows::name_rows(plan, &chosen, args.zone, args.kind.as_deref()))
}
