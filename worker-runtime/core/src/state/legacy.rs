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

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// At the retry that is due first of those that are there.
    #[default]
    Retries,
    /// Among what was scheduled for all transports, at this place of a walk.
    Scheduled(u64),
}

/// What Vumi kept for later, where the store is the one that Vumi used.
#[async_trait]
pub trait LegacyRetries: Send + Sync + 'static {
    /// Messages of a transport, about `limit` at most: retries, earliest due first, and the same again until
    /// [`Self::imported`] is told; then scheduled ones, in no order. And where reading goes on; none at the end. There may be
    /// no message before that.
    async fn import_retries(
        &self,
        transport_name: &str,
        from: Reading,
        limit: usize,
    ) -> Result<(Vec<ImportedRetry>, Option<Reading>), WorkError>;

    /// These are journaled: Vumi's store forgets them, and keeps its record of the failures.
    async fn imported(&self, transport_name: &str, keys: &[String]) -> Result<(), WorkError>;
}
