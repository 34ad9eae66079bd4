//! Which fields of an object are still ours, read from its managed fields: whoever else writes one of them takes it out of our
//! entry, so that drift shows without the object (K23).

use crate::client::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

/// The fields that our own apply holds, as JSON. None if there are none.
pub fn ours(entries: &[ManagedFieldsEntry]) -> Option<Box<str>> {
    let ours = entries.iter().find(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })?;
    let fields = ours.fields_v1.as_ref()?;
    Some(fields.0.to_string().into_boxed_str())
}

/// The first field of `wanted` that is not among `fields`; none if all are.
pub fn lost(wanted: &Value, fields: &str) -> Option<String> {
    let Ok(fields) = serde_json::from_str::<Value>(fields) else {
        return Some("managedFields".into());
    };
    let wanted = wanted.as_object()?;
    for (key, value) in wanted {
        // What names an object is held by nobody.
        if ["apiVersion", "kind"].contains(&key.as_str()) {
            continue;
        }
        let held = &fields[format!("f:{key}")];
        if key == "metadata" {
            for (key, value) in value.as_object().into_iter().flatten() {
                if !["name", "namespace", "creationTimestamp"].contains(&key.as_str()) {
                    let lost = field(value, &held[format!("f:{key}")], &format!("metadata.{key}"));
                    if lost.is_some() {
                        return lost;
                    }
                }
            }
        } else if let Some(lost) = field(value, held, key) {
            return Some(lost);
        }
    }
    None
}

/// The first field at or below `path` that is not held.
fn field(wanted: &Value, held: &Value, path: &str) -> Option<String> {
    if wanted.is_null() {
        return None;
    }
    let Some(below) = held.as_object() else {
        return Some(path.to_owned());
    };
    // A leaf, or a part that is held as a whole.
    if below.is_empty() {
        return None;
    }
    match wanted {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            // Metadata of a template comes back with what the server puts in.
            if key == "creationTimestamp" {
                return None;
            }
            let held = below.get(&format!("f:{key}")).unwrap_or(&Value::Null);
            field(value, held, &format!("{path}.{key}"))
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let path = format!("{path}[{index}]");
            match item_of(item, below) {
                Some(held) => field(item, held, &path),
                None => Some(path),
            }
        }),
        _ => None,
    }
}

/// What is held of an item of a list: lists are held by the keys of their items, or by their values.
fn item_of<'a>(item: &Value, held: &'a serde_json::Map<String, Value>) -> Option<&'a Value> {
    held.iter().find_map(|(name, below)| {
        let fits = match (name.strip_prefix("k:"), name.strip_prefix("v:")) {
            (Some(keys), _) => serde_json::from_str::<Value>(keys).is_ok_and(|keys| {
                let keys = keys.as_object().into_iter().flatten();
                // A key that was not written has its default.
                keys.into_iter()
                    .all(|(key, value)| item[key].is_null() || item[key] == *value)
            }),
            (_, Some(value)) => serde_json::from_str::<Value>(value).is_ok_and(|v| v == *item),
            _ => false,
        };
        fits.then_some(below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIELDS: &str = r#"{
        "f:metadata": {
            "f:labels": {"f:a": {}},
            "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}
        },
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}},
            "f:policyTypes": {},
            "f:finalizers": {"v:\"x\"": {}}
        }
    }"#;

    fn wanted() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "s",
                "namespace": "n",
                "labels": {"a": "1"},
                "ownerReferences": [{"uid": "u", "kind": "Transport"}],
            },
            "spec": {
                "replicas": 1,
                "selector": {"any": "thing"},
                "ports": [{"port": 80, "name": "http"}],
                "policyTypes": ["Ingress"],
                "finalizers": ["x"],
            },
        })
    }

    #[test]
    fn all_fields_are_ours() {
        assert_eq!(lost(&wanted(), FIELDS), None);
    }

    #[test]
    fn a_field_of_somebody_else_is_named() {
        for (taken, path) in [
            (r#""f:replicas": {},"#, "spec.replicas"),
            (r#", "f:name": {}"#, "spec.ports[0].name"),
            (r#""f:a": {}"#, "metadata.labels.a"),
            (r#""v:\"x\"": {}"#, "spec.finalizers[0]"),
        ] {
            let rest = FIELDS.replace(taken, "");
            assert_ne!(rest, FIELDS, "{taken}");
            let rest = rest.replace("{}\n        ,", "{}");
            let found = lost(&wanted(), &rest);
            // An emptied parent is a leaf that is held as a whole; then nothing is amiss below it.
            let emptied =
                rest.contains(r#""f:labels": {}"#) || rest.contains(r#""f:finalizers": {}"#);
            match emptied {
                true => assert_eq!(found, None, "{taken}"),
                false => assert_eq!(found.as_deref(), Some(path), "{taken}"),
            }
        }
        let other = FIELDS.replace("\"port\\\":80", "\"port\\\":81");
        assert_ne!(other, FIELDS);
    }

    #[test]
    fn another_owner_is_not_ours() {
        let mut wanted = wanted();
        wanted["metadata"]["ownerReferences"][0]["uid"] = "other".into();
        let lost = lost(&wanted, FIELDS);
        assert_eq!(lost.as_deref(), Some("metadata.ownerReferences[0]"));
    }

    #[test]
    fn what_the_server_adds_is_not_missed() {
        let mut wanted = wanted();
        wanted["spec"]["template"] = Value::Null;
        assert_eq!(lost(&wanted, FIELDS), None);
    }
}
