//! The way out of the window, as the messages in it see it: whether the journal takes them now, and which lanes are to
//! leave at once.

use super::super::lanes::Lane;
use crate::broker::Durability;
use crate::state::journal::{Due, Reason};
use crate::state::{StateStore, StoreHealth};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Whether the journal takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Takes {
    /// It does.
    Yes,
    /// The store is away: what is held stays held.
    Away,
    /// The store is less durable than a journal must be (R16).
    Never,
}

/// Shared by one consumer and the messages that it works on.
pub(in crate::engine) struct Exit {
    pub(super) store: Arc<dyn StateStore>,
    /// A store that forgets is good enough: it was allowed, or the broker forgets as well.
    volatile_will_do: bool,
    /// An operation failed and none has succeeded since.
    failing: AtomicBool,
    /// Claims of an earlier term are void: the fence may have been another's meanwhile.
    term: AtomicU64,
    /// Lanes that leave as soon as their running message ends: why, and when they are due.
    leaving: Mutex<HashMap<u64, (Reason, Due)>>,
    nudge: Notify,
    /// Messages that wait in the window for their next attempt.
    sleeping: AtomicUsize,
    sleepers: usize,
}

impl Exit {
    /// At most `sleepers` messages wait in the window for their next attempt.
    pub(super) fn new(store: Arc<dyn StateStore>, volatile_will_do: bool, sleepers: usize) -> Self {
        Self {
            store,
            volatile_will_do,
            failing: AtomicBool::new(false),
            term: AtomicU64::new(0),
            leaving: Mutex::default(),
            nudge: Notify::new(),
            sleeping: AtomicUsize::new(0),
            sleepers,
        }
    }

    pub(in crate::engine) fn takes(&self) -> Takes {
        if *self.store.health().borrow() != StoreHealth::Up || self.failing.load(Ordering::Relaxed)
        {
            Takes::Away
        } else if self.store.durability() == Durability::Memory && !self.volatile_will_do {
            Takes::Never
        } else {
            Takes::Yes
        }
    }

    /// An operation ended; true if that changed whether they fail.
    pub(super) fn operation(&self, failed: bool) -> bool {
        self.failing.swap(failed, Ordering::Relaxed) != failed
    }

    pub(in crate::engine) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(super) fn next_term(&self) {
        self.term.fetch_add(1, Ordering::Relaxed);
    }

    fn leaving(&self) -> MutexGuard<'_, HashMap<u64, (Reason, Due)>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane is to leave; whoever waits in it for its next attempt is told.
    pub(in crate::engine) fn send_away(&self, lane: u64, reason: Reason, due: Due) {
        self.leaving().entry(lane).or_insert((reason, due));
        self.nudge.notify_waiters();
    }

    /// Whether a lane was to leave; it is not any more.
    pub(in crate::engine) fn takes_leave(&self, lane: Lane) -> Option<(Reason, Due)> {
        let Lane::Numbered(number) = lane else {
            return None;
        };
        self.leaving().remove(&number)
    }

    pub(in crate::engine) fn nobody_leaves(&self) {
        self.leaving().clear();
    }

    fn is_leaving(&self, lane: Lane) -> bool {
        matches!(lane, Lane::Numbered(number) if self.leaving().contains_key(&number))
    }

    /// Whether a message of `lane` should rather leave than wait for its next attempt, however short that is.
    pub(in crate::engine) fn is_crowded(&self, lane: Lane) -> bool {
        self.sleeping.load(Ordering::Relaxed) >= self.sleepers || self.is_leaving(lane)
    }

    /// Waits for the next attempt; true if the lane is to leave before.
    pub(in crate::engine) async fn sleep(&self, lane: Lane, wait: Duration) -> bool {
        struct Sleeping<'a>(&'a AtomicUsize);
        impl Drop for Sleeping<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.sleeping.fetch_add(1, Ordering::Relaxed);
        let _sleeping = Sleeping(&self.sleeping);
        let mut sleep = std::pin::pin!(tokio::time::sleep(wait));
        loop {
            let mut nudged = std::pin::pin!(self.nudge.notified());
            nudged.as_mut().enable();
            if self.is_leaving(lane) && self.takes() == Takes::Yes {
                return true;
            }
            tokio::select! {
                () = &mut sleep => return false,
                () = nudged => {}
            }
        }
    }
}
