//! Marks: words without a body that a replica puts into its own reply queue. The queue is in order, so that when one has
//! come, so has all that was in the queue when it was sent. (The broker is not asked for the depth: over another connection
//! it does not tell that of an exclusive queue.)

use super::outlet::Outlet;
use crate::broker::{Acker, Confirmation, RawDelivery};
use crate::message::random_id;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// A broker that does not confirm a mark in this time has lost it, as far as we know.
const CONFIRMS: Duration = Duration::from_millis(500);

/// The marks of one reply queue.
pub(super) struct Marks {
    queue: String,
    outlet: Arc<Outlet>,
    /// How they begin.
    token: String,
    sent: AtomicU64,
    /// The highest that has come. Whatever was in the queue when a lower one was asked for came before it.
    arrived: watch::Sender<u64>,
    /// Of the consumer of the queue, which knows the lives of its channel.
    acker: OnceLock<Arc<dyn Acker>>,
}

/// A mark that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    number: u64,
    /// Into which life of the queue; none if it may not have got there.
    generation: Option<u64>,
}

impl Marks {
    pub(super) fn new(queue: String, outlet: Arc<Outlet>) -> Self {
        Self {
            queue,
            outlet,
            token: random_id(),
            sent: AtomicU64::new(0),
            arrived: watch::Sender::new(0),
            acker: OnceLock::new(),
        }
    }

    /// The queue has a consumer, for as long as the process lives.
    pub(super) fn read_by(&self, acker: Arc<dyn Acker>) {
        let _ = self.acker.set(acker);
    }

    /// Sends one.
    pub(super) async fn send(&self) -> Mark {
        let generation = self.generation();
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mark = format!("{}/{number}", self.token);
        let sends = async {
            self.outlet
                .mark(&self.queue, mark)
                .await
                .confirmation()
                .await
        };
        let sent = tokio::time::timeout(CONFIRMS, sends).await;
        Mark {
            number,
            generation: generation.filter(|_| sent == Ok(Confirmation::Confirmed)),
        }
    }

    /// Whether a delivery is a mark of ours, which has come then.
    pub(super) fn is_one(&self, raw: &RawDelivery) -> bool {
        let named = raw.message_id.as_deref().filter(|_| raw.body.is_empty());
        let number = named.and_then(|id| id.strip_prefix(&self.token)?.strip_prefix('/'));
        let Some(number) = number else {
            return false;
        };
        if let Ok(number) = number.parse::<u64>() {
            self.arrived.send_if_modified(|highest| {
                let is_news = *highest < number;
                *highest = number.max(*highest);
                is_news
            });
        }
        true
    }

    /// Whether all that was in the queue when a mark was sent has come.
    pub(super) fn has_arrived(&self, mark: Mark) -> bool {
        *self.arrived.borrow() >= mark.number
    }

    /// Returns when it has.
    pub(super) async fn arrives(&self, mark: Mark) {
        let mut arrived = self.arrived.subscribe();
        // We have the other end.
        let _ = arrived.wait_for(|highest| *highest >= mark.number).await;
    }

    /// Whether it may never come: the queue it was put into is gone, or it did not get there. A mark that only stands behind
    /// many is not followed by another one, which would stand behind more.
    pub(super) fn is_lost(&self, mark: Mark) -> bool {
        mark.generation.is_none() || mark.generation != self.generation()
    }

    /// Whether one can be sent now: the broker is there, and takes publications.
    pub(super) fn can_be_sent(&self) -> bool {
        self.outlet.is_open()
    }

    fn generation(&self) -> Option<u64> {
        self.acker.get().and_then(|acker| acker.generation())
    }
}
