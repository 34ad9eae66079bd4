//! A real API server (etcd and kube-apiserver): it accepts the definitions and the examples, and refuses what the reader
//! refuses, with the same sentences.

use crate::root;
use crate::table::{BAD, Bad, ONLY_OFFLINE};
use serde_json::Value;
use vumi_api::manifest::load;
use vumi_api::{Kind, Severity, Target, WorkerType};
use vumi_testkit::kubernetes::{ApiServer, KubernetesError};

/// A server with all definitions; `None`, said loudly, where it is not installed.
fn server() -> Option<ApiServer> {
    let server = match ApiServer::start() {
        Ok(server) => server,
        Err(missing @ KubernetesError::Missing(_)) => {
            vumi_testkit::skip(&missing.to_string());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    for definition in vumi_api::crds::crds() {
        server.establish(&definition).unwrap();
    }
    Some(server)
}

fn path(kind: Kind, name: &str) -> String {
    let plural = kind.plural();
    format!("/apis/vumi.dev/v1alpha1/namespaces/default/{plural}/{name}")
}

fn kind_of(name: &str) -> Kind {
    Kind::ALL.into_iter().find(|k| k.as_str() == name).unwrap()
}

/// What the server said to a document.
fn apply(server: &ApiServer, document: &str) -> (u16, String) {
    let value: Value = serde_yaml::from_str(document).unwrap();
    let kind = kind_of(value["kind"].as_str().unwrap());
    let name = value["metadata"]["name"].as_str().unwrap();
    let (status, answer) = server.apply(&path(kind, name), document).unwrap();
    (
        status,
        answer["message"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Documents of our kinds in a file.
fn ours(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---\n")
        .filter(|document| document.contains("apiVersion: vumi.dev/v1alpha1"))
}

// One server for all parts: starting it takes longer than everything that is asked of it.
#[test]
fn the_api_server_and_the_reader_agree() {
    let Some(server) = server() else {
        return;
    };
    definitions_are_as_generated(&server);
    examples_are_accepted(&server);
    bad_manifests_are_refused_by_both(&server);
    misspelt_keys_of_examples_are_refused(&server);
    what_only_the_reader_sees_is_accepted(&server);
    crate::scaled::resources_scale_and_have_a_status(&server);
    crate::rendered::objects_are_accepted(&server);
    crate::owned::lists_of_two_writers_are_not_merged(&server);
    crate::compared::manifests_compare_as_equal_once_they_are_applied(&server);
}

/// What is stored is what is in `deploy/crds`, and the structural schema has no complaint.
fn definitions_are_as_generated(server: &ApiServer) {
    for (name, text) in vumi_api::crds::crd_files() {
        let held = std::fs::read_to_string(root().join("deploy/crds").join(&name)).unwrap();
        assert_eq!(held, text, "{name}");
        let plural = name
            .trim_start_matches("vumi.dev_")
            .trim_end_matches(".yaml");
        let path =
            format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.vumi.dev");
        // The file itself, comments included, as `kubectl apply --server-side -f` sends it.
        let (status, answer) = server.apply(&path, &text).unwrap();
        assert_eq!(status, 200, "{name}: {}", answer["message"]);
        for condition in answer["status"]["conditions"].as_array().unwrap() {
            assert_ne!(
                condition["type"], "NonStructuralSchema",
                "{name}: {condition}"
            );
        }
    }
}

fn examples_are_accepted(server: &ApiServer) {
    for worker in WorkerType::all() {
        for file in ["minimal.yaml", "full.yaml"] {
            let name = format!("{}/{}/{file}", worker.kind.plural(), worker.key);
            let text = std::fs::read_to_string(root().join("examples").join(&name)).unwrap();
            for document in ours(&text) {
                let (status, message) = apply(server, document);
                assert!([200, 201].contains(&status), "{name}: {status} {message}");
                stored_as_written(server, document);
            }
        }
    }
}

/// Nothing was pruned, and nothing was added but the number of pods, which the scale subresource reads.
fn stored_as_written(server: &ApiServer, document: &str) {
    let mut written: Value = serde_yaml::from_str(document).unwrap();
    if written["spec"]["replicas"].is_null() {
        written["spec"]["replicas"] = 1.into();
    }
    let kind = kind_of(written["kind"].as_str().unwrap());
    let name = written["metadata"]["name"].as_str().unwrap();
    let (_, stored) = server.request("GET", &path(kind, name), None).unwrap();
    assert_eq!(sorted(&stored["spec"]), sorted(&written["spec"]), "{name}");
}

/// JSON text with the keys of every object in order.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", sorted(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

fn bad_manifests_are_refused_by_both(server: &ApiServer) {
    for bad in BAD {
        let text = bad.manifest();
        assert!(refused_offline(bad, &text), "offline accepts\n{text}");
        let (status, message) = apply(server, &text);
        assert!(
            refused(status, &message),
            "the server says {status} {message:?} to\n{text}"
        );
        if bad.code == "manifest.rule" {
            assert!(
                message.contains(bad.says),
                "the server says {message:?} instead of {:?} to\n{text}",
                bad.says
            );
        }
    }
}

/// A refusal on purpose. For fields and types that the schema does not have, server-side apply says 500.
fn refused(status: u16, message: &str) -> bool {
    (400..500).contains(&status)
        || status == 500 && message.starts_with("failed to create typed patch object")
}

fn refused_offline(bad: &Bad, text: &str) -> bool {
    let read = load(&[("f.yaml", text)], Target::Cluster);
    read.findings
        .iter()
        .any(|f| f.severity == Severity::Error && f.code == bad.code && f.path == bad.path)
}

/// The server's own check of unknown fields agrees at the top, inside a type and inside a setting.
fn misspelt_keys_of_examples_are_refused(server: &ApiServer) {
    for worker in WorkerType::all() {
        let name = format!("{}/{}/full.yaml", worker.kind.plural(), worker.key);
        let text = std::fs::read_to_string(root().join("examples").join(&name)).unwrap();
        let document: Value = serde_yaml::from_str(ours(&text).next().unwrap()).unwrap();
        for pointer in [
            "/spec".to_owned(),
            format!("/spec/{}", worker.key),
            "/spec/retry/backoff".to_owned(),
            "/spec/middleware/0/logging".to_owned(),
        ] {
            let mut wrong = document.clone();
            // A program of somebody else has none of the settings of ours.
            let Some(object) = wrong.pointer_mut(&pointer) else {
                assert!(worker.container, "{name} has no {pointer}");
                continue;
            };
            object["zzz"] = 1.into();
            let (status, message) = apply(server, &wrong.to_string());
            assert!(refused(status, &message), "{name} {pointer}: {status}");
            // Where no field may stand, the server counts instead of naming.
            let named = message.contains("zzz") || message.contains("Too many");
            assert!(named, "{name} {pointer}: {message}");
        }
    }
}

fn what_only_the_reader_sees_is_accepted(server: &ApiServer) {
    for bad in ONLY_OFFLINE {
        let text = bad.manifest();
        assert!(refused_offline(bad, &text), "offline accepts\n{text}");
        let (status, message) = apply(server, &text);
        // If the server learns to refuse it, it belongs into the other table.
        assert!(
            [200, 201].contains(&status),
            "{status} {message} to\n{text}"
        );
    }
}
