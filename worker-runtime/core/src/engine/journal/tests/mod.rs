//! The journal under the engine: embedded broker, embedded store, workers that each test scripts.

mod holders;
mod imported;
mod kills;
mod lives;
mod load;
mod scheduled;

use crate::broker::{
    Access, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe,
};
use crate::conformance::oracle::{Demands, Judgement, Oracle};
use crate::conformance::store_faults::{StoreFaults, StoreMishap};
use crate::engine::StopLimits;
use crate::engine::tests::{Rig, Setup, content, echo, temporary};
use crate::message::UserMessage;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::journal::{Filter, Reason};
use crate::state::{Journal, StateStore};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const QUEUE: &str = "t.inbound";

fn store() -> Arc<dyn StateStore> {
    EmbeddedStore::open(EmbeddedStoreOptions {
        folder: None,
        sync: false,
    })
    .unwrap()
}

/// Retries that take no time, and a window that lets go at once.
fn restless() -> Value {
    json!({
        "holdLimit": "1ms",
        "retry": {"maxAttempts": 1000, "backoff": {"initial": "5ms", "max": "20ms"}},
    })
}

fn with(store: &Arc<dyn StateStore>, settings: Value) -> Setup {
    Setup {
        state: Some(Arc::clone(store)),
        ..Setup::new(settings)
    }
}

/// Judges replies by the messages that caused them, sent in this order.
fn judge(sent: &[(String, String)], replies: &[UserMessage]) -> Judgement {
    let mut oracle = Oracle::default();
    for (user, id) in sent {
        oracle.owe(id, user, Duration::ZERO);
    }
    for reply in replies {
        let cause = reply.in_reply_to().unwrap_or_default();
        oracle.observe(cause, "out", reply.message_id(), Duration::ZERO);
    }
    oracle.judge(Demands {
        order: true,
        within: None,
    })
}

/// Reads replies until every message that was sent has caused one, and then what else there is.
async fn all_replies(rig: &Rig, queue: &str, sent: &[(String, String)]) -> Vec<UserMessage> {
    let mut open: BTreeSet<&str> = sent.iter().map(|(_, id)| id.as_str()).collect();
    let mut subscription = rig
        .broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data(queue.into()),
            prefetch: 1000,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    let mut replies = Vec::new();
    loop {
        let patience = match open.is_empty() {
            true => Duration::from_millis(1),
            false => Duration::from_secs(30),
        };
        let next = tokio::time::timeout(patience, subscription.deliveries.recv()).await;
        let Ok(Some(delivery)) = next else { break };
        let acker = &subscription.acker;
        acker.ack(delivery.generation, delivery.tag, false);
        let reply = UserMessage::decode(&delivery.body).unwrap();
        open.remove(reply.in_reply_to().unwrap_or_default());
        replies.push(reply);
    }
    subscription.acker.close();
    replies
}

async fn waiting(store: &Arc<dyn StateStore>, queue: &str) -> Vec<crate::state::journal::Listed> {
    store.list(queue, &Filter::default(), 10_000).await.unwrap()
}

async fn until_empty(store: &Arc<dyn StateStore>, queue: &str) {
    for _ in 0..2000 {
        if store.depth(queue).await.unwrap().messages == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} in the journal", store.depth(queue).await);
}

/// While a user's messages fail, they wait in the journal, in order, and others are served; then all come, in order.
#[tokio::test]
async fn a_lane_moves_as_a_whole_and_comes_back_in_order() {
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let rig = Rig::on(with(&store, restless()), move |i, cx| {
        let fails = content(&i).starts_with("bad") && !flag.load(Ordering::SeqCst);
        async move {
            match fails {
                true => Err(temporary()),
                false => Ok(echo(&i, &cx)),
            }
        }
    })
    .await;
    let mut sent = Vec::new();
    for n in 0..10 {
        for (user, text) in [("a", format!("bad {n}")), ("b", format!("good {n}"))] {
            sent.push((user.to_owned(), rig.send(user, &text).await));
        }
    }
    let snapshot = rig.until("all have left", |s| {
        s.counts.in_flight == 0 && s.counts.done == 10
    });
    assert!(snapshot.await.counts.journaled >= 10);
    let listed = waiting(&store, QUEUE).await;
    let ids: Vec<String> = listed
        .iter()
        .map(|e| {
            UserMessage::decode(&e.entry.body)
                .unwrap()
                .message_id()
                .to_owned()
        })
        .collect();
    let expected = sent.iter().filter(|(user, _)| user == "a");
    let expected: Vec<String> = expected.map(|(_, id)| id.clone()).collect();
    assert_eq!(ids, expected);
    assert!(listed[0].entry.about.attempts >= 1);
    assert_eq!(listed[0].entry.about.code, "broker.unreachable");
    assert_eq!(listed[1].entry.about.reason, Reason::Behind);
    healed.store(true, Ordering::SeqCst);
    sent.push(("a".into(), rig.send("a", "bad late").await));
    let replies = rig.replies(21).await;
    judge(&sent, &replies).require().unwrap();
    until_empty(&store, QUEUE).await;
    let counts = rig.at_rest().await;
    assert_eq!(counts.done, 21);
    let text = rig.telemetry.render();
    assert!(text.contains("vumi_journaled_total"), "{text}");
}

/// A successor knows which lanes have a journal before it looks at a message.
#[tokio::test]
async fn a_successor_appends_behind_what_it_finds() {
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let setup = with(&store, restless());
    let (broker, name) = (Arc::clone(&setup.broker), setup.name.clone());
    let flag = Arc::clone(&healed);
    let handler = move |i: crate::worker::Input, cx: Arc<crate::worker::WorkerContext>| {
        let ok = flag.load(Ordering::SeqCst);
        async move {
            match ok {
                true => Ok(echo(&i, &cx)),
                false => Err(temporary()),
            }
        }
    };
    let mut rig = Rig::on(setup, handler.clone()).await;
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(("a".to_owned(), rig.send("a", &n.to_string()).await));
    }
    rig.until("all have left", |s| {
        s.counts.journaled >= 5 && s.counts.in_flight == 0
    })
    .await;
    rig.running
        .take()
        .unwrap()
        .stop(StopLimits::default())
        .await;
    for n in 5..10 {
        sent.push(("a".to_owned(), rig.send("a", &n.to_string()).await));
    }
    healed.store(true, Ordering::SeqCst);
    let setup = Setup {
        broker,
        name,
        ..with(&store, restless())
    };
    let rig = Rig::on(setup, handler).await;
    let replies = rig.replies(10).await;
    judge(&sent, &replies).require().unwrap();
    until_empty(&store, QUEUE).await;
    rig.at_rest().await;
}

/// While the store is away nothing moves and nothing is lost: what is held is tried again where it is.
#[tokio::test]
async fn a_store_that_is_away_holds_what_would_leave() {
    let inner = store();
    let faults = StoreFaults::new(Arc::clone(&inner), None);
    let store: Arc<dyn StateStore> = Arc::clone(&faults) as _;
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let rig = Rig::on(with(&store, restless()), move |i, cx| {
        let fails = content(&i) != "fine" && !flag.load(Ordering::SeqCst);
        async move {
            match fails {
                true => Err(temporary()),
                false => Ok(echo(&i, &cx)),
            }
        }
    })
    .await;
    let mut sent = vec![("b".to_owned(), rig.send("b", "fine").await)];
    rig.until("done", |s| s.counts.done == 1).await;
    faults.go_away();
    for n in 0..5 {
        sent.push(("a".to_owned(), rig.send("a", &n.to_string()).await));
    }
    let snapshot = rig
        .until("tried where it is", |s| {
            s.counts.retried > 3 && s.counts.received == 6
        })
        .await;
    assert_eq!(
        (snapshot.counts.journaled, snapshot.counts.in_flight),
        (0, 5)
    );
    let state = snapshot.components.iter().find(|c| c.component == "state");
    assert_eq!(state.map(|c| c.reason.as_str()), Some("state_unavailable"));
    assert_eq!(inner.depth(QUEUE).await.unwrap().messages, 0);
    // Back, and at once again without answers: what is appended twice comes out in order all the same.
    faults.next([
        StoreMishap::Refused,
        StoreMishap::AnswerLost,
        StoreMishap::AnswerLost,
    ]);
    faults.come_back();
    rig.until("moved", |s| s.counts.journaled >= 5).await;
    healed.store(true, Ordering::SeqCst);
    sent.push(("a".to_owned(), rig.send("a", "last").await));
    let replies = all_replies(&rig, "t.outbound", &sent).await;
    until_empty(&inner, QUEUE).await;
    rig.at_rest().await;
    judge(&sent, &replies).require().unwrap();
    rig.until("it says so", |s| {
        let state = s.components.iter().find(|c| c.component == "state");
        state.is_some_and(|c| c.reason == "up")
    })
    .await;
}

/// A broker that keeps what it confirms needs a store that keeps it as well (R16).
#[tokio::test]
async fn a_volatile_store_takes_nothing_from_a_durable_broker() {
    let folder = tempfile::tempdir().unwrap();
    let broker =
        crate::broker::embedded::EmbeddedBroker::open(crate::broker::embedded::EmbeddedOptions {
            state: Some(folder.path().into()),
            ..Default::default()
        })
        .unwrap();
    let store = store();
    let setup = Setup {
        broker,
        ..with(&store, restless())
    };
    let rig = Rig::on(setup, |_, _| async { Err(temporary()) }).await;
    rig.send("a", "x").await;
    rig.until("set aside", |s| s.counts.parked == 1).await;
    let parked = crate::parking::list(&*rig.broker, QUEUE, 10).await.unwrap();
    assert_eq!(parked[0].code, crate::codes::RETRY_NO_STORE.name);
    let snapshot = rig.running().snapshot();
    let state = snapshot.components.iter().find(|c| c.component == "state");
    assert_eq!(state.map(|c| c.reason.as_str()), Some("state_not_durable"));
}

/// Attempts and age go on through the journal, and end a message as elsewhere.
#[tokio::test]
async fn retries_end_by_attempts_and_by_age_in_the_journal_too() {
    for (settings, code) in [
        (json!({"maxAttempts": 5}), crate::codes::RETRY_EXHAUSTED),
        (
            json!({"maxAttempts": 1000, "maxAge": "150ms"}),
            crate::codes::RETRY_EXPIRED,
        ),
    ] {
        let store = store();
        let attempts = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&attempts);
        let mut retry = settings.clone();
        retry["backoff"] = json!({"initial": "20ms", "max": "20ms"});
        let settings = json!({"holdLimit": "1ms", "retry": retry});
        let rig = Rig::on(with(&store, settings), move |i, _| {
            assert_eq!(i.attempt, counter.fetch_add(1, Ordering::SeqCst) + 1);
            async { Err(temporary()) }
        })
        .await;
        rig.send("a", "x").await;
        rig.until("set aside", |s| s.counts.parked == 1).await;
        let parked = crate::parking::list(&*rig.broker, QUEUE, 10).await.unwrap();
        assert_eq!(parked[0].code, code.name);
        assert_eq!(parked[0].attempts, attempts.load(Ordering::SeqCst));
        until_empty(&store, QUEUE).await;
        let counts = rig.at_rest().await;
        assert_eq!(counts.received, counts.replayed + 1);
    }
}

/// Without order every message is a lane of its own, and replicas share the journal: each message is handled once.
#[tokio::test]
async fn replicas_without_order_share_a_journal() {
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let mut settings = restless();
    settings["ordering"] = json!({"mode": "none"});
    let first = with(&store, settings.clone());
    let second = Setup {
        broker: Arc::clone(&first.broker),
        ..with(&store, settings)
    };
    let mut rigs = Vec::new();
    for setup in [first, second] {
        let flag = Arc::clone(&healed);
        let handler = move |i: crate::worker::Input, cx: Arc<crate::worker::WorkerContext>| {
            let ok = flag.load(Ordering::SeqCst);
            async move {
                match ok {
                    true => Ok(echo(&i, &cx)),
                    false => Err(temporary()),
                }
            }
        };
        rigs.push(Rig::on(setup, handler).await);
    }
    for n in 0..60 {
        rigs[0].send("a", &n.to_string()).await;
    }
    for rig in &rigs {
        rig.until("its share has left", |s| {
            s.counts.journaled >= 5 && s.counts.in_flight == 0
        })
        .await;
    }
    assert_eq!(store.depth(QUEUE).await.unwrap().lanes, 60);
    healed.store(true, Ordering::SeqCst);
    let replies = rigs[0].replies(60).await;
    let causes: BTreeSet<_> = replies.iter().map(|r| r.in_reply_to()).collect();
    assert_eq!(causes.len(), 60);
    until_empty(&store, QUEUE).await;
}

/// The fence is lost and comes back: claims of before are void, nothing is lost, order is kept.
#[tokio::test]
async fn a_lost_channel_in_the_midst_of_replays_keeps_order() {
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let rig = Rig::on(with(&store, restless()), move |i, cx| {
        let ok = flag.load(Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            match ok {
                true => Ok(echo(&i, &cx)),
                false => Err(temporary()),
            }
        }
    })
    .await;
    let mut sent = Vec::new();
    for n in 0..40 {
        for user in ["a", "b", "c"] {
            sent.push((user.to_owned(), rig.send(user, &n.to_string()).await));
        }
    }
    rig.until("all have left", |s| {
        s.counts.journaled >= 120 && s.counts.in_flight == 0
    })
    .await;
    healed.store(true, Ordering::SeqCst);
    for n in 0..5 {
        rig.until("some came back", |s| s.counts.done > 10 * n)
            .await;
        rig.running().rebuild_consumers();
        sent.push(("a".to_owned(), rig.send("a", "late").await));
    }
    let replies = all_replies(&rig, "t.outbound", &sent).await;
    until_empty(&store, QUEUE).await;
    rig.at_rest().await;
    judge(&sent, &replies).require().unwrap();
}

/// Messages that pass an idle journal ask the store nothing: its holder knows that it is empty, and looks now and then
/// whether that is still so.
#[tokio::test]
async fn an_empty_journal_costs_nothing() {
    let faults = StoreFaults::new(store(), None);
    let rig = Rig::on(
        with(&(Arc::clone(&faults) as _), restless()),
        |i, cx| async move { Ok(echo(&i, &cx)) },
    )
    .await;
    rig.send("a", "x").await;
    rig.until("done", |s| s.counts.done == 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = faults.operations();
    for n in 0..100 {
        rig.send(&format!("u{n}"), "x").await;
    }
    rig.until("done", |s| s.counts.done == 101).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let looks = faults.operations() - before;
    assert!(looks < 10, "{looks}");
    assert!(before < 20, "{before}");
}

async fn either(one: &CancellationToken, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other => {}
    }
}

/// That our credentials are refused is no message's fault: all wait, in order, however many attempts that takes.
#[tokio::test]
async fn refused_credentials_hold_messages_and_end_none() {
    let store = store();
    let corrected = Arc::new(AtomicBool::new(false));
    let (flag, refused) = (Arc::clone(&corrected), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&refused);
    let mut settings = restless();
    settings["retry"]["maxAttempts"] = json!(3);
    let rig = Rig::on(with(&store, settings), move |i, cx| {
        let ok = flag.load(Ordering::SeqCst);
        if !ok {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        async move {
            match ok {
                true => Ok(echo(&i, &cx)),
                false => {
                    let (class, code) = (
                        crate::error::ErrorClass::Auth,
                        crate::codes::PEER_CREDENTIALS,
                    );
                    Err(crate::error::WorkError::new(class, code, "who are you?"))
                }
            }
        }
    })
    .await;
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(("a".to_owned(), rig.send("a", &n.to_string()).await));
    }
    rig.until("all have left, and one was tried again and again", |s| {
        s.counts.journaled >= 5 && refused.load(Ordering::SeqCst) > 12
    })
    .await;
    assert_eq!(rig.running().snapshot().counts.parked, 0);
    corrected.store(true, Ordering::SeqCst);
    let replies = all_replies(&rig, "t.outbound", &sent).await;
    judge(&sent, &replies).require().unwrap();
    until_empty(&store, QUEUE).await;
    rig.at_rest().await;
}
