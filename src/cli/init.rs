//! `vpclab init`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    /// Kind of starter
    pub kind: Option<String>,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("init: not in this build"))
}
