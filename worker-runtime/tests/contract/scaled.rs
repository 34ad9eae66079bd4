//! Status and scale of our kinds on a real API server: what a new resource reads as, who may write what, and what autoscaling
//! freezes (K8).

use serde_json::{Value, json};
use vumi_api::Status;
use vumi_testkit::kubernetes::ApiServer;

const COLLECTION: &str = "/apis/vumi.dev/v1alpha1/namespaces/default/transports";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn patch(server: &ApiServer, path: &str, content: &str, body: &Value) -> (u16, Value) {
    let path = format!("{COLLECTION}/{path}");
    let body = body.to_string();
    server
        .request("PATCH", &path, Some((content, &body)))
        .unwrap()
}

fn get(server: &ApiServer, path: &str) -> (u16, Value) {
    let path = format!("{COLLECTION}/{path}");
    server.request("GET", &path, None).unwrap()
}

fn create(server: &ApiServer, name: &str, spec: Value) {
    let body = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport", "metadata": {"name": name}, "spec": spec,
    });
    let body = body.to_string();
    let (status, answer) = server
        .request("POST", COLLECTION, Some(("application/json", &body)))
        .unwrap();
    assert_eq!(status, 201, "{}", answer["message"]);
    // Nobody has looked yet, and everybody who waits for it sees that.
    assert_eq!(answer["status"], json!({"observedGeneration": -1}));
    assert_eq!(Status::of(&answer), Status::default());
}

pub fn resources_scale_and_have_a_status(server: &ApiServer) {
    create(server, "scaled", json!({"devNull": {}}));
    let (code, scale) = get(server, "scaled/scale");
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(1)));
    status_is_kept_and_scale_reads_it(server);
    // `kubectl scale`.
    let (code, answer) = patch(
        server,
        "scaled/scale",
        MERGE,
        &json!({"spec": {"replicas": 4}}),
    );
    assert_eq!((code, &answer["spec"]["replicas"]), (200, &json!(4)));
    others_scale_it(server);
    what_is_emptied_is_empty(server);
    an_ordered_worker_is_not_scaled(server);
    a_volume_keeps_what_it_was_made_with(server);
    autoscaling_freezes_replicas(server);
}

/// As a HorizontalPodAutoscaler and KEDA do it: they read the scale, find pods by its selector, and put it back with another
/// number, none at all included.
fn others_scale_it(server: &ApiServer) {
    let put = |scale: &Value| {
        let body = scale.to_string();
        let path = format!("{COLLECTION}/scaled/scale");
        server
            .request("PUT", &path, Some(("application/json", &body)))
            .unwrap()
    };
    let (_, first) = get(server, "scaled/scale");
    assert_eq!(first["kind"], "Scale");
    let selector = first["status"]["selector"].as_str().unwrap();
    let labels: Vec<_> = selector
        .split(',')
        .filter_map(|one| one.split_once('='))
        .collect();
    assert_eq!(
        labels,
        [("vumi.dev/kind", "Transport"), ("vumi.dev/name", "scaled")]
    );
    for replicas in [0, 3] {
        let (_, mut scale) = get(server, "scaled/scale");
        scale["spec"]["replicas"] = replicas.into();
        let (code, answer) = put(&scale);
        // None at all is not written out.
        let told = answer["spec"]["replicas"].as_i64().unwrap_or(0);
        assert_eq!((code, told), (200, replicas));
        let (_, resource) = get(server, "scaled");
        assert_eq!(resource["spec"]["replicas"], replicas);
        // They do not touch what the operator says.
        assert_eq!(resource["status"]["selector"], selector);
    }
    // Who read it before somebody else changed it is told so.
    assert_eq!(put(&first).0, 409);
    let path = "scaled/scale";
    let (code, _) = patch(server, path, MERGE, &json!({"spec": {"replicas": 4}}));
    assert_eq!(code, 200);
}

/// Who stops writing the last field of an object still has the object.
fn what_is_emptied_is_empty(server: &ApiServer) {
    let apply = |spec: Value| {
        let object = json!({
            "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport", "metadata": {"name": "emptied"}, "spec": spec,
        });
        let path = "emptied?fieldManager=test&fieldValidation=Strict";
        let (code, answer) = patch(server, path, APPLY, &object);
        assert!([200, 201].contains(&code), "{}", answer["message"]);
        answer["spec"].clone()
    };
    let secret = json!({"name": "vumi-broker"});
    let spec = apply(json!({
        "httpRpc": {"deadline": {"after": "30s", "text": "later"}}, "http": {"port": 8080},
        "broker": {"secretRef": secret, "tls": {"caSecretRef": {"name": "ca"}}},
        "service": {"annotations": {"a": "b"}},
        "overrides": {"spec": {"priorityClassName": "high"}},
    }));
    assert_eq!(spec["httpRpc"]["deadline"]["after"], "30s");
    let spec = apply(json!({
        "httpRpc": {}, "http": {"port": 8080},
        "broker": {"secretRef": secret, "tls": {}},
        "service": {"annotations": {}},
        "overrides": {},
    }));
    assert_eq!(spec["httpRpc"], json!({}));
    assert_eq!(spec["broker"]["tls"], json!({}));
    assert_eq!(spec["service"]["annotations"], json!({}));
    assert_eq!(spec["overrides"], json!({}));
}

fn status_is_kept_and_scale_reads_it(server: &ApiServer) {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Running", "message": "it runs",
            "lastTransitionTime": "2026-11-26T16:00:00Z", "observedGeneration": 1,
        })
    };
    let status = json!({
        "observedGeneration": 1, "appliedGeneration": 1, "type": "devNull", "replicas": 2, "readyReplicas": 1,
        "selector": "vumi.dev/kind=Transport,vumi.dev/name=scaled", "address": "a:1", "url": "http://a",
        "link": "UP", "backlog": "10k+", "parked": "0", "why": "w", "broker": "b", "runtimeVersion": "1",
        "autoscaling": {"desiredReplicas": 2, "reason": "Idle", "message": "m", "since": "s"},
        "conditions": [condition("Ready")],
    });
    let (code, answer) = patch(server, "scaled/status", MERGE, &json!({"status": status}));
    assert_eq!(code, 200, "{}", answer["message"]);
    let read = Status::of(&answer);
    assert_eq!(serde_json::to_value(&read).unwrap(), status);
    let (_, scale) = get(server, "scaled/scale");
    assert_eq!(scale["status"]["replicas"], 2);
    assert_eq!(scale["status"]["selector"], status["selector"]);
    // Two writers keep each other's conditions.
    let object = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport", "metadata": {"name": "scaled"},
        "status": {"conditions": [condition("LinkUp")]},
    });
    let (code, answer) = patch(server, "scaled/status?fieldManager=other", APPLY, &object);
    assert_eq!(code, 200, "{}", answer["message"]);
    assert_eq!(Status::of(&answer).conditions.len(), 2);
    // A condition that is none.
    let bad = json!({"status": {"conditions": [{"type": "Ready", "status": "Perhaps"}]}});
    let (code, _) = patch(server, "scaled/status", MERGE, &bad);
    assert_eq!(code, 422);
}

fn an_ordered_worker_is_not_scaled(server: &ApiServer) {
    create(server, "ordered", json!({"telnet": {"port": 9010}}));
    let (code, answer) = patch(
        server,
        "ordered/scale",
        MERGE,
        &json!({"spec": {"replicas": 2}}),
    );
    let message = answer["message"].as_str().unwrap_or_default();
    assert_eq!(code, 422, "{message}");
    assert!(
        message.contains("an ordered worker has one pod at work"),
        "{message}"
    );
}

/// A claim cannot be changed, so that an edit of it would be ignored.
fn a_volume_keeps_what_it_was_made_with(server: &ApiServer) {
    let volume = |spec: Value| json!({"spec": {"state": {"volume": spec}}});
    let spec = json!({"telnet": {"port": 9011}, "state": {"volume": {"size": "1Gi"}}});
    create(server, "kept", spec);
    for other in [json!({"size": "2Gi"}), json!({"storageClassName": "fast"})] {
        let (code, answer) = patch(server, "kept", MERGE, &volume(other));
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(code, 422, "{message}");
        assert!(
            message.contains("a volume keeps what it was made with"),
            "{message}"
        );
    }
    let none = json!({"spec": {"state": null}});
    let (code, answer) = patch(server, "kept", MERGE, &none);
    assert_eq!(code, 200, "{}", answer["message"]);
    let (code, answer) = patch(server, "kept", MERGE, &volume(json!({"size": "2Gi"})));
    assert_eq!(code, 200, "{}", answer["message"]);
}

fn autoscaling_freezes_replicas(server: &ApiServer) {
    let on = json!({"spec": {"autoscaling": {"maxReplicas": 9}}});
    let (code, answer) = patch(server, "scaled", MERGE, &on);
    assert_eq!(code, 200, "{}", answer["message"]);
    assert_eq!(answer["spec"]["replicas"], 4);
    for path in ["scaled", "scaled/scale"] {
        let (code, answer) = patch(server, path, MERGE, &json!({"spec": {"replicas": 5}}));
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(code, 422, "{path}: {message}");
        let sentence = "spec.autoscaling decides the replicas: change its bounds or remove it";
        assert!(message.contains(sentence), "{path}: {message}");
    }
    // Its bounds may be changed, and a status is written beside it.
    let (code, _) = patch(
        server,
        "scaled",
        MERGE,
        &json!({"spec": {"autoscaling": {"maxReplicas": 6}}}),
    );
    assert_eq!(code, 200);
    let (code, _) = patch(
        server,
        "scaled/status",
        MERGE,
        &json!({"status": {"replicas": 6}}),
    );
    assert_eq!(code, 200);
    let off = json!({"spec": {"autoscaling": null, "replicas": 5}});
    let (code, answer) = patch(server, "scaled", MERGE, &off);
    assert_eq!((code, &answer["spec"]["replicas"]), (200, &json!(5)));
}
