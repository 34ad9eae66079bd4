//! What a standby knows of the one it waits for: its name if it is one of ours, and that it is none if it is not.

use crate::amqp::{in_profile, shared, up, vhost};
use crate::broker_suite::{PATIENCE, consuming, next, number, send, unique, until};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig, Profile};
use vumi_core::broker::{
    Access, Broker, ConsumerState, LinkState, QueueSpec, Subscribe, Subscription,
};
use vumi_core::codes;
use vumi_testkit::forwarder::Forwarder;
use vumi_testkit::rabbitmq::Version;

const ROWS: [(Version, Profile); 3] = [
    (Version::V3_10, Profile::Vumi),
    (Version::V4_0, Profile::Vumi),
    (Version::V4_0, Profile::Quorum),
];
const SILENCE: Duration = Duration::from_secs(3);

async fn connect(url: &str) -> Arc<dyn Broker> {
    let config = AmqpConfig::from_url(url).expect("url");
    let broker = AmqpBroker::connect(config.with_holder_silence(SILENCE));
    up(&broker).await;
    assert!(matches!(*broker.link().borrow(), LinkState::Up { .. }));
    broker
}

async fn reader(broker: &Arc<dyn Broker>, queue: &str, access: Access, tag: &str) -> Subscription {
    let subscribe = Subscribe {
        queue: QueueSpec::Data(queue.into()),
        prefetch: 5,
        access,
        tag: tag.into(),
    };
    broker.subscribe(subscribe).await
}

fn is_foreign(state: &ConsumerState) -> bool {
    matches!(state, ConsumerState::Refused(code, text)
        if code == codes::BROKER_FOREIGN.name && text.contains("a consumer that is not ours"))
}

async fn standing_by_for(subscription: &Subscription, holder: &str) {
    let mut state = subscription.state.clone();
    let named = state.wait_for(|s| *s == ConsumerState::Standby(Some(holder.into())));
    if tokio::time::timeout(PATIENCE, named).await.is_err() {
        let state = subscription.state.borrow().clone();
        panic!("not standing by for {holder} but {state:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_names_its_holder() {
    for (version, profile) in ROWS {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let url = in_profile(profile, &url);
        let (one, two, three) = (
            connect(&url).await,
            connect(&url).await,
            connect(&url).await,
        );
        for access in [Access::Fenced, Access::Shared] {
            let queue = unique("named");
            let holder = reader(&one, &queue, access, "transport/sms@one").await;
            consuming(&holder).await;
            let second = reader(&two, &queue, Access::Fenced, "transport/sms@two").await;
            standing_by_for(&second, "transport/sms@one").await;
            // Heard again and again, it is never taken for a stranger.
            tokio::time::sleep(SILENCE + Duration::from_secs(1)).await;
            standing_by_for(&second, "transport/sms@one").await;
            holder.acker.close();
            consuming(&second).await;
            let third = reader(&three, &queue, Access::Fenced, "transport/sms@three").await;
            standing_by_for(&third, "transport/sms@two").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_holder_becomes_visible() {
    for (version, profile) in ROWS {
        let (Some(server), Some(url)) = (shared(version).await, vhost(version, None).await) else {
            return;
        };
        let queue = unique("held");
        let ours = connect(&in_profile(profile, &url)).await;
        send(&ours, &queue, 1..=1).await;
        let foreign = lapin::Connection::connect(&url, lapin::ConnectionProperties::default())
            .await
            .expect("connection");
        let channel = foreign.create_channel().await.expect("channel");
        // As an old worker does it: not exclusive, and it never says who it is.
        let consumer = channel.basic_consume(
            queue.as_str().into(),
            "old".into(),
            lapin::options::BasicConsumeOptions::default(),
            lapin::types::FieldTable::default(),
        );
        let consumer = consumer.await.expect("consumer");
        let mut waiting = reader(&ours, &queue, Access::Fenced, "transport/sms@new").await;
        let begin = Instant::now();
        until(&waiting, |s| *s == ConsumerState::Standby(None)).await;
        until(&waiting, is_foreign).await;
        assert!(begin.elapsed() >= SILENCE, "not before it had its time");
        foreign.close(200, "gone".into()).await.expect("close");
        drop(consumer);
        consuming(&waiting).await;
        assert_eq!(number(&next(&mut waiting).await), 1);

        // Listening ends with standing by.
        let name = url.rsplit('/').next().expect("vhost");
        let begin = Instant::now();
        loop {
            let queues = server.ctl(&["list_queues", "-p", name, "name"]).await;
            let queues = queues.expect("queues");
            assert!(queues.contains(&queue), "{queues}");
            if !queues.contains(".standby.") {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{queues}");
        }
    }
}

/// A refused consumer costs a channel, and a connection has so many in its life: a standby must not use them up, nor be
/// told at the end what was said to it at the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_may_wait_as_long_as_it_likes() {
    const CHANNELS: u32 = 16;
    for (version, profile) in ROWS {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let few = format!("{}&channel_max={CHANNELS}", in_profile(profile, &url));
        let (one, two) = (
            connect(&in_profile(profile, &url)).await,
            connect(&few).await,
        );
        let queue = unique("patient");
        let holder = reader(&one, &queue, Access::Fenced, "transport/sms@one").await;
        consuming(&holder).await;
        let second = reader(&two, &queue, Access::Fenced, "transport/sms@two").await;
        standing_by_for(&second, "transport/sms@one").await;
        let (mut link, mut state) = (two.link(), second.state.clone());
        link.borrow_and_update();
        state.borrow_and_update();
        // It asks every 50 ms.
        tokio::time::sleep(Duration::from_millis(50) * CHANNELS * 4).await;
        assert!(!link.has_changed().unwrap(), "one connection for all of it");
        assert!(!state.has_changed().unwrap(), "standing by all the time");
        holder.acker.close();
        consuming(&second).await;
        assert!(!link.has_changed().unwrap(), "and to take over");
    }
}

/// How long nobody reads a queue when its holder ends: its process killed, or frozen. Printed for the record; no time is
/// asserted but the heartbeat's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_after_a_cut_and_after_a_freeze() {
    const HEARTBEAT: Duration = Duration::from_secs(1);
    for (version, profile) in ROWS {
        let (Some(server), Some(url)) = (shared(version).await, vhost(version, None).await) else {
            return;
        };
        let url = in_profile(profile, &url);
        let healthy = connect(&url).await;
        let line = Forwarder::to(&[server.port()]).await.expect("forwarder");
        for freeze in [false, true] {
            let queue = unique("takeover");
            let config = AmqpConfig::from_url(&line.through(&url)).expect("url");
            let config = config
                .with_heartbeat(HEARTBEAT)
                .with_holder_silence(SILENCE);
            let ends = AmqpBroker::connect(config);
            up(&ends).await;
            let mut holder = reader(&ends, &queue, Access::Fenced, "holder").await;
            send(&healthy, &queue, 1..=9).await;
            assert_eq!(number(&next(&mut holder).await), 1);
            let mut standby = reader(&healthy, &queue, Access::Fenced, "standby").await;
            standing_by_for(&standby, "holder").await;
            let begin = Instant::now();
            if !freeze {
                line.cut();
            }
            // After a cut, it keeps the holder from coming back first.
            line.freeze(true);
            assert_eq!(number(&next(&mut standby).await), 1);
            let took = begin.elapsed();
            eprintln!(
                "takeover on {version:?}, profile {}: freeze {freeze}: {took:?}",
                profile.as_str()
            );
            if freeze {
                assert!(
                    took > HEARTBEAT,
                    "it was not taken from a holder that lives"
                );
            }
            line.freeze(false);
        }
    }
}

/// A reader that is closed while the broker makes it one leaves nobody behind to whom messages go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_closed_early_leaves_no_consumer() {
    const TRIES: u64 = 60;
    for (version, profile) in ROWS {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &url)).await;
        let queue = unique("early");
        for n in 0..TRIES {
            let reader = reader(&broker, &queue, Access::Fenced, "transport/sms@one").await;
            tokio::time::sleep(Duration::from_micros(n * 500)).await;
            reader.acker.close();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while broker
            .depth(&queue)
            .await
            .unwrap()
            .is_none_or(|depth| depth.consumers > 0)
        {
            assert!(Instant::now() < deadline, "somebody still consumes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let next = reader(&broker, &queue, Access::Fenced, "transport/sms@one").await;
        consuming(&next).await;
    }
}
