//! Retries that are left to Vumi's failure worker (`retry.external`), for which a test stands in: it gives back what it was
//! given, and counts.

mod kept;

use super::*;
use crate::audit::{Balance, Sources, audit};
use crate::message::{FailureCode, FailureMessage};
use crate::resend::{Chosen, Resend, Resent};

const FAILURES: &str = "t.failures";

/// A transport that leaves its retries to a failure worker.
fn leaving(store: &Arc<dyn StateStore>, more: serde_json::Value) -> Bench {
    let retry =
        json!({"external": true, "maxAttempts": 4, "backoff": {"initial": "1ms", "max": "2ms"}});
    let mut settings = json!({"retry": retry, "legacyFailures": true});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    Bench::new(store, settings, false)
}

/// The same after a failure worker has been there.
async fn with_failure_worker(store: &Arc<dyn StateStore>, more: serde_json::Value) -> Bench {
    let bench = leaving(store, more);
    bench.has_failure_worker().await;
    bench
}

impl Bench {
    /// A failure worker has been there.
    async fn has_failure_worker(&self) {
        let queue = QueueSpec::Data(FAILURES.into());
        self.broker.declare(&queue).await.unwrap();
    }

    /// What the failure worker was given since it was asked last.
    async fn given(&self) -> Vec<FailureMessage> {
        let mut shelf = self.broker.shelf(FAILURES, 100).await.unwrap();
        let given: Vec<(u64, FailureMessage)> = shelf
            .messages()
            .iter()
            .map(|m| (m.tag, FailureMessage::decode(&m.body).unwrap()))
            .collect();
        for (tag, _) in &given {
            shelf.remove(*tag).await.unwrap();
        }
        shelf.close().await;
        given.into_iter().map(|(_, failure)| failure).collect()
    }

    /// The one message that the failure worker was given, as it gives it back.
    async fn comes_back(&self) -> UserMessage {
        let given = self.given().await;
        let [failure] = &given[..] else {
            panic!("one message is given");
        };
        assert_eq!(failure.code(), FailureCode::Temporary);
        given_back(failure)
    }

    /// What the peer answers, the first first.
    fn answers(&self, answers: &[Answer]) {
        let answers = answers.iter().rev().copied().collect();
        *self.peer.answers.lock().unwrap() = answers;
    }

    /// Attempts since this was asked last.
    fn attempts(&self) -> u32 {
        self.peer.attempts.swap(0, Ordering::SeqCst)
    }

    async fn handled(&self, message: &UserMessage) {
        let verdict = self.deliver(message, false, Life::until(0), 0, 0).await;
        assert_eq!(verdict, Some(Verdict::Done));
    }

    /// The same by a process without a store, or from a queue that does not outlive it.
    async fn handled_by(&self, message: &UserMessage, with_store: bool, lasting: bool) {
        let life = Life::until(0);
        let worker = self.transport(&life);
        let store = with_store.then(|| Arc::clone(&self.store));
        let (_, mut desk) = self.desk(&life, store, worker);
        desk.lasting = lasting;
        let finished = Arc::new(desk).work(delivery(message, false)).await;
        assert_eq!(finished.verdict, Verdict::Done);
    }

    async fn audited(&self) -> Balance {
        let broker = Arc::clone(&self.broker);
        let sources = Sources {
            queues: [("t.outbound".to_owned(), broker)].into(),
            in_flight: None,
        };
        let mut balances = audit(&*self.store, &sources).await.unwrap();
        assert_eq!(balances.len(), 1, "{balances:?}");
        balances.remove(0)
    }

    async fn resend(&self, message: &UserMessage, force: bool) -> Resent {
        let outbound = QueueSpec::Data("t.outbound".into());
        self.broker.declare(&outbound).await.unwrap();
        let resend = Resend {
            store: &*self.store,
            broker: &*self.broker,
            force,
        };
        let chosen = Chosen {
            ids: vec![message.message_id().to_owned()],
            ..Chosen::default()
        };
        let mut done = Resent::default();
        resend.all(&chosen, &mut done).await.unwrap();
        done
    }

    /// The last message that was put into the queue of the transport.
    async fn put_back(&self) -> UserMessage {
        let bodies = self.read("t.outbound").await;
        UserMessage::decode(bodies.last().expect("a message waits")).unwrap()
    }

    /// The code of the last nack.
    async fn nacked(&self) -> String {
        let events = self.events().await;
        let nack = events.iter().rfind(|e| e.event_type() == EventType::Nack);
        nack.expect("a nack").fate().unwrap().code
    }
}

fn counted(message: &UserMessage, retries: impl Into<serde_json::Value>) -> UserMessage {
    let mut message = message.clone();
    let retries: serde_json::Value = retries.into();
    message.set_field("retry_metadata", json!({"retries": retries, "delay": 3}));
    message
}

/// As Vumi's failure worker gives a message back.
fn given_back(failure: &FailureMessage) -> UserMessage {
    let message = failure.message().unwrap();
    let before = message.field("retry_metadata");
    let before = before.map_or(0, |metadata| metadata["retries"].as_u64().unwrap());
    counted(&message, before + 1)
}

#[test]
fn retries_are_left_to_a_failure_worker_of_vumi_if_the_manifest_says_so() {
    in_simulated_time(async {
        let bench = with_failure_worker(&simulated_store(), json!({})).await;
        let first = message();
        bench.answers(&[Answer::Away, Answer::Busy]);
        bench.handled(&first).await;
        assert_eq!(
            bench.attempts(),
            2,
            "a peer that is away is waited for here"
        );
        let row = bench.row(&first).await;
        assert!(row.is_external() && row.deadline.is_some(), "{row:?}");
        let codes: Vec<&str> = row.steps.iter().map(|step| step.code.as_str()).collect();
        let why = codes::BROKER_UNREACHABLE.name;
        assert_eq!(codes[3..], [why, codes::RETRY_EXTERNAL.name], "{codes:?}");
        assert!(bench.events().await.is_empty(), "nobody is told");
        let given = bench.given().await;
        assert_eq!(given.len(), 1);
        assert_eq!(given[0].code(), FailureCode::Temporary);
        assert_eq!(given[0].message().unwrap(), first);
        assert_eq!(given[0].reason(), "busy");
        bench.answers(&[]);
        bench.handled(&given_back(&given[0])).await;
        assert_eq!(bench.attempts(), 1);
        let row = bench.row(&first).await;
        assert_eq!((row.state, row.attempt), (RowState::SentFinal, 3));
        // A copy of it that comes later changes nothing.
        bench.handled(&given_back(&given[0])).await;
        assert_eq!((bench.attempts(), bench.given().await.len()), (0, 0));
        assert_eq!(verdicts(&bench.events().await), 1);

        // The last attempt is the last, whoever had the others made.
        let second = message();
        let mut comes = second.clone();
        bench.answers(&[Answer::Busy; 4]);
        for _ in 1..4 {
            bench.handled(&comes).await;
            assert_eq!(bench.attempts(), 1);
            comes = bench.comes_back().await;
        }
        bench.handled(&comes).await;
        assert_eq!(bench.attempts(), 1);
        let given = bench.given().await;
        assert_eq!(given.len(), 1);
        assert_eq!(given[0].code(), FailureCode::Permanent, "to keep");
        assert_eq!(bench.row(&second).await.state, RowState::Failed);
        assert_eq!(bench.nacked().await, codes::RETRY_EXHAUSTED.name);
        let events = bench.events().await;
        assert_eq!(events.last().unwrap().fate().unwrap().attempt, 4);
    });
}

#[test]
fn while_there_is_no_failure_worker_messages_are_tried_again_here() {
    in_simulated_time(async {
        let bench = leaving(&simulated_store(), json!({}));
        let first = message();
        bench.answers(&[Answer::Busy, Answer::Busy, Answer::Ack]);
        bench.handled(&first).await;
        assert_eq!(bench.attempts(), 3);
        let row = bench.row(&first).await;
        assert_eq!(row.state, RowState::SentFinal);
        let after = row.steps.windows(2).filter_map(|two| {
            (two[0].code == codes::RETRY_EXTERNAL.name).then_some(two[1].code.as_str())
        });
        let corrected = [codes::ROUTE_NO_QUEUE.name; 2];
        assert_eq!(after.collect::<Vec<_>>(), corrected, "{row:?}");
        assert_eq!(row.body, None);
        let second = message();
        bench.answers(&[Answer::Busy; 5]);
        bench.handled(&second).await;
        assert_eq!(bench.attempts(), 4, "as many as without it");
        assert_eq!(bench.row(&second).await.state, RowState::Failed);
        assert_eq!(verdicts(&bench.events().await), 2);
        let queue = bench.broker.depth(FAILURES).await.unwrap();
        assert!(queue.is_none(), "it is its reader's to declare");

        // What a replica holds alone is its own to try.
        bench.has_failure_worker().await;
        bench.answers(&[Answer::Busy, Answer::Ack]);
        bench.handled_by(&message(), true, false).await;
        assert_eq!((bench.attempts(), bench.given().await.len()), (2, 0));
    });
}

#[test]
fn without_a_store_nothing_is_left_to_a_failure_worker() {
    in_simulated_time(async {
        // Nothing is held here so long.
        let retry = json!({"external": true, "backoff": {"initial": "2m", "max": "2m"}});
        let bench = with_failure_worker(&simulated_store(), json!({"retry": retry})).await;
        for answer in [Answer::Busy, Answer::Away] {
            bench.answers(&[answer]);
            bench.handled_by(&message(), false, true).await;
            assert_eq!(bench.attempts(), 1, "{answer:?}");
            assert_eq!(bench.nacked().await, codes::RETRY_NO_STORE.name);
            let given = bench.given().await;
            let temporary = given.iter().filter(|f| f.code() == FailureCode::Temporary);
            assert_eq!(temporary.count(), 0, "{answer:?}");
        }
    });
}

#[test]
fn what_the_peer_may_have_is_given_away_only_if_it_may_be_doubled_and_then_that_is_counted() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = with_failure_worker(&store, json!({"onUnknown": {"policy": "fail"}})).await;
        bench.answers(&[Answer::Lost]);
        bench.handled(&message()).await;
        assert_eq!(bench.nacked().await, codes::FATE_UNKNOWN.name);
        assert_eq!(bench.given().await[0].code(), FailureCode::Permanent);
        let bench = with_failure_worker(&store, json!({"onUnknown": {"policy": "retry"}})).await;
        let message = message();
        bench.answers(&[Answer::Lost]);
        bench.handled(&message).await;
        let comes = bench.comes_back().await;
        bench.answers(&[]);
        let (sending, desk) = bench.process(&Life::until(0), 0, 0);
        let finished = desk.work(delivery(&comes, false)).await;
        assert_eq!(finished.verdict, Verdict::Done);
        assert_eq!(sending.metrics.resent.get(), 1);
        assert_eq!(bench.peer.took.load(Ordering::SeqCst), 2);
        assert_eq!(bench.row(&message).await.state, RowState::SentFinal);
    });
}

#[test]
fn any_count_of_attempts_is_read_and_none_overflows() {
    in_simulated_time(async {
        let store = simulated_store();
        for (retries, is_last) in [
            (json!(u64::MAX), true),
            (json!(u32::MAX), true),
            (json!(1e300), true),
            (json!(3), true),
            (json!(2), false),
            (json!(-1), false),
            (json!("many"), false),
            (json!(null), false),
        ] {
            let bench = with_failure_worker(&store, json!({})).await;
            bench.answers(&[Answer::Busy]);
            bench.handled(&counted(&message(), retries.clone())).await;
            assert_eq!(bench.attempts(), 1, "{retries}");
            let code = match is_last {
                true => FailureCode::Permanent,
                false => FailureCode::Temporary,
            };
            assert_eq!(bench.given().await[0].code(), code, "{retries}");
            assert_eq!(verdicts(&bench.events().await), usize::from(is_last));
        }
        // What somebody else counted is nothing to a transport that tries again by itself.
        let bench = Bench::new(&store, json!({}), false);
        bench.answers(&[Answer::Busy, Answer::Ack]);
        bench.handled(&counted(&message(), u64::MAX)).await;
        assert_eq!(bench.attempts(), 2);
    });
}

#[test]
fn whatever_step_a_process_dies_at_a_message_ends_once_and_is_sent_once() {
    in_simulated_time(async {
        let (mut died, mut sent) = (0, 0);
        for dies in 1..60 {
            let bench = with_failure_worker(&simulated_store(), json!({})).await;
            let message = message();
            bench.answers(&[Answer::Busy]);
            let life = Life::until(dies);
            if bench.deliver(&message, false, life, 0, 0).await.is_some() {
                break;
            }
            died += 1;
            let again = bench.deliver(&message, true, Life::until(0), 0, 0).await;
            assert_eq!(again, Some(Verdict::Done), "{dies}");
            for failure in bench.given().await {
                if failure.code() == FailureCode::Temporary {
                    bench.handled(&given_back(&failure)).await;
                }
            }
            let (row, events) = (bench.row(&message).await, bench.events().await);
            let took = bench.peer.took.load(Ordering::SeqCst);
            let about = format!("it dies at {dies}: {row:?}, {events:?}");
            assert_eq!(verdicts(&events), 1, "{about}");
            match row.state {
                RowState::SentFinal => assert_eq!(took, 1, "{about}"),
                // It died during an attempt: nobody knows.
                _ => {
                    assert_eq!((row.state, took), (RowState::Failed, 0), "{about}");
                    assert_eq!(bench.nacked().await, codes::FATE_UNKNOWN.name, "{about}");
                }
            }
            sent += took;
        }
        // What the peer may have nobody knows only while the row says that it is being sent: from when that is stored,
        // twice at the peer, up to when the next is.
        assert!(died < 59, "it lives in the end");
        assert_eq!(died - sent, 4, "{sent} of {died}");
        // Around the sign of life and before that row, and after the next and around the record.
        assert!(sent >= 6, "{sent} of {died}");
    });
}

/// A peer that does not take messages; the failure worker comes up during the second attempt.
struct Late(Arc<dyn Broker>, AtomicU32);

#[async_trait]
impl Worker for Late {
    async fn handle(&self, _: Input) -> Result<Vec<Output>, WorkError> {
        if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
            let queue = QueueSpec::Data(FAILURES.into());
            self.0.declare(&queue).await?;
        }
        Err(WorkError::new(
            ErrorClass::RemoteTemporary,
            codes::BROKER_UNREACHABLE,
            "busy",
        ))
    }
}

#[test]
fn attempts_made_here_before_there_was_a_failure_worker_count_too() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
        let message = message();
        let peer = Arc::new(Late(Arc::clone(&bench.broker), AtomicU32::new(0)));
        let worker: Arc<dyn Worker> = Arc::<Late>::clone(&peer);
        let (_, desk) = bench.desk(&Life::until(0), Some(Arc::clone(&store)), worker);
        let finished = Arc::new(desk).work(delivery(&message, false)).await;
        assert_eq!(finished.verdict, Verdict::Done);
        assert_eq!(peer.1.load(Ordering::SeqCst), 2);
        let comes = bench.comes_back().await;
        assert_eq!(comes.retries(), 2);
        bench.answers(&[Answer::Busy; 2]);
        bench.handled(&comes).await;
        bench.handled(&bench.comes_back().await).await;
        assert_eq!(bench.attempts(), 2, "four in all");
        assert_eq!(bench.nacked().await, codes::RETRY_EXHAUSTED.name);
    });
}
