//! `vpclab shell INSTANCE`.

use super::common::{Done, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub how: super::exec::How,
    /// The instance, bare or VPC.NAME
    pub instance: String,
}

/// `$SHELL`, or `sh`.
pub fn run(args: Args) -> Done {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "sh".into());
    super::exec::run(super::exec::Args { lab: args.lab, how: args.how, instance: args.instance, cmd: vec![shell] })
}
