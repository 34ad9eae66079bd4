//! Token buckets: one hash each, that is forgotten when it would be full and at full speed.

use super::RedisStore;
use super::script::{millis, script};
use crate::error::WorkError;
use crate::state::rate_limits::{Bucket, RateLimits};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl RateLimits for RedisStore {
    async fn take(
        &self,
        key: &str,
        cost: u32,
        bucket: Bucket,
    ) -> Result<Option<Duration>, WorkError> {
        let mut call = script!("bucket_lib", "take").key(self.keys.bucket(key));
        call.arg(cost).arg(bucket.per_second).arg(bucket.burst);
        let wait: u64 = self.link.script(&call).await?;
        Ok((wait > 0).then(|| Duration::from_micros(wait)))
    }

    async fn slow_down(&self, key: &str, pause: Duration, bucket: Bucket) -> Result<(), WorkError> {
        let mut call = script!("bucket_lib", "slow_down").key(self.keys.bucket(key));
        // No pause at all is one too.
        let pause = if pause.is_zero() { 0 } else { millis(pause) };
        call.arg(pause).arg(bucket.per_second).arg(bucket.burst);
        self.link.script(&call).await
    }

    async fn pace(&self, key: &str) -> Result<f64, WorkError> {
        let call = script!("bucket_lib", "pace").key(self.keys.bucket(key));
        self.link.script(&call).await
    }
}
