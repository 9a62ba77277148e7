//! `vpclab completion SHELL`: a completion script on stdout.

use super::common::Done;

#[derive(clap::Args)]
pub struct Args {
    pub shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "vpclab", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(0)
}
