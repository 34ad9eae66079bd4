//! What is kept about messages that Vumi's failure worker has: their rows, for audits, for the alarm, and for a person who has
//! one sent again.

use super::*;
use crate::engine::sending::keeper::Round;

#[test]
fn what_a_failure_worker_gave_back_waits_in_its_class_as_long_as_others() {
    in_simulated_time(async {
        let bench = with_failure_worker(&simulated_store(), json!({})).await;
        let message = message();
        bench.answers(&[Answer::Busy]);
        bench.handled(&message).await;
        let comes = bench.comes_back().await;
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        sending.taken_over(&comes, &|| false).await.unwrap();
        let row = bench.row(&message).await;
        assert_eq!((row.state, row.is_external()), (RowState::Queued, false));
        let given = row.steps.last().unwrap().at;
        let patience = patience::CLASS.as_millis() as u64;
        assert_eq!((row.deadline, row.body), (Some(given + patience), None));
        bench.handled(&comes).await;
        assert_eq!(bench.attempts(), 2);
        assert_eq!(bench.row(&message).await.state, RowState::SentFinal);
    });
}

#[test]
fn an_audit_finds_what_a_failure_worker_has_and_what_is_lost_beside_it() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = with_failure_worker(&store, json!({})).await;
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
        // Where there is no failure worker no row is read for it.
        let other = Bench::named("other", &store, json!({}), false);
        let (sending, _) = other.process(&Life::until(0), 0, 0);
        sending
            .taken_over(&super::message(), &|| false)
            .await
            .unwrap();
        let sources = Sources {
            queues: [("other.outbound".to_owned(), Arc::clone(&other.broker))].into(),
            in_flight: None,
        };
        let balances = audit(&*store, &sources).await.unwrap();
        let of_other = balances.iter().find(|balance| balance.account == "other");
        assert_eq!(
            of_other.map(|b| (b.missing, b.found.external)),
            Some((1, 0))
        );
    });
}

/// What it gave back may wait in our queue behind others, and the row says nothing of that.
#[test]
fn what_a_failure_worker_does_not_give_back_is_an_alarm_and_whatever_comes_late_is_sent() {
    in_simulated_time(async {
        let keep = json!({"retention": {"ledger": "72h"}});
        let bench = with_failure_worker(&simulated_store(), keep).await;
        let (late, lost) = (message(), message());
        for message in [&late, &lost] {
            bench.answers(&[Answer::Busy]);
            bench.handled(message).await;
        }
        let given = bench.given().await;
        let comes = given_back(&given[0]);
        assert_eq!(comes.message_id(), late.message_id());
        // It was given back, and waits behind a backlog.
        let outbound = QueueSpec::Data("t.outbound".into());
        bench.broker.declare(&outbound).await.unwrap();
        let waits = crate::broker::Publication {
            exchange: String::new(),
            routing_key: "t.outbound".into(),
            message_id: None,
            body: comes.encode(),
            class: crate::broker::PublicationClass::Direct,
        };
        let receipt = bench.broker.publish(waits).await;
        let taken = receipt.confirmation().await;
        assert_eq!(taken, crate::broker::Confirmation::Confirmed);
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        let maxage = vumi_api::shared::Retry::MAX_AGE;
        for later in [patience::EXTERNAL + Duration::from_secs(1), maxage, maxage] {
            tokio::time::sleep(later).await;
            let looked = keeper.look(book, &mut round, &|| false).await;
            assert_eq!(looked.unwrap(), 2, "both are an alarm");
            assert!(bench.events().await.is_empty(), "nobody is told");
        }
        bench.attempts();
        bench.handled(&bench.put_back().await).await;
        assert_eq!(bench.attempts(), 1, "it is sent all the same");
        assert_eq!(bench.row(&late).await.state, RowState::SentFinal);
        // A person may have the other one sent again.
        assert_eq!(bench.resend(&lost, true).await.done, 1);
        bench.handled(&bench.put_back().await).await;
        assert_eq!(bench.row(&lost).await.state, RowState::SentFinal);
        assert_eq!(verdicts(&bench.events().await), 2);
    });
}

#[test]
fn what_never_comes_back_keeps_its_content_no_longer_than_what_ended() {
    in_simulated_time(async {
        let keep = json!({"retention": {"ledger": "24h"}});
        let bench = with_failure_worker(&simulated_store(), keep).await;
        let message = message();
        bench.answers(&[Answer::Busy]);
        bench.handled(&message).await;
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        for (hours, is_kept) in [(23, true), (2, false), (24, false)] {
            tokio::time::sleep(Duration::from_secs(hours * 3600)).await;
            let looked = keeper.look(book, &mut round, &|| false).await;
            assert_eq!(looked.unwrap(), 1, "it stays an alarm");
            let row = bench.row(&message).await;
            assert_eq!((row.body.is_some(), row.is_external()), (is_kept, true));
        }
        let version = bench.row(&message).await.version;
        let looked = keeper.look(book, &mut round, &|| false).await;
        assert_eq!(looked.unwrap(), 1);
        assert_eq!(bench.row(&message).await.version, version, "nothing to do");
        for force in [false, true] {
            let done = bench.resend(&message, force).await;
            let why = done.refused.keys().next().cloned().unwrap_or_default();
            assert!(why.contains("retention.ledger"), "{why}");
        }
        // What comes back after all is sent.
        let comes = bench.comes_back().await;
        bench.attempts();
        bench.handled(&comes).await;
        assert_eq!(bench.attempts(), 1);
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
            let bench = with_failure_worker(&store, more).await;
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
        let bench = with_failure_worker(&store, json!({})).await;
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
