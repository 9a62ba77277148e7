//! What the query protocol and AWS JSON share: finding the action and its parameters.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Map, Value};

use super::errors::{ApiError, Dialect};
use super::http_types::{Response, respond};
use super::xml::Xml;

/// Longest body of a request to the built-in services of these protocols, bytes: a batch of SQS is 1 MiB, and form
/// encoding may treble it.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;

/// Parameters of the query protocol: `Attribute.1.Name` and its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// From the form in the body, or from the URL.
    pub(super) fn of(head: &Parts, body: &Bytes) -> Params {
        let query = head.uri.query().unwrap_or("").as_bytes();
        let both = form_urlencoded::parse(query).chain(form_urlencoded::parse(body));
        Params(both.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or("").to_owned()
    }

    /// The parameters below `prefix.`, without it. A value that stands at the prefix itself has the name "".
    pub(super) fn below(&self, prefix: &str) -> Params {
        let dotted = format!("{prefix}.");
        let mut found: BTreeMap<String, String> = self
            .0
            .range(dotted.clone()..)
            .take_while(|(name, _)| name.starts_with(&dotted))
            .map(|(name, value)| (name[dotted.len()..].to_owned(), value.clone()))
            .collect();
        if let Some(own) = self.get(prefix) {
            found.insert(String::new(), own.to_owned());
        }
        Params(found)
    }

    /// The entries of a list, `prefix.1...`, `prefix.2...`, by number.
    pub(super) fn list(&self, prefix: &str) -> Vec<Params> {
        let below = self.below(prefix);
        let numbers: BTreeSet<u32> =
            below.0.keys().filter_map(|name| name.split('.').next()?.parse::<u32>().ok()).collect();
        numbers.into_iter().map(|n| below.below(&n.to_string())).collect()
    }

    /// The entries of a list of plain values.
    pub(super) fn values(&self, prefix: &str) -> Vec<String> {
        self.list(prefix).into_iter().map(|entry| entry.text("")).collect()
    }
}

/// `AmazonSQS.SendMessage` in `X-Amz-Target`: the action, if the prefix is the service's.
pub(super) fn json_action<'a>(head: &'a Parts, prefix: &str) -> Option<&'a str> {
    let target = head.headers.get("x-amz-target")?.to_str().ok()?;
    target.strip_prefix(prefix)?.strip_prefix('.')
}

/// The object in a JSON body; an empty body is an empty object.
///
/// # Errors
/// `SerializationException`.
pub(super) fn json_body(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) | Err(_) => {
            Err(ApiError::bad("SerializationException", "The request body is not a JSON object of the expected form."))
        }
    }
}

/// Answer of the JSON protocols.
pub(super) fn json_answer(version: &str, body: &Value) -> Response {
    let content_type = if version == "1.0" { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
    respond(StatusCode::OK, content_type, body.to_string())
}

/// Answer of the query protocol: `<XResponse><XResult>...</XResult><ResponseMetadata>`. `write` fills the result;
/// `None` for actions without one.
pub(super) fn query_answer(
    namespace: &str,
    action: &str,
    request_id: &str,
    write: Option<&mut dyn FnMut(&mut Xml)>,
) -> Response {
    let (outer, result) = (format!("{action}Response"), format!("{action}Result"));
    let mut xml = Xml::with_declaration();
    xml.open_ns(&outer, namespace);
    if let Some(write) = write {
        xml.open(&result);
        write(&mut xml);
        xml.close(&result);
    }
    xml.open("ResponseMetadata").leaf("RequestId", request_id).close("ResponseMetadata").close(&outer);
    respond(StatusCode::OK, "text/xml", xml.finish())
}

/// The protocol's own error for an action that the service does not have.
pub(super) fn unknown_action(dialect: Dialect, action: &str, version: &str) -> ApiError {
    match dialect {
        Dialect::Query { .. } | Dialect::Ec2 => {
            ApiError::bad("InvalidAction", format!("Could not find operation {action} for version {version}"))
        }
        Dialect::QueryCompatibleJson => {
            ApiError::bad("InvalidAction", format!("The action {action} is not valid for this endpoint."))
                .shape("com.amazon.coral.service#UnknownOperationException")
        }
        _ => ApiError::bad("UnknownOperationException", format!("The operation {action} is not known.")),
    }
}

/// Splits `arn:aws:SERVICE:REGION:ACCOUNT:REST`.
pub(super) fn parse_arn<'a>(arn: &'a str, service: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut parts = arn.splitn(6, ':');
    let (head, _partition, of) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, rest) = (parts.next()?, parts.next()?, parts.next()?);
    (head == "arn" && of == service && !rest.is_empty()).then_some((region, account, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_by_number_and_nest() {
        let body = Bytes::from_static(
            b"Action=X&E.2.Id=b&E.10.Id=c&E.1.Id=a&E.1.A.1.Name=n&E.1.A.1.Value.DataType=String&K.1=one&K.2=two",
        );
        let (head, ()) = http::Request::builder().uri("/?Version=1").body(()).unwrap().into_parts();
        let params = Params::of(&head, &body);
        assert_eq!(params.get("Version"), Some("1"));
        let entries = params.list("E");
        assert_eq!(entries.iter().map(|e| e.text("Id")).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(entries[0].list("A")[0].get("Value.DataType"), Some("String"));
        assert_eq!(params.values("K"), ["one", "two"]);
        assert!(params.list("None").is_empty());
    }

    #[test]
    fn arns_are_taken_apart() {
        assert_eq!(parse_arn("arn:aws:sns:eu-west-1:1:t:u", "sns"), Some(("eu-west-1", "1", "t:u")));
        assert_eq!(parse_arn("arn:aws:sqs:eu-west-1:1:t", "sns"), None);
        assert_eq!(parse_arn("t", "sns"), None);
    }
}
