//! The engine on the in-memory broker, with workers that each test scripts.

mod classes;
mod copies;
mod costs;
mod desk;
mod divisions;
mod flow;
mod forwarded;
mod leaving;
mod lost_channels;
mod moves;
mod partitions;
mod starting;
mod watch;

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Access, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe};
use crate::codes;
use crate::conformance::Fixture;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Event, EventType, Message, UserMessage, reply_id};
use crate::parking;
use crate::worker::{Input, Output, Registration, Worker, WorkerContext, WorkerType};
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vumi_api::applications::Echo;
use vumi_api::{Flow, Kind, Port, Resource};

type Handler = Arc<
    dyn Fn(Input, Arc<WorkerContext>) -> BoxFuture<'static, Result<Vec<Output>, WorkError>>
        + Send
        + Sync,
>;

static HANDLERS: Mutex<Option<HashMap<String, Handler>>> = Mutex::new(None);
static NUMBER: AtomicU64 = AtomicU64::new(0);

struct Scripted {
    handler: Handler,
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Scripted {
    type Config = Echo;

    async fn build(_: Echo, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        let handler = HANDLERS
            .lock()
            .unwrap()
            .as_ref()
            .and_then(|all| all.get(&cx.resource().name).cloned());
        let handler = handler.expect("every test registers its handler");
        Ok(Arc::new(Scripted { handler, cx }))
    }

    fn fixture() -> Fixture {
        unreachable!("not a registered type")
    }
}

#[async_trait]
impl Worker for Scripted {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        (self.handler)(input, Arc::clone(&self.cx)).await
    }
}

/// The same as a transport, whose peer is the handler.
struct ScriptedTransport;

#[async_trait]
impl WorkerType for ScriptedTransport {
    type Config = vumi_api::transports::Telnet;

    async fn build(_: Self::Config, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Scripted::build(Echo::default(), cx).await
    }

    fn fixture() -> Fixture {
        unreachable!("not a registered type")
    }
}

/// A store in a Redis of its own, and that; none where nothing is installed.
pub(super) async fn redis_store() -> Option<(vumi_testkit::redis::Redis, Arc<dyn StateStore>)> {
    let options = vumi_testkit::redis::Options {
        append: vumi_testkit::redis::Append::EverySec,
        ..Default::default()
    };
    let redis = vumi_testkit::redis::Redis::start_or_skip(options).await?;
    let store = crate::state::redis::RedisStore::open(
        crate::state::redis::RedisConfig::from_url(&redis.url(0)).unwrap(),
    );
    let mut health = store.health();
    let up = health.wait_for(|health| *health == crate::state::StoreHealth::Up);
    let up = tokio::time::timeout(Duration::from_secs(60), up).await;
    drop(up.unwrap().unwrap());
    Some((redis, store))
}

/// What a worker is made of.
pub(super) struct Setup {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) state: Option<Arc<dyn StateStore>>,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) settings: serde_json::Value,
}

impl Setup {
    /// An application on a broker of its own, without a store.
    pub(super) fn new(settings: serde_json::Value) -> Self {
        Self {
            broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
            state: None,
            kind: Kind::Application,
            name: format!("app{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            settings,
        }
    }
}

pub(super) struct Rig {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) running: Option<RunningWorker>,
    pub(super) telemetry: Arc<Telemetry>,
    name: String,
}

impl Rig {
    /// An application on connector `t` whose handler is the given one.
    async fn new<F, T>(settings: serde_json::Value, handler: F) -> Self
    where
        F: Fn(Input, Arc<WorkerContext>) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Vec<Output>, WorkError>> + Send + 'static,
    {
        Self::on(Setup::new(settings), handler).await
    }

    /// The same as `setup` says.
    pub(super) async fn on<F, T>(setup: Setup, handler: F) -> Self
    where
        F: Fn(Input, Arc<WorkerContext>) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Vec<Output>, WorkError>> + Send + 'static,
    {
        let Setup {
            broker,
            state,
            kind,
            name,
            settings,
        } = setup;
        HANDLERS.lock().unwrap().get_or_insert_default().insert(
            name.clone(),
            Arc::new(move |i, cx| Box::pin(handler(i, cx))),
        );
        let setup = Setup {
            broker,
            state,
            kind,
            name,
            settings,
        };
        Self::replica(setup, "one").await
    }

    /// Another replica of a worker whose handler is known by its name.
    pub(super) async fn replica(setup: Setup, instance: &str) -> Self {
        let Setup {
            broker,
            state,
            kind,
            name,
            settings,
        } = setup;
        let (mut spec, registration) = match kind {
            Kind::Transport => (
                json!({"telnet": {"host": "127.0.0.1", "port": 0}, "transportName": "t"}),
                Registration::of::<ScriptedTransport>(),
            ),
            _ => (
                json!({"echo": {}, "transportName": "t"}),
                Registration::of::<Scripted>(),
            ),
        };
        let wanted = settings.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().unwrap().extend(wanted);
        let manifest = json!({"kind": kind.as_str(), "metadata": {"name": name}, "spec": spec});
        let resource: Resource = crate::conformance::stand_in::resource(&manifest).unwrap();
        let telemetry = Arc::new(Telemetry::new());
        let environment = Environment {
            broker: Arc::clone(&broker),
            state,
            secrets: Arc::default(),
            listeners: Arc::default(),
            outside: Default::default(),
            telemetry: Arc::clone(&telemetry),
            instance: instance.into(),
            system_id: "global".into(),
        };
        let built = build(&registration, Arc::new(resource), environment)
            .await
            .unwrap();
        Self {
            running: Some(built.start().await),
            broker,
            telemetry,
            name,
        }
    }

    pub(super) fn running(&self) -> &RunningWorker {
        self.running.as_ref().unwrap()
    }

    pub(super) async fn publish(&self, queue: &str, body: bytes::Bytes) {
        let receipt = self
            .broker
            .publish(Publication {
                exchange: EXCHANGE.into(),
                routing_key: queue.into(),
                body,
                message_id: None,
                class: PublicationClass::Data,
            })
            .await;
        assert_eq!(
            receipt.confirmation().await,
            crate::broker::Confirmation::Confirmed
        );
    }

    /// Sends `text` as `user`; the id of the message.
    pub(super) async fn send(&self, user: &str, text: &str) -> String {
        let mut message = UserMessage::new("sms", Some("555"), Some(user));
        message.set_content(Some(text));
        message.set_transport_name("t");
        let id = message.message_id().to_owned();
        self.publish("t.inbound", message.encode()).await;
        id
    }

    pub(super) async fn read(&self, queue: &str, count: usize) -> Vec<bytes::Bytes> {
        let mut subscription = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data(queue.into()),
                prefetch: 1000,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        let mut bodies = Vec::new();
        while bodies.len() < count {
            let next =
                tokio::time::timeout(Duration::from_secs(20), subscription.deliveries.recv());
            let delivery = next
                .await
                .unwrap_or_else(|_| panic!("only {} of {count} in {queue}", bodies.len()))
                .unwrap();
            subscription
                .acker
                .ack(delivery.generation, delivery.tag, false);
            bodies.push(delivery.body);
        }
        subscription.acker.close();
        bodies
    }

    pub(super) async fn replies(&self, count: usize) -> Vec<UserMessage> {
        let bodies = self.read("t.outbound", count).await;
        bodies
            .iter()
            .map(|b| UserMessage::decode(b).unwrap())
            .collect()
    }

    pub(super) async fn until(
        &self,
        what: &str,
        check: impl Fn(&WorkerSnapshot) -> bool,
    ) -> WorkerSnapshot {
        for _ in 0..2000 {
            let snapshot = self.running().snapshot();
            if check(&snapshot) {
                return snapshot;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.running().snapshot());
    }

    /// Stops without finishing anything.
    pub(super) async fn stop_now(mut self) {
        let none = Duration::ZERO;
        if let Some(running) = self.running.take() {
            let limits = StopLimits {
                flush: none,
                drain: none,
                close: none,
            };
            running.stop(limits).await;
        }
    }

    pub(super) async fn at_rest(&self) -> Counts {
        let snapshot = self
            .until("at rest", |s| s.counts.in_flight == 0)
            .await
            .counts;
        balanced(&snapshot);
        snapshot
    }
}

pub(super) fn balanced(c: &Counts) {
    assert_eq!(
        c.received,
        c.done + c.parked + c.journaled + c.returned + c.in_flight
    );
}

pub(super) fn echo(input: &Input, cx: &WorkerContext) -> Vec<Output> {
    let Message::User(message) = &input.message else {
        return Vec::new();
    };
    let reply = message.reply(cx.worker_name(), 0, message.content(), false);
    vec![Output::new(Port::new("t", Flow::Outbound), reply)]
}

pub(super) fn content(input: &Input) -> String {
    match &input.message {
        Message::User(m) => m.content().unwrap_or_default().to_owned(),
        Message::Event(_) => String::new(),
    }
}

pub(super) fn temporary() -> WorkError {
    WorkError::new(
        ErrorClass::RemoteTemporary,
        codes::BROKER_UNREACHABLE,
        "the peer is busy",
    )
}

fn fast_retry(attempts: u32) -> serde_json::Value {
    json!({"retry": {"maxAttempts": attempts, "backoff": {"initial": "5ms", "max": "20ms"}}})
}
