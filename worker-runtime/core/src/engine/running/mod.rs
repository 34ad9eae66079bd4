//! A worker from build to stop: puts the parts of the engine together, tells what the worker is doing, and stops it in
//! two stages (R8).

mod snapshot;
mod stage;

use super::backlog::Backlog;
use super::backoff::RetryPolicy;
use super::consumer::{Consumer, PREFETCH, Parts, Watched};
use super::delivery::{Desk, Duty};
use super::journal::{self, Hold, Schedules};
use super::outlet::Outlet;
use super::partitions::{self, Plan};
use super::peer::{self, Counter};
use super::sending::{self, Keeper, Names, Once, Sending, Trail, Trial};
use super::store_watch::{StoreWatch, Trouble};
use super::watch::Watch;
use super::{Environment, StopLimits};
use crate::broker::{Durability, QueueSpec};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::heartbeat::{self, HeartbeatInfo};
use crate::middleware::Chain;
use crate::status::{StatusDesk, StatusIdentity};
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use crate::worker::{Dedupe, HOLD_LIMIT, Registration, Services, Worker, WorkerContext};
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
use vumi_api::{Flow, Kind, Port, Resource, Topology};

/// Messages in a target queue above which new work is refused, unless the manifest says otherwise.
const BACKLOG_LIMIT: u32 = 10_000;
/// Statuses not told yet at a stop have this long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A worker that is built but consumes nothing yet: what does not build leaves the old one running.
pub struct BuiltWorker {
    worker: Arc<dyn Worker>,
    cx: Arc<WorkerContext>,
    type_name: &'static str,
    topology: Topology,
    environment: Environment,
    outlet: Arc<Outlet>,
    backlog: Arc<Backlog>,
    chain: Arc<Chain>,
    status: Arc<StatusDesk>,
    metrics: Arc<WorkerMetrics>,
    accepting: Arc<AtomicBool>,
    abandoned: CancellationToken,
    sending: Option<Arc<Sending>>,
    trail: Option<Arc<Trail>>,
}

/// Builds a worker (phase three): may read secrets and make clients and opens its listening sockets; nothing else that
/// two versions could not share.
pub async fn build(
    registration: &Registration,
    resource: Arc<Resource>,
    environment: Environment,
) -> Result<BuiltWorker, WorkError> {
    let key = resource.key();
    let settings = resource.settings();
    let topology = resource.topology();
    let metrics = environment.telemetry.worker(&key);
    let chain = Arc::new(Chain::build(
        &settings.middleware,
        &key,
        environment.state.as_ref(),
    )?);
    let limit = settings.backlog_limit.unwrap_or(BACKLOG_LIMIT);
    let backlog = Arc::new(Backlog::new(resource.kind(), limit));
    let outlet = Arc::new(Outlet::new(
        Arc::clone(&environment.broker),
        Arc::clone(&chain),
        Arc::clone(&backlog),
        &metrics,
        &topology.publishes,
    ));
    let status = StatusDesk::new(
        Arc::clone(&environment.broker),
        StatusIdentity::of(&resource, &environment.instance),
        Some(Arc::clone(&metrics)),
    );
    let accepting = Arc::new(AtomicBool::new(false));
    let abandoned = CancellationToken::new();
    let names = Names::of(&resource, &environment);
    let store = environment.state.as_ref();
    let once = store
        .filter(|_| registration.dedupe != Dedupe::None)
        .map(|store| {
            Arc::new(Once::new(
                Arc::clone(store),
                &resource,
                Arc::clone(&metrics),
            ))
        });
    let sending = (resource.kind() == Kind::Transport).then(|| {
        let (outlet, metrics) = (Arc::clone(&outlet), Arc::clone(&metrics));
        let policy = sending::Policy::of(
            &resource,
            (registration.receipts)(&resource),
            store.is_some(),
        );
        let (names, once) = (names.clone(), once.clone());
        Arc::new(Sending::new(names, policy, store, once, outlet, metrics))
    });
    let trail = store
        .and_then(|store| Trail::new(Arc::clone(store), &names, Arc::clone(&metrics)))
        .map(Arc::new);
    let services: Arc<dyn Services> = Arc::new(Counter {
        outlet: Arc::clone(&outlet),
        status: Arc::clone(&status),
        metrics: Arc::clone(&metrics),
        listeners: Arc::clone(&environment.listeners),
        accepting: Arc::clone(&accepting),
        broker: Arc::clone(&environment.broker),
        abandoned: abandoned.clone(),
        sending: sending.clone(),
        trail: trail.clone(),
        state: store.cloned(),
        once,
    });
    let cx = Arc::new(WorkerContext::new(
        resource,
        environment.instance.clone(),
        Arc::clone(&environment.secrets),
        CancellationToken::new(),
        services,
    ));
    let worker = AssertUnwindSafe((registration.build)(Arc::clone(&cx)))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Err(WorkError::new(
                ErrorClass::Bug,
                codes::BUG_ENDED,
                format!("building {key} panicked; the process's output shows where"),
            ))
        })?;
    // Sockets belong to the process and outlive their worker, so opening them early hurts nobody, and an address that
    // cannot be used leaves the old version running.
    for (host, port) in &topology.listens {
        environment.listeners.open_early(host, *port).await?;
    }
    Ok(BuiltWorker {
        worker,
        cx,
        type_name: registration.type_name,
        topology,
        environment,
        outlet,
        backlog,
        chain,
        status,
        metrics,
        accepting,
        abandoned,
        sending,
        trail,
    })
}

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
    metrics: Arc<WorkerMetrics>,
    accepting: Arc<AtomicBool>,
    abandoned: CancellationToken,
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
            metrics: self.metrics,
            accepting: self.accepting,
            abandoned: self.abandoned,
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
        let parts = Consumed {
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
        if self.topology.holds_requests {
            let port = Port::new(running.cx.transport_name(), Flow::Outbound);
            let queue = QueueSpec::Reply(running.cx.reply_queue());
            running.consume(&parts, &port, queue, false).await;
        }
        running.keep_watch(self.topology.publishes, consumed, parts.outlet);
        running.keep_ledger(parts.sending);
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

struct Consumed {
    outlet: Arc<Outlet>,
    chain: Arc<Chain>,
    sending: Option<Arc<Sending>>,
    trail: Option<Arc<Trail>>,
}

impl RunningWorker {
    /// Starts one consumer.
    async fn consume(
        &mut self,
        parts: &Consumed,
        port: &Port,
        queue: QueueSpec,
        intake: bool,
    ) -> (String, QueueMetrics) {
        let resource = self.cx.resource();
        let settings = resource.settings();
        // Replies that were forwarded to this replica have no order to keep: their requests wait side by side.
        let mode = match queue {
            QueueSpec::Reply(_) => vumi_api::OrderingMode::None,
            _ => resource.ordering_mode(),
        };
        let data = match &queue {
            QueueSpec::Data(name) => Some(name.clone()),
            _ => None,
        };
        let name = queue.name().to_owned();
        // The reply queue is named after this replica, and its series after the port, so that labels stay bounded.
        let label = match queue {
            QueueSpec::Reply(_) => format!("{}.reply", port.connector),
            _ => name.clone(),
        };
        let metrics = self.metrics.queue(&label);
        let lasting = !matches!(queue, QueueSpec::Reply(_));
        // A reply queue vanishes with its process, and what would have killed it.
        let trial = self.environment.state.as_ref().filter(|_| lasting);
        let trial =
            trial.map(|store| Trial::new(Arc::clone(store), &name, settings.retention.suspects()));
        let stage = if intake { &self.intake } else { &self.replies };
        // A reply queue ends with its replica: nothing of it can wait longer.
        let store = match queue {
            QueueSpec::Reply(_) => None,
            _ => self.environment.state.clone(),
        };
        let journal = store.map(|store| journal::Parts {
            store,
            volatile_will_do: settings.allow_volatile_state
                || self.environment.broker.durability() == Durability::Memory,
            imports: (resource.kind() == Kind::Transport && port.flow == Flow::Outbound)
                .then(|| port.connector.clone()),
            fenced: mode != vumi_api::OrderingMode::None,
            trouble: self.trouble.clone(),
            gauges: Arc::new(journal::Gauges::new(metrics.clone())),
        });
        // Only a transport's outbound messages can be sent at a time of their own.
        let schedules = resource.kind() == Kind::Transport && port.flow == Flow::Outbound;
        let hold = schedules.then(|| Arc::new(Schedules) as Arc<dyn Hold>);
        let desk = Arc::new(Desk {
            acker: None,
            duty: Duty::Handle,
            layout: None,
            worker: Arc::clone(&self.worker),
            key: self.cx.worker_name().to_owned(),
            port: port.clone(),
            // What cannot be handled from the reply queue is parked with its connector: the reply queue vanishes.
            queue: match queue {
                QueueSpec::Reply(_) => port.queue(),
                _ => name,
            },
            chain: Arc::clone(&parts.chain),
            outlet: Arc::clone(&parts.outlet),
            policy: RetryPolicy::new(
                settings.retry.as_ref(),
                resource.attempts(),
                settings.hold_limit.map_or(HOLD_LIMIT, |d| d.0),
            ),
            metrics: metrics.clone(),
            counters: Arc::default(),
            worker_metrics: Arc::clone(&self.metrics),
            generation: Arc::default(),
            halt: stage.halt.clone(),
            sending: parts
                .sending
                .clone()
                .filter(|_| port.flow == Flow::Outbound),
            lasting,
            trail: parts.trail.clone(),
            trial,
            legacy_failures: resource.transport().and_then(|t| t.legacy_failures) == Some(true),
            exit: None,
        });
        let parts = Parts {
            backlog: Arc::clone(&self.backlog),
            broker: Arc::clone(&self.environment.broker),
            status: Arc::clone(&self.status),
            phase: stage.phase.subscribe(),
            mode,
            queue,
            prefetch: PREFETCH,
            oldest: None,
            label: label.clone(),
            tag: format!("{}@{}", self.cx.worker_name(), self.cx.instance()),
            epoch: self.epoch,
            journal,
            hold,
            desk,
        };
        let plan = Plan::of(resource, port);
        let loops = match data {
            Some(_) if !plan.parts().is_empty() => partitions::start(parts, plan).await,
            Some(name) => partitions::start_whole(parts, &name).await,
            None => {
                let (consumer, watched) = Consumer::subscribe(parts).await;
                vec![(consumer.run().boxed(), Some(watched))]
            }
        };
        for (run, watched) in loops {
            self.watched.extend(watched);
            let task = self.guarded(run);
            if intake {
                self.intake.tasks.push(task);
            } else {
                self.replies.tasks.push(task);
            }
        }
        (label, metrics)
    }

    /// Starts what runs beside the messages.
    fn keep_watch(
        &mut self,
        publishes: Vec<Port>,
        consumed: Vec<(String, QueueMetrics)>,
        outlet: Arc<Outlet>,
    ) {
        let watch = Watch {
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
        }
        self.telling.tasks.extend(telling);
    }

    /// Looks after a transport's ledger.
    fn keep_ledger(&mut self, sending: Option<Arc<Sending>>) {
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
        self.stopping.store(true, Ordering::Relaxed);
        self.metrics.ready.set(0);
        let key = self.cx.worker_name().to_owned();
        // First stage: nothing new comes in. What was taken is finished.
        self.cx.closing.cancel();
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
        let ackers = self.watched.iter().filter_map(|w| w.acker.as_ref());
        ackers.for_each(|acker| acker.rebuild());
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
