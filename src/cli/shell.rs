//! `vpclab shell`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    pub instance: String,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("shell: not in this build"))
}
