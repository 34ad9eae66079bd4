//! What people see who may do anything but read Secrets and what pods serve.

use crate::place::{NAMESPACE, Place};
use serde_json::{Value, json};

/// The kubeconfig of somebody who may not read Secrets, nor what pods serve.
pub fn reader(place: &Place) -> String {
    let group = "rbac.authorization.k8s.io";
    let api_version = format!("{group}/v1");
    let whom = json!({"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE});
    place.put(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "reader", "namespace": NAMESPACE},
    }));
    let core = ["configmaps", "pods", "serviceaccounts", "services"];
    place.put(&json!({
        "apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": "reader"},
        "rules": [
            {"apiGroups": [""], "resources": core, "verbs": ["*"]},
            {
                "apiGroups": ["vumi.dev", "apps", "policy", "networking.k8s.io"],
                "resources": ["*"], "verbs": ["*"],
            },
        ],
    }));
    place.put(&json!({
        "apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
        "subjects": [whom],
    }));
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/reader/token");
    let asked =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let asked = asked.to_string();
    let body = Some(("application/json", asked.as_str()));
    let (status, answer) = place.server.request("POST", &path, body).unwrap();
    assert_eq!(status, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap();
    let kubeconfig = place.server.kubeconfig(NAMESPACE);
    place.file("reader", &kubeconfig.replace(place.server.token(), token))
}

/// A program that is started anew when a Secret changes.
fn program(custom: Value) -> Value {
    json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport",
        "metadata": {"name": "program", "namespace": NAMESPACE},
        "spec": {"custom": custom, "broker": {"secretRef": {"name": "elsewhere"}}},
    })
}

/// Nothing is shown to be replaced, nor to take keys that its Secret does not have.
pub fn diff_goes_by_what_runs(place: &Place) {
    place.put(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "elsewhere", "namespace": NAMESPACE},
        "stringData": {"connection_string": "amqp://nobody:none@127.0.0.1:1/"},
    }));
    place.put(&program(json!({"image": "program:1"})));
    let workload = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/transport-program");
    place.until("its workload", |place| !place.get(&workload).is_null());
    let reader = reader(place);
    let diff =
        |place: &Place, of: &[&str]| place.vumi(&[&["diff", "--kubeconfig", &reader], of].concat());
    place.until("the API server to hear of the rights", |place| {
        diff(place, &["transport/program"]).code != 3
    });
    let asked = diff(place, &["transport/program"]);
    assert_eq!((asked.code, asked.out.as_str()), (0, ""), "{asked:?}");
    let note = "the Secret elsewhere may not be read";
    assert!(asked.err.contains(note), "{asked:?}");
    let edited = program(json!({"image": "program:1", "args": ["--fast"]}));
    let file = place.file("program.yaml", &edited.to_string());
    let asked = diff(place, &["-f", &file]);
    assert_eq!(asked.code, 1, "{asked:?}");
    asked.says(&["+        - --fast"]);
    let more = asked.out.lines().filter(|line| line.starts_with('+'));
    let variables: Vec<&str> = more.filter(|line| line.contains("VUMI_BROKER_")).collect();
    assert_eq!(variables, Vec::<&str>::new(), "{}", asked.out);
}
