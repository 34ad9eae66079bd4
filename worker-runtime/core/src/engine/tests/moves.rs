//! Journals that move when a division changes: nobody else has the parts meanwhile, nothing is left behind, nothing newer
//! comes first, and a stop lets what runs end.

use super::divisions::{message, store, waiting};
use super::partitions::{
    divided, echoing, first_occurrences, gated, holding_fence, in_order, scripted,
};
use super::*;
use crate::broker::amqp::{AmqpBroker, AmqpConfig};
use crate::broker::{Confirmation, ConsumerState};
use crate::conformance::failing_store::FailingStore;
use crate::state::Journal;
use crate::state::around::Around;
use crate::state::journal::{Filter, Step};
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;
use tokio::time::Instant;
use vumi_testkit::rabbitmq;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let checked = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let checked = tokio::time::timeout(MINUTE, checked).await;
    checked.unwrap_or_else(|_| panic!("{what}"));
}

async fn waits(store: &Arc<dyn StateStore>, queue: &str) -> u64 {
    Journal::depth(&**store, queue).await.unwrap().messages
}

/// Puts a message into the queue of a part, as a forwarder that is no more did.
async fn left(broker: &Arc<dyn Broker>, queue: &str, message: &UserMessage) {
    let publication = Publication {
        exchange: EXCHANGE.into(),
        routing_key: queue.into(),
        body: message.encode(),
        message_id: None,
        class: PublicationClass::Data,
    };
    let receipt = broker.publish(publication).await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
    // What is written down of a former division.
    let note = QueueSpec::Parking("t.inbound.layout".into());
    broker.declare(&note).await.unwrap();
    let publication = Publication {
        exchange: String::new(),
        routing_key: note.name().into(),
        body: r#"{"parts": ["p7"]}"#.into(),
        message_id: None,
        class: PublicationClass::Direct,
    };
    let receipt = broker.publish(publication).await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
}

fn says(snapshot: &WorkerSnapshot, reason: &str, text: &str) -> bool {
    let mut components = snapshot.components.iter();
    components.any(|c| {
        c.component == "partitions of t.inbound" && c.reason == reason && c.message.contains(text)
    })
}

/// Lanes that move; `VUMI_LANES` says how many.
fn lanes() -> usize {
    std::env::var("VUMI_LANES").map_or(10_000, |lanes| lanes.parse().expect("a number"))
}

/// A change of the number of partitions while so many users wait in the journal: a thousand at a time are looked at and move
/// together. How long a new message waited meanwhile.
async fn many_lanes_move(store: Arc<dyn StateStore>) -> Duration {
    let users: Vec<usize> = (0..lanes()).collect();
    for some in users.chunks(1000) {
        let some = some.iter();
        let some = some.map(|user| waiting(&format!("u{user}"), "0", HOUR));
        store.append("t.inbound.p7", some.collect()).await.unwrap();
    }
    let setup = Setup {
        name: echoing(),
        state: Some(Arc::clone(&store)),
        ..Setup::new(divided(3))
    };
    let rig = Rig::replica(setup, "one").await;
    let asked = Instant::now();
    rig.send("new", "0").await;
    let replies = async || rig.broker.depth("t.outbound").await.unwrap();
    while replies().await.is_none_or(|depth| depth.ready == 0) {
        assert!(asked.elapsed() < 10 * MINUTE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waited = asked.elapsed();
    assert_eq!(waits(&store, "t.inbound.p7").await, 0);
    let mut there = 0;
    for part in ["p0", "p1", "p2"] {
        there += waits(&store, &format!("t.inbound.{part}")).await;
    }
    assert_eq!(there, users.len() as u64);
    rig.stop_now().await;
    println!("{} lanes: a new message waited {waited:?}", users.len());
    waited
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lanes_hold_up_new_messages_for_seconds() {
    let waited = many_lanes_move(store()).await;
    assert!(waited < MINUTE / 2, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lanes_of_redis_hold_up_new_messages_for_seconds() {
    if let Some((_redis, store)) = redis_store().await {
        let waited = many_lanes_move(store).await;
        assert!(waited < MINUTE / 2, "{waited:?}");
    }
}

/// A store that notes whether journals move while somebody else reads a part.
struct Watchful {
    store: Arc<dyn StateStore>,
    others: Vec<watch::Receiver<ConsumerState>>,
    moved_under_them: AtomicBool,
}

#[async_trait]
impl Around for Watchful {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn before(&self, operation: &'static str) -> Result<(), WorkError> {
        let reads = |other: &watch::Receiver<_>| *other.borrow() == ConsumerState::Consuming;
        if operation == "journal.relocate" && self.others.iter().any(reads) {
            self.moved_under_them.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Whatever the replicas believe of each other, only the fences say who has a part: a reader that gets one in between is
/// waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_a_part_while_journals_move() {
    for partitions in [2, 0] {
        let (open, name) = gated();
        let (store, broker) = (
            store(),
            EmbeddedBroker::start(EmbeddedOptions::default()).unwrap(),
        );
        let waits_there = vec![waiting("v", "0", HOUR)];
        store.append("t.inbound.p7", waits_there).await.unwrap();
        let test: Arc<dyn Broker> = broker.connect();
        left(&test, "t.inbound.p7", &message("u", "0")).await;
        // Whoever lets go of the part lets this one have it.
        let first = holding_fence(&test, "t.inbound.p7").await;
        let watchful = Arc::new(Watchful {
            store: Arc::clone(&store),
            others: vec![first.state.clone()],
            moved_under_them: AtomicBool::new(false),
        });
        first.acker.release();
        let setup = Setup {
            broker: broker.connect(),
            name,
            state: Some(Arc::clone(&watchful) as Arc<dyn StateStore>),
            ..Setup::new(divided(partitions))
        };
        let rig = Rig::replica(setup, "one").await;
        rig.until("it is being worked on", |s| s.counts.in_flight == 1)
            .await;
        first.acker.resume();
        open.store(true, Ordering::SeqCst);
        let mut other = first.state.clone();
        let reads = other.wait_for(|state| *state == ConsumerState::Consuming);
        tokio::time::timeout(MINUTE, reads).await.unwrap().unwrap();
        // Time enough to go wrong.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(waits(&store, "t.inbound.p7").await, 1);
        first.acker.close();
        eventually("it moves when the part is free", async || {
            waits(&store, "t.inbound.p7").await == 0
        })
        .await;
        assert!(!watchful.moved_under_them.load(Ordering::SeqCst));
        rig.until("it is divided", |s| says(s, "divided", "")).await;
        rig.stop_now().await;
    }
}

/// Where no order is kept, replicas claim what they replay: what one of them has when the division changes is not left
/// in a journal that nobody looks at any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_replica_has_claimed_moves_when_it_is_free() {
    const FORMER: &str = "t.inbound.p7";
    let store = store();
    let now = vec![waiting("u", "0", Duration::ZERO)];
    store.append(FORMER, now).await.unwrap();
    let head = store.claim(FORMER, "", 1, HOUR).await.unwrap().remove(0);
    let setup = Setup {
        name: echoing(),
        state: Some(Arc::clone(&store)),
        ..Setup::new(json!({"ordering": {"mode": "none"}}))
    };
    let rig = Rig::replica(setup, "one").await;
    rig.until("it says what it waits for", |s| {
        says(s, "division_unsettled", FORMER)
    })
    .await;
    let again = Step::Again(head.entry.about, crate::state::journal::Due::After(HOUR));
    let step = store.step(FORMER, &head.lane, head.id, again, HOUR);
    step.await.unwrap();
    rig.until("it is divided", |s| says(s, "divided", "")).await;
    assert_eq!(waits(&store, FORMER).await, 0);
    assert_eq!(waits(&store, "t.inbound").await, 1);
    let all = Filter::default();
    let released = Journal::release(&*store, "t.inbound", &all);
    assert_eq!(released.await.unwrap(), 1);
    assert_eq!(rig.replies(1).await.len(), 1);
}

/// What comes out of the journal before the first message is delivered waits for the division like everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_does_not_overtake_what_waits_in_a_former_part() {
    let (open, begun) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (gate, log): (_, Arc<Mutex<Vec<String>>>) = (Arc::clone(&open), Arc::clone(&begun));
    let name = scripted(move |i, cx| {
        let gate = Arc::clone(&gate);
        log.lock().unwrap().push(content(&i));
        async move {
            while !gate.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(echo(&i, &cx))
        }
    });
    let (store, broker) = (
        store(),
        EmbeddedBroker::start(EmbeddedOptions::default()).unwrap(),
    );
    let later = vec![waiting("u", "1", Duration::ZERO)];
    store.append("t.inbound", later).await.unwrap();
    let test: Arc<dyn Broker> = broker.connect();
    left(&test, "t.inbound.p7", &message("u", "0")).await;
    let setup = Setup {
        broker: broker.connect(),
        name,
        state: Some(Arc::clone(&store)),
        ..Setup::new(divided(0))
    };
    let rig = Rig::replica(setup, "one").await;
    rig.until("both are in hand", |s| s.counts.in_flight == 2)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*begun.lock().unwrap(), ["0"]);
    open.store(true, Ordering::SeqCst);
    let mut observer = holding_fence(&test, "t.outbound").await;
    in_order(&first_occurrences(&mut observer, 1, 2).await);
    rig.at_rest().await;
}

/// A stop lets messages of former parts end like all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_what_runs_in_a_former_part_end() {
    let (open, name) = gated();
    let broker = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    let test: Arc<dyn Broker> = broker.connect();
    left(&test, "t.inbound.p7", &message("u", "0")).await;
    let setup = Setup {
        broker: broker.connect(),
        name,
        ..Setup::new(divided(0))
    };
    let mut rig = Rig::replica(setup, "one").await;
    rig.until("it is in hand", |s| s.counts.in_flight == 1)
        .await;
    let running = rig.running.take().unwrap();
    let opening = async {
        // Long after it was told to stop.
        tokio::time::sleep(Duration::from_millis(500)).await;
        open.store(true, Ordering::SeqCst);
    };
    tokio::join!(running.stop(StopLimits::default()), opening);
    rig.broker.close(Duration::from_secs(1)).await;
    let replies = test.depth("t.outbound").await.unwrap();
    assert_eq!(replies.map(|depth| depth.ready), Some(1));
    let former = test.depth("t.inbound.p7").await.unwrap();
    assert_eq!(
        former.map(|depth| depth.ready),
        Some(0),
        "it does not come again"
    );
}

/// New messages wait while nobody knows what is left of a former division, and the status says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_division_that_cannot_be_settled_is_said_with_its_reason() {
    for partitions in [2, 0] {
        // It does not say which journals there are.
        let failing = FailingStore::new(store());
        failing.fail("journal.queues", u32::MAX);
        let setup = Setup {
            name: echoing(),
            state: Some(Arc::clone(&failing) as Arc<dyn StateStore>),
            ..Setup::new(divided(partitions))
        };
        let rig = Rig::replica(setup, "one").await;
        rig.send("u", "0").await;
        let why = "it fails in this test";
        let snapshot = rig
            .until("it says so", |s| says(s, "division_unsettled", why))
            .await;
        assert_eq!(snapshot.counts.done, 0);
        failing.fail("journal.queues", 0);
        rig.until("it is settled", |s| says(s, "divided", "")).await;
        assert_eq!(rig.replies(1).await.len(), 1);
        rig.at_rest().await;
    }
}

/// The fences of RabbitMQ in both profiles, and replicas that compete beside replicas that keep order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn divisions_change_on_rabbitmq() {
    const USERS: usize = 6;
    let options = rabbitmq::Options::default();
    let version = rabbitmq::Version::V4_0;
    let Some(server) = rabbitmq::RabbitMq::start_or_skip(version, options).await else {
        return;
    };
    for profile in ["vumi", "quorum"] {
        server.add_vhost(profile, None).await.unwrap();
        let url = format!("{}?profile={profile}", server.url(profile));
        let connect =
            || -> Arc<dyn Broker> { AmqpBroker::connect(AmqpConfig::from_url(&url).unwrap()) };
        let (store, test) = (store(), connect());
        let waiting = (0..USERS).map(|user| waiting(&format!("u{user}"), "0", HOUR));
        let waiting: Vec<_> = waiting.collect();
        store.append("t.inbound.p7", waiting).await.unwrap();
        left(&test, "t.inbound.p7", &message("v", "left")).await;
        let unordered = json!({"ordering": {"mode": "none"}});
        let name = echoing();
        let divisions = [divided(3), unordered, divided(2), divided(0)];
        for (settings, replies) in divisions.into_iter().zip(2..) {
            let mut replicas = Vec::new();
            for instance in ["a", "b"] {
                let setup = Setup {
                    broker: connect(),
                    name: name.clone(),
                    state: Some(Arc::clone(&store)),
                    ..Setup::new(settings.clone())
                };
                replicas.push(Rig::replica(setup, instance).await);
            }
            let parts: Vec<String> = match settings["ordering"]["partitions"].as_u64() {
                None => vec!["t.inbound".into()],
                Some(n) => (0..n).map(|k| format!("t.inbound.p{k}")).collect(),
            };
            let moved = format!("{profile}: all wait in {parts:?}");
            eventually(&moved, async || {
                let mut there = 0;
                for part in &parts {
                    there += waits(&store, part).await;
                }
                there == USERS as u64
            })
            .await;
            eventually("one says that it is divided", async || {
                let mut replicas = replicas.iter();
                replicas.any(|rig| says(&rig.running().snapshot(), "divided", ""))
            })
            .await;
            replicas[0].send("v", "new").await;
            eventually("everything else is handled", async || {
                let ready = test.ready("t.outbound").await.unwrap();
                assert!(ready <= replies, "{profile}, {parts:?}: {ready}");
                ready == replies
            })
            .await;
            for mut rig in replicas {
                // Nothing comes again after this.
                let running = rig.running.take().unwrap();
                running.stop(StopLimits::default()).await;
                rig.broker.close(Duration::from_secs(5)).await;
            }
        }
    }
}
