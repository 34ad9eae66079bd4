//! What the journals of one consumed queue hold: of a divided queue there are several, which are one to whoever looks at
//! the metrics.

use super::millis;
use crate::state::journal::Depth;
use crate::telemetry::QueueMetrics;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The gauges of a queue and its parts.
pub(in crate::engine) struct Gauges {
    metrics: QueueMetrics,
    /// What each journal holds, and the birth of its oldest message as far as that is known.
    each: Mutex<BTreeMap<String, (Depth, Option<u64>)>>,
}

impl Gauges {
    pub(in crate::engine) fn new(metrics: QueueMetrics) -> Self {
        Self {
            metrics,
            each: Mutex::default(),
        }
    }

    /// One of the journals holds so much now.
    pub(super) fn note(&self, queue: &str, depth: &Depth, oldest: Option<u64>) {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.insert(queue.to_owned(), (depth.clone(), oldest));
        self.show(&each);
    }

    /// One of them is another replica's now.
    pub(super) fn forget(&self, queue: &str) {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.remove(queue);
        self.show(&each);
    }

    fn show(&self, each: &BTreeMap<String, (Depth, Option<u64>)>) {
        let sum = |of: fn(&Depth) -> u64| {
            let sum: u64 = each.values().map(|(depth, _)| of(depth)).sum();
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.metrics
            .journal_messages
            .set(sum(|depth| depth.messages));
        self.metrics.journal_lanes.set(sum(|depth| depth.lanes));
        let oldest = each.values().filter_map(|(_, oldest)| *oldest).min();
        let age = oldest.map_or(0, |since| millis(crate::clock::now()).saturating_sub(since));
        self.metrics.journal_oldest.set(age as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn the_journals_of_a_divided_queue_are_summed() {
        let metrics = Telemetry::new().worker("transport/t").queue("t.outbound");
        let gauges = Gauges::new(metrics.clone());
        let depth = |messages, lanes| Depth { messages, lanes };
        let minute_ago = millis(crate::clock::now()) - 60_000;
        gauges.note("t.outbound.p0", &depth(5, 2), Some(minute_ago));
        gauges.note("t.outbound.p1", &depth(7, 3), Some(minute_ago + 30_000));
        gauges.note("t.outbound.p0", &depth(4, 2), Some(minute_ago));
        let shown = || (metrics.journal_messages.get(), metrics.journal_lanes.get());
        assert_eq!(shown(), (11, 5));
        assert!(metrics.journal_oldest.get() >= 60.0);
        gauges.forget("t.outbound.p0");
        assert_eq!(shown(), (7, 3));
        gauges.forget("t.outbound.p1");
        assert_eq!((shown(), metrics.journal_oldest.get()), ((0, 0), 0.0));
    }
}
