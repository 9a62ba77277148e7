//! `vpclab schema`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("schema: not in this build"))
}
