//! Metrics: every name and label in one place, emitted by the engine around the workers. Labels are bounded: never an
//! address, an id or a provider's code.

use crate::error::WorkError;
use crate::status::StatusLevel;
use crate::worker::Traffic;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

const BUILD_INFO: &str = "1, with the version as a label.";
const UPTIME: &str = "Age of the process, in seconds.";

macro_rules! metrics {
    ($( $field:ident : $kind:ident = $name:literal [$($label:literal),*] $help:literal; )*) => {
        struct Families {
            $( $field: $kind, )*
        }

        impl Families {
            fn new(registry: &Registry) -> Self {
                Self {
                    $( $field: register(registry, <$kind as Family>::make($name, $help, &[$($label),*])), )*
                }
            }

            /// Removes every series of one worker or store.
            fn forget(&self, label: &str, value: &str) {
                $( self.$field.forget(label, value); )*
            }
        }

        /// Every metric as `(name, kind, labels, meaning)`, for the reference pages.
        pub const METRICS: &[(&str, &str, &[&str], &str)] = &[
            ("vumi_build_info", "gauge", &["version"], BUILD_INFO),
            ("vumi_uptime_seconds", "gauge", &[], UPTIME),
            $( ($name, <$kind as Family>::KIND, &[$($label),*], $help), )*
        ];
    };
}

metrics! {
    received: IntCounterVec = "vumi_messages_received_total" ["worker", "queue"]
        "Messages taken from the broker or out of the journal.";
    journaled: IntCounterVec = "vumi_journaled_total" ["worker", "queue"]
        "Messages moved into the journal, or left to wait on there.";
    replayed: IntCounterVec = "vumi_replayed_total" ["worker", "queue"]
        "Of those received: messages taken out of the journal.";
    journal_expired: IntCounterVec = "vumi_journal_expired_total" ["worker", "queue"]
        "Messages that ended because they had waited in the journal as long as retention.journal allows.";
    journal_messages: IntGaugeVec = "vumi_journal_messages" ["worker", "queue"]
        "Messages that wait in the journal of a consumed queue.";
    journal_lanes: IntGaugeVec = "vumi_journal_lanes" ["worker", "queue"]
        "Lanes that wait in the journal of a consumed queue.";
    journal_oldest: GaugeVec = "vumi_journal_oldest_seconds" ["worker", "queue"]
        "Age of the oldest message that came out of the journal in the last minutes, since its first delivery, in seconds; 0 when the journal is empty.";
    done: IntCounterVec = "vumi_messages_done_total" ["worker", "queue"]
        "Deliveries handled: everything they caused is confirmed, and they are acknowledged.";
    retried: IntCounterVec = "vumi_messages_retried_total" ["worker", "queue"]
        "Attempts after the first.";
    parked: IntCounterVec = "vumi_messages_parked_total" ["worker", "queue"]
        "Deliveries set aside with a reason.";
    returned: IntCounterVec = "vumi_messages_returned_total" ["worker", "queue"]
        "Deliveries given back unhandled, or whose verdict came after their channel was lost; the broker delivers them again.";
    in_flight: IntGaugeVec = "vumi_messages_in_flight" ["worker", "queue"]
        "Deliveries being handled, waits in lanes and for retries included.";
    handling: HistogramVec = "vumi_handling_seconds" ["worker", "queue"]
        "Time from delivery to verdict, in seconds.";
    oldest: GaugeVec = "vumi_oldest_message_seconds" ["worker", "queue"]
        "Age of the oldest message that waits, in seconds; 0 when none does.";
    ready: IntGaugeVec = "vumi_queue_ready" ["worker", "queue"]
        "Messages ready in a consumed queue, as the broker says.";
    kept: IntGaugeVec = "vumi_parked_kept" ["worker", "queue"]
        "Messages in the parking queue of a consumed queue.";
    backlog: IntGaugeVec = "vumi_backlog" ["worker", "queue"]
        "Messages ready in a target queue; above backlogLimit new work is refused.";
    published: IntCounterVec = "vumi_published_total" ["worker", "queue"]
        "Messages published and confirmed.";
    republished: IntCounterVec = "vumi_republished_total" ["worker", "queue"]
        "Publications repeated because the broker refused them or the connection was lost.";
    errors: IntCounterVec = "vumi_errors_total" ["worker", "class", "code"]
        "Failed attempts and refused messages by error class and code.";
    nacks: IntCounterVec = "vumi_nacks_total" ["worker", "class"]
        "Outbound messages that will not be delivered, by failure class; their senders got a nack event.";
    ledger_rows: IntGaugeVec = "vumi_ledger_rows" ["worker", "state"]
        "Rows of the ledger by state: outbound messages that this transport took over.";
    ledger_overdue: IntGaugeVec = "vumi_ledger_overdue" ["worker"]
        "Rows without a step past the deadline of their state: messages that may be lost. Should be 0.";
    unknown: IntCounterVec = "vumi_unknown_total" ["worker"]
        "Messages that were sent and whose answer was lost, so that a receipt is waited for.";
    resent: IntCounterVec = "vumi_resent_total" ["worker"]
        "Messages sent again although the peer may have them: by onUnknown, or requeued by a person.";
    suppressed: IntCounterVec = "vumi_events_suppressed_total" ["worker"]
        "Answers and receipts that were not told because the message had its ack, nack or end already.";
    duplicates: IntCounterVec = "vumi_duplicates_suppressed_total" ["worker"]
        "Messages that the provider delivered again and that got their first answer.";
    evicted: IntCounterVec = "vumi_first_seen_evicted_total" ["worker"]
        "Remembered messages of the provider that were forgotten before their time because there were too many.";
    trail_lost: IntCounterVec = "vumi_trail_lost_total" ["worker"]
        "Hops that `vumi why` will not show because the state store did not take them.";
    rate_limit: GaugeVec = "vumi_rate_limit" ["worker"]
        "Messages or parts a second that may be sent now; lower than rateLimit after the peer asked to slow down.";
    throttled: IntCounterVec = "vumi_throttled_total" ["worker", "by"]
        "Messages that waited: by limit (ours), by peer (it asked to slow down).";
    unknown_class: IntCounterVec = "vumi_unknown_class_total" ["worker"]
        "Messages whose helper_metadata.class is no class, so that they got the default one.";
    consumer: IntGaugeVec = "vumi_consumer_state" ["worker", "queue", "state"]
        "1 for the state the consumer is in: connecting, consuming, standby, paused, refused, stopped.";
    rebuilt: IntCounterVec = "vumi_consumer_rebuilt_total" ["worker", "queue"]
        "Channels rebuilt because the broker had messages and sent none.";
    broker_up: IntGaugeVec = "vumi_broker_up" ["worker"]
        "1 while the broker connection is up and not blocked.";
    ready_state: IntGaugeVec = "vumi_worker_ready" ["worker"]
        "1 while the worker is ready.";
    component: IntGaugeVec = "vumi_component_status" ["worker", "component"]
        "Last status of a component: 0 ok, 1 degraded, 2 down.";
    link_last: GaugeVec = "vumi_link_last_traffic_timestamp_seconds" ["worker", "direction"]
        "When the peer last sent something (inbound) or took something (outbound), in seconds since 1970.";
    link_up: IntGaugeVec = "vumi_link_up" ["worker", "component"]
        "1 while a part towards the peer (listener, bind, …) works.";
    link_since: GaugeVec = "vumi_link_state_timestamp_seconds" ["worker", "component"]
        "Since when vumi_link_up has its value, in seconds since 1970.";
    link_transitions: IntCounterVec = "vumi_link_transitions_total" ["worker", "component", "to"]
        "Changes of a part towards the peer, by the new state: ok, degraded, down.";
    http_seconds: HistogramVec = "vumi_http_request_seconds" ["worker", "direction", "result"]
        "Time of HTTP requests, in seconds: of those that come in until their answer, of those that go out until the whole answer is here; by result: 2xx, 4xx, …, timeout, or failed where no request could be made.";
    http_open: IntGaugeVec = "vumi_http_open" ["worker"]
        "Requests that wait for the reply of an application.";
    deadlines: IntCounterVec = "vumi_session_deadline_missed_total" ["worker"]
        "Requests that were answered without the application, because the network would not have waited longer.";
    late_replies: IntCounterVec = "vumi_late_reply_total" ["worker"]
        "Replies whose request had ended.";
    repeated_parameters: IntCounterVec = "vumi_http_repeated_parameters_total" ["worker"]
        "Requests in which a parameter came more than once: its first value counts.";
    unclear_numbers: IntCounterVec = "vumi_unclear_numbers_total" ["worker", "direction"]
        "Numbers of users that belong to no numbering plan, or to two: inbound in requests, outbound in messages to be sent.";
    receipts: IntCounterVec = "vumi_receipts_total" ["worker", "state"]
        "Receipts of the provider by what they say: delivered, failed, pending, unknown (a status that nobody wrote down), orphan (of no message that is known).";
    peer_restarts: IntCounterVec = "vumi_peer_restarts_total" ["worker"]
        "How often the side towards the peer ended and was started again.";
    store_up: IntGaugeVec = "vumi_state_up" ["store"]
        "1 while a state store answers.";
    store_operations: IntCounterVec = "vumi_state_operations_total" ["store", "operation", "result"]
        "Operations on a state store by result: ok, error.";
    store_seconds: HistogramVec = "vumi_state_operation_seconds" ["store", "operation"]
        "Time that an operation on a state store took, in seconds.";
}

trait Family: Collector + Clone + 'static {
    const KIND: &'static str;
    fn make(name: &str, help: &str, labels: &[&str]) -> Self;
    fn forget(&self, label: &str, value: &str);
}

macro_rules! family {
    ($type:ident, $kind:literal, $options:ident) => {
        impl Family for $type {
            const KIND: &'static str = $kind;

            fn make(name: &str, help: &str, labels: &[&str]) -> Self {
                $type::new($options::new(name, help).into(), labels)
                    .unwrap_or_else(|e| unreachable!("{name}: {e}"))
            }

            fn forget(&self, label: &str, value: &str) {
                for family in self.collect() {
                    for metric in family.get_metric() {
                        let labels: HashMap<&str, &str> = metric
                            .get_label()
                            .iter()
                            .map(|l| (l.name(), l.value()))
                            .collect();
                        if labels.get(label) == Some(&value) {
                            let _ = self.remove(&labels);
                        }
                    }
                }
            }
        }
    };
}

family!(IntCounterVec, "counter", Opts);
family!(IntGaugeVec, "gauge", Opts);
family!(GaugeVec, "gauge", Opts);
family!(HistogramVec, "histogram", HistogramOpts);

fn register<C: Family>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .unwrap_or_else(|e| unreachable!("metric names are unique: {e}"));
    collector
}

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
