//! Messages that wait in a journal: listed, counted, released, dropped, expired.

use super::*;
use crate::message::EventType;
use crate::state::journal::Cause;

#[tokio::test]
async fn journaled_messages_are_listed_without_content_and_chosen_by_lane_and_reason() {
    let world = World::new();
    world.wait("a", USER, Reason::Backoff).await;
    world.wait("b", USER, Reason::Behind).await;
    world.wait("c", "27820002222", Reason::Throttle).await;
    let listed: Vec<journal_desk::Summary> = world.ask(list(None, all())).await;
    let ids: Vec<_> = listed
        .iter()
        .filter_map(|s| s.message_id.as_deref())
        .collect();
    assert_eq!(ids.len(), 3);
    let text = json!(listed).to_string();
    assert!(
        !text.contains("secret") && !text.contains("2782000"),
        "{text}"
    );
    let lane = Filter {
        lane: Some(Person::new("27820001111").lane()),
        ..all()
    };
    let listed: Vec<journal_desk::Summary> = world.ask(list(Some(QUEUE), lane)).await;
    let places: Vec<_> = listed
        .iter()
        .map(|s| (s.message_id.as_deref(), s.place))
        .collect();
    assert_eq!(places, [(Some("a"), 0), (Some("b"), 1)]);
    let count = |filter| Ask::JournalCount {
        queue: QUEUE.into(),
        filter,
    };
    let counted: Counted = world.ask(count(all())).await;
    assert_eq!((counted.messages, counted.lanes), (3, 2));
    let throttled = Filter {
        reason: Some(Reason::Throttle),
        ..all()
    };
    let counted: Counted = world.ask(count(throttled.clone())).await;
    assert_eq!(
        (counted.messages, counted.lanes, counted.more),
        (1, 1, false)
    );
    let released: Value = world
        .ask(Ask::JournalRelease {
            queue: QUEUE.into(),
            filter: throttled,
        })
        .await;
    assert_eq!(released["lanes"], 1);
    assert_eq!(
        world.store.next_due(QUEUE).await.unwrap(),
        Some(Duration::ZERO)
    );
}

#[tokio::test]
async fn a_dropped_message_is_cancelled_and_its_sender_hears_one_final_event() {
    let world = World::new();
    let ack = Event::ack("resent", "remote-1");
    world
        .row("held", &[RowState::Sending, RowState::Held], &[])
        .await;
    let row = world.row("resent", &[RowState::Held], &[&ack]).await;
    let resent = Row {
        told_before: row.told.len(),
        version: row.version + 1,
        ..row.clone()
    };
    let put = world.store.put(&resent, Some(row.version), HOUR).await;
    assert_eq!(put.unwrap(), Put::Stored);
    world.row("over", &[RowState::Failed], &[]).await;
    for id in ["held", "resent", "over", "without-row"] {
        world.wait(id, USER, Reason::Backoff).await;
    }
    let dropped: Dropped = world
        .ask(Ask::JournalDrop {
            queue: QUEUE.into(),
            filter: all(),
        })
        .await;
    assert_eq!((dropped.done, dropped.told, dropped.untold), (4, 3, 0));
    assert_eq!(dropped.stopped, None);
    assert_eq!(world.store.depth(QUEUE).await.unwrap().messages, 0);
    let events = world.events(3).await;
    let types: Vec<_> = events
        .iter()
        .map(|e| (e.user_message_id().to_owned(), e.event_type()))
        .collect();
    assert_eq!(
        types,
        [
            ("held".to_owned(), EventType::Nack),
            ("resent".to_owned(), EventType::DeliveryReport),
            ("without-row".to_owned(), EventType::Nack)
        ]
    );
    for event in &events {
        let fate = event.fate().expect("a fate");
        assert_eq!(
            (fate.code.as_str(), fate.is_final),
            ("journal.dropped", true)
        );
        assert_eq!(event.transport_name(), Some("sms"));
    }
    let states = |id: &'static str| async { world.store.row(id).await.unwrap().map(|r| r.state) };
    assert_eq!(states("held").await, Some(RowState::Cancelled));
    assert_eq!(states("resent").await, Some(RowState::Cancelled));
    assert_eq!(states("over").await, Some(RowState::Failed), "it had ended");
    assert_eq!(states("without-row").await, None);
}

#[tokio::test]
async fn without_a_broker_the_sender_is_not_told_and_that_is_counted() {
    let mut world = World::new();
    world.reach.queues.clear();
    world.row("held", &[RowState::Held], &[]).await;
    world.wait("held", USER, Reason::Backoff).await;
    let dropped: Dropped = world
        .ask(Ask::JournalDrop {
            queue: QUEUE.into(),
            filter: all(),
        })
        .await;
    assert_eq!((dropped.done, dropped.told, dropped.untold), (1, 0, 1));
    let row = world.store.row("held").await.unwrap().unwrap();
    assert_eq!(row.state, RowState::Cancelled);
    let told = Event::decode(row.told[0].as_bytes()).unwrap();
    assert_eq!(
        told.event_type(),
        EventType::Nack,
        "kept for who can tell it"
    );
}

/// A message that a worker has in hand is its own: it may be sending it. Nobody hears of it, and it is said how many.
#[tokio::test]
async fn what_a_worker_has_in_hand_is_not_dropped() {
    let world = World::new();
    for id in ["in-hand", "behind"] {
        world.row(id, &[RowState::Held], &[]).await;
        world.wait(id, USER, Reason::Backoff).await;
    }
    let _: Value = world
        .ask(Ask::JournalRelease {
            queue: QUEUE.into(),
            filter: all(),
        })
        .await;
    let heads = world.store.claim(QUEUE, "", 10, HOUR).await.unwrap();
    let dropped: Dropped = world.ask(drop_all()).await;
    assert_eq!((dropped.done, dropped.told, dropped.in_hand), (1, 1, 1));
    let row = world.store.row("in-hand").await.unwrap().unwrap();
    assert_eq!(row.state, RowState::Held, "nobody ended it");
    let [head] = &heads[..] else {
        panic!("one lane: {heads:?}");
    };
    let next = world.store.step(
        QUEUE,
        &head.lane,
        head.id,
        crate::state::journal::Step::Done,
        HOUR,
    );
    assert_eq!(next.await.unwrap(), crate::state::journal::Next::Empty);
    let events = world.events(1).await;
    assert_eq!(events[0].user_message_id(), "behind");
}

fn drop_all() -> Ask {
    Ask::JournalDrop {
        queue: QUEUE.into(),
        filter: all(),
    }
}

/// What waits in its partitions and classes is of a queue; another queue's is not.
#[tokio::test]
async fn a_divided_queue_is_counted_released_and_dropped_with_its_parts() {
    let world = World::new();
    let parts = ["sms.outbound.p1", "sms.outbound.bulk.p0"];
    for (id, queue) in [("a", parts[0]), ("b", parts[1]), ("c", "mms.outbound")] {
        world.row(id, &[RowState::Held], &[]).await;
        world.wait_in(queue, id, USER, Reason::Held, 1_000).await;
    }
    let count = || Ask::JournalCount {
        queue: QUEUE.into(),
        filter: all(),
    };
    let counted: Counted = world.ask(count()).await;
    assert_eq!((counted.messages, counted.lanes), (2, 2));
    let without_process = Reach {
        queues: BTreeMap::new(),
        ..world.reach.clone()
    };
    let counted = answer(&without_process, count()).await.unwrap();
    assert_eq!(counted["messages"], 2, "its parts say that there is one");
    let released: Value = world
        .ask(Ask::JournalRelease {
            queue: QUEUE.into(),
            filter: all(),
        })
        .await;
    assert_eq!(released["lanes"], 2);
    for part in parts {
        let due = world.store.next_due(part).await.unwrap();
        assert_eq!(due, Some(Duration::ZERO), "{part}");
    }
    let dropped: Dropped = world.ask(drop_all()).await;
    assert_eq!((dropped.done, dropped.told), (2, 2));
    assert_eq!(world.store.queues().await.unwrap(), ["mms.outbound"]);
}

/// What could not be told when it was dropped is told later, and no worker gets it in between.
#[tokio::test]
async fn a_drop_that_stopped_early_is_finished_later() {
    let world = World::new();
    world.row("held", &[RowState::Held], &[]).await;
    world.wait("held", USER, Reason::Backoff).await;
    let store = &*world.store;
    let (filter, lease) = (all(), Duration::from_millis(1));
    let withdrawn = store.withdraw(QUEUE, &filter, 10, Cause::Dropped, lease);
    assert_eq!(
        withdrawn.await.unwrap().taken.len(),
        1,
        "and the process died"
    );
    assert_eq!(store.depth(QUEUE).await.unwrap().messages, 0);
    tokio::time::sleep(2 * lease).await;
    let withdrawal = world.reach.withdrawal(QUEUE);
    let finish = || journal_desk::finish(store, &withdrawal, QUEUE);
    let finished = finish().await.unwrap();
    assert_eq!((finished.done, finished.told), (1, 1));
    let row = store.row("held").await.unwrap().unwrap();
    assert_eq!(row.state, RowState::Cancelled);
    assert_eq!(world.events(1).await[0].event_type(), EventType::Nack);
    assert_eq!(finish().await.unwrap(), Dropped::default(), "once");
    assert!(store.queues().await.unwrap().is_empty());
}

/// What waited too long ends as expired, and its sender is told; what is scheduled begins to wait at its time.
#[tokio::test]
async fn what_waits_too_long_expires_and_its_sender_hears_it() {
    let world = World::new();
    world.row("old", &[RowState::Held], &[]).await;
    world.wait("old", USER, Reason::Held).await;
    let in_an_hour = (crate::message::Timestamp::now().epoch() + 3600.0) * 1e3;
    for (id, user, since) in [
        ("young", "27820003333", in_an_hour - 2.0 * 3600e3 + 60e3),
        ("planned", "27820004444", in_an_hour),
    ] {
        world
            .wait_since(id, user, Reason::Schedule, since as u64)
            .await;
    }
    let withdrawal = world.reach.withdrawal("sms.outbound.p3");
    let expired = journal_desk::expire(&*world.store, &withdrawal, QUEUE, HOUR).await;
    let expired = expired.unwrap();
    assert_eq!((expired.done, expired.told, expired.stopped), (1, 1, None));
    let row = world.store.row("old").await.unwrap().unwrap();
    assert_eq!(row.state, RowState::Expired);
    let events = world.events(1).await;
    let fate = events[0].fate().expect("a fate");
    assert_eq!(
        (events[0].event_type(), fate.code.as_str()),
        (EventType::Nack, "journal.expired")
    );
    assert_eq!(world.store.depth(QUEUE).await.unwrap().messages, 2);
}

/// A paused batch would be held again at once: it is left alone, and said with the command that lets it go.
#[tokio::test]
async fn what_a_paused_batch_holds_is_not_released() {
    let world = World::new();
    let held = Append {
        lane: Lane {
            group: "spring".into(),
            number: Person::new(USER).lane(),
        },
        due: Due::Released,
        entry: Entry {
            about: About {
                reason: Reason::Held,
                since: 1_000,
                attempts: 0,
                counted: 0,
                code: String::new(),
                text: String::new(),
                routing_key: QUEUE.into(),
                amqp_message_id: None,
            },
            body: message("held", USER),
        },
    };
    world.store.append(QUEUE, vec![held]).await.unwrap();
    world.wait("other", "27820002222", Reason::Backoff).await;
    let pause = Order::Pause;
    let ordered = world.store.set_order("sms", "spring", Some(&pause));
    ordered.await.unwrap();
    let release = || Ask::JournalRelease {
        queue: QUEUE.into(),
        filter: all(),
    };
    let count = Ask::JournalCount {
        queue: QUEUE.into(),
        filter: all(),
    };
    let counted: Counted = world.ask(count).await;
    assert_eq!((counted.messages, counted.lanes), (2, 2));
    assert_eq!((counted.held, counted.held_lanes), (1, 1));
    let released: Released = world.ask(release()).await;
    let paused = journal_desk::Paused {
        account: "sms".into(),
        batch: "spring".into(),
        messages: 1,
    };
    assert_eq!((released.lanes, released.paused), (1, vec![paused]));
    let due = || async {
        let listed: Vec<journal_desk::Summary> = world.ask(list(None, all())).await;
        let held = listed.into_iter().find(|one| one.group == "spring");
        held.expect("it waits").due
    };
    assert_eq!(due().await, None);
    let lifted = world.store.set_order("sms", "spring", None);
    lifted.await.unwrap();
    let released: Released = world.ask(release()).await;
    assert_eq!(released.paused, []);
    assert!(due().await.is_some());
}
