//! The temporary credentials of roles: issued by `runtime`, handed out by `imds`, checked by `services`.

use std::sync::Arc;

use crate::base::UnixTime;

/// What an instance profile hands out at `/latest/meta-data/iam/security-credentials/ROLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCredentials {
    /// Index in `Plan::roles`.
    pub role: usize,
    pub role_name: String,
    /// 12 digits.
    pub account: String,
    /// The session's name: the instance id, as EC2 does it.
    pub session: String,
    /// `ASIA` and 16 characters.
    pub access_key: String,
    pub secret_key: String,
    pub token: String,
    pub issued: UnixTime,
    pub expires: UnixTime,
}

impl RoleCredentials {
    /// `arn:aws:sts::123456789012:assumed-role/web-role/i-0123456789abcdef0`.
    pub fn arn(&self) -> String {
        format!("arn:aws:sts::{}:assumed-role/{}/{}", self.account, self.role_name, self.session)
    }
}

/// All credentials that are good at one moment, per instance, newest first. Replaced whole when renewed.
#[derive(Clone, Debug, Default)]
pub struct CredentialBook {
    /// `(index in Plan::instances, credentials)`.
    pub entries: Vec<(usize, Arc<RoleCredentials>)>,
}

impl CredentialBook {
    /// What IMDS hands to an instance: the newest.
    pub fn of_instance(&self, instance: usize) -> Option<&Arc<RoleCredentials>> {
        self.entries.iter().find(|(i, _)| *i == instance).map(|(_, c)| c)
    }

    /// What a signature names.
    pub fn by_access_key(&self, access_key: &str) -> Option<&Arc<RoleCredentials>> {
        self.entries.iter().map(|(_, c)| c).find(|c| c.access_key == access_key)
    }
}
