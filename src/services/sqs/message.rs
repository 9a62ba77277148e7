//! Messages and the checks that clients make of them: MD5 of body and attributes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use super::invalid_value;
use crate::services::errors::ApiError;
use crate::services::sigv4::hex;

/// Greatest size of a message, and of all messages of a batch, bytes (Amazon SQS Developer Guide, "Message quotas").
pub(super) const MAX_MESSAGE: usize = 1_048_576;

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: String,
    /// By name.
    pub(super) attributes: Vec<(String, Attribute)>,
    pub(super) sender: String,
    pub(super) sent_ms: u64,
    pub(super) first_received_ms: Option<u64>,
    pub(super) receive_count: u32,
    /// When it can be received, milliseconds since 1970.
    pub(super) visible_ms: u64,
    /// Of the newest receipt.
    pub(super) receipt: u64,
    /// FIFO only.
    pub(super) group: Option<String>,
    pub(super) deduplication: Option<String>,
    pub(super) trace_header: Option<String>,
}

/// A message attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// `String`, `Number.int`, `Binary`...
    pub(super) data_type: String,
    pub(super) value: AttributeValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AttributeValue {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    /// Bytes of memory that it takes, about: what SQS counts, the other texts, and places in the queue's indexes.
    pub(super) fn held(&self) -> usize {
        const PLACES: usize = 256;
        let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        self.body.len()
            + size_of_attributes(&self.attributes)
            + text(&self.group)
            + text(&self.deduplication)
            + text(&self.trace_header)
            + self.id.len()
            + self.sender.len()
            + PLACES
    }
}

/// Body and attributes as SQS counts them.
pub(super) fn size_of_attributes(attributes: &[(String, Attribute)]) -> usize {
    let one = |(name, a): &(String, Attribute)| {
        let value = match &a.value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Binary(bytes) => bytes.len(),
        };
        name.len() + a.data_type.len() + value
    };
    attributes.iter().map(one).sum()
}

/// Reads `MessageAttributes`, sorted by name.
///
/// # Errors
/// `InvalidParameterValue` where a type or value is missing or malformed.
pub(super) fn read_attributes(given: Option<&Value>) -> Result<Vec<(String, Attribute)>, ApiError> {
    let Some(Value::Object(given)) = given else { return Ok(Vec::new()) };
    if given.len() > 10 {
        return Err(invalid_value(&format!(
            "Number of message attributes [{}] exceeds the allowed maximum [10].",
            given.len()
        )));
    }
    let mut attributes = Vec::with_capacity(given.len());
    for (name, value) in given {
        attributes.push((name.clone(), read_attribute(name, value)?));
    }
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(attributes)
}

fn read_attribute(name: &str, value: &Value) -> Result<Attribute, ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > 256 || !name.chars().all(fits) || name.to_ascii_lowercase().starts_with("aws.") {
        return Err(invalid_value(&format!("The message attribute name '{name}' is invalid.")));
    }
    let data_type = value.get("DataType").and_then(Value::as_str).unwrap_or("");
    let kind = data_type.split('.').next().unwrap_or("");
    let missing = || {
        invalid_value(&format!(
            "The message attribute '{name}' must contain non-empty message attribute value for message attribute type \
             '{data_type}'."
        ))
    };
    let text = value.get("StringValue").and_then(Value::as_str).filter(|t| !t.is_empty());
    let value = match kind {
        "String" => AttributeValue::Text(text.ok_or_else(missing)?.to_owned()),
        "Number" => {
            let text = text.ok_or_else(missing)?;
            if text.trim().parse::<f64>().is_err() {
                return Err(invalid_value(&format!("Could not cast message attribute '{name}' value to number.")));
            }
            AttributeValue::Text(text.to_owned())
        }
        "Binary" => {
            let encoded = value.get("BinaryValue").and_then(Value::as_str).filter(|t| !t.is_empty());
            let bytes = STANDARD.decode(encoded.ok_or_else(missing)?);
            AttributeValue::Binary(bytes.map_err(|_| missing())?)
        }
        "" => {
            return Err(invalid_value(&format!(
                "The message attribute '{name}' must contain a message attribute type."
            )));
        }
        _ => {
            return Err(invalid_value(&format!(
                "The message attribute '{name}' has an invalid message attribute type, the set of supported type \
                 prefixes is Binary, Number, and String."
            )));
        }
    };
    Ok(Attribute { data_type: data_type.to_owned(), value })
}

/// Back into the form of the protocol.
pub(super) fn write_attribute(attribute: &Attribute) -> Value {
    match &attribute.value {
        AttributeValue::Text(text) => json!({ "StringValue": text, "DataType": attribute.data_type }),
        AttributeValue::Binary(bytes) => {
            json!({ "BinaryValue": STANDARD.encode(bytes), "DataType": attribute.data_type })
        }
    }
}

/// Those of a message's attributes that a receiver asked for: names, `prefix.*`, `All`.
pub(super) fn select<'a>(attributes: &'a [(String, Attribute)], wanted: &[String]) -> Vec<&'a (String, Attribute)> {
    let asked = |name: &str| {
        wanted.iter().any(|w| match w.strip_suffix(".*") {
            Some(prefix) => name.starts_with(prefix),
            None => w == "All" || w == ".*" || w == name,
        })
    };
    attributes.iter().filter(|(name, _)| asked(name)).collect()
}

/// Hexadecimal MD5 of a body.
pub(super) fn md5_of_body(body: &str) -> String {
    hex(&Md5::digest(body.as_bytes()))
}

/// Hexadecimal MD5 of attributes sorted by name (Amazon SQS Developer Guide, "Calculating the MD5 message digest for
/// message attributes"). `None` without attributes.
pub(super) fn md5_of_attributes<'a>(attributes: impl IntoIterator<Item = &'a (String, Attribute)>) -> Option<String> {
    let mut digest = Md5::new();
    let mut any = false;
    let part = |digest: &mut Md5, bytes: &[u8]| {
        digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(bytes);
    };
    for (name, attribute) in attributes {
        any = true;
        part(&mut digest, name.as_bytes());
        part(&mut digest, attribute.data_type.as_bytes());
        match &attribute.value {
            AttributeValue::Text(text) => {
                digest.update([1]);
                part(&mut digest, text.as_bytes());
            }
            AttributeValue::Binary(bytes) => {
                digest.update([2]);
                part(&mut digest, bytes);
            }
        }
    }
    any.then(|| hex(&digest.finalize()))
}

/// A received message as the JSON protocol has it.
pub(super) fn received(message: &Message, seq: u64, handle: String, system: &[String], wanted: &[String]) -> Value {
    let mut out = Map::new();
    out.insert("MessageId".into(), message.id.clone().into());
    out.insert("ReceiptHandle".into(), handle.into());
    out.insert("MD5OfBody".into(), md5_of_body(&message.body).into());
    out.insert("Body".into(), message.body.clone().into());
    let all: [(&str, Option<String>); 8] = [
        ("SenderId", Some(message.sender.clone())),
        ("ApproximateFirstReceiveTimestamp", message.first_received_ms.map(|t| t.to_string())),
        ("ApproximateReceiveCount", Some(message.receive_count.to_string())),
        ("SentTimestamp", Some(message.sent_ms.to_string())),
        ("SequenceNumber", message.group.as_ref().map(|_| sequence_number(seq))),
        ("MessageGroupId", message.group.clone()),
        ("MessageDeduplicationId", message.deduplication.clone()),
        ("AWSTraceHeader", message.trace_header.clone()),
    ];
    let asked = |name: &str| system.iter().any(|s| s == "All" || s == name);
    let shown: Map<String, Value> =
        all.into_iter().filter(|(n, _)| asked(n)).filter_map(|(n, v)| Some((n.to_owned(), v?.into()))).collect();
    if !shown.is_empty() {
        out.insert("Attributes".into(), shown.into());
    }
    let selected = select(&message.attributes, wanted);
    if let Some(md5) = md5_of_attributes(selected.iter().copied()) {
        out.insert("MD5OfMessageAttributes".into(), md5.into());
        let map: Map<String, Value> = selected.iter().map(|(n, a)| (n.clone(), write_attribute(a))).collect();
        out.insert("MessageAttributes".into(), map.into());
    }
    out.into()
}

/// 20 digits that grow with every message of a FIFO queue.
pub(super) fn sequence_number(seq: u64) -> String {
    format!("{:020}", 10_000_000_000_000_000_000_u64.saturating_add(seq.saturating_mul(256)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected digests were computed by an independent program after the guide's recipe.
    #[test]
    fn md5_of_attributes_is_the_guides() {
        let given = json!({
            "b": {"DataType": "Binary", "BinaryValue": "AAEC"},
            "a": {"DataType": "String", "StringValue": "x"},
            "n": {"DataType": "Number.int", "StringValue": "42"},
        });
        let attributes = read_attributes(Some(&given)).unwrap();
        assert_eq!(attributes.iter().map(|a| a.0.as_str()).collect::<Vec<_>>(), ["a", "b", "n"]);
        assert_eq!(md5_of_attributes(&attributes).unwrap(), "8b69d5c07de5ef004dc151724bb3d256");
        assert_eq!(md5_of_attributes(select(&attributes, &["a".into()])).unwrap(), "a512aac9938034acb0b3c3d965944bf1");
        assert_eq!(md5_of_attributes(select(&attributes, &[])), None);
        assert_eq!(md5_of_body("hello"), "5d41402abc4b2a76b9719d911017c592");
    }

    #[test]
    fn attributes_without_type_or_value_are_refused() {
        for bad in [
            json!({"a": {"StringValue": "x"}}),
            json!({"a": {"DataType": "String"}}),
            json!({"a": {"DataType": "Number", "StringValue": "x"}}),
            json!({"a": {"DataType": "Blob", "StringValue": "x"}}),
            json!({"aws.x": {"DataType": "String", "StringValue": "x"}}),
        ] {
            assert!(read_attributes(Some(&bad)).is_err(), "{bad}");
        }
    }
}
