//! The in-process broker: RabbitMQ's semantics for a laptop and for tests, in memory or (with a state folder) on disk.
//!
//! One lock guards everything; critical sections are short and no task runs per message. With a state folder a
//! persistent message becomes visible, and is confirmed, once the writer thread has committed it: publishing stays
//! pipelined, and all publishers share one commit. Bodies stay in memory too; the memory limit bounds both.

mod consumer;
mod consuming;
mod core;
mod disk;
mod message;
mod pending;
mod publishing;
mod queue;
mod shelf;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use self::core::Core;
use super::{
    Access, Broker, ConsumerState, Durability, LinkState, Publication, QueueDepth, QueueSpec,
    Receipt, Shelf, Subscribe, Subscription,
};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use consumer::Handle;
use disk::Disk;
use pending::Pending;
use queue::Consumer;
use shelf::EmbeddedShelf;
use state::{Clash, State};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Memory that messages may take before publishers to long queues wait, unless the options say otherwise.
pub const DEFAULT_MEMORY_LIMIT: u64 = 512 << 20;

/// How the embedded broker keeps messages.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedOptions {
    /// Folder for queues and messages; none keeps them in memory only.
    pub state: Option<PathBuf>,
    /// Sync to disk before confirming, so that messages survive power loss (R16).
    pub sync: bool,
    /// Bytes of messages (unacknowledged ones included, plus 200 for each) above which the link is
    /// [`LinkState::Blocked`]; none for [`DEFAULT_MEMORY_LIMIT`]. A publication then waits if its queue holds more than
    /// an equal share, so that consumers which publish can still drain; never more than twice the limit is in use.
    pub memory_limit: Option<u64>,
}

/// A connection to an embedded broker, of which there is one per process or per state folder. The broker ends with its
/// last connection.
pub struct EmbeddedBroker {
    core: Arc<Core>,
    session: u64,
    link: watch::Receiver<LinkState>,
    durability: Durability,
    name: Arc<str>,
}

impl EmbeddedBroker {
    /// Opens the broker. With a state folder, queues and messages of an earlier process are there again.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<dyn Broker>, WorkError> {
        Ok(Self::start(options)?)
    }

    /// Opens the broker, for [`Self::connect`].
    ///
    /// # Errors
    /// `broker.state_in_use` if another process has the state folder, `broker.state_unusable` if it cannot be read or
    /// written.
    pub fn start(options: EmbeddedOptions) -> Result<Arc<Self>, WorkError> {
        let limit = options.memory_limit.unwrap_or(DEFAULT_MEMORY_LIMIT);
        let Some(folder) = options.state else {
            let core = Arc::new(Core::new(State::new(limit, None)));
            return Ok(Self::on(core, Durability::Memory, "embedded".into()));
        };
        let name = format!("embedded, state in {}", folder.display());
        let mut state = State::new(limit, Some(Pending::default()));
        let disk = Disk::open(folder, options.sync)?;
        disk.load(&mut state)?;
        let core = Arc::new(Core::new(state));
        let durability = if options.sync {
            Durability::Host
        } else {
            Durability::Process
        };
        let broker = Self::on(Arc::clone(&core), durability, name.into());
        std::thread::Builder::new()
            .name("embedded-broker".into())
            .spawn(move || writer::run(&core, disk))
            .map_err(|e| {
                WorkError::new(
                    ErrorClass::Connect,
                    codes::BROKER_STATE,
                    format!("cannot start the thread that writes the state folder: {e}"),
                )
            })?;
        Ok(broker)
    }

    /// Another connection to the same broker; its exclusive queues, consumers and end are its own.
    pub fn connect(&self) -> Arc<Self> {
        Self::on(
            Arc::clone(&self.core),
            self.durability,
            Arc::clone(&self.name),
        )
    }

    fn on(core: Arc<Core>, durability: Durability, name: Arc<str>) -> Arc<Self> {
        let (session, link) = core.with(State::open_session);
        Arc::new(Self {
            core,
            session,
            link,
            durability,
            name,
        })
    }

    fn closed(&self) -> WorkError {
        WorkError::new(
            ErrorClass::Connect,
            codes::BROKER_UNREACHABLE,
            format!("the connection to the broker ({}) is closed", self.name),
        )
    }

    /// Does something with the state, unless this connection is closed.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, WorkError> {
        self.core
            .with(|state| state.has_session(self.session).then(|| change(state)))
            .ok_or_else(|| self.closed())
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn describe(&self) -> String {
        self.name.as_ref().into()
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.clone()
    }

    async fn publish(&self, publication: Publication) -> Receipt {
        let (resolve, receipt) = Receipt::new();
        let try_now = |publication, resolve| {
            self.core
                .with(|state| state.publish(self.session, publication, resolve))
        };
        let mut outcome = try_now(publication, resolve);
        while let Err(waiting) = outcome {
            let room = self.core.room.notified();
            let (publication, resolve) = *waiting;
            outcome = try_now(publication, resolve);
            if outcome.is_err() {
                room.await;
            }
        }
        receipt
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Subscription {
        let prefetch = usize::from(subscribe.prefetch.max(1));
        // Twice, so that a new generation need not wait for what is left of the old one in the stream.
        let (sender, deliveries) = mpsc::channel(prefetch * 2);
        let (state, states) = watch::channel(ConsumerState::Connecting(None));
        let id = self.core.with(|broker| {
            let id = broker.next_id();
            let consumer = Consumer {
                id,
                session: self.session,
                spec: subscribe.queue,
                queue: None,
                tag: subscribe.tag,
                prefetch,
                fenced: subscribe.access == Access::Fenced,
                cancelled: false,
                generation: 1,
                next_tag: 1,
                unacked: BTreeMap::new(),
                sender,
                state,
            };
            if broker.has_session(self.session) {
                broker.add_consumer(consumer);
            } else {
                consumer.say(ConsumerState::Stopped);
            }
            id
        });
        Subscription {
            deliveries,
            state: states,
            acker: Arc::new(Handle {
                core: Arc::clone(&self.core),
                id,
            }),
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        let written = self.with(|state| {
            state.declare(queue, self.session)?;
            Ok(state.flushed())
        })?;
        match written {
            Ok(None) => Ok(()),
            Ok(Some(written)) => written.await.map_err(|_| self.closed()),
            Err(clash) => Err(WorkError::new(
                ErrorClass::Config,
                codes::BROKER_QUEUE_TYPE,
                match clash {
                    Clash::Kind(sentence) => sentence,
                    Clash::Held => {
                        format!("queue {:?} belongs to another connection", queue.name())
                    }
                },
            )),
        }
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        self.with(|state| state.depth(queue))
    }

    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError> {
        let taken = self.with(|state| state.take(queue, limit))?;
        let taken = taken.map_err(|reader| {
            WorkError::new(
                ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                format!("queue {queue:?} is being read by {reader}; try again when it is done"),
            )
        })?;
        Ok(Box::new(EmbeddedShelf::new(Arc::clone(&self.core), taken)))
    }

    async fn close(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        if let Ok(Some(written)) = self.with(State::flushed) {
            let _ = tokio::time::timeout_at(end, written).await;
        }
        let last = self.core.with(|state| {
            state.close_session(self.session);
            state.is_closed()
        });
        if last {
            let mut finished = self.core.finished.subscribe();
            let _ = tokio::time::timeout_at(end, finished.wait_for(|f| *f)).await;
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.core.with(|state| state.close_session(self.session));
    }
}
