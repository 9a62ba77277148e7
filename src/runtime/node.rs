//! A lab inside its router process: made from the accepted text, held together until it ends.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::Notify;

use super::backends::{KeeperDialer, ServiceBackends};
use super::bridge::{BridgeGauges, Notices};
use super::change::{self, Changing};
use super::clock::OsClock;
use super::credentials::{self, SharedBook};
use super::faults::{FaultBook, Health};
use super::numbers::Numbers;
use super::poller::Poller;
use super::router::{self, RouterHandle, RouterParts};
use super::runs::Log;
use super::server;
use super::state::{MadeInstance, State};
use super::tables::Tables;
use super::terminal::Answers;
use super::work::{self, Authorities, Hands, Work};
use crate::base::{Clock, EniIx, Instant, UnixTime};
use crate::control::dropped::History;
use crate::control::store::{self, Accepted};
use crate::host::client::{Keeper, KeeperClient};
use crate::host::cmd::{EniHost, EtcFiles, InstanceHost};
use crate::host::keeper::RouterStart;
use crate::host::rundir::RunDir;
use crate::host::status::{self, Status};
use crate::host::tun::Tun;
use crate::model::plan::{InstancePlan, VpcPlan};
use crate::model::{Plan, catalogue};
use crate::services::{Ca, DIAL_TIMEOUT, Services, ServicesConfig};
use crate::stack::StackLimits;

/// Threads that serve TLS and HTTP.
const WORKERS: usize = 2;

/// How long tasks may take to end when the lab does.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The lab's own CA, in the run directory.
pub(super) const CA: &str = "ca.pem";

/// Where the output of `run` commands is kept, in the run directory.
const LOGS: &str = "logs";

/// Packets that a TUN queues for the router before the sender loses some.
const TX_QUEUE: u32 = 1_000;

/// `tcp_rmem` and `tcp_wmem` of instances: minimum, default, maximum. The maximum bounds the bytes in flight through
/// the router, which is what a second flow waits for (0.3 to 0.5 ms at 1 to 2 MB); the rest is the kernel's own.
const RMEM: [u32; 3] = [4_096, 131_072, 4 << 20];
const WMEM: [u32; 3] = [4_096, 16_384, 4 << 20];

/// The whole life of a router process, from its arguments after `__router` to its exit code.
pub fn main(args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    crate::host::memory::keep_large_blocks_apart();
    let start = match RouterStart::parse(args) {
        Ok(start) => start,
        Err(message) => {
            eprintln!("vpclab: {message}");
            return ExitCode::from(2);
        }
    };
    let RouterStart { run_dir, keeper, status, args: _ } = start;
    let (node, ends) = match Node::start(&run_dir, keeper) {
        Ok(started) => started,
        Err(failure) => {
            let message = format!("{:#}", failure.error);
            eprintln!("vpclab: {message}");
            status::tell(&status, &Status::Failed { message, exit: failure.exit });
            return ExitCode::from(failure.exit);
        }
    };
    status::tell(&status, &Status::Ready);
    drop(status);
    let reason = ends.recv().unwrap_or_else(|_| "nobody is left to end the lab".into());
    eprintln!("vpclab: lab {} ends: {reason}", node.shared.state().plan.name);
    node.stop();
    ExitCode::SUCCESS
}

/// Why a lab does not come up, and the exit code for it.
pub struct StartFailure {
    pub error: anyhow::Error,
    pub exit: u8,
}

impl<E: Into<anyhow::Error>> From<E> for StartFailure {
    fn from(error: E) -> StartFailure {
        StartFailure { error: error.into(), exit: 3 }
    }
}

/// A running lab.
pub struct Node {
    pub shared: Arc<Shared>,
    tokio: tokio::runtime::Runtime,
    socket: PathBuf,
}

/// What the control server's threads may look at.
pub struct Shared {
    state: RwLock<Arc<State>>,
    pub run_dir: PathBuf,
    pub clock: OsClock,
    pub router: RouterHandle,
    pub services: Arc<Services>,
    pub credentials: SharedBook,
    pub ca_pem: String,
    pub keeper: KeeperClient,
    pub keeper_info: Keeper,
    pub hands: Hands,
    /// Held by whoever changes the lab: one at a time.
    pub changing: Mutex<Changing>,
    drops: Mutex<History>,
    /// Told when the time of the next change by itself may be another.
    pub alarm: Arc<Notify>,
    /// When the lab was ready.
    pub since: Instant,
    end: Sender<String>,
}

impl Shared {
    /// As the lab stands now. What the router tells may be of a later one: see `Tables::state`.
    pub fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace_state(&self, state: Arc<State>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What was dropped under plans before the router's. Held from before the router is asked, so that nothing is told
    /// twice and nothing is missing.
    pub(super) fn drops(&self) -> MutexGuard<'_, History> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the lab.
    pub fn end(&self, reason: &str) {
        // Full: it ends already.
        let _ = self.end.try_send(reason.to_owned());
    }

    pub fn ca_bundle(&self) -> PathBuf {
        self.run_dir.join("ca-bundle.pem")
    }

    /// Where [`RunDir::instance`] has the files of an instance.
    pub fn files_of(&self, path: &str) -> PathBuf {
        self.run_dir.join("instances").join(path)
    }

    /// Output of an instance's commands.
    pub(super) fn new_log(&self, instance: &str) -> Log {
        Log::new(&self.run_dir.join(LOGS), instance)
    }
}

impl Node {
    /// Makes everything, in the order in which it may be needed; what was made before a failure ends with the process,
    /// and the keeper, which sees that end, removes the rest.
    pub fn start(run_dir: &RunDir, keeper_socket: OwnedFd) -> Result<(Node, Receiver<String>), StartFailure> {
        let (accepted, plan) = read_plan(run_dir.path())?;
        Node::from_plan(run_dir, keeper_socket, accepted, plan)
    }

    /// The same with a plan that is there already: for embedding and tests.
    pub fn from_plan(
        run_dir: &RunDir,
        keeper_socket: OwnedFd,
        accepted: Accepted,
        plan: Arc<Plan>,
    ) -> Result<(Node, Receiver<String>), StartFailure> {
        let (end, ends) = bounded(4);
        let clock = OsClock::new();

        let on_end = end.clone();
        let keeper = KeeperClient::new(keeper_socket, move |reason| {
            let _ = on_end.try_send(reason);
        })
        .context("keeper")?;
        let keeper_info = keeper.hello().context("keeper")?;

        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(64)
            .thread_name("services")
            .enable_all()
            .build()
            .context("threads of the services")?;

        let mut instances = Vec::with_capacity(plan.instances.len());
        let mut tuns: Vec<Option<Tun>> = plan.enis.iter().map(|_| None).collect();
        for at in 0..plan.instances.len() {
            let (made, own) = make_instance(&keeper, &plan, at, clock.unix())?;
            for (eni, tun) in own {
                tuns[eni.at()] = Some(tun);
            }
            instances.push(Arc::new(made));
        }

        let ca = Arc::new(Ca::for_plan(&plan, clock.unix())?);
        let ca_pem = ca.pem();
        write_private(&run_dir.path().join(CA), ca_pem.as_bytes())?;
        write_private(&run_dir.ca_bundle(), (system_bundle() + &ca_pem).as_bytes())?;

        let book = Arc::new(credentials::issue(&plan, &clock));
        let shared_book: SharedBook = Arc::new(RwLock::new(book.clone()));
        let services = Services::new(ServicesConfig {
            plan: plan.clone(),
            ca: ca.clone(),
            credentials: shared_book.clone(),
            clock: Arc::new(clock),
            dialer: Arc::new(KeeperDialer::new(keeper.clone())),
            seed: credentials::random(),
            dial_timeout: DIAL_TIMEOUT,
        })
        .context("services")?;
        let services = Arc::new(services);

        let poller = Poller::new().context("epoll")?;
        let gauges: Arc<BridgeGauges> = Arc::default();
        let stack = stack_limits(&plan);
        let notices = Notices::new(stack.connections as usize * 2, poller.waker());
        let answers = Answers::new(poller.waker());
        let backends = ServiceBackends::new(services.clone(), tokio.handle().clone(), gauges.clone());
        let logs_dir = run_dir.path().join(LOGS);
        std::fs::create_dir_all(&logs_dir).context("folder of the logs")?;
        let logs: Vec<Log> = plan.instances.iter().map(|i| Log::new(&logs_dir, &i.common.path)).collect();
        let mut changing = Changing {
            work: Work::default(),
            authorities: Authorities::new(ca),
            faults: FaultBook::default(),
            health: Health::default(),
        };
        changing.faults.follow(&plan, clock.now());
        let in_force = Arc::new(Plan { faults: changing.faults.in_force(clock.now()), ..Plan::clone(&plan) });
        changing.health.look(&in_force, clock.now());
        let state = Arc::new(State {
            generation: 1,
            accepted: Arc::new(accepted),
            written: plan.clone(),
            numbers: Arc::new(Numbers::new(&plan)),
            plan: in_force,
            instances,
            logs,
        });
        let router = router::start(RouterParts {
            clock,
            tables: Tables::compile(state.clone(), &changing.health.plan_for_names(&state.plan), book),
            stack,
            seed: u64::from_ne_bytes(credentials::random()),
            poller,
            answers,
            notices,
            gauges,
            backends: Box::new(backends),
            tuns,
            on_end: end.clone(),
        })
        .context("router thread")?;

        let hands =
            Hands { keeper: keeper.clone(), tokio: tokio.handle().clone(), clock, ca_bundle: run_dir.ca_bundle() };
        let listens = work::listens(&plan);
        let bound = listens.values().map(|(who, listener)| work::bind(&hands, &changing.authorities, who, listener));
        let bound = bound.collect::<anyhow::Result<Vec<_>>>()?;
        changing.work.begin(&hands, bound);
        for (key, spec) in work::commands(&plan, &hands.ca_bundle) {
            if let Some(at) = plan.instances.iter().position(|i| i.common.path == key.0) {
                changing.work.run(&hands, key, spec, &state.logs[at]);
            }
        }

        let socket = run_dir.control_socket();
        let alarm = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            run_dir: run_dir.path().to_owned(),
            clock,
            router,
            services,
            credentials: shared_book,
            ca_pem,
            keeper,
            keeper_info,
            hands,
            changing: Mutex::new(changing),
            drops: Mutex::default(),
            alarm: alarm.clone(),
            since: clock.now(),
            end: end.clone(),
        });
        server::start(shared.clone(), &socket).context("control socket")?;
        tokio.spawn(change::renew_credentials(Arc::downgrade(&shared)));
        tokio.spawn(change::keep_time(Arc::downgrade(&shared), alarm));
        tokio.spawn(end_on_signal(end));
        Ok((Node { shared, tokio, socket }, ends))
    }

    /// Ends tasks and threads. The keeper removes namespaces and the run directory when this process is gone.
    pub fn stop(self) {
        // No error matters any more: the end of this process does the same.
        let _ = std::fs::remove_file(&self.socket);
        let _ = self.shared.keeper.shutdown();
        self.tokio.shutdown_timeout(LAST_WORDS);
    }
}

/// The accepted text, and the plan it means.
fn read_plan(run_dir: &Path) -> Result<(Accepted, Arc<Plan>), StartFailure> {
    let text = std::fs::read_to_string(run_dir.join(store::FILE)).context("accepted text")?;
    let accepted = Accepted::from_json(&text).context("accepted text")?;
    match store::load(&accepted) {
        Ok(plan) => Ok((accepted, Arc::new(plan))),
        Err(report) => Err(StartFailure { error: anyhow!("{}", report.render(false)), exit: 2 }),
    }
}

/// Has the keeper make an instance; beside it its devices, each with its interface in the plan.
pub(super) fn make_instance(
    keeper: &KeeperClient,
    plan: &Plan,
    at: usize,
    launched: UnixTime,
) -> anyhow::Result<(MadeInstance, Vec<(EniIx, Tun)>)> {
    let instance = &plan.instances[at];
    let made = keeper
        .make_instance(instance_host(plan, instance))
        .with_context(|| format!("instance {}", instance.common.path))?;
    let tuns = instance.enis.iter().copied().zip(made.tuns.into_iter().map(Tun::from_fd)).collect();
    Ok((MadeInstance { netns: made.netns, netns_path: made.netns_path, launched }, tuns))
}

/// An instance as the kernel has to know it.
pub(super) fn instance_host(plan: &Plan, instance: &InstancePlan) -> InstanceHost {
    let vpc = instance.vpc().map(|vpc| &plan.vpcs[vpc]);
    let enis = instance.enis.iter().enumerate().map(|(n, &ix)| {
        let eni = plan.eni(ix);
        let (block, gateway) = plan.link_of(ix);
        EniHost {
            name: format!("eth{n}"),
            eni: eni.common.id.clone(),
            ip: eni.ip,
            prefix_len: block.len(),
            gateway,
            mtu: instance.mtu,
            tx_queue_len: TX_QUEUE,
        }
    });
    InstanceHost {
        lab: plan.name.clone(),
        path: instance.common.path.clone(),
        enis: enis.collect(),
        syn_retries: Some(plan.limits.syn_retries),
        forward: instance.forward.is_some(),
        congestion: Some("cubic".into()),
        rmem: Some(RMEM),
        wmem: Some(WMEM),
        files: EtcFiles {
            resolvers: vec![vpc.map_or(catalogue::PUBLIC_RESOLVER, VpcPlan::resolver)],
            search: vpc.map(VpcPlan::internal_domain).into_iter().collect(),
            hosts: hosts(plan, instance),
        },
    }
}

/// The instance's own names: as EC2 names it, and as the topology does.
pub fn hosts(plan: &Plan, instance: &InstancePlan) -> Vec<(Ipv4Addr, Vec<String>)> {
    let Some(&first) = instance.enis.first() else { return Vec::new() };
    let ip = plan.eni(first).ip;
    let own = instance.vpc().map(|vpc| format!("{}.{}", hostname(ip), plan.vpcs[vpc].internal_domain()));
    let names = own.into_iter().chain([hostname(ip), instance.common.name.clone()]);
    vec![(ip, names.collect())]
}

/// `ip-10-0-1-10`.
pub fn hostname(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("ip-{a}-{b}-{c}-{d}")
}

/// A window of 1 MB takes in twice what HAProxy carries, half of it did not (`vpclab bench`, endpoint up); connections
/// are bounded by their number and by their buffers' sum, here 2,730 at a time. What nobody fills is address space only.
fn stack_limits(plan: &Plan) -> StackLimits {
    StackLimits {
        idle: plan.limits.endpoint_idle,
        connections: 4_096,
        rx_buffer: 1 << 20,
        tx_buffer: 512 << 10,
        total_buffer_bytes: 4 << 30,
        ..StackLimits::default()
    }
}

/// The system's trusted certificates, as the usual distributions keep them; empty where there are none.
fn system_bundle() -> String {
    const PLACES: [&str; 6] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        "/usr/local/share/certs/ca-root-nss.crt",
    ];
    let mut bundle = PLACES.iter().find_map(|place| std::fs::read_to_string(place).ok()).unwrap_or_default();
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle
}

/// World-readable content (certificates), in a folder that only the owner enters.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StartFailure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(path)?;
        file.write_all(bytes)
    };
    Ok(write().with_context(|| format!("write {}", path.display()))?)
}

/// SIGTERM comes from `kill` and from the kernel when the keeper dies.
async fn end_on_signal(end: Sender<String>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    let reason = tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    };
    let _ = end.try_send(reason.to_owned());
}
