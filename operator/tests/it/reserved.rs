//! A kind that has no worker yet: whoever has a resource of it all the same is told so, and nothing is made of it.

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
