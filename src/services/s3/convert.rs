//! Between the types of s3s and ours, and what is refused because this version does not do it.

use aws_lc_rs::digest;
use s3s::S3Result;
use s3s::dto::{self, ETag, ETagCondition, Timestamp};
use time::OffsetDateTime;

use super::checksum::{Checksum, hex};
use super::error::{fail, fail_with};
use super::store::{Headers, ObjectInfo};
use crate::base::UnixTime;

/// Copies a kept checksum into whichever of the five fields it belongs to.
macro_rules! set_checksum {
    ($output:expr, $algorithm:expr, $value:expr) => {{
        let value = Some($value);
        match $algorithm {
            $crate::services::s3::checksum::Algorithm::Crc32 => $output.checksum_crc32 = value,
            $crate::services::s3::checksum::Algorithm::Crc32c => $output.checksum_crc32c = value,
            $crate::services::s3::checksum::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
            $crate::services::s3::checksum::Algorithm::Sha1 => $output.checksum_sha1 = value,
            $crate::services::s3::checksum::Algorithm::Sha256 => $output.checksum_sha256 = value,
        }
    }};
}

/// An object's checksum: its value in the field of its algorithm, and of what it is one.
macro_rules! show_checksum {
    ($output:expr, $checksum:expr) => {{
        let checksum: &$crate::services::s3::checksum::Checksum = $checksum;
        $crate::services::s3::convert::set_checksum!($output, checksum.algorithm, checksum.value.clone());
        $output.checksum_type = $crate::services::s3::convert::checksum_type(checksum);
    }};
}

/// The conditions of a read.
macro_rules! conditions {
    ($input:expr) => {{
        let input = &$input;
        $crate::services::s3::convert::Conditions {
            matches: input.if_match.clone(),
            none_match: input.if_none_match.clone(),
            modified_since: input.if_modified_since.clone(),
            unmodified_since: input.if_unmodified_since.clone(),
        }
    }};
}

/// The conditions of a copy on its source.
macro_rules! source_conditions {
    ($input:expr) => {{
        let input = &$input;
        $crate::services::s3::convert::Conditions {
            matches: input.copy_source_if_match.clone(),
            none_match: input.copy_source_if_none_match.clone(),
            modified_since: input.copy_source_if_modified_since.clone(),
            unmodified_since: input.copy_source_if_unmodified_since.clone(),
        }
    }};
}

/// The value in whichever of the five fields belongs to an algorithm.
macro_rules! get_checksum {
    ($input:expr, $algorithm:expr) => {
        match $algorithm {
            $crate::services::s3::checksum::Algorithm::Crc32 => $input.checksum_crc32.as_deref(),
            $crate::services::s3::checksum::Algorithm::Crc32c => $input.checksum_crc32c.as_deref(),
            $crate::services::s3::checksum::Algorithm::Crc64Nvme => $input.checksum_crc64nvme.as_deref(),
            $crate::services::s3::checksum::Algorithm::Sha1 => $input.checksum_sha1.as_deref(),
            $crate::services::s3::checksum::Algorithm::Sha256 => $input.checksum_sha256.as_deref(),
        }
    };
}

/// The headers that are kept with an object.
macro_rules! kept_headers {
    ($input:expr) => {{
        let input = &$input;
        $crate::services::s3::store::Headers {
            content_type: input.content_type.clone(),
            content_encoding: $crate::services::s3::convert::without_aws_chunked(input.content_encoding.as_deref()),
            content_language: input.content_language.clone(),
            content_disposition: input.content_disposition.clone(),
            cache_control: input.cache_control.clone(),
            expires: input.expires.clone().map($crate::services::s3::convert::seconds),
            redirect: input.website_redirect_location.clone(),
            storage_class: $crate::services::s3::convert::storage_class(
                input.storage_class.as_ref().map(|s| s.as_str()),
            )?,
        }
    }};
}

/// Refuses what this version does not do.
macro_rules! refuse_unsupported {
    ($input:expr) => {{
        let input = &$input;
        if input.sse_customer_algorithm.is_some() || input.sse_customer_key.is_some() {
            return Err($crate::services::s3::convert::not_here("encryption with customer-provided keys"));
        }
        if input.server_side_encryption.as_ref().is_some_and(|e| e.as_str() != "AES256") {
            return Err($crate::services::s3::convert::not_here("encryption with KMS keys"));
        }
        if input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some() {
            return Err($crate::services::s3::convert::not_here("object lock"));
        }
        $crate::services::s3::convert::refuse_acl(input.acl.as_ref().map(|a| a.as_str()))?;
        if input.grant_full_control.is_some() || input.grant_read.is_some() {
            return Err($crate::services::s3::error::fail("AccessControlListNotSupported"));
        }
    }};
}

pub(super) use {
    conditions, get_checksum, kept_headers, refuse_unsupported, set_checksum, show_checksum, source_conditions,
};

/// "AWS4 chunks" are framing of one request, not an encoding of the object: botocore sends `aws-chunked` or
/// `gzip,aws-chunked`.
pub(super) fn without_aws_chunked(encoding: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = encoding?
        .split(',')
        .map(str::trim)
        .filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// `None` for STANDARD.
pub(super) fn storage_class(name: Option<&str>) -> S3Result<Option<String>> {
    match name {
        None | Some("STANDARD") => Ok(None),
        Some(n @ ("STANDARD_IA" | "ONEZONE_IA" | "INTELLIGENT_TIERING" | "REDUCED_REDUNDANCY" | "GLACIER_IR")) => {
            Ok(Some(n.to_owned()))
        }
        Some("GLACIER" | "DEEP_ARCHIVE") => Err(not_here("archive storage classes")),
        Some(_) => Err(fail("InvalidStorageClass")),
    }
}

/// Buckets have ACLs off (BucketOwnerEnforced), AWS's default since April 2023.
pub(super) fn refuse_acl(acl: Option<&str>) -> S3Result<()> {
    match acl {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(_) => Err(fail("AccessControlListNotSupported")),
    }
}

/// Versioning is off, so the only version is `null`.
pub(super) fn only_null_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(fail_with("InvalidArgument", "Invalid version id specified")),
    }
}

pub(super) fn not_here(what: &str) -> s3s::S3Error {
    fail_with("NotImplemented", format!("{what}: not in this version"))
}

/// User metadata is limited to 2 KB of names and values (Amazon S3 User Guide, "Working with object metadata").
pub(super) fn metadata(given: Option<dto::Metadata>) -> S3Result<std::collections::BTreeMap<String, String>> {
    let kept: std::collections::BTreeMap<String, String> = given.unwrap_or_default().into_iter().collect();
    if kept.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > 2_048 {
        return Err(fail("MetadataTooLarge"));
    }
    Ok(kept)
}

/// `a=1&b=2` of `x-amz-tagging`.
pub(super) fn tags_of_header(text: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let tags: Vec<(String, String)> =
        form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect();
    check_tags(tags, 10)
}

pub(super) fn tags_of(given: dto::TagSet, most: usize) -> S3Result<Vec<(String, String)>> {
    let tags = given.into_iter().map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default()));
    check_tags(tags.collect(), most)
}

pub(super) fn tag_set(tags: &[(String, String)]) -> dto::TagSet {
    tags.iter().map(|(k, v)| dto::Tag { key: Some(k.clone()), value: Some(v.clone()) }).collect()
}

fn check_tags(tags: Vec<(String, String)>, most: usize) -> S3Result<Vec<(String, String)>> {
    if tags.len() > most {
        return Err(fail_with("InvalidTag", format!("Object tags cannot be greater than {most}")));
    }
    for (i, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(fail_with("InvalidTag", "The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 {
            return Err(fail_with("InvalidTag", "The TagValue you have provided is invalid"));
        }
        if tags[..i].iter().any(|(k, _)| k == key) {
            return Err(fail_with("InvalidTag", "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(tags)
}

pub(super) fn timestamp(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).into()
}

pub(super) fn seconds(at: Timestamp) -> i64 {
    OffsetDateTime::from(at).unix_timestamp()
}

pub(super) fn expires(headers: &Headers) -> Option<Timestamp> {
    headers.expires.and_then(|e| OffsetDateTime::from_unix_timestamp(e).ok()).map(Timestamp::from)
}

pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.to_owned())
}

pub(super) fn aes256() -> Option<dto::ServerSideEncryption> {
    Some(dto::ServerSideEncryption::from_static(dto::ServerSideEncryption::AES256))
}

pub(super) fn checksum_type(checksum: &Checksum) -> Option<dto::ChecksumType> {
    Some(dto::ChecksumType::from_static(checksum.kind.as_str()))
}

/// The canonical user id of an account: 64 hex digits.
pub(super) fn owner(account: &str) -> dto::Owner {
    dto::Owner { display_name: None, id: Some(canonical_id(account)) }
}

pub(super) fn canonical_id(account: &str) -> String {
    hex(digest::digest(&digest::SHA256, format!("canonical user {account}").as_bytes()).as_ref())
}

/// The conditions of a read (RFC 9110, 13.2.2) or of the source of a copy.
pub(super) struct Conditions {
    pub(super) matches: Option<ETagCondition>,
    pub(super) none_match: Option<ETagCondition>,
    pub(super) modified_since: Option<Timestamp>,
    pub(super) unmodified_since: Option<Timestamp>,
}

/// How a condition failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    Precondition,
    NotModified,
}

impl Conditions {
    pub(super) fn check(&self, object: &ObjectInfo) -> Result<(), Failed> {
        let modified = i64::try_from(object.modified).unwrap_or(i64::MAX);
        match &self.matches {
            Some(condition) if !names(condition, &object.etag) => return Err(Failed::Precondition),
            Some(_) => {}
            None if self.unmodified_since.clone().is_some_and(|t| modified > seconds(t)) => {
                return Err(Failed::Precondition);
            }
            None => {}
        }
        match &self.none_match {
            Some(condition) if names(condition, &object.etag) => return Err(Failed::NotModified),
            Some(_) => {}
            None if self.modified_since.clone().is_some_and(|t| modified <= seconds(t)) => {
                return Err(Failed::NotModified);
            }
            None => {}
        }
        Ok(())
    }
}

fn names(condition: &ETagCondition, etag: &str) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|e| e.value() == etag)
}

/// The conditions of a write.
pub(super) fn check_write(
    matches: Option<&ETagCondition>,
    none_match: Option<&ETagCondition>,
    there: Option<&ObjectInfo>,
) -> S3Result<()> {
    if let Some(condition) = matches {
        let Some(there) = there else { return Err(fail("NoSuchKey")) };
        if !names(condition, &there.etag) {
            return Err(fail("PreconditionFailed"));
        }
    }
    if let Some(condition) = none_match
        && there.is_some_and(|t| names(condition, &t.etag))
    {
        return Err(fail("PreconditionFailed"));
    }
    Ok(())
}

pub(super) fn modified(now: UnixTime) -> u64 {
    now.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_chunked_is_no_encoding_of_the_object() {
        assert_eq!(without_aws_chunked(Some("aws-chunked")), None);
        assert_eq!(without_aws_chunked(Some("gzip, aws-chunked")).as_deref(), Some("gzip"));
        assert_eq!(without_aws_chunked(Some("gzip")).as_deref(), Some("gzip"));
    }

    #[test]
    fn conditions_of_a_read() {
        let object = ObjectInfo { etag: "x".into(), modified: 100, ..ObjectInfo::default() };
        let tag = |t: &str| Some(ETagCondition::ETag(ETag::Strong(t.into())));
        let check = |matches, none_match, since: Option<u64>, until: Option<u64>| {
            let conditions = Conditions {
                matches,
                none_match,
                modified_since: since.map(timestamp),
                unmodified_since: until.map(timestamp),
            };
            conditions.check(&object)
        };
        assert_eq!(check(tag("x"), None, None, Some(50)), Ok(()), "a matching tag outweighs the date");
        assert_eq!(check(tag("y"), None, None, None), Err(Failed::Precondition));
        assert_eq!(check(None, None, None, Some(99)), Err(Failed::Precondition));
        assert_eq!(check(None, tag("x"), Some(50), None), Err(Failed::NotModified));
        assert_eq!(check(None, tag("y"), Some(100), None), Ok(()));
        assert_eq!(check(None, None, Some(100), None), Err(Failed::NotModified));
        assert_eq!(check(None, None, Some(99), Some(100)), Ok(()));
    }
}
