//! `vpclab shell INSTANCE`: the caller's shell as an instance.

use super::common::{Done, LabArg};
use super::exec::How;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub how: How,
    /// The instance: NAME or VPC.NAME
    pub instance: String,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    let mut client = super::up::connect(&args.lab)?;
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    super::exec::run_in(&mut client, &args.instance, &[shell], &args.how, args.lab.lab.as_deref())
}
