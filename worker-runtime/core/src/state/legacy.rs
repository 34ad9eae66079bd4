//! What Vumi's failure worker kept for a later attempt, and its scheduler for a later time (R3): read here, journaled by the
//! engine, then forgotten there. Those must not run any more: what they deliver themselves would be sent twice.

use crate::error::WorkError;
use async_trait::async_trait;
use bytes::Bytes;

/// A message that Vumi would have sent later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRetry {
    /// Names it to [`LegacyRetries::imported`].
    pub key: String,
    /// When it is due: milliseconds since 1970.
    pub due: u64,
    /// The message as it was stored.
    pub body: Bytes,
    /// Why it failed, as Vumi wrote it down: a traceback, which may hold content. Empty of what was scheduled.
    pub reason: String,
}

/// What Vumi kept for later, where the store is the one that Vumi used.
#[async_trait]
pub trait LegacyRetries: Send + Sync + 'static {
    /// At most `limit` messages of a transport: retries, earliest due first, then scheduled ones. The same again until
    /// [`Self::imported`] is told.
    async fn import_retries(
        &self,
        transport_name: &str,
        limit: usize,
    ) -> Result<Vec<ImportedRetry>, WorkError>;

    /// These are journaled: Vumi's store forgets them, and keeps its record of the failures.
    async fn imported(&self, transport_name: &str, keys: &[String]) -> Result<(), WorkError>;
}
