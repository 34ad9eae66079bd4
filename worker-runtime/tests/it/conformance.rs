//! Every worker type against the conformance suite on real RabbitMQ: both versions, 4.0 where quorum queues are the
//! default, and both profiles.

use crate::harness::{PATIENCE, vhost, vhost_with};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::runtime::Runtime;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{Broker, LinkState};
use vumi_core::conformance::{BrokerSource, check_on};
use vumi_core::worker::Registration;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

struct Source {
    name: String,
    url: String,
}

#[async_trait]
impl BrokerSource for Source {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self) -> Result<Arc<dyn Broker>, String> {
        let config = AmqpConfig::from_url(&self.url).map_err(|e| e.to_string())?;
        let broker = AmqpBroker::connect(config);
        let mut link = broker.link();
        let up = link.wait_for(|state| matches!(state, LinkState::Up { .. }));
        let up = tokio::time::timeout(PATIENCE, up).await;
        up.map_err(|_| "the broker cannot be reached")?
            .map_err(|e| e.to_string())?;
        Ok(broker)
    }
}

fn conforms(name: &str, url: String) {
    let name = name.to_owned();
    let registrations: Vec<Registration> = vumi::registry::all().copied().collect();
    check_on(&registrations, &[&Source { name, url }]);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_3() {
    let runtime = Runtime::new().unwrap();
    let started = RabbitMq::start_or_skip(Version::V3_10, Options::default());
    let Some(server) = runtime.block_on(started) else {
        return;
    };
    runtime
        .block_on(server.add_vhost("conformance", None))
        .unwrap();
    conforms("RabbitMQ 3.10", server.url("conformance"));
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_4() {
    let runtime = Runtime::new().unwrap();
    if let Some(url) = runtime.block_on(vhost("conformance")) {
        conforms("RabbitMQ 4.0", url);
    }
}

#[test]
fn every_worker_type_conforms_where_quorum_queues_are_the_default() {
    let runtime = Runtime::new().unwrap();
    let quorum = vhost_with("conformance-quorum", Some("quorum"));
    if let Some(url) = runtime.block_on(quorum) {
        conforms("RabbitMQ 4.0 with quorum queues", url);
    }
}

#[test]
fn every_worker_type_conforms_in_profile_quorum() {
    let runtime = Runtime::new().unwrap();
    if let Some(url) = runtime.block_on(vhost("conformance-profile")) {
        conforms(
            "RabbitMQ 4.0, profile quorum",
            format!("{url}?profile=quorum"),
        );
    }
}
