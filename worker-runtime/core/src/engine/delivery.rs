//! One delivered message on its way to a verdict: attempts, retries, giving up, parking (R3, R12, R15).
//!
//! A handler returns everything it causes, so a delivery has one owner and needs no counted handles: the future that
//! works on it ends with its [`Verdict`], and a future that is dropped has none, which leaves the message with the
//! broker.

use super::backoff::RetryPolicy;
use super::consumer::Counters;
use super::lanes::Lane;
use super::outlet::{Outlet, Unpublished};
use super::partitions::{Layout, Plan};
use crate::broker::RawDelivery;
use crate::codes;
use crate::error::{Disposition, ErrorClass, WorkError};
use crate::message::{Event, EventType, Fate, FateState, Message};
use crate::middleware::Chain;
use crate::parking::Envelope;
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use crate::worker::{Input, Output, Worker};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port};

/// Attempts of a message whose handling panics or fails by our own mistake.
const BUG_ATTEMPTS: u32 = 3;
/// A message that a quorum queue delivered so often is parked before the broker drops it (R1).
const QUORUM_DELIVERIES: i64 = 10;

/// A message taken from the broker.
#[must_use = "a delivery that is dropped is neither done nor returned"]
pub(super) struct Delivery {
    pub(super) raw: RawDelivery,
    /// Decoded, unless it is not a message at all.
    pub(super) message: Result<Message, WorkError>,
    pub(super) lane: Lane,
    pub(super) received: Instant,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything it caused is confirmed.
    Done,
    /// Set aside; the parked copy is confirmed.
    Parked,
    /// Not handled; the broker keeps it.
    Returned,
}

/// A delivery with its verdict.
pub(super) struct Finished {
    pub(super) tag: u64,
    pub(super) generation: u64,
    pub(super) lane: Lane,
    pub(super) received: Instant,
    pub(super) verdict: Verdict,
}

/// What becomes of the messages of a consumer.
#[derive(Clone)]
pub(super) enum Duty {
    /// The worker handles them.
    Handle,
    /// They are passed on to the parts of their queue.
    Forward(Arc<Plan>),
}

/// What all deliveries of one consumer share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) duty: Duty,
    /// Messages wait until their queue is divided as the manifest says; none where that cannot change.
    pub(super) layout: Option<Arc<Layout>>,
    pub(super) worker: Arc<dyn Worker>,
    pub(super) key: String,
    pub(super) port: Port,
    /// Name of the queue, whose parking queue takes what cannot be handled.
    pub(super) queue: String,
    pub(super) chain: Arc<Chain>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) policy: RetryPolicy,
    pub(super) metrics: QueueMetrics,
    pub(super) counters: Arc<Counters>,
    pub(super) worker_metrics: Arc<WorkerMetrics>,
    /// Generation of the channel now.
    pub(super) generation: Arc<AtomicU64>,
    /// Fires when nothing is to be tried again.
    pub(super) halt: CancellationToken,
}

/// What a failed attempt leads to.
enum Next {
    Again(Duration),
    GiveUp(WorkError),
    Park(WorkError),
}

impl Desk {
    fn lost(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) != generation
    }

    /// Works on a delivery until it has a verdict.
    pub(super) async fn work(self: Arc<Self>, delivery: Delivery) -> Finished {
        let Delivery {
            raw,
            message,
            lane,
            received,
        } = delivery;
        let verdict = self.judge(&raw, message, lane).await;
        Finished {
            tag: raw.tag,
            generation: raw.generation,
            lane,
            received,
            verdict,
        }
    }

    async fn judge(
        &self,
        raw: &RawDelivery,
        message: Result<Message, WorkError>,
        lane: Lane,
    ) -> Verdict {
        let interrupted = || self.halt.is_cancelled() || self.lost(raw.generation);
        let mut decoded = match message {
            Ok(message) => Some(message),
            Err(error) => return self.park(raw, &error, 0, &interrupted).await,
        };
        if raw.delivery_count.is_some_and(|n| n >= QUORUM_DELIVERIES) {
            let error = WorkError::new(
                ErrorClass::Config,
                codes::BROKER_QUEUE_TYPE,
                "it comes from a quorum queue, which drops messages after a number of deliveries",
            );
            return self.park(raw, &error, 0, &interrupted).await;
        }
        if interrupted() {
            return Verdict::Returned;
        }
        if let Some(layout) = &self.layout
            && !layout.agreed(raw.generation, &interrupted).await
        {
            return Verdict::Returned;
        }
        if let (Duty::Forward(plan), Some(message)) = (&self.duty, &decoded) {
            let queue = plan.target(message, lane);
            return self.pass_on(raw, &queue, &interrupted).await;
        }
        let started = Instant::now();
        let (mut attempt, mut bugs) = (0, 0);
        loop {
            attempt += 1;
            let message = match decoded.take() {
                Some(message) => message,
                None => match Message::decode(self.port.flow, &raw.body) {
                    Ok(message) => message,
                    Err(error) => {
                        return self.park(raw, &error.into(), attempt, &interrupted).await;
                    }
                },
            };
            let error = match self.attempt(message, attempt, &interrupted).await {
                Ok(()) => return Verdict::Done,
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => error,
            };
            self.worker_metrics.error(&error);
            match self.next(&error, attempt, &mut bugs, started.elapsed()) {
                Next::Again(wait) => {
                    self.log_retry(raw, &error, attempt, wait);
                    self.metrics.retried.inc();
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.halt.cancelled() => return Verdict::Returned,
                    }
                    if interrupted() {
                        return Verdict::Returned;
                    }
                }
                Next::Park(error) => return self.park(raw, &error, attempt, &interrupted).await,
                Next::GiveUp(error) => {
                    return self.give_up(raw, error, attempt, &interrupted).await;
                }
            }
        }
    }

    /// One attempt: consume chain, handler, publish chain, confirmations. A panic in any of them is an error like others
    /// (R15).
    async fn attempt(
        &self,
        message: Message,
        attempt: u32,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Unpublished> {
        let handle = async {
            let message = if self.chain.is_empty() {
                message
            } else {
                self.chain.consume(&self.port, message).await?
            };
            let input = Input {
                port: self.port.clone(),
                message,
                attempt,
            };
            let outputs = self.worker.handle(input).await?;
            outputs.iter().for_each(|output| self.note_nack(output));
            self.outlet.publish_all(outputs, interrupted).await
        };
        AssertUnwindSafe(handle)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(Unpublished::Failed(WorkError::new(
                    ErrorClass::Bug,
                    codes::BUG_PANIC,
                    "handling it panicked; the process's output shows where",
                )))
            })
    }

    /// A worker that refuses a message says so to its sender; here to the operator as well.
    fn note_nack(&self, output: &Output) {
        let Message::Event(event) = &output.message else {
            return;
        };
        // A dispatcher passes on what others decided.
        if event.event_type() != EventType::Nack || self.port.flow == Flow::Event {
            return;
        }
        let fate = event.fate();
        let (code, class) = fate
            .as_ref()
            .map_or(("none", "none"), |f| (f.code.as_str(), f.class.as_str()));
        self.worker_metrics.nack(class);
        tracing::warn!(
            worker = self.key,
            queue = self.queue,
            message_id = event.user_message_id(),
            code,
            class,
            "not delivered, the sender is told"
        );
    }

    /// The first retry of a message is news, the others are not.
    fn log_retry(&self, raw: &RawDelivery, error: &WorkError, attempt: u32, wait: Duration) {
        let id = Message::decode(self.port.flow, &raw.body).map(|m| m.id().to_owned());
        let id = id.unwrap_or_default();
        let wait_ms = wait.as_millis() as u64;
        if attempt == 1 {
            tracing::info!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, class = error.class.label(), attempt, wait_ms, reason = %error, "failed, will be tried again in its lane");
        } else {
            tracing::debug!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, attempt, wait_ms, reason = %error, "failed again");
        }
    }

    fn next(&self, error: &WorkError, attempt: u32, bugs: &mut u32, held: Duration) -> Next {
        match error.class.disposition() {
            Disposition::Park => Next::Park(error.clone()),
            Disposition::GiveUp => Next::GiveUp(error.clone()),
            Disposition::RetryThenPark => {
                *bugs += 1;
                if *bugs >= BUG_ATTEMPTS {
                    Next::Park(error.clone())
                } else {
                    Next::Again(self.policy.backoff.after(*bugs))
                }
            }
            Disposition::Retry => {
                let wait = match error.class {
                    ErrorClass::Throttled(Some(wait)) => wait,
                    _ => self.policy.backoff.after(attempt),
                };
                let over = |code, why: &str| {
                    let text = format!("{why} after {attempt} attempts, last: {error}");
                    let mut over = WorkError::new(error.class, code, text);
                    over.provider_code.clone_from(&error.provider_code);
                    Next::GiveUp(over)
                };
                if attempt >= self.policy.max_attempts {
                    over(codes::RETRY_EXHAUSTED, "given up")
                } else if held + wait > self.policy.hold_limit {
                    over(codes::RETRY_NO_STORE, "held as long as holdLimit allows")
                } else {
                    Next::Again(wait)
                }
            }
        }
    }

    /// Says in its own flow that a message will not be delivered: a nack event for outbound ones, parking for others.
    async fn give_up(
        &self,
        raw: &RawDelivery,
        error: WorkError,
        attempt: u32,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        if self.port.flow != Flow::Outbound {
            return self.park(raw, &error, attempt, interrupted).await;
        }
        let id = match Message::decode(self.port.flow, &raw.body) {
            Ok(message) => message.id().to_owned(),
            Err(error) => return self.park(raw, &error.into(), attempt, interrupted).await,
        };
        let fate = Fate {
            state: FateState::Failed,
            class: error.class.fate_class().to_owned(),
            code: error
                .provider_code
                .clone()
                .unwrap_or_else(|| error.code.name.to_owned()),
            text: error.text.clone(),
            who: error.class.who_acts().to_owned(),
            attempt,
            is_final: true,
        };
        let mut event = Event::nack(&id, &fate);
        event.set_transport_name(&self.port.connector);
        let output = Output::new(Port::new(&self.port.connector, Flow::Event), event);
        self.worker_metrics.nack(error.class.fate_class());
        tracing::warn!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, class = error.class.label(), attempt, reason = %error, "given up, the sender is told");
        match self.outlet.publish(output, interrupted).await {
            Ok(()) => Verdict::Done,
            Err(Unpublished::Interrupted) => Verdict::Returned,
            Err(Unpublished::Failed(error)) => self.park(raw, &error, attempt, interrupted).await,
        }
    }

    async fn park(
        &self,
        raw: &RawDelivery,
        error: &WorkError,
        attempt: u32,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        if attempt == 0 {
            self.worker_metrics.error(error);
        }
        let envelope = Envelope::new(&self.queue, raw, error, &self.key, attempt);
        tracing::warn!(worker = self.key, queue = self.queue, message_id = envelope.message_id, code = %error.code, attempt, reason = %error, "set aside: see `vumi parked list`");
        match self.outlet.park(&envelope, interrupted).await {
            Ok(()) => Verdict::Parked,
            Err(_) => Verdict::Returned,
        }
    }
}
