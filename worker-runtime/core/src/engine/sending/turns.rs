//! One delivery of a message at a time, within a process: a message that comes again while its first delivery is still
//! worked on waits for that.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that are worked on, by id. As many as deliveries in hand.
#[derive(Default)]
pub(super) struct Turns {
    busy: Mutex<HashSet<String>>,
    ended: Notify,
}

/// The right to work on a message, until it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: String,
}

impl Turns {
    /// Waits for the turn of a message.
    pub(super) async fn take(self: &Arc<Self>, id: &str) -> Turn {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(turn) = self.try_take(id) {
                return turn;
            }
            ended.await;
        }
    }

    /// The turn of a message that nobody works on.
    pub(super) fn try_take(self: &Arc<Self>, id: &str) -> Option<Turn> {
        let free = self.lock().insert(id.to_owned());
        free.then(|| Turn {
            turns: Arc::clone(self),
            id: id.to_owned(),
        })
    }

    /// Whether a message is worked on.
    pub(super) fn is_busy(&self, id: &str) -> bool {
        self.lock().contains(id)
    }

    /// Whether no message is worked on.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.id);
        self.turns.ended.notify_waiters();
    }
}
