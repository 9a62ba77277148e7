//! The query protocol of SQS, as older clients speak it, put into the terms of the JSON one and back.

use serde_json::{Map, Value};

use super::super::rpc::Params;
use super::super::xml::Xml;

/// Parameters of the JSON protocol from a form.
pub(super) fn input(params: &Params, path: &str) -> Map<String, Value> {
    let mut input = fields(params);
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty {
            input.insert(name.to_owned(), value);
        }
    };
    put("Attributes", pairs(params, "Attribute", "Name", "Value"));
    put("tags", pairs(params, "Tag", "Key", "Value"));
    put("Tags", pairs(params, "Tag", "Key", "Value"));
    for (form, json) in [
        ("AttributeName", "AttributeNames"),
        ("MessageAttributeName", "MessageAttributeNames"),
        ("MessageSystemAttributeName", "MessageSystemAttributeNames"),
        ("TagKey", "TagKeys"),
    ] {
        put(json, params.values(form).into());
    }
    for form in
        ["SendMessageBatchRequestEntry", "DeleteMessageBatchRequestEntry", "ChangeMessageVisibilityBatchRequestEntry"]
    {
        let entries: Vec<Value> = params.list(form).iter().map(|entry| Value::Object(fields(entry))).collect();
        put("Entries", entries.into());
    }
    // The queue may also be named by the path that the request goes to.
    if !input.contains_key("QueueUrl") && path.len() > 1 {
        input.insert("QueueUrl".into(), path.into());
    }
    input
}

/// The result of `action` as elements.
pub(super) fn output(xml: &mut Xml, output: &Map<String, Value>) {
    for (name, value) in output {
        match (name.as_str(), value) {
            ("Attributes", Value::Object(map)) => {
                for (name, value) in map {
                    xml.open("Attribute").leaf("Name", name).leaf("Value", &text(value)).close("Attribute");
                }
            }
            ("Tags", Value::Object(map)) => {
                for (name, value) in map {
                    xml.open("Tag").leaf("Key", name).leaf("Value", &text(value)).close("Tag");
                }
            }
            ("MessageAttributes", Value::Object(map)) => {
                for (name, value) in map {
                    xml.open("MessageAttribute").leaf("Name", name).open("Value");
                    for (field, value) in value.as_object().into_iter().flatten() {
                        xml.leaf(field, &text(value));
                    }
                    xml.close("Value").close("MessageAttribute");
                }
            }
            (_, Value::Array(list)) => {
                let element = match name.as_str() {
                    "Messages" => "Message",
                    "QueueUrls" | "queueUrls" => "QueueUrl",
                    "Failed" => "BatchResultErrorEntry",
                    other => other,
                };
                for entry in list {
                    match entry {
                        Value::Object(map) => {
                            xml.open(element);
                            self::output(xml, map);
                            xml.close(element);
                        }
                        other => {
                            xml.leaf(element, &text(other));
                        }
                    }
                }
            }
            (name, value) => {
                xml.leaf(name, &text(value));
            }
        }
    }
}

/// The element that the successes of a batch action stand in.
pub(super) fn success_element(action: &str) -> String {
    format!("{action}ResultEntry")
}

const PLAIN: [&str; 20] = [
    "QueueName",
    "QueueUrl",
    "QueueOwnerAWSAccountId",
    "QueueNamePrefix",
    "MaxResults",
    "NextToken",
    "MessageBody",
    "DelaySeconds",
    "MessageGroupId",
    "MessageDeduplicationId",
    "MaxNumberOfMessages",
    "VisibilityTimeout",
    "WaitTimeSeconds",
    "ReceiveRequestAttemptId",
    "ReceiptHandle",
    "Id",
    "Label",
    "SourceArn",
    "DestinationArn",
    "TaskHandle",
];

fn fields(params: &Params) -> Map<String, Value> {
    let mut fields: Map<String, Value> =
        PLAIN.iter().filter_map(|name| Some(((*name).to_owned(), params.get(name)?.into()))).collect();
    for (form, json) in
        [("MessageAttribute", "MessageAttributes"), ("MessageSystemAttribute", "MessageSystemAttributes")]
    {
        let mut attributes = Map::new();
        for entry in params.list(form) {
            let value = ["DataType", "StringValue", "BinaryValue"]
                .into_iter()
                .filter_map(|field| Some((field.to_owned(), Value::from(entry.get(&format!("Value.{field}"))?))));
            attributes.insert(entry.text("Name"), Value::Object(value.collect()));
        }
        if !attributes.is_empty() {
            fields.insert(json.into(), attributes.into());
        }
    }
    fields
}

fn pairs(params: &Params, prefix: &str, key: &str, value: &str) -> Value {
    let list = params.list(prefix);
    Value::Object(list.iter().map(|entry| (entry.text(key), entry.text(value).into())).collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
