//! Replies that other replicas handed on to this one, before replies that it reads itself. Whoever gets the fence of a
//! queue while its predecessor's last replies to our sessions are still in our reply queue would overtake them: each user's
//! messages wait for those.

use super::lanes::Lane;
use super::outlet::Outlet;
use super::peer::ReplyQueue;
use crate::broker::{ConsumerState, RawDelivery};
use crate::message::random_id;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A mark that did not arrive in this time was lost, and another one is sent.
const ARRIVES: Duration = Duration::from_millis(500);
/// Whoever waits for a lane looks this often whether it is to stop.
const LOOKS: Duration = Duration::from_millis(100);

/// What one consumer of a replica knows of replies that others handed on.
pub(super) struct Forwarded {
    replies: Arc<Replies>,
    /// The generation of its fence for which everything before it has arrived.
    complete: Mutex<Option<u64>>,
}

/// The reply queue of a replica.
struct Replies {
    queue: String,
    /// How its consumer stands.
    state: ReplyQueue,
    outlet: Arc<Outlet>,
    /// How our marks begin.
    token: String,
    seen: Mutex<Seen>,
    changed: Notify,
    /// Held by whoever sends a mark.
    marking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    /// In hand, by lane.
    lanes: HashMap<Lane, usize>,
    /// The mark that is under way: what comes after it was handed on later.
    mark: Option<String>,
}

/// A message that was handed on, until it is dropped.
pub(super) struct Passing {
    replies: Arc<Replies>,
    lane: Lane,
}

impl Forwarded {
    pub(super) fn new(queue: String, state: ReplyQueue, outlet: Arc<Outlet>) -> Arc<Self> {
        let replies = Arc::new(Replies {
            queue,
            state,
            outlet,
            token: random_id(),
            seen: Mutex::default(),
            changed: Notify::new(),
            marking: tokio::sync::Mutex::default(),
        });
        Arc::new(Self {
            replies,
            complete: Mutex::default(),
        })
    }

    /// The same for another consumer, which has a fence of its own.
    pub(super) fn of_another(&self) -> Arc<Self> {
        Arc::new(Self {
            replies: Arc::clone(&self.replies),
            complete: Mutex::default(),
        })
    }

    /// One that was handed on has arrived.
    pub(super) fn arrives(&self, lane: Lane) -> Passing {
        *self.replies.lock().lanes.entry(lane).or_default() += 1;
        Passing {
            replies: Arc::clone(&self.replies),
            lane,
        }
    }

    /// Whether a delivery is a mark of ours, which has arrived then.
    pub(super) fn is_mark(&self, raw: &RawDelivery) -> bool {
        let named = raw.message_id.as_deref().filter(|_| raw.body.is_empty());
        let Some(mark) = named.filter(|id| id.starts_with(&self.replies.token)) else {
            return false;
        };
        let mut seen = self.replies.lock();
        if seen.mark.as_deref() == Some(mark) {
            seen.mark = None;
            drop(seen);
            self.replies.changed.notify_waiters();
        }
        true
    }

    /// Waits until everything of this lane that was handed on before we got the fence is handled. False when told to
    /// stop.
    pub(super) async fn come_first(
        &self,
        generation: u64,
        lane: Lane,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> bool {
        if !self.is_complete(generation) {
            let _marking = self.replies.marking.lock().await;
            if !self.is_complete(generation) {
                if !self.replies.all_arrived(interrupted).await {
                    return false;
                }
                *self.complete() = Some(generation);
            }
        }
        let passed = |seen: &Seen| !seen.lanes.contains_key(&lane);
        let patience = || tokio::time::timeout(LOOKS, self.replies.until(passed));
        while patience().await.is_err() {
            if interrupted() {
                return false;
            }
        }
        !interrupted()
    }

    fn is_complete(&self, generation: u64) -> bool {
        *self.complete() == Some(generation)
    }

    fn complete(&self) -> MutexGuard<'_, Option<u64>> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replies {
    /// Waits until everything that was in the reply queue has arrived: the queue is in order, so a mark shows it.
    async fn all_arrived(&self, interrupted: &(dyn Fn() -> bool + Sync)) -> bool {
        // Without a consumer there is no queue, and nothing in it.
        while self.is_read() {
            let mark = format!("{}{}", self.token, random_id());
            self.lock().mark = Some(mark.clone());
            let arrives = async {
                self.outlet.mark(&self.queue, mark).await;
                self.until(|seen| seen.mark.is_none()).await;
            };
            let arrived = tokio::time::timeout(ARRIVES, arrives).await;
            if interrupted() {
                return false;
            }
            if arrived.is_ok() {
                return true;
            }
        }
        !interrupted()
    }

    fn is_read(&self) -> bool {
        let state = self.state.get();
        state.is_some_and(|state| *state.borrow() == ConsumerState::Consuming)
    }

    async fn until(&self, is_so: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut seen = self.replies.lock();
        if let Some(count) = seen.lanes.get_mut(&self.lane) {
            *count -= 1;
            if *count == 0 {
                seen.lanes.remove(&self.lane);
                drop(seen);
                self.replies.changed.notify_waiters();
            }
        }
    }
}
