//! A state store between a worker and its real store that goes away, fails operations, loses answers, and dies with its
//! process at an operation that a test names.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::state::around::Around;
use crate::state::{StateStore, StoreHealth};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

    /// The process dies here, whatever it does.
    pub(crate) fn end(&self) {
        self.burnt.cancel();
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

    /// Operations of the journal that were asked for so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn mishaps(&self) -> std::sync::MutexGuard<'_, VecDeque<StoreMishap>> {
        self.mishaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Around for StoreFaults {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    fn shown_health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        if operation.starts_with("journal.") {
            self.operations.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(fuse) = &self.fuse {
            fuse.pass().await;
        }
        let failed = || {
            let text = "failed by a test";
            Err(WorkError::new(
                ErrorClass::Connect,
                codes::STATE_UNREACHABLE,
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
