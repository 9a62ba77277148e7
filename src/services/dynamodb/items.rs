//! Operations on single items, and on several at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::evaluate::{apply, holds, project, too_large};
use super::expression::{self, Condition, Path, Placeholders};
use super::table::MAX_ITEM;
use super::value::{Item, item_json, item_size, read_item};
use super::{Call, Failure, Object, invalid, invalid_parameter, missing, modelled, no_such_table, object, validation};
use crate::services::errors::ApiError;

/// Requests of a batch that writes and of one that reads (DynamoDB API Reference, BatchWriteItem, BatchGetItem).
const MAX_WRITES: usize = 25;
const MAX_READS: usize = 100;
/// Bytes of the items that a batch hands out; the rest is unprocessed.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// Parameters that every operation on one item knows.
const SHARED: &[&str] =
    &["TableName", "ExpressionAttributeNames", "ReturnConsumedCapacity", "ReturnItemCollectionMetrics"];
const CONDITIONAL: &[&str] =
    &["ConditionExpression", "ExpressionAttributeValues", "ReturnValues", "ReturnValuesOnConditionCheckFailure"];

impl Call<'_> {
    pub(super) fn put_item(&self) -> Result<Object, Failure> {
        self.only(&[SHARED, CONDITIONAL, &["Item"]].concat())?;
        let (place, name) = self.target("PutItem")?;
        let returned = self.one_of("ReturnValues", &["NONE", "ALL_OLD"], "NONE")?;
        let item = read_item(self.input.get("Item").ok_or_else(|| missing("item"))?)?;
        let check = self.check()?;
        let mut tables = self.service.store.lock();
        let (table, held) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        let key = table.schema.key_of_item(&item)?;
        check.passes(table.get(&key).map(|e| &e.item))?;
        let size = item_size(&item);
        let old = table.put(held, key, item).map_err(ApiError::from)?;
        let written = size.max(old.as_ref().map_or(0, item_size));
        let mut out = self.capacity(&name, write_units(written))?;
        if let (Some(old), "ALL_OLD") = (old, returned) {
            out.insert("Attributes".into(), Json::Object(item_json(&old)));
        }
        Ok(out)
    }

    pub(super) fn get_item(&self) -> Result<Object, ApiError> {
        self.only(&[SHARED, &["Key", "ConsistentRead", "ProjectionExpression"]].concat())?;
        let (place, name) = self.target("GetItem")?;
        let places = Placeholders::read(self.input)?;
        let projection = self.projection(&places)?;
        places.all_used("ProjectionExpression")?;
        let key = read_item(self.input.get("Key").ok_or_else(|| missing("key"))?)?;
        let mut tables = self.service.store.lock();
        let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        let found = table.get(&table.schema.key_of(&key)?);
        let mut out = self.capacity(&name, read_units(found.map_or(0, |e| e.size), self.consistent()))?;
        if let Some(entry) = found {
            out.insert("Item".into(), Json::Object(shown(&entry.item, projection.as_deref())));
        }
        Ok(out)
    }

    pub(super) fn delete_item(&self) -> Result<Object, Failure> {
        self.only(&[SHARED, CONDITIONAL, &["Key"]].concat())?;
        let (place, name) = self.target("DeleteItem")?;
        let returned = self.one_of("ReturnValues", &["NONE", "ALL_OLD"], "NONE")?;
        let key = read_item(self.input.get("Key").ok_or_else(|| missing("key"))?)?;
        let check = self.check()?;
        let mut tables = self.service.store.lock();
        let (table, held) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        let key = table.schema.key_of(&key)?;
        check.passes(table.get(&key).map(|e| &e.item))?;
        let old = table.delete(held, &key);
        let mut out = self.capacity(&name, write_units(old.as_ref().map_or(0, item_size)))?;
        if let (Some(old), "ALL_OLD") = (old, returned) {
            out.insert("Attributes".into(), Json::Object(item_json(&old)));
        }
        Ok(out)
    }

    pub(super) fn update_item(&self) -> Result<Object, Failure> {
        self.only(&[SHARED, CONDITIONAL, &["Key", "UpdateExpression"]].concat())?;
        let (place, name) = self.target("UpdateItem")?;
        let all = ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"];
        let returned = self.one_of("ReturnValues", &all, "NONE")?;
        let key = read_item(self.input.get("Key").ok_or_else(|| missing("key"))?)?;
        let places = Placeholders::read(self.input)?;
        let update = self.text("UpdateExpression").map(|text| expression::update(text, &places)).transpose()?;
        let update = update.unwrap_or_default();
        let check = self.check_with(&places)?;
        places.all_used("UpdateExpression")?;
        let mut tables = self.service.store.lock();
        let (table, held) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
        if let Some(path) = update.paths().find(|p| table.schema.is_key(p.top())) {
            let message = format!("Cannot update attribute {}. This attribute is part of the key", path.top());
            return Err(invalid_parameter(&message).into());
        }
        let entry_key = table.schema.key_of(&key)?;
        let old = table.get(&entry_key).map(|e| e.item.clone());
        check.passes(old.as_ref())?;
        let new = apply(&update, old.as_ref().unwrap_or(&key))?;
        if item_size(&new) > MAX_ITEM {
            return Err(too_large().into());
        }
        let written = item_size(&new).max(old.as_ref().map_or(0, item_size));
        let paths: Vec<Path> = update.paths().cloned().collect();
        let attributes = match (returned, &old) {
            ("ALL_OLD", Some(old)) => Some(item_json(old)),
            ("UPDATED_OLD", Some(old)) => Some(item_json(&project(old, &paths))).filter(|m| !m.is_empty()),
            ("ALL_NEW", _) => Some(item_json(&new)),
            ("UPDATED_NEW", _) => Some(item_json(&project(&new, &paths))).filter(|m| !m.is_empty()),
            _ => None,
        };
        table.put(held, entry_key, new).map_err(ApiError::from)?;
        let mut out = self.capacity(&name, write_units(written))?;
        out.extend(attributes.map(|a| ("Attributes".to_owned(), Json::Object(a))));
        Ok(out)
    }

    pub(super) fn batch_write(&self) -> Result<Object, ApiError> {
        self.only(&["RequestItems", "ReturnConsumedCapacity", "ReturnItemCollectionMetrics"])?;
        let requests = self.request_items()?;
        // Everything is checked before anything is written.
        let mut writes = Vec::new();
        for (given, list) in requests {
            let name = self.checked_name(given)?;
            let list = list.as_array().filter(|l| !l.is_empty()).ok_or_else(|| empty_batch(given))?;
            for request in list {
                let request = request.as_object().filter(|r| r.len() == 1).and_then(|r| r.iter().next());
                match request.map(|(kind, inside)| (kind.as_str(), inside)) {
                    Some(("PutRequest", put)) => {
                        let item = put.get("Item").ok_or_else(|| missing("item"))?;
                        writes.push((name.clone(), read_item(item)?, true));
                    }
                    Some(("DeleteRequest", delete)) => {
                        let key = delete.get("Key").ok_or_else(|| missing("key"))?;
                        writes.push((name.clone(), read_item(key)?, false));
                    }
                    _ => {
                        return Err(invalid(
                            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
                             supported operations: PutRequest, DeleteRequest",
                        ));
                    }
                }
            }
        }
        if writes.len() > MAX_WRITES {
            return Err(validation(
                "Value at 'requestItems' failed to satisfy constraint: Member must have length less than or equal to 25",
            ));
        }
        let names: BTreeSet<String> = writes.iter().map(|(name, ..)| name.clone()).collect();
        for name in &names {
            self.table_allowed("BatchWriteItem", name)?;
        }
        let place = self.place();
        let mut tables = self.service.store.lock();
        let mut keyed = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, item, put) in writes {
            let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
            let key = if put { table.schema.key_of_item(&item)? } else { table.schema.key_of(&item)? };
            if !seen.insert((name.clone(), key.clone())) {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
            keyed.push((name, key, put.then_some(item)));
        }
        let mut units: BTreeMap<String, f64> = BTreeMap::new();
        for (name, key, item) in keyed {
            let (table, held) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
            let before = table.get(&key).map_or(0, |e| e.size);
            let after = item.as_ref().map_or(0, item_size);
            match item {
                Some(item) => drop(table.put(held, key, item)?),
                None => drop(table.delete(held, &key)),
            }
            *units.entry(name).or_default() += write_units(before.max(after));
        }
        let mut out = object([("UnprocessedItems", Json::Object(Object::new()))]);
        out.extend(self.capacities(units)?);
        Ok(out)
    }

    pub(super) fn batch_get(&self) -> Result<Object, ApiError> {
        self.only(&["RequestItems", "ReturnConsumedCapacity"])?;
        let mut reads = Vec::new();
        let mut count = 0;
        for (given, request) in self.request_items()? {
            let name = self.checked_name(given)?;
            let request = request.as_object().ok_or_else(|| empty_batch(given))?;
            let known = ["Keys", "ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames"];
            if let Some(other) = request.keys().find(|k| !known.contains(&k.as_str())) {
                return Err(super::not_here(other));
            }
            let keys = request.get("Keys").and_then(Json::as_array).filter(|k| !k.is_empty());
            let keys = keys.ok_or_else(|| missing(&format!("requestItems.{given}.member.keys")))?;
            let keys: Vec<Item> = keys.iter().map(read_item).collect::<Result<_, _>>()?;
            count += keys.len();
            let places = Placeholders::read(request)?;
            let projection = request.get("ProjectionExpression").and_then(Json::as_str);
            let projection = projection.map(|text| expression::projection(text, &places)).transpose()?;
            places.all_used("ProjectionExpression")?;
            let consistent = request.get("ConsistentRead").and_then(Json::as_bool).unwrap_or(false);
            reads.push((given, name, keys, projection, consistent, request));
        }
        if count > MAX_READS {
            return Err(invalid("Too many items requested for the BatchGetItem call"));
        }
        for (_, name, ..) in &reads {
            self.table_allowed("BatchGetItem", name)?;
        }
        let place = self.place();
        let mut tables = self.service.store.lock();
        let (mut responses, mut unprocessed) = (Object::new(), Object::new());
        let (mut units, mut bytes) = (BTreeMap::new(), 0);
        for (given, name, keys, projection, consistent, request) in reads {
            let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(None))?;
            let (mut found, mut left, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
            for key in keys {
                let entry_key = table.schema.key_of(&key)?;
                let entry = table.get(&entry_key);
                if !seen.insert(entry_key) {
                    return Err(invalid("Provided list of item keys contains duplicates"));
                }
                let size = entry.map_or(0, |e| e.size);
                if bytes + size > MAX_READ_BYTES {
                    left.push(Json::Object(item_json(&key)));
                    continue;
                }
                bytes += size;
                *units.entry(name.clone()).or_default() += read_units(size, consistent);
                found.extend(entry.map(|e| Json::Object(shown(&e.item, projection.as_deref()))));
            }
            if !left.is_empty() {
                let mut rest = request.clone();
                rest.insert("Keys".into(), left.into());
                unprocessed.insert(given.clone(), Json::Object(rest));
            }
            responses.insert(given.clone(), found.into());
        }
        let mut out = object([("Responses", Json::Object(responses)), ("UnprocessedKeys", Json::Object(unprocessed))]);
        out.extend(self.capacities(units)?);
        Ok(out)
    }

    fn request_items(&self) -> Result<&Object, ApiError> {
        let items = self.input.get("RequestItems").and_then(Json::as_object).ok_or_else(|| missing("requestItems"))?;
        if items.is_empty() {
            return Err(validation(
                "Value '{}' at 'requestItems' failed to satisfy constraint: Member must have length greater than or \
                 equal to 1",
            ));
        }
        Ok(items)
    }

    pub(super) fn projection(&self, places: &Placeholders) -> Result<Option<Vec<Path>>, ApiError> {
        self.text("ProjectionExpression").map(|text| expression::projection(text, places)).transpose()
    }

    pub(super) fn consistent(&self) -> bool {
        self.input.get("ConsistentRead").and_then(Json::as_bool).unwrap_or(false)
    }

    /// The condition of a request that has no other expression.
    fn check(&self) -> Result<Check, ApiError> {
        let places = Placeholders::read(self.input)?;
        let check = self.check_with(&places)?;
        places.all_used("ConditionExpression")?;
        Ok(check)
    }

    fn check_with(&self, places: &Placeholders) -> Result<Check, ApiError> {
        let condition = self.text("ConditionExpression");
        let condition = condition.map(|text| expression::condition("ConditionExpression", text, places)).transpose()?;
        let tell = self.one_of("ReturnValuesOnConditionCheckFailure", &["ALL_OLD", "NONE"], "NONE")? == "ALL_OLD";
        Ok(Check { condition, tell })
    }

    /// `ConsumedCapacity`, if the request asks for it.
    pub(super) fn capacity(&self, table: &str, units: f64) -> Result<Object, ApiError> {
        let one = self.consumed(table, units)?;
        Ok(one.map(|one| ("ConsumedCapacity".to_owned(), one)).into_iter().collect())
    }

    fn capacities(&self, units: BTreeMap<String, f64>) -> Result<Object, ApiError> {
        let all = units.into_iter().map(|(table, units)| self.consumed(&table, units));
        let all: Option<Vec<Json>> = all.collect::<Result<_, _>>()?;
        Ok(all.map(|all| ("ConsumedCapacity".to_owned(), Json::from(all))).into_iter().collect())
    }

    fn consumed(&self, table: &str, units: f64) -> Result<Option<Json>, ApiError> {
        let mode = self.one_of("ReturnConsumedCapacity", &["INDEXES", "TOTAL", "NONE"], "NONE")?;
        let mut out = object([("TableName", table.into()), ("CapacityUnits", units.into())]);
        if mode == "INDEXES" {
            out.insert("Table".into(), Json::Object(object([("CapacityUnits", units.into())])));
        }
        Ok((mode != "NONE").then_some(Json::Object(out)))
    }
}

/// What must hold before a write.
struct Check {
    condition: Option<Condition>,
    /// The item is shown where it fails.
    tell: bool,
}

impl Check {
    fn passes(&self, item: Option<&Item>) -> Result<(), Failure> {
        let none = Item::new();
        if self.condition.as_ref().is_none_or(|c| holds(c, item.unwrap_or(&none))) {
            return Ok(());
        }
        let error = modelled("ConditionalCheckFailedException", "The conditional request failed");
        Err(Failure { error, item: item.filter(|_| self.tell).map(|item| Box::new(item_json(item))) })
    }
}

/// An item as an answer has it.
pub(super) fn shown(item: &Item, projection: Option<&[Path]>) -> Object {
    match projection {
        None => item_json(item),
        Some(paths) => item_json(&project(item, paths)),
    }
}

fn empty_batch(table: &str) -> ApiError {
    validation(&format!(
        "Value at 'requestItems.{table}.member' failed to satisfy constraint: Member must have length greater than or \
         equal to 1"
    ))
}

/// One for 1 KB begun (Developer Guide, "Read and write capacity").
fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(1_024).max(1) as f64
}

/// One for 4 KB begun, half of it where the newest value is not insisted on.
pub(super) fn read_units(bytes: usize, consistent: bool) -> f64 {
    bytes.div_ceil(4_096).max(1) as f64 * if consistent { 1.0 } else { 0.5 }
}
