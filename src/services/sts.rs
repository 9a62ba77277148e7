//! STS: who am I, and the credentials of another role.

use futures::future::BoxFuture;
use http::request::Parts;

use super::errors::{ApiError, Dialect};
use super::http_types::{About, Caller, Identity, Request, Response, Service, Verification, read_body, role_id};
use super::rpc::{self, Params};
use super::xml::Xml;
use crate::base::UnixTime;
use crate::model::credentials::RoleCredentials;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const DIALECT: Dialect = Dialect::Query { namespace: NAMESPACE };

/// Sessions of roles that were assumed by a role last at most an hour (IAM User Guide, "Role chaining"); all callers
/// of a lab are roles.
const MAX_CHAINED_SECONDS: u64 = 3_600;

pub(super) struct Sts;

impl Service for Sts {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: Some("sts"), anonymous: false, max_body: rpc::MAX_BODY }
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        DIALECT
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = request.about.clone();
            answer(request).await.unwrap_or_else(|error| error.render(DIALECT, &about.request_id))
        })
    }
}

async fn answer(mut request: Request) -> Result<Response, ApiError> {
    let body = std::mem::replace(&mut request.body, super::http_types::full_request(Default::default()));
    let body = read_body(body, rpc::MAX_BODY).await.ok().flatten().unwrap_or_default();
    let params = Params::of(&request.head, &body);
    let caller = request.caller(DIALECT)?;
    let about = &request.about;
    let action = params.text("Action");
    match action.as_str() {
        "GetCallerIdentity" => {
            allow(about, caller, "sts:GetCallerIdentity", "*", Identity::NotAsked)?;
            Ok(reply(about, &action, |xml| {
                xml.leaf("Arn", &caller.arn).leaf("UserId", &caller.user_id()).leaf("Account", caller.account());
            }))
        }
        "GetSessionToken" => {
            allow(about, caller, "sts:GetSessionToken", "*", Identity::NotAsked)?;
            Err(ApiError::bad("AccessDenied", "Cannot call GetSessionToken with session credentials").status(403))
        }
        "GetAccessKeyInfo" => {
            allow(about, caller, "sts:GetAccessKeyInfo", "*", Identity::Asked)?;
            let key = required(&params, "AccessKeyId")?;
            let known = about.world.keyring.find(key);
            let account = known.as_ref().map_or(caller.account(), |c| c.account.as_str());
            Ok(reply(about, &action, |xml| {
                xml.leaf("Account", account);
            }))
        }
        "AssumeRole" => assume_role(about, caller, &params),
        "" => Err(ApiError::bad("MissingAction", "The request must contain the parameter Action.")),
        _ => Err(rpc::unknown_action(DIALECT, &action, &params.text("Version"))),
    }
}

/// Roles of the lab trust every role of the lab: the topology has no trust policies. The caller's policy must allow
/// `sts:AssumeRole` on the role.
fn assume_role(about: &About, caller: &Caller, params: &Params) -> Result<Response, ApiError> {
    let arn = required(params, "RoleArn")?;
    let session = required(params, "RoleSessionName")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    if !(2..=64).contains(&session.len()) || !session.chars().all(fits) {
        return Err(invalid(format!(
            "1 validation error detected: Value '{session}' at 'roleSessionName' failed to satisfy constraint: Member \
             must satisfy regular expression pattern: [\\w+=,.@-]*"
        )));
    }
    if params.get("Policy").is_some() || !params.list("PolicyArns.member").is_empty() {
        return Err(invalid("session policies are not in this version of vpclab".into()));
    }
    let seconds = match params.get("DurationSeconds") {
        None => MAX_CHAINED_SECONDS,
        Some(text) => text.parse::<u64>().ok().filter(|s| *s >= 900).ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy constraint: \
                 Member must have value greater than or equal to 900"
            ))
        })?,
    };
    if seconds > MAX_CHAINED_SECONDS {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining".into(),
        ));
    }
    allow(about, caller, "sts:AssumeRole", arn, Identity::Asked)?;
    let named = rpc::parse_arn(arn, "iam").and_then(|(_, account, rest)| Some((account, rest.strip_prefix("role/")?)));
    let roles = &about.compiled.plan.roles;
    let found = named.and_then(|(account, path)| {
        let name = path.rsplit('/').next().unwrap_or(path);
        roles.iter().position(|r| r.account == account && r.common.name == name)
    });
    let Some(role) = found else {
        let message = format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}", caller.arn);
        return Err(ApiError::bad("AccessDenied", message).status(403));
    };
    let ids = &about.world.ids;
    let credentials = RoleCredentials {
        role,
        role_name: roles[role].common.name.clone(),
        account: roles[role].account.clone(),
        session: session.to_owned(),
        access_key: format!("ASIA{}", ids.text(16, BASE32)),
        secret_key: format!("{}{}", ids.text(20, BASE64), ids.text(20, BASE64)),
        token: (0..8).map(|_| ids.text(32, BASE64)).collect(),
        issued: about.time,
        expires: UnixTime(about.time.0 + seconds),
    };
    let id = format!("{}:{session}", role_id(&credentials.account, &credentials.role_name));
    let answer = reply(about, "AssumeRole", |xml| {
        xml.open("AssumedRoleUser").leaf("AssumedRoleId", &id).leaf("Arn", &credentials.arn());
        xml.close("AssumedRoleUser").open("Credentials");
        xml.leaf("AccessKeyId", &credentials.access_key).leaf("SecretAccessKey", &credentials.secret_key);
        xml.leaf("SessionToken", &credentials.token).leaf("Expiration", &credentials.expires.iso8601());
        xml.close("Credentials");
    });
    if about.world.keyring.issue(credentials, about.time) {
        Ok(answer)
    } else {
        Err(ApiError::bad("Throttling", "Rate exceeded"))
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn allow(about: &About, caller: &Caller, action: &str, resource: &str, identity: Identity) -> Result<(), ApiError> {
    about
        .judge(Some(caller), action, resource, identity)
        .map_err(|message| ApiError::bad("AccessDenied", message).status(403))
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params.get(name).filter(|v| !v.is_empty()).ok_or_else(|| {
        let mut field = name.to_owned();
        field[..1].make_ascii_lowercase();
        invalid(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

fn invalid(message: String) -> ApiError {
    ApiError::bad("ValidationError", message)
}

fn reply(about: &About, action: &str, mut write: impl FnMut(&mut Xml)) -> Response {
    rpc::query_answer(NAMESPACE, action, &about.request_id, Some(&mut write))
}
