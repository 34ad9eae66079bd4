//! A state store between a worker and its real store that goes away, fails operations, loses answers, and dies with its
//! process at an operation that a test names.

use crate::broker::Durability;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::state::first_seen::Reserved;
use crate::state::journal::{Append, Claimed, Depth, Filter, Lane, Listed, Next, Step as LaneStep};
use crate::state::ledger::{Counts, Note, Put, Query, Row, RowState, Step};
use crate::state::rate_limits::Bucket;
use crate::state::sessions::Session;
use crate::state::{
    Erased, FirstSeen, Journal, Ledger, Person, RateLimits, Sessions, StateStore, StoreHealth,
    Suspects,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What happens to one operation instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreMishap {
    /// It fails and is not carried out.
    Refused,
    /// It is carried out, and its answer is lost.
    AnswerLost,
}

/// The life of a process that ends at some operation: before that one is carried out or after, at random by its number.
pub(crate) struct Fuse {
    left: AtomicI64,
    burnt: CancellationToken,
}

impl Fuse {
    /// Ends after `operations`.
    pub(crate) fn new(operations: i64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(operations),
            burnt: CancellationToken::new(),
        })
    }

    /// One half of an operation: false if the process is dead by now.
    pub(crate) fn burn(&self) -> bool {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.burnt.cancel();
        }
        !self.burnt.is_cancelled()
    }

    /// As [`Self::burn`]; the dead wait for ever.
    pub(crate) async fn pass(&self) {
        if !self.burn() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when the process dies.
    pub(crate) async fn burnt(&self) {
        self.burnt.cancelled().await;
    }
}

/// The store that a worker under test is given.
pub(crate) struct StoreFaults {
    inner: Arc<dyn StateStore>,
    health: watch::Sender<StoreHealth>,
    mishaps: Mutex<VecDeque<StoreMishap>>,
    fuse: Option<Arc<Fuse>>,
    operations: AtomicU64,
}

impl StoreFaults {
    pub(crate) fn new(inner: Arc<dyn StateStore>, fuse: Option<Arc<Fuse>>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            health: watch::Sender::new(StoreHealth::Up),
            mishaps: Mutex::default(),
            fuse,
            operations: AtomicU64::new(0),
        })
    }

    /// Operations fail until [`Self::come_back`].
    pub(crate) fn go_away(&self) {
        let why = "taken away by a test";
        self.health.send_replace(StoreHealth::Away(why.into()));
    }

    pub(crate) fn come_back(&self) {
        self.health.send_replace(StoreHealth::Up);
    }

    /// The next operations meet these.
    pub(crate) fn next(&self, mishaps: impl IntoIterator<Item = StoreMishap>) {
        self.mishaps().extend(mishaps);
    }

    /// Operations that were asked for so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn mishaps(&self) -> std::sync::MutexGuard<'_, VecDeque<StoreMishap>> {
        self.mishaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn between<T>(
        &self,
        work: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<T, WorkError> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        if let Some(fuse) = &self.fuse {
            fuse.pass().await;
        }
        let failed = || {
            let text = "failed by a test";
            Err(WorkError::new(
                ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                text,
            ))
        };
        if *self.health.borrow() != StoreHealth::Up {
            return failed();
        }
        let mishap = self.mishaps().pop_front();
        if mishap == Some(StoreMishap::Refused) {
            return failed();
        }
        let done = work.await;
        if let Some(fuse) = &self.fuse {
            fuse.pass().await;
        }
        match mishap {
            Some(_) => failed(),
            None => done,
        }
    }
}

macro_rules! faulty {
    ($( $trait:ident { $( $name:ident ( $($arg:ident : $type:ty),* ) -> $out:ty; )* } )*) => {
        $(
            #[async_trait]
            impl $trait for StoreFaults {
                $(
                    async fn $name(&self, $($arg: $type),*) -> Result<$out, WorkError> {
                        self.between($trait::$name(&*self.inner, $($arg),*)).await
                    }
                )*
            }
        )*
    };
}

faulty! {
    Sessions {
        create(scope: &str, user: &str, fields: Session, keep: Option<Duration>) -> Session;
        load(scope: &str, user: &str) -> Option<Session>;
        save(scope: &str, user: &str, fields: Session) -> bool;
        extend(scope: &str, user: &str, keep: Duration) -> bool;
        clear(scope: &str, user: &str) -> Option<Session>;
        active(scope: &str, limit: usize) -> Vec<String>;
    }
    Journal {
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
    }
    Ledger {
        put(row: &Row, expected: Option<u64>, keep: Duration) -> Put;
        row(message_id: &str) -> Option<Row>;
        by_remote_id(account: &str, remote_id: &str) -> Option<Row>;
        note(notes: &[Note], keep: Duration) -> ();
        trail(message_id: &str) -> Vec<Step>;
        find(query: &Query, limit: usize) -> Vec<String>;
        counts() -> Counts;
        overdue(account: &str, limit: usize) -> (u64, Vec<String>);
        in_state(account: &str, state: RowState, limit: usize) -> Vec<String>;
    }
    FirstSeen {
        reserve(scope: &str, id: &str, hold: Duration) -> Reserved;
        commit(scope: &str, id: &str, answer: Bytes, person: Option<&Person>, keep: Duration, bound: u64) -> u64;
        release(scope: &str, id: &str) -> ();
    }
    RateLimits {
        take(key: &str, cost: u32, bucket: Bucket) -> Option<Duration>;
        slow_down(key: &str, pause: Duration, bucket: Bucket) -> ();
        pace(key: &str) -> f64;
    }
    Suspects {
        suspect(queue: &str, id: &str, keep: Duration) -> u32;
        acquit(queue: &str, id: &str) -> ();
    }
}

#[async_trait]
impl StateStore for StoreFaults {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    async fn erase(&self, person: &Person) -> Result<Vec<Erased>, WorkError> {
        self.between(self.inner.erase(person)).await
    }

    async fn sweep(&self) -> Result<u64, WorkError> {
        self.between(self.inner.sweep()).await
    }

    async fn close(&self, deadline: Duration) {
        self.inner.close(deadline).await;
    }
}
