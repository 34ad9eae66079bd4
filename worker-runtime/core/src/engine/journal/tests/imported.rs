//! Retries that Vumi's failure worker kept, on a real Redis.

use super::*;
use crate::state::StoreHealth;
use crate::state::legacy::Reading;
use crate::state::redis::{RedisConfig, RedisStore};
use std::sync::Mutex;
use vumi_api::Kind;
use vumi_testkit::redis::{Options, Redis};

const ROOT: &str = "vumi:failures:t:";

/// Writes a retry of transport `t` as Vumi's failure worker does; the id of its message.
async fn fail(redis: &Redis, bucket: &str, number: usize) -> String {
    let mut message = UserMessage::new("sms", Some("27821"), Some("555"));
    message.set_transport_name("t");
    message.set_content(Some("x"));
    let key = format!("failure.2014-07-28T12:30:02.{number:032x}");
    let (hash, body) = (format!("{ROOT}{key}"), message.encode());
    let body = std::str::from_utf8(&body).unwrap();
    for command in [
        &[
            "hset",
            &hash,
            "message",
            body,
            "reason",
            "no",
            "retry_delay",
            "3",
        ][..],
        &["sadd", &format!("{ROOT}failure_keys"), &key],
        &["sadd", &format!("{ROOT}retry_keys.{bucket}"), &key],
        &["zadd", &format!("{ROOT}retry_timestamps"), "1", bucket],
    ] {
        redis.cli(command).await.unwrap();
    }
    message.message_id().to_owned()
}

async fn opened(redis: &Redis) -> Arc<dyn StateStore> {
    let store = RedisStore::open(RedisConfig::from_url(&redis.url(0)).unwrap());
    let mut health = store.health();
    health.wait_for(|h| *h == StoreHealth::Up).await.unwrap();
    store
}

/// A transport on this store, and what it sends.
async fn transport(
    store: &Arc<dyn StateStore>,
    broker: Option<&Arc<dyn crate::broker::Broker>>,
    settings: Value,
) -> (Rig, Arc<Mutex<Vec<String>>>) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let mut setup = Setup {
        kind: Kind::Transport,
        ..with(store, settings)
    };
    if let Some(broker) = broker {
        setup.broker = Arc::clone(broker);
    }
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        log.lock().unwrap().push(message.message_id().to_owned());
        async move { Ok(vec![cx.ack(&message, "remote")]) }
    })
    .await;
    (rig, sent)
}

async fn until_forgotten(store: &Arc<dyn StateStore>) {
    let legacy = store.legacy_retries().unwrap();
    for _ in 0..3000 {
        let (found, next) = legacy
            .import_retries("t", Reading::default(), 10)
            .await
            .unwrap();
        if found.is_empty() && next.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("Vumi's store holds retries still");
}

/// What is due is sent, what is not waits in the journal, and Vumi's record of failures stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_vumi_are_taken_over_and_sent() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let due = fail(&redis, "2014-07-28T12:30:05", 1).await;
    fail(&redis, "2114-07-28T12:30:05", 2).await;
    let store = opened(&redis).await;
    let (rig, sent) = transport(&store, None, restless()).await;
    rig.until("the one that is due is sent", |s| s.counts.done == 1)
        .await;
    assert_eq!(*sent.lock().unwrap(), [due]);
    let left = loop {
        let left = waiting(&store, "t.outbound").await;
        if left.len() == 1 {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(left[0].entry.about.reason, Reason::Imported);
    until_forgotten(&store).await;
    let kept = redis.cli(&["scard", &format!("{ROOT}failure_keys")]).await;
    assert_eq!(kept.unwrap(), "2");
    rig.at_rest().await;
}

/// What a failure worker still works on is left to it; what the scheduler kept, which comes after that, is taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_a_failure_worker_that_goes_on_are_left_to_it() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    fail(&redis, "2014-07-28T12:30:05", 1).await;
    let mut message = UserMessage::new("sms", Some("27821"), Some("555"));
    message.set_transport_name("t");
    let body = message.encode();
    let payload = std::str::from_utf8(&body).unwrap();
    let root = "vumi:scheduler#scheduled";
    let key = format!("{root}.2014-07-28T12:30:05.{:032x}", 1);
    for command in [
        &["hset", &key, "payload", payload][..],
        &["sadd", &format!("{root}_keys"), &key],
    ] {
        redis.cli(command).await.unwrap();
    }
    let store = opened(&redis).await;
    let mut settings = restless();
    settings["retry"]["external"] = true.into();
    settings["legacyFailures"] = true.into();
    let (rig, sent) = transport(&store, None, settings).await;
    rig.until("the scheduled one is sent", |s| s.counts.done == 1)
        .await;
    assert_eq!(*sent.lock().unwrap(), [message.message_id()]);
    rig.at_rest().await;
    let legacy = store.legacy_retries().unwrap();
    let left = legacy.import_retries("t", Reading::default(), 10);
    assert_eq!(
        left.await.unwrap().0.len(),
        1,
        "it is left to the failure worker"
    );
}

/// Where the queue is divided, whoever divides it takes over, and each is sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_divided_queue_takes_over_too() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let mut ids = BTreeSet::new();
    for number in 0..5 {
        ids.insert(fail(&redis, "2014-07-28T12:30:05", number).await);
    }
    let store = opened(&redis).await;
    let mut settings = restless();
    settings["ordering"] = json!({"mode": "perUser", "partitions": 2});
    let (rig, sent) = transport(&store, None, settings).await;
    until_forgotten(&store).await;
    for _ in 0..3000 {
        if sent.lock().unwrap().len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.at_rest().await;
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 5, "each once: {sent:?}");
    assert_eq!(BTreeSet::from_iter(sent), ids);
}

/// Replicas without a fence take over in turn, and each message is sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_without_order_take_over_once() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let mut ids = BTreeSet::new();
    for number in 0..30 {
        ids.insert(fail(&redis, "2014-07-28T12:30:05", number).await);
    }
    let (one, other) = (opened(&redis).await, opened(&redis).await);
    let mut settings = restless();
    settings["ordering"] = json!({"mode": "none"});
    let (first, mine) = transport(&one, None, settings.clone()).await;
    let broker = Arc::clone(&first.broker);
    let (second, theirs) = transport(&other, Some(&broker), settings).await;
    let count = || mine.lock().unwrap().len() + theirs.lock().unwrap().len();
    for _ in 0..3000 {
        if count() >= 30 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until_forgotten(&one).await;
    until_empty(&one, "t.outbound").await;
    first.at_rest().await;
    second.at_rest().await;
    let mut sent = mine.lock().unwrap().clone();
    sent.extend(theirs.lock().unwrap().iter().cloned());
    assert_eq!(sent.len(), 30, "each once: {sent:?}");
    assert_eq!(BTreeSet::from_iter(sent), ids);
}
