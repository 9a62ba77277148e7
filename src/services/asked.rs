//! What a request to a backend asks for, in the words of policies: action and resource, as far as the request shows
//! them to somebody who is not the service.

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::rpc::Params;
use super::world::GateFacts;

/// An action (`sqs:SendMessage`) and the ARN it is asked on; `*` where that is not known. A request on `*` passes only
/// where a statement allows all resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) action: String,
    pub(super) resource: String,
}

/// S3's action and resource follow from method, host, path and subresource (Service Authorization Reference, "Actions,
/// resources, and condition keys for Amazon S3"). The source of a copy is not looked at.
pub(super) fn s3(region: &str, head: &Parts) -> Asked {
    let host = head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let path = percent_decode_str(head.uri.path().trim_start_matches('/')).decode_utf8_lossy();
    let (bucket, key) = match super::s3::bucket_of(region, host) {
        Some(bucket) => (bucket, path.into_owned()),
        None => match path.split_once('/') {
            Some((bucket, key)) => (bucket.to_owned(), key.to_owned()),
            None => (path.into_owned(), String::new()),
        },
    };
    let query = head.uri.query().unwrap_or("");
    let has = |name: &str| query.split('&').any(|p| p.split_once('=').map_or(p, |(n, _)| n) == name);
    let sub = ["acl", "tagging", "policy", "versioning", "location", "uploads", "versions", "uploadId", "delete"];
    let sub = sub.into_iter().find(|name| has(name)).unwrap_or("");
    let verb = match head.method {
        Method::GET | Method::HEAD => "Get",
        Method::DELETE => "Delete",
        _ => "Put",
    };
    let action = match (bucket.is_empty(), key.is_empty(), verb, sub) {
        (true, ..) => "ListAllMyBuckets".to_owned(),
        (_, true, "Get", "") => "ListBucket".into(),
        (_, true, "Get", "uploads") => "ListBucketMultipartUploads".into(),
        (_, true, "Get", "versions") => "ListBucketVersions".into(),
        (_, true, "Put", "") => "CreateBucket".into(),
        (_, true, "Delete", "") => "DeleteBucket".into(),
        (_, true, "Put", "delete") => "DeleteObject".into(),
        (_, true, verb, sub @ ("acl" | "tagging" | "policy" | "versioning" | "location")) => {
            format!("{verb}Bucket{}", capital(sub))
        }
        (_, false, "Get", "uploadId") => "ListMultipartUploadParts".into(),
        (_, false, "Delete", "uploadId") => "AbortMultipartUpload".into(),
        (_, false, verb, sub @ ("acl" | "tagging")) => format!("{verb}Object{}", capital(sub)),
        (_, false, verb, _) => format!("{verb}Object"),
        (_, true, verb, _) => format!("{verb}Bucket"),
    };
    let resource = match (bucket.is_empty(), key.is_empty(), sub) {
        (true, ..) => "*".to_owned(),
        // Which keys is in the body: all of them must be allowed.
        (_, true, "delete") => format!("arn:aws:s3:::{bucket}/*"),
        (_, true, _) => format!("arn:aws:s3:::{bucket}"),
        (_, false, _) => format!("arn:aws:s3:::{bucket}/{key}"),
    };
    Asked { action: format!("s3:{action}"), resource }
}

/// The others name their action in `X-Amz-Target` or `Action`. Of a service with paths the request shows no action to a
/// stranger: `lambda:POST`, which only a policy for all of the service's actions allows.
pub(super) fn other(gate: &GateFacts, account: Option<&str>, head: &Parts, body: &Bytes) -> Asked {
    let service = gate.service.as_str();
    let prefix = iam_prefix(service);
    let target = head.headers.get("x-amz-target").and_then(|v| v.to_str().ok());
    let json: Value = match target {
        Some(_) => serde_json::from_slice(body).unwrap_or_default(),
        None => Value::Null,
    };
    let params = if target.is_none() { Params::of(head, body) } else { Params::default() };
    let word = |name: &str| params.get(name).or_else(|| json.get(name)?.as_str()).map(str::to_owned);
    let action = match target {
        Some(target) => target.rsplit_once('.').map_or(target, |(_, action)| action).to_owned(),
        None => word("Action").unwrap_or_else(|| head.method.to_string()),
    };
    let arn =
        |of: &str, rest: &str| format!("arn:aws:{of}:{}:{}:{rest}", gate.region, account.unwrap_or(&gate.account));
    let resource = match service {
        "sqs" => {
            let url = word("QueueUrl").or_else(|| (head.uri.path().len() > 1).then(|| head.uri.path().to_owned()));
            let named = url.and_then(|u| u.rsplit('/').next().map(str::to_owned)).or_else(|| word("QueueName"));
            named.map(|name| arn("sqs", &name))
        }
        "sns" => ["TopicArn", "TargetArn", "ResourceArn"]
            .into_iter()
            .find_map(&word)
            .or_else(|| word("Name").map(|name| arn("sns", &name))),
        "secretsmanager" => word("SecretId").or_else(|| word("Name")).map(|id| match id.starts_with("arn:") {
            true => id,
            false => arn("secretsmanager", &format!("secret:{id}")),
        }),
        "dynamodb" => word("TableName").map(|name| match name.starts_with("arn:") {
            true => name,
            false => arn("dynamodb", &format!("table/{name}")),
        }),
        "sts" => word("RoleArn"),
        _ => None,
    };
    // Batches need the permission of the single action.
    let action = match service {
        "sqs" => action.strip_suffix("Batch").map_or(action.clone(), str::to_owned),
        _ => action,
    };
    Asked { action: format!("{prefix}:{action}"), resource: resource.unwrap_or_else(|| "*".into()) }
}

/// The word before the colon of the service's actions (Service Authorization Reference).
fn iam_prefix(service: &str) -> &str {
    match service {
        "monitoring" => "cloudwatch",
        "ecr.api" | "ecr.dkr" => "ecr",
        "email-smtp" | "email" => "ses",
        "kinesis-streams" => "kinesis",
        "kinesis-firehose" => "firehose",
        "bedrock-runtime" | "bedrock-agent" | "bedrock-agent-runtime" => "bedrock",
        "sagemaker.api" | "sagemaker.runtime" => "sagemaker",
        other => other.split('.').next().unwrap_or(other),
    }
}

fn capital(word: &str) -> String {
    let mut word = word.to_owned();
    word[..1].make_ascii_uppercase();
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, host: &str, uri: &str) -> Parts {
        http::Request::builder().method(method).uri(uri).header("host", host).body(()).unwrap().into_parts().0
    }

    #[test]
    fn s3_requests_name_action_and_resource() {
        let (path, bucket) = ("s3.eu-west-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com");
        for (method, host, uri, action, resource) in [
            ("GET", path, "/", "ListAllMyBuckets", "*"),
            ("GET", bucket, "/?list-type=2", "ListBucket", "arn:aws:s3:::b"),
            ("HEAD", path, "/b", "ListBucket", "arn:aws:s3:::b"),
            ("PUT", path, "/b", "CreateBucket", "arn:aws:s3:::b"),
            ("DELETE", bucket, "/", "DeleteBucket", "arn:aws:s3:::b"),
            ("GET", bucket, "/?location", "GetBucketLocation", "arn:aws:s3:::b"),
            ("PUT", bucket, "/?policy", "PutBucketPolicy", "arn:aws:s3:::b"),
            ("POST", bucket, "/?delete", "DeleteObject", "arn:aws:s3:::b/*"),
            ("GET", path, "/b/a%20b/c", "GetObject", "arn:aws:s3:::b/a b/c"),
            ("PUT", bucket, "/k?partNumber=1&uploadId=u", "PutObject", "arn:aws:s3:::b/k"),
            ("POST", bucket, "/k?uploads", "PutObject", "arn:aws:s3:::b/k"),
            ("DELETE", bucket, "/k?uploadId=u", "AbortMultipartUpload", "arn:aws:s3:::b/k"),
            ("GET", bucket, "/k?tagging", "GetObjectTagging", "arn:aws:s3:::b/k"),
            ("DELETE", bucket, "/k", "DeleteObject", "arn:aws:s3:::b/k"),
        ] {
            let asked = s3("eu-west-1", &head(method, host, uri));
            let expected = Asked { action: format!("s3:{action}"), resource: resource.into() };
            assert_eq!(asked, expected, "{method} {host}{uri}");
        }
    }
}
