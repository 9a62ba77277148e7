//! Attributes of queues: names, ranges, defaults, and what FIFO adds.

use std::collections::BTreeMap;

use serde_json::Value;

use super::queue::Queue;
use super::{Object, invalid_value, missing, text_in};
use crate::services::errors::ApiError;
use crate::services::sigv4::sha256_hex;

/// What a new queue has (SQS API Reference, CreateQueue).
pub(super) fn defaults(fifo: bool) -> BTreeMap<String, String> {
    let mut attributes: BTreeMap<String, String> = [
        ("VisibilityTimeout", "30"),
        ("MaximumMessageSize", "1048576"),
        ("MessageRetentionPeriod", "345600"),
        ("DelaySeconds", "0"),
        ("ReceiveMessageWaitTimeSeconds", "0"),
        ("SqsManagedSseEnabled", "true"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    if fifo {
        for (name, value) in [
            ("FifoQueue", "true"),
            ("ContentBasedDeduplication", "false"),
            ("DeduplicationScope", "queue"),
            ("FifoThroughputLimit", "perQueue"),
        ] {
            attributes.insert(name.into(), value.into());
        }
    }
    attributes
}

/// Numeric attributes and their ranges (SQS API Reference, SetQueueAttributes).
const RANGES: [(&str, u64, u64); 5] = [
    ("DelaySeconds", 0, 900),
    ("MaximumMessageSize", 1_024, 1_048_576),
    ("MessageRetentionPeriod", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", 0, 20),
    ("VisibilityTimeout", 0, 43_200),
];

const SETTABLE: [&str; 10] = [
    "Policy",
    "RedrivePolicy",
    "RedriveAllowPolicy",
    "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds",
    "SqsManagedSseEnabled",
    "FifoQueue",
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "FifoThroughputLimit",
];

const FIFO_ONLY: [&str; 4] = ["FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"];

const COMPUTED: [&str; 6] = [
    "QueueArn",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
];

/// Whether SQS knows an attribute of this name.
pub(super) fn known_attribute(name: &str) -> bool {
    RANGES.iter().any(|(n, ..)| *n == name) || SETTABLE.contains(&name) || COMPUTED.contains(&name)
}

/// # Errors
/// `InvalidAttributeName`, `InvalidAttributeValue`.
pub(super) fn check_attributes(given: &BTreeMap<String, String>, fifo: bool, creating: bool) -> Result<(), ApiError> {
    let wrong = |name: &str| {
        ApiError::bad("InvalidAttributeValue", format!("Invalid value for the parameter {name}."))
            .shape("com.amazonaws.sqs#InvalidAttributeValue")
    };
    let unknown = |name: &str| {
        ApiError::bad("InvalidAttributeName", format!("Unknown Attribute {name}."))
            .shape("com.amazonaws.sqs#InvalidAttributeName")
    };
    for (name, value) in given {
        if let Some((_, least, most)) = RANGES.iter().find(|(n, ..)| n == name) {
            value.parse().ok().filter(|v: &u64| (*least..=*most).contains(v)).ok_or_else(|| wrong(name))?;
        } else if !SETTABLE.contains(&name.as_str()) || (FIFO_ONLY.contains(&name.as_str()) && !fifo) {
            return Err(unknown(name));
        } else if (name == "FifoQueue" && (!creating || value != "true"))
            || (name == "RedrivePolicy" && !value.is_empty() && redrive(given).is_none())
        {
            return Err(wrong(name));
        } else if name == "Policy" && !value.is_empty() {
            return Err(ApiError::bad("InvalidAttributeValue", "Queue policies are not in this version of vpclab.")
                .shape("com.amazonaws.sqs#InvalidAttributeValue"));
        }
    }
    if creating && fifo && given.get("FifoQueue").is_none_or(|v| v != "true") {
        // Clients must say that they mean it.
        return Err(invalid_value("The queue name must not end with .fifo unless the attribute FifoQueue is true."));
    }
    Ok(())
}

/// # Errors
/// `InvalidParameterValue`.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let stem = name.strip_suffix(".fifo").unwrap_or(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if stem.is_empty() || name.len() > 80 || !stem.chars().all(fits) {
        return Err(invalid_value(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        ));
    }
    Ok(())
}

/// Group and deduplication id of a message to a FIFO queue.
pub(super) type FifoFields = (Option<String>, Option<String>);

/// # Errors
/// Where the kind of queue and the fields disagree.
pub(super) fn fifo_fields(
    queue: &Queue,
    attributes: &BTreeMap<String, String>,
    entry: &Object,
    body: &str,
    delay: Option<u64>,
) -> Result<FifoFields, ApiError> {
    let group = text_in(entry, "MessageGroupId").filter(|g| !g.is_empty());
    let given = text_in(entry, "MessageDeduplicationId").filter(|d| !d.is_empty());
    for (name, id) in [("MessageGroupId", group), ("MessageDeduplicationId", given)] {
        // SQS API Reference, SendMessage: 1 to 128 letters, digits and punctuation.
        if id.is_some_and(|id| id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(invalid_value(&format!(
                "The parameter {name} can only include alphanumeric and punctuation characters. 1 to 128 in length"
            )));
        }
    }
    if !queue.fifo() {
        return match given {
            Some(_) => Err(invalid_value(
                "The request includes a parameter that is not valid for this queue type. Reason: \
                 MessageDeduplicationId is for FIFO queues.",
            )),
            // Standard queues take a group for fair queueing; it orders nothing.
            None => Ok((None, None)),
        };
    }
    let Some(group) = group else { return Err(missing("MessageGroupId")) };
    if delay.is_some_and(|d| d > 0) {
        return Err(invalid_value(
            "Value for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for \
             this queue type.",
        ));
    }
    let by_content = attributes.get("ContentBasedDeduplication").is_some_and(|v| v == "true");
    let deduplication = match given {
        Some(id) => id.to_owned(),
        None if by_content => sha256_hex(body.as_bytes()),
        None => {
            return Err(invalid_value(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided \
                 explicitly",
            ));
        }
    };
    Ok((Some(group.to_owned()), Some(deduplication)))
}

/// Target and greatest number of receives of a redrive policy.
pub(super) fn redrive(attributes: &BTreeMap<String, String>) -> Option<(String, u32)> {
    let policy: Value = serde_json::from_str(attributes.get("RedrivePolicy")?).ok()?;
    let count = policy.get("maxReceiveCount")?;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((policy.get("deadLetterTargetArn")?.as_str()?.to_owned(), u32::try_from(count).ok()?))
}
