//! The end of a queue that is a replica's own. What is in it ends with it, so it is read until it is empty, and only then
//! the broker sends no more: whoever forwards from then on is told so. The queue is in order, so a mark that we put into it
//! shows when all that was before it has come. (The broker is not asked for its depth: over another connection it does not
//! tell that of an exclusive queue.)

use super::Consumer;
use crate::broker::{ConsumerState, RawDelivery};
use crate::engine::Counts;
use crate::engine::outlet::Outlet;
use crate::message::random_id;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// A mark that came while too much was in hand is followed by another one so long after it.
const AGAIN: Duration = Duration::from_millis(20);
/// One that did not arrive in this time was lost, or stands behind many.
const ARRIVES: Duration = Duration::from_millis(500);

/// Looks whether such a queue is empty.
pub(super) struct Leaving {
    outlet: Arc<Outlet>,
    queue: String,
    /// How our marks begin.
    token: String,
    /// How many were sent: the last one counts.
    marks: u64,
    sends: Option<BoxFuture<'static, ()>>,
    /// The last one has come.
    arrived: bool,
    /// The broker was told to send no more.
    left: bool,
}

impl Leaving {
    pub(super) fn new(outlet: Arc<Outlet>, queue: String) -> Self {
        Self {
            outlet,
            queue,
            token: random_id(),
            marks: 0,
            sends: None,
            arrived: false,
            left: false,
        }
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.token, self.marks)
    }

    /// Sends a mark, and returns when another one is to be sent.
    pub(super) async fn send(&mut self) {
        if self.sends.is_none() {
            let wait = match self.marks {
                0 => Duration::ZERO,
                _ => AGAIN,
            };
            self.marks += 1;
            let (outlet, queue, mark) = (Arc::clone(&self.outlet), self.queue.clone(), self.mark());
            let sends = async move {
                tokio::time::sleep(wait).await;
                outlet.mark(&queue, mark).await;
                tokio::time::sleep(ARRIVES).await;
            };
            self.sends = Some(sends.boxed());
        }
        if let Some(sends) = &mut self.sends {
            sends.await;
        }
        self.sends = None;
    }

    /// Whether a delivery is a mark of ours.
    pub(super) fn is_mark(&mut self, raw: &RawDelivery) -> bool {
        let named = raw.message_id.as_deref().filter(|_| raw.body.is_empty());
        let Some(mark) = named.filter(|id| id.starts_with(&self.token)) else {
            return false;
        };
        self.arrived |= mark == self.mark();
        true
    }
}

impl Consumer {
    /// Messages in hand. Of a queue of our own that may be more than the broker counts: what came by channels that were lost
    /// is there still.
    fn in_hand(&self) -> u64 {
        let mut counts = Counts::default();
        self.counters.add_to(&mut counts);
        counts.in_flight
    }

    /// Whether one more fits beside what is in hand.
    pub(super) fn has_place(&self) -> bool {
        !self.own || self.in_hand() < 4 * u64::from(self.prefetch)
    }

    /// Whether it is to be found out whether a queue of our own is empty.
    pub(super) fn is_leaving(&self, draining: bool) -> bool {
        let reads = *self.state.borrow() == ConsumerState::Consuming;
        draining && self.own && reads && !self.leaving.left
    }

    /// Has a queue of our own take nothing more once it is empty: a mark has come, and there is room for more than may
    /// stand behind it, which has come then as well or comes now.
    pub(super) fn leave_if_empty(&mut self) {
        if !std::mem::take(&mut self.leaving.arrived) {
            return;
        }
        self.leaving.sends = None;
        if self.in_hand() < u64::from(self.prefetch / 2) {
            self.leaving.left = true;
            self.acker.cancel();
        }
    }

    /// Whether everything of a queue of our own is finished that will ever come.
    pub(super) fn has_nothing_left(&self) -> bool {
        let ended = *self.state.borrow() != ConsumerState::Consuming;
        ended && self.running.is_empty() && self.deliveries.is_empty()
    }
}
