//! What workers say of themselves, as our own queue gets it (K6).

use super::link::report;
use super::shared::Shared;
use crate::engine::Engine;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use vumi_core::broker::{Access, Broker, ConsumerState, EXCHANGE, QueueSpec, Subscribe};
use vumi_core::message::TransportStatus;

/// Unacknowledged reports.
const PREFETCH: u16 = 200;
/// Consumers beside the first, each for connectors that came later, before there is one for all again.
const CONSUMERS: usize = 8;
/// For so long two hear, at most, while one takes the place of the others.
const OVERLAP: Duration = Duration::from_secs(10);

/// Our own copies of what workers say (K6).
pub(super) struct Ears {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    broker: Arc<dyn Broker>,
    heard: BTreeSet<String>,
    /// The first one hears all that there was when it began.
    names: Vec<String>,
    state: Option<tokio::sync::watch::Receiver<ConsumerState>>,
    listeners: JoinSet<()>,
}

impl Ears {
    pub(super) fn new(engine: Arc<Engine>, shared: Arc<Shared>, broker: Arc<dyn Broker>) -> Self {
        Self {
            engine,
            shared,
            broker,
            heard: BTreeSet::new(),
            names: Vec::new(),
            state: None,
            listeners: JoinSet::new(),
        }
    }

    /// A queue of ours, and whether it is there.
    pub(super) fn first(&self) -> (String, bool) {
        let name = self.names.first().cloned().unwrap_or_default();
        let consuming = |state: &tokio::sync::watch::Receiver<ConsumerState>| {
            *state.borrow() == ConsumerState::Consuming
        };
        (name, self.state.as_ref().is_some_and(consuming))
    }

    /// Hears these connectors from now on. What is not heard any more costs little until the next time that all is heard anew.
    pub(super) async fn hear(&mut self, connectors: &BTreeSet<String>) {
        let new: BTreeSet<String> = connectors.difference(&self.heard).cloned().collect();
        if new.is_empty() {
            return;
        }
        let anew = self.names.len() >= CONSUMERS;
        let old = anew.then(|| std::mem::take(&mut self.listeners));
        let wanted = match anew || self.names.is_empty() {
            true => connectors,
            false => &new,
        };
        let name = format!("vumi.operator.{:016x}", rand::random::<u64>());
        let mut subscription = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Copy {
                    name: name.clone(),
                    exchange: EXCHANGE.to_owned(),
                    keys: wanted
                        .iter()
                        .map(|connector| TransportStatus::routing_key(connector))
                        .collect(),
                },
                prefetch: PREFETCH,
                access: Access::Shared,
                tag: name.clone(),
            })
            .await;
        if anew {
            self.names.clear();
        }
        if self.names.is_empty() {
            self.state = Some(subscription.state.clone());
        }
        self.names.push(name);
        self.heard.clone_from(connectors);
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let mut state = subscription.state.clone();
        self.listeners.spawn(async move {
            while let Some(raw) = subscription.deliveries.recv().await {
                if let Some(report) = report(&raw.routing_key, &raw.body, engine.clock.now()) {
                    shared.hear(&engine, &report);
                }
                subscription.acker.ack(raw.generation, raw.tag, false);
            }
        });
        if let Some(old) = old {
            // Two hear for a moment, rather than nobody.
            let up = state.wait_for(|state| *state == ConsumerState::Consuming);
            let _ = tokio::time::timeout(OVERLAP, up).await;
            drop(old);
        }
    }
}
