//! What goes wrong between us and a real RabbitMQ, and that consuming and publishing go on by themselves: cut
//! connections, restarts, deleted queues, consumer timeouts, frozen processes, memory alarms.

use crate::amqp::{connect, in_profile, own, shared, up, vhost};
use crate::broker_suite::{
    PATIENCE, consume, consuming, data, next, number, publish, send, unique, until, until_depth,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig, Profile};
use vumi_core::broker::{
    Access, Broker, Confirmation, ConsumerState, LinkState, Publication, PublicationClass,
    QueueSpec, RawDelivery, Subscribe, Subscription,
};
use vumi_testkit::forwarder::Forwarder;
use vumi_testkit::rabbitmq::{Options, Version};

const BOTH: [Version; 2] = [Version::V3_10, Version::V4_0];
/// Where a fence is part of it.
const FENCES: [(Version, Profile); 3] = [
    (Version::V3_10, Profile::Vumi),
    (Version::V4_0, Profile::Vumi),
    (Version::V4_0, Profile::Quorum),
];

/// Publishes every number until it is confirmed, in order, a window at a time; as an engine would.
async fn publish_until_confirmed(
    broker: &Arc<dyn Broker>,
    queue: &str,
    numbers: std::ops::RangeInclusive<u32>,
) {
    let mut left: Vec<u32> = numbers.collect();
    let begin = Instant::now();
    while !left.is_empty() {
        assert!(
            begin.elapsed() < 3 * PATIENCE,
            "{} messages are not confirmed",
            left.len()
        );
        let mut receipts = Vec::new();
        for n in left.drain(..) {
            receipts.push((n, broker.publish(data(queue, n.to_string())).await));
        }
        for (n, receipt) in receipts {
            if receipt.confirmation().await != Confirmation::Confirmed {
                left.push(n);
            }
        }
    }
}

/// Takes and acknowledges deliveries until every number was seen.
async fn drain(subscription: &mut Subscription, mut wanted: BTreeSet<u32>) {
    let begin = Instant::now();
    while !wanted.is_empty() {
        assert!(
            begin.elapsed() < 3 * PATIENCE,
            "{} numbers are missing",
            wanted.len()
        );
        let delivery = next(subscription).await;
        if subscription
            .acker
            .ack(delivery.generation, delivery.tag, false)
        {
            wanted.remove(&number(&delivery));
        }
    }
}

/// Publishes in the background: it waits while the connection is away or blocked, however long. A busy machine may need a
/// minute to start a broker; what may take no longer than it should is counted from then on.
fn publishing(broker: &Arc<dyn Broker>, publication: Publication) -> JoinHandle<Confirmation> {
    let broker = Arc::clone(broker);
    tokio::spawn(async move { broker.publish(publication).await.confirmation().await })
}

/// How soon we must work again once what kept us from it is over (R9).
const BACK: Duration = Duration::from_secs(5);

/// Waits for `again`; fails if it is not there five seconds after the cause ended.
async fn within_5s_of<T>(cause_end: Instant, what: &str, again: impl Future<Output = T>) -> T {
    match tokio::time::timeout_at((cause_end + BACK).into(), again).await {
        Ok(value) => value,
        Err(_) => panic!("not within {BACK:?} of the end of its cause: {what}"),
    }
}

/// The first delivery of a later generation: we consume again. What was held comes again, so there is one.
async fn redelivered(subscription: &mut Subscription, held: &RawDelivery) -> RawDelivery {
    loop {
        let delivery = next(subscription).await;
        if delivery.generation > held.generation {
            return delivery;
        }
    }
}

async fn until_link(broker: &Arc<dyn Broker>, what: fn(&LinkState) -> bool) -> LinkState {
    let mut link = broker.link();
    match tokio::time::timeout(PATIENCE, link.wait_for(what)).await {
        Ok(Ok(state)) => state.clone(),
        _ => panic!("the connection stays {:?}", *broker.link().borrow()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing() {
    for (version, profile) in FENCES {
        let Some(server) = own(version, Options::default()).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &server.url("/"))).await;
        let queue = unique("cut");
        let mut subscription = consume(&broker, &queue, 50, Access::Fenced).await;
        consuming(&subscription).await;
        let publishing = {
            let (broker, queue) = (Arc::clone(&broker), queue.clone());
            tokio::spawn(async move { publish_until_confirmed(&broker, &queue, 1..=4000).await })
        };
        let wanted: BTreeSet<u32> = (1..=4000).collect();
        let cutting = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                server.close_connections().await.expect("close");
            }
        };
        tokio::join!(drain(&mut subscription, wanted), cutting);
        publishing.await.expect("all confirmed");
        let delivery = {
            send_when_up(&broker, &queue, 5000).await;
            loop {
                let delivery = next(&mut subscription).await;
                let _ = subscription
                    .acker
                    .ack(delivery.generation, delivery.tag, false);
                if number(&delivery) == 5000 {
                    break delivery;
                }
            }
        };
        assert!(
            delivery.generation > 1,
            "every life of the channel has its number"
        );
        send_when_up(&broker, &queue, 5001).await;
        let held = next(&mut subscription).await;
        server.close_connections().await.expect("close");
        let again = redelivered(&mut subscription, &held);
        within_5s_of(Instant::now(), "a cut connection", again).await;
    }
}

/// Nobody else gets what was delivered of a replica's own queue, however slow that is and however often its channel is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reply_queue_delivered_outlives_its_channels() {
    const EACH: u16 = 5;
    let Some(url) = vhost(Version::V4_0, None).await else {
        return;
    };
    let broker = connect(&url).await;
    let queue = unique("reply");
    let subscribe = Subscribe {
        queue: QueueSpec::Reply(queue.clone()),
        prefetch: EACH,
        access: Access::Shared,
        tag: "reader".into(),
    };
    let mut subscription = broker.subscribe(subscribe).await;
    let mut numbers = Vec::new();
    for life in 1..=3 {
        let begin = Instant::now();
        while subscription.acker.generation() != Some(life) {
            assert!(begin.elapsed() < PATIENCE, "no life {life}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..EACH {
            let n = numbers.len() as u32;
            let publication = Publication {
                exchange: String::new(),
                routing_key: queue.clone(),
                body: n.to_string().into(),
                message_id: Some(n.to_string()),
                class: PublicationClass::Direct,
            };
            let sent = publish(&broker, publication).await;
            assert_eq!(sent, Confirmation::Confirmed);
            numbers.push(n);
        }
        // They are delivered, and more than the reader has room for.
        tokio::time::sleep(Duration::from_millis(500)).await;
        subscription.acker.rebuild();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut read = Vec::new();
    for _ in &numbers {
        read.push(number(&next(&mut subscription).await));
    }
    assert_eq!(read, numbers);
}

async fn send_when_up(broker: &Arc<dyn Broker>, queue: &str, n: u32) {
    publish_until_confirmed(broker, queue, n..=n).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_consumer_stays_cancelled_over_a_cut() {
    let Some(server) = own(Version::V4_0, Options::default()).await else {
        return;
    };
    let broker = connect(&server.url("/")).await;
    let queue = unique("cancelled");
    let mut subscription = consume(&broker, &queue, 1, Access::Fenced).await;
    send(&broker, &queue, 1..=2).await;
    let held = next(&mut subscription).await;
    subscription.acker.cancel();
    until(&subscription, |s| *s == ConsumerState::Stopped).await;
    server.close_connections().await.expect("close");
    let begin = Instant::now();
    // Asked over the cut connection too, so an error is one of the answers.
    loop {
        let depth = broker.depth(&queue).await;
        if matches!(depth, Ok(Some(d)) if (d.ready, d.consumers) == (2, 0)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{depth:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!subscription.acker.ack(held.generation, held.tag, false));
    until(&subscription, |s| *s == ConsumerState::Stopped).await;
    subscription.acker.resume();
    drain(&mut subscription, [1, 2].into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_of_the_broker() {
    for ((version, profile), killed) in FENCES
        .into_iter()
        .flat_map(|row| [(row, false), (row, true)])
    {
        let Some(mut server) = own(version, Options::default()).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &server.url("/"))).await;
        let queue = unique("restart");
        let mut subscription = consume(&broker, &queue, 10, Access::Fenced).await;
        consuming(&subscription).await;
        send(&broker, &queue, 1..=5).await;
        let held = next(&mut subscription).await;
        if killed {
            // 3.10 keeps the definition of a new queue in memory for two seconds.
            tokio::time::sleep(Duration::from_secs(3)).await;
            server.kill().await.expect("kill");
        } else {
            server.stop().await.expect("stop");
        }
        until_link(&broker, |l| {
            matches!(l, LinkState::Connecting { error: Some(_), .. })
        })
        .await;
        until(&subscription, |s| matches!(s, ConsumerState::Connecting(_))).await;
        assert!(
            !subscription.acker.ack(held.generation, held.tag, false),
            "its channel is gone"
        );
        let waiting = publishing(&broker, data(&queue, "6"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            !waiting.is_finished(),
            "publishing waits for the connection"
        );
        server.restart().await.expect("restart");
        // It answers on its port from here on.
        let accepts = Instant::now();
        let again = redelivered(&mut subscription, &held);
        let again = within_5s_of(accepts, "a restart of the broker", again).await;
        assert_eq!(number(&again), 1);
        let published = within_5s_of(accepts, "publishing after a restart", waiting).await;
        assert_eq!(published.expect("published"), Confirmation::Confirmed);
        drain(&mut subscription, (2..=6).collect()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_queue_is_declared_and_consumed_again() {
    for (version, profile) in FENCES {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &url)).await;
        let queue = unique("deleted");
        let mut subscription = consume(&broker, &queue, 10, Access::Fenced).await;
        consuming(&subscription).await;
        send(&broker, &queue, 1..=1).await;
        let first = next(&mut subscription).await;
        delete(&url, &queue).await;
        // The consumer declares it anew, bound as before, so that publishing never stops for long.
        let deleted = Instant::now();
        let second = within_5s_of(deleted, "a deleted queue", async {
            send_when_up(&broker, &queue, 2).await;
            next(&mut subscription).await
        });
        let second = second.await;
        assert_eq!(
            (number(&second), second.generation),
            (2, first.generation + 1)
        );
        subscription.acker.close();

        // Without a consumer, the publisher declares it again after the first return.
        until_depth(&broker, &queue, 1, Some(0)).await;
        delete(&url, &queue).await;
        let fate = publish(&broker, data(&queue, "3")).await;
        assert!(matches!(fate, Confirmation::Returned(_)), "{fate:?}");
        assert_eq!(
            publish(&broker, data(&queue, "4")).await,
            Confirmation::Confirmed
        );
    }
}

async fn delete(url: &str, queue: &str) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default())
        .await
        .expect("connection");
    let channel = connection.create_channel().await.expect("channel");
    let deleted = channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default());
    deleted.await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_timeout_closes_the_channel_and_it_returns() {
    for (version, profile) in FENCES {
        let options = Options {
            consumer_timeout: Some(Duration::from_secs(2)),
            ..Options::default()
        };
        let Some(server) = own(version, options).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &server.url("/"))).await;
        let queue = unique("timeout");
        let mut subscription = consume(&broker, &queue, 10, Access::Fenced).await;
        consuming(&subscription).await;
        send(&broker, &queue, 1..=2).await;
        let held = next(&mut subscription).await;
        let other = next(&mut subscription).await;
        assert!(subscription.acker.ack(other.generation, other.tag, false));
        // The broker closes the channel when it next looks; the state tells when it did.
        let mut state = subscription.state.clone();
        let closed = tokio::time::timeout(PATIENCE, state.changed()).await;
        closed.expect("the broker closes").expect("state");
        let again = redelivered(&mut subscription, &held);
        let again = within_5s_of(Instant::now(), "a consumer timeout", again).await;
        assert_eq!((number(&again), again.redelivered), (1, true));
        assert!(!subscription.acker.ack(held.generation, held.tag, false));
        assert!(subscription.acker.ack(again.generation, again.tag, false));
        subscription.acker.close();
        until_depth(&broker, &queue, 0, Some(0)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_alarm_blocks_publishing_and_nothing_else() {
    for version in BOTH {
        let Some(server) = own(version, Options::default()).await else {
            return;
        };
        let broker = connect(&server.url("/")).await;
        let queue = unique("alarm");
        let mut subscription = consume(&broker, &queue, 10, Access::Fenced).await;
        send(&broker, &queue, 1..=3).await;
        server.memory_alarm(true).await.expect("alarm");
        // The broker tells a connection when it next publishes; that message waits with it.
        let pending = publishing(&broker, data(&queue, "4"));
        let blocked = until_link(&broker, |l| matches!(l, LinkState::Blocked(_))).await;
        assert!(matches!(blocked, LinkState::Blocked(why) if !why.is_empty()));
        let waiting = publishing(&broker, data(&queue, "5"));
        for n in 1..=3 {
            let delivery = next(&mut subscription).await;
            assert_eq!(number(&delivery), n);
            assert!(
                subscription
                    .acker
                    .ack(delivery.generation, delivery.tag, false)
            );
        }
        // Acknowledged for good, although the alarm lasts: they are on the other connection.
        subscription.acker.rebuild();
        until_depth(&broker, &queue, 0, Some(1)).await;
        assert!(!waiting.is_finished(), "publishing waits");
        server.memory_alarm(false).await.expect("alarm");
        let both = async { (pending.await, waiting.await) };
        let (first, second) = within_5s_of(Instant::now(), "a memory alarm", both).await;
        assert_eq!(first.expect("published"), Confirmation::Confirmed);
        assert_eq!(second.expect("published"), Confirmation::Confirmed);
        drain(&mut subscription, [4, 5].into()).await;

        // An alarm must not prevent exit. What draws the broker's word may still pass, where the alarm comes between its
        // frames; what is published after the word waits.
        until_link(&broker, |l| matches!(l, LinkState::Up { .. })).await;
        server.memory_alarm(true).await.expect("alarm");
        let drawing = publishing(&broker, data(&queue, "6"));
        until_link(&broker, |l| matches!(l, LinkState::Blocked(_))).await;
        let lost = publishing(&broker, data(&queue, "7"));
        let begin = Instant::now();
        broker.close(Duration::from_secs(1)).await;
        assert!(
            begin.elapsed() < PATIENCE / 2,
            "closing took {:?}",
            begin.elapsed()
        );
        let both = async { (drawing.await, lost.await) };
        let (first, lost) = tokio::time::timeout(PATIENCE, both)
            .await
            .expect("they end");
        first.expect("an outcome");
        assert_eq!(lost.expect("published"), Confirmation::Lost);
        assert_eq!(*broker.link().borrow(), LinkState::Closed);
    }
}

/// Through a proxy, with heartbeats that notice soon.
async fn connect_through(proxy: &Forwarder, url: &str) -> Arc<dyn Broker> {
    let config = AmqpConfig::from_url(&proxy.through(url)).expect("url");
    let broker = AmqpBroker::connect(config.with_heartbeat(Duration::from_secs(1)));
    up(&broker).await;
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_frozen_past_its_heartbeat_consumes_again() {
    for (version, profile) in FENCES {
        let (Some(server), Some(url)) = (shared(version).await, vhost(version, None).await) else {
            return;
        };
        let url = in_profile(profile, &url);
        let proxy = Forwarder::to(&[server.port()]).await.expect("forwarder");
        let (frozen, healthy) = (connect_through(&proxy, &url).await, connect(&url).await);
        let queue = unique("thaw");
        let mut subscription = consume(&frozen, &queue, 10, Access::Fenced).await;
        send(&healthy, &queue, 1..=3).await;
        let held = next(&mut subscription).await;
        proxy.freeze(true);
        // Given up by both ends.
        until_depth(&healthy, &queue, 3, Some(0)).await;
        until_link(&frozen, |l| matches!(l, LinkState::Connecting { .. })).await;
        proxy.freeze(false);
        let again = redelivered(&mut subscription, &held);
        let again = within_5s_of(Instant::now(), "a freeze", again).await;
        assert_eq!((number(&again), again.redelivered), (1, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_holder_loses_the_fence() {
    for (version, profile) in FENCES {
        let Some(server) = shared(version).await else {
            return;
        };
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let url = in_profile(profile, &url);
        let proxy = Forwarder::to(&[server.port()]).await.expect("forwarder");
        let frozen = connect_through(&proxy, &url).await;
        let healthy = connect(&url).await;
        let queue = unique("freeze");
        let mut holder = consume(&frozen, &queue, 4, Access::Fenced).await;
        consuming(&holder).await;
        send(&healthy, &queue, 1..=8).await;
        let held = next(&mut holder).await;
        let mut standby = consume(&healthy, &queue, 100, Access::Fenced).await;
        until(&standby, |s| matches!(s, ConsumerState::Standby(_))).await;
        proxy.freeze(true);
        consuming(&standby).await;
        for n in 1..=8 {
            let delivery = next(&mut standby).await;
            assert_eq!(
                number(&delivery),
                n,
                "in order, from the oldest one nobody finished"
            );
            assert!(standby.acker.ack(delivery.generation, delivery.tag, false));
        }
        proxy.freeze(false);
        until(&holder, |s| matches!(s, ConsumerState::Standby(_))).await;
        assert!(
            !holder.acker.ack(held.generation, held.tag, true),
            "its generation is over"
        );
        standby.acker.close();
        consuming(&holder).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_messages_are_matched_to_their_own_receipts() {
    for version in BOTH {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let broker = connect(&url).await;
        let (queue, missing) = (unique("kept"), unique("missing"));
        let mut receipts = Vec::new();
        for n in 0..3000u32 {
            let lost = n % 7 == 3 || (500..520).contains(&n);
            let publication = Publication {
                exchange: if n % 2 == 0 {
                    "vumi".into()
                } else {
                    String::new()
                },
                routing_key: if lost { missing.clone() } else { queue.clone() },
                // Many equal ones, so that only numbers in the ids tell some of them apart.
                body: format!("body {}", n % 3).into_bytes().into(),
                message_id: (n % 5 != 0).then(|| format!("id {n}")),
                class: if lost || n % 2 == 1 {
                    PublicationClass::Direct
                } else {
                    PublicationClass::Data
                },
            };
            if n == 0 {
                assert_eq!(publish(&broker, publication).await, Confirmation::Confirmed);
                continue;
            }
            receipts.push((n, lost, broker.publish(publication).await));
        }
        for (n, lost, receipt) in receipts {
            let fate = receipt.confirmation().await;
            match fate {
                Confirmation::Confirmed => assert!(!lost, "{n} came back"),
                Confirmation::Returned(_) => assert!(lost, "{n} arrived"),
                other => panic!("{n}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_names_come_back_and_do_no_harm() {
    let Some(url) = vhost(Version::V4_0, None).await else {
        return;
    };
    let broker = connect(&url).await;
    let queue = unique("names");
    for class in [PublicationClass::Data, PublicationClass::Direct] {
        let publication = Publication {
            routing_key: "x".repeat(300),
            class,
            ..data(&queue, "1")
        };
        let fate = publish(&broker, publication).await;
        assert!(matches!(fate, Confirmation::Returned(_)), "{fate:?}");
    }
    let long_id = Publication {
        message_id: Some("i".repeat(300)),
        ..data(&queue, "1")
    };
    assert_eq!(publish(&broker, long_id).await, Confirmation::Confirmed);
    assert!(broker.depth(&"x".repeat(300)).await.is_err());
}
