//! Pauses: what was not begun is given to others, and after a long while everything.

use super::Consumer;
use crate::engine::backlog::Reason;
use crate::engine::journal::LaneJournal;
use std::time::Duration;
use tokio::time::Instant;

/// A pause longer than this gives back what was not begun, long before the broker would take it away.
const LONG_PAUSE: Duration = Duration::from_secs(60);

impl Consumer {
    pub(super) fn note_pause(&mut self, reason: Option<Reason>) {
        if self.paused.borrow().as_deref() == reason.as_ref().map(|r| r.text.as_str()) {
            return;
        }
        self.standing.pause(reason.as_ref());
        match &reason {
            Some(_) => {
                self.paused_at.get_or_insert_with(Instant::now);
                self.let_others_have_it();
            }
            None => {
                self.paused_at = None;
                if std::mem::take(&mut self.released) || !self.ordered {
                    self.acker.resume();
                }
            }
        }
        self.paused.send_replace(reason.map(|r| r.text));
        self.note_state();
    }

    /// Gives what was not begun to other consumers at once. Only where no order is kept: giving up a fence while
    /// something still runs behind it would let a successor overtake it.
    pub(super) fn let_others_have_it(&mut self) {
        if self.ordered || self.own.is_some() {
            return;
        }
        self.acker.cancel();
        while let Ok(raw) = self.deliveries.try_recv() {
            self.acker.requeue(raw.generation, raw.tag);
        }
    }

    /// A pause that lasts: gives everything back, the fence included, once nothing runs any more. A standby may go on
    /// where this one may not, and the broker does not close the channel for holding messages too long.
    pub(super) fn give_back_in_a_long_pause(&mut self) {
        let long = self.paused_at.is_some_and(|at| at.elapsed() >= LONG_PAUSE);
        let idle =
            self.running.is_empty() && self.journal.as_ref().is_none_or(LaneJournal::is_idle);
        if !self.ordered || self.own.is_some() || self.released || !long || !idle {
            return;
        }
        self.acknowledge();
        self.released = true;
        self.acker.release();
        // What was on its way to us is back in the queue as well.
        while self.deliveries.try_recv().is_ok() {}
        if let Some(journal) = &mut self.journal {
            journal.consumer_state(false);
        }
    }
}
