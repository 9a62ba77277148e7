//! `vpclab logs INSTANCE`: the output of its `run` commands; `--router`: the lab's own log.

use super::common::{Done, Failure, LabArg, clock_time};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    /// What the lab's own processes wrote
    #[arg(long)]
    pub router: bool,
    /// The instance: NAME or VPC.NAME
    #[arg(required_unless_present = "router")]
    pub instance: Option<String>,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::control::api::{Reply, Request};

    let dir = super::up::choose(&args.lab)?;
    let Some(instance) = args.instance else {
        print!("{}", std::fs::read_to_string(dir.log()).unwrap_or_default());
        return Ok(0);
    };
    let mut client = super::up::connect(&args.lab)?;
    let Reply::Logs(lines) = client.ask(Request::Logs { instance })? else {
        return Err(Failure::unexpected());
    };
    for line in lines {
        println!("{} run[{}] {}: {}", clock_time(line.time_ms), line.command, line.stream, line.text);
    }
    Ok(0)
}
