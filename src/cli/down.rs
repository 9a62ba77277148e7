//! `vpclab down`.

use super::common::{Done, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    let run_dir = super::up::choose(&args.lab)?;
    crate::runtime::launch::end(&run_dir)?;
    eprintln!("lab {} is gone", run_dir.lab());
    Ok(0)
}

#[cfg(not(target_os = "linux"))]
pub fn run(_args: Args) -> Done {
    Err(super::common::Failure::host("a lab needs Linux"))
}
