//! Who asks, and whether they may. s3s verifies signatures and those of chunks; here are the key, the session token,
//! expiry, the credential scope, and both policies.

use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::CopySource;
use s3s::path::S3Path;
use s3s::{S3Error, S3Result};

use super::error::{fail, fail_with};
use crate::base::UnixTime;
use crate::model::credentials::RoleCredentials;
use crate::policy::{Document, Layer, Refusal, authorize, denial_message};

/// Where keys and role policies are looked up.
pub trait Keys: Send + Sync + 'static {
    /// The credentials of an access key, expired ones included.
    fn find(&self, access_key: &str) -> Option<Arc<RoleCredentials>>;
    /// The policy of a role, as it is now.
    fn role(&self, account: &str, name: &str) -> Option<Arc<Document>>;
}

/// What was decided about a request; an extension of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// ARN of who signed; `None` while the signature was not found good.
    pub principal: Option<String>,
    /// `s3:GetObject`; empty where the request was refused before its operation was known.
    pub action: String,
    /// ARN, or `*`.
    pub resource: String,
    pub verdict: Verdict,
}

/// How a request was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It did not come so far: no such operation, or not HTTP as S3 speaks it.
    #[default]
    NotJudged,
    /// A wrong or missing signature, key, token or date; the error code.
    Refused(String),
    Allowed,
    /// A policy refused; the sentence that the client got.
    Denied(String),
}

/// Who signed and by which policies they are judged. An extension of the request.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) arn: String,
    pub(super) account: String,
    role: Option<Arc<Document>>,
    /// `None`: no endpoint is on the way.
    endpoint: Option<Arc<Document>>,
    judged: Mutex<Judged>,
}

impl Caller {
    /// Every policy on the way must allow. The refusal is worded as S3 words it, and kept for the audit.
    pub(super) fn may(&self, action: &str, resource: &str) -> S3Result<()> {
        let nothing = Document { statements: Vec::new() };
        let role = self.role.as_deref().unwrap_or(&nothing);
        let verdict = authorize(Some(role), self.endpoint.as_deref(), action, resource);
        verdict.map_err(|refusal| self.denied(action, resource, refusal))
    }

    /// The owner of what is asked for must be the caller's account: there are no bucket policies in this version that
    /// could let others in.
    pub(super) fn owns(&self, owner: &str, action: &str, resource: &str) -> S3Result<()> {
        if owner == self.account {
            return Ok(());
        }
        let sentence = denial_message(Layer::Identity, false, &self.arn, action, Some(&format!("\"{resource}\"")));
        let message = sentence.replace("identity-based policy", "resource-based policy");
        self.note(action, resource, Verdict::Denied(message.clone()));
        Err(fail_with("AccessDenied", message))
    }

    pub(super) fn judged(&self) -> Judged {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn denied(&self, action: &str, resource: &str, refusal: Refusal) -> S3Error {
        let shown = (resource != "*").then(|| format!("\"{resource}\""));
        let message = refusal.message(&self.arn, action, shown.as_deref());
        self.note(action, resource, Verdict::Denied(message.clone()));
        fail_with("AccessDenied", message)
    }

    fn note(&self, action: &str, resource: &str, verdict: Verdict) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.principal = Some(self.arn.clone());
        judged.action = action.into();
        judged.resource = resource.into();
        judged.verdict = verdict;
    }
}

/// A refusal before s3s is asked, with the elements that S3 adds to the document.
pub(super) struct Early {
    pub(super) code: &'static str,
    pub(super) message: Option<String>,
    pub(super) extra: Vec<(&'static str, String)>,
}

impl Early {
    fn new(code: &'static str) -> Early {
        Early { code, message: None, extra: Vec::new() }
    }

    fn saying(code: &'static str, message: impl Into<String>) -> Early {
        Early { code, message: Some(message.into()), extra: Vec::new() }
    }

    fn with(mut self, name: &'static str, text: impl Into<String>) -> Early {
        self.extra.push((name, text.into()));
        self
    }
}

/// Looks at everything of a signature but the signature itself: its kind, the credential scope, the signed headers, the
/// key, the token, expiry.
pub(super) fn identify(
    head: &Parts,
    keys: &dyn Keys,
    endpoint: Option<&Arc<Document>>,
    region: &str,
    now: UnixTime,
) -> Result<Caller, Early> {
    let signed = Signed::find(head)?;
    let scope: Vec<&str> = signed.credential.split('/').collect();
    let [key, _date, scope_region, scope_service, "aws4_request"] = scope[..] else {
        return Err(Early::saying(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the Credential is mal-formed; expecting \
             \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
        ));
    };
    let Some(found) = keys.find(key) else {
        return Err(Early::new("InvalidAccessKeyId").with("AWSAccessKeyId", key));
    };
    match &signed.token {
        // S3 does not know a temporary key by itself.
        None => return Err(Early::new("InvalidAccessKeyId").with("AWSAccessKeyId", key)),
        Some(token) if !same(token.as_bytes(), found.token.as_bytes()) => return Err(Early::new("InvalidToken")),
        Some(_) => {}
    }
    if found.expires <= now {
        return Err(Early::new("ExpiredToken"));
    }
    if scope_region != region {
        return Err(Early::saying(
            "AuthorizationHeaderMalformed",
            format!(
                "The authorization header is malformed; the region '{scope_region}' is wrong; expecting '{region}'"
            ),
        )
        .with("Region", region));
    }
    if scope_service != "s3" {
        return Err(Early::saying(
            "AuthorizationHeaderMalformed",
            format!(
                "The authorization header is malformed; incorrect service \"{scope_service}\". \
                 This endpoint belongs to \"s3\"."
            ),
        ));
    }
    let names = head.headers.keys().map(http::HeaderName::as_str);
    let missing: Vec<&str> = names
        .filter(|n| *n == "host" || n.starts_with("x-amz-"))
        .filter(|n| !signed.headers.split(';').any(|s| s.eq_ignore_ascii_case(n)))
        .collect();
    if !missing.is_empty() {
        return Err(Early::saying("AccessDenied", "There were headers present in the request which were not signed")
            .with("HeadersNotSigned", missing.join(", ")));
    }
    let arn = found.arn();
    Ok(Caller {
        role: keys.role(&found.account, &found.role_name),
        endpoint: endpoint.cloned(),
        judged: Mutex::default(),
        arn,
        account: found.account.clone(),
    })
}

/// The parts of a SigV4 signature, from the header or from the query.
struct Signed {
    credential: String,
    headers: String,
    token: Option<String>,
}

impl Signed {
    fn find(head: &Parts) -> Result<Signed, Early> {
        let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
        let query: Vec<(String, String)> =
            form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let parameter = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let old = || {
            Early::saying(
                "InvalidRequest",
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
            )
        };
        if let Some(authorization) = text("authorization") {
            let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256") else { return Err(old()) };
            let field = |name: &str| {
                let mut fields = fields.split(',').map(str::trim);
                fields.find_map(|f| f.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
            };
            let malformed = |what: &str| {
                let message = format!("The authorization header is malformed; it is missing the {what} component.");
                Early::saying("AuthorizationHeaderMalformed", message)
            };
            if text("x-amz-date").is_none() && text("date").is_none() {
                let message = "AWS authentication requires a valid Date or x-amz-date header";
                return Err(Early::saying("AccessDenied", message));
            }
            return Ok(Signed {
                credential: field("Credential").ok_or_else(|| malformed("Credential"))?,
                headers: field("SignedHeaders").ok_or_else(|| malformed("SignedHeaders"))?,
                token: text("x-amz-security-token").map(str::to_owned),
            });
        }
        if let (Some(signature), Some(credential)) = (parameter("X-Amz-Signature"), parameter("X-Amz-Credential")) {
            // s3s takes a signature that is none for an absent one.
            let whole = ["X-Amz-Algorithm", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"];
            let hex = signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex && whole.iter().all(|name| parameter(name).is_some()) {
                return Err(Early::new("SignatureDoesNotMatch"));
            }
            let token = parameter("X-Amz-Security-Token");
            return Ok(Signed { credential, headers: parameter("X-Amz-SignedHeaders").unwrap_or_default(), token });
        }
        if parameter("Signature").is_some() || parameter("AWSAccessKeyId").is_some() {
            return Err(old());
        }
        // Unsigned: nothing here is public.
        Err(Early::new("AccessDenied"))
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Gives s3s the secret of a key. Whose key it is, and whether it is still good, `identify` has seen before.
pub(super) struct Secrets(pub(super) Arc<dyn Keys>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.find(access_key) {
            Some(found) => Ok(SecretKey::from(found.secret_key.as_str())),
            None => Err(fail("InvalidAccessKeyId")),
        }
    }
}

/// Judges an operation whose signature is good.
pub(super) struct Access;

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(fail("AccessDenied"));
        }
        let Some(caller) = cx.extensions_mut().get::<Arc<Caller>>().map(Arc::clone) else {
            return Err(fail("AccessDenied"));
        };
        let resource = match cx.s3_path() {
            S3Path::Root => "*".to_owned(),
            S3Path::Bucket { bucket } => bucket_arn(bucket),
            S3Path::Object { bucket, key } => object_arn(bucket, key),
        };
        let version =
            cx.uri().query().is_some_and(|q| form_urlencoded::parse(q.as_bytes()).any(|(n, _)| n == "versionId"));
        let operation = cx.s3_op().name();
        if operation == "DeleteObjects" {
            // Judged key by key; the bucket alone is no resource of the action.
            caller.note("s3:DeleteObject", &resource, Verdict::Allowed);
            return Ok(());
        }
        let Some(actions) = actions(operation, version) else {
            return Err(fail_with("NotImplemented", format!("{operation}: not in this version")));
        };
        for action in actions {
            caller.may(action, &resource)?;
        }
        caller.note(actions.first().copied().unwrap_or_default(), &resource, Verdict::Allowed);
        if cx.headers().contains_key("x-amz-tagging") {
            caller.may("s3:PutObjectTagging", &resource)?;
        }
        if let Some(source) = cx.headers().get("x-amz-copy-source")
            && let Some(Ok(CopySource::Bucket { bucket, key, .. })) = source.to_str().ok().map(CopySource::parse)
        {
            caller.may("s3:GetObject", &object_arn(&bucket, &key))?;
        }
        Ok(())
    }
}

pub(super) fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

pub(super) fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

/// The IAM actions that an operation needs on its own path (Service Authorization Reference, "Actions, resources, and
/// condition keys for Amazon S3"; Amazon S3 User Guide, "Required permissions for Amazon S3 API operations"). `None`: not in
/// this version.
pub(super) fn actions(operation: &str, version: bool) -> Option<&'static [&'static str]> {
    let actions: &[&str] = match operation {
        "ListBuckets" => &["s3:ListAllMyBuckets"],
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => &["s3:ListBucket"],
        "ListObjectVersions" => &["s3:ListBucketVersions"],
        "ListMultipartUploads" => &["s3:ListBucketMultipartUploads"],
        "ListParts" => &["s3:ListMultipartUploadParts"],
        "GetObject" | "HeadObject" if version => &["s3:GetObjectVersion"],
        "GetObject" | "HeadObject" => &["s3:GetObject"],
        "GetObjectAttributes" => &["s3:GetObject", "s3:GetObjectAttributes"],
        "PutObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => &["s3:PutObject"],
        "AbortMultipartUpload" => &["s3:AbortMultipartUpload"],
        "DeleteObject" if version => &["s3:DeleteObjectVersion"],
        "DeleteObject" | "DeleteObjects" => &["s3:DeleteObject"],
        "CreateBucket" => &["s3:CreateBucket"],
        "DeleteBucket" => &["s3:DeleteBucket"],
        "GetBucketLocation" => &["s3:GetBucketLocation"],
        "GetBucketVersioning" => &["s3:GetBucketVersioning"],
        "GetBucketAcl" => &["s3:GetBucketAcl"],
        "GetObjectAcl" => &["s3:GetObjectAcl"],
        "GetBucketPolicy" => &["s3:GetBucketPolicy"],
        "GetBucketEncryption" => &["s3:GetEncryptionConfiguration"],
        "GetPublicAccessBlock" => &["s3:GetBucketPublicAccessBlock"],
        "GetBucketTagging" => &["s3:GetBucketTagging"],
        "PutBucketTagging" | "DeleteBucketTagging" => &["s3:PutBucketTagging"],
        "GetObjectTagging" => &["s3:GetObjectTagging"],
        "PutObjectTagging" => &["s3:PutObjectTagging"],
        "DeleteObjectTagging" => &["s3:DeleteObjectTagging"],
        _ => return None,
    };
    Some(actions)
}
