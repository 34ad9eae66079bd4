//! Divided queues: replicas that come and go, messages that pass untouched.

use super::*;
use crate::broker::{Confirmation, RawDelivery, Subscription};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// A replica of the application `name`, on this connection.
pub(super) async fn replica_of(
    broker: Arc<dyn Broker>,
    name: String,
    settings: serde_json::Value,
    instance: &str,
) -> Rig {
    let setup = Setup {
        broker,
        name,
        ..Setup::new(settings)
    };
    Rig::replica(setup, instance).await
}

/// Settings of a worker with so many partitions; 0: none.
pub(super) fn divided(partitions: u16) -> serde_json::Value {
    match partitions {
        0 => json!({}),
        _ => json!({"ordering": {"mode": "perUser", "partitions": partitions}}),
    }
}

/// What a worker reads of its partitions, as its snapshot says: `3 of 8 here`.
pub(super) fn here(snapshot: &WorkerSnapshot) -> Option<(usize, usize)> {
    let mut names = snapshot.consumers.iter().map(|(name, _)| name);
    let name = names.find(|name| name.starts_with("t.inbound.p"))?;
    let words: Vec<&str> = name.split([' ', ':']).collect();
    Some((words.get(2)?.parse().ok()?, words.get(4)?.parse().ok()?))
}

/// Registers a handler; the name of an application that has it.
pub(super) fn scripted<F, T>(handler: F) -> String
where
    F: Fn(Input, Arc<WorkerContext>) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Vec<Output>, WorkError>> + Send + 'static,
{
    let name = format!("app{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let handler: Handler = Arc::new(move |i, cx| Box::pin(handler(i, cx)));
    let mut handlers = HANDLERS.lock().unwrap();
    handlers
        .get_or_insert_default()
        .insert(name.clone(), handler);
    name
}

/// An echo that answers nothing before `true` is stored, and its name.
pub(super) fn gated() -> (Arc<AtomicBool>, String) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let name = scripted(move |i, cx| {
        let gate = Arc::clone(&gate);
        async move {
            while !gate.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(echo(&i, &cx))
        }
    });
    (open, name)
}

pub(super) fn echoing() -> String {
    scripted(|i, cx| async move { Ok(echo(&i, &cx)) })
}

pub(super) async fn holding_fence(broker: &Arc<dyn Broker>, queue: &str) -> Subscription {
    let subscribe = Subscribe {
        queue: QueueSpec::Data(queue.into()),
        prefetch: 1000,
        access: Access::Fenced,
        tag: "test".into(),
    };
    broker.subscribe(subscribe).await
}

async fn next(subscription: &mut Subscription) -> RawDelivery {
    let next = tokio::time::timeout(Duration::from_secs(30), subscription.deliveries.recv());
    next.await.expect("a delivery comes").unwrap()
}

/// Replies until every user has had `count`; for each, their numbers in the order of their first occurrence.
pub(super) async fn first_occurrences(
    observer: &mut Subscription,
    users: usize,
    count: usize,
) -> BTreeMap<String, Vec<usize>> {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut missing = users * count;
    while missing > 0 {
        let delivery = next(observer).await;
        observer.acker.ack(delivery.generation, delivery.tag, false);
        let message = UserMessage::decode(&delivery.body).unwrap();
        let number = message.content().unwrap().parse().unwrap();
        let numbers = seen.entry(message.to_addr().unwrap().into()).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
            missing -= 1;
        }
    }
    seen
}

pub(super) fn in_order(seen: &BTreeMap<String, Vec<usize>>) {
    for (user, numbers) in seen {
        assert!(numbers.is_sorted(), "{user}: {numbers:?}");
    }
}

#[tokio::test]
async fn messages_pass_untouched_to_the_partition_of_their_user() {
    let broker = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    let test: Arc<dyn Broker> = broker.connect();
    // The test reads the partitions, so the worker stands by for them.
    let mut parts = Vec::new();
    for k in 0..4 {
        parts.push(holding_fence(&test, &format!("t.inbound.p{k}")).await);
    }
    let rig = replica_of(broker, echoing(), divided(4), "one").await;
    let mut bodies = HashMap::new();
    for n in 0..40 {
        let mut message = UserMessage::new("sms", Some("555"), Some(&format!("2782{}", n % 20)));
        message.set_content(Some(&n.to_string()));
        message.set_transport_name("t");
        // Spaces that no encoder of ours writes.
        let body = format!("  {}\n", String::from_utf8_lossy(&message.encode()));
        let receipt = rig
            .broker
            .publish(Publication {
                exchange: EXCHANGE.into(),
                routing_key: "t.inbound".into(),
                body: body.clone().into(),
                message_id: Some(format!("amqp-{n}")),
                class: PublicationClass::Data,
            })
            .await;
        assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
        bodies.insert(format!("amqp-{n}"), body);
    }
    rig.publish("t.inbound", "garbage".into()).await;
    let mut users: HashMap<String, (usize, Vec<usize>)> = HashMap::new();
    let mut missing = 40;
    while missing > 0 {
        for (k, part) in parts.iter_mut().enumerate() {
            while let Ok(delivery) = part.deliveries.try_recv() {
                let id = delivery.message_id.clone().unwrap();
                assert_eq!(bodies[&id].as_bytes(), delivery.body, "{id}");
                let message = UserMessage::decode(&delivery.body).unwrap();
                let user = message.from_addr().unwrap().to_owned();
                let (at, numbers) = users.entry(user).or_insert((k, Vec::new()));
                assert_eq!(*at, k, "one user, one partition");
                numbers.push(message.content().unwrap().parse().unwrap());
                missing -= 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(users.len(), 20);
    assert!(users.values().all(|(_, numbers)| numbers.is_sorted()));
    let snapshot = rig.until("parked", |s| s.counts.parked == 1).await;
    assert_eq!(snapshot.counts.done, 0, "passed on is not handled");
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].origin, "t.inbound");
    let standby = |s: &WorkerSnapshot| here(s) == Some((0, 4)) && s.ready;
    rig.until("ready behind another holder", standby).await;
    // The test lets go, and the worker begins with what was not acknowledged.
    drop(parts);
    test.close(Duration::from_secs(1)).await;
    assert_eq!(rig.replies(40).await.len(), 40);
    rig.until("has them", |s| here(s) == Some((4, 4))).await;
    assert_eq!(rig.at_rest().await.done, 40);
}

/// Replicas come, stop and crash while users talk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_kept_while_replicas_come_and_go() {
    const USERS: usize = 60;
    const EACH: usize = 150;
    let broker = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    let name = scripted(|i, cx| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(echo(&i, &cx))
    });
    let replica = async |instance: &str| {
        let connection = broker.connect() as Arc<dyn Broker>;
        replica_of(connection, name.clone(), divided(8), instance).await
    };
    let observer: Arc<dyn Broker> = broker.connect();
    let mut observer = holding_fence(&observer, "t.outbound").await;
    let (a, b) = (replica("a").await, replica("b").await);
    a.until("four", |s| here(s) == Some((4, 8))).await;
    b.until("four", |s| here(s) == Some((4, 8))).await;
    let publisher = broker.connect();
    let talking = tokio::spawn(async move {
        for n in 0..EACH {
            for user in 0..USERS {
                let mut message = UserMessage::new("sms", Some("555"), Some(&format!("u{user}")));
                message.set_content(Some(&n.to_string()));
                message.set_transport_name("t");
                let receipt = publisher
                    .publish(Publication {
                        exchange: EXCHANGE.into(),
                        routing_key: "t.inbound".into(),
                        body: message.encode(),
                        message_id: None,
                        class: PublicationClass::Data,
                    })
                    .await;
                assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let watching = tokio::spawn(async move { first_occurrences(&mut observer, USERS, EACH).await });
    let c = replica("c").await;
    for (rig, fair) in [(&a, 2..=3), (&b, 2..=3), (&c, 2..=3)] {
        rig.until("a third", |s| {
            here(s).is_some_and(|(n, _)| fair.contains(&n))
        })
        .await;
    }
    // One stops as it should, one loses its connection without a word.
    let mut b = b;
    b.running.take().unwrap().stop(StopLimits::default()).await;
    c.until("a half", |s| here(s) == Some((4, 8))).await;
    let d = replica("d").await;
    d.until("a part", |s| here(s).is_some_and(|(n, _)| n >= 2))
        .await;
    a.broker.close(Duration::ZERO).await;
    drop(a);
    c.until("half of it", |s| here(s) == Some((4, 8))).await;
    d.until("half of it", |s| here(s) == Some((4, 8))).await;
    talking.await.unwrap();
    in_order(&watching.await.unwrap());
    c.at_rest().await;
    d.at_rest().await;
}

#[tokio::test]
async fn full_partitions_hold_up_the_forwarder_and_so_the_publishers() {
    let (open, name) = gated();
    let mut settings = divided(2);
    settings["backlogLimit"] = 100.into();
    let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
    let rig = replica_of(broker, name, settings, "one").await;
    rig.until("has them", |s| here(s) == Some((2, 2))).await;
    let mut sent = 0;
    while rig.broker.depth("t.inbound").await.unwrap().unwrap().ready < 300 {
        rig.send(&format!("u{}", sent % 20), &sent.to_string())
            .await;
        sent += 1;
        assert!(sent < 10_000, "the shared queue fills up");
        if sent % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let paused = rig.until("paused", |s| s.state == "paused").await;
    assert!(paused.ready, "{paused:?}");
    assert!(paused.why.contains("t.inbound"), "{}", paused.why);
    open.store(true, Ordering::Relaxed);
    // Replies fill up the target as well, and draining it lets everything through.
    assert_eq!(rig.replies(sent).await.len(), sent);
    assert_eq!(rig.at_rest().await.done, sent as u64);
}
