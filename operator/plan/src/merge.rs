//! Overrides: a change of a pod template merged into it as JSON (K21). As JSON, so that a key that nobody knows reaches the
//! API server's check instead of being lost here.

use serde_json::{Map, Value, json};
use vumi_api::shared::Overrides;

/// Lists whose items have a key, by the name of the list: an item changes the one with the same key, or is added. All other
/// lists are replaced. The keys are those of Kubernetes' own strategic merge of pod templates.
const KEYED: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("ports", &["containerPort", "protocol"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
];

/// Merges `overrides` into a pod template.
pub fn overrides(template: &mut Value, overrides: &Overrides) {
    let changes = serde_json::to_value(overrides).unwrap_or_default();
    merge(template, &changes);
}

/// Merges `change` into `value`: objects key by key, `null` removes, lists as [`KEYED`] says.
fn merge(value: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *value = change.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let Value::Object(fields) = value else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
            continue;
        }
        let keys = KEYED.iter().find(|(list, _)| list == key);
        match (keys, change) {
            (Some((_, keys)), Value::Array(items)) => {
                let list = fields.entry(key.clone()).or_insert_with(|| json!([]));
                merge_list(list, items, keys);
            }
            _ => merge(fields.entry(key.clone()).or_insert(Value::Null), change),
        }
    }
}

fn merge_list(list: &mut Value, changes: &[Value], keys: &[&str]) {
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(items) = list else { return };
    for change in changes {
        let keyed = change
            .as_object()
            .filter(|fields| fields.get(keys[0]).is_some_and(is_key));
        let Some(fields) = keyed else {
            // Without a key it can't mean another item; that it lacks one, the API server's check says.
            let item = added(change);
            if !items.contains(&item) {
                items.push(item);
            }
            continue;
        };
        let place = items.iter().position(|item| same(item, fields, keys));
        let removed = fields.get("$patch").is_some_and(|word| word == "delete");
        match (place, removed) {
            (Some(at), true) => {
                items.remove(at);
            }
            (Some(at), false) => merge(&mut items[at], change),
            (None, true) => {}
            (None, false) => items.push(added(change)),
        }
    }
}

/// A change as an item of its own: without what it removes.
fn added(change: &Value) -> Value {
    let mut item = Value::Null;
    merge(&mut item, change);
    item
}

/// A name, a number: what items can be told apart by.
fn is_key(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// Whether an item is the one that a change means: the first key is equal, and of the others those that both have. A port
/// without a protocol is one of TCP.
fn same(item: &Value, change: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().enumerate().all(|(n, key)| {
        let (a, b) = (item.get(key), change.get(*key));
        match (*key, n) {
            ("protocol", _) => {
                let word = |value: Option<&Value>| {
                    value.and_then(Value::as_str).unwrap_or("TCP").to_owned()
                };
                word(a) == word(b)
            }
            (_, 0) => a.is_some() && a == b,
            _ => a.is_none() || b.is_none() || a == b,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(mut value: Value, change: Value) -> Value {
        merge(&mut value, &change);
        value
    }

    #[test]
    fn items_with_a_key_are_changed_and_others_added() {
        let template = json!({"spec": {
            "containers": [{"name": "worker", "image": "a", "env": [{"name": "A", "value": "1"}]}],
            "tolerations": [{"key": "x"}],
        }});
        let change = json!({"spec": {
            "containers": [
                {"name": "worker", "env": [{"name": "B", "value": "2"}]},
                {"name": "beside", "image": "b"},
            ],
            "tolerations": [{"key": "y"}],
            "nodeSelektor": {"a": "b"},
        }});
        let expected = json!({"spec": {
            "containers": [
                {"name": "worker", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "beside", "image": "b"},
            ],
            "tolerations": [{"key": "y"}],
            // A slip is kept: the API server refuses it.
            "nodeSelektor": {"a": "b"},
        }});
        assert_eq!(merged(template, change), expected);
    }

    #[test]
    fn null_removes_a_field_and_a_patch_an_item() {
        let template = json!({"securityContext": {"runAsUser": 1, "fsGroup": 1}, "volumes": [{"name": "a"}, {"name": "b"}]});
        let change = json!({"securityContext": {"runAsUser": null}, "volumes": [{"name": "a", "$patch": "delete"}]});
        assert_eq!(
            merged(template, change),
            json!({"securityContext": {"fsGroup": 1}, "volumes": [{"name": "b"}]})
        );
    }

    #[test]
    fn an_item_without_a_usable_key_is_added_once() {
        let change = json!({"containers": [{"image": "a"}, {"name": null}, {"name": {"env": null}}, {"name": ["a", "b"]}]});
        let once = merged(json!({"containers": [{"name": "worker"}]}), change.clone());
        let expected = json!({"containers": [{"name": "worker"}, {"image": "a"}, {}, {"name": {}}, {"name": ["a", "b"]}]});
        assert_eq!(once, expected);
        assert_eq!(merged(once, change), expected);
    }

    #[test]
    fn a_port_is_found_by_number_and_protocol() {
        let template =
            json!({"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]});
        let change = json!({"ports": [{"containerPort": 53, "protocol": "TCP", "name": "t"}]});
        assert_eq!(
            merged(template, change),
            json!({"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP", "name": "t"}]})
        );
    }
}
