//! What is called, in which order, and that there is silence after it.

use crate::fake::Instead;
use crate::world::{COMPARED, NAMESPACE, World, telnet, told};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::Kind;
use vumi_operator::engine::kinds::{KINDS, ObjectKind};
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::queue::Ended;
use vumi_plan::names::{PAUSED, RESTARTED};

#[tokio::test(start_paused = true)]
async fn a_new_resource_gets_its_objects_in_order_and_then_there_is_silence() {
    let mut world = World::new().await;
    world.write(telnet());
    let calls = world.done().await;
    assert_eq!(
        calls,
        [
            "GET secrets/vumi-broker",
            "GET secrets/vumi-redis",
            "PATCH serviceaccounts/transport-t",
            "PATCH configmaps/transport-t",
            "PATCH services/transport-t",
            "PATCH poddisruptionbudgets/transport-t",
            "PATCH deployments/transport-t",
            "POST events Created",
            "PATCH transports/t/status",
            "POST events Starting",
        ]
    );
    assert_eq!(world.condition("Ready")["reason"], "Starting");
    world.silence().await;
    world.run();
    assert_eq!(
        told(world.done().await),
        ["PATCH transports/t/status", "POST events Running"]
    );
    let status = world.status();
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["replicas"], 1);
    assert_eq!(status["backlog"], "0");
    assert_eq!(
        status["selector"],
        "vumi.dev/kind=Transport,vumi.dev/name=t"
    );
    assert!(world.condition("Reconciling").is_null());
    world.silence().await;
}

/// A write would make a rollback of the definitions last that nobody has noticed yet (K2).
#[tokio::test(start_paused = true)]
async fn before_a_write_the_definitions_are_compared_unless_they_just_were() {
    let mut world = World::new().await;
    world.write(telnet());
    let calls = world.done().await;
    assert!(!calls.iter().any(|call| call == COMPARED), "{calls:?}");
    world.run();
    tokio::time::advance(Duration::from_secs(3)).await;
    world
        .server
        .instead(|call| (call.path == "/openapi/v3").then_some(Instead::Refusal(403, "not now")));
    let (looked, calls) = world.look().await;
    // It is tried again, and nothing is said against the resource.
    assert!(matches!(looked.ended(), Ended::Failed(_)), "{looked:?}");
    assert_eq!(calls, [COMPARED]);
    world.server.mend();
    assert_eq!(
        world.done().await,
        [COMPARED, "PATCH transports/t/status", "POST events Running"]
    );
    // Rolled back: every kind is gone.
    tokio::time::advance(Duration::from_secs(3)).await;
    world
        .server
        .instead(|call| (call.path == "/openapi/v3").then_some(Instead::Refusal(200, "")));
    world.write(json!({"telnet": {"port": 9011}}));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked.ended(), Ended::Dropped), "{looked:?}");
    assert_eq!(told(calls), Vec::<String>::new());
}

/// Whoever waits for a comparison has its answer: an API server that says nothing holds all up once, not one after the other.
#[tokio::test(start_paused = true)]
async fn a_comparison_that_fails_holds_up_everybody_once() {
    let world = World::new().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    world
        .server
        .instead(|call| (call.path == "/openapi/v3").then_some(Instead::Silence));
    let began = Instant::now();
    let cluster = &world.engine.cluster;
    let all = (0..20).map(|_| cluster.compare_before_write());
    for answer in futures::future::join_all(all).await {
        assert!(answer.is_err());
    }
    assert!(
        began.elapsed() <= Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert!(world.server.calls().len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn an_edit_writes_what_differs_and_says_why_pods_roll() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.write(json!({"telnet": {"port": 9010}, "replicas": 1, "holdLimit": "30s"}));
    let calls = world.done().await;
    assert_eq!(
        calls,
        [
            "PATCH configmaps/transport-t",
            "PATCH deployments/transport-t",
            "POST events Created",
            "POST events ConfigChanged",
            "DELETE configmaps/transport-t",
            "POST events Pruned",
        ]
    );
    world.run();
    assert_eq!(told(world.done().await), ["PATCH transports/t/status"]);
    assert_eq!(world.condition("Ready")["observedGeneration"], 2);
    world.silence().await;
    // Scaling touches the workload alone, and no template.
    let before = world.child("Deployment").unwrap();
    world.write(json!({"telnet": {"port": 9010}, "replicas": 3, "holdLimit": "30s"}));
    let calls = world.done().await;
    assert_eq!(
        calls,
        [
            COMPARED,
            "PATCH deployments/transport-t",
            "POST events Scaled"
        ]
    );
    world.run();
    assert_eq!(told(world.done().await), ["PATCH transports/t/status"]);
    assert_eq!(world.status()["replicas"], 3);
    let after = world.child("Deployment").unwrap();
    assert_eq!(before["spec"]["template"], after["spec"]["template"]);
    assert_eq!(after["spec"]["replicas"], 3);
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_edit_leaves_the_last_good_one_running() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let before = world.child("Deployment").unwrap();
    // Nothing remembers ids here: there is no state store.
    world.write(
        json!({"httpApi": {"idField": "id"}, "http": {"port": 8080}, "dedupe": {"window": "1h"}}),
    );
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
    assert_eq!(
        calls,
        ["PATCH transports/t/status", "POST events NoStateStore"]
    );
    assert_eq!(world.child("Deployment").unwrap(), before);
    assert!(world.child("Service").is_some());
    assert_eq!(world.condition("Stalled")["reason"], "NoStateStore");
    assert_eq!(world.status()["observedGeneration"], 2);
    assert_eq!(world.status()["appliedGeneration"], 1);
    let message = world.condition("Stalled")["message"].to_string();
    assert!(message.contains("running generation 1"), "{message}");
    // It is said once.
    tokio::time::advance(Duration::from_secs(30)).await;
    let (_, calls) = world.look().await;
    assert!(
        calls.iter().all(|call| call.starts_with("GET secrets/")),
        "{calls:?}"
    );
    // A store is there: it goes on by itself.
    let redis = json!({"metadata": {"name": "vumi-redis"}, "data": {"host": "YQ=="}});
    world
        .server
        .put("/api/v1/namespaces/campaign/secrets/vumi-redis", redis);
    tokio::time::advance(Duration::from_secs(30)).await;
    let calls = world.done().await;
    assert!(
        calls.contains(&"PATCH deployments/transport-t".to_owned()),
        "{calls:?}"
    );
    world.settle().await;
    assert!(world.condition("Stalled").is_null());
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_missing_is_waited_for() {
    let mut world = World::new().await;
    world.write(json!({"telnet": {"port": 9010}, "broker": {"secretRef": {"name": "rabbit"}}}));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked.ended(), Ended::Again(_)), "{looked:?}");
    assert!(
        !calls.iter().any(|call| call.contains("deployments")),
        "{calls:?}"
    );
    assert_eq!(world.condition("Reconciling")["reason"], "SecretMissing");
    let rabbit =
        json!({"metadata": {"name": "rabbit"}, "data": {"connection_string": "YW1xcDovL2E="}});
    world
        .server
        .put("/api/v1/namespaces/campaign/secrets/rabbit", rabbit);
    tokio::time::advance(Duration::from_secs(10)).await;
    world.done().await;
    assert!(world.child("Deployment").is_some());
    world.settle().await;
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_deleted() {
    let mut world = World::new().await;
    world
        .running(json!({"telnet": {"port": 9010}, "networkPolicy": {}}))
        .await;
    assert!(world.child("NetworkPolicy").is_some());
    world.write(json!({"telnet": {"port": 9010}}));
    let calls = world.done().await;
    assert_eq!(
        calls,
        [
            "DELETE networkpolicies/transport-t",
            "POST events Pruned",
            "PATCH transports/t/status",
        ]
    );
    assert!(world.child("NetworkPolicy").is_none());
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_config_map_stays_while_a_replica_set_names_it() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let template = world.child("Deployment").unwrap()["spec"]["template"].clone();
    let path = ObjectKind::named("ReplicaSet")
        .unwrap()
        .path(NAMESPACE, "transport-t-1");
    let set = json!({
        "metadata": {"name": "transport-t-1", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]},
        "spec": {"template": template},
    });
    world.server.put(&path, set);
    world.tell(ObjectKind::named("ReplicaSet").unwrap(), &path);
    world.write(json!({"telnet": {"port": 9010}, "replicas": 1, "holdLimit": "30s"}));
    let calls = world.done().await;
    assert!(
        !calls.iter().any(|call| call.starts_with("DELETE")),
        "{calls:?}"
    );
    world.settle().await;
    world.silence().await;
    let uid = world.server.object(&path).unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let kind = ObjectKind::named("ReplicaSet").unwrap();
    world
        .engine
        .stores
        .remove(kind, &world.key, "transport-t-1", &uid);
    assert_eq!(
        world.done().await,
        [
            COMPARED,
            "DELETE configmaps/transport-t",
            "POST events Pruned"
        ]
    );
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_somebody_else_took_is_put_back() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    for (field, mut spoil) in [
        ("/f:spec/f:replicas", json!({"spec": {"replicas": 7}})),
        (
            "/f:spec/f:template/f:spec/f:containers",
            json!({"spec": {"template": {"spec": {"enableServiceLinks": true}}}}),
        ),
    ] {
        // Somebody else's write: the value is another one, and the field leaves our entry.
        let kind = ObjectKind::named("Deployment").unwrap();
        let path = kind.path(NAMESPACE, "transport-t");
        let mut object = world.child("Deployment").unwrap();
        let (parent, name) = field.rsplit_once('/').unwrap();
        let fields = object
            .pointer_mut(&format!("/metadata/managedFields/0/fieldsV1{parent}"))
            .unwrap();
        fields.as_object_mut().unwrap().remove(name).unwrap();
        if let Some(replicas) = spoil["spec"].get_mut("replicas") {
            object["spec"]["replicas"] = replicas.take();
        }
        object["metadata"]["generation"] = 9.into();
        world.server.put(&path, object);
        world.tell(kind, &path);
        let (looked, calls) = world.look().await;
        assert!(matches!(looked, Looked::Corrected), "{looked:?}");
        let expected = [
            "PATCH deployments/transport-t",
            "POST events DriftCorrected",
        ];
        assert_eq!(told(calls), expected, "{field}");
        assert_eq!(world.child("Deployment").unwrap()["spec"]["replicas"], 1);
        world.settle().await;
        world.silence().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_belongs_to_nobody_becomes_ours_and_is_no_drift() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let kind = ObjectKind::named("Service").unwrap();
    let path = kind.path(NAMESPACE, "transport-t");
    let mut object = world.child("Service").unwrap();
    let owners = object["metadata"]["ownerReferences"].take();
    assert_eq!(owners[0]["controller"], true, "{owners}");
    world.server.put(&path, object);
    world.tell(kind, &path);
    let written = ["PATCH services/transport-t", "POST events Updated"];
    assert_eq!(told(world.done().await), written);
    let owned = world.child("Service").unwrap();
    assert_eq!(owned["metadata"]["ownerReferences"], owners);
    world.silence().await;
}

fn uid(world: &World) -> String {
    let object = world.server.object(&world.path()).unwrap();
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_resource_is_left_to_the_garbage_collector() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let kind = ObjectKind::of(Kind::Transport);
    world
        .engine
        .stores
        .remove(kind, &world.key, "t", &uid(&world));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Gone), "{looked:?}");
    assert!(calls.is_empty(), "{calls:?}");
    // Made anew while children of the old one are still there: it waits for these to go.
    world.server.put(&world.path(), Value::Null);
    world.write_with(telnet(), json!({}));
    let mut object = world.server.object(&world.path()).unwrap();
    object["metadata"]["uid"] = "another".into();
    let path = world.path();
    world.server.put(&path, object);
    world.tell(kind, &path);
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Waiting(_)), "{looked:?}");
    assert!(
        !calls
            .iter()
            .any(|call| call.starts_with("PATCH deployments")),
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn while_paused_nothing_is_touched() {
    let mut world = World::new().await;
    world.write_with(telnet(), json!({PAUSED: "true"}));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Paused(_)), "{looked:?}");
    assert_eq!(
        calls,
        [
            "PATCH transports/t/status",
            "POST events ReconciliationPaused"
        ]
    );
    assert_eq!(world.condition("Paused")["status"], "True");
    let (_, calls) = world.look().await;
    assert!(calls.is_empty(), "{calls:?}");
    world.write(telnet());
    assert!(
        world
            .done()
            .await
            .contains(&"PATCH deployments/transport-t".to_owned())
    );
}

/// Server-side apply must not take back what was asked for, and it is asked for once.
#[tokio::test(start_paused = true)]
async fn who_asks_for_new_pods_gets_them_and_silence_after_that() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let before = world.child("Deployment").unwrap();
    world.write_with(telnet(), json!({RESTARTED: "2026-11-26T12:00:00Z"}));
    let calls = world.done().await;
    let written = ["PATCH deployments/transport-t", "POST events Restarted"];
    assert_eq!(calls[..2], written, "{calls:?}");
    let after = world.child("Deployment").unwrap();
    let annotations =
        |object: &Value| object["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(annotations(&after)[RESTARTED], "2026-11-26T12:00:00Z");
    assert_eq!(annotations(&before).get(RESTARTED), None);
    assert_eq!(
        after["spec"]["template"]["spec"],
        before["spec"]["template"]["spec"]
    );
    world.settle().await;
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn overrides_are_tried_before_anything_is_applied() {
    let mut world = World::new().await;
    let spec =
        json!({"telnet": {"port": 9010}, "overrides": {"spec": {"nodeSelektor": {"a": "b"}}}});
    world.write(spec);
    world.server.instead(|call| {
        let refused = call.query.contains("dryRun=All");
        refused.then_some(Instead::Refusal(
            500,
            "failed to create typed patch object: nodeSelektor",
        ))
    });
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
    assert_eq!(
        calls[2..],
        [
            "PATCH deployments/transport-t (dry run)",
            "PATCH transports/t/status",
            "POST events OverridesInvalid",
        ]
    );
    assert!(
        world.condition("Stalled")["message"]
            .as_str()
            .unwrap()
            .contains("nodeSelektor")
    );
    // The same is not tried again, but for once in a while.
    for (seconds, tried) in [(30, false), (300, false), (300, true), (30, false)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        let (looked, calls) = world.look().await;
        assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
        let calls = told(calls);
        assert_eq!(calls.len(), usize::from(tried), "{seconds}: {calls:?}");
        assert!(calls.iter().all(|call| call.ends_with("(dry run)")));
    }
    assert_eq!(world.condition("Stalled")["reason"], "OverridesInvalid");
    world.server.mend();
    world.write(
        json!({"telnet": {"port": 9010}, "overrides": {"spec": {"nodeSelector": {"a": "b"}}}}),
    );
    let calls = told(world.done().await);
    assert_eq!(calls[0], "PATCH deployments/transport-t (dry run)");
    world.settle().await;
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let mut world = World::new().await;
    world.write(telnet());
    world.server.instead(|call| {
        let taken =
            call.path.ends_with("/services/transport-t") && !call.query.contains("force=true");
        taken.then_some(Instead::Refusal(
            409,
            "Apply failed with 1 conflict: conflict with \"helm\": .spec.ports",
        ))
    });
    let (looked, _) = world.look().await;
    assert!(
        matches!(looked.ended(), Ended::Failed(Some(_))),
        "{looked:?}"
    );
    assert_eq!(world.condition("Reconciling")["reason"], "ApplyFailed");
    world.server.mend();
    world.done().await;
    world.settle().await;
    assert!(world.condition("Reconciling").is_null());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends() {
    let mut world = World::new().await;
    world.write(telnet());
    world
        .server
        .instead(|call| call.path.contains("/services/").then_some(Instead::Silence));
    let began = Instant::now();
    let (looked, _) = world.look().await;
    assert!(matches!(looked.ended(), Ended::Failed(None)), "{looked:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    world.server.mend();
    world.done().await;
    world.settle().await;
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_written() {
    let mut world = World::new().await;
    world.write(telnet());
    world.engine.api.gate().hold(None);
    let (looked, calls) = world.look().await;
    assert_eq!(looked.ended(), Ended::Dropped, "{looked:?}");
    assert!(
        calls.iter().all(|call| call.starts_with("GET ")),
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn of_an_object_whose_type_was_pruned_nothing_is_written() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.write(json!({"replicas": 1}));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
    assert!(calls.is_empty(), "{calls:?}");
    assert!(world.child("Deployment").is_some());
}

#[test]
fn no_kind_but_ours_is_written_that_is_not_ours() {
    // Secrets are not among what is watched or applied at all.
    assert!(KINDS.iter().all(|kind| kind.plural != "secrets"));
}
