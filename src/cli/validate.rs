//! `vpclab validate`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("validate: not in this build"))
}
