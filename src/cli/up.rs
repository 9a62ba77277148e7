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
pub use linux::*;

#[cfg(not(target_os = "linux"))]
pub fn run(_args: Args) -> Done {
    Err(Failure::host("a lab needs Linux: network namespaces and TUN devices"))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write;

    use super::*;
    use crate::control::api::{Ps, Reply, Request};
    use crate::runtime::client::{Client, ClientError};
    use crate::runtime::launch::{self, Launch, LaunchError, Running};

    pub fn run(args: Args) -> Done {
        let started = std::time::Instant::now();
        let (accepted, _) = crate::cli::topology::accept(&args.files)?;
        let lab = launch::launch(Launch { accepted, leash: args.attach, own_id: args.own_id })?;
        let ps = ps(&mut lab.client()?)?;
        eprintln!("lab {} is up after {} ms", lab.name, started.elapsed().as_millis());
        let mut out = std::io::stdout().lock();
        // Whoever reads may have gone away: the lab is up all the same.
        let _ = write!(out, "{}{}", crate::cli::ps::render(&ps), next_commands(&ps, args.attach));
        let _ = out.flush();
        drop(out);
        if args.attach { stay(lab) } else { Ok(0) }
    }

    /// To the lab that is meant: the named one, or the only one that runs.
    pub fn connect(lab: &LabArg) -> Result<Client, Failure> {
        Ok(Client::connect(choose(lab)?.path())?)
    }

    pub fn choose(lab: &LabArg) -> Result<crate::host::rundir::RunDir, Failure> {
        launch::choose(lab.lab.as_deref()).map_err(|choice| Failure::input(choice.to_string()))
    }

    pub fn ps(client: &mut Client) -> Result<Ps, Failure> {
        match client.ask(Request::Ps)? {
            Reply::Ps(ps) => Ok(ps),
            _ => Err(ClientError::Unexpected.into()),
        }
    }

    /// Until a signal, or until the lab ends otherwise.
    fn stay(lab: Running) -> Done {
        let (ends, end) = std::sync::mpsc::channel();
        let on_signal = ends.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
                let signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
                let waits = signals.into_iter().map(|mut s| Box::pin(async move { s.recv().await }));
                futures::future::select_all(waits).await;
            });
            let _ = on_signal.send(());
        });
        let run_dir = launch::choose(Some(&lab.name)).ok();
        std::thread::spawn(move || {
            // Another `down`, or a lab that fails, ends this process too.
            if let Some(run_dir) = run_dir {
                while !run_dir.wait_gone(std::time::Duration::from_secs(3600)) {}
            }
            let _ = ends.send(());
        });
        let _ = end.recv();
        lab.end()?;
        Ok(0)
    }

    fn next_commands(ps: &Ps, attached: bool) -> String {
        let Some(first) = ps.instances.first() else { return String::new() };
        let mut text = format!("\nvpclab exec {} -- COMMAND      run something there\n", first.name);
        if let Some(endpoint) = ps.endpoints.first() {
            text += &format!("vpclab explain {} endpoint:{}   why it gets there, or not\n", first.name, endpoint.name);
        }
        text += "vpclab drops                  what was dropped, and by which rule\n";
        text += if attached {
            "Ctrl-C                        ends it\n"
        } else {
            "vpclab down                   ends it\n"
        };
        text
    }

    impl From<LaunchError> for Failure {
        fn from(error: LaunchError) -> Failure {
            Failure { exit: error.exit, message: error.message }
        }
    }
}
