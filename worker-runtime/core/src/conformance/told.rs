//! What a worker under test says of itself on the broker, kept to be searched for what it must not say.

use crate::broker::{Access, Broker, EXCHANGE, QueueSpec, Subscribe};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Copies of its status messages.
pub(super) struct Told {
    bodies: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
    /// Copies what is published with the routing key `key`, for the worker `instance`.
    pub(super) async fn open(broker: &Arc<dyn Broker>, instance: &str, key: String) -> Self {
        let mut copy = broker
            .subscribe(Subscribe {
                queue: QueueSpec::Copy {
                    name: format!("{instance}.told"),
                    exchange: EXCHANGE.into(),
                    keys: vec![key],
                },
                prefetch: 1000,
                access: Access::Shared,
                tag: "conformance".into(),
            })
            .await;
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&bodies);
        let task = tokio::spawn(async move {
            while let Some(delivery) = copy.deliveries.recv().await {
                let body = String::from_utf8_lossy(&delivery.body).into_owned();
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(body);
                copy.acker.ack(delivery.generation, delivery.tag, false);
            }
        });
        Self { bodies, task }
    }

    /// Everything so far, as it was written.
    pub(super) fn bodies(&self) -> Vec<String> {
        let bodies = self.bodies.lock();
        bodies.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
