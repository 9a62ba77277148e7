//! Tables and their items, in the order of their keys, and the bounds of what a lab holds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value as Json, json};

use super::number::Number;
use super::value::{Item, Value, item_held, item_size};
use super::{Place, invalid, invalid_parameter};
use crate::services::errors::ApiError;

/// Greatest size of an item, names and values, bytes, and of its keys (Amazon DynamoDB Developer Guide, "Quotas").
pub(super) const MAX_ITEM: usize = 400 * 1024;
const MAX_PARTITION_KEY: usize = 2_048;
const MAX_SORT_KEY: usize = 1_024;

/// Tables of an account and region (Developer Guide, "Quotas").
const MAX_TABLES: usize = 2_500;
/// Bytes that the items of all tables of a lab may hold in memory: AWS has no bound, this machine has.
const MAX_HELD: usize = 512 * 1024 * 1024;
/// What an entry takes beside its item, bytes: both keys again, and the maps.
const ENTRY: usize = 256;

/// All tables, by account and region, then name.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<Tables>);

#[derive(Debug, Default)]
pub(super) struct Tables {
    by_place: BTreeMap<Place, BTreeMap<String, Table>>,
    /// Bytes of the items of all tables.
    held: usize,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) schema: Schema,
    /// Read and write units; `None`: on demand.
    pub(super) provisioned: Option<(u64, u64)>,
    entries: BTreeMap<EntryKey, Entry>,
    /// As DynamoDB counts.
    size: usize,
    held: usize,
}

/// Partition key and sort key.
pub(super) type EntryKey = (Key, Key);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    /// As DynamoDB counts.
    pub(super) size: usize,
    held: usize,
}

/// The attributes of a table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) partition: KeyAttribute,
    pub(super) sort: Option<KeyAttribute>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyAttribute {
    pub(super) name: String,
    /// `S`, `N` or `B`.
    pub(super) kind: &'static str,
}

/// A key's value, in the order of its type: all of an attribute are of one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Before all; the sort key of tables without one.
    First,
    Number(Number),
    /// Text by its UTF-8, and binary.
    Bytes(Vec<u8>),
    /// After all.
    Last,
}

/// Why an item was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl From<Full> for ApiError {
    fn from(_: Full) -> ApiError {
        let message = format!("The tables of this lab are full: they hold {} MiB at most.", MAX_HELD >> 20);
        ApiError::bad("LimitExceededException", message)
            .shape("com.amazonaws.dynamodb.v20120810#LimitExceededException")
    }
}

impl Store {
    pub(super) fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// A table, and the count of bytes that changes with its items.
    pub(super) fn find(&mut self, place: &Place, name: &str) -> Option<(&mut Table, &mut usize)> {
        let table = self.by_place.get_mut(place)?.get_mut(name)?;
        Some((table, &mut self.held))
    }

    /// # Errors
    /// There are [`MAX_TABLES`] already.
    pub(super) fn add(&mut self, place: &Place, table: Table) -> Result<(), Full> {
        let own = self.by_place.entry(place.clone()).or_default();
        if own.len() >= MAX_TABLES {
            return Err(Full);
        }
        own.insert(table.name.clone(), table);
        Ok(())
    }

    pub(super) fn remove(&mut self, place: &Place, name: &str) -> Option<Table> {
        let table = self.by_place.get_mut(place)?.remove(name)?;
        self.held -= table.held;
        Some(table)
    }

    /// The names after `after`, in order.
    pub(super) fn names(&self, place: &Place, after: Option<&str>) -> impl Iterator<Item = &String> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_place
            .get(place)
            .into_iter()
            .flat_map(move |own| own.range::<str, _>((from, Bound::Unbounded)).map(|e| e.0))
    }
}

impl Table {
    pub(super) fn new(
        name: &str,
        place: &Place,
        id: String,
        created: u64,
        schema: Schema,
        provisioned: Option<(u64, u64)>,
    ) -> Table {
        let arn = arn_of(place, name);
        let name = name.to_owned();
        Table { name, arn, id, created, schema, provisioned, entries: BTreeMap::new(), size: 0, held: 0 }
    }

    pub(super) fn get(&self, key: &EntryKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Puts an item in place of what has its key, which is handed back.
    ///
    /// # Errors
    /// The lab holds as much as it may; nothing changed.
    pub(super) fn put(&mut self, held: &mut usize, key: EntryKey, item: Item) -> Result<Option<Item>, Full> {
        let entry = Entry { size: item_size(&item), held: ENTRY + item_held(&item), item };
        let before = self.entries.get(&key).map_or((0, 0), |e| (e.size, e.held));
        let after = *held - before.1 + entry.held;
        if after > MAX_HELD && entry.held > before.1 {
            return Err(Full);
        }
        *held = after;
        self.held = self.held - before.1 + entry.held;
        self.size = self.size - before.0 + entry.size;
        Ok(self.entries.insert(key, entry).map(|e| e.item))
    }

    pub(super) fn delete(&mut self, held: &mut usize, key: &EntryKey) -> Option<Item> {
        let entry = self.entries.remove(key)?;
        *held -= entry.held;
        self.held -= entry.held;
        self.size -= entry.size;
        Some(entry.item)
    }

    /// Entries between two keys, in order or against it.
    pub(super) fn range(
        &self,
        from: Bound<EntryKey>,
        to: Bound<EntryKey>,
        forward: bool,
    ) -> Box<dyn Iterator<Item = (&EntryKey, &Entry)> + '_> {
        let empty = match (&from, &to) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        if empty {
            return Box::new(std::iter::empty());
        }
        let found = self.entries.range((from, to));
        if forward { Box::new(found) } else { Box::new(found.rev()) }
    }

    /// `TableDescription`, but for the status.
    pub(super) fn describe(&self, status: &str) -> Json {
        let attribute = |a: &KeyAttribute| json!({ "AttributeName": a.name, "AttributeType": a.kind });
        let schema = &self.schema;
        let both = || std::iter::once((&schema.partition, "HASH")).chain(schema.sort.iter().map(|s| (s, "RANGE")));
        let (read, write) = self.provisioned.unwrap_or((0, 0));
        let mut out = json!({
            "AttributeDefinitions": both().map(|(a, _)| attribute(a)).collect::<Vec<_>>(),
            "TableName": self.name,
            "KeySchema": both()
                .map(|(a, role)| json!({ "AttributeName": a.name, "KeyType": role }))
                .collect::<Vec<_>>(),
            "TableStatus": status,
            "CreationDateTime": self.created,
            "ProvisionedThroughput": {
                "NumberOfDecreasesToday": 0, "ReadCapacityUnits": read, "WriteCapacityUnits": write,
            },
            "TableSizeBytes": self.size,
            "ItemCount": self.entries.len(),
            "TableArn": self.arn,
            "TableId": self.id,
            "DeletionProtectionEnabled": false,
        });
        if self.provisioned.is_none() {
            out["BillingModeSummary"] =
                json!({ "BillingMode": "PAY_PER_REQUEST", "LastUpdateToPayPerRequestDateTime": self.created });
        }
        out
    }
}

impl Schema {
    pub(super) fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub(super) fn is_key(&self, name: &str) -> bool {
        self.attributes().any(|a| a.name == name)
    }

    /// The key of an item that is to be stored.
    ///
    /// # Errors
    /// An attribute of the key is missing, of another type, empty or too long; the item is too large.
    pub(super) fn key_of_item(&self, item: &Item) -> Result<EntryKey, ApiError> {
        for a in self.attributes() {
            match item.get(&a.name) {
                None => return Err(invalid_parameter(&format!("Missing the key {} in the item", a.name))),
                Some(v) if v.kind() != a.kind => {
                    return Err(invalid_parameter(&format!(
                        "Type mismatch for key {} expected: {} actual: {}",
                        a.name,
                        a.kind,
                        v.kind()
                    )));
                }
                Some(_) => {}
            }
        }
        let key = self.key(item)?;
        if item_size(item) > MAX_ITEM {
            return Err(invalid("Item size has exceeded the maximum allowed size"));
        }
        Ok(key)
    }

    /// The key in a `Key` parameter: exactly the attributes of the table's key.
    ///
    /// # Errors
    /// As [`Schema::key_of_item`], and attributes that are not of the key.
    pub(super) fn key_of(&self, key: &Item) -> Result<EntryKey, ApiError> {
        let fits = key.len() == self.attributes().count()
            && self.attributes().all(|a| key.get(&a.name).is_some_and(|v| v.kind() == a.kind));
        if !fits {
            return Err(invalid("The provided key element does not match the schema"));
        }
        self.key(key)
    }

    /// The attributes of the key, of an item that has them.
    pub(super) fn only_key(&self, item: &Item) -> Item {
        self.attributes().filter_map(|a| Some((a.name.clone(), item.get(&a.name)?.clone()))).collect()
    }

    fn key(&self, item: &Item) -> Result<EntryKey, ApiError> {
        let partition = self.partition.key(item.get(&self.partition.name))?;
        let sort = match &self.sort {
            Some(sort) => sort.key(item.get(&sort.name))?,
            None => Key::First,
        };
        if partition.len() > MAX_PARTITION_KEY {
            return Err(invalid_parameter("Size of hashkey has exceeded the maximum size limit of2048 bytes"));
        }
        if sort.len() > MAX_SORT_KEY {
            return Err(invalid_parameter(
                "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
            ));
        }
        Ok((partition, sort))
    }
}

impl KeyAttribute {
    /// The key of a value of the right type.
    fn key(&self, value: Option<&Value>) -> Result<Key, ApiError> {
        let empty = |kind: &str| {
            invalid(&format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an \
                 empty {kind} value. Key: {}",
                self.name
            ))
        };
        match value.and_then(Key::of) {
            Some(Key::Bytes(bytes)) if bytes.is_empty() => {
                Err(empty(if self.kind == "B" { "binary" } else { "string" }))
            }
            Some(key) => Ok(key),
            None => Err(invalid("The provided key element does not match the schema")),
        }
    }
}

impl Key {
    /// `None`: a type that no key has.
    pub(super) fn of(value: &Value) -> Option<Key> {
        match value {
            Value::Text(text) => Some(Key::Bytes(text.clone().into_bytes())),
            Value::Binary(bytes) => Some(Key::Bytes(bytes.clone())),
            Value::Number(number) => Some(Key::Number(*number)),
            _ => None,
        }
    }

    /// The first key behind all that begin with this one.
    pub(super) fn after_prefix(&self) -> Key {
        let Key::Bytes(bytes) = self else { return Key::Last };
        let mut bytes = bytes.clone();
        while let Some(last) = bytes.pop() {
            if let Some(next) = last.checked_add(1) {
                bytes.push(next);
                return Key::Bytes(bytes);
            }
        }
        Key::Last
    }

    fn len(&self) -> usize {
        match self {
            Key::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

pub(super) fn arn_of(place: &Place, name: &str) -> String {
    format!("arn:aws:dynamodb:{}:{}:table/{name}", place.1, place.0)
}

#[cfg(test)]
mod tests {
    use super::super::value::read_item;
    use super::*;

    fn schema(kind: &'static str) -> Schema {
        let attribute = |name: &str, kind| KeyAttribute { name: name.into(), kind };
        Schema { partition: attribute("p", "S"), sort: Some(attribute("s", kind)) }
    }

    fn table() -> Table {
        Table::new("t", &("1".into(), "r".into()), "id".into(), 0, schema("N"), None)
    }

    fn item(p: &str, s: &str) -> Item {
        read_item(&json!({"p": {"S": p}, "s": {"N": s}, "d": {"S": "x"}})).unwrap()
    }

    #[test]
    fn entries_lie_in_the_order_of_their_keys() {
        let (mut table, mut held) = (table(), 0);
        for s in ["10", "9", "-1", "9.5"] {
            let item = item("a", s);
            let key = table.schema.key_of_item(&item).unwrap();
            table.put(&mut held, key, item).unwrap();
        }
        let partition = Key::Bytes(b"a".to_vec());
        let (from, to) = ((partition.clone(), Key::First), (partition, Key::Last));
        let all = |forward| -> Vec<Json> {
            let found = table.range(Bound::Included(from.clone()), Bound::Included(to.clone()), forward);
            found.map(|(_, e)| e.item["s"].json()["N"].clone()).collect()
        };
        assert_eq!(all(true), ["-1", "9", "9.5", "10"]);
        assert_eq!(all(false), ["10", "9.5", "9", "-1"]);
        assert_eq!(table.range(Bound::Excluded(to.clone()), Bound::Included(from.clone()), true).count(), 0);
        assert_eq!(table.range(Bound::Excluded(to.clone()), Bound::Excluded(to), true).count(), 0);
    }

    #[test]
    fn what_is_held_is_counted_and_bounded() {
        let (mut table, mut held) = (table(), 0);
        let key = |s: &str| schema("N").key_of_item(&item("a", s)).unwrap();
        table.put(&mut held, key("1"), item("a", "1")).unwrap();
        let one = held;
        assert_eq!(table.put(&mut held, key("1"), item("a", "1")).unwrap(), Some(item("a", "1")));
        assert_eq!((held, table.held), (one, one));
        held = MAX_HELD;
        assert_eq!(table.put(&mut held, key("2"), item("a", "2")), Err(Full));
        assert!(table.put(&mut held, key("1"), item("a", "1")).is_ok(), "no more than before");
        assert!(table.delete(&mut held, &key("1")).is_some());
        assert_eq!((held, table.held, table.size), (MAX_HELD - one, 0, 0));
    }

    #[test]
    fn keys_are_checked_in_awss_words() {
        let schema = schema("S");
        let long = "x".repeat(2_049);
        for (item, words) in [
            (json!({"p": {"S": "a"}}), "Missing the key s in the item"),
            (json!({"p": {"N": "1"}, "s": {"S": "b"}}), "Type mismatch for key p expected: S actual: N"),
            (json!({"p": {"S": ""}, "s": {"S": "b"}}), "cannot contain an empty string value. Key: p"),
            (
                json!({"p": {"S": long}, "s": {"S": "b"}}),
                "Size of hashkey has exceeded the maximum size limit of2048 bytes",
            ),
            (json!({"p": {"S": "a"}, "s": {"S": &long[..1_025]}}), "has exceeded the size limit of 1024 bytes"),
            (json!({"p": {"S": "a"}, "s": {"S": "b"}, "x": {"S": "x".repeat(MAX_ITEM)}}), "Item size has exceeded"),
        ] {
            let error = schema.key_of_item(&read_item(&item).unwrap()).unwrap_err();
            assert!(error.message.ends_with(words) || error.message.contains(words), "{}", error.message);
        }
        let key = read_item(&json!({"p": {"S": "a"}})).unwrap();
        assert_eq!(schema.key_of(&key).unwrap_err().message, "The provided key element does not match the schema");
    }

    #[test]
    fn prefixes_end_where_the_next_begins() {
        let bytes = |b: &[u8]| Key::Bytes(b.to_vec());
        assert_eq!(bytes(b"ab").after_prefix(), bytes(b"ac"));
        assert_eq!(bytes(&[1, 0xff, 0xff]).after_prefix(), bytes(&[2]));
        assert_eq!(bytes(&[0xff]).after_prefix(), Key::Last);
    }
}
