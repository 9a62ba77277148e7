//! `vpclab version`.

use super::common::Done;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Done {
    println!("vpclab {}", env!("CARGO_PKG_VERSION"));
    Ok(0)
}
