//! Runs a set of workers in one process: plans, builds, starts, stops and replaces single ones while the others run;
//! owns the listening sockets, the brokers and the state stores.
//!
//! A reload builds every new worker first. What does not build leaves the old one running, and so does what would need
//! a port or queue that such an old one keeps. Then old intakes close, old workers stop in two stages, and each new one
//! starts as soon as what it takes over is free (R8).

pub mod control;
pub mod engine;
mod leases;
pub mod listeners;
mod options;
pub mod plan;
mod reach;
mod reload;
pub mod services;
mod slot;
mod starting;
pub mod status;
mod sweep;

#[cfg(test)]
mod tests;

pub use options::{Options, Restart};

use crate::engine::{Environment, WorkerSnapshot};
use crate::error::WorkError;
use crate::secrets::Secrets;
use crate::telemetry::Telemetry;
use engine::{Built, Engine};
use futures::future::join_all;
use listeners::Listeners;
use plan::Plan;
use services::{BrokerSource, InUse, Services, StateSource};
use slot::{Questions, Slot, idle};
use starting::Stage;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vumi_api::{Kind, Resource};

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
    services: Services,
    secrets: Arc<Secrets>,
    listeners: Arc<Listeners>,
    telemetry: Arc<Telemetry>,
    options: Options,
    /// Wakes workers that wait to be built again.
    nudge: Arc<Notify>,
    /// How often each worker was built.
    builds: Mutex<BTreeMap<String, u32>>,
    stages: starting::Stages,
}

impl Shared {
    /// Builds a worker; with the use of its broker and state store.
    async fn build(&self, resource: Arc<Resource>) -> Result<(InUse, Box<dyn Built>), WorkError> {
        let services = self.services.identities(&resource);
        let stage = Stage::opens(&self.stages, resource.key(), &services);
        let used = self.services.get(&resource).await?;
        stage.is_built();
        let state = used.state.as_ref();
        let environment = Environment {
            broker: Arc::clone(&used.broker.held),
            state: state.map(|lease| Arc::clone(&lease.held)),
            secrets: Arc::clone(&self.secrets),
            listeners: Arc::clone(&self.listeners),
            outside: self.options.outside.clone(),
            telemetry: Arc::clone(&self.telemetry),
            instance: self.instance(&resource.key()),
            system_id: self.options.system_id.clone(),
        };
        let built = slot::guarded(self.engine.build(resource, environment)).await??;
        Ok((used, built))
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
    /// Transports that a reload is stopping: fires when one is gone. Written under the lock of the slots.
    replaced: Mutex<Vec<CancellationToken>>,
    /// What was asked for last. Locked while it is being carried out.
    wanted: tokio::sync::Mutex<Vec<Arc<Resource>>>,
    applied: std::sync::atomic::AtomicBool,
    /// Why the manifests as they are now cannot be applied.
    problem: Mutex<Option<String>>,
    stopping: CancellationToken,
    /// Workers that a shutdown is stopping: they answer until they are gone.
    going: Mutex<Vec<(Arc<Resource>, Questions)>>,
}

impl Supervisor {
    /// A supervisor without workers. Must be called inside a Tokio runtime.
    pub fn new(
        engine: impl Engine,
        brokers: impl BrokerSource,
        stores: impl StateSource,
        secrets: Arc<Secrets>,
        telemetry: Arc<Telemetry>,
        options: Options,
    ) -> Arc<Self> {
        let (recheck, sweep) = (options.recheck, options.sweep);
        let supervisor = Arc::new(Self {
            shared: Arc::new(Shared {
                engine: Box::new(engine),
                services: Services::new(
                    Box::new(brokers),
                    Box::new(stores),
                    Arc::clone(&telemetry),
                ),
                secrets,
                listeners: Arc::default(),
                telemetry,
                options,
                nudge: Arc::default(),
                builds: Mutex::default(),
                stages: Mutex::default(),
            }),
            slots: Mutex::default(),
            held: Mutex::default(),
            replaced: Mutex::default(),
            wanted: tokio::sync::Mutex::default(),
            applied: std::sync::atomic::AtomicBool::new(false),
            problem: Mutex::default(),
            stopping: CancellationToken::new(),
            going: Mutex::default(),
        });
        tokio::spawn(sweep::run(Arc::downgrade(&supervisor), sweep));
        tokio::spawn(look_again(Arc::downgrade(&supervisor), recheck));
        supervisor
    }

    /// Makes `resources` the set that runs. Returns when old workers are gone and new ones have started, both bounded;
    /// calls are carried out one after the other. After [`Supervisor::shutdown`] it does nothing. A caller that stops
    /// waiting disturbs nothing.
    pub async fn apply(self: &Arc<Self>, resources: Vec<Resource>) -> Outcome {
        let supervisor = Arc::clone(self);
        whole(async move {
            let mut wanted = supervisor.wanted.lock().await;
            *wanted = resources.into_iter().map(Arc::new).collect();
            supervisor.reconcile(&wanted).await
        })
        .await
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
    /// another broker or state store (K9).
    pub async fn secrets_changed(
        self: &Arc<Self>,
        documents: BTreeMap<String, BTreeMap<String, String>>,
    ) {
        self.shared.secrets.replace(documents);
        self.refresh().await;
    }

    /// Looks again at everything outside the manifests that decides how they run: Secrets' files, addresses of brokers and
    /// state stores.
    pub async fn refresh(self: &Arc<Self>) {
        self.shared.nudge.notify_waiters();
        let supervisor = Arc::clone(self);
        whole(async move {
            let wanted = supervisor.wanted.lock().await;
            if supervisor.is_stale() {
                supervisor.reconcile(&wanted).await;
            }
        })
        .await;
    }

    /// Stops everything: transports first, those included that a reload is replacing, while what answers their held
    /// requests still runs; then the rest; then brokers and stores. Bounded by the limits of [`Options`], twice.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        // Once its intake is closed nobody answers a worker's new callers: better refused than left waiting. Others may run
        // longer, since they answer what it holds.
        let doors: Vec<(CancellationToken, Vec<(String, u16)>)> = lock(&self.slots)
            .values()
            .map(|slot| {
                let closed = slot.leaving.intake_closed.clone();
                (closed, slot.resource.topology().listens)
            })
            .collect();
        let refuse = async {
            join_all(doors.iter().map(|(closed, addresses)| async {
                closed.cancelled().await;
                self.shared.listeners.close(addresses).await;
            }))
            .await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.stop_all() => {}
            () = refuse => {}
        }
        // A reload that was under way ends first; what it started meanwhile stops too.
        let _wanted = self.wanted.lock().await;
        self.stop_all().await;
        self.shared.listeners.keep_only(&[]).await;
        // From here on nothing is asked of them, which would open brokers and stores again.
        lock(&self.going).clear();
        self.shared.services.close_all().await;
    }

    async fn stop_all(&self) {
        let (slots, replaced) = {
            let mut slots = lock(&self.slots);
            let going = slots.values();
            let going = going.map(|slot| (Arc::clone(&slot.resource), slot.questions()));
            lock(&self.going).extend(going);
            (std::mem::take(&mut *slots), lock(&self.replaced).clone())
        };
        let (transports, others): (Vec<Slot>, Vec<Slot>) = slots
            .into_values()
            .partition(|slot| slot.resource.kind() == Kind::Transport);
        let limits = self.shared.options.limits;
        let stop_all =
            |slots: Vec<Slot>| join_all(slots.into_iter().map(move |slot| slot.stop(limits)));
        let gone = join_all(replaced.iter().map(CancellationToken::cancelled));
        tokio::join!(stop_all(transports), gone);
        stop_all(others).await;
    }

    /// What every worker is doing, those that do not run included, by kind and name.
    pub async fn snapshots(&self) -> Vec<WorkerSnapshot> {
        self.look().await.0
    }

    /// The snapshots, and the workers whose loops do not turn.
    async fn look(&self) -> (Vec<WorkerSnapshot>, Vec<String>) {
        let asked: Vec<(Arc<Resource>, Questions)> = {
            let slots = lock(&self.slots);
            let running = slots.values();
            let running = running.map(|slot| (Arc::clone(&slot.resource), slot.questions()));
            running.chain(lock(&self.going).iter().cloned()).collect()
        };
        let answers = asked.into_iter().map(|(resource, questions)| async move {
            let snapshot = questions.snapshot().await;
            (resource, snapshot)
        });
        let mut found = BTreeMap::new();
        let mut silent = Vec::new();
        for (resource, snapshot) in join_all(answers).await {
            let key = resource.key();
            if snapshot.as_ref().is_some_and(|snapshot| !snapshot.alive) {
                silent.push(key.clone());
            }
            let gone = snapshot.is_none() && self.stopping.is_cancelled();
            let snapshot = snapshot.unwrap_or_else(|| {
                if gone {
                    return WorkerSnapshot {
                        state: "stopped",
                        ..idle(&resource, SystemTime::now(), String::new())
                    };
                }
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

    /// Resources of the workers that run, those included that the end of the process is stopping.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        let slots = lock(&self.slots);
        let running = slots.values().map(|slot| Arc::clone(&slot.resource));
        let going = lock(&self.going);
        let going = going.iter().map(|(resource, _)| Arc::clone(resource));
        running.chain(going).collect()
    }

    /// The broker that a worker uses, opened if need be.
    pub async fn broker_of(
        &self,
        resource: &Resource,
    ) -> Result<Arc<dyn crate::broker::Broker>, WorkError> {
        Ok(self.shared.services.broker(resource).await?.held)
    }

    /// Which brokers are open: their addresses as they were when they were opened, without users.
    pub fn describe_brokers(&self) -> Vec<String> {
        self.shared.services.brokers()
    }

    /// The open state stores, each with its identity.
    pub fn stores(&self) -> Vec<(String, Arc<dyn crate::state::StateStore>)> {
        let leases = self.shared.services.stores();
        let stores = leases.into_iter().map(|lease| (lease.identity, lease.held));
        stores.collect()
    }

    /// Metrics of the process.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// Fires when [`Supervisor::shutdown`] begins.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}

/// Does `work` to its end even if whoever waits for it goes away: only a reload knows the workers that it is stopping.
async fn whole<T: Default + Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => T::default(),
        },
    }
}

/// Tries again what is held back, and follows brokers and state stores whose address in a Secret changes, until the supervisor is gone.
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
