//! The examples of a family's worker types: each is valid on a laptop and on a cluster, builds, and the full one sets
//! every field.

use super::stand_in::StandIn;
use crate::secrets::Secrets;
use crate::worker::{Registration, Services, WorkerContext};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use vumi_api::crds::spec_schema;
use vumi_api::manifest::load;
use vumi_api::{Kind, Target, WorkerType};

/// What is wrong with the examples of `workers` below `folder`, as sentences; none if all is well.
pub async fn check(workers: &[Registration], folder: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for worker in workers {
        for file in ["minimal.yaml", "full.yaml"] {
            let name = format!("{}/{}/{file}", worker.kind.plural(), worker.type_name);
            match std::fs::read_to_string(folder.join(&name)) {
                Ok(text) => wrong.extend(check_one(worker, &name, &text).await),
                Err(error) => wrong.push(format!("examples/{name}: {error}")),
            }
        }
    }
    wrong
}

async fn check_one(worker: &Registration, name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for target in [Target::Local, Target::Cluster] {
        let read = load(&[(name, text)], target);
        wrong.extend(read.findings.iter().map(|finding| finding.to_string()));
    }
    let read = load(&[(name, text)], Target::Local);
    let [loaded] = read.resources.as_slice() else {
        let number = read.resources.len();
        wrong.push(format!("{name}: {number} valid workers instead of one"));
        return wrong;
    };
    if !(worker.matches)(&loaded.resource) {
        wrong.push(format!("{name} is not of type {}", worker.type_name));
        return wrong;
    }
    let services: Arc<dyn Services> = StandIn::new();
    let cx = Arc::new(WorkerContext::new(
        Arc::new(loaded.resource.clone()),
        "one".to_owned(),
        Arc::new(Secrets::new(read.secrets.clone(), None)),
        CancellationToken::new(),
        services,
    ));
    if let Err(error) = (worker.build)(cx).await {
        wrong.push(format!("{name} does not build: {error}"));
    }
    if name.ends_with("full.yaml") {
        let schema = spec_schema(worker.kind);
        let spec = &loaded.document()["spec"];
        let unset = unset_fields(schema, spec);
        let unset = unset
            .into_iter()
            .filter(|path| !may_be_unset(worker, spec, path));
        wrong.extend(unset.map(|path| format!("{name} does not set {path}")));
    }
    wrong
}

/// Other types of the union, settings that this type does not honour, what an alternative that is set excludes, and the
/// plain form of a secret, which a cluster refuses.
fn may_be_unset(worker: &Registration, spec: &serde_json::Value, path: &str) -> bool {
    let types = worker.kind.worker_types();
    let is_for = |w: &WorkerType| w.needs.contains(&path) || w.honours.contains(&path);
    let own = types.iter().find(|w| w.key == worker.type_name);
    let other_type = types.iter().any(|w| w.key == path);
    let other_setting = types.iter().any(is_for) && !own.is_some_and(is_for)
        || path == "retry.external" && worker.kind != Kind::Transport;
    let excluded = EXCLUDED.iter().any(|(there, excluded)| {
        let (key, value) = there.split_once('=').unwrap_or((there, ""));
        let found = spec.pointer(&format!("/{}", key.replace('.', "/")));
        path == *excluded && found.is_some_and(|v| value.is_empty() || v == value)
    });
    other_type || other_setting || excluded || path.ends_with(".value")
}

/// Fields (or a field with one of its values) beside which another may not stand, by the rules of the schema.
const EXCLUDED: &[(&str, &str)] = &[
    ("state.redis", "state.volume"),
    ("service.expose.ingress", "service.expose.httpRoute"),
    ("service.expose.httpRoute", "service.expose.ingress"),
    // A type that speaks no HTTP.
    ("service.type=LoadBalancer", "service.expose"),
    ("state.volume", "state.redis"),
    ("ordering.partitions", "ordering.standby"),
    ("ordering.standby", "ordering.partitions"),
    ("ordering.mode=perQueue", "ordering.partitions"),
    ("ordering.mode=none", "ordering.partitions"),
    ("ordering.mode=none", "ordering.standby"),
];

/// Fields of a JSON schema that `value` leaves unset, as paths; for the test that a full example is full. Items of a list
/// count together, so that an example may show one alternative per item.
fn unset_fields(schema: &serde_json::Value, value: &serde_json::Value) -> Vec<String> {
    let mut unset = Vec::new();
    walk(schema, schema, &[value], "", &mut unset);
    unset
}

fn walk(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    values: &[&serde_json::Value],
    path: &str,
    unset: &mut Vec<String>,
) {
    if let Some(reference) = schema.get("$ref").and_then(|r| r.as_str()) {
        if let Some(found) = root.pointer(reference.trim_start_matches('#')) {
            walk(root, found, values, path, unset);
        }
        return;
    }
    for variant in schema
        .get("anyOf")
        .and_then(|v| v.as_array())
        .into_iter()
        .flatten()
    {
        walk(root, variant, values, path, unset);
    }
    if let Some(items) = schema.get("items") {
        let items_of: Vec<_> = values
            .iter()
            .filter_map(|v| v.as_array())
            .flatten()
            .collect();
        walk(root, items, &items_of, path, unset);
    }
    let properties = schema.get("properties").and_then(|p| p.as_object());
    for (name, property) in properties.into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let below: Vec<_> = values.iter().filter_map(|v| v.get(name)).collect();
        if below.is_empty() {
            unset.push(path);
        } else {
            walk(root, property, &below, &path, unset);
        }
    }
}
