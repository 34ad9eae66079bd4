//! Messages that a person has sent again.

use super::*;
use crate::resend::{Chosen, Resend, Resent, list};

async fn resend(bench: &Bench, message: &UserMessage, force: bool) -> Resent {
    let mut done = Resent::default();
    let resend = Resend {
        store: &*bench.store,
        broker: &*bench.broker,
        force,
    };
    let resent = resend.all(&of(message), &mut done).await;
    resent.unwrap();
    done
}

fn of(message: &UserMessage) -> Chosen {
    Chosen {
        ids: vec![message.message_id().to_owned()],
        ..Chosen::default()
    }
}

/// A message that was sent and ended so.
async fn ended(bench: &Bench, answer: Answer) -> UserMessage {
    let queue = QueueSpec::Data(format!("{}.outbound", bench.name));
    bench.broker.declare(&queue).await.unwrap();
    bench.peer.answers.lock().unwrap().push(answer);
    let message = message();
    let sent = bench.deliver(&message, false, Life::until(0), 0, 0).await;
    assert_eq!(sent, Some(Verdict::Done));
    message
}

/// Takes the message out of its queue to the peer, who answers so.
async fn sent_again(bench: &Bench, message: &UserMessage, answer: Answer) -> Arc<Sending> {
    let mut shelf = bench.broker.shelf("t.outbound", 10).await.unwrap();
    let [one] = shelf.messages() else {
        panic!("one message waits");
    };
    assert_eq!(one.body, message.encode());
    let tag = one.tag;
    shelf.remove(tag).await.unwrap();
    shelf.close().await;
    bench.peer.answers.lock().unwrap().push(answer);
    let (sending, desk) = bench.process(&Life::until(0), 0, 0);
    let finished = desk.work(delivery(message, false)).await;
    assert_eq!(finished.verdict, Verdict::Done);
    sending
}

#[test]
fn a_message_that_failed_is_sent_again_when_a_person_says_so_and_gets_no_second_nack() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        let message = ended(&bench, Answer::Nack).await;
        let before = bench.row(&message).await;
        assert_eq!(before.state, RowState::Failed);
        let listed = list(&*store, &of(&message), false).await.unwrap();
        assert_eq!((listed[0].may_double, &listed[0].refused), (false, &None));
        let done = resend(&bench, &message, false).await;
        assert_eq!((done.done, done.may_double), (1, 0));
        // It is refused once more.
        sent_again(&bench, &message, Answer::Nack).await;
        assert_eq!(bench.row(&message).await.state, RowState::Failed);
        let done = resend(&bench, &message, false).await;
        assert_eq!(done.done, 1);
        let sending = sent_again(&bench, &message, Answer::Ack).await;
        assert_eq!(sending.metrics.resent.get(), 0, "the peer had it never");
        let row = bench.row(&message).await;
        assert_eq!((row.state, row.attempt), (RowState::SentFinal, 3));
        assert!(row.steps.starts_with(&before.steps), "history stays");
        assert_eq!(row.body, None);
        let told: Vec<_> = distinct(&bench.events().await)
            .iter()
            .map(|e| (e.event_type(), e.delivery_status()))
            .collect();
        let report = |status| (EventType::DeliveryReport, Some(status));
        assert_eq!(
            told,
            [
                (EventType::Nack, None),
                report(DeliveryStatus::Failed),
                report(DeliveryStatus::Pending)
            ],
            "one nack ever"
        );
        // A delivery that comes again repeats what was told last, and sends nothing.
        let again = bench.deliver(&message, true, Life::until(0), 0, 0).await;
        assert_eq!(again, Some(Verdict::Done));
        assert_eq!(bench.peer.attempts.load(Ordering::SeqCst), 3);
        assert_eq!(distinct(&bench.events().await).len(), 3);
    });
}

#[test]
fn what_nobody_knows_may_be_sent_twice_by_a_person_and_is_counted() {
    in_simulated_time(async {
        let store = simulated_store();
        for policy in ["fail", "wait"] {
            let bench = Bench::new(&store, json!({"onUnknown": {"policy": policy}}), true);
            let message = ended(&bench, Answer::Lost).await;
            let done = resend(&bench, &message, false).await;
            assert_eq!((done.done, done.may_double), (1, 1), "{policy}");
            let sending = sent_again(&bench, &message, Answer::Ack).await;
            assert_eq!(sending.metrics.resent.get(), 1, "{policy}");
            let row = bench.row(&message).await;
            assert_eq!(row.state, RowState::Sent, "{policy}");
            assert_eq!(verdicts(&bench.events().await), 1, "{policy}");
            // Its receipt ends it.
            let receipt = Receipt {
                message_id: Some(message.message_id().to_owned()),
                remote_id: row.remote_id,
                outcome: ReceiptOutcome::Delivered,
            };
            sending.receipt(receipt, &|| false).await.unwrap();
            assert_eq!(bench.row(&message).await.state, RowState::Delivered);
            let last = bench.events().await.pop().unwrap();
            assert_eq!(last.delivery_status(), Some(DeliveryStatus::Delivered));
        }
    });
}

#[test]
fn what_the_peer_has_or_whose_content_is_gone_is_not_sent_again() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        let sent = ended(&bench, Answer::Ack).await;
        for (force, why) in [(false, "the peer has it"), (true, "its content")] {
            let done = resend(&bench, &sent, force).await;
            assert_eq!(done.done, 0);
            assert!(done.refused.keys().all(|k| k.starts_with(why)), "{done:?}");
        }
        let bench = Bench::new(&store, json!({"retention": {"content": "none"}}), false);
        let failed = ended(&bench, Answer::Nack).await;
        assert_eq!(bench.row(&failed).await.body, None);
        assert_eq!(resend(&bench, &failed, true).await.done, 0);
        let bench = Bench::new(&store, json!({"retention": {"content": "all"}}), false);
        let sent = ended(&bench, Answer::Ack).await;
        assert_eq!(resend(&bench, &sent, false).await.done, 0);
        let done = resend(&bench, &sent, true).await;
        assert_eq!((done.done, done.may_double), (1, 1));
        let sending = sent_again(&bench, &sent, Answer::Ack).await;
        assert_eq!(sending.metrics.resent.get(), 1);
        assert_eq!(bench.row(&sent).await.state, RowState::SentFinal);
        assert_eq!(verdicts(&bench.events().await), 1);
        // On its way: never.
        let waiting = message();
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        sending.taken_over(&waiting, &|| false).await.unwrap();
        assert_eq!(resend(&bench, &waiting, true).await.done, 0);
    });
}

#[test]
fn a_resend_that_dies_before_it_published_is_finished_by_the_transport() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        let message = ended(&bench, Answer::Nack).await;
        let life = Life::until(1);
        let dying = Stepped(Arc::clone(&bench.broker), Arc::clone(&life));
        let mut done = Resent::default();
        let resend = Resend {
            store: &*store,
            broker: &dying,
            force: false,
        };
        let chosen = of(&message);
        tokio::select! {
            _ = resend.all(&chosen, &mut done) => panic!("it dies"),
            () = life.ended.notified() => {}
        }
        assert!(bench.read("t.outbound").await.is_empty());
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        let (book, row) = (sending.book.as_ref().unwrap(), bench.row(&message).await);
        assert!(sending.end_wait(book, row, &|| false).await.unwrap());
        sent_again(&bench, &message, Answer::Ack).await;
        assert_eq!(bench.row(&message).await.state, RowState::SentFinal);
        assert_eq!(bench.peer.took.load(Ordering::SeqCst), 1);
    });
}
