//! `vpclab up`.

use super::common::{Done, Failure, FileArgs, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    /// Stay until Ctrl-C
    #[arg(long, env = "VPCLAB_ATTACH")]
    pub attach: bool,
}

#[derive(clap::Args)]
pub struct KeeperArgs {
    pub args: Vec<String>,
}

#[derive(clap::Args)]
pub struct RouterArgs {
    pub args: Vec<String>,
}

#[cfg(target_os = "linux")]
pub fn run(_args: Args) -> Done {
    Err(Failure::input("up: not in this build"))
}

/// To the lab that is meant: the named one, or the only one that runs.
#[cfg(target_os = "linux")]
pub fn connect(_lab: &LabArg) -> Result<crate::runtime::client::Client, Failure> {
    Err(Failure::input("no lab runs"))
}

#[cfg(target_os = "linux")]
pub fn keeper(_args: KeeperArgs) -> Done {
    Err(Failure::input("__keeper: not in this build"))
}

#[cfg(target_os = "linux")]
pub fn router(_args: RouterArgs) -> Done {
    Err(Failure::input("__router: not in this build"))
}
