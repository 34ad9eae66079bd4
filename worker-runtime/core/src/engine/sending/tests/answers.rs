//! Answers that come late or never, receipts, and what is decided without them.

use super::*;
use crate::message::{FailureCode, FailureMessage};

/// A peer that takes every message, answers some late and some never, and sends receipts for all.
struct Forgetful {
    took: Mutex<std::collections::HashMap<String, u32>>,
}

/// What becomes of the answer to the n-th message: of a hundred, ten come too late and one never.
fn answered(number: usize) -> bool {
    number % 100 >= 11
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
            message_id: Some(message.message_id().to_owned()),
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

#[tokio::test]
async fn without_a_receipt_the_deadline_decides() {
    let store = store();
    let wait = |then| json!({"onUnknown": {"policy": "wait", "deadline": "1h", "then": then}});
    let never = || false;

    let bench = Bench::new(&store, wait("fail"), true);
    let (sending, message, row) = waiting(&bench).await;
    assert!(row.body.is_some(), "a person may have it sent again");
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
        message_id: Some(message.message_id().into()),
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
    let mut message = message();
    message.set_field("in_reply_to", Some("request"));
    let row = book.opened(&message);
    let news = News::coded(codes::REPLY_FORWARDED, "forwarded");
    let next = book.moved(&row, RowState::Queued, patience::FORWARDED, news);
    let next = Row {
        holder: Some("t.reply.gone".into()),
        ..next.unwrap()
    };
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
    let once = bench.once(&Telemetry::new().worker("transport/t")).unwrap();
    assert_eq!(
        once.reserve("request").await.unwrap(),
        Taken::Unanswered(codes::HOLDER_GONE),
        "whoever repeats the request is told"
    );
}

#[tokio::test]
async fn a_receipt_that_names_the_peers_id_alone_finds_its_message() {
    let store = store();
    let bench = Bench::new(&store, json!({}), true);
    let message = message();
    let (sending, desk) = bench.process(&Life::until(0), 0, 0);
    let never = || false;
    let receipt = |remote_id: &str| Receipt {
        message_id: None,
        remote_id: Some(remote_id.to_owned()),
        outcome: ReceiptOutcome::Delivered,
    };
    // Faster than the answer: the peer is to repeat it.
    let early = sending.receipt(receipt("remote"), &never).await;
    let Err(Unpublished::Failed(error)) = early else {
        panic!("nothing is known of it: {early:?}");
    };
    assert_eq!(error.code, codes::RECEIPT_UNMATCHED);
    assert_eq!(
        desk.work(delivery(&message, false)).await.verdict,
        Verdict::Done
    );
    let remote_id = bench.row(&message).await.remote_id.unwrap();
    for _ in 0..2 {
        sending.receipt(receipt(&remote_id), &never).await.unwrap();
    }
    assert_eq!(bench.row(&message).await.state, RowState::Delivered);
    let events = bench.events().await;
    assert_eq!(events.len(), 2, "an ack, and one report");
    assert_eq!(events[1].user_message_id(), message.message_id());
    // Another transport has other ids.
    let other = Bench::named("other", &store, json!({}), true);
    let (sending, _) = other.process(&Life::until(0), 0, 0);
    assert!(sending.receipt(receipt(&remote_id), &never).await.is_err());
}

/// A message that a receipt finds in this state.
async fn found_in(state: RowState, bench: &Bench) -> (Arc<Sending>, UserMessage) {
    if state == RowState::Unknown {
        let (sending, message, _) = waiting(bench).await;
        return (sending, message);
    }
    let message = message();
    let (sending, desk) = bench.process(&Life::until(0), 0, 0);
    if state == RowState::Sent {
        let done = desk.work(delivery(&message, false)).await;
        assert_eq!(done.verdict, Verdict::Done);
    } else {
        let book = sending.book.as_ref().unwrap();
        let mut row = book.opened(&message);
        let mut states = vec![RowState::Sending, state];
        states.dedup();
        for state in states {
            let next = book.moved(&row, state, patience::SENDING, News::said("as it was"));
            let next = next.unwrap();
            let put = book.put(&row, &next, &|| false).await.unwrap();
            assert_eq!(put, Put::Stored);
            row = next;
        }
    }
    assert_eq!(bench.row(&message).await.state, state);
    (sending, message)
}

fn reports(message: &UserMessage, outcome: ReceiptOutcome) -> Receipt {
    Receipt {
        message_id: Some(message.message_id().into()),
        remote_id: Some("remote".into()),
        outcome,
    }
}

/// What anybody may be before the peer reports that the user has the message.
const FOUND: [RowState; 5] = [
    RowState::Queued,
    RowState::Sending,
    RowState::Unknown,
    RowState::Sent,
    RowState::Parked,
];

#[test]
fn a_process_that_dies_with_a_receipt_in_hand_leaves_it_to_the_keeper() {
    in_simulated_time(async {
        let wait = json!({"onUnknown": {"policy": "wait", "deadline": "1h", "then": "fail"}});
        let never = || false;
        for state in FOUND {
            let mut by_keeper = 0;
            for dies in 1..10 {
                let store = simulated_store();
                let bench = Bench::new(&store, wait.clone(), true);
                let (next, message) = found_in(state, &bench).await;
                let before = bench.row(&message).await;
                let life = Life::until(dies);
                let (sending, _) = bench.process(&life, 0, 0);
                let receipt = reports(&message, ReceiptOutcome::Delivered);
                tokio::select! {
                    biased;
                    () = life.ended.notified() => {}
                    told = sending.receipt(receipt, &never) => told.unwrap(),
                }
                let (book, row) = (next.book.as_ref().unwrap(), bench.row(&message).await);
                let written = row.told.len() > before.told.len();
                if standing::being_told(&row).is_some() {
                    assert!(row.deadline.is_some(), "the keeper finds it: {row:?}");
                    assert!(next.end_wait(book, row, &never).await.unwrap());
                    by_keeper += 1;
                }
                let events = distinct(&bench.events().await);
                let row = bench.row(&message).await;
                let about = format!("{state:?} and it dies at {dies}: {row:?}, {events:?}");
                let delivered = |event: &&Event| {
                    event.delivery_status() == Some(crate::message::DeliveryStatus::Delivered)
                };
                let heard = events.iter().filter(delivered).count();
                assert_eq!(heard, usize::from(written), "{about}");
                let state = match written {
                    true => RowState::Delivered,
                    false => state,
                };
                assert_eq!(row.state, state, "{about}");
                let acked = usize::from(written || state == RowState::Sent);
                assert_eq!(verdicts(&events), acked, "{about}");
                assert_eq!(row.attempt, before.attempt, "{about}");
            }
            assert!(by_keeper > 1, "{state:?}: {by_keeper}");
        }
    });
}

#[tokio::test]
async fn a_report_that_it_is_on_its_way_decides_nothing() {
    let store = store();
    for state in FOUND {
        let bench = Bench::new(&store, json!({}), true);
        let (sending, message) = found_in(state, &bench).await;
        let (before, events) = (bench.row(&message).await, bench.events().await.len());
        let never = || false;
        for _ in 0..3 {
            let pending = reports(&message, ReceiptOutcome::Pending);
            sending.receipt(pending, &never).await.unwrap();
        }
        let row = bench.row(&message).await;
        assert_eq!(row.state, before.state);
        assert_eq!(bench.events().await.len(), events + 1, "told once");
        let end = reports(&message, ReceiptOutcome::Delivered);
        sending.receipt(end, &never).await.unwrap();
        assert_eq!(bench.row(&message).await.state, RowState::Delivered);
        assert_eq!(verdicts(&bench.events().await), 1);
    }
}

#[test]
fn a_failure_worker_of_vumi_hears_of_what_failed_for_good_if_the_manifest_says_so() {
    in_simulated_time(async {
        for wanted in [true, false] {
            let store = simulated_store();
            let bench = Bench::new(&store, json!({}), false);
            let failures = QueueSpec::Data(FailureMessage::routing_key("t"));
            bench.broker.declare(&failures).await.unwrap();
            // Refused by the peer, given up by us, accepted, and tried again before it is accepted.
            let answers = [
                vec![Answer::Nack],
                vec![Answer::Busy; 4],
                vec![Answer::Ack],
                vec![Answer::Ack, Answer::Busy],
            ];
            let mut failed = Vec::new();
            for (place, answers) in answers.into_iter().enumerate() {
                *bench.peer.answers.lock().unwrap() = answers;
                let life = Life::until(0);
                let worker = bench.transport(&life);
                let (_, mut desk) = bench.desk(&life, Some(Arc::clone(&store)), worker);
                desk.legacy_failures = wanted;
                let message = message();
                let finished = Arc::new(desk).work(delivery(&message, false)).await;
                assert_eq!(finished.verdict, Verdict::Done);
                if place < 2 {
                    failed.push(message);
                }
            }
            let told = bench.read("t.failures").await;
            let told: Vec<FailureMessage> = told
                .iter()
                .map(|body| FailureMessage::decode(body).unwrap())
                .collect();
            if !wanted {
                assert!(told.is_empty());
                continue;
            }
            let messages: Vec<UserMessage> =
                told.iter().filter_map(FailureMessage::message).collect();
            assert_eq!(messages, failed);
            // It keeps them; retries are ours alone.
            assert!(told.iter().all(|f| f.code() == FailureCode::Permanent));
            assert!(
                told[0].reason().starts_with("content: no"),
                "{}",
                told[0].reason()
            );
        }
    });
}
