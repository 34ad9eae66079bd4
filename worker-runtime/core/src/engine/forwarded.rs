//! Replies that other replicas handed on to this one: what of them is in hand, and which come first. Whoever gets the fence
//! of a queue while its predecessor's last replies to our sessions are still in our reply queue would overtake them: each
//! user's messages wait for those.

use super::lanes::Lane;
use super::marks::{Mark, Marks};
use super::outlet::Outlet;
use super::peer::ReplyQueue;
use crate::broker::{Acker, ConsumerState, RawDelivery};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Whoever waits for a mark looks this often whether it was lost.
const ARRIVES: Duration = Duration::from_millis(500);
/// Whoever waits for a lane looks this often whether it is to stop.
const LOOKS: Duration = Duration::from_millis(100);

/// The reply queue of a replica.
pub(super) struct Replies {
    queue: String,
    /// How its consumer stands.
    state: ReplyQueue,
    marks: Marks,
    in_hand: Mutex<InHand>,
    changed: Notify,
    /// Held by whoever waits for a mark.
    marking: tokio::sync::Mutex<()>,
}

/// What has come by it and is not finished.
#[derive(Default)]
struct InHand {
    lanes: HashMap<Lane, usize>,
    ids: HashMap<String, usize>,
}

/// A message that was handed on, until it is dropped.
pub(super) struct Passing {
    replies: Arc<Replies>,
    lane: Lane,
    id: String,
}

/// What one consumer of a replica knows of replies that others handed on.
pub(super) struct Forwarded {
    replies: Arc<Replies>,
    /// The generation of its fence for which everything before it has arrived.
    complete: Mutex<Option<u64>>,
}

impl Forwarded {
    pub(super) fn new(replies: Arc<Replies>) -> Arc<Self> {
        Arc::new(Self {
            replies,
            complete: Mutex::default(),
        })
    }

    /// The same for another consumer, which has a fence of its own.
    pub(super) fn of_another(&self) -> Arc<Self> {
        Self::new(Arc::clone(&self.replies))
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
        let passed = |in_hand: &InHand| !in_hand.lanes.contains_key(&lane);
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
    pub(super) fn new(queue: String, state: ReplyQueue, outlet: Arc<Outlet>) -> Arc<Self> {
        Arc::new(Self {
            marks: Marks::new(queue.clone(), outlet),
            queue,
            state,
            in_hand: Mutex::default(),
            changed: Notify::new(),
            marking: tokio::sync::Mutex::default(),
        })
    }

    /// Its name.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// It has a consumer, for as long as the process lives.
    pub(super) fn read_by(&self, acker: Arc<dyn Acker>) {
        self.marks.read_by(acker);
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Whether a delivery is a mark of ours, which has come then.
    pub(super) fn is_mark(&self, raw: &RawDelivery) -> bool {
        self.marks.is_one(raw)
    }

    /// One that was handed on has arrived.
    pub(super) fn arrives(self: &Arc<Self>, lane: Lane, id: String) -> Passing {
        let mut in_hand = self.lock();
        *in_hand.lanes.entry(lane).or_default() += 1;
        *in_hand.ids.entry(id.clone()).or_default() += 1;
        Passing {
            replies: Arc::clone(self),
            lane,
            id,
        }
    }

    /// Whether a message has come by it and is not finished.
    pub(super) fn has(&self, id: &str) -> bool {
        self.lock().ids.contains_key(id)
    }

    /// Waits until everything that was in the reply queue has arrived.
    async fn all_arrived(&self, interrupted: &(dyn Fn() -> bool + Sync)) -> bool {
        let (mut sent, mut first): (Option<Mark>, Option<Mark>) = (None, None);
        // Without a consumer there is no queue, and nothing in it.
        while self.is_read() {
            let mark = match sent.filter(|mark| !self.marks.is_lost(*mark)) {
                Some(mark) => mark,
                None => self.marks.send().await,
            };
            sent = Some(mark);
            // A later one proves it too.
            let first = *first.get_or_insert(mark);
            let arrived = tokio::time::timeout(ARRIVES, self.marks.arrives(first)).await;
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

    async fn until(&self, is_so: impl Fn(&InHand) -> bool) {
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

    fn lock(&self) -> MutexGuard<'_, InHand> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut in_hand = self.replies.lock();
        one_less(&mut in_hand.ids, &self.id);
        let is_last = one_less(&mut in_hand.lanes, &self.lane);
        drop(in_hand);
        if is_last {
            self.replies.changed.notify_waiters();
        }
    }
}

/// True if none is left.
fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let none = *count == 0;
    if none {
        counts.remove(key);
    }
    none
}
