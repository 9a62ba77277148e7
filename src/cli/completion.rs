//! `vpclab completion SHELL`: a completion script on stdout.

use super::common::Done;

#[derive(clap::Args)]
pub struct Args {
    pub shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Done {
    clap_complete::generate(args.shell, &mut super::command(), "vpclab", &mut std::io::stdout());
    Ok(0)
}
