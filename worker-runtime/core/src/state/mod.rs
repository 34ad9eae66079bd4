//! State that outlives a message: domain operations, each atomic, on Redis or on an embedded store (R20). Nobody outside
//! this folder sees a key or a value of a store.
//!
//! Times are the store's: `after` and `keep` are spans from the moment at which the store carries the operation out, so
//! that replicas whose clocks differ agree. Every error has class [`crate::error::ErrorClass::Connect`] if trying again
//! may help; then the operation was carried out wholly or not at all, and repeating it does no harm.

pub mod around;
pub mod batches;
pub mod embedded;
pub mod first_seen;
pub mod journal;
pub mod ledger;
pub mod legacy;
pub mod measured;
pub mod person;
pub mod rate_limits;
pub mod redis;
pub mod sessions;
pub mod suspects;

pub use batches::Batches;
pub use first_seen::FirstSeen;
pub use journal::Journal;
pub use ledger::Ledger;
pub use person::Person;
pub use rate_limits::RateLimits;
pub use sessions::Sessions;
pub use suspects::Suspects;

use crate::broker::Durability;
use crate::error::WorkError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// Whether the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// It does.
    Up,
    /// It does not, with the reason; operations fail until it does.
    Away(String),
}

/// What was removed of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Where: `sessions`, `journal`, `ledger`, `firstSeen`, `suspects`.
    pub what: String,
    /// How many entries.
    pub count: u64,
}

/// A state store: everything that workers keep.
#[async_trait]
pub trait StateStore:
    Sessions + Journal + Ledger + Batches + FirstSeen + RateLimits + Suspects
{
    /// What it is, for people, without secrets: `redis host:6379/0` or `embedded DIR`.
    fn describe(&self) -> String;

    /// What a finished operation survives (R16).
    fn durability(&self) -> Durability;

    /// Whether its times are those of a clock of its own. Else they are this machine's, which may be set back.
    fn has_own_clock(&self) -> bool;

    /// Whether it answers.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Retries of Vumi's failure worker, where the store is the one that Vumi used.
    fn legacy_retries(&self) -> Option<&dyn legacy::LegacyRetries> {
        None
    }

    /// Removes everything that is kept of a person. Entries of the journal are read to find them: seconds for a million.
    async fn erase(&self, person: &Person) -> Result<Vec<Erased>, WorkError>;

    /// Removes a bounded number of entries whose time is over; how many. Called now and then by every worker.
    async fn sweep(&self) -> Result<u64, WorkError>;

    /// Lets operations in flight finish (bounded by `deadline`) and closes.
    async fn close(&self, deadline: Duration);
}
