//! The JSON Schema of a topology file (draft 2020-12), from the same tables of keys that the readers use.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::spec::keys::{Key, Noun, Shape, TOP};

/// The schema, as indented JSON. Keys of later versions are left out.
pub fn schema() -> String {
    let mut defs = BTreeMap::new();
    let mut root = noun(&TOP, &mut defs);
    let mut all = Map::new();
    all.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    all.insert("title".into(), "vpclab topology, version 1".into());
    if let Some(object) = root.as_object_mut() {
        object.insert("patternProperties".into(), json!({ "^x-": {} }));
        all.append(object);
    }
    all.insert("$defs".into(), Value::Object(defs.into_iter().collect()));
    let mut text = serde_json::to_string_pretty(&Value::Object(all)).unwrap_or_default();
    text.push('\n');
    text
}

type Defs = BTreeMap<String, Value>;

fn noun(noun: &'static Noun, defs: &mut Defs) -> Value {
    let mut properties = Map::new();
    for key in noun.all().filter(|k| k.usable()) {
        properties.insert(key.name.into(), property(key, defs));
    }
    let required: Vec<&str> = noun.all().filter(|k| k.must).map(|k| k.name).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &'static Key, defs: &mut Defs) -> Value {
    let mut value = shape(key.shape, defs);
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), key.doc.into());
    }
    value
}

fn reference(to: &'static Noun, defs: &mut Defs) -> Value {
    let slug: String = to.name.trim_start_matches("an ").trim_start_matches("a ").replace(' ', "_");
    let name = match (slug.as_str(), to.keys.first().map(|k| k.name)) {
        ("rule", Some("action")) => "nacl_rule".to_owned(),
        ("rule", _) => "sg_rule".to_owned(),
        _ => slug,
    };
    if !defs.contains_key(&name) {
        // Held open while its parts are made.
        defs.insert(name.clone(), Value::Null);
        let made = noun(to, defs);
        defs.insert(name.clone(), made);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn shape(shape: Shape, defs: &mut Defs) -> Value {
    let scalar = || json!({ "type": ["string", "number", "boolean"] });
    let name = json!({ "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$" });
    match shape {
        Shape::Text => scalar(),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Duration => json!({ "type": ["string", "number"] }),
        Shape::Cidr => cidr(),
        Shape::Cidrs => json!({ "anyOf": [cidr(), { "type": "array", "items": cidr(), "minItems": 1 }] }),
        Shape::Ip => json!({ "type": "string", "format": "ipv4" }),
        Shape::OneOf(words) => {
            let mut values: Vec<Value> = Vec::new();
            for w in words {
                match *w {
                    "false" => values.push(false.into()),
                    "1" => values.push(1.into()),
                    w => values.push(w.into()),
                }
            }
            json!({ "enum": values })
        }
        Shape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Shape::TextOrTexts => {
            json!({ "anyOf": [scalar(), { "type": "array", "items": { "type": "string" } }] })
        }
        Shape::TextMap => json!({ "type": "object", "additionalProperties": scalar() }),
        Shape::Noun(n) => reference(n, defs),
        Shape::Named(n) => {
            let of = reference(n, defs);
            let names = if matches!(n.name, "a service" | "a bucket" | "a queue or topic" | "a secret") {
                json!({})
            } else {
                name
            };
            json!({ "type": "object", "propertyNames": names, "additionalProperties": { "anyOf": [of, { "type": "null" }] } })
        }
        Shape::NamedOrTexts(n) => {
            let of = reference(n, defs);
            let texts = json!({ "type": "array", "items": { "type": "string" } });
            json!({ "type": "object", "propertyNames": name, "additionalProperties": { "anyOf": [of, texts, { "type": "null" }] } })
        }
        Shape::List(n) => json!({ "type": "array", "items": reference(n, defs) }),
        Shape::ListOrTexts(n) => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, reference(n, defs)] } })
        }
        Shape::NounOrText(n) => json!({ "anyOf": [{ "type": "string" }, reference(n, defs)] }),
        Shape::SgRules => {
            let rule = reference(&super::spec::keys::SG_RULE, defs);
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, rule] } })
        }
        Shape::NaclRules => {
            let rule = reference(&super::spec::keys::NACL_RULE, defs);
            json!({
                "type": "object",
                "propertyNames": { "pattern": "^[0-9]{1,5}$" },
                "additionalProperties": { "anyOf": [{ "type": "string" }, rule] },
            })
        }
        Shape::Policy => json!({ "anyOf": [
            { "const": "full" },
            { "type": "object", "required": ["file"], "properties": { "file": { "type": "string" } }, "additionalProperties": false },
            { "type": "object", "required": ["Statement"] },
        ] }),
        Shape::SubnetsOrAddresses => json!({ "anyOf": [
            { "type": "array", "items": { "type": "string" } },
            { "type": "object", "additionalProperties": { "type": ["string", "null"] } },
        ] }),
        Shape::Any => json!({}),
    }
}

fn cidr() -> Value {
    json!({ "type": "string", "pattern": "^[0-9.]+/[0-9]{1,2}$" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_json_and_every_reference_leads_somewhere() {
        let text = schema();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(value["$defs"][name].is_object(), "{name}");
        }
        assert!(value["$defs"]["VPC"]["properties"]["load_balancers"].is_null());
        assert_eq!(value["required"], json!(["version", "region", "vpcs"]));
    }
}
