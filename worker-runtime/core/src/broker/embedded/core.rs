//! What all connections to one embedded broker share: its state under one lock, and whom to wake after a change.

use super::message::Write;
use super::state::State;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Writes that take effect in one critical section; others get the lock in between.
const STRIDE: usize = 256;

pub(super) struct Core {
    state: Mutex<State>,
    /// The writer waits here for writes.
    work: Condvar,
    /// Publishers wait here for room.
    pub(super) room: Notify,
    /// True once the writer has ended and the state folder is free again.
    pub(super) finished: watch::Sender<bool>,
}

impl Core {
    pub(super) fn new(state: State) -> Self {
        Self {
            finished: watch::Sender::new(state.pending.is_none()),
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Notify::new(),
        }
    }

    /// Changes the state, then wakes whoever should look again.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let (work, room) = state.wakes();
        drop(state);
        if work {
            self.work.notify_one();
        }
        if room {
            self.room.notify_waiters();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next batch of writes; none when every connection is closed and nothing waits.
    pub(super) fn next_batch(&self) -> Option<Vec<Write>> {
        let mut state = self.lock();
        loop {
            let closed = state.is_closed();
            let pending = state.pending.as_mut()?;
            if !pending.is_empty() {
                let batch = pending.take();
                drop(state);
                self.room.notify_waiters();
                return Some(batch);
            }
            if closed {
                return None;
            }
            state.writer_idle = true;
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A batch is on disk: its writes take effect.
    pub(super) fn committed(&self, batch: Vec<Write>) {
        let mut writes = batch.into_iter();
        while writes.len() > 0 {
            self.with(|state| {
                for write in writes.by_ref().take(STRIDE) {
                    state.apply(write);
                }
            });
        }
    }

    /// Sleeps for at most this long, less if every connection closes. Returns whether they did.
    pub(super) fn closed_within(&self, time: std::time::Duration) -> bool {
        let state = self.lock();
        let waited = self.work.wait_timeout_while(state, time, |state| {
            // Wakes for other reasons are cheap here: the disk is broken.
            state.writer_idle = true;
            !state.is_closed()
        });
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed()
    }
}
