//! Metrics, emitted by the engine around the workers.

mod families;

pub use families::METRICS;

use crate::error::WorkError;
use crate::status::StatusLevel;
use crate::worker::Traffic;
use families::{BUILD_INFO, Families, UPTIME};
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Opts, Registry};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

/// Metrics of a process.
pub struct Telemetry {
    registry: Registry,
    families: Arc<Families>,
    workers: Mutex<HashMap<String, Weak<WorkerMetrics>>>,
    started: Instant,
    uptime: Gauge,
}

impl Telemetry {
    /// An empty set.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Arc::new(Families::new(&registry));
        let build = IntGauge::with_opts(
            Opts::new("vumi_build_info", BUILD_INFO)
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )
        .unwrap_or_else(|e| unreachable!("{e}"));
        build.set(1);
        let uptime =
            Gauge::new("vumi_uptime_seconds", UPTIME).unwrap_or_else(|e| unreachable!("{e}"));
        let _ = registry.register(Box::new(build));
        let _ = registry.register(Box::new(uptime.clone()));
        Self {
            registry,
            families,
            workers: Mutex::default(),
            started: Instant::now(),
            uptime,
        }
    }

    /// The Prometheus text of all metrics.
    pub fn render(&self) -> String {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        let encoder = prometheus::TextEncoder::new();
        let _ = encoder.encode_utf8(&self.registry.gather(), &mut text);
        text
    }

    /// The series of one worker, by kind and name. A worker and its successor after a reload share them; they vanish
    /// with the last of the two.
    pub fn worker(&self, key: &str) -> Arc<WorkerMetrics> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = workers.get(key).and_then(Weak::upgrade) {
            return known;
        }
        let metrics = Arc::new(WorkerMetrics {
            key: key.to_owned(),
            families: Arc::clone(&self.families),
            broker_up: self.families.broker_up.with_label_values(&[key]),
            ready: self.families.ready_state.with_label_values(&[key]),
            peer_restarts: self.families.peer_restarts.with_label_values(&[key]),
            ledger_overdue: self.families.ledger_overdue.with_label_values(&[key]),
            rate_limit: self.families.rate_limit.with_label_values(&[key]),
            unknown: self.families.unknown.with_label_values(&[key]),
            resent: self.families.resent.with_label_values(&[key]),
            suppressed: self.families.suppressed.with_label_values(&[key]),
            duplicates: self.families.duplicates.with_label_values(&[key]),
            evicted: self.families.evicted.with_label_values(&[key]),
            trail_lost: self.families.trail_lost.with_label_values(&[key]),
        });
        workers.insert(key.to_owned(), Arc::downgrade(&metrics));
        metrics
    }
}

impl Telemetry {
    /// The series of one state store, by its description. They vanish with it.
    pub fn store(&self, description: &str) -> StoreMetrics {
        StoreMetrics {
            up: self.families.store_up.with_label_values(&[description]),
            description: description.to_owned(),
            families: Arc::clone(&self.families),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// What HTTP transports count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpSeen {
    /// A request ended: inbound from its head to its answer, outbound to the end of the answer.
    Request {
        /// Who made it.
        direction: Traffic,
        /// `2xx`, `3xx`, `4xx` or `5xx`; outbound `timeout` or `failed`; inbound `gone`, of a caller that did not stay.
        result: &'static str,
        /// How long it took.
        took: Duration,
    },
    /// A request came again and is answered as the first, without being offered to the broker: one of the repeats that
    /// [`WorkerMetrics::duplicates`] counts.
    Repeat,
    /// So many requests wait for a reply.
    Open(usize),
    /// A request was answered without the application, before the network gave up.
    DeadlineMissed,
    /// A reply came when its request had ended.
    LateReply,
    /// A parameter came more than once in a request.
    RepeatedParameter,
    /// A number belongs to no numbering plan, or to two.
    UnclearNumber(Traffic),
    /// A receipt came: `delivered`, `failed`, `pending`, `unknown` or `orphan`; `given_up` is an orphan that was answered
    /// as if it were taken.
    Receipt(&'static str),
}

/// Metrics of one worker.
pub struct WorkerMetrics {
    key: String,
    families: Arc<Families>,
    /// 1 while the broker connection is up.
    pub broker_up: IntGauge,
    /// 1 while ready.
    pub ready: IntGauge,
    /// Restarts of the side towards the peer.
    pub peer_restarts: IntCounter,
    /// Rows of the ledger past their deadline.
    pub ledger_overdue: IntGauge,
    /// Messages or parts a second that may be sent now.
    pub rate_limit: Gauge,
    /// Messages whose answer was lost.
    pub unknown: IntCounter,
    /// Messages sent although the peer may have them.
    pub resent: IntCounter,
    /// Answers and receipts not told.
    pub suppressed: IntCounter,
    /// Repeats of the provider.
    pub duplicates: IntCounter,
    /// Remembered messages forgotten early.
    pub evicted: IntCounter,
    /// Hops not noted.
    pub trail_lost: IntCounter,
}

impl WorkerMetrics {
    /// The series of one consumed queue.
    pub fn queue(&self, queue: &str) -> QueueMetrics {
        let labels = &[self.key.as_str(), queue];
        let f = &self.families;
        QueueMetrics {
            received: f.received.with_label_values(labels),
            journaled: f.journaled.with_label_values(labels),
            replayed: f.replayed.with_label_values(labels),
            journal_expired: f.journal_expired.with_label_values(labels),
            journal_messages: f.journal_messages.with_label_values(labels),
            journal_lanes: f.journal_lanes.with_label_values(labels),
            journal_oldest: f.journal_oldest.with_label_values(labels),
            done: f.done.with_label_values(labels),
            retried: f.retried.with_label_values(labels),
            parked: f.parked.with_label_values(labels),
            returned: f.returned.with_label_values(labels),
            in_flight: f.in_flight.with_label_values(labels),
            handling: f.handling.with_label_values(labels),
            oldest: f.oldest.with_label_values(labels),
            ready: f.ready.with_label_values(labels),
            kept: f.kept.with_label_values(labels),
            rebuilt: f.rebuilt.with_label_values(labels),
        }
    }

    /// The series of one target queue.
    pub fn target(&self, queue: &str) -> TargetMetrics {
        let labels = &[self.key.as_str(), queue];
        TargetMetrics {
            published: self.families.published.with_label_values(labels),
            republished: self.families.republished.with_label_values(labels),
            backlog: self.families.backlog.with_label_values(labels),
        }
    }

    /// An attempt or a message failed.
    pub fn error(&self, error: &WorkError) {
        self.families
            .errors
            .with_label_values(&[self.key.as_str(), error.class.label(), error.code.name])
            .inc();
    }

    /// A message will not be delivered; `class` is the failure class of its fate.
    pub fn nack(&self, class: &str) {
        self.families
            .nacks
            .with_label_values(&[self.key.as_str(), class])
            .inc();
    }

    /// So many rows of the ledger are in `state`.
    pub fn ledger_rows(&self, state: &str, rows: u64) {
        self.families
            .ledger_rows
            .with_label_values(&[self.key.as_str(), state])
            .set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// A message waited because of `by`: `limit` or `peer`.
    pub fn throttled(&self, by: &str) {
        self.families
            .throttled
            .with_label_values(&[self.key.as_str(), by])
            .inc();
    }

    /// A message names a class that does not exist.
    pub fn unknown_class(&self) {
        let label = &[self.key.as_str()];
        self.families.unknown_class.with_label_values(label).inc();
    }

    /// A consumer is in `state` now.
    pub fn consumer_state(&self, queue: &str, state: &str) {
        const STATES: [&str; 6] = [
            "connecting",
            "consuming",
            "standby",
            "paused",
            "refused",
            "stopped",
        ];
        for name in STATES {
            self.families
                .consumer
                .with_label_values(&[self.key.as_str(), queue, name])
                .set(i64::from(name == state));
        }
    }

    /// A component reported.
    pub fn component(&self, component: &str, level: StatusLevel) {
        self.families
            .component
            .with_label_values(&[self.key.as_str(), component])
            .set(level as i64);
    }

    /// A part towards the peer reported.
    pub fn link(&self, component: &str, level: StatusLevel) {
        let labels = &[self.key.as_str(), component];
        let up = i64::from(level == StatusLevel::Ok);
        let gauge = self.families.link_up.with_label_values(labels);
        let since = self.families.link_since.with_label_values(labels);
        if since.get() == 0.0 || gauge.get() != up {
            since.set(now());
            self.families
                .link_transitions
                .with_label_values(&[self.key.as_str(), component, level.as_str()])
                .inc();
        }
        gauge.set(up);
    }

    /// Something happened between an HTTP transport and its peer.
    pub fn http(&self, seen: HttpSeen) {
        let key = self.key.as_str();
        match seen {
            HttpSeen::Request {
                direction,
                result,
                took,
            } => self
                .families
                .http_seconds
                .with_label_values(&[key, direction.as_str(), result])
                .observe(took.as_secs_f64()),
            HttpSeen::Repeat => self.duplicates.inc(),
            HttpSeen::Open(requests) => {
                let open = i64::try_from(requests).unwrap_or(i64::MAX);
                self.families.http_open.with_label_values(&[key]).set(open);
            }
            HttpSeen::DeadlineMissed => self.families.deadlines.with_label_values(&[key]).inc(),
            HttpSeen::RepeatedParameter => {
                let repeated = &self.families.repeated_parameters;
                repeated.with_label_values(&[key]).inc();
            }
            HttpSeen::UnclearNumber(direction) => {
                let labels = &[key, direction.as_str()];
                self.families
                    .unclear_numbers
                    .with_label_values(labels)
                    .inc();
            }
            HttpSeen::LateReply => self.families.late_replies.with_label_values(&[key]).inc(),
            HttpSeen::Receipt(state) => {
                let labels = &[key, state];
                self.families.receipts.with_label_values(labels).inc();
            }
        }
    }

    /// Traffic with the peer, now.
    pub fn traffic(&self, direction: Traffic) {
        self.families
            .link_last
            .with_label_values(&[self.key.as_str(), direction.as_str()])
            .set(now());
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        self.families.forget("worker", &self.key);
    }
}

/// Metrics of one state store.
pub struct StoreMetrics {
    description: String,
    families: Arc<Families>,
    /// 1 while it answers.
    pub up: IntGauge,
}

impl StoreMetrics {
    /// An operation ended.
    pub fn operation(&self, operation: &str, ok: bool, took: Duration) {
        let store = self.description.as_str();
        let result = if ok { "ok" } else { "error" };
        self.families
            .store_operations
            .with_label_values(&[store, operation, result])
            .inc();
        self.families
            .store_seconds
            .with_label_values(&[store, operation])
            .observe(took.as_secs_f64());
    }
}

impl Drop for StoreMetrics {
    fn drop(&mut self) {
        self.families.forget("store", &self.description);
    }
}

/// Metrics of one consumed queue.
#[derive(Clone)]
pub struct QueueMetrics {
    /// Messages taken.
    pub received: IntCounter,
    /// Moved into the journal.
    pub journaled: IntCounter,
    /// Taken out of it.
    pub replayed: IntCounter,
    /// Ended there, because their time was over.
    pub journal_expired: IntCounter,
    /// Waiting in it.
    pub journal_messages: IntGauge,
    /// Lanes in it.
    pub journal_lanes: IntGauge,
    /// Age of its oldest message, seconds.
    pub journal_oldest: Gauge,
    /// Handled and acknowledged.
    pub done: IntCounter,
    /// Attempts after the first.
    pub retried: IntCounter,
    /// Set aside.
    pub parked: IntCounter,
    /// Given back.
    pub returned: IntCounter,
    /// Being handled.
    pub in_flight: IntGauge,
    /// Seconds from delivery to verdict.
    pub handling: Histogram,
    /// Age of the oldest waiting message, seconds.
    pub oldest: Gauge,
    /// Ready at the broker.
    pub ready: IntGauge,
    /// In the parking queue.
    pub kept: IntGauge,
    /// Channels rebuilt.
    pub rebuilt: IntCounter,
}

/// Metrics of one target queue.
#[derive(Clone)]
pub struct TargetMetrics {
    /// Confirmed publications.
    pub published: IntCounter,
    /// Repeated publications.
    pub republished: IntCounter,
    /// Ready there.
    pub backlog: IntGauge,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::error::ErrorClass;

    #[test]
    fn series_live_as_long_as_their_worker_and_survive_a_successor() {
        let telemetry = Telemetry::new();
        let old = telemetry.worker("transport/telnet");
        old.queue("telnet.outbound").done.inc();
        old.error(&WorkError::new(ErrorClass::Timeout, codes::BUG_PANIC, "x"));
        let other = telemetry.worker("application/echo");
        other.queue("telnet.inbound").done.inc();
        let new = telemetry.worker("transport/telnet");
        drop(old);
        new.queue("telnet.outbound").done.inc();
        let line =
            "vumi_messages_done_total{queue=\"telnet.outbound\",worker=\"transport/telnet\"} 2";
        assert!(telemetry.render().contains(line), "{}", telemetry.render());
        drop(new);
        let text = telemetry.render();
        assert!(!text.contains("transport/telnet"), "{text}");
        assert!(text.contains("application/echo"), "{text}");
    }

    #[test]
    fn names_follow_the_conventions() {
        for (name, kind, _, help) in METRICS {
            assert!(name.starts_with("vumi_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
    }
}
