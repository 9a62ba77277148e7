//! S3: the protocol by s3s, the contents ours.
//!
//! A request comes from the front door with its endpoint's policy. [`auth::identify`] looks at key, token, expiry, scope
//! and signed headers; s3s verifies the signature and, as the body streams, those of its chunks; [`auth::Access`] judges
//! both policies; then the operation runs on [`store::Store`]. s3s reads the operating system's clock for the age of
//! signatures.
//!
//! Off, as AWS has them off by default: versioning, ACLs, public access. Not in this version, and refused as
//! `NotImplemented`: bucket policies, object lock, KMS and customer keys, archive classes, browser form uploads, access
//! points.

mod auth;
mod blob;
mod buckets;
mod checksum;
mod chunked;
mod convert;
mod error;
mod front;
mod host;
mod list;
mod multipart;
mod objects;
mod operations;
mod preload;
mod store;
mod transfer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use s3s::config::{S3Config as ProtocolConfig, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Request, S3Result, StdError};

use self::auth::{Access, Caller, Early, Secrets, identify};
pub use self::auth::{Judged, Keys, Verdict};
use self::error::{Fault, Ids, fail, known, parse, render};
pub use self::front::Front;
pub(super) use self::host::bucket_of;
use self::store::Store;
use crate::base::{Clock, UnixTime};
use crate::model::plan::BucketPlan;
use crate::policy::Document;

/// What an S3 of one account and region is made of.
pub struct S3Config {
    pub region: String,
    /// Owner of the buckets of the topology file, 12 digits.
    pub account: String,
    /// Contents are kept here; in memory if absent.
    pub data: Option<PathBuf>,
    /// Contents at the start. A bucket that the data directory already has is left as it is.
    pub buckets: Vec<BucketPlan>,
    pub keys: Arc<dyn Keys>,
    pub clock: Arc<dyn Clock>,
    /// Makes ids unlike those of another start.
    pub seed: u64,
}

/// The S3 of one region and account. Cheap to clone.
#[derive(Clone)]
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    service: S3Service,
    keys: Arc<dyn Keys>,
}

/// A bucket and where it is.
#[derive(Clone, Debug)]
struct Listed {
    name: String,
    info: store::BucketInfo,
    region: String,
}

/// Buckets of other regions, where they matter to a request: names are one space, and a listing shows all of an account.
/// An extension of the request.
#[derive(Clone, Debug, Default)]
struct Elsewhere(Vec<Listed>);

/// What operations work on.
#[derive(Clone)]
struct Backend {
    store: Arc<Store>,
    region: String,
    account: String,
    clock: Arc<dyn Clock>,
}

impl Backend {
    fn now(&self) -> UnixTime {
        self.clock.unix()
    }

    /// Who asks. Operations run behind `Access`, which has seen it.
    fn caller<T>(&self, req: &S3Request<T>) -> S3Result<Arc<Caller>> {
        req.extensions.get::<Arc<Caller>>().map(Arc::clone).ok_or_else(|| fail("AccessDenied"))
    }
}

impl S3 {
    /// Opens the data directory and takes the contents of the topology. Blocks for as long as it takes to read them.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn open(config: S3Config) -> io::Result<S3> {
        let salt = config.seed ^ config.clock.unix().0.rotate_left(32);
        let backend = Backend {
            store: Arc::new(Store::open(config.data, salt)?),
            region: config.region,
            account: config.account,
            clock: config.clock,
        };
        preload::load(&backend, &config.buckets)?;
        let mut builder = S3ServiceBuilder::new(backend.clone());
        builder.set_auth(Secrets(Arc::clone(&config.keys)));
        builder.set_access(Access);
        builder.set_host(host::Hosts::new(&backend.region));
        let mut protocol = ProtocolConfig::default();
        // Keys keep their slashes: `a//b` is not `a/b`.
        protocol.normalize_forward_slash_path = false;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(protocol))));
        Ok(S3 { inner: Arc::new(Inner { backend, service: builder.build(), keys: config.keys }) })
    }

    /// Takes buckets that a changed topology has and the store has not. Blocks like [`S3::open`].
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn add_buckets(&self, buckets: &[BucketPlan]) -> io::Result<()> {
        preload::load(&self.inner.backend, buckets)
    }

    /// The owner of a bucket that is here.
    fn owner_of(&self, bucket: &str) -> Option<String> {
        self.inner.backend.store.buckets().get(bucket).map(|b| b.info.owner.clone())
    }

    /// Every bucket that is here.
    fn listed(&self) -> Vec<Listed> {
        let buckets = self.inner.backend.store.buckets();
        let region = &self.inner.backend.region;
        buckets
            .iter()
            .map(|(name, b)| Listed { name: name.clone(), info: b.info.clone(), region: region.clone() })
            .collect()
    }

    /// What a request gets for a bucket that is in another region, whoever asks (Amazon S3 User Guide, "Making requests
    /// to Amazon S3 over IPv4", "Request redirection").
    fn redirect(&self, method: &Method, path: &str, bucket: &str, region: &str) -> Response<Body> {
        let ids = self.ids();
        let early = Early {
            code: "PermanentRedirect",
            message: None,
            extra: vec![("Endpoint", format!("{bucket}.s3.{region}.amazonaws.com")), ("Bucket", bucket.to_owned())],
        };
        let mut answer = render_early(&early, method, path, &ids);
        if let Ok(region) = HeaderValue::from_str(region) {
            answer.headers_mut().insert("x-amz-bucket-region", region);
        }
        answer.extensions_mut().insert(Judged::default());
        finish(answer, &ids)
    }

    /// Answers one request; refusals are answers. `endpoint` is the policy of the endpoint it came through, if it came
    /// through one. The answer carries a [`Judged`] as an extension.
    pub async fn handle<B>(&self, request: Request<B>, endpoint: Option<&Arc<Document>>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        StdError: From<B::Error>,
    {
        let backend = &self.inner.backend;
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        let path = head.uri.path().to_owned();
        let ids = self.ids();
        let form =
            head.headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"multipart/form-data"));
        let caller = if method == Method::POST && form {
            Err(Early {
                code: "NotImplemented",
                message: Some("Browser-based uploads using POST: not in this version".into()),
                extra: Vec::new(),
            })
        } else {
            identify(&head, &*self.inner.keys, endpoint, &backend.region, backend.now())
        };
        let caller = match caller {
            Ok(caller) => Arc::new(caller),
            Err(early) => {
                let mut answer = render_early(&early, &method, &path, &ids);
                let verdict = Verdict::Refused(early.code.to_owned());
                answer.extensions_mut().insert(Judged { verdict, ..Judged::default() });
                return finish(answer, &ids);
            }
        };
        head.extensions.insert(Arc::clone(&caller));
        let body = chunked::Fitted::new(&head.headers, body);
        let request = Request::from_parts(head, boxed(body.boxed_unsync()));
        let answer = match self.inner.service.call(request).await {
            Ok(answer) => answer,
            Err(_) => {
                Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(Body::empty()).unwrap_or_default()
            }
        };
        let mut judged = caller.judged();
        let (mut answer, code) = reword(answer, &method, &path, &ids, &judged.resource).await;
        // Not seen by `Access`: s3s found the signature wrong.
        if judged.principal.is_none()
            && let Some(code) = code.filter(|c| c != "NotImplemented")
        {
            judged.verdict = Verdict::Refused(code);
        }
        answer.extensions_mut().insert(judged);
        finish(answer, &ids)
    }

    /// Sixteen capital hex digits and a longer text, as S3's are.
    fn ids(&self) -> Ids {
        let id = self.inner.backend.store.fresh_id();
        let host = format!("{}=", &id[16..]);
        Ids { request: id[..16].to_ascii_uppercase(), host }
    }
}

/// Apart, because a generic function's own `From` bound hides the one that this needs.
fn boxed(body: UnsyncBoxBody<Bytes, StdError>) -> Body {
    Body::http_body_unsync(body)
}

fn render_early(early: &Early, method: &Method, path: &str, ids: &Ids) -> Response<Body> {
    let (status, standard) = known(early.code).map_or((400, ""), |k| (k.1, k.2));
    let extra: Vec<(&str, &str)> = early.extra.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let fault = Fault {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
        code: early.code,
        message: early.message.as_deref().unwrap_or(standard),
        extra: &extra,
    };
    render(&fault, method, path, ids, http::HeaderMap::new())
}

/// An error document of s3s in S3's form and words, and its code. `resource` is the ARN that the request was judged by.
async fn reword(
    answer: Response<Body>,
    method: &Method,
    path: &str,
    ids: &Ids,
    resource: &str,
) -> (Response<Body>, Option<String>) {
    let status = answer.status();
    if status.as_u16() < 300 {
        return (answer, None);
    }
    let (head, body) = answer.into_parts();
    // s3s writes its error documents whole.
    let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (code, message) = parse(&String::from_utf8_lossy(&text));
    // s3s has a status for every code it knows; ours came with one.
    let status = if status == StatusCode::INTERNAL_SERVER_ERROR {
        known(&code).and_then(|k| StatusCode::from_u16(k.1).ok()).unwrap_or(status)
    } else {
        status
    };
    let (bucket, key) =
        resource.strip_prefix("arn:aws:s3:::").map_or(("", ""), |r| r.split_once('/').unwrap_or((r, "")));
    let extra = match code.as_str() {
        "NoSuchBucket" if !bucket.is_empty() => vec![("BucketName", bucket)],
        // Of a copy it is the source's, which is not the one that the request is named by.
        "NoSuchKey" if !key.is_empty() && *method == Method::GET => vec![("Key", key)],
        _ => Vec::new(),
    };
    let fault = Fault { status, code: &code, message: &message, extra: &extra };
    let mut answer = render(&fault, method, path, ids, head.headers);
    *answer.extensions_mut() = head.extensions;
    (answer, Some(code))
}

fn finish(mut answer: Response<Body>, ids: &Ids) -> Response<Body> {
    let headers = answer.headers_mut();
    for (name, value) in [("x-amz-request-id", &ids.request), ("x-amz-id-2", &ids.host)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::SERVER, HeaderValue::from_static("AmazonS3"));
    answer
}
