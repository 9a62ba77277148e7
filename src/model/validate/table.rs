//! DynamoDB tables of a topology: their keys and items.

use serde_json::{Map, Value as Json, json};

use crate::model::plan::TablePlan;
use crate::model::spec::fields::Fields;
use crate::model::spec::node::{Node, Value};

/// An attribute and its type.
type Attribute = (String, char);

/// One table; `None`: it has no key, which was said.
pub fn read(f: &Fields<'_>, name: &str) -> Option<TablePlan> {
    let key = f.text("key")?;
    let (partition, sort) = match key_of(key.value) {
        Ok(found) => found,
        Err(message) => {
            let found = f.error(key.place, message).code("ValidationException");
            f.cx.error(found.help("`pk`, `pk, sk`, or with types `pk S, sk N`"));
            return None;
        }
    };
    let mut items = Vec::new();
    let written = f.list("items");
    for node in written {
        items.extend(item(f, node, [Some(&partition), sort.as_ref()].into_iter().flatten()));
    }
    Some(TablePlan { name: name.to_owned(), partition, sort, items })
}

/// `pk`, `pk, sk N`.
fn key_of(text: &str) -> Result<(Attribute, Option<Attribute>), String> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let mut words = part.split_whitespace();
        let (name, kind) = (words.next().unwrap_or(""), words.next().unwrap_or("S"));
        let kind = match kind {
            "S" => 'S',
            "N" => 'N',
            "B" => 'B',
            _ => return Err(format!("`{kind}` is no type of a key: S, N or B")),
        };
        if !(1..=255).contains(&name.len()) || words.next().is_some() {
            return Err(format!("`{part}` is no attribute of a key"));
        }
        found.push((name.to_owned(), kind));
    }
    let mut found = found.into_iter();
    match (found.next(), found.next(), found.next()) {
        (Some(partition), sort, None) if sort.as_ref().is_none_or(|s| s.0 != partition.0) => Ok((partition, sort)),
        _ => Err("a table's key is one attribute, or two of different names".into()),
    }
}

fn item<'a>(f: &Fields<'_>, node: &Node, keys: impl Iterator<Item = &'a Attribute>) -> Option<Json> {
    let Value::Map(entries) = &node.value else {
        f.cx.error(f.error(node.place, format!("an item is a map from attribute to value, not {}", node.kind())));
        return None;
    };
    let mut item: Map<String, Json> = entries.iter().map(|e| (e.key.clone(), value(&e.node))).collect();
    for (name, kind) in keys {
        // Texts of keys are of the key's type: `id: 012` may be a text.
        match node.get(name).and_then(Node::text) {
            Some(text) => {
                if *kind == 'N' && !is_number(text) {
                    let place = node.get(name).map_or(node.place, |n| n.place);
                    f.cx.error(f.error(place, format!("`{text}` is no number")).code("ValidationException"));
                }
                item.insert(name.clone(), Json::Object(Map::from_iter([(kind.to_string(), text.into())])));
            }
            None => {
                let found = f.error(node.place, format!("Missing the key {name} in the item"));
                f.cx.error(found.code("ValidationException"));
            }
        }
    }
    Some(Json::Object(item))
}

/// A value in DynamoDB's form: plain `true` and numbers get their types, all other texts are S.
fn value(node: &Node) -> Json {
    match &node.value {
        Value::Null => json!({ "NULL": true }),
        Value::Text(t) if t.plain && matches!(t.text.as_str(), "true" | "false") => json!({ "BOOL": t.text == "true" }),
        Value::Text(t) if t.plain && is_number(&t.text) => json!({ "N": t.text }),
        Value::Text(t) => json!({ "S": t.text }),
        Value::List(list) => json!({ "L": list.iter().map(value).collect::<Vec<_>>() }),
        Value::Map(entries) => {
            let map: Map<String, Json> = entries.iter().map(|e| (e.key.clone(), value(&e.node))).collect();
            json!({ "M": map })
        }
    }
}

/// A decimal of at most 38 digits; `012` is an id, not a number.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits) && text.len() <= 38
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_or_two_attributes() {
        let s = |n: &str| (n.to_owned(), 'S');
        assert_eq!(key_of("pk"), Ok((s("pk"), None)));
        assert_eq!(key_of("pk, at N"), Ok((s("pk"), Some(("at".into(), 'N')))));
        for bad in ["", "a,", "a b", "a, a", "a,b,c", "a S S"] {
            assert!(key_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_plain_decimals() {
        for (text, number) in [("0", true), ("-1.5", true), ("012", false), ("1e5", false), ("", false), ("1.", false)]
        {
            assert_eq!(is_number(text), number, "{text}");
        }
    }
}
