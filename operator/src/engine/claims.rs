//! Which resources use which virtual host and which queues there, and who of them has to give way (K18).

use super::Engine;
use super::spec;
use super::store::Key;
use crate::brokers::Place;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vumi_api::Resource;
use vumi_plan::{BrokerIdentity, Claim, Clash, clashes};

/// What one resource uses.
struct Use {
    place: Place,
    /// Where its workers say how they are.
    connector: String,
    /// Whether the operator decides how many pods it has.
    scaled: bool,
    claim: Claim,
}

#[derive(Default)]
struct State {
    uses: HashMap<Key, Use>,
    /// Whether who has lost is to be found out anew.
    stale: bool,
    lost: BTreeMap<String, Clash>,
}

/// What all resources use.
#[derive(Default)]
pub struct Claims(Mutex<State>);

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connectors by virtual host.
    pub fn places(&self) -> HashMap<Place, BTreeSet<String>> {
        let mut places: HashMap<Place, BTreeSet<String>> = HashMap::new();
        for used in self.state().uses.values() {
            let connectors = places.entry(used.place.clone()).or_default();
            connectors.insert(used.connector.clone());
        }
        places
    }

    /// The resources of a virtual host that are meant, by the queues that they read and whether they are scaled.
    pub fn readers(
        &self,
        place: &Place,
        are_meant: impl Fn(&BTreeSet<String>, bool) -> bool,
    ) -> Vec<Key> {
        let state = self.state();
        let those = state.uses.iter().filter(|(_, used)| used.place == *place);
        let those = those.filter(|(_, used)| are_meant(&used.claim.queues, used.scaled));
        those.map(|(key, _)| key.clone()).collect()
    }

    /// The resources whose workers speak on a connector.
    pub fn speakers(&self, place: &Place, connector: &str) -> Vec<Key> {
        let state = self.state();
        let those = state.uses.iter();
        let those = those.filter(|(_, used)| used.connector == connector && used.place == *place);
        those.map(|(key, _)| key.clone()).collect()
    }

    /// All queues that are read in a virtual host.
    pub fn queues(&self, place: &Place) -> BTreeSet<String> {
        let state = self.state();
        let those = state.uses.values().filter(|used| used.place == *place);
        those
            .flat_map(|used| used.claim.queues.iter().cloned())
            .collect()
    }

    /// To whom the resource with this uid has to give way.
    pub fn lost(&self, uid: &str) -> Option<Clash> {
        self.state().lost.get(uid).cloned()
    }
}

/// The connector on which the workers of a resource say how they are.
pub fn connector(resource: &Resource) -> &str {
    match resource.kind() {
        vumi_api::Kind::Transport => resource.transport_name(),
        _ => &resource.name,
    }
}

/// Somebody edited a resource, or it is new or gone.
pub fn note(engine: &Engine, key: &Key) {
    let family = engine.stores.family(key);
    let held = family.resource.filter(|held| !held.deleting);
    let used = held.and_then(|held| {
        let resource = match spec::read(key, &held) {
            Ok(resource) => resource.worker_type().map(|_| resource)?,
            // Its pods run on, and its broker is asked about them, unless nobody can read which one that is.
            Err(_) => {
                let resource = spec::readable(key, &held)?;
                let written = !held.body()["spec"]["broker"].is_null();
                let known = !written || resource.settings().broker.is_some();
                known.then_some(resource)?
            }
        };
        let created = held.created.unwrap_or(Timestamp::MAX);
        Some(Use {
            place: Place {
                namespace: key.namespace.clone(),
                broker: resource.broker(),
            },
            connector: connector(&resource).to_owned(),
            scaled: resource.deployment().autoscaling.is_some(),
            claim: Claim::of(&resource, &key.namespace, &held.uid, created, None),
        })
    });
    let mut state = engine.claims.state();
    state.stale = true;
    match used {
        Some(used) => {
            state.uses.insert(key.clone(), used);
        }
        None => {
            state.uses.remove(key);
        }
    }
    drop(state);
    engine.brokers.changed();
}

/// A broker has said who it is.
pub fn unsettle(engine: &Engine) {
    engine.claims.state().stale = true;
    settle(engine);
}

/// Finds out who has to give way, if that may have changed; who has to or need not any more is looked at.
pub fn settle(engine: &Engine) {
    let mut identities: HashMap<Place, Option<BrokerIdentity>> = HashMap::new();
    let mut state = engine.claims.state();
    if !std::mem::take(&mut state.stale) {
        return;
    }
    let claims: Vec<Claim> = state
        .uses
        .values()
        .map(|used| {
            let identity = identities.entry(used.place.clone()).or_insert_with(|| {
                let link = engine.brokers.link(&used.place);
                link.and_then(|link| link.identity())
            });
            Claim {
                broker: identity.clone(),
                ..used.claim.clone()
            }
        })
        .collect();
    let lost = clashes(&claims);
    let before = std::mem::replace(&mut state.lost, lost);
    let changed = state.uses.iter().filter(|(_, used)| {
        let uid = &used.claim.uid;
        before.get(uid) != state.lost.get(uid)
    });
    let changed: Vec<Key> = changed.map(|(key, _)| key.clone()).collect();
    drop(state);
    for key in changed {
        engine.queue.add(key, Duration::ZERO);
    }
}
