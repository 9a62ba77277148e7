//! A request as the front door hands it to a service, and the trait of services.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};

use super::errors::{ApiError, AuthError, Dialect};
use super::events::Decision;
use super::world::{Compiled, GateFacts, World};
use crate::base::{EniIx, FiveTuple, UnixTime};
use crate::model::credentials::RoleCredentials;
use crate::model::plan::{EniOwner, Plan};
use crate::policy::{self, Document};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Body of a request: streams from the client.
pub type RequestBody = BoxBody<Bytes, BoxError>;
/// Body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
pub type Response = http::Response<ResponseBody>;

/// Which connection a session serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnContext {
    pub gate: Gate,
    /// As the service sees it: private through an endpoint, public on the public side.
    pub client: SocketAddrV4,
    /// The address and port asked for: an endpoint ENI's, or a public one of the service.
    pub server: SocketAddrV4,
}

/// Where a connection came in. An endpoint is named by its id, which a new plan does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// An interface or a gateway endpoint.
    Endpoint(Arc<str>),
    /// AWS's public side: the address asked for says which service and region.
    Public,
}

impl ConnContext {
    /// The connection of `tuple`, as its SYN has it, that ends at `eni` of `plan`. `None`: no TCP to a service ends
    /// there.
    pub fn at(plan: &Plan, eni: EniIx, tuple: FiveTuple) -> Option<ConnContext> {
        let gate = match plan.enis.get(eni.at())?.owner {
            EniOwner::Endpoint(at) | EniOwner::GatewayEndpoint(at) => {
                Gate::Endpoint(plan.endpoints.get(at)?.common.id.as_str().into())
            }
            EniOwner::PublicSide => Gate::Public,
            EniOwner::Instance(..) | EniOwner::NatGateway(_) | EniOwner::TgwAttachment(_) => return None,
        };
        Some(ConnContext {
            gate,
            client: SocketAddrV4::new(tuple.src, tuple.src_port),
            server: SocketAddrV4::new(tuple.dst, tuple.dst_port),
        })
    }
}

/// Where a request came from, by the condition keys of policies (IAM User Guide, "AWS global condition context keys",
/// "Properties of the network"). A key that is `None` is not in the request's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `aws:SourceIp`: the client's public address; absent where the request came through an endpoint.
    pub source_ip: Option<Ipv4Addr>,
    /// `aws:VpcSourceIp`: the client's private address, through an endpoint.
    pub vpc_source_ip: Option<Ipv4Addr>,
    /// `aws:SourceVpc`.
    pub vpc: Option<String>,
    /// `aws:SourceVpce`.
    pub vpce: Option<String>,
    /// `aws:VpceAccount`.
    pub vpce_account: Option<String>,
    /// `aws:SecureTransport`.
    pub secure: bool,
}

/// A service behind the front door.
pub trait Service: Send + Sync {
    /// Who looks at the signature.
    fn verification(&self) -> Verification;

    /// How refusals of this request are worded.
    fn dialect(&self, head: &Parts) -> Dialect;

    /// Makes the contents that the plan gives this service and that it has not yet.
    ///
    /// # Errors
    /// Contents that cannot be made, in one line.
    fn load(&self, plan: &Plan) -> Result<(), String> {
        let _ = plan;
        Ok(())
    }

    /// Answers one request. Errors of the protocol are answers too.
    fn handle(&self, request: Request) -> BoxFuture<'_, Response>;
}

/// Who checks signatures, and how bodies come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// The front door reads the whole body (up to `max_body` bytes), verifies, and hands over both.
    FrontDoor {
        /// Name in the credential scope; `None`: any (services whose signing name is not known here).
        scope: Option<&'static str>,
        /// Whether unsigned requests come through, as [`Auth::Anonymous`].
        anonymous: bool,
        max_body: usize,
    },
    /// As `FrontDoor`, but the payload's hash is taken from `x-amz-content-sha256` and the body streams through: S3
    /// before an upstream, which checks the payload itself.
    Streaming { scope: &'static str },
    /// The service does it all: [`Auth::Unverified`]. S3 through s3s.
    Own,
}

/// A request and what is known about it.
#[derive(Debug)]
pub struct Request {
    /// Method, URI and headers exactly as sent.
    pub head: Parts,
    pub body: RequestBody,
    pub auth: Auth,
    pub about: Arc<About>,
}

/// What the signature proved.
#[derive(Clone, Debug)]
pub enum Auth {
    Verified(Caller),
    Anonymous,
    /// Nobody looked yet: only with [`Verification::Own`].
    Unverified,
}

/// Who signed.
#[derive(Clone, Debug)]
pub struct Caller {
    pub credentials: Arc<RoleCredentials>,
    pub arn: String,
    /// The role's policy; absent if the role is gone, which allows nothing.
    pub policy: Option<Arc<Document>>,
}

impl Caller {
    pub fn new(credentials: Arc<RoleCredentials>, compiled: &Compiled) -> Caller {
        let policy = compiled.role(&credentials.account, &credentials.role_name).cloned();
        Caller { arn: credentials.arn(), policy, credentials }
    }

    /// 12 digits.
    pub fn account(&self) -> &str {
        &self.credentials.account
    }

    /// `AROA...:i-0123`: the form of STS's `UserId`. The first half follows from account and role.
    pub fn user_id(&self) -> String {
        format!("{}:{}", role_id(&self.credentials.account, &self.credentials.role_name), self.credentials.session)
    }
}

/// `AROA` and 17 characters, stable for an account's role.
pub fn role_id(account: &str, role: &str) -> String {
    let token = crate::base::ids::token36(&["role", account, role], 17);
    format!("AROA{}", token.to_ascii_uppercase())
}

impl Request {
    /// The caller of a verified request.
    ///
    /// # Errors
    /// `MissingAuthenticationToken` for an anonymous one.
    pub fn caller(&self, dialect: Dialect) -> Result<&Caller, ApiError> {
        match &self.auth {
            Auth::Verified(caller) => Ok(caller),
            Auth::Anonymous | Auth::Unverified => Err(AuthError::Missing.api_error(dialect)),
        }
    }
}

/// The circumstances of a request.
pub struct About {
    pub world: Arc<World>,
    /// The plan in force when the request came.
    pub compiled: Arc<Compiled>,
    /// The way it came in, as the plan in force describes it.
    pub gate: Arc<GateFacts>,
    pub conn: ConnContext,
    pub tls: bool,
    pub request_id: String,
    pub time: UnixTime,
    note: Mutex<Note>,
}

/// What the audit event will say.
#[derive(Clone, Debug, Default)]
pub struct Note {
    pub principal: Option<String>,
    pub action: String,
    pub resource: String,
    pub decision: Decision,
}

/// Whether the caller's role must allow the action too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Asked,
    /// "No permissions are required": `sts:GetCallerIdentity`, `sts:GetSessionToken`. The endpoint policy still holds.
    NotAsked,
}

impl About {
    pub(super) fn new(
        world: Arc<World>,
        compiled: Arc<Compiled>,
        gate: Arc<GateFacts>,
        conn: ConnContext,
        tls: bool,
    ) -> About {
        let (request_id, time) = (world.ids.uuid(), world.unix());
        About { world, compiled, gate, conn, tls, request_id, time, note: Mutex::default() }
    }

    /// Where the request came from.
    pub fn source(&self) -> Source {
        let (through, client) = (self.gate.through.as_ref(), *self.conn.client.ip());
        Source {
            source_ip: through.is_none().then_some(client),
            vpc_source_ip: through.map(|_| client),
            vpc: through.map(|t| t.vpc_id.clone()),
            vpce: through.map(|t| t.id.clone()),
            vpce_account: through.map(|t| t.account.clone()),
            secure: self.tls,
        }
    }

    /// The policies' word: role and endpoint, if there is one on the way, must both allow. Writes the audit note. `action` is spelled as the
    /// service spells it in refusals (`SNS:Publish`); matching does not look at case.
    ///
    /// # Errors
    /// AWS's sentence for the refusal.
    pub fn judge(
        &self,
        caller: Option<&Caller>,
        action: &str,
        resource: &str,
        identity: Identity,
    ) -> Result<(), String> {
        let nothing = Document { statements: Vec::new() };
        let role = match (identity, caller) {
            (Identity::NotAsked, _) | (_, None) => None,
            (Identity::Asked, Some(c)) => Some(c.policy.as_deref().unwrap_or(&nothing)),
        };
        let verdict = policy::authorize(role, self.gate.policy().map(|p| &**p), action, resource);
        let principal = caller.map_or("anonymous", |c| c.arn.as_str());
        let named = (resource != "*").then_some(resource);
        let verdict = verdict.map_err(|refusal| refusal.message(principal, action, named));
        self.note(|note| {
            note.principal = caller.map(|c| c.arn.clone());
            note.action = action.to_owned();
            note.resource = resource.to_owned();
            note.decision = match &verdict {
                Ok(()) => Decision::Allowed,
                Err(message) => Decision::Denied(message.clone()),
            };
        });
        verdict
    }

    /// Changes what the audit event will say.
    pub fn note(&self, change: impl FnOnce(&mut Note)) {
        change(&mut self.note.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn take_note(&self) -> Note {
        std::mem::take(&mut self.note.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("About")
            .field("request_id", &self.request_id)
            .field("gate", &self.gate.path)
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}

/// A body held in memory.
pub fn full(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A request body held in memory.
pub fn full_request(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// An answer with a body of a type that is no header's concern.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads a whole body of at most `limit` bytes. `Ok(None)`: it is longer.
///
/// # Errors
/// The client went away or broke its framing.
pub async fn read_body(mut body: RequestBody, limit: usize) -> Result<Option<Bytes>, BoxError> {
    let mut first: Option<Bytes> = None;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers are no part of the payload.
        let Ok(data) = frame?.into_data() else { continue };
        if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > limit {
            return Ok(None);
        }
        match &first {
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    let first = first.unwrap_or_default();
    Ok(Some(if rest.is_empty() { first } else { [first.as_ref(), &rest].concat().into() }))
}
