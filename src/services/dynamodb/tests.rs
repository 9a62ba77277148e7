//! DynamoDB as a client sees it, through the front door.

use serde_json::{Value as Json, json};

use crate::model::plan::{Backend, Policy, TablePlan};
use crate::services::testing::{Answer, Client, Lab, lab, plan};

async fn call(client: &mut Client, action: &str, input: Json) -> Answer {
    client.json("ASIAWEB", "dynamodb", &format!("DynamoDB_20120810.{action}"), &input).await
}

/// The answer to a call that succeeds.
async fn good(client: &mut Client, action: &str, input: Json) -> Json {
    let answer = call(client, action, input).await;
    assert_eq!(answer.status, 200, "{action}: {}", answer.body);
    answer.json()
}

/// Code and message of a call that fails.
async fn bad(client: &mut Client, action: &str, input: Json) -> (String, String) {
    let answer = call(client, action, input).await;
    assert_eq!(answer.status, 400, "{action}: {}", answer.body);
    let body = answer.json();
    let code = body["__type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned();
    let message = body.get("message").or_else(|| body.get("Message")).and_then(Json::as_str).unwrap_or("").to_owned();
    (code, message)
}

fn a_lab() -> Lab {
    lab(plan(&[("dynamodb", Backend::Builtin)]))
}

/// A table `t` with partition key `p` (S) and sort key `s` of this type.
async fn with_table(lab: &Lab, sort: &str) -> Client {
    let mut client = lab.client("dynamodb").await;
    let table = json!({
        "TableName": "tab", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "s", "AttributeType": sort}],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
    });
    let made = good(&mut client, "CreateTable", table).await;
    assert_eq!(made["TableDescription"]["TableStatus"], "CREATING");
    client
}

#[tokio::test]
async fn a_table_comes_is_listed_and_goes() {
    let lab = a_lab();
    let mut client = with_table(&lab, "N").await;
    let described = good(&mut client, "DescribeTable", json!({"TableName": "tab"})).await["Table"].clone();
    assert_eq!(described["TableStatus"], "ACTIVE");
    assert_eq!(described["TableArn"], "arn:aws:dynamodb:eu-west-1:123456789012:table/tab");
    assert_eq!(described["KeySchema"][1], json!({"AttributeName": "s", "KeyType": "RANGE"}));
    assert_eq!(described["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST");
    let one = json!({
        "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
    });
    let named = |name: &str| {
        let mut table = one.clone();
        table["TableName"] = name.into();
        table
    };
    let made = good(&mut client, "CreateTable", named("abc")).await;
    assert_eq!(made["TableDescription"]["ProvisionedThroughput"]["WriteCapacityUnits"], 2);
    let (code, message) = bad(&mut client, "CreateTable", named("abc")).await;
    assert_eq!((code.as_str(), message.as_str()), ("ResourceInUseException", "Table already exists: abc"));
    let page = good(&mut client, "ListTables", json!({"Limit": 1})).await;
    assert_eq!(page, json!({"TableNames": ["abc"], "LastEvaluatedTableName": "abc"}));
    let page = good(&mut client, "ListTables", json!({"Limit": 1, "ExclusiveStartTableName": "abc"})).await;
    assert_eq!(page, json!({"TableNames": ["tab"]}));
    let gone = good(&mut client, "DeleteTable", json!({"TableName": "abc"})).await;
    assert_eq!(gone["TableDescription"]["TableStatus"], "DELETING");
    for action in ["DescribeTable", "DeleteTable"] {
        let (code, message) = bad(&mut client, action, json!({"TableName": "abc"})).await;
        assert_eq!(code, "ResourceNotFoundException");
        assert_eq!(message, "Requested resource not found: Table: abc not found");
    }
    let arn = json!({"TableName": "arn:aws:dynamodb:eu-west-1:123456789012:table/tab"});
    assert_eq!(good(&mut client, "DescribeTable", arn).await["Table"]["TableName"], "tab");
}

#[tokio::test]
async fn answers_carry_the_checksum_and_the_request_id() {
    let lab = a_lab();
    let mut client = lab.client("dynamodb").await;
    for (action, input) in [("ListTables", json!({})), ("DescribeTable", json!({"TableName": "none"}))] {
        let answer = call(&mut client, action, input).await;
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, answer.body.as_bytes());
        assert_eq!(answer.headers["x-amz-crc32"], crc.to_string());
        assert_eq!(answer.headers["content-type"], "application/x-amz-json-1.0");
        assert_eq!(answer.headers["x-amzn-requestid"].len(), 36);
    }
    // The check value of CRC-32/ISO-HDLC.
    assert_eq!(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, b"123456789"), 0xcbf4_3926);
}

#[tokio::test]
async fn bad_tables_are_refused_in_awss_words() {
    let lab = a_lab();
    let mut client = lab.client("dynamodb").await;
    let good_one = json!({
        "TableName": "tab", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
    });
    for (patch, words) in [
        (json!({"TableName": "ab"}), "TableName must be at least 3 characters long"),
        (json!({"TableName": "a b c"}), "regular expression pattern: [a-zA-Z0-9_.-]+"),
        (json!({"TableName": null}), "Value null at 'tableName'"),
        (
            json!({"KeySchema": [{"AttributeName": "p", "KeyType": "RANGE"}]}),
            "The first KeySchemaElement is not a HASH key type",
        ),
        (json!({"KeySchema": [{"AttributeName": "q", "KeyType": "HASH"}]}), "Keys: [q], AttributeDefinitions: [p]"),
        (json!({"KeySchema": []}), "'keySchema'"),
        (json!({"AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "M"}]}), "enum value set: [B, N, S]"),
        (
            json!({"AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"},
                                         {"AttributeName": "q", "AttributeType": "S"}]}),
            "does not exactly match number of attributes",
        ),
        (json!({"BillingMode": null}), "must both be specified when BillingMode is PROVISIONED"),
        (json!({"GlobalSecondaryIndexes": [{}]}), "GlobalSecondaryIndexes is not in this version of vpclab"),
        (json!({"StreamSpecification": {"StreamEnabled": true}}), "StreamSpecification is not in this version"),
    ] {
        let mut table = good_one.clone();
        for (key, value) in patch.as_object().unwrap() {
            table[key] = value.clone();
        }
        let (code, message) = bad(&mut client, "CreateTable", table).await;
        assert_eq!(code, "ValidationException", "{patch}");
        assert!(message.contains(words), "{patch}: {message}");
    }
    let (code, message) = bad(&mut client, "UpdateTimeToLive", json!({"TableName": "tab"})).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("UnknownOperationException", "UpdateTimeToLive is not in this version of vpclab")
    );
    assert_eq!(bad(&mut client, "Fly", json!({})).await.0, "UnknownOperationException");
}

#[tokio::test]
async fn an_item_is_put_read_changed_and_deleted() {
    let lab = a_lab();
    let mut client = with_table(&lab, "N").await;
    let key = json!({"p": {"S": "a"}, "s": {"N": "1"}});
    let get = json!({"TableName": "tab", "Key": key});
    assert_eq!(good(&mut client, "GetItem", get.clone()).await, json!({}));
    let item = json!({"p": {"S": "a"}, "s": {"N": "1.0"}, "v": {"L": [{"N": "2"}, {"BOOL": true}]}});
    let put = json!({"TableName": "tab", "Item": item, "ReturnConsumedCapacity": "TOTAL"});
    let out = good(&mut client, "PutItem", put).await;
    assert_eq!(out, json!({"ConsumedCapacity": {"TableName": "tab", "CapacityUnits": 1.0}}));
    let shown = good(&mut client, "GetItem", get).await["Item"].clone();
    assert_eq!(shown, json!({"p": {"S": "a"}, "s": {"N": "1"}, "v": {"L": [{"N": "2"}, {"BOOL": true}]}}));
    let part = json!({"TableName": "tab", "Key": key, "ProjectionExpression": "#v[1]", "ExpressionAttributeNames": {"#v": "v"}});
    assert_eq!(good(&mut client, "GetItem", part).await["Item"], json!({"v": {"L": [{"BOOL": true}]}}));
    let update = json!({
        "TableName": "tab", "Key": key, "UpdateExpression": "SET v[0] = v[0] + :n ADD hits :n", "ReturnValues": "UPDATED_NEW",
        "ExpressionAttributeValues": {":n": {"N": "40"}},
    });
    let changed = good(&mut client, "UpdateItem", update).await["Attributes"].clone();
    assert_eq!(changed, json!({"hits": {"N": "40"}, "v": {"L": [{"N": "42"}]}}));
    let gone = json!({"TableName": "tab", "Key": key, "ReturnValues": "ALL_OLD"});
    assert_eq!(good(&mut client, "DeleteItem", gone.clone()).await["Attributes"]["hits"], json!({"N": "40"}));
    assert_eq!(good(&mut client, "DeleteItem", gone).await, json!({}));
    // An update of what is not there makes it.
    let update = json!({"TableName": "tab", "Key": key, "ReturnValues": "ALL_NEW"});
    assert_eq!(good(&mut client, "UpdateItem", update).await["Attributes"], key);
    for (action, input, words) in [
        (
            "GetItem",
            json!({"TableName": "tab", "Key": {"p": {"S": "a"}}}),
            "The provided key element does not match the schema",
        ),
        ("PutItem", json!({"TableName": "tab", "Item": {"p": {"S": "a"}}}), "Missing the key s in the item"),
        ("PutItem", json!({"TableName": "tab", "Item": {"p": {"S": "a"}, "s": {"S": "1"}}}), "expected: N actual: S"),
        ("PutItem", json!({"TableName": "tab"}), "Value null at 'item'"),
        (
            "PutItem",
            json!({"TableName": "tab", "Item": item, "Expected": {"x": {}}}),
            "Expected is not in this version",
        ),
        (
            "UpdateItem",
            json!({"TableName": "tab", "Key": key, "UpdateExpression": "REMOVE s"}),
            "This attribute is part of the key",
        ),
        (
            "PutItem",
            json!({"TableName": "tab", "Item": {"p": {"S": "a"}, "s": {"N": "1"}, "x": {"S": "x".repeat(409_600)}}}),
            "Item size has exceeded the maximum allowed size",
        ),
    ] {
        let (code, message) = bad(&mut client, action, input).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.contains(words), "{words}: {message}");
    }
    let (code, message) = bad(&mut client, "PutItem", json!({"TableName": "none", "Item": item})).await;
    assert_eq!((code.as_str(), message.as_str()), ("ResourceNotFoundException", "Requested resource not found"));
}

#[tokio::test]
async fn conditions_guard_writes() {
    let lab = a_lab();
    let mut client = with_table(&lab, "N").await;
    let put = |value: &str, condition: &str| {
        json!({
            "TableName": "tab", "Item": {"p": {"S": "a"}, "s": {"N": "1"}, "v": {"S": value}},
            "ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        })
    };
    good(&mut client, "PutItem", put("one", "attribute_not_exists(p)")).await;
    let answer = call(&mut client, "PutItem", put("two", "attribute_not_exists(p)")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        json!({
            "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
            "message": "The conditional request failed",
            "Item": {"p": {"S": "a"}, "s": {"N": "1"}, "v": {"S": "one"}},
        })
    );
    good(&mut client, "PutItem", put("two", "attribute_exists(v)")).await;
    let delete = json!({
        "TableName": "tab", "Key": {"p": {"S": "a"}, "s": {"N": "1"}}, "ConditionExpression": "v = :v",
        "ExpressionAttributeValues": {":v": {"S": "one"}},
    });
    assert_eq!(bad(&mut client, "DeleteItem", delete).await.0, "ConditionalCheckFailedException");
}

async fn numbered(lab: &Lab) -> Client {
    let mut client = with_table(lab, "N").await;
    for chunk in ["-5 1 2.5 9 10", "100 1E3"] {
        let puts: Vec<Json> = chunk
            .split(' ')
            .map(|n| json!({"PutRequest": {"Item": {"p": {"S": "a"}, "s": {"N": n}, "text": {"S": n}}}}))
            .collect();
        let out = good(&mut client, "BatchWriteItem", json!({"RequestItems": {"tab": puts}})).await;
        assert_eq!(out, json!({"UnprocessedItems": {}}));
    }
    let other = json!({"TableName": "tab", "Item": {"p": {"S": "b"}, "s": {"N": "3"}}});
    good(&mut client, "PutItem", other).await;
    client
}

fn sorts(page: &Json) -> Vec<&str> {
    page["Items"].as_array().unwrap().iter().map(|i| i["s"]["N"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn queries_find_ranges_in_the_order_of_decimals() {
    let lab = a_lab();
    let mut client = numbered(&lab).await;
    let query = |condition: &str, values: Json, more: Json| {
        let mut input = json!({
            "TableName": "tab", "KeyConditionExpression": condition, "ExpressionAttributeValues": values,
        });
        for (key, value) in more.as_object().unwrap() {
            input[key] = value.clone();
        }
        input
    };
    let a = |n: &str| json!({":p": {"S": "a"}, ":n": {"N": n}});
    for (condition, values, found) in [
        ("p = :p", json!({":p": {"S": "a"}}), "-5 1 2.5 9 10 100 1000"),
        ("p = :p AND s = :n", a("2.50"), "2.5"),
        ("p = :p AND s < :n", a("9"), "-5 1 2.5"),
        ("s <= :n AND p = :p", a("9"), "-5 1 2.5 9"),
        ("(p = :p) AND (s > :n)", a("10"), "100 1000"),
        ("p = :p AND :n <= s", a("10"), "10 100 1000"),
        (
            "p = :p AND s BETWEEN :n AND :m",
            json!({":p": {"S": "a"}, ":n": {"N": "0"}, ":m": {"N": "10"}}),
            "1 2.5 9 10",
        ),
        ("p = :p", json!({":p": {"S": "none"}}), ""),
    ] {
        let page = good(&mut client, "Query", query(condition, values, json!({}))).await;
        assert_eq!(sorts(&page).join(" "), found, "{condition}");
        assert!(page.get("LastEvaluatedKey").is_none());
    }
    // Backwards, by pages of three: the last full page does not know that it is the last.
    let mut pages = Vec::new();
    let mut more = json!({"ScanIndexForward": false, "Limit": 3});
    loop {
        let page = good(&mut client, "Query", query("p = :p", json!({":p": {"S": "a"}}), more.clone())).await;
        pages.push(sorts(&page).join(" "));
        let Some(last) = page.get("LastEvaluatedKey") else { break };
        more["ExclusiveStartKey"] = last.clone();
    }
    assert_eq!(pages, ["1000 100 10", "9 2.5 1", "-5"]);
    let filter = json!({
        "FilterExpression": "begins_with(#t, :one)", "ExpressionAttributeNames": {"#t": "text"}, "Limit": 5,
        "ProjectionExpression": "s",
    });
    let page = good(&mut client, "Query", query("p = :p", json!({":p": {"S": "a"}, ":one": {"S": "1"}}), filter)).await;
    assert_eq!((sorts(&page).join(" "), &page["Count"], &page["ScannedCount"]), ("1 10".into(), &json!(2), &json!(5)));
    assert_eq!(page["LastEvaluatedKey"], json!({"p": {"S": "a"}, "s": {"N": "10"}}));
    let counted =
        good(&mut client, "Query", query("p = :p", json!({":p": {"S": "a"}}), json!({"Select": "COUNT"}))).await;
    assert_eq!(counted, json!({"Count": 7, "ScannedCount": 7}));
    for (condition, values, words) in [
        ("s = :n", json!({":n": {"N": "1"}}), "Query condition missed key schema element: p"),
        ("p > :p", json!({":p": {"S": "a"}}), "Query key condition not supported"),
        ("p = :p AND q = :p", json!({":p": {"S": "a"}}), "Query condition missed key schema element: s"),
        ("p = :p OR s = :n", a("1"), "Invalid operator used in KeyConditionExpression: OR"),
        ("p = :p AND s <> :n", a("1"), "Invalid operator used in KeyConditionExpression: <>"),
        ("p = :p AND s = :p", json!({":p": {"S": "a"}}), "Condition parameter type does not match schema type"),
        (
            "p = :p AND begins_with(s, :n)",
            a("1"),
            "Incorrect operand type for operator or function; operator or \
                                                   function: begins_with, operand type: N",
        ),
        ("p = :p AND s = :n AND s > :n", a("1"), "Conditions can be of length 1 or 2 only"),
        ("p = :p", a("1"), "unused in expressions: keys: {:n}"),
    ] {
        let (code, message) = bad(&mut client, "Query", query(condition, values, json!({}))).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(words), "{condition}: {message}");
    }
    let filter = json!({"FilterExpression": "s > :n"});
    let (_, message) = bad(&mut client, "Query", query("p = :p", a("1"), filter)).await;
    assert!(message.ends_with("Primary key attribute: s"), "{message}");
}

#[tokio::test]
async fn texts_are_found_by_their_beginnings_and_binaries_by_their_bytes() {
    let lab = a_lab();
    for (kind, values, prefix, found) in [
        ("S", ["a#1", "a#2", "a$", "é"], "a#", vec!["a#1", "a#2"]),
        ("B", ["AP8=", "AP//", "AQ==", "gA=="], "AP8=", vec!["AP8=", "AP//"]),
    ] {
        let mut client = with_table(&lab, kind).await;
        for value in values {
            let item = json!({"p": {"S": "a"}, "s": {kind: value}});
            good(&mut client, "PutItem", json!({"TableName": "tab", "Item": item})).await;
        }
        let query = json!({
            "TableName": "tab", "KeyConditionExpression": "p = :p AND begins_with(s, :s)",
            "ExpressionAttributeValues": {":p": {"S": "a"}, ":s": {kind: prefix}},
        });
        let page = good(&mut client, "Query", query).await;
        let sorts: Vec<&str> =
            page["Items"].as_array().unwrap().iter().map(|i| i["s"][kind].as_str().unwrap()).collect();
        assert_eq!(sorts, found);
        good(&mut client, "DeleteTable", json!({"TableName": "tab"})).await;
    }
}

#[tokio::test]
async fn scans_and_batches_see_every_item_once() {
    let lab = a_lab();
    let mut client = numbered(&lab).await;
    let all = good(&mut client, "Scan", json!({"TableName": "tab"})).await;
    assert_eq!((&all["Count"], all.get("LastEvaluatedKey")), (&json!(8), None));
    let mut seen = 0;
    for segment in 0..3 {
        let part = json!({"TableName": "tab", "Segment": segment, "TotalSegments": 3});
        seen += good(&mut client, "Scan", part).await["Count"].as_u64().unwrap();
    }
    assert_eq!(seen, 8);
    let filtered =
        json!({"TableName": "tab", "FilterExpression": "p = :b", "ExpressionAttributeValues": {":b": {"S": "b"}}});
    assert_eq!(sorts(&good(&mut client, "Scan", filtered).await), ["3"]);
    let key = |p: &str, s: &str| json!({"p": {"S": p}, "s": {"N": s}});
    let get = json!({"RequestItems": {"tab": {"Keys": [key("a", "9"), key("b", "3"), key("b", "4")]}}});
    let got = good(&mut client, "BatchGetItem", get).await;
    assert_eq!((got["Responses"]["tab"].as_array().unwrap().len(), &got["UnprocessedKeys"]), (2, &json!({})));
    let delete = json!({"DeleteRequest": {"Key": key("a", "9")}});
    good(&mut client, "BatchWriteItem", json!({"RequestItems": {"tab": [delete]}})).await;
    let twice = json!({"RequestItems": {"tab": [delete, delete]}});
    let (_, message) = bad(&mut client, "BatchWriteItem", twice).await;
    assert_eq!(message, "Provided list of item keys contains duplicates");
    let many: Vec<Json> = (0..26).map(|n| json!({"DeleteRequest": {"Key": key("z", &n.to_string())}})).collect();
    let (_, message) = bad(&mut client, "BatchWriteItem", json!({"RequestItems": {"tab": many}})).await;
    assert!(message.contains("less than or equal to 25"), "{message}");
}

#[tokio::test]
async fn a_page_ends_at_a_megabyte() {
    let lab = a_lab();
    let mut client = with_table(&lab, "N").await;
    for n in 0..4 {
        let item = json!({"p": {"S": "a"}, "s": {"N": n.to_string()}, "x": {"S": "x".repeat(400_000)}});
        good(&mut client, "PutItem", json!({"TableName": "tab", "Item": item})).await;
    }
    let first = good(&mut client, "Scan", json!({"TableName": "tab"})).await;
    assert_eq!(sorts(&first), ["0", "1", "2"]);
    let second = json!({"TableName": "tab", "ExclusiveStartKey": first["LastEvaluatedKey"]});
    assert_eq!(sorts(&good(&mut client, "Scan", second).await), ["3"]);
}

#[tokio::test]
async fn policies_are_asked_about_the_table() {
    let mut plan = plan(&[("dynamodb", Backend::Builtin)]);
    let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/tab";
    plan.endpoints[0].policy = Policy::Document(json!({"Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "dynamodb:*", "Resource": table},
        {"Effect": "Deny", "Principal": "*", "Action": "dynamodb:Scan", "Resource": "*"},
    ]}));
    let lab = lab(plan);
    let mut client = with_table(&lab, "N").await;
    let denied = |action: &str, resource: &str, why: &str| {
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/web/i-0123 is not authorized to perform: dynamodb:{action} on \
             resource: {resource} {why}"
        )
    };
    let (code, message) = bad(&mut client, "Scan", json!({"TableName": "tab"})).await;
    assert_eq!(code, "AccessDeniedException");
    assert_eq!(message, denied("Scan", table, "with an explicit deny in a VPC endpoint policy"));
    let other = table.replace("tab", "*").replace("*le", "table");
    let (_, message) = bad(&mut client, "ListTables", json!({})).await;
    assert_eq!(
        message,
        denied("ListTables", &other, "because no VPC endpoint policy allows the dynamodb:ListTables action")
    );
    let batch = json!({"RequestItems": {"other": [{"DeleteRequest": {"Key": {"p": {"S": "a"}}}}]}});
    assert_eq!(bad(&mut client, "BatchWriteItem", batch).await.0, "AccessDeniedException");
    let event = lab.services.events().recent()[1].clone();
    assert_eq!((event.action.as_str(), event.resource.as_str()), ("dynamodb:Scan", table));
}

#[tokio::test]
async fn tables_of_the_plan_are_there_with_their_items() {
    let mut plan = plan(&[("dynamodb", Backend::Builtin)]);
    plan.services[0].contents.tables = vec![TablePlan {
        name: "users".into(),
        partition: ("id".into(), 'S'),
        sort: None,
        items: vec![json!({"id": {"S": "ann"}, "age": {"N": "30"}})],
    }];
    let lab = lab(plan);
    let mut client = lab.client("dynamodb").await;
    let get = json!({"TableName": "users", "Key": {"id": {"S": "ann"}}});
    assert_eq!(good(&mut client, "GetItem", get).await["Item"]["age"], json!({"N": "30"}));
}
