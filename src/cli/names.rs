//! `vpclab names`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    pub endpoint: Option<String>,
    #[arg(long)]
    pub zone: Option<char>,
    #[arg(long)]
    pub kind: Option<String>,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("names: not in this build"))
}
