//! Every worker type against the conformance suite on real RabbitMQ: both versions, and 4.0 where quorum queues are the
//! default. Each case has a virtual host of its own.

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{Broker, LinkState};
use vumi_core::conformance::{BrokerSource, check_on};
use vumi_core::worker::Registration;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

struct Source {
    name: String,
    server: RabbitMq,
    default_queue_type: Option<&'static str>,
    /// Virtual hosts made so far. Held while one is made: the broker's shell takes one caller at a time.
    opened: Mutex<usize>,
}

#[async_trait]
impl BrokerSource for Source {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self) -> Result<Arc<dyn Broker>, String> {
        let vhost = {
            let mut opened = self.opened.lock().await;
            *opened += 1;
            let vhost = format!("case{opened}");
            let added = self.server.add_vhost(&vhost, self.default_queue_type).await;
            added.map_err(|e| e.to_string())?;
            vhost
        };
        let config = AmqpConfig::from_url(&self.server.url(&vhost)).map_err(|e| e.to_string())?;
        let broker = AmqpBroker::connect(config);
        let mut link = broker.link();
        let up = link.wait_for(|state| matches!(state, LinkState::Up { .. }));
        let up = tokio::time::timeout(Duration::from_secs(30), up).await;
        up.map_err(|_| "the broker cannot be reached")?
            .map_err(|e| e.to_string())?;
        Ok(broker)
    }
}

fn conforms(version: Version, default_queue_type: Option<&'static str>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = RabbitMq::start_or_skip(version, Options::default());
    let Some(server) = runtime.block_on(started) else {
        return;
    };
    let source = Source {
        name: format!(
            "RabbitMQ {} with {} queues",
            version.as_str(),
            default_queue_type.unwrap_or("classic")
        ),
        server,
        default_queue_type,
        opened: Mutex::new(0),
    };
    let registrations: Vec<Registration> = vumi::registry::all().copied().collect();
    check_on(&registrations, &[&source]);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_3() {
    conforms(Version::V3_10, None);
}

#[test]
fn every_worker_type_conforms_on_rabbitmq_4() {
    conforms(Version::V4_0, None);
}

#[test]
fn every_worker_type_conforms_where_quorum_queues_are_the_default() {
    conforms(Version::V4_0, Some("quorum"));
}
