//! `vpclab dns`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    pub instance: String,
    pub name: String,
    #[arg(default_value = "A")]
    pub rtype: String,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("dns: not in this build"))
}
