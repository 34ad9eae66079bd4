//! What became of a message or a person's messages.

use super::*;
use crate::parking::Selection;
use crate::state::ledger::Note;

fn about(question: Question) -> Ask {
    Ask::Why {
        question,
        limit: 10,
    }
}

#[tokio::test]
async fn why_follows_a_reply_back_to_its_question_and_on_to_its_place_in_the_journal() {
    let world = World::new();
    world
        .row("reply", &[RowState::Sending, RowState::Held], &[])
        .await;
    world.wait("first", USER, Reason::Backoff).await;
    world.wait("reply", USER, Reason::Behind).await;
    let person = Some(Person::new(USER).key());
    let note = |id: &str, step: Step| Note {
        message_id: id.into(),
        person: person.clone(),
        step,
    };
    let notes = [
        note(
            "question",
            step(900, "application/echo", "answered", &["reply"]),
        ),
        note("reply", step(950, "dispatcher/d", "routed", &[])),
        note("stranger", step(10, "application/echo", "answered", &[])),
    ];
    world.store.note(&notes, HOUR).await.unwrap();
    for question in [
        Question::Message("reply".into()),
        Question::Message("question".into()),
    ] {
        let ask = Ask::Why {
            question,
            limit: 10,
        };
        let answer: why::Answer = world.ask(ask).await;
        assert_eq!((answer.timelines.len(), answer.truncated), (1, false));
        let workers: Vec<_> = answer.timelines[0]
            .moments
            .iter()
            .map(|m| (m.step.at, m.step.worker.as_str()))
            .collect();
        assert_eq!(
            workers,
            [
                (900, "application/echo"),
                (950, "dispatcher/d"),
                (1_000, "transport/sms"),
                (1_001, "transport/sms")
            ]
        );
        let last = answer.timelines[0].standings.last().unwrap();
        assert_eq!(
            (last.message_id.as_str(), last.state),
            ("reply", Some(RowState::Held))
        );
        assert_eq!(last.waits.as_ref().map(|waits| waits.before), Some(1));
    }
    let of_person: why::Answer = world
        .ask(Ask::Why {
            question: Question::Person("27820001111".into()),
            limit: 10,
        })
        .await;
    let count = of_person.timelines.len();
    assert_eq!(count, 3, "the stranger's too, and what only waits");
    let nothing: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("nobody".into()),
            limit: 10,
        })
        .await;
    assert_eq!(nothing.timelines, []);
    let waiting: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("first".into()),
            limit: 10,
        })
        .await;
    let standing = &waiting.timelines[0].standings[0];
    assert_eq!(standing.state, None, "no transport took it over yet");
    assert_eq!(standing.stage, why::Stage::InJournal);
    assert!(
        standing
            .waits
            .as_ref()
            .is_some_and(|waits| waits.at.is_some())
    );
}

#[tokio::test]
async fn why_finds_a_message_by_its_beginning_a_person_in_any_spelling_and_what_only_waits() {
    let world = World::new();
    world.row("abcd1111", &[RowState::Sent], &[]).await;
    world.row("abcd2222", &[RowState::Sent], &[]).await;
    world.wait("waiting", USER, Reason::Schedule).await;
    world.park("aside").await;
    let one: why::Answer = world.ask(about(Question::Message("abcd1".into()))).await;
    assert_eq!(one.timelines[0].standings[0].message_id, "abcd1111");
    let error = answer(&world.reach, about(Question::Message("abcd".into())));
    let error = error.await.unwrap_err();
    assert_eq!(error.class, ErrorClass::BadInput);
    assert!(error.text.contains("abcd1111, abcd2222"), "{error}");
    let nothing: why::Answer = world.ask(about(Question::Message("abc".into()))).await;
    assert_eq!(nothing.timelines, [], "too short to stand for others");
    for written in ["+27 82 000-1111", "0027820001111"] {
        let theirs: why::Answer = world.ask(about(Question::Person(written.into()))).await;
        let ids = theirs.timelines.iter().flat_map(|t| &t.standings);
        let ids: Vec<&str> = ids.map(|s| s.message_id.as_str()).collect();
        assert!(
            ids.contains(&"abcd1111") && ids.contains(&"waiting"),
            "{ids:?}"
        );
    }
    let aside: why::Answer = world.ask(about(Question::Message("aside".into()))).await;
    let standing = &aside.timelines[0].standings[0];
    assert_eq!(
        (standing.stage, standing.code.as_str()),
        (why::Stage::Parked, codes::BUG_PANIC.name),
        "known to the parking queue alone"
    );
    let error = answer(&world.reach, about(Question::Person("+".into())));
    assert_eq!(error.await.unwrap_err().class, ErrorClass::BadInput);
}

#[tokio::test]
async fn an_inbound_message_that_a_person_drops_has_ended() {
    let mut world = World::new();
    let queue = "app.inbound";
    let consumed = world.reach.queues[QUEUE].clone();
    world.reach.queues.insert(queue.into(), consumed);
    let delivery = RawDelivery {
        tag: 1,
        generation: 1,
        redelivered: false,
        routing_key: queue.into(),
        body: message("in", USER),
        message_id: None,
        delivery_count: None,
    };
    let error = WorkError::new(ErrorClass::Bug, codes::BUG_PANIC, "it panicked");
    let envelope = Envelope::new(queue, &delivery, &error, "application/app", 3);
    let parked = QueueSpec::Parking(parking::parked_queue(queue));
    world.broker.declare(&parked).await.unwrap();
    world
        .broker
        .publish(envelope.publication())
        .await
        .confirmation()
        .await;
    let withdrawal = world.reach.withdrawal(queue);
    let dropped = parking::drop(&*world.broker, &withdrawal, queue, &Selection::All);
    assert_eq!(dropped.await.unwrap().done, 1);
    let gone: why::Answer = world.ask(about(Question::Message("in".into()))).await;
    let standing = &gone.timelines[0].standings[0];
    assert_eq!(
        (standing.stage, standing.code.as_str()),
        (why::Stage::Ended, codes::PARKED_DROPPED.name)
    );
}
