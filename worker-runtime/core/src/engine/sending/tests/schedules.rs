//! A message under random schedules of crashes, failing stores and answers.

use super::*;

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
            false => chance.random_range(0..20),
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
        // Mostly its place is taken after it was missed.
        if verdict.is_none() && chance.random_ratio(7, 8) {
            tokio::time::sleep(alive::HOLD).await;
        }
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

#[test]
fn no_crash_at_any_step_sends_a_message_twice_or_leaves_it_without_an_end() {
    in_simulated_time(async {
        let store = simulated_store();
        for seed in 0..3000 {
            one_schedule(&store, seed).await;
        }
    });
}

/// Each time that no receipt came it is delivered as if for the first time; that ends all the same.
#[test]
fn what_is_sent_again_without_a_receipt_ends_after_as_many_attempts_as_others() {
    in_simulated_time(async {
        for (retry, sent) in [
            (json!({"maxAttempts": 4}), 4),
            (json!({"maxAttempts": 9, "maxAge": "3s"}), 3),
            (json!({"maxAttempts": 9, "maxAge": "1s"}), 2),
        ] {
            let store = simulated_store();
            let again = json!({"policy": "wait", "deadline": "1s", "then": "retry"});
            let settings = json!({"onUnknown": again, "retry": retry});
            let (bench, message) = (Bench::new(&store, settings, true), message());
            let (sending, desk) = bench.process(&Life::until(0), 0, 0);
            let mut row = None;
            for delivered in 0..20 {
                bench.peer.answers.lock().unwrap().push(Answer::Lost);
                let finished = Arc::clone(&desk).work(delivery(&message, delivered > 0));
                assert_eq!(finished.await.verdict, Verdict::Done);
                tokio::time::sleep(Duration::from_millis(1001)).await;
                let (book, unknown) = (sending.book.as_ref().unwrap(), bench.row(&message).await);
                assert_eq!(unknown.state, RowState::Unknown);
                assert!(sending.end_wait(book, unknown, &|| false).await.unwrap());
                let now = bench.row(&message).await;
                if now.state.is_final() {
                    row = Some(now);
                    break;
                }
                assert_eq!(now.state, RowState::Queued);
            }
            assert_eq!(row.expect("it ends").state, RowState::Failed);
            assert_eq!(bench.peer.took.load(Ordering::SeqCst), sent, "{retry}");
            let events = bench.events().await;
            let nacks = events.iter().filter(|e| e.event_type() == EventType::Nack);
            assert_eq!(nacks.count(), 1);
        }
    });
}
