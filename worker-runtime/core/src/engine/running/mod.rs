//! A worker from build to stop: puts the parts of the engine together, tells what the worker is doing, and stops it in
//! two stages (R8).

mod built;
mod consuming;
mod snapshot;
mod stage;

pub use built::{BuiltWorker, build};

use super::backlog::Backlog;
use super::consumer::Watched;
use super::forwarded::{Forwarded, Replies};
use super::journal::JournalWatch;
use super::outlet::Outlet;
use super::peer;
use super::sending::{Keeper, Sending, Trail};
use super::store_watch::{StoreWatch, Trouble};
use super::watch::Watch;
use super::{Environment, StopLimits};
use crate::broker::QueueSpec;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::heartbeat::{self, HeartbeatInfo};
use crate::message::FailureMessage;
use crate::status::StatusDesk;
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use crate::worker::{Worker, WorkerContext};
use consuming::Consumed;
use futures::FutureExt;
use stage::Stage;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vumi_api::{Flow, Holds, OrderingMode, Port};

/// Statuses not told yet at a stop have this long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A worker that runs.
pub struct RunningWorker {
    worker: Arc<dyn Worker>,
    cx: Arc<WorkerContext>,
    type_name: &'static str,
    listens: bool,
    environment: Environment,
    backlog: Arc<Backlog>,
    status: Arc<StatusDesk>,
    /// What the journals tell the watch of the store.
    trouble: Trouble,
    /// Of this version of the worker, in this process.
    life: u64,
    metrics: Arc<WorkerMetrics>,
    accepting: Arc<AtomicBool>,
    abandoned: CancellationToken,
    /// What is being taken over from the peer, though it may have hung up.
    taking: TaskTracker,
    trail: Option<Arc<Trail>>,
    intake: Stage,
    replies: Stage,
    peer: Stage,
    /// What reads the state of things; ends with the worker.
    watches: Stage,
    /// Statuses and heartbeats, which end last.
    telling: Stage,
    watched: Vec<Watched>,
    failure: channel::Sender<Option<WorkError>>,
    /// Why the side towards the peer does not work.
    peer_failing: channel::Sender<Option<String>>,
    stopping: AtomicBool,
    epoch: Instant,
    since: SystemTime,
}

impl BuiltWorker {
    /// Starts consuming and listening. Errors later are statuses.
    pub async fn start(self) -> RunningWorker {
        let listens = !self.topology.listens.is_empty();
        let mut running = RunningWorker {
            worker: self.worker,
            cx: self.cx,
            type_name: self.type_name,
            listens,
            environment: self.environment,
            backlog: self.backlog,
            status: self.status,
            trouble: Trouble::default(),
            life: rand::random(),
            metrics: self.metrics,
            accepting: self.accepting,
            abandoned: self.abandoned,
            taking: self.taking,
            trail: self.trail.clone(),
            intake: Stage::new(),
            replies: Stage::new(),
            peer: Stage::new(),
            watches: Stage::new(),
            telling: Stage::new(),
            watched: Vec::new(),
            failure: channel::Sender::new(None),
            peer_failing: channel::Sender::new(None),
            stopping: AtomicBool::new(false),
            epoch: Instant::now(),
            since: SystemTime::now(),
        };
        let mut consumed = Vec::new();
        let ordered = running.cx.resource().ordering_mode() != OrderingMode::None;
        let own_queue = self.topology.holds.map(|_| {
            let (queue, state) = (running.cx.reply_queue(), Arc::clone(&self.replies));
            Replies::new(queue, state, Arc::clone(&self.outlet))
        });
        let sessions = ordered && self.topology.holds == Some(Holds::Sessions);
        let forwarded = own_queue.clone().filter(|_| sessions);
        let parts = Consumed {
            forwarded: forwarded.map(Forwarded::new),
            own_queue,
            holds: self.topology.holds,
            outlet: self.outlet,
            chain: self.chain,
            sending: self.sending,
            trail: self.trail,
        };
        for port in &self.topology.intake {
            let queue = QueueSpec::Data(port.queue());
            consumed.push(running.consume(&parts, port, queue, true).await);
        }
        for port in &self.topology.replies {
            let queue = QueueSpec::Data(port.queue());
            consumed.push(running.consume(&parts, port, queue, false).await);
        }
        if self.topology.holds.is_some() {
            let port = Port::new(running.cx.transport_name(), Flow::Outbound);
            let queue = QueueSpec::Reply(running.cx.reply_queue());
            running.consume(&parts, &port, queue, false).await;
            if let Some(watched) = running.watched.last() {
                let _ = self.replies.set(watched.state.clone());
            }
        }
        running.keep_watch(self.topology.publishes, consumed, parts.outlet);
        running.keep_ledger(parts.sending, parts.own_queue);
        let peer = peer::run(
            Arc::clone(&running.worker),
            Arc::clone(&running.cx),
            Arc::clone(&running.accepting),
            running.peer_failing.clone(),
            Arc::clone(&running.metrics),
        );
        let task = running.guarded(peer);
        running.peer.tasks.push(task);
        tracing::info!(
            worker = running.cx.worker_name(),
            r#type = running.type_name,
            broker = running.environment.broker.describe(),
            durability = running.environment.broker.durability().as_str(),
            "started"
        );
        running
    }
}

impl RunningWorker {
    /// Starts what runs beside the messages.
    fn keep_watch(
        &mut self,
        publishes: Vec<Port>,
        consumed: Vec<(String, QueueMetrics)>,
        outlet: Arc<Outlet>,
    ) {
        let retry = self.cx.resource().settings().retry;
        let external = retry.is_some_and(|retry| retry.is_external());
        let watch = Watch {
            failures: external.then(|| FailureMessage::routing_key(self.cx.transport_name())),
            broker: Arc::clone(&self.environment.broker),
            backlog: Arc::clone(&self.backlog),
            outlet,
            status: Arc::clone(&self.status),
            metrics: Arc::clone(&self.metrics),
        };
        let info = HeartbeatInfo::of_this_process(
            self.environment.system_id.as_str(),
            self.cx.resource().name.as_str(),
        );
        let beats = heartbeat::run(
            Arc::clone(&self.environment.broker),
            info,
            self.telling.halt.clone(),
        );
        let (desk, stop) = (Arc::clone(&self.status), self.telling.halt.clone());
        let statuses = async move { desk.run(stop).await };
        let queues = consumed.iter().map(|(_, metrics)| metrics.clone());
        let queues: Vec<QueueMetrics> = queues.collect();
        let watching = self.guarded(watch.run(publishes, consumed));
        let telling = [self.guarded(beats), self.guarded(statuses)];
        self.watches.tasks.push(watching);
        if let Some(store) = &self.environment.state {
            let watch = StoreWatch {
                store: Arc::clone(store),
                status: Arc::clone(&self.status),
                broker: self.environment.broker.durability(),
                volatile_allowed: self.cx.resource().settings().allow_volatile_state,
                trouble: self.trouble.clone(),
            };
            self.watches.tasks.push(self.guarded(watch.run()));
            let journals = JournalWatch {
                store: Arc::clone(store),
                status: Arc::clone(&self.status),
                queues,
            };
            self.watches.tasks.push(self.guarded(journals.run()));
        }
        self.telling.tasks.extend(telling);
    }

    /// Looks after a transport's ledger.
    fn keep_ledger(&mut self, sending: Option<Arc<Sending>>, replies: Option<Arc<Replies>>) {
        let Some(sending) = sending else { return };
        if let Some(orders) = &sending.orders {
            let task = self.guarded(Arc::clone(orders).keep());
            self.watches.tasks.push(task);
        }
        let signs = Arc::clone(&sending);
        let task = self.guarded(async move { signs.live().await });
        self.watches.tasks.push(task);
        let keeper = Keeper {
            sending,
            status: Arc::clone(&self.status),
            replies,
            consumers: self.watched.iter().map(|w| w.state.clone()).collect(),
            abandoned: self.abandoned.clone(),
        };
        let task = self.guarded(keeper.run());
        self.watches.tasks.push(task);
    }

    /// Spawns a loop of the engine; if it panics, [`Self::failed`] says so.
    fn guarded(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let failure = self.failure.clone();
        let key = self.cx.worker_name().to_owned();
        tokio::spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                failure.send_replace(Some(WorkError::new(
                    ErrorClass::Bug,
                    codes::BUG_ENDED,
                    format!("a loop of {key} panicked; the process's output shows where"),
                )));
            }
        })
    }

    /// Stops in two stages: intake, then replies; every stage bounded.
    pub async fn stop(mut self, limits: StopLimits) {
        // First stage: nothing new comes in, and then it is said so. What was taken is finished.
        self.cx.closing.cancel();
        self.stopping.store(true, Ordering::Relaxed);
        self.metrics.ready.set(0);
        let key = self.cx.worker_name().to_owned();
        self.accepting.store(false, Ordering::Relaxed);
        tokio::join!(
            self.peer.drain(limits.flush),
            self.intake.drain(limits.flush)
        );
        if tokio::time::timeout(limits.drain, self.worker.drained())
            .await
            .is_err()
        {
            tracing::warn!(
                worker = key,
                "requests or sessions still wait for replies; stopping all the same"
            );
        }
        // Second stage: replies end, then the peer hears goodbye.
        self.replies.drain(limits.flush).await;
        self.taking.close();
        let _ = tokio::time::timeout(limits.flush, self.taking.wait()).await;
        self.abandoned.cancel();
        if tokio::time::timeout(limits.close, self.worker.close())
            .await
            .is_err()
        {
            tracing::warn!(worker = key, "saying goodbye to the peer took too long");
        }
        if let Some(trail) = &self.trail {
            let _ = tokio::time::timeout(limits.close, trail.stored()).await;
        }
        self.telling.drain(LAST_WORDS).await;
        tracing::info!(worker = key, "stopped");
    }

    /// Goes on after `Paused/TooManyParked`.
    pub fn resume_parked(&self) {
        self.backlog.resume();
        let own = self.watched.iter().filter_map(|w| w.own_backlog.as_ref());
        own.for_each(|backlog| backlog.resume());
    }

    /// As if every channel were lost.
    #[cfg(test)]
    pub(super) fn rebuild_consumers(&self) {
        self.ackers().for_each(|acker| acker.rebuild());
    }

    /// The ends of its consumers' channels.
    #[cfg(test)]
    pub(super) fn ackers(&self) -> impl Iterator<Item = &Arc<dyn crate::broker::Acker>> {
        self.watched.iter().filter_map(|w| w.acker.as_ref())
    }

    /// Resolves if a loop of the engine ended although nobody stopped it (a panic of the engine's): the supervisor
    /// restarts the worker with back-off.
    pub async fn failed(&self) -> WorkError {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        match failed.ok().and_then(|error| error.clone()) {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}
