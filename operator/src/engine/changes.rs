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

/// Why the pods of `running` are replaced by those of `wanted`, as a reason and a sentence. None if they are not.
pub fn roll(running: &Value, wanted: &Value) -> Option<(Roll, String)> {
    let mut paths = Vec::new();
    differing(wanted, running, "", &mut paths);
    if paths.is_empty() {
        return None;
    }
    let annotation =
        |template: &Value, name: &str| template["metadata"]["annotations"][name].clone();
    let other = |name: &str| annotation(running, name) != annotation(wanted, name);
    let has = |part: &str| paths.iter().any(|path| path.contains(part));
    let roll = if has(".configMap.name") {
        Roll::Config
    } else if paths.iter().any(|path| path.ends_with(".image")) {
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

/// Paths at which `wanted` is not as it is. What it does not say is left alone: the server fills in defaults.
fn differing(wanted: &Value, is: &Value, path: &str, into: &mut Vec<String>) {
    match (wanted, is) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                differing(value, &is[key], &path, into);
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            for (index, item) in items.iter().enumerate() {
                let name = item["name"].as_str();
                // Items with a name are known by it, others by their place.
                let other = match name {
                    Some(name) => others.iter().find(|other| other["name"] == name),
                    None => others.get(index),
                };
                let place = name.map_or_else(|| index.to_string(), str::to_owned);
                let other = other.unwrap_or(&Value::Null);
                differing(item, other, &format!("{path}[{place}]"), into);
            }
            if items.len() < others.len() {
                into.push(path.to_owned());
            }
        }
        (Value::Null, _) => {}
        _ if wanted != is => into.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(config: &str, image: &str) -> Value {
        json!({
            "spec": {
                "containers": [{"name": "worker", "image": image}],
                "volumes": [{"name": "workers", "configMap": {"name": config}}],
            },
        })
    }

    fn running() -> Value {
        let mut running = template("c-1", "vumi:1");
        running["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent".into();
        running["spec"]["volumes"][0]["configMap"]["defaultMode"] = 420.into();
        running
    }

    #[test]
    fn defaults_of_the_server_are_no_change() {
        assert_eq!(roll(&running(), &template("c-1", "vumi:1")), None);
    }

    #[test]
    fn what_changed_is_named() {
        let (why, text) = roll(&running(), &template("c-2", "vumi:1")).unwrap();
        assert_eq!(why, Roll::Config);
        assert!(
            text.contains("spec.volumes[workers].configMap.name"),
            "{text}"
        );
        let (why, text) = roll(&running(), &template("c-1", "vumi:2")).unwrap();
        assert_eq!(why, Roll::Image);
        assert!(text.contains("spec.containers[worker].image"), "{text}");
        let mut wanted = template("c-1", "vumi:1");
        wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1Gi"}});
        assert_eq!(roll(&running(), &wanted).unwrap().0, Roll::Template);
        wanted = template("c-1", "vumi:1");
        wanted["metadata"] = json!({"annotations": {SECRETS_HASH: "x"}});
        assert_eq!(roll(&running(), &wanted).unwrap().0, Roll::Secret);
        wanted["metadata"] = json!({"annotations": {RESTARTED: "x"}});
        assert_eq!(roll(&running(), &wanted).unwrap().0, Roll::Restart);
    }
}
