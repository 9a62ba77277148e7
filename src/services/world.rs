//! What every service shares: the plan in force, time, credentials, the policies' judge, ids, the audit ring.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use rustls::ServerConfig;

use super::ca::{Ca, CaError};
use super::dial::Dialer;
use super::events::Events;
use super::http_types::{ConnContext, Gate};
use crate::base::{Clock, UnixTime};
use crate::model::catalogue;
use crate::model::credentials::{CredentialBook, RoleCredentials};
use crate::model::plan::{Backend, Plan, ServicePlan};
use crate::policy::{Document, Kind, PolicyProblem};

/// Shared by all services of a lab.
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub dialer: Arc<dyn Dialer>,
    pub keyring: Keyring,
    pub events: Events,
    pub ids: Ids,
    pub dial_timeout: Duration,
    /// Wall-clock milliseconds at the clock's origin.
    epoch_ms: u64,
    current: RwLock<Arc<Compiled>>,
}

impl World {
    pub(super) fn new(
        compiled: Compiled,
        clock: Arc<dyn Clock>,
        dialer: Arc<dyn Dialer>,
        credentials: Arc<RwLock<Arc<CredentialBook>>>,
        seed: [u8; 32],
        dial_timeout: Duration,
    ) -> World {
        let epoch_ms = (clock.unix().0 * 1_000).saturating_sub(clock.now().as_millis());
        let keyring = Keyring { book: credentials, issued: RwLock::default() };
        World {
            clock,
            dialer,
            keyring,
            events: Events::default(),
            ids: Ids::new(seed),
            dial_timeout,
            epoch_ms,
            current: RwLock::new(Arc::new(compiled)),
        }
    }

    /// The plan in force and what was made of it.
    pub fn current(&self) -> Arc<Compiled> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, compiled: Arc<Compiled>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = compiled;
    }

    pub fn unix(&self) -> UnixTime {
        self.clock.unix()
    }

    /// Milliseconds since 1970, monotonic: what SQS stamps messages with.
    pub fn unix_ms(&self) -> u64 {
        self.epoch_ms + self.clock.now().as_millis()
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("events", &self.events).finish_non_exhaustive()
    }
}

/// A plan as the services use it: policies parsed, certificates made. Replaced whole.
#[derive(Debug)]
pub struct Compiled {
    pub plan: Arc<Plan>,
    /// In the order of `Plan::endpoints`.
    pub endpoints: Vec<Arc<GateFacts>>,
    by_id: HashMap<String, usize>,
    roles: HashMap<(String, String), Arc<Document>>,
    ca: Arc<Ca>,
    /// What was asked for of the public side, by service and region: services of all regions are there, few are ever used.
    public: Mutex<HashMap<(&'static str, &'static str), Arc<GateFacts>>>,
}

impl Compiled {
    /// # Errors
    /// A policy that `policy::check` refuses, or a certificate that cannot be made.
    pub fn new(plan: Arc<Plan>, ca: &Arc<Ca>) -> Result<Compiled, CompileError> {
        let mut roles = HashMap::new();
        for role in &plan.roles {
            let document =
                Document::of(Kind::Role, &role.policy).map_err(|p| CompileError::policy(&role.common.name, &p))?;
            roles.insert((role.account.clone(), role.common.name.clone()), Arc::new(document));
        }
        let mut endpoints = Vec::with_capacity(plan.endpoints.len());
        for (index, endpoint) in plan.endpoints.iter().enumerate() {
            let service = &plan.services[endpoint.service];
            let policy = Document::of(Kind::Endpoint, &endpoint.policy)
                .map_err(|p| CompileError::policy(&endpoint.common.path, &p))?;
            let tls = match service.backend {
                Backend::Tcp(_) => None,
                _ => Some(ca.server_config_for(&plan, index)?),
            };
            let vpc = &plan.vpcs[endpoint.vpc];
            endpoints.push(Arc::new(GateFacts {
                kind: if endpoint.is_gateway() { GateKind::Gateway } else { GateKind::Interface },
                path: endpoint.common.path.clone(),
                through: Some(Through {
                    id: endpoint.common.id.clone(),
                    account: vpc.account.clone(),
                    vpc_id: vpc.common.id.clone(),
                    policy: Arc::new(policy),
                }),
                service: service.name.clone(),
                region: service.region.clone(),
                account: service.account.clone(),
                backend: service.backend.clone(),
                tls,
            }));
        }
        let by_id = plan.endpoints.iter().enumerate().map(|(at, e)| (e.common.id.clone(), at)).collect();
        Ok(Compiled { plan, endpoints, by_id, roles, ca: Arc::clone(ca), public: Mutex::default() })
    }

    /// The endpoint with this id, as the plan in force describes it.
    pub fn endpoint(&self, id: &str) -> Option<&Arc<GateFacts>> {
        self.by_id.get(id).map(|&at| &self.endpoints[at])
    }

    /// What a connection meets: its endpoint, or the service at the public address that it is for. `None`: the
    /// endpoint is gone, or nothing is at this address.
    ///
    /// # Errors
    /// The public service's certificate cannot be made.
    pub fn gate(&self, conn: &ConnContext) -> Result<Option<Arc<GateFacts>>, CaError> {
        match &conn.gate {
            Gate::Endpoint(id) => Ok(self.endpoint(id).cloned()),
            Gate::Public => self.public(*conn.server.ip()),
        }
    }

    /// The policy of a role.
    pub fn role(&self, account: &str, name: &str) -> Option<&Arc<Document>> {
        self.roles.get(&(account.to_owned(), name.to_owned()))
    }

    fn public(&self, addr: Ipv4Addr) -> Result<Option<Arc<GateFacts>>, CaError> {
        let Some((service, region)) = self.plan.public_blocks.service_at(addr) else { return Ok(None) };
        let mut made = self.public.lock().unwrap_or_else(PoisonError::into_inner);
        // By what it is, not by address: a service may have a whole block of them.
        let key = (service.name, region);
        if let Some(found) = made.get(&key) {
            return Ok(Some(Arc::clone(found)));
        }
        // The FIPS name of a service is another door to the same.
        let plain = service.name.strip_suffix("-fips").and_then(catalogue::service);
        let served = plain.filter(|p| self.planned(service.name, region).is_none() && self.has(p, region));
        let served = served.unwrap_or(service);
        let planned = self.planned(served.name, region);
        let backend = planned.map_or(Backend::Builtin, |s| s.backend.clone());
        let tls = match backend {
            Backend::Tcp(_) => None,
            _ => Some(self.ca.public_server_config(service, region)?),
        };
        let facts = Arc::new(GateFacts {
            kind: GateKind::Public,
            path: "public".into(),
            through: None,
            service: served.name.to_owned(),
            region: region.to_owned(),
            account: planned.map_or_else(|| self.plan.default_account.clone(), |s| s.account.clone()),
            backend,
            tls,
        });
        made.insert(key, Arc::clone(&facts));
        Ok(Some(facts))
    }

    /// What the file says of a service: of this region, or else of another, because a backend and an account are
    /// given for all.
    fn planned(&self, service: &str, region: &str) -> Option<&ServicePlan> {
        let of = |s: &&ServicePlan| s.name == service;
        let here = self.plan.services.iter().filter(of).find(|s| s.region == region);
        here.or_else(|| self.plan.services.iter().find(of))
    }

    fn has(&self, service: &catalogue::Service, region: &str) -> bool {
        service.builtin || self.planned(service.name, region).is_some()
    }
}

/// Why a plan cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("policy of {0}: {1}")]
    Policy(String, String),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("contents: {0}")]
    Contents(String),
}

impl CompileError {
    fn policy(of: &str, problems: &[PolicyProblem]) -> CompileError {
        let all: Vec<String> = problems.iter().map(|p| format!("{} {}", p.path, p.message)).collect();
        CompileError::Policy(of.to_owned(), all.join("; "))
    }
}

/// What requests that came in by one way need to know of it: the service, and the endpoint if they came through one.
#[derive(Debug)]
pub struct GateFacts {
    pub kind: GateKind,
    /// `VPC.NAME` of the endpoint; `public`.
    pub path: String,
    /// `None` on the public side.
    pub through: Option<Through>,
    /// Short name in the catalogue: `sqs`.
    pub service: String,
    pub region: String,
    /// The account of the service's contents in the plan.
    pub account: String,
    pub backend: Backend,
    /// Absent where raw bytes are passed on.
    pub tls: Option<Arc<ServerConfig>>,
}

impl GateFacts {
    /// The endpoint's policy. On the public side none is asked.
    pub fn policy(&self) -> Option<&Arc<Document>> {
        self.through.as_ref().map(|t| &t.policy)
    }
}

/// The endpoint that requests come through.
#[derive(Debug)]
pub struct Through {
    /// `aws:SourceVpce`.
    pub id: String,
    /// Owner of the VPC: `aws:VpceAccount`.
    pub account: String,
    /// `aws:SourceVpc`: the VPC that the endpoint is attached to.
    pub vpc_id: String,
    pub policy: Arc<Document>,
}

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateKind {
    Interface,
    Gateway,
    Public,
}

impl GateKind {
    /// `interface endpoint`, `gateway endpoint`, `public`.
    pub const fn as_str(self) -> &'static str {
        match self {
            GateKind::Interface => "interface endpoint",
            GateKind::Gateway => "gateway endpoint",
            GateKind::Public => "public",
        }
    }
}

/// Every credential that may sign: those of the instances' roles, and those that STS gave out.
#[derive(Debug)]
pub struct Keyring {
    book: Arc<RwLock<Arc<CredentialBook>>>,
    issued: RwLock<HashMap<String, Arc<RoleCredentials>>>,
}

/// Credentials that STS gave out and that are kept at a time.
const MAX_ISSUED: usize = 10_000;

impl Keyring {
    /// The credentials of an access key, expired ones included: the caller looks at `expires`.
    pub fn find(&self, access_key: &str) -> Option<Arc<RoleCredentials>> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let found = book.by_access_key(access_key).cloned();
        drop(book);
        found.or_else(|| self.issued.read().unwrap_or_else(PoisonError::into_inner).get(access_key).cloned())
    }

    /// Takes credentials that STS made; expired ones make room. `false` when full.
    pub(super) fn issue(&self, credentials: RoleCredentials, now: UnixTime) -> bool {
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= MAX_ISSUED {
            issued.retain(|_, c| c.expires > now);
        }
        let room = issued.len() < MAX_ISSUED;
        if room {
            issued.insert(credentials.access_key.clone(), Arc::new(credentials));
        }
        room
    }
}

/// Ids and secrets, reproducible from the seed: HMAC-SHA256 of a counter.
#[derive(Debug)]
pub struct Ids {
    key: hmac::Key,
    next: AtomicU64,
}

impl Ids {
    pub fn new(seed: [u8; 32]) -> Ids {
        Ids { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), next: AtomicU64::new(0) }
    }

    /// 32 bytes that nobody without the seed can foretell.
    pub fn bytes(&self) -> [u8; 32] {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.key, &n.to_be_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// A version 4 UUID in form: request ids, message ids, secret versions.
    pub fn uuid(&self) -> String {
        let mut b = self.bytes();
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        let h: String = b[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }

    /// `n` (at most 32) characters of `alphabet`.
    pub fn text(&self, n: usize, alphabet: &[u8]) -> String {
        self.bytes().iter().take(n).map(|b| char::from(alphabet[usize::from(*b) % alphabet.len()])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_form_and_follow_from_the_seed() {
        let (a, b) = (Ids::new([7; 32]), Ids::new([7; 32]));
        let first = a.uuid();
        assert_eq!(first, b.uuid());
        assert_ne!(first, a.uuid());
        assert_eq!(first.len(), 36);
        assert_eq!(&first[14..15], "4");
        assert!(matches!(&first[19..20], "8" | "9" | "a" | "b"));
        assert_ne!(Ids::new([8; 32]).uuid(), first);
    }
}
