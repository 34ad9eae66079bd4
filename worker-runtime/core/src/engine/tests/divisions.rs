//! Divisions that change: what waits in the old parts is handled, in order, and what waits for long holds up nobody.

use super::partitions::{
    divided, echoing, first_occurrences, gated, here, holding_fence, in_order, replica_of, scripted,
};
use super::*;
use crate::conformance::failing_store::FailingStore;
use crate::engine::lanes::{Lane, LaneChooser};
use crate::state::Journal;
use crate::state::batches::Order;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::journal::{About, Append, Due, Entry, Filter, Lane as Place, Listed, Reason};
use std::sync::atomic::AtomicBool;

pub(super) fn store() -> Arc<dyn StateStore> {
    EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap()
}

pub(super) fn message(user: &str, text: &str) -> UserMessage {
    let mut message = UserMessage::new("sms", Some("555"), Some(user));
    message.set_content(Some(text));
    message.set_transport_name("t");
    message
}

/// A message of a user that waits for its second attempt.
pub(super) fn waiting(user: &str, text: &str, wait: Duration) -> Append {
    let message = message(user, text);
    let body = message.encode();
    let lanes = LaneChooser::new(vumi_api::OrderingMode::PerUser);
    let Lane::Numbered(number) = lanes.lane(Flow::Inbound, &message.into()) else {
        panic!("a user has a lane");
    };
    let about = About {
        reason: Reason::Backoff,
        since: 1_000,
        attempts: 1,
        counted: 0,
        code: "peer.timeout".into(),
        text: "no answer".into(),
        routing_key: "t.inbound".into(),
        amqp_message_id: None,
    };
    Append {
        lane: Place {
            group: String::new(),
            number,
        },
        due: Due::After(wait),
        entry: Entry { about, body },
    }
}

/// Message `0` of a user, put into a journal to wait for its second attempt.
async fn put_by(store: &Arc<dyn StateStore>, queue: &str, user: &str, wait: Duration) {
    let append = waiting(user, "0", wait);
    store.append(queue, vec![append]).await.unwrap();
}

/// What waits in partitions that were divided otherwise, or are no more, is finished before anything newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_their_number_keeps_order() {
    const USERS: usize = 30;
    let broker = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    let (open, name) = gated();
    let mut n = 0;
    for (partitions, next) in [(8, 3), (3, 8), (8, 0)] {
        open.store(false, Ordering::Relaxed);
        let connection = broker.connect() as Arc<dyn Broker>;
        let old = replica_of(connection, name.clone(), divided(partitions), "old").await;
        let send = async |rig: &Rig, from: usize| {
            for number in from..from + 5 {
                for user in 0..USERS {
                    rig.send(&format!("u{user}"), &number.to_string()).await;
                }
            }
        };
        send(&old, n).await;
        old.until("taken", |s| s.counts.received >= 5 * USERS as u64)
            .await;
        old.broker.close(Duration::ZERO).await;
        drop(old);
        let connection = broker.connect() as Arc<dyn Broker>;
        let new = replica_of(connection, name.clone(), divided(next), "new").await;
        send(&new, n + 5).await;
        let redividing = |s: &WorkerSnapshot| s.components.iter().any(|c| c.reason == "redividing");
        new.until("says so", redividing).await;
        // Taken, and not passed on.
        while new.broker.depth("t.inbound").await.unwrap().unwrap().ready > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        open.store(true, Ordering::Relaxed);
        let mut observer = holding_fence(&new.broker, "t.outbound").await;
        let seen = first_occurrences(&mut observer, USERS, 10).await;
        observer.acker.close();
        in_order(&seen);
        new.until("is divided", |s| !redividing(s)).await;
        if next > 0 {
            let all = usize::from(next);
            new.until("shares", |s| here(s) == Some((all, all))).await;
        }
        new.at_rest().await;
        let shelf = new.broker.shelf("t.inbound.layout", 10).await.unwrap();
        assert_eq!(shelf.messages().len(), 1, "one note");
        shelf.close().await;
        new.broker.close(Duration::ZERO).await;
        n += 10;
    }
}

/// Whatever becomes of the division, what old partitions held is handled, though no new message comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_partitions_held_does_not_wait_for_the_next_message() {
    let (open, name) = gated();
    let unordered = json!({"ordering": {"mode": "none"}});
    for settings in [unordered, divided(2), divided(0)] {
        open.store(false, Ordering::Relaxed);
        let broker = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
        let connection = broker.connect() as Arc<dyn Broker>;
        let old = replica_of(connection, name.clone(), divided(4), "old").await;
        for user in 0..20 {
            old.send(&format!("u{user}"), "0").await;
        }
        old.until("taken", |s| s.counts.received >= 20).await;
        old.broker.close(Duration::ZERO).await;
        drop(old);
        open.store(true, Ordering::Relaxed);
        let mut replicas = Vec::new();
        for instance in ["a", "b"] {
            let connection = broker.connect() as Arc<dyn Broker>;
            let rig = replica_of(connection, name.clone(), settings.clone(), instance).await;
            replicas.push(rig);
        }
        let mut observer = holding_fence(&replicas[0].broker, "t.outbound").await;
        first_occurrences(&mut observer, 20, 1).await;
        for rig in &replicas {
            rig.at_rest().await;
        }
    }
}

/// What waits in the journal of a part that is no more, or of the queue as it was before it was divided, is handled, and
/// before what is newer; no note at the broker is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journals_of_a_former_division_are_finished_first() {
    const USERS: usize = 12;
    for (partitions, journals) in [
        (2, ["t.inbound.p7", "t.inbound"]),
        (0, ["t.inbound.p7", "t.inbound.p1"]),
    ] {
        let store = store();
        for user in 0..USERS {
            let queue = journals[user % 2];
            put_by(&store, queue, &format!("u{user}"), Duration::from_secs(1)).await;
        }
        let name = echoing();
        let setup = Setup {
            name,
            state: Some(Arc::clone(&store)),
            ..Setup::new(divided(partitions))
        };
        let rig = Rig::replica(setup, "new").await;
        for number in 1..3 {
            for user in 0..USERS {
                rig.send(&format!("u{user}"), &number.to_string()).await;
            }
        }
        let mut observer = holding_fence(&rig.broker, "t.outbound").await;
        let seen = first_occurrences(&mut observer, USERS, 3).await;
        in_order(&seen);
        rig.at_rest().await;
        for queue in journals {
            // What is done is removed a moment later.
            for tried in 0.. {
                let left = store.depth(queue).await.unwrap().messages;
                if left == 0 {
                    break;
                }
                assert!(tried < 2000, "{left} in {queue}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// That the store does not answer does not mean that nothing waits in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_not_an_empty_one() {
    for partitions in [2, 0] {
        let store = store();
        put_by(&store, "t.inbound.p7", "u", Duration::ZERO).await;
        let state = FailingStore::new(Arc::clone(&store));
        state.fail("journal.queues", 3);
        let setup = Setup {
            name: echoing(),
            state: Some(state),
            ..Setup::new(divided(partitions))
        };
        let rig = Rig::replica(setup, "one").await;
        for number in 1..3 {
            rig.send("u", &number.to_string()).await;
        }
        let mut observer = holding_fence(&rig.broker, "t.outbound").await;
        in_order(&first_occurrences(&mut observer, 1, 3).await);
        rig.at_rest().await;
    }
}

async fn journaled(store: &Arc<dyn StateStore>) -> Vec<Listed> {
    let mut all = Vec::new();
    for queue in Journal::queues(&**store).await.unwrap() {
        let listed = store.list(&queue, &Filter::default(), 1000).await;
        all.extend(listed.unwrap());
    }
    all
}

async fn until_journaled(store: &Arc<dyn StateStore>, count: usize) -> Vec<Listed> {
    for _ in 0..3000 {
        let all = journaled(store).await;
        if all.len() == count {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} wanted: {:?}", journaled(store).await);
}

/// Some users cannot be reached, and their messages wait for an hour: a change of the division waits for none of them, and
/// in the end each has everything in order, as if nothing had been changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_next_attempt_moves_along() {
    const USERS: usize = 8;
    let (store, broker) = (
        store(),
        EmbeddedBroker::start(EmbeddedOptions::default()).unwrap(),
    );
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let name = scripted(move |i, cx| {
        let dead =
            matches!(&i.message, Message::User(m) if m.from_addr().unwrap().starts_with("dead"));
        let fails = dead && !flag.load(Ordering::SeqCst);
        async move {
            if fails {
                Err(temporary())
            } else {
                Ok(echo(&i, &cx))
            }
        }
    });
    let mut number = 0;
    for partitions in [4, 3, 0, 4] {
        let mut settings = divided(partitions);
        settings["holdLimit"] = "1ms".into();
        settings["retry"] = json!({"backoff": {"initial": "1h", "max": "1h"}});
        let setup = Setup {
            broker: broker.connect(),
            name: name.clone(),
            state: Some(Arc::clone(&store)),
            ..Setup::new(settings)
        };
        let rig = Rig::replica(setup, "one").await;
        for user in 0..USERS {
            rig.send(&format!("dead{user}"), &number.to_string()).await;
            rig.send(&format!("live{user}"), &number.to_string()).await;
        }
        rig.until("the living are served", |s| s.counts.done >= USERS as u64)
            .await;
        number += 1;
        let waits = until_journaled(&store, USERS * number).await;
        let parts: Vec<String> = match partitions {
            0 => vec!["t.inbound".into()],
            n => (0..n).map(|k| format!("t.inbound.p{k}")).collect(),
        };
        let first = waits.iter().filter(|l| l.place == 0);
        assert!(first.clone().all(|l| l.entry.about.attempts == 1));
        assert_eq!(first.count(), USERS);
        let elsewhere: Vec<&str> = waits.iter().map(|l| l.queue.as_str()).collect();
        assert!(
            elsewhere.iter().all(|q| parts.iter().any(|p| p == q)),
            "{elsewhere:?}"
        );
        if number == 4 {
            healed.store(true, Ordering::SeqCst);
            for queue in &parts {
                Journal::release(&*store, queue, &Filter::default())
                    .await
                    .unwrap();
            }
            let mut observer = holding_fence(&rig.broker, "t.outbound").await;
            in_order(&first_occurrences(&mut observer, 2 * USERS, 4).await);
            rig.at_rest().await;
            until_journaled(&store, 0).await;
        }
        rig.stop_now().await;
    }
}

/// A paused batch and messages for another day do not hold up a change of the classes, and lose neither order nor time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_or_scheduled_moves_along() {
    const USERS: usize = 4;
    let (store, broker) = (
        store(),
        EmbeddedBroker::start(EmbeddedOptions::default()).unwrap(),
    );
    let sent: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let log = Arc::clone(&sent);
    let name = scripted(move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        let user = message.to_addr().unwrap().to_owned();
        log.lock().unwrap().push((user, content(&i)));
        async move { Ok(vec![cx.ack(&message, "remote")]) }
    });
    let pause = Order::Pause;
    store.set_order("t", "spring", Some(&pause)).await.unwrap();
    let day = std::time::SystemTime::now() + Duration::from_secs(24 * 3600);
    let day = day.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (round, classes) in [true, false, true].into_iter().enumerate() {
        let setup = Setup {
            broker: broker.connect(),
            kind: Kind::Transport,
            name: name.clone(),
            state: Some(Arc::clone(&store)),
            settings: if classes {
                json!({"classes": {}})
            } else {
                json!({})
            },
        };
        let rig = Rig::replica(setup, "one").await;
        for user in 0..USERS {
            let publish = async |text: &str, key: &str, value: serde_json::Value| {
                let user = format!("u{user}");
                let mut message = UserMessage::new("sms", Some(&user), Some("555"));
                message.set_transport_name("t");
                message.set_content(Some(text));
                message.helper_metadata_mut().insert(key.into(), value);
                rig.publish("t.outbound", message.encode()).await;
            };
            publish(&format!("batch {round}"), "batch", "spring".into()).await;
            publish(&format!("fresh {round}"), "class", "bulk".into()).await;
            if round == 0 {
                publish("scheduled", "schedule", json!({"at": day})).await;
            }
        }
        let fresh = USERS * (round + 1);
        rig.until("what does not wait is sent", |_| {
            sent.lock().unwrap().len() == fresh
        })
        .await;
        let waits = until_journaled(&store, USERS * (round + 2)).await;
        let queue = if classes {
            "t.outbound.transactional"
        } else {
            "t.outbound"
        };
        let queues: Vec<&str> = waits.iter().map(|l| l.queue.as_str()).collect();
        assert!(queues.iter().all(|q| *q == queue), "{round}: {queues:?}");
        let scheduled = waits
            .iter()
            .filter(|l| l.entry.about.reason == Reason::Schedule);
        let due: Vec<_> = scheduled.map(|l| l.due).collect();
        assert_eq!(due, [Some(day * 1000); USERS]);
        if round == 2 {
            store.set_order("t", "spring", None).await.unwrap();
            until_journaled(&store, USERS).await;
            let sent = sent.lock().unwrap();
            for user in 0..USERS {
                let of = |(to, text): &&(String, String)| {
                    *to == format!("u{user}") && text.starts_with("batch")
                };
                let of: Vec<&str> = sent.iter().filter(of).map(|(_, t)| t.as_str()).collect();
                assert_eq!(of, ["batch 0", "batch 1", "batch 2"]);
            }
        }
        rig.stop_now().await;
    }
}
