//! Messages that may have killed the process that worked on them (R15).

use crate::error::WorkError;
use async_trait::async_trait;
use std::time::Duration;

/// Operations on suspects. `queue` is a consumed queue, `id` names a message in it, `life` a process from its start to its
/// end.
#[async_trait]
pub trait Suspects: Send + Sync + 'static {
    /// The lives in which a message was begun again, as far as that is not forgotten.
    async fn begun_in(&self, queue: &str, id: &str) -> Result<Vec<u64>, WorkError>;

    /// Notes that a message is begun although someone began it before; in how many lives it was, this one included. A life
    /// in which it is begun more than once has survived it. Forgotten after `keep`.
    async fn suspect(
        &self,
        queue: &str,
        id: &str,
        life: u64,
        keep: Duration,
    ) -> Result<u32, WorkError>;

    /// It is not at work in this life any more, or not yet: its end would not be the message's doing.
    async fn spare(&self, queue: &str, id: &str, life: u64) -> Result<(), WorkError>;

    /// It did no harm: forgotten.
    async fn acquit(&self, queue: &str, id: &str) -> Result<(), WorkError>;
}
