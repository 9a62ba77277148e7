//! Query and Scan: pages of items in the order of their keys.

use std::ops::Bound;

use serde_json::Value as Json;

use super::evaluate::{attributes, holds};
use super::expression::{self, Comparison, Condition, Operand, Path, Placeholders};
use super::items::{read_units, shown};
use super::table::{Entry, EntryKey, Key, Schema, Table};
use super::value::{Item, Value, item_json, read_item};
use super::{Call, Object, invalid, invalid_parameter, no_such_table, object, validation};
use crate::services::errors::ApiError;

/// Bytes of the items that a page looks at (Amazon DynamoDB Developer Guide, "Paginating table query results").
const MAX_PAGE: usize = 1024 * 1024;
/// Segments of a parallel scan (DynamoDB API Reference, Scan).
const MAX_SEGMENTS: u64 = 1_000_000;

const SHARED: &[&str] = &[
    "TableName",
    "Limit",
    "ExclusiveStartKey",
    "FilterExpression",
    "ProjectionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "Select",
    "ConsistentRead",
    "ReturnConsumedCapacity",
];

/// What a page is made of.
struct Reading {
    filter: Option<Condition>,
    projection: Option<Vec<Path>>,
    limit: Option<u64>,
    start: Option<Item>,
    count_only: bool,
}

impl Call<'_> {
    pub(super) fn query(&self) -> Result<Object, ApiError> {
        self.only(&[SHARED, &["KeyConditionExpression", "ScanIndexForward"]].concat())?;
        let (place, name) = self.target("Query")?;
        let places = Placeholders::read(self.input)?;
        let text = self.text("KeyConditionExpression").ok_or_else(|| {
            invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
        })?;
        let condition = expression::condition("KeyConditionExpression", text, &places)?;
        let reading = self.reading(&places)?;
        let forward = self.input.get("ScanIndexForward").and_then(Json::as_bool).unwrap_or(true);
        let mut tables = self.service.store.lock();
        let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        let schema = &table.schema;
        if let Some(filter) = &reading.filter {
            let mut named = Vec::new();
            attributes(filter, &mut named);
            if let Some(key) = named.into_iter().find(|n| schema.is_key(n)) {
                return Err(invalid(&format!(
                    "Filter Expression can only contain non-primary key attributes: Primary key attribute: {key}"
                )));
            }
        }
        let (mut from, mut to) = key_range(&condition, schema)?;
        if let Some(start) = &reading.start {
            let start = start_key(schema, start)?;
            let inside = |bound: &Bound<EntryKey>| match bound {
                Bound::Included(key) | Bound::Excluded(key) => key.0 == start.0,
                Bound::Unbounded => true,
            };
            if !inside(&from) {
                return Err(invalid(
                    "The provided starting key is outside query boundaries based on provided conditions",
                ));
            }
            *if forward { &mut from } else { &mut to } = Bound::Excluded(start);
        }
        let entries = table.range(from, to, forward);
        self.page(table, entries, &reading)
    }

    pub(super) fn scan(&self) -> Result<Object, ApiError> {
        self.only(&[SHARED, &["Segment", "TotalSegments"]].concat())?;
        let (place, name) = self.target("Scan")?;
        let places = Placeholders::read(self.input)?;
        let reading = self.reading(&places)?;
        let segment = self.segment()?;
        let mut tables = self.service.store.lock();
        let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        let from = match &reading.start {
            Some(start) => Bound::Excluded(start_key(&table.schema, start)?),
            None => Bound::Unbounded,
        };
        let entries = table.range(from, Bound::Unbounded, true);
        let entries = entries.filter(|((partition, _), _)| segment.is_none_or(|(at, of)| spread(partition) % of == at));
        self.page(table, entries, &reading)
    }

    fn reading(&self, places: &Placeholders) -> Result<Reading, ApiError> {
        let filter = self.text("FilterExpression");
        let filter = filter.map(|text| expression::condition("FilterExpression", text, places)).transpose()?;
        let projection = self.projection(places)?;
        places.all_used("FilterExpression")?;
        let all = ["SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"];
        let default = if projection.is_some() { "SPECIFIC_ATTRIBUTES" } else { "ALL_ATTRIBUTES" };
        let select = self.one_of("Select", &all, default)?;
        match (select, &projection) {
            ("ALL_PROJECTED_ATTRIBUTES", _) => {
                return Err(invalid_parameter(
                    "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
                ));
            }
            ("SPECIFIC_ATTRIBUTES", None) => {
                return Err(invalid_parameter(
                    "Must specify the AttributesToGet or ProjectionExpression when choosing to \
                                              get SPECIFIC_ATTRIBUTES",
                ));
            }
            ("COUNT" | "ALL_ATTRIBUTES", Some(_)) => {
                let what = if select == "COUNT" { "only the Count" } else { "ALL_ATTRIBUTES" };
                return Err(invalid(&format!("Cannot specify the ProjectionExpression when choosing to get {what}")));
            }
            _ => {}
        }
        let start = self.input.get("ExclusiveStartKey").filter(|v| !v.is_null()).map(read_item).transpose()?;
        let limit = self.limit(u64::MAX)?;
        Ok(Reading { filter, projection, limit, start, count_only: select == "COUNT" })
    }

    /// `Segment` and `TotalSegments`.
    fn segment(&self) -> Result<Option<(u64, u64)>, ApiError> {
        let number = |key: &str| self.input.get(key).filter(|v| !v.is_null());
        match (number("Segment"), number("TotalSegments")) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(invalid(
                "The Segment parameter is required but was not present in the request when parameter TotalSegments is \
                 present",
            )),
            (Some(_), None) => Err(invalid(
                "The TotalSegments parameter is required but was not present in the request when Segment parameter is \
                 present",
            )),
            (Some(at), Some(of)) => match (at.as_u64(), of.as_u64()) {
                (Some(at), Some(of)) if (1..=MAX_SEGMENTS).contains(&of) && at < of => Ok(Some((at, of))),
                (Some(at), Some(of)) if (1..=MAX_SEGMENTS).contains(&of) => Err(invalid(&format!(
                    "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: {at} \
                     is not less than TotalSegments: {of}"
                ))),
                _ => Err(validation(&format!(
                    "Value '{of}' at 'totalSegments' failed to satisfy constraint: Member must have value between 1 and \
                     {MAX_SEGMENTS}"
                ))),
            },
        }
    }

    fn page<'t>(
        &self,
        table: &Table,
        entries: impl Iterator<Item = (&'t EntryKey, &'t Entry)>,
        reading: &Reading,
    ) -> Result<Object, ApiError> {
        let (mut items, mut count, mut scanned, mut bytes) = (Vec::new(), 0u64, 0u64, 0);
        let mut last = None;
        for (_, entry) in entries {
            scanned += 1;
            bytes += entry.size;
            if reading.filter.as_ref().is_none_or(|f| holds(f, &entry.item)) {
                count += 1;
                if !reading.count_only {
                    items.push(Json::Object(shown(&entry.item, reading.projection.as_deref())));
                }
            }
            // A page that ends here says so, even if nothing follows.
            if reading.limit.is_some_and(|limit| scanned >= limit) || bytes >= MAX_PAGE {
                last = Some(table.schema.only_key(&entry.item));
                break;
            }
        }
        let mut out = Object::new();
        if !reading.count_only {
            out.insert("Items".into(), items.into());
        }
        out.extend(object([("Count", count.into()), ("ScannedCount", scanned.into())]));
        out.extend(last.map(|key| ("LastEvaluatedKey".to_owned(), Json::Object(item_json(&key)))));
        out.extend(self.capacity(&table.name, read_units(bytes, self.consistent()))?);
        Ok(out)
    }
}

/// The entries that a key condition means.
fn key_range(condition: &Condition, schema: &Schema) -> Result<(Bound<EntryKey>, Bound<EntryKey>), ApiError> {
    let mut parts = Vec::new();
    conjuncts(condition, &mut parts)?;
    if parts.len() > 2 {
        return Err(invalid("Conditions can be of length 1 or 2 only"));
    }
    let (mut partition, mut sort) = (None, None);
    for part in parts {
        let name = part.path.top();
        if part.path.0.len() > 1 {
            return Err(invalid(
                "Invalid KeyConditionExpression: KeyConditionExpressions cannot have conditions on nested attributes",
            ));
        }
        let (attribute, taken) = match &schema.sort {
            _ if name == schema.partition.name => (&schema.partition, &mut partition),
            Some(attribute) if name == attribute.name => (attribute, &mut sort),
            _ => {
                let missed = if partition.is_none() { Some(&schema.partition) } else { schema.sort.as_ref() };
                return Err(match missed {
                    Some(missed) => invalid(&format!("Query condition missed key schema element: {}", missed.name)),
                    None => invalid("Query key condition not supported"),
                });
            }
        };
        if taken.is_some() {
            return Err(invalid(
                "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key",
            ));
        }
        let mut keys = Vec::new();
        for value in &part.values {
            if value.kind() != attribute.kind {
                return Err(invalid_parameter("Condition parameter type does not match schema type"));
            }
            if matches!(value, Value::Text(t) if t.is_empty()) || matches!(value, Value::Binary(b) if b.is_empty()) {
                let kind = if attribute.kind == "B" { "binary" } else { "string" };
                return Err(invalid(&format!(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain \
                     an empty {kind} value. Key: {name}"
                )));
            }
            keys.extend(Key::of(value));
        }
        *taken = Some((part.test, keys));
    }
    let Some((test, mut keys)) = partition else {
        return Err(invalid(&format!("Query condition missed key schema element: {}", schema.partition.name)));
    };
    let (Test::Compare(Comparison::Equal), Some(partition)) = (test, keys.pop()) else {
        return Err(invalid("Query key condition not supported"));
    };
    let at = |key: Key| (partition.clone(), key);
    let (first, last) = (Bound::Included(at(Key::First)), Bound::Included(at(Key::Last)));
    let Some((test, keys)) = sort else { return Ok((first, last)) };
    Ok(match (test, &keys[..]) {
        (Test::Compare(Comparison::Equal), [key]) => {
            (Bound::Included(at(key.clone())), Bound::Included(at(key.clone())))
        }
        (Test::Compare(Comparison::Less), [key]) => (first, Bound::Excluded(at(key.clone()))),
        (Test::Compare(Comparison::LessOrEqual), [key]) => (first, Bound::Included(at(key.clone()))),
        (Test::Compare(Comparison::Greater), [key]) => (Bound::Excluded(at(key.clone())), last),
        (Test::Compare(Comparison::GreaterOrEqual), [key]) => (Bound::Included(at(key.clone())), last),
        (Test::Between, [low, high]) => (Bound::Included(at(low.clone())), Bound::Included(at(high.clone()))),
        (Test::BeginsWith, [prefix]) => {
            (Bound::Included(at(prefix.clone())), Bound::Excluded(at(prefix.after_prefix())))
        }
        _ => return Err(invalid("Query key condition not supported")),
    })
}

/// One condition of a key condition.
struct Part<'a> {
    path: &'a Path,
    test: Test,
    values: Vec<&'a Value>,
}

#[derive(Clone, Copy)]
enum Test {
    Compare(Comparison),
    Between,
    BeginsWith,
}

fn conjuncts<'a>(condition: &'a Condition, found: &mut Vec<Part<'a>>) -> Result<(), ApiError> {
    let wrong = |operator: &str| Err(invalid(&format!("Invalid operator used in KeyConditionExpression: {operator}")));
    let no_value = || {
        invalid(
            "Invalid KeyConditionExpression: Invalid condition in KeyConditionExpression: No key attribute \
                               specified",
        )
    };
    let part = match condition {
        Condition::And(a, b) => {
            conjuncts(a, found)?;
            return conjuncts(b, found);
        }
        Condition::Compare(comparison, Operand::Path(path), Operand::Value(value)) => {
            Part { path, test: Test::Compare(*comparison), values: vec![value] }
        }
        Condition::Compare(comparison, Operand::Value(value), Operand::Path(path)) => {
            let turned = match comparison {
                Comparison::Less => Comparison::Greater,
                Comparison::LessOrEqual => Comparison::GreaterOrEqual,
                Comparison::Greater => Comparison::Less,
                Comparison::GreaterOrEqual => Comparison::LessOrEqual,
                same => *same,
            };
            Part { path, test: Test::Compare(turned), values: vec![value] }
        }
        Condition::Between(Operand::Path(path), Operand::Value(low), Operand::Value(high)) => {
            Part { path, test: Test::Between, values: vec![low, high] }
        }
        Condition::BeginsWith(Operand::Path(path), Operand::Value(prefix)) => {
            Part { path, test: Test::BeginsWith, values: vec![prefix] }
        }
        Condition::Or(..) => return wrong("OR"),
        Condition::Not(_) => return wrong("NOT"),
        Condition::In(..) => return wrong("IN"),
        Condition::Exists(_) => return wrong("attribute_exists"),
        Condition::NotExists(_) => return wrong("attribute_not_exists"),
        Condition::IsType(..) => return wrong("attribute_type"),
        Condition::Contains(..) => return wrong("contains"),
        Condition::Compare(_, Operand::Size(_), _) | Condition::Compare(_, _, Operand::Size(_)) => {
            return wrong("size");
        }
        Condition::Compare(..) | Condition::Between(..) | Condition::BeginsWith(..) => return Err(no_value()),
    };
    if let Test::Compare(Comparison::NotEqual) = part.test {
        return wrong("<>");
    }
    found.push(part);
    Ok(())
}

fn start_key(schema: &Schema, start: &Item) -> Result<EntryKey, ApiError> {
    schema.key_of(start).map_err(|_| {
        invalid("The provided starting key is invalid: The provided key element does not match the schema")
    })
}

/// A number that spreads partition keys over the segments of a parallel scan.
fn spread(key: &Key) -> u64 {
    let bytes = match key {
        Key::Bytes(bytes) => std::borrow::Cow::Borrowed(&bytes[..]),
        Key::Number(number) => std::borrow::Cow::Owned(number.to_string().into_bytes()),
        Key::First | Key::Last => std::borrow::Cow::Borrowed(&[][..]),
    };
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &bytes)
}
