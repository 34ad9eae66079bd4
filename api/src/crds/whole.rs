//! Which parts of `spec` server-side apply takes as a whole.
//!
//! Where fields have owners one by one, an object whose last field its owner does not write any more becomes null, though he
//! writes `{}`, and the API server refuses that. An object that may be empty is therefore owned as a whole.

use serde_json::Value;

/// Marks the objects below `spec` that may be empty. What lies inside of one belongs to it.
pub(super) fn mark(spec: &mut Value) {
    below(spec);
}

fn below(schema: &mut Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(part);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner).filter(|inner| inner.is_object()) {
            part(inner);
        }
    }
}

fn part(schema: &mut Value) {
    let may_be_empty = schema["required"].as_array().is_none_or(Vec::is_empty);
    match schema["type"] == "object" && may_be_empty {
        true => schema["x-kubernetes-map-type"] = "atomic".into(),
        false => below(schema),
    }
}
