//! Two brokers behind one interface: RabbitMQ ([`amqp`]) and an in-process one ([`embedded`]) with the same semantics,
//! both judged by one suite (`tests/it/broker_suite.rs`).
//!
//! A [`Broker`] heals itself: it reconnects with jittered back-off and rebuilds channels, consumers and topology. A
//! consumer that lost its channel goes on under a new *generation*; verdicts of an older one are ignored and counted.

pub mod amqp;
pub mod embedded;

use crate::error::WorkError;
use async_trait::async_trait;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot, watch};

/// Exchange of user messages, events, status and failures: direct, durable.
pub const EXCHANGE: &str = "vumi";
/// Exchange of heartbeats: direct, durable.
pub const HEALTH_EXCHANGE: &str = "vumi.health";

/// One message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Exchange; empty for the default exchange (routing key = queue name).
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// Body.
    pub body: Bytes,
    /// AMQP `message_id` property.
    pub message_id: Option<String>,
    /// Data is persistent and mandatory and its queue is declared first; telemetry is none of the three (R12).
    pub class: PublicationClass,
}

/// What a publication promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicationClass {
    /// Persistent, `mandatory`; the durable queue `routing_key` is declared and bound once per connection before.
    Data,
    /// Persistent, `mandatory`, nothing declared: forwards to a holder's reply queue, requeues to an origin.
    Direct,
    /// Transient, not mandatory, nothing declared.
    Telemetry,
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The broker has it, with the durability it is known for.
    Confirmed,
    /// No queue took it.
    Returned(String),
    /// The broker refused it (overload, internal error).
    Nacked,
    /// The connection ended first: unknown, publish again.
    Lost,
}

/// Resolves when the fate of a publication is known. Dropping it does not withdraw the publication.
#[must_use = "a message is only safe once its receipt says Confirmed"]
#[derive(Debug)]
pub struct Receipt(pub(crate) oneshot::Receiver<Confirmation>);

impl Receipt {
    /// A receipt and the handle that resolves it.
    pub fn new() -> (oneshot::Sender<Confirmation>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// The confirmation if it is there; it is given once. It may be asked for beside [`Receipt::poll`].
    pub(crate) fn look(&mut self) -> Option<Confirmation> {
        match self.0.try_recv() {
            Ok(said) => Some(said),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Confirmation::Lost),
        }
    }

    /// Waits for the confirmation, which is given once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Confirmation> {
        let said = Pin::new(&mut self.0).poll(cx);
        said.map(|said| said.unwrap_or(Confirmation::Lost))
    }

    /// Waits for the confirmation. A broker that vanished without a word counts as [`Confirmation::Lost`].
    pub async fn confirmation(self) -> Confirmation {
        self.0.await.unwrap_or(Confirmation::Lost)
    }
}

/// How a queue is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Competing consumers; on a replicated queue, which has one at a time, the others stand by.
    Shared,
    /// One consumer, held by a fence the broker enforces and a probe proves (R1, R2); others stand by.
    Fenced,
}

/// What to consume.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Queue; also its routing key on [`EXCHANGE`] when it is a data queue.
    pub queue: QueueSpec,
    /// Unacknowledged messages at most. The only queue inside the process. Every consumer of one fenced queue has the same:
    /// what returns to a replicated queue keeps its order only for one that takes all of it.
    pub prefetch: u16,
    /// Alone or competing.
    pub access: Access,
    /// Consumer tag shown by the broker's tools, e.g. `transport/telnet@host-4711`.
    pub tag: String,
}

/// Which queue, and how it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueSpec {
    /// Durable, classic or replicated as the broker's profile says (R1, S1), bound to [`EXCHANGE`] by its own name.
    Data(String),
    /// The same, unbound: parking queues.
    Parking(String),
    /// Exclusive, auto-delete, on the default exchange: a replica's reply queue (R19).
    Reply(String),
    /// Exclusive, auto-delete, bound to the exchange by each key: our own copy of what is said in passing.
    Copy {
        /// Queue name.
        name: String,
        /// Exchange to bind to.
        exchange: String,
        /// Routing keys.
        keys: Vec<String>,
    },
    /// Exclusive, auto-delete: copies of what is published to data queues, to each while it exists. It makes no message
    /// routable that would not be without it (S4).
    Tap {
        /// Queue name.
        name: String,
        /// The data queues.
        queues: Vec<String>,
    },
}

impl QueueSpec {
    /// The queue's name.
    pub fn name(&self) -> &str {
        match self {
            QueueSpec::Data(name) | QueueSpec::Parking(name) | QueueSpec::Reply(name) => name,
            QueueSpec::Copy { name, .. } | QueueSpec::Tap { name, .. } => name,
        }
    }
}

/// One delivered message, before anything looked at it.
#[derive(Clone, Debug)]
pub struct RawDelivery {
    /// Broker's number of this delivery within its generation, rising by one.
    pub tag: u64,
    /// Which life of the channel it belongs to.
    pub generation: u64,
    /// Delivered before to someone who did not acknowledge it.
    pub redelivered: bool,
    /// Routing key it was published with.
    pub routing_key: String,
    /// Body.
    pub body: Bytes,
    /// AMQP `message_id` property.
    pub message_id: Option<String>,
    /// `x-delivery-count`: present only on quorum queues that drop messages after a limit (R1), never in profile quorum.
    pub delivery_count: Option<i64>,
}

/// State of one consumer (R9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerState {
    /// No connection or channel yet; with the last error.
    Connecting(Option<String>),
    /// The broker sends us messages.
    Consuming,
    /// Another consumer holds the fence; with its name if known.
    Standby(Option<String>),
    /// The queue cannot be consumed until someone acts, e.g. it has another type (R1) or a foreigner reads it (S16): code
    /// and sentence.
    Refused(String, String),
    /// Cancelled by us.
    Stopped,
}

/// State of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Trying; with the last error and whether credentials were refused.
    Connecting {
        /// Last error, without secrets.
        error: Option<String>,
        /// When the present outage began.
        since: SystemTime,
        /// The broker answered, and trying again will not help: it refused user, password or vhost, or speaks otherwise.
        refused: bool,
    },
    /// Connected.
    Up {
        /// Product and version, e.g. `RabbitMQ 4.0.5`.
        server: String,
    },
    /// Connected, but the broker accepts no publications (memory or disk alarm).
    Blocked(String),
    /// Closed by us.
    Closed,
}

/// How much a confirmed message survives (R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the in-process broker without a state folder.
    Memory,
    /// `kill -9` of the process.
    Process,
    /// Power loss.
    Host,
}

impl Durability {
    /// The word used in config, status and bench.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Process => "process",
            Durability::Host => "host",
        }
    }
}

/// Depth of a queue as a passive declaration sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages ready for delivery; unacknowledged ones are not in it.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Acknowledges deliveries of one subscription. Calls for an older generation do nothing and return false.
pub trait Acker: Send + Sync {
    /// The generation of deliveries now; none between two.
    fn generation(&self) -> Option<u64>;
    /// Acknowledges `tag`, and with `multiple` everything before it.
    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool;
    /// Returns `tag` to its queue: only for deliveries that were never handled (shutdown, link down), and only where no
    /// order is kept, because a replicated queue puts it last.
    fn requeue(&self, generation: u64, tag: u64) -> bool;
    /// Stops the broker from sending more (the subscription stays, in-flight deliveries may be acknowledged).
    fn cancel(&self);
    /// Sends again after [`Acker::cancel`].
    fn resume(&self);
    /// Gives up everything unacknowledged, and the fence with it, in one step, so that nobody overtakes what returns.
    /// Nothing is sent until [`Acker::resume`].
    fn release(&self);
    /// Gives up the channel: everything unacknowledged returns to the queue; the consumer ends.
    fn close(&self);
    /// Drops the channel and builds a new one (R9: only under its four conditions).
    fn rebuild(&self);
}

/// A consumer that outlives connections.
pub struct Subscription {
    /// Deliveries; bounded by the prefetch. Ends after [`Acker::close`].
    pub deliveries: mpsc::Receiver<RawDelivery>,
    /// Its state.
    pub state: watch::Receiver<ConsumerState>,
    /// Its acknowledgements.
    pub acker: Arc<dyn Acker>,
}

/// A set of messages taken exclusively from a queue to look at, for `vumi parked`. Dropping it returns what was not
/// removed.
#[async_trait]
pub trait Shelf: Send {
    /// Messages taken, at most the limit asked for, oldest first.
    fn messages(&self) -> &[RawDelivery];
    /// Removes one for good.
    async fn remove(&mut self, tag: u64) -> Result<(), WorkError>;
    /// Returns everything else to the queue, in order.
    async fn close(self: Box<Self>);
}

/// Says whether a publication is still wanted when its turn comes.
pub type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// A self-healing connection to one virtual host.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// What it is, for people, without secrets: `rabbitmq amqp://user@host:5672/vhost` or `embedded`.
    fn describe(&self) -> String;
    /// What a confirmation of a data publication means.
    fn durability(&self) -> Durability;
    /// Name of the broker's cluster, as it says itself; none before the first connection, and where it has none.
    fn cluster(&self) -> Option<String> {
        None
    }
    /// State of the connection.
    fn link(&self) -> watch::Receiver<LinkState>;
    /// Hands one message to the broker. Returns as soon as it is queued for sending (waits while the connection is
    /// away, blocked or has too many unconfirmed messages); the receipt tells what became of it.
    async fn publish(&self, publication: Publication) -> Receipt;
    /// The same, but what waits here is not sent if it is not wanted any more: the receipt says [`Confirmation::Lost`].
    async fn publish_if(&self, publication: Publication, wanted: Wanted) -> Receipt {
        match wanted() {
            true => self.publish(publication).await,
            false => Receipt::new().1,
        }
    }
    /// Starts a consumer; it declares its queue and comes up as soon as it can.
    async fn subscribe(&self, subscribe: Subscribe) -> Subscription;
    /// Declares a queue without consuming it.
    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError>;
    /// Depth of a queue; none if it does not exist. An error is never read as zero.
    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError>;
    /// Messages ready in a queue; 0 if it does not exist.
    async fn ready(&self, queue: &str) -> Result<u32, WorkError> {
        Ok(self.depth(queue).await?.map_or(0, |depth| depth.ready))
    }
    /// Whether a queue is there, also one that is somebody's own, whose depth nobody else is told.
    async fn is_there(&self, queue: &str) -> Result<bool, WorkError> {
        Ok(self.depth(queue).await?.is_some())
    }
    /// Takes up to `limit` messages off a queue to look at them, exclusively.
    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError>;
    /// Flushes confirms (bounded by `deadline`) and closes.
    async fn close(&self, deadline: std::time::Duration);
}
