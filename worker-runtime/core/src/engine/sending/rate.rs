//! The rate limit of a transport (P13): one token bucket per account, or per sender, shared by its replicas through the
//! state store; without one, each replica has its own.

use super::super::labels::Labels;
use super::gate::Gate;
use super::local::LocalBuckets;
use crate::engine::insist::AGAIN;
use crate::message::UserMessage;
use crate::reasons;
use crate::state::StateStore;
use crate::state::rate_limits::{Bucket, RateLimits};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::telemetry::WorkerMetrics;
use crate::worker::Worker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use vumi_api::shared::{Classes, RateLimit, RatePer, RateUnit};

/// Asked to slow down without a time, a transport pauses so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep before the bucket is asked again: its pace may have changed.
const NAP: Duration = Duration::from_secs(1);

/// Who shares a bucket waits up to so much more than it is told.
const LOT: Duration = Duration::from_millis(2);

/// What lots are drawn with. Of its own kind in each process; in tests the same in every run, since they judge the tail.
fn lots() -> StdRng {
    #[cfg(test)]
    static REPLICAS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    #[cfg(test)]
    let seed = REPLICAS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(test))]
    let seed = rand::random();
    StdRng::seed_from_u64(seed)
}

enum Buckets {
    Shared(Arc<dyn StateStore>),
    Local(LocalBuckets),
}

/// Of so many buckets at most it is known that they were slowed: senders are many.
const SLOW: usize = 1000;

/// That the peer asked to slow down, of one bucket.
#[derive(Clone, Copy)]
struct Slowed {
    since: SystemTime,
    /// When it asked the last time.
    last: Instant,
}

/// The limit of one transport.
pub(super) struct Rate {
    buckets: Buckets,
    limit: RateLimit,
    bucket: Bucket,
    account: String,
    /// Who waits for a bucket: one asks at a time, by class and in turn, else as they came.
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    classes: Option<Classes>,
    slowed: Mutex<HashMap<String, Slowed>>,
    lots: Mutex<StdRng>,
    metrics: Arc<WorkerMetrics>,
}

impl Rate {
    pub(super) fn new(
        limit: RateLimit,
        classes: Option<Classes>,
        account: &str,
        state: Option<&Arc<dyn StateStore>>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let per_second = f64::from(limit.rate);
        metrics.rate_limit.set(per_second);
        Self {
            buckets: match state {
                Some(store) => Buckets::Shared(Arc::clone(store)),
                None => Buckets::Local(LocalBuckets::default()),
            },
            bucket: Bucket {
                per_second,
                burst: f64::from(limit.burst()),
            },
            limit,
            account: account.to_owned(),
            gates: Mutex::default(),
            classes,
            slowed: Mutex::default(),
            lots: Mutex::new(lots()),
            metrics,
        }
    }

    fn buckets(&self) -> &dyn RateLimits {
        match &self.buckets {
            Buckets::Shared(store) => store.as_ref(),
            Buckets::Local(local) => local,
        }
    }

    fn key(&self, message: &UserMessage) -> String {
        match self.limit.per() {
            RatePer::Account => self.account.clone(),
            RatePer::Sender => format!(
                "{}/{}",
                self.account,
                message.from_addr().unwrap_or_default()
            ),
        }
    }

    /// Waits for a message's turn. False if it is not to be sent any more once the turn came: then it costs nothing.
    pub(super) async fn wait(
        &self,
        worker: &dyn Worker,
        message: &UserMessage,
        labels: &Labels,
        stopped: impl Fn() -> bool,
    ) -> bool {
        let key = self.key(message);
        let cost = match self.limit.unit() {
            RateUnit::Requests => 1,
            RateUnit::Parts => worker.parts(message).max(1),
        };
        let gate = self.gate(&key);
        let turn = gate.turn(labels).await;
        let (mut refusals, mut failures) = (0, 0);
        let goes = loop {
            if stopped() {
                break false;
            }
            let nap = match self.buckets().take(&key, cost, self.bucket).await {
                Ok(None) => break true,
                Ok(Some(wait)) => {
                    let wait = wait.clamp(Duration::from_millis(1), NAP);
                    let nap = wait + self.lot(wait, refusals);
                    refusals += 1;
                    nap
                }
                // Nothing is sent faster than allowed because the store is away.
                Err(_) => {
                    failures += 1;
                    AGAIN.after(failures)
                }
            };
            if refusals + failures <= 1 {
                self.metrics.throttled("limit");
            }
            tokio::time::sleep(nap).await;
        };
        drop(turn);
        self.forget(&key, gate);
        goes
    }

    /// Replicas that share a bucket are told of the same moment, and it has one token: without a lot the one that is nearer
    /// to the store would have it every time. Whoever came too late waits less the next time.
    fn lot(&self, wait: Duration, refusals: u32) -> Duration {
        let Buckets::Shared(_) = self.buckets else {
            return Duration::ZERO;
        };
        let most = LOT.max(wait / 32) / (refusals + 1);
        let mut lots = self.lots.lock().unwrap_or_else(PoisonError::into_inner);
        most.mul_f64(lots.random())
    }

    /// The peer asked to slow down, of a message that was sent at `sent`. What was under way when it asked the last
    /// time says nothing new.
    pub(super) async fn slow_down(
        &self,
        message: &UserMessage,
        sent: Instant,
        after: Option<Duration>,
    ) {
        self.metrics.throttled("peer");
        let key = self.key(message);
        {
            let mut slowed = self.lock(&self.slowed);
            let known = slowed.get(&key).copied();
            if known.is_some_and(|known| sent <= known.last) {
                return;
            }
            if known.is_none() && slowed.len() >= SLOW {
                let oldest = slowed.iter().min_by_key(|(_, slowed)| slowed.last);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    slowed.remove(&oldest);
                }
            }
            let now = Slowed {
                since: known.map_or_else(crate::clock::now, |known| known.since),
                last: Instant::now(),
            };
            slowed.insert(key.clone(), now);
        }
        let pause = after.unwrap_or(PAUSE);
        if let Err(error) = self.buckets().slow_down(&key, pause, self.bucket).await {
            tracing::debug!(code = %error.code, reason = %error, "the bucket cannot be slowed down");
        }
    }

    /// Says how fast it goes now.
    pub(super) async fn report(&self, status: &StatusDesk) {
        let (since, pace) = loop {
            let Some((key, slowed)) = self.slowed_first() else {
                let full = format!("{} a second", self.bucket.per_second);
                return status.report(StatusReport::new(
                    "throttled",
                    StatusLevel::Ok,
                    reasons::FULL_SPEED,
                    full,
                ));
            };
            let Ok(pace) = self.buckets().pace(&key).await else {
                return;
            };
            self.metrics.rate_limit.set(self.bucket.per_second * pace);
            if pace < 1.0 {
                break (slowed.since, pace);
            }
            self.recovered(&key, slowed);
        };
        let age = since.elapsed().unwrap_or_default().as_secs();
        // In steps, so that each is an edge and the minutes between are not.
        let tenths = (pace * 10.0).floor() / 10.0;
        let text = format!(
            "the peer asked to slow down: about {:.1} of {} a second, since {} min",
            tenths * self.bucket.per_second,
            self.bucket.per_second,
            age / 60,
        );
        status.report(StatusReport::new(
            "throttled",
            StatusLevel::Degraded,
            reasons::SLOWED_DOWN,
            text,
        ));
    }

    /// The bucket that has been slow for longest.
    fn slowed_first(&self) -> Option<(String, Slowed)> {
        let slowed = self.lock(&self.slowed);
        let first = slowed.iter().min_by_key(|(_, slowed)| slowed.since);
        first.map(|(key, slowed)| (key.clone(), *slowed))
    }

    /// A bucket is at full speed again, unless the peer has asked once more since.
    fn recovered(&self, key: &str, before: Slowed) {
        let mut slowed = self.lock(&self.slowed);
        if slowed.get(key).is_some_and(|now| now.last == before.last) {
            slowed.remove(key);
        }
    }

    fn gate(&self, key: &str) -> Arc<Gate> {
        let mut gates = self.lock(&self.gates);
        let gate = gates
            .entry(key.to_owned())
            .or_insert_with(|| Arc::new(Gate::new(1, self.classes.as_ref())));
        Arc::clone(gate)
    }

    /// A gate at which nobody waits is not kept: senders are many.
    fn forget(&self, key: &str, gate: Arc<Gate>) {
        let mut gates = self.lock(&self.gates);
        drop(gate);
        if gates
            .get(key)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            gates.remove(key);
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
