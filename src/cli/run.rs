//! `vpclab run FILE INSTANCE -- CMD...`: up, exec, down in one process; the lab ends with it, whatever happens.

use std::ffi::OsString;
use std::path::PathBuf;

use super::common::Done;
use super::exec::How;

#[derive(clap::Args)]
pub struct Args {
    /// The lab's name instead of the file's
    #[arg(long, env = "VPCLAB_NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub how: How,
    /// The topology; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The instance: NAME or VPC.NAME
    pub instance: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub cmd: Vec<OsString>,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::runtime::launch::{Launch, launch};

    let (accepted, _) = super::topology::read_files(&[args.file], args.name.as_deref())?;
    let running = launch(Launch { accepted, leash: true, own_id: false })?;
    let mut client = running.client()?;
    let done = super::exec::run_in(&mut client, &args.instance, &args.cmd, &args.how, Some(&running.name));
    drop(client);
    running.end()?;
    done
}
