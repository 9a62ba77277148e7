//! What instances do by themselves: the listeners of `listen:` and the commands of `run:`, each by its name, so that one
//! can be ended or begun while the others go on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::clock::OsClock;
use super::listeners::{self, Identity};
use super::runs::{self, Log};
use crate::base::{Clock, Proto, UnixTime};
use crate::control::api::LogLine;
use crate::host::client::KeeperClient;
use crate::host::cmd::{BindSocket, RunSpec};
use crate::model::Plan;
use crate::model::plan::{InstancePlan, Listener, RunCommand};
use crate::services::{Ca, CaError};

/// Connections that wait in the kernel for a listener to take them.
const BACKLOG: u16 = 256;

/// How long commands may take to end: the keeper kills after two seconds.
const ENDING: Duration = Duration::from_secs(3);

/// What is needed to begin any of it.
#[derive(Clone)]
pub struct Hands {
    pub keeper: KeeperClient,
    pub tokio: tokio::runtime::Handle,
    pub clock: OsClock,
    pub ca_bundle: PathBuf,
}

/// Whose listener: instance path, protocol, port.
pub type ListenerKey = (String, u8, u16);

/// Which command: instance path, and its place in `run`.
pub type RunKey = (String, usize);

/// A listener by what makes it what it is.
pub type Listens = BTreeMap<ListenerKey, (Identity, Listener)>;
pub type Runs = BTreeMap<RunKey, RunSpec>;

/// The listeners that a plan wants.
pub fn listens(plan: &Plan) -> Listens {
    let mut wanted = Listens::new();
    for instance in &plan.instances {
        let Some(&first) = instance.enis.first() else { continue };
        let path = &instance.common.path;
        let others = instance.enis.iter().skip(1).map(|eni| plan.eni(*eni).ip).collect();
        let who = Identity { path: path.clone(), address: plan.eni(first).ip, others };
        for listener in &instance.listen {
            wanted.insert((path.clone(), listener.proto.0, listener.port), (who.clone(), listener.clone()));
        }
    }
    wanted
}

/// The commands that a plan wants.
pub fn commands(plan: &Plan, ca_bundle: &Path) -> Runs {
    let of = |i: &InstancePlan, run: &RunCommand| RunSpec {
        argv: vec!["sh".into(), "-c".into(), run.cmd.clone()],
        cwd: plan.dir.clone(),
        region: plan.region_of(i).to_owned(),
        env: i.env.clone(),
        user: run.user.clone(),
        ca_bundle: Some(ca_bundle.to_owned()),
    };
    let all = plan
        .instances
        .iter()
        .flat_map(|i| i.run.iter().enumerate().map(move |(n, run)| ((i.common.path.clone(), n), of(i, run))));
    all.collect()
}

/// Who vouches for listeners' names. A CA's name constraints are as old as the CA: names that come later have one of
/// their own, trusted beside the first.
pub struct Authorities {
    all: Vec<Arc<Ca>>,
}

impl Authorities {
    pub fn new(first: Arc<Ca>) -> Authorities {
        Authorities { all: vec![first] }
    }

    /// Makes a CA for the names of a plan's listeners that none may vouch for; its certificate, where one was made.
    ///
    /// Errors: a name that is no DNS name.
    pub fn extend(&mut self, plan: &Plan, now: UnixTime) -> Result<Option<String>, CaError> {
        let listeners = plan.instances.iter().flat_map(|i| &i.listen);
        let names: Vec<String> = listeners.filter_map(|l| l.tls.clone()).filter(|n| self.of(n).is_none()).collect();
        if names.is_empty() {
            return Ok(None);
        }
        let ca = Ca::generate(&plan.name, &names, now)?;
        let pem = ca.pem();
        self.all.push(Arc::new(ca));
        Ok(Some(pem))
    }

    fn of(&self, name: &str) -> Option<&Ca> {
        self.all.iter().map(AsRef::as_ref).find(|ca| ca.permits(name))
    }

    fn acceptor(&self, name: &String) -> Result<TlsAcceptor, CaError> {
        let ca = self.of(name).ok_or_else(|| CaError::NotPermitted(name.clone()))?;
        Ok(TlsAcceptor::from(ca.server_config(std::slice::from_ref(name), false)?))
    }
}

/// What is under way.
#[derive(Default)]
pub struct Work {
    listeners: BTreeMap<ListenerKey, JoinHandle<()>>,
    /// The keeper's number of the command, where it was started, and the task that follows it.
    runs: BTreeMap<RunKey, (u64, JoinHandle<()>)>,
}

/// A listener whose socket is bound, not yet served.
pub struct Bound {
    key: ListenerKey,
    serve: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Work {
    pub fn begin(&mut self, hands: &Hands, bound: Vec<Bound>) {
        for Bound { key, serve } in bound {
            self.listeners.insert(key, hands.tokio.spawn(serve));
        }
    }

    /// Ends a listener, connections included, and returns when its socket is closed. Not from a task.
    pub fn stop_listening(&mut self, hands: &Hands, key: &ListenerKey) {
        let Some(task) = self.listeners.remove(key) else { return };
        task.abort();
        // An error says that it was aborted.
        let _ = hands.tokio.block_on(task);
    }

    /// A command that cannot be started says so in its log: the lab is up all the same, as with a failing unit of a
    /// machine.
    pub fn run(&mut self, hands: &Hands, key: RunKey, spec: RunSpec, log: &Log) {
        let _inside = hands.tokio.enter();
        let command = key.1;
        match runs::start(&hands.keeper, &key.0, command, spec, log.clone(), hands.clock) {
            Ok((run, following)) => {
                self.runs.insert(key, (run, hands.tokio.spawn(following)));
            }
            Err(error) => log.put(LogLine {
                time_ms: hands.clock.unix_ms(hands.clock.now()),
                command,
                stream: "lab".into(),
                text: format!("not started: {error}"),
            }),
        }
    }

    /// Ends commands, SIGTERM and then SIGKILL, and returns when they have ended, so that others may have their ports.
    /// Not from a task.
    pub fn end_runs(&mut self, hands: &Hands, keys: &[RunKey]) {
        let ending: Vec<(u64, JoinHandle<()>)> = keys.iter().filter_map(|key| self.runs.remove(key)).collect();
        for (run, _) in &ending {
            // The keeper is gone, and the lab with it.
            let _ = hands.keeper.kill(*run);
        }
        hands.tokio.block_on(async {
            let all = futures::future::join_all(ending.into_iter().map(|(_, following)| following));
            // What has left its process group and holds the output open is not waited for.
            let _ = tokio::time::timeout(ENDING, all).await;
        });
    }

    /// Its namespace was removed, and all in it.
    pub fn forget_runs(&mut self, instance: &str) {
        self.runs.retain(|(path, _), _| path != instance);
    }
}

/// What a listener binds. A datagram's answer has to leave from the address that was asked, and where there are several
/// only a socket of that address does so: else the kernel takes that of the ENI which is nearest.
fn addresses(who: &Identity, proto: Proto) -> Vec<Ipv4Addr> {
    if proto != Proto::UDP || who.others.is_empty() {
        return vec![Ipv4Addr::UNSPECIFIED];
    }
    [Ipv4Addr::LOCALHOST, who.address].into_iter().chain(who.others.iter().copied()).collect()
}

/// Binds a listener in its instance's namespace.
///
/// Errors: the port is taken, the folder is not there, or nobody may vouch for the name.
pub fn bind(hands: &Hands, authorities: &Authorities, who: &Identity, listener: &Listener) -> anyhow::Result<Bound> {
    let _inside = hands.tokio.enter();
    let what = || format!("instance {}, listen {} {}", who.path, listener.proto, listener.port);
    let tls = match &listener.tls {
        Some(name) => Some(authorities.acceptor(name).with_context(what)?),
        None => None,
    };
    let serves = addresses(who, listener.proto).into_iter().map(|ip| {
        let addr = SocketAddrV4::new(ip, listener.port);
        let socket = if listener.proto == Proto::UDP {
            BindSocket::Udp { addr }
        } else {
            BindSocket::TcpListener { addr, backlog: BACKLOG }
        };
        let socket = hands.keeper.bind(&who.path, socket).with_context(what)?;
        listeners::serve(socket, listener, tls.clone(), who).with_context(what)
    });
    let serves = serves.collect::<anyhow::Result<Vec<_>>>()?;
    let serve = async { drop(futures::future::join_all(serves).await) };
    let key = (who.path.clone(), listener.proto.0, listener.port);
    Ok(Bound { key, serve: Box::pin(serve) })
}
