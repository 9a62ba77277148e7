//! S3 as a client meets it: signed HTTP requests in, answers out.

mod signer;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use s3s::Body;
use serde_json::{Value, json};

use self::signer::{KEY, SECRET, Signer, TOKEN, UNSIGNED, sha256};
use super::store::BucketInfo;
use super::{Elsewhere, Judged, Keys, Listed, S3, S3Config, Verdict};
use crate::base::UnixTime;
use crate::base::clock::ManualClock;
use crate::model::credentials::RoleCredentials;
use crate::model::plan::{BucketFiles, BucketPlan};
use crate::policy::{Document, Kind};

const ARN: &str = "arn:aws:sts::123456789012:assumed-role/web-role/i-0";

struct TestKeys(Vec<Arc<RoleCredentials>>, Arc<Document>);

impl Keys for TestKeys {
    fn find(&self, access_key: &str) -> Option<Arc<RoleCredentials>> {
        self.0.iter().find(|c| c.access_key == access_key).cloned()
    }

    fn role(&self, _account: &str, _name: &str) -> Option<Arc<Document>> {
        Some(Arc::clone(&self.1))
    }
}

fn credentials(key: &str, account: &str, expires: u64) -> Arc<RoleCredentials> {
    Arc::new(RoleCredentials {
        role: 0,
        role_name: "web-role".into(),
        account: account.into(),
        session: "i-0".into(),
        access_key: key.into(),
        secret_key: SECRET.into(),
        token: TOKEN.into(),
        issued: UnixTime(0),
        expires: UnixTime(expires),
    })
}

/// An S3 with a client that signs.
struct Lab {
    s3: S3,
    endpoint: Arc<Document>,
    signer: Signer,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
    judged: Judged,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// `NoSuchKey`, of an error document.
    fn code(&self) -> String {
        self.element("Code")
    }

    fn element(&self, name: &str) -> String {
        let text = self.text();
        let after = text.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
        let inner = after.split_once(&format!("</{name}>")).map_or("", |(inner, _)| inner);
        quick_xml::escape::unescape(inner).unwrap().into_owned()
    }
}

impl Lab {
    fn new() -> Lab {
        Lab::with(None, json!(null), json!(null))
    }

    /// `null`: full access.
    fn with(data: Option<&std::path::Path>, role: Value, endpoint: Value) -> Lab {
        let document = |kind, json: Value| match json {
            Value::Null => Document::full(),
            json => Document::parse(kind, &json).unwrap(),
        };
        let files = vec![("hello.txt".to_owned(), "hello".to_owned()), ("a/b.json".to_owned(), "{}".to_owned())];
        let keys = TestKeys(
            vec![
                credentials(KEY, "123456789012", u64::MAX),
                credentials("ASIAEXPIRED", "123456789012", 1),
                credentials("ASIAOTHER", "210987654321", u64::MAX),
            ],
            Arc::new(document(Kind::Role, role)),
        );
        let s3 = S3::open(S3Config {
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            data: data.map(Into::into),
            buckets: vec![BucketPlan { name: "reports".into(), files: BucketFiles::Inline(files) }],
            keys: Arc::new(keys),
            clock: Arc::new(ManualClock::default()),
            seed: 7,
        });
        Lab { s3: s3.unwrap(), endpoint: Arc::new(document(Kind::Endpoint, endpoint)), signer: Signer::default() }
    }

    fn request(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(n, _)| *n == "host") {
            request = request.header("host", "s3.eu-west-1.amazonaws.com");
        }
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
    }

    /// A request signed with the hash of its body.
    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let request = self.request(method, target, headers, body);
        let (request, _) = self.signer.sign(request, &sha256(body));
        self.send(request).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[], b"").await
    }

    async fn put(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask(Method::PUT, target, headers, body).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer: Response<Body> = self.s3.handle(request, Some(&self.endpoint)).await;
        let (mut head, body) = answer.into_parts();
        Answer {
            status: head.status.as_u16(),
            judged: head.extensions.remove().unwrap(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

fn only(effect: &str, action: &str, resource: &str) -> Value {
    json!({"Statement": [{"Effect": effect, "Action": action, "Resource": resource}]})
}

#[tokio::test]
async fn documents_name_what_is_missing_as_s3s_do() {
    let lab = Lab::new();
    let answer = lab.get("/reports/none%20such").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "NoSuchKey"));
    assert_eq!((answer.element("Key"), answer.element("Resource")), ("none such".into(), String::new()));
    let answer = lab.get("/no-bucket-here/x").await;
    assert_eq!((answer.code().as_str(), answer.element("BucketName").as_str()), ("NoSuchBucket", "no-bucket-here"));
    let unsigned = lab.request(Method::GET, "/reports/hello.txt", &[], b"");
    let answer = lab.send(unsigned).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
    assert!(!answer.text().contains("Resource"), "{}", answer.text());
}

#[tokio::test]
async fn buckets_of_all_regions_are_one_namespace_and_one_listing() {
    let lab = Lab::new();
    let far = |name: &str, owner: &str| Listed {
        name: name.into(),
        info: BucketInfo { owner: owner.into(), created: 0, tags: Vec::new() },
        region: "us-east-1".into(),
    };
    let ask = async |method: Method, target: &str, others: Vec<Listed>| {
        let request = lab.request(method, target, &[], b"");
        let (mut request, _) = lab.signer.sign(request, &sha256(b""));
        request.extensions_mut().insert(Elsewhere(others));
        lab.send(request).await
    };
    let others = || vec![far("archive", "123456789012"), far("theirs", "210987654321"), far("zoo", "123456789012")];
    let all = ask(Method::GET, "/", others()).await.text();
    let names: Vec<&str> = all.split("<Name>").skip(1).filter_map(|rest| rest.split("</Name>").next()).collect();
    assert_eq!(names, ["archive", "reports", "zoo"]);
    let there = ask(Method::GET, "/?bucket-region=us-east-1&max-buckets=10", others()).await.text();
    assert!(there.contains("<BucketRegion>us-east-1</BucketRegion>") && !there.contains("reports"), "{there}");
    for (owner, code) in [("123456789012", "BucketAlreadyOwnedByYou"), ("210987654321", "BucketAlreadyExists")] {
        let location = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint>\
                        </CreateBucketConfiguration>";
        let request = lab.request(Method::PUT, "/archive", &[], location.as_bytes());
        let (mut request, _) = lab.signer.sign(request, &sha256(location.as_bytes()));
        request.extensions_mut().insert(Elsewhere(vec![far("archive", owner)]));
        let answer = lab.send(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, code));
    }
}

#[tokio::test]
async fn a_signature_that_is_none_does_not_match() {
    let lab = Lab::new();
    let token: String = form_urlencoded::byte_serialize(TOKEN.as_bytes()).collect();
    let query = |signature: &str| {
        format!(
            "/reports/hello.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F19700101%2Feu-west-1%2Fs3%2F\
             aws4_request&X-Amz-Date=19700101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&\
             X-Amz-Security-Token={token}&X-Amz-Signature={signature}"
        )
    };
    for signature in ["0".repeat(65), "0".repeat(63), "g".repeat(64)] {
        let answer = lab.send(lab.request(Method::GET, &query(&signature), &[], b"")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "SignatureDoesNotMatch"), "{signature}");
    }
    let request = lab.request(Method::GET, "/reports/hello.txt", &[], b"");
    let (mut request, _) = lab.signer.sign(request, &sha256(b""));
    request.headers_mut().remove("x-amz-date");
    let answer = lab.send(request).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    for data in [None, Some(dir.path())] {
        let lab = Lab::with(data, json!(null), json!(null));
        let body: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
        let sent =
            [("content-type", "text/x"), ("x-amz-meta-colour", "blue"), ("content-encoding", "gzip,aws-chunked")];
        let put = lab.put("/reports/deep/k%20%C3%BC", &sent, &body).await;
        assert_eq!(put.status, 200, "{}", put.text());
        let got = lab.get("/reports/deep/k%20%C3%BC").await;
        assert!(got.body == body);
        assert_eq!(got.header("etag"), put.header("etag"));
        assert_eq!(got.header("content-type"), Some("text/x"));
        assert_eq!(got.header("content-encoding"), Some("gzip"));
        assert_eq!(got.header("x-amz-meta-colour"), Some("blue"));
        assert_eq!(got.header("content-length"), Some("700000"));
        assert_eq!(got.header("x-amz-checksum-crc64nvme"), None, "only when asked for");
        assert_eq!(got.judged.verdict, Verdict::Allowed);
        assert_eq!(got.judged.action, "s3:GetObject");
        assert_eq!(got.judged.resource, "arn:aws:s3:::reports/deep/k ü");
        assert_eq!(got.judged.principal.as_deref(), Some(ARN));
        let part = lab.ask(Method::GET, "/reports/deep/k%20%C3%BC", &[("range", "bytes=300000-300009")], b"").await;
        assert_eq!((part.status, &part.body[..]), (206, &body[300_000..300_010]));
        assert_eq!(part.header("content-range"), Some("bytes 300000-300009/700000"));
        let head = lab.ask(Method::HEAD, "/reports/deep/k%20%C3%BC", &[], b"").await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("700000"), 0));
        assert_eq!(head.header("content-encoding"), Some("gzip"));
        let otherwise = "/reports/deep/k%20%C3%BC?response-cache-control=no-store&response-content-disposition=attachment\
            &response-content-encoding=br&response-content-language=da&response-content-type=text%2Fplain\
            &response-expires=Thu%2C%2001%20Dec%202033%2016%3A00%3A00%20GMT";
        for method in [Method::GET, Method::HEAD] {
            let said = lab.ask(method, otherwise, &[], b"").await;
            let names =
                ["cache-control", "content-disposition", "content-encoding", "content-language", "content-type"];
            let wanted = ["no-store", "attachment", "br", "da", "text/plain"].map(Some);
            assert_eq!(names.map(|name| said.header(name)), wanted);
            assert_eq!(said.header("expires"), Some("Thu, 01 Dec 2033 16:00:00 GMT"));
        }
    }
}

#[tokio::test]
async fn buckets_are_named_by_host_or_by_path() {
    let lab = Lab::new();
    for host in [
        "reports.s3.eu-west-1.amazonaws.com",
        "reports.bucket.vpce-0a-1b.s3.eu-west-1.vpce.amazonaws.com",
        "reports.s3.dualstack.eu-west-1.amazonaws.com:443",
    ] {
        let got = lab.ask(Method::GET, "/hello.txt", &[("host", host)], b"").await;
        assert_eq!(got.text(), "hello", "{host}");
    }
    let host = "bucket.vpce-0a-1b.s3.eu-west-1.vpce.amazonaws.com";
    assert_eq!(lab.ask(Method::GET, "/reports/hello.txt", &[("host", host)], b"").await.text(), "hello");
}

#[tokio::test]
async fn trailing_checksums_are_verified_and_kept() {
    let lab = Lab::new();
    let put = |trailer: &'static str, length: &'static str| {
        // As botocore sends it over TLS.
        let body = format!("b\r\nhello world\r\n0\r\n{trailer}\r\n\r\n");
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("x-amz-decoded-content-length", length),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ];
        let request = lab.request(Method::PUT, "/reports/t", &headers, body.as_bytes());
        let (request, _) = lab.signer.sign(request, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        lab.send(request)
    };
    let good = put("x-amz-checksum-crc32:DUoRhQ==", "11").await;
    assert_eq!(good.status, 200, "{}", good.text());
    assert_eq!(good.header("x-amz-checksum-crc32"), Some("DUoRhQ=="));
    let got = lab.ask(Method::GET, "/reports/t", &[("x-amz-checksum-mode", "ENABLED")], b"").await;
    assert_eq!(got.text(), "hello world");
    assert_eq!(got.header("x-amz-checksum-crc32"), Some("DUoRhQ=="));
    assert_eq!(got.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    assert_eq!(got.header("content-encoding"), None, "aws-chunked is framing");

    assert_eq!(put("x-amz-checksum-crc32:NhCmhg==", "11").await.code(), "BadDigest");
    assert_eq!(put("x-amz-checksum-sha1:NhCmhg==", "11").await.code(), "MalformedTrailerError");
    assert_eq!(put("x-amz-checksum-crc32:DUoRhQ==", "12").await.code(), "IncompleteBody");
    assert_eq!(lab.get("/reports/t").await.text(), "hello world", "what was refused replaced nothing");
}

#[tokio::test]
async fn signed_chunks_are_verified() {
    let lab = Lab::new();
    let (first, second) = (vec![b'a'; 65_536], vec![b'b'; 1_000]);
    for tampered in [false, true] {
        let headers = [("content-encoding", "aws-chunked"), ("x-amz-decoded-content-length", "66536")];
        let request = lab.request(Method::PUT, "/reports/s", &headers, b"");
        let (request, seal) = lab.signer.sign(request, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        let mut body = seal.chunks(&[&first, &second]);
        if tampered {
            let at = body.len() - 200;
            body[at] ^= 1;
        }
        let answer = lab.send(request.map(|_| Full::new(Bytes::from(body)))).await;
        if tampered {
            assert_eq!((answer.status, answer.code().as_str()), (403, "SignatureDoesNotMatch"));
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let got = lab.get("/reports/s").await;
            assert!(got.body[..] == [&first[..], &second].concat());
        }
    }
}

#[tokio::test]
async fn a_body_unlike_its_hash_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with(Some(dir.path()), json!(null), json!(null));
    let files = || std::fs::read_dir(dir.path().join("reports/data")).unwrap().count();
    let before = files();
    let (request, _) = lab.signer.sign(lab.request(Method::PUT, "/reports/x", &[], b"sent"), &sha256(b"meant"));
    let answer = lab.send(request).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "XAmzContentSHA256Mismatch"));
    let md5 = [("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")];
    assert_eq!(lab.put("/reports/x", &md5, b"other than hello").await.code(), "BadDigest");
    assert_eq!(lab.get("/reports/x").await.code(), "NoSuchKey");
    assert_eq!(files(), before);
}

#[tokio::test]
async fn refusals_before_a_policy_is_asked() {
    let lab = Lab::new();
    let ask = |change: fn(&mut Signer)| {
        let mut signer = Signer::default();
        change(&mut signer);
        let request = lab.request(Method::GET, "/reports/hello.txt", &[], b"");
        lab.send(signer.sign(request, UNSIGNED).0)
    };
    let unsigned = lab.send(lab.request(Method::GET, "/reports/hello.txt", &[], b"")).await;
    assert_eq!((unsigned.status, unsigned.code().as_str()), (403, "AccessDenied"));
    assert_eq!(unsigned.element("Message"), "Access Denied");
    assert_eq!(unsigned.header("x-amz-request-id"), Some(unsigned.element("RequestId").as_str()));

    let wrong = ask(|s| s.secret = "wrong".into()).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (403, "SignatureDoesNotMatch"));
    assert_eq!(
        wrong.element("Message"),
        "The request signature we calculated does not match the signature you provided. Check your key and signing \
         method."
    );
    assert_eq!(wrong.judged.verdict, Verdict::Refused("SignatureDoesNotMatch".into()));
    assert_eq!(wrong.judged.principal, None, "who signed is not known");

    let unknown = ask(|s| s.key = "ASIANOBODY".into()).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (403, "InvalidAccessKeyId"));
    assert_eq!(unknown.element("AWSAccessKeyId"), "ASIANOBODY");
    let expired = ask(|s| s.key = "ASIAEXPIRED".into()).await;
    assert_eq!((expired.status, expired.code().as_str()), (400, "ExpiredToken"));
    assert_eq!(ask(|s| s.token = Some("forged".into())).await.code(), "InvalidToken");
    assert_eq!(ask(|s| s.token = None).await.code(), "InvalidAccessKeyId");
    assert_eq!(ask(|s| s.service = "sts".into()).await.code(), "AuthorizationHeaderMalformed");
    let region = ask(|s| s.region = "us-east-1".into()).await;
    assert_eq!((region.status, region.element("Region").as_str()), (400, "eu-west-1"), "boto3 tries again by this");

    // A token, or any other such header, that the signature does not cover.
    let request = lab.request(Method::GET, "/reports/hello.txt", &[], b"");
    let (mut request, _) = lab.signer.sign(request, UNSIGNED);
    request.headers_mut().insert("x-amz-checksum-mode", "ENABLED".parse().unwrap());
    let answer = lab.send(request).await;
    assert_eq!((answer.status, answer.element("HeadersNotSigned").as_str()), (403, "x-amz-checksum-mode"));

    let old = lab.request(Method::GET, "/reports/hello.txt", &[("authorization", "AWS AKID:c2ln")], b"");
    assert_eq!(lab.send(old).await.code(), "InvalidRequest");
}

#[tokio::test]
async fn both_policies_are_judged_and_the_sentence_is_that_of_aws() {
    let deny = json!({"Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::reports/a/*"}]});
    let role = only("Allow", "s3:*Object", "arn:aws:s3:::reports/*");
    let lab = Lab::with(None, role, deny);
    assert_eq!(lab.get("/reports/hello.txt").await.status, 200);

    let denied = lab.ask(Method::DELETE, "/reports/a/b.json", &[], b"").await;
    assert_eq!((denied.status, denied.code().as_str()), (403, "AccessDenied"));
    let sentence = format!(
        "User: {ARN} is not authorized to perform: s3:DeleteObject on resource: \"arn:aws:s3:::reports/a/b.json\" with \
         an explicit deny in a VPC endpoint policy"
    );
    assert_eq!(denied.element("Message"), sentence);
    assert_eq!(denied.judged.verdict, Verdict::Denied(sentence));

    let list = lab.get("/reports?list-type=2").await;
    assert!(list.element("Message").ends_with(
        "s3:ListBucket on resource: \"arn:aws:s3:::reports\" because no identity-based policy allows the s3:ListBucket \
         action"
    ));
    let all = lab.get("/").await;
    assert!(all.element("Message").ends_with(
        "is not authorized to perform: s3:ListAllMyBuckets because no identity-based policy allows the \
         s3:ListAllMyBuckets action"
    ));
    assert_eq!(lab.get("/reports/absent").await.status, 403, "who may not list is not told that a key is absent");

    // Key by key.
    let xml = "<Delete><Object><Key>hello.txt</Key></Object><Object><Key>a/b.json</Key></Object></Delete>";
    let md5 = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        <md5::Md5 as md5::Digest>::digest(xml.as_bytes()),
    );
    let answer = lab.ask(Method::POST, "/reports?delete", &[("content-md5", &md5)], xml.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("<Deleted><Key>hello.txt</Key></Deleted>"));
    assert!(answer.text().contains("<Error><Code>AccessDenied</Code><Key>a/b.json</Key>"), "{}", answer.text());
}

#[tokio::test]
async fn an_endpoint_policy_grants_nothing_and_takes_away() {
    let reads = json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "s3:Get*", "Resource": "*"}});
    let lab = Lab::with(None, json!(null), reads);
    assert_eq!(lab.get("/reports/hello.txt").await.status, 200);
    let put = lab.put("/reports/x", &[], b"x").await;
    assert!(put.element("Message").ends_with("because no VPC endpoint policy allows the s3:PutObject action"));
    // A copy reads its source by the same policies.
    let role = only("Allow", "s3:PutObject", "*");
    let lab = Lab::with(None, role, json!(null));
    let copy = lab.put("/reports/copy", &[("x-amz-copy-source", "/reports/hello.txt")], b"").await;
    assert!(copy.element("Message").contains("s3:GetObject on resource: \"arn:aws:s3:::reports/hello.txt\""));
    let tags = lab.put("/reports/tagged", &[("x-amz-tagging", "a=b")], b"x").await;
    assert!(tags.element("Message").contains("s3:PutObjectTagging"), "{}", tags.text());
}

#[tokio::test]
async fn another_account_sees_nothing_of_ours() {
    let mut lab = Lab::new();
    lab.signer.key = "ASIAOTHER".into();
    let answer = lab.get("/reports/hello.txt").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
    assert!(answer.element("Message").contains("because no resource-based policy allows"));
    assert!(!lab.get("/").await.text().contains("reports"));
    assert_eq!(lab.put("/reports", &[], b"").await.code(), "IllegalLocationConstraintException");
    let xml =
        "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    assert_eq!(lab.put("/reports", &[], xml.as_bytes()).await.code(), "BucketAlreadyExists");
}

#[tokio::test]
async fn parts_out_of_order_make_one_object() {
    let dir = tempfile::tempdir().unwrap();
    for data in [None, Some(dir.path())] {
        let lab = Lab::with(data, json!(null), json!(null));
        let id = lab.ask(Method::POST, "/reports/mp?uploads", &[], b"").await.element("UploadId");
        let parts = [vec![1u8; 5 << 20], vec![2u8; 5 << 20], vec![3u8; 3]];
        let mut tags = vec![String::new(); 3];
        for n in [2usize, 0, 1] {
            let target = format!("/reports/mp?partNumber={}&uploadId={id}", n + 1);
            let put = lab.put(&target, &[], &parts[n]).await;
            tags[n] = put.header("etag").unwrap().to_owned();
        }
        let lines: String = tags
            .iter()
            .enumerate()
            .map(|(n, tag)| format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", n + 1))
            .collect();
        let xml = format!("<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>");
        let target = format!("/reports/mp?uploadId={id}");
        let done = lab.ask(Method::POST, &target, &[], xml.as_bytes()).await;
        assert!(done.element("ETag").ends_with("-3\""), "{}", done.text());
        assert!(lab.get("/reports/mp").await.body == parts.concat());
        let last = lab.get("/reports/mp?partNumber=3").await;
        assert_eq!((last.status, &last.body[..]), (206, &[3u8, 3, 3][..]));
        assert_eq!(last.header("x-amz-mp-parts-count"), Some("3"));
        assert_eq!(lab.ask(Method::POST, &target, &[], xml.as_bytes()).await.code(), "NoSuchUpload");
    }
}

#[tokio::test]
async fn an_aborted_upload_and_a_small_part_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with(Some(dir.path()), json!(null), json!(null));
    let files = || std::fs::read_dir(dir.path().join("reports/data")).unwrap().count();
    let before = files();
    let id = lab.ask(Method::POST, "/reports/mp?uploads", &[], b"").await.element("UploadId");
    let mut lines = String::new();
    for n in [1, 2] {
        let put = lab.put(&format!("/reports/mp?partNumber={n}&uploadId={id}"), &[], b"small").await;
        let tag = put.header("etag").unwrap();
        lines.push_str(&format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"));
    }
    let xml = format!("<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>");
    let target = format!("/reports/mp?uploadId={id}");
    assert_eq!(lab.ask(Method::POST, &target, &[], xml.as_bytes()).await.code(), "EntityTooSmall");
    assert_eq!(files(), before + 2);
    assert_eq!(lab.ask(Method::DELETE, &target, &[], b"").await.status, 204);
    assert_eq!(files(), before);
}

#[tokio::test]
async fn conditions_and_their_answers() {
    let lab = Lab::new();
    let tag = lab.get("/reports/hello.txt").await.header("etag").unwrap().to_owned();
    let with = |name: &'static str, value: String| {
        let lab = &lab;
        async move { lab.ask(Method::GET, "/reports/hello.txt", &[(name, &value)], b"").await }
    };
    let same = with("if-none-match", tag.clone()).await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(tag.as_str())));
    assert_eq!(with("if-match", "\"other\"".into()).await.code(), "PreconditionFailed");
    assert_eq!(with("range", "bytes=5-".into()).await.code(), "InvalidRange");
    assert_eq!(lab.put("/reports/hello.txt", &[("if-none-match", "*")], b"x").await.code(), "PreconditionFailed");
    assert_eq!(lab.put("/reports/new", &[("if-none-match", "*")], b"x").await.status, 200);
    assert_eq!(lab.put("/reports/new", &[("if-match", &tag)], b"y").await.code(), "PreconditionFailed");
}

#[tokio::test]
async fn of_many_writers_that_want_to_be_first_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with(Some(dir.path()), json!(null), json!(null));
    let writes = (0..16).map(|n| {
        let (lab, body) = (&lab, format!("writer {n}"));
        async move { lab.put("/reports/first", &[("if-none-match", "*")], body.as_bytes()).await.status }
    });
    let won = futures::future::join_all(writes).await.into_iter().filter(|s| *s == 200).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn what_is_not_done_is_refused_by_name() {
    let lab = Lab::new();
    for (method, target, headers) in [
        (Method::GET, "/reports?cors", &[][..]),
        (Method::PUT, "/reports?policy", &[][..]),
        (Method::PUT, "/reports/k", &[("x-amz-server-side-encryption", "aws:kms")][..]),
        (Method::PUT, "/reports/k", &[("x-amz-storage-class", "GLACIER")][..]),
        (Method::POST, "/reports", &[("content-type", "multipart/form-data; boundary=x")][..]),
    ] {
        let answer = lab.ask(method, target, headers, b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "NotImplemented"), "{target} {headers:?}");
        assert!(answer.element("Message").ends_with("not in this version"), "{}", answer.text());
    }
    assert_eq!(lab.get("/reports/hello.txt?versionId=x").await.code(), "InvalidArgument");
    assert_eq!(
        lab.put("/reports/k", &[("x-amz-acl", "public-read")], b"").await.code(),
        "AccessControlListNotSupported"
    );
    assert_eq!(lab.get("/No_Such").await.code(), "InvalidBucketName");
}

#[tokio::test]
async fn contents_of_a_directory_and_of_the_last_start() {
    let (files, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(files.path().join("sub")).unwrap();
    std::fs::write(files.path().join("sub/page.html"), "<p>").unwrap();
    std::fs::write(files.path().join("big"), vec![7; 600_000]).unwrap();
    let lab = Lab::with(Some(data.path()), json!(null), json!(null));
    let plan = [BucketPlan { name: "site".into(), files: BucketFiles::Directory(files.path().into()) }];
    lab.s3.add_buckets(&plan).unwrap();
    let page = lab.get("/site/sub/page.html").await;
    assert_eq!((page.text().as_str(), page.header("content-type")), ("<p>", Some("text/html")));
    assert_eq!(lab.get("/site/big").await.body.len(), 600_000);
    assert_eq!(lab.ask(Method::DELETE, "/site/big", &[], b"").await.status, 204);
    drop(lab);

    let lab = Lab::with(Some(data.path()), json!(null), json!(null));
    lab.s3.add_buckets(&plan).unwrap();
    assert_eq!(lab.get("/site/sub/page.html").await.text(), "<p>");
    assert_eq!(lab.get("/site/big").await.code(), "NoSuchKey", "what was deleted does not come back");
}
