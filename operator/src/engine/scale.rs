//! How many pods a resource has, where that is decided here: one step for each reading of its broker.

use super::Engine;
use super::seen::Held;
use super::sight::Sighting;
use super::store::{Family, Key};
use crate::dereference::workload;
use vumi_api::shared::state::DEFAULT_STATE_SECRET;
use vumi_api::{Resource, Status};
use vumi_plan::{Context, Decision, Demand, Names, Scaler, Unread, Workload};

/// What is decided now; none where somebody else decides.
pub fn decide(
    engine: &Engine,
    key: &Key,
    held: &Held,
    resource: &Resource,
    context: &Context,
    sighting: &Sighting,
    family: &Family,
) -> Option<Decision> {
    let deployment = resource.deployment();
    engine.recall.with(key, &held.uid, |known| {
        let Some(bounds) = &deployment.autoscaling else {
            known.scaler = None;
            return None;
        };
        let begun = match known.scaler.take() {
            Some(scaler) => *scaler,
            None => match Status::of(&held.body()).autoscaling {
                Some(last) => Scaler::resume(&last, sighting.now),
                None => {
                    let replicas = running(key, resource, family).unwrap_or(1);
                    Scaler::begin(replicas, sighting.now)
                }
            },
        };
        let looked = sighting.broker.unread != Some(Unread::NotYet);
        let scaler = match looked && known.reading != sighting.reading && !deployment.suspend {
            true => {
                known.reading = sighting.reading;
                let has_store = resource.settings().state.is_some()
                    || context.secrets.contains_key(DEFAULT_STATE_SECRET);
                let demand = Demand::of(&sighting.of(resource), has_store);
                let ready = sighting.pods.iter().filter(|pod| pod.ready).count();
                let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                begun.step(bounds, demand.as_ref(), ready, sighting.now)
            }
            false => begun,
        };
        let decision = scaler.decision().clone();
        known.scaler = Some(Box::new(scaler));
        Some(decision)
    })
}

/// How many pods stay for one look after `autoscaling` was removed, before `replicas` says it (K8): as many as there are. None at any
/// other time.
pub fn handed_over(key: &Key, held: &Held, resource: &Resource, family: &Family) -> Option<u16> {
    if resource.deployment().autoscaling.is_some() {
        return None;
    }
    let last = Status::of(&held.body()).autoscaling?;
    Some(running(key, resource, family).unwrap_or(last.desired_replicas))
}

/// How many pods there are to be, as it runs.
fn running(key: &Key, resource: &Resource, family: &Family) -> Option<u16> {
    let child = Names::new(resource, &key.namespace, None).child();
    let runs = Workload::of(&workload(family, &child)?.object());
    Some(u16::try_from(runs.wanted).unwrap_or(u16::MAX))
}
