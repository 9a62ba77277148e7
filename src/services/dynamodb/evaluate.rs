//! Conditions, projections and updates, on one item.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::expression::{Comparison, Condition, Operand, Path, Step, Sum, Term, Update, type_name};
use super::invalid;
use super::number::Number;
use super::table::MAX_ITEM;
use super::value::{Item, Value};
use crate::services::errors::ApiError;

/// Whether the condition holds of an item; of none at all as of one without attributes.
pub(super) fn holds(condition: &Condition, item: &Item) -> bool {
    let pair = |a: &Operand, b: &Operand, test: fn(&Value, &Value) -> bool| match (value_of(a, item), value_of(b, item))
    {
        (Some(a), Some(b)) => test(&a, &b),
        _ => false,
    };
    match condition {
        Condition::And(a, b) => holds(a, item) && holds(b, item),
        Condition::Or(a, b) => holds(a, item) || holds(b, item),
        Condition::Not(a) => !holds(a, item),
        Condition::Compare(comparison, a, b) => {
            let (a, b) = (value_of(a, item), value_of(b, item));
            match (comparison, a, b) {
                (Comparison::Equal, Some(a), Some(b)) => a == b,
                // What is absent is equal to nothing.
                (Comparison::NotEqual, a, b) => a.is_none() || a != b,
                (comparison, Some(a), Some(b)) => a.compare(&b).is_some_and(|order| match comparison {
                    Comparison::Less => order == Ordering::Less,
                    Comparison::LessOrEqual => order != Ordering::Greater,
                    Comparison::Greater => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }),
                _ => false,
            }
        }
        Condition::Between(a, low, high) => {
            pair(low, a, |low, a| low.compare(a).is_some_and(|o| o != Ordering::Greater))
                && pair(a, high, |a, high| a.compare(high).is_some_and(|o| o != Ordering::Greater))
        }
        Condition::In(a, list) => list.iter().any(|b| pair(a, b, |a, b| a == b)),
        Condition::Exists(path) => resolve(path, item).is_some(),
        Condition::NotExists(path) => resolve(path, item).is_none(),
        Condition::IsType(path, kind) => resolve(path, item).is_some_and(|v| v.kind() == kind),
        Condition::BeginsWith(a, b) => pair(a, b, Value::begins_with),
        Condition::Contains(a, b) => pair(a, b, Value::contains),
    }
}

/// The attributes whose paths a condition names, by their first names.
pub(super) fn attributes<'a>(condition: &'a Condition, found: &mut Vec<&'a str>) {
    let mut operand = |o: &'a Operand| match o {
        Operand::Path(path) | Operand::Size(path) => found.push(path.top()),
        Operand::Value(_) => {}
    };
    match condition {
        Condition::And(a, b) | Condition::Or(a, b) => {
            attributes(a, found);
            attributes(b, found);
        }
        Condition::Not(a) => attributes(a, found),
        Condition::Compare(_, a, b) | Condition::BeginsWith(a, b) | Condition::Contains(a, b) => {
            [a, b].into_iter().for_each(operand);
        }
        Condition::Between(a, b, c) => [a, b, c].into_iter().for_each(operand),
        Condition::In(a, list) => {
            operand(a);
            list.iter().for_each(operand);
        }
        Condition::Exists(path) | Condition::NotExists(path) | Condition::IsType(path, _) => found.push(path.top()),
    }
}

/// What the paths lead to, in the item's own shape; elements of lists keep their order and close up.
pub(super) fn project(item: &Item, paths: &[Path]) -> Item {
    let mut tree = Tree::default();
    for path in paths {
        let mut node = &mut tree;
        for step in &path.0 {
            node = node.0.entry(step.clone()).or_default();
        }
    }
    tree.map(item)
}

/// Applies an update to an item.
///
/// # Errors
/// `ValidationException` in AWS's words: paths that lead nowhere, types that do not fit.
pub(super) fn apply(update: &Update, item: &Item) -> Result<Item, ApiError> {
    let mut next = item.clone();
    // Every right side sees the item as it was.
    let mut values: Vec<(&Path, Value)> = Vec::with_capacity(update.set.len());
    let mut size = 0;
    for (path, sum) in &update.set {
        let value = evaluate(sum, item)?;
        // All of them will be in the item: a short text cannot make a long copy of it many times.
        size += value.size();
        if size > MAX_ITEM {
            return Err(too_large());
        }
        values.push((path, value));
    }
    // Lists grow at their ends in the order of their indices, whatever the order of the text.
    values.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
    for (path, value) in values {
        place(&mut next, path, value)?;
    }
    for (path, value) in &update.add {
        let sum = match (resolve(path, item), value) {
            (None, value) => value.clone(),
            (Some(Value::Number(a)), Value::Number(b)) => Value::Number(a.plus(*b).map_err(|m| invalid(&m))?),
            (Some(Value::Texts(a)), Value::Texts(b)) => Value::Texts(a | b),
            (Some(Value::Numbers(a)), Value::Numbers(b)) => Value::Numbers(a | b),
            (Some(Value::Binaries(a)), Value::Binaries(b)) => Value::Binaries(a | b),
            _ => return Err(wrong_type()),
        };
        place(&mut next, path, sum)?;
    }
    let mut gone: Vec<&Path> = update.remove.iter().collect();
    for (path, value) in &update.delete {
        let rest = match (resolve(path, item), value) {
            (None, _) => continue,
            (Some(Value::Texts(a)), Value::Texts(b)) => Value::Texts(a - b),
            (Some(Value::Numbers(a)), Value::Numbers(b)) => Value::Numbers(a - b),
            (Some(Value::Binaries(a)), Value::Binaries(b)) => Value::Binaries(a - b),
            _ => return Err(wrong_type()),
        };
        if rest.elements() == Some(0) {
            gone.push(path);
        } else {
            place(&mut next, path, rest)?;
        }
    }
    // From the end of each list: what goes moves what is behind it.
    gone.sort_by(|a, b| b.0.cmp(&a.0));
    for path in gone {
        remove(&mut next, path)?;
    }
    Ok(next)
}

fn resolve<'a>(path: &Path, item: &'a Item) -> Option<&'a Value> {
    let mut steps = path.0.iter();
    let Some(Step::Name(name)) = steps.next() else { return None };
    let mut value = item.get(name)?;
    for step in steps {
        value = match (value, step) {
            (Value::Map(map), Step::Name(name)) => map.get(name)?,
            (Value::List(list), Step::Index(at)) => list.get(*at)?,
            _ => return None,
        };
    }
    Some(value)
}

fn value_of<'a>(operand: &'a Operand, item: &'a Item) -> Option<Cow<'a, Value>> {
    match operand {
        Operand::Path(path) => resolve(path, item).map(Cow::Borrowed),
        Operand::Value(value) => Some(Cow::Borrowed(value)),
        Operand::Size(path) => {
            let size = match resolve(path, item)? {
                Value::Text(text) => text.chars().count(),
                Value::Binary(bytes) => bytes.len(),
                other => other.elements()?,
            };
            Some(Cow::Owned(Value::Number(Number::parse(&size.to_string()).ok()?)))
        }
    }
}

/// Paths by their steps. A node without children takes all.
#[derive(Default)]
struct Tree(BTreeMap<Step, Tree>);

impl Tree {
    fn map(&self, item: &Item) -> Item {
        let named = self.0.iter().filter_map(|(step, below)| match step {
            Step::Name(name) => Some((name.clone(), below.value(item.get(name)?)?)),
            Step::Index(_) => None,
        });
        named.collect()
    }

    fn value(&self, value: &Value) -> Option<Value> {
        if self.0.is_empty() {
            return Some(value.clone());
        }
        match value {
            Value::Map(map) => Some(Value::Map(self.map(map))).filter(|v| v.elements() != Some(0)),
            Value::List(list) => {
                let found = self.0.iter().filter_map(|(step, below)| match step {
                    Step::Index(at) => below.value(list.get(*at)?),
                    Step::Name(_) => None,
                });
                Some(Value::List(found.collect())).filter(|v| v.elements() != Some(0))
            }
            _ => None,
        }
    }
}

fn evaluate(sum: &Sum, item: &Item) -> Result<Value, ApiError> {
    let (left, right, minus) = match sum {
        Sum::One(term) => return term_value(term, item),
        Sum::Plus(a, b) => (a, b, false),
        Sum::Minus(a, b) => (a, b, true),
    };
    let number = |term: &Term| match term_value(term, item)? {
        Value::Number(number) => Ok(number),
        other => match term {
            Term::Value(_) => Err(invalid(&format!(
                "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: {}, \
                 operand type: {}",
                if minus { "-" } else { "+" },
                other.kind()
            ))),
            _ => Err(wrong_type()),
        },
    };
    let (left, right) = (number(left)?, number(right)?);
    let sum = left.plus(if minus { right.negated() } else { right });
    Ok(Value::Number(sum.map_err(|m| invalid(&m))?))
}

fn term_value(term: &Term, item: &Item) -> Result<Value, ApiError> {
    match term {
        Term::Value(value) => Ok(value.clone()),
        Term::Path(path) => resolve(path, item)
            .cloned()
            .ok_or_else(|| invalid("The provided expression refers to an attribute that does not exist in the item")),
        Term::IfNotExists(path, other) => match resolve(path, item) {
            Some(value) => Ok(value.clone()),
            None => term_value(other, item),
        },
        Term::ListAppend(a, b) => match (term_value(a, item)?, term_value(b, item)?) {
            (Value::List(mut a), Value::List(b)) => {
                if [&a, &b].into_iter().flatten().map(Value::size).sum::<usize>() > MAX_ITEM {
                    return Err(too_large());
                }
                a.extend(b);
                Ok(Value::List(a))
            }
            (Value::List(_), other) | (other, _) => match (a.as_ref(), b.as_ref()) {
                (Term::Value(_), _) | (_, Term::Value(_)) => Err(invalid(&format!(
                    "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: \
                     list_append, operand type: {}",
                    type_name(&other)
                ))),
                _ => Err(wrong_type()),
            },
        },
    }
}

pub(super) fn too_large() -> ApiError {
    invalid("Item size to update has exceeded the maximum allowed size")
}

fn wrong_type() -> ApiError {
    invalid("An operand in the update expression has an incorrect data type")
}

fn leads_nowhere() -> ApiError {
    invalid("The document path provided in the update expression is invalid for update")
}

/// The container that a path's last step is in.
fn parent<'a>(item: &'a mut Item, path: &Path) -> Option<&'a mut Value> {
    let (_, steps) = path.0.split_last()?;
    let mut steps = steps.iter();
    let Some(Step::Name(name)) = steps.next() else { return None };
    let mut value = item.get_mut(name)?;
    for step in steps {
        value = match (value, step) {
            (Value::Map(map), Step::Name(name)) => map.get_mut(name)?,
            (Value::List(list), Step::Index(at)) => list.get_mut(*at)?,
            _ => return None,
        };
    }
    Some(value)
}

fn place(item: &mut Item, path: &Path, value: Value) -> Result<(), ApiError> {
    if let [Step::Name(name)] = &path.0[..] {
        item.insert(name.clone(), value);
        return Ok(());
    }
    match (parent(item, path).ok_or_else(leads_nowhere)?, path.0.last()) {
        (Value::Map(map), Some(Step::Name(name))) => {
            map.insert(name.clone(), value);
        }
        (Value::List(list), Some(Step::Index(at))) => match list.get_mut(*at) {
            Some(old) => *old = value,
            // Behind the end is at the end.
            None => list.push(value),
        },
        _ => return Err(leads_nowhere()),
    }
    Ok(())
}

fn remove(item: &mut Item, path: &Path) -> Result<(), ApiError> {
    if let [Step::Name(name)] = &path.0[..] {
        item.remove(name);
        return Ok(());
    }
    match (parent(item, path).ok_or_else(leads_nowhere)?, path.0.last()) {
        (Value::Map(map), Some(Step::Name(name))) => {
            map.remove(name);
        }
        (Value::List(list), Some(Step::Index(at))) => {
            if *at < list.len() {
                list.remove(*at);
            }
        }
        _ => return Err(leads_nowhere()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::expression::{self, Placeholders};
    use super::super::value::{item_json, read_item};
    use super::*;

    fn item() -> Item {
        read_item(&json!({
            "t": {"S": "hello"}, "n": {"N": "10"}, "b": {"B": "AAEC"}, "yes": {"BOOL": true},
            "l": {"L": [{"N": "1"}, {"S": "two"}, {"M": {"x": {"N": "3"}}}]},
            "m": {"M": {"a": {"S": "A"}, "c": {"S": "C"}}}, "ss": {"SS": ["p", "q"]},
        }))
        .unwrap()
    }

    fn places() -> Placeholders {
        let input = json!({"ExpressionAttributeValues": {
            ":s": {"S": "hello"}, ":h": {"S": "he"}, ":n": {"N": "10.0"}, ":nine": {"N": "9"}, ":p": {"S": "p"},
            ":two": {"S": "two"}, ":ss": {"SS": ["p", "z"]}, ":l": {"L": [{"N": "4"}]}, ":N": {"S": "N"},
        }});
        Placeholders::read(input.as_object().unwrap()).unwrap()
    }

    #[test]
    fn conditions() {
        let (item, places) = (item(), places());
        for (text, expected) in [
            ("t = :s", true),
            ("n = :n", true),
            ("n <> :n", false),
            ("n > :nine AND n <= :n", true),
            ("n BETWEEN :nine AND :n", true),
            ("t > :nine", false),
            ("t = :nine", false),
            ("t <> :nine", true),
            ("absent = :s", false),
            ("absent <> :s", true),
            ("absent < :s", false),
            ("NOT absent < :s", true),
            ("t IN (:h, :s)", true),
            ("attribute_exists(l[2].x)", true),
            ("attribute_exists(l[3])", false),
            ("attribute_not_exists(m.b)", true),
            ("attribute_type(n, :N)", true),
            ("begins_with(t, :h)", true),
            ("begins_with(n, :h)", false),
            ("contains(t, :h)", true),
            ("contains(ss, :p)", true),
            ("contains(l, :two)", true),
            ("size(l) < :nine", true),
            ("size(n) < :nine", false),
            ("size(t) = size(t)", true),
        ] {
            let condition = expression::condition("ConditionExpression", text, &places).unwrap();
            assert_eq!(holds(&condition, &item), expected, "{text}");
        }
    }

    #[test]
    fn projections_keep_the_shape() {
        let paths = expression::projection("t, l[2].x, l[0], m.c, absent.x, n.x", &places()).unwrap();
        assert_eq!(
            Json::Object(item_json(&project(&item(), &paths))),
            json!({"l": {"L": [{"N": "1"}, {"M": {"x": {"N": "3"}}}]}, "m": {"M": {"c": {"S": "C"}}},
                   "t": {"S": "hello"}})
        );
    }

    #[test]
    fn updates() {
        let (item, places) = (item(), places());
        let run =
            |text: &str| apply(&expression::update(text, &places).unwrap(), &item).map(|i| Json::Object(item_json(&i)));
        let next = run("SET n = n - :nine, k = if_not_exists(k, :s), l = list_append(l, :l), m.z = t REMOVE b, m.a \
                        ADD count1 :n, ss :ss");
        let next = next.unwrap();
        assert_eq!(next["n"], json!({"N": "1"}));
        assert_eq!(next["k"], json!({"S": "hello"}));
        assert_eq!(next["l"]["L"][3], json!({"N": "4"}));
        assert_eq!(next["m"], json!({"M": {"c": {"S": "C"}, "z": {"S": "hello"}}}));
        assert_eq!((&next["count1"], next.get("b")), (&json!({"N": "10"}), None));
        assert_eq!(next["ss"], json!({"SS": ["p", "q", "z"]}));
        assert_eq!(run("REMOVE l[0], l[1], l[9]").unwrap()["l"]["L"], json!([{"M": {"x": {"N": "3"}}}]));
        assert_eq!(run("SET l[7] = :s").unwrap()["l"]["L"][3], json!({"S": "hello"}));
        assert_eq!(run("DELETE ss :ss").unwrap()["ss"], json!({"SS": ["q"]}));
        for (text, words) in [
            ("SET x = y", "refers to an attribute that does not exist"),
            ("SET x = t + :n", "An operand in the update expression has an incorrect data type"),
            ("SET q.r = :n", "The document path provided in the update expression is invalid"),
            ("ADD t :n", "An operand in the update expression has an incorrect data type"),
            ("SET x = n + :s", "operator or function: +, operand type: S"),
        ] {
            let error = run(text).unwrap_err();
            assert!(error.message.contains(words), "{text}: {}", error.message);
        }
    }
}
