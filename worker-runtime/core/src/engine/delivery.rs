//! One delivered message on its way to a verdict: attempts, retries, giving up, parking (R3, R12, R15).
//!
//! A handler returns everything it causes, so a delivery has one owner and needs no counted handles: the future that
//! works on it ends with its [`Verdict`], and a future that is dropped has none, which leaves the message with the
//! broker.

mod attempts;
mod ends;
mod retry;

use super::backoff::RetryPolicy;
use super::consumer::{Counters, Seat};
use super::forwarded::{Forwarded, Passing};
use super::journal::{Exit, Replay, Takes, millis};
use super::labels::Labels;
use super::lanes::Lane;
use super::outlet::{Cause, Outlet, Unpublished};
use super::partitions::{Layout, Plan};
use super::sending::{AtWork, Before, Case, Next, Sending, Suspect, Trail, Trial};
use crate::broker::{Acker, RawDelivery, Wanted};
use crate::codes;
use crate::error::{Disposition, ErrorClass, WorkError};
use crate::message::{
    Event, EventType, FailureCode, FailureMessage, FateState, MAX_BODY, Message, UserMessage,
};
use crate::middleware::Chain;
use crate::parking::Envelope;
use crate::state::journal::{About, Due, Reason};
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use crate::worker::{Input, Output, Worker};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port};

/// A message that a quorum queue delivered so often is parked before the broker drops it (R1).
const QUORUM_DELIVERIES: i64 = 10;

/// A message taken from the broker, or out of the journal.
#[must_use = "a delivery that is dropped is neither done nor returned"]
pub(super) struct Delivery {
    pub(super) raw: RawDelivery,
    /// Decoded, unless it is not a message at all.
    pub(super) message: Result<Message, WorkError>,
    pub(super) lane: Lane,
    pub(super) received: Instant,
    /// Where it waited before; none for what the broker delivered.
    pub(super) replay: Option<Box<Replay>>,
    /// Its place among those of its batch in the window, where these are counted.
    pub(super) seat: Option<Seat>,
    /// Of what another replica forwarded.
    pub(super) passing: Option<Passing>,
}

impl Delivery {
    /// What the journal is to know of it if it must wait.
    pub(super) fn about(&self, reason: Reason) -> About {
        match &self.replay {
            Some(replay) => About {
                reason,
                ..replay.about.clone()
            },
            None => about(&self.raw, reason, self.received),
        }
    }
}

/// What is known of a message before its first attempt.
fn about(raw: &RawDelivery, reason: Reason, received: Instant) -> About {
    let born = crate::clock::now() - received.elapsed();
    About {
        reason,
        since: millis(born),
        attempts: 0,
        counted: 0,
        code: String::new(),
        text: String::new(),
        routing_key: raw.routing_key.clone(),
        amqp_message_id: raw.message_id.clone(),
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Everything it caused is confirmed.
    Done,
    /// Set aside; the parked copy is confirmed.
    Parked,
    /// Not handled; the broker keeps it, or the journal.
    Returned,
    /// To be tried again, later than it may stay here: it waits in the journal.
    Waits(Box<(About, Due)>),
    /// Its batch is paused: it waits in this group until that ends.
    Held(Box<(About, String)>),
}

/// A delivery with its verdict.
pub(super) struct Finished {
    pub(super) raw: RawDelivery,
    pub(super) replay: Option<Box<Replay>>,
    pub(super) lane: Lane,
    pub(super) received: Instant,
    pub(super) verdict: Verdict,
}

impl Finished {
    /// What was done before it came again.
    pub(super) fn before(
        raw: RawDelivery,
        replay: Option<Box<Replay>>,
        lane: Lane,
        received: Instant,
    ) -> Self {
        Self {
            raw,
            replay,
            lane,
            received,
            verdict: Verdict::Done,
        }
    }
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
    /// Generation of what was delivered last.
    pub(super) generation: Arc<AtomicU64>,
    /// Knows at once when a generation ends; none before there is a consumer.
    pub(super) acker: Option<Arc<dyn Acker>>,
    /// Fires when nothing is to be tried again.
    pub(super) halt: CancellationToken,
    /// Where a transport takes messages for its peer.
    pub(super) sending: Option<Arc<Sending>>,
    /// Whether the queue outlives this process, and its messages with it.
    pub(super) lasting: bool,
    /// What other replicas forward to this one, if that has an order among what it reads itself.
    pub(super) forwarded: Option<Arc<Forwarded>>,
    /// Where hops are noted, if there is a state store.
    pub(super) trail: Option<Arc<Trail>>,
    /// Judges messages that may have killed a process, if there is a state store.
    pub(super) trial: Option<Trial>,
    /// Whether failures of a transport are published for Vumi's failure worker as well.
    pub(super) legacy_failures: bool,
    /// The way into the journal; none where there is no store.
    pub(super) exit: Option<Arc<Exit>>,
}

impl Desk {
    /// Whether a message comes again, from the broker or out of the journal in another term than this one: then whatever it
    /// has not caused yet is caused by that one. What came by a queue that ends with its channel never comes again.
    fn is_lost(&self, generation: u64, term: Option<u64>) -> bool {
        if !self.lasting {
            return false;
        }
        if let (Some(term), Some(exit)) = (term, &self.exit) {
            return exit.term() != term;
        }
        let live = self.acker.as_ref();
        self.generation.load(Ordering::Relaxed) != generation
            || live.is_some_and(|acker| acker.generation() != Some(generation))
    }

    /// The same, for those who send what it causes; none before there is a consumer, and for what never comes again.
    fn wanted(&self, generation: u64, term: Option<u64>) -> Option<Wanted> {
        if !self.lasting {
            return None;
        }
        if let (Some(term), Some(exit)) = (term, self.exit.clone()) {
            return Some(Arc::new(move || exit.term() == term));
        }
        let acker = self.acker.clone()?;
        Some(Arc::new(move || acker.generation() == Some(generation)))
    }

    /// Works on a delivery until it has a verdict.
    pub(super) async fn work(self: Arc<Self>, delivery: Delivery) -> Finished {
        let Delivery {
            raw,
            message,
            lane,
            received,
            replay,
            seat,
            passing,
        } = delivery;
        let (_seat, _passing) = (seat, passing);
        let past = match &replay {
            Some(replay) => replay.about.clone(),
            None => about(&raw, Reason::Backoff, received),
        };
        let term = replay.as_ref().map(|replay| replay.term);
        let verdict = self.judge(&raw, message, lane, past, term).await;
        Finished {
            raw,
            replay,
            lane,
            received,
            verdict,
        }
    }

    /// `past` is what happened to it before, `term` that of the journal if it came out of it.
    async fn judge(
        &self,
        raw: &RawDelivery,
        message: Result<Message, WorkError>,
        lane: Lane,
        past: About,
        term: Option<u64>,
    ) -> Verdict {
        let lost = || self.is_lost(raw.generation, term);
        let interrupted = || self.halt.is_cancelled() || lost();
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                return self
                    .park(raw, &error, past.attempts, None, &interrupted)
                    .await;
            }
        };
        if raw.delivery_count.is_some_and(|n| n >= QUORUM_DELIVERIES) {
            let error = WorkError::new(
                ErrorClass::Config,
                codes::BROKER_QUEUE_TYPE,
                "it comes from a quorum queue, which drops messages after a number of deliveries",
            );
            return self.park(raw, &error, 0, None, &interrupted).await;
        }
        if interrupted() {
            return Verdict::Returned;
        }
        // What comes out of the journal has no generation of its own: it is of the one that lives.
        let generation = match (term, &self.acker) {
            (Some(_), Some(acker)) => acker.generation(),
            _ => Some(raw.generation),
        };
        if let Some(layout) = &self.layout {
            let Some(generation) = generation else {
                return Verdict::Returned;
            };
            if !layout.agreed(generation, &interrupted).await {
                return Verdict::Returned;
            }
        }
        if let Some(forwarded) = self.forwarded.as_ref().filter(|_| self.lasting) {
            let Some(generation) = generation else {
                return Verdict::Returned;
            };
            if !forwarded.come_first(generation, lane, &interrupted).await {
                return Verdict::Returned;
            }
        }
        if let Duty::Forward(plan) = &self.duty {
            let queue = plan.target(&message, lane);
            if plan.classes().is_some()
                && let Some(verdict) = self.taken_over(&message, &interrupted).await
            {
                return verdict;
            }
            let wanted = self.wanted(raw.generation, term);
            let cause = Cause {
                interrupted: &interrupted,
                wanted: wanted.as_ref(),
            };
            return self.pass_on(raw, &queue, cause).await;
        }
        let mut suspect = match &self.trial {
            Some(trial) if raw.redelivered => match trial.begin(message.id(), &interrupted).await {
                Ok(suspect) => Some(suspect),
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => {
                    return self.park(raw, &error, 0, None, &interrupted).await;
                }
            },
            _ => None,
        };
        let verdict = if suspect.as_ref().is_some_and(|suspect| suspect.is_guilty()) {
            let error = WorkError::new(
                ErrorClass::Bug,
                codes::BUG_CRASH_LOOP,
                "the process died again and again while it worked on this message",
            );
            self.park(raw, &error, 0, None, &interrupted).await
        } else {
            let place = (lane, term);
            self.attempts(raw, message, place, past, &mut suspect, &interrupted)
                .await
        };
        if let (Some(trial), Some(suspect)) = (&self.trial, suspect) {
            trial.acquit(suspect).await;
        }
        verdict
    }

    /// The intake opens the row of a message that it passes on to its class. A verdict if it does not go on.
    async fn taken_over(
        &self,
        message: &Message,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Option<Verdict> {
        if Labels::of(message).is_unknown_class() {
            self.worker_metrics.unknown_class();
        }
        let (Some(sending), Message::User(message)) = (&self.sending, message) else {
            return None;
        };
        match sending.taken_over(message, interrupted).await {
            Err(Unpublished::Interrupted) => Some(Verdict::Returned),
            // Whoever sends it says what is wrong with it.
            Ok(()) | Err(Unpublished::Failed(_)) => None,
        }
    }
}
