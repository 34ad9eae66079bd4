//! What the watches have told, by the resource to which it belongs. Reconciling reads this and nothing else of the cluster.

use super::kinds::{ObjectKind, Part};
use super::packed::Packer;
use super::seen::Held;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vumi_api::Kind;

/// Names a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str().to_lowercase();
        write!(f, "{kind}/{}/{}", self.namespace, self.name)
    }
}

/// A resource and what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// The resource. None once it is gone, while something of it is still there.
    pub resource: Option<Arc<Held>>,
    /// Its children and what Kubernetes made for these, by kind and name.
    others: Vec<Arc<Held>>,
}

impl Family {
    /// Its children and what Kubernetes made for these.
    pub fn others(&self) -> impl Iterator<Item = &Held> {
        self.others.iter().map(AsRef::as_ref)
    }

    /// The child of that kind and name.
    pub fn child(&self, kind: &str, name: &str) -> Option<&Held> {
        let at = self.position(kind, name).ok()?;
        Some(&self.others[at])
    }

    /// All objects of a kind.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Held> {
        self.others().filter(move |held| held.kind.kind == kind)
    }

    /// Where an object stands among the others, or would.
    fn position(&self, kind: &str, name: &str) -> Result<usize, usize> {
        let place = |held: &Arc<Held>| (held.kind.kind, &*held.name).cmp(&(kind, name));
        self.others.binary_search_by(place)
    }
}

/// What changed with an object that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is as it was, or older than what is there.
    None,
    /// Something.
    Some,
    /// Somebody edited the resource itself, or it is new or gone.
    Edit,
}

/// The stores.
#[derive(Debug, Default)]
pub struct Stores {
    /// Packs what is put in.
    pub packer: Packer,
    families: Mutex<HashMap<Key, Family>>,
}

impl Stores {
    fn families(&self) -> MutexGuard<'_, HashMap<Key, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A resource and what belongs to it.
    pub fn family(&self, key: &Key) -> Family {
        self.families().get(key).cloned().unwrap_or_default()
    }

    /// Puts in an object as it is now. Older news than what is there change nothing: the answer to a write is often here
    /// before the watch tells of it.
    pub fn put(&self, key: &Key, held: Held) -> Change {
        let mut families = self.families();
        let family = families.entry(key.clone()).or_default();
        let older = |known: &Held| known.uid == held.uid && known.version >= held.version;
        let Part::Resource(_) = held.kind.part else {
            match family.position(held.kind.kind, &held.name) {
                Ok(at) if older(&family.others[at]) => return Change::None,
                Ok(at) => family.others[at] = Arc::new(held),
                Err(at) => family.others.insert(at, Arc::new(held)),
            }
            return Change::Some;
        };
        let known = family.resource.as_deref();
        if known.is_some_and(older) {
            return Change::None;
        }
        let same = known.is_some_and(|known| {
            known.uid == held.uid
                && known.generation == held.generation
                && known.is_deleting() == held.is_deleting()
                && known.is_annotated_like(&held)
        });
        family.resource = Some(Arc::new(held));
        if same { Change::Some } else { Change::Edit }
    }

    /// Takes out an object that is gone; one that was made anew under its name stays.
    pub fn remove(&self, kind: &'static ObjectKind, key: &Key, name: &str, uid: &str) -> Change {
        self.take(kind, key, name, |known| *known.uid == *uid)
    }

    /// Takes out an object of which the API server has taken the deletion. What a watch has told of it meanwhile stays: it may hang
    /// in its deletion.
    pub fn deleted(&self, key: &Key, held: &Held) -> Change {
        let is_it = |known: &Held| known.uid == held.uid && known.version <= held.version;
        self.take(held.kind, key, &held.name, is_it)
    }

    fn take(
        &self,
        kind: &'static ObjectKind,
        key: &Key,
        name: &str,
        is_it: impl Fn(&Held) -> bool,
    ) -> Change {
        let mut families = self.families();
        let Some(family) = families.get_mut(key) else {
            return Change::None;
        };
        let change = match kind.part {
            Part::Resource(_) => {
                let gone = family.resource.take_if(|known| is_it(known));
                if gone.is_some() {
                    Change::Edit
                } else {
                    Change::None
                }
            }
            _ => match family.position(kind.kind, name) {
                Ok(at) if is_it(&family.others[at]) => {
                    family.others.remove(at);
                    Change::Some
                }
                _ => Change::None,
            },
        };
        if family.resource.is_none() && family.others.is_empty() {
            families.remove(key);
        }
        change
    }

    /// Takes out all objects of a kind, of one namespace or all, that a new list did not have. Returns whose they were.
    pub fn sweep(
        &self,
        kind: &'static ObjectKind,
        namespace: Option<&str>,
        listed: &HashSet<(String, String)>,
    ) -> Vec<Key> {
        let mut touched = Vec::new();
        let mut families = self.families();
        families.retain(|key, family| {
            if namespace.is_some_and(|namespace| namespace != key.namespace) {
                return true;
            }
            let known = |name: &str| listed.contains(&(key.namespace.clone(), name.to_owned()));
            let before = (family.resource.is_some(), family.others.len());
            match kind.part {
                Part::Resource(of) if of == key.kind => {
                    family.resource.take_if(|held| !known(&held.name));
                }
                Part::Resource(_) => {}
                _ => family
                    .others
                    .retain(|held| held.kind.kind != kind.kind || known(&held.name)),
            }
            if before != (family.resource.is_some(), family.others.len()) {
                touched.push(key.clone());
            }
            family.resource.is_some() || !family.others.is_empty()
        });
        touched
    }

    /// All resources.
    pub fn keys(&self) -> Vec<Key> {
        let families = self.families();
        let there = families
            .iter()
            .filter(|(_, family)| family.resource.is_some());
        there.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::seen::{Seen, hold};
    use serde_json::json;
    use vumi_plan::names::{KIND, NAME};

    fn key() -> Key {
        Key {
            kind: Kind::Transport,
            namespace: "n".into(),
            name: "t".into(),
        }
    }

    fn held(kind: &str, name: &str, uid: &str, version: u64, generation: i64) -> Held {
        let object = json!({"metadata": {
            "name": name,
            "namespace": "n",
            "uid": uid,
            "resourceVersion": version.to_string(),
            "generation": generation,
            "labels": {KIND: "Transport", NAME: "t"},
        }});
        let kind = ObjectKind::named(kind).unwrap();
        let seen: Seen<false> = serde_json::from_value(object).unwrap();
        let (of, held) = hold(kind, seen, &Packer::default()).unwrap();
        assert_eq!(of, key());
        held
    }

    fn kind(name: &str) -> &'static ObjectKind {
        ObjectKind::named(name).unwrap()
    }

    #[test]
    fn older_news_change_nothing() {
        let stores = Stores::default();
        let service = kind("Service");
        assert_eq!(
            stores.put(&key(), held("Service", "s", "1", 7, 0)),
            Change::Some
        );
        assert_eq!(
            stores.put(&key(), held("Service", "s", "1", 7, 0)),
            Change::None
        );
        assert_eq!(
            stores.put(&key(), held("Service", "s", "1", 6, 0)),
            Change::None
        );
        assert_eq!(
            stores.put(&key(), held("Service", "s", "2", 5, 0)),
            Change::Some,
            "made anew"
        );
        assert_eq!(
            stores.remove(service, &key(), "s", "1"),
            Change::None,
            "the old one"
        );
        assert_eq!(stores.remove(service, &key(), "s", "2"), Change::Some);
        assert!(stores.families().is_empty());
    }

    #[test]
    fn what_was_told_of_it_after_its_deletion_stays() {
        let stores = Stores::default();
        let deleted = held("Service", "s", "1", 7, 0);
        for (told, change) in [(6, Change::Some), (7, Change::Some), (8, Change::None)] {
            stores.put(&key(), held("Service", "s", "1", told, 0));
            assert_eq!(stores.deleted(&key(), &deleted), change, "{told}");
        }
        assert!(stores.family(&key()).child("Service", "s").is_some());
        stores.put(&key(), held("Service", "s", "2", 3, 0));
        let another = stores.deleted(&key(), &deleted);
        assert_eq!(another, Change::None, "made anew");
    }

    #[test]
    fn an_edit_is_told_from_a_status() {
        let stores = Stores::default();
        let transport = kind("Transport");
        assert_eq!(
            stores.put(&key(), held("Transport", "t", "1", 1, 1)),
            Change::Edit
        );
        assert_eq!(
            stores.put(&key(), held("Transport", "t", "1", 2, 1)),
            Change::Some
        );
        assert_eq!(
            stores.put(&key(), held("Transport", "t", "1", 3, 2)),
            Change::Edit
        );
        assert_eq!(stores.remove(transport, &key(), "t", "1"), Change::Edit);
        assert!(stores.keys().is_empty());
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let stores = Stores::default();
        stores.put(&key(), held("Transport", "t", "1", 1, 1));
        stores.put(&key(), held("Service", "a", "2", 1, 1));
        stores.put(&key(), held("Service", "b", "3", 1, 1));
        let listed = HashSet::from([("n".to_owned(), "a".to_owned())]);
        assert_eq!(stores.sweep(kind("Service"), Some("other"), &listed), []);
        assert_eq!(stores.sweep(kind("Service"), None, &listed), [key()]);
        assert_eq!(stores.sweep(kind("Application"), None, &listed), []);
        let family = stores.family(&key());
        assert!(family.child("Service", "a").is_some() && family.child("Service", "b").is_none());
        assert!(family.resource.is_some());
    }
}
