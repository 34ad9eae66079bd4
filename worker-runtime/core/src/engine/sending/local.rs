//! Token buckets of one process, for transports without a state store. The arithmetic is that of the stores.

use crate::error::WorkError;
use crate::state::rate_limits::{Bucket, RateLimits};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most buckets that are kept; a full one that is forgotten is full when it is made again.
const BOUND: usize = 10_000;
/// Share of the full speed regained with every second.
const REGAIN: f64 = 0.05;
/// Least share of the full speed.
const LEAST: f64 = 0.1;

#[derive(Clone, Copy)]
struct State {
    tokens: f64,
    /// When `tokens` and `pace` were right; in the future during a pause.
    at: Instant,
    pace: f64,
}

impl State {
    fn full(bucket: Bucket, now: Instant) -> Self {
        Self {
            tokens: bucket.burst,
            at: now,
            pace: 1.0,
        }
    }

    /// As it is now.
    fn on(&mut self, now: Instant, bucket: Bucket) {
        let Some(passed) = now.checked_duration_since(self.at).filter(|d| !d.is_zero()) else {
            return;
        };
        let passed = passed.as_secs_f64();
        let rising = ((1.0 - self.pace) / REGAIN).clamp(0.0, passed);
        let share = rising * (self.pace + rising * REGAIN / 2.0) + (passed - rising);
        self.tokens = (self.tokens + share * bucket.per_second).min(bucket.burst);
        self.pace = (self.pace + rising * REGAIN).min(1.0);
        self.at = now;
    }
}

/// The buckets.
#[derive(Default)]
pub(super) struct LocalBuckets(Mutex<HashMap<String, State>>);

impl LocalBuckets {
    fn with<T>(&self, key: &str, bucket: Bucket, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= BOUND && !all.contains_key(key) {
            all.retain(|_, state| {
                state.on(now, bucket);
                state.tokens < bucket.burst
            });
        }
        let state = all
            .entry(key.to_owned())
            .or_insert_with(|| State::full(bucket, now));
        state.on(now, bucket);
        act(state, now)
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
        let cost = f64::from(cost);
        // What costs more than the bucket holds waits until it is full, and leaves a debt.
        let needed = cost.min(bucket.burst);
        Ok(self.with(key, bucket, |state, now| {
            let pause = state.at.saturating_duration_since(now);
            if pause.is_zero() && state.tokens >= needed {
                state.tokens -= cost;
                return None;
            }
            let missing = (needed - state.tokens).max(0.0) / (bucket.per_second * state.pace);
            Some(pause + Duration::from_secs_f64(missing))
        }))
    }

    async fn slow_down(&self, key: &str, pause: Duration, bucket: Bucket) -> Result<(), WorkError> {
        self.with(key, bucket, |state, now| {
            state.tokens = state.tokens.min(0.0);
            state.pace = (state.pace / 2.0).max(LEAST);
            state.at = state.at.max(now + pause);
        });
        Ok(())
    }

    async fn pace(&self, key: &str) -> Result<f64, WorkError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        Ok(all.get(key).map_or(1.0, |state| {
            let passed = now.saturating_duration_since(state.at).as_secs_f64();
            (state.pace + passed * REGAIN).min(1.0)
        }))
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
        assert!((0.5..0.53).contains(&buckets.pace("sms").await.unwrap()));
        let slow = taken(&buckets, Duration::from_secs(10)).await;
        // From half to full speed in ten seconds: three quarters of it on average.
        assert!((72..=79).contains(&slow), "{slow}");
        assert!(buckets.pace("sms").await.unwrap() > 0.99);
        for _ in 0..10 {
            buckets
                .slow_down("sms", Duration::ZERO, BUCKET)
                .await
                .unwrap();
        }
        assert_eq!(buckets.pace("sms").await.unwrap(), LEAST);
    }
}
