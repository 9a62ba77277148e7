//! `vpclab down`.

use super::common::{Done, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use std::time::Duration;

    use super::common::Failure;
    use crate::control::api::Request;

    let mut client = super::up::connect(&args.lab)?;
    client.ask(Request::Down)?;
    if !client.wait_closed(Duration::from_secs(20))? {
        return Err(Failure::host("the lab took the order but does not end; `vpclab clean` removes what is left"));
    }
    Ok(0)
}
