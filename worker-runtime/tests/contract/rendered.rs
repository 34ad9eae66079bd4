//! What `vumi render` prints before a real API server: every object is accepted with strict fields, a second time changes
//! nothing, and the pods meet the `restricted` Pod Security Standard.

use crate::root;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use vumi_testkit::kubernetes::ApiServer;

const NAMESPACE: &str = "campaign";

/// Where a plain API server keeps objects of a kind; `None` for kinds that it does not know.
fn collection(kind: &str) -> Option<String> {
    let (group, plural) = match kind {
        "ServiceAccount" => ("api/v1", "serviceaccounts"),
        "ConfigMap" => ("api/v1", "configmaps"),
        "Service" => ("api/v1", "services"),
        "Deployment" => ("apis/apps/v1", "deployments"),
        "StatefulSet" => ("apis/apps/v1", "statefulsets"),
        "PodDisruptionBudget" => ("apis/policy/v1", "poddisruptionbudgets"),
        "NetworkPolicy" => ("apis/networking.k8s.io/v1", "networkpolicies"),
        "Ingress" => ("apis/networking.k8s.io/v1", "ingresses"),
        "HTTPRoute" => return None,
        other => panic!("unknown kind {other}"),
    };
    Some(format!("/{group}/namespaces/{NAMESPACE}/{plural}"))
}

/// The objects of the manifests in a folder or file.
fn rendered(path: &Path, more: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
        .args(["render", "--namespace", NAMESPACE])
        .args(more)
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", path.display());
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents.map(|d| Value::deserialize(d).unwrap()).collect()
}

pub fn objects_are_accepted(server: &ApiServer) {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    let (status, answer) = server.apply(&path, &namespace.to_string()).unwrap();
    assert_eq!(status, 201, "{answer}");
    let mut seen = 0;
    for worker in vumi_api::WorkerType::all() {
        for file in ["minimal.yaml", "full.yaml"] {
            let name = format!("{}/{}/{file}", worker.kind.plural(), worker.key);
            for object in rendered(&root().join("examples").join(&name), &[]) {
                accepted(server, &name, &object);
                seen += 1;
            }
        }
    }
    assert!(seen > 150, "{seen}");
    what_runs_keeps_its_template(server);
}

/// Applies one object twice, and a pod of its template.
fn accepted(server: &ApiServer, name: &str, object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    let Some(collection) = collection(kind) else {
        return;
    };
    let path = format!(
        "{collection}/{}",
        object["metadata"]["name"].as_str().unwrap()
    );
    let (status, first) = server.apply(&path, &object.to_string()).unwrap();
    assert!(
        [200, 201].contains(&status),
        "{name} {kind}: {status} {}",
        first["message"]
    );
    let (_, second) = server.apply(&path, &object.to_string()).unwrap();
    let version = |answer: &Value| answer["metadata"]["resourceVersion"].clone();
    assert_eq!(
        version(&second),
        version(&first),
        "{name} {kind} was written twice"
    );
    let template = &object["spec"]["template"];
    if template.is_null() {
        return;
    }
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
    });
    pod["metadata"]["name"] = "one".into();
    if kind == "StatefulSet" {
        let claim = json!({"name": "state", "persistentVolumeClaim": {"claimName": "state-one"}});
        pod["spec"]["volumes"].as_array_mut().unwrap().push(claim);
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict");
    let body = pod.to_string();
    let (status, answer) = server
        .request("POST", &path, Some(("application/json", &body)))
        .unwrap();
    assert_eq!(status, 201, "{name} {kind}: {}", answer["message"]);
}

/// What the API server gives back of a workload, with all its defaults, is what a newer operator leaves as it is.
fn what_runs_keeps_its_template(server: &ApiServer) {
    let example = root().join("examples/applications/echo/minimal.yaml");
    let path = format!("{}/application-echo", collection("Deployment").unwrap());
    let (_, running) = server.request("GET", &path, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("running.yaml");
    std::fs::write(&file, running.to_string()).unwrap();
    let running_file = file.display().to_string();
    let more = ["--image", "vumi:next", "--running", &running_file];
    let objects = rendered(&example, &more);
    let deployment = objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
    let annotations = |object: &Value| object["metadata"]["annotations"].clone();
    assert_eq!(annotations(deployment), annotations(&running));
    let (status, answer) = server.apply(&path, &deployment.to_string()).unwrap();
    assert_eq!(status, 200, "{}", answer["message"]);
    assert_eq!(
        answer["metadata"]["generation"],
        running["metadata"]["generation"]
    );
}
