//! A message that is there twice: with another replica that is sending it, and with another transport.

use super::*;
use crate::conformance::store_faults::StoreFaults;
use crate::holding::HOLDER;
use tokio::sync::Semaphore;

/// A peer whose answers wait until they are let out.
struct Slow {
    inner: Arc<dyn Worker>,
    begun: Semaphore,
    answers: Semaphore,
}

#[async_trait]
impl Worker for Slow {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let outputs = self.inner.handle(input).await;
        self.begun.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        outputs
    }
}

/// A replica with a slow peer.
fn slow(bench: &Bench, life: &Arc<Life>) -> (Arc<Slow>, Arc<Sending>, Arc<Desk>) {
    let inner = bench.transport(life);
    let slow = Arc::new(Slow {
        inner,
        begun: Semaphore::new(0),
        answers: Semaphore::new(0),
    });
    let worker: Arc<dyn Worker> = Arc::clone(&slow) as _;
    let (sending, desk) = bench.desk(life, Some(Arc::clone(&bench.store)), worker);
    (slow, sending, Arc::new(desk))
}

/// A replica that is sending a message to a slow peer, for as long as the test wants.
async fn under_way(
    bench: &Bench,
    message: &UserMessage,
) -> (Arc<Slow>, tokio::task::JoinHandle<Verdict>, Arc<Sending>) {
    let (slow, sending, desk) = slow(bench, &Life::until(0));
    let delivery = delivery(message, false);
    let work = tokio::spawn(async move { desk.work(delivery).await.verdict });
    slow.begun.acquire().await.unwrap().forget();
    assert_eq!(bench.row(message).await.state, RowState::Sending);
    (slow, work, sending)
}

#[test]
fn a_copy_of_what_another_replica_is_sending_waits_for_the_outcome() {
    in_simulated_time(async {
        for policy in ["fail", "retry"] {
            for redelivered in [false, true] {
                let store = simulated_store();
                let bench = Bench::new(&store, json!({"onUnknown": {"policy": policy}}), false);
                let (twice, other) = (message(), message());
                let (slow, first, sender) = under_way(&bench, &twice).await;
                let lives = tokio::spawn(async move { sender.live().await });
                let (sending, desk) = bench.process(&Life::until(0), 0, 0);
                let copy = tokio::spawn(Arc::clone(&desk).work(delivery(&twice, redelivered)));
                // Long after a replica that died would have been missed.
                tokio::time::sleep(Duration::from_secs(60)).await;
                let neighbour = Arc::clone(&desk).work(delivery(&other, false)).await;
                assert_eq!(neighbour.verdict, Verdict::Done, "other lanes go on");
                assert!(!copy.is_finished(), "it waits");
                // Nor does a look-out whose clock was stepped take it for lost.
                let (book, row) = (sending.book.as_ref().unwrap(), bench.row(&twice).await);
                assert!(!sending.end_wait(book, row, &|| false).await.unwrap());
                slow.answers.add_permits(1);
                assert_eq!(first.await.unwrap(), Verdict::Done);
                assert_eq!(copy.await.unwrap().verdict, Verdict::Done);
                lives.abort();
                assert_eq!(bench.row(&twice).await.state, RowState::SentFinal);
                assert_eq!(bench.peer.took.load(Ordering::SeqCst), 2, "one each");
                assert_eq!(sending.metrics.resent.get(), 0);
                let events = distinct(&bench.events().await);
                assert_eq!(events.len(), 2);
                assert!(events.iter().all(|e| e.event_type() == EventType::Ack));
            }
        }
    });
}

/// A message that may have killed a process and only waits is not counted meanwhile, and holds up no other.
#[tokio::test]
async fn a_copy_that_waits_for_another_replica_holds_up_no_other_suspect() {
    let store = store();
    let bench = Bench::new(&store, json!({"onUnknown": {"policy": "fail"}}), false);
    let (twice, other) = (message(), message());
    let (slow, first, sender) = under_way(&bench, &twice).await;
    let lives = tokio::spawn(async move { sender.live().await });
    let worker = bench.transport(&Life::until(0));
    let (_, mut desk) = bench.desk(&Life::until(0), Some(Arc::clone(&store)), worker);
    let keep = vumi_api::shared::Retention::SUSPECTS;
    desk.trial = Some(Trial::new(Arc::clone(&store), "t.outbound", keep, 1));
    let desk = Arc::new(desk);
    let copy = tokio::spawn(Arc::clone(&desk).work(delivery(&twice, true)));
    // It is begun first, and waits.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let neighbour = Arc::clone(&desk).work(delivery(&other, true));
    let neighbour = tokio::time::timeout(Duration::from_secs(30), neighbour).await;
    assert_eq!(neighbour.unwrap().verdict, Verdict::Done);
    assert!(!copy.is_finished(), "it waits");
    // If its process ended now, that would not be its doing.
    let lives_before = store.suspect("t.outbound", twice.message_id(), 2, keep);
    assert_eq!(lives_before.await.unwrap(), 1, "that one alone");
    slow.answers.add_permits(1);
    assert_eq!(first.await.unwrap(), Verdict::Done);
    assert_eq!(copy.await.unwrap().verdict, Verdict::Done);
    lives.abort();
}

#[test]
fn nobody_is_taken_for_dead_because_the_store_was_away() {
    in_simulated_time(async {
        let away = StoreFaults::new(simulated_store(), None);
        let store: Arc<dyn StateStore> = Arc::<StoreFaults>::clone(&away);
        let bench = Bench::new(&store, json!({"onUnknown": {"policy": "retry"}}), false);
        let message = message();
        let (slow, first, sender) = under_way(&bench, &message).await;
        let lives = tokio::spawn(async move { sender.live().await });
        let (_, desk) = bench.process(&Life::until(0), 0, 0);
        let copy = tokio::spawn(desk.work(delivery(&message, true)));
        for _ in 0..4 {
            tokio::time::sleep(alive::HOLD * 2).await;
            away.go_away();
            // Longer than any sign is good for.
            tokio::time::sleep(alive::HOLD * 3).await;
            away.come_back();
            tokio::time::sleep(alive::HOLD * 2).await;
            assert!(!copy.is_finished(), "it waits");
        }
        slow.answers.add_permits(1);
        assert_eq!(first.await.unwrap(), Verdict::Done);
        assert_eq!(copy.await.unwrap().verdict, Verdict::Done);
        lives.abort();
        assert_eq!(bench.peer.took.load(Ordering::SeqCst), 1, "sent once");
        assert_eq!(bench.row(&message).await.state, RowState::SentFinal);
    });
}

#[test]
fn what_a_dead_replica_was_sending_is_lost_soon_and_what_a_live_one_never_ends_at_the_deadline() {
    in_simulated_time(async {
        for dead in [true, false] {
            let store = simulated_store();
            let bench = Bench::new(&store, json!({"onUnknown": {"policy": "fail"}}), false);
            let message = message();
            let (_slow, first, sender) = under_way(&bench, &message).await;
            let lives = match dead {
                true => {
                    first.abort();
                    None
                }
                false => Some(tokio::spawn(async move { sender.live().await })),
            };
            let began = Instant::now();
            let verdict = bench.deliver(&message, true, Life::until(0), 0, 0).await;
            assert_eq!(verdict, Some(Verdict::Done));
            let (most, least) = match dead {
                true => (alive::HOLD * 2, Duration::ZERO),
                false => (patience::SENDING * 2, patience::SENDING / 2),
            };
            let waited = began.elapsed();
            assert!((least..most).contains(&waited), "{waited:?}");
            let row = bench.row(&message).await;
            assert_eq!(row.state, RowState::Failed);
            let fate = bench.events().await[0].fate().unwrap();
            assert_eq!(fate.code, codes::FATE_UNKNOWN.name);
            lives.inspect(tokio::task::JoinHandle::abort);
        }
    });
}

/// A process and the one before it in its container have one name, host and process number.
#[test]
fn a_process_with_the_name_of_a_dead_one_gives_no_signs_of_life_for_it() {
    in_simulated_time(async {
        let store = simulated_store();
        let mut bench = Bench::new(&store, json!({"onUnknown": {"policy": "fail"}}), false);
        bench.replica = Some("pod-1");
        let (lost, other) = (message(), message());
        let (_slow, first, _) = under_way(&bench, &lost).await;
        first.abort();
        let (_slow, _second, again) = under_way(&bench, &other).await;
        let lives = tokio::spawn(async move { again.live().await });
        bench.replica = Some("pod-2");
        let began = Instant::now();
        let verdict = bench.deliver(&lost, true, Life::until(0), 0, 0).await;
        assert_eq!(verdict, Some(Verdict::Done));
        let waited = began.elapsed();
        assert!(waited < alive::HOLD * 2, "{waited:?}");
        assert_eq!(bench.row(&lost).await.state, RowState::Failed);
        assert_eq!(bench.row(&other).await.state, RowState::Sending);
        lives.abort();
    });
}

/// A message of a session that one of two replicas holds: it reads it itself, and ends or loses its connection to the
/// broker while it sends; the other one reads it next.
#[test]
fn a_reply_that_its_holder_was_sending_waits_for_a_living_one_and_not_long_for_a_dead_one() {
    in_simulated_time(async {
        for (policy, receipts) in [("fail", false), ("wait", true)] {
            for dead in [true, false] {
                let store = simulated_store();
                let settings = json!({"onUnknown": {"policy": policy}});
                let mut bench = Bench::new(&store, settings, receipts);
                bench.reply_queue = Some("t.reply.one");
                let mut reply = message();
                reply.set_field("in_reply_to", Some("request"));
                let metadata = reply.transport_metadata_mut();
                metadata.insert(HOLDER.into(), "t.reply.one".into());
                let (slow, first, sender) = under_way(&bench, &reply).await;
                // Its queue is as gone as that of one that is dead.
                bench.reply_queue = Some("t.reply.two");
                let (_, desk) = bench.process(&Life::until(0), 0, 0);
                let copy = tokio::spawn(desk.work(delivery(&reply, true)));
                if dead {
                    first.abort();
                    tokio::time::sleep(alive::HOLD * 2).await;
                    assert!(copy.is_finished(), "its user's next messages go on");
                } else {
                    let lives = tokio::spawn(async move { sender.live().await });
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    assert!(!copy.is_finished(), "it waits");
                    slow.answers.add_permits(1);
                    assert_eq!(first.await.unwrap(), Verdict::Done);
                    lives.abort();
                }
                assert_eq!(copy.await.unwrap().verdict, Verdict::Done);
                assert_eq!(bench.peer.took.load(Ordering::SeqCst), 1, "sent once");
                let state = bench.row(&reply).await.state;
                let events = distinct(&bench.events().await);
                assert_eq!(events.len(), 1, "{events:?}");
                let code = events[0].fate().map(|fate| fate.code);
                let ended = match (dead, receipts) {
                    (true, false) => RowState::Failed,
                    (true, true) => RowState::Unknown,
                    (false, false) => RowState::SentFinal,
                    (false, true) => RowState::Sent,
                };
                assert_eq!(state, ended);
                let unknown = codes::FATE_UNKNOWN.name;
                assert_eq!(code.as_deref() == Some(unknown), dead, "{code:?}");
            }
        }
    });
}

/// What another replica forwarded is in a queue that dies with the holder: nothing brings it back.
#[test]
fn what_a_holder_was_sending_when_it_died_is_told_soon_and_a_living_one_gets_more_time() {
    in_simulated_time(async {
        for (receipts, ended) in [(false, RowState::Failed), (true, RowState::Unknown)] {
            let store = simulated_store();
            let bench = Bench::new(&store, json!({}), receipts);
            let message = message();
            let (slow, sender, desk) = slow(&bench, &Life::until(0));
            let mut desk = Arc::into_inner(desk).unwrap();
            desk.lasting = false;
            let first = tokio::spawn(Arc::new(desk).work(delivery(&message, false)));
            slow.begun.acquire().await.unwrap().forget();
            let lives = tokio::spawn(async move { sender.live().await });
            let (sending, _) = bench.process(&Life::until(0), 0, 0);
            let book = sending.book.as_ref().unwrap();
            for _ in 0..3 {
                tokio::time::sleep(patience::FORWARDED).await;
                let row = bench.row(&message).await;
                let before = row.deadline;
                assert!(sending.end_wait(book, row, &|| false).await.unwrap());
                let row = bench.row(&message).await;
                assert_eq!(row.state, RowState::Sending);
                assert!(row.deadline > before, "it gets more time");
            }
            lives.abort();
            first.abort();
            tokio::time::sleep(alive::HOLD * 2).await;
            let row = bench.row(&message).await;
            assert!(row.deadline <= Some(book::now()), "overdue by now");
            assert!(sending.end_wait(book, row, &|| false).await.unwrap());
            assert_eq!(bench.row(&message).await.state, ended);
            let events = bench.events().await;
            assert_eq!(verdicts(&events), usize::from(!receipts));
            assert_eq!(events[0].fate().unwrap().code, codes::FATE_UNKNOWN.name);
        }
    });
}

/// The same, until the deadline for its receipt is over.
#[test]
fn what_a_holder_was_sending_when_it_died_is_sent_again_or_kept_as_the_manifest_says() {
    in_simulated_time(async {
        for (content, then) in ["none", "failed", "all"]
            .into_iter()
            .flat_map(|content| [(content, "retry"), (content, "fail")])
        {
            let store = simulated_store();
            let wait = json!({"policy": "wait", "deadline": "1h", "then": then});
            let more = json!({"onUnknown": wait, "retention": {"content": content}});
            let mut bench = Bench::new(&store, more, true);
            let outbound = QueueSpec::Data("t.outbound".into());
            bench.broker.declare(&outbound).await.unwrap();
            bench.reply_queue = Some("t.reply.one");
            let message = message();
            let (slow, _, desk) = slow(&bench, &Life::until(0));
            let mut desk = Arc::into_inner(desk).unwrap();
            desk.lasting = false;
            let first = tokio::spawn(Arc::new(desk).work(delivery(&message, false)));
            slow.begun.acquire().await.unwrap().forget();
            let about = format!("content {content}, then {then}");
            let is_kept = content != "none" || then == "retry";
            let row = bench.row(&message).await;
            assert_eq!(
                (row.state, row.body.is_some()),
                (RowState::Sending, is_kept),
                "{about}"
            );
            first.abort();
            tokio::time::sleep(alive::HOLD * 2).await;
            let (sending, _) = bench.process(&Life::until(0), 0, 0);
            let book = sending.book.as_ref().unwrap();
            let row = bench.row(&message).await;
            assert!(sending.end_wait(book, row, &|| false).await.unwrap());
            let row = bench.row(&message).await;
            assert_eq!(
                (row.state, row.body.is_some()),
                (RowState::Unknown, is_kept),
                "{about}"
            );
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert!(sending.end_wait(book, row, &|| false).await.unwrap());
            let row = bench.row(&message).await;
            let waits = bench.read("t.outbound").await;
            if then == "retry" {
                assert_eq!((row.state, row.body), (RowState::Queued, None), "{about}");
                assert_eq!(waits, [message.encode()], "{about}");
            } else {
                assert_eq!(
                    (row.state, row.body.is_some()),
                    (RowState::Failed, is_kept),
                    "{about}"
                );
                assert!(waits.is_empty(), "{about}");
            }
        }
    });
}

/// A replica that was frozen gets the answer of its peer when another one, which had the copy, waits for a receipt: nothing
/// brings the message back if what it decides is not told.
#[tokio::test]
async fn an_answer_after_another_replica_gave_up_waiting_is_told_although_its_process_ends() {
    let begun = futures::future::join_all(
        (1..8).flat_map(|dies| [true, false].map(|receipt| answered_late_and_dead(dies, receipt))),
    );
    let begun = begun.await.into_iter().filter(|begun| *begun).count();
    assert_eq!(
        begun, 10,
        "those that die at the first two steps have not sent"
    );
}

/// False if the first replica dies before it has sent.
async fn answered_late_and_dead(dies: u32, by_receipt: bool) -> bool {
    let (store, life, never) = (store(), Life::until(dies), || false);
    let bench = Bench::new(&store, json!({"onUnknown": {"policy": "wait"}}), true);
    let message = message();
    let (slow, _, desk) = slow(&bench, &life);
    let first = tokio::spawn(desk.work(delivery(&message, false)));
    tokio::select! {
        begun = slow.begun.acquire() => begun.unwrap().forget(),
        () = life.ended.notified() => return false,
    }
    let (sending, desk) = bench.process(&Life::until(0), 0, 0);
    let copy = desk.work(delivery(&message, true)).await;
    assert_eq!(copy.verdict, Verdict::Done);
    assert_eq!(bench.row(&message).await.state, RowState::Unknown);
    slow.answers.add_permits(1);
    tokio::select! {
        _ = first => {}
        () = life.ended.notified() => {}
    }
    if by_receipt {
        let receipt = Receipt {
            message_id: Some(message.message_id().into()),
            remote_id: None,
            outcome: ReceiptOutcome::Delivered,
        };
        sending.receipt(receipt, &never).await.unwrap();
        assert_eq!(bench.row(&message).await.state, RowState::Delivered);
    } else {
        let (book, row) = (sending.book.as_ref().unwrap(), bench.row(&message).await);
        sending.end_wait(book, row, &never).await.unwrap();
    }
    let events = distinct(&bench.events().await);
    assert_eq!(verdicts(&events), 1, "it dies at {dies}: {events:?}");
    true
}

#[test]
fn what_another_transport_ended_is_told_again_and_not_sent_again() {
    in_simulated_time(async {
        let store = simulated_store();
        for (answer, receipts) in [
            (Answer::Ack, false),
            (Answer::Ack, true),
            (Answer::Nack, false),
        ] {
            for redelivered in [false, true] {
                let other = Bench::named("other", &store, json!({}), receipts);
                other.peer.answers.lock().unwrap().push(answer);
                let message = message();
                let sent = other.deliver(&message, false, Life::until(0), 0, 0).await;
                assert_eq!(sent, Some(Verdict::Done));
                let before = other.row(&message).await;
                let bench = Bench::new(&store, json!({}), false);
                let again = bench
                    .deliver(&message, redelivered, Life::until(0), 0, 0)
                    .await;
                assert_eq!(again, Some(Verdict::Done));
                assert_eq!(bench.peer.attempts.load(Ordering::SeqCst), 0, "not sent");
                assert_eq!(bench.row(&message).await, before, "its row stays");
                let (first, second) = (other.events().await, bench.events().await);
                assert_eq!(first[0].encode(), second[0].encode(), "byte for byte");
            }
        }
    });
}

#[test]
fn what_another_transport_has_not_begun_is_taken_over_with_its_history() {
    in_simulated_time(async {
        let store = simulated_store();
        let other = Bench::named("other", &store, json!({}), false);
        let message = message();
        let (sending, _) = other.process(&Life::until(0), 0, 0);
        sending.taken_over(&message, &|| false).await.unwrap();
        let waiting = other.row(&message).await;
        let bench = Bench::new(&store, json!({}), false);
        let sent = bench.deliver(&message, false, Life::until(0), 0, 0).await;
        assert_eq!(sent, Some(Verdict::Done));
        let row = bench.row(&message).await;
        assert_eq!(
            (row.account.as_str(), row.state),
            ("t", RowState::SentFinal)
        );
        assert_eq!(row.steps[0], waiting.steps[0]);
        // The copy that the other one has is no second message.
        let late = other.deliver(&message, true, Life::until(0), 0, 0).await;
        assert_eq!(late, Some(Verdict::Done));
        assert_eq!(other.peer.attempts.load(Ordering::SeqCst), 0);
        assert_eq!(other.row(&message).await, row);
    });
}

#[test]
fn what_another_transport_set_aside_is_sent_by_a_person_only_and_counted_if_it_may_be_a_second_copy()
 {
    in_simulated_time(async {
        let store = simulated_store();
        let other = Bench::named("other", &store, json!({}), false);
        other.peer.answers.lock().unwrap().push(Answer::Panic);
        let message = message();
        let parked = other.deliver(&message, false, Life::until(0), 0, 0).await;
        assert_eq!(parked, Some(Verdict::Parked));
        let bench = Bench::new(&store, json!({}), false);
        let again = bench.deliver(&message, true, Life::until(0), 0, 0).await;
        assert_eq!(again, Some(Verdict::Parked));
        assert_eq!(bench.peer.attempts.load(Ordering::SeqCst), 0);
        // A person routed it here.
        let (sending, desk) = bench.process(&Life::until(0), 0, 0);
        let finished = desk.work(delivery(&message, false)).await;
        assert_eq!(finished.verdict, Verdict::Done);
        assert_eq!(sending.metrics.resent.get(), 1);
        assert_eq!(bench.row(&message).await.account, "t");
    });
}
