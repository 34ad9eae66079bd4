//! What we ship, applied twice and then compared, before a real API server: nothing is written the second time, and nothing differs. It
//! is asked as `kubectl apply --server-side` and `kubectl diff --server-side` ask it, by server-side apply and its dry run.
//! `kubectl` itself, the client-side way included, does the same in `tests/e2e`.

use crate::root;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vumi_api::crds::API_VERSION;
use vumi_testkit::kubernetes::{ApiServer, place};

const NAMESPACE: &str = "compared";

/// Files of manifests below a folder, those of campaign tests excepted.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("tests") => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|ending| ending == "yaml") => {
                    found.push(path);
                }
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The documents of a file, without the Secrets that stand beside examples. Resources go into a namespace of the test.
fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    let documents = documents.map(|document| Value::deserialize(document).unwrap());
    documents
        .filter(|document| document["kind"] != "Secret" && document.is_object())
        .map(|mut document| {
            if document["apiVersion"] == API_VERSION {
                document["metadata"]["namespace"] = NAMESPACE.into();
            }
            document
        })
        .collect()
}

fn apply(server: &ApiServer, object: &Value, more: &str) -> Value {
    // As whoever has put the definitions there: what another has applied, nobody takes over without force.
    let (status, answer) = server.apply_as(object, "test", more).unwrap();
    let (taken, path) = ([200, 201].contains(&status), place(object));
    assert!(taken, "{path}: {status} {}", answer["message"]);
    answer
}

/// An object without what the API server notes of who wrote it when.
fn compared(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("managedFields");
    object
}

/// Applies an object twice, and compares it.
fn clean(server: &ApiServer, object: &Value) {
    let path = place(object);
    let version = |answer: &Value| answer["metadata"]["resourceVersion"].clone();
    // Of our resources a status that is a default is stored when they are written for the second time.
    if object["apiVersion"] == API_VERSION {
        apply(server, object, "");
        apply(server, object, "");
    }
    // A namespace, a definition or a role is looked at by controllers of the server once it is there.
    let (first, second) = match object["metadata"]["namespace"].is_string() {
        true => (apply(server, object, ""), apply(server, object, "")),
        false => {
            apply(server, object, "");
            settled(server, &path);
            let (_, now) = server.request("GET", &path, None).unwrap();
            (now, apply(server, object, ""))
        }
    };
    assert_eq!(
        version(&first),
        version(&second),
        "{path} is written twice, first as {first}, then as {second}"
    );
    let (status, stored) = server.request("GET", &path, None).unwrap();
    assert_eq!(status, 200, "{path}");
    let tried = apply(server, object, "&dryRun=All");
    assert_eq!(compared(tried), compared(stored), "{path}");
}

/// Waits until nobody changes an object any more.
fn settled(server: &ApiServer, path: &str) {
    let version = || {
        let (_, object) = server.request("GET", path, None).unwrap();
        object["metadata"]["resourceVersion"].clone()
    };
    let mut last = version();
    for _ in 0..60 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = version();
        if now == last {
            return;
        }
        last = now;
    }
    panic!("{path} changes all the time");
}

pub fn manifests_compare_as_equal_once_they_are_applied(server: &ApiServer) {
    let name = json!({"name": NAMESPACE});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name});
    server.apply_object(&namespace).unwrap();
    let mut seen = 0;
    for folder in ["deploy/crds", "deploy/operator", "examples"] {
        for file in files(root().join(folder)) {
            let all = documents(&file);
            for document in &all {
                clean(server, document);
                seen += 1;
            }
            // The next example may have the same names.
            if folder == "examples" {
                for document in &all {
                    let path = place(document);
                    let (status, answer) = server.request("DELETE", &path, None).unwrap();
                    assert_eq!(status, 200, "{path}: {answer}");
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
}
