//! Buckets and their listings.

use s3s::dto::{
    BucketLocationConstraint, CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, EncodingType, GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object as ObjectDto, ObjectStorageClass, Owner,
};
use s3s::{S3Request, S3Response, S3Result};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::convert::{etag, owner, refuse_acl, timestamp};
use super::error::{fail, fail_with};
use super::list::{self, Item, url_encode};
use super::multipart::page_size;
use super::store::{BucketInfo, Object};
use super::{Backend, Elsewhere, Listed as Known};

pub(super) fn list_all(backend: &Backend, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
    let account = backend.caller(&req)?.account.clone();
    let input = &req.input;
    let most = match input.max_buckets {
        None => usize::MAX,
        Some(n @ 1..=10_000) => usize::try_from(n).unwrap_or(1),
        Some(_) => {
            return Err(fail_with("InvalidArgument", "Argument max-buckets must be an integer between 1 and 10000"));
        }
    };
    let after = input.continuation_token.as_deref().map(untoken).transpose()?;
    let prefix = input.prefix.clone().unwrap_or_default();
    // The buckets of all regions, whichever is asked.
    let mut all: Vec<Known> = req.extensions.get::<Elsewhere>().map(|e| e.0.clone()).unwrap_or_default();
    all.extend(backend.store.buckets().iter().map(|(name, b)| Known {
        name: name.clone(),
        info: b.info.clone(),
        region: backend.region.clone(),
    }));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut mine = all.into_iter().filter(|b| {
        input.bucket_region.as_ref().is_none_or(|r| *r == b.region)
            && b.info.owner == account
            && b.name.starts_with(&prefix)
            && after.as_ref().is_none_or(|a| b.name > *a)
    });
    let paged = input.max_buckets.is_some();
    let shown: Vec<s3s::dto::Bucket> = mine
        .by_ref()
        .take(most)
        .map(|b| s3s::dto::Bucket {
            name: Some(b.name),
            creation_date: Some(timestamp(b.info.created)),
            // Only a paged listing tells regions.
            bucket_region: paged.then_some(b.region),
        })
        .collect();
    let continued = mine.next().is_some().then(|| shown.last().and_then(|b| b.name.as_deref()).map(token)).flatten();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(shown),
        continuation_token: continued,
        owner: Some(owner(&account)),
        prefix: input.prefix.clone(),
    }))
}

pub(super) async fn create(
    backend: &Backend,
    req: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let account = backend.caller(&req)?.account.clone();
    let taken = req.extensions.get::<Elsewhere>().and_then(|e| e.0.first()).map(|b| b.info.owner.clone());
    let input = req.input;
    refuse_acl(input.acl.as_ref().map(|a| a.as_str()))?;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(super::convert::not_here("object lock"));
    }
    check_location(&backend.region, &input)?;
    if let Some(owner) = taken {
        // Even us-east-1 refuses its owner what another region has.
        return Err(fail(if owner == account { "BucketAlreadyOwnedByYou" } else { "BucketAlreadyExists" }));
    }
    let info = BucketInfo { owner: account.clone(), created: backend.now().0, tags: Vec::new() };
    let legacy = backend.region == "us-east-1";
    backend
        .store
        .create_bucket(&input.bucket, info, |there| match there.owner == account {
            // us-east-1 answers its owner with success, for the sake of old programs.
            true if legacy => Ok(()),
            true => Err(fail("BucketAlreadyOwnedByYou")),
            false => Err(fail("BucketAlreadyExists")),
        })
        .await?;
    let location =
        if legacy { format!("/{}", input.bucket) } else { format!("http://{}.s3.amazonaws.com/", input.bucket) };
    Ok(S3Response::new(CreateBucketOutput { location: Some(location) }))
}

/// The constraint must name the region that is asked: none for us-east-1.
fn check_location(region: &str, input: &CreateBucketInput) -> S3Result<()> {
    let given = input.create_bucket_configuration.as_ref().and_then(|c| c.location_constraint.as_ref());
    match given.map(|g| g.as_str()).filter(|g| !g.is_empty()) {
        None if region == "us-east-1" => Ok(()),
        None => Err(fail("IllegalLocationConstraintException")),
        Some("EU") if region == "eu-west-1" => Ok(()),
        Some(given) if given == region && region != "us-east-1" => Ok(()),
        Some(given) if given == region => Err(fail("InvalidLocationConstraint")),
        Some(given) => Err(fail_with(
            "IllegalLocationConstraintException",
            format!(
                "The {given} location constraint is incompatible for the region specific endpoint this request was \
                 sent to."
            ),
        )),
    }
}

pub(super) async fn delete(
    backend: &Backend,
    req: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    backend.store.delete_bucket(&req.input.bucket).await?;
    Ok(S3Response::with_status(DeleteBucketOutput::default(), http::StatusCode::NO_CONTENT))
}

pub(super) fn head(backend: &Backend, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
    backend.store.bucket(&req.input.bucket, |_| Ok(()))?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(backend.region.clone()),
        access_point_alias: Some(false),
        ..HeadBucketOutput::default()
    }))
}

pub(super) fn location(
    backend: &Backend,
    req: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    backend.store.bucket(&req.input.bucket, |_| Ok(()))?;
    let constraint = (backend.region != "us-east-1").then(|| BucketLocationConstraint::from(backend.region.clone()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: constraint }))
}

pub(super) fn list_v1(backend: &Backend, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = req.input;
    let asked = Asked {
        prefix: input.prefix.unwrap_or_default(),
        delimiter: input.delimiter.filter(|d| !d.is_empty()),
        after: input.marker.clone().filter(|m| !m.is_empty()),
        max: page_size(input.max_keys)?,
        encode: encodes(input.encoding_type.as_ref())?,
    };
    let listed = asked.list(backend, &input.bucket, |_| Some(true))?;
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(asked.shown(&asked.prefix)),
        marker: Some(asked.shown(&input.marker.unwrap_or_default())),
        max_keys: i32::try_from(asked.max).ok(),
        is_truncated: Some(listed.truncated),
        contents: Some(listed.objects),
        common_prefixes: Some(listed.prefixes),
        // Without a delimiter the last key is the marker.
        next_marker: listed.last.filter(|_| listed.truncated && asked.delimiter.is_some()).map(|l| asked.shown(&l)),
        delimiter: asked.delimiter.as_deref().map(|d| asked.shown(d)),
        encoding_type: asked.encode.then(|| EncodingType::from_static(EncodingType::URL)),
        ..ListObjectsOutput::default()
    }))
}

pub(super) fn list_v2(
    backend: &Backend,
    req: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = req.input;
    let after = match &input.continuation_token {
        Some(token) => Some(untoken(token)?),
        None => input.start_after.clone().filter(|s| !s.is_empty()),
    };
    let asked = Asked {
        prefix: input.prefix.unwrap_or_default(),
        delimiter: input.delimiter.filter(|d| !d.is_empty()),
        after,
        max: page_size(input.max_keys)?,
        encode: encodes(input.encoding_type.as_ref())?,
    };
    let listed = asked.list(backend, &input.bucket, |_| input.fetch_owner)?;
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(asked.shown(&asked.prefix)),
        max_keys: i32::try_from(asked.max).ok(),
        key_count: i32::try_from(listed.objects.len() + listed.prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(listed.truncated),
        next_continuation_token: listed.last.filter(|_| listed.truncated).map(|l| token(&l)),
        contents: Some(listed.objects),
        common_prefixes: Some(listed.prefixes),
        delimiter: asked.delimiter.as_deref().map(|d| asked.shown(d)),
        encoding_type: asked.encode.then(|| EncodingType::from_static(EncodingType::URL)),
        start_after: input.start_after.map(|s| asked.shown(&s)),
        ..ListObjectsV2Output::default()
    }))
}

/// What both versions of the listing ask.
struct Asked {
    prefix: String,
    delimiter: Option<String>,
    after: Option<String>,
    max: usize,
    encode: bool,
}

struct Listed {
    objects: Vec<ObjectDto>,
    prefixes: Vec<CommonPrefix>,
    truncated: bool,
    last: Option<String>,
}

impl Asked {
    fn list(&self, backend: &Backend, bucket: &str, with_owner: impl Fn(&Object) -> Option<bool>) -> S3Result<Listed> {
        backend.store.bucket(bucket, |b| {
            let query = list::Query {
                prefix: &self.prefix,
                delimiter: self.delimiter.as_deref(),
                after: self.after.as_deref(),
                max: self.max,
            };
            let page = list::page(&b.objects, &query);
            let mut listed = Listed {
                objects: Vec::new(),
                prefixes: Vec::new(),
                truncated: page.truncated,
                last: page.items.last().map(|i| i.name().to_owned()),
            };
            for item in page.items {
                match item {
                    Item::Prefix(name) => listed.prefixes.push(CommonPrefix { prefix: Some(self.shown(name)) }),
                    Item::Key(key, object) => {
                        let of = with_owner(object).unwrap_or(false).then(|| owner(&b.info.owner));
                        listed.objects.push(self.line(key, object, of));
                    }
                }
            }
            Ok(listed)
        })
    }

    fn line(&self, key: &str, object: &Object, of: Option<Owner>) -> ObjectDto {
        let info = &object.info;
        let class = info.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".into());
        ObjectDto {
            key: Some(self.shown(key)),
            size: i64::try_from(info.size).ok(),
            e_tag: Some(etag(&info.etag)),
            last_modified: Some(timestamp(info.modified)),
            storage_class: Some(ObjectStorageClass::from(class)),
            checksum_algorithm: info
                .checksum
                .as_ref()
                .map(|c| vec![s3s::dto::ChecksumAlgorithm::from_static(c.algorithm.as_str())]),
            checksum_type: info.checksum.as_ref().map(|c| s3s::dto::ChecksumType::from_static(c.kind.as_str())),
            owner: of,
            ..ObjectDto::default()
        }
    }

    fn shown(&self, name: &str) -> String {
        if self.encode { url_encode(name) } else { name.to_owned() }
    }
}

fn encodes(asked: Option<&EncodingType>) -> S3Result<bool> {
    match asked.map(EncodingType::as_str) {
        None => Ok(false),
        Some("url") => Ok(true),
        Some(_) => Err(fail_with("InvalidArgument", "Invalid Encoding Method specified in Request")),
    }
}

/// A continuation token is opaque: what the next page comes after, in base64.
fn token(last: &str) -> String {
    STANDARD.encode(last)
}

fn untoken(token: &str) -> S3Result<String> {
    let raw = STANDARD.decode(token).ok().and_then(|raw| String::from_utf8(raw).ok());
    raw.ok_or_else(|| fail_with("InvalidArgument", "The continuation token provided is incorrect"))
}
