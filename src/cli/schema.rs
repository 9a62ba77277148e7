//! `vpclab schema`: JSON Schema of the topology file, for editors.

use super::common::Done;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Done {
    println!("{}", crate::model::schema());
    Ok(0)
}
