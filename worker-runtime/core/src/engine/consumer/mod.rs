//! Consumes one queue: window, lanes, verdicts, acknowledgements. One task drives every message of the queue, so that a
//! batch of confirmations costs one wake-up.

mod known;
mod leaving;
mod moving;
mod pausing;
mod seats;
mod seen;
mod standing;
mod verdicts;
mod window;

use super::acks::{Ack, Acks};
use super::backlog::Backlog;
use super::delivery::{Delivery, Desk, Finished};
use super::forwarded::Replies;
use super::journal::{self, Event, Hold, LaneJournal};
use super::lanes::{Lane, LaneChooser, Lanes};
use crate::broker::{Access, Acker, Broker, ConsumerState, QueueSpec, RawDelivery, Subscribe};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::Message;
use crate::status::StatusDesk;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use known::Known;
use leaving::Leaving;
use seats::Seats;
use standing::Standing;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use vumi_api::{Flow, OrderingMode};
use window::Window;

pub(super) use seats::Seat;
pub(super) use seen::{Counters, Watched};
pub(super) use standing::state_word;

/// Unacknowledged messages per consumed queue.
pub(super) const PREFETCH: u16 = 200;
/// Gauges are refreshed, and the broker is doubted, so often.
const TICK: Duration = Duration::from_secs(1);

/// What a consumer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Work.
    Run,
    /// Take nothing new, finish what runs, then end.
    Drain,
}

/// What a consumer is made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) desk: Arc<Desk>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) mode: OrderingMode,
    pub(super) queue: QueueSpec,
    /// Unacknowledged messages at most.
    pub(super) prefetch: u16,
    /// Where it tells the age of its oldest message, if it shares a label with others: then somebody else speaks for all.
    pub(super) oldest: Option<Arc<AtomicU64>>,
    /// Name of the queue in metrics and statuses.
    pub(super) label: String,
    pub(super) tag: String,
    pub(super) epoch: Instant,
    /// Where messages wait that must leave the window; none where there is no store.
    pub(super) journal: Option<journal::Parts>,
    /// Says which messages wait although nothing failed.
    pub(super) hold: Option<Arc<dyn Hold>>,
    /// The queue is this one.
    pub(super) replies: Option<Arc<Replies>>,
}

pub(super) struct Consumer {
    desk: Arc<Desk>,
    backlog: Arc<Backlog>,
    phase: watch::Receiver<Phase>,
    ordered: bool,
    /// Its queue is this replica's own and ends with it: nobody else can have what is in it.
    own: Option<Arc<Replies>>,
    prefetch: u16,
    mode: OrderingMode,
    chooser: LaneChooser,
    counters: Arc<Counters>,
    paused: watch::Sender<Option<String>>,
    paused_at: Option<Instant>,
    /// What it held was given back during a pause.
    released: bool,
    turned: Arc<AtomicU64>,
    epoch: Instant,
    deliveries: tokio::sync::mpsc::Receiver<RawDelivery>,
    state: watch::Receiver<ConsumerState>,
    acker: Arc<dyn Acker>,
    standing: Standing,
    leaving: Leaving,
    journal: Option<LaneJournal>,
    hold: Option<Arc<dyn Hold>>,
    /// The first delivery of a generation, until the lanes of the journal are known.
    held_back: Option<RawDelivery>,
    /// For which generation they are.
    known_for: Option<u64>,

    acks: Acks,
    window: Window,
    known: Known,
    lanes: Lanes<Delivery>,
    seats: Arc<Seats>,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Finished since the last acknowledgement.
    unacknowledged: usize,
    ack_at: Option<Instant>,
    ack_buffer: Vec<Ack>,
}

impl Consumer {
    pub(super) async fn subscribe(parts: Parts) -> (Self, Watched) {
        let queue = parts.queue.name().to_owned();
        let own = parts.replies;
        let halt = parts.desk.halt.clone();
        let journal = parts
            .journal
            .map(|journal| LaneJournal::new(journal, queue.clone(), halt));
        let subscription = parts
            .broker
            .subscribe(Subscribe {
                access: match parts.mode {
                    OrderingMode::PerUser | OrderingMode::PerQueue if own.is_none() => {
                        Access::Fenced
                    }
                    _ => Access::Shared,
                },
                queue: parts.queue,
                prefetch: parts.prefetch,
                tag: parts.tag,
            })
            .await;
        if let Some(own) = &own {
            own.read_by(Arc::clone(&subscription.acker));
        }
        let exit = journal.as_ref().map(|journal| Arc::clone(journal.exit()));
        let desk = Arc::new(Desk {
            exit: exit.or_else(|| parts.desk.exit.clone()),
            acker: Some(Arc::clone(&subscription.acker)),
            forwarded: parts.desk.forwarded.as_ref().map(|f| f.of_another()),
            ..(*parts.desk).clone()
        });
        let has_rows = desk.sending.as_ref().is_some_and(|s| s.has_rows());
        let alone = !has_rows && parts.mode != OrderingMode::None;
        let (paused, paused_receiver) = watch::channel(None);
        let counters = Arc::clone(&desk.counters);
        let turned = Arc::new(AtomicU64::new(0));
        let watched = Watched {
            metrics: desk.metrics.clone(),
            queue: parts.label.clone(),
            state: subscription.state.clone(),
            paused: paused_receiver,
            counters: Arc::clone(&counters),
            turned: Arc::clone(&turned),
            own_backlog: None,
            leftover: None,
            here: None,
            #[cfg(test)]
            acker: Some(Arc::clone(&subscription.acker)),
        };
        let consumer = Self {
            leaving: Leaving::new(own.clone()),
            standing: Standing::new(
                Arc::clone(&desk),
                parts.broker,
                parts.status,
                queue,
                parts.label,
                parts.oldest,
            ),
            prefetch: parts.prefetch,
            desk,
            backlog: parts.backlog,
            phase: parts.phase,
            ordered: parts.mode != OrderingMode::None,
            own,
            mode: parts.mode,
            journal,
            hold: parts.hold,
            held_back: None,
            known_for: None,
            chooser: LaneChooser::new(parts.mode),
            counters,
            paused,
            paused_at: None,
            released: false,
            turned,
            epoch: parts.epoch,
            deliveries: subscription.deliveries,
            state: subscription.state,
            acker: subscription.acker,
            acks: Acks::new(parts.prefetch),
            window: Window::default(),
            known: Known::new(parts.prefetch, alone),
            lanes: Lanes::new(),
            seats: Arc::default(),
            running: FuturesUnordered::new(),
            unacknowledged: 0,
            ack_at: None,
            ack_buffer: Vec::new(),
        };
        (consumer, watched)
    }

    /// Through which it gives back what it holds, or begins anew.
    pub(super) fn acker(&self) -> Arc<dyn Acker> {
        Arc::clone(&self.acker)
    }

    /// Runs until it is told to drain and has.
    pub(super) async fn run(mut self) {
        let mut pauses = self.backlog.watch();
        let mut phase = self.phase.clone();
        let mut state = self.state.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        state.mark_unchanged();
        self.note_state();
        self.note_fence();
        loop {
            let turned = self.epoch.elapsed().as_millis();
            self.turned
                .store(turned.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
            let draining = *phase.borrow_and_update() == Phase::Drain;
            if draining && self.own.is_some() {
                self.leave_if_empty();
                if self.has_nothing_left() {
                    break;
                }
            } else if draining {
                self.let_others_have_it();
                let waiting = self.lanes.clear_waiting();
                self.return_all(waiting);
                self.stay_in_queue();
                if self.running.is_empty()
                    && self.journal.as_ref().is_none_or(LaneJournal::is_quiet)
                {
                    break;
                }
            }
            let pause = pauses.borrow_and_update().clone();
            self.note_pause(self.backlog.reason(&pause, self.desk.port.flow));
            self.turn_journal(draining);
            let reading = match draining {
                true => self.own.is_some(),
                false => self.paused_at.is_none(),
            };
            let reading = reading && self.has_room();
            let leaving = self.is_leaving(draining);
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
                    while self.has_room() {
                        let Ok(delivery) = self.deliveries.try_recv() else { break };
                        self.start(delivery);
                    }
                }
                () = sleep_until(ack_at), if ack_at.is_some() => self.acknowledge(),
                Ok(()) = pauses.changed() => {}
                Ok(()) = state.changed() => {
                    self.note_state();
                    self.note_fence();
                }
                () = self.leaving.send(), if leaving => {}
                event = next_event(&mut self.journal) => self.journal_event(event),
                deaf = self.standing.deafness() => if deaf {
                    self.acker.rebuild();
                },
                _ = tick.tick() => self.tick(),
            }
        }
        self.acknowledge();
        self.standing.ended();
        if let Some(journal) = &mut self.journal {
            journal.close().await;
        }
    }

    /// Whether another delivery may be begun.
    fn has_room(&self) -> bool {
        let open = self.journal.as_ref().is_none_or(LaneJournal::is_open);
        let running = 2 * usize::from(self.prefetch);
        open && self.held_back.is_none() && self.running.len() < running && self.has_place()
    }

    fn start(&mut self, raw: RawDelivery) {
        let received = Instant::now();
        self.standing.delivered(received);
        if self.desk.generation.load(Ordering::Relaxed) != raw.generation {
            self.next_generation(raw.generation);
            if self.journal.as_ref().is_some_and(|j| !j.is_open()) {
                self.held_back = Some(raw);
                return;
            }
        }
        self.acks.open(raw.tag);
        self.window.open(raw.tag, &raw.body);
        // What comes again to a queue of our own is in hand, or was: it went to nobody else.
        let own = self.own.clone();
        if own
            .as_ref()
            .is_some_and(|own| own.is_mark(&raw) || raw.redelivered)
        {
            // No message, or not another one, and not counted as one.
            self.finished_with(raw.tag, received);
            return;
        }
        self.counters.received.fetch_add(1, Ordering::SeqCst);
        self.desk.metrics.received.inc();
        self.known.arrives(&raw);
        if self.known.comes_again(&raw, None) {
            // It has its verdict already, and no place in its lane.
            self.finish(Finished::before(raw, None, Lane::Free, received));
            return;
        }
        let message = decode(self.desk.port.flow, &raw.body);
        let lane = match &message {
            Ok(message) => self.chooser.lane(self.desk.port.flow, message),
            Err(_) => Lane::Free,
        };
        let passing = own.map(|own| {
            let id = message.as_ref().map(|message| message.id().to_owned());
            own.arrives(lane, id.unwrap_or_default())
        });
        let delivery = Delivery {
            passing,
            raw,
            message,
            lane,
            received,
            replay: None,
            seat: None,
        };
        self.place(delivery);
    }

    fn work(&mut self, delivery: Delivery) {
        // It waited in its lane behind what it repeats, and that was finished after all.
        let replay = delivery.replay.as_deref();
        if self.known.comes_again(&delivery.raw, replay) {
            let Delivery {
                raw,
                replay,
                lane,
                received,
                ..
            } = delivery;
            let again = Finished::before(raw, replay, lane, received);
            self.running.push(std::future::ready(again).boxed());
            return;
        }
        self.running
            .push(Arc::clone(&self.desk).work(delivery).boxed());
    }

    /// The channel was lost: the broker will deliver everything unacknowledged again. What runs goes on, keeps its lane
    /// and so the order, and its verdict is ignored. Nobody brings back what came by a queue of our own: all of it goes on.
    fn next_generation(&mut self, generation: u64) {
        self.desk.generation.store(generation, Ordering::Relaxed);
        // Somebody may have published a message again that was finished before.
        for body in self.window.unfinished(|tag| self.acks.is_open(tag)) {
            self.known.forget(body);
        }
        self.known.next_life(generation);
        self.acks = Acks::new(self.prefetch);
        self.window = Window::default();
        self.unacknowledged = 0;
        self.ack_at = None;
        self.held_back = None;
        self.next_life_of_journal(generation);
        if self.own.is_none() {
            let waiting = self.lanes.clear_waiting();
            self.return_all(waiting);
        }
    }

    fn note_state(&mut self) {
        let state = self.state.borrow().clone();
        self.standing.state(&state, self.paused_at.is_some());
    }

    fn tick(&mut self) {
        self.give_back_in_a_long_pause();
        if let Some(journal) = &mut self.journal {
            journal.tick(Instant::now());
        }
        let mut counts = super::Counts::default();
        self.counters.add_to(&mut counts);
        let busy = self.running.len() >= usize::from(self.prefetch) || self.paused_at.is_some();
        let waits = !self.deliveries.is_empty();
        let stands_by = matches!(*self.state.borrow(), ConsumerState::Standby(_));
        self.standing.tick(
            self.running.len(),
            counts.in_flight,
            self.window.age(self.desk.port.flow),
            (waits, !stands_by),
        );
        let consuming = *self.state.borrow() == ConsumerState::Consuming;
        let open = self.journal.as_ref().is_none_or(LaneJournal::is_open);
        if consuming && open && !busy && !waits {
            self.standing.doubt();
        }
    }
}

/// However it ends, everything is back in the queue before the broker learns that nobody reads: else a successor could
/// get what comes after it first.
impl Drop for Consumer {
    fn drop(&mut self) {
        self.acker.close();
    }
}

/// Decodes a body; poison that makes the decoder panic is an error like another (R15).
fn decode(flow: Flow, body: &[u8]) -> Result<Message, WorkError> {
    std::panic::catch_unwind(AssertUnwindSafe(|| Message::decode(flow, body)))
        .map_err(|_| {
            WorkError::new(
                ErrorClass::Bug,
                codes::BUG_PANIC,
                "reading it panicked; the process's output shows where",
            )
        })?
        .map_err(Into::into)
}

async fn next_event(journal: &mut Option<LaneJournal>) -> Event {
    match journal {
        Some(journal) => journal.event().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
