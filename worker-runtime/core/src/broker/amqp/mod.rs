//! RabbitMQ over AMQP 0-9-1: two connections per process (S3), one for consuming and acknowledging, one for publishing,
//! each healing itself. Everything here is at least once: what is not confirmed is reported lost, never assumed sent.

mod beside;
mod channels;
mod checkup;
mod config;
mod consumer;
mod dial;
mod errors;
mod fence;
mod holder;
mod link;
mod orders;
mod profile;
mod publisher;
mod remover;
mod shelf;
mod spare;
mod topology;

pub use checkup::checkup;
pub use config::{AmqpConfig, Identity};
pub use profile::Profile;
pub use remover::{Remover, cluster_name};

use super::{
    Broker, Durability, LinkState, Publication, QueueDepth, QueueSpec, Receipt, Shelf, Subscribe,
    Subscription, Wanted,
};
use crate::error::WorkError;
use async_trait::async_trait;
use errors::Trouble;
use holder::Herald;
use lapin::Channel;
use link::{Hub, Line};
use publisher::Publisher;
use spare::{KeptChannel, Spare};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Beginnings of the log targets that are never logged, whatever a filter says. The client logs whole returned messages
/// as warnings, every refused try for a fence as an error, and the broker's password when it traces; what matters of it
/// is reported by this module, without contents.
pub const SILENT: [&str; 2] = ["lapin", "amq_protocol"];

/// How long a one-off question (depth, declaration, shelf) waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// A self-healing pair of connections to one virtual host of RabbitMQ.
pub struct AmqpBroker {
    config: Arc<AmqpConfig>,
    hub: Arc<Hub>,
    consuming: Line,
    publisher: Publisher,
    errands: Mutex<Errands>,
    /// Names of queues that end with the connection that consumes them: the broker tells no other connection of them.
    own: std::sync::Mutex<HashSet<String>>,
    spare: Arc<Spare>,
    consumers: TaskTracker,
    lines: TaskTracker,
    stop_consumers: CancellationToken,
    lifeline: Arc<Lifeline>,
}

/// The channel for declarations and depths.
#[derive(Default)]
struct Errands {
    /// None until needed and after an error closed it.
    channel: Option<KeptChannel>,
    /// The broker closed one for what it was asked, and may do so again.
    refused: bool,
}

/// Ends the connections when the last of the broker and its subscriptions is dropped.
struct Lifeline(CancellationToken);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl AmqpBroker {
    /// Starts connecting and returns at once: a broker that is away is a state, not an error.
    pub fn connect(config: AmqpConfig) -> Arc<dyn Broker> {
        let config = Arc::new(config);
        let hub = Arc::new(Hub::new());
        let (lines, stop_lines) = (TaskTracker::new(), CancellationToken::new());
        let line = |role| {
            let (line, keeper) = link::line(&config, &hub, role, stop_lines.clone());
            lines.spawn(keeper);
            line
        };
        let consuming = line(link::Role::Consume);
        let publishing = line(link::Role::Publish);
        let spare = Arc::new(Spare::new(Arc::clone(&config)));
        let ways = (publishing, Arc::clone(&spare));
        Arc::new(Self {
            publisher: Publisher::start(ways, config.profile(), hub.gate()),
            spare,
            config,
            hub,
            consuming,
            errands: Mutex::default(),
            own: std::sync::Mutex::default(),
            consumers: TaskTracker::new(),
            lines,
            stop_consumers: stop_lines.child_token(),
            lifeline: Arc::new(Lifeline(stop_lines)),
        })
    }

    /// Runs one question on the errands channel; an error of the channel makes the next question open a new one.
    async fn errand<T>(
        &self,
        what: &str,
        ask: impl AsyncFnOnce(&Channel) -> Result<T, Trouble>,
    ) -> Result<T, (Trouble, String)> {
        let asked = async {
            let mut errands = self.errands.lock().await;
            let there = errands.channel.take().filter(|c| c.status().connected());
            let channel = match there {
                Some(channel) => channel,
                None => {
                    let consuming = self.consuming.clone().connection().await?;
                    match errands.refused {
                        true => self.spare.channel(&consuming).await?,
                        false => KeptChannel::open(consuming).await?,
                    }
                }
            };
            let answer = ask(&channel).await;
            errands.refused |= channel.is_refused();
            errands.channel = Some(channel);
            answer
        };
        self.in_time(what, asked).await
    }

    async fn in_time<T>(
        &self,
        what: &str,
        asked: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, (Trouble, String)> {
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::Lost(self.hub.last_error())),
        };
        answer.map_err(|trouble| (trouble, what.to_owned()))
    }

    fn own(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The depth of a queue that only the consuming connection may ask for.
    async fn own_depth(&self, queue: &str) -> Result<QueueDepth, Trouble> {
        let consuming = self.consuming.clone().connection().await?;
        let opened = channels::open(&consuming).await;
        let channel = opened.map_err(|e| Trouble::of(&e))?;
        topology::depth(&channel, queue).await
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    fn describe(&self) -> String {
        let address = self.hub.address();
        // Before the first connection, where one is tried.
        let address = address.unwrap_or_else(|| self.config.describe());
        format!("rabbitmq {address}")
    }

    fn durability(&self) -> Durability {
        profile::durability(self.config.profile(), self.hub.durability())
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.hub.watch()
    }

    fn cluster(&self) -> Option<String> {
        self.hub.cluster()
    }

    async fn publish(&self, publication: Publication) -> Receipt {
        self.publisher.publish(publication, None).await
    }

    async fn publish_if(&self, publication: Publication, wanted: Wanted) -> Receipt {
        self.publisher.publish(publication, Some(wanted)).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Subscription {
        let herald = Herald::new(
            &subscribe,
            self.publisher.announcer(),
            self.hub.watch(),
            self.config.holder_silence(),
        );
        if topology::is_ours_alone(&subscribe.queue) {
            self.own().insert(subscribe.queue.name().to_owned());
        }
        let (subscription, task) = consumer::subscription(
            subscribe,
            self.config.profile(),
            herald,
            (self.consuming.clone(), Arc::clone(&self.spare)),
            &self.stop_consumers,
            Arc::clone(&self.lifeline),
        );
        self.consumers.spawn(task);
        subscription
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.errand(queue.name(), async |channel| {
            topology::declare_queue(channel, self.config.profile(), queue).await
        })
        .await
        .map_err(errors::work_error)
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        let is_own = self.own().contains(queue);
        let asked = match is_own {
            true => self.in_time(queue, self.own_depth(queue)).await,
            false => {
                self.errand(queue, async |channel| topology::depth(channel, queue).await)
                    .await
            }
        };
        match asked {
            Ok(depth) => Ok(Some(depth)),
            Err((Trouble::Missing(_), _)) => Ok(None),
            Err(error) => Err(errors::work_error(error)),
        }
    }

    async fn is_there(&self, queue: &str) -> Result<bool, WorkError> {
        let asked = self
            .errand(queue, async |channel| topology::depth(channel, queue).await)
            .await;
        match asked {
            Ok(_) | Err((Trouble::Held(_), _)) => Ok(true),
            Err((Trouble::Missing(_), _)) => Ok(false),
            Err(error) => Err(errors::work_error(error)),
        }
    }

    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError> {
        let taken = async {
            let connection = self.consuming.clone().connection().await?;
            shelf::take(
                (&connection, &self.spare),
                self.config.profile(),
                queue,
                limit,
            )
            .await
        };
        match tokio::time::timeout(shelf::PATIENCE + PATIENCE, taken).await {
            Ok(Ok(shelf)) => Ok(Box::new(shelf)),
            Ok(Err(trouble)) => Err(errors::work_error((trouble, queue.to_owned()))),
            Err(_) => Err(errors::work_error((
                Trouble::Lost(self.hub.last_error()),
                queue.to_owned(),
            ))),
        }
    }

    async fn close(&self, deadline: Duration) {
        let deadline = tokio::time::Instant::now() + deadline;
        self.publisher.close(deadline).await;
        self.stop_consumers.cancel();
        self.consumers.close();
        let _ = tokio::time::timeout_at(deadline, self.consumers.wait()).await;
        self.errands.lock().await.channel = None;
        self.lifeline.0.cancel();
        self.lines.close();
        let _ = tokio::time::timeout_at(deadline, self.lines.wait()).await;
        self.hub.closed();
    }
}
