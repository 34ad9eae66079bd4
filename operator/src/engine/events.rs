//! What people are told with `kubectl describe` and `kubectl get events`: typed reasons, each said once until something else is
//! to be said, and never many in a short time.

use super::kinds::ObjectKind;
use super::store::Key;
use crate::client::{Api, MANAGER};
use crate::metrics::Metrics;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

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
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Event {
    /// Something that is as it should be.
    pub fn normal(reason: &'static str, message: String) -> Self {
        Self {
            tone: Tone::Normal,
            reason,
            message,
        }
    }

    /// Something that somebody should look at.
    pub fn warning(reason: &'static str, message: String) -> Self {
        Self {
            tone: Tone::Warning,
            reason,
            message,
        }
    }
}

/// Tells events.
pub struct Events {
    api: Api,
    metrics: Metrics,
    identity: String,
    /// What is wrong, as it was said last, by resource and reason.
    said: Mutex<HashMap<(String, &'static str), String>>,
    /// How many may be told now, and since when that is so.
    bucket: Mutex<(f64, Instant)>,
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
            bucket: Mutex::new((BURST, Instant::now())),
            count: AtomicU64::new(0),
        }
    }

    /// Tells an event about the resource with this uid. A warning is told again only when it says something else, or after
    /// [`Events::all_is_well`].
    pub async fn tell(&self, key: &Key, uid: &str, event: Event) {
        if event.tone == Tone::Warning && self.was_said(uid, &event) {
            return;
        }
        let (reason, message) = (event.reason, event.message.as_str());
        match event.tone {
            Tone::Normal => tracing::info!(resource = %key, reason, "{message}"),
            Tone::Warning => tracing::warn!(resource = %key, reason, "{message}"),
        }
        if !self.may_tell() {
            return;
        }
        let now = Timestamp::now();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let kind = ObjectKind::of(key.kind);
        // Unique among replicas and restarts; at most 40 characters are the resource's name.
        let name = format!("{}.{:x}{number:x}", key.name, now.as_nanosecond());
        let mut note = message.to_owned();
        while note.len() > LONGEST {
            note.pop();
        }
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": MANAGER,
            "reportingInstance": self.identity,
            "action": "Reconcile",
            "reason": reason,
            "note": note,
            "type": match event.tone {
                Tone::Normal => "Normal",
                Tone::Warning => "Warning",
            },
            "regarding": {
                "apiVersion": kind.api_version(),
                "kind": kind.kind,
                "name": key.name,
                "namespace": key.namespace,
                "uid": uid,
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", key.namespace);
        match self.api.create(&path, &object).await {
            Ok(_) => self.metrics.wrote("event"),
            // It stands in the log, and nothing depends on it.
            Err(error) => tracing::debug!(resource = %key, %error, "an event could not be told"),
        }
    }

    fn was_said(&self, uid: &str, event: &Event) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED {
            said.clear();
        }
        let before = said.insert((uid.to_owned(), event.reason), event.message.clone());
        before.is_some_and(|before| before == event.message)
    }

    /// Nothing is wrong with that resource any more: what is wrong next time is told anew.
    pub fn all_is_well(&self, uid: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() {
            said.retain(|(of, _), _| of != uid);
        }
    }

    fn may_tell(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.duration_since(bucket.1).as_secs_f64();
        *bucket = ((bucket.0 + passed * PER_SECOND).min(BURST), now);
        let may = bucket.0 >= 1.0;
        if may {
            bucket.0 -= 1.0;
        }
        may
    }
}
