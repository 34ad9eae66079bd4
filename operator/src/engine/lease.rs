//! Which of several operators writes: a Lease of Kubernetes (K16). All of them watch; the lease opens the gate of one. Time is
//! measured by the clock of this machine that never goes back, from when a record was seen to change: clocks of others and
//! what they wrote do not count.

use super::kinds::{ObjectKind, plain};
use crate::client::{Api, ApiError};
use crate::gate::Gate;
use crate::metrics::Metrics;
use k8s_openapi::jiff::Timestamp;
use rand::RngExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Times of the lease.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For so long others leave a lease alone that is not renewed.
    pub duration: Duration,
    /// For so long after its last renewal the holder writes.
    pub renew_deadline: Duration,
    /// Between attempts.
    pub retry: Duration,
    /// How long one may take.
    pub attempt: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(17),
            renew_deadline: Duration::from_secs(12),
            retry: Duration::from_secs(2),
            attempt: Duration::from_secs(3),
        }
    }
}

impl Times {
    /// Whether they fit together: each shorter than the next, so that two never write at one time.
    ///
    /// # Errors
    /// Which do not.
    pub fn validate(self) -> Result<(), String> {
        match self {
            Self { retry, attempt, .. } if retry.is_zero() || attempt.is_zero() => {
                Err("--lease-retry and --lease-attempt must be longer than nothing".into())
            }
            Self { attempt, renew_deadline, .. } if attempt >= renew_deadline => {
                Err("--lease-attempt must be shorter than --lease-renew-deadline".into())
            }
            Self { renew_deadline, duration, .. } if renew_deadline >= duration => {
                Err("--lease-renew-deadline must be shorter than --lease-duration: a holder must stop before others begin".into())
            }
            _ => Ok(()),
        }
    }
}

/// The lease, as one candidate sees it.
pub struct Lease {
    api: Api,
    gate: Arc<Gate>,
    metrics: Metrics,
    times: Times,
    namespace: String,
    name: String,
    identity: String,
    /// The record as it was when it last changed, and when that was seen.
    seen: Option<(String, Instant)>,
    /// When the lease of another runs out, unless it is renewed.
    free_at: Option<Instant>,
}

impl Lease {
    /// A candidate.
    pub fn new(
        api: Api,
        metrics: Metrics,
        times: Times,
        (namespace, name): (String, String),
        identity: String,
    ) -> Self {
        let gate = Arc::clone(api.gate());
        Self {
            api,
            gate,
            metrics,
            times,
            namespace,
            name,
            identity,
            seen: None,
            free_at: None,
        }
    }

    /// Tries to get the lease and keeps it, until told to stop; then gives it back. `leading` says what came of it.
    pub async fn run(mut self, stop: CancellationToken, leading: tokio::sync::watch::Sender<bool>) {
        let mut held_until: Option<Instant> = None;
        // Whether the record may have our name: what became of a write without an answer is not known.
        let mut ours = false;
        'run: while !stop.is_cancelled() {
            let began = Instant::now();
            // The end does not cut it short: what is sent may win the lease, and has to be given back then.
            match tokio::time::timeout(self.times.attempt, self.attempt()).await {
                Ok(Ok(held)) => {
                    ours = held;
                    // Counted from before the attempt: when the server wrote it, nobody knows.
                    held_until = held.then(|| began + self.times.renew_deadline);
                }
                Ok(Err(error)) => {
                    ours = true;
                    tracing::warn!(%error, "the lease could not be read or renewed");
                }
                Err(_) => {
                    ours = true;
                    tracing::warn!("the lease could not be read or renewed in time");
                }
            }
            if stop.is_cancelled() {
                break;
            }
            if held_until.is_some_and(|until| until <= Instant::now()) {
                held_until = None;
            }
            self.tell(held_until, &leading);
            // Candidates look more often, so that one that is given back lies about for half a second at most, and not in step.
            let retry = match held_until {
                Some(_) => self.times.retry,
                None => (self.times.retry / 4).mul_f64(rand::rng().random_range(0.7..=1.0)),
            };
            let next = Instant::now() + retry;
            let next = self.free_at.take().map_or(next, |free| free.min(next));
            loop {
                let wake = held_until.map_or(next, |until| until.min(next));
                tokio::select! {
                    () = tokio::time::sleep_until(wake) => {}
                    () = stop.cancelled() => break 'run,
                }
                if held_until.is_some_and(|until| until <= Instant::now()) {
                    held_until = None;
                    self.tell(None, &leading);
                }
                if Instant::now() >= next {
                    break;
                }
            }
        }
        self.give_back(ours, &leading).await;
    }

    fn tell(&self, until: Option<Instant>, leading: &tokio::sync::watch::Sender<bool>) {
        self.gate.hold(until);
        self.metrics.leading(until.is_some());
        let changed = leading.send_if_modified(|leads| {
            let before = std::mem::replace(leads, until.is_some());
            before != *leads
        });
        match (changed, until.is_some()) {
            (true, true) => tracing::info!(identity = self.identity, "this operator leads"),
            (true, false) => tracing::warn!("this operator does not lead any more"),
            (false, _) => {}
        }
    }

    fn path(&self, name: &str) -> String {
        LEASE.path(&self.namespace, name)
    }

    /// One attempt: whether the lease is ours now.
    async fn attempt(&mut self) -> Result<bool, ApiError> {
        let lease = match self.api.get(&self.path(&self.name)).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => return self.make().await,
            Err(error) => return Err(error),
        };
        let spec = &lease["spec"];
        let record = format!("{}{}", spec["holderIdentity"], spec["renewTime"]);
        let now = Instant::now();
        if self.seen.as_ref().is_none_or(|(known, _)| *known != record) {
            self.seen = Some((record, now));
        }
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let written = spec["leaseDurationSeconds"]
            .as_u64()
            .map(Duration::from_secs);
        let duration = written.unwrap_or(self.times.duration);
        let taken = !holder.is_empty() && holder != self.identity;
        if taken && now < since + duration {
            self.free_at = Some(since + duration);
            return Ok(false);
        }
        let transitions = spec["leaseTransitions"].as_u64().unwrap_or(0);
        let mut wanted = self.spec(transitions + u64::from(holder != self.identity));
        if holder == self.identity {
            wanted["acquireTime"] = spec["acquireTime"].clone();
        } else {
            tracing::info!(holder, "the lease is free");
        }
        self.write(&lease, wanted).await
    }

    /// Writes over the record that was read, if nobody else has.
    async fn write(&mut self, lease: &Value, spec: Value) -> Result<bool, ApiError> {
        let version = &lease["metadata"]["resourceVersion"];
        let change = json!({
            "metadata": {"resourceVersion": version, "labels": {VERSION: env!("CARGO_PKG_VERSION")}},
            "spec": spec,
        });
        match self
            .api
            .merge_unguarded(&self.path(&self.name), &change)
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn make(&self) -> Result<bool, ApiError> {
        let lease = json!({
            "apiVersion": LEASE.api_version(),
            "kind": LEASE.kind,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {VERSION: env!("CARGO_PKG_VERSION")},
            },
            "spec": self.spec(0),
        });
        match self.api.create_unguarded(&self.path(""), &lease).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A record with our name. Its duration has whole seconds, and must not be shorter than what our deadline was chosen by.
    fn spec(&self, transitions: u64) -> Value {
        let (now, duration) = (now(), self.times.duration);
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": duration.as_secs() + u64::from(duration.subsec_nanos() > 0),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }

    /// Lets others have it at once, if it is ours.
    async fn give_back(&mut self, ours: bool, leading: &tokio::sync::watch::Sender<bool>) {
        self.tell(None, leading);
        if !ours {
            return;
        }
        let given = tokio::time::timeout(self.times.attempt, async {
            let lease = self.api.get(&self.path(&self.name)).await?;
            if lease["spec"]["holderIdentity"] != self.identity.as_str() {
                return Ok(false);
            }
            let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now()});
            self.write(&lease, spec).await
        });
        match given.await {
            Ok(Ok(true)) => tracing::info!("the lease is given back"),
            Ok(Ok(false)) => tracing::debug!("another one has the lease"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease could not be given back; it runs out")
            }
            Err(_) => tracing::warn!("the lease could not be given back in time; it runs out"),
        }
    }
}

/// Label of the lease: the version of the operator that wrote it last.
const VERSION: &str = "app.kubernetes.io/version";

pub(super) static LEASE: ObjectKind = plain("coordination.k8s.io", "v1", "Lease", "leases");

/// The time, as a Lease has it.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}
