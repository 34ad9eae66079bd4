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

/// The Secret of the broker, as a program writes it that gives it a label, too.
fn write(world: &World, second: u8, label: &str, url: &str) {
    let time = format!("2026-11-26T12:00:0{second}Z");
    let wrote = json!([{"manager": "helm", "operation": "Update", "time": time, "fieldsV1": {"f:data": {}}}]);
    let labels = json!({"helm.sh/chart": label});
    let metadata = json!({"name": "vumi-broker", "labels": labels, "managedFields": wrote});
    let path = "/api/v1/namespaces/campaign/secrets/vumi-broker";
    let secret = json!({"metadata": metadata, "data": {"connection_string": url}});
    world.server.put(path, secret);
}

/// Runs until it is noticed, within a minute, that a Secret is another one.
async fn noticed(world: &World) {
    let (tell, mut told_of) = tokio::sync::mpsc::channel(8);
    let changed = |key| tell.try_send(key).unwrap();
    tokio::select! {
        () = world.engine.secrets.run(changed) => {}
        key = told_of.recv() => assert_eq!(key.unwrap(), world.key),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nobody notices"),
    }
}

/// A program that reads its Secrets only when it starts is started anew for what they hold, and not because another operator leads.
#[tokio::test(start_paused = true)]
async fn another_operator_starts_a_program_anew_only_for_another_content() {
    let mut world = World::new().await;
    let [first, second, third] = ["YW1xcDovL2E=", "YW1xcDovL2I=", "YW1xcDovL2M="];
    let marked = "PATCH serviceaccounts/transport-t";
    let rolled = [marked, "PATCH deployments/transport-t"];
    write(&world, 0, "a-1", first);
    world
        .running(json!({"custom": {"image": "a"}, "replicas": 1}))
        .await;
    world.silence().await;
    // After the last look, but for the one that this leads to.
    write(&world, 1, "a-2", first);
    noticed(&world).await;
    assert_eq!(told(world.done().await), [marked]);
    world.silence().await;
    world.restart().await;
    assert!(told(world.done().await).is_empty());
    // The next one goes on from there.
    write(&world, 2, "a-3", first);
    noticed(&world).await;
    assert_eq!(told(world.done().await), [marked]);
    // A second write within one second.
    write(&world, 2, "a-3", second);
    noticed(&world).await;
    assert_eq!(told(world.done().await)[..2], rolled);
    world.settle().await;
    world.restart().await;
    assert!(told(world.done().await).is_empty());
    world.restart().await;
    write(&world, 3, "a-3", third);
    assert_eq!(told(world.done().await)[..2], rolled);
    world.settle().await;
    // Two things at once: nobody can say any more that it holds the same.
    world.restart().await;
    write(&world, 4, "a-4", third);
    assert_eq!(told(world.done().await)[..2], rolled);
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
