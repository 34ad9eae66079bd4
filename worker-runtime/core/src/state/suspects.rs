//! Messages that may have killed the process that worked on them (R15).

use crate::error::WorkError;
use async_trait::async_trait;
use std::time::Duration;

/// Operations on suspects. `queue` is a consumed queue, `id` names a message in it.
#[async_trait]
pub trait Suspects: Send + Sync + 'static {
    /// Counts one more time that a message is begun although someone began it before; the count, this time included.
    /// Forgotten after `keep`.
    async fn suspect(&self, queue: &str, id: &str, keep: Duration) -> Result<u32, WorkError>;

    /// It did no harm: forgotten.
    async fn acquit(&self, queue: &str, id: &str) -> Result<(), WorkError>;
}
