//! What must not get in the way of messages at a real RabbitMQ, and what they must not get in the way of: taps, words of
//! holders and replicas, questions that the broker refuses.

use crate::amqp::{channel, connect, shared, up, vhost};
use crate::broker_suite::{
    PATIENCE, consume, consuming, data, next, number, publish, send, unique,
};
use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_api::{Flow, Port};
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{
    Access, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe,
};
use vumi_core::tap::{Filter, Tap, Told};
use vumi_testkit::forwarder::Forwarder;
use vumi_testkit::rabbitmq::Version;

/// Whether any queue takes a message; as a publisher sees it that declares nothing.
async fn is_routable(channel: &lapin::Channel, queue: &str) -> bool {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = lapin::BasicProperties::default();
    let published = channel.basic_publish(EXCHANGE.into(), queue.into(), options, b"x", properties);
    let confirmed = published
        .await
        .expect("published")
        .await
        .expect("confirmed");
    matches!(confirmed, lapin::Confirmation::Ack(None))
}

async fn until_routable(channel: &lapin::Channel, queue: &str, routable: bool) {
    let begin = Instant::now();
    while is_routable(channel, queue).await != routable {
        assert!(
            begin.elapsed() < PATIENCE,
            "routable is still {}",
            !routable
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn seen(tap: &mut Tap, body: &str) {
    loop {
        let told = tokio::time::timeout(PATIENCE, tap.next()).await;
        match told.expect("the tap tells something") {
            Told::Seen(seen) if seen.message == body => return,
            Told::Seen(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_makes_no_message_of_a_deleted_queue_routable() {
    let Some(url) = vhost(Version::V4_0, None).await else {
        return;
    };
    let broker = connect(&url).await;
    let (connection, channel) = channel(&url).await;
    let port = Port::new(unique("tapped"), Flow::Inbound);
    let queue = port.queue();
    let mut tap = Tap::open(&*broker, &[port], Filter::default()).await;
    assert_eq!(tap.next().await, Told::Open);
    assert!(
        !is_routable(&channel, &queue).await,
        "nobody has declared it"
    );
    // As soon as there is a reader, copies come.
    let mut reader = consume(&broker, &queue, 100, Access::Shared).await;
    consuming(&reader).await;
    let begin = Instant::now();
    let mut told = None;
    while told.is_none() {
        assert!(begin.elapsed() < PATIENCE, "no copy comes");
        publish(&broker, data(&queue, "\"1\"")).await;
        told = tokio::time::timeout(Duration::from_millis(200), tap.next())
            .await
            .ok();
    }
    reader.acker.close();
    while reader.deliveries.recv().await.is_some() {}
    let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
    deleted.await.expect("deleted");
    until_routable(&channel, &queue, false).await;
    // The publisher hears of it, and declares the queue for the next message; then copies come again.
    while publish(&broker, data(&queue, "\"2\"")).await != Confirmation::Confirmed {}
    until_routable(&channel, &queue, true).await;
    tokio::time::timeout(PATIENCE, async {
        loop {
            publish(&broker, data(&queue, "\"3\"")).await;
            tokio::select! {
                () = seen(&mut tap, "3") => return,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    })
    .await
    .expect("copies come again");
    drop(connection);
}

/// Whoever looks on must know that something may be missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_tells_that_the_broker_was_away() {
    let version = Version::V4_0;
    let (Some(server), Some(url)) = (shared(version).await, vhost(version, None).await) else {
        return;
    };
    let proxy = Forwarder::to(&[server.port()]).await.expect("forwarder");
    let config = AmqpConfig::from_url(&proxy.through(&url)).expect("url");
    let broker = AmqpBroker::connect(config);
    up(&broker).await;
    let healthy = connect(&url).await;
    let port = Port::new(unique("tapped"), Flow::Inbound);
    let queue = port.queue();
    let reader = consume(&healthy, &queue, 100, Access::Shared).await;
    consuming(&reader).await;
    let mut tap = Tap::open(&*broker, &[port], Filter::default()).await;
    assert_eq!(tap.next().await, Told::Open);
    publish(&healthy, data(&queue, "\"1\"")).await;
    seen(&mut tap, "1").await;
    for round in ["2", "3"] {
        proxy.cut();
        for expected in [Told::Interrupted, Told::Open] {
            let told = tokio::time::timeout(PATIENCE, tap.next()).await;
            assert_eq!(told.expect("the tap tells something"), expected);
        }
        publish(&healthy, data(&queue, format!("\"{round}\""))).await;
        seen(&mut tap, round).await;
    }
}

/// Replicas know by them that others live: they must not wait until the broker confirms messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_do_not_wait_behind_messages() {
    let version = Version::V4_0;
    let (Some(server), Some(url)) = (shared(version).await, vhost(version, None).await) else {
        return;
    };
    let proxy = Forwarder::to(&[server.port()]).await.expect("forwarder");
    let config = AmqpConfig::from_url(&proxy.through(&url)).expect("url");
    let broker = AmqpBroker::connect(config.with_heartbeat(Duration::from_secs(60)));
    up(&broker).await;
    let healthy = connect(&url).await;
    let (queue, key) = (unique("busy"), unique("word"));
    let mut heard = healthy
        .subscribe(Subscribe {
            queue: QueueSpec::Copy {
                name: unique("copy"),
                exchange: EXCHANGE.into(),
                keys: vec![key.clone()],
            },
            prefetch: 10,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    consuming(&heard).await;
    send(&broker, &queue, 1..=1).await;
    proxy.mute(true);
    // More than may be unconfirmed and wait to be sent.
    let messages: Vec<_> = (0..2000u32)
        .map(|n| {
            let (broker, message) = (Arc::clone(&broker), data(&queue, n.to_string()));
            tokio::spawn(async move { publish(&broker, message).await })
        })
        .collect();
    let begin = Instant::now();
    while !matches!(healthy.depth(&queue).await, Ok(Some(depth)) if depth.ready > 1) {
        assert!(begin.elapsed() < PATIENCE, "no message arrives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let word = Publication {
        exchange: EXCHANGE.into(),
        routing_key: key,
        message_id: None,
        body: "1".into(),
        class: PublicationClass::Telemetry,
    };
    let said = broker.publish(word).await;
    assert_eq!(number(&next(&mut heard).await), 1);
    assert!(messages.iter().all(|message| !message.is_finished()));
    proxy.mute(false);
    assert_eq!(said.confirmation().await, Confirmation::Confirmed);
    for message in messages {
        assert_eq!(message.await.expect("published"), Confirmation::Confirmed);
    }
}

/// A channel that the broker closes costs its connection a number: that of the consumers must not lose any for a question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_costs_consumers_nothing() {
    const TIMES: usize = 30;
    let Some(url) = vhost(Version::V4_0, None).await else {
        return;
    };
    let broker = connect(&format!("{url}?channel_max=16")).await;
    let (held, other) = (unique("held"), unique("other"));
    let mut holder = consume(&broker, &held, 10, Access::Fenced).await;
    consuming(&holder).await;
    send(&broker, &held, 1..=1).await;
    let first = next(&mut holder).await;
    for _ in 0..TIMES {
        assert_eq!(broker.depth("missing").await.expect("told"), None);
        let mut taken = consume(&broker, &other, 10, Access::Fenced).await;
        consuming(&taken).await;
        taken.acker.close();
        while taken.deliveries.recv().await.is_some() {}
    }
    assert_eq!(holder.acker.generation(), Some(first.generation));
    assert!(holder.acker.ack(first.generation, first.tag, false));
}

/// The broker tells of a queue of one connection to that connection alone, also when other questions go elsewhere by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_depth_of_a_queue_of_our_own_is_known_after_a_refusal() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let broker = connect(&url).await;
        let name = unique("reply");
        let reading = Subscribe {
            queue: QueueSpec::Reply(name.clone()),
            prefetch: 10,
            access: Access::Shared,
            tag: "replies".into(),
        };
        let replies = broker.subscribe(reading).await;
        consuming(&replies).await;
        for _ in 0..3 {
            assert_eq!(broker.depth("missing").await.expect("told"), None);
            let depth = broker.depth(&name).await.expect("told").expect("is there");
            assert_eq!((depth.ready, depth.consumers), (0, 1), "{version:?}");
        }
    }
}
