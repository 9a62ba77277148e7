//! `echo`: a service for tests. On port 7, and on any port where the client's first bytes are neither TLS nor HTTP, it
//! sends back what it gets (RFC 862); on port 9 it discards (RFC 863), on port 19 it sends without end (RFC 864); over HTTP and HTTPS it tells what arrived and from whom.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::errors::{ApiError, Dialect};
use super::front::{self, Door};
use super::http_types::{Auth, Identity, Request, Response, Service, Verification, read_body, respond};
use super::{serve_tls, sniff};

const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const CHARGEN: u16 = 19;
/// Bytes of one read or write of the two that move bytes one way.
const BLOCK: usize = 128 * 1024;

/// Longest body that the HTTP answer tells about, bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Longest body that the HTTP answer repeats, bytes.
const MAX_SHOWN: usize = 64 * 1024;

pub(super) struct Echo;

impl Service for Echo {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: None, anonymous: true, max_body: MAX_BODY }
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        Dialect::RestJson
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = &request.about;
            let caller = match &request.auth {
                Auth::Verified(caller) => Some(caller),
                Auth::Anonymous | Auth::Unverified => None,
            };
            if let Err(message) = about.judge(caller, "echo:Echo", "*", Identity::Asked) {
                return ApiError::bad("AccessDeniedException", message)
                    .status(403)
                    .render(Dialect::RestJson, &about.request_id);
            }
            let body = read_body(request.body, MAX_BODY).await.ok().flatten().unwrap_or_default();
            let headers: serde_json::Map<String, serde_json::Value> = request
                .head
                .headers
                .iter()
                // Secrets are not for logs, and the answer of a test service ends up in one.
                .filter(|(name, _)| !matches!(name.as_str(), "authorization" | "x-amz-security-token"))
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect();
            let source = about.source();
            let answer = json!({
                "service": "echo",
                "by": about.gate.kind.as_str(),
                "endpoint": source.vpce,
                "vpc": source.vpc,
                "client": about.conn.client.ip().to_string(),
                "client_port": about.conn.client.port(),
                "server": about.conn.server.to_string(),
                "tls": about.tls,
                "caller": caller.map(|c| c.arn.as_str()),
                "method": request.head.method.as_str(),
                "path": request.head.uri.path_and_query().map_or("/", |p| p.as_str()),
                "headers": headers,
                "body_bytes": body.len(),
                "body": String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN)]),
            });
            respond(StatusCode::OK, "application/json", format!("{answer:#}\n"))
        })
    }
}

/// Serves a connection to the echo service, whatever the client speaks.
pub(super) async fn serve<S>(mut stream: S, door: Arc<Door>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match door.conn.server.port() {
        ECHO => return repeat(&mut stream).await,
        DISCARD => return discard(&mut stream).await,
        CHARGEN => return generate(&mut stream).await,
        _ => {}
    }
    let Ok((first, mut stream)) = sniff::first_byte(stream).await else { return };
    match first {
        Some(sniff::TLS_HANDSHAKE) => serve_tls(stream, door).await,
        // Methods are written in capitals (RFC 9110, 9.1).
        Some(b'A'..=b'Z') => front::serve(stream, false, door).await,
        _ => repeat(&mut stream).await,
    }
}

/// Reads until the client has sent all, then closes (RFC 863).
async fn discard<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut block = vec![0; BLOCK];
    while stream.read(&mut block).await.is_ok_and(|n| n > 0) {}
    let _ = stream.shutdown().await;
}

/// Sends until the client has had enough (RFC 864).
async fn generate<S: AsyncWrite + Unpin>(stream: &mut S) {
    let block: Vec<u8> = (0..BLOCK).map(|n| b' ' + (n % 95) as u8).collect();
    while stream.write_all(&block).await.is_ok() {}
}

/// Sends back what comes, then closes. The client's reset ends it.
async fn repeat<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let (mut read, mut write) = tokio::io::split(stream);
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}
