//! Replies whose only copy is with the replica that holds their session: `one`.

use super::*;
use crate::broker::{Access, Subscribe, Subscription};
use crate::engine::forwarded::Replies;
use crate::engine::sending::keeper::Round;
use crate::holding::HOLDER;

const ONE: &str = "t.reply.one";
const TWO: &str = "t.reply.two";
/// After so long without news everybody asks whether a holder is there.
const LONG: Duration = patience::FORWARDED
    .saturating_add(alive::HOLD)
    .saturating_add(Duration::from_secs(1));

fn reply() -> UserMessage {
    let mut reply = message();
    reply.set_field("in_reply_to", Some("request"));
    let metadata = reply.transport_metadata_mut();
    metadata.insert(HOLDER.into(), ONE.into());
    reply
}

/// The holder reads its reply queue.
async fn reads(bench: &Bench) -> Subscription {
    let subscribe = Subscribe {
        queue: QueueSpec::Reply(ONE.into()),
        prefetch: 10,
        access: Access::Shared,
        tag: "one".into(),
    };
    bench.broker.subscribe(subscribe).await
}

/// The other replica hands a reply on.
async fn hands_on(bench: &mut Bench) -> UserMessage {
    bench.reply_queue = Some(TWO);
    let reply = reply();
    let done = bench.deliver(&reply, false, Life::until(0), 0, 0).await;
    assert_eq!(done, Some(Verdict::Done));
    let row = bench.row(&reply).await;
    let held = (RowState::Queued, Some(ONE));
    assert_eq!((row.state, row.holder.as_deref()), held);
    reply
}

async fn is_told_that_its_holder_is_gone(bench: &Bench, reply: &UserMessage) {
    let row = bench.row(reply).await;
    assert_eq!((row.state, row.holder), (RowState::Failed, None));
    let last = row.steps.last().unwrap();
    assert_eq!(last.code, codes::HOLDER_GONE.name);
    let events = bench.events().await;
    let told = |event: &&Event| event.user_message_id() == reply.message_id();
    assert_eq!(events.iter().filter(told).count(), 1);
}

#[test]
fn what_waits_with_a_living_holder_is_not_ended_and_is_told_soon_when_that_is_gone() {
    in_simulated_time(async {
        let store = simulated_store();
        let mut bench = Bench::new(&store, json!({}), false);
        let one = reads(&bench).await;
        let reply = hands_on(&mut bench).await;
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        for _ in 0..5 {
            tokio::time::sleep(LONG).await;
            let overdue = keeper.look(book, &mut round, &|| false).await;
            assert_eq!(overdue.unwrap(), 0);
            let row = bench.row(&reply).await;
            assert_eq!(row.state, RowState::Queued);
            assert!(row.deadline > Some(book::now()), "it has more time");
        }
        assert!(bench.events().await.is_empty());
        one.acker.close();
        tokio::time::sleep(LONG).await;
        let overdue = keeper.look(book, &mut round, &|| false).await;
        assert_eq!(overdue.unwrap(), 0);
        is_told_that_its_holder_is_gone(&bench, &reply).await;
    });
}

#[test]
fn a_holder_gives_time_to_what_it_has_in_hand_and_ends_what_never_came() {
    in_simulated_time(async {
        let store = simulated_store();
        let mut bench = Bench::new(&store, json!({}), false);
        let mut one = reads(&bench).await;
        let kept = hands_on(&mut bench).await;
        let lost = hands_on(&mut bench).await;
        bench.reply_queue = Some(ONE);
        let mut keeper = bench.keeper();
        let outlet = Arc::clone(&keeper.sending.outlet);
        let replies = Replies::new(ONE.into(), Default::default(), outlet);
        replies.read_by(Arc::clone(&one.acker));
        keeper.replies = Some(Arc::clone(&replies));
        // One of them is in hand, and the other one went to a process that is no more.
        let mut in_hand = Vec::new();
        for _ in 0..2 {
            let raw = one.deliveries.recv().await.unwrap();
            let id = UserMessage::decode(&raw.body).unwrap();
            if id.message_id() == kept.message_id() {
                in_hand.push(replies.arrives(Lane::Free, kept.message_id().to_owned()));
            }
        }
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        for look in 0..4 {
            tokio::time::sleep(patience::FORWARDED + Duration::from_millis(10)).await;
            let overdue = keeper.look(book, &mut round, &|| false).await;
            assert_eq!(overdue.unwrap(), 0);
            while let Ok(raw) = one.deliveries.try_recv() {
                assert!(replies.is_mark(&raw), "nothing else comes");
            }
            assert_eq!(bench.row(&kept).await.state, RowState::Queued);
            let ended = bench.row(&lost).await.state == RowState::Failed;
            assert_eq!(ended, look > 0, "once a mark has come: {look}");
        }
        is_told_that_its_holder_is_gone(&bench, &lost).await;
        drop(in_hand);
        tokio::time::sleep(patience::FORWARDED + Duration::from_millis(10)).await;
        keeper.look(book, &mut round, &|| false).await.unwrap();
        is_told_that_its_holder_is_gone(&bench, &kept).await;
    });
}

#[test]
fn a_reply_that_waits_for_its_next_attempt_dies_with_its_holder_and_its_sender_is_told() {
    in_simulated_time(async {
        let store = simulated_store();
        let retry = json!({"maxAttempts": 4, "backoff": {"initial": "20s", "max": "20s"}});
        let mut bench = Bench::new(&store, json!({"retry": retry}), false);
        let one = reads(&bench).await;
        bench.reply_queue = Some(ONE);
        bench.peer.answers.lock().unwrap().push(Answer::Busy);
        let life = Life::until(0);
        let worker = bench.transport(&life);
        let (_, mut desk) = bench.desk(&life, Some(Arc::clone(&store)), worker);
        desk.lasting = false;
        let reply = reply();
        let attempt = tokio::spawn(Arc::new(desk).work(delivery(&reply, false)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let row = bench.row(&reply).await;
        let waits = (RowState::Queued, Some(ONE), 1);
        assert_eq!((row.state, row.holder.as_deref(), row.attempt), waits);
        bench.reply_queue = Some(TWO);
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        tokio::time::sleep(LONG).await;
        let overdue = keeper.look(book, &mut round, &|| false).await;
        assert_eq!(overdue.unwrap(), 0);
        assert_eq!(bench.row(&reply).await.state, RowState::Queued);
        assert!(!attempt.is_finished(), "it waits for its next attempt");
        attempt.abort();
        one.acker.close();
        tokio::time::sleep(LONG).await;
        let overdue = keeper.look(book, &mut round, &|| false).await;
        assert_eq!(overdue.unwrap(), 0);
        is_told_that_its_holder_is_gone(&bench, &reply).await;
        assert_eq!(bench.peer.attempts.load(Ordering::SeqCst), 1);
    });
}

/// It would fill the window of its holder, where nothing can leave it.
#[test]
fn what_was_handed_on_before_a_pause_is_sent_by_its_holder() {
    in_simulated_time(async {
        let store = simulated_store();
        let mut bench = Bench::new(&store, json!({}), false);
        bench.reply_queue = Some(ONE);
        let pause = Order::Pause;
        store.set_order("t", "spring", Some(&pause)).await.unwrap();
        for (lasting, sent) in [(true, 0), (false, 1)] {
            let life = Life::until(0);
            let worker = bench.transport(&life);
            let (_, mut desk) = bench.desk(&life, Some(Arc::clone(&store)), worker);
            desk.lasting = lasting;
            let mut reply = reply();
            let labels = reply.helper_metadata_mut();
            labels.insert("batch".into(), "spring".into());
            let work = Arc::new(desk).work(delivery(&reply, false));
            let done = tokio::time::timeout(Duration::from_secs(60), work).await;
            assert_eq!(done.is_ok(), !lasting, "the others wait for its end");
            assert_eq!(bench.peer.took.load(Ordering::SeqCst), sent);
        }
    });
}
