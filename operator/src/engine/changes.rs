//! What a new pod template changes, in words: pods that are replaced have a reason that is told.

use serde_json::Value;
use vumi_plan::names::{RESTARTED, SECRETS_HASH};

/// Paths that are named at most.
const NAMED: usize = 5;

/// Why pods are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// What the worker reads has changed.
    Config,
    /// Another version of the runtime, or another image.
    Image,
    /// A Secret of a program that is started anew for it.
    Secret,
    /// Somebody asked for it.
    Restart,
    /// Anything else: resources, overrides.
    Template,
}

impl Roll {
    /// As events have it.
    pub fn reason(self) -> &'static str {
        match self {
            Roll::Config => "ConfigChanged",
            Roll::Image => "ImageChanged",
            Roll::Secret => "SecretChanged",
            Roll::Restart => "Restarted",
            Roll::Template => "PodTemplateChanged",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Roll::Config => "what the worker reads has changed",
            Roll::Image => "they get another image",
            Roll::Secret => "a Secret has changed that the program reads at its start",
            Roll::Restart => "somebody asked for new ones",
            Roll::Template => "their template has changed",
        }
    }
}

/// Why the pods of one template are replaced by those of another, as a reason and a sentence. None if they are not. Both are as the
/// API server has them, defaults included: so a field that is not wanted any more is told from one that nobody wrote.
pub fn roll(before: &Value, after: &Value) -> Option<(Roll, String)> {
    let mut paths = Vec::new();
    differing(before, after, "", &mut paths);
    if paths.is_empty() {
        return None;
    }
    let annotation =
        |template: &Value, name: &str| template["metadata"]["annotations"][name].clone();
    let other = |name: &str| annotation(before, name) != annotation(after, name);
    let ends = |part: &str| paths.iter().any(|path| path.ends_with(part));
    let roll = if ends(".configMap.name") {
        Roll::Config
    } else if ends(".image") {
        Roll::Image
    } else if other(SECRETS_HASH) {
        Roll::Secret
    } else if other(RESTARTED) && paths.len() == 1 {
        Roll::Restart
    } else {
        Roll::Template
    };
    let more = paths.len().saturating_sub(NAMED);
    paths.truncate(NAMED);
    let mut named = paths.join(", ");
    if more > 0 {
        named = format!("{named} and {more} more");
    }
    Some((
        roll,
        format!("pods are replaced: {} ({named})", roll.words()),
    ))
}

/// What is said of a path at which there is nothing any more.
const REMOVED: &str = " (removed)";

/// Paths at which two templates differ.
fn differing(before: &Value, after: &Value, path: &str, into: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let below = |key: &String| match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            for (key, value) in new {
                differing(&before[key], value, &below(key), into);
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                differing(value, &Value::Null, &below(key), into);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            // Items with a name are known by it, others by their place.
            let place = |index: usize, item: &Value| match item["name"].as_str() {
                Some(name) => format!("{path}[{name}]"),
                None => format!("{path}[{index}]"),
            };
            let same = |items: &[Value], index: usize, item: &Value| match &item["name"] {
                Value::String(name) => items.iter().find(|other| other["name"] == *name).cloned(),
                _ => items.get(index).cloned(),
            };
            for (index, item) in new.iter().enumerate() {
                let other = same(old, index, item).unwrap_or_default();
                differing(&other, item, &place(index, item), into);
            }
            for (index, item) in old.iter().enumerate() {
                if same(new, index, item).is_none() {
                    differing(item, &Value::Null, &place(index, item), into);
                }
            }
        }
        _ if before == after => {}
        (_, Value::Null) => into.push(format!("{path}{REMOVED}")),
        _ => into.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As the API server has it, defaults included.
    fn running() -> Value {
        json!({
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "containers": [{"name": "worker", "image": "vumi:1", "imagePullPolicy": "IfNotPresent"}],
                "volumes": [{"name": "workers", "configMap": {"name": "c-1", "defaultMode": 420}}],
            },
        })
    }

    #[test]
    fn the_same_template_replaces_nothing() {
        assert_eq!(roll(&running(), &running()), None);
        let mut empty = running();
        empty["metadata"]["creationTimestamp"] = Value::Null;
        assert_eq!(roll(&empty, &running()), None);
        assert_eq!(roll(&running(), &empty), None);
    }

    #[test]
    fn what_changed_is_named() {
        let with = |path: &str, value: Value| {
            let mut after = running();
            *after.pointer_mut(path).unwrap() = value;
            after
        };
        let after = with("/spec/volumes/0/configMap/name", "c-2".into());
        let (why, text) = roll(&running(), &after).unwrap();
        assert_eq!(why, Roll::Config);
        assert!(
            text.ends_with("(spec.volumes[workers].configMap.name)"),
            "{text}"
        );
        let after = with("/spec/containers/0/image", "vumi:2".into());
        let (why, text) = roll(&running(), &after).unwrap();
        assert_eq!(why, Roll::Image);
        assert!(text.ends_with("(spec.containers[worker].image)"), "{text}");
        let mut after = running();
        after["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1Gi"}});
        assert_eq!(roll(&running(), &after).unwrap().0, Roll::Template);
        let after = with(
            "/metadata",
            json!({"annotations": {"a": "b", SECRETS_HASH: "x"}}),
        );
        assert_eq!(roll(&running(), &after).unwrap().0, Roll::Secret);
        let after = with(
            "/metadata",
            json!({"annotations": {"a": "b", RESTARTED: "x"}}),
        );
        assert_eq!(roll(&running(), &after).unwrap().0, Roll::Restart);
    }

    /// Nothing else is left of it than that it was there before.
    #[test]
    fn what_was_removed_is_named() {
        let mut before = running();
        before["spec"]["priorityClassName"] = "high".into();
        before["spec"]["tolerations"] = json!([{"key": "a"}, {"key": "b"}]);
        before["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
        let containers = before["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({"name": "beside", "image": "other"}));
        let mut after = before.clone();
        let fields = after["spec"].as_object_mut().unwrap();
        fields.remove("priorityClassName");
        after["spec"]["tolerations"] = json!([{"key": "a"}]);
        after["spec"]["containers"] = running()["spec"]["containers"].clone();
        let (why, text) = roll(&before, &after).unwrap();
        assert_eq!(why, Roll::Template);
        for path in [
            "spec.priorityClassName (removed)",
            "spec.tolerations[1] (removed)",
            "spec.containers[worker].env (removed)",
            "spec.containers[beside] (removed)",
        ] {
            assert!(text.contains(path), "{path} in {text}");
        }
        // The way back: what comes is named as it is.
        let (_, text) = roll(&after, &before).unwrap();
        assert!(text.contains("spec.priorityClassName"), "{text}");
        assert!(!text.contains(REMOVED), "{text}");
    }
}
