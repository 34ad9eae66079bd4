//! Metrics of the operator: every name and label in one place. Labels are bounded: never the name of an object, but for brokers.
//! These are named by host, port and virtual host, as in statuses, by their management API where a resource names it, and by the
//! Secret with which they are reached; the operator uses few.

use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Every metric as `(name, labels, meaning)`.
const CALLS: (&str, &str) = (
    "vumi_operator_api_calls_total",
    "Calls to the API server, watches included.",
);
const CALL_SECONDS: (&str, &str) = (
    "vumi_operator_api_seconds",
    "How long calls to the API server took.",
);
const WRITES: (&str, &str) = (
    "vumi_operator_writes_total",
    "Writes by reason: create, change, drift, prune, status, event, touch, dry-run.",
);
const RECONCILED: (&str, &str) = (
    "vumi_operator_reconciles_total",
    "Resources that were looked at, by outcome: done, corrected, waiting, refused, failed, paused, gone.",
);
const RECONCILE_SECONDS: (&str, &str) = (
    "vumi_operator_reconcile_seconds",
    "How long looking at one took.",
);
const QUEUED: (&str, &str) = (
    "vumi_operator_queue",
    "Resources that are due or wait for their time.",
);
const FAILING: (&str, &str) = (
    "vumi_operator_failing",
    "Resources whose last attempt failed.",
);
const RESOURCES: (&str, &str) = ("vumi_operator_resources", "Resources that are watched.");
const LEADING: (&str, &str) = (
    "vumi_operator_leading",
    "1 while this operator holds the lease.",
);
const SYNCED: (&str, &str) = (
    "vumi_operator_synced",
    "1 once every watch has told what there is.",
);
const CURRENT: (&str, &str) = (
    "vumi_operator_definitions_current",
    "0 while the CRDs are older than this operator, which then writes nothing.",
);
const RESTARTS: (&str, &str) = (
    "vumi_operator_watch_errors_total",
    "Watches that broke and began again.",
);
const UNTOLD: (&str, &str) = (
    "vumi_operator_events_dropped_total",
    "Events that were not told, because too many were in a short time; they stand in the log.",
);

const BROKER_READS: (&str, &str) = (
    "vumi_operator_broker_reads_total",
    "Readings of a virtual host by outcome: ok, management (its API does not answer), forbidden (it refuses the user), connection (the broker itself is away).",
);
const BROKER_OUTCOMES: [&str; 4] = ["ok", "management", "forbidden", "connection"];
const BROKER_SECONDS: (&str, &str) = (
    "vumi_operator_broker_read_seconds",
    "How long the management API took for all queues of a virtual host.",
);
const BROKER_UP: (&str, &str) = (
    "vumi_operator_broker_up",
    "1 if the last reading of a virtual host was one.",
);

/// What a broker is named by.
type Row = [String; 3];
const ROW: [&str; 3] = ["broker", "management", "secret"];

/// The metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    writes: IntCounterVec,
    all_writes: AtomicU64,
    reconciled: IntCounterVec,
    reconcile_seconds: HistogramVec,
    queued: IntGauge,
    failing: IntGauge,
    resources: IntGaugeVec,
    leading: IntGauge,
    synced: IntGauge,
    current: IntGauge,
    restarts: IntCounterVec,
    untold: IntCounter,
    broker_reads: IntCounterVec,
    broker_seconds: HistogramVec,
    broker_up: IntGaugeVec,
    /// How many sessions have each of the rows of brokers.
    rows: Mutex<HashMap<Row, usize>>,
}

impl Families {
    fn rows(&self) -> MutexGuard<'_, HashMap<Row, usize>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |(name, help): (&str, &str), labels: &[&str]| {
            add(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |(name, help): (&str, &str)| add(&registry, IntGauge::new(name, help));
        let seconds = |(name, help): (&str, &str), labels: &[&str]| {
            let buckets = vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0];
            let options = HistogramOpts::new(name, help).buckets(buckets);
            add(&registry, HistogramVec::new(options, labels))
        };
        let build = add(
            &registry,
            Gauge::with_opts(
                Opts::new("vumi_build_info", "1, with the version as a label.")
                    .const_label("version", env!("CARGO_PKG_VERSION")),
            ),
        );
        build.set(1.0);
        Self(Arc::new(Families {
            calls: counter(CALLS, &["verb", "resource", "code"]),
            call_seconds: seconds(CALL_SECONDS, &["verb"]),
            writes: counter(WRITES, &["reason"]),
            all_writes: AtomicU64::new(0),
            reconciled: counter(RECONCILED, &["kind", "outcome"]),
            reconcile_seconds: seconds(RECONCILE_SECONDS, &["kind"]),
            queued: gauge(QUEUED),
            failing: gauge(FAILING),
            resources: add(
                &registry,
                IntGaugeVec::new(Opts::new(RESOURCES.0, RESOURCES.1), &["kind"]),
            ),
            leading: gauge(LEADING),
            synced: gauge(SYNCED),
            current: gauge(CURRENT),
            restarts: counter(RESTARTS, &["kind"]),
            untold: add(&registry, IntCounter::new(UNTOLD.0, UNTOLD.1)),
            broker_reads: counter(BROKER_READS, &[ROW[0], ROW[1], ROW[2], "outcome"]),
            broker_seconds: seconds(BROKER_SECONDS, &ROW),
            broker_up: add(
                &registry,
                IntGaugeVec::new(Opts::new(BROKER_UP.0, BROKER_UP.1), &ROW),
            ),
            rows: Mutex::default(),
            registry,
        }))
    }

    /// A call to the API server has ended.
    pub fn called(&self, verb: &str, resource: &str, code: &str, took: Duration) {
        self.0
            .calls
            .with_label_values(&[verb, resource, code])
            .inc();
        let seconds = self.0.call_seconds.with_label_values(&[verb]);
        seconds.observe(took.as_secs_f64());
    }

    /// Something was written.
    pub fn wrote(&self, reason: &str) {
        self.0.writes.with_label_values(&[reason]).inc();
        self.0.all_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes so far, of whatever reason.
    pub fn writes(&self) -> u64 {
        self.0.all_writes.load(Ordering::Relaxed)
    }

    /// A resource was looked at.
    pub fn reconciled(&self, kind: &str, outcome: &str, took: Duration) {
        self.0.reconciled.with_label_values(&[kind, outcome]).inc();
        let seconds = self.0.reconcile_seconds.with_label_values(&[kind]);
        seconds.observe(took.as_secs_f64());
    }

    /// How many wait, and how many failed last time.
    pub fn queue(&self, queued: usize, failing: usize) {
        self.0.queued.set(int(queued));
        self.0.failing.set(int(failing));
    }

    /// How many resources of a kind there are.
    pub fn resources(&self, kind: &str, count: usize) {
        self.0.resources.with_label_values(&[kind]).set(int(count));
    }

    /// Whether this operator leads.
    pub fn leading(&self, leads: bool) {
        self.0.leading.set(leads.into());
    }

    /// Whether every watch has told what there is.
    pub fn synced(&self, synced: bool) {
        self.0.synced.set(synced.into());
    }

    /// Whether the definitions are as new as this operator.
    pub fn definitions_current(&self, current: bool) {
        self.0.current.set(current.into());
    }

    /// A watch broke.
    pub fn watch_broke(&self, kind: &str) {
        self.0.restarts.with_label_values(&[kind]).inc();
    }

    /// An event was one too many.
    pub fn untold(&self) {
        self.0.untold.inc();
    }

    /// All in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.0.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// What is counted of one virtual host as one Secret reaches it; gone with the last of these.
pub struct BrokerRows {
    metrics: Metrics,
    row: Row,
}

impl BrokerRows {
    /// Of a broker by its address, of its management API where that is not where it usually is, and of a Secret as
    /// `NAMESPACE/NAME`.
    pub fn new(metrics: &Metrics, broker: &str, management: &str, secret: &str) -> Self {
        let row = [broker, management, secret].map(str::to_owned);
        *metrics.0.rows().entry(row.clone()).or_default() += 1;
        Self {
            metrics: metrics.clone(),
            row,
        }
    }

    /// It was read, or could not be; how long its management API took, if that was asked.
    pub fn read(&self, outcome: &str, took: Option<Duration>) {
        let families = &self.metrics.0;
        let row = self.row.each_ref().map(String::as_str);
        let [broker, management, secret] = row;
        let reads = [broker, management, secret, outcome];
        families.broker_reads.with_label_values(&reads).inc();
        if let Some(took) = took {
            let seconds = families.broker_seconds.with_label_values(&row);
            seconds.observe(took.as_secs_f64());
        }
        let up = families.broker_up.with_label_values(&row);
        up.set((outcome == "ok").into());
    }
}

impl Drop for BrokerRows {
    fn drop(&mut self) {
        let families = &self.metrics.0;
        let mut rows = families.rows();
        if let Some(count) = rows.get_mut(&self.row).filter(|count| **count > 1) {
            *count -= 1;
            return;
        }
        rows.remove(&self.row);
        let row = self.row.each_ref().map(String::as_str);
        let [broker, management, secret] = row;
        // There is none for what never happened.
        for outcome in BROKER_OUTCOMES {
            let reads = [broker, management, secret, outcome];
            let _ = families.broker_reads.remove_label_values(&reads);
        }
        let _ = families.broker_seconds.remove_label_values(&row);
        let _ = families.broker_up.remove_label_values(&row);
    }
}

fn int(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Names and labels are constants of this file: a test makes all of them.
fn add<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let registered = made.and_then(|metric| {
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    });
    match registered {
        Ok(metric) => metric,
        Err(error) => unreachable!("a metric of this file: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_made_and_read() {
        let metrics = Metrics::new();
        metrics.called("patch", "services", "200", Duration::from_millis(3));
        metrics.wrote("create");
        metrics.reconciled("Transport", "done", Duration::from_millis(3));
        metrics.resources("Transport", 2);
        metrics.watch_broke("Pod");
        let one = BrokerRows::new(&metrics, "rabbit:5672/", "", "n/one");
        one.read("ok", Some(Duration::from_millis(3)));
        let other = BrokerRows::new(&metrics, "rabbit:5672/", "", "n/other");
        other.read("connection", None);
        assert_eq!(metrics.writes(), 1);
        let text = metrics.render();
        for name in [
            CALLS,
            CALL_SECONDS,
            WRITES,
            RECONCILED,
            QUEUED,
            RESOURCES,
            LEADING,
            RESTARTS,
            BROKER_READS,
            BROKER_SECONDS,
            BROKER_UP,
        ] {
            assert!(text.contains(name.0), "{} in\n{text}", name.0);
        }
        // Two Secrets for one virtual host have rows of their own.
        let up = "vumi_operator_broker_up{broker=\"rabbit:5672/\",management=\"\",secret=";
        assert!(text.contains(&format!("{up}\"n/one\"}} 1")), "{text}");
        assert!(text.contains(&format!("{up}\"n/other\"}} 0")), "{text}");
        drop(other);
        let text = metrics.render();
        assert!(
            text.contains("n/one") && !text.contains("n/other"),
            "{text}"
        );
    }

    #[test]
    fn a_session_that_ends_takes_no_row_of_another_away() {
        let metrics = Metrics::new();
        let rows = |management: &str| {
            let rows = BrokerRows::new(&metrics, "rabbit:5672/", management, "n/one");
            rows.read("ok", Some(Duration::from_millis(3)));
            rows
        };
        let there = |management: &str| {
            let label = format!("management=\"{management}\"");
            metrics.render().contains(&label)
        };
        // Two by one way, as with another profile, and one by another.
        let (one, same, other) = (rows(""), rows(""), rows("http://other:15672"));
        drop(one);
        assert!(there("") && there("http://other:15672"));
        drop(other);
        assert!(there("") && !there("http://other:15672"));
        drop(same);
        assert!(!there(""));
    }
}
