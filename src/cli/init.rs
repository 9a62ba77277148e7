//! `vpclab init [KIND]`: a commented starter file on stdout.

use super::common::{Done, Failure};
use crate::model;

#[derive(clap::Args)]
pub struct Args {
    /// private (if left out), minimal, peers or demo
    pub kind: Option<String>,
}

pub fn run(args: Args) -> Done {
    let kind = args.kind.as_deref().unwrap_or(model::KINDS[0].0);
    let text = model::starter(kind).ok_or_else(|| {
        let known: Vec<String> = model::KINDS.iter().map(|(name, what)| format!("  {name:16} {what}")).collect();
        Failure::input(format!("no starter is named `{kind}`; there are:\n{}", known.join("\n")))
    })?;
    print!("{text}");
    Ok(0)
}
