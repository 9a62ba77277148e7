//! S3 as a service behind the front door: one [`S3`] for every account and region that the plan has or a client asks.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use http::Method;
use http::request::Parts;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;

use super::{Elsewhere, Judged, Keys, S3, S3Config, Verdict, bucket_of};
use crate::model::credentials::RoleCredentials;
use crate::model::plan::{Backend, BucketFiles, BucketPlan, Plan};
use crate::policy::Document;
use crate::services::errors::{ApiError, Dialect};
use crate::services::events::Decision;
use crate::services::http_types::{Request, Response, Service, Verification};
use crate::services::world::World;

/// Every S3 of a lab.
pub struct Front {
    world: Arc<World>,
    open: RwLock<HashMap<At, S3>>,
}

/// Region and account.
type At = (String, String);

impl Front {
    /// Nothing is open before the first `load`.
    pub fn new(world: Arc<World>) -> Front {
        Front { world, open: RwLock::default() }
    }

    /// The S3 of a region and account. Those that the file does not name begin empty, when they are first asked.
    fn at(&self, at: &At) -> io::Result<S3> {
        if let Some(s3) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Ok(s3.clone());
        }
        let s3 = self.make(at, None, Vec::new())?;
        Ok(self.open.write().unwrap_or_else(PoisonError::into_inner).entry(at.clone()).or_insert(s3).clone())
    }

    fn make(&self, (region, account): &At, data: Option<PathBuf>, buckets: Vec<BucketPlan>) -> io::Result<S3> {
        let mut seed = [0; 8];
        seed.copy_from_slice(&self.world.ids.bytes()[..8]);
        S3::open(S3Config {
            region: region.clone(),
            account: account.clone(),
            data,
            buckets,
            keys: Arc::new(WorldKeys(Arc::clone(&self.world))),
            clock: Arc::clone(&self.world.clock),
            seed: u64::from_be_bytes(seed),
        })
    }

    /// What other regions mean to a request: a bucket of another region is not served here, and who makes or lists
    /// buckets must know of them. An answer, or an extension of the request.
    fn elsewhere(&self, here: &S3, at: &At, head: &mut Parts) -> Option<http::Response<s3s::Body>> {
        let (bucket, key) = bucket_and_key(&at.0, head);
        if !bucket.is_empty() && here.owner_of(&bucket).is_some() {
            return None;
        }
        let others: Vec<S3> = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter(|(other, _)| *other != at).map(|(_, s3)| s3.clone()).collect()
        };
        if bucket.is_empty() {
            head.extensions.insert(Elsewhere(others.iter().flat_map(S3::listed).collect()));
            return None;
        }
        let found = others.iter().flat_map(S3::listed).find(|b| b.name == bucket)?;
        // `x-id` only names the operation.
        let plain = head.uri.query().unwrap_or("").split('&').all(|p| p.is_empty() || p.starts_with("x-id="));
        if head.method == Method::PUT && key.is_empty() && plain {
            head.extensions.insert(Elsewhere(vec![found]));
            return None;
        }
        Some(here.redirect(&head.method, head.uri.path(), &bucket, &found.region))
    }
}

/// Bucket and key of a request; either may be empty.
fn bucket_and_key(region: &str, head: &Parts) -> (String, String) {
    let host = head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let path = percent_decode_str(head.uri.path().trim_start_matches('/')).decode_utf8_lossy();
    match bucket_of(region, host) {
        Some(bucket) => (bucket, path.into_owned()),
        None => {
            let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
            (bucket.to_owned(), key.to_owned())
        }
    }
}

impl Service for Front {
    fn verification(&self) -> Verification {
        Verification::Own
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        Dialect::S3
    }

    fn load(&self, plan: &Plan) -> Result<(), String> {
        let here = plan.services.iter().filter(|s| s.name == "s3" && s.backend == Backend::Builtin);
        for service in here {
            let buckets: Vec<BucketPlan> = service.contents.buckets.iter().map(|b| absolute(plan, b)).collect();
            let at = (service.region.clone(), service.account.clone());
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&at).cloned();
            if let Some(s3) = open {
                s3.add_buckets(&buckets).map_err(|e| e.to_string())?;
                continue;
            }
            let s3 = self.make(&at, service.data.as_ref().map(|d| plan.dir.join(d)), buckets);
            let s3 = s3.map_err(|e| format!("services.s3: {e}"))?;
            self.open.write().unwrap_or_else(PoisonError::into_inner).insert(at, s3);
        }
        Ok(())
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let Request { head, body, about, .. } = request;
            let at = (about.gate.region.clone(), about.gate.account.clone());
            let s3 = match self.at(&at) {
                Ok(s3) => s3,
                Err(error) => {
                    let error = ApiError::bad("InternalError", error.to_string()).status(500);
                    return error.render(Dialect::S3, &about.request_id);
                }
            };
            let mut head = head;
            let mut answer = match self.elsewhere(&s3, &at, &mut head) {
                Some(redirect) => redirect,
                None => s3.handle(http::Request::from_parts(head, body), about.gate.policy()).await,
            };
            if let Some(judged) = answer.extensions_mut().remove::<Judged>() {
                about.note(|note| {
                    note.principal = judged.principal;
                    note.action = judged.action;
                    note.resource = judged.resource;
                    note.decision = match judged.verdict {
                        Verdict::NotJudged => Decision::NotJudged,
                        Verdict::Refused(code) => Decision::BadSignature(code),
                        Verdict::Allowed => Decision::Allowed,
                        Verdict::Denied(message) => Decision::Denied(message),
                    };
                });
            }
            answer.map(BodyExt::boxed_unsync)
        })
    }
}

/// Paths of a topology are relative to its file.
fn absolute(plan: &Plan, bucket: &BucketPlan) -> BucketPlan {
    let files = match &bucket.files {
        BucketFiles::Directory(dir) => BucketFiles::Directory(plan.dir.join(dir)),
        other => other.clone(),
    };
    BucketPlan { files, ..bucket.clone() }
}

struct WorldKeys(Arc<World>);

impl Keys for WorldKeys {
    fn find(&self, access_key: &str) -> Option<Arc<RoleCredentials>> {
        self.0.keyring.find(access_key)
    }

    fn role(&self, account: &str, name: &str) -> Option<Arc<Document>> {
        self.0.current().role(account, name).cloned()
    }
}
