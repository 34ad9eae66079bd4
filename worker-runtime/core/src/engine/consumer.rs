//! Consumes one queue: window, lanes, verdicts, acknowledgements. One task drives every message of the queue, so that a
//! batch of confirmations costs one wake-up.

use super::acks::{Ack, Acks};
use super::backlog::Backlog;
use super::delivery::{Delivery, Desk, Finished, Verdict};
use super::lanes::{Lane, LaneChooser, Lanes};
use crate::broker::{Access, Acker, Broker, ConsumerState, QueueSpec, RawDelivery, Subscribe};
use crate::message::{Message, Timestamp};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use vumi_api::OrderingMode;

/// Unacknowledged messages per consumed queue.
pub(super) const PREFETCH: u16 = 200;
/// Finished messages wait so long for others before they are acknowledged together.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Gauges are refreshed, and the broker is doubted, so often.
const TICK: Duration = Duration::from_secs(1);
/// Without a delivery for so long while the queue holds messages, the channel is rebuilt (R9).
const DEAF: Duration = Duration::from_secs(20);
/// Asking the broker for a depth may keep the consumer from its messages for so long.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What a consumer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Work.
    Run,
    /// Take nothing new, finish what runs, then end.
    Drain,
}

/// Counters of one consumed queue, readable from outside.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) parked: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) retried: AtomicU64,
}

/// One consumer, seen from outside.
pub(super) struct Watched {
    pub(super) queue: String,
    pub(super) state: watch::Receiver<ConsumerState>,
    pub(super) paused: watch::Receiver<Option<String>>,
    pub(super) counters: Arc<Counters>,
    /// When its loop last turned, in milliseconds since the worker began.
    pub(super) turned: Arc<AtomicU64>,
    #[cfg(test)]
    pub(super) acker: Arc<dyn Acker>,
}

pub(super) struct Consumer {
    desk: Arc<Desk>,
    queue: String,
    label: String,
    backlog: Arc<Backlog>,
    broker: Arc<dyn Broker>,
    status: Arc<StatusDesk>,
    phase: watch::Receiver<Phase>,
    ordered: bool,
    chooser: LaneChooser,
    counters: Arc<Counters>,
    paused: watch::Sender<Option<String>>,
    turned: Arc<AtomicU64>,
    epoch: Instant,
    deliveries: tokio::sync::mpsc::Receiver<RawDelivery>,
    state: watch::Receiver<ConsumerState>,
    acker: Arc<dyn Acker>,

    acks: Acks,
    lanes: Lanes<Delivery>,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Finished since the last acknowledgement.
    unacknowledged: usize,
    ack_at: Option<Instant>,
    ack_buffer: Vec<Ack>,
    last_delivery: Instant,
    suspicion: u32,
    last_look: Instant,
    /// Take the age of the next delivery.
    sample_age: bool,
    sampled_age: f64,
}

/// What a consumer is made of.
pub(super) struct Parts {
    pub(super) desk: Arc<Desk>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) mode: OrderingMode,
    pub(super) queue: QueueSpec,
    /// Name of the queue in metrics and statuses.
    pub(super) label: String,
    pub(super) tag: String,
    pub(super) epoch: Instant,
}

impl Consumer {
    pub(super) async fn subscribe(parts: Parts) -> (Self, Watched) {
        let queue = parts.queue.name().to_owned();
        let subscription = parts
            .broker
            .subscribe(Subscribe {
                access: match parts.mode {
                    OrderingMode::None => Access::Shared,
                    OrderingMode::PerUser | OrderingMode::PerQueue => Access::Fenced,
                },
                queue: parts.queue,
                prefetch: PREFETCH,
                tag: parts.tag,
            })
            .await;
        let (paused, paused_receiver) = watch::channel(None);
        let counters = Arc::clone(&parts.desk.counters);
        let turned = Arc::new(AtomicU64::new(0));
        let watched = Watched {
            queue: parts.label.clone(),
            state: subscription.state.clone(),
            paused: paused_receiver,
            counters: Arc::clone(&counters),
            turned: Arc::clone(&turned),
            #[cfg(test)]
            acker: Arc::clone(&subscription.acker),
        };
        let consumer = Self {
            desk: parts.desk,
            queue,
            label: parts.label,
            backlog: parts.backlog,
            broker: parts.broker,
            status: parts.status,
            phase: parts.phase,
            ordered: parts.mode != OrderingMode::None,
            chooser: LaneChooser::new(parts.mode),
            counters,
            paused,
            turned,
            epoch: parts.epoch,
            deliveries: subscription.deliveries,
            state: subscription.state,
            acker: subscription.acker,
            acks: Acks::new(PREFETCH),
            lanes: Lanes::new(),
            running: FuturesUnordered::new(),
            unacknowledged: 0,
            ack_at: None,
            ack_buffer: Vec::new(),
            last_delivery: Instant::now(),
            suspicion: 0,
            last_look: Instant::now(),
            sample_age: true,
            sampled_age: 0.0,
        };
        (consumer, watched)
    }

    /// Runs until it is told to drain and has.
    pub(super) async fn run(mut self) {
        let mut pauses = self.backlog.watch();
        let mut phase = self.phase.clone();
        let mut state = self.state.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.note_state();
        loop {
            let draining = *phase.borrow_and_update() == Phase::Drain;
            if draining {
                self.let_others_have_it();
                let waiting = self.lanes.clear_waiting();
                self.count_returned(waiting);
                if self.running.is_empty() {
                    break;
                }
            }
            let pause = pauses.borrow_and_update().clone();
            let reason = self.backlog.reason(&pause, self.desk.port.flow);
            self.note_pause(reason);
            // Work of a lost generation may still run beside the new window, but not without bound.
            let room = self.running.len() < 2 * usize::from(PREFETCH);
            let reading = !draining && self.paused.borrow().is_none() && room;
            let ack_at = self.ack_at.or_else(|| self.acks.next_due());
            tokio::select! {
                biased;
                Ok(()) = phase.changed() => {}
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finish(finished);
                    while let Some(Some(finished)) = self.running.next().now_or_never() {
                        self.finish(finished);
                    }
                    self.acknowledge_if_many();
                }
                delivery = self.deliveries.recv(), if reading => {
                    let Some(delivery) = delivery else { break };
                    self.start(delivery);
                    // Everything that is there already, so that one wake-up serves a burst.
                    while self.running.len() < 2 * usize::from(PREFETCH) {
                        let Ok(delivery) = self.deliveries.try_recv() else { break };
                        self.start(delivery);
                    }
                }
                () = sleep_until(ack_at), if ack_at.is_some() => self.acknowledge(),
                Ok(()) = pauses.changed() => {}
                Ok(()) = state.changed() => self.note_state(),
                _ = tick.tick() => self.tick().await,
            }
        }
        self.acknowledge();
        self.desk.metrics.oldest.set(0.0);
        self.desk
            .worker_metrics
            .consumer_state(&self.label, "stopped");
        self.acker.close();
    }

    fn start(&mut self, raw: RawDelivery) {
        self.last_delivery = Instant::now();
        self.suspicion = 0;
        if self.desk.generation.load(Ordering::Relaxed) != raw.generation {
            self.next_generation(raw.generation);
        }
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        self.desk.metrics.received.inc();
        self.acks.open(raw.tag);
        let message = Message::decode(self.desk.port.flow, &raw.body).map_err(Into::into);
        if self.sample_age {
            self.sample_age = false;
            self.sampled_age = message.as_ref().map_or(0.0, age);
        }
        let lane = match &message {
            Ok(message) => self.chooser.lane(self.desk.port.flow, message),
            Err(_) => Lane::Free,
        };
        let delivery = Delivery {
            raw,
            message,
            lane,
            received: self.last_delivery,
        };
        if let Some(delivery) = self.lanes.enter(lane, delivery) {
            self.work(delivery);
        }
    }

    fn work(&mut self, delivery: Delivery) {
        self.running
            .push(Arc::clone(&self.desk).work(delivery).boxed());
    }

    /// The channel was lost: the broker will deliver everything unacknowledged again. What runs goes on, keeps its lane
    /// and so the order, and its verdict is ignored.
    fn next_generation(&mut self, generation: u64) {
        self.desk.generation.store(generation, Ordering::Relaxed);
        self.acks = Acks::new(PREFETCH);
        self.unacknowledged = 0;
        self.ack_at = None;
        let waiting = self.lanes.clear_waiting();
        self.count_returned(waiting);
    }

    fn count_returned(&self, count: usize) {
        if count > 0 {
            let count = count as u64;
            self.counters.returned.fetch_add(count, Ordering::Relaxed);
            self.desk.metrics.returned.inc_by(count);
        }
    }

    fn finish(&mut self, finished: Finished) {
        let now = Instant::now();
        if let Some(next) = self.lanes.leave(finished.lane) {
            self.work(next);
        }
        if finished.generation != self.desk.generation.load(Ordering::Relaxed) {
            self.count_returned(1);
            return;
        }
        let metrics = &self.desk.metrics;
        match finished.verdict {
            Verdict::Returned => {
                self.count_returned(1);
                return;
            }
            Verdict::Done => {
                self.counters.done.fetch_add(1, Ordering::Relaxed);
                metrics.done.inc();
            }
            Verdict::Parked => {
                self.counters.parked.fetch_add(1, Ordering::Relaxed);
                metrics.parked.inc();
            }
        }
        let took = now.duration_since(finished.received);
        metrics.handling.observe(took.as_secs_f64());
        self.backlog.finished(finished.verdict == Verdict::Parked);
        self.acks.finish(finished.tag, now);
        self.unacknowledged += 1;
        self.ack_at.get_or_insert(now + ACK_DELAY);
    }

    fn acknowledge_if_many(&mut self) {
        if self.unacknowledged >= usize::from(PREFETCH / 4) || self.running.is_empty() {
            self.acknowledge();
        }
    }

    fn acknowledge(&mut self) {
        self.unacknowledged = 0;
        self.ack_at = None;
        let mut buffer = std::mem::take(&mut self.ack_buffer);
        self.acks.due(Instant::now(), &mut buffer);
        let generation = self.desk.generation.load(Ordering::Relaxed);
        for ack in buffer.drain(..) {
            // False means that the channel was lost meanwhile: the message comes again.
            self.acker.ack(generation, ack.tag, ack.multiple);
        }
        self.ack_buffer = buffer;
    }

    fn note_pause(&mut self, reason: Option<String>) {
        if *self.paused.borrow() == reason {
            return;
        }
        let report = match &reason {
            Some(why) => {
                tracing::warn!(
                    worker = self.desk.key,
                    queue = self.label,
                    reason = why,
                    "paused"
                );
                StatusReport::new(self.component(), StatusLevel::Degraded, "paused", why)
            }
            None => {
                tracing::info!(worker = self.desk.key, queue = self.label, "goes on");
                StatusReport::new(
                    self.component(),
                    StatusLevel::Ok,
                    "consuming",
                    format!("reading {}", self.label),
                )
            }
        };
        self.status.report(report);
        if reason.is_some() {
            self.let_others_have_it();
        } else if !self.ordered {
            self.acker.resume();
        }
        self.paused.send_replace(reason);
        self.note_state();
    }

    /// Gives what was not begun to other consumers at once. Only where no order is kept: giving up a fence while
    /// something still runs behind it would let a successor overtake it.
    fn let_others_have_it(&mut self) {
        if self.ordered {
            return;
        }
        self.acker.cancel();
        while let Ok(raw) = self.deliveries.try_recv() {
            self.acker.requeue(raw.generation, raw.tag);
        }
    }

    fn component(&self) -> String {
        format!("queue {}", self.label)
    }

    fn note_state(&mut self) {
        let queue = &self.label;
        let state = self.state.borrow().clone();
        let paused = self.paused.borrow().is_some();
        let word = state_word(&state, paused);
        self.desk.worker_metrics.consumer_state(queue, word);
        let (level, reason, text) = match state {
            ConsumerState::Consuming if !paused => {
                (StatusLevel::Ok, "consuming", format!("reading {queue}"))
            }
            ConsumerState::Standby(holder) => {
                let holder = holder.unwrap_or_else(|| "another consumer".into());
                let text = format!("standing by: {queue} is read by {holder}");
                (StatusLevel::Ok, "standby", text)
            }
            ConsumerState::Refused(code, text) => {
                tracing::error!(
                    worker = self.desk.key,
                    queue,
                    code,
                    reason = text,
                    "the queue cannot be consumed"
                );
                (StatusLevel::Down, "refused", text)
            }
            // A pause has its own report, a missing connection is the component `broker`.
            ConsumerState::Consuming | ConsumerState::Connecting(_) | ConsumerState::Stopped => {
                return;
            }
        };
        self.status
            .report(StatusReport::new(self.component(), level, reason, text));
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        self.turned.store(
            now.duration_since(self.epoch).as_millis() as u64,
            Ordering::Relaxed,
        );
        let c = &self.counters;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let in_flight = load(&c.received) - load(&c.done) - load(&c.parked) - load(&c.returned);
        let metrics = &self.desk.metrics;
        metrics.in_flight.set(in_flight.cast_signed());
        let quiet = now.duration_since(self.last_delivery);
        metrics.oldest.set(if in_flight == 0 {
            0.0
        } else {
            self.sampled_age + quiet.as_secs_f64()
        });
        self.sample_age = true;
        if quiet >= DEAF && now.duration_since(self.last_look) >= DEAF / 2 {
            self.last_look = now;
            self.doubt().await;
        }
    }

    /// The four conditions of R9: a registered consumer with room, not paused, and messages that nobody takes, twice in
    /// a row.
    async fn doubt(&mut self) {
        let consuming = *self.state.borrow() == ConsumerState::Consuming;
        let room = self.running.is_empty() && self.paused.borrow().is_none();
        let depth = tokio::time::timeout(LOOK_LIMIT, self.broker.depth(&self.queue)).await;
        let waits = match depth {
            Ok(Ok(Some(depth))) => depth.ready > 0 && depth.consumers <= 1,
            _ => false,
        };
        if !(consuming && room && waits && self.deliveries.is_empty()) {
            self.suspicion = 0;
            return;
        }
        self.suspicion += 1;
        if self.suspicion >= 2 {
            tracing::warn!(
                worker = self.desk.key,
                queue = self.label,
                "the broker has messages and sends none: rebuilding the channel"
            );
            self.desk.metrics.rebuilt.inc();
            self.acker.rebuild();
            self.suspicion = 0;
        }
    }
}

/// One word for a consumer's state.
pub(super) fn state_word(state: &ConsumerState, paused: bool) -> &'static str {
    match state {
        ConsumerState::Connecting(_) => "connecting",
        ConsumerState::Consuming | ConsumerState::Stopped if paused => "paused",
        ConsumerState::Consuming => "consuming",
        ConsumerState::Standby(_) => "standby",
        ConsumerState::Refused(..) => "refused",
        ConsumerState::Stopped => "stopped",
    }
}

fn age(message: &Message) -> f64 {
    let written = match message {
        Message::User(m) => m.field("timestamp"),
        Message::Event(e) => e.field("timestamp"),
    };
    let written = written
        .and_then(|t| t.as_str())
        .and_then(|t| t.parse::<Timestamp>().ok());
    written.map_or(0.0, |t| (Timestamp::now().epoch() - t.epoch()).max(0.0))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Counters {
    pub(super) fn add_to(&self, counts: &mut super::Counts) {
        // Read in this order, so that a message in motion is counted as in flight rather than lost.
        let load = |n: &AtomicU64| n.load(Ordering::Acquire);
        let (done, parked, returned) = (load(&self.done), load(&self.parked), load(&self.returned));
        let received = load(&self.received);
        counts.done += done;
        counts.parked += parked;
        counts.returned += returned;
        counts.received += received;
        counts.in_flight += received - done - parked - returned;
        counts.retried += load(&self.retried);
    }
}
