//! A lab inside its router process: made from the accepted text, held together until it ends.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::backends::{KeeperDialer, ServiceBackends};
use super::bridge::{BridgeGauges, Notices};
use super::clock::OsClock;
use super::credentials::{self, SharedBook};
use super::listeners::{self, Identity};
use super::poller::Poller;
use super::router::{self, RouterHandle, RouterParts};
use super::runs::{self, Log};
use super::server;
use super::tables::Tables;
use super::terminal::Answers;
use crate::base::{Clock, Instant, Proto};
use crate::control::store::{self, Accepted};
use crate::host::client::{Keeper, KeeperClient};
use crate::host::cmd::{BindSocket, EniHost, EtcFiles, InstanceHost, RunSpec};
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

/// Connections that wait in the kernel for a listener to take them.
const BACKLOG: u16 = 256;

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
    eprintln!("vpclab: lab {} ends: {reason}", node.shared.plan.name);
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
    pub plan: Arc<Plan>,
    pub accepted: Accepted,
    pub run_dir: PathBuf,
    pub clock: OsClock,
    pub router: RouterHandle,
    pub services: Arc<Services>,
    pub credentials: SharedBook,
    pub ca_pem: String,
    pub keeper: KeeperClient,
    pub keeper_info: Keeper,
    /// In the order of `Plan::instances`.
    pub instances: Vec<MadeInstance>,
    pub logs: Vec<Log>,
    /// When the lab was ready.
    pub since: Instant,
    end: Sender<String>,
}

/// What the host made for an instance.
pub struct MadeInstance {
    pub netns: OwnedFd,
    pub netns_path: PathBuf,
}

impl Shared {
    /// Ends the lab.
    pub fn end(&self, reason: &str) {
        // Full: it ends already.
        let _ = self.end.try_send(reason.to_owned());
    }

    /// `LAB.VPC.INSTANCE`.
    pub fn netns_name(&self, instance: usize) -> String {
        format!("{}.{}", self.plan.name, self.plan.instances[instance].common.path)
    }

    pub fn ca_bundle(&self) -> PathBuf {
        self.run_dir.join("ca-bundle.pem")
    }

    /// Where [`RunDir::instance`] has the files of an instance.
    pub fn files_of(&self, instance: usize) -> PathBuf {
        self.run_dir.join("instances").join(&self.plan.instances[instance].common.path)
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
        for instance in &plan.instances {
            let made = keeper
                .make_instance(instance_host(&plan, instance))
                .with_context(|| format!("instance {}", instance.common.path))?;
            for (eni, fd) in instance.enis.iter().zip(made.tuns) {
                tuns[eni.at()] = Some(Tun::from_fd(fd));
            }
            instances.push(MadeInstance { netns: made.netns, netns_path: made.netns_path });
        }

        let ca = Arc::new(Ca::for_plan(&plan, clock.unix())?);
        let ca_pem = ca.pem();
        write_private(&run_dir.path().join("ca.pem"), ca_pem.as_bytes())?;
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
        let backends = ServiceBackends::new(services.clone(), plan.clone(), tokio.handle().clone(), gauges.clone());
        let router = router::start(RouterParts {
            clock,
            tables: Tables::compile(plan.clone(), 1, book, clock.unix()),
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

        let logs_dir = run_dir.path().join("logs");
        std::fs::create_dir_all(&logs_dir).context("folder of the logs")?;
        let logs: Vec<Log> = plan.instances.iter().map(|i| Log::new(&logs_dir, &i.common.path)).collect();
        start_listeners(&plan, &keeper, &ca, &tokio)?;
        start_runs(&plan, &keeper, run_dir, &logs, clock, &tokio);

        let socket = run_dir.control_socket();
        let shared = Arc::new(Shared {
            plan,
            accepted,
            run_dir: run_dir.path().to_owned(),
            clock,
            router,
            services,
            credentials: shared_book,
            ca_pem,
            keeper,
            keeper_info,
            instances,
            logs,
            since: clock.now(),
            end: end.clone(),
        });
        server::start(shared.clone(), &socket).context("control socket")?;
        tokio.spawn(renew_credentials(Arc::downgrade(&shared)));
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

fn instance_host(plan: &Plan, instance: &InstancePlan) -> InstanceHost {
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

fn start_listeners(
    plan: &Plan,
    keeper: &KeeperClient,
    ca: &Ca,
    tokio: &tokio::runtime::Runtime,
) -> Result<Vec<AbortHandle>, StartFailure> {
    let _inside = tokio.enter();
    let mut tasks = Vec::new();
    for instance in &plan.instances {
        let Some(&first) = instance.enis.first() else { continue };
        let who = Identity { path: instance.common.path.clone(), address: plan.eni(first).ip };
        for listener in &instance.listen {
            let what = || format!("instance {}, listen {} {}", who.path, listener.proto, listener.port);
            let addr = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, listener.port);
            let socket = if listener.proto == Proto::UDP {
                BindSocket::Udp { addr }
            } else {
                BindSocket::TcpListener { addr, backlog: BACKLOG }
            };
            let socket = keeper.bind(&who.path, socket).with_context(what)?;
            let tls = match &listener.tls {
                Some(name) => {
                    Some(TlsAcceptor::from(ca.server_config(std::slice::from_ref(name), false).with_context(what)?))
                }
                None => None,
            };
            let serving = listeners::serve(socket, listener, tls, &who).with_context(what)?;
            tasks.push(tokio.spawn(serving).abort_handle());
        }
    }
    Ok(tasks)
}

/// A command that cannot be started says so in its log: the lab is up all the same, as with a failing unit of a machine.
fn start_runs(
    plan: &Plan,
    keeper: &KeeperClient,
    run_dir: &RunDir,
    logs: &[Log],
    clock: OsClock,
    tokio: &tokio::runtime::Runtime,
) {
    let _inside = tokio.enter();
    for (at, instance) in plan.instances.iter().enumerate() {
        for (command, run) in instance.run.iter().enumerate() {
            let spec = RunSpec {
                argv: vec!["sh".into(), "-c".into(), run.cmd.clone()],
                cwd: plan.dir.clone(),
                region: plan.region_of(instance).to_owned(),
                env: instance.env.clone(),
                user: run.user.clone(),
                ca_bundle: Some(run_dir.ca_bundle()),
            };
            match runs::start(keeper, &instance.common.path, command, spec, logs[at].clone(), clock) {
                Ok(following) => drop(tokio.spawn(following)),
                Err(error) => logs[at].put(crate::control::api::LogLine {
                    time_ms: clock.unix_ms(clock.now()),
                    command,
                    stream: "lab".into(),
                    text: format!("not started: {error}"),
                }),
            }
        }
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

/// Looks at the credentials' ends from time to time; the router thread gets its own copy of a renewed book.
async fn renew_credentials(shared: std::sync::Weak<Shared>) {
    loop {
        tokio::time::sleep(credentials::LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let before = current_book(&shared.credentials);
        credentials::renew_shared(&shared.plan, &shared.credentials, shared.clock.unix());
        let after = current_book(&shared.credentials);
        if !Arc::ptr_eq(&before, &after) {
            let handed = tokio::task::spawn_blocking(move || {
                shared.router.call(move |inside| inside.tables.credentials = after)
            });
            // A router that is gone ends the lab by itself.
            let _ = handed.await;
        }
    }
}

fn current_book(shared: &SharedBook) -> Arc<crate::model::credentials::CredentialBook> {
    shared.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
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
