//! `vpclab down`.

use super::common::{Done, LabWord};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabWord,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    let dir = super::up::choose(&args.lab.lab()?)?;
    crate::runtime::launch::end(&dir)?;
    eprintln!("{} is gone.", dir.lab());
    Ok(0)
}
