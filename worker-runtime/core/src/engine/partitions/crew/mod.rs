//! Reads this replica's share of a divided queue: says that it lives, hears who else does, takes parts and lets go of
//! them as members come and go (S12).

mod show;
mod words;

use super::super::backlog::Backlog;
use super::super::consumer::{Consumer, Counters, Parts, Phase, Watched};
use super::super::delivery::Desk;
use super::super::journal;
use super::layout::{Layout, WantedParts};
use super::members::{Beat, LONGEST_NAME, Members};
use super::plan::{Plan, queue_of, range};
use super::window_of_part;
use crate::broker::{ConsumerState, LinkState, QueueSpec};
use crate::message::random_id;
use crate::telemetry::QueueMetrics;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use vumi_api::OrderingMode;

/// Between two looks around.
const TURN: Duration = Duration::from_millis(250);
/// Depths are read so often; by the replica that passes messages on more often, for it must not overfill the parts.
const DEPTHS: Duration = Duration::from_secs(5);
const OWN_DEPTHS: Duration = Duration::from_secs(1);
/// The last word may take so long.
const GOODBYE: Duration = Duration::from_millis(200);

/// One part that is read here.
struct Post {
    watched: Watched,
    phase: watch::Sender<Phase>,
    halt: CancellationToken,
    /// Age of its oldest message in seconds, as bits.
    oldest: Arc<AtomicU64>,
    /// It finishes what runs, and then lets go of the part.
    leaving: bool,
}

pub(super) struct Crew {
    /// What a consumer of the whole queue would be made of.
    parts: Parts,
    plan: Plan,
    member: String,
    members: Members,
    layout: Arc<Layout>,
    alone: watch::Receiver<Option<WantedParts>>,
    backlog: Arc<Backlog>,
    metrics: QueueMetrics,
    counters: Arc<Counters>,
    posts: BTreeMap<String, Post>,
    tasks: JoinSet<String>,
    beat: Option<BoxFuture<'static, ()>>,
    /// Something is to be said before the next beat is due.
    news: bool,
    beat_at: Instant,
    depths: Option<BoxFuture<'static, Option<u64>>>,
    depths_at: Instant,
    state: watch::Sender<ConsumerState>,
    paused: watch::Sender<Option<String>>,
    here: watch::Sender<Option<(usize, usize)>>,
    turned: Arc<AtomicU64>,
}

impl Crew {
    pub(super) fn new(
        parts: Parts,
        plan: Plan,
        layout: Arc<Layout>,
        backlog: Arc<Backlog>,
    ) -> (Self, Watched) {
        let label = format!("{}.p*", plan.queue());
        let now = Instant::now();
        // A new name at every start, so that the last word of a predecessor does not count for its successor.
        let mut member = format!("{}/{}", &random_id()[..8], parts.tag);
        member.truncate(
            (0..=LONGEST_NAME)
                .rfind(|n| member.is_char_boundary(*n))
                .unwrap_or(0),
        );
        let own = plan.parts().iter().cloned().collect();
        let counters = Arc::clone(&parts.desk.counters);
        let state = watch::Sender::new(ConsumerState::Connecting(None));
        let paused = watch::Sender::new(None);
        let here = watch::Sender::new(None);
        let turned = Arc::new(AtomicU64::new(0));
        let metrics = parts.desk.worker_metrics.queue(&label);
        let watched = Watched {
            metrics: metrics.clone(),
            queue: range(&plan),
            state: state.subscribe(),
            paused: paused.subscribe(),
            counters: Arc::clone(&counters),
            turned: Arc::clone(&turned),
            own_backlog: None,
            leftover: None,
            here: Some(here.subscribe()),
            #[cfg(test)]
            acker: None,
        };
        let crew = Self {
            metrics,
            members: Members::new(member.clone(), own, now),
            member,
            alone: layout.alone(),
            layout,
            backlog,
            counters,
            posts: BTreeMap::new(),
            tasks: JoinSet::new(),
            beat: None,
            news: true,
            beat_at: now,
            depths: None,
            depths_at: now,
            state,
            paused,
            here,
            turned,
            parts: Parts {
                label,
                // Whoever divides the queue takes over what Vumi kept for later.
                journal: parts.journal.clone().map(|journal| journal::Parts {
                    imports: None,
                    ..journal
                }),
                ..parts
            },
            plan,
        };
        (crew, watched)
    }

    /// Runs until it is told to drain and every part is let go of.
    pub(super) async fn run(mut self) {
        let mut ears = self.ears().await;
        let mut phase = self.parts.phase.clone();
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let draining = *phase.borrow_and_update() == Phase::Drain;
            if draining {
                self.posts.values_mut().for_each(Post::leave);
                if self.posts.is_empty() {
                    break;
                }
            }
            tokio::select! {
                biased;
                Ok(()) = phase.changed() => {}
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(part) => {
                        self.posts.remove(&part);
                        self.news = true;
                    }
                    // As if it had happened in this task: whoever guards it says so.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => break,
                    },
                },
                Some(delivery) = ears.deliveries.recv() => {
                    ears.acker.ack(delivery.generation, delivery.tag, false);
                    if let Some(beat) = Beat::decode(&delivery.body) {
                        self.news |= self.members.hear(beat, Instant::now());
                    }
                }
                () = done(&mut self.beat) => self.beat = None,
                total = done(&mut self.depths) => {
                    self.depths = None;
                    if let Some(total) = total {
                        self.note_depth(total);
                    }
                }
                Ok(()) = self.alone.changed() => self.news = true,
                _ = turn.tick() => {}
            }
            if !draining {
                self.look().await;
            }
            self.show();
            self.speak(false);
        }
        ears.acker.close();
        self.parts
            .desk
            .worker_metrics
            .consumer_state(&self.parts.label, "stopped");
        self.beat = None;
        self.speak(true);
        if let Some(last_word) = self.beat.take() {
            let _ = tokio::time::timeout(GOODBYE, last_word).await;
        }
        self.show();
    }

    /// The parts that we want to have for ourselves; only whoever passes messages on may want that.
    fn wanted_alone(&self) -> Option<WantedParts> {
        self.alone.borrow().clone().filter(|_| self.layout.leads())
    }

    /// Takes what is ours and free, and lets go of what is not ours any more.
    async fn look(&mut self) {
        let up = matches!(*self.parts.broker.link().borrow(), LinkState::Up { .. });
        let alone = self.wanted_alone();
        let wanted = alone.as_ref().map(|alone| &alone.parts);
        self.members.look(Instant::now(), up, wanted);
        if alone.is_some_and(|alone| alone.closed) {
            self.posts.values_mut().for_each(Post::leave);
            return;
        }
        let competes = self.parts.mode == OrderingMode::None;
        let share = match competes && !self.members.is_anybody_alone() {
            true => self.members.all(),
            false => self.members.share(),
        };
        let Some(share) = share else {
            return;
        };
        for (part, post) in &mut self.posts {
            if !share.contains(part) && !post.leaving {
                post.leave();
            }
        }
        for part in share {
            let elsewhere = !competes && self.members.held_elsewhere(&part);
            let free = !self.posts.contains_key(&part) && !elsewhere;
            if up && free {
                self.take(part).await;
            }
        }
        let now = Instant::now();
        if self.depths.is_none() && now >= self.depths_at {
            self.depths_at = now
                + if self.layout.leads() {
                    OWN_DEPTHS
                } else {
                    DEPTHS
                };
            self.depths = Some(self.ask_depths());
        }
    }

    async fn take(&mut self, part: String) {
        let queue = queue_of(self.plan.queue(), &part);
        let halt = self.parts.desk.halt.child_token();
        let (phase, told) = watch::channel(Phase::Run);
        let oldest = Arc::new(AtomicU64::new(0));
        let desk = Desk {
            // Parked under the queue's own name, and so counted there.
            metrics: QueueMetrics {
                parked: self.parts.desk.metrics.parked.clone(),
                ..self.metrics.clone()
            },
            generation: Arc::default(),
            halt: halt.clone(),
            ..(*self.parts.desk).clone()
        };
        let prefetch = window_of_part(self.plan.parts().len(), self.parts.prefetch);
        let (consumer, watched) = Consumer::subscribe(Parts {
            desk: Arc::new(desk),
            phase: told,
            queue: QueueSpec::Data(queue),
            prefetch,
            oldest: Some(Arc::clone(&oldest)),
            ..self.parts.clone()
        })
        .await;
        let name = part.clone();
        self.tasks.spawn(async move {
            consumer.run().await;
            name
        });
        let post = Post {
            watched,
            phase,
            halt,
            oldest,
            leaving: false,
        };
        self.posts.insert(part, post);
    }

    fn ask_depths(&self) -> BoxFuture<'static, Option<u64>> {
        let broker = Arc::clone(&self.parts.broker);
        let queues: Vec<String> = self
            .plan
            .parts()
            .iter()
            .map(|part| queue_of(self.plan.queue(), part))
            .collect();
        let ask = async move {
            let mut total = 0;
            for queue in queues {
                // What cannot be read is not zero: the last sum stays.
                total += match broker.depth(&queue).await.ok()? {
                    Some(depth) => u64::from(depth.ready),
                    // Nobody has read or filled it yet.
                    None => 0,
                };
            }
            Some(total)
        };
        ask.boxed()
    }

    fn note_depth(&self, total: u64) {
        self.metrics.ready.set(total.try_into().unwrap_or(i64::MAX));
        // An interactive message must not wait in the shared queue because another class is full: whoever sends messages
        // of a full class looks at its queue instead.
        if self.plan.classes().is_none() {
            let total = u32::try_from(total).unwrap_or(u32::MAX);
            self.backlog.depth(&self.parts.desk.port, total);
        }
    }

    fn reads(&self) -> impl Iterator<Item = &String> {
        self.posts
            .iter()
            .filter(|(_, post)| *post.watched.state.borrow() == ConsumerState::Consuming)
            .map(|(part, _)| part)
    }
}

impl Post {
    /// Takes nothing new, finishes what runs, then lets go.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.phase.send_replace(Phase::Drain);
            self.halt.cancel();
        }
    }
}

/// Waits for what is under way; for ever if nothing is.
async fn done<T>(task: &mut Option<BoxFuture<'static, T>>) -> T {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
