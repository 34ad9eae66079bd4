//! What becomes of a Secret that changes: pods are told of it, and none is replaced.

use crate::fake::Instead;
use crate::world::{COMPARED, NAMESPACE, World, telnet, told};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::looked::Looked;

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_touches_pods_and_replaces_none() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let pod = ObjectKind::named("Pod").unwrap();
    let path = pod.path(NAMESPACE, "transport-t-0");
    world.silence().await;
    world.rotate();
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(
        world.done().await,
        [
            "GET secrets/vumi-broker",
            "GET secrets/vumi-redis",
            COMPARED,
            "PATCH pods/transport-t-0",
            "POST events SecretChanged",
            "PATCH serviceaccounts/transport-t",
        ]
    );
    world.tell(pod, &path);
    world.silence().await;
}

/// A workload that is written has another generation, of which its controller has to hear, and its overrides are tried.
#[tokio::test(start_paused = true)]
async fn a_rotated_secret_writes_no_workload_and_tries_none() {
    let mut world = World::new().await;
    let overrides = json!({"spec": {"priorityClassName": "high"}});
    world.write(json!({"telnet": {"port": 9010}, "overrides": overrides}));
    world.done().await;
    world.settle().await;
    world.rotate();
    tokio::time::advance(Duration::from_secs(30)).await;
    let calls = told(world.done().await);
    let marked = "PATCH serviceaccounts/transport-t".to_owned();
    assert!(calls.contains(&marked), "{calls:?}");
    let written = calls.iter().any(|call| call.contains("deployments"));
    assert!(!written, "{calls:?}");
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_label_of_a_secret_is_nobodys_business() {
    let mut world = World::new().await;
    let secret = |labels: Value, entries: Value, url: &str| {
        json!({
            "metadata": {"name": "vumi-broker", "uid": "u", "labels": labels, "managedFields": entries},
            "data": {"connection_string": url},
        })
    };
    let (first, second) = ("YW1xcDovL2E=", "YW1xcDovL2I=");
    let entry = |manager: &str, fields: Value| {
        let time = "2026-11-26T12:00:00Z";
        json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields})
    };
    let made = entry("helm", json!({"f:data": {"f:connection_string": {}}}));
    let path = "/api/v1/namespaces/campaign/secrets/vumi-broker";
    world
        .server
        .put(path, secret(json!({}), json!([made]), first));
    world.running(telnet()).await;
    let label = entry("kubectl-label", json!({"f:metadata": {"f:labels": {}}}));
    let labels = json!({"vumi.dev/watch": "true"});
    world
        .server
        .put(path, secret(labels, json!([made, label]), first));
    world.silence().await;
    let later = entry(
        "kubectl-edit",
        json!({"f:data": {"f:connection_string": {}}}),
    );
    world
        .server
        .put(path, secret(json!({}), json!([later]), second));
    tokio::time::advance(Duration::from_secs(30)).await;
    let calls = told(world.done().await);
    assert_eq!(calls[0], "PATCH pods/transport-t-0", "{calls:?}");
}

/// Which revision pods were told of is known from the ServiceAccount, by whoever leads.
#[tokio::test(start_paused = true)]
async fn a_secret_that_was_rotated_while_no_operator_ran_is_noticed() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.restart().await;
    assert!(told(world.done().await).is_empty());
    world.restart().await;
    world.rotate();
    // The operator ends in the midst of it: the next one goes on.
    world.server.instead(|call| {
        let last = call.path.ends_with("/serviceaccounts/transport-t");
        last.then_some(Instead::Refusal(500, "etcd has another leader"))
    });
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Failed(_)), "{looked:?}");
    let touched = ["PATCH pods/transport-t-0", "POST events SecretChanged"];
    assert_eq!(told(calls)[..2], touched);
    world.server.mend();
    world.restart().await;
    let marked = ["PATCH serviceaccounts/transport-t"];
    assert_eq!(told(world.done().await), marked);
    world.silence().await;
    world.restart().await;
    assert!(told(world.done().await).is_empty());
}

/// What somebody says of it goes before the minute.
#[tokio::test(start_paused = true)]
async fn a_secret_of_which_somebody_tells_is_read_at_once() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let engine = std::sync::Arc::clone(&world.engine);
    let (tell, mut told_of) = tokio::sync::mpsc::channel(8);
    let task = tokio::spawn(async move {
        let changed = |key| tell.try_send(key).unwrap();
        engine.secrets.run(changed).await;
    });
    world.rotate();
    let began = Instant::now();
    world.engine.secrets.has_changed(NAMESPACE, "vumi-broker");
    // Of what nobody uses, nothing is read.
    world.engine.secrets.has_changed(NAMESPACE, "other");
    assert_eq!(told_of.recv().await.unwrap(), world.key);
    assert!(began.elapsed() <= Duration::from_secs(2));
    task.abort();
    let calls = world.server.calls();
    assert!(
        !calls.contains(&"GET secrets/other".to_owned()),
        "{calls:?}"
    );
}
