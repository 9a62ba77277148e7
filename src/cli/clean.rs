//! `vpclab clean`: remove leftovers of crashed labs. Labs that run are not touched.

use super::common::{Done, Failure};

#[derive(clap::Args)]
pub struct Args {}

#[cfg(target_os = "linux")]
pub fn run(_: Args) -> Done {
    let (removed, errors) = crate::host::cleanup::clean();
    for thing in &removed {
        println!("removed {thing}");
    }
    if removed.is_empty() && errors.is_empty() {
        eprintln!("Nothing was left behind.");
    }
    if errors.is_empty() {
        return Ok(0);
    }
    let told: Vec<String> = errors.iter().map(|(lab, e)| format!("{lab}: {e}")).collect();
    Err(Failure::host(told.join("\n")))
}
