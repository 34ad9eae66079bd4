//! Heads that a dead replica had claimed, and what somebody appends who has lost the fence.

use super::super::store::Access;
use super::super::{Event, Exit, Gauges, LaneJournal, Parts, REPLAYS, Receipt, millis};
use super::*;
use crate::codes;
use crate::engine::lanes::Lane;
use crate::engine::store_watch::Trouble;
use crate::parking;
use crate::state::journal::{About, Append, Due, Entry, Lane as Place};
use crate::telemetry::QueueMetrics;
use tokio::time::Instant;

fn message(text: &str) -> UserMessage {
    let mut message = UserMessage::new("sms", Some("555"), Some("a"));
    message.set_transport_name("t");
    message.set_content(Some(text));
    message
}

/// A message in a lane, due now.
fn waits(number: u64, message: &UserMessage) -> Append {
    let about = About {
        reason: Reason::Backoff,
        since: millis(crate::clock::now()),
        attempts: 1,
        counted: 1,
        code: String::new(),
        text: String::new(),
        routing_key: QUEUE.into(),
        amqp_message_id: None,
    };
    Append {
        lane: Place {
            group: String::new(),
            number,
        },
        due: Due::After(Duration::ZERO),
        entry: Entry {
            about,
            body: message.encode(),
        },
    }
}

/// Without order, what a dead replica had claimed is suspect whenever its turn comes, and nothing else is.
#[tokio::test]
async fn without_order_what_a_dead_replica_had_claimed_is_suspect() {
    const OTHERS: u64 = 2 * REPLAYS as u64;
    let store = store();
    let killer = message("killer");
    let first = vec![waits(0, &killer)];
    store.append(QUEUE, first).await.unwrap();
    // The last of the replicas that died of it; the others are due before its claim ends.
    let lease = Duration::from_millis(500);
    let had = store.claim(QUEUE, "", 1, lease).await.unwrap();
    assert_eq!(had.len(), 1);
    let others: Vec<UserMessage> = (0..OTHERS).map(|n| message(&n.to_string())).collect();
    let appends = (1..).zip(&others).map(|(n, one)| waits(n, one)).collect();
    store.append(QUEUE, appends).await.unwrap();
    for one in others.iter().chain([&killer]) {
        for life in [1, 2] {
            let keep = Duration::from_secs(3600);
            let begun = store.suspect(QUEUE, one.message_id(), life, keep).await;
            begun.unwrap();
        }
    }
    let mut settings = restless();
    settings["ordering"] = json!({"mode": "none"});
    let rig = Rig::on(
        with(&store, settings),
        |i, cx| async move { Ok(echo(&i, &cx)) },
    )
    .await;
    rig.until("all but one are handled", |s| {
        (s.counts.done, s.counts.parked) == (OTHERS, 1)
    })
    .await;
    let parked = parking::list(&*rig.broker, QUEUE, 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BUG_CRASH_LOOP.name);
    assert_eq!(parked[0].message_id.as_deref(), Some(killer.message_id()));
    until_empty(&store, QUEUE).await;
}

/// A journal of a fenced queue, as a consumer has it, which holds the fence.
async fn fenced(store: &Arc<dyn StateStore>) -> LaneJournal {
    fenced_and_counted(store, metrics()).await
}

fn metrics() -> QueueMetrics {
    let metrics = crate::telemetry::Telemetry::new();
    metrics.worker("application/t").queue(QUEUE)
}

async fn fenced_and_counted(store: &Arc<dyn StateStore>, metrics: QueueMetrics) -> LaneJournal {
    let parts = Parts {
        store: Arc::clone(store),
        volatile_will_do: true,
        fenced: true,
        imports: None,
        trouble: Trouble::default(),
        gauges: Arc::new(Gauges::new(metrics)),
    };
    let mut journal = LaneJournal::new(parts, QUEUE.into(), CancellationToken::new());
    journal.consumer_state(true);
    while !journal.is_open() {
        journal.turn(Instant::now(), false);
        journal.event().await;
    }
    journal
}

/// Another replica counts what is kept from then on, and their sum is to be right.
#[tokio::test]
async fn whoever_loses_the_fence_says_of_nothing_that_it_is_kept() {
    let (store, metrics) = (store(), metrics());
    let messages = vec![waits(1, &message("x"))];
    store.append(QUEUE, messages).await.unwrap();
    let mut journal = fenced_and_counted(&store, metrics.clone()).await;
    let moment = Duration::from_millis(100);
    let counted = async {
        while metrics.journal_messages.get() == 0 {
            journal.tick(Instant::now());
            let _ = tokio::time::timeout(moment, journal.event()).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(20), counted).await;
    counted.expect("it is counted");
    // Another count is under way when the fence is lost.
    journal.depth_at = Instant::now();
    journal.tick(Instant::now());
    journal.consumer_state(false);
    assert_eq!(metrics.journal_messages.get(), 0);
    let _ = tokio::time::timeout(3 * moment, journal.event()).await;
    assert_eq!(metrics.journal_messages.get(), 0, "it came too late");
}

/// What had its verdict while the fence was ours, and is not in the store yet when it is lost, stays out of it: whoever
/// has the fence now has read already what is there.
#[tokio::test]
async fn what_is_parting_when_the_fence_is_lost_is_not_appended() {
    let store = store();
    let mut journal = fenced(&store).await;
    let Append { due, entry, .. } = waits(1, &message("x"));
    let receipt = Receipt::Delivery {
        tag: 1,
        generation: 1,
        body: entry.body.clone(),
        message_id: None,
    };
    journal.append(Lane::Numbered(1), "x", entry, due, receipt);
    journal.consumer_state(false);
    journal.turn(Instant::now(), false);
    let _ = tokio::time::timeout(Duration::from_millis(300), journal.event()).await;
    assert_eq!(store.depth(QUEUE).await.unwrap().messages, 0);
    assert!(!journal.is_quiet(), "it waits here");
    // It was another's for nothing: the delivery is still ours.
    journal.consumer_state(true);
    let appended = async {
        loop {
            journal.turn(Instant::now(), false);
            if let Event::Appended(receipts) = journal.event().await {
                return receipts.len();
            }
        }
    };
    let appended = tokio::time::timeout(Duration::from_secs(20), appended).await;
    assert_eq!(appended.unwrap(), 1);
    assert_eq!(store.depth(QUEUE).await.unwrap().messages, 1);
}

/// Whoever is frozen on the way into the store, and learns then that the fence is lost, appends nothing.
#[tokio::test]
async fn nothing_is_appended_once_its_term_is_over() {
    let store = store();
    let access = Access {
        queue: QUEUE.into(),
        exit: Arc::new(Exit::new(Arc::clone(&store), true, 1)),
        trouble: Trouble::default(),
        halt: CancellationToken::new(),
    };
    let term = access.exit.term();
    access.exit.next_term();
    for (term, appended) in [(term, false), (term + 1, true)] {
        let messages = vec![waits(1, &message("x"))];
        assert_eq!(access.append(Some(term), messages).await, appended);
        let depth = store.depth(QUEUE).await.unwrap();
        assert_eq!(depth.messages, u64::from(appended));
    }
}

/// Whoever does not learn it in time appends all the same: the holder finds that, though it knew of nothing.
#[tokio::test]
async fn what_a_superseded_holder_appended_is_found() {
    let store = store();
    let rig = Rig::on(with(&store, restless()), |i, cx| async move {
        Ok(echo(&i, &cx))
    })
    .await;
    rig.send("b", "x").await;
    rig.until("it reads", |s| s.counts.done == 1).await;
    let late = vec![waits(1, &message("late"))];
    store.append(QUEUE, late).await.unwrap();
    rig.until("found", |s| s.counts.done == 2).await;
    until_empty(&store, QUEUE).await;
}

/// It is set aside, where a person finds it, and everything behind and beside it is handled.
#[tokio::test]
async fn an_entry_that_cannot_be_read_is_set_aside_and_the_others_are_handled() {
    let embedded = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let store: Arc<dyn StateStore> = embedded.clone();
    let bodies = ["first", "damaged", "behind it", "beside it"];
    let messages = bodies.map(message);
    let lanes = [1, 1, 1, 2].into_iter();
    let appends = lanes.zip(&messages).map(|(n, one)| waits(n, one)).collect();
    store.append(QUEUE, appends).await.unwrap();
    let listed = store.list(QUEUE, &Filter::default(), 10).await.unwrap();
    let damaged = &listed[1];
    embedded.spoil_entry(QUEUE, &damaged.lane, damaged.id).await;
    let rig = Rig::on(with(&store, restless()), |i, cx| async move {
        Ok(echo(&i, &cx))
    })
    .await;
    rig.until("all but one are handled", |s| {
        (s.counts.done, s.counts.parked) == (3, 1)
    })
    .await;
    let parked = parking::list(&*rig.broker, QUEUE, 10).await.unwrap();
    assert_eq!(parked[0].code, codes::STATE_UNREADABLE.name);
    until_empty(&store, QUEUE).await;
}
