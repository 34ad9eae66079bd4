//! How a consumer stands: its state for status and metrics, the age of what waits, and doubts whether the broker has
//! forgotten it (R9).

use super::super::backlog::Reason;
use super::super::delivery::Desk;
use crate::broker::{Broker, ConsumerState};
use crate::reasons;
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Without a delivery for so long while the queue holds messages, the channel is rebuilt.
const DEAF: Duration = Duration::from_secs(20);
/// Asking the broker for a depth is given up after this.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Standing {
    desk: Arc<Desk>,
    broker: Arc<dyn Broker>,
    status: Arc<StatusDesk>,
    /// Name at the broker.
    queue: String,
    /// Name in metrics and statuses.
    label: String,
    last_delivery: Instant,
    last_look: Instant,
    look: Option<BoxFuture<'static, bool>>,
    /// How often in a row the broker had messages and sent none.
    suspicion: u32,
    /// Since when something waits that is not in hand.
    stalled_since: Option<Instant>,
    /// Where the age of what waits is told, if somebody else speaks for all that share the label.
    oldest: Option<Arc<AtomicU64>>,
}

impl Standing {
    pub(super) fn new(
        desk: Arc<Desk>,
        broker: Arc<dyn Broker>,
        status: Arc<StatusDesk>,
        queue: String,
        label: String,
        oldest: Option<Arc<AtomicU64>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            desk,
            broker,
            status,
            queue,
            label,
            last_delivery: now,
            last_look: now,
            look: None,
            suspicion: 0,
            stalled_since: None,
            oldest,
        }
    }

    pub(super) fn delivered(&mut self, at: Instant) {
        self.last_delivery = at;
        self.suspicion = 0;
        self.look = None;
    }

    /// Says that the consumer pauses, or goes on.
    pub(super) fn pause(&self, reason: Option<&Reason>) {
        if self.oldest.is_some() {
            return;
        }
        let report = match reason {
            Some(Reason { reason, text }) => {
                StatusReport::new(self.component(), StatusLevel::Degraded, *reason, text)
            }
            None => StatusReport::new(
                self.component(),
                StatusLevel::Ok,
                reasons::CONSUMING,
                format!("reading {}", self.label),
            ),
        };
        self.status.report(report);
    }

    fn component(&self) -> String {
        format!("queue {}", self.label)
    }

    pub(super) fn state(&self, state: &ConsumerState, paused: bool) {
        let word = state_word(state, paused);
        let label = &self.label;
        if self.oldest.is_none() {
            self.desk.worker_metrics.consumer_state(label, word);
        } else if !matches!(state, ConsumerState::Refused(..)) {
            return;
        }
        let (level, reason, text) = match state {
            ConsumerState::Consuming if !paused => (
                StatusLevel::Ok,
                reasons::CONSUMING,
                format!("reading {label}"),
            ),
            ConsumerState::Standby(holder) => {
                let holder = holder.as_deref().unwrap_or("another consumer");
                let text = format!("standing by: {label} is read by {holder}");
                (StatusLevel::Ok, reasons::STANDBY, text)
            }
            ConsumerState::Refused(code, text) => {
                tracing::error!(
                    worker = self.desk.key,
                    queue = label,
                    code,
                    reason = text,
                    "the queue cannot be consumed"
                );
                (
                    StatusLevel::Down,
                    reasons::Reason::of_code(code),
                    text.clone(),
                )
            }
            // A pause has its own report, a missing connection is the component `broker`.
            ConsumerState::Consuming | ConsumerState::Connecting(_) | ConsumerState::Stopped => {
                return;
            }
        };
        self.status
            .report(StatusReport::new(self.component(), level, reason, text));
    }

    /// Refreshes the gauges. `runs`: messages that are worked on here; `age` is that of the oldest message in hand; `waits`:
    /// more have come and are not begun; `reads`: the broker sends us what is in the queue.
    pub(super) fn tick(
        &mut self,
        runs: usize,
        in_flight: u64,
        age: Option<f64>,
        (waits, reads): (bool, bool),
    ) {
        let metrics = &self.desk.metrics;
        if let Some(oldest) = &self.oldest {
            let age = age.filter(|_| runs > 0 || waits).unwrap_or(0.0);
            oldest.store(age.to_bits(), Ordering::Relaxed);
            return;
        }
        metrics
            .in_flight
            .set(in_flight.try_into().unwrap_or(i64::MAX));
        // Whatever waits at the broker while nothing is in hand waits at least since we noticed, unless somebody else takes it.
        let stalled = in_flight == 0 && (waits || reads && metrics.ready.get() > 0);
        let since = stalled.then(|| *self.stalled_since.get_or_insert_with(Instant::now));
        self.stalled_since = since;
        let oldest = match (in_flight, since) {
            (0, None) => 0.0,
            (0, Some(since)) => age.unwrap_or(0.0).max(since.elapsed().as_secs_f64()),
            _ => age.unwrap_or_else(|| self.last_delivery.elapsed().as_secs_f64()),
        };
        metrics.oldest.set(oldest);
    }

    /// Nothing came for a while although there is room: asks the broker whether it has messages that nobody takes.
    pub(super) fn doubt(&mut self) {
        let due = self.last_delivery.elapsed() >= DEAF && self.last_look.elapsed() >= DEAF / 2;
        if !due || self.look.is_some() {
            return;
        }
        self.last_look = Instant::now();
        let (broker, queue) = (Arc::clone(&self.broker), self.queue.clone());
        let look = async move {
            let depth = tokio::time::timeout(LOOK_LIMIT, broker.depth(&queue)).await;
            matches!(depth, Ok(Ok(Some(depth))) if depth.ready > 0 && depth.consumers <= 1)
        };
        self.look = Some(look.boxed());
    }

    /// The answer to a doubt; true if the channel is to be rebuilt, after two such answers in a row.
    pub(super) async fn deafness(&mut self) -> bool {
        let Some(look) = &mut self.look else {
            return std::future::pending().await;
        };
        let waits = look.await;
        self.look = None;
        self.suspicion = if waits { self.suspicion + 1 } else { 0 };
        if self.suspicion < 2 {
            return false;
        }
        self.suspicion = 0;
        tracing::warn!(
            worker = self.desk.key,
            queue = self.label,
            "the broker has messages and sends none: rebuilding the channel"
        );
        self.desk.metrics.rebuilt.inc();
        true
    }

    pub(super) fn ended(&self) {
        if self.oldest.is_some() {
            return;
        }
        self.desk.metrics.oldest.set(0.0);
        self.desk.metrics.in_flight.set(0);
        self.desk
            .worker_metrics
            .consumer_state(&self.label, "stopped");
    }
}

/// One word for a consumer's state.
pub(in crate::engine) fn state_word(state: &ConsumerState, paused: bool) -> &'static str {
    match state {
        ConsumerState::Connecting(_) => "connecting",
        ConsumerState::Consuming | ConsumerState::Stopped if paused => "paused",
        ConsumerState::Consuming => "consuming",
        ConsumerState::Standby(_) => "standby",
        ConsumerState::Refused(..) => "refused",
        ConsumerState::Stopped => "stopped",
    }
}
