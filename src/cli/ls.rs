//! `vpclab ls`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: FormatArg,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("ls: not in this build"))
}
