//! Token buckets, sentence by sentence, and senders racing for tokens.

use super::{LONG, Source, unique};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_core::state::StateStore;
use vumi_core::state::rate_limits::Bucket;

const SLOW: Bucket = Bucket {
    per_second: 0.01,
    burst: 3.0,
};
const FAST: Bucket = Bucket {
    per_second: 50.0,
    burst: 5.0,
};

async fn take(store: &Arc<dyn StateStore>, key: &str, cost: u32, of: Bucket) -> Option<Duration> {
    store.take(key, cost, of).await.expect("take")
}

async fn pace(store: &Arc<dyn StateStore>, key: &str) -> f64 {
    store.pace(key).await.expect("pace")
}

pub async fn rate_limit_gives_a_burst_then_says_how_long(source: &impl Source) {
    let (store, key, other) = (source.client().await, unique("sms"), unique("sms"));
    assert_eq!(take(&store, &key, 2, SLOW).await, None);
    let wait = take(&store, &key, 2, SLOW)
        .await
        .expect("one token is left");
    assert!(
        wait > Duration::from_secs(30) && wait < Duration::from_secs(110),
        "{wait:?}"
    );
    assert_eq!(
        take(&store, &key, 1, SLOW).await,
        None,
        "nothing was reserved"
    );
    assert!(take(&store, &key, 1, SLOW).await.is_some());
    assert_eq!(
        take(&store, &other, 3, SLOW).await,
        None,
        "a bucket of its own"
    );
    // The time that is told is enough if nobody else takes.
    for _ in 0..5 {
        assert_eq!(take(&store, &unique("x"), 5, FAST).await, None);
    }
    let key = unique("sms");
    assert_eq!(take(&store, &key, 5, FAST).await, None);
    for _ in 0..5 {
        if let Some(wait) = take(&store, &key, 2, FAST).await {
            assert!(wait <= Duration::from_millis(200), "{wait:?}");
            tokio::time::sleep(wait + Duration::from_millis(5)).await;
            assert_eq!(take(&store, &key, 2, FAST).await, None);
        }
    }
}

/// Senders of two clients take as they can: never more than the burst and what time brought.
pub async fn rate_limit_holds_for_all_together(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    let key = unique("sms");
    let begin = Instant::now();
    let end = begin + Duration::from_millis(1500);
    let senders = (0..6).map(|n| {
        let (store, key) = (Arc::clone(&clients[n % 2]), key.clone());
        tokio::spawn(async move {
            let mut taken = 0;
            while Instant::now() < end {
                match take(&store, &key, 1, FAST).await {
                    None => taken += 1,
                    Some(wait) => tokio::time::sleep(wait.min(Duration::from_millis(20))).await,
                }
            }
            taken
        })
    });
    let taken = futures::future::join_all(senders).await;
    let taken: u32 = taken.into_iter().map(|one| one.expect("task")).sum();
    let most = FAST.burst + FAST.per_second * begin.elapsed().as_secs_f64();
    // Clocks of stores tick in milliseconds.
    assert!(f64::from(taken) <= most + 1.0, "{taken} of {most}");
    assert!(taken >= 30, "{taken}: it goes on");
}

pub async fn rate_limit_slows_down_and_recovers(source: &impl Source) {
    let (store, key, quiet) = (source.client().await, unique("sms"), unique("sms"));
    let slow_down = async |key: &str, pause, bucket| {
        store
            .slow_down(key, pause, bucket)
            .await
            .expect("slow down");
    };
    let paced = async |key: &str, expected: f64| {
        let pace = pace(&store, key).await;
        assert!((pace - expected).abs() < 0.01, "{pace} for {expected}");
    };
    assert_eq!(pace(&store, &key).await, 1.0);
    slow_down(&key, Duration::ZERO, SLOW).await;
    paced(&key, 0.9).await;
    // At once again it is much too fast.
    slow_down(&key, Duration::ZERO, SLOW).await;
    paced(&key, 0.45).await;
    for _ in 0..4 {
        slow_down(&key, Duration::ZERO, SLOW).await;
    }
    paced(&key, 0.1).await;
    slow_down(&key, LONG, SLOW).await;
    let wait = take(&store, &key, 1, SLOW).await.expect("paused");
    assert!(wait > LONG - Duration::from_secs(60), "{wait:?}");
    assert_eq!(pace(&store, &quiet).await, 1.0);
    // During a pause it says nothing new.
    slow_down(&quiet, LONG, SLOW).await;
    slow_down(&quiet, LONG, SLOW).await;
    paced(&quiet, 0.9).await;
    // A short pause: no tokens in it, less than full speed after it, a twentieth more with every second.
    let (key, pause) = (unique("sms"), Duration::from_millis(200));
    assert_eq!(take(&store, &key, 1, FAST).await, None);
    slow_down(&key, Duration::ZERO, FAST).await;
    slow_down(&key, Duration::ZERO, FAST).await;
    let begin = Instant::now();
    slow_down(&key, pause, FAST).await;
    let mut wait = take(&store, &key, 1, FAST).await;
    while let Some(time) = wait {
        tokio::time::sleep(time).await;
        wait = take(&store, &key, 1, FAST).await;
    }
    assert!(begin.elapsed() >= pause, "{:?}", begin.elapsed());
    let (first, at) = (pace(&store, &key).await, Instant::now());
    assert!((0.22..0.9).contains(&first), "{first}");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let later = pace(&store, &key).await;
    let gained = 0.05 * at.elapsed().as_secs_f64();
    assert!(later >= (first + 0.045).min(0.97), "{first} then {later}");
    assert!(later <= first + gained + 0.01, "{first} then {later}");
    // It stays just below what was refused.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let refused = pace(&store, &key).await;
    slow_down(&key, Duration::ZERO, FAST).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let held = pace(&store, &key).await;
    assert!(
        held < refused + 0.01,
        "{refused} was refused, {held} is held"
    );
    assert!(
        held > 0.9 * refused,
        "{refused} was refused, {held} is held"
    );
}
