//! Retries that Vumi's failure worker kept, on a real Redis.

use super::*;
use crate::state::StoreHealth;
use crate::state::redis::{RedisConfig, RedisStore};
use std::sync::Mutex;
use vumi_api::Kind;
use vumi_testkit::redis::{Options, Redis};

/// What is due is sent, what is not waits in the journal, and Vumi's record of failures stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_vumi_are_taken_over_and_sent() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let root = "vumi:failures:t:";
    let mut ids = Vec::new();
    for (bucket, name) in [("2014-07-28T12:30:05", "a"), ("2114-07-28T12:30:05", "b")] {
        let mut message = UserMessage::new("sms", Some("27821"), Some("555"));
        message.set_transport_name("t");
        message.set_content(Some(name));
        ids.push(message.message_id().to_owned());
        let key = format!("failure.2014-07-28T12:30:02.{}", name.repeat(32));
        let (hash, body) = (format!("{root}{key}"), message.encode());
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
            &["sadd", &format!("{root}failure_keys"), &key],
            &["sadd", &format!("{root}retry_keys.{bucket}"), &key],
            &["zadd", &format!("{root}retry_timestamps"), "1", bucket],
        ] {
            redis.cli(command).await.unwrap();
        }
    }
    let store = RedisStore::open(RedisConfig::from_url(&redis.url(0)).unwrap());
    let mut health = store.health();
    health.wait_for(|h| *h == StoreHealth::Up).await.unwrap();
    let store: Arc<dyn StateStore> = store;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let setup = Setup {
        kind: Kind::Transport,
        ..with(&store, restless())
    };
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        log.lock().unwrap().push(message.message_id().to_owned());
        async move { Ok(vec![cx.ack(&message, "remote")]) }
    })
    .await;
    rig.until("the one that is due is sent", |s| s.counts.done == 1)
        .await;
    assert_eq!(*sent.lock().unwrap(), ids[..1]);
    let left = loop {
        let left = waiting(&store, "t.outbound").await;
        if left.len() == 1 {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(left[0].entry.about.reason, Reason::Imported);
    let legacy = store.legacy_retries().unwrap();
    for _ in 0..500 {
        if legacy.import_retries("t", 10).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(legacy.import_retries("t", 10).await.unwrap(), []);
    let kept = redis
        .cli(&["scard", &format!("{root}failure_keys")])
        .await
        .unwrap();
    assert_eq!(kept, "2");
    rig.at_rest().await;
}
