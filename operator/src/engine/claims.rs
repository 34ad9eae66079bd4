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

/// What one resource uses of its virtual host.
struct Use {
    /// Where its workers say how they are.
    connector: String,
    /// Whether the operator decides how many pods it has.
    scaled: bool,
    claim: Claim,
}

#[derive(Default)]
struct State {
    uses: HashMap<Place, HashMap<Key, Use>>,
    /// Whether who has lost is to be found out anew.
    stale: bool,
    lost: BTreeMap<String, Clash>,
}

impl State {
    /// What is used of a virtual host, and by whom.
    fn of(&self, place: &Place) -> impl Iterator<Item = (&Key, &Use)> {
        self.uses.get(place).into_iter().flatten()
    }

    /// Notes what a resource uses now.
    fn note(&mut self, key: &Key, now: Option<(Place, Use)>) {
        self.stale = true;
        let (place, used) = now.unzip();
        self.uses.retain(|of, users| {
            if of.namespace == key.namespace && Some(of) != place.as_ref() {
                users.remove(key);
            }
            !users.is_empty()
        });
        if let (Some(place), Some(used)) = (place, used) {
            let users = self.uses.entry(place).or_default();
            users.insert(key.clone(), used);
        }
    }
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
        let state = self.state();
        let connectors = |users: &HashMap<Key, Use>| {
            let users = users.values();
            users.map(|used| used.connector.clone()).collect()
        };
        let places = state.uses.iter();
        places
            .map(|(place, users)| (place.clone(), connectors(users)))
            .collect()
    }

    /// The resources of a virtual host that are meant, by the queues that they read and whether they are scaled.
    pub fn readers(&self, place: &Place, are_meant: impl Fn(&[String], bool) -> bool) -> Vec<Key> {
        let state = self.state();
        let those = state.of(place);
        let those = those.filter(|(_, used)| are_meant(&used.claim.queues, used.scaled));
        those.map(|(key, _)| key.clone()).collect()
    }

    /// The resources whose workers speak on a connector.
    pub fn speakers(&self, place: &Place, connector: &str) -> Vec<Key> {
        let state = self.state();
        let those = state.of(place);
        let those = those.filter(|(_, used)| used.connector == connector);
        those.map(|(key, _)| key.clone()).collect()
    }

    /// All queues that are read in a virtual host.
    pub fn queues(&self, place: &Place) -> BTreeSet<String> {
        let state = self.state();
        let queues = state.of(place).map(|(_, used)| &used.claim.queues);
        queues.flatten().cloned().collect()
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
    let held = family.resource.filter(|held| !held.is_deleting());
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
        let place = Place {
            namespace: key.namespace.clone(),
            broker: resource.broker(),
        };
        let used = Use {
            connector: connector(&resource).to_owned(),
            scaled: resource.deployment().autoscaling.is_some(),
            claim: Claim::of(&resource, &key.namespace, &held.uid, created),
        };
        Some((place, used))
    });
    engine.claims.state().note(key, used);
    engine.brokers.changed();
}

/// A broker has said who it is.
pub fn unsettle(engine: &Engine) {
    engine.claims.state().stale = true;
    settle(engine);
}

/// Finds out who has to give way, if that may have changed; who has to or need not any more is looked at.
pub fn settle(engine: &Engine) {
    let mut state = engine.claims.state();
    if !std::mem::take(&mut state.stale) {
        return;
    }
    // Where a broker has not said who it is, nothing can clash.
    let known: Vec<(BrokerIdentity, &HashMap<Key, Use>)> = state
        .uses
        .iter()
        .filter_map(|(place, users)| Some((engine.brokers.link(place)?.identity()?, users)))
        .collect();
    let claims = known
        .iter()
        .flat_map(|(broker, users)| users.values().map(move |used| (broker, &used.claim)));
    let lost = clashes(claims);
    let before = std::mem::replace(&mut state.lost, lost);
    let changed = state.uses.values().flatten().filter(|(_, used)| {
        let uid = &used.claim.uid;
        before.get(uid) != state.lost.get(uid)
    });
    let changed: Vec<Key> = changed.map(|(key, _)| key.clone()).collect();
    drop(state);
    for key in changed {
        engine.queue.add(key, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_api::Kind;

    fn used(vhost: &str, uid: &str) -> Option<(Place, Use)> {
        let text = format!(
            "echo: {{}}\ntransportName: sms\nbroker: {{secretRef: {{name: b}}, vhost: {vhost}}}"
        );
        let spec = serde_yaml::from_str(&text).unwrap();
        let resource = Resource {
            name: uid.into(),
            namespace: Some("n".into()),
            spec: vumi_api::Spec::from_json(Kind::Application, spec).unwrap(),
        };
        let place = Place {
            namespace: "n".into(),
            broker: resource.broker(),
        };
        let used = Use {
            connector: "sms".into(),
            scaled: false,
            claim: Claim::of(&resource, "n", uid, Timestamp::MAX),
        };
        Some((place, used))
    }

    #[test]
    fn who_moves_to_another_virtual_host_is_there_alone() {
        let key = |name: &str| Key {
            kind: Kind::Application,
            namespace: "n".into(),
            name: name.into(),
        };
        let mut state = State::default();
        let users = |state: &State, vhost: &str| {
            let (place, _) = used(vhost, "").unwrap();
            let users = state.of(&place).map(|(key, _)| key.name.clone());
            users.collect::<BTreeSet<_>>()
        };
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        for name in ["a", "b"] {
            state.note(&key(name), used("one", name));
        }
        assert_eq!(users(&state, "one"), names(&["a", "b"]));
        state.note(&key("a"), used("two", "a"));
        assert_eq!(users(&state, "one"), names(&["b"]));
        assert_eq!(users(&state, "two"), names(&["a"]));
        // Who is gone leaves nothing behind.
        state.note(&key("b"), None);
        assert_eq!(state.uses.len(), 1);
        state.note(&key("a"), None);
        assert!(state.uses.is_empty());
    }
}
