//! The engine on the in-memory broker, with workers that each test scripts.

mod classes;
mod partitions;

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
    async fn stop_now(mut self) {
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

#[tokio::test]
async fn what_goes_in_comes_out_once_and_is_acknowledged() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    let id = rig.send("27821", "hello").await;
    let reply = rig.replies(1).await.remove(0);
    assert_eq!(reply.content(), Some("hello"));
    let worker = format!("application/{}", rig.name);
    assert_eq!(reply.message_id(), reply_id(&id, &worker, 0));
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.done), (1, 1));
    let depth = rig.broker.depth("t.inbound").await.unwrap().unwrap();
    assert_eq!(depth.ready, 0);
    let text = rig.telemetry.render();
    assert!(text.contains("vumi_messages_done_total"), "{text}");
}

#[tokio::test]
async fn users_are_in_order_and_do_not_wait_for_each_other() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        if content(&i) == "slow 0" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(echo(&i, &cx))
    })
    .await;
    for n in 0..20 {
        rig.send("slow", &format!("slow {n}")).await;
        for user in 0..5 {
            rig.send(&format!("user{user}"), &format!("{n}")).await;
        }
    }
    let replies = rig.replies(120).await;
    let of = |user: &str| -> Vec<String> {
        let to_user = replies.iter().filter(|r| r.to_addr() == Some(user));
        to_user
            .map(|r| r.content().unwrap_or_default().to_owned())
            .collect()
    };
    let expected: Vec<String> = (0..20).map(|n| format!("slow {n}")).collect();
    assert_eq!(of("slow"), expected);
    for user in 0..5 {
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(of(&format!("user{user}")), expected);
    }
    let first_slow = replies.iter().position(|r| r.to_addr() == Some("slow"));
    assert!(first_slow >= Some(100), "others went ahead: {first_slow:?}");
    assert_eq!(rig.at_rest().await.done, 120);
}

#[tokio::test]
async fn temporary_errors_are_retried_in_their_lane() {
    let failures = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&failures);
    let rig = Rig::new(fast_retry(10), move |i, cx| {
        let fail = content(&i) == "one" && counter.fetch_add(1, Ordering::Relaxed) < 3;
        async move {
            if fail {
                Err(temporary())
            } else {
                Ok(echo(&i, &cx))
            }
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.send("u", "two").await;
    let replies = rig.replies(2).await;
    let texts: Vec<_> = replies.iter().map(|r| r.content()).collect();
    assert_eq!(texts, [Some("one"), Some("two")]);
    let counts = rig.at_rest().await;
    assert_eq!((counts.done, counts.retried, counts.parked), (2, 3, 0));
}

#[tokio::test]
async fn an_inbound_message_that_exhausts_its_attempts_is_parked_and_can_be_requeued() {
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let rig = Rig::new(fast_retry(3), move |i, cx| {
        let ok = flag.load(Ordering::Relaxed);
        async move {
            if ok {
                Ok(echo(&i, &cx))
            } else {
                Err(temporary())
            }
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.until("parked", |s| s.counts.parked == 1).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::RETRY_EXHAUSTED.name);
    assert_eq!(parked[0].attempts, 3);
    healed.store(true, Ordering::Relaxed);
    let handled = parking::requeue(&*rig.broker, "t.inbound", &parking::Selection::All)
        .await
        .unwrap();
    assert_eq!(handled.done, 1);
    assert_eq!(rig.replies(1).await[0].content(), Some("one"));
    rig.at_rest().await;
}

#[tokio::test]
async fn a_panic_is_retried_twice_and_then_parked_and_the_flow_goes_on() {
    let rig = Rig::new(fast_retry(10), |i, cx| async move {
        assert_ne!(content(&i), "poison", "scripted panic");
        Ok(echo(&i, &cx))
    })
    .await;
    rig.send("u", "poison").await;
    rig.send("u", "fine").await;
    assert_eq!(rig.replies(1).await[0].content(), Some("fine"));
    let counts = rig.at_rest().await;
    assert_eq!((counts.done, counts.parked, counts.retried), (1, 1, 2));
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BUG_PANIC.name);
    assert!(rig.running().snapshot().alive);
}

#[tokio::test]
async fn garbage_is_parked_with_its_reason() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100), "]".repeat(100));
    let wrong_version = String::from_utf8(UserMessage::new("sms", None, None).encode().to_vec())
        .unwrap()
        .replace("20110921", "20200101");
    let bad: [(&[u8], &str); 5] = [
        (b"not json", codes::MESSAGE_NOT_JSON.name),
        (b"{\"a\": \"\xff\"}", codes::MESSAGE_NOT_JSON.name),
        (b"{}", codes::MESSAGE_VERSION.name),
        (deep.as_bytes(), codes::MESSAGE_TOO_LARGE.name),
        (wrong_version.as_bytes(), codes::MESSAGE_VERSION.name),
    ];
    for (body, _) in bad {
        rig.publish("t.inbound", bytes::Bytes::copy_from_slice(body))
            .await;
    }
    rig.send("u", "fine").await;
    assert_eq!(rig.replies(1).await.len(), 1);
    rig.until("parked", |s| s.counts.parked == 5).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    let mut codes: Vec<_> = parked.iter().map(|p| p.code.as_str()).collect();
    let mut expected: Vec<_> = bad.iter().map(|(_, code)| *code).collect();
    codes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn too_many_parked_pause_the_worker_until_it_is_resumed() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    for _ in 0..60 {
        rig.publish("t.inbound", "garbage".into()).await;
    }
    let snapshot = rig.until("paused", |s| s.state == "paused").await;
    assert!(snapshot.ready, "a pause on purpose is ready");
    assert!(snapshot.why.contains("parked"), "{}", snapshot.why);
    rig.send("u", "fine").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.running().resume_parked();
    assert_eq!(rig.replies(1).await.len(), 1);
    rig.until("running", |s| s.state == "running").await;
}

#[tokio::test]
async fn a_full_target_pauses_reading_and_draining_it_resumes() {
    let rig = Rig::new(json!({"backlogLimit": 5}), |i, cx| async move {
        Ok(echo(&i, &cx))
    })
    .await;
    for n in 0..10 {
        rig.send(&format!("u{n}"), "x").await;
    }
    let snapshot = rig.until("paused", |s| s.state == "paused").await;
    assert!(snapshot.why.contains("t.outbound"), "{}", snapshot.why);
    rig.send("late", "late").await;
    let texts: Vec<_> = rig.replies(11).await;
    assert_eq!(texts[10].content(), Some("late"));
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_leaves_the_rest_to_the_broker() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        match content(&i).as_str() {
            "slow" => tokio::time::sleep(Duration::from_millis(200)).await,
            "retried" => return Err(temporary()),
            _ => {}
        }
        Ok(echo(&i, &cx))
    })
    .await;
    rig.send("a", "slow").await;
    rig.send("a", "behind").await;
    rig.send("b", "retried").await;
    rig.until("taken", |s| s.counts.received == 3).await;
    let mut rig = rig;
    let running = rig.running.take().unwrap();
    running.stop(StopLimits::default()).await;
    assert_eq!(rig.replies(1).await[0].content(), Some("slow"));
    let left = rig.read("t.inbound", 2).await;
    let texts: Vec<_> = left
        .iter()
        .map(|b| UserMessage::decode(b).unwrap().content().map(str::to_owned))
        .collect();
    assert_eq!(
        texts,
        [Some("behind".to_owned()), Some("retried".to_owned())]
    );
}

#[tokio::test]
async fn a_handler_that_hangs_does_not_hold_a_stop() {
    let rig = Rig::new(json!({}), |_, _| std::future::pending()).await;
    rig.send("a", "x").await;
    rig.until("taken", |s| s.counts.received == 1).await;
    let mut rig = rig;
    let limits = StopLimits {
        drain: Duration::from_millis(50),
        flush: Duration::from_millis(50),
        close: Duration::from_millis(50),
    };
    let stop = rig.running.take().unwrap().stop(limits);
    tokio::time::timeout(Duration::from_secs(5), stop)
        .await
        .expect("bounded");
    assert_eq!(rig.read("t.inbound", 1).await.len(), 1);
}

/// The desk of a transport's outbound queue, without a consumer around it.
struct DeskRig {
    broker: Arc<dyn Broker>,
    desk: Arc<delivery::Desk>,
}

impl DeskRig {
    fn new(
        handler: impl Fn(Input) -> Result<Vec<Output>, WorkError> + Send + Sync + 'static,
    ) -> Self {
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let metrics = Telemetry::new().worker("transport/t");
        let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
        let backlog = Arc::new(backlog::Backlog::new(vumi_api::Kind::Transport, 10));
        let outlet = Arc::new(outlet::Outlet::new(
            Arc::clone(&broker),
            Arc::clone(&chain),
            backlog,
            &metrics,
            &[],
        ));
        let manifest = json!({"kind": "Application", "metadata": {"name": "x"}, "spec": {"echo": {}, "transportName": "t"}});
        let resource = crate::conformance::stand_in::resource(&manifest).unwrap();
        let cx = crate::conformance::stand_in::StandIn::new().context(
            resource,
            "one",
            Default::default(),
        );
        let handler = Arc::new(handler);
        let handler: Handler = Arc::new(move |input, _| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(input) })
        });
        let port = Port::new("t", Flow::Outbound);
        let desk = Arc::new(delivery::Desk {
            duty: delivery::Duty::Handle,
            layout: None,
            worker: Arc::new(Scripted { handler, cx }),
            key: "transport/t".into(),
            queue: port.queue(),
            port,
            chain,
            outlet,
            policy: backoff::RetryPolicy::new(None, Duration::from_secs(1)),
            metrics: metrics.queue("t.outbound"),
            counters: Arc::default(),
            worker_metrics: metrics,
            generation: Arc::new(AtomicU64::new(1)),
            halt: Default::default(),
            sending: None,
            lasting: true,
            trail: None,
            trial: None,
            legacy_failures: false,
            exit: None,
        });
        Self { broker, desk }
    }

    async fn work(&self, message: &UserMessage, delivery_count: Option<i64>) -> delivery::Finished {
        let raw = crate::broker::RawDelivery {
            tag: 1,
            generation: 1,
            redelivered: false,
            routing_key: "t.outbound".into(),
            body: message.encode(),
            message_id: None,
            delivery_count,
        };
        let delivery = delivery::Delivery {
            raw,
            lane: lanes::Lane::Free,
            message: Ok(message.clone().into()),
            received: std::time::Instant::now(),
            replay: None,
            seat: None,
        };
        Arc::clone(&self.desk).work(delivery).await
    }
}

/// A transport's side of giving up: an outbound message that will never be delivered gets a nack event with its fate.
#[tokio::test]
async fn outbound_messages_that_are_given_up_are_answered_with_a_nack() {
    let rig = DeskRig::new(|_| {
        let text = "the number does not exist";
        let error = WorkError::new(ErrorClass::RemotePermanent, codes::ROUTE_NONE, text);
        Err(WorkError {
            provider_code: Some("E404".into()),
            ..error
        })
    });
    let message = UserMessage::new("sms", Some("27821"), Some("555"));
    let finished = rig.work(&message, None).await;
    assert_eq!(finished.verdict, delivery::Verdict::Done);
    let mut events = rig
        .broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data("t.event".into()),
            prefetch: 1,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    let event = Event::decode(&events.deliveries.recv().await.unwrap().body).unwrap();
    assert_eq!(event.event_type(), EventType::Nack);
    assert_eq!(event.user_message_id(), message.message_id());
    let fate = event.fate().unwrap();
    assert_eq!(
        (fate.code.as_str(), fate.class.as_str()),
        ("E404", "provider")
    );
    assert!(fate.is_final);
}

#[tokio::test]
async fn work_of_a_lost_channel_keeps_its_lane_and_its_verdict_is_ignored() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let rig = Rig::new(json!({}), move |i, cx| {
        let log = Arc::clone(&log);
        async move {
            let text = content(&i);
            log.lock().unwrap().push(text.clone());
            if text == "one" && log.lock().unwrap().len() == 1 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(echo(&i, &cx))
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.send("u", "two").await;
    rig.until("taken", |s| s.counts.received == 2).await;
    rig.running().rebuild_consumers();
    let replies = rig.replies(3).await;
    let texts: Vec<_> = replies.iter().map(|r| r.content().unwrap()).collect();
    assert_eq!(
        texts,
        ["one", "one", "two"],
        "first occurrences are in order"
    );
    assert_eq!(replies[0].message_id(), replies[1].message_id());
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.done, counts.returned), (4, 2, 2));
}

/// A quorum queue drops what it delivered too often: such a message is set aside before (R1).
#[tokio::test]
async fn a_message_of_a_quorum_queue_is_parked_before_the_broker_drops_it() {
    let handled = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&handled);
    let rig = DeskRig::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    });
    let message = UserMessage::new("sms", Some("27821"), Some("555"));
    let finished = rig.work(&message, Some(3)).await;
    assert_eq!(finished.verdict, delivery::Verdict::Done);
    let finished = rig.work(&message, Some(10)).await;
    assert_eq!(finished.verdict, delivery::Verdict::Parked);
    assert_eq!(handled.load(Ordering::Relaxed), 1);
    let parked = parking::list(&*rig.broker, "t.outbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BROKER_QUEUE_TYPE.name);
}

/// What would be too large for every reader is refused where it arises.
#[tokio::test]
async fn an_output_that_is_too_large_is_parked_with_its_cause() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        let Message::User(message) = &i.message else {
            return Ok(Vec::new());
        };
        let text = "é".repeat(crate::message::MAX_BODY / 5);
        let reply = message.reply(cx.worker_name(), 0, Some(&text), false);
        Ok(vec![Output::new(Port::new("t", Flow::Outbound), reply)])
    })
    .await;
    rig.send("u", "grow").await;
    rig.until("parked", |s| s.counts.parked == 1).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::MESSAGE_TOO_LARGE.name);
}

/// While a user's message is being retried a stop comes: it and what waits behind it stay with the broker, in order.
#[tokio::test]
async fn a_stop_does_not_let_anything_overtake_what_it_returns() {
    for _ in 0..20 {
        let rig = Rig::new(fast_retry(1000), |i, cx| async move {
            if content(&i) == "first" {
                return Err(temporary());
            }
            Ok(echo(&i, &cx))
        })
        .await;
        for text in ["first", "second", "third"] {
            rig.send("u", text).await;
        }
        rig.until("retried", |s| s.counts.retried > 0).await;
        let mut rig = rig;
        rig.running
            .take()
            .unwrap()
            .stop(StopLimits::default())
            .await;
        let left = rig.read("t.inbound", 3).await;
        let texts: Vec<_> = left
            .iter()
            .map(|b| UserMessage::decode(b).unwrap().content().map(str::to_owned))
            .collect();
        let expected: Vec<_> = ["first", "second", "third"]
            .map(|t| Some(t.to_owned()))
            .into();
        assert_eq!(texts, expected);
    }
}

/// An address that cannot be used is known before anything is replaced.
#[tokio::test]
async fn a_worker_whose_port_is_taken_does_not_build() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let manifest = json!({
        "kind": "Transport", "metadata": {"name": "t"},
        "spec": {"telnet": {"host": "127.0.0.1", "port": port}},
    });
    let resource = crate::conformance::stand_in::resource(&manifest).unwrap();
    let environment = || Environment {
        broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
        state: None,
        secrets: Arc::default(),
        listeners: Arc::default(),
        telemetry: Arc::default(),
        instance: "one".into(),
        system_id: "global".into(),
    };
    let resource = Arc::new(resource);
    let registration = Registration::of::<Listening>();
    let built = build(&registration, Arc::clone(&resource), environment()).await;
    let error = built.err().expect("the port is taken");
    assert_eq!(error.code, codes::LISTEN_FAILED);
    drop(taken);
    assert!(build(&registration, resource, environment()).await.is_ok());
}

struct Listening;

#[async_trait]
impl WorkerType for Listening {
    type Config = vumi_api::transports::Telnet;

    async fn build(_: Self::Config, _: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(Listening))
    }

    fn fixture() -> Fixture {
        unreachable!("not a registered type")
    }
}

#[async_trait]
impl Worker for Listening {
    async fn handle(&self, _: Input) -> Result<Vec<Output>, WorkError> {
        Ok(Vec::new())
    }
}

/// While the broker is away a peer is told so soon, not after its own patience.
#[tokio::test(start_paused = true)]
async fn a_peer_hears_that_the_broker_is_away() {
    let broker = crate::beacon::testing::Cuttable::new();
    broker.cut();
    let metrics = Telemetry::new().worker("transport/t");
    let backlog = Arc::new(backlog::Backlog::new(vumi_api::Kind::Transport, 10));
    let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
    let broker: Arc<dyn Broker> = broker;
    let outlet = outlet::Outlet::new(Arc::clone(&broker), chain, backlog, &metrics, &[]);
    let counter = peer::Counter {
        outlet: Arc::new(outlet),
        status: crate::status::StatusDesk::new(
            Arc::clone(&broker),
            crate::status::StatusIdentity {
                connector: "t".into(),
                kind: vumi_api::Kind::Transport,
                name: "t".into(),
                type_name: "telnet".into(),
                instance: "one".into(),
            },
            None,
        ),
        metrics,
        listeners: Arc::default(),
        accepting: Arc::default(),
        broker,
        abandoned: Default::default(),
        sending: None,
        trail: None,
        once: None,
        state: None,
    };
    let begin = tokio::time::Instant::now();
    let message = UserMessage::new("sms", Some("555"), Some("27821"));
    let output = Output::new(Port::new("t", Flow::Inbound), message);
    let error = crate::worker::Services::accept(&counter, output)
        .await
        .unwrap_err();
    assert_eq!(error.code, codes::BROKER_UNREACHABLE);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
