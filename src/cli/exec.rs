//! `vpclab exec INSTANCE -- CMD...`.

use super::common::{Done, Failure, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    /// Keep a variable of the caller, or set one
    #[arg(long = "env", value_name = "K[=V]")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(long)]
    pub user: Option<String>,
    /// End the command after this time
    #[arg(long, value_parser = super::common::duration)]
    pub timeout: Option<std::time::Duration>,
    pub instance: String,
    #[arg(last = true, required = true)]
    pub cmd: Vec<String>,
}

#[cfg(target_os = "linux")]
pub fn run(_args: Args) -> Done {
    Err(Failure::input("exec: not in this build"))
}
