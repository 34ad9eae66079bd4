//! What a worker is to the engine: how it handles one message, how it listens to its peer, how it is registered.

use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use crate::message::{Message, UserMessage};
use crate::outcome::Receipt;
use crate::outside::Outside;
use crate::secrets::Secrets;
use crate::state::{Person, StateStore};
use crate::status::StatusReport;
use crate::telemetry::HttpSeen;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vumi_api::{Kind, OrderingMode, Port, Resource, WorkerConfig};

/// One consumed message, after middleware.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it arrived.
    pub port: Port,
    /// The message.
    pub message: Message,
    /// 1 for the first attempt.
    pub attempt: u32,
}

impl Input {
    /// The message that a transport is to deliver: on its outbound queue there is nothing else.
    pub fn to_deliver(&self) -> Result<&UserMessage, WorkError> {
        match &self.message {
            Message::User(message) => Ok(message),
            Message::Event(_) => Err(WorkError::new(
                ErrorClass::BadInput,
                codes::MESSAGE_INVALID,
                "an event arrived on the outbound queue of a transport",
            )),
        }
    }
}

/// One message that handling an input caused. Published, mandatory and confirmed before the input is acknowledged.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whose data queue it goes to, through the publish chain.
    pub port: Port,
    /// The message. Its id is derived from the input (R6).
    pub message: Message,
}

impl Output {
    /// A message for a port.
    pub fn new(port: Port, message: impl Into<Message>) -> Self {
        Self {
            port,
            message: message.into(),
        }
    }
}

/// A running worker. The engine owns the loops; a worker says what to do.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Handles one message and returns everything it causes. Called in order within a lane, in parallel across lanes.
    /// May be called again for the same input: outputs must come out with equal ids.
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError>;

    /// Whether this replica took what `message` answers, as far as it remembers, and so is the one to handle it. Asked
    /// where the topology says that requests or sessions are held: what it does not know goes to whom the message names
    /// (R19).
    fn holds(&self, message: &UserMessage) -> bool {
        let _ = message;
        false
    }

    /// How many parts the peer gets `message` in, for rate limits that count parts.
    fn parts(&self, message: &UserMessage) -> u32 {
        let _ = message;
        1
    }

    /// The side towards the peer: listens or binds until `cx.closing()` fires, and returns soon after. An error is
    /// retried by the engine with back-off. Workers without a peer leave it as it is.
    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        cx.closing().cancelled().await;
        Ok(())
    }

    /// After the intake closed: returns when every held request has its answer. Bounded by the engine.
    async fn drained(&self) {}

    /// After everything else: says goodbye to the peer (unbind, close sessions). Bounded by the engine.
    async fn close(&self) {}
}

/// What a worker may ask of the engine.
pub struct WorkerContext {
    pub(crate) name: String,
    pub(crate) resource: Arc<Resource>,
    pub(crate) instance: String,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) outside: Outside,
    pub(crate) closing: CancellationToken,
    pub(crate) services: Arc<dyn Services>,
}

/// The engine's side of a [`WorkerContext`]; conformance and unit tests bring their own.
#[async_trait]
pub trait Services: Send + Sync {
    /// Publishes a message of the peer: middleware, backlog limit, mandatory, confirmed. `Ok` means the broker has it
    /// and the peer may get its OK.
    async fn accept(&self, output: Output) -> Result<(), WorkError>;
    /// As [`Self::accept`], for a message that the provider may deliver again under the same `id` (R7). An answer does not
    /// begin with a zero byte.
    async fn accept_once(
        &self,
        output: Output,
        id: &str,
        answer: Bytes,
    ) -> Result<Taken, WorkError>;
    /// What became of the message with this `id`: [`Taken::Now`] if nobody has taken it over. Takes nothing over.
    async fn seen(&self, id: &str) -> Result<Taken, WorkError>;
    /// The answer to the message with this `id` is known now. The first one stays.
    async fn answered(&self, id: &str, answer: Bytes, person: Option<Person>);
    /// What the peer says about a message after it was handed over. `Ok` means that it is known and told.
    async fn receipt(&self, receipt: Receipt) -> Result<(), WorkError>;
    /// Reports on a component; edges are detected and repeats sent by the engine.
    fn report(&self, report: StatusReport);
    /// Opens, or takes over from a predecessor, a listening socket that the supervisor keeps across reloads.
    async fn listen(&self, host: &str, port: u16) -> Result<crate::worker::Listener, WorkError>;
    /// Marks traffic with the peer for the `link` metrics.
    fn traffic(&self, direction: Traffic);
    /// Counts what an HTTP transport saw.
    fn http(&self, seen: HttpSeen);
    /// The state store of the worker, if there is one.
    fn state(&self) -> Option<Arc<dyn StateStore>>;
}

/// What became of a message that may be a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The broker has it now.
    Now,
    /// It was taken over before; what was answered then. Empty if no answer is known, or it was too long to be kept.
    Before(Bytes),
    /// It was taken over before, and the reply to it will not come, for this reason.
    Unanswered(Code),
}

/// Direction of traffic with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// From the peer.
    Inbound,
    /// To the peer.
    Outbound,
}

impl Traffic {
    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Traffic::Inbound => "inbound",
            Traffic::Outbound => "outbound",
        }
    }
}

/// A listening socket lent by the supervisor: it stays open when the worker is replaced, so no connection is refused.
#[derive(Clone)]
pub struct Listener {
    pub(crate) socket: Arc<tokio::net::TcpListener>,
}

impl Listener {
    /// Lends a socket.
    pub fn new(socket: Arc<tokio::net::TcpListener>) -> Self {
        Self { socket }
    }

    /// The next connection.
    pub async fn accept(&self) -> std::io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
        self.socket.accept().await
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.socket.local_addr()
    }
}

impl WorkerContext {
    /// A context; the engine makes it, and tests may.
    pub fn new(
        resource: Arc<Resource>,
        instance: String,
        secrets: Arc<Secrets>,
        closing: CancellationToken,
        services: Arc<dyn Services>,
    ) -> Self {
        Self {
            name: resource.key(),
            resource,
            instance,
            secrets,
            outside: Outside::default(),
            closing,
            services,
        }
    }

    /// The same, with another way out of the process.
    pub fn with_outside(mut self, outside: Outside) -> Self {
        self.outside = outside;
        self
    }

    /// Kind and name, `transport/smpp-za`: part of derived ids, so it never changes while the worker lives.
    pub fn worker_name(&self) -> &str {
        &self.name
    }

    /// The resource it was built from.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Its connector name.
    pub fn transport_name(&self) -> &str {
        self.resource.transport_name()
    }

    /// A name of this replica, unique on the broker.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Where calls to others go: whatever makes them asks it.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Fires when the intake must close.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Hands an inbound user message to the broker; `transport_name` is set. `Ok` means confirmed.
    pub async fn accept(&self, mut message: UserMessage) -> Result<(), WorkError> {
        message.set_transport_name(self.transport_name());
        let port = Port::new(self.transport_name(), vumi_api::Flow::Inbound);
        self.services.accept(Output::new(port, message)).await
    }

    /// As [`Self::accept`], for peers that wait: an error if the broker does not confirm in time. It may have the message
    /// all the same.
    pub async fn accept_within(
        &self,
        message: UserMessage,
        limit: Duration,
    ) -> Result<(), WorkError> {
        within(limit, self.accept(message)).await
    }

    /// As [`Self::accept_within`], for a message that the provider may deliver again under the same `id`: it is taken
    /// over once within the window that the manifest gives, and a repeat gets the first `answer`. Without a state store
    /// every delivery is taken over.
    pub async fn accept_once(
        &self,
        mut message: UserMessage,
        id: &str,
        answer: Bytes,
        limit: Duration,
    ) -> Result<Taken, WorkError> {
        message.set_transport_name(self.transport_name());
        let port = Port::new(self.transport_name(), vumi_api::Flow::Inbound);
        let output = Output::new(port, message);
        within(limit, self.services.accept_once(output, id, answer)).await
    }

    /// What became of a message that the provider may have delivered before under the same `id`: [`Taken::Now`] if it was
    /// not taken over, or nobody remembers. Takes nothing over.
    pub async fn seen(&self, id: &str) -> Result<Taken, WorkError> {
        self.services.seen(id).await
    }

    /// The answer to the message with this `id` is known now: repeats get it, and a later answer changes nothing. Kept
    /// up to 1 KiB.
    pub async fn answered(&self, id: &str, answer: Bytes, person: Option<Person>) {
        self.services.answered(id, answer, person).await;
    }

    /// Hands over what the peer says about a message after it was sent: a late answer, a receipt. `Ok` means that it is
    /// written down and told, and the peer may get its OK; else the peer is to repeat it.
    pub async fn receipt(&self, receipt: Receipt) -> Result<(), WorkError> {
        self.services.receipt(receipt).await
    }

    /// Reports on a component.
    pub fn report(&self, report: StatusReport) {
        self.services.report(report);
    }

    /// Marks traffic with the peer.
    pub fn traffic(&self, direction: Traffic) {
        self.services.traffic(direction);
    }

    /// Counts what an HTTP transport saw.
    pub fn http(&self, seen: HttpSeen) {
        self.services.http(seen);
    }

    /// The state store; none where there is none.
    pub fn state(&self) -> Option<Arc<dyn StateStore>> {
        self.services.state()
    }

    /// Opens or takes over a listening socket.
    pub async fn listen(&self, host: &str, port: u16) -> Result<Listener, WorkError> {
        self.services.listen(host, port).await
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, WorkError>>,
) -> Result<T, WorkError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(WorkError::new(
            ErrorClass::Connect,
            codes::BROKER_UNREACHABLE,
            format!("the broker did not confirm within {limit:?}"),
        )),
    }
}

/// How repeats of the provider's deliveries are recognised (R7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedupe {
    /// The provider gives an id; where it comes from, for the reference page.
    ProviderId(&'static str),
    /// The provider gives none.
    None,
}

/// A worker type's definition, implemented in its family crate.
#[async_trait]
pub trait WorkerType: 'static {
    /// Its config in `vumi-api`.
    type Config: WorkerConfig + Clone + Send + Sync + 'static;
    /// How repeats are recognised.
    const DEDUPE: Dedupe = Dedupe::None;
    /// Whether its peer sends receipts for what it took: then a message is not at its end before one came.
    const RECEIPTS: bool = false;
    /// What users say to it in the conformance suite, so that it answers; `{}` is replaced by the suite's own text.
    const SAYING: &'static str = "{}";

    /// As [`Self::RECEIPTS`], where that depends on the settings.
    fn receipts(config: &Self::Config) -> bool {
        let _ = config;
        Self::RECEIPTS
    }

    /// Builds a worker from a validated config: reads secrets, makes clients, opens nothing exclusive. A broker or peer
    /// that is away is not an error here.
    async fn build(
        config: Self::Config,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError>;

    /// The example manifest and simulated peer by which the conformance suite judges it. Part of every build, so that a
    /// type without one does not compile; only the suite itself is behind feature `conformance`.
    fn fixture() -> crate::conformance::Fixture;
}

pub(crate) type BuildFn = fn(
    Arc<WorkerContext>,
) -> std::pin::Pin<
    Box<dyn std::future::Future<Output = Result<Arc<dyn Worker>, WorkError>> + Send>,
>;

/// One row of a family's registration table.
#[derive(Clone, Copy)]
pub struct Registration {
    /// Kind whose union holds the type.
    pub kind: Kind,
    /// Key in the union.
    pub type_name: &'static str,
    /// Ordering when the manifest does not say.
    pub ordering: OrderingMode,
    /// How repeats are recognised.
    pub dedupe: Dedupe,
    /// Whether receipts come.
    pub receipts: fn(&Resource) -> bool,
    /// What users say to it in the conformance suite; `{}` stands for the suite's own text.
    pub saying: &'static str,
    /// Whether a resource is of this type.
    pub matches: fn(&Resource) -> bool,
    pub(crate) build: BuildFn,
    /// Conformance fixture.
    pub fixture: fn() -> crate::conformance::Fixture,
}

impl Registration {
    /// The row of a worker type.
    pub const fn of<T: WorkerType>() -> Self {
        Self {
            kind: T::Config::KIND,
            type_name: T::Config::TYPE,
            ordering: T::Config::ORDERING,
            dedupe: T::DEDUPE,
            receipts: |resource| T::Config::pick(resource).is_some_and(T::receipts),
            saying: T::SAYING,
            matches: |resource| T::Config::pick(resource).is_some(),
            build: |cx| {
                Box::pin(async move {
                    match T::Config::pick(cx.resource()).cloned() {
                        Some(config) => T::build(config, cx).await,
                        None => Err(WorkError::new(
                            ErrorClass::Bug,
                            codes::CONFIG_INVALID,
                            format!("{} is not of type {}", cx.worker_name(), T::Config::TYPE),
                        )),
                    }
                })
            },
            fixture: T::fixture,
        }
    }
}

impl Registration {
    /// A worker of this type, without an engine around it: for tests of a family.
    pub async fn worker(&self, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        (self.build)(cx).await
    }
}

/// Default of `holdLimit`.
pub const HOLD_LIMIT: Duration = Duration::from_secs(30);
