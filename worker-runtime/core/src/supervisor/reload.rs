//! A change of the set, carried out: plans, builds all that is new, then stops, replaces and starts what can be.

use super::engine::Built;
use super::plan::{self, Action, Entry, Plan, Step, Until};
use super::services::{Identities, InUse};
use super::slot::{Leaving, Slot};
use super::{Held, Outcome, Supervisor, lock};
use crate::error::WorkError;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use vumi_api::{Kind, Resource};

/// A reload waits so long for new workers to start, then leaves them to themselves.
const SETTLE: Duration = Duration::from_secs(10);

/// A worker, and what came of building it; with what it uses.
type Attempt = (
    String,
    Arc<Resource>,
    Result<(InUse, Box<dyn Built>), WorkError>,
);

impl Supervisor {
    /// Whether something is held back, or a broker's or store's address is not what it was when its worker was built.
    pub(super) fn is_stale(&self) -> bool {
        if !lock(&self.held).is_empty() {
            return true;
        }
        self.running().iter().any(|(resource, built_for)| {
            built_for.differ(&self.shared.services.identities(resource))
        })
    }

    /// Every worker, with the services that it was built for.
    fn running(&self) -> Vec<(Arc<Resource>, Identities)> {
        lock(&self.slots)
            .values()
            .map(|slot| (Arc::clone(&slot.resource), slot.identities()))
            .collect()
    }

    /// Plans, builds, and carries out what can be.
    pub(super) async fn reconcile(&self, wanted: &[Arc<Resource>]) -> Outcome {
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
        let builds = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return Outcome::default(),
            builds = join_all(builds) => builds,
        };

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
                        format!("the new version does not build: {}", error.advice()),
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
        let old = self.running();
        let new: Vec<(&Arc<Resource>, Identities)> = wanted
            .iter()
            .map(|resource| (resource, self.shared.services.identities(resource)))
            .collect();
        plan::plan(
            old.iter().map(|(resource, used)| entry(resource, used)),
            new.iter().map(|(resource, used)| entry(resource, used)),
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
            *lock(&self.replaced) = leaving
                .values()
                .filter(|(slot, _)| slot.resource.kind() == Kind::Transport)
                .map(|(slot, _)| slot.leaving.stopped.clone())
                .collect();
            for step in steps {
                let Some((resource, built)) = builds.remove(&step.key) else {
                    continue;
                };
                let turn = turn(step, &leaving);
                let shared = Arc::clone(&self.shared);
                slots.insert(step.key.clone(), Slot::spawn(shared, resource, built, turn));
            }
        }
        // Of what is held back; each would count as a user of its broker and store.
        drop(builds);
        let gone: BTreeMap<String, Leaving> = leaving
            .iter()
            .map(|(key, (slot, _))| ((*key).to_owned(), slot.leaving.clone()))
            .collect();
        let limits = self.shared.options.limits;
        let stops = leaving.into_values().map(|(slot, step)| {
            let gone = &gone;
            let stopped = slot.leaving.stopped.clone().drop_guard();
            async move {
                for other in step.outlives.iter().filter_map(|key| gone.get(key)) {
                    other.stopped.cancelled().await;
                }
                slot.stop(limits).await;
                self.close_unwanted().await;
                drop(stopped);
            }
        });
        join_all(stops).await;
        let settled: Vec<CancellationToken> = lock(&self.slots)
            .values()
            .map(|slot| slot.settled.clone())
            .collect();
        let all = join_all(settled.iter().map(CancellationToken::cancelled));
        let _ = tokio::time::timeout(SETTLE, all).await;
        self.shared.services.close_unused().await;
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

fn entry<'a>(resource: &'a Resource, used: &'a Identities) -> Entry<'a> {
    Entry {
        resource,
        broker: used.broker.as_deref(),
        state: used.state.as_deref(),
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
