//! What tests of outages in simulated time share: lengths of time, the memory that they may take, and the workers.

use super::clock::{self, Clock};
use super::services::BrokerOfTest;
use super::stage;
use crate::registry;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::{Port, Resource};
use vumi_core::broker::embedded::EmbeddedBroker;
use vumi_core::broker::{Broker, Confirmation};
use vumi_core::engine::StopLimits;
use vumi_core::error::WorkError;
use vumi_core::secrets::Secrets;
use vumi_core::state::StateStore;
use vumi_core::supervisor::engine::Registered;
use vumi_core::supervisor::services::StateSource;
use vumi_core::supervisor::{Options, Restart, Supervisor};
use vumi_core::telemetry::Telemetry;
use vumi_testkit::alone;

pub(super) const OUTAGE: Duration = Duration::from_secs(6 * 3600);
/// Timers are late by less than this.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// Nobody waits longer whose peer is there.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Memory that six hours may take beyond the first one.
pub(super) const MEMORY_KIB: u64 = 10 << 10;

/// The store of all workers, in which the test looks as well.
struct One(Arc<dyn StateStore>);

#[async_trait]
impl StateSource for One {
    fn identity(&self, _: &Resource) -> Result<Option<String>, WorkError> {
        Ok(Some("embedded".into()))
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        Ok(Arc::clone(&self.0))
    }
}

/// Runs workers on this broker and store.
pub(super) fn supervisor(
    broker: Arc<EmbeddedBroker>,
    store: &Arc<dyn StateStore>,
    secrets: Arc<Secrets>,
) -> Arc<Supervisor> {
    Supervisor::new(
        Registered::new(registry::all()),
        BrokerOfTest(broker),
        One(Arc::clone(store)),
        secrets,
        Arc::new(Telemetry::new()),
        Options {
            instance: "test".into(),
            system_id: "test".into(),
            limits: StopLimits::default(),
            restart: Restart::default(),
            recheck: Duration::from_secs(2),
            outside: Default::default(),
            sweep: MINUTE,
        },
    )
}

/// Publishes a message, which the broker takes.
pub(super) async fn publish(broker: &dyn Broker, port: &Port, body: Bytes) {
    let receipt = stage::publish(broker, port, body).await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
}

/// Runs the test of an outage in a process of its own, with a clock that it moves.
pub(super) fn simulated<F: Future<Output = ()>>(outage: impl FnOnce(Clock) -> F) {
    if !alone() {
        return;
    }
    let began = std::time::Instant::now();
    let (runtime, clock) = clock::runtime().unwrap();
    runtime.block_on(outage(clock));
    println!("{OUTAGE:?} took {:?}", began.elapsed());
    runtime.shutdown_timeout(Duration::from_secs(2));
}
