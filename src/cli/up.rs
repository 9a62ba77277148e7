//! `vpclab up`.

use super::common::{Done, Failure, FileArgs, LabArg};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    /// Stay until Ctrl-C
    #[arg(long, env = "VPCLAB_ATTACH")]
    pub attach: bool,
    /// Without root: map only the own id into the lab
    #[arg(long, env = "VPCLAB_OWN_ID")]
    pub own_id: bool,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::runtime::launch::{Launch, launch};

    let (accepted, loaded) = super::topology::read(&args.files)?;
    // Before anything is started, so that no signal finds a lab without a keeper of its own.
    let signals = if args.attach { Some(crate::host::signals::block()?) } else { None };
    let began = std::time::Instant::now();
    let running = launch(Launch { accepted, leash: args.attach, own_id: args.own_id })?;
    print!("{}", super::ps::render(&ps(&mut running.client()?)?));
    super::screen::flush();
    eprintln!("{} is up after {} ms.", running.name, began.elapsed().as_millis());
    let Some(signals) = signals else {
        eprint!("{}", next_commands(&loaded.plan, &running.name));
        return Ok(0);
    };
    eprintln!("Ctrl-C ends it.");
    running.stay(&signals)?;
    Ok(0)
}

/// The lab's instances and endpoints.
#[cfg(target_os = "linux")]
pub fn ps(client: &mut crate::runtime::client::Client) -> Result<crate::control::api::Ps, Failure> {
    use crate::control::api::{Reply, Request};
    match client.ask(Request::Ps)? {
        Reply::Ps(ps) => Ok(ps),
        _ => Err(Failure::unexpected()),
    }
}

/// What to type next, with the lab's own names.
#[cfg(target_os = "linux")]
fn next_commands(plan: &crate::model::Plan, lab: &str) -> String {
    let flag = if crate::runtime::launch::running().len() > 1 { format!(" -l {lab}") } else { String::new() };
    let Some(first) = plan.instances.first() else { return format!("  vpclab down{flag}\n") };
    let web = plan.find_instance(&first.common.name).map_or(&first.common.path, |_| &first.common.name);
    let endpoint = plan.endpoints.iter().find(|e| Some(e.vpc) == first.vpc()).map(|e| {
        let name = plan.find_endpoint(&e.common.name).map_or(&e.common.path, |_| &e.common.name);
        format!("endpoint:{name}")
    });
    let to = endpoint.unwrap_or_else(|| {
        first.vpc().map_or(crate::model::catalogue::PUBLIC_RESOLVER, |vpc| plan.vpcs[vpc].resolver()).to_string()
    });
    format!(
        "  vpclab exec{flag} {web} -- curl -v https://...   vpclab shell{flag} {web}\n  vpclab explain{flag} {web} {to}\n  vpclab down{flag}\n"
    )
}

/// To the lab that is meant: the named one, or the only one that runs.
#[cfg(target_os = "linux")]
pub fn connect(lab: &LabArg) -> Result<crate::runtime::client::Client, Failure> {
    let dir = choose(lab)?;
    Ok(crate::runtime::client::Client::connect(dir.path())?)
}

#[cfg(target_os = "linux")]
pub fn choose(lab: &LabArg) -> Result<crate::host::rundir::RunDir, Failure> {
    crate::runtime::launch::choose(lab.lab.as_deref()).map_err(|choice| Failure::input(choice.to_string()))
}

#[cfg(target_os = "linux")]
impl From<crate::runtime::launch::LaunchError> for Failure {
    fn from(e: crate::runtime::launch::LaunchError) -> Failure {
        Failure { exit: e.exit, message: e.message }
    }
}
