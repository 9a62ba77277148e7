//! The operations that are done, as s3s wants them told; every other one answers `NotImplemented`.

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use super::convert::{aes256, canonical_id, only_null_version, owner, tag_set, tags_of};
use super::error::fail;
use super::{Backend, buckets, multipart, objects};

#[async_trait::async_trait]
impl S3 for Backend {
    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        buckets::list_all(self, req)
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        buckets::create(self, req).await
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.mine(&req, &req.input.bucket, "s3:DeleteBucket")?;
        buckets::delete(self, req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.mine(&req, &req.input.bucket, "s3:ListBucket")?;
        buckets::head(self, req)
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetBucketLocation")?;
        buckets::location(self, req)
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.mine(&req, &req.input.bucket, "s3:ListBucket")?;
        buckets::list_v1(self, req)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.mine(&req, &req.input.bucket, "s3:ListBucket")?;
        buckets::list_v2(self, req)
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        objects::put(self, req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetObject")?;
        objects::get(self, req)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetObject")?;
        objects::head(self, req)
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        objects::copy(self, req).await
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.mine(&req, &req.input.bucket, "s3:DeleteObject")?;
        objects::delete(self, req).await
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.mine(&req, &req.input.bucket, "s3:DeleteObject")?;
        objects::delete_many(self, req).await
    }

    async fn get_object_attributes(
        &self,
        req: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetObjectAttributes")?;
        objects::attributes(self, req)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        multipart::create(self, req)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        multipart::upload_part(self, req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        multipart::upload_part_copy(self, req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObject")?;
        multipart::complete(self, req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.mine(&req, &req.input.bucket, "s3:AbortMultipartUpload")?;
        multipart::abort(self, req)
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.mine(&req, &req.input.bucket, "s3:ListMultipartUploadParts")?;
        multipart::list_parts(self, req)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.mine(&req, &req.input.bucket, "s3:ListBucketMultipartUploads")?;
        multipart::list_uploads(self, req)
    }

    // What clients look at before they work, answered as for a new bucket.

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetBucketVersioning")?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn get_bucket_encryption(
        &self,
        req: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetEncryptionConfiguration")?;
        let by_default =
            aes256().map(|sse_algorithm| ServerSideEncryptionByDefault { sse_algorithm, kms_master_key_id: None });
        let rule = ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: by_default,
            bucket_key_enabled: Some(false),
        };
        Ok(S3Response::new(GetBucketEncryptionOutput {
            server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration { rules: vec![rule] }),
        }))
    }

    async fn get_bucket_policy(
        &self,
        req: S3Request<GetBucketPolicyInput>,
    ) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetBucketPolicy")?;
        Err(fail("NoSuchBucketPolicy"))
    }

    async fn get_public_access_block(
        &self,
        req: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetBucketPublicAccessBlock")?;
        let on = Some(true);
        Ok(S3Response::new(GetPublicAccessBlockOutput {
            public_access_block_configuration: Some(PublicAccessBlockConfiguration {
                block_public_acls: on,
                block_public_policy: on,
                ignore_public_acls: on,
                restrict_public_buckets: on,
            }),
        }))
    }

    async fn get_bucket_acl(&self, req: S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
        let of = self.mine(&req, &req.input.bucket, "s3:GetBucketAcl")?;
        Ok(S3Response::new(GetBucketAclOutput { grants: Some(full_control(&of)), owner: Some(owner(&of)) }))
    }

    async fn get_object_acl(&self, req: S3Request<GetObjectAclInput>) -> S3Result<S3Response<GetObjectAclOutput>> {
        let of = self.mine(&req, &req.input.bucket, "s3:GetObjectAcl")?;
        only_null_version(req.input.version_id.as_deref())?;
        self.store.object(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(GetObjectAclOutput {
            grants: Some(full_control(&of)),
            owner: Some(owner(&of)),
            ..GetObjectAclOutput::default()
        }))
    }

    async fn get_bucket_tagging(
        &self,
        req: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetBucketTagging")?;
        let tags = self.store.bucket(&req.input.bucket, |b| Ok(b.info.tags.clone()))?;
        if tags.is_empty() {
            return Err(fail("NoSuchTagSet"));
        }
        Ok(S3Response::new(GetBucketTaggingOutput { tag_set: tag_set(&tags) }))
    }

    async fn put_bucket_tagging(
        &self,
        req: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutBucketTagging")?;
        let tags = tags_of(req.input.tagging.tag_set, 50)?;
        self.store.change_bucket(&req.input.bucket, |info| info.tags = tags).await?;
        Ok(S3Response::with_status(PutBucketTaggingOutput::default(), http::StatusCode::NO_CONTENT))
    }

    async fn delete_bucket_tagging(
        &self,
        req: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutBucketTagging")?;
        self.store.change_bucket(&req.input.bucket, |info| info.tags.clear()).await?;
        Ok(S3Response::with_status(DeleteBucketTaggingOutput::default(), http::StatusCode::NO_CONTENT))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:GetObjectTagging")?;
        only_null_version(req.input.version_id.as_deref())?;
        let object = self.store.object(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set: tag_set(&object.info.tags), version_id: None }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:PutObjectTagging")?;
        only_null_version(req.input.version_id.as_deref())?;
        let tags = tags_of(req.input.tagging.tag_set, 10)?;
        self.store.change(&req.input.bucket, &req.input.key, |info| info.tags = tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        self.mine(&req, &req.input.bucket, "s3:DeleteObjectTagging")?;
        only_null_version(req.input.version_id.as_deref())?;
        self.store.change(&req.input.bucket, &req.input.key, |info| info.tags.clear()).await?;
        Ok(S3Response::with_status(DeleteObjectTaggingOutput::default(), http::StatusCode::NO_CONTENT))
    }
}

impl Backend {
    /// The owner of a bucket, who must be the caller's account, and the one that the client expects.
    fn mine<T>(&self, req: &S3Request<T>, bucket: &str, action: &str) -> S3Result<String> {
        let owner = self.store.bucket(bucket, |b| Ok(b.info.owner.clone()))?;
        let expected = req.headers.get("x-amz-expected-bucket-owner");
        if expected.is_some_and(|e| e.as_bytes() != owner.as_bytes()) {
            return Err(fail("AccessDenied"));
        }
        self.caller(req)?.owns(&owner, action, &super::auth::bucket_arn(bucket))?;
        Ok(owner)
    }
}

fn full_control(account: &str) -> Grants {
    let grantee = Grantee {
        id: Some(canonical_id(account)),
        type_: Type::from_static(Type::CANONICAL_USER),
        display_name: None,
        email_address: None,
        uri: None,
    };
    vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
}
