//! Layer 3: mock AWS services behind one front door.
//!
//! A connection to an endpoint's ENI, to the door of a gateway endpoint or to AWS's public side ([`ConnContext::at`]) becomes a
//! [`Session`] by [`Services::open`], which reaches the backend first: what
//! the client's SYN is answered with depends on it. The session then serves the byte stream that the endpoint's TCP
//! hands over: TLS with a leaf of the lab's CA, HTTP/1.1, signature, policies, and the service itself.
//!
//! TLS and HTTP read the clock of the operating system by themselves; everything else is told the time by `Clock`.

mod asked;
pub mod ca;
pub mod dial;
mod dynamodb;
mod echo;
pub mod errors;
pub mod events;
mod front;
#[cfg(test)]
mod gate_tests;
pub mod http_types;
mod rpc;
pub mod s3;
mod secretsmanager;
pub mod sigv4;
mod sniff;
mod sns;
mod sqs;
mod sts;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unbuilt;
mod upstream;
pub mod world;
pub mod xml;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

pub use ca::{Ca, CaError};
pub use dial::{Dialer, NoDialer, Stream};
pub use events::{Decision, Events, ServiceEvent};
pub use http_types::{ConnContext, Gate, Request, Response, Service, Source};
pub use world::{CompileError, Compiled, GateFacts, GateKind, World};

use crate::base::Clock;
use crate::model::credentials::CredentialBook;
use crate::model::plan::{Backend, Plan};
use dial::Unreached;
use front::Door;

/// How long a backend may take to accept before the client's SYN stays unanswered: the usual value of
/// [`ServicesConfig::dial_timeout`].
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the services of a lab are made from.
pub struct ServicesConfig {
    pub plan: Arc<Plan>,
    pub ca: Arc<Ca>,
    /// Replaced by `runtime` when credentials are renewed; read at every request.
    pub credentials: Arc<RwLock<Arc<CredentialBook>>>,
    pub clock: Arc<dyn Clock>,
    pub dialer: Arc<dyn Dialer>,
    /// For ids and for secrets that STS gives out: random in a lab, fixed in tests.
    pub seed: [u8; 32],
    /// After this time a dial counts as unanswered.
    pub dial_timeout: Duration,
}

/// All services of a lab.
pub struct Services {
    world: Arc<World>,
    ca: Arc<Ca>,
    builtin: HashMap<&'static str, Arc<dyn Service>>,
    upstream_tls: upstream::Trust,
}

/// What a new connection meets.
#[derive(Debug)]
pub enum Opened {
    /// The backend is there: answer the SYN, then [`Session::serve`].
    Ready(Session),
    /// The backend refused: the client gets a reset.
    Refused,
    /// The backend did not answer: nor does the endpoint.
    Silent,
}

/// One client connection whose backend is reached.
pub struct Session(Kind);

enum Kind {
    Http(Arc<Door>),
    Echo(Arc<Door>),
    Raw(Box<dyn Stream>),
}

impl Services {
    /// Makes the services and loads the contents that the plan gives them.
    ///
    /// # Errors
    /// What [`CompileError`] lists, and contents that cannot be read.
    pub fn new(config: ServicesConfig) -> Result<Services, CompileError> {
        let ServicesConfig { plan, ca, credentials, clock, dialer, seed, dial_timeout } = config;
        let compiled = Compiled::new(plan, &ca)?;
        let world = Arc::new(World::new(compiled, clock, dialer, credentials, seed, dial_timeout));
        let builtin = builtin(&world);
        let services = Services { world, ca, builtin, upstream_tls: upstream::Trust::default() };
        services.load()?;
        Ok(services)
    }

    /// Puts a new plan in force: for new connections and for the next request of open ones. Contents that are new in
    /// the plan are added; nothing that a service holds is removed.
    ///
    /// # Errors
    /// As [`Services::new`]; the plan before stays in force if certificates or policies fail.
    pub fn publish(&self, plan: Arc<Plan>) -> Result<(), CompileError> {
        self.replace(self.prepare(plan)?);
        self.load()
    }

    /// Makes what [`Services::replace`] puts in force.
    ///
    /// # Errors
    /// Certificates or policies that cannot be made.
    pub fn prepare(&self, plan: Arc<Plan>) -> Result<Arc<Compiled>, CompileError> {
        Compiled::new(plan, &self.ca).map(Arc::new)
    }

    /// Adds what is new in the contents of a plan that is to come; nothing that a service holds is removed.
    ///
    /// # Errors
    /// Contents that cannot be read.
    pub fn add_contents(&self, plan: &Plan) -> Result<(), CompileError> {
        self.builtin.values().try_for_each(|service| service.load(plan)).map_err(CompileError::Contents)
    }

    /// Puts a prepared plan in force; waits for nothing.
    pub fn replace(&self, prepared: Arc<Compiled>) {
        self.world.publish(prepared);
    }

    /// The plan in force, as services see it.
    pub fn in_force(&self) -> Arc<Compiled> {
        self.world.current()
    }

    /// Reaches the backend of the service that `conn` is for.
    pub async fn open(&self, conn: ConnContext) -> Opened {
        // Nothing is there, or no certificate can be made for it: a name of the catalogue that is none, which tests
        // rule out.
        let Ok(Some(gate)) = self.world.current().gate(&conn) else { return Opened::Refused };
        let addr = match &gate.backend {
            Backend::Builtin => {
                let service = match self.builtin.get(gate.service.as_str()) {
                    Some(service) => Arc::clone(service),
                    None => Arc::new(unbuilt::Unbuilt::new(&gate.service)) as Arc<dyn Service>,
                };
                let echo = gate.service == "echo";
                let door = Arc::new(Door { world: Arc::clone(&self.world), gate, conn, service });
                return Opened::Ready(Session(if echo { Kind::Echo(door) } else { Kind::Http(door) }));
            }
            Backend::Http { addr, .. } | Backend::Tcp(addr) => addr,
        };
        let stream = match tokio::time::timeout(self.world.dial_timeout, self.world.dialer.dial(addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return match dial::outcome(&error) {
                    Unreached::Refused => Opened::Refused,
                    Unreached::Silent => Opened::Silent,
                };
            }
            Err(_) => return Opened::Silent,
        };
        if let Backend::Tcp(_) = gate.backend {
            return Opened::Ready(Session(Kind::Raw(stream)));
        }
        let service =
            upstream::Upstream::new(Arc::clone(&self.world), Arc::clone(&gate), stream, self.upstream_tls.clone());
        let door = Door { world: Arc::clone(&self.world), gate, conn, service: Arc::new(service) };
        Opened::Ready(Session(Kind::Http(Arc::new(door))))
    }

    /// Requests and what became of them.
    pub fn events(&self) -> &Events {
        &self.world.events
    }

    /// What services share; for embedding and tests.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn load(&self) -> Result<(), CompileError> {
        let plan = Arc::clone(&self.world.current().plan);
        self.add_contents(&plan)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("builtin", &self.builtin.keys()).finish_non_exhaustive()
    }
}

impl Session {
    /// Raw bytes to a backend outside: how the connection ends is for that backend to see.
    pub fn is_raw(&self) -> bool {
        matches!(self.0, Kind::Raw(_))
    }

    /// Serves the client's bytes until either side is done. `broken` is called when a backend broke off in the middle of
    /// raw bytes, while the stream is still open: the client is to be reset, so that it does not take what it got for all.
    pub async fn serve<S>(self, stream: S, broken: impl FnOnce() + Send)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.0 {
            Kind::Raw(backend) => upstream::splice(stream, backend, broken).await,
            Kind::Http(door) => match door.conn.server.port() {
                443 => serve_tls(stream, door).await,
                80 => front::serve(stream, false, door).await,
                // A port that the topology chose: the client's first byte tells.
                _ => {
                    if let Ok((first, stream)) = sniff::first_byte(stream).await {
                        if first == Some(sniff::TLS_HANDSHAKE) {
                            serve_tls(stream, door).await;
                        } else {
                            front::serve(stream, false, door).await;
                        }
                    }
                }
            },
            Kind::Echo(door) => echo::serve(stream, door).await,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Http(_) => "Http",
            Kind::Echo(_) => "Echo",
            Kind::Raw(_) => "Raw",
        };
        f.debug_tuple("Session").field(&kind).finish()
    }
}

/// The services that this program has itself, by short name.
fn builtin(world: &Arc<World>) -> HashMap<&'static str, Arc<dyn Service>> {
    let sqs = Arc::new(sqs::Sqs::new(Arc::clone(world)));
    let sns = sns::Sns::new(Arc::clone(&sqs));
    let secrets = secretsmanager::SecretsManager::new(Arc::clone(world));
    let services: [(&'static str, Arc<dyn Service>); 7] = [
        ("dynamodb", Arc::new(dynamodb::DynamoDb::new(Arc::clone(world)))),
        ("echo", Arc::new(echo::Echo)),
        ("s3", Arc::new(s3::Front::new(Arc::clone(world)))),
        ("secretsmanager", Arc::new(secrets)),
        ("sns", Arc::new(sns)),
        ("sqs", sqs),
        ("sts", Arc::new(sts::Sts)),
    ];
    services.into()
}

async fn serve_tls<S>(stream: S, door: Arc<Door>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(config) = door.gate.tls.clone() else { return };
    // A failed handshake has sent its alert; the client's message says why.
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        front::serve(stream, true, door).await;
    }
}
