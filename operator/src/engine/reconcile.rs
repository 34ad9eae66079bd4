//! One look at a resource: dereference, validate, build, apply, prune, status. The same path for all kinds.

use super::Engine;
use super::apply::{self, Fault, Need, Plan, Written};
use super::changes;
use super::events::Event;
use super::kinds::ObjectKind;
use super::prune::prune;
use super::queue::Ended;
use super::rotate::rotate;
use super::seen::Held;
use super::status::{self, Finding};
use super::store::{Family, Key};
use crate::client::ApiError;
use crate::dereference::{dereference, workload};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use vumi_api::{Resource, Spec};
use vumi_plan::validate::Outcome;
use vumi_plan::{Context, Desired, Reason, Refusal, Validated, build, validate};

/// Annotation: while it says `true`, nothing of the resource is touched.
pub const PAUSED: &str = "vumi.dev/pause-reconciliation";
/// For what is awaited that no watch tells of, such as a Secret, it is looked again after this time.
const AWAITED: Duration = Duration::from_secs(10);
/// For an object that is being deleted, it is looked again after this time.
const LEAVING: Duration = Duration::from_secs(2);

/// What a look came to.
#[derive(Debug)]
pub enum Looked {
    /// Everything is as it should be.
    Done,
    /// Something has to come into being, or to go.
    Waiting(Duration),
    /// Somebody has to do something.
    Refused,
    /// What somebody else had changed was put back. Whoever does that again and again is answered more and more slowly.
    Corrected,
    /// The annotation [`PAUSED`].
    Paused,
    /// It is not there, or being deleted: what it owns goes by itself.
    Gone,
    /// A call went wrong.
    Failed(ApiError),
}

impl Looked {
    /// As metrics have it.
    pub fn word(&self) -> &'static str {
        match self {
            Looked::Done => "done",
            Looked::Waiting(_) => "waiting",
            Looked::Refused => "refused",
            Looked::Corrected => "corrected",
            Looked::Paused => "paused",
            Looked::Gone => "gone",
            Looked::Failed(_) => "failed",
        }
    }

    /// What the queue does next.
    pub fn ended(&self) -> Ended {
        match self {
            Looked::Done | Looked::Refused | Looked::Paused | Looked::Gone => Ended::Well,
            Looked::Waiting(after) => Ended::Again(*after),
            Looked::Corrected => Ended::Failed(None),
            Looked::Failed(ApiError::Closed(_)) => Ended::Dropped,
            Looked::Failed(error) => Ended::Failed(error.retry_after()),
        }
    }
}

/// Looks at a resource and makes what differs as it should be.
pub async fn reconcile(engine: &Engine, key: &Key) -> Looked {
    let family = engine.stores.family(key);
    let Some(held) = family.resource.clone().filter(|held| !held.deleting) else {
        engine.secrets.used_by(key, &BTreeSet::new());
        return Looked::Gone;
    };
    if held.annotation(PAUSED) == Some("true") {
        let message = format!("nothing is touched while the annotation {PAUSED} says true");
        let event = Event::warning("ReconciliationPaused", message);
        engine.events.tell(key, &held.uid, event).await;
        return Looked::Paused;
    }
    let look = Look {
        engine,
        key,
        held: &held,
    };
    match look.through(&family).await {
        Ok(looked) => looked,
        Err(error) => look.failed(error).await,
    }
}

/// One look.
struct Look<'a> {
    engine: &'a Engine,
    key: &'a Key,
    held: &'a Held,
}

impl Look<'_> {
    async fn through(&self, family: &Family) -> Result<Looked, ApiError> {
        let Self { engine, key, held } = *self;
        let spec = held.body()["spec"].take();
        let resource = match Spec::from_json(key.kind, spec) {
            Ok(spec) => Resource {
                name: key.name.clone(),
                namespace: Some(key.namespace.clone()),
                spec,
            },
            // The API server has taken it, so that its definitions are newer than this operator.
            Err(error) => {
                let message = format!(
                    "spec: {error}; this operator ({}) is older than the CRDs: upgrade it",
                    env!("CARGO_PKG_VERSION")
                );
                return self
                    .refused(Outcome::Stalled, Reason::Invalid, message)
                    .await;
            }
        };
        let context = dereference(engine, key, &resource, family).await?;
        let validated = match validate(&resource, &context, &engine.settings) {
            Ok(validated) => validated,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let desired = build(&validated, &context, &engine.settings);
        let fresh = || fresh(engine, &validated, &context);
        let plan = apply::plan(family, &held.uid, &desired, &fresh);
        if resource.deployment().overrides.is_some()
            && let Err(error) = apply::try_workload(engine, key, &plan).await
        {
            if error.is_about_the_object() && error.code() != Some(403) {
                let message = format!("spec.overrides: {error}");
                return self
                    .refused(Outcome::Stalled, Reason::OverridesInvalid, message)
                    .await;
            }
            return Err(error);
        }
        let before = self.running(family, &desired);
        let (written, fault) = apply::apply(engine, key, &plan).await;
        self.tell_written(&plan, before.as_ref(), &written).await;
        match fault {
            None => {}
            Some(Fault::Leaving(object)) => {
                tracing::debug!(resource = %key, object, "is still being deleted");
                return Ok(Looked::Waiting(LEAVING));
            }
            Some(Fault::Taken(object)) => {
                let message =
                    format!("{object} exists already and is not ours: delete or rename it");
                return self.not_taken(message).await;
            }
            Some(Fault::Call { error, .. }) if error.is_about_a_namespace_that_goes() => {
                return Ok(Looked::Gone);
            }
            Some(Fault::Call { object, error }) if error.is_about_the_object() => {
                let message = format!("the API server refuses {object}: {error}");
                return self.not_taken(message).await;
            }
            Some(Fault::Call { object, error }) => {
                tracing::debug!(resource = %key, object, %error, "could not be applied");
                return Err(error);
            }
        }
        let family = engine.stores.family(key);
        let pruned = prune(engine, key, &family, &desired).await?;
        if !pruned.is_empty() {
            let event = Event::normal("Pruned", format!("deleted {}", pruned.join(", ")));
            engine.events.tell(key, &held.uid, event).await;
        }
        let touched = rotate(engine, key, &family, &context).await?;
        if touched > 0 {
            let message =
                format!("a Secret has changed: {touched} pods read it again, none is replaced");
            let event = Event::normal("SecretChanged", message);
            engine.events.tell(key, &held.uid, event).await;
        }
        let runs = self.running(&family, &desired);
        let finding = Finding::Applied(&desired, runs.as_ref());
        status::write(engine, key, held, &finding).await?;
        if desired.notes.is_empty() {
            engine.events.all_is_well(&held.uid);
        }
        // What cannot be had here is told when something is applied, not by every new leader.
        for note in desired.notes.iter().filter(|_| !written.is_empty()) {
            let event = Event::warning(note.reason, note.message.clone());
            engine.events.tell(key, &held.uid, event).await;
        }
        let drifted = |written: &Written| matches!(written.need, Need::Drift(_));
        Ok(match written.iter().any(drifted) {
            true => Looked::Corrected,
            false => Looked::Done,
        })
    }

    /// The workload as the stores know it.
    fn running(&self, family: &Family, desired: &Desired) -> Option<Value> {
        let child = desired.workload()?;
        workload(family, &child.name).map(|held| held.workload())
    }

    async fn refused(
        &self,
        outcome: Outcome,
        reason: Reason,
        message: String,
    ) -> Result<Looked, ApiError> {
        self.refuse(Refusal {
            outcome,
            reason,
            message,
        })
        .await
    }

    /// Nothing is applied and nothing pruned: what runs goes on (K3).
    async fn refuse(&self, refusal: Refusal) -> Result<Looked, ApiError> {
        let Self { engine, key, held } = *self;
        if refusal.reason == Reason::Pruned {
            // The definitions may have been rolled back this moment.
            engine.cluster.look_again();
            tracing::warn!(resource = %key, "{}", refusal.message);
            return Ok(Looked::Refused);
        }
        let news = status::write(engine, key, held, &Finding::Refused(&refusal)).await?;
        let waits = refusal.outcome == Outcome::Waiting;
        if news {
            let event = Event::warning(refusal.reason.as_str(), refusal.message);
            engine.events.tell(key, &held.uid, event).await;
        }
        Ok(match waits {
            true => Looked::Waiting(AWAITED),
            false => Looked::Refused,
        })
    }

    /// Refused by the cluster, which may think better of it: it is tried again, with longer and longer pauses.
    async fn not_taken(&self, message: String) -> Result<Looked, ApiError> {
        let reason = Reason::ApplyFailed;
        self.refused(Outcome::Waiting, reason, message.clone())
            .await?;
        let refused = ApiError::Refused {
            code: 409,
            reason: reason.as_str().into(),
            message,
            retry_after: Some(AWAITED),
        };
        Ok(Looked::Failed(refused))
    }

    /// A call went wrong.
    async fn failed(&self, error: ApiError) -> Looked {
        let Self { engine, key, held } = *self;
        match &error {
            ApiError::Closed(why) => tracing::debug!(resource = %key, why, "left alone"),
            // The namespace, or the resource itself, is going: there is nothing left to do.
            error if error.is_not_found() => {
                tracing::debug!(resource = %key, %error, "something is not there any more");
            }
            error if error.is_about_the_object() => {
                let event = Event::warning("ReconcileFailed", error.to_string());
                engine.events.tell(key, &held.uid, event).await;
            }
            error => tracing::warn!(resource = %key, %error, "failed; it is tried again"),
        }
        Looked::Failed(error)
    }

    /// Says what was written and why.
    async fn tell_written(&self, plan: &Plan<'_>, before: Option<&Value>, written: &[Written]) {
        let Self { engine, key, held } = *self;
        let workloads = |kind: &str| ObjectKind::named(kind).is_some_and(ObjectKind::is_workload);
        let list = |wanted: &dyn Fn(&Written) -> bool| {
            let those = written.iter().filter(|written| wanted(written));
            let names = those.map(|written| format!("{} {}", written.kind, written.name));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut events = Vec::new();
        let created = list(&|written| written.need == Need::Create);
        if !created.is_empty() {
            events.push(Event::normal("Created", format!("created {created}")));
        }
        for written in written {
            if let Need::Drift(field) = &written.need {
                let message = format!(
                    "somebody else had taken {field} of {} {}: it is put back",
                    written.kind, written.name
                );
                events.push(Event::warning("DriftCorrected", message));
            }
        }
        let changed = list(&|written| written.need == Need::Change && !workloads(&written.kind));
        if !changed.is_empty() {
            events.push(Event::normal(
                "Updated",
                format!("changed {changed}: no pod is replaced"),
            ));
        }
        let wrote_workload = written.iter().any(|written| workloads(&written.kind));
        if let (true, Some(before), Some((after, Need::Change))) =
            (wrote_workload, before, plan.workload())
        {
            let (old, new) = (&before["spec"], &after["spec"]);
            if let Some((roll, message)) = changes::roll(&old["template"], &new["template"]) {
                events.push(Event::normal(roll.reason(), message));
            }
            if old["replicas"] != new["replicas"] {
                let message = format!("{} pods instead of {}", new["replicas"], old["replicas"]);
                events.push(Event::normal("Scaled", message));
            }
        }
        for event in events {
            engine.events.tell(key, &held.uid, event).await;
        }
    }
}

/// The workload as it would be built for a new resource.
fn fresh(engine: &Engine, validated: &Validated, context: &Context) -> Option<vumi_plan::Child> {
    let context = Context {
        live: None,
        ..context.clone()
    };
    build(validated, &context, &engine.settings)
        .workload()
        .cloned()
}
