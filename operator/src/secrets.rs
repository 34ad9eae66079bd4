//! What is known of Secrets: which keys they have and which revision they are; values only pass through (K15). They are read by name, with
//! the verb `get` alone; each is read once for all its users, again every minute, and when one of these is looked at.

use crate::client::{Api, ApiError};
use crate::engine::kinds::{ObjectKind, plain};
use crate::engine::store::Key;
use rand::RngExt;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use vumi_plan::secret::Mark;
use vumi_plan::{SecretFacts, secret};

/// A change is noticed within this time.
const EVERY: Duration = Duration::from_secs(60);
/// What was read so lately is not read again.
const FRESH: Duration = Duration::from_secs(5);
/// Secrets that are read at one time, at most.
const AT_ONCE: usize = 4;
/// resourceVersions of a Secret that are known to hold the same, at most.
const VERSIONS: usize = 32;

pub(crate) static SECRET: ObjectKind = plain("", "v1", "Secret", "secrets");

/// Names a Secret: namespace and name.
type Name = (String, String);

#[derive(Default)]
struct Entry {
    /// What it was when it was last read; none if it was not there.
    last: Option<Reading>,
    read: Option<Instant>,
    /// When it is read again.
    due: Option<Instant>,
    /// Whether somebody says that it has changed since.
    stale: bool,
    users: HashSet<Key>,
    /// One reader at a time; others take what it found.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// A Secret as it was read.
struct Reading {
    facts: SecretFacts,
    /// A hash of what it held, with a key that only this process has: by it nobody can try passwords.
    content: u64,
    /// Who has written its data, and when.
    written: String,
    /// Whether they wrote something else within the same second, so that this does not tell it apart.
    twice: bool,
    /// The resourceVersions with which it was read and held the same, newest last.
    versions: VecDeque<String>,
}

impl Reading {
    /// What a Secret is now, beside what it was. The API server says in whole seconds when it was written, and of a program that
    /// has written both a value and a label only when it wrote last: what it holds decides, as long as there is something to
    /// compare it with.
    fn now(secret: &Value, last: Option<&Self>, keyed: &RandomState) -> Self {
        let mut facts = secret::facts(secret);
        let written = facts.revision.clone();
        let content = keyed.hash_one(secret["data"].to_string());
        let version = secret::version(secret);
        let (mut versions, mut twice) = (VecDeque::new(), false);
        if let Some(last) = last {
            let same_write = last.written == written;
            if last.content == content {
                facts.revision.clone_from(&last.facts.revision);
                versions.clone_from(&last.versions);
                twice = same_write && last.twice;
            } else if same_write {
                facts.revision = format!("{written}-{version}");
                twice = true;
            }
        }
        if versions.back().is_none_or(|last| last != version) {
            versions.push_back(version.to_owned());
        }
        while versions.len() > VERSIONS {
            versions.pop_front();
        }
        Self {
            facts,
            content,
            written,
            twice,
            versions,
        }
    }

    /// What it is for a worker that was told this of it before: as long as it holds the same, that stays, whoever leads.
    fn beside(&self, told: Option<&Mark>) -> (Mark, SecretFacts) {
        let same = |told: &&Mark| {
            self.versions.contains(&told.version) || !self.twice && told.written == self.written
        };
        let mut facts = self.facts.clone();
        if let Some(told) = told.filter(same) {
            facts.revision.clone_from(&told.revision);
        }
        let mark = Mark {
            version: self.versions.back().cloned().unwrap_or_default(),
            written: self.written.clone(),
            revision: facts.revision.clone(),
        };
        (mark, facts)
    }
}

/// What is known of Secrets.
pub struct Secrets {
    api: Api,
    keyed: RandomState,
    entries: Mutex<HashMap<Name, Entry>>,
    /// Users of one that has changed who have not heard of it.
    concerned: Mutex<HashSet<Key>>,
}

impl Secrets {
    /// Nothing is known yet.
    pub fn new(api: Api) -> Self {
        Self {
            api,
            keyed: RandomState::new(),
            entries: Mutex::default(),
            concerned: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn concerned(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.concerned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which Secrets a resource reads; it does not read others any more.
    pub fn used_by(&self, key: &Key, names: &BTreeSet<String>) {
        let mut entries = self.entries();
        entries.retain(|(namespace, name), entry| {
            let used = *namespace == key.namespace && names.contains(name);
            if !used {
                entry.users.remove(key);
            }
            !entry.users.is_empty()
        });
        for name in names {
            let new = || Entry {
                due: Some(Instant::now()),
                ..Entry::default()
            };
            let place = (key.namespace.clone(), name.clone());
            let entry = entries.entry(place).or_insert_with(new);
            entry.users.insert(key.clone());
        }
    }

    /// What a Secret is for a worker that was told this of it before, and what to note of that. None if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn facts(
        &self,
        namespace: &str,
        name: &str,
        told: Option<&Mark>,
    ) -> Result<Option<(Mark, SecretFacts)>, ApiError> {
        let place = (namespace.to_owned(), name.to_owned());
        self.read(&place).await?;
        Ok(self
            .entries()
            .get(&place)
            .and_then(|entry| Some(entry.last.as_ref()?.beside(told))))
    }

    /// Revision and values of a Secret, for whoever speaks to what it is for; they are kept nowhere here. None if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn values(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(String, BTreeMap<String, String>)>, ApiError> {
        if !is_name(name) {
            return Ok(None);
        }
        match self.api.get(&SECRET.path(namespace, name)).await {
            Ok(secret) => {
                let place = (namespace.to_owned(), name.to_owned());
                let entries = self.entries();
                let last = entries.get(&place).and_then(|entry| entry.last.as_ref());
                let seen = Reading::now(&secret, last, &self.keyed);
                Ok(Some((seen.facts.revision, secret::values(&secret))))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Somebody says that a Secret has changed: if it is used, it is read again at once.
    pub fn has_changed(&self, namespace: &str, name: &str) {
        let place = (namespace.to_owned(), name.to_owned());
        if let Some(entry) = self.entries().get_mut(&place) {
            entry.stale = true;
            entry.due = Some(Instant::now());
        }
    }

    /// The revision that a Secret had when it was last read, if it was.
    pub fn revision(&self, namespace: &str, name: &str) -> Option<String> {
        let place = (namespace.to_owned(), name.to_owned());
        let entries = self.entries();
        let last = entries.get(&place)?.last.as_ref()?;
        Some(last.facts.revision.clone())
    }

    /// Reads a Secret, unless somebody just did.
    async fn read(&self, place: &Name) -> Result<(), ApiError> {
        let reading = Arc::clone(&self.entries().entry(place.clone()).or_default().reading);
        let _turn = reading.lock().await;
        if let Some(entry) = self.entries().get_mut(place) {
            let fresh = entry.read.is_some_and(|read| read.elapsed() < FRESH);
            if fresh && !entry.stale {
                return Ok(());
            }
            // What is said from here on may be later than what is read here.
            entry.stale = false;
        }
        let (namespace, name) = place;
        let found = match is_name(name) {
            true => self.api.get(&SECRET.path(namespace, name)).await,
            // No Secret is called so, and no other object is to be read in its place.
            false => Ok(Value::Null),
        };
        let found = match found {
            Ok(Value::Null) => None,
            Ok(secret) => Some(secret),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                // Not at once again, but not much later either.
                if let Some(entry) = self.entries().get_mut(place) {
                    entry.due = Some(Instant::now() + FRESH);
                }
                return Err(error);
            }
        };
        let now = Instant::now();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(place) else {
            return Ok(());
        };
        let first = entry.read.is_none();
        let seen = found.map(|secret| Reading::now(&secret, entry.last.as_ref(), &self.keyed));
        // Another version of the same is noted, too, for whoever leads next.
        let told = |reading: &Option<Reading>| reading.as_ref().map(|it| it.beside(None));
        let changed = !first && told(&entry.last) != told(&seen);
        entry.last = seen;
        entry.read = Some(now);
        // At most the whole time after the last one, and not all in step.
        let pause = EVERY.mul_f64(rand::rng().random_range(0.75..=0.95));
        entry.due = Some(if entry.stale { now } else { now + pause });
        // Whoever found it, all of them have to hear of it.
        if changed {
            self.concerned().extend(entry.users.iter().cloned());
        }
        Ok(())
    }

    /// Reads again what is due, for as long as it is polled; `changed` hears of every user of one that changed.
    pub async fn run(&self, changed: impl Fn(Key)) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            let due: Vec<Name> = {
                let entries = self.entries();
                let due = |entry: &Entry| entry.due.is_some_and(|due| due <= now);
                let due = entries.iter().filter(|(_, entry)| due(entry));
                due.map(|(place, _)| place.clone()).collect()
            };
            for some in due.chunks(AT_ONCE) {
                let read = some.iter().map(|place| self.read(place));
                for (result, (namespace, name)) in
                    futures::future::join_all(read).await.into_iter().zip(some)
                {
                    if let Err(error) = result {
                        tracing::warn!(namespace, secret = name, %error, "a Secret cannot be read");
                    }
                }
            }
            let concerned = std::mem::take(&mut *self.concerned());
            concerned.into_iter().for_each(&changed);
        }
    }
}

/// Whether an object can have that name.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|c| letter(c) || c == '-' || c == '.')
        && name.starts_with(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_secret_holds_decides_whether_it_has_changed() {
        let keyed = RandomState::new();
        let secret = |value: &str, version: &str, second: u8| {
            let time = format!("2026-11-27T12:00:{second:02}Z");
            let wrote = json!([{"manager": "flux", "operation": "Apply", "time": time, "fieldsV1": {"f:data": {}}}]);
            let metadata = json!({"uid": "u", "resourceVersion": version, "managedFields": wrote});
            json!({"metadata": metadata, "data": {"password": value}})
        };
        let first = Reading::now(&secret("YQ==", "1", 0), None, &keyed);
        let revision = |secret: &Value| Reading::now(secret, Some(&first), &keyed).facts.revision;
        // The same program gave it a label.
        assert_eq!(revision(&secret("YQ==", "2", 1)), first.facts.revision);
        // It wrote again within the second.
        let again = secret("Yg==", "3", 0);
        let second = Reading::now(&again, Some(&first), &keyed);
        assert_ne!(second.facts.revision, first.facts.revision);
        let same = Reading::now(&again, Some(&second), &keyed);
        assert_eq!(same.facts.revision, second.facts.revision);
        assert_ne!(revision(&secret("Yg==", "4", 2)), first.facts.revision);
        let third = Reading::now(&secret("Yw==", "4", 0), Some(&second), &keyed);
        assert_ne!(third.facts.revision, first.facts.revision);
        assert_ne!(third.facts.revision, second.facts.revision);
    }

    /// What a worker was told goes on for what holds the same, and for nothing else.
    #[test]
    fn what_was_told_stays_while_a_secret_holds_the_same() {
        let keyed = RandomState::new();
        let read = |value: &str, version: &str, who: &str, last: Option<&Reading>| {
            let wrote = json!([{"manager": who, "operation": "Apply", "time": "t", "fieldsV1": {"f:data": {}}}]);
            let metadata = json!({"uid": "u", "resourceVersion": version, "managedFields": wrote});
            let secret = json!({"metadata": metadata, "data": {"password": value}});
            Reading::now(&secret, last, &keyed)
        };
        let told = |reading: &Reading, version: &str, written: &str| {
            let (version, written) = (version.to_owned(), written.to_owned());
            let revision = "told".to_owned();
            let mark = Mark {
                version,
                written,
                revision,
            };
            reading.beside(Some(&mark)).1.revision == "told"
        };
        let first = read("YQ==", "5", "helm", None);
        // Read as 5 and as 7; what 6 was, another operator has read.
        let again = read("YQ==", "7", "flux", Some(&first));
        assert_eq!(again.facts.revision, first.facts.revision);
        assert!(told(&again, "5", "") && told(&again, "7", ""));
        assert!(!told(&again, "6", ""));
        // Nobody has written the data since, whatever else was done to it.
        assert!(told(&again, "8", &again.written));
        // It was, within the same second.
        let other = read("Yg==", "9", "flux", Some(&again));
        assert!(!told(&other, "8", &other.written) && !told(&other, "7", ""));
        assert!(told(&other, "9", ""));
    }

    #[test]
    fn no_name_leads_to_another_object() {
        for name in ["", "../pods", "a/b", "a?b", "A", "-a", ".."] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("vumi-broker") && is_name("9.a"));
    }
}
