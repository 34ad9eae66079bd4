//! Retries that are left to Vumi's failure worker (`retry.external`), for which a test stands in: it gives back what it was
//! given, and counts.

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
        let [failure] = &self.given().await[..] else {
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
        let worker = Arc::new(Transport {
            name: self.name,
            peer: Arc::clone(&self.peer),
            life: Arc::clone(&life),
        });
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
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
        bench.has_failure_worker().await;
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
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
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
fn without_a_store_a_failure_worker_has_what_would_end_here() {
    in_simulated_time(async {
        let store = simulated_store();
        // Nothing is held here so long.
        let retry = json!({"external": true, "backoff": {"initial": "2m", "max": "2m"}});
        let bench = leaving(&store, json!({"retry": retry}));
        let first = message();
        bench.answers(&[Answer::Busy]);
        bench.handled_by(&first, false, true).await;
        assert_eq!(bench.nacked().await, codes::RETRY_NO_STORE.name);
        bench.has_failure_worker().await;
        for (answer, told) in [(Answer::Busy, 1), (Answer::Away, 2)] {
            bench.answers(&[answer]);
            bench.attempts();
            bench.handled_by(&message(), false, true).await;
            assert_eq!(bench.attempts(), 1, "{answer:?}");
            assert_eq!(verdicts(&bench.events().await), told, "of others");
            bench.answers(&[]);
            let comes = bench.comes_back().await;
            bench.handled_by(&comes, false, true).await;
            assert_eq!(verdicts(&bench.events().await), told + 1);
        }
    });
}

#[test]
fn what_the_peer_may_have_is_given_away_only_if_it_may_be_doubled_and_then_that_is_counted() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = leaving(&store, json!({"onUnknown": {"policy": "fail"}}));
        bench.has_failure_worker().await;
        bench.answers(&[Answer::Lost]);
        bench.handled(&message()).await;
        assert_eq!(bench.nacked().await, codes::FATE_UNKNOWN.name);
        assert_eq!(bench.given().await[0].code(), FailureCode::Permanent);
        let bench = leaving(&store, json!({"onUnknown": {"policy": "retry"}}));
        bench.has_failure_worker().await;
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
            let bench = leaving(&store, json!({}));
            bench.has_failure_worker().await;
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
            let store = simulated_store();
            let bench = leaving(&store, json!({}));
            bench.has_failure_worker().await;
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
        assert!(died < 59 && sent >= 5, "{sent} of {died}");
    });
}

#[test]
fn an_audit_finds_what_a_failure_worker_has_and_what_is_lost_beside_it() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
        bench.has_failure_worker().await;
        let message = message();
        bench.answers(&[Answer::Busy]);
        bench.handled(&message).await;
        let balance = bench.audited().await;
        assert_eq!((balance.missing, balance.found.external), (0, 1));
        assert!(balance.at_rest && balance.imbalance() == 0, "{balance:?}");
        // A row that waits, and no message.
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        let lost = super::message();
        sending.taken_over(&lost, &|| false).await.unwrap();
        let balance = bench.audited().await;
        assert_eq!((balance.missing, balance.found.external), (1, 1));
        bench.handled(&bench.comes_back().await).await;
        let balance = bench.audited().await;
        assert_eq!((balance.missing, balance.found.external), (1, 0));
        bench.handled(&lost).await;
        assert_eq!(bench.audited().await.imbalance(), 0);
    });
}

#[test]
fn what_a_failure_worker_does_not_give_back_is_an_alarm_and_ends_after_the_longest_age() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
        bench.has_failure_worker().await;
        let message = message();
        bench.answers(&[Answer::Busy]);
        bench.handled(&message).await;
        let comes = bench.comes_back().await;
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        let book = sending.book.as_ref().unwrap();
        let never = || false;
        tokio::time::sleep(patience::EXTERNAL + Duration::from_secs(1)).await;
        let row = bench.row(&message).await;
        let late = store.overdue("t", 0, 10).await.unwrap();
        assert_eq!(late, (1, vec![message.message_id().to_owned()]));
        assert!(!sending.end_wait(book, row, &never).await.unwrap());
        assert!(bench.events().await.is_empty(), "nobody is told yet");
        tokio::time::sleep(vumi_api::shared::Retry::MAX_AGE).await;
        let row = bench.row(&message).await;
        // A process that has just begun may find in its queue what was given back meanwhile.
        let (young, _) = bench.process(&Life::until(0), 0, 0);
        let book_of_young = young.book.as_ref().unwrap();
        let ended = young.end_wait(book_of_young, row.clone(), &never).await;
        assert!(!ended.unwrap());
        assert!(sending.end_wait(book, row, &never).await.unwrap());
        assert_eq!(bench.row(&message).await.state, RowState::Failed);
        assert_eq!(bench.nacked().await, codes::RETRY_EXPIRED.name);
        // It comes after all: too late.
        bench.attempts();
        bench.handled(&comes).await;
        assert_eq!(bench.attempts(), 0);
        assert_eq!(verdicts(&bench.events().await), 1);
        // A person may have it sent again.
        assert_eq!(bench.resend(&message, false).await.done, 1);
        bench.handled(&bench.put_back().await).await;
        assert_eq!(bench.row(&message).await.state, RowState::SentFinal);
    });
}

#[test]
fn the_alarm_is_not_later_than_the_longest_age_and_content_is_kept_as_the_manifest_says() {
    in_simulated_time(async {
        let store = simulated_store();
        for (content, is_kept) in [("none", false), ("failed", true), ("all", true)] {
            let retry = json!({"external": true, "maxAge": "10m"});
            let more = json!({"retry": retry, "retention": {"content": content}});
            let bench = leaving(&store, more);
            bench.has_failure_worker().await;
            let message = message();
            bench.answers(&[Answer::Busy]);
            bench.handled(&message).await;
            let row = bench.row(&message).await;
            assert_eq!(row.body.is_some(), is_kept, "{content}");
            let given = row.steps.last().unwrap().at;
            assert_eq!(row.deadline, Some(given + 600_000));
            bench.handled(&bench.comes_back().await).await;
            assert_eq!(bench.row(&message).await.body.is_some(), content == "all");
        }
    });
}

#[test]
fn attempts_begin_anew_when_a_person_or_a_rule_has_a_message_sent_again() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = leaving(&store, json!({}));
        bench.has_failure_worker().await;
        let (first, second) = (message(), message());
        bench.answers(&[Answer::Busy]);
        bench.handled(&counted(&first, 3)).await;
        assert_eq!(bench.row(&first).await.state, RowState::Failed);
        bench.given().await;
        assert_eq!(bench.resend(&first, false).await.done, 1);
        let again = bench.put_back().await;
        assert_eq!(again, first, "as its sender sent it");
        bench.answers(&[Answer::Busy]);
        bench.handled(&again).await;
        assert_eq!(bench.comes_back().await.retries(), 1);

        // One that the failure worker has is sent again only by force, and what it gives back then is not.
        bench.answers(&[Answer::Busy]);
        bench.handled(&second).await;
        let comes = bench.comes_back().await;
        let refused = bench.resend(&second, false).await.refused;
        assert!(refused.keys().all(|why| why.contains("failure worker")));
        assert_eq!(
            (refused.len(), bench.resend(&second, true).await.done),
            (1, 1)
        );
        bench.attempts();
        bench.handled(&bench.put_back().await).await;
        bench.handled(&comes).await;
        assert_eq!(bench.attempts(), 1);
        assert_eq!(bench.row(&second).await.state, RowState::SentFinal);

        // No receipt came: it is sent back by itself.
        let wait = json!({"policy": "wait", "deadline": "1h", "then": "retry"});
        let bench = leaving(&store, json!({"onUnknown": wait}));
        let outbound = QueueSpec::Data("t.outbound".into());
        bench.broker.declare(&outbound).await.unwrap();
        let third = message();
        bench.answers(&[Answer::Lost]);
        bench.handled(&counted(&third, 3)).await;
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        let (book, row) = (sending.book.as_ref().unwrap(), bench.row(&third).await);
        assert!(sending.end_wait(book, row, &|| false).await.unwrap());
        assert_eq!(bench.put_back().await, third);
    });
}
