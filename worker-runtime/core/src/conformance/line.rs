//! One consumer of a worker under test. It lives through outages that a case makes, as a consumer of a real broker does:
//! its channel is lost, and comes back under a new generation.

use crate::broker::{Acker, Broker, ConsumerState, RawDelivery, Subscribe, Subscription};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Generations between two outages: more than any case makes.
const LIFE: u64 = 1 << 32;

/// What a worker acknowledged, over all its consumers.
#[derive(Default)]
pub(super) struct Acks {
    pub(super) swallowed: AtomicBool,
    pub(super) passed: AtomicU64,
    pub(super) tried: AtomicU64,
}

pub(super) struct Line {
    acks: Arc<Acks>,
    now: Mutex<Now>,
    closed: CancellationToken,
}

/// The consumer between two outages.
#[derive(Default)]
struct Now {
    life: u64,
    acker: Option<Arc<dyn Acker>>,
    cancelled: bool,
    /// The broker ended it, and the worker does not know.
    ended: bool,
    /// The generation that the worker still believes in then, if it had one.
    believed: Option<u64>,
    /// It is over, however soon the broker is there again.
    over: CancellationToken,
}

impl Line {
    /// Starts a consumer of a broker, at home there, that is there while `away` is false.
    pub(super) fn open(
        (home, broker): (&Handle, Arc<dyn Broker>),
        away: watch::Receiver<bool>,
        subscribe: Subscribe,
        acks: Arc<Acks>,
    ) -> (Arc<Self>, Subscription) {
        let line = Arc::new(Self {
            acks,
            now: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let (sender, deliveries) = mpsc::channel(usize::from(subscribe.prefetch).max(1));
        let state = watch::Sender::new(ConsumerState::Connecting(None));
        let subscription = Subscription {
            deliveries,
            state: state.subscribe(),
            acker: Arc::clone(&line) as Arc<dyn Acker>,
        };
        let pump = Pump {
            line: Arc::clone(&line),
            away,
            sender,
            state,
        };
        home.spawn(pump.run(broker, subscribe));
        (line, subscription)
    }

    /// Loses the channel, if there is one; the broker heals it under a new generation.
    pub(super) fn cut(&self) -> bool {
        let acker = self.lock().acker.clone();
        acker.inspect(|acker| acker.rebuild()).is_some()
    }

    /// The broker ends the consumer without a word.
    pub(super) fn give_up(&self) {
        let mut now = self.lock();
        if let Some(acker) = now.acker.clone() {
            (now.ended, now.believed) = (true, acker.generation());
            acker.close();
        }
    }

    /// The channel is lost, and the worker knows.
    pub(super) fn end(&self) {
        let mut now = self.lock();
        (now.acker, now.ended) = (None, false);
        now.over.cancel();
    }

    fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn begin(&self, acker: &Arc<dyn Acker>) -> (u64, CancellationToken) {
        let mut now = self.lock();
        now.life += 1;
        if now.cancelled {
            acker.cancel();
        }
        now.acker = Some(Arc::clone(acker));
        now.over = CancellationToken::new();
        (now.life * LIFE, now.over.clone())
    }

    /// The consumer of that generation, and the generation as its broker knows it.
    fn of(&self, generation: u64) -> Option<(Arc<dyn Acker>, u64)> {
        let now = self.lock();
        let acker = now.acker.clone()?;
        (generation / LIFE == now.life).then_some((acker, generation % LIFE))
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acker for Line {
    fn generation(&self) -> Option<u64> {
        let now = self.lock();
        let inner = match now.ended {
            true => now.believed,
            false => now.acker.as_ref()?.generation(),
        };
        Some(now.life * LIFE + inner?)
    }

    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        self.acks.tried.fetch_add(1, Ordering::SeqCst);
        if self.acks.swallowed.load(Ordering::SeqCst) || self.has_ended() {
            return true;
        }
        let Some((acker, generation)) = self.of(generation) else {
            return false;
        };
        self.acks.passed.fetch_add(1, Ordering::SeqCst);
        acker.ack(generation, tag, multiple)
    }

    fn requeue(&self, generation: u64, tag: u64) -> bool {
        let of = self.of(generation);
        of.is_some_and(|(acker, generation)| acker.requeue(generation, tag))
    }

    fn cancel(&self) {
        let mut now = self.lock();
        now.cancelled = true;
        if let Some(acker) = &now.acker {
            acker.cancel();
        }
    }

    fn resume(&self) {
        let mut now = self.lock();
        now.cancelled = false;
        if let Some(acker) = &now.acker {
            acker.resume();
        }
    }

    fn release(&self) {
        let mut now = self.lock();
        now.cancelled = true;
        if let Some(acker) = &now.acker {
            acker.release();
        }
    }

    fn close(&self) {
        self.closed.cancel();
        if let Some(acker) = self.lock().acker.take() {
            acker.close();
        }
    }

    fn rebuild(&self) {
        self.cut();
    }
}

/// Hands on what the broker delivers.
struct Pump {
    line: Arc<Line>,
    away: watch::Receiver<bool>,
    sender: mpsc::Sender<RawDelivery>,
    state: watch::Sender<ConsumerState>,
}

impl Pump {
    async fn run(mut self, broker: Arc<dyn Broker>, subscribe: Subscribe) {
        let line = Arc::clone(&self.line);
        let sender = self.sender.clone();
        let lives = async {
            while self.away.wait_for(|away| !away).await.is_ok() {
                let mut subscription = broker.subscribe(subscribe.clone()).await;
                let (first, over) = self.line.begin(&subscription.acker);
                let mut away = self.away.clone();
                tokio::select! {
                    biased;
                    () = over.cancelled() => {}
                    Ok(_) = away.wait_for(|away| *away) => {}
                    () = self.hand_on(&mut subscription, first) => return,
                }
                self.line.end();
                subscription.acker.close();
                let why = "taken away by the conformance suite";
                let lost = ConsumerState::Connecting(Some(why.into()));
                self.state.send_replace(lost);
            }
        };
        tokio::select! {
            () = line.closed.cancelled() => {}
            // The worker is gone without a word, as after a crash.
            () = sender.closed() => {}
            () = lives => {}
        }
        line.close();
    }

    /// Ends when the broker ends the consumer.
    async fn hand_on(&self, subscription: &mut Subscription, first: u64) {
        loop {
            if self.line.has_ended() {
                std::future::pending::<()>().await;
            }
            let state = subscription.state.borrow_and_update().clone();
            self.state.send_if_modified(|shown| {
                let changed = *shown != state;
                *shown = state;
                changed
            });
            tokio::select! {
                Ok(()) = subscription.state.changed() => {}
                delivery = subscription.deliveries.recv() => {
                    let Some(mut delivery) = delivery else {
                        if self.line.has_ended() {
                            continue;
                        }
                        return;
                    };
                    delivery.generation += first;
                    if self.sender.send(delivery).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
