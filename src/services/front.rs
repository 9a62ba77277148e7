//! The front door: HTTP/1.1 with keep-alive, signatures, the audit trail. Every HTTP service stands behind it, built in
//! or upstream.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::errors::AuthError;
use super::events::{Decision, ServiceEvent};
use super::http_types::{
    About, Auth, BoxError, Caller, ConnContext, Request, RequestBody, Response, Service, Verification, full_request,
    read_body,
};
use super::sigv4::{Claim, Expected, UNSIGNED_PAYLOAD, sha256_hex};
use super::world::{GateFacts, World};

/// Longest request head, bytes: the query protocols put long parameters into URLs.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// One client connection's way to a service.
pub(super) struct Door {
    pub(super) world: Arc<World>,
    /// As of the connection's opening; used when the endpoint is gone from the plan in force.
    pub(super) gate: Arc<GateFacts>,
    pub(super) conn: ConnContext,
    pub(super) service: Arc<dyn Service>,
}

/// Serves HTTP/1.1 until either side closes.
pub(super) async fn serve<S>(stream: S, tls: bool, door: Arc<Door>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(door.answer(request, tls).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(true)
        // A client may shut its writing side and wait for the answer.
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD + 64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // An error here is the client's going away or breaking HTTP: hyper has answered what can be answered.
    let _ = connection.await;
}

impl Door {
    async fn answer(&self, request: http::Request<Incoming>, tls: bool) -> Response {
        let compiled = self.world.current();
        let gate = compiled.gate(&self.conn).ok().flatten().unwrap_or_else(|| Arc::clone(&self.gate));
        let about = Arc::new(About::new(Arc::clone(&self.world), compiled, gate, self.conn.clone(), tls));
        let (head, body) = request.into_parts();
        let body = body.map_err(|e| Box::new(e) as BoxError).boxed();
        let dialect = self.service.dialect(&head);
        let mut response = match self.verify(&about, head, body).await {
            Ok(request) => self.service.handle(request).await,
            Err(error) => {
                let error = error.api_error(dialect);
                about.note(|note| note.decision = Decision::BadSignature(error.code.clone()));
                error.render(dialect, &about.request_id)
            }
        };
        let headers = response.headers_mut();
        if !headers.contains_key("x-amzn-requestid")
            && !headers.contains_key("x-amz-request-id")
            && let Ok(id) = HeaderValue::from_str(&about.request_id)
        {
            headers.insert("x-amzn-requestid", id);
        }
        if response.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body was not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let note = about.take_note();
        self.world.events.push(ServiceEvent {
            time: about.time,
            endpoint: about.gate.path.clone(),
            gate: about.gate.kind,
            service: about.gate.service.clone(),
            region: about.gate.region.clone(),
            client: about.conn.client,
            principal: note.principal,
            action: note.action,
            resource: note.resource,
            status: response.status().as_u16(),
            decision: note.decision,
            request_id: about.request_id.clone(),
        });
        response
    }

    async fn verify(
        &self,
        about: &Arc<About>,
        head: http::request::Parts,
        body: RequestBody,
    ) -> Result<Request, AuthError> {
        let request = |head, body, auth| Request { head, body, auth, about: Arc::clone(about) };
        let (scope, anonymous, max_body) = match self.service.verification() {
            Verification::Own => return Ok(request(head, body, Auth::Unverified)),
            Verification::Streaming { scope } => (Some(scope), true, None),
            Verification::FrontDoor { scope, anonymous, max_body } => (scope, anonymous, Some(max_body)),
        };
        let claim = Claim::find(&head)?;
        if claim.is_none() && !anonymous {
            return Err(AuthError::Missing);
        }
        // Looked up before the body is read: a refused client need not send it.
        let signer = match claim {
            None => None,
            Some(claim) => {
                let credentials = self.world.keyring.find(&claim.access_key).ok_or(AuthError::UnknownKey)?;
                Some((claim, credentials))
            }
        };
        let (payload, body) = match max_body {
            Some(limit) => match read_body(body, limit).await {
                Ok(Some(bytes)) => (sha256_hex(&bytes), full_request(bytes)),
                Ok(None) => return Err(AuthError::TooLarge),
                Err(_) => return Err(AuthError::Incomplete("The request body ended early.".into())),
            },
            None => {
                let given = head.headers.get("x-amz-content-sha256").and_then(|v| v.to_str().ok());
                (given.unwrap_or(UNSIGNED_PAYLOAD).to_owned(), body)
            }
        };
        let Some((claim, credentials)) = signer else { return Ok(request(head, body, Auth::Anonymous)) };
        let s3 = matches!(self.service.verification(), Verification::Streaming { .. });
        let expected = Expected { region: &about.gate.region, service: scope, now: about.time, s3 };
        claim.verify(&head, &payload, &credentials, expected)?;
        let caller = Caller::new(credentials, &about.compiled);
        about.note(|note| note.principal = Some(caller.arn.clone()));
        Ok(request(head, body, Auth::Verified(caller)))
    }
}
