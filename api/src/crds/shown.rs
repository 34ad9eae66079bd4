//! What a cluster shows of a resource beside its spec: `status`, the scale subresource, columns and short names.

use super::{schema, spec_schema};
use crate::resource::Kind;
use crate::status::Status;
use serde_json::{Value, json};

/// Schema of `status`. Until an operator has written, the generation that it has seen is -1: whoever waits for a resource
/// must not take a new one for ready.
pub(super) fn status_schema() -> Value {
    let mut status = schema::of::<Status>();
    status["default"] = json!({"observedGeneration": -1});
    let conditions = &mut status["properties"]["conditions"];
    // Each type of condition is a field of its own, so that two writers keep each other's.
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    conditions["items"]["properties"]["lastTransitionTime"]["format"] = json!("date-time");
    status
}

/// The subresources. A kind without pods cannot be scaled.
pub(super) fn subresources(kind: Kind) -> Value {
    match spec_schema(kind)["properties"]["replicas"].is_null() {
        true => json!({"status": {}}),
        false => json!({
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        }),
    }
}

/// For `kubectl get`. The names of the kinds are too common for one or two letters.
pub(super) fn short_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Transport => "vtr",
        Kind::Application => "vapp",
        Kind::Dispatcher => "vdisp",
        Kind::MetricAggregator => "vagg",
    }
}

/// Columns of `kubectl get` in the order of the first questions: does it work, does the peer, what waits, and why not. Those of
/// priority 1 are shown with `-o wide`.
pub(super) fn columns() -> Value {
    let condition =
        |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    json!([
        {"name": "Type", "type": "string", "jsonPath": ".status.type"},
        {"name": "Ready", "type": "string", "jsonPath": condition("Ready", "status")},
        {"name": "Link", "type": "string", "jsonPath": ".status.link"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".status.replicas"},
        {"name": "Backlog", "type": "string", "jsonPath": ".status.backlog"},
        {"name": "Parked", "type": "string", "jsonPath": ".status.parked"},
        {"name": "Why", "type": "string", "jsonPath": ".status.why"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Broker", "type": "string", "priority": 1, "jsonPath": ".status.broker"},
        {"name": "Runtime", "type": "string", "priority": 1, "jsonPath": ".status.runtimeVersion"},
        {"name": "Since", "type": "date", "priority": 1, "jsonPath": condition("Ready", "lastTransitionTime")},
    ])
}
