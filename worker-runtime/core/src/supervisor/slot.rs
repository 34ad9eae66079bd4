//! One worker's life in the supervisor: started when its turn comes, built and started again with back-off when it does
//! not build or ends by itself, stopped in two stages. Its task answers questions at all times.

use super::engine::{Built, Running};
use super::services::{Identities, InUse};
use super::{Shared, lock};
use crate::broker::{Durability, LinkState};
use crate::codes;
use crate::engine::{Counts, StopLimits, WorkerSnapshot};
use crate::error::{ErrorClass, WorkError};
use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use vumi_api::Resource;

/// On top of the limits of a stop, for the engine's own bookkeeping; after that the worker is dropped.
const STOP_SLACK: Duration = Duration::from_secs(3);

/// A worker that failed gets less time to stop than one that is well.
const BROKEN: StopLimits = StopLimits {
    drain: Duration::from_secs(1),
    flush: Duration::from_secs(2),
    close: Duration::from_secs(1),
};

/// A worker that does not answer a question within this is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something asked of a running slot.
enum Ask {
    Snapshot(oneshot::Sender<WorkerSnapshot>),
    ResumeParked,
}

/// How far a worker on its way out has got.
#[derive(Clone, Default)]
pub(super) struct Leaving {
    pub(super) intake_closed: CancellationToken,
    pub(super) stopped: CancellationToken,
}

/// The supervisor's side of one worker.
pub(super) struct Slot {
    pub(super) resource: Arc<Resource>,
    pub(super) leaving: Leaving,
    /// Fires when it has started, or has failed to for the first time.
    pub(super) settled: CancellationToken,
    /// Whether it has ever been started: one that never was has nothing worth keeping.
    alive: Arc<AtomicBool>,
    used: Arc<Mutex<Option<InUse>>>,
    asks: mpsc::Sender<Ask>,
    stop: CancellationToken,
    limits: Arc<Mutex<StopLimits>>,
    task: tokio::task::JoinHandle<()>,
}

impl Slot {
    /// Starts the life of a worker. With `built` it starts as soon as `turn` resolves, else it is built then.
    pub(super) fn spawn(
        shared: Arc<Shared>,
        resource: Arc<Resource>,
        built: Result<(InUse, Box<dyn Built>), WorkError>,
        turn: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (asks, receiver) = mpsc::channel(16);
        let (used, built) = match built {
            Ok((used, built)) => (Some(used), Ok(built)),
            Err(error) => (None, Err(error)),
        };
        let used = Arc::new(Mutex::new(used));
        let alive = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let leaving = Leaving::default();
        let settled = CancellationToken::new();
        let limits = Arc::new(Mutex::new(StopLimits::default()));
        let life = Life {
            resource: Arc::clone(&resource),
            alive: Arc::clone(&alive),
            used: Arc::clone(&used),
            asks: receiver,
            stop: stop.clone(),
            leaving: leaving.clone(),
            settled: settled.clone(),
            _ends_settled: settled.clone().drop_guard(),
            limits: Arc::clone(&limits),
            why: "waits for its turn: another worker is finishing its work".into(),
            since: SystemTime::now(),
            shared,
        };
        Self {
            resource,
            leaving,
            settled,
            alive,
            used,
            asks,
            stop,
            limits,
            task: tokio::spawn(life.run(built, turn)),
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Which services it was built for last.
    pub(super) fn identities(&self) -> Identities {
        let used = lock(&self.used);
        used.as_ref().map(InUse::identities).unwrap_or_default()
    }

    /// A handle to ask what it is doing; it can be used without holding on to the slot.
    pub(super) fn questions(&self) -> Questions {
        Questions(self.asks.clone())
    }

    /// Stops it and waits until it is gone; at most the limits and a little.
    pub(super) async fn stop(self, limits: StopLimits) {
        *lock(&self.limits) = limits;
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(worker = self.resource.key(), %error, "the task of a worker ended badly");
        }
        self.leaving.intake_closed.cancel();
    }
}

/// Asks one slot.
#[derive(Clone)]
pub(super) struct Questions(mpsc::Sender<Ask>);

impl Questions {
    /// What it is doing; none if it does not answer in time.
    pub(super) async fn snapshot(&self) -> Option<WorkerSnapshot> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(Ask::Snapshot(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }

    /// Lets it go on after `TooManyParked`.
    pub(super) async fn resume_parked(&self) -> bool {
        let asked = self.0.send(Ask::ResumeParked);
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(())))
    }
}

/// The task's side.
struct Life {
    shared: Arc<Shared>,
    resource: Arc<Resource>,
    alive: Arc<AtomicBool>,
    /// Kept between two runs, so that what is only in memory is still there for the next.
    used: Arc<Mutex<Option<InUse>>>,
    asks: mpsc::Receiver<Ask>,
    stop: CancellationToken,
    leaving: Leaving,
    settled: CancellationToken,
    /// Whoever waits for it to settle goes on when its life ends before it began.
    _ends_settled: DropGuard,
    limits: Arc<Mutex<StopLimits>>,
    why: String,
    since: SystemTime,
}

impl Life {
    async fn run(
        mut self,
        built: Result<Box<dyn Built>, WorkError>,
        turn: impl Future<Output = ()> + Send,
    ) {
        let mut next = Some(built);
        let mut failures = 0u32;
        let turn = std::pin::pin!(turn);
        if self.attend(None, turn).await.is_none() {
            return;
        }
        loop {
            let built = match next.take() {
                Some(built) => built,
                None => match self.rebuilt().await {
                    Some(built) => built,
                    None => return,
                },
            };
            let began = Instant::now();
            let error = match built {
                Err(error) => error,
                Ok(built) => match self.one_run(built).await {
                    Some(error) => error,
                    None => return,
                },
            };
            if began.elapsed() >= self.shared.options.restart.good_after {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            let pause = self.shared.options.restart.backoff.after(failures);
            self.trouble(&error, pause);
            let nudge = Arc::clone(&self.shared.nudge);
            let wait = async {
                let _ = tokio::time::timeout(pause, nudge.notified()).await;
            };
            if self.attend(None, wait).await.is_none() {
                return;
            }
        }
    }

    /// Builds it again, answering questions meanwhile. None when it was stopped first.
    async fn rebuilt(&mut self) -> Option<Result<Box<dyn Built>, WorkError>> {
        let (shared, resource) = (Arc::clone(&self.shared), Arc::clone(&self.resource));
        let built = self
            .attend(None, async move { shared.build(resource).await })
            .await?;
        Some(built.map(|(used, built)| {
            *lock(&self.used) = Some(used);
            built
        }))
    }

    /// Starts it and stays with it. None when it was stopped, else why it ended.
    async fn one_run(&mut self, built: Box<dyn Built>) -> Option<WorkError> {
        // Not interrupted by a stop: what is half started could not be stopped in two stages.
        let running = match guarded(built.start()).await {
            Ok(running) => running,
            Err(error) => return Some(error),
        };
        self.alive.store(true, Ordering::Release);
        self.settled.cancel();
        self.why.clear();
        let ended = self
            .attend(Some(&*running), guarded(running.failed()))
            .await;
        match ended {
            Some(Ok(error) | Err(error)) => {
                self.end(running, BROKEN).await;
                Some(error)
            }
            None => {
                let limits = *lock(&self.limits);
                self.end(running, limits).await;
                None
            }
        }
    }

    /// Stops the worker, bounded.
    async fn end(&mut self, running: Box<dyn Running>, limits: StopLimits) {
        let mut last = self.snapshot(Some(&*running));
        last.state = "stopping";
        last.ready = false;
        last.accepting = last.accepting.map(|_| false);
        let most = limits.drain + 2 * limits.flush + limits.close + STOP_SLACK;
        let stopping = guarded(running.stop(limits));
        let mut stopping = std::pin::pin!(tokio::time::timeout(most, stopping));
        // The first poll closes the intake.
        let mut ended = stopping.as_mut().now_or_never();
        if self.stop.is_cancelled() {
            self.leaving.intake_closed.cancel();
        }
        while ended.is_none() {
            tokio::select! {
                outcome = &mut stopping => ended = Some(outcome),
                Some(ask) = self.asks.recv() => answer(ask, None, || last.clone()),
            }
        }
        match ended {
            Some(Ok(Err(error))) => {
                tracing::error!(worker = self.resource.key(), %error, "stopping a worker failed");
            }
            Some(Err(_)) => tracing::error!(
                worker = self.resource.key(),
                seconds = most.as_secs(),
                "a worker did not stop in time and was dropped"
            ),
            _ => {}
        }
    }

    /// Waits for `work`, answering questions meanwhile. None when the worker is to stop.
    async fn attend<T>(
        &mut self,
        running: Option<&dyn Running>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let ask = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                done = &mut work => return Some(done),
                Some(ask) = self.asks.recv() => ask,
            };
            answer(ask, running, || self.snapshot(running));
        }
    }

    fn snapshot(&self, running: Option<&dyn Running>) -> WorkerSnapshot {
        let live = running.map(|running| {
            std::panic::catch_unwind(AssertUnwindSafe(|| running.snapshot()))
                .map_err(|_| "its state cannot be read: reading it panicked".to_owned())
        });
        match live {
            Some(Ok(snapshot)) => snapshot,
            Some(Err(why)) => idle(&self.resource, self.since, why),
            None => idle(&self.resource, self.since, self.why.clone()),
        }
    }

    fn trouble(&mut self, error: &WorkError, pause: Duration) {
        let worker = self.resource.key();
        let (code, fix, seconds) = (error.code.name, error.code.fix, pause.as_secs_f32());
        if self.alive() {
            tracing::error!(worker, code, %error, fix, next_try_s = seconds, "worker failed, it will be restarted");
            self.why = format!("failed and is being restarted: {}", error.advice());
        } else {
            tracing::error!(worker, code, %error, fix, next_try_s = seconds, "worker does not build, it waits");
            self.why = error.advice();
        }
        self.since = SystemTime::now();
        self.settled.cancel();
    }

    fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

fn answer(ask: Ask, running: Option<&dyn Running>, snapshot: impl FnOnce() -> WorkerSnapshot) {
    match ask {
        // Whoever asked may have gone.
        Ask::Snapshot(reply) => drop(reply.send(snapshot())),
        Ask::ResumeParked => {
            if let Some(running) = running {
                running.resume_parked();
            }
        }
    }
}

/// The snapshot of a worker that does not run.
pub(super) fn idle(resource: &Resource, since: SystemTime, why: String) -> WorkerSnapshot {
    WorkerSnapshot {
        key: resource.key(),
        type_name: resource.worker_type().map_or("", |w| w.key),
        ready: false,
        alive: true,
        accepting: (!resource.topology().listens.is_empty()).then_some(false),
        state: "stalled",
        why,
        consumers: Vec::new(),
        link: LinkState::Connecting {
            error: None,
            since,
            refused: false,
        },
        durability: Durability::Memory,
        store: None,
        components: Vec::new(),
        counts: Counts::default(),
        oldest: 0.0,
        queued: 0,
        waiting: 0,
        set_aside: 0,
        since,
    }
}

/// Runs something of the engine's; a panic in it is an error like another.
pub(super) async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, WorkError> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| {
        WorkError::new(
            ErrorClass::Bug,
            codes::BUG_ENDED,
            "the worker panicked; the process's output shows where",
        )
    })
}
