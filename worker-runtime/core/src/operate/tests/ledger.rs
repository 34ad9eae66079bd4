//! The audit of a ledger, its counts, and what is overdue or being sent for long.

use super::*;
use crate::state::journal::Cause;

#[tokio::test]
async fn an_audit_is_balanced_until_a_message_is_gone() {
    let world = World::new();
    world
        .row("held", &[RowState::Sending, RowState::Held], &[])
        .await;
    world
        .row("parked", &[RowState::Sending, RowState::Parked], &[])
        .await;
    world
        .row("sent", &[RowState::Sending, RowState::Sent], &[])
        .await;
    world
        .row("done", &[RowState::Sending, RowState::Delivered], &[])
        .await;
    world.wait("held", USER, Reason::Backoff).await;
    world.wait("not-taken-over", USER, Reason::Behind).await;
    world.park("parked").await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    let [balance] = &balances[..] else {
        panic!("one transport: {balances:?}");
    };
    assert_eq!((balance.account.as_str(), balance.imbalance()), ("sms", 0));
    assert!(balance.at_rest, "{balance:?}");
    assert_eq!(balance.found.journal.without_row, 1);
    // A person removes both behind the ledger's back.
    let filter = all();
    let withdrawn = world
        .store
        .withdraw(QUEUE, &filter, 10, Cause::Dropped, HOUR);
    let removed: Vec<u64> = withdrawn
        .await
        .unwrap()
        .taken
        .iter()
        .map(|o| o.id)
        .collect();
    assert_eq!(removed.len(), 2);
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances[0].missing, 0, "it is on its way out");
    world.store.forget(QUEUE, &removed).await.unwrap();
    let gone = parking::of_person(&*world.broker, QUEUE, &Person::new(USER), true).await;
    assert_eq!(gone.unwrap(), 1);
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    let found = (balances[0].missing, balances[0].missing_parked);
    assert_eq!(found, (1, 1), "{balances:?}");
    world.wait("done", USER, Reason::Backoff).await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances[0].finished, 1, "{balances:?}");
}

#[tokio::test]
async fn counts_and_overdue_rows() {
    let world = World::new();
    world
        .row("late", &[RowState::Sending, RowState::Sent], &[])
        .await;
    world.row("done", &[RowState::SentFinal], &[]).await;
    let counts: Vec<RowCount> = world.ask(Ask::LedgerCounts).await;
    let counts: Vec<_> = counts.iter().map(|c| (c.state, c.count)).collect();
    assert_eq!(counts, [(RowState::Sent, 1), (RowState::SentFinal, 1)]);
    let overdue = |account: Option<&str>| Ask::LedgerOverdue {
        account: account.map(str::to_owned),
        limit: 5,
    };
    let late: Vec<Overdue> = world.ask(overdue(None)).await;
    assert_eq!(
        (late[0].count, late[0].rows[0].message_id.as_str()),
        (1, "late")
    );
    let unknown = answer(&world.reach, overdue(Some("other"))).await;
    assert_eq!(unknown.unwrap_err().class, ErrorClass::BadInput);
}

#[tokio::test]
async fn what_is_being_sent_for_long_is_listed_with_who_sends_it_and_until_when() {
    let world = World::new();
    world.row("held", &[RowState::Sending], &[]).await;
    let overdue = Ask::LedgerOverdue {
        account: None,
        limit: 5,
    };
    for lives in [false, true] {
        let late: Vec<Overdue> = world.ask(overdue.clone()).await;
        let [one] = &late[0].sending[..] else {
            panic!("{late:?}")
        };
        assert_eq!(one.message_id, "held");
        assert_eq!((one.sender.since, one.sender.lives), (1_000, lives));
        let sign = world.store.live(&one.sender.name, HOUR).await;
        sign.unwrap();
    }
    let why: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("held".into()),
            limit: 5,
        })
        .await;
    let sender = why.timelines[0].standings[0].sender.as_ref();
    assert_eq!(sender.map(|sender| sender.until), Some(301_000));
}

#[tokio::test]
async fn a_damaged_row_and_a_damaged_entry_stop_neither_lists_nor_an_audit_nor_a_drop() {
    let embedded = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let world = World::on(embedded.clone());
    for id in ["a", "b", "c"] {
        world.row(id, &[RowState::Held], &[]).await;
        world.wait(id, USER, Reason::Backoff).await;
    }
    let listed = world.store.list(QUEUE, &all(), 10).await.unwrap();
    embedded.spoil_row("b").await;
    let damaged = &listed[2];
    embedded.spoil_entry(QUEUE, &damaged.lane, damaged.id).await;
    let summaries: Vec<journal_desk::Summary> = world.ask(list(None, all())).await;
    let reasons: Vec<Reason> = summaries.iter().map(|one| one.reason).collect();
    let expected = [Reason::Backoff, Reason::Backoff, Reason::Unreadable];
    assert_eq!(reasons, expected);
    let late: Vec<Overdue> = world
        .ask(Ask::LedgerOverdue {
            account: None,
            limit: 5,
        })
        .await;
    let rows = late[0].rows.iter();
    let rows: Vec<_> = rows.map(|r| (r.message_id.as_str(), r.state)).collect();
    let held = Some(RowState::Held);
    // Nobody knows since when, so that it is seen first.
    assert_eq!(rows, [("b", None), ("a", held), ("c", held)]);
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    let stored = balances[0].found.journal;
    assert_eq!((stored.expected, stored.without_row), (2, 1));
    assert_eq!(balances[0].missing, 1, "nobody knows whose entry that is");

    let dropped: Dropped = world
        .ask(Ask::JournalDrop {
            queue: QUEUE.into(),
            filter: all(),
        })
        .await;
    assert_eq!(dropped.stopped, None);
    assert_eq!((dropped.done, dropped.told, dropped.untold), (3, 1, 1));
    let left = world.store.outgoing(QUEUE, 10).await.unwrap();
    let left: Vec<u64> = left.iter().map(|one| one.id).collect();
    assert_eq!(
        left,
        [listed[1].id],
        "its row may be read by a later version"
    );
}
