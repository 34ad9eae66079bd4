//! The sending side against crashes: a message's whole life on a scripted peer, with the process ended at a chosen step,
//! thousands of times.

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Broker, QueueSpec, RawDelivery};
use crate::conformance::delegate::Double;
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
use crate::telemetry::Telemetry;
use crate::worker::HOLD_LIMIT;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;
use vumi_api::Kind;
use vumi_api::shared::Retention;

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
        received: std::time::Instant::now(),
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
            event.set_transport_name("t");
            Ok(vec![Output::new(Port::new("t", Flow::Event), event)])
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
            Answer::Lost => Err(unknown("no answer")),
            Answer::Panic => std::panic::resume_unwind(Box::new("scripted")),
        }
    }
}

struct Bench {
    store: Arc<dyn StateStore>,
    broker: Arc<dyn Broker>,
    peer: Arc<Peer>,
    spec: serde_json::Value,
    receipts: bool,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

fn spec(more: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"telnet": {"port": 9000}, "transportName": "t"});
    let quick = json!({"maxAttempts": 4, "backoff": {"initial": "1ms", "max": "2ms"}});
    spec["retry"] = quick;
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

impl Bench {
    fn new(store: &Arc<dyn StateStore>, more: serde_json::Value, receipts: bool) -> Self {
        Self {
            store: Arc::clone(store),
            broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
            peer: Arc::default(),
            spec: spec(more),
            receipts,
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
        let worker = Arc::new(Transport {
            peer: Arc::clone(&self.peer),
            life: Arc::clone(life),
        });
        let (sending, desk) = self.desk(life, Some(store), worker);
        (sending, Arc::new(desk))
    }

    fn desk(
        &self,
        life: &Arc<Life>,
        store: Option<Arc<dyn StateStore>>,
        worker: Arc<dyn Worker>,
    ) -> (Arc<Sending>, Desk) {
        let manifest =
            json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": self.spec.clone()});
        let resource = resource(&manifest).unwrap();
        let telemetry = Telemetry::new();
        let metrics = telemetry.worker("transport/t");
        let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
        let broker: Arc<dyn Broker> = Arc::new(Stepped(Arc::clone(&self.broker), Arc::clone(life)));
        let outlet = Arc::new(Outlet::new(
            broker,
            Arc::clone(&chain),
            Arc::new(Backlog::new(Kind::Transport, 1000)),
            &metrics,
            &[],
        ));
        let names = Names {
            connector: "t".into(),
            by: format!("transport/t@{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            keep: Duration::from_secs(3600),
        };
        let policy = Policy::of(&resource, self.receipts, store.is_some());
        let sending = Arc::new(Sending::new(
            names,
            policy,
            store.as_ref(),
            Arc::clone(&outlet),
            Arc::clone(&metrics),
        ));
        let port = Port::new("t", Flow::Outbound);
        let desk = Desk {
            duty: Duty::Handle,
            layout: None,
            exit: None,
            worker,
            key: "transport/t".into(),
            queue: port.queue(),
            port,
            chain,
            outlet,
            policy: RetryPolicy::new(resource.settings().retry.as_ref(), HOLD_LIMIT),
            metrics: metrics.queue("t.outbound"),
            counters: Arc::default(),
            worker_metrics: metrics,
            generation: Arc::new(AtomicU64::new(1)),
            halt: CancellationToken::new(),
            sending: Some(Arc::clone(&sending)),
            lasting: true,
            trail: None,
            trial: None,
            legacy_failures: false,
        };
        (sending, desk)
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
        let bodies = self.read("t.event").await;
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

/// One message under a random schedule: whatever happens, it is never sent twice unless that is the policy, and it has
/// one end, which its sender hears of.
async fn one_schedule(store: &Arc<dyn StateStore>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let policies = [
        (json!({}), false),
        (json!({"onUnknown": {"policy": "fail"}}), true),
        (json!({"onUnknown": {"policy": "retry"}}), false),
        (
            json!({"onUnknown": {"policy": "wait", "deadline": "1h", "then": "fail"}}),
            true,
        ),
    ];
    let (more, receipts) = policies[chance.random_range(0..policies.len())].clone();
    let retries = more["onUnknown"]["policy"] == "retry";
    let waits = more["onUnknown"]["policy"] == "wait";
    let bench = Bench::new(store, more, receipts);
    let answers = [
        Answer::Ack,
        Answer::Ack,
        Answer::Ack,
        Answer::Nack,
        Answer::Busy,
        Answer::Lost,
        Answer::Panic,
    ];
    for _ in 0..chance.random_range(0..5) {
        let answer = answers[chance.random_range(0..answers.len())];
        bench.peer.answers.lock().unwrap().push(answer);
    }
    let flaws = if chance.random_ratio(1, 3) { 20 } else { 0 };
    let message = message();
    let mut redelivered = false;
    let verdict = loop {
        // After four crashes the process is well.
        let last = match redelivered && chance.random_ratio(1, 4) {
            true => 0,
            false => chance.random_range(0..18),
        };
        let verdict = bench
            .deliver(
                &message,
                redelivered,
                Life::until(last),
                chance.random(),
                flaws,
            )
            .await;
        redelivered = true;
        // The process may also end between the verdict and the acknowledgement.
        if let Some(verdict) = verdict
            && !chance.random_ratio(1, 5)
        {
            break verdict;
        }
    };
    let row = bench.row(&message).await;
    let took = bench.peer.took.load(Ordering::SeqCst);
    let about = format!("seed {seed}: took {took}, {verdict:?}, {row:?}");
    if !retries {
        assert!(took <= 1, "sent twice: {about}");
    }
    let events = bench.events().await;
    let parked = bench.read("t.outbound.parked").await;
    match row.state {
        RowState::Parked => {
            assert_eq!(verdicts(&events), 0, "{about}");
            assert!(!parked.is_empty(), "{about}");
        }
        RowState::Unknown => {
            assert!(waits, "{about}");
            assert_eq!(
                verdicts(&events),
                0,
                "an unknown message has no ack or nack: {about}"
            );
            assert_eq!(distinct(&events).len(), 1, "pending is told: {about}");
        }
        RowState::Sent | RowState::SentFinal => {
            assert_eq!(row.state == RowState::Sent, receipts, "{about}");
            assert!(took >= 1, "{about}");
            assert_eq!(verdicts(&events), 1, "{about}");
            assert_eq!(events[0].event_type(), EventType::Ack, "{about}");
        }
        RowState::Failed => {
            assert_eq!(verdicts(&events), 1, "{about}");
            let nack = distinct(&events)
                .into_iter()
                .find(|e| e.event_type() == EventType::Nack);
            let fate = nack
                .and_then(|e| e.fate())
                .unwrap_or_else(|| panic!("{about}"));
            // A message that was taken ends as failed only if nobody knew.
            assert!(
                took == 0 || retries || fate.code == codes::FATE_UNKNOWN.name,
                "{fate:?} {about}"
            );
        }
        _ => panic!("no end: {about}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_crash_at_any_step_sends_a_message_twice_or_leaves_it_without_an_end() {
    let store = store();
    for seed in 0..3000 {
        one_schedule(&store, seed).await;
    }
}

/// A peer that takes every message, answers some late and some never, and sends receipts for all.
struct Forgetful {
    took: Mutex<std::collections::HashMap<String, u32>>,
}

/// What becomes of the answer to the n-th message: of a hundred, ten come too late and one never.
fn answered(number: usize) -> bool {
    number % 100 >= 11
}

fn number(message: &UserMessage) -> usize {
    message
        .content()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

#[async_trait]
impl Worker for Forgetful {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let id = message.message_id();
        let times = {
            let mut took = self.took.lock().unwrap();
            let times = took.entry(id.to_owned()).or_default();
            *times += 1;
            *times
        };
        if times == 1 && !answered(number(message)) {
            return Err(unknown("no answer within 30 s"));
        }
        let mut ack = Event::ack(id, &format!("remote {id}"));
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}

/// Acceptance test 7 of the guarantees: a thousand messages, ten in a hundred answered too late, one never, receipts for
/// all. How often the peer took each message, the rows, the events, and how many were counted as sent again.
async fn lost_responses(more: serde_json::Value) -> (Vec<u32>, Vec<Row>, Vec<Event>, u64) {
    let store = store();
    let bench = Bench::new(&store, more, true);
    let took = Mutex::default();
    let worker = Arc::new(Forgetful { took });
    let life = Life::until(0);
    let peer: Arc<dyn Worker> = Arc::clone(&worker) as _;
    let (sending, desk) = bench.desk(&life, Some(Arc::clone(&store)), peer);
    let desk = Arc::new(desk);
    let messages: Vec<UserMessage> = (0..1000)
        .map(|n| {
            let mut message = message();
            message.set_content(Some(&n.to_string()));
            message
        })
        .collect();
    let never = || false;
    for some in messages.chunks(100) {
        let works = some
            .iter()
            .map(|m| Arc::clone(&desk).work(delivery(m, false)));
        let finished = futures::future::join_all(works).await;
        assert!(
            finished.iter().all(|f| f.verdict == Verdict::Done),
            "the lanes go on"
        );
    }
    for message in &messages {
        let receipt = |outcome| Receipt {
            message_id: message.message_id().to_owned(),
            remote_id: Some(format!("remote {}", message.message_id())),
            outcome,
        };
        if (1..11).contains(&(number(message) % 100)) {
            let late = receipt(ReceiptOutcome::Accepted);
            sending.receipt(late, &never).await.unwrap();
        }
        // Networks repeat themselves.
        for _ in 0..2 {
            let delivered = receipt(ReceiptOutcome::Delivered);
            sending.receipt(delivered, &never).await.unwrap();
        }
    }
    let mut rows = Vec::new();
    for message in &messages {
        rows.push(bench.row(message).await);
    }
    let took = {
        let took = worker.took.lock().unwrap();
        messages.iter().map(|m| took[m.message_id()]).collect()
    };
    let bodies = bench.read_all("t.event", 10_000).await;
    let events = bodies.iter().map(|b| Event::decode(b).unwrap()).collect();
    (took, rows, events, sending.metrics.resent.get())
}

#[tokio::test]
async fn lost_answers_wait_for_their_receipts_and_nothing_is_sent_twice() {
    let wait = json!({"onUnknown": {"policy": "wait", "deadline": "1h", "then": "fail"}});
    let (took, rows, events, resent) = lost_responses(wait).await;
    assert!(took.iter().all(|times| *times == 1));
    assert_eq!(resent, 0);
    assert!(rows.iter().all(|row| row.state == RowState::Delivered));
    let count = |wanted: EventType| events.iter().filter(|e| e.event_type() == wanted).count();
    assert_eq!((count(EventType::Ack), count(EventType::Nack)), (1000, 0));
    // Each message is delivered once, and of the 110 it was said before that nobody knew.
    assert_eq!(count(EventType::DeliveryReport), 1110);
}

#[tokio::test]
async fn with_retry_only_what_was_not_answered_is_doubled_and_every_double_is_counted() {
    let retry = json!({"onUnknown": {"policy": "retry"}});
    let (took, rows, events, resent) = lost_responses(retry).await;
    for (number, times) in took.iter().enumerate() {
        assert_eq!(*times, if answered(number) { 1 } else { 2 }, "{number}");
    }
    assert_eq!(resent, 110);
    let marked = |row: &&Row| {
        row.steps
            .iter()
            .any(|s| s.code == codes::FATE_SENT_AGAIN.name)
    };
    assert_eq!(rows.iter().filter(marked).count(), 110);
    assert!(rows.iter().all(|row| row.state == RowState::Delivered));
    let acks = events.iter().filter(|e| e.event_type() == EventType::Ack);
    assert_eq!(acks.count(), 1000, "one ack each");
}

/// A network with a limit of parts a second, and a time in which its queue is full.
struct Limited {
    began: Instant,
    limit: u32,
    full: std::ops::Range<u64>,
    state: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    second: u64,
    in_second: u32,
    /// Parts taken, and requests refused, by second.
    took: std::collections::BTreeMap<u64, (u32, u32)>,
    /// Numbers taken, by user.
    order: std::collections::HashMap<String, Vec<usize>>,
}

#[async_trait]
impl Worker for Limited {
    fn parts(&self, message: &UserMessage) -> u32 {
        if number(message).is_multiple_of(11) {
            3
        } else {
            1
        }
    }

    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let parts = self.parts(message);
        let now = self.began.elapsed().as_secs();
        let mut state = self.state.lock().unwrap();
        if state.second != now {
            (state.second, state.in_second) = (now, 0);
        }
        let fits = state.in_second + parts <= self.limit && !self.full.contains(&now);
        let count = state.took.entry(now).or_default();
        if !fits {
            count.1 += 1;
            return Err(WorkError::new(
                ErrorClass::Throttled(None),
                codes::PEER_THROTTLED,
                "too fast",
            ));
        }
        count.0 += parts;
        state.in_second += parts;
        let user = message.to_addr().unwrap_or_default().to_owned();
        state.order.entry(user).or_default().push(number(message));
        let mut ack = Event::ack(message.message_id(), "r");
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}

/// Acceptance test 8 of the guarantees, in simulated time: a network that takes 50 parts a second and has a full queue for
/// 20 seconds; 5 000 single and 500 triple messages of 100 users.
#[tokio::test(start_paused = true)]
async fn a_network_with_a_limit_is_used_to_it_and_not_beyond() {
    const LIMIT: u32 = 50;
    let store = store();
    let limit = json!({"rateLimit": {"rate": LIMIT, "burst": 5, "unit": "parts"}});
    let bench = Bench::new(&store, limit, false);
    let network = Arc::new(Limited {
        began: Instant::now(),
        limit: LIMIT + 5,
        full: 60..80,
        state: Mutex::default(),
    });
    let worker: Arc<dyn Worker> = Arc::clone(&network) as _;
    let (_, desk) = bench.desk(&Life::until(0), None, worker);
    let desk = Arc::new(desk);
    let users = (0..100).map(|user| {
        let desk = Arc::clone(&desk);
        async move {
            for number in 0..55 {
                let mut message =
                    UserMessage::new("sms", Some(&format!("user{user}")), Some("555"));
                message.set_content(Some(&number.to_string()));
                let finished = Arc::clone(&desk).work(delivery(&message, false)).await;
                assert_eq!(finished.verdict, Verdict::Done);
            }
        }
    });
    futures::future::join_all(users).await;
    let state = network.state.lock().unwrap();
    assert_eq!(state.order.len(), 100);
    for numbers in state.order.values() {
        assert!(
            numbers.iter().copied().eq(0..55),
            "in order, none lost: {numbers:?}"
        );
    }
    let last = *state.took.keys().last().unwrap();
    let sum = |seconds: std::ops::Range<u64>| {
        let there = state.took.range(seconds.clone()).map(|(_, count)| *count);
        let all = there.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        (
            f64::from(all.0) / (seconds.end - seconds.start) as f64,
            all.1,
        )
    };
    // Settled: before the queue was full, and once the pace is regained.
    for settled in [30..60, 105..last] {
        let (per_second, refused) = sum(settled.clone());
        assert!(
            per_second >= 0.95 * f64::from(LIMIT),
            "{settled:?}: {per_second}"
        );
        assert_eq!(refused, 0, "{settled:?}");
    }
    let (_, refused) = sum(60..80);
    assert!(
        refused < 100,
        "a full queue is asked now and then, not hammered: {refused}"
    );
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

#[tokio::test]
async fn without_a_receipt_the_deadline_decides() {
    let store = store();
    let wait = |then| json!({"onUnknown": {"policy": "wait", "deadline": "1h", "then": then}});
    let never = || false;

    let bench = Bench::new(&store, wait("fail"), true);
    let (sending, message, row) = waiting(&bench).await;
    assert_eq!(row.body, None, "content is kept only to send it again");
    let book = sending.book.as_ref().unwrap();
    assert!(sending.end_wait(book, row, &never).await.unwrap());
    let row = bench.row(&message).await;
    assert_eq!(row.state, RowState::Failed);
    let events = bench.events().await;
    let fate = events.last().unwrap().fate().unwrap();
    assert_eq!(
        (fate.class.as_str(), fate.code.as_str()),
        ("ours", codes::FATE_UNKNOWN.name)
    );
    assert_eq!(verdicts(&events), 1);
    // A receipt that comes even later changes nothing.
    let late = Receipt {
        message_id: message.message_id().into(),
        remote_id: None,
        outcome: ReceiptOutcome::Delivered,
    };
    sending.receipt(late, &never).await.unwrap();
    assert_eq!(bench.events().await.len(), events.len());

    let bench = Bench::new(&store, wait("retry"), true);
    let (sending, message, row) = waiting(&bench).await;
    let book = sending.book.as_ref().unwrap();
    bench
        .broker
        .declare(&QueueSpec::Data("t.outbound".into()))
        .await
        .unwrap();
    assert!(sending.end_wait(book, row, &never).await.unwrap());
    let back = bench.read("t.outbound").await;
    assert_eq!(back, [message.encode()], "sent back as it came");
    let verdict = bench.deliver(&message, false, Life::until(0), 0, 0).await;
    assert_eq!(verdict, Some(Verdict::Done));
    assert_eq!(bench.peer.took.load(Ordering::SeqCst), 2);
    let row = bench.row(&message).await;
    assert_eq!(
        (row.state, row.attempt, row.body),
        (RowState::Sent, 2, None)
    );
    assert_eq!(verdicts(&bench.events().await), 1);
}

#[tokio::test]
async fn a_reply_that_vanished_with_its_holder_is_told_once() {
    let store = store();
    let bench = Bench::new(&store, json!({}), false);
    let (sending, _) = bench.process(&Life::until(0), 0, 0);
    let book = sending.book.as_ref().unwrap();
    let never = || false;
    let message = message();
    let row = book.opened(&message);
    let news = News::coded(codes::REPLY_FORWARDED, "forwarded");
    let next = book
        .moved(&row, RowState::Queued, patience::FORWARDED, news)
        .unwrap();
    assert_eq!(book.put(&row, &next, &never).await.unwrap(), Put::Stored);
    // The process of the look-out dies after each step in turn; another one takes over.
    for step in 1..20 {
        let life = Life::until(step);
        let (sending, _) = bench.process(&life, 0, 0);
        let book = sending.book.as_ref().unwrap();
        let row = bench.row(&message).await;
        if row.state.is_final() {
            break;
        }
        tokio::select! {
            _ = sending.end_wait(book, row, &never) => {}
            () = life.ended.notified() => {}
        }
    }
    let row = bench.row(&message).await;
    assert_eq!(row.state, RowState::Failed);
    let events = bench.events().await;
    assert_eq!(verdicts(&events), 1);
    assert_eq!(events[0].fate().unwrap().code, codes::HOLDER_GONE.name);
}

#[tokio::test]
async fn a_message_that_kills_again_and_again_is_set_aside_and_its_neighbours_are_not() {
    let store = store();
    let bench = Bench::new(&store, json!({}), false);
    let (poison, neighbour) = (message(), message());
    let work = async |message: &UserMessage, redelivered, last| {
        let life = Life::until(last);
        let worker = Arc::new(Transport {
            peer: Arc::clone(&bench.peer),
            life: Arc::clone(&life),
        });
        let (_, mut desk) = bench.desk(&life, None, worker);
        desk.trial = Some(Trial::new(
            Arc::clone(&store),
            "t.outbound",
            Retention::SUSPECTS,
        ));
        tokio::select! {
            finished = Arc::new(desk).work(delivery(message, redelivered)) => Some(finished.verdict),
            () = life.ended.notified() => None,
        }
    };
    assert_eq!(work(&poison, false, 1).await, None);
    assert_eq!(work(&poison, true, 1).await, None);
    assert_eq!(
        work(&neighbour, true, 1).await,
        None,
        "it was in the same process"
    );
    assert_eq!(work(&neighbour, true, 0).await, Some(Verdict::Done));
    assert_eq!(work(&poison, true, 1).await, None);
    assert_eq!(work(&poison, true, 0).await, Some(Verdict::Parked));
    let parked = bench.read("t.outbound.parked").await;
    let envelope = crate::parking::Envelope::decode(&parked[0]).unwrap();
    assert_eq!(envelope.code, codes::BUG_CRASH_LOOP.name);
    // What was acquitted, or requeued by a person, begins anew.
    assert_eq!(work(&neighbour, true, 1).await, None);
    assert_eq!(work(&poison, true, 0).await, Some(Verdict::Done));
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_and_gets_its_answer() {
    let store = store();
    let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": spec(json!({}))});
    let resource = resource(&manifest).unwrap();
    let metrics = Telemetry::new().worker("transport/t");
    let once = || Once::new(Arc::clone(&store), &resource, Arc::clone(&metrics));
    let (one, two) = (once(), once());
    let never = || false;
    assert_eq!(one.reserve("id").await.unwrap(), None);
    let (answer, ()) = tokio::join!(
        two.reserve("id"),
        one.commit("id", "first".into(), None, &never)
    );
    assert_eq!(answer.unwrap(), Some("first".into()));
    assert_eq!(metrics.duplicates.get(), 1);
    one.commit("id", "better".into(), None, &never).await;
    assert_eq!(two.reserve("id").await.unwrap(), Some("better".into()));
    // Not published: the next one is the first again.
    assert_eq!(one.reserve("other").await.unwrap(), None);
    one.release("other").await;
    assert_eq!(two.reserve("other").await.unwrap(), None);
    let busy = one.reserve("other").await.unwrap_err();
    assert_eq!(busy.code, codes::DEDUPE_PENDING);
}

/// A store that counts operations, and carries none out before its gate is opened.
struct Gated {
    store: Arc<dyn StateStore>,
    operations: AtomicU32,
    gate: tokio::sync::Semaphore,
}

#[async_trait]
impl Around for Gated {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn around<T: Send>(
        &self,
        _: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await);
        work.await
    }
}

#[tokio::test]
async fn hops_that_come_together_are_stored_together() {
    let store = store();
    let gated = Arc::new(Gated {
        store: Arc::clone(&store),
        operations: AtomicU32::new(0),
        gate: tokio::sync::Semaphore::new(0),
    });
    let counted: Arc<dyn StateStore> = gated.clone();
    let names = Names {
        connector: "t".into(),
        by: "application/a@one".into(),
        keep: Duration::from_secs(3600),
    };
    let metrics = Telemetry::new().worker("application/a");
    let trail = Trail::new(counted, &names, Arc::clone(&metrics));
    let messages: Vec<Message> = (0..200).map(|_| message().into()).collect();
    let notes = messages.iter().map(|message| {
        let hop = Trail::hop(Flow::Inbound, message).unwrap();
        trail.note(hop, "", "to t.outbound".into(), vec!["reply".into()])
    });
    let open = async {
        // Until all are waiting; so many futures are looked at in several turns.
        for _ in 0..messages.len() {
            tokio::task::yield_now().await;
        }
        gated.gate.add_permits(1);
    };
    tokio::join!(futures::future::join_all(notes), open);
    for message in &messages {
        let steps = store.trail(message.id()).await.unwrap();
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].caused, ["reply"]);
    }
    let operations = gated.operations.load(Ordering::SeqCst);
    assert_eq!(operations, 2, "the first hop, and all others");
    assert_eq!(metrics.trail_lost.get(), 0);
}
