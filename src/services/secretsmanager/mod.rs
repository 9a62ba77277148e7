//! Secrets Manager by JSON 1.1: secrets, their versions and stages, deletion with a way back.

mod secret;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use http::request::Parts;
use serde_json::{Map, Value, json};

use self::secret::{Filter, Payload, Secret};
use super::errors::{ApiError, Dialect};
use super::http_types::{About, Caller, Identity, Request, Response, Service, Verification, full_request, read_body};
use super::rpc;
use super::upstream;
use super::world::World;
use crate::model::plan::{Backend, Plan};

const DIALECT: Dialect = Dialect::Json { version: "1.1" };

/// Greatest size of a value, bytes, and number of versions kept (Secrets Manager User Guide, "Quotas").
const MAX_VALUE: usize = 65_536;
const MAX_VERSIONS: usize = 100;
/// Secrets of an account and region in a lab; AWS's quota is 500,000.
const MAX_SECRETS: usize = 10_000;
/// Staging labels of a version, and tags of a secret (AWS Secrets Manager quotas).
const MAX_LABELS: usize = 20;
const MAX_TAGS: usize = 50;
/// Longest description, characters (Secrets Manager API Reference, CreateSecret).
const MAX_DESCRIPTION: usize = 2_048;
const DAY: u64 = 86_400;

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// The service and its secrets.
pub(super) struct SecretsManager {
    world: Arc<World>,
    /// By account and region, then name.
    secrets: Mutex<BTreeMap<Place, BTreeMap<String, Secret>>>,
}

type Place = (String, String);
type Object = Map<String, Value>;

impl SecretsManager {
    pub(super) fn new(world: Arc<World>) -> SecretsManager {
        SecretsManager { world, secrets: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, BTreeMap<String, Secret>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for SecretsManager {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: Some("secretsmanager"), anonymous: false, max_body: rpc::MAX_BODY }
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        DIALECT
    }

    fn load(&self, plan: &Plan) -> Result<(), String> {
        for service in plan.services.iter().filter(|s| s.name == "secretsmanager" && s.backend == Backend::Builtin) {
            let place = (service.account.clone(), service.region.clone());
            for (name, value) in &service.contents.secrets {
                check_name(name).map_err(|e| format!("secret {name}: {}", e.message))?;
                if value.len() > MAX_VALUE {
                    return Err(format!("secret {name}: longer than {MAX_VALUE} bytes"));
                }
                let mut all = self.lock();
                let own = all.entry(place.clone()).or_default();
                if !own.contains_key(name) {
                    // The suffix of a planned secret is the same in every run.
                    let suffix = crate::base::ids::token36(&["secret", &place.0, &place.1, name], 6);
                    let mut secret = Secret::new(name, arn_of(&place, name, &suffix), self.world.unix().0);
                    let id = self.world.ids.uuid();
                    secret.add(id, Payload::Text(value.clone()), vec![CURRENT.into()], secret.created);
                    own.insert(name.clone(), secret);
                }
            }
        }
        Ok(())
    }

    fn handle(&self, mut request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = request.about.clone();
            let body = std::mem::replace(&mut request.body, full_request(Default::default()));
            let body = read_body(body, rpc::MAX_BODY).await.ok().flatten().unwrap_or_default();
            let action = rpc::json_action(&request.head, "secretsmanager").unwrap_or("").to_owned();
            let result = match (rpc::json_body(&body), request.caller(DIALECT)) {
                (Ok(input), Ok(caller)) => Call { service: self, about: &about, caller, input: &input }.run(&action),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match result {
                Ok(output) => rpc::json_answer("1.1", &Value::Object(output)),
                Err(error) => error.render(DIALECT, &about.request_id),
            }
        })
    }
}

struct Call<'a> {
    service: &'a SecretsManager,
    about: &'a About,
    caller: &'a Caller,
    input: &'a Object,
}

impl Call<'_> {
    fn run(&self, action: &str) -> Result<Object, ApiError> {
        match action {
            "CreateSecret" => self.create(),
            "GetSecretValue" => self.get_value(),
            "PutSecretValue" => self.put_value(),
            "UpdateSecret" => self.update(),
            "UpdateSecretVersionStage" => self.update_stage(),
            "DescribeSecret" => self.with_secret(action, true, |s| Ok(s.describe(true))),
            "ListSecrets" => self.list(),
            "ListSecretVersionIds" => self.list_versions(),
            "DeleteSecret" => self.delete(),
            "RestoreSecret" => self.with_secret(action, true, |s| {
                s.deleted = None;
                Ok(s.named())
            }),
            "TagResource" => {
                let tags = self.tags()?;
                self.with_secret(action, false, |s| {
                    let mut all = s.tags.clone();
                    all.retain(|(k, _)| !tags.iter().any(|(n, _)| n == k));
                    all.extend(tags);
                    if all.len() > MAX_TAGS {
                        return Err(limit_exceeded());
                    }
                    s.tags = all;
                    Ok(Object::new())
                })
            }
            "UntagResource" => {
                let keys = self.input.get("TagKeys").and_then(Value::as_array).cloned().unwrap_or_default();
                self.with_secret(action, false, |s| {
                    s.tags.retain(|(k, _)| !keys.iter().any(|n| n == k));
                    Ok(Object::new())
                })
            }
            "GetRandomPassword" => self.random_password(),
            _ => Err(rpc::unknown_action(DIALECT, action, "2017-10-17")),
        }
    }

    fn create(&self) -> Result<Object, ApiError> {
        let name = self.required("Name")?;
        let place = self.place();
        let suffix = self.about.world.ids.text(6, ALPHANUMERIC);
        let arn = arn_of(&place, name, &suffix);
        self.allow("CreateSecret", &arn)?;
        check_name(name)?;
        let value = self.payload()?;
        let tags = self.tags()?;
        let token = self.token()?;
        let now = self.now();
        let mut all = self.service.lock();
        let own = all.entry(place).or_default();
        retire(own, now);
        if let Some(existing) = own.get(name) {
            if existing.deleted.is_some() {
                return Err(invalid_request(
                    "You can't create this secret because a secret with this name is already scheduled for deletion.",
                ));
            }
            // A repeated request is no error (idempotency by ClientRequestToken).
            if let (Some(version), Some(value)) = (existing.version(&token), &value)
                && version.value == *value
            {
                return Ok(existing.with_version(&token));
            }
            let message = format!("The operation failed because the secret {name} already exists.");
            return Err(ApiError::bad("ResourceExistsException", message));
        }
        if own.len() >= MAX_SECRETS {
            return Err(limit_exceeded());
        }
        let mut secret = Secret::new(name, arn, now);
        secret.description = self.short("Description")?;
        secret.kms_key = self.short("KmsKeyId")?;
        secret.tags = tags;
        let out = match value {
            None => secret.named(),
            Some(value) => {
                secret.add(token.clone(), value, vec![CURRENT.into()], now);
                secret.with_version(&token)
            }
        };
        own.insert(name.to_owned(), secret);
        Ok(out)
    }

    fn get_value(&self) -> Result<Object, ApiError> {
        let (id, stage) = (self.text("VersionId"), self.text("VersionStage"));
        let now = self.now();
        self.with_secret("GetSecretValue", false, |secret| {
            let found = secret.versions.iter().find(|v| match (id, stage) {
                (Some(id), None) => v.id == id,
                (Some(id), Some(stage)) => v.id == id && v.has(stage),
                (None, stage) => v.has(stage.unwrap_or(CURRENT)),
            });
            let Some(version) = found.cloned() else {
                let of = match (id, stage) {
                    (Some(id), _) => format!("VersionId: {id}"),
                    (None, stage) => format!("staging label: {}", stage.unwrap_or(CURRENT)),
                };
                return Err(not_found(&format!("Secrets Manager can't find the specified secret value for {of}")));
            };
            secret.accessed = Some(now - now % DAY);
            let mut out = secret.named();
            out.insert("VersionId".into(), version.id.into());
            match version.value {
                Payload::Text(text) => out.insert("SecretString".into(), text.into()),
                Payload::Binary(encoded) => out.insert("SecretBinary".into(), encoded.into()),
            };
            out.insert("VersionStages".into(), version.stages.into());
            out.insert("CreatedDate".into(), date(version.created));
            Ok(out)
        })
    }

    fn put_value(&self) -> Result<Object, ApiError> {
        let stages = self.input.get("VersionStages").and_then(Value::as_array);
        let stages: Vec<String> = stages.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let stages = if stages.is_empty() { vec![CURRENT.to_owned()] } else { stages };
        let value = self.payload()?;
        let value = value.ok_or_else(|| {
            ApiError::bad("InvalidParameterException", "You must provide either SecretString or SecretBinary.")
        })?;
        let (token, now) = (self.token()?, self.now());
        self.with_secret("PutSecretValue", false, |secret| {
            secret.put(&token, value, stages, now)?;
            let mut out = secret.with_version(&token);
            let stages = secret.version(&token).map(|v| v.stages.clone()).unwrap_or_default();
            out.insert("VersionStages".into(), stages.into());
            Ok(out)
        })
    }

    fn update(&self) -> Result<Object, ApiError> {
        let value = self.payload()?;
        let (token, now) = (self.token()?, self.now());
        let (description, key) = (self.short("Description")?, self.short("KmsKeyId")?);
        self.with_secret("UpdateSecret", false, |secret| {
            secret.description = description.or(secret.description.take());
            secret.kms_key = key.or(secret.kms_key.take());
            secret.changed = now;
            match value {
                None => Ok(secret.named()),
                Some(value) => {
                    secret.put(&token, value, vec![CURRENT.into()], now)?;
                    Ok(secret.with_version(&token))
                }
            }
        })
    }

    fn update_stage(&self) -> Result<Object, ApiError> {
        let stage = self.required("VersionStage")?.to_owned();
        let (from, to) = (self.text("RemoveFromVersionId"), self.text("MoveToVersionId"));
        let now = self.now();
        self.with_secret("UpdateSecretVersionStage", false, |secret| {
            let holder = secret.versions.iter().find(|v| v.has(&stage)).map(|v| v.id.clone());
            if let Some(to) = to
                && secret.version(to).is_none()
            {
                return Err(not_found(&format!(
                    "Secrets Manager can't find the specified secret value for VersionId: {to}"
                )));
            }
            if holder.is_some() && holder.as_deref() != from && holder.as_deref() != to {
                return Err(ApiError::bad(
                    "InvalidParameterException",
                    format!(
                        "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently \
                             attached to version {}, so you must explicitly reference that version in \
                             RemoveFromVersionId.",
                        holder.unwrap_or_default()
                    ),
                ));
            }
            if to.is_none() && stage == CURRENT {
                return Err(ApiError::bad(
                    "InvalidParameterException",
                    "You can only move staging label AWSCURRENT to a different secret version. It can't be completely \
                     removed.",
                ));
            }
            match to {
                Some(to) => {
                    let labels = secret.version(to).map_or(0, |v| v.stages.iter().filter(|s| **s != stage).count());
                    if labels >= MAX_LABELS || stage.len() > 256 {
                        return Err(limit_exceeded());
                    }
                    secret.attach(to, &stage);
                }
                None => secret.versions.iter_mut().for_each(|v| v.stages.retain(|s| *s != stage)),
            }
            secret.changed = now;
            Ok(secret.named())
        })
    }

    fn list(&self) -> Result<Object, ApiError> {
        self.allow("ListSecrets", "*")?;
        let place = self.place();
        let deleted_too = self.input.get("IncludePlannedDeletion").and_then(Value::as_bool).unwrap_or(false);
        let filters = self.filters()?;
        let mut all = self.service.lock();
        let own = all.entry(place).or_default();
        retire(own, self.now());
        let found: Vec<Value> = own
            .values()
            .filter(|s| deleted_too || s.deleted.is_none())
            .filter(|s| filters.iter().all(|f| f.matches(s)))
            .map(|s| Value::Object(s.describe(false)))
            .collect();
        drop(all);
        self.page("SecretList", found)
    }

    fn list_versions(&self) -> Result<Object, ApiError> {
        let all = self.input.get("IncludeDeprecated").and_then(Value::as_bool).unwrap_or(false);
        let (mut out, versions) = self.with_secret("ListSecretVersionIds", true, |secret| {
            let versions: Vec<Value> = secret
                .versions
                .iter()
                .filter(|v| all || !v.stages.is_empty())
                .map(|v| json!({ "VersionId": v.id, "VersionStages": v.stages, "CreatedDate": date(v.created) }))
                .collect();
            Ok((secret.named(), versions))
        })?;
        out.extend(self.page("Versions", versions)?);
        Ok(out)
    }

    fn delete(&self) -> Result<Object, ApiError> {
        let force = self.input.get("ForceDeleteWithoutRecovery").and_then(Value::as_bool).unwrap_or(false);
        let window = self.input.get("RecoveryWindowInDays").filter(|v| !v.is_null());
        if force && window.is_some() {
            return Err(ApiError::bad(
                "InvalidParameterException",
                "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
            ));
        }
        let days = window.map_or(Some(30), Value::as_u64).filter(|d| (7..=30).contains(d)).ok_or_else(|| {
            ApiError::bad(
                "InvalidParameterException",
                "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).",
            )
        })?;
        let now = self.now();
        let gone = if force { now } else { now + days * DAY };
        let out = self.with_secret("DeleteSecret", force, |secret| {
            secret.deleted = Some((now, gone));
            let mut out = secret.named();
            out.insert("DeletionDate".into(), date(gone));
            Ok(out)
        });
        match out {
            // Forced deletion of what is not there is no error.
            Err(e) if force && e.code == "ResourceNotFoundException" => {
                let id = self.required("SecretId")?;
                let name = rpc::parse_arn(id, "secretsmanager").map_or(id, |(.., rest)| rest);
                let mut out = Object::new();
                out.insert("Name".into(), name.into());
                out.insert("ARN".into(), arn_of(&self.place(), name, "000000").into());
                out.insert("DeletionDate".into(), date(now));
                Ok(out)
            }
            other => {
                if force && let Some(own) = self.service.lock().get_mut(&self.place()) {
                    retire(own, now);
                }
                other
            }
        }
    }

    fn random_password(&self) -> Result<Object, ApiError> {
        self.allow("GetRandomPassword", "*")?;
        let flag = |name: &str| self.input.get(name).and_then(Value::as_bool).unwrap_or(false);
        let length = self.input.get("PasswordLength").map_or(Some(32), Value::as_u64);
        let length = length.and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=4_096).contains(n));
        let length = length
            .ok_or_else(|| ApiError::bad("InvalidParameterException", "Password length must be between 1 and 4096."))?;
        let classes: [(&str, &[u8]); 5] = [
            ("ExcludeLowercase", b"abcdefghijklmnopqrstuvwxyz"),
            ("ExcludeUppercase", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            ("ExcludeNumbers", b"0123456789"),
            ("ExcludePunctuation", b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
            ("", b" "),
        ];
        let without = self.text("ExcludeCharacters").unwrap_or("").as_bytes();
        let kept = classes.iter().filter(|(name, _)| if name.is_empty() { flag("IncludeSpace") } else { !flag(name) });
        let kept: Vec<Vec<u8>> = kept
            .map(|(_, class)| class.iter().copied().filter(|c| !without.contains(c)).collect::<Vec<u8>>())
            .filter(|class| !class.is_empty())
            .collect();
        let alphabet: Vec<u8> = kept.concat();
        if alphabet.is_empty() {
            let message = "The password can't be generated: every character is excluded.";
            return Err(ApiError::bad("InvalidParameterException", message));
        }
        let ids = &self.about.world.ids;
        let mut password = String::new();
        let every = self.input.get("RequireEachIncludedType").and_then(Value::as_bool).unwrap_or(true);
        if every && kept.len() <= length {
            password.extend(kept.iter().map(|class| ids.text(1, class)));
        }
        while password.len() < length {
            password.push_str(&ids.text((length - password.len()).min(32), &alphabet));
        }
        Ok([("RandomPassword".to_owned(), password.into())].into_iter().collect())
    }

    /// The secret that `SecretId` names (name, ARN, or ARN without its suffix), once the policies allow the action.
    fn with_secret<T>(
        &self,
        action: &str,
        deleted_too: bool,
        work: impl FnOnce(&mut Secret) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let id = self.required("SecretId")?;
        let place = self.place();
        let mut all = self.service.lock();
        let own = all.entry(place.clone()).or_default();
        retire(own, self.now());
        let name = match id.strip_prefix("arn:") {
            None => id.to_owned(),
            Some(_) => {
                let known = own.values().find(|s| s.arn == id || s.arn.rsplit_once('-').is_some_and(|(a, _)| a == id));
                known.map_or_else(String::new, |s| s.name.clone())
            }
        };
        let resource = match own.get(&name) {
            Some(secret) => secret.arn.clone(),
            None if id.starts_with("arn:") => id.to_owned(),
            None => format!("arn:aws:secretsmanager:{}:{}:secret:{id}", place.1, place.0),
        };
        self.allow(action, &resource)?;
        if let Some((_, account, _)) = rpc::parse_arn(id, "secretsmanager")
            && account != place.0
        {
            let message = format!(
                "User: {} is not authorized to perform: secretsmanager:{action} on resource: {id} because no \
                 resource-based policy allows the secretsmanager:{action} action",
                self.caller.arn
            );
            return Err(upstream::denied(DIALECT, message));
        }
        let missing = || not_found("Secrets Manager can't find the specified secret.");
        let secret = own.get_mut(&name).ok_or_else(missing)?;
        if secret.deleted.is_some() && !deleted_too {
            return Err(invalid_request(
                "You can't perform this operation on the secret because it was marked for deletion.",
            ));
        }
        work(secret)
    }

    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.about
            .judge(Some(self.caller), &format!("secretsmanager:{action}"), resource, Identity::Asked)
            .map_err(|message| upstream::denied(DIALECT, message))
    }

    fn place(&self) -> Place {
        (self.caller.account().to_owned(), self.about.gate.region.clone())
    }

    fn now(&self) -> u64 {
        self.about.time.0
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.input.get(name).and_then(Value::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).filter(|v| !v.is_empty()).ok_or_else(|| {
            let mut field = name.to_owned();
            field[..1].make_ascii_lowercase();
            ApiError::bad(
                "ValidationException",
                format!(
                    "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must \
                     not be null"
                ),
            )
        })
    }

    fn payload(&self) -> Result<Option<Payload>, ApiError> {
        let wrong = |message: &str| Err(ApiError::bad("InvalidParameterException", message));
        let value = match (self.text("SecretString"), self.text("SecretBinary")) {
            (Some(_), Some(_)) => {
                return wrong(
                    "You can't specify both a binary secret value and a string secret value in the same secret.",
                );
            }
            (Some(text), None) => Payload::Text(text.to_owned()),
            (None, Some(encoded)) => Payload::Binary(encoded.to_owned()),
            (None, None) => return Ok(None),
        };
        let size = match &value {
            Payload::Text(text) => text.len(),
            Payload::Binary(encoded) => match STANDARD.decode(encoded) {
                Ok(bytes) => bytes.len(),
                Err(_) => return wrong("SecretBinary is not base64."),
            },
        };
        if size > MAX_VALUE {
            return wrong("The secret value can't be greater than 65536 bytes.");
        }
        Ok(Some(value))
    }

    /// Id of the version to be made.
    fn token(&self) -> Result<String, ApiError> {
        match self.text("ClientRequestToken") {
            None => Ok(self.about.world.ids.uuid()),
            Some(token) if (32..=64).contains(&token.len()) => Ok(token.to_owned()),
            Some(_) => {
                Err(ApiError::bad("InvalidParameterException", "ClientRequestToken must be 32-64 characters long."))
            }
        }
    }

    fn tags(&self) -> Result<Vec<(String, String)>, ApiError> {
        let list = self.input.get("Tags").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|tag| {
                let key = tag.get("Key").and_then(Value::as_str);
                let key = key.ok_or_else(|| ApiError::bad("InvalidParameterException", "A tag needs a key."))?;
                let value = tag.get("Value").and_then(Value::as_str).unwrap_or("");
                if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
                    let message = "A tag's key has 1 to 128 characters, its value up to 256.";
                    return Err(ApiError::bad("InvalidParameterException", message));
                }
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// A text of at most [`MAX_DESCRIPTION`] characters.
    fn short(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.text(name) {
            Some(text) if text.chars().count() > MAX_DESCRIPTION => Err(ApiError::bad(
                "ValidationException",
                format!("{name} can have at most {MAX_DESCRIPTION} characters."),
            )),
            text => Ok(text.map(str::to_owned)),
        }
    }

    fn filters(&self) -> Result<Vec<Filter>, ApiError> {
        let list = self.input.get("Filters").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|f| {
                let key = f.get("Key").and_then(Value::as_str).unwrap_or("").to_owned();
                if !["name", "description", "tag-key", "tag-value", "all"].contains(&key.as_str()) {
                    let message = format!("filter {key} is not in this version of vpclab");
                    return Err(ApiError::bad("ValidationException", message));
                }
                let values = f.get("Values").and_then(Value::as_array);
                let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
                Ok(Filter { key, values })
            })
            .collect()
    }

    /// `MaxResults` and `NextToken`: the token is the place in the list.
    fn page(&self, key: &str, all: Vec<Value>) -> Result<Object, ApiError> {
        let size = self.input.get("MaxResults").and_then(Value::as_u64).unwrap_or(100).clamp(1, 100);
        let size = usize::try_from(size).unwrap_or(100);
        let token = self.text("NextToken").unwrap_or("0");
        let from: usize =
            token.parse().map_err(|_| ApiError::bad("InvalidNextTokenException", "The NextToken value is invalid."))?;
        let mut out = Object::new();
        if all.len() > from.saturating_add(size) {
            out.insert("NextToken".into(), (from + size).to_string().into());
        }
        let shown: Vec<Value> = all.into_iter().skip(from).take(size).collect();
        out.insert(key.into(), shown.into());
        Ok(out)
    }
}

const ALPHANUMERIC: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Forgets the secrets whose recovery window is over.
fn retire(secrets: &mut BTreeMap<String, Secret>, now: u64) {
    secrets.retain(|_, s| s.deleted.is_none_or(|(_, gone)| gone > now));
}

fn arn_of(place: &Place, name: &str, suffix: &str) -> String {
    format!("arn:aws:secretsmanager:{}:{}:secret:{name}-{suffix}", place.1, place.0)
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    if name.is_empty() || name.len() > 512 || !name.chars().all(fits) {
        return Err(ApiError::bad(
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        ));
    }
    Ok(())
}

fn invalid_request(message: &str) -> ApiError {
    ApiError::bad("InvalidRequestException", message)
}

fn limit_exceeded() -> ApiError {
    ApiError::bad(
        "LimitExceededException",
        "The request failed because it would exceed one of the Secrets Manager internal limits.",
    )
}

fn not_found(message: &str) -> ApiError {
    ApiError::bad("ResourceNotFoundException", message)
}

/// Dates of JSON 1.1: seconds since 1970.
fn date(seconds: u64) -> Value {
    seconds.into()
}
