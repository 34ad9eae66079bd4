//! Token buckets of one process, for transports without a state store.

use crate::error::WorkError;
use crate::state::rate_limits::{Bucket, Level, RateLimits};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most buckets that are kept; a full one that is forgotten is full when it is made again.
const BOUND: usize = 10_000;
/// The buckets, by the clock of the process.
pub(super) struct LocalBuckets {
    began: Instant,
    levels: Mutex<HashMap<String, Level>>,
}

impl Default for LocalBuckets {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            levels: Mutex::default(),
        }
    }
}

impl LocalBuckets {
    fn now(&self) -> u64 {
        crate::clock::millis(self.began.elapsed())
    }

    fn with<T>(&self, key: &str, bucket: Bucket, act: impl FnOnce(&mut Level, u64) -> T) -> T {
        let now = self.now();
        let mut levels = self.levels();
        if levels.len() >= BOUND && !levels.contains_key(key) {
            levels.retain(|_, level| level.forgotten(bucket) > now);
        }
        let level = levels
            .entry(key.to_owned())
            .or_insert_with(|| Level::full(bucket, now));
        act(level, now)
    }

    fn levels(&self) -> MutexGuard<'_, HashMap<String, Level>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RateLimits for LocalBuckets {
    async fn take(
        &self,
        key: &str,
        cost: u32,
        bucket: Bucket,
    ) -> Result<Option<Duration>, WorkError> {
        Ok(self.with(key, bucket, |level, now| level.take(cost, bucket, now)))
    }

    async fn slow_down(&self, key: &str, pause: Duration, bucket: Bucket) -> Result<(), WorkError> {
        self.with(key, bucket, |level, now| {
            level.slow_down(pause, bucket, now)
        });
        Ok(())
    }

    async fn pace(&self, key: &str) -> Result<f64, WorkError> {
        let now = self.now();
        Ok(self.levels().get(key).map_or(1.0, |level| level.pace(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: Bucket = Bucket {
        per_second: 10.0,
        burst: 5.0,
    };

    async fn taken(buckets: &LocalBuckets, time: Duration) -> u32 {
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            match buckets.take("sms", 1, BUCKET).await.unwrap() {
                None => count += 1,
                Some(wait) => tokio::time::sleep(wait.max(Duration::from_millis(1))).await,
            }
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn as_fast_as_allowed_and_not_faster() {
        let buckets = LocalBuckets::default();
        let count = taken(&buckets, Duration::from_secs(100)).await;
        assert!((1003..=1006).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn asked_to_slow_down_it_pauses_and_comes_back_slowly() {
        let buckets = LocalBuckets::default();
        let pause = Duration::from_secs(3);
        buckets.slow_down("sms", pause, BUCKET).await.unwrap();
        assert_eq!(taken(&buckets, pause).await, 0);
        assert!((0.9..0.91).contains(&buckets.pace("sms").await.unwrap()));
        // Soon just below what was refused, for two minutes; then it tries more.
        let slow = taken(&buckets, Duration::from_secs(100)).await;
        assert!((960..=970).contains(&slow), "{slow}");
        assert_eq!(buckets.pace("sms").await.unwrap(), 0.97);
        taken(&buckets, Duration::from_secs(30)).await;
        assert_eq!(buckets.pace("sms").await.unwrap(), 1.0);
        for _ in 0..10 {
            buckets
                .slow_down("sms", Duration::ZERO, BUCKET)
                .await
                .unwrap();
        }
        assert_eq!(buckets.pace("sms").await.unwrap(), 0.1);
    }
}
