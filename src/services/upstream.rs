//! Backends outside the lab, on loopback or a unix socket of this machine: an HTTP emulator behind the front door
//! (moto, MinIO, LocalStack), or raw bytes (a database).

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::asked::{self, Asked};
use super::dial::Stream;
use super::errors::{ApiError, Dialect};
use super::events::Decision;
use super::http_types::{
    Auth, BoxError, Caller, Identity, Request, RequestBody, Response, Service, Verification, full_request, read_body,
};
use super::world::{GateFacts, World};
use crate::model::plan::Backend;

/// Longest body that is held for its signature, bytes: above the largest of the catalogue's JSON services (10 MiB).
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;

/// Passes raw bytes both ways, half-close included, until both sides are done or one breaks: then the other is reset too,
/// by `broken` before the client's stream is dropped, because dropping it would be a close in order.
pub(super) async fn splice<S>(mut client: S, mut backend: Box<dyn Stream>, broken: impl FnOnce() + Send)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // 64 KiB: a superframe of either side in one read.
    if tokio::io::copy_bidirectional_with_sizes(&mut client, &mut *backend, 65_536, 65_536).await.is_err() {
        broken();
        backend.end_by_reset();
    }
}

/// The roots that `https://` backends are checked against: the host's. Read when first needed.
#[derive(Clone, Default)]
pub(super) struct Trust(Arc<OnceLock<Arc<ClientConfig>>>);

impl Trust {
    fn config(&self) -> Result<Arc<ClientConfig>, BoxError> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(config))))
    }
}

/// An HTTP backend, for one client connection: reached before the client's SYN was answered, used for all its requests,
/// and reached again if the backend closed it in between.
pub(super) struct Upstream {
    world: Arc<World>,
    gate: Arc<GateFacts>,
    trust: Trust,
    link: Mutex<Link>,
}

enum Link {
    Fresh(Box<dyn Stream>),
    Open(SendRequest<RequestBody>),
    Closed,
}

impl Upstream {
    pub(super) fn new(world: Arc<World>, gate: Arc<GateFacts>, stream: Box<dyn Stream>, trust: Trust) -> Upstream {
        Upstream { world, gate, trust, link: Mutex::new(Link::Fresh(stream)) }
    }

    async fn forward(&self, head: Parts, body: RequestBody) -> Result<Response, BoxError> {
        let mut link = self.link.lock().await;
        let mut request = http::Request::from_parts(head, body);
        let (mut sender, mut reused) = match std::mem::replace(&mut *link, Link::Closed) {
            Link::Fresh(stream) => (self.speak_http(stream).await?, false),
            Link::Open(mut sender) => match sender.ready().await {
                Ok(()) => (sender, true),
                Err(_) => (self.dial_again().await?, false),
            },
            Link::Closed => (self.dial_again().await?, false),
        };
        let response = loop {
            match sender.try_send_request(request).await {
                Ok(response) => break response,
                // The backend closed the kept connection before it saw the request.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused => {
                        request = unsent;
                        sender = self.dial_again().await?;
                        reused = false;
                    }
                    _ => return Err(refused.into_error().into()),
                },
            }
        };
        *link = Link::Open(sender);
        drop(link);
        let mut response = response.map(|b| b.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
        // Of one connection only (RFC 9110, 7.6.1): the client's is hyper's to manage.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::HeaderName::from_static("keep-alive")] {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    async fn dial_again(&self) -> Result<SendRequest<RequestBody>, BoxError> {
        let Backend::Http { addr, .. } = &self.gate.backend else {
            return Err("the service has no HTTP backend".into());
        };
        let stream = tokio::time::timeout(self.world.dial_timeout, self.world.dialer.dial(addr)).await??;
        self.speak_http(stream).await
    }

    async fn speak_http(&self, stream: Box<dyn Stream>) -> Result<SendRequest<RequestBody>, BoxError> {
        let Backend::Http { tls, authority, .. } = &self.gate.backend else {
            return Err("the service has no HTTP backend".into());
        };
        if !tls {
            return handshake(stream).await;
        }
        let name = ServerName::try_from(host_of(authority).to_owned())?;
        let stream = TlsConnector::from(self.trust.config()?).connect(name, stream).await?;
        handshake(stream).await
    }
}

impl Service for Upstream {
    fn verification(&self) -> Verification {
        match self.gate.service.as_str() {
            "s3" => Verification::Streaming { scope: "s3" },
            service => Verification::FrontDoor {
                scope: builtin_scope(service),
                anonymous: takes_unsigned(service),
                max_body: MAX_BODY,
            },
        }
    }

    fn dialect(&self, head: &Parts) -> Dialect {
        dialect(&self.gate.service, head)
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let Request { head, body, auth, about } = request;
            let dialect = self.dialect(&head);
            let caller = match &auth {
                Auth::Verified(caller) => Some(caller),
                Auth::Anonymous | Auth::Unverified => None,
            };
            // The front door holds a body that it verified; one that streams is S3's, whose action is in the head.
            let (Asked { action, resource }, body) = if self.gate.service == "s3" {
                (asked::s3(&about.gate.region, &head), body)
            } else {
                let bytes = read_body(body, MAX_BODY).await.ok().flatten().unwrap_or_default();
                let asked = asked::other(&about.gate, caller.map(Caller::account), &head, &bytes);
                (asked, full_request(bytes))
            };
            let identity = if action == "sts:GetCallerIdentity" { Identity::NotAsked } else { Identity::Asked };
            if let Err(message) = about.judge(caller, &action, &resource, identity) {
                return denied(dialect, message).render(dialect, &about.request_id);
            }
            match self.forward(head, body).await {
                Ok(response) => response,
                Err(error) => {
                    let message = format!("the backend of {} ({}) failed: {error}", self.gate.service, self.gate.path);
                    about.note(|note| note.decision = Decision::Backend(error.to_string()));
                    let error = ApiError::bad("ServiceUnavailable", message).status(503);
                    error.render(dialect, &about.request_id)
                }
            }
        })
    }
}

/// How a service of the catalogue words its refusals, told from its name and the request.
pub(super) fn dialect(service: &str, head: &Parts) -> Dialect {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match service {
        "s3" => Dialect::S3,
        "ec2" => Dialect::Ec2,
        "sqs" if content_type.starts_with("application/x-amz-json") => Dialect::QueryCompatibleJson,
        "sqs" => Dialect::Query { namespace: "http://queue.amazonaws.com/doc/2012-11-05/" },
        "sns" => Dialect::Query { namespace: "http://sns.amazonaws.com/doc/2010-03-31/" },
        "sts" => Dialect::Query { namespace: "https://sts.amazonaws.com/doc/2011-06-15/" },
        _ if content_type.starts_with("application/x-amz-json-1.0") => Dialect::Json { version: "1.0" },
        _ if head.headers.contains_key("x-amz-target") => Dialect::Json { version: "1.1" },
        _ if content_type.starts_with("application/x-www-form-urlencoded") => {
            Dialect::Query { namespace: "http://webservices.amazon.com/AWSFault/2005-15-09" }
        }
        _ => Dialect::RestJson,
    }
}

/// A policy's refusal as a service of this dialect gives it.
pub(super) fn denied(dialect: Dialect, message: String) -> ApiError {
    match dialect {
        Dialect::Query { namespace } if namespace.contains("sns.amazonaws.com") => {
            ApiError::bad("AuthorizationError", message).status(403)
        }
        Dialect::Query { .. } | Dialect::S3 => ApiError::bad("AccessDenied", message).status(403),
        Dialect::QueryCompatibleJson => {
            ApiError::bad("AccessDenied", message).status(403).shape("com.amazon.coral.service#AccessDeniedException")
        }
        Dialect::Json { .. } => ApiError::bad("AccessDeniedException", message),
        Dialect::RestJson => ApiError::bad("AccessDeniedException", message).status(403),
        Dialect::Ec2 => ApiError::bad(
            "UnauthorizedOperation",
            format!("You are not authorized to perform this operation. {message}"),
        )
        .status(403),
    }
}

/// `localhost:5000` -> `localhost`, `[::1]:5000` -> `::1`.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<RequestBody>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped with the client's connection, or when the backend closes.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// The signing names that are known to be the service's short name.
fn builtin_scope(service: &str) -> Option<&'static str> {
    ["sts", "sqs", "sns", "secretsmanager", "kms", "ssm", "dynamodb", "lambda", "ec2", "logs"]
        .into_iter()
        .find(|s| *s == service)
}

/// Services whose callers need not be AWS principals.
fn takes_unsigned(service: &str) -> bool {
    matches!(service, "execute-api" | "echo")
}
