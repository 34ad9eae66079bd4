//! The sending side against crashes: a message's whole life on a scripted peer, with the process ended at a chosen step,
//! thousands of times.

mod answers;
mod closed;
mod copies;
mod external;
mod failures;
mod held;
mod once;
mod overdue;
mod resent;
mod schedules;
mod senders;
mod throttled;
mod trail;
mod trial;

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Broker, QueueSpec, RawDelivery};
use crate::conformance::delegate::Double;
use crate::conformance::simulated_time::Prompt;
use crate::conformance::stand_in::resource;
use crate::engine::backlog::Backlog;
use crate::engine::backoff::RetryPolicy;
use crate::engine::delivery::{Delivery, Desk, Duty, Verdict};
use crate::engine::lanes::Lane;
use crate::message::random_id;
use crate::outcome::{Receipt, ReceiptOutcome};
use crate::state::around::Around;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::ledger::RowState;
use crate::status::{StatusDesk, StatusIdentity};
use crate::telemetry::Telemetry;
use crate::worker::{HOLD_LIMIT, Taken};
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;
use vumi_api::Kind;

/// Steps of one life of a process, counted; at one of them it ends.
#[derive(Default)]
struct Life {
    steps: AtomicU32,
    /// The step at which it ends; 0 is never.
    last: u32,
    ended: Notify,
}

impl Life {
    fn until(last: u32) -> Arc<Self> {
        Arc::new(Self {
            last,
            ..Self::default()
        })
    }

    /// A step; does not return if it is the last.
    async fn step(&self) {
        if self.steps.fetch_add(1, Ordering::SeqCst) + 1 == self.last {
            self.ended.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A store that fails now and then, before or after the operation was carried out.
struct Flawed {
    store: Arc<dyn StateStore>,
    life: Arc<Life>,
    chance: Mutex<StdRng>,
    /// Out of a hundred operations so many fail.
    flaws: u32,
}

#[async_trait]
impl Around for Flawed {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        let away = || {
            let text = format!("{operation} fails in this test");
            Err(WorkError::new(
                ErrorClass::Connect,
                codes::STATE_UNUSABLE,
                text,
            ))
        };
        let (before, after) = {
            let mut chance = self.chance.lock().unwrap();
            let mut flaw = || chance.random_ratio(self.flaws, 100);
            (flaw(), flaw())
        };
        self.life.step().await;
        if before {
            return away();
        }
        let done = work.await;
        self.life.step().await;
        if after { away() } else { done }
    }
}

/// A broker on which publishing is a step before and after.
struct Stepped(Arc<dyn Broker>, Arc<Life>);

#[async_trait]
impl Double for Stepped {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.0
    }

    async fn take(&self, publication: crate::broker::Publication) -> crate::broker::Receipt {
        self.1.step().await;
        let receipt = self.0.publish(publication).await;
        self.1.step().await;
        receipt
    }
}

/// What the peer does with one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Ack,
    Nack,
    /// Did not take it.
    Busy,
    /// Cannot be reached.
    Away,
    /// Took it, and its answer was lost.
    Lost,
    /// Took it; then we panic.
    Panic,
}

/// The far end: it counts what it took.
#[derive(Default)]
struct Peer {
    answers: Mutex<Vec<Answer>>,
    took: AtomicU32,
    /// What it took although nobody knew whether it had an earlier copy.
    attempts: AtomicU32,
}

struct Transport {
    name: &'static str,
    peer: Arc<Peer>,
    life: Arc<Life>,
}

/// One delivery of a message.
fn delivery(message: &UserMessage, redelivered: bool) -> Delivery {
    Delivery {
        raw: RawDelivery {
            tag: 1,
            generation: 1,
            redelivered,
            routing_key: "t.outbound".into(),
            body: message.encode(),
            message_id: None,
            delivery_count: None,
        },
        lane: Lane::Free,
        message: Ok(message.clone().into()),
        replay: None,
        seat: None,
        passing: None,
        received: tokio::time::Instant::now(),
    }
}

#[async_trait]
impl Worker for Transport {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let answer = self
            .peer
            .answers
            .lock()
            .unwrap()
            .pop()
            .unwrap_or(Answer::Ack);
        self.peer.attempts.fetch_add(1, Ordering::SeqCst);
        self.life.step().await;
        if matches!(answer, Answer::Ack | Answer::Lost | Answer::Panic) {
            self.peer.took.fetch_add(1, Ordering::SeqCst);
        }
        self.life.step().await;
        let event = |mut event: Event| {
            event.set_transport_name(self.name);
            Ok(vec![Output::new(Port::new(self.name, Flow::Event), event)])
        };
        let id = message.message_id();
        match answer {
            Answer::Ack => event(Event::ack(id, &format!("remote-{}", random_id()))),
            Answer::Nack => {
                let refusal = Refusal::new(
                    FailureClass::Content,
                    codes::REPLY_FIELDS,
                    "no",
                    Actor::Campaign,
                );
                event(Event::nack(id, &refusal.fate(input.attempt)))
            }
            Answer::Busy => Err(WorkError::new(
                ErrorClass::RemoteTemporary,
                codes::BROKER_UNREACHABLE,
                "busy",
            )),
            Answer::Away => Err(WorkError::new(
                ErrorClass::Connect,
                codes::PEER_UNREACHABLE,
                "away",
            )),
            Answer::Lost => Err(unknown("no answer")),
            Answer::Panic => std::panic::resume_unwind(Box::new("scripted")),
        }
    }
}

struct Bench {
    /// Name of the transport.
    name: &'static str,
    store: Arc<dyn StateStore>,
    broker: Arc<dyn Broker>,
    peer: Arc<Peer>,
    spec: serde_json::Value,
    receipts: bool,
    /// Name of its processes; without one, each has its own.
    replica: Option<&'static str>,
    /// Its processes hold sessions, and have this reply queue.
    reply_queue: Option<&'static str>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

fn spec(more: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"telnet": {"port": 9000}});
    let quick = json!({"maxAttempts": 4, "backoff": {"initial": "1ms", "max": "2ms"}});
    spec["retry"] = quick;
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

impl Bench {
    /// What sends to its peer, in a process with this life.
    fn transport(&self, life: &Arc<Life>) -> Arc<Transport> {
        Arc::new(Transport {
            name: self.name,
            peer: Arc::clone(&self.peer),
            life: Arc::clone(life),
        })
    }

    fn new(store: &Arc<dyn StateStore>, more: serde_json::Value, receipts: bool) -> Self {
        Self::named("t", store, more, receipts)
    }

    fn named(
        name: &'static str,
        store: &Arc<dyn StateStore>,
        more: serde_json::Value,
        receipts: bool,
    ) -> Self {
        let mut spec = spec(more);
        spec["transportName"] = json!(name);
        Self {
            name,
            store: Arc::clone(store),
            broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
            peer: Arc::default(),
            spec,
            receipts,
            replica: None,
            reply_queue: None,
        }
    }

    /// The sending side of one life of the process, and its desk.
    fn process(&self, life: &Arc<Life>, seed: u64, flaws: u32) -> (Arc<Sending>, Arc<Desk>) {
        let store: Arc<dyn StateStore> = Arc::new(Flawed {
            store: Arc::clone(&self.store),
            life: Arc::clone(life),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            flaws,
        });
        let worker = self.transport(life);
        let (sending, desk) = self.desk(life, Some(store), worker);
        (sending, Arc::new(desk))
    }

    /// What was seen of its provider.
    fn once(&self, metrics: &Arc<WorkerMetrics>) -> Option<Arc<Once>> {
        let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": self.spec});
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(metrics));
        let once = Once::new(store, &resource(&manifest).unwrap(), metrics);
        Some(Arc::new(once))
    }

    fn desk(
        &self,
        life: &Arc<Life>,
        store: Option<Arc<dyn StateStore>>,
        worker: Arc<dyn Worker>,
    ) -> (Arc<Sending>, Desk) {
        let manifest = json!({"kind": "Transport", "metadata": {"name": self.name}, "spec": self.spec.clone()});
        let resource = resource(&manifest).unwrap();
        let telemetry = Telemetry::new();
        let metrics = telemetry.worker(&format!("transport/{}", self.name));
        let chain = Arc::new(crate::middleware::Chain::build(&[], self.name, None).unwrap());
        let broker: Arc<dyn Broker> = Arc::new(Stepped(Arc::clone(&self.broker), Arc::clone(life)));
        let outlet = Arc::new(Outlet::new(
            broker,
            Arc::clone(&chain),
            Arc::new(Backlog::new(Kind::Transport, 1000)),
            &metrics,
            &[],
        ));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let replica = self.replica.unwrap_or(&number);
        let names = Names {
            connector: self.name.into(),
            by: format!("transport/{}@{replica}", self.name),
            keep: match resource.settings().retention.ledger {
                Some(kept) => kept.0,
                None => Duration::from_secs(3600),
            },
            content: resource.settings().retention.content(),
            trail: None,
            reply_queue: self.reply_queue.map(str::to_owned),
        };
        let policy = Policy::of(&resource, self.receipts, store.is_some());
        let sending = Arc::new(Sending::new(
            names,
            policy,
            store.as_ref(),
            self.once(&metrics),
            Arc::clone(&outlet),
            Arc::clone(&metrics),
        ));
        let port = Port::new(self.name, Flow::Outbound);
        let desk = Desk {
            acker: None,
            duty: Duty::Handle,
            layout: None,
            exit: None,
            worker,
            key: format!("transport/{}", self.name),
            queue: port.queue(),
            port,
            chain,
            outlet,
            policy: RetryPolicy::new(
                resource.settings().retry.as_ref(),
                resource.attempts(),
                HOLD_LIMIT,
            ),
            metrics: metrics.queue(&format!("{}.outbound", self.name)),
            counters: Arc::default(),
            worker_metrics: metrics,
            generation: Arc::new(AtomicU64::new(1)),
            halt: CancellationToken::new(),
            sending: Some(Arc::clone(&sending)),
            lasting: true,
            forwarded: None,
            trail: None,
            trial: None,
            legacy_failures: resource.transport().and_then(|t| t.legacy_failures) == Some(true),
        };
        (sending, desk)
    }

    fn status(&self) -> Arc<StatusDesk> {
        let identity = StatusIdentity {
            connector: self.name.into(),
            kind: Kind::Transport,
            name: self.name.into(),
            type_name: "telnet".into(),
            instance: "1".into(),
        };
        StatusDesk::new(Arc::clone(&self.broker), identity, None)
    }

    /// The look-out of a new process.
    fn keeper(&self) -> Keeper {
        let (sending, _) = self.process(&Life::until(0), 0, 0);
        Keeper {
            sending,
            status: self.status(),
            replies: None,
            consumers: Vec::new(),
            abandoned: CancellationToken::new(),
        }
    }

    /// One delivery to one process, which may end before the verdict.
    async fn deliver(
        &self,
        message: &UserMessage,
        redelivered: bool,
        life: Arc<Life>,
        seed: u64,
        flaws: u32,
    ) -> Option<Verdict> {
        let (_, desk) = self.process(&life, seed, flaws);
        let delivery = delivery(message, redelivered);
        tokio::select! {
            finished = desk.work(delivery) => Some(finished.verdict),
            () = life.ended.notified() => None,
        }
    }

    /// Everything in a queue.
    async fn read(&self, queue: &str) -> Vec<bytes::Bytes> {
        self.read_all(queue, 1000).await
    }

    async fn read_all(&self, queue: &str, limit: usize) -> Vec<bytes::Bytes> {
        self.broker
            .declare(&QueueSpec::Data(queue.to_owned()))
            .await
            .unwrap();
        let shelf = self.broker.shelf(queue, limit).await.unwrap();
        let bodies = shelf.messages().iter().map(|m| m.body.clone()).collect();
        shelf.close().await;
        bodies
    }

    async fn events(&self) -> Vec<Event> {
        let bodies = self.read(&format!("{}.event", self.name)).await;
        bodies.iter().map(|b| Event::decode(b).unwrap()).collect()
    }

    async fn row(&self, message: &UserMessage) -> Row {
        self.store.row(message.message_id()).await.unwrap().unwrap()
    }
}

fn message() -> UserMessage {
    let mut message = UserMessage::new("sms", Some("+27820001111"), Some("555"));
    message.set_content(Some("hello"));
    message
}

fn store() -> Arc<dyn StateStore> {
    EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap()
}

/// Runs a test in a process of its own, where time stands still while anything is done. The store must be one of
/// [`simulated_store`]: while another one works on a thread of its own, Tokio's paused clock would run ahead of it.
fn in_simulated_time(test: impl Future<Output = ()>) {
    if !vumi_testkit::alone() {
        return;
    }
    crate::clock::stop();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

fn simulated_store() -> Arc<dyn StateStore> {
    Arc::new(Prompt::new(&store(), |_, _| {}))
}

/// Repeats are byte for byte the same; the distinct ones.
fn distinct(events: &[Event]) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for event in events {
        match all
            .iter()
            .find(|known| known.event_id() == event.event_id())
        {
            Some(known) => assert_eq!(known.encode(), event.encode(), "a repeat differs"),
            None => all.push(event.clone()),
        }
    }
    all
}

fn verdicts(events: &[Event]) -> usize {
    let judged = |e: &&Event| e.event_type() != EventType::DeliveryReport;
    distinct(events).iter().filter(judged).count()
}

fn number(message: &UserMessage) -> usize {
    message
        .content()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// A message whose answer was lost, waiting for a receipt.
async fn waiting(bench: &Bench) -> (Arc<Sending>, UserMessage, Row) {
    bench.peer.answers.lock().unwrap().push(Answer::Lost);
    let message = message();
    let life = Life::until(0);
    let (sending, desk) = bench.process(&life, 0, 0);
    let finished = desk.work(delivery(&message, false)).await;
    assert_eq!(finished.verdict, Verdict::Done);
    let row = bench.row(&message).await;
    assert_eq!(row.state, RowState::Unknown);
    (sending, message, row)
}
