//! A kind that has no worker yet: whoever has a resource of it all the same is told so, and nothing is made of it.

use crate::cluster::{Cluster, definitions, until};
use crate::fake::Instead;
use crate::world::{NAMESPACE, World};
use serde_json::{Value, json};
use vumi_api::Kind;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::reconcile::reconcile;
use vumi_operator::engine::store::Key;

/// A server that has one, and its key.
async fn stored() -> (World, Key) {
    let world = World::new().await;
    let key = Key {
        kind: Kind::MetricAggregator,
        namespace: NAMESPACE.into(),
        name: "m".into(),
    };
    let object = json!({
        "apiVersion": "vumi.dev/v1alpha1",
        "kind": "MetricAggregator",
        "metadata": {"name": "m", "namespace": NAMESPACE, "generation": 1},
        "spec": {},
    });
    world.server.put(&path(), object);
    world.tell(ObjectKind::of(Kind::MetricAggregator), &path());
    (world, key)
}

fn path() -> String {
    ObjectKind::of(Kind::MetricAggregator).path(NAMESPACE, "m")
}

async fn look(world: &World, key: &Key) -> Vec<String> {
    let looked = reconcile(&world.engine, key).await;
    assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
    world.server.calls()
}

/// Under newer definitions, which have the kind.
#[tokio::test(start_paused = true)]
async fn its_status_says_that_nothing_runs_it() {
    let (world, key) = stored().await;
    assert_eq!(
        look(&world, &key).await,
        [
            "PATCH metricaggregators/m/status",
            "POST events KindReserved"
        ]
    );
    let status = world.server.object(&path()).unwrap()["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    let conditions = status["conditions"].as_array().unwrap();
    let said = |kind: &str| -> Value {
        let mut all = conditions.iter();
        all.find(|c| c["type"] == kind).cloned().unwrap_or_default()
    };
    assert_eq!(said("Ready")["status"], "False");
    assert_eq!(said("Stalled")["reason"], "KindReserved");
    let message = said("Stalled")["message"].to_string();
    assert!(message.contains("runs a MetricAggregator"), "{message}");
    for _ in 0..3 {
        assert!(look(&world, &key).await.is_empty());
    }
}

/// Under those of this version, which take no write to it.
#[tokio::test(start_paused = true)]
async fn where_no_status_is_taken_an_event_says_it() {
    let (world, key) = stored().await;
    world.server.instead(|call| {
        let refused = call.path.ends_with("/metricaggregators/m/status");
        refused.then_some(Instead::Refusal(
            422,
            "kind MetricAggregator is not supported yet",
        ))
    });
    assert_eq!(
        look(&world, &key).await,
        [
            "PATCH metricaggregators/m/status",
            "POST events KindReserved"
        ]
    );
    let notes = world.server.notes("KindReserved");
    assert!(notes[0].contains("runs a MetricAggregator"), "{notes:?}");
    // Once is enough.
    assert_eq!(
        look(&world, &key).await,
        ["PATCH metricaggregators/m/status"]
    );
}

/// On a real API server: stored while the definitions took it, as those of a later version will.
pub async fn is_stored(cluster: &Cluster) {
    let all = definitions().into_iter();
    let mut ours = all.filter(|one| one["spec"]["names"]["kind"] == "MetricAggregator");
    let definition = ours.next().unwrap();
    let mut open = definition.clone();
    let schema = &mut open["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let rules = schema["x-kubernetes-validations"].as_array_mut().unwrap();
    let before = rules.len();
    rules.retain(|rule| rule["rule"] != "false");
    assert_eq!(rules.len() + 1, before);
    let object = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "MetricAggregator",
        "metadata": {"name": "m", "namespace": NAMESPACE}, "spec": {},
    });
    let text = object.to_string();
    // The API server takes up other definitions a moment later.
    cluster.server.establish(&open).unwrap();
    until("it to be taken", || {
        let (status, _) = cluster.server.apply(&path(), &text).unwrap();
        status < 300
    })
    .await;
    cluster.server.establish(&definition).unwrap();
    let another = text.replace("\"m\"", "\"n\"");
    let place = ObjectKind::of(Kind::MetricAggregator).path(NAMESPACE, "n");
    let place = format!("{place}?fieldManager=test&dryRun=All");
    until("another one to be refused", || {
        let body = Some(("application/apply-patch+yaml", another.as_str()));
        let (status, answer) = cluster.server.request("PATCH", &place, body).unwrap();
        let message = answer["message"].as_str().unwrap_or_default();
        status == 422 && message.contains("kind MetricAggregator is not supported yet")
    })
    .await;
}

/// In its status, or by an event where the definitions take none.
pub async fn is_told(cluster: &Cluster) {
    let reason = "KindReserved";
    let events = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    until("it to be told that nothing runs it", || {
        let conditions = cluster.get(&path()).unwrap()["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().into_iter().flatten();
        let in_status = conditions.any(|c| c["type"] == "Stalled" && c["reason"] == reason);
        let events = cluster.get(&events).unwrap()["items"].clone();
        let mut events = events.as_array().into_iter().flatten();
        let by_event = events.any(|e| e["reason"] == reason && e["regarding"]["name"] == "m");
        in_status || by_event
    })
    .await;
    assert_eq!(cluster.get(&path()).unwrap()["spec"], json!({}));
}
