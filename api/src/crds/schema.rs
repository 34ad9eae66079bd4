//! From a Rust type to a structural schema that Kubernetes accepts: one tree without references, nulls, foreign formats
//! or defaults (K24).

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The structural schema of `T`.
pub(super) fn of<T: JsonSchema>() -> Value {
    let schema = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .into_generator()
        .into_root_schema_for::<T>();
    let mut value = schema.to_value();
    clean(&mut value);
    value
}

/// Rewrites a schema and everything below it in place.
fn clean(schema: &mut Value) {
    if schema.as_bool() == Some(true) {
        *schema = json!({});
    }
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    unwrap_option(fields);
    collect_enum(fields);
    for key in ["title", "$schema", "default", "nullable"] {
        fields.remove(key);
    }
    // Rust's own number formats mean nothing to Kubernetes: their bounds are stated instead.
    if let Some(format) = fields.get("format").and_then(Value::as_str) {
        let bounds = match format {
            "int32" => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
            "uint8" => Some((0, i64::from(u8::MAX))),
            "uint16" => Some((0, i64::from(u16::MAX))),
            "uint32" => Some((0, i64::from(u32::MAX))),
            _ => None,
        };
        if let Some((least, most)) = bounds {
            fields.entry("minimum").or_insert_with(|| least.into());
            fields.entry("maximum").or_insert_with(|| most.into());
        }
        fields.remove("format");
    }
    // Unknown keys are refused by Kubernetes itself where properties are listed.
    if fields.get("additionalProperties").and_then(Value::as_bool) == Some(false) {
        fields.remove("additionalProperties");
        // A struct without fields: "no field may stand here" is not "anything may". The API server takes an object
        // without properties for the latter and drops what is written there, unless it is kept and counted.
        if !fields.contains_key("properties") {
            fields.insert("properties".into(), json!({}));
            fields.insert("maxProperties".into(), 0.into());
            fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
    }
    if let Some(text) = fields.get("description").and_then(Value::as_str) {
        let text = paragraphs(text);
        fields.insert("description".into(), text.into());
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(key) {
            clean(below);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(clean);
    }
}

/// `Option<T>` is `T`: what is not wanted is not written, and a bare `key:` is a slip that deserves a message.
fn unwrap_option(fields: &mut Map<String, Value>) {
    let is_null = |schema: &Value| schema["type"] == "null";
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(members)) = fields.get(key) else {
            continue;
        };
        let kept: Vec<Value> = members.iter().filter(|m| !is_null(m)).cloned().collect();
        if kept.len() == members.len() {
            continue;
        }
        fields.remove(key);
        if let [Value::Object(only)] = kept.as_slice() {
            for (name, value) in only {
                fields.entry(name.clone()).or_insert_with(|| value.clone());
            }
        } else {
            fields.insert(key.into(), kept.into());
        }
    }
    if let Some(Value::Array(types)) = fields.get("type") {
        let kept: Vec<Value> = types.iter().filter(|t| *t != "null").cloned().collect();
        if let [only] = kept.as_slice() {
            fields.insert("type".into(), only.clone());
        }
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

/// An enum of named variants: the names, with what each means added to the description.
fn collect_enum(fields: &mut Map<String, Value>) {
    let Some(Value::Array(members)) = fields.get("oneOf") else {
        return;
    };
    let variants: Option<Vec<(String, String)>> = members
        .iter()
        .map(|member| {
            let name = member["const"].as_str().or_else(|| {
                match member["enum"].as_array()?.as_slice() {
                    [only] => only.as_str(),
                    _ => None,
                }
            })?;
            let meaning = member["description"].as_str().unwrap_or_default();
            Some((name.to_owned(), meaning.trim_end_matches('.').to_owned()))
        })
        .collect();
    let Some(variants) = variants else { return };
    fields.remove("oneOf");
    fields.insert("type".into(), "string".into());
    let names: Vec<&String> = variants.iter().map(|(name, _)| name).collect();
    fields.insert("enum".into(), json!(names));
    let meanings: Vec<String> = variants
        .iter()
        .map(|(name, meaning)| format!("`{name}`: {meaning}."))
        .collect();
    let own = fields
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = format!("{own}\n\n{}", meanings.join(" "));
    fields.insert("description".into(), text.into());
}

/// Lines of a doc comment joined to paragraphs.
fn paragraphs(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| {
            paragraph
                .split('\n')
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect::<Vec<_>>()
        .join("\n\n")
}
