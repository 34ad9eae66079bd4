//! What Vumi's failure worker kept for a later attempt (R3): read here, journaled by the engine, then forgotten there.
//! That worker must not run any more: what it delivers itself would be sent twice.

use crate::error::WorkError;
use async_trait::async_trait;
use bytes::Bytes;

/// A message that Vumi's failure worker would have sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRetry {
    /// Names it to [`LegacyRetries::imported`].
    pub key: String,
    /// When it is due: milliseconds since 1970.
    pub due: u64,
    /// The message as it was stored.
    pub body: Bytes,
    /// Why it failed, as Vumi wrote it down: a traceback, which may hold content.
    pub reason: String,
}

/// Vumi's retries, where the store is the one that Vumi used.
#[async_trait]
pub trait LegacyRetries: Send + Sync + 'static {
    /// At most `limit` retries of a transport, earliest due first. The same again until [`Self::imported`] is told.
    async fn import_retries(
        &self,
        transport_name: &str,
        limit: usize,
    ) -> Result<Vec<ImportedRetry>, WorkError>;

    /// These are journaled: Vumi's store forgets the retries, and keeps its record of the failures.
    async fn imported(&self, transport_name: &str, keys: &[String]) -> Result<(), WorkError>;
}
