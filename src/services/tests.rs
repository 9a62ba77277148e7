//! The room as a client sees it: from the TCP stream of an endpoint ENI to the service's answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::{Lab, REGION, lab, plan, signed};
use super::{Decision, Opened};
use crate::base::UnixTime;
use crate::model::credentials::CredentialBook;
use crate::model::plan::{Backend, Policy, UpstreamAddr};

fn all_builtin() -> Lab {
    let names = ["sts", "sqs", "sns", "secretsmanager", "s3", "echo", "kms"];
    lab(plan(&names.map(|n| (n, Backend::Builtin))))
}

const WHO: &str = "Action=GetCallerIdentity&Version=2011-06-15";

#[tokio::test]
async fn a_client_that_trusts_the_ca_learns_who_it_is() {
    let lab = all_builtin();
    let mut client = lab.client("sts").await;
    assert_eq!(client.alpn.as_deref(), Some(&b"http/1.1"[..]));
    // Two requests on one connection.
    for key in ["ASIAWEB", "ASIAGUEST"] {
        let answer = client.query(key, "sts", WHO).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.headers.contains_key("x-amzn-requestid"));
        assert_eq!(answer.xml("RequestId"), answer.headers["x-amzn-requestid"]);
        let role = if key == "ASIAWEB" { "web" } else { "guest" };
        assert_eq!(answer.xml("Arn"), format!("arn:aws:sts::123456789012:assumed-role/{role}/i-0123"));
        assert!(answer.xml("UserId").starts_with("AROA") && answer.xml("UserId").ends_with(":i-0123"));
    }
    let events = lab.services.events().drain();
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].endpoint.as_str(), events[0].status), ("app.sts", 200));
    assert_eq!((events[0].action.as_str(), &events[0].decision), ("sts:GetCallerIdentity", &Decision::Allowed));
}

#[tokio::test]
async fn leaves_have_awss_names_and_no_others() {
    let lab = all_builtin();
    let v = "vpce-00-abcdefgh";
    for name in [
        format!("sts.{REGION}.amazonaws.com"),
        format!("{v}.sts.{REGION}.vpce.amazonaws.com"),
        format!("{v}-{REGION}a.sts.{REGION}.vpce.amazonaws.com"),
    ] {
        assert!(lab.https("sts", &name).await.is_ok(), "{name}");
    }
    for name in ["sts.amazonaws.com".into(), format!("sqs.{REGION}.amazonaws.com"), "example.com".into()] {
        assert!(lab.https("sts", &name).await.is_err(), "{name}");
    }
    let v = format!("vpce-04-abcdefgh.s3.{REGION}.vpce.amazonaws.com");
    for name in
        [format!("bucket.{v}"), format!("b.bucket.{v}"), format!("a-1.accesspoint.{v}"), format!("1.control.{v}")]
    {
        assert!(lab.https("s3", &name).await.is_ok(), "{name}");
    }
    assert!(lab.https("s3", &format!("b.s3.{REGION}.amazonaws.com")).await.is_ok());
    // The bare name and names two labels deep fail, as with AWS.
    for name in [v, format!("a.b.s3.{REGION}.amazonaws.com"), format!("s3-control.{REGION}.amazonaws.com")] {
        assert!(lab.https("s3", &name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn s3_endpoints_speak_tls_12_and_the_others_13() {
    let lab = all_builtin();
    assert_eq!(lab.client("s3").await.version, Some(rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(lab.client("sqs").await.version, Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn a_ca_vouches_for_listeners_by_name_and_for_nothing_else() {
    let ca = super::Ca::generate("lab", &["db.corp.example".into()], UnixTime(1_767_225_600)).unwrap();
    assert!(ca.leaf(&["db.corp.example".into()]).is_ok());
    assert!(ca.leaf(&["x.eu-west-1.compute.internal".into()]).is_ok());
    assert!(matches!(ca.leaf(&["corp.example".into()]), Err(super::CaError::NotPermitted(_))));
    assert!(matches!(ca.leaf(&["evilamazonaws.com".into()]), Err(super::CaError::NotPermitted(_))));
    assert!(ca.pem().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn wrong_signatures_are_refused_in_the_words_of_the_service() {
    let lab = all_builtin();
    let mut sts = lab.client("sts").await;
    let host = sts.host.clone();
    let form = [("content-type", "application/x-www-form-urlencoded")];

    let unsigned =
        http::Request::post("/").header("host", &host).body(Full::new(Bytes::from_static(WHO.as_bytes()))).unwrap();
    let answer = sts.send(unsigned).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "MissingAuthenticationToken"));

    let answer = sts.query("ASIANOBODY", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "InvalidClientTokenId"));
    assert_eq!(answer.xml("Message"), "The security token included in the request is invalid.");

    let mut tampered = signed("ASIAWEB", "sts", &host, &form, WHO);
    *tampered.body_mut() = Full::new(Bytes::from_static(b"Action=GetCallerIdentity&Version=2011-06-16"));
    let answer = sts.send(tampered).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "SignatureDoesNotMatch"));
    assert!(answer.xml("Message").starts_with("The request signature we calculated does not match"));

    let mut other_token = signed("ASIAWEB", "sts", &host, &form, WHO);
    other_token.headers_mut().insert("x-amz-security-token", "token/of+ASIAGUEST==".parse().unwrap());
    let answer = sts.send(other_token).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "InvalidClientTokenId"));

    let answer = sts.query("ASIAWEB", "sqs", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "SignatureDoesNotMatch"));
    assert_eq!(answer.xml("Message"), "Credential should be scoped to correct service: &apos;sts&apos;. ");

    let mut secrets = lab.client("secretsmanager").await;
    let answer = secrets.json("ASIANOBODY", "secretsmanager", "secretsmanager.ListSecrets", &json!({})).await;
    assert_eq!((answer.status, answer.json()["__type"].as_str()), (400, Some("UnrecognizedClientException")));

    let mut sqs = lab.client("sqs").await;
    let answer = sqs.json("ASIANOBODY", "sqs", "AmazonSQS.ListQueues", &json!({})).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.headers["x-amzn-query-error"], "InvalidClientTokenId;Sender");
    assert_eq!(answer.json()["__type"], "com.amazon.coral.service#UnrecognizedClientException");

    let last = lab.services.events().recent().last().unwrap().clone();
    assert_eq!(last.decision, Decision::BadSignature("InvalidClientTokenId".into()));
}

#[tokio::test]
async fn late_requests_and_expired_credentials_are_refused() {
    let lab = all_builtin();
    let mut sts = lab.client("sts").await;
    lab.clock.advance(Duration::from_secs(299));
    assert_eq!(sts.query("ASIAWEB", "sts", WHO).await.status, 200);
    lab.clock.advance(Duration::from_secs(2));
    let answer = sts.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "SignatureDoesNotMatch"));
    assert_eq!(
        answer.xml("Message"),
        "Signature expired: 20260101T000000Z is now earlier than 20260101T000001Z (20260101T000501Z - 5 min.)"
    );
    lab.clock.advance(Duration::from_secs(3_600));
    let answer = sts.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "ExpiredToken"));
    *lab.credentials.write().unwrap() = Arc::new(CredentialBook::default());
    let answer = sts.query("ASIAWEB", "sts", WHO).await;
    assert_eq!(answer.xml("Code"), "InvalidClientTokenId");
}

#[tokio::test]
async fn both_policies_are_judged_and_refuse_in_awss_sentence() {
    let mut plan = plan(&["sts", "sqs", "sns", "secretsmanager"].map(|n| (n, Backend::Builtin)));
    plan.endpoints[1].policy = Policy::Document(json!({"Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "sqs:PurgeQueue", "Resource": "*"},
    ]}));
    plan.endpoints[2].policy = Policy::Document(
        json!({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sns:ListTopics", "Resource": "*"}]}),
    );
    plan.services[1].contents.queues = vec!["q".into()];
    let lab = lab(plan);
    let user = "User: arn:aws:sts::123456789012:assumed-role";
    let queue = "arn:aws:sqs:eu-west-1:123456789012:q";

    let mut sqs = lab.client("sqs").await;
    let url = json!({"QueueUrl": format!("https://sqs.{REGION}.amazonaws.com/123456789012/q")});
    let answer = sqs.json("ASIAWEB", "sqs", "AmazonSQS.PurgeQueue", &url).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.headers["x-amzn-query-error"], "AccessDenied;Sender");
    assert_eq!(
        answer.json()["message"],
        format!(
            "{user}/web/i-0123 is not authorized to perform: sqs:PurgeQueue on resource: {queue} with an explicit deny \
             in a VPC endpoint policy"
        )
    );
    let answer = sqs.query("ASIAGUEST", "sqs", &format!("Action=PurgeQueue&QueueUrl={}", "/123456789012/q")).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AccessDenied"));
    let answer = sqs.json("ASIAGUEST", "sqs", "AmazonSQS.GetQueueAttributes", &url).await;
    assert_eq!(
        answer.json()["message"],
        format!(
            "{user}/guest/i-0123 is not authorized to perform: sqs:GetQueueAttributes on resource: {queue} because no \
             identity-based policy allows the sqs:GetQueueAttributes action"
        )
    );

    let mut sns = lab.client("sns").await;
    let answer = sns.query("ASIAWEB", "sns", "Action=CreateTopic&Name=t").await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AuthorizationError"));
    assert_eq!(
        answer.xml("Message"),
        format!(
            "{user}/web/i-0123 is not authorized to perform: SNS:CreateTopic on resource: \
             arn:aws:sns:eu-west-1:123456789012:t because no VPC endpoint policy allows the SNS:CreateTopic action"
        )
    );
    assert_eq!(sns.query("ASIAWEB", "sns", "Action=ListTopics").await.status, 200);

    let mut secrets = lab.client("secretsmanager").await;
    let get = json!({"SecretId": "x"});
    let answer = secrets.json("ASIAGUEST", "secretsmanager", "secretsmanager.GetSecretValue", &get).await;
    assert_eq!((answer.status, answer.json()["__type"].as_str()), (400, Some("AccessDeniedException")));

    // Who one is, one may ask without any permission.
    let mut sts = lab.client("sts").await;
    assert_eq!(sts.query("ASIAGUEST", "sts", WHO).await.status, 200);
    let event = lab.services.events().recent()[0].clone();
    assert!(matches!(&event.decision, Decision::Denied(m) if m.contains("explicit deny")));
    assert_eq!(event.resource, queue);
}

#[tokio::test]
async fn a_published_plan_holds_for_the_next_request_of_an_open_connection() {
    let first = plan(&[("sts", Backend::Builtin)]);
    let mut second = first.clone();
    second.endpoints[0].policy = Policy::Document(
        json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}}),
    );
    let lab = lab(first);
    let mut sts = lab.client("sts").await;
    assert_eq!(sts.query("ASIAWEB", "sts", WHO).await.status, 200);
    lab.services.publish(Arc::new(second)).unwrap();
    let answer = sts.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AccessDenied"));
}

#[tokio::test]
async fn an_assumed_role_has_working_credentials() {
    let lab = all_builtin();
    let mut sts = lab.client("sts").await;
    let form = "Action=AssumeRole&RoleArn=arn:aws:iam::123456789012:role/guest&RoleSessionName=me";
    let answer = sts.query("ASIAWEB", "sts", form).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.xml("Expiration"), "2026-01-01T01:00:00Z");
    let key = answer.xml("AccessKeyId");
    assert!(key.starts_with("ASIA") && key.len() == 20);
    let found = lab.services.world().keyring.find(key).unwrap();
    assert_eq!(found.arn(), "arn:aws:sts::123456789012:assumed-role/guest/me");
    assert_eq!(found.token, answer.xml("SessionToken"));
    let answer = sts.query("ASIAGUEST", "sts", form).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AccessDenied"));
    let answer = sts.query("ASIAWEB", "sts", &form.replace("role/guest", "role/nobody")).await;
    assert_eq!((answer.status, answer.xml("Code")), (403, "AccessDenied"));
    let answer = sts.query("ASIAWEB", "sts", "Action=NoSuchThing&Version=2011-06-15").await;
    assert_eq!((answer.status, answer.xml("Code")), (400, "InvalidAction"));
}

#[tokio::test]
async fn a_message_goes_through_a_queue_in_both_protocols() {
    let lab = all_builtin();
    let mut sqs = lab.client("sqs").await;
    let made = sqs.json("ASIAWEB", "sqs", "AmazonSQS.CreateQueue", &json!({"QueueName": "q"})).await;
    let url = made.json()["QueueUrl"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("https://sqs.{REGION}.amazonaws.com/123456789012/q"));
    let sent = sqs
        .json(
            "ASIAWEB",
            "sqs",
            "AmazonSQS.SendMessage",
            &json!({"QueueUrl": url, "MessageBody": "hello",
            "MessageAttributes": {"a": {"DataType": "String", "StringValue": "x"}}}),
        )
        .await
        .json();
    assert_eq!(sent["MD5OfMessageBody"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(sent["MD5OfMessageAttributes"], "a512aac9938034acb0b3c3d965944bf1");

    let encoded: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
    let form = format!("Action=ReceiveMessage&QueueUrl={encoded}&AttributeName.1=All&MessageAttributeName.1=All");
    let got = sqs.query("ASIAWEB", "sqs", &form).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.headers["content-type"], "text/xml");
    assert!(got.body.contains("<ReceiveMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">"));
    assert_eq!((got.xml("MessageId"), got.xml("Body")), (sent["MessageId"].as_str().unwrap(), "hello"));
    assert!(got.body.contains("<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>"));
    assert!(got.body.contains("<MessageAttribute><Name>a</Name><Value><StringValue>x</StringValue>"));
    let receive = json!({"QueueUrl": url});
    let empty = sqs.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &receive).await;
    assert_eq!(empty.json(), json!({}), "in flight");

    lab.clock.advance(Duration::from_secs(30));
    let again = sqs.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &receive).await.json();
    let delete = json!({"QueueUrl": url, "ReceiptHandle": again["Messages"][0]["ReceiptHandle"]});
    assert_eq!(sqs.json("ASIAWEB", "sqs", "AmazonSQS.DeleteMessage", &delete).await.status, 200);
    let attributes = json!({"QueueUrl": url, "AttributeNames": ["All"]});
    let attributes = sqs.json("ASIAWEB", "sqs", "AmazonSQS.GetQueueAttributes", &attributes).await.json();
    assert_eq!(attributes["Attributes"]["ApproximateNumberOfMessages"], "0");
    assert_eq!(attributes["Attributes"]["QueueArn"], "arn:aws:sqs:eu-west-1:123456789012:q");

    let gone = json!({"QueueUrl": url.replace("/q", "/none")});
    let answer = sqs.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &gone).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["x-amzn-query-error"], "AWS.SimpleQueueService.NonExistentQueue;Sender");
    assert_eq!(answer.json()["__type"], "com.amazonaws.sqs#QueueDoesNotExist");
    let answer = sqs.json("ASIAWEB", "sqs", "AmazonSQS.Fly", &json!({})).await;
    assert_eq!(answer.json()["__type"], "com.amazon.coral.service#UnknownOperationException");
}

#[tokio::test]
async fn long_polling_ends_when_a_message_comes() {
    let mut plan = plan(&[("sqs", Backend::Builtin)]);
    plan.services[0].contents.queues = vec!["q".into()];
    let lab = lab(plan);
    let url = format!("https://sqs.{REGION}.amazonaws.com/123456789012/q");
    let (mut receiver, mut sender) = (lab.client("sqs").await, lab.client("sqs").await);
    let wait = json!({"QueueUrl": url, "WaitTimeSeconds": 20});
    let send = json!({"QueueUrl": url, "Entries": [
        {"Id": "1", "MessageBody": "one"}, {"Id": "2", "MessageBody": "two", "DelaySeconds": 901}]});
    // The clock stands still: only the message ends the wait.
    let (got, sent) = tokio::join!(
        receiver.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &wait),
        sender.json("ASIAWEB", "sqs", "AmazonSQS.SendMessageBatch", &send),
    );
    assert_eq!(got.json()["Messages"][0]["Body"], "one");
    let sent = sent.json();
    assert_eq!(sent["Successful"][0]["Id"], "1");
    assert_eq!(sent["Failed"][0]["Code"], "InvalidParameterValue");
}

#[tokio::test]
async fn a_notification_lands_in_the_subscribed_queue() {
    let mut plan = plan(&["sns", "sqs"].map(|n| (n, Backend::Builtin)));
    plan.services[0].contents.topics = vec!["t".into()];
    plan.services[1].contents.queues = vec!["q".into(), "raw".into()];
    let lab = lab(plan);
    let (mut sns, mut sqs) = (lab.client("sns").await, lab.client("sqs").await);
    let topic = "arn:aws:sns:eu-west-1:123456789012:t";
    for (queue, more) in
        [("q", ""), ("raw", "&Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value=true")]
    {
        let form = format!(
            "Action=Subscribe&TopicArn={topic}&Protocol=sqs&Endpoint=arn:aws:sqs:eu-west-1:123456789012:{queue}{more}"
        );
        let answer = sns.query("ASIAWEB", "sns", &form).await;
        assert!(answer.xml("SubscriptionArn").starts_with(&format!("{topic}:")), "{}", answer.body);
    }
    let form = format!(
        "Action=Publish&TopicArn={topic}&Message=hello&Subject=hi&MessageAttributes.entry.1.Name=a&\
         MessageAttributes.entry.1.Value.DataType=String&MessageAttributes.entry.1.Value.StringValue=x"
    );
    let published = sns.query("ASIAWEB", "sns", &form).await;
    assert_eq!(published.status, 200, "{}", published.body);
    let receive = |q: &str| json!({"QueueUrl": format!("/123456789012/{q}"), "MessageAttributeNames": ["All"]});
    let got = sqs.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &receive("q")).await.json();
    let body: serde_json::Value = serde_json::from_str(got["Messages"][0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!((body["Type"].as_str(), body["Message"].as_str()), (Some("Notification"), Some("hello")));
    assert_eq!((body["Subject"].as_str(), body["TopicArn"].as_str()), (Some("hi"), Some(topic)));
    assert_eq!(body["MessageId"], published.xml("MessageId"));
    assert_eq!(body["MessageAttributes"]["a"], json!({"Type": "String", "Value": "x"}));
    assert_eq!(body["Timestamp"], "2026-01-01T00:00:00.000Z");
    let raw = sqs.json("ASIAWEB", "sqs", "AmazonSQS.ReceiveMessage", &receive("raw")).await.json();
    assert_eq!(raw["Messages"][0]["Body"], "hello");
    assert_eq!(raw["Messages"][0]["MessageAttributes"]["a"]["StringValue"], "x");
    let none = sns.query("ASIAWEB", "sns", &form.replace(":t&", ":none&")).await;
    assert_eq!((none.status, none.xml("Code")), (404, "NotFound"));
}

#[tokio::test]
async fn a_secret_has_versions_and_a_way_back() {
    let mut plan = plan(&[("secretsmanager", Backend::Builtin)]);
    plan.services[0].contents.secrets = vec![("db".into(), "one".into())];
    let lab = lab(plan);
    let mut client = lab.client("secretsmanager").await;
    let mut call = async |action: &str, body: serde_json::Value| {
        let answer = client.json("ASIAWEB", "secretsmanager", &format!("secretsmanager.{action}"), &body).await;
        (answer.status, answer.json())
    };
    let (_, first) = call("GetSecretValue", json!({"SecretId": "db"})).await;
    assert_eq!(first["SecretString"], "one");
    assert_eq!(first["VersionStages"], json!(["AWSCURRENT"]));
    let (status, put) = call("PutSecretValue", json!({"SecretId": first["ARN"], "SecretString": "two"})).await;
    assert_eq!(status, 200, "{put}");
    assert_eq!(call("GetSecretValue", json!({"SecretId": "db"})).await.1["SecretString"], "two");
    let (_, previous) = call("GetSecretValue", json!({"SecretId": "db", "VersionStage": "AWSPREVIOUS"})).await;
    assert_eq!((&previous["SecretString"], &previous["VersionId"]), (&json!("one"), &first["VersionId"]));
    let (status, error) = call("CreateSecret", json!({"Name": "db", "SecretString": "x"})).await;
    assert_eq!((status, error["__type"].as_str()), (400, Some("ResourceExistsException")));

    let (_, deleted) = call("DeleteSecret", json!({"SecretId": "db", "RecoveryWindowInDays": 7})).await;
    assert_eq!(deleted["DeletionDate"], lab.clock_unix() + 7 * 86_400);
    let (_, error) = call("GetSecretValue", json!({"SecretId": "db"})).await;
    assert_eq!(error["__type"], "InvalidRequestException");
    assert_eq!(call("ListSecrets", json!({})).await.1["SecretList"], json!([]));
    assert_eq!(call("RestoreSecret", json!({"SecretId": "db"})).await.0, 200);
    assert_eq!(call("ListSecrets", json!({})).await.1["SecretList"][0]["Name"], "db");
    assert_eq!(call("DeleteSecret", json!({"SecretId": "db", "ForceDeleteWithoutRecovery": true})).await.0, 200);
    let (status, error) = call("DescribeSecret", json!({"SecretId": "db"})).await;
    assert_eq!((status, error["__type"].as_str()), (400, Some("ResourceNotFoundException")));
    let (_, made) = call("CreateSecret", json!({"Name": "db", "SecretBinary": "AAEC"})).await;
    assert_eq!(call("GetSecretValue", json!({"SecretId": made["ARN"]})).await.1["SecretBinary"], "AAEC");
    assert_eq!(call("Fly", json!({})).await.1["__type"], "UnknownOperationException");
}

#[tokio::test]
async fn echo_repeats_bytes_and_tells_who_calls() {
    let lab = all_builtin();
    for port in [7, 9_999] {
        let mut raw = lab.stream("echo", port).await;
        raw.write_all(b"ping\n").await.unwrap();
        raw.shutdown().await.unwrap();
        let mut back = Vec::new();
        raw.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"ping\n", "port {port}");
    }
    let mut plain = lab.stream("echo", 80).await;
    plain.write_all(b"GET /x?y=1 HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\"client\": \"10.0.1.10\""), "{text}");
    let mut tls = lab.client("echo").await;
    let host = tls.host.clone();
    let answer = tls.send(signed("ASIAWEB", "echo", &host, &[], "hello")).await.json();
    assert_eq!(answer["caller"], "arn:aws:sts::123456789012:assumed-role/web/i-0123");
    assert_eq!((answer["tls"].as_bool(), answer["body"].as_str()), (Some(true), Some("hello")));
    assert!(answer["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let lab = all_builtin();
    let mut plain = lab.stream("echo", 80).await;
    plain
        .write_all(
            b"POST / HTTP/1.1\r\nhost: echo\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut interim = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    plain.read_exact(&mut interim).await.unwrap();
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    plain.write_all(b"hello").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("\"body\": \"hello\""), "{text}");
}

#[tokio::test]
async fn a_service_without_a_mock_says_so() {
    let lab = all_builtin();
    let mut kms = lab.client("kms").await;
    let answer = kms.json("ASIAWEB", "kms", "TrentService.ListKeys", &json!({})).await;
    assert_eq!((answer.status, answer.json()["__type"].as_str()), (501, Some("NotImplemented")));
}

fn upstream() -> UpstreamAddr {
    UpstreamAddr::Loopback("127.0.0.1:5000".parse().unwrap())
}

fn with_upstream(service: &str) -> Lab {
    let backend = Backend::Http { tls: false, authority: "127.0.0.1:5000".into(), addr: upstream() };
    lab(plan(&[(service, backend)]))
}

#[tokio::test]
async fn a_backend_that_refuses_or_is_silent_is_seen_before_the_client_is_accepted() {
    let unix = UpstreamAddr::Unix("/nowhere".into());
    let lab = lab(plan(&[
        ("sts", Backend::Http { tls: false, authority: "127.0.0.1:5000".into(), addr: upstream() }),
        ("sqs", Backend::Tcp(unix.clone())),
    ]));
    lab.dialer.fail(&upstream(), io::ErrorKind::ConnectionRefused);
    assert!(matches!(lab.services.open(lab.context("sts", 443)).await, Opened::Refused));
    lab.dialer.fail(&upstream(), io::ErrorKind::TimedOut);
    assert!(matches!(lab.services.open(lab.context("sts", 443)).await, Opened::Silent));
    lab.dialer.fail(&unix, io::ErrorKind::NotFound);
    assert!(matches!(lab.services.open(lab.context("sqs", 443)).await, Opened::Refused));
}

#[tokio::test]
async fn a_dial_that_never_ends_is_silence() {
    let lab = with_upstream("sts");
    assert!(matches!(lab.services.open(lab.context("sts", 443)).await, Opened::Silent));
}

#[tokio::test]
async fn an_http_backend_gets_the_request_as_signed_and_answers_through_the_front_door() {
    let lab = with_upstream("sts");
    let mut far = lab.dialer.expect(&upstream());
    let backend = tokio::spawn(async move {
        let mut seen = String::new();
        let mut buffer = [0; 4_096];
        while !seen.ends_with(WHO) {
            let n = far.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0, "{seen}");
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
        far.write_all(b"HTTP/1.1 201 Created\r\nx-own: 1\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        (seen, far)
    });
    let mut client = lab.client("sts").await;
    let answer = client.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.body.as_str(), &answer.headers["x-own"]), (201, "ok", &"1".parse().unwrap()));
    let (seen, far) = backend.await.unwrap();
    assert!(seen.contains(&format!("host: sts.{REGION}.amazonaws.com\r\n")), "{seen}");
    assert!(seen.contains("authorization: AWS4-HMAC-SHA256 Credential=ASIAWEB/"), "{seen}");
    assert_eq!(lab.services.events().recent()[0].action, "sts:GetCallerIdentity");

    // A wrong signature does not reach it, nor what the policies deny.
    let refused = client.query("ASIANOBODY", "sts", WHO).await;
    assert_eq!((refused.status, refused.xml("Code")), (403, "InvalidClientTokenId"));
    let denied = client.query("ASIAGUEST", "sts", "Action=AssumeRole").await;
    assert_eq!((denied.status, denied.xml("Code")), (403, "AccessDenied"));

    // The backend closes the kept connection: it is dialled again; and when that fails the client is told.
    drop(far);
    lab.dialer.fail(&upstream(), io::ErrorKind::ConnectionRefused);
    let answer = client.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (503, "ServiceUnavailable"));
    assert!(matches!(lab.services.events().recent().last().unwrap().decision, Decision::Backend(_)));
}

#[tokio::test]
async fn raw_bytes_pass_both_ways_and_half_close_is_carried() {
    let unix = UpstreamAddr::Unix("/db".into());
    let lab = lab(plan(&[("sqs", Backend::Tcp(unix.clone()))]));
    let mut far = lab.dialer.expect(&unix);
    let mut near = lab.stream("sqs", 443).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).await.unwrap();
    far.write_all(b"answer").await.unwrap();
    drop(far);
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
}

#[tokio::test]
async fn a_tls_backend_that_nobody_vouches_for_is_not_spoken_to() {
    let name = format!("sts.{REGION}.amazonaws.com");
    let backend = Backend::Http { tls: true, authority: format!("{name}:5000"), addr: upstream() };
    let lab = lab(plan(&[("sts", backend)]));
    let far = lab.dialer.expect(&upstream());
    let config = lab.ca.server_config(&[name], false).unwrap();
    let accepted = tokio::spawn(async move { tokio_rustls::TlsAcceptor::from(config).accept(far).await.is_ok() });
    let answer = lab.client("sts").await.query("ASIAWEB", "sts", WHO).await;
    assert_eq!((answer.status, answer.xml("Code")), (503, "ServiceUnavailable"));
    assert!(answer.xml("Message").contains("UnknownIssuer"), "{}", answer.body);
    assert!(!accepted.await.unwrap());
}

/// Opens a session, sends `bytes`, goes away, and waits for the session's end.
async fn leave(lab: &Lab, service: &str, port: u16, bytes: &[u8]) {
    let Opened::Ready(session) = lab.services.open(lab.context(service, port)).await else { panic!("not reached") };
    let (mut near, far) = tokio::io::duplex(1_024);
    let serving = tokio::spawn(session.serve(far, || ()));
    near.write_all(bytes).await.unwrap();
    drop(near);
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("the session ends").unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_session_behind() {
    let lab = all_builtin();
    leave(&lab, "echo", 7, b"half a line").await;
    leave(&lab, "echo", 80, b"GET / HTTP/1.1\r\nhost: e").await;
    leave(&lab, "echo", 80, b"POST / HTTP/1.1\r\nhost: e\r\ncontent-length: 100\r\n\r\nhalf").await;
    leave(&lab, "sts", 443, b"\x16\x03\x01\x02\x00\x01").await;
    leave(&lab, "sts", 443, b"GET / HTTP/1.1\r\n\r\n").await;

    let lab = with_upstream("sts");
    let mut far = lab.dialer.expect(&upstream());
    leave(&lab, "sts", 443, b"").await;
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the backend's connection is closed too");
}
