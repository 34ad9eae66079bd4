//! A state store whose operations are counted and timed, whatever it is.

use super::first_seen::Reserved;
use super::journal::{Append, Claimed, Depth, Filter, Lane, Listed, Next, Step as LaneStep};
use super::ledger::{Counts, Note, Put, Query, Row, RowState, Step};
use super::legacy::LegacyRetries;
use super::rate_limits::Bucket;
use super::sessions::Session;
use super::{
    Erased, FirstSeen, Journal, Ledger, Person, RateLimits, Sessions, StateStore, StoreHealth,
    Suspects,
};
use crate::broker::Durability;
use crate::error::WorkError;
use crate::telemetry::{StoreMetrics, Telemetry};
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A store and its metrics.
pub struct Measured {
    store: Arc<dyn StateStore>,
    metrics: StoreMetrics,
}

impl Measured {
    /// Measures `store` from now on. Must be called inside a Tokio runtime.
    pub fn new(store: Arc<dyn StateStore>, telemetry: &Telemetry) -> Arc<Self> {
        let metrics = telemetry.store(&store.describe());
        let (mut health, up) = (store.health(), metrics.up.clone());
        // Ends with the store.
        tokio::spawn(async move {
            loop {
                up.set(i64::from(*health.borrow_and_update() == StoreHealth::Up));
                if health.changed().await.is_err() {
                    return;
                }
            }
        });
        Arc::new(Self { store, metrics })
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<T, WorkError> {
        let began = Instant::now();
        let result = work.await;
        self.metrics
            .operation(operation, result.is_ok(), began.elapsed());
        result
    }
}

macro_rules! measured {
    ($trait:ident $prefix:literal { $( $name:ident ( $($arg:ident : $type:ty),* ) -> $out:ty; )* }) => {
        #[async_trait]
        impl $trait for Measured {
            $(
                async fn $name(&self, $($arg: $type),*) -> Result<$out, WorkError> {
                    let operation = concat!($prefix, ".", stringify!($name));
                    self.timed(operation, $trait::$name(&*self.store, $($arg),*)).await
                }
            )*
        }
    };
}

measured! { Sessions "sessions" {
    create(scope: &str, user: &str, fields: Session, keep: Option<Duration>) -> Session;
    load(scope: &str, user: &str) -> Option<Session>;
    save(scope: &str, user: &str, fields: Session) -> bool;
    extend(scope: &str, user: &str, keep: Duration) -> bool;
    clear(scope: &str, user: &str) -> Option<Session>;
    active(scope: &str, limit: usize) -> Vec<String>;
} }

measured! { Journal "journal" {
    append(queue: &str, messages: Vec<Append>) -> ();
    lanes(queue: &str) -> Vec<Lane>;
    groups(queue: &str) -> Vec<String>;
    claim(queue: &str, group: &str, limit: usize, lease: Duration) -> Vec<Claimed>;
    next_due(queue: &str) -> Option<Duration>;
    step(queue: &str, lane: &Lane, id: u64, step: LaneStep, lease: Duration) -> Next;
    renew(queue: &str, lanes: &[Lane], lease: Duration) -> ();
    reclaim(queue: &str) -> ();
    depth(queue: &str) -> Depth;
    queues() -> Vec<String>;
    list(queue: &str, filter: &Filter, limit: usize) -> Vec<Listed>;
    release(queue: &str, filter: &Filter) -> u64;
    remove(queue: &str, filter: &Filter, limit: usize) -> Vec<Listed>;
} }

measured! { Ledger "ledger" {
    put(row: &Row, expected: Option<u64>, keep: Duration) -> Put;
    row(message_id: &str) -> Option<Row>;
    by_remote_id(account: &str, remote_id: &str) -> Option<Row>;
    note(notes: &[Note], keep: Duration) -> ();
    trail(message_id: &str) -> Vec<Step>;
    find(query: &Query, limit: usize) -> Vec<String>;
    counts() -> Counts;
    overdue(account: &str, limit: usize) -> (u64, Vec<String>);
    in_state(account: &str, state: RowState, limit: usize) -> Vec<String>;
} }

measured! { FirstSeen "firstSeen" {
    reserve(scope: &str, id: &str, hold: Duration) -> Reserved;
    commit(scope: &str, id: &str, answer: Bytes, person: Option<&Person>, keep: Duration, bound: u64) -> u64;
    release(scope: &str, id: &str) -> ();
} }

measured! { RateLimits "rateLimits" {
    take(key: &str, cost: u32, bucket: Bucket) -> Option<Duration>;
    slow_down(key: &str, pause: Duration, bucket: Bucket) -> ();
    pace(key: &str) -> f64;
} }

measured! { Suspects "suspects" {
    suspect(queue: &str, id: &str, keep: Duration) -> u32;
    acquit(queue: &str, id: &str) -> ();
} }

#[async_trait]
impl StateStore for Measured {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.store.health()
    }

    fn legacy_retries(&self) -> Option<&dyn LegacyRetries> {
        self.store.legacy_retries()
    }

    async fn erase(&self, person: &Person) -> Result<Vec<Erased>, WorkError> {
        self.timed("erase", self.store.erase(person)).await
    }

    async fn sweep(&self) -> Result<u64, WorkError> {
        self.timed("sweep", self.store.sweep()).await
    }

    async fn close(&self, deadline: Duration) {
        self.store.close(deadline).await;
    }
}
