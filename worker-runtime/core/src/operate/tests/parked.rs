//! Messages set aside: dropped, expired, second copies of others, and more than are looked at one by one.

use super::*;
use crate::parking::Selection;

#[tokio::test]
async fn beyond_the_limit_an_audit_counts_and_an_erasure_says_what_it_did_not_look_at() {
    let world = World::new();
    let all = parking::KEPT_LIMIT + 1;
    for number in 1..=all {
        world.park(&format!("m{number}")).await;
    }
    world
        .row(&format!("m{all}"), &[RowState::Parked], &[])
        .await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances.len(), 1);
    assert_eq!(balances[0].imbalance(), 0, "{balances:?}");
    let parked = balances[0].found.parked.expect("looked at");
    assert_eq!(parked.expected, all);
    for (removed, said) in [(all - 1, true), (1, false)] {
        let report: erase::Report = world
            .ask(Ask::Erase {
                address: USER.into(),
                dry_run: false,
            })
            .await;
        let queue = parking::parked_queue(QUEUE);
        let found = report.removed.iter().find(|one| one.place == queue);
        assert_eq!(found.map(|one| one.count), Some(removed));
        let beyond = report.not_reached.iter().any(|t| t.starts_with(&queue));
        assert_eq!(beyond, said, "{report:?}");
    }
}

#[tokio::test]
async fn parked_messages_that_are_dropped_or_expire_end_too() {
    let world = World::new();
    for id in ["dropped", "expired"] {
        world
            .row(id, &[RowState::Sending, RowState::Parked], &[])
            .await;
    }
    world.park("dropped").await;
    let withdrawal = world.reach.withdrawal(QUEUE);
    let handled = parking::drop(&*world.broker, &withdrawal, QUEUE, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 1);
    world.park_ago("expired", 2 * HOUR).await;
    let expire = |keep| parking::expire(&*world.broker, &withdrawal, QUEUE, keep);
    let kept = expire(3 * HOUR).await.unwrap();
    assert_eq!((kept.done, kept.kept), (0, 1), "its time is not over");
    let over = expire(HOUR).await.unwrap();
    assert_eq!((over.done, over.kept), (1, 0));
    let rows = ["dropped", "expired"].map(|id| world.store.row(id));
    let [dropped, expired] = futures::future::join_all(rows).await.try_into().unwrap();
    assert_eq!(dropped.unwrap().unwrap().state, RowState::Cancelled);
    assert_eq!(expired.unwrap().unwrap().state, RowState::Expired);
    let events = world.events(2).await;
    let codes: Vec<_> = events
        .iter()
        .filter_map(|e| e.fate())
        .map(|f| f.code)
        .collect();
    assert_eq!(codes, ["parked.dropped", "parked.expired"]);
}

/// Set aside twice because a process ended, sent back once: of the other copy nobody is told.
#[tokio::test]
async fn a_copy_of_what_the_peer_has_is_dropped_without_a_word() {
    let world = World::new();
    for state in [RowState::Sending, RowState::Sent, RowState::Unknown] {
        let id = state.as_str();
        world.row(id, &[RowState::Parked, state], &[]).await;
        world.park(id).await;
    }
    let withdrawal = world.reach.withdrawal(QUEUE);
    let handled = parking::drop(&*world.broker, &withdrawal, QUEUE, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 3);
    for state in [RowState::Sending, RowState::Sent, RowState::Unknown] {
        let row = world.store.row(state.as_str()).await.unwrap().unwrap();
        assert_eq!(row.state, state, "its row goes on");
    }
    assert_eq!(world.broker.ready("sms.event").await.unwrap(), 0);
}

/// The process wrote down what the peer had said, and died before its sender was told: what is left of the message here is
/// all that brings it back.
#[tokio::test]
async fn a_copy_takes_the_verdict_to_its_sender_when_it_goes() {
    let world = World::new();
    for (id, state) in [
        ("parked", RowState::SentFinal),
        ("journaled", RowState::Sent),
    ] {
        let mut ack = Event::ack(id, "remote-1");
        ack.set_transport_name("sms");
        world.row(id, &[state], &[&ack]).await;
    }
    world.park("parked").await;
    world.wait("journaled", USER, Reason::Backoff).await;
    let withdrawal = world.reach.withdrawal(QUEUE);
    let handled = parking::drop(&*world.broker, &withdrawal, QUEUE, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 1);
    let expired = journal_desk::expire(&*world.store, &withdrawal, QUEUE, HOUR).await;
    assert_eq!(expired.unwrap().told, 1);
    let events = world.events(2).await;
    for (event, id) in events.iter().zip(["parked", "journaled"]) {
        let row = world.store.row(id).await.unwrap().unwrap();
        assert_eq!(event.encode(), row.told[0].as_bytes(), "as it was written");
        assert!(matches!(row.state, RowState::SentFinal | RowState::Sent));
    }
}
