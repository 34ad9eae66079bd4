//! Many messages in flight on a real RabbitMQ: what cuts do to them, and how much may be unconfirmed.

use crate::amqp::{connect, own, shared, up, vhost};
use crate::broker_suite::{PATIENCE, consume, data, next, publish, unique};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{Access, Broker, Confirmation};
use vumi_core::inject::Injector;
use vumi_testkit::forwarder::Forwarder;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

/// Lanes, and with one message of each in flight also the depth of the pipeline.
const LANES: u32 = 200;
/// Messages of a lane at least: ten thousand in all.
const EACH: u32 = 50;
const CUTS: u32 = 5;

#[derive(Default)]
struct Progress {
    confirmed: AtomicU32,
    lost: AtomicU32,
    cut: AtomicBool,
}

/// Publishes a lane as the engine does: what is not confirmed is published again before the next. Returns how many.
async fn lane(broker: Arc<dyn Broker>, queue: String, lane: u32, progress: Arc<Progress>) -> u32 {
    let mut n = 0;
    while n < EACH || !progress.cut.load(Ordering::SeqCst) {
        let receipt = broker.publish(data(&queue, format!("{lane} {n}"))).await;
        match receipt.confirmation().await {
            Confirmation::Confirmed => {
                progress.confirmed.fetch_add(1, Ordering::SeqCst);
                n += 1;
            }
            Confirmation::Lost => {
                progress.lost.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("{lane} {n}: {other:?}"),
        }
    }
    n
}

/// Closes the connections again and again while messages are in flight, until some of them were lost.
async fn cut(server: &RabbitMq, progress: &Progress) {
    let begin = Instant::now();
    let mut cuts = 0;
    while cuts < CUTS || progress.lost.load(Ordering::SeqCst) == 0 {
        let before = progress.confirmed.load(Ordering::SeqCst);
        while progress.confirmed.load(Ordering::SeqCst) < before + 500 {
            assert!(begin.elapsed() < 6 * PATIENCE, "nothing is confirmed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.close_connections().await.expect("close");
        cuts += 1;
    }
    progress.cut.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_through_cuts_loses_nothing_and_keeps_lanes_in_order() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(server) = own(version, Options::default()).await else {
            return;
        };
        let broker = connect(&server.url("/")).await;
        let queue = unique("lanes");
        let progress = Arc::new(Progress::default());
        let mut lanes = JoinSet::new();
        for n in 0..LANES {
            let (broker, progress) = (Arc::clone(&broker), Arc::clone(&progress));
            let lane = lane(broker, queue.clone(), n, progress);
            lanes.spawn(async move { (n, lane.await) });
        }
        cut(&server, &progress).await;
        let mut counts = vec![0; LANES as usize];
        while let Some(ended) = lanes.join_next().await {
            let (lane, count) = ended.expect("lane");
            counts[lane as usize] = count;
        }

        arrive_in_order(&broker, &queue, &counts).await;
        assert!(progress.lost.load(Ordering::SeqCst) > 0);
    }
}

/// So many of each lane are in a queue. Repetitions are fine; a message before one that its lane published earlier is not.
async fn arrive_in_order(broker: &Arc<dyn Broker>, queue: &str, counts: &[u32]) {
    let mut subscription = consume(broker, queue, 500, Access::Fenced).await;
    let mut seen = vec![0; counts.len()];
    let mut taken = 0;
    // More than what was confirmed may be there: a lane may end on a message that arrived and was reported lost.
    while seen.iter().zip(counts).any(|(seen, count)| seen < count) {
        let delivery = next(&mut subscription).await;
        let body = String::from_utf8_lossy(&delivery.body).into_owned();
        let (lane, n) = body.split_once(' ').expect("lane and number");
        let (lane, n): (usize, u32) = (lane.parse().expect("lane"), n.parse().expect("n"));
        assert!(n <= seen[lane], "{body} before {}", seen[lane]);
        seen[lane] = seen[lane].max(n + 1);
        taken += 1;
        if taken % 100 == 0 {
            let _ = subscription
                .acker
                .ack(delivery.generation, delivery.tag, true);
        }
    }
}

/// As `vumi inject` publishes: many are unconfirmed, and all are in one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_injected_through_cuts_is_in_order() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(server) = own(version, Options::default()).await else {
            return;
        };
        let broker = connect(&server.url("/")).await;
        let queue = unique("injected");
        let progress = Arc::new(Progress::default());
        let injected = async {
            let mut injector = Injector::new(Arc::clone(&broker), queue.clone(), true);
            let mut n = 0;
            while !progress.cut.load(Ordering::SeqCst) {
                injector.send(format!("0 {n}").into()).await.expect("sent");
                n += 1;
                let (confirmed, repeated) = (injector.confirmed(), injector.repeated());
                let number = |n: u64| u32::try_from(n).expect("few");
                progress
                    .confirmed
                    .store(number(confirmed), Ordering::SeqCst);
                progress.lost.store(number(repeated), Ordering::SeqCst);
            }
            injector.flush().await.expect("confirmed");
            assert_eq!(injector.confirmed(), u64::from(n));
            n
        };
        let (count, ()) = tokio::join!(injected, cut(&server, &progress));
        arrive_in_order(&broker, &queue, &[count]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unconfirmed_bytes_are_bounded() {
    /// As the publisher has them.
    const IN_FLIGHT_MIB: usize = 32;
    const HANDED_OVER: usize = 256;
    let (Some(server), Some(url)) = (
        shared(Version::V4_0).await,
        vhost(Version::V4_0, None).await,
    ) else {
        return;
    };
    let proxy = Forwarder::to(&[server.port()]).await.expect("forwarder");
    let broker = AmqpBroker::connect(AmqpConfig::from_url(&proxy.through(&url)).expect("url"));
    up(&broker).await;
    let queue = unique("bytes");
    // Declares the queue.
    let fate = publish(&broker, data(&queue, "1")).await;
    assert_eq!(fate, Confirmation::Confirmed);
    proxy.freeze(true);
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let mut receipts = Vec::new();
    while let Ok(receipt) = tokio::time::timeout(
        Duration::from_secs(2),
        broker.publish(data(&queue, body.clone())),
    )
    .await
    {
        receipts.push(receipt);
        assert!(
            receipts.len() <= IN_FLIGHT_MIB + HANDED_OVER,
            "more than {IN_FLIGHT_MIB} MiB are in flight"
        );
    }
    assert!(receipts.len() >= IN_FLIGHT_MIB, "{}", receipts.len());
}
