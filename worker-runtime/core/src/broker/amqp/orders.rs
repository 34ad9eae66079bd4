//! Acknowledgements and other orders for one consumer, handed over without waiting: they gather in a slot and are
//! sent together. The slot is bounded by the prefetch, because only outstanding deliveries can be in it.

use super::Lifeline;
use crate::broker::Acker;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the consumer's task has to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Returned to the queue, before anything below acknowledges past them.
    pub(super) requeue: Vec<u64>,
    /// Acknowledged one by one; all above `multiple`.
    pub(super) single: Vec<u64>,
    /// Acknowledged up to here.
    pub(super) multiple: Option<u64>,
    pub(super) rebuild: bool,
}

#[derive(Default)]
struct Slot {
    /// Generation that orders are accepted for; none while there is no channel.
    live: Option<u64>,
    orders: Orders,
    cancelled: bool,
}

/// Where orders gather.
pub(super) struct Desk {
    slot: Mutex<Slot>,
    bell: Notify,
    closed: CancellationToken,
}

impl Desk {
    /// A desk that closes with `stop` at the latest.
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self {
            slot: Mutex::default(),
            bell: Notify::new(),
            closed: stop.child_token(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts orders for a new generation; none until there is one. Orders of the old one are void: its deliveries
    /// are back in the queue.
    pub(super) fn live(&self, generation: Option<u64>) {
        let mut slot = self.lock();
        slot.live = generation;
        slot.orders = Orders::default();
    }

    pub(super) fn take(&self) -> Orders {
        std::mem::take(&mut self.lock().orders)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Returns after something was ordered; for one waiter.
    pub(super) async fn ordered(&self) {
        self.bell.notified().await;
    }

    /// Returns once the consumer is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn order(&self, generation: u64, change: impl FnOnce(&mut Orders)) -> bool {
        let mut slot = self.lock();
        if slot.live != Some(generation) || self.is_closed() {
            return false;
        }
        change(&mut slot.orders);
        drop(slot);
        self.bell.notify_one();
        true
    }

    fn set(&self, change: impl FnOnce(&mut Slot)) {
        change(&mut self.lock());
        self.bell.notify_one();
    }
}

/// The engine's end; keeps the connections alive.
pub(super) struct Handle {
    desk: Arc<Desk>,
    _lifeline: Arc<Lifeline>,
}

impl Handle {
    pub(super) fn new(desk: &Arc<Desk>, lifeline: Arc<Lifeline>) -> Self {
        Self {
            desk: Arc::clone(desk),
            _lifeline: lifeline,
        }
    }
}

impl Acker for Handle {
    fn generation(&self) -> Option<u64> {
        self.desk.lock().live
    }

    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        self.desk.order(generation, |orders| {
            if orders.multiple.is_some_and(|up_to| tag <= up_to) {
                return;
            }
            if multiple {
                // Acknowledging a tag twice closes the channel: what this covers must not be sent again.
                orders.single.retain(|single| *single > tag);
                orders.multiple = Some(tag);
            } else {
                orders.single.push(tag);
            }
        })
    }

    fn requeue(&self, generation: u64, tag: u64) -> bool {
        self.desk
            .order(generation, |orders| orders.requeue.push(tag))
    }

    fn cancel(&self) {
        self.desk.set(|slot| slot.cancelled = true);
    }

    fn resume(&self) {
        self.desk.set(|slot| slot.cancelled = false);
    }

    fn release(&self) {
        self.desk.set(|slot| {
            slot.cancelled = true;
            slot.orders.rebuild = true;
        });
    }

    fn close(&self) {
        self.desk.closed.cancel();
    }

    fn rebuild(&self) {
        self.desk.set(|slot| slot.orders.rebuild = true);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_gather_without_repeating_a_tag() {
        let desk = Arc::new(Desk::new(&CancellationToken::new()));
        let handle = Handle::new(&desk, Arc::new(Lifeline(CancellationToken::new())));
        assert!(!handle.ack(1, 1, false), "no channel yet");
        desk.live(Some(1));
        assert!(handle.ack(1, 5, false));
        assert!(handle.ack(1, 9, false));
        assert!(handle.requeue(1, 6));
        assert!(handle.ack(1, 4, true));
        assert!(handle.ack(1, 7, true));
        assert!(!handle.ack(2, 8, false), "another generation");
        let orders = desk.take();
        assert_eq!(orders.single, [9]);
        assert_eq!(orders.multiple, Some(7));
        assert_eq!(orders.requeue, [6]);
        assert_eq!(desk.take(), Orders::default());
        assert!(handle.ack(1, 10, false));
        desk.live(Some(2));
        assert_eq!(desk.take(), Orders::default(), "void with its generation");
        assert!(!handle.ack(1, 11, false));
        drop(handle);
        assert!(desk.is_closed());
    }
}
