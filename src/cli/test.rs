//! `vpclab test`.

#[allow(unused_imports, reason = "filled by the verb")]
use super::common::{Done, Failure, FileArgs, FilterArgs, FormatArg, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    /// Without a lab: decide by the tables alone
    #[arg(long = "static")]
    pub is_static: bool,
    /// A JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<std::path::PathBuf>,
}

pub fn run(_args: Args) -> Done {
    Err(Failure::input("test: not in this build"))
}
