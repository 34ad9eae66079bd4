//! Tells whether messages wait in the journals of a worker. The broker does not show them, and while a worker has no pods
//! nobody replays them, so the last pod stays until nothing is kept (K19).

use crate::reasons;
use crate::state::{StateStore, StoreHealth};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::telemetry::QueueMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_secs(5);
/// That nothing is kept is said once it has lasted: retries come and go.
const EMPTY: Duration = Duration::from_secs(60);

/// The journals of one worker.
pub(in crate::engine) struct JournalWatch {
    pub(in crate::engine) store: Arc<dyn StateStore>,
    pub(in crate::engine) status: Arc<StatusDesk>,
    pub(in crate::engine) queues: Vec<QueueMetrics>,
}

impl JournalWatch {
    /// Reports the component `journal` until it is dropped.
    pub(in crate::engine) async fn run(self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut empty_since = None;
        loop {
            period.tick().await;
            let kept = self.queues.iter().any(|q| q.journal_messages.get() > 0);
            if kept {
                empty_since = None;
                self.report(
                    reasons::MESSAGES_KEPT,
                    "messages wait for a retry, their turn or their time",
                );
                continue;
            }
            // Of a store that does not answer nobody knows what it keeps.
            if *self.store.health().borrow() != StoreHealth::Up {
                empty_since = None;
                continue;
            }
            let since = *empty_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= EMPTY {
                self.report(reasons::NOTHING_KEPT, "nothing waits");
            }
        }
    }

    fn report(&self, reason: reasons::Reason, text: &str) {
        let report = StatusReport::new("journal", StatusLevel::Ok, reason, text);
        self.status.report(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::conformance::store_faults::StoreFaults;
    use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
    use crate::status::StatusIdentity;
    use crate::telemetry::Telemetry;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_only_once_that_has_lasted_and_the_store_answers() {
        let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
        let faults = StoreFaults::new(store, None);
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let identity = StatusIdentity {
            connector: "t".into(),
            kind: vumi_api::Kind::Transport,
            name: "t".into(),
            type_name: "telnet".into(),
            instance: "one".into(),
        };
        let status = StatusDesk::new(broker, identity, None);
        let metrics = Telemetry::new().worker("transport/t").queue("t.outbound");
        let watch = JournalWatch {
            store: Arc::clone(&faults) as Arc<dyn StateStore>,
            status: Arc::clone(&status),
            queues: vec![metrics.clone()],
        };
        let watching = tokio::spawn(watch.run());
        let told = || status.components().pop().map(|report| report.reason);
        let minute = EMPTY + PERIOD;
        sleep(EMPTY - PERIOD).await;
        assert_eq!(told(), None);
        sleep(2 * PERIOD).await;
        assert_eq!(told().as_deref(), Some("nothing_kept"));
        metrics.journal_messages.set(1);
        sleep(PERIOD * 2).await;
        assert_eq!(told().as_deref(), Some("messages_kept"));
        metrics.journal_messages.set(0);
        faults.go_away();
        sleep(minute * 2).await;
        assert_eq!(told().as_deref(), Some("messages_kept"));
        faults.come_back();
        sleep(minute * 2).await;
        assert_eq!(told().as_deref(), Some("nothing_kept"));
        watching.abort();
    }
}
