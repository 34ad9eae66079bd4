//! Worker types against the conformance suite on real RabbitMQ: every one on both versions and in both profiles, one of each kind where
//! quorum queues are the default.

use crate::harness::{PATIENCE, shared_broker, vhost_with};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Runtime;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{Broker, LinkState};
use vumi_core::conformance::{BrokerSource, check_on};
use vumi_core::worker::Registration;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

/// A virtual host of a broker.
struct Source<'a> {
    name: &'a str,
    server: &'a RabbitMq,
    vhost: &'a str,
    /// Parameters of the address.
    parameters: &'a str,
}

#[async_trait]
impl BrokerSource for Source<'_> {
    fn name(&self) -> &str {
        self.name
    }

    async fn open(&self) -> Result<Arc<dyn Broker>, String> {
        let url = format!("{}{}", self.server.url(self.vhost), self.parameters);
        let config = AmqpConfig::from_url(&url).map_err(|e| e.to_string())?;
        let broker = AmqpBroker::connect(config);
        let mut link = broker.link();
        let up = link.wait_for(|state| matches!(state, LinkState::Up { .. }));
        let up = tokio::time::timeout(PATIENCE, up).await;
        up.map_err(|_| "the broker cannot be reached")?
            .map_err(|e| e.to_string())?;
        Ok(broker)
    }

    async fn delete_queues(&self, part: &str) -> Result<(), String> {
        let deleted = self.server.delete_queues(self.vhost, part).await;
        deleted.map_err(|e| e.to_string())
    }
}

fn every_type() -> Vec<Registration> {
    vumi::registry::all().copied().collect()
}

fn one_of_each_kind() -> Vec<Registration> {
    let mut kinds = BTreeSet::new();
    let first = |one: &&Registration| kinds.insert(one.kind.as_str());
    vumi::registry::all().filter(first).copied().collect()
}

/// On the broker that all tests share.
fn conforms(
    name: &str,
    vhost: &str,
    default_queue_type: Option<&str>,
    parameters: &str,
    registrations: &[Registration],
) {
    let runtime = Runtime::new().unwrap();
    let Some(server) = runtime.block_on(shared_broker()) else {
        return;
    };
    runtime.block_on(vhost_with(vhost, default_queue_type));
    let source = Source {
        name,
        server,
        vhost,
        parameters,
    };
    check_on(registrations, &[&source]);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_3() {
    let runtime = Runtime::new().unwrap();
    let started = RabbitMq::start_or_skip(Version::V3_10, Options::default());
    let Some(server) = runtime.block_on(started) else {
        return;
    };
    let vhost = "conformance";
    runtime.block_on(server.add_vhost(vhost, None)).unwrap();
    let source = Source {
        name: "RabbitMQ 3.10",
        server: &server,
        vhost,
        parameters: "",
    };
    check_on(&every_type(), &[&source]);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_4() {
    let name = "RabbitMQ 4.0";
    conforms(name, "conformance", None, "", &every_type());
}

#[test]
fn every_worker_type_conforms_in_profile_quorum() {
    let (name, vhost) = ("RabbitMQ 4.0, profile quorum", "conformance-profile");
    conforms(name, vhost, None, "?profile=quorum", &every_type());
}

/// Every queue is declared with its type, so that the default makes none of ours another one (R1), whatever reads it.
#[test]
fn a_worker_of_each_kind_conforms_where_quorum_queues_are_the_default() {
    let name = "RabbitMQ 4.0 where quorum queues are the default";
    conforms(
        name,
        "conformance-quorum",
        Some("quorum"),
        "",
        &one_of_each_kind(),
    );
}
