//! The state store on Redis: every operation is one script or command, and so one round trip and atomic; concurrent
//! ones share a connection. Redis Cluster is refused: it cannot hold together what a script needs.
//!
//! Keys, below the prefix (default `vumi`) and its separator (default a colon). Names are as they are, but for `%`, `:`, spaces and control
//! characters, which are written `%xx`. Capital letters cannot be names of workers, so nothing collides with Vumi's
//! keys.
//!
//! | Key | Type | Holds | Ends |
//! |---|---|---|---|
//! | `<scope>:session:<user>` | hash | Vumi's session: texts, `created_at`; without a scope `session:<user>` | as set when created |
//! | `<namespace>:<user>:session_created` | text | when the user's session began: Vumi's session length middleware | as set when it began |
//! | `failures:<transport>:…` | Vumi's | retries of Vumi's failure worker: read and removed, never written | |
//! | `answers:<message>:session:<person>` | hash | a session: what an application answered | as `retention.answers` says |
//! | `scheduler#…` | Vumi's | messages of Vumi's scheduler: read and removed, never written | |
//! | `J` | hash | messages in the journal by queue | with the last message |
//! | `J:id` | number | last number given to an entry | never |
//! | `J:g:<queue>` | set | groups with lanes | with the last lane |
//! | `J:w:<queue>:<group>` | sorted set | lanes, by when somebody may work on them: due, or the claim's end | with the last lane |
//! | `J:c:<queue>` | hash | claimed lanes, with the times at which they were due | with the claim |
//! | `J:l:<queue>:<lane>:<group>` | list | entries: number, colon, stored form | with the last message |
//! | `J:r` | hash | by divided queue: token of who may move its lanes | never |
//! | `J:o:<queue>` | sorted set | entries that were taken out for good, by when somebody tells their senders | when they know |
//! | `J:m:<queue>` | hash | what they are: cause, colon, entry | when they know |
//! | `L:r:<message>` | text | row: a line of names, JSON | swept after the retention |
//! | `L:t:<message>` | list | trail: person, then steps as JSON | swept after the retention |
//! | `L:s:<account>:<state>` | sorted set | messages with rows, by birth | with the row |
//! | `L:d:<account>` | sorted set | messages with unfinished rows, by deadline | with the final step |
//! | `L:w:<account>` | sorted set | those of them that are left to a person once they are overdue | as those |
//! | `L:x:<account>:<remote id>` | text | messages to which the provider gave this id | with the row |
//! | `L:p:<person>` | sorted set | messages of a person, by birth | with row and trail |
//! | `L:n` | sorted set | messages with trails, by their beginning | with the trail |
//! | `L:e` | sorted set | `r:<message>` and `t:<message>`, by when row and trail end | when they are swept |
//! | `L:b:<account>:<batch>` | hash | rows of a batch by state | with the last row |
//! | `L:b` | set | `<account>:<batch>` of batches with rows | with the last row |
//! | `L:o` | set | transports with orders for batches | when they are lifted |
//! | `L:o:<account>` | hash | orders in force by batch | when they are lifted |
//! | `L:a` | set | accounts with rows | never |
//! | `L:l:<worker>` | text | sign of life of a replica that sends | as told |
//! | `F:i:<scope>:<id>` | text | `P` while reserved, then `S` and the answer | hold, then window |
//! | `F:o:<scope>` | sorted set | ids by commit | window |
//! | `F:p:<person>` | sorted set | `<scope>:<id>` of a person | window |
//! | `R:<key>` | hash | token bucket | when it is full |
//! | `S:<queue>:<message>` | set | lives of processes in which a message was begun again | as told |
//! | `W` | text | written when a store that refused writes may take them again | 60 s |
//!
//! What a write survives depends on the server (R16): `appendonly yes` with `appendfsync always` survives power loss,
//! with `everysec` the end of the server's process, but for a write that Redis put off while the disk was busy (up to
//! 2 s). A replica that takes over lacks what the master had not passed on yet, whatever the setting;
//! `min-replicas-to-write 1` keeps a master that is cut off from taking more.

mod batches;
mod checkup;
mod config;
mod dial;
mod erase;
mod errors;
mod first_seen;
mod journal;
mod keys;
mod ledger;
mod legacy;
mod link;
mod rate_limits;
#[cfg(test)]
mod rate_limits_test;
mod script;
mod sessions;
mod suspects;

pub use checkup::checkup;
pub use config::{Identity, Place, RedisConfig};

use super::legacy::LegacyRetries;
use super::{Erased, Person, StateStore, StoreHealth};
use crate::broker::Durability;
use crate::error::WorkError;
use async_trait::async_trait;
use keys::Keys;
use link::Link;
use script::script;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Rows and trails that one sweep removes.
const SWEEP: usize = 500;

/// State on a Redis. Heals itself; what is done meanwhile fails with class `Connect` after 5 s at most.
pub struct RedisStore {
    config: RedisConfig,
    keys: Keys,
    link: Link,
}

impl RedisStore {
    /// Begins to connect. A Redis that is away, refuses us or cannot be used is a state of the store, not an error
    /// here.
    pub fn open(config: RedisConfig) -> Arc<Self> {
        Arc::new(Self {
            keys: config.keys(),
            link: Link::open(config.clone()),
            config,
        })
    }
}

#[async_trait]
impl StateStore for RedisStore {
    fn describe(&self) -> String {
        self.config.describe()
    }

    fn durability(&self) -> Durability {
        self.link.durability()
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.link.health()
    }

    fn legacy_retries(&self) -> Option<&dyn LegacyRetries> {
        Some(self)
    }

    async fn erase(&self, person: &Person) -> Result<Vec<Erased>, WorkError> {
        erase::erase(self, person).await
    }

    async fn sweep(&self) -> Result<u64, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "sweep"));
        call.arg(SWEEP);
        self.link.script(&call).await
    }

    async fn close(&self, deadline: Duration) {
        self.link.close(deadline).await;
    }
}
