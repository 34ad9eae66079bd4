//! A misspelt key in every object of every example is found: file, line, column, path and the right name.

use serde_json::{Map, Value};
use vumi_api::crds::root_schema;
use vumi_api::manifest::load;
use vumi_api::{Kind, Severity, Target};

/// One object of a document: JSON pointer, path as findings write it, names that may stand in it.
struct Object {
    pointer: String,
    path: String,
    names: Vec<String>,
}

/// Objects with a fixed set of fields. Free maps have none, and nothing can be misspelt in them.
fn objects(schema: &Value, value: &Value, pointer: &str, path: &str, into: &mut Vec<Object>) {
    let names: Vec<String> = schema["properties"]
        .as_object()
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default();
    if let Some(fields) = value.as_object() {
        if schema["properties"].is_object() || pointer.is_empty() {
            into.push(Object {
                pointer: pointer.to_owned(),
                path: path.to_owned(),
                names,
            });
        }
        for (key, below) in fields {
            let schema = match &schema["properties"][key] {
                Value::Null => &schema["additionalProperties"],
                found => found,
            };
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            objects(schema, below, &format!("{pointer}/{key}"), &path, into);
        }
    }
    for (index, below) in value.as_array().into_iter().flatten().enumerate() {
        let pointer = format!("{pointer}/{index}");
        objects(
            &schema["items"],
            below,
            &pointer,
            &format!("{path}[{index}]"),
            into,
        );
    }
}

/// A name that does not exist, one slip away from `name`.
fn misspelt(name: &str) -> String {
    format!("{name}x")
}

#[test]
fn at_every_depth_of_every_example() {
    let mut tried = 0;
    let mut deepest = 0;
    for (file, text) in crate::examples() {
        for document in text.split("\n---\n") {
            let document: Value = serde_yaml::from_str(document).unwrap();
            let Some(kind) = Kind::ALL
                .into_iter()
                .find(|k| document["kind"] == k.as_str())
            else {
                continue;
            };
            let mut all = Vec::new();
            objects(root_schema(kind), &document, "", "", &mut all);
            for object in all {
                let names = match object.path.as_str() {
                    "metadata" => vec!["namespace".to_owned()],
                    _ => object.names.clone(),
                };
                for name in names {
                    try_one(&file, &document, &object, &name);
                    tried += 1;
                }
                if object.names.is_empty() {
                    // `echo: {}`: no field to misspell, any key is wrong.
                    try_one(&file, &document, &object, "");
                }
                deepest = deepest.max(object.pointer.matches('/').count());
            }
        }
    }
    assert!(tried > 200 && deepest >= 5, "{tried} keys, depth {deepest}");
}

fn try_one(file: &str, document: &Value, object: &Object, name: &str) {
    let key = misspelt(name);
    let mut wrong = document.clone();
    let place = match object.pointer.as_str() {
        "" => Some(&mut wrong),
        pointer => wrong.pointer_mut(pointer),
    };
    let fields: &mut Map<String, Value> = place.unwrap().as_object_mut().unwrap();
    fields.insert(key.clone(), serde_json::json!({"a": 1}));
    let text = yaml(&wrong);

    let read = load(&[(file, &text)], Target::Local);
    let path = match object.path.as_str() {
        "" => key.clone(),
        path => format!("{path}.{key}"),
    };
    let found = read
        .findings
        .iter()
        .find(|f| f.code == "manifest.unknown_field" && f.path == path)
        .unwrap_or_else(|| {
            panic!(
                "no finding for {path} of {file}: {:?}\n{text}",
                read.findings
            )
        });
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(found.file, file);
    let line = text.lines().nth(found.line - 1).unwrap();
    assert!(
        line[found.column - 1..].starts_with(&format!("{key}:")),
        "{found} is not at\n{line}"
    );
    if !name.is_empty() {
        let help = found.help.as_deref().unwrap_or_default();
        assert_eq!(help, format!("did you mean {name}?"), "{found}");
    }
    assert!(
        read.resources
            .iter()
            .all(|r| r.file != file || read.resources.is_empty())
    );
    assert!(read.has_errors());
}

/// JSON as YAML with whole numbers as they are.
fn yaml(value: &Value) -> String {
    let plain: serde_yaml::Value = serde_yaml::from_str(&value.to_string()).unwrap();
    serde_yaml::to_string(&plain).unwrap()
}
