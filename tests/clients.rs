//! Does it really work? Unmodified aws-cli v1 and v2, boto3, curl and dig in real namespaces, through real packets.

mod common;

use common::{Lab, aws1, aws2, python, topology};

/// Makes aws-cli give up soon where the network is silent; a user would wait minutes.
const IMPATIENT: &[&str] = &["--cli-connect-timeout", "2", "--cli-read-timeout", "5"];

/// What the tests of this file see of each service: aws-cli v1, aws-cli v2, boto3, curl. The README shows this table.
const SEEN: &[[&str; 5]] = &[
    ["S3", "yes", "yes", "yes", "signed PUT, GET"],
    ["STS", "yes", "yes", "yes", "signed call"],
    ["SNS", "yes", "yes", "yes", "-"],
    ["Secrets Manager", "yes", "yes", "yes", "-"],
    ["SQS", "no, as with AWS: it asks for a legacy name", "yes", "yes", "-"],
];

#[test]
fn the_readme_shows_the_table_of_what_was_seen() {
    let rows: String = SEEN.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    let table = format!("| service | aws-cli v1 | aws-cli v2 | boto3 | curl |\n|---|---|---|---|---|\n{rows}");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    assert!(readme.contains(&format!("<!-- clients -->\n{table}<!-- /clients -->")), "README.md should have:\n{table}");
}

#[test]
fn the_demo_signs_with_curl_where_there_is_no_aws_cli() {
    let said = common::run(common::vpclab().args(["demo", "--client", "curl"]));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("1000000 bytes came back, equal to what went"), "{}", said.out);
}

#[test]
fn every_client_works_with_every_service_without_configuration() {
    let lab = Lab::up_file("demo.yaml");
    for (client, aws) in [("v1", aws1()), ("v2", aws2())] {
        let aws = |args: &[&str]| lab.exec("web", &[&[aws.as_str()], args].concat());

        let identity = aws(&["sts", "get-caller-identity", "--output", "json"]).ok();
        assert!(identity.contains(":assumed-role/web-role/i-"), "{client}: {identity}");

        let bucket = format!("s3://made-by-{client}");
        aws(&["s3", "mb", &bucket]).ok();
        std::fs::write(lab.dir.path().join("small"), vec![7u8; 1024]).expect("small file");
        aws(&["s3", "cp", "small", &format!("{bucket}/dir/small")]).ok();
        aws(&["s3", "cp", &format!("{bucket}/dir/small"), "small.back"]).ok();
        same_files(&lab, "small", "small.back");
        assert!(aws(&["s3", "ls", &format!("{bucket}/dir/")]).ok().contains("1024 small"), "{client}: ls");
        aws(&["s3", "rm", "--recursive", &bucket]).ok();
        assert_eq!(aws(&["s3", "ls", &format!("{bucket}/dir/")]).code, 1, "{client}: an empty listing is exit 1");
        aws(&["s3", "rb", &bucket]).ok();

        let topic = aws(&["sns", "create-topic", "--name", "news", "--output", "text"]).ok();
        let sent = aws(&["sns", "publish", "--topic-arn", topic.trim(), "--message", "hello"]).ok();
        assert!(sent.contains("MessageId"), "{client}: {sent}");

        let secret = format!("secret-{client}");
        aws(&["secretsmanager", "create-secret", "--name", &secret, "--secret-string", "hunter2"]).ok();
        let value = aws(&[
            "secretsmanager",
            "get-secret-value",
            "--secret-id",
            &secret,
            "--query",
            "SecretString",
            "--output",
            "text",
        ])
        .ok();
        assert_eq!(value.trim(), "hunter2", "{client}");
    }

    // SQS: aws-cli v1 asks for a legacy name (its own test below), v2 for the regional one.
    let v2 = aws2();
    let aws = |args: &[&str]| lab.exec("web", &[&[v2.as_str()], args].concat());
    let url = aws(&["sqs", "create-queue", "--queue-name", "jobs", "--output", "text"]).ok();
    let url = url.trim();
    assert!(url.starts_with("https://sqs.eu-west-1.amazonaws.com/"), "{url}");
    aws(&["sqs", "send-message", "--queue-url", url, "--message-body", "one"]).ok();
    let got = aws(&["sqs", "receive-message", "--queue-url", url, "--query", "Messages[0].Body", "--output", "text"]);
    assert_eq!(got.ok().trim(), "one");
}

#[test]
fn boto3_works_with_every_service_without_configuration() {
    let lab = Lab::up_file("demo.yaml");
    let script = r#"
import boto3, hashlib, os
who = boto3.client("sts").get_caller_identity()["Arn"]
assert ":assumed-role/web-role/i-" in who, who
s3 = boto3.client("s3")
s3.create_bucket(Bucket="from-boto3", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
body = os.urandom(1024)
s3.put_object(Bucket="from-boto3", Key="a/b", Body=body, Metadata={"colour": "blue"})
back = s3.get_object(Bucket="from-boto3", Key="a/b")
assert back["Body"].read() == body and back["Metadata"] == {"colour": "blue"}
part = s3.get_object(Bucket="from-boto3", Key="a/b", Range="bytes=10-19")["Body"].read()
assert part == body[10:20]
assert [o["Key"] for o in s3.list_objects_v2(Bucket="from-boto3")["Contents"]] == ["a/b"]
try:
    s3.get_object(Bucket="from-boto3", Key="none")
    raise SystemExit("a missing key was found")
except s3.exceptions.NoSuchKey:
    pass
s3.delete_object(Bucket="from-boto3", Key="a/b")
s3.delete_bucket(Bucket="from-boto3")
sns = boto3.client("sns")
topic = sns.create_topic(Name="t")["TopicArn"]
assert sns.publish(TopicArn=topic, Message="m")["MessageId"]
sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="q")["QueueUrl"]
sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes={"k": {"DataType": "String", "StringValue": "v"}})
got = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2, MessageAttributeNames=["All"])["Messages"][0]
assert got["Body"] == "hello" and got["MessageAttributes"]["k"]["StringValue"] == "v"
sqs.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
try:
    sqs.get_queue_url(QueueName="nope")
    raise SystemExit("a missing queue was found")
except sqs.exceptions.QueueDoesNotExist:
    pass
sm = boto3.client("secretsmanager")
sm.create_secret(Name="s", SecretString="x")
assert sm.get_secret_value(SecretId="s")["SecretString"] == "x"
try:
    sm.get_secret_value(SecretId="none")
    raise SystemExit("a missing secret was found")
except sm.exceptions.ResourceNotFoundException:
    pass
print("all well")
"#;
    std::fs::write(lab.dir.path().join("t.py"), script).expect("script");
    let said = lab.exec("web", &[&python(), "t.py"]).ok();
    assert_eq!(said.trim(), "all well");
}

#[test]
fn dynamodb_answers_behind_its_endpoint() {
    // The service has no private DNS name: its clients are given the endpoint's own.
    let yaml = topology("demo.yaml").replace("secretsmanager: {} }", "secretsmanager: {}, dynamodb: {} }").replace(
        "services:\n",
        "services:\n  dynamodb: { tables: { users: { key: id, items: [ { id: ann, age: 30 } ] } } }\n",
    );
    let lab = Lab::up(&yaml);
    let name = lab.vpclab("names", &["dynamodb"]).ok();
    let url = format!("https://{}", name.lines().next().expect("a regional name").trim());
    for (client, aws) in [("v1", aws1()), ("v2", aws2())] {
        let aws = |args: &[&str]| {
            let all = [&[aws.as_str(), "dynamodb"], args, &["--endpoint-url", &url, "--output", "json"]].concat();
            lab.exec("web", &all)
        };
        let ann = aws(&["get-item", "--table-name", "users", "--key", r#"{"id":{"S":"ann"}}"#]).ok();
        assert!(ann.contains("\"30\""), "{client}: {ann}");
        let create = |name: &str| {
            let table = ["create-table", "--table-name", name, "--billing-mode", "PAY_PER_REQUEST"];
            let attributes = ["--attribute-definitions", "AttributeName=k,AttributeType=S"];
            aws(&[&table[..], &attributes, &["--key-schema", "AttributeName=k,KeyType=HASH"]].concat())
        };
        let refused = create("not a name").err;
        assert!(
            refused.contains("(ValidationException) when calling the CreateTable operation"),
            "{client}: {refused}"
        );
        let table = format!("made-by-{client}");
        create(&table).ok();
        aws(&["wait", "table-exists", "--table-name", &table]).ok();
        aws(&["put-item", "--table-name", &table, "--item", r#"{"k":{"S":"x"},"b":{"B":"AAEC"}}"#]).ok();
        let found = aws(&[
            "query",
            "--table-name",
            &table,
            "--key-condition-expression",
            "k = :k",
            "--expression-attribute-values",
            r#"{":k":{"S":"x"}}"#,
            "--query",
            "Count",
        ]);
        assert_eq!(found.ok().trim(), "1", "{client}");
        assert!(aws(&["list-tables"]).ok().contains(&table), "{client}");
        aws(&["delete-table", "--table-name", &table]).ok();
        aws(&["wait", "table-not-exists", "--table-name", &table]).ok();
    }
    let script = r##"
import boto3, decimal, sys
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError
db = boto3.resource("dynamodb", endpoint_url=sys.argv[1])
table = db.create_table(
    TableName="orders", BillingMode="PAY_PER_REQUEST",
    AttributeDefinitions=[{"AttributeName": "who", "AttributeType": "S"}, {"AttributeName": "at", "AttributeType": "N"}],
    KeySchema=[{"AttributeName": "who", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}])
table.wait_until_exists()
with table.batch_writer() as batch:
    for n in range(60):
        batch.put_item(Item={"who": "ann", "at": n, "price": decimal.Decimal("0.1") * n, "tags": {"a", str(n)}, "name": f"n{n}",
                             "raw": bytes([n]), "deep": {"list": [None, True, {"x": n}]}})
found = table.query(KeyConditionExpression=Key("who").eq("ann") & Key("at").between(8, 11), ScanIndexForward=False)
assert [int(i["at"]) for i in found["Items"]] == [11, 10, 9, 8], found
assert found["Items"][0]["price"] == decimal.Decimal("1.1") and found["Items"][0]["tags"] == {"a", "11"}
assert found["Items"][0]["raw"].value == b"\x0b" and found["Items"][0]["deep"] == {"list": [None, True, {"x": 11}]}
pages = list(table.meta.client.get_paginator("query").paginate(
    TableName="orders", KeyConditionExpression=Key("who").eq("ann"), PaginationConfig={"PageSize": 7}))
assert sum(p["Count"] for p in pages) == 60 and len(pages) == 9
some = table.scan(FilterExpression=Attr("name").begins_with("n5") & Attr("tags").contains("a") & Attr("deep.list").exists())
assert some["Count"] == 11 and some["ScannedCount"] == 60, some["Count"]
table.put_item(Item={"who": "bob", "at": 1}, ConditionExpression=Attr("who").not_exists())
try:
    table.put_item(Item={"who": "bob", "at": 1}, ConditionExpression=Attr("who").not_exists())
    raise SystemExit("the condition held twice")
except table.meta.client.exceptions.ConditionalCheckFailedException:
    pass
new = table.update_item(Key={"who": "bob", "at": 1}, UpdateExpression="SET #n = if_not_exists(#n, :z) + :one",
    ExpressionAttributeNames={"#n": "count"}, ExpressionAttributeValues={":z": 41, ":one": 1}, ReturnValues="UPDATED_NEW")
assert new["Attributes"] == {"count": 42}, new
got = db.batch_get_item(RequestItems={"orders": {"Keys": [{"who": "ann", "at": 3}, {"who": "eve", "at": 3}]}})
assert len(got["Responses"]["orders"]) == 1
assert "Item" not in table.get_item(Key={"who": "eve", "at": 1})
try:
    db.Table("none").load()
    raise SystemExit("a missing table was found")
except table.meta.client.exceptions.ResourceNotFoundException:
    pass
try:
    table.get_item(Key={"who": "ann"})
    raise SystemExit("half a key was enough")
except ClientError as e:
    assert e.response["Error"]["Code"] == "ValidationException", e
    assert "does not match the schema" in e.response["Error"]["Message"], e
table.delete()
table.wait_until_not_exists()
print("all well")
"##;
    std::fs::write(lab.dir.path().join("t.py"), script).expect("script");
    assert_eq!(lab.exec("web", &[&python(), "t.py", &url]).ok().trim(), "all well");
}

/// A public instance without an endpoint, and a private one with gateway endpoints only.
const EDGES: &str = r#"
version: 1
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    internet_gateway: true
    subnets:
      public:  { cidr: 10.0.1.0/24, az: a, route_table: public, public_ip: true }
      private: { cidr: 10.0.2.0/24, az: a, route_table: private }
    route_tables:
      public:  { routes: [ { to: 0.0.0.0/0, via: igw } ] }
      private: {}
    instances:
      web: { subnet: public, role: r }
      db:  { subnet: private, role: r }
    endpoints:
      s3: { type: gateway, route_tables: [private] }
      dynamodb:
        type: gateway
        route_tables: [private]
        policy:
          Statement:
            - { Effect: Allow, Principal: "*", Action: "*", Resource: "*" }
            - { Effect: Deny, Principal: "*", Action: "dynamodb:Scan", Resource: "*" }
roles: { r: { policy: full } }
services:
  dynamodb: { tables: { users: { key: id, items: [ { id: ann, age: 30 } ] } } }
  s3:
    buckets:
      reports: { files: { hello.txt: hi } }
      far: { region: us-east-1, files: { a.txt: from afar } }
"#;

#[test]
fn gateway_endpoints_and_the_public_side_lead_to_the_same_services() {
    let lab = Lab::up(EDGES);
    for (client, aws) in [("v1", aws1()), ("v2", aws2())] {
        let aws = |from: &str, args: &[&str]| lab.exec(from, &[&[aws.as_str()], args, IMPATIENT].concat());
        // By the gateway endpoint: no name is changed, its policy is asked.
        let get = ["dynamodb", "get-item", "--table-name", "users", "--key", r#"{"id":{"S":"ann"}}"#];
        assert!(aws("db", &get).ok().contains("\"30\""), "{client}");
        let scan = aws("db", &["dynamodb", "scan", "--table-name", "users"]).err;
        assert!(scan.contains("with an explicit deny in a VPC endpoint policy"), "{client}: {scan}");
        assert!(aws("db", &["s3", "ls", "s3://reports/"]).ok().contains("hello.txt"), "{client}");
        // By the Internet gateway: no endpoint's policy, services of every region, legacy names.
        assert!(aws("web", &["dynamodb", "scan", "--table-name", "users"]).ok().contains("\"30\""), "{client}");
        assert!(
            aws("web", &["sts", "get-caller-identity", "--region", "ap-south-1"]).ok().contains(":assumed-role/r/")
        );
        aws("web", &["sqs", "list-queues"]).ok();
        // The wrong region's answer says which is right, and both clients follow it.
        assert!(aws("web", &["s3", "ls", "s3://far/"]).ok().contains("a.txt"), "{client}");
        let listed = aws("web", &["s3", "ls"]).ok();
        assert!(listed.contains("far") && listed.contains("reports"), "{client}: {listed}");
        let keys = aws("web", &["kms", "list-keys"]).err;
        assert!(keys.contains("services: { kms: { backend:"), "{client}: {keys}");
    }
    // Another region's S3 is not in the prefix list, nor is any other service, and there is no other way.
    for host in ["s3.us-east-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"] {
        let url = format!("https://{host}/");
        assert_eq!(lab.exec("db", &["curl", "-sS", "--connect-timeout", "1", &url]).code, 28, "{host}");
    }
}

#[test]
fn a_hundred_megabytes_come_back_as_they_went() {
    let lab = Lab::up_file("demo.yaml");
    lab.sh("web", "head -c 100000000 /dev/urandom > big").ok();
    for (client, aws) in [("v1", aws1()), ("v2", aws2())] {
        let key = format!("s3://reports/big-{client}");
        lab.exec("web", &[&aws, "s3", "cp", "--quiet", "big", &key]).ok();
        lab.exec("web", &[&aws, "s3", "cp", "--quiet", &key, "big.back"]).ok();
        same_files(&lab, "big", "big.back");
        std::fs::remove_file(lab.dir.path().join("big.back")).expect("removed");
    }
    let script = "import boto3\ns = boto3.client('s3')\ns.upload_file('big', 'reports', 'b3')\ns.download_file('reports', 'b3', 'big.back')\n";
    lab.exec("web", &[&python(), "-c", script]).ok();
    same_files(&lab, "big", "big.back");
}

#[test]
fn curl_shows_a_private_address_verified_tls_and_a_result() {
    let lab = Lab::up_file("demo.yaml");
    let said = lab.exec("web", &["curl", "-sv", "https://sts.eu-west-1.amazonaws.com/"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("Connected to sts.eu-west-1.amazonaws.com (10.0."), "{}", said.err);
    assert!(said.err.contains("SSL certificate verify ok"), "{}", said.err);
    assert!(said.out.contains("MissingAuthenticationToken"), "{}", said.out);
}

#[test]
fn aws_cli_v1_asks_for_the_legacy_sqs_name_and_fails_as_with_aws() {
    let lab = Lab::up_file("demo.yaml");
    let said = lab.exec("web", &[&[aws1().as_str(), "sqs", "list-queues"], IMPATIENT].concat());
    assert_ne!(said.code, 0);
    assert!(said.err.contains("Connect timeout on endpoint URL"), "{}", said.err);
    assert!(said.err.contains("RT_NO_ROUTE"), "exec's own line names the drop: {}", said.err);
    let why = lab.vpclab("explain", &["web", "https://eu-west-1.queue.amazonaws.com"]);
    assert_eq!(why.code, 1);
    assert!(why.out.lines().nth(1).is_some_and(|l| l.starts_with("NO   RT_NO_ROUTE")), "{}", why.out);
    assert!(why.out.contains("sqs.eu-west-1.amazonaws.com"), "the name to use instead: {}", why.out);
}

#[test]
fn in_us_east_1_boto3_asks_for_the_global_s3_name() {
    let lab = Lab::up_file("us-east-1.yaml");
    let script = "import boto3\nfrom botocore.config import Config\n\
                  c = Config(connect_timeout=2, read_timeout=2, retries={'total_max_attempts': 1})\n\
                  boto3.client('s3', config=c).list_buckets()\n";
    let said = lab.exec("web", &[&python(), "-c", script]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("ConnectTimeoutError"), "{}", said.err);
    let why = lab.vpclab("explain", &["web", "https://s3.amazonaws.com"]);
    assert_eq!(why.code, 1);
    assert!(why.out.contains("RT_NO_ROUTE"), "{}", why.out);
    assert!(why.out.contains("s3.us-east-1.amazonaws.com"), "{}", why.out);
    // aws-cli v2 asks for the regional name, which private DNS covers.
    let listed = lab.exec("web", &[&aws2(), "s3", "ls"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
}

#[test]
fn without_private_dns_only_the_endpoints_own_name_works() {
    let lab = Lab::up_file("private-dns-off.yaml");
    let said = lab.exec("web", &[&[aws1().as_str(), "sts", "get-caller-identity"], IMPATIENT].concat());
    assert_ne!(said.code, 0);
    assert!(said.err.contains("Connect timeout on endpoint URL"), "{}", said.err);
    let name = lab.vpclab("names", &["sts", "--zone", "a"]).ok();
    let url = format!("https://{}", name.trim());
    for aws in [aws1(), aws2()] {
        lab.exec("web", &[&aws, "sts", "get-caller-identity", "--endpoint-url", &url]).ok();
    }
}

#[test]
fn the_guest_times_out_and_explain_names_the_missing_rule() {
    let lab = Lab::up_file("demo.yaml");
    for aws in [aws1(), aws2()] {
        let said = lab.exec("guest", &[&[aws.as_str(), "sts", "get-caller-identity"], IMPATIENT].concat());
        assert_ne!(said.code, 0);
        assert!(said.err.contains("Connect timeout on endpoint URL"), "{}", said.err);
        assert!(said.err.contains("SG_INGRESS"), "{}", said.err);
    }
    let curl = lab.exec("guest", &["curl", "-sS", "--connect-timeout", "2", "https://s3.eu-west-1.amazonaws.com"]);
    assert_eq!(curl.code, 28, "{}", curl.err);
    let why = lab.vpclab("explain", &["guest", "https://s3.eu-west-1.amazonaws.com"]);
    assert_eq!(why.code, 1);
    let second = why.out.lines().nth(1).unwrap_or_default();
    assert!(
        second.starts_with("NO   SG_INGRESS at endpoint app.s3")
            || second.starts_with("NO   SG_INGRESS at endpoint s3"),
        "{}",
        why.out
    );
    assert!(why.out.contains("tcp 443 from sg:guest"), "the smallest change: {}", why.out);
}

#[test]
fn dig_agrees_with_aws_in_every_case() {
    let lab = Lab::up_file("demo.yaml");
    // dig pads its columns by tabs or blanks, as long as the name is.
    let dig = |args: &[&str]| {
        let said = lab.exec("web", &[&["dig", "+tries=1", "+time=3"], args].concat()).ok();
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
    };

    // Private name: one A record per zone, TTL 60, flags qr rd ra and no aa, EDNS 4096.
    let private = dig(&["s3.eu-west-1.amazonaws.com"]);
    assert!(private.contains("flags: qr rd ra;"), "{private}");
    assert!(private.contains("ANSWER: 2,"), "{private}");
    assert_eq!(private.matches("60 IN A 10.0.").count(), 2, "{private}");
    assert!(private.contains("udp: 4096"), "{private}");
    let names = lab.vpclab("names", &["sts"]).ok();
    let regional = names.lines().next().expect("a regional name").trim().to_owned();
    assert_eq!(dig(&["+short", &regional]).lines().count(), 2, "regional: both zones");
    let zonal = lab.vpclab("names", &["sts", "--zone", "b"]).ok();
    let answer = dig(&["+short", zonal.trim()]);
    assert_eq!(answer.lines().count(), 1, "zonal: one zone");
    assert!(answer.starts_with("10.0.2."), "zone b: {answer}");
    // Unknown below the zone: NXDOMAIN with the fixed SOA, never a public answer.
    let unknown = dig(&["nothing.sts.eu-west-1.amazonaws.com"]);
    assert!(unknown.contains("status: NXDOMAIN"), "{unknown}");
    assert!(
        unknown.contains("900 IN SOA ns-1536.awsdns-00.co.uk. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"),
        "{unknown}"
    );
    // AAAA of an IPv4 endpoint: NODATA.
    let aaaa = dig(&["AAAA", "sts.eu-west-1.amazonaws.com"]);
    assert!(aaaa.contains("status: NOERROR") && aaaa.contains("ANSWER: 0"), "{aaaa}");
    // S3 has a wildcard, and dig may ask by TCP too.
    assert_eq!(dig(&["+short", "reports.s3.eu-west-1.amazonaws.com"]).lines().count(), 2);
    assert_eq!(dig(&["+short", "+tcp", "s3.eu-west-1.amazonaws.com"]).lines().count(), 2);
    // Nothing is asked of the real world.
    assert!(dig(&["example.com"]).contains("status: NXDOMAIN"));
    // An instance's own name, and back.
    assert_eq!(dig(&["+short", "ip-10-0-2-10.eu-west-1.compute.internal"]).trim(), "10.0.2.10");
    assert_eq!(dig(&["+short", "-x", "10.0.2.10"]).trim(), "ip-10-0-2-10.eu-west-1.compute.internal.");
    // The second address of the resolver.
    assert_eq!(dig(&["+short", "@169.254.169.253", "sts.eu-west-1.amazonaws.com"]).lines().count(), 2);
}

#[test]
fn two_hundred_parallel_downloads_have_equal_checksums() {
    let lab = Lab::up_file("demo.yaml");
    lab.sh("web", "head -c 1000000 /dev/urandom > object").ok();
    lab.exec("web", &[&aws2(), "s3", "cp", "--quiet", "object", "s3://reports/object"]).ok();
    // boto3 would presign for the global name, which private DNS does not cover; aws-cli v2 takes the regional one.
    let url = lab.exec("web", &[&aws2(), "s3", "presign", "s3://reports/object"]).ok();
    let config: String = (0..200).map(|n| format!("url = \"{}\"\noutput = \"down/{n}\"\n", url.trim())).collect();
    std::fs::create_dir(lab.dir.path().join("down")).expect("folder");
    std::fs::write(lab.dir.path().join("curl.conf"), config).expect("curl configuration");
    lab.exec(
        "web",
        &["curl", "-sS", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "200", "-K", "curl.conf"],
    )
    .ok();
    let want = std::fs::read(lab.dir.path().join("object")).expect("object");
    for n in 0..200 {
        let got = std::fs::read(lab.dir.path().join(format!("down/{n}"))).expect("download");
        assert!(got == want, "download {n} differs");
    }
}

#[test]
fn the_tutorial_of_the_readme_works_from_init_to_down() {
    let dir = tempfile::tempdir().expect("folder");
    let name = common::unique_name();
    let vpclab =
        |args: &[&str]| common::run(common::vpclab().current_dir(dir.path()).env("VPCLAB_LAB", &name).args(args));
    let starter = vpclab(&["init"]).ok();
    std::fs::write(dir.path().join("lab.vpclab.yaml"), starter).expect("written");
    vpclab(&["up", "--name", &name]).ok();
    std::fs::write(dir.path().join("big.bin"), vec![1u8; 3_000_000]).expect("big.bin");
    vpclab(&["exec", "web", "--", &aws2(), "s3", "cp", "--quiet", "big.bin", "s3://reports/"]).ok();
    let why = vpclab(&["explain", "guest", "https://s3.eu-west-1.amazonaws.com"]);
    assert_eq!(why.code, 1, "{}{}", why.out, why.err);
    let tested = vpclab(&["test", "lab.vpclab.yaml"]);
    assert_eq!(tested.code, 0, "{}{}", tested.out, tested.err);
    vpclab(&["down"]).ok();
    assert!(common::leftovers(&name).is_empty());
}

#[test]
fn moto_on_the_hosts_loopback_answers_behind_the_endpoint() {
    let moto = common::Moto::start();
    let yaml = format!(
        "{}\n",
        topology("demo.yaml")
            .replace("services:", &format!("services:\n  sts: {{ backend: \"http://127.0.0.1:{}\" }}", moto.port))
    );
    let lab = Lab::up(&yaml);
    let said = lab.exec("web", &[&aws2(), "sts", "get-caller-identity", "--output", "json"]).ok();
    assert!(said.contains("\"Account\""), "{said}");
    assert!(!said.contains("assumed-role/web-role/i-"), "the built-in answered, not moto: {said}");
}

#[track_caller]
fn same_files(lab: &Lab, one: &str, other: &str) {
    let read = |name: &str| std::fs::read(lab.dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(read(one) == read(other), "{one} and {other} differ");
}
