//! What `kubectl vumi doctor` says of a cluster, as what it looks at changes.

use crate::place::{NAMESPACE, Place};
use serde_json::json;
use std::time::Duration;

const ECHO: &str = "/apis/vumi.dev/v1alpha1/namespaces/campaign/applications/echo";

pub fn before_anything_is_installed(place: &Place) {
    let asked = place.vumi(&["doctor"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    asked.says(&[
        "definitions (CRDs): are not installed",
        "kubectl apply --server-side -f deploy/crds",
        "there is no Deployment vumi-operator",
        "there is none: no operator has ever led",
        "ok    Kubernetes: is v1.",
        "every command of this program may be used",
    ]);
    let asked = place.vumi(&["doctor", "--operator", "other"]);
    asked.says(&["there is no Deployment other", "lease other in vumi-system"]);
}

pub fn knows_the_operator(place: &Place) {
    let asked = place.vumi(&["doctor"]);
    asked.says(&[
        "ok    definitions (CRDs): have all of version",
        "leads, of version",
        "are there, in every namespace",
        "FAIL  operator in vumi-system: 0 of 2 pods are ready",
    ]);
    assert_eq!(asked.code, 1, "{asked:?}");
    // The pods are the controller's business, of which there is none; all else is well.
    place.merge(
        "/apis/apps/v1/namespaces/vumi-system/deployments/vumi-operator/status",
        &json!({"status": {"replicas": 2, "readyReplicas": 2}}),
    );
    let asked = place.vumi(&["doctor"]);
    assert!(asked.out.contains("2 of 2 pods are ready"), "{}", asked.out);
    // Without the rights it says what is missing.
    place.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/vumi-operator");
    let mut asked = place.vumi(&["doctor"]);
    // The API server hears of it a moment later.
    for _ in 0..50 {
        if asked.out.contains("it may not") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        asked = place.vumi(&["doctor"]);
    }
    assert!(
        asked
            .out
            .contains("in namespace campaign it may not list transports"),
        "{}",
        asked.out
    );
    place.rights();
}

/// Nobody asks brokers from here: the operator does, and its statuses say what came of it.
pub fn says_which_broker_is_away(place: &Place) {
    let secret = |name: &str| format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}");
    place.put(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "away", "namespace": NAMESPACE},
        "stringData": {"connection_string": "amqp://nobody:none@127.0.0.1:1/"},
    }));
    for (name, broker) in [("lost", "away"), ("early", "absent")] {
        place.put(&json!({
            "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"devNull": {}, "broker": {"secretRef": {"name": broker}}},
        }));
    }
    let away = "FAIL  broker 127.0.0.1:1/: says the status of transport/lost";
    // It has to last before it is told.
    place.until("the broker to be known as away", |place| {
        place.vumi(&["doctor"]).out.contains(away)
    });
    let asked = place.vumi(&["doctor"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    asked.says(&[
        "[BrokerUnreachable]",
        "no NetworkPolicy is in the way",
        "FAIL  broker of the Secret absent in campaign: says the status of transport/early",
        "waiting for the Secret absent [SecretMissing]",
        "are about what is written now",
    ]);
    assert!(!asked.out.contains("none@"), "{}", asked.out);
    for name in ["lost", "early"] {
        place.delete(&format!(
            "/apis/vumi.dev/v1alpha1/namespaces/{NAMESPACE}/transports/{name}"
        ));
    }
    place.delete(&secret("away"));
}

/// The operator has given its lease back: what statuses say is how it was, and nobody sees an edit.
pub fn tells_statuses_that_nobody_writes(place: &Place) {
    place.merge(ECHO, &json!({"spec": {"holdLimit": "20s"}}));
    let asked = place.vumi(&["doctor"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    asked.says(&[
        "FAIL  statuses: of 2 resources, they say how it was when an operator led last",
        "it is free: the last operator has given it back",
        // Not a minute has passed.
        "note  statuses: no operator has seen yet what was written within the last minute of application/echo",
    ]);
    assert!(!asked.out.contains("ok    broker"), "{}", asked.out);
    place.merge(ECHO, &json!({"spec": {"holdLimit": null}}));
}
