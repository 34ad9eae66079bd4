//! What goes on around a resource: what its workers say, who else wants its queues, what its broker says.

use crate::world::{NAMESPACE, World, telnet, told};
use serde_json::json;
use std::time::Duration;
use vumi_api::Kind;
use vumi_operator::brokers::unread;
use vumi_operator::engine::claims;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::store::Key;
use vumi_plan::Unread;

#[tokio::test(start_paused = true)]
async fn what_workers_say_is_told_and_repeats_are_not() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    world.say("transport-t-0", "provider", "ok", "provider_answers");
    assert_eq!(told(world.done().await), ["PATCH transports/t/status"]);
    assert_eq!(world.status()["link"], "UP");
    assert_eq!(world.condition("LinkUp")["status"], "True");
    // At a constant rate, everything again each minute: nothing is written.
    for _ in 0..10 {
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(20)).await;
            world.read(0, 1);
            assert!(told(world.done().await).is_empty());
        }
        world.say("transport-t-0", "provider", "ok", "provider_answers");
        assert!(told(world.done().await).is_empty());
    }
    // A change is told once it has lasted, and says when that will be.
    world.say("transport-t-0", "provider", "down", "provider_unreachable");
    let (looked, calls) = world.look().await;
    assert!(told(calls).is_empty());
    let Looked::Done(Some(again)) = looked else {
        panic!("{looked:?}");
    };
    assert!(again <= Duration::from_secs(10), "{again:?}");
    tokio::time::advance(again).await;
    assert_eq!(
        told(world.done().await),
        ["PATCH transports/t/status", "POST events PeerDown"]
    );
    assert_eq!(world.status()["link"], "DOWN");
    assert_eq!(
        world.condition("Ready")["status"],
        "True",
        "an outage of others"
    );
    // Silence is not taken for health, nor for the last that was said.
    tokio::time::advance(Duration::from_secs(181)).await;
    let calls = told(world.done().await);
    assert!(
        calls.contains(&"POST events NoReports".to_owned()),
        "{calls:?}"
    );
    assert_eq!(world.condition("LinkUp")["status"], "Unknown");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_read_one_queue_the_newer_one_gets_no_pods() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let other = Key {
        kind: Kind::Transport,
        namespace: NAMESPACE.into(),
        name: "other".into(),
    };
    let kind = ObjectKind::of(Kind::Transport);
    let path = kind.path(NAMESPACE, "other");
    let object = |created: &str| {
        json!({
            "apiVersion": "vumi.dev/v1alpha1",
            "kind": "Transport",
            "metadata": {"name": "other", "namespace": NAMESPACE, "uid": "older", "generation": 1, "creationTimestamp": created},
            "spec": {"telnet": {"port": 9010}, "transportName": "t"},
        })
    };
    world.server.put(&path, object("2020-01-01T00:00:00Z"));
    world.tell(kind, &path);
    claims::note(&world.engine, &other);
    // Nobody knows which broker it is.
    assert!(told(world.done().await).is_empty());
    world.identify();
    let (looked, calls) = world.look().await;
    assert!(matches!(looked, Looked::Refused(_)), "{looked:?}");
    assert_eq!(
        told(calls),
        [
            "PATCH deployments/transport-t",
            "POST events Scaled",
            "PATCH transports/t/status",
            "POST events QueueClash",
        ]
    );
    assert_eq!(world.child("Deployment").unwrap()["spec"]["replicas"], 0);
    let message = world.condition("Stalled")["message"].to_string();
    assert!(
        message.contains("transport/other reads the queue t."),
        "{message}"
    );
    world.run();
    world.look().await;
    let (_, calls) = world.look().await;
    assert!(told(calls).is_empty());
    // The older one goes: this one is looked at, and starts.
    world.engine.stores.remove(kind, &other, "other", "older");
    claims::note(&world.engine, &other);
    claims::settle(&world.engine);
    assert_eq!(world.engine.queue.next().await, world.key);
    let calls = world.done().await;
    assert_eq!(
        calls[..2],
        ["PATCH deployments/transport-t", "POST events Scaled"]
    );
    world.settle().await;
    assert_eq!(world.condition("Ready")["status"], "True");
    world.silence().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_decides_how_many_pods_there_are() {
    let mut world = World::new().await;
    let spec = json!({
        "telnet": {"port": 9010},
        "ordering": {"mode": "none"},
        "autoscaling": {"maxReplicas": 5, "scaleDownAfter": "1m"},
    });
    world.write(spec);
    world.done().await;
    world.run();
    world.settle().await;
    assert_eq!(world.status()["autoscaling"]["desiredReplicas"], 1);
    // So much waits that there are to be more pods; each reading is one step.
    world.read(350, 1);
    let calls = told(world.done().await);
    assert_eq!(
        calls[..2],
        ["PATCH deployments/transport-t", "POST events Scaled"]
    );
    let wanted = world.child("Deployment").unwrap()["spec"]["replicas"]
        .as_u64()
        .unwrap();
    assert!((4..=5).contains(&wanted), "{wanted}");
    world.settle().await;
    let scaling = world.status()["autoscaling"].clone();
    assert_eq!(scaling["desiredReplicas"], wanted);
    assert_eq!(scaling["reason"], "BacklogDemands");
    // A broker that cannot be read changes nothing.
    let link = world.link();
    for _ in 0..30 {
        tokio::time::advance(Duration::from_secs(5)).await;
        link.read(unread(Unread::Management("no answer".into())));
        world.done().await;
    }
    assert_eq!(
        world.child("Deployment").unwrap()["spec"]["replicas"],
        wanted
    );
    assert_eq!(
        world.condition("BacklogKnown")["reason"],
        "ManagementUnreachable"
    );
    // Nothing waits for long enough: fewer.
    for _ in 0..15 {
        tokio::time::advance(Duration::from_secs(5)).await;
        world.read(0, u32::try_from(wanted).unwrap());
        world.done().await;
    }
    assert_eq!(world.child("Deployment").unwrap()["spec"]["replicas"], 1);
}

/// Nobody can tell whether messages wait (K19).
#[tokio::test(start_paused = true)]
async fn who_sleeps_is_woken_once_its_broker_could_not_be_read_for_a_minute() {
    let mut world = World::new().await;
    let bounds = json!({"minReplicas": 0, "maxReplicas": 5, "scaleDownAfter": "1m"});
    world.write(json!({"devNull": {}, "autoscaling": bounds}));
    world.done().await;
    world.settle().await;
    let replicas = |world: &World| world.child("Deployment").unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(&world), 1);
    for _ in 0..15 {
        tokio::time::advance(Duration::from_secs(5)).await;
        world.read(0, 1);
        world.done().await;
    }
    world.settle().await;
    assert_eq!(replicas(&world), 0);
    assert_eq!(world.status()["autoscaling"]["reason"], "Idle");
    let link = world.link();
    let fail = || link.read(unread(Unread::Management("no answer".into())));
    for second in (0..60).step_by(5) {
        tokio::time::advance(Duration::from_secs(5)).await;
        fail();
        world.done().await;
        assert_eq!(replicas(&world), 0, "{second}");
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    fail();
    let calls = told(world.done().await);
    let written = ["PATCH deployments/transport-t", "POST events Scaled"];
    assert_eq!(calls[..2], written, "{calls:?}");
    assert_eq!(replicas(&world), 1);
    world.run();
    fail();
    world.done().await;
    let scaling = world.status()["autoscaling"].clone();
    assert_eq!(scaling["reason"], "WokenBlind", "{scaling}");
    assert_eq!(scaling["desiredReplicas"], 1);
    assert_eq!(world.server.notes("WokenBlind").len(), 1);
}

/// Whoever removes it need not know how many there were: these stay until it was said that `replicas` decides.
#[tokio::test(start_paused = true)]
async fn without_autoscaling_the_pods_that_there_are_stay_for_one_look() {
    let mut world = World::new().await;
    let spec = json!({
        "telnet": {"port": 9010},
        "ordering": {"mode": "none"},
        "autoscaling": {"minReplicas": 4, "maxReplicas": 5},
    });
    world.write(spec);
    world.done().await;
    world.settle().await;
    let replicas = |world: &World| world.child("Deployment").unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(&world), 4);
    let fixed = json!({"telnet": {"port": 9010}, "ordering": {"mode": "none"}, "replicas": 2});
    world.write(fixed);
    let (looked, calls) = world.look().await;
    let Looked::Done(Some(again)) = looked else {
        panic!("{looked:?}");
    };
    let written = [
        "PATCH transports/t/status",
        "POST events AutoscalingRemoved",
    ];
    assert_eq!(told(calls), written);
    assert_eq!(replicas(&world), 4);
    assert!(world.status()["autoscaling"].is_null());
    assert!(again <= Duration::from_secs(10), "{again:?}");
    tokio::time::advance(again).await;
    let calls = told(world.done().await);
    let written = ["PATCH deployments/transport-t", "POST events Scaled"];
    assert_eq!(calls[..2], written, "{calls:?}");
    assert_eq!(replicas(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn classes_alone_are_written_seldom() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    let mut writes = 0;
    // Noise around a bound, for ten minutes.
    for n in 0..120 {
        tokio::time::advance(Duration::from_secs(5)).await;
        world.read(90 + 20 * (n % 2), 1);
        writes += told(world.done().await).len();
    }
    assert!(writes <= 1, "{writes}");
    let status = world.status();
    assert!(["0", "1+", "100+"].contains(&status["backlog"].as_str().unwrap()));
}

/// Where many classes change at one time they take turns, and what people wait for does not wait with them (K7).
#[tokio::test(start_paused = true)]
async fn a_class_waits_for_its_turn_and_a_condition_does_not() {
    let mut world = World::new().await;
    world.running(telnet()).await;
    // As many of others were just written as may be in a second.
    let spend = |world: &World| (0..).take_while(|_| world.engine.coarse.take()).count();
    world.read(150, 1);
    assert!(told(world.done().await).is_empty(), "it has not lasted");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(spend(&world), 5);
    let (looked, calls) = world.look().await;
    assert!(told(calls).is_empty());
    assert_eq!(world.status()["backlog"], "0");
    let Looked::Done(Some(again)) = looked else {
        panic!("{looked:?}");
    };
    assert!(again <= Duration::from_secs(1), "{again:?}");
    tokio::time::advance(again).await;
    assert_eq!(told(world.done().await), ["PATCH transports/t/status"]);
    assert_eq!(world.status()["backlog"], "100+");
    spend(&world);
    world.say("transport-t-0", "provider", "ok", "provider_answers");
    assert_eq!(told(world.done().await), ["PATCH transports/t/status"]);
    assert_eq!(world.condition("LinkUp")["status"], "True");
}
