//! Which fields differ between two versions of a worker, and what of their values may be shown.

use super::{Change, Shown, Side};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::Resource;

/// Every leaf that differs, of what the worker reads: settings about pods concern the operator alone.
pub(super) fn changes(old: &Side<'_>, new: &Side<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let view = |side: &Side<'_>| side.entry.resource.runtime_view();
    let (was, will) = (view(old), view(new));
    if was.spec != will.spec {
        let (was, will) = (leaves(&was), leaves(&will));
        let paths: BTreeSet<&String> = was.keys().chain(will.keys()).collect();
        for path in paths {
            let (a, b) = (was.get(path), will.get(path));
            if a != b {
                changes.push(Change {
                    path: path.clone(),
                    old: shown(path, a),
                    new: shown(path, b),
                });
            }
        }
        if changes.is_empty() {
            // Values that write alike and are not equal: still another configuration.
            changes.push(Change {
                path: "spec".into(),
                old: Shown::Hidden,
                new: Shown::Hidden,
            });
        }
    }
    for (path, a, b) in [
        ("broker", old.entry.broker, new.entry.broker),
        ("state", old.entry.state, new.entry.state),
    ] {
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            changes.push(Change {
                path: path.into(),
                old: Shown::Text(a.to_owned()),
                new: Shown::Text(b.to_owned()),
            });
        }
    }
    changes
}

/// A plain secret stands in a manifest as `{value: …}`: no field of that name is ever shown.
fn shown(path: &str, value: Option<&Value>) -> Shown {
    match value {
        None => Shown::Absent,
        Some(_) if path.ends_with(".value") => Shown::Hidden,
        Some(value) => Shown::Text(value.to_string()),
    }
}

/// The spec as paths and values, without objects and lists around them.
fn leaves(resource: &Resource) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect("spec", resource.spec.to_json(), &mut found);
    found
}

fn collect(path: &str, value: Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                collect(&format!("{path}.{key}"), value, found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.into_iter().enumerate() {
                collect(&format!("{path}[{index}]"), value, found);
            }
        }
        leaf => {
            found.insert(path.to_owned(), leaf);
        }
    }
}
