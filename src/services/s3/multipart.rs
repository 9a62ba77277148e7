//! Multipart uploads.

use std::collections::BTreeMap;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyPartResult, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, EncodingType, Initiator, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListPartsInput, ListPartsOutput, MultipartUpload, Part as PartDto, Range, StorageClass, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result};

use super::Backend;
use super::blob::read;
use super::checksum::{Algorithm, Kind, hex, multipart_etag, of_parts};
use super::convert::{
    aes256, check_write, etag, get_checksum, kept_headers, metadata, modified, owner, refuse_unsupported, set_checksum,
    show_checksum, source_conditions, tags_of_header, timestamp,
};
use super::error::{fail, fail_with};
use super::list::{self, Item, url_encode};
use super::objects::source;
use super::store::{Object, ObjectInfo, Part, PartInfo, Store, Upload};
use super::transfer::{Claims, Received, receive};

/// Smallest part but the last (Amazon S3 quotas).
const MIN_PART: u64 = 5 * 1024 * 1024;

pub(super) fn create(
    backend: &Backend,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let caller = backend.caller(&req)?;
    let S3Request { input, .. } = req;
    refuse_unsupported!(input);
    let asked = match &input.checksum_algorithm {
        None => None,
        Some(name) => Some(Algorithm::from_name(name.as_str()).ok_or_else(|| {
            fail_with("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
        })?),
    };
    let algorithm = asked.unwrap_or(Algorithm::Crc64Nvme);
    let kind = match &input.checksum_type {
        None => algorithm.default_kind(),
        Some(name) => Kind::from_name(name.as_str()).filter(|k| algorithm.allows(*k)).ok_or_else(|| {
            let (kind, name) = (name.as_str(), algorithm.as_str().to_lowercase());
            let text = format!("The {kind} checksum type cannot be used with the {name} checksum algorithm.");
            fail_with("InvalidRequest", text)
        })?,
    };
    let upload = Upload {
        started: backend.now(),
        headers: kept_headers!(input),
        metadata: metadata(input.metadata)?,
        tags: tags_of_header(input.tagging.as_deref())?,
        algorithm,
        kind,
        asked: asked.is_some(),
        initiator: caller.arn.clone(),
        parts: BTreeMap::new(),
    };
    let id = backend.store.fresh_id();
    backend.store.bucket(&input.bucket, |b| {
        b.uploads.insert((input.key.clone(), id.clone()), upload);
        Ok(())
    })?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: asked.map(|a| ChecksumAlgorithm::from_static(a.as_str())),
        checksum_type: asked.map(|_| ChecksumType::from_static(kind.as_str())),
        server_side_encryption: aes256(),
        ..CreateMultipartUploadOutput::default()
    }))
}

pub(super) async fn upload_part(
    backend: &Backend,
    req: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let input = req.input;
    check_number(input.part_number)?;
    let claims = Claims::of(&req.headers)?;
    let (algorithm, asked) =
        with_upload(&backend.store, &input.bucket, &input.key, &input.upload_id, |u| Ok((u.algorithm, u.asked)))?;
    if asked && claims.algorithm() != Some(algorithm) {
        let given = claims.algorithm().map_or_else(|| "null".to_owned(), |a| a.as_str().to_lowercase());
        return Err(fail_with(
            "InvalidRequest",
            format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {given}",
                algorithm.as_str().to_lowercase()
            ),
        ));
    }
    let place = backend.store.place(&input.bucket);
    let received = receive(input.body, place, &claims, req.trailing_headers, &[algorithm]).await?;
    let shown = claims.algorithm().unwrap_or(algorithm);
    let mut output = UploadPartOutput {
        e_tag: Some(etag(&received.sums.etag())),
        server_side_encryption: aes256(),
        ..UploadPartOutput::default()
    };
    if let Some(value) = received.sums.get(shown) {
        set_checksum!(output, shown, value);
    }
    add_part(backend, &input.bucket, &input.key, &input.upload_id, input.part_number, algorithm, received)?;
    Ok(S3Response::new(output))
}

pub(super) async fn upload_part_copy(
    backend: &Backend,
    req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = &req.input;
    check_number(input.part_number)?;
    let object = source(backend, &req, &input.copy_source, &source_conditions!(input))?;
    let range = match &input.copy_source_range {
        None => 0..object.info.size,
        Some(text) => match Range::parse(text) {
            // Unlike a read, a copy must name both ends, within the object.
            Ok(Range::Int { first, last: Some(last) }) if first <= last && last < object.info.size => first..last + 1,
            _ => {
                return Err(fail_with(
                    "InvalidArgument",
                    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
                     the zero-based offsets of the first and last bytes to copy",
                ));
            }
        },
    };
    let algorithm = with_upload(&backend.store, &input.bucket, &input.key, &input.upload_id, |u| Ok(u.algorithm))?;
    let body = read(&object.segments, range);
    let place = backend.store.place(&input.bucket);
    let received = receive(Some(body), place, &Claims::default(), None, &[algorithm]).await?;
    let mut result = CopyPartResult {
        e_tag: Some(etag(&received.sums.etag())),
        last_modified: Some(timestamp(modified(backend.now()))),
        ..CopyPartResult::default()
    };
    if let Some(value) = received.sums.get(algorithm) {
        set_checksum!(result, algorithm, value);
    }
    add_part(backend, &input.bucket, &input.key, &input.upload_id, input.part_number, algorithm, received)?;
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        server_side_encryption: aes256(),
        ..UploadPartCopyOutput::default()
    }))
}

pub(super) async fn complete(
    backend: &Backend,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = req.input;
    let named = input.multipart_upload.as_ref().and_then(|m| m.parts.clone()).unwrap_or_default();
    if named.is_empty() {
        return Err(fail("MalformedXML"));
    }
    let now = backend.now();
    let (object, algorithm, kind) =
        with_upload(&backend.store, &input.bucket, &input.key, &input.upload_id, |upload| {
            let mut chosen: Vec<(i32, Part)> = Vec::with_capacity(named.len());
            for part in &named {
                let number = part.part_number.unwrap_or(0);
                if chosen.last().is_some_and(|(last, _)| *last >= number) {
                    return Err(fail("InvalidPartOrder"));
                }
                let Some(there) = upload.parts.get(&number) else { return Err(fail("InvalidPart")) };
                let same_tag = part.e_tag.as_ref().is_some_and(|t| t.value() == hex(&there.md5));
                let same_sum =
                    get_checksum!(part, upload.algorithm).is_none_or(|given| there.checksum.as_deref() == Some(given));
                if !same_tag || !same_sum {
                    return Err(fail("InvalidPart"));
                }
                chosen.push((number, there.clone()));
            }
            if chosen[..chosen.len() - 1].iter().any(|(_, p)| p.segment.len() < MIN_PART) {
                return Err(fail("EntityTooSmall"));
            }
            let sums: Vec<(String, u64)> =
                chosen.iter().map(|(_, p)| (p.checksum.clone().unwrap_or_default(), p.segment.len())).collect();
            let md5s: Vec<[u8; 16]> = chosen.iter().map(|(_, p)| p.md5).collect();
            let info = ObjectInfo {
                size: chosen.iter().map(|(_, p)| p.segment.len()).sum(),
                etag: multipart_etag(&md5s),
                modified: modified(now),
                headers: upload.headers.clone(),
                metadata: upload.metadata.clone(),
                tags: upload.tags.clone(),
                checksum: of_parts(upload.algorithm, upload.kind, &sums),
                parts: chosen
                    .iter()
                    .map(|(number, p)| PartInfo {
                        number: *number,
                        size: p.segment.len(),
                        checksum: p.checksum.clone().filter(|_| upload.kind == Kind::Composite),
                    })
                    .collect(),
            };
            let segments = chosen.into_iter().map(|(_, p)| p.segment).collect();
            Ok((Object { info, segments }, upload.algorithm, upload.kind))
        })?;
    if let Some(size) = input.mpu_object_size
        && u64::try_from(size).ok() != Some(object.info.size)
    {
        return Err(fail_with(
            "InvalidRequest",
            format!(
                "The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {}",
                object.info.size
            ),
        ));
    }
    if input.checksum_type.as_ref().is_some_and(|t| t.as_str() != kind.as_str()) {
        return Err(fail_with("InvalidRequest", "The checksum type of the upload is another one."));
    }
    if let Some(given) = get_checksum!(input, algorithm)
        && object.info.checksum.as_ref().is_some_and(|c| c.value != given)
    {
        let text = format!("The {} you specified did not match the calculated checksum.", algorithm.as_str());
        return Err(fail_with("BadDigest", text));
    }
    let (matches, none_match) = (input.if_match, input.if_none_match);
    let allowed = |there: Option<&Object>| check_write(matches.as_ref(), none_match.as_ref(), there.map(|t| &t.info));
    let object = backend.store.put(&input.bucket, &input.key, object, allowed).await?;
    // Parts that were sent but not named go with the upload.
    backend.store.bucket(&input.bucket, |b| Ok(b.uploads.remove(&(input.key.clone(), input.upload_id.clone()))))?;
    let host = format!("{}.s3.{}.amazonaws.com", input.bucket, backend.region);
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("https://{host}/{}", url_encode(&input.key).replace('+', "%20"))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(etag(&object.info.etag)),
        server_side_encryption: aes256(),
        ..CompleteMultipartUploadOutput::default()
    };
    if let Some(checksum) = &object.info.checksum {
        show_checksum!(output, checksum);
    }
    Ok(S3Response::new(output))
}

pub(super) fn abort(
    backend: &Backend,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = req.input;
    let gone =
        backend.store.bucket(&input.bucket, |b| Ok(b.uploads.remove(&(input.key.clone(), input.upload_id.clone()))))?;
    match gone {
        Some(_) => Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT)),
        None => Err(fail("NoSuchUpload")),
    }
}

pub(super) fn list_parts(backend: &Backend, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
    let account = backend.caller(&req)?.account.clone();
    let input = req.input;
    let most = page_size(input.max_parts)?;
    let after = input.part_number_marker.unwrap_or(0);
    let output = with_upload(&backend.store, &input.bucket, &input.key, &input.upload_id, |upload| {
        let mut rest = upload.parts.range(after.saturating_add(1)..);
        let parts: Vec<PartDto> = rest
            .by_ref()
            .take(most)
            .map(|(number, p)| {
                let mut part = PartDto {
                    part_number: Some(*number),
                    e_tag: Some(etag(&hex(&p.md5))),
                    size: i64::try_from(p.segment.len()).ok(),
                    last_modified: Some(timestamp(p.modified.0)),
                    ..PartDto::default()
                };
                if let Some(sum) = p.checksum.clone().filter(|_| upload.asked) {
                    set_checksum!(part, upload.algorithm, sum);
                }
                part
            })
            .collect();
        Ok(ListPartsOutput {
            is_truncated: Some(rest.next().is_some()),
            next_part_number_marker: Some(parts.last().and_then(|p| p.part_number).unwrap_or(0)),
            part_number_marker: Some(after),
            max_parts: i32::try_from(most).ok(),
            parts: (!parts.is_empty()).then_some(parts),
            checksum_algorithm: upload.asked.then(|| ChecksumAlgorithm::from_static(upload.algorithm.as_str())),
            checksum_type: upload.asked.then(|| ChecksumType::from_static(upload.kind.as_str())),
            initiator: Some(Initiator { display_name: None, id: Some(upload.initiator.clone()) }),
            owner: Some(owner(&account)),
            storage_class: Some(StorageClass::from(
                upload.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".into()),
            )),
            ..ListPartsOutput::default()
        })
    })?;
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        ..output
    }))
}

pub(super) fn list_uploads(
    backend: &Backend,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let account = backend.caller(&req)?.account.clone();
    let input = req.input;
    let most = page_size(input.max_uploads)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
    let encode = input.encoding_type.is_some();
    let shown = |name: &str| if encode { url_encode(name) } else { name.to_owned() };
    let output = backend.store.bucket(&input.bucket, |b| {
        // One line per upload of a key: the id takes part in the name that is paged.
        let named: BTreeMap<String, (&(String, String), &Upload)> =
            b.uploads.iter().map(|(k, u)| (line(&k.0, &k.1), (k, u))).collect();
        let after = input.key_marker.as_ref().filter(|k| !k.is_empty()).map(|key| {
            match input.upload_id_marker.as_ref().filter(|i| !i.is_empty()) {
                Some(id) => line(key, id),
                // All uploads of the key were shown.
                None if delimiter.as_ref().is_some_and(|d| key.ends_with(d.as_str())) => key.clone(),
                None => format!("{key}\u{0}\u{10FFFF}"),
            }
        });
        let query =
            list::Query { prefix: &prefix, delimiter: delimiter.as_deref(), after: after.as_deref(), max: most };
        let page = list::page(&named, &query);
        let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
        let (mut next_key, mut next_id) = (None, None);
        for item in &page.items {
            match item {
                Item::Prefix(name) => {
                    prefixes.push(CommonPrefix { prefix: Some(shown(name)) });
                    (next_key, next_id) = (Some(shown(name)), None);
                }
                Item::Key(_, ((key, id), upload)) => {
                    (next_key, next_id) = (Some(shown(key)), Some(id.clone()));
                    uploads.push(MultipartUpload {
                        key: Some(shown(key)),
                        upload_id: Some(id.clone()),
                        initiated: Some(timestamp(upload.started.0)),
                        initiator: Some(Initiator { display_name: None, id: Some(upload.initiator.clone()) }),
                        owner: Some(owner(&account)),
                        storage_class: Some(StorageClass::from(
                            upload.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".into()),
                        )),
                        checksum_algorithm: upload
                            .asked
                            .then(|| ChecksumAlgorithm::from_static(upload.algorithm.as_str())),
                        checksum_type: upload.asked.then(|| ChecksumType::from_static(upload.kind.as_str())),
                    });
                }
            }
        }
        Ok(ListMultipartUploadsOutput {
            is_truncated: Some(page.truncated),
            next_key_marker: next_key.filter(|_| page.truncated),
            next_upload_id_marker: next_id.filter(|_| page.truncated),
            uploads: (!uploads.is_empty()).then_some(uploads),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            ..ListMultipartUploadsOutput::default()
        })
    })?;
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        key_marker: Some(shown(&input.key_marker.unwrap_or_default())),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        prefix: Some(shown(&prefix)),
        delimiter: delimiter.as_deref().map(shown),
        encoding_type: encode.then(|| EncodingType::from_static(EncodingType::URL)),
        max_uploads: i32::try_from(most).ok(),
        ..output
    }))
}

/// Key and upload id as one name, in which no delimiter is found but those of the key.
fn line(key: &str, id: &str) -> String {
    let digits = id.chars().map(|c| char::from(1 + c.to_digit(16).unwrap_or(16) as u8));
    key.chars().chain(['\u{0}']).chain(digits).collect()
}

/// The number of lines of a page: at most 1,000.
pub(super) fn page_size(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(1_000);
    usize::try_from(asked)
        .map(|n| n.min(1_000))
        .map_err(|_| fail_with("InvalidArgument", "Argument maxKeys must be an integer between 0 and 2147483647"))
}

fn check_number(number: i32) -> S3Result<()> {
    if (1..=10_000).contains(&number) {
        return Ok(());
    }
    Err(fail_with("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive"))
}

fn with_upload<T>(
    store: &Store,
    bucket: &str,
    key: &str,
    id: &str,
    look: impl FnOnce(&mut Upload) -> S3Result<T>,
) -> S3Result<T> {
    store.bucket(bucket, |b| match b.uploads.get_mut(&(key.to_owned(), id.to_owned())) {
        Some(upload) => look(upload),
        None => Err(fail("NoSuchUpload")),
    })
}

fn add_part(
    backend: &Backend,
    bucket: &str,
    key: &str,
    id: &str,
    number: i32,
    algorithm: Algorithm,
    received: Received,
) -> S3Result<()> {
    let part = Part {
        md5: received.sums.md5,
        checksum: received.sums.get(algorithm),
        modified: backend.now(),
        segment: received.segment,
    };
    with_upload(&backend.store, bucket, key, id, |u| {
        u.parts.insert(number, part);
        Ok(())
    })
}
