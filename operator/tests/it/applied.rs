//! What `vumi render` prints is what the operator applies: an operator works before a real API server, and its objects are compared
//! with those that the program prints, by their values and by whose fields they are.

use crate::cluster::{Cluster, NAMESPACE, Running, begin, child, install, root, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use vumi::commands::render::{Arguments, Optional, objects};
use vumi_api::Target;
use vumi_api::manifest::load;
use vumi_operator::client::MANAGER;
use vumi_plan::CHILDREN;
use vumi_testkit::kubernetes::place;

/// Beside the workers of the example: some whose objects are of the kinds that these have not, and a program of somebody else.
const MORE: &str = "\
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {name: api}
spec:
  httpApi: {replyExpected: true}
  http: {port: 9012}
  networkPolicy: {callers: {team: campaign}, egress: [{cidr: 10.20.0.0/16, ports: [5672]}]}
  service: {port: 80, expose: {host: a.example.net, ingress: {className: nginx}}}
  resources: {limits: {cpu: 500m}}
  overrides: {spec: {nodeSelector: {disk: fast}}}
---
apiVersion: vumi.dev/v1alpha1
kind: Application
metadata: {name: keeper}
spec:
  echo: {}
  transportName: api
  state: {volume: {size: 2Gi}}
---
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {name: program}
spec:
  custom: {image: registry.example.net/program:1}
  broker: {secretRef: {name: elsewhere}}
";

/// Of the broker of that program: a URL alone.
const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: elsewhere}
stringData: {connection_string: amqp://nobody:none@127.0.0.1:1/}
";

/// What goes by the revision of a Secret, of a program that is started anew when one changes.
const BY_REVISION: [&str; 4] = [
    "metadata.annotations.vumi.dev/hash",
    "metadata.annotations.vumi.dev/input-hash",
    "metadata.annotations.vumi.dev/template-hash",
    "spec.template.metadata.annotations.vumi.dev/secrets-hash",
];

/// Applies the resources and Secrets of some files. Returns where the resources are.
fn campaign(cluster: &Cluster, files: &[PathBuf]) -> Vec<String> {
    // Objects are made whether or not the broker can be reached.
    cluster.broker("amqp://nobody:none@127.0.0.1:1/");
    let mut places = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let manifests = load(&[("one.yaml", text)], Target::Cluster);
        for (name, keys) in &manifests.secrets {
            cluster.put(&json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "stringData": keys,
            }));
        }
        for loaded in manifests.resources {
            let mut document = loaded.document();
            document["metadata"]["namespace"] = NAMESPACE.into();
            cluster.put(&document);
            places.push(place(&document));
        }
    }
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rendered_is_what_the_operator_applies() {
    let Some((cluster, proxy)) = begin().await else {
        return;
    };
    install(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (more, secret) = (file("more.yaml", MORE), file("secret.yaml", SECRET));
    let example = root().join("examples/two-transports-one-app");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&example)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.extend([more.clone(), secret.clone()]);
    let places = campaign(&cluster, &files);
    assert_eq!(places.len(), 7, "{places:?}");
    let operator = Running::start(&proxy, "applied");
    until("all resources to be looked at", || {
        places.iter().all(|path| {
            let object = cluster.get(path).unwrap();
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
    })
    .await;
    operator.idle().await;
    operator.end().await;
    let wanted = printed(&[&example, &more, &secret], None);
    same_objects(&cluster, &wanted);
    for wanted in &wanted {
        let path = place(wanted);
        let live = cluster.get(&path).unwrap();
        let mut found = Vec::new();
        values(wanted, &live, "", &mut found);
        owners(wanted, fields(&live), "", &mut found);
        // What only a cluster knows: which revision a Secret is, whose the object is, and of which Secrets its pods were told.
        let by_revision = |line: &String| {
            let mut paths = BY_REVISION.iter();
            paths.any(|path| line.starts_with(&format!("{path} is ")))
        };
        let (told, mut found): (Vec<_>, Vec<_>) = found.into_iter().partition(by_revision);
        let program = wanted["kind"] == "Deployment" && path.ends_with("/transport-program");
        let expected = if program { BY_REVISION.len() } else { 0 };
        assert_eq!(told.len(), expected, "{path}: {told:?}");
        let mut beside = vec!["ours, and not printed: metadata.ownerReferences"];
        if wanted["kind"] == "ServiceAccount" {
            beside.push("ours, and not printed: metadata.annotations.vumi.dev/secret-revision");
        }
        found.sort();
        beside.sort_unstable();
        assert_eq!(found, beside, "{path}");
    }
    // What runs tells these too, and which keys the Secret has.
    let workloads = ["Deployment", "StatefulSet"].map(|kind| {
        let list = cluster.get(&child(kind, "")).unwrap();
        list.to_string()
    });
    let running = file("running.yaml", &workloads.join("\n---\n"));
    let wanted = printed(&[&example, &more], Some(running));
    same_objects(&cluster, &wanted);
    for wanted in &wanted {
        let path = place(wanted);
        let mut found = Vec::new();
        values(wanted, &cluster.get(&path).unwrap(), "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "{path}");
    }
}

/// What the program prints for a cluster such as this one.
fn printed(paths: &[&Path], running: Option<PathBuf>) -> Vec<Value> {
    let arguments = Arguments {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        files: Vec::new(),
        namespace: NAMESPACE.into(),
        settings: None,
        image: None,
        running,
        without: vec![Optional::HttpRoute, Optional::PodMonitor],
    };
    let (objects, refusals) = objects(&arguments).unwrap();
    assert_eq!(refusals, Vec::<String>::new());
    objects
}

/// Kinds and names of what is printed are those of what was applied.
fn same_objects(cluster: &Cluster, printed: &[Value]) {
    let named = |kind: &str, object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap();
        format!("{kind} {name}")
    };
    let printed: BTreeSet<String> = printed
        .iter()
        .map(|object| named(object["kind"].as_str().unwrap(), object))
        .collect();
    let mut applied = BTreeSet::new();
    for kind in CHILDREN.iter().filter(|kind| !kind.optional) {
        let kind = kind.kind;
        let selector = format!("labelSelector=app.kubernetes.io/managed-by%3D{MANAGER}");
        let list = cluster.get(&format!("{}?{selector}", child(kind, "")));
        let list = list.unwrap_or_else(|| panic!("{kind} cannot be listed"));
        let items = list["items"].as_array().unwrap();
        applied.extend(items.iter().map(|object| named(kind, object)));
        // Every kind that each cluster has is among them, so that none goes unseen.
        assert!(!items.is_empty(), "{kind}");
    }
    assert_eq!(printed, applied);
}

/// What the operator's apply holds of an object; nobody else has applied it.
fn fields(live: &Value) -> &Value {
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    let applied: Vec<&Value> = entries
        .iter()
        .filter(|entry| entry["operation"] == "Apply")
        .collect();
    let [ours] = applied.as_slice() else {
        panic!("{applied:?}");
    };
    assert_eq!(ours["manager"], MANAGER);
    &ours["fieldsV1"]
}

/// Notes where an object says something else than was printed. What the server has added is nobody's.
fn values(wanted: &Value, live: &Value, path: &str, found: &mut Vec<String>) {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(_)) => {
            for (key, value) in wanted {
                values(value, &live[key], &below(path, key), found);
            }
        }
        (Value::Array(wanted), Value::Array(items)) if wanted.len() == items.len() => {
            for (index, (wanted, item)) in wanted.iter().zip(items).enumerate() {
                values(wanted, item, &format!("{path}[{index}]"), found);
            }
        }
        (wanted, live) if wanted == live => {}
        (wanted, live) => found.push(format!("{path} is {live}, printed was {wanted}")),
    }
}

fn below(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// Notes which printed fields are not ours, and which of ours were not printed.
fn owners(wanted: &Value, held: &Value, path: &str, found: &mut Vec<String>) {
    let Some(held) = held.as_object() else {
        return found.push(format!("printed, and not ours: {path}"));
    };
    // A leaf, or a part that is held as a whole.
    if held.is_empty() {
        return;
    }
    match wanted {
        Value::Object(fields) => {
            for (key, value) in fields {
                // What names an object is held by nobody.
                let names = match path {
                    "" => ["apiVersion", "kind"].contains(&key.as_str()),
                    "metadata" => ["name", "namespace"].contains(&key.as_str()),
                    _ => false,
                };
                if !names {
                    let held = held.get(&format!("f:{key}")).unwrap_or(&Value::Null);
                    owners(value, held, &below(path, key), found);
                }
            }
            for key in held.keys().filter_map(|key| key.strip_prefix("f:")) {
                if !fields.contains_key(key) {
                    found.push(format!("ours, and not printed: {}", below(path, key)));
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let of = held.iter().find(|(key, _)| is_key_of(key, item));
                let of = of.map_or(&Value::Null, |(_, held)| held);
                owners(item, of, &path, found);
            }
            for key in held.keys().filter(|key| *key != ".") {
                if !items.iter().any(|item| is_key_of(key, item)) {
                    found.push(format!("ours, and not printed: {path} {key}"));
                }
            }
        }
        leaf => found.push(format!("{path} is held in parts, printed was {leaf}")),
    }
}

/// Whether managed fields name an item of a list so: by the keys of a map, or by its value.
fn is_key_of(name: &str, item: &Value) -> bool {
    let Some((sign, text)) = name.split_once(':') else {
        return false;
    };
    let key: Value = serde_json::from_str(text).unwrap_or_default();
    match sign {
        // One that is not written has its default.
        "k" => key
            .as_object()
            .into_iter()
            .flatten()
            .all(|(field, value)| item[field].is_null() || item[field] == *value),
        "v" => key == *item,
        _ => false,
    }
}
