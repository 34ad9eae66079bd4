//! What people are told with `kubectl describe` and `kubectl get events`: typed reasons, each said once until something else is
//! to be said, and never many in a short time.

use super::kinds::ObjectKind;
use super::lease::LEASE;
use super::store::Key;
use crate::bucket::Bucket;
use crate::client::{Api, MANAGER};
use crate::metrics::Metrics;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use vumi_plan::Edge;

/// Events at one time, and in a second after that. The rest are in the log only.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;
/// What the API server takes of a sentence.
const LONGEST: usize = 1000;
/// Resources of which it is remembered what was said last.
const REMEMBERED: usize = 10_000;

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It is.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is as it should be.
    pub tone: Tone,
    /// A word, such as `ConfigChanged`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Event {
    /// Something that is as it should be.
    pub fn normal(reason: &str, message: String) -> Self {
        Self {
            tone: Tone::Normal,
            reason: reason.to_owned(),
            message,
        }
    }

    /// Something that somebody should look at.
    pub fn warning(reason: &str, message: String) -> Self {
        Self {
            tone: Tone::Warning,
            reason: reason.to_owned(),
            message,
        }
    }
}

impl From<Edge> for Event {
    fn from(edge: Edge) -> Self {
        Self {
            tone: match edge.warning {
                true => Tone::Warning,
                false => Tone::Normal,
            },
            reason: edge.reason,
            message: edge.message,
        }
    }
}

/// Tells events.
pub struct Events {
    api: Api,
    metrics: Metrics,
    identity: String,
    /// What is wrong, as it was said last, by resource and reason.
    said: Mutex<HashMap<(String, String), String>>,
    may_tell: Bucket,
    count: AtomicU64,
}

impl Events {
    /// Nothing was told yet.
    pub fn new(api: Api, metrics: Metrics, identity: &str) -> Self {
        Self {
            api,
            metrics,
            identity: identity.to_owned(),
            said: Mutex::default(),
            may_tell: Bucket::new(BURST, PER_SECOND),
            count: AtomicU64::new(0),
        }
    }

    /// The name under which this operator reports.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Tells what may be found at every look: again only when it says something else, or after [`Events::all_is_well`].
    pub async fn tell_once(&self, key: &Key, uid: &str, event: Event) {
        if !self.was_said(uid, &event) {
            self.tell(key, uid, event).await;
        }
    }

    /// Tells an event about the resource with this uid.
    pub async fn tell(&self, key: &Key, uid: &str, event: Event) {
        let (reason, message) = (event.reason.as_str(), event.message.as_str());
        match event.tone {
            Tone::Normal => tracing::info!(resource = %key, reason, "{message}"),
            Tone::Warning => tracing::warn!(resource = %key, reason, "{message}"),
        }
        if !self.may_tell.take() {
            self.metrics.untold();
            return;
        }
        let kind = ObjectKind::of(key.kind);
        let (path, object) = self.object(kind, &key.namespace, &key.name, uid, &event);
        match self.api.create(&path, &object).await {
            Ok(_) => self.metrics.wrote("event"),
            // It stands in the log, and nothing depends on it.
            Err(error) => tracing::debug!(resource = %key, %error, "an event could not be told"),
        }
    }

    /// Tells what is about the operator itself, of the lease by which it leads: also while nothing else may be written.
    pub async fn tell_of_operator(&self, lease: &(String, String), event: Event) {
        let (namespace, name) = lease;
        let kind = &LEASE;
        let lease = self.api.get(&kind.path(namespace, name)).await;
        let lease = lease.unwrap_or_else(|error| {
            tracing::debug!(%error, "the lease cannot be read");
            Value::Null
        });
        let uid = lease["metadata"]["uid"].as_str();
        let uid = uid.unwrap_or_default();
        let (path, object) = self.object(kind, namespace, name, uid, &event);
        match self.api.create_unguarded(&path, &object).await {
            Ok(_) => self.metrics.wrote("event"),
            Err(error) => {
                tracing::warn!(reason = event.reason, %error, "an event could not be told")
            }
        }
    }

    /// An event about an object, as the API server takes it, and where.
    fn object(
        &self,
        kind: &ObjectKind,
        namespace: &str,
        about: &str,
        uid: &str,
        event: &Event,
    ) -> (String, Value) {
        let now = Timestamp::now();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        // Unique among replicas and restarts; at most 40 characters are the resource's name.
        let name = format!("{about}.{:x}{number:x}", now.as_nanosecond());
        let mut note = event.message.clone();
        while note.len() > LONGEST {
            note.pop();
        }
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": MANAGER,
            "reportingInstance": self.identity,
            "action": "Reconcile",
            "reason": event.reason,
            "note": note,
            "type": match event.tone {
                Tone::Normal => "Normal",
                Tone::Warning => "Warning",
            },
            "regarding": {
                "apiVersion": kind.api_version(),
                "kind": kind.kind,
                "name": about,
                "namespace": namespace,
                "uid": uid,
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        (path, object)
    }

    fn was_said(&self, uid: &str, event: &Event) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED {
            said.clear();
        }
        let name = (uid.to_owned(), event.reason.clone());
        let before = said.insert(name, event.message.clone());
        before.is_some_and(|before| before == event.message)
    }

    /// Nothing is wrong with that resource any more: what is wrong next time is told anew.
    pub fn all_is_well(&self, uid: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() {
            said.retain(|(of, _), _| of != uid);
        }
    }
}
