//! `vpclab validate`: check a topology without starting it.

use super::common::{Done, FileArgs};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
}

pub fn run(args: Args) -> Done {
    let (_, loaded) = super::topology::read(&args.files)?;
    let plan = &loaded.plan;
    println!(
        "{}: {} VPCs, {} subnets, {} instances, {} endpoints, {} checks: good",
        plan.name,
        plan.vpcs.len(),
        plan.subnets.len(),
        plan.instances.len(),
        plan.endpoints.len(),
        plan.checks.len()
    );
    Ok(0)
}
