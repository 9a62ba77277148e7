//! One secret: its versions, the stages on them, and how it is described.

use serde_json::{Value, json};

use super::{CURRENT, MAX_LABELS, MAX_VERSIONS, Object, PREVIOUS, date, limit_exceeded};
use crate::services::errors::ApiError;

#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) description: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) tags: Vec<(String, String)>,
    pub(super) created: u64,
    pub(super) changed: u64,
    /// Start of the day of the last reading, as AWS rounds it.
    pub(super) accessed: Option<u64>,
    /// When it was deleted, and when it will be gone.
    pub(super) deleted: Option<(u64, u64)>,
    /// Oldest first.
    pub(super) versions: Vec<Version>,
}

#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) value: Payload,
    pub(super) stages: Vec<String>,
    pub(super) created: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Text(String),
    /// As encoded by the client.
    Binary(String),
}

impl Secret {
    pub(super) fn new(name: &str, arn: String, now: u64) -> Secret {
        Secret {
            name: name.to_owned(),
            arn,
            description: None,
            kms_key: None,
            tags: Vec::new(),
            created: now,
            changed: now,
            accessed: None,
            deleted: None,
            versions: Vec::new(),
        }
    }

    pub(super) fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.id == id)
    }

    /// A new version; the same token with the same value is no error, with another it is.
    pub(super) fn put(&mut self, id: &str, value: Payload, stages: Vec<String>, now: u64) -> Result<(), ApiError> {
        if let Some(existing) = self.version(id) {
            if existing.value == value {
                return Ok(());
            }
            let message = "You can't modify an existing version, you can only create a new version.";
            return Err(ApiError::bad("ResourceExistsException", message));
        }
        if stages.len() > MAX_LABELS || stages.iter().any(|s| !(1..=256).contains(&s.len())) {
            return Err(limit_exceeded());
        }
        // Versions with a label are kept; without one the oldest makes room.
        if self.versions.len() >= MAX_VERSIONS && self.versions.iter().all(|v| !v.stages.is_empty()) {
            return Err(limit_exceeded());
        }
        self.add(id.to_owned(), value, stages, now);
        Ok(())
    }

    pub(super) fn add(&mut self, id: String, value: Payload, mut stages: Vec<String>, now: u64) {
        // The first version is always the current one.
        if self.versions.is_empty() && !stages.iter().any(|s| s == CURRENT) {
            stages.push(CURRENT.into());
        }
        self.versions.push(Version { id: id.clone(), value, stages: Vec::new(), created: now });
        for stage in &stages {
            self.attach(&id, stage);
        }
        self.changed = now;
        if self.versions.len() > MAX_VERSIONS
            && let Some(at) = self.versions.iter().position(|v| v.stages.is_empty())
        {
            self.versions.remove(at);
        }
    }

    /// Moves a stage to a version. What was current becomes previous.
    pub(super) fn attach(&mut self, id: &str, stage: &str) {
        let before = self.versions.iter().find(|v| v.has(stage)).map(|v| v.id.clone());
        for version in &mut self.versions {
            version.stages.retain(|s| s != stage);
        }
        if let Some(version) = self.versions.iter_mut().find(|v| v.id == id) {
            version.stages.push(stage.to_owned());
        }
        if stage == CURRENT
            && let Some(before) = before.filter(|b| b != id)
        {
            self.attach(&before, PREVIOUS);
        }
    }

    pub(super) fn named(&self) -> Object {
        [("ARN", &self.arn), ("Name", &self.name)]
            .map(|(k, v)| (k.to_owned(), Value::from(v.clone())))
            .into_iter()
            .collect()
    }

    pub(super) fn with_version(&self, id: &str) -> Object {
        let mut out = self.named();
        out.insert("VersionId".into(), id.into());
        out
    }

    pub(super) fn describe(&self, one: bool) -> Object {
        let mut out = self.named();
        if let Some(description) = &self.description {
            out.insert("Description".into(), description.clone().into());
        }
        if let Some(key) = &self.kms_key {
            out.insert("KmsKeyId".into(), key.clone().into());
        }
        out.insert("LastChangedDate".into(), date(self.changed));
        if let Some(accessed) = self.accessed {
            out.insert("LastAccessedDate".into(), date(accessed));
        }
        if let Some((deleted, _)) = self.deleted {
            out.insert("DeletedDate".into(), date(deleted));
        }
        let tags: Vec<Value> = self.tags.iter().map(|(k, v)| json!({ "Key": k, "Value": v })).collect();
        if !tags.is_empty() {
            out.insert("Tags".into(), tags.into());
        }
        let stages: Object = self
            .versions
            .iter()
            .filter(|v| !v.stages.is_empty())
            .map(|v| (v.id.clone(), v.stages.clone().into()))
            .collect();
        let key = if one { "VersionIdsToStages" } else { "SecretVersionsToStages" };
        out.insert(key.into(), stages.into());
        out.insert("CreatedDate".into(), date(self.created));
        out
    }
}

impl Version {
    pub(super) fn has(&self, stage: &str) -> bool {
        self.stages.iter().any(|s| s == stage)
    }
}

/// A filter of ListSecrets: prefixes, a leading `!` negates.
pub(super) struct Filter {
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

impl Filter {
    pub(super) fn matches(&self, secret: &Secret) -> bool {
        let begins = |text: &str, value: &str| text.to_lowercase().starts_with(&value.to_lowercase());
        let one = |value: &str| {
            let name = begins(&secret.name, value);
            let description = secret.description.as_deref().is_some_and(|d| begins(d, value));
            let tag_key = secret.tags.iter().any(|(k, _)| k.starts_with(value));
            let tag_value = secret.tags.iter().any(|(_, v)| v.starts_with(value));
            match self.key.as_str() {
                "name" => name,
                "description" => description,
                "tag-key" => tag_key,
                "tag-value" => tag_value,
                _ => name || description || tag_key || tag_value,
            }
        };
        self.values.iter().any(|v| v.strip_prefix('!').map_or_else(|| one(v), |v| !one(v)))
    }
}
