//! Attribute values: as they are on the wire, how large they count, and how they compare.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::number::Number;
use super::{invalid, invalid_parameter};
use crate::services::errors::ApiError;

/// Levels of lists and maps in one attribute (Amazon DynamoDB Developer Guide, "Quotas").
const MAX_DEPTH: usize = 32;

/// Memory that a value or a name takes beside its bytes, roughly: for the bound of what a lab holds.
const OVERHEAD: usize = 64;

/// Attributes of an item, by name.
pub(super) type Item = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(Number),
    Binary(Vec<u8>),
    Bool(bool),
    Null,
    List(Vec<Value>),
    Map(Item),
    Texts(BTreeSet<String>),
    Numbers(BTreeSet<Number>),
    Binaries(BTreeSet<Vec<u8>>),
}

impl Value {
    /// From `{"S": "text"}` and its kind.
    ///
    /// # Errors
    /// `SerializationException` for what is no value at all, `ValidationException` in AWS's words for a bad one.
    pub(super) fn read(json: &Json) -> Result<Value, ApiError> {
        read(json, MAX_DEPTH + 1)
    }

    /// As on the wire.
    pub(super) fn json(&self) -> Json {
        let value: Json = match self {
            Value::Text(text) => text.clone().into(),
            Value::Number(number) => number.to_string().into(),
            Value::Binary(bytes) => STANDARD.encode(bytes).into(),
            Value::Bool(b) => (*b).into(),
            Value::Null => true.into(),
            Value::List(list) => list.iter().map(Value::json).collect(),
            Value::Map(map) => Json::Object(item_json(map)),
            Value::Texts(set) => set.iter().cloned().collect(),
            Value::Numbers(set) => set.iter().map(Number::to_string).collect(),
            Value::Binaries(set) => set.iter().map(|b| STANDARD.encode(b)).collect(),
        };
        Json::Object(Map::from_iter([(self.kind().to_owned(), value)]))
    }

    /// The type's name on the wire: `S`, `NS`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "S",
            Value::Number(_) => "N",
            Value::Binary(_) => "B",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::List(_) => "L",
            Value::Map(_) => "M",
            Value::Texts(_) => "SS",
            Value::Numbers(_) => "NS",
            Value::Binaries(_) => "BS",
        }
    }

    /// Bytes that count towards the size of an item (Developer Guide, "DynamoDB item sizes and formats").
    pub(super) fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Number(number) => number.size(),
            Value::Binary(bytes) => bytes.len(),
            Value::Bool(_) | Value::Null => 1,
            Value::List(list) => 3 + list.iter().map(|v| v.size() + 1).sum::<usize>(),
            Value::Map(map) => 3 + map.iter().map(|(name, v)| name.len() + v.size() + 1).sum::<usize>(),
            Value::Texts(set) => set.iter().map(String::len).sum(),
            Value::Numbers(set) => set.iter().map(|n| n.size()).sum(),
            Value::Binaries(set) => set.iter().map(Vec::len).sum(),
        }
    }

    /// Bytes of memory, roughly.
    pub(super) fn held(&self) -> usize {
        let inside = match self {
            Value::List(list) => list.iter().map(Value::held).sum(),
            Value::Map(map) => item_held(map),
            Value::Texts(_) | Value::Numbers(_) | Value::Binaries(_) => {
                self.size() + self.elements().unwrap_or(0) * OVERHEAD
            }
            flat => flat.size(),
        };
        OVERHEAD + inside
    }

    /// How many elements a list, map or set has.
    pub(super) fn elements(&self) -> Option<usize> {
        Some(match self {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::Texts(set) => set.len(),
            Value::Numbers(set) => set.len(),
            Value::Binaries(set) => set.len(),
            _ => return None,
        })
    }

    /// Order of two values of one type that has an order: texts by their UTF-8, numbers as decimals, binaries by
    /// unsigned bytes.
    pub(super) fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
            (Value::Binary(a), Value::Binary(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    pub(super) fn begins_with(&self, prefix: &Value) -> bool {
        match (self, prefix) {
            (Value::Text(a), Value::Text(b)) => a.starts_with(b.as_str()),
            (Value::Binary(a), Value::Binary(b)) => a.starts_with(b),
            _ => false,
        }
    }

    /// A substring, an element of a set, or an element of a list.
    pub(super) fn contains(&self, part: &Value) -> bool {
        match (self, part) {
            (Value::Text(a), Value::Text(b)) => a.contains(b.as_str()),
            (Value::Binary(a), Value::Binary(b)) => b.is_empty() || a.windows(b.len()).any(|w| w == b),
            (Value::Texts(a), Value::Text(b)) => a.contains(b),
            (Value::Numbers(a), Value::Number(b)) => a.contains(b),
            (Value::Binaries(a), Value::Binary(b)) => a.contains(b),
            (Value::List(a), b) => a.contains(b),
            _ => false,
        }
    }
}

/// Reads an item or a key.
///
/// # Errors
/// As [`Value::read`].
pub(super) fn read_item(json: &Json) -> Result<Item, ApiError> {
    let map = json.as_object().ok_or_else(not_of_this_form)?;
    map.iter().map(|(name, value)| Ok((name.clone(), Value::read(value)?))).collect()
}

pub(super) fn item_json(item: &Item) -> Map<String, Json> {
    item.iter().map(|(name, value)| (name.clone(), value.json())).collect()
}

/// Bytes of an item as DynamoDB counts them: names and values.
pub(super) fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size()).sum()
}

pub(super) fn item_held(item: &Item) -> usize {
    item.iter().map(|(name, value)| OVERHEAD + name.len() + value.held()).sum()
}

fn not_of_this_form() -> ApiError {
    ApiError::bad("SerializationException", "Start of structure or map found where not expected.")
        .shape("com.amazon.coral.service#SerializationException")
}

fn read(json: &Json, depth: usize) -> Result<Value, ApiError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(invalid(
            "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported \
             limit",
        ));
    };
    let map = json.as_object().ok_or_else(not_of_this_form)?;
    let mut given = map.iter().filter(|(_, v)| !v.is_null());
    let Some((kind, value)) = given.next() else {
        return Err(invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"));
    };
    if given.next().is_some() {
        return Err(invalid(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported \
             datatypes",
        ));
    }
    let text = |v: &Json| v.as_str().map(str::to_owned).ok_or_else(not_of_this_form);
    let number = |v: &Json| Number::parse(v.as_str().ok_or_else(not_of_this_form)?).map_err(|m| invalid(&m));
    let binary = |v: &Json| {
        STANDARD.decode(v.as_str().ok_or_else(not_of_this_form)?).map_err(|_| {
            ApiError::bad("SerializationException", "Invalid Base64 in a binary value.")
                .shape("com.amazon.coral.service#SerializationException")
        })
    };
    let list = || value.as_array().ok_or_else(not_of_this_form);
    Ok(match kind.as_str() {
        "S" => Value::Text(text(value)?),
        "N" => Value::Number(number(value)?),
        "B" => Value::Binary(binary(value)?),
        "BOOL" => Value::Bool(value.as_bool().ok_or_else(not_of_this_form)?),
        "NULL" => match value.as_bool() {
            Some(true) => Value::Null,
            Some(false) => return Err(invalid_parameter("Null attribute value types must have the value of true")),
            None => return Err(not_of_this_form()),
        },
        "L" => Value::List(list()?.iter().map(|v| read(v, depth)).collect::<Result<_, _>>()?),
        "M" => {
            let map = value.as_object().ok_or_else(not_of_this_form)?;
            let entries = map.iter().map(|(name, v)| Ok((name.clone(), read(v, depth)?)));
            Value::Map(entries.collect::<Result<_, ApiError>>()?)
        }
        "SS" => Value::Texts(set(list()?, text, "An string set  may not be empty")?),
        "NS" => Value::Numbers(set(list()?, number, "An number set  may not be empty")?),
        "BS" => Value::Binaries(set(list()?, binary, "Binary sets should not be empty")?),
        _ => {
            return Err(invalid(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
            ));
        }
    })
}

fn set<T: Ord>(
    list: &[Json],
    read: impl Fn(&Json) -> Result<T, ApiError>,
    empty: &str,
) -> Result<BTreeSet<T>, ApiError> {
    let all: BTreeSet<T> = list.iter().map(read).collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(invalid_parameter(empty));
    }
    if all.len() < list.len() {
        let shown: Vec<&str> = list.iter().filter_map(Json::as_str).collect();
        return Err(invalid_parameter(&format!("Input collection [{}] contains duplicates.", shown.join(", "))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_goes_in_and_comes_out() {
        for value in [
            json!({"S": "é"}),
            json!({"N": "-1.5"}),
            json!({"B": "AAH/"}),
            json!({"BOOL": false}),
            json!({"NULL": true}),
            json!({"L": [{"S": "a"}, {"L": []}]}),
            json!({"M": {"a": {"N": "1"}, "b": {"M": {}}}}),
            json!({"SS": ["a", "b"]}),
            json!({"NS": ["2", "10"]}),
            json!({"BS": ["AA==", "AQ=="]}),
            json!({"S": ""}),
        ] {
            assert_eq!(Value::read(&value).unwrap_or_else(|e| panic!("{value}: {e:?}")).json(), value);
        }
        assert_eq!(Value::read(&json!({"NS": ["10", "2.0"]})).unwrap().json(), json!({"NS": ["2", "10"]}));
    }

    #[test]
    fn bad_values_are_refused_in_awss_words() {
        for (value, words) in [
            (json!({}), "Supplied AttributeValue is empty"),
            (json!({"X": "a"}), "Supplied AttributeValue is empty"),
            (json!({"S": "a", "N": "1"}), "more than one datatypes"),
            (json!({"N": "one"}), "cannot be converted to a numeric value: one"),
            (json!({"NULL": false}), "must have the value of true"),
            (json!({"SS": []}), "An string set  may not be empty"),
            (json!({"NS": ["1", "1.0"]}), "Input collection [1, 1.0] contains duplicates."),
        ] {
            let error = Value::read(&value).unwrap_err();
            assert_eq!(error.code, "ValidationException", "{value}");
            assert!(error.message.contains(words), "{value}: {}", error.message);
        }
        for value in [json!("a"), json!({"S": 1}), json!({"B": "?"}), json!({"L": {}}), json!({"M": []})] {
            assert_eq!(Value::read(&value).unwrap_err().code, "SerializationException", "{value}");
        }
    }

    #[test]
    fn thirty_two_levels_and_no_more() {
        let nested = |levels: usize| (0..levels).fold(json!({"S": "x"}), |v, _| json!({"L": [v]}));
        assert!(Value::read(&nested(32)).is_ok());
        assert!(Value::read(&nested(33)).unwrap_err().message.starts_with("Nesting Levels"));
    }

    #[test]
    fn sizes_are_those_of_the_guide() {
        let size = |v: Json| Value::read(&v).unwrap().size();
        assert_eq!(size(json!({"S": "é"})), 2);
        assert_eq!(size(json!({"N": "27"})), 2);
        assert_eq!(size(json!({"L": [{"S": "ab"}, {"NULL": true}]})), 3 + 3 + 2);
        assert_eq!(size(json!({"M": {"k": {"S": "ab"}}})), 3 + 1 + 2 + 1);
    }

    #[test]
    fn binaries_compare_by_unsigned_bytes() {
        let b = |text: &str| Value::read(&json!({ "B": text })).unwrap();
        assert_eq!(b("fw==").compare(&b("gA==")), Some(Ordering::Less));
        assert_eq!(b("fw==").compare(&Value::Null), None);
        assert!(b("AAEC").begins_with(&b("AAE=")) && b("AAEC").contains(&b("AQI=")));
    }
}
