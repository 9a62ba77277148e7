//! Single objects: put, get, head, copy, delete, tags.

use std::ops::Range as ByteRange;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, GetObjectAttributesInput, GetObjectAttributesOutput,
    GetObjectAttributesParts, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ObjectPart,
    PutObjectInput, PutObjectOutput, Range, StorageClass, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3Request, S3Response, S3Result};

use super::Backend;
use super::auth::{bucket_arn, object_arn};
use super::blob::read;
use super::checksum::{Algorithm, Checksum, Kind};
use super::convert::{
    Conditions, Failed, aes256, check_write, conditions, etag, expires, kept_headers, metadata, modified, not_here,
    only_null_version, refuse_unsupported, set_checksum, show_checksum, source_conditions, tags_of_header, timestamp,
};
use super::error::{fail, fail_with};
use super::store::{Object, ObjectInfo};
use super::transfer::{Claims, receive};

/// What S3 says of an object that was sent without a type.
pub(super) const DEFAULT_TYPE: &str = "binary/octet-stream";

pub(super) async fn put(backend: &Backend, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let input = req.input;
    refuse_unsupported!(input);
    if input.write_offset_bytes.is_some() {
        return Err(not_here("appending to objects"));
    }
    let claims = Claims::of(&req.headers)?;
    let headers = kept_headers!(input);
    let tags = tags_of_header(input.tagging.as_deref())?;
    let metadata = metadata(input.metadata)?;
    backend.store.bucket(&input.bucket, |_| Ok(()))?;
    let algorithm = claims.algorithm().unwrap_or(Algorithm::Crc64Nvme);
    let place = backend.store.place(&input.bucket);
    let received = receive(input.body, place, &claims, req.trailing_headers, &[algorithm]).await?;
    let checksum = received.sums.get(algorithm).map(|value| Checksum { algorithm, value, kind: Kind::FullObject });
    let info = ObjectInfo {
        size: received.sums.len,
        etag: received.sums.etag(),
        modified: modified(backend.now()),
        headers,
        metadata,
        tags,
        checksum,
        parts: Vec::new(),
    };
    let object = Object { info, segments: vec![received.segment] };
    let (matches, none_match) = (input.if_match, input.if_none_match);
    let allowed = |there: Option<&Object>| check_write(matches.as_ref(), none_match.as_ref(), there.map(|t| &t.info));
    let object = backend.store.put(&input.bucket, &input.key, object, allowed).await?;

    let mut output = PutObjectOutput {
        e_tag: Some(etag(&object.info.etag)),
        server_side_encryption: aes256(),
        ..PutObjectOutput::default()
    };
    if let Some(checksum) = &object.info.checksum {
        show_checksum!(output, checksum);
    }
    Ok(S3Response::new(output))
}

/// What GET and HEAD say of an object, in the words of either; `response-` parameters beat what is kept with it (S3 API
/// Reference, GetObject and HeadObject).
macro_rules! described {
    ($Output:ident, $input:expr, $info:expr, $wanted:expr) => {{
        let (input, info, wanted) = ($input, $info, $wanted);
        let headers = &info.headers;
        let content_type = headers.content_type.clone().unwrap_or_else(|| DEFAULT_TYPE.into());
        let mut output = $Output {
            accept_ranges: Some("bytes".into()),
            cache_control: input.response_cache_control.clone().or_else(|| headers.cache_control.clone()),
            content_disposition: input
                .response_content_disposition
                .clone()
                .or_else(|| headers.content_disposition.clone()),
            content_encoding: input.response_content_encoding.clone().or_else(|| headers.content_encoding.clone()),
            content_language: input.response_content_language.clone().or_else(|| headers.content_language.clone()),
            content_length: i64::try_from(wanted.range.end - wanted.range.start).ok(),
            content_range: wanted.content_range(info.size),
            content_type: Some(input.response_content_type.clone().unwrap_or(content_type)),
            e_tag: Some(etag(&info.etag)),
            expires: input.response_expires.clone().or_else(|| expires(headers)),
            last_modified: Some(timestamp(info.modified)),
            metadata: Some(info.metadata.clone().into_iter().collect()),
            parts_count: wanted.parts_count,
            server_side_encryption: aes256(),
            storage_class: headers.storage_class.clone().map(StorageClass::from),
            website_redirect_location: headers.redirect.clone(),
            ..$Output::default()
        };
        if let Some(checksum) = wanted.checksum(info, input.checksum_mode.is_some()) {
            show_checksum!(output, &checksum);
        }
        output
    }};
}

pub(super) fn get(backend: &Backend, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let input = &req.input;
    only_null_version(input.version_id.as_deref())?;
    let object = find(backend, &req, &input.bucket, &input.key)?;
    let info = &object.info;
    check_read(info, conditions!(input))?;
    let wanted = Wanted::of(info, input.range.as_ref(), input.part_number)?;
    let mut output = described!(GetObjectOutput, input, info, &wanted);
    output.body = Some(read(&object.segments, wanted.range));
    output.tag_count = (!info.tags.is_empty()).then(|| i32::try_from(info.tags.len()).unwrap_or(i32::MAX));
    Ok(S3Response::new(output))
}

pub(super) fn head(backend: &Backend, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = &req.input;
    only_null_version(input.version_id.as_deref())?;
    let object = find(backend, &req, &input.bucket, &input.key)?;
    let info = &object.info;
    check_read(info, conditions!(input))?;
    let wanted = Wanted::of(info, input.range.as_ref(), input.part_number)?;
    let mut response = S3Response::new(described!(HeadObjectOutput, input, info, &wanted));
    if wanted.partial {
        response.status = Some(http::StatusCode::PARTIAL_CONTENT);
    }
    Ok(response)
}

pub(super) async fn copy(backend: &Backend, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    let input = &req.input;
    refuse_unsupported!(input);
    let source = source(backend, &req, &input.copy_source, &source_conditions!(input))?;
    let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == "REPLACE");
    let replace_tags = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == "REPLACE");
    let itself = matches!(&input.copy_source, CopySource::Bucket { bucket, key, .. }
        if **bucket == *input.bucket && **key == *input.key);
    if itself && !replace && input.storage_class.is_none() && input.website_redirect_location.is_none() {
        return Err(fail_with(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    backend.store.bucket(&input.bucket, |_| Ok(()))?;
    let mut info = source.info.clone();
    info.modified = modified(backend.now());
    let given = kept_headers!(input);
    info.headers.storage_class = given.storage_class.clone();
    info.headers.redirect = given.redirect.clone();
    if replace {
        info.headers = given;
        info.metadata = metadata(input.metadata.clone())?;
    }
    if replace_tags {
        info.tags = tags_of_header(input.tagging.as_deref())?;
    }
    // A copy is one object whatever its source was made of: its ETag is an MD5 and its checksum that of the whole.
    let wanted = input.checksum_algorithm.as_ref().and_then(|a| Algorithm::from_name(a.as_str()));
    let mut segments = Vec::with_capacity(source.segments.len());
    let made_of_parts = !info.parts.is_empty();
    if made_of_parts || wanted.is_some_and(|w| info.checksum.as_ref().is_none_or(|c| c.algorithm != w)) {
        let algorithm = wanted.or(info.checksum.as_ref().map(|c| c.algorithm)).unwrap_or(Algorithm::Crc64Nvme);
        let body = read(&source.segments, 0..info.size);
        let place = backend.store.place(&input.bucket);
        let taken = receive(Some(body), place, &Claims::default(), None, &[algorithm]).await?;
        info.etag = taken.sums.etag();
        info.parts = Vec::new();
        info.checksum = taken.sums.get(algorithm).map(|value| Checksum { algorithm, value, kind: Kind::FullObject });
        segments.push(taken.segment);
    } else {
        for segment in &source.segments {
            segments.push(segment.copy(&backend.store.place(&input.bucket)).map_err(super::error::disk)?);
        }
    }
    let object = backend.store.put(&input.bucket, &input.key, Object { info, segments }, |_| Ok(())).await?;
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&object.info.etag)),
        last_modified: Some(timestamp(object.info.modified)),
        ..CopyObjectResult::default()
    };
    if let Some(checksum) = &object.info.checksum {
        show_checksum!(result, checksum);
    }
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        server_side_encryption: aes256(),
        ..CopyObjectOutput::default()
    }))
}

pub(super) async fn delete(
    backend: &Backend,
    req: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = &req.input;
    only_null_version(input.version_id.as_deref())?;
    let allowed = |there: &Object| check_write(input.if_match.as_ref(), None, Some(&there.info));
    backend.store.delete(&input.bucket, &input.key, allowed).await?;
    Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
}

/// Each key is judged, and fails or not, by itself.
pub(super) async fn delete_many(
    backend: &Backend,
    req: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let caller = backend.caller(&req)?;
    let S3Request { input, .. } = req;
    if input.delete.objects.is_empty() || input.delete.objects.len() > 1_000 {
        return Err(fail("MalformedXML"));
    }
    backend.store.bucket(&input.bucket, |_| Ok(()))?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let key = object.key;
        let one = async {
            caller.may("s3:DeleteObject", &object_arn(&input.bucket, &key))?;
            only_null_version(object.version_id.as_deref())?;
            let condition = object.e_tag.map(s3s::dto::ETagCondition::ETag);
            let allowed = |there: &Object| check_write(condition.as_ref(), None, Some(&there.info));
            backend.store.delete(&input.bucket, &key, allowed).await
        };
        match one.await {
            Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
            Err(e) => errors.push(s3s::dto::Error {
                code: Some(e.code().as_str().to_owned()),
                message: e.message().map(str::to_owned),
                key: Some(key),
                version_id: object.version_id,
            }),
        }
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!quiet && !deleted.is_empty()).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    }))
}

pub(super) fn attributes(
    backend: &Backend,
    req: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = &req.input;
    only_null_version(input.version_id.as_deref())?;
    let object = find(backend, &req, &input.bucket, &input.key)?;
    let info = &object.info;
    // SDKs send one header with commas, which s3s hands over as it is.
    let asked =
        |name: &str| input.object_attributes.iter().any(|a| a.as_str().split(',').any(|one| one.trim() == name));
    let mut output = GetObjectAttributesOutput { last_modified: Some(timestamp(info.modified)), ..Default::default() };
    if asked("ETag") {
        output.e_tag = Some(etag(&info.etag));
    }
    if asked("ObjectSize") {
        output.object_size = i64::try_from(info.size).ok();
    }
    if asked("StorageClass") {
        let class = info.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".into());
        output.storage_class = Some(StorageClass::from(class));
    }
    if let Some(checksum) = info.checksum.as_ref().filter(|_| asked("Checksum")) {
        let mut shown = s3s::dto::Checksum::default();
        show_checksum!(shown, checksum);
        output.checksum = Some(shown);
    }
    if asked("ObjectParts") && !info.parts.is_empty() {
        let algorithm = info.checksum.as_ref().map(|c| c.algorithm);
        let after = input.part_number_marker.unwrap_or(0);
        let most = usize::try_from(input.max_parts.unwrap_or(1_000)).unwrap_or(0).min(1_000);
        let rest: Vec<_> = info.parts.iter().filter(|p| p.number > after).collect();
        let parts = rest.iter().take(most).map(|p| {
            let mut part =
                ObjectPart { part_number: Some(p.number), size: i64::try_from(p.size).ok(), ..ObjectPart::default() };
            if let (Some(algorithm), Some(value)) = (algorithm, &p.checksum) {
                set_checksum!(part, algorithm, value.clone());
            }
            part
        });
        let parts: Vec<ObjectPart> = parts.collect();
        output.object_parts = Some(GetObjectAttributesParts {
            is_truncated: Some(rest.len() > most),
            max_parts: i32::try_from(most).ok(),
            next_part_number_marker: parts.last().and_then(|p| p.part_number),
            part_number_marker: Some(after),
            // Parts are listed only where they have checksums of their own.
            parts: info.parts.iter().any(|p| p.checksum.is_some()).then_some(parts),
            total_parts_count: i32::try_from(info.parts.len()).ok(),
        });
    }
    Ok(S3Response::new(output))
}

/// An object, or the refusal: who may not list a bucket is not told which keys it lacks (Amazon S3 API Reference,
/// GetObject, "Permissions").
fn find<T>(backend: &Backend, req: &S3Request<T>, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
    match backend.store.object(bucket, key) {
        Err(e) if e.code().as_str() == "NoSuchKey" => {
            backend.caller(req)?.may("s3:ListBucket", &bucket_arn(bucket))?;
            let mut missing = fail("NoSuchKey");
            missing.set_message("The specified key does not exist.");
            Err(missing)
        }
        other => other,
    }
}

/// The source of a copy, whose read was judged with the operation.
pub(super) fn source<T>(
    backend: &Backend,
    req: &S3Request<T>,
    source: &CopySource,
    conditions: &Conditions,
) -> S3Result<Arc<Object>> {
    let CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(not_here("copying from access points"));
    };
    only_null_version(version_id.as_deref())?;
    let owner = backend.store.bucket(bucket, |b| Ok(b.info.owner.clone()))?;
    backend.caller(req)?.owns(&owner, "s3:GetObject", &object_arn(bucket, key))?;
    let object = find(backend, req, bucket, key)?;
    conditions.check(&object.info).map_err(|_| fail("PreconditionFailed"))?;
    Ok(object)
}

fn check_read(info: &ObjectInfo, conditions: Conditions) -> S3Result<()> {
    let failed = match conditions.check(info) {
        Ok(()) => return Ok(()),
        Err(Failed::Precondition) => return Err(fail("PreconditionFailed")),
        Err(Failed::NotModified) => fail("NotModified"),
    };
    Err(with_validators(failed, info))
}

/// A 304 names what the client has.
fn with_validators(mut error: S3Error, info: &ObjectInfo) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", info.etag)) {
        headers.insert(header::ETAG, tag);
    }
    let mut date = Vec::new();
    let written = Timestamp::format(&timestamp(info.modified), TimestampFormat::HttpDate, &mut date);
    if let (Ok(()), Ok(date)) = (written, HeaderValue::from_bytes(&date)) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    error.set_headers(headers);
    error
}

/// The bytes a read is after.
struct Wanted {
    range: ByteRange<u64>,
    partial: bool,
    parts_count: Option<i32>,
    /// Index in the object's parts.
    part: Option<usize>,
}

impl Wanted {
    fn of(info: &ObjectInfo, range: Option<&Range>, part: Option<i32>) -> S3Result<Wanted> {
        let whole = Wanted { range: 0..info.size, partial: false, parts_count: None, part: None };
        match (range, part) {
            (Some(_), Some(_)) => {
                Err(fail_with("InvalidRequest", "Cannot specify both Range header and partNumber query parameter"))
            }
            (None, None) => Ok(whole),
            (Some(range), None) => match range.check(info.size) {
                Ok(range) => Ok(Wanted { range, partial: true, ..whole }),
                Err(_) => Err(fail("InvalidRange")),
            },
            (None, Some(1)) if info.parts.is_empty() => Ok(Wanted { partial: info.size > 0, ..whole }),
            (None, Some(number)) => {
                let Some(at) = info.parts.iter().position(|p| p.number == number) else {
                    return Err(fail("InvalidPartNumber"));
                };
                let start: u64 = info.parts[..at].iter().map(|p| p.size).sum();
                Ok(Wanted {
                    range: start..start + info.parts[at].size,
                    partial: true,
                    parts_count: i32::try_from(info.parts.len()).ok(),
                    part: Some(at),
                })
            }
        }
    }

    fn content_range(&self, size: u64) -> Option<String> {
        // Of an empty range there is no last byte to name.
        (self.partial && self.range.end > self.range.start)
            .then(|| format!("bytes {}-{}/{size}", self.range.start, self.range.end - 1))
    }

    /// The checksum that the client can compare with what it gets: of the whole, or of one part.
    fn checksum(&self, info: &ObjectInfo, enabled: bool) -> Option<Checksum> {
        let checksum = info.checksum.as_ref().filter(|_| enabled)?;
        match self.part {
            Some(at) => info.parts[at].checksum.clone().map(|value| Checksum { value, ..checksum.clone() }),
            None if self.range == (0..info.size) => Some(checksum.clone()),
            None => None,
        }
    }
}
