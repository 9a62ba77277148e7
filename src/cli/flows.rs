//! `vpclab flows`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    #[command(flatten)]
    pub filter: FilterArgs,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("flows: not in this build"))
}
