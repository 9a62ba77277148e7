//! S3 as a service behind the front door: one [`S3`] for every account and region that the plan has.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use http::request::Parts;
use http_body_util::BodyExt;

use super::{Judged, Keys, S3, S3Config, Verdict};
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
    /// By region and account.
    open: RwLock<HashMap<(String, String), S3>>,
}

impl Front {
    /// Nothing is open before the first `load`.
    pub fn new(world: Arc<World>) -> Front {
        Front { world, open: RwLock::default() }
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
            let mut seed = [0; 8];
            seed.copy_from_slice(&self.world.ids.bytes()[..8]);
            let s3 = S3::open(S3Config {
                region: service.region.clone(),
                account: service.account.clone(),
                data: service.data.as_ref().map(|d| plan.dir.join(d)),
                buckets,
                keys: Arc::new(WorldKeys(Arc::clone(&self.world))),
                clock: Arc::clone(&self.world.clock),
                seed: u64::from_be_bytes(seed),
            });
            let s3 = s3.map_err(|e| format!("services.s3: {e}"))?;
            self.open.write().unwrap_or_else(PoisonError::into_inner).insert(at, s3);
        }
        Ok(())
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let Request { head, body, about, .. } = request;
            let at = (about.endpoint.region.clone(), about.endpoint.account.clone());
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&at).cloned();
            let Some(s3) = open else {
                let error = ApiError::bad("InternalError", "This S3 is not open.").status(500);
                return error.render(Dialect::S3, &about.request_id);
            };
            let mut answer = s3.handle(http::Request::from_parts(head, body), &about.endpoint.policy).await;
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
