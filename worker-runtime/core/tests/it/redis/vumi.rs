//! Vumi's own keys, written and read by hand as Vumi's workers do (session manager, failure worker).

use super::{store, up};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vumi_core::state::legacy::{ImportedRetry, LegacyRetries, Reading};
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{Sessions, StateStore};
use vumi_testkit::redis::{Options, Redis};

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

async fn hash(redis: &Redis, key: &str) -> BTreeMap<String, String> {
    let told = redis.cli(&["hgetall", key]).await.expect("told");
    let lines: Vec<&str> = told.lines().collect();
    lines
        .chunks(2)
        .filter_map(|pair| Some((pair.first()?.to_string(), pair.get(1)?.to_string())))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_vumis() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    let keep = Some(Duration::from_secs(600));
    let given = fields(&[("state", "menu"), ("page", "2")]);
    let stored = store
        .create("menu", "+27821", given, keep)
        .await
        .expect("created");
    let key = "vumi:menu:session:+27821";
    assert_eq!(hash(&redis, key).await, stored);
    assert_eq!(redis.cli(&["type", key]).await.expect("told"), "hash");
    let created_at = &stored["created_at"];
    assert!(
        created_at.parse::<f64>().expect("a number") > 1e9 && created_at.len() <= 13,
        "{created_at}"
    );
    let ttl = redis
        .cli(&["ttl", key])
        .await
        .expect("told")
        .parse::<i64>()
        .expect("a number");
    assert!((1..=600).contains(&ttl), "{ttl}");

    // What Vumi's worker wrote is found, changed and ended.
    redis
        .cli(&[
            "hset",
            "vumi:menu:session:27822",
            "created_at",
            "1405678901.12",
            "state",
            "x",
        ])
        .await
        .expect("written");
    let theirs = store
        .load("menu", "27822")
        .await
        .expect("loaded")
        .expect("there");
    assert_eq!(
        theirs,
        fields(&[("created_at", "1405678901.12"), ("state", "x")])
    );
    assert!(
        store
            .save("menu", "27822", fields(&[("state", "y")]))
            .await
            .expect("saved")
    );
    assert_eq!(hash(&redis, "vumi:menu:session:27822").await["state"], "y");
    let mut active = store.active("menu", 10).await.expect("listed");
    active.sort();
    assert_eq!(active, ["+27821", "27822"]);

    // A manager without a prefix of its own, and none at all.
    let bare = RedisConfig::from_url(&redis.url(0))
        .expect("url")
        .with_key_prefix("");
    let bare = RedisStore::open(bare);
    bare.create("", "u", fields(&[]), None)
        .await
        .expect("created");
    assert_eq!(redis.cli(&["ttl", "session:u"]).await.expect("told"), "-1");
    assert_eq!(bare.active("", 10).await.expect("listed"), ["u"]);

    // Saving after the end does not bring back a session that would never end.
    redis.cli(&["del", key]).await.expect("over");
    assert!(
        !store
            .save("menu", "+27821", fields(&[("state", "z")]))
            .await
            .expect("told")
    );
    assert_eq!(redis.cli(&["exists", key]).await.expect("told"), "0");
}

/// Writes a retry as Vumi's failure worker does.
async fn fail(redis: &Redis, bucket: &str, failed: &str, id: &str, message: &str) {
    let root = "vumi:failures:sms:";
    let key = format!("failure.{failed}.{id}");
    let hash = format!("{root}{key}");
    for command in [
        &[
            "hset",
            &hash,
            "message",
            message,
            "reason",
            "Traceback: no",
            "retry_delay",
            "3",
        ][..],
        &["sadd", &format!("{root}failure_keys"), &key],
        &["sadd", &format!("{root}retry_keys.{bucket}"), &key],
        // The score is local time, so only the order means anything.
        &["zadd", &format!("{root}retry_timestamps"), "1", bucket],
    ] {
        redis.cli(command).await.expect("written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_vumi_are_imported_once_they_are_kept() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    let (early, late) = ("2014-07-28T12:30:05", "2014-07-28T12:30:10");
    fail(
        &redis,
        early,
        "2014-07-28T12:30:02",
        &"a".repeat(32),
        "{\"n\": 1}",
    )
    .await;
    fail(
        &redis,
        early,
        "2014-07-28T12:30:03",
        &"b".repeat(32),
        "{\"n\": 2}",
    )
    .await;
    fail(
        &redis,
        late,
        "2014-07-28T12:30:00",
        &"c".repeat(32),
        "{\"n\": 3}",
    )
    .await;
    // A retry whose failure is gone stopped Vumi's worker.
    redis
        .cli(&[
            "sadd",
            &format!("vumi:failures:sms:retry_keys.{early}"),
            "failure.gone",
        ])
        .await
        .expect("written");
    let legacy = store.legacy_retries().expect("Redis may be Vumi's");

    let all = all_of(legacy, "sms").await;
    let bodies: Vec<_> = all.iter().map(|retry| retry.body.clone()).collect();
    assert_eq!(bodies, ["{\"n\": 1}", "{\"n\": 2}", "{\"n\": 3}"]);
    let due: Vec<_> = all.iter().map(|retry| retry.due).collect();
    assert_eq!(
        due,
        [1_406_550_605_000, 1_406_550_605_000, 1_406_550_610_000]
    );
    assert_eq!(all[0].reason, "Traceback: no");

    // Whoever dies before the journal has them finds them again, and whoever dies after it does so too.
    assert_eq!(read_first(legacy, "sms", 2).await, all[..2]);
    let keys: Vec<_> = all[..2].iter().map(|retry| retry.key.clone()).collect();
    legacy.imported("sms", &keys).await.expect("told");
    legacy.imported("sms", &keys).await.expect("told twice");
    assert_eq!(all_of(legacy, "sms").await, all[2..]);
    let buckets = redis.cli(&["zrange", "vumi:failures:sms:retry_timestamps", "0", "-1"]);
    assert_eq!(buckets.await.expect("told"), late);
    // Vumi's record of failures stays.
    let count = redis
        .cli(&["scard", "vumi:failures:sms:failure_keys"])
        .await
        .expect("told");
    assert_eq!(count, "3");
    let key = format!(
        "vumi:failures:sms:failure.2014-07-28T12:30:02.{}",
        "a".repeat(32)
    );
    assert_eq!(hash(&redis, &key).await["message"], "{\"n\": 1}");
    assert_eq!(all_of(legacy, "other").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beginnings_of_sessions_are_vumis() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    let keep = Duration::from_secs(600);
    let begun = store.begin("ussd_za", "+27821", keep).await.expect("begun");
    let key = "vumi:ussd_za:+27821:session_created";
    let told = redis.cli(&["get", key]).await.expect("told");
    assert_eq!(told.parse::<f64>().expect("a number"), begun);
    let ttl = redis.cli(&["ttl", key]).await.expect("told");
    assert!(
        (1..=600).contains(&ttl.parse::<i64>().expect("a number")),
        "{ttl}"
    );
    // What Vumi's middleware wrote is found and ended; a tag has a colon.
    let theirs = "vumi:pool:tag1:27822:session_created";
    redis
        .cli(&["set", theirs, "1405678901.12"])
        .await
        .expect("written");
    let ended = store.end("pool:tag1", "27822").await.expect("ended");
    assert_eq!(ended, Some(1_405_678_901.12));
    assert_eq!(redis.cli(&["exists", theirs]).await.expect("told"), "0");
}

/// What is read first.
async fn read_first(
    legacy: &dyn LegacyRetries,
    transport: &str,
    limit: usize,
) -> Vec<ImportedRetry> {
    let read = legacy.import_retries(transport, Reading::default(), limit);
    read.await.expect("read").0
}

/// Everything that there is, as it is read if nothing is journaled meanwhile.
async fn all_of(legacy: &dyn LegacyRetries, transport: &str) -> Vec<ImportedRetry> {
    let mut found = Vec::new();
    let mut from = Some(Reading::default());
    while let Some(place) = from {
        let read = legacy.import_retries(transport, place, 100);
        let (some, next) = read.await.expect("read");
        found.extend(some);
        from = match next {
            Some(Reading::Retries) => Some(Reading::Scheduled(0)),
            other => other,
        };
    }
    found
}

/// Writes an entry as Vumi's scheduler does.
async fn schedule(redis: &Redis, bucket: &str, id: &str, payload: &str) -> String {
    let root = "vumi:scheduler#";
    let key = format!("{root}scheduled.{bucket}.{id}");
    let of_bucket = format!("{root}scheduled_keys.{bucket}");
    for command in [
        &[
            "hset",
            &key,
            "payload",
            payload,
            "scheduled_at",
            bucket,
            "bucket_key",
            &of_bucket,
        ][..],
        &["sadd", &of_bucket, &key],
        &["sadd", &format!("{root}scheduled_keys"), &key],
        &["zadd", &format!("{root}scheduled_timestamps"), "1", bucket],
    ] {
        redis.cli(command).await.expect("written");
    }
    key
}

/// The entries of all transports lie in one place, which is walked through once and in steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_much_that_vumis_scheduler_kept_is_read_in_steps_and_once() {
    const ENTRIES: usize = 3000;
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    let fill = format!(
        "for n = 1, {ENTRIES} do \
           local t = n % 3 == 0 and 'sms' or 'other' \
           local key = 'vumi:scheduler#scheduled.2014-07-28T12:30:05.' .. string.format('%032x', n) \
           redis.call('HSET', key, 'payload', '{{\"message_id\": \"' .. n .. '\", \"transport_name\": \"' .. t .. '\"}}') \
           redis.call('SADD', 'vumi:scheduler#scheduled_keys', key) \
         end"
    );
    redis.cli(&["eval", &fill, "0"]).await.expect("filled");
    let legacy = store.legacy_retries().expect("Redis may be Vumi's");
    let (mut from, mut steps, mut ids) = (Some(Reading::default()), 0, BTreeSet::new());
    while let Some(place) = from {
        let (some, next) = legacy
            .import_retries("sms", place, 100)
            .await
            .expect("read");
        assert!(some.len() <= 400, "{}", some.len());
        let keys: Vec<_> = some.iter().map(|kept| kept.key.clone()).collect();
        legacy.imported("sms", &keys).await.expect("told");
        ids.extend(some.into_iter().map(|kept| kept.key));
        (from, steps) = (next, steps + 1);
    }
    assert_eq!(ids.len(), ENTRIES / 3);
    assert!((8..=2 * ENTRIES / 100).contains(&steps), "{steps}");
    let left = redis.cli(&["scard", "vumi:scheduler#scheduled_keys"]);
    let others = (ENTRIES - ENTRIES / 3).to_string();
    assert_eq!(left.await.expect("told"), others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vumis_scheduler_kept_is_imported_by_the_transport_it_is_for() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    let message = |id: &str, transport: &str| {
        format!("{{\"message_id\": \"{id}\", \"transport_name\": \"{transport}\"}}")
    };
    let (early, late) = ("2014-07-28T12:30:05", "2114-07-28T12:30:10");
    let second = schedule(&redis, late, &"a".repeat(32), &message("two", "sms")).await;
    let first = schedule(&redis, early, &"b".repeat(32), &message("one", "sms")).await;
    schedule(&redis, early, &"c".repeat(32), &message("three", "other")).await;
    schedule(&redis, early, &"d".repeat(32), "[\"no message\"]").await;
    schedule(&redis, early, &"e".repeat(32), "no JSON").await;
    let retry = message("retry", "sms");
    fail(
        &redis,
        early,
        "2014-07-28T12:30:02",
        &"f".repeat(32),
        &retry,
    )
    .await;
    let legacy = store.legacy_retries().expect("Redis may be Vumi's");
    let all = all_of(legacy, "sms").await;
    let bodies: Vec<_> = all.iter().map(|kept| kept.body.clone()).collect();
    let expected = ["retry", "one", "two"].map(|id| message(id, "sms"));
    assert_eq!(bodies, expected);
    assert_eq!(all[1].due, 1_406_550_605_000);
    assert_eq!(all[2].due, 4_562_224_210_000);
    // Retries come alone.
    assert_eq!(read_first(legacy, "sms", 100).await, all[..1]);
    let some = all[..2].to_vec();
    let keys: Vec<_> = some.iter().map(|kept| kept.key.clone()).collect();
    legacy.imported("sms", &keys).await.expect("told");
    legacy.imported("sms", &keys).await.expect("told twice");
    let left = all_of(legacy, "sms").await;
    assert_eq!(left, all[2..]);
    assert_eq!(redis.cli(&["exists", &first]).await.expect("told"), "0");
    assert_eq!(redis.cli(&["exists", &second]).await.expect("told"), "1");
    let pending = redis.cli(&["scard", "vumi:scheduler#scheduled_keys"]);
    assert_eq!(pending.await.expect("told"), "4", "what is not ours stays");
    let keys = [left[0].key.clone()];
    legacy.imported("sms", &keys).await.expect("told");
    let buckets = redis.cli(&["zrange", "vumi:scheduler#scheduled_timestamps", "0", "-1"]);
    assert_eq!(buckets.await.expect("told"), early);
}
