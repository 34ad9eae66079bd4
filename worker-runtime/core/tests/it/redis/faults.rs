//! Redis away, frozen, full, demoted: errors come in time, are told as health, and end by themselves.

use super::{PATIENCE, away, store, up};
use std::time::{Duration, Instant};
use vumi_core::codes;
use vumi_core::error::ErrorClass;
use vumi_core::state::{Sessions, StateStore, StoreHealth, Suspects};
use vumi_testkit::redis::{Append, Options, Redis};

const KEEP: Duration = Duration::from_secs(600);
/// The deadline of an operation, and much for a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_and_back() {
    let Some(mut redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    redis.stop().await.expect("stopped");
    let store = store(&redis);
    let begun = Instant::now();
    let error = store.suspect("q", "m", 1, KEEP).await.expect_err("away");
    assert!(begun.elapsed() < IN_TIME);
    assert_eq!(
        (error.class, error.code),
        (ErrorClass::Connect, codes::STATE_UNREACHABLE)
    );
    assert!(matches!(*store.health().borrow(), StoreHealth::Away(_)));

    redis.restart().await.expect("started");
    up(&store).await;
    assert_eq!(store.suspect("q", "m", 1, KEEP).await.expect("back"), 1);

    // Idle: the ping notices. Short: operations wait and do not fail.
    redis.kill().await.expect("killed");
    away(&store, "").await;
    let waiting = store.suspect("q", "m", 1, KEEP);
    let (answer, started) = tokio::join!(waiting, redis.restart());
    started.expect("started");
    // On a machine so busy that Redis takes 5 s to start, the wait ends before.
    assert!(
        answer.is_ok() || begun.elapsed() > Duration::from_secs(5),
        "{answer:?}"
    );
    up(&store).await;

    store.close(Duration::from_secs(1)).await;
    let closed = store.suspect("q", "m", 1, KEEP).await.expect_err("closed");
    assert_eq!(closed.class, ErrorClass::Connect);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_reads_its_data_is_away_until_it_has_read_it() {
    const KEYS: u32 = 10_000;
    let options = Options {
        append: Append::EverySec,
        // Microseconds for each key that is read: seconds for all of them.
        lines: vec!["key-load-delay 200".into()],
        ..Options::default()
    };
    let Some(mut redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let fill = format!("for i = 1, {KEYS} do redis.call('set', i, i) end");
    redis.cli(&["eval", &fill, "0"]).await.unwrap();
    let store = store(&redis);
    up(&store).await;
    redis.kill().await.unwrap();
    away(&store, "").await;
    let mut health = store.health();
    health.mark_unchanged();
    let listening = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last() != Some(&StoreHealth::Up) {
            health.changed().await.unwrap();
            seen.push(health.borrow_and_update().clone());
        }
        (seen, health)
    });
    redis.restart().await.unwrap();
    let (seen, health) = tokio::time::timeout(PATIENCE, listening)
        .await
        .unwrap()
        .unwrap();
    let loading =
        |seen: &StoreHealth| matches!(seen, StoreHealth::Away(why) if why.contains("loading"));
    assert!(seen.iter().any(loading), "{seen:?}");
    // It answers from now on.
    store.load("scope", "user").await.unwrap();
    assert!(
        !health.has_changed().unwrap(),
        "{seen:?}, and then {health:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_fails_operations_in_time() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    redis.freeze().await.expect("frozen");
    let begun = Instant::now();
    let operations = (0..200).map(|n| {
        let store = store.clone();
        async move { store.suspect("q", &n.to_string(), 1, KEEP).await }
    });
    for answer in futures::future::join_all(operations).await {
        let error = answer.expect_err("frozen");
        assert_eq!(
            (error.class, error.code),
            (ErrorClass::Connect, codes::STATE_UNREACHABLE)
        );
    }
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    away(&store, "no answer").await;
    redis.thaw().await.expect("thawed");
    up(&store).await;
    assert!(store.suspect("q", "after", 1, KEEP).await.expect("answers") >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_told_and_serves_again() {
    let options = Options {
        lines: vec!["maxmemory-policy noeviction".into()],
        ..Options::default()
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    store
        .create("s", "u", [("k".into(), "v".into())].into(), None)
        .await
        .expect("room");
    redis
        .cli(&["config", "set", "maxmemory", "1"])
        .await
        .expect("set");
    let error = store.suspect("q", "m", 1, KEEP).await.expect_err("full");
    assert_eq!(
        (error.class, error.code),
        (ErrorClass::Connect, codes::STATE_FULL)
    );
    away(&store, "takes no writes").await;
    // What is there can be read and removed.
    assert!(store.load("s", "u").await.expect("read").is_some());
    assert!(store.clear("s", "u").await.expect("removed").is_some());
    redis
        .cli(&["config", "set", "maxmemory", "0"])
        .await
        .expect("set");
    up(&store).await;
    assert_eq!(store.suspect("q", "m", 1, KEEP).await.expect("room"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    assert_eq!(store.suspect("q", "m", 1, KEEP).await.expect("counted"), 1);
    redis.cli(&["script", "flush"]).await.expect("forgotten");
    assert_eq!(store.suspect("q", "m", 2, KEEP).await.expect("counted"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_left() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    // Nobody listens there, so it stays without a master.
    redis
        .cli(&["replicaof", "127.0.0.1", "1"])
        .await
        .expect("demoted");
    let error = store
        .suspect("q", "m", 1, KEEP)
        .await
        .expect_err("read-only");
    assert_eq!(
        (error.class, error.code),
        (ErrorClass::Connect, codes::STATE_UNREACHABLE)
    );
    away(&store, "is a replica").await;
    redis
        .cli(&["replicaof", "no", "one"])
        .await
        .expect("promoted");
    up(&store).await;
    assert_eq!(store.suspect("q", "m", 1, KEEP).await.expect("a master"), 1);
}
