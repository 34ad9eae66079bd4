//! Which messages of a provider were taken over before (R7): reserve, publish, commit.

use super::Person;
use crate::error::WorkError;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// Longest answer that is kept.
pub const MAX_ANSWER: usize = 1024;

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Nobody has it. After [`FirstSeen::reserve`] it is ours to publish.
    First,
    /// Somebody is publishing it, for at most so long.
    Pending(Duration),
    /// It was published; what the provider was answered.
    Seen(Bytes),
}

/// Operations on what was seen. `scope` is the transport's name, `id` the provider's id of the message.
#[async_trait]
pub trait FirstSeen: Send + Sync + 'static {
    /// Takes the right to publish it, for `hold`.
    async fn reserve(&self, scope: &str, id: &str, hold: Duration) -> Result<Reserved, WorkError>;

    /// What is known of it. Changes nothing.
    async fn look(&self, scope: &str, id: &str) -> Result<Reserved, WorkError>;

    /// It is published: remembers `answer` (at most [`MAX_ANSWER`] bytes) for `keep`, and at most `bound` such of a
    /// scope, oldest out. How many were put out early. An answer takes the place of an empty one, and no other of an
    /// answer: what was said first stays.
    async fn commit(
        &self,
        scope: &str,
        id: &str,
        answer: Bytes,
        person: Option<&Person>,
        keep: Duration,
        bound: u64,
    ) -> Result<u64, WorkError>;

    /// It was not published: gives the reservation back. Does nothing once committed.
    async fn release(&self, scope: &str, id: &str) -> Result<(), WorkError>;
}
