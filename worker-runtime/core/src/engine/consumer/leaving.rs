//! The end of a queue that is a replica's own. What is in it ends with it, so it is read until it is empty, and only then
//! the broker sends no more: whoever forwards from then on is told so. A mark shows when all that was in it has come.

use super::Consumer;
use crate::broker::ConsumerState;
use crate::engine::Counts;
use crate::engine::forwarded::Replies;
use crate::engine::marks::Mark;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Whether a mark was lost is looked at so often.
const LOOKS: Duration = Duration::from_millis(500);
/// Others may hand on more as fast as it is handled. After what was there when the stop began has come, a moment with little in
/// hand is waited for no longer than so.
const LINGERS: Duration = match cfg!(test) {
    true => Duration::from_millis(500),
    false => Duration::from_secs(5),
};

/// Looks whether such a queue is empty.
pub(super) struct Leaving {
    replies: Option<Arc<Replies>>,
    /// Since it was sent nothing that was there before is waited for once any mark has come.
    first: Option<Mark>,
    last: Option<Mark>,
    sends: Option<BoxFuture<'static, Mark>>,
    /// Since when a mark has come.
    arrived: Option<Instant>,
    /// The broker was told to send no more.
    left: bool,
}

impl Leaving {
    pub(super) fn new(replies: Option<Arc<Replies>>) -> Self {
        Self {
            replies,
            first: None,
            last: None,
            sends: None,
            arrived: None,
            left: false,
        }
    }

    /// Sends a mark if none is on its way, and returns when it is to be looked again.
    pub(super) async fn send(&mut self) {
        let Some(replies) = &self.replies else {
            return std::future::pending().await;
        };
        let on_its_way = |mark: &Mark| !replies.marks().is_lost(*mark);
        if self.arrived.is_none() && self.last.filter(on_its_way).is_none() {
            let sends = self.sends.get_or_insert_with(|| {
                let replies = Arc::clone(replies);
                async move { replies.marks().send().await }.boxed()
            });
            let mark = sends.await;
            self.sends = None;
            self.first.get_or_insert(mark);
            self.last = Some(mark);
        }
        tokio::time::sleep(LOOKS).await;
    }

    /// Whether all that was in the queue has come, or it cannot be found out; `room`: so little is in hand that more than may
    /// stand behind a mark comes as well.
    fn is_over(&mut self, room: bool) -> bool {
        let Some(marks) = self.replies.as_ref().map(|replies| replies.marks()) else {
            return false;
        };
        if self.first.is_some_and(|first| marks.has_arrived(first)) {
            let arrived = *self.arrived.get_or_insert_with(Instant::now);
            return room || arrived.elapsed() >= LINGERS;
        }
        // Nobody can put anything into it while the broker takes nothing, and what was there has come where there is room.
        room && !marks.can_be_sent()
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
        self.own.is_none() || self.in_hand() < 4 * u64::from(self.prefetch)
    }

    /// Whether it is to be found out whether a queue of our own is empty.
    pub(super) fn is_leaving(&self, draining: bool) -> bool {
        let reads = *self.state.borrow() == ConsumerState::Consuming;
        draining && self.own.is_some() && reads && !self.leaving.left
    }

    /// Has a queue of our own take nothing more once it is empty.
    pub(super) fn leave_if_empty(&mut self) {
        let room = self.in_hand() < u64::from(self.prefetch / 2) && self.deliveries.is_empty();
        if !self.leaving.left && self.leaving.is_over(room) {
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
