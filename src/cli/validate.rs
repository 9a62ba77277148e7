//! `vpclab validate`: check a topology without starting it.

use super::common::{Done, FileArgs, Format, FormatArg, count, print_json};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub format: FormatArg,
}

pub fn run(args: Args) -> Done {
    let (_, loaded) = super::topology::read(&args.files)?;
    let plan = &loaded.plan;
    if args.format.format == Format::Json {
        return print_json(&serde_json::json!({
            "name": plan.name, "vpcs": plan.vpcs.len(), "subnets": plan.subnets.len(),
            "instances": plan.instances.len(), "endpoints": plan.endpoints.len(), "checks": plan.checks.len(),
        }));
    }
    println!(
        "{}: {}, {}, {}, {}, {}: good",
        plan.name,
        count(plan.vpcs.len(), "VPC"),
        count(plan.subnets.len(), "subnet"),
        count(plan.instances.len(), "instance"),
        count(plan.endpoints.len(), "endpoint"),
        count(plan.checks.len(), "check")
    );
    Ok(0)
}
