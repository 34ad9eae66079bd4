//! What is seen of a consumer from outside: its counters, and how it stands.

#[cfg(test)]
use crate::broker::Acker;
use crate::broker::ConsumerState;
use crate::engine::Counts;
use crate::engine::backlog::Backlog;
use crate::telemetry::QueueMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Counters of one consumed queue, readable from outside.
#[derive(Default)]
pub(in crate::engine) struct Counters {
    pub(in crate::engine) received: AtomicU64,
    pub(in crate::engine) done: AtomicU64,
    pub(in crate::engine) parked: AtomicU64,
    pub(in crate::engine) journaled: AtomicU64,
    pub(in crate::engine) replayed: AtomicU64,
    pub(in crate::engine) returned: AtomicU64,
    pub(in crate::engine) retried: AtomicU64,
}

impl Counters {
    pub(in crate::engine) fn add_to(&self, counts: &mut Counts) {
        // Read in this order, so that a message in motion is counted as in flight rather than lost.
        let load = |n: &AtomicU64| n.load(Ordering::SeqCst);
        let (done, parked, returned) = (load(&self.done), load(&self.parked), load(&self.returned));
        let journaled = load(&self.journaled);
        let received = load(&self.received);
        counts.done += done;
        counts.parked += parked;
        counts.returned += returned;
        counts.journaled += journaled;
        counts.received += received;
        counts.in_flight += received.saturating_sub(done + parked + returned + journaled);
        counts.retried += load(&self.retried);
        counts.replayed += load(&self.replayed);
    }
}

/// One consumer, seen from outside.
pub(in crate::engine) struct Watched {
    pub(in crate::engine) metrics: QueueMetrics,
    pub(in crate::engine) queue: String,
    pub(in crate::engine) state: watch::Receiver<ConsumerState>,
    pub(in crate::engine) paused: watch::Receiver<Option<String>>,
    pub(in crate::engine) counters: Arc<Counters>,
    /// When its loop last turned, in milliseconds since the worker began.
    pub(in crate::engine) turned: Arc<AtomicU64>,
    /// What it pauses for, where that is not what the whole worker pauses for: it passes messages on.
    pub(in crate::engine) own_backlog: Option<Arc<Backlog>>,
    /// Counts of what was left in parts of the queue, if it is not divided any more.
    pub(in crate::engine) leftover: Option<Arc<Counters>>,
    /// Of a divided queue: how many of its parts are read here.
    pub(in crate::engine) here: Option<watch::Receiver<Option<(usize, usize)>>>,
    #[cfg(test)]
    pub(in crate::engine) acker: Option<Arc<dyn Acker>>,
}

impl Watched {
    /// Adds its counts to those of the worker. A message that was passed on is still to be handled.
    pub(in crate::engine) fn add_to(&self, counts: &mut Counts) {
        if let Some(leftover) = &self.leftover {
            leftover.add_to(counts);
        }
        if self.own_backlog.is_none() {
            return self.counters.add_to(counts);
        }
        let mut own = Counts::default();
        self.counters.add_to(&mut own);
        counts.received += own.received - own.done - own.returned;
        counts.retried += own.retried;
        counts.parked += own.parked;
        counts.in_flight += own.in_flight;
        counts.journaled += own.journaled;
        counts.replayed += own.replayed;
    }
}
