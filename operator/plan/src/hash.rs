//! Hashes of what objects are made from. They stand in names and annotations, and they are what "unchanged" means.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Length of a hash, in hexadecimal digits: 40 bits are enough to tell the versions of one worker apart, and leave room in
/// names.
const DIGITS: usize = 10;

/// The hash of a value. The order of keys does not count, that of lists does.
pub fn hash(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    let mut hex = String::new();
    for byte in digest.iter().take(DIGITS / 2) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The hash of an object without the reference to its owner, which only a cluster knows: the same offline.
pub fn without_owner(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    hash(&object)
}

/// JSON with the keys of every object in order.
fn canonical(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            into.push('{');
            for (key, value) in fields {
                let _ = write!(into, "{}:", Value::from(key.as_str()));
                canonical(value, into);
                into.push(',');
            }
            into.push('}');
        }
        Value::Array(items) => {
            into.push('[');
            for item in items {
                canonical(item, into);
                into.push(',');
            }
            into.push(']');
        }
        leaf => {
            let _ = write!(into, "{leaf}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_count_and_that_of_lists_does() {
        assert_eq!(
            hash(&json!({"a": 1, "b": {"c": 2, "d": 3}})),
            hash(&json!({"b": {"d": 3, "c": 2}, "a": 1}))
        );
        assert_ne!(hash(&json!([1, 2])), hash(&json!([2, 1])));
        assert_ne!(hash(&json!({"a": 1})), hash(&json!({"a": "1"})));
        assert_eq!(hash(&json!({})).len(), DIGITS);
    }

    #[test]
    fn whose_an_object_is_does_not_count() {
        let owned = json!({"metadata": {"name": "a", "ownerReferences": [{"uid": "1"}]}});
        assert_eq!(
            without_owner(&owned),
            hash(&json!({"metadata": {"name": "a"}}))
        );
        assert_eq!(without_owner(&json!({})), hash(&json!({"metadata": null})));
    }
}
