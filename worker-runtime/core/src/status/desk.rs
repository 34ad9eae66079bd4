//! Keeps the last report of every component of one worker and tells the broker: changes at once, everything again every
//! minute and after an outage. Only the latest state is kept, so an absent broker costs nothing.

use super::{StatusLevel, StatusReport};
use crate::beacon::{is_up, tell};
use crate::broker::{Broker, EXCHANGE, LinkState};
use crate::message::{Timestamp, TransportStatus};
use crate::telemetry::WorkerMetrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use vumi_api::{Kind, Resource};

/// Longest time between two reports of an unchanged component (K6).
const REPEAT: Duration = Duration::from_secs(60);
/// Wait after a publication that the broker did not take although it is there.
const RETRY: Duration = Duration::from_secs(1);
/// For the last changes when the worker stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whose status it is. On the wire the routing key says it, and `details` for our own readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusIdentity {
    /// Connector: the routing key is `<connector>.status.status`, as every Vumi transport has it.
    pub connector: String,
    /// Kind of the resource.
    pub kind: Kind,
    /// Its `metadata.name`.
    pub name: String,
    /// Its worker type.
    pub type_name: String,
    /// This replica.
    pub instance: String,
}

impl StatusIdentity {
    /// The identity of a resource's worker. A transport's connector is its `transportName`; any other worker speaks
    /// under its own name, because the connectors it joins belong to transports.
    pub fn of(resource: &Resource, instance: &str) -> Self {
        let connector = match resource.kind() {
            Kind::Transport => resource.transport_name(),
            Kind::Application | Kind::Dispatcher | Kind::MetricAggregator => &resource.name,
        };
        Self {
            connector: connector.to_owned(),
            kind: resource.kind(),
            name: resource.name.clone(),
            type_name: resource.worker_type().map_or("", |t| t.key).to_owned(),
            instance: instance.to_owned(),
        }
    }
}

struct Slot {
    report: StatusReport,
    /// When it became so: seconds since 1970.
    since: f64,
    /// Rises with every change and every repeat that is due.
    wanted: u64,
    /// The value of `wanted` that the broker has.
    told: u64,
}

/// The status of one worker.
pub struct StatusDesk {
    broker: Arc<dyn Broker>,
    identity: StatusIdentity,
    routing_key: String,
    metrics: Option<Arc<WorkerMetrics>>,
    slots: Mutex<BTreeMap<String, Slot>>,
    changed: Notify,
}

impl StatusDesk {
    /// A desk without reports.
    pub fn new(
        broker: Arc<dyn Broker>,
        identity: StatusIdentity,
        metrics: Option<Arc<WorkerMetrics>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            routing_key: TransportStatus::routing_key(&identity.connector),
            broker,
            identity,
            slots: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Takes a report. One that repeats the last of its component changes nothing.
    pub fn report(&self, report: StatusReport) {
        let mut slots = self.lock();
        let slot = slots.get_mut(&report.component);
        if slot.as_ref().is_some_and(|slot| slot.report == report) {
            return;
        }
        if let Some(metrics) = &self.metrics {
            metrics.component(&report.component, report.level);
        }
        self.log(&report, slot.is_none());
        let since = Timestamp::now().epoch();
        match slot {
            Some(slot) => {
                slot.report = report;
                slot.since = since;
                slot.wanted += 1;
            }
            None => {
                let slot = Slot {
                    since,
                    wanted: 1,
                    told: 0,
                    report,
                };
                slots.insert(slot.report.component.clone(), slot);
            }
        }
        drop(slots);
        self.changed.notify_one();
    }

    /// The last report of every component, by name.
    pub fn components(&self) -> Vec<StatusReport> {
        self.lock().values().map(|s| s.report.clone()).collect()
    }

    /// Publishes until `stop`, and then what is not told yet within a second.
    pub async fn run(&self, stop: CancellationToken) {
        let mut link = self.broker.link();
        let mut was_up = is_up(&link.borrow_and_update());
        let mut repeat = next_repeat();
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => break,
                told = self.tell_all() => told,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
                () = sleep(RETRY), if !told && was_up => {}
                () = sleep_until(repeat) => {
                    self.all_again();
                    repeat = next_repeat();
                }
                up = next_state(&mut link) => {
                    if up && !was_up {
                        self.all_again();
                    }
                    was_up = up;
                }
            }
        }
        // What a cancelled publication may have told already is told again: the latest state is what counts.
        let _ = timeout(LAST_WORDS, self.tell_all()).await;
    }

    /// Publishes what the broker does not have, each component as it is then. False if something is left because the
    /// broker did not take it.
    async fn tell_all(&self) -> bool {
        for component in self.untold() {
            let Some((wanted, status)) = self.status_of(&component) else {
                continue;
            };
            let broker = self.broker.as_ref();
            if !tell(broker, EXCHANGE, &self.routing_key, status.encode()).await {
                return false;
            }
            if let Some(slot) = self.lock().get_mut(&component) {
                slot.told = wanted;
            }
        }
        true
    }

    fn untold(&self) -> Vec<String> {
        let slots = self.lock();
        let untold = slots.iter().filter(|(_, slot)| slot.told != slot.wanted);
        untold.map(|(component, _)| component.clone()).collect()
    }

    fn status_of(&self, component: &str) -> Option<(u64, TransportStatus)> {
        let slots = self.lock();
        let slot = slots.get(component)?;
        let mut status = TransportStatus::new(&slot.report);
        let details = status.details_mut();
        details.insert("kind".into(), self.identity.kind.as_str().into());
        details.insert("name".into(), self.identity.name.as_str().into());
        details.insert("type".into(), self.identity.type_name.as_str().into());
        details.insert("instance".into(), self.identity.instance.as_str().into());
        details.insert("since".into(), slot.since.into());
        Some((slot.wanted, status))
    }

    fn all_again(&self) {
        for slot in self.lock().values_mut() {
            slot.wanted += 1;
        }
    }

    /// One line per edge. That something works at first is what everybody expects.
    fn log(&self, report: &StatusReport, first: bool) {
        let StatusIdentity { kind, name, .. } = &self.identity;
        let worker = format!("{}/{name}", kind.as_str().to_lowercase());
        let (component, status) = (report.component.as_str(), report.level.as_str());
        let reason = report.reason.as_str();
        match report.level {
            StatusLevel::Ok if first => {
                tracing::debug!(worker, component, status, reason, "{}", report.message);
            }
            StatusLevel::Ok => {
                tracing::info!(worker, component, status, reason, "{}", report.message);
            }
            StatusLevel::Degraded | StatusLevel::Down => {
                tracing::warn!(worker, component, status, reason, "{}", report.message);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Jittered downwards, so that replicas spread out and none is later than [`REPEAT`].
fn next_repeat() -> Instant {
    Instant::now() + REPEAT.mul_f64(0.8 + 0.2 * rand::random::<f64>())
}

/// Whether the broker is there, at the next change of its link.
async fn next_state(link: &mut watch::Receiver<LinkState>) -> bool {
    if link.changed().await.is_err() {
        // The broker is gone for good; only `stop` ends the desk.
        std::future::pending::<()>().await;
    }
    is_up(&link.borrow_and_update())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beacon::testing::{Cuttable, next, silent};
    use crate::broker::Subscription;
    use serde_json::{Value, json};
    use std::future::Future;
    use vumi_api::Spec;

    const KEY: &str = "smpp_za.status.status";

    fn identity() -> StatusIdentity {
        StatusIdentity {
            connector: "smpp_za".into(),
            kind: Kind::Transport,
            name: "smpp-za".into(),
            type_name: "smpp".into(),
            instance: "host-1".into(),
        }
    }

    fn report(component: &str, level: StatusLevel, reason: &str) -> StatusReport {
        StatusReport {
            component: component.into(),
            level,
            reason: reason.into(),
            message: format!("because {reason}"),
        }
    }

    async fn said(copy: &mut Subscription) -> Value {
        serde_json::from_slice(&next(copy).await.body).unwrap()
    }

    async fn said_type(copy: &mut Subscription) -> String {
        said(copy).await["type"].as_str().unwrap().to_owned()
    }

    /// Runs `test` with a desk that publishes to a broker with one listener.
    async fn with_desk<F>(test: impl FnOnce(Arc<StatusDesk>, Arc<Cuttable>, Subscription) -> F)
    where
        F: Future<Output = ()>,
    {
        let broker = Cuttable::new();
        let copy = broker.copy("vumi", KEY).await;
        let desk = StatusDesk::new(Arc::clone(&broker) as Arc<dyn Broker>, identity(), None);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (desk, stop) = (Arc::clone(&desk), stop.clone());
            async move { desk.run(stop).await }
        });
        test(desk, broker, copy).await;
        let before = Instant::now();
        stop.cancel();
        task.await.unwrap();
        assert!(before.elapsed() <= LAST_WORDS, "the stop is bounded");
    }

    #[test]
    fn only_a_transport_speaks_under_its_transport_name() {
        let named = |spec| Resource {
            name: "mine".into(),
            namespace: None,
            spec,
        };
        let transport = json!({"telnet": {"port": 9000}, "transportName": "wire"});
        let transport = named(Spec::Transport(serde_json::from_value(transport).unwrap()));
        let of = StatusIdentity::of(&transport, "i");
        assert_eq!(
            (of.connector.as_str(), of.type_name.as_str()),
            ("wire", "telnet")
        );
        let application = json!({"echo": {}, "transportName": "wire"});
        let application = named(Spec::Application(
            serde_json::from_value(application).unwrap(),
        ));
        let of = StatusIdentity::of(&application, "i");
        assert_eq!(
            (of.connector.as_str(), of.type_name.as_str()),
            ("mine", "echo")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_is_published_at_once_as_vumi_writes_it() {
        with_desk(|desk, _, mut copy| async move {
            let start = Instant::now();
            desk.report(report("listener", StatusLevel::Down, "listen_failed"));
            let mut body = said(&mut copy).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            assert!(body["timestamp"].take().is_string());
            assert!(body["details"]["since"].take().is_number());
            let expected = json!({
                "message_version": "20110921", "message_type": "status_event", "timestamp": null,
                "component": "listener", "status": "down", "type": "listen_failed",
                "message": "because listen_failed", "reasons": [],
                "details": {
                    "kind": "Transport", "name": "smpp-za", "type": "smpp",
                    "instance": "host-1", "since": null,
                },
                "helper_metadata": {}, "routing_metadata": {},
            });
            assert_eq!(body, expected);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_changes_are_edges() {
        with_desk(|desk, _, mut copy| async move {
            desk.report(report("link", StatusLevel::Ok, "bound"));
            assert_eq!(said_type(&mut copy).await, "bound");
            for _ in 0..100 {
                desk.report(report("link", StatusLevel::Ok, "bound"));
            }
            assert!(silent(&mut copy, Duration::from_secs(30)).await);
            for changed in [
                report("link", StatusLevel::Degraded, "bound"),
                report("link", StatusLevel::Degraded, "throttled"),
                report("link", StatusLevel::Degraded, "throttled"),
            ] {
                desk.report(changed.clone());
                let body = said(&mut copy).await;
                assert_eq!(body["status"], changed.level.as_str());
                assert_eq!(body["type"], changed.reason);
                assert_eq!(body["message"], changed.message);
                assert_eq!(desk.components(), [changed]);
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn every_component_is_repeated_within_a_minute() {
        with_desk(|desk, _, mut copy| async move {
            desk.report(report("link", StatusLevel::Ok, "bound"));
            desk.report(report("broker", StatusLevel::Down, "away"));
            assert_eq!(said_type(&mut copy).await, "away");
            assert_eq!(said_type(&mut copy).await, "bound");
            for _ in 0..3 {
                let before = Instant::now();
                assert_eq!(said_type(&mut copy).await, "away");
                assert_eq!(said_type(&mut copy).await, "bound");
                let waited = before.elapsed();
                assert!(waited > Duration::from_secs(47), "{waited:?}");
                assert!(waited <= Duration::from_secs(61), "{waited:?}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_the_latest_state_is_told_once() {
        with_desk(|desk, broker, mut copy| async move {
            desk.report(report("steady", StatusLevel::Ok, "steady"));
            assert_eq!(said_type(&mut copy).await, "steady");
            broker.cut();
            for n in 0..1000 {
                desk.report(report("link", StatusLevel::Down, &format!("attempt_{n}")));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert!(silent(&mut copy, Duration::from_secs(1)).await);
            broker.restore();
            // At once and at each repeat; none of the states in between.
            let before = Instant::now();
            for n in 0..10 {
                assert_eq!(said_type(&mut copy).await, "attempt_999");
                assert_eq!(said_type(&mut copy).await, "steady");
                assert!(n > 0 || before.elapsed() == Duration::ZERO);
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_hangs_is_told_later_and_does_not_hold_the_stop() {
        with_desk(|desk, broker, mut copy| async move {
            broker.hang(true);
            desk.report(report("link", StatusLevel::Down, "first"));
            assert!(silent(&mut copy, Duration::from_secs(3)).await);
            desk.report(report("link", StatusLevel::Ok, "second"));
            assert!(silent(&mut copy, Duration::from_secs(8)).await);
            broker.hang(false);
            assert_eq!(said_type(&mut copy).await, "second");
            broker.hang(true);
            desk.report(report("link", StatusLevel::Down, "third"));
        })
        .await;
    }

    #[tokio::test]
    async fn the_last_change_before_a_stop_is_told() {
        let broker = Cuttable::new();
        let mut copy = broker.copy("vumi", KEY).await;
        let desk = StatusDesk::new(broker, identity(), None);
        desk.report(report("link", StatusLevel::Down, "stopped"));
        let stop = CancellationToken::new();
        stop.cancel();
        desk.run(stop).await;
        assert_eq!(said_type(&mut copy).await, "stopped");
    }
}
