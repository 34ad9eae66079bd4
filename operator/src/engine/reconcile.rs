//! One look at a resource: dereference, validate, build, apply, prune, status. The same path for all kinds.

use super::Engine;
use super::apply::{self, Fault, Leaving, Need, Written};
use super::claims;
use super::events::Event;
use super::looked::Looked;
use super::prune::{leaving, prune};
use super::rotate::rotate;
use super::scale::{decide, handed_over};
use super::seen::Held;
use super::sight::Sighting;
use super::spec::{read, readable};
use super::status::{self, Finding};
use super::store::{Family, Key};
use super::trouble::Trouble;
use super::written;
use crate::brokers::Place;
use crate::client::ApiError;
use crate::dereference::{dereference, workload};
use k8s_openapi::jiff::SignedDuration;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use vumi_api::{ConditionType, Resource, Status};
use vumi_plan::names::PAUSED;
use vumi_plan::validate::{Outcome, pruned, reserved};
use vumi_plan::{Child, Decision, Desired, Note, Reason, Refusal, build, own_template, validate};

/// For what is awaited that no watch tells of, such as a Secret, it is looked again after this time.
const AWAITED: Duration = Duration::from_secs(10);
/// For an object that is being deleted, it is looked again after this time.
const LEAVING: Duration = Duration::from_secs(2);
/// One that is still there after this time is told of.
const STUCK: SignedDuration = SignedDuration::from_secs(10);

/// Looks at a resource and makes what differs as it should be.
pub async fn reconcile(engine: &Engine, key: &Key) -> Looked {
    claims::settle(engine);
    let family = engine.stores.family(key);
    let Some(held) = family.resource.clone().filter(|held| !held.is_deleting()) else {
        engine.secrets.used_by(key, &BTreeSet::new());
        engine.recall.forget(key);
        return Looked::Gone;
    };
    let (resource, unreadable) = match read(key, &held) {
        Ok(resource) => (resource, None),
        // The API server has taken it, so that its definitions are newer than this operator.
        Err(error) => {
            let message = format!(
                "spec: {error}; this operator ({}) is older than the CRDs: upgrade it",
                env!("CARGO_PKG_VERSION")
            );
            let Some(resource) = readable(key, &held) else {
                tracing::warn!(resource = %key, "{message}");
                return Looked::Refused(None);
            };
            (resource, Some(message))
        }
    };
    let look = Look {
        engine,
        key,
        held: &held,
        resource: &resource,
        sighting: &Sighting::new(engine, key, &resource, &family),
    };
    let paused = held.annotation(PAUSED) == Some("true");
    let looked = match (unreadable, reserved(&resource), pruned(&resource)) {
        (None, Some(refusal), _) => look.reserved(&refusal).await,
        (None, None, Some(refusal)) => Ok(look.nothing(&refusal)),
        _ if paused => look.leave_alone().await,
        (Some(message), ..) => {
            let refusal = refusal(Outcome::Stalled, Reason::Invalid, message);
            look.refuse(None, &refusal, None).await
        }
        (None, None, None) => look.through(&family).await,
    };
    let looked = match looked {
        Ok(looked) => looked,
        Err(error) => look.untold(error).await,
    };
    if !matches!(looked, Looked::Failed(_)) {
        let recall = &engine.recall;
        recall.with(key, &held.uid, |known| known.failures = 0);
    }
    looked
}

fn refusal(outcome: Outcome, reason: Reason, message: String) -> Refusal {
    Refusal {
        outcome,
        reason,
        message,
    }
}

/// One look.
struct Look<'a> {
    engine: &'a Engine,
    key: &'a Key,
    held: &'a Held,
    resource: &'a Resource,
    sighting: &'a Sighting,
}

impl Look<'_> {
    async fn through(&self, family: &Family) -> Result<Looked, ApiError> {
        let Self {
            engine,
            key,
            held,
            resource,
            ..
        } = *self;
        let (mut context, secrets) = match dereference(engine, key, resource, family).await {
            Ok(found) => found,
            Err(trouble) => return self.failed(None, trouble, None).await,
        };
        let scaling = decide(engine, key, held, resource, &context, self.sighting, family);
        let handed_over = handed_over(key, held, resource, family);
        context.replicas = scaling.as_ref().map(|d| d.replicas).or(handed_over);
        let scaling = scaling.as_ref();
        let validated = match validate(resource, &context, &engine.settings) {
            Ok(validated) => validated,
            Err(refusal) => return self.refuse(None, &refusal, scaling).await,
        };
        let clash = self.clash();
        if clash.is_some() {
            context.replicas = Some(0);
        }
        let mut desired = build(&validated, &context, &engine.settings);
        let (touched, untouched) = rotate(engine, key, family, &mut desired, &secrets).await;
        if touched > 0 {
            let message =
                format!("a Secret has changed: {touched} pods read it again, none is replaced");
            let event = Event::normal("SecretChanged", message);
            engine.events.tell(key, &held.uid, event).await;
        }
        let own = |workload: &Child| own_template(&validated, &context, &engine.settings, workload);
        let plan = apply::plan(family, &held.uid, &desired, &own);
        if resource.deployment().overrides.is_some()
            && let Err(error) = apply::try_workload(engine, key, &held.uid, &plan).await
        {
            if apply::is_refusal(&error) {
                let message = format!("spec.overrides: {error}");
                let refusal = refusal(Outcome::Stalled, Reason::OverridesInvalid, message);
                return self.refuse(Some(&desired), &refusal, scaling).await;
            }
            let what = "the API server cannot be asked whether it takes the pods".to_owned();
            let trouble = Trouble::new(what, error);
            return self.failed(Some(&desired), trouble, scaling).await;
        }
        let before = self.running(family, &desired);
        let (written, fault) = apply::apply(engine, key, held, &plan).await;
        let after = self.running(&engine.stores.family(key), &desired);
        for event in written::events(before.as_ref(), after.as_ref(), &written) {
            engine.events.tell(key, &held.uid, event).await;
        }
        match fault {
            None => {}
            Some(Fault::Leaving(leaving)) => {
                return self.wait_for(&desired, leaving, scaling).await;
            }
            Some(Fault::Taken(object)) => {
                let message =
                    format!("{object} exists already and is not ours: delete or rename it");
                return self
                    .not_taken(Some(&desired), message, scaling, AWAITED)
                    .await;
            }
            Some(Fault::Call { object, error }) => {
                let what = match error.is_about_the_object() {
                    true => format!("the API server refuses {object}"),
                    false => format!("{object} cannot be written"),
                };
                let trouble = Trouble::new(what, error);
                return self.failed(Some(&desired), trouble, scaling).await;
            }
        }
        let family = engine.stores.family(key);
        let (pruned, unpruned) = prune(engine, key, &family, &desired).await;
        if !pruned.is_empty() {
            let event = Event::normal("Pruned", format!("deleted {}", pruned.join(", ")));
            engine.events.tell(key, &held.uid, event).await;
        }
        let (stuck, soon) = self.stuck(&leaving(&family, &desired));
        if !stuck.is_empty() {
            desired.notes.push(Note {
                reason: Reason::ObjectLeaving.as_str(),
                message: format!("not wanted any more: {}", stuck.join("; ")),
            });
        }
        // Everything is applied all the same.
        let trouble = untouched.or(unpruned);
        if let Some(trouble) = &trouble {
            let message = trouble.sentence();
            tracing::warn!(resource = %key, "{message}; it is tried again");
            if trouble.is_to_be_told(engine, key, &held.uid) {
                desired.notes.push(Note {
                    reason: Reason::ApplyFailed.as_str(),
                    message,
                });
            }
        }
        let told = match &clash {
            Some(refusal) => self.tell(Err(refusal), None, scaling),
            None => self.tell(Ok(&desired), None, scaling),
        };
        let again = told.await?.into_iter().chain(soon);
        // Who gives way has no pods, whoever decides how many.
        let handed_over = handed_over.filter(|_| clash.is_none());
        let again = again.chain(handed_over.map(|_| AWAITED)).min();
        if let Some(trouble) = trouble {
            return Ok(Looked::Failed(trouble.error));
        }
        engine.events.all_is_well(&held.uid);
        let drifted = |written: &Written| matches!(written.need, Need::Drift(_));
        Ok(match written.iter().any(drifted) {
            true => Looked::Corrected,
            false if clash.is_some() => Looked::Refused(again),
            false => Looked::Done(again),
        })
    }

    /// Why it has to give way to another one, if it has to (K18). What a broker said last holds until it says who it is.
    fn clash(&self) -> Option<Refusal> {
        let engine = self.engine;
        if let Some(clash) = engine.claims.lost(&self.held.uid) {
            return Some(clash.refusal());
        }
        let place = Place {
            namespace: self.key.namespace.clone(),
            broker: self.resource.broker(),
        };
        let link = engine.brokers.link(&place);
        if link.is_some_and(|link| link.identity().is_some()) {
            return None;
        }
        let status = Status::of(&self.held.body());
        let stalled = status.condition(ConditionType::Stalled)?;
        let reason = Reason::QueueClash;
        let clashed = stalled.reason == reason.as_str();
        clashed.then(|| refusal(Outcome::Stalled, reason, stalled.message.clone()))
    }

    /// Tells of the resource. Returns when it is to be looked at again at the latest.
    async fn tell(
        &self,
        plan: Result<&Desired, &Refusal>,
        failure: Option<&Refusal>,
        scaling: Option<&Decision>,
    ) -> Result<Option<Duration>, ApiError> {
        let finding = Finding {
            resource: self.resource,
            plan,
            failure,
            scaling,
            left_alone: false,
        };
        status::tell(self.engine, self.key, self.held, self.sighting, &finding).await
    }

    /// Its worker type was pruned: nothing of it is touched, neither its pods nor its status (K2).
    fn nothing(&self, refusal: &Refusal) -> Looked {
        // The definitions may have been rolled back this moment.
        self.engine.cluster.look_again();
        tracing::warn!(resource = %self.key, "{}", refusal.message);
        Looked::Refused(None)
    }

    /// No worker runs this kind. Where the definitions take no write to such a resource, as those of this version, an event says it
    /// instead of its status.
    async fn reserved(&self, refusal: &Refusal) -> Result<Looked, ApiError> {
        match self.tell(Err(refusal), None, None).await {
            Ok(again) => Ok(Looked::Refused(again)),
            Err(error) if error.is_about_the_object() => {
                let event = Event::warning(refusal.reason.as_str(), refusal.message.clone());
                let (events, uid) = (&self.engine.events, &self.held.uid);
                events.tell_once(self.key, uid, event).await;
                Ok(Looked::Refused(None))
            }
            Err(error) => Err(error),
        }
    }

    /// The annotation asks for it.
    async fn leave_alone(&self) -> Result<Looked, ApiError> {
        // By these its broker is asked.
        let secrets = self.resource.secrets().into_keys().collect();
        self.engine.secrets.used_by(self.key, &secrets);
        let message = format!("nothing is touched while the annotation {PAUSED} says true");
        let refusal = refusal(Outcome::Waiting, Reason::ReconciliationPaused, message);
        let finding = Finding {
            resource: self.resource,
            plan: Err(&refusal),
            failure: None,
            scaling: None,
            left_alone: true,
        };
        let told = status::tell(self.engine, self.key, self.held, self.sighting, &finding);
        Ok(Looked::Paused(told.await?))
    }

    /// The workload as the stores know it.
    fn running(&self, family: &Family, desired: &Desired) -> Option<Value> {
        let child = desired.workload()?;
        workload(family, &child.name).map(|held| held.object())
    }

    /// Whoever wants no pods gets none, whatever else is refused.
    async fn suspend(&self) -> Result<(), ApiError> {
        let Self {
            engine, key, held, ..
        } = *self;
        let family = engine.stores.family(key);
        for (object, before) in apply::suspend(engine, key, &family, &held.uid).await? {
            let message = format!(
                "{object} has 0 pods instead of {before}: spec.suspend says so, and nothing else of the spec is applied"
            );
            let event = Event::normal("Scaled", message);
            engine.events.tell(key, &held.uid, event).await;
        }
        Ok(())
    }

    /// Nothing is applied, or not all of it, and nothing pruned: what runs goes on (K3), unless it is suspended. `desired` is what was built, if it was.
    async fn refuse(
        &self,
        desired: Option<&Desired>,
        refusal: &Refusal,
        scaling: Option<&Decision>,
    ) -> Result<Looked, ApiError> {
        let suspended = match self.resource.deployment().suspend {
            true => self.suspend().await,
            false => Ok(()),
        };
        let again = match desired {
            Some(desired) => self.tell(Ok(desired), Some(refusal), scaling).await?,
            None => self.tell(Err(refusal), None, scaling).await?,
        };
        suspended?;
        Ok(match refusal.outcome {
            Outcome::Waiting => Looked::Waiting(again.map_or(AWAITED, |again| again.min(AWAITED))),
            Outcome::Stalled => Looked::Refused(again),
        })
    }

    /// Those that are on their way out for long, as sentences, and after what time the next one will be.
    fn stuck(&self, leaving: &[Leaving]) -> (Vec<String>, Option<Duration>) {
        let (made, now) = (self.held.created, self.sighting.now);
        let (mut stuck, mut soon) = (Vec::new(), None::<Duration>);
        for one in leaving {
            let begun = one.since.or(made).unwrap_or(now);
            match Duration::try_from(STUCK - now.duration_since(begun)) {
                Ok(left) if !left.is_zero() => soon = soon.into_iter().chain([left]).min(),
                _ => stuck.push(one.sentence(made)),
            }
        }
        (stuck, soon)
    }

    /// Waits for objects that are in the way, and tells of those that are for long.
    async fn wait_for(
        &self,
        desired: &Desired,
        leaving: Vec<Leaving>,
        scaling: Option<&Decision>,
    ) -> Result<Looked, ApiError> {
        let (stuck, _) = self.stuck(&leaving);
        if stuck.is_empty() {
            tracing::debug!(resource = %self.key, "waits for objects that are being deleted");
            return Ok(Looked::Waiting(LEAVING));
        }
        let message = stuck.join("; ");
        let refusal = refusal(Outcome::Waiting, Reason::ObjectLeaving, message);
        self.refuse(Some(desired), &refusal, scaling).await
    }

    /// Refused by the cluster, which may think better of it: it is tried again, with longer and longer pauses.
    async fn not_taken(
        &self,
        desired: Option<&Desired>,
        message: String,
        scaling: Option<&Decision>,
        pause: Duration,
    ) -> Result<Looked, ApiError> {
        let reason = Reason::ApplyFailed;
        let refusal = refusal(Outcome::Waiting, reason, message.clone());
        self.refuse(desired, &refusal, scaling).await?;
        let refused = ApiError::Refused {
            code: 409,
            reason: reason.as_str().into(),
            message,
            retry_after: Some(pause),
        };
        Ok(Looked::Failed(refused))
    }

    /// A call went wrong, and nothing goes on without it. What runs goes on, unless it is suspended. The status tells of it, unless
    /// it may pass by itself.
    async fn failed(
        &self,
        desired: Option<&Desired>,
        trouble: Trouble,
        scaling: Option<&Decision>,
    ) -> Result<Looked, ApiError> {
        let (engine, key) = (self.engine, self.key);
        if matches!(trouble.error, ApiError::Closed(_)) {
            return Err(trouble.error);
        }
        if trouble.error.is_about_a_namespace_that_goes() {
            return Ok(Looked::Gone);
        }
        if trouble.is_to_be_told(engine, key, &self.held.uid) {
            let pause = trouble.error.retry_after().unwrap_or_default();
            let message = trouble.sentence();
            return self
                .not_taken(desired, message, scaling, pause.max(AWAITED))
                .await;
        }
        tracing::warn!(resource = %key, "{}; it is tried again", trouble.sentence());
        if self.resource.deployment().suspend {
            self.suspend().await?;
        }
        Ok(Looked::Failed(trouble.error))
    }

    /// The status could not be written, or nothing may be written now.
    async fn untold(&self, error: ApiError) -> Looked {
        let Self {
            engine, key, held, ..
        } = *self;
        match &error {
            ApiError::Closed(why) => tracing::debug!(resource = %key, why, "left alone"),
            // The namespace, or the resource itself, is going: there is nothing left to do.
            error if error.is_not_found() => {
                tracing::debug!(resource = %key, %error, "something is not there any more");
            }
            error if error.is_about_the_object() => {
                let event = Event::warning("ReconcileFailed", error.to_string());
                engine.events.tell_once(key, &held.uid, event).await;
            }
            error => tracing::warn!(resource = %key, %error, "failed; it is tried again"),
        }
        Looked::Failed(error)
    }
}
