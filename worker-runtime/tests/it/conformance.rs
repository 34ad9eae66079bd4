//! The conformance suite on real RabbitMQ. Every worker type on 4.0, in both profiles; one of each sort on what differs from these in
//! nothing but the broker's side of how queues are declared, which is the same code for all types: 3.10, and where quorum queues
//! are the default (R1 of the design).

use crate::harness::{PATIENCE, shared_broker, vhost_with};
use async_trait::async_trait;
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

/// One of each sort: those that hold connections, those that are asked, those that ask nobody, those without and with a state,
/// those that pass on.
const SORTS: [&str; 6] = [
    "telnet",
    "httpApi",
    "devNull",
    "echo",
    "memoBot",
    "routingTable",
];

/// Every worker type.
fn all() -> Vec<Registration> {
    vumi::registry::all().copied().collect()
}

/// One of each sort.
fn sorts() -> Vec<Registration> {
    let all = all().into_iter();
    let sorts: Vec<Registration> = all.filter(|r| SORTS.contains(&r.type_name)).collect();
    assert_eq!(sorts.len(), SORTS.len());
    sorts
}

/// On the broker that all tests share, if that can run here.
fn conform(
    types: &[Registration],
    name: &str,
    vhost: &str,
    default_queue_type: Option<&str>,
    parameters: &str,
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
    check_on(types, &[&source]);
}

#[test]
fn each_sort_conforms_on_rabbitmq_3() {
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
    check_on(&sorts(), &[&source]);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_4() {
    conform(&all(), "RabbitMQ 4.0", "conformance", None, "");
}

#[test]
fn each_sort_conforms_where_quorum_queues_are_the_default() {
    let name = "RabbitMQ 4.0 with quorum queues";
    conform(&sorts(), name, "conformance-quorum", Some("quorum"), "");
}

#[test]
fn every_worker_type_conforms_in_profile_quorum() {
    let (name, parameters) = ("RabbitMQ 4.0, profile quorum", "?profile=quorum");
    conform(&all(), name, "conformance-profile", None, parameters);
}
