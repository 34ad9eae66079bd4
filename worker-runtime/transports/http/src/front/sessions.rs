//! What sessions came to is written down although the state store fails for a while: the broker has the message, so its
//! caller is not asked to send it again. Of one session it is written in the order in which it happened.

use super::Front;
use crate::engine::{Provider, SessionMove};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use vumi_core::error::WorkError;
use vumi_core::worker::{Taken, WorkerContext};

/// How long a request waits for the store; after that it goes on, and so does the trying.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// Longer than a user waits for anything.
const GIVE_UP: Duration = Duration::from_secs(300);
/// At the end of the worker, what is not written yet gets so long.
const LAST: Duration = Duration::from_secs(3);

/// What is to be written down: a queue for each session, so that nothing of one overtakes what came before it.
pub(super) struct Moves {
    provider: Arc<dyn Provider>,
    cx: Arc<WorkerContext>,
    /// By session; one that is being worked on has its place here, empty or not.
    queues: Mutex<HashMap<String, VecDeque<Move>>>,
    tasks: TaskTracker,
}

struct Move {
    session: SessionMove,
    repeat: bool,
    /// Dropped once it was tried.
    tried: oneshot::Sender<()>,
}

impl Moves {
    pub(super) fn new(
        provider: Arc<dyn Provider>,
        cx: Arc<WorkerContext>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            provider,
            cx,
            queues: Mutex::default(),
            tasks,
        })
    }

    /// Writes down what a session comes to, after all that was added of the same one before. The receiver resolves, with
    /// an error, once it was tried for the first time.
    pub(super) fn add(
        self: &Arc<Self>,
        session: SessionMove,
        repeat: bool,
    ) -> oneshot::Receiver<()> {
        let (tried, told) = oneshot::channel();
        let id = session.id().to_owned();
        let begins = {
            let mut queues = self.lock();
            let queue = queues.entry(id.clone());
            let begins = matches!(queue, Entry::Vacant(_));
            queue.or_default().push_back(Move {
                session,
                repeat,
                tried,
            });
            begins
        };
        if begins {
            let moves = Arc::clone(self);
            self.tasks.spawn(async move {
                while let Some(next) = moves.next(&id) {
                    moves.carry_out(next).await;
                }
            });
        }
        told
    }

    /// The next of a session; after the last one, its queue is gone.
    fn next(&self, id: &str) -> Option<Move> {
        let mut queues = self.lock();
        let next = queues.get_mut(id)?.pop_front();
        if next.is_none() {
            queues.remove(id);
        }
        next
    }

    /// Tries until it is written down.
    async fn carry_out(&self, next: Move) {
        let Move {
            session,
            repeat,
            tried,
        } = next;
        let first = self.provider.moved(&session, repeat);
        match tokio::time::timeout(PATIENCE, first).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "a session is not written down yet; it is tried again");
            }
            Err(_) => {
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    "the state store is slow: a session is not written down yet; it is tried again"
                );
            }
        }
        drop(tried);
        let trying = async {
            loop {
                tokio::time::sleep(PAUSE).await;
                if self.provider.moved(&session, repeat).await.is_ok() {
                    return;
                }
            }
        };
        if tokio::time::timeout(GIVE_UP, trying).await.is_err() {
            tracing::error!(
                worker = self.cx.worker_name(),
                "the state store does not come back: a session could not be written down, and its user begins anew"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Move>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Front {
    /// Moves the session of a message that the broker has, now or since an earlier delivery of the same: the process that
    /// took that one may have ended before it moved the session.
    pub(super) async fn moved(
        &self,
        taken: &Result<Taken, WorkError>,
        session: Option<SessionMove>,
    ) {
        if let Ok(taken) = taken {
            self.settle(session, *taken != Taken::Now).await;
        }
    }

    /// Writes down what a session came to, later if it must be.
    pub(super) async fn settle(&self, session: Option<SessionMove>, repeat: bool) {
        if let Some(session) = session {
            let tried = self.moves.add(session, repeat);
            let _ = tokio::time::timeout(PATIENCE, tried).await;
        }
    }

    /// Waits a moment for what is not written down yet.
    pub(crate) async fn settled(&self) {
        self.settling.close();
        if tokio::time::timeout(LAST, self.settling.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                worker = self.cx.worker_name(),
                sessions = self.settling.len(),
                "the worker ends before sessions could be written down: their users begin anew"
            );
        }
    }
}
