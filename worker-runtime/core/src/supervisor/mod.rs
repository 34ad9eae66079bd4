//! Runs a set of workers in one process: plans, builds, starts, stops and replaces single ones while the others run;
//! owns the listening sockets and the brokers.
//!
//! A reload builds every new worker first. What does not build leaves the old one running, and so does what would need
//! a port or queue that such an old one keeps. Then old intakes close, old workers stop in two stages, and each new one
//! starts as soon as what it takes over is free (R8).

pub mod brokers;
pub mod control;
pub mod engine;
pub mod listeners;
pub mod plan;
mod slot;
pub mod status;

#[cfg(test)]
mod tests;

use crate::engine::{Environment, StopLimits, WorkerSnapshot};
use crate::error::WorkError;
use crate::secrets::Secrets;
use crate::telemetry::Telemetry;
use brokers::{BrokerSource, Brokers};
use engine::{Built, Engine};
use listeners::Listeners;
use plan::{Action, Entry, Plan, Step, Until};
use slot::{Leaving, Questions, Slot, idle};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vumi_api::{Kind, Resource};

/// A reload waits so long for new workers to start, then leaves them to themselves.
const SETTLE: Duration = Duration::from_secs(10);

/// How a process wants its workers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this replica, unique on the broker; a worker that is built again gets a number after it.
    pub instance: String,
    /// `system_id` of heartbeats.
    pub system_id: String,
    /// Bounds of a stop.
    pub limits: StopLimits,
    /// When a worker that failed or does not build is tried again.
    pub restart: Restart,
    /// How often brokers' addresses and held workers are looked at again.
    pub recheck: Duration,
}

/// Back-off of one worker: doubles with every failure, with jitter, up to a cap.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// First pause.
    pub first: Duration,
    /// Longest pause.
    pub most: Duration,
    /// A run this long counts as good: the next failure pauses for `first` again.
    pub good_after: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            good_after: Duration::from_secs(60),
        }
    }
}

impl Restart {
    /// Pause after so many failures in a row: between half and all of the doubled one.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(
            1u32.checked_shl(failures.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        doubled
            .min(self.most)
            .mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// What became of an [`Supervisor::apply`].
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was to be done.
    pub plan: Plan,
    /// Workers whose new version does not run, with the reason; the old version, if there is one, runs on.
    pub not_applied: BTreeMap<String, String>,
}

/// What all slots of a process use.
pub(crate) struct Shared {
    engine: Box<dyn Engine>,
    brokers: Brokers,
    secrets: Arc<Secrets>,
    listeners: Arc<Listeners>,
    telemetry: Arc<Telemetry>,
    options: Options,
    /// Wakes workers that wait to be built again.
    nudge: Arc<Notify>,
    /// How often each worker was built.
    builds: Mutex<BTreeMap<String, u32>>,
}

impl Shared {
    /// Builds a worker; with the identity of its broker.
    async fn build(&self, resource: Arc<Resource>) -> Result<(String, Box<dyn Built>), WorkError> {
        let (identity, broker) = self.brokers.get(&resource).await?;
        let environment = Environment {
            broker,
            secrets: Arc::clone(&self.secrets),
            listeners: Arc::clone(&self.listeners),
            telemetry: Arc::clone(&self.telemetry),
            instance: self.instance(&resource.key()),
            system_id: self.options.system_id.clone(),
        };
        let built = slot::guarded(self.engine.build(resource, environment)).await??;
        Ok((identity, built))
    }

    /// Two versions of a worker may run side by side for a while, as two replicas would: each has its own name.
    fn instance(&self, key: &str) -> String {
        let mut builds = lock(&self.builds);
        let count = builds.entry(key.to_owned()).or_insert(0);
        *count += 1;
        match *count {
            1 => self.options.instance.clone(),
            count => format!("{}-{count}", self.options.instance),
        }
    }
}

/// A worker, and what came of building it; with the identity of its broker.
type Attempt = (
    String,
    Arc<Resource>,
    Result<(String, Box<dyn Built>), WorkError>,
);

/// A new version, or a new worker, that is not applied.
struct Held {
    resource: Arc<Resource>,
    why: String,
    since: SystemTime,
}

/// Runs a set of workers.
pub struct Supervisor {
    shared: Arc<Shared>,
    slots: Mutex<BTreeMap<String, Slot>>,
    held: Mutex<BTreeMap<String, Held>>,
    /// What was asked for last. Locked while it is being carried out.
    wanted: tokio::sync::Mutex<Vec<Arc<Resource>>>,
    applied: std::sync::atomic::AtomicBool,
    /// Why the manifests as they are now cannot be applied.
    problem: Mutex<Option<String>>,
    stopping: CancellationToken,
}

impl Supervisor {
    /// A supervisor without workers. Must be called inside a Tokio runtime.
    pub fn new(
        engine: impl Engine,
        brokers: impl BrokerSource,
        secrets: Arc<Secrets>,
        telemetry: Arc<Telemetry>,
        options: Options,
    ) -> Arc<Self> {
        let recheck = options.recheck;
        let supervisor = Arc::new(Self {
            shared: Arc::new(Shared {
                engine: Box::new(engine),
                brokers: Brokers::new(Box::new(brokers)),
                secrets,
                listeners: Arc::default(),
                telemetry,
                options,
                nudge: Arc::default(),
                builds: Mutex::default(),
            }),
            slots: Mutex::default(),
            held: Mutex::default(),
            wanted: tokio::sync::Mutex::default(),
            applied: std::sync::atomic::AtomicBool::new(false),
            problem: Mutex::default(),
            stopping: CancellationToken::new(),
        });
        tokio::spawn(look_again(Arc::downgrade(&supervisor), recheck));
        supervisor
    }

    /// Makes `resources` the set that runs. Returns when old workers are gone and new ones have started, both bounded;
    /// calls are carried out one after the other. After [`Supervisor::shutdown`] it does nothing.
    pub async fn apply(&self, resources: Vec<Resource>) -> Outcome {
        let mut wanted = self.wanted.lock().await;
        *wanted = resources.into_iter().map(Arc::new).collect();
        self.reconcile(&wanted).await
    }

    /// Says that the manifests as they are now cannot be applied, and why; or that they can again. Shown in the status;
    /// a process that never had valid manifests is not ready.
    pub fn set_problem(&self, problem: Option<String>) {
        *lock(&self.problem) = problem;
    }

    /// What [`Supervisor::set_problem`] said last.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Replaces the Secret documents. Nothing restarts but what did not build, and what an address in a Secret moves to
    /// another broker (K9).
    pub async fn secrets_changed(&self, documents: BTreeMap<String, BTreeMap<String, String>>) {
        self.shared.secrets.replace(documents);
        self.refresh().await;
    }

    /// Looks again at everything outside the manifests that decides how they run: Secrets' files, brokers' addresses.
    pub async fn refresh(&self) {
        self.shared.nudge.notify_waiters();
        let wanted = self.wanted.lock().await;
        if self.is_stale() {
            self.reconcile(&wanted).await;
        }
    }

    /// Stops everything: transports first, while what answers their held requests still runs; then the rest; then the
    /// brokers. Bounded by the limits of [`Options`], twice.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.stop_all().await;
        // A reload that was under way ends first; what it started meanwhile stops too.
        let _wanted = self.wanted.lock().await;
        self.stop_all().await;
        self.shared.listeners.keep_only(&[]).await;
        self.shared.brokers.keep_only(&BTreeSet::new()).await;
    }

    async fn stop_all(&self) {
        let slots = std::mem::take(&mut *lock(&self.slots));
        let (transports, others): (Vec<Slot>, Vec<Slot>) = slots
            .into_values()
            .partition(|slot| slot.resource.kind() == Kind::Transport);
        let limits = self.shared.options.limits;
        for group in [transports, others] {
            futures::future::join_all(group.into_iter().map(|slot| slot.stop(limits))).await;
        }
    }

    /// What every worker is doing, those that do not run included, by kind and name.
    pub async fn snapshots(&self) -> Vec<WorkerSnapshot> {
        self.look().await.0
    }

    /// The snapshots, and the workers whose loops do not turn.
    async fn look(&self) -> (Vec<WorkerSnapshot>, Vec<String>) {
        let asked: Vec<(Arc<Resource>, Questions)> = lock(&self.slots)
            .values()
            .map(|slot| (Arc::clone(&slot.resource), slot.questions()))
            .collect();
        let answers = asked.into_iter().map(|(resource, questions)| async move {
            let snapshot = questions.snapshot().await;
            (resource, snapshot)
        });
        let mut found = BTreeMap::new();
        let mut silent = Vec::new();
        for (resource, snapshot) in futures::future::join_all(answers).await {
            let key = resource.key();
            if snapshot.as_ref().is_some_and(|snapshot| !snapshot.alive) {
                silent.push(key.clone());
            }
            let snapshot = snapshot.unwrap_or_else(|| {
                silent.push(key.clone());
                let why = "its task does not answer".to_owned();
                WorkerSnapshot {
                    alive: false,
                    ..idle(&resource, SystemTime::now(), why)
                }
            });
            found.insert(key, snapshot);
        }
        for (key, held) in &*lock(&self.held) {
            match found.get_mut(key) {
                Some(snapshot) => {
                    let old = std::mem::take(&mut snapshot.why);
                    let gap = if old.is_empty() { "" } else { "; " };
                    snapshot.why = format!("runs as before its last edit: {}{gap}{old}", held.why);
                }
                None => {
                    let snapshot = idle(&held.resource, held.since, held.why.clone());
                    found.insert(key.clone(), snapshot);
                }
            }
        }
        (found.into_values().collect(), silent)
    }

    /// Whether the loops of the process turn: every worker's task answers and its consumers are not stuck (R9).
    pub async fn live(&self) -> Result<(), String> {
        match self.look().await.1 {
            silent if silent.is_empty() => Ok(()),
            silent => Err(format!("its loops do not turn: {}", silent.join(", "))),
        }
    }

    /// Whether every worker is ready (R9).
    pub async fn ready(&self) -> Result<(), String> {
        self.judge(|snapshot| snapshot.ready).await
    }

    /// Whether every listening worker accepts connections; also while the broker is away, and on a standby (K27).
    pub async fn listening(&self) -> Result<(), String> {
        self.judge(|snapshot| snapshot.accepting != Some(false))
            .await
    }

    async fn judge(&self, good: impl Fn(&WorkerSnapshot) -> bool) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("stopping".into());
        }
        if !self.applied.load(std::sync::atomic::Ordering::Acquire) {
            return Err(self.problem().unwrap_or_else(|| "starting".into()));
        }
        let bad: Vec<String> = self
            .snapshots()
            .await
            .iter()
            .filter(|snapshot| !good(snapshot))
            .map(|snapshot| format!("{}: {} {}", snapshot.key, snapshot.state, snapshot.why))
            .map(|line| line.trim_end().to_owned())
            .collect();
        match bad.is_empty() {
            true => Ok(()),
            false => Err(bad.join("\n")),
        }
    }

    /// Lets a worker go on after it paused because too much was parked. False if there is no such worker.
    pub async fn resume_parked(&self, key: &str) -> bool {
        let questions = lock(&self.slots).get(key).map(Slot::questions);
        match questions {
            Some(questions) => questions.resume_parked().await,
            None => false,
        }
    }

    /// Resources of the workers that run.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        lock(&self.slots)
            .values()
            .map(|slot| Arc::clone(&slot.resource))
            .collect()
    }

    /// The broker that a worker uses, opened if need be.
    pub async fn broker_of(
        &self,
        resource: &Resource,
    ) -> Result<Arc<dyn crate::broker::Broker>, WorkError> {
        Ok(self.shared.brokers.get(resource).await?.1)
    }

    /// Which brokers are open: their addresses as they were when they were opened, without users.
    pub async fn describe_brokers(&self) -> Vec<String> {
        self.shared.brokers.names().await
    }

    /// Metrics of the process.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// Fires when [`Supervisor::shutdown`] begins.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Whether something is held back, or a broker's address is not what it was when its worker was built.
    fn is_stale(&self) -> bool {
        if !lock(&self.held).is_empty() {
            return true;
        }
        let running: Vec<(Arc<Resource>, Option<String>)> = lock(&self.slots)
            .values()
            .map(|slot| (Arc::clone(&slot.resource), slot.broker()))
            .collect();
        running.iter().any(|(resource, built_for)| {
            let now = self.shared.brokers.identity(resource);
            built_for.is_some() && now.is_some() && now != *built_for
        })
    }

    /// Plans, builds, and carries out what can be.
    async fn reconcile(&self, wanted: &[Arc<Resource>]) -> Outcome {
        if self.stopping.is_cancelled() {
            return Outcome::default();
        }
        let plan = self.plan(wanted);
        let resources: BTreeMap<String, &Arc<Resource>> = wanted
            .iter()
            .map(|resource| (resource.key(), resource))
            .collect();
        let starts = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Start | Action::Replace(_)))
            .filter_map(|step| Some((step.key.clone(), Arc::clone(resources.get(&step.key)?))));
        let builds = starts.map(|(key, resource)| async {
            let built = self.shared.build(Arc::clone(&resource)).await;
            (key, resource, built)
        });
        let builds = futures::future::join_all(builds).await;

        // An old worker that runs is worth more than a new one that does not build.
        let stuck: BTreeMap<String, String> = {
            let slots = lock(&self.slots);
            builds
                .iter()
                .filter(|(key, ..)| slots.get(key).is_some_and(Slot::alive))
                .filter_map(|(key, _, built)| {
                    let error = built.as_ref().err()?;
                    Some((
                        key.clone(),
                        format!("the new version does not build: {error}"),
                    ))
                })
                .collect()
        };
        let mut held = stuck.clone();
        for (key, blocker) in plan.held_by(&stuck.into_keys().collect()) {
            held.insert(
                key,
                format!("needs what {blocker} keeps, because its new version is held back"),
            );
        }
        self.carry_out(&plan, builds, &held).await;
        self.remember(&held, &resources);
        self.applied
            .store(true, std::sync::atomic::Ordering::Release);
        Outcome {
            plan,
            not_applied: held,
        }
    }

    fn plan(&self, wanted: &[Arc<Resource>]) -> Plan {
        let old: Vec<(Arc<Resource>, Option<String>)> = lock(&self.slots)
            .values()
            .map(|slot| (Arc::clone(&slot.resource), slot.broker()))
            .collect();
        let new: Vec<(&Arc<Resource>, Option<String>)> = wanted
            .iter()
            .map(|resource| (resource, self.shared.brokers.identity(resource)))
            .collect();
        plan::plan(
            old.iter().map(|(resource, broker)| Entry {
                resource,
                broker: broker.as_deref(),
            }),
            new.iter().map(|(resource, broker)| Entry {
                resource,
                broker: broker.as_deref(),
            }),
        )
    }

    /// Takes every step that is not held.
    async fn carry_out(&self, plan: &Plan, builds: Vec<Attempt>, held: &BTreeMap<String, String>) {
        let mut builds: BTreeMap<String, _> = builds
            .into_iter()
            .map(|(key, resource, built)| (key, (resource, built)))
            .collect();
        let mut leaving: BTreeMap<&str, (Slot, &Step)> = BTreeMap::new();
        {
            let mut slots = lock(&self.slots);
            if self.stopping.is_cancelled() {
                return;
            }
            let steps = plan
                .steps
                .iter()
                .filter(|step| step.action != Action::Keep && !held.contains_key(&step.key));
            for step in steps.clone() {
                log(step);
                if let Some(old) = slots.remove(&step.key) {
                    leaving.insert(&step.key, (old, step));
                }
            }
            for step in steps {
                let Some((resource, built)) = builds.remove(&step.key) else {
                    continue;
                };
                let turn = turn(step, &leaving);
                let (broker, built) = match built {
                    Ok((broker, built)) => (Some(broker), Ok(built)),
                    Err(error) => (None, Err(error)),
                };
                let shared = Arc::clone(&self.shared);
                slots.insert(
                    step.key.clone(),
                    Slot::spawn(shared, resource, broker, built, turn),
                );
            }
        }
        let gone: BTreeMap<String, Leaving> = leaving
            .iter()
            .map(|(key, (slot, _))| ((*key).to_owned(), slot.leaving.clone()))
            .collect();
        let limits = self.shared.options.limits;
        let stops = leaving.into_values().map(|(slot, step)| {
            let gone = &gone;
            async move {
                for other in step.outlives.iter().filter_map(|key| gone.get(key)) {
                    other.stopped.cancelled().await;
                }
                let leaving = slot.leaving.clone();
                slot.stop(limits).await;
                self.close_unwanted().await;
                leaving.stopped.cancel();
            }
        });
        futures::future::join_all(stops).await;
        let settled: Vec<CancellationToken> = lock(&self.slots)
            .values()
            .map(|slot| slot.settled.clone())
            .collect();
        let all = futures::future::join_all(settled.iter().map(CancellationToken::cancelled));
        let _ = tokio::time::timeout(SETTLE, all).await;
        let in_use = lock(&self.slots)
            .values()
            .filter_map(Slot::broker)
            .collect();
        self.shared.brokers.keep_only(&in_use).await;
    }

    /// Closes the sockets that no worker of the present set names.
    async fn close_unwanted(&self) {
        let wanted: Vec<(String, u16)> = lock(&self.slots)
            .values()
            .flat_map(|slot| slot.resource.topology().listens)
            .collect();
        self.shared.listeners.keep_only(&wanted).await;
    }

    fn remember(
        &self,
        held: &BTreeMap<String, String>,
        resources: &BTreeMap<String, &Arc<Resource>>,
    ) {
        let mut before = lock(&self.held);
        let mut now = BTreeMap::new();
        for (key, why) in held {
            let Some(resource) = resources.get(key) else {
                continue;
            };
            let known = before.remove(key).filter(|held| held.why == *why);
            if known.is_none() {
                tracing::error!(worker = key, why, "worker runs on as it was");
            }
            now.insert(
                key.clone(),
                Held {
                    resource: Arc::clone(resource),
                    why: why.clone(),
                    since: known.map_or_else(SystemTime::now, |held| held.since),
                },
            );
        }
        *before = now;
    }
}

/// Resolves when everything that a step waits for has happened.
fn turn(
    step: &Step,
    leaving: &BTreeMap<&str, (Slot, &Step)>,
) -> impl Future<Output = ()> + Send + use<> {
    let signals: Vec<CancellationToken> = step
        .after
        .iter()
        .filter_map(|wait| {
            let (slot, _) = leaving.get(wait.key.as_str())?;
            Some(match wait.until {
                Until::IntakeClosed => slot.leaving.intake_closed.clone(),
                Until::Stopped => slot.leaving.stopped.clone(),
            })
        })
        .collect();
    async move {
        for signal in signals {
            signal.cancelled().await;
        }
    }
}

fn log(step: &Step) {
    let worker = step.key.as_str();
    match &step.action {
        Action::Keep => {}
        // The engine says "started" once it is.
        Action::Start => tracing::debug!(worker, "starting"),
        Action::Stop => tracing::info!(worker, "stopping: it is gone from the manifests"),
        Action::Replace(changes) => {
            let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
            tracing::info!(worker, changed = fields.join(", "), "replacing");
        }
    }
}

/// Tries again what is held back, and follows brokers whose address in a Secret changes, until the supervisor is gone.
async fn look_again(supervisor: Weak<Supervisor>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(supervisor) = supervisor.upgrade() else {
            return;
        };
        if supervisor.is_stale() {
            let wanted = supervisor.wanted.lock().await;
            supervisor.reconcile(&wanted).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
