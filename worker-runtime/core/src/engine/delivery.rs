//! One delivered message on its way to a verdict: attempts, retries, giving up, parking (R3, R12, R15).
//!
//! A handler returns everything it causes, so a delivery has one owner and needs no counted handles: the future that
//! works on it ends with its [`Verdict`], and a future that is dropped has none, which leaves the message with the
//! broker.

mod ends;
mod retry;

use super::backoff::RetryPolicy;
use super::consumer::{Counters, Seat};
use super::journal::{Exit, Replay, Takes, millis};
use super::labels::Labels;
use super::lanes::Lane;
use super::outlet::{Cause, Outlet, Unpublished};
use super::partitions::{Layout, Plan};
use super::sending::{Alone, Before, Case, Next, Sending, Suspect, Trail, Trial};
use crate::broker::{Acker, RawDelivery, Wanted};
use crate::codes;
use crate::error::{Disposition, ErrorClass, WorkError};
use crate::message::{
    Event, EventType, FailureCode, FailureMessage, FateState, Message, UserMessage,
};
use crate::middleware::Chain;
use crate::parking::Envelope;
use crate::state::journal::{About, Due, Reason};
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use crate::worker::{Input, Output, Worker};
use ends::happened;
use futures::FutureExt;
use retry::{Made, Stay, reason_of};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port};

/// Between two looks at whether a batch is still paused.
const LOOK: Duration = Duration::from_millis(250);
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
    /// Where hops are noted, if there is a state store.
    pub(super) trail: Option<Arc<Trail>>,
    /// Judges messages that may have killed a process, if there is a state store.
    pub(super) trial: Option<Trial>,
    /// Whether failures of a transport are published for Vumi's failure worker as well.
    pub(super) legacy_failures: bool,
    /// The way into the journal; none where there is no store.
    pub(super) exit: Option<Arc<Exit>>,
}

/// What an attempt came to.
enum Tried {
    /// Everything it caused is confirmed.
    Done,
    /// Nothing: its batch is paused.
    Held(Labels),
}

impl Desk {
    /// Whether a message comes again, from the broker or out of the journal in another term than this one: then whatever it
    /// has not caused yet is caused by that one.
    fn is_lost(&self, generation: u64, term: Option<u64>) -> bool {
        if let (Some(term), Some(exit)) = (term, &self.exit) {
            return exit.term() != term;
        }
        let live = self.acker.as_ref();
        self.generation.load(Ordering::Relaxed) != generation
            || live.is_some_and(|acker| acker.generation() != Some(generation))
    }

    /// The same, for those who send what it causes; none before there is a consumer.
    fn wanted(&self, generation: u64, term: Option<u64>) -> Option<Wanted> {
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
        } = delivery;
        let _seat = seat;
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
        if let Some(layout) = &self.layout {
            // What comes out of the journal has no generation of its own: it is of the one that lives.
            let generation = match (term, &self.acker) {
                (Some(_), Some(acker)) => acker.generation(),
                _ => Some(raw.generation),
            };
            let Some(generation) = generation else {
                return Verdict::Returned;
            };
            if !layout.agreed(generation, &interrupted).await {
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

    /// Attempts, until one of them is the last.
    async fn attempts(
        &self,
        raw: &RawDelivery,
        message: Message,
        (lane, term): (Lane, Option<u64>),
        past: About,
        suspect: &mut Option<Suspect>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let (mut case, replayed) = (None, term.is_some());
        if let Some(sending) = &self.sending {
            let again = raw.redelivered || replayed;
            let begun = sending.case((message.id(), &raw.body), again, self.lasting, &self.halt);
            let begun = match suspect {
                Some(suspect) => Alone::aside(suspect.alone(), begun).await,
                None => begun.await,
            };
            let Some(mut begun) = begun else {
                return Verdict::Returned;
            };
            begun.alone = suspect.as_mut().and_then(|s| s.alone().take());
            case = Some(begun);
        }
        let wanted = self.wanted(raw.generation, term);
        let mut decoded = Some(message);
        let started = Instant::now();
        // From here on by a clock that nobody steps.
        let aged = Duration::from_millis(millis(crate::clock::now()).saturating_sub(past.since));
        let mut attempt = past.attempts;
        let mut made = Made {
            counted: past.counted,
            bugs: 0,
        };
        loop {
            attempt += 1;
            let message = match decoded.take() {
                Some(message) => message,
                None => match Message::decode(self.port.flow, &raw.body) {
                    Ok(message) => message,
                    Err(error) => {
                        return self
                            .park(raw, &error.into(), attempt, case, interrupted)
                            .await;
                    }
                },
            };
            let cause = Cause {
                interrupted,
                wanted: wanted.as_ref(),
            };
            let tried = self.attempt(message, attempt, &mut case, cause).await;
            if let Some(case) = &mut case {
                case.alone = None;
            }
            // The process lives: whatever becomes of the message, it was not this attempt that killed.
            if let (Some(trial), Some(suspect)) = (&self.trial, suspect.take()) {
                trial.acquit(suspect).await;
            }
            let error = match tried {
                Ok(Tried::Done) => return Verdict::Done,
                Ok(Tried::Held(labels)) => {
                    if let Some(group) = self.group_to_hold_in(&labels) {
                        let about = About {
                            reason: Reason::Held,
                            ..past.clone()
                        };
                        return Verdict::Held(Box::new((about, group)));
                    }
                    attempt -= 1;
                    if !self.while_paused(&labels, interrupted).await {
                        return Verdict::Returned;
                    }
                    continue;
                }
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => error,
            };
            self.worker_metrics.error(&error);
            let waited = case.as_ref().map_or(Duration::ZERO, |case| case.waited);
            let stay = Stay {
                held: started.elapsed().saturating_sub(waited),
                age: aged + started.elapsed(),
                replayed,
                lane,
            };
            made.note(&error);
            let wait_in_journal = |reason, wait| {
                let about = About {
                    reason,
                    attempts: attempt,
                    counted: made.counted,
                    code: error.code.name.to_owned(),
                    text: error.text.clone(),
                    ..past.clone()
                };
                Verdict::Waits(Box::new((about, Due::After(wait))))
            };
            let mut next = self.next(&error, attempt, made, &stay);
            if let (Some(sending), Some(case)) = (&self.sending, &case) {
                next = sending.next(case, &error, next);
            }
            if let Next::Again(wait) | Next::Later(_, wait) = &next {
                let put_back = self.put_back(raw, &mut case, &error, &next, interrupted);
                if let Err(verdict) = put_back.await {
                    return verdict;
                }
                self.note_retry(raw, &error, attempt, *wait);
            }
            match next {
                Next::Later(reason, wait) => return wait_in_journal(reason, wait),
                Next::Again(wait) => {
                    let until = Instant::now() + wait;
                    let leaves = tokio::select! {
                        leaves = self.sleep(lane, wait) => leaves,
                        () = self.halt.cancelled() => return Verdict::Returned,
                    };
                    if leaves && !interrupted() {
                        let left = until.saturating_duration_since(Instant::now());
                        return wait_in_journal(reason_of(&error), left);
                    }
                    if interrupted() {
                        return Verdict::Returned;
                    }
                }
                Next::Park(error) => {
                    return self.park(raw, &error, attempt, case, interrupted).await;
                }
                Next::GiveUp(error) => {
                    return self.give_up(raw, error, attempt, case, interrupted).await;
                }
                Next::Wait(error) => {
                    return self.wait(raw, error, attempt, case, interrupted).await;
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
        case: &mut Option<Case>,
        cause: Cause<'_>,
    ) -> Result<Tried, Unpublished> {
        let interrupted = cause.interrupted;
        let handle = async {
            let hop = self
                .trail
                .as_ref()
                .and_then(|_| Trail::hop(self.port.flow, &message));
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
            let sending = self.sending.as_ref().zip(case.as_mut());
            let Some((sending, case)) = sending else {
                let outputs = self.worker.handle(input).await?;
                outputs.iter().for_each(|output| self.note_nack(output));
                let noted = self.hop_to_note(hop).await;
                let happened = noted.is_some().then(|| happened(&outputs));
                self.outlet.publish_all(outputs, cause).await?;
                if let Some(((trail, place, hop), happened)) = noted.zip(happened) {
                    trail.note(place, hop, happened);
                }
                return Ok(Tried::Done);
            };
            let worker = self.worker.as_ref();
            match sending
                .before(case, worker, &input, &self.halt, interrupted)
                .await?
            {
                Before::Nothing | Before::Again => Ok(Tried::Done),
                Before::Hold => Ok(Tried::Held(Labels::of(&input.message))),
                Before::Send => {
                    let failed = self.legacy_failures.then(|| input.message.clone());
                    let outputs = worker.handle(input).await?;
                    for output in &outputs {
                        self.note_nack(output);
                        self.legacy_failure(failed.as_ref(), output).await;
                    }
                    sending.after(case, outputs, interrupted).await?;
                    Ok(Tried::Done)
                }
            }
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

    /// Where messages with these labels are held; none if the journal cannot have them.
    fn group_to_hold_in(&self, labels: &Labels) -> Option<String> {
        let exit = self.exit.as_ref()?;
        (exit.takes() != Takes::Never).then(|| labels.group())?
    }

    /// Waits here until a batch is not paused any more; false when told to stop.
    async fn while_paused(&self, labels: &Labels, interrupted: &(dyn Fn() -> bool + Sync)) -> bool {
        let Some(sending) = &self.sending else {
            return true;
        };
        while sending.is_paused(labels).await {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.halt.cancelled() => return false,
            }
            if interrupted() {
                return false;
            }
        }
        !interrupted()
    }
}
