//! The rules that a schema cannot say, as CEL in `x-kubernetes-validations`, and the tables of names behind them. The
//! API server evaluates them, and so does `vumi lint`.

use super::pods;
use crate::resource::{Kind, WorkerType};
use crate::shared::deployment::DEPLOYMENT_SETTINGS;
use crate::shared::shapes;
use serde_json::{Value, json};

/// Shared settings of this and later versions (K25): no worker type may have such a name, and those that a kind does
/// not have are refused as "not supported yet".
pub const RESERVED_SETTINGS: &[&str] = &[
    "broker",
    "state",
    "transportName",
    "ordering",
    "classes",
    "backlogLimit",
    "holdLimit",
    "onUnknown",
    "legacyFailures",
    "legacyKeys",
    "dedupe",
    "allowVolatileState",
    "retention",
    "replicas",
    "autoscaling",
    "suspend",
    "updatePolicy",
    "placement",
    "retry",
    "http",
    "client",
    "tls",
    "rateLimit",
    "session",
    "middleware",
    "service",
    "binds",
    "readiness",
    "resources",
    "pod",
    "networkPolicy",
    "deletionPolicy",
    "overrides",
];

/// Words of CEL, which no field of a rule may be called.
pub const CEL_WORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The exactly-one rule over `keys` of an object (K20); the message names what was found.
pub fn one_of(what: &str, keys: &[&str]) -> Value {
    let present: Vec<String> = keys.iter().map(|key| format!("has(self.{key})")).collect();
    let absent: Vec<String> = keys.iter().map(|key| format!("!has(self.{key})")).collect();
    let found: Vec<String> = keys
        .iter()
        .map(|key| format!("(has(self.{key}) ? ' {key}' : '')"))
        .collect();
    let sentence = format!("exactly one {what} is needed (one of {})", keys.join(", "));
    json!({
        "rule": format!("[{}].filter(x, x).size() == 1", present.join(", ")),
        "message": sentence,
        "messageExpression": format!(
            "'{sentence}; found:' + {} + ({} ? ' none' : '')",
            found.join(" + "),
            absent.join(" && "),
        ),
    })
}

/// Settings of a kind that only some worker types honour, with these types: elsewhere such a setting is refused, because
/// one without effect is a mistake that nobody notices.
pub(crate) fn only_for(kind: Kind) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut settings: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for worker in kind.worker_types() {
        for setting in worker.needs.iter().chain(worker.honours) {
            match settings.iter_mut().find(|(name, _)| name == setting) {
                Some((_, types)) => types.push(worker.key),
                None => settings.push((setting, vec![worker.key])),
            }
        }
    }
    settings
}

fn add(schema: &mut Value, rule: Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    let rules = fields
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    if let Some(rules) = rules.as_array_mut() {
        rules.push(rule);
    }
}

/// Adds the rules of `spec` of one kind.
pub(super) fn finish_spec(kind: Kind, spec: &mut Value) {
    let types: Vec<&str> = kind.worker_types().iter().map(|t| t.key).collect();
    if !types.is_empty() {
        add(spec, one_of("worker type", &types));
    }
    for (setting, types) in only_for(kind) {
        let has: Vec<String> = types.iter().map(|t| format!("has(self.{t})")).collect();
        add(
            spec,
            json!({
                "rule": format!("!has(self.{setting}) || {}", has.join(" || ")),
                "message": format!("{setting} has no effect on this type: it is for {}", types.join(", ")),
                "fieldPath": format!(".{setting}"),
            }),
        );
    }
    for worker in kind.worker_types() {
        for setting in worker.needs {
            let fields = spec["properties"][setting]["required"].as_array();
            let fields: Vec<String> = fields
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|field| format!("{field}: …"))
                .collect();
            let written = format!("{setting}: {{{}}}", fields.join(", "));
            let worker = worker.key;
            add(
                spec,
                json!({
                    "rule": format!("!has(self.{worker}) || has(self.{setting})"),
                    "message": format!("{worker} needs {setting}: add `{written}` beside it"),
                    "fieldPath": format!(".{worker}"),
                }),
            );
        }
    }
    if !spec["properties"]["replicas"].is_null() {
        // What was never written reads as one pod, also through the scale subresource (K8).
        spec["properties"]["replicas"]["default"] = json!(1);
        pods::rules(kind)
            .into_iter()
            .for_each(|rule| add(spec, rule));
    }
    if !spec["properties"]["retry"].is_null() {
        let (needed, sentence) = match spec["properties"]["legacyFailures"].is_null() {
            true => ("false", "retry.external is for transports"),
            false => (
                "(has(self.legacyFailures) && self.legacyFailures)",
                "retry.external needs `legacyFailures: true`: Vumi's failure worker reads what that publishes",
            ),
        };
        let external = "!has(self.retry) || !has(self.retry.external) || !self.retry.external";
        add(
            spec,
            json!({
                "rule": format!("{external} || {needed}"),
                "message": sentence,
                "fieldPath": ".retry.external",
            }),
        );
    }
    if !spec["properties"]["service"].is_null() {
        let http = match spec["properties"]["http"].is_null() {
            true => "has(self.custom)",
            false => "has(self.http) || has(self.custom)",
        };
        add(
            spec,
            json!({
                "rule": format!("!has(self.service) || !has(self.service.expose) || {http}"),
                "message": "service.expose is for workers that serve HTTP",
                "fieldPath": ".service",
            }),
        );
    }
    for worker in kind.worker_types().iter().filter(|w| w.container) {
        let refused = not_for_containers(kind, spec, worker);
        add(spec, refused);
    }
    if kind == Kind::Application {
        spec["required"] = json!(["transportName"]);
    }
    if !spec["properties"]["middleware"].is_null() {
        add(
            &mut spec["properties"]["middleware"],
            json!({
                "rule": "self.all(a, self.exists_one(b, b.name == a.name))",
                "message": "each middleware needs a name of its own",
            }),
        );
    }
}

/// Settings that the operator reads, and so all that a program of somebody else can have (K22).
const CONTAINER_SETTINGS: &[&str] = &["transportName", "broker"];

/// Settings of a kind that only our own workers honour. Those of some types alone have a rule of their own.
pub(crate) fn of_our_own(kind: Kind, spec: &Value) -> Vec<&str> {
    let limited: Vec<&str> = only_for(kind).into_iter().map(|(name, _)| name).collect();
    let settings = spec["properties"].as_object().into_iter();
    settings
        .flat_map(|properties| properties.keys())
        .map(String::as_str)
        .filter(|name| kind.worker_types().iter().all(|w| w.key != *name))
        .filter(|name| !CONTAINER_SETTINGS.contains(name) && !DEPLOYMENT_SETTINGS.contains(name))
        .filter(|name| !limited.contains(name))
        .collect()
}

/// Refuses them beside a program of somebody else.
fn not_for_containers(kind: Kind, spec: &Value, worker: &WorkerType) -> Value {
    let ours = of_our_own(kind, spec);
    let absent: Vec<String> = ours
        .iter()
        .map(|name| format!("!has(self.{name})"))
        .collect();
    let found: Vec<String> = ours
        .iter()
        .map(|name| format!("(has(self.{name}) ? ' {name}' : '')"))
        .collect();
    let key = worker.key;
    let sentence =
        format!("{key} is a program of its own, which knows nothing of some settings: remove");
    json!({
        "rule": format!("!has(self.{key}) || ({})", absent.join(" && ")),
        "message": format!("{sentence} all but {} and those about pods", CONTAINER_SETTINGS.join(", ")),
        "messageExpression": format!("'{sentence}' + {}", found.join(" + ")),
        "fieldPath": format!(".{key}"),
    })
}

/// Adds the rules of a whole resource of one kind.
pub(super) fn finish_root(kind: Kind, root: &mut Value) {
    add(
        root,
        json!({
            "rule": "self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')",
            "message": "metadata.name must have at most 40 characters and no dots",
        }),
    );
    if kind == Kind::Transport {
        add(
            root,
            json!({
                "rule": format!(
                    "has(self.spec.transportName) || !self.metadata.name.matches('^{}$')",
                    shapes::reserved_labels(),
                ),
                "message": shapes::reserved_sentence("metadata.name, without a transportName,"),
            }),
        );
    }
    if kind.worker_types().is_empty() {
        add(
            root,
            json!({"rule": "false", "message": format!("kind {kind} is not supported yet")}),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_type_has_the_name_of_a_setting_or_a_cel_word() {
        for kind in Kind::ALL {
            for worker in kind.worker_types() {
                assert!(!RESERVED_SETTINGS.contains(&worker.key), "{}", worker.key);
                assert!(!CEL_WORDS.contains(&worker.key), "{}", worker.key);
            }
        }
    }

    #[test]
    fn types_need_settings_that_their_kind_has() {
        for kind in Kind::ALL {
            let spec = crate::crds::spec_schema(kind);
            for (setting, types) in only_for(kind) {
                assert!(
                    !spec["properties"][setting].is_null(),
                    "{types:?} {setting}"
                );
            }
        }
    }

    #[test]
    fn every_setting_is_reserved() {
        for kind in Kind::ALL {
            let spec = crate::crds::spec_schema(kind);
            for name in spec["properties"]
                .as_object()
                .into_iter()
                .flat_map(|p| p.keys())
            {
                let is_type = kind.worker_types().iter().any(|t| t.key == name);
                assert!(
                    is_type || RESERVED_SETTINGS.contains(&name.as_str()),
                    "{kind} {name}"
                );
            }
        }
    }

    #[test]
    fn the_middleware_table_names_every_type_of_an_item() {
        let items = &crate::crds::spec_schema(Kind::Transport)["properties"]["middleware"]["items"];
        let mut types: Vec<&str> = items["properties"]
            .as_object()
            .map(|p| p.keys().map(String::as_str).collect())
            .unwrap_or_default();
        types.retain(|key| !["name", "consumePriority", "publishPriority"].contains(key));
        assert_eq!(types, shared_types());
    }

    fn shared_types() -> Vec<&'static str> {
        crate::shared::middleware::MIDDLEWARE_TYPES.to_vec()
    }
}
