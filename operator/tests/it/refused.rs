//! What stands in the way of a resource is told, and whoever wants no pods gets none whatever is refused.

use crate::fake::Instead;
use crate::world::{NAMESPACE, World, telnet, told};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use vumi_operator::brokers::Place;
use vumi_operator::engine::apply::remember;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::queue::Ended;
use vumi_plan::Broker;
use vumi_plan::names::PAUSED;

/// A child is being deleted since this moment.
fn leaves(world: &World, kind: &str, finalizers: &[&str]) {
    let mut object = world.child(kind).unwrap();
    let kind = ObjectKind::named(kind).unwrap();
    let path = kind.path(NAMESPACE, "transport-t");
    let since = world.engine.clock.now();
    object["metadata"]["deletionTimestamp"] = since.to_string().into();
    object["metadata"]["finalizers"] = json!(finalizers);
    world.server.put(&path, object);
    world.tell(kind, &path);
}

/// Somebody takes its finalizer off.
fn goes(world: &World, kind: &str) {
    let uid = world.child(kind).unwrap()["metadata"]["uid"].clone();
    let kind = ObjectKind::named(kind).unwrap();
    world.server.remove(&kind.path(NAMESPACE, "transport-t"));
    let (stores, uid) = (&world.engine.stores, uid.as_str().unwrap());
    stores.remove(kind, &world.key, "transport-t", uid);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_and_does_not_go_is_told_of() {
    let mut world = World::new().await;
    world
        .running(json!({"telnet": {"port": 9010}, "networkPolicy": {}}))
        .await;
    world.write(json!({"telnet": {"port": 9010}}));
    leaves(&world, "NetworkPolicy", &["example.net/cleanup"]);
    let (looked, calls) = world.look().await;
    let Looked::Done(Some(again)) = looked else {
        panic!("{looked:?}");
    };
    assert!(again <= Duration::from_secs(10), "{again:?}");
    assert_eq!(told(calls), ["PATCH transports/t/status"], "the edit");
    tokio::time::advance(Duration::from_secs(10)).await;
    let written = ["PATCH transports/t/status", "POST events ObjectLeaving"];
    assert_eq!(told(world.done().await), written);
    let reconciling = world.condition("Reconciling");
    assert_eq!(reconciling["reason"], "ObjectLeaving");
    let message = reconciling["message"].as_str().unwrap();
    for part in ["NetworkPolicy transport-t", "example.net/cleanup"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(world.condition("Ready")["status"], "True");
    assert_eq!(world.status()["appliedGeneration"], 2);
    world.silence().await;
    goes(&world, "NetworkPolicy");
    world.done().await;
    assert!(world.condition("Reconciling").is_null());
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_tells_before_the_answer_to_a_deletion_is_not_forgotten() {
    let mut world = World::new().await;
    let with_policy = json!({"telnet": {"port": 9010}, "networkPolicy": {}});
    world.running(with_policy.clone()).await;
    let mut object = world.child("NetworkPolicy").unwrap();
    object["metadata"]["deletionTimestamp"] = world.engine.clock.now().to_string().into();
    object["metadata"]["finalizers"] = json!(["example.net/cleanup"]);
    object["metadata"]["resourceVersion"] = "1000".into();
    let engine = Arc::clone(&world.engine);
    world.server.instead(move |call| {
        let kind = ObjectKind::named("NetworkPolicy").unwrap();
        (call.method.as_str() == "DELETE").then(|| {
            remember(&engine, kind, object.clone());
            Instead::Refusal(200, "it will go")
        })
    });
    world.write(json!({"telnet": {"port": 9010}}));
    let calls = world.done().await;
    assert_eq!(calls[0], "DELETE networkpolicies/transport-t");
    tokio::time::advance(Duration::from_secs(10)).await;
    let written = ["PATCH transports/t/status", "POST events ObjectLeaving"];
    assert_eq!(told(world.done().await), written);
    // Wanted again, it is not made of what goes.
    world.write(with_policy);
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Waiting(_)), "{looked:?}");
    let applied = calls.iter().any(|call| call.contains("networkpolicies"));
    assert!(!applied, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_go_is_told_of_once_that_has_lasted() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    leaves(&world, "Service", &["example.net/cleanup"]);
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Waiting(_)), "{looked:?}");
    assert!(told(calls).is_empty(), "what goes at once is no news");
    tokio::time::advance(Duration::from_secs(10)).await;
    let (looked, calls) = world.look().await;
    assert!(matches!(looked.ended(), Ended::Again(_)), "{looked:?}");
    let written = ["PATCH transports/t/status", "POST events ObjectLeaving"];
    assert_eq!(told(calls), written);
    let reconciling = world.condition("Reconciling");
    assert_eq!(reconciling["reason"], "ObjectLeaving");
    let message = reconciling["message"].as_str().unwrap();
    let since = world.child("Service").unwrap()["metadata"]["deletionTimestamp"].clone();
    let since = since
        .as_str()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .trim_end_matches('Z');
    for part in [
        "Service transport-t is being deleted since",
        since,
        "example.net/cleanup",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(world.server.notes("ObjectLeaving")[0].contains("example.net/cleanup"));
    assert_eq!(world.condition("Ready")["status"], "True", "its pods run");
    // It is said once.
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(30)).await;
        let (_, calls) = world.look().await;
        assert!(told(calls).is_empty());
    }
    goes(&world, "Service");
    let calls = told(world.done().await);
    assert_eq!(
        calls[..2],
        ["PATCH services/transport-t", "POST events Created"]
    );
    world.settle().await;
    assert!(world.condition("Reconciling").is_null());
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_go_is_not_called_ready() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let kind = ObjectKind::named("Deployment").unwrap();
    let path = kind.path(NAMESPACE, "transport-t");
    let mut object = world.child("Deployment").unwrap();
    let since = world.engine.clock.now() - SignedDuration::from_secs(60);
    object["metadata"]["deletionTimestamp"] = since.to_string().into();
    object["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    world.server.put(&path, object);
    world.tell(kind, &path);
    world.look().await;
    let ready = world.condition("Ready");
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&"False".into(), &"ObjectLeaving".into())
    );
    let message = world.condition("Reconciling")["message"].to_string();
    assert!(
        message.contains("which of its pods does not end"),
        "{message}"
    );
}

fn replicas(world: &World) -> Value {
    world.child("Deployment").unwrap()["spec"]["replicas"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_refused_resource_can_be_suspended() {
    // Refused: by what it needs, by what is missing, by what nobody here knows.
    for (spec, kind, reason) in [
        (
            json!({"httpApi": {"idField": "id"}, "http": {"port": 8080}, "dedupe": {"window": "1h"}}),
            "Stalled",
            "NoStateStore",
        ),
        (
            json!({"telnet": {"port": 9010}, "broker": {"secretRef": {"name": "absent"}}}),
            "Reconciling",
            "SecretMissing",
        ),
        (
            json!({"telnet": {"port": 9010}, "ofNextYear": 1}),
            "Stalled",
            "Invalid",
        ),
    ] {
        let mut world = World::new().await;
        world.running(telnet()).await;
        let template = world.child("Deployment").unwrap()["spec"]["template"].clone();
        world.write(spec.clone());
        world.look().await;
        assert_eq!(replicas(&world), 1, "{reason}: what ran before runs on");
        let mut suspended = spec;
        suspended["suspend"] = true.into();
        world.write(suspended);
        let (_, calls) = world.look().await;
        let stopped = ["PATCH deployments/transport-t", "POST events Scaled"];
        assert_eq!(told(calls)[..2], stopped, "{reason}");
        assert_eq!(replicas(&world), 0, "{reason}");
        assert_eq!(
            world.child("Deployment").unwrap()["spec"]["template"],
            template
        );
        let condition = world.condition(kind);
        assert_eq!(condition["reason"], reason);
        assert_eq!(world.condition("Ready")["reason"], reason);
        let message = condition["message"].as_str().unwrap();
        assert!(
            message.ends_with("it has no pods, since spec.suspend is set"),
            "{message}"
        );
        // Once, and for as long as it is wanted.
        world.look().await;
        let (_, calls) = world.look().await;
        assert!(told(calls).is_empty(), "{reason}");
        // What ran before is wanted again: it is written anew, and nobody is blamed.
        world.write(telnet());
        let calls = told(world.done().await);
        assert_eq!(
            calls[..2],
            ["PATCH deployments/transport-t", "POST events Scaled"],
            "{reason}"
        );
        assert_eq!(replicas(&world), 1, "{reason}");
        world.settle().await;
        world.silence().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_refuses_can_be_suspended_too() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.server.instead(|call| {
        let refused = call.path.ends_with("/services/transport-t");
        refused.then_some(Instead::Refusal(403, "forbidden: exceeded quota"))
    });
    world.write(json!({"telnet": {"port": 9011}, "suspend": true}));
    world.look().await;
    assert_eq!(replicas(&world), 0);
    assert_eq!(world.condition("Reconciling")["reason"], "ApplyFailed");
    world.server.mend();
    world.done().await;
    world.settle().await;
    assert_eq!(world.condition("Ready")["reason"], "Suspended");
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_written_can_be_suspended_too() {
    for part in ["/services/transport-t", "/secrets/"] {
        let mut world = World::new().await;
        world.running(telnet()).await;
        // Longer than what was read of Secrets counts as fresh.
        tokio::time::advance(Duration::from_secs(30)).await;
        world.server.instead(move |call| {
            let fails = call.path.contains(part);
            fails.then_some(Instead::Refusal(500, "failed calling webhook"))
        });
        world.write(json!({"telnet": {"port": 9011}, "suspend": true}));
        let (looked, _) = world.look().await;
        assert!(matches!(looked, Looked::Failed(_)), "{part}: {looked:?}");
        assert_eq!(replicas(&world), 0, "{part}");
        assert_eq!(world.server.notes("Scaled").len(), 1, "{part}");
        let (_, calls) = world.look().await;
        let again = calls.iter().any(|call| call.contains("deployments"));
        assert!(!again, "{part}: {calls:?}");
        world.server.mend();
        world.done().await;
        world.settle().await;
        assert_eq!(world.condition("Ready")["reason"], "Suspended", "{part}");
        world.silence().await;
    }
}

/// Whatever is forbidden before anything is applied: nobody has to look for it in a log.
#[tokio::test(start_paused = true)]
async fn what_the_operator_may_not_do_is_told_at_once() {
    let overrides = json!({"spec": {"priorityClassName": "high"}});
    for (part, spec, named) in [
        (
            "/secrets/",
            json!({"telnet": {"port": 9011}}),
            "the Secret vumi-broker cannot be read",
        ),
        (
            "dryRun=All",
            json!({"telnet": {"port": 9010}, "overrides": overrides}),
            "cannot be asked whether it takes the pods",
        ),
    ] {
        let mut world = World::new().await;
        world.running(telnet()).await;
        // Longer than what was read of Secrets counts as fresh.
        tokio::time::advance(Duration::from_secs(30)).await;
        world.server.instead(move |call| {
            let hit = call.path.contains(part) || call.query.contains(part);
            hit.then_some(Instead::Refusal(403, "is forbidden by a policy"))
        });
        world.write(spec);
        let (looked, calls) = world.look().await;
        assert!(
            matches!(looked.ended(), Ended::Failed(Some(_))),
            "{part}: {looked:?}"
        );
        let written = ["PATCH transports/t/status", "POST events ApplyFailed"];
        let calls = told(calls);
        assert!(calls.ends_with(&written.map(str::to_owned)), "{calls:?}");
        let reconciling = world.condition("Reconciling");
        assert_eq!(reconciling["reason"], "ApplyFailed", "{part}");
        let message = reconciling["message"].as_str().unwrap();
        for said in [named, "is forbidden by a policy", "running generation 1"] {
            assert!(message.contains(said), "{said} in {message}");
        }
        let status = world.status();
        assert_eq!(status["observedGeneration"], 2, "{part}");
        assert_eq!(status["appliedGeneration"], 1, "{part}");
        // It is said once.
        let (_, calls) = world.look().await;
        let written = calls.iter().any(|call| call.contains("status"));
        assert!(!written, "{part}: {calls:?}");
        world.server.mend();
        world.done().await;
        world.settle().await;
        assert!(world.condition("Reconciling").is_null(), "{part}");
        world.silence().await;
    }
}

/// What cannot be deleted, and pods that cannot be told of a Secret, keep nothing else from being done.
#[tokio::test(start_paused = true)]
async fn what_fails_beside_the_rest_stops_nothing() {
    for (refused, looks) in [(403, 1), (500, 3)] {
        for (verb, part, named) in [
            ("DELETE", "/networkpolicies/", "NetworkPolicy transport-t"),
            ("PATCH", "/pods/", "Pod transport-t-0"),
        ] {
            let mut world = World::new().await;
            world
                .running(json!({"telnet": {"port": 9010}, "networkPolicy": {}}))
                .await;
            world.rotate();
            tokio::time::advance(Duration::from_secs(30)).await;
            world.server.instead(move |call| {
                let hit = call.method.as_str() == verb && call.path.contains(part);
                hit.then_some(Instead::Refusal(refused, "no, not this"))
            });
            world.write(json!({"telnet": {"port": 9010}, "updatePolicy": "Manual"}));
            for look in 1..=looks {
                let (looked, _) = world.look().await;
                assert!(
                    matches!(looked.ended(), Ended::Failed(None)),
                    "{part}: {looked:?}"
                );
                let status = world.status();
                assert_eq!(status["observedGeneration"], 2, "{part}");
                assert_eq!(status["appliedGeneration"], 2, "{part}");
                assert_eq!(world.condition("Ready")["status"], "True", "{part}");
                let reconciling = world.condition("Reconciling");
                assert_eq!(reconciling.is_null(), look < looks, "{part}: {look}");
            }
            let reconciling = world.condition("Reconciling");
            assert_eq!(reconciling["reason"], "ApplyFailed", "{part}");
            let message = reconciling["message"].as_str().unwrap();
            for said in [named, "no, not this"] {
                assert!(message.contains(said), "{said} in {message}");
            }
            let gone = world.child("NetworkPolicy").is_none();
            assert_eq!(gone, verb != "DELETE", "the other thing is done");
            world.server.mend();
            let calls = told(world.done().await);
            let again = calls.iter().filter(|call| call.starts_with(verb));
            let again: Vec<_> = again.filter(|call| call.contains(&part[1..])).collect();
            assert_eq!(again.len(), 1, "{calls:?}");
            let pod = ObjectKind::named("Pod").unwrap();
            world.tell(pod, &pod.path(NAMESPACE, "transport-t-0"));
            world.settle().await;
            assert!(world.condition("Reconciling").is_null(), "{part}");
            world.silence().await;
        }
    }
}

/// A webhook that does not answer any more: once may pass by itself, again and again does not.
#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_is_told() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.server.instead(|call| {
        let fails = call.path.ends_with("/services/transport-t");
        fails.then_some(Instead::Refusal(500, "failed calling webhook"))
    });
    world.write(json!({"telnet": {"port": 9011}}));
    for _ in 0..2 {
        let (looked, calls) = world.look().await;
        assert!(matches!(looked.ended(), Ended::Failed(None)), "{looked:?}");
        let written = calls.iter().any(|call| call.contains("status"));
        assert!(!written, "{calls:?}");
    }
    world.look().await;
    let message = world.condition("Reconciling")["message"].to_string();
    assert!(
        message.contains("Service transport-t cannot be written: failed calling webhook"),
        "{message}"
    );
    assert_eq!(world.status()["observedGeneration"], 2);
    // One look that does what it should, and it is forgotten.
    world.server.mend();
    world.done().await;
    world.settle().await;
    assert!(world.condition("Reconciling").is_null());
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_to_be_left_alone_is_not_suspended_either() {
    // Paused, and written for a newer operator.
    let mut world = World::new().await;
    world.running(telnet()).await;
    let newer = json!({"telnet": {"port": 9010}, "ofNextYear": 1, "suspend": true});
    world.write_with(newer.clone(), json!({PAUSED: "true"}));
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Paused(_)), "{looked:?}");
    let written = [
        "PATCH transports/t/status",
        "POST events ReconciliationPaused",
    ];
    assert_eq!(told(calls), written);
    assert_eq!(replicas(&world), 1);
    world.write(newer);
    world.look().await;
    assert_eq!(replicas(&world), 0);
    // Its worker type was pruned, and something else is wrong as well.
    let mut world = World::new().await;
    world.running(telnet()).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    world.server.instead(|call| {
        let fails = call.path.contains("/secrets/");
        fails.then_some(Instead::Refusal(403, "forbidden"))
    });
    world.write(json!({"suspend": true}));
    for _ in 0..5 {
        let (looked, calls) = world.look().await;
        assert!(matches!(looked, Looked::Refused(None)), "{looked:?}");
        assert!(calls.is_empty(), "{calls:?}");
    }
    assert_eq!(replicas(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn of_what_cannot_be_read_type_and_broker_stay() {
    let mut world = World::new().await;
    let broker = json!({"secretRef": {"name": "rabbit"}});
    let secret =
        json!({"metadata": {"name": "rabbit"}, "data": {"connection_string": "YW1xcDovL2E="}});
    let path = "/api/v1/namespaces/campaign/secrets/rabbit";
    world.server.put(path, secret);
    world.write(json!({"telnet": {"port": 9010}, "broker": broker}));
    world.done().await;
    let place = Place {
        namespace: NAMESPACE.into(),
        broker: serde_json::from_value(broker.clone()).unwrap(),
    };
    world.engine.brokers.open(&place).read(Broker {
        address: Some("rabbit:5672/".into()),
        ..Broker::default()
    });
    // Somebody else's is read as well.
    world.run();
    world.done().await;
    assert_eq!(world.status()["broker"], "rabbit:5672/");
    for spec in [
        json!({"telnet": {"port": 9010}, "broker": broker, "ofNextYear": 1}),
        json!({"telnet": {"port": 9010, "ofNextYear": 1}, "broker": broker}),
    ] {
        world.write(spec.clone());
        world.look().await;
        assert_eq!(world.condition("Stalled")["reason"], "Invalid", "{spec}");
        assert_eq!(world.status()["type"], "telnet", "{spec}");
        assert_eq!(world.status()["broker"], "rabbit:5672/", "{spec}");
        let places = world.engine.claims.places();
        assert!(places.contains_key(&place), "{spec}");
    }
    // Which broker it has cannot be read: it is not taken for the usual one, which others have.
    let broker = json!({"secretRef": {"name": "rabbit"}, "ofNextYear": 1});
    world.write(json!({"telnet": {"port": 9010}, "broker": broker}));
    world.look().await;
    assert_eq!(world.condition("Stalled")["reason"], "Invalid");
    assert_eq!(world.status()["type"], "telnet");
    let places = world.engine.claims.places();
    assert!(places.is_empty(), "{places:?}");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_goes_from_the_template_is_named() {
    let mut world = World::new().await;
    let spec =
        json!({"telnet": {"port": 9010}, "overrides": {"spec": {"priorityClassName": "high"}}});
    world.write(spec);
    world.done().await;
    world.settle().await;
    world.write(json!({"telnet": {"port": 9010}}));
    let calls = told(world.done().await);
    let expected = [
        "PATCH deployments/transport-t",
        "POST events PodTemplateChanged",
    ];
    assert_eq!(calls[..2], expected, "{calls:?}");
    let notes = world.server.notes("PodTemplateChanged");
    assert!(
        notes[0].contains("(spec.priorityClassName (removed))"),
        "{notes:?}"
    );
}
