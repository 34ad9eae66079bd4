//! A state store around another: every operation goes to the inner one through one function, which may count it, or
//! fail it in tests.

use super::batches::{BatchCounts, Order};
use super::first_seen::Reserved;
use super::journal::{
    Append, Cause, Claimed, Depth, Entry, Filter, Lane, Listed, Mover, Next, Outgoing,
    Step as LaneStep, Withdrawn,
};
use super::ledger::{Counts, LeftTo, Note, Put, Query, Row, RowState, Step};
use super::legacy::LegacyRetries;
use super::rate_limits::Bucket;
use super::sessions::{Change, Session};
use super::{
    Batches, Erased, FirstSeen, Journal, Ledger, Person, RateLimits, Sessions, StateStore,
    StoreHealth, Suspects,
};
use crate::broker::Durability;
use crate::error::WorkError;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Names the store inside and does something around its operations.
#[async_trait]
pub trait Around: Send + Sync + 'static {
    /// The store that does the work.
    fn inner(&self) -> &Arc<dyn StateStore>;

    /// Whether it answers, as it is shown outside.
    fn shown_health(&self) -> watch::Receiver<StoreHealth> {
        self.inner().health()
    }

    /// Comes before an operation, such as `ledger.put`, which is not carried out if this fails.
    async fn before(&self, operation: &'static str) -> Result<(), WorkError> {
        let _ = operation;
        Ok(())
    }

    /// Does the work of an operation.
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        self.before(operation).await?;
        work.await
    }
}

macro_rules! around {
    ($trait:ident $prefix:literal { $( $name:ident ( $($arg:ident : $type:ty),* ) -> $out:ty; )* }) => {
        #[async_trait]
        impl<A: Around> $trait for A {
            $(
                async fn $name(&self, $($arg: $type),*) -> Result<$out, WorkError> {
                    let operation = concat!($prefix, ".", stringify!($name));
                    self.around(operation, $trait::$name(&**self.inner(), $($arg),*)).await
                }
            )*
        }
    };
}

around! { Sessions "sessions" {
    create(scope: &str, user: &str, fields: Session, keep: Option<Duration>) -> Session;
    load(scope: &str, user: &str) -> Option<Session>;
    save(scope: &str, user: &str, fields: Session) -> bool;
    extend(scope: &str, user: &str, keep: Duration) -> bool;
    clear(scope: &str, user: &str) -> Option<Session>;
    change(changes: &[Change]) -> bool;
    active(scope: &str, limit: usize) -> Vec<String>;
    begin(namespace: &str, user: &str, keep: Duration) -> f64;
    begun(namespace: &str, user: &str) -> Option<f64>;
    end(namespace: &str, user: &str) -> Option<f64>;
} }

around! { Journal "journal" {
    append(queue: &str, messages: Vec<Append>) -> ();
    lanes(queue: &str) -> Vec<Lane>;
    heads(queue: &str, lanes: &[Lane]) -> Vec<Option<Entry>>;
    groups(queue: &str) -> Vec<String>;
    claim(queue: &str, group: &str, limit: usize, lease: Duration) -> Vec<Claimed>;
    next_due(queue: &str) -> Option<Duration>;
    step(queue: &str, lane: &Lane, id: u64, step: LaneStep, lease: Duration) -> Next;
    renew(queue: &str, lanes: &[Lane], lease: Duration) -> ();
    reclaim(queue: &str) -> ();
    relocate(mover: &Mover, queue: &str, to: &str, lanes: &[Lane]) -> u64;
    appoint(mover: &Mover) -> ();
    dismiss(queue: &str) -> ();
    depth(queue: &str) -> Depth;
    queues() -> Vec<String>;
    list(queue: &str, filter: &Filter, limit: usize) -> Vec<Listed>;
    release(queue: &str, filter: &Filter) -> u64;
    withdraw(queue: &str, filter: &Filter, limit: usize, cause: Cause, lease: Duration) -> Withdrawn;
    outgoing(queue: &str, limit: usize) -> Vec<Outgoing>;
    adopt(queue: &str, limit: usize, lease: Duration) -> Vec<Outgoing>;
    forget(queue: &str, ids: &[u64]) -> ();
} }

around! { Ledger "ledger" {
    put(row: &Row, expected: Option<u64>, keep: Duration) -> Put;
    row(message_id: &str) -> Option<Row>;
    by_remote_id(account: &str, remote_id: &str) -> Option<Row>;
    live(worker: &str, hold: Duration) -> ();
    lives(worker: &str) -> bool;
    note(notes: &[Note], keep: Duration) -> ();
    trail(message_id: &str) -> Vec<Step>;
    find(query: &Query, limit: usize) -> Vec<String>;
    counts() -> Counts;
    overdue(account: &str, left_to: LeftTo, skip: usize, limit: usize) -> (u64, Vec<String>);
    in_state(account: &str, state: RowState, limit: usize) -> Vec<String>;
} }

around! { Batches "batches" {
    set_order(account: &str, batch: &str, order: Option<&Order>) -> ();
    orders(account: &str) -> BTreeMap<String, Order>;
    all_orders() -> BTreeMap<(String, String), Order>;
    batches() -> BatchCounts;
} }

around! { FirstSeen "firstSeen" {
    reserve(scope: &str, id: &str, hold: Duration) -> Reserved;
    look(scope: &str, id: &str) -> Reserved;
    commit(scope: &str, id: &str, answer: Bytes, person: Option<&Person>, keep: Duration, bound: u64) -> u64;
    release(scope: &str, id: &str) -> ();
} }

around! { RateLimits "rateLimits" {
    take(key: &str, cost: u32, bucket: Bucket) -> Option<Duration>;
    slow_down(key: &str, pause: Duration, bucket: Bucket) -> ();
    pace(key: &str) -> f64;
} }

around! { Suspects "suspects" {
    begun_in(queue: &str, id: &str) -> Vec<u64>;
    suspect(queue: &str, id: &str, life: u64, keep: Duration) -> u32;
    spare(queue: &str, id: &str, life: u64) -> ();
    acquit(queue: &str, id: &str) -> ();
} }

#[async_trait]
impl<A: Around> StateStore for A {
    fn describe(&self) -> String {
        self.inner().describe()
    }

    fn has_own_clock(&self) -> bool {
        self.inner().has_own_clock()
    }

    fn durability(&self) -> Durability {
        self.inner().durability()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.shown_health()
    }

    fn legacy_retries(&self) -> Option<&dyn LegacyRetries> {
        self.inner().legacy_retries()
    }

    async fn erase(&self, person: &Person) -> Result<Vec<Erased>, WorkError> {
        self.around("erase", self.inner().erase(person)).await
    }

    async fn sweep(&self) -> Result<u64, WorkError> {
        self.around("sweep", self.inner().sweep()).await
    }

    async fn close(&self, deadline: Duration) {
        self.inner().close(deadline).await;
    }
}
