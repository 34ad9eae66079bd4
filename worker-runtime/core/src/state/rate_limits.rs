//! Token buckets shared by the replicas of a worker (P13, R20).

use crate::error::WorkError;
use async_trait::async_trait;
use std::time::Duration;

/// How fast a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Tokens a second; above zero.
    pub per_second: f64,
    /// Most tokens it holds; at least the largest cost.
    pub burst: f64,
}

/// Operations on token buckets. `key` names an account, and a sender where limits are by sender.
#[async_trait]
pub trait RateLimits: Send + Sync + 'static {
    /// Takes `cost` tokens if they are there; else how long until they may be. Nothing is reserved for who waits.
    async fn take(
        &self,
        key: &str,
        cost: u32,
        bucket: Bucket,
    ) -> Result<Option<Duration>, WorkError>;

    /// The peer asked to slow down: no tokens for `pause`, then the bucket fills at half its speed (at least a tenth of
    /// the full one) and regains a twentieth of the full speed with every second without such a request.
    async fn slow_down(&self, key: &str, pause: Duration, bucket: Bucket) -> Result<(), WorkError>;

    /// Share of the full speed at which a bucket fills now: 1 when nobody asked to slow down.
    async fn pace(&self, key: &str) -> Result<f64, WorkError>;
}
