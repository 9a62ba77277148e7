//! The tree: YAML without its types. A scalar stays text until a reader asks for a number, so that account numbers,
//! dates and ids are taken as written.

use super::source::Place;

#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing was written, or a plain `null` or `~`.
    Null,
    Text(Text),
    List(Vec<Node>),
    /// In the order of the file; no key twice.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    /// Written without quotes: only then `true` and `1` in a policy are JSON's.
    pub plain: bool,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Entry {
    /// Where to point when the value is at fault: the key if nothing was written after it.
    pub fn place(&self) -> Place {
        if self.node.place.is_empty() { self.key_place } else { self.node.place }
    }
}

impl Node {
    pub fn null(place: Place) -> Node {
        Node { place, value: Value::Null }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(t) => Some(&t.text),
            _ => None,
        }
    }

    /// Entries of a map; nothing for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(e) => e,
            _ => &[],
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// `a map`, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Every text in the tree, depth first.
    pub fn each_text_mut(&mut self, f: &mut dyn FnMut(Place, &mut String)) {
        match &mut self.value {
            Value::Null => {}
            Value::Text(t) => f(self.place, &mut t.text),
            Value::List(items) => items.iter_mut().for_each(|n| n.each_text_mut(f)),
            Value::Map(entries) => entries.iter_mut().for_each(|e| e.node.each_text_mut(f)),
        }
    }

    pub fn each_text(&self, f: &mut dyn FnMut(Place, &str)) {
        match &self.value {
            Value::Null => {}
            Value::Text(t) => f(self.place, &t.text),
            Value::List(items) => items.iter().for_each(|n| n.each_text(f)),
            Value::Map(entries) => entries.iter().for_each(|e| e.node.each_text(f)),
        }
    }

    /// The same as JSON; plain `true`, `false`, `null` and whole numbers get JSON's types.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Text(t) if t.plain => match t.text.as_str() {
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                text => match text.parse::<i64>() {
                    Ok(n) if n.to_string() == text => Json::from(n),
                    _ => Json::String(text.to_owned()),
                },
            },
            Value::Text(t) => Json::String(t.text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect()),
        }
    }
}
